//! A source and a destination server with a control database, and tables at both servers.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::{
    process::{self, Spent},
    rows,
    sql::{self, PASSWORD, USER, Wire},
    standin::Standin,
};

/// How long to wait for the daemon at most: the stand-in takes minutes to append 256 pieces to a
/// value of 1 GiB.
const WAIT_MAX: Duration = Duration::from_secs(1_800);
/// The source database.
pub const SHOP: &str = "Shop";
/// The destination database.
pub const COPY: &str = "Copy";
const CONTROL: &str = "dbaops_dataflow";

pub struct Fixture {
    pub source: Standin,
    pub dest: Standin,
}

impl Fixture {
    pub async fn new() -> anyhow::Result<Fixture> {
        let fixture = Fixture { source: Standin::start().await?, dest: Standin::start().await? };
        sql::run(&mut fixture.source("master").await?, &format!("CREATE DATABASE {SHOP}")).await?;
        sql::run(&mut fixture.dest("master").await?, &format!("CREATE DATABASE [{COPY}]")).await?;
        process::finish(&fixture.variables(&[]), &["init"]).await?;
        fixture.server("Source", SHOP).await?;
        Ok(fixture)
    }

    pub async fn source(&self, database: &str) -> anyhow::Result<Wire> {
        sql::connect(self.source.addr, database).await
    }

    pub async fn dest(&self, database: &str) -> anyhow::Result<Wire> {
        sql::connect(self.dest.addr, database).await
    }

    pub async fn control(&self) -> anyhow::Result<Wire> {
        self.dest(CONTROL).await
    }

    /// A row of source_servers for a database of the source server.
    pub async fn server(&self, name: &str, database: &str) -> anyhow::Result<()> {
        let addr = self.source.addr;
        let row = format!(
            "INSERT INTO source_servers (server_name, connection_string) VALUES (N'{name}', \
             N'server={};port={};user id={USER};password={PASSWORD};database={database};encrypt=disable')",
            addr.ip(),
            addr.port()
        );
        sql::run(&mut self.control().await?, &row).await
    }

    /// The daemon's settings, with `more`. Verification is off, so that it does not disturb what is
    /// measured.
    pub fn variables(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let server = format!("{},{}", self.dest.addr.ip(), self.dest.addr.port());
        let defaults = [
            ("DEST_SERVER", server.as_str()),
            ("DEST_USER", USER),
            ("DEST_PASS", PASSWORD),
            ("DEST_ENCRYPT", "disable"),
            ("DATAFLOW_CHECK_INTERVAL", "100ms"),
            ("DATAFLOW_VERIFY_INTERVAL", "0"),
        ];
        defaults
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// Creates a table at both servers, with `rows` rows at the source, and its mapping.
    pub async fn table(&self, name: &str, rows: u64, cdc: bool) -> anyhow::Result<()> {
        let create = format!("CREATE TABLE dbo.{name} ({})", rows::COLUMNS);
        let mut shop = self.source(SHOP).await?;
        sql::run(&mut shop, &create).await?;
        sql::run(&mut self.dest(COPY).await?, &create).await?;
        rows::load(&mut shop, &format!("dbo.{name}"), (1..=i64::try_from(rows)?).map(rows::row))
            .await?;
        if cdc {
            if sql::number(
                &mut shop,
                "SELECT CAST(is_cdc_enabled AS int) FROM sys.databases WHERE database_id = DB_ID()",
            )
            .await?
                == 0
            {
                sql::run(&mut shop, "EXEC sys.sp_cdc_enable_db").await?;
            }
            let enable = format!(
                "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{name}', @role_name = NULL"
            );
            sql::run(&mut shop, &enable).await?;
        }
        let mapping = format!(
            "INSERT INTO table_mappings (server_id, source_database, source_table, dest_database, dest_table, primary_key_column, cdc_enabled, initial_sync) \
             VALUES (1, N'{SHOP}', N'{name}', N'{COPY}', N'{name}', N'ID', {}, N'NONE')",
            i32::from(cdc)
        );
        sql::run(&mut self.control().await?, &mapping).await
    }

    /// Requests a full sync of every mapping.
    pub async fn request_full_sync(&self) -> anyhow::Result<()> {
        sql::run(&mut self.control().await?, "UPDATE table_mappings SET full_sync_requested = 1")
            .await
    }

    /// Runs one tick of the daemon, with all work that is due, in a process of its own.
    pub async fn tick(&self, more: &[(&str, &str)]) -> anyhow::Result<Spent> {
        process::finish(&self.variables(more), &["run", "--once"]).await
    }

    /// Waits until a query on the control database returns `wanted`.
    pub async fn until(&self, sql: &str, wanted: i64) -> anyhow::Result<()> {
        let mut control = self.control().await?;
        let began = Instant::now();
        loop {
            let found = sql::number(&mut control, sql).await?;
            if found == wanted {
                return Ok(());
            }
            if began.elapsed() > WAIT_MAX {
                bail!("{sql} is {found}, not {wanted}, after {} s", WAIT_MAX.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every requested full sync has completed.
    pub async fn synced(&self) -> anyhow::Result<()> {
        self.until("SELECT COUNT(*) FROM table_mappings WHERE last_full_sync_at IS NULL OR full_sync_requested = 1", 0).await
    }

    /// Fails unless a table has the same row count and sums at the source and the destination.
    pub async fn check_equal(&self, name: &str) -> anyhow::Result<()> {
        let (mut shop, mut copy) = (self.source(SHOP).await?, self.dest(COPY).await?);
        for sum in ["COUNT_BIG(*)", "SUM(ID)", "SUM(CAST(Customer AS bigint))"] {
            let query = format!("SELECT ISNULL({sum}, 0) FROM dbo.{name}");
            let (source, dest) =
                (sql::number(&mut shop, &query).await?, sql::number(&mut copy, &query).await?);
            if source != dest {
                bail!("{sum} of {name} is {source} at the source and {dest} at the destination");
            }
        }
        Ok(())
    }
}
