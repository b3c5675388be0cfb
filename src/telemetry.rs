//! One event, two sinks: stdout ([`stdout`], which never waits for a reader), and the log tables.
//!
//! Code says what happened once, with `tracing`, in the fields that the log tables have
//! (`mapping_id`, `server_id`, `sync_type`, `records_count`, `execution_time_ms`; an error also
//! `error_type`, `error_code`, `error_details`, `retry_count`). The [`LogSender`] layer turns every such event of
//! ours at INFO and above into a row of `sync_logs`, and every ERROR into one of `error_logs` too.
//!
//! Between the layer and the tables is a queue with an end ([`queue`]): the layer never waits. When
//! the queue is full, or the tables cannot be written, rows are dropped and counted, and the count
//! is a row itself once writing works again. A sync never waits for its log.
//!
//! The subscriber belongs to one daemon, not to the process: several daemons in one process each
//! write to their own control database.

mod queue;
mod writer;

use self::queue::{LogQueue, LogRow};
pub use self::{
    queue::{QUEUE_ROWS_MAX, Resolution},
    writer::{LogTableWriter, RunningWriter},
};
use crate::{config::LogFormat, metrics::Metrics, model::visible::Visible, stdout};
use std::{
    fmt::{self, Write as _},
    io::IsTerminal,
    sync::Arc,
    time::Instant,
};
use tracing::{
    Dispatch, Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt,
    filter::{FilterExt, filter_fn},
    fmt::{
        FormatFields,
        format::{self, Writer as LineWriter},
    },
    layer::{Context, SubscriberExt},
};

/// Longest message, in characters: a log is for reading.
const MESSAGE_CHARS_MAX: usize = 8000;

/// Events of this target stay on stdout: they are about the log tables.
const STDOUT_ONLY: &str = "dbaops_dataflow::stdout";

/// The daemon's end of the queue.
#[derive(Clone)]
pub struct LogSender {
    queue: Arc<LogQueue>,
    metrics: Metrics,
}

/// An empty queue. Errors and dropped rows are counted in `metrics` too.
pub fn log_queue(metrics: Metrics) -> (LogSender, LogTableWriter) {
    let queue = Arc::new(LogQueue::default());
    (
        LogSender { queue: queue.clone(), metrics: metrics.clone() },
        LogTableWriter::new(queue, metrics),
    )
}

/// The fields of an event that the log tables have columns for, and the words for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct EventFields {
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
    error_code: Option<String>,
    /// The database of a source server; it stays in the message as well.
    database: Option<String>,
    error_details: Option<String>,
    retry_count: Option<i32>,
    /// The mapping is only tried again now and then.
    parked: bool,
}

impl EventFields {
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

    /// About what it holds in memory.
    fn size_bytes(&self) -> usize {
        let texts = [
            &self.error,
            &self.sync_type,
            &self.error_type,
            &self.error_code,
            &self.database,
            &self.error_details,
        ];
        size_of::<EventFields>()
            + self.message.len()
            + self.rest.len()
            + texts.into_iter().flatten().map(String::len).sum::<usize>()
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
            "error_code" => self.error_code = Some(value.to_owned()),
            "database" => {
                self.database = Some(value.to_owned());
                self.other(name, &value);
            }
            "parked" => self.parked = value == "true",
            "error_details" => self.error_details = Some(value.to_owned()),
            // An id given with % comes as text.
            "mapping_id" | "server_id" | "records_count" | "execution_time_ms" | "retry_count" => {
                match value.parse() {
                    Ok(number) => self.number(name, number),
                    Err(_) => self.other(name, &value),
                }
            }
            other => self.other(other, &value),
        }
    }

    fn other(&mut self, name: &str, value: &dyn fmt::Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.rest, " {name}={value}");
    }
}

impl Visit for EventFields {
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

impl<S: Subscriber> Layer<S> for LogSender {
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
        let mut fields = EventFields::default();
        event.record(&mut fields);
        if level == "ERROR" {
            self.metrics.error(fields.error_type.as_deref().unwrap_or("OTHER"));
        }
        self.queue
            .put(LogRow { fields: Box::new(fields), level, at: Instant::now() }, &self.metrics);
    }
}

/// The subscriber of one daemon. `RUST_LOG` says what stdout shows; the log tables always get INFO
/// and above.
pub fn subscriber(format: LogFormat, log_sender: Option<LogSender>) -> Dispatch {
    // Never the driver: it logs every error that it also returns, and at its lower levels what rows
    // hold, connection strings among them.
    let filter = || {
        let level = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        level.and(filter_fn(|metadata| !metadata.target().starts_with("tiberius")))
    };
    let colours = std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry().with(log_sender);
    match format {
        LogFormat::Text => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(stdout::log_writer)
                    .fmt_fields(visible_fields())
                    .with_target(false)
                    .with_ansi(colours)
                    .with_filter(filter()),
            )
            .into(),
        LogFormat::Json => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(stdout::log_writer)
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_filter(filter()),
            )
            .into(),
        LogFormat::Off => registry.into(),
    }
}

/// Writes an event's fields as the text log has them: `message key=value`. An event is one line,
/// and nothing in it acts on a terminal, whatever the words of servers in it are.
fn visible_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|writer: &mut LineWriter<'_>, field: &Field, value: &dyn fmt::Debug| {
        match field.name() {
            "message" => {}
            // italic, then dim, as the default format has it
            name if writer.has_ansi_escapes() => {
                write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?
            }
            name => write!(writer, "{name}=")?,
        }
        write!(Visible(writer), "{value:?}")
    })
    .delimited(" ")
}

#[cfg(test)]
mod tests {
    use super::{
        queue::{RESERVED_ROWS, Record},
        *,
    };
    use crate::model::id::MappingId;
    use std::sync::atomic::Ordering;

    fn recorded(work: impl FnOnce()) -> Vec<(EventFields, &'static str)> {
        let (log_sender, writer) = log_queue(Metrics::default());
        tracing::dispatcher::with_default(&subscriber(LogFormat::Off, Some(log_sender)), work);
        let mut records = Vec::new();
        for record in writer.queue().try_take(usize::MAX) {
            if let Record::Row(LogRow { fields, level, .. }) = record {
                records.push((*fields, level));
            }
        }
        records
    }

    /// Collects what a subscriber prints.
    #[derive(Clone, Default)]
    struct CapturedLines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for CapturedLines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A server's words forge no line of the text log and no command to a terminal, with colours
    /// and without.
    #[test]
    fn an_event_is_one_line_whatever_a_server_says() {
        let hostile = "no\u{1b}[2J\u{7}\r\n2026-01-01T00:00:00Z  INFO forged\u{202e}";
        let printed = |colours: bool| {
            let lines = CapturedLines::default();
            let writer = lines.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(move || writer.clone())
                .fmt_fields(visible_fields())
                .with_target(false)
                .with_ansi(colours)
                .finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(mapping_id = 7, error_type = "SYNC", error = %hostile, name = hostile, "poll of {hostile} failed");
            });
            let bytes = lines.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        };
        let plain = printed(false);
        assert_eq!(plain.matches('\n').count(), 1, "{plain:?}");
        assert!(
            !plain.trim_end_matches('\n').contains(crate::model::visible::is_hidden),
            "{plain:?}"
        );
        let shown = "no\\u{1b}[2J\\u{7}\\r\\n2026-01-01T00:00:00Z  INFO forged\\u{202e}";
        let end = format!(
            " ERROR poll of {shown} failed mapping_id=7 error_type=\"SYNC\" error={shown} name=\"{shown}\"\n"
        );
        assert!(plain.ends_with(&end), "{plain:?}");
        let coloured = printed(true);
        assert!(
            coloured.contains("\x1b[3merror\x1b[0m\x1b[2m=\x1b[0mno\\u{1b}[2J"),
            "{coloured:?}"
        );
        assert!(
            !coloured.contains("\x1b[2J") && coloured.matches('\n').count() == 1,
            "{coloured:?}"
        );
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
        assert_eq!(
            (*level, fields.mapping_id, fields.records_count, fields.execution_time_ms),
            ("INFO", Some(7), Some(12), Some(34))
        );
        assert_eq!(
            (fields.sync_type.as_deref(), fields.words().as_str()),
            (Some("CDC"), "changes applied groups=2")
        );
        let (fields, level) = &records[1];
        assert_eq!(
            (*level, fields.mapping_id, fields.server_id, fields.retry_count),
            ("ERROR", Some(7), Some(3), Some(2))
        );
        assert_eq!(fields.words(), "full sync failed: Invalid object name (Msg 208)");
    }

    /// What is said often leaves room for what is said once.
    #[test]
    fn a_full_queue_drops_and_counts() {
        let (log_sender, writer) = log_queue(Metrics::default());
        let subscriber = subscriber(LogFormat::Off, Some(log_sender.clone()));
        let dropped = || writer.queue().dropped.load(Ordering::Relaxed);
        tracing::dispatcher::with_default(&subscriber, || {
            for i in 0..QUEUE_ROWS_MAX {
                tracing::info!(i, "event");
            }
            assert_eq!((dropped(), log_sender.take_errors_dropped()), (1024, false));
            for i in 0..RESERVED_ROWS {
                tracing::error!(i, "trouble");
            }
            log_sender.resolve(Resolution::Mapping(MappingId(1)));
            assert_eq!((dropped(), log_sender.take_errors_dropped()), (1024, false));
            tracing::error!("one too many");
        });
        assert_eq!(
            (dropped(), log_sender.take_errors_dropped(), log_sender.take_errors_dropped()),
            (1025, true, false)
        );
        assert_eq!(writer.queue().len(), QUEUE_ROWS_MAX + 1);
    }

    #[test]
    fn long_messages_are_cut() {
        let fields =
            EventFields { message: "é".repeat(MESSAGE_CHARS_MAX + 1), ..EventFields::default() };
        assert_eq!(fields.words().chars().count(), MESSAGE_CHARS_MAX + 1);
        assert!(fields.words().ends_with('…'));
    }
}
