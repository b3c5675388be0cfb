//! Change data capture.
//!
//! The commit log of a database is turned into rows of change tables by a step of its own
//! ([`capture`]), as SQL Server's capture job does: until it has run, nobody sees a change. Change
//! tables and `cdc.*` metadata are ordinary tables of the database's `cdc` schema, so that queries,
//! indexes, snapshots and transactions treat them like any other; what no table holds (jobs, scan
//! sessions, the switches of a test) is [`CdcRuntime`].

pub mod agent;
pub mod backup;
pub mod capture;
mod cleanup;
pub mod ddl;
pub mod functions;
pub mod instances;
pub mod procedures;
mod removal;
mod store;
#[cfg(test)]
mod tests;
mod views;

pub use crate::engine::capture::{
    CaptureConfig, CaptureJob, CaptureMode, CdcRuntime, CleanupJob, KeyUpdates, ScanSession,
    UntouchedLob,
};

use crate::engine::extension::Extension;

/// What the engine is told of change data capture.
pub const EXTENSION: Extension = Extension {
    procedures: procedures::PROCEDURES,
    views: views::VIEWS,
    scalar_type: functions::scalar_type,
    scalar: functions::scalar,
    table_function: functions::table_function,
    committed: capture::committed,
    table_dropped: ddl::table_dropped,
    check_rename_column: ddl::check_rename_column,
};

/// An LSN as scan sessions show it: `00000024:00000018:0001`.
pub fn lsn_text(lsn: &crate::engine::log::Lsn) -> String {
    let hex = crate::value::text::hex(lsn).to_lowercase();
    format!("{}:{}:{}", &hex[..8], &hex[8..16], &hex[16..])
}
