//! Whether the source's capture job moves.

use super::state::{PollState, SourceFacts};
use crate::model::{id::ServerId, name::Ident};
use std::time::Duration;
use tokio::time::Instant;

/// Capture has stalled if the max LSN does not move for this long: capture writes an entry about
/// every five minutes, also for an idle database.
pub const STALL_AFTER: Duration = Duration::from_secs(15 * 60);

/// Logs one warning when nothing is captured or capture does not move, and one line when it moves
/// again.
pub(super) fn log_stall(
    server: ServerId,
    database: &Ident,
    source: &SourceFacts,
    state: &mut PollState,
) {
    let now = Instant::now();
    let lsn = source.max_lsn.as_ref().map(|max_lsn| max_lsn.lsn);
    let since = match state.max_lsn {
        Some((known, since)) if known == lsn => since,
        _ => {
            if state.stall_logged && lsn.is_some() {
                tracing::info!(
                    server_id = server.0,
                    "the capture job of {} works again",
                    database.as_str()
                );
            }
            state.stall_logged = false;
            state.max_lsn = Some((lsn, now));
            now
        }
    };
    if state.stall_logged {
        return;
    }
    let fix = "check that SQL Server Agent and the cdc capture job run: EXEC sys.sp_cdc_help_jobs; SELECT * FROM sys.dm_cdc_errors";
    if lsn.is_none() {
        state.stall_logged = true;
        tracing::warn!(
            server_id = server.0,
            "nothing has been captured in {} yet (its maximum LSN is NULL): CDC was enabled just now, or capture does not run; {fix}",
            database.as_str()
        );
    } else if let Some(minutes) = stalled_minutes(source, now - since) {
        state.stall_logged = true;
        tracing::warn!(
            server_id = server.0,
            "capture of {} has not moved for {} minutes; {fix}",
            database.as_str(),
            minutes
        );
    }
}

/// For how many minutes the max LSN has not moved, if that is too long: by the source's clock, or
/// by the time that this daemon has seen it unchanged, whichever is longer. (After the source's
/// local time was set forward, its clock is wrong until the next entry.)
fn stalled_minutes(source: &SourceFacts, unchanged: Duration) -> Option<u64> {
    let age = source
        .max_lsn
        .as_ref()
        .and_then(|max_lsn| max_lsn.age_s)
        .and_then(|age| u64::try_from(age).ok())
        .map_or(unchanged, Duration::from_secs);
    let age = age.max(unchanged);
    (age >= STALL_AFTER).then_some(age.as_secs() / 60)
}

/// Why the lag of no mapping of this database is known, if that is so.
pub(super) fn unknown_lag_reason(source: &SourceFacts, state: &PollState) -> Option<String> {
    if let Some(refused) = &source.refused {
        return Some(refused.clone());
    }
    if source.max_lsn.is_none() {
        return Some("nothing has been captured yet: CDC was enabled just now, or the capture job does not run".to_owned());
    }
    let unchanged = state.max_lsn.map_or(Duration::ZERO, |(_, since)| since.elapsed());
    stalled_minutes(source, unchanged)
        .map(|minutes| format!("capture has not moved for {minutes} minutes"))
}
