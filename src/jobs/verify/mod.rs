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
//!    makes the result PARTIAL, never FAILED, and is counted as mismatches that are not confirmed.
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
//! With `DATAFLOW_REPAIR=on` findings are repaired; [`repair`] says how, and why that cannot harm
//! replication.

mod compare;
mod confirm;
mod drift;
mod limit;
mod record;
mod repair;
mod rows;
mod structure;
mod sweep;

pub use record::{KnownFindings, VerificationReport};
pub use structure::{row_count, schema};

use std::time::{Duration, Instant};

use super::Env;
use crate::{
    error::{Context, Kind, Result},
    model::mapping::Mapping,
    plan::verify::Status,
};
use compare::{Comparison, compare};
use record::{ReportedFinding, Sides, long};

const ROUNDS_MAX: u32 = 3;
const POLL: Duration = Duration::from_millis(200);
/// Differences that are held to be looked at again, and that a run makes certain: with more, the
/// sides are different tables, and what is behind them is only counted.
const SUSPECTS_MAX: usize = 20_000;
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

/// What a verification is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many rows were compared, of so many, where that is known.
    Compared { rows: usize, total: Option<i64> },
    /// So many keys that differ are looked at again.
    LookingAgain { keys: usize },
    /// So many of the rows that differ are repaired.
    Repairing { done: u64, of: u64 },
}

/// Called with each step.
pub type Watch<'a> = &'a (dyn Fn(Step) + Send + Sync);

/// For verifications that nobody watches.
pub fn unwatched(_: Step) {}

/// Compares rows of both sides, repairs what differs if that is switched on, and leaves a row in
/// verification_logs; ends `until` a moment at the latest, or when the statement that runs then does.
/// `None`: nothing can be said, as a full sync is due or running or the mapping is gone.
pub async fn run(
    env: &Env,
    mapping: &Mapping,
    scope: Scope,
    until: Option<Instant>,
    watch: Watch<'_>,
) -> Result<Option<VerificationReport>> {
    let began = Instant::now();
    let mut found = match compare(env, mapping, scope, until, watch).await {
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
        let result =
            repair::repair(env, mapping, found.findings.kept(), until, watch, &mut repaired).await;
        if let Err(error) = result {
            repaired.refused = Some(error.to_string());
        }
        found.notes.push(repair::summary(&repaired, found.findings.counts().total()));
    }
    // What makes a verification FAILED is certain: rows that kept changing meanwhile are in the
    // details alone.
    let unconfirmed = match found.status {
        Some(Status::Failed) => 0,
        _ => found.open.counts().total(),
    };
    let report = VerificationReport {
        kind: ROWS,
        status: found.status.unwrap_or(Status::Partial),
        compared: found.compared,
        mismatches: found.findings.counts().total() + unconfirmed,
        unconfirmed,
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
