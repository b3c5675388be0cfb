//! TDS packets: a message is cut into packets of a negotiated size, each with a header of eight
//! bytes.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/e5ea8520-1ea3-4a75-a2a9-c17e63e9ee19>

use super::{
    header::{ANSWER, END_OF_MESSAGE, HEADER_BYTES, Message, PACKET_BYTES_FIRST},
    stream::TdsStream,
    token::{self, ColumnList, Token},
};
use crate::{
    error::{Error, Kind, Result},
    mssql::{
        classify::{self, protocol_error},
        connect::budget::{AnswerBudget, AnswerPart},
        timeout::with_lazy_timeout,
    },
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use zeroize::{Zeroize, Zeroizing};

/// How much of a long row is passed on at a time.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;
/// One read from the network: several packets of the usual sizes.
const READ_BYTES: usize = 64 * 1024;

/// How long to read on for the server's error after a send has failed: it has been sent before the
/// connection was closed.
const PENDING_ERROR_TIME_MAX: Duration = Duration::from_secs(1);
/// The longest token that is waited for; rows are not read as tokens. A list of as many columns as
/// there may be, with names as long as they may be, is shorter.
const TOKEN_BYTES_MAX: usize = 8 << 20;
/// Buffer capacity that is kept after a long row.
const ANSWER_KEPT_BYTES: usize = 1 << 20;

/// A connection's packets, one message at a time: it is sent to its end, then its answer is read to
/// its end.
pub(super) struct Packets {
    stream: TdsStream,
    packet_bytes: usize,
    timeout: Duration,
    /// When the wait for the current part of the answer began; `None`: it begins with the next read.
    waiting_since: Option<Instant>,
    /// `server/database`, for messages; empty before the login.
    server_database: String,
    /// Limits the bytes of the answer; `None` before the login.
    budget: Option<Arc<AnswerBudget>>,
    /// Rows of the answer that were returned.
    rows: u64,
    /// Received bytes that are not unpacked yet: `raw[raw_at..raw_end]`.
    raw: Box<[u8]>,
    raw_at: usize,
    raw_end: usize,
    /// Bytes of the current packet that are still to come.
    left: usize,
    /// The current packet is the answer's last.
    last: bool,
    /// The unpacked answer; the bytes up to `at` are consumed.
    answer: Vec<u8>,
    at: usize,
    /// The packet that is being filled, with room for its header. A login's has a password.
    out: Zeroizing<Vec<u8>>,
    message: Message,
    number: u8,
}

impl Packets {
    pub fn new(stream: TdsStream, timeout: Duration) -> Self {
        Packets {
            stream,
            packet_bytes: PACKET_BYTES_FIRST,
            timeout,
            waiting_since: None,
            server_database: String::new(),
            budget: None,
            rows: 0,
            raw: vec![0; READ_BYTES].into_boxed_slice(),
            raw_at: 0,
            raw_end: 0,
            left: 0,
            last: true,
            answer: Vec::new(),
            at: 0,
            out: Zeroizing::new(Vec::with_capacity(PACKET_BYTES_FIRST)),
            message: Message::PreLogin,
            number: 0,
        }
    }

    /// The login is done; `place` is what messages call the server.
    pub fn logged_in(&mut self, place: String, budget: Arc<AnswerBudget>) {
        self.server_database = place;
        self.budget = Some(budget);
    }

    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The size that the server has chosen, between the protocol's smallest and `most`.
    pub fn set_packet_bytes(&mut self, bytes: usize, most: u32) {
        const LEAST: usize = 512;
        self.packet_bytes = bytes.clamp(LEAST, usize::try_from(most).unwrap_or(LEAST));
    }

    pub fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted()
    }

    /// The same connection over another stream (TLS has begun, or ended).
    pub fn map_stream(self, stream: impl FnOnce(TdsStream) -> TdsStream) -> Self {
        Packets { stream: stream(self.stream), ..self }
    }

    /// The bare stream, to begin TLS in it.
    pub fn into_stream(self) -> TdsStream {
        self.stream
    }

    /// Closes the connection and waits up to a second for the server to close its side, so that the
    /// server does not count it any more.
    pub async fn close(&mut self) {
        const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
        let closing = async {
            self.stream.shutdown().await?;
            while self.stream.read(&mut self.raw).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        // a server that does not answer is reset when the stream is dropped
        let _ = tokio::time::timeout(CLOSE_TIME_MAX, closing).await;
    }

    /// Begins a message.
    pub fn begin(&mut self, message: Message) {
        self.message = message;
        self.number = 0;
        self.out.clear();
        self.out.resize(HEADER_BYTES, 0);
    }

    /// Adds to the message, and sends what fills a packet. The last packet is left for
    /// [`Packets::end`].
    pub async fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.out.len() == self.packet_bytes {
                self.send(0).await?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.packet_bytes - self.out.len()));
            self.out.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Ends the message; its answer is read next.
    pub async fn end(&mut self) -> Result<()> {
        self.send(END_OF_MESSAGE).await?;
        self.begin_answer();
        Ok(())
    }

    /// Overwrites what was sent last.
    pub fn forget_sent(&mut self) {
        self.out.zeroize();
    }

    fn begin_answer(&mut self) {
        self.last = false;
        self.left = 0;
        self.rows = 0;
        self.restart_limits();
    }

    /// Sends a packet, and waits until the network has taken it. With TLS the next one would
    /// otherwise be cut where the room for records ends, and SQL Server closes a connection that
    /// has a packet in two records. <https://github.com/dotnet/SqlClient/issues/2141>,
    /// <https://github.com/tediousjs/tedious/pull/932>
    async fn send(&mut self, status: u8) -> Result<()> {
        self.number = self.number.wrapping_add(1);
        let length = u16::try_from(self.out.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.out[..HEADER_BYTES].copy_from_slice(&[
            self.message as u8,
            status,
            length[0],
            length[1],
            0,
            0,
            self.number,
            0,
        ]);
        let Packets { stream, out, timeout, .. } = self;
        let sent = async {
            stream.write_all(out).await?;
            stream.flush().await
        };
        match with_lazy_timeout(*timeout, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.pending_error(io_error(error)).await),
            Err(_) => return Err(timeout_error()),
        }
        self.out.truncate(HEADER_BYTES);
        Ok(())
    }

    /// The server's error that explains a failed send, if there is one: after an error of severity 20
    /// and above the server stops reading.
    async fn pending_error(&mut self, broken: Error) -> Error {
        self.answer.clear();
        self.at = 0;
        self.begin_answer();
        let error = async {
            while let Ok(Some(token)) = self.next_token().await {
                if let Token::Error(error) = token {
                    return Some(error);
                }
            }
            None
        };
        tokio::time::timeout(PENDING_ERROR_TIME_MAX, error).await.ok().flatten().unwrap_or(broken)
    }

    /// The next token; `None` at the answer's end.
    pub async fn next_token(&mut self) -> Result<Option<Token>> {
        let mut list = ColumnList::default();
        loop {
            if self.is_over() {
                return Ok(None);
            }
            let buffered = self.buffered();
            if let Some((token, bytes)) = token::parse(buffered, &mut list)? {
                self.consume(bytes);
                self.restart_timeout();
                return Ok(Some(token));
            }
            if buffered.len() > TOKEN_BYTES_MAX {
                return Err(protocol_error("a token without an end"));
            }
            self.read_more().await?;
        }
    }

    /// Bytes of the answer that have arrived and are not consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.answer[self.at..]
    }

    pub fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.answer.len());
    }

    /// Whether the whole answer has arrived.
    pub fn is_whole(&self) -> bool {
        self.last && self.left == 0
    }

    /// Whether the answer was read to its end.
    pub fn is_over(&self) -> bool {
        self.is_whole() && self.at == self.answer.len()
    }

    /// Starts the timeout again, after a part of the answer has arrived: a token, a row, or a chunk of
    /// a row. It does not start again with every byte, or a network that lets a byte through now and
    /// then would keep us waiting for days. Time between two reads counts too.
    pub fn restart_timeout(&mut self) {
        self.waiting_since = None;
    }

    /// Starts the timeout and the byte limit again, after received data was passed on.
    pub fn restart_limits(&mut self) {
        self.restart_timeout();
        if let Some(budget) = &self.budget {
            budget.reset(AnswerPart::Row(self.rows));
        }
    }

    /// The row that is being read, for messages.
    pub fn row_description(&self) -> String {
        AnswerPart::Row(self.rows).description(&self.server_database)
    }

    /// A row has arrived completely.
    pub fn row_done(&mut self) {
        self.rows += 1;
        self.restart_limits();
    }

    /// Waits for more of the answer; an error when it has already ended.
    pub async fn read_more(&mut self) -> Result<()> {
        self.answer.drain(..self.at);
        self.at = 0;
        if self.answer.len() < ANSWER_KEPT_BYTES {
            self.answer.shrink_to(ANSWER_KEPT_BYTES);
        }
        while !self.unpack()? {
            if self.is_whole() {
                return Err(protocol_error("an answer ends in the middle"));
            }
            self.raw.copy_within(self.raw_at..self.raw_end, 0);
            self.raw_end -= self.raw_at;
            self.raw_at = 0;
            let left = self
                .timeout
                .saturating_sub(self.waiting_since.get_or_insert_with(Instant::now).elapsed());
            if left.is_zero() {
                return Err(timeout_error());
            }
            let read = with_lazy_timeout(left, self.stream.read(&mut self.raw[self.raw_end..]))
                .await
                .map_err(|_| timeout_error())?
                .map_err(|error| self.read_error(error))?;
            if read == 0 {
                return Err(Error::new(Kind::Connection, "the server closed the connection"));
            }
            self.raw_end += read;
        }
        Ok(())
    }

    fn read_error(&self, error: io::Error) -> Error {
        match &self.budget {
            Some(budget) if budget.is_exceeded() => {
                AnswerPart::Row(self.rows).too_large(&self.server_database)
            }
            _ => io_error(error),
        }
    }

    /// Unpacks the received packets; `false` when that adds nothing to the answer.
    fn unpack(&mut self) -> Result<bool> {
        let before = self.answer.len();
        loop {
            if self.left == 0 {
                let here = &self.raw[self.raw_at..self.raw_end];
                if self.last || here.len() < HEADER_BYTES {
                    break;
                }
                let length = usize::from(u16::from_be_bytes([here[2], here[3]]));
                if here[0] != ANSWER || length < HEADER_BYTES {
                    return Err(protocol_error("a packet is not part of an answer"));
                }
                self.left = length - HEADER_BYTES;
                self.last = here[1] & END_OF_MESSAGE != 0;
                self.raw_at += HEADER_BYTES;
            }
            let now = self.left.min(self.raw_end - self.raw_at);
            self.answer.extend_from_slice(&self.raw[self.raw_at..self.raw_at + now]);
            self.raw_at += now;
            self.left -= now;
            if self.left > 0 {
                break;
            }
        }
        Ok(self.answer.len() > before)
    }
}

fn timeout_error() -> Error {
    classify::io_error(io::ErrorKind::TimedOut, "")
}

pub(super) fn io_error(error: io::Error) -> Error {
    classify::io_error(error.kind(), &error.to_string())
}
