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
//! One row in verification_logs per run. FAILED also is one error event of type VERIFICATION, once per distinct finding: the same keys
//! five minutes later are not news. When a later run passes, those errors are marked resolved.

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
    control::Verification,
    error::{Context, Kind, Result},
    model::{
        capture::Capture,
        id::MappingId,
        lsn::Lsn,
        mapping::{Mapping, SyncType},
        value::Value,
    },
    mssql::{
        cdc,
        row::{Param, RowData},
        session::Session,
    },
    plan::{
        digest::{Encoding, Hash},
        verify::{Counts, Difference, Row, Side, Status, details, differences, side_hash},
    },
    tsql::lookup::{self, Side as End},
};

const ROUNDS_MAX: u32 = 3;
const SUSPECTS_WAIT_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// More differences than this are not looked at one by one: the sides are different tables.
const SUSPECTS_MAX: usize = 20_000;

/// Keys that may differ, encoded, with how and their values.
type Suspects = BTreeMap<Vec<u8>, (Difference, Vec<Value>)>;

/// Compares the newest rows of both sides and leaves a row in verification_logs.
pub async fn run(env: &Env, mapping: &Mapping) -> Result<()> {
    let began = Instant::now();
    let result = compare(env, mapping).await;
    let found = match result {
        Ok(Some(found)) => found,
        // a full sync is due or running, or the mapping is gone: nothing can be said
        Ok(None) => return Ok(()),
        // no still moment: locks, or a busy server, are no finding
        Err(cause) if matches!(cause.kind, Kind::LockTimeout | Kind::Deadlock) => {
            Found { status: Some(Status::Partial), words: format!("not compared: {cause}"), ..Found::default() }
        }
        Err(cause) => return Err(cause).with_context(|| format!("verify {}", mapping.source)),
    };
    record(env, mapping, &found, began.elapsed()).await
}

/// What a comparison came to.
#[derive(Debug, Default)]
struct Found {
    status: Option<Status>,
    source: Option<(Hash, usize)>,
    dest: Option<(Hash, usize)>,
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

async fn record(env: &Env, mapping: &Mapping, found: &Found, took: Duration) -> Result<()> {
    let status = found.status.unwrap_or(Status::Partial);
    let counts = Counts::of(found.findings.values().map(|(difference, _)| *difference));
    let details = found.details();
    let count = |rows: usize| i64::try_from(rows).unwrap_or(i64::MAX);
    env.control
        .verification(&Verification {
            mapping: mapping.id,
            kind: "MD5_COMPARISON",
            source_md5: found.source.map(|(hash, _)| hash.to_string()),
            dest_md5: found.dest.map(|(hash, _)| hash.to_string()),
            source_rows: found.source.map(|(_, rows)| count(rows)),
            dest_rows: found.dest.map(|(_, rows)| count(rows)),
            compared: count(found.compared),
            mismatches: i64::try_from(counts.total()).unwrap_or(i64::MAX),
            status: status.as_str(),
            details: Some(details.clone()).filter(|text| !text.is_empty()),
        })
        .await?;
    let took = i32::try_from(took.as_millis()).unwrap_or(i32::MAX);
    let (id, server, kind) = (mapping.id.0, mapping.server.0, SyncType::Verification.as_str());
    let summary = format!(
        "verification of {} {}: {} rows compared, {} only in source, {} only in destination, {} different",
        mapping.source,
        status.as_str(),
        found.compared,
        counts.only_source,
        counts.only_dest,
        counts.different
    );
    match status {
        Status::Passed => {
            info!(
                mapping_id = id,
                server_id = server,
                sync_type = kind,
                records_count = count(found.compared),
                execution_time_ms = took,
                "{summary}"
            );
            env.findings.forget(mapping.id);
            env.control.resolve_errors(mapping.id, Some("VERIFICATION")).await?;
        }
        Status::Partial => {
            warn!(
                mapping_id = id,
                server_id = server,
                sync_type = kind,
                records_count = count(found.compared),
                execution_time_ms = took,
                "{summary}"
            );
        }
        Status::Failed if env.findings.is_news(mapping.id, &details) => {
            error!(
                mapping_id = id,
                server_id = server,
                sync_type = kind,
                records_count = count(found.compared),
                execution_time_ms = took,
                error_type = "VERIFICATION",
                error_details = %details,
                "{summary}"
            );
        }
        Status::Failed => {
            warn!(
                mapping_id = id,
                server_id = server,
                sync_type = kind,
                records_count = count(found.compared),
                execution_time_ms = took,
                "{summary}"
            );
        }
    }
    Ok(())
}

async fn compare(env: &Env, mapping: &Mapping) -> Result<Option<Found>> {
    let standing = env.control.standing(mapping.id).await?;
    let Some(standing) = standing.filter(|standing| standing.enabled && !standing.pending) else { return Ok(None) };
    let desk = env.desk(mapping, 1, 1).await?;
    let mut source = desk.source(&mapping.source.database).await?;
    let mut dest = desk.dest(&mapping.dest.database).await?;
    let shape = shape::gather(&mut source, &mut dest, mapping).await?;
    let look = Look { shape: &shape, encoding: Encoding::new(&shape.carry) };

    let rows_max = env.config.verify_rows;
    let mut left = look.newest(End::Source, &mut source, rows_max).await.context("read the newest source rows")?;
    let mut right = look.newest(End::Dest, &mut dest, rows_max).await.context("read the newest destination rows")?;
    look.complete(&mut source, &mut dest, &mut left, &mut right).await?;
    let suspects = differences(&left, &right);
    let mut found = Found::default();
    if suspects.is_empty() {
        found.status = Some(Status::Passed);
    } else if !mapping.cdc_enabled {
        let since = standing.last_full_sync_at.map_or_else(|| "its beginning".to_owned(), |at| format!("the last full sync at {at} UTC"));
        found.words = format!("drift since {since}: CDC is off for this mapping");
        found.status = Some(Status::Partial);
        found.findings = suspects;
    } else if suspects.len() > SUSPECTS_MAX {
        found.words = format!("{} differences are too many to look at one by one", suspects.len());
        found.status = Some(Status::Partial);
        found.findings = suspects;
    } else {
        let judged = judge(env, mapping, &look, suspects, &mut source, &mut dest, (&mut left, &mut right)).await?;
        // a full sync that began meanwhile moves the rows under us
        if env.control.standing(mapping.id).await?.is_none_or(|standing| standing.pending) {
            return Ok(None);
        }
        found.status = Some(match (judged.findings.is_empty(), judged.open.is_empty()) {
            (true, true) => Status::Passed,
            (false, _) => Status::Failed,
            (true, false) => Status::Partial,
        });
        if !judged.open.is_empty() {
            found.words = format!("{} keys not decided ({}):\n{}", judged.open.len(), judged.why, details(&judged.open));
        }
        found.findings = judged.findings;
    }
    found.compared = left.len() + right.keys().filter(|key| !left.contains_key(*key)).count();
    found.source = Some((side_hash(&left), left.len()));
    found.dest = Some((side_hash(&right), right.len()));
    Ok(Some(found))
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

/// How rows are read and hashed.
struct Look<'a> {
    shape: &'a Shape,
    encoding: Encoding,
}

impl Look<'_> {
    fn table(&self, end: End) -> &crate::model::name::TableName {
        match end {
            End::Source => &self.shape.source.name,
            End::Dest => &self.shape.dest.name,
        }
    }

    fn snapshot(&self, end: End) -> bool {
        match end {
            End::Source => self.shape.source_database.snapshot,
            End::Dest => self.shape.dest_database.snapshot,
        }
    }

    /// The newest rows by key.
    async fn newest(&self, end: End, session: &mut Session, rows_max: usize) -> Result<Side> {
        let sql = lookup::newest(end, self.table(end), &self.shape.carry, rows_max);
        if self.snapshot(end) {
            session.batch("SET TRANSACTION ISOLATION LEVEL SNAPSHOT").await?;
        }
        let mut side = Side::new();
        self.read(session, &sql, &[], &mut side).await?;
        if self.snapshot(end) {
            session.batch("SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
        }
        Ok(side)
    }

    /// The rows with these keys.
    async fn by_keys(&self, end: End, session: &mut Session, keys: &[Vec<Value>]) -> Result<Side> {
        let mut side = Side::new();
        for keys in keys.chunks(lookup::keys_max(&self.shape.carry)) {
            let sql = lookup::by_keys(end, self.table(end), &self.shape.carry, keys.len());
            let params: Vec<Param<'_>> = keys.iter().flatten().map(Param::Value).collect();
            self.read(session, &sql, &params, &mut side).await?;
        }
        Ok(side)
    }

    async fn read(&self, session: &mut Session, sql: &str, params: &[Param<'_>], side: &mut Side) -> Result<()> {
        let mut stream = session.stream(sql, params).await?;
        while let Some(row) = stream.next().await? {
            let cells = values(&row.into_cells())?;
            let hash = self.encoding.hash(&cells);
            let key = self.encoding.key(&cells);
            let named = self.shape.carry.key.iter().filter_map(|&i| cells.get(i).cloned()).collect();
            side.insert(key, Row { key: named, hash });
        }
        Ok(())
    }

    /// Looks up every key that only one side's range has at the other side.
    async fn complete(&self, source: &mut Session, dest: &mut Session, left: &mut Side, right: &mut Side) -> Result<()> {
        let only = |one: &Side, other: &Side| -> Vec<Vec<Value>> {
            one.iter().filter(|(key, _)| !other.contains_key(*key)).map(|(_, row)| row.key.clone()).collect()
        };
        let (only_left, only_right) = (only(left, right), only(right, left));
        if only_left.len() + only_right.len() > SUSPECTS_MAX {
            return Ok(());
        }
        let more_right = self.by_keys(End::Dest, dest, &only_left).await.context("look up keys at the destination")?;
        let more_left = self.by_keys(End::Source, source, &only_right).await.context("look up keys at the source")?;
        right.extend(more_right);
        left.extend(more_left);
        Ok(())
    }

    /// Parts suspects by whether their key has a change in (`low`, `high`].
    async fn changed(
        &self,
        capture: &Capture,
        low: Lsn,
        high: Lsn,
        suspects: Suspects,
        source: &mut Session,
    ) -> Result<(Suspects, Suspects)> {
        let captured = |column: &crate::model::carry::Carried| capture.column(&column.source.name, column.source.column_id).is_some();
        if !self.shape.carry.key_columns().all(captured) || low >= high && high == Lsn::ZERO {
            return Ok((suspects, Suspects::new()));
        }
        let (mut changed, mut certain) = (Suspects::new(), Suspects::new());
        let all: Vec<_> = suspects.into_iter().collect();
        for chunk in all.chunks(lookup::keys_max(&self.shape.carry)) {
            let sql = lookup::changed_keys(&capture.instance.change_table, &self.shape.carry, chunk.len());
            let mut params = vec![Param::Lsn(low), Param::Lsn(high)];
            params.extend(chunk.iter().flat_map(|(_, (_, key))| key.iter().map(Param::Value)));
            let rows = source.rows(&sql, &params).await.context("look for changes of suspects")?;
            // the comparison is the source's: a row may be another spelling of a key; then nothing is certain in this chunk
            let spelled = self.key_only();
            let touched = rows.into_iter().map(|row| Ok(spelled.key(&values(&row.into_cells())?))).collect::<Result<Vec<_>>>()?;
            let exact = touched.iter().all(|key| chunk.iter().any(|(suspect, _)| suspect == key));
            for (key, suspect) in chunk {
                if !exact || touched.contains(key) {
                    changed.insert(key.clone(), suspect.clone());
                } else {
                    certain.insert(key.clone(), suspect.clone());
                }
            }
        }
        Ok((changed, certain))
    }

    /// The encoding of rows that have the key columns alone.
    fn key_only(&self) -> Encoding {
        let mut carry = self.shape.carry.clone();
        carry.columns = self.shape.carry.key_columns().cloned().collect();
        carry.key = (0..carry.columns.len()).collect();
        Encoding::new(&carry)
    }
}

fn values(row: &RowData) -> Result<Vec<Value>> {
    (0..row.len()).map(|i| row.value(i)).collect()
}

/// What was last reported of each mapping, so that the same finding is not an error every five minutes.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<HashMap<MappingId, String>>>);

impl Findings {
    fn is_news(&self, mapping: MappingId, details: &str) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(mapping, details.to_owned()).as_deref() != Some(details)
    }

    fn forget(&self, mapping: MappingId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&mapping);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_finding_is_news_once() {
        let findings = Findings::default();
        let mapping = MappingId(1);
        assert!(findings.is_news(mapping, "different (1): 7"));
        assert!(!findings.is_news(mapping, "different (1): 7"));
        assert!(findings.is_news(mapping, "different (2): 7, 8"));
        findings.forget(mapping);
        assert!(findings.is_news(mapping, "different (2): 7, 8"));
    }
}
