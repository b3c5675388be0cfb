//! Keys that the two sides take for something else.

use super::{command::verify, rows};
use crate::harness::{World, eventually};

/// Two spellings of a key are one row where the source compares without case, and two where the
/// destination compares bytes.
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
    // the newest two are not the same two on both sides
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
    let (code, said) = verify(&world, &["--full", "--repair"]).await;
    assert_eq!(code, Some(0), "{said}");
    eventually("both sides to be equal", async || {
        let (left, right) = (
            shop.query("SELECT Code, N FROM dbo.S ORDER BY N").await,
            copy.query("SELECT Code, N FROM dbo.S ORDER BY N").await,
        );
        if left == right { Ok(()) } else { Err(right.to_string()) }
    })
    .await;
}

/// And the other way round: what differs in case is one row at the destination, whose spelling is
/// put right in place.
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

/// The destination's type is wider, and somebody wrote what the source cannot hold.
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

/// The destination has one of two keys that it takes for one: a repair does not write the other one
/// over it.
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

/// A code page's text is put in the source's order in that code page, whatever the destination's
/// collation says.
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
