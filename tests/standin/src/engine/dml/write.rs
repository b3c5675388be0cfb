//! Rows into storage: who must wait, what is a duplicate, which row has changed under the
//! statement.

use crate::{
    engine::{
        catalog::{IndexMeta, KeyKind, TableMeta},
        dml::prepare::Prepared,
        instance::{State, Work},
        lock::{Spid, TableId, TableMode},
        log::LoggedKind,
        query::host::{Row, RowKey},
        storage::{Conflict, TableData},
    },
    error::{SqlError, SqlResult},
    exchange::connection::Isolation,
    value::{Collation, Length, SqlType, Value, convert},
};
use std::sync::{Arc, MutexGuard};

/// A row that is to be replaced or deleted, as the statement's query saw it.
pub struct Target {
    pub key: RowKey,
    pub before: Arc<Row>,
    /// None: delete
    pub after: Option<Row>,
}

/// A row that was written.
pub struct Written {
    pub before: Option<Arc<Row>>,
    pub after: Option<Arc<Row>>,
}

pub enum Outcome {
    Done(Vec<Written>),
    /// A row is no longer what the query saw: undo, and run the statement again.
    Stale,
}

pub struct Writer<'a> {
    work: &'a Work,
    prepared: &'a Prepared,
}

impl<'a> Writer<'a> {
    /// Takes the table's intent lock.
    pub fn open(work: &'a Work, prepared: &'a Prepared) -> SqlResult<Self> {
        if !prepared.meta.is_temp() {
            let state = work.lock();
            let read_only = state.database(prepared.id.0)?.options.read_only
                || work.on_secondary(&state, prepared.id.0);
            if read_only {
                return Err(SqlError::new(
                    3906,
                    16,
                    format!(
                        "Failed to update database \"{}\" because the database is read-only.",
                        prepared.database_name
                    ),
                ));
            }
            drop(work.lock_table(state, prepared.id, TableMode::IntentExclusive)?);
        }
        Ok(Self { work, prepared })
    }

    fn data<'s>(&self, state: &'s State) -> SqlResult<&'s TableData> {
        state.tables.get(&self.prepared.id).ok_or_else(|| gone(self.prepared))
    }

    /// Writes new rows. A duplicate under IGNORE_DUP_KEY is left out and counted.
    pub fn insert(&self, rows: Vec<Row>) -> SqlResult<(Vec<Arc<Row>>, usize)> {
        let mut written = Vec::with_capacity(rows.len());
        let mut ignored = 0;
        let mut rows = rows.into_iter();
        loop {
            self.work.check_cancelled()?;
            let mut state = self.work.lock();
            let mut some = false;
            for row in rows.by_ref().take(64) {
                some = true;
                let row = Arc::new(row);
                let key = state
                    .tables
                    .get_mut(&self.prepared.id)
                    .ok_or_else(|| gone(self.prepared))?
                    .new_key(&row);
                match self.put_new(state, key, &row, false) {
                    Ok(guard) => {
                        state = guard;
                        written.push(row);
                    }
                    Err(Refusal::Duplicate(index)) if index.ignore_dup_key => {
                        ignored += 1;
                        state = self.work.lock();
                    }
                    Err(Refusal::Duplicate(index)) => {
                        return Err(duplicate(self.prepared, &index, &row));
                    }
                    Err(Refusal::Other(error)) => return Err(error),
                }
            }
            if !some {
                return Ok((written, ignored));
            }
        }
    }

    fn put_new(
        &self,
        state: MutexGuard<'a, State>,
        key: RowKey,
        row: &Arc<Row>,
        moved: bool,
    ) -> Result<MutexGuard<'a, State>, Refusal> {
        let mut state = self.clear(state, &key, row, true)?;
        state.write(
            self.work.txn,
            self.prepared.id,
            &self.prepared.meta,
            LoggedKind::Insert,
            key,
            Some(row.clone()),
            moved,
        );
        Ok(state)
    }

    /// Waits for other writers in the way; a duplicate is refused.
    fn clear(
        &self,
        mut state: MutexGuard<'a, State>,
        key: &RowKey,
        row: &Row,
        new_key: bool,
    ) -> Result<MutexGuard<'a, State>, Refusal> {
        loop {
            match self.data(&state)?.conflict(self.work.txn, key, row, new_key) {
                None => return Ok(state),
                Some(Conflict::Duplicate(index)) => {
                    let index = self
                        .prepared
                        .meta
                        .index(index)
                        .cloned()
                        .ok_or_else(|| gone(self.prepared))?;
                    return Err(Refusal::Duplicate(index));
                }
                Some(Conflict::Writer(_)) => {
                    let txn = self.work.txn;
                    let table = self.prepared.id;
                    state = self.work.wait_while(state, |s| {
                        let conflict =
                            s.tables.get(&table).and_then(|d| d.conflict(txn, key, row, new_key));
                        match conflict {
                            Some(Conflict::Writer(owner)) => {
                                Work::spid_of(s, owner).into_iter().collect()
                            }
                            Some(Conflict::Duplicate(_)) | None => Vec::new(),
                        }
                    })?;
                }
            }
        }
    }

    /// Replaces and deletes rows: every row locked and compared with what the query saw, rows whose
    /// key moves taken out first and put back afterwards, so that keys may be exchanged within one
    /// statement.
    pub fn change(&self, targets: Vec<Target>) -> SqlResult<Outcome> {
        let mut written = Vec::with_capacity(targets.len());
        let mut moved = Vec::new();
        let mut keyed = Vec::new();
        let mut state = self.work.lock();
        for (at, target) in targets.into_iter().enumerate() {
            if at % 64 == 63 {
                drop(state);
                self.work.check_cancelled()?;
                state = self.work.lock();
            }
            state = match self.lock_row(state, &target.key, &target.before)? {
                Some(state) => state,
                None => return Ok(Outcome::Stale),
            };
            let after = target.after.map(Arc::new);
            let (txn, id, meta) = (self.work.txn, self.prepared.id, &self.prepared.meta);
            match &after {
                None => state.write(txn, id, meta, LoggedKind::Delete, target.key, None, false),
                Some(row) => {
                    let data = state.tables.get_mut(&id).ok_or_else(|| gone(self.prepared))?;
                    let new_key = data.moved_key(&target.key, row);
                    if new_key == target.key {
                        if data.indexes.iter().any(|i| {
                            i.meta.unique && i.plan.encode(&target.before) != i.plan.encode(row)
                        }) || data.has_filtered()
                        {
                            keyed.push((new_key.clone(), row.clone()));
                        }
                        state.write(
                            txn,
                            id,
                            meta,
                            LoggedKind::Update,
                            new_key,
                            Some(row.clone()),
                            false,
                        );
                    } else {
                        state.write(txn, id, meta, LoggedKind::Delete, target.key, None, true);
                        moved.push((new_key, row.clone()));
                    }
                }
            }
            written.push(Written { before: Some(target.before), after });
        }
        for (key, row) in moved {
            state = self
                .put_new(state, key, &row, true)
                .map_err(|r| r.into_error(self.prepared, &row))?;
        }
        for (key, row) in keyed {
            state = self
                .clear(state, &key, &row, false)
                .map_err(|r| r.into_error(self.prepared, &row))?;
        }
        drop(state);
        Ok(Outcome::Done(written))
    }

    /// Waits for the row; None when it is not the one the query saw.
    fn lock_row(
        &self,
        state: MutexGuard<'a, State>,
        key: &RowKey,
        seen: &Arc<Row>,
    ) -> SqlResult<Option<MutexGuard<'a, State>>> {
        let (table, txn) = (self.prepared.id, self.work.txn);
        let state = self
            .work
            .wait_while(state, |s| row_blocker(s, table, key, txn).into_iter().collect())?;
        let slot = self.data(&state)?.rows.get(key);
        if self.work.isolation == Isolation::Snapshot && !self.prepared.meta.is_temp() {
            let own = slot.is_some_and(|s| s.pending.is_some());
            let then = state
                .transactions
                .get(&txn)
                .and_then(|t| t.snapshot.as_ref())
                .and_then(|s| s.get(&table))
                .and_then(|d| d.rows.get(key));
            let same = match (
                slot.and_then(|s| s.committed.as_ref()),
                then.and_then(|s| s.committed.as_ref()),
            ) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !own && !same {
                return Err(SqlError::new(
                    3960,
                    16,
                    format!(
                        "Snapshot isolation transaction aborted due to update conflict. You cannot use snapshot isolation to access table '{}' directly \
                         or indirectly in database '{}' to update, delete, or insert the row that has been modified or deleted by another transaction. \
                         Retry the transaction or change the isolation level for the update/delete statement.",
                        self.prepared.local_name, self.prepared.database_name
                    ),
                ));
            }
            return Ok(Some(state));
        }
        let same = slot.and_then(|s| s.visible(txn)).is_some_and(|now| Arc::ptr_eq(now, seen));
        Ok(same.then_some(state))
    }
}

fn row_blocker(state: &State, table: TableId, key: &RowKey, txn: u64) -> Option<Spid> {
    let writer =
        state.tables.get(&table).and_then(|d| d.rows.get(key)).and_then(|s| s.other_writer(txn));
    writer
        .and_then(|owner| Work::spid_of(state, owner))
        .or_else(|| state.locks.key_blocker(table, key, txn))
}

enum Refusal {
    Duplicate(Arc<IndexMeta>),
    Other(SqlError),
}

impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Self::Other(error)
    }
}

impl Refusal {
    fn into_error(self, prepared: &Prepared, row: &Row) -> SqlError {
        match self {
            Self::Duplicate(index) => duplicate(prepared, &index, row),
            Self::Other(error) => error,
        }
    }
}

fn gone(prepared: &Prepared) -> SqlError {
    SqlError::new(208, 16, format!("Invalid object name '{}'.", prepared.local_name))
}

fn duplicate(prepared: &Prepared, index: &IndexMeta, row: &Row) -> SqlError {
    duplicate_key(&prepared.meta, &prepared.local_name, index, row)
}

/// 2627 for a constraint, 2601 for an index.
fn duplicate_key(meta: &TableMeta, local_name: &str, index: &IndexMeta, row: &Row) -> SqlError {
    let values = key_text(meta, index, row);
    let name = &index.name;
    match index.kind {
        KeyKind::Index => SqlError::new(
            2601,
            14,
            format!(
                "Cannot insert duplicate key row in object '{local_name}' with unique index '{name}'. The duplicate key value is {values}."
            ),
        ),
        KeyKind::PrimaryKey | KeyKind::Unique => {
            let kind = if index.kind == KeyKind::PrimaryKey { "PRIMARY KEY" } else { "UNIQUE KEY" };
            SqlError::new(
                2627,
                14,
                format!(
                    "Violation of {kind} constraint '{name}'. Cannot insert duplicate key in object '{local_name}'. The duplicate key value is {values}."
                ),
            )
        }
    }
}

/// `(1, abc)`, as error texts show a key.
pub fn key_text(meta: &TableMeta, index: &IndexMeta, row: &Row) -> String {
    let text = |ordinal: usize| match &row[ordinal] {
        Value::Null => "<NULL>".to_string(),
        value => {
            let to = SqlType::NVarChar(Length::N(4000), Collation::DEFAULT);
            match convert::cast(
                value,
                meta.columns[ordinal].ty,
                to,
                None,
                &convert::ConvertContext::default(),
            ) {
                Ok(Value::Str(s)) => s.to_string(),
                Ok(_) | Err(_) => "?".to_string(),
            }
        }
    };
    format!("({})", index.key.iter().map(|k| text(k.ordinal)).collect::<Vec<_>>().join(", "))
}
