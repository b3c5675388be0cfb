//! The cut, the fence, and what lies between them: changes made during the copy, on their way into the staging table.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Work, progress::Stage};
use crate::{
    error::{Context, Error, Kind, Result},
    jobs::{
        apply::{self, Pace, Replay, Target},
        fence::{self, Patience},
        instances,
        shape::Shape,
    },
    model::{
        capture::Capture,
        lsn::Lsn,
        mapping::{Mapping, SyncType},
    },
    mssql::{cdc, session::Session},
};

/// Capture may be idle: then the proof is the row that it writes about every five minutes.
const FENCE_WAIT_MAX: Duration = Duration::from_secs(330);
const FENCE_POLL: Duration = Duration::from_millis(200);

/// Where the changes made during the copy will be found.
pub struct Changes {
    pub capture: Capture,
    /// Every change up to here is in what is read from now on.
    pub cut: Lsn,
}

/// The capture instance of the source table that has most of what is carried, and the cut; used whether or not CDC is on for the mapping.
pub async fn changes(source: &mut Session, mapping: &Mapping, shape: &Shape) -> Result<Option<Changes>> {
    let found = async {
        if !cdc::enabled(source).await? {
            return Ok::<_, Error>(None);
        }
        let found = instances::of_table(source, shape).await?;
        let Some(capture) = instances::best(source, shape, found).await? else { return Ok(None) };
        if !capture.instance.is_readable() {
            return Err(cdc::gated(&capture.instance));
        }
        let upper = cdc::upper(source).await?.map_or(Lsn::ZERO, |upper| upper.lsn);
        let cut = upper.max(capture.instance.start.prev());
        Ok(Some(Changes { capture, cut }))
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
pub async fn replay(work: &Work<'_>, changes: &Changes, source: &mut Session, dest: &mut Session) -> Result<Option<Lsn>> {
    let Work { env, mapping, shape, stage, progress, .. } = work;
    let Changes { capture, cut } = changes;
    let cut = *cut;
    progress.enter(Stage::Fence);
    let reading = fence::reading(source).await.context("read the source's clock")?;
    let patience = Patience { wait_max: FENCE_WAIT_MAX, while_it_moves: true, poll: FENCE_POLL };
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
    progress.enter(Stage::Replay);
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
            pace: Pace::Batches(env.config.batch_rows),
            cancel: &env.cancel,
        };
        let mut follow = |applied: &apply::Applied| progress.replayed(applied.changes);
        let applied = apply::apply_changes(source, dest, &replay, &mut follow).await.context("replay changes into the staging table")?;
        if env.stopping() {
            return Err(Error::new(Kind::Cancelled, "asked to stop during the replay"));
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
