//! Full sync: from request to swapped rows.

mod claim;
mod direct;
mod keys;
mod objects;
mod polling;
mod refuse;
mod relations;
mod stages;
mod steps;
mod watch;

use crate::harness::{World, eventually, numbers};

const ITEMS: &str = "CREATE TABLE dbo.Items (ID INT NOT NULL PRIMARY KEY, Name NVARCHAR(50) NULL, Price DECIMAL(18,4) NULL, Resync BIT NOT NULL DEFAULT 0)";

async fn fill(world: &World, rows: usize) {
    world
        .shop()
        .await
        .run(&format!(
            "INSERT INTO dbo.Items (ID, Name, Price) SELECT n, N'item ' + CAST(n AS nvarchar(10)), n / 7.0 FROM {}",
            numbers(rows)
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_differ_are_updated_and_rows_that_are_gone_are_deleted() {
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 3210).await;
    let mut copy = world.copy().await;
    // Stale rows: one that the source lacks, one that differs, one that differs only in case, one
    // only in a trailing blank.
    copy.run("INSERT INTO dbo.Items (ID, Name, Price) VALUES (999999, N'gone', 1), (1, N'other', 2), (2, N'ITEM 2', 0.2857), (3, N'item 3 ', 0.4286)").await;
    let mapping = world.map("Items", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    let run = world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(run.column("records_processed"), ["3210"]);
    let (source, dest) = world.both_tables("dbo.Items", "ID").await;
    assert_eq!(source, dest);
    let staged =
        copy.query("SELECT name FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%'").await;
    assert!(staged.rows.is_empty(), "the staging table is left behind: {staged}");
}

/// The first implementation truncated first: a source that failed during the copy left an empty
/// table, and the request was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_leaves_the_old_rows_and_the_request() {
    let world = World::new().await;
    world.shop().await.script(ITEMS).await;
    // The destination's column is too narrow: refused before anything is touched.
    world.copy().await.script(&ITEMS.replace("NVARCHAR(50)", "NVARCHAR(5)")).await;
    fill(&world, 10).await;
    let mut copy = world.copy().await;
    copy.run("INSERT INTO dbo.Items (ID, Name) VALUES (77, N'old')").await;
    let mapping = world.map("Items", "ID", Some("Resync"), false).await;
    world.shop().await.run("UPDATE dbo.Items SET Resync = 1 WHERE ID = 1").await;
    let daemon = world.daemon();
    let run = world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
    assert!(run.column("error_message")[0].contains("Name"), "the column is named: {run}");
    assert_eq!(copy.scalar("SELECT Name FROM dbo.Items WHERE ID = 77").await, "old");
    let mut control = world.control().await;
    eventually("the error", async || {
        let errors = control
            .query(&format!("SELECT error_type FROM error_logs WHERE mapping_id = {mapping}"))
            .await;
        if errors.first() == "SCHEMA" { Ok(()) } else { Err(errors.to_string()) }
    })
    .await;
    // The operator fixes the column: the request is still there and is fulfilled.
    copy.run("ALTER TABLE dbo.Items ALTER COLUMN Name NVARCHAR(50) NULL").await;
    control.run("UPDATE table_mappings SET updated_at = GETUTCDATE()").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Items", "ID").await;
    let _ = daemon.terminate().await;
}

/// Readers of the destination see the old rows or the new rows while a full sync runs, never an
/// empty or partial table.
#[tokio::test(flavor = "multi_thread")]
async fn readers_never_see_an_empty_or_half_filled_table() {
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 5000).await;
    let mapping = world.map("Items", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("UPDATE dbo.Items SET Price = Price + 1").await;
    let mut copy = world.copy().await;
    world.request_full_sync(mapping).await;
    let mut control = world.control().await;
    eventually("the second full sync", async || {
        let count = copy.scalar("SELECT COUNT(*) FROM dbo.Items").await;
        assert_eq!(count, "5000", "a reader saw a table of {count} rows");
        let done = control.scalar(&format!("SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping} AND status = 'COMPLETED'")).await;
        if done == "2" { Ok(()) } else { Err(done) }
    })
    .await;
    world.in_sync("dbo.Items", "ID").await;
    drop(daemon);
}

/// A writer without pauses and a capture job that lags: changes that are committed before, during
/// and after the copy are applied once.
#[tokio::test(flavor = "multi_thread")]
async fn changes_during_the_copy_are_neither_lost_nor_doubled() {
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 20_000).await;
    world.enable_cdc(&["Items"]).await;
    let mapping = world.map("Items", "ID", Some("Resync"), true).await;
    let mut writer = world.shop().await;
    let writing = tokio::spawn(async move {
        for i in 0..400 {
            writer
                .run(&format!("UPDATE dbo.Items SET Price = Price + 1 WHERE ID % 97 = {} ", i % 97))
                .await;
            writer
                .run(&format!("DELETE dbo.Items WHERE ID = {}; INSERT INTO dbo.Items (ID, Name) VALUES ({}, N'late')", 50 * i, 100_000 + i))
                .await;
            // A key that moves past the position of the scan, in both directions.
            writer
                .run(&format!("UPDATE dbo.Items SET ID = ID + 1000000 WHERE ID = {}", 30 * i + 1))
                .await;
            writer
                .run(&format!("UPDATE dbo.Items SET ID = -ID WHERE ID = {}", 20_000 - 30 * i))
                .await;
        }
    });
    world.shop().await.run("UPDATE dbo.Items SET Resync = 1 WHERE ID = 5").await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    writing.await.expect("the writer");
    world.in_sync("dbo.Items", "ID").await;
    let mut control = world.control().await;
    let failed = control.query("SELECT verification_details FROM verification_logs WHERE verification_status = 'FAILED'").await;
    assert!(failed.rows.is_empty(), "a false alarm: {failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mismatch_is_named_at_once_and_nothing_is_touched() {
    let world = World::new().await;
    world
        .shop()
        .await
        .run("CREATE TABLE dbo.M (ID INT NOT NULL PRIMARY KEY, A NVARCHAR(50) NULL, B BIGINT NOT NULL, C DATETIME2(7) NULL)")
        .await;
    world
        .copy()
        .await
        .run("CREATE TABLE dbo.M (ID INT NOT NULL PRIMARY KEY, A NVARCHAR(20) NULL, B INT NOT NULL, C DATETIME NULL, D INT NOT NULL)")
        .await;
    let mapping = world.map("M", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    let run = world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
    let message = run.column("error_message")[0].to_owned();
    for column in ["A", "B", "C", "D"] {
        assert!(
            message.contains(&format!(" {column} "))
                || message.contains(&format!("[{column}]"))
                || message.contains(&format!("{column}:")),
            "{column} is not named in: {message}"
        );
    }
}

/// A row that was deleted and inserted again has the same key and another identity value. No UPDATE
/// can write an identity column, so the row is deleted and inserted.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_another_identity_is_written_anew() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.N (Code NVARCHAR(10) NOT NULL PRIMARY KEY, N INT IDENTITY(1,1) NOT NULL, V INT NULL)").await;
    world.shop().await.run("SET IDENTITY_INSERT dbo.N ON; INSERT INTO dbo.N (Code, N, V) VALUES (N'a', 1, 1), (N'c', 20, 3)").await;
    world
        .copy()
        .await
        .run("SET IDENTITY_INSERT dbo.N ON; INSERT INTO dbo.N (Code, N, V) VALUES (N'a', 1, 1), (N'c', 15, 3), (N'd', 16, 4)")
        .await;
    let mapping = world.map("N", "Code", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let (source, dest) = world.both_tables("dbo.N", "Code").await;
    assert_eq!(source, dest);
}
