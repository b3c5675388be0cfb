//! The copy lane: many rows for little CPU, from one server's answer into another's bulk load
//! ([`copy`]), or to be read ([`TdsConnection::rows`]).
//!
//! A driver decodes every cell of a row into a value of its own, and encodes it again. Between two
//! tables of the same shape nothing of that is needed: a cell has the same bytes in a result set
//! and in a bulk load. Staged rows are cast by the source to exactly the types of the staging table
//! (`plan::convert`), so here only their ends are found ([`cell`]). This costs a small part of what
//! a driver costs, and a cell of any size passes through in pieces. Who reads rows sees each cell
//! where it came, and nothing is allocated for it ([`rows`]).
//!
//! It speaks TDS itself, on connections of its own beside the driver's, for exactly four things: a
//! login, a SELECT, one with parameters, and a bulk load. What it cannot do, the driver does
//! ([`super::bulk`], [`super::session`]): logins of the service's account, and columns that come in
//! another type than they are staged in.
//!
//! Both sides of a copy run in one task with a bounded number of bytes between them. A connection
//! whose request was not read to its end is closed with the [`TdsConnection`] that has it; none goes back
//! into a pool.

mod call;
mod cell;
#[cfg(feature = "rustls")]
mod handshake;
mod login;
mod packet;
mod rows;
mod stream;
#[cfg(feature = "rustls")]
mod tls;
mod token;
mod value;

use std::time::Duration;

use tokio::sync::mpsc;

pub use self::rows::Rows;
use self::{
    cell::Transfer,
    login::Login,
    packet::{Message, Packets},
    token::{Token, WireColumn},
};
use super::{
    bulk::{BatchLimit, BatchObserver, ControlFlow, Copied, read_while_written, unless_stopped},
    classify,
    dial::{self, Route},
    endpoint::Endpoint,
    pool::ConnectionPermit,
    reservation::ReservedPermit,
    session::Session,
};
use crate::{
    error::{Context, Error, Kind, Result},
    model::{name::Ident, value::Value},
};

/// What goes from reader to writer at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks between reader and writer.
const CHUNKS_WAITING_MAX: usize = 4;

/// One login of the lane's own.
pub struct TdsConnection {
    packets: Packets,
    /// Given back after the connection is closed.
    _slot: ConnectionPermit,
    _seat: Option<ReservedPermit>,
}

/// What a copy reads and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct CopyStatements<'a> {
    /// One SELECT; more statements may stand around it.
    pub read: &'a str,
    /// An empty SELECT of the columns that are loaded, for their types.
    pub columns: &'a str,
    /// INSERT BULK of these columns.
    pub load: &'a str,
    /// Places of the key among the columns.
    pub key: &'a [usize],
    /// What messages call the columns.
    pub names: &'a [Ident],
}

/// Logs in, with a limit; redirects are followed.
pub(super) async fn connect(
    endpoint: &Endpoint,
    database: &Ident,
    timeout: Duration,
    slot: ConnectionPermit,
) -> Result<TdsConnection> {
    let route = Route::new(endpoint);
    let limit = route.login_time_max();
    match tokio::time::timeout(limit, login_following_redirects(route, database, timeout)).await {
        Ok(packets) => Ok(TdsConnection { packets: packets?, _slot: slot, _seat: None }),
        Err(_) => Err(classify::login_timeout(limit)),
    }
}

async fn login_following_redirects(
    mut route: Route,
    database: &Ident,
    timeout: Duration,
) -> Result<Packets> {
    loop {
        let endpoint = route.endpoint();
        let connected = dial::connect(endpoint).await?;
        match tokio::time::timeout(
            endpoint.connect_timeout,
            login::login(endpoint, database, connected, timeout),
        )
        .await
        {
            Ok(Ok(Login::LoggedIn(packets))) => return Ok(*packets),
            Ok(Ok(Login::Redirected { host, port })) => route.follow_redirect(host, port)?,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(classify::login_timeout(endpoint.connect_timeout)),
        }
    }
}

impl TdsConnection {
    pub(super) fn with_reserved_permit(mut self, seat: ReservedPermit) -> Self {
        self._seat = Some(seat);
        self
    }

    /// The longest wait for an answer's beginning, and for each row or [`CHUNK_BYTES`] of it.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.packets.set_timeout(timeout);
    }

    /// A batch whose results do not matter.
    pub async fn batch(&mut self, sql: &str) -> Result<()> {
        self.send_batch(sql).await?;
        read_to_end(&mut self.packets).await.map(drop)
    }

    /// sp_executesql: the rows of the result set, as they come; `Err` says which column cannot be
    /// read here, and then this line is spent.
    pub async fn rows(
        &mut self,
        sql: &str,
        params: &[&Value],
    ) -> Result<std::result::Result<Rows<'_>, String>> {
        self.packets.begin(Message::Call);
        self.packets.put(&NO_TRANSACTION).await?;
        self.packets.put(&call::executesql(sql, params)).await?;
        self.packets.end().await?;
        let row = self.columns().await?.and_then(|columns| rows::RowParser::new(&columns));
        Ok(row.map(|row| Rows::new(&mut self.packets, row)))
    }

    /// Says goodbye, and waits a moment until the server has heard it.
    pub async fn close(mut self) {
        self.packets.close().await;
    }

    async fn send_batch(&mut self, sql: &str) -> Result<()> {
        self.packets.begin(Message::Batch);
        self.packets.put(&NO_TRANSACTION).await?;
        self.packets.put(&utf16(sql)).await?;
        self.packets.end().await
    }

    /// The columns of the result set that comes next; `Err` says which one is of a type that is not
    /// known here.
    async fn columns(&mut self) -> Result<std::result::Result<Vec<WireColumn>, String>> {
        while let Some(token) = token::next(&mut self.packets).await? {
            match token {
                Token::Columns(columns) => return Ok(Ok(columns)),
                Token::UnknownType(why) => return Ok(Err(why)),
                Token::Error(error) => return Err(error),
                _ => {}
            }
        }
        Err(Error::new(Kind::Other, "the server's answer has no result set"))
    }
}

/// What comes next in an answer.
enum NextToken {
    /// A row begins; it is not consumed.
    Row,
    /// The answer is over; so many rows the last statement counted.
    End(u64),
}

/// Goes on to a row or to the answer's end, past what says nothing here: ORDER stands between the
/// columns and the rows of whatever has an ORDER BY, messages anywhere. An answer that stops before
/// it says that it is done was cut short.
async fn next_row_or_end(packets: &mut Packets) -> Result<NextToken> {
    let (mut counted, mut done, mut other_columns) = (0, false, false);
    while let Some(token) = token::next(packets).await? {
        match token {
            Token::Error(error) => return Err(error),
            Token::Done { failed: true, .. } => {
                return Err(Error::new(Kind::Other, "the server failed without saying why"));
            }
            Token::Done { rows, more, .. } => {
                counted = rows.unwrap_or(counted);
                done = !more;
            }
            Token::Columns(_) => other_columns = true,
            Token::UnknownType(why) => {
                return Err(Error::new(
                    Kind::Other,
                    format!("the server answers with a result set that is not read here: {why}"),
                ));
            }
            Token::Row if other_columns => {
                return Err(Error::new(Kind::Other, "the server answers with a second result set"));
            }
            Token::Row => return Ok(NextToken::Row),
            _ => {}
        }
    }
    if done {
        Ok(NextToken::End(counted))
    } else {
        Err(classify::protocol_error("an answer ends without DONE"))
    }
}

/// Whether a row comes next, or the answer's end.
async fn has_next_row(packets: &mut Packets) -> Result<bool> {
    // mostly it is here
    Ok(matches!(packets.buffered().first(), Some(&(token::ROW | token::NBC_ROW)))
        || matches!(next_row_or_end(packets).await?, NextToken::Row))
}

/// The answer's rest, to its end: the rows that the last statement counted.
async fn read_to_end(packets: &mut Packets) -> Result<u64> {
    match next_row_or_end(packets).await? {
        NextToken::End(counted) => Ok(counted),
        NextToken::Row => {
            Err(Error::new(Kind::Other, "the server answers with rows where none are expected"))
        }
    }
}

/// In one piece: a text that is secret leaves no shorter copy behind.
fn utf16(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 * text.len());
    bytes.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    bytes
}

/// ALL_HEADERS: no transaction of ours is open, one request at a time.
/// <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/e17e54ae-0fac-48b7-b8a8-c267be297923>
const NO_TRANSACTION: [u8; 22] =
    [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// A part of the rows.
struct RowsChunk {
    /// ROW tokens; the last one may go on in the next chunk.
    bytes: Vec<u8>,
    /// Rows that end in this chunk.
    rows: u64,
    /// A batch ends here, with a row of this key.
    key: Option<Vec<Value>>,
}

/// Copies what `way` reads at `source` into a bulk load per batch at `dest`; `Ok(Err(why))` when
/// columns cannot go as they are, before anything was written. `boundary` is told of every batch,
/// with `session`.
///
/// Both lines are spent afterwards, whatever the end.
pub async fn copy(
    mut source: TdsConnection,
    mut dest: TdsConnection,
    way: CopyStatements<'_>,
    limit: BatchLimit,
    session: &mut Session,
    boundary: &mut impl BatchObserver,
) -> Result<std::result::Result<Copied, String>> {
    dest.send_batch(way.columns).await?;
    let to = match dest.columns().await.context("read the staging table's columns")? {
        Ok(columns) => columns,
        Err(why) => return Ok(Err(why)),
    };
    read_to_end(&mut dest.packets).await?;
    let first = async {
        source.send_batch(way.read).await?;
        source.columns().await
    };
    let Some(from) = unless_stopped(boundary, first).await else {
        return Ok(Ok(Copied { rows: 0, complete: false }));
    };
    let from = from.context("read source rows")?;
    let transfer = match from.and_then(|from| {
        Transfer::new(&from, &to, way.key).map_err(|unfit| unfit.message(way.names))
    }) {
        Ok(transfer) => transfer,
        Err(why) => return Ok(Err(why)),
    };
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    let (read, written) = read_while_written(
        read(&mut source, transfer, limit, sender),
        write(&mut dest, &to, way.load, receiver, session, boundary),
    )
    .await;
    // a reader that failed cuts the writer off, whose own end says nothing then
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
    line: &mut TdsConnection,
    mut transfer: Transfer,
    limit: BatchLimit,
    sender: mpsc::Sender<RowsChunk>,
) -> Result<()> {
    let packets = &mut line.packets;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    // of the chunk, and of the batch
    let (mut rows, mut batch_rows, mut batch_bytes) = (0u64, 0usize, 0usize);
    let gone = |_| Error::new(Kind::Cancelled, "the writer stopped");
    loop {
        // a batch is ended by the answer's end, and by nothing that was cut off before it
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
            // what is here of a cell is too little of it
            packets.read_more().await.context("read source rows")?;
        }
    }
    if batch_rows > 0 {
        sender.send(RowsChunk { bytes, rows, key: Some(transfer.key()?) }).await.map_err(gone)?;
    }
    Ok(())
}

async fn write(
    line: &mut TdsConnection,
    columns: &[WireColumn],
    load: &str,
    mut receiver: mpsc::Receiver<RowsChunk>,
    session: &mut Session,
    boundary: &mut impl BatchObserver,
) -> Result<Copied> {
    let head = bulk_column_metadata(columns);
    let mut copied = 0;
    let mut batch = None;
    loop {
        let chunk = tokio::select! {
            chunk = receiver.recv() => chunk,
            // what is loaded of a batch goes with the connection
            () = boundary.stopped() => return Ok(Copied { rows: copied, complete: false }),
        };
        let Some(chunk) = chunk else { break };
        let rows = match batch {
            Some(rows) => rows,
            None => {
                line.batch(load).await.context("begin a bulk load")?;
                line.packets.begin(Message::BulkLoad);
                line.packets.put(&head).await.context("write rows")?;
                0
            }
        } + chunk.rows;
        batch = Some(rows);
        line.packets.put(&chunk.bytes).await.context("write rows")?;
        let Some(key) = chunk.key else { continue };
        line.packets.put(&BULK_END).await.context("write rows")?;
        line.packets.end().await.context("write rows")?;
        let taken = read_to_end(&mut line.packets).await.context("write rows")?;
        if taken != rows {
            return Err(Error::new(
                Kind::Other,
                format!("of {rows} rows in a batch the destination took {taken}"),
            ));
        }
        batch = None;
        copied += rows;
        if boundary.batch_done(session, copied, &key).await? == ControlFlow::Stop {
            return Ok(Copied { rows: copied, complete: false });
        }
    }
    match batch {
        None => Ok(Copied { rows: copied, complete: true }),
        Some(_) => Err(Error::new(Kind::Cancelled, "the reader stopped")),
    }
}

/// DONE: the last token of a bulk load.
const BULK_END: [u8; 13] = [token::DONE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// COLMETADATA of a bulk load, as the server itself describes the columns.
/// <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/88176081-df75-4b24-bcfb-4c16ff03cbfa>
fn bulk_column_metadata(columns: &[WireColumn]) -> Vec<u8> {
    /// nullable, and what says that the column may be written
    const FLAGS_KEPT: u16 = 0x0001 | 0x000C;
    let mut head = vec![token::COLUMNS];
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

#[cfg(all(test, feature = "rustls"))]
mod tests;
