//! Verification: finds every difference, and reports no difference that is not one.

mod bounded;
pub mod command;
mod keys;
mod large;
mod live;
#[cfg(target_os = "linux")]
mod memory;
mod partial;
mod repair;
mod table;

use std::time::Duration;

use crate::harness::{Grid, Sql, WAIT_MAX, World, eventually, numbers};

/// Creates and maps a table of 3,000 rows and requests its full sync; returns the mapping id.
async fn synced(world: &World, cdc: bool) -> i32 {
    world.both("CREATE TABLE dbo.V (ID INT NOT NULL PRIMARY KEY, Name NVARCHAR(50) NULL, Price MONEY NULL, At DATETIME2(7) NULL)").await;
    world
        .shop()
        .await
        .run(&format!(
            "INSERT INTO dbo.V SELECT n, N'row ' + CAST(n AS nvarchar(10)), n * 1.0001, '2024-02-29T23:59:59.1234567' FROM {}",
            numbers(3_000)
        ))
        .await;
    if cdc {
        world.enable_cdc(&["V"]).await;
    }
    let mapping = world.map("V", "ID", None, cdc).await;
    world.request_full_sync(mapping).await;
    mapping
}

#[tokio::test(flavor = "multi_thread")]
async fn one_corrupt_row_is_found_named_and_resolved_when_repaired() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let passed = world.verified(mapping, "PASSED").await;
    assert_eq!(passed.column("records_compared"), ["3000"]);

    let mut copy = world.copy().await;
    copy.run(
        "UPDATE dbo.V SET Price = Price + 0.0001 WHERE ID = 1234; DELETE dbo.V WHERE ID = 77; INSERT INTO dbo.V (ID) VALUES (2999999)",
    )
    .await;
    let failed = world.verified(mapping, "FAILED").await;
    assert_eq!(failed.column("mismatches_found"), ["3"], "{failed}");
    let details = failed.column("verification_details")[0].to_owned();
    for key in ["1234", "77", "2999999"] {
        assert!(details.contains(key), "{key} is not named: {details}");
    }
    let mut control = world.control().await;
    eventually("the error row", async || {
        let n = control
            .scalar(&format!(
                "SELECT COUNT(*) FROM error_logs WHERE mapping_id = {mapping} AND error_type = 'VERIFICATION' AND is_resolved = 0"
            ))
            .await;
        if n == "1" { Ok(()) } else { Err(n) }
    })
    .await;

    world.request_full_sync(mapping).await;
    world.in_sync("dbo.V", "ID").await;
    world.verified(mapping, "PASSED").await;
    eventually("the error to be resolved", async || {
        let open = control.query(&format!("SELECT error_id, resolved_at FROM error_logs WHERE mapping_id = {mapping} AND error_type = 'VERIFICATION' AND is_resolved = 0")).await;
        if open.rows.is_empty() { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
}

/// Without CDC the tables may differ as soon as the source changes: such differences are reported as
/// drift with status PARTIAL, never as FAILED.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_does_not_follow_never_fails() {
    let world = World::new().await;
    let mapping = synced(&world, false).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("UPDATE dbo.V SET Name = N'changed' WHERE ID = 5").await;
    let partial = world.verified(mapping, "PARTIAL").await;
    assert!(partial.column("verification_details")[0].contains("drift"), "{partial}");
    let failed = world
        .control()
        .await
        .scalar("SELECT COUNT(*) FROM verification_logs WHERE verification_status = 'FAILED'")
        .await;
    assert_eq!(failed, "0");
}

/// Waits until the newest verification of a kind has this status and details that contain all of
/// `expected`; returns its row of `verification_logs`.
async fn of_kind(world: &World, mapping: i32, kind: &str, status: &str, expected: &[&str]) -> Grid {
    let mut control = world.control().await;
    eventually(&format!("{kind} {status} with {expected:?}"), async || {
        let runs = control
            .query(&format!(
                "SELECT TOP (1) verification_status, source_row_count, dest_row_count, mismatches_found, verification_details \
                 FROM verification_logs WHERE mapping_id = {mapping} AND verification_type = '{kind}' ORDER BY verification_id DESC"
            ))
            .await;
        let details = runs.rows.first().map_or("", |row| row[4].as_str());
        if runs.first() == status && expected.iter().all(|part| details.contains(part)) { Ok(runs.clone()) } else { Err(format!("{runs}\n{details}")) }
    })
    .await
}

/// The same for the comparison of rows.
async fn rows(world: &World, mapping: i32, status: &str, expected: &[&str]) -> Grid {
    of_kind(world, mapping, "MD5_COMPARISON", status, expected).await
}

/// Rounds by which a writer may be ahead of replication. A writer that is always faster (on a busy
/// machine, any writer) would show a mapping that falls ever further behind, which these scenarios
/// do not test.
const BURST: usize = 30;

/// Makes a writer wait until replication is at most [`BURST`] rounds behind. `newest_round` is a
/// query for the newest round that has arrived at the destination.
async fn limit_lead(round: usize, copy: &mut Sql, newest_round: &str) {
    let arrived = async {
        while copy.scalar(newest_round).await.parse().unwrap_or(0) + BURST < round {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    if round.is_multiple_of(BURST) {
        tokio::time::timeout(WAIT_MAX, arrived)
            .await
            .expect("replication is at most a burst behind");
    }
}
