//! Whether rows may be brought to a table at all.

use super::{Mismatch, same_name};
use crate::model::{
    name::is_reserved_database,
    table::{Database, Table},
};

/// What the catalogs can say of whether two tables are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    Same,
    Different,
    /// They look the same, and so they do on a cloned machine.
    Unknown,
}

/// A table of one side and a table of the other, with the databases that they are in: are they one
/// table?
pub fn table_identity(source: (&Table, &Database), dest: (&Table, &Database)) -> Identity {
    let same_name = same_name(source.1.name.as_str(), dest.1.name.as_str());
    if source.0.object_id != dest.0.object_id || !same_name {
        return Identity::Different;
    }
    // Another replica of an availability group has another server's name, and the same rows.
    if source.1.group_id.is_some() && source.1.group_id == dest.1.group_id {
        return Identity::Same;
    }
    if source.1.server == dest.1.server && source.1.created == dest.1.created {
        Identity::Unknown
    } else {
        Identity::Different
    }
}

/// May rows be brought to this place at all? `same_table`: source and destination are one.
pub fn check_destination(dest: &Table, same_table: bool) -> Vec<Mismatch> {
    let mut refused = Vec::new();
    let database = dest.name.database.as_str();
    if is_reserved_database(database) {
        refused.push(Mismatch(format!(
            "{database} is a system database or the control database: rows are never brought there"
        )));
    }
    if same_table {
        refused.push(Mismatch("source and destination are the same table".into()));
    }
    refused
}
