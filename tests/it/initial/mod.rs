//! Mappings that have never synced.

use crate::harness::World;

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
