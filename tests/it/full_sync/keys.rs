//! Text keys of full syncs: keys that differ, and keys that are equal, under the destination's type
//! and collation.

use mssql_standin::fault::{Phase, Point};

use crate::{
    cdc::{error_of, start, start_with},
    harness::{
        World,
        blocked_request::{blocked_request, wait_for_arrival},
    },
};

/// Creates the table at both servers, each with its own type of the key column.
async fn tables(world: &World, source: &str, dest: &str) {
    let create =
        |key: &str| format!("CREATE TABLE dbo.K (Code {key} NOT NULL PRIMARY KEY, N INT NULL)");
    world.shop().await.run(&create(source)).await;
    world.copy().await.run(&create(dest)).await;
}

/// Runs the first full sync, and makes these changes after the copy and before the replay.
async fn changed_during_the_copy(world: &World, changes: &str) {
    world.enable_cdc(&["K"]).await;
    let mapping = world.map("K", "Code", None, true).await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().once(Point::request("CREATE UNIQUE INDEX [dbaops_dataflow_key]"), block);
    world.request_full_sync(mapping).await;
    let _daemon = start(world);
    wait_for_arrival(arrived).await;
    world.shop().await.run(changes).await;
    release.send(()).expect("the daemon waits");
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.K", "N").await;
}

/// A replayed insert of 'Straße' was written over the staged 'Strasse', which the swap then
/// deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_during_the_copy_is_not_taken_for_another() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    // an nvarchar key of more than 850 characters does not fit in an index
    let key = "VARCHAR(900) COLLATE SQL_Latin1_General_CP1_CI_AS";
    tables(&world, key, key).await;
    world.copy().await.run("INSERT INTO dbo.K VALUES ('STRASSE', 0), ('gone', 9)").await;
    world
        .shop()
        .await
        .run("INSERT INTO dbo.K VALUES ('Strasse', 1), ('Fuß', 2), (REPLICATE('k', 890), 3)")
        .await;
    changed_during_the_copy(
        &world,
        "INSERT INTO dbo.K VALUES ('Straße', 4), ('fuss', 5), (REPLICATE('K', 889), 6); UPDATE dbo.K SET Code = 'FUß' WHERE N = 2",
    )
    .await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.K").await, "6");
}

/// The source never has two rows at once whose keys are equal at the destination.
#[tokio::test(flavor = "multi_thread")]
async fn texts_that_follow_each_other_during_the_copy_are_no_error() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    tables(
        &world,
        "NVARCHAR(20) COLLATE Latin1_General_BIN2",
        "NVARCHAR(20) COLLATE Latin1_General_CI_AS",
    )
    .await;
    world.copy().await.run("INSERT INTO dbo.K VALUES (N'ANNA', 0)").await;
    world.shop().await.run("INSERT INTO dbo.K VALUES (N'anna', 1), (N'œ', 2), (N'x', 3)").await;
    changed_during_the_copy(
        &world,
        "UPDATE dbo.K SET Code = N'Anna' WHERE N = 1; INSERT INTO dbo.K VALUES (N'oe', 4); DELETE dbo.K WHERE N = 2; DELETE dbo.K WHERE N = 3; \
         INSERT INTO dbo.K VALUES (N'X', 5)",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_the_destination_takes_for_one_are_named() {
    for mode in ["STAGED", "DIRECT"] {
        let world = World::new().await;
        tables(
            &world,
            "NVARCHAR(20) COLLATE Latin1_General_BIN2",
            "NVARCHAR(20) COLLATE Latin1_General_CI_AS",
        )
        .await;
        let mut shop = world.shop().await;
        shop.run("INSERT INTO dbo.K VALUES (N'a', 1), (N'oe', 2), (N'z', 3), (N'œ', 4)").await;
        world.enable_cdc(&["K"]).await;
        let mapping = world.map("K", "Code", None, false).await;
        world
            .control()
            .await
            .run(&format!("UPDATE table_mappings SET full_sync_mode = '{mode}'"))
            .await;
        world.request_full_sync(mapping).await;
        let _daemon = start_with(
            &world,
            &[("DATAFLOW_BATCH_SIZE", "1"), ("DATAFLOW_PARKED_INTERVAL", "200ms")],
        );
        let error = error_of(
            &world,
            mapping,
            &["[Code] = ", "for one key", "the source's type and collation"],
        )
        .await;
        assert!(error.contains("= œ") && error.contains("= oe"), "{error}");
        world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
        if mode == "STAGED" {
            assert_eq!(
                world.copy().await.scalar("SELECT COUNT(*) FROM dbo.K").await,
                "0",
                "the destination is unchanged"
            );
        }
        shop.run("DELETE dbo.K WHERE N = 4").await;
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
        world.in_sync("dbo.K", "N").await;
    }
}
