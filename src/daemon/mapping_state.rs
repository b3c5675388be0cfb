//! What is remembered of a mapping.

use super::failure::MappingFailure;
use crate::{
    control::Generation,
    error::Error,
    model::{
        id::ServerId,
        mapping::{Mapping, SyncType},
    },
    plan::lifecycle::{Health, Lifecycle, LifecycleEvent, Phase, transition},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is remembered of a mapping.
#[derive(Default)]
pub(super) struct MappingState {
    /// Its row as of the last refresh. `None`: not this daemon's, disabled, deleted or unusable.
    pub row: Option<Mapping>,
    /// Its row cannot be used, for this reason, which was logged.
    pub rejected: Option<String>,
    /// The generation of its lock. `None`: another daemon owns it, or none.
    pub lock: Option<Generation>,
    /// It is released as soon as nothing runs for it: nothing new starts.
    pub leaving: bool,
    /// Cancels its job and its verification.
    pub cancel: Option<CancellationToken>,
    /// Moved by [`Self::apply`] only.
    lifecycle: Lifecycle,
    /// The server of the job that runs. Its row may name another one by now.
    job_server: Option<ServerId>,
    /// Set as long as `lifecycle.health` is not `Working`.
    failure: Option<MappingFailure>,
    /// When a job that committed something last ended.
    pub committed_at: Option<Instant>,
    /// It may have unresolved errors in error_logs, other than of verifications.
    pub error_open: bool,
    /// Its trigger column cannot be read, for this reason, which was logged.
    pub trigger_error: Option<String>,
    pub verification: VerificationState,
}

/// What is remembered of a mapping's verifications.
#[derive(Default)]
pub(super) struct VerificationState {
    /// The order in which mappings were last verified: the lowest number was longest ago, `None`
    /// never. After a restart it is read from verification_logs.
    pub turn: Option<usize>,
    /// When row counts and columns were last compared.
    pub structure_checked_at: Option<Instant>,
    /// A connection error of a verification, held until the next poll of the same source database
    /// confirms it (and logs it once for all mappings) or clears it.
    pub deferred_error: Option<Error>,
    /// It has no unresolved error that a verification could not run, not even of a process before
    /// this one.
    pub errors_resolved: bool,
}

impl MappingState {
    pub fn lifecycle(&self) -> Lifecycle {
        self.lifecycle
    }

    /// Moves the state machine. For the start and the end of jobs, which are counted, see
    /// [`Self::start_job`] and [`Self::end_job`].
    pub fn apply(&mut self, event: LifecycleEvent) {
        self.lifecycle = transition(self.lifecycle, event);
    }

    /// Returns whether the job is one to count: it was queued, and none runs.
    pub fn start_job(&mut self, server: ServerId, sync_type: SyncType) -> bool {
        let starts = matches!(self.lifecycle.phase, Phase::Queued(_));
        self.apply(LifecycleEvent::Started(sync_type));
        if starts {
            self.job_server = Some(server);
        }
        starts
    }

    /// Returns the job that ran, to be counted down.
    pub fn end_job(&mut self) -> Option<(ServerId, SyncType)> {
        let job = (self.job_server.take()?, self.lifecycle.running()?);
        self.apply(LifecycleEvent::JobEnded);
        Some(job)
    }

    pub fn failure(&self) -> Option<&MappingFailure> {
        self.failure.as_ref()
    }

    pub fn failure_mut(&mut self) -> Option<&mut MappingFailure> {
        self.failure.as_mut()
    }

    pub fn set_failure(&mut self, failure: MappingFailure) {
        self.apply(LifecycleEvent::Failed { parked: failure.parked_as.is_some() });
        self.failure = Some(failure);
    }

    /// It works. Returns whether it had failed before.
    pub fn clear_failure(&mut self) -> bool {
        self.apply(LifecycleEvent::Worked);
        self.failure.take().is_some()
    }

    /// Whether the next poll of its database includes it.
    pub fn is_due(&self, row: &Mapping, now: Instant) -> bool {
        self.lifecycle.can_be_polled()
            && !self.leaving
            && self.failure.as_ref().is_none_or(|failure| failure.is_due(now, &row.as_configured()))
    }

    /// Whether something runs for it.
    pub fn is_busy(&self) -> bool {
        self.lifecycle.running().is_some() || self.lifecycle.verifying
    }

    /// Forgets what is only known of mappings that this daemon works on. Returns whether anything
    /// is left to remember.
    pub fn prune(&mut self) -> bool {
        if self.row.is_none() {
            *self = MappingState {
                error_open: self.error_open && self.rejected.is_some(),
                rejected: self.rejected.take(),
                lock: self.lock,
                leaving: self.leaving,
                cancel: self.cancel.take(),
                lifecycle: Lifecycle { health: Health::Working, ..self.lifecycle },
                job_server: self.job_server,
                ..MappingState::default()
            };
        }
        self.row.is_some() || self.lock.is_some() || self.is_busy()
    }
}
