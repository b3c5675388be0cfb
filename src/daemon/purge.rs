//! Deletes log rows that are older than `DATAFLOW_LOG_RETENTION`.

use super::{
    state::{Daemon, Mode},
    task::{Task, TaskResult},
};
use std::time::Duration;

/// Time between two purges.
pub(super) const PURGE_INTERVAL: Duration = Duration::from_secs(600);

/// Batches that one purge deletes.
const PURGE_BATCHES_MAX: usize = 100;

impl Daemon {
    /// Starts a purge, unless one runs or another daemon leads.
    pub fn purge_logs(&mut self) {
        let wanted = !self.env.config.log_retention.is_zero() && self.mode == Mode::Forever;
        let purging = || self.task_kinds.values().any(|(task, _)| *task == Task::PurgeLogs);
        if !wanted || !self.lease.leads || purging() {
            return;
        }
        let env = self.env.clone();
        self.spawn(Task::PurgeLogs, async move {
            for _ in 0..PURGE_BATCHES_MAX {
                match env.control.purge_logs(env.config.log_retention).await {
                    Ok(0) => break,
                    Ok(_) if env.stopping() => break,
                    Ok(_) => {}
                    Err(error) => return TaskResult::Maintenance(Err(error)),
                }
            }
            TaskResult::Maintenance(Ok(()))
        });
    }
}
