//! Copies rows from a query at one server into a table at another, through the driver.
//!
//! Cells are passed on as the driver has them. Reading and writing run at the same time, with a
//! limited number of batches between them; a batch is limited in rows *and* in bytes, so that 1,000
//! rows of 10 MB each do not need 10 GB.
//!
//! Each batch is a bulk load of its own and commits by itself: the log of a destination in full
//! recovery can be backed up meanwhile, locks are short, and the reported progress is committed. Both
//! sides run in one task, so dropping a copy stops both (and neither session can be used any more).

use std::{future::poll_fn, task::Poll};

use tokio::sync::mpsc;

use crate::mssql::client::{
    answer::RowStream,
    bulk::{BulkColumns, BulkOptions, BulkTarget},
    row::{Param, RowData},
    session::Session,
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::value::Value,
};

/// Batches that wait between reader and writer, besides the one being read and the one being
/// written.
const BATCHES_WAITING_MAX: usize = 1;

/// The limits of one batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimit {
    pub rows_max: usize,
    pub bytes_max: usize,
}

/// The table that rows are copied into.
#[derive(Clone, Copy, Debug)]
pub struct CopyTarget<'a> {
    /// `[schema].[table]` or a `#` name
    pub table: &'a str,
    pub columns: &'a BulkColumns,
    /// Indexes of the key columns, for [`BatchObserver`].
    pub key: &'a [usize],
    pub options: BulkOptions,
}

/// Whether a copy goes on after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFlow {
    Continue,
    /// Stop here; the batches so far stay committed.
    Stop,
}

/// The result of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub rows: u64,
    /// False when the copy was stopped.
    pub complete: bool,
}

/// Is called after every committed batch, with the rows so far and the key of the last one. It may use
/// the destination's session.
pub trait BatchObserver: Send {
    fn batch_done(
        &mut self,
        dest: &mut Session,
        rows: u64,
        last_key: &[Value],
    ) -> impl Future<Output = Result<ControlFlow>> + Send;

    /// Resolves when the copy is to stop, also while it waits for the source.
    fn stopped(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// Runs a copy's first query, unless the copy is stopped before (`None`; the connection cannot be used
/// any more then).
pub(in crate::mssql) async fn unless_stopped<T>(
    observer: &impl BatchObserver,
    request: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        answer = request => Some(answer),
        () = observer.stopped() => None,
    }
}

/// Runs both sides of a copy until the writer has ended, and returns both results. The reader's is
/// `None` when it was dropped before its end: after the writer has stopped or failed, waiting for the
/// source's next row could take minutes. Its connection cannot be used any more then.
pub(in crate::mssql) async fn read_while_written<R>(
    read: impl Future<Output = R>,
    write: impl Future<Output = Result<Copied>>,
) -> (Option<R>, Result<Copied>) {
    let (mut read, mut write) = (std::pin::pin!(read), std::pin::pin!(write));
    let mut ended = None;
    let written = poll_fn(|context| {
        if ended.is_none()
            && let Poll::Ready(end) = read.as_mut().poll(context)
        {
            ended = Some(end);
        }
        write.as_mut().poll(context)
    })
    .await;
    (ended, written)
}

struct RowBatch {
    rows: Vec<RowData>,
}

/// Reads `query` at `source` and loads its rows into `to` at `dest`, batch by batch.
///
/// After an early stop, the source's session cannot be used any more.
pub async fn copy(
    source: &mut Session,
    query: &str,
    params: &[Param<'_>],
    dest: &mut Session,
    to: CopyTarget<'_>,
    limit: BatchLimit,
    observer: &mut impl BatchObserver,
) -> Result<Copied> {
    let target = to.columns.target();
    let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    let Some(stream) = unless_stopped(observer, source.stream(query, params)).await else {
        return Ok(Copied { rows: 0, complete: false });
    };
    let stream = stream.context("read source rows")?;
    let (read, written) = read_while_written(
        read(stream, sender, limit),
        write(dest, to, &target, receiver, observer),
    )
    .await;
    let copied = written?;
    match read {
        // a closed channel means the end of the rows to the writer, also when the reader has failed
        Some(end) if copied.complete => end.map(|()| copied),
        None if copied.complete => {
            Err(Error::new(Kind::Other, "the rows ended before their reader did"))
        }
        _ => Ok(copied),
    }
}

async fn read(
    mut stream: RowStream<'_>,
    sender: mpsc::Sender<RowBatch>,
    limit: BatchLimit,
) -> Result<()> {
    let mut rows = Vec::new();
    let mut bytes = 0usize;
    loop {
        // An error closes the channel as well: the caller checks this side's result first.
        let row = stream.next().await.context("read source rows")?;
        let end = row.is_none();
        if let Some(row) = row {
            bytes = bytes.saturating_add(row.size_bytes());
            rows.push(row.into_cells());
        }
        let full = rows.len() >= limit.rows_max.max(1) || bytes >= limit.bytes_max.max(1);
        if (full || end) && !rows.is_empty() {
            let batch = RowBatch { rows: std::mem::take(&mut rows) };
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
    to: CopyTarget<'_>,
    target: &BulkTarget<'_>,
    mut receiver: mpsc::Receiver<RowBatch>,
    observer: &mut impl BatchObserver,
) -> Result<Copied> {
    let mut rows = 0u64;
    loop {
        let batch = tokio::select! {
            batch = receiver.recv() => batch,
            () = observer.stopped() => return Ok(Copied { rows, complete: false }),
        };
        let Some(batch) = batch else { break };
        let count = batch.rows.len() as u64;
        let last_key = match batch.rows.last() {
            Some(row) => to.key.iter().map(|&i| row.value(i)).collect::<Result<Vec<_>>>()?,
            None => Vec::new(),
        };
        let mut bulk =
            dest.bulk(to.table, target, to.options).await.context("begin a bulk load")?;
        for row in batch.rows {
            bulk.send(row).await.context("write rows")?;
        }
        let (loaded, wide) = bulk.finish().await.context("write rows")?;
        let taken =
            loaded + dest.insert_wide(to.table, target, wide).await.context("write wide rows")?;
        if taken != count {
            return Err(Error::new(
                Kind::Other,
                format!("of {count} rows in a batch the destination took {taken}"),
            ));
        }
        rows += taken;
        if observer.batch_done(dest, rows, &last_key).await? == ControlFlow::Stop {
            return Ok(Copied { rows, complete: false });
        }
    }
    Ok(Copied { rows, complete: true })
}
