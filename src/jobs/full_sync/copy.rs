//! The copy: source rows into the staging table, with progress that people can watch.

use std::time::{Duration, Instant};

use tracing::info;

use super::direct::Direct;
use crate::{
    error::{Context, Error, Kind, Result},
    jobs::{Env, shape::Shape},
    model::{
        carry::Carry,
        id::StatusId,
        mapping::{Mapping, SyncType},
        name::{Ident, TableName},
        value::Value,
    },
    mssql::{
        bulk::{self, BatchLimit, Boundary, Go},
        catalog,
        session::{BulkOptions, Session},
    },
    plan::verify::key_text,
    tsql,
};

/// sync_status moves at least this often while rows do.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Whether the mapping is still enabled is asked at most this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why a copy stopped at a batch boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The mapping or its server was switched off, or deleted.
    Paused,
    /// The daemon stops, or lost the mapping.
    Cancelled,
}

impl Stop {
    pub fn as_str(self) -> &'static str {
        match self {
            Stop::Paused => "the mapping or its server was switched off",
            Stop::Cancelled => super::STOPS,
        }
    }
}

/// Copies every row into the staging table, and from there on batch by batch where it is `direct`; `Some` when it stopped before the end.
#[expect(clippy::too_many_arguments, reason = "the two sessions and the facts of one run, used once")]
pub async fn copy(
    env: &Env,
    mapping: &Mapping,
    run: StatusId,
    shape: &Shape,
    stage: &TableName,
    limit: BatchLimit,
    source: &mut Session,
    dest: &mut Session,
    direct: Option<&mut Direct<'_>>,
    rows: &mut u64,
) -> Result<Option<Stop>> {
    let expected = catalog::row_count(source, &shape.source).await?.and_then(|rows| u64::try_from(rows).ok());
    let now = Instant::now();
    let mut watch = Watch { env, mapping, run, expected, direct, began: now, told: now, looked: now, stop: None, rows };
    let snapshot = shape.source_database.snapshot;
    if snapshot {
        source.batch("SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION").await.context("begin a snapshot")?;
    }
    let columns: Vec<Ident> = shape.carry.columns.iter().map(|column| column.name().clone()).collect();
    let table = stage.local();
    let into = bulk::Into {
        table: &table,
        columns: &columns,
        key: &shape.carry.key,
        options: BulkOptions { table_lock: true, keep_nulls: true, ..BulkOptions::default() },
    };
    let query = tsql::swap::read_source(&shape.source.name, &shape.carry);
    bulk::copy(source, &query, &[], dest, into, limit, &mut watch).await.context("copy")?;
    let stop = watch.stop;
    if snapshot && stop.is_none() {
        source.batch("COMMIT TRANSACTION; SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await.context("end the snapshot")?;
    }
    Ok(stop)
}

/// Follows the batches.
struct Watch<'a, 'b> {
    env: &'a Env,
    mapping: &'a Mapping,
    run: StatusId,
    expected: Option<u64>,
    direct: Option<&'a mut Direct<'b>>,
    began: Instant,
    told: Instant,
    looked: Instant,
    stop: Option<Stop>,
    rows: &'a mut u64,
}

impl Boundary for Watch<'_, '_> {
    async fn batch_done(&mut self, dest: &mut Session, rows: u64, last_key: &[Value]) -> Result<Go> {
        if let Some(direct) = &mut self.direct {
            direct.batch(dest).await?;
        }
        *self.rows = rows;
        if self.env.stopping() {
            self.stop = Some(Stop::Cancelled);
            return Ok(Go::Stop);
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            // A control database that does not answer for a moment must not cost an hour's copy: the swap will need it, this does not.
            if let Ok(standing) = self.env.control.standing(self.mapping.id).await
                && !standing.is_some_and(|standing| standing.enabled)
            {
                self.stop = Some(Stop::Paused);
                return Ok(Go::Stop);
            }
        }
        if self.told.elapsed() < PROGRESS_EVERY {
            return Ok(Go::On);
        }
        self.told = Instant::now();
        let key = key_text(last_key);
        // as above: not worth the copy
        let _ = self.env.control.progress(self.run, i64::try_from(rows).unwrap_or(i64::MAX), Some(&key)).await;
        info!(
            mapping_id = self.mapping.id.0,
            server_id = self.mapping.server.0,
            sync_type = SyncType::FullSync.as_str(),
            records_count = i64::try_from(rows).unwrap_or(i64::MAX),
            "{}",
            progress(rows, self.expected, self.began.elapsed())
        );
        Ok(Go::On)
    }
}

/// `120000 rows copied, 40 %, 24000 rows/s, 8 s left`
fn progress(rows: u64, expected: Option<u64>, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let per_second = rows.saturating_mul(1_000) / millis;
    match expected {
        Some(expected) if expected >= rows && expected > 0 => {
            let left = expected - rows;
            let percent = rows.saturating_mul(100) / expected;
            let time_left = left.checked_div(per_second).map_or_else(|| "unknown time".to_owned(), |seconds| format!("{seconds} s"));
            format!("{rows} rows copied, {percent} %, {per_second} rows/s, {time_left} left")
        }
        _ => format!("{rows} rows copied, {per_second} rows/s"),
    }
}

/// The staging table's key index, after rows that were read twice are out.
pub async fn index(dest: &mut Session, stage: &TableName, carry: &Carry) -> Result<()> {
    const DUPLICATE_KEY: i32 = 1505;
    let create = tsql::swap::index_stage(stage, carry);
    match dest.batch(&create).await {
        Err(error) if error.number == Some(DUPLICATE_KEY) => dest.recover().await?,
        other => return other.context("index the staging table"),
    }
    let dropped = dest.execute(&tsql::swap::drop_repeated(stage, carry), &[]).await.context("drop rows that were read twice")?;
    match dest.batch(&create).await {
        Err(error) if error.number == Some(DUPLICATE_KEY) => Err(Error::new(
            Kind::Duplicate,
            format!(
                "the source has keys that are one key under the destination's collation ({} repeated reads were dropped before)",
                dropped.iter().sum::<u64>()
            ),
        )
        .with_hint("Give the destination's key column the source's collation")),
        other => other.context("index the staging table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_words() {
        let seconds = Duration::from_secs;
        assert_eq!(progress(120_000, Some(300_000), seconds(5)), "120000 rows copied, 40 %, 24000 rows/s, 7 s left");
        assert_eq!(progress(10, Some(5), seconds(1)), "10 rows copied, 10 rows/s");
        assert_eq!(progress(0, Some(5), seconds(1)), "0 rows copied, 0 %, 0 rows/s, unknown time left");
        assert_eq!(progress(5, None, Duration::ZERO), "5 rows copied, 5000 rows/s");
    }
}
