//! The daemon and everything that it remembers: one struct per mapping ([`MappingState`]), per source
//! database ([`SourceDatabaseState`]) and per server ([`ServerState`]).

use super::{
    mapping_state::MappingState,
    queue::WorkQueue,
    source_state::{JobCounts, ServerState, SourceDatabase, SourceDatabaseState},
    task::{Task, TaskResult},
};
use crate::{
    control::{GONE_AFTER, Lease},
    jobs::Env,
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, SyncType},
    },
    supervisor::ServiceManager,
    telemetry::LogSender,
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::Future,
};
use tokio::{
    task::{self, AbortHandle, JoinSet},
    time::Instant,
};
use tracing::instrument::WithSubscriber;

/// How long a daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Forever,
    /// One tick and the work that it finds (`--once`).
    Once,
}

/// A daemon.
pub(super) struct Daemon {
    pub env: Env,
    pub log_sender: LogSender,
    pub mode: Mode,
    pub service_manager: ServiceManager,
    pub tasks: JoinSet<TaskResult>,
    /// What each of `tasks` is for.
    pub task_kinds: HashMap<task::Id, (Task, AbortHandle)>,
    pub lease: LeaseState,
    pub control: ControlState,
    pub mappings: HashMap<MappingId, MappingState>,
    pub databases: HashMap<SourceDatabase, SourceDatabaseState>,
    pub servers: HashMap<ServerId, ServerState>,
    /// Jobs that run, of all servers.
    pub jobs: JobCounts,
    pub queue: WorkQueue,
    pub verifications: VerificationRound,
    /// Nothing has failed so far: the result of `--once`.
    pub all_worked: bool,
    /// The first tick has come.
    pub ticked: bool,
}

/// The lease, and what depends on it.
pub(super) struct LeaseState {
    /// `None` while a task uses it, and after it was lost.
    pub lease: Option<Lease>,
    pub renewed_at: Instant,
    /// A [`Task::RenewLease`] has it.
    pub renewing: bool,
    /// A tick came while the lease was being renewed, and is made up for afterwards.
    pub tick_missed: bool,
    /// That the control database lacks the heartbeat's tables was logged.
    pub no_heartbeat_logged: bool,
    /// This daemon does what one of all daemons has to do: purge logs, resolve errors of deleted
    /// rows, warn of servers that no mapping uses.
    pub leads: bool,
}

/// The control tables, as far as they can be read.
pub(super) struct ControlState {
    /// A [`Task::Refresh`] runs.
    pub refreshing: bool,
    /// They cannot be read, and when that was last logged.
    pub unreadable_logged_at: Option<Instant>,
    pub login_refused: Option<RefusedLogin>,
    /// There may be an unresolved error about the control tables or the lease, also of a process
    /// before this one.
    pub error_open: bool,
}

/// The destination refuses the login. Trying it at every tick could lock the login.
#[derive(Clone, Copy)]
pub(super) struct RefusedLogin {
    /// Refusals in a row after the first.
    pub repeated: u32,
    pub retry_at: Instant,
}

/// Verifications that are still to come in this round.
#[derive(Default)]
pub(super) struct VerificationRound {
    pub queue: VecDeque<MappingId>,
    /// The number that the next verification to end gets (`VerificationState::turn`).
    pub next_turn: usize,
}

impl Daemon {
    pub fn new(env: Env, log_sender: LogSender, mode: Mode) -> Self {
        Daemon {
            service_manager: env.config.supervisor.connect(),
            env,
            log_sender,
            mode,
            tasks: JoinSet::new(),
            task_kinds: HashMap::new(),
            lease: LeaseState {
                lease: None,
                renewed_at: Instant::now(),
                renewing: false,
                tick_missed: false,
                no_heartbeat_logged: false,
                leads: false,
            },
            control: ControlState {
                refreshing: false,
                unreadable_logged_at: None,
                login_refused: None,
                error_open: true,
            },
            mappings: HashMap::new(),
            databases: HashMap::new(),
            servers: HashMap::new(),
            jobs: JobCounts::default(),
            queue: WorkQueue::default(),
            verifications: VerificationRound::default(),
            all_worked: true,
            ticked: false,
        }
    }

    /// Starts a task. Its end comes to the loop.
    pub fn spawn(&mut self, task: Task, future: impl Future<Output = TaskResult> + Send + 'static) {
        let handle = self.tasks.spawn(future.with_current_subscriber());
        self.task_kinds.insert(handle.id(), (task, handle));
    }

    pub fn stopping(&self) -> bool {
        self.env.cancel.is_cancelled()
    }

    /// Whether no other daemon can have marked this one as gone yet. After a pause of the process
    /// (it was stopped, its machine slept) nothing starts before the lease is renewed.
    pub fn lease_is_fresh(&self) -> bool {
        self.lease.renewed_at.elapsed() < GONE_AFTER
    }

    /// A mapping's row, if this daemon works on it.
    pub fn row(&self, id: MappingId) -> Option<&Mapping> {
        self.mappings.get(&id)?.row.as_ref()
    }

    /// A mapping's source table, for log lines.
    pub fn table_of(&self, id: MappingId) -> String {
        self.row(id).map_or_else(|| format!("mapping {id}"), |row| row.source.to_string())
    }

    /// A server's name, for log lines.
    pub fn server_name(&self, id: ServerId) -> String {
        let row = self.servers.get(&id).and_then(|state| state.row.as_ref());
        row.map_or_else(|| format!("server {id}"), |row| row.name.clone())
    }

    /// The mappings that this daemon works on, with their rows.
    pub fn rows(&self) -> impl Iterator<Item = (&Mapping, &MappingState)> {
        self.mappings.values().filter_map(|state| Some((state.row.as_ref()?, state)))
    }

    /// Whether a source is known to be unreachable.
    pub fn is_source_unreachable(&self, database: &SourceDatabase) -> bool {
        self.servers.get(&database.server).is_some_and(|state| state.failure.is_some())
            || self.databases.get(database).is_some_and(|state| state.failure.is_some())
    }

    /// The environment of work for one mapping: its token stops this mapping's work alone.
    pub fn env_for(&mut self, id: MappingId) -> Env {
        let state = self.mappings.entry(id).or_default();
        let cancel = state.cancel.get_or_insert_with(|| self.env.cancel.child_token()).clone();
        Env { cancel, generation: state.lock.unwrap_or_default(), ..self.env.clone() }
    }

    /// A job starts for a mapping whose work was queued.
    pub fn count_job_start(&mut self, id: MappingId, server: ServerId, sync_type: SyncType) {
        if self.mappings.entry(id).or_default().start_job(server, sync_type) {
            self.jobs.add(sync_type);
            self.servers.entry(server).or_default().jobs.add(sync_type);
        }
    }

    /// A mapping's job ended.
    pub fn count_job_end(&mut self, id: MappingId) {
        let Some(state) = self.mappings.get_mut(&id) else { return };
        let Some((server, sync_type)) = state.end_job() else { return };
        self.jobs.subtract(sync_type);
        if let Some(server) = self.servers.get_mut(&server) {
            server.jobs.subtract(sync_type);
        }
    }

    /// Forgets mappings, source databases and servers that this daemon does not work on (any more).
    pub fn prune(&mut self) {
        self.mappings.retain(|_, state| state.prune());
        let used: HashSet<SourceDatabase> =
            self.rows().map(|(row, _)| SourceDatabase::of(row)).collect();
        self.databases.retain(|database, state| state.prune(used.contains(database)));
        let used: HashSet<ServerId> = used.into_iter().map(|database| database.server).collect();
        self.servers.retain(|id, state| state.prune(used.contains(id)));
        let Daemon { env, mappings, verifications, .. } = self;
        let has_row = |id: &MappingId| mappings.get(id).is_some_and(|state| state.row.is_some());
        env.triggers.retain(has_row);
        env.metrics.retain(has_row);
        env.activity.retain(has_row);
        env.control.retain_cdc_sessions(has_row);
        env.findings.retain(has_row);
        verifications.queue.retain(has_row);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        activity::Activity,
        app,
        config::Config,
        daemon::source_state::PollPhase,
        metrics::Metrics,
        model::name::Ident,
        plan::{admission::Running, lifecycle::LifecycleEvent},
        telemetry,
    };

    /// A daemon that has read nothing yet.
    pub fn new_daemon() -> Daemon {
        let config = Config::from_vars([("DEST_PASS", "x")]).expect("a password is enough");
        let metrics = Metrics::default();
        let activity = Activity::new(0);
        let (log_sender, _writer) = telemetry::log_queue(metrics.clone(), activity.clone());
        Daemon::new(app::env(config, metrics, activity), log_sender, Mode::Forever)
    }

    fn start(daemon: &mut Daemon, id: i32, server: ServerId, sync_type: SyncType) {
        let state = daemon.mappings.entry(MappingId(id)).or_default();
        state.apply(LifecycleEvent::Queued(sync_type));
        daemon.count_job_start(MappingId(id), server, sync_type);
    }

    #[tokio::test]
    async fn jobs_are_counted_at_the_server_where_they_run() {
        let mut daemon = new_daemon();
        let (one, two) = (ServerId(1), ServerId(2));
        start(&mut daemon, 1, one, SyncType::FullSync);
        start(&mut daemon, 2, one, SyncType::Cdc);
        start(&mut daemon, 3, two, SyncType::Cdc);
        // it runs already
        start(&mut daemon, 2, two, SyncType::FullSync);
        daemon.servers.entry(one).or_default().polls = 4;
        let at = |daemon: &Daemon, server| daemon.jobs.at_server(daemon.servers.get(&server));
        assert_eq!(
            at(&daemon, one),
            Running {
                all: 3,
                full_syncs: 1,
                at_source: 2,
                full_syncs_at_source: 1,
                polls_at_source: 4
            }
        );
        assert_eq!(
            at(&daemon, two),
            Running {
                all: 3,
                full_syncs: 1,
                at_source: 1,
                full_syncs_at_source: 0,
                polls_at_source: 0
            }
        );
        for id in 1..=4 {
            daemon.count_job_end(MappingId(id));
        }
        daemon.count_job_end(MappingId(1));
        assert_eq!(at(&daemon, two), Running::default());
        assert_eq!(at(&daemon, one), Running { polls_at_source: 4, ..Running::default() });
    }

    #[tokio::test]
    async fn pruning_keeps_what_runs_and_what_is_owned() {
        let mut daemon = new_daemon();
        let server = ServerId(1);
        start(&mut daemon, 1, server, SyncType::FullSync);
        let token = daemon.env_for(MappingId(1)).cancel;
        daemon.mappings.entry(MappingId(2)).or_default().lock = Some(7);
        for id in [1, 2, 3] {
            let state = daemon.mappings.entry(MappingId(id)).or_default();
            (state.error_open, state.committed_at) = (true, Some(Instant::now()));
        }
        let database = SourceDatabase { server, name: Ident::new("Shop") };
        daemon.databases.entry(database).or_default().poll = PollPhase::Postponed;
        daemon.prune();
        let mut left: Vec<_> = daemon.mappings.iter().collect();
        left.sort_by_key(|(id, _)| **id);
        assert_eq!(left.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 2]);
        assert!(left.iter().all(|(_, state)| !state.error_open && state.committed_at.is_none()));
        assert!(!token.is_cancelled() && left[0].1.cancel.is_some());
        assert_eq!(left[1].1.lock, Some(7));
        assert!(daemon.databases.is_empty() && daemon.servers.contains_key(&server));
        daemon.count_job_end(MappingId(1));
        daemon.prune();
        assert!(daemon.servers.is_empty() && daemon.mappings.len() == 1);
    }
}
