//! The control database `dbaops_dataflow`: configuration, status and logs, which are the interface to
//! operators.
//!
//! Control has connections of its own, which jobs cannot reserve. So a job that holds all other
//! connections can still write its status.

mod cdc_sessions;
pub mod checkpoint;
mod current_mapping;
mod error_code;
mod init;
mod lag;
mod lease;
mod logs;
mod mappings;
mod runs;
mod start_from;
mod status;
mod verifications;

pub use current_mapping::CurrentMapping;
pub use error_code::ErrorCode;
pub use init::{SCHEMA, ScriptBatch, init, split_go};
pub use lag::LagRow;
pub use lease::{CONNECTIONS as LEASE_CONNECTIONS, DAEMONS_MAX, GONE_AFTER, Generation, Lease};
pub use logs::{ErrorEntry, InsertOutcome, LogEntry};
pub use mappings::{ControlSnapshot, FullSyncClaim, OpenErrors, Rejected, key};
pub use runs::{RunOutcome, RunStatus, VerificationRow};
pub use start_from::start_from;
pub use status::{FullSyncRun, StatusSnapshot};
pub use verifications::SweepProgress;

use crate::{
    activity::Activity,
    config::Config,
    error::Result,
    metrics::Metrics,
    model::name::{CONTROL_DATABASE, Ident},
    mssql::pool::{Checkout, PoolOptions, Pools},
};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::sync::Semaphore;

/// The control database's name.
pub const DATABASE: &str = CONTROL_DATABASE;
/// Connections that control uses at a time. Jobs cannot reserve them.
pub const CONNECTIONS_MAX: usize = 2;

/// The control database. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pools: Pools,
    permits: Arc<Semaphore>,
    metrics: Metrics,
    activity: Activity,
    pending_completions: runs::PendingCompletions,
    cdc_sessions: cdc_sessions::CdcSessions,
    /// That `init` has not added `error_logs.error_code` was logged.
    no_codes_logged: Arc<AtomicBool>,
    /// That `init` has not added `table_mappings.initial_sync` was logged.
    no_initial_sync_logged: Arc<AtomicBool>,
}

/// A session in the control database, and its permit.
struct ControlSession {
    session: Checkout,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl std::ops::Deref for ControlSession {
    type Target = Checkout;
    fn deref(&self) -> &Checkout {
        &self.session
    }
}

impl std::ops::DerefMut for ControlSession {
    fn deref_mut(&mut self) -> &mut Checkout {
        &mut self.session
    }
}

impl Control {
    /// Control over the destination's pools. What it records is counted in `metrics` as well, and
    /// charged to the budget of `activity`.
    pub fn new(pools: Pools, metrics: Metrics, activity: Activity) -> Self {
        Control {
            pools,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            metrics,
            activity,
            pending_completions: runs::PendingCompletions::default(),
            cdc_sessions: cdc_sessions::CdcSessions::default(),
            no_codes_logged: Arc::default(),
            no_initial_sync_logged: Arc::default(),
        }
    }

    async fn session(&self) -> Result<ControlSession> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| {
            crate::error::Error::new(crate::error::Kind::Cancelled, "control is closed")
        })?;
        let session = self.pools.checkout(&Ident::new(DATABASE), "control").await?;
        Ok(ControlSession { session, _permit: permit })
    }
}

/// Pools for a command that uses one connection to the destination at a time.
fn single_connection_pools(config: &Config) -> Pools {
    Pools::new(
        config.dest.clone(),
        PoolOptions {
            connections_max: 1,
            statement_timeout: config.statement_timeout,
            lock_timeout: config.lock_timeout,
            deadlock_priority_low: false,
            idle_timeout: Duration::from_secs(60),
        },
    )
}
