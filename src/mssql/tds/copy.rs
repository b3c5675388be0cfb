//! Copying rows from one server's answer into another's bulk load, as bytes.
//!
//! Both sides run in one task with a bounded number of bytes between them.

use tokio::sync::mpsc;

use super::{
    answer::{has_next_row, read_to_end},
    connection::TdsConnection,
    header::Message,
    packet::CHUNK_BYTES,
    transfer::Transfer,
    types::{self, WireColumn, utf16},
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{name::Ident, value::Value},
    mssql::client::{
        copy::{
            BatchLimit, BatchObserver, ControlFlow, Copied, read_while_written, unless_stopped,
        },
        session::Session,
    },
};

/// Chunks between reader and writer.
const CHUNKS_WAITING_MAX: usize = 4;

/// The statements of a copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyStatements<'a> {
    /// One SELECT, with any statements before and after it that return no rows.
    pub read: &'a str,
    /// An empty SELECT of the columns that are loaded, for their types.
    pub columns: &'a str,
    /// INSERT BULK of these columns.
    pub load: &'a str,
    /// Indexes of the key columns.
    pub key: &'a [usize],
    /// The columns' names in messages.
    pub names: &'a [Ident],
}

/// Some rows, as bytes.
struct RowsChunk {
    /// ROW tokens; the last one may continue in the next chunk.
    bytes: Vec<u8>,
    /// Rows that end in this chunk.
    rows: u64,
    /// Set when a batch ends here: the key of its last row.
    key: Option<Vec<Value>>,
}

/// Copies the rows that `statements` read at `source` into one bulk load per batch at `dest`.
/// `Ok(Err(why))` when a column's bytes cannot be passed on unchanged; nothing was written then.
/// `observer` is called after every batch, with `session`.
///
/// Both connections are used up.
pub async fn copy(
    mut source: TdsConnection,
    mut dest: TdsConnection,
    statements: CopyStatements<'_>,
    limit: BatchLimit,
    session: &mut Session,
    observer: &mut impl BatchObserver,
) -> Result<std::result::Result<Copied, String>> {
    dest.send_batch(statements.columns).await?;
    let to = match dest.columns().await.context("read the staging table's columns")? {
        Ok(columns) => columns,
        Err(why) => return Ok(Err(why)),
    };
    read_to_end(&mut dest.packets).await?;
    let first = async {
        source.send_batch(statements.read).await?;
        source.columns().await
    };
    let Some(from) = unless_stopped(observer, first).await else {
        return Ok(Ok(Copied { rows: 0, complete: false }));
    };
    let from = from.context("read source rows")?;
    let transfer = match from.and_then(|from| {
        Transfer::new(&from, &to, statements.key).map_err(|unfit| unfit.message(statements.names))
    }) {
        Ok(transfer) => transfer,
        Err(why) => return Ok(Err(why)),
    };
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (read, written) = read_while_written(
        read(&mut source, transfer, limit, sender),
        write(&mut dest, &to, statements.load, receiver, session, observer),
    )
    .await;
    // when the reader fails, the writer is cancelled, and the reader's error is the cause
    match (read, written) {
        (_, Err(error)) if error.kind != Kind::Cancelled => Err(error),
        (Some(Err(error)), Ok(Copied { complete: true, .. }) | Err(_)) => Err(error),
        (_, written) => {
            let copied = written?;
            if copied.complete {
                source.close().await;
                dest.close().await;
            }
            Ok(Ok(copied))
        }
    }
}

async fn read(
    connection: &mut TdsConnection,
    mut transfer: Transfer,
    limit: BatchLimit,
    sender: mpsc::Sender<RowsChunk>,
) -> Result<()> {
    let packets = &mut connection.packets;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    // of the chunk, and of the batch
    let (mut rows, mut batch_rows, mut batch_bytes) = (0u64, 0usize, 0usize);
    let gone = |_| Error::new(Kind::Cancelled, "the writer stopped");
    loop {
        // only the answer's regular end ends a batch
        if !transfer.is_in_row() && !has_next_row(packets).await.context("read source rows")? {
            break;
        }
        if packets.buffered().is_empty() {
            packets.read_more().await.context("read source rows")?;
        }
        let here = packets.buffered();
        let before = bytes.len();
        let (taken, whole) =
            transfer.advance(here, &mut bytes).with_context(|| packets.row_description())?;
        batch_bytes += bytes.len() - before;
        packets.consume(taken);
        let mut key = None;
        if whole {
            packets.row_done();
            rows += 1;
            batch_rows += 1;
            if batch_rows >= limit.rows_max.max(1) || batch_bytes >= limit.bytes_max.max(1) {
                key = Some(transfer.key()?);
                (batch_rows, batch_bytes) = (0, 0);
            }
        }
        if key.is_some() || bytes.len() >= CHUNK_BYTES {
            let chunk = RowsChunk {
                bytes: std::mem::replace(&mut bytes, Vec::with_capacity(CHUNK_BYTES)),
                rows: std::mem::take(&mut rows),
                key,
            };
            sender.send(chunk).await.map_err(gone)?;
            packets.restart_limits();
        }
        if !whole {
            // the current cell has not arrived completely
            packets.read_more().await.context("read source rows")?;
        }
    }
    if batch_rows > 0 {
        sender.send(RowsChunk { bytes, rows, key: Some(transfer.key()?) }).await.map_err(gone)?;
    }
    Ok(())
}

async fn write(
    connection: &mut TdsConnection,
    columns: &[WireColumn],
    load: &str,
    mut receiver: mpsc::Receiver<RowsChunk>,
    session: &mut Session,
    observer: &mut impl BatchObserver,
) -> Result<Copied> {
    let head = bulk_column_metadata(columns);
    let mut copied = 0;
    let mut batch = None;
    loop {
        let chunk = tokio::select! {
            chunk = receiver.recv() => chunk,
            // closing the connection rolls back the unfinished batch
            () = observer.stopped() => return Ok(Copied { rows: copied, complete: false }),
        };
        let Some(chunk) = chunk else { break };
        let rows = match batch {
            Some(rows) => rows,
            None => {
                connection.batch(load).await.context("begin a bulk load")?;
                connection.packets.begin(Message::BulkLoad);
                connection.packets.put(&head).await.context("write rows")?;
                0
            }
        } + chunk.rows;
        batch = Some(rows);
        connection.packets.put(&chunk.bytes).await.context("write rows")?;
        let Some(key) = chunk.key else { continue };
        connection.packets.put(&BULK_END).await.context("write rows")?;
        connection.packets.end().await.context("write rows")?;
        let taken = read_to_end(&mut connection.packets).await.context("write rows")?;
        if taken != rows {
            return Err(Error::new(
                Kind::Other,
                format!("of {rows} rows in a batch the destination took {taken}"),
            ));
        }
        batch = None;
        copied += rows;
        if observer.batch_done(session, copied, &key).await? == ControlFlow::Stop {
            return Ok(Copied { rows: copied, complete: false });
        }
    }
    match batch {
        None => Ok(Copied { rows: copied, complete: true }),
        Some(_) => Err(Error::new(Kind::Cancelled, "the reader stopped")),
    }
}

/// DONE: the last token of a bulk load.
const BULK_END: [u8; 13] = [types::DONE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// COLMETADATA of a bulk load, as the server itself describes the columns.
/// <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/88176081-df75-4b24-bcfb-4c16ff03cbfa>
pub(super) fn bulk_column_metadata(columns: &[WireColumn]) -> Vec<u8> {
    /// nullable, and what says that the column may be written
    const FLAGS_KEPT: u16 = 0x0001 | 0x000C;
    let mut head = vec![types::COLUMNS];
    head.extend_from_slice(&u16::try_from(columns.len()).unwrap_or(u16::MAX).to_le_bytes());
    for column in columns {
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&(column.flags & FLAGS_KEPT).to_le_bytes());
        head.extend_from_slice(&column.ty.info);
        let name = utf16(&column.name);
        head.push(u8::try_from(name.len() / 2).unwrap_or(u8::MAX));
        head.extend_from_slice(&name);
    }
    head
}
