//! What DDL on a tracked table does to its capture instances: added columns are ignored, dropped
//! ones become NULL, a new type goes to the change table too; everything is noted in
//! `cdc.ddl_history`; dropping the table drops its instances.

use super::{
    instances::{self, CaptureInstance},
    removal, store,
};
use crate::{
    engine::{
        catalog::{Object, ObjectId, TableMeta},
        clock::Moment,
        instance::State,
        storage::{TableData, TxnId},
    },
    error::{SqlError, SqlResult},
    value::{
        Value,
        convert::{ConvertContext, cast},
    },
};
use std::sync::Arc;

/// What committed ALTER TABLEs left for capture: an entry in `cdc.ddl_history` for every instance
/// of the table, and the source's new types in the change tables.
pub fn apply_events(state: &mut State, database: i32, now: Moment) {
    let Some(db) = state.databases.get_mut(&database) else { return };
    let (done, open): (Vec<_>, Vec<_>) =
        std::mem::take(&mut db.ddl_events).into_iter().partition(|e| e.committed.is_some());
    db.ddl_events = open;
    if done.is_empty() {
        return;
    }
    let txn = state.begin(0, false, "cdc_ddl", now);
    for event in done {
        let Some(lsn) = event.committed else { continue };
        for instance in instances::load(state, database, txn)
            .into_iter()
            .filter(|i| i.source == event.table && i.start_lsn < lsn)
        {
            // Where the captured rows do not fit the new type, the change table keeps the old one.
            let retyped = follow_types(state, txn, database, &instance).unwrap_or(false);
            let row = vec![
                Value::Int(instance.source.into()),
                Value::Int(instance.object_id.into()),
                Value::Bit(retyped),
                Value::Str(event.text.as_str().into()),
                store::lsn_value(&lsn),
                event.time.datetime(),
            ];
            store::insert(state, txn, database, "ddl_history", row);
        }
    }
    state.commit(txn, now);
}

/// Gives the change table the types its source has now. True when one was another.
fn follow_types(
    state: &mut State,
    txn: TxnId,
    database: i32,
    instance: &CaptureInstance,
) -> SqlResult<bool> {
    let catalog = &state.database(database)?.catalog;
    let (Some(source), Some(ct)) =
        (catalog.table(instance.source).cloned(), catalog.table(instance.object_id).cloned())
    else {
        return Ok(false);
    };
    let mut retyped = false;
    for captured in &instance.columns {
        let (Some(new), Some(old)) =
            (source.column(captured.column_id), ct.column_named(&captured.name))
        else {
            continue;
        };
        let ty = removal::captured_type(new.ty);
        if ty == old.ty {
            continue;
        }
        retype(state, txn, database, instance.object_id, &captured.name, ty)?;
        store::change(state, txn, database, "captured_columns", |row| {
            let own = row.first() == Some(&Value::Int(instance.object_id.into()))
                && row.get(2) == Some(&Value::Int(captured.column_id.into()));
            own.then(|| {
                let mut row = row.clone();
                row[3] = Value::Str(new.ty.name().into());
                Some(row)
            })
        });
        retyped = true;
    }
    Ok(retyped)
}

/// Before DROP TABLE of a tracked table (in its transaction).
pub fn table_dropped(state: &mut State, txn: TxnId, database: i32, table: ObjectId) {
    for instance in instances::load(state, database, txn).iter().filter(|i| i.source == table) {
        removal::drop_instance(state, txn, database, instance);
    }
}

/// Error 4928: a captured column keeps its name.
pub fn check_rename_column(
    state: &State,
    database: i32,
    table: ObjectId,
    column_id: i32,
    name: &str,
) -> SqlResult<()> {
    let captured = instances::load(state, database, 0)
        .iter()
        .any(|i| i.source == table && i.columns.iter().any(|c| c.column_id == column_id));
    if captured {
        return Err(SqlError::new(
            4928,
            16,
            format!("Cannot alter column '{name}' because it is 'REPLICATED'."),
        ));
    }
    Ok(())
}

/// A column of a change table gets another type, and its values with it (22976 when one does not
/// fit).
fn retype(
    state: &mut State,
    txn: TxnId,
    database: i32,
    ct: ObjectId,
    column: &str,
    ty: crate::value::SqlType,
) -> SqlResult<()> {
    let Some(meta) = state.database(database)?.catalog.table(ct).cloned() else { return Ok(()) };
    let Some(at) = meta.ordinal_named(column) else { return Ok(()) };
    let from = meta.columns[at].ty;
    let mut new = TableMeta::clone(&meta);
    new.columns[at].ty = ty;
    new.version += 1;
    let new = Arc::new(new);
    let mut data = TableData::new(&new);
    if let Some(old) = state.tables.get(&(database, ct)) {
        data.continue_numbers(old);
        for slot in old.rows.values() {
            let Some(row) = slot.visible(txn) else { continue };
            let mut row = row.to_vec();
            row[at] = cast(&row[at], from, ty, None, &ConvertContext::default())?;
            let key = data.new_key(&row);
            data.put_committed(key, Arc::new(row));
        }
    }
    state.put_object(txn, database, ct, Some(Object::Table(new)));
    state.put_data(txn, (database, ct), Some(data));
    Ok(())
}
