//! What is remembered of a source server, and of each of its databases, which are polled one by one.

use super::failure::SourceFailure;
use crate::{
    jobs::poll::PollState,
    model::{
        id::ServerId,
        mapping::{Mapping, Server, SyncType},
        name::Ident,
    },
    plan::admission::Running,
};
use tokio::time::Instant;

/// The key of a source database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceDatabase {
    pub server: ServerId,
    pub name: Ident,
}

impl SourceDatabase {
    /// The database of a mapping's source table.
    pub fn of(mapping: &Mapping) -> Self {
        SourceDatabase { server: mapping.server, name: mapping.source.database.clone() }
    }
}

/// What is remembered of a source database.
#[derive(Default)]
pub(super) struct SourceDatabaseState {
    pub poll: PollPhase,
    /// What polls remember. A poll that runs has it.
    pub poll_state: PollState,
    pub failure: Option<SourceFailure>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PollPhase {
    #[default]
    Idle,
    /// Due, but too many databases of its server are polled.
    Postponed,
    Running,
}

/// What is remembered of a source server.
#[derive(Default)]
pub(super) struct ServerState {
    /// Its row as of the last refresh. `None`: deleted, disabled, or not used by this daemon.
    pub row: Option<Server>,
    /// It cannot be reached, or refuses the login: one of its databases is tried at a time.
    pub failure: Option<SourceFailure>,
    /// It may have unresolved errors in error_logs.
    pub error_open: bool,
    /// Logins so far when `last_connected_at` was last written.
    pub logins: Option<u64>,
    /// Databases that are being polled.
    pub polls: usize,
    pub jobs: JobCounts,
}

/// Jobs that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JobCounts {
    pub all: usize,
    pub full_syncs: usize,
}

impl JobCounts {
    pub fn add(&mut self, sync_type: SyncType) {
        self.all += 1;
        self.full_syncs += usize::from(sync_type == SyncType::FullSync);
    }

    pub fn subtract(&mut self, sync_type: SyncType) {
        self.all -= 1;
        self.full_syncs -= usize::from(sync_type == SyncType::FullSync);
    }

    /// As the limits need it for one server.
    pub fn at_server(self, server: Option<&ServerState>) -> Running {
        let (jobs, polls) = server.map_or_else(Default::default, |state| (state.jobs, state.polls));
        Running {
            all: self.all,
            full_syncs: self.full_syncs,
            at_source: jobs.all,
            full_syncs_at_source: jobs.full_syncs,
            polls_at_source: polls,
        }
    }
}

impl SourceDatabaseState {
    pub fn prune(&mut self, used: bool) -> bool {
        used || self.poll == PollPhase::Running
    }
}

impl ServerState {
    /// Whether one of its databases may be polled: the server can be reached as far as is known, or
    /// this is the one attempt to find out.
    pub fn may_be_polled(&self, row: &Server, now: Instant) -> bool {
        self.failure.as_ref().is_none_or(|failure| failure.is_due(now, row) && self.polls == 0)
    }

    pub fn prune(&mut self, used: bool) -> bool {
        if !used {
            self.failure = None;
        }
        if self.row.is_none() {
            (self.error_open, self.logins) = (false, None);
        }
        self.row.is_some() || self.polls > 0 || self.jobs.all > 0
    }
}
