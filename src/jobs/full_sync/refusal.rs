//! Why a foreign key at the destination refuses what the source has, with the keys of the rows it
//! is about.
//!
//! The server's error 547 names one constraint and no row. So its words are kept, and the catalog
//! and the rows themselves are asked: which rows that are gone at the source does another table
//! still refer to, and which staged rows refer to something that is not there.

use super::SyncRun;
use crate::{
    error::{Error, Kind, Result},
    jobs::shape::Shape,
    model::{table::ForeignKey, value::Value},
    mssql::{client::session::Session, queries::catalog},
    plan::verify::key_text,
    tsql,
};

/// Keys that are named for one foreign key; there may be more.
const KEYS_NAMED_MAX: usize = 5;

/// `error`, a 547 of the swap, with what is in the way. The transaction is rolled back, and the
/// staging table still there.
pub async fn staged(work: &SyncRun<'_>, error: Error, dest: &mut Session) -> Error {
    match staged_reasons(work, dest).await {
        Ok(reasons) if !reasons.is_empty() => Error::new(Kind::ForeignKey, format!("{}: {}", error.message(), reasons.join("; ")))
            .with_number(error.number.unwrap_or_default())
            .with_hint(
                "Nothing was changed. Delete or change the referring rows at the destination, or sync the other table first; the request stays",
            ),
        // a check constraint, or nobody may look
        _ => error,
    }
}

async fn staged_reasons(work: &SyncRun<'_>, dest: &mut Session) -> Result<Vec<String>> {
    let SyncRun { shape, stage, .. } = work;
    let (table, map) = (&shape.dest, &shape.map);
    let mut reasons = Vec::new();
    for key in catalog::foreign_keys(dest, table).await? {
        if key.parent_id == table.object_id {
            let sql =
                tsql::swap::referred_and_gone(stage, &table.name, map, &key, KEYS_NAMED_MAX + 1);
            if let Some(keys) = keys(dest, &sql).await? {
                reasons.push(format!(
                    "rows that are gone at the source are still referred to by {}: {keys}",
                    child_text(&key)
                ));
            }
        }
        if key.child_id == table.object_id
            && let Some(sql) = tsql::swap::orphans(stage, map, &key, KEYS_NAMED_MAX + 1)
            && let Some(keys) = keys(dest, &sql).await?
        {
            reasons.push(format!(
                "{} has no row that these refer to ({}): {keys}",
                key.parent.local(),
                key.name
            ));
        }
    }
    Ok(reasons)
}

/// An error where rows are referred to, before mode DIRECT deletes any.
pub async fn direct(shape: &Shape, dest: &mut Session) -> Result<()> {
    let mut reasons = Vec::new();
    for key in catalog::foreign_keys(dest, &shape.dest).await? {
        if key.parent_id == shape.dest.object_id && key.child_id != key.parent_id {
            let sql = tsql::swap::referred(&shape.dest.name, &shape.map, &key, KEYS_NAMED_MAX + 1);
            if let Some(keys) = keys(dest, &sql).await? {
                reasons.push(format!("{}: {keys}", child_text(&key)));
            }
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Kind::ForeignKey,
        format!("mode DIRECT would delete every row of {}, but some are referred to by {}", shape.dest.name, reasons.join("; ")),
    )
    .with_hint("Nothing was changed. Set full_sync_mode = 'STAGED' for this mapping, or delete the referring rows first"))
}

/// `[dbo].[Orders] (foreign key [FK_User])`
fn child_text(key: &ForeignKey) -> String {
    format!("{} (foreign key {})", key.child.local(), key.name)
}

/// The keys that `sql` finds, in words.
async fn keys(dest: &mut Session, sql: &str) -> Result<Option<String>> {
    let mut named = Vec::new();
    for row in dest.rows(sql, &[]).await? {
        let key: Vec<Value> = (0..row.len()).map(|i| row.value(i)).collect::<Result<_>>()?;
        named.push(key_text(&key));
    }
    let more = if named.len() > KEYS_NAMED_MAX { " and more" } else { "" };
    named.truncate(KEYS_NAMED_MAX);
    Ok((!named.is_empty()).then(|| format!("keys {}{more}", named.join(", "))))
}
