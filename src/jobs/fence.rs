//! An LSN that provably covers everything committed before a moment.
//!
//! A full sync reads rows that are newer than the newest captured LSN, because capture lags the
//! log; a verification does too. To know that the changes up to some LSN include everything such a
//! read has seen, somebody has to wait until capture has passed the read. [`read_clock`] takes the
//! source's clock after the read; [`wait_for_capture`] waits for evidence ([`crate::plan::fence`])
//! and returns the fence.
//!
//! Both clocks are the source server's, so no clock of ours matters. When that server's clock is
//! set back (a change to winter time), earlier commits look later than the reading: what was
//! captured before the reading is no evidence, whatever its time says, and neither is what is later
//! than the clock now. And later commits look earlier: then the wait is longer, never shorter.
//!
//! On an idle database commits do not come by themselves, except the mapping row that capture adds
//! about every five minutes; with VIEW DATABASE STATE an empty scan answers within two polling
//! intervals of the capture job. Neither is proof where others have to harden the log first: there
//! [`Fence::proven`] is `false` after the whole wait, and it is for the caller to do without.

use crate::{
    error::{Context, Error, Kind, Result},
    model::lsn::Lsn,
    mssql::{
        client::{row::Param, session::Session},
        queries::cdc,
    },
    plan::fence::{CaptureJobs, LogScan, scan_passed},
};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The source's clock and its capture's newest scan. Taken *after* the last read that the fence is
/// to cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureReading {
    /// the source's local time, style 121 with seven digits
    pub local: String,
    /// The newest captured LSN before the reading; `None` where nothing was captured yet.
    pub captured: Option<Lsn>,
    /// `None` where the login may not see scans, or there was none yet.
    pub scan: Option<LogScan>,
    /// The database is in an availability group or in a mirror.
    pub replicated: bool,
}

/// An LSN that covers a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub lsn: Lsn,
    /// `false`: capture went on without a transaction to prove it, where only that is proof. It may
    /// have passed over what is not hardened.
    pub proven: bool,
}

impl Fence {
    /// Where changes go on after rows were copied in which everything up to `cut` is, and
    /// everything up to the fence if it is proven. What comes again is applied once more, which
    /// changes nothing in the end.
    pub fn resume_lsn(self, cut: Lsn) -> Lsn {
        if self.proven { self.lsn } else { cut }
    }
}

/// How long and how often to look.
#[derive(Clone, Copy, Debug)]
pub struct WaitPolicy {
    /// After this the capture job is taken to stand still.
    pub wait_max: Duration,
    /// A capture job that is far behind and moves has `wait_max` anew with every step: what waits
    /// would otherwise be done again, for ever.
    pub while_it_moves: bool,
    /// The longest pause between two looks; the first ones are shorter.
    pub poll: Duration,
}

/// Reads clock and scans.
pub async fn read_clock(source: &mut Session) -> Result<CaptureReading> {
    let row = source
        .row(include_str!("../../sql/cdc/fence_clock.sql"), &[])
        .await
        .context("read the source's clock")?;
    let local = row.text(0)?.to_owned();
    let captured = row.opt_lsn(1)?.filter(|lsn| !lsn.is_zero());
    let replicated = row.bool(2)? || is_mirrored(source).await?;
    let scan = newest_scan(source, &local).await?;
    Ok(CaptureReading { local, captured, scan, replicated })
}

/// Also `false` where the login may not read the view: by default every login may.
async fn is_mirrored(source: &mut Session) -> Result<bool> {
    match source.row(include_str!("../../sql/cdc/fence_mirror.sql"), &[]).await {
        Ok(row) => Ok(row.i64(0)? > 0),
        Err(error)
            if matches!(error.kind, Kind::Permission | Kind::Missing) && !source.is_broken() =>
        {
            source.recover().await?;
            Ok(false)
        }
        Err(error) => Err(error.context("read sys.database_mirroring")),
    }
}

/// The capture job of the session's database; `None` where there is none, or this login may not
/// look.
pub async fn capture_jobs(source: &mut Session) -> Result<Option<CaptureJobs>> {
    let row = match source.opt_row(include_str!("../../sql/cdc/fence_job.sql"), &[]).await {
        Ok(row) => row,
        // no right, or no msdb: each server has its own number for that
        Err(_) if !source.is_broken() => {
            source.recover().await?;
            None
        }
        Err(error) => return Err(error.context("read msdb.dbo.cdc_jobs")),
    };
    let Some(row) = row else { return Ok(None) };
    let seconds = |value: i64| Duration::from_secs(u64::try_from(value).unwrap_or(0));
    Ok(Some(CaptureJobs {
        continuous: row.opt_i32(0)?.unwrap_or(1) != 0,
        polling: seconds(row.opt_i64(1)?.unwrap_or(0)),
        retention: row.opt_i64(2)?.map(|minutes| seconds(minutes.saturating_mul(60))),
    }))
}

/// Waits until capture has provably passed everything committed before `after`; the LSN up to which
/// changes must be applied.
pub async fn wait_for_capture(
    source: &mut Session,
    after: &CaptureReading,
    wait_policy: WaitPolicy,
    cancel: &CancellationToken,
) -> Result<Fence> {
    let mut deadline = Instant::now() + wait_policy.wait_max;
    let mut captured = after.captured;
    let mut pause = (wait_policy.poll / 8).max(Duration::from_millis(5));
    let mut scans_seen = after.scan.is_some();
    let mut then = after.scan.clone();
    let mut unproven = None;
    loop {
        match later_commit(source, after).await? {
            Some(fence) if fence.proven => return Ok(fence),
            Some(fence) => unproven = Some(fence.lsn),
            None => {}
        }
        if scans_seen || then.is_none() {
            match (newest_scan(source, &after.local).await?, &then) {
                (Some(now), Some(before)) => {
                    if scan_passed(before, &now) {
                        // Everything committed before the reading is captured, and the newest
                        // captured LSN is not before it.
                        match cdc::max_lsn(source).await? {
                            Some(max_lsn) if !after.replicated => {
                                return Ok(Fence { lsn: max_lsn.lsn, proven: true });
                            }
                            Some(max_lsn) => unproven = unproven.max(Some(max_lsn.lsn)),
                            None => {}
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
        if let (true, Some(lsn)) = (now >= deadline, unproven) {
            return Ok(Fence { lsn, proven: false });
        }
        if now >= deadline && wait_policy.while_it_moves {
            let max_lsn = cdc::max_lsn(source).await?.map(|max_lsn| max_lsn.lsn);
            if max_lsn > captured {
                captured = max_lsn;
                deadline = now + wait_policy.wait_max;
            }
        }
        if now >= deadline {
            return Err(Error::new(
                Kind::Busy,
                format!("the capture job has not passed {} within {} s: it has stopped or is far behind", after.local, wait_policy.wait_max.as_secs()),
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
        pause = (pause * 2).min(wait_policy.poll);
    }
}

/// The lowest captured LSN that is later than the reading.
async fn later_commit(source: &mut Session, after: &CaptureReading) -> Result<Option<Fence>> {
    let params = [Param::Text(&after.local), Param::OptLsn(after.captured)];
    let rows = source
        .rows(include_str!("../../sql/cdc/fence_commit.sql"), &params)
        .await
        .context("look for a later commit in cdc.lsn_time_mapping")?;
    let mut fences = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(lsn) = row.opt_lsn(1)? {
            fences.push(Fence { lsn, proven: row.bool(0)? || !after.replicated });
        }
    }
    Ok(fences.into_iter().min_by_key(|fence| (!fence.proven, fence.lsn)))
}

/// The newest scan; `None` where there is none or this login may not look.
async fn newest_scan(source: &mut Session, local: &str) -> Result<Option<LogScan>> {
    match source.opt_row(include_str!("../../sql/cdc/fence_scan.sql"), &[Param::Text(local)]).await
    {
        Ok(None) => Ok(None),
        Ok(Some(row)) => Ok(Some(LogScan {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::name::Ident,
        mssql::{
            connect::connection_string,
            pool::{PoolOptions, Pools},
        },
    };
    use mssql_standin::{cdc::CaptureMode, engine::availability, server::Server};

    fn behaviour() -> PoolOptions {
        PoolOptions {
            connections_max: 3,
            statement_timeout: Duration::from_secs(20),
            lock_timeout: Duration::from_secs(1),
            deadlock_priority_low: true,
            idle_timeout: Duration::from_secs(60),
        }
    }

    /// A source with CDC on dbo.T, captured by hand, and a session in it.
    async fn source(server: &Server) -> (Pools, i32) {
        let pools = Pools::new(
            connection_string::parse(&server.connection_string("master")).unwrap().endpoint,
            behaviour(),
        );
        pools
            .checkout(&Ident::new("master"), "test")
            .await
            .unwrap()
            .batch("CREATE DATABASE Shop")
            .await
            .unwrap();
        let mut source = pools.checkout(&Ident::new("Shop"), "test").await.unwrap();
        source
            .batch("CREATE TABLE dbo.T (ID int NOT NULL PRIMARY KEY); EXEC sys.sp_cdc_enable_db;")
            .await
            .unwrap();
        source.batch("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'T', @role_name = NULL").await.unwrap();
        let mut state = server.instance().unwrap().lock();
        let shop = state.database_named("Shop").unwrap().id;
        state.database_mut(shop).unwrap().cdc.mode = CaptureMode::Manual;
        (pools, shop)
    }

    fn capture_one(server: &Server, shop: i32) {
        let instance = server.instance().unwrap();
        let now = instance.now();
        mssql_standin::cdc::capture::scan(&mut instance.lock(), shop, now, 1);
    }

    async fn insert(source: &mut Session, id: usize) {
        source.batch(&format!("INSERT INTO dbo.T VALUES ({id})")).await.unwrap();
    }

    async fn max_lsn(source: &mut Session) -> Lsn {
        cdc::max_lsn(source).await.unwrap().unwrap().lsn
    }

    /// A full sync that waits for a capture job hours behind would otherwise copy everything again,
    /// for ever.
    #[tokio::test]
    async fn a_capture_job_that_is_far_behind_and_moves_is_waited_for() {
        const STEP: Duration = Duration::from_millis(150);
        const STEPS: usize = 12;
        let server = Server::builder().start().await.unwrap();
        let (pools, shop) = source(&server).await;
        let mut source = pools.checkout(&Ident::new("Shop"), "test").await.unwrap();
        for id in 0..STEPS {
            insert(&mut source, id).await;
        }
        let after = read_clock(&mut source).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        insert(&mut source, 1000).await;
        let capture = async {
            for _ in 0..=STEPS {
                tokio::time::sleep(STEP).await;
                capture_one(&server, shop);
            }
        };
        let wait_policy = WaitPolicy {
            wait_max: 4 * STEP,
            while_it_moves: true,
            poll: Duration::from_millis(20),
        };
        let cancel = CancellationToken::new();
        let (fence, ()) =
            tokio::join!(wait_for_capture(&mut source, &after, wait_policy, &cancel), capture);
        assert_eq!(fence.unwrap(), Fence { lsn: max_lsn(&mut source).await, proven: true });
        // A capture job that has stopped is not waited for.
        let after = read_clock(&mut source).await.unwrap();
        assert_eq!(
            wait_for_capture(&mut source, &after, wait_policy, &cancel).await.unwrap_err().kind,
            Kind::Busy
        );
    }

    /// Every autumn: a commit that waited for capture when the clock was set back has a time that
    /// is an hour later than the reading, and a place in the log before what was committed since.
    #[tokio::test]
    async fn a_commit_from_before_the_clock_was_set_back_is_no_fence() {
        let server = Server::builder().start().await.unwrap();
        let (pools, shop) = source(&server).await;
        let mut source = pools.checkout(&Ident::new("Shop"), "test").await.unwrap();
        insert(&mut source, 1).await;
        server.instance().unwrap().clock.shift_ms(-3_600_000);
        insert(&mut source, 2).await;
        let after = read_clock(&mut source).await.unwrap();
        capture_one(&server, shop);
        let wait_policy = WaitPolicy {
            wait_max: Duration::from_millis(300),
            while_it_moves: false,
            poll: Duration::from_millis(20),
        };
        let cancel = CancellationToken::new();
        assert_eq!(
            wait_for_capture(&mut source, &after, wait_policy, &cancel).await.unwrap_err().kind,
            Kind::Busy
        );
        capture_one(&server, shop);
        tokio::time::sleep(Duration::from_millis(30)).await;
        insert(&mut source, 3).await;
        capture_one(&server, shop);
        assert_eq!(
            wait_for_capture(&mut source, &after, wait_policy, &cancel).await.unwrap().lsn,
            max_lsn(&mut source).await
        );
    }

    /// Empty scans, and entries that capture writes by itself, while a secondary has not hardened
    /// the log: a transaction that was committed before the reading is captured afterwards all the
    /// same.
    #[tokio::test]
    async fn in_a_group_or_a_mirror_only_a_captured_transaction_is_proof() {
        for join in [availability::join_group, availability::mirror] {
            let server = Server::builder().start().await.unwrap();
            let (pools, shop) = source(&server).await;
            let instance = server.instance().unwrap();
            join(instance, "Shop").unwrap();
            let mut source = pools.checkout(&Ident::new("Shop"), "test").await.unwrap();
            insert(&mut source, 1).await;
            capture_one(&server, shop);
            instance.lock().database_mut(shop).unwrap().cdc.unhardened = true;
            insert(&mut source, 2).await;
            let after = read_clock(&mut source).await.unwrap();
            assert!(after.replicated);
            instance.clock.shift_ms(60_000);
            for _ in 0..3 {
                capture_one(&server, shop);
            }
            let now = instance.now();
            mssql_standin::cdc::capture::dummy(&mut instance.lock(), shop, now);
            let cancel = CancellationToken::new();
            let impatient = WaitPolicy {
                wait_max: Duration::from_millis(300),
                while_it_moves: true,
                poll: Duration::from_millis(20),
            };
            let fence = wait_for_capture(&mut source, &after, impatient, &cancel).await.unwrap();
            assert!(!fence.proven);
            assert_eq!(fence.resume_lsn(Lsn::ZERO), Lsn::ZERO);
            instance.lock().database_mut(shop).unwrap().cdc.unhardened = false;
            insert(&mut source, 3).await;
            capture_one(&server, shop);
            capture_one(&server, shop);
            let fence = wait_for_capture(&mut source, &after, impatient, &cancel).await.unwrap();
            assert_eq!(fence, Fence { lsn: max_lsn(&mut source).await, proven: true });
            assert_eq!(fence.resume_lsn(Lsn::ZERO), fence.lsn);
        }
    }

    /// How the capture job runs is read from msdb, and not known to a login that may not look
    /// there.
    #[tokio::test]
    async fn the_capture_job_says_how_it_runs() {
        let server = Server::builder().start().await.unwrap();
        let (pools, _) = source(&server).await;
        let mut source = pools.checkout(&Ident::new("Shop"), "test").await.unwrap();
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let usual = CaptureJobs {
            continuous: true,
            polling: Duration::from_secs(5),
            retention: Some(minutes(4320)),
        };
        assert_eq!(capture_jobs(&mut source).await.unwrap(), Some(usual));
        source
            .batch("EXEC sys.sp_cdc_change_job @job_type = N'capture', @continuous = 0")
            .await
            .unwrap();
        source
            .batch("EXEC sys.sp_cdc_change_job @job_type = N'cleanup', @retention = 60")
            .await
            .unwrap();
        assert_eq!(
            capture_jobs(&mut source).await.unwrap(),
            Some(CaptureJobs { continuous: false, retention: Some(minutes(60)), ..usual })
        );
        source.batch("CREATE LOGIN reader WITH PASSWORD = 'Re4der!pw'; CREATE USER reader FOR LOGIN reader").await.unwrap();
        let addr = server.addr();
        let string = format!(
            "server={};port={};user id=reader;password=Re4der!pw;database=Shop;encrypt=disable",
            addr.ip(),
            addr.port()
        );
        let pools = Pools::new(connection_string::parse(&string).unwrap().endpoint, behaviour());
        let mut reader = pools.checkout(&Ident::new("Shop"), "test").await.unwrap();
        assert_eq!(capture_jobs(&mut reader).await.unwrap(), None);
    }
}
