//! A connection of the copy lane: a login of its own, batches and parameterised queries.

use std::time::Duration;

use super::{
    answer::read_to_end,
    call,
    header::Message,
    login::{self, Login},
    packet::Packets,
    rows::{RowParser, Rows},
    token::Token,
    types::{WireColumn, utf16},
};
use crate::{
    error::{Error, Kind, Result},
    model::{name::Ident, value::Value},
    mssql::{
        classify,
        connect::{
            dial::{self, Route},
            endpoint::Endpoint,
            permit::{ConnectionPermit, ReservedPermit},
        },
    },
};

/// ALL_HEADERS: no transaction of ours is open, one request at a time.
/// <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/e17e54ae-0fac-48b7-b8a8-c267be297923>
const NO_TRANSACTION: [u8; 22] =
    [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// One login of the copy lane.
pub struct TdsConnection {
    pub(super) packets: Packets,
    /// Dropped after the connection is closed.
    _permit: ConnectionPermit,
    _reserved: Option<ReservedPermit>,
}

impl TdsConnection {
    /// Connects and logs in within the login's time limit, redirects included. `timeout` is that of
    /// the statements that follow.
    pub(in crate::mssql) async fn connect(
        endpoint: &Endpoint,
        database: &Ident,
        timeout: Duration,
        permit: ConnectionPermit,
    ) -> Result<TdsConnection> {
        let route = Route::new(endpoint);
        let limit = route.login_time_max();
        let login = login_following_redirects(route, database, timeout);
        match tokio::time::timeout(limit, login).await {
            Ok(packets) => {
                Ok(TdsConnection { packets: packets?, _permit: permit, _reserved: None })
            }
            Err(_) => Err(classify::login_timeout(limit)),
        }
    }

    pub(in crate::mssql) fn with_reserved_permit(mut self, permit: ReservedPermit) -> Self {
        self._reserved = Some(permit);
        self
    }

    /// The longest wait for an answer to begin, and for each row or 64 KiB of a long row.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.packets.set_timeout(timeout);
    }

    /// A batch without rows.
    pub async fn batch(&mut self, sql: &str) -> Result<()> {
        self.send_batch(sql).await?;
        read_to_end(&mut self.packets).await.map(drop)
    }

    /// sp_executesql: the rows of the result set, one at a time. The inner `Err` names a column whose
    /// type cannot be read here; the connection cannot be used any more then.
    pub async fn rows(
        &mut self,
        sql: &str,
        params: &[&Value],
    ) -> Result<std::result::Result<Rows<'_>, String>> {
        self.packets.begin(Message::Call);
        self.packets.put(&NO_TRANSACTION).await?;
        self.packets.put(&call::executesql(sql, params)).await?;
        self.packets.end().await?;
        let row = self.columns().await?.and_then(|columns| RowParser::new(&columns));
        Ok(row.map(|row| Rows::new(&mut self.packets, row)))
    }

    /// Closes the connection, and waits up to a second for the server to close its side.
    pub async fn close(mut self) {
        self.packets.close().await;
    }

    /// Sends a batch; its answer is read next.
    pub(super) async fn send_batch(&mut self, sql: &str) -> Result<()> {
        self.packets.begin(Message::Batch);
        self.packets.put(&NO_TRANSACTION).await?;
        self.packets.put(&utf16(sql)).await?;
        self.packets.end().await
    }

    /// The columns of the next result set. The inner `Err` names one of an unknown type.
    pub(super) async fn columns(&mut self) -> Result<std::result::Result<Vec<WireColumn>, String>> {
        while let Some(token) = self.packets.next_token().await? {
            match token {
                Token::Columns(columns) => return Ok(Ok(columns)),
                Token::UnknownType(why) => return Ok(Err(why)),
                Token::Error(error) => return Err(error),
                _ => {}
            }
        }
        Err(Error::new(Kind::Other, "the server's answer has no result set"))
    }
}

async fn login_following_redirects(
    mut route: Route,
    database: &Ident,
    timeout: Duration,
) -> Result<Packets> {
    loop {
        let endpoint = route.endpoint();
        let connected = dial::connect(endpoint).await?;
        match tokio::time::timeout(
            endpoint.connect_timeout,
            login::login(endpoint, database, connected, timeout),
        )
        .await
        {
            Ok(Ok(Login::LoggedIn(packets))) => return Ok(*packets),
            Ok(Ok(Login::Redirected { host, port })) => route.follow_redirect(host, port)?,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(classify::login_timeout(endpoint.connect_timeout)),
        }
    }
}
