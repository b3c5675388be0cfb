//! A running full sync: its progress, stopping it, killing the process, memory.

use mssql_standin::fault::{Fault, Point};
use std::time::Duration;

use super::{ITEMS, fill};
use crate::harness::{WAIT_MAX, World, eventually};

/// A requested full sync that takes a while: `rows` rows in batches of 1,000, each delayed at the
/// destination.
async fn slow(rows: usize, delay: Duration) -> (World, i32) {
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, rows).await;
    world
        .copy()
        .await
        .run("INSERT INTO dbo.Items (ID, Name) VALUES (1, N'old'), (-5, N'gone')")
        .await;
    let mapping = world.map("Items", "ID", None, false).await;
    world.dest.faults().always(Point::request("BULK LOAD"), Fault::Delay(delay));
    world.request_full_sync(mapping).await;
    (world, mapping)
}

async fn old_rows(world: &World) -> String {
    world.copy().await.query("SELECT ID, Name FROM dbo.Items ORDER BY ID").await.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_can_be_watched() {
    crate::only_on_standins!("fault points");
    let (world, mapping) = slow(20_000, Duration::from_millis(450)).await;
    let daemon = world.daemon();
    let mut control = world.control().await;
    eventually("progress in sync_status", async || {
        let run = control
            .query(&format!("SELECT status, records_processed, last_processed_pk FROM sync_status WHERE mapping_id = {mapping}"))
            .await;
        let moved = run.rows.iter().any(|row| row[0] == "RUNNING" && row[1] != "0" && row[1] == row[2]);
        if moved { Ok(()) } else { Err(run.to_string()) }
    })
    .await;
    let line = daemon.wait_for_line(&["rows copied", "%", "rows/s", "left"]).await;
    assert!(line.contains("mapping_id=1"), "{line}");
    eventually("the same line in sync_logs", async || {
        let logged = control.scalar("SELECT COUNT(*) FROM sync_logs WHERE log_message LIKE N'%rows copied%rows/s%left%'").await;
        if logged == "0" { Err(logged) } else { Ok(()) }
    })
    .await;
    world.dest.faults().clear();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Items", "ID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_is_switched_off_stops_paused_and_goes_on_later() {
    crate::only_on_standins!("fault points");
    let (world, mapping) = slow(20_000, Duration::from_millis(300)).await;
    let daemon = world.daemon();
    let before = old_rows(&world).await;
    eventually("the copy to run", async || {
        let staged = world
            .copy()
            .await
            .scalar("SELECT COUNT(*) FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%'")
            .await;
        if staged == "1" { Ok(()) } else { Err(staged) }
    })
    .await;
    let mut control = world.control().await;
    control.run("UPDATE table_mappings SET is_enabled = 0").await;
    let run = world.run_ends(mapping, "FULL_SYNC", "PAUSED").await;
    assert!(run.column("error_message")[0].contains("switched off"), "{run}");
    assert_eq!(old_rows(&world).await, before, "the destination is unchanged");
    assert_eq!(
        control
            .scalar("SELECT COUNT(*) FROM table_mappings WHERE full_sync_pending_at IS NOT NULL")
            .await,
        "1"
    );
    eventually("the staging table to be gone", async || {
        let staged = world
            .copy()
            .await
            .scalar("SELECT COUNT(*) FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%'")
            .await;
        if staged == "0" { Ok(()) } else { Err(staged) }
    })
    .await;
    world.dest.faults().clear();
    control.run("UPDATE table_mappings SET is_enabled = 1").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Items", "ID").await;
    let _ = daemon.terminate().await;
}

/// kill -9 before or after each statement that changes something: the table has the old rows or the
/// new rows, and the next process finishes the full sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_at_any_step_leaves_a_whole_table_and_the_request() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 3000).await;
    world.enable_cdc(&["Items"]).await;
    world
        .copy()
        .await
        .run("INSERT INTO dbo.Items (ID, Name) VALUES (1, N'old'), (-5, N'gone')")
        .await;
    let mapping = world.map("Items", "ID", Some("Resync"), true).await;
    let old = old_rows(&world).await;
    let dest = world.dest.faults();
    for (text, fault) in [
        ("full_sync_pending_at = SYSUTCDATETIME", Fault::HangAfter),
        ("CREATE TABLE [dbo].[dbaops_dataflow_stage", Fault::HangAfter),
        ("BULK LOAD", Fault::HangAfter),
        ("CREATE UNIQUE INDEX [dbaops_dataflow_key]", Fault::HangBefore),
        ("DELETE d FROM [dbo].[Items]", Fault::HangAfter),
        ("COUNT_BIG(*)", Fault::HangAfter),
        ("last_full_sync_at = SYSUTCDATETIME()", Fault::HangAfter),
        ("DROP TABLE IF EXISTS [dbo].[dbaops_dataflow_stage", Fault::HangAfter),
        ("COMMIT TRANSACTION", Fault::HangBefore),
    ] {
        // The request is made once and survives every kill.
        if text.starts_with("full_sync") {
            world.shop().await.run("UPDATE dbo.Items SET Resync = 1 WHERE ID = 5").await;
        }
        let step = dest.once(Point::request(text), fault);
        let daemon = world.daemon();
        assert!(
            tokio::time::timeout(WAIT_MAX, step.fired()).await.is_ok_and(|fired| fired),
            "the daemon never sent {text}"
        );
        daemon.kill().await;
        eventually("the killed process's transaction to be rolled back", async || {
            let now = old_rows(&world).await;
            if now == old { Ok(()) } else { Err(format!("after {text}: {now}")) }
        })
        .await;
    }
    let committed = dest.once(Point::request("COMMIT TRANSACTION"), Fault::HangAfter);
    let daemon = world.daemon();
    assert!(tokio::time::timeout(WAIT_MAX, committed.fired()).await.is_ok_and(|fired| fired));
    daemon.kill().await;
    // The swap committed, although its reply was lost: no request is pending, and no staging table
    // is left.
    let mut control = world.control().await;
    eventually("the swap", async || {
        let pending = control
            .scalar("SELECT COUNT(*) FROM table_mappings WHERE full_sync_pending_at IS NOT NULL")
            .await;
        if pending == "0" { Ok(()) } else { Err(pending) }
    })
    .await;
    let (source, copied) = world.both_tables("dbo.Items", "ID").await;
    assert!(source == copied, "{}", crate::harness::world::difference(&source, &copied));
    assert_eq!(
        world
            .copy()
            .await
            .scalar("SELECT COUNT(*) FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%'")
            .await,
        "0"
    );
    let _daemon = world.daemon();
    world.shop().await.run("UPDATE dbo.Items SET Price = 1 WHERE ID = 7").await;
    world.in_sync("dbo.Items", "ID").await;
    eventually("runs of dead processes to be marked", async || {
        let running =
            control.scalar(&format!("SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping} AND status = 'RUNNING'")).await;
        if running == "0" { Ok(()) } else { Err(running) }
    })
    .await;
}

/// Staging tables of a killed process are dropped, also those of mappings that were switched off or
/// deleted. Tables whose names only begin alike are not.
#[tokio::test(flavor = "multi_thread")]
async fn leftover_staging_tables_go_at_the_next_start() {
    let world = World::new().await;
    world.both(ITEMS).await;
    world.map("Items", "ID", None, false).await;
    let mut copy = world.copy().await;
    copy.run(
        "CREATE TABLE dbo.dbaops_dataflow_stage_1 (a int); CREATE TABLE dbo.dbaops_dataflow_stage_77 (a int); \
         CREATE TABLE dbo.dbaops_dataflow_stage_mine (a int); CREATE TABLE dbo.dbaops_dataflow_stages (a int)",
    )
    .await;
    let _daemon = world.daemon();
    eventually("leftovers to go", async || {
        let left = copy.query("SELECT name FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%' ORDER BY name").await;
        if left.rows == [["dbaops_dataflow_stage_mine"], ["dbaops_dataflow_stages"]] { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
}

/// A batch of 1,000 of these rows would take gigabytes.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn wide_rows_do_not_need_memory_for_a_thousand_of_them() {
    const PEAK_KIB_MAX: u64 = 112 * 1024;
    let world = World::new().await;
    world
        .both("CREATE TABLE dbo.Wide (ID INT NOT NULL PRIMARY KEY, Doc VARBINARY(MAX) NULL)")
        .await;
    world
        .shop()
        .await
        .run(&format!(
            "DECLARE @doc varbinary(max) = CAST(REPLICATE(CAST('0123456789' AS varchar(max)), 400000) AS varbinary(max)); \
             INSERT INTO dbo.Wide SELECT n, @doc + CAST(n AS binary(4)) FROM {}",
            crate::harness::numbers(40)
        ))
        .await;
    let mapping = world.map("Wide", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    daemon.assert_peak_memory_below(PEAK_KIB_MAX);
    let digests = "SELECT ID, DATALENGTH(Doc), HASHBYTES('MD5', Doc) FROM dbo.Wide ORDER BY ID";
    assert_eq!(world.shop().await.query(digests).await, world.copy().await.query(digests).await);
}
