//! What goes when a table or a database is no longer captured.

use super::{instances::CaptureInstance, store};
use crate::{
    engine::{
        catalog::{Object, ObjectId, TableMeta},
        instance::State,
        storage::TxnId,
    },
    error::SqlResult,
    value::{SqlType, Value},
};
use std::sync::Arc;

/// The type a captured column has in its change table.
pub fn captured_type(ty: SqlType) -> SqlType {
    match ty {
        SqlType::RowVersion => SqlType::Binary(8),
        other => other,
    }
}

/// Takes a capture instance away: its change table and what the metadata tables say of it.
pub fn drop_instance(state: &mut State, txn: TxnId, database: i32, instance: &CaptureInstance) {
    let own = Value::Int(instance.object_id.into());
    for name in ["change_tables", "captured_columns", "index_columns"] {
        store::change(state, txn, database, name, |row| {
            (row.first() == Some(&own)).then_some(None)
        });
    }
    store::change(state, txn, database, "ddl_history", |row| {
        (row.get(1) == Some(&own)).then_some(None)
    });
    store::drop_table(state, txn, database, instance.object_id);
}

/// Notes on a table that it is (not) tracked.
pub fn set_tracked(state: &mut State, txn: TxnId, database: i32, table: ObjectId, tracked: bool) {
    let Some(meta) = state.databases.get(&database).and_then(|d| d.catalog.table(table)).cloned()
    else {
        return;
    };
    if meta.is_tracked_by_cdc != tracked {
        let mut meta = TableMeta::clone(&meta);
        meta.is_tracked_by_cdc = tracked;
        state.put_object(txn, database, table, Some(Object::Table(Arc::new(meta))));
    }
}

/// Everything of change data capture goes from a database.
pub fn disable_database(state: &mut State, txn: TxnId, database: i32) -> SqlResult<()> {
    for instance in super::instances::load(state, database, txn) {
        set_tracked(state, txn, database, instance.source, false);
        drop_instance(state, txn, database, &instance);
    }
    let schema = store::schema_id(state, database)?;
    let tables: Vec<ObjectId> = state
        .database(database)?
        .catalog
        .tables()
        .filter(|t| t.schema_id == schema)
        .map(|t| t.object_id)
        .collect();
    for table in tables {
        store::drop_table(state, txn, database, table);
    }
    state.keep_parts(txn, database);
    let db = state.database_mut(database)?;
    db.catalog.schemas.remove(&schema);
    if let Some(id) = db.catalog.principal_named(store::SCHEMA).map(|p| p.id) {
        db.catalog.principals.remove(&id);
    }
    db.options.is_cdc_enabled = false;
    db.log.records.clear();
    db.cdc.capture_job = None;
    db.cdc.cleanup_job = None;
    db.cdc.last_entry = None;
    db.cdc.sessions.clear();
    Ok(())
}
