//! Keys that the source and the destination compare differently.

use super::{command::verify, rows};
use crate::harness::{World, eventually};

/// Two spellings of a key are one row at the source, which ignores case, and two rows at the
/// destination, which compares bytes.
#[tokio::test(flavor = "multi_thread")]
async fn another_spelling_of_a_key_is_found_and_repaired() {
    let world = World::new().await;
    let table = |collation| {
        format!(
            "CREATE TABLE dbo.S (Code VARCHAR(10) COLLATE {collation} NOT NULL PRIMARY KEY, N INT NULL)"
        )
    };
    world.shop().await.run(&table("SQL_Latin1_General_CP1_CI_AS")).await;
    world.copy().await.run(&table("Latin1_General_BIN2")).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.S VALUES ('alpha', 1), ('Beta', 2), ('gamma', 3), ('Zeta', 4)").await;
    world.enable_cdc(&["S"]).await;
    let mapping = world.map("S", "Code", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon =
        world.daemon_with(&[("DATAFLOW_VERIFY_ROWS", "2"), ("DATAFLOW_VERIFY_SWEEP_ROWS", "2")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    rows(&world, mapping, "PASSED", &[]).await;
    // the two newest keys, by each server's order, are not the same at the source and destination
    let mut copy = world.copy().await;
    copy.run("UPDATE dbo.S SET Code = 'ALPHA' WHERE N = 1; UPDATE dbo.S SET N = 33 WHERE N = 3")
        .await;
    rows(
        &world,
        mapping,
        "FAILED",
        &["only in source (1): alpha", "only in destination (1): ALPHA", "different (1): gamma"],
    )
    .await;
    let (code, printed) = verify(&world, &["--full", "--repair"]).await;
    assert_eq!(code, Some(0), "{printed}");
    eventually("both tables to be equal", async || {
        let (source, dest) = (
            shop.query("SELECT Code, N FROM dbo.S ORDER BY N").await,
            copy.query("SELECT Code, N FROM dbo.S ORDER BY N").await,
        );
        if source == dest { Ok(()) } else { Err(dest.to_string()) }
    })
    .await;
}

/// The other way round: spellings that differ in case are one row at the destination. The repair
/// updates its spelling in place.
#[tokio::test(flavor = "multi_thread")]
async fn a_spelling_is_repaired_in_place_where_the_destination_ignores_case() {
    let world = World::new().await;
    let table = |collation| {
        format!(
            "CREATE TABLE dbo.S (Code VARCHAR(10) COLLATE {collation} NOT NULL PRIMARY KEY, N INT NULL)"
        )
    };
    world.shop().await.run(&table("Latin1_General_BIN2")).await;
    world.copy().await.run(&table("SQL_Latin1_General_CP1_CI_AS")).await;
    world
        .copy()
        .await
        .run("CREATE TABLE dbo.Uses (Code VARCHAR(10) COLLATE SQL_Latin1_General_CP1_CI_AS NOT NULL REFERENCES dbo.S (Code))")
        .await;
    world.shop().await.run("INSERT INTO dbo.S VALUES ('alpha', 1), ('Beta', 2)").await;
    world.enable_cdc(&["S"]).await;
    let mapping = world.map("S", "Code", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_REPAIR", "on")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.copy().await.run("INSERT INTO dbo.Uses VALUES ('beta')").await;
    world.copy().await.run("UPDATE dbo.S SET Code = 'BETA' WHERE N = 2").await;
    eventually("the source's spelling", async || {
        let code = world.copy().await.scalar("SELECT Code FROM dbo.S WHERE N = 2").await;
        if code == "Beta" { Ok(()) } else { Err(code) }
    })
    .await;
    rows(&world, mapping, "PASSED", &[]).await;
}

/// The destination's key columns are wider, and rows there have keys that the source's types cannot
/// hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_source_cannot_hold_is_only_at_the_destination() {
    let world = World::new().await;
    let table = |id, code| {
        format!(
            "CREATE TABLE dbo.W (ID {id} NOT NULL, Code VARCHAR({code}) NOT NULL, N INT NULL, PRIMARY KEY (ID, Code))"
        )
    };
    world.shop().await.run(&table("SMALLINT", 3)).await;
    world.copy().await.run(&table("BIGINT", 30)).await;
    world.shop().await.run("INSERT INTO dbo.W VALUES (1, 'abc', 1), (2, 'def', 2)").await;
    world.enable_cdc(&["W"]).await;
    let mapping = world.map("W", "ID, Code", None, true).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.copy().await.run("INSERT INTO dbo.W VALUES (5000000000, 'abc', 1), (1, 'abcd', 1)").await;
    rows(&world, mapping, "FAILED", &["only in destination (2): (1, abcd), (5000000000, abc)"])
        .await;
    let _ = daemon.terminate().await;
    let _daemon = world.daemon_with(&[("DATAFLOW_REPAIR", "on")]);
    rows(&world, mapping, "PASSED", &[]).await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.W").await, "2");
}

/// Two keys of the source are equal at the destination, which has the row of one of them: a repair
/// does not overwrite it with the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_not_repaired_over_another_keys() {
    let world = World::new().await;
    let table = |collation| {
        format!(
            "CREATE TABLE dbo.S (Code NVARCHAR(10) COLLATE {collation} NOT NULL PRIMARY KEY, N INT NULL)"
        )
    };
    world.shop().await.run(&table("Latin1_General_BIN2")).await;
    world.copy().await.run(&table("Latin1_General_CI_AS")).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.S VALUES (N'œ', 1), (N'oe', 2), (N'x', 3)").await;
    world.copy().await.run("INSERT INTO dbo.S VALUES (N'œ', 1)").await;
    world.enable_cdc(&["S"]).await;
    let mapping = world.map("S", "Code", None, true).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_REPAIR", "on")]);
    rows(
        &world,
        mapping,
        "FAILED",
        &[
            "only in source (1): oe",
            "repaired 0 of 1",
            "takes [Code] = œ and [Code] = oe for one key",
        ],
    )
    .await;
    let there = world.copy().await.query("SELECT Code, N FROM dbo.S ORDER BY N").await;
    assert_eq!(there.rows, [["œ", "1"], ["x", "3"]]);
}

/// Ranges of varchar keys are read in the order of the source's code page and collation, whatever
/// collation the destination has.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_read_in_the_sources_code_page() {
    let world = World::new().await;
    world.shop().await.run("CREATE TABLE dbo.S (Code VARCHAR(10) COLLATE Cyrillic_General_CI_AS NOT NULL PRIMARY KEY, N INT NULL)").await;
    world.copy().await.run("CREATE TABLE dbo.S (Code NVARCHAR(10) COLLATE Latin1_General_CI_AS NOT NULL PRIMARY KEY, N INT NULL)").await;
    world
        .shop()
        .await
        .run("INSERT INTO dbo.S VALUES (N'Ан', 1), (N'Бо', 2), (N'Ва', 3), (N'Жу', 4), (N'Эд', 5)")
        .await;
    world.enable_cdc(&["S"]).await;
    let mapping = world.map("S", "Code", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon =
        world.daemon_with(&[("DATAFLOW_VERIFY_ROWS", "1"), ("DATAFLOW_VERIFY_SWEEP_ROWS", "2")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    rows(&world, mapping, "PASSED", &[]).await;
    world.copy().await.run("INSERT INTO dbo.S VALUES (N'Га', 9)").await;
    rows(&world, mapping, "FAILED", &["only in destination (1): Га"]).await;
}
