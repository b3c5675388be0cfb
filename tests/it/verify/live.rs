//! Beside a busy writer and a capture that lags as it likes: no false alarm, and no difference
//! missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{not_too_far_ahead, rows, synced};
use crate::harness::{
    Sql, World,
    blocked_request::{blocked_request, wait_for_arrival},
    eventually,
};
use mssql_standin::{
    cdc::{CaptureConfig, CaptureMode, KeyUpdates, capture::capture_now},
    fault::{Phase, Point},
};

/// Changes, moves, deletes and inserts rows, as fast as the server takes it, until it is told to
/// stop; how many rounds it made.
async fn write(mut shop: Sql, mut copy: Sql, stop: Arc<AtomicBool>) -> usize {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        shop.run(&format!("UPDATE dbo.V SET Name = N'{n}' WHERE ID = 100")).await;
        not_too_far_ahead(n, &mut copy, "SELECT Name FROM dbo.V WHERE ID = 100").await;
        // the corrupted rows are left alone: a change would mend them
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
    let spoils = [
        ("UPDATE dbo.V SET Name = N'corrupt' WHERE ID = 42", "different (1): 42"),
        ("DELETE dbo.V WHERE ID = 43", "only in source (1): 43"),
        ("INSERT INTO dbo.V (ID) VALUES (-44)", "only in destination (1): -44"),
    ];
    for (spoil, named) in spoils {
        copy.run(spoil).await;
        rows(&world, mapping, "FAILED", &[named]).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.expect("the writer") > 10);
    let wrong = control
        .query("SELECT mismatches_found, verification_details FROM verification_logs WHERE verification_status = 'FAILED' AND mismatches_found > 3")
        .await;
    assert!(wrong.rows.is_empty(), "{wrong}");
    // what was told of is exactly what was done, each time in other words
    let errors =
        "SELECT error_message FROM error_logs WHERE error_type = 'VERIFICATION' ORDER BY error_id";
    eventually("the last finding to be in the log, too", async || {
        let errors = control.query(errors).await;
        if errors.rows.len() >= 3 { Ok(()) } else { Err(errors.to_string()) }
    })
    .await;
    let errors = control.query(errors).await;
    let told: Vec<_> = errors
        .rows
        .iter()
        .map(|row| row[0].rsplit("FAILED: ").next().unwrap_or_default())
        .collect();
    let all = "only in source (1): 43; only in destination (1): -44; different (1): 42";
    assert_eq!(
        told,
        ["different (1): 42", "only in source (1): 43; different (1): 42", all],
        "once per finding: {errors}"
    );
    drop(daemon);
}

/// Commits of the hour before look later than a clock that was set back; taken for a fence, they
/// covered nothing.
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

/// The hand of the scenario instead of the capture job.
fn capture(world: &World, from_now_on: CaptureMode) {
    let instance = world.source.instance().expect("the source's engine");
    {
        let mut state = instance.lock();
        let shop = state.database_named("Shop").expect("Shop").id;
        state.database_mut(shop).expect("Shop").cdc.mode = from_now_on;
    }
    capture_now(instance, "Shop").expect("captured");
}

/// A moved row's document is not in its change row, so replication takes it from the source, where
/// it is a later one already. The destination then is ahead of its checkpoint, and the source row
/// that the verification saw is not wrong either.
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

    // Replication has read that the row moved, and is about to fetch the document.
    capture(&world, CaptureMode::Manual);
    let (fetch, fetching, fetches) = blocked_request(Phase::Before);
    let fetched = world.source.faults().once(Point::request("AS v (slot, start_lsn"), fetch);
    shop.run("UPDATE dbo.D SET ID = 5007 WHERE ID = 7").await;
    capture(&world, CaptureMode::Manual);
    wait_for_arrival(fetching).await;
    // The next verification has seen the row at the source, and takes its fence: a commit of
    // another row. Then the document changes.
    let (clock, looked, goes_on) = blocked_request(Phase::After);
    world.source.faults().once(Point::request("AS local_time"), clock);
    wait_for_arrival(looked).await;
    later_than_the_clock().await;
    shop.run("UPDATE dbo.D SET N = 1 WHERE ID = 1").await;
    capture(&world, CaptureMode::Manual);
    shop.run("UPDATE dbo.D SET Doc = N'second' WHERE ID = 5007").await;
    let (clock, looked, goes_on_again) = blocked_request(Phase::After);
    world.source.faults().once(Point::request("AS local_time"), clock);
    fetches.send(()).expect("replication goes on");
    goes_on.send(()).expect("the verification goes on");
    // It has read the destination's row, which has the new document before any change told of it.
    wait_for_arrival(looked).await;
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

/// Commit times are rounded, so a fence wants one that is later than the clock was by more than
/// that.
async fn later_than_the_clock() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
