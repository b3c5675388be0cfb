//! Capture instances: two at a time, columns that come and go, one that is dropped, one that is not for everybody.

use super::{IMPATIENT, error_of, followed_with, following, start};
use crate::harness::{PASSWORD, World, eventually};

/// A column is added with a default, a second instance made, and rows are written in between: all of them get the value.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_added_between_two_instances_arrives_everywhere() {
    let (world, _, _daemon) =
        following("I", "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY, V INT NULL)", "INSERT INTO dbo.I VALUES (1, 1), (2, 2)", "ID")
            .await;
    let mut shop = world.shop().await;
    world.copy().await.run("ALTER TABLE dbo.I ADD W INT NULL").await;
    shop.run("ALTER TABLE dbo.I ADD W INT NOT NULL DEFAULT 7").await;
    shop.run("INSERT INTO dbo.I (ID, V, W) VALUES (3, 3, 33)").await;
    shop.run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'I_two', @role_name = NULL")
        .await;
    shop.run("INSERT INTO dbo.I (ID, V, W) VALUES (4, 4, 44); UPDATE dbo.I SET V = 10 WHERE ID = 1").await;
    world.in_sync("dbo.I", "ID").await;
    shop.run("UPDATE dbo.I SET W = 70 WHERE ID = 2").await;
    world.in_sync("dbo.I", "ID").await;
    assert_eq!(world.copy().await.scalar("SELECT SUM(W) FROM dbo.I").await, (7 + 70 + 33 + 44).to_string());
}

/// A column dropped at the source keeps its values at the destination.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_never_writes_nulls() {
    let (world, _, _daemon) = following(
        "I",
        "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY, V INT NULL, W INT NULL)",
        "INSERT INTO dbo.I VALUES (1, 1, 11)",
        "ID",
    )
    .await;
    let mut shop = world.shop().await;
    shop.run("ALTER TABLE dbo.I DROP COLUMN W").await;
    shop.run("UPDATE dbo.I SET V = 2 WHERE ID = 1; INSERT INTO dbo.I VALUES (2, 2)").await;
    let mut copy = world.copy().await;
    eventually("the changes without the column", async || {
        let rows = copy.query("SELECT ID, V, W FROM dbo.I ORDER BY ID").await;
        if rows.rows == [["1", "2", "11"], ["2", "2", "NULL"]] { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
}

/// An instance that is gone is an error that says so; made again, a full sync mends what was missed.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_dropped_under_us_is_an_error_that_says_so() {
    let (world, mapping, _daemon) =
        followed_with(IMPATIENT, "I", "CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY)", "INSERT INTO dbo.I VALUES (1)", "ID").await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'all'").await;
    error_of(&world, mapping, &["dbo.I", "capture instance", "sp_cdc_enable_table"]).await;
    shop.run("INSERT INTO dbo.I VALUES (2)").await;
    world.enable_cdc(&["I"]).await;
    world.in_sync("dbo.I", "ID").await;
}

/// A name of somebody's own choosing: it is read, never guessed.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_has_any_name() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&[]).await;
    world
        .shop()
        .await
        .run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @capture_instance = N'my own [name]', @role_name = NULL; INSERT INTO dbo.I VALUES (1)")
        .await;
    world.map("I", "ID", None, true).await;
    let _daemon = start(&world);
    world.in_sync("dbo.I", "ID").await;
}

/// Gated by a role that the login is not in: named, with the statement that mends it. A parked mapping is looked at every five minutes, and
/// at once when its row or its server's row changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_gated_instance_is_named_with_what_mends_it() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&[]).await;
    let mut shop = world.shop().await;
    shop.run("CREATE ROLE cdc_readers").await;
    shop.run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'I', @role_name = N'cdc_readers'").await;
    shop.run(&format!("CREATE LOGIN reader WITH PASSWORD = '{}'", PASSWORD.replace('\'', "''"))).await;
    shop.run("CREATE USER reader FOR LOGIN reader").await;
    shop.run("ALTER ROLE db_datareader ADD MEMBER reader").await;
    shop.run("GRANT SELECT ON SCHEMA::cdc TO reader").await;
    shop.run("INSERT INTO dbo.I VALUES (1)").await;
    world.connect_as("reader", PASSWORD).await;
    let mapping = world.map("I", "ID", None, true).await;
    let _daemon = start(&world);
    error_of(&world, mapping, &["minimum LSN is zero", "cdc_readers", "ADD MEMBER", "GRANT"]).await;
    shop.run("ALTER ROLE cdc_readers ADD MEMBER reader").await;
    let mut control = world.control().await;
    let lag = control.query(&format!("SELECT seconds_behind, reason FROM v_cdc_lag WHERE mapping_id = {mapping}")).await;
    assert!(lag.first() == "NULL" && lag.rows[0][1].contains("cdc_readers"), "{lag}");
    control.run("UPDATE source_servers SET connection_string = connection_string + N';app name=again'").await;
    world.in_sync("dbo.I", "ID").await;
}
