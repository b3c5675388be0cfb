//! Before TDS 8.0 the TLS handshake is inside of PRELOGIN packets; the TLS records after it are not.
//! <https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/60f56408-0188-4cd5-8b90-25c6f2423868>

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::header::{END_OF_MESSAGE, HEADER_BYTES, Message, PACKET_BYTES_FIRST};
use crate::mssql::connect::socket::Socket;

/// TCP that wraps what is written into PRELOGIN packets, and unwraps what is read, until
/// [`Handshake::finish`].
pub(super) struct Handshake {
    tcp: Socket,
    wrapping: bool,
    /// Written, and not yet in a packet.
    plain: Vec<u8>,
    /// Packets that are not sent yet, from `sent` on.
    packets: Vec<u8>,
    sent: usize,
    header: [u8; HEADER_BYTES],
    header_read: usize,
    /// Bytes of the packet that is being read.
    left: usize,
}

impl Handshake {
    /// `wrapping`: not in TDS 8.0, which begins with TLS.
    pub fn new(tcp: Socket, wrapping: bool) -> Self {
        Handshake {
            tcp,
            wrapping,
            plain: Vec::new(),
            packets: Vec::new(),
            sent: 0,
            header: [0; HEADER_BYTES],
            header_read: 0,
            left: 0,
        }
    }

    /// The handshake is done.
    pub fn finish(&mut self) {
        self.wrapping = false;
    }

    /// The connection without TLS, when only the login is encrypted.
    pub fn into_socket(self) -> Socket {
        self.tcp
    }

    fn wrap(&mut self) {
        let mut chunks = self.plain.chunks(PACKET_BYTES_FIRST - HEADER_BYTES).peekable();
        while let Some(chunk) = chunks.next() {
            let status = if chunks.peek().is_none() { END_OF_MESSAGE } else { 0 };
            let length =
                u16::try_from(chunk.len() + HEADER_BYTES).unwrap_or(u16::MAX).to_be_bytes();
            self.packets.extend_from_slice(&[
                Message::PreLogin as u8,
                status,
                length[0],
                length[1],
                0,
                0,
                1,
                0,
            ]);
            self.packets.extend_from_slice(chunk);
        }
        self.plain.clear();
    }
}

impl AsyncRead for Handshake {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.wrapping {
            return Pin::new(&mut this.tcp).poll_read(context, buffer);
        }
        while this.left == 0 {
            let mut header = ReadBuf::new(&mut this.header[this.header_read..]);
            ready!(Pin::new(&mut this.tcp).poll_read(context, &mut header))?;
            let read = header.filled().len();
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            this.header_read += read;
            if this.header_read == HEADER_BYTES {
                this.header_read = 0;
                this.left = usize::from(u16::from_be_bytes([this.header[2], this.header[3]]))
                    .saturating_sub(HEADER_BYTES);
            }
        }
        let room = buffer.remaining().min(this.left);
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.tcp).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        this.left -= read;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Handshake {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.wrapping {
            return Pin::new(&mut this.tcp).poll_write(context, bytes);
        }
        this.plain.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.wrap();
        while this.sent < this.packets.len() {
            let sent =
                ready!(Pin::new(&mut this.tcp).poll_write(context, &this.packets[this.sent..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.sent += sent;
        }
        this.packets.clear();
        this.sent = 0;
        Pin::new(&mut this.tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}
