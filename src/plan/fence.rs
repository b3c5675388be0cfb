//! Has capture passed a moment? Two kinds of evidence.
//!
//! `sys.fn_cdc_get_max_lsn()` lags the log: what was committed before a read may not be captured
//! yet, so it is no fence. These are:
//!
//! - **A later commit**: a row of `cdc.lsn_time_mapping` whose commit time is later than the
//!   source's clock after the read. Capture goes through the log in commit order, so everything
//!   committed before is captured too. (The SQL asks this; `datetime` has 1/300 s steps, so the
//!   reading is rounded up well past one.) On an idle database such a row comes about every five
//!   minutes.
//! - **An empty scan**: a log scan of the capture job that began after the read and found nothing.
//!   `sys.dm_cdc_log_scan_sessions` folds empty scans into the row of the last one that was not:
//!   `empty_scan_count` counts them. It is not documented whether a folded scan moves that row's
//!   times, and one scan may have been under way when we read; so the count must have grown by two
//!   (of which the second began after the reading), or a session must have started after the
//!   reading and come back empty.
//!   <https://learn.microsoft.com/sql/relational-databases/system-dynamic-management-views/change-data-capture-sys-dm-cdc-log-scan-sessions>
//!
//! **In an availability group, and in a mirror,** capture takes only what every secondary has
//! hardened (asynchronous ones too, without trace flag 1448), and stops there as at the log's end.
//! An empty scan then proves nothing, and neither does the entry that capture writes by itself
//! (tran_id 0x00): only a real transaction, committed after the reading and captured, does.
//! <https://learn.microsoft.com/sql/database-engine/availability-groups/windows/replicate-track-change-data-capture-always-on-availability>
//!
//! **How long to wait** is the capture job's affair: it polls every few seconds or every few hours,
//! or runs by a schedule.

use std::time::Duration;

/// Capture may be idle: then the proof is the entry that it writes about every five minutes.
const IDLE_ENTRY_MAX: Duration = Duration::from_secs(330);
/// A job by schedule, whose schedule is not in `cdc_jobs`: every day at the latest.
const SCHEDULED_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// A job of which nothing is known, as this login may not look: most that run by schedule do so
/// every 15 to 60 minutes.
const UNKNOWN_MAX: Duration = Duration::from_secs(60 * 60);

/// A database's capture job and cleanup job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaptureJobs {
    /// It runs all the time; otherwise by a schedule.
    pub continuous: bool,
    /// Between two scans of a job that runs all the time.
    pub polling: Duration,
    /// So long are changes kept.
    pub retention: Option<Duration>,
}

/// How long a capture job that runs as it should may take to pass a moment: two scans (one may be
/// under way), and the idle entry.
pub fn wait_max(job: Option<&CaptureJobs>) -> Duration {
    let next_scan = match job {
        Some(CaptureJobs { continuous: true, polling, .. }) => *polling * 2,
        Some(CaptureJobs { continuous: false, .. }) => SCHEDULED_MAX,
        None => UNKNOWN_MAX,
    };
    next_scan + IDLE_ENTRY_MAX
}

/// The newest row of `sys.dm_cdc_log_scan_sessions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogScan {
    pub session_id: i64,
    /// Started after the reading's clock (asked of the server, which compares its own times).
    pub started_after: bool,
    /// It has an end time.
    pub ended: bool,
    pub tran_count: i64,
    pub empty_scans: i64,
}

/// Whether `now` proves that a scan begun after `then` was taken found the log's end.
pub fn scan_passed(then: &LogScan, now: &LogScan) -> bool {
    if now.session_id == then.session_id {
        return now.empty_scans >= then.empty_scans.saturating_add(2);
    }
    if now.session_id < then.session_id {
        // The server restarted, and its counters with it: wait for another reading.
        return false;
    }
    if now.started_after {
        now.empty_scans >= 1 || (now.ended && now.tran_count == 0)
    } else {
        now.empty_scans >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_job_is_waited_for_as_it_runs() {
        let job = |continuous, polling_s| CaptureJobs {
            continuous,
            polling: Duration::from_secs(polling_s),
            retention: None,
        };
        assert_eq!(wait_max(Some(&job(true, 5))), Duration::from_secs(340));
        assert_eq!(wait_max(Some(&job(true, 86_399))), Duration::from_secs(173_128));
        assert_eq!(wait_max(Some(&job(false, 5))), SCHEDULED_MAX + IDLE_ENTRY_MAX);
        assert_eq!(wait_max(None), UNKNOWN_MAX + IDLE_ENTRY_MAX);
    }

    #[test]
    fn only_a_scan_begun_later_counts() {
        let scan = |session_id, started_after, ended, tran_count, empty_scans| LogScan {
            session_id,
            started_after,
            ended,
            tran_count,
            empty_scans,
        };
        let then = scan(5, false, true, 3, 4);
        for (now, proven) in [
            (scan(5, false, true, 3, 4), false),
            // the one that was under way
            (scan(5, false, true, 3, 5), false),
            (scan(5, false, true, 3, 6), true),
            // a new session that found something, then one empty scan after it
            (scan(6, true, true, 2, 0), false),
            (scan(6, true, true, 2, 1), true),
            (scan(6, true, true, 0, 0), true),
            (scan(6, true, false, 0, 0), false),
            // began before the reading
            (scan(6, false, true, 0, 1), false),
            (scan(6, false, true, 0, 2), true),
            // restarted
            (scan(1, true, true, 0, 9), false),
        ] {
            assert_eq!(scan_passed(&then, &now), proven, "{now:?}");
        }
    }
}
