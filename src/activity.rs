//! What a daemon does all the time: CDC passes, and verifications that find nothing. Both are logged
//! in detail while `DATAFLOW_LOG_ROWS_PER_DAY` allows it ([`crate::plan::log_budget`]), and as sums
//! beyond that: a line a minute for the daemon, a line an hour for each busy mapping, a line an hour
//! for the verifications.
//!
//! Every row that the daemon writes to a log table is charged here. What is summed is still an event
//! of level DEBUG, which stdout shows with `RUST_LOG=dbaops_dataflow=debug`.

use crate::{
    metrics::{Metrics, MetricsSnapshot},
    model::{
        id::{MappingId, ServerId},
        mapping::SyncType,
        name::TableName,
    },
    plan::log_budget::{self, LogBudget, LogForm, VerificationForm},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// Between two lines of the daemon.
const MINUTE: Duration = Duration::from_secs(60);
/// Between two lines of a mapping, and of the verifications.
const HOUR: Duration = Duration::from_secs(3_600);

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    began: Instant,
    rows_per_day: u32,
    budget: LogBudget,
    form: LogForm,
    minute: DaemonSums,
    /// Of CDC, by mapping.
    mappings: HashMap<MappingId, MappingSums>,
    verified: VerificationSums,
    /// The last row of a mapping and kind of verification: its status, and when it was written.
    verification_rows: HashMap<(MappingId, &'static str), (String, Instant)>,
}

/// CDC passes of all mappings since the last line about them.
#[derive(Debug)]
struct DaemonSums {
    since: Instant,
    passes: u64,
    changes: i64,
    mappings: HashSet<MappingId>,
    /// Some of them had no line of their own.
    summed: bool,
}

/// CDC passes of one mapping since the last line about them.
#[derive(Debug)]
struct MappingSums {
    since: Instant,
    table: String,
    server: i32,
    passes: u64,
    changes: i64,
    took: Duration,
    summed: bool,
}

/// Verifications that found nothing and had no line, since the last line about them.
#[derive(Debug)]
struct VerificationSums {
    since: Instant,
    verifications: u64,
    compared: i64,
    mappings: HashSet<MappingId>,
}

impl DaemonSums {
    fn new(since: Instant) -> Self {
        DaemonSums { since, passes: 0, changes: 0, mappings: HashSet::new(), summed: false }
    }
}

impl VerificationSums {
    fn new(since: Instant) -> Self {
        VerificationSums { since, verifications: 0, compared: 0, mappings: HashSet::new() }
    }
}

/// A line about what was summed.
#[derive(Debug, PartialEq, Eq)]
enum Summary {
    Daemon { passes: u64, changes: i64, mappings: usize, seconds: u64 },
    Mapping { id: i32, server: i32, table: String, passes: u64, changes: i64, took: Duration },
    Verifications { verifications: u64, compared: i64, mappings: usize, minutes: u64 },
}

impl Activity {
    /// `rows_per_day` = 0: everything in detail.
    pub fn new(rows_per_day: u32) -> Self {
        let now = Instant::now();
        Activity(Arc::new(Mutex::new(State {
            began: now,
            rows_per_day,
            budget: LogBudget::new(rows_per_day),
            form: LogForm::Detail,
            minute: DaemonSums::new(now),
            mappings: HashMap::new(),
            verified: VerificationSums::new(now),
            verification_rows: HashMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows of the log tables are written.
    pub fn charge(&self, rows: u32) {
        let mut state = self.lock();
        let now = state.began.elapsed();
        state.budget.charge(now, rows);
    }

    /// A CDC pass has ended well. Whether it has a line of its own.
    pub fn cdc_pass(
        &self,
        mapping: MappingId,
        server: ServerId,
        table: &TableName,
        changes: i64,
        took: Duration,
    ) -> bool {
        let now = Instant::now();
        let form = self.form();
        let mut state = self.lock();
        let summed = form == LogForm::Sum;
        let minute = &mut state.minute;
        minute.passes += 1;
        minute.changes = minute.changes.saturating_add(changes);
        minute.mappings.insert(mapping);
        minute.summed |= summed;
        let sums = state.mappings.entry(mapping).or_insert_with(|| MappingSums {
            since: now,
            table: table.to_string(),
            server: server.0,
            passes: 0,
            changes: 0,
            took: Duration::ZERO,
            summed: false,
        });
        sums.passes += 1;
        sums.changes = sums.changes.saturating_add(changes);
        sums.took += took;
        sums.summed |= summed;
        !summed
    }

    /// A verification has ended. What it leaves behind.
    pub fn verification(
        &self,
        mapping: MappingId,
        kind: &'static str,
        status: &str,
        found_nothing: bool,
        compared: i64,
    ) -> VerificationForm {
        let now = Instant::now();
        let form = self.form();
        let mut state = self.lock();
        let last = state.verification_rows.get(&(mapping, kind));
        let last = last.map(|(status, at)| (status.as_str(), now.saturating_duration_since(*at)));
        let form = log_budget::verification_form(form, status, found_nothing, last);
        if form != VerificationForm::Sum {
            state.verification_rows.insert((mapping, kind), (status.to_owned(), now));
        }
        if form != VerificationForm::RowAndLine {
            let sums = &mut state.verified;
            sums.verifications += 1;
            sums.compared = sums.compared.saturating_add(compared);
            sums.mappings.insert(mapping);
        }
        form
    }

    /// What is known of mappings that are not this daemon's is dropped.
    pub fn retain(&self, is_ours: impl Fn(&MappingId) -> bool) {
        self.lock().verification_rows.retain(|(mapping, _), _| is_ours(mapping));
    }

    /// Detail or sum, for what repeats; that it has changed is logged.
    fn form(&self) -> LogForm {
        let (before, form, rows_per_day) = {
            let mut state = self.lock();
            let now = state.began.elapsed();
            let form = state.budget.form(now);
            (std::mem::replace(&mut state.form, form), form, state.rows_per_day)
        };
        match form {
            _ if form == before => {}
            LogForm::Sum => tracing::info!(
                "the log has used the rows that DATAFLOW_LOG_ROWS_PER_DAY ({rows_per_day}) allows for now: CDC passes and \
                 verifications without findings are summed for some hours; starts, ends, errors and findings are logged as before"
            ),
            LogForm::Detail => tracing::info!(
                "CDC passes and verifications without findings are logged one by one again"
            ),
        }
        form
    }

    /// Logs the sums whose time has come.
    pub fn log_due(&self, metrics: &Metrics) {
        self.log(metrics, MINUTE, HOUR);
    }

    /// Logs everything that was summed: at the end.
    pub fn log_rest(&self, metrics: &Metrics) {
        self.log(metrics, Duration::ZERO, Duration::ZERO);
    }

    fn log(&self, metrics: &Metrics, minute: Duration, hour: Duration) {
        let (summaries, tables) = {
            let mut state = self.lock();
            let tables: HashMap<MappingId, String> =
                state.mappings.iter().map(|(id, sums)| (*id, sums.table.clone())).collect();
            (state.take(Instant::now(), minute, hour), tables)
        };
        for summary in summaries {
            let seen = metrics.state();
            log_summary(&summary, &longest_lag(&seen, &tables), &running(&seen.tasks));
        }
    }
}

impl State {
    /// Sums that are at least so old. What had lines of its own needs none.
    fn take(&mut self, now: Instant, minute: Duration, hour: Duration) -> Vec<Summary> {
        let mut due = Vec::new();
        let age = |since: Instant| now.saturating_duration_since(since);
        if age(self.minute.since) >= minute {
            let sums = std::mem::replace(&mut self.minute, DaemonSums::new(now));
            if sums.summed {
                due.push(Summary::Daemon {
                    passes: sums.passes,
                    changes: sums.changes,
                    mappings: sums.mappings.len(),
                    seconds: age(sums.since).as_secs().max(1),
                });
            }
        }
        for (id, sums) in self.mappings.extract_if(|_, sums| age(sums.since) >= hour) {
            if sums.summed {
                due.push(Summary::Mapping {
                    id: id.0,
                    server: sums.server,
                    table: sums.table,
                    passes: sums.passes,
                    changes: sums.changes,
                    took: sums.took,
                });
            }
        }
        if age(self.verified.since) >= hour {
            let sums = std::mem::replace(&mut self.verified, VerificationSums::new(now));
            if sums.verifications > 0 {
                due.push(Summary::Verifications {
                    verifications: sums.verifications,
                    compared: sums.compared,
                    mappings: sums.mappings.len(),
                    minutes: age(sums.since).as_secs().div_ceil(60).max(1),
                });
            }
        }
        due
    }
}

fn log_summary(summary: &Summary, lag: &str, running: &str) {
    match summary {
        Summary::Daemon { passes, changes, mappings, seconds } => tracing::info!(
            sync_type = SyncType::Cdc.as_str(),
            records_count = changes,
            "{changes} changes of {mappings} tables applied in {seconds} s ({passes} CDC passes){lag}; running: {running}"
        ),
        Summary::Mapping { id, server, table, passes, changes, took } => tracing::info!(
            mapping_id = id,
            server_id = server,
            sync_type = SyncType::Cdc.as_str(),
            records_count = changes,
            execution_time_ms = i32::try_from(took.as_millis()).unwrap_or(i32::MAX),
            "{table}: {changes} changes applied in {passes} CDC passes since the last line about them"
        ),
        Summary::Verifications { verifications, compared, mappings, minutes } => tracing::info!(
            sync_type = SyncType::Verification.as_str(),
            records_count = compared,
            "{verifications} verifications of {mappings} tables found nothing new in {minutes} minutes"
        ),
    }
}

/// `; longest lag 12 s (Shop.dbo.Orders)`, where a lag is known.
fn longest_lag(seen: &MetricsSnapshot, tables: &HashMap<MappingId, String>) -> String {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let lags = seen.lags.iter().map(|(id, lag)| (lag.seconds(now, wall), *id));
    match lags.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((seconds, id)) => match tables.get(&id) {
            Some(table) => format!("; longest lag {seconds:.0} s ({table})"),
            None => format!("; longest lag {seconds:.0} s (mapping {id})"),
        },
        None => String::new(),
    }
}

/// `3 cdc, 1 full_sync`
fn running(tasks: &BTreeMap<&'static str, usize>) -> String {
    let busy: Vec<String> = tasks
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if busy.is_empty() { "nothing".to_owned() } else { busy.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Lag;

    fn pass(activity: &Activity, id: i32, changes: i64, took_ms: u64) -> bool {
        let table = TableName::new("Shop", "dbo", format!("T{id}"));
        let took = Duration::from_millis(took_ms);
        activity.cdc_pass(MappingId(id), ServerId(1), &table, changes, took)
    }

    /// 1 row a day: nothing that repeats has a line.
    #[test]
    fn passes_beyond_the_budget_are_summed_by_minute_and_by_mapping() {
        let activity = Activity::new(1);
        for _ in 0..3 {
            assert!(!pass(&activity, 1, 10, 5));
        }
        assert!(!pass(&activity, 2, 1, 0));
        let now = Instant::now();
        let mut state = activity.lock();
        assert_eq!(state.take(now, MINUTE, HOUR), []);
        assert_eq!(
            state.take(now + MINUTE, MINUTE, HOUR),
            [Summary::Daemon { passes: 4, changes: 31, mappings: 2, seconds: 60 }]
        );
        let mut hourly = state.take(now + HOUR, MINUTE, HOUR);
        hourly.sort_by_key(|summary| format!("{summary:?}"));
        assert_eq!(hourly.len(), 2, "{hourly:?}");
        let Summary::Mapping { table, passes: 3, changes: 30, took, .. } = &hourly[0] else {
            panic!("{hourly:?}")
        };
        assert_eq!((table.as_str(), *took), ("Shop.dbo.T1", Duration::from_millis(15)));
        assert_eq!(state.take(now + 2 * HOUR, MINUTE, HOUR), []);
    }

    #[test]
    fn what_has_lines_of_its_own_has_no_sum() {
        let activity = Activity::new(0);
        assert!(pass(&activity, 1, 10, 0));
        let form = activity.verification(MappingId(1), "MD5_COMPARISON", "PASSED", true, 5);
        assert_eq!(form, VerificationForm::RowAndLine);
        assert_eq!(activity.lock().take(Instant::now() + HOUR, MINUTE, HOUR), []);
    }

    #[test]
    fn the_first_verification_has_a_row_and_those_that_find_nothing_again_have_a_sum() {
        let activity = Activity::new(1);
        let passed = |id| activity.verification(MappingId(id), "MD5_COMPARISON", "PASSED", true, 5);
        use VerificationForm::{RowAndLine, Sum};
        assert_eq!((passed(1), passed(1), passed(1)), (RowAndLine, Sum, Sum));
        let failed = activity.verification(MappingId(1), "MD5_COMPARISON", "FAILED", false, 5);
        assert_eq!(failed, RowAndLine);
        assert_eq!(passed(1), RowAndLine, "the finding is over");
        assert_eq!(
            activity.lock().take(Instant::now() + HOUR, MINUTE, HOUR),
            [Summary::Verifications { verifications: 2, compared: 10, mappings: 1, minutes: 60 }]
        );
    }

    #[test]
    fn a_summary_says_who_is_behind_and_what_runs() {
        let metrics = Metrics::default();
        let lag = Lag::Since { oldest_ms: i64::MAX / 2 };
        metrics.lags([(MappingId(2), Some(lag))].into_iter());
        let tables = HashMap::from([(MappingId(2), "Shop.dbo.T2".to_owned())]);
        assert_eq!(longest_lag(&metrics.state(), &tables), "; longest lag 0 s (Shop.dbo.T2)");
        assert_eq!(longest_lag(&metrics.state(), &HashMap::new()), "; longest lag 0 s (mapping 2)");
        assert_eq!(running(&BTreeMap::from([("cdc", 2), ("poll", 0)])), "2 cdc");
        assert_eq!(running(&BTreeMap::new()), "nothing");
    }
}
