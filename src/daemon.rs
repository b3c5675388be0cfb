//! The daemon: looks for work at intervals, and starts a task for each piece of work.
//!
//! **A tick** reads the control tables and takes this daemon's share of the mappings ([`refresh`]);
//! each source database with mappings that are due gets one poll ([`polls`]); each mapping with work
//! gets one job ([`jobs`]). The loop itself never waits for a server: refreshes, polls, jobs and
//! verifications are tasks in one `JoinSet`, and the loop starts them and handles their ends
//! ([`task_end`]). So a slow mapping delays no other one, and a tick that comes while the last one
//! still reads is skipped. No mapping has two jobs and no database two polls at a time.
//!
//! **State** is one struct per mapping, per source database and per server ([`state`]); the state
//! machine of a mapping is in [`crate::plan::lifecycle`].
//!
//! **A failure** is logged once, in [`mapping_failures`] or [`source_failures`], and [`crate::plan::retry`] decides when the mapping
//! is due again. A server that cannot be reached is one failure, not one per mapping. A task that
//! panics counts as failed.
//!
//! **Timers come first.** The loop handles its heartbeat, the renewal of the lease and the ticks
//! before ends of tasks, of which there may be many; and what it does at the end of a task does not
//! grow with the length of the queue ([`queue`]).
//!
//! **Shutdown** ([`shutdown`]): the token is cancelled, jobs stop at their next batch boundary,
//! nothing new starts. What has not ended within `DATAFLOW_SHUTDOWN_TIMEOUT` is dropped; its
//! connections close, and the servers roll back. Then the last log rows are written.

mod control_refresh;
mod failure;
mod heartbeat;
mod jobs;
mod mapping_failures;
mod mapping_state;
mod ownership;
mod polls;
mod purge;
mod queue;
mod refresh;
mod shutdown;
mod source_failures;
mod source_state;
mod startup;
mod state;
mod task;
mod task_end;
mod verifications;

use self::{
    heartbeat::every,
    purge::PURGE_INTERVAL,
    refresh::RENEW_INTERVAL,
    startup::start,
    state::{Daemon, Mode},
    task::TaskEnd,
};
use crate::{
    activity::Activity, app, config::Config, error::Result, http, jobs::Env, metrics::Metrics,
    telemetry,
};
use std::{future::Future, net::SocketAddr, pin::Pin, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, Interval},
};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;

/// Runs until `shutdown` resolves. An error means that it could not start; everything after that is
/// logged and retried.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    run_in_mode(config, shutdown, Mode::Forever).await.map(drop)
}

/// One tick: does the work that there is, and returns whether all of it succeeded.
pub async fn run_once(config: Config, shutdown: impl Future<Output = ()>) -> Result<bool> {
    run_in_mode(config, shutdown, Mode::Once).await
}

async fn run_in_mode(
    config: Config,
    shutdown: impl Future<Output = ()>,
    mode: Mode,
) -> Result<bool> {
    let metrics = Metrics::default();
    let activity = Activity::new(config.log_rows_per_day);
    let (log_sender, writer) = telemetry::log_queue(metrics.clone(), activity.clone());
    let dispatch = telemetry::subscriber(config.log_format, Some(log_sender.clone()));
    let work = async move {
        let address = if mode == Mode::Forever { config.http } else { None };
        let env = app::env(config, metrics, activity);
        let http_closing = CancellationToken::new();
        let http_server = match address {
            Some(address) => Some(start_http(address, &env, &http_closing).await?),
            None => None,
        };
        let log_writer = writer.start(env.control.clone());
        let mut shutdown = std::pin::pin!(shutdown);
        let result = match start(&env, shutdown.as_mut()).await {
            Ok(true) => Ok(Daemon::new(env, log_sender, mode).run_loop(shutdown).await),
            Ok(false) => Ok(true),
            Err(error) => Err(error),
        };
        log_writer.close().await;
        http_closing.cancel();
        if let Some(http_server) = http_server {
            // it ends by its token; a panic in it is no reason to fail
            let _ = http_server.await;
        }
        result
    };
    work.with_subscriber(dispatch).await
}

/// Starts the server for `/healthz`, `/readyz` and `/metrics`.
async fn start_http(
    address: SocketAddr,
    env: &Env,
    closing: &CancellationToken,
) -> Result<JoinHandle<()>> {
    let listener = http::listen(address).await?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!("health and metrics are at http://{address}/healthz, /readyz and /metrics");
    Ok(tokio::spawn(http::serve(listener, env.clone(), closing.clone()).with_current_subscriber()))
}

impl Daemon {
    /// The loop. Returns whether nothing failed.
    async fn run_loop(mut self, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut timers = Timers::new(&self);
        self.service_manager.ready();
        while let Some(event) = self.next_event(&mut timers, shutdown.as_mut()).await {
            match event {
                LoopEvent::Beat => self.beat(),
                LoopEvent::RenewLease => self.renew_lease(),
                LoopEvent::Tick => {
                    self.ticked = true;
                    self.tick();
                }
                LoopEvent::Verify => self.verify_tick(),
                LoopEvent::PurgeLogs => self.purge_logs(),
                LoopEvent::TaskEnd(end) => self.on_task_end(end),
            }
            if self.mode == Mode::Once && self.ticked && self.tasks.is_empty() {
                break;
            }
        }
        self.shut_down().await;
        self.all_worked
    }

    /// The next event; `None` when asked to stop. Timers come before ends of tasks, of which there
    /// may always be another one.
    async fn next_event(
        &mut self,
        timers: &mut Timers,
        shutdown: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<LoopEvent> {
        let ticks = self.mode == Mode::Forever || !self.ticked;
        let verifies = !self.env.config.verify_interval.is_zero() && self.mode == Mode::Forever;
        tokio::select! {
            biased;
            () = shutdown => None,
            _ = timers.beats.tick() => Some(LoopEvent::Beat),
            _ = timers.renewals.tick() => Some(LoopEvent::RenewLease),
            _ = timers.ticks.tick(), if ticks => Some(LoopEvent::Tick),
            _ = timers.verifications.tick(), if verifies => Some(LoopEvent::Verify),
            _ = timers.purges.tick() => Some(LoopEvent::PurgeLogs),
            Some(end) = self.tasks.join_next_with_id() => Some(LoopEvent::TaskEnd(end)),
        }
    }
}

/// What the loop reacts to.
enum LoopEvent {
    Beat,
    RenewLease,
    Tick,
    Verify,
    PurgeLogs,
    TaskEnd(TaskEnd),
}

/// The period of a timer that is switched off.
const UNUSED: Duration = Duration::from_secs(86_400);

struct Timers {
    beats: Interval,
    renewals: Interval,
    ticks: Interval,
    verifications: Interval,
    purges: Interval,
}

impl Timers {
    fn new(daemon: &Daemon) -> Self {
        let config = &daemon.env.config;
        let now = Instant::now();
        // Zero switches verifications off, but is no valid period of a timer.
        let verify_interval =
            Some(config.verify_interval).filter(|interval| !interval.is_zero()).unwrap_or(UNUSED);
        Timers {
            beats: every(daemon.beat_interval(), now),
            renewals: every(RENEW_INTERVAL, now + RENEW_INTERVAL),
            ticks: every(config.check_interval, now),
            // the first verification comes after the first syncs
            verifications: every(verify_interval, now + verify_interval),
            purges: every(PURGE_INTERVAL, now + PURGE_INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        state::tests::new_daemon,
        task::{Task, TaskResult},
        *,
    };
    use std::pin::pin;
    use tokio::task;

    /// Short passes that ended one after the other once delayed the heartbeat, the renewal of the
    /// lease and the next tick for as long as they did.
    #[tokio::test]
    async fn timers_come_before_ends_of_tasks_however_many_there_are() {
        let mut daemon = new_daemon();
        for _ in 0..32 {
            daemon.spawn(Task::RecordConnected, async { TaskResult::Maintenance(Ok(())) });
        }
        while !daemon.task_kinds.values().all(|(_, handle)| handle.is_finished()) {
            task::yield_now().await;
        }
        let due = || every(Duration::from_secs(3_600), Instant::now());
        let mut timers = Timers {
            beats: due(),
            renewals: due(),
            ticks: due(),
            verifications: due(),
            purges: due(),
        };
        // this timer is the youngest: when it fires, all are due
        due().tick().await;
        let mut order = Vec::new();
        for _ in 0..6 {
            order.push(match daemon.next_event(&mut timers, pin!(std::future::pending())).await {
                Some(LoopEvent::Beat) => "beat",
                Some(LoopEvent::RenewLease) => "renew",
                Some(LoopEvent::Tick) => "tick",
                Some(LoopEvent::Verify) => "verify",
                Some(LoopEvent::PurgeLogs) => "purge",
                Some(LoopEvent::TaskEnd(_)) => "ended",
                None => "stop",
            });
        }
        assert_eq!(order, ["beat", "renew", "tick", "verify", "purge", "ended"]);
    }
}
