//! The life of a mapping in a daemon: a state machine of three independent parts.
//!
//! **Phase**: what the daemon does for the mapping. A poll includes idle mappings only.
//!
//! ```text
//!                 Queued                      Started
//!   ┌──────┐ (a poll found work) ┌────────┐ (limits allow) ┌─────────┐
//!   │ Idle │ ──────────────────► │ Queued │ ─────────────► │ Running │
//!   └──────┘                     └────────┘                └─────────┘
//!      ▲ ▲        Unqueued           │                          │
//!      │ └───────────────────────────┘                          │
//!      │   (the row changed, the source is unreachable)         │
//!      └────────────────────────────────────────────────────────┘
//!                             JobEnded
//! ```
//!
//! **Health**: how its last attempt (a poll or a job) ended. An attempt that was cancelled changes
//! nothing.
//!
//! ```text
//!               Failed                 Failed and parked
//!   ┌─────────┐ ──────► ┌──────────┐ ───────────────────► ┌────────┐
//!   │ Working │         │ Retrying │ ◄─────────────────── │ Parked │
//!   └─────────┘ ◄────── └──────────┘        Failed        └────────┘
//!        ▲       Worked                                        │
//!        └─────────────────────────────────────────────────────┘
//!                               Worked
//! ```
//!
//! `Working` fails to `Parked` directly as well. When a failed mapping is due again is a time, which
//! is no part of this state: `Retrying` is due after a delay ([`super::retry`]), `Parked` after a
//! long one, or when its row changes.
//!
//! **Verification**: whether one runs. It runs beside CDC, but not beside a full sync: none starts
//! while a full sync is queued or runs, and a queued full sync waits until it has ended.

use crate::model::mapping::SyncType;

/// What a daemon does for a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: the next poll looks for work.
    #[default]
    Idle,
    /// Work of this type was found and waits for its start.
    Queued(SyncType),
    /// A job of this type runs.
    Running(SyncType),
}

/// How the last attempt of a mapping ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It worked, or there was none yet.
    #[default]
    Working,
    /// It failed, and is repeated after a delay.
    Retrying,
    /// It failed for a reason that an operator has to remove.
    Parked,
}

/// The state of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    pub phase: Phase,
    pub health: Health,
    pub verifying: bool,
}

/// What happens to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleEvent {
    /// A poll found work.
    Queued(SyncType),
    /// The queued work is out of date, or cannot be done now.
    Unqueued,
    /// A job starts.
    Started(SyncType),
    /// The job ended, in whatever way. `Worked` or `Failed` follows unless it was cancelled.
    JobEnded,
    /// A poll found nothing to do, or a job completed.
    Worked,
    /// A poll or a job failed.
    Failed {
        parked: bool,
    },
    VerificationStarted,
    VerificationEnded,
}

/// The state after an event. An event that does not apply in a state leaves it as it is: work that
/// is found for a mapping whose job runs is found again by the next poll.
pub fn transition(state: Lifecycle, event: LifecycleEvent) -> Lifecycle {
    let phase = match (state.phase, event) {
        (Phase::Idle | Phase::Queued(_), LifecycleEvent::Queued(sync_type)) => {
            Phase::Queued(sync_type)
        }
        (Phase::Queued(_), LifecycleEvent::Unqueued) => Phase::Idle,
        (Phase::Queued(_), LifecycleEvent::Started(sync_type)) => Phase::Running(sync_type),
        (Phase::Running(_), LifecycleEvent::JobEnded) => Phase::Idle,
        (unchanged, _) => unchanged,
    };
    let health = match event {
        LifecycleEvent::Worked => Health::Working,
        LifecycleEvent::Failed { parked: true } => Health::Parked,
        LifecycleEvent::Failed { parked: false } => Health::Retrying,
        _ => state.health,
    };
    let verifying = match event {
        LifecycleEvent::VerificationStarted => true,
        LifecycleEvent::VerificationEnded => false,
        _ => state.verifying,
    };
    Lifecycle { phase, health, verifying }
}

impl Lifecycle {
    /// Whether a poll may look for work.
    pub fn can_be_polled(self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether a verification may start. A full sync changes the rows while they are compared.
    pub fn can_be_verified(self) -> bool {
        let syncs = matches!(
            self.phase,
            Phase::Queued(SyncType::FullSync) | Phase::Running(SyncType::FullSync)
        );
        !self.verifying && !syncs
    }

    /// Whether queued work of this type has to wait until a verification has ended, which must not
    /// see a table that is being replaced.
    pub fn waits_for_verification(self, sync_type: SyncType) -> bool {
        self.verifying && sync_type == SyncType::FullSync
    }

    /// The type of the job that runs.
    pub fn running(self) -> Option<SyncType> {
        match self.phase {
            Phase::Running(sync_type) => Some(sync_type),
            Phase::Idle | Phase::Queued(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LifecycleEvent::{
        Failed, JobEnded, Queued, Started, Unqueued, VerificationEnded, VerificationStarted, Worked,
    };
    use SyncType::{Cdc, FullSync};

    fn phase_after(phase: Phase, event: LifecycleEvent) -> Phase {
        transition(Lifecycle { phase, ..Lifecycle::default() }, event).phase
    }

    #[test]
    fn phases() {
        let (idle, queued, running) = (Phase::Idle, Phase::Queued(Cdc), Phase::Running(Cdc));
        for (event, from_idle, from_queued, from_running) in [
            (Queued(Cdc), queued, queued, running),
            (Queued(FullSync), Phase::Queued(FullSync), Phase::Queued(FullSync), running),
            (Unqueued, idle, idle, running),
            (Started(Cdc), idle, running, running),
            (JobEnded, idle, queued, idle),
            (Worked, idle, queued, running),
            (Failed { parked: false }, idle, queued, running),
            (Failed { parked: true }, idle, queued, running),
            (VerificationStarted, idle, queued, running),
            (VerificationEnded, idle, queued, running),
        ] {
            assert_eq!(phase_after(idle, event), from_idle, "idle, {event:?}");
            assert_eq!(phase_after(queued, event), from_queued, "queued, {event:?}");
            assert_eq!(phase_after(running, event), from_running, "running, {event:?}");
        }
    }

    #[test]
    fn health_is_changed_by_the_ends_of_attempts_alone() {
        for health in [Health::Working, Health::Retrying, Health::Parked] {
            for (event, after) in [
                (Worked, Health::Working),
                (Failed { parked: false }, Health::Retrying),
                (Failed { parked: true }, Health::Parked),
                (Queued(Cdc), health),
                (Unqueued, health),
                (Started(Cdc), health),
                (JobEnded, health),
                (VerificationStarted, health),
                (VerificationEnded, health),
            ] {
                let state = Lifecycle { health, phase: Phase::Running(Cdc), verifying: false };
                assert_eq!(transition(state, event).health, after, "{health:?}, {event:?}");
            }
        }
    }

    #[test]
    fn what_may_happen_in_each_state() {
        for (phase, verifying, polled, verified, full_sync_waits) in [
            (Phase::Idle, false, true, true, false),
            (Phase::Idle, true, true, false, true),
            (Phase::Queued(Cdc), false, false, true, false),
            (Phase::Queued(Cdc), true, false, false, true),
            (Phase::Queued(FullSync), false, false, false, false),
            (Phase::Queued(FullSync), true, false, false, true),
            (Phase::Running(Cdc), false, false, true, false),
            (Phase::Running(Cdc), true, false, false, true),
            (Phase::Running(FullSync), false, false, false, false),
        ] {
            let state = Lifecycle { phase, verifying, ..Lifecycle::default() };
            assert_eq!(
                (
                    state.can_be_polled(),
                    state.can_be_verified(),
                    state.waits_for_verification(FullSync)
                ),
                (polled, verified, full_sync_waits),
                "{state:?}"
            );
            assert!(!state.waits_for_verification(Cdc), "CDC runs beside a verification");
        }
    }
}
