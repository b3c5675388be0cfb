//! What the daemon and the commands share: the environment of jobs, made from the configuration.

use crate::{
    activity::Activity,
    config::{Config, LogFormat},
    control::{self, Control},
    error::Result,
    jobs::{Env, full_sync::Triggers, uncaptured::UncapturedWarnings, verify::KnownFindings},
    metrics::Metrics,
    mssql::pool::{PoolOptions, Pools, reservation::ServerConnections, sources::Sources},
    telemetry,
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;

/// Connections to the destination that jobs cannot reserve: for the control tables and the lease.
const RESERVED_CONNECTIONS: usize = control::CONNECTIONS_MAX + control::LEASE_CONNECTIONS;

/// Idle connections are closed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Longest time for writing the ends of runs when everything else has ended.
pub const RECORD_TIME_MAX: Duration = Duration::from_secs(5);

/// Makes the environment of jobs.
pub fn env(config: Config, metrics: Metrics, activity: Activity) -> Env {
    let options = |connections_max: usize, deadlock_priority_low: bool| PoolOptions {
        connections_max,
        statement_timeout: config.statement_timeout,
        lock_timeout: config.lock_timeout,
        deadlock_priority_low,
        idle_timeout: IDLE_TIMEOUT,
    };
    let pools = Pools::new(config.dest.clone(), options(config.dest_connections_max, false));
    let sources = Sources::new(options(config.source_connections_max, true));
    Env {
        control: Control::new(pools.clone(), metrics.clone(), activity.clone()),
        metrics,
        activity,
        dest: ServerConnections::new(pools, RESERVED_CONNECTIONS),
        sources,
        triggers: Triggers::default(),
        uncaptured: UncapturedWarnings::default(),
        findings: KnownFindings::default(),
        generation: 0,
        cancel: CancellationToken::new(),
        config: Arc::new(config),
    }
}

/// Runs a command's work with an environment whose log events go to the log tables only: the
/// command prints its results itself.
pub async fn with_env<T>(
    mut config: Config,
    work: impl AsyncFnOnce(&Env) -> Result<T>,
) -> Result<T> {
    config.log_format = LogFormat::Off;
    let metrics = Metrics::default();
    // somebody asked for this work, and wants to see all of it
    let activity = Activity::new(0);
    let (log_sender, writer) = telemetry::log_queue(metrics.clone(), activity.clone());
    let dispatch = telemetry::subscriber(config.log_format, Some(log_sender));
    let work = async move {
        let env = env(config, metrics, activity);
        let log_writer = writer.start(env.control.clone());
        let result = work(&env).await;
        let pending = env.control.write_pending_completions();
        // what cannot be written in time is written by the mapping's next run
        let _ = tokio::time::timeout(RECORD_TIME_MAX, pending).await;
        log_writer.close().await;
        result
    };
    work.with_subscriber(dispatch).await
}
