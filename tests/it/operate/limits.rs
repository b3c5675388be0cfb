//! Limits on connections, statements and threads, as the servers count them.

use mssql_standin::fault::{Fault, Point};

use crate::harness::{Daemon, World, eventually, numbers};

const APPLICATION: &str = "dbaops-dataflow";

/// Creates `count` tables `T1`, `T2`, … at both servers with a row each, maps them and requests their
/// full syncs.
async fn tables(world: &World, count: usize) {
    let create: Vec<String> = (1..=count)
        .map(|n| format!("CREATE TABLE dbo.T{n} (ID INT NOT NULL PRIMARY KEY)"))
        .collect();
    world.both(&create.join("\n")).await;
    let fill: Vec<String> =
        (1..=count).map(|n| format!("INSERT INTO dbo.T{n} VALUES (1)")).collect();
    world.shop().await.run(&fill.join("; ")).await;
    world
        .control()
        .await
        .run(&format!(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, full_sync_requested) \
             SELECT 1, N'Shop', CONCAT(N'T', n), N'Copy', CONCAT(N'T', n), N'ID', 1 FROM {}",
            numbers(count)
        ))
        .await;
}

async fn all_synced(world: &World, count: usize) {
    let mut control = world.control().await;
    eventually("every full sync to be done", async || {
        let done = control
            .scalar("SELECT COUNT(DISTINCT mapping_id) FROM sync_status WHERE sync_type = N'FULL_SYNC' AND status = N'COMPLETED'")
            .await;
        if done == count.to_string() { Ok(()) } else { Err(done) }
    })
    .await;
    assert_eq!(control.scalar("SELECT COUNT(*) FROM error_logs").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_than_50_connections_to_the_destination_nor_10_to_a_source() {
    crate::only_on_standins!("its counts of connections and statements");
    let world = World::new().await;
    tables(&world, 60).await;
    let _daemon = world.daemon_with(&[
        ("DATAFLOW_MAX_TASKS", "10000"),
        ("DATAFLOW_VERIFY_CONCURRENCY", "8"),
        ("DATAFLOW_VERIFY_INTERVAL", "1s"),
    ]);
    all_synced(&world, 60).await;
    let (dest, source) = (
        world.dest.connection_count_of(APPLICATION).peak,
        world.source.connection_count_of(APPLICATION).peak,
    );
    assert!(dest <= 50, "{dest} connections to the destination");
    assert!(source <= 10, "{source} connections to the source");
    assert!(source >= 5, "{source} connections: the limit was never approached");
}

/// With the smallest limits that the configuration allows, every mapping is synced.
#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_limits_slow_it_down_and_do_not_stop_it() {
    crate::only_on_standins!("its counts of connections and statements");
    let world = World::new().await;
    tables(&world, 20).await;
    let _daemon = world.daemon_with(&[
        ("DATAFLOW_MAX_CONNECTIONS", "6"),
        ("DATAFLOW_SOURCE_CONNECTIONS", "2"),
        ("DATAFLOW_MAX_TASKS", "100"),
        ("DATAFLOW_VERIFY_INTERVAL", "200ms"),
    ]);
    all_synced(&world, 20).await;
    let (dest, source) = (
        world.dest.connection_count_of(APPLICATION).peak,
        world.source.connection_count_of(APPLICATION).peak,
    );
    assert!(dest <= 6, "{dest} connections to the destination");
    assert!(source <= 2, "{source} connections to the source");
}

/// Full syncs that hang (the source does not answer their SELECTs) keep their connections. Changes of
/// another table of that source are applied all the same.
#[tokio::test(flavor = "multi_thread")]
async fn full_syncs_that_hang_do_not_stop_cdc() {
    crate::only_on_standins!("its counts of connections and statements");
    const TABLES: usize = 40;
    let world = World::new().await;
    world.both("CREATE TABLE dbo.Live (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["Live"]).await;
    world.map("Live", "ID", None, true).await;
    tables(&world, TABLES).await;
    let hanging = world.source.faults().always(Point::request("SELECT s.[ID]"), Fault::HangBefore);
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    assert!(hanging.fired().await);
    let mut control = world.control().await;
    eventually("as many full syncs as may run", async || {
        let running = control.scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = N'FULL_SYNC' AND status = N'RUNNING'").await;
        if running.parse().is_ok_and(|running: usize| running >= 3) { Ok(()) } else { Err(running) }
    })
    .await;
    for id in 1..=5 {
        world.shop().await.run(&format!("INSERT INTO dbo.Live VALUES ({id})")).await;
        world.in_sync("dbo.Live", "ID").await;
    }
    let running: usize = control
        .scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = N'FULL_SYNC'")
        .await
        .parse()
        .expect("a number");
    assert!(running < TABLES / 2, "{running} full syncs run; most should wait for a connection");
    assert!(world.source.connection_count_of(APPLICATION).peak <= 10);
}

/// Five sources that accept logins and answer no request, with ten databases each: together they have
/// more polls than the destination has connections. Another source and the ticks go on.
#[tokio::test(flavor = "multi_thread")]
async fn polls_of_silent_sources_occupy_no_connection_to_the_destination() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    world.both("CREATE TABLE dbo.Live (ID INT NOT NULL PRIMARY KEY)").await;
    world.enable_cdc(&["Live"]).await;
    world.map("Live", "ID", None, true).await;
    let silent = mssql_standin::server::Server::builder()
        .port(0)
        .login(crate::harness::test_server::USER, crate::harness::PASSWORD)
        .start()
        .await
        .expect("start a silent server");
    let polled = silent.faults().always(Point::request("is_cdc_enabled"), Fault::HangBefore);
    let mut control = world.control().await;
    let mut master = crate::harness::Sql::connect(
        silent.addr(),
        crate::harness::test_server::USER,
        crate::harness::PASSWORD,
        "master",
    )
    .await
    .expect("connect");
    for database in 1..=10 {
        master.run(&format!("CREATE DATABASE Silent{database}")).await;
    }
    let own = world.source.addr().port().to_string();
    let string = world
        .source_connection_string("master")
        .replace(&format!("port={own}"), &format!("port={}", silent.addr().port()));
    for server in 1..=5 {
        control
            .run(&format!(
                "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Silent{server}', N'{}')",
                string.replace('\'', "''")
            ))
            .await;
    }
    control
        .run(&format!(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled) \
             SELECT s.server_id, CONCAT(N'Silent', n), N'T', N'Copy', CONCAT(s.server_name, N'T', n), N'ID', 1 \
             FROM source_servers AS s CROSS JOIN {} WHERE s.server_id > 1",
            numbers(10)
        ))
        .await;
    // of the 6 connections to the destination two are for jobs and one is for polls
    let _daemon =
        world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0"), ("DATAFLOW_MAX_CONNECTIONS", "6")]);
    eventually("every silent source to be polled", async || {
        if polled.count() >= 5 * 5 { Ok(()) } else { Err(polled.count().to_string()) }
    })
    .await;
    for id in 1..=5 {
        world.shop().await.run(&format!("INSERT INTO dbo.Live VALUES ({id})")).await;
        world.in_sync("dbo.Live", "ID").await;
    }
    assert!(silent.connection_count_of(APPLICATION).peak <= 50);
}

fn threads(daemon: &Daemon) -> usize {
    daemon
        .proc_dir("the threads")
        .map_or(0, |proc_dir| std::fs::read_dir(proc_dir.join("task")).map_or(0, Iterator::count))
}

/// Statements of the daemon per tick, at the source and at the destination: the lowest of three
/// measurements.
async fn idle_tick(world: &World) -> (usize, usize) {
    let mut quietest = (usize::MAX, usize::MAX);
    for _ in 0..3 {
        let ticks = || {
            world
                .dest
                .statements()
                .iter()
                .filter(|s| s.text.contains("FROM dbo.source_servers"))
                .count()
        };
        let sent = |server: &mssql_standin::server::Server| {
            server.statements().iter().filter(|s| s.application == APPLICATION).count()
        };
        let tick = async |count: usize| {
            eventually("the next tick", async || {
                if ticks() >= count { Ok(()) } else { Err(ticks().to_string()) }
            })
            .await;
        };
        let begin = ticks() + 1;
        tick(begin).await;
        let (source, dest) = (sent(&world.source), sent(&world.dest));
        tick(begin + 2).await;
        let passed = ticks() - begin;
        quietest = quietest
            .min(((sent(&world.source) - source) / passed, (sent(&world.dest) - dest) / passed));
    }
    quietest
}

/// 1,000 mappings with CDC over 20 source servers with a database each.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_mappings_over_twenty_sources_tick_quietly() {
    crate::only_on_standins!("its counts of connections and statements");
    const SERVERS: usize = 20;
    const TABLES: usize = 50;
    let world = World::new().await;
    let mut control = world.control().await;
    control.run("DELETE source_servers").await;
    let create: Vec<String> = (1..=TABLES)
        .map(|n| format!("CREATE TABLE dbo.T{n} (ID INT NOT NULL PRIMARY KEY);"))
        .collect();
    let capture: Vec<String> = (1..=TABLES)
        .map(|n| format!("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'T{n}', @role_name = NULL;"))
        .collect();
    let mut copy = world.copy().await;
    for server in 1..=SERVERS {
        copy.run(&create.concat().replace("dbo.T", &format!("dbo.S{server}T"))).await;
        world.source("master").await.run(&format!("CREATE DATABASE Shop{server}")).await;
        let mut shop = world.source(&format!("Shop{server}")).await;
        shop.run("EXEC sys.sp_cdc_enable_db").await;
        shop.run(&create.concat()).await;
        shop.run(&capture.concat()).await;
        // capture passes the start LSNs of the instances only when there is a change to read
        shop.run("CREATE TABLE dbo.Other (ID INT NOT NULL PRIMARY KEY)").await;
        shop.run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'Other', @role_name = NULL").await;
        shop.run("INSERT INTO dbo.Other VALUES (1)").await;
        let string = world.source_connection_string(&format!("Shop{server}")).replace('\'', "''");
        control.run(&format!("INSERT INTO source_servers (server_name, connection_string) VALUES (N'S{server}', N'{string}')")).await;
    }
    control
        .run(&format!(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled, initial_sync) \
             SELECT s.server_id, REPLACE(s.server_name, N'S', N'Shop'), CONCAT(N'T', n), N'Copy', CONCAT(s.server_name, N'T', n), N'ID', 1, N'NONE' \
             FROM source_servers AS s CROSS JOIN {}",
            numbers(TABLES)
        ))
        .await;
    assert_eq!(
        control.scalar("SELECT COUNT(*) FROM table_mappings").await,
        (SERVERS * TABLES).to_string()
    );
    world.source.log_statements(true);
    world.dest.log_statements(true);
    let daemon =
        world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0"), ("DATAFLOW_CHECK_INTERVAL", "1s")]);
    eventually("every mapping to have its first checkpoint", async || {
        let without =
            control.scalar("SELECT COUNT(*) FROM table_mappings WHERE last_cdc_lsn IS NULL").await;
        if without == "0" { Ok(()) } else { Err(without) }
    })
    .await;
    let (source, dest) = idle_tick(&world).await;
    assert!(source <= 8 * SERVERS, "{source} statements at the sources in an idle tick");
    assert!(dest <= 8 * SERVERS, "{dest} statements at the destination in an idle tick");
    let threads = threads(&daemon);
    assert!(threads <= 64, "{threads} threads");
    assert!(world.dest.connection_count_of(APPLICATION).peak <= 50);
    assert!(world.source.connection_count_of(APPLICATION).peak <= 10 * SERVERS);
    assert_eq!(control.scalar("SELECT COUNT(*) FROM error_logs").await, "0");
}

/// Ten thousand mappings without work, and one with a full sync to do.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_mappings_do_not_delay_one() {
    crate::only_on_standins!("its counts of connections and statements");
    let world = World::new().await;
    let mut control = world.control().await;
    control
        .run(&format!(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled) \
             SELECT 1, N'Shop', CONCAT(N'Quiet', n), N'Copy', CONCAT(N'Quiet', n), N'ID', 0 FROM {}",
            numbers(10_000)
        ))
        .await;
    tables(&world, 1).await;
    world.dest.log_statements(true);
    world.source.log_statements(true);
    let daemon =
        world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0"), ("DATAFLOW_CHECK_INTERVAL", "2s")]);
    all_synced(&world, 1).await;
    eventually("the daemon to own every mapping", async || {
        let locks = control
            .scalar(
                "SELECT COUNT(*) FROM sys.dm_tran_locks WHERE resource_type = N'APPLICATION' AND resource_description LIKE N'%dataflow/mapping/%'",
            )
            .await;
        if locks == "10001" { Ok(()) } else { Err(locks) }
    })
    .await;
    let (source, dest) = idle_tick(&world).await;
    assert!(
        source <= 8 && dest <= 8,
        "{source} statements at the source and {dest} at the destination in an idle tick"
    );
    let (status, output) = daemon.terminate().await;
    assert!(status.success() && !output.contains("stopped without waiting"), "{output}");
}
