//! The numbers as OpenMetrics text. Every name begins with `dataflow_`; a mapping is its
//! `mapping_id`.

use crate::{
    jobs::Env,
    metrics::{Lag, MetricsSnapshot},
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

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
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
    for (labels, value) in values {
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
            one(f64::from(u8::from(matches!(state.control, Some(Ok(())))))),
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
            state.lags.iter().map(|(id, seen)| (vec![label("mapping", id)], lag(seen))),
        )?;
        counter(
            e,
            "dataflow_rows_applied",
            "Rows brought to the destination",
            state.rows.iter().map(|((id, kind), rows)| {
                (vec![label("mapping", id), label("sync_type", kind)], *rows)
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
                .map(|(id, differs)| (vec![label("mapping", id)], f64::from(u8::from(*differs)))),
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
            "Mappings of this process",
            counted("state", &state.mappings).into_iter(),
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

fn whole(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}
