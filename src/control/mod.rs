//! Remembering: the control database `dbaops_dataflow`, the users' interface.
//!
//! Control has connections of its own, kept out of the seats that jobs take: whoever uses one waits
//! for nothing else meanwhile.

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
pub use status::FullSyncRun;
pub use verifications::SweepProgress;

use crate::{
    error::Result,
    metrics::Metrics,
    model::name::Ident,
    mssql::pool::{Checkout, Pools},
};
use std::sync::{Arc, atomic::AtomicBool};
use tokio::sync::Semaphore;

/// The control database's name: a contract.
pub const DATABASE: &str = "dbaops_dataflow";
/// Connections that control uses at a time; kept out of the destination's seats.
pub const CONNECTIONS_MAX: usize = 2;

/// The control database. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    pools: Pools,
    turns: Arc<Semaphore>,
    metrics: Metrics,
    late: runs::PendingCompletions,
    cdc_sessions: cdc_sessions::CdcSessions,
    /// That `init` has not added `error_logs.error_code` was logged.
    no_codes_logged: Arc<AtomicBool>,
    /// That `init` has not added `table_mappings.initial_sync` was logged.
    no_initial_sync_logged: Arc<AtomicBool>,
}

/// A control session and its turn.
struct ControlSession {
    session: Checkout,
    _turn: tokio::sync::OwnedSemaphorePermit,
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
    /// Control over the destination's pools. What it records is counted in `metrics` as well.
    pub fn new(pools: Pools, metrics: Metrics) -> Self {
        Control {
            pools,
            turns: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            metrics,
            late: runs::PendingCompletions::default(),
            cdc_sessions: cdc_sessions::CdcSessions::default(),
            no_codes_logged: Arc::default(),
            no_initial_sync_logged: Arc::default(),
        }
    }

    async fn session(&self) -> Result<ControlSession> {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| {
            crate::error::Error::new(crate::error::Kind::Cancelled, "control is closed")
        })?;
        let session = self.pools.checkout(&Ident::new(DATABASE), "control").await?;
        Ok(ControlSession { session, _turn: turn })
    }
}
