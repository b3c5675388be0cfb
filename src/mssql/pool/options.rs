//! Limits of a server's connections, and the settings of its sessions.

use std::time::Duration;

/// Limits and session settings of one server.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Most connections to this server, idle ones included.
    pub connections_max: usize,
    /// Longest wait for one answer, unless a job sets another.
    pub statement_timeout: Duration,
    /// `SET LOCK_TIMEOUT`
    pub lock_timeout: Duration,
    /// Set for sources: when a session of ours and one of an application deadlock, ours is chosen
    /// as the victim.
    pub deadlock_priority_low: bool,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
}

impl PoolOptions {
    /// The batch that every checkout sends first. Its ANSI settings are those that indexed views
    /// and filtered indexes need for writes. `label` goes into CONTEXT_INFO, of which SQL Server
    /// keeps 128 bytes.
    /// <https://learn.microsoft.com/sql/t-sql/statements/set-statements-transact-sql>
    pub(super) fn prologue(&self, label: &str) -> String {
        const CONTEXT_BYTES_MAX: usize = 128;
        let context: String = format!("dbaops-dataflow {label}")
            .bytes()
            .take(CONTEXT_BYTES_MAX)
            .map(|byte| format!("{byte:02X}"))
            .collect();
        let priority = if self.deadlock_priority_low { "LOW" } else { "NORMAL" };
        include_str!("../../../sql/control/prologue.sql")
            .replace("{lock_timeout_ms}", &self.lock_timeout.as_millis().to_string())
            .replace("{deadlock_priority}", priority)
            .replace("{context}", &context)
    }
}
