//! Order within a source transaction, with and without `__$command_id`.

use super::{capture, following, start};
use crate::harness::World;

/// One transaction that changes the same rows and keys many times.
const TRANSACTION: &str = "BEGIN TRAN;
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
    world.shop().await.run(TRANSACTION).await;
    world.in_sync("dbo.O", "ID").await;
}

/// Servers before the updates of KB 3030352 have no `__$command_id`.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_command_ids_works_too() {
    crate::only_on_standins!("its engine");
    let world = crate::harness::World::new().await;
    world.both("CREATE TABLE dbo.O (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    world.enable_cdc(&[]).await;
    capture(&world, |cdc| cdc.command_id = false);
    world.enable_cdc(&["O"]).await;
    assert_eq!(
        world
            .shop()
            .await
            .scalar("SELECT COUNT(*) FROM sys.columns WHERE name = N'__$command_id'")
            .await,
        "0"
    );
    world.map("O", "ID", None, true).await;
    let _daemon = start(&world);
    world.shop().await.run("INSERT INTO dbo.O VALUES (1, 1), (2, 2), (3, 3)").await;
    world.shop().await.run(TRANSACTION).await;
    world.in_sync("dbo.O", "ID").await;
}

/// The log may have the row that gets a key before the row that gives the key up. The last event for
/// the key, a delete, once removed the new row when the destination had never had the key. Found by
/// the property test.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_shift_onto_each_other_before_the_destination_has_any_are_all_there() {
    crate::only_on_standins!("its engine");
    let world = World::new().await;
    world.both("CREATE TABLE dbo.Shift (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)").await;
    world.enable_cdc(&["Shift"]).await;
    capture(&world, |cdc| cdc.key_updates = mssql_standin::cdc::KeyUpdates::UpdatePair);
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.Shift VALUES (4, N'four')").await;
    shop.run("BEGIN TRAN; INSERT INTO dbo.Shift VALUES (3, N'three'); UPDATE dbo.Shift SET ID = ID + 1; COMMIT").await;
    world.map("Shift", "ID", None, true).await;
    let _daemon = world.daemon();
    world.in_sync("dbo.Shift", "ID").await;
}
