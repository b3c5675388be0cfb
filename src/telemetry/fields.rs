//! The fields of an event: those that the log tables have columns for, and the text of the others.

use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};

/// Longest message, in characters: a log is for reading.
const MESSAGE_CHARS_MAX: usize = 8000;

/// The fields of an event that the log tables have columns for, and the words for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EventFields {
    pub message: String,
    /// `error = …`: follows the message behind a colon.
    pub error: Option<String>,
    /// ` key=value` for every other field
    pub rest: String,
    pub mapping_id: Option<i32>,
    pub server_id: Option<i32>,
    pub sync_type: Option<String>,
    pub records_count: Option<i64>,
    pub execution_time_ms: Option<i32>,
    pub error_type: Option<String>,
    pub error_code: Option<String>,
    /// The database of a source server; it stays in the message as well.
    pub database: Option<String>,
    pub error_details: Option<String>,
    pub retry_count: Option<i32>,
    /// The mapping is only tried again now and then.
    pub parked: bool,
}

impl EventFields {
    /// `message: error key=value`
    pub fn words(&self) -> String {
        let mut words = self.message.clone();
        if let Some(error) = &self.error {
            if !words.is_empty() {
                words.push_str(": ");
            }
            words.push_str(error);
        }
        words.push_str(&self.rest);
        match words.char_indices().nth(MESSAGE_CHARS_MAX) {
            Some((at, _)) => format!("{}…", words.get(..at).unwrap_or_default()),
            None => words,
        }
    }

    /// About what it holds in memory.
    pub fn size_bytes(&self) -> usize {
        let texts = [
            &self.error,
            &self.sync_type,
            &self.error_type,
            &self.error_code,
            &self.database,
            &self.error_details,
        ];
        size_of::<EventFields>()
            + self.message.len()
            + self.rest.len()
            + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }

    fn number(&mut self, name: &str, value: i64) {
        let small = || i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX });
        match name {
            "mapping_id" => self.mapping_id = Some(small()),
            "server_id" => self.server_id = Some(small()),
            "records_count" => self.records_count = Some(value),
            "execution_time_ms" => self.execution_time_ms = Some(small()),
            "retry_count" => self.retry_count = Some(small()),
            other => self.other(other, &value),
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        match name {
            "message" => self.message = value.to_owned(),
            "error" => self.error = Some(value.to_owned()),
            "sync_type" => self.sync_type = Some(value.to_owned()),
            "error_type" => self.error_type = Some(value.to_owned()),
            "error_code" => self.error_code = Some(value.to_owned()),
            "database" => {
                self.database = Some(value.to_owned());
                self.other(name, &value);
            }
            "parked" => self.parked = value == "true",
            "error_details" => self.error_details = Some(value.to_owned()),
            // An id given with % comes as text.
            "mapping_id" | "server_id" | "records_count" | "execution_time_ms" | "retry_count" => {
                match value.parse() {
                    Ok(number) => self.number(name, number),
                    Err(_) => self.other(name, &value),
                }
            }
            other => self.other(other, &value),
        }
    }

    fn other(&mut self, name: &str, value: &dyn fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.rest, " {name}={value}");
    }
}

impl Visit for EventFields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut() {
        let fields =
            EventFields { message: "é".repeat(MESSAGE_CHARS_MAX + 1), ..EventFields::default() };
        assert_eq!(fields.words().chars().count(), MESSAGE_CHARS_MAX + 1);
        assert!(fields.words().ends_with('…'));
    }
}
