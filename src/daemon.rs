//! Conducting: looks for work every so often, and has it done.
//!
//! **A tick** loads the control tables and has this daemon's share of the mappings ([`refresh`]);
//! each source database with mappings that are due gets one poll; each mapping with work gets one
//! task. Nothing here waits for anything: loads, polls, jobs and verifications are tasks in one
//! `JoinSet`, and the loop only starts them and hears how they ended. So a slow mapping delays
//! nobody, and a tick that comes while its predecessor still loads is skipped, not stacked. A
//! mapping is never twice among the running, a database never twice among the polled.
//!
//! **A failure** is logged here, once, and [`crate::plan::retry`] says when its mapping is due
//! again. A server that cannot be reached is one failure, not one per mapping. A task that panics
//! is a failure like another.
//!
//! **Beats come first.** The loop says that it turns, has the lease proven and ticks before it
//! hears how tasks ended, however many do; and what it does at each end does not grow with what
//! waits ([`queue`]).
//!
//! **Stopping** ([`stopping`]): the token is cancelled, jobs see it at their next batch boundary,
//! nothing new starts. What has not ended within `DATAFLOW_SHUTDOWN_TIMEOUT` is dropped, which
//! costs its connections, and the servers roll back. Then the log_sender is flushed.

mod failures;
mod following;
mod queue;
mod refresh;
mod starting;
mod startup;
mod stopping;
mod verifying;

use self::{
    failures::{FailedAttempt, FailureState},
    queue::WorkQueue,
    refresh::ControlRefresh,
    starting::RunningJobs,
    startup::start,
};
use crate::{
    config::Config,
    control::{self, Control, Generation, Lease, OpenErrors},
    error::{Error, Kind, Result},
    http,
    jobs::{
        Env, JobEnd,
        poll::{PollState, Polled},
    },
    metrics::Metrics,
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, Server, SyncType},
        name::Ident,
    },
    mssql::{
        pool::{PoolOptions, Pools},
        pool::{reservation::ServerConnections, sources::Sources},
    },
    supervisor,
    telemetry::{self, LogSender},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::{self, AbortHandle, JoinError, JoinHandle, JoinSet},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;

/// Connections to the destination that are not given as seats: control's and the lease's.
const RESERVED: usize = control::CONNECTIONS_MAX + control::LEASE_CONNECTIONS;

/// Idle connections are closed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Between two looks for log rows that are too old.
const RETIRE_INTERVAL: Duration = Duration::from_secs(600);

/// Batches of old log rows that one look deletes.
const RETIRE_BATCHES_MAX: usize = 100;

/// Between two words about a destination that is away.
const AWAY_REMINDER: Duration = Duration::from_secs(60);

/// Longest time that one attempt to start may take before a service manager loses patience.
const START_ATTEMPT_MAX: Duration = Duration::from_secs(120);

/// Between two proofs of the lease, at most; a look at the control tables is one too.
const PROOF_INTERVAL: Duration = Duration::from_secs(2);

/// How long writing down what ended may take when nothing else is left to do.
const RECORD_TIME_MAX: Duration = Duration::from_secs(5);

/// Between two beats of the loop, at most.
const BEAT: Duration = Duration::from_secs(1);

/// Runs until `shutdown` resolves. An error means that it could not start (or cannot go on);
/// everything else is logged and lived with.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<()> {
    conduct(config, shutdown, Mode::Forever).await.map(drop)
}

/// One tick: finds the work there is, does it, and returns whether all of it succeeded.
pub async fn run_once(config: Config, shutdown: impl Future<Output = ()>) -> Result<bool> {
    conduct(config, shutdown, Mode::Once).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Forever,
    Once,
}

async fn conduct(config: Config, shutdown: impl Future<Output = ()>, mode: Mode) -> Result<bool> {
    let metrics = Metrics::default();
    let (log_sender, writer) = telemetry::log_queue(metrics.clone());
    let dispatch = telemetry::subscriber(config.log_format, Some(log_sender.clone()));
    let work = async move {
        let watched = if mode == Mode::Forever { config.http } else { None };
        let env = env(config, metrics);
        let closing = CancellationToken::new();
        let watching = match watched {
            Some(address) => Some(watch(address, &env, &closing).await?),
            None => None,
        };
        let writing = writer.start(env.control.clone());
        let mut shutdown = std::pin::pin!(shutdown);
        let result = match start(&env, shutdown.as_mut()).await {
            Ok(true) => Ok(Daemon::new(env, log_sender, mode).go(shutdown).await),
            Ok(false) => Ok(true),
            Err(error) => Err(error),
        };
        writing.close().await;
        closing.cancel();
        if let Some(watching) = watching {
            // told to close as well
            let _ = watching.await;
        }
        result
    };
    work.with_subscriber(dispatch).await
}

/// Opens the door for those who watch.
async fn watch(
    address: SocketAddr,
    env: &Env,
    closing: &CancellationToken,
) -> Result<JoinHandle<()>> {
    let listener = http::listen(address).await?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!("health and metrics are at http://{address}/healthz, /readyz and /metrics");
    Ok(tokio::spawn(http::serve(listener, env.clone(), closing.clone()).with_current_subscriber()))
}

/// Has `work` done with an environment whose events reach the log tables and not stdout; for
/// commands that print what they do.
pub async fn aside<T>(mut config: Config, work: impl AsyncFnOnce(&Env) -> Result<T>) -> Result<T> {
    config.log_format = crate::config::LogFormat::Off;
    let metrics = Metrics::default();
    let (log_sender, writer) = telemetry::log_queue(metrics.clone());
    let dispatch = telemetry::subscriber(config.log_format, Some(log_sender));
    let work = async move {
        let env = env(config, metrics);
        let writing = writer.start(env.control.clone());
        let result = work(&env).await;
        let _ =
            tokio::time::timeout(RECORD_TIME_MAX, env.control.write_pending_completions()).await;
        writing.close().await;
        result
    };
    work.with_subscriber(dispatch).await
}

/// What jobs get, from what was configured.
fn env(config: Config, metrics: Metrics) -> Env {
    let behaviour = |connections_max: usize, deadlock_priority_low: bool| PoolOptions {
        connections_max,
        statement_timeout: config.statement_timeout,
        lock_timeout: config.lock_timeout,
        deadlock_priority_low,
        idle_timeout: IDLE_TIMEOUT,
    };
    let pools = Pools::new(config.dest.clone(), behaviour(config.dest_connections_max, false));
    let sources = Sources::new(behaviour(config.source_connections_max, true));
    Env {
        control: Control::new(pools.clone(), metrics.clone()),
        metrics,
        dest: ServerConnections::new(pools, RESERVED),
        sources,
        triggers: crate::jobs::full_sync::Triggers::default(),
        uncaptured: crate::jobs::uncaptured::UncapturedWarnings::default(),
        findings: crate::jobs::verify::KnownFindings::default(),
        generation: 0,
        cancel: CancellationToken::new(),
        config: Arc::new(config),
    }
}

/// A database of a source server: what is polled at a time.
type SourceDatabase = (ServerId, Ident);

/// What a task is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    ControlRefresh,
    Poll(SourceDatabase),
    Job(MappingId, SyncType),
    Verify(MappingId),
    /// A note in the control tables.
    Note,
    /// Deleting old log rows.
    Retire,
    /// Dropping staging tables that a last owner left.
    Sweep,
    /// Proving that the lease is still held.
    Proof,
}

/// How a task ended.
enum TaskResult {
    Looked(Box<ControlRefresh>),
    Polled {
        asked: Vec<Mapping>,
        memory: Box<PollState>,
        result: Result<Polled>,
    },
    /// `progressed`: it committed something, however it ended.
    Job {
        result: Result<JobEnd>,
        progressed: bool,
        began: Instant,
    },
    Verified(Result<()>),
    Noted(Result<()>),
    Swept,
    Proven(Result<Box<Lease>>),
}

struct Daemon {
    env: Env,
    log_sender: LogSender,
    mode: Mode,
    /// The service manager, where there is one.
    manager: supervisor::ServiceManager,
    tasks: JoinSet<TaskResult>,
    what: HashMap<task::Id, (Task, AbortHandle)>,
    /// Away while somebody looks or proves it; gone when it was lost.
    lease: Option<Lease>,
    /// When it was last proven.
    proven: Instant,
    proving: bool,
    /// A tick came while the lease was being proven, and follows that.
    tick_missed: bool,
    /// A control database without the heartbeat's tables was logged.
    no_heartbeat_logged: bool,
    /// The generation of the lock of each mapping that is this daemon's.
    generations: HashMap<MappingId, Generation>,
    /// What of this daemon's mappings is on its way to another one.
    leaving: HashSet<MappingId>,
    /// It does what one daemon has to do for all.
    leads: bool,
    /// What stops the work of one mapping.
    tokens: HashMap<MappingId, CancellationToken>,
    /// As of the last look.
    servers: HashMap<ServerId, Server>,
    /// As of the last look, and this daemon's.
    mappings: HashMap<MappingId, Mapping>,
    looking: bool,
    polling: HashSet<SourceDatabase>,
    /// How many of them at each source.
    polls_at: HashMap<ServerId, usize>,
    /// Places that are due, and wait until fewer of their source's are polled.
    polls_waiting: HashSet<SourceDatabase>,
    running: RunningJobs,
    /// Found by a poll, and not started yet.
    waiting: WorkQueue,
    verifying: HashSet<MappingId>,
    verify_queue: VecDeque<MappingId>,
    /// Verifications that could not reach a server, until the source is polled: the poll knows
    /// more.
    unsaid: HashMap<MappingId, Error>,
    /// The order in which mappings were last verified, also by processes before this one: the least
    /// was longest ago.
    verified: HashMap<MappingId, usize>,
    /// When row counts and columns were last compared.
    structure_at: HashMap<MappingId, Instant>,
    memories: HashMap<SourceDatabase, PollState>,
    failing: HashMap<MappingId, FailureState<Mapping>>,
    /// When work that committed something last ended.
    committed: HashMap<MappingId, Instant>,
    /// Servers that cannot be reached, or not be logged in to: one place of theirs is tried at a
    /// time.
    failing_servers: HashMap<ServerId, FailureState<Server>>,
    failing_places: HashMap<SourceDatabase, FailureState<Server>>,
    /// Unresolved errors stand in error_logs.
    troubled: OpenErrors,
    /// What was told of trigger columns that cannot be asked.
    trigger_faults: HashMap<MappingId, String>,
    /// Rejected rows that were told of.
    rejected: HashMap<MappingId, String>,
    logins: HashMap<ServerId, u64>,
    control_away: Option<Instant>,
    /// The destination refuses the login: how often in a row, and until when nobody asks again.
    refused: Option<(u32, Instant)>,
    /// Mappings without an unresolved word that a verification could not run, and `None` while the
    /// control tables can be read.
    settled: HashSet<Option<MappingId>>,
    /// Nothing failed so far.
    well: bool,
    ticked: bool,
}

impl Daemon {
    fn new(env: Env, log_sender: LogSender, mode: Mode) -> Self {
        Daemon {
            manager: env.config.supervisor.line(),
            env,
            log_sender,
            mode,
            tasks: JoinSet::new(),
            what: HashMap::new(),
            lease: None,
            proven: Instant::now(),
            proving: false,
            tick_missed: false,
            no_heartbeat_logged: false,
            generations: HashMap::new(),
            leaving: HashSet::new(),
            leads: false,
            tokens: HashMap::new(),
            servers: HashMap::new(),
            mappings: HashMap::new(),
            looking: false,
            polling: HashSet::new(),
            polls_at: HashMap::new(),
            polls_waiting: HashSet::new(),
            running: RunningJobs::default(),
            waiting: WorkQueue::default(),
            verifying: HashSet::new(),
            verify_queue: VecDeque::new(),
            unsaid: HashMap::new(),
            verified: HashMap::new(),
            structure_at: HashMap::new(),
            memories: HashMap::new(),
            failing: HashMap::new(),
            committed: HashMap::new(),
            failing_servers: HashMap::new(),
            failing_places: HashMap::new(),
            troubled: OpenErrors::default(),
            trigger_faults: HashMap::new(),
            rejected: HashMap::new(),
            logins: HashMap::new(),
            control_away: None,
            refused: None,
            settled: HashSet::new(),
            well: true,
            ticked: false,
        }
    }

    /// The loop. Returns whether nothing failed.
    async fn go(mut self, mut shutdown: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        let mut timers = Timers::new(&self);
        self.manager.ready();
        while let Some(event) = self.next(&mut timers, shutdown.as_mut()).await {
            match event {
                Event::Beat => self.beat(),
                Event::Proof => self.prove(),
                Event::Tick => {
                    self.ticked = true;
                    self.tick();
                }
                Event::Verify => self.verify_tick(),
                Event::Retire => self.retire(),
                Event::TaskResult(ended) => self.hear(ended),
            }
            if self.mode == Mode::Once && self.ticked && self.tasks.is_empty() {
                break;
            }
        }
        self.drain().await;
        self.well
    }

    /// What comes next; `None`: asked to stop. What has its time goes before ends of tasks, of
    /// which there may always be one more.
    async fn next(
        &mut self,
        timers: &mut Timers,
        shutdown: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Event> {
        let ticks = self.mode == Mode::Forever || !self.ticked;
        let verifies = !self.env.config.verify_interval.is_zero() && self.mode == Mode::Forever;
        tokio::select! {
            biased;
            () = shutdown => None,
            _ = timers.beats.tick() => Some(Event::Beat),
            _ = timers.proofs.tick() => Some(Event::Proof),
            _ = timers.ticks.tick(), if ticks => Some(Event::Tick),
            _ = timers.verifications.tick(), if verifies => Some(Event::Verify),
            _ = timers.retirements.tick() => Some(Event::Retire),
            Some(ended) = self.tasks.join_next_with_id() => Some(Event::TaskResult(ended)),
        }
    }

    /// Short enough for the service manager's watchdog, which wants twice what it needs.
    fn beat_interval(&self) -> Duration {
        self.env
            .config
            .supervisor
            .watchdog
            .map_or(BEAT, |watchdog| (watchdog / 2).min(BEAT))
            .max(Duration::from_millis(1))
    }

    /// The loop turns: said to whoever wants to know.
    fn beat(&self) {
        let polls = self.polling.len();
        let of = |kind: SyncType| self.running.count(kind);
        let tasks = [
            ("cdc", of(SyncType::Cdc)),
            ("full_sync", of(SyncType::FullSync)),
            ("poll", polls),
            ("verification", self.verifying.len()),
        ];
        let parked = self.failing.values().filter(|failing| failing.parked_as.is_some()).count();
        let failing = self.failing.len() - parked;
        let well = self.mappings.len().saturating_sub(self.failing.len());
        let mappings = [
            ("well", well),
            ("failing", failing),
            ("parked", parked),
            ("rejected", self.rejected.len()),
        ];
        self.env.metrics.beat(std::time::Instant::now(), tasks.into(), mappings.into());
        if self.env.config.supervisor.watchdog.is_some() {
            self.manager.alive();
        }
    }

    fn spawn(&mut self, task: Task, future: impl Future<Output = TaskResult> + Send + 'static) {
        let handle = self.tasks.spawn(future.with_current_subscriber());
        self.what.insert(handle.id(), (task, handle));
    }

    fn stopping(&self) -> bool {
        self.env.cancel.is_cancelled()
    }

    /// Has log rows that are too old deleted.
    fn retire(&mut self) {
        let wanted = !self.env.config.log_retention.is_zero() && self.mode == Mode::Forever;
        if !wanted || !self.leads || self.what.values().any(|(task, _)| *task == Task::Retire) {
            return;
        }
        let env = self.env.clone();
        self.spawn(Task::Retire, async move {
            for _ in 0..RETIRE_BATCHES_MAX {
                match env.control.purge_logs(env.config.log_retention).await {
                    Ok(0) => break,
                    Ok(_) if env.stopping() => break,
                    Ok(_) => {}
                    Err(error) => return TaskResult::Noted(Err(error)),
                }
            }
            TaskResult::Noted(Ok(()))
        });
    }

    fn hear(&mut self, ended: std::result::Result<(task::Id, TaskResult), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some((task, _)) = self.what.remove(&id) else { return };
        // dropped on purpose, at the end
        if ended.as_ref().is_err_and(JoinError::is_cancelled) {
            return;
        }
        let panicked =
            || Error::new(Kind::Other, "the task panicked: this is a bug, please report it");
        match (task, ended) {
            (Task::ControlRefresh, Ok(TaskResult::Looked(look))) => self.looked(*look),
            (Task::ControlRefresh, _) => self.looked(ControlRefresh::lost(panicked())),
            (Task::Poll(place), Ok(TaskResult::Polled { asked, memory, result })) => {
                self.memories.insert(place.clone(), *memory);
                self.polled(place, asked, result);
            }
            (Task::Poll(place), _) => self.polled(place, Vec::new(), Err(panicked())),
            (Task::Job(mapping, sync_type), Ok(TaskResult::Job { result, progressed, began })) => {
                self.job_ended(mapping, sync_type, result, progressed, began);
            }
            (Task::Job(mapping, sync_type), _) => {
                self.job_ended(mapping, sync_type, Err(panicked()), false, Instant::now())
            }
            (Task::Verify(mapping), Ok(TaskResult::Verified(result))) => {
                self.verified(mapping, result)
            }
            (Task::Verify(mapping), _) => self.verified(mapping, Err(panicked())),
            (Task::Note | Task::Retire, Ok(TaskResult::Noted(Err(error)))) => {
                tracing::warn!(%error, "a note in the control tables was not written")
            }
            (Task::Proof, Ok(TaskResult::Proven(proven))) => self.lease_proven(proven),
            (Task::Proof, _) => self.lease_proven(Err(panicked())),
            (Task::Note | Task::Retire | Task::Sweep, _) => {}
        }
    }

    fn job_ended(
        &mut self,
        id: MappingId,
        sync_type: SyncType,
        result: Result<JobEnd>,
        progressed: bool,
        began: Instant,
    ) {
        self.running.remove(id);
        if progressed || matches!(result, Ok(JobEnd::Completed)) {
            self.wake_waiting(id);
        }
        match result {
            Ok(JobEnd::Completed) => {
                if sync_type == SyncType::FullSync {
                    // whatever was told of it by whomever, a gap or a trigger that cannot be reset,
                    // too
                    self.troubled.mappings.insert(id);
                }
                self.mapping_works(id);
                // CDC goes on from where the full sync ended.
                if sync_type == SyncType::FullSync && self.mode == Mode::Forever {
                    self.tick();
                }
            }
            Ok(JobEnd::Stopped) => {}
            Err(error) if !self.mappings.contains_key(&id) => {
                tracing::warn!(mapping_id = id.0, %error, "stopped: the mapping is not this daemon's any more");
            }
            Err(error) => {
                self.mapping_failed(
                    id,
                    &FailedAttempt { sync_type: Some(sync_type), progressed, began },
                    error,
                );
            }
        }
        self.start_waiting();
    }
}

/// What the loop turns for.
enum Event {
    Beat,
    Proof,
    Tick,
    Verify,
    Retire,
    TaskResult(std::result::Result<(task::Id, TaskResult), JoinError>),
}

struct Timers {
    beats: Interval,
    proofs: Interval,
    ticks: Interval,
    verifications: Interval,
    retirements: Interval,
}

impl Timers {
    fn new(daemon: &Daemon) -> Self {
        let config = &daemon.env.config;
        let now = Instant::now();
        let verify_interval = if config.verify_interval.is_zero() {
            Duration::from_secs(86_400)
        } else {
            config.verify_interval
        };
        Timers {
            beats: every(daemon.beat_interval(), now),
            proofs: every(PROOF_INTERVAL, now + PROOF_INTERVAL),
            ticks: every(config.check_interval, now),
            // the first verification follows the first syncs
            verifications: every(verify_interval, now + verify_interval),
            retirements: every(RETIRE_INTERVAL, now + RETIRE_INTERVAL),
        }
    }
}

fn every(period: Duration, first: Instant) -> Interval {
    let mut interval = tokio::time::interval_at(first, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    /// Short passes that ended one after the other once kept the beat, the lease's proof and the
    /// next tick waiting for as long as they did.
    #[tokio::test]
    async fn what_has_its_time_comes_before_ends_of_tasks_however_many_there_are() {
        let config = Config::from_vars([("DEST_PASS", "x")]).expect("a password is all it takes");
        let metrics = Metrics::default();
        let (log_sender, _writer) = telemetry::log_queue(metrics.clone());
        let mut daemon = Daemon::new(env(config, metrics), log_sender, Mode::Forever);
        for _ in 0..32 {
            daemon.spawn(Task::Note, async { TaskResult::Noted(Ok(())) });
        }
        while !daemon.what.values().all(|(_, handle)| handle.is_finished()) {
            task::yield_now().await;
        }
        let due = || every(Duration::from_secs(3_600), Instant::now());
        let mut timers = Timers {
            beats: due(),
            proofs: due(),
            ticks: due(),
            verifications: due(),
            retirements: due(),
        };
        // made later, it fires later: then all of them are due
        due().tick().await;
        let mut order = Vec::new();
        for _ in 0..6 {
            order.push(match daemon.next(&mut timers, pin!(std::future::pending())).await {
                Some(Event::Beat) => "beat",
                Some(Event::Proof) => "proof",
                Some(Event::Tick) => "tick",
                Some(Event::Verify) => "verify",
                Some(Event::Retire) => "retire",
                Some(Event::TaskResult(_)) => "ended",
                None => "stop",
            });
        }
        assert_eq!(order, ["beat", "proof", "tick", "verify", "retire", "ended"]);
    }
}
