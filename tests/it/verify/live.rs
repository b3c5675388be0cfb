//! Verification beside a busy writer and a capture job that lags by random times: no false alarm,
//! and no difference is missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{limit_lead, rows, synced};
use crate::harness::{
    Sql, World,
    blocked_request::{blocked_request, wait_for_arrival},
    eventually,
};
use mssql_standin::{
    cdc::{CaptureConfig, CaptureMode, KeyUpdates, capture::capture_now},
    fault::{Phase, Point},
};

/// Updates, deletes and inserts rows and changes keys, without pauses, until `stop` is set; returns
/// the number of rounds.
async fn write(mut shop: Sql, mut copy: Sql, stop: Arc<AtomicBool>) -> usize {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        shop.run(&format!("UPDATE dbo.V SET Name = N'{n}' WHERE ID = 100")).await;
        limit_lead(n, &mut copy, "SELECT Name FROM dbo.V WHERE ID = 100").await;
        // the corrupted rows are not changed: a replicated change would repair them
        shop.run(&format!(
            "UPDATE dbo.V SET Name = N'{n}', Price = Price + 1 WHERE ID BETWEEN {0} AND {0} + 3",
            101 + n * 7 % 2_800
        ))
        .await;
        shop.run(&format!(
            "UPDATE dbo.V SET ID = ID + 5000 WHERE ID = {}; UPDATE dbo.V SET ID = ID - 5000 WHERE ID = {}",
            200 + n % 50,
            5200 + n % 50
        ))
        .await;
        shop.run(&format!(
            "INSERT INTO dbo.V (ID, Name) VALUES ({}, N'new'); DELETE dbo.V WHERE ID = {}",
            10_000 + n,
            10_000 + n - 5
        ))
        .await;
    }
    n
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_writer_raises_no_false_alarm_and_hides_nothing() {
    let lag = CaptureConfig {
        mode: CaptureMode::Delayed { min_ms: 0, max_ms: 400 },
        poll: Duration::from_millis(20),
    };
    let world = World::with(|builder| builder.capture(lag)).await;
    let mapping = synced(&world, true).await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(world.shop().await, world.copy().await, stop.clone()));

    let mut control = world.control().await;
    let count = format!(
        "SELECT COUNT(*) FROM verification_logs WHERE mapping_id = {mapping} AND verification_type = 'MD5_COMPARISON'"
    );
    eventually("two verifications beside the writer", async || {
        let n = control.scalar(&count).await;
        if n.parse::<u32>().is_ok_and(|n| n >= 2) { Ok(()) } else { Err(n) }
    })
    .await;
    let alarms =
        control.query("SELECT verification_status, verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(alarms.rows.is_empty(), "false alarms: {alarms}");

    let mut copy = world.copy().await;
    let corruptions = [
        ("UPDATE dbo.V SET Name = N'corrupt' WHERE ID = 42", "different (1): 42"),
        ("DELETE dbo.V WHERE ID = 43", "only in source (1): 43"),
        ("INSERT INTO dbo.V (ID) VALUES (-44)", "only in destination (1): -44"),
    ];
    for (corruption, finding) in corruptions {
        copy.run(corruption).await;
        rows(&world, mapping, "FAILED", &[finding]).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.expect("the writer") > 10);
    let wrong = control
        .query("SELECT mismatches_found, verification_details FROM verification_logs WHERE verification_status = 'FAILED' AND mismatches_found > 3")
        .await;
    assert!(wrong.rows.is_empty(), "{wrong}");
    // the errors report exactly these differences, one error for each new set of findings
    let errors =
        "SELECT error_message FROM error_logs WHERE error_type = 'VERIFICATION' ORDER BY error_id";
    eventually("the last finding to be in the log, too", async || {
        let errors = control.query(errors).await;
        if errors.rows.len() >= 3 { Ok(()) } else { Err(errors.to_string()) }
    })
    .await;
    let errors = control.query(errors).await;
    let reported: Vec<_> = errors
        .rows
        .iter()
        .map(|row| row[0].rsplit("FAILED: ").next().unwrap_or_default())
        .collect();
    let all = "only in source (1): 43; only in destination (1): -44; different (1): 42";
    assert_eq!(
        reported,
        ["different (1): 42", "only in source (1): 43; different (1): 42", all],
        "one error per set of findings: {errors}"
    );
    drop(daemon);
}

/// Commits of the hour before have later times than a clock that was set back. When a verification
/// once waited for such a commit to be applied, newer changes were still missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_raises_no_false_alarm() {
    crate::only_on_standins!("sets the server's clock");
    let lag = CaptureConfig {
        mode: CaptureMode::Delayed { min_ms: 200, max_ms: 500 },
        poll: Duration::from_millis(20),
    };
    let world = World::with(|builder| builder.capture(lag)).await;
    let mapping = synced(&world, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(world.shop().await, world.copy().await, stop.clone()));
    let mut control = world.control().await;
    world.verified(mapping, "PASSED").await;
    world.source.instance().expect("the source's engine").clock.shift_ms(-3_600_000);
    let runs = "SELECT COUNT(*) FROM verification_logs WHERE verification_type = 'MD5_COMPARISON'";
    let before: u32 = control.scalar(runs).await.parse().expect("a count");
    eventually("three verifications in the repeated hour", async || {
        let n = control.scalar(runs).await;
        if n.parse::<u32>().is_ok_and(|n| n >= before + 3) { Ok(()) } else { Err(n) }
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    let alarms = control.query("SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(alarms.rows.is_empty(), "false alarms: {alarms}");
}

/// Sets the capture mode, and captures everything that is committed so far.
fn capture(world: &World, mode: CaptureMode) {
    let instance = world.source.instance().expect("the source's engine");
    {
        let mut state = instance.lock();
        let shop = state.database_named("Shop").expect("Shop").id;
        state.database_mut(shop).expect("Shop").cdc.mode = mode;
    }
    capture_now(instance, "Shop").expect("captured");
}

/// The change row of a changed key lacks the row's document, so replication reads it from the source,
/// which has a later version already. The destination is then ahead of its checkpoint, and differs
/// from the older source row that the verification read: that is no finding.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_completed_from_a_later_state_of_the_source_is_no_finding() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world
        .both(
            "CREATE TABLE dbo.D (ID INT NOT NULL PRIMARY KEY, N INT NULL, Doc NVARCHAR(MAX) NULL)",
        )
        .await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.D VALUES (1, 0, N'one'), (7, 0, N'first')").await;
    world.enable_cdc(&["D"]).await;
    {
        let mut state = world.source.instance().expect("the source's engine").lock();
        let id = state.database_named("Shop").expect("Shop").id;
        state.database_mut(id).expect("Shop").cdc.key_updates = KeyUpdates::UpdatePair;
    }
    let mapping = world.map("D", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon_with(&[
        ("DATAFLOW_VERIFY_INTERVAL", "4s"),
        ("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "0"),
    ]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.verified(mapping, "PASSED").await;

    // Replication has read the change of the key, and is about to read the document.
    capture(&world, CaptureMode::Manual);
    let (fetch, fetching, fetches) = blocked_request(Phase::Before);
    let fetched = world.source.faults().once(Point::request("AS v (slot, start_lsn"), fetch);
    shop.run("UPDATE dbo.D SET ID = 5007 WHERE ID = 7").await;
    capture(&world, CaptureMode::Manual);
    wait_for_arrival(fetching).await;
    // The next verification has read the row at the source, and waits until a later commit, of
    // another row, has been applied. Then the document changes.
    let (clock, clock_read, goes_on) = blocked_request(Phase::After);
    world.source.faults().once(Point::request("AS local_time"), clock);
    wait_for_arrival(clock_read).await;
    later_than_the_clock().await;
    shop.run("UPDATE dbo.D SET N = 1 WHERE ID = 1").await;
    capture(&world, CaptureMode::Manual);
    shop.run("UPDATE dbo.D SET Doc = N'second' WHERE ID = 5007").await;
    let (clock, clock_read, goes_on_again) = blocked_request(Phase::After);
    world.source.faults().once(Point::request("AS local_time"), clock);
    fetches.send(()).expect("replication goes on");
    goes_on.send(()).expect("the verification goes on");
    // It has read the destination's row, which has the new document before its change is captured.
    wait_for_arrival(clock_read).await;
    let doc = "SELECT Doc FROM dbo.D WHERE ID = 5007";
    assert_eq!(world.copy().await.scalar(doc).await, "second");
    later_than_the_clock().await;
    shop.run("UPDATE dbo.D SET N = 2 WHERE ID = 1").await;
    capture(&world, CaptureMode::Immediate);
    goes_on_again.send(()).expect("the verification goes on");

    assert_eq!(fetched.count(), 1);
    world.in_sync("dbo.D", "ID").await;
    let mut control = world.control().await;
    let count = "SELECT COUNT(*) FROM verification_logs WHERE verification_type = 'MD5_COMPARISON'";
    eventually("another verification", async || {
        let n = control.scalar(count).await;
        if n.parse::<u32>().is_ok_and(|n| n >= 2) { Ok(()) } else { Err(n) }
    })
    .await;
    world.verified(mapping, "PASSED").await;
    let alarms = control.query("SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(alarms.rows.is_empty(), "false alarms: {alarms}");
}

/// Lets the next commit have a later time than the clock that the daemon has just read, by more than
/// the rounding of commit times.
async fn later_than_the_clock() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
