//! Readers: how a query sees a stored table, and rows somebody holds in memory.
//!
//! A scan reads a page, lets go of the instance, and goes on after the last key it has seen. Under
//! READ COMMITTED each page is what is committed at that moment, so a row whose key moves meanwhile
//! can be met twice or not at all, as on a real server. Under SNAPSHOT (and
//! READ_COMMITTED_SNAPSHOT) the pages come from one moment. While a cursor is open the table's
//! schema stays: DDL waits for it.

use crate::{
    engine::{
        catalog::TableMeta,
        instance::{State, Work},
        lock::{Spid, TableId, TableMode},
        query::host::{
            Access, Row, RowCursor, RowKey, RowSource, SourceColumn, SourceKey, SourceRow,
            TableHints,
        },
        storage::{ByteRange, KeyPlan, Slot, TableData},
    },
    error::{SqlError, SqlResult},
    exchange::connection::Isolation,
    tsql::ast::ObjectName,
};
use std::{ops::Bound, sync::Arc};

/// Rows read before the instance is let go again.
const PAGE_ROWS: usize = 64;

/// What table hints and the isolation level come to.
#[derive(Clone, Copy, Debug, Default)]
struct ReadMode {
    dirty: bool,
    /// kept to the end of the transaction
    table: Option<TableMode>,
    /// TABLOCK: nobody may be writing when the read starts
    wait_for_writers: bool,
    /// UPDLOCK, XLOCK
    lock_rows: bool,
    skip_locked: bool,
    /// wait for other writers' rows, without a lock on the others
    wait_rows: bool,
}

impl ReadMode {
    fn of(isolation: Isolation, hints: &TableHints) -> Self {
        let repeatable = matches!(isolation, Isolation::RepeatableRead | Isolation::Serializable);
        let holds = (repeatable && !hints.has("READCOMMITTED") && !hints.has("NOLOCK"))
            || hints.has("HOLDLOCK")
            || hints.has("SERIALIZABLE")
            || hints.has("REPEATABLEREAD");
        let updates = hints.has("UPDLOCK") || hints.has("XLOCK");
        let exclusive =
            hints.has("TABLOCKX") || (hints.has("XLOCK") && (hints.has("TABLOCK") || holds));
        let table = if exclusive {
            Some(TableMode::Exclusive)
        } else if holds && updates {
            Some(TableMode::Update)
        } else if holds {
            Some(TableMode::Shared)
        } else {
            None
        };
        Self {
            dirty: hints.has("NOLOCK")
                || hints.has("READUNCOMMITTED")
                || (isolation == Isolation::ReadUncommitted && !holds && !updates),
            table,
            wait_for_writers: hints.has("TABLOCK") && isolation != Isolation::Snapshot,
            lock_rows: updates && table.is_none(),
            skip_locked: hints.has("READPAST"),
            wait_rows: false,
        }
    }
}

/// A base table, temp table or table variable as one statement reads it.
pub struct TableSource {
    work: Work,
    table: TableId,
    meta: Arc<TableMeta>,
    name: ObjectName,
    columns: Vec<SourceColumn>,
    keys: Vec<SourceKey>,
    /// index ids, in the order of `keys`
    key_ids: Vec<i32>,
    mode: ReadMode,
    rows: u64,
}

/// A stored table's columns as queries see them.
pub fn source_columns(meta: &TableMeta) -> Vec<SourceColumn> {
    meta.columns
        .iter()
        .map(|c| SourceColumn {
            name: c.name.as_str().into(),
            ty: c.ty,
            nullable: c.nullable,
            identity: c.identity.as_ref().map(|i| (i.seed, i.increment)),
            computed: c.computed.is_some(),
            rowguid: c.rowguidcol,
            hidden: c.hidden,
            exact_name: meta.exact_names,
        })
        .collect()
}

impl TableSource {
    pub fn new(
        work: &Work,
        state: &State,
        database: i32,
        meta: &Arc<TableMeta>,
        hints: &TableHints,
    ) -> SqlResult<Self> {
        let db = state.database(database)?;
        let mut keys = Vec::new();
        let mut key_ids = Vec::new();
        let usable = |clustered: bool| {
            meta.indexes.iter().filter(move |i| {
                i.clustered == clustered && !i.disabled && i.filter.is_none() && !i.columnstore
            })
        };
        for index in usable(true).chain(usable(false)) {
            keys.push(SourceKey {
                columns: index.key.iter().map(|k| (k.ordinal, k.descending)).collect(),
                unique: index.unique,
            });
            key_ids.push(index.index_id);
        }
        Ok(Self {
            work: work.clone(),
            table: (database, meta.object_id),
            name: ObjectName {
                database: Some(db.name.clone()),
                schema: Some(db.catalog.schema_name(meta.schema_id).to_string()),
                name: meta.name.clone(),
            },
            columns: source_columns(meta),
            keys,
            key_ids,
            mode: ReadMode {
                wait_rows: work.target == Some((database, meta.object_id))
                    && work.isolation != Isolation::Snapshot,
                ..ReadMode::of(work.isolation, hints)
            },
            rows: state.tables.get(&(database, meta.object_id)).map_or(0, |d| d.rows.len() as u64),
            meta: meta.clone(),
        })
    }

    /// A private copy to read without coming back to the instance, when the statement or
    /// transaction reads a snapshot.
    fn snapshot(&self, state: &mut State) -> SqlResult<Option<TableData>> {
        // a secondary reads by row version whatever the isolation level and the hints say
        if self.work.isolation == Isolation::Snapshot || self.work.on_secondary(state, self.table.0)
        {
            return Ok(self.work.data(state, self.table)?.cloned());
        }
        if self.mode.dirty
            || self.mode.table.is_some()
            || self.mode.lock_rows
            || self.mode.wait_rows
        {
            return Ok(None);
        }
        self.work.statement_data(state, self.table)
    }
}

impl RowSource for TableSource {
    fn name(&self) -> ObjectName {
        self.name.clone()
    }

    fn columns(&self) -> &[SourceColumn] {
        &self.columns
    }

    fn keys(&self) -> &[SourceKey] {
        &self.keys
    }

    fn estimated_rows(&self) -> u64 {
        self.rows
    }

    fn open(&self, access: &Access) -> SqlResult<Box<dyn RowCursor>> {
        let index = match access.key {
            Some(at) => Some(
                *self
                    .key_ids
                    .get(at)
                    .ok_or_else(|| SqlError::unsupported("a key that is not there"))?,
            ),
            None => None,
        };
        let clustered = self.meta.clustered().map(|i| i.index_id);
        let range = match index.and_then(|id| self.meta.index(id)) {
            None => Some(ByteRange::all()),
            Some(index) => KeyPlan::new(&self.meta, &index.key).range(
                &access.prefix,
                access.lower.as_ref(),
                access.upper.as_ref(),
            ),
        };
        let work = self.work.clone();
        let private = self.meta.is_temp();
        let mut state = work.lock();
        if !private {
            if let Some(mode) = self.mode.table {
                state = work.lock_table(state, self.table, mode)?;
            }
            // SNAPSHOT requests no locks to read data: nobody's TABLOCKX stops it
            let unlocked = self.mode.dirty || work.isolation == Isolation::Snapshot;
            let (table, txn, dirty, shared) = (
                self.table,
                work.txn,
                unlocked,
                self.mode.wait_for_writers && self.mode.table.is_none(),
            );
            state = work.wait_while(state, |s| {
                let mut blockers = s.locks.reader_blockers(table, txn, dirty);
                if shared {
                    blockers.extend(s.locks.table_blockers(table, txn, TableMode::Shared));
                }
                blockers
            })?;
        }
        let snapshot = if private { None } else { self.snapshot(&mut state)? };
        let data = snapshot.as_ref().or_else(|| state.tables.get(&self.table));
        if data.is_none_or(|d| d.version != self.meta.version) {
            return Err(if snapshot.is_some() {
                self.changed_since_snapshot(&state)
            } else {
                schema_changed()
            });
        }
        let registered = !private && snapshot.is_none();
        if registered {
            *state.readers.entry(self.table).or_default().entry(work.spid).or_default() += 1;
        }
        drop(state);
        let range = range.filter(|r| !r.is_empty());
        Ok(Box::new(TableCursor {
            table: self.table,
            meta: self.meta.clone(),
            mode: self.mode,
            index: index.filter(|id| Some(*id) != clustered),
            done: range.is_none(),
            range: range.unwrap_or_else(ByteRange::all),
            reverse: access.reverse,
            snapshot,
            registered,
            private,
            work,
        }))
    }

    fn table(&self) -> Option<(i32, Arc<TableMeta>)> {
        Some((self.table.0, self.meta.clone()))
    }
}

impl TableSource {
    fn changed_since_snapshot(&self, state: &State) -> SqlError {
        let database = state.databases.get(&self.table.0).map_or("", |d| d.name.as_str());
        SqlError::new(
            3961,
            16,
            format!(
                "Snapshot isolation transaction failed in database '{database}' because the object accessed by the statement has been modified \
                 by a DDL statement in another concurrent transaction since the start of this transaction.  It is disallowed because the \
                 metadata is not versioned. A concurrent update to metadata can lead to inconsistency if mixed with snapshot isolation."
            ),
        )
    }
}

fn schema_changed() -> SqlError {
    SqlError::new(
        16943,
        16,
        "Could not complete cursor operation because the table schema changed after the cursor was declared.",
    )
}

struct TableCursor {
    work: Work,
    table: TableId,
    meta: Arc<TableMeta>,
    mode: ReadMode,
    /// None: along the rows themselves
    index: Option<i32>,
    /// what is left to read
    range: ByteRange,
    reverse: bool,
    snapshot: Option<TableData>,
    registered: bool,
    private: bool,
    done: bool,
}

/// What a page-read came to.
enum Page {
    Full,
    End,
    /// a row is locked by that session
    Blocked(Spid),
}

impl RowCursor for TableCursor {
    fn next_page(&mut self, page: &mut Vec<SourceRow>) -> SqlResult<bool> {
        let start = page.len();
        while !self.done && page.len() == start {
            self.work.check_cancelled()?;
            if let Some(data) = self.snapshot.take() {
                let read = self.read(None, &data, page);
                self.snapshot = Some(data);
                self.done = matches!(read, Page::End);
                continue;
            }
            let work = self.work.clone();
            let (table, txn, dirty) = (self.table, work.txn, self.mode.dirty);
            let mut state = work.lock();
            if !self.private && !state.locks.tables.is_empty() {
                state = work.wait_while(state, |s| s.locks.reader_blockers(table, txn, dirty))?;
            }
            let data = state
                .tables
                .get(&table)
                .filter(|d| d.version == self.meta.version)
                .cloned()
                .ok_or_else(schema_changed)?;
            match self.read(Some(&mut state), &data, page) {
                Page::Full => {}
                Page::End => self.done = true,
                Page::Blocked(_) if page.len() > start => {}
                Page::Blocked(spid) => {
                    let mut first = true;
                    // Wakes when anything changes: the page is then read again from the same place.
                    drop(data);
                    let _state = work.wait_while(state, |s| {
                        let still = first
                            || (s.transactions.values().any(|t| t.spid == spid)
                                && blocked_still(s, self, spid));
                        first = false;
                        if still { vec![spid] } else { Vec::new() }
                    })?;
                }
            }
        }
        Ok(page.len() > start)
    }
}

/// Is the next row of the cursor still in that session's hands?
fn blocked_still(state: &State, cursor: &TableCursor, spid: Spid) -> bool {
    let Some(data) = state.tables.get(&cursor.table) else { return false };
    cursor.peek(state, data) == Some(spid)
}

impl TableCursor {
    fn image<'a>(&self, slot: &'a Slot) -> Option<&'a Arc<Row>> {
        if self.mode.dirty { slot.dirty() } else { slot.visible(self.work.txn) }
    }

    /// Who holds this row, if that matters to this cursor.
    fn holder(&self, state: &State, key: &RowKey, slot: &Slot) -> Option<Spid> {
        if !self.mode.lock_rows && !self.mode.skip_locked && !self.mode.wait_rows {
            return None;
        }
        let writer = slot.other_writer(self.work.txn).and_then(|t| Work::spid_of(state, t));
        writer.or_else(|| state.locks.key_blocker(self.table, key, self.work.txn))
    }

    fn peek(&self, state: &State, data: &TableData) -> Option<Spid> {
        let mut holder = None;
        self.walk(data, |key, slot, _| {
            holder = self.holder(state, key, slot);
            false
        });
        holder
    }

    /// Goes through what is left of the range until `visit` says stop.
    fn walk(
        &self,
        data: &TableData,
        mut visit: impl FnMut(&RowKey, &Slot, &RowKey) -> bool,
    ) -> bool {
        match self.index {
            None => {
                let range = data.rows.range::<_, [u8]>(self.range.as_bounds());
                let mut visit = |(key, slot): (&RowKey, &Slot)| visit(key, slot, key);
                if self.reverse {
                    range.rev().all(&mut visit)
                } else {
                    range.into_iter().all(&mut visit)
                }
            }
            Some(id) => {
                let Some(index) = data.index(id) else { return true };
                let range = index.entries.range::<_, [u8]>(self.range.as_bounds());
                let mut visit = |(entry, key): (&RowKey, &RowKey)| match data.rows.get(key) {
                    Some(slot) => visit(key, slot, entry),
                    None => true,
                };
                if self.reverse {
                    range.rev().all(&mut visit)
                } else {
                    range.into_iter().all(&mut visit)
                }
            }
        }
    }

    fn read(
        &mut self,
        mut state: Option<&mut State>,
        data: &TableData,
        page: &mut Vec<SourceRow>,
    ) -> Page {
        let mut last: Option<RowKey> = None;
        let mut blocked = None;
        let mut visited = 0;
        let ended = self.walk(data, |key, slot, place| {
            if let Some(state) = state.as_deref_mut()
                && let Some(holder) = self.holder(state, key, slot)
            {
                if self.mode.skip_locked {
                    last = Some(place.clone());
                    return true;
                }
                blocked = Some(holder);
                return false;
            }
            let image = self.image(slot).filter(|image| {
                let exact = slot.pending.is_none() || self.index.is_none();
                exact
                    || self
                        .index
                        .and_then(|id| data.index(id))
                        .is_some_and(|i| i.entry_is_of(place, image, key))
            });
            if let Some(row) = image {
                page.push(SourceRow { key: key.clone(), row: row.clone() });
                if self.mode.lock_rows
                    && let Some(state) = state.as_deref_mut()
                {
                    state.locks.grant_key(self.table, key.clone(), self.work.txn, self.work.spid);
                }
            }
            last = Some(place.clone());
            visited += 1;
            visited < PAGE_ROWS
        });
        if let Some(last) = last {
            let edge = Bound::Excluded(last.to_vec());
            if self.reverse {
                self.range.to = edge;
            } else {
                self.range.from = edge;
            }
        }
        match blocked {
            Some(spid) => Page::Blocked(spid),
            None if ended || self.range.is_empty() => Page::End,
            None => Page::Full,
        }
    }
}

impl Drop for TableCursor {
    fn drop(&mut self) {
        if !self.registered {
            return;
        }
        let mut state = self.work.lock();
        if let Some(readers) = state.readers.get_mut(&self.table) {
            if let Some(count) = readers.get_mut(&self.work.spid) {
                *count -= 1;
                if *count == 0 {
                    readers.remove(&self.work.spid);
                }
            }
            if readers.is_empty() {
                state.readers.remove(&self.table);
            }
        }
        let waited_for = state.locks.has_waiters();
        drop(state);
        if waited_for {
            self.work.instance.notify();
        }
    }
}

/// Rows in memory: `inserted`, `deleted`, a system view's.
pub struct RowsSource {
    pub name: ObjectName,
    pub columns: Vec<SourceColumn>,
    pub rows: Arc<Vec<Arc<Row>>>,
}

impl RowSource for RowsSource {
    fn name(&self) -> ObjectName {
        self.name.clone()
    }

    fn columns(&self) -> &[SourceColumn] {
        &self.columns
    }

    fn keys(&self) -> &[SourceKey] {
        &[]
    }

    fn estimated_rows(&self) -> u64 {
        self.rows.len() as u64
    }

    fn open(&self, _access: &Access) -> SqlResult<Box<dyn RowCursor>> {
        Ok(Box::new(RowsCursor { rows: self.rows.clone(), next: 0 }))
    }
}

struct RowsCursor {
    rows: Arc<Vec<Arc<Row>>>,
    next: usize,
}

impl RowCursor for RowsCursor {
    fn next_page(&mut self, page: &mut Vec<SourceRow>) -> SqlResult<bool> {
        let until = (self.next + 4 * PAGE_ROWS).min(self.rows.len());
        for at in self.next..until {
            page.push(SourceRow {
                key: RowKey::from(&(at as u64).to_be_bytes()[..]),
                row: self.rows[at].clone(),
            });
        }
        let some = until > self.next;
        self.next = until;
        Ok(some)
    }
}
