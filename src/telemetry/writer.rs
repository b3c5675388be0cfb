//! The writer: from the queue into the log tables.

use super::{
    EventFields, STDOUT_ONLY,
    queue::{LogQueue, LogRow, Record, Resolution},
};
use crate::{
    activity::Activity,
    control::{Control, ErrorCode, ErrorEntry, LogEntry},
    error::{Error, Kind},
    metrics::Metrics,
    model::id::MappingId,
    plan::retry,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;

/// Records the writer takes at a time.
const WRITE_ROWS_MAX: usize = 256;
/// How long writing may go on after everything else has stopped, whatever the server does
/// meanwhile.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);
/// Wait between attempts when the log tables cannot be written.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Between two writes of the counts of CDC sessions, and two looks for sums that are due.
const SAVE_INTERVAL: Duration = Duration::from_secs(2);
/// Attempts for records that the server refuses for a reason of their own.
const REFUSED_ATTEMPTS_MAX: u32 = 2;

/// The writer's end of the queue.
pub struct LogTableWriter {
    queue: Arc<LogQueue>,
    metrics: Metrics,
    activity: Activity,
}

/// A writer at work.
pub struct RunningWriter {
    task: JoinHandle<()>,
    queue: Arc<LogQueue>,
    metrics: Metrics,
    closing: CancellationToken,
}

impl RunningWriter {
    /// Has what waits written, for [`FLUSH_TIME_MAX`] at most: a statement that is not answered by
    /// then is given up, and its connection with it.
    pub async fn close(mut self) {
        self.closing.cancel();
        if timeout(FLUSH_TIME_MAX, &mut self.task).await.is_err() {
            self.task.abort();
            tracing::warn!(target: STDOUT_ONLY, "the last log rows could not be written in time");
            self.queue.lost(self.queue.len(), &self.metrics);
        }
        let (dropped, orphans) = (
            self.queue.dropped.load(Ordering::Relaxed),
            self.queue.orphans.load(Ordering::Relaxed),
        );
        if dropped > 0 || orphans > 0 {
            tracing::warn!(target: STDOUT_ONLY, dropped, orphans, "log rows were not written");
        }
    }
}

impl LogTableWriter {
    pub(super) fn new(queue: Arc<LogQueue>, metrics: Metrics, activity: Activity) -> Self {
        LogTableWriter { queue, metrics, activity }
    }

    #[cfg(test)]
    pub(super) fn queue(&self) -> &LogQueue {
        &self.queue
    }

    /// Writes what comes through the queue, until it is closed.
    pub fn start(self, control: Control) -> RunningWriter {
        let closing = CancellationToken::new();
        let (queue, metrics) = (self.queue.clone(), self.metrics.clone());
        let task = tokio::spawn(self.run(control, closing.clone()).with_current_subscriber());
        RunningWriter { task, queue, metrics, closing }
    }

    async fn run(self, control: Control, closing: CancellationToken) {
        let mut saves = tokio::time::interval(SAVE_INTERVAL);
        saves.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Nothing is lost when this race is: what is taken is returned at once.
            let mut records = tokio::select! {
                biased;
                _ = saves.tick() => {
                    self.activity.log_due(&self.metrics);
                    save_sessions(&control).await;
                    continue;
                }
                records = self.queue.take(WRITE_ROWS_MAX) => records,
                () = closing.cancelled() => self.queue.try_take(WRITE_ROWS_MAX),
            };
            if records.is_empty() {
                break;
            }
            self.write(&control, &mut records, &closing).await;
        }
    }

    /// Writes `records`, trying until it works or they are given up: what is done is taken out of
    /// them.
    async fn write(
        &self,
        control: &Control,
        records: &mut Vec<Record>,
        closing: &CancellationToken,
    ) {
        let mut refused = 0;
        let mut failures = 0;
        let mut told = false;
        // After a refusal, so many go one by one, so that only the guilty one is left out.
        let mut singly = 0usize;
        while !records.is_empty() {
            let some = if singly > 0 { records.get(..1) } else { records.get(..) };
            let written = write_some(control, some.unwrap_or_default()).await;
            records.drain(..written.done.min(records.len()));
            self.queue.in_hand.store(records.len(), Ordering::Relaxed);
            self.queue.orphans.fetch_add(written.orphans, Ordering::Relaxed);
            if written.done > 0 {
                singly = singly.saturating_sub(written.done);
                (refused, failures) = (0, 0);
            }
            let Some(error) = written.error else { continue };
            if !told {
                tracing::warn!(target: STDOUT_ONLY, %error, "the log tables cannot be written");
                told = true;
            }
            let passing = matches!(
                error.kind,
                Kind::Connection
                    | Kind::Login
                    | Kind::Database
                    | Kind::Timeout
                    | Kind::Deadlock
                    | Kind::LockTimeout
                    | Kind::Busy
                    | Kind::Missing
            );
            if !passing && singly == 0 {
                singly = WRITE_ROWS_MAX;
                continue;
            }
            refused += u32::from(!passing);
            if refused >= REFUSED_ATTEMPTS_MAX {
                self.give_up(records.drain(..1));
                refused = 0;
                continue;
            }
            if closing.is_cancelled() {
                self.give_up(records.drain(..));
                break;
            }
            // ever less often: attempts with a password that was changed would lock the login
            let pause = retry::back_off(failures, RETRY_AFTER);
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = closing.cancelled() => {}
            }
        }
        self.tell_dropped(control).await;
    }

    fn give_up(&self, records: impl Iterator<Item = Record>) {
        for record in records {
            match record {
                Record::Row(_) => self.queue.lost(1, &self.metrics),
                Record::Resolve(resolution) => self.queue.refuse(resolution),
            }
        }
    }

    async fn tell_dropped(&self, control: &Control) {
        let dropped = self.queue.dropped.swap(0, Ordering::Relaxed);
        if dropped == 0 {
            return;
        }
        let entry = LogEntry {
            mapping: None,
            level: "WARNING",
            message: format!(
                "{dropped} log rows were dropped: the log tables could not be written fast enough"
            ),
            sync_type: None,
            records: i64::try_from(dropped).ok(),
            execution_time_ms: None,
            age_ms: 0,
        };
        if control.log(&[entry]).await.error.is_some() {
            self.queue.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }
}

async fn save_sessions(control: &Control) {
    if let Err(error) = control.save_cdc_sessions().await {
        tracing::debug!(%error, "the counts of CDC are not in sync_status yet");
    }
}

/// What came of an attempt.
#[derive(Debug, Default)]
struct WriteOutcome {
    /// Records from the front that are done with.
    done: usize,
    /// How many of them had no mapping any more.
    orphans: usize,
    /// Why it went no further.
    error: Option<Error>,
}

impl WriteOutcome {
    fn all_or_none(records: usize, result: crate::error::Result<()>) -> Self {
        match result {
            Ok(()) => WriteOutcome { done: records, ..WriteOutcome::default() },
            Err(error) => WriteOutcome { error: Some(error), ..WriteOutcome::default() },
        }
    }
}

/// Writes a run of records of one sort from the front.
async fn write_some(control: &Control, records: &[Record]) -> WriteOutcome {
    match records.first() {
        None => WriteOutcome::default(),
        Some(Record::Row(_)) => write_rows(control, records).await,
        Some(Record::Resolve(Resolution::Mapping(_))) => {
            let ids: Vec<MappingId> = records.iter().map_while(of_a_mapping).collect();
            WriteOutcome::all_or_none(ids.len(), control.resolve_errors(&ids).await)
        }
        Some(Record::Resolve(Resolution::Server(server))) => {
            WriteOutcome::all_or_none(1, control.resolve_server_errors(*server).await.map(drop))
        }
        Some(Record::Resolve(Resolution::Code(mapping, code))) => {
            WriteOutcome::all_or_none(1, control.resolve_code(*mapping, *code).await)
        }
    }
}

fn of_a_mapping(record: &Record) -> Option<MappingId> {
    match record {
        Record::Resolve(Resolution::Mapping(id)) => Some(*id),
        _ => None,
    }
}

/// Rows up to the first error, and that.
async fn write_rows(control: &Control, records: &[Record]) -> WriteOutcome {
    let mut entries = Vec::new();
    let mut failure = None;
    for record in records {
        let Record::Row(row) = record else { break };
        let LogRow { fields, level, at } = row;
        entries.push(entry(fields, level, *at));
        if *level == "ERROR" {
            failure = Some(ErrorEntry {
                mapping: fields.mapping_id,
                server: fields.server_id,
                error_type: fields.error_type.clone().unwrap_or_else(|| "OTHER".to_owned()),
                code: fields
                    .error_code
                    .clone()
                    .unwrap_or_else(|| ErrorCode::Other.as_str().to_owned()),
                // said of one database where the server itself can be reached
                source_database: fields.database.clone().filter(|_| is_of_a_database(fields)),
                message: fields.words(),
                details: fields.error_details.clone(),
                retry_count: fields.retry_count.unwrap_or(0),
                parked: fields.parked,
            });
            break;
        }
    }
    // The error first: it is what matters, and writing it twice counts it up instead of doubling
    // it. That it has no mapping any more is counted with its row of sync_logs.
    if let Some(failure) = &failure
        && let Err(error) = fail(control, failure).await
    {
        return WriteOutcome { error: Some(error), ..WriteOutcome::default() };
    }
    let logged = control.log(&entries).await;
    WriteOutcome { done: logged.done, orphans: logged.orphans, error: logged.error }
}

fn is_of_a_database(fields: &EventFields) -> bool {
    fields.error_code.as_deref() == Some(ErrorCode::SourceDatabaseUnavailable.as_str())
}

async fn fail(control: &Control, failure: &ErrorEntry) -> crate::error::Result<()> {
    control.fail(failure).await?;
    if let (true, Some(mapping)) = (failure.parked, failure.mapping) {
        control.mark_error_parked(mapping, &failure.error_type, &failure.message).await?;
    }
    Ok(())
}

fn entry(fields: &EventFields, level: &'static str, at: Instant) -> LogEntry {
    LogEntry {
        mapping: fields.mapping_id,
        level,
        message: fields.words(),
        sync_type: fields.sync_type.clone(),
        records: fields.records_count,
        execution_time_ms: fields.execution_time_ms,
        age_ms: i32::try_from(at.elapsed().as_millis()).unwrap_or(i32::MAX),
    }
}
