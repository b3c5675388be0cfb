//! Suspicion → certainty: looking again once replication has passed what was seen.
//! [`crate::plan::verify`] says why it is certain.

use super::{POLL, ROUNDS_MAX, rows::RowReader};
use crate::{
    control::CurrentMapping,
    error::{Context, Result},
    jobs::{
        Env,
        fence::{self, WaitPolicy},
        instances,
        shape::Shape,
    },
    model::{capture::Capture, lsn::Lsn, mapping::Mapping, visible::visible},
    mssql::{client::session::Session, queries::cdc},
    plan::{
        mask,
        verify::{RowSet, Suspects, differences},
    },
    tsql::lookup::TableSide,
};
use std::time::Instant;

/// The mapping's row, if a verification may look at it now: it is there, and no full sync is due or
/// running.
pub(super) async fn standing(env: &Env, mapping: &Mapping) -> Result<Option<CurrentMapping>> {
    Ok(env.control.current_mapping(mapping.id).await?.filter(|standing| !standing.pending))
}

/// Whether no full sync began since `then`, or came and went: it moves the rows under us.
pub(super) async fn no_full_sync_since(
    env: &Env,
    mapping: &Mapping,
    then: &CurrentMapping,
) -> Result<bool> {
    Ok(standing(env, mapping)
        .await?
        .is_some_and(|now| now.last_full_sync_at == then.last_full_sync_at))
}

/// Suspects after the rounds.
pub(super) struct ConfirmedDifferences {
    /// Certain.
    pub findings: Suspects,
    /// Neither equal nor certain.
    pub open: Suspects,
    pub why: String,
    /// `why` is that replication does not follow.
    pub stalled: bool,
}

/// Looks at suspects again until they are equal, certain, or time is up. What the last look saw
/// takes the place of the first's in `seen`.
pub(super) async fn confirm(
    env: &Env,
    mapping: &Mapping,
    reader: &RowReader<'_>,
    suspects: Suspects,
    source: &mut Session,
    dest: &mut Session,
    seen: (&mut RowSet, &mut RowSet),
) -> Result<ConfirmedDifferences> {
    let deadline = Instant::now() + env.config.verify_wait;
    let mut confirmed = ConfirmedDifferences {
        findings: Suspects::new(),
        open: suspects,
        why: "no still moment".into(),
        stalled: false,
    };
    for _ in 0..ROUNDS_MAX {
        if confirmed.open.is_empty() || env.stopping() {
            break;
        }
        let keys: Vec<_> = confirmed.open.values().map(|(_, key)| key.clone()).collect();
        let Some(CaptureBefore { capture, low, oldest, completes }) =
            capture_before(source, reader.shape).await?
        else {
            (confirmed.why, confirmed.stalled) =
                ("the source table has no capture instance".into(), true);
            break;
        };
        let left = reader
            .by_keys(TableSide::Source, source, &keys)
            .await
            .context("read suspect source rows")?;
        if let Err(why) = wait_caught_up(env, mapping, source, oldest, deadline).await? {
            (confirmed.why, confirmed.stalled) = (why, true);
            break;
        }
        let right = reader
            .by_keys(TableSide::Dest, dest, &keys)
            .await
            .context("read suspect destination rows")?;
        let Some(mut high) = current_checkpoint(env, mapping).await? else {
            (confirmed.why, confirmed.stalled) = ("the mapping has no checkpoint".into(), true);
            break;
        };
        let mut differ = differences(&left, &right);
        let mut moved = Suspects::new();
        if completes && !differ.is_empty() {
            match wait_captured(env, source, deadline).await? {
                Ok(fence) => high = high.max(fence),
                Err(why) => {
                    (confirmed.why, confirmed.stalled) = (why, true);
                    break;
                }
            }
            // what is not captured changes without a change row
            let again = reader
                .by_keys(TableSide::Source, source, &keys)
                .await
                .context("read suspect source rows again")?;
            let since = differences(&left, &again);
            (moved, differ) = differ.into_iter().partition(|(key, _)| since.contains_key(key));
        }
        for (seen, again) in [(&mut *seen.0, &left), (&mut *seen.1, &right)] {
            for key in confirmed.open.keys() {
                match again.get(key) {
                    Some(row) => drop(seen.insert(key.clone(), row.clone())),
                    None => drop(seen.remove(key)),
                }
            }
        }
        let (changed, certain) =
            reader.partition_changed(&capture, low, high, differ, source).await?;
        confirmed.findings.extend(certain);
        confirmed.open = changed;
        confirmed.open.append(&mut moved);
        confirmed.why = "rows kept changing".into();
    }
    Ok(confirmed)
}

/// What is known before a look at the source.
pub(super) struct CaptureBefore {
    /// The capture instance that will tell of changes after the look.
    pub capture: Capture,
    /// Every change up to here was committed already.
    pub low: Lsn,
    /// Of changes up to here no capture instance tells (any more).
    pub oldest: Lsn,
    /// Replication may complete a row from the source: then the destination has a later state of
    /// that row than its checkpoint tells.
    pub completes: bool,
}

/// Asked before a look at the source. What was committed before the instance began was committed
/// before the look, too.
pub(super) async fn capture_before(
    source: &mut Session,
    shape: &Shape,
) -> Result<Option<CaptureBefore>> {
    let instances = instances::of_table(source, shape).await?;
    let one = instances.len() == 1;
    let oldest = instances.iter().map(|instance| instance.start.prev()).min().unwrap_or(Lsn::ZERO);
    let Some(capture) = instances::best(source, shape, instances).await? else { return Ok(None) };
    let began = capture.instance.start.prev();
    let max_lsn = cdc::max_lsn(source).await?.map_or(Lsn::ZERO, |max_lsn| max_lsn.lsn);
    // of two, the other one may be what replication reads
    let completes = !one
        || mask::cover(&shape.map, &capture).map_or(true, |coverage| !coverage.partial.is_empty());
    Ok(Some(CaptureBefore { capture, low: max_lsn.max(began), oldest, completes }))
}

/// Waits until everything the source has committed by now is captured; up to which LSN it is, or
/// why nobody can tell.
pub(super) async fn wait_captured(
    env: &Env,
    source: &mut Session,
    deadline: Instant,
) -> Result<std::result::Result<Lsn, String>> {
    let reading = fence::read_clock(source).await?;
    let wait_max = deadline.saturating_duration_since(Instant::now());
    match fence::wait_for_capture(source, &reading, WaitPolicy { wait_max, while_it_moves: false, poll: POLL }, &env.cancel).await {
        Ok(fence) if fence.proven => Ok(Ok(fence.lsn)),
        Ok(_) => Ok(Err(
            "no fence: in an availability group or a mirror only a transaction that was committed and captured since would be proof".into(),
        )),
        Err(error) if !source.is_broken() => {
            source.recover().await?;
            Ok(Err(format!("no fence: {}", visible(&error.to_string()))))
        }
        Err(error) => Err(error),
    }
}

/// Waits until everything the source has committed by now is in the destination; why it is not, if
/// it does not get there. `oldest`: of [`CaptureBefore`].
pub(super) async fn wait_caught_up(
    env: &Env,
    mapping: &Mapping,
    source: &mut Session,
    oldest: Lsn,
    deadline: Instant,
) -> Result<std::result::Result<(), String>> {
    let fence = match wait_captured(env, source, deadline).await? {
        Ok(fence) => fence,
        Err(why) => return Ok(Err(why)),
    };
    loop {
        match current_checkpoint(env, mapping).await? {
            // What was lost no checkpoint passes by itself; the next poll knows what to do about
            // it.
            Some(checkpoint) if checkpoint < oldest => {
                return Ok(Err("changes after the checkpoint are lost at the source".into()));
            }
            Some(checkpoint) if checkpoint >= fence => return Ok(Ok(())),
            Some(_) | None => {}
        }
        if Instant::now() >= deadline || env.stopping() {
            return Ok(Err(format!("the checkpoint has not reached {fence}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Where replication of the mapping stands; `None` also while it is switched off or a full sync is
/// due.
pub(super) async fn current_checkpoint(env: &Env, mapping: &Mapping) -> Result<Option<Lsn>> {
    Ok(standing(env, mapping)
        .await?
        .filter(|standing| standing.enabled)
        .and_then(|standing| standing.last_cdc_lsn))
}
