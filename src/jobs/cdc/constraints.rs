//! The destination's foreign keys, and what an operator can do about rows that its constraints
//! refuse.

use crate::{
    control::checkpoint,
    error::{Context, Error, Kind, Result},
    mssql::client::{row::Param, session::Session},
};

/// Which foreign keys the destination table has.
#[derive(Clone, Copy, Debug)]
pub(super) struct ForeignKeys {
    /// One is from the table to itself.
    pub self_referencing: bool,
    /// One is from the table or to it.
    pub any: bool,
}

pub(super) async fn foreign_keys(dest: &mut Session, table: &str) -> Result<ForeignKeys> {
    checkpoint::ensure_table(dest).await?;
    let sql = include_str!("../../../sql/catalog/count_foreign_keys.sql");
    let row = dest.row(sql, &[Param::Text(table)]).await;
    let row = row.context("look for foreign keys of the destination")?;
    Ok(ForeignKeys { self_referencing: row.i64(0)? > 0, any: row.i64(1)? > 0 })
}

/// Adds a hint to an error of a constraint.
pub(super) fn with_constraint_hint(mut error: Error, keys: ForeignKeys) -> Error {
    match error.kind {
        // 547 is the number of check constraints too, and they do not wait for another table
        Kind::ForeignKey if !keys.any => {
            error.kind = Kind::Data;
            error.with_hint("The destination's check constraint refuses a row that the source has: change the one or the other")
        }
        Kind::ForeignKey => error.with_hint(
            "The destination's foreign key waits for rows of a related table; map that table too, or disable the key (ALTER TABLE … NOCHECK CONSTRAINT …)",
        ),
        Kind::Duplicate if error.hint.is_none() => error.with_hint(
            "Another row of the destination has that key: rows were written there by somebody else, or its unique key is stricter than the source's (a collation, for example)",
        ),
        _ => error,
    }
}
