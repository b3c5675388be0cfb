//! A CDC pass of one mapping: the window that the poll chose, from the change table into the
//! destination.
//!
//! The order of steps: shapes → captured columns → apply ([`super::apply`]), because the window's
//! upper bound was read *before* the catalog. A column dropped later than that bound has its NULLs
//! in later change rows only; a column that is gone from the source now is not carried at all. So a
//! dropped column never writes NULLs over destination rows. A table that is altered while the pass
//! runs makes it begin again where it is, with the columns gathered anew.
//!
//! **Duplicates and references.** Keys other than the mapping's are met when a value moves between
//! rows over several source transactions, and a reference when related rows commit in one. After a
//! 547 transactions go as far as they can, in groups that grow; what waits for other tables then is
//! called up when those have got on. What a small group cannot satisfy the whole window often can,
//! so a pass that got nowhere, a 2601 or a 2627 is tried once more with everything up to the upper
//! bound in one group, with the order of statements turned around where the table references
//! itself. After that it is an error; nothing is skipped, and the next tick tries again.
//!
//! **Another capture instance.** When the old one is read up to the start of the new one and the
//! new one knows a carried column that the old one did not, rows written in between lack that
//! column, and an `ADD … DEFAULT` writes no change rows at all. The transaction that reaches the
//! switch therefore also asks for a full sync, and it records that the new one is read from here
//! on.

use super::{
    Env, JobEnd,
    apply::{self, Applied, ApplyRequest, ApplyTarget, BatchPolicy, CheckpointMove},
    shape,
};
use crate::{
    control::{RunOutcome, checkpoint},
    error::{Context, Error, Kind, Result},
    model::{
        capture::{Capture, Instance, Transaction},
        carry::ColumnMap,
        lsn::Lsn,
        mapping::{Mapping, SyncType},
    },
    mssql::{cdc, row::Param, session::Session},
    plan::{retry::WAITS_MAX, window::Gap},
    tsql::apply::StatementOrder,
};
use std::time::Duration;
use tokio::time::Instant;

/// What a poll decided for this mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdcPass {
    pub instance: Instance,
    /// The instance that takes over at `to`.
    pub switch_to: Option<Instance>,
    /// `last_cdc_lsn` as it is.
    pub stored: Option<Lsn>,
    /// exclusive
    pub from: Lsn,
    /// inclusive
    pub to: Lsn,
    /// The newest source transaction up to `to`, where it is known.
    pub transaction: Option<Transaction>,
}

/// Reads the window's changes and applies them; leaves its row in sync_status, failed or not, and
/// says in `applied` what was committed. `failed_before` counts the failures in a row before this
/// one: waiting for a related table is an error only after some looks in which nothing went
/// through.
pub async fn run(
    env: &Env,
    mapping: &Mapping,
    pass: CdcPass,
    failed_before: u32,
    applied: &mut Applied,
) -> Result<JobEnd> {
    let began = Instant::now();
    let run = env.control.start_run(mapping.id, SyncType::Cdc).await?;
    let result = apply_window(env, mapping, &pass, applied).await;
    let changes = i64::try_from(applied.changes).unwrap_or(i64::MAX);
    let (outcome, done) = match &result {
        Ok(()) if let Some(seen) = applied.behind => {
            let words = format!(
                "the server that changes were read from has captured {seen} at most, and {} was seen at another one: a secondary replica that is behind; the rest follows",
                pass.to
            );
            (RunOutcome { error: Some(words), ..RunOutcome::paused(changes) }, Ok(JobEnd::Stopped))
        }
        Ok(()) => (RunOutcome::completed(changes), Ok(JobEnd::Completed)),
        Err(error) if error.kind == Kind::Cancelled => {
            (RunOutcome::paused(changes), Ok(JobEnd::Stopped))
        }
        Err(error)
            if error.kind == Kind::ForeignKey
                && (applied.reached.is_some() || failed_before + 1 < WAITS_MAX) =>
        {
            (
                RunOutcome {
                    error: Some(format!("waits for a related table: {error}")),
                    ..RunOutcome::paused(changes)
                },
                Err(()),
            )
        }
        // The next poll sees the gap too, and does about it what is to be done.
        Err(error) if error.kind == Kind::Gap => {
            tracing::warn!(
                mapping_id = mapping.id.0,
                server_id = mapping.server.0,
                sync_type = SyncType::Cdc.as_str(),
                %error,
                "what was to be read is not there any more"
            );
            (RunOutcome::failed(changes, 1, error.to_string()), Ok(JobEnd::Stopped))
        }
        Err(error) => (RunOutcome::failed(changes, 1, error.to_string()), Err(())),
    };
    env.control.finish_run(run, outcome).await;
    if result.is_ok() && applied.behind.is_none() {
        log_completed(mapping, changes, began.elapsed(), &pass);
    }
    match (done, result) {
        (Ok(done), _) => Ok(done),
        (Err(()), Err(error)) => Err(error),
        (Err(()), Ok(())) => Ok(JobEnd::Completed),
    }
}

fn log_completed(mapping: &Mapping, changes: i64, took: Duration, pass: &CdcPass) {
    tracing::info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::Cdc.as_str(),
        records_count = changes,
        execution_time_ms = i32::try_from(took.as_millis()).unwrap_or(i32::MAX),
        "changes applied up to {}",
        pass.to
    );
    if let Some(next) = &pass.switch_to {
        tracing::info!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Cdc.as_str(),
            "capture instance {} takes over from {}; the old one may be dropped",
            next.name.as_str(),
            pass.instance.name.as_str()
        );
    }
}

async fn apply_window(
    env: &Env,
    mapping: &Mapping,
    pass: &CdcPass,
    applied: &mut Applied,
) -> Result<()> {
    let connections = env.connections(mapping, 1, 1).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    // netting and writing a big transaction are long statements
    dest.set_timeout(env.config.long_statement_timeout);
    let mut tries = 1;
    loop {
        let result =
            with_current_columns(env, mapping, pass, applied, (&mut source, &mut dest)).await;
        let again = result.as_ref().is_err_and(|error| error.kind == Kind::Altered);
        if !again || tries == shape::TRIES_MAX || source.is_cut_off() || dest.is_cut_off() {
            return result;
        }
        tries += 1;
        tracing::info!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Cdc.as_str(),
            "{} was altered while its changes were read; they are read again by the columns as they are now",
            mapping.source
        );
    }
}

/// The rest of the window, by the columns as they are now.
async fn with_current_columns(
    env: &Env,
    mapping: &Mapping,
    pass: &CdcPass,
    applied: &mut Applied,
    (source, dest): (&mut Session, &mut Session),
) -> Result<()> {
    let shape = shape::gather(source, dest, mapping).await?;
    if shape.source.object_id != pass.instance.source_id {
        return Err(Error::new(Kind::Gap, Gap::Replaced.message()));
    }
    let capture = cdc::capture(source, pass.instance.clone()).await?;
    env.uncaptured.report(&env.control, mapping, &shape.map, &capture).await;
    let resync = match &pass.switch_to {
        Some(next) => {
            captures_more(&shape.map, &capture, &cdc::capture(source, next.clone()).await?)
        }
        None => false,
    };
    let (references_itself, has_foreign_keys) =
        foreign_keys(dest, &shape.dest.name.local()).await?;
    let (order, other) = if references_itself {
        (StatementOrder::ReferencesFirst, StatementOrder::UniqueFirst)
    } else {
        (StatementOrder::UniqueFirst, StatementOrder::UniqueFirst)
    };
    let before = *applied;
    let stored = before.reached.or(pass.stored);
    let checkpoint = CheckpointMove {
        mapping: mapping.id,
        stored,
        transaction: pass.transaction.clone(),
        resync,
        next_instance: pass.switch_to.as_ref().map(Instance::mark),
    };
    let mut request = ApplyRequest {
        map: &shape.map,
        source: &shape.source,
        capture: &capture,
        from: before.reached.unwrap_or(pass.from),
        to: pass.to,
        target: ApplyTarget::Dest { table: &shape.dest.name, checkpoint, order },
        batch_policy: BatchPolicy::Batches(env.config.batch_rows),
        cancel: &env.cancel,
    };
    let mut result =
        apply::apply_changes(source, dest, &request, &mut |so_far| *applied = before.and(so_far))
            .await;
    // What a batch cannot satisfy, its transactions may, as far as they go (tables that wait for
    // each other), and after that everything there is at once.
    for batch_policy in [BatchPolicy::Growing(env.config.batch_rows), BatchPolicy::Whole] {
        loop {
            let refused = |error: &Error| {
                error.kind == Kind::ForeignKey
                    || (batch_policy == BatchPolicy::Whole && error.kind == Kind::Duplicate)
            };
            // Everything may be much, and who got on until other tables refused it is called up
            // when those have.
            let of_others = |error: &Error| error.kind == Kind::ForeignKey && !references_itself;
            let enough = batch_policy == BatchPolicy::Whole
                && applied.reached.is_some()
                && result.as_ref().is_err_and(of_others);
            if enough
                || !result.as_ref().is_err_and(refused)
                || source.is_cut_off()
                || dest.is_cut_off()
            {
                break;
            }
            let before = *applied;
            if let Some(reached) = before.reached {
                request.from = reached;
            }
            if let ApplyTarget::Dest { checkpoint, order: now, .. } = &mut request.target {
                checkpoint.stored = before.reached.or(checkpoint.stored);
                *now = if batch_policy == BatchPolicy::Whole { other } else { order };
            }
            request.batch_policy = batch_policy;
            result = apply::apply_changes(source, dest, &request, &mut |so_far| {
                *applied = before.and(so_far)
            })
            .await;
            // a group that had grown may go further when it is small again
            if batch_policy == BatchPolicy::Whole || applied.reached == before.reached {
                break;
            }
        }
    }
    applied.behind = result.as_ref().ok().and_then(|done| done.behind);
    let result = result.map_err(|error| match error.kind {
        Kind::TooLarge => error.context(format!("CDC of {}", mapping.source)),
        _ => with_constraint_hint(error, has_foreign_keys),
    });
    if resync && result.is_ok() && applied.behind.is_none() {
        tracing::warn!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Cdc.as_str(),
            "the new capture instance has columns that the old one lacked; a full sync brings their values"
        );
    }
    result.map(drop)
}

/// What to do about rows that the destination's own rules refuse.
fn with_constraint_hint(mut error: Error, has_foreign_keys: bool) -> Error {
    match error.kind {
        // 547 is a check constraint's number, too, and that one waits for nobody
        Kind::ForeignKey if !has_foreign_keys => {
            error.kind = Kind::Data;
            error.with_hint("The destination's check constraint refuses a row that the source has: change the one or the other")
        }
        Kind::ForeignKey => error.with_hint(
            "The destination's foreign key waits for rows of a related table; map that table too, or disable the key (ALTER TABLE … NOCHECK CONSTRAINT …)",
        ),
        Kind::Duplicate if error.hint.is_none() => error.with_hint(
            "Another row of the destination has that key: rows were written there by somebody else, or its unique key is stricter than the source's (a collation, for example)",
        ),
        Kind::Connection
        | Kind::Login
        | Kind::Database
        | Kind::Timeout
        | Kind::Deadlock
        | Kind::LockTimeout
        | Kind::Busy
        | Kind::Permission
        | Kind::Missing
        | Kind::Schema
        | Kind::Altered
        | Kind::Data
        | Kind::TooLarge
        | Kind::Duplicate
        | Kind::Gap
        | Kind::CheckpointConflict
        | Kind::Config
        | Kind::Cancelled
        | Kind::Other => error,
    }
}

/// Whether `new` captures a carried column that `old` does not.
fn captures_more(map: &ColumnMap, old: &Capture, new: &Capture) -> bool {
    map.columns.iter().any(|carried| {
        let (name, id) = (&carried.source.name, carried.source.column_id);
        old.column(name, id).is_none() && new.column(name, id).is_some()
    })
}

/// Whether the table references itself, and whether any foreign key is from it or to it.
async fn foreign_keys(dest: &mut Session, table: &str) -> Result<(bool, bool)> {
    checkpoint::ensure_table(dest).await?;
    let row = dest.row(include_str!("../../sql/foreign_keys.sql"), &[Param::Text(table)]).await;
    let row = row.context("look for foreign keys of the destination")?;
    Ok((row.i64(0)? > 0, row.i64(1)? > 0))
}
