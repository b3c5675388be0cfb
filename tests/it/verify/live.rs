//! Beside a busy writer and a capture that lags as it likes: no false alarm, and no difference missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::synced;
use crate::harness::{Sql, World, eventually};
use mssql_standin::cdc::{CaptureConfig, CaptureMode};

/// Changes, moves, deletes and inserts rows until it is told to stop; returns how many statements it ran.
async fn write(mut shop: Sql, stop: Arc<AtomicBool>) -> usize {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        // no faster than changes can be applied: a mapping that falls ever further behind ends PARTIAL, which is another scenario
        tokio::time::sleep(Duration::from_millis(10)).await;
        // the corrupted rows are left alone: a change would mend them
        shop.run(&format!("UPDATE dbo.V SET Name = N'{n}', Price = Price + 1 WHERE ID % 97 = {} AND ID > 100", n % 97)).await;
        shop.run(&format!(
            "UPDATE dbo.V SET ID = ID + 5000 WHERE ID = {}; UPDATE dbo.V SET ID = ID - 5000 WHERE ID = {}",
            200 + n % 50,
            5200 + n % 50
        ))
        .await;
        shop.run(&format!("INSERT INTO dbo.V (ID, Name) VALUES ({}, N'new'); DELETE dbo.V WHERE ID = {}", 10_000 + n, 10_000 + n - 5))
            .await;
    }
    n
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_writer_raises_no_false_alarm_and_hides_nothing() {
    let lag = CaptureConfig { mode: CaptureMode::Delayed { min_ms: 0, max_ms: 400 }, poll: Duration::from_millis(20) };
    let world = World::with(|builder| builder.capture(lag)).await;
    let mapping = synced(&world, true).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(world.shop().await, stop.clone()));

    let mut control = world.control().await;
    let count = format!("SELECT COUNT(*) FROM verification_logs WHERE mapping_id = {mapping} AND verification_type = 'MD5_COMPARISON'");
    eventually("three verifications beside the writer", async || {
        let n = control.scalar(&count).await;
        if n.parse::<u32>().is_ok_and(|n| n >= 3) { Ok(()) } else { Err(n) }
    })
    .await;
    let alarms =
        control.query("SELECT verification_status, verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(alarms.rows.is_empty(), "false alarms: {alarms}");

    world.copy().await.run("UPDATE dbo.V SET Name = N'corrupt' WHERE ID = 42").await;
    let failed = world.verified(mapping, "FAILED").await;
    assert_eq!(failed.column("verification_details"), ["different (1): 42"], "{failed}");
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.expect("the writer") > 10);
    let wrong = control
        .query("SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED' AND verification_details <> N'different (1): 42'")
        .await;
    assert!(wrong.rows.is_empty(), "{wrong}");
    drop(daemon);
}
