//! Errors: nothing is lost, nothing is half done, and what passes is tried again.

use std::time::Duration;

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
};

use super::{error_of, following};

const TABLE: &str = "CREATE TABLE dbo.R (ID INT NOT NULL PRIMARY KEY, V INT NULL)";

/// A deadlock takes the whole transaction back; it is tried again whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again() {
    let (world, mapping, _daemon) = following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let victim = SqlError::new(
        1205,
        13,
        "Transaction was deadlocked on lock resources with another process and has been chosen as the deadlock victim.",
    );
    let fault = world.dest.faults().once(Point::statement("FROM #net"), Fault::ErrorBefore(victim));
    world.shop().await.run("INSERT INTO dbo.R VALUES (2, 2), (3, 3); DELETE dbo.R WHERE ID = 1").await;
    world.in_sync("dbo.R", "ID").await;
    assert!(fault.count() > 0);
    world.run_ends(mapping, "CDC", "COMPLETED").await;
}

/// The connection is lost right after the commit: the pass does not know, and does nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_lost_after_the_commit_does_no_harm() {
    let (world, _, _daemon) = following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let fault = world.dest.faults().once(Point::request("the checkpoint is no longer"), Fault::CloseAfter);
    world.shop().await.run("INSERT INTO dbo.R VALUES (2, 2); UPDATE dbo.R SET V = V + 1; DELETE dbo.R WHERE ID = 1").await;
    world.in_sync("dbo.R", "ID").await;
    assert!(fault.count() > 0);
}

/// Another process moves the checkpoint while a transaction is on its way: nothing of it stays, and it is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_somebody_else_moved_fences_the_transaction() {
    let (world, mapping, _daemon) = following("R", TABLE, "INSERT INTO dbo.R VALUES (1, 1)", "ID").await;
    let fault = world.dest.faults().once(Point::request("the checkpoint is no longer"), Fault::Delay(Duration::from_millis(700)));
    world.shop().await.run("INSERT INTO dbo.R VALUES (2, 2)").await;
    assert!(fault.fired().await);
    world.control().await.run("UPDATE table_mappings SET last_cdc_lsn = 0x00000000000000000001").await;
    error_of(&world, mapping, &["the checkpoint is no longer what it was"]).await;
    // The two checkpoints differ now, which is a gap, which a full sync mends.
    world.in_sync("dbo.R", "ID").await;
}
