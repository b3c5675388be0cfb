//! Mappings that are behind, stopped or busy: their tables may differ from the source, so
//! differences are PARTIAL, never FAILED.

use std::time::Duration;

use mssql_standin::fault::{Fault, Point};

use super::{command::verify, rows, synced};
use crate::{
    cdc::capture,
    harness::{World, eventually},
};

async fn never_failed(world: &World) {
    let failed =
        world.control().await.query("SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(failed.rows.is_empty(), "{failed}");
}

/// The capture job stops, so a difference may be a change that is not captured yet. The undecided
/// keys are stored, and the next run decides them, also in another process.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decided_is_carried_to_the_next_run_and_process() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let settings = [
        ("DATAFLOW_VERIFY_ROWS", "10"),
        ("DATAFLOW_VERIFY_SWEEP_ROWS", "0"),
        ("DATAFLOW_VERIFY_WAIT", "1s"),
    ];
    let daemon = world.daemon_with(&settings);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    rows(&world, mapping, "PASSED", &[]).await;
    capture(&world, |cdc| cdc.running = false);
    world.shop().await.run("UPDATE dbo.V SET Name = N'on its way' WHERE ID = 2999").await;
    world.copy().await.run("UPDATE dbo.V SET Name = N'spoiled' WHERE ID = 3000").await;
    rows(
        &world,
        mapping,
        "PARTIAL",
        &["2 keys not decided", "drift since 20", "different (2): 2999, 3000"],
    )
    .await;
    never_failed(&world).await;

    // the newest rows, which each run compares, are now others
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
    world
        .shop()
        .await
        .run("INSERT INTO dbo.V (ID) SELECT ID + 10000 FROM dbo.V WHERE ID <= 20")
        .await;
    capture(&world, |cdc| cdc.running = true);
    let _daemon = world.daemon_with(&settings);
    let failed = rows(&world, mapping, "FAILED", &["different (1): 3000"]).await;
    assert_eq!(failed.column("mismatches_found"), ["1"], "{failed}");
}

/// CDC of the mapping fails: a check constraint of the destination refuses a change.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_fails_is_partial() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_WAIT", "2s")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world
        .copy()
        .await
        .run("ALTER TABLE dbo.V ADD CONSTRAINT CK_Cheap CHECK (Price < 100000)")
        .await;
    world.shop().await.run("UPDATE dbo.V SET Price = 1000000 WHERE ID = 17").await;
    daemon.wait_for_line(&["CK_Cheap", "failed"]).await;
    rows(&world, mapping, "PARTIAL", &["drift since 20", "has stopped", "different (1): 17"]).await;
    never_failed(&world).await;
    world.copy().await.run("ALTER TABLE dbo.V DROP CONSTRAINT CK_Cheap").await;
    rows(&world, mapping, "PASSED", &[]).await;
}

/// Changes were lost, and the mapping is parked until an operator decides.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_mapping_is_partial() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let _ = daemon.terminate().await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'V', @capture_instance = N'all'").await;
    shop.run("UPDATE dbo.V SET Name = N'lost' WHERE ID = 17").await;
    world.enable_cdc(&["V"]).await;
    let daemon =
        world.daemon_with(&[("DATAFLOW_ON_CDC_GAP", "error"), ("DATAFLOW_VERIFY_WAIT", "2s")]);
    daemon.wait_for_line(&["parked"]).await;
    rows(&world, mapping, "PARTIAL", &["drift since 20", "different (1): 17"]).await;
    never_failed(&world).await;
    // The command does not know that the daemon has parked the mapping, but sees at the source that
    // changes are lost.
    let (_, printed) = verify(&world, &["--mapping", &mapping.to_string()]).await;
    for expected in
        ["PARTIAL MD5_COMPARISON", "drift since 20", "are lost at the source", "different (1): 17"]
    {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    never_failed(&world).await;
}

/// The mapping is switched off, and the command is run for its id.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_is_switched_off_is_partial() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.control().await.run("UPDATE table_mappings SET is_enabled = 0").await;
    world.shop().await.run("UPDATE dbo.V SET Name = N'later' WHERE ID = 17").await;
    let (code, printed) = verify(&world, &["--repair", "--mapping", &mapping.to_string()]).await;
    assert_eq!(code, Some(3), "{printed}");
    for expected in [
        "PARTIAL MD5_COMPARISON 3000 compared, 1 mismatches (1 not confirmed)",
        "drift since 20",
        "switched off",
        "different (1): 17",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    assert_eq!(world.copy().await.scalar("SELECT Name FROM dbo.V WHERE ID = 17").await, "row 17");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_another_session_locks_is_partial() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_LOCK_TIMEOUT", "200ms")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    for mut locking in [world.shop().await, world.copy().await] {
        rows(&world, mapping, "PASSED", &[]).await;
        locking.run("BEGIN TRANSACTION; INSERT INTO dbo.V WITH (TABLOCKX) (ID) VALUES (-1)").await;
        rows(&world, mapping, "PARTIAL", &["not compared", "rows"]).await;
        locking.run("ROLLBACK TRANSACTION").await;
    }
    rows(&world, mapping, "PASSED", &[]).await;
    never_failed(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_not_verified_during_its_full_sync() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let delayed = world.dest.faults().nth(
        Point::request("BULK LOAD"),
        2,
        Fault::Delay(Duration::from_secs(3)),
    );
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "300ms")]);
    assert!(delayed.fired().await, "the copy runs");
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    rows(&world, mapping, "PASSED", &[]).await;
    let during = world
        .control()
        .await
        .query(
            "SELECT v.verification_status, v.verified_at FROM verification_logs AS v JOIN sync_status AS s ON s.mapping_id = v.mapping_id \
             WHERE s.sync_type = 'FULL_SYNC' AND v.verified_at > s.started_at AND v.verified_at < s.completed_at",
        )
        .await;
    assert!(during.rows.is_empty(), "the table was verified during its full sync: {during}");
    never_failed(&world).await;
}

/// The mapping with the oldest verification is verified first, also when another process made it.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_verification_comes_first_also_after_a_restart() {
    let world = World::new().await;
    for table in ["A", "B", "C"] {
        world.both(&format!("CREATE TABLE dbo.{table} (ID INT NOT NULL PRIMARY KEY)")).await;
        let mapping = world.map(table, "ID", None, false).await;
        world.request_full_sync(mapping).await;
    }
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    for mapping in 1..=3 {
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    }
    let _ = daemon.terminate().await;
    let mut control = world.control().await;
    for (mapping, days) in [(1, 1), (2, 3), (3, 2), (2, 4)] {
        control
            .run(&format!(
                "INSERT INTO verification_logs (mapping_id, verification_type, verification_status, verified_at) \
                 VALUES ({mapping}, 'MD5_COMPARISON', 'PASSED', DATEADD(DAY, -{days}, GETUTCDATE()))"
            ))
            .await;
    }
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_CONCURRENCY", "1")]);
    let order = eventually("a round of verifications", async || {
        let rows = control
            .query("SELECT mapping_id FROM verification_logs WHERE verification_id > 4 AND verification_type = 'MD5_COMPARISON' ORDER BY verification_id")
            .await;
        if rows.rows.len() >= 3 { Ok(rows.rows.into_iter().take(3).map(|row| row[0].clone()).collect::<Vec<_>>()) } else { Err(rows.to_string()) }
    })
    .await;
    assert_eq!(order, ["2", "3", "1"]);
}

/// In databases that allow SNAPSHOT isolation a verification does not wait for locks of writers.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_do_not_wait_for_writers() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    world.source("master").await.run("ALTER DATABASE Shop SET ALLOW_SNAPSHOT_ISOLATION ON").await;
    world.dest("master").await.run("ALTER DATABASE [Copy] SET ALLOW_SNAPSHOT_ISOLATION ON").await;
    let _daemon = world.daemon_with(&[
        ("DATAFLOW_LOCK_TIMEOUT", "200ms"),
        ("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "0"),
    ]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let (mut shop, mut copy) = (world.shop().await, world.copy().await);
    for locking in [&mut shop, &mut copy] {
        locking.run("BEGIN TRANSACTION; INSERT INTO dbo.V WITH (TABLOCKX) (ID) VALUES (-1)").await;
    }
    let mut control = world.control().await;
    let newest = "SELECT COALESCE(MAX(verification_id), 0) FROM verification_logs";
    let before: u64 = control.scalar(newest).await.parse().expect("a number");
    eventually("two verifications beside the locks", async || {
        let now = control.scalar(newest).await;
        if now.parse::<u64>().is_ok_and(|now| now >= before + 2) { Ok(()) } else { Err(now) }
    })
    .await;
    let statuses =
        control.query("SELECT DISTINCT verification_status FROM verification_logs").await;
    assert_eq!(statuses.column("verification_status"), ["PASSED"], "{statuses}");
}

/// Nothing was captured since CDC was enabled for the table. The mapping follows from there, and its
/// rows are compared without waiting for the first captured change.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_compared_before_anything_is_captured_since_cdc_was_enabled() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.V (ID INT NOT NULL PRIMARY KEY, Name NVARCHAR(20) NULL)").await;
    let mut shop = world.shop().await;
    shop.script(
        "CREATE TABLE dbo.Other (ID INT NOT NULL PRIMARY KEY); INSERT INTO dbo.V VALUES (1, N'a')",
    )
    .await;
    world.enable_cdc(&["Other"]).await;
    shop.run("INSERT INTO dbo.Other VALUES (1)").await;
    eventually("the other table's row to be captured", async || {
        let rows = shop.scalar("SELECT COUNT(*) FROM cdc.dbo_Other_CT").await;
        if rows == "1" { Ok(()) } else { Err(rows) }
    })
    .await;
    world.enable_cdc(&["V"]).await;
    let mapping = world.map("V", "ID", None, true).await;
    let _daemon = world.daemon();
    world.verified(mapping, "FAILED").await;
}
