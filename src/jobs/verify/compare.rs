//! Comparing rows of both sides: suspects are found, then confirmed.
//!
//! **Why rows and no hashes of ranges.** A server could compute a hash over a range of keys, and only
//! ranges whose hashes differ would be read. The two sides would not agree on it: their types may
//! differ (`int` and `bigint`, `datetime` and `datetime2`, `char` and `nvarchar`), text has other code
//! pages and pads otherwise, `xml` and floats have no exact text, and CHECKSUM takes rows for equal
//! that are not. So rows stream by in ranges of the source's key, each range once, and are compared by
//! the hash of [`crate::plan::digest`], which is exact. That costs the same however many rows differ.
//!
//! **Many differences.** Suspects of all ranges are collected and looked at again together, so that a
//! run waits for replication once and not once per range. They are read by key in statements of
//! hundreds of keys, each of which the server seeks: the cost is that of the suspects, wherever in the
//! table they are. At most [`SUSPECTS_MAX`] are held; when so many are certain, what comes behind them
//! is only counted.

use super::{
    CARRIED_MAX, SUSPECTS_MAX, Scope, Step, Watch,
    confirm::{ConfirmedDifferences, confirm, no_full_sync_since, standing},
    drift::{drift, since},
    limit::{Ended, Limit},
    rows::RowReader,
    sweep::{SweepReach, read_part},
};
use crate::{
    control::{CurrentMapping, SweepProgress},
    error::{Kind, Result},
    jobs::{Env, shape},
    model::mapping::{Mapping, SyncType},
    mssql::{client::session::Session, queries::catalog},
    plan::{
        digest::Hash,
        verify::{RowSet, Status, Suspects, Tally, details, differences, pairs, side_hash},
    },
};
use std::time::Instant;
use tracing::info;

/// What a comparison came to.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub status: Option<Status>,
    /// The hash over the rows, where they were read in one piece, and their number.
    pub source: Option<(Option<Hash>, usize)>,
    pub dest: Option<(Option<Hash>, usize)>,
    pub compared: usize,
    pub findings: Tally,
    /// Differences that are neither confirmed nor refuted, or are right as the mapping does not
    /// follow its source.
    pub open: Tally,
    /// What `findings` does not say.
    pub notes: Vec<String>,
}

impl Comparison {
    pub fn details(&self) -> String {
        let named = details(&self.findings);
        self.notes
            .iter()
            .map(String::as_str)
            .chain([named.as_str()])
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Counts what a part of the table had.
    fn add_part(&mut self, left: &RowSet, right: &RowSet) {
        self.compared += pairs(left, right).count();
        for (sum, side) in [(&mut self.source, left), (&mut self.dest, right)] {
            *sum = Some(sum.map_or_else(
                || (Some(side_hash(side)), side.len()),
                |(_, rows)| (None, rows + side.len()),
            ));
        }
    }
}

/// Compares rows of both sides, at most `until` a moment. `None`: nothing can be said, because a full
/// sync is due or running, or the mapping is gone.
pub(super) async fn compare(
    env: &Env,
    mapping: &Mapping,
    scope: Scope,
    until: Option<Instant>,
    watch: Watch<'_>,
) -> Result<Option<Comparison>> {
    let Some(at_start) = standing(env, mapping).await? else { return Ok(None) };
    let limit = Limit::new(env, mapping, &at_start, until);
    let mut progress = env.control.verification_progress(mapping.id).await?;
    let whole = scope == Scope::Whole;
    // without a sweep under way the table is small, and two more logins would cost more than they
    // save
    let lane = (whole || progress.sweep_after.is_some()) && env.verifies_by_copy_lane(mapping)?;
    let count = if lane { 2 } else { 1 };
    let connections = env.connections(mapping, count, count).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    let shape = shape::gather(&mut source, &mut dest, mapping).await?;
    let mut reader = RowReader::new(mapping, &shape);
    if lane {
        reader.open_copy_lane(&connections).await;
    }
    reader.set_isolation(&mut source, &mut dest).await?;
    let total = if whole {
        (progress.sweep_after, progress.sweep_rows) = (None, 0);
        catalog::row_count(&mut source, &shape.source).await?
    } else {
        None
    };
    let drift = drift(mapping, &at_start, scope);
    let mut comparer = Comparer {
        env,
        mapping,
        at_start: &at_start,
        drift,
        whole,
        reader,
        limit: &limit,
        watch,
        total,
        found: Comparison::default(),
        pending: Suspects::new(),
        undecided: None,
        ended: None,
    };
    let Some(reach) = comparer.parts(&mut progress, &mut source, &mut dest).await? else {
        return Ok(None);
    };
    comparer.conclude(&mut dest).await?;
    let Comparer { reader, found, ended, .. } = comparer;
    reader.close().await;
    shape::prove(&mut source, &mut dest, mapping, &shape).await?;
    // a table that is compared whole in every run is reported once
    if reach == SweepReach::End || (reach == SweepReach::AtOnce && !progress.completed_before) {
        log_sweep_completed(mapping, progress.sweep_rows);
    }
    if let Some(ended) = ended {
        log_ended(mapping, ended, found.compared);
    }
    let completed = reach != SweepReach::Part;
    if completed {
        progress.sweep_rows = 0;
    }
    // what was to be looked at again and was not is still to be
    let known = found.findings.kept().values().chain(found.open.kept().values());
    progress.carried.extend(known.map(|(_, key)| key.clone()).take(CARRIED_MAX));
    progress.carried.truncate(CARRIED_MAX);
    env.control.save_verification_progress(mapping.id, &progress, completed).await?;
    // after a full sync nothing that was read holds
    Ok((ended != Some(Ended::FullSyncDue)).then_some(found))
}

fn log_sweep_completed(mapping: &Mapping, rows: i64) {
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::Verification.as_str(),
        records_count = rows,
        "every row of {} has been compared once more",
        mapping.source
    );
}

fn log_ended(mapping: &Mapping, ended: Ended, compared: usize) {
    info!(
        mapping_id = mapping.id.0,
        server_id = mapping.server.0,
        sync_type = SyncType::Verification.as_str(),
        records_count = compared,
        "the verification of {} ended before its end: {ended}; the next one goes on from here",
        mapping.source
    );
}

/// Why differences are neither confirmed nor refuted.
struct Undecided {
    why: String,
    /// Replication does not follow.
    stalled: bool,
    /// Looking at others would be in vain, too.
    gave_up: bool,
}

/// A comparison under way.
struct Comparer<'a> {
    env: &'a Env,
    mapping: &'a Mapping,
    at_start: &'a CurrentMapping,
    /// Why the mapping does not follow its source, if it does not: then differences are not
    /// confirmed.
    drift: Option<&'static str>,
    /// Every row is compared, range by range.
    whole: bool,
    reader: RowReader<'a>,
    limit: &'a Limit<'a>,
    watch: Watch<'a>,
    /// Rows there are, as the catalog has it.
    total: Option<i64>,
    found: Comparison,
    /// Differences that are not looked at again yet.
    pending: Suspects,
    undecided: Option<Undecided>,
    /// Why it ended before its end, if it did.
    ended: Option<Ended>,
}

impl Comparer<'_> {
    /// Reads and compares part after part, and decides what differs. `None`: a full sync began
    /// meanwhile.
    async fn parts(
        &mut self,
        progress: &mut SweepProgress,
        source: &mut Session,
        dest: &mut Session,
    ) -> Result<Option<SweepReach>> {
        loop {
            let before = progress.clone();
            let (mut left, mut right) = (RowSet::new(), RowSet::new());
            let sides = (&mut left, &mut right);
            let sessions = (&mut *source, &mut *dest);
            let read = read_part(
                self.env,
                &mut self.reader,
                self.whole,
                progress,
                sessions,
                sides,
                self.limit,
            );
            let reach = match read.await {
                Ok(reach) => reach,
                // half a part is no part
                Err(error) if error.kind == Kind::Cancelled => {
                    *progress = before;
                    self.ended = self.limit.ended_so_far();
                    break;
                }
                Err(error) => return Err(error),
            };
            self.add_suspects(differences(&left, &right));
            let last = !self.whole || reach != SweepReach::Part;
            let alone = last && self.found.source.is_none();
            if (last || self.pending.len() >= SUSPECTS_MAX)
                && !self.decide(source, dest, alone.then_some((&mut left, &mut right))).await?
            {
                return Ok(None);
            }
            self.found.add_part(&left, &right);
            (self.watch)(Step::Compared { rows: self.found.compared, total: self.total });
            if last {
                return Ok(Some(reach));
            }
        }
        // ended within a part: what is pending stays open
        let pending = std::mem::take(&mut self.pending);
        self.found.open.add(pending);
        Ok(Some(SweepReach::Part))
    }

    fn add_suspects(&mut self, suspects: Suspects) {
        let enough = self.found.findings.counts().total() >= SUSPECTS_MAX as u64;
        let gave_up = self.undecided.as_ref().is_some_and(|undecided| undecided.gave_up);
        if self.drift.is_some() || gave_up || enough {
            self.found.open.add(suspects);
            return;
        }
        for (key, suspect) in suspects {
            if self.pending.len() < SUSPECTS_MAX {
                self.pending.insert(key, suspect);
            } else {
                self.found.open.add(Suspects::from([(key, suspect)]));
            }
        }
    }

    /// Looks at what is pending again. `false`: a full sync began meanwhile.
    async fn decide(
        &mut self,
        source: &mut Session,
        dest: &mut Session,
        seen: Option<(&mut RowSet, &mut RowSet)>,
    ) -> Result<bool> {
        let (env, mapping) = (self.env, self.mapping);
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(true);
        }
        (self.watch)(Step::LookingAgain { keys: pending.len() });
        let sessions = (source, dest);
        let confirmed =
            confirm(env, mapping, &self.reader, pending, sessions, seen, self.limit).await?;
        if !no_full_sync_since(env, mapping, self.at_start).await? {
            return Ok(false);
        }
        if !confirmed.open.is_empty() {
            let ConfirmedDifferences { why, stalled, gave_up, .. } = confirmed;
            self.undecided = Some(Undecided { why, stalled, gave_up });
            self.ended = self.limit.ended().await?;
        }
        self.found.findings.add(confirmed.findings);
        self.found.open.add(confirmed.open);
        Ok(true)
    }

    /// What came of it, and why what is open is.
    async fn conclude(&mut self, dest: &mut Session) -> Result<()> {
        if let Some(ended) = self.ended {
            self.found.notes.push(format!("stopped before the end: {ended}"));
        }
        self.found.status =
            Some(match (self.found.findings.is_empty(), self.found.open.is_empty()) {
                (false, _) => Status::Failed,
                (true, true) if self.ended.is_none() => Status::Passed,
                _ => Status::Partial,
            });
        if self.found.open.is_empty() {
            return Ok(());
        }
        let (why, drifts) = match (self.drift, &self.undecided, self.ended) {
            (Some(why), ..) => (why.to_owned(), true),
            (None, Some(undecided), _) => (undecided.why.clone(), undecided.stalled),
            (None, None, Some(ended)) => (ended.to_string(), false),
            (None, None, None) => ("more than one verification looks at again".to_owned(), false),
        };
        let since = match drifts {
            true => format!("drift since {}: ", since(self.mapping, self.at_start, dest).await?),
            false => String::new(),
        };
        self.found.notes.push(format!(
            "{} keys not decided ({since}{why}):\n{}",
            self.found.open.counts().total(),
            details(&self.found.open)
        ));
        Ok(())
    }
}
