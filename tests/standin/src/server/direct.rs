//! SQL straight on the engine, without a socket: for a test's set-up, and for asking what is really
//! there.

use crate::{
    error::{SqlError, SqlResult},
    exchange::{
        connection::EngineConnection,
        sink::{Cancelled, Column, DoneKind, EnvChange, Sink},
    },
    value::{SqlType, Value},
};

/// A result set, whole.
#[derive(Clone, Debug, Default)]
pub struct ResultSet {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

/// Everything a batch answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub results: Vec<ResultSet>,
    /// the counts of the statements that count, in order
    pub counts: Vec<u64>,
    /// informational messages, in order
    pub messages: Vec<SqlError>,
    pub errors: Vec<SqlError>,
}

/// Runs a script, batch by batch: a line that is `GO` ends a batch. Stops at the first batch with
/// an error, and returns its first error.
pub(super) fn run_script(engine: &mut dyn EngineConnection, script: &str) -> SqlResult<Answer> {
    let mut answer = Answer::default();
    for batch in batches(script) {
        // Nobody cancels a session of a test's own but the end of the server.
        if engine.batch(&batch, &mut answer).is_err() {
            return Err(SqlError::new(
                596,
                21,
                "Cannot continue the execution because the session is in the kill state.",
            ));
        }
        if let Some(error) = answer.errors.first() {
            return Err(error.clone());
        }
    }
    Ok(answer)
}

/// Cut at the lines that are `GO`, as sqlcmd does it (which takes no semicolon after it).
fn batches(script: &str) -> Vec<String> {
    let mut batches = vec![String::new()];
    for line in script.lines() {
        if line.trim().eq_ignore_ascii_case("go") {
            batches.push(String::new());
        } else if let Some(batch) = batches.last_mut() {
            batch.push_str(line);
            batch.push('\n');
        }
    }
    batches.retain(|batch| !batch.trim().is_empty());
    batches
}

impl Sink for Answer {
    fn columns(&mut self, columns: &[Column]) -> Result<(), Cancelled> {
        self.results.push(ResultSet { columns: columns.to_vec(), rows: Vec::new() });
        Ok(())
    }

    fn row(&mut self, row: &[Value]) -> Result<(), Cancelled> {
        if let Some(result) = self.results.last_mut() {
            result.rows.push(row.to_vec());
        }
        Ok(())
    }

    fn done(&mut self, kind: DoneKind, rows: Option<u64>) -> Result<(), Cancelled> {
        if kind != DoneKind::Select {
            self.counts.extend(rows);
        }
        Ok(())
    }

    fn message(&mut self, message: &SqlError) -> Result<(), Cancelled> {
        if message.class > 10 { &mut self.errors } else { &mut self.messages }
            .push(message.clone());
        Ok(())
    }

    fn env(&mut self, _: &EnvChange) -> Result<(), Cancelled> {
        Ok(())
    }

    fn return_value(&mut self, _: &str, _: SqlType, _: &Value) -> Result<(), Cancelled> {
        Ok(())
    }

    fn return_status(&mut self, _: i32) -> Result<(), Cancelled> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_script_is_cut_at_go() {
        assert_eq!(
            super::batches("SELECT 1\nGO\n\nGO\n go \nSELECT 'GO'\r\nGOTO x\n"),
            ["SELECT 1\n", "SELECT 'GO'\nGOTO x\n"]
        );
    }
}
