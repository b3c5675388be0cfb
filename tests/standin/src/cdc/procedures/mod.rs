//! The system procedures `sys.sp_cdc_*`. Texts and numbers of errors are those of sys.messages
//! 22900 to 22999.

mod enable;
mod jobs;

use super::{instances::CaptureInstance, store};
use crate::{
    engine::{
        catalog::{Object, ObjectId},
        context::Session,
        instance::State,
        procedures::SystemProcedure,
        txn::TxnId,
    },
    error::{SqlError, SqlResult},
    value::{SqlType, Value},
};
use std::sync::Arc;

/// Names (lower case) and functions, for the table of system procedures.
pub const PROCEDURES: &[(&str, SystemProcedure)] = &[
    ("sp_cdc_enable_db", enable::enable_db),
    ("sp_cdc_disable_db", enable::disable_db),
    ("sp_cdc_enable_table", enable::enable_table),
    ("sp_cdc_disable_table", enable::disable_table),
    ("sp_cdc_change_job", jobs::change_job),
    ("sp_cdc_start_job", jobs::start_job),
    ("sp_cdc_stop_job", jobs::stop_job),
    ("sp_cdc_cleanup_change_table", jobs::cleanup_change_table),
];

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
        let mut meta = crate::engine::catalog::TableMeta::clone(&meta);
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

/// Error 22904 for callers that are not dbo.
fn require_owner(session: &Session) -> SqlResult<()> {
    let state = session.instance.lock();
    let database = session.database;
    if state.is_sysadmin(&session.login)
        || state.is_member(&session.login, database, "db_owner") == Some(true)
    {
        return Ok(());
    }
    Err(SqlError::new(
        22904,
        16,
        "Caller is not authorized to initiate the requested action. DBO privileges are required.",
    ))
}

/// Error 22901 in a database without change data capture.
fn require_enabled(session: &Session) -> SqlResult<i32> {
    let state = session.instance.lock();
    let database = session.database;
    let db = state.database(database)?;
    if db.options.is_cdc_enabled { Ok(database) } else { Err(store::not_enabled(&db.name)) }
}

/// Error 22963.
fn must_have(name: &str) -> SqlError {
    SqlError::new(
        22963,
        16,
        format!(
            "Parameter '{name}' cannot be null or empty. Specify a value for the named parameter and retry the operation."
        ),
    )
}
