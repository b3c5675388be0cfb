//! A transaction's list of what it did: dropped, it is rolled back; replayed, it is committed.

use super::{
    catalog::{Catalog, Object, ObjectId, TableMeta},
    clock::Moment,
    database::IdentityState,
    lock::{Spid, TableId},
    log::LoggedKind,
    snapshot::Snapshot,
    storage::{Row, RowKey, TableData, TxnId},
};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct RowOp {
    pub table: TableId,
    pub meta: Arc<TableMeta>,
    pub kind: LoggedKind,
    pub key: RowKey,
    pub before: Option<Arc<Row>>,
    pub after: Option<Arc<Row>>,
    pub command_id: i32,
    /// one half of an update that moved the row to another key
    pub moved: bool,
    /// the slot had an image of this transaction already: `before` is it
    pub had_pending: bool,
}

#[derive(Clone, Debug)]
pub enum Op {
    Row(RowOp),
    /// an object's description before DDL changed it
    Object {
        database: i32,
        id: ObjectId,
        before: Option<Object>,
    },
    /// schemas, types, principals and permissions before DDL changed them
    Parts {
        database: i32,
        before: Box<Catalog>,
    },
    /// a table's rows before DDL rebuilt, made or dropped it
    Data {
        table: TableId,
        before: Option<TableData>,
    },
    /// an identity counter that TRUNCATE reset
    Identity {
        table: TableId,
        before: Option<IdentityState>,
    },
}

#[derive(Debug)]
pub struct Transaction {
    pub id: TxnId,
    pub spid: Spid,
    pub begin_time: Moment,
    pub name: String,
    pub ops: Vec<Op>,
    pub savepoints: Vec<(String, usize)>,
    /// under SNAPSHOT isolation: everything as of the first access, own writes included
    pub snapshot: Option<Snapshot>,
    pub command_id: i32,
    /// false for an autocommit statement's
    pub explicit: bool,
}
