//! Operating the daemon: setup, errors, limits, secrets, TLS, several daemons.

mod databases;
mod errors;
mod hostile;
mod limits;
mod retry;
mod secrets;
mod servers;
mod sharing;
mod tls;

use crate::harness::{Daemon, World, daemon::command, eventually, numbers};

/// The steps of the documentation in one scenario: register, trigger a full sync, follow changes,
/// verify, break one mapping, stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_follows_the_readme() {
    let world = World::new().await;
    world
        .both(
            "CREATE TABLE dbo.Users (UserID INT IDENTITY(1,1) PRIMARY KEY, Name NVARCHAR(100) NOT NULL, Balance MONEY NULL, \
             FullSyncTrigger BIT NOT NULL DEFAULT 0)",
        )
        .await;
    let mut shop = world.shop().await;
    shop.run(&format!("INSERT INTO dbo.Users (Name, Balance) SELECT N'user ' + CAST(n AS nvarchar(10)), 1.2345 FROM {}", numbers(2500)))
        .await;
    world.enable_cdc(&["Users"]).await;
    let users = world.map("Users", "UserID", Some("FullSyncTrigger"), true).await;
    let nowhere = world.map("DoesNotExist", "ID", None, true).await;
    let daemon = world.daemon();

    // The trigger starts a full sync and is reset.
    shop.run("UPDATE dbo.Users SET FullSyncTrigger = 1 WHERE UserID = 1").await;
    let run = world.run_ends(users, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(run.column("records_processed"), ["2500"], "{run}");
    assert_eq!(run.column("records_failed"), ["0"], "{run}");
    world.in_sync("dbo.Users", "UserID").await;
    assert_eq!(shop.scalar("SELECT COUNT(*) FROM dbo.Users WHERE FullSyncTrigger = 1").await, "0");
    let mut control = world.control().await;
    let mapping = control
        .query(&format!("SELECT last_full_sync_at, last_cdc_lsn, full_sync_pending_at FROM table_mappings WHERE mapping_id = {users}"))
        .await;
    assert_ne!(mapping.rows[0][0], "NULL");
    assert_ne!(mapping.rows[0][1], "NULL");
    assert_eq!(mapping.rows[0][2], "NULL");

    // CDC applies changes.
    shop.run("UPDATE dbo.Users SET Balance = 99.9999 WHERE UserID = 7; DELETE dbo.Users WHERE UserID = 8; INSERT INTO dbo.Users (Name) VALUES (N'new')").await;
    world.in_sync("dbo.Users", "UserID").await;
    let run = world.run_ends(users, "CDC", "COMPLETED").await;
    assert_eq!(run.column("records_failed"), ["0"], "{run}");

    // Verification passes.
    let verified = world.verified(users, "PASSED").await;
    assert_eq!(verified.column("source_row_count"), verified.column("dest_row_count"));
    assert_eq!(verified.column("source_md5"), verified.column("dest_md5"));

    // The mapping whose source table does not exist is an error that names the table; the other
    // mapping goes on.
    let error = eventually("an error_logs row for the missing table", async || {
        let errors = control
            .query(&format!(
                "SELECT error_type, error_message FROM error_logs WHERE mapping_id = {nowhere}"
            ))
            .await;
        if errors.rows.is_empty() { Err("none".to_owned()) } else { Ok(errors.rows[0][1].clone()) }
    })
    .await;
    assert!(error.contains("DoesNotExist"), "{error}");
    assert!(
        control
            .query("SELECT source_table FROM v_recent_errors")
            .await
            .column("source_table")
            .contains(&"DoesNotExist")
    );
    shop.run("INSERT INTO dbo.Users (Name) VALUES (N'after the error')").await;
    world.in_sync("dbo.Users", "UserID").await;

    // SIGTERM ends the daemon with exit code 0. stdout and sync_logs have the same events.
    let (status, output) = daemon.terminate().await;
    assert!(status.success(), "{status}\n{output}");
    let logged = control
        .query(&format!("SELECT log_message FROM sync_logs WHERE mapping_id = {users} AND sync_type = 'FULL_SYNC' AND log_level = 'INFO'"))
        .await;
    assert!(!logged.rows.is_empty());
    for message in logged.column("log_message") {
        assert!(output.contains(message), "sync_logs has {message:?}, stdout does not:\n{output}");
    }
    assert!(!output.contains(crate::harness::PASSWORD), "the password is printed");
}

#[tokio::test]
async fn without_a_password_it_says_so_and_exits_with_2() {
    let output = command(&[("DEST_SERVER", "localhost")], &[]).output().await.expect("run");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("DEST_PASS"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_control_database_it_says_to_run_init() {
    let world = World::new().await;
    world.dest("master").await.run("DROP DATABASE dbaops_dataflow").await;
    let (status, output) = world.daemon().wait_for_exit().await;
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("dbaops-dataflow init"), "{output}");
}

/// `init` is run again after every upgrade: on a database that is up to date it changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn init_twice_changes_nothing() {
    let world = World::new().await;
    let mut control = world.control().await;
    let shape = "SELECT o.name, c.name, c.column_id, c.is_nullable, c.max_length FROM sys.objects o JOIN sys.columns c ON c.object_id = o.object_id \
                 WHERE o.is_ms_shipped = 0 ORDER BY o.name, c.column_id";
    let before = control.query(shape).await;
    assert!(before.rows.len() > 50, "{before}");
    let again = command(&world.variables(), &["init"]).output().await.expect("run init");
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(control.query(shape).await, before);
    assert_eq!(control.scalar("SELECT COUNT(*) FROM source_servers").await, "1");
}

/// A later version of the first implementation has a database of the same name with other tables:
/// `init` refuses it and changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn init_refuses_the_database_of_another_version() {
    let world = World::new().await;
    let mut control = world.control().await;
    for other in ["config", "logs"] {
        control
            .run("DROP TABLE error_logs; CREATE TABLE dbo.flows (id INT NOT NULL PRIMARY KEY)")
            .await;
        control.run(&format!("CREATE TABLE dbo.{other} (id INT NOT NULL PRIMARY KEY)")).await;
        let refused = command(&world.variables(), &["init"]).output().await.expect("run init");
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{text}");
        for expected in ["dbaops_dataflow", "flows, config and logs", "Rename or drop"] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        assert_eq!(
            control.scalar("SELECT COUNT(*) FROM sys.tables WHERE name = 'error_logs'").await,
            "0",
            "init changed the database"
        );
        // A table `flows` alone does not identify that version.
        control.run(&format!("DROP TABLE dbo.{other}")).await;
        let accepted = command(&world.variables(), &["init"]).output().await.expect("run init");
        assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
        assert_eq!(
            control.scalar("SELECT COUNT(*) FROM sys.tables WHERE name = 'error_logs'").await,
            "1"
        );
        control.run("DROP TABLE dbo.flows").await;
    }
}

/// A control database of the first implementation lacks columns, has an indexed NOT NULL `mapping_id`
/// in sync_logs, and has no error_logs (its script failed there with Msg 1785). Its rows are kept.
#[tokio::test(flavor = "multi_thread")]
async fn init_brings_a_database_of_the_first_implementation_up_to_date() {
    let world = World::new().await;
    let mut control = world.control().await;
    control.run("INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column) VALUES (1, N'Shop', N'T', N'Copy', N'T', N'ID')").await;
    control
        .script(
            "DROP TABLE error_logs
GO
DROP TABLE sync_logs
GO
CREATE TABLE sync_logs (log_id BIGINT IDENTITY(1,1) PRIMARY KEY, mapping_id INT NOT NULL, log_level NVARCHAR(20) NOT NULL,
    log_message NVARCHAR(MAX) NOT NULL, sync_type NVARCHAR(50) NULL, records_count BIGINT NULL, execution_time_ms INT NULL,
    created_at DATETIME2 NOT NULL DEFAULT GETUTCDATE(),
    CONSTRAINT FK_logs FOREIGN KEY (mapping_id) REFERENCES table_mappings (mapping_id) ON DELETE CASCADE)
GO
CREATE INDEX IX_sync_logs_mapping_id ON sync_logs (mapping_id, created_at DESC)
GO
INSERT INTO sync_logs (mapping_id, log_level, log_message) VALUES (1, N'INFO', N'old')",
        )
        .await;
    let upgraded = command(&world.variables(), &["init"]).output().await.expect("run init");
    assert!(upgraded.status.success(), "{}", String::from_utf8_lossy(&upgraded.stderr));
    let nullable = control
        .scalar("SELECT CAST(is_nullable AS int) FROM sys.columns WHERE object_id = OBJECT_ID(N'dbo.sync_logs') AND name = N'mapping_id'")
        .await;
    assert_eq!(nullable, "1");
    assert_eq!(
        control.scalar("SELECT log_message FROM sync_logs WHERE mapping_id = 1").await,
        "old"
    );
    // New and existing tables have the indexes that the deletion of old rows uses.
    let indexes = control
        .query(
            "SELECT i.name FROM sys.indexes AS i WHERE i.name IN (N'IX_sync_logs_created', N'IX_sync_status_completed', \
             N'IX_verification_logs_verified', N'IX_error_logs_resolved_at') ORDER BY i.name",
        )
        .await;
    assert_eq!(indexes.rows.len(), 4, "{indexes}");
    assert_eq!(control.scalar("SELECT COUNT(*) FROM error_logs").await, "0");
    control.run("DELETE source_servers").await;
    assert_eq!(
        control.scalar("SELECT COUNT(*) FROM sync_logs WHERE mapping_id = 1").await,
        "0",
        "a deleted mapping's logs go with it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_source_password_is_one_error_and_other_servers_go_on() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1, N'a')").await;
    let good = world.map("T", "ID", None, false).await;
    world.request_full_sync(good).await;
    let mut control = world.control().await;
    let bad =
        world.source_connection_string("Shop").replace(world.source.password(), "not-the-password");
    control
        .run(&format!(
            "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Bad', N'{bad}')"
        ))
        .await;
    control
        .run(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled) \
             VALUES (2, N'Shop', N'T', N'Copy', N'T2', N'ID', 1), (2, N'Shop', N'U', N'Copy', N'U2', N'ID', 1), (2, N'Shop', N'V', N'Copy', N'V2', N'ID', 0)",
        )
        .await;
    let daemon = world.daemon();
    world.run_ends(good, "FULL_SYNC", "COMPLETED").await;
    let message = eventually("the login error", async || {
        let errors = control
            .query("SELECT error_type, error_message FROM error_logs WHERE server_id = 2")
            .await;
        errors.rows.first().cloned().ok_or_else(|| "none".to_owned())
    })
    .await;
    assert_eq!(message[0], "CONNECTION");
    assert!(message[1].contains("18456"), "{message:?}");
    // Two more rounds of verifications report no further error.
    eventually("two verifications", async || {
        let runs = control
            .scalar(&format!("SELECT COUNT(*) FROM verification_logs WHERE mapping_id = {good} AND verification_type = 'MD5_COMPARISON'"))
            .await;
        if runs.parse().is_ok_and(|runs: u32| runs >= 2) { Ok(()) } else { Err(runs) }
    })
    .await;
    let (status, output) = daemon.terminate().await;
    assert!(status.success());
    assert!(!output.contains("not-the-password"), "{output}");
    assert_eq!(
        control.scalar("SELECT COUNT(*) FROM error_logs WHERE server_id = 2").await,
        "1",
        "one error, not one per tick or mapping"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_server_is_left_alone_until_it_is_enabled() {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL)").await;
    world.shop().await.run("INSERT INTO dbo.T VALUES (1, N'a')").await;
    let mapping = world.map("T", "ID", None, false).await;
    let mut control = world.control().await;
    control.run("UPDATE source_servers SET is_enabled = 0").await;
    world.request_full_sync(mapping).await;
    let daemon: Daemon = world.daemon();
    // A full sync of another server's mapping shows that ticks have passed.
    let connection_string = world.source_connection_string("Shop").replace('\'', "''");
    control.run(&format!("INSERT INTO source_servers (server_name, connection_string) VALUES (N'Other', N'{connection_string}')")).await;
    world.both("CREATE TABLE dbo.U (ID INT NOT NULL PRIMARY KEY)").await;
    control
        .run(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, full_sync_requested) \
             VALUES (2, N'Shop', N'U', N'Copy', N'U', N'ID', 1)",
        )
        .await;
    world.run_ends(2, "FULL_SYNC", "COMPLETED").await;
    assert_eq!(
        control
            .scalar(&format!("SELECT COUNT(*) FROM sync_status WHERE mapping_id = {mapping}"))
            .await,
        "0"
    );
    control.run("UPDATE source_servers SET is_enabled = 1").await;
    world.run_ends(mapping, "FULL_SYNC", "COMPLETED").await;
    world.in_sync("dbo.T", "ID").await;
    drop(daemon);
}
