//! Repair: findings are repaired, and replication is not disturbed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mssql_standin::{
    cdc::{CaptureConfig, CaptureMode},
    fault::{Fault, Phase, Point},
};

use super::{
    command::{verify, verify_with},
    limit_lead, rows, synced,
};
use crate::harness::{
    Sql, World,
    blocked_request::{blocked_request, wait_for_arrival},
    eventually, numbers,
};

const LARGE: &str = "CREATE TABLE dbo.L (ID INT NOT NULL PRIMARY KEY, N INT NULL, Doc NVARCHAR(MAX) NULL, Pic VARBINARY(MAX) NULL, Note VARCHAR(20) NULL)";

/// Writes until `stop` is set. Does not change rows 1 to 20, nor the large columns of the others,
/// which their change rows therefore lack.
async fn write(mut shop: Sql, mut copy: Sql, stop: Arc<AtomicBool>) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        shop.run(&format!("UPDATE dbo.L SET N = {n} WHERE ID = 21")).await;
        limit_lead(n, &mut copy, "SELECT N FROM dbo.L WHERE ID = 21").await;
        shop.run(&format!("UPDATE dbo.L SET N = {n} WHERE ID > 21 AND ID % 7 = {}", n % 7)).await;
        shop.run(&format!(
            "INSERT INTO dbo.L (ID, N) VALUES ({}, {n}); DELETE dbo.L WHERE ID = {}",
            1_000 + n,
            1_000 + n - 3
        ))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_repaired_beside_a_writer() {
    let lag = CaptureConfig {
        mode: CaptureMode::Delayed { min_ms: 0, max_ms: 200 },
        poll: Duration::from_millis(20),
    };
    let world = World::with(|builder| builder.capture(lag)).await;
    world.both(LARGE).await;
    world
        .shop()
        .await
        .run(&format!(
            "INSERT INTO dbo.L SELECT n, n, REPLICATE(CAST(N'private ' AS nvarchar(max)), 600 + n), CAST(REPLICATE(CAST('p' AS varchar(max)), 9000) AS varbinary(max)), 'note' FROM {}",
            numbers(100)
        ))
        .await;
    world.enable_cdc(&["L"]).await;
    let mapping = world.map("L", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_REPAIR", "on")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(world.shop().await, world.copy().await, stop.clone()));

    let mut copy = world.copy().await;
    copy.run(
        "BEGIN TRAN; UPDATE dbo.L SET Doc = N'spoiled' WHERE ID = 3; UPDATE dbo.L SET Pic = NULL, Note = 'x' WHERE ID = 4; \
         DELETE dbo.L WHERE ID = 5; INSERT INTO dbo.L (ID, Doc) VALUES (-6, N'private'); COMMIT",
    )
    .await;
    let mut control = world.control().await;
    let repaired = "SELECT COUNT(*) FROM dbo.L WHERE (ID = 3 AND DATALENGTH(Doc) = 2 * 8 * 603) OR (ID = 4 AND DATALENGTH(Pic) = 9000 AND Note = 'note') \
                   OR (ID = 5 AND DATALENGTH(Doc) = 2 * 8 * 605) OR ID = -6";
    eventually("all four rows to be repaired", async || {
        let (right, wrong) = (
            copy.scalar(repaired).await,
            copy.scalar("SELECT COUNT(*) FROM dbo.L WHERE ID = -6").await,
        );
        if (right.as_str(), wrong.as_str()) == ("3", "0") {
            Ok(())
        } else {
            Err(format!("{right} {wrong}"))
        }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    rows(&world, mapping, "PASSED", &[]).await;
    world.in_sync("dbo.L", "ID").await;

    let runs = control.query("SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(runs.rows.iter().any(|row| row[0].contains("repaired ")), "{runs}");
    let lines = control
        .query("SELECT log_message FROM sync_logs WHERE log_message LIKE N'repaired rows of %'")
        .await;
    let logged = lines
        .rows
        .iter()
        .map(|row| row[0].as_str())
        .filter(|line| line.starts_with("repaired rows of Copy.dbo.L"))
        .collect::<Vec<_>>()
        .join("\n");
    for key in ["only in source (1): 5", "only in destination (1): -6", "different (2): 3, 4"] {
        assert!(logged.contains(key), "{key}: {logged}");
    }
    assert!(
        !logged.contains("private") && !logged.contains("note"),
        "row values are logged: {logged}"
    );
    eventually("replication to go on undisturbed, and the findings to be resolved", async || {
        let others =
            control.query("SELECT error_type, error_message FROM error_logs WHERE error_type <> 'VERIFICATION' OR is_resolved = 0").await;
        if others.rows.is_empty() { Ok(()) } else { Err(others.to_string()) }
    })
    .await;
}

/// The destination's foreign key requires that parents are inserted first and children are deleted
/// first; the child's mapping is verified first.
#[tokio::test(flavor = "multi_thread")]
async fn children_are_repaired_after_their_parents() {
    let world = World::new().await;
    world
        .both(
            "CREATE TABLE dbo.Parent (ID INT NOT NULL PRIMARY KEY, Name NVARCHAR(20) NULL)
             GO
             CREATE TABLE dbo.Child (ID INT NOT NULL PRIMARY KEY, ParentID INT NOT NULL CONSTRAINT FK_Child_Parent REFERENCES dbo.Parent (ID),
                 Up INT NULL CONSTRAINT FK_Child_Child REFERENCES dbo.Child (ID))
             GO",
        )
        .await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.Parent VALUES (1, N'a'), (2, N'b'); INSERT INTO dbo.Child VALUES (10, 1, NULL), (11, 2, 10), (12, 2, 11)")
        .await;
    world.enable_cdc(&["Parent", "Child"]).await;
    let child = world.map("Child", "ID", None, true).await;
    let parent = world.map("Parent", "ID", None, true).await;
    for mapping in [parent, child] {
        world.request_full_sync(mapping).await;
    }
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.in_sync("dbo.Parent", "ID").await;
    world.in_sync("dbo.Child", "ID").await;
    let mut copy = world.copy().await;
    copy.run("DELETE dbo.Child WHERE ID = 12; DELETE dbo.Child WHERE ID = 11; DELETE dbo.Parent WHERE ID = 2").await;
    copy.run("INSERT INTO dbo.Parent VALUES (9, N'x'); INSERT INTO dbo.Child VALUES (90, 9, 10), (91, 9, 90)").await;

    let (code, printed) = verify(&world, &[]).await;
    assert_eq!(code, Some(1), "without --repair the differences stay: {printed}");
    assert_eq!(copy.scalar("SELECT COUNT(*) FROM dbo.Child").await, "3");
    // one after the other, so that the children are tried before their parent is there
    let one = [("DATAFLOW_VERIFY_CONCURRENCY", "1")];
    let (code, printed) = verify_with(&world, &one, &["--repair"]).await;
    assert_eq!(code, Some(0), "differences are left after the repair: {printed}");
    assert!(printed.contains("left for the next run"), "the children did not wait: {printed}");
    world.in_sync("dbo.Parent", "ID").await;
    world.in_sync("dbo.Child", "ID").await;
    let distrusted = copy
        .scalar("SELECT COUNT(*) FROM sys.foreign_keys WHERE is_not_trusted = 1 OR is_disabled = 1")
        .await;
    assert_eq!(distrusted, "0");
}

/// After a repair has read a row at the source and before it writes it, CDC applies a change of that
/// row: the repair must not overwrite it with the older row.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_was_overtaken_by_a_change_is_undone() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.V", "ID").await;
    let mut copy = world.copy().await;
    copy.run("UPDATE dbo.V SET Name = N'spoiled' WHERE ID IN (7, 8)").await;
    // the repair's transaction is blocked until the change has been applied
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().nth(Point::request("changed after the rows were read"), 1, block);
    let repair = verify(&world, &["--repair"]);
    let change = async {
        wait_for_arrival(arrived).await;
        world.shop().await.run("UPDATE dbo.V SET Name = N'newer' WHERE ID = 7").await;
        eventually("the change to be applied before the repair", async || {
            let name = copy.scalar("SELECT Name FROM dbo.V WHERE ID = 7").await;
            if name == "newer" { Ok(()) } else { Err(name) }
        })
        .await;
        release.send(()).expect("the repair waits");
    };
    let ((code, printed), ()) = tokio::join!(repair, change);
    assert_eq!(code, Some(0), "{printed}");
    world.in_sync("dbo.V", "ID").await;
    let repairs = world
        .control()
        .await
        .query("SELECT log_message FROM sync_logs WHERE log_message LIKE N'repaired rows of%'")
        .await;
    let of_seven = repairs.rows.iter().filter(|row| row[0].contains('7')).count();
    assert!(of_seven <= 1, "row 7 was repaired more than once: {repairs}");
    assert!(repairs.rows.iter().any(|row| row[0].contains('8')), "{repairs}");
}

/// Rows may take longer on their way to the destination than `DATAFLOW_VERIFY_WAIT`, large values
/// above all. That limit is for waiting until CDC has caught up, not for moving rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_takes_longer_than_a_wait_is_finished() {
    crate::only_on_standins!("fault points");
    const WAIT: &str = "3s";
    const LOAD: Duration = Duration::from_secs(4);
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.V", "ID").await;
    let _ = daemon.terminate().await;
    world.copy().await.run("UPDATE dbo.V SET Name = N'spoiled' WHERE ID = 7").await;
    world.dest.faults().always(Point::request("BULK LOAD"), Fault::Delay(LOAD));
    let _daemon = world.daemon_with(&[("DATAFLOW_REPAIR", "on"), ("DATAFLOW_VERIFY_WAIT", WAIT)]);
    world.in_sync("dbo.V", "ID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_follow_its_source_is_not_repaired() {
    let world = World::new().await;
    let mapping = synced(&world, false).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_REPAIR", "on")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("UPDATE dbo.V SET Name = N'changed' WHERE ID = 5").await;
    rows(&world, mapping, "PARTIAL", &["drift since", "different (1): 5"]).await;
    assert_eq!(world.copy().await.scalar("SELECT Name FROM dbo.V WHERE ID = 5").await, "row 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_are_repaired_and_each_is_named() {
    let world = World::new().await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let spoil = format!(
        "DELETE dbo.V WHERE ID <= 1300; UPDATE dbo.V SET At = NULL WHERE ID BETWEEN 1301 AND 1310; \
         INSERT INTO dbo.V (ID) SELECT 100000 + n FROM {}",
        numbers(250)
    );
    world.copy().await.run(&spoil).await;
    let (code, printed) = verify(&world, &["--full", "--repair"]).await;
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("repaired 1560 of 1560"), "{printed}");
    world.in_sync("dbo.V", "ID").await;
    let mut control = world.control().await;
    let lines = control.query("SELECT log_message, records_count FROM sync_logs WHERE log_message LIKE N'repaired rows of %'").await;
    let logged = lines.rows.iter().filter(|row| row[0].starts_with("repaired rows of Copy.dbo.V"));
    assert_eq!(logged.map(|row| row[1].parse::<u32>().expect("a count")).sum::<u32>(), 1560);
    let truncated = control
        .scalar(
            "SELECT COUNT(*) FROM sync_logs WHERE log_message LIKE N'repaired rows of%and % more%'",
        )
        .await;
    assert_eq!(truncated, "0", "a log line does not name every key");
}
