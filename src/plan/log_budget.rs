//! Whether something that repeats is logged in detail, or only counted for a summary.
//!
//! A token bucket over the day: a quarter of the day's rows may be used at once, for instance after
//! a start, and three quarters come back evenly over the day. So however things are spread, 24 hours
//! see no more rows than `DATAFLOW_LOG_ROWS_PER_DAY`, as long as what is never summed (starts, ends,
//! errors, findings, decisions, and the summaries) needs less than three quarters of them.
//!
//! When the bucket is empty, everything that repeats is summed until the bucket is half full again:
//! detail for one event in a hundred would help nobody.

use std::time::Duration;

/// How something that repeats is logged now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    Detail,
    Sum,
}

/// The part of a day's rows that may be used at once.
const BURST: f64 = 0.25;

/// The part of the bucket that has to be full before detail is logged again.
const RESUME: f64 = 0.5;

const DAY_S: f64 = 86_400.0;

/// How many rows may still be written in detail. Times count from the start of the process.
#[derive(Clone, Debug)]
pub struct LogBudget {
    /// 0: no limit.
    rows_per_day: f64,
    rows_left: f64,
    counted_at: Duration,
    form: LogForm,
}

impl LogBudget {
    /// A full bucket. `rows_per_day` = 0: everything is logged in detail.
    pub fn new(rows_per_day: u32) -> Self {
        let rows_per_day = f64::from(rows_per_day);
        LogBudget {
            rows_per_day,
            rows_left: rows_per_day * BURST,
            counted_at: Duration::ZERO,
            form: LogForm::Detail,
        }
    }

    /// Rows were written. What is never summed may use more than is left; a storm of errors costs
    /// detail for hours, but not for days.
    pub fn charge(&mut self, now: Duration, rows: u32) {
        self.refill(now);
        let burst = self.rows_per_day * BURST;
        self.rows_left = (self.rows_left - f64::from(rows)).max(-burst);
    }

    /// How something that repeats is to be logged.
    pub fn form(&mut self, now: Duration) -> LogForm {
        self.refill(now);
        let burst = self.rows_per_day * BURST;
        if self.rows_per_day == 0.0 {
            self.form = LogForm::Detail;
        } else if self.rows_left < 1.0 {
            self.form = LogForm::Sum;
        } else if self.rows_left >= burst * RESUME {
            self.form = LogForm::Detail;
        }
        self.form
    }

    fn refill(&mut self, now: Duration) {
        let passed_s = now.saturating_sub(self.counted_at).as_secs_f64();
        self.counted_at = self.counted_at.max(now);
        let burst = self.rows_per_day * BURST;
        let back = self.rows_per_day * (1.0 - BURST) * passed_s / DAY_S;
        self.rows_left = (self.rows_left + back).min(burst);
    }
}

/// The longest time for which a verification that finds nothing again writes no row.
pub const UNCHANGED_ROW_EVERY: Duration = Duration::from_secs(3_600);

/// What a verification leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationForm {
    RowAndLine,
    /// A row of `verification_logs`; the line is summed.
    Row,
    Sum,
}

/// What a verification leaves behind: everything when it found something, or something else than the
/// one before it, or while `form` is detail; otherwise a row once an hour.
///
/// `last`: the status of the last row of this mapping and kind, and how long ago it was written.
pub fn verification_form(
    form: LogForm,
    status: &str,
    found_nothing: bool,
    last: Option<(&str, Duration)>,
) -> VerificationForm {
    match last {
        Some((before, age)) if found_nothing && before == status && form == LogForm::Sum => {
            if age < UNCHANGED_ROW_EVERY { VerificationForm::Sum } else { VerificationForm::Row }
        }
        _ => VerificationForm::RowAndLine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LogForm::{Detail, Sum};

    const HOUR_S: u64 = 3_600;

    /// `(rows a day, [(hour, rows written before it, expected)])`
    #[test]
    fn detail_while_rows_are_left_and_again_when_half_have_come_back() {
        type Step = (u64, u32, LogForm);
        let cases: [(u32, &[Step]); 4] = [
            (0, &[(0, 1_000_000, Detail), (1, 1_000_000, Detail)]),
            // a burst of 2,400, and 300 an hour come back
            (9_600, &[(0, 2_399, Detail), (0, 1, Sum), (3, 0, Sum), (4, 0, Detail)]),
            // what is never summed: in debt, of at most a burst
            (9_600, &[(0, 1_000_000, Sum), (8, 0, Sum), (11, 0, Sum), (12, 0, Detail)]),
            // the bucket does not grow beyond the burst
            (9_600, &[(100, 2_400, Sum)]),
        ];
        for (rows_per_day, steps) in cases {
            let mut budget = LogBudget::new(rows_per_day);
            for (hour, rows, expected) in steps {
                let now = Duration::from_secs(hour * HOUR_S);
                budget.charge(now, *rows);
                assert_eq!(budget.form(now), *expected, "{rows_per_day}: {hour} h, {rows} rows");
            }
        }
    }

    /// However often it is asked, a day sees no more than its rows.
    #[test]
    fn the_sum_of_a_day_holds() {
        const ROWS_PER_DAY: u32 = 50_000;
        let mut budget = LogBudget::new(ROWS_PER_DAY);
        let mut detailed = 0;
        for second in 0..24 * HOUR_S {
            let now = Duration::from_secs(second);
            for _ in 0..30 {
                if budget.form(now) == Detail {
                    budget.charge(now, 1);
                    detailed += 1;
                }
            }
        }
        assert!((37_500..=ROWS_PER_DAY).contains(&detailed), "{detailed}");
    }

    #[test]
    fn a_verification_that_finds_the_same_nothing_again_may_be_summed_for_an_hour() {
        let ago = |minutes: u64| Duration::from_secs(minutes * 60);
        for (form, status, found_nothing, last, expected) in [
            (Sum, "PASSED", true, Some(("PASSED", ago(59))), VerificationForm::Sum),
            (Sum, "PASSED", true, Some(("PASSED", ago(60))), VerificationForm::Row),
            (Sum, "PASSED", true, Some(("FAILED", ago(1))), VerificationForm::RowAndLine),
            (Sum, "PASSED", true, None, VerificationForm::RowAndLine),
            (Sum, "FAILED", false, Some(("FAILED", ago(1))), VerificationForm::RowAndLine),
            (Sum, "PARTIAL", true, Some(("PARTIAL", ago(1))), VerificationForm::Sum),
            (Detail, "PASSED", true, Some(("PASSED", ago(1))), VerificationForm::RowAndLine),
        ] {
            assert_eq!(
                verification_form(form, status, found_nothing, last),
                expected,
                "{form:?} {status} after {last:?}"
            );
        }
    }
}
