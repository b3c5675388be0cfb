//! The two checkpoints of a mapping, and what the source has at their LSN.

use crate::model::{
    capture::{TranIdentity, Transaction},
    lsn::Lsn,
};
use std::time::Duration;

/// The second copy of `last_cdc_lsn`: a row in the destination database, written in the transaction
/// that wrote the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestCheckpoint {
    pub lsn: Option<Lsn>,
    /// The newest source transaction up to `lsn`, where it was known.
    pub transaction: Option<Transaction>,
    /// It was written for other tables than the mapping names now, or for a destination table that
    /// has been dropped since.
    pub elsewhere: bool,
    /// [`Instance::source_mark`](crate::model::capture::Instance::source_mark) of the table whose changes are in; an earlier version did not
    /// record it.
    pub source: Option<String>,
    /// [`Instance::mark`](crate::model::capture::Instance::mark) of the instance that is read.
    pub instance: Option<String>,
}

/// The checkpoint of a mapping in both databases.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredCheckpoint {
    /// `last_cdc_lsn` in the control database.
    pub control: Option<Lsn>,
    pub dest_checkpoint: Option<DestCheckpoint>,
    /// How long ago a gap started a full sync, if that was today.
    pub gap_synced: Option<Duration>,
}

impl StoredCheckpoint {
    pub(super) fn dest_lsn(&self) -> Option<Lsn> {
        self.dest_checkpoint.as_ref().and_then(|dest_checkpoint| dest_checkpoint.lsn)
    }

    /// Whether the control database and the destination have the same LSN.
    pub fn agrees(&self) -> bool {
        self.control == self.dest_lsn()
    }

    /// The source transaction at the checkpoint, which the source must still have. Entries that
    /// capture writes for an idle database are no transactions: each server writes its own.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.dest_checkpoint
            .as_ref()?
            .transaction
            .as_ref()
            .filter(|transaction| transaction.identity.is_transaction())
    }

    /// The destination's checkpoint does not yet name a source table and a capture instance.
    pub fn is_unbound(&self) -> bool {
        self.dest_checkpoint.as_ref().is_some_and(|dest_checkpoint| {
            dest_checkpoint.source.is_none() || dest_checkpoint.instance.is_none()
        })
    }
}

/// What `cdc.lsn_time_mapping` says of the LSN of [`StoredCheckpoint::transaction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    /// Not asked, or below what the mapping table still holds: says nothing.
    Unknown,
    /// There is no transaction at that LSN, although earlier ones are still listed.
    Absent,
    Present(TranIdentity),
}
