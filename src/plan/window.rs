//! Which changes a mapping reads next: checkpoint, retention and capture instances in, one step out.
//!
//! `last_cdc_lsn` means "everything up to and including this LSN is in". So the first change wanted is `checkpoint.next()`, and an
//! instance can give it only if its low watermark is not above that: cleanup moves the watermark first and deletes rows afterwards, which
//! is why a watermark that is still low enough *after* reading proves that nothing was deleted while we read.
//! <https://learn.microsoft.com/sql/relational-databases/track-changes/about-change-data-capture-sql-server#change-data-capture-validity-interval>
//!
//! A gap is never stepped over. What is not a gap: CDC enabled a moment ago (nothing captured yet), an idle table (its checkpoint moves
//! with the others), and a missing maximum (capture has not run).

use crate::model::{
    capture::{Instance, TranIdentity, Upper},
    lsn::Lsn,
};
use std::time::Duration;

/// The twin of `last_cdc_lsn`: our row in the destination database, written in the transaction that wrote the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    pub lsn: Option<Lsn>,
    /// The source transaction at `lsn`, where it was known.
    pub identity: Option<TranIdentity>,
    /// It was written for other tables than the mapping names now, or for a destination table that was dropped since.
    pub elsewhere: bool,
}

/// What both databases remember of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Stored {
    pub control: Option<Lsn>,
    pub twin: Option<Twin>,
    /// How long ago a gap started a full sync, if that was today.
    pub gap_synced: Option<Duration>,
}

impl Stored {
    fn twin_lsn(&self) -> Option<Lsn> {
        self.twin.as_ref().and_then(|twin| twin.lsn)
    }
}

/// What `cdc.lsn_time_mapping` says of a checkpoint's LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// Not asked, or below what the mapping table still holds: says nothing.
    Unknown,
    /// There is no transaction at that LSN, although earlier ones are still listed.
    Absent,
    Present(TranIdentity),
}

/// Everything the decision rests on, for one mapping.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub stored: &'a Stored,
    /// U, read before everything else and shared by all mappings of the database.
    pub upper: Option<&'a Upper>,
    /// This table's instances.
    pub instances: &'a [Instance],
    pub history: &'a History,
    /// Whether the instance that [`choose`] picks has rows above the checkpoint, up to U.
    pub has_rows: bool,
}

/// Why changes are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The checkpoint is older than what the instance still holds (retention, or CDC disabled and enabled again).
    Retention { from: Lsn, min: Lsn },
    /// The two checkpoints differ: one of the two databases was restored or failed over alone.
    Torn { control: Option<Lsn>, twin: Option<Lsn> },
    /// The mapping was pointed at other tables, or its destination table was made anew.
    Elsewhere,
    /// The control table has an LSN that we did not write.
    Foreign { control: Lsn },
    /// The source went back in time.
    Behind { from: Lsn, upper: Lsn },
    /// The source has another transaction, or none, at the checkpoint.
    History { from: Lsn },
}

impl Gap {
    /// What was lost, for error_logs.
    pub fn words(&self) -> String {
        let shown = |lsn: &Option<Lsn>| lsn.map_or_else(|| "NULL".to_owned(), |lsn| lsn.to_string());
        match self {
            Gap::Retention { from, min } => format!(
                "the changes after {from} and before {min} are no longer in the change table (cleanup passed them, or CDC was disabled and enabled again)"
            ),
            Gap::Torn { control, twin } => format!(
                "last_cdc_lsn is {}, but the destination database's own record says {}: one of the two databases was restored or failed over alone",
                shown(control),
                shown(twin)
            ),
            Gap::Elsewhere => {
                "last_cdc_lsn was written for other tables: the mapping was changed, or the destination table was dropped and made anew"
                    .to_owned()
            }
            Gap::Foreign { control } => {
                format!("last_cdc_lsn {control} was not written by this service: the destination database has no record of it")
            }
            Gap::Behind { from, upper } => {
                format!("the source's newest LSN {upper} is below the checkpoint {from}: the source was restored to an earlier state")
            }
            Gap::History { from } => {
                format!("the source has another transaction at the checkpoint {from}, or none: it was restored to another history")
            }
        }
    }
}

/// Why there is nothing to do but wait; never an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Max LSN is NULL: the capture job has not run since CDC was enabled, or it does not run.
    NothingCaptured,
    /// The instance is newer than everything captured.
    JustEnabled,
}

/// What cannot be read, and not because of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No capture instance for the table.
    NotCaptured,
    /// The low watermark is zero: this login is not in the gating role, or may not read the captured columns.
    Gated { instance: usize },
}

/// The next step of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read changes of `instances[instance]` with `from < LSN <= to`. `stored` is what the checkpoint must still be (NULL at the start).
    Read {
        instance: usize,
        from: Lsn,
        to: Lsn,
        switch_to: Option<usize>,
    },
    /// Nothing between the checkpoint and U: it may move there with the other idle ones. `from` as in `Read`.
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

/// The instance to read and the bounds, or why not. The probe for rows is made with this choice; [`decide`] repeats it with the answer.
pub fn choose(facts: &Facts<'_>) -> Result<Choice, Step> {
    let mut order: Vec<usize> = (0..facts.instances.len()).collect();
    // newest first
    order.sort_by_key(|&i| std::cmp::Reverse((facts.instances[i].start, facts.instances[i].change_table_id)));
    let Some(&newest) = order.first() else { return Err(Step::Refused(Refusal::NotCaptured)) };
    let stored = facts.stored;
    match (stored.control, &stored.twin) {
        (Some(control), None) => return Err(Step::Gap(Gap::Foreign { control })),
        (control, _) if control != stored.twin_lsn() => {
            return Err(Step::Gap(Gap::Torn { control, twin: stored.twin_lsn() }));
        }
        (Some(_), Some(twin)) if twin.elsewhere => return Err(Step::Gap(Gap::Elsewhere)),
        _ => {}
    }
    let Some(upper) = facts.upper else { return Err(Step::Wait(Wait::NothingCaptured)) };
    if let Some(&gated) = order.iter().find(|&&i| facts.instances[i].min.is_zero()) {
        return Err(Step::Refused(Refusal::Gated { instance: gated }));
    }
    // With no checkpoint, the oldest instance knows most.
    let first = order.last().map_or(newest, |&i| i);
    let from = stored.control.unwrap_or_else(|| facts.instances[first].min.prev());
    let Some(place) = order.iter().position(|&i| facts.instances[i].min <= from.next()) else {
        return Err(Step::Gap(Gap::Retention { from, min: facts.instances[first].min }));
    };
    if upper.lsn < from {
        // A full sync's cut is an instance's start less one, when the instance is newer than everything captured. A checkpoint above that
        // has been captured once.
        let awaits = |instance: &Instance| instance.start > upper.lsn && instance.start == from.next();
        return Err(if facts.instances.iter().any(awaits) {
            Step::Wait(Wait::JustEnabled)
        } else {
            Step::Gap(Gap::Behind { from, upper: upper.lsn })
        });
    }
    if let (Some(known), Some(_)) = (stored.twin.as_ref().and_then(|twin| twin.identity.as_ref()), stored.control) {
        let same = match facts.history {
            History::Unknown => true,
            History::Absent => false,
            History::Present(identity) => identity == known,
        };
        if !same {
            return Err(Step::Gap(Gap::History { from }));
        }
    }
    let instance = order[place];
    // Both instances record everything from the newer one's start on: the old one is read up to and including it.
    let (to, switch_to) = match place.checked_sub(1).map(|newer| order[newer]) {
        Some(newer) if facts.instances[newer].start <= upper.lsn => (facts.instances[newer].start, Some(newer)),
        _ => (upper.lsn, None),
    };
    Ok(Choice { instance, from, to, switch_to })
}

/// The step for one mapping.
pub fn decide(facts: &Facts<'_>) -> Step {
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
    use crate::model::name::{Ident, TableName};

    fn lsn(n: u8) -> Lsn {
        Lsn::new([0, 0, 0, 1, 0, 0, 0, 0, 0, n])
    }

    fn instance(id: i32, start: u8, min: Lsn) -> Instance {
        Instance {
            name: Ident::new(format!("dbo_t{id}")),
            change_table: Ident::new(format!("dbo_t{id}_CT")),
            change_table_id: id,
            source_id: 7,
            source: TableName::new("s", "dbo", "t"),
            start: lsn(start),
            min,
            role: None,
            has_command_id: true,
        }
    }

    fn stored(control: Option<u8>, twin: Option<Option<u8>>) -> Stored {
        Stored {
            control: control.map(lsn),
            twin: twin.map(|at| Twin { lsn: at.map(lsn), identity: None, elsewhere: false }),
            gap_synced: None,
        }
    }

    fn step(stored: &Stored, upper: Option<u8>, instances: &[Instance], has_rows: bool) -> Step {
        let upper = upper.map(|n| Upper { lsn: lsn(n), identity: None, age_s: None, utc_offset_minutes: 0 });
        decide(&Facts { stored, upper: upper.as_ref(), instances, history: &History::Unknown, has_rows })
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
            ("start with nothing there", &none, Some(20), &one, false, Step::Idle { from: lsn(9), to: lsn(20) }),
            ("just enabled", &none, Some(8), &one, false, Step::Wait(Wait::JustEnabled)),
            ("just enabled, after a full sync", &at(9), Some(8), &one, false, Step::Wait(Wait::JustEnabled)),
            ("nothing captured", &none, None, &one, false, Step::Wait(Wait::NothingCaptured)),
            ("go on", &at(12), Some(20), &one, true, Step::Read { instance: 0, from: lsn(12), to: lsn(20), switch_to: None }),
            ("oldest still there", &at(9), Some(20), &one, true, Step::Read { instance: 0, from: lsn(9), to: lsn(20), switch_to: None }),
            ("one too old", &at(8), Some(20), &one, true, Step::Gap(Gap::Retention { from: lsn(8), min: lsn(10) })),
            ("idle", &at(12), Some(20), &one, false, Step::Idle { from: lsn(12), to: lsn(20) }),
            ("still", &at(20), Some(20), &one, false, Step::Still),
            ("back in time", &at(21), Some(20), &one, false, Step::Gap(Gap::Behind { from: lsn(21), upper: lsn(20) })),
        ];
        for (name, stored, upper, instances, has_rows, expected) in cases {
            assert_eq!(step(stored, upper, instances, has_rows), expected, "{name}");
        }
    }

    #[test]
    fn checkpoints_that_do_not_agree() {
        let one = [instance(1, 10, lsn(10))];
        let foreign = stored(Some(12), None);
        assert_eq!(step(&foreign, Some(20), &one, false), Step::Gap(Gap::Foreign { control: lsn(12) }));
        for (control, twin) in [(Some(12), Some(11)), (Some(12), None), (None, Some(12))] {
            let torn = stored(control, Some(twin));
            assert_eq!(
                step(&torn, Some(20), &one, true),
                Step::Gap(Gap::Torn { control: control.map(lsn), twin: twin.map(lsn) }),
                "{control:?} {twin:?}"
            );
        }
        assert!(matches!(step(&stored(None, Some(None)), Some(20), &one, true), Step::Read { .. }));
    }

    #[test]
    fn refusals() {
        let at = stored(Some(12), Some(Some(12)));
        assert_eq!(step(&at, Some(20), &[], false), Step::Refused(Refusal::NotCaptured));
        assert_eq!(step(&at, Some(20), &[instance(1, 10, Lsn::ZERO)], false), Step::Refused(Refusal::Gated { instance: 0 }));
    }

    #[test]
    fn two_instances_finish_the_old_one_first() {
        let two = [instance(1, 10, lsn(10)), instance(2, 15, lsn(15))];
        let at = |n| stored(Some(n), Some(Some(n)));
        let cases = [
            (12, 20, Step::Read { instance: 0, from: lsn(12), to: lsn(15), switch_to: Some(1) }),
            (12, 14, Step::Read { instance: 0, from: lsn(12), to: lsn(14), switch_to: None }),
            (14, 20, Step::Read { instance: 1, from: lsn(14), to: lsn(20), switch_to: None }),
            (15, 20, Step::Read { instance: 1, from: lsn(15), to: lsn(20), switch_to: None }),
        ];
        for (from, upper, expected) in cases {
            assert_eq!(step(&at(from), Some(upper), &two, true), expected, "{from} {upper}");
        }
        // the switch is a step of its own even when the old instance has nothing left
        assert!(matches!(step(&at(12), Some(20), &two, false), Step::Read { switch_to: Some(1), .. }));
        // the old instance was cleaned past the checkpoint, the new one begins later
        let cleaned = [instance(1, 10, lsn(14)), instance(2, 15, lsn(15))];
        assert_eq!(step(&at(12), Some(20), &cleaned, true), Step::Gap(Gap::Retention { from: lsn(12), min: lsn(14) }));
    }

    #[test]
    fn another_history_is_a_gap() {
        let known = TranIdentity { tran_id: vec![1], end_time: "2026-01-01 00:00:00.000".into() };
        let other = TranIdentity { tran_id: vec![2], ..known.clone() };
        let stored =
            Stored { twin: Some(Twin { lsn: Some(lsn(12)), identity: Some(known.clone()), elsewhere: false }), ..stored(Some(12), None) };
        let upper = Upper { lsn: lsn(20), identity: None, age_s: None, utc_offset_minutes: 0 };
        let one = [instance(1, 10, lsn(10))];
        for (history, gap) in
            [(History::Unknown, false), (History::Absent, true), (History::Present(known), false), (History::Present(other), true)]
        {
            let step = decide(&Facts { stored: &stored, upper: Some(&upper), instances: &one, history: &history, has_rows: false });
            assert_eq!(step == Step::Gap(Gap::History { from: lsn(12) }), gap, "{history:?}");
        }
    }
}
