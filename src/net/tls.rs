//! TLS configuration from PEM files: who we are, whom we trust, and who the peer is.
//! rustls 0.23 with ring, TLS 1.2 and 1.3; the streams themselves are in `stream`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::pki_types::pem::{self, PemObject};
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use futures_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use futures_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use futures_rustls::rustls::server::WebPkiClientVerifier;
use futures_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::Error;

/// The default of `tls_handshake_timeout`, on both sides. A server without TLS, such as Python
/// arrpc's, waits for the rest of what it takes for a message, and says nothing.
pub(crate) const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A certificate and its private key, as the paths of two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyPair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Which server certificates a client accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Those that a root certificate of the system vouches for.
    System,
    /// Those that a certificate in this PEM file vouches for.
    CaFile(PathBuf),
    /// The one in this PEM file and no other, whatever it says of itself.
    Pinned(PathBuf),
}

/// Loads what a server needs. With `client_ca`, only clients with a certificate that this file
/// vouches for get in.
pub(crate) fn server_config(
    identity: &KeyPair,
    client_ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(error.to_string()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| wrong(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let (certificates, key) = load(identity)?;
    let config =
        builder.with_single_cert(certificates, key).map_err(|error| wrong_pair(identity, error))?;
    Ok(Arc::new(config))
}

/// Loads what a client needs. With `identity`, the client shows that certificate to servers that
/// ask for one.
pub(crate) fn client_config(
    trust: &Trust,
    identity: Option<&KeyPair>,
) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(error.to_string()))?;
    let builder = match trust {
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::CaFile(path) => builder.with_root_certificates(roots(path)?),
        Trust::Pinned(path) => {
            let certificate = certificates(path)?.swap_remove(0);
            let verifier = Arc::new(PinnedCertificate { certificate, provider });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (certificates, key) = load(identity)?;
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(|error| wrong_pair(identity, error))?
        }
    };
    Ok(Arc::new(config))
}

/// Accepts one certificate and no other: what `tls_self_signed` promises, where arrpc accepts any.
///
/// The name and the validity inside are not looked at: whoever holds the key of the very
/// certificate that the caller has is the right peer, also when `openssl req -x509` wrote no name
/// into it, made it a CA, or it is past its date.
#[derive(Debug)]
struct PinnedCertificate {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Who the peer of a TLS connection is, verified against the server's `tls_client_ca`.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsIdentity {
    certificate: Vec<u8>,
    common_name: Option<String>,
    dns_names: Vec<String>,
}

impl TlsIdentity {
    /// Reads the names of a certificate that rustls has verified.
    pub(crate) fn new(certificate: &CertificateDer<'_>) -> Self {
        let parsed = Certificate::from_der(certificate).ok();
        let parsed = parsed.as_ref().map(Certificate::tbs_certificate);
        let common_name = parsed
            .and_then(|parsed| parsed.subject().common_name().ok().flatten())
            .map(|name| name.value().into_owned());
        let dns_names = parsed
            .and_then(|parsed| parsed.get_extension::<SubjectAltName>().ok().flatten())
            .map(|(_critical, SubjectAltName(names))| names)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.to_string()),
                _ => None,
            })
            .collect();
        Self { certificate: certificate.to_vec(), common_name, dns_names }
    }

    /// Returns the certificate in DER (RFC 5280).
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Returns the common name of the certificate's subject, if it has one.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Returns the DNS names among the certificate's subject alternative names.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("common_name", &self.common_name)
            .field("dns_names", &self.dns_names)
            .field("certificate", &format_args!("{} bytes", self.certificate.len()))
            .finish()
    }
}

/// A failed handshake in words that say what to do.
#[derive(Debug, thiserror::Error)]
#[error("{advice}")]
struct Advised {
    advice: &'static str,
    source: rustls::Error,
}

/// Puts the usual reasons for a failed handshake of a client into plain words.
pub(crate) fn advise(error: rustls::Error) -> Box<dyn std::error::Error + Send + Sync> {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};

    let advice = match &error {
        Error::InvalidCertificate(Certificate::ApplicationVerificationFailure) => {
            "the server has another certificate than the one that tls_self_signed names"
        }
        // webpki's word for a certificate that `openssl req -x509` made, as it is a CA.
        Error::InvalidCertificate(Certificate::Other(_)) => {
            "the server's certificate is nobody's but its own, trust it with tls_self_signed"
        }
        Error::AlertReceived(Alert::CertificateRequired) => {
            "the server wants a certificate of the client, set tls_client_cert"
        }
        Error::AlertReceived(
            Alert::UnknownCA | Alert::CertificateUnknown | Alert::BadCertificate,
        ) => "the server does not trust the client's certificate",
        Error::AlertReceived(Alert::HandshakeFailure) | Error::InvalidMessage(_) => {
            "does the server speak TLS?"
        }
        _ => return error.into(),
    };
    Advised { advice, source: error }.into()
}

fn load(
    identity: &KeyPair,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let key = PrivateKeyDer::from_pem_file(&identity.key)
        .map_err(|error| unreadable(&identity.key, "private key", error))?;
    Ok((certificates(&identity.certificate)?, key))
}

/// The certificates in a PEM file, one at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(path, "certificate", error))?;
    if certificates.is_empty() {
        return Err(unreadable(path, "certificate", pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(path, error))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Systems carry certificates that webpki cannot read; the others still serve.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error::Config(format!(
            "this system has no root certificates, install them or give tls_cafile {reasons:?}"
        )));
    }
    Ok(roots)
}

fn unreadable(path: &Path, what: &str, error: pem::Error) -> Error {
    let path = path.display();
    Error::Config(match error {
        pem::Error::Io(error) => format!("cannot read {what} {path}: {error}"),
        pem::Error::NoItemsFound => format!("{path} holds no {what} in PEM format"),
        error => format!("{path} is not a {what} in PEM format: {error}"),
    })
}

fn wrong(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Config(format!("cannot use {}: {error}", path.display()))
}

fn wrong_pair(identity: &KeyPair, error: rustls::Error) -> Error {
    let KeyPair { certificate, key } = identity;
    Error::Config(format!(
        "cannot use {} with the key {}: {error}",
        certificate.display(),
        key.display()
    ))
}
