//! Conducting: looks for work every so often, and has it done.
//!
//! **A tick** loads the control tables and has this daemon's share of the mappings ([`owning`]); each source database with mappings that are due gets one poll; each mapping with work gets one task.
//! Nothing here waits for anything: loads, polls, jobs and verifications are tasks in one `JoinSet`, and the loop only starts them and hears
//! how they ended. So a slow mapping delays nobody, and a tick that comes while its predecessor still loads is skipped, not stacked. A mapping
//! is never twice among the running, a database never twice among the polled.
//!
//! **A failure** is logged here, once, and [`crate::plan::retry`] says when its mapping is due again. A server that cannot be reached is
//! one failure, not one per mapping. A task that panics is a failure like another.
//!
//! **Stopping**: the token is cancelled, jobs see it at their next batch boundary, nothing new starts. What has not ended within
//! `DATAFLOW_SHUTDOWN_TIMEOUT` is dropped, which costs its connections, and the servers roll back. Then the journal is flushed.

mod failing;
mod following;
mod owning;
mod starting;
mod verifying;

use self::{
    failing::{Attempt, Failing},
    owning::Look,
    starting::Waiting,
};
use crate::{
    config::Config,
    control::{self, Control, Lease, Troubled},
    error::{Error, Kind, Result},
    http,
    jobs::{
        Done, Env,
        poll::{Memory, Polled},
    },
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, Server, SyncType},
        name::Ident,
    },
    mssql::{
        pool::{Behaviour, Pools},
        seats::House,
        sources::Sources,
    },
    plan::retry,
    supervisor,
    telemetry::{self, Journal},
    vitals::Vitals,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::{self, JoinError, JoinHandle, JoinSet},
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

/// Between two beats of the loop, at most.
const BEAT: Duration = Duration::from_secs(1);

/// Runs until `shutdown` resolves. An error means that it could not start (or cannot go on); everything else is logged and lived with.
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
    let vitals = Vitals::default();
    let (journal, writer) = telemetry::journal(vitals.clone());
    let dispatch = telemetry::subscriber(config.log_format, Some(journal.clone()));
    let work = async move {
        let watched = if mode == Mode::Forever { config.http } else { None };
        let env = env(config, vitals);
        let closing = CancellationToken::new();
        let watching = match watched {
            Some(address) => Some(watch(address, &env, &closing).await?),
            None => None,
        };
        let writing = tokio::spawn(writer.run(env.control.clone(), closing.clone()).with_current_subscriber());
        let mut shutdown = std::pin::pin!(shutdown);
        let result = match start(&env, shutdown.as_mut()).await {
            Ok(true) => Ok(Daemon::new(env, journal, mode).go(shutdown).await),
            Ok(false) => Ok(true),
            Err(error) => Err(error),
        };
        closing.cancel();
        // It bounds itself in time; if it panicked, there is nothing left to write with.
        let _ = writing.await;
        if let Some(watching) = watching {
            // told to close as well
            let _ = watching.await;
        }
        result
    };
    work.with_subscriber(dispatch).await
}

/// Opens the door for those who watch.
async fn watch(address: SocketAddr, env: &Env, closing: &CancellationToken) -> Result<JoinHandle<()>> {
    let listener = http::listen(address).await?;
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!("health and metrics are at http://{address}/healthz, /readyz and /metrics");
    Ok(tokio::spawn(http::serve(listener, env.clone(), closing.clone()).with_current_subscriber()))
}

/// Has `work` done with an environment whose events reach the log tables and not stdout; for commands that print what they do.
pub async fn aside<T>(mut config: Config, work: impl AsyncFnOnce(&Env) -> Result<T>) -> Result<T> {
    config.log_format = crate::config::LogFormat::Off;
    let vitals = Vitals::default();
    let (journal, writer) = telemetry::journal(vitals.clone());
    let dispatch = telemetry::subscriber(config.log_format, Some(journal));
    let work = async move {
        let env = env(config, vitals);
        let closing = CancellationToken::new();
        let writing = tokio::spawn(writer.run(env.control.clone(), closing.clone()).with_current_subscriber());
        let result = work(&env).await;
        env.control.finish_late().await;
        closing.cancel();
        // It bounds itself in time; if it panicked, there is nothing left to write with.
        let _ = writing.await;
        result
    };
    work.with_subscriber(dispatch).await
}

/// What jobs get, from what was configured.
fn env(config: Config, vitals: Vitals) -> Env {
    let behaviour = |connections_max: usize, deadlock_priority_low: bool| Behaviour {
        connections_max,
        statement_timeout: config.statement_timeout,
        lock_timeout: config.lock_timeout,
        deadlock_priority_low,
        idle_timeout: IDLE_TIMEOUT,
    };
    let pools = Pools::new(config.dest.clone(), behaviour(config.dest_connections_max, false));
    let sources = Sources::new(behaviour(config.source_connections_max, true));
    Env {
        control: Control::new(pools.clone(), vitals.clone()),
        vitals,
        dest: House::new(pools, RESERVED),
        sources,
        triggers: crate::jobs::full_sync::Triggers::default(),
        uncaptured: crate::jobs::uncaptured::Told::default(),
        findings: crate::jobs::verify::Findings::default(),
        cancel: CancellationToken::new(),
        config: Arc::new(config),
    }
}

/// Waits for the destination. `false`: asked to stop meanwhile.
async fn start(env: &Env, mut shutdown: std::pin::Pin<&mut impl Future<Output = ()>>) -> Result<bool> {
    let mut attempts = 0;
    let mut told: Option<Instant> = None;
    loop {
        let error = match prepare(env).await {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        match error.kind {
            Kind::Connection | Kind::Timeout | Kind::Busy | Kind::LockTimeout | Kind::Deadlock => {}
            Kind::Database if matches!(error.number, Some(4060 | 4064)) => {
                return Err(Error::new(error.kind, format!("the database {} cannot be opened: {}", control::DATABASE, error.message()))
                    .with_number(error.number.unwrap_or(4060))
                    .with_hint("If it is not there yet, run `dbaops-dataflow init`"));
            }
            _ => return Err(error),
        }
        attempts += 1;
        if told.is_none_or(|told| told.elapsed() >= AWAY_REMINDER) {
            tracing::warn!(%error, attempts, "waiting for the destination server");
            told = Some(Instant::now());
        }
        let pause = retry::back_off(attempts - 1, Duration::from_secs(1));
        env.config.supervisor.line().waiting("waiting for the destination server", pause + START_ATTEMPT_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.as_mut() => return Ok(false),
        }
    }
}

/// The first words with the control database.
async fn prepare(env: &Env) -> Result<()> {
    env.control.load().await?;
    for warning in &env.config.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), destination = env.config.dest.place(), "started");
    Ok(())
}

/// A database of a source server: what is polled at a time.
type Place = (ServerId, Ident);

/// What a task is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    Look,
    Poll(Place),
    Job(MappingId, SyncType),
    Verify(MappingId),
    /// A note in the control tables.
    Note,
    /// Deleting old log rows.
    Retire,
}

/// How a task ended.
enum Ended {
    Looked(Box<Look>),
    Polled {
        asked: Vec<Mapping>,
        memory: Box<Memory>,
        result: Result<Polled>,
    },
    /// `progressed`: it committed something, however it ended.
    Job {
        result: Result<Done>,
        progressed: bool,
        began: Instant,
    },
    Verified(Result<()>),
    Noted(Result<()>),
}

struct Daemon {
    env: Env,
    journal: Journal,
    mode: Mode,
    /// The service manager, where there is one.
    manager: supervisor::Line,
    tasks: JoinSet<Ended>,
    what: HashMap<task::Id, Task>,
    /// Away while somebody looks; gone when it was lost.
    lease: Option<Lease>,
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
    polling: HashSet<Place>,
    running: HashMap<MappingId, SyncType>,
    /// At which source each of them runs.
    running_at: HashMap<MappingId, ServerId>,
    /// Found by a poll, and not started yet.
    waiting: VecDeque<Waiting>,
    verifying: HashSet<MappingId>,
    verify_queue: VecDeque<MappingId>,
    /// Verifications that could not reach a server, until the source is polled: the poll knows more.
    unsaid: HashMap<MappingId, Error>,
    /// The order in which mappings were last verified, also by processes before this one: the least was longest ago.
    verified: HashMap<MappingId, usize>,
    /// When row counts and columns were last compared.
    structure_at: HashMap<MappingId, Instant>,
    memories: HashMap<Place, Memory>,
    failing: HashMap<MappingId, Failing<Mapping>>,
    /// When work that committed something last ended.
    committed: HashMap<MappingId, Instant>,
    /// Servers that cannot be reached, or not be logged in to: one place of theirs is tried at a time.
    failing_servers: HashMap<ServerId, Failing<Server>>,
    failing_places: HashMap<Place, Failing<Server>>,
    /// Unresolved errors stand in error_logs.
    troubled: Troubled,
    /// What was told of trigger columns that cannot be asked.
    trigger_faults: HashMap<MappingId, String>,
    /// Rejected rows that were told of.
    rejected: HashMap<MappingId, String>,
    logins: HashMap<ServerId, u64>,
    control_away: Option<Instant>,
    /// The destination refuses the login: how often in a row, and until when nobody asks again.
    refused: Option<(u32, Instant)>,
    /// Mappings without an unresolved word that a verification could not run, and `None` while the control tables can be read.
    settled: HashSet<Option<MappingId>>,
    /// Nothing failed so far.
    well: bool,
    ticked: bool,
}

impl Daemon {
    fn new(env: Env, journal: Journal, mode: Mode) -> Self {
        Daemon {
            manager: env.config.supervisor.line(),
            env,
            journal,
            mode,
            tasks: JoinSet::new(),
            what: HashMap::new(),
            lease: None,
            leaving: HashSet::new(),
            leads: false,
            tokens: HashMap::new(),
            servers: HashMap::new(),
            mappings: HashMap::new(),
            looking: false,
            polling: HashSet::new(),
            running: HashMap::new(),
            running_at: HashMap::new(),
            waiting: VecDeque::new(),
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
            troubled: Troubled::default(),
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
        let config = self.env.config.clone();
        let mut ticks = every(config.check_interval, Instant::now());
        // The first verification follows the first syncs.
        let verify_interval = if config.verify_interval.is_zero() { Duration::from_secs(86_400) } else { config.verify_interval };
        let verifies = !config.verify_interval.is_zero() && self.mode == Mode::Forever;
        let mut verify_ticks = every(verify_interval, Instant::now() + verify_interval);
        let mut retire_ticks = every(RETIRE_INTERVAL, Instant::now() + RETIRE_INTERVAL);
        let mut beats = every(self.beat_interval(), Instant::now());
        self.manager.ready();
        loop {
            tokio::select! {
                biased;
                () = shutdown.as_mut() => break,
                Some(ended) = self.tasks.join_next_with_id() => self.hear(ended),
                _ = ticks.tick(), if self.mode == Mode::Forever || !self.ticked => {
                    self.ticked = true;
                    self.tick();
                }
                _ = verify_ticks.tick(), if verifies => self.verify_tick(),
                _ = retire_ticks.tick() => self.retire(),
                _ = beats.tick() => self.beat(),
            }
            if self.mode == Mode::Once && self.ticked && self.tasks.is_empty() {
                break;
            }
        }
        self.drain().await;
        self.well
    }

    /// Lets what runs come to its end, and drops what does not in time.
    async fn drain(&mut self) {
        self.env.cancel.cancel();
        self.manager.stopping();
        let timeout = self.env.config.shutdown_timeout;
        if self.mode == Mode::Forever {
            tracing::info!(running = self.running.len(), "stopping");
        }
        let deadline = Instant::now() + timeout;
        let mut beats = every(self.beat_interval(), Instant::now());
        loop {
            tokio::select! {
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.hear(ended),
                    None => break,
                },
                _ = beats.tick() => self.beat(),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        if !self.tasks.is_empty() {
            tracing::warn!(tasks = self.tasks.len(), "stopped without waiting any longer for what was running");
            self.tasks.shutdown().await;
        }
        // What is out of time is found by whoever takes the mapping next.
        let _ = tokio::time::timeout_at(deadline, self.env.control.finish_late()).await;
        tracing::info!("stopped");
    }

    /// Short enough for the service manager's watchdog, which wants twice what it needs.
    fn beat_interval(&self) -> Duration {
        self.env.config.supervisor.watchdog.map_or(BEAT, |watchdog| (watchdog / 2).min(BEAT)).max(Duration::from_millis(1))
    }

    /// The loop turns: said to whoever wants to know.
    fn beat(&self) {
        let polls = self.polling.len();
        let of = |kind: SyncType| self.running.values().filter(|running| **running == kind).count();
        let tasks =
            [("cdc", of(SyncType::Cdc)), ("full_sync", of(SyncType::FullSync)), ("poll", polls), ("verification", self.verifying.len())];
        let parked = self.failing.values().filter(|failing| failing.parked_as.is_some()).count();
        let failing = self.failing.len() - parked;
        let well = self.mappings.len().saturating_sub(self.failing.len());
        let mappings = [("well", well), ("failing", failing), ("parked", parked), ("rejected", self.rejected.len())];
        self.env.vitals.beat(std::time::Instant::now(), tasks.into(), mappings.into());
        if self.env.config.supervisor.watchdog.is_some() {
            self.manager.alive();
        }
    }

    fn spawn(&mut self, task: Task, future: impl Future<Output = Ended> + Send + 'static) {
        let handle = self.tasks.spawn(future.with_current_subscriber());
        self.what.insert(handle.id(), task);
    }

    fn stopping(&self) -> bool {
        self.env.cancel.is_cancelled()
    }

    /// Has log rows that are too old deleted.
    fn retire(&mut self) {
        let wanted = !self.env.config.log_retention.is_zero() && self.mode == Mode::Forever;
        if !wanted || !self.leads || self.what.values().any(|task| *task == Task::Retire) {
            return;
        }
        let env = self.env.clone();
        self.spawn(Task::Retire, async move {
            for _ in 0..RETIRE_BATCHES_MAX {
                match env.control.retire(env.config.log_retention).await {
                    Ok(0) => break,
                    Ok(_) if env.stopping() => break,
                    Ok(_) => {}
                    Err(error) => return Ended::Noted(Err(error)),
                }
            }
            Ended::Noted(Ok(()))
        });
    }

    fn hear(&mut self, ended: std::result::Result<(task::Id, Ended), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(task) = self.what.remove(&id) else { return };
        let panicked = || Error::new(Kind::Other, "the task panicked: this is a bug, please report it");
        match (task, ended) {
            (Task::Look, Ok(Ended::Looked(look))) => self.looked(*look),
            (Task::Look, _) => self.looked(Look::lost(panicked())),
            (Task::Poll(place), Ok(Ended::Polled { asked, memory, result })) => {
                self.memories.insert(place.clone(), *memory);
                self.polled(place, asked, result);
            }
            (Task::Poll(place), _) => self.polled(place, Vec::new(), Err(panicked())),
            (Task::Job(mapping, sync_type), Ok(Ended::Job { result, progressed, began })) => {
                self.job_ended(mapping, sync_type, result, progressed, began);
            }
            (Task::Job(mapping, sync_type), _) => self.job_ended(mapping, sync_type, Err(panicked()), false, Instant::now()),
            (Task::Verify(mapping), Ok(Ended::Verified(result))) => self.verified(mapping, result),
            (Task::Verify(mapping), _) => self.verified(mapping, Err(panicked())),
            (Task::Note | Task::Retire, Ok(Ended::Noted(Err(error)))) => {
                tracing::warn!(%error, "a note in the control tables was not written")
            }
            (Task::Note | Task::Retire, _) => {}
        }
    }

    fn job_ended(&mut self, id: MappingId, sync_type: SyncType, result: Result<Done>, progressed: bool, began: Instant) {
        self.running.remove(&id);
        self.running_at.remove(&id);
        if progressed || matches!(result, Ok(Done::Completed)) {
            self.wake_waiting(id);
        }
        match result {
            Ok(Done::Completed) => {
                if sync_type == SyncType::FullSync {
                    // whatever was told of it by whomever, a gap or a trigger that cannot be reset, too
                    self.troubled.mappings.insert(id);
                }
                self.mapping_works(id);
                // CDC goes on from where the full sync ended.
                if sync_type == SyncType::FullSync && self.mode == Mode::Forever {
                    self.tick();
                }
            }
            Ok(Done::Stopped) => {}
            Err(error) if !self.mappings.contains_key(&id) => {
                tracing::warn!(mapping_id = id.0, %error, "stopped: the mapping is not this daemon's any more");
            }
            Err(error) => {
                self.mapping_failed(id, &Attempt { sync_type: Some(sync_type), progressed, began }, error);
            }
        }
        self.start_waiting();
    }
}

fn every(period: Duration, first: Instant) -> Interval {
    let mut interval = tokio::time::interval_at(first, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}
