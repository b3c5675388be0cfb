//! Applying change rows to a table: the destination, or a full sync's staging table.
//!
//! A **commit group** is everything that the source committed between two LSNs: as many small
//! transactions as fit into a batch, or one large transaction. A source transaction is never
//! divided: the end of a group is asked for first (the commit LSN of the batch's last row), then
//! everything up to and including that LSN is read. Rows are streamed from the change table into
//! `#changes` at the destination, so memory does not depend on the size of a transaction. Values
//! too large to travel with their row follow in pieces ([`super::large`]).
//!
//! # Why the steps come in this order
//!
//! 1. **How far this session sees.** The window's end was read on another session. Behind a
//!    listener that distributes readers over replicas, this session may be on a server that is
//!    behind. What it has not captured yet is left for a later pass ([`ApplyEnd::SourceBehind`]).
//! 2. Per group: **find its end**, then **load** its rows into `#changes`.
//! 3. **Check the source** ([`source::check_source`]). Cleanup first moves the low watermark of a
//!    capture instance, then deletes rows. A watermark that is still low enough *after* reading
//!    proves that no row was missing. The same question returns whether the table still has the
//!    columns by which the rows were read ([`super::shape`]).
//! 4. **Net** the rows: one effect per key. This runs at the destination while step 3 runs at the
//!    source, because it only touches temp tables.
//! 5. **Copy large values**, only of rows that are left after netting; then check the source again.
//! 6. **Complete** rows that lack a value, with rows read from the source table; then check the
//!    source again, as this reads the change table once more.
//! 7. **Write** rows and checkpoint in one transaction and one round trip. Meanwhile the source is
//!    asked where the next group ends.
//!
//! Steps 2 to 6 need no transaction: `#changes` belongs to the session, and only this daemon writes
//! a mapping's destination rows. (A repair writes too, on the condition that the checkpoint has not
//! moved: [`super::verify`].) So locks at the destination are held for one round trip.
//!
//! Between groups nothing is remembered but the LSN: after any failure, the next pass continues
//! after the last commit.

mod complete;
mod load;
mod request;
mod source;
mod statements;
mod write;

pub use request::{Applied, AppliedGroup, ApplyRequest, ApplyTarget, BatchPolicy, CheckpointMove};

use super::{changes_table::DROP_TABLES, large};
use crate::{
    error::{Context, Error, Kind, Result},
    model::lsn::Lsn,
    mssql::{client::session::Session, queries::cdc},
    tsql::changes,
};
use complete::{Completion, complete};
use load::{LoadedGroup, load_changes, net_group};
use source::{GroupEnd, check_source, find_group_end};
use statements::ApplyStatements;
use write::write_group;

/// Where applying ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyEnd {
    /// At the window's end.
    Complete,
    /// At this LSN, as the source's session has captured no more.
    SourceBehind(Lsn),
}

/// Called after each group that was written.
pub type OnCommit<'a> = &'a mut (dyn FnMut(&AppliedGroup) + Send);

/// Reads the window's changes and applies them, group by group.
///
/// Stops between groups when asked to; the groups that were written stay. After an error `dest` has
/// been recovered or cannot be used again.
pub async fn apply_changes(
    source: &mut Session,
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    on_commit: OnCommit<'_>,
) -> Result<ApplyEnd> {
    let statements = ApplyStatements::new(request)?;
    let result = apply_groups(source, dest, request, &statements, on_commit).await;
    let usable = if result.is_err() && !dest.is_broken() { dest.recover().await } else { Ok(()) };
    if usable.is_ok() && !dest.is_broken() {
        dest.batch(DROP_TABLES).await.ok();
    }
    result
}

async fn apply_groups(
    source: &mut Session,
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    on_commit: OnCommit<'_>,
) -> Result<ApplyEnd> {
    // asked before the first row is read: what the session captures later it may not have read
    let seen = cdc::bounds(source, &request.capture.instance).await?.visible_up_to();
    let part;
    let (request, apply_end) = if seen < request.to {
        part = request.limited_to(seen)?;
        (&part, ApplyEnd::SourceBehind(seen))
    } else {
        (request, ApplyEnd::Complete)
    };
    dest.batch(&changes::create_tables(request.map, &statements.coverage))
        .await
        .context("create #changes")?;
    let mut from = request.from;
    let mut stored = match &request.target {
        ApplyTarget::Dest { checkpoint, .. } => checkpoint.stored,
        ApplyTarget::Staging { .. } => None,
    };
    let mut known_end = None;
    let mut rows_max = request.batch_policy.first_rows_max();
    while from < request.to {
        if request.cancel.is_cancelled() {
            return Err(Error::new(Kind::Cancelled, "asked to stop between batches"));
        }
        let end = match known_end.take() {
            Some(end) => end,
            None => find_group_end(source, request, statements, from, rows_max).await?,
        };
        let to = end.to;
        let loaded = load_and_net(source, dest, request, statements, from, &end).await?;
        rows_max = request.batch_policy.next_rows_max(rows_max);
        let last = to == request.to;
        // the checkpoint moves to the window's end even without rows; a staging table has none
        if loaded.rows > 0 || (last && matches!(request.target, ApplyTarget::Dest { .. })) {
            let fetched =
                complete_group(source, dest, request, statements, &loaded, (from, to)).await?;
            let find_next = async {
                if last {
                    Ok(None)
                } else {
                    find_group_end(source, request, statements, to, rows_max).await.map(Some)
                }
            };
            let (written, next_end) = tokio::join!(
                write_group(dest, request, statements, fetched, stored, &end),
                find_next
            );
            written?;
            stored = Some(to);
            on_commit(&AppliedGroup { changes: loaded.changes, to });
            known_end = next_end?;
        } else {
            on_commit(&AppliedGroup { changes: loaded.changes, to });
        }
        from = to;
    }
    Ok(apply_end)
}

/// Steps 2 to 5: the group's rows and large values are in `#changes`, its effects in `#net`.
async fn load_and_net(
    source: &mut Session,
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    from: Lsn,
    end: &GroupEnd,
) -> Result<LoadedGroup> {
    let to = end.to;
    let mut loaded = if end.rows == 0 {
        LoadedGroup::default()
    } else {
        load_changes(source, dest, request, statements, from, to).await?
    };
    if let Some(error) = loaded.refused.take() {
        // a row that does not fit because its table was altered is read again by the new columns
        check_source(source, request, from, to).await?;
        return Err(error);
    }
    match &statements.large {
        Some(large) if loaded.large => {
            net_group(dest, statements, request.map, &loaded).await?;
            large::copy_values(source, dest, &large.of_changes, request.cancel).await?;
            check_source(source, request, from, to).await?;
        }
        _ => {
            let (checked, netted) = tokio::join!(
                check_source(source, request, from, to),
                net_group(dest, statements, request.map, &loaded)
            );
            checked.and(netted)?;
        }
    }
    Ok(loaded)
}

/// Step 6; whether rows were fetched from the source.
async fn complete_group(
    source: &mut Session,
    dest: &mut Session,
    request: &ApplyRequest<'_>,
    statements: &ApplyStatements,
    loaded: &LoadedGroup,
    (from, to): (Lsn, Lsn),
) -> Result<bool> {
    let may_lack =
        loaded.rows > 0 && (!statements.coverage.partial.is_empty() || loaded.null_in_required);
    let completed =
        if may_lack { complete(source, dest, statements).await? } else { Completion::default() };
    if let Some(large) = statements.large.as_ref().filter(|_| completed.large) {
        large::copy_values(source, dest, &large.of_fetched, request.cancel).await?;
    }
    if completed.asked {
        check_source(source, request, from, to).await?;
    }
    Ok(completed.asked)
}
