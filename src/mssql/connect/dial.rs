//! From an endpoint to a TCP connection, and on to where a server sends a login: driver and copy
//! lane go the same way.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::error::{Error, Kind, Result};
use crate::mssql::{
    classify,
    connect::{
        browser::{self, first_success},
        endpoint::Endpoint,
        socket::{LoginGuard, Socket},
    },
};

/// A connection without traffic is probed after this, and then as often as [`KEEP_ALIVE_INTERVAL`]:
/// a network that forgot it, or a server that is gone, is noticed also while nobody waits for an
/// answer. As Microsoft's own clients do.
/// <https://learn.microsoft.com/sql/tools/configuration-manager/tcp-ip-properties-protocols-tab>
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Redirects (read-intent routing, Azure's gateway) that are followed for one login: as many as
/// SqlClient follows.
const REDIRECTS_MAX: usize = 10;

/// Where a login goes: to the endpoint, and on to where a server sends it.
pub(in crate::mssql) struct Route {
    endpoint: Endpoint,
    redirects: usize,
}

impl Route {
    pub fn new(endpoint: &Endpoint) -> Self {
        Route { endpoint: endpoint.clone(), redirects: 0 }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A server sends the login on. Whose certificate is believed there is decided anew, for the
    /// address that is dialled then.
    pub fn follow_redirect(&mut self, host: String, port: u16) -> Result<()> {
        if self.redirects == REDIRECTS_MAX {
            return Err(Error::new(
                Kind::Connection,
                format!(
                    "the login was redirected {REDIRECTS_MAX} times, and once more to {host}:{port}"
                ),
            ));
        }
        self.redirects += 1;
        self.endpoint = self.endpoint.redirected(host, port);
        Ok(())
    }

    /// The time for all of a login: for TCP, and once more for TLS and login, redirects included.
    pub fn login_time_max(&self) -> Duration {
        self.endpoint.connect_timeout * 2
    }
}

/// TCP to the server. A name with several addresses: one after the other, or
/// (`MultiSubnetFailover`: an availability group's listener, of which one address answers and the
/// others are silent) all at once.
async fn connect_tcp(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let host = endpoint.host.as_str();
    let port = match &endpoint.instance {
        Some(instance) => browser::port(host, instance).await?,
        None => endpoint.port,
    };
    if !endpoint.multi_subnet_failover {
        return TcpStream::connect((host, port)).await;
    }
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    first_success(addresses.into_iter().map(TcpStream::connect)).await
}

/// [`dial`], with a limit and what every connection of ours has.
pub(in crate::mssql) async fn connect(endpoint: &Endpoint) -> Result<(Socket, LoginGuard)> {
    let silent = || {
        Error::new(
            Kind::Connection,
            format!("no connection within {} s", endpoint.connect_timeout.as_secs()),
        )
    };
    let connected = async {
        let tcp = connect_tcp(endpoint).await?;
        tcp.set_nodelay(true)?;
        // Whoever is closed has read all its answers or is given up: a reset frees the session's
        // locks at the server at once, instead of after what a bad network still has on its way.
        tcp.set_zero_linger()?;
        SockRef::from(&tcp).set_tcp_keepalive(
            &TcpKeepalive::new().with_time(KEEP_ALIVE_IDLE).with_interval(KEEP_ALIVE_INTERVAL),
        )?;
        Socket::new(tcp)
    };
    match tokio::time::timeout(endpoint.connect_timeout, connected).await {
        Ok(Ok(connected)) => Ok(connected),
        // nothing was asked yet that could have been done
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(silent()),
        Ok(Err(error)) => Err(classify::io_error(error.kind(), &error.to_string())),
        Err(_) => Err(silent()),
    }
}
