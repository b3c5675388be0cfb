//! Order within a source transaction, with and without `__$command_id`.

use super::{capture, following, start};

const STORY: &str = "BEGIN TRAN;
UPDATE dbo.O SET V = V + 1;
DELETE dbo.O WHERE ID = 2;
INSERT INTO dbo.O VALUES (2, 20);
UPDATE dbo.O SET V = V * 3 WHERE ID = 2;
UPDATE dbo.O SET ID = 4 WHERE ID = 3;
INSERT INTO dbo.O VALUES (3, 30);
UPDATE dbo.O SET ID = CASE ID WHEN 1 THEN 4 ELSE 1 END WHERE ID IN (1, 4);
DELETE dbo.O WHERE ID = 4;
INSERT INTO dbo.O VALUES (4, 40), (5, 50);
DELETE dbo.O WHERE ID = 5;
COMMIT";

#[tokio::test(flavor = "multi_thread")]
async fn rapid_changes_of_one_transaction_end_as_they_ended() {
    let (world, _, _daemon) = following(
        "O",
        "CREATE TABLE dbo.O (ID INT NOT NULL PRIMARY KEY, V INT NULL)",
        "INSERT INTO dbo.O VALUES (1, 1), (2, 2), (3, 3)",
        "ID",
    )
    .await;
    world.shop().await.run(STORY).await;
    world.in_sync("dbo.O", "ID").await;
}

/// Servers before the updates of KB 3030352 have no `__$command_id`.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_command_ids_works_too() {
    let world = crate::harness::World::new().await;
    world.both("CREATE TABLE dbo.O (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.enable_cdc(&[]).await;
    capture(&world, |cdc| cdc.command_id = false);
    world.enable_cdc(&["O"]).await;
    assert_eq!(world.shop().await.scalar("SELECT COUNT(*) FROM sys.columns WHERE name = N'__$command_id'").await, "0");
    world.map("O", "ID", None, true).await;
    let _daemon = start(&world);
    world.shop().await.run("INSERT INTO dbo.O VALUES (1, 1), (2, 2), (3, 3)").await;
    world.shop().await.run(STORY).await;
    world.in_sync("dbo.O", "ID").await;
}
