//! The pools of one server, and the sessions that are checked out of them.

use super::options::PoolOptions;
use crate::{
    error::{Context, Error, Kind, Result},
    model::name::Ident,
    mssql::{
        client::{login, session::Session},
        connect::{
            certificate,
            endpoint::Endpoint,
            permit::{ConnectionLimit, ConnectionPermit, ReservedPermit},
        },
        tds::TdsConnection,
    },
};
use futures_util::FutureExt;
use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// How long an idle session may take to answer its prologue, which does no work. A silent one has
/// lost its connection; a new login replaces it long before a statement would time out.
pub(super) const IDLE_CHECK_TIME_MAX: Duration = Duration::from_secs(10);

/// Pools without connections are kept up to this number, so that names of databases that are no
/// longer used do not stay in memory.
pub(super) const POOLS_KEPT: usize = 32;

/// One server: its endpoint, and a pool for each database that was asked for.
#[derive(Clone)]
pub struct Pools(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    options: PoolOptions,
    limit: Arc<ConnectionLimit>,
    /// Logins that succeeded since the start.
    logins: AtomicU64,
    /// By database name, as it was asked for.
    pools: Mutex<HashMap<String, bb8::Pool<ConnectionManager>>>,
    /// Set when these pools were replaced or are no longer needed: a connection that is returned
    /// is closed.
    draining: AtomicBool,
}

/// A session out of its pool. When it is dropped it goes back, unless it is not reusable.
pub struct Checkout {
    session: bb8::PooledConnection<'static, ConnectionManager>,
    server: Arc<Inner>,
    /// Counts this checkout against its job's reservation.
    _reserved: Option<ReservedPermit>,
}

impl Checkout {
    pub(super) fn with_reserved_permit(mut self, permit: ReservedPermit) -> Self {
        self._reserved = Some(permit);
        self
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if self.server.draining.load(Ordering::Relaxed) {
            self.session.discard();
        }
    }
}

impl Deref for Checkout {
    type Target = Session;
    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Checkout {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Pools {
    pub fn new(endpoint: Endpoint, options: PoolOptions) -> Self {
        let limit = ConnectionLimit::new(options.connections_max);
        Pools::with_limit(endpoint, options, limit)
    }

    /// New pools for the same server under another address, login or setting; these drain. Both
    /// share one limit of connections.
    pub fn replace_endpoint(&self, endpoint: Endpoint) -> Self {
        self.drain();
        Pools::with_limit(endpoint, self.0.options.clone(), self.0.limit.clone())
    }

    /// Closes idle connections now, and the others when they are returned.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        let pools: Vec<_> = self
            .0
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .map(|(_, pool)| pool)
            .collect();
        for pool in pools {
            // `get` on a pool without idle connections would open one
            while pool.state().idle_connections > 0
                && let Some(Ok(mut session)) = pool.get().now_or_never()
            {
                session.discard();
            }
        }
    }

    fn with_limit(endpoint: Endpoint, options: PoolOptions, limit: Arc<ConnectionLimit>) -> Self {
        Pools(Arc::new(Inner {
            endpoint,
            options,
            limit,
            logins: AtomicU64::new(0),
            pools: Mutex::new(HashMap::new()),
            draining: AtomicBool::new(false),
        }))
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    pub fn options(&self) -> &PoolOptions {
        &self.0.options
    }

    /// Logins that succeeded since the start. When the number has grown, there was a new
    /// connection in between.
    pub fn logins(&self) -> u64 {
        self.0.logins.load(Ordering::Relaxed)
    }

    /// Connections that exist now, idle ones included.
    pub fn connections(&self) -> usize {
        self.0.limit.connections()
    }

    /// A session in `database` after its prologue. `label` is written to the session's context, so
    /// that a DBA sees what it is for: `SELECT session_id, CAST(context_info AS varchar(128)) FROM
    /// sys.dm_exec_sessions`.
    pub async fn checkout(&self, database: &Ident, label: &str) -> Result<Checkout> {
        let prologue = self.0.options.prologue(label);
        let pool = self.pool(database);
        // Each idle session may have died; after all of them comes a new one.
        for _ in 0..=self.0.options.connections_max {
            let (mut session, is_new) = self.idle_or_new(&pool).await?;
            let limit = self.0.options.statement_timeout;
            session.set_timeout(if is_new { limit } else { limit.min(IDLE_CHECK_TIME_MAX) });
            match session.batch(&prologue).await {
                Ok(()) => {
                    session.set_timeout(limit);
                    return Ok(Checkout { session, server: self.0.clone(), _reserved: None });
                }
                Err(error) => {
                    session.discard();
                    if is_new || !matches!(error.kind, Kind::Connection | Kind::Timeout) {
                        return Err(error).with_context(|| {
                            format!("prepare a session at {}", self.0.endpoint.server_name())
                        });
                    }
                }
            }
        }
        Err(Error::new(
            Kind::Connection,
            format!("no session at {} could be prepared", self.0.endpoint.server_name()),
        ))
    }

    /// A connection of the copy lane in `database`, after the same prologue. It is never pooled.
    pub async fn tds_connection(&self, database: &Ident, label: &str) -> Result<TdsConnection> {
        let Inner { endpoint, options, .. } = &*self.0;
        let connected = async {
            certificate::check(endpoint)?;
            let permit = self.0.connection_permit(None).await?;
            let timeout = options.statement_timeout;
            let mut tds = TdsConnection::connect(endpoint, database, timeout, permit).await?;
            tds.batch(&options.prologue(label)).await.map(|()| tds)
        };
        Box::pin(connected).await.with_context(|| {
            format!("connect to {}/{} for a copy", endpoint.server_name(), database.as_str())
        })
    }

    /// An idle session, or a new one (`true`). bb8 is never left to connect by itself: it would
    /// not return the reason of a failure.
    async fn idle_or_new(
        &self,
        pool: &bb8::Pool<ConnectionManager>,
    ) -> Result<(bb8::PooledConnection<'static, ConnectionManager>, bool)> {
        let mut is_new = false;
        loop {
            if pool.state().idle_connections > 0
                && let Some(Ok(session)) = pool.get_owned().now_or_never()
            {
                return Ok((session, is_new));
            }
            // Another task may take the new connection first; then this loop makes one more.
            let session = pool.dedicated_connection().await.map_err(|error| error.0)?;
            is_new = true;
            if pool.add(session).is_err() {
                return Err(Error::new(
                    Kind::Busy,
                    format!("all connections to {} are in use", self.0.endpoint.server_name()),
                ));
            }
        }
    }

    pub(super) fn pool(&self, database: &Ident) -> bb8::Pool<ConnectionManager> {
        let mut pools = self.0.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(database.as_str()) {
            return pool.clone();
        }
        let manager =
            ConnectionManager { server: Arc::downgrade(&self.0), database: database.clone() };
        let options = &self.0.options;
        let pool = bb8::Pool::builder()
            .max_size(u32::try_from(options.connections_max).unwrap_or(u32::MAX))
            .min_idle(0)
            .test_on_check_out(false)
            .retry_connection(false)
            .connection_timeout(self.0.endpoint.connect_timeout * 2 + Duration::from_secs(5))
            .idle_timeout(options.idle_timeout)
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .build_unchecked(manager);
        if pools.len() >= POOLS_KEPT {
            pools.retain(|_, pool| pool.state().connections > 0);
        }
        pools.insert(database.as_str().to_owned(), pool.clone());
        pool
    }

    #[cfg(test)]
    pub(super) fn pool_count(&self) -> usize {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Inner {
    /// Waits for a permit, and until the server no longer counts the connections that were closed
    /// for it. `wanting` is the database whose pool needs the connection (it has no idle one).
    async fn connection_permit(&self, wanting: Option<&Ident>) -> Result<ConnectionPermit> {
        const RETRY_INTERVAL: Duration = Duration::from_millis(50);
        let deadline = tokio::time::Instant::now() + self.endpoint.connect_timeout;
        let permit = loop {
            if let Some(permit) = self.limit.try_acquire() {
                break permit;
            }
            self.close_idle_of_another(wanting);
            if let Some(permit) = self.limit.acquire_within(RETRY_INTERVAL).await? {
                break permit;
            }
            if tokio::time::Instant::now() >= deadline {
                let (most, server) = (self.limit.connections_max(), self.endpoint.server_name());
                return Err(Error::new(
                    Kind::Busy,
                    format!("all {most} connections to {server} are in use"),
                ));
            }
        };
        self.limit.wait_for_closed().await;
        Ok(permit)
    }

    /// Closes one idle connection of a pool other than that of `wanting`.
    fn close_idle_of_another(&self, wanting: Option<&Ident>) {
        let with_idle: Vec<_> = {
            let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            pools
                .iter()
                .filter(|(name, pool)| {
                    wanting.is_none_or(|database| *name != database.as_str())
                        && pool.state().idle_connections > 0
                })
                .map(|(_, pool)| pool.clone())
                .collect()
        };
        for pool in with_idle {
            if let Some(Ok(mut session)) = pool.get().now_or_never() {
                session.discard();
                return;
            }
        }
    }
}

/// Logs in to one database of one server, for bb8.
pub struct ConnectionManager {
    server: Weak<Inner>,
    database: Ident,
}

/// [`Error`] as bb8 needs it.
#[derive(Debug)]
pub struct PoolError(pub Error);

impl bb8::ManageConnection for ConnectionManager {
    type Connection = Session;
    type Error = PoolError;

    async fn connect(&self) -> std::result::Result<Session, PoolError> {
        let server = self.server.upgrade().ok_or_else(|| {
            PoolError(Error::new(Kind::Cancelled, "the server's pools are closed"))
        })?;
        certificate::check(&server.endpoint).map_err(PoolError)?;
        let permit = server.connection_permit(Some(&self.database)).await.map_err(PoolError)?;
        // Boxed because a login's future is large and would be part of every future that may have
        // to wait for one.
        let login = Box::pin(login::connect(
            &server.endpoint,
            &self.database,
            server.options.statement_timeout,
            permit,
        ));
        let session = login.await.map_err(PoolError)?;
        server.logins.fetch_add(1, Ordering::Relaxed);
        Ok(session)
    }

    async fn is_valid(&self, _: &mut Session) -> std::result::Result<(), PoolError> {
        Ok(())
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        !session.is_reusable()
    }
}
