//! An LSN that provably covers everything committed before a moment.
//!
//! A full sync reads rows that are newer than the newest captured LSN, because capture lags the log; a verification does too. To know
//! that the changes up to some LSN include everything such a read has seen, somebody has to wait until capture has passed the read.
//! [`reading`] takes the source's clock after the read; [`wait`] waits for evidence ([`crate::plan::fence`]) and returns the fence.
//!
//! Both clocks are the source server's, so no clock of ours matters. When that server's clock is set back (a change to winter time),
//! earlier commits look later than the reading: what was captured before the reading is no evidence, whatever its time says. And later
//! commits look earlier: then the wait is longer, never shorter; the scan evidence does not depend on the time of day in that way.
//!
//! On an idle database commits do not come by themselves, except the mapping row that capture adds about every five minutes; with VIEW
//! DATABASE STATE an empty scan answers within two polling intervals of the capture job.

use crate::{
    error::{Context, Error, Kind, Result},
    model::lsn::Lsn,
    mssql::{cdc, row::Param, session::Session},
    plan::fence::{Scan, scanned},
};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The source's clock and its capture's newest scan. Taken *after* the last read that the fence is to cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// the source's local time, style 121 with seven digits
    pub local: String,
    /// The newest captured LSN before the reading; `None` where nothing was captured yet.
    pub captured: Option<Lsn>,
    /// `None` where the login may not see scans, or there was none yet.
    pub scan: Option<Scan>,
}

/// How long and how often to look.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this the capture job is taken to stand still.
    pub wait_max: Duration,
    /// The longest pause between two looks; the first ones are shorter.
    pub poll: Duration,
}

impl Default for Patience {
    /// Twice what an idle database takes to record a commit of its own, looked at as often as the capture job polls.
    fn default() -> Self {
        Patience { wait_max: Duration::from_secs(600), poll: Duration::from_secs(1) }
    }
}

/// Reads clock and scans.
pub async fn reading(source: &mut Session) -> Result<Reading> {
    let row = source.row(include_str!("../../sql/fence_clock.sql"), &[]).await.context("read the source's clock")?;
    let local = row.text(0)?.to_owned();
    let captured = row.opt_lsn(1)?.filter(|lsn| !lsn.is_zero());
    let scan = newest_scan(source, &local).await?;
    Ok(Reading { local, captured, scan })
}

/// Waits until capture has provably passed everything committed before `after`; the LSN up to which changes must be applied.
pub async fn wait(source: &mut Session, after: &Reading, patience: Patience, cancel: &CancellationToken) -> Result<Lsn> {
    let deadline = Instant::now() + patience.wait_max;
    let mut pause = (patience.poll / 8).max(Duration::from_millis(5));
    let mut scans_seen = after.scan.is_some();
    let mut then = after.scan.clone();
    loop {
        let row = source
            .row(include_str!("../../sql/fence_commit.sql"), &[Param::Text(&after.local), Param::OptLsn(after.captured)])
            .await
            .context("look for a later commit in cdc.lsn_time_mapping")?;
        if let Some(lsn) = row.opt_lsn(0)? {
            return Ok(lsn);
        }
        if scans_seen || then.is_none() {
            match (newest_scan(source, &after.local).await?, &then) {
                (Some(now), Some(before)) => {
                    if scanned(before, &now) {
                        // Everything committed before the reading is captured, and the newest captured LSN is not before it.
                        if let Some(upper) = cdc::upper(source).await? {
                            return Ok(upper.lsn);
                        }
                    } else if now.session_id < before.session_id {
                        then = Some(now);
                    }
                }
                (Some(now), None) => {
                    scans_seen = true;
                    then = Some(now);
                }
                (None, _) => {}
            }
        }
        if cancel.is_cancelled() {
            return Err(Error::new(Kind::Cancelled, "asked to stop while waiting for capture"));
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(Error::new(
                Kind::Busy,
                format!("the capture job has not passed {} within {} s: it stands still or is far behind", after.local, patience.wait_max.as_secs()),
            )
            .with_hint(
                "Check that SQL Server Agent and the cdc capture job run (EXEC sys.sp_cdc_help_jobs; SELECT * FROM sys.dm_cdc_errors); GRANT VIEW DATABASE STATE lets this service see an idle capture job's scans",
            ));
        }
        let nap = pause.min(deadline - now);
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            () = cancel.cancelled() => {}
        }
        pause = (pause * 2).min(patience.poll);
    }
}

/// The newest scan; `None` where there is none or this login may not look.
async fn newest_scan(source: &mut Session, local: &str) -> Result<Option<Scan>> {
    match source.opt_row(include_str!("../../sql/fence_scan.sql"), &[Param::Text(local)]).await {
        Ok(None) => Ok(None),
        Ok(Some(row)) => Ok(Some(Scan {
            session_id: row.i64(0)?,
            started_after: row.bool(1)?,
            ended: row.bool(2)?,
            tran_count: row.opt_i64(3)?.unwrap_or(0),
            empty_scans: row.opt_i64(4)?.unwrap_or(0),
        })),
        Err(error) if matches!(error.kind, Kind::Permission | Kind::Missing) => {
            source.recover().await?;
            Ok(None)
        }
        Err(error) => Err(error.context("read sys.dm_cdc_log_scan_sessions")),
    }
}
