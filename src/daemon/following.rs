//! Following the control tables and the sources: servers and mappings that come, change and go, and
//! the polls of what is due.

use super::{
    Daemon, Mode, SourceDatabase, Task, TaskResult,
    failures::{FailedAttempt, FailureState, is_away, looks},
};
use crate::{
    control::{ControlSnapshot, ErrorCode},
    error::Result,
    jobs::poll::{self, Polled},
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, Server},
    },
    plan::admission,
};
use std::collections::{HashMap, HashSet};
use tokio::time::Instant;

/// Rows that cannot be used of which one look tells.
const REJECTED_TOLD_MAX: usize = 500;

impl Daemon {
    /// New, changed and removed servers.
    pub(super) fn follow_servers(&mut self, servers: &[Server]) {
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
                    error_code = ErrorCode::ServerRowUnusable.as_str(),
                    error_details = %error.details(1, "left out until its row changes"),
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
                let parked =
                    self.failing.iter_mut().filter(|(_, failing)| failing.parked_as.is_some());
                for (_, failing) in parked.filter(|(mapping, _)| {
                    self.mappings.get(mapping).is_some_and(|mapping| mapping.server == *id)
                }) {
                    failing.due = Instant::now();
                }
            }
        }
    }

    /// Rows that cannot be used are told of once, until they say something else.
    pub(super) fn follow_rejected(&mut self, loaded: &ControlSnapshot) {
        let mut rejected = HashMap::new();
        let mut told = 0;
        for row in &loaded.rejected {
            let words = row.error.to_string();
            if self.rejected.get(&row.mapping) != Some(&words) {
                // The others at the next looks: the way to the log tables is only so wide.
                if told >= REJECTED_TOLD_MAX {
                    continue;
                }
                told += 1;
                self.well = false;
                self.troubled.mappings.insert(row.mapping);
                tracing::error!(
                    mapping_id = row.mapping.0,
                    server_id = row.server.0,
                    error_type = row.error.kind.error_type(),
                    error_code = ErrorCode::MappingRowUnusable.as_str(),
                    error_details = %row.error.details(1, "left out until its row changes"),
                    error = %row.error,
                    "the mapping is left out"
                );
            }
            rejected.insert(row.mapping, words);
        }
        self.rejected = rejected;
    }

    /// What concerns nobody any more.
    pub(super) fn forget(&mut self) {
        let Daemon { mappings, servers, rejected, troubled, .. } = self;
        troubled.mappings.retain(|id| mappings.contains_key(id) || rejected.contains_key(id));
        troubled.servers.retain(|id| servers.contains_key(id));
        self.env.triggers.retain(|id| mappings.contains_key(id));
        self.failing.retain(|id, _| mappings.contains_key(id));
        self.trigger_faults.retain(|id, _| mappings.contains_key(id));
        self.committed.retain(|id, _| mappings.contains_key(id));
        self.unsaid.retain(|id, _| mappings.contains_key(id));
        self.verified.retain(|id, _| mappings.contains_key(id));
        self.structure_at.retain(|id, _| mappings.contains_key(id));
        self.settled.retain(|id| id.is_none_or(|id| mappings.contains_key(&id)));
        self.verify_queue.retain(|id| mappings.contains_key(id));
        self.logins.retain(|id, _| servers.contains_key(id));
        self.env.metrics.retain(|id| mappings.contains_key(id));
        self.env.control.retain_cdc_sessions(|id| mappings.contains_key(id));
        self.env.findings.retain(|id| mappings.contains_key(id));
        let places: HashSet<SourceDatabase> = mappings.values().map(place_of).collect();
        let used: HashSet<ServerId> = places.iter().map(|place| place.0).collect();
        self.memories.retain(|place, _| places.contains(place));
        self.failing_places.retain(|place, _| places.contains(place));
        self.polls_waiting.retain(|place| places.contains(place));
        self.failing_servers.retain(|server, _| used.contains(server));
    }

    /// Whether a mapping's turn has come: nothing of it is under way, and it does not wait after a
    /// failure.
    fn is_due(&self, mapping: &Mapping, now: Instant) -> bool {
        !self.running.contains(mapping.id)
            && !self.waiting.contains(mapping.id)
            && !self.leaving.contains(&mapping.id)
            && self
                .failing
                .get(&mapping.id)
                .is_none_or(|failing| failing.is_due(now, &looks(mapping)))
    }

    /// Polls every database that has mappings whose turn it is, of those that are wanted.
    pub(super) fn poll_due(&mut self, wanted: impl Fn(&SourceDatabase) -> bool) {
        if !self.lease_is_fresh() {
            return;
        }
        let now = Instant::now();
        let mut due: HashMap<SourceDatabase, Vec<Mapping>> = HashMap::new();
        for mapping in self.mappings.values() {
            let place = place_of(mapping);
            if wanted(&place) && self.is_due(mapping, now) {
                due.entry(place).or_default().push(mapping.clone());
            }
        }
        let mut due: Vec<_> = due.into_iter().collect();
        // those that had to wait go first
        due.sort_by_key(|(place, _)| !self.polls_waiting.contains(place));
        for (place, mut mappings) in due {
            let Some(server) = self.servers.get(&place.0) else { continue };
            // A string that cannot be read was told of when it came.
            if self.polling.contains(&place)
                || self.env.sources.connections(place.0).is_err()
                || self.failing_places.get(&place).is_some_and(|f| !f.is_due(now, server))
                || !self.may_try(&place, server, now)
            {
                continue;
            }
            let polls_here = self.polls_at.get(&place.0).copied().unwrap_or(0);
            if !admission::admits_poll(self.running.at(place.0, polls_here), self.limits()) {
                self.polls_waiting.insert(place);
                continue;
            }
            mappings.sort_by_key(|mapping| mapping.id);
            self.polls_waiting.remove(&place);
            self.polls_at.insert(place.0, polls_here + 1);
            self.polling.insert(place.clone());
            let mut memory = self.memories.remove(&place).unwrap_or_default();
            let env = self.env.clone();
            self.spawn(Task::Poll(place.clone()), async move {
                let result = poll::poll(&env, place.0, &place.1, &mappings, &mut memory).await;
                TaskResult::Polled { asked: mappings, memory: Box::new(memory), result }
            });
        }
    }

    pub(super) fn polled(
        &mut self,
        place: SourceDatabase,
        asked: Vec<Mapping>,
        result: Result<Polled>,
    ) {
        self.poll_ended(&place);
        match result {
            Ok(polled) => self.found(place.clone(), asked, polled),
            Err(error) => {
                let away = is_away(&error);
                self.place_failed(place.clone(), error);
                self.verifications_met(&place, away);
                // jobs of this source have its place
                self.start_waiting();
            }
        }
        // the next database of this source
        if !self.stopping() && self.polls_waiting.iter().any(|waits| waits.0 == place.0) {
            let waiting = self.polls_waiting.clone();
            self.poll_due(|next| next.0 == place.0 && waiting.contains(next));
        }
    }

    fn poll_ended(&mut self, place: &SourceDatabase) {
        self.polling.remove(place);
        match self.polls_at.get_mut(&place.0) {
            Some(polls) if *polls > 1 => *polls -= 1,
            _ => drop(self.polls_at.remove(&place.0)),
        }
    }

    /// What a poll found.
    fn found(&mut self, place: SourceDatabase, asked: Vec<Mapping>, polled: Polled) {
        self.place_works(&place);
        let without = asked
            .iter()
            .filter(|mapping| mapping.trigger_column.is_none())
            .map(|mapping| mapping.id);
        for id in polled.triggers_answered.into_iter().chain(without) {
            if self.trigger_faults.remove(&id).is_some() {
                self.troubled.mappings.insert(id);
            }
        }
        for (id, error) in polled.trigger_faults {
            self.trigger_failed(id, &error);
        }
        let mut busy: HashSet<MappingId> = HashSet::new();
        // whether these work is not known in this poll
        busy.extend(polled.locked);
        for (mapping, error) in polled.failed {
            busy.insert(mapping);
            self.mapping_failed(mapping, &FailedAttempt::polled(), error);
        }
        let mut asked: HashMap<MappingId, Option<Mapping>> =
            asked.into_iter().map(|mapping| (mapping.id, Some(mapping))).collect();
        for (id, work) in polled.work {
            busy.insert(id);
            if let Some(mapping) = asked.get_mut(&id).and_then(Option::take) {
                self.enqueue(mapping, work);
            }
        }
        for id in asked.keys().filter(|id| !busy.contains(id)) {
            // Nothing to do for it, so nothing is wrong with it.
            self.mapping_works(*id);
        }
        self.verifications_met(&place, false);
        self.start_waiting();
        // called up while this was under way
        let now = Instant::now();
        let missed = |(id, failing): (&MappingId, &FailureState<Mapping>)| {
            let due = |mapping: &Mapping| place_of(mapping) == place && self.is_due(mapping, now);
            failing.waits && !asked.contains_key(id) && self.mappings.get(id).is_some_and(due)
        };
        if self.failing.iter().any(missed) {
            self.poll_again(&[place]);
        }
    }

    /// Polls these at once, with what the last look saw.
    pub(super) fn poll_again(&mut self, places: &[SourceDatabase]) {
        if !self.stopping() && self.mode == Mode::Forever {
            self.poll_due(|place| places.contains(place));
        }
    }
}

pub(super) fn place_of(mapping: &Mapping) -> SourceDatabase {
    (mapping.server, mapping.source.database.clone())
}
