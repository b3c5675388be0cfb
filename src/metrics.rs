//! What a process knows of itself: its pulse, and the numbers that somebody who watches it from
//! outside asks for.
//!
//! Written where things are recorded anyway (control, the journal, the loop), read by
//! [`crate::http`]. A write is a short lock and never waits for I/O; everything is bounded by the
//! mappings and words there are, and a mapping that is gone is forgotten.

use crate::{
    model::{
        id::{MappingId, StatusId},
        mapping::SyncType,
    },
    plan::time::EPOCH_S,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// The loop beats once a second; without a beat for this long it is not alive.
pub const PULSE_MAX: Duration = Duration::from_secs(30);

/// A look at the control tables that has not ended for this long, and for three of the longest
/// statements, never will.
pub const LOOK_MAX: Duration = Duration::from_secs(900);

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<MetricsSnapshot>>);

/// Everything, as of one moment.
#[derive(Clone, Debug)]
pub struct MetricsSnapshot {
    pub started: SystemTime,
    /// The loop's last turn; `None`: it has not begun.
    pub beat: Option<Instant>,
    /// Since when a look at the control tables is under way; `None`: none is.
    pub looking: Option<Instant>,
    /// Ticks whose look at the control tables succeeded.
    pub ticks: u64,
    /// Why the control database cannot be read, when that was the last answer; `None` before the
    /// first.
    pub control: Option<Result<(), String>>,
    /// Whether mappings can be owned; `None` before the first look.
    pub leased: Option<bool>,
    /// Rows brought to the destination, by mapping and kind of run.
    pub rows: BTreeMap<(MappingId, &'static str), u64>,
    /// Runs that ended, by kind and status.
    pub runs: BTreeMap<(&'static str, &'static str), u64>,
    /// Errors that went to error_logs, by error_type.
    pub errors: BTreeMap<String, u64>,
    /// Verifications, by kind and status.
    pub verifications: BTreeMap<(&'static str, &'static str), u64>,
    /// Whether a mapping's newest verification of its rows failed.
    pub differs: BTreeMap<MappingId, bool>,
    pub lags: BTreeMap<MappingId, Lag>,
    /// Tasks that run now, by kind.
    pub tasks: BTreeMap<&'static str, usize>,
    /// What the control tables say of all mappings, whoever works on them.
    pub control_states: ControlStates,
    /// Rows for the log tables that were dropped.
    pub dropped: u64,
    /// Full syncs that run, until they end.
    open: HashMap<MappingId, (StatusId, SyncType)>,
}

/// What `status` says, in numbers.
#[derive(Clone, Debug, Default)]
pub struct ControlStates {
    /// The last attempt to read the control tables succeeded. Names stay known when one did not.
    pub are_read: bool,
    /// Mappings, by state.
    pub counts: BTreeMap<&'static str, usize>,
    /// Source servers that have enabled mappings: name, and whether they can be reached.
    pub servers: BTreeMap<i32, (String, bool)>,
    /// Server and source table of each mapping.
    pub names: Arc<BTreeMap<MappingId, (String, String)>>,
}

/// How far behind a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// Nothing was left at that moment: it is as far behind as its last poll is ago.
    None { polled: Instant },
    /// The oldest change left was committed at this time (milliseconds of UTC since 2000-01-01).
    Since { oldest_ms: i64 },
}

impl Lag {
    /// In seconds, by this machine's clock (the commit's time is by the source's).
    pub fn seconds(self, now: Instant, wall: SystemTime) -> f64 {
        match self {
            Lag::None { polled } => now.saturating_duration_since(polled).as_secs_f64(),
            Lag::Since { oldest_ms } => {
                let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_S);
                let oldest = epoch + Duration::from_millis(u64::try_from(oldest_ms).unwrap_or(0));
                wall.duration_since(oldest).unwrap_or_default().as_secs_f64()
            }
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics(Arc::new(Mutex::new(MetricsSnapshot {
            started: SystemTime::now(),
            beat: None,
            looking: None,
            ticks: 0,
            control: None,
            leased: None,
            rows: BTreeMap::new(),
            runs: BTreeMap::new(),
            errors: BTreeMap::new(),
            verifications: BTreeMap::new(),
            differs: BTreeMap::new(),
            lags: BTreeMap::new(),
            tasks: BTreeMap::new(),
            control_states: ControlStates::default(),
            dropped: 0,
            open: HashMap::new(),
        })))
    }
}

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, MetricsSnapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy to read at leisure.
    pub fn state(&self) -> MetricsSnapshot {
        self.lock().clone()
    }

    /// The loop has turned. `tasks` run now.
    pub fn beat(&self, now: Instant, tasks: BTreeMap<&'static str, usize>) {
        let mut state = self.lock();
        state.beat = Some(now);
        state.tasks = tasks;
    }

    /// A look at the control tables has begun; `None`: it has ended, whatever it saw.
    pub fn looking(&self, since: Option<Instant>) {
        self.lock().looking = since;
    }

    /// The states of the mappings were read.
    pub fn control_states(&self, states: ControlStates) {
        self.lock().control_states = states;
    }

    /// The states of the mappings could not be read: they are not known any more.
    pub fn no_control_states(&self) {
        let mut state = self.lock();
        let names = state.control_states.names.clone();
        state.control_states = ControlStates { names, ..ControlStates::default() };
    }

    /// A tick has seen the control tables and started what there was.
    pub fn ticked(&self) {
        self.lock().ticks += 1;
    }

    /// The lease is held, or cannot be had.
    pub fn leased(&self, held: bool) {
        self.lock().leased = Some(held);
    }

    /// The control database answered, or did not.
    pub fn control(&self, result: Result<(), String>) {
        self.lock().control = Some(result);
    }

    /// What is known of mappings that are not this process's is dropped.
    pub fn retain(&self, is_ours: impl Fn(&MappingId) -> bool) {
        let mut state = self.lock();
        state.rows.retain(|(id, _), _| is_ours(id));
        state.differs.retain(|id, _| is_ours(id));
        state.lags.retain(|id, _| is_ours(id));
        state.open.retain(|id, _| is_ours(id));
    }

    pub fn run_started(&self, mapping: MappingId, run: StatusId, sync_type: SyncType) {
        self.lock().open.insert(mapping, (run, sync_type));
    }

    /// A run that was started ends.
    pub fn run_finished(&self, run: StatusId, status: &'static str, rows: i64) {
        let found = self
            .lock()
            .open
            .iter()
            .find(|(_, (open, _))| *open == run)
            .map(|(mapping, (_, sync_type))| (*mapping, *sync_type));
        if let Some((mapping, sync_type)) = found {
            self.lock().open.remove(&mapping);
            self.ran(mapping, sync_type, status, rows);
        }
    }

    /// A run ended.
    pub fn ran(&self, mapping: MappingId, sync_type: SyncType, status: &'static str, rows: i64) {
        let mut state = self.lock();
        *state.runs.entry((sync_type.as_str(), status)).or_default() += 1;
        *state.rows.entry((mapping, sync_type.as_str())).or_default() +=
            u64::try_from(rows).unwrap_or(0);
    }

    /// An error was logged.
    pub fn error(&self, error_type: &str) {
        *self.lock().errors.entry(error_type.to_owned()).or_default() += 1;
    }

    /// Rows for the log tables were dropped.
    pub fn dropped(&self, rows: u64) {
        self.lock().dropped += rows;
    }

    /// A verification ended.
    pub fn verified(&self, mapping: MappingId, kind: &'static str, status: &'static str) {
        let mut state = self.lock();
        *state.verifications.entry((kind, status)).or_default() += 1;
        if kind == "MD5_COMPARISON" {
            state.differs.insert(mapping, status == "FAILED");
        }
    }

    /// A poll has seen how far these mappings are; `None`: nobody can tell.
    pub fn lags(&self, seen: impl Iterator<Item = (MappingId, Option<Lag>)>) {
        let mut state = self.lock();
        for (mapping, lag) in seen {
            match lag {
                Some(lag) => state.lags.insert(mapping, lag),
                None => state.lags.remove(&mapping),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_the_oldest_commit_left_or_the_last_poll() {
        let now = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_S + 100);
        assert_eq!(Lag::Since { oldest_ms: 40_000 }.seconds(now, wall), 60.0);
        assert_eq!(
            Lag::Since { oldest_ms: 140_000 }.seconds(now, wall),
            0.0,
            "a source whose clock is ahead"
        );
        assert_eq!(Lag::None { polled: now }.seconds(now + Duration::from_secs(3), wall), 3.0);
    }

    #[test]
    fn rows_of_a_run_that_was_started_count_when_it_ends_and_go_with_their_mapping() {
        let metrics = Metrics::default();
        metrics.run_started(MappingId(1), StatusId(9), SyncType::FullSync);
        metrics.run_finished(StatusId(9), "COMPLETED", 5);
        metrics.run_finished(StatusId(9), "COMPLETED", 5);
        metrics.ran(MappingId(2), SyncType::Cdc, "ERROR", 0);
        let state = metrics.state();
        assert_eq!(state.rows.get(&(MappingId(1), "FULL_SYNC")), Some(&5));
        assert_eq!(state.runs.len(), 2);
        metrics.retain(|id| *id == MappingId(2));
        assert!(!metrics.state().rows.contains_key(&(MappingId(1), "FULL_SYNC")));
    }
}
