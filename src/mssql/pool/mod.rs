//! Pools: one per server and database, under one limit of physical connections per server.
//!
//! `bb8-tiberius` links another tiberius than ours, so the `ManageConnection` is written here. A
//! pool per database keeps "current database" a property of the login: no `USE`, two-part names,
//! and nothing to reset. Three limits hold at once:
//!
//! - **Seats**: a job takes all the seats it will need, first at its source, then at the
//!   destination ([`super::reservation`]), before its first checkout. Nobody waits for a connection while
//!   holding one, so the limit cannot deadlock.
//! - **Physical connections**: every login holds a permit of its server for as long as it exists,
//!   idle ones too. When they are all taken and a seat holder needs a new login, an idle one of
//!   another database is closed; the new one waits a moment, until the server can have heard of it.
//! - **Prologue**: the driver cannot reset a session, so every checkout first sends one fixed batch
//!   that puts every setting we rely on in place. It also proves that the connection is alive; one
//!   that died in the pool is replaced without a word.

pub mod reservation;
pub mod sources;

use super::{
    budget::AnswerBudget,
    certificate, classify,
    dial::{self, Route},
    endpoint::Endpoint,
    reservation::ReservedPermit,
    session::Session,
    tds::{self, TdsConnection},
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::name::Ident,
};
use futures_util::FutureExt;
use std::{
    collections::{HashMap, VecDeque},
    io,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::compat::TokioAsyncWriteCompatExt;

/// How long an idle session may take to prove that it is alive: its prologue does no work. One that
/// is silent for longer was cut off, and a new login is tried instead of waiting for it as long as
/// for a statement.
const PROOF_TIME_MAX: Duration = Duration::from_secs(10);

/// How sessions of a server behave.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Most connections to this server, idle ones included.
    pub connections_max: usize,
    /// Longest wait for one answer, unless a job sets another.
    pub statement_timeout: Duration,
    /// `SET LOCK_TIMEOUT`
    pub lock_timeout: Duration,
    /// Sources lose deadlocks, so that their own users never do because of us.
    pub deadlock_priority_low: bool,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
}

/// One server: its endpoint, and a pool for each database that was ever asked for.
#[derive(Clone)]
pub struct Pools(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    options: PoolOptions,
    physical: Arc<Semaphore>,
    /// When connections were closed lately: for a moment the server still counts them.
    closes: Mutex<VecDeque<Instant>>,
    /// Logins that ever succeeded.
    logins: AtomicU64,
    /// by database name as asked for
    pools: Mutex<HashMap<String, bb8::Pool<ConnectionManager>>>,
    /// Others took the place of these: no connection comes back to stay.
    draining: AtomicBool,
}

/// Pools of databases that nobody is connected to are kept up to this number: a name that came once
/// would stay for ever.
const POOLS_KEPT: usize = 32;

/// A session out of its pool; it goes back when dropped, unless it is spent.
pub struct Checkout {
    session: bb8::PooledConnection<'static, ConnectionManager>,
    server: Arc<Inner>,
    /// What counts this checkout against its seats.
    _seat: Option<ReservedPermit>,
}

impl Checkout {
    pub(in crate::mssql) fn with_reserved_permit(mut self, seat: ReservedPermit) -> Self {
        self._seat = Some(seat);
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
        let physical = Arc::new(Semaphore::new(options.connections_max));
        Pools::with_limit(endpoint, options, physical)
    }

    /// Pools that take the place of these, for the same server under another address, login or
    /// setting. Both together stay within the one limit of connections: the idle ones of these are
    /// closed now, and those in use as soon as they come back.
    pub fn replace_endpoint(&self, endpoint: Endpoint) -> Self {
        self.drain();
        Pools::with_limit(endpoint, self.0.options.clone(), self.0.physical.clone())
    }

    /// Closes what is idle, and what is in use as soon as it comes back.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        let idle: Vec<_> = self
            .0
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain()
            .map(|(_, pool)| pool)
            .collect();
        for pool in idle {
            // asked of an empty pool it would make a connection
            while pool.state().idle_connections > 0
                && let Some(Ok(mut session)) = pool.get().now_or_never()
            {
                session.discard();
            }
        }
    }

    fn with_limit(endpoint: Endpoint, options: PoolOptions, physical: Arc<Semaphore>) -> Self {
        Pools(Arc::new(Inner {
            endpoint,
            options,
            physical,
            closes: Mutex::default(),
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

    /// Logins that succeeded since the beginning: whoever sees the number grow knows of a new
    /// connection.
    pub fn logins(&self) -> u64 {
        self.0.logins.load(Ordering::Relaxed)
    }

    /// Connections that exist now, idle ones included.
    pub fn connections(&self) -> usize {
        self.0.options.connections_max.saturating_sub(self.0.physical.available_permits())
    }

    /// A session in `database` after its prologue. `who` goes into the session's context, so that a
    /// DBA sees whose it is: `SELECT session_id, CAST(context_info AS varchar(128)) FROM
    /// sys.dm_exec_sessions`.
    pub async fn checkout(&self, database: &Ident, who: &str) -> Result<Checkout> {
        let prologue = prologue(&self.0.options, who);
        let pool = self.pool(database);
        // A connection that died in the pool fails its prologue. All idle ones may have, once.
        for _ in 0..=self.0.options.connections_max {
            let (mut session, fresh) = self.idle_or_new(&pool).await?;
            let limit = self.0.options.statement_timeout;
            session.set_timeout(if fresh { limit } else { limit.min(PROOF_TIME_MAX) });
            match session.batch(&prologue).await {
                Ok(()) => {
                    session.set_timeout(limit);
                    return Ok(Checkout { session, server: self.0.clone(), _seat: None });
                }
                Err(error) => {
                    session.discard();
                    if fresh || !matches!(error.kind, Kind::Connection | Kind::Timeout) {
                        return Err(error).with_context(|| {
                            format!("prepare a session at {}", self.0.endpoint.server_name())
                        });
                    }
                }
            }
        }
        Err(Error::new(
            Kind::Connection,
            format!("no session at {} stays alive", self.0.endpoint.server_name()),
        ))
    }

    /// A connection of the copy lane's own in `database`, after the same prologue. It is never
    /// pooled.
    pub async fn tds_connection(&self, database: &Ident, who: &str) -> Result<TdsConnection> {
        let Inner { endpoint, options, .. } = &*self.0;
        let connected = async {
            certificate::check(endpoint)?;
            let slot = self.0.connection_permit(None).await?;
            let mut line =
                tds::connect(endpoint, database, options.statement_timeout, slot).await?;
            line.batch(&prologue(options, who)).await.map(|()| line)
        };
        Box::pin(connected).await.with_context(|| {
            format!("connect to {}/{} for a copy", endpoint.server_name(), database.as_str())
        })
    }

    /// An idle session, or one that is made now (and is said to be fresh). The pool itself never
    /// connects while somebody waits: it would keep the reason of a failure to itself.
    async fn idle_or_new(
        &self,
        pool: &bb8::Pool<ConnectionManager>,
    ) -> Result<(bb8::PooledConnection<'static, ConnectionManager>, bool)> {
        let mut fresh = false;
        loop {
            if pool.state().idle_connections > 0
                && let Some(Ok(session)) = pool.get_owned().now_or_never()
            {
                return Ok((session, fresh));
            }
            // Between this and the next turn somebody else may take it; then there will be another.
            let session = pool.dedicated_connection().await.map_err(|error| error.0)?;
            fresh = true;
            if pool.add(session).is_err() {
                return Err(Error::new(
                    Kind::Busy,
                    format!("all connections to {} are in use", self.0.endpoint.server_name()),
                ));
            }
        }
    }

    fn pool(&self, database: &Ident) -> bb8::Pool<ConnectionManager> {
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
}

/// The right to one connection, given back when it is closed.
pub(in crate::mssql) struct ConnectionPermit {
    server: Weak<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(server) = self.server.upgrade() {
            server.closes.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
        }
    }
}

/// A server hears of a closed connection a moment later, and counts it until then.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

impl Inner {
    /// `pooled`: whose pool wants it, which has no idle one. Waits for the right to one more
    /// connection, and until the server can have forgotten those that were closed for it.
    async fn connection_permit(
        self: &Arc<Self>,
        pooled: Option<&Ident>,
    ) -> Result<ConnectionPermit> {
        let slot = ConnectionPermit {
            server: Arc::downgrade(self),
            _permit: self.physical_permit(pooled).await?,
        };
        loop {
            let wait = {
                let mut closes = self.closes.lock().unwrap_or_else(PoisonError::into_inner);
                while closes.front().is_some_and(|closed| closed.elapsed() >= CLOSE_GRACE) {
                    closes.pop_front();
                }
                if closes.len() <= self.physical.available_permits() {
                    return Ok(slot);
                }
                closes
                    .front()
                    .map_or(Duration::ZERO, |closed| CLOSE_GRACE.saturating_sub(closed.elapsed()))
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for the right to one more connection, closing idle ones of other pools when none is
    /// left.
    async fn physical_permit(&self, pooled: Option<&Ident>) -> Result<OwnedSemaphorePermit> {
        const ROUND: Duration = Duration::from_millis(50);
        let deadline = tokio::time::Instant::now() + self.endpoint.connect_timeout;
        loop {
            if let Ok(permit) = self.physical.clone().try_acquire_owned() {
                return Ok(permit);
            }
            let idle: Vec<_> = {
                let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
                pools
                    .iter()
                    .filter(|(name, pool)| {
                        pooled.is_none_or(|pooled| *name != pooled.as_str())
                            && pool.state().idle_connections > 0
                    })
                    .map(|(_, p)| p.clone())
                    .collect()
            };
            for pool in idle {
                if let Some(Ok(mut session)) = pool.get().now_or_never() {
                    session.discard();
                    break;
                }
            }
            match tokio::time::timeout(ROUND, self.physical.clone().acquire_owned()).await {
                Ok(Ok(permit)) => return Ok(permit),
                Ok(Err(_)) => {
                    return Err(Error::new(Kind::Cancelled, "the server's connections are closed"));
                }
                Err(_) if tokio::time::Instant::now() >= deadline => {
                    let most = self.options.connections_max;
                    return Err(Error::new(
                        Kind::Busy,
                        format!(
                            "all {most} connections to {} are in use",
                            self.endpoint.server_name()
                        ),
                    ));
                }
                Err(_) => {}
            }
        }
    }
}

/// What every checkout sends first. The ANSI settings are those that indexed views and filtered
/// indexes need for writing.
/// <https://learn.microsoft.com/sql/t-sql/statements/set-statements-transact-sql>
fn prologue(options: &PoolOptions, who: &str) -> String {
    let context: String = format!("dbaops-dataflow {who}")
        .bytes()
        .take(128)
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let priority = if options.deadlock_priority_low { "LOW" } else { "NORMAL" };
    include_str!("../../../sql/control/prologue.sql")
        .replace("{lock_timeout_ms}", &options.lock_timeout.as_millis().to_string())
        .replace("{deadlock_priority}", priority)
        .replace("{context}", &context)
}

/// Makes logins for one database of one server.
pub struct ConnectionManager {
    server: Weak<Inner>,
    database: Ident,
}

/// [`Error`] for bb8, which wants to print it.
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
        let slot = server.connection_permit(Some(&self.database)).await.map_err(PoolError)?;
        // Logins are rare and their futures large: in the heap, they are no part of every future
        // that may have to wait for one.
        let login = Box::pin(connect(
            &server.endpoint,
            &self.database,
            server.options.statement_timeout,
            slot,
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

/// One login of the driver's, with a limit; redirects are followed.
async fn connect(
    endpoint: &Endpoint,
    database: &Ident,
    timeout: Duration,
    slot: ConnectionPermit,
) -> Result<Session> {
    let place = format!("{}/{}", endpoint.server_name(), database.as_str());
    let route = Route::new(endpoint);
    let limit = route.login_time_max();
    match tokio::time::timeout(limit, login(route, database)).await {
        Ok(login) => login.map(|(client, loopback, budget)| {
            Session::new(client, loopback, place.clone(), timeout, slot, budget)
        }),
        Err(_) => Err(classify::login_timeout(limit)),
    }
    .with_context(|| format!("connect to {place}"))
}

/// A client, whether its connection ends on this machine, and what its answers count against.
async fn login(
    mut route: Route,
    database: &Ident,
) -> Result<(tiberius::Client<super::session::Wire>, bool, Arc<AnswerBudget>)> {
    use tiberius::error::Error as Driver;
    loop {
        let endpoint = route.endpoint();
        let (socket, guard) = dial::connect(endpoint).await?;
        let loopback = socket.is_loopback();
        let config = endpoint.driver_config(database, loopback)?;
        match tiberius::Client::connect(config, socket.compat_write()).await {
            Ok(client) => return Ok((client, loopback, guard.done())),
            Err(Driver::Routing { host, port }) => route.follow_redirect(host, port)?,
            // Nothing was asked yet that could have been done: a server that is silent at a login
            // cannot be reached.
            Err(Driver::Io { kind: io::ErrorKind::TimedOut, .. }) => {
                return Err(classify::login_timeout(endpoint.connect_timeout));
            }
            Err(error) => return Err(classify::driver_error(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mssql::{connection_string, reservation::ServerConnections, row::Param};
    use mssql_standin::server::Server;

    async fn pools(server: &Server, connections_max: usize) -> Pools {
        let parsed = connection_string::parse(&server.connection_string("master")).unwrap();
        Pools::new(
            parsed.endpoint,
            PoolOptions {
                connections_max,
                statement_timeout: Duration::from_secs(20),
                lock_timeout: Duration::from_secs(1),
                deadlock_priority_low: true,
                idle_timeout: Duration::from_secs(60),
            },
        )
    }

    fn db(name: &str) -> Ident {
        Ident::new(name)
    }

    #[tokio::test]
    async fn answers_come_back_typed() {
        let server = Server::builder().start().await.unwrap();
        let pools = pools(&server, 4).await;
        let mut session = pools.checkout(&db("master"), "test").await.unwrap();
        let row = session
            .row(
                "SELECT @P1, @P2, DB_NAME(), CAST(NULL AS INT)",
                &[Param::Int(7), Param::Text("é")],
            )
            .await
            .unwrap();
        assert_eq!(
            (row.i32(0).unwrap(), row.text(1).unwrap(), row.text(2).unwrap()),
            (7, "é", "master")
        );
        assert_eq!(row.opt_i64(3).unwrap(), None);
        assert!(row.i32(3).unwrap_err().to_string().contains("column 4"));
        assert!(row.i32(9).is_err());
        let mut stream =
            session.stream("SELECT @P1 UNION ALL SELECT 2", &[Param::Int(1)]).await.unwrap();
        let mut seen = Vec::new();
        while let Some(row) = stream.next().await.unwrap() {
            seen.push(row.i32(0).unwrap());
        }
        assert_eq!(seen, [1, 2]);
        drop(stream);
        assert!(session.is_reusable());
    }

    #[tokio::test]
    async fn a_stream_that_is_dropped_early_costs_its_session() {
        let server = Server::builder().start().await.unwrap();
        let pools = pools(&server, 4).await;
        let mut session = pools.checkout(&db("master"), "test").await.unwrap();
        let mut stream = session.stream("SELECT 1 UNION ALL SELECT 2", &[]).await.unwrap();
        stream.next().await.unwrap();
        drop(stream);
        assert!(!session.is_reusable());
        assert_eq!(session.batch("SELECT 1").await.unwrap_err().kind, Kind::Connection);
        drop(session);
        server.wait_for_connections(0).await;
    }

    #[tokio::test]
    async fn an_error_makes_a_session_suspect_until_it_is_recovered() {
        let server = Server::builder().start().await.unwrap();
        let pools = pools(&server, 4).await;
        let mut session = pools.checkout(&db("master"), "test").await.unwrap();
        let error = session.batch("SELECT * FROM dbo.nowhere").await.unwrap_err();
        assert_eq!((error.kind, error.number), (Kind::Missing, Some(208)));
        assert!(!session.is_reusable() && !session.is_broken());
        session.recover().await.unwrap();
        assert!(session.is_reusable());
        drop(session);
        assert_eq!(pools.connections(), 1, "it went back to its pool");
    }

    /// A job that fails between BEGIN and COMMIT without a server's error leaves its session
    /// looking well: in the pool the snapshot stayed open.
    #[tokio::test]
    async fn a_transaction_that_nobody_ended_does_not_go_back_into_the_pool() {
        let server = Server::builder().start().await.unwrap();
        let pools = pools(&server, 4).await;
        let mut session = pools.checkout(&db("master"), "test").await.unwrap();
        session.begin_transaction("BEGIN TRANSACTION").await.unwrap();
        drop(session);
        assert_eq!(pools.connections(), 0);
        let mut session = pools.checkout(&db("master"), "test").await.unwrap();
        session.begin_transaction("BEGIN TRANSACTION").await.unwrap();
        session.commit_transaction("COMMIT TRANSACTION").await.unwrap();
        session.begin_transaction("BEGIN TRANSACTION").await.unwrap();
        session.recover().await.unwrap();
        drop(session);
        assert_eq!((pools.connections(), pools.logins()), (1, 2));
    }

    #[tokio::test]
    async fn a_connection_that_died_in_the_pool_is_replaced_without_a_word() {
        let server = Server::builder().start().await.unwrap();
        let pools = pools(&server, 4).await;
        drop(pools.checkout(&db("master"), "test").await.unwrap());
        for connection in server.connections() {
            server.kill(connection.spid);
        }
        let mut session = pools.checkout(&db("master"), "test").await.unwrap();
        session.batch("SELECT 1").await.unwrap();
        assert_eq!(pools.logins(), 2);
    }

    /// A network that went silent is noticed at the next checkout, within the time that proof takes
    /// and not a statement's.
    #[tokio::test]
    async fn an_idle_session_that_went_silent_is_replaced() {
        use mssql_standin::proxy::{Proxy, Trouble, Way};
        let server = Server::builder().start().await.unwrap();
        let proxy = Proxy::start(server.addr()).await.unwrap();
        let string = server.connection_string("master");
        let string = string
            .replace(&format!(",{};", server.addr().port()), &format!(",{};", proxy.addr().port()));
        let options = pools(&server, 4).await.options().clone();
        let options = PoolOptions { statement_timeout: Duration::from_secs(300), ..options };
        let pools = Pools::new(connection_string::parse(&string).unwrap().endpoint, options);
        drop(pools.checkout(&db("master"), "test").await.unwrap());
        let silence = proxy.after(Way::ToServer, 0, Trouble::Silence);
        let began = Instant::now();
        let session = pools.checkout(&db("master"), "test").await.unwrap();
        assert!(
            silence.has_come() && began.elapsed() < 3 * PROOF_TIME_MAX,
            "{:?}",
            began.elapsed()
        );
        assert_eq!(pools.logins(), 2);
        assert_eq!(session.timeout(), Duration::from_secs(300));
    }

    #[tokio::test]
    async fn idle_connections_of_other_databases_make_room() {
        let server = Server::builder().start().await.unwrap();
        let pools = pools(&server, 2).await;
        for _ in 0..3 {
            for name in ["master", "tempdb", "msdb"] {
                let mut session = pools.checkout(&db(name), "test").await.unwrap();
                assert_eq!(
                    session.row("SELECT DB_NAME()", &[]).await.unwrap().text(0).unwrap(),
                    name
                );
            }
        }
        assert!(server.connection_count().peak <= 2, "{:?}", server.connection_count().peak);
    }

    /// Also where the old ones are in use: a source whose row changes must not see twice its limit.
    #[tokio::test]
    async fn pools_that_take_the_place_of_others_stay_within_the_same_limit() {
        let server = Server::builder().start().await.unwrap();
        let old = ServerConnections::new(pools(&server, 2).await, 0);
        let seats = old.reserve(1, "old").await.unwrap();
        let used = seats.checkout(&db("master")).await.unwrap();
        drop(old.pools().checkout(&db("tempdb"), "idle").await.unwrap());
        assert_eq!(old.pools().connections(), 2);
        let new = old.replace_endpoint(old.pools().endpoint().clone());
        assert_eq!(new.pools().connections(), 1, "the idle one is closed");
        // a server sees that a moment later
        server.wait_for_connections(1).await;
        assert!(
            new.reserve(2, "both").now_or_never().is_none(),
            "one seat is taken by who has the old connection"
        );
        let fresh = new.reserve(1, "new").await.unwrap();
        let mut session = fresh.checkout(&db("master")).await.unwrap();
        session.batch("SELECT 1").await.unwrap();
        assert_eq!(new.pools().connections(), 2);
        drop((used, seats));
        assert_eq!(new.pools().connections(), 1, "no connection of the old ones is kept");
        assert!(server.connection_count().peak <= 2, "{:?}", server.connection_count().peak);
    }

    /// Names come and go with the mappings; what is kept of them does not grow with all that ever
    /// were.
    #[tokio::test]
    async fn pools_of_databases_that_nobody_uses_any_more_are_forgotten() {
        let server = Server::builder().start().await.unwrap();
        let pools = pools(&server, 4).await;
        let mut kept = pools.checkout(&db("master"), "test").await.unwrap();
        for n in 0..200 {
            pools.pool(&db(&format!("gone{n}")));
        }
        let known = pools.0.pools.lock().unwrap().len();
        assert!(known <= POOLS_KEPT, "{known}");
        kept.batch("SELECT 1").await.unwrap();
        drop(kept);
        pools.checkout(&db("master"), "test").await.unwrap();
        assert_eq!(pools.logins(), 1);
    }

    #[tokio::test]
    async fn seats_bound_what_is_open_and_nobody_waits_for_ever() {
        let server = Server::builder().start().await.unwrap();
        let house = ServerConnections::new(pools(&server, 3).await, 1);
        assert_eq!(
            house.reserve(3, "too many").await.err().map(|error| error.kind),
            Some(Kind::Config)
        );
        let mut jobs = tokio::task::JoinSet::new();
        for i in 0..12 {
            let house = house.clone();
            jobs.spawn(async move {
                let seats = house.reserve(2, format!("job {i}")).await.unwrap();
                let one = seats.checkout(&db(["master", "tempdb", "msdb"][i % 3])).await;
                let two = seats.checkout(&db("master")).await;
                assert!(seats.checkout(&db("master")).await.is_err(), "a third was not asked for");
                one.and(two).map(drop)
            });
        }
        while let Some(job) = jobs.join_next().await {
            job.unwrap().unwrap();
        }
        assert!(server.connection_count().peak <= 3);
    }

    #[tokio::test]
    async fn a_login_that_is_refused_says_so_at_once() {
        let server = Server::builder().start().await.unwrap();
        let mut parsed = connection_string::parse(&server.connection_string("master")).unwrap();
        parsed.endpoint.password = crate::model::secret::Secret::new("wrong");
        let options = pools(&server, 2).await.options().clone();
        let Err(error) = Pools::new(parsed.endpoint, options).checkout(&db("master"), "test").await
        else {
            panic!("logged in with a wrong password");
        };
        assert_eq!((error.kind, error.number), (Kind::Login, Some(18456)));
    }
}
