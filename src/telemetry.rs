//! One event, two sinks: stdout, and the log tables.
//!
//! Code says what happened once, with `tracing`, in the fields that the log tables have (`mapping_id`, `server_id`, `sync_type`,
//! `records_count`, `execution_time_ms`; an error also `error_type`, `error_details`, `retry_count`). The [`Journal`] layer turns
//! every such event of ours at INFO and above into a row of `sync_logs`, and every ERROR into one of `error_logs` too.
//!
//! Between the layer and the tables is a queue with an end: the layer never waits. When the queue is full, or the tables cannot be written,
//! rows are dropped and counted, and the count is a row itself once writing works again. A sync never waits for its log.
//!
//! The subscriber belongs to one daemon, not to the process: several daemons in one process each write to their own control database.

use crate::{
    config::LogFormat,
    control::{Control, Entry, Failure},
    error::{Error, Kind},
    model::id::{MappingId, ServerId},
    plan::retry,
    vitals::Vitals,
};
use std::{
    fmt::{self, Write as _},
    io::IsTerminal,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer::{Context, SubscriberExt},
};

/// Rows that may wait for the log tables.
pub const QUEUE_ROWS_MAX: usize = 4096;
/// Of these, rows that only errors and resolutions may take: what is said once must not be lost behind what is said often.
const RESERVED_ROWS: usize = 1024;
/// Rows the writer takes at a time.
const WRITE_ROWS_MAX: usize = 256;
/// Longest message, in characters: a log is for reading.
const MESSAGE_CHARS_MAX: usize = 8000;
/// How long writing may go on after the daemon has stopped.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);
/// Wait between attempts when the log tables cannot be written.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Attempts for rows that the server refuses for a reason of their own.
const REFUSED_ATTEMPTS_MAX: u32 = 2;

/// Events of this target stay on stdout: they are about the log tables.
const STDOUT_ONLY: &str = "dbaops_dataflow::stdout";

/// Something for the log tables, in the order it happened.
#[derive(Debug)]
enum Record {
    Event {
        fields: Box<Fields>,
        level: &'static str,
        at: Instant,
    },
    /// The mapping works again: what was unresolved is resolved.
    Resolve(MappingId),
    ResolveServer(ServerId),
    /// What begins with these words is over: of a mapping, or of the daemon itself.
    ResolveWords(Option<MappingId>, &'static str),
}

/// The daemon's end of the queue.
#[derive(Clone)]
pub struct Journal {
    queue: mpsc::Sender<Record>,
    dropped: Arc<AtomicU64>,
    vitals: Vitals,
}

/// The writer's end of the queue.
pub struct Writer {
    queue: mpsc::Receiver<Record>,
    dropped: Arc<AtomicU64>,
    vitals: Vitals,
}

/// A queue of [`QUEUE_ROWS_MAX`]. Errors and dropped rows are counted in `vitals` too.
pub fn journal(vitals: Vitals) -> (Journal, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE_ROWS_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    (Journal { queue: sender, dropped: dropped.clone(), vitals: vitals.clone() }, Writer { queue: receiver, dropped, vitals })
}

impl Journal {
    fn put(&self, record: Record) {
        let matters = !matches!(record, Record::Event { level, .. } if level != "ERROR");
        let room = matters || self.queue.capacity() > RESERVED_ROWS;
        if !room || self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.vitals.dropped(1);
        }
    }

    /// Unresolved errors of a mapping are resolved, after everything that was logged before.
    pub fn resolve(&self, mapping: MappingId) {
        self.put(Record::Resolve(mapping));
    }

    /// The same for a server's own errors.
    pub fn resolve_server(&self, server: ServerId) {
        self.put(Record::ResolveServer(server));
    }

    /// The same for errors whose message begins with `words`, of a mapping or of the daemon itself.
    pub fn resolve_words(&self, mapping: Option<MappingId>, words: &'static str) {
        self.put(Record::ResolveWords(mapping, words));
    }
}

/// The fields of an event that the log tables have columns for, and the words for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fields {
    message: String,
    /// `error = …`: follows the message behind a colon.
    error: Option<String>,
    /// ` key=value` for every other field
    rest: String,
    mapping_id: Option<i32>,
    server_id: Option<i32>,
    sync_type: Option<String>,
    records_count: Option<i64>,
    execution_time_ms: Option<i32>,
    error_type: Option<String>,
    error_details: Option<String>,
    retry_count: Option<i32>,
    /// The mapping is only tried again now and then.
    parked: bool,
}

impl Fields {
    /// `message: error key=value`
    fn words(&self) -> String {
        let mut words = self.message.clone();
        if let Some(error) = &self.error {
            if !words.is_empty() {
                words.push_str(": ");
            }
            words.push_str(error);
        }
        words.push_str(&self.rest);
        match words.char_indices().nth(MESSAGE_CHARS_MAX) {
            Some((at, _)) => format!("{}…", words.get(..at).unwrap_or_default()),
            None => words,
        }
    }

    fn number(&mut self, name: &str, value: i64) {
        let small = || i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX });
        match name {
            "mapping_id" => self.mapping_id = Some(small()),
            "server_id" => self.server_id = Some(small()),
            "records_count" => self.records_count = Some(value),
            "execution_time_ms" => self.execution_time_ms = Some(small()),
            "retry_count" => self.retry_count = Some(small()),
            other => self.other(other, &value),
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        match name {
            "message" => self.message = value.to_owned(),
            "error" => self.error = Some(value.to_owned()),
            "sync_type" => self.sync_type = Some(value.to_owned()),
            "error_type" => self.error_type = Some(value.to_owned()),
            "parked" => self.parked = value == "true",
            "error_details" => self.error_details = Some(value.to_owned()),
            // An id given with % comes as text.
            "mapping_id" | "server_id" | "records_count" | "execution_time_ms" | "retry_count" => match value.parse() {
                Ok(number) => self.number(name, number),
                Err(_) => self.other(name, &value),
            },
            other => self.other(other, &value),
        }
    }

    fn other(&mut self, name: &str, value: &dyn fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.rest, " {name}={value}");
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if !metadata.target().starts_with("dbaops_dataflow") || metadata.target() == STDOUT_ONLY {
            return;
        }
        let level = match *metadata.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            _ => return,
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        if level == "ERROR" {
            self.vitals.error(fields.error_type.as_deref().unwrap_or("OTHER"));
        }
        self.put(Record::Event { fields: Box::new(fields), level, at: Instant::now() });
    }
}

/// The subscriber of one daemon. `RUST_LOG` says what stdout shows; the log tables always get INFO and above.
pub fn subscriber(format: LogFormat, journal: Option<Journal>) -> Dispatch {
    // Never the driver: it logs every error that it also returns, and at its lower levels what rows hold, connection strings among them.
    let filter = || {
        let level = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        level.and(filter_fn(|metadata| !metadata.target().starts_with("tiberius")))
    };
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry().with(journal);
    match format {
        LogFormat::Text => {
            registry.with(tracing_subscriber::fmt::layer().with_target(false).with_ansi(colours).with_filter(filter())).into()
        }
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false).with_filter(filter())).into()
        }
        LogFormat::Off => registry.into(),
    }
}

impl Writer {
    /// Writes what comes through the queue, until `closing` and the queue is empty (or [`FLUSH_TIME_MAX`] has passed).
    pub async fn run(mut self, control: Control, closing: CancellationToken) {
        let mut records = Vec::with_capacity(WRITE_ROWS_MAX);
        // Rows of mappings that are gone.
        let mut orphans = 0usize;
        loop {
            // Nothing is lost when this race is: receiving is safe to drop.
            let received = tokio::select! {
                received = self.queue.recv_many(&mut records, WRITE_ROWS_MAX) => received,
                () = closing.cancelled() => 0,
            };
            if received == 0 && closing.is_cancelled() {
                break;
            }
            orphans += self.write(&control, &mut records, &closing).await;
        }
        let flush = async {
            while let Ok(record) = self.queue.try_recv() {
                records.push(record);
                if records.len() == WRITE_ROWS_MAX {
                    orphans += self.write(&control, &mut records, &closing).await;
                }
            }
            orphans += self.write(&control, &mut records, &closing).await;
        };
        if tokio::time::timeout(FLUSH_TIME_MAX, flush).await.is_err() {
            tracing::warn!(target: STDOUT_ONLY, "the last log rows could not be written in time");
            self.lost(records.len() + self.queue.len());
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 || orphans > 0 {
            tracing::warn!(target: STDOUT_ONLY, dropped, orphans, "log rows were not written");
        }
    }

    fn lost(&self, rows: usize) {
        let rows = u64::try_from(rows).unwrap_or(u64::MAX);
        self.dropped.fetch_add(rows, Ordering::Relaxed);
        self.vitals.dropped(rows);
    }

    /// Writes `records`, trying until it works or they are given up: what is done is taken out of them. Returns how many were left out for
    /// want of a mapping.
    async fn write(&self, control: &Control, records: &mut Vec<Record>, closing: &CancellationToken) -> usize {
        let mut orphans = 0;
        let mut refused = 0;
        let mut failures = 0;
        let mut told = false;
        // After a refusal, so many go one by one, so that only the guilty one is left out.
        let mut singly = 0usize;
        while !records.is_empty() {
            let some = if singly > 0 { records.get(..1) } else { records.get(..) };
            let written = write_some(control, some.unwrap_or_default()).await;
            records.drain(..written.done.min(records.len()));
            orphans += written.orphans;
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
                records.drain(..1);
                self.lost(1);
                refused = 0;
                continue;
            }
            if closing.is_cancelled() {
                self.lost(records.len());
                records.clear();
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
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let message = format!("{dropped} log rows were dropped: the log tables could not be written fast enough");
            let entry = Entry {
                mapping: None,
                level: "WARNING",
                message,
                sync_type: None,
                records: i64::try_from(dropped).ok(),
                execution_time_ms: None,
                age_ms: 0,
            };
            if control.log(&[entry]).await.error.is_some() {
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        orphans
    }
}

/// What came of an attempt.
#[derive(Debug, Default)]
struct Written {
    /// Records from the front that are done with.
    done: usize,
    /// How many of them had no mapping any more.
    orphans: usize,
    /// Why it went no further.
    error: Option<Error>,
}

impl From<crate::error::Result<()>> for Written {
    fn from(result: crate::error::Result<()>) -> Self {
        match result {
            Ok(()) => Written { done: 1, ..Written::default() },
            Err(error) => Written { error: Some(error), ..Written::default() },
        }
    }
}

/// Writes a run of records of one sort from the front.
async fn write_some(control: &Control, records: &[Record]) -> Written {
    match records.first() {
        None => Written::default(),
        Some(Record::Resolve(mapping)) => control.resolve_errors(*mapping, None).await.map(drop).into(),
        Some(Record::ResolveServer(server)) => control.resolve_server_errors(*server).await.map(drop).into(),
        Some(Record::ResolveWords(mapping, words)) => control.resolve_words(*mapping, words).await.into(),
        Some(Record::Event { .. }) => {
            let mut entries = Vec::new();
            let mut failure = None;
            for record in records {
                let Record::Event { fields, level, at } = record else { break };
                entries.push(entry(fields, level, *at));
                if *level == "ERROR" {
                    failure = Some(Failure {
                        mapping: fields.mapping_id,
                        server: fields.server_id,
                        error_type: fields.error_type.clone().unwrap_or_else(|| "OTHER".to_owned()),
                        message: fields.words(),
                        details: fields.error_details.clone(),
                        retry_count: fields.retry_count.unwrap_or(0),
                        parked: fields.parked,
                    });
                    break;
                }
            }
            // The error first: it is what matters, and writing it twice counts it up instead of doubling it. That it has no mapping any
            // more is counted with its row of sync_logs.
            if let Some(failure) = &failure
                && let Err(error) = fail(control, failure).await
            {
                return Written { error: Some(error), ..Written::default() };
            }
            let logged = control.log(&entries).await;
            Written { done: logged.done, orphans: logged.orphans, error: logged.error }
        }
    }
}

async fn fail(control: &Control, failure: &Failure) -> crate::error::Result<()> {
    control.fail(failure).await?;
    if let (true, Some(mapping)) = (failure.parked, failure.mapping) {
        control.parked(mapping, &failure.error_type, &failure.message).await?;
    }
    Ok(())
}

fn entry(fields: &Fields, level: &'static str, at: Instant) -> Entry {
    Entry {
        mapping: fields.mapping_id,
        level,
        message: fields.words(),
        sync_type: fields.sync_type.clone(),
        records: fields.records_count,
        execution_time_ms: fields.execution_time_ms,
        age_ms: i32::try_from(at.elapsed().as_millis()).unwrap_or(i32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(work: impl FnOnce()) -> Vec<(Fields, &'static str)> {
        let (journal, mut writer) = journal(Vitals::default());
        tracing::dispatcher::with_default(&subscriber(LogFormat::Off, Some(journal)), work);
        let mut records = Vec::new();
        while let Ok(record) = writer.queue.try_recv() {
            if let Record::Event { fields, level, .. } = record {
                records.push((*fields, level));
            }
        }
        records
    }

    #[test]
    fn events_become_rows() {
        let records = recorded(|| {
            tracing::info!(
                mapping_id = 7,
                sync_type = "CDC",
                records_count = 12u64,
                execution_time_ms = 34u64,
                groups = 2,
                "changes applied"
            );
            tracing::error!(
                mapping_id = %MappingId(7),
                server_id = 3,
                error_type = "SYNC",
                retry_count = 2u32,
                error = %"Invalid object name (Msg 208)",
                "full sync failed"
            );
            tracing::debug!("not for the tables");
            tracing::warn!(target: "tiberius", "not ours");
            tracing::warn!(target: STDOUT_ONLY, "about the tables");
        });
        assert_eq!(records.len(), 2);
        let (fields, level) = &records[0];
        assert_eq!((*level, fields.mapping_id, fields.records_count, fields.execution_time_ms), ("INFO", Some(7), Some(12), Some(34)));
        assert_eq!((fields.sync_type.as_deref(), fields.words().as_str()), (Some("CDC"), "changes applied groups=2"));
        let (fields, level) = &records[1];
        assert_eq!((*level, fields.mapping_id, fields.server_id, fields.retry_count), ("ERROR", Some(7), Some(3), Some(2)));
        assert_eq!(fields.words(), "full sync failed: Invalid object name (Msg 208)");
    }

    /// What is said often leaves room for what is said once.
    #[test]
    fn a_full_queue_drops_and_counts() {
        let (journal, writer) = journal(Vitals::default());
        let subscriber = subscriber(LogFormat::Off, Some(journal.clone()));
        tracing::dispatcher::with_default(&subscriber, || {
            for i in 0..QUEUE_ROWS_MAX {
                tracing::info!(i, "event");
            }
            assert_eq!(writer.dropped.load(Ordering::Relaxed), 1024);
            for i in 0..RESERVED_ROWS - 1 {
                tracing::error!(i, "trouble");
            }
            journal.resolve(MappingId(1));
            assert_eq!(writer.dropped.load(Ordering::Relaxed), 1024);
            tracing::error!("one too many");
        });
        assert_eq!(writer.dropped.load(Ordering::Relaxed), 1025);
        assert_eq!(writer.queue.len(), QUEUE_ROWS_MAX);
    }

    #[test]
    fn long_messages_are_cut() {
        let fields = Fields { message: "é".repeat(MESSAGE_CHARS_MAX + 1), ..Fields::default() };
        assert_eq!(fields.words().chars().count(), MESSAGE_CHARS_MAX + 1);
        assert!(fields.words().ends_with('…'));
    }
}
