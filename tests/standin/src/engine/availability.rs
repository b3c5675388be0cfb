//! Availability groups and mirroring, as far as a client of one of their databases notices.
//!
//! There is one instance. What makes its database one of a group is that `sys.databases.replica_id`
//! says so, that capture stops where the secondaries have not hardened the log
//! ([`crate::engine::capture::CdcRuntime::unhardened`]), and that sessions which log in with
//! ApplicationIntent=ReadOnly are on a readable secondary: `DATABASEPROPERTYEX(…, 'Updateability')`
//! is READ_ONLY there, writing is error 3906, and rows are those of an older state while redo is
//! held. Catalog views and metadata are always the primary's.

use super::{database::Availability, instance, instance::Instance, snapshot::Snapshot};
use crate::error::{SqlError, SqlResult};

/// Every table's rows at one moment.
pub type State = Snapshot;

/// Adds a database to an availability group.
pub fn join_group(instance: &Instance, database: &str) -> SqlResult<()> {
    with(&mut instance.lock(), database, |availability, id| availability.replica_id = Some(id))
}

/// Begins mirroring a database.
pub fn mirror(instance: &Instance, database: &str) -> SqlResult<()> {
    with(&mut instance.lock(), database, |availability, id| availability.mirroring_guid = Some(id))
}

/// Every table's rows as they are now: a state to go back to with [`redone`].
pub fn state(instance: &Instance) -> State {
    instance.lock().tables.clone()
}

/// What readable secondaries see from now on; `None`: everything at once.
pub fn redone(instance: &Instance, database: &str, state: Option<State>) -> SqlResult<()> {
    let done = with(&mut instance.lock(), database, |availability, _| availability.redone = state);
    instance.notify();
    done
}

fn with(
    state: &mut instance::State,
    database: &str,
    change: impl FnOnce(&mut Availability, [u8; 16]),
) -> SqlResult<()> {
    let id = state.random_bytes();
    let missing = || {
        SqlError::new(
            911,
            16,
            format!(
                "Database '{database}' does not exist. Make sure that the name is entered correctly."
            ),
        )
    };
    let database = state.database_named(database).ok_or_else(missing)?.id;
    change(&mut state.database_mut(database)?.availability, id);
    Ok(())
}
