//! The `cdc` schema's tables: made, written and read in transactions, like any other table.

use crate::{
    engine::{
        catalog::{
            ColumnMeta, IndexMeta, KeyColumn, KeyKind, Object, ObjectId, TableKind, TableMeta,
        },
        clock::Moment,
        instance::{State, Work},
        log::{LoggedKind, Lsn},
        storage::{Row, RowKey, TableData, TxnId},
    },
    error::{SqlError, SqlResult},
    value::{SqlType, Value},
};
use std::sync::Arc;

pub const SCHEMA: &str = "cdc";

/// A table to be made.
pub struct NewTable<'a> {
    pub name: &'a str,
    pub columns: Vec<(String, SqlType, bool)>,
    /// the clustered key
    pub key: &'a [&'a str],
    pub key_name: String,
    /// one further index, not unique
    pub index: Option<(&'a str, &'a str)>,
}

pub fn schema_id(state: &State, database: i32) -> SqlResult<i32> {
    let db = state.database(database)?;
    db.catalog.schema_named(SCHEMA).map(|s| s.id).ok_or_else(|| not_enabled(&db.name))
}

/// Error 22901.
pub fn not_enabled(database: &str) -> SqlError {
    SqlError::new(
        22901,
        16,
        format!(
            "The database '{database}' is not enabled for Change Data Capture. Ensure that the correct database context is set and retry the \
             operation. To report on the databases enabled for Change Data Capture, query the is_cdc_enabled column in the sys.databases catalog \
             view."
        ),
    )
}

pub fn create_table(
    state: &mut State,
    txn: TxnId,
    database: i32,
    table: NewTable<'_>,
    now: Moment,
) -> SqlResult<ObjectId> {
    let schema_id = schema_id(state, database)?;
    let db = state.database_mut(database)?;
    if db.catalog.id_of(schema_id, table.name).is_some() {
        return Err(SqlError::new(
            2714,
            16,
            format!("There is already an object named '{}' in the database.", table.name),
        ));
    }
    let object_id = db.new_object_id();
    let columns: Vec<ColumnMeta> = table
        .columns
        .iter()
        .zip(1..)
        .map(|((name, ty, nullable), id)| ColumnMeta::new(id, name.clone(), *ty, *nullable))
        .collect();
    let key_column = |name: &str| {
        columns.iter().position(|c| c.name == name).map(|ordinal| KeyColumn {
            column_id: columns[ordinal].column_id,
            ordinal,
            descending: false,
        })
    };
    let index = |index_id: i32, name: String, names: &[&str], clustered: bool| {
        Arc::new(IndexMeta {
            index_id,
            name,
            unique: clustered,
            clustered,
            kind: KeyKind::Index,
            constraint_id: None,
            system_named: false,
            key: names.iter().filter_map(|n| key_column(n)).collect(),
            include: Vec::new(),
            filter: None,
            ignore_dup_key: false,
            disabled: false,
            columnstore: false,
        })
    };
    let mut indexes = vec![index(1, table.key_name.clone(), table.key, true)];
    if let Some((name, column)) = table.index {
        indexes.push(index(2, name.into(), &[column], false));
    }
    let meta = Arc::new(TableMeta {
        object_id,
        schema_id,
        name: table.name.into(),
        kind: TableKind::System,
        create_date: now,
        modify_date: now,
        last_column_id: i32::try_from(columns.len()).unwrap_or(0),
        columns,
        indexes,
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        temporal: None,
        history_of: None,
        is_tracked_by_cdc: false,
        memory_optimized: false,
        partitions: 1,
        exact_names: state.database(database)?.collation.is_case_sensitive(),
        version: 1,
    });
    let data = TableData::new(&meta);
    state.put_object(txn, database, object_id, Some(Object::Table(meta)));
    state.put_data(txn, (database, object_id), Some(data));
    Ok(object_id)
}

pub fn drop_table(state: &mut State, txn: TxnId, database: i32, object_id: ObjectId) {
    state.put_object(txn, database, object_id, None);
    state.put_data(txn, (database, object_id), None);
}

/// A table of the schema by name.
pub fn table(state: &State, database: i32, name: &str) -> Option<Arc<TableMeta>> {
    let catalog = &state.databases.get(&database)?.catalog;
    catalog.find(catalog.schema_named(SCHEMA)?.id, name)?.as_table().cloned()
}

/// What a transaction (0: nobody's) sees of a table.
pub fn rows(state: &State, database: i32, name: &str, txn: TxnId) -> Vec<(RowKey, Arc<Row>)> {
    table(state, database, name)
        .and_then(|meta| state.tables.get(&(database, meta.object_id)))
        .map(|data| visible(data, txn))
        .unwrap_or_default()
}

/// Whether nothing is committed in a table.
pub fn is_empty(state: &State, database: i32, name: &str) -> bool {
    let data =
        table(state, database, name).and_then(|meta| state.tables.get(&(database, meta.object_id)));
    data.is_none_or(|data| data.rows.values().all(|slot| slot.visible(0).is_none()))
}

/// What a session sees, its snapshot included.
pub fn rows_of(work: &Work, database: i32, name: &str) -> SqlResult<Vec<Arc<Row>>> {
    let mut state = work.lock();
    let Some(meta) = table(&state, database, name) else { return Ok(Vec::new()) };
    let data = work.data(&mut state, (database, meta.object_id))?;
    Ok(data
        .map(|d| visible(d, work.txn).into_iter().map(|(_, row)| row).collect())
        .unwrap_or_default())
}

fn visible(data: &TableData, txn: TxnId) -> Vec<(RowKey, Arc<Row>)> {
    data.rows
        .iter()
        .filter_map(|(key, slot)| Some((key.clone(), slot.visible(txn)?.clone())))
        .collect()
}

pub fn insert(state: &mut State, txn: TxnId, database: i32, name: &str, row: Row) {
    let Some(meta) = table(state, database, name) else { return };
    let id = (database, meta.object_id);
    let Some(key) = state.tables.get_mut(&id).map(|data| data.new_key(&row)) else { return };
    state.write(txn, id, &meta, LoggedKind::Insert, key, Some(Arc::new(row)), false);
}

/// Replaces the rows `change` gives something for: `Some(None)` deletes.
pub fn change(
    state: &mut State,
    txn: TxnId,
    database: i32,
    name: &str,
    change: impl Fn(&Row) -> Option<Option<Row>>,
) -> u64 {
    let Some(meta) = table(state, database, name) else { return 0 };
    let mut changed = 0;
    for (key, row) in rows(state, database, name, txn) {
        if let Some(new) = change(&row) {
            let kind = if new.is_some() { LoggedKind::Update } else { LoggedKind::Delete };
            state.write(
                txn,
                (database, meta.object_id),
                &meta,
                kind,
                key,
                new.map(Arc::new),
                false,
            );
            changed += 1;
        }
    }
    changed
}

pub fn lsn_value(lsn: &Lsn) -> Value {
    Value::Bytes(Arc::from(&lsn[..]))
}

/// An LSN out of a binary cell; shorter ones are padded as binary(10) is. None for NULL.
pub fn lsn_of(value: &Value) -> Option<Lsn> {
    match value {
        Value::Bytes(b) => {
            let mut out = [0; 10];
            let n = b.len().min(10);
            out[..n].copy_from_slice(&b[..n]);
            Some(out)
        }
        _ => None,
    }
}
