//! Which row of `sync_status` a CDC pass is counted in, and when that row is written.
//!
//! A row for each pass would be 2.6 million rows a day for 300 busy tables. So one row covers the
//! passes of an hour, as long as none of them fails.

use std::time::Duration;

/// The longest time that one row of `sync_status` covers: whoever reads the table sees changes by
/// the hour.
pub const SESSION_MAX: Duration = Duration::from_secs(3_600);

/// A pass that has run for this long is shown as RUNNING; most passes take milliseconds, and writing
/// that they run would double the statements.
pub const SHOW_RUNNING_AFTER: Duration = Duration::from_secs(5);

/// Whether the next pass is counted in the row that is there, and not in a new one. `same_owner`:
/// the mapping was not another daemon's in between.
pub fn continues(age: Duration, same_owner: bool) -> bool {
    same_owner && age < SESSION_MAX
}

/// How a row looks in the table, or is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowStatus {
    Running,
    Completed,
    Paused,
    Error,
}

/// Whether the end of a pass is written at once. Otherwise it is written together with those of
/// other mappings, a few seconds later: what changes is only a count and a time.
pub fn writes_end_at_once(shown: RowStatus, end: RowStatus) -> bool {
    shown != RowStatus::Completed || end != RowStatus::Completed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_row_after_an_hour_or_another_owner() {
        for (age_s, same_owner, expected) in
            [(0, true, true), (3_599, true, true), (3_600, true, false), (1, false, false)]
        {
            assert_eq!(
                continues(Duration::from_secs(age_s), same_owner),
                expected,
                "{age_s} s, same owner: {same_owner}"
            );
        }
    }

    #[test]
    fn only_a_pass_that_changes_nothing_but_counts_waits() {
        use RowStatus::{Completed, Error, Paused, Running};
        for (shown, end, at_once) in [
            (Running, Completed, true),
            (Completed, Completed, false),
            (Paused, Completed, true),
            (Completed, Paused, true),
            (Completed, Error, true),
            (Running, Error, true),
        ] {
            assert_eq!(writes_end_at_once(shown, end), at_once, "{shown:?}, {end:?}");
        }
    }
}
