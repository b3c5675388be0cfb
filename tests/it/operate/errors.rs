//! Errors: each is reported once and says what to do; the work is retried at the right time, and the
//! error is marked as resolved.

use std::time::Instant;

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
};

use crate::harness::{Sql, World, daemon::command, eventually, numbers};

/// The newest error of a mapping: type, details, retry_count, resolved.
async fn newest(control: &mut Sql, filter: &str) -> Option<[String; 4]> {
    let errors = control
        .query(&format!(
            "SELECT TOP (1) error_type, error_details, CAST(retry_count AS int), CAST(is_resolved AS int) FROM error_logs WHERE {filter} ORDER BY error_id DESC"
        ))
        .await;
    errors.rows.first().and_then(|row| row.clone().try_into().ok())
}

async fn unresolved(control: &mut Sql, filter: &str) -> [String; 4] {
    eventually(&format!("an unresolved error where {filter}"), async || {
        newest(control, filter)
            .await
            .filter(|error| error[3] == "0")
            .ok_or_else(|| "none".to_owned())
    })
    .await
}

async fn resolved(control: &mut Sql, filter: &str) {
    eventually(&format!("no unresolved error where {filter}"), async || {
        match newest(control, filter).await {
            Some(error) if error[3] == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Creates a table at both servers, with one row at the source.
async fn create_table(world: &World, name: &str) {
    world.both(&format!("CREATE TABLE dbo.{name} (ID INT NOT NULL PRIMARY KEY)")).await;
    world.shop().await.run(&format!("INSERT INTO dbo.{name} VALUES (1)")).await;
}

/// A mapping with an error that only an operator can fix is parked. It is retried when its row or
/// its server's row changes.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_is_tried_again_when_its_row_or_its_servers_row_changes() {
    let world = World::new().await;
    let mapping = world.map("Late", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_PARKED_INTERVAL", "1h")]);
    let mut control = world.control().await;
    let filter = format!("mapping_id = {mapping}");
    let error = unresolved(&mut control, &filter).await;
    assert_eq!(error[0], "SYNC");
    for expected in ["kind Missing", "parked", "what to do: "] {
        assert!(error[1].contains(expected), "{error:?}");
    }
    // The mapping's row changes.
    create_table(&world, "Late").await;
    control
        .run(&format!(
            "UPDATE table_mappings SET updated_at = GETUTCDATE() WHERE mapping_id = {mapping}"
        ))
        .await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    resolved(&mut control, &filter).await;

    // The server's row changes.
    let other = world.map("Later", "ID", None, false).await;
    world.request_full_sync(other).await;
    let filter = format!("mapping_id = {other}");
    unresolved(&mut control, &filter).await;
    create_table(&world, "Later").await;
    control.run("UPDATE source_servers SET connection_string = connection_string + N';app name=dbaops-dataflow'").await;
    world.run_ends(other, "FULL_SYNC", "COMPLETED").await;
    resolved(&mut control, &filter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_is_tried_again_after_the_parked_interval() {
    let world = World::new().await;
    let mapping = world.map("Late", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let _daemon = world.daemon_with(&[("DATAFLOW_PARKED_INTERVAL", "1s")]);
    let mut control = world.control().await;
    let filter = format!("mapping_id = {mapping}");
    unresolved(&mut control, &filter).await;
    create_table(&world, "Late").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    resolved(&mut control, &filter).await;
    assert_eq!(control.scalar("SELECT COUNT(*) FROM error_logs").await, "1", "one error row");
}

/// One or two deadlocks in a row are retried without an error; the third is an error, which the next
/// success resolves.
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_has_its_attempts_before_it_is_an_error() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    create_table(&world, "T").await;
    let mapping = world.map("T", "ID", None, false).await;
    let deadlock = || {
        Fault::ErrorBefore(SqlError::new(
            1205,
            13,
            "Transaction was deadlocked on lock resources and has been chosen as the victim.",
        ))
    };
    let faults = world.source.faults().times(Point::request("FROM [dbo].[T]"), 2, deadlock());
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(faults.count(), 2);
    let mut control = world.control().await;
    assert_eq!(
        control.scalar("SELECT COUNT(*) FROM error_logs").await,
        "0",
        "two in a row are no error yet"
    );
    assert!(daemon.output().contains("will be tried again"));

    let faults = world.source.faults().always(Point::request("FROM [dbo].[T]"), deadlock());
    world.request_full_sync(mapping).await;
    let filter = format!("mapping_id = {mapping}");
    let error = unresolved(&mut control, &filter).await;
    assert!(error[2].parse::<u32>().expect("a count") >= 3, "{error:?}");
    assert!(error[1].contains("kind Deadlock"), "{error:?}");
    faults.disarm();
    resolved(&mut control, &filter).await;
    world.in_sync("dbo.T", "ID").await;
}

/// A source that cannot be reached is one error for all of its databases and mappings. The daemon
/// makes one connection attempt at a time, with growing delays.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_away_is_one_error_and_few_attempts() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    for database in ["Shop", "Shop2", "Shop3"] {
        if database != "Shop" {
            world.source("master").await.run(&format!("CREATE DATABASE {database}")).await;
        }
        world
            .source(database)
            .await
            .run("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY); INSERT INTO dbo.T VALUES (1)")
            .await;
        world
            .copy()
            .await
            .run(&format!("CREATE TABLE dbo.{database} (ID INT NOT NULL PRIMARY KEY)"))
            .await;
    }
    let mut control = world.control().await;
    control
        .run(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, full_sync_requested) VALUES \
             (1, N'Shop', N'T', N'Copy', N'Shop', N'ID', 1), (1, N'Shop2', N'T', N'Copy', N'Shop2', N'ID', 1), (1, N'Shop3', N'T', N'Copy', N'Shop3', N'ID', 1)",
        )
        .await;
    let refuse = |point| {
        world.source.faults().arm(point, Some("dbaops-dataflow"), 1, None, Fault::ResetBefore)
    };
    let refused = refuse(Point::Login);
    let began = Instant::now();
    let daemon = world.daemon();
    let error = unresolved(&mut control, "server_id = 1").await;
    assert_eq!(error[0], "CONNECTION");
    assert!(error[1].contains("kind Connection") && error[1].contains("what to do: "), "{error:?}");
    eventually("some more attempts", async || {
        if refused.count() >= 5 { Ok(()) } else { Err(refused.count().to_string()) }
    })
    .await;
    // With a tick every 100 ms: 3 attempts at first, then delays of 0.1, 0.2, 0.4, … seconds.
    let attempts = refused.count();
    let ticks = began.elapsed().as_millis() / 100;
    assert!(
        u128::from(attempts) <= 3 + u128::from(ticks.max(1).ilog2()) + 2,
        "{attempts} attempts in {ticks} ticks"
    );
    assert_eq!(control.scalar("SELECT COUNT(*) FROM error_logs").await, "1");
    assert_eq!(daemon.output().matches("cannot be reached").count(), 1);
    refused.disarm();
    // a change of the server's row starts the next attempt at once
    control.run("UPDATE source_servers SET connection_string = connection_string + N';app name=dbaops-dataflow'").await;
    for mapping in 1..=3 {
        world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    }
    resolved(&mut control, "server_id = 1").await;
}

/// Old log rows and old resolved errors are deleted; open errors are kept.
#[tokio::test(flavor = "multi_thread")]
async fn old_log_rows_are_deleted_in_small_batches() {
    crate::only_on_standins!("its log of statements and connections");
    let world = World::new().await;
    create_table(&world, "T").await;
    let mapping = world.map("T", "ID", None, false).await;
    let mut control = world.control().await;
    control
        .run(&format!(
            "INSERT INTO sync_logs (mapping_id, log_level, log_message, created_at) SELECT {mapping}, N'INFO', N'old', '2001-01-01' FROM {numbers}; \
             INSERT INTO sync_status (mapping_id, sync_type, status, started_at, completed_at) VALUES ({mapping}, N'CDC', N'COMPLETED', '2001-01-01', '2001-01-01'), \
             ({mapping}, N'CDC', N'COMPLETED', GETUTCDATE(), GETUTCDATE()); \
             INSERT INTO error_logs (mapping_id, error_type, error_message, created_at, is_resolved, resolved_at) VALUES \
             ({mapping}, N'SYNC', N'old and resolved', '2001-01-01', 1, '2001-01-02'), ({mapping}, N'VERIFICATION', N'old and open', '2001-01-01', 0, NULL)",
            numbers = crate::harness::numbers(2500)
        ))
        .await;
    world.dest.log_statements(true);
    let daemon =
        world.daemon_with(&[("DATAFLOW_LOG_RETENTION", "30d"), ("DATAFLOW_VERIFY_INTERVAL", "0")]);
    eventually("the old rows to be gone", async || {
        let old = control.scalar("SELECT COUNT(*) FROM sync_logs WHERE log_message = N'old'").await;
        if old == "0" { Ok(()) } else { Err(old) }
    })
    .await;
    let batches = world
        .dest
        .statements()
        .iter()
        .filter(|statement| statement.text.contains("DELETE TOP (1000) FROM dbo.sync_logs"))
        .count();
    assert!(batches >= 3, "{batches} batches for 2,500 rows");
    assert_eq!(control.scalar("SELECT COUNT(*) FROM sync_status").await, "1");
    assert_eq!(control.scalar("SELECT error_message FROM error_logs").await, "old and open");
    drop(daemon);
}

/// Deleting a mapping deletes its log rows. Its rows that wait to be written are left out and
/// counted, and the rows of other mappings in the same batch are written.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_mappings_log_rows_are_left_out_and_the_others_are_written() {
    let world = World::new().await;
    create_table(&world, "T").await;
    let kept = world.map("T", "ID", None, false).await;
    create_table(&world, "U").await;
    let deleted = world.map("U", "ID", None, false).await;
    let mut control = world.control().await;
    control.run("UPDATE table_mappings SET full_sync_requested = 1").await;
    // A lock delays the writing of log rows until one of the two mappings is deleted.
    let mut locking = world.control().await;
    locking.run("BEGIN TRANSACTION; DECLARE @n int; SELECT @n = COUNT(*) FROM dbo.sync_logs WITH (TABLOCKX)").await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(kept, "FULL_SYNC", "COMPLETED").await;
    world.run_ends(deleted, "FULL_SYNC", "COMPLETED").await;
    locking
        .run(&format!("DELETE table_mappings WHERE mapping_id = {deleted}; COMMIT TRANSACTION"))
        .await;
    eventually("the other mapping's rows", async || {
        let rows =
            control.scalar(&format!("SELECT COUNT(*) FROM sync_logs WHERE mapping_id = {kept} AND log_message LIKE N'%completed%'")).await;
        if rows == "1" { Ok(()) } else { Err(rows) }
    })
    .await;
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{output}");
    let counted = output
        .lines()
        .find(|line| line.contains("log rows were not written"))
        .unwrap_or_else(|| panic!("{output}"));
    assert!(
        counted.contains("dropped=0")
            && counted.contains("orphans=")
            && !counted.contains("orphans=0"),
        "{counted}"
    );
    // Events of the daemon itself have no mapping.
    assert_eq!(control.scalar("SELECT COUNT(*) FROM sync_logs WHERE mapping_id IS NULL AND log_message LIKE N'started%'").await, "1");
}

/// stdout as JSON, and stdout with warnings only; the log tables get all events in both cases.
#[tokio::test(flavor = "multi_thread")]
async fn stdout_follows_its_settings() {
    let world = World::new().await;
    let json = world.daemon_with(&[("DATAFLOW_LOG_FORMAT", "json")]);
    let line = json.wait_for_line(&["started"]).await;
    assert!(
        line.starts_with('{') && line.ends_with('}') && line.contains("\"message\":\"started\""),
        "{line}"
    );
    json.terminate().await;
    let quiet = world.daemon_with(&[("NO_COLOR", "1"), ("RUST_LOG", "warn")]);
    let mut control = world.control().await;
    eventually("both to have started", async || {
        let started = control
            .scalar("SELECT COUNT(*) FROM sync_logs WHERE log_message LIKE N'started%'")
            .await;
        if started == "2" { Ok(()) } else { Err(started) }
    })
    .await;
    let (_, output) = quiet.terminate().await;
    assert_eq!(output, "");
}

/// The destination refuses the login (its password was changed): attempts get rarer, so that the
/// login is not locked out, and the daemon goes on when the login works again.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_refuses_the_login_gets_fewer_attempts() {
    crate::only_on_standins!("faults at logins");
    let world = World::new().await;
    create_table(&world, "T").await;
    let mapping = world.map("T", "ID", None, false).await;
    world.request_full_sync(mapping).await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    let mut control = world.control().await;
    let refusal = SqlError::new(18456, 14, "Login failed for user 'sa'.");
    let refused = world.dest.faults().arm(
        Point::Login,
        Some("dbaops-dataflow"),
        1,
        None,
        Fault::ErrorBefore(refusal),
    );
    for connection in world
        .dest
        .connections()
        .into_iter()
        .filter(|connection| connection.application == "dbaops-dataflow")
    {
        world.dest.kill(connection.spid);
    }
    assert!(refused.fired().await);
    let began = Instant::now();
    eventually("eight attempts", async || {
        if refused.count() >= 8 { Ok(()) } else { Err(refused.count().to_string()) }
    })
    .await;
    // Attempts come after 100 ms, 200, 400, 800, 1600, …, and one is for the log tables. One per
    // tick would be eight in less than one second.
    assert!(began.elapsed().as_millis() >= 2_500, "{:?}", began.elapsed());
    refused.disarm();
    world.request_full_sync(mapping).await;
    eventually("the next full sync", async || {
        let done = control.scalar("SELECT COUNT(*) FROM sync_status WHERE sync_type = 'FULL_SYNC' AND status = 'COMPLETED'").await;
        if done == "2" { Ok(()) } else { Err(done) }
    })
    .await;
    drop(daemon);
}

async fn no_error_is_open(control: &mut Sql) {
    eventually("no open error", async || {
        match control.query("SELECT server_name, error_message FROM v_recent_errors").await {
            errors if errors.rows.is_empty() => Ok(()),
            errors => Err(errors.to_string()),
        }
    })
    .await;
}

/// Waits until the daemon has loaded the control tables: it reports an invalid server row that is
/// inserted here.
async fn next_tick(control: &mut Sql) {
    control.run("INSERT INTO source_servers (server_name, connection_string) VALUES (N'Invalid', N'server=h;encrypt=maybe')").await;
    let id = control.scalar("SELECT MAX(server_id) FROM source_servers").await;
    unresolved(control, &format!("server_id = {id}")).await;
    control.run(&format!("DELETE source_servers WHERE server_id = {id}")).await;
    no_error_is_open(control).await;
}

/// Switching a mapping or a server off, or deleting it, resolves its errors. An error of a deleted
/// mapping does not become an error of its server.
#[tokio::test(flavor = "multi_thread")]
async fn errors_of_what_is_switched_off_or_deleted_are_resolved() {
    let world = World::new().await;
    create_table(&world, "T").await;
    let good = world.map("T", "ID", None, false).await;
    let bad = world.map("Nowhere", "ID", None, false).await;
    for mapping in [good, bad] {
        world.request_full_sync(mapping).await;
    }
    let _daemon = world.daemon();
    world.run_ends(good, "FULL_SYNC", "COMPLETED").await;
    let mut control = world.control().await;
    let filter = format!("mapping_id = {bad}");
    unresolved(&mut control, &filter).await;
    control
        .run(&format!("UPDATE table_mappings SET is_enabled = 0 WHERE mapping_id = {bad}"))
        .await;
    resolved(&mut control, &filter).await;
    next_tick(&mut control).await;
    // the mapping still fails, which is a new error
    control
        .run(&format!("UPDATE table_mappings SET is_enabled = 1 WHERE mapping_id = {bad}"))
        .await;
    unresolved(&mut control, &filter).await;
    control.run(&format!("DELETE table_mappings WHERE mapping_id = {bad}")).await;
    no_error_is_open(&mut control).await;

    // an invalid connection string is an error, with or without mappings, until the server is
    // switched off
    control.run("INSERT INTO source_servers (server_name, connection_string) VALUES (N'Bad', N'server=h;encrypt=maybe')").await;
    let id = control.scalar("SELECT MAX(server_id) FROM source_servers").await;
    let filter = format!("server_id = {id}");
    unresolved(&mut control, &filter).await;
    world.request_full_sync(good).await;
    eventually("another full sync", async || {
        let now =
            control.scalar("SELECT COUNT(*) FROM sync_status WHERE status = 'COMPLETED'").await;
        if now == "2" { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(control.scalar("SELECT COUNT(*) FROM v_recent_errors").await, "1");
    control.run(&format!("UPDATE source_servers SET is_enabled = 0 WHERE {filter}")).await;
    no_error_is_open(&mut control).await;
    next_tick(&mut control).await;
    // or until the server is deleted
    control.run(&format!("UPDATE source_servers SET is_enabled = 1 WHERE {filter}")).await;
    unresolved(&mut control, &filter).await;
    control.run(&format!("DELETE source_servers WHERE {filter}")).await;
    no_error_is_open(&mut control).await;
}

/// Five thousand mappings succeed again at once. The queue to the log tables is shorter than that,
/// and an error whose resolution did not fit into it once stayed open.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_recoveries_resolves_every_error() {
    let world = World::new().await;
    let mut control = world.control().await;
    control
        .run(&format!(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled) \
             SELECT 1, N'Shop', CONCAT(N'T', n), N'Copy', CONCAT(N'T', n), N'ID', 0 FROM {}",
            numbers(5_000)
        ))
        .await;
    // open errors as a killed daemon leaves them
    control
        .run(
            "INSERT INTO error_logs (mapping_id, error_type, error_message) SELECT mapping_id, N'SYNC', N'failed: of yesterday' FROM table_mappings",
        )
        .await;
    let _daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    eventually("every error to be resolved", async || {
        let open = control.scalar("SELECT COUNT(*) FROM error_logs WHERE is_resolved = 0").await;
        if open == "0" { Ok(()) } else { Err(open) }
    })
    .await;
}

/// An error of every code that is looked for again, in words that no version uses.
const REWORDED: &str = "INSERT INTO error_logs (mapping_id, server_id, error_type, error_message, error_code) VALUES \
    (NULL, NULL, N'CONNECTION', N'in other words', N'CONTROL_TABLES_UNREADABLE'), \
    (NULL, NULL, N'CONNECTION', N'in other words', N'LEASE_LOST'), \
    (NULL, 2, N'CONNECTION', N'in other words', N'SERVER_UNREACHABLE'), \
    (NULL, 2, N'CONNECTION', N'in other words', N'SOURCE_DATABASE_UNAVAILABLE'), \
    (NULL, 1, N'SYNC', N'of a mapping that was deleted', N'MAPPING_FAILED'), \
    (1, 1, N'VERIFICATION', N'in other words', N'VERIFICATION_NOT_RUN'), \
    (1, 1, N'VERIFICATION', N'in other words', N'ROWS_DIFFER'), \
    (1, 1, N'VERIFICATION', N'in other words', N'ROW_COUNT_DIFFERS'), \
    (1, 1, N'VERIFICATION', N'in other words', N'COLUMNS_DIFFER')";

/// The same errors as versions without codes wrote them.
const WITHOUT_CODES: &str = "INSERT INTO error_logs (mapping_id, server_id, error_type, error_message) VALUES \
    (NULL, NULL, N'CONNECTION', N'the control tables cannot be read: it was closed'), \
    (NULL, NULL, N'CONNECTION', N'no mapping is owned: the lease connection is lost, or cannot be made: it was closed'), \
    (NULL, 2, N'CONNECTION', N'the source server cannot be reached: refused server=Other database=Shop'), \
    (NULL, 2, N'CONNECTION', N'the source database cannot be polled: offline server=Other database=Shop'), \
    (NULL, 1, N'SYNC', N'failed: of a mapping that was deleted'), \
    (1, 1, N'VERIFICATION', N'verification failed to run: it was closed'), \
    (1, 1, N'VERIFICATION', N'MD5_COMPARISON of Shop.dbo.T: FAILED: 1 row differs'), \
    (1, 1, N'VERIFICATION', N'ROW_COUNT of Shop.dbo.T: FAILED: 1 and 2'), \
    (1, 1, N'VERIFICATION', N'SCHEMA of Shop.dbo.T: FAILED: a column is missing')";

/// What an earlier version, or an earlier process, left open is resolved by its code, whatever
/// today's messages say.
#[tokio::test(flavor = "multi_thread")]
async fn open_errors_are_resolved_by_their_codes_and_not_by_their_texts() {
    let world = World::new().await;
    create_table(&world, "T").await;
    let mapping = world.map("T", "ID", None, false).await;
    assert_eq!(mapping, 1);
    world.request_full_sync(mapping).await;
    let mut control = world.control().await;
    control
        .run("INSERT INTO source_servers (server_name, connection_string) SELECT N'Other', connection_string FROM source_servers")
        .await;
    for rows in [REWORDED, WITHOUT_CODES] {
        control.run(rows).await;
        let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "1s")]);
        no_error_is_open(&mut control).await;
        let (status, output) = daemon.terminate().await;
        assert!(status.success(), "{output}");
    }
    let codes = control.query("SELECT error_code, COUNT(*) AS n FROM error_logs GROUP BY error_code HAVING COUNT(*) <> 2").await;
    assert_eq!(
        codes.column("error_code"),
        ["MAPPING_FAILED", "OTHER"],
        "a failure of a mapping is told from others by its mapping alone: {codes}"
    );
}

/// Errors that a mapping or its database has are written and shown with their code.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_written_with_its_code_and_without_where_there_is_no_column_yet() {
    let world = World::new().await;
    let mapping = world.map("Nowhere", "ID", None, true).await;
    let mut control = world.control().await;
    control.run("UPDATE table_mappings SET full_sync_requested = 1").await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    let row = format!("mapping_id = {mapping} AND error_code = 'MAPPING_FAILED'");
    unresolved(&mut control, &row).await;
    daemon.terminate().await;

    control
        .run("DELETE FROM error_logs; ALTER TABLE error_logs DROP COLUMN error_code, source_database")
        .await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    unresolved(&mut control, &format!("mapping_id = {mapping}")).await;
    daemon.wait_for_line(&["error_logs has no column error_code", "init"]).await;
    assert_eq!(daemon.output().matches("has no column error_code").count(), 1);
    let init = command(&world.variables(), &["init"]).output().await.expect("run init");
    assert!(init.status.success());
    daemon.terminate().await;
    let daemon = world.daemon_with(&[("DATAFLOW_VERIFY_INTERVAL", "0")]);
    unresolved(&mut control, &row).await;
    drop(daemon);
}
