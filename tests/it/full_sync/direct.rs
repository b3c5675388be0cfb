//! Full syncs in mode DIRECT: the destination table is truncated and loaded.

use mssql_standin::fault::{Fault, Point};
use std::time::Duration;

use crate::harness::{World, eventually, numbers};

const TABLES: &str = "CREATE TABLE dbo.Big (ID INT IDENTITY(1,1) NOT NULL PRIMARY KEY, Price MONEY NULL, At DATETIMEOFFSET(3) NULL, Doc XML NULL, T TIME(0) NULL)
GO
CREATE TABLE dbo.Parent (ID INT NOT NULL PRIMARY KEY, Name NVARCHAR(50) NOT NULL)
GO
CREATE TABLE dbo.Child (ID INT NOT NULL PRIMARY KEY, ParentID INT NULL CONSTRAINT FK_Child REFERENCES dbo.Parent (ID))
GO";

async fn mapped(world: &World, table: &str, cdc: bool) -> i32 {
    let mapping = world.map(table, "ID", None, cdc).await;
    world
        .control()
        .await
        .run(&format!(
            "UPDATE table_mappings SET full_sync_mode = 'DIRECT' WHERE mapping_id = {mapping}"
        ))
        .await;
    world.request_full_sync(mapping).await;
    mapping
}

async fn filled() -> World {
    let world = World::new().await;
    world.both(TABLES).await;
    let mut shop = world.shop().await;
    shop.run(&format!(
        "INSERT INTO dbo.Big (Price, At, Doc, T) SELECT n / 100.0, DATEADD(minute, n, CAST('2024-01-01T00:00:00 +02:00' AS datetimeoffset(3))), \
         N'<a n=\"' + CAST(n AS nvarchar(10)) + N'\"/>', '12:34:56' FROM {}; \
         INSERT INTO dbo.Parent SELECT n, N'parent' FROM {}",
        numbers(4500),
        numbers(2500)
    ))
    .await;
    let mut copy = world.copy().await;
    copy.run("INSERT INTO dbo.Big (Price) VALUES (1), (2); INSERT INTO dbo.Parent VALUES (3, N'old'), (9999, N'gone')").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_loaded_and_cdc_goes_on_from_the_start_of_the_copy() {
    crate::only_on_standins!("fault points");
    let world = filled().await;
    world.enable_cdc(&["Big"]).await;
    let mapping = mapped(&world, "Big", true).await;
    // SQL Server refuses TRUNCATE for a table that a foreign key refers to, even if it is empty
    let parent = mapped(&world, "Parent", false).await;
    let copying = world.dest.faults().nth(
        Point::request("BULK LOAD"),
        3,
        Fault::Delay(Duration::from_millis(500)),
    );
    let _daemon = world.daemon();
    assert!(copying.fired().await);
    let mut shop = world.shop().await;
    shop.run("UPDATE dbo.Big SET Price = Price + 1 WHERE ID % 100 = 0; DELETE dbo.Big WHERE ID IN (7, 4400); INSERT INTO dbo.Big (Price) VALUES (-1)").await;
    let run = world.run_ends(parent, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(run.column("records_processed"), ["2500"]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Big", "ID").await;
    world.in_sync("dbo.Parent", "ID").await;
    shop.run("UPDATE dbo.Big SET T = '01:02:03' WHERE ID < 10").await;
    world.in_sync("dbo.Big", "ID").await;
    let mut copy = world.copy().await;
    assert_eq!(
        copy.scalar(
            "SELECT CAST(is_not_trusted AS int) + CAST(is_disabled AS int) FROM sys.foreign_keys"
        )
        .await,
        "0"
    );
    copy.run("INSERT INTO dbo.Big (Price) VALUES (5)").await;
    assert_eq!(
        copy.scalar("SELECT MAX(ID) FROM dbo.Big").await,
        "4502",
        "the identity's next value"
    );
    let staged =
        copy.query("SELECT name FROM sys.tables WHERE name LIKE 'dbaops_dataflow_stage%'").await;
    assert!(staged.rows.is_empty(), "{staged}");
}

/// A source table that cannot be read leaves the destination unchanged; an empty one empties it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_truncated_before_the_source_has_answered() {
    crate::only_on_standins!("fault points");
    let world = filled().await;
    let broken =
        world.source.faults().always(Point::request("FROM [dbo].[Big] AS s"), Fault::CloseBefore);
    let mapping = mapped(&world, "Big", false).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "ERROR").await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.Big").await, "2");
    world.shop().await.run("DELETE dbo.Big").await;
    broken.disarm();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(world.copy().await.scalar("SELECT COUNT(*) FROM dbo.Big").await, "0");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_was_killed_is_done_again() {
    crate::only_on_standins!("fault points");
    let world = filled().await;
    let mapping = mapped(&world, "Big", false).await;
    let copying = world.dest.faults().nth(
        Point::request("BULK LOAD"),
        3,
        Fault::Delay(Duration::from_millis(500)),
    );
    let daemon = world.daemon_with(&[("DATAFLOW_BATCH_SIZE", "700")]);
    assert!(copying.fired().await);
    daemon.kill().await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Big", "ID").await;
    let pending = eventually("the request to be done", async || {
        let pending = world
            .control()
            .await
            .scalar("SELECT COUNT(*) FROM table_mappings WHERE full_sync_pending_at IS NOT NULL")
            .await;
        if pending == "0" { Ok(pending) } else { Err(pending) }
    });
    pending.await;
}
