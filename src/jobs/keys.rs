//! Keys that the source tells apart and the destination takes for one.
//!
//! 'œ' and 'oe' are two keys under a binary collation and one under `Latin1_General_CI_AS`; so are
//! two emoji under a collation that gives them no weight, full-width and half-width letters, kana,
//! and under the SQL_ collations texts that only their code page tells apart. Both rows cannot be
//! at such a destination, and one must not be written over the other: the daemon stops that table
//! and names both.

use crate::{
    error::{Context, Error, Kind, Result},
    model::{column_map::ColumnMap, value::Value},
    mssql::client::{row::Param, session::Session},
    plan::verify::key_text,
};

pub(crate) const HINT: &str = "Give the destination's key column the source's type and collation, or change one of the two keys at the source";

/// An error with both keys where `sql` finds two: the key columns of the one, then those of the
/// other.
pub(crate) async fn check_no_merged_keys(
    dest: &mut Session,
    map: &ColumnMap,
    sql: &str,
    params: &[Param<'_>],
) -> Result<()> {
    let found =
        dest.rows(sql, params).await.context("look for keys that the destination takes for one")?;
    let Some(row) = found.first() else { return Ok(()) };
    let width = map.key.len();
    let key = |from: usize| {
        Ok::<_, Error>(key_text(
            &(from..from + width).map(|i| row.value(i)).collect::<Result<Vec<Value>>>()?,
        ))
    };
    let names: Vec<_> = map.key_columns().map(|column| column.name().to_string()).collect();
    Err(Error::new(
        Kind::Duplicate,
        format!(
            "two rows of the source cannot both be at the destination, which takes {0} = {1} and {0} = {2} for one key",
            names.join(", "),
            key(0)?,
            key(width)?
        ),
    )
    .with_hint(HINT))
}
