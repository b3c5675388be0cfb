//! The end: what runs comes to its batch boundary, or is dropped when the time is up.
//!
//! One deadline holds for all work. Behind it, and bounded by themselves, come only writing down
//! how runs ended ([`RECORD_TIME_MAX`]) and the last log rows ([`crate::telemetry`]).

use super::{Daemon, Mode, RECORD_TIME_MAX, Task, every};
use crate::model::id::MappingId;
use tokio::time::{Instant, timeout, timeout_at};

impl Daemon {
    /// Lets what runs come to its end, and drops what does not in time.
    pub(super) async fn drain(&mut self) {
        self.env.cancel.cancel();
        self.manager.stopping();
        if self.mode == Mode::Forever {
            tracing::info!(running = self.running.count_all(), "stopping");
        }
        let deadline = Instant::now() + self.env.config.shutdown_timeout;
        // Nothing of these is left half done: what a poll found is found again, and a statement
        // that is cut off is rolled back.
        for (task, handle) in self.what.values() {
            if matches!(task, Task::Poll(_) | Task::Note | Task::Retire | Task::Sweep) {
                handle.abort();
            }
        }
        let mut beats = every(self.beat_interval(), Instant::now());
        let ended = async {
            loop {
                tokio::select! {
                    biased;
                    _ = beats.tick() => self.beat(),
                    ended = self.tasks.join_next_with_id() => match ended {
                        Some(ended) => self.hear(ended),
                        None => break,
                    },
                }
            }
        };
        let in_time = timeout_at(deadline, ended).await.is_ok();
        if !in_time {
            tracing::warn!(
                tasks = self.tasks.len(),
                "stopped without waiting any longer for what was running"
            );
            // A task that does not even come to its next await is left to the end of the process.
            let _ = timeout(RECORD_TIME_MAX, self.tasks.shutdown()).await;
        }
        if timeout(RECORD_TIME_MAX, self.record_ends()).await.is_err() {
            tracing::warn!(
                "how runs ended could not be written in time: whoever takes their mappings next marks them as interrupted"
            );
        }
        tracing::info!("stopped");
    }

    /// No row says RUNNING of what was dropped, as far as the lease still proves that nobody else
    /// runs it.
    async fn record_ends(&mut self) {
        self.env.control.write_pending_completions().await;
        let dropped: Vec<MappingId> = self.running.ids().collect();
        let Some(lease) = self.lease.as_mut().filter(|_| !dropped.is_empty()) else { return };
        if lease.renew().await.is_ok()
            && let Err(error) = self.env.control.interrupt_running(&dropped).await
        {
            tracing::warn!(%error, "runs that were dropped are marked as interrupted by whoever takes their mappings next");
        }
    }
}
