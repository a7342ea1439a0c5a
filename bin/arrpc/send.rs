//! `arrpc send`: one message from the command line or standard input, its reply on standard output.

use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use arrpc::{Error, Phase, Value, blocking, json};
use futures_rustls::rustls::{self, AlertDescription};

use crate::argument::{self, Address};
use crate::failure::{EXIT_CODES, Failure};

/// Send a message, and print the reply as JSON.
#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Where the server listens, or unix:PATH for a Unix socket; no host is localhost
    #[arg(value_name = "HOST:PORT")]
    address: Address,

    /// The message; - reads it from standard input
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    message: Message,

    /// How long it may take in all, such as 0.5 [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout)]
    #[arg(allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// How often to try to connect, 1 at least
    #[arg(long, value_name = "N", default_value_t = 5)]
    con_max_retries: u32,

    /// How often to send the message again if its connection ends before the reply: only for
    /// messages that may run more than once; ten times at the most
    #[arg(long, value_name = "N", default_value_t = 0)]
    idempotent_retries: u32,

    /// Print the reply on several lines, indented [default: on one line]
    #[arg(long)]
    pretty: bool,

    #[command(flatten)]
    trust: Trust,

    /// Show the server the certificate in this PEM file [default: none]
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "trust"])]
    #[arg(help_heading = "Security")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Security")]
    tls_key: Option<PathBuf>,

    /// Sign the message with the secret in this file, a newline at its end not included
    /// [default: the environment's ARRPC_AUTH_SECRET, or else no signature]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    auth_secret_file: Option<PathBuf>,

    /// Bytes that the reply may have; the default is 64 MiB
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 64 << 20, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_message_bytes: usize,

    /// How deep arrays and maps in the reply may be nested, 1024 at most
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 128, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_depth: usize,

    /// Values that the reply may hold in all, a map entry is two
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 1 << 20, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_items: usize,

    /// How long the TLS handshake may take
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "5")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    tls_handshake_timeout: Duration,

    /// How long the connection is silent before the system asks whether the server still exists,
    /// 1 to 32767
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "60")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    tcp_keepalive: Duration,
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

#[derive(Clone)]
enum Message {
    StandardInput,
    Value(Value),
}

impl FromStr for Message {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::StandardInput),
            text => argument::value(text).map(Self::Value),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let secret = argument::auth_secret(arguments.auth_secret_file.as_deref())?;
    let message = match &arguments.message {
        Message::Value(value) => value.clone(),
        Message::StandardInput => {
            let text = io::read_to_string(io::stdin())
                .map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
            json::from_str(&text)
                .map_err(|error| Failure::usage(format!("standard input is not JSON: {error}")))?
        }
    };
    let reply = client(arguments, secret.as_deref()).send(message).map_err(|error| {
        let hint = hint(arguments, secret.is_some(), &error);
        let failure = Failure::from(error);
        hint.into_iter().fold(failure, Failure::hint)
    })?;
    let text = match arguments.pretty {
        true => json::to_string_pretty(&reply),
        false => json::to_string(&reply),
    };
    match writeln!(io::stdout(), "{text}") {
        // A reader that has seen enough, such as `head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::system("cannot write the reply to standard output", &error)),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn client(arguments: &Arguments, secret: Option<&[u8]>) -> blocking::Client {
    let Address { host, port } = &arguments.address;
    let host = if host.is_empty() { "localhost" } else { host };
    let mut client = blocking::Client::new(host, *port)
        .con_max_retries(arguments.con_max_retries)
        .idempotent_retries(arguments.idempotent_retries)
        .max_message_bytes(arguments.max_message_bytes)
        .max_depth(arguments.max_depth)
        .max_items(arguments.max_items)
        .tls_handshake_timeout(arguments.tls_handshake_timeout)
        .tcp_keepalive(arguments.tcp_keepalive)
        .idempotent();
    if let Some(timeout) = arguments.timeout {
        client = client.timeout(timeout);
    }
    let Trust { tls, tls_ca, tls_self_signed } = &arguments.trust;
    if *tls {
        client = client.tls();
    }
    if let Some(file) = tls_ca {
        client = client.tls_cafile(file);
    }
    if let Some(file) = tls_self_signed {
        client = client.tls_self_signed(file);
    }
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        client = client.tls_client_cert(certificate, key);
    }
    if let Some(secret) = secret {
        client = client.auth_secret(secret);
    }
    client
}

/// What the caller may do about an error, where its text does not say it.
fn hint(arguments: &Arguments, signed: bool, error: &Error) -> Option<String> {
    let Trust { tls, tls_ca, tls_self_signed } = &arguments.trust;
    let over_tls = *tls || tls_ca.is_some() || tls_self_signed.is_some();
    let hint = match error {
        Error::Connect { source, .. } => match source.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                "nothing listens there; is the server running?"
            }
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset if over_tls => {
                "does the server speak TLS? If not, leave the --tls options out"
            }
            _ => return None,
        },
        Error::Tls { source, .. } => match rustls_error(&**source)? {
            rustls::Error::InvalidCertificate(_) if *tls => {
                "for a CA of your own give --tls-ca, for a certificate without CA --tls-self-signed"
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
        Error::Auth(_) if !signed => {
            let variable = argument::AUTH_SECRET_VARIABLE;
            return Some(format!("give the secret with --auth-secret-file or {variable}"));
        }
        Error::Timeout { phase: Phase::Reply, .. } => "the server may have run the request",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// The TLS library's own error among the causes.
fn rustls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref() {
        Some(error) => Some(error),
        None => rustls_error(error.source()?),
    }
}
