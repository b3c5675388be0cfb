//! A table on which another session holds a lock does not hold up the other tables of its database.

use super::start;
use crate::harness::{Sql, World, eventually};

/// Two tables that are followed from the beginning, without a daemon.
async fn two_tables() -> (World, [i32; 2]) {
    let world = World::new().await;
    for table in ["Locked", "Free"] {
        world.both(&format!("CREATE TABLE dbo.{table} (ID INT NOT NULL PRIMARY KEY, V INT NULL, Resync BIT NOT NULL DEFAULT 0)")).await;
    }
    world.enable_cdc(&["Locked", "Free"]).await;
    let locked = world.map("Locked", "ID", None, true).await;
    let free = world.map("Free", "ID", None, true).await;
    (world, [locked, free])
}

/// Waits until the change table has this many rows.
async fn captured(shop: &mut Sql, change_table: &str, rows: &str) {
    eventually(&format!("{rows} rows in {change_table}"), async || {
        let there = shop.scalar(&format!("SELECT COUNT(*) FROM cdc.{change_table}")).await;
        if there == rows { Ok(()) } else { Err(there) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_change_table_leaves_its_neighbours_alone() {
    let (world, [locked, _]) = two_tables().await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.Locked (ID, V) VALUES (1, 1)").await;
    captured(&mut shop, "dbo_Locked_CT", "1").await;
    let mut holder = world.shop().await;
    holder
        .run("BEGIN TRANSACTION; SELECT COUNT(*) FROM cdc.dbo_Locked_CT WITH (TABLOCKX, HOLDLOCK)")
        .await;
    let _daemon = start(&world);
    for id in 1..=3 {
        shop.run(&format!("INSERT INTO dbo.Free (ID, V) VALUES ({id}, {id})")).await;
        world.in_sync("dbo.Free", "ID").await;
    }
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.Locked").await, "0");
    let mut control = world.control().await;
    let lag = format!("SELECT reason FROM cdc_lag WHERE mapping_id = {locked}");
    eventually("the reason of the unknown lag", async || {
        let reason = control.scalar(&lag).await;
        if reason.contains("holds a lock") { Ok(()) } else { Err(reason) }
    })
    .await;
    holder.run("COMMIT").await;
    world.in_sync("dbo.Locked", "ID").await;
    let errors = control.query("SELECT error_message FROM error_logs").await;
    assert!(errors.rows.is_empty(), "{errors}");
}

/// Locked for longer than DATAFLOW_LOCK_TIMEOUT: an error of that mapping alone, which ends with the
/// lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_table_that_stays_locked_is_an_error_of_its_mapping() {
    let (world, [locked, free]) = two_tables().await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.Locked (ID, V) VALUES (1, 1)").await;
    captured(&mut shop, "dbo_Locked_CT", "1").await;
    let mut holder = world.shop().await;
    holder
        .run("BEGIN TRANSACTION; SELECT COUNT(*) FROM cdc.dbo_Locked_CT WITH (TABLOCKX, HOLDLOCK)")
        .await;
    let _daemon =
        world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0"), ("DATAFLOW_LOCK_TIMEOUT", "2s")]);
    let mut control = world.control().await;
    let open = "SELECT mapping_id FROM error_logs WHERE is_resolved = 0";
    eventually("the error of the locked table", async || {
        let errors = control.query(open).await;
        if errors.column("mapping_id") == [locked.to_string()] {
            Ok(())
        } else {
            Err(errors.to_string())
        }
    })
    .await;
    shop.run("INSERT INTO dbo.Free (ID, V) VALUES (1, 1)").await;
    world.in_sync("dbo.Free", "ID").await;
    holder.run("COMMIT").await;
    world.in_sync("dbo.Locked", "ID").await;
    eventually("no open error", async || {
        let errors = control.query(open).await;
        if errors.rows.is_empty() { Ok(()) } else { Err(errors.to_string()) }
    })
    .await;
    let of_free = format!("SELECT COUNT(*) FROM error_logs WHERE mapping_id = {free}");
    assert_eq!(control.scalar(&of_free).await, "0");
}

/// A row of the trigger's table is locked: the trigger in another row is seen all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_hides_no_trigger_of_another_row() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NULL, Resync BIT NOT NULL DEFAULT 0)").await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.T (ID, V) VALUES (1, 1), (2, 2)").await;
    let mapping = world.map("T", "ID", Some("Resync"), false).await;
    let mut holder = world.shop().await;
    holder.run("BEGIN TRANSACTION; UPDATE dbo.T SET V = 10 WHERE ID = 1").await;
    shop.run("UPDATE dbo.T SET Resync = 1 WHERE ID = 2").await;
    let _daemon = start(&world);
    world.run_ends(mapping, "FULL_SYNC", "RUNNING").await;
    holder.run("COMMIT").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.T", "ID").await;
}
