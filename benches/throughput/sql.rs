//! A SQL client for setup and checks. Its connections are not encrypted, like all in the benchmark.

use std::net::SocketAddr;

use anyhow::Context;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

pub const USER: &str = "sa";
pub const PASSWORD: &str = "Bench-Passw0rd";

pub type Wire = Client<Compat<TcpStream>>;

pub async fn connect(addr: SocketAddr, database: &str) -> anyhow::Result<Wire> {
    let mut config = Config::new();
    config.host(addr.ip().to_string());
    config.port(addr.port());
    config.database(database);
    config.authentication(AuthMethod::sql_server(USER, PASSWORD));
    config.encryption(EncryptionLevel::NotSupported);
    // no timeout: a measured statement may take long
    config.command_timeout(None);
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    Ok(Client::connect(config, tcp.compat_write()).await?)
}

/// Runs a batch to its end.
pub async fn run(client: &mut Wire, sql: &str) -> anyhow::Result<()> {
    let statement = || format!("in: {}", sql.chars().take(1000).collect::<String>());
    client
        .simple_query(sql)
        .await
        .with_context(statement)?
        .into_results()
        .await
        .with_context(statement)?;
    Ok(())
}

/// The number that a query returns.
pub async fn number(client: &mut Wire, sql: &str) -> anyhow::Result<i64> {
    let row = client.simple_query(sql).await?.into_row().await?;
    let cell = row.as_ref().and_then(|row| row.cells().next()).map(|(_, cell)| cell.clone());
    match cell {
        Some(tiberius::ColumnData::I32(Some(number))) => Ok(number.into()),
        Some(tiberius::ColumnData::I64(Some(number))) => Ok(number),
        other => anyhow::bail!("{sql}: {other:?} is not a number"),
    }
}

/// A derived table `numbers(n)` for a FROM clause, with n from 1 to `count`.
pub fn numbers(count: usize) -> String {
    let tens = "(VALUES (0),(0),(0),(0),(0),(0),(0),(0),(0),(0))";
    let crossed: Vec<String> =
        (0..=count.max(1).ilog10()).map(|i| format!("{tens} AS d{i}(x)")).collect();
    format!(
        "(SELECT TOP ({count}) CAST(ROW_NUMBER() OVER (ORDER BY (SELECT 1)) AS int) AS n FROM {}) AS numbers",
        crossed.join(" CROSS JOIN ")
    )
}
