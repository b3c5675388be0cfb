//! The swap: one transaction that makes the destination's rows equal to the staging table's.
//!
//! Rows that no longer exist are deleted first, then the others are updated, then new ones inserted,
//! so that a unique value that moves between rows is free when it is needed. A self-referencing
//! foreign key can refuse that order (a row to be deleted is still referenced by one to be updated);
//! then the whole transaction is tried once in the opposite order.

use super::{
    SyncRun,
    progress::{SwapStep, SyncStage},
    refusal,
};
use crate::{
    control::{
        FullSyncClaim,
        checkpoint::{TWIN_SQL, ensure_table, fenced},
    },
    error::{Context, Error, Kind, Result},
    jobs::shape::Shape,
    model::{
        capture::{Instance, Transaction},
        id::MappingId,
        lsn::Lsn,
    },
    mssql::client::{
        row::{Param, Row},
        session::Session,
    },
    tsql,
};

/// What the transaction records beside the rows.
#[derive(Clone, Debug)]
pub struct SwapRecord<'a> {
    pub mapping: MappingId,
    /// The second guard: this attempt's own number.
    pub claim: &'a FullSyncClaim,
    /// `last_cdc_lsn` when the run began: the first guard. The commit fails when it has changed.
    pub stored: Option<Lsn>,
    /// Where CDC goes on; `None` without CDC.
    pub checkpoint: Option<Lsn>,
    /// The newest source transaction up to the checkpoint, where it is known.
    pub transaction: Option<Transaction>,
    /// The capture instance that CDC reads from there.
    pub instance: Option<&'a Instance>,
}

/// What the transaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swapped {
    /// rows at the destination now
    pub rows: u64,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SwapOrder {
    DeleteFirst,
    InsertFirst,
}

/// Runs the transaction, and again where that may help. After a failure it is rolled back.
pub async fn swap(
    work: &SyncRun<'_>,
    record: &SwapRecord<'_>,
    dest: &mut Session,
) -> Result<Swapped> {
    ensure_table(dest).await?;
    let mut order = SwapOrder::DeleteFirst;
    let mut attempts_left = work.env.config.retry_attempts;
    loop {
        let error = match transaction(work, record, order, dest).await {
            Ok(swapped) => return Ok(swapped),
            Err(error) => error,
        };
        if dest.is_broken() {
            return Err(error);
        }
        dest.recover().await?;
        match error.kind {
            Kind::ForeignKey if order == SwapOrder::DeleteFirst => order = SwapOrder::InsertFirst,
            Kind::ForeignKey => return Err(refusal::staged(work, error, dest).await),
            Kind::Deadlock | Kind::LockTimeout if attempts_left > 1 && !work.env.stopping() => {
                attempts_left -= 1
            }
            _ => return Err(error),
        }
    }
}

async fn transaction(
    work: &SyncRun<'_>,
    record: &SwapRecord<'_>,
    order: SwapOrder,
    dest: &mut Session,
) -> Result<Swapped> {
    let SyncRun { shape, stage, progress, .. } = work;
    dest.begin_transaction("BEGIN TRANSACTION").await?;
    let mut swapped = move_rows(work, order, dest).await?;
    progress.enter(SyncStage::Swap(SwapStep::Check));
    let counts =
        dest.row(&tsql::swap::counts(stage, &shape.dest.name), &[]).await.context("count rows")?;
    let (staged, at_dest) = (counts.i64(0)?, counts.i64(1)?);
    if staged != at_dest {
        return Err(Error::new(Kind::Other, format!("{staged} rows are staged, but {at_dest} would be at the destination"))
            .with_hint("A trigger, an index with IGNORE_DUP_KEY or another writer changes rows at the destination"));
    }
    swapped.rows = u64::try_from(at_dest).unwrap_or(0);
    write_checkpoint(record, dest).await?;
    // dropped in the same transaction: a process that is killed now leaves no staging table
    dest.batch(&tsql::swap::drop_stage(stage)).await.context("drop the staging table")?;
    dest.commit_transaction("COMMIT TRANSACTION").await.context("commit")?;
    Ok(swapped)
}

/// Ends a sync that needed no swap: the rows are already in the destination, and the checkpoint is
/// written.
pub async fn finish_direct(
    work: &SyncRun<'_>,
    inserted: u64,
    record: &SwapRecord<'_>,
    dest: &mut Session,
) -> Result<()> {
    let SyncRun { shape, stage, .. } = work;
    ensure_table(dest).await?;
    dest.begin_transaction("BEGIN TRANSACTION").await?;
    let counts =
        dest.row(&tsql::swap::counts(stage, &shape.dest.name), &[]).await.context("count rows")?;
    let at_dest = counts.i64(1)?;
    if u64::try_from(at_dest).ok() != Some(inserted) {
        return Err(Error::new(Kind::Other, format!("{inserted} rows were brought in, but {at_dest} are at the destination"))
            .with_hint("A trigger, an index with IGNORE_DUP_KEY or another writer changes rows at the destination"));
    }
    write_checkpoint(record, dest).await?;
    dest.batch(&tsql::swap::drop_stage(stage)).await.context("drop the staging table")?;
    dest.commit_transaction("COMMIT TRANSACTION").await.context("commit")
}

async fn write_checkpoint(record: &SwapRecord<'_>, dest: &mut Session) -> Result<()> {
    let sql = format!("{}{TWIN_SQL}", include_str!("../../../sql/checkpoint/swap_checkpoint.sql"));
    let (source, instance) =
        (record.instance.map(Instance::source_mark), record.instance.map(Instance::mark));
    let transaction = record.transaction.as_ref();
    let params = [
        Param::Int(record.mapping.0),
        Param::OptLsn(record.checkpoint),
        Param::OptLsn(record.stored),
        Param::OptBinary(transaction.map(|known| known.identity.tran_id.as_slice())),
        Param::OptText(transaction.map(|known| known.identity.end_time.as_str())),
        Param::OptLsn(transaction.map(|known| known.lsn)),
        Param::OptText(source.as_deref()),
        Param::OptText(instance.as_deref()),
        Param::Text(record.claim.as_str()),
    ];
    dest.execute(&sql, &params).await.map_err(fenced).context("write the checkpoint").map(drop)
}

async fn move_rows(work: &SyncRun<'_>, order: SwapOrder, dest: &mut Session) -> Result<Swapped> {
    let SyncRun { shape, stage, progress, .. } = work;
    let (map, table) = (&shape.map, &shape.dest.name);
    let empty = dest
        .row(&tsql::swap::is_empty(table), &[])
        .await
        .context("look whether the destination is empty")?
        .i64(0)?
        == 1;
    let mut swapped = Swapped::default();
    if empty {
        progress.enter(SyncStage::Swap(SwapStep::Insert));
        swapped.inserted = insert(&tsql::swap::insert_all(stage, table, map), shape, dest).await?;
        return Ok(swapped);
    }
    let steps = match order {
        SwapOrder::DeleteFirst => [SwapStep::Delete, SwapStep::Update, SwapStep::Insert],
        SwapOrder::InsertFirst => [SwapStep::Insert, SwapStep::Update, SwapStep::Delete],
    };
    for step in steps {
        progress.enter(SyncStage::Swap(step));
        match step {
            SwapStep::Delete => {
                let delete = tsql::swap::delete_gone(stage, table, map);
                swapped.deleted =
                    count(dest, &delete).await.context("delete rows that are gone")?;
            }
            SwapStep::Update => {
                if let Some(update) = tsql::swap::update_changed(stage, table, map) {
                    swapped.updated =
                        count(dest, &update).await.context("update rows that differ")?;
                }
            }
            SwapStep::Insert => {
                swapped.inserted =
                    insert(&tsql::swap::insert_new(stage, table, map), shape, dest).await?
            }
            SwapStep::Check => {}
        }
    }
    Ok(swapped)
}

/// An INSERT into the destination, with its identity values where it has such a column.
async fn insert(sql: &str, shape: &Shape, dest: &mut Session) -> Result<u64> {
    with_identity_insert(shape, dest, async |dest| count(dest, sql).await).await
}

/// `insert` with IDENTITY_INSERT ON, where the destination has an identity column.
pub async fn with_identity_insert(
    shape: &Shape,
    dest: &mut Session,
    insert: impl AsyncFnOnce(&mut Session) -> Result<u64>,
) -> Result<u64> {
    if shape.map.identity {
        dest.batch(&tsql::swap::identity_insert(&shape.dest.name, true))
            .await
            .context("allow identity values")?;
    }
    let inserted = match insert(dest).await.context("insert new rows") {
        Err(error) => {
            // a session has IDENTITY_INSERT on for one table at a time, and neither a rollback nor
            // the prologue ends that
            dest.mark_not_reusable();
            return Err(error);
        }
        Ok(inserted) => inserted,
    };
    if shape.map.identity {
        dest.batch(&tsql::swap::identity_insert(&shape.dest.name, false))
            .await
            .context("end identity values")?;
    }
    Ok(inserted)
}

/// The row count of one statement. It is selected as a row, because the counts that the server sends
/// by itself include those of statements in triggers.
pub async fn count(dest: &mut Session, sql: &str) -> Result<u64> {
    changed_rows(dest.result_sets(&format!("{sql};\nSELECT ROWCOUNT_BIG()"), &[]).await?)
}

/// The answer to `SELECT ROWCOUNT_BIG()`, the last result set.
pub fn changed_rows(sets: Vec<Vec<Row>>) -> Result<u64> {
    // triggers may have returned rows before it
    let rows = sets.last().and_then(|set| set.last()).map(|row| row.i64(0)).transpose()?;
    rows.and_then(|rows| u64::try_from(rows).ok()).ok_or_else(|| {
        Error::new(Kind::Other, "the server returned no row count for the statement")
    })
}
