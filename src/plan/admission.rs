//! Which work may start now.
//!
//! A full sync may take hours and holds a connection to its source, and one or two to the
//! destination, all the time. So that no number of them keeps anybody else waiting, each kind has a
//! limit below the one of all: at a source there is always a connection left for its poll, and, where it
//! has more than three, one for the CDC of its other tables; over all sources at most half of the
//! work, and of the destination's connections, are full syncs'. What may not start waits in a queue,
//! holding nothing, and says nothing of itself in `sync_status`.

use crate::model::mapping::SyncType;

/// The limits, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Full syncs and CDC passes at the same time.
    pub tasks_max: usize,
    /// Connections at one source ([`crate::mssql::pool::reservation`]).
    pub source_connections: usize,
    /// Connections at the destination.
    pub dest_connections: usize,
    /// How many of these a full sync takes.
    pub full_sync_connections: usize,
    /// Verifications at the same time; they take connections, too.
    pub verifications_max: usize,
}

/// What runs now, the work that is to start not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    pub all: usize,
    pub full_syncs: usize,
    pub at_source: usize,
    pub full_syncs_at_source: usize,
    /// Polls of databases of this source: each has a connection to it, also while the source is
    /// silent.
    pub polls_at_source: usize,
}

/// One connection is for polls. Of a quarter, verifications may take what they need.
fn jobs_max(connections: usize, verifications_max: usize) -> usize {
    connections.saturating_sub(1 + verifications_max.min(connections / 4)).max(1)
}

/// Whether one more of this kind may start.
pub fn admits(sync_type: SyncType, running: Running, limits: Limits) -> bool {
    let dest_max = jobs_max(limits.dest_connections, limits.verifications_max);
    let at_source_max = jobs_max(limits.source_connections, limits.verifications_max);
    let taken = running.all + running.full_syncs * limits.full_sync_connections.saturating_sub(1);
    let takes = if sync_type == SyncType::FullSync { limits.full_sync_connections } else { 1 };
    let fits_dest = running.all == 0 || taken + takes <= dest_max;
    // One connection is kept for a poll; where more of them run, no job waits behind them for a
    // connection, counted as running.
    let busy_at_source = running.at_source + running.polls_at_source.saturating_sub(1);
    if running.all >= limits.tasks_max || busy_at_source >= at_source_max || !fits_dest {
        return false;
    }
    match sync_type {
        SyncType::FullSync => {
            running.full_syncs < (limits.tasks_max / 2).max(1)
                && (running.full_syncs + 1) * takes <= (dest_max / 2).max(takes)
                && running.full_syncs_at_source < at_source_max.saturating_sub(1).max(1)
        }
        SyncType::Cdc | SyncType::Verification | SyncType::SchemaCheck => true,
    }
}

/// Whether one more database of this source may be polled. At the destination polls take a connection
/// around their statements only, so that their number has no limit over all sources: those of a
/// source that is silent keep no other waiting.
pub fn admits_poll(running: Running, limits: Limits) -> bool {
    let polls_max = (limits.source_connections / 2).max(1);
    running.polls_at_source == 0
        || (running.polls_at_source < polls_max
            && running.at_source + running.polls_at_source < limits.source_connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        tasks_max: 32,
        source_connections: 10,
        dest_connections: 47,
        full_sync_connections: 2,
        verifications_max: 2,
    };

    /// Starts as many as may start and returns how many that were.
    fn start(sync_type: SyncType, running: &mut Running, limits: Limits) -> usize {
        let mut started = 0;
        while admits(sync_type, *running, limits) {
            let full = usize::from(sync_type == SyncType::FullSync);
            running.all += 1;
            running.at_source += 1;
            running.full_syncs += full;
            running.full_syncs_at_source += full;
            started += 1;
        }
        started
    }

    #[test]
    fn full_syncs_leave_room_for_cdc_and_polls_at_their_source() {
        let mut running = Running::default();
        assert_eq!(start(SyncType::FullSync, &mut running, LIMITS), 6);
        assert_eq!(start(SyncType::Cdc, &mut running, LIMITS), 1);
        assert!(running.at_source + 1 + LIMITS.verifications_max <= LIMITS.source_connections);
    }

    #[test]
    fn full_syncs_of_some_sources_leave_room_for_others() {
        let mut all = Running::default();
        for _ in 0..10 {
            let mut at_one = Running { at_source: 0, full_syncs_at_source: 0, ..all };
            start(SyncType::FullSync, &mut at_one, LIMITS);
            (all.all, all.full_syncs) = (at_one.all, at_one.full_syncs);
        }
        assert_eq!(all.full_syncs, 11);
        assert!(2 * all.full_syncs <= LIMITS.dest_connections / 2);
        assert!(admits(
            SyncType::Cdc,
            Running { at_source: 0, full_syncs_at_source: 0, ..all },
            LIMITS
        ));
    }

    #[test]
    fn polls_of_a_source_with_many_databases_leave_room_for_its_jobs_and_take_their_place_among_them()
     {
        let mut running = Running::default();
        while admits_poll(running, LIMITS) {
            running.polls_at_source += 1;
        }
        assert_eq!(running.polls_at_source, 5);
        assert_eq!(start(SyncType::Cdc, &mut running, LIMITS), 3);
        assert!(running.at_source + running.polls_at_source <= LIMITS.source_connections);
        let busy = Running { at_source: 10, ..Running::default() };
        assert!(admits_poll(busy, LIMITS), "one poll may always wait");
        assert!(!admits_poll(Running { polls_at_source: 1, ..busy }, LIMITS));
    }

    #[test]
    fn the_smallest_limits_still_let_one_start() {
        let smallest = Limits {
            tasks_max: 1,
            source_connections: 2,
            dest_connections: 3,
            full_sync_connections: 1,
            verifications_max: 64,
        };
        for sync_type in [SyncType::FullSync, SyncType::Cdc] {
            assert_eq!(start(sync_type, &mut Running::default(), smallest), 1);
        }
        let mut running = Running::default();
        let few = Limits {
            tasks_max: 100,
            source_connections: 3,
            dest_connections: 3,
            full_sync_connections: 1,
            verifications_max: 2,
        };
        assert_eq!(
            (start(SyncType::FullSync, &mut running, few), start(SyncType::Cdc, &mut running, few)),
            (1, 1)
        );
    }
}
