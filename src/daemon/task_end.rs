//! Ends of tasks: each is passed on to the file that started the task.

use super::{
    control_refresh::ControlRefresh,
    mapping_failures::FailedAttempt,
    state::{Daemon, Mode},
    task::{Task, TaskEnd, TaskResult},
};
use crate::{
    error::{Error, Kind, Result},
    jobs::{JobEnd, poll::PollState},
    model::{id::MappingId, mapping::SyncType},
};
use tokio::{task::JoinError, time::Instant};

impl Daemon {
    /// A task that panicked counts as one that failed.
    pub fn on_task_end(&mut self, end: TaskEnd) {
        let (id, end) = match end {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some((task, _)) = self.task_kinds.remove(&id) else { return };
        // aborted by the shutdown
        if end.as_ref().is_err_and(JoinError::is_cancelled) {
            return;
        }
        let panicked =
            || Error::new(Kind::Other, "the task panicked: this is a bug, please report it");
        match (task, end) {
            (Task::Refresh, Ok(TaskResult::Refresh(refresh))) => self.on_refresh_end(*refresh),
            (Task::Refresh, _) => self.on_refresh_end(ControlRefresh::lost(panicked())),
            (Task::Poll(database), Ok(TaskResult::Poll { asked, state, result })) => {
                self.on_poll_end(&database, *state, asked, result)
            }
            (Task::Poll(database), _) => {
                self.on_poll_end(&database, PollState::default(), Vec::new(), Err(panicked()))
            }
            (Task::Job(id, sync_type), Ok(TaskResult::Job { result, progressed, began })) => {
                let attempt = FailedAttempt { sync_type: Some(sync_type), progressed, began };
                self.on_job_end(id, sync_type, result, &attempt)
            }
            (Task::Job(id, sync_type), _) => {
                let sync = Some(sync_type);
                let attempt =
                    FailedAttempt { sync_type: sync, progressed: false, began: Instant::now() };
                self.on_job_end(id, sync_type, Err(panicked()), &attempt)
            }
            (Task::Verification(id), Ok(TaskResult::Verification(result))) => {
                self.on_verification_end(id, result)
            }
            (Task::Verification(id), _) => self.on_verification_end(id, Err(panicked())),
            (Task::RenewLease, Ok(TaskResult::RenewLease(renewed))) => self.on_renewal_end(renewed),
            (Task::RenewLease, _) => self.on_renewal_end(Err(panicked())),
            (Task::RecordConnected, Ok(TaskResult::Maintenance(Err(error)))) => {
                tracing::warn!(%error, "last_connected_at of a server was not written")
            }
            (Task::PurgeLogs, Ok(TaskResult::Maintenance(Err(error)))) => {
                tracing::warn!(%error, "old log rows were not deleted")
            }
            (Task::RecordConnected | Task::PurgeLogs | Task::DropStagingTables, _) => {}
        }
    }

    fn on_job_end(
        &mut self,
        id: MappingId,
        sync_type: SyncType,
        result: Result<JobEnd>,
        attempt: &FailedAttempt,
    ) {
        self.count_job_end(id);
        let mut to_poll = if attempt.progressed || matches!(result, Ok(JobEnd::Completed)) {
            self.wake_waiting(id)
        } else {
            Vec::new()
        };
        match result {
            Ok(JobEnd::Completed) => self.on_job_completed(id, sync_type),
            Ok(JobEnd::Stopped) => {}
            Err(error) if self.row(id).is_none() => {
                tracing::info!(
                    mapping_id = id.0,
                    %error,
                    "{}: stopped, as another daemon works on the table, or its row was disabled or deleted",
                    self.table_of(id)
                );
            }
            Err(error) => to_poll.extend(self.mapping_failed(id, attempt, &error)),
        }
        // After the failure is recorded: until then this mapping is due as well, and would repeat
        // at once, without progress, what it has just had to stop at.
        self.poll_now(&to_poll);
        self.start_queued();
    }

    fn on_job_completed(&mut self, id: MappingId, sync_type: SyncType) {
        if sync_type == SyncType::FullSync
            && let Some(state) = self.mappings.get_mut(&id)
        {
            // It repairs every error of the mapping, also those that jobs logged themselves (a gap,
            // a trigger column that cannot be reset).
            state.error_open = true;
        }
        self.mapping_worked(id);
        // CDC goes on from where the full sync ended
        if sync_type == SyncType::FullSync && self.mode == Mode::Forever {
            self.tick();
        }
    }
}
