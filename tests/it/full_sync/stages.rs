//! The stages of a full sync after the copy report progress and can be stopped.

use mssql_standin::fault::{Fault, Phase, Point};
use std::time::Duration;

use super::{ITEMS, fill};
use crate::{
    cdc::capture,
    harness::{
        World,
        blocked_request::{blocked_request, wait_for_arrival},
        eventually,
    },
};

/// Longer than the daemon's interval between two lines about progress.
const LONG: Duration = Duration::from_secs(8);

/// Waits until a line with these texts is in the daemon's output and in `sync_logs`.
async fn stage_is_logged(world: &World, daemon: &crate::harness::Daemon, expected: &[&str]) {
    daemon.wait_for_line(expected).await;
    let like = expected.join("%");
    eventually(&format!("{like} in sync_logs"), async || {
        let sql = format!("SELECT COUNT(*) FROM sync_logs WHERE sync_type = 'FULL_SYNC' AND log_message LIKE N'%{like}%'");
        let logged = world.control().await.scalar(&sql).await;
        if logged == "0" { Err(logged) } else { Ok(()) }
    })
    .await;
}

/// While a full sync waits for a capture job that stands still, and while a long swap runs, the log
/// shows that the daemon does not hang.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_capture_and_swapping_are_logged_while_they_last() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 3000).await;
    world.enable_cdc(&["Items"]).await;
    world.copy().await.run("INSERT INTO dbo.Items (ID, Name) VALUES (1, N'old')").await;
    let mapping = world.map("Items", "ID", None, false).await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().once(Point::request("CREATE UNIQUE INDEX [dbaops_dataflow_key]"), block);
    let swapping = world
        .dest
        .faults()
        .once(Point::request("FROM [dbo].[Items] AS d JOIN"), Fault::Delay(LONG));
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    wait_for_arrival(arrived).await;
    capture(&world, |cdc| cdc.running = false);
    world.shop().await.run("UPDATE dbo.Items SET Price = 1 WHERE ID = 7").await;
    release.send(()).expect("the sync waits");
    stage_is_logged(
        &world,
        &daemon,
        &["3000 rows copied, waiting until capture has passed the copy", "s so far"],
    )
    .await;
    let run = world
        .control()
        .await
        .query("SELECT status, records_processed, last_processed_pk FROM sync_status")
        .await;
    assert_eq!(run.rows, [["RUNNING", "3000", "3000"]]);
    capture(&world, |cdc| cdc.running = true);
    assert!(swapping.fired().await);
    stage_is_logged(
        &world,
        &daemon,
        &["swapping 3000 rows in: updating rows that differ", "s so far"],
    )
    .await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Items", "ID").await;
}

/// A full sync that waits for a stopped capture job ends when its mapping is switched off.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_is_switched_off_stops_waiting_for_capture() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 100).await;
    world.enable_cdc(&["Items"]).await;
    world.copy().await.run("INSERT INTO dbo.Items (ID, Name) VALUES (1, N'old')").await;
    let mapping = world.map("Items", "ID", None, true).await;
    let waiting = world
        .source
        .faults()
        .once(Point::request("tran_end_time >"), Fault::Delay(Duration::from_millis(100)));
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().once(Point::request("CREATE UNIQUE INDEX [dbaops_dataflow_key]"), block);
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    wait_for_arrival(arrived).await;
    capture(&world, |cdc| cdc.running = false);
    release.send(()).expect("the sync waits");
    assert!(waiting.fired().await);
    let mut control = world.control().await;
    control.run("UPDATE table_mappings SET is_enabled = 0").await;
    let run = world.run_ends(mapping, "FULL_SYNC", "PAUSED").await;
    assert!(run.column("error_message")[0].contains("switched off"), "{run}");
    assert_eq!(
        world.copy().await.scalar("SELECT Name FROM dbo.Items").await,
        "old",
        "the destination is unchanged"
    );
    capture(&world, |cdc| cdc.running = true);
    control.run("UPDATE table_mappings SET is_enabled = 1").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Items", "ID").await;
}
