//! What waits for the log tables, in the order in which it happened.
//!
//! Rows are many and may be dropped, which is counted. Resolutions are never dropped: whoever gives
//! one forgets that there was an error, and nothing would say it again. They need no limit of their
//! own: one that comes while another of the same thing waits takes its place, as it resolves
//! everything that the other one would have, so that there are at most a few for each mapping and
//! server.

use super::{EventFields, LogSender};
use crate::{
    control::ErrorCode,
    metrics::Metrics,
    model::id::{MappingId, ServerId},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// Rows that may wait for the log tables.
pub const QUEUE_ROWS_MAX: usize = 4096;
/// Of these, rows that only errors may take: what is said once must not be lost behind what is said
/// often.
pub(super) const RESERVED_ROWS: usize = 1024;
/// What waiting rows may hold in memory, about; the same part of it is for errors alone.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
const RESERVED_BYTES: usize = QUEUE_BYTES_MAX / 4;

/// An event for `sync_logs`, and for `error_logs` where it is an error.
#[derive(Debug)]
pub(super) struct LogRow {
    pub fields: Box<EventFields>,
    pub level: &'static str,
    pub at: Instant,
}

impl LogRow {
    fn is_error(&self) -> bool {
        self.level == "ERROR"
    }

    fn size_bytes(&self) -> usize {
        self.fields.size_bytes()
    }
}

/// Unresolved errors that are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The mapping works again.
    Mapping(MappingId),
    Server(ServerId),
    /// Those with this code: of a mapping, or of the daemon itself.
    Code(Option<MappingId>, ErrorCode),
}

/// Something for the log tables.
#[derive(Debug)]
pub(super) enum Record {
    Row(LogRow),
    Resolve(Resolution),
}

#[derive(Debug, Default)]
struct QueuedRows {
    /// Given so far: what came later has the greater number.
    given: u64,
    rows: VecDeque<(u64, LogRow)>,
    bytes: usize,
    resolutions: BTreeMap<u64, Resolution>,
    /// The number of each waiting resolution.
    numbers: HashMap<Resolution, u64>,
    refused: Vec<Resolution>,
}

/// Between the daemon, which never waits, and the writer.
#[derive(Debug, Default)]
pub(super) struct LogQueue {
    waiting: Mutex<QueuedRows>,
    more: Notify,
    /// Records that the writer has taken and not written yet.
    pub in_hand: AtomicUsize,
    /// Rows that were dropped and not told of yet.
    pub dropped: AtomicU64,
    /// Rows whose mapping is gone.
    pub orphans: AtomicUsize,
    /// An error was among the dropped since somebody asked.
    errors_dropped: AtomicBool,
}

impl LogQueue {
    fn lock(&self) -> MutexGuard<'_, QueuedRows> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a row in, or drops and counts it.
    pub fn put(&self, row: LogRow, metrics: &Metrics) {
        let (rows_max, bytes_max) = match row.is_error() {
            true => (QUEUE_ROWS_MAX, QUEUE_BYTES_MAX),
            false => (QUEUE_ROWS_MAX - RESERVED_ROWS, QUEUE_BYTES_MAX - RESERVED_BYTES),
        };
        let size = row.size_bytes();
        let mut waiting = self.lock();
        if waiting.rows.len() >= rows_max || waiting.bytes.saturating_add(size) > bytes_max {
            drop(waiting);
            self.errors_dropped.fetch_or(row.is_error(), Ordering::Relaxed);
            return self.lost(1, metrics);
        }
        waiting.given += 1;
        waiting.bytes += size;
        let number = waiting.given;
        waiting.rows.push_back((number, row));
        drop(waiting);
        self.more.notify_one();
    }

    /// Takes a resolution in, behind everything that was given before.
    pub fn resolve(&self, resolution: Resolution) {
        let mut waiting = self.lock();
        waiting.given += 1;
        let number = waiting.given;
        if let Some(earlier) = waiting.numbers.insert(resolution, number) {
            waiting.resolutions.remove(&earlier);
        }
        waiting.resolutions.insert(number, resolution);
        drop(waiting);
        self.more.notify_one();
    }

    /// Waits until there is something, and takes at most `count_max` of it.
    pub async fn take(&self, count_max: usize) -> Vec<Record> {
        loop {
            let more = self.more.notified();
            let records = self.try_take(count_max);
            if !records.is_empty() {
                return records;
            }
            more.await;
        }
    }

    /// What is there, oldest first, at most `count_max`.
    pub fn try_take(&self, count_max: usize) -> Vec<Record> {
        let mut waiting = self.lock();
        let mut records = Vec::new();
        while records.len() < count_max {
            let row = waiting.rows.front().map(|(number, _)| *number);
            let resolution = waiting.resolutions.keys().next().copied();
            let record = match (row, resolution) {
                (None, None) => break,
                (Some(row), Some(resolution)) if resolution < row => waiting.take_resolution(),
                (None, Some(_)) => waiting.take_resolution(),
                (Some(_), _) => waiting.take_row(),
            };
            records.extend(record);
        }
        self.in_hand.store(records.len(), Ordering::Relaxed);
        records
    }

    /// What waits, and what the writer holds.
    pub fn len(&self) -> usize {
        let waiting = self.lock();
        waiting.rows.len() + waiting.resolutions.len() + self.in_hand.load(Ordering::Relaxed)
    }

    /// Counts rows that are not written.
    pub fn lost(&self, rows: usize, metrics: &Metrics) {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        self.dropped.fetch_add(rows, Ordering::Relaxed);
        metrics.dropped(rows);
    }

    /// The server refuses a resolution: whoever gave it has to know that the error still stands
    /// there.
    pub fn refuse(&self, resolution: Resolution) {
        let mut waiting = self.lock();
        if !waiting.refused.contains(&resolution) {
            waiting.refused.push(resolution);
        }
    }
}

impl QueuedRows {
    fn take_row(&mut self) -> Option<Record> {
        let (_, row) = self.rows.pop_front()?;
        self.bytes = self.bytes.saturating_sub(row.size_bytes());
        Some(Record::Row(row))
    }

    fn take_resolution(&mut self) -> Option<Record> {
        let (_, resolution) = self.resolutions.pop_first()?;
        self.numbers.remove(&resolution);
        Some(Record::Resolve(resolution))
    }
}

impl LogSender {
    /// Unresolved errors are resolved, after everything that was logged before.
    pub fn resolve(&self, resolution: Resolution) {
        self.queue.resolve(resolution);
    }

    /// Resolutions that the control tables refused since the last call: these errors still stand
    /// there.
    pub fn take_refused(&self) -> Vec<Resolution> {
        std::mem::take(&mut self.queue.lock().refused)
    }

    /// Whether an error found no place in the queue since the last call: what is said once has to
    /// be said again.
    pub fn take_errors_dropped(&self) -> bool {
        self.queue.errors_dropped.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(level: &'static str, message: &str) -> LogRow {
        LogRow {
            fields: Box::new(EventFields { message: message.to_owned(), ..EventFields::default() }),
            level,
            at: Instant::now(),
        }
    }

    fn words(records: &[Record]) -> Vec<String> {
        let of = |record: &Record| match record {
            Record::Row(row) => row.fields.message.clone(),
            Record::Resolve(Resolution::Mapping(id)) => format!("resolve {}", id.0),
            Record::Resolve(other) => format!("{other:?}"),
        };
        records.iter().map(of).collect()
    }

    /// A queue full of rows once dropped what mappings that work again had to say, and they stayed
    /// broken in error_logs.
    #[test]
    fn a_full_queue_drops_no_resolution() {
        let (queue, metrics) = (LogQueue::default(), Metrics::default());
        for _ in 0..=QUEUE_ROWS_MAX {
            queue.put(row("ERROR", "trouble"), &metrics);
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 1);
        for id in (0..10_000).chain(0..10_000) {
            queue.resolve(Resolution::Mapping(MappingId(id)));
        }
        assert_eq!(queue.len(), QUEUE_ROWS_MAX + 10_000, "one of each");
        let taken = queue.try_take(usize::MAX);
        let resolved = taken.iter().filter(|record| matches!(record, Record::Resolve(_))).count();
        assert_eq!((resolved, queue.dropped.load(Ordering::Relaxed)), (10_000, 1));
    }

    #[test]
    fn a_resolution_keeps_its_place_behind_what_it_resolves_and_before_what_it_does_not() {
        let (queue, metrics) = (LogQueue::default(), Metrics::default());
        queue.put(row("ERROR", "first"), &metrics);
        queue.resolve(Resolution::Mapping(MappingId(1)));
        queue.put(row("ERROR", "second"), &metrics);
        queue.resolve(Resolution::Mapping(MappingId(2)));
        queue.resolve(Resolution::Mapping(MappingId(1)));
        queue.put(row("ERROR", "third"), &metrics);
        assert_eq!(words(&queue.try_take(2)), ["first", "second"]);
        assert_eq!(words(&queue.try_take(usize::MAX)), ["resolve 2", "resolve 1", "third"]);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn rows_are_bounded_by_their_bytes_too() {
        let (queue, metrics) = (LogQueue::default(), Metrics::default());
        let long = "x".repeat(1024 * 1024);
        for _ in 0..20 {
            queue.put(row("INFO", &long), &metrics);
        }
        let rows = queue.lock().rows.len();
        assert!((8..16).contains(&rows), "{rows}");
        queue.put(row("ERROR", "fits"), &metrics);
        assert_eq!(queue.lock().rows.len(), rows + 1);
    }
}
