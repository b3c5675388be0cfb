//! TRUNCATE TABLE: all rows at once, transactional, identity back to its seed.

use crate::{
    engine::{
        context::Session,
        instance::Target,
        lock::TableMode,
        scope::{display, find_table},
        storage::TableData,
    },
    error::{SqlError, SqlResult},
    tsql::ast::ObjectName,
};

/// 4711 on a table tracked by CDC, 4712 on one that foreign keys reference, 1088 without
/// permission, 13545 on a system-versioned one, 3729 under an indexed view.
pub fn truncate(session: &mut Session, name: &ObjectName) -> SqlResult<()> {
    let work = session.work();
    let mut state = work.lock();
    let missing = || {
        SqlError::new(
            4701,
            16,
            format!(
                "Cannot find the object \"{}\" because it does not exist or you do not have permissions.",
                name.name
            ),
        )
    };
    let found = find_table(session, &state, name)
        .map_err(|e| if e.number == 208 { missing() } else { e })?;
    let id = found.id();
    if !found.table.is_temp() {
        if !state.has_permission(&session.login, Target::object(id.0, id.1), "ALTER") {
            return Err(missing());
        }
        state = work.lock_table(state, id, TableMode::Schema)?;
    }
    let Some(meta) = state.table(id).cloned() else { return Err(missing()) };
    if meta.is_tracked_by_cdc {
        return Err(SqlError::new(
            4711,
            16,
            format!(
                "Cannot truncate table '{}' because it is published for replication or enabled for Change Data Capture.",
                display(name)
            ),
        ));
    }
    if meta.temporal.as_ref().is_some_and(|t| t.history.is_some()) {
        return Err(SqlError::new(
            13545,
            16,
            format!(
                "Truncate failed on table '{}' because it is not a supported operation on system-versioned tables.",
                display(name)
            ),
        ));
    }
    let catalog = &state.database(id.0)?.catalog;
    if catalog.references_to(id.1).iter().any(|(table, _)| table.object_id != id.1) {
        return Err(SqlError::new(
            4712,
            16,
            format!(
                "Cannot truncate table '{}' because it is being referenced by a FOREIGN KEY constraint.",
                display(name)
            ),
        ));
    }
    if let Some(view) = catalog.indexed_view_on(&meta) {
        let text = format!(
            "Cannot TRUNCATE TABLE '{}' because it is being referenced by object '{}'.",
            display(name),
            view.name
        );
        return Err(SqlError::new(3729, 16, text));
    }
    let mut data = TableData::new(&meta);
    if let Some(old) = state.tables.get(&id) {
        data.continue_numbers(old);
    }
    state.put_data(work.txn, id, Some(data));
    if meta.identity_ordinal().is_some() {
        state.put_identity(work.txn, id, None);
    }
    Ok(())
}
