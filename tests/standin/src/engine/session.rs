//! One connection's requests: batches, remote calls, transaction requests.

use crate::{
    engine::{
        context::{OpenStatement, Options, Session, doomed_write},
        dml::bulk::BulkLoad,
        instance::{Instance, SessionInfo},
        interpreter::{self, Failure, Stop},
        procedures::Argument,
    },
    error::{SqlError, SqlResult},
    exchange::{
        connection::{
            BeginNext, Engine, EngineConnection, Isolation, LoginInfo, Param, TransactionRequest,
            cannot_open_database, login_failed,
        },
        sink::{Cancelled, Column, DoneKind, Sink},
    },
    tsql::{parse, parse_name},
    value::{Collation, SqlType, Value},
};
use std::sync::Arc;

/// The engine as front ends see it.
impl Engine for Arc<Instance> {
    fn login(&self, info: LoginInfo) -> SqlResult<Box<dyn EngineConnection>> {
        Ok(Box::new(EngineSession::open(self.clone(), info)?))
    }

    fn collation(&self) -> Collation {
        self.config.collation
    }
}

/// A connection's session.
pub struct EngineSession {
    session: Session,
    /// a bulk load under way, and its columns as the wire has them
    bulk: Option<(BulkLoad, OpenStatement)>,
    bulk_columns: Vec<Column>,
}

impl EngineSession {
    /// Logs in: 18456, 4060.
    pub fn open(instance: Arc<Instance>, info: LoginInfo) -> SqlResult<Self> {
        let (login, default_database) = {
            let state = instance.lock();
            let login = state.login(&info.user).ok_or_else(|| login_failed(&info.user))?;
            if !info.trusted && (login.password != info.password || login.disabled) {
                return Err(login_failed(&info.user));
            }
            (login.name.clone(), login.default_database.clone())
        };
        let wanted =
            if info.database.is_empty() { default_database } else { info.database.clone() };
        let database = instance
            .lock()
            .open_database(&login, &wanted)
            .map_err(|_| cannot_open_database(&wanted))?;
        let waker = Arc::downgrade(&instance);
        info.cancel.on_cancel(move || {
            if let Some(instance) = waker.upgrade() {
                instance.notify();
            }
        });
        let session = Session::new(instance, info, login, database);
        let told = SessionInfo {
            spid: session.spid,
            login: session.login.clone(),
            host_name: session.info.host_name.clone(),
            program_name: session.info.app_name.clone(),
            client_address: session.info.client_address.clone(),
            encrypted: session.info.encrypted,
            packet_size: session.info.packet_size,
            login_time: session.login_time,
            last_request_start: session.login_time,
            database,
            isolation: Isolation::ReadCommitted,
            deadlock_priority: 0,
            lock_timeout_ms: -1,
            context_info: Vec::new(),
            running: None,
            txn: None,
            cancel: session.info.cancel.clone(),
        };
        session.instance.lock().sessions.insert(session.spid, told);
        Ok(Self { session, bulk: None, bulk_columns: Vec::new() })
    }

    /// The state, for those who look at a session from outside of a request.
    pub fn state(&self) -> &Session {
        &self.session
    }

    fn start(&mut self, text: &str) {
        self.session.start_batch();
        let now = self.session.instance.now();
        if let Some(info) = self.session.instance.lock().sessions.get_mut(&self.session.spid) {
            info.running = Some(text.to_owned());
            info.last_request_start = now;
        }
    }

    /// The rules at the end of every request.
    fn finish(&mut self, result: Result<(), Stop>, sink: &mut dyn Sink) -> Result<(), Cancelled> {
        if let Some(info) = self.session.instance.lock().sessions.get_mut(&self.session.spid) {
            info.running = None;
        }
        let cancelled = match result {
            Ok(()) | Err(Stop::Scope | Stop::Batch) => Ok(()),
            Err(Stop::Cancelled) => Err(Cancelled),
            // No TRY is left to catch it; it is sent rather than lost.
            Err(Stop::Error { error, .. }) => sink.message(&error),
        };
        self.session.start_batch();
        if self.session.doomed {
            let text = "Uncommittable transaction is detected at the end of the batch. The transaction is rolled back.";
            let rolled_back = self.session.rollback_all(sink);
            if cancelled.is_ok() {
                rolled_back?;
                sink.message(&SqlError::new(3998, 16, text).at(1))?;
            }
        }
        cancelled
    }

    /// A bulk load's error is sent by the caller; what it does to the transaction is seen to here.
    fn failed<T>(&mut self, error: SqlError) -> SqlResult<T> {
        if self.session.options.xact_abort || interpreter::always_rolls_back(&error) {
            // Nowhere never cancels.
            let _ = self.session.rollback_all(&mut Nowhere);
        }
        Err(error)
    }

    fn report(&mut self, error: SqlError, sink: &mut dyn Sink) -> Result<(), Cancelled> {
        sink.message(&error)
    }

    /// MS-TDS 2.2.6.9: the isolation level of a begin lasts as SET's does.
    fn begin(
        &mut self,
        isolation: Option<Isolation>,
        name: &str,
        sink: &mut dyn Sink,
    ) -> Result<(), Cancelled> {
        if let Some(isolation) = isolation {
            self.session.options.isolation = isolation;
        }
        self.session.begin_transaction(name, sink)
    }

    fn begin_next(
        &mut self,
        next: Option<&BeginNext>,
        sink: &mut dyn Sink,
    ) -> Result<(), Cancelled> {
        next.map_or(Ok(()), |n| self.begin(n.isolation, &n.name, sink))
    }
}

impl Drop for EngineSession {
    fn drop(&mut self) {
        self.reset(false);
        let mut state = self.session.instance.lock();
        state.sessions.remove(&self.session.spid);
        drop(state);
        self.session.instance.notify();
    }
}

/// Nobody listens: a connection that ends rolls back in silence.
struct Nowhere;

impl Sink for Nowhere {
    fn columns(&mut self, _: &[Column]) -> Result<(), Cancelled> {
        Ok(())
    }
    fn row(&mut self, _: &[Value]) -> Result<(), Cancelled> {
        Ok(())
    }
    fn done(&mut self, _: DoneKind, _: Option<u64>) -> Result<(), Cancelled> {
        Ok(())
    }
    fn message(&mut self, _: &SqlError) -> Result<(), Cancelled> {
        Ok(())
    }
    fn env(&mut self, _: &crate::exchange::sink::EnvChange) -> Result<(), Cancelled> {
        Ok(())
    }
    fn return_value(&mut self, _: &str, _: SqlType, _: &Value) -> Result<(), Cancelled> {
        Ok(())
    }
    fn return_status(&mut self, _: i32) -> Result<(), Cancelled> {
        Ok(())
    }
}

impl EngineConnection for EngineSession {
    fn batch(&mut self, text: &str, sink: &mut dyn Sink) -> Result<(), Cancelled> {
        self.start(text);
        let result = match parse(text, self.session.options.quoted_identifier) {
            Ok(batch) => interpreter::run(&mut self.session, &batch, sink).map(|_| ()),
            Err(error) => self.report(error, sink).map_err(Stop::from),
        };
        self.finish(result, sink)
    }

    fn rpc(
        &mut self,
        procedure: &str,
        params: &[Param],
        sink: &mut dyn Sink,
    ) -> Result<(), Cancelled> {
        self.start(procedure);
        let mut arguments = params
            .iter()
            .map(|p| Argument {
                name: (!p.name.is_empty()).then(|| p.name.clone()),
                ty: p.ty,
                value: p.value.clone(),
                output: p.output,
                default: p.default,
            })
            .collect::<Vec<_>>();
        let result = match parse_name(procedure) {
            Ok(name) => {
                match interpreter::call(&mut self.session, &name, &mut arguments, false, sink) {
                    Ok(status) => interpreter::report_call(status, &arguments, sink),
                    Err(Failure::Stop(stop)) => Err(stop),
                    Err(Failure::Sql(error)) => {
                        interpreter::fail(&mut self.session, error, 0, sink)
                    }
                }
            }
            Err(error) => self.report(error, sink).map_err(Stop::from),
        };
        self.finish(result, sink)
    }

    fn transaction(
        &mut self,
        request: &TransactionRequest,
        sink: &mut dyn Sink,
    ) -> Result<(), Cancelled> {
        let result = match request {
            TransactionRequest::Begin { isolation, name } => {
                return self.begin(*isolation, name, sink);
            }
            TransactionRequest::Commit { begin, .. } => match self.session.commit_transaction(sink)
            {
                Ok(()) => return self.begin_next(begin.as_ref(), sink),
                Err(error) => Err(error),
            },
            TransactionRequest::Rollback { name, begin } => {
                match self.session.rollback_transaction(Some(name), sink) {
                    Ok(()) => return self.begin_next(begin.as_ref(), sink),
                    Err(error) => Err(error),
                }
            }
            TransactionRequest::Save { name } => {
                crate::usage::used("statement", "SAVE TRANSACTION");
                self.session.save_transaction(name)
            }
        };
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.is_cancelled() => Err(Cancelled),
            Err(error) => self.report(error, sink),
        }
    }

    fn bulk_begin(&mut self, columns: &[Column], _sink: &mut dyn Sink) -> SqlResult<Vec<SqlType>> {
        let Some(announced) = self.session.bulk.take() else {
            return Err(SqlError::unsupported("bulk load rows without INSERT BULK"));
        };
        if self.session.doomed {
            return Err(doomed_write());
        }
        self.bulk_columns = columns.to_vec();
        let declared = announced
            .columns
            .iter()
            .map(|(_, ty)| self.session.resolve_type(ty))
            .collect::<SqlResult<Vec<_>>>()?;
        let open = self.session.open_statement();
        match BulkLoad::begin(&mut self.session, &announced) {
            Ok(load) => {
                self.bulk = Some((load, open));
                Ok(declared)
            }
            Err(error) => {
                self.session.close_statement(open, false);
                self.failed(error).map(|()| declared)
            }
        }
    }

    fn bulk_rows(&mut self, rows: Vec<Vec<Value>>, _sink: &mut dyn Sink) -> SqlResult<()> {
        let Some((mut load, open)) = self.bulk.take() else {
            return Err(SqlError::unsupported("bulk load rows without a bulk load"));
        };
        match load.rows(&mut self.session, &self.bulk_columns, rows) {
            Ok(()) => {
                self.bulk = Some((load, open));
                Ok(())
            }
            Err(error) => {
                self.session.close_statement(open, false);
                self.failed(error)
            }
        }
    }

    fn bulk_end(&mut self, sink: &mut dyn Sink) -> SqlResult<u64> {
        let Some((load, open)) = self.bulk.take() else {
            return Err(SqlError::unsupported("the end of a bulk load without a bulk load"));
        };
        let result = load.end(&mut self.session, sink);
        self.session.close_statement(open, result.is_ok());
        match result {
            Ok(rows) => {
                self.session.row_count = i64::try_from(rows).unwrap_or(i64::MAX);
                Ok(rows)
            }
            Err(error) => self.failed(error),
        }
    }

    fn bulk_abort(&mut self) {
        self.session.bulk = None;
        if let Some((_, open)) = self.bulk.take() {
            self.session.close_statement(open, false);
        }
    }

    fn reset(&mut self, keep_transaction: bool) {
        self.bulk_abort();
        let session = &mut self.session;
        session.start_batch();
        if !keep_transaction {
            // Nowhere never cancels.
            let _ = session.rollback_all(&mut Nowhere);
        }
        session.drop_all_tables();
        session.options = Options::default();
        session.prepared.clear();
        session.identity_insert = None;
        session.context_info.clear();
        session.bulk = None;
        session.row_count = 0;
        session.instance.lock().locks.release_session(session.spid);
        session.instance.notify();
    }

    fn database(&self) -> String {
        self.session.database_name()
    }

    fn collation(&self) -> Collation {
        self.session.collation()
    }
}
