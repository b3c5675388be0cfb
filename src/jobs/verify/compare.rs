//! Comparing rows of both sides: suspects are found, then confirmed.

use super::{
    CARRIED_MAX, SAMPLE, SUSPECTS_MAX, Scope, Watch,
    confirm::{confirm, no_full_sync_since, standing},
    drift::{drift, since},
    rows::RowReader,
    sweep::{SweepReach, read_part},
};
use crate::{
    control::{CurrentMapping, SweepProgress},
    error::Result,
    jobs::{Env, shape},
    model::mapping::{Mapping, SyncType},
    mssql::{client::session::Session, queries::catalog},
    plan::{
        digest::Hash,
        verify::{RowSet, Status, Suspects, Tally, details, differences, pairs, side_hash},
    },
};
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
    /// Rows that differ by right.
    pub drifting: u64,
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

/// Compares rows of both sides. `None`: nothing can be said, because a full sync is due or running,
/// or the mapping is gone.
pub(super) async fn compare(
    env: &Env,
    mapping: &Mapping,
    scope: Scope,
    watch: Watch<'_>,
) -> Result<Option<Comparison>> {
    let Some(at_start) = standing(env, mapping).await? else { return Ok(None) };
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
        drifts: drift.is_some(),
        reader,
        found: Comparison::default(),
        open: Tally::default(),
    };
    let reach = loop {
        let Some(reach) = comparer.part(whole, &mut progress, &mut source, &mut dest).await? else {
            return Ok(None);
        };
        watch(comparer.found.compared, total);
        if !whole || reach != SweepReach::Part || env.stopping() {
            break reach;
        }
    };
    let Comparer { reader, mut found, open, .. } = comparer;
    reader.close().await;
    shape::prove(&mut source, &mut dest, mapping, &shape).await?;
    let completed = reach != SweepReach::Part;
    // a table that is compared whole in every run is reported once
    if reach == SweepReach::End || (reach == SweepReach::AtOnce && !progress.completed_before) {
        log_sweep_completed(mapping, progress.sweep_rows);
    }
    if completed {
        progress.sweep_rows = 0;
    } else if whole {
        found.notes.push("stopped before the end".into());
    }
    found.status = Some(match (found.findings.is_empty(), open.is_empty()) {
        (false, _) => Status::Failed,
        (true, true) if completed || !whole => Status::Passed,
        _ => Status::Partial,
    });
    let known = found.findings.kept().values().chain(open.kept().values());
    progress.carried = known.take(CARRIED_MAX).map(|(_, key)| key.clone()).collect();
    if let Some(why) = drift.filter(|_| !open.is_empty()) {
        let since = since(mapping, &at_start, &mut dest).await?;
        found.notes.push(format!("drift since {since}: {why}\n{}", details(&open)));
        found.drifting = open.counts().total();
    }
    env.control.save_verification_progress(mapping.id, &progress, completed).await?;
    Ok(Some(found))
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

/// A comparison under way.
struct Comparer<'a> {
    env: &'a Env,
    mapping: &'a Mapping,
    at_start: &'a CurrentMapping,
    /// The mapping does not follow its source: differences are not confirmed.
    drifts: bool,
    reader: RowReader<'a>,
    found: Comparison,
    /// Differences that are neither confirmed nor refuted.
    open: Tally,
}

impl Comparer<'_> {
    /// Reads and compares one part of the table. `None`: a full sync began meanwhile.
    async fn part(
        &mut self,
        whole: bool,
        progress: &mut SweepProgress,
        source: &mut Session,
        dest: &mut Session,
    ) -> Result<Option<SweepReach>> {
        let (mut left, mut right) = (RowSet::new(), RowSet::new());
        let sides = (&mut left, &mut right);
        let reach =
            read_part(self.env, &mut self.reader, whole, progress, source, dest, sides).await?;
        let suspects = differences(&left, &right);
        if self.drifts {
            self.open.add(suspects);
        } else if !suspects.is_empty() {
            let suspects = self.sample(suspects);
            if !self.confirm(suspects, source, dest, (&mut left, &mut right)).await? {
                return Ok(None);
            }
        }
        self.found.add_part(&left, &right);
        Ok(Some(reach))
    }

    /// All suspects, or a sample of too many.
    fn sample(&mut self, suspects: Suspects) -> Suspects {
        if suspects.len() <= SUSPECTS_MAX {
            return suspects;
        }
        self.found.notes.push(format!(
            "{} rows differ at first sight; {SAMPLE} of them were looked at one by one",
            suspects.len()
        ));
        suspects.into_iter().take(SAMPLE).collect()
    }

    /// Confirms suspects. `false`: a full sync began meanwhile.
    async fn confirm(
        &mut self,
        suspects: Suspects,
        source: &mut Session,
        dest: &mut Session,
        sides: (&mut RowSet, &mut RowSet),
    ) -> Result<bool> {
        let (env, mapping) = (self.env, self.mapping);
        let confirmed = confirm(env, mapping, &self.reader, suspects, source, dest, sides).await?;
        if !no_full_sync_since(env, mapping, self.at_start).await? {
            return Ok(false);
        }
        if !confirmed.open.is_empty() {
            let drift = if confirmed.stalled {
                format!("drift since {}: ", since(mapping, self.at_start, dest).await?)
            } else {
                String::new()
            };
            let keys = Tally::from(confirmed.open.clone());
            self.found.notes.push(format!(
                "{} keys not decided ({drift}{}):\n{}",
                confirmed.open.len(),
                confirmed.why,
                details(&keys)
            ));
        }
        self.found.findings.add(confirmed.findings);
        self.open.add(confirmed.open);
        Ok(true)
    }
}
