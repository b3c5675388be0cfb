//! The environment, checked.

use crate::mssql::endpoint::Endpoint;
use std::time::Duration;

/// What to do when changes between the checkpoint and what the source still has are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCdcGap {
    /// Full sync of that table alone, at most once an hour.
    FullSync,
    /// Park the mapping until someone asks for a full sync.
    Error,
}

/// How stdout looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Everything that can be set, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub dest: Endpoint,
    pub check_interval: Duration,
    pub verify_interval: Duration,
    pub verify_rows: usize,
    pub verify_concurrency: usize,
    pub batch_rows: usize,
    /// Bytes that one batch of rows may hold in memory, beside `batch_rows`.
    pub batch_bytes: usize,
    pub dest_connections_max: usize,
    pub source_connections_max: usize,
    /// Full syncs and CDC passes that run at the same time.
    pub tasks_max: usize,
    pub retry_attempts: u32,
    pub retry_delay: Duration,
    pub on_cdc_gap: OnCdcGap,
    pub shutdown_timeout: Duration,
    pub log_retention: Duration,
    pub log_format: LogFormat,
    /// Longest wait for one answer.
    pub statement_timeout: Duration,
    /// Longest wait for the long statements: a swap, emptying a table, a bulk load's last answer.
    pub long_statement_timeout: Duration,
    pub lock_timeout: Duration,
}
