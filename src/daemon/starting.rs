//! Work on its way: what a poll found starts as soon as the limits allow
//! ([`crate::plan::admission`]), in the order in which it was found.
//!
//! A mapping that waits is not polled again: it keeps its place instead of racing the others anew
//! at every tick, so that nobody waits for ever behind busier tables. What it waits with is checked
//! when it starts: the mapping must look as it did when it was polled.

use super::{Daemon, Task, TaskResult, failures::looks, following::place_of, queue::QueueClass};
use crate::{
    jobs::{apply::Applied, cdc, full_sync, poll::MappingWork},
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, SyncType},
    },
    plan::admission::{self, Limits, Running},
};
use std::collections::HashMap;
use tokio::time::Instant;

/// What a poll found for a mapping.
pub(super) struct QueuedWork {
    /// as it was polled
    mapping: Mapping,
    work: MappingWork,
}

impl QueuedWork {
    pub(super) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(super) fn sync_type(&self) -> SyncType {
        match self.work {
            MappingWork::FullSync { .. } => SyncType::FullSync,
            MappingWork::Cdc(_) => SyncType::Cdc,
        }
    }

    /// Whether the mapping, as it looks now, still has this to do: it is what was polled, and a
    /// request that was found is not fulfilled. (A look that was under way when a full sync ended
    /// finds it asked for once more.)
    fn is_so(&self, now: &Mapping) -> bool {
        let fulfilled = self.sync_type() == SyncType::FullSync
            && self.mapping.wants_full_sync()
            && !now.wants_full_sync();
        looks(now) == looks(&self.mapping) && !fulfilled
    }
}

impl Daemon {
    /// Whether a full sync of it is about to start.
    pub(super) fn full_sync_waits(&self, id: MappingId) -> bool {
        self.waiting.waits(id, SyncType::FullSync)
    }

    pub(super) fn enqueue(&mut self, mapping: Mapping, work: MappingWork) {
        let waiting = QueuedWork { mapping, work };
        // A verification may wait a minute for proof about rows that the full sync brings anyway.
        if waiting.sync_type() == SyncType::FullSync
            && self.verifying.contains(&waiting.mapping.id)
            && !self.running.contains(waiting.mapping.id)
            && let Some(token) = self.tokens.remove(&waiting.mapping.id)
        {
            token.cancel();
        }
        self.waiting.push(waiting);
    }

    /// Starts what may start, and forgets what is not so any more: the next tick finds it again.
    pub(super) fn start_waiting(&mut self) {
        if self.stopping() {
            return self.waiting.clear();
        }
        if !self.lease_is_fresh() {
            return;
        }
        while self.running.count_all() < self.env.config.tasks_max {
            let limits = self.limits();
            let Daemon { running, polls_at, verifying, waiting, .. } = self;
            let admits = |(server, sync_type): QueueClass| {
                admission::admits(
                    sync_type,
                    running.at(server, polls_at.get(&server).copied().unwrap_or(0)),
                    limits,
                )
            };
            // a verification must not see a table being swapped
            let held_up = |waiting: &QueuedWork| {
                waiting.sync_type() == SyncType::FullSync && verifying.contains(&waiting.mapping.id)
            };
            let Some(next) = waiting.next(admits, held_up) else { return };
            if self.is_so(&next) && !self.is_out_of_reach(&place_of(&next.mapping)) {
                self.start(next);
            }
        }
    }

    /// Forgets what waits and is not so any more.
    pub(super) fn forget_waiting(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|waiting| self.is_so(waiting));
        self.waiting = waiting;
    }

    fn is_so(&self, waiting: &QueuedWork) -> bool {
        let id = waiting.mapping.id;
        self.mappings.get(&id).is_some_and(|mapping| waiting.is_so(mapping))
            && !self.leaving.contains(&id)
            && !self.running.contains(id)
    }

    pub(super) fn limits(&self) -> Limits {
        let config = &self.env.config;
        Limits {
            tasks_max: config.tasks_max,
            source_connections: config.source_connections_max,
            dest_connections: self.env.dest.permits_max(),
            full_sync_connections: self.env.full_sync_connections(),
            verifications_max: config.verify_concurrency,
        }
    }

    fn start(&mut self, waiting: QueuedWork) {
        let sync_type = waiting.sync_type();
        let id = waiting.mapping.id;
        let Some(mapping) = self.mappings.get(&id).cloned() else { return };
        self.running.insert(id, mapping.server, sync_type);
        let failed_before = self.failed_before(id);
        let env = self.env_for(id);
        let began = Instant::now();
        self.spawn(Task::Job(id, sync_type), async move {
            let mut applied = Applied::default();
            let result = match waiting.work {
                MappingWork::FullSync { trigger } => full_sync::run(&env, &mapping, trigger).await,
                MappingWork::Cdc(pass) => {
                    cdc::run(&env, &mapping, *pass, failed_before, &mut applied).await
                }
            };
            TaskResult::Job { result, progressed: applied.reached.is_some(), began }
        });
    }
}

/// What runs, and how much of it where.
#[derive(Default)]
pub(super) struct RunningJobs {
    all: HashMap<MappingId, (ServerId, SyncType)>,
    full_syncs: usize,
    /// Of each source: all, and full syncs.
    at_sources: HashMap<ServerId, (usize, usize)>,
}

impl RunningJobs {
    pub fn insert(&mut self, id: MappingId, server: ServerId, sync_type: SyncType) {
        self.remove(id);
        let full = usize::from(sync_type == SyncType::FullSync);
        self.all.insert(id, (server, sync_type));
        self.full_syncs += full;
        let (all, full_syncs) = self.at_sources.entry(server).or_default();
        *all += 1;
        *full_syncs += full;
    }

    pub fn remove(&mut self, id: MappingId) {
        let Some((server, sync_type)) = self.all.remove(&id) else { return };
        let full = usize::from(sync_type == SyncType::FullSync);
        self.full_syncs -= full;
        if let Some((all, full_syncs)) = self.at_sources.get_mut(&server) {
            *all -= 1;
            *full_syncs -= full;
            if *all == 0 {
                self.at_sources.remove(&server);
            }
        }
    }

    pub fn contains(&self, id: MappingId) -> bool {
        self.all.contains_key(&id)
    }

    /// What runs for a mapping.
    pub fn of(&self, id: MappingId) -> Option<SyncType> {
        self.all.get(&id).map(|(_, sync_type)| *sync_type)
    }

    pub fn ids(&self) -> impl Iterator<Item = MappingId> {
        self.all.keys().copied()
    }

    pub fn count_all(&self) -> usize {
        self.all.len()
    }

    pub fn count(&self, sync_type: SyncType) -> usize {
        if sync_type == SyncType::FullSync {
            self.full_syncs
        } else {
            self.all.len() - self.full_syncs
        }
    }

    /// As the limits want to know it, for one source.
    pub fn at(&self, server: ServerId, polls_at_source: usize) -> Running {
        let (at_source, full_syncs_at_source) =
            self.at_sources.get(&server).copied().unwrap_or_default();
        Running {
            all: self.all.len(),
            full_syncs: self.full_syncs,
            at_source,
            full_syncs_at_source,
            polls_at_source,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{
        mapping::{FullSyncMode, InitialSync},
        name::{Ident, TableName},
    };

    /// A full sync of a mapping that waits.
    pub(in crate::daemon) fn waiting(id: i32, server: i32) -> QueuedWork {
        let mapping = Mapping { id: MappingId(id), server: ServerId(server), ..mapping() };
        QueuedWork { mapping, work: MappingWork::FullSync { trigger: false } }
    }

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
            initial_sync: InitialSync::Configured,
            has_synced: false,
            updated_at: "".into(),
        }
    }

    #[test]
    fn what_runs_is_counted_where_it_runs() {
        let mut jobs = RunningJobs::default();
        let (one, two) = (ServerId(1), ServerId(2));
        jobs.insert(MappingId(1), one, SyncType::FullSync);
        jobs.insert(MappingId(2), one, SyncType::Cdc);
        jobs.insert(MappingId(3), two, SyncType::Cdc);
        // a run that took the place of another one
        jobs.insert(MappingId(2), two, SyncType::FullSync);
        assert_eq!(
            jobs.at(one, 4),
            Running {
                all: 3,
                full_syncs: 2,
                at_source: 1,
                full_syncs_at_source: 1,
                polls_at_source: 4
            }
        );
        assert_eq!(
            jobs.at(two, 0),
            Running {
                all: 3,
                full_syncs: 2,
                at_source: 2,
                full_syncs_at_source: 1,
                polls_at_source: 0
            }
        );
        assert_eq!(
            (jobs.count(SyncType::Cdc), jobs.of(MappingId(1))),
            (1, Some(SyncType::FullSync))
        );
        for id in 1..=4 {
            jobs.remove(MappingId(id));
        }
        assert!(jobs.at_sources.is_empty() && jobs.at(one, 0) == Running::default());
    }

    /// It waited for a verification, which waited for the CDC that does not run before a full sync.
    #[test]
    fn a_full_sync_that_was_done_meanwhile_does_not_wait_for_anything() {
        let pending = Mapping { full_sync_pending: true, ..mapping() };
        let found_by = |polled: &Mapping| QueuedWork {
            mapping: polled.clone(),
            work: MappingWork::FullSync { trigger: false },
        };
        assert!(found_by(&pending).is_so(&pending));
        assert!(!found_by(&pending).is_so(&mapping()));
        assert!(
            found_by(&mapping()).is_so(&mapping()),
            "what a gap or a trigger asks for is in no row yet"
        );
        let elsewhere = Mapping { cdc_enabled: false, ..pending.clone() };
        assert!(!found_by(&pending).is_so(&elsewhere));
    }
}
