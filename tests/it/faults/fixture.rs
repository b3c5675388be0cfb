//! A world in which the daemon reaches both servers through proxies that can fail.

use std::time::Duration;

use mssql_standin::{proxy::Proxy, server::Server};

use crate::harness::{Daemon, World, eventually, numbers};

/// The daemon's application name at a server.
pub const APPLICATION: &str = "dbaops-dataflow";
/// The daemon's statement timeout: a fault that never answers takes this long.
const STATEMENT_TIMEOUT: &str = "4s";
const ROWS: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Dest,
}

/// A world with one followed table `T`, and a proxy to each server.
pub struct Fixture {
    pub world: World,
    source_link: Proxy,
    dest_link: Proxy,
    pub mapping: i32,
    rounds: usize,
}

impl Fixture {
    pub async fn new() -> Fixture {
        let world = World::without_statement_files().await;
        let source_link = Proxy::start(world.source.addr()).await.expect("a proxy");
        let dest_link = Proxy::start(world.dest.addr()).await.expect("a proxy");
        let mut shop = world.shop().await;
        shop.run(
            "CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NOT NULL, W NVARCHAR(60) NULL)",
        )
        .await;
        world.copy().await.run("CREATE TABLE dbo.T (ID INT NOT NULL PRIMARY KEY, V INT NOT NULL, W NVARCHAR(60) NULL)").await;
        shop.run(&format!(
            "INSERT INTO dbo.T (ID, V, W) SELECT n, 0, CONCAT(N'row ', n) FROM {}",
            numbers(ROWS)
        ))
        .await;
        world.enable_cdc(&["T"]).await;
        let mapping = world.map("T", "ID", None, true).await;
        let string = world.source_connection_string("Shop").replace('\'', "''");
        let port = |port: u16| format!("port={port};");
        let string = string
            .replace(&port(world.source.addr().port()), &port(source_link.addr().port()))
            + ";connection timeout=3";
        world
            .control()
            .await
            .run(&format!("UPDATE source_servers SET connection_string = N'{string}'"))
            .await;
        world.request_full_sync(mapping).await;
        Fixture { world, source_link, dest_link, mapping, rounds: 0 }
    }

    /// Starts the daemon behind the proxies. The first failure is an error, without retries.
    pub fn daemon(&self, more: &[(&'static str, &'static str)]) -> Daemon {
        let addr = self.dest_link.addr();
        let server: &'static str = format!("{},{}", addr.ip(), addr.port()).leak();
        let mut variables = vec![
            ("DEST_SERVER", server),
            ("DEST_ENCRYPT", "disable"),
            ("DATAFLOW_STATEMENT_TIMEOUT", STATEMENT_TIMEOUT),
            ("DATAFLOW_LONG_STATEMENT_TIMEOUT", STATEMENT_TIMEOUT),
            ("DATAFLOW_LOCK_TIMEOUT", "2s"),
            ("DATAFLOW_RETRY_ATTEMPTS", "1"),
            ("DATAFLOW_RETRY_DELAY", "100ms"),
            // A corrupted answer may park a mapping (it seems to say, for example, that the capture
            // instance does not exist).
            ("DATAFLOW_PARKED_INTERVAL", "1s"),
            ("DATAFLOW_MAX_CONNECTIONS", "12"),
            ("DATAFLOW_SOURCE_CONNECTIONS", "3"),
        ];
        variables.extend_from_slice(more);
        self.world.daemon_with(&variables)
    }

    pub fn server(&self, side: Side) -> &Server {
        match side {
            Side::Source => &self.world.source,
            Side::Dest => &self.world.dest,
        }
    }

    pub fn link(&self, side: Side) -> &Proxy {
        match side {
            Side::Source => &self.source_link,
            Side::Dest => &self.dest_link,
        }
    }

    /// A transaction that updates, inserts and deletes.
    pub async fn write(&mut self) {
        self.rounds += 1;
        let round = self.rounds;
        self.world
            .shop()
            .await
            .run(&format!(
                "BEGIN TRANSACTION; UPDATE dbo.T SET V = V + 1 WHERE ID % 7 = {}; INSERT INTO dbo.T (ID, V, W) VALUES ({}, 0, N'new'); \
                 DELETE dbo.T WHERE ID = {round}; COMMIT TRANSACTION",
                round % 7,
                1000 + round
            ))
            .await;
    }

    pub async fn in_sync(&self) {
        self.world.in_sync("dbo.T", "ID").await;
    }

    /// Waits until the daemon has as many sockets as the servers have connections from it, within its
    /// limits.
    pub async fn assert_no_leaks(&self, daemon: &Daemon) {
        eventually("as many sockets as connections, within the limits", async || {
            let sockets = daemon.sockets();
            let count = |side| self.server(side).connection_count_of(APPLICATION).now;
            let (source, dest) = (count(Side::Source), count(Side::Dest));
            if sockets.is_none_or(|sockets| sockets == source + dest) && source <= 3 && dest <= 12 {
                Ok(())
            } else {
                Err(format!("{sockets:?} sockets, {source} connections at the source, {dest} at the destination"))
            }
        })
        .await;
    }

    /// Stops the daemon and asserts that it stops in time, leaves no connection and did not panic.
    pub async fn stop_cleanly(&self, daemon: Daemon) {
        let (status, output) = daemon.terminate().await;
        assert!(status.success(), "{output}");
        assert!(
            !output.contains("stopped without waiting") && !output.contains("panicked"),
            "{output}"
        );
        for side in [Side::Source, Side::Dest] {
            eventually("the daemon's connections to be closed", async || {
                match self.server(side).connection_count_of(APPLICATION).now {
                    0 => Ok(()),
                    now => Err(format!("{now} at the {side:?}")),
                }
            })
            .await;
        }
    }
}

/// Long enough that the daemon tries to connect to a server that is down.
pub async fn downtime() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}
