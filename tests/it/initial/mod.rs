//! Mappings that have never synced.

use crate::{
    cdc::{SHORT_PARKED_INTERVAL, error_of, start, start_with},
    harness::{World, eventually},
};
use mssql_standin::fault::{Fault, Point};

const TABLE: &str = "CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

/// A control database of an older version, where nobody has run `init` yet, and `start-from` there.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_database_without_the_column_works_with_one_warning() {
    let world = World::new().await;
    world.both(TABLE).await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1, 1)").await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map("T", "ID", None, true).await;
    world.control().await.run("ALTER TABLE table_mappings DROP COLUMN initial_sync").await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.in_sync("dbo.T", "ID").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (2, 2)").await;
    world.in_sync("dbo.T", "ID").await;
    daemon.wait_for_line(&["no column initial_sync", "dbaops-dataflow init"]).await;
    assert_eq!(daemon.output().matches("no column initial_sync").count(), 1);
}

async fn full_syncs(world: &World) -> String {
    let count = "SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC'";
    world.control().await.scalar(count).await
}

/// Nobody asks for a full sync: what was in the source before arrives, and what comes after.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_destination_is_loaded_first_and_once() {
    let world = World::new().await;
    world.both(TABLE).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.T VALUES (1, 1), (2, 2)").await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map_as_users_do("T", "ID", None, true).await;
    let daemon = start(&world);
    world.in_sync("dbo.T", "ID").await;
    daemon.wait_for_line(&["has never synced", "is empty: it is loaded first"]).await;
    // Empty again, with a checkpoint: changes are followed, also by the next daemon.
    shop.run("DELETE dbo.T").await;
    world.in_sync("dbo.T", "ID").await;
    daemon.terminate().await;
    let _daemon = start(&world);
    shop.run("INSERT INTO dbo.T VALUES (3, 3)").await;
    world.in_sync("dbo.T", "ID").await;
    assert_eq!(full_syncs(&world).await, "1");
    world.run_ends(mapping, "CDC", "COMPLETED").await;
}

/// The rows may be a restored backup: nobody but the operator knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_with_rows_is_followed_with_one_warning() {
    let world = World::new().await;
    world.both(TABLE).await;
    let (mut shop, mut copy) = (world.shop().await, world.copy().await);
    shop.run("INSERT INTO dbo.T VALUES (1, 1)").await;
    copy.run("INSERT INTO dbo.T VALUES (1, 100)").await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map_as_users_do("T", "ID", None, true).await;
    let daemon = start(&world);
    let choices = [
        "never synced: ".to_owned(),
        "full_sync_requested = 1".to_owned(),
        format!("start-from --mapping {mapping}"),
        "initial_sync = 'NONE'".to_owned(),
    ];
    let choices: Vec<&str> = choices.iter().map(String::as_str).collect();
    daemon.wait_for_line(&choices).await;
    shop.run("INSERT INTO dbo.T VALUES (2, 2)").await;
    applied(&world, "1:100 2:2").await;
    assert_eq!(daemon.output().matches("never synced: ").count(), 1);
    assert_eq!(full_syncs(&world).await, "0");
    let mut control = world.control().await;
    assert_eq!(
        control.scalar("SELECT COUNT(*) FROM sync_logs WHERE log_level = 'WARNING' AND log_message LIKE '%never synced: %'").await,
        "1"
    );
}

/// What the table of the destination has: `ID:V` of each row.
async fn applied(world: &World, expected: &str) {
    let mut copy = world.copy().await;
    eventually(expected, async || {
        let rows = copy.query("SELECT ID, V FROM dbo.T ORDER BY ID").await;
        let rows: Vec<String> = rows.rows.iter().map(|row| row.join(":")).collect();
        if rows.join(" ") == expected { Ok(()) } else { Err(rows.join(" ")) }
    })
    .await;
}

/// The variable for all tables, and the column for one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_not_loaded_where_the_operator_says_so() {
    for variable in [true, false] {
        let world = World::new().await;
        world.both(TABLE).await;
        let mut shop = world.shop().await;
        shop.run("INSERT INTO dbo.T VALUES (1, 1)").await;
        world.enable_cdc(&["T"]).await;
        let daemon = if variable {
            world.map_as_users_do("T", "ID", None, true).await;
            start_with(&world, &[("DATAFLOW_INITIAL_SYNC", "never")])
        } else {
            world.map("T", "ID", None, true).await;
            start(&world)
        };
        shop.run("INSERT INTO dbo.T VALUES (2, 2)").await;
        applied(&world, "2:2").await;
        assert_eq!(full_syncs(&world).await, "0");
        assert!(!daemon.output().contains("never synced"), "{}", daemon.output());
    }
}

/// It was `following` with a lag of 0. The error names the statement, which is enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_destination_table_is_an_error_at_once_with_its_statement() {
    let world = World::new().await;
    let mut shop = world.shop().await;
    shop.run(TABLE).await;
    shop.run("INSERT INTO dbo.T VALUES (1, 1)").await;
    world.enable_cdc(&["T"]).await;
    let mapping = world.map_as_users_do("T", "ID", None, true).await;
    let daemon = start_with(&world, SHORT_PARKED_INTERVAL);
    let error = error_of(&world, mapping, &["Copy.dbo.T does not exist", "CREATE TABLE"]).await;
    let create = error.find("USE [Copy]; CREATE TABLE").map(|at| error[at..].to_owned());
    world.copy().await.run(&create.expect("the statement")).await;
    world.in_sync("dbo.T", "ID").await;
    assert_eq!(full_syncs(&world).await, "1");
    drop(daemon);
}

/// A daemon that ends between the request and the full sync, or in the middle of it, leaves a mapping
/// that is loaded by the next one; what changes meanwhile is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_initial_sync_that_is_killed_is_done_by_the_next_daemon() {
    let world = World::new().await;
    world.both(TABLE).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.T VALUES (1, 1)").await;
    world.enable_cdc(&["T"]).await;
    world.map_as_users_do("T", "ID", None, true).await;
    let request = "AND last_cdc_lsn IS NULL AND last_full_sync_at IS NULL";
    world.dest.faults().once(Point::request(request), Fault::HangAfter);
    let daemon = start(&world);
    let mut control = world.control().await;
    eventually("the full sync to be requested", async || {
        let asked =
            control.scalar("SELECT CAST(full_sync_requested AS int) FROM table_mappings").await;
        if asked == "1" { Ok(()) } else { Err(asked) }
    })
    .await;
    daemon.kill().await;
    shop.run("INSERT INTO dbo.T VALUES (2, 2); DELETE dbo.T WHERE ID = 1").await;
    let _daemon = start(&world);
    world.in_sync("dbo.T", "ID").await;
    shop.run("INSERT INTO dbo.T VALUES (3, 3)").await;
    world.in_sync("dbo.T", "ID").await;
    assert_eq!(full_syncs(&world).await, "1");
}

/// A mapping from another server to a table that is kept in sync already. Both were once refused, so
/// that a new row stopped a table that worked.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_mapping_to_a_destination_does_not_stop_the_first() {
    let world = World::new().await;
    world.both(TABLE).await;
    let mut shop = world.shop().await;
    shop.run("CREATE TABLE dbo.Newer (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    shop.run("INSERT INTO dbo.T VALUES (1, 1); INSERT INTO dbo.Newer VALUES (7, 7)").await;
    world.enable_cdc(&["T", "Newer"]).await;
    let newer = world.map("Newer", "ID", None, true).await;
    let older = world.map_as_users_do("T", "ID", None, true).await;
    let mut control = world.control().await;
    control.run("UPDATE table_mappings SET is_enabled = 0 WHERE source_table = 'Newer'").await;
    let daemon = start(&world);
    world.in_sync("dbo.T", "ID").await;
    // The mapping that has synced has the greater number.
    control
        .run("UPDATE table_mappings SET is_enabled = 1, dest_table = N't', full_sync_requested = 1 WHERE source_table = 'Newer'")
        .await;
    let both = format!("mappings {older} and {newer}");
    let disable = format!("SET is_enabled = 0 WHERE mapping_id = {newer}");
    error_of(&world, newer, &[&both, &disable]).await;
    shop.run("INSERT INTO dbo.T VALUES (2, 2); INSERT INTO dbo.Newer VALUES (8, 8)").await;
    applied(&world, "1:1 2:2").await;
    world.request_full_sync(older).await;
    eventually("the second full sync of the first mapping", async || {
        let count = full_syncs(&world).await;
        if count == "2" { Ok(()) } else { Err(count) }
    })
    .await;
    world.run_ends(older, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.T", "ID").await;
    control
        .run(&format!("UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = {newer}"))
        .await;
    eventually("the error to be resolved", async || {
        let open = control
            .query("SELECT mapping_id, error_message FROM error_logs WHERE is_resolved = 0")
            .await;
        if open.rows.is_empty() { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
    drop(daemon);
}
