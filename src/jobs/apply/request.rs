//! What to apply, where to, and what became of it.

use crate::{
    error::{Error, Kind, Result},
    model::{
        capture::{Capture, Transaction},
        column_map::ColumnMap,
        id::MappingId,
        lsn::Lsn,
        name::TableName,
        table::Table,
    },
    tsql::apply::StatementOrder,
};
use tokio_util::sync::CancellationToken;

/// A window of changes, and the table that they are applied to.
#[derive(Clone, Debug)]
pub struct ApplyRequest<'a> {
    pub map: &'a ColumnMap,
    /// The source table, as the catalog describes it.
    pub source: &'a Table,
    pub capture: &'a Capture,
    /// exclusive
    pub from: Lsn,
    /// inclusive
    pub to: Lsn,
    pub target: ApplyTarget<'a>,
    /// How much goes into a commit group.
    pub batch_policy: BatchPolicy,
    pub cancel: &'a CancellationToken,
}

/// Where the rows go.
#[derive(Clone, Debug)]
pub enum ApplyTarget<'a> {
    /// The mapping's destination table. Each group is a transaction, with its checkpoint.
    Dest { table: &'a TableName, checkpoint: CheckpointMove, order: StatementOrder },
    /// A full sync's staging table: columns of staged types under staged names, and an index on the
    /// key.
    Staging { table: &'a TableName },
}

/// The checkpoint that moves with the rows.
#[derive(Clone, Debug)]
pub struct CheckpointMove {
    pub mapping: MappingId,
    /// `last_cdc_lsn` now. The transaction fails if another process has changed it.
    pub stored: Option<Lsn>,
    /// The newest source transaction up to the window's end, if known.
    pub transaction: Option<Transaction>,
    /// Request a full sync in the transaction that reaches the window's end, because a capture
    /// instance with other columns takes over there.
    pub resync: bool,
    /// [`Instance::mark`](crate::model::capture::Instance::mark) of the capture instance that takes
    /// over at the window's end.
    pub next_instance: Option<String>,
}

/// How many change rows go into a commit group. A source transaction is never divided: one with
/// more rows is a group of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchPolicy {
    /// At most this many.
    Batches(usize),
    /// One transaction at first, then twice as many rows after each group that was written, up to
    /// this many.
    Growing(usize),
    /// Everything up to the window's end is one group.
    Whole,
}

impl BatchPolicy {
    /// The rows of the first group; `None`: no limit.
    pub(super) fn first_rows_max(self) -> Option<usize> {
        match self {
            BatchPolicy::Batches(rows) => Some(rows.max(1)),
            BatchPolicy::Growing(_) => Some(1),
            BatchPolicy::Whole => None,
        }
    }

    /// The rows of the group after one of `rows`.
    pub(super) fn next_rows_max(self, rows: Option<usize>) -> Option<usize> {
        match self {
            BatchPolicy::Batches(_) | BatchPolicy::Whole => rows,
            BatchPolicy::Growing(most) => {
                rows.map(|rows| rows.saturating_mul(2).clamp(1, most.max(1)))
            }
        }
    }
}

impl ApplyRequest<'_> {
    /// The part of the window up to `seen`, the newest LSN that the source's session has captured.
    /// What is recorded at the window's own end is left out.
    pub(super) fn limited_to(&self, seen: Lsn) -> Result<Self> {
        let mut part = ApplyRequest { to: seen, ..self.clone() };
        match &mut part.target {
            ApplyTarget::Dest { checkpoint, .. } => {
                checkpoint.transaction = None;
                checkpoint.resync = false;
                checkpoint.next_instance = None;
                Ok(part)
            }
            // a staging table must hold the rows of one moment, so a part of the window is no use
            ApplyTarget::Staging { .. } => Err(Error::new(
                Kind::Busy,
                format!(
                    "the server that changes are read from has captured {seen} at most, but another server has captured {}",
                    self.to
                ),
            )
            .with_hint("nothing, if it is a secondary replica that is behind: this is tried again")),
        }
    }
}

/// A commit group that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedGroup {
    pub changes: u64,
    /// Everything up to here is in the target.
    pub to: Lsn,
}

/// What a pass has applied so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub changes: u64,
    /// Everything up to here is in the target; `None`: no group was written.
    pub reached: Option<Lsn>,
}

impl Applied {
    pub fn add(&mut self, group: &AppliedGroup) {
        self.changes += group.changes;
        self.reached = Some(group.to);
    }
}
