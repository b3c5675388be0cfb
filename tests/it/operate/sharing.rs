//! Several daemons on one control database: they share the mappings, and no daemon touches a mapping
//! that another one owns.

use std::time::Duration;

use mssql_standin::fault::{Fault, Point};

use crate::harness::{Daemon, Sql, World, daemon::command, eventually, numbers};

const NO_VERIFICATION: &[(&str, &str)] = &[("DATAFLOW_VERIFY_INTERVAL", "0")];

/// How many mappings each daemon owns, by the application locks that the server lists.
async fn shares(control: &mut Sql) -> Vec<String> {
    let locks = control
        .query(
            "SELECT COUNT(*) AS owned FROM sys.dm_tran_locks WHERE resource_type = N'APPLICATION' \
             AND resource_description LIKE N'%dataflow/mapping/%' GROUP BY request_session_id ORDER BY 1",
        )
        .await;
    locks.column("owned").into_iter().map(str::to_owned).collect()
}

/// Waits until the daemons own these numbers of mappings.
async fn wait_for_shares(control: &mut Sql, expected: &[&str]) {
    eventually(&format!("the daemons to own {expected:?} mappings"), async || {
        let shares = shares(control).await;
        if shares == expected { Ok(()) } else { Err(format!("{shares:?}")) }
    })
    .await;
}

/// The session id of the lease connection that has a mapping's lock.
async fn lease_session(control: &mut Sql, mapping: i32) -> u16 {
    control
        .scalar(&format!(
            "SELECT request_session_id FROM sys.dm_tran_locks WHERE resource_type = N'APPLICATION' \
             AND resource_description LIKE N'%dataflow/mapping/{mapping}]%'"
        ))
        .await
        .parse()
        .expect("an owner")
}

/// Creates and maps `Big` and `Small` and requests their full syncs; `Big` is locked at the source, so
/// that its copy cannot begin. Returns both mapping ids and the session with the lock.
async fn big_and_small(world: &World) -> (i32, i32, Sql) {
    world.both("CREATE TABLE dbo.Big (ID INT NOT NULL PRIMARY KEY, V INT NULL)\nGO\nCREATE TABLE dbo.Small (ID INT NOT NULL PRIMARY KEY, V INT NULL)").await;
    let mut shop = world.shop().await;
    shop.run(&format!("INSERT INTO dbo.Big SELECT n, n FROM {}", numbers(3500))).await;
    shop.run("INSERT INTO dbo.Small VALUES (1, 1)").await;
    let big = world.map("Big", "ID", None, false).await;
    let small = world.map("Small", "ID", None, false).await;
    world.request_full_sync(big).await;
    world.request_full_sync(small).await;
    shop.run(
        "BEGIN TRANSACTION; DECLARE @n int; SELECT @n = COUNT(*) FROM dbo.Big WITH (TABLOCKX)",
    )
    .await;
    (big, small, shop)
}

/// Waits until the copy of `Big` has its staging table and waits for the source.
async fn copy_waits(world: &World) {
    let mut copy = world.copy().await;
    eventually("the staging table of Big", async || {
        let stages = copy
            .scalar(
                "SELECT COUNT(*) FROM sys.tables WHERE name LIKE N'dbaops[_]dataflow[_]stage[_]%'",
            )
            .await;
        if stages == "1" { Ok(()) } else { Err(stages) }
    })
    .await;
}

async fn runs(control: &mut Sql, mapping: i32) -> Vec<String> {
    let runs = control
        .query(&format!(
            "SELECT CONCAT(status, N' ', error_message) AS run FROM sync_status WHERE mapping_id = {mapping} AND sync_type = N'FULL_SYNC' ORDER BY status_id"
        ))
        .await;
    runs.column("run").into_iter().map(|run| run.trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_daemons_divide_the_mappings_and_two_take_over_from_one_that_is_killed() {
    let world = World::new().await;
    let tables = ["A", "B", "C", "D", "E", "F"];
    for table in tables {
        world
            .both(&format!("CREATE TABLE dbo.{table} (ID INT NOT NULL PRIMARY KEY, V INT NULL)"))
            .await;
        world
            .shop()
            .await
            .run(&format!("INSERT INTO dbo.{table} SELECT n, 0 FROM {}", numbers(50)))
            .await;
    }
    world.enable_cdc(&tables).await;
    let mut mappings = Vec::new();
    for table in tables {
        mappings.push(world.map(table, "ID", None, true).await);
    }
    world.control().await.run("UPDATE table_mappings SET full_sync_requested = 1").await;
    let mut daemons: Vec<Daemon> = (0..3).map(|_| world.daemon_with(NO_VERIFICATION)).collect();
    let mut control = world.control().await;
    wait_for_shares(&mut control, &["2", "2", "2"]).await;
    for mapping in &mappings {
        world.run_ends(*mapping, "FULL_SYNC", "COMPLETED").await;
    }
    let mut shop = world.shop().await;
    for round in 1..=12 {
        for table in tables {
            shop.run(&format!(
                "UPDATE dbo.{table} SET V = {round} WHERE ID % 5 = {round} % 5; INSERT INTO dbo.{table} VALUES ({round} + 1000, {round}); DELETE dbo.{table} WHERE ID = {round}"
            ))
            .await;
        }
        if round == 6 {
            daemons.remove(0).kill().await;
        }
    }
    wait_for_shares(&mut control, &["3", "3"]).await;
    for table in tables {
        world.in_sync(&format!("dbo.{table}"), "ID").await;
    }
    for mapping in &mappings {
        let completed =
            runs(&mut control, *mapping).await.iter().filter(|run| *run == "COMPLETED").count();
        assert_eq!(completed, 1, "mapping {mapping} was asked for one full sync");
    }
    assert_eq!(control.scalar("SELECT COUNT(*) FROM error_logs").await, "0");
    // The last daemon owns all mappings.
    daemons.remove(0).terminate().await;
    wait_for_shares(&mut control, &["6"]).await;
    shop.run("UPDATE dbo.A SET V = -1; UPDATE dbo.F SET V = -1").await;
    world.in_sync("dbo.A", "ID").await;
    world.in_sync("dbo.F", "ID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_joins_leaves_the_others_work_alone_and_takes_over_what_a_killed_one_left() {
    let world = World::new().await;
    let (big, small, mut shop) = big_and_small(&world).await;
    let first = world.daemon_with(NO_VERIFICATION);
    copy_waits(&world).await;
    world.run_ends(small, "FULL_SYNC", "COMPLETED").await;
    let second = world.daemon_with(NO_VERIFICATION);
    let mut control = world.control().await;
    wait_for_shares(&mut control, &["1", "1"]).await;
    // The second daemon owns Small now; the run and the staging table of Big still belong to the
    // first one.
    world.request_full_sync(small).await;
    eventually("the second daemon's full sync of Small", async || {
        let runs = runs(&mut control, small).await;
        if runs == ["COMPLETED", "COMPLETED"] { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    assert_eq!(runs(&mut control, big).await, ["RUNNING"]);
    copy_waits(&world).await;

    first.kill().await;
    wait_for_shares(&mut control, &["2"]).await;
    eventually("Big's run to be interrupted and begun anew", async || {
        let runs = runs(&mut control, big).await;
        if runs == ["ERROR interrupted", "RUNNING"] { Ok(()) } else { Err(format!("{runs:?}")) }
    })
    .await;
    shop.run("ROLLBACK TRANSACTION").await;
    world.run_ends(big, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Big", "ID").await;
    assert_eq!(runs(&mut control, big).await, ["ERROR interrupted", "COMPLETED"]);
    let (status, output) = second.terminate().await;
    assert!(status.success(), "{output}");
}

/// The lease connection breaks while a full sync runs: the full sync stops at its next batch, and the
/// next owner of the mapping does it from the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn work_stops_at_the_next_batch_when_its_lease_is_lost() {
    crate::only_on_standins!("a connection that is ended from outside");
    let world = World::new().await;
    let (big, small, mut shop) = big_and_small(&world).await;
    let daemon = world.daemon_with(NO_VERIFICATION);
    copy_waits(&world).await;
    world.run_ends(small, "FULL_SYNC", "COMPLETED").await;
    let mut control = world.control().await;
    let lease = lease_session(&mut control, big).await;
    assert!(world.dest.kill(lease));
    daemon.wait_for_line(&["nothing is synced"]).await;
    shop.run("ROLLBACK TRANSACTION").await;
    world.run_ends(big, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.Big", "ID").await;
    let runs = runs(&mut control, big).await;
    assert!(
        runs[0].starts_with("PAUSED the daemon stops, or the mapping is not its any more"),
        "{runs:?}"
    );
    assert_eq!(runs.last().map(String::as_str), Some("COMPLETED"), "{runs:?}");
    wait_for_shares(&mut control, &["2"]).await;
}

/// The staging table is loaded on another connection than the one with its application lock. When the
/// session with the lock ended during a long copy, another process could once load the same table.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_lock_session_died_stops_at_a_batch_and_its_loading_connection_keeps_others_out()
 {
    crate::only_on_standins!("a connection that is ended from outside");
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)").await;
    world.shop().await.run(&format!("INSERT INTO dbo.T SELECT n FROM {}", numbers(3500))).await;
    let mapping = world.map("T", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    // longer than the interval at which the copy checks that the lock is still there
    let loads = world.dest.faults().once(Point::BulkRows(1), Fault::Delay(Duration::from_secs(5)));
    let _daemon = world.daemon_with(NO_VERIFICATION);
    assert!(loads.fired().await);
    let mut control = world.control().await;
    let lock_session = |resource: &str| {
        format!(
            "SELECT request_session_id FROM sys.dm_tran_locks WHERE resource_type = N'APPLICATION' AND resource_description LIKE N'%dataflow/{resource}]%'"
        )
    };
    let lock: u16 = control
        .scalar(&lock_session(&format!("stage/{mapping}")))
        .await
        .parse()
        .expect("the session with the lock");
    let loading: u16 = control
        .scalar(&lock_session(&format!("stage/{mapping}/load")))
        .await
        .parse()
        .expect("the session that loads");
    assert_ne!(lock, loading);
    assert!(world.dest.kill(lock));
    let mut other = world.copy().await;
    let taken = format!(
        "DECLARE @r int; EXEC @r = sp_getapplock @Resource = N'dbaops-dataflow/stage/{mapping}/load', @LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 0; SELECT @r"
    );
    assert!(
        other.scalar(&taken).await.starts_with('-'),
        "another session can load the staging table while the loading connection is open"
    );
    let runs = eventually("the run to end", async || {
        let runs = runs(&mut control, mapping).await;
        if runs.len() > 1 { Ok(runs) } else { Err(format!("{runs:?}")) }
    })
    .await;
    assert!(runs[0].contains("prove that the staging table is still locked"), "{runs:?}");
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.T", "ID").await;
}

/// A process that lost its lease without noticing may still load its staging table: the next owner
/// neither drops nor loads that table.
#[tokio::test(flavor = "multi_thread")]
async fn a_staging_table_that_another_process_loads_is_left_alone() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1), (2)").await;
    let mapping = world.map("T", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let mut other = world.copy().await;
    other
        .run(&format!(
            "CREATE TABLE dbo.dbaops_dataflow_stage_{mapping} (Mine INT NULL); CREATE TABLE dbo.dbaops_dataflow_stage_999 (Dead INT NULL); \
             EXEC sp_getapplock @Resource = N'dbaops-dataflow/stage/{mapping}', @LockMode = N'Exclusive', @LockOwner = N'Session'"
        ))
        .await;
    let daemon = world.daemon_with(NO_VERIFICATION);
    daemon.wait_for_line(&["another process still fills the staging table"]).await;
    let stages = "SELECT COUNT(*) FROM sys.columns WHERE name IN (N'Mine', N'Dead') AND object_id IN (SELECT object_id FROM sys.tables)";
    assert_eq!(
        other.scalar(stages).await,
        "1",
        "the staging table in use stays, and the unused one is dropped"
    );
    other.run(&format!("EXEC sp_releaseapplock @Resource = N'dbaops-dataflow/stage/{mapping}', @LockOwner = N'Session'")).await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.T", "ID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tick_beside_a_daemon_leaves_and_reports_the_mappings_that_it_owns() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY)").await;
    let mapping = world.map("T", "ID", None, false).await;
    let daemon = world.daemon_with(NO_VERIFICATION);
    let mut control = world.control().await;
    wait_for_shares(&mut control, &["1"]).await;
    let once = command(&world.variables(), &["--once"]).output().await.expect("run");
    let output = String::from_utf8_lossy(&once.stdout).into_owned();
    assert!(once.status.success(), "{output}");
    assert!(
        output.contains("left to the daemon that works on it")
            && output.contains(&format!("mapping_id={mapping}")),
        "{output}"
    );
    drop(daemon);
}
