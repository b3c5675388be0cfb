//! Verification: do both sides say the same?
//!
//! # Why it neither misses a difference nor cries wolf
//!
//! 1. **The newest rows by key on both sides**, one ranged query each, hashed as they stream by; only key and hash are kept. (Short reads
//!    under SNAPSHOT where allowed, else READ COMMITTED with the lock timeout; never NOLOCK.) Both sides' rows are compared as sets. As the
//!    two ranges need not be the same, and text may sort differently on the two sides, a key that is on one side only is looked up by
//!    equality on the other before it counts.
//! 2. **A difference is a suspicion.** Beside live replication the destination is behind by right. A suspect becomes a finding only when
//!    both sides were seen in one state of that row: `plan::verify` says how, and why that is certain. Keys that keep changing are looked
//!    at again, at most [`ROUNDS_MAX`] times within [`SUSPECTS_WAIT_MAX`]; what is still open then makes the result PARTIAL, never FAILED.
//! 3. **Only a mapping that keeps up can fail.** Without CDC, or with a checkpoint that does not follow, the sides differ by right: PARTIAL,
//!    with "drift since".
//!
//! # Every row, over time
//!
//! Beside the newest rows each run compares the next range of the table, in the order of the source's key, and remembers where it ended.
//! What was found, and what could not be decided, is looked at again in every later run, wherever it is in the table: so PASSED means
//! that nothing is known to differ, and an old finding is not forgotten because the newest rows are well.
//!
//! One row in verification_logs per run. FAILED also is one error event of type VERIFICATION, once per distinct finding: the same keys
//! five minutes later are not news. When a later run passes, those errors are marked resolved.

mod look;
mod structure;

pub use structure::{row_count, schema};

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    Env,
    fence::{self, Patience},
    shape::{self, Shape},
};
use crate::{
    control::{Standing, Verification},
    error::{Context, Kind, Result},
    model::{
        capture::Capture,
        id::MappingId,
        lsn::Lsn,
        mapping::{Mapping, SyncType},
        value::Value,
    },
    mssql::{cdc, session::Session},
    plan::{
        digest::{Encoding, Hash},
        verify::{Counts, Difference, Side, Status, details, differences, side_hash},
    },
    tsql::lookup::Side as End,
};
use look::Look;

const ROUNDS_MAX: u32 = 3;
const SUSPECTS_WAIT_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// More differences than this are not looked at one by one: the sides are different tables.
const SUSPECTS_MAX: usize = 20_000;

/// Keys that may differ, encoded, with how and their values.
type Suspects = BTreeMap<Vec<u8>, (Difference, Vec<Value>)>;

/// Findings looked at one by one when there are more than [`SUSPECTS_MAX`]; enough to be certain that the tables differ.
const SAMPLE: usize = 1_000;
/// Keys carried to the next run.
const CARRIED_MAX: usize = 10_000;

/// How much of the table to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The newest rows, the next range of the sweep, and what earlier runs left open. `stands_still`: replication of the mapping does.
    Next { stands_still: bool },
    /// Every row, now.
    Whole,
}

/// What came of a verification, for whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub kind: &'static str,
    pub status: Status,
    pub compared: usize,
    pub mismatches: u64,
    pub details: String,
}

/// Is told how many rows were compared, and how many there are, where that is known.
pub type Watch<'a> = &'a mut (dyn FnMut(usize, Option<i64>) + Send);

/// Compares rows of both sides and leaves a row in verification_logs. `None`: nothing can be said, as a full sync is due or running or
/// the mapping is gone.
pub async fn run(env: &Env, mapping: &Mapping, scope: Scope, watch: Watch<'_>) -> Result<Option<Report>> {
    let began = Instant::now();
    let result = compare(env, mapping, scope, watch).await;
    let found = match result {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        // no still moment: locks, or a busy server, are no finding
        Err(cause) if matches!(cause.kind, Kind::LockTimeout | Kind::Deadlock) => {
            Found { status: Some(Status::Partial), words: format!("not compared: {cause}"), ..Found::default() }
        }
        Err(cause) => return Err(cause).with_context(|| format!("verify {}", mapping.source)),
    };
    record(env, mapping, &found, began.elapsed()).await.map(Some)
}

/// What a comparison came to.
#[derive(Debug, Default)]
struct Found {
    status: Option<Status>,
    /// The hash over the rows, where they were read in one piece, and their number.
    source: Option<(Option<Hash>, usize)>,
    dest: Option<(Option<Hash>, usize)>,
    compared: usize,
    findings: Suspects,
    /// What `findings` does not say.
    words: String,
}

impl Found {
    fn details(&self) -> String {
        let named = details(&self.findings);
        [self.words.as_str(), named.as_str()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

async fn record(env: &Env, mapping: &Mapping, found: &Found, took: Duration) -> Result<Report> {
    let status = found.status.unwrap_or(Status::Partial);
    let counts = Counts::of(found.findings.values().map(|(difference, _)| *difference));
    let details = found.details();
    let report = Report { kind: ROWS, status, compared: found.compared, mismatches: counts.total(), details };
    let sides = Sides {
        md5: (found.source.and_then(|(hash, _)| hash), found.dest.and_then(|(hash, _)| hash)),
        rows: (found.source.map(|(_, rows)| long(rows)), found.dest.map(|(_, rows)| long(rows))),
    };
    write(env, mapping, &report, &sides, took).await?;
    Ok(report)
}

const ROWS: &str = "MD5_COMPARISON";

/// What each side had.
#[derive(Clone, Copy, Debug, Default)]
struct Sides {
    md5: (Option<Hash>, Option<Hash>),
    rows: (Option<i64>, Option<i64>),
}

fn long(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// A result's row in verification_logs, its event, and what becomes of earlier errors of its kind.
async fn write(env: &Env, mapping: &Mapping, report: &Report, sides: &Sides, took: Duration) -> Result<()> {
    let Report { kind, status, compared, mismatches, details } = report;
    env.control
        .verification(&Verification {
            mapping: mapping.id,
            kind,
            source_md5: sides.md5.0.map(|hash| hash.to_string()),
            dest_md5: sides.md5.1.map(|hash| hash.to_string()),
            source_rows: sides.rows.0,
            dest_rows: sides.rows.1,
            compared: long(*compared),
            mismatches: i64::try_from(*mismatches).unwrap_or(i64::MAX),
            status: status.as_str(),
            details: Some(details.clone()).filter(|text| !text.is_empty()),
        })
        .await?;
    let took = i32::try_from(took.as_millis()).unwrap_or(i32::MAX);
    let (id, server, sync_type) =
        (mapping.id.0, mapping.server.0, if *kind == structure::SCHEMA { SyncType::SchemaCheck } else { SyncType::Verification }.as_str());
    let records_count = long(*compared);
    let summary = format!("{kind} of {}: {}, {compared} compared, {mismatches} mismatches", mapping.source, status.as_str());
    // what an error says begins like this, whatever was found
    let prefix = format!("{kind} of {}: FAILED", mapping.source);
    let news = *status == Status::Failed && env.findings.is_news((mapping.id, kind), details);
    match status {
        Status::Passed => {
            info!(mapping_id = id, server_id = server, sync_type, records_count, execution_time_ms = took, "{summary}");
            env.findings.forget((mapping.id, kind));
            env.control.resolve_verification(mapping.id, &prefix).await?;
        }
        // the same finding is the same message, so that after a restart too it is one row of error_logs
        Status::Failed if news => error!(
            mapping_id = id,
            server_id = server,
            sync_type,
            records_count,
            execution_time_ms = took,
            error_type = "VERIFICATION",
            error_details = %details,
            "{prefix}: {}",
            details.replace('\n', "; ")
        ),
        Status::Failed | Status::Partial => {
            warn!(mapping_id = id, server_id = server, sync_type, records_count, execution_time_ms = took, "{summary}");
        }
    }
    Ok(())
}

async fn compare(env: &Env, mapping: &Mapping, scope: Scope, watch: Watch<'_>) -> Result<Option<Found>> {
    let Some(standing) = standing(env, mapping).await? else { return Ok(None) };
    let mut progress = env.control.verification_progress(mapping.id).await?;
    let desk = env.desk(mapping, 1, 1).await?;
    let mut source = desk.source(&mapping.source.database).await?;
    let mut dest = desk.dest(&mapping.dest.database).await?;
    let shape = shape::gather(&mut source, &mut dest, mapping).await?;
    let look = Look { shape: &shape, encoding: Encoding::new(&shape.carry) };
    let rows_max = env.config.verify_rows;
    // a mapping that does not follow differs by right
    let since =
        || standing.last_full_sync_at.clone().map_or_else(|| "its beginning".to_owned(), |at| format!("the last full sync at {at} UTC"));
    let drift = match scope {
        _ if !mapping.cdc_enabled => Some(format!("drift since {}: CDC is off for this mapping", since())),
        Scope::Next { stands_still: true } => Some(format!("drift since {}: replication of this mapping stands still", since())),
        Scope::Next { stands_still: false } | Scope::Whole => None,
    };

    let mut found = Found::default();
    let mut open = Suspects::new();
    let mut words = Vec::new();
    let mut completed = false;
    let whole = scope == Scope::Whole;
    let total = if whole { crate::mssql::catalog::row_count(&mut source, &shape.source).await? } else { None };
    if whole {
        (progress.sweep_after, progress.sweep_rows) = (None, 0);
    }
    loop {
        let (mut left, mut right) = (Side::new(), Side::new());
        if !whole {
            left = look.newest(End::Source, &mut source, rows_max).await.context("read the newest source rows")?;
            right = look.newest(End::Dest, &mut dest, rows_max).await.context("read the newest destination rows")?;
        }
        // newest rows that are fewer than asked for are the whole table
        let sweeps = whole || left.len() >= rows_max || right.len() >= rows_max;
        if sweeps && (whole || env.config.verify_sweep_rows > 0) {
            let rows_max = if whole { rows_max } else { env.config.verify_sweep_rows };
            let range = look.range(&mut source, &mut dest, progress.sweep_after.as_deref(), rows_max, (&mut left, &mut right)).await?;
            progress.sweep_rows += long(range.rows);
            progress.sweep_after = range.next;
            completed = progress.sweep_after.is_none();
        }
        let carried = std::mem::take(&mut progress.carried);
        left.extend(look.by_keys(End::Source, &mut source, &carried).await.context("read carried source rows")?);
        right.extend(look.by_keys(End::Dest, &mut dest, &carried).await.context("read carried destination rows")?);
        look.complete(&mut source, &mut dest, &mut left, &mut right).await?;

        let mut suspects = differences(&left, &right);
        if drift.is_some() {
            open.append(&mut suspects);
        } else if !suspects.is_empty() {
            if suspects.len() > SUSPECTS_MAX {
                words.push(format!("{} rows differ at first sight; {SAMPLE} of them were looked at one by one", suspects.len()));
                suspects = suspects.into_iter().take(SAMPLE).collect();
            }
            let mut judged = judge(env, mapping, &look, suspects, &mut source, &mut dest, (&mut left, &mut right)).await?;
            // a full sync that began meanwhile moves the rows under us
            if self::standing(env, mapping).await?.is_none() {
                return Ok(None);
            }
            if !judged.open.is_empty() {
                words.push(format!("{} keys not decided ({}):\n{}", judged.open.len(), judged.why, details(&judged.open)));
            }
            found.findings.append(&mut judged.findings);
            open.append(&mut judged.open);
        }
        found.compared += left.len() + right.keys().filter(|key| !left.contains_key(*key)).count();
        found.source = Some(found.source.map_or_else(|| (Some(side_hash(&left)), left.len()), |(_, rows)| (None, rows + left.len())));
        found.dest = Some(found.dest.map_or_else(|| (Some(side_hash(&right)), right.len()), |(_, rows)| (None, rows + right.len())));
        watch(found.compared, total);
        if !whole || completed || env.stopping() {
            break;
        }
    }
    if completed {
        info!(
            mapping_id = mapping.id.0,
            server_id = mapping.server.0,
            sync_type = SyncType::Verification.as_str(),
            records_count = progress.sweep_rows,
            "every row of {} has been compared once more",
            mapping.source
        );
        progress.sweep_rows = 0;
    } else if whole {
        words.push("stopped before the end".into());
    }
    found.status = Some(match (&drift, found.findings.is_empty(), open.is_empty()) {
        (None, false, _) => Status::Failed,
        (_, true, true) if completed || !whole => Status::Passed,
        _ => Status::Partial,
    });
    if let Some(drift) = drift {
        if !open.is_empty() {
            words.push(drift);
        }
        found.findings = open;
    } else {
        progress.carried = found.findings.values().chain(open.values()).take(CARRIED_MAX).map(|(_, key)| key.clone()).collect();
    }
    env.control.save_verification_progress(mapping.id, &progress, completed).await?;
    found.words = words.join("\n");
    Ok(Some(found))
}

/// The mapping's row, if a verification of it may say something: it is enabled and no full sync is due or running.
async fn standing(env: &Env, mapping: &Mapping) -> Result<Option<Standing>> {
    Ok(env.control.standing(mapping.id).await?.filter(|standing| standing.enabled && !standing.pending))
}

/// Suspects after the rounds.
struct Judged {
    /// Certain.
    findings: Suspects,
    /// Neither equal nor certain.
    open: Suspects,
    why: String,
}

/// Looks at suspects again until they are equal, certain, or time is up. What the last look saw takes the place of the first's in `seen`.
async fn judge(
    env: &Env,
    mapping: &Mapping,
    look: &Look<'_>,
    suspects: Suspects,
    source: &mut Session,
    dest: &mut Session,
    seen: (&mut Side, &mut Side),
) -> Result<Judged> {
    let deadline = Instant::now() + SUSPECTS_WAIT_MAX;
    let mut judged = Judged { findings: Suspects::new(), open: suspects, why: "no still moment".into() };
    for _ in 0..ROUNDS_MAX {
        if judged.open.is_empty() || env.stopping() {
            break;
        }
        let keys: Vec<Vec<Value>> = judged.open.values().map(|(_, key)| key.clone()).collect();
        let Some(capture) = capture(source, look.shape).await? else {
            judged.why = "the source table has no capture instance".into();
            break;
        };
        let low = cdc::upper(source).await?.map_or(Lsn::ZERO, |upper| upper.lsn);
        let left = look.by_keys(End::Source, source, &keys).await.context("read suspect source rows")?;
        let reading = fence::reading(source).await?;
        let wait_max = deadline.saturating_duration_since(Instant::now());
        let fence = match fence::wait(source, &reading, Patience { wait_max, poll: POLL }, &env.cancel).await {
            Ok(fence) => fence,
            Err(error) if !source.is_cut_off() => {
                source.recover().await?;
                judged.why = format!("no fence: {error}");
                break;
            }
            Err(error) => return Err(error),
        };
        if !passed(env, mapping, fence, deadline).await? {
            judged.why = format!("the checkpoint has not reached {fence}");
            break;
        }
        let right = look.by_keys(End::Dest, dest, &keys).await.context("read suspect destination rows")?;
        let Some(high) = checkpoint(env, mapping).await? else {
            judged.why = "the mapping has no checkpoint".into();
            break;
        };
        let differ = differences(&left, &right);
        // keys read under a case-insensitive comparison may be others than those asked for: only what was asked for is judged
        let differ: Suspects = differ.into_iter().filter(|(key, _)| judged.open.contains_key(key)).collect();
        for (seen, again) in [(&mut *seen.0, &left), (&mut *seen.1, &right)] {
            for key in judged.open.keys() {
                match again.get(key) {
                    Some(row) => drop(seen.insert(key.clone(), row.clone())),
                    None => drop(seen.remove(key)),
                }
            }
        }
        let (changed, certain) = look.changed(&capture, low, high, differ, source).await?;
        judged.findings.extend(certain);
        judged.open = changed;
        judged.why = "rows kept changing".into();
    }
    Ok(judged)
}

/// The newest capture instance of the source table.
async fn capture(source: &mut Session, shape: &Shape) -> Result<Option<Capture>> {
    let instances = cdc::instances(source).await?;
    let newest =
        instances.into_iter().filter(|instance| instance.source_id == shape.source.object_id).max_by_key(|instance| instance.start);
    match newest {
        Some(instance) => cdc::capture(source, instance).await.map(Some),
        None => Ok(None),
    }
}

async fn checkpoint(env: &Env, mapping: &Mapping) -> Result<Option<Lsn>> {
    Ok(env.control.standing(mapping.id).await?.filter(|standing| !standing.pending).and_then(|standing| standing.last_cdc_lsn))
}

/// Waits until the mapping's checkpoint has reached `fence`; `false` when time is up.
async fn passed(env: &Env, mapping: &Mapping, fence: Lsn, deadline: Instant) -> Result<bool> {
    loop {
        if checkpoint(env, mapping).await?.is_some_and(|checkpoint| checkpoint >= fence) {
            return Ok(true);
        }
        if Instant::now() >= deadline || env.stopping() {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What was last reported of each mapping, so that the same finding is not an error every five minutes.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<HashMap<(MappingId, &'static str), String>>>);

impl Findings {
    fn is_news(&self, mapping: (MappingId, &'static str), details: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(mapping, details.to_owned()).as_deref() != Some(details)
    }

    fn forget(&self, mapping: (MappingId, &'static str)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&mapping);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_finding_is_news_once() {
        let findings = Findings::default();
        let mapping = (MappingId(1), ROWS);
        assert!(findings.is_news(mapping, "different (1): 7"));
        assert!(!findings.is_news(mapping, "different (1): 7"));
        assert!(findings.is_news(mapping, "different (2): 7, 8"));
        findings.forget(mapping);
        assert!(findings.is_news(mapping, "different (2): 7, 8"));
    }
}
