//! A login through the driver: TCP, TLS and LOGIN7 within one time limit, redirects included.

use std::{io, sync::Arc, time::Duration};

use tokio_util::compat::TokioAsyncWriteCompatExt;

use super::session::{Session, Wire};
use crate::{
    error::{Context, Result},
    model::name::Ident,
    mssql::{
        classify,
        connect::{
            budget::AnswerBudget,
            dial::{self, Route},
            endpoint::Endpoint,
            permit::ConnectionPermit,
        },
    },
};

/// Opens a connection and logs in. `timeout` is that of the session's statements.
pub(in crate::mssql) async fn connect(
    endpoint: &Endpoint,
    database: &Ident,
    timeout: Duration,
    permit: ConnectionPermit,
) -> Result<Session> {
    let server_database = format!("{}/{}", endpoint.server_name(), database.as_str());
    let route = Route::new(endpoint);
    let limit = route.login_time_max();
    match tokio::time::timeout(limit, login(route, database)).await {
        Ok(login) => login.map(|(client, loopback, budget)| {
            Session::new(client, loopback, server_database.clone(), timeout, permit, budget)
        }),
        Err(_) => Err(classify::login_timeout(limit)),
    }
    .with_context(|| format!("connect to {server_database}"))
}

/// A logged-in client of the driver, whether its connection is a loopback one, and the budget that
/// limits its answers.
async fn login(
    mut route: Route,
    database: &Ident,
) -> Result<(tiberius::Client<Wire>, bool, Arc<AnswerBudget>)> {
    use tiberius::error::Error as Driver;
    loop {
        let endpoint = route.endpoint();
        let (socket, guard) = dial::connect(endpoint).await?;
        let loopback = socket.is_loopback();
        let config = endpoint.driver_config(database, loopback)?;
        match tiberius::Client::connect(config, socket.compat_write()).await {
            Ok(client) => return Ok((client, loopback, guard.done())),
            Err(Driver::Routing { host, port }) => route.follow_redirect(host, port)?,
            // A login has no effect that a retry could repeat, so this is a connection error and
            // not a statement's timeout.
            Err(Driver::Io { kind: io::ErrorKind::TimedOut, .. }) => {
                return Err(classify::login_timeout(endpoint.connect_timeout));
            }
            Err(error) => return Err(classify::driver_error(error)),
        }
    }
}
