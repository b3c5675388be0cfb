//! An engine of a few words: enough for the wire to carry everything it can carry.

use mssql_standin::{
    error::{SqlError, SqlResult},
    exchange::{
        connection::{
            CancelFlag, Engine, EngineConnection, LoginInfo, Param, TransactionRequest,
            cannot_open_database, login_failed,
        },
        sink::{Cancelled, Column, DoneKind, EnvChange, Sink},
    },
    value::{Collation, SqlType, Value},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

#[derive(Default)]
pub struct Toy {
    pub bulk: Mutex<(Vec<Column>, Vec<Vec<Value>>)>,
    /// rows sent so far, to see a slow reader hold the engine back
    pub sent: AtomicU64,
    pub committed: AtomicU64,
    pub rolled_back: AtomicU64,
    pub resets: AtomicU64,
    pub sessions: Arc<AtomicU64>,
}

pub struct ToyEngine(pub Arc<Toy>);

impl Engine for ToyEngine {
    fn login(&self, login: LoginInfo) -> SqlResult<Box<dyn EngineConnection>> {
        if !login.trusted
            && (login.user != "sa"
                || !["Pässw0rd!", "it's;a=Passw0rd"].contains(&login.password.as_str()))
        {
            return Err(login_failed(&login.user));
        }
        let database =
            if login.database.is_empty() { "master".to_owned() } else { login.database.clone() };
        if !["master", "sales"].contains(&database.as_str()) {
            return Err(cannot_open_database(&database));
        }
        self.0.sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(ToyConnection {
            toy: self.0.clone(),
            cancel: login.cancel.clone(),
            login,
            database,
            announced: false,
            open: false,
        }))
    }

    fn collation(&self) -> Collation {
        Collation::DEFAULT
    }
}

struct ToyConnection {
    toy: Arc<Toy>,
    login: LoginInfo,
    cancel: CancelFlag,
    database: String,
    announced: bool,
    open: bool,
}

impl Drop for ToyConnection {
    fn drop(&mut self) {
        if self.open {
            self.toy.rolled_back.fetch_add(1, Ordering::SeqCst);
        }
        self.toy.sessions.fetch_sub(1, Ordering::SeqCst);
    }
}

pub fn column(name: &str, ty: SqlType) -> Column {
    Column { name: name.into(), ty, nullable: true, identity: false, computed: false }
}

impl ToyConnection {
    fn one(
        &self,
        sink: &mut dyn Sink,
        name: &str,
        ty: SqlType,
        value: Value,
    ) -> Result<(), Cancelled> {
        sink.columns(&[column(name, ty)])?;
        sink.row(&[value])?;
        sink.done(DoneKind::Select, Some(1))
    }

    fn statement(&mut self, text: &str, sink: &mut dyn Sink) -> Result<(), Cancelled> {
        if let Some(error) = sink.before_statement(text)? {
            sink.message(&error)?;
            return sink.done(DoneKind::Other, None);
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let text_type = SqlType::NVarChar(mssql_standin::value::Length::N(128), Collation::DEFAULT);
        match words.as_slice() {
            ["INT", n] => self.one(sink, "n", SqlType::Int, Value::Int(n.parse().unwrap_or(0)))?,
            ["APP"] => {
                self.one(sink, "app", text_type, Value::Str(self.login.app_name.as_str().into()))?
            }
            ["DATABASE"] => {
                self.one(sink, "database", text_type, Value::Str(self.database.as_str().into()))?
            }
            ["ENCRYPTED"] => {
                self.one(sink, "encrypted", SqlType::Bit, Value::Bit(self.login.encrypted))?
            }
            ["ROWS", count, width] => {
                let value = Value::Str("x".repeat(width.parse().unwrap_or(1)).into());
                sink.columns(&[column("i", SqlType::BigInt), column("t", text_type)])?;
                let count = count.parse().unwrap_or(0);
                for i in 0..count {
                    sink.row(&[Value::Int(i), value.clone()])?;
                    self.toy.sent.store(i as u64 + 1, Ordering::SeqCst);
                }
                sink.done(DoneKind::Select, Some(count as u64))?;
            }
            ["WAIT"] => {
                while !self.cancel.is_cancelled() {
                    self.cancel.sleep(Duration::from_secs(60));
                }
                return Err(Cancelled);
            }
            ["ERROR", number] => {
                sink.message(
                    &SqlError::new(number.parse().unwrap_or(50_000), 16, "It does not work.").at(3),
                )?;
                sink.done(DoneKind::Other, None)?;
            }
            ["PRINT", word] => sink.message(&SqlError::new(0, 0, *word))?,
            ["USE", database] => {
                let old = std::mem::replace(&mut self.database, (*database).to_owned());
                sink.env(&EnvChange::Database { new: (*database).to_owned(), old })?;
            }
            ["BEGIN"] => {
                self.open = true;
                sink.env(&EnvChange::BeginTransaction(7))?;
                sink.done(DoneKind::Other, None)?;
            }
            ["COMMIT"] => {
                self.open = false;
                self.toy.committed.fetch_add(1, Ordering::SeqCst);
                sink.env(&EnvChange::CommitTransaction(7))?;
                if let Some(error) = sink.after_statement(text)? {
                    sink.message(&error)?;
                }
                return sink.done(DoneKind::Other, None);
            }
            ["COUNT", n] => sink.done(DoneKind::Update, Some(n.parse().unwrap_or(0)))?,
            ["INSERT", "BULK", ..] => {
                self.announced = true;
                sink.done(DoneKind::Other, None)?;
            }
            ["TABLE"] => {
                let toy = self.toy.clone();
                let (columns, rows) = &*toy.bulk.lock().expect("the toy's table");
                sink.columns(columns)?;
                for row in rows {
                    sink.row(row)?;
                }
                sink.done(DoneKind::Select, Some(rows.len() as u64))?;
            }
            // What tiberius asks about the columns before a bulk load.
            ["SELECT", "TOP", "0", ..] => {
                let toy = self.toy.clone();
                let columns = &toy.bulk.lock().expect("the toy's table").0;
                sink.columns(columns)?;
                sink.done(DoneKind::Select, Some(0))?;
            }
            _ => {
                sink.message(&SqlError::unsupported(text))?;
                sink.done(DoneKind::Other, None)?;
            }
        }
        if let Some(error) = sink.after_statement(text)? {
            sink.message(&error)?;
        }
        Ok(())
    }
}

impl EngineConnection for ToyConnection {
    fn batch(&mut self, text: &str, sink: &mut dyn Sink) -> Result<(), Cancelled> {
        for statement in text.split(';').map(str::trim).filter(|s| !s.is_empty()) {
            self.statement(statement, sink)?;
        }
        Ok(())
    }

    /// sp_executesql: `ECHO` gives the parameters back as a row; anything else is a batch. Other
    /// procedures report what they were given.
    fn rpc(
        &mut self,
        procedure: &str,
        params: &[Param],
        sink: &mut dyn Sink,
    ) -> Result<(), Cancelled> {
        match (procedure, params) {
            ("sp_executesql", [Param { value: Value::Str(text), .. }, rest @ ..]) => {
                if text.starts_with("ECHO") {
                    let values = &rest[1..];
                    let columns: Vec<Column> =
                        values.iter().map(|param| column(&param.name, param.ty)).collect();
                    sink.columns(&columns)?;
                    sink.row(&values.iter().map(|param| param.value.clone()).collect::<Vec<_>>())?;
                    sink.done(DoneKind::Select, Some(1))?;
                } else {
                    self.batch(text, sink)?;
                }
                sink.return_status(0)
            }
            _ => {
                sink.message(&SqlError::new(
                    2812,
                    16,
                    format!("Could not find stored procedure '{procedure}'."),
                ))?;
                for param in params.iter().filter(|param| param.output) {
                    sink.return_value(&param.name, param.ty, &param.value)?;
                }
                sink.return_status(-6)
            }
        }
    }

    fn transaction(
        &mut self,
        request: &TransactionRequest,
        sink: &mut dyn Sink,
    ) -> Result<(), Cancelled> {
        match request {
            TransactionRequest::Begin { .. } => self.statement("BEGIN", sink),
            TransactionRequest::Commit { .. } => self.statement("COMMIT", sink),
            TransactionRequest::Rollback { .. } => {
                self.open = false;
                self.toy.rolled_back.fetch_add(1, Ordering::SeqCst);
                sink.env(&EnvChange::RollbackTransaction(7))
            }
            TransactionRequest::Save { .. } => Ok(()),
        }
    }

    fn bulk_begin(
        &mut self,
        columns: &[Column],
        _: &mut dyn Sink,
    ) -> SqlResult<Vec<mssql_standin::value::SqlType>> {
        if !std::mem::take(&mut self.announced) {
            return Err(SqlError::new(4022, 16, "Bulk load data was expected but not sent."));
        }
        *self.toy.bulk.lock().expect("the toy's table") = (columns.to_vec(), Vec::new());
        Ok(columns.iter().map(|column| column.ty).collect())
    }

    fn bulk_rows(&mut self, mut rows: Vec<Vec<Value>>, _: &mut dyn Sink) -> SqlResult<()> {
        if rows.iter().any(|row| row[0] == Value::Int(-1)) {
            return Err(SqlError::new(2627, 14, "Violation of PRIMARY KEY constraint."));
        }
        self.toy.bulk.lock().expect("the toy's table").1.append(&mut rows);
        Ok(())
    }

    fn bulk_end(&mut self, _: &mut dyn Sink) -> SqlResult<u64> {
        Ok(self.toy.bulk.lock().expect("the toy's table").1.len() as u64)
    }

    fn bulk_abort(&mut self) {
        self.toy.bulk.lock().expect("the toy's table").1.clear();
    }

    fn reset(&mut self, _: bool) {
        self.toy.resets.fetch_add(1, Ordering::SeqCst);
    }

    fn database(&self) -> String {
        self.database.clone()
    }

    fn collation(&self) -> Collation {
        Collation::DEFAULT
    }
}
