//! TCP connections to an endpoint, and the redirects of a login. The driver and the copy lane share
//! this code.

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

/// A connection without traffic is probed after this time, and then every [`KEEP_ALIVE_INTERVAL`], so
/// that a lost connection is noticed while it is idle. The values are those of Microsoft's clients.
/// <https://learn.microsoft.com/sql/tools/configuration-manager/tcp-ip-properties-protocols-tab>
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Redirects (read-intent routing, Azure's gateway) that are followed for one login: as many as
/// SqlClient follows.
const REDIRECTS_MAX: usize = 10;

/// The endpoint that a login connects to, which changes with redirects.
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

    /// Continues the login at another server. Whether any certificate is accepted there depends on that
    /// server's address.
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

    /// The time limit of a login: once the connect timeout for TCP, and once for TLS and login,
    /// redirects included.
    pub fn login_time_max(&self) -> Duration {
        self.endpoint.connect_timeout * 2
    }
}

/// Connects to the host's addresses: one after the other, or all at once with `MultiSubnetFailover`
/// (the listener of an availability group, where one address answers and the others do not).
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

/// [`connect_tcp`] with a time limit, and the options that all connections have.
pub(in crate::mssql) async fn connect(endpoint: &Endpoint) -> Result<(Socket, LoginGuard)> {
    let timed_out = || {
        Error::new(
            Kind::Connection,
            format!("no connection within {} s", endpoint.connect_timeout.as_secs()),
        )
    };
    let connected = async {
        let tcp = connect_tcp(endpoint).await?;
        tcp.set_nodelay(true)?;
        // Closing sends a reset. All answers were read, or the session is abandoned: a reset frees its
        // locks at the server at once, also when data is still in transit.
        tcp.set_zero_linger()?;
        SockRef::from(&tcp).set_tcp_keepalive(
            &TcpKeepalive::new().with_time(KEEP_ALIVE_IDLE).with_interval(KEEP_ALIVE_INTERVAL),
        )?;
        Socket::new(tcp)
    };
    match tokio::time::timeout(endpoint.connect_timeout, connected).await {
        Ok(Ok(connected)) => Ok(connected),
        // no statement was sent, so this is no timeout of one
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(timed_out()),
        Ok(Err(error)) => Err(classify::io_error(error.kind(), &error.to_string())),
        Err(_) => Err(timed_out()),
    }
}
