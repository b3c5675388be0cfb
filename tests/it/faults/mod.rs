//! Faults of servers, network and process: the destination equals the source in the end.

mod endless;
mod fixture;
#[cfg(unix)]
mod frozen;
mod hostile;
mod kill;
mod matrix;

use mssql_standin::fault::{Fault, Point};

use crate::harness::{World, eventually, numbers};

async fn world_with_changes() -> (World, i32) {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.F (ID INT IDENTITY(1,1) PRIMARY KEY, V INT NOT NULL)").await;
    world
        .shop()
        .await
        .run(&format!("INSERT INTO dbo.F (V) SELECT 0 FROM {}", numbers(2_000)))
        .await;
    world.enable_cdc(&["F"]).await;
    let mapping = world.map("F", "ID", None, true).await;
    world.request_full_sync(mapping).await;
    (world, mapping)
}

async fn write(world: &World, round: usize) {
    let mut shop = world.shop().await;
    shop.run(&format!("UPDATE dbo.F SET V = V + 1 WHERE ID % 7 = {}", round % 7)).await;
    shop.run(&format!(
        "INSERT INTO dbo.F (V) VALUES ({round}); DELETE dbo.F WHERE ID = {}",
        10 + round
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_either_server_is_survived() {
    crate::only_on_standins!("a restart of a server");
    let (world, mapping) = world_with_changes().await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.source.restart().await;
    write(&world, 1).await;
    world.in_sync("dbo.F", "ID").await;
    world.dest.restart().await;
    write(&world, 2).await;
    world.in_sync("dbo.F", "ID").await;
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
}

/// A killed process leaves a run RUNNING: the next process marks it as interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_is_not_running_for_ever() {
    let (world, mapping) = world_with_changes().await;
    let mut control = world.control().await;
    control
        .run(&format!(
            "INSERT INTO sync_status (mapping_id, sync_type, status, started_at) VALUES ({mapping}, 'FULL_SYNC', 'RUNNING', DATEADD(hour, -1, SYSUTCDATETIME()))"
        ))
        .await;
    let _daemon = world.daemon();
    eventually("the old run to end", async || {
        let old = control
            .query("SELECT TOP (1) status, error_message FROM sync_status ORDER BY status_id")
            .await;
        if old.first() == "ERROR" && old.rows[0][1].contains("interrupted") {
            Ok(())
        } else {
            Err(old.to_string())
        }
    })
    .await;
    world.in_sync("dbo.F", "ID").await;
}

/// The reply to the INSERT of one run's row is lost, and the final UPDATE of another run's row does
/// not reach the server. The work stays done, and no run stays RUNNING.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_row_was_not_answered_is_not_running_for_ever() {
    crate::only_on_standins!("faults at requests");
    let (world, _) = world_with_changes().await;
    let faults = world.dest.faults().clone();
    let started = faults.arm(
        Point::request("VALUES (@P1, @P2, N'RUNNING', GETUTCDATE())"),
        Some(fixture::APPLICATION),
        1,
        Some(1),
        Fault::CloseAfter,
    );
    let finished = faults.arm(
        Point::request("SET status = @P2, records_processed = @P3"),
        Some(fixture::APPLICATION),
        1,
        Some(1),
        Fault::CloseBefore,
    );
    let _daemon = world.daemon();
    started.fired().await;
    finished.fired().await;
    let mut control = world.control().await;
    eventually("both runs to have ended", async || {
        let runs = control.query("SELECT status, error_message FROM sync_status WHERE sync_type = 'FULL_SYNC' ORDER BY status_id").await;
        let statuses = runs.column("status");
        if statuses == ["ERROR", "COMPLETED"] && runs.rows[0][1] == "interrupted" { Ok(()) } else { Err(runs.to_string()) }
    })
    .await;
    world.in_sync("dbo.F", "ID").await;
    let listed =
        control.query("SELECT status FROM v_sync_summary WHERE sync_type = 'FULL_SYNC'").await;
    assert!(listed.rows.is_empty(), "{listed}");
}
