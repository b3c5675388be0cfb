//! The numbers as OpenMetrics text. Every name begins with `dataflow_`; a mapping is its
//! `mapping_id`, with the names of its server and its source table. Names are bounded in length and
//! number, and shown with their hidden characters escaped; the encoder escapes the rest.

use crate::{
    jobs::Env,
    metrics::{Lag, MetricsSnapshot},
    model::{id::MappingId, visible::visible},
    stdout,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    metrics::MetricType,
    registry::Registry,
};
use std::{
    fmt,
    time::{Instant, SystemTime},
};

/// Mappings, or servers, in one family: beyond it a family is cut short, not the scrape.
const SERIES_MAX: usize = 10_000;

/// Longest name in a label, in characters.
const LABEL_CHARS_MAX: usize = 200;

/// One scrape: what the process knew at that moment.
#[derive(Debug)]
struct Scrape {
    state: MetricsSnapshot,
    connections: Vec<Connections>,
    now: Instant,
    wall: SystemTime,
}

/// A server's connections. `server`: `dest`, or a source's server_id.
#[derive(Debug)]
struct Connections {
    server: String,
    open: usize,
    max: usize,
}

/// The whole exposition.
pub(super) fn text(env: &Env) -> Result<String, fmt::Error> {
    let pools = env.dest.pools();
    let mut connections = vec![Connections {
        server: "dest".to_owned(),
        open: pools.connections(),
        max: pools.options().connections_max,
    }];
    connections.extend(env.sources.all_connections().into_iter().map(|(id, house)| Connections {
        server: id.to_string(),
        open: house.pools().connections(),
        max: house.pools().options().connections_max,
    }));
    let scrape = Scrape {
        state: env.metrics.state(),
        connections,
        now: Instant::now(),
        wall: SystemTime::now(),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

type Labels = Vec<(&'static str, String)>;

fn label(name: &'static str, value: impl ToString) -> (&'static str, String) {
    (name, value.to_string())
}

/// A label that others named.
fn name_label(label: &'static str, name: &str) -> (&'static str, String) {
    let shown = visible(name);
    let cut = match shown.char_indices().nth(LABEL_CHARS_MAX) {
        Some((at, _)) => format!("{}…", shown.get(..at).unwrap_or_default()),
        None => shown.into_owned(),
    };
    (label, cut)
}

impl Scrape {
    /// A mapping's labels; `None` until its names are known, so that it has one series and not two.
    fn mapping(&self, id: &MappingId) -> Option<Labels> {
        let (server, table) = self.state.control_states.names.get(id)?;
        Some(vec![label("mapping", id), name_label("server", server), name_label("table", table)])
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values.take(SERIES_MAX) {
        family.encode_family(&labels)?.encode_counter::<Labels, u64, u64>(&value, None)?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values.take(SERIES_MAX) {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (state, e) = (&self.state, &mut encoder);
        let one = |value: f64| std::iter::once((Labels::new(), value));
        let started =
            state.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        gauge(
            e,
            "dataflow_build_info",
            "The version that runs; always 1",
            std::iter::once((vec![label("version", env!("CARGO_PKG_VERSION"))], 1.0)),
        )?;
        gauge(
            e,
            "dataflow_start_time_seconds",
            "When the process started, in Unix time",
            one(started),
        )?;
        gauge(
            e,
            "dataflow_control_up",
            "1: the control database answered the last time",
            one(truth(matches!(state.control, Some(Ok(()))))),
        )?;
        gauge(
            e,
            "dataflow_destination_up",
            "1: the states of the mappings could be read from the destination the last time",
            one(truth(state.control_states.are_read)),
        )?;
        gauge(
            e,
            "dataflow_source_up",
            "1: no open error says that the source server cannot be reached",
            state.control_states.servers.iter().map(|(id, (server, is_up))| {
                (vec![label("server_id", id), name_label("server", server)], truth(*is_up))
            }),
        )?;
        counter(
            e,
            "dataflow_ticks",
            "Looks for work",
            std::iter::once((Labels::new(), state.ticks)),
        )?;
        let lag = |lag: &Lag| lag.seconds(self.now, self.wall);
        gauge(
            e,
            "dataflow_lag_seconds",
            "How far behind its source a mapping is; absent where nobody can tell",
            state.lags.iter().filter_map(|(id, seen)| Some((self.mapping(id)?, lag(seen)))),
        )?;
        counter(
            e,
            "dataflow_rows_applied",
            "Rows brought to the destination",
            state.rows.iter().filter_map(|((id, kind), rows)| {
                let mut labels = self.mapping(id)?;
                labels.push(label("sync_type", kind));
                Some((labels, *rows))
            }),
        )?;
        counter(
            e,
            "dataflow_runs",
            "CDC passes and full syncs that ended, by status",
            state.runs.iter().map(|((kind, status), runs)| {
                (vec![label("sync_type", kind), label("status", status)], *runs)
            }),
        )?;
        counter(
            e,
            "dataflow_errors",
            "Errors, as error_logs has them",
            state.errors.iter().map(|(kind, errors)| (vec![label("error_type", kind)], *errors)),
        )?;
        counter(
            e,
            "dataflow_verifications",
            "Verifications, as verification_logs has them",
            state.verifications.iter().map(|((kind, status), n)| {
                (vec![label("type", kind), label("status", status)], *n)
            }),
        )?;
        gauge(
            e,
            "dataflow_verification_failed",
            "1: the newest verification of the mapping's rows failed",
            state
                .differs
                .iter()
                .filter_map(|(id, differs)| Some((self.mapping(id)?, truth(*differs)))),
        )?;
        let counted = |name,
                       values: &std::collections::BTreeMap<&'static str, usize>|
         -> Vec<(Labels, f64)> {
            values.iter().map(|(value, count)| (vec![label(name, value)], whole(*count))).collect()
        };
        gauge(
            e,
            "dataflow_tasks_running",
            "Tasks that run now",
            counted("kind", &state.tasks).into_iter(),
        )?;
        gauge(
            e,
            "dataflow_mappings",
            "Mappings of the control database, by state: each daemon has them all",
            counted("state", &state.control_states.counts).into_iter(),
        )?;
        let connections = |count: fn(&Connections) -> usize| {
            self.connections
                .iter()
                .map(move |c| (vec![label("server", &c.server)], whole(count(c))))
                .collect::<Vec<_>>()
        };
        gauge(
            e,
            "dataflow_connections",
            "Open connections, idle ones included",
            connections(|c| c.open).into_iter(),
        )?;
        gauge(
            e,
            "dataflow_connections_max",
            "Most connections that may be open",
            connections(|c| c.max).into_iter(),
        )?;
        let unprinted = std::iter::once((Labels::new(), stdout::log_lines_dropped()));
        counter(
            e,
            "dataflow_log_lines_dropped",
            "Lines of the log that stdout did not take",
            unprinted,
        )?;
        counter(
            e,
            "dataflow_log_rows_dropped",
            "Rows that the log tables did not take",
            std::iter::once((Labels::new(), state.dropped)),
        )
    }
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn whole(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
