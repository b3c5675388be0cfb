//! The lock on a staging table.
//!
//! A daemon that lost its lease without knowing it may still fill a mapping's staging table while
//! the next owner begins a full sync of its own. So the session that fills a staging table locks it
//! by name, and whoever wants to make or drop one has to have that lock first. It lasts exactly as
//! long as the session that could write: no message and no clock comes between.
//!
//! The copy lane writes on a second connection, which may outlive the first: it has a lock of its
//! own ([`load_lock`]), and whoever has the first one waits until nobody has that.
//!
//! A daemon that is frozen holds its locks for as long as it is. Whoever took the mapping over from
//! it has a staging table of another name ([`tsql::swap::stage`](crate::tsql::swap::stage)); the old
//! one is dropped when the session that holds it has ended.

use crate::{
    error::{Context, Error, Kind, Result},
    model::name::TableName,
    mssql::client::{row::Param, session::Session},
    tsql::swap::stage_resource,
};

/// A sweep holds a lock for a moment only.
const WAIT_MS: i32 = 5_000;

fn load_resource(stage: &TableName) -> String {
    format!("{}/load", stage_resource(stage))
}

/// Locks a staging table in the session's database; an error while another session fills it.
pub async fn take(dest: &mut Session, stage: &TableName) -> Result<()> {
    if try_take(dest, stage, WAIT_MS).await? {
        // A task that panics gives nothing back: in an idle pool its session would keep the lock.
        dest.mark_not_reusable();
        return Ok(());
    }
    Err(Error::new(
        Kind::CheckpointConflict,
        format!("another process still fills the staging table {stage}"),
    )
    .with_hint("It stops at its next batch; this is tried again by itself"))
}

/// Locks a staging table, whose mapping need not be there any more; `false` while another session
/// has it.
pub async fn try_take(dest: &mut Session, stage: &TableName, wait_ms: i32) -> Result<bool> {
    let params = [
        Param::Text(&stage_resource(stage)),
        Param::Text(&load_resource(stage)),
        Param::Int(wait_ms),
    ];
    let row = dest
        .row(include_str!("../../../sql/lease/stage_lock.sql"), &params)
        .await
        .context("lock the staging table")?;
    Ok(row.i32(0)? >= 0)
}

/// The batch by which the copy lane's connection locks a staging table for as long as it could
/// write to it; an error where somebody else still could.
pub fn load_lock(stage: &TableName) -> String {
    include_str!("../../../sql/lease/stage_load_lock.sql")
        .replace("{resource}", &load_resource(stage))
}

/// Gives the lock back. A session that cannot say so ends, and the lock with it.
pub async fn release(dest: &mut Session, stage: &TableName) {
    if dest.is_broken() {
        return;
    }
    if dest
        .execute(
            include_str!("../../../sql/lease/release_lock.sql"),
            &[Param::Text(&stage_resource(stage))],
        )
        .await
        .is_err()
    {
        dest.discard();
    }
}
