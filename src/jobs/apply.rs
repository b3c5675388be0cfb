//! Applying change rows to a table.

use crate::{
    error::{Error, Kind, Result},
    model::{
        capture::{Capture, TranIdentity},
        carry::Carry,
        id::MappingId,
        lsn::Lsn,
        name::TableName,
    },
    mssql::session::Session,
};
use tokio_util::sync::CancellationToken;

/// The checkpoint that moves with the rows.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub mapping: MappingId,
    /// What `last_cdc_lsn` is now: the fence.
    pub stored: Option<Lsn>,
    /// The source transaction at the window's upper bound, if known.
    pub identity: Option<TranIdentity>,
    /// Ask for a full sync in the transaction that reaches the upper bound (a capture instance with other columns takes over there).
    pub resync: bool,
}

/// Where the rows go.
#[derive(Clone, Debug)]
pub enum Target<'a> {
    /// The mapping's destination, in commits of their own, each with its checkpoint.
    Dest { table: &'a TableName, checkpoint: Checkpoint },
    /// A full sync's staging table: staged types, the carried columns under their destination names, a key index and nothing else.
    Staging { table: &'a TableName },
}

/// A window of changes on its way to a table.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    pub carry: &'a Carry,
    /// The source table, as the catalog spells it.
    pub source: &'a TableName,
    pub capture: &'a Capture,
    /// exclusive
    pub from: Lsn,
    /// inclusive
    pub to: Lsn,
    pub target: Target<'a>,
    /// Most change rows per commit group, unless one transaction has more.
    pub batch_rows_max: usize,
    /// Everything up to `to` in one group.
    pub whole: bool,
    pub cancel: &'a CancellationToken,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Change rows applied.
    pub changes: u64,
    pub groups: u64,
    /// Everything up to here is in the target.
    pub reached: Option<Lsn>,
}

/// Reads the window's changes and applies them, group by group; `progress` is told the change rows of every commit.
pub async fn apply_changes(
    _source: &mut Session,
    _dest: &mut Session,
    _replay: &Replay<'_>,
    _progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Applied> {
    Err(Error::new(Kind::Other, "applying changes is not built yet"))
}
