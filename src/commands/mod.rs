//! Commands for people: each asks, decides, and prints; the exit code says how it went.

pub mod check;
mod progress;
pub mod retry;
pub mod start_from;
pub mod status;
pub mod sync;
pub mod verify;

/// How a system without mappings begins.
pub const HOW_TO_BEGIN: &str = "insert a row into source_servers for each source, and one into \
    table_mappings for each table; then `dbaops-dataflow check` says what is missing";
