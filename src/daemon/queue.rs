//! Work that waits for its turn: in the order in which it was found, and never looked through as a
//! whole to find what may start.
//!
//! It is kept by source and kind, as that is all that the limits ask for
//! ([`crate::plan::admission`]): whether one of them may start is whether all of its like may. So
//! starting one looks at the front of each, however many wait.

use super::starting::QueuedWork;
use crate::model::{
    id::{MappingId, ServerId},
    mapping::SyncType,
};
use std::collections::{BTreeMap, HashMap};

/// What the limits make no difference between.
pub(super) type QueueClass = (ServerId, SyncType);

#[derive(Default)]
pub(super) struct WorkQueue {
    /// Given so far: what came later has the greater number.
    given: u64,
    sorts: HashMap<QueueClass, BTreeMap<u64, QueuedWork>>,
    /// Where each mapping's work is.
    places: HashMap<MappingId, (QueueClass, u64)>,
}

impl WorkQueue {
    /// At the end; in the place of what waited for the same mapping.
    pub fn push(&mut self, waiting: QueuedWork) {
        let sort = (waiting.mapping().server, waiting.sync_type());
        let id = waiting.mapping().id;
        self.remove(id);
        self.given += 1;
        self.places.insert(id, (sort, self.given));
        self.sorts.entry(sort).or_default().insert(self.given, waiting);
    }

    pub fn contains(&self, id: MappingId) -> bool {
        self.places.contains_key(&id)
    }

    /// Whether work of this kind waits for a mapping.
    pub fn waits(&self, id: MappingId, sync_type: SyncType) -> bool {
        self.places.get(&id).is_some_and(|((_, waits), _)| *waits == sync_type)
    }

    pub fn remove(&mut self, id: MappingId) -> Option<QueuedWork> {
        let (sort, number) = self.places.remove(&id)?;
        let of_sort = self.sorts.get_mut(&sort)?;
        let removed = of_sort.remove(&number);
        if of_sort.is_empty() {
            self.sorts.remove(&sort);
        }
        removed
    }

    /// Takes out what came first of what may start: all of its sort may, and nothing holds it up by
    /// itself.
    pub fn next(
        &mut self,
        mut admits: impl FnMut(QueueClass) -> bool,
        mut is_held_up: impl FnMut(&QueuedWork) -> bool,
    ) -> Option<QueuedWork> {
        let firsts = self.sorts.iter().filter(|(sort, _)| admits(**sort));
        let firsts = firsts
            .filter_map(|(_, waiting)| waiting.iter().find(|(_, waiting)| !is_held_up(waiting)));
        let first =
            firsts.min_by_key(|(number, _)| **number).map(|(_, waiting)| waiting.mapping().id)?;
        self.remove(first)
    }

    /// Forgets what is not so any more.
    pub fn retain(&mut self, is_so: impl Fn(&QueuedWork) -> bool) {
        let WorkQueue { sorts, places, .. } = self;
        sorts.retain(|_, waiting| {
            waiting.retain(|_, waiting| {
                is_so(waiting) || places.remove(&waiting.mapping().id).is_none()
            });
            !waiting.is_empty()
        });
    }

    pub fn clear(&mut self) {
        self.sorts.clear();
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        daemon::starting::tests::waiting,
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
    fn what_a_start_looks_at_does_not_grow_with_the_queue() {
        const QUEUED: i32 = 10_000;
        const SOURCES: i32 = 5;
        let mut queue = WorkQueue::default();
        for id in 0..QUEUED {
            queue.push(waiting(id, id % SOURCES));
        }
        let looked = Cell::new(0u32);
        let mut running: VecDeque<i32> = VecDeque::new();
        let mut started = Vec::new();
        loop {
            loop {
                let admits = |(server, _): QueueClass| {
                    looked.set(looked.get() + 1);
                    let at_source = running.iter().filter(|id| **id % SOURCES == server.0).count();
                    admission::admits(
                        SyncType::Cdc,
                        Running { all: running.len(), at_source, ..Running::default() },
                        LIMITS,
                    )
                };
                let held_up = |_: &QueuedWork| {
                    looked.set(looked.get() + 1);
                    false
                };
                let Some(next) = queue.next(admits, held_up) else { break };
                running.push_back(next.mapping().id.0);
                started.push(next.mapping().id.0);
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
        let per_start = looked.get() / 10_000;
        assert!(per_start <= 4 * 5, "{per_start} looks per start");
        assert!(queue.places.is_empty() && queue.sorts.is_empty());
    }

    #[test]
    fn what_is_held_up_keeps_nobody_else_waiting_and_its_own_place() {
        let mut queue = WorkQueue::default();
        for id in [1, 2, 3] {
            queue.push(waiting(id, 1));
        }
        let next = |queue: &mut WorkQueue, held: i32| {
            queue.next(|_| true, |waiting| waiting.mapping().id.0 == held).map(|w| w.mapping().id.0)
        };
        assert_eq!((next(&mut queue, 1), next(&mut queue, 0)), (Some(2), Some(1)));
        assert!(
            queue.waits(MappingId(3), SyncType::FullSync)
                && !queue.waits(MappingId(3), SyncType::Cdc)
        );
        queue.push(waiting(3, 2));
        assert_eq!(queue.sorts.len(), 1, "the later find takes the earlier one's place");
        queue.retain(|_| false);
        assert!(!queue.contains(MappingId(3)) && next(&mut queue, 0).is_none());
    }
}
