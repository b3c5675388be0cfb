//! The byte stream under the packets: TCP, with or without TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(feature = "rustls")]
use super::handshake::Handshake;
use crate::mssql::connect::socket::Socket;

/// When TLS begins, and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsScope {
    /// From the first byte on: TDS 8.0.
    All,
    /// From PRELOGIN on.
    Session,
    /// For the login alone.
    Login,
}

pub(super) enum TdsStream {
    Bare(Socket),
    #[cfg(feature = "rustls")]
    Tls(Box<tokio_rustls::client::TlsStream<Handshake>>),
}

impl TdsStream {
    pub fn is_encrypted(&self) -> bool {
        !matches!(self, TdsStream::Bare(_))
    }
}

macro_rules! either {
    ($stream:expr, $inner:ident => $do:expr) => {
        match $stream.get_mut() {
            TdsStream::Bare($inner) => $do,
            #[cfg(feature = "rustls")]
            TdsStream::Tls($inner) => $do,
        }
    };
}

impl AsyncRead for TdsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for TdsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => Pin::new(inner).poll_shutdown(context))
    }
}
