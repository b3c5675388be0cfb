//! Capture instances, as `cdc.change_tables`, `cdc.captured_columns` and `cdc.index_columns`
//! describe them.

use super::store;
use crate::{
    engine::{
        catalog::ObjectId,
        instance::{State, Target, Work},
        log::Lsn,
        storage::{Row, TxnId},
    },
    error::SqlResult,
    value::Value,
};
use std::{collections::HashMap, sync::Arc};

#[derive(Clone, Debug)]
pub struct CapturedColumn {
    pub name: String,
    /// in the source table; stays when the table's other columns change
    pub column_id: i32,
    /// from 1: its bit in `__$update_mask`
    pub ordinal: i32,
    pub computed: bool,
}

#[derive(Clone, Debug)]
pub struct CaptureInstance {
    /// of the change table
    pub object_id: ObjectId,
    pub source: ObjectId,
    pub name: String,
    /// the low end of its validity interval
    pub start_lsn: Lsn,
    pub net_changes: bool,
    pub role: Option<String>,
    pub columns: Vec<CapturedColumn>,
    /// source columns of the key, in its order
    pub key: Vec<i32>,
}

impl CaptureInstance {
    pub fn change_table(&self) -> String {
        format!("{}_CT", self.name)
    }

    /// Bytes of an update mask.
    pub fn mask_len(&self) -> usize {
        self.columns.len().div_ceil(8)
    }
}

fn number(value: Option<&Value>) -> i32 {
    match value {
        Some(Value::Int(i)) => i32::try_from(*i).unwrap_or(0),
        _ => 0,
    }
}

fn string(value: Option<&Value>) -> Option<String> {
    match value {
        Some(Value::Str(s)) => Some(s.to_string()),
        _ => None,
    }
}

/// Every capture instance a transaction (0: nobody's) sees.
pub fn load(state: &State, database: i32, txn: TxnId) -> Vec<CaptureInstance> {
    let rows =
        |name| store::rows(state, database, name, txn).into_iter().map(|(_, row)| row).collect();
    assemble(rows("change_tables"), rows("captured_columns"), rows("index_columns"))
}

/// Every capture instance a session sees.
pub fn load_for(work: &Work, database: i32) -> SqlResult<Vec<CaptureInstance>> {
    let rows = |name| store::rows_of(work, database, name);
    Ok(assemble(rows("change_tables")?, rows("captured_columns")?, rows("index_columns")?))
}

/// The capture instance of that name that a session sees, without its columns: what a question
/// about its low end needs.
pub fn named(work: &Work, database: i32, name: &str) -> SqlResult<Option<CaptureInstance>> {
    let mut tables = store::rows_of(work, database, "change_tables")?;
    tables.retain(
        |row| matches!(row.get(3), Some(Value::Str(own)) if own.eq_ignore_ascii_case(name)),
    );
    Ok(assemble(tables, Vec::new(), Vec::new()).pop())
}

/// Rows by the change table that their first cell names.
fn by_table(rows: Vec<Arc<Row>>) -> HashMap<ObjectId, Vec<Arc<Row>>> {
    let mut tables: HashMap<ObjectId, Vec<Arc<Row>>> = HashMap::new();
    for row in rows {
        tables.entry(number(row.first())).or_default().push(row);
    }
    tables
}

fn assemble(
    tables: Vec<Arc<Row>>,
    columns: Vec<Arc<Row>>,
    keys: Vec<Arc<Row>>,
) -> Vec<CaptureInstance> {
    let (columns, keys) = (by_table(columns), by_table(keys));
    tables
        .into_iter()
        .map(|row| {
            let object_id = number(row.first());
            let mut captured: Vec<CapturedColumn> = columns
                .get(&object_id)
                .into_iter()
                .flatten()
                .map(|c| CapturedColumn {
                    name: string(c.get(1)).unwrap_or_default(),
                    column_id: number(c.get(2)),
                    ordinal: number(c.get(4)),
                    computed: matches!(c.get(5), Some(Value::Bit(true))),
                })
                .collect();
            captured.sort_by_key(|c| c.ordinal);
            let mut key: Vec<(i32, i32)> = keys
                .get(&object_id)
                .into_iter()
                .flatten()
                .map(|k| (number(k.get(2)), number(k.get(3))))
                .collect();
            key.sort_unstable();
            CaptureInstance {
                object_id,
                source: number(row.get(2)),
                name: string(row.get(3)).unwrap_or_default(),
                start_lsn: row.get(4).and_then(store::lsn_of).unwrap_or_default(),
                net_changes: matches!(row.get(6), Some(Value::Bit(true))),
                role: string(row.get(8)),
                columns: captured,
                key: key.into_iter().map(|(_, id)| id).collect(),
            }
        })
        .collect()
}

/// Whether a login may read an instance's changes: SELECT on the source, and membership of the
/// gating role when there is one. The database's owners always may.
pub fn may_read(state: &State, login: &str, database: i32, instance: &CaptureInstance) -> bool {
    if state.is_sysadmin(login) || state.is_member(login, database, "db_owner") == Some(true) {
        return true;
    }
    let member = instance
        .role
        .as_deref()
        .is_none_or(|role| state.is_member(login, database, role) == Some(true));
    member && state.has_permission(login, Target::object(database, instance.source), "SELECT")
}
