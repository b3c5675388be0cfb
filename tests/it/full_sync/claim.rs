//! Requests of full syncs: each is fulfilled once.

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Phase, Point},
};

use super::{ITEMS, fill};
use crate::harness::{
    World,
    blocked_request::{blocked_request, wait_for_arrival},
    eventually,
};

/// The request of the one mapping: `full_sync_requested`, and whether a claimed one is pending.
async fn request(world: &World) -> Vec<String> {
    let mapping = world
        .control()
        .await
        .query("SELECT CAST(full_sync_requested AS int), CASE WHEN full_sync_pending_at IS NULL THEN 'none' ELSE 'pending' END FROM table_mappings")
        .await;
    mapping.rows[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_made_during_the_copy_is_another_one() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 3000).await;
    let mapping = world.map("Items", "ID", Some("Resync"), false).await;
    let (block, arrived, release) = blocked_request(Phase::Before);
    world.dest.faults().nth(Point::request("BULK LOAD"), 2, block);
    let mut shop = world.shop().await;
    shop.run("UPDATE dbo.Items SET Resync = 1 WHERE ID % 2 = 0").await;
    let _daemon = world.daemon();
    wait_for_arrival(arrived).await;
    // The request is claimed, and its trigger reset at the source, before the copy begins: the copied
    // rows have 0 in the trigger column.
    assert_eq!(request(&world).await, ["0", "pending"]);
    assert_eq!(shop.scalar("SELECT COUNT(*) FROM dbo.Items WHERE Resync = 1").await, "0");
    world.request_full_sync(mapping).await;
    release.send(()).expect("the copy waits");
    eventually("the second full sync", async || {
        let mut control = world.control().await;
        let done = control.scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC' AND status = 'COMPLETED'").await;
        if done == "2" { Ok(()) } else { Err(done) }
    })
    .await;
    assert_eq!(request(&world).await, ["0", "none"]);
    world.in_sync("dbo.Items", "ID").await;
}

/// A trigger of the source fires for every UPDATE, also for one that changes no row, and its own
/// INSERT reports a row count.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_trigger_are_not_taken_for_rows_that_were_reset() {
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 10).await;
    let mut shop = world.shop().await;
    shop.script(
        "CREATE TABLE dbo.Audit (At INT IDENTITY(1,1) PRIMARY KEY, N INT NOT NULL)\nGO\n\
         CREATE TRIGGER dbo.tr_items ON dbo.Items AFTER UPDATE AS INSERT INTO dbo.Audit (N) SELECT COUNT(*) FROM inserted\nGO\n\
         UPDATE dbo.Items SET Resync = 1 WHERE ID = 7",
    )
    .await;
    let mapping = world.map("Items", "ID", Some("Resync"), false).await;
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Items", "ID").await;
    assert_eq!(
        shop.query("SELECT N FROM dbo.Audit ORDER BY At").await.column("N"),
        ["1", "1", "0"],
        "row counts of the set, of the reset, and of an UPDATE without rows"
    );
}

/// A trigger that cannot be reset starts one full sync and reports one error, not one per tick. A
/// value of 1 counts as a request again after the column was read as 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_cannot_be_reset_is_one_request() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 10).await;
    let mapping = world.map("Items", "ID", Some("Resync"), false).await;
    let denied = SqlError::new(
        229,
        14,
        "The UPDATE permission was denied on the object 'Items', database 'Shop', schema 'dbo'.",
    );
    let denied =
        world.source.faults().always(Point::request("UPDATE TOP"), Fault::ErrorBefore(denied));
    let mut shop = world.shop().await;
    shop.run("UPDATE dbo.Items SET Resync = 1 WHERE ID = 5").await;
    world.source.log_statements(true);
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    more_trigger_polls(&world).await;
    let mut control = world.control().await;
    assert_eq!(
        control.scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC'").await,
        "1"
    );
    let errors = control.query("SELECT error_message, error_details FROM error_logs").await;
    assert_eq!(errors.rows.len(), 1, "{errors}");
    assert!(errors.first().contains("GRANT UPDATE"), "{errors}");
    for expected in [
        "kind Permission",
        "ignored until it was 0",
        "what to do: GRANT UPDATE",
        "permission was denied",
    ] {
        assert!(errors.rows[0][1].contains(expected), "{expected} is not in {errors}");
    }
    assert_eq!(
        control.scalar("SELECT COUNT(*) FROM v_recent_errors").await,
        "1",
        "the error stays open as long as the trigger cannot be reset"
    );
    denied.disarm();
    shop.run("UPDATE dbo.Items SET Resync = 0").await;
    eventually("the error to be resolved", async || {
        match control.scalar("SELECT COUNT(*) FROM v_recent_errors").await.as_str() {
            "0" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    shop.run("UPDATE dbo.Items SET Resync = 1 WHERE ID = 6").await;
    eventually("the next full sync", async || {
        let done = control.scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC' AND status = 'COMPLETED'").await;
        if done == "2" { Ok(()) } else { Err(done) }
    })
    .await;
    assert_eq!(shop.scalar("SELECT COUNT(*) FROM dbo.Items WHERE Resync = 1").await, "0");
}

/// Waits until the trigger column has been read five more times since now.
async fn more_trigger_polls(world: &World) {
    let polls = || {
        world
            .source
            .statements()
            .iter()
            .filter(|statement| statement.text.contains("[Resync] = 1)"))
            .count()
    };
    let before = polls();
    eventually("more polls of the trigger column", async || {
        if polls() >= before + 5 { Ok(()) } else { Err(polls().to_string()) }
    })
    .await;
}

/// The trigger of a read-only source (a readable secondary, a READ_ONLY database) cannot be reset:
/// the table is copied once, not at every tick.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_source_is_copied_once() {
    crate::only_on_standins!("its log of statements and connections");
    let world = World::new().await;
    world.both(ITEMS).await;
    fill(&world, 10).await;
    let mapping = world.map("Items", "ID", Some("Resync"), false).await;
    world.shop().await.run("UPDATE dbo.Items SET Resync = 1 WHERE ID = 5").await;
    world.source("master").await.run("ALTER DATABASE Shop SET READ_ONLY").await;
    world.source.log_statements(true);
    let _daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    more_trigger_polls(&world).await;
    let mut control = world.control().await;
    assert_eq!(
        control.scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC'").await,
        "1"
    );
    let errors = control.query("SELECT error_message FROM error_logs").await;
    assert_eq!(errors.rows.len(), 1, "{errors}");
    assert!(errors.first().contains("cannot be reset"), "{errors}");
    world.in_sync("dbo.Items", "ID").await;
}
