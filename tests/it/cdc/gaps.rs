//! Gaps: a checkpoint never advances past lost changes, and what is no gap is not reported as one.

use mssql_standin::{
    cdc::CaptureMode,
    error::SqlError,
    fault::{Fault, Phase, Point},
};

use super::{SHORT_PARKED_INTERVAL, capture, error_of, following, start, start_with};
use crate::harness::{
    World,
    blocked_request::{blocked_request, wait_for_arrival},
    daemon::command,
    eventually,
};

pub const TABLE: &str = "CREATE TABLE dbo.G (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

/// CDC is disabled and enabled again: changes between the two are in no change table.
#[tokio::test(flavor = "multi_thread")]
async fn cdc_disabled_and_enabled_again_is_a_gap() {
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let _ = daemon.terminate().await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'G', @capture_instance = N'all'").await;
    shop.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    world.enable_cdc(&["G"]).await;
    shop.run("INSERT INTO dbo.G VALUES (3, 3)").await;
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["changes are lost", "full sync"]).await;
}

/// With `DATAFLOW_ON_CDC_GAP=error` nothing happens until an operator requests a full sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_can_wait_for_an_operator() {
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let _ = daemon.terminate().await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'G', @capture_instance = N'all'").await;
    shop.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    world.enable_cdc(&["G"]).await;
    shop.run("INSERT INTO dbo.G VALUES (3, 3)").await;
    let _daemon = world.daemon_with(&[("DATAFLOW_ON_CDC_GAP", "error")]);
    error_of(&world, mapping, &["changes are lost", "full_sync_requested = 1"]).await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.G").await, "1");
    world.request_full_sync(mapping).await;
    world.in_sync("dbo.G", "ID").await;
}

/// A mapping gets another destination table, and later that table is dropped and created again: the
/// checkpoint then belongs to another table.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_of_other_tables_is_a_gap() {
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1), (2, 2)", "ID").await;
    let _ = daemon.terminate().await;
    let mut copy = world.copy().await;
    copy.run("CREATE TABLE dbo.Other (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.control().await.run("UPDATE table_mappings SET dest_table = N'Other'").await;
    world.shop().await.run("INSERT INTO dbo.G VALUES (3, 3)").await;
    // no full sync was made because of a gap in the last hour, so this gap may start one
    let daemon = start(&world);
    eventually("the other table to have every row", async || {
        let rows = copy.scalar("SELECT COUNT(*) FROM dbo.Other").await;
        if rows == "3" { Ok(()) } else { Err(rows) }
    })
    .await;
    error_of(&world, mapping, &["changes are lost", "other tables"]).await;
    let _ = daemon.terminate().await;
    copy.run("DROP TABLE dbo.Other").await;
    copy.run("CREATE TABLE dbo.Other (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.control().await.run("UPDATE table_mappings SET gap_synced_at = NULL").await;
    let _daemon = start(&world);
    world.shop().await.run("UPDATE dbo.G SET V = 4 WHERE ID = 3").await;
    eventually("the new table to have every row", async || {
        let rows = copy.scalar("SELECT CONCAT(COUNT(*), N' ', MAX(V)) FROM dbo.Other").await;
        if rows == "3 4" { Ok(()) } else { Err(rows) }
    })
    .await;
}

/// An LSN that an operator writes into the control table has no checkpoint row in the destination
/// database: that is a gap. `start-from` writes both.
#[tokio::test(flavor = "multi_thread")]
async fn an_lsn_of_unknown_origin_is_a_gap_and_start_from_gives_it_one() {
    let world = World::new().await;
    world.both(TABLE).await;
    world.enable_cdc(&["G"]).await;
    let mapping = world.map("G", "ID", None, true).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.G VALUES (1, 1)").await;
    eventually("the row to be captured", async || {
        let rows = shop.scalar("SELECT COUNT(*) FROM cdc.dbo_G_CT").await;
        if rows == "1" { Ok(()) } else { Err(rows) }
    })
    .await;
    let lsn = shop.scalar("SELECT MAX(__$start_lsn) FROM cdc.dbo_G_CT").await;
    // As if the destination was restored from a backup that had the row.
    world.copy().await.run("INSERT INTO dbo.G VALUES (1, 100)").await;
    shop.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    let id = mapping.to_string();
    let started = command(&world.variables(), &["start-from", "--mapping", &id, "--lsn", &lsn])
        .output()
        .await
        .expect("run start-from");
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let mut control = world.control().await;
    assert_eq!(control.scalar("SELECT initial_sync FROM table_mappings").await, "NONE");
    let daemon = start(&world);
    let mut copy = world.copy().await;
    eventually("only the second row to be applied", async || {
        let rows = copy.query("SELECT ID, V FROM dbo.G ORDER BY ID").await;
        if rows.rows == [["1", "100"], ["2", "2"]] { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    let _ = daemon.terminate().await;
    assert_eq!(control.scalar("SELECT COUNT(*) FROM error_logs").await, "0");
    // The same LSN without the checkpoint row that the command wrote.
    copy.run("DELETE dbo.dbaops_dataflow_checkpoints").await;
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["was not written by this service"]).await;
    let refused = command(&world.variables(), &["start-from", "--mapping", "999", "--lsn", &lsn])
        .output()
        .await
        .expect("run start-from");
    assert_eq!(refused.status.code(), Some(2), "a wrong argument");
}

/// Gaps start at most one full sync of a table per hour, also across restarts of the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn gaps_that_come_back_copy_a_table_once_an_hour_also_after_a_restart() {
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let mut shop = world.shop().await;
    let mut control = world.control().await;
    let _ = daemon.terminate().await;
    lose(&world, "INSERT INTO dbo.G VALUES (2, 2)").await;
    let daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    let _ = daemon.terminate().await;
    lose(&world, "INSERT INTO dbo.G VALUES (3, 3)").await;
    let _daemon = start_with(&world, SHORT_PARKED_INTERVAL);
    error_of(&world, mapping, &["changes are lost", "less than an hour ago"]).await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.G").await, "2");
    control
        .run("UPDATE table_mappings SET gap_synced_at = DATEADD(MINUTE, -61, SYSUTCDATETIME())")
        .await;
    world.in_sync("dbo.G", "ID").await;
    shop.run("UPDATE dbo.G SET V = 0").await;
    world.in_sync("dbo.G", "ID").await;
}

/// Cleanup passes the checkpoint after the poll and before the pass reads: what the pass reads is
/// discarded, and the next poll handles the gap.
#[tokio::test(flavor = "multi_thread")]
async fn cleanup_between_the_poll_and_the_read_is_a_gap_too() {
    crate::only_on_standins!("fault points");
    let (world, mapping, _daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let gone = SqlError::new(
        22957,
        16,
        "LSN, specified as value for the parameter, does not exist in the change table.",
    );
    let fault =
        world.source.faults().once(Point::statement("AS rows_seen"), Fault::ErrorBefore(gone));
    world.shop().await.run("INSERT INTO dbo.G VALUES (2, 2)").await;
    world.in_sync("dbo.G", "ID").await;
    assert!(fault.count() > 0);
    let run = format!(
        "SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC' AND status = 'ERROR'"
    );
    assert_eq!(world.control().await.scalar(&run).await, "1");
}

/// Makes a change that no change table has, by disabling CDC before it and enabling it after it.
async fn lose(world: &World, change: &str) {
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'G', @capture_instance = N'all'").await;
    shop.run(change).await;
    world.enable_cdc(&["G"]).await;
}

/// CDC was enabled a moment ago and nothing has been captured since: no gap, and no error.
#[tokio::test(flavor = "multi_thread")]
async fn cdc_enabled_just_now_is_no_gap() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    world.both(TABLE).await;
    world.enable_cdc(&[]).await;
    capture(&world, |cdc| cdc.mode = CaptureMode::Manual);
    world.enable_cdc(&["G"]).await;
    let mapping = world.map("G", "ID", None, true).await;
    world.shop().await.run("INSERT INTO dbo.G VALUES (1, 1)").await;
    let daemon = start(&world);
    daemon.wait_for_line(&["started"]).await;
    capture(&world, |cdc| cdc.mode = CaptureMode::Immediate);
    world.in_sync("dbo.G", "ID").await;
    let errors = world
        .control()
        .await
        .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {mapping}"))
        .await;
    assert!(errors.rows.is_empty(), "{errors}");
}

/// A change row lacks an untouched large value, which the pass reads from the source. Cleanup removes
/// the change rows between the two reads: the row that is missing in the change table then is not
/// taken for a row that was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn cleanup_between_the_read_and_the_completing_is_a_gap() {
    crate::only_on_standins!("fault points");
    let (world, mapping, daemon) = following(
        "L",
        "CREATE TABLE dbo.L (ID INT NOT NULL PRIMARY KEY, V INT NULL, Doc NVARCHAR(MAX) NULL)",
        "INSERT INTO dbo.L SELECT 1, 1, REPLICATE(CAST(N'x' AS nvarchar(max)), 9000)",
        "ID",
    )
    .await;
    let _ = daemon.terminate().await;
    // The destination lacks the row, so the pass has to read the large value from the source.
    world.copy().await.run("DELETE dbo.L").await;
    world.shop().await.run("UPDATE dbo.L SET V = 2 WHERE ID = 1").await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.source.faults().once(Point::request("AS v (slot, start_lsn"), block);
    let _daemon = start(&world);
    wait_for_arrival(arrived).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.L VALUES (2, 2, N'later')").await;
    eventually("the later row to be captured", async || {
        let rows = shop.scalar("SELECT COUNT(*) FROM cdc.dbo_L_CT WHERE ID = 2").await;
        if rows == "1" { Ok(()) } else { Err(rows) }
    })
    .await;
    shop.run(
        "DECLARE @mark binary(10) = (SELECT MAX(__$start_lsn) FROM cdc.dbo_L_CT); \
         EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_L', @low_water_mark = @mark",
    )
    .await;
    release.send(()).expect("the source waits");
    world.in_sync("dbo.L", "ID").await;
    error_of(&world, mapping, &["changes are lost", "full sync"]).await;
}

/// Cleanup removes a change after the maximum LSN is read and before the poll asks whether there are
/// changes. The table seems idle, but its checkpoint is not moved past the removed change.
#[tokio::test(flavor = "multi_thread")]
async fn cleanup_before_the_question_for_changes_is_a_gap_and_no_idle_table() {
    crate::only_on_standins!("fault points");
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1)", "ID").await;
    let _ = daemon.terminate().await;
    let mut shop = world.shop().await;
    shop.run("CREATE TABLE dbo.Other (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["Other"]).await;
    shop.run("UPDATE dbo.G SET V = 2").await;
    // the maximum LSN is of another table: cleanup up to it sets a minimum LSN that is not above it,
    // and so shows no gap
    super::mark(&mut shop, "Other").await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.source.faults().once(Point::request("0 AS what WHERE EXISTS"), block);
    let _daemon = start(&world);
    wait_for_arrival(arrived).await;
    shop.run(
        "DECLARE @mark binary(10) = (SELECT MAX(__$start_lsn) FROM cdc.dbo_Other_CT); \
         EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_G', @low_water_mark = @mark",
    )
    .await;
    release.send(()).expect("the source waits");
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["changes are lost", "full sync"]).await;
}

/// Two captured tables swap their names: the mapping's table name then means another table.
#[tokio::test(flavor = "multi_thread")]
async fn tables_swapped_by_rename_are_a_gap() {
    let (world, mapping, _daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1), (2, 2)", "ID").await;
    let mut shop = world.shop().await;
    shop.run("CREATE TABLE dbo.G_new (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.enable_cdc(&["G_new"]).await;
    shop.run("INSERT INTO dbo.G_new VALUES (2, 20), (3, 30)").await;
    world.in_sync("dbo.G", "ID").await;
    shop.run("EXEC sp_rename N'dbo.G', N'G_old'; EXEC sp_rename N'dbo.G_new', N'G'").await;
    world.in_sync("dbo.G", "ID").await;
    error_of(
        &world,
        mapping,
        &["changes are lost", "the source table is another one", "full sync"],
    )
    .await;
    shop.run("UPDATE dbo.G_old SET V = 100; UPDATE dbo.G SET V = 31 WHERE ID = 3").await;
    world.in_sync("dbo.G", "ID").await;
}

/// The same between a poll and the pass that it starts: the changes of the other table are not
/// applied.
#[tokio::test(flavor = "multi_thread")]
async fn tables_swapped_between_the_poll_and_the_read_are_a_gap() {
    crate::only_on_standins!("fault points");
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1), (2, 2)", "ID").await;
    let _ = daemon.terminate().await;
    let mut shop = world.shop().await;
    shop.run("CREATE TABLE dbo.G_new (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.enable_cdc(&["G_new"]).await;
    shop.run("INSERT INTO dbo.G_new VALUES (2, 20), (3, 30); INSERT INTO dbo.G VALUES (4, 4)")
        .await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    // a pass begins by reading the table's columns
    world.source.faults().once(Point::request("t.is_memory_optimized, t.temporal_type"), block);
    let _daemon = start(&world);
    wait_for_arrival(arrived).await;
    shop.run("EXEC sp_rename N'dbo.G', N'G_old'; EXEC sp_rename N'dbo.G_new', N'G'").await;
    release.send(()).expect("the source waits");
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["changes are lost", "the source table is another one"]).await;
}

/// A table is dropped, created again under its name and captured again, all between two polls.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_anew_under_its_name_is_a_gap() {
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1), (2, 2)", "ID").await;
    let _ = daemon.terminate().await;
    let mut shop = world.shop().await;
    shop.run("DROP TABLE dbo.G").await;
    shop.run(TABLE).await;
    world.enable_cdc(&["G"]).await;
    shop.run("INSERT INTO dbo.G VALUES (3, 3)").await;
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["changes are lost", "the source table is another one"]).await;
}

/// A database is dropped and created again by the same script: its objects have the same ids, but
/// other creation dates.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_made_anew_under_its_name_is_a_gap() {
    let (world, mapping, daemon) =
        following("G", TABLE, "INSERT INTO dbo.G VALUES (1, 1), (2, 2)", "ID").await;
    let _ = daemon.terminate().await;
    let mut master = world.source("master").await;
    master.run("ALTER DATABASE Shop SET SINGLE_USER WITH ROLLBACK IMMEDIATE").await;
    master.run("DROP DATABASE Shop").await;
    master.run("CREATE DATABASE Shop").await;
    let mut shop = world.shop().await;
    shop.run(TABLE).await;
    world.enable_cdc(&["G"]).await;
    for id in 3..9 {
        shop.run(&format!("INSERT INTO dbo.G VALUES ({id}, {id})")).await;
    }
    let _daemon = start(&world);
    world.in_sync("dbo.G", "ID").await;
    error_of(&world, mapping, &["changes are lost", "the source table is another one"]).await;
}
