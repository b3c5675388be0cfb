//! What the log tables and stdout hold of a daemon that works: enough, and not more.

use crate::{
    cdc::{SHORT_PARKED_INTERVAL, followed_with, following},
    harness::{World, eventually},
};

const TABLE: &str = "CREATE TABLE dbo.Busy (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

/// Waits until the CDC rows of `sync_status` read like this, oldest first.
async fn sessions_are(world: &World, mapping: i32, expected: &[[&str; 2]]) {
    let mut control = world.control().await;
    eventually(&format!("the rows {expected:?} of sync_status"), async || {
        let rows = control
            .query(&format!(
                "SELECT status, records_processed FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC' ORDER BY status_id"
            ))
            .await;
        if rows.rows == expected { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
}

async fn insert(world: &World, ids: std::ops::RangeInclusive<i32>) {
    for id in ids {
        world.shop().await.run(&format!("INSERT INTO dbo.Busy VALUES ({id}, {id})")).await;
        world.in_sync("dbo.Busy", "ID").await;
    }
}

/// A row for each pass would be millions a day. One row covers the passes of a mapping until one
/// fails, and is COMPLETED between them.
#[tokio::test(flavor = "multi_thread")]
async fn one_row_of_sync_status_for_many_passes_and_a_new_one_after_an_error_and_a_restart() {
    let (world, mapping, daemon) =
        followed_with(SHORT_PARKED_INTERVAL, "Busy", TABLE, "", "ID").await;
    insert(&world, 1..=5).await;
    sessions_are(&world, mapping, &[["COMPLETED", "5"]]).await;
    let mut copy = world.copy().await;
    copy.run("ALTER TABLE dbo.Busy ADD CONSTRAINT CK_Busy CHECK (V < 100)").await;
    world.shop().await.run("INSERT INTO dbo.Busy VALUES (100, 100)").await;
    world.run_ends(mapping, "CDC", "ERROR").await;
    copy.run("ALTER TABLE dbo.Busy DROP CONSTRAINT CK_Busy").await;
    world.in_sync("dbo.Busy", "ID").await;
    insert(&world, 6..=7).await;
    let run = world.run_ends(mapping, "CDC", "COMPLETED").await;
    assert_ne!(run.column("completed_at"), ["NULL"], "{run}");
    let mut control = world.control().await;
    eventually("an empty v_sync_summary", async || {
        let rows = control.query("SELECT * FROM v_sync_summary").await;
        if rows.rows.is_empty() { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    let all = format!(
        "SELECT SUM(records_processed) FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC'"
    );
    eventually("every change to be counted", async || {
        let counted = control.scalar(&all).await;
        if counted == "8" { Ok(()) } else { Err(counted) }
    })
    .await;
    let rows = format!("SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping}");
    let before: i32 = control.scalar(&rows).await.parse().expect("a count");
    daemon.kill().await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    insert(&world, 8..=8).await;
    world.run_ends(mapping, "CDC", "COMPLETED").await;
    assert_eq!(control.scalar(&rows).await, (before + 1).to_string());
}

/// The counts of the last passes are not lost when the daemon is asked to stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_leaves_the_counts_of_all_passes() {
    let (world, mapping, daemon) = following("Busy", TABLE, "", "ID").await;
    insert(&world, 1..=3).await;
    daemon.terminate().await;
    let rows = world
        .control()
        .await
        .query(&format!(
            "SELECT status, records_processed FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'CDC'"
        ))
        .await;
    assert_eq!(rows.rows, [["COMPLETED", "3"]], "{rows}");
}
