//! Servers and mappings, as the control tables say them and as they are meant.

use super::{
    id::{MappingId, ServerId},
    lsn::Lsn,
    name::{Ident, TableName},
    secret::Secret,
};
use std::sync::Arc;

/// How a full sync brings its rows in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullSyncMode {
    /// Staging table, then one transaction that makes the destination equal to it.
    Staged,
    /// Truncate and load, for tables too big to hold twice.
    Direct,
}

/// What a mapping that has never synced does first: `table_mappings.initial_sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialSync {
    /// NULL: what `DATAFLOW_INITIAL_SYNC` says.
    Configured,
    /// `NONE`: begin at the first change, whatever the destination has.
    None,
}

/// `sync_status.sync_type` and `sync_logs.sync_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncType {
    Cdc,
    FullSync,
    Verification,
    SchemaCheck,
}

impl SyncType {
    pub fn as_str(self) -> &'static str {
        match self {
            SyncType::Cdc => "CDC",
            SyncType::FullSync => "FULL_SYNC",
            SyncType::Verification => "VERIFICATION",
            SyncType::SchemaCheck => "SCHEMA_CHECK",
        }
    }
}

/// A row of `source_servers`, enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub id: ServerId,
    pub name: String,
    /// Holds a password.
    pub connection_string: Secret,
    /// `updated_at` as text: when it changes, a server that failed is tried at once.
    pub updated_at: String,
}

/// A row of `table_mappings`, checked. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub id: MappingId,
    pub server: ServerId,
    pub source: TableName,
    pub dest: TableName,
    /// From `primary_key_column`: one or several names, in order, as the user spells them.
    pub key: Arc<[Ident]>,
    pub trigger_column: Option<Ident>,
    pub cdc_enabled: bool,
    pub last_cdc_lsn: Option<Lsn>,
    pub full_sync_requested: bool,
    /// A request was claimed and has not been fulfilled yet.
    pub full_sync_pending: bool,
    pub mode: FullSyncMode,
    pub initial_sync: InitialSync,
    /// A full sync of it has completed.
    pub has_synced: bool,
    /// `updated_at` as text: an operator who touches a parked mapping's row has it tried again.
    pub updated_at: Arc<str>,
}

impl Mapping {
    /// The row without the columns that daemons change: two rows that are equal in this were not
    /// changed by an operator.
    pub fn as_configured(&self) -> Mapping {
        Mapping { last_cdc_lsn: None, full_sync_pending: false, has_synced: false, ..self.clone() }
    }

    /// A full sync is asked for, or was claimed and is not done.
    pub fn wants_full_sync(&self) -> bool {
        self.full_sync_requested || self.full_sync_pending
    }
}
