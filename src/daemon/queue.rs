//! Work that waits for its start, in the order in which it was found.
//!
//! It is kept by server and type, as the limits ([`crate::plan::admission`]) depend on nothing else:
//! either all work of a class may start, or none. So a start looks at the first of each class,
//! however many are in the queue.

use crate::{
    jobs::poll::MappingWork,
    model::{
        id::{MappingId, ServerId},
        mapping::{Mapping, SyncType},
    },
};
use std::collections::{BTreeMap, HashMap};

/// Work between which the limits make no difference.
pub(super) type QueueClass = (ServerId, SyncType);

/// Work that a poll found for a mapping.
pub(super) struct QueuedWork {
    /// The row with which it was polled.
    pub mapping: Mapping,
    pub work: MappingWork,
}

impl QueuedWork {
    pub fn sync_type(&self) -> SyncType {
        match self.work {
            MappingWork::FullSync { .. } => SyncType::FullSync,
            MappingWork::Cdc(_) => SyncType::Cdc,
        }
    }

    /// Whether this is still to be done: the row was not changed by an operator, and a request for
    /// a full sync is still in it. (A refresh that runs while a full sync ends still reads its
    /// request.)
    pub fn is_current(&self, row: &Mapping) -> bool {
        let fulfilled = self.sync_type() == SyncType::FullSync
            && self.mapping.wants_full_sync()
            && !row.wants_full_sync();
        row.as_configured() == self.mapping.as_configured() && !fulfilled
    }
}

#[derive(Default)]
pub(super) struct WorkQueue {
    /// The number of the work that was queued last.
    last_number: u64,
    classes: HashMap<QueueClass, BTreeMap<u64, QueuedWork>>,
    /// Where each mapping's work is.
    positions: HashMap<MappingId, (QueueClass, u64)>,
}

impl WorkQueue {
    /// Adds work at the end. It replaces work of the same mapping.
    pub fn push(&mut self, queued: QueuedWork) {
        let class = (queued.mapping.server, queued.sync_type());
        let id = queued.mapping.id;
        self.remove(id);
        self.last_number += 1;
        self.positions.insert(id, (class, self.last_number));
        self.classes.entry(class).or_default().insert(self.last_number, queued);
    }

    fn remove(&mut self, id: MappingId) -> Option<QueuedWork> {
        let (class, number) = self.positions.remove(&id)?;
        let of_class = self.classes.get_mut(&class)?;
        let removed = of_class.remove(&number);
        if of_class.is_empty() {
            self.classes.remove(&class);
        }
        removed
    }

    /// Removes and returns the oldest work of a class that may start and which does not have to wait
    /// for another reason.
    pub fn next(
        &mut self,
        mut admits: impl FnMut(QueueClass) -> bool,
        mut waits: impl FnMut(&QueuedWork) -> bool,
    ) -> Option<QueuedWork> {
        let admitted = self.classes.iter().filter(|(class, _)| admits(**class));
        let firsts =
            admitted.filter_map(|(_, of_class)| of_class.iter().find(|(_, queued)| !waits(queued)));
        let first = firsts.min_by_key(|(number, _)| **number)?.1.mapping.id;
        self.remove(first)
    }

    /// Removes work that is not `current`.
    pub fn retain(&mut self, mut current: impl FnMut(&QueuedWork) -> bool) {
        let WorkQueue { classes, positions, .. } = self;
        classes.retain(|_, of_class| {
            of_class.retain(|_, queued| {
                current(queued) || positions.remove(&queued.mapping.id).is_none()
            });
            !of_class.is_empty()
        });
    }

    pub fn clear(&mut self) {
        self.classes.clear();
        self.positions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            mapping::{FullSyncMode, InitialSync},
            name::{Ident, TableName},
        },
        plan::admission::{self, Limits, Running},
    };
    use std::{cell::Cell, collections::VecDeque};

    const LIMITS: Limits = Limits {
        tasks_max: 32,
        source_connections: 10,
        dest_connections: 47,
        full_sync_connections: 1,
        verifications_max: 2,
    };

    /// Ten thousand tables of five sources wait while 32 short passes run: each end once looked
    /// through all of them.
    #[test]
    fn the_cost_of_a_start_does_not_grow_with_the_queue() {
        const QUEUED: i32 = 10_000;
        const SOURCES: i32 = 5;
        let mut queue = WorkQueue::default();
        for id in 0..QUEUED {
            queue.push(full_sync_of(id, id % SOURCES));
        }
        let checks = Cell::new(0u32);
        let mut running: VecDeque<i32> = VecDeque::new();
        let mut started = Vec::new();
        loop {
            loop {
                let admits = |(server, _): QueueClass| {
                    checks.set(checks.get() + 1);
                    let at_source = running.iter().filter(|id| **id % SOURCES == server.0).count();
                    admission::admits(
                        SyncType::Cdc,
                        Running { all: running.len(), at_source, ..Running::default() },
                        LIMITS,
                    )
                };
                let waits = |_: &QueuedWork| {
                    checks.set(checks.get() + 1);
                    false
                };
                let Some(next) = queue.next(admits, waits) else { break };
                running.push_back(next.mapping.id.0);
                started.push(next.mapping.id.0);
            }
            if running.pop_front().is_none() {
                break;
            }
        }
        assert_eq!(
            started,
            (0..QUEUED).collect::<Vec<_>>(),
            "in the order in which they were found"
        );
        let per_start = checks.get() / 10_000;
        assert!(per_start <= 4 * 5, "{per_start} checks per start");
        assert!(queue.positions.is_empty() && queue.classes.is_empty());
    }

    #[test]
    fn work_that_has_to_wait_delays_no_other_and_keeps_its_place() {
        let mut queue = WorkQueue::default();
        for id in [1, 2, 3] {
            queue.push(full_sync_of(id, 1));
        }
        let next = |queue: &mut WorkQueue, held: i32| {
            queue.next(|_| true, |waiting| waiting.mapping.id.0 == held).map(|w| w.mapping.id.0)
        };
        assert_eq!((next(&mut queue, 1), next(&mut queue, 0)), (Some(2), Some(1)));
        queue.push(full_sync_of(3, 2));
        assert_eq!(queue.classes.len(), 1, "the later find takes the earlier one's place");
        queue.retain(|_| false);
        assert!(queue.positions.is_empty() && next(&mut queue, 0).is_none());
    }

    /// A full sync of a mapping.
    fn full_sync_of(id: i32, server: i32) -> QueuedWork {
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

    /// It waited for a verification, which waited for the CDC that does not run before a full sync.
    #[test]
    fn a_full_sync_that_was_done_meanwhile_is_out_of_date() {
        let pending = Mapping { full_sync_pending: true, ..mapping() };
        let found_by = |polled: &Mapping| QueuedWork {
            mapping: polled.clone(),
            work: MappingWork::FullSync { trigger: false },
        };
        assert!(found_by(&pending).is_current(&pending));
        assert!(!found_by(&pending).is_current(&mapping()));
        assert!(
            found_by(&mapping()).is_current(&mapping()),
            "a full sync because of a gap or a trigger is not in the row yet"
        );
        let changed = Mapping { cdc_enabled: false, ..pending.clone() };
        assert!(!found_by(&pending).is_current(&changed));
    }
}
