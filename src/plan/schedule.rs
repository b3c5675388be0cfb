//! What each mapping does in this tick, and how often its trigger column is asked.
//!
//! A full sync goes before everything: it brings what CDC would bring, and closes a gap. CDC
//! otherwise moves by one window step ([`super::window`]).
//!
//! `SELECT … WHERE trigger = 1` scans a table that has no index for it, so a large table is not
//! asked every tick. With CDC the trigger is seen in the change stream, where it costs nothing; it
//! is asked directly at start and now and then, because a change may have been made before the
//! instance existed.

use super::window::{Choice, Gap, Refusal, Step, Wait};
use crate::model::lsn::Lsn;
use std::time::Duration;

/// A table is asked for its trigger at least this often.
pub const TRIGGER_EVERY: Duration = Duration::from_secs(300);

/// Up to this many rows a scan for the trigger is cheap enough for every tick.
pub const TRIGGER_SCAN_ROWS_MAX: i64 = 100_000;

/// At most one full sync because of a gap in this time, so that a gap which comes back does not
/// copy a table in circles.
pub const GAP_SYNC_EVERY: Duration = Duration::from_secs(3_600);

/// What the catalog says of asking a table for its trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TriggerCost {
    pub rows: i64,
    /// An index leads with the trigger column.
    pub indexed: bool,
}

impl TriggerCost {
    /// Too much for every tick.
    pub fn is_expensive(self) -> bool {
        !self.indexed && self.rows >= TRIGGER_SCAN_ROWS_MAX
    }
}

/// Whether to ask the table for its trigger now. `last` is how long ago it was asked; `in_stream`
/// says that the change stream shows it.
pub fn is_trigger_due(in_stream: bool, cost: Option<TriggerCost>, last: Option<Duration>) -> bool {
    match last {
        None => true,
        // where the change stream shows it, a large table is not read again and again
        Some(ago) if ago >= TRIGGER_EVERY => {
            !in_stream || !cost.is_some_and(TriggerCost::is_expensive)
        }
        Some(_) => !in_stream && !cost.is_none_or(TriggerCost::is_expensive),
    }
}

/// The destination of a mapping that has neither a checkpoint nor a completed full sync, and that
/// is loaded first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialLoad {
    /// Not asked yet.
    Unknown,
    /// Its table is empty.
    Needed,
}

/// What is known of one mapping.
#[derive(Clone, Debug)]
pub struct ScheduleFacts {
    /// `full_sync_requested`, or claimed and not fulfilled.
    pub requested: bool,
    /// The trigger column is 1 in a source row.
    pub triggered: bool,
    /// `None`: it has synced, or begins at the first change.
    pub initial_load: Option<InitialLoad>,
    /// `None` without CDC.
    pub step: Option<Step>,
    /// A gap starts a full sync (`DATAFLOW_ON_CDC_GAP`).
    pub gap_syncs: bool,
    /// Since the last full sync that a gap started.
    pub last_gap_sync: Option<Duration>,
}

/// What a mapping does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    FullSync {
        trigger: bool,
    },
    /// It has never synced: ask for a full sync.
    InitialSync,
    /// Changes are lost: say so, and ask for a full sync.
    GapSync(Gap),
    /// Changes are lost, and that is for people: say so and do nothing more.
    GapParked {
        gap: Gap,
        too_soon: bool,
    },
    /// Read changes.
    Cdc(Choice),
    /// The checkpoint moves with the other idle ones.
    Idle {
        from: Lsn,
        to: Lsn,
    },
    Wait(Wait),
    Refused(Refusal),
    Nothing,
}

/// The decision for one mapping.
pub fn decide(facts: ScheduleFacts) -> Decision {
    if facts.requested || facts.triggered {
        return Decision::FullSync { trigger: facts.triggered };
    }
    // What cannot be followed is not loaded: the error says what to mend first.
    if !matches!(facts.step, None | Some(Step::Refused(_))) {
        match facts.initial_load {
            // it gets no checkpoint before this is known
            Some(InitialLoad::Unknown) => return Decision::Nothing,
            Some(InitialLoad::Needed) => return Decision::InitialSync,
            None => {}
        }
    }
    match facts.step {
        None | Some(Step::Still) => Decision::Nothing,
        Some(Step::Read { instance, from, to, switch_to }) => {
            Decision::Cdc(Choice { instance, from, to, switch_to })
        }
        Some(Step::Idle { from, to }) => Decision::Idle { from, to },
        Some(Step::Gap(gap)) => {
            let too_soon = facts.last_gap_sync.is_some_and(|ago| ago < GAP_SYNC_EVERY);
            if facts.gap_syncs && !too_soon {
                Decision::GapSync(gap)
            } else {
                Decision::GapParked { gap, too_soon: facts.gap_syncs }
            }
        }
        Some(Step::Wait(wait)) => Decision::Wait(wait),
        Some(Step::Refused(refusal)) => Decision::Refused(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(step: Option<Step>) -> ScheduleFacts {
        ScheduleFacts {
            requested: false,
            triggered: false,
            initial_load: None,
            step,
            gap_syncs: true,
            last_gap_sync: None,
        }
    }

    #[test]
    fn full_syncs_go_first() {
        let gap = Gap::UnknownCheckpoint { control: Lsn::MAX };
        let step = Some(Step::Gap(gap.clone()));
        assert_eq!(
            decide(ScheduleFacts { requested: true, ..facts(step.clone()) }),
            Decision::FullSync { trigger: false }
        );
        assert_eq!(
            decide(ScheduleFacts { triggered: true, ..facts(None) }),
            Decision::FullSync { trigger: true }
        );
        assert_eq!(decide(facts(step)), Decision::GapSync(gap));
        assert_eq!(decide(facts(None)), Decision::Nothing);
        assert_eq!(decide(facts(Some(Step::Still))), Decision::Nothing);
    }

    #[test]
    fn a_table_that_never_synced_is_loaded_before_it_is_followed() {
        let (from, to) = (Lsn::ZERO, Lsn::MAX);
        let at =
            |initial_load, step: Step| decide(ScheduleFacts { initial_load, ..facts(Some(step)) });
        for step in [Step::Idle { from, to }, Step::Wait(Wait::NothingCaptured)] {
            assert_eq!(at(Some(InitialLoad::Needed), step.clone()), Decision::InitialSync);
            assert_eq!(at(Some(InitialLoad::Unknown), step), Decision::Nothing);
        }
        assert_eq!(at(None, Step::Idle { from, to }), Decision::Idle { from, to });
        let refused = Step::Refused(Refusal::NotCaptured);
        assert_eq!(at(Some(InitialLoad::Needed), refused), Decision::Refused(Refusal::NotCaptured));
        let without_cdc = ScheduleFacts { initial_load: Some(InitialLoad::Needed), ..facts(None) };
        assert_eq!(decide(without_cdc), Decision::Nothing);
    }

    #[test]
    fn a_gap_syncs_once_an_hour_and_only_if_it_may() {
        let gap = Gap::UnknownCheckpoint { control: Lsn::MAX };
        let at = |gap_syncs, ago: Option<u64>| {
            decide(ScheduleFacts {
                gap_syncs,
                last_gap_sync: ago.map(Duration::from_secs),
                ..facts(Some(Step::Gap(gap.clone())))
            })
        };
        assert_eq!(at(true, Some(3_600)), Decision::GapSync(gap.clone()));
        assert_eq!(at(true, Some(3_599)), Decision::GapParked { gap: gap.clone(), too_soon: true });
        assert_eq!(at(false, None), Decision::GapParked { gap: gap.clone(), too_soon: false });
    }

    #[test]
    fn triggers_are_asked_as_often_as_they_are_cheap() {
        let cheap = Some(TriggerCost { rows: 99_999, indexed: false });
        let indexed = Some(TriggerCost { rows: i64::MAX, indexed: true });
        let expensive = Some(TriggerCost { rows: 100_000, indexed: false });
        let (tick, long) = (Some(Duration::from_secs(10)), Some(TRIGGER_EVERY));
        for (in_stream, cost, last, expected) in [
            (false, cheap, None, true),
            (false, cheap, tick, true),
            (false, indexed, tick, true),
            (false, expensive, tick, false),
            (false, None, tick, false),
            (false, expensive, long, true),
            (false, expensive, None, true),
            (true, cheap, tick, false),
            (true, cheap, long, true),
            (true, expensive, None, true),
            (true, expensive, long, false),
            (true, None, long, true),
        ] {
            assert_eq!(
                is_trigger_due(in_stream, cost, last),
                expected,
                "{in_stream} {cost:?} {last:?}"
            );
        }
    }
}
