//! The capture window: what has been captured, a capture job that stands still, and the lag of each
//! mapping.

use mssql_standin::cdc::{
    CaptureMode,
    capture::{begin, end},
};

use super::{SHORT_PARKED_INTERVAL, capture, following, start, start_with};
use crate::harness::{World, eventually};

/// As long as nothing has been captured there is one warning, not one per tick, and no error.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_captured_yet_is_one_warning() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    world.both("CREATE TABLE dbo.W (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&[]).await;
    capture(&world, |cdc| cdc.mode = CaptureMode::Manual);
    world.enable_cdc(&["W"]).await;
    world.shop().await.run("DELETE cdc.lsn_time_mapping").await;
    let mapping = world.map("W", "ID", None, true).await;
    let daemon = start(&world);
    daemon.wait_for_line(&["WARN", "maximum LSN is NULL"]).await;
    unknown_lag(&world, mapping, "nothing has been captured").await;
    world.shop().await.run("INSERT INTO dbo.W VALUES (1)").await;
    capture(&world, |cdc| cdc.mode = CaptureMode::Immediate);
    world.in_sync("dbo.W", "ID").await;
    let output = daemon.output();
    assert_eq!(output.matches("maximum LSN is NULL").count(), 1, "{output}");
    let errors =
        world.control().await.query("SELECT mapping_id, error_message FROM error_logs").await;
    assert!(errors.rows.iter().all(|row| row[0] != mapping.to_string()), "{errors}");
}

/// Waits until `v_cdc_lag` shows an unknown lag with this reason.
async fn unknown_lag(world: &World, mapping: i32, reason: &str) {
    let mut control = world.control().await;
    eventually("an unknown lag with its reason", async || {
        let lag = control
            .query(&format!(
                "SELECT seconds_behind, reason FROM v_cdc_lag WHERE mapping_id = {mapping}"
            ))
            .await;
        if lag.first() == "NULL" && lag.rows[0][1].contains(reason) {
            Ok(())
        } else {
            Err(lag.to_string())
        }
    })
    .await;
}

/// CDC that is not enabled is an error that says what to do, and `v_cdc_lag` shows the reason for
/// the unknown lag.
#[tokio::test(flavor = "multi_thread")]
async fn without_cdc_the_lag_is_unknown_and_the_reason_given() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.N (ID INT NOT NULL PRIMARY KEY)").await;
    let mapping = world.map("N", "ID", None, true).await;
    let _daemon = start_with(&world, SHORT_PARKED_INTERVAL);
    super::error_of(&world, mapping, &["sp_cdc_enable_db"]).await;
    unknown_lag(&world, mapping, "sp_cdc_enable_db").await;
    world.enable_cdc(&[]).await;
    unknown_lag(&world, mapping, "capture").await;
    world.enable_cdc(&["N"]).await;
    world.shop().await.run("INSERT INTO dbo.N VALUES (1)").await;
    world.in_sync("dbo.N", "ID").await;
    let mut control = world.control().await;
    eventually("the lag to be known", async || {
        let lag = control
            .query(&format!(
                "SELECT reason, seconds_behind FROM v_cdc_lag WHERE mapping_id = {mapping}"
            ))
            .await;
        let behind = lag.rows[0][1].parse::<i64>().is_ok_and(|seconds| (0..60).contains(&seconds));
        if lag.first() == "NULL" && behind { Ok(()) } else { Err(lag.to_string()) }
    })
    .await;
}

/// A capture job that stands still is logged once, and once more when it goes on. `v_cdc_lag` shows
/// an unknown lag meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_job_that_stands_still_is_noticed_once() {
    crate::only_on_standins!("its engine");
    let (world, mapping, daemon) = following(
        "S",
        "CREATE TABLE dbo.S (ID INT NOT NULL PRIMARY KEY)",
        "INSERT INTO dbo.S VALUES (1)",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_stop_job @job_type = N'capture'").await;
    world.source.instance().expect("the source's engine").clock.shift_ms(40 * 60 * 1000);
    shop.run("INSERT INTO dbo.S VALUES (2)").await;
    daemon.wait_for_line(&["WARN", "has not moved for"]).await;
    unknown_lag(&world, mapping, "capture has not moved").await;
    shop.run("EXEC sys.sp_cdc_start_job @job_type = N'capture'").await;
    world.in_sync("dbo.S", "ID").await;
    daemon.wait_for_line(&["INFO", "works again"]).await;
    assert_eq!(daemon.output().matches("has not moved for").count(), 1);
}

/// Every mapping is in `v_cdc_lag`: with a few seconds when it is up to date, and otherwise with the
/// age of its oldest change that is not applied.
#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_every_mapping_can_be_read() {
    let (world, mapping, _daemon) = following(
        "L",
        "CREATE TABLE dbo.L (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.L VALUES (1, 1)",
        "ID",
    )
    .await;
    // the lag is unknown until something has been captured
    world.shop().await.run("INSERT INTO dbo.L VALUES (3, 3)").await;
    world.in_sync("L", "ID").await;
    let mut control = world.control().await;
    let lag = format!(
        "SELECT seconds_behind, reason, CAST(CASE WHEN ABS(DATEDIFF(SECOND, last_commit_at, SYSUTCDATETIME())) < 600 THEN 1 ELSE 0 END AS int), \
         CASE WHEN last_cdc_lsn IS NULL THEN 0 ELSE 1 END FROM v_cdc_lag WHERE mapping_id = {mapping}"
    );
    eventually("a lag of seconds", async || {
        let lag = control.query(&lag).await;
        let behind = lag.first().parse::<i64>().is_ok_and(|seconds| (0..60).contains(&seconds));
        if behind && lag.rows[0][1..] == ["NULL", "1", "1"] { Ok(()) } else { Err(lag.to_string()) }
    })
    .await;
    // The destination refuses this change: the mapping is behind since its commit.
    world.copy().await.run("ALTER TABLE dbo.L ADD CONSTRAINT CK_L CHECK (V < 100)").await;
    world.shop().await.run("INSERT INTO dbo.L VALUES (2, 200)").await;
    eventually("the oldest change to be known", async || {
        let oldest = control
            .scalar(&format!("SELECT oldest_at FROM cdc_lag WHERE mapping_id = {mapping}"))
            .await;
        if oldest == "NULL" { Err(oldest) } else { Ok(()) }
    })
    .await;
}

/// The first success after an ERROR writes a run without changes, so that the error is no longer in
/// the summary. Later idle passes write none.
#[tokio::test(flavor = "multi_thread")]
async fn the_summary_clears_after_an_error() {
    let (world, mapping, _daemon) = following(
        "E",
        "CREATE TABLE dbo.E (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.E VALUES (1, 1)",
        "ID",
    )
    .await;
    let mut copy = world.copy().await;
    copy.run("ALTER TABLE dbo.E ADD CONSTRAINT CK_E CHECK (V < 100)").await;
    world.shop().await.run("INSERT INTO dbo.E VALUES (2, 200)").await;
    world.run_ends(mapping, "CDC", "ERROR").await;
    let mut control = world.control().await;
    assert_eq!(
        control.query("SELECT status FROM v_sync_summary WHERE sync_type = 'CDC'").await.first(),
        "ERROR"
    );
    copy.run("ALTER TABLE dbo.E DROP CONSTRAINT CK_E").await;
    control.run("UPDATE table_mappings SET updated_at = GETUTCDATE()").await;
    world.run_ends(mapping, "CDC", "COMPLETED").await;
    assert_eq!(
        control.query("SELECT status FROM v_sync_summary WHERE sync_type = 'CDC'").await.first(),
        ""
    );
}

/// Capture has written its rows and not committed them, and sys.fn_cdc_get_max_lsn reads uncommitted
/// rows: that LSN is no upper bound, and the table is not taken for idle up to it.
#[tokio::test(flavor = "multi_thread")]
async fn what_capture_has_not_committed_is_no_bound() {
    crate::only_on_standins!("its engine");
    let (world, mapping, _daemon) = following(
        "D",
        "CREATE TABLE dbo.D (ID INT NOT NULL PRIMARY KEY)",
        "INSERT INTO dbo.D VALUES (1)",
        "ID",
    )
    .await;
    capture(&world, |cdc| (cdc.mode, cdc.max_lsn_reads_dirty) = (CaptureMode::Manual, true));
    let engine = world.source.instance().expect("the source's engine").clone();
    world.shop().await.run("INSERT INTO dbo.D VALUES (2)").await;
    let open = begin(&engine, "Shop").expect("a capture");
    let mut shop = world.shop().await;
    let dirty = "SELECT CASE WHEN sys.fn_cdc_get_max_lsn() > (SELECT MAX(start_lsn) FROM cdc.lsn_time_mapping) THEN 1 ELSE 0 END";
    assert_eq!(shop.scalar(dirty).await, "1");
    world.source.log_statements(true);
    eventually("some polls", async || {
        let polls = world
            .source
            .statements()
            .iter()
            .filter(|statement| statement.text.contains("FROM cdc.change_tables"))
            .count();
        if polls >= 4 { Ok(()) } else { Err(polls.to_string()) }
    })
    .await;
    end(&engine, open);
    world.in_sync("dbo.D", "ID").await;
    let errors = world
        .control()
        .await
        .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping}"))
        .await;
    assert!(errors.rows.is_empty(), "{errors}");
}
