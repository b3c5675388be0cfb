//! The TCP connection under the driver and the copy lane, with limits on the bytes before a login.
//!
//! Data before the login is not trusted: PRELOGIN is not encrypted, so anyone on the network path can
//! answer it, whatever certificate is checked later. The driver reads such an answer to its end
//! before it parses it, and some answers take it time that grows with the square of their length. A
//! server sends little before a login (PRELOGIN under 100 bytes, a certificate chain of a few KB,
//! some messages), so longer answers are an error here. After the login each part of an answer has a limit ([`crate::mssql::connect::budget`]).

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

/// The longest answer to an unencrypted PRELOGIN: one packet of the size before a login has agreed on
/// another.
const PRELOGIN_BYTES_MAX: usize = 4096;
/// The longest of every other answer before a login: certificates, or the login's result with its
/// messages.
const ANSWER_BYTES_MAX: usize = 32 * 1024;
/// All answers before the login together.
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

/// Ends the socket's login limit. The socket itself is owned by the driver or TLS by then.
#[derive(Debug)]
pub(in crate::mssql) struct LoginGuard(Arc<AnswerBudget>);

impl LoginGuard {
    /// Ends the login limit. Later bytes count against the budget that is returned.
    pub fn done(self) -> Arc<AnswerBudget> {
        self.0.logged_in();
        self.0
    }
}

#[derive(Debug)]
struct LoginLimit {
    /// Nothing was sent so far.
    nothing_sent: bool,
    /// Most bytes of the current answer, and those received so far.
    answer_bytes_max: usize,
    answer_bytes: usize,
    /// Bytes of all answers.
    bytes: usize,
}

impl LoginLimit {
    fn new() -> Self {
        LoginLimit {
            nothing_sent: true,
            answer_bytes_max: ANSWER_BYTES_MAX,
            answer_bytes: 0,
            bytes: 0,
        }
    }

    /// Bytes that begin with `first` were sent: the next answer begins, unless they continue the same
    /// request.
    fn sent(&mut self, first: u8) {
        if std::mem::take(&mut self.nothing_sent) {
            self.answer_bytes_max =
                if first == PRELOGIN { PRELOGIN_BYTES_MAX } else { ANSWER_BYTES_MAX };
        } else if self.answer_bytes > 0 {
            (self.answer_bytes, self.answer_bytes_max) = (0, ANSWER_BYTES_MAX);
        }
    }

    fn received(&mut self, bytes: usize) -> io::Result<()> {
        self.answer_bytes += bytes;
        self.bytes += bytes;
        let most = match () {
            () if self.answer_bytes > self.answer_bytes_max => self.answer_bytes_max,
            () if self.bytes > LOGIN_BYTES_MAX => LOGIN_BYTES_MAX,
            () => return Ok(()),
        };
        let message = format!("more than {most} bytes were received before the login was done");
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

    /// Whether the server is on this machine, by the address that was connected to and not by its name:
    /// no other machine can read or change the traffic.
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
            Some(limit) => limit.received(bytes),
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
        // sent in two pieces, with no answer between them
        limit.sent(PRELOGIN);
        limit.sent(0);
        limit.received(PRELOGIN_BYTES_MAX).unwrap();
        assert!(limit.received(1).is_err());
    }

    #[test]
    fn a_chain_of_certificates_is_longer_and_has_an_end() {
        const TLS_HANDSHAKE: u8 = 0x16;
        let mut limit = limit();
        limit.sent(PRELOGIN);
        limit.received(50).unwrap();
        limit.sent(PRELOGIN);
        limit.received(ANSWER_BYTES_MAX).unwrap();
        assert!(limit.received(1).is_err());
        let mut strict = LoginLimit::new();
        strict.sent(TLS_HANDSHAKE);
        strict.received(ANSWER_BYTES_MAX).unwrap();
        assert!(strict.received(1).is_err());
    }

    #[test]
    fn many_answers_have_an_end_too() {
        let mut limit = limit();
        let answers = (0..).take_while(|_| {
            limit.sent(PRELOGIN);
            limit.received(1024).is_ok()
        });
        assert_eq!(answers.count(), LOGIN_BYTES_MAX / 1024);
    }
}
