//! Copying: rows from a query at one server into a table at another.
//!
//! Cells pass through as the driver has them: nothing looks at them on the way. Reading and writing go on at the same time, with a
//! bounded number of batches between them; a batch is bounded in rows *and* in bytes, so that 1,000 rows of 10 MB each do not need 10 GB.
//!
//! Each batch is a bulk load of its own, so that it commits by itself: a destination in full recovery can back up its log meanwhile, the
//! lock is short, and progress is what is really there. Both sides run in one task, so a copy that is dropped leaves nothing behind
//! (each side's session is spent, as any cut-off session is).

use tokio::sync::mpsc;

use super::{
    row::{Param, RowData},
    session::{BulkColumns, BulkOptions, BulkTarget, RowStream, Session},
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::value::Value,
};

/// Batches between reader and writer: one being read, one waiting, one being written.
const BATCHES_WAITING_MAX: usize = 1;

/// How much may be in one batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    pub rows_max: usize,
    pub bytes_max: usize,
}

/// Where rows go.
#[derive(Clone, Copy, Debug)]
pub struct Into<'a> {
    /// `[schema].[table]` or a `#` name
    pub table: &'a str,
    pub columns: &'a BulkColumns,
    /// Places of the key among the columns, for whoever follows the progress.
    pub key: &'a [usize],
    pub options: BulkOptions,
}

/// What a batch boundary brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    On,
    /// Stop here: what was written stays written.
    Stop,
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub rows: u64,
    /// False when it was asked to stop.
    pub whole: bool,
}

/// Told of every batch that is in: the rows so far, and the key of its last one. The destination's session is free meanwhile.
pub trait Boundary: Send {
    fn batch_done(&mut self, dest: &mut Session, rows: u64, last_key: &[Value]) -> impl Future<Output = Result<Go>> + Send;
}

struct Batch {
    rows: Vec<RowData>,
}

/// Reads `query` at `source` and loads its rows into `to` at `dest`, batch by batch.
///
/// Stopping early costs the source's session, whose stream is cut off.
pub async fn copy(
    source: &mut Session,
    query: &str,
    params: &[Param<'_>],
    dest: &mut Session,
    to: Into<'_>,
    limit: BatchLimit,
    boundary: &mut impl Boundary,
) -> Result<Copied> {
    let target = to.columns.target();
    let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    let stream = source.stream(query, params).await.context("read source rows")?;
    let (read, written) = tokio::join!(read(stream, sender, limit), write(dest, to, &target, receiver, boundary));
    // a writer that failed closes the channel, and the reader's own end says nothing then
    let copied = written?;
    if copied.whole {
        read?;
    }
    Ok(copied)
}

async fn read(mut stream: RowStream<'_>, sender: mpsc::Sender<Batch>, limit: BatchLimit) -> Result<()> {
    let mut rows = Vec::new();
    let mut bytes = 0usize;
    loop {
        // on an error the channel closes as at the end: who awaits both looks at this side's result before believing it
        let row = stream.next().await.context("read source rows")?;
        let end = row.is_none();
        if let Some(row) = row {
            bytes = bytes.saturating_add(row.size_bytes());
            rows.push(row.into_cells());
        }
        let full = rows.len() >= limit.rows_max.max(1) || bytes >= limit.bytes_max.max(1);
        if (full || end) && !rows.is_empty() {
            let batch = Batch { rows: std::mem::take(&mut rows) };
            bytes = 0;
            if sender.send(batch).await.is_err() {
                return Err(Error::new(Kind::Cancelled, "the writer stopped"));
            }
        }
        if end {
            return Ok(());
        }
    }
}

async fn write(
    dest: &mut Session,
    to: Into<'_>,
    target: &BulkTarget<'_>,
    mut receiver: mpsc::Receiver<Batch>,
    boundary: &mut impl Boundary,
) -> Result<Copied> {
    let mut rows = 0u64;
    while let Some(batch) = receiver.recv().await {
        let count = batch.rows.len() as u64;
        let last_key = match batch.rows.last() {
            Some(row) => to.key.iter().map(|&i| row.value(i)).collect::<Result<Vec<_>>>()?,
            None => Vec::new(),
        };
        let mut bulk = dest.bulk(to.table, target, to.options).await.context("begin a bulk load")?;
        for row in batch.rows {
            bulk.send(row).await.context("write rows")?;
        }
        let (loaded, wide) = bulk.finish().await.context("write rows")?;
        let taken = loaded + dest.insert_wide(to.table, target, wide).await.context("write wide rows")?;
        if taken != count {
            return Err(Error::new(Kind::Other, format!("of {count} rows in a batch the destination took {taken}")));
        }
        rows += taken;
        if boundary.batch_done(dest, rows, &last_key).await? == Go::Stop {
            return Ok(Copied { rows, whole: false });
        }
    }
    Ok(Copied { rows, whole: true })
}
