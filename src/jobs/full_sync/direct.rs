//! Mode DIRECT: truncate and load, for tables that are too big to exist twice.
//!
//! The staging table holds one batch at a time. A batch is inserted from there into the destination
//! with an ordinary INSERT, so that types, identity values and triggers are handled by the same
//! statements as in a swap, and foreign keys and checks stay trusted (a bulk load into the table
//! itself would leave them untrusted).
//!
//! The price, and why STAGED is the default: readers see an empty, then a growing table; a sync that
//! fails or is stopped leaves the table partly filled until the next attempt; and when a value of
//! another unique key moves between rows during the copy, the sync can fail. The old rows are kept
//! at least until the source's first rows have arrived. With CDC, the checkpoint is the copy's start
//! LSN, so changes made during the copy are applied afterwards; while the request is pending,
//! neither CDC nor a verification uses the table.

use super::{SyncRun, refusal, swap};
use crate::{
    control::checkpoint::fenced,
    error::{Context, Error, Kind, Result},
    jobs::keys,
    mssql::client::{row::Param, session::Session},
    tsql,
};

/// Tables that TRUNCATE refuses: referenced by a foreign key, an indexed view, published or
/// versioned, or no right to ALTER.
/// <https://learn.microsoft.com/sql/t-sql/statements/truncate-table-transact-sql#restrictions>
const NOT_TRUNCATED: [i32; 6] = [1088, 3729, 4701, 4711, 4712, 13545];

/// Inserts batches into the destination.
pub struct DirectWriter<'a> {
    work: &'a SyncRun<'a>,
    cleared: bool,
    /// rows in the destination
    pub inserted: u64,
}

impl<'a> DirectWriter<'a> {
    pub fn new(work: &'a SyncRun<'a>) -> Self {
        DirectWriter { work, cleared: false, inserted: 0 }
    }

    /// Runs one statement that changes the destination, and returns its row count. It is one batch
    /// with the checkpoint's guard in the same transaction: an attempt that another process has
    /// taken over (its own process was frozen) changes nothing, and its locks end with the batch.
    async fn write(&self, statement: &str, dest: &mut Session) -> Result<u64> {
        let guard = include_str!("../../../sql/checkpoint/direct_guard.sql");
        let sql = format!(
            "BEGIN TRANSACTION;\n{guard}{statement};\nSELECT ROWCOUNT_BIG();\nCOMMIT TRANSACTION;"
        );
        let SyncRun { mapping, claim, .. } = self.work;
        let params = [Param::Int(mapping.id.0), Param::Text(claim.as_str())];
        swap::changed_rows(dest.result_sets(&sql, &params).await.map_err(fenced)?)
    }

    /// Empties the destination, once.
    pub async fn clear(&mut self, dest: &mut Session) -> Result<()> {
        if self.cleared {
            return Ok(());
        }
        // a ledger keeps deleted rows, and so does the history of a temporal table
        let keeps_history = self.work.shape.dest.ledger || self.work.shape.dest.system_versioned;
        if keeps_history || !self.truncated(dest).await? {
            // before the first row goes, not after the first batch
            refusal::direct(self.work.shape, dest).await?;
            self.delete(dest).await?;
        }
        self.cleared = true;
        Ok(())
    }

    /// Every row, in batches; at once where the table refers to itself and a batch has rows that
    /// others still refer to.
    async fn delete(&self, dest: &mut Session) -> Result<()> {
        let table = &self.work.shape.dest.name;
        let mut delete = tsql::swap::delete_some(table, self.work.env.config.batch_rows);
        let mut batches = true;
        loop {
            match self.write(&delete, dest).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind == Kind::ForeignKey && batches && !dest.is_broken() => {
                    dest.recover().await?;
                    delete = tsql::swap::delete_all(table);
                    batches = false;
                }
                Err(error) => return Err(error).context("delete the destination's rows"),
            }
            if self.work.env.stopping() {
                return Err(Error::new(
                    Kind::Cancelled,
                    "asked to stop while the destination was emptied",
                ));
            }
        }
    }

    /// `false` when the server refuses TRUNCATE for this table.
    async fn truncated(&self, dest: &mut Session) -> Result<bool> {
        match self.write(&tsql::swap::truncate(&self.work.shape.dest.name), dest).await {
            Err(error)
                if error.number.is_some_and(|number| NOT_TRUNCATED.contains(&number))
                    && !dest.is_broken() =>
            {
                dest.recover().await?;
                Ok(false)
            }
            other => other.context("truncate the destination").map(|_| true),
        }
    }

    /// An INSERT into the destination, with its identity values where it has such a column.
    async fn insert(&self, sql: &str, dest: &mut Session) -> Result<u64> {
        swap::with_identity_insert(self.work.shape, dest, async |dest| self.write(sql, dest).await)
            .await
    }

    /// Moves the staged rows into the destination, and empties the staging table.
    pub async fn batch(&mut self, dest: &mut Session) -> Result<()> {
        self.clear(dest).await?;
        let (stage, table, map) =
            (self.work.stage, &self.work.shape.dest.name, &self.work.shape.map);
        let insert = tsql::swap::insert_more(stage, table, map);
        let mut attempts_left = self.work.env.config.retry_attempts;
        let mut repeated = false;
        self.inserted += loop {
            let error = match self.insert(&insert, dest).await {
                Ok(inserted) => break inserted,
                Err(error) => error,
            };
            if dest.is_broken() {
                return Err(error);
            }
            dest.recover().await?;
            match error.kind {
                // a scan that goes page by page may meet a row twice
                Kind::Duplicate if !repeated => {
                    repeated = true;
                    dest.execute(&tsql::swap::delete_repeated(stage, map), &[])
                        .await
                        .context("drop rows that were read twice")?;
                }
                Kind::Duplicate if map.merges_keys => {
                    keys::check_no_merged_keys(
                        dest,
                        map,
                        &tsql::swap::merged_in_stage(stage, map),
                        &[],
                    )
                    .await?;
                    keys::check_no_merged_keys(
                        dest,
                        map,
                        &tsql::swap::merged_at_dest(stage, table, map),
                        &[],
                    )
                    .await?;
                    return Err(error);
                }
                Kind::Deadlock | Kind::LockTimeout
                    if attempts_left > 1 && !self.work.env.stopping() =>
                {
                    attempts_left -= 1
                }
                _ => return Err(error),
            }
        };
        dest.batch(&tsql::swap::truncate(stage)).await.context("empty the staging table")
    }
}
