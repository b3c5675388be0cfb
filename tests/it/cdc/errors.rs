//! Errors: no change is lost, no transaction is applied in part, and transient errors are retried.

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Phase, Point},
};

use super::{error_of, following, start};
use crate::harness::{
    World,
    blocked_request::{blocked_request, wait_for_arrival},
    numbers,
};

const TABLE: &str = "CREATE TABLE dbo.R (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

/// A deadlock rolls the whole transaction back, and the whole transaction is retried.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again() {
    crate::only_on_standins!("fault points");
    let (world, mapping, _daemon) =
        following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let victim = SqlError::new(
        1205,
        13,
        "Transaction was deadlocked on lock resources with another process and has been chosen as the deadlock victim.",
    );
    let fault = world.dest.faults().once(Point::statement("FROM #net"), Fault::ErrorBefore(victim));
    world
        .shop()
        .await
        .run("INSERT INTO dbo.R VALUES (2, 2), (3, 3); DELETE dbo.R WHERE ID = 1")
        .await;
    world.in_sync("dbo.R", "ID").await;
    assert!(fault.count() > 0);
    world.run_ends(mapping, "CDC", "COMPLETED").await;
}

/// Writing the lag of a mapping may fail (an operator's report locks the table): the changes are
/// applied all the same, and no error says that the source cannot be reached.
#[tokio::test(flavor = "multi_thread")]
async fn a_lag_that_cannot_be_recorded_stops_no_work_and_is_no_error_of_the_source() {
    crate::only_on_standins!("fault points");
    let (world, _, _daemon) = following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let locked = SqlError::new(1222, 16, "Lock request time out period exceeded.");
    let locked_out = world
        .dest
        .faults()
        .always(Point::request("UPDATE l\nSET committed_at"), Fault::ErrorBefore(locked));
    world.shop().await.run("INSERT INTO dbo.R VALUES (2, 2)").await;
    world.in_sync("dbo.R", "ID").await;
    let closed =
        world.dest.faults().once(Point::request("UPDATE l\nSET committed_at"), Fault::CloseBefore);
    locked_out.disarm();
    assert!(closed.fired().await);
    world.shop().await.run("INSERT INTO dbo.R VALUES (3, 3)").await;
    world.in_sync("dbo.R", "ID").await;
    let errors =
        world.control().await.query("SELECT error_type, error_message FROM error_logs").await;
    assert!(errors.rows.is_empty(), "{errors}");
}

/// The error names the key of the row that the destination refuses, and none of its other values.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_row_is_named_by_its_key() {
    let (world, mapping, _daemon) = following(
        "B",
        "CREATE TABLE dbo.B (Shop NVARCHAR(10) NOT NULL, N INT NOT NULL, V NVARCHAR(20) NULL, Price INT NULL, CONSTRAINT PK_B PRIMARY KEY (Shop, N))",
        "INSERT INTO dbo.B VALUES (N'north', 1, N'taken', 1)",
        "Shop, N",
    )
    .await;
    let mut copy = world.copy().await;
    let mut shop = world.shop().await;
    copy.run("ALTER TABLE dbo.B ADD CONSTRAINT CK_B CHECK (Price < 4711)").await;
    shop.run(&format!("INSERT INTO dbo.B SELECT N'south', n, CONCAT(N'v', n), CASE n WHEN 37 THEN 4711 ELSE n END FROM {}", numbers(90)))
        .await;
    let error =
        error_of(&world, mapping, &["CK_B", "the row with key [Shop], [N] = (south, 37)"]).await;
    assert!(!error.contains("4711"), "{error}");
    copy.run(
        "ALTER TABLE dbo.B DROP CONSTRAINT CK_B; ALTER TABLE dbo.B ADD CONSTRAINT UQ_B UNIQUE (V)",
    )
    .await;
    world.in_sync("dbo.B", "Shop, N").await;
    shop.run(
        "BEGIN TRAN; INSERT INTO dbo.B VALUES (N'east', 1, N'free', 1), (N'east', 2, N'Taken', 1), (N'east', 3, N'also free', 1); COMMIT",
    )
    .await;
    let error =
        error_of(&world, mapping, &["UQ_B", "the row with key [Shop], [N] = (east, 2)"]).await;
    assert!(!error.contains("Taken"), "{error}");
    copy.run("ALTER TABLE dbo.B DROP CONSTRAINT UQ_B").await;
    world.in_sync("dbo.B", "Shop, N").await;
    // A trigger of the destination refuses a row.
    copy.run(
        "CREATE TRIGGER dbo.No ON dbo.B AFTER UPDATE AS IF EXISTS (SELECT 1 FROM inserted WHERE N = 50) THROW 51000, N'not this one', 1",
    )
    .await;
    shop.run("UPDATE dbo.B SET Price = 0 WHERE N > 20").await;
    error_of(&world, mapping, &["not this one", "(south, 50)"]).await;
    copy.run("DROP TRIGGER dbo.No").await;
    world.in_sync("dbo.B", "Shop, N").await;
}

/// A memory-optimized table cannot take part in a cross-database transaction: the mapping is refused
/// with an error that says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_memory_optimized_destination_is_refused_by_name() {
    let world = World::new().await;
    world.shop().await.run("CREATE TABLE dbo.M (ID INT NOT NULL PRIMARY KEY)").await;
    world.copy().await.run("CREATE TABLE dbo.M (ID INT NOT NULL PRIMARY KEY NONCLUSTERED) WITH (MEMORY_OPTIMIZED = ON)").await;
    world.enable_cdc(&["M"]).await;
    let mapping = world.map("M", "ID", None, true).await;
    let _daemon = start(&world);
    world.shop().await.run("INSERT INTO dbo.M VALUES (1)").await;
    error_of(&world, mapping, &["memory-optimized"]).await;
}

/// The connection is lost right after the commit. The pass cannot know that it committed, and does
/// not apply the changes twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_lost_after_the_commit_does_no_harm() {
    crate::only_on_standins!("fault points");
    let (world, _, _daemon) = following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let fault =
        world.dest.faults().once(Point::request("the checkpoint is no longer"), Fault::CloseAfter);
    world.shop().await.run("INSERT INTO dbo.R VALUES (2, 2); UPDATE dbo.R SET V = V + 1; DELETE dbo.R WHERE ID = 1").await;
    world.in_sync("dbo.R", "ID").await;
    assert!(fault.count() > 0);
}

/// Another process moves the checkpoint before a transaction commits: the transaction is rolled
/// back, and an error says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_another_process_moved_rolls_the_transaction_back() {
    crate::only_on_standins!("fault points");
    let (world, mapping, _daemon) =
        following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().once(Point::request("the checkpoint is no longer"), block);
    world.shop().await.run("INSERT INTO dbo.R VALUES (2, 2)").await;
    wait_for_arrival(arrived).await;
    world
        .control()
        .await
        .run("UPDATE table_mappings SET last_cdc_lsn = 0x00000000000000000001")
        .await;
    release.send(()).expect("the transaction waits");
    error_of(&world, mapping, &["the checkpoint is no longer what it was"]).await;
    // The two checkpoints differ now. That is a gap, and a full sync closes it.
    world.in_sync("dbo.R", "ID").await;
}
