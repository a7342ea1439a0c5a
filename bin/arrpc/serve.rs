//! `arrpc serve`: a server that echoes, or always says the same, until a signal stops it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use arrpc::{Server, ServerHandle, Value};
use clap::ArgAction;
use smol::Timer;

use crate::argument::{self, Address};
use crate::failure::{Failure, SERVER_EXIT_CODES};
use crate::metrics::Metrics;
use crate::running;
use crate::shell;

const EXAMPLES: &str = r#"Examples:
  arrpc serve 127.0.0.1:8080
  arrpc serve :8080 --reply '"got it"'    # for other machines too
  arrpc serve unix:/run/echo.sock --delay 2
  arrpc serve --tls-cert server.crt --tls-key server.key --auth-secret-file secret"#;

/// Answer each message with itself, or with the value of --reply, until SIGINT or SIGTERM.
#[derive(clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{SERVER_EXIT_CODES}"))]
pub(crate) struct Arguments {
    /// Where to listen, or unix:PATH for a Unix socket; port 0 takes a free one, no host is every
    /// IPv4 interface
    #[arg(value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    address: Address,

    /// Answer every message with this value [default: the message itself]
    #[arg(long, value_name = "JSON", value_parser = argument::value, allow_hyphen_values = true)]
    reply: Option<Value>,

    /// Answer each message only after this time, as a slow service would [default: at once]
    #[arg(long, value_name = "SECONDS", value_parser = argument::seconds)]
    #[arg(allow_negative_numbers = true)]
    delay: Option<Duration>,

    /// Serve TLS only, with the certificate chain in this PEM file [default: plain TCP]
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Security")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Security")]
    tls_key: Option<PathBuf>,

    /// Let in only clients with a certificate by a CA in this PEM file [default: all clients]
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Security")]
    tls_client_ca: Option<PathBuf>,

    /// Answer only messages signed with the secret in this file, a newline at its end not included
    /// [default: the environment's ARRPC_AUTH_SECRET, or else no signatures]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    auth_secret_file: Option<PathBuf>,

    /// Answer only messages that are encrypted with keys made of the secret, and encrypt the
    /// replies: where TLS cannot be had
    #[arg(long, help_heading = "Security")]
    encrypt: bool,

    #[command(flatten)]
    metrics: Metrics,

    /// Threads that serve connections [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    threads: Option<usize>,

    /// Bytes that a message may have; the default is 16 MiB
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 16 << 20, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_message_bytes: usize,

    /// How deep arrays and maps in a message may be nested, 1024 at most
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 128, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_depth: usize,

    /// Values that a message may hold in all, a map entry is two
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 1 << 20, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_items: usize,

    /// Requests of one connection that are handled at once
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 64, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_in_flight: usize,

    /// Bytes of memory that the messages of all connections may take together; the
    /// default is 512 MiB
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 512 << 20, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_memory_bytes: usize,

    /// Connections that may be open at once, or fewer if `ulimit -n` allows no more; further ones
    /// wait
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 10_000, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    max_connections: usize,

    /// Refuse further connections at once, with an error [default: they wait]
    #[arg(long, help_heading = "Limits")]
    refuse_excess_connections: bool,

    /// Connections that the system keeps until they are accepted
    #[arg(long, value_name = "N", value_parser = argument::count::<u32>, default_value_t = 1024, help_heading = "Limits")]
    #[arg(allow_negative_numbers = true)]
    backlog: u32,

    /// Send replies at once; false waits until the client has acknowledged the last ones
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    #[arg(help_heading = "Limits", hide_possible_values = true)]
    tcp_nodelay: bool,

    /// How long a TLS handshake may take
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "5")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    tls_handshake_timeout: Duration,

    /// How long a message may take to arrive, from its first byte to its last
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "30")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    message_timeout: Duration,

    /// How long a client may take nothing of its replies
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "10")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    write_timeout: Duration,

    /// How long a connection may be without messages [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout)]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    idle_timeout: Option<Duration>,

    /// How long an answer may take, see --delay; then the client gets an error
    /// [default: no limit]
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout)]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    handler_timeout: Option<Duration>,

    /// How long to finish accepted requests when stopped
    #[arg(long, value_name = "SECONDS", value_parser = argument::seconds, default_value = "10")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    drain_timeout: Duration,

    /// How long a connection is silent before the system asks whether its client still exists,
    /// 1 to 32767
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "60")]
    #[arg(allow_negative_numbers = true, help_heading = "Deadlines")]
    tcp_keepalive: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let secret = argument::auth_secret(arguments.auth_secret_file.as_deref(), arguments.encrypt)?;
    let server = server(arguments, secret.as_deref());
    running::run(server, arguments.drain_timeout, |server| {
        announce(arguments, secret.is_some(), server)
    })
}

fn server(arguments: &Arguments, secret: Option<&[u8]>) -> Server {
    let Address { host, port } = arguments.address.clone();
    let reply = arguments.reply.clone();
    let answer = move |message| reply.clone().unwrap_or(message);
    let mut server = match arguments.delay {
        None => Server::new(host, port, answer),
        Some(delay) => Server::new(host, port, move |message| {
            let reply = answer(message);
            async move {
                Timer::after(delay).await;
                reply
            }
        }),
    }
    .max_message_bytes(arguments.max_message_bytes)
    .max_depth(arguments.max_depth)
    .max_items(arguments.max_items)
    .max_in_flight(arguments.max_in_flight)
    .max_memory_bytes(arguments.max_memory_bytes)
    .max_connections(arguments.max_connections)
    .backlog(arguments.backlog)
    .tls_handshake_timeout(arguments.tls_handshake_timeout)
    .message_timeout(arguments.message_timeout)
    .write_timeout(arguments.write_timeout)
    .drain_timeout(arguments.drain_timeout)
    .tcp_keepalive(arguments.tcp_keepalive)
    .tcp_nodelay(arguments.tcp_nodelay);
    if arguments.refuse_excess_connections {
        server = server.refuse_excess_connections();
    }
    if let Some(timeout) = arguments.idle_timeout {
        server = server.idle_timeout(timeout);
    }
    if let Some(timeout) = arguments.handler_timeout {
        server = server.handler_timeout(timeout);
    }
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        server = server.tls(certificate, key);
    }
    if let Some(ca) = &arguments.tls_client_ca {
        server = server.tls_client_ca(ca);
    }
    if let Some(secret) = secret {
        server = server.auth_secret(secret);
    }
    if arguments.encrypt {
        server = server.encrypt();
    }
    if let Some(threads) = arguments.threads {
        server = server.threads(threads);
    }
    arguments.metrics.of(server)
}

/// Prints where the server listens, and how to send it something.
fn announce(arguments: &Arguments, signed: bool, server: &ServerHandle) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let address = shown(arguments, server.local_addr());
    let tls = match (&arguments.tls_cert, &arguments.tls_client_ca) {
        (None, _) if arguments.address.is_unix() => "no TLS",
        (None, _) => "plain TCP",
        (Some(_), None) => "TLS",
        (Some(_), Some(_)) => "TLS with client certificates",
    };
    let messages = match (signed, arguments.encrypt) {
        (_, true) => ", encrypted messages only",
        (true, false) => ", signed messages only",
        (false, false) => "",
    };
    writeln!(out, "Listening on {address} ({tls}{messages})")?;
    if let Some(address) = server.metrics_addr() {
        writeln!(out, "Metrics at http://{address}/metrics")?;
    }
    let mut needs = String::new();
    if arguments.tls_client_ca.is_some() {
        needs += ", with your client certificate";
    }
    if signed && arguments.auth_secret_file.is_none() {
        needs += &format!(", with {} set as here", argument::AUTH_SECRET_VARIABLE);
    }
    writeln!(out, "Try it from another terminal{needs}:")?;
    writeln!(out, "  {}", send_command(arguments, server.local_addr()))?;
    out.flush()
}

/// The address where the server listens: its path, if it is a Unix socket.
fn shown(arguments: &Arguments, address: SocketAddr) -> String {
    match arguments.address.is_unix() {
        true => arguments.address.host.clone(),
        false => address.to_string(),
    }
}

/// A line for a shell in the same directory.
fn send_command(arguments: &Arguments, address: SocketAddr) -> String {
    let mut words = vec![shell::program(), "send".into()];
    if let Some(certificate) = &arguments.tls_cert {
        // Right for any certificate: which CA vouches for it, and for which name, is not known
        // here.
        words.extend(["--tls-self-signed".into(), certificate.clone()]);
    }
    if arguments.tls_client_ca.is_some() {
        words.extend(["--tls-cert", "YOUR.crt", "--tls-key", "YOUR.key"].map(PathBuf::from));
    }
    if let Some(file) = &arguments.auth_secret_file {
        words.extend(["--auth-secret-file".into(), file.clone()]);
    }
    if arguments.encrypt {
        words.push("--encrypt".into());
    }
    let address = shown(arguments, running::reachable(address));
    words.extend([address.into(), r#"{"foo": "bar"}"#.into()]);
    shell::line(words)
}
