//! Shows that the loop runs: to `/healthz`, `/metrics` and the service manager's watchdog.

use super::{source_state::PollPhase, state::Daemon};
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// Longest time between two beats.
const BEAT_INTERVAL_MAX: Duration = Duration::from_secs(1);

impl Daemon {
    /// At most half of the watchdog's time, so that one beat may be late.
    pub fn beat_interval(&self) -> Duration {
        self.env
            .config
            .supervisor
            .watchdog
            .map_or(BEAT_INTERVAL_MAX, |watchdog| (watchdog / 2).min(BEAT_INTERVAL_MAX))
            .max(Duration::from_millis(1))
    }

    pub fn beat(&self) {
        let states = || self.mappings.values();
        let polls =
            self.databases.values().filter(|state| state.poll == PollPhase::Running).count();
        let tasks = [
            ("cdc", self.jobs.all - self.jobs.full_syncs),
            ("full_sync", self.jobs.full_syncs),
            ("poll", polls),
            ("verification", states().filter(|state| state.lifecycle().verifying).count()),
        ];
        self.env.metrics.beat(std::time::Instant::now(), tasks.into());
        if self.env.config.supervisor.watchdog.is_some() {
            self.service_manager.alive();
        }
    }
}

/// A timer of the loop. Ticks that come while the loop is busy are one tick afterwards.
pub(super) fn every(period: Duration, first: Instant) -> Interval {
    let mut interval = tokio::time::interval_at(first, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}
