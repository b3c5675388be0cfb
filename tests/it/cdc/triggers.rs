//! Trigger columns of unsuitable types: they do not stop replication of their table.

use super::{error_of, start};
use crate::harness::{World, daemon::command, eventually};

/// A table with a trigger column of this type, synced once and followed.
async fn followed(column: &str) -> (World, i32, crate::harness::Daemon) {
    let world = World::new().await;
    world
        .both(&format!(
            "CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NULL, Resync {column} NULL)"
        ))
        .await;
    world.shop().await.run("INSERT INTO dbo.T (ID, V) VALUES (1, 1), (2, 2)").await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map("T", "ID", Some("Resync"), true).await;
    world.request_full_sync(mapping).await;
    let daemon = start(&world);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    (world, mapping, daemon)
}

async fn full_syncs(world: &World, mapping: i32, count: &str) {
    let mut control = world.control().await;
    eventually(&format!("{count} full syncs"), async || {
        let done = control
            .scalar(&format!(
                "SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping} AND sync_type = 'FULL_SYNC' AND status = 'COMPLETED'"
            ))
            .await;
        if done == count { Ok(()) } else { Err(done) }
    })
    .await;
}

/// A value that is no number once failed every poll with Msg 245: CDC of the table stood still, and
/// `check` found no fault.
#[tokio::test(flavor = "multi_thread")]
async fn text_that_is_no_number_in_a_trigger_column_stops_nothing_and_check_reports_it() {
    let (world, mapping, daemon) = followed("VARCHAR(10)").await;
    let mut shop = world.shop().await;
    shop.run("UPDATE dbo.T SET V = 3, Resync = 'later' WHERE ID = 1").await;
    world.in_sync("dbo.T", "ID").await;
    let checked = command(&world.variables(), &["check"]).output().await.expect("run check");
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.contains("✗ trigger column")
            && checked.contains("[Resync] holds text that is no number"),
        "{checked}"
    );
    let fix = checked
        .lines()
        .find(|line| line.contains("TRY_CAST"))
        .expect("a statement that fixes it")
        .trim()
        .to_owned();
    // A number in another row is a request: it is fulfilled and reset. The text value stays as it
    // is.
    shop.run("UPDATE dbo.T SET Resync = '1' WHERE ID = 2").await;
    full_syncs(&world, mapping, "2").await;
    world.in_sync("dbo.T", "ID").await;
    assert_eq!(shop.query("SELECT Resync FROM dbo.T ORDER BY ID").await.rows, [["later"], ["0"]]);
    world.source("master").await.script(&fix).await;
    let checked = command(&world.variables(), &["check"]).output().await.expect("run check");
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.contains("✗ trigger column"), "{checked}");
    let errors = world.control().await.scalar("SELECT COUNT(*) FROM error_logs").await;
    assert_eq!(errors, "0", "{}", daemon.output());
}

/// A trigger column whose type cannot be compared with 1 is one error, which names the trigger
/// column. CDC goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_column_that_cannot_be_compared_with_1_is_its_own_error() {
    let (world, mapping, daemon) = followed("DATE").await;
    let mut shop = world.shop().await;
    error_of(&world, mapping, &["trigger column", "206"]).await;
    shop.run("UPDATE dbo.T SET V = 3 WHERE ID = 1").await;
    world.in_sync("dbo.T", "ID").await;
    shop.run("DELETE dbo.T WHERE ID = 2").await;
    world.in_sync("dbo.T", "ID").await;
    assert_eq!(
        daemon.output().matches("the trigger column cannot be read").count(),
        1,
        "{}",
        daemon.output()
    );
    let checked = command(&world.variables(), &["check"]).output().await.expect("run check");
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.contains("✗ trigger column") && checked.contains("cannot be compared with 1"),
        "{checked}"
    );
    let mut control = world.control().await;
    control.run("UPDATE table_mappings SET full_sync_trigger_column = NULL").await;
    eventually("the error to be resolved", async || {
        let open = control.scalar("SELECT COUNT(*) FROM error_logs WHERE is_resolved = 0").await;
        if open == "0" { Ok(()) } else { Err(open) }
    })
    .await;
}

/// A full sync that somebody asked for once failed because the trigger column was not there, and CDC
/// stood still with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_column_that_is_not_there_stops_neither_cdc_nor_a_full_sync() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.T VALUES (1, 1)").await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map_as_users_do("T", "ID", Some("Resync"), true).await;
    let daemon = start(&world);
    full_syncs(&world, mapping, "1").await;
    world.in_sync("dbo.T", "ID").await;
    error_of(&world, mapping, &["trigger column", "Resync", "207"]).await;
    let mut control = world.control().await;
    let codes = control.query("SELECT DISTINCT error_code FROM error_logs").await;
    assert_eq!(codes.rows, [["TRIGGER_UNREADABLE"]]);
    shop.run("INSERT INTO dbo.T VALUES (2, 2)").await;
    world.in_sync("dbo.T", "ID").await;
    world.request_full_sync(mapping).await;
    full_syncs(&world, mapping, "2").await;
    shop.run("DELETE dbo.T WHERE ID = 1").await;
    world.in_sync("dbo.T", "ID").await;
    assert!(!daemon.output().contains("parked=true"), "{}", daemon.output());
    // The column comes: it is a request as ever.
    shop.run("ALTER TABLE dbo.T ADD Resync BIT NULL").await;
    shop.run("UPDATE dbo.T SET Resync = 1").await;
    full_syncs(&world, mapping, "3").await;
    eventually("the error to be resolved", async || {
        let open = control.scalar("SELECT COUNT(*) FROM error_logs WHERE is_resolved = 0").await;
        if open == "0" { Ok(()) } else { Err(open) }
    })
    .await;
}
