//! How the clients among the sub-commands secure their connections, and what their user may do
//! about an error, where its text does not say it.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrpc::{Client, Error, Phase, internals};
use futures_rustls::pki_types::ServerName;
use futures_rustls::rustls::{self, AlertDescription, ClientConfig};

use crate::argument::{self, Address};
use crate::failure::Failure;

#[derive(clap::Args)]
pub(crate) struct Security {
    #[command(flatten)]
    trust: Trust,

    /// Show the server the certificate in this PEM file [default: none]
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "trust"])]
    #[arg(help_heading = "Security")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Security")]
    tls_key: Option<PathBuf>,

    /// Sign the message with the secret in this file, a newline at its end not included, or encrypt
    /// it with --encrypt [default: the environment's ARRPC_AUTH_SECRET, or else no signature]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    auth_secret_file: Option<PathBuf>,

    /// Encrypt the message with keys made of the secret, and take only a reply that is encrypted
    /// too: for servers with this option, where TLS cannot be had
    #[arg(long, help_heading = "Security")]
    encrypt: bool,
}

#[derive(clap::Args)]
#[group(id = "trust", multiple = false)]
struct Trust {
    /// Connect over TLS, and trust the CAs that this system trusts [default: plain TCP]
    #[arg(long, help_heading = "Security")]
    tls: bool,

    /// Connect over TLS, and trust the CAs in this PEM file
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    tls_ca: Option<PathBuf>,

    /// Connect over TLS, and trust the certificate in this PEM file and no other, for any host
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    tls_self_signed: Option<PathBuf>,
}

/// What the TLS library wants of a client.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

impl Security {
    /// Reads the secret for signatures, or encryption, if there is one.
    pub(crate) fn auth_secret(&self) -> Result<Option<Vec<u8>>, Failure> {
        argument::auth_secret(self.auth_secret_file.as_deref(), self.encrypt)
    }

    /// Whether messages are to be encrypted.
    pub(crate) fn encrypts(&self) -> bool {
        self.encrypt
    }

    /// Makes a client of the server at `address`.
    pub(crate) fn client(&self, address: &Address, secret: Option<&[u8]>) -> Client {
        let Trust { tls, tls_ca, tls_self_signed } = &self.trust;
        let mut client = Client::new(address.host_or_localhost(), address.port);
        if *tls {
            client = client.tls();
        }
        if let Some(file) = tls_ca {
            client = client.tls_cafile(file);
        }
        if let Some(file) = tls_self_signed {
            client = client.tls_self_signed(file);
        }
        if let Some((certificate, key)) = self.key_pair() {
            client = client.tls_client_cert(certificate, key);
        }
        if let Some(secret) = secret {
            client = client.auth_secret(secret);
        }
        if self.encrypt {
            client = client.encrypt();
        }
        client
    }

    /// Loads the TLS side of such a client, if it has one.
    pub(crate) fn tls(&self, address: &Address) -> Result<Option<Tls>, Failure> {
        let Trust { tls_ca, tls_self_signed, .. } = &self.trust;
        if !self.is_over_tls() {
            return Ok(None);
        }
        let (ca, pinned) = (tls_ca.as_deref(), tls_self_signed.as_deref());
        let config = internals::tls_client_config(ca, pinned, self.key_pair())?;
        let name = match address.is_unix() {
            // One certificate is trusted there, whatever its name.
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => ServerName::try_from(address.host_or_localhost().to_owned())
                .map_err(|error| Failure::usage(error.to_string()))?,
        };
        Ok(Some(Tls { config, name }))
    }

    pub(crate) fn is_over_tls(&self) -> bool {
        let Trust { tls, tls_ca, tls_self_signed } = &self.trust;
        *tls || tls_ca.is_some() || tls_self_signed.is_some()
    }

    /// Makes a failure of a client's error.
    pub(crate) fn failure(&self, error: Error, is_signed: bool) -> Failure {
        let hint = self.hint(&error, is_signed);
        hint.into_iter().fold(Failure::from(error), Failure::hint)
    }

    fn hint(&self, error: &Error, is_signed: bool) -> Option<String> {
        let Trust { tls, tls_ca, .. } = &self.trust;
        let hint = match error {
            Error::Connect { source, .. } => match source.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                    "nothing listens there; is the server running?"
                }
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if self.is_over_tls() => {
                    "does the server speak TLS? If not, leave the --tls options out"
                }
                _ => return None,
            },
            Error::Tls { source, .. } => match rustls_error(&**source)? {
                rustls::Error::InvalidCertificate(_) if *tls => {
                    "for a CA of your own give --tls-ca, for a certificate without CA \
                     --tls-self-signed"
                }
                rustls::Error::InvalidCertificate(_) if tls_ca.is_some() => {
                    "a CA in the file of --tls-ca must have signed the certificate, for this host"
                }
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                    "give a certificate with --tls-cert and --tls-key"
                }
                _ => return None,
            },
            Error::Protocol(text) if text.contains("speaks TLS") => {
                "give --tls, --tls-ca or --tls-self-signed"
            }
            Error::Auth(_) if !is_signed => {
                let variable = argument::AUTH_SECRET_VARIABLE;
                return Some(format!("give the secret with --auth-secret-file or {variable}"));
            }
            Error::Auth(text) if !self.encrypt && text.starts_with("Message is not encrypted") => {
                "give --encrypt"
            }
            Error::Timeout { phase: Phase::Reply, .. } => "the server may have run the request",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    fn key_pair(&self) -> Option<(&Path, &Path)> {
        self.tls_cert.as_deref().zip(self.tls_key.as_deref())
    }
}

/// The TLS library's own error among the causes.
fn rustls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref() {
        Some(error) => Some(error),
        None => rustls_error(error.source()?),
    }
}
