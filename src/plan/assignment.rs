//! Which mappings belong to which daemon.
//!
//! No process assigns them. Each daemon knows how many mappings there are, how many daemons, and
//! which of them it is (the rank of its place among the places taken): that makes its share, and
//! the shares add up to all mappings. Who has more than its share gives up the rest, who has less
//! takes what is free. Daemons that look at different moments may disagree for a tick; the locks
//! decide then, and a mapping that no daemon took is taken at the next refresh.

use crate::model::id::MappingId;
use std::collections::HashSet;

/// The daemons as one of them sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Members {
    pub count: usize,
    /// This one's place among them, from 0.
    pub rank: usize,
}

impl Members {
    /// The only daemon: every mapping is its own.
    pub const ALONE: Members = Members { count: 1, rank: 0 };

    /// Whether it does what one of them has to do for all.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }
}

/// What one daemon has and does.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    /// Something runs for them here.
    pub busy: HashSet<MappingId>,
    /// Nothing new starts for them, by the last look.
    pub leaving: HashSet<MappingId>,
}

/// What one daemon has to do about its mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Given up now: nothing runs for them, and since the last look nothing could begin.
    pub release: Vec<MappingId>,
    /// To be given up: nothing new starts from now on.
    pub leaving: HashSet<MappingId>,
    /// Tried in this order,
    pub candidates: Vec<MappingId>,
    /// until so many were free.
    pub take_max: usize,
}

/// `wanted` in ascending order: what is to be divided.
///
/// Giving up takes two looks. While one is under way, work may still begin by what the last one
/// said; only what was leaving already is certain to be idle.
pub fn divide(
    wanted: &[MappingId],
    held: &HashSet<MappingId>,
    holding: &Holding,
    members: Members,
) -> Moves {
    let count = members.count.max(1);
    let share = wanted.len() / count + usize::from(members.rank < wanted.len() % count);
    let wanted_set: HashSet<MappingId> = wanted.iter().copied().collect();
    let mut moves = Moves::default();
    let (mut kept, mut surplus): (Vec<MappingId>, Vec<MappingId>) =
        held.iter().copied().partition(|id| wanted_set.contains(id));
    if kept.len() >= share {
        // what leaves already, what is idle, the newest first
        kept.sort_unstable_by_key(|id| {
            (!holding.leaving.contains(id), holding.busy.contains(id), std::cmp::Reverse(*id))
        });
        kept.truncate(kept.len() - share);
        surplus.extend(kept);
    } else {
        moves.take_max = share - kept.len();
        // Each begins elsewhere, so that they do not all try the same ones first.
        let first = members.rank * wanted.len() / count;
        moves.candidates = wanted
            .iter()
            .cycle()
            .skip(first)
            .take(wanted.len())
            .copied()
            .filter(|id| !held.contains(id) && !holding.busy.contains(id))
            .collect();
    }
    let (release, leaving) = surplus
        .into_iter()
        .partition(|id| holding.leaving.contains(id) && !holding.busy.contains(id));
    (moves.release, moves.leaving) = (release, HashSet::from_iter::<Vec<MappingId>>(leaving));
    moves.release.sort_unstable();
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<i32>) -> Vec<MappingId> {
        range.map(MappingId).collect()
    }

    /// Lets `daemons` look in turn until nothing moves; every mapping has one owner then, and the
    /// shares differ by one at most.
    fn settle(wanted: &[MappingId], daemons: &mut [HashSet<MappingId>]) {
        let count = daemons.len();
        let mut holding = vec![Holding::default(); count];
        for _ in 0..6 {
            for rank in 0..count {
                let moves = divide(wanted, &daemons[rank], &holding[rank], Members { count, rank });
                holding[rank].leaving = moves.leaving;
                for id in &moves.release {
                    daemons[rank].remove(id);
                }
                let free: Vec<_> = moves
                    .candidates
                    .iter()
                    .copied()
                    .filter(|id| !daemons.iter().any(|held| held.contains(id)))
                    .take(moves.take_max)
                    .collect();
                daemons[rank].extend(free);
            }
        }
        let owned: usize = daemons.iter().map(HashSet::len).sum();
        assert_eq!(owned, wanted.len());
        let (most, least) =
            (daemons.iter().map(HashSet::len).max(), daemons.iter().map(HashSet::len).min());
        assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{most:?} {least:?}");
    }

    #[test]
    fn the_mappings_divide_and_divide_again() {
        let wanted = ids(1..11);
        let mut daemons = vec![HashSet::new()];
        settle(&wanted, &mut daemons);
        daemons.extend([HashSet::new(), HashSet::new()]);
        settle(&wanted, &mut daemons);
        daemons.remove(0);
        settle(&wanted, &mut daemons);
        settle(&ids(3..40), &mut daemons);
        settle(&[], &mut daemons);
        daemons.extend((0..50).map(|_| HashSet::new()));
        settle(&wanted, &mut daemons);
    }

    #[test]
    fn what_settled_does_not_move() {
        let wanted = ids(0..7);
        let mut daemons = vec![HashSet::new(), HashSet::new(), HashSet::new()];
        settle(&wanted, &mut daemons);
        for (rank, held) in daemons.iter().enumerate() {
            assert_eq!(
                divide(&wanted, held, &Holding::default(), Members { count: 3, rank }),
                Moves::default()
            );
        }
    }

    /// While a look is under way, work begins by what the last one said: what it does not know to
    /// be leaving stays.
    #[test]
    fn nothing_is_given_up_that_could_still_begin() {
        let wanted = ids(0..4);
        let held: HashSet<_> = wanted.iter().copied().collect();
        let busy = HashSet::from([MappingId(0), MappingId(1), MappingId(3)]);
        let half = Members { count: 2, rank: 0 };
        let first =
            divide(&wanted, &held, &Holding { busy: busy.clone(), leaving: HashSet::new() }, half);
        assert_eq!(
            (first.release, &first.leaving),
            (vec![], &HashSet::from([MappingId(2), MappingId(3)]))
        );
        let second = divide(&wanted, &held, &Holding { busy, leaving: first.leaving }, half);
        assert_eq!(
            (second.release, second.leaving),
            (vec![MappingId(2)], HashSet::from([MappingId(3)])),
            "3 still runs"
        );
        let gone = divide(
            &[],
            &held,
            &Holding { busy: HashSet::new(), leaving: HashSet::from([MappingId(1)]) },
            half,
        );
        assert_eq!((gone.release, gone.leaving.len()), (vec![MappingId(1)], 3));
    }

    #[test]
    fn what_still_runs_from_before_is_not_taken_again() {
        let holding = Holding { busy: HashSet::from([MappingId(1)]), leaving: HashSet::new() };
        let moves = divide(&ids(0..3), &HashSet::new(), &holding, Members::ALONE);
        assert_eq!((moves.candidates, moves.take_max), (vec![MappingId(0), MappingId(2)], 3));
    }
}
