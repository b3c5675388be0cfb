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

mod fields;
mod line;
mod queue;
mod writer;

use self::{
    fields::EventFields,
    line::TextFields,
    queue::{LogQueue, LogRow},
};
pub use self::{
    queue::{QUEUE_ROWS_MAX, Resolution},
    writer::{LogTableWriter, RunningWriter},
};
use crate::{activity::Activity, config::LogFormat, metrics::Metrics, stdout};
use std::{io::IsTerminal, sync::Arc, time::Instant};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer::{Context, SubscriberExt},
};

/// Events of this target stay on stdout: they are about the log tables.
const STDOUT_ONLY: &str = "dbaops_dataflow::stdout";

/// The daemon's end of the queue.
#[derive(Clone)]
pub struct LogSender {
    queue: Arc<LogQueue>,
    metrics: Metrics,
    activity: Activity,
}

/// An empty queue. Errors and dropped rows are counted in `metrics` too, and each row is charged to
/// the budget of `activity`.
pub fn log_queue(metrics: Metrics, activity: Activity) -> (LogSender, LogTableWriter) {
    let queue = Arc::new(LogQueue::default());
    (
        LogSender { queue: queue.clone(), metrics: metrics.clone(), activity: activity.clone() },
        LogTableWriter::new(queue, metrics, activity),
    )
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
        // an error has a row in error_logs as well
        self.activity.charge(1 + u32::from(level == "ERROR"));
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
                    .fmt_fields(TextFields)
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

#[cfg(test)]
mod tests {
    use super::{
        queue::{RESERVED_ROWS, Record},
        *,
    };
    use crate::model::id::MappingId;
    use std::sync::atomic::Ordering;

    fn recorded(work: impl FnOnce()) -> Vec<(EventFields, &'static str)> {
        let (log_sender, writer) = log_queue(Metrics::default(), Activity::new(0));
        tracing::dispatcher::with_default(&subscriber(LogFormat::Off, Some(log_sender)), work);
        let mut records = Vec::new();
        for record in writer.queue().try_take(usize::MAX) {
            if let Record::Row(LogRow { fields, level, .. }) = record {
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
        let (log_sender, writer) = log_queue(Metrics::default(), Activity::new(0));
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
}
