//! TLS as the driver does it, with the same trust: the machine's authorities, and the file that an operator names.

use std::{fs, io, path::Path, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    },
};

use super::{handshake::Handshake, stream::Stream};
use crate::{
    error::Result,
    mssql::{
        classify::no_tls,
        endpoint::{Endpoint, Trust},
    },
};

/// The protocol's name in TLS since TDS 8.0.
const TDS_8: &[u8] = b"tds/8.0";

/// Begins TLS in a bare stream; `strict`: TDS 8.0, before anything else.
pub(super) async fn begin(endpoint: &Endpoint, stream: Stream, strict: bool) -> Result<Stream> {
    let Stream::Bare(tcp) = stream else { return Ok(stream) };
    let mut config = config(&endpoint.trust)?;
    if strict {
        config.alpn_protocols.push(TDS_8.to_vec());
    }
    let host = endpoint.certificate_host.as_deref().unwrap_or(&endpoint.host);
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        // nobody looks at it
        Err(_) if endpoint.trust == Trust::Anything => ServerName::from(std::net::Ipv4Addr::LOCALHOST),
        Err(_) => return Err(no_tls(&format!("{host} is no name that a certificate could have"))),
    };
    let handshake = Handshake::new(tcp, !strict);
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, handshake).await.map_err(|error| no_tls(&error.to_string()))?;
    tls.get_mut().0.over();
    Ok(Stream::Tls(Box::new(tls)))
}

/// Ends TLS: only the login was encrypted.
pub(super) fn end(stream: Stream) -> Stream {
    match stream {
        Stream::Tls(tls) => Stream::Bare(tls.into_inner().0.into_tcp()),
        bare => bare,
    }
}

fn config(trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| no_tls(&error.to_string()))?;
    Ok(match trust {
        Trust::Anything => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(algorithms))).with_no_client_auth(),
        Trust::System => builder.with_root_certificates(authorities(None)?).with_no_client_auth(),
        Trust::Authority(file) => builder.with_root_certificates(authorities(Some(file))?).with_no_client_auth(),
    })
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = file {
        let unusable = |words: String| no_tls(&format!("certificate {}: {words}", file.display()));
        for certificate in certificates(file).map_err(|error| unusable(error.to_string()))? {
            store.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
    }
    Ok(store)
}

/// PEM with any number of certificates, or DER with one.
fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let bytes = fs::read(file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(if certificates.is_empty() { vec![CertificateDer::from(bytes)] } else { certificates })
}

/// Believes every certificate; that the server has its key is still seen to.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
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
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
