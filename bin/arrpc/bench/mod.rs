//! `arrpc bench`: requests by the hundred thousand, and how long their replies take.

mod alarm;
mod connection;
mod load;
mod messages;
mod progress;
mod report;
mod schedule;
mod socket;
mod stream;
mod tally;

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use arrpc::internals::{self, Encrypter, ReplyOpener, Sealer};
use arrpc::{Client, Error, Phase, Value, blocking, value};
use async_signal::Signals;
use clap::builder::ArgPredicate;
use smol::stream::StreamExt;

use crate::argument::{self, Address};
use crate::failure::{Failure, harmless_json};
use crate::running::END_SIGNALS;
use crate::security::Security;
use load::{Load, Plan};
use report::Report;
use schedule::{Goal, Schedule};
use socket::Place;
use stream::Target;
use tally::Tally;

/// Too many open files, on every Unix.
const EMFILE: i32 = 24;

const AFTER_HELP: &str = r#"One request is sent before the others, and fails as that of `arrpc send` would. The latency of a
request counts until its reply has been read: from when it was written, or with --rate from when it
was due, so that a server that stalls does not hide how many requests had to wait for it.

Errors are error replies, and requests whose connection was lost or whose reply did not come within
the --timeout. Their latencies do not count. A lost connection is opened again 100 ms later, unless
connections have been lost without a reply in between for as long as the --timeout. SIGINT
(Ctrl-C) and SIGTERM end a run, and what was measured until then is printed.

All requests are the same bytes, signed or encrypted once. With --encrypt each reply is decrypted,
not just compared with the first, which may take more --threads.

Examples:
  arrpc bench 127.0.0.1:8080
  arrpc bench 127.0.0.1:8080 --connections 8 --message '{"get": 7}'
  arrpc bench 127.0.0.1:8080 --pipeline 64 --requests 1000000
  arrpc bench 127.0.0.1:8080 --rate 5000 --json

Exit codes:
  0  every request was answered, and no connection lost
  1  there were errors or lost connections, the report is printed; or what is not below
  2  usage: wrong arguments or JSON, a file that cannot be read or used
  3  cannot connect, or TLS failed
  4  the server refused the signature, or its absence, or a reply was not encrypted as it must be
  5  timeout of the first request, or while connecting
  7  the connection ended before the first reply, or what came is no reply"#;

/// Send requests as fast as they are answered, or at a fixed rate, and print how long replies take
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Where the server listens, or unix:PATH for a Unix socket; no host is localhost
    #[arg(value_name = "HOST:PORT")]
    address: Address,

    /// Connections to open
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 64)]
    #[arg(allow_negative_numbers = true)]
    connections: usize,

    /// Requests on their way on each connection: more than one is not for a Python server, which
    /// would answer the first of them only
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 1)]
    #[arg(allow_negative_numbers = true, alias = "pipelined")]
    pipeline: usize,

    /// How long to send requests
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "10")]
    #[arg(allow_negative_numbers = true)]
    duration: Duration,

    /// Send so many requests instead, however long it takes
    #[arg(long, value_name = "N", value_parser = argument::count::<u64>, conflicts_with = "duration")]
    #[arg(allow_negative_numbers = true)]
    requests: Option<u64>,

    /// Send so many requests a second in all, at fixed times [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = argument::rate)]
    #[arg(allow_negative_numbers = true)]
    rate: Option<f64>,

    /// Send requests for so long before, and count none of them; with --requests the default is 0
    #[arg(long, value_name = "SECONDS", value_parser = argument::seconds, default_value = "1")]
    #[arg(default_value_if("requests", ArgPredicate::IsPresent, "0"))]
    #[arg(allow_negative_numbers = true)]
    warmup: Duration,

    /// What every request is [default: {"foo": "bar"}]
    #[arg(long, value_name = "JSON", value_parser = argument::value, allow_hyphen_values = true)]
    message: Option<Value>,

    /// Every request is so many bytes instead, a MessagePack bin
    #[arg(long, value_name = "N", value_parser = argument::count::<u32>, conflicts_with = "message")]
    #[arg(allow_negative_numbers = true)]
    message_bytes: Option<u32>,

    /// How long the server may take to accept a connection, or to answer
    #[arg(long, value_name = "SECONDS", value_parser = argument::timeout, default_value = "10")]
    #[arg(allow_negative_numbers = true)]
    timeout: Duration,

    /// Threads that send; more than one is for servers that answer faster than one can ask
    #[arg(long, value_name = "N", value_parser = argument::count::<usize>, default_value_t = 1)]
    #[arg(allow_negative_numbers = true)]
    threads: usize,

    /// Print one JSON object, with times in microseconds [default: a text]
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    security: Security,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let secret = arguments.security.auth_secret()?;
    let message = match (&arguments.message, arguments.message_bytes) {
        (Some(message), _) => message.clone(),
        (None, Some(bytes)) => Value::Binary(vec![0; bytes as usize]),
        (None, None) => value!({"foo": "bar"}),
    };
    let encrypted = arguments.security.encrypts();
    let (request, opener) = request(&message, secret.as_deref(), encrypted)?;
    let client = arguments.security.client(&arguments.address, secret.as_deref());
    probe(client.timeout(arguments.timeout), message)
        .map_err(|error| arguments.security.failure(error, secret.is_some()))?;

    let plan = Plan {
        target: target(arguments)?,
        request,
        opener,
        pipeline: arguments.pipeline,
        timeout: arguments.timeout,
    };
    let tally = measure(arguments, &plan)?;
    let report = Report {
        server: plan.target.place.to_string(),
        is_over_tls: plan.target.tls.is_some(),
        is_signed: secret.is_some() && !encrypted,
        is_encrypted: encrypted,
        connections: arguments.connections,
        pipeline: arguments.pipeline,
        threads: arguments.threads.min(arguments.connections),
        rate: arguments.rate,
        request_bytes: plan.request.len(),
        tally: &tally,
    };
    print(&if arguments.json { harmless_json(&report.json()) } else { report.text() })?;
    match (tally.errors.all(), tally.losses.all(), tally.settled()) {
        (0, 0, 1..) => Ok(ExitCode::SUCCESS),
        (errors, losses, requests) => Err(Failure::in_part(format!(
            "{errors} of {requests} requests failed, {losses} connections were lost"
        ))),
    }
}

/// Sends the first request.
fn probe(client: Client, message: Value) -> Result<(), Error> {
    match blocking::Client::from(client).send(message) {
        // An answer as good as any other to measure, and counted as an error.
        Ok(_) | Err(Error::Rpc(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The bytes of a request, and what its replies open with, if it is encrypted.
fn request(
    message: &Value,
    secret: Option<&[u8]>,
    encrypted: bool,
) -> Result<(Vec<u8>, Option<ReplyOpener>), Failure> {
    let mut packed = Vec::new();
    internals::encode(message, &mut packed).map_err(Failure::usage)?;
    let Some(secret) = secret else { return Ok((packed, None)) };
    let mut sealed = Vec::new();
    if encrypted {
        let opener = Encrypter::new(secret).seal_request(&packed, &mut sealed);
        return Ok((sealed, Some(opener.map_err(Failure::usage)?)));
    }
    Sealer::new(secret).seal(&packed, &mut sealed);
    Ok((sealed, None))
}

fn target(arguments: &Arguments) -> Result<Target, Failure> {
    let Arguments { address, timeout, .. } = arguments;
    let host = address.host_or_localhost();
    let tls = arguments.security.tls(address)?;
    #[cfg(unix)]
    if let Some(path) = host.strip_prefix("unix:") {
        return Ok(Target { place: Place::Unix(path.into()), tls });
    }
    let failed = |source| cannot_connect(arguments, source);
    let addresses: Vec<_> = (host, address.port).to_socket_addrs().map_err(failed)?.collect();
    let place = Place::Tcp(reachable(&addresses, *timeout).map_err(failed)?);
    Ok(Target { place, tls })
}

/// The first of a host's addresses at which somebody listens.
fn reachable(addresses: &[SocketAddr], timeout: Duration) -> io::Result<SocketAddr> {
    let mut result = Err(ErrorKind::NotFound.into());
    for address in addresses {
        if let [_] = addresses {
            return Ok(*address);
        }
        match TcpStream::connect_timeout(address, timeout) {
            Ok(_) => return Ok(*address),
            Err(error) => result = Err(error),
        }
    }
    result
}

/// The load of each thread is opened before any of them sends.
fn measure(arguments: &Arguments, plan: &Plan) -> Result<Tally, Failure> {
    let loads: io::Result<Vec<_>> = thread::scope(|scope| {
        let opening: Vec<_> = shares(arguments.connections, arguments.threads)
            .map(|connections| scope.spawn(move || Load::open(plan, connections)))
            .collect();
        opening
            .into_iter()
            .map(|opening| opening.join().expect("a thread does not panic"))
            .collect()
    });
    let mut loads = loads.map_err(|error| cannot_connect(arguments, error))?;
    let stop = stop_on_signal()?;
    if !arguments.warmup.is_zero() {
        let warmup = Goal::Lasting(arguments.warmup);
        send("Warming up", warmup, arguments.rate, &mut loads, &stop)?;
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::in_part("stopped while warming up, nothing was measured"));
        }
    }
    let goal = arguments.requests.map_or(Goal::Lasting(arguments.duration), Goal::Requests);
    send("Measuring", goal, arguments.rate, &mut loads, &stop)
}

/// A signal ends a run that has begun, not the program: what was measured is printed.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let mut signals = Signals::new(END_SIGNALS)
        .map_err(|error| Failure::system("cannot wait for signals", &error))?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    thread::spawn(move || {
        smol::block_on(signals.next());
        stopped.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

/// The connections of each thread, one at least.
fn shares(connections: usize, threads: usize) -> impl ExactSizeIterator<Item = usize> {
    let threads = threads.min(connections);
    (0..threads).map(move |thread| (connections + thread) / threads)
}

/// Sends requests on all threads, and returns what they have counted together.
fn send(
    what: &str,
    goal: Goal,
    rate: Option<f64>,
    loads: &mut [Load<'_>],
    stop: &AtomicBool,
) -> Result<Tally, Failure> {
    let threads = loads.len();
    let counts: Vec<_> = loads.iter().map(|_| AtomicU64::new(0)).collect();
    let tallies: io::Result<Vec<_>> = thread::scope(|scope| {
        let (running, ended) = mpsc::channel();
        let sending: Vec<_> = loads
            .iter_mut()
            .zip(&counts)
            .enumerate()
            .map(|(thread, (load, count))| {
                let running = running.clone();
                scope.spawn(move || {
                    let _running: mpsc::Sender<()> = running;
                    load.run(Schedule::start(goal, rate, thread, threads), count, stop)
                })
            })
            .collect();
        drop(running);
        progress::show(what, goal, &counts, &ended);
        sending
            .into_iter()
            .map(|sending| sending.join().expect("a thread does not panic"))
            .collect()
    });
    let tallies = tallies.map_err(|error| Failure::system("cannot wait for replies", &error))?;
    Ok(tallies.into_iter().fold(Tally::new(), |mut sum, tally| {
        sum.add(tally);
        sum
    }))
}

fn cannot_connect(arguments: &Arguments, source: io::Error) -> Failure {
    let Address { port, .. } = arguments.address;
    let host = arguments.address.host_or_localhost();
    match source.kind() {
        ErrorKind::TimedOut => {
            Error::Timeout { after: arguments.timeout, phase: Phase::Connect }.into()
        }
        _ => {
            let is_limit = source.raw_os_error() == Some(EMFILE);
            let address = match host.contains(':') {
                _ if arguments.address.is_unix() => host.to_owned(),
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            };
            let failure = Failure::from(Error::Connect { address, attempts: 1, source });
            match is_limit {
                true => failure.hint("each connection is an open file, see `ulimit -n`"),
                false => failure,
            }
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has seen enough, such as `head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::system("cannot write the report to standard output", &error)),
        Ok(()) => Ok(()),
    }
}
