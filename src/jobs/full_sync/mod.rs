//! Full sync: the destination becomes equal to the source, from one consistent state to the next.
//!
//! # Why the steps come in this order
//!
//! 1. **Claim.** The request moves into `full_sync_pending_at` and its bit is cleared before anything is read, so that a request made from
//!    here on is a new one; only the swap's transaction clears the pending mark, so that a crash forgets nothing. The source's trigger
//!    column is reset now too, not afterwards: the rows that are copied then already read 0, and source and destination end up equal.
//! 2. **Validate.** Everything that could make the copy end otherwise than equal is refused here, before a row moves.
//! 3. **Cut.** The greater of the source's max LSN and the capture instance's first LSN less one. Every change up to the cut is in the
//!    rows that are read next. (Max LSN lags the log, so the rows also have changes beyond it: these come again in step 6, where applying
//!    a change twice is applying it once.)
//! 4. **Copy** into a staging table in the destination database: a heap without constraints. Readers of the destination see the old rows.
//!    Where the source allows SNAPSHOT the rows are those of one moment. Otherwise a scan goes page by page, and a row whose key moves
//!    meanwhile can be missed, or met twice: step 6 mends the first and the second is dropped before the key's index is made.
//! 5. **Fence.** An LSN that provably covers the last read. Its evidence is asked for after the copy, so it may take a while.
//! 6. **Replay** the changes in (cut, fence] *into the staging table*. It has no foreign key and no other unique key that a
//!    half-way state could offend. Now the staging table is the source as of the fence exactly.
//! 7. **Swap** in one transaction, ordinary DML only: no schema lock keeps readers out, foreign keys and checks stay trusted, triggers
//!    see only what changed, and inserting explicit identity values lifts the identity's next value as it must. The same transaction writes
//!    the checkpoint (= the fence), its twin, `last_full_sync_at`, and clears the pending mark, fenced by the old LSN and that mark. A CDC
//!    pass goes on from the fence.
//!
//! Without a capture instance there is no 5 and 6, the checkpoint stays NULL, and the log says which guarantee the copy gave.
//!
//! This is mode STAGED; what DIRECT does instead is in [`direct`].
//!
//! An error anywhere leaves the old rows and the pending request; a leftover staging table is dropped by the mapping's next full sync.

mod copy;
mod direct;
mod stage_lock;
mod swap;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use self::{copy::Stop, direct::Direct};
use super::{
    Done, Env,
    apply::{self, Replay, Target},
    fence::{self, Patience},
    shape,
};
use crate::{
    control::Outcome,
    error::{Context, Error, Kind, Result},
    model::{
        capture::{Capture, TranIdentity},
        id::{MappingId, StatusId},
        lsn::Lsn,
        mapping::{FullSyncMode, Mapping, SyncType},
        name::{Ident, TableName},
    },
    mssql::{bulk::BatchLimit, cdc, session::Session},
    plan::window::History,
    tsql,
};

/// Capture may be idle: then the proof is the row that it writes about every five minutes.
const FENCE_WAIT_MAX: Duration = Duration::from_secs(330);
/// Why a run ended before its end, to people.
const STOPS: &str = "the daemon stops, or the mapping is not its any more";
const FENCE_POLL: Duration = Duration::from_millis(200);

/// How the work ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The destination is equal to the source as of the checkpoint (without CDC: as of the copy).
    Completed,
    Stopped(Stop),
}

/// Claims the request and makes the destination equal to the source; leaves its row in sync_status, failed or not.
///
/// `trigger`: the trigger column was seen set. An error is for whoever spawned this to log.
pub async fn run(env: &Env, mapping: &Mapping, trigger: bool) -> Result<Done> {
    recorded(env, mapping, trigger).await.with_context(|| format!("full sync of {}", mapping.source))
}

/// The run with its row in sync_status.
async fn recorded(env: &Env, mapping: &Mapping, trigger: bool) -> Result<Done> {
    if !env.control.claim_full_sync(mapping.id, trigger).await? {
        return Ok(Done::Completed);
    }
    let run = env.control.start_run(mapping.id, SyncType::FullSync).await?;
    let began = Instant::now();
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::FullSync.as_str(),
        "full sync of {} to {} begins",
        mapping.source,
        mapping.dest
    );
    let mut rows = 0;
    let ended = perform(env, mapping, trigger, run, &mut rows).await;
    let copied = i64::try_from(rows).unwrap_or(i64::MAX);
    let outcome = match &ended {
        Ok(Ended::Completed) => Outcome::completed(copied),
        Ok(Ended::Stopped(stop)) => Outcome { error: Some(stop.as_str().to_owned()), ..Outcome::paused(copied) },
        Err(error) if error.kind == Kind::Cancelled => Outcome { error: Some(error.to_string()), ..Outcome::paused(copied) },
        Err(error) => Outcome::failed(copied, 0, error.to_string()),
    };
    let finished = env.control.finish_run(run, &outcome).await;
    let ended = ended?;
    finished?;
    let words = match ended {
        Ended::Stopped(stop) => format!("paused ({}), the request stays", stop.as_str()),
        Ended::Completed => "completed".to_owned(),
    };
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::FullSync.as_str(),
        records_count = copied,
        execution_time_ms = i32::try_from(began.elapsed().as_millis()).unwrap_or(i32::MAX),
        "full sync of {} {words}: {rows} rows",
        mapping.source
    );
    match ended {
        Ended::Stopped(_) => Ok(Done::Stopped),
        Ended::Completed => {
            env.control.resolve_errors(mapping.id, None).await?;
            Ok(Done::Completed)
        }
    }
}

async fn perform(env: &Env, mapping: &Mapping, trigger: bool, run: StatusId, rows: &mut u64) -> Result<Ended> {
    let desk = env.desk(mapping, 1, 1).await?;
    let mut source = desk.source(&mapping.source.database).await?;
    let mut dest = desk.dest(&mapping.dest.database).await?;
    dest.set_timeout(env.config.long_statement_timeout);

    if trigger && !reset_trigger(&mut source, env, mapping).await? {
        env.triggers.refuse(mapping.id);
    }
    let shape = shape::gather(&mut source, &mut dest, mapping).await?;
    let others = env.control.same_destination(mapping.id).await?;
    if let Some(other) = others.first() {
        return Err(Error::new(Kind::Schema, format!("mapping {other} brings rows to {} too", mapping.dest))
            .with_hint("Disable one of the two mappings: each would delete the other's rows"));
    }
    for warning in &shape.carry.warnings {
        warn!(mapping_id = mapping.id.0, server_id = mapping.server.0, sync_type = SyncType::SchemaCheck.as_str(), "{warning}");
    }
    let standing = env.control.standing(mapping.id).await?.ok_or_else(|| Error::new(Kind::Config, "the mapping was deleted"))?;
    let changes = changes(&mut source, mapping, &shape).await?;

    let stage = tsql::swap::stage(mapping.id, &shape.dest.name.database);
    stage_lock::take(&mut dest, mapping.id).await?;
    let mut direct = (mapping.mode == FullSyncMode::Direct).then(|| Direct::new(env, &shape, &stage));
    let staged = async {
        dest.batch(&tsql::swap::drop_stage(&stage)).await.context("drop a leftover staging table")?;
        dest.batch(&tsql::swap::create_stage(&stage, &shape.carry)).await.context("create the staging table")?;
        let limit = BatchLimit { rows_max: env.config.batch_rows, bytes_max: env.config.batch_bytes };
        let copied = copy::copy(env, mapping, run, &shape, &stage, limit, &mut source, &mut dest, direct.as_mut(), rows).await?;
        if let Some(stop) = copied {
            return Ok(Some(stop));
        }
        if let Some(direct) = &mut direct {
            // no rows have arrived where there are none
            return direct.clear(&mut dest).await.map(|()| None);
        }
        copy::index(&mut dest, &stage, &shape.carry).await?;
        Ok::<_, Error>(None)
    }
    .await;
    let stored = standing.last_cdc_lsn;
    let done = match (staged, &direct) {
        (Ok(None), Some(direct)) => {
            *rows = direct.inserted;
            load_ended(mapping, &shape, &stage, changes.as_ref(), stored, direct.inserted, &mut source, &mut dest).await
        }
        (Ok(None), None) => finish(env, mapping, &shape, &stage, changes.as_ref(), stored, &mut source, &mut dest, rows).await,
        (Ok(Some(stop)), _) => Ok(Ended::Stopped(stop)),
        (Err(error), _) => Err(error),
    };
    if !dest.is_cut_off() && !matches!(done, Ok(Ended::Completed)) {
        // what cannot be dropped now is dropped by the next full sync of this mapping
        let dropped = async {
            dest.recover().await?;
            dest.batch(&tsql::swap::drop_stage(&stage)).await
        };
        if let Err(error) = dropped.await {
            warn!(mapping_id = mapping.id.0, sync_type = SyncType::FullSync.as_str(), error = %error, "staging table {stage} was not dropped");
        }
    }
    stage_lock::release(&mut dest, i64::from(mapping.id.0)).await;
    done
}

/// Fence, replay, swap.
#[expect(clippy::too_many_arguments, reason = "the two sessions and the facts of one run, used once")]
async fn finish(
    env: &Env,
    mapping: &Mapping,
    shape: &shape::Shape,
    stage: &TableName,
    changes: Option<&Changes>,
    stored: Option<Lsn>,
    source: &mut Session,
    dest: &mut Session,
    rows: &mut u64,
) -> Result<Ended> {
    let checkpoint = match changes {
        Some(changes) => replay(env, mapping, changes, shape, stage, source, dest).await?,
        None => None,
    };
    if checkpoint.is_none() {
        let guarantee = if shape.source_database.snapshot {
            "the rows are those of one moment (SNAPSHOT)"
        } else {
            "rows that changed during the copy may be missing or old (no CDC, no SNAPSHOT at the source)"
        };
        info!(mapping_id = mapping.id.0, server_id = mapping.server.0, sync_type = SyncType::FullSync.as_str(), "{guarantee}");
    }
    let identity = match checkpoint {
        Some(lsn) => identity(source, lsn).await?,
        None => None,
    };
    if !env.control.standing(mapping.id).await?.is_some_and(|standing| standing.enabled) {
        return Ok(Ended::Stopped(Stop::Paused));
    }
    let end = swap::End { mapping: mapping.id, stored, checkpoint, identity };
    let swapped = swap::swap(env, shape, stage, &end, dest).await.context("swap the staged rows in")?;
    *rows = swapped.rows;
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::FullSync.as_str(),
        records_count = i64::try_from(swapped.rows).unwrap_or(i64::MAX),
        "swapped in: {} rows inserted, {} updated, {} deleted",
        swapped.inserted,
        swapped.updated,
        swapped.deleted
    );
    Ok(Ended::Completed)
}

/// The end of mode DIRECT: the rows are in; CDC goes on from the cut.
#[expect(clippy::too_many_arguments, reason = "the two sessions and the facts of one run, used once")]
async fn load_ended(
    mapping: &Mapping,
    shape: &shape::Shape,
    stage: &TableName,
    changes: Option<&Changes>,
    stored: Option<Lsn>,
    inserted: u64,
    source: &mut Session,
    dest: &mut Session,
) -> Result<Ended> {
    let checkpoint = changes.map(|changes| changes.cut);
    let identity = match checkpoint {
        Some(lsn) => identity(source, lsn).await?,
        None => None,
    };
    let end = swap::End { mapping: mapping.id, stored, checkpoint, identity };
    swap::end_direct(shape, stage, inserted, &end, dest).await.context("end the load")?;
    let guarantee = if checkpoint.is_some() && mapping.cdc_enabled {
        "rows that changed during the copy are mended by the changes that CDC brings next"
    } else if shape.source_database.snapshot {
        "the rows are those of one moment (SNAPSHOT)"
    } else {
        "rows that changed during the copy may be missing or old (no CDC, no SNAPSHOT at the source)"
    };
    info!(mapping_id = mapping.id.0, server_id = mapping.server.0, sync_type = SyncType::FullSync.as_str(), "{guarantee}");
    Ok(Ended::Completed)
}

/// Sets the trigger column back to 0, in batches, only where it is 1. `false` when the source refuses (no right, or read-only).
async fn reset_trigger(source: &mut Session, env: &Env, mapping: &Mapping) -> Result<bool> {
    let Some(column) = &mapping.trigger_column else { return Ok(true) };
    let sql = tsql::swap::reset_trigger(&mapping.source, column, env.config.batch_rows);
    loop {
        match source.execute(&sql, &[]).await {
            Ok(counts) if counts.iter().sum::<u64>() == 0 => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.number, Some(229 | 230 | 3906)) => {
                source.recover().await?;
                tracing::error!(
                    mapping_id = mapping.id.0,
                    server_id = mapping.server.0,
                    sync_type = SyncType::FullSync.as_str(),
                    error_type = "SYNC",
                    error_details = %error,
                    "trigger column {column} of {} cannot be reset; it is ignored until it was 0. GRANT UPDATE ON {} ({column}), or use full_sync_requested",
                    mapping.source,
                    mapping.source.local()
                );
                return Ok(false);
            }
            Err(error) => return Err(error).with_context(|| format!("reset trigger column {column}")),
        }
        if env.stopping() {
            return Err(Error::new(Kind::Cancelled, STOPS));
        }
    }
}

/// Where the changes made during the copy will be found.
struct Changes {
    capture: Capture,
    /// Every change up to here is in what is read from now on.
    cut: Lsn,
}

/// The newest capture instance of the source table and the cut; used whether or not CDC is on for the mapping.
async fn changes(source: &mut Session, mapping: &Mapping, shape: &shape::Shape) -> Result<Option<Changes>> {
    let found = async {
        if !cdc::enabled(source).await? {
            return Ok(None);
        }
        let instances = cdc::instances(source).await?;
        let newest =
            instances.into_iter().filter(|instance| instance.source_id == shape.source.object_id).max_by_key(|instance| instance.start);
        let Some(instance) = newest else { return Ok(None) };
        if instance.min.is_zero() {
            return Err(cdc::gated(&instance));
        }
        let upper = cdc::upper(source).await?.map_or(Lsn::ZERO, |upper| upper.lsn);
        let cut = upper.max(instance.start.prev());
        Ok(Some(Changes { capture: cdc::capture(source, instance).await?, cut }))
    };
    match found.await {
        // who did not ask for CDC does not need the rights for it
        Err(error) if !mapping.cdc_enabled && error.kind == Kind::Permission && !source.is_cut_off() => {
            source.recover().await?;
            Ok(None)
        }
        other => other,
    }
}

/// Waits for the fence and brings the changes up to it into the staging table. `None` when CDC is not asked for and nothing was proven.
async fn replay(
    env: &Env,
    mapping: &Mapping,
    changes: &Changes,
    shape: &shape::Shape,
    stage: &TableName,
    source: &mut Session,
    dest: &mut Session,
) -> Result<Option<Lsn>> {
    let Changes { capture, cut } = changes;
    let cut = *cut;
    let reading = fence::reading(source).await.context("read the source's clock")?;
    let patience = Patience { wait_max: FENCE_WAIT_MAX, poll: FENCE_POLL };
    let fence = match fence::wait(source, &reading, patience, &env.cancel).await {
        Ok(fence) => fence.max(cut),
        Err(error) if !mapping.cdc_enabled && !matches!(error.kind, Kind::Cancelled) && !source.is_cut_off() => {
            source.recover().await?;
            warn!(
                mapping_id = mapping.id.0,
                server_id = mapping.server.0,
                sync_type = SyncType::FullSync.as_str(),
                error = %error,
                "capture does not prove how far the copy reaches; CDC is off for this mapping, so the copy stands as it is"
            );
            return Ok(None);
        }
        Err(error) => return Err(error).context("wait until capture has passed the copy"),
    };
    let began = Instant::now();
    let mut replayed = 0u64;
    if fence > cut {
        let replay = Replay {
            carry: &shape.carry,
            source: &shape.source.name,
            capture,
            from: cut,
            to: fence,
            target: Target::Staging { table: stage },
            batch_rows_max: env.config.batch_rows,
            whole: false,
            cancel: &env.cancel,
        };
        let applied = apply::apply_changes(source, dest, &replay, &mut |_| {}).await.context("replay changes into the staging table")?;
        if env.stopping() {
            return Err(Error::new(Kind::Cancelled, STOPS));
        }
        replayed = applied.changes;
    }
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::FullSync.as_str(),
        records_count = i64::try_from(replayed).unwrap_or(i64::MAX),
        execution_time_ms = i32::try_from(began.elapsed().as_millis()).unwrap_or(i32::MAX),
        "changes made during the copy are in the staging table, up to {fence}"
    );
    Ok(Some(fence))
}

/// Drops staging tables in a destination database that nobody fills any more; how many there were.
///
/// The control database has a fixed name, so every staging table of this instance is one of ours, also one whose mapping was deleted since.
/// One that a living session fills is locked, and stays.
pub async fn sweep(env: &Env, database: &Ident) -> Result<usize> {
    let seats = env.dest.take(1, "leftover staging tables").await?;
    let mut dest = seats.checkout(database).await?;
    let found = dest.rows(include_str!("../../../sql/leftover_stages.sql"), &[]).await.context("look for leftover staging tables")?;
    let mut dropped = 0;
    for row in found {
        let stage = TableName { database: database.clone(), schema: Ident::new("dbo"), table: Ident::new(row.text(0)?) };
        let Some(mapping) = tsql::swap::staged_mapping(&stage) else { continue };
        if stage_lock::try_take(&mut dest, mapping, 0).await? {
            dest.batch(&tsql::swap::drop_stage(&stage)).await.with_context(|| format!("drop leftover {stage}"))?;
            stage_lock::release(&mut dest, mapping).await;
            dropped += 1;
        }
    }
    Ok(dropped)
}

async fn identity(source: &mut Session, lsn: Lsn) -> Result<Option<TranIdentity>> {
    Ok(match cdc::history(source, &[lsn]).await?.remove(&lsn) {
        Some(History::Present(identity)) => Some(identity),
        Some(History::Absent | History::Unknown) | None => None,
    })
}

/// Mappings whose source refuses to reset the trigger column. What such a column says is not a request until it was seen 0: otherwise
/// one request would be a full sync every tick. Kept in memory; a restart asks once more.
#[derive(Clone, Debug, Default)]
pub struct Triggers(Arc<Mutex<HashSet<MappingId>>>);

impl Triggers {
    fn refuse(&self, mapping: MappingId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(mapping);
    }

    /// What the column says is no request now.
    pub fn is_refused(&self, mapping: MappingId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&mapping)
    }

    /// No row has it set any more: the next one that does is a request.
    pub fn seen_zero(&self, mapping: MappingId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&mapping);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_trigger_is_no_request_until_it_was_seen_zero() {
        let triggers = Triggers::default();
        let mapping = MappingId(1);
        assert!(!triggers.is_refused(mapping));
        triggers.refuse(mapping);
        assert!(triggers.is_refused(mapping));
        triggers.seen_zero(mapping);
        assert!(!triggers.is_refused(mapping));
    }
}
