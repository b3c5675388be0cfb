//! Following the control tables and the sources: servers and mappings that come, change and go, and the polls of what is due.

use super::{
    Daemon, Ended, Mode, Place, Task,
    failing::{Attempt, Failing, SERVER_UNUSABLE, is_away, looks},
};
use crate::{
    control::Loaded,
    error::Result,
    jobs::poll::{self, Polled},
    model::{
        id::MappingId,
        mapping::{Mapping, Server},
    },
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
                    error_details = %error.details(1, "left out until its row changes"),
                    %error,
                    "{SERVER_UNUSABLE}"
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
    pub(super) fn follow_rejected(&mut self, loaded: &Loaded) {
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
        let Daemon { mappings, servers, .. } = self;
        self.failing.retain(|id, _| mappings.contains_key(id));
        self.trigger_faults.retain(|id, _| mappings.contains_key(id));
        self.committed.retain(|id, _| mappings.contains_key(id));
        self.unsaid.retain(|id, _| mappings.contains_key(id));
        self.verified.retain(|id, _| mappings.contains_key(id));
        self.structure_at.retain(|id, _| mappings.contains_key(id));
        self.settled.retain(|id| id.is_none_or(|id| mappings.contains_key(&id)));
        self.verify_queue.retain(|id| mappings.contains_key(id));
        self.logins.retain(|id, _| servers.contains_key(id));
        self.env.vitals.retain(|id| mappings.contains_key(id));
        self.env.findings.retain(|id| mappings.contains_key(id));
        let places: HashSet<Place> = mappings.values().map(place_of).collect();
        self.memories.retain(|place, _| places.contains(place));
        self.failing_places.retain(|place, _| places.contains(place));
        self.failing_servers.retain(|server, _| places.iter().any(|place| place.0 == *server));
    }

    /// Whether a mapping's turn has come: nothing of it is under way, and it does not wait after a failure.
    fn is_due(&self, mapping: &Mapping, now: Instant, queued: &HashSet<MappingId>) -> bool {
        !self.running.contains_key(&mapping.id)
            && !queued.contains(&mapping.id)
            && !self.leaving.contains(&mapping.id)
            && self.failing.get(&mapping.id).is_none_or(|failing| failing.is_due(now, &looks(mapping)))
    }

    /// Polls every database that has mappings whose turn it is, of those that are wanted.
    pub(super) fn poll_due(&mut self, wanted: impl Fn(&Place) -> bool) {
        let now = Instant::now();
        let queued = self.queued();
        let mut due: HashMap<Place, Vec<Mapping>> = HashMap::new();
        for mapping in self.mappings.values() {
            if !self.is_due(mapping, now, &queued) {
                continue;
            }
            let place = place_of(mapping);
            if wanted(&place) {
                due.entry(place).or_default().push(mapping.clone());
            }
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
                Ended::Polled { asked: mappings, memory: Box::new(memory), result }
            });
        }
    }

    pub(super) fn polled(&mut self, place: Place, asked: Vec<Mapping>, result: Result<Polled>) {
        self.polling.remove(&place);
        let polled = match result {
            Ok(polled) => polled,
            Err(error) => {
                let away = is_away(&error);
                self.place_failed(place.clone(), error);
                return self.verifications_met(&place, away);
            }
        };
        self.place_works(&place);
        let without = asked.iter().filter(|mapping| mapping.trigger_column.is_none()).map(|mapping| mapping.id);
        for id in polled.triggers_well.into_iter().chain(without) {
            if self.trigger_faults.remove(&id).is_some() {
                self.troubled.mappings.insert(id);
            }
        }
        for (id, error) in polled.trigger_faults {
            self.trigger_failed(id, &error);
        }
        let mut busy: HashSet<MappingId> = HashSet::new();
        for (mapping, error) in polled.failed {
            busy.insert(mapping);
            self.mapping_failed(mapping, &Attempt::polled(), error);
        }
        for (id, work) in polled.work {
            busy.insert(id);
            if let Some(mapping) = asked.iter().find(|mapping| mapping.id == id) {
                self.enqueue(mapping.clone(), work);
            }
        }
        for mapping in asked.iter().filter(|mapping| !busy.contains(&mapping.id)) {
            // Nothing to do for it, so nothing is wrong with it.
            self.mapping_works(mapping.id);
        }
        self.verifications_met(&place, false);
        self.start_waiting();
        // called up while this was under way
        let (now, queued) = (Instant::now(), self.queued());
        let missed = |(id, failing): (&MappingId, &Failing<Mapping>)| {
            let due = |mapping: &Mapping| place_of(mapping) == place && self.is_due(mapping, now, &queued);
            failing.waits && self.mappings.get(id).is_some_and(due) && !asked.iter().any(|mapping| mapping.id == *id)
        };
        if self.failing.iter().any(missed) {
            self.poll_again(&[place]);
        }
    }

    /// Polls these at once, with what the last look saw.
    pub(super) fn poll_again(&mut self, places: &[Place]) {
        if !self.stopping() && self.mode == Mode::Forever {
            self.poll_due(|place| places.contains(place));
        }
    }
}

pub(super) fn place_of(mapping: &Mapping) -> Place {
    (mapping.server, mapping.source.database.clone())
}
