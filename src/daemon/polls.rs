//! Polls: one task per source database that has mappings whose turn has come.

use super::{
    failure::is_unreachable,
    mapping_failures::FailedAttempt,
    source_state::{PollPhase, SourceDatabase},
    state::{Daemon, Mode},
    task::{Task, TaskResult},
};
use crate::{
    error::Result,
    jobs::poll::{self, PollState, Polled},
    model::{
        id::{MappingId, ServerId},
        mapping::Mapping,
    },
    plan::admission,
};
use std::collections::{HashMap, HashSet};
use tokio::time::Instant;

/// What happens to a database with mappings that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollDecision {
    Start,
    /// Too many databases of its server are polled: it is next when one of these polls ends.
    Postpone,
    /// It is polled already, or failed and is not due yet.
    Skip,
}

impl Daemon {
    /// Polls the databases that are `wanted` and have mappings that are due.
    pub fn poll_due(&mut self, wanted: impl Fn(&SourceDatabase) -> bool) {
        if !self.lease_is_fresh() {
            return;
        }
        let now = Instant::now();
        for (database, mappings) in self.due_mappings(wanted, now) {
            match self.decide_poll(&database, now) {
                PollDecision::Start => self.start_poll(database, mappings),
                PollDecision::Postpone => {
                    self.databases.entry(database).or_default().poll = PollPhase::Postponed;
                }
                PollDecision::Skip => {}
            }
        }
    }

    /// The mappings that are due, by database; databases that were postponed come first.
    fn due_mappings(
        &self,
        wanted: impl Fn(&SourceDatabase) -> bool,
        now: Instant,
    ) -> Vec<(SourceDatabase, Vec<Mapping>)> {
        let mut due: HashMap<SourceDatabase, Vec<Mapping>> = HashMap::new();
        for (row, state) in self.rows() {
            let database = SourceDatabase::of(row);
            if wanted(&database) && state.is_due(row, now) {
                due.entry(database).or_default().push(row.clone());
            }
        }
        let mut due: Vec<_> = due.into_iter().collect();
        for (_, mappings) in &mut due {
            mappings.sort_by_key(|mapping| mapping.id);
        }
        due.sort_by_key(|(database, _)| self.poll_phase(database) != PollPhase::Postponed);
        due
    }

    fn poll_phase(&self, database: &SourceDatabase) -> PollPhase {
        self.databases.get(database).map_or(PollPhase::Idle, |state| state.poll)
    }

    fn decide_poll(&self, database: &SourceDatabase, now: Instant) -> PollDecision {
        let Some(server) = self.servers.get(&database.server) else { return PollDecision::Skip };
        let Some(row) = &server.row else { return PollDecision::Skip };
        let waits_after_failure = self
            .databases
            .get(database)
            .and_then(|state| state.failure.as_ref())
            .is_some_and(|failure| !failure.is_due(now, row));
        if self.poll_phase(database) == PollPhase::Running
            // its connection string cannot be used, which was logged when the row was read
            || self.env.sources.connections(database.server).is_err()
            || waits_after_failure
            || !server.may_be_polled(row, now)
        {
            PollDecision::Skip
        } else if admission::admits_poll(self.jobs.at_server(Some(server)), self.limits()) {
            PollDecision::Start
        } else {
            PollDecision::Postpone
        }
    }

    fn start_poll(&mut self, database: SourceDatabase, mappings: Vec<Mapping>) {
        self.servers.entry(database.server).or_default().polls += 1;
        let state = self.databases.entry(database.clone()).or_default();
        state.poll = PollPhase::Running;
        let mut poll_state = std::mem::take(&mut state.poll_state);
        let env = self.env.clone();
        self.spawn(Task::Poll(database.clone()), async move {
            let SourceDatabase { server, name } = database;
            let result = poll::poll(&env, server, &name, &mappings, &mut poll_state).await;
            TaskResult::Poll { asked: mappings, state: Box::new(poll_state), result }
        });
    }

    pub fn on_poll_end(
        &mut self,
        database: &SourceDatabase,
        poll_state: PollState,
        asked: Vec<Mapping>,
        result: Result<Polled>,
    ) {
        let state = self.databases.entry(database.clone()).or_default();
        (state.poll, state.poll_state) = (PollPhase::Idle, poll_state);
        let server = self.servers.entry(database.server).or_default();
        server.polls = server.polls.saturating_sub(1);
        match result {
            Ok(polled) => self.record_poll(database, asked, polled),
            Err(error) => {
                self.database_failed(database, &error);
                self.log_deferred_errors(database, is_unreachable(&error));
                // the poll's connection is free for a job
                self.start_queued();
            }
        }
        self.poll_postponed(database.server);
    }

    fn poll_postponed(&mut self, server: ServerId) {
        let postponed: HashSet<SourceDatabase> = self
            .databases
            .iter()
            .filter(|(other, state)| other.server == server && state.poll == PollPhase::Postponed)
            .map(|(other, _)| other.clone())
            .collect();
        if !postponed.is_empty() && !self.stopping() {
            self.poll_due(|database| postponed.contains(database));
        }
    }

    /// What a poll found.
    fn record_poll(&mut self, database: &SourceDatabase, asked: Vec<Mapping>, polled: Polled) {
        self.database_worked(database);
        self.record_triggers(&asked, &polled);
        // of these the poll could not find out whether there is work
        let mut not_idle: HashSet<MappingId> = polled.locked.into_iter().collect();
        for (id, error) in polled.failed {
            not_idle.insert(id);
            self.mapping_failed(id, &FailedAttempt::poll(), &error);
        }
        let asked_ids: HashSet<MappingId> = asked.iter().map(|mapping| mapping.id).collect();
        let mut asked: HashMap<MappingId, Mapping> =
            asked.into_iter().map(|mapping| (mapping.id, mapping)).collect();
        for (id, work) in polled.work {
            not_idle.insert(id);
            if let Some(mapping) = asked.remove(&id) {
                self.enqueue(mapping, work);
            }
        }
        for id in asked_ids.difference(&not_idle) {
            self.mapping_worked(*id);
        }
        self.log_deferred_errors(database, false);
        self.start_queued();
        self.poll_woken(database, &asked_ids);
    }

    fn record_triggers(&mut self, asked: &[Mapping], polled: &Polled) {
        let without_trigger = asked
            .iter()
            .filter(|mapping| mapping.trigger_column.is_none())
            .map(|mapping| mapping.id);
        for id in polled.triggers_answered.iter().copied().chain(without_trigger) {
            if let Some(state) = self.mappings.get_mut(&id)
                && state.trigger_error.take().is_some()
            {
                // resolved with the mapping's other errors
                state.error_open = true;
            }
        }
        for (id, error) in &polled.trigger_faults {
            self.trigger_failed(*id, error);
        }
    }

    /// Mappings that were woken while their database was polled without them are polled now.
    fn poll_woken(&mut self, database: &SourceDatabase, asked: &HashSet<MappingId>) {
        let now = Instant::now();
        let woken = self.rows().any(|(row, state)| {
            state.failure().is_some_and(|failure| failure.waits)
                && !asked.contains(&row.id)
                && SourceDatabase::of(row) == *database
                && state.is_due(row, now)
        });
        if woken {
            self.poll_now(std::slice::from_ref(database));
        }
    }

    /// Polls these databases before the next tick, with the rows of the last refresh.
    pub fn poll_now(&mut self, databases: &[SourceDatabase]) {
        if !databases.is_empty() && !self.stopping() && self.mode == Mode::Forever {
            self.poll_due(|database| databases.contains(database));
        }
    }
}
