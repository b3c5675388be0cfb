//! Verifications of many differences: few statements, one wait, and what ends them.

use std::sync::mpsc::Receiver;

use mssql_standin::fault::{Phase, Point};

use super::{
    command::{verify, verify_with},
    rows, synced,
};
use crate::{
    cdc::capture,
    harness::{
        World,
        blocked_request::{blocked_request, wait_for_arrival},
        daemon::Daemon,
        eventually, numbers,
    },
};

/// How a verification asks for changes of rows that differ.
const CHANGED: &str = "FROM [cdc].[dbo_V_CT] AS t";

/// A table of 30,000 rows that follows its source by CDC.
async fn large_synced(world: &World) -> i32 {
    world.both("CREATE TABLE dbo.Big (ID INT NOT NULL PRIMARY KEY, Name NVARCHAR(50) NULL)").await;
    let fill = format!(
        "INSERT INTO dbo.Big SELECT n, N'row ' + CAST(n AS nvarchar(10)) FROM {}",
        numbers(30_000)
    );
    world.shop().await.run(&fill).await;
    world.enable_cdc(&["Big"]).await;
    let mapping = world.map("Big", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    mapping
}

/// How many statements with this text a server was sent.
fn sent(server: &mssql_standin::server::Server, text: &str) -> usize {
    server.statements().iter().filter(|record| record.text.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_missing_rows_are_decided_by_few_statements() {
    crate::only_on_standins!("its record of statements");
    let world = World::new().await;
    let mapping = large_synced(&world).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.copy().await.run("DELETE dbo.Big WHERE ID % 30 = 0").await;
    world.source.log_statements(true);
    world.dest.log_statements(true);
    let began = std::time::Instant::now();
    let (code, printed) = verify(&world, &["--full"]).await;
    let reads = "FROM [dbo].[Big] AS t";
    let (source, dest) = (sent(&world.source, reads), sent(&world.dest, reads));
    println!("{:?}, {source} + {dest} statements", began.elapsed());
    assert_eq!(code, Some(1), "{printed}");
    assert!(
        printed.contains("FAILED  MD5_COMPARISON 30000 compared, 1000 mismatches"),
        "{printed}"
    );
    // each part of 10,000 rows once, the 1,000 keys a few times, and the row count
    for statements in [source, dest] {
        assert!(statements <= 10, "{statements} statements");
    }
}

/// A wait for replication that was in vain is not repeated for each part of the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_once_for_replication_that_stands_still() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    capture(&world, |cdc| cdc.running = false);
    world.copy().await.run("DELETE dbo.V WHERE ID % 10 = 0").await;
    world.source.log_statements(true);
    let settings = [("DATAFLOW_VERIFY_WAIT", "1s"), ("DATAFLOW_VERIFY_ROWS", "100")];
    let (code, printed) = verify_with(&world, &settings, &["--full"]).await;
    assert_eq!(code, Some(3), "{printed}");
    let expected = "PARTIAL MD5_COMPARISON 3000 compared, 300 mismatches (300 not confirmed)";
    assert!(printed.contains(expected), "{printed}");
    let clocks = sent(&world.source, "sys.fn_cdc_get_max_lsn");
    assert!(clocks < 100, "{clocks} looks at the captured LSN for 30 parts of the table");
}

/// Every row is missing, and nothing can be confirmed: the result says how many.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_confirmed_is_counted() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    capture(&world, |cdc| cdc.running = false);
    world.copy().await.run("DELETE dbo.V").await;
    // the command's limit ends the wait long before DATAFLOW_VERIFY_WAIT would
    let settings = [("DATAFLOW_VERIFY_WAIT", "1h")];
    let (code, printed) = verify_with(&world, &settings, &["--full", "--limit", "10s"]).await;
    assert_eq!(code, Some(3), "{printed}");
    for expected in [
        "verified 0 of 1; mapping 1",
        "PARTIAL MD5_COMPARISON 3000 compared, 3000 mismatches (3000 not confirmed)",
        "stopped before the end: its time is up",
        "only in source (3000): 1, 2",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let partial = rows(&world, mapping, "PARTIAL", &["3000 keys not decided"]).await;
    assert_eq!(partial.column("mismatches_found"), ["3000"]);
}

/// A server that does not answer does not keep the command beyond its limit.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_holds_while_a_statement_does_not_end() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.source.faults().nth(Point::request("SELECT TOP (10000)"), 1, block);
    let (code, printed) = verify(&world, &["--limit", "1s"]).await;
    wait_for_arrival(arrived).await;
    release.send(()).expect("the statement is blocked");
    assert_eq!(code, Some(3), "{printed}");
    assert!(printed.contains("SKIPPED its last statement did not end in time"), "{printed}");
}

/// Two tables are verified at the same time: the second one begins while the first is blocked.
#[tokio::test(flavor = "multi_thread")]
async fn several_tables_are_verified_at_once() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    for table in ["A", "B", "C"] {
        world.both(&format!("CREATE TABLE dbo.{table} (ID INT NOT NULL PRIMARY KEY)")).await;
        world.map(table, "ID", None, false).await;
    }
    let blocks: Vec<_> = ["A", "B"]
        .into_iter()
        .map(|table| {
            let (block, arrived, release) = blocked_request(Phase::Before);
            let read = format!("FROM [dbo].[{table}] AS t");
            world.source.faults().nth(Point::request(read), 1, block);
            (arrived, release)
        })
        .collect();
    let both_arrive = async {
        let mut releases = Vec::new();
        for (arrived, release) in blocks {
            wait_for_arrival(arrived).await;
            releases.push(release);
        }
        for release in releases {
            release.send(()).expect("the statement is blocked");
        }
    };
    let settings = [("DATAFLOW_VERIFY_CONCURRENCY", "2")];
    let ((code, printed), ()) = tokio::join!(verify_with(&world, &settings, &[]), both_arrive);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("verified 0 of 3; mapping 1  0 rows; mapping 2  0 rows"), "{printed}");
    for mapping in 1..=3 {
        assert!(printed.contains(&format!("mapping {mapping}: Shop.dbo.")), "{printed}");
    }
}

/// A daemon whose verification has found 1,200 rows missing and is blocked while it asks for the
/// changes of the first ones.
async fn blocked_verification(world: &World) -> (i32, Daemon, std::sync::mpsc::Sender<()>) {
    let mapping = synced(world, true).await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let _ = daemon.terminate().await;
    world.copy().await.run("DELETE dbo.V WHERE ID <= 1200").await;
    let (block, arrived, release): (_, Receiver<()>, _) = blocked_request(Phase::Before);
    world.source.faults().nth(Point::request(CHANGED), 1, block);
    let daemon = world.daemon();
    wait_for_arrival(arrived).await;
    (mapping, daemon, release)
}

/// Waits until the daemon has read the control tables so often that a verification that looks at
/// its mapping's row looks again.
async fn looked_again(world: &World) {
    const TICKS: usize = 20;
    world.dest.log_statements(true);
    eventually("ticks of the daemon", async || {
        let ticks = sent(&world.dest, "full_sync_trigger_column");
        if ticks >= TICKS { Ok(()) } else { Err(ticks.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_verification() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let (mapping, daemon, release) = blocked_verification(&world).await;
    daemon.send_sigterm().await;
    daemon.wait_for_line(&["stopping"]).await;
    release.send(()).expect("the verification is blocked");
    let (status, output) = daemon.wait_for_exit().await;
    assert!(status.success(), "{output}");
    let partial = rows(
        &world,
        mapping,
        "PARTIAL",
        &["stopped before the end: asked to stop", "1200 keys not decided"],
    )
    .await;
    assert_eq!(partial.column("mismatches_found"), ["1200"], "{partial}");
    let carried = world
        .control()
        .await
        .scalar("SELECT DATALENGTH(carried_keys) FROM verification_progress")
        .await;
    assert_ne!(carried, "NULL", "the next verification looks at these rows again");
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_a_mapping_off_ends_its_verification() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let (mapping, _daemon, release) = blocked_verification(&world).await;
    world.control().await.run("UPDATE table_mappings SET is_enabled = 0").await;
    looked_again(&world).await;
    release.send(()).expect("the verification is blocked");
    rows(&world, mapping, "PARTIAL", &["stopped before the end: the mapping was switched off"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sync_that_is_due_ends_a_verification() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let (mapping, daemon, release) = blocked_verification(&world).await;
    world.request_full_sync(mapping).await;
    looked_again(&world).await;
    release.send(()).expect("the verification is blocked");
    daemon.wait_for_line(&["ended before its end: a full sync of the mapping is due"]).await;
    world.in_sync("dbo.V", "ID").await;
    let failed = world
        .control()
        .await
        .scalar("SELECT COUNT(*) FROM verification_logs WHERE verification_status = 'FAILED'")
        .await;
    assert_eq!(failed, "0", "what differed before the full sync is no finding");
}
