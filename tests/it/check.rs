//! `dbaops-dataflow check`: a healthy setup has no ✗ line; every fault has one, with statements that
//! fix it. The scenarios execute the printed statements unchanged, and check again.

use mssql_standin::{
    error::SqlError,
    fault::{Fault, Point},
    server::Server,
};

use crate::harness::{PASSWORD, Sql, World, daemon::command, eventually, test_server::USER};

/// The output of `check` and its exit code.
struct Checked {
    code: Option<i32>,
    text: String,
}

async fn check_with(
    world: &World,
    more: &[(&'static str, &'static str)],
    arguments: &[&str],
) -> Checked {
    let mut variables = world.variables();
    variables.extend_from_slice(more);
    let arguments: Vec<&str> = ["check"].into_iter().chain(arguments.iter().copied()).collect();
    let output = command(&variables, &arguments).output().await.expect("run check");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Checked { code: output.status.code(), text }
}

async fn check(world: &World) -> Checked {
    check_with(world, &[], &[]).await
}

impl Checked {
    /// The lines of all faults.
    fn faults(&self) -> Vec<&str> {
        self.text.lines().filter(|line| line.starts_with("  ✗ ")).collect()
    }

    fn assert_healthy(&self) {
        assert!(
            self.faults().is_empty() && self.code == Some(0),
            "exit {:?}\n{}",
            self.code,
            self.text
        );
    }

    /// Asserts that a fault line contains all of `expected`.
    fn assert_fault(&self, expected: &[&str]) {
        let found =
            self.faults().iter().any(|line| expected.iter().all(|part| line.contains(part)));
        assert!(found && self.code == Some(1), "{expected:?}, exit {:?}\n{}", self.code, self.text);
    }

    /// The statements that are printed for faults, each with whether it is for the source.
    fn fixes(&self) -> Vec<(bool, String)> {
        let mut fixes = Vec::new();
        let mut at_source = None;
        let mut fault = false;
        for line in self.text.lines() {
            if let Some(statement) = line.strip_prefix("        ") {
                if let (true, Some(at_source)) = (fault, at_source) {
                    fixes.push((at_source, statement.to_owned()));
                }
            } else if let Some(label) = line.strip_prefix("      ") {
                at_source = match label {
                    "run at the destination:" => Some(false),
                    source if source.starts_with("run at the source ") => Some(true),
                    _ => None,
                };
            } else {
                fault = line.starts_with("  ✗ ");
                at_source = None;
            }
        }
        fixes
    }
}

/// Executes the statements that `check` printed, as an administrator.
async fn fix(world: &World, checked: &Checked) {
    let fixes = checked.fixes();
    assert!(!fixes.is_empty(), "{}", checked.text);
    let (mut source, mut dest): (Sql, Sql) =
        (world.source("master").await, world.dest("master").await);
    for (at_source, statement) in fixes {
        if at_source { source.run(&statement).await } else { dest.run(&statement).await }
    }
}

/// Fixes and checks again until there is no fault: a fix may reveal the next fault (a login that can
/// connect now lacks its next permission).
async fn fix_all(world: &World) -> Checked {
    const ROUNDS_MAX: usize = 6;
    for _ in 0..ROUNDS_MAX {
        let checked = check(world).await;
        if checked.faults().is_empty() {
            return checked;
        }
        fix(world, &checked).await;
    }
    check(world).await
}

/// A world without faults, with one mapping that follows `dbo.T` by CDC.
async fn healthy() -> World {
    let world = World::new().await;
    world.both("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(20) NULL, Resync BIT NOT NULL DEFAULT 0)").await;
    world.enable_cdc(&["T"]).await;
    world.map("T", "ID", Some("Resync"), true).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_world_has_no_fault_and_check_writes_nothing() {
    let world = healthy().await;
    let logs = "SELECT (SELECT COUNT(*) FROM sync_logs) + (SELECT COUNT(*) FROM error_logs) + (SELECT COUNT(*) FROM sync_status)";
    let before = world.control().await.scalar(logs).await;
    let checked = check(&world).await;
    checked.assert_healthy();
    for expected in [
        "✓ version",
        "✓ clock",
        "✓ encryption",
        "✓ control rights",
        "✓ rights",
        "✓ availability group",
        "✓ destination rights",
        "✓ foreign keys",
        "✓ CDC ",
        "✓ SQL Server Agent",
        "✓ capture job",
        "✓ retention",
        "✓ source rights",
        "✓ columns and key",
        "✓ trigger column",
        "✓ trigger index",
        "✓ capture instance",
        "✓ captured columns",
    ] {
        assert!(checked.text.contains(expected), "{expected} in\n{}", checked.text);
    }
    assert_eq!(world.control().await.scalar(logs).await, before, "check is read-only");
    assert!(!checked.text.contains(crate::harness::PASSWORD), "{}", checked.text);
}

/// CDC is off; columns are too narrow or NOT NULL; there is no key; an INSTEAD OF trigger; a table is
/// missing; the retention of changes is one hour.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_do_not_fit_are_fixed_by_the_printed_statements() {
    crate::only_on_standins!("fault points");
    let world = World::new().await;
    let mut shop = world.shop().await;
    let mut copy = world.copy().await;
    shop.run("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V NVARCHAR(50) NULL, W BIGINT NULL, X INT NULL)").await;
    copy.run("CREATE TABLE dbo.T (ID INT NOT NULL, V NVARCHAR(20) NULL, W INT NULL, X INT NOT NULL, Extra INT NOT NULL)").await;
    shop.run("CREATE TABLE dbo.U (ID INT NOT NULL PRIMARY KEY, Price MONEY NULL, Note VARCHAR(MAX) NULL)").await;
    world.both("CREATE TABLE dbo.I (ID INT NOT NULL PRIMARY KEY)").await;
    copy.run("CREATE TRIGGER dbo.tr ON dbo.I INSTEAD OF INSERT AS SELECT 1").await;
    world.map("T", "ID", None, true).await;
    world.map("U", "ID", None, false).await;
    world.map("I", "ID", None, false).await;
    let checked = check(&world).await;
    checked.assert_fault(&["CDC", "is not enabled for the database"]);
    checked.assert_fault(&[
        "columns and key",
        "does not fit",
        "[X] may be NULL",
        "[Extra]",
        "no primary key",
    ]);
    checked.assert_fault(&["destination table", "Copy.dbo.U does not exist"]);
    checked.assert_fault(&["columns and key", "INSTEAD OF trigger [tr]"]);
    fix(&world, &checked).await;
    let checked = check(&world).await;
    assert_eq!(checked.faults().len(), 1, "{}", checked.text);
    checked.assert_fault(&["capture instance", "there is none"]);
    fix(&world, &checked).await;
    check(&world).await.assert_healthy();
    shop.run("EXEC sys.sp_cdc_change_job @job_type = N'cleanup', @retention = 60").await;
    let checked = check(&world).await;
    checked.assert_fault(&["retention", "60 minutes"]);
    fix(&world, &checked).await;
    check(&world).await.assert_healthy();
}

/// A login at both servers that can only connect: the printed GRANT statements are all that it needs,
/// and the daemon then works.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_grants_are_all_that_a_new_login_needs() {
    crate::only_on_standins!("fault points");
    let world = healthy().await;
    for (mut server, databases) in [
        (world.source("master").await, vec!["Shop"]),
        (world.dest("master").await, vec!["Copy", "dbaops_dataflow"]),
    ] {
        server.run("CREATE LOGIN little WITH PASSWORD = 'L1ttle-pw'").await;
        for database in databases {
            server.run(&format!("USE {database}; CREATE USER little FOR LOGIN little;")).await;
        }
    }
    let string = world
        .source_connection_string("Shop")
        .replace("user id=sa", "user id=little")
        .replace(crate::harness::PASSWORD, "L1ttle-pw");
    let mut control = world.control().await;
    control
        .run(&format!(
            "UPDATE source_servers SET connection_string = N'{}'",
            string.replace('\'', "''")
        ))
        .await;
    const LITTLE: [(&str, &str); 2] = [("DEST_USER", "little"), ("DEST_PASS", "L1ttle-pw")];
    let mut seen = String::new();
    let mut rounds = 0;
    let last = loop {
        let checked = check_with(&world, &LITTLE, &[]).await;
        rounds += 1;
        seen.push_str(&checked.text);
        if checked.faults().is_empty() || rounds == 8 {
            break checked;
        }
        fix(&world, &checked).await;
    };
    last.assert_healthy();
    for expected in
        ["lacks SELECT", "CREATE TABLE", "UPDATE on [Resync]", "GRANT SELECT ON SCHEMA::cdc"]
    {
        assert!(seen.contains(expected), "{expected} in\n{seen}");
    }
    assert!(
        last.text.contains("– SQL Server Agent"),
        "a check that the login has no permission for is not marked as skipped\n{}",
        last.text
    );
    // recommended, and no fault: without it the full sync of a database without writes waits for the
    // next commit
    assert!(
        last.text.contains("        USE [Shop]; GRANT VIEW DATABASE STATE TO [little];"),
        "{}",
        last.text
    );
    world.source("master").await.run("USE [Shop]; GRANT VIEW DATABASE STATE TO [little];").await;
    world.shop().await.run("INSERT INTO dbo.T (ID, V) VALUES (1, N'a')").await;
    world.request_full_sync(1).await;
    let daemon = world.daemon_with(&LITTLE);
    world.run_ends(1, "FULL_SYNC", "COMPLETED").await;
    world.shop().await.run("UPDATE dbo.T SET V = N'b'").await;
    world.in_sync("dbo.T", "ID").await;
    drop(daemon);
}

/// A capture instance with a gating role, and a trigger column that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn a_gating_role_and_a_missing_trigger_column_are_fixed_by_the_printed_statements() {
    crate::only_on_standins!("fault points");
    let world = healthy().await;
    let mut shop = world.shop().await;
    shop.run("EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'T', @capture_instance = N'all'").await;
    shop.run("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'T', @role_name = N'cdc_reader'").await;
    shop.run(
        "CREATE LOGIN little WITH PASSWORD = 'L1ttle-pw'; CREATE USER little FOR LOGIN little",
    )
    .await;
    shop.run("GRANT SELECT ON SCHEMA::dbo TO little; GRANT SELECT ON SCHEMA::cdc TO little; GRANT UPDATE ON dbo.T TO little").await;
    let string = world
        .source_connection_string("Shop")
        .replace("user id=sa", "user id=little")
        .replace(crate::harness::PASSWORD, "L1ttle-pw");
    let mut control = world.control().await;
    control
        .run(&format!(
            "UPDATE source_servers SET connection_string = N'{}'",
            string.replace('\'', "''")
        ))
        .await;
    control.run("UPDATE table_mappings SET full_sync_trigger_column = N'Again'").await;
    let checked = check(&world).await;
    checked.assert_fault(&["capture instance", "cannot be read"]);
    checked.assert_fault(&["trigger column", "[Again] is not in"]);
    fix_all(&world).await.assert_healthy();
}

/// One server cannot be reached, one has a wrong password, one an invalid connection string: the
/// other servers are checked all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_stops_no_other_servers_checks() {
    crate::only_on_standins!("fault points");
    let world = healthy().await;
    let mut control = world.control().await;
    let wrong = world
        .source_connection_string("Shop")
        .replace(crate::harness::PASSWORD, "not-the-password");
    // a port on which nothing listens
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let unreachable =
        format!("server=127.0.0.1;port={closed};user id=sa;password=x;encrypt=disable");
    for (name, string) in [
        ("Unreachable", unreachable.as_str()),
        ("Wrong", wrong.as_str()),
        ("Invalid", "server=;;="),
    ] {
        control
            .run(&format!(
                "INSERT INTO source_servers (server_name, connection_string) VALUES (N'{name}', N'{}')",
                string.replace('\'', "''")
            ))
            .await;
    }
    let checked = check(&world).await;
    assert_eq!(checked.faults().len(), 3, "{}", checked.text);
    checked.assert_fault(&["connects", &closed.to_string()]);
    checked.assert_fault(&["connects", "18456"]);
    checked.assert_fault(&["connection_string", "Invalid"]);
    assert!(!checked.text.contains("not-the-password"), "{}", checked.text);
    assert!(checked.text.contains("✓ capture instance"), "{}", checked.text);
    // only the mapping without a fault
    check_with(&world, &[], &["--mapping", "1"]).await.assert_healthy();
}

/// An address of this machine other than loopback, if it has one. Connecting a UDP socket sends
/// nothing.
fn other_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket
        .local_addr()
        .ok()
        .map(|address| address.ip())
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// Encryption without a check of the certificate is a fault, except for a server on this machine:
/// over a network another server could answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_checked_is_a_fault_off_this_machine() {
    crate::only_on_standins!("an address of its own");
    let Some(address) = other_address() else {
        return println!("skipped: this machine has no other address");
    };
    let world = healthy().await;
    let far = Server::builder()
        .host(address)
        .login(USER, PASSWORD)
        .start()
        .await
        .expect("start a server");
    let string = |host: &str, tls: &str| {
        format!(
            "server={host};port={};user id={USER};password=\"{PASSWORD}\";{tls}",
            far.addr().port()
        )
        .replace('\'', "''")
    };
    let mut control = world.control().await;
    let unchecked = string(&address.to_string(), "encrypt=true;trustservercertificate=true");
    control.run(&format!("INSERT INTO source_servers (server_name, connection_string) VALUES (N'Far', N'{unchecked}')")).await;
    let checked = check(&world).await;
    assert_eq!(checked.faults().len(), 1, "{}", checked.text);
    checked.assert_fault(&["encryption", "any certificate is believed"]);
    assert!(
        checked.text.contains("certificate=file") && !checked.text.contains("encrypt=disable"),
        "{}",
        checked.text
    );
    // the server's self-signed certificate is its own authority
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("far-{}.pem", std::process::id()));
    std::fs::write(&file, far.certificate_pem()).expect("write the certificate");
    let checked_string = string(
        &address.to_string(),
        &format!("encrypt=true;certificate={};hostNameInCertificate=localhost", file.display()),
    );
    control
        .run(&format!(
            "UPDATE source_servers SET connection_string = N'{checked_string}' WHERE server_name = N'Far'"
        ))
        .await;
    check(&world).await.assert_healthy();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_control_database_is_fixed_by_init() {
    let world = World::new().await;
    world.dest("master").await.run("DROP DATABASE dbaops_dataflow").await;
    let checked = check(&world).await;
    checked.assert_fault(&["control database", "cannot be opened"]);
    assert!(
        checked.text.contains("set for the service:\n        dbaops-dataflow init"),
        "{}",
        checked.text
    );
}

/// Foreign keys and triggers of the destination are listed, and are no faults.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_and_triggers_at_the_destination_are_listed() {
    let world = healthy().await;
    let mut copy = world.copy().await;
    copy.run("CREATE TABLE dbo.Child (ID INT NOT NULL PRIMARY KEY, T INT NULL CONSTRAINT FK_Child_T REFERENCES dbo.T (ID))").await;
    copy.run("CREATE TRIGGER dbo.watch ON dbo.T AFTER UPDATE AS SELECT 1").await;
    let checked = eventually("check", async || {
        let checked = check(&world).await;
        if checked.code == Some(0) { Ok(checked) } else { Err(checked.text) }
    })
    .await;
    assert!(
        checked.text.contains("– foreign keys         FK_Child_T (Child -> T)"),
        "{}",
        checked.text
    );
    assert!(checked.text.contains("– triggers             [watch] fires"), "{}", checked.text);
    // A foreign key with ON DELETE CASCADE is a fault, and its fix can be executed as printed.
    copy.run("CREATE TABLE dbo.Pet (ID INT NOT NULL PRIMARY KEY, T INT NULL CONSTRAINT FK_Pet_T REFERENCES dbo.T (ID) ON DELETE CASCADE)")
        .await;
    let checked = check(&world).await;
    assert!(
        checked.code == Some(1)
            && checked.text.contains("[FK_Pet_T] deletes or changes rows of [dbo].[Pet]"),
        "{}",
        checked.text
    );
    copy.run("ALTER TABLE [dbo].[Pet] DROP CONSTRAINT [FK_Pet_T]; ALTER TABLE [dbo].[Pet] WITH CHECK ADD CONSTRAINT [FK_Pet_T] FOREIGN KEY ([T]) REFERENCES [dbo].[T] ([ID])").await;
    assert!(
        checked.text.contains("ALTER TABLE [dbo].[Pet] DROP CONSTRAINT [FK_Pet_T]; ALTER TABLE [dbo].[Pet] WITH CHECK ADD"),
        "{}",
        checked.text
    );
    assert_eq!(check(&world).await.code, Some(0));
}

/// Asserts that the text has no control characters, no right-to-left override and no zero-width
/// character.
fn assert_plain(text: &str) {
    let unprintable =
        |c: char| (c.is_control() && c != '\n') || ['\u{200b}', '\u{202e}'].contains(&c);
    assert!(!text.contains(unprintable), "{text:?}");
    assert!(!text.lines().any(|line| line.trim_start().starts_with("✓ forged")), "{text}");
}

/// Names of a server, a table and a column, and a server's message, contain text that would clear the
/// screen, reverse text and forge lines. Commands and the log print it escaped, printed statements
/// still work, and the log tables have the text unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn text_from_servers_controls_no_terminal_and_forges_no_line() {
    crate::only_on_standins!("fault points");
    const HOSTILE: &str = "\u{1b}[2J\u{7}\r\n  ✓ forged\u{202e}\u{200b}";
    // a table name with control characters is refused, one with other invisible characters is not
    const TABLE: &str = "T\u{202e}\u{200b}]$(x)'";
    let name = TABLE.replace(']', "]]");
    let world = World::new().await;
    world
        .shop()
        .await
        .run(&format!(
            "CREATE TABLE dbo.[{name}] (ID INT NOT NULL PRIMARY KEY, [V{HOSTILE}] NVARCHAR(20) NULL)"
        ))
        .await;
    let mapping = world.map(TABLE, "ID", None, true).await;
    let mut control = world.control().await;
    control.run(&format!("UPDATE source_servers SET server_name = N'Source{HOSTILE}'")).await;
    let mut seen = String::new();
    // first: CDC is off for the database, the destination table is missing; then: no capture instance
    for faults in [2, 1] {
        let checked = check(&world).await;
        assert_plain(&checked.text);
        assert_eq!(checked.faults().len(), faults, "{}", checked.text);
        seen.push_str(&checked.text);
        fix(&world, &checked).await;
    }
    let checked = check(&world).await;
    assert_plain(&checked.text);
    checked.assert_healthy();
    for expected in [
        "CREATE TABLE [dbo].[T' + NCHAR(8238) + NCHAR(8203) + N']]",
        "[V' + NCHAR(27) + N'[2J",
        "sp_cdc_enable_table",
        "run at the source Source\\u{1b}[2J",
    ] {
        assert!(seen.contains(expected), "{expected} in\n{seen}");
    }
    let id = mapping.to_string();
    // no daemon runs that could advance the checkpoint: there is nothing to wait for
    let mut variables = world.variables();
    variables.push(("DATAFLOW_VERIFY_WAIT", "1s"));
    world.pretend_daemon().await;
    let commands: [(&[&str], i32); 4] =
        [(&["status"], 0), (&["verify"], 3), (&["sync", "--mapping", &id], 0), (&["status"], 0)];
    for (arguments, code) in commands {
        let output = command(&variables, arguments).output().await.expect("run a command");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_plain(&text);
        assert!(
            output.status.code() == Some(code)
                && text.contains("Shop.dbo.T\\u{202e}\\u{200b}]$(x)'"),
            "{arguments:?}\n{text}"
        );
    }
    // a message of the server
    let refused = world.source.faults().always(
        Point::request("FROM [dbo].[T"),
        Fault::ErrorBefore(SqlError::new(50_000, 16, HOSTILE)),
    );
    world.request_full_sync(mapping).await;
    let daemon = world.daemon();
    eventually("the server's message, unchanged, in error_logs", async || {
        let unchanged = "SELECT COUNT(*) FROM error_logs WHERE error_message LIKE N'%Msg 50000%' AND CHARINDEX(NCHAR(27), error_message) > 0";
        match world.control().await.scalar(unchanged).await.as_str() {
            "0" => Err(daemon.output()),
            _ => Ok(()),
        }
    })
    .await;
    daemon.wait_for_line(&["\\u{1b}[2J\\u{7}\\r\\n  ✓ forged\\u{202e}\\u{200b} (Msg 50000"]).await;
    assert_plain(&daemon.output());
    refused.disarm();
}
