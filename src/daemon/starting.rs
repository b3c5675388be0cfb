//! Work on its way: what a poll found starts as soon as the limits allow ([`crate::plan::admission`]), in the order in which it was found.
//!
//! A mapping that waits is not polled again: it keeps its place instead of racing the others anew at every tick, so that nobody waits for
//! ever behind busier tables. What it waits with is checked when it starts: the mapping must look as it did when it was polled.

use super::{Daemon, Ended, Task, failing::looks};
use crate::{
    jobs::{apply::Applied, cdc, full_sync, poll::Work},
    model::{
        id::MappingId,
        mapping::{Mapping, SyncType},
    },
    plan::admission::{self, Limits, Running},
};
use std::collections::HashSet;
use tokio::time::Instant;

/// What a poll found for a mapping.
pub(super) struct Waiting {
    /// as it was polled
    mapping: Mapping,
    work: Work,
}

impl Waiting {
    fn sync_type(&self) -> SyncType {
        match self.work {
            Work::FullSync { .. } => SyncType::FullSync,
            Work::Cdc(_) => SyncType::Cdc,
        }
    }

    /// Whether the mapping, as it looks now, still has this to do: it is what was polled, and a request that was found is not fulfilled.
    /// (A look that was under way when a full sync ended finds it asked for once more.)
    fn is_so(&self, now: &Mapping) -> bool {
        let fulfilled = self.sync_type() == SyncType::FullSync && self.mapping.wants_full_sync() && !now.wants_full_sync();
        looks(now) == looks(&self.mapping) && !fulfilled
    }
}

impl Daemon {
    /// Mappings that wait for their turn.
    pub(super) fn queued(&self) -> HashSet<MappingId> {
        self.waiting.iter().map(|waiting| waiting.mapping.id).collect()
    }

    /// Whether a full sync of it is about to start.
    pub(super) fn full_sync_waits(&self, id: MappingId) -> bool {
        self.waiting.iter().any(|waiting| waiting.mapping.id == id && waiting.sync_type() == SyncType::FullSync)
    }

    pub(super) fn enqueue(&mut self, mapping: Mapping, work: Work) {
        let waiting = Waiting { mapping, work };
        // A verification may wait a minute for proof about rows that the full sync brings anyway.
        if waiting.sync_type() == SyncType::FullSync
            && self.verifying.contains(&waiting.mapping.id)
            && !self.running.contains_key(&waiting.mapping.id)
            && let Some(token) = self.tokens.remove(&waiting.mapping.id)
        {
            token.cancel();
        }
        self.waiting.push_back(waiting);
    }

    /// Starts what may start, and forgets what is not so any more: the next tick finds it again.
    pub(super) fn start_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            let id = waiting.mapping.id;
            let is_so = self.mappings.get(&id).is_some_and(|mapping| waiting.is_so(mapping));
            if self.stopping() || !is_so || self.leaving.contains(&id) || self.running.contains_key(&id) {
                continue;
            }
            if self.may_start(&waiting) {
                self.start(waiting);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    fn may_start(&self, waiting: &Waiting) -> bool {
        let sync_type = waiting.sync_type();
        // A verification must not see a table being swapped.
        if sync_type == SyncType::FullSync && self.verifying.contains(&waiting.mapping.id) {
            return false;
        }
        let server = waiting.mapping.server;
        let mut running = Running::default();
        for (id, kind) in &self.running {
            let here = usize::from(self.running_at.get(id) == Some(&server));
            let full = usize::from(*kind == SyncType::FullSync);
            running.all += 1;
            running.full_syncs += full;
            running.at_source += here;
            running.full_syncs_at_source += here * full;
        }
        let config = &self.env.config;
        let limits = Limits {
            tasks_max: config.tasks_max,
            source_seats: config.source_connections_max,
            dest_seats: self.env.dest.seats_max(),
            full_sync_seats: self.env.full_sync_seats(),
            verifications_max: config.verify_concurrency,
        };
        admission::admits(sync_type, running, limits)
    }

    fn start(&mut self, waiting: Waiting) {
        let sync_type = waiting.sync_type();
        let id = waiting.mapping.id;
        let Some(mapping) = self.mappings.get(&id).cloned() else { return };
        self.running.insert(id, sync_type);
        self.running_at.insert(id, mapping.server);
        let failed_before = self.failed_before(id);
        let env = self.env_for(id);
        let began = Instant::now();
        self.spawn(Task::Job(id, sync_type), async move {
            let mut applied = Applied::default();
            let result = match waiting.work {
                Work::FullSync { trigger } => full_sync::run(&env, &mapping, trigger).await,
                Work::Cdc(pass) => cdc::run(&env, &mapping, *pass, failed_before, &mut applied).await,
            };
            Ended::Job { result, progressed: applied.reached.is_some(), began }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        id::ServerId,
        mapping::FullSyncMode,
        name::{Ident, TableName},
    };

    fn mapping() -> Mapping {
        let table = |database: &str| TableName::new(database, "dbo", "T");
        Mapping {
            id: MappingId(1),
            server: ServerId(1),
            source: table("Shop"),
            dest: table("Copy"),
            key: vec![Ident::new("ID")].into(),
            trigger_column: None,
            cdc_enabled: true,
            last_cdc_lsn: None,
            full_sync_requested: false,
            full_sync_pending: false,
            mode: FullSyncMode::Staged,
            updated_at: "".into(),
        }
    }

    /// It waited for a verification, which waited for the CDC that does not run before a full sync.
    #[test]
    fn a_full_sync_that_was_done_meanwhile_does_not_wait_for_anything() {
        let pending = Mapping { full_sync_pending: true, ..mapping() };
        let found_by = |polled: &Mapping| Waiting { mapping: polled.clone(), work: Work::FullSync { trigger: false } };
        assert!(found_by(&pending).is_so(&pending));
        assert!(!found_by(&pending).is_so(&mapping()));
        assert!(found_by(&mapping()).is_so(&mapping()), "what a gap or a trigger asks for is in no row yet");
        let elsewhere = Mapping { cdc_enabled: false, ..pending.clone() };
        assert!(!found_by(&pending).is_so(&elsewhere));
    }
}
