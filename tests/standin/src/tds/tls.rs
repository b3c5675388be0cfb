//! TLS, in the two ways TDS has it (3.2.5.1): up to 7.4 the handshake travels inside PRELOGIN
//! packets and the records that follow stand alone; in 8.0 TLS comes first and everything is inside
//! it.
//!
//! Up to 7.4 only TLS 1.2 is offered: after its last handshake message a TLS 1.3 server may still
//! send session tickets, and the two sides would not agree on whether those are wrapped.

use super::packet::{HEADER_BYTES, PACKET_BYTES_DEFAULT, kind, status};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A flight longer than this goes out in several messages.
const FLIGHT_BYTES_MAX: usize = 64 * 1024;

/// ALPN of TDS 8.0.
const ALPN: &[u8] = b"tds/8.0";

/// A server's certificate, and what follows from it.
#[derive(Clone)]
pub struct TlsIdentity {
    /// in PEM, for a client to trust
    pub certificate_pem: String,
    /// TLS 1.2 inside PRELOGIN
    pub wrapped: Arc<ServerConfig>,
    /// TDS 8.0
    pub strict: Arc<ServerConfig>,
}

impl TlsIdentity {
    /// A certificate of its own for `localhost` and `127.0.0.1`, as SQL Server makes one for itself
    /// at start.
    pub fn self_signed(version_1: bool) -> io::Result<Self> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        if version_1 {
            Self::version_1(&certificate, &key)
        } else {
            Self::from_pem(&certificate, &key)
        }
    }

    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> io::Result<Self> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(io::Error::other)?;
        Self::of(certificate_pem, key_pem, chain)
    }

    /// A certificate as one of X.509 version 1, which those that SQL Server makes for itself often
    /// are. (The signature does not fit it any more: whoever looks at that has refused the version
    /// before.)
    fn version_1(certificate_pem: &str, key_pem: &str) -> io::Result<Self> {
        const VERSION_3: [u8; 5] = [0xA0, 0x03, 0x02, 0x01, 0x02];
        let mut der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(io::Error::other)?
            .to_vec();
        let at = der
            .windows(VERSION_3.len())
            .position(|bytes| bytes == VERSION_3)
            .ok_or(io::ErrorKind::InvalidData)?;
        der[at + VERSION_3.len() - 1] = 0;
        Self::of(certificate_pem, key_pem, vec![CertificateDer::from(der)])
    }

    fn of(
        certificate_pem: &str,
        key_pem: &str,
        chain: Vec<CertificateDer<'static>>,
    ) -> io::Result<Self> {
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(io::Error::other)?;
        // Nothing looks into the certificate: SQL Server sends one of any version.
        let key = ring::sign::any_supported_type(&key).map_err(io::Error::other)?;
        let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        let config = |versions: &[&'static rustls::SupportedProtocolVersion]| {
            ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(versions)
                .map(|builder| builder.with_no_client_auth().with_cert_resolver(certified.clone()))
                .map_err(io::Error::other)
        };
        let wrapped = config(&[&rustls::version::TLS12])?;
        let mut strict = config(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        strict.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            wrapped: Arc::new(wrapped),
            strict: Arc::new(strict),
        })
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsIdentity")
    }
}

/// A stream whose bytes are wrapped in PRELOGIN packets until
/// [`PreloginStream::unwrap_from_now_on`].
#[derive(Debug)]
pub struct PreloginStream<S> {
    inner: S,
    wrapped: bool,
    head: [u8; HEADER_BYTES],
    head_got: usize,
    /// payload bytes of the packet being read that are still to come
    left: usize,
    /// a flight that is being collected, not wrapped yet
    flight: Vec<u8>,
    out: Vec<u8>,
    out_at: usize,
}

impl<S> PreloginStream<S> {
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            wrapped: true,
            head: [0; HEADER_BYTES],
            head_got: 0,
            left: 0,
            flight: Vec::new(),
            out: Vec::new(),
            out_at: 0,
        }
    }

    pub fn unwrap_from_now_on(&mut self) {
        self.wrapped = false;
    }

    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PreloginStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.wrapped {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        while this.left == 0 {
            let mut head = ReadBuf::new(&mut this.head[this.head_got..]);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut head))?;
            let got = head.filled().len();
            if got == 0 {
                return Poll::Ready(Ok(()));
            }
            this.head_got += got;
            if this.head_got == HEADER_BYTES {
                let length = usize::from(u16::from_be_bytes([this.head[2], this.head[3]]));
                if this.head[0] != kind::PRELOGIN || length < HEADER_BYTES {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a TLS handshake outside PRELOGIN packets",
                    )));
                }
                this.head_got = 0;
                this.left = length - HEADER_BYTES;
            }
        }
        let room = this.left.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        let got = part.filled().len();
        buf.advance(got);
        this.left -= got;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> PreloginStream<S> {
    /// A flight is one message: Microsoft's ODBC driver reads a message, hands it to its TLS, and
    /// takes what follows for another step.
    fn wrap_flight(&mut self) {
        let mut chunks = self.flight.chunks(PACKET_BYTES_DEFAULT - HEADER_BYTES).peekable();
        while let Some(chunk) = chunks.next() {
            let last = if chunks.peek().is_none() { status::END_OF_MESSAGE } else { 0 };
            self.out.extend_from_slice(&[kind::PRELOGIN, last]);
            self.out.extend_from_slice(&((chunk.len() + HEADER_BYTES) as u16).to_be_bytes());
            self.out.extend_from_slice(&[0, 0, 1, 0]);
            self.out.extend_from_slice(chunk);
        }
        self.flight.clear();
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out_at < self.out.len() {
            let wrote = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out[self.out_at..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out_at += wrote;
        }
        self.out.clear();
        self.out_at = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PreloginStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.wrapped {
            return Pin::new(&mut this.inner).poll_write(cx, bytes);
        }
        // Sent by flush; a certificate chain is the longest there is to collect.
        if this.flight.len() > FLIGHT_BYTES_MAX {
            this.wrap_flight();
            ready!(this.poll_drain(cx))?;
        }
        this.flight.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.wrap_flight();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.wrap_flight();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
