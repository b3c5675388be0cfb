//! Keys that the two sides take for something else.

use super::{command::verify, rows};
use crate::harness::{World, eventually};

/// Two spellings of a key are one row where the source compares without case, and two where the destination compares bytes.
#[tokio::test(flavor = "multi_thread")]
async fn another_spelling_of_a_key_is_told_apart_and_mended() {
    let world = World::new().await;
    let table = |collation| format!("CREATE TABLE dbo.S (Code VARCHAR(10) COLLATE {collation} NOT NULL PRIMARY KEY, N INT NULL)");
    world.shop().await.run(&table("SQL_Latin1_General_CP1_CI_AS")).await;
    world.copy().await.run(&table("Latin1_General_BIN2")).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.S VALUES ('alpha', 1), ('Beta', 2), ('gamma', 3), ('Zeta', 4)").await;
    world.enable_cdc(&["S"]).await;
    let mapping = world.map("S", "Code", None, true).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_ROWS", "2"), ("DATAFLOW_VERIFY_SWEEP_ROWS", "2")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    rows(&world, mapping, "PASSED", &[]).await;
    // the newest two are not the same two on both sides
    let mut copy = world.copy().await;
    copy.run("UPDATE dbo.S SET Code = 'ALPHA' WHERE N = 1; UPDATE dbo.S SET N = 33 WHERE N = 3").await;
    rows(&world, mapping, "FAILED", &["only in source (1): alpha", "only in destination (1): ALPHA", "different (1): gamma"]).await;
    let (code, said) = verify(&world, &["--full", "--repair"]).await;
    assert_eq!(code, Some(0), "{said}");
    eventually("both sides to be equal", async || {
        let (left, right) =
            (shop.query("SELECT Code, N FROM dbo.S ORDER BY N").await, copy.query("SELECT Code, N FROM dbo.S ORDER BY N").await);
        if left == right { Ok(()) } else { Err(right.to_string()) }
    })
    .await;
}

/// And the other way round: what differs in case is one row at the destination, whose spelling is put right in place.
#[tokio::test(flavor = "multi_thread")]
async fn a_spelling_is_mended_in_place_where_the_destination_knows_no_case() {
    let world = World::new().await;
    let table = |collation| format!("CREATE TABLE dbo.S (Code VARCHAR(10) COLLATE {collation} NOT NULL PRIMARY KEY, N INT NULL)");
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
    let table =
        |id, code| format!("CREATE TABLE dbo.W (ID {id} NOT NULL, Code VARCHAR({code}) NOT NULL, N INT NULL, PRIMARY KEY (ID, Code))");
    world.shop().await.run(&table("SMALLINT", 3)).await;
    world.copy().await.run(&table("BIGINT", 30)).await;
    world.shop().await.run("INSERT INTO dbo.W VALUES (1, 'abc', 1), (2, 'def', 2)").await;
    world.enable_cdc(&["W"]).await;
    let mapping = world.map("W", "ID, Code", None, true).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.copy().await.run("INSERT INTO dbo.W VALUES (5000000000, 'abc', 1), (1, 'abcd', 1)").await;
    rows(&world, mapping, "FAILED", &["only in destination (2): (1, abcd), (5000000000, abc)"]).await;
    let _ = daemon.terminate().await;
    let _daemon = world.daemon_with(&[("DATAFLOW_REPAIR", "on")]);
    rows(&world, mapping, "PASSED", &[]).await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.W").await, "2");
}
