//! An event as a line of the text log.

use crate::model::visible::Visible;
use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

/// `message: error key=value …`, as `sync_logs` has it: what happened and why comes first, numbers
/// and codes last. An event is one line, and nothing in it acts on a terminal, whatever the texts of
/// servers in it are.
pub(super) struct TextFields;

#[derive(Default)]
struct LineParts {
    message: String,
    error: Option<String>,
    rest: String,
    colours: bool,
}

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut parts = LineParts { colours: writer.has_ansi_escapes(), ..LineParts::default() };
        fields.record(&mut parts);
        write!(Visible(&mut writer), "{}", parts.message)?;
        if let Some(error) = &parts.error {
            let separator = if parts.message.is_empty() { "" } else { ": " };
            write!(Visible(&mut writer), "{separator}{error}")?;
        }
        writer.write_str(&parts.rest)
    }
}

impl Visit for LineParts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // writing to a String cannot fail
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "error" => write!(self.error.insert(String::new()), "{value:?}"),
            name => {
                // italic, then dim, as the default format has it
                let _ = if self.colours {
                    write!(self.rest, " \x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")
                } else {
                    write!(self.rest, " {name}=")
                };
                write!(Visible(&mut self.rest), "{value:?}")
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects what a subscriber prints.
    #[derive(Clone, Default)]
    struct CapturedLines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for CapturedLines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A server's words forge no line of the text log and no command to a terminal, with colours
    /// and without.
    #[test]
    fn an_event_is_one_line_whatever_a_server_says() {
        let hostile = "no\u{1b}[2J\u{7}\r\n2026-01-01T00:00:00Z  INFO forged\u{202e}";
        let printed = |colours: bool| {
            let lines = CapturedLines::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(move || writer.clone())
                .fmt_fields(TextFields)
                .with_target(false)
                .with_ansi(colours)
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(mapping_id = 7, error_type = "SYNC", error = %hostile, name = hostile, "poll of {hostile} failed");
            });
            let bytes = lines.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        };
        let plain = printed(false);
        assert_eq!(plain.matches('\n').count(), 1, "{plain:?}");
        assert!(
            !plain.trim_end_matches('\n').contains(crate::model::visible::is_hidden),
            "{plain:?}"
        );
        let shown = "no\\u{1b}[2J\\u{7}\\r\\n2026-01-01T00:00:00Z  INFO forged\\u{202e}";
        let end = format!(
            " ERROR poll of {shown} failed: {shown} mapping_id=7 error_type=\"SYNC\" name=\"{shown}\"\n"
        );
        assert!(plain.ends_with(&end), "{plain:?}");
        let coloured = printed(true);
        assert!(
            coloured.contains("\x1b[3mname\x1b[0m\x1b[2m=\x1b[0m\"no\\u{1b}[2J"),
            "{coloured:?}"
        );
        assert!(
            !coloured.contains("\x1b[2J") && coloured.matches('\n').count() == 1,
            "{coloured:?}"
        );
    }
}
