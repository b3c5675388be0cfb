//! What a front end may ask of an engine: log in, then run requests one after the other on a
//! connection of its own.
//!
//! The wire is tested against a toy engine through these traits, and tests ask the real engine
//! questions through them without a socket.

use crate::{
    error::{SqlError, SqlResult},
    exchange::sink::{Cancelled, Column, Sink},
    value::{Collation, SqlType, Value},
};
use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

/// A server's data and rules, shared by all its connections.
pub trait Engine: Send + Sync + 'static {
    /// 18456 for a wrong login, 4060 for a database that cannot be opened.
    fn login(&self, login: LoginInfo) -> SqlResult<Box<dyn EngineConnection>>;

    /// The server's own collation, which a client is told of at login when its database has none to
    /// tell.
    fn collation(&self) -> Collation;
}

/// One connection's session. Dropping it rolls back its transaction, drops its temp tables and
/// releases its locks.
///
/// Every method that runs statements reports through the sink: rows, counts, and errors too (they
/// are results, not failures). `Err(Cancelled)` means only that the client is gone or has sent an
/// attention, so there is nobody to report to; the transaction stays as it is (unless XACT_ABORT
/// says otherwise).
///
/// The engine calls [`Sink::before_statement`] and [`Sink::after_statement`] around every statement
/// that does something (not around IF, WHILE, BEGIN … END and TRY themselves): faults are injected
/// there.
pub trait EngineConnection: Send {
    /// A SQL batch. `INSERT BULK` in it only announces the bulk load that follows as
    /// [`EngineConnection::bulk_begin`].
    fn batch(&mut self, text: &str, sink: &mut dyn Sink) -> Result<(), Cancelled>;

    /// A remote procedure call, by name as written (`sp_executesql`, `dbo.p`, `[db].[dbo].[p]`).
    /// Reports RETURNSTATUS and output parameters through the sink.
    fn rpc(
        &mut self,
        procedure: &str,
        params: &[Param],
        sink: &mut dyn Sink,
    ) -> Result<(), Cancelled>;

    /// A transaction manager request; reports with ENVCHANGE, or an error.
    fn transaction(
        &mut self,
        request: &TransactionRequest,
        sink: &mut dyn Sink,
    ) -> Result<(), Cancelled>;

    /// Rows for the INSERT BULK announced last are about to come, in these columns. After an error
    /// the engine has forgotten the bulk load and undone it; the error is sent by the caller.
    /// Returns the types that INSERT BULK declared: their collations, or else the database's, say
    /// how the bytes of char and varchar are read, whatever the wire says (that is how SQL Server
    /// takes them; in no document).
    fn bulk_begin(&mut self, columns: &[Column], sink: &mut dyn Sink) -> SqlResult<Vec<SqlType>>;
    fn bulk_rows(&mut self, rows: Vec<Vec<Value>>, sink: &mut dyn Sink) -> SqlResult<()>;
    /// All rows are in: returns their number.
    fn bulk_end(&mut self, sink: &mut dyn Sink) -> SqlResult<u64>;
    /// The client broke off: nothing of this bulk load stays.
    fn bulk_abort(&mut self);

    /// RESETCONNECTION: as after login (database, SET options, temp tables, session locks), except
    /// that `keep_transaction` spares an open transaction.
    fn reset(&mut self, keep_transaction: bool);

    /// The current database.
    fn database(&self) -> String;
    /// The current database's collation.
    fn collation(&self) -> Collation;
}

/// What a client said of itself in LOGIN7, and what the server knows of its connection.
#[derive(Clone, Debug)]
pub struct LoginInfo {
    pub user: String,
    pub password: String,
    /// Do not ask for a password: a test's own session on the engine.
    pub trusted: bool,
    /// Empty: the login's default database.
    pub database: String,
    pub app_name: String,
    pub host_name: String,
    pub library: String,
    pub language: String,
    /// `127.0.0.1`, or `<local machine>` without a socket.
    pub client_address: String,
    pub encrypted: bool,
    /// ApplicationIntent=ReadOnly
    pub read_only_intent: bool,
    pub packet_size: u32,
    /// 0x74000004 for TDS 7.4
    pub tds_version: u32,
    pub spid: u16,
    pub cancel: CancelFlag,
}

impl LoginInfo {
    /// A session of a test's own, without a socket.
    pub fn trusted(database: &str, spid: u16) -> Self {
        Self {
            user: "sa".into(),
            password: String::new(),
            trusted: true,
            database: database.into(),
            app_name: "mssql-standin".into(),
            host_name: String::new(),
            library: String::new(),
            language: String::new(),
            client_address: "<local machine>".into(),
            encrypted: false,
            read_only_intent: false,
            packet_size: 4096,
            tds_version: 0x7400_0004,
            spid,
            cancel: CancelFlag::default(),
        }
    }
}

/// A parameter of a remote procedure call.
#[derive(Clone, Debug)]
pub struct Param {
    /// With the @; empty for a positional parameter.
    pub name: String,
    pub ty: SqlType,
    pub value: Value,
    pub output: bool,
    /// The caller asks for the procedure's own default; `value` is NULL.
    pub default: bool,
}

/// MS-TDS 2.2.6.9, the requests that are not about distributed transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionRequest {
    Begin {
        isolation: Option<Isolation>,
        name: String,
    },
    /// With `begin`, a new transaction follows at once.
    Commit {
        name: String,
        begin: Option<BeginNext>,
    },
    /// To a savepoint when `name` is one.
    Rollback {
        name: String,
        begin: Option<BeginNext>,
    },
    Save {
        name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginNext {
    pub isolation: Option<Isolation>,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
    Snapshot,
}

/// Tells a running engine to stop. The engine looks at it per row, per page and while it waits for
/// a lock.
#[derive(Clone, Default)]
pub struct CancelFlag(Arc<CancelState>);

#[derive(Default)]
struct CancelState {
    /// 0: run; 1: attention; 2: the connection is to end
    state: AtomicU8,
    wake: Mutex<Option<Wake>>,
    changed: Condvar,
}

type Wake = Box<dyn Fn() + Send + Sync>;

impl CancelFlag {
    /// Stop the running request.
    pub fn cancel(&self) {
        self.0.state.fetch_max(1, Ordering::SeqCst);
        self.wake();
    }

    /// Stop the running request and end the connection (its client is gone, KILL, shutdown). Cannot
    /// be cleared.
    pub fn kill(&self) {
        self.0.state.fetch_max(2, Ordering::SeqCst);
        self.wake();
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.state.load(Ordering::Relaxed) != 0
    }

    pub fn is_killed(&self) -> bool {
        self.0.state.load(Ordering::SeqCst) == 2
    }

    /// `Err(Cancelled)` when it is time to stop.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// The attention has been answered.
    pub fn clear(&self) {
        // A kill stays, so the exchange may fail.
        let _ = self.0.state.compare_exchange(1, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Called on every cancel and kill: the engine registers here what wakes its waits (a Condvar's
    /// notify_all).
    pub fn on_cancel(&self, wake: impl Fn() + Send + Sync + 'static) {
        *self.0.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(wake));
    }

    fn wake(&self) {
        if let Some(wake) = self.0.wake.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            wake();
        }
        self.0.changed.notify_all();
    }

    /// Waits that long, or until a cancel or kill.
    pub fn sleep(&self, at_most: Duration) {
        let guard = self.0.wake.lock().unwrap_or_else(PoisonError::into_inner);
        // Woken or timed out, the caller looks at the flag.
        drop(self.0.changed.wait_timeout_while(guard, at_most, |_| !self.is_cancelled()));
    }

    /// Waits that long, or until a kill.
    pub fn wait_for_kill(&self, at_most: Duration) {
        let guard = self.0.wake.lock().unwrap_or_else(PoisonError::into_inner);
        // Killed or not, the caller ends.
        drop(self.0.changed.wait_timeout_while(guard, at_most, |_| !self.is_killed()));
    }
}

impl std::fmt::Debug for CancelFlag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelFlag({})", self.0.state.load(Ordering::Relaxed))
    }
}

/// The error for a login that is refused; `state` is what the log of a real server explains and the
/// client sees as 1.
pub fn login_failed(user: &str) -> SqlError {
    SqlError::new(18456, 14, format!("Login failed for user '{user}'."))
}

/// The error for a login whose database cannot be opened; a client sees 18456 after it.
pub fn cannot_open_database(database: &str) -> SqlError {
    SqlError::new(
        4060,
        11,
        format!("Cannot open database \"{database}\" requested by the login. The login failed."),
    )
}
