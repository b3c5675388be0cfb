//! The servers, their tables, the writers, and the proxies between the servers and the daemon.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use mssql_standin::{
    cdc::{CaptureConfig, CaptureMode},
    proxy::Proxy,
    server::Server,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::watch;

use crate::client::{Sql, numbers};

pub const SOURCES: usize = 3;
/// Tables of each source, without the heartbeat table that the lag is measured with.
pub const TABLES: usize = 8;
pub const APPLICATION: &str = "dbaops-dataflow";
/// The daemon's limit of connections to the destination.
pub const DEST_CONNECTIONS: usize = 24;
/// The daemon's limit of connections to each source.
pub const SOURCE_CONNECTIONS: usize = 6;
const USER: &str = "sa";
const PASSWORD: &str = "Soak-Passw0rd";
const ROWS: usize = 500;
/// The maximum of the random time by which capture lags.
const CAPTURE_LAG_MS: u64 = 1_000;
/// The pause of a writer between two transactions.
const WRITER_PAUSE: Duration = Duration::from_millis(25);
/// The pause of the first source's writer: less than a transaction takes.
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// The time between two evaluations of a condition that is waited for.
const POLL: Duration = Duration::from_millis(100);

/// A source server with its proxy, and the heartbeats (id and commit time) that its writer has
/// committed and that have not been seen at the destination.
pub struct Source {
    pub server: Server,
    pub link: Proxy,
    pub heartbeats: Arc<Mutex<VecDeque<(i64, Instant)>>>,
}

pub struct Fixture {
    pub sources: Vec<Source>,
    pub dest: Server,
    pub dest_link: Proxy,
}

fn table(number: usize) -> String {
    if number == TABLES { "Heartbeat".to_owned() } else { format!("T{number}") }
}

/// The destination database of a source.
fn copy_of(source: usize) -> String {
    format!("Copy{source}")
}

impl Fixture {
    pub async fn new(random: &mut StdRng) -> anyhow::Result<Fixture> {
        let dest = Server::builder().login(USER, PASSWORD).seed(random.random()).start().await?;
        let dest_link = Proxy::start(dest.addr()).await?;
        let mut fixture = Fixture { sources: Vec::new(), dest, dest_link };
        let config = dbaops_dataflow::config::Config::from_vars(fixture.variables())?;
        dbaops_dataflow::control::init(&config).await?;
        for number in 0..SOURCES {
            let capture = CaptureConfig {
                mode: CaptureMode::Delayed { min_ms: 0, max_ms: CAPTURE_LAG_MS },
                poll: Duration::from_millis(50),
            };
            let server = Server::builder()
                .login(USER, PASSWORD)
                .seed(random.random())
                .capture(capture)
                .start()
                .await?;
            let link = Proxy::start(server.addr()).await?;
            fixture.sources.push(Source { server, link, heartbeats: Arc::default() });
            fixture.set_up_source(number).await?;
        }
        Ok(fixture)
    }

    /// Creates a source's tables at both servers, their rows, CDC and mappings, and requests full syncs.
    async fn set_up_source(&self, number: usize) -> anyhow::Result<()> {
        let source = &self.sources[number];
        Sql::connect(source.server.addr(), USER, PASSWORD, "master")
            .await?
            .run("CREATE DATABASE Shop")
            .await;
        Sql::connect(self.dest.addr(), USER, PASSWORD, "master")
            .await?
            .run(&format!("CREATE DATABASE {}", copy_of(number)))
            .await;
        let (mut shop, mut copy, mut control) =
            (self.shop(number).await?, self.copy(number).await?, self.control().await?);
        let addr = source.link.addr();
        control
            .run(&format!(
                "INSERT INTO source_servers (server_name, connection_string) VALUES (N'Source{number}', \
                 N'server={};port={};user id={USER};password={PASSWORD};database=Shop;encrypt=disable;connection timeout=5')",
                addr.ip(),
                addr.port()
            ))
            .await;
        shop.run("EXEC sys.sp_cdc_enable_db").await;
        for t in (0..=TABLES).map(table) {
            let create = format!(
                "CREATE TABLE dbo.{t} (ID BIGINT NOT NULL PRIMARY KEY, V INT NOT NULL, Amount DECIMAL(18,4) NULL, Words NVARCHAR(MAX) NULL, \
                 At DATETIME2(7) NULL)"
            );
            shop.run(&create).await;
            copy.run(&create).await;
            shop.run(&format!(
                "INSERT INTO dbo.{t} (ID, V, Words) SELECT n, 0, CONCAT(N'row ', n) FROM {}",
                numbers(ROWS)
            ))
            .await;
            shop.run(&format!("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{t}', @role_name = NULL")).await;
            control
                .run(&format!(
                    "INSERT INTO table_mappings (server_id, source_database, source_schema, source_table, dest_database, dest_schema, \
                     dest_table, primary_key_column, is_enabled, cdc_enabled, full_sync_requested) \
                     SELECT server_id, N'Shop', N'dbo', N'{t}', N'{}', N'dbo', N'{t}', N'ID', 1, 1, 1 FROM source_servers WHERE server_name = N'Source{number}'",
                    copy_of(number)
                ))
                .await;
        }
        Ok(())
    }

    /// The daemon's environment.
    pub fn variables(&self) -> Vec<(String, String)> {
        let addr = self.dest_link.addr();
        let server = format!("{},{}", addr.ip(), addr.port());
        let (dest, source) = (DEST_CONNECTIONS.to_string(), SOURCE_CONNECTIONS.to_string());
        [
            ("DEST_SERVER", server.as_str()),
            ("DEST_USER", USER),
            ("DEST_PASS", PASSWORD),
            ("DEST_ENCRYPT", "disable"),
            ("DATAFLOW_CHECK_INTERVAL", "250ms"),
            ("DATAFLOW_VERIFY_INTERVAL", "2s"),
            ("DATAFLOW_VERIFY_ROWS", "1000"),
            ("DATAFLOW_VERIFY_SWEEP_ROWS", "1000"),
            ("DATAFLOW_VERIFY_STRUCTURE_INTERVAL", "20s"),
            ("DATAFLOW_STATEMENT_TIMEOUT", "10s"),
            ("DATAFLOW_LONG_STATEMENT_TIMEOUT", "20s"),
            ("DATAFLOW_LOCK_TIMEOUT", "5s"),
            ("DATAFLOW_RETRY_DELAY", "500ms"),
            ("DATAFLOW_MAX_CONNECTIONS", dest.as_str()),
            ("DATAFLOW_SOURCE_CONNECTIONS", source.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    pub fn mappings(&self) -> usize {
        self.sources.len() * (TABLES + 1)
    }

    async fn shop(&self, source: usize) -> anyhow::Result<Sql> {
        Ok(Sql::connect(self.sources[source].server.addr(), USER, PASSWORD, "Shop").await?)
    }

    pub async fn copy(&self, source: usize) -> anyhow::Result<Sql> {
        Ok(Sql::connect(self.dest.addr(), USER, PASSWORD, &copy_of(source)).await?)
    }

    pub async fn control(&self) -> anyhow::Result<Sql> {
        Ok(Sql::connect(self.dest.addr(), USER, PASSWORD, "dbaops_dataflow").await?)
    }

    /// Every server with its proxy, the destination last.
    pub fn servers(&self) -> Vec<(&Server, &Proxy)> {
        self.sources
            .iter()
            .map(|source| (&source.server, &source.link))
            .chain([(&self.dest, &self.dest_link)])
            .collect()
    }

    /// Writes to one source until `stopped` is true; returns the number of transactions. The first
    /// source's writer hardly pauses.
    pub fn writer(
        &self,
        source: usize,
        seed: u64,
        stopped: watch::Receiver<bool>,
    ) -> impl Future<Output = anyhow::Result<u64>> + Send + 'static {
        let addr = self.sources[source].server.addr();
        let heartbeats = self.sources[source].heartbeats.clone();
        let pause = if source == 0 { BUSY_PAUSE } else { WRITER_PAUSE };
        async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut shop = Sql::connect(addr, USER, PASSWORD, "Shop").await.ok();
            let mut next = 1_000_000i64;
            let mut written = 0;
            while !*stopped.borrow() {
                let Some(sql) = &mut shop else {
                    // The server restarts.
                    tokio::time::sleep(WRITER_PAUSE).await;
                    shop = Sql::connect(addr, USER, PASSWORD, "Shop").await.ok();
                    continue;
                };
                next += 1;
                let heartbeat = written % 10 == 0;
                match sql.try_run(&transaction(&mut random, next, heartbeat)).await {
                    Ok(()) => {
                        written += 1;
                        if heartbeat {
                            heartbeats
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push_back((next, Instant::now()));
                        }
                    }
                    // the deadlock victim goes on with another transaction
                    Err(error) if error.is_deadlock() => {}
                    // the server restarts
                    Err(_) => shop = None,
                }
                tokio::time::sleep(pause).await;
            }
            Ok(written)
        }
    }

    /// Requests a full sync of a mapping.
    pub async fn request_full_sync(&self, mapping: usize) -> anyhow::Result<()> {
        self.control()
            .await?
            .run(&format!(
                "UPDATE table_mappings SET full_sync_requested = 1 WHERE mapping_id = {mapping}"
            ))
            .await;
        Ok(())
    }

    /// Waits until every table is the same at the source and the destination.
    pub async fn wait_until_equal(&self, wait_max: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + wait_max;
        for source in 0..self.sources.len() {
            let (mut shop, mut copy) = (self.shop(source).await?, self.copy(source).await?);
            for t in (0..=TABLES).map(table) {
                let columns = ["ID", "V", "Amount", "Words", "At"];
                let name = format!("dbo.{t}");
                loop {
                    let (source_rows, dest_rows) = (
                        shop.rows_of(&name, &columns, "ID").await,
                        copy.rows_of(&name, &columns, "ID").await,
                    );
                    if source_rows == dest_rows {
                        break;
                    }
                    if Instant::now() > deadline {
                        let known: std::collections::HashSet<_> = dest_rows.rows.iter().collect();
                        let missing = source_rows.rows.iter().filter(|row| !known.contains(row));
                        bail!(
                            "{t} of source {source} differs: {} rows at the source, {} at the destination; only at the source: {:?}",
                            source_rows.rows.len(),
                            dest_rows.rows.len(),
                            missing.take(3).collect::<Vec<_>>()
                        );
                    }
                    tokio::time::sleep(POLL).await;
                }
            }
        }
        Ok(())
    }

    /// Waits until a new verification of every mapping has passed. Fails if any verification since the
    /// start was FAILED.
    pub async fn wait_until_verified(&self, wait_max: Duration) -> anyhow::Result<()> {
        let mut control = self.control().await?;
        let since =
            control.scalar("SELECT COALESCE(MAX(verification_id), 0) FROM verification_logs").await;
        let deadline = Instant::now() + wait_max;
        loop {
            let alarms = control
                .query("SELECT mapping_id, verification_type, verification_details FROM verification_logs WHERE verification_status = 'FAILED'")
                .await;
            ensure!(
                alarms.rows.is_empty(),
                "a verification was FAILED, although nothing was corrupted:\n{alarms}{:?}",
                alarms.rows.first()
            );
            let passed = control
                .scalar(&format!(
                    "SELECT COUNT(DISTINCT mapping_id) FROM verification_logs WHERE verification_id > {since} \
                     AND verification_type = 'MD5_COMPARISON' AND verification_status = 'PASSED'"
                ))
                .await;
            if passed == self.mappings().to_string() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "only {passed} of {} mappings passed a verification in the end",
                self.mappings()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until no server has a connection of the daemon, which has stopped.
    pub async fn wait_until_disconnected(&self, wait_max: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + wait_max;
        while self
            .servers()
            .iter()
            .any(|(server, _)| server.connection_count_of(APPLICATION).now > 0)
        {
            let left = || {
                self.servers()
                    .iter()
                    .map(|(server, _)| server.connection_count_of(APPLICATION).now)
                    .collect::<Vec<_>>()
            };
            ensure!(
                Instant::now() < deadline,
                "the daemon has stopped, and the servers still have {:?} connections of it",
                left()
            );
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// One transaction: updates, inserts and deletes rows of some tables, with `heartbeat` also a
/// heartbeat.
fn transaction(random: &mut StdRng, next: i64, heartbeat: bool) -> String {
    let mut sql = String::from("BEGIN TRANSACTION;");
    for _ in 0..random.random_range(1..4) {
        let t = table(random.random_range(0..TABLES));
        sql += &match random.random_range(0..4) {
            0 => format!(
                "INSERT INTO dbo.{t} (ID, V, Amount, Words, At) VALUES ({next} * 10 + {}, 0, {next}.25, N'new', SYSUTCDATETIME());",
                random.random_range(0..10)
            ),
            1 => format!("DELETE TOP (1) FROM dbo.{t} WHERE ID > {ROWS};"),
            2 => format!(
                "UPDATE dbo.{t} SET V = V + 1, At = SYSUTCDATETIME() WHERE ID % 50 = {};",
                random.random_range(0..50)
            ),
            _ => format!(
                "UPDATE dbo.{t} SET Words = REPLICATE(CAST(N'long ' AS nvarchar(max)), {}) WHERE ID = {};",
                random.random_range(1..2000),
                random.random_range(1..=ROWS)
            ),
        };
        // a second INSERT could have the same key
        if sql.matches("INSERT").count() > 1 {
            sql.truncate(sql.rfind("INSERT").unwrap_or(sql.len()));
        }
    }
    if heartbeat {
        sql += &format!(
            "DELETE FROM dbo.Heartbeat WHERE ID < {}; INSERT INTO dbo.Heartbeat (ID, V) VALUES ({next}, 0);",
            next - 2_000
        );
    }
    sql + "COMMIT TRANSACTION;"
}
