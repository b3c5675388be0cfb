//! Which row a destination refuses.
//!
//! A group is three statements for all of its rows, so SQL Server's error names a constraint or a
//! column and not the row. The group is still in `#changes` and `#net` after its transaction was
//! rolled back, so parts of it are tried in transactions that are rolled back, too, until one row
//! is left: about as many trials as the number of rows has binary digits.
//!
//! Rows that break a rule by themselves (a value that does not fit, NULL, a check) are refused
//! alone as they are among others, so any part may be tried, and the parts get smaller. With a
//! foreign or unique key a row may need those before it, so the parts are beginnings of the group
//! in the source's order, and the row is the one that the shortest refused beginning ends with.

use crate::{
    error::{Error, Kind, Result},
    model::{column_map::ColumnMap, value::Value},
    mssql::client::{row::Param, session::Session},
    plan::verify::key_text,
    tsql::apply as apply_sql,
};

/// In a group with more effects than this the row is not looked for: each trial writes up to as many
/// rows.
const ROWS_MAX: i64 = 100_000;

/// `error`, with the key of the row that is refused where one can be found. Leaves no transaction
/// open and the temp tables as they were, or the session is spent.
pub(super) async fn with_rejected_key(
    dest: &mut Session,
    map: &ColumnMap,
    statements: &str,
    fetched: bool,
    error: Error,
) -> Error {
    let Some(number) = error.number else { return error };
    let independent = match error.kind {
        Kind::Data | Kind::Other => true,
        Kind::ForeignKey | Kind::Duplicate => false,
        Kind::Connection
        | Kind::Login
        | Kind::Database
        | Kind::Timeout
        | Kind::Deadlock
        | Kind::LockTimeout
        | Kind::Busy
        | Kind::Permission
        | Kind::Missing
        | Kind::DestMissing
        | Kind::Schema
        | Kind::Altered
        | Kind::TooLarge
        | Kind::Gap
        | Kind::CheckpointConflict
        | Kind::Config
        | Kind::Cancelled => return error,
    };
    let trials =
        StatementTrials { sql: apply_sql::trial(statements), fetched, number, independent };
    // What fails here is not what the operator wants to hear of.
    match trials.find(dest, map).await {
        Ok(Some(key)) => {
            let names: Vec<_> = map.key_columns().map(|column| column.name().to_string()).collect();
            error.context(format!("the row with key {} = {}", names.join(", "), key_text(&key)))
        }
        Ok(None) | Err(_) => error,
    }
}

struct StatementTrials {
    sql: String,
    fetched: bool,
    /// The error that is looked for.
    number: i32,
    independent: bool,
}

impl StatementTrials {
    async fn find(&self, dest: &mut Session, map: &ColumnMap) -> Result<Option<Vec<Value>>> {
        dest.recover().await?;
        let range = dest.row(apply_sql::NET_RANGE, &[]).await?;
        let count = range.i64(0)?;
        if count == 0 || count > ROWS_MAX {
            return Ok(None);
        }
        let (first, last) = (range.i64(1)?, range.i64(2)?);
        let (mut low, mut high) = (first, last);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.refused(dest, if self.independent { low } else { first }, middle).await? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if !self.refused(dest, if self.independent { low } else { first }, low).await? {
            return Ok(None);
        }
        let row = dest.row(&apply_sql::key_of(map), &[Param::BigInt(low)]).await?;
        (0..map.key.len()).map(|i| row.value(i)).collect::<Result<Vec<_>>>().map(Some)
    }

    /// Whether these effects are refused with the same number.
    async fn refused(&self, dest: &mut Session, from: i64, to: i64) -> Result<bool> {
        match dest
            .execute(&self.sql, &[Param::Bit(self.fetched), Param::BigInt(from), Param::BigInt(to)])
            .await
        {
            Ok(_) => Ok(false),
            Err(error) if error.number == Some(self.number) && !dest.is_broken() => {
                dest.recover().await?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}
