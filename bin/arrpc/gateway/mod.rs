//! `arrpc gateway`: JSON-RPC 2.0 over HTTP in front of another server, until a signal stops it.
//! Each call goes on as a message, and what comes back is its response. Knows no methods.

mod log;
mod readiness;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrpc::{
    Client, Context, Error, Handler, Http, Response, RpcError, Server, ServerHandle, Tokens, Value,
    internals,
};
use clap::Arg;

use crate::argument::{self, Address};
use crate::failure::{Failure, SERVER_EXIT_CODES};
use crate::metrics::Metrics;
use crate::running;
use crate::send::Exchange;
use crate::shell;
use log::Log;
use readiness::Readiness;

const AFTER_HELP: &str = r#"Calls:
  The call {"jsonrpc": "2.0", "method": "plus", "params": [1, 2], "id": 1} comes to the server
  behind as the message {"method": "plus", "params": [1, 2]}: what a Router looks for, and any
  handler can read. The key "params" is left out if a call has none. A caller's token stands
  beside them as "token", unless there is a --token-file. The reply is the result.
  Errors that begin with [unknown_method], [invalid_params] or [access_denied] get the codes -32601,
  -32602 and -32001, others -32000; -32002 is a timeout, -32003 an overload, -32004 a server behind
  that cannot be reached.

Examples:
  arrpc gateway --to 127.0.0.1:8080
  arrpc gateway --to unix:/run/calculator.sock --listen :8000 --token-file tokens
  arrpc gateway --to 10.0.0.7:8080 --tls-ca ca.crt --auth-secret-file secret --timeout 5
  arrpc gateway --to 127.0.0.1:8080 --pipelined 64 --cors https://example.com

  curl http://127.0.0.1:8000/api -H 'Content-Type: application/json' \
    -d '{"jsonrpc": "2.0", "method": "plus", "params": [1, 2], "id": 1}'"#;

const HTTP: &str = "HTTP";
const SERVER_BEHIND: &str = "Server behind";

/// Answer JSON-RPC 2.0 over HTTP with the methods of a server behind, any arrpc server, one in
/// Python as well, until SIGINT or SIGTERM.
#[derive(clap::Args)]
#[command(after_help = format!("{AFTER_HELP}\n\n{SERVER_EXIT_CODES}"), mut_args(beside_http))]
pub(crate) struct Arguments {
    /// Where to listen, or unix:PATH for a Unix socket; port 0 takes a free one, no host is every
    /// IPv4 interface
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8000", help_heading = HTTP)]
    listen: Address,

    /// The path that calls are sent to
    #[arg(long, value_name = "PATH", default_value = "/api", help_heading = HTTP)]
    path: String,

    /// Let scripts of pages from there call, such as https://example.com, or * for any page; may be
    /// given several times [default: none]
    #[arg(long, value_name = "ORIGIN", help_heading = HTTP)]
    cors: Vec<String>,

    /// Let in only callers that show a token in this file, a line for each: the token, or NAME:
    /// TOKEN with a space behind the colon; it is read again when it changes [default: let in all,
    /// and pass their tokens on to the server]
    #[arg(long, value_name = "FILE", help_heading = HTTP)]
    token_file: Option<PathBuf>,

    /// Serve HTTPS only, with the certificate chain in this PEM file [default: plain HTTP]
    #[arg(long, value_name = "FILE", requires = "listen_tls_key", help_heading = HTTP)]
    listen_tls_cert: Option<PathBuf>,

    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "listen_tls_cert", help_heading = HTTP)]
    listen_tls_key: Option<PathBuf>,

    /// Calls that a batch may have; under way at once are as many of them as a quarter of
    /// --max-connections times --pipelined, 64 at most
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 1000, help_heading = HTTP)]
    #[arg(allow_negative_numbers = true)]
    max_batch: usize,

    /// Bytes that the body of a request may have; the default is 16 MiB
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 16 << 20, help_heading = HTTP)]
    #[arg(allow_negative_numbers = true)]
    max_message_bytes: usize,

    /// Bytes of memory that the calls of all callers may take together; the default is 512 MiB
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 512 << 20, help_heading = HTTP)]
    #[arg(allow_negative_numbers = true)]
    max_memory_bytes: usize,

    /// How long a request may take to arrive, and the next one on its connection to begin
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "30")]
    #[arg(allow_negative_numbers = true, help_heading = HTTP)]
    message_timeout: Duration,

    /// How long to finish accepted calls when stopped
    #[arg(long, value_name = "SECONDS", value_parser = argument::seconds, default_value = "10")]
    #[arg(allow_negative_numbers = true, help_heading = HTTP)]
    drain_timeout: Duration,

    #[command(flatten)]
    metrics: Metrics,

    /// Where the server listens that answers the calls, or unix:PATH for a Unix socket; no host is
    /// localhost
    #[arg(long, value_name = "HOST:PORT", help_heading = SERVER_BEHIND)]
    to: Address,

    /// Connections to the server; each has one call at a time, or as many as --pipelined says, and
    /// further calls wait
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 64, help_heading = SERVER_BEHIND)]
    #[arg(allow_negative_numbers = true)]
    max_connections: usize,

    /// Calls that may be on their way on each connection: more than one is faster, and not for a
    /// Python server, which would answer the first of them only
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 1, help_heading = SERVER_BEHIND)]
    #[arg(allow_negative_numbers = true, alias = "pipeline")]
    pipelined: usize,

    #[command(flatten)]
    exchange: Exchange,
}

/// Gives an option of `arrpc send` the heading of its side, and those another help that are about
/// more here.
fn beside_http(argument: Arg) -> Arg {
    let argument = match argument.get_help_heading() {
        Some(HTTP | "Metrics") => argument,
        _ => argument.help_heading(SERVER_BEHIND),
    };
    match argument.get_id().as_str() {
        // Not without an end, unlike there: a message that a Python server cannot read is never
        // answered, and anybody could have one sent for each connection.
        "timeout" => argument
            .default_value("30")
            .help("How long a call may take in all, such as 0.5; inf is no limit"),
        // Callers are told of the limits by the library's names, so an option that has the name of
        // one is about what they send.
        "max_reply_bytes" => argument.long("max-reply-bytes").help(
            "Bytes that a reply may have, max_message_bytes of the reply in the log; the default is \
             64 MiB",
        ),
        "max_depth" => argument
            .help("How deep arrays and maps in a call or its reply may be nested, 1024 at most"),
        "max_items" => argument
            .help("Values that a request or a reply may hold in all, an entry of an object is two"),
        "metrics" => argument.help(
            "Serve Prometheus metrics at /metrics, charts of them at /, and for probes /healthz and \
             /readyz, which asks also whether the server behind can be reached [default: off]",
        ),
        "retries" => argument.help(
            "How often to send a call again if its connection ends before the reply: any call, so \
             only for servers whose methods may all run more than once; in the long run for one call \
             in ten at the most, or with -1 until there is a reply or the --timeout is over, also if nothing \
             listens",
        ),
        _ => argument,
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let secret = arguments.exchange.auth_secret()?;
    let answered = Arc::<AtomicBool>::default();
    let server = server(arguments, secret.as_deref(), answered.clone());
    let readiness = match arguments.metrics.are_on() {
        true => {
            let Arguments { to, exchange, .. } = arguments;
            Some(Readiness::new(to, exchange.tls(to)?, answered))
        }
        false => None, // nobody can ask
    };
    running::run(server, arguments.drain_timeout, |server| {
        if let Some(readiness) = readiness {
            smol::spawn(readiness.watch()).detach();
        }
        announce(arguments, server)
    })
}

fn server(arguments: &Arguments, secret: Option<&[u8]>, answered: Arc<AtomicBool>) -> Server {
    let client = arguments
        .exchange
        .client(&arguments.to, secret)
        .max_connections(arguments.max_connections)
        .pipelined(arguments.pipelined);
    let log = Arc::new(Log::new(arguments.to.to_string()));
    let gateway =
        Gateway { client, needs_token: arguments.token_file.is_some(), log: log.clone(), answered };
    let http = Http::new(0).path(&arguments.path).max_batch(arguments.max_batch);
    let http = arguments.cors.iter().fold(http, Http::cors);
    let Address { host, port } = &arguments.listen;
    let mut server = Server::with_handler(host, *port, gateway)
        .http_only()
        .http(http)
        .max_in_flight(in_flight(arguments))
        .max_message_bytes(arguments.max_message_bytes)
        .max_memory_bytes(arguments.max_memory_bytes)
        .max_depth(arguments.exchange.max_depth)
        .max_items(arguments.exchange.max_items)
        .message_timeout(arguments.message_timeout)
        .drain_timeout(arguments.drain_timeout)
        // Of the gateway's own tokens, or of those that the server behind wants.
        .on_error(move |error, context, _took| {
            if error.code() == Some("access_denied") {
                log.denied(context.peer_addr());
            }
        });
    if let Some(file) = &arguments.token_file {
        server = server.tokens(Tokens::file(file));
    }
    if let (Some(certificate), Some(key)) = (&arguments.listen_tls_cert, &arguments.listen_tls_key)
    {
        server = server.tls(certificate, key);
    }
    arguments.metrics.of(server)
}

/// How many calls of one batch are under way at once: not all that the server behind takes, or one
/// slow batch would leave nothing for the other callers.
fn in_flight(arguments: &Arguments) -> usize {
    let all = arguments.max_connections.saturating_mul(arguments.pipelined);
    (all / 4).clamp(1, 64)
}

/// Answers calls with what another server answers.
struct Gateway {
    client: Client,
    /// Whether only callers with a token of the gateway's are let in. Invariant: then no token goes
    /// on.
    needs_token: bool,
    log: Arc<Log>,
    /// Set with each answer of the server behind.
    answered: Arc<AtomicBool>,
}

impl Handler for Gateway {
    fn call(&self, mut message: Value, context: &Context) -> Response {
        if self.needs_token {
            if context.identity().is_none() {
                let text = "a call needs a token";
                return Response::ready(Err::<Value, _>(RpcError::with_code(
                    "access_denied",
                    text,
                )));
            }
            if let Value::Map(entries) = &mut message {
                entries.retain(|(key, _)| key.as_str() != Some("token"));
            }
        }
        let (client, log, answered) =
            (self.client.clone(), self.log.clone(), self.answered.clone());
        Response::later(async move {
            let answer = match client.send(message).await {
                Ok(reply) => Ok(reply),
                Err(Error::Rpc(error)) => Err(error),
                Err(error) => return Err(failed(&error, &log)),
            };
            answered.store(true, Ordering::Relaxed);
            answer
        })
    }

    /// What the first call would find wrong, so that nobody has to call to learn of it.
    fn check(&self) -> Result<(), Error> {
        internals::open(&self.client)
    }
}

/// What a caller is told of a call that the server behind did not answer: nothing of where that is,
/// and of how it is reached. The log has the rest.
fn failed(error: &Error, log: &Log) -> RpcError {
    let unavailable = |text| RpcError::with_code("unavailable", text);
    let told = match error {
        // That one method is slow is no trouble of all.
        Error::Timeout { .. } => {
            log.late(error);
            return RpcError::with_code("timeout", error);
        }
        Error::Connect { .. } | Error::Tls { .. } => {
            unavailable("no connection to the server behind the gateway")
        }
        Error::Disconnected { .. } => unavailable(
            "the server behind the gateway ended the connection before its reply, the call may have \
             run",
        ),
        Error::Auth(_) => unavailable(
            "the server behind the gateway refused the gateway's secret, or its absence",
        ),
        Error::Protocol(_) => RpcError::new(
            "the reply of the server behind the gateway is none, or exceeds the gateway's limits",
        ),
        _ => RpcError::new("the gateway failed, its log has the details"),
    };
    log.failed(error);
    told
}

/// Prints where the gateway listens, and how to call something.
fn announce(arguments: &Arguments, server: &ServerHandle) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Arguments { listen, to, path, .. } = arguments;
    let scheme = if arguments.listen_tls_cert.is_some() { "https" } else { "http" };
    match listen.is_unix() {
        true => writeln!(out, "Listening on {listen} ({scheme}, calls go to {path})")?,
        false => writeln!(out, "Listening on {scheme}://{}{path}", server.local_addr())?,
    }
    writeln!(out, "Calls are answered by {to}")?;
    if let Some(address) = server.metrics_addr() {
        writeln!(out, "Metrics at http://{address}/metrics")?;
    }
    let needs = if arguments.token_file.is_some() { ", with your token" } else { "" };
    writeln!(
        out,
        "Try it from another terminal{needs}; if the server has no Router, with one of its methods:"
    )?;
    writeln!(out, "  {}", curl_command(arguments, scheme, server))?;
    out.flush()
}

/// A line for a shell in the same directory. It calls a method of every Router; there is none that
/// every server has.
fn curl_command(arguments: &Arguments, scheme: &str, server: &ServerHandle) -> String {
    let mut words = vec!["curl".into()];
    let mut host = running::reachable(server.local_addr()).to_string();
    if let Some(path) = arguments.listen.host.strip_prefix("unix:") {
        words.extend(["--unix-socket".into(), PathBuf::from(path)]);
        "localhost".clone_into(&mut host);
    }
    if let Some(certificate) = &arguments.listen_tls_cert {
        words.extend(["--cacert".into(), certificate.clone()]);
    }
    words.push(format!("{scheme}://{host}{}", arguments.path).into());
    words.extend(["-H", "Content-Type: application/json"].map(PathBuf::from));
    if arguments.token_file.is_some() {
        words.extend(["-H", "Authorization: Bearer YOUR-TOKEN"].map(PathBuf::from));
    }
    let call = r#"{"jsonrpc": "2.0", "method": "arrpc.methods", "id": 1}"#;
    words.extend(["-d", call].map(PathBuf::from));
    shell::line(words)
}
