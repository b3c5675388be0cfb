//! Which changes a mapping reads next: checkpoint, retention and capture instances in, one step
//! out.
//!
//! `last_cdc_lsn` means "everything up to and including this LSN is in". So the first change wanted
//! is `checkpoint.next()`, and an instance can give it only if its low watermark is not above that:
//! cleanup moves the watermark first and deletes rows afterwards, which is why a watermark that is
//! still low enough *after* reading proves that nothing was deleted while we read.
//! <https://learn.microsoft.com/sql/relational-databases/track-changes/about-change-data-capture-sql-server#change-data-capture-validity-interval>
//!
//! Which of two instances is read is [`super::instances`]'s to say; the way from one to the next
//! leads through a step that records it.
//!
//! A gap is never stepped over. What is not a gap: CDC enabled a moment ago (nothing captured yet),
//! an idle table (its checkpoint moves with the others), a missing maximum (capture has not run),
//! and a readable secondary that is behind the checkpoint.

mod checkpoint;
mod gap;

pub use checkpoint::{DestCheckpoint, History, StoredCheckpoint};
pub use gap::{Gap, Refusal, Wait};

use super::instances::{Candidates, InstanceCoverage};
use crate::model::{
    capture::{Instance, MaxLsn},
    lsn::Lsn,
};

/// Everything the decision rests on, for one mapping.
#[derive(Clone, Debug)]
pub struct WindowFacts<'a> {
    pub stored: &'a StoredCheckpoint,
    /// U, read before everything else and shared by all mappings of the database.
    pub max_lsn: Option<&'a MaxLsn>,
    /// This table's instances.
    pub instances: &'a [Instance],
    /// What they capture; wanted where there are several.
    pub coverage: Option<&'a InstanceCoverage>,
    pub history: &'a History,
    /// Whether the instance that [`choose`] picks has rows above the checkpoint, up to U.
    pub has_rows: bool,
}

/// The next step of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read changes of `instances[instance]` with `from < LSN <= to`. `stored` is what the
    /// checkpoint must still be (NULL at the start).
    Read {
        instance: usize,
        from: Lsn,
        to: Lsn,
        switch_to: Option<usize>,
    },
    /// Nothing between the checkpoint and U: it may move there with the other idle ones. `from` as
    /// in `Read`.
    Idle {
        from: Lsn,
        to: Lsn,
    },
    /// Already at U.
    Still,
    Gap(Gap),
    Wait(Wait),
    Refused(Refusal),
}

/// Where reading goes on, before anyone looked for rows: which instance, from where, to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub instance: usize,
    pub from: Lsn,
    pub to: Lsn,
    /// After `to` this instance takes over.
    pub switch_to: Option<usize>,
}

/// The instance to read and the bounds, or why not. The probe for rows is made with this choice;
/// [`decide`] repeats it with the answer.
pub fn choose(facts: &WindowFacts<'_>) -> Result<Choice, Step> {
    let stored = facts.stored;
    let candidates = Candidates { instances: facts.instances, coverage: facts.coverage };
    let instances = facts.instances;
    if is_behind(facts) {
        return Err(Step::Wait(Wait::ReplicaBehind));
    }
    let Some(any) = instances.first() else { return Err(Step::Refused(Refusal::NotCaptured)) };
    check_stored(stored, any)?;
    let Some(max_lsn) = facts.max_lsn else { return Err(Step::Wait(Wait::NothingCaptured)) };
    let usable = candidates.usable();
    let Some(&oldest) = usable.first() else {
        let newest = (0..instances.len()).max_by_key(|&i| instances[i].age()).unwrap_or(0);
        return Err(Step::Refused(Refusal::Gated { instance: newest }));
    };
    // With no checkpoint, the oldest instance knows most.
    let from = stored.control.unwrap_or_else(|| instances[oldest].min.prev());
    let instance = current_instance(&candidates, stored, &usable, from)?;
    if instances[instance].min > from.next() {
        return Err(Step::Gap(Gap::Retention { from, min: instances[instance].min }));
    }
    if max_lsn.lsn < from {
        return if !awaits_first_capture(instances, from, max_lsn.lsn) {
            Err(Step::Gap(Gap::Behind { from, max_lsn: max_lsn.lsn }))
        } else if stored.control.is_some() {
            Err(Step::Wait(Wait::JustEnabled))
        } else {
            // Nothing can be read yet, but the checkpoint is known: an idle source may capture
            // nothing for minutes, and a verification waits for a checkpoint.
            Ok(Choice { instance, from, to: from, switch_to: None })
        };
    }
    if let (Some(known), Some(_)) = (stored.transaction(), stored.control) {
        let same = match facts.history {
            History::Unknown => true,
            History::Absent => false,
            History::Present(identity) => *identity == known.identity,
        };
        if !same {
            return Err(Step::Gap(Gap::History { from }));
        }
    }
    // Both instances record everything from the newer one's start on: the old one is read up to and
    // including it, or up to U where it is past that already.
    let successor = candidates
        .successor(instance)
        .filter(|&newer| instances[newer].start <= max_lsn.lsn && from < max_lsn.lsn);
    let (to, switch_to) = match successor {
        Some(newer) => (
            if from < instances[newer].start { instances[newer].start } else { max_lsn.lsn },
            Some(newer),
        ),
        None => (max_lsn.lsn, None),
    };
    Ok(Choice { instance, from, to, switch_to })
}

/// A gap where the two checkpoints differ, or were written for other tables.
fn check_stored(stored: &StoredCheckpoint, any: &Instance) -> Result<(), Step> {
    match (stored.control, &stored.dest_checkpoint) {
        (Some(control), None) => return Err(Step::Gap(Gap::UnknownCheckpoint { control })),
        (control, _) if control != stored.dest_lsn() => {
            return Err(Step::Gap(Gap::CheckpointMismatch {
                control,
                dest_checkpoint: stored.dest_lsn(),
            }));
        }
        (Some(_), Some(dest_checkpoint)) if dest_checkpoint.elsewhere => {
            return Err(Step::Gap(Gap::MappingChanged));
        }
        _ => {}
    }
    if stored
        .dest_checkpoint
        .as_ref()
        .and_then(|dest_checkpoint| dest_checkpoint.source.as_ref())
        .is_some_and(|source| *source != any.source_mark())
    {
        return Err(Step::Gap(Gap::Replaced));
    }
    Ok(())
}

/// A full sync's cut is an instance's start less one, when the instance is newer than everything
/// captured. A checkpoint above that has been captured once.
fn awaits_first_capture(instances: &[Instance], from: Lsn, max_lsn: Lsn) -> bool {
    instances.iter().any(|instance| instance.start > max_lsn && instance.start == from.next())
}

/// Whether the session is on a readable secondary that has not redone what the checkpoint stands
/// for: nothing else that it says of the table means anything yet. It gets there, and then the
/// transaction at the checkpoint says whether it has the same history.
fn is_behind(facts: &WindowFacts<'_>) -> bool {
    let stored = facts.stored;
    let (Some(from), Some(max_lsn)) =
        (stored.control.filter(|_| stored.control == stored.dest_lsn()), facts.max_lsn)
    else {
        return false;
    };
    max_lsn.read_only
        && max_lsn.lsn < from
        && !awaits_first_capture(facts.instances, from, max_lsn.lsn)
}

/// The instance that is read now: the one that the checkpoint names. Where it names none (no
/// checkpoint yet, or one by an earlier version) the choice is free among those that still have the
/// next change.
fn current_instance(
    candidates: &Candidates<'_>,
    stored: &StoredCheckpoint,
    usable: &[usize],
    from: Lsn,
) -> Result<usize, Step> {
    let instances = candidates.instances;
    let named = stored
        .control
        .and(stored.dest_checkpoint.as_ref())
        .and_then(|dest_checkpoint| dest_checkpoint.instance.as_ref());
    if let Some(mark) = named {
        return match instances.iter().position(|instance| instance.mark() == *mark) {
            Some(at) if instances[at].is_readable() => Ok(at),
            // A right may come back; until then only one that captures as much will do.
            Some(at) if !usable.iter().any(|&other| candidates.replaces(other, at)) => {
                Err(Step::Refused(Refusal::Gated { instance: at }))
            }
            _ => Err(Step::Gap(Gap::InstanceGone { mark: mark.clone() })),
        };
    }
    if candidates.are_unknown() {
        return Err(Step::Wait(Wait::Uncompared));
    }
    let oldest = usable.first().copied().unwrap_or(0);
    if stored.control.is_none() {
        return Ok(oldest);
    }
    let still_there: Vec<usize> =
        usable.iter().copied().filter(|&i| instances[i].min <= from.next()).collect();
    Ok(candidates.best(&still_there).unwrap_or(oldest))
}

/// Where applying begins after a copy: every change up to here is in the copied rows.
///
/// `found` and `max_lsn` are what one session found before the copy: the LSN to begin at, and the
/// newest captured LSN. `seen` is how far the session that copies had seen, before it read the
/// first row; it may be on a replica that is behind. If `found` is above `max_lsn`, it is the LSN
/// before a capture instance that is newer than everything captured: every session that sees the
/// instance has seen everything before it.
pub fn copy_start_lsn(found: Lsn, max_lsn: Lsn, seen: Lsn) -> Lsn {
    if max_lsn < found { found } else { found.min(seen) }
}

/// The step for one mapping.
pub fn decide(facts: &WindowFacts<'_>) -> Step {
    match choose(facts) {
        Err(step) => step,
        Ok(Choice { instance, from, to, switch_to }) => {
            if switch_to.is_some() || (facts.has_rows && from < to) {
                Step::Read { instance, from, to, switch_to }
            } else if from < to || facts.stored.control.is_none() {
                Step::Idle { from, to: to.max(from) }
            } else {
                Step::Still
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        capture::{TranIdentity, Transaction},
        name::{Ident, TableName},
    };

    fn lsn(n: u8) -> Lsn {
        Lsn::new([0, 0, 0, 1, 0, 0, 0, 0, 0, n])
    }

    fn instance(id: i32, start: u8, min: Lsn) -> Instance {
        Instance {
            name: Ident::new(format!("dbo_t{id}")),
            change_table: Ident::new(format!("dbo_t{id}_CT")),
            change_table_id: id,
            created: format!("2026-01-{id:02} 00:00:00.000"),
            source_id: 7,
            source_created: "2026-01-01 00:00:00.000".to_owned(),
            source: TableName::new("s", "dbo", "t"),
            start: lsn(start),
            min,
            role: None,
            has_command_id: true,
        }
    }

    fn stored(control: Option<u8>, dest_checkpoint: Option<Option<u8>>) -> StoredCheckpoint {
        StoredCheckpoint {
            control: control.map(lsn),
            dest_checkpoint: dest_checkpoint
                .map(|at| DestCheckpoint { lsn: at.map(lsn), ..unbound() }),
            gap_synced: None,
        }
    }

    fn unbound() -> DestCheckpoint {
        DestCheckpoint {
            lsn: None,
            transaction: None,
            elsewhere: false,
            source: None,
            instance: None,
        }
    }

    /// A checkpoint that names the instance that is read.
    fn reading(at: u8, instance: &Instance) -> StoredCheckpoint {
        let dest_checkpoint = DestCheckpoint {
            lsn: Some(lsn(at)),
            source: Some(instance.source_mark()),
            instance: Some(instance.mark()),
            ..unbound()
        };
        StoredCheckpoint { dest_checkpoint: Some(dest_checkpoint), ..stored(Some(at), None) }
    }

    fn max_lsn(n: u8) -> MaxLsn {
        MaxLsn {
            lsn: lsn(n),
            identity: None,
            transaction: None,
            age_s: None,
            utc_offset_minutes: 0,
            read_only: false,
        }
    }

    /// Which of the columns a, b, c, … each instance captures.
    fn coverage(instances: &[(&Instance, Option<&[bool]>)]) -> InstanceCoverage {
        let captured = instances
            .iter()
            .map(|(instance, captured)| (instance.change_table_id, captured.map(<[bool]>::to_vec)));
        InstanceCoverage {
            columns: ["a", "b"].map(Ident::new).to_vec(),
            captured: captured.collect(),
        }
    }

    fn step(
        stored: &StoredCheckpoint,
        max_lsn: Option<u8>,
        instances: &[Instance],
        has_rows: bool,
    ) -> Step {
        let all: Vec<_> =
            instances.iter().map(|instance| (instance, Some(&[true, true][..]))).collect();
        step_of(stored, max_lsn, instances, &coverage(&all), has_rows)
    }

    fn step_of(
        stored: &StoredCheckpoint,
        max_lsn_at: Option<u8>,
        instances: &[Instance],
        coverage: &InstanceCoverage,
        has_rows: bool,
    ) -> Step {
        let max_lsn = max_lsn_at.map(max_lsn);
        decide(&WindowFacts {
            stored,
            max_lsn: max_lsn.as_ref(),
            instances,
            coverage: Some(coverage),
            history: &History::Unknown,
            has_rows,
        })
    }

    #[test]
    fn one_instance() {
        let at = |n| stored(Some(n), Some(Some(n)));
        let none = stored(None, None);
        let one = [instance(1, 10, lsn(10))];
        let cases = [
            (
                "start at the minimum, inclusive",
                &none,
                Some(20),
                &one,
                true,
                Step::Read { instance: 0, from: lsn(9), to: lsn(20), switch_to: None },
            ),
            (
                "start with nothing there",
                &none,
                Some(20),
                &one,
                false,
                Step::Idle { from: lsn(9), to: lsn(20) },
            ),
            (
                "just enabled, with no checkpoint",
                &none,
                Some(8),
                &one,
                false,
                Step::Idle { from: lsn(9), to: lsn(9) },
            ),
            (
                "just enabled, after a full sync",
                &at(9),
                Some(8),
                &one,
                false,
                Step::Wait(Wait::JustEnabled),
            ),
            ("nothing captured", &none, None, &one, false, Step::Wait(Wait::NothingCaptured)),
            (
                "go on",
                &at(12),
                Some(20),
                &one,
                true,
                Step::Read { instance: 0, from: lsn(12), to: lsn(20), switch_to: None },
            ),
            (
                "oldest still there",
                &at(9),
                Some(20),
                &one,
                true,
                Step::Read { instance: 0, from: lsn(9), to: lsn(20), switch_to: None },
            ),
            (
                "one too old",
                &at(8),
                Some(20),
                &one,
                true,
                Step::Gap(Gap::Retention { from: lsn(8), min: lsn(10) }),
            ),
            ("idle", &at(12), Some(20), &one, false, Step::Idle { from: lsn(12), to: lsn(20) }),
            ("still", &at(20), Some(20), &one, false, Step::Still),
            (
                "back in time",
                &at(21),
                Some(20),
                &one,
                false,
                Step::Gap(Gap::Behind { from: lsn(21), max_lsn: lsn(20) }),
            ),
        ];
        for (name, stored, max_lsn, instances, has_rows, expected) in cases {
            assert_eq!(step(stored, max_lsn, instances, has_rows), expected, "{name}");
        }
    }

    #[test]
    fn checkpoints_that_do_not_agree() {
        let one = [instance(1, 10, lsn(10))];
        let foreign = stored(Some(12), None);
        assert_eq!(
            step(&foreign, Some(20), &one, false),
            Step::Gap(Gap::UnknownCheckpoint { control: lsn(12) })
        );
        for (control, dest_checkpoint) in [(Some(12), Some(11)), (Some(12), None), (None, Some(12))]
        {
            let torn = stored(control, Some(dest_checkpoint));
            assert_eq!(
                step(&torn, Some(20), &one, true),
                Step::Gap(Gap::CheckpointMismatch {
                    control: control.map(lsn),
                    dest_checkpoint: dest_checkpoint.map(lsn)
                }),
                "{control:?} {dest_checkpoint:?}"
            );
        }
        assert!(matches!(step(&stored(None, Some(None)), Some(20), &one, true), Step::Read { .. }));
    }

    #[test]
    fn refusals() {
        let at = stored(Some(12), Some(Some(12)));
        assert_eq!(step(&at, Some(20), &[], false), Step::Refused(Refusal::NotCaptured));
        assert_eq!(
            step(&at, Some(20), &[instance(1, 10, Lsn::ZERO)], false),
            Step::Refused(Refusal::Gated { instance: 0 })
        );
    }

    #[test]
    fn two_instances_finish_the_old_one_first() {
        let two = [instance(1, 10, lsn(10)), instance(2, 15, lsn(15))];
        let at = |n| reading(n, &two[0]);
        let read = |from, to, switch_to| Step::Read {
            instance: 0,
            from: lsn(from),
            to: lsn(to),
            switch_to,
        };
        for (from, max_lsn, expected) in [
            (12, 20, read(12, 15, Some(1))),
            (12, 14, read(12, 14, None)),
            // just before the new one's start, and past it: the way there is a step all the same,
            // for what only the new one has
            (14, 20, read(14, 15, Some(1))),
            (15, 20, read(15, 20, Some(1))),
            (17, 20, read(17, 20, Some(1))),
        ] {
            assert_eq!(step(&at(from), Some(max_lsn), &two, true), expected, "{from} {max_lsn}");
        }
        // the switch is a step of its own even when the old instance has nothing left
        assert!(matches!(
            step(&at(12), Some(20), &two, false),
            Step::Read { switch_to: Some(1), .. }
        ));
        assert_eq!(step(&at(20), Some(20), &two, false), Step::Still);
        // the old instance was cleaned past the checkpoint, the new one begins later
        let cleaned = [instance(1, 14, lsn(14)), instance(2, 15, lsn(15))];
        assert_eq!(
            step(&reading(12, &cleaned[0]), Some(20), &cleaned, true),
            Step::Gap(Gap::Retention { from: lsn(12), min: lsn(14) })
        );
    }

    /// Cleanup moves each instance's start for itself: past both, the older one may have the later
    /// start.
    #[test]
    fn cleanup_makes_no_instance_newer() {
        let (old, new) = (instance(1, 18, lsn(18)), instance(2, 17, lsn(17)));
        let two = [old.clone(), new.clone()];
        let at = |n, instance| reading(n, instance);
        assert_eq!(
            step(&at(19, &new), Some(20), &two, true),
            Step::Read { instance: 1, from: lsn(19), to: lsn(20), switch_to: None }
        );
        assert_eq!(
            step(&at(19, &old), Some(20), &two, true),
            Step::Read { instance: 0, from: lsn(19), to: lsn(20), switch_to: Some(1) }
        );
        // Nor is it gone back to where only the old one still has the next change.
        let cleaned = [instance(1, 10, lsn(10)), instance(2, 17, lsn(17))];
        assert_eq!(
            step(&at(12, &cleaned[1]), Some(20), &cleaned, true),
            Step::Gap(Gap::Retention { from: lsn(12), min: lsn(17) })
        );
        // A checkpoint by an earlier version names none, and goes on with the newer one.
        let unnamed = stored(Some(19), Some(Some(19)));
        assert_eq!(
            step(&unnamed, Some(20), &two, true),
            Step::Read { instance: 1, from: lsn(19), to: lsn(20), switch_to: None }
        );
        assert_eq!(
            step(&unnamed, Some(20), &[new, old], true),
            Step::Read { instance: 0, from: lsn(19), to: lsn(20), switch_to: None }
        );
    }

    /// A second instance that somebody made for themselves: narrower, without the key, or not for
    /// this login.
    #[test]
    fn an_instance_with_less_is_never_moved_to() {
        let (own, other) = (instance(1, 10, lsn(10)), instance(2, 15, lsn(15)));
        let unreadable = instance(2, 15, Lsn::ZERO);
        let whole: &[bool] = &[true, true];
        for (second, captured) in
            [(&other, Some(&[true, false][..])), (&other, None), (&unreadable, Some(whole))]
        {
            let two = [own.clone(), second.clone()];
            let coverage = coverage(&[(&own, Some(whole)), (second, captured)]);
            let read = Step::Read { instance: 0, from: lsn(16), to: lsn(20), switch_to: None };
            for stored in [reading(16, &own), stored(Some(16), Some(Some(16)))] {
                assert_eq!(step_of(&stored, Some(20), &two, &coverage, true), read, "{captured:?}");
            }
            let from_the_start =
                Step::Read { instance: 0, from: lsn(9), to: lsn(20), switch_to: None };
            assert_eq!(
                step_of(&stored(None, None), Some(20), &two, &coverage, true),
                from_the_start
            );
            let candidates = Candidates { instances: &two, coverage: Some(&coverage) };
            assert_eq!(candidates.passed_over(0).len(), 1, "{captured:?}");
            // The own one is gone: the other may do, after a full sync.
            let gone = Gap::InstanceGone { mark: own.mark() };
            let step = step_of(&reading(16, &own), Some(20), &two[1..], &coverage, true);
            let expected = if second.is_readable() {
                Step::Gap(gone)
            } else {
                Step::Refused(Refusal::Gated { instance: 0 })
            };
            assert_eq!(step, expected);
        }
        // One that has more takes over, and one that has as much.
        let coverage = coverage(&[(&own, Some(&[true, false])), (&other, Some(whole))]);
        let step = step_of(&reading(16, &own), Some(20), &[own.clone(), other], &coverage, true);
        assert_eq!(
            step,
            Step::Read { instance: 0, from: lsn(16), to: lsn(20), switch_to: Some(1) }
        );
    }

    #[test]
    fn an_instance_that_can_no_longer_be_read_is_named_unless_another_has_as_much() {
        let (own, other) = (instance(1, 10, Lsn::ZERO), instance(2, 15, lsn(15)));
        let two = [own.clone(), other.clone()];
        let whole: &[bool] = &[true, true];
        for (captured, expected) in [
            (&[true, false][..], Step::Refused(Refusal::Gated { instance: 0 })),
            (whole, Step::Gap(Gap::InstanceGone { mark: own.mark() })),
        ] {
            let coverage = coverage(&[(&own, Some(whole)), (&other, Some(captured))]);
            assert_eq!(step_of(&reading(16, &own), Some(20), &two, &coverage, true), expected);
        }
    }

    /// Nobody knows what they capture: the one that is read goes on, and no other is begun with.
    #[test]
    fn instances_that_were_not_compared_change_nothing() {
        let two = [instance(1, 10, lsn(10)), instance(2, 15, lsn(15))];
        let max_lsn = max_lsn(20);
        let step = |stored: &StoredCheckpoint| {
            decide(&WindowFacts {
                stored,
                max_lsn: Some(&max_lsn),
                instances: &two,
                coverage: None,
                history: &History::Unknown,
                has_rows: true,
            })
        };
        assert_eq!(
            step(&reading(16, &two[0])),
            Step::Read { instance: 0, from: lsn(16), to: lsn(20), switch_to: None }
        );
        assert_eq!(step(&stored(Some(16), Some(Some(16)))), Step::Wait(Wait::Uncompared));
    }

    #[test]
    fn another_table_under_the_same_name_is_a_gap() {
        let before = instance(1, 10, lsn(10));
        for after in [
            Instance { source_id: 8, ..before.clone() },
            Instance { source_created: "2026-02-01".to_owned(), ..before.clone() },
        ] {
            assert_eq!(
                step(&reading(12, &before), Some(20), &[after], true),
                Step::Gap(Gap::Replaced)
            );
        }
        assert!(matches!(
            step(&reading(12, &before), Some(20), &[before], true),
            Step::Read { .. }
        ));
    }

    #[test]
    fn a_secondary_behind_the_checkpoint_is_waited_for() {
        let at = stored(Some(21), Some(Some(21)));
        let one = [instance(1, 10, lsn(10))];
        let max_lsn = MaxLsn { read_only: true, ..max_lsn(20) };
        // what the secondary says of a transaction that it has not redone means nothing, nor that
        // it has no instance or another one
        let facts = WindowFacts {
            stored: &at,
            max_lsn: Some(&max_lsn),
            instances: &one,
            coverage: None,
            history: &History::Absent,
            has_rows: true,
        };
        assert_eq!(decide(&facts), Step::Wait(Wait::ReplicaBehind));
        assert_eq!(
            decide(&WindowFacts { instances: &[], ..facts.clone() }),
            Step::Wait(Wait::ReplicaBehind)
        );
        let named = reading(21, &instance(2, 18, lsn(18)));
        assert_eq!(
            decide(&WindowFacts { stored: &named, ..facts.clone() }),
            Step::Wait(Wait::ReplicaBehind)
        );
        // but what the two databases of ours say of each other does
        let torn = stored(Some(21), Some(Some(19)));
        assert!(matches!(
            decide(&WindowFacts { stored: &torn, ..facts }),
            Step::Gap(Gap::CheckpointMismatch { .. })
        ));
    }

    #[test]
    fn a_copy_begins_where_its_own_session_is() {
        assert_eq!(copy_start_lsn(lsn(20), lsn(20), lsn(25)), lsn(20));
        assert_eq!(copy_start_lsn(lsn(20), lsn(20), lsn(17)), lsn(17));
        // the capture instance is newer than everything captured
        assert_eq!(copy_start_lsn(lsn(24), lsn(20), lsn(24)), lsn(24));
    }

    #[test]
    fn another_history_is_a_gap() {
        let known = TranIdentity { tran_id: vec![1], end_time: "2026-01-01 00:00:00.000".into() };
        let other = TranIdentity { tran_id: vec![2], ..known.clone() };
        let idle = TranIdentity { tran_id: vec![0], ..known.clone() };
        let one = [instance(1, 10, lsn(10))];
        let max_lsn = max_lsn(20);
        let is_gap = |identity: &TranIdentity, history: &History| {
            let transaction = Some(Transaction { lsn: lsn(12), identity: identity.clone() });
            let dest_checkpoint = DestCheckpoint { lsn: Some(lsn(12)), transaction, ..unbound() };
            let stored = StoredCheckpoint {
                dest_checkpoint: Some(dest_checkpoint),
                ..stored(Some(12), None)
            };
            let facts = WindowFacts {
                stored: &stored,
                max_lsn: Some(&max_lsn),
                instances: &one,
                coverage: None,
                history,
                has_rows: false,
            };
            decide(&facts) == Step::Gap(Gap::History { from: lsn(12) })
        };
        for (history, gap) in [
            (History::Unknown, false),
            (History::Absent, true),
            (History::Present(known.clone()), false),
            (History::Present(other), true),
        ] {
            assert_eq!(is_gap(&known, &history), gap, "{history:?}");
            assert!(!is_gap(&idle, &history), "{history:?} against an entry of an idle database");
        }
    }
}
