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
//!    moves meanwhile can be missed, or met twice: step 6 repairs the first and the second is dropped
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
//!    (= the fence), its copy in the destination and `last_full_sync_at`, and clears the pending
//!    mark. It fails if the old LSN or this attempt's claim has changed, so that an attempt which
//!    another one overtook swaps nothing in. A CDC pass goes on from the fence.
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
mod leftovers;
mod modes;
mod progress;
mod refusal;
mod replay;
mod stage_lock;
mod swap;
mod trigger;

use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::{leftovers::drop_leftover_stages, trigger::Triggers};
use self::{
    modes::{run_direct, run_staged},
    progress::{Stop, SyncProgress},
};
use super::{
    Env, JobConnections, JobEnd,
    shape::{self, Shape},
};
use crate::{
    control::{FullSyncClaim, RunOutcome},
    error::{Context, Error, Kind, Result},
    model::{
        mapping::{FullSyncMode, Mapping, SyncType},
        name::TableName,
    },
    mssql::{client::session::Session, queries::catalog},
    plan::sharing,
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
    /// Whether rows are copied through the copy lane.
    copy_lane: bool,
}

/// Claims the request and makes the destination equal to the source; leaves its row in sync_status,
/// failed or not.
///
/// `trigger`: the trigger column was seen set. The caller logs an error.
pub async fn run(env: &Env, mapping: &Mapping, trigger: bool) -> Result<JobEnd> {
    // boxed: a full sync's future is by far the largest
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
    // The attempt that overtook this one may have read the rows before the trigger column was reset
    // here, so the request is made again.
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
    let copy_lane = env.uses_copy_lane(mapping)?;
    let connections = env.connections(mapping, 1, if copy_lane { 2 } else { 1 }).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    dest.set_timeout(env.config.long_statement_timeout);

    if trigger && !trigger::reset(&mut source, env, mapping).await? {
        env.triggers.refuse(mapping.id);
    }
    drop(source);
    let mut restarts = shape::Restarts::new(mapping, SyncType::FullSync);
    loop {
        let done = Box::pin(with_current_columns(
            env,
            (mapping, claim),
            progress,
            (&connections, copy_lane),
            &mut dest,
        ))
        .await;
        let usable = !dest.is_broken() && !env.stopping();
        if !usable || !restarts.again(done.as_ref().err()) {
            return done;
        }
        progress.begin_again();
    }
}

/// From the first look at the tables to the swap.
async fn with_current_columns(
    env: &Env,
    (mapping, claim): (&Mapping, &FullSyncClaim),
    progress: &SyncProgress,
    (connections, copy_lane): (&JobConnections, bool),
    dest: &mut Session,
) -> Result<SyncEnd> {
    let mut source = connections.source(&mapping.source.database).await?;
    let shape = shape::gather(&mut source, dest, mapping).await?;
    refuse_shared_destination(env, mapping).await?;
    log_warnings(mapping, &shape, dest).await?;
    let current = env
        .control
        .current_mapping(mapping.id)
        .await?
        .ok_or_else(|| Error::new(Kind::Config, "the mapping was deleted"))?;
    let mut changes = replay::find_change_source(&mut source, mapping, &shape).await?;
    if let Some(changes) = changes.as_ref().filter(|_| mapping.cdc_enabled) {
        env.uncaptured.report(&env.control, mapping, &shape.map, &changes.capture).await;
    }
    let stored = current.last_cdc_lsn;

    let stage = tsql::swap::stage(mapping.id, env.generation, &shape.dest.name.database);
    stage_lock::take(dest, &stage).await?;
    let work = SyncRun {
        env,
        mapping,
        claim,
        shape: &shape,
        stage: &stage,
        progress,
        connections,
        copy_lane,
    };
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
    if !matches!(done, Ok(SyncEnd::Completed)) {
        drop_stage(&stage, mapping, dest).await;
    }
    stage_lock::release(dest, &stage).await;
    done
}

async fn refuse_shared_destination(env: &Env, mapping: &Mapping) -> Result<()> {
    let sharers = env.control.same_destination(mapping.id).await?;
    sharing::refusal(mapping.id, &sharers, &mapping.dest).map_or(Ok(()), Err)
}

/// Logs what an operator should know of the two tables.
async fn log_warnings(mapping: &Mapping, shape: &Shape, dest: &mut Session) -> Result<()> {
    let acting = catalog::foreign_keys(dest, &shape.dest).await?;
    let acting =
        acting.iter().filter(|key| key.acts_on_delete && key.parent_id == shape.dest.object_id);
    let warnings = shape.map.warnings.iter().cloned().chain(acting.map(|key| {
        format!("{} ({})", key.cascade_warning(), tsql::copied::copyable(&key.without_cascade()))
    }));
    for warning in warnings {
        warn!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::SchemaCheck.as_str(),
            "{}: {warning}",
            mapping.source
        );
    }
    Ok(())
}

/// Drops the staging table of a run that did not complete. If that fails, the mapping's next full
/// sync drops it.
async fn drop_stage(stage: &TableName, mapping: &Mapping, dest: &mut Session) {
    if dest.is_broken() {
        return;
    }
    let dropped = async {
        dest.recover().await?;
        dest.batch(&tsql::swap::drop_stage(stage)).await
    };
    if let Err(error) = dropped.await {
        // the next full sync of the mapping drops it, or a daemon that starts
        info!(
            mapping_id = mapping.id.0,
            sync_type = SyncType::FullSync.as_str(),
            %error,
            "{}: the staging table {stage} of a full sync that did not complete is still there",
            mapping.source
        );
    }
}
