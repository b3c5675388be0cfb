//! Copying: rows from a query at one server into a table at another.
//!
//! Cells pass through as the driver has them: nothing looks at them on the way. Reading and writing
//! go on at the same time, with a bounded number of batches between them; a batch is bounded in
//! rows *and* in bytes, so that 1,000 rows of 10 MB each do not need 10 GB.
//!
//! Each batch is a bulk load of its own, so that it commits by itself: a destination in full
//! recovery can back up its log meanwhile, the lock is short, and progress is what is really there.
//! Both sides run in one task, so a copy that is dropped leaves nothing behind (each side's session
//! is spent, as any cut-off session is).

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
pub struct CopyTarget<'a> {
    /// `[schema].[table]` or a `#` name
    pub table: &'a str,
    pub columns: &'a BulkColumns,
    /// Places of the key among the columns, for whoever follows the progress.
    pub key: &'a [usize],
    pub options: BulkOptions,
}

/// What a batch boundary brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFlow {
    Continue,
    /// Stop here: what was written stays written.
    Stop,
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub rows: u64,
    /// False when it was asked to stop.
    pub complete: bool,
}

/// Told of every batch that is in: the rows so far, and the key of its last one. The destination's
/// session is free meanwhile.
pub trait BatchObserver: Send {
    fn batch_done(
        &mut self,
        dest: &mut Session,
        rows: u64,
        last_key: &[Value],
    ) -> impl Future<Output = Result<ControlFlow>> + Send;

    /// Resolves when the copy is to stop: it does not wait for rows that a source may never send.
    fn stopped(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// What a copy's first question comes to, or `None` where it is to stop before there is an answer;
/// that connection is spent then.
pub(in crate::mssql) async fn unless_stopped<T>(
    boundary: &impl BatchObserver,
    question: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        answer = question => Some(answer),
        () = boundary.stopped() => None,
    }
}

/// Runs both sides of a copy until the writer has ended; what the reader came to, or `None` where
/// it was given up: a writer that stopped or failed wants no more rows, and the next one may be
/// minutes away. A reader that is given up costs its connection.
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
/// Stopping early costs the source's session, whose stream is cut off.
pub async fn copy(
    source: &mut Session,
    query: &str,
    params: &[Param<'_>],
    dest: &mut Session,
    to: CopyTarget<'_>,
    limit: BatchLimit,
    boundary: &mut impl BatchObserver,
) -> Result<Copied> {
    let target = to.columns.target();
    let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    let Some(stream) = unless_stopped(boundary, source.stream(query, params)).await else {
        return Ok(Copied { rows: 0, complete: false });
    };
    let stream = stream.context("read source rows")?;
    let (read, written) = read_while_written(
        read(stream, sender, limit),
        write(dest, to, &target, receiver, boundary),
    )
    .await;
    let copied = written?;
    match read {
        // the writer takes a closed channel for the end of the rows
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
        // on an error the channel closes as at the end: who awaits both looks at this side's result
        // before believing it
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
    boundary: &mut impl BatchObserver,
) -> Result<Copied> {
    let mut rows = 0u64;
    loop {
        let batch = tokio::select! {
            batch = receiver.recv() => batch,
            () = boundary.stopped() => return Ok(Copied { rows, complete: false }),
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
        if boundary.batch_done(dest, rows, &last_key).await? == ControlFlow::Stop {
            return Ok(Copied { rows, complete: false });
        }
    }
    Ok(Copied { rows, complete: true })
}
