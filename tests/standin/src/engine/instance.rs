//! One "server": its databases, logins, sessions, transactions and locks.
//!
//! All of it is one [`State`] behind one mutex, held only for short steps: a page of rows read,
//! some rows written, a commit replayed. Nobody evaluates an expression, writes to a client or
//! sleeps while holding it; who must wait sleeps on the [`Condvar`], which is notified whenever a
//! transaction ends or a lock is released.

use crate::{
    engine::{
        capture::CaptureConfig,
        catalog::{Object, ObjectId, Securable, TableMeta},
        clock::{Clock, Moment},
        database::{Database, MASTER, MODEL, MSDB, TEMPDB},
        extension::Extensions,
        lock::{LockTable, Spid, TableId},
        log::Lsn,
        snapshot::Snapshot,
        storage::{TableData, TxnId},
        transaction::Transaction,
    },
    error::{SqlError, SqlResult},
    exchange::connection::{CancelFlag, Isolation},
    tsql::ast::ObjectName,
    value::Collation,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

#[derive(Clone, Debug)]
pub struct InstanceConfig {
    /// @@SERVERNAME
    pub server_name: String,
    /// of new databases
    pub collation: Collation,
    /// of master, model, msdb and tempdb; unlike `collation`, so that a temp table's text clashes
    /// (468)
    pub tempdb_collation: Collation,
    pub sa_password: String,
    /// seed of everything random
    pub seed: u64,
    /// of new databases
    pub capture: CaptureConfig,
}

impl Default for InstanceConfig {
    fn default() -> Self {
        Self {
            server_name: "STANDIN".into(),
            collation: Collation::DEFAULT,
            tempdb_collation: Collation::LATIN1_100_CI_AS_SC,
            sa_password: "Passw0rd!".into(),
            seed: 1,
            capture: CaptureConfig::default(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Login {
    pub id: i32,
    pub name: String,
    pub password: String,
    pub sysadmin: bool,
    pub disabled: bool,
    pub default_database: String,
    pub create_date: Moment,
    /// server-level permissions granted (true) and denied (false), upper case
    pub permissions: Vec<(String, bool)>,
}

/// What sys.dm_exec_sessions and its kin tell of a session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    pub spid: Spid,
    pub login: String,
    pub host_name: String,
    pub program_name: String,
    pub client_address: String,
    pub encrypted: bool,
    pub packet_size: u32,
    pub login_time: Moment,
    pub last_request_start: Moment,
    pub database: i32,
    pub isolation: Isolation,
    pub deadlock_priority: i32,
    pub lock_timeout_ms: i64,
    /// SET CONTEXT_INFO
    pub context_info: Vec<u8>,
    /// the text it runs now
    pub running: Option<String>,
    pub txn: Option<TxnId>,
    pub cancel: CancelFlag,
}

pub struct State {
    pub databases: BTreeMap<i32, Database>,
    /// every table's rows, by database and object id
    pub tables: imbl::HashMap<TableId, TableData>,
    pub transactions: HashMap<TxnId, Transaction>,
    pub locks: LockTable,
    /// open readers per table: DDL waits for them
    pub readers: HashMap<TableId, BTreeMap<Spid, u32>>,
    pub logins: Vec<Login>,
    pub sessions: BTreeMap<Spid, SessionInfo>,
    pub next_txn: TxnId,
    next_login: i32,
    capture: CaptureConfig,
    pub extensions: Extensions,
    rng: StdRng,
    /// Told of every commit while the instance is locked, so that nobody has seen its effects
    /// before the observer has.
    pub observer: Option<Observer>,
}

/// What has just been committed.
pub struct Committed<'a> {
    pub state: &'a State,
    /// the tables it wrote to
    pub written: &'a BTreeSet<TableId>,
    /// the commit's LSN, per database in which it changed tracked tables
    pub lsns: &'a BTreeMap<i32, Lsn>,
}

/// Somebody who watches commits from inside: a test's oracle.
pub type Observer = Arc<dyn Fn(&Committed<'_>) + Send + Sync>;

impl State {
    pub fn database_named(&self, name: &str) -> Option<&Database> {
        self.databases.values().find(|d| {
            d.name.eq_ignore_ascii_case(name) || d.name.to_lowercase() == name.to_lowercase()
        })
    }

    pub fn database(&self, id: i32) -> SqlResult<&Database> {
        self.databases
            .get(&id)
            .ok_or_else(|| SqlError::new(911, 16, format!("Database with id {id} does not exist.")))
    }

    pub fn database_mut(&mut self, id: i32) -> SqlResult<&mut Database> {
        self.databases
            .get_mut(&id)
            .ok_or_else(|| SqlError::new(911, 16, format!("Database with id {id} does not exist.")))
    }

    pub fn table(&self, table: TableId) -> Option<&Arc<TableMeta>> {
        self.databases.get(&table.0)?.catalog.table(table.1)
    }

    pub fn login(&self, name: &str) -> Option<&Login> {
        self.logins.iter().find(|l| l.name.eq_ignore_ascii_case(name))
    }

    pub fn random_bytes(&mut self) -> [u8; 16] {
        self.rng.random()
    }

    pub fn random(&mut self) -> f64 {
        self.rng.random()
    }

    /// Looks a name up in a database's schema (the default one when none is written, then dbo).
    pub fn resolve(
        &self,
        current: i32,
        default_schema: &str,
        name: &ObjectName,
    ) -> Option<(i32, &Object)> {
        let db = match &name.database {
            Some(database) => self.database_named(database)?,
            None => self.databases.get(&current)?,
        };
        let find = |schema: &str| db.catalog.find(db.catalog.schema_named(schema)?.id, &name.name);
        let object = match &name.schema {
            Some(schema) if !schema.is_empty() => find(schema),
            Some(_) | None => find(default_schema).or_else(|| find("dbo")),
        };
        object.map(|o| (db.id, o))
    }

    pub fn create_database(
        &mut self,
        name: &str,
        collation: Collation,
        now: Moment,
    ) -> SqlResult<i32> {
        if self.database_named(name).is_some() {
            return Err(SqlError::new(
                1801,
                16,
                format!("Database '{name}' already exists. Choose a different database name."),
            ));
        }
        let id = (5..).find(|id| !self.databases.contains_key(id)).unwrap_or(i32::MAX);
        let fork = self.random_bytes();
        let mut database = Database::new(id, name, collation, now, fork);
        database.cdc.mode = self.capture.mode;
        database.cdc.poll = self.capture.poll;
        self.databases.insert(id, database);
        Ok(id)
    }

    pub fn drop_database(&mut self, id: i32) {
        self.databases.remove(&id);
        let gone: Vec<TableId> = self.tables.keys().filter(|t| t.0 == id).copied().collect();
        for table in gone {
            self.tables.remove(&table);
        }
    }

    pub fn create_login(
        &mut self,
        name: &str,
        password: &str,
        sysadmin: bool,
        now: Moment,
    ) -> SqlResult<()> {
        if self.login(name).is_some() {
            return Err(SqlError::new(
                15025,
                16,
                format!("The server principal '{name}' already exists."),
            ));
        }
        self.next_login += 1;
        self.logins.push(Login {
            id: self.next_login,
            name: name.into(),
            password: password.into(),
            sysadmin,
            disabled: false,
            default_database: "master".into(),
            create_date: now,
            permissions: Vec::new(),
        });
        Ok(())
    }
}

pub struct Instance {
    state: Mutex<State>,
    changed: Condvar,
    pub clock: Clock,
    pub config: InstanceConfig,
    pub extensions: Extensions,
    pub start_time: Moment,
}

impl Instance {
    pub fn new(config: InstanceConfig, extensions: Extensions) -> Arc<Self> {
        let clock = Clock::default();
        let now = clock.now();
        let mut rng = StdRng::seed_from_u64(config.seed);
        let mut databases = BTreeMap::new();
        for (id, name) in [(MASTER, "master"), (TEMPDB, "tempdb"), (MODEL, "model"), (MSDB, "msdb")]
        {
            let mut db = Database::new(id, name, config.tempdb_collation, now, rng.random());
            db.options.recovery = if id == MODEL { "FULL" } else { "SIMPLE" };
            db.options.snapshot_isolation = matches!(id, MASTER | MSDB);
            databases.insert(id, db);
        }
        let mut state = State {
            databases,
            tables: imbl::HashMap::new(),
            transactions: HashMap::new(),
            locks: LockTable::default(),
            readers: HashMap::new(),
            logins: Vec::new(),
            sessions: BTreeMap::new(),
            next_txn: 1000,
            next_login: 0,
            capture: config.capture,
            extensions,
            rng,
            observer: None,
        };
        // There is no login of that name yet, so this cannot fail.
        let _ = state.create_login("sa", &config.sa_password, true, now);
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            clock,
            config,
            extensions,
            start_time: now,
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes every waiter: something they may wait for has changed.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    /// Sleeps until [`Instance::notify`] or the time is over.
    pub fn sleep<'a>(
        &'a self,
        guard: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn now(&self) -> Moment {
        self.clock.now()
    }
}

/// Who is at work: a session's transaction as storage needs to know it. Cheap to clone; cursors own
/// one.
#[derive(Clone)]
pub struct Work {
    pub instance: Arc<Instance>,
    pub spid: Spid,
    pub txn: TxnId,
    pub isolation: Isolation,
    /// -1: wait for ever
    pub lock_timeout_ms: i64,
    pub deadlock_priority: i32,
    pub cancel: CancelFlag,
    /// the statement's own snapshot, in databases with READ_COMMITTED_SNAPSHOT ON; taken when the
    /// first such table is opened
    pub statement_snapshot: Arc<Mutex<Option<Snapshot>>>,
    /// of a session with ApplicationIntent=ReadOnly
    pub read_only_intent: bool,
    /// the table an UPDATE or DELETE is searching: its scan waits for rows somebody else is
    /// writing, as update locks do
    pub target: Option<TableId>,
}

impl Work {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.instance.lock()
    }

    pub fn check_cancelled(&self) -> SqlResult<()> {
        if self.cancel.is_cancelled() { Err(SqlError::cancelled()) } else { Ok(()) }
    }

    /// Waits until `blockers` says nobody is in the way any more. 1222 when LOCK_TIMEOUT is over,
    /// 1205 when chosen as deadlock victim.
    pub fn wait_while<'a>(
        &'a self,
        guard: MutexGuard<'a, State>,
        blockers: impl FnMut(&State) -> Vec<Spid>,
    ) -> SqlResult<MutexGuard<'a, State>> {
        self.wait_for(guard, self.lock_timeout_ms, blockers)
    }

    pub fn wait_for<'a>(
        &'a self,
        mut guard: MutexGuard<'a, State>,
        timeout_ms: i64,
        mut blockers: impl FnMut(&State) -> Vec<Spid>,
    ) -> SqlResult<MutexGuard<'a, State>> {
        let deadline =
            u64::try_from(timeout_ms).ok().map(|ms| Instant::now() + Duration::from_millis(ms));
        loop {
            let standing = blockers(&guard);
            if standing.is_empty() {
                guard.locks.end_wait(self.spid);
                return Ok(guard);
            }
            let priorities: HashMap<Spid, i32> =
                guard.sessions.iter().map(|(spid, s)| (*spid, s.deadlock_priority)).collect();
            let own = (self.spid, self.deadlock_priority);
            let priority = |spid: Spid| {
                if spid == own.0 { own.1 } else { priorities.get(&spid).copied().unwrap_or(0) }
            };
            let victim = guard.locks.start_wait(self.spid, standing, priority);
            if victim.is_some_and(|v| v != self.spid) {
                self.instance.notify();
            }
            let error = if victim == Some(self.spid) || guard.locks.take_victim(self.spid) {
                Some(self.deadlock())
            } else if self.cancel.is_cancelled() {
                Some(SqlError::cancelled())
            } else if deadline.is_some_and(|d| Instant::now() >= d) {
                let mut error = SqlError::new(1222, 16, "Lock request time out period exceeded.");
                error.state = 51;
                Some(error)
            } else {
                None
            };
            if let Some(error) = error {
                guard.locks.end_wait(self.spid);
                return Err(error);
            }
            let left = deadline.map_or(Duration::from_millis(250), |d| {
                d.saturating_duration_since(Instant::now())
            });
            guard = self
                .instance
                .sleep(guard, left.clamp(Duration::from_millis(1), Duration::from_millis(250)));
            if guard.locks.take_victim(self.spid) {
                guard.locks.end_wait(self.spid);
                return Err(self.deadlock());
            }
        }
    }

    fn deadlock(&self) -> SqlError {
        let mut error = SqlError::new(
            1205,
            13,
            format!(
                "Transaction (Process ID {}) was deadlocked on lock resources with another process and has been chosen as the deadlock victim. \
                 Rerun the transaction.",
                self.spid
            ),
        );
        error.state = 51;
        error
    }

    /// Waits for and takes a lock on a table, kept to the end of the transaction.
    pub fn lock_table<'a>(
        &'a self,
        guard: MutexGuard<'a, State>,
        table: TableId,
        mode: crate::engine::lock::TableMode,
    ) -> SqlResult<MutexGuard<'a, State>> {
        if guard.locks.holds_table(table, self.txn, mode) {
            return Ok(guard);
        }
        let ddl = mode == crate::engine::lock::TableMode::Schema;
        let mut guard = self.wait_while(guard, |state| {
            let mut blockers = state.locks.table_blockers(table, self.txn, mode);
            if ddl && let Some(readers) = state.readers.get(&table) {
                blockers.extend(readers.keys().filter(|spid| **spid != self.spid));
            }
            blockers
        })?;
        guard.locks.grant_table(table, self.txn, self.spid, mode);
        Ok(guard)
    }

    /// Opens and closes what a session's requests need.
    pub fn spid_of(state: &State, txn: TxnId) -> Option<Spid> {
        state.transactions.get(&txn).map(|t| t.spid)
    }

    pub fn commit(&self) {
        let now = self.instance.now();
        self.lock().commit(self.txn, now);
        self.instance.notify();
    }

    pub fn rollback(&self) {
        self.lock().rollback(self.txn);
        self.instance.notify();
    }

    pub fn undo_to(&self, mark: usize) {
        self.lock().undo_to(self.txn, mark);
        self.instance.notify();
    }

    /// The place in the transaction's list to undo to.
    pub fn mark(&self) -> usize {
        self.lock().transactions.get(&self.txn).map_or(0, |t| t.ops.len())
    }

    pub fn begin_statement(&self) -> usize {
        self.lock().begin_statement(self.txn)
    }

    pub fn end_statement(&self, mark: usize) {
        self.lock().end_statement(self.txn, mark);
    }

    /// Whether the session is on a readable secondary of this database.
    pub fn on_secondary(&self, state: &State, database: i32) -> bool {
        self.read_only_intent
            && state.databases.get(&database).is_some_and(|db| db.availability.replica_id.is_some())
    }

    /// What a secondary sees that has not redone everything.
    fn redone<'a>(&self, state: &'a State, database: i32) -> Option<&'a Snapshot> {
        if self.on_secondary(state, database) {
            state.databases.get(&database)?.availability.redone.as_ref()
        } else {
            None
        }
    }

    /// Where this transaction reads a table: as it is, or as its snapshot has it.
    pub fn data<'a>(
        &self,
        state: &'a mut State,
        table: TableId,
    ) -> SqlResult<Option<&'a TableData>> {
        if self.redone(state, table.0).is_some() {
            return Ok(self.redone(state, table.0).and_then(|redone| redone.get(&table)));
        }
        if table.0 == TEMPDB {
            return Ok(state.tables.get(&table));
        }
        if self.isolation != Isolation::Snapshot {
            return Ok(state.tables.get(&table));
        }
        let db = state.database(table.0)?;
        if !db.options.snapshot_isolation {
            let message = format!(
                "Snapshot isolation transaction failed accessing database '{}' because snapshot isolation is not allowed in this database. Use \
                 ALTER DATABASE to allow snapshot isolation.",
                db.name
            );
            return Err(SqlError::new(3952, 16, message));
        }
        let State { tables, transactions, .. } = state;
        let Some(transaction) = transactions.get_mut(&self.txn) else {
            return Ok(tables.get(&table));
        };
        Ok(transaction.snapshot.get_or_insert_with(|| tables.clone()).get(&table))
    }

    /// The statement's snapshot of a table, where the database reads by snapshot.
    pub fn statement_data(&self, state: &State, table: TableId) -> SqlResult<Option<TableData>> {
        if let Some(redone) = self.redone(state, table.0) {
            return Ok(redone.get(&table).cloned());
        }
        if self.isolation != Isolation::ReadCommitted
            || table.0 == TEMPDB
            || !state.database(table.0)?.options.read_committed_snapshot
        {
            return Ok(None);
        }
        let mut snapshot = self.statement_snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(snapshot.get_or_insert_with(|| state.tables.clone()).get(&table).cloned())
    }
}

/// A securable, with its database, for permission checks.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub database: i32,
    pub securable: Securable,
}

impl Target {
    pub fn object(database: i32, id: ObjectId) -> Self {
        Self { database, securable: Securable::Object(id) }
    }
}
