//! The tasks that the loop starts, and what they return.

use super::{control_refresh::ControlRefresh, source_state::SourceDatabase};
use crate::{
    control::Lease,
    error::Result,
    jobs::{
        JobEnd,
        poll::{PollState, Polled},
    },
    model::{
        id::MappingId,
        mapping::{Mapping, SyncType},
    },
};
use tokio::{
    task::{self, JoinError},
    time::Instant,
};

/// What a task is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Reads the control tables.
    Refresh,
    Poll(SourceDatabase),
    Job(MappingId, SyncType),
    Verification(MappingId),
    /// Writes `last_connected_at` of a server.
    RecordConnected,
    /// Deletes old log rows.
    PurgeLogs,
    /// Drops staging tables that the last owner of a mapping left behind.
    DropStagingTables,
    /// Checks that the lease is still held.
    RenewLease,
}

/// What a task returns.
pub(super) enum TaskResult {
    Refresh(Box<ControlRefresh>),
    Poll {
        /// The mappings that it was asked about.
        asked: Vec<Mapping>,
        state: Box<PollState>,
        result: Result<Polled>,
    },
    Job {
        result: Result<JobEnd>,
        /// It committed something, however it ended.
        progressed: bool,
        began: Instant,
    },
    Verification(Result<()>),
    /// The end of [`Task::RecordConnected`], [`Task::PurgeLogs`] and [`Task::DropStagingTables`].
    Maintenance(Result<()>),
    RenewLease(Result<Box<Lease>>),
}

/// A task's end, as its `JoinSet` returns it.
pub(super) type TaskEnd = std::result::Result<(task::Id, TaskResult), JoinError>;
