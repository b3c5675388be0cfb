//! The TCP connection under the driver and under the copy lane, with a limit on what comes before a
//! login.
//!
//! Until a login is done nothing of what comes is believed: PRELOGIN travels in the clear, so
//! anybody on the path can answer it, whatever certificate is checked later. The driver reads such
//! an answer to its end before it looks at it, and some answers cost it time that grows with the
//! square of their length. A server says little before a login (PRELOGIN under 100 bytes, a chain
//! of certificates of a few KB, some messages), so what is longer is an error here, for driver and
//! lane alike. After the login each part of an answer has a limit ([`crate::mssql::connect::budget`]).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::mssql::connect::budget::AnswerBudget;

/// The longest answer to a PRELOGIN in the clear: one packet of the size that counts before a login
/// has agreed on another.
const PRELOGIN_BYTES_MAX: usize = 4096;
/// The longest of every other answer before a login: certificates, and what a server tells with its
/// yes or no.
const ANSWER_BYTES_MAX: usize = 32 * 1024;
/// All of them together.
const LOGIN_BYTES_MAX: usize = 128 * 1024;
/// The type of a PRELOGIN packet. TDS 8.0 begins with TLS instead.
const PRELOGIN: u8 = 0x12;

/// A TCP connection to a server.
#[derive(Debug)]
pub(in crate::mssql) struct Socket {
    tcp: TcpStream,
    peer: SocketAddr,
    /// `None` after the login.
    limit: Option<LoginLimit>,
    budget: Arc<AnswerBudget>,
}

/// Ends a socket's limit for the login, wherever the socket is by then.
#[derive(Debug)]
pub(in crate::mssql) struct LoginGuard(Arc<AnswerBudget>);

impl LoginGuard {
    /// The login is done: what comes from now on counts against the budget that is returned.
    pub fn done(self) -> Arc<AnswerBudget> {
        self.0.logged_in();
        self.0
    }
}

#[derive(Debug)]
struct LoginLimit {
    /// Nothing was sent yet.
    silent: bool,
    /// Most bytes of the current answer, and those that came.
    answer_bytes_max: usize,
    answer_bytes: usize,
    /// Of all answers.
    bytes: usize,
}

impl LoginLimit {
    fn new() -> Self {
        LoginLimit { silent: true, answer_bytes_max: ANSWER_BYTES_MAX, answer_bytes: 0, bytes: 0 }
    }

    /// Bytes were sent, which begin with `first`: another answer is to come, unless this is more of
    /// the same question.
    fn sent(&mut self, first: u8) {
        if std::mem::take(&mut self.silent) {
            self.answer_bytes_max =
                if first == PRELOGIN { PRELOGIN_BYTES_MAX } else { ANSWER_BYTES_MAX };
        } else if self.answer_bytes > 0 {
            (self.answer_bytes, self.answer_bytes_max) = (0, ANSWER_BYTES_MAX);
        }
    }

    fn came(&mut self, bytes: usize) -> io::Result<()> {
        self.answer_bytes += bytes;
        self.bytes += bytes;
        let most = match () {
            () if self.answer_bytes > self.answer_bytes_max => self.answer_bytes_max,
            () if self.bytes > LOGIN_BYTES_MAX => LOGIN_BYTES_MAX,
            () => return Ok(()),
        };
        let message = format!(
            "before the login was done, more than {most} bytes came where a server has little to say"
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, message))
    }
}

impl Socket {
    pub fn new(tcp: TcpStream) -> io::Result<(Self, LoginGuard)> {
        let peer = tcp.peer_addr()?;
        let budget = Arc::new(AnswerBudget::new());
        let socket = Socket { tcp, peer, limit: Some(LoginLimit::new()), budget: budget.clone() };
        Ok((socket, LoginGuard(budget)))
    }

    /// Whether it ends on this machine, by the address that was dialled and not by its name: nobody
    /// can sit in between.
    pub fn is_loopback(&self) -> bool {
        self.peer.ip().to_canonical().is_loopback()
    }

    fn limit(&mut self) -> Option<&mut LoginLimit> {
        if self.limit.is_some() && self.budget.is_logged_in() {
            self.limit = None;
        }
        self.limit.as_mut()
    }

    fn sent(&mut self, first: Option<u8>) {
        if let Some(first) = first
            && let Some(limit) = self.limit()
        {
            limit.sent(first);
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.tcp).poll_read(context, buffer))?;
        let bytes = buffer.filled().len() - before;
        Poll::Ready(match this.limit() {
            Some(limit) => limit.came(bytes),
            None => this.budget.received(bytes),
        })
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.sent(bytes.first().copied());
        Pin::new(&mut this.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.sent(pieces.iter().find_map(|piece| piece.first()).copied());
        Pin::new(&mut this.tcp).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> LoginLimit {
        LoginLimit::new()
    }

    #[test]
    fn the_answer_to_a_prelogin_in_the_clear_is_one_packet() {
        let mut limit = limit();
        // in two pieces, between which nothing came
        limit.sent(PRELOGIN);
        limit.sent(0);
        limit.came(PRELOGIN_BYTES_MAX).unwrap();
        assert!(limit.came(1).is_err());
    }

    #[test]
    fn a_chain_of_certificates_is_longer_and_has_an_end() {
        const TLS_HANDSHAKE: u8 = 0x16;
        let mut limit = limit();
        limit.sent(PRELOGIN);
        limit.came(50).unwrap();
        limit.sent(PRELOGIN);
        limit.came(ANSWER_BYTES_MAX).unwrap();
        assert!(limit.came(1).is_err());
        let mut strict = LoginLimit::new();
        strict.sent(TLS_HANDSHAKE);
        strict.came(ANSWER_BYTES_MAX).unwrap();
        assert!(strict.came(1).is_err());
    }

    #[test]
    fn many_answers_have_an_end_too() {
        let mut limit = limit();
        let answers = (0..).take_while(|_| {
            limit.sent(PRELOGIN);
            limit.came(1024).is_ok()
        });
        assert_eq!(answers.count(), LOGIN_BYTES_MAX / 1024);
    }
}
