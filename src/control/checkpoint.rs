//! Checkpoints and their twins.
//!
//! `last_cdc_lsn` lives in the control database, the rows it speaks of in the destination database.
//! They commit together (one instance, one transaction), but they can be *restored* apart. So the
//! destination database has a small table of ours with the same LSN, written in the same
//! transaction; when the two differ, one of the databases went back or forth alone, and the changes
//! between are a gap.
//!
//! The twin also keeps which source transaction was at that LSN, so that a source restored to
//! another history is recognised, and which tables it was written for, so that a mapping that was
//! pointed at others, or whose source or destination table was made anew, is. And it keeps which
//! capture instance is read: of two, the service goes from the older one to the newer one once, and
//! never back.
//!
//! Every statement runs on a session whose current database is the destination's; only the control
//! table has a three-part name, and only for DML. A checkpoint climbs, and the WHERE enforces it:
//! the old LSN is the fence.

use crate::{
    error::{Context, Error, Kind, Result},
    model::{
        capture::Transaction,
        id::{MappingId, ServerId},
        lsn::Lsn,
        name::Ident,
    },
    mssql::{
        classify,
        client::{
            row::{Param, Row},
            session::Session,
        },
        queries::cdc,
    },
    plan::window::{DestCheckpoint, StoredCheckpoint},
    tsql::checkpoint as phrases,
};
use std::{collections::HashMap, time::Duration};

/// The number that `sql/checkpoint/control.sql` throws when the fence does not hold.
pub const FENCE_ERROR: i32 = 50547;

/// Inside a transaction: the control row, fenced. See the file for the variables it wants.
pub const CONTROL_SQL: &str = include_str!("../../sql/checkpoint/control.sql");

/// Inside the same transaction: the twin. See the file for the variables it wants.
pub const TWIN_SQL: &str = include_str!("../../sql/checkpoint/dest.sql");

/// Most idle mappings moved by one statement: 24 bytes each in one varbinary(8000).
pub const IDLE_MOVES_MAX: usize = 300;

/// Makes the twin table where it is missing.
pub async fn ensure_table(dest: &mut Session) -> Result<()> {
    dest.batch(include_str!("../../sql/checkpoint/table.sql"))
        .await
        .context("create dbo.dbaops_dataflow_checkpoints")
}

/// Both checkpoints of every mapping from a source database into the session's database, read in
/// one statement. The twin table must exist. A database that is read-only is an error: nothing that
/// is found for its mappings could be done.
pub async fn stored(
    dest: &mut Session,
    (server, database): (ServerId, &Ident),
) -> Result<HashMap<MappingId, StoredCheckpoint>> {
    let params = [Param::Int(server.0), Param::Text(database.as_str())];
    let (mut all, mut read_only) = (HashMap::new(), false);
    let take = |_: usize, row: Row| -> Result<()> {
        let transaction = cdc::transaction(&row, 4)?;
        let text = |column: usize| -> Result<Option<String>> {
            Ok(row.opt_text(column)?.map(str::to_owned))
        };
        let dest_checkpoint = match row.opt_i32(2)? {
            Some(_) => Some(DestCheckpoint {
                lsn: row.opt_lsn(3)?,
                transaction,
                elsewhere: row.bool(9)?,
                source: text(10)?,
                instance: text(11)?,
            }),
            None => None,
        };
        let gap_synced =
            row.opt_i32(7)?.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
        read_only |= row.opt_text(8)?.is_some_and(|word| word.eq_ignore_ascii_case("READ_ONLY"));
        all.insert(
            MappingId(row.i32(0)?),
            StoredCheckpoint { control: row.opt_lsn(1)?, dest_checkpoint, gap_synced },
        );
        Ok(())
    };
    dest.for_each_row(include_str!("../../sql/checkpoint/stored.sql"), &params, take)
        .await
        .context("read checkpoints")?;
    if read_only {
        // As it would say itself when it is written to, which may be long from now.
        return Err(classify::database_read_only());
    }
    Ok(all)
}

/// A checkpoint that moves without rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdleMove {
    pub mapping: MappingId,
    /// What `last_cdc_lsn` is.
    pub stored: Option<Lsn>,
    pub to: Lsn,
}

/// Moves idle mappings of one destination database to `to`; those that were moved. `transaction`:
/// the newest one up to there, if known.
pub async fn advance_idle(
    dest: &mut Session,
    moves: &[IdleMove],
    transaction: Option<&Transaction>,
) -> Result<Vec<MappingId>> {
    let mut moved = Vec::with_capacity(moves.len());
    for moves in moves.chunks(IDLE_MOVES_MAX) {
        let mut packed = Vec::with_capacity(moves.len() * 24);
        for IdleMove { mapping, stored, to } in moves {
            packed.extend_from_slice(&mapping.0.to_be_bytes());
            packed.extend_from_slice(stored.unwrap_or(Lsn::MAX).as_bytes());
            packed.extend_from_slice(to.as_bytes());
        }
        let params = [
            Param::Binary(&packed),
            Param::OptBinary(
                transaction.map(|transaction| transaction.identity.tran_id.as_slice()),
            ),
            Param::OptText(transaction.map(|transaction| transaction.identity.end_time.as_str())),
            Param::OptLsn(transaction.map(|transaction| transaction.lsn)),
        ];
        let sets = dest
            .result_sets(include_str!("../../sql/checkpoint/idle.sql"), &params)
            .await
            .context("move idle checkpoints")?;
        for row in sets.into_iter().next_back().unwrap_or_default() {
            moved.push(MappingId(row.i32(0)?));
        }
    }
    Ok(moved)
}

/// What a checkpoint is bound to at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub mapping: MappingId,
    /// What the checkpoint is.
    pub lsn: Option<Lsn>,
    /// [`Instance::source_mark`](crate::model::capture::Instance::source_mark)
    pub source: String,
    /// [`Instance::mark`](crate::model::capture::Instance::mark)
    pub instance: String,
}

/// Binds checkpoints that an earlier version wrote, or that moved before the source was known, to
/// what was read of them.
pub async fn bind(dest: &mut Session, bindings: &[Binding]) -> Result<()> {
    for bindings in bindings.chunks(phrases::BINDINGS_MAX) {
        let mut params = Vec::with_capacity(4 * bindings.len());
        for Binding { mapping, lsn, source, instance } in bindings {
            params.extend([
                Param::Int(mapping.0),
                Param::OptLsn(*lsn),
                Param::Text(source),
                Param::Text(instance),
            ]);
        }
        dest.execute(&phrases::bind(bindings.len()), &params)
            .await
            .context("bind checkpoints to their source tables")?;
    }
    Ok(())
}

/// Gives the fence's error its kind.
pub fn fenced(mut error: Error) -> Error {
    if error.number == Some(FENCE_ERROR) {
        error.kind = Kind::CheckpointConflict;
        return error.with_hint(
            "Another process moved this mapping's checkpoint: nothing of this transaction was kept",
        );
    }
    error
}
