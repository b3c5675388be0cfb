//! Backup and restore of a database, as far as change data capture and its consumers notice: rows,
//! catalog and log go back to what they were, so LSNs given after the backup are given again to
//! other changes; the recovery fork is a new one.

use crate::{
    engine::{
        database::Database,
        instance::{Instance, State},
        lock::TableId,
        storage::TableData,
    },
    error::{SqlError, SqlResult},
};

/// A database as it was.
#[derive(Clone)]
pub struct DatabaseSnapshot {
    database: Database,
    tables: Vec<(TableId, TableData)>,
}

fn no_database(name: &str) -> SqlError {
    SqlError::new(
        911,
        16,
        format!("Database '{name}' does not exist. Make sure that the name is entered correctly."),
    )
}

/// BACKUP DATABASE. Only committed rows are in it.
pub fn snapshot_database(instance: &Instance, name: &str) -> SqlResult<DatabaseSnapshot> {
    let state = instance.lock();
    let database = state.database_named(name).ok_or_else(|| no_database(name))?.clone();
    let mut tables: Vec<(TableId, TableData)> = state
        .tables
        .iter()
        .filter(|(id, _)| id.0 == database.id)
        .map(|(id, data)| (*id, data.clone()))
        .collect();
    let open: Vec<u64> = state.transactions.keys().copied().collect();
    for (_, data) in &mut tables {
        let pending: Vec<_> = data
            .rows
            .iter()
            .filter_map(|(k, s)| Some((k.clone(), s.pending.as_ref()?.0)))
            .collect();
        for (key, txn) in pending.into_iter().filter(|(_, txn)| open.contains(txn)) {
            data.set_pending(txn, &key, None);
        }
    }
    Ok(DatabaseSnapshot { database, tables })
}

/// RESTORE DATABASE … WITH REPLACE, and KEEP_CDC or not. 3101 while somebody has a transaction
/// open.
pub fn restore_database(
    instance: &Instance,
    name: &str,
    snapshot: &DatabaseSnapshot,
    keep_cdc: bool,
) -> SqlResult<()> {
    let now = instance.now();
    let mut state = instance.lock();
    let current = state.database_named(name).ok_or_else(|| no_database(name))?;
    let id = current.id;
    let modes = (current.cdc.mode, current.cdc.running);
    if !state.transactions.is_empty() {
        return Err(SqlError::new(
            3101,
            16,
            "Exclusive access could not be obtained because the database is in use.",
        ));
    }
    let fork = state.random_bytes();
    let gone: Vec<TableId> = state.tables.keys().filter(|t| t.0 == id).copied().collect();
    for table in gone {
        state.tables.remove(&table);
    }
    let mut database = snapshot.database.clone();
    database.recovery_fork = fork;
    (database.cdc.mode, database.cdc.running) = modes;
    state.databases.insert(id, database);
    for (table, data) in &snapshot.tables {
        state.tables.insert(*table, data.clone());
    }
    if !keep_cdc {
        drop_cdc(&mut state, id, now)?;
    }
    drop(state);
    instance.notify();
    Ok(())
}

fn drop_cdc(state: &mut State, id: i32, now: crate::engine::clock::Moment) -> SqlResult<()> {
    if !state.database(id)?.options.is_cdc_enabled {
        return Ok(());
    }
    let txn = state.begin(0, false, "restore", now);
    let dropped = super::removal::disable_database(state, txn, id);
    state.commit(txn, now);
    dropped
}
