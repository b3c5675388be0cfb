//! Full sync: the destination becomes equal to the source, from one consistent state to the next.
//!
//! # Why the steps come in this order
//!
//! 1. **Claim.** The request moves into `full_sync_pending_at` and its bit is cleared before
//!    anything is read, so that a request made from here on is a new one; only the swap's
//!    transaction clears the pending mark, so that a crash forgets nothing. The source's trigger
//!    column is reset now too, not afterwards: the rows that are copied then already read 0, and
//!    source and destination end up equal.
//! 2. **Validate.** Everything that could make the copy end otherwise than equal is refused here,
//!    before a row moves.
//! 3. **Cut.** The greater of the source's max LSN and the capture instance's first LSN less one.
//!    Every change up to the cut is in the rows that are read next. The connection that reads them
//!    may be on another replica, which is behind: it says itself how far it has seen capture come,
//!    just before it reads, and the cut is not above that. (Max LSN lags the log, so the rows also
//!    have changes beyond it: these come again in step 6, where applying a change twice is applying
//!    it once.)
//! 4. **Copy** into a staging table in the destination database: a heap without constraints.
//!    Readers of the destination see the old rows. (The copy lane, [`crate::mssql::tds`], has
//!    connections of its own; all this is the same without it.) Where the source allows SNAPSHOT
//!    the rows are those of one moment. Otherwise a scan goes page by page, and a row whose key
//!    moves meanwhile can be missed, or met twice: step 6 mends the first and the second is dropped
//!    before the key's index is made.
//! 5. **Fence.** An LSN that provably covers the last read. Its evidence is asked for after the
//!    copy, so it may take a while: as long as the capture job's settings say, while the staging
//!    table is kept. Where nothing can prove it, CDC goes on from the cut.
//! 6. **Replay** the changes in (cut, fence] *into the staging table*. It has no foreign key and no
//!    other unique key that a half-way state could offend. Now the staging table is the source as
//!    of the fence exactly.
//! 7. **Prove** that both tables still have the columns by which the rows were copied and the
//!    changes read; else the run begins again at 2., as text that was cut to an old length or a
//!    NULL that was none would be wrong for good. What was committed under another shape came after
//!    what this run has read, so a shape that holds now held for all of it.
//! 8. **Swap** in one transaction, ordinary DML only: no schema lock keeps readers out, foreign
//!    keys and checks stay trusted, triggers see only what changed, and inserting explicit identity
//!    values lifts the identity's next value as it must. The same transaction writes the checkpoint
//!    (= the fence), its twin, `last_full_sync_at`, and clears the pending mark, fenced by the old
//!    LSN and this attempt's claim, so that an attempt that another one overtook swaps nothing in. A CDC pass goes on from the fence.
//!
//! Without a capture instance there is no 5 and 6, the checkpoint stays NULL, and the log says
//! which guarantee the copy gave.
//!
//! This is mode STAGED; what DIRECT does instead is in [`direct`].
//!
//! An error anywhere leaves the old rows and the pending request; a leftover staging table is
//! dropped by the mapping's next full sync.

mod copy;
mod direct;
mod progress;
mod refusal;
mod replay;
mod stage_lock;
mod swap;
mod trigger;

use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::trigger::Triggers;
use self::{
    copy::Copy,
    direct::DirectWriter,
    progress::{Stop, SyncProgress, SyncStage},
    replay::ChangeSource,
};
use super::{
    Env, JobConnections, JobEnd,
    shape::{self, Shape},
};
use crate::{
    control::{FullSyncClaim, RunOutcome},
    error::{Context, Error, Kind, Result},
    model::{
        lsn::Lsn,
        mapping::{FullSyncMode, Mapping, SyncType},
        name::{Ident, TableName},
    },
    mssql::{catalog, cdc, pool::Checkout, session::Session},
    tsql,
};

/// How the work ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncEnd {
    /// The destination is equal to the source as of the checkpoint (without CDC: as of the copy).
    Completed,
    Stopped(Stop),
}

/// One run: whose, of what, and how far it is.
struct SyncRun<'a> {
    /// `cancel` is the run's own token: it also ends when the mapping is switched off.
    env: &'a Env,
    mapping: &'a Mapping,
    claim: &'a FullSyncClaim,
    shape: &'a Shape,
    stage: &'a TableName,
    progress: &'a SyncProgress,
    connections: &'a JobConnections,
}

/// Claims the request and makes the destination equal to the source; leaves its row in sync_status,
/// failed or not.
///
/// `trigger`: the trigger column was seen set. An error is for whoever spawned this to log.
pub async fn run(env: &Env, mapping: &Mapping, trigger: bool) -> Result<JobEnd> {
    // A full sync's future is by far the largest; whoever waits for one is not to hold it.
    Box::pin(run_recorded(env, mapping, trigger))
        .await
        .with_context(|| format!("full sync of {}", mapping.source))
}

/// The run with its row in sync_status.
async fn run_recorded(env: &Env, mapping: &Mapping, trigger: bool) -> Result<JobEnd> {
    let Some(claim) = env.control.claim_full_sync(mapping.id, trigger).await? else {
        return Ok(JobEnd::Completed);
    };
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
    let env = Env { cancel: env.cancel.child_token(), ..env.clone() };
    let (progress, over) = (SyncProgress::new(began), CancellationToken::new());
    let work = async {
        let ended = Box::pin(perform(&env, mapping, (&claim, trigger), &progress)).await;
        over.cancel();
        ended
    };
    let (ended, ()) = tokio::join!(work, progress::watch(&env, mapping, run, &progress, &over));
    let ended = match ended {
        Err(error) if error.kind == Kind::Cancelled => {
            Ok(SyncEnd::Stopped(progress.stop().unwrap_or(Stop::Cancelled)))
        }
        ended => ended,
    };
    let rows = progress.rows();
    let records = i64::try_from(rows).unwrap_or(i64::MAX);
    let outcome = match &ended {
        Ok(SyncEnd::Completed) => RunOutcome::completed(records),
        Ok(SyncEnd::Stopped(stop)) => {
            RunOutcome { error: Some(stop.as_str().to_owned()), ..RunOutcome::paused(records) }
        }
        Err(error) => RunOutcome::failed(records, 0, error.to_string()),
    };
    env.control.finish_run(run, outcome).await;
    // Whoever overtook this attempt may have read the rows before the trigger column was reset
    // here: that request is made anew.
    if trigger && ended.as_ref().is_err_and(|error| error.kind == Kind::CheckpointConflict) {
        env.control.request_full_sync(mapping.id).await?;
    }
    let ended = ended?;
    let words = match ended {
        SyncEnd::Stopped(stop) => format!("paused ({}), the request stays", stop.as_str()),
        SyncEnd::Completed => "completed".to_owned(),
    };
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::FullSync.as_str(),
        records_count = records,
        execution_time_ms = i32::try_from(began.elapsed().as_millis()).unwrap_or(i32::MAX),
        "full sync of {} {words}: {rows} rows",
        mapping.source
    );
    match ended {
        SyncEnd::Stopped(_) => Ok(JobEnd::Stopped),
        SyncEnd::Completed => Ok(JobEnd::Completed),
    }
}

async fn perform(
    env: &Env,
    mapping: &Mapping,
    (claim, trigger): (&FullSyncClaim, bool),
    progress: &SyncProgress,
) -> Result<SyncEnd> {
    // the copy lane has a connection to the destination of its own, beside the session that holds
    // the staging table's lock
    let connections =
        env.connections(mapping, 1, if env.uses_copy_lane(mapping)? { 2 } else { 1 }).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    dest.set_timeout(env.config.long_statement_timeout);

    if trigger && !trigger::reset(&mut source, env, mapping).await? {
        env.triggers.refuse(mapping.id);
    }
    drop(source);
    let mut tries = 1;
    loop {
        let done =
            Box::pin(with_current_columns(env, mapping, claim, progress, &connections, &mut dest))
                .await;
        let again = done.as_ref().is_err_and(|error| error.kind == Kind::Altered);
        if !again || tries == shape::TRIES_MAX || dest.is_cut_off() || env.stopping() {
            return done;
        }
        tries += 1;
        progress.begin_again();
        warn!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::FullSync.as_str(),
            "{} or {} was altered meanwhile; the full sync begins again with the columns as they are now",
            mapping.source,
            mapping.dest
        );
    }
}

/// From the first look at the tables to the swap.
async fn with_current_columns(
    env: &Env,
    mapping: &Mapping,
    claim: &FullSyncClaim,
    progress: &SyncProgress,
    connections: &JobConnections,
    dest: &mut Session,
) -> Result<SyncEnd> {
    let mut source = connections.source(&mapping.source.database).await?;
    let shape = shape::gather(&mut source, dest, mapping).await?;
    let others = env.control.same_destination(mapping.id).await?;
    if let Some(other) = others.first() {
        return Err(Error::new(
            Kind::Schema,
            format!("mapping {other} brings rows to {} too", mapping.dest),
        )
        .with_hint("Disable one of the two mappings: each would delete the other's rows"));
    }
    let acting = catalog::foreign_keys(dest, &shape.dest).await?;
    let acting =
        acting.iter().filter(|key| key.acts_on_delete && key.parent_id == shape.dest.object_id);
    let warnings = shape.map.warnings.iter().cloned().chain(
        acting.map(|key| format!("{} ({})", key.danger(), tsql::copied::copyable(&key.tamed()))),
    );
    for warning in warnings {
        warn!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::SchemaCheck.as_str(),
            "{warning}"
        );
    }
    let standing = env
        .control
        .standing(mapping.id)
        .await?
        .ok_or_else(|| Error::new(Kind::Config, "the mapping was deleted"))?;
    let mut changes = replay::find_change_source(&mut source, mapping, &shape).await?;
    if let Some(changes) = changes.as_ref().filter(|_| mapping.cdc_enabled) {
        env.uncaptured.report(&env.control, mapping, &shape.map, &changes.capture).await;
    }
    let stored = standing.last_cdc_lsn;

    let stage = tsql::swap::stage(mapping.id, env.generation, &shape.dest.name.database);
    stage_lock::take(dest, &stage).await?;
    let work = SyncRun { env, mapping, claim, shape: &shape, stage: &stage, progress, connections };
    let done = async {
        dest.batch(&tsql::swap::drop_stage(&stage))
            .await
            .context("drop a leftover staging table")?;
        dest.batch(&tsql::swap::create_stage(&stage, &shape.map))
            .await
            .context("create the staging table")?;
        match mapping.mode {
            FullSyncMode::Staged => {
                Box::pin(run_staged(&work, changes.as_mut(), stored, source, dest)).await
            }
            FullSyncMode::Direct => {
                Box::pin(run_direct(&work, changes.as_mut(), stored, source, dest)).await
            }
        }
    }
    .await;
    if !dest.is_cut_off() && !matches!(done, Ok(SyncEnd::Completed)) {
        // what cannot be dropped now is dropped by the next full sync of this mapping
        let dropped = async {
            dest.recover().await?;
            dest.batch(&tsql::swap::drop_stage(&stage)).await
        };
        if let Err(error) = dropped.await {
            warn!(mapping_id = mapping.id.0, sync_type = SyncType::FullSync.as_str(), error = %error, "staging table {stage} was not dropped");
        }
    }
    stage_lock::release(dest, &stage).await;
    done
}

/// Mode STAGED: copy, fence, replay, swap.
async fn run_staged(
    work: &SyncRun<'_>,
    mut changes: Option<&mut ChangeSource>,
    stored: Option<Lsn>,
    source: Checkout,
    dest: &mut Session,
) -> Result<SyncEnd> {
    let SyncRun { env, mapping, shape, stage, progress, .. } = work;
    let mut source = match copy::copy(work, changes.as_deref_mut(), None, source, dest).await? {
        Copy::Whole(source) => source,
        Copy::Stopped(stop) => return Ok(SyncEnd::Stopped(stop)),
    };
    let changes = changes.as_deref();
    progress.enter(SyncStage::Index);
    copy::index(dest, stage, &shape.map).await?;
    let checkpoint = match changes {
        Some(changes) => replay::replay(work, changes, &mut source, dest).await?,
        None => None,
    };
    shape::prove(&mut source, dest, mapping, shape).await?;
    if checkpoint.is_none() {
        log_guarantee(work, false);
    }
    let transaction = match checkpoint {
        Some(lsn) => cdc::newest_transaction(&mut source, lsn).await?,
        None => None,
    };
    copy::index_as_dest(dest, stage, &shape.map).await?;
    if !env.control.standing(mapping.id).await?.is_some_and(|standing| standing.enabled) {
        return Ok(SyncEnd::Stopped(Stop::Paused));
    }
    let instance =
        changes.map(|changes| &changes.capture.instance).filter(|_| checkpoint.is_some());
    let end = swap::SwapRecord {
        mapping: mapping.id,
        claim: work.claim,
        stored,
        checkpoint,
        transaction,
        instance,
    };
    let swapped = swap::swap(work, &end, dest).await.context("swap the staged rows in")?;
    progress.finish_with(swapped.rows);
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
    Ok(SyncEnd::Completed)
}

/// Mode DIRECT: load; CDC goes on from the cut.
async fn run_direct(
    work: &SyncRun<'_>,
    mut changes: Option<&mut ChangeSource>,
    stored: Option<Lsn>,
    source: Checkout,
    dest: &mut Session,
) -> Result<SyncEnd> {
    let mut direct = DirectWriter::new(work);
    let mut source =
        match copy::copy(work, changes.as_deref_mut(), Some(&mut direct), source, dest).await? {
            Copy::Whole(source) => source,
            Copy::Stopped(stop) => return Ok(SyncEnd::Stopped(stop)),
        };
    let changes = changes.as_deref();
    shape::prove(&mut source, dest, work.mapping, work.shape).await?;
    // no rows have arrived where there are none
    direct.clear(dest).await?;
    work.progress.finish_with(direct.inserted);
    work.progress.enter(SyncStage::Swap(progress::SwapStep::Check));
    let checkpoint = changes.map(|changes| changes.copy_start_lsn);
    let transaction = match checkpoint {
        Some(lsn) => cdc::newest_transaction(&mut source, lsn).await?,
        None => None,
    };
    let instance = changes.map(|changes| &changes.capture.instance);
    let end = swap::SwapRecord {
        mapping: work.mapping.id,
        claim: work.claim,
        stored,
        checkpoint,
        transaction,
        instance,
    };
    swap::finish_direct(work, direct.inserted, &end, dest).await.context("end the load")?;
    log_guarantee(work, checkpoint.is_some() && work.mapping.cdc_enabled);
    Ok(SyncEnd::Completed)
}

/// What the copy can promise of rows that changed while it ran; `followed`: their changes come
/// through CDC next.
fn log_guarantee(work: &SyncRun<'_>, followed: bool) {
    let guarantee = if followed {
        "rows that changed during the copy are mended by the changes that CDC brings next"
    } else if work.shape.source_database.snapshot || work.shape.source.memory_optimized {
        "the rows are those of one moment (SNAPSHOT)"
    } else {
        "rows that changed during the copy may be missing or old (no CDC, no SNAPSHOT at the source)"
    };
    let Mapping { id, server, .. } = work.mapping;
    info!(
        mapping_id = id.0,
        server_id = server.0,
        sync_type = SyncType::FullSync.as_str(),
        "{guarantee}"
    );
}

/// Drops staging tables in a destination database that nobody fills any more; how many there were.
///
/// The control database has a fixed name, so every staging table of this instance is one of ours,
/// also one whose mapping was deleted since. One that a living session fills is locked, and stays.
pub async fn drop_leftover_stages(env: &Env, database: &Ident) -> Result<usize> {
    let connections = env.dest_connections(1, "leftover staging tables").await?;
    let mut dest = connections.checkout(database).await?;
    let found = dest
        .rows(include_str!("../../../sql/leftover_stages.sql"), &[])
        .await
        .context("look for leftover staging tables")?;
    let mut dropped = 0;
    for row in found {
        let stage = TableName {
            database: database.clone(),
            schema: Ident::new("dbo"),
            table: Ident::new(row.text(0)?),
        };
        if !tsql::swap::is_stage(&stage) {
            continue;
        }
        if stage_lock::try_take(&mut dest, &stage, 0).await? {
            dest.batch(&tsql::swap::drop_stage(&stage))
                .await
                .with_context(|| format!("drop leftover {stage}"))?;
            stage_lock::release(&mut dest, &stage).await;
            dropped += 1;
        }
    }
    Ok(dropped)
}
