//! Verification: do both sides say the same?
//!
//! # Why it neither misses a difference nor cries wolf
//!
//! 1. **The newest rows by key on both sides**, one ranged query each, hashed as they stream by;
//!    only key and hash are kept. (Short reads under SNAPSHOT where allowed, else READ COMMITTED
//!    with the lock timeout; never NOLOCK.) Both sides' rows are compared as sets. As the two
//!    ranges need not be the same, and text may sort differently on the two sides, a key that is on
//!    one side only is looked up by equality on the other before it counts.
//! 2. **A difference is a suspicion.** Beside live replication the destination is behind by right.
//!    A suspect becomes a finding only when both sides were seen in one state of that row:
//!    `plan::verify` says how, and why that is certain. Keys that keep changing are looked at
//!    again, at most [`ROUNDS_MAX`] times within `DATAFLOW_VERIFY_WAIT`; what is still open then
//!    makes the result PARTIAL, never FAILED.
//! 3. **Only a mapping that keeps up can fail.** Without CDC, or with a checkpoint that does not
//!    follow, the sides differ by right: PARTIAL, with "drift since".
//!
//! # Every row, over time
//!
//! Beside the newest rows each run compares the next range of the table, in the order of the
//! source's key, and remembers where it ended. A table whose newest rows are all of it is done with
//! each run: `sweep_completed_at` moves every time, and the log says it once. What was found, and
//! what could not be decided, is looked at again in every later run, wherever it is in the table:
//! so PASSED means that nothing is known to differ, and an old finding is not forgotten because the
//! newest rows are well.
//!
//! One row in verification_logs per run. FAILED also is one error event of type VERIFICATION, once
//! per distinct finding: the same keys five minutes later are not news. When a later run passes,
//! those errors are marked resolved.
//!
//! With `DATAFLOW_REPAIR=on` findings are mended; [`repair`] says how, and why that cannot harm
//! replication.

mod confirm;
mod record;
mod repair;
mod rows;
mod structure;

pub use record::{KnownFindings, VerificationReport};
pub use structure::{row_count, schema};

use std::time::{Duration, Instant};

use tracing::info;

use super::{Env, shape};
use crate::{
    control::{CurrentMapping, SweepProgress},
    error::{Context, Kind, Result},
    model::mapping::{Mapping, SyncType},
    mssql::{row::Param, session::Session},
    plan::{
        digest::Hash,
        verify::{RowSet, Status, Tally, details, differences, pairs, side_hash},
    },
    tsql::lookup::TableSide,
};
use confirm::{confirm, no_full_sync_since, standing};
use record::{ReportedFinding, Sides, long};
use rows::RowReader;

const ROUNDS_MAX: u32 = 3;
const POLL: Duration = Duration::from_millis(200);
/// More differences than this are not looked at one by one: the sides are different tables.
const SUSPECTS_MAX: usize = 20_000;
/// Findings looked at one by one when there are more than [`SUSPECTS_MAX`]; enough to be certain
/// that the tables differ.
const SAMPLE: usize = 1_000;
/// Keys carried to the next run.
const CARRIED_MAX: usize = 10_000;

/// `verification_logs.verification_type`
const ROWS: &str = "MD5_COMPARISON";
const SCHEMA: &str = "SCHEMA";
const ROW_COUNT: &str = "ROW_COUNT";

/// How much of the table to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The newest rows, the next range of the sweep, and what earlier runs left open.
    /// `stands_still`: replication of the mapping does.
    Next { stands_still: bool },
    /// Every row, now.
    Whole,
}

/// Is told how many rows were compared, and how many there are, where that is known.
pub type Watch<'a> = &'a mut (dyn FnMut(usize, Option<i64>) + Send);

/// Compares rows of both sides, mends what differs if that is wanted, and leaves a row in
/// verification_logs. `None`: nothing can be said, as a full sync is due or running or the mapping
/// is gone.
pub async fn run(
    env: &Env,
    mapping: &Mapping,
    scope: Scope,
    progress_fn: Watch<'_>,
) -> Result<Option<VerificationReport>> {
    let began = Instant::now();
    let mut found = match compare(env, mapping, scope, progress_fn).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        // no still moment: locks, a busy server, or tables that are altered, are no finding
        Err(cause) if matches!(cause.kind, Kind::LockTimeout | Kind::Deadlock | Kind::Altered) => {
            Comparison { notes: vec![format!("not compared: {cause}")], ..Comparison::default() }
        }
        Err(cause) => return Err(cause).with_context(|| format!("verify {}", mapping.source)),
    };
    let took = began.elapsed();
    let mut repaired = repair::RepairedGroup::default();
    if env.config.repair && found.status == Some(Status::Failed) {
        if let Err(error) = repair::repair(env, mapping, found.findings.kept(), &mut repaired).await
        {
            repaired.refused = Some(error.to_string());
        }
        found.notes.push(repair::summary(&repaired, found.findings.counts().total()));
    }
    let report = VerificationReport {
        kind: ROWS,
        status: found.status.unwrap_or(Status::Partial),
        compared: found.compared,
        mismatches: found.findings.counts().total() + found.drifting,
        details: found.details(),
        repaired: repaired.rows,
    };
    let sides = Sides {
        md5: (found.source.and_then(|(hash, _)| hash), found.dest.and_then(|(hash, _)| hash)),
        rows: (found.source.map(|(_, rows)| long(rows)), found.dest.map(|(_, rows)| long(rows))),
    };
    record::write(env, mapping, &report, ReportedFinding::of_rows(&found.findings), &sides, took)
        .await?;
    Ok(Some(report))
}

/// What a comparison came to.
#[derive(Debug, Default)]
struct Comparison {
    status: Option<Status>,
    /// The hash over the rows, where they were read in one piece, and their number.
    source: Option<(Option<Hash>, usize)>,
    dest: Option<(Option<Hash>, usize)>,
    compared: usize,
    findings: Tally,
    /// Rows that differ by right.
    drifting: u64,
    /// What `findings` does not say.
    notes: Vec<String>,
}

impl Comparison {
    fn details(&self) -> String {
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

async fn compare(
    env: &Env,
    mapping: &Mapping,
    scope: Scope,
    progress_fn: Watch<'_>,
) -> Result<Option<Comparison>> {
    let Some(then) = standing(env, mapping).await? else { return Ok(None) };
    let mut progress = env.control.verification_progress(mapping.id).await?;
    let whole = scope == Scope::Whole;
    // a table that has no sweep under way is one whose rows the driver reads at once: not worth two
    // logins
    let lane = (whole || progress.sweep_after.is_some()) && env.verifies_by_copy_lane(mapping)?;
    let seats = if lane { 2 } else { 1 };
    let connections = env.connections(mapping, seats, seats).await?;
    let mut source = connections.source(&mapping.source.database).await?;
    let mut dest = connections.dest(&mapping.dest.database).await?;
    let shape = shape::gather(&mut source, &mut dest, mapping).await?;
    let mut reader = RowReader::new(mapping, &shape);
    if lane {
        reader.open_copy_lane(&connections).await;
    }
    reader.set_isolation(&mut source, &mut dest).await?;
    let drift = drift(mapping, &then, scope);

    let mut found = Comparison::default();
    let mut open = Tally::default();
    let mut reach;
    let total = if whole {
        crate::mssql::catalog::row_count(&mut source, &shape.source).await?
    } else {
        None
    };
    if whole {
        (progress.sweep_after, progress.sweep_rows) = (None, 0);
    }
    loop {
        let (mut left, mut right) = (RowSet::new(), RowSet::new());
        reach = read_part(
            env,
            &mut reader,
            whole,
            &mut progress,
            &mut source,
            &mut dest,
            (&mut left, &mut right),
        )
        .await?;
        let mut suspects = differences(&left, &right);
        if drift.is_some() {
            open.add(suspects);
        } else if !suspects.is_empty() {
            if suspects.len() > SUSPECTS_MAX {
                found.notes.push(format!(
                    "{} rows differ at first sight; {SAMPLE} of them were looked at one by one",
                    suspects.len()
                ));
                suspects = suspects.into_iter().take(SAMPLE).collect();
            }
            let confirmed = confirm(
                env,
                mapping,
                &reader,
                suspects,
                &mut source,
                &mut dest,
                (&mut left, &mut right),
            )
            .await?;
            if !no_full_sync_since(env, mapping, &then).await? {
                return Ok(None);
            }
            if !confirmed.open.is_empty() {
                let drift = if confirmed.stalled {
                    format!("drift since {}: ", since(mapping, &then, &mut dest).await?)
                } else {
                    String::new()
                };
                let keys = Tally::from(confirmed.open.clone());
                found.notes.push(format!(
                    "{} keys not decided ({drift}{}):\n{}",
                    confirmed.open.len(),
                    confirmed.why,
                    details(&keys)
                ));
            }
            found.findings.add(confirmed.findings);
            open.add(confirmed.open);
        }
        found.add_part(&left, &right);
        progress_fn(found.compared, total);
        if !whole || reach != SweepReach::Part || env.stopping() {
            break;
        }
    }
    reader.close().await;
    shape::prove(&mut source, &mut dest, mapping, &shape).await?;
    let completed = reach != SweepReach::Part;
    // every run says how many rows it compared; of those that compare all of them only the first
    // has more to tell
    if reach == SweepReach::End || (reach == SweepReach::AtOnce && !progress.completed_before) {
        info!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Verification.as_str(),
            records_count = progress.sweep_rows,
            "every row of {} has been compared once more",
            mapping.source
        );
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
        found.notes.push(format!(
            "drift since {}: {why}\n{}",
            since(mapping, &then, &mut dest).await?,
            details(&open)
        ));
        found.drifting = open.counts().total();
    }
    env.control.save_verification_progress(mapping.id, &progress, completed).await?;
    Ok(Some(found))
}

/// Why the two sides may differ by right, if the mapping does not follow its source.
fn drift(mapping: &Mapping, standing: &CurrentMapping, scope: Scope) -> Option<&'static str> {
    match scope {
        _ if !standing.enabled => Some("the mapping is switched off"),
        _ if !mapping.cdc_enabled => Some("CDC is off for this mapping"),
        Scope::Next { stands_still: true } => Some("replication of this mapping stands still"),
        Scope::Next { stands_still: false } | Scope::Whole => None,
    }
}

/// When the destination was last known to be what the source was: its checkpoint's last move, or
/// its last full sync.
async fn since(mapping: &Mapping, standing: &CurrentMapping, dest: &mut Session) -> Result<String> {
    let moved = match dest
        .opt_row(include_str!("../../../sql/checkpoint_moved.sql"), &[Param::Int(mapping.id.0)])
        .await
    {
        Ok(row) => row
            .map(|row| row.opt_text(0).map(|text| text.map(str::to_owned)))
            .transpose()?
            .flatten(),
        // no table of ours, as no mapping of this database ever had CDC
        Err(error) if error.kind == Kind::Missing => {
            dest.recover().await?;
            None
        }
        Err(error) => return Err(error).context("look when the checkpoint moved"),
    };
    let synced = standing.last_full_sync_at.clone();
    Ok(match moved.filter(|_| mapping.cdc_enabled).or(synced) {
        Some(at) => format!("{at} UTC"),
        None => "its beginning".to_owned(),
    })
}

/// How far a look at a part of the table came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SweepReach {
    /// There are rows whose turn comes later.
    Part,
    /// The sweep came to the table's end.
    End,
    /// The newest rows are all there are.
    AtOnce,
}

/// Reads what is compared at a time: the newest rows, the next range, and what earlier runs left
/// open.
async fn read_part(
    env: &Env,
    reader: &mut RowReader<'_>,
    whole: bool,
    progress: &mut SweepProgress,
    source: &mut Session,
    dest: &mut Session,
    (left, right): (&mut RowSet, &mut RowSet),
) -> Result<SweepReach> {
    let rows_max = env.config.verify_rows;
    let mut reach = SweepReach::Part;
    if !whole {
        *left = reader
            .newest(TableSide::Source, source, rows_max)
            .await
            .context("read the newest source rows")?;
        *right = reader
            .newest(TableSide::Dest, dest, rows_max)
            .await
            .context("read the newest destination rows")?;
    }
    // newest rows that are fewer than asked for are the whole table
    let sweeps = whole || left.len() >= rows_max || right.len() >= rows_max;
    if !sweeps {
        (progress.sweep_after, progress.sweep_rows) = (None, long(left.len()));
        reach = SweepReach::AtOnce;
    } else if whole || env.config.verify_sweep_rows > 0 {
        let rows_max = if whole { rows_max } else { env.config.verify_sweep_rows };
        let range = reader
            .range(
                source,
                dest,
                progress.sweep_after.as_deref(),
                rows_max,
                (&mut *left, &mut *right),
            )
            .await?;
        progress.sweep_rows += long(range.rows);
        progress.sweep_after = range.next;
        if progress.sweep_after.is_none() {
            reach = SweepReach::End;
        }
    }
    let carried = std::mem::take(&mut progress.carried);
    left.extend(
        reader
            .by_keys(TableSide::Source, source, &carried)
            .await
            .context("read carried source rows")?,
    );
    right.extend(
        reader
            .by_keys(TableSide::Dest, dest, &carried)
            .await
            .context("read carried destination rows")?,
    );
    reader.complete(source, dest, left, right).await?;
    Ok(reach)
}
