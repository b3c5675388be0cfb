//! Transactions.
//!
//! # The life of a transaction
//!
//! 1. Every statement runs in one: its own small one (autocommit), or the one BEGIN TRANSACTION (or
//!    a client's transaction request) opened.
//! 2. A row that is written becomes an [`Op::Row`] in the transaction's list and a pending image in
//!    storage. The list is all there is: a statement that fails is undone by taking the list back
//!    to where the statement began, a savepoint is a place in the list.
//! 3. DDL is in the same list: the catalog object as it was ([`Op::Object`]), the table's rows as
//!    they were ([`Op::Data`]: two pointers). The table is locked against everybody until the end,
//!    so nobody can have built on the new state.
//! 4. Rollback walks the list backwards. Identity values and rowversions stay used.
//! 5. Commit walks it forwards under the instance's mutex: pending images become committed ones in
//!    one step for every other session, the operations on tracked tables get LSNs and go to the
//!    database's log, locks are released, waiters wake.
//!
//! Rows of table variables take part in the statement (a failed one is undone) and not in the
//! transaction: they are settled at the end of each statement.

use crate::engine::{
    catalog::{Object, ObjectId, TableKind, TableMeta},
    clock::Moment,
    database::{Database, IdentityState},
    instance::{Committed, State},
    lock::{Spid, TableId},
    log::{LoggedKind, LoggedOp},
    storage::{Row, RowKey, TableData, TxnId},
    transaction::{Op, RowOp, Transaction},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl State {
    /// Opens a transaction for a session.
    pub fn begin(&mut self, spid: Spid, explicit: bool, name: &str, now: Moment) -> TxnId {
        self.next_txn += 1;
        let id = self.next_txn;
        let txn = Transaction {
            id,
            spid,
            begin_time: now,
            name: name.into(),
            ops: Vec::new(),
            savepoints: Vec::new(),
            snapshot: None,
            command_id: 0,
            explicit,
        };
        self.transactions.insert(id, txn);
        id
    }

    /// A new statement begins: returns the place to undo to.
    pub fn begin_statement(&mut self, txn: TxnId) -> usize {
        self.transactions.get_mut(&txn).map_or(0, |t| {
            t.command_id += 1;
            t.ops.len()
        })
    }

    /// Settles what the statement wrote to table variables.
    pub fn end_statement(&mut self, txn: TxnId, mark: usize) {
        let Some(transaction) = self.transactions.get_mut(&txn) else { return };
        let of_variable =
            |op: &Op| matches!(op, Op::Row(row) if row.meta.kind == TableKind::Variable);
        if !transaction.ops[mark.min(transaction.ops.len())..].iter().any(of_variable) {
            return;
        }
        let tail = transaction.ops.split_off(mark);
        let (variables, rest): (Vec<Op>, Vec<Op>) = tail.into_iter().partition(of_variable);
        transaction.ops.extend(rest);
        for op in variables {
            if let Op::Row(row) = op
                && let Some(data) = self.tables.get_mut(&row.table)
            {
                data.settle(txn, &row.key);
            }
        }
    }

    /// Writes a row: image in place, operation in the list. The caller has seen to locks and
    /// uniqueness.
    #[expect(clippy::too_many_arguments, reason = "the parts of a row operation")]
    pub fn write(
        &mut self,
        txn: TxnId,
        table: TableId,
        meta: &Arc<TableMeta>,
        kind: LoggedKind,
        key: RowKey,
        after: Option<Arc<Row>>,
        moved: bool,
    ) {
        let Some(transaction) = self.transactions.get_mut(&txn) else { return };
        let Some(data) = self.tables.get_mut(&table) else { return };
        let slot = data.rows.get(&key);
        let before = slot.and_then(|s| s.visible(txn)).cloned();
        let had_pending = slot.is_some_and(|s| s.pending.is_some());
        data.set_pending(txn, &key, Some(after.clone()));
        if let Some(own) = transaction.snapshot.as_mut().and_then(|s| s.get_mut(&table)) {
            own.set_pending(txn, &key, Some(after.clone()));
        }
        let command_id = transaction.command_id;
        transaction.ops.push(Op::Row(RowOp {
            table,
            meta: meta.clone(),
            kind,
            key,
            before,
            after,
            command_id,
            moved,
            had_pending,
        }));
    }

    /// Replaces a catalog object, remembering what was there.
    pub fn put_object(&mut self, txn: TxnId, database: i32, id: ObjectId, object: Option<Object>) {
        let Some(db) = self.databases.get_mut(&database) else { return };
        let before = db.catalog.put(id, object);
        self.push(txn, Op::Object { database, id, before });
    }

    /// Call before changing schemas, types, principals or permissions.
    pub fn keep_parts(&mut self, txn: TxnId, database: i32) {
        let Some(db) = self.databases.get(&database) else { return };
        let before = Box::new(db.catalog.clone());
        self.push(txn, Op::Parts { database, before });
    }

    /// Replaces a table's rows as a whole (None: the table is gone).
    pub fn put_data(&mut self, txn: TxnId, table: TableId, data: Option<TableData>) {
        let before = match data {
            Some(data) => self.tables.insert(table, data),
            None => self.tables.remove(&table),
        };
        if let Some(snapshot) = self.transactions.get_mut(&txn).and_then(|t| t.snapshot.as_mut()) {
            match self.tables.get(&table) {
                Some(data) => snapshot.insert(table, data.clone()),
                None => snapshot.remove(&table),
            };
        }
        self.push(txn, Op::Data { table, before });
    }

    pub fn put_identity(&mut self, txn: TxnId, table: TableId, state: Option<IdentityState>) {
        let Some(db) = self.databases.get_mut(&table.0) else { return };
        let before = match state {
            Some(state) => db.identities.insert(table.1, state),
            None => db.identities.remove(&table.1),
        };
        self.push(txn, Op::Identity { table, before });
    }

    fn push(&mut self, txn: TxnId, op: Op) {
        if let Some(t) = self.transactions.get_mut(&txn) {
            t.ops.push(op);
        }
    }

    /// Takes back everything after `mark`.
    pub fn undo_to(&mut self, txn: TxnId, mark: usize) {
        let Some(transaction) = self.transactions.get_mut(&txn) else { return };
        let tail = transaction.ops.split_off(mark.min(transaction.ops.len()));
        transaction.savepoints.retain(|(_, at)| *at <= mark);
        for op in tail.into_iter().rev() {
            self.undo(txn, op);
        }
    }

    fn undo(&mut self, txn: TxnId, op: Op) {
        match op {
            Op::Row(row) => {
                let image = row.had_pending.then_some(row.before);
                if let Some(own) = self
                    .transactions
                    .get_mut(&txn)
                    .and_then(|t| t.snapshot.as_mut())
                    .and_then(|s| s.get_mut(&row.table))
                {
                    own.set_pending(txn, &row.key, image.clone());
                }
                if let Some(data) = self.tables.get_mut(&row.table) {
                    data.set_pending(txn, &row.key, image);
                }
            }
            Op::Object { database, id, before } => {
                if let Some(db) = self.databases.get_mut(&database) {
                    db.catalog.put(id, before);
                }
            }
            Op::Parts { database, before } => {
                if let Some(db) = self.databases.get_mut(&database) {
                    db.catalog.restore_parts(*before);
                }
            }
            Op::Data { table, before } => {
                match before {
                    Some(data) => self.tables.insert(table, data),
                    None => self.tables.remove(&table),
                };
            }
            Op::Identity { table, before } => {
                if let Some(db) = self.databases.get_mut(&table.0) {
                    match before {
                        Some(state) => db.identities.insert(table.1, state),
                        None => db.identities.remove(&table.1),
                    };
                }
            }
        }
    }

    /// Ends a transaction with nothing of it left.
    pub fn rollback(&mut self, txn: TxnId) {
        self.undo_to(txn, 0);
        for db in self.databases.values_mut() {
            db.ddl_events.retain(|e| e.txn != txn || e.committed.is_some());
        }
        self.forget(txn);
    }

    /// Replays the list: from here on everybody sees it.
    pub fn commit(&mut self, txn: TxnId, now: Moment) {
        let Some(transaction) = self.transactions.get_mut(&txn) else { return };
        let ops = std::mem::take(&mut transaction.ops);
        let begin_time = transaction.begin_time;
        let mut logged: BTreeMap<i32, Vec<LoggedOp>> = BTreeMap::new();
        let mut written = BTreeSet::new();
        let mut lsns = BTreeMap::new();
        for op in ops {
            let Op::Row(row) = op else { continue };
            if self.observer.is_some() {
                written.insert(row.table);
            }
            if let Some(data) = self.tables.get_mut(&row.table) {
                data.settle(txn, &row.key);
            }
            if row.meta.is_tracked_by_cdc {
                logged.entry(row.table.0).or_default().push(LoggedOp {
                    seqval: [0; 10],
                    table: row.meta,
                    kind: row.kind,
                    before: row.before,
                    after: row.after,
                    command_id: row.command_id,
                    moved: row.moved,
                });
            }
        }
        let mut altered = Vec::new();
        for db in self.databases.values_mut() {
            for event in db.ddl_events.iter_mut().filter(|e| e.txn == txn && e.committed.is_none())
            {
                event.committed = Some(db.log.next_lsn());
                altered.push(db.id);
            }
        }
        altered.retain(|id| !logged.contains_key(id));
        for (database, ops) in logged {
            if let Some(db) = self.databases.get_mut(&database) {
                lsns.insert(database, db.log.append(txn, begin_time, now, ops));
            }
            self.tell_committed(database, now);
        }
        for database in altered {
            self.tell_committed(database, now);
        }
        self.forget(txn);
        if let Some(observer) = self.observer.clone() {
            observer(&Committed { state: self, written: &written, lsns: &lsns });
        }
    }

    fn tell_committed(&mut self, database: i32, now: Moment) {
        for extension in self.extensions {
            (extension.committed)(self, database, now);
        }
    }

    fn forget(&mut self, txn: TxnId) {
        self.transactions.remove(&txn);
        self.locks.release(txn);
    }

    pub fn savepoint(&mut self, txn: TxnId, name: &str) {
        if let Some(t) = self.transactions.get_mut(&txn) {
            let at = t.ops.len();
            t.savepoints.push((name.to_string(), at));
        }
    }

    /// The latest savepoint of that name. Savepoint names are compared with case, whatever the
    /// collation (Microsoft: SAVE TRANSACTION).
    pub fn savepoint_mark(&self, txn: TxnId, name: &str) -> Option<usize> {
        self.transactions
            .get(&txn)?
            .savepoints
            .iter()
            .rev()
            .find(|(own, _)| own == name)
            .map(|(_, at)| *at)
    }
}

impl Database {
    /// The next identity value of a table; None when the type's range would be left (the caller
    /// says 8115).
    pub fn peek_identity(&self, table: ObjectId, seed: i128, increment: i128) -> i128 {
        match self.identities.get(&table) {
            Some(IdentityState { last: Some(last), next_is_last: true }) => *last,
            Some(IdentityState { last: Some(last), next_is_last: false }) => last + increment,
            Some(IdentityState { last: None, .. }) | None => seed,
        }
    }

    pub fn set_identity(&mut self, table: ObjectId, last: i128) {
        self.identities.insert(table, IdentityState { last: Some(last), next_is_last: false });
    }
}
