//! Statements that change rows, as far as the interpreter has a part in them: INSERT … EXEC, OUTPUT
//! to the client, DBCC CHECKIDENT.

use super::{Failure, Stop, done::Done, execute};
use crate::{
    engine::{
        context::{Session, doomed_write},
        dml::{self, Changed, identity::CheckIdent},
        query::host::Row,
    },
    error::{SqlError, SqlResult},
    exchange::sink::{Cancelled, Column, DoneKind, EnvChange, Sink},
    tsql::{
        ast::{Insert, InsertSource},
        parse_name,
    },
    value::{SqlType, Value},
};
use sqlparser::ast::{Expr, UnaryOperator, Value as Literal};

/// A statement that writes: not in a doomed transaction (3930).
pub fn write<T>(
    session: &mut Session,
    run: impl FnOnce(&mut Session) -> SqlResult<T>,
) -> SqlResult<T> {
    if session.doomed {
        return Err(doomed_write());
    }
    session.statement(run)
}

pub fn insert(
    session: &mut Session,
    insert: &Insert,
    sink: &mut dyn Sink,
) -> Result<Done, Failure> {
    let mut stopped = None;
    let result = write(session, |s| {
        let executed = match &insert.source {
            InsertSource::Execute(call) => {
                Some(captured(s, sink, &mut stopped, |s, rows| execute::execute(s, call, rows))?)
            }
            InsertSource::ExecuteText(parts) => {
                Some(captured(s, sink, &mut stopped, |s, rows| {
                    execute::execute_text(s, parts, rows)
                })?)
            }
            InsertSource::Values(_) | InsertSource::Query(_) | InsertSource::DefaultValues => None,
        };
        dml::insert(s, insert, executed, sink)
    });
    if let Some(stop) = stopped {
        return Err(stop.into());
    }
    finish(session, DoneKind::Insert, result?, sink)
}

/// Sets variables, sends OUTPUT's rows.
pub fn finish(
    session: &mut Session,
    kind: DoneKind,
    changed: Changed,
    sink: &mut dyn Sink,
) -> Result<Done, Failure> {
    changed
        .assigned
        .into_iter()
        .try_for_each(|(name, value)| session.set_variable(&name, value))?;
    if let Some((columns, rows)) = changed.output {
        sink.columns(&columns)?;
        rows.iter().try_for_each(|row| sink.row(row))?;
    }
    Ok(Done::rows(kind, changed.rows))
}

/// Runs EXEC and keeps its rows. A stop is put aside in `stopped`: the INSERT is undone, then the
/// stop goes its way.
fn captured(
    session: &mut Session,
    sink: &mut dyn Sink,
    stopped: &mut Option<Stop>,
    run: impl FnOnce(&mut Session, &mut Capture<'_>) -> Result<(), Failure>,
) -> SqlResult<(Vec<Column>, Vec<Row>)> {
    let mut capture = Capture { sink, columns: None, rows: Vec::new(), mismatch: false };
    match run(session, &mut capture) {
        Ok(()) if capture.mismatch => Err(SqlError::new(
            213,
            16,
            "Column name or number of supplied values does not match table definition.",
        )),
        Ok(()) => Ok((capture.columns.unwrap_or_default(), capture.rows)),
        Err(Failure::Sql(error)) => Err(error),
        Err(Failure::Stop(stop)) => {
            *stopped = Some(stop);
            Err(SqlError::cancelled())
        }
    }
}

struct Capture<'a> {
    sink: &'a mut dyn Sink,
    columns: Option<Vec<Column>>,
    rows: Vec<Row>,
    /// a later result set has another number of columns
    mismatch: bool,
}

impl Sink for Capture<'_> {
    fn columns(&mut self, columns: &[Column]) -> Result<(), Cancelled> {
        match &self.columns {
            Some(first) => self.mismatch |= first.len() != columns.len(),
            None => self.columns = Some(columns.to_vec()),
        }
        Ok(())
    }

    fn row(&mut self, row: &[Value]) -> Result<(), Cancelled> {
        self.rows.push(row.to_vec());
        Ok(())
    }

    fn done(&mut self, _: DoneKind, _: Option<u64>) -> Result<(), Cancelled> {
        Ok(())
    }

    fn message(&mut self, message: &SqlError) -> Result<(), Cancelled> {
        self.sink.message(message)
    }

    fn env(&mut self, change: &EnvChange) -> Result<(), Cancelled> {
        self.sink.env(change)
    }

    fn return_value(&mut self, _: &str, _: SqlType, _: &Value) -> Result<(), Cancelled> {
        Ok(())
    }

    fn return_status(&mut self, _: i32) -> Result<(), Cancelled> {
        Ok(())
    }

    fn before_statement(&mut self, text: &str) -> Result<Option<SqlError>, Cancelled> {
        self.sink.before_statement(text)
    }

    fn after_statement(&mut self, text: &str) -> Result<Option<SqlError>, Cancelled> {
        self.sink.after_statement(text)
    }
}

/// DBCC CHECKIDENT (table [, NORESEED | RESEED [, value]]); the others are refused.
pub fn dbcc(
    session: &mut Session,
    command: &str,
    args: &[Expr],
    line: u32,
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    let word = |e: &Expr| match e {
        Expr::Value(v) => match &v.value {
            Literal::SingleQuotedString(s)
            | Literal::NationalStringLiteral(s)
            | Literal::Number(s, _) => Some(s.clone()),
            _ => None,
        },
        _ => None,
    };
    let number = |e: &Expr| match e {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            word(expr).and_then(|n| n.parse::<i128>().ok()).map(|n| -n)
        }
        _ => word(e).and_then(|n| n.parse::<i128>().ok()),
    };
    let words = args.iter().map(word).collect::<Vec<_>>();
    let Some(table) = words.first().cloned().flatten().filter(|_| command == "CHECKIDENT") else {
        return Err(SqlError::unsupported(format!("DBCC {command}")).into());
    };
    let action = match (
        words.get(1).cloned().flatten().map(|w| w.to_ascii_uppercase()).as_deref(),
        args.get(2),
    ) {
        (None, None) | (Some("RESEED"), None) => CheckIdent::Reseed,
        (Some("NORESEED"), None) => CheckIdent::NoReseed,
        (Some("RESEED"), Some(value)) => match number(value) {
            Some(value) => CheckIdent::ReseedTo(value),
            None => return Err(SqlError::unsupported("this value of DBCC CHECKIDENT").into()),
        },
        _ => return Err(SqlError::unsupported("these arguments of DBCC CHECKIDENT").into()),
    };
    let name = parse_name(&table)?;
    let text = write(session, |s| dml::identity::check_identity(s, &name, action))?;
    Ok(sink.message(&SqlError::new(7998, 0, text).at(line))?)
}
