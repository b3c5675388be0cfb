//! Which mappings belong to which daemon.
//!
//! Nobody hands them out. Each daemon knows how many mappings there are, how many daemons, and which of them it is (the rank of its place
//! among the places taken): that makes its share, and the shares add up to all mappings. Who has more than its share gives up the rest, who
//! has less takes what is free. Daemons that look at different moments may disagree for a tick; the locks decide then, and a mapping that
//! nobody took is taken at the next look.

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
    /// Somebody who shares with nobody: what is free is for the taking.
    pub const ALONE: Members = Members { count: 1, rank: 0 };

    /// Whether it does what one of them has to do for all.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }
}

/// What one daemon has to do about its mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Given up now.
    pub release: Vec<MappingId>,
    /// Given up as soon as nothing runs for them; nothing new starts.
    pub leaving: Vec<MappingId>,
    /// Tried in this order,
    pub candidates: Vec<MappingId>,
    /// until so many were free.
    pub take_max: usize,
}

/// `wanted` in ascending order: what is to be divided. `busy`: something runs for them here.
pub fn divide(wanted: &[MappingId], held: &HashSet<MappingId>, busy: &HashSet<MappingId>, members: Members) -> Moves {
    let count = members.count.max(1);
    let share = wanted.len() / count + usize::from(members.rank < wanted.len() % count);
    let wanted_set: HashSet<MappingId> = wanted.iter().copied().collect();
    let mut moves = Moves::default();
    let (useful, useless): (Vec<MappingId>, Vec<MappingId>) = held.iter().copied().partition(|id| wanted_set.contains(id));
    moves.release.extend(useless.into_iter().filter(|id| !busy.contains(id)));
    if useful.len() >= share {
        let mut surplus = useful.len() - share;
        let (mut running, mut idle): (Vec<MappingId>, Vec<MappingId>) = useful.into_iter().partition(|id| busy.contains(id));
        idle.sort_unstable();
        running.sort_unstable();
        while surplus > 0
            && let Some(id) = idle.pop()
        {
            moves.release.push(id);
            surplus -= 1;
        }
        moves.leaving = running.split_off(running.len().saturating_sub(surplus));
    } else {
        moves.take_max = share - useful.len();
        // Each begins elsewhere, so that they do not all try the same ones first.
        let first = members.rank * wanted.len() / count;
        moves.candidates =
            wanted.iter().cycle().skip(first).take(wanted.len()).copied().filter(|id| !held.contains(id) && !busy.contains(id)).collect();
    }
    moves.release.sort_unstable();
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<i32>) -> Vec<MappingId> {
        range.map(MappingId).collect()
    }

    /// Lets `daemons` look in turn until nothing moves; every mapping has one owner then, and the shares differ by one at most.
    fn settle(wanted: &[MappingId], daemons: &mut [HashSet<MappingId>]) {
        let none = HashSet::new();
        let count = daemons.len();
        for _ in 0..4 {
            for rank in 0..count {
                let moves = divide(wanted, &daemons[rank], &none, Members { count, rank });
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
        let (most, least) = (daemons.iter().map(HashSet::len).max(), daemons.iter().map(HashSet::len).min());
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
            assert_eq!(divide(&wanted, held, &HashSet::new(), Members { count: 3, rank }), Moves::default());
        }
    }

    #[test]
    fn what_runs_is_given_up_when_it_has_ended() {
        let wanted = ids(0..4);
        let held: HashSet<_> = wanted.iter().copied().collect();
        let busy = HashSet::from([MappingId(0), MappingId(1), MappingId(3)]);
        let moves = divide(&wanted, &held, &busy, Members { count: 2, rank: 0 });
        assert_eq!((moves.release, moves.leaving), (vec![MappingId(2)], vec![MappingId(3)]));
        let gone = divide(&[], &held, &busy, Members { count: 2, rank: 0 });
        assert_eq!((gone.release, gone.leaving), (vec![MappingId(2)], vec![]));
    }

    #[test]
    fn what_still_runs_from_before_is_not_taken_again() {
        let moves = divide(&ids(0..3), &HashSet::new(), &HashSet::from([MappingId(1)]), Members::ALONE);
        assert_eq!((moves.candidates, moves.take_max), (vec![MappingId(0), MappingId(2)], 3));
    }
}
