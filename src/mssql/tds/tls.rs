//! TLS with the same trust as in the driver: the machine's authorities, and the file that is
//! configured.

use std::{io, path::Path, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
        version::{TLS12, TLS13},
    },
};

use super::{
    handshake::Handshake,
    stream::{TdsStream, TlsScope},
};
use crate::{
    error::Result,
    mssql::{
        classify::tls_failed,
        connect::{
            certificate,
            endpoint::{Endpoint, Trust},
        },
    },
};

/// The protocol's name in TLS since TDS 8.0.
const TDS_8: &[u8] = b"tds/8.0";

/// Begins TLS in a bare stream.
pub(super) async fn start(
    endpoint: &Endpoint,
    stream: TdsStream,
    span: TlsScope,
) -> Result<TdsStream> {
    let TdsStream::Bare(socket) = stream else { return Ok(stream) };
    let trust_any = endpoint.trust.trusts_any_certificate(socket.is_loopback());
    let authority = match &endpoint.trust {
        Trust::Authority(file) => Some(file.as_path()),
        _ => None,
    };
    let config = config(trust_any, authority, span)?;
    let host = if trust_any { &endpoint.host } else { endpoint.certificate_name()? };
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        // the name is not checked
        Err(_) if trust_any => ServerName::from(std::net::Ipv4Addr::LOCALHOST),
        Err(_) => {
            return Err(tls_failed(&format!("{host} is no name that a certificate could have")));
        }
    };
    let handshake = Handshake::new(socket, span != TlsScope::All);
    let mut tls = TlsConnector::from(Arc::new(config))
        .connect(name, handshake)
        .await
        .map_err(|error| tls_failed(&error.to_string()))?;
    tls.get_mut().0.finish();
    Ok(TdsStream::Tls(Box::new(tls)))
}

/// Ends TLS: only the login was encrypted.
pub(super) fn end(stream: TdsStream) -> TdsStream {
    match stream {
        TdsStream::Tls(tls) => TdsStream::Bare(tls.into_inner().0.into_socket()),
        bare => bare,
    }
}

/// `trust_any`: every certificate is accepted.
fn config(trust_any: bool, authority: Option<&Path>, span: TlsScope) -> Result<ClientConfig> {
    let versions = match span {
        // With TLS 1.3 a server sends more after the handshake, which would be mixed with the first
        // unencrypted answer.
        TlsScope::Login => &[&TLS12][..],
        TlsScope::All | TlsScope::Session => &[&TLS13, &TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .map_err(|error| tls_failed(&error.to_string()))?;
    let mut config = if trust_any {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAnyCertificate))
            .with_no_client_auth()
    } else {
        builder.with_root_certificates(authorities(authority)?).with_no_client_auth()
    };
    if span == TlsScope::All {
        config.alpn_protocols.push(TDS_8.to_vec());
    }
    Ok(config)
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = file {
        let unusable =
            |problem: String| tls_failed(&format!("certificate {}: {problem}", file.display()));
        for certificate in certificates(file).map_err(|error| unusable(error.to_string()))? {
            store.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    }
    Ok(store)
}

/// PEM with any number of certificates, or DER with one.
fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bytes = certificate::read(file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(if certificates.is_empty() { vec![CertificateDer::from(bytes)] } else { certificates })
}

/// Accepts every certificate without parsing it, like the driver: those that SQL Server generates are
/// often of an old version or have short keys, and parsing them would fail.
#[derive(Debug)]
struct TrustAnyCertificate;

impl ServerCertVerifier for TrustAnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::rustls::ClientConnection;

    /// The TLS versions that a client's first message offers.
    fn offered(span: TlsScope) -> Vec<u8> {
        const SUPPORTED_VERSIONS: [u8; 2] = [0x00, 0x2B];
        let config = Arc::new(config(true, None, span).unwrap());
        let mut hello = Vec::new();
        ClientConnection::new(config, ServerName::try_from("h").unwrap())
            .unwrap()
            .write_tls(&mut hello)
            .unwrap();
        let list = |at: usize| {
            let bytes = usize::from(*hello.get(at + 4)?);
            // the extension's length is its list's and one more
            (hello.get(at..at + 2)? == SUPPORTED_VERSIONS
                && hello.get(at + 2..at + 4)? == [0, hello[at + 4] + 1])
            .then(|| hello.get(at + 5..at + 5 + bytes).map(<[u8]>::to_vec))?
        };
        (0..hello.len()).find_map(list).expect("a list of versions")
    }

    #[test]
    fn tls_1_3_is_not_offered_where_tls_ends_with_the_login() {
        assert_eq!(offered(TlsScope::Login), [3, 3]);
        assert_eq!(offered(TlsScope::Session), [3, 4, 3, 3]);
        assert_eq!(offered(TlsScope::All), [3, 4, 3, 3]);
    }
}
