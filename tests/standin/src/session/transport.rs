//! The stream a connection runs on, in the clear or in TLS.
//!
//! With TLS, SQL Server wants each packet whole in a record of its own, up to 7.4 and in 8.0: it
//! closes a connection whose packet comes in two records. Clients have found that out one after the
//! other: <https://github.com/dotnet/SqlClient/issues/2141>,
//! <https://github.com/denisenkom/go-mssqldb/issues/166>,
//! <https://github.com/tediousjs/tedious/issues/923>,
//! <https://github.com/eclipse-vertx/vertx-sql-client/pull/1438>.

use crate::tds::{packet::HEADER_BYTES, tls::PreloginStream};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<Records>),
}

/// A client's TLS, record by record.
#[derive(Debug)]
pub(super) struct Records {
    tls: TlsStream<PreloginStream<TcpStream>>,
    /// Bytes of the current record that were not read yet.
    left: usize,
}

impl Records {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // what one record held, or is left of it
        let here = ready!(Pin::new(&mut self.tls).poll_fill_buf(cx))?;
        if self.left == 0 {
            self.left = one_packet(here)?;
        }
        let count = here.len().min(buf.remaining());
        buf.put_slice(&here[..count]);
        Pin::new(&mut self.tls).consume(count);
        self.left -= count;
        Poll::Ready(Ok(()))
    }
}

/// A record's length, when it is exactly one packet (or the end, which is none).
fn one_packet(record: &[u8]) -> io::Result<usize> {
    let told = match record {
        [] => 0,
        [_, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])).max(HEADER_BYTES),
        _ => HEADER_BYTES,
    };
    if told == record.len() {
        return Ok(told);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a TLS record of {} bytes with a packet of {told}", record.len()),
    ))
}

impl Transport {
    pub(super) fn encrypted(tls: TlsStream<PreloginStream<TcpStream>>) -> Self {
        Self::Tls(Box::new(Records { tls, left: 0 }))
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The bare stream again: what follows a login that alone was to be encrypted.
    pub(super) fn without_tls(self) -> Self {
        match self {
            Self::Plain(tcp) => Self::Plain(tcp),
            Self::Tls(records) => Self::Plain(records.tls.into_inner().0.into_inner()),
        }
    }

    /// The next close is a reset: what is still to be sent is thrown away.
    pub(super) fn reset_on_close(&self) -> io::Result<()> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(records) => records.tls.get_ref().0.get_ref(),
        };
        tcp.set_zero_linger()
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(records) => records.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(records) => Pin::new(&mut records.tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(records) => Pin::new(&mut records.tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(records) => Pin::new(&mut records.tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_one_packet_and_nothing_else() {
        let packet = [1, 1, 0, 10, 0, 0, 1, 0, b'a', b'b'];
        assert_eq!(one_packet(&packet).expect("a packet"), 10);
        assert_eq!(one_packet(&[]).expect("the end"), 0);
        for cut in 1..packet.len() {
            assert!(one_packet(&packet[..cut]).is_err(), "{cut} bytes of a packet");
        }
        assert!(one_packet(&[packet, packet].concat()).is_err());
    }
}
