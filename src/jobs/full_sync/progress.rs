//! What people can watch while a full sync runs, and what can stop it.
//!
//! A watcher runs beside the work, in the same task: it is joined with the work, never raced
//! against it, so no statement is cut off and nothing is left behind. It moves sync_status and
//! writes a log line at least every five seconds, also while one statement takes minutes (an index,
//! a wait for capture, a swap), and it looks whether the mapping is still enabled. The job reports
//! what was done ([`SyncProgress`]) and looks at the run's token between batches.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    jobs::Env,
    model::{
        id::StatusId,
        mapping::{Mapping, SyncType},
    },
};

/// sync_status moves, and a line is logged, this often.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Whether the mapping is still enabled is asked this often.
const CHECK_ENABLED_EVERY: Duration = Duration::from_millis(500);

/// Why a run stopped at a batch boundary.
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
            Stop::Cancelled => "the daemon stops, or the mapping is not its any more",
        }
    }
}

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStage {
    /// Checks before the first row.
    Prepare,
    Copy,
    /// The staging table's key index.
    Index,
    /// Until capture has passed the copy.
    Fence,
    /// Changes made during the copy, into the staging table.
    Replay,
    Swap(SwapStep),
}

/// A statement of the swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapStep {
    Delete,
    Update,
    Insert,
    Check,
}

/// How far a run is. Shared by who works and who watches; held for an assignment only.
#[derive(Debug)]
pub struct SyncProgress(Mutex<ProgressSnapshot>);

#[derive(Clone, Debug)]
struct ProgressSnapshot {
    stage: SyncStage,
    /// When the stage began.
    since: Instant,
    /// Rows copied.
    rows: u64,
    /// Rows the source has, nearly.
    expected: Option<u64>,
    /// The longest wait for capture.
    wait_max: Duration,
    /// Changes replayed.
    changes: u64,
    last_key: Option<String>,
    stop: Option<Stop>,
}

impl SyncProgress {
    pub fn new(now: Instant) -> Self {
        SyncProgress(Mutex::new(ProgressSnapshot::new(now)))
    }

    fn lock(&self) -> MutexGuard<'_, ProgressSnapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything begins again.
    pub fn begin_again(&self) {
        let mut snapshot = self.lock();
        *snapshot =
            ProgressSnapshot { stop: snapshot.stop, ..ProgressSnapshot::new(Instant::now()) };
    }

    pub fn enter(&self, stage: SyncStage) {
        let mut snapshot = self.lock();
        snapshot.stage = stage;
        snapshot.since = Instant::now();
    }

    /// About how many rows will come.
    pub fn expect_rows(&self, rows: Option<u64>) {
        self.lock().expected = rows;
    }

    /// So many rows are in, the last one with this key.
    pub fn copied(&self, rows: u64, last_key: String) {
        let mut snapshot = self.lock();
        snapshot.rows = rows;
        snapshot.last_key = Some(last_key);
    }

    /// Waiting for capture, at most so long without progress.
    pub fn set_capture_wait(&self, wait_max: Duration) {
        self.lock().wait_max = wait_max;
    }

    pub fn replayed(&self, changes: u64) {
        self.lock().changes = changes;
    }

    /// The rows that the run ends with.
    pub fn finish_with(&self, rows: u64) {
        self.lock().rows = rows;
    }

    pub fn rows(&self) -> u64 {
        self.lock().rows
    }

    /// Why the run is to stop, if it is.
    pub fn stop(&self) -> Option<Stop> {
        self.lock().stop
    }
}

impl ProgressSnapshot {
    fn new(now: Instant) -> Self {
        ProgressSnapshot {
            stage: SyncStage::Prepare,
            since: now,
            rows: 0,
            expected: None,
            wait_max: Duration::ZERO,
            changes: 0,
            last_key: None,
            stop: None,
        }
    }

    /// `records_processed`: what has moved so far.
    fn records(&self) -> u64 {
        self.rows.saturating_add(self.changes)
    }

    /// `120000 rows copied, 40 %, 24000 rows/s, 8 s left`
    fn message(&self, now: Instant) -> String {
        let elapsed = now.saturating_duration_since(self.since);
        let so_far = format!("{} s so far", elapsed.as_secs());
        match self.stage {
            SyncStage::Prepare => format!("comparing source and destination, {so_far}"),
            SyncStage::Copy => copied(self.rows, self.expected, elapsed),
            SyncStage::Index => {
                format!("{} rows copied, indexing the staging table, {so_far}", self.rows)
            }
            SyncStage::Fence => format!(
                "{} rows copied, waiting until capture has passed the copy, {so_far}, {} s at most without progress",
                self.rows,
                self.wait_max.as_secs()
            ),
            SyncStage::Replay => {
                format!(
                    "{} changes made during the copy replayed, {} changes/s",
                    self.changes,
                    per_second(self.changes, elapsed)
                )
            }
            SyncStage::Swap(step) => {
                let doing = match step {
                    SwapStep::Delete => "deleting rows that are gone",
                    SwapStep::Update => "updating rows that differ",
                    SwapStep::Insert => "inserting new rows",
                    SwapStep::Check => "counting rows",
                };
                format!("swapping {} rows in: {doing}, {so_far}", self.rows)
            }
        }
    }
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000) / millis
}

fn copied(rows: u64, expected: Option<u64>, elapsed: Duration) -> String {
    let rate = per_second(rows, elapsed);
    match expected {
        Some(expected) if expected >= rows && expected > 0 => {
            let percent = rows.saturating_mul(100) / expected;
            let left = (expected - rows)
                .checked_div(rate)
                .map_or_else(|| "unknown time".to_owned(), |seconds| format!("{seconds} s"));
            format!("{rows} rows copied, {percent} %, {rate} rows/s, {left} left")
        }
        _ => format!("{rows} rows copied, {rate} rows/s"),
    }
}

/// Watches a run until `over`. `env.cancel` is the run's own token: it ends here when the mapping
/// was switched off.
pub async fn watch(
    env: &Env,
    mapping: &Mapping,
    run: StatusId,
    progress: &SyncProgress,
    over: &CancellationToken,
) {
    let mut reported = Instant::now();
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(CHECK_ENABLED_EVERY) => {}
        }
        if env.stopping() {
            progress.lock().stop.get_or_insert(Stop::Cancelled);
        } else if let Ok(current) = env.control.current_mapping(mapping.id).await
            // a control database that does not answer for a moment must not cost an hour's copy:
            // the swap will need it, this does not
            && !current.is_some_and(|current| current.enabled)
        {
            progress.lock().stop.get_or_insert(Stop::Paused);
            env.cancel.cancel();
        }
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            let snapshot = progress.lock().clone();
            let records = i64::try_from(snapshot.records()).unwrap_or(i64::MAX);
            // as above: not worth the run
            let _ = env.control.progress(run, records, snapshot.last_key.as_deref()).await;
            info!(
                mapping_id = mapping.id.0,
                server_id = mapping.server.0,
                sync_type = SyncType::FullSync.as_str(),
                records_count = records,
                "full sync of {}: {}",
                mapping.source,
                snapshot.message(reported)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_as_text() {
        let seconds = Duration::from_secs;
        assert_eq!(
            copied(120_000, Some(300_000), seconds(5)),
            "120000 rows copied, 40 %, 24000 rows/s, 7 s left"
        );
        assert_eq!(copied(10, Some(5), seconds(1)), "10 rows copied, 10 rows/s");
        assert_eq!(
            copied(0, Some(5), seconds(1)),
            "0 rows copied, 0 %, 0 rows/s, unknown time left"
        );
        assert_eq!(copied(5, None, Duration::ZERO), "5 rows copied, 5000 rows/s");
    }

    #[test]
    fn every_stage_has_words_and_time() {
        let began = Instant::now();
        let progress = SyncProgress::new(began);
        progress.copied(7, "7".into());
        progress.set_capture_wait(Duration::from_secs(330));
        progress.replayed(4);
        let snapshot = progress.lock().clone();
        assert_eq!(snapshot.records(), 11);
        let now = began + Duration::from_secs(2);
        for (stage, words) in [
            (
                SyncStage::Fence,
                "7 rows copied, waiting until capture has passed the copy, 2 s so far, 330 s at most without progress",
            ),
            (SyncStage::Replay, "4 changes made during the copy replayed, 2 changes/s"),
            (
                SyncStage::Swap(SwapStep::Update),
                "swapping 7 rows in: updating rows that differ, 2 s so far",
            ),
        ] {
            assert_eq!(
                ProgressSnapshot { stage, since: began, ..snapshot.clone() }.message(now),
                words
            );
        }
    }
}
