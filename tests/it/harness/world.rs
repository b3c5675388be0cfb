//! The environment of one scenario: a source server, and a destination server with a control
//! database.

use mssql_standin::server::{Builder, Server};

use super::{
    client::{Grid, Sql},
    daemon::{Daemon, command},
    servers::{self, ServersLease},
    test_server::{PASSWORD, TestServer, USER},
    wait::eventually,
};

/// The directory for the daemon's statements. A third-party T-SQL parser checks them later.
const DAEMON_SQL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/daemon-sql");
/// The directory where each stand-in records which parts of its T-SQL surface were used.
const SURFACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/surface");

/// Two servers. The source has the database `Shop`; the destination has the database `Copy` and the
/// control database.
pub struct World {
    pub source: TestServer,
    pub dest: TestServer,
    /// on external servers; the last field, because dropping it drops the databases
    _lease: Option<ServersLease>,
}

impl World {
    pub async fn new() -> World {
        World::with(|builder| builder).await
    }

    /// Does not record the daemon's statements for the parser: for scenarios that corrupt them on
    /// the network.
    pub async fn without_statement_files() -> World {
        World::build(|builder| builder, |builder| builder).await
    }

    /// Configures the source stand-in before it starts; no effect on an external server.
    pub async fn with(configure: impl FnOnce(Builder) -> Builder) -> World {
        World::build(configure, |builder| builder.statement_files(DAEMON_SQL, "dbaops-dataflow"))
            .await
    }

    /// Configures the destination stand-in before it starts; no effect on an external server.
    pub async fn with_dest(configure: impl FnOnce(Builder) -> Builder) -> World {
        World::build_both(
            |builder| builder,
            configure,
            |builder| builder.statement_files(DAEMON_SQL, "dbaops-dataflow"),
        )
        .await
    }

    async fn build(
        configure: impl FnOnce(Builder) -> Builder,
        record: impl Fn(Builder) -> Builder,
    ) -> World {
        World::build_both(configure, |builder| builder, record).await
    }

    async fn build_both(
        configure_source: impl FnOnce(Builder) -> Builder,
        configure_dest: impl FnOnce(Builder) -> Builder,
        record: impl Fn(Builder) -> Builder,
    ) -> World {
        let world = match servers::servers() {
            Some(servers) => {
                let lease = servers.acquire().await;
                let external = |endpoint| TestServer::External { servers, endpoint };
                World {
                    source: external(&servers.source),
                    dest: external(&servers.dest),
                    _lease: Some(lease),
                }
            }
            None => {
                let builder = || {
                    record(Server::builder().port(0).login(USER, PASSWORD).surface_files(SURFACE))
                };
                let source =
                    configure_source(builder()).start().await.expect("start the source server");
                let dest =
                    configure_dest(builder()).start().await.expect("start the destination server");
                let standin = |server| TestServer::Standin(Box::new(server));
                let world = World { source: standin(source), dest: standin(dest), _lease: None };
                world.source("master").await.run("CREATE DATABASE Shop").await;
                world.dest("master").await.run("CREATE DATABASE [Copy]").await;
                world
            }
        };
        let init = command(&world.variables(), &["init"]).output().await.expect("run init");
        assert!(
            init.status.success(),
            "init: {}{}",
            String::from_utf8_lossy(&init.stdout),
            String::from_utf8_lossy(&init.stderr)
        );
        if let Some(servers) = servers::servers() {
            servers.mark_control().await;
        }
        let connection_string = world.source_connection_string("Shop").replace('\'', "''");
        world
            .control()
            .await
            .run(&format!("INSERT INTO source_servers (server_name, connection_string) VALUES (N'Source1', N'{connection_string}')"))
            .await;
        world
    }

    /// A connection string to the source in the form that docs/setup.md shows.
    pub fn source_connection_string(&self, database: &str) -> String {
        self.source.connection_string(database)
    }

    /// Makes the daemon log in at the source as a login that the scenario created.
    pub async fn connect_as(&self, user: &str, password: &str) {
        let string = self.source.connection_string_of(user, password, "Shop").replace('\'', "''");
        self.control()
            .await
            .run(&format!("UPDATE source_servers SET connection_string = N'{string}'"))
            .await;
    }

    /// The daemon's environment: what a user has to set, and intervals short enough for a test.
    pub fn variables(&self) -> Vec<(&'static str, &'static str)> {
        let mut variables: Vec<(&'static str, &'static str)> =
            self.dest.variables().into_iter().map(|(name, value)| (name, &*value.leak())).collect();
        variables.extend([
            ("DATAFLOW_CHECK_INTERVAL", "100ms"),
            ("DATAFLOW_VERIFY_INTERVAL", "1s"),
            ("DATAFLOW_RETRY_DELAY", "200ms"),
        ]);
        variables
    }

    pub fn daemon(&self) -> Daemon {
        Daemon::start(&self.variables())
    }

    pub fn daemon_with(&self, more: &[(&'static str, &'static str)]) -> Daemon {
        let mut variables = self.variables();
        variables.extend_from_slice(more);
        Daemon::start(&variables)
    }

    /// The heartbeat of a daemon that will live for the whole scenario, where none runs.
    pub async fn pretend_daemon(&self) {
        self.control()
            .await
            .run("INSERT INTO daemons (place, beat_at) VALUES (1000, DATEADD(DAY, 1, SYSUTCDATETIME()))")
            .await;
    }

    pub async fn source(&self, database: &str) -> Sql {
        self.source.connect(database).await
    }

    pub async fn dest(&self, database: &str) -> Sql {
        self.dest.connect(database).await
    }

    pub async fn shop(&self) -> Sql {
        self.source("Shop").await
    }

    pub async fn copy(&self) -> Sql {
        self.dest("Copy").await
    }

    pub async fn control(&self) -> Sql {
        self.dest("dbaops_dataflow").await
    }

    /// Runs the same script at the source and at the destination.
    pub async fn both(&self, script: &str) {
        self.shop().await.script(script).await;
        self.copy().await.script(script).await;
    }

    /// Enables CDC for the source database, unless it is enabled, and for these tables of it.
    pub async fn enable_cdc(&self, tables: &[&str]) {
        let mut shop = self.shop().await;
        if shop
            .scalar(
                "SELECT CAST(is_cdc_enabled AS int) FROM sys.databases WHERE database_id = DB_ID()",
            )
            .await
            != "1"
        {
            shop.run("EXEC sys.sp_cdc_enable_db").await;
        }
        for table in tables {
            shop.run(&format!(
                "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{}', @role_name = NULL",
                table.replace('\'', "''")
            ))
            .await;
        }
    }

    /// Adds a mapping from `Shop.dbo.table` to `Copy.dbo.table` and returns its id. It begins at the
    /// first change (`initial_sync = 'NONE'`), so that a scenario has the full syncs that it asks for
    /// and no other.
    pub async fn map(&self, table: &str, key: &str, trigger: Option<&str>, cdc: bool) -> i32 {
        let mapping = self.map_as_users_do(table, key, trigger, cdc).await;
        let none = format!(
            "UPDATE table_mappings SET initial_sync = N'NONE' WHERE mapping_id = {mapping}"
        );
        self.control().await.run(&none).await;
        mapping
    }

    /// The same with the default for `initial_sync`: a CDC mapping whose destination is empty is
    /// loaded first.
    pub async fn map_as_users_do(
        &self,
        table: &str,
        key: &str,
        trigger: Option<&str>,
        cdc: bool,
    ) -> i32 {
        let trigger = trigger
            .map_or("NULL".to_owned(), |column| format!("N'{}'", column.replace('\'', "''")));
        let table = table.replace('\'', "''");
        let key = key.replace('\'', "''");
        let mut control = self.control().await;
        control
            .run(&format!(
                "INSERT INTO table_mappings (server_id, source_database, source_schema, source_table, dest_database, dest_schema, dest_table, \
                 primary_key_column, full_sync_trigger_column, is_enabled, cdc_enabled) \
                 VALUES (1, N'Shop', N'dbo', N'{table}', N'Copy', N'dbo', N'{table}', N'{key}', {trigger}, 1, {})",
                u8::from(cdc)
            ))
            .await;
        control
            .scalar(&format!(
                "SELECT mapping_id FROM table_mappings WHERE source_table = N'{table}'"
            ))
            .await
            .parse()
            .expect("a mapping id")
    }

    pub async fn request_full_sync(&self, mapping: i32) {
        self.control()
            .await
            .run(&format!(
                "UPDATE table_mappings SET full_sync_requested = 1 WHERE mapping_id = {mapping}"
            ))
            .await;
    }

    /// The rows of a table at the source and at the destination, as exact text in key order.
    pub async fn both_tables(&self, table: &str, key: &str) -> (Grid, Grid) {
        let mut shop = self.shop().await;
        let mut copy = self.copy().await;
        let columns = copy.exact_columns(table).await;
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        (shop.rows_of(table, &columns, key).await, copy.rows_of(table, &columns, key).await)
    }

    /// Waits until the destination table has the same rows as the source table.
    pub async fn in_sync(&self, table: &str, key: &str) {
        eventually(&format!("{table} to be in sync"), async || {
            let (source, dest) = self.both_tables(table, key).await;
            if source == dest { Ok(()) } else { Err(difference(&source, &dest)) }
        })
        .await;
    }

    /// Waits until the newest run of this kind has this status, and returns its row of
    /// `sync_status`.
    pub async fn run_ends(&self, mapping: i32, sync_type: &str, status: &str) -> Grid {
        let mut control = self.control().await;
        eventually(&format!("mapping {mapping}'s {sync_type} to be {status}"), async || {
            let runs = control
                .query(&format!(
                    "SELECT TOP (1) status, records_processed, records_failed, error_message, completed_at FROM sync_status \
                     WHERE mapping_id = {mapping} AND sync_type = '{sync_type}' ORDER BY status_id DESC"
                ))
                .await;
            if runs.first() == status { Ok(runs) } else { Err(runs.to_string()) }
        })
        .await
    }

    /// Waits until the newest comparison of rows has this status, and returns its row of
    /// `verification_logs`.
    pub async fn verified(&self, mapping: i32, status: &str) -> Grid {
        let mut control = self.control().await;
        eventually(&format!("mapping {mapping} to be verified as {status}"), async || {
            let runs = control
                .query(&format!(
                    "SELECT TOP (1) verification_status, source_row_count, dest_row_count, records_compared, mismatches_found, source_md5, \
                     dest_md5, verification_details FROM verification_logs \
                     WHERE mapping_id = {mapping} AND verification_type = 'MD5_COMPARISON' ORDER BY verification_id DESC"
                ))
                .await;
            if runs.first() == status { Ok(runs) } else { Err(runs.to_string()) }
        })
        .await
    }
}

/// The first rows that only one of the two tables has, for an assertion message.
pub fn difference(source: &Grid, dest: &Grid) -> String {
    const ROWS_SHOWN: usize = 5;
    let only = |a: &Grid, b: &Grid| -> Vec<String> {
        let known: std::collections::HashSet<&Vec<String>> = b.rows.iter().collect();
        a.rows
            .iter()
            .filter(|row| !known.contains(row))
            .take(ROWS_SHOWN)
            .map(|row| row.join(" | "))
            .collect()
    };
    format!(
        "{} rows in the source, {} in the destination\nonly in the source:\n  {}\nonly in the destination:\n  {}",
        source.rows.len(),
        dest.rows.len(),
        only(source, dest).join("\n  "),
        only(dest, source).join("\n  ")
    )
}
