//! Jobs: work that a poll found starts as soon as the limits allow ([`crate::plan::admission`]), in
//! the order in which it was found.
//!
//! A mapping in the queue is not polled again: it keeps its place, so that no mapping waits for ever
//! behind busier tables. Its work is checked when it starts: the row must be as it was when it was
//! polled.

use super::{
    queue::{QueueClass, QueuedWork},
    source_state::SourceDatabase,
    state::Daemon,
    task::{Task, TaskResult},
};
use crate::{
    jobs::{apply::Applied, cdc, full_sync, poll::MappingWork},
    model::mapping::{Mapping, SyncType},
    plan::{
        admission::{self, Limits},
        lifecycle::{LifecycleEvent, Phase},
    },
};
use tokio::time::Instant;

impl Daemon {
    pub fn enqueue(&mut self, mapping: Mapping, work: MappingWork) {
        let queued = QueuedWork { mapping, work };
        let state = self.mappings.entry(queued.mapping.id).or_default();
        let sync_type = queued.sync_type();
        state.apply(LifecycleEvent::Queued(sync_type));
        if state.lifecycle().phase != Phase::Queued(sync_type) {
            return;
        }
        // A verification may wait a minute until rows stop changing, which the full sync replaces.
        if sync_type == SyncType::FullSync
            && state.lifecycle().verifying
            && let Some(cancel) = state.cancel.take()
        {
            cancel.cancel();
        }
        self.queue.push(queued);
    }

    /// Starts what may start, and removes what is out of date: the next poll finds it again.
    pub fn start_queued(&mut self) {
        if self.stopping() {
            return self.clear_queue();
        }
        if !self.lease_is_fresh() {
            return;
        }
        while self.jobs.all < self.env.config.tasks_max {
            let limits = self.limits();
            let Daemon { jobs, servers, mappings, queue, .. } = self;
            let admits = |(server, sync_type): QueueClass| {
                admission::admits(sync_type, jobs.at_server(servers.get(&server)), limits)
            };
            let waits = |queued: &QueuedWork| {
                mappings.get(&queued.mapping.id).is_some_and(|state| {
                    state.lifecycle().waits_for_verification(queued.sync_type())
                })
            };
            let Some(next) = queue.next(admits, waits) else { return };
            if self.is_current(&next)
                && !self.is_source_unreachable(&SourceDatabase::of(&next.mapping))
            {
                self.start_job(next);
            } else if let Some(state) = self.mappings.get_mut(&next.mapping.id) {
                state.apply(LifecycleEvent::Unqueued);
            }
        }
    }

    fn clear_queue(&mut self) {
        self.queue.clear();
        for state in self.mappings.values_mut() {
            state.apply(LifecycleEvent::Unqueued);
        }
    }

    /// Removes queued work that is out of date.
    pub fn remove_outdated(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|queued| {
            let current = self.is_current(queued);
            if !current && let Some(state) = self.mappings.get_mut(&queued.mapping.id) {
                state.apply(LifecycleEvent::Unqueued);
            }
            current
        });
        self.queue = queue;
    }

    fn is_current(&self, queued: &QueuedWork) -> bool {
        self.mappings.get(&queued.mapping.id).is_some_and(|state| {
            state.row.as_ref().is_some_and(|row| queued.is_current(row))
                && !state.leaving
                && state.lifecycle().running().is_none()
        })
    }

    pub fn limits(&self) -> Limits {
        let config = &self.env.config;
        Limits {
            tasks_max: config.tasks_max,
            source_connections: config.source_connections_max,
            dest_connections: self.env.dest.permits_max(),
            full_sync_connections: self.env.full_sync_connections(),
            verifications_max: config.verify_concurrency,
        }
    }

    fn start_job(&mut self, queued: QueuedWork) {
        let sync_type = queued.sync_type();
        let id = queued.mapping.id;
        let Some(mapping) = self.row(id).cloned() else { return };
        self.count_job_start(id, mapping.server, sync_type);
        let attempts_before = self.attempts_before(id);
        let env = self.env_for(id);
        let began = Instant::now();
        self.spawn(Task::Job(id, sync_type), async move {
            let mut applied = Applied::default();
            let result = match queued.work {
                MappingWork::FullSync { trigger } => full_sync::run(&env, &mapping, trigger).await,
                MappingWork::Cdc(pass) => {
                    cdc::run(&env, &mapping, *pass, attempts_before, &mut applied).await
                }
            };
            TaskResult::Job { result, progressed: applied.reached.is_some(), began }
        });
    }
}
