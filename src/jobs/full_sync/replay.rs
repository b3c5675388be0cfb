//! The cut, the fence, and what lies between them: changes made during the copy, on their way into
//! the staging table.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{SyncRun, progress::SyncStage};
use crate::{
    error::{Context, Error, Kind, Result},
    jobs::{
        apply::{self, ApplyRequest, ApplyTarget, BatchPolicy},
        fence::{self, Fence, WaitPolicy},
        instances,
        shape::Shape,
    },
    model::{
        capture::Capture,
        lsn::Lsn,
        mapping::{Mapping, SyncType},
    },
    mssql::{
        client::session::Session,
        queries::cdc::{self, LsnBounds},
    },
    plan::{
        fence::{CaptureJobs, wait_max},
        window,
    },
};

const FENCE_POLL: Duration = Duration::from_millis(200);

/// Where the changes made during the copy will be found.
pub struct ChangeSource {
    pub capture: Capture,
    /// Every change up to here is in what is read from now on by a session that has seen it
    /// captured ([`ChangeSource::limit_to_session`]).
    pub copy_start_lsn: Lsn,
    /// What the session that found the cut had seen captured.
    max_lsn: Lsn,
    /// When that was.
    found: Instant,
}

impl ChangeSource {
    /// The same for a session that is about to copy: the server that it is on may be behind the one
    /// where the cut was found.
    pub fn limit_to_session(&mut self, seen: LsnBounds) {
        self.copy_start_lsn =
            window::copy_start_lsn(self.copy_start_lsn, self.max_lsn, seen.visible_up_to());
    }

    /// Whether changes since the cut are still there; an error that says what to do where they are
    /// not: whatever is copied again takes as long.
    fn check_retained(&self, min: Lsn, job: Option<&CaptureJobs>) -> Result<()> {
        if min <= self.copy_start_lsn.next() {
            return Ok(());
        }
        let minutes = |time: Duration| time.as_secs().div_ceil(60);
        let took = minutes(self.found.elapsed());
        let kept = job.and_then(|job| job.retention).map_or_else(String::new, |kept| {
            format!(", and the source keeps changes for {} minutes", minutes(kept))
        });
        Err(Error::new(
            Kind::Gap,
            format!(
                "the changes after {} and before {min}, made since the copy began, are no longer in the change table: copying and waiting for capture took {took} minutes{kept}",
                self.copy_start_lsn
            ),
        )
        .with_hint(format!(
            "Keep changes longer at the source, or this full sync will be repeated and fail again: EXEC sys.sp_cdc_change_job @job_type = N'cleanup', @retention = {}",
            // minutes; three times what it took, and not less than the default of three days
            took.saturating_mul(3).max(4_320)
        )))
    }
}

/// The capture instance of the source table that has most of what is carried, and the cut; used
/// whether or not CDC is on for the mapping.
pub async fn find_change_source(
    source: &mut Session,
    mapping: &Mapping,
    shape: &Shape,
) -> Result<Option<ChangeSource>> {
    let found = async {
        if !cdc::enabled(source).await? {
            return Ok::<_, Error>(None);
        }
        let found = instances::of_table(source, shape).await?;
        let Some(capture) = instances::best(source, shape, found).await? else { return Ok(None) };
        if !capture.instance.is_readable() {
            return Err(cdc::not_readable(&capture.instance));
        }
        let max_lsn = cdc::max_lsn(source).await?.map_or(Lsn::ZERO, |max_lsn| max_lsn.lsn);
        let copy_start_lsn = max_lsn.max(capture.instance.start.prev());
        Ok(Some(ChangeSource { capture, copy_start_lsn, max_lsn, found: Instant::now() }))
    };
    match found.await {
        // who did not ask for CDC does not need the rights for it
        Err(error)
            if !mapping.cdc_enabled && error.kind == Kind::Permission && !source.is_broken() =>
        {
            source.recover().await?;
            Ok(None)
        }
        other => other,
    }
}

/// Waits for the fence and applies the changes up to it to the staging table; returns the LSN from
/// which CDC continues. `None` when the mapping does not use CDC and nothing was proven.
///
/// Where nothing can prove the fence ([`Fence::proven`]), CDC continues from the start of the copy:
/// the staging table may lack changes that the copy has seen, and they are applied then.
pub async fn replay(
    work: &SyncRun<'_>,
    changes: &ChangeSource,
    source: &mut Session,
    dest: &mut Session,
) -> Result<Option<Lsn>> {
    let SyncRun { mapping, progress, .. } = work;
    let copy_start_lsn = changes.copy_start_lsn;
    progress.enter(SyncStage::Fence);
    let job = fence::capture_jobs(source).await?;
    // before waiting: the changes may be lost already
    let bounds = cdc::bounds(source, &changes.capture.instance).await?;
    changes.check_retained(bounds.min, job.as_ref())?;
    let Some(fence) = wait_for_fence(work, job.as_ref(), source).await? else { return Ok(None) };
    let fence = Fence { lsn: fence.lsn.max(copy_start_lsn), ..fence };
    progress.enter(SyncStage::Replay);
    let began = Instant::now();
    let replayed = if fence.lsn > copy_start_lsn {
        apply_to_stage(work, changes, fence.lsn, job.as_ref(), (source, dest)).await?
    } else {
        0
    };
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::FullSync.as_str(),
        records_count = i64::try_from(replayed).unwrap_or(i64::MAX),
        execution_time_ms = i32::try_from(began.elapsed().as_millis()).unwrap_or(i32::MAX),
        "full sync of {}: changes made during the copy are in the staging table, up to LSN {}",
        mapping.source,
        fence.lsn
    );
    if !fence.proven {
        info!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::FullSync.as_str(),
            "full sync of {}: no transaction was captured since that would prove how far capture is in this availability group or mirror: changes go on from LSN {copy_start_lsn}, before the copy",
            mapping.source
        );
    }
    Ok(Some(fence.resume_lsn(copy_start_lsn)))
}

/// Waits until capture has passed the copy. `None` for a mapping without CDC whose source does not
/// get there.
async fn wait_for_fence(
    work: &SyncRun<'_>,
    job: Option<&CaptureJobs>,
    source: &mut Session,
) -> Result<Option<Fence>> {
    let SyncRun { env, mapping, progress, .. } = work;
    let wait_max = wait_max(job);
    progress.set_capture_wait(wait_max);
    let reading = fence::read_clock(source).await.context("read the source's clock")?;
    let policy = WaitPolicy { wait_max, while_it_moves: true, poll: FENCE_POLL };
    match fence::wait_for_capture(source, &reading, policy, &env.cancel).await {
        Ok(fence) => Ok(Some(fence)),
        Err(error)
            if !mapping.cdc_enabled
                && !matches!(error.kind, Kind::Cancelled)
                && !source.is_broken() =>
        {
            source.recover().await?;
            warn!(
                mapping_id = mapping.id.0,
                server_id = mapping.server.0,
                sync_type = SyncType::FullSync.as_str(),
                error = %error,
                "full sync of {}: capture does not prove how far the copy reaches; CDC is off for this mapping, so the copy stands as it is",
                mapping.source
            );
            Ok(None)
        }
        Err(error) => Err(error).context("wait until capture has passed the copy"),
    }
}

/// Applies the changes made during the copy to the staging table; how many there were.
async fn apply_to_stage(
    work: &SyncRun<'_>,
    changes: &ChangeSource,
    to: Lsn,
    job: Option<&CaptureJobs>,
    (source, dest): (&mut Session, &mut Session),
) -> Result<u64> {
    let SyncRun { env, shape, stage, progress, .. } = work;
    let mut replayed = 0u64;
    let request = ApplyRequest {
        map: &shape.map,
        source: &shape.source,
        capture: &changes.capture,
        from: changes.copy_start_lsn,
        to,
        target: ApplyTarget::Staging { table: stage },
        batch_policy: BatchPolicy::Batches(env.config.batch_rows),
        cancel: &env.cancel,
    };
    let mut on_commit = |group: &apply::AppliedGroup| {
        replayed += group.changes;
        progress.replayed(replayed);
    };
    match apply::apply_changes(source, dest, &request, &mut on_commit).await {
        Err(error) if error.kind == Kind::Gap && !source.is_broken() => {
            let bounds = cdc::bounds(source, &changes.capture.instance).await?;
            changes.check_retained(bounds.min, job)?;
            Err(error)
        }
        other => other,
    }
    .context("replay changes into the staging table")?;
    if env.stopping() {
        return Err(Error::new(Kind::Cancelled, "asked to stop during the replay"));
    }
    Ok(replayed)
}
