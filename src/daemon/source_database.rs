//! A database of a source server: what one poll asks.

use crate::model::{id::ServerId, mapping::Mapping, name::Ident};

/// The key of a source database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceDatabase {
    pub server: ServerId,
    pub name: Ident,
}

impl SourceDatabase {
    /// The database of a mapping's source table.
    pub fn of(mapping: &Mapping) -> Self {
        SourceDatabase { server: mapping.server, name: mapping.source.database.clone() }
    }
}
