//! CREATE, ALTER and DROP.
//!
//! DDL is part of its transaction: the table is locked against everybody (Sch-M) to the end, the
//! description and the rows as they were are kept in the transaction's list, and a rollback puts
//! them back. A change of columns or indexes rebuilds the rows into a new [`TableData`].

mod alter;
mod column;
mod constraint;
mod database;
mod index;
mod names;
mod object;
mod policy;
mod principal;
mod rename;
mod table;

pub use alter::alter_table;
pub use database::{alter_database, create_database, drop_database};
pub use index::{alter_index, create_index, drop_index};
pub use object::{
    create_procedure, create_schema, create_trigger, create_type, create_view, disable_trigger,
    drop_objects, drop_schema,
};
pub use policy::{create_function, create_policy};
pub use principal::{
    add_role_member, create_login, create_role, create_user, drop_login, permission,
};
pub use rename::rename;
pub use table::{create_table, declare_table, drop_table};

use crate::{
    engine::{
        catalog::{Object, TableMeta},
        context::Session,
        dml::key_text,
        instance::{State, Target, Work},
        lock::TableMode,
        query::host::Row,
        scope::{Found, display, find_table, local_name},
        storage::{Conflict, TableData},
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
};
use std::sync::{Arc, MutexGuard};

/// Finds a table to alter and locks it for the rest of the transaction. 4902.
fn open(session: &Session, work: &Work, name: &ObjectName) -> SqlResult<Found> {
    let missing = || {
        SqlError::new(
            4902,
            16,
            format!(
                "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
                display(name)
            ),
        )
    };
    let state = work.lock();
    let found = find_table(session, &state, name)
        .map_err(|e| if e.number == 208 { missing() } else { e })?;
    if found.table.is_temp() {
        return Ok(found);
    }
    if !state.has_permission(
        &session.login,
        Target::object(found.database, found.table.object_id),
        "ALTER",
    ) {
        return Err(missing());
    }
    let state = work.lock_table(state, found.id(), TableMode::Schema)?;
    let table = state.table(found.id()).cloned().ok_or_else(missing)?;
    Ok(Found { table, ..found })
}

/// Stores a table's new description, its rows as they are.
fn put_meta(
    state: &mut MutexGuard<'_, State>,
    work: &Work,
    database: i32,
    mut meta: TableMeta,
) -> Arc<TableMeta> {
    meta.modify_date = work.instance.now();
    let meta = Arc::new(meta);
    state.put_object(work.txn, database, meta.object_id, Some(Object::Table(meta.clone())));
    meta
}

/// Stores a table's new description and rebuilds its rows for it: other columns, other indexes.
/// 1505 when a unique key is not.
fn rebuild(
    work: &Work,
    database: i32,
    mut meta: TableMeta,
    convert: &mut dyn FnMut(&Row) -> SqlResult<Row>,
) -> SqlResult<Arc<TableMeta>> {
    meta.version += 1;
    meta.renumber();
    let id = (database, meta.object_id);
    let old = work.lock().tables.get(&id).cloned();
    let mut data = TableData::new(&meta);
    if let Some(old) = &old {
        data.continue_numbers(old);
        for row in old.rows.values().filter_map(|slot| slot.visible(work.txn)) {
            let row = Arc::new(convert(row)?);
            let key = data.new_key(&row);
            if let Some(Conflict::Duplicate(index)) = data.conflict(work.txn, &key, &row, true)
                && let Some(index) = meta.index(index)
            {
                let name = local_name(&work.lock(), database, &meta);
                return Err(SqlError::new(
                    1505,
                    16,
                    format!(
                        "The CREATE UNIQUE INDEX statement terminated because a duplicate key was found for the object name '{name}' and the index \
                         name '{}'. The duplicate key value is {}.",
                        index.name,
                        key_text(&meta, index, &row)
                    ),
                ));
            }
            data.put_committed(key, row);
        }
    }
    let mut state = work.lock();
    let meta = put_meta(&mut state, work, database, meta);
    state.put_data(work.txn, id, Some(data));
    Ok(meta)
}

/// The rows this transaction sees.
fn visible_rows(work: &Work, found: &Found) -> Vec<Arc<Row>> {
    let data = work.lock().tables.get(&found.id()).cloned();
    data.map_or_else(Vec::new, |d| {
        d.rows.values().filter_map(|slot| slot.visible(work.txn)).cloned().collect()
    })
}

/// 2714
fn already_there(name: &str) -> SqlError {
    SqlError {
        state: 6,
        ..SqlError::new(
            2714,
            16,
            format!("There is already an object named '{name}' in the database."),
        )
    }
}

/// The database and schema a new object goes to; 2760 without such a schema, 262 without
/// permission.
fn place(
    session: &Session,
    state: &State,
    name: &ObjectName,
    permission: &str,
) -> SqlResult<(i32, i32)> {
    let database = match &name.database {
        Some(database) => state.open_database(&session.login, database)?,
        None => session.database,
    };
    let schema = match &name.schema {
        Some(schema) if !schema.is_empty() => schema.clone(),
        Some(_) | None => state.default_schema(&session.login, database),
    };
    let db = state.database(database)?;
    if db.options.read_only {
        return Err(SqlError::new(
            3906,
            16,
            format!("Failed to update database \"{}\" because the database is read-only.", db.name),
        ));
    }
    let Some(schema) = db.catalog.schema_named(&schema) else {
        let text = format!(
            "The specified schema name \"{schema}\" either does not exist or you do not have permission to use it."
        );
        return Err(SqlError::new(2760, 16, text));
    };
    let securable = crate::engine::catalog::Securable::Database;
    state.check_permission(&session.login, Target { database, securable }, permission)?;
    Ok((database, schema.id))
}
