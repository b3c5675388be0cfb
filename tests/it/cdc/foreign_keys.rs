//! Foreign keys at the destination: every table is applied by a task of its own, so a child row may
//! come before its parent.

use std::time::Duration;

use mssql_standin::fault::{Fault, Point};

use super::{error_of, start, start_with};
use crate::harness::{World, eventually};

const FAMILY: &str = "CREATE TABLE dbo.Parent (ID INT NOT NULL PRIMARY KEY, Name NVARCHAR(20) NULL)
GO
CREATE TABLE dbo.Child (ID INT NOT NULL PRIMARY KEY, ParentID INT NOT NULL CONSTRAINT FK_Child_Parent REFERENCES dbo.Parent (ID))
GO
";

#[tokio::test(flavor = "multi_thread")]
async fn children_wait_for_their_parents() {
    let world = World::new().await;
    world.both(FAMILY).await;
    world.enable_cdc(&["Parent", "Child"]).await;
    // the child's mapping first, so that its task starts first
    let child = world.map("Child", "ID", None, true).await;
    world.map("Parent", "ID", None, true).await;
    let _daemon = start(&world);
    let mut shop = world.shop().await;
    for round in 0..8 {
        let (parent, before) = (round * 10, round * 10 - 10);
        shop.run(&format!(
            "INSERT INTO dbo.Parent VALUES ({parent}, N'p'); INSERT INTO dbo.Child VALUES ({parent}, {parent}), ({parent} + 1, {parent})"
        ))
        .await;
        // the rows of the round before are deleted: children first, as the foreign key requires
        shop.run(&format!(
            "DELETE dbo.Child WHERE ParentID = {before}; DELETE dbo.Parent WHERE ID = {before}"
        ))
        .await;
    }
    world.in_sync("dbo.Parent", "ID").await;
    world.in_sync("dbo.Child", "ID").await;
    let errors = world
        .control()
        .await
        .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {child}"))
        .await;
    assert!(errors.rows.is_empty(), "waiting is no error: {errors}");
}

/// Parents and children are inserted and deleted many times while no daemon runs. Each table then
/// waits for the other at every step, so neither is applied in one pass. A pass that made progress
/// wakes the other mapping at once. (Every step used to wait for the next tick, and was reported as
/// a failure.)
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_wait_for_each_other_do_not_take_a_tick_for_each_step() {
    const GENERATIONS: u32 = 12;
    let world = World::new().await;
    world.both(FAMILY).await;
    world.enable_cdc(&["Parent", "Child"]).await;
    let child = world.map("Child", "ID", None, true).await;
    let parent = world.map("Parent", "ID", None, true).await;
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.Parent VALUES (0, N'p'); INSERT INTO dbo.Child VALUES (0, 0)").await;
    let daemon = start(&world);
    world.in_sync("dbo.Child", "ID").await;
    daemon.terminate().await;
    let mut script = String::new();
    for now in 1..=GENERATIONS {
        let before = now - 1;
        script.push_str(&format!("INSERT INTO dbo.Parent VALUES ({now}, N'p'); INSERT INTO dbo.Child VALUES ({now}, {now});"));
        script.push_str(&format!(
            "DELETE dbo.Child WHERE ParentID = {before}; DELETE dbo.Parent WHERE ID = {before};"
        ));
    }
    shop.run(&script).await;
    for table in ["Parent", "Child"] {
        let captured = (2 * GENERATIONS + 1).to_string();
        eventually(&format!("all changes of {table} to be captured"), async || {
            let rows = shop.scalar(&format!("SELECT COUNT(*) FROM cdc.dbo_{table}_CT")).await;
            if rows == captured { Ok(()) } else { Err(rows) }
        })
        .await;
    }
    // One step per tick would take 24 minutes, longer than the scenario waits.
    let daemon = start_with(
        &world,
        &[("DATAFLOW_CHECK_INTERVAL", "1m"), ("RUST_LOG", "dbaops_dataflow=debug")],
    );
    for table in ["dbo.Parent", "dbo.Child"] {
        world.in_sync(table, "ID").await;
    }
    let mut control = world.control().await;
    let output = daemon.output();
    let waits = output.lines().filter(|line| line.contains("related table")).count();
    assert!(waits > 1, "they did not wait for each other, so this proves nothing: {output}");
    let errors = control
        .query(&format!(
            "SELECT error_message FROM error_logs WHERE mapping_id IN ({child}, {parent})"
        ))
        .await;
    assert!(errors.rows.is_empty(), "waiting is no error: {errors}");
}

/// While the next attempt of a waiting mapping runs, nothing wakes it, and its source is polled no
/// more often than at every tick.
#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_waited_and_runs_long_leaves_its_source_alone() {
    crate::only_on_standins!("fault points");
    const DELAY: Duration = Duration::from_secs(3);
    let world = World::new().await;
    world.both(FAMILY).await;
    world.both("CREATE TABLE dbo.Idle (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["Child", "Idle"]).await;
    let child = world.map("Child", "ID", None, true).await;
    world.map("Idle", "ID", None, true).await;
    let _daemon = start_with(&world, &[("DATAFLOW_CHECK_INTERVAL", "500ms")]);
    world
        .shop()
        .await
        .run("INSERT INTO dbo.Parent VALUES (1, N'p'); INSERT INTO dbo.Child VALUES (1, 1)")
        .await;
    world.run_ends(child, "CDC", "PAUSED").await;
    let delayed = world.dest.faults().once(Point::request("BULK LOAD"), Fault::Delay(DELAY));
    assert!(delayed.fired().await, "the next attempt runs");
    for server in [&world.source, &world.dest] {
        server.log_statements(true);
    }
    let ticks = || {
        world
            .dest
            .statements()
            .iter()
            .filter(|statement| statement.text.contains("FROM dbo.source_servers\nWHERE"))
            .count()
    };
    let polls = || {
        world
            .source
            .statements()
            .iter()
            .filter(|statement| statement.text.contains("AS is_read_only"))
            .count()
    };
    world.copy().await.run("INSERT INTO dbo.Parent VALUES (1, N'p')").await;
    world.in_sync("dbo.Child", "ID").await;
    // once at each tick, and after the rows were applied
    let (polls, ticks) = (polls(), ticks());
    assert!((1..=ticks + 10).contains(&polls), "{polls} polls in {ticks} ticks");
}

/// A tree in one table: parents are inserted and deleted in one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_references_itself() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.Tree (ID INT NOT NULL PRIMARY KEY, Up INT NULL CONSTRAINT FK_Tree REFERENCES dbo.Tree (ID))").await;
    world.enable_cdc(&["Tree"]).await;
    world.map("Tree", "ID", None, true).await;
    let _daemon = start(&world);
    let mut shop = world.shop().await;
    shop.run("INSERT INTO dbo.Tree VALUES (1, NULL), (2, 1), (3, 2), (4, 4)").await;
    world.in_sync("dbo.Tree", "ID").await;
    shop.run(
        "BEGIN TRAN; INSERT INTO dbo.Tree VALUES (9, NULL); UPDATE dbo.Tree SET Up = 9 WHERE Up = 1; DELETE dbo.Tree WHERE ID = 1; COMMIT",
    )
    .await;
    world.in_sync("dbo.Tree", "ID").await;
    shop.run("DELETE dbo.Tree WHERE ID = 3; DELETE dbo.Tree WHERE ID = 2; INSERT INTO dbo.Tree VALUES (2, 9)").await;
    world.in_sync("dbo.Tree", "ID").await;
}

/// Other tables of that database commit all the time. Each commit wakes the mappings that wait;
/// that must neither postpone the error for ever nor fill sync_status.
#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_never_comes_is_one_error_beside_busy_neighbours() {
    let world = World::new().await;
    world.both(FAMILY).await;
    world.both("CREATE TABLE dbo.Busy (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["Child", "Busy"]).await;
    let child = world.map("Child", "ID", None, true).await;
    world.map("Busy", "ID", None, true).await;
    let _daemon = start_with(&world, &[("DATAFLOW_CHECK_INTERVAL", "500ms")]);
    world
        .shop()
        .await
        .run("INSERT INTO dbo.Parent VALUES (1, N'p'); INSERT INTO dbo.Child VALUES (1, 1)")
        .await;
    let mut control = world.control().await;
    let mut shop = world.shop().await;
    let mut id = 0;
    eventually("the one error", async || {
        id += 1;
        shop.run(&format!("INSERT INTO dbo.Busy VALUES ({id})")).await;
        let errors = control
            .query(&format!("SELECT error_message FROM error_logs WHERE mapping_id = {child}"))
            .await;
        if errors.rows.len() == 1 && errors.first().contains("FK_Child_Parent") {
            Ok(())
        } else {
            Err(errors.to_string())
        }
    })
    .await;
    let rows = control
        .scalar(&format!("SELECT COUNT(*) FROM sync_status WHERE mapping_id = {child}"))
        .await;
    assert!(rows.parse().is_ok_and(|rows: usize| rows <= 3), "{rows} rows of a table that waits");
    world.copy().await.run("INSERT INTO dbo.Parent VALUES (1, N'p')").await;
    world.in_sync("dbo.Child", "ID").await;
}

/// A parent that never comes is one error after three attempts. It names the constraint and what to
/// do.
#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_never_comes_is_one_error() {
    let world = World::new().await;
    world.both(FAMILY).await;
    world.enable_cdc(&["Child"]).await;
    let child = world.map("Child", "ID", None, true).await;
    let _daemon = start(&world);
    world
        .shop()
        .await
        .run("INSERT INTO dbo.Parent VALUES (1, N'p'); INSERT INTO dbo.Child VALUES (1, 1)")
        .await;
    let error = error_of(&world, child, &["FK_Child_Parent", "related table"]).await;
    let run = world.run_ends(child, "CDC", "ERROR").await;
    assert_eq!(run.column("records_failed"), ["1"], "{run}");
    let waited = format!(
        "SELECT COUNT(*) FROM sync_logs WHERE mapping_id = {child} AND log_message LIKE N'%will be tried again%'"
    );
    assert_eq!(world.control().await.scalar(&waited).await, "2", "{error}");
    world.copy().await.run("INSERT INTO dbo.Parent VALUES (1, N'p')").await;
    world.in_sync("dbo.Child", "ID").await;
}
