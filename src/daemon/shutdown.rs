//! The shutdown: jobs stop at their next batch boundary, or are dropped at the deadline.
//!
//! The deadline (`DATAFLOW_SHUTDOWN_TIMEOUT`) holds for all tasks. After it come only the ends of
//! runs ([`RECORD_TIME_MAX`]) and the last log rows ([`crate::telemetry`]), each with a limit of its
//! own.

use super::{
    heartbeat::every,
    state::{Daemon, Mode},
    task::Task,
};
use crate::{app::RECORD_TIME_MAX, model::id::MappingId};
use tokio::time::{Instant, timeout, timeout_at};

impl Daemon {
    /// Waits for tasks to end, and drops those that do not end in time.
    pub async fn shut_down(&mut self) {
        self.env.cancel.cancel();
        self.service_manager.stopping();
        if self.mode == Mode::Forever {
            tracing::info!(running = self.jobs.all, "stopping");
        }
        let deadline = Instant::now() + self.env.config.shutdown_timeout;
        self.abort_short_tasks();
        let mut beats = every(self.beat_interval(), Instant::now());
        let all_ended = async {
            loop {
                tokio::select! {
                    biased;
                    _ = beats.tick() => self.beat(),
                    end = self.tasks.join_next_with_id() => match end {
                        Some(end) => self.on_task_end(end),
                        None => break,
                    },
                }
            }
        };
        let in_time = timeout_at(deadline, all_ended).await.is_ok();
        if !in_time {
            tracing::warn!(
                tasks = self.tasks.len(),
                "stopped without waiting any longer for what was running"
            );
            // A task that never reaches an await ends with the process.
            let _ = timeout(RECORD_TIME_MAX, self.tasks.shutdown()).await;
        }
        if timeout(RECORD_TIME_MAX, self.record_ends()).await.is_err() {
            tracing::warn!(
                "the ends of runs were not written in time: the next daemon that takes their mappings marks them as interrupted"
            );
        }
        self.env.activity.log_rest(&self.env.metrics);
        tracing::info!("stopped");
    }

    /// Marks the runs of dropped jobs as interrupted. Only while the lease is held: otherwise another
    /// daemon may run the same mappings by now.
    async fn record_ends(&mut self) {
        self.env.control.write_pending_completions().await;
        let dropped: Vec<MappingId> = self
            .mappings
            .iter()
            .filter(|(_, state)| state.lifecycle().running().is_some())
            .map(|(id, _)| *id)
            .collect();
        let Some(lease) = self.lease.lease.as_mut().filter(|_| !dropped.is_empty()) else { return };
        if lease.renew().await.is_ok()
            && let Err(error) = self.env.control.interrupt_running(&dropped).await
        {
            tracing::warn!(%error, "dropped runs were not marked as interrupted: the next daemon that takes their mappings does it");
        }
    }

    /// Aborts tasks of which nothing is left half done: what a poll found is found again, and the
    /// server rolls back a statement whose connection ends.
    fn abort_short_tasks(&self) {
        for (task, handle) in self.task_kinds.values() {
            match task {
                Task::Poll(_)
                | Task::RecordConnected
                | Task::PurgeLogs
                | Task::DropStagingTables => handle.abort(),
                Task::Refresh | Task::Job(..) | Task::Verification(_) | Task::RenewLease => {}
            }
        }
    }
}
