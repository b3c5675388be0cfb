//! What one connection remembers: the state the interpreter, queries, DML, DDL and procedures
//! share.
//!
//! A [`Session`] is a stack of [`Frame`]s (the batch, then one per procedure, dynamic SQL or
//! trigger that is running) over session-wide state. Variables live in one frame; a #temp table is
//! seen by the frame that made it and those it calls, and dies with it, as in SQL Server. Queries
//! see the session through [`super::query::host::Host`]; everything that changes it takes `&mut
//! Session`.

use crate::{
    engine::{
        catalog::{ObjectId, fold},
        clock::Moment,
        database::TEMPDB,
        instance::{Instance, State, Work},
        lock::{Spid, TableId},
        source::RowsSource,
        storage::TxnId,
    },
    error::{SqlError, SqlResult},
    exchange::{
        connection::{CancelFlag, Isolation, LoginInfo},
        sink::{Cancelled, EnvChange, Sink},
    },
    tsql::ast::{DataType, InsertBulk, ObjectName},
    value::{Collation, Length, SqlType, Value, convert::ConvertContext},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// SET options.
#[derive(Clone, Debug)]
pub struct Options {
    pub ansi_nulls: bool,
    pub concat_null_yields_null: bool,
    pub quoted_identifier: bool,
    pub xact_abort: bool,
    pub nocount: bool,
    pub fmtonly: bool,
    pub isolation: Isolation,
    pub lock_timeout_ms: i64,
    pub deadlock_priority: i32,
    pub date_format: crate::value::datetime::DateFormat,
    pub date_first: u8,
    pub text_size: i64,
}

impl Default for Options {
    /// What a client of TDS 7 gets: the ANSI options on, as its login asks (fODBC).
    fn default() -> Self {
        Self {
            ansi_nulls: true,
            concat_null_yields_null: true,
            quoted_identifier: true,
            xact_abort: false,
            nocount: false,
            fmtonly: false,
            isolation: Isolation::ReadCommitted,
            lock_timeout_ms: -1,
            deadlock_priority: 0,
            date_format: crate::value::datetime::DateFormat::Mdy,
            date_first: 7,
            text_size: -1,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Variable {
    pub ty: SqlType,
    pub value: Value,
}

/// The rows a trigger's statement was about.
#[derive(Clone)]
pub struct TriggerRows {
    pub inserted: Arc<RowsSource>,
    pub deleted: Arc<RowsSource>,
}

/// The batch, or something it runs.
#[derive(Default)]
pub struct Frame {
    /// The procedure's or trigger's name, or empty.
    pub procedure: String,
    /// The procedure's or trigger's object.
    pub object: Option<ObjectId>,
    variables: HashMap<String, Variable>,
    table_variables: HashMap<String, ObjectId>,
    temp_tables: Vec<(String, ObjectId)>,
    /// TRY blocks being run (not their CATCH).
    pub try_depth: u32,
    pub trigger: Option<TriggerRows>,
    /// SCOPE_IDENTITY()
    pub identity: Option<i128>,
    /// Options and current database to return to: SET and USE last as long as the frame.
    saved: Option<Box<(Options, i32)>>,
}

impl Frame {
    /// A procedure's or trigger's frame.
    pub fn of(procedure: &str, object: ObjectId, trigger: Option<TriggerRows>) -> Self {
        Self { procedure: procedure.to_owned(), object: Some(object), trigger, ..Self::default() }
    }
}

/// A statement that sp_prepare or sp_prepexec keeps.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub parameters: String,
    pub text: String,
}

/// A statement under way.
pub struct OpenStatement {
    /// it runs in a transaction of its own
    own: bool,
    mark: usize,
    work: Work,
    outer_work: Option<Work>,
    outer_now: Moment,
}

/// One connection.
pub struct Session {
    pub instance: Arc<Instance>,
    pub info: LoginInfo,
    pub spid: Spid,
    /// the login's name as the catalog has it
    pub login: String,
    pub login_time: Moment,
    /// the current database
    pub database: i32,
    pub options: Options,
    pub frames: Vec<Frame>,
    /// the open transaction: BEGIN TRANSACTION's, or the running statement's own
    pub txn: Option<TxnId>,
    /// @@TRANCOUNT of explicit transactions
    pub tran_count: u32,
    /// XACT_STATE() = -1
    pub doomed: bool,
    /// a statement runs in a transaction of its own
    pub autocommit: bool,
    pub work: Option<Work>,
    /// @@ROWCOUNT
    pub row_count: i64,
    pub identity_insert: Option<TableId>,
    pub context_info: Vec<u8>,
    /// What ERROR_NUMBER() and its kin tell, innermost CATCH last.
    pub caught: Vec<SqlError>,
    pub prepared: HashMap<i32, Prepared>,
    pub next_handle: i32,
    /// INSERT BULK has been announced
    pub bulk: Option<InsertBulk>,
    /// the running statement's instant
    pub now: Moment,
}

impl Session {
    /// A session in `database`. The caller has checked the login.
    pub fn new(instance: Arc<Instance>, info: LoginInfo, login: String, database: i32) -> Self {
        let now = instance.now();
        Self {
            spid: Spid::from(info.spid),
            instance,
            info,
            login,
            login_time: now,
            database,
            options: Options::default(),
            frames: vec![Frame::default()],
            txn: None,
            tran_count: 0,
            doomed: false,
            autocommit: false,
            work: None,
            row_count: 0,
            identity_insert: None,
            context_info: Vec::new(),
            caught: Vec::new(),
            prepared: HashMap::new(),
            next_handle: 0,
            bulk: None,
            now,
        }
    }

    pub fn cancel(&self) -> &CancelFlag {
        &self.info.cancel
    }

    // frames

    pub fn frame(&self) -> &Frame {
        // There is always the batch's frame.
        &self.frames[self.frames.len() - 1]
    }

    pub fn frame_mut(&mut self) -> &mut Frame {
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    /// How many procedures, dynamic statements and triggers the session is in.
    pub fn nest_level(&self) -> usize {
        self.frames.len() - 1
    }

    /// Enters a procedure, dynamic SQL or a trigger. 217 when too deep.
    pub fn push_frame(&mut self, mut frame: Frame) -> SqlResult<()> {
        if self.nest_level() >= 32 {
            let text = "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).";
            return Err(SqlError::new(217, 16, text));
        }
        frame.saved = Some(Box::new((self.options.clone(), self.database)));
        self.frames.push(frame);
        Ok(())
    }

    /// Leaves it: its options, temp tables and table variables are gone.
    pub fn pop_frame(&mut self) {
        if self.frames.len() < 2 {
            return;
        }
        if let Some(frame) = self.frames.pop() {
            if let Some(saved) = &frame.saved {
                (self.options, self.database) = (**saved).clone();
            }
            self.drop_tables(&frame);
        }
    }

    /// A new batch begins: variables of the last one are gone, temp tables stay.
    pub fn start_batch(&mut self) {
        while self.frames.len() > 1 {
            self.pop_frame();
        }
        self.caught.clear();
        let frame = self.frame_mut();
        let variables = Frame {
            table_variables: std::mem::take(&mut frame.table_variables),
            ..Frame::default()
        };
        frame.variables.clear();
        frame.try_depth = 0;
        self.drop_tables(&variables);
    }

    /// Drops every temp table: the connection ends or is reset.
    pub fn drop_all_tables(&mut self) {
        let frames = std::mem::replace(&mut self.frames, vec![Frame::default()]);
        frames.iter().for_each(|f| self.drop_tables(f));
    }

    fn drop_tables(&self, frame: &Frame) {
        if frame.temp_tables.is_empty() && frame.table_variables.is_empty() {
            return;
        }
        let mut state = self.instance.lock();
        for id in frame.temp_tables.iter().map(|(_, id)| id).chain(frame.table_variables.values()) {
            state.tables.remove(&(TEMPDB, *id));
            if let Some(db) = state.databases.get_mut(&TEMPDB) {
                db.catalog.put(*id, None);
                db.identities.remove(id);
            }
        }
    }

    // variables

    pub fn declare(&mut self, name: &str, ty: SqlType, value: Value) {
        self.frame_mut().variables.insert(fold(name), Variable { ty, value });
    }

    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.frame().variables.get(&fold(name))
    }

    /// Sets a variable to a value of its own type. 137 when there is none.
    pub fn set_variable(&mut self, name: &str, value: Value) -> SqlResult<()> {
        match self.frame_mut().variables.get_mut(&fold(name)) {
            Some(variable) => {
                variable.value = value;
                Ok(())
            }
            None => Err(undeclared(name)),
        }
    }

    /// The type of a variable; 137.
    pub fn variable_type(&self, name: &str) -> SqlResult<SqlType> {
        self.variable(name).map(|v| v.ty).ok_or_else(|| undeclared(name))
    }

    // temp tables and table variables, which are tables of tempdb

    /// The temp table of that name (with its #) that the running frame sees.
    pub fn temp_table(&self, name: &str) -> Option<ObjectId> {
        self.temp_table_in(&self.instance.lock(), name)
    }

    pub fn temp_table_in(&self, state: &State, name: &str) -> Option<ObjectId> {
        let name = fold(name);
        let mut seen = self.frames.iter().rev().flat_map(|f| f.temp_tables.iter().rev());
        let catalog = &state.databases.get(&TEMPDB)?.catalog;
        // A rolled-back CREATE TABLE leaves a name whose table is gone.
        seen.find(|(own, id)| *own == name && catalog.table(*id).is_some()).map(|(_, id)| *id)
    }

    /// Whether the running frame itself has made it (2714 then).
    pub fn has_own_temp_table(&self, name: &str) -> bool {
        let name = fold(name);
        let state = self.instance.lock();
        let Some(db) = state.databases.get(&TEMPDB) else { return false };
        self.frame()
            .temp_tables
            .iter()
            .any(|(own, id)| *own == name && db.catalog.table(*id).is_some())
    }

    pub fn add_temp_table(&mut self, name: &str, id: ObjectId) {
        let name = fold(name);
        self.frame_mut().temp_tables.push((name, id));
    }

    pub fn table_variable(&self, name: &str) -> Option<ObjectId> {
        self.frame().table_variables.get(&fold(name)).copied()
    }

    pub fn add_table_variable(&mut self, name: &str, id: ObjectId) {
        let name = fold(name);
        self.frame_mut().table_variables.insert(name, id);
    }

    // the database

    pub fn database_name(&self) -> String {
        self.instance
            .lock()
            .databases
            .get(&self.database)
            .map_or_else(String::new, |d| d.name.clone())
    }

    /// The current database's collation.
    pub fn collation(&self) -> Collation {
        self.instance
            .lock()
            .databases
            .get(&self.database)
            .map_or(self.instance.config.collation, |d| d.collation)
    }

    /// Finds a table, view, procedure or trigger by name, temp tables aside.
    pub fn resolve(&self, name: &ObjectName) -> Option<(i32, crate::engine::catalog::Object)> {
        let state = self.instance.lock();
        let database = self.database;
        let schema = state.default_schema(&self.login, database);
        state.resolve(database, &schema, name).map(|(db, object)| (db, object.clone()))
    }

    /// What a written type means here: character types get the database's collation, alias types
    /// are looked up (2715).
    pub fn resolve_type(&self, ty: &DataType) -> SqlResult<SqlType> {
        match ty {
            DataType::Builtin { ty, explicit_collation: true, .. } => Ok(*ty),
            DataType::Builtin { ty, .. } => Ok(ty.with_collation(self.collation())),
            DataType::Named(name) => self.named_type(name).ok_or_else(|| {
                let text = format!(
                    "Column, parameter, or variable #1: Cannot find data type {}.",
                    name.name
                );
                SqlError::new(2715, 16, text)
            }),
        }
    }

    /// sysname or an alias type.
    pub fn named_type(&self, name: &ObjectName) -> Option<SqlType> {
        let state = self.instance.lock();
        let database = self.database;
        let db = state.databases.get(&database)?;
        if name.name.eq_ignore_ascii_case("sysname") {
            return Some(SqlType::NVarChar(Length::N(128), db.collation));
        }
        let default = state.default_schema(&self.login, database);
        let find = |schema: &str| {
            db.catalog.type_named(db.catalog.schema_named(schema)?.id, &name.name).map(|t| t.ty)
        };
        match &name.schema {
            Some(schema) => find(schema),
            None => find(&default).or_else(|| find("dbo")),
        }
    }

    pub fn convert_context(&self) -> ConvertContext {
        ConvertContext { date_format: self.options.date_format }
    }

    // transactions

    /// XACT_STATE()
    pub fn xact_state(&self) -> i16 {
        match (self.tran_count > 0 || self.frame().trigger.is_some(), self.doomed) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => -1,
        }
    }

    /// @@TRANCOUNT: inside a trigger at least 1.
    pub fn reported_tran_count(&self) -> u32 {
        let in_trigger = self.autocommit && self.frames.iter().any(|f| f.trigger.is_some());
        self.tran_count + u32::from(in_trigger)
    }

    /// BEGIN TRANSACTION
    pub fn begin_transaction(&mut self, name: &str, sink: &mut dyn Sink) -> Result<(), Cancelled> {
        self.tran_count += 1;
        if self.tran_count > 1 {
            return Ok(());
        }
        if self.txn.is_none() {
            let now = self.instance.now();
            self.txn = Some(self.instance.lock().begin(self.spid, true, name, now));
        }
        self.autocommit = false;
        self.publish();
        match self.txn {
            Some(txn) => sink.env(&EnvChange::BeginTransaction(txn)),
            None => Ok(()),
        }
    }

    /// COMMIT: 3902, 3930.
    pub fn commit_transaction(&mut self, sink: &mut dyn Sink) -> SqlResult<()> {
        if self.tran_count == 0 {
            return Err(SqlError::new(
                3902,
                16,
                "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            ));
        }
        if self.doomed {
            return Err(doomed_write());
        }
        if self.tran_count > 1 {
            self.tran_count -= 1;
            return Ok(());
        }
        self.tran_count = 0;
        if let Some(txn) = self.txn.take() {
            let now = self.instance.now();
            self.instance.lock().commit(txn, now);
            self.instance.notify();
            self.publish();
            sink.env(&EnvChange::CommitTransaction(txn)).map_err(|_| SqlError::cancelled())?;
        }
        Ok(())
    }

    /// Takes everything back, however deep.
    pub fn rollback_all(&mut self, sink: &mut dyn Sink) -> Result<(), Cancelled> {
        let explicit = self.tran_count > 0;
        self.tran_count = 0;
        self.doomed = false;
        self.autocommit = false;
        let Some(txn) = self.txn.take() else { return Ok(()) };
        self.instance.lock().rollback(txn);
        self.instance.notify();
        self.publish();
        if explicit { sink.env(&EnvChange::RollbackTransaction(txn)) } else { Ok(()) }
    }

    /// `ROLLBACK [name]`: 3903, 6401, 3931.
    pub fn rollback_transaction(
        &mut self,
        name: Option<&str>,
        sink: &mut dyn Sink,
    ) -> SqlResult<()> {
        let in_trigger = self.reported_tran_count() > 0;
        let Some(txn) = self.txn.filter(|_| in_trigger) else {
            return Err(SqlError::new(
                3903,
                16,
                "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            ));
        };
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            let mut state = self.instance.lock();
            if let Some(mark) = state.savepoint_mark(txn, name) {
                if self.doomed {
                    let text = "The current transaction cannot be committed and cannot be rolled back to a savepoint. \
                                Roll back the entire transaction.";
                    return Err(SqlError::new(3931, 16, text));
                }
                state.undo_to(txn, mark);
                drop(state);
                self.instance.notify();
                return Ok(());
            }
            if state.transactions.get(&txn).is_none_or(|t| t.name != name) {
                let text = format!(
                    "Cannot roll back {name}. No transaction or savepoint of that name was found."
                );
                return Err(SqlError::new(6401, 16, text));
            }
        }
        self.rollback_all(sink).map_err(|_| SqlError::cancelled())
    }

    /// SAVE TRANSACTION: 628, 3930.
    pub fn save_transaction(&mut self, name: &str) -> SqlResult<()> {
        match self.txn {
            Some(_) if self.doomed => Err(doomed_write()),
            Some(txn) if self.tran_count > 0 => {
                self.instance.lock().savepoint(txn, name);
                Ok(())
            }
            _ => Err(SqlError::new(
                628,
                16,
                "Cannot issue SAVE TRANSACTION when there is no active transaction.",
            )),
        }
    }

    /// Runs one statement in the open transaction or in one of its own, and undoes it when it
    /// fails.
    pub fn statement<T>(&mut self, run: impl FnOnce(&mut Self) -> SqlResult<T>) -> SqlResult<T> {
        let open = self.open_statement();
        let result = run(self);
        self.close_statement(open, result.is_ok());
        result
    }

    /// Begins a statement that [`Self::close_statement`] ends: a bulk load is one statement over
    /// several requests.
    pub fn open_statement(&mut self) -> OpenStatement {
        let own = self.txn.is_none();
        let now = self.instance.now();
        let txn = match self.txn {
            Some(txn) => txn,
            None => {
                let txn = self.instance.lock().begin(self.spid, false, "", now);
                self.txn = Some(txn);
                self.autocommit = true;
                txn
            }
        };
        let work = Work {
            instance: self.instance.clone(),
            spid: self.spid,
            txn,
            isolation: self.options.isolation,
            lock_timeout_ms: self.options.lock_timeout_ms,
            deadlock_priority: self.options.deadlock_priority,
            cancel: self.info.cancel.clone(),
            statement_snapshot: Arc::new(Mutex::new(None)),
            read_only_intent: self.info.read_only_intent,
            target: None,
        };
        let mark = work.begin_statement();
        let (outer_work, outer_now) =
            (self.work.replace(work.clone()), std::mem::replace(&mut self.now, now));
        OpenStatement { own, mark, work, outer_work, outer_now }
    }

    /// Ends a statement: what it did stays when it went well, and is undone when not.
    pub fn close_statement(&mut self, open: OpenStatement, ok: bool) {
        let OpenStatement { own, mark, work, outer_work, outer_now } = open;
        self.work = outer_work;
        if self.work.is_some() {
            self.now = outer_now;
        }
        // A trigger or a procedure may have ended the transaction.
        if self.txn != Some(work.txn) {
            return;
        }
        if ok {
            work.end_statement(mark)
        } else {
            work.undo_to(mark)
        }
        if own && self.autocommit {
            self.txn = None;
            self.autocommit = false;
            if ok { work.commit() } else { work.rollback() }
        }
    }

    /// Tells the instance what the DMVs show of this session.
    pub fn publish(&self) {
        if let Some(info) = self.instance.lock().sessions.get_mut(&self.spid) {
            info.database = self.database;
            info.isolation = self.options.isolation;
            info.deadlock_priority = self.options.deadlock_priority;
            info.lock_timeout_ms = self.options.lock_timeout_ms;
            info.context_info.clone_from(&self.context_info);
            info.txn = self.txn;
        }
    }
}

/// 3930
pub fn doomed_write() -> SqlError {
    let text = "The current transaction cannot be committed and cannot support operations that write to the log file. \
                Roll back the transaction.";
    SqlError::new(3930, 16, text)
}

/// 137
pub fn undeclared(name: &str) -> SqlError {
    SqlError::new(137, 15, format!("Must declare the scalar variable \"{name}\"."))
}
