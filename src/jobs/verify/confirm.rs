//! Confirms suspects: reads their rows again once replication has passed the first read.
//! [`crate::plan::verify`] explains why the result is certain.

use super::{POLL, ROUNDS_MAX, limit::Limit, rows::RowReader};
use crate::{
    control::CurrentMapping,
    error::{Context, Kind, Result},
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
use tokio_util::sync::CancellationToken;

/// The mapping's row as it is now; `None`: it was deleted.
pub(super) async fn row_of(env: &Env, mapping: &Mapping) -> Result<Option<CurrentMapping>> {
    env.control.current_mapping(mapping.id).await
}

/// The mapping's row, if it may be verified now: it exists, and no full sync is due or running.
pub(super) async fn standing(env: &Env, mapping: &Mapping) -> Result<Option<CurrentMapping>> {
    Ok(row_of(env, mapping).await?.filter(|standing| !standing.pending))
}

/// Whether no full sync has begun (or has begun and ended) since `then`: it changes rows without
/// change rows.
pub(super) async fn no_full_sync_since(
    env: &Env,
    mapping: &Mapping,
    then: &CurrentMapping,
) -> Result<bool> {
    Ok(standing(env, mapping)
        .await?
        .is_some_and(|now| now.last_full_sync_at == then.last_full_sync_at))
}

/// Keys that are looked at again together: they share the waits, and what the looks see is held in
/// memory.
const BATCH_KEYS_MAX: usize = 5_000;

/// Suspects after the rounds.
#[derive(Default)]
pub(super) struct ConfirmedDifferences {
    /// Certain findings.
    pub findings: Suspects,
    /// Rows that differ, but not certainly.
    pub open: Suspects,
    pub why: String,
    /// Whether the reason in `why` is that replication has not caught up.
    pub stalled: bool,
    /// Not all were looked at, and looking at others would be in vain, too.
    pub gave_up: bool,
}

/// Looks at suspects again until they are equal, certain, or `DATAFLOW_VERIFY_WAIT` is up. What the
/// last look saw takes the place of the first's in `seen`.
pub(super) async fn confirm(
    env: &Env,
    mapping: &Mapping,
    reader: &RowReader<'_>,
    mut suspects: Suspects,
    (source, dest): (&mut Session, &mut Session),
    mut seen: Option<(&mut RowSet, &mut RowSet)>,
    limit: &Limit<'_>,
) -> Result<ConfirmedDifferences> {
    let limit = limit.until(Instant::now() + env.config.verify_wait);
    let mut confirmed = ConfirmedDifferences::default();
    while !suspects.is_empty() {
        let behind = suspects.keys().nth(BATCH_KEYS_MAX).cloned();
        let rest = behind.map_or_else(Suspects::new, |first| suspects.split_off(&first));
        let batch = std::mem::replace(&mut suspects, rest);
        let mut rounds = Rounds {
            env,
            mapping,
            reader,
            limit: &limit,
            confirmed: ConfirmedDifferences {
                open: batch,
                why: "no still moment".into(),
                ..ConfirmedDifferences::default()
            },
        };
        let seen = seen.as_mut().map(|(left, right)| (&mut **left, &mut **right));
        let result = rounds.run(source, dest, seen).await;
        let ConfirmedDifferences { findings, mut open, why, stalled, .. } = rounds.confirmed;
        confirmed.findings.extend(findings);
        if !open.is_empty() {
            (confirmed.why, confirmed.stalled) = (why, stalled);
            confirmed.open.append(&mut open);
        }
        match result {
            Ok(()) => {}
            // what the batch came to so far is right, whatever ended it
            Err(error) if error.kind == Kind::Cancelled => {
                confirmed.why = error.to_string();
            }
            Err(error) => return Err(error),
        }
        // further batches would only wait for the same again
        if confirmed.stalled || limit.ended().await?.is_some() {
            confirmed.gave_up = true;
            confirmed.open.append(&mut suspects);
        }
    }
    Ok(confirmed)
}

/// The rounds of one batch.
struct Rounds<'a> {
    env: &'a Env,
    mapping: &'a Mapping,
    reader: &'a RowReader<'a>,
    limit: &'a Limit<'a>,
    /// Right after each round, and after an error in the midst of one.
    confirmed: ConfirmedDifferences,
}

impl Rounds<'_> {
    async fn run(
        &mut self,
        source: &mut Session,
        dest: &mut Session,
        mut seen: Option<(&mut RowSet, &mut RowSet)>,
    ) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            if self.confirmed.open.is_empty() {
                break;
            }
            self.limit.check().await?;
            let seen = seen.as_mut().map(|(left, right)| (&mut **left, &mut **right));
            if let Some(why) = self.round(source, dest, seen).await? {
                (self.confirmed.why, self.confirmed.stalled) = (why, true);
                break;
            }
        }
        Ok(())
    }

    /// One look at what is open; why replication does not follow, if it does not.
    async fn round(
        &mut self,
        source: &mut Session,
        dest: &mut Session,
        seen: Option<(&mut RowSet, &mut RowSet)>,
    ) -> Result<Option<String>> {
        let Rounds { env, mapping, reader, limit, .. } = *self;
        let keys: Vec<_> = self.confirmed.open.values().map(|(_, key)| key.clone()).collect();
        let Some(CaptureBefore { capture, low, oldest, completes }) =
            capture_before(source, reader.shape).await?
        else {
            return Ok(Some("the source table has no capture instance".into()));
        };
        let left = reader
            .by_keys(TableSide::Source, source, &keys, limit)
            .await
            .context("read suspect source rows")?;
        if let Err(why) = wait_caught_up(env, mapping, source, oldest, limit).await? {
            return Ok(Some(why));
        }
        let right = reader
            .by_keys(TableSide::Dest, dest, &keys, limit)
            .await
            .context("read suspect destination rows")?;
        let Some(mut high) = current_checkpoint(env, mapping).await? else {
            return Ok(Some("the mapping has no checkpoint".into()));
        };
        let mut differ = differences(&left, &right);
        let mut moved = Suspects::new();
        if completes && !differ.is_empty() {
            match wait_captured(source, limit).await? {
                Ok(fence) => high = high.max(fence),
                Err(why) => return Ok(Some(why)),
            }
            // columns that are not captured change without a change row
            let again = reader
                .by_keys(TableSide::Source, source, &keys, limit)
                .await
                .context("read suspect source rows again")?;
            let since = differences(&left, &again);
            (moved, differ) = differ.into_iter().partition(|(key, _)| since.contains_key(key));
        }
        if let Some(seen) = seen {
            for (seen, again) in [(seen.0, &left), (seen.1, &right)] {
                for key in self.confirmed.open.keys() {
                    match again.get(key) {
                        Some(row) => drop(seen.insert(key.clone(), row.clone())),
                        None => drop(seen.remove(key)),
                    }
                }
            }
        }
        let (changed, certain) =
            reader.partition_changed(&capture, low, high, differ, source, limit).await?;
        self.confirmed.findings.extend(certain);
        self.confirmed.open = changed;
        self.confirmed.open.append(&mut moved);
        self.confirmed.why = "rows kept changing".into();
        Ok(None)
    }
}

/// What is known before the source's rows are read.
pub(super) struct CaptureBefore {
    /// The capture instance that will have the changes after the read.
    pub capture: Capture,
    /// Every change up to this LSN was already committed.
    pub low: Lsn,
    /// No capture instance has changes up to this LSN (any more).
    pub oldest: Lsn,
    /// Replication may complete a row from the source: then the destination's row may be later than
    /// its checkpoint.
    pub completes: bool,
}

/// Asked before the source's rows are read. What was committed before the instance began was also
/// committed before that read.
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
    // with two instances, replication may read from the other one
    let completes = !one
        || mask::cover(&shape.map, &capture).map_or(true, |coverage| !coverage.partial.is_empty());
    Ok(Some(CaptureBefore { capture, low: max_lsn.max(began), oldest, completes }))
}

/// Waits until everything the source has committed by now is captured; up to which LSN it is, or
/// why nobody can tell. What ends the verification ends the wait.
pub(super) async fn wait_captured(
    source: &mut Session,
    limit: &Limit<'_>,
) -> Result<std::result::Result<Lsn, String>> {
    let reading = fence::read_clock(source).await?;
    let wait_max = limit.left(limit.env().config.verify_wait);
    let policy = WaitPolicy { wait_max, while_it_moves: false, poll: POLL };
    // the wait comes to its end by itself: its statements are never dropped half way
    let cancel = limit.env().cancel.child_token();
    let done = CancellationToken::new();
    let wait = async {
        let result = fence::wait_for_capture(source, &reading, policy, &cancel).await;
        done.cancel();
        result
    };
    let (result, watched) = tokio::join!(wait, limit.watch(&cancel, &done));
    watched?;
    match result {
        Ok(fence) if fence.proven => Ok(Ok(fence.lsn)),
        Ok(_) => Ok(Err(
            "cannot tell whether capture has passed the rows that were read: in an availability group or a mirror, this takes a transaction that was committed and captured later".into(),
        )),
        Err(error) if !source.is_broken() => {
            source.recover().await?;
            if error.kind == Kind::Cancelled {
                limit.check().await?;
            }
            Ok(Err(format!("no fence: {}", visible(&error.to_string()))))
        }
        Err(error) => Err(error),
    }
}

/// Waits until everything that the source has committed by now is in the destination; otherwise
/// returns why it is not. `oldest` is that of [`CaptureBefore`].
pub(super) async fn wait_caught_up(
    env: &Env,
    mapping: &Mapping,
    source: &mut Session,
    oldest: Lsn,
    limit: &Limit<'_>,
) -> Result<std::result::Result<(), String>> {
    let fence = match wait_captured(source, limit).await? {
        Ok(fence) => fence,
        Err(why) => return Ok(Err(why)),
    };
    loop {
        match current_checkpoint(env, mapping).await? {
            // No checkpoint passes lost changes by itself; the next poll decides what follows.
            Some(checkpoint) if checkpoint < oldest => {
                return Ok(Err("changes after the checkpoint are lost at the source".into()));
            }
            Some(checkpoint) if checkpoint >= fence => return Ok(Ok(())),
            Some(_) | None => {}
        }
        if limit.is_over() {
            return Ok(Err(format!("the checkpoint has not reached {fence}")));
        }
        limit.check().await?;
        tokio::time::sleep(limit.left(POLL)).await;
    }
}

/// The mapping's checkpoint; `None` also while the mapping is disabled or a full sync is due.
pub(super) async fn current_checkpoint(env: &Env, mapping: &Mapping) -> Result<Option<Lsn>> {
    Ok(standing(env, mapping)
        .await?
        .filter(|standing| standing.enabled)
        .and_then(|standing| standing.last_cdc_lsn))
}
