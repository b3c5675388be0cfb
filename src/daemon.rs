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

mod owning;

use self::owning::Look;
use crate::{
    config::Config,
    control::{self, Control, Lease, Loaded, Troubled},
    error::{Error, Kind, Result},
    http,
    jobs::{
        Done, Env, cdc, full_sync,
        poll::{self, Memory, Polled, Work},
        verify,
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
    plan::retry::{self, Next, Policy},
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

/// What is said of a verification that came to no result; it is resolved by the next that does.
const VERIFICATION_FAILED: &str = "verification failed to run";

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
            Kind::Login if matches!(error.number, Some(4060 | 4064)) => {
                return Err(Error::new(error.kind, format!("the database {} cannot be opened: {}", control::DATABASE, error.message()))
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
    Polled { asked: Vec<MappingId>, memory: Box<Memory>, result: Result<Polled> },
    Job { result: Result<Done>, took: Duration },
    Verified(Result<()>),
    Noted(Result<()>),
}

/// A mapping, or a database of a source, that failed and has not worked since.
struct Failing<T> {
    attempts: u32,
    due: Instant,
    /// Parked until this looks different (or it is due).
    parked_as: Option<T>,
    /// What was said of it last.
    words: String,
    /// It waits for rows of a related table.
    waits: bool,
    /// It was called up because a related table's rows may have come: failing again does not count.
    woken: bool,
}

impl<T: PartialEq> Failing<T> {
    fn new() -> Self {
        Failing { attempts: 0, due: Instant::now(), parked_as: None, words: String::new(), waits: false, woken: false }
    }

    fn is_due(&self, now: Instant, looks: &T) -> bool {
        now >= self.due || self.parked_as.as_ref().is_some_and(|parked| parked != looks)
    }
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
    verifying: HashSet<MappingId>,
    verify_queue: VecDeque<MappingId>,
    /// The order in which mappings were last verified, also by processes before this one: the least was longest ago.
    verified: HashMap<MappingId, usize>,
    /// When row counts and columns were last compared.
    structure_at: HashMap<MappingId, Instant>,
    memories: HashMap<Place, Memory>,
    failing: HashMap<MappingId, Failing<Mapping>>,
    /// Servers that cannot be reached, or not be logged in to: one place of theirs is tried at a time.
    failing_servers: HashMap<ServerId, Failing<Server>>,
    failing_places: HashMap<Place, Failing<Server>>,
    /// Unresolved errors stand in error_logs.
    troubled: Troubled,
    /// Rejected rows that were told of.
    rejected: HashMap<MappingId, String>,
    logins: HashMap<ServerId, u64>,
    control_away: Option<Instant>,
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
            verifying: HashSet::new(),
            verify_queue: VecDeque::new(),
            verified: HashMap::new(),
            structure_at: HashMap::new(),
            memories: HashMap::new(),
            failing: HashMap::new(),
            failing_servers: HashMap::new(),
            failing_places: HashMap::new(),
            troubled: Troubled::default(),
            rejected: HashMap::new(),
            logins: HashMap::new(),
            control_away: None,
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
            (Task::Job(mapping, sync_type), Ok(Ended::Job { result, took })) => self.job_ended(mapping, sync_type, result, took),
            (Task::Job(mapping, sync_type), _) => self.job_ended(mapping, sync_type, Err(panicked()), Duration::ZERO),
            (Task::Verify(mapping), Ok(Ended::Verified(result))) => self.verified(mapping, result),
            (Task::Verify(mapping), _) => self.verified(mapping, Err(panicked())),
            (Task::Note | Task::Retire, Ok(Ended::Noted(Err(error)))) => {
                tracing::warn!(%error, "a note in the control tables was not written")
            }
            (Task::Note | Task::Retire, _) => {}
        }
    }

    /// New, changed and removed servers.
    fn follow_servers(&mut self, servers: &[Server]) {
        for notice in self.env.sources.update(servers) {
            for warning in &notice.warnings {
                tracing::warn!(server_id = notice.server.0, server = notice.name, "{warning}");
            }
            if let Some(error) = &notice.error {
                self.well = false;
                self.troubled.servers.insert(notice.server);
                tracing::error!(
                    server_id = notice.server.0,
                    error_type = error.kind.error_type(),
                    error_details = %details(error, 1, "left out until its row changes"),
                    %error,
                    "the server cannot be used"
                );
            }
        }
        let old = std::mem::take(&mut self.servers);
        self.servers = servers.iter().map(|server| (server.id, server.clone())).collect();
        for (id, server) in &self.servers {
            if old.get(id).is_some_and(|old| old != server) {
                self.logins.remove(id);
                self.memories.retain(|place, _| place.0 != *id);
                self.failing_places.retain(|place, _| place.0 != *id);
                self.failing_servers.remove(id);
                // what its mappings wait for may be mended by that
                let parked = self.failing.iter_mut().filter(|(_, failing)| failing.parked_as.is_some());
                for (_, failing) in parked.filter(|(mapping, _)| self.mappings.get(mapping).is_some_and(|mapping| mapping.server == *id)) {
                    failing.due = Instant::now();
                }
            }
        }
    }

    /// Rows that cannot be used are told of once, until they say something else.
    fn follow_rejected(&mut self, loaded: &Loaded) {
        let mut rejected = HashMap::new();
        for row in &loaded.rejected {
            let words = row.error.to_string();
            if self.rejected.get(&row.mapping) != Some(&words) {
                self.well = false;
                self.troubled.mappings.insert(row.mapping);
                tracing::error!(
                    mapping_id = row.mapping.0,
                    server_id = row.server.0,
                    error_type = row.error.kind.error_type(),
                    error_details = %details(&row.error, 1, "left out until its row changes"),
                    error = %row.error,
                    "the mapping is left out"
                );
            }
            rejected.insert(row.mapping, words);
        }
        self.rejected = rejected;
    }

    /// What concerns nobody any more.
    fn forget(&mut self) {
        let Daemon { mappings, servers, .. } = self;
        self.failing.retain(|id, _| mappings.contains_key(id));
        self.verified.retain(|id, _| mappings.contains_key(id));
        self.structure_at.retain(|id, _| mappings.contains_key(id));
        self.settled.retain(|id| id.is_none_or(|id| mappings.contains_key(&id)));
        self.verify_queue.retain(|id| mappings.contains_key(id));
        self.logins.retain(|id, _| servers.contains_key(id));
        self.env.vitals.retain(&mappings.keys().copied().collect());
        let places: HashSet<Place> = mappings.values().map(place_of).collect();
        self.memories.retain(|place, _| places.contains(place));
        self.failing_places.retain(|place, _| places.contains(place));
        self.failing_servers.retain(|server, _| places.iter().any(|place| place.0 == *server));
    }

    /// Polls every database that has mappings whose turn it is.
    fn poll_due(&mut self) {
        let now = Instant::now();
        let mut due: HashMap<Place, Vec<Mapping>> = HashMap::new();
        for mapping in self.mappings.values() {
            if self.running.contains_key(&mapping.id)
                || self.leaving.contains(&mapping.id)
                || self.failing.get(&mapping.id).is_some_and(|f| !f.is_due(now, &looks(mapping)))
            {
                continue;
            }
            due.entry(place_of(mapping)).or_default().push(mapping.clone());
        }
        for (place, mut mappings) in due {
            let Some(server) = self.servers.get(&place.0) else { continue };
            // A string that cannot be read was told of when it came.
            if self.polling.contains(&place)
                || self.env.sources.house(place.0).is_err()
                || self.failing_places.get(&place).is_some_and(|f| !f.is_due(now, server))
                || !self.may_try(&place, server, now)
            {
                continue;
            }
            mappings.sort_by_key(|mapping| mapping.id);
            self.polling.insert(place.clone());
            let mut memory = self.memories.remove(&place).unwrap_or_default();
            let env = self.env.clone();
            self.spawn(Task::Poll(place.clone()), async move {
                let result = poll::poll(&env, place.0, &place.1, &mappings, &mut memory).await;
                Ended::Polled { asked: mappings.iter().map(|mapping| mapping.id).collect(), memory: Box::new(memory), result }
            });
        }
        self.env.vitals.ticked();
    }

    /// Whether its server can be reached, as far as is known, or this is the one attempt to find out.
    fn may_try(&self, place: &Place, server: &Server, now: Instant) -> bool {
        match self.failing_servers.get(&place.0) {
            None => true,
            Some(failing) => failing.is_due(now, server) && !self.polling.iter().any(|other| other.0 == place.0),
        }
    }

    fn polled(&mut self, place: Place, asked: Vec<MappingId>, result: Result<Polled>) {
        self.polling.remove(&place);
        let polled = match result {
            Ok(polled) => polled,
            Err(error) => return self.place_failed(place, error),
        };
        self.place_works(&place);
        let mut busy: HashSet<MappingId> = HashSet::new();
        for (mapping, error) in polled.failed {
            busy.insert(mapping);
            self.mapping_failed(mapping, None, error);
        }
        for (mapping, work) in polled.work {
            busy.insert(mapping);
            self.start_job(mapping, work);
        }
        for mapping in asked.into_iter().filter(|mapping| !busy.contains(mapping)) {
            // Nothing to do for it, so nothing is wrong with it.
            self.mapping_works(mapping);
        }
    }

    /// A database that cannot be polled: one word about it, and a longer wait each time. Where it is the server, one word for all of its
    /// databases.
    fn place_failed(&mut self, place: Place, error: Error) {
        if error.kind == Kind::Cancelled {
            return;
        }
        self.well = false;
        let Some(server) = self.servers.get(&place.0).cloned() else { return };
        let interval = self.env.config.check_interval;
        // 4060 and 4064 are of one database
        let whole = error.kind == Kind::Connection || (error.kind == Kind::Login && !matches!(error.number, Some(4060 | 4064)));
        let failing = if whole {
            self.failing_servers.entry(place.0).or_insert_with(Failing::new)
        } else {
            self.failing_places.entry(place.clone()).or_insert_with(Failing::new)
        };
        // An attempt that began with others, before the first of them failed.
        if failing.attempts > 0 && Instant::now() < failing.due {
            return;
        }
        failing.attempts += 1;
        failing.due = Instant::now() + retry::back_off(failing.attempts - 1, interval);
        // Not until the wait is over, unless somebody changes the row.
        failing.parked_as = Some(server.clone());
        let attempts = failing.attempts;
        if failing.words != error.message() {
            failing.words = error.message().to_owned();
            tracing::error!(
                server_id = place.0.0,
                error_type = error.kind.error_type(),
                error_details = %details(&error, attempts, "tried again, ever less often, down to once a minute"),
                retry_count = attempts,
                server = server.name,
                database = place.1.as_str(),
                %error,
                "{}", if whole { "the source server cannot be reached" } else { "the source database cannot be polled" }
            );
            self.troubled.servers.insert(place.0);
        }
    }

    fn place_works(&mut self, place: &Place) {
        if self.failing_servers.remove(&place.0).is_some() {
            tracing::info!(server_id = place.0.0, "the source server can be reached again");
        }
        if self.failing_places.remove(place).is_some() {
            tracing::info!(server_id = place.0.0, database = place.1.as_str(), "the source can be polled again");
        }
        let server_works = !self.failing_places.keys().any(|(server, _)| *server == place.0);
        if server_works && self.troubled.servers.remove(&place.0) {
            self.journal.resolve_server(place.0);
        }
        let Ok(house) = self.env.sources.house(place.0) else { return };
        let logins = house.pools().logins();
        if self.logins.insert(place.0, logins) != Some(logins) {
            let control = self.env.control.clone();
            let server = place.0;
            self.spawn(Task::Note, async move { Ended::Noted(control.connected(server).await) });
        }
    }

    fn start_job(&mut self, id: MappingId, work: Work) {
        let Some(mapping) = self.mappings.get(&id).cloned() else { return };
        let sync_type = match work {
            Work::FullSync { .. } => SyncType::FullSync,
            Work::Cdc(_) => SyncType::Cdc,
        };
        // A verification may wait a minute for proof about rows that the full sync brings anyway.
        if sync_type == SyncType::FullSync
            && self.verifying.contains(&id)
            && !self.running.contains_key(&id)
            && let Some(token) = self.tokens.remove(&id)
        {
            token.cancel();
        }
        // What does not start now is found again at the next tick. A verification must not see a table being swapped.
        if self.stopping()
            || self.leaving.contains(&id)
            || self.running.contains_key(&id)
            || self.running.len() >= self.env.config.tasks_max
            || (sync_type == SyncType::FullSync && self.verifying.contains(&id))
        {
            return;
        }
        self.running.insert(id, sync_type);
        let failed_before = self.failed_before(id);
        let env = self.env_for(id);
        let started = Instant::now();
        self.spawn(Task::Job(id, sync_type), async move {
            let result = match work {
                Work::FullSync { trigger } => full_sync::run(&env, &mapping, trigger).await,
                Work::Cdc(pass) => cdc::run(&env, &mapping, *pass, failed_before).await,
            };
            Ended::Job { result, took: started.elapsed() }
        });
    }

    fn job_ended(&mut self, id: MappingId, sync_type: SyncType, result: Result<Done>, took: Duration) {
        self.running.remove(&id);
        match result {
            Ok(Done::Completed) => {
                if sync_type == SyncType::FullSync {
                    // whatever was told of it by whomever, a gap or a trigger that cannot be reset, too
                    self.troubled.mappings.insert(id);
                }
                self.mapping_works(id);
                self.wake_waiting(id);
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
                tracing::debug!(mapping_id = id.0, took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "job failed");
                self.mapping_failed(id, Some(sync_type), error);
            }
        }
    }

    /// Failures of a mapping in a row.
    fn failed_before(&self, id: MappingId) -> u32 {
        self.failing.get(&id).map_or(0, |failing| failing.attempts.saturating_sub(u32::from(failing.woken)))
    }

    /// Rows were committed to a destination database: whoever waits there for a related table's rows is tried again at once.
    fn wake_waiting(&mut self, id: MappingId) {
        let Some(database) = self.mappings.get(&id).map(|mapping| mapping.dest.database.clone()) else { return };
        let mut woken = false;
        for (other, failing) in &mut self.failing {
            let related = self.mappings.get(other).is_some_and(|mapping| mapping.dest.database == database);
            if *other != id && failing.waits && related {
                failing.due = Instant::now();
                failing.woken = true;
                woken = true;
            }
        }
        if woken && self.mode == Mode::Forever {
            self.tick();
        }
    }

    fn mapping_works(&mut self, id: MappingId) {
        if self.failing.remove(&id).is_some() {
            tracing::info!(mapping_id = id.0, "the mapping works again");
        }
        // A trigger column that could not be reset is an error until it was seen 0: until then it is ignored.
        if !self.env.triggers.is_refused(id) && self.troubled.mappings.remove(&id) {
            self.journal.resolve(id);
        }
    }

    fn mapping_failed(&mut self, id: MappingId, sync_type: Option<SyncType>, error: Error) {
        let config = &self.env.config;
        let policy = Policy { attempts_max: config.retry_attempts, delay: config.retry_delay, interval: config.check_interval };
        let attempts = self.failed_before(id) + 1;
        let next = retry::next(error.kind, attempts, &policy);
        let (wait, park) = match next {
            Next::Nothing => return,
            Next::Retry(wait) | Next::Later(wait) => (wait, false),
            Next::Park => (config.parked_interval, true),
        };
        self.well = false;
        let server = self.mappings.get(&id).map(|mapping| mapping.server.0);
        let sync_type = sync_type.map(SyncType::as_str);
        let words = error.to_string();
        match next {
            Next::Retry(_) => tracing::warn!(
                mapping_id = id.0,
                sync_type,
                retry_count = attempts,
                attempts_max = policy.attempts_max,
                %error,
                "failed, and will be tried again"
            ),
            _ => {
                let then = if park {
                    "parked: tried again now and then (DATAFLOW_PARKED_INTERVAL), and when its row or its server's row changes"
                } else {
                    "tried again later"
                };
                tracing::error!(
                    mapping_id = id.0,
                    server_id = server,
                    sync_type,
                    error_type = error.kind.error_type(),
                    error_details = %details(&error, attempts, then),
                    retry_count = attempts,
                    parked = park,
                    %error,
                    "failed"
                );
                self.troubled.mappings.insert(id);
            }
        }
        let parked_as = if park { self.mappings.get(&id).map(looks) } else { None };
        let waits = error.kind == Kind::ForeignKey;
        self.failing.insert(id, Failing { attempts, due: Instant::now() + wait, parked_as, words, waits, woken: false });
    }

    /// Time to verify: every mapping, the one whose turn was longest ago first. A round that is not done yet goes on.
    fn verify_tick(&mut self) {
        if self.verify_queue.is_empty() && self.verifying.is_empty() {
            let mut queue: Vec<MappingId> = self.mappings.keys().copied().collect();
            queue.sort_by_key(|id| (self.verified.get(id).copied(), *id));
            self.verify_queue = queue.into();
        }
        self.verify_more();
    }

    fn verify_more(&mut self) {
        // Mappings in a full sync, or about to be, have their turn in a later round: they differ by right.
        while !self.stopping() && self.verifying.len() < self.env.config.verify_concurrency {
            let Some(id) = self.verify_queue.pop_front() else { return };
            let Some(mapping) = self.mappings.get(&id).cloned() else { continue };
            let syncs = self.running.get(&id) == Some(&SyncType::FullSync) || mapping.full_sync_requested || mapping.full_sync_pending;
            if syncs || self.leaving.contains(&id) || self.env.sources.house(mapping.server).is_err() {
                continue;
            }
            self.verifying.insert(id);
            let env = self.env_for(id);
            let stands_still = self.failing.contains_key(&id);
            let interval = self.env.config.verify_structure_interval;
            let structure = !interval.is_zero() && !stands_still && self.structure_at.get(&id).is_none_or(|at| at.elapsed() >= interval);
            if structure {
                self.structure_at.insert(id, Instant::now());
            }
            self.spawn(Task::Verify(id), async move { Ended::Verified(verify_one(&env, &mapping, stands_still, structure).await) });
        }
    }

    fn verified(&mut self, id: MappingId, result: Result<()>) {
        self.verifying.remove(&id);
        let turn = self.verified.values().max().map_or(0, |last| last + 1);
        self.verified.insert(id, turn);
        if result.is_ok() && self.settled.insert(Some(id)) {
            self.journal.resolve_words(Some(id), VERIFICATION_FAILED);
        }
        // what is wrong with a mapping that fails was said when it failed
        if let Err(error) = result
            && error.kind != Kind::Cancelled
            && self.mappings.contains_key(&id)
            && !self.failing.contains_key(&id)
        {
            let error_type = match error.kind.error_type() {
                "SYNC" | "OTHER" => "VERIFICATION",
                other => other,
            };
            tracing::error!(
                mapping_id = id.0,
                sync_type = SyncType::Verification.as_str(),
                error_type,
                error_details = %details(&error, 1, "tried again at the next verification"),
                %error,
                "{VERIFICATION_FAILED}"
            );
            self.settled.remove(&Some(id));
        }
        self.verify_more();
    }
}

/// A mapping's turn: its rows, and now and then its columns and the number of its rows.
async fn verify_one(env: &Env, mapping: &Mapping, stands_still: bool, structure: bool) -> Result<()> {
    if structure {
        verify::schema(env, mapping).await?;
    }
    verify::run(env, mapping, verify::Scope::Next { stands_still }, &mut |_, _| {}).await?;
    if structure {
        verify::row_count(env, mapping).await?;
    }
    Ok(())
}

fn place_of(mapping: &Mapping) -> Place {
    (mapping.server, mapping.source.database.clone())
}

/// A mapping without what changes by itself: what an operator would have to touch.
fn looks(mapping: &Mapping) -> Mapping {
    Mapping { last_cdc_lsn: None, full_sync_pending: false, ..mapping.clone() }
}

/// What error_details says: what it is, what happens next, and what people can do.
fn details(error: &Error, attempts: u32, then: &str) -> String {
    let which = if attempts == 1 { "the first".to_owned() } else { format!("{attempts} failures") };
    let advice = error.hint.as_deref().unwrap_or_else(|| error.kind.advice());
    format!("kind {:?}; {which} in a row; {then}; what to do: {advice}", error.kind)
}

fn every(period: Duration, first: Instant) -> Interval {
    let mut interval = tokio::time::interval_at(first, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}
