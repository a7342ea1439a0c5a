//! Graceful stops in the middle of the work, each with a start at the same port: every request
//! whose handler ran has its reply at the client, and none ran twice.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrpc::blocking::Client;
use arrpc::{Error, Value};

use crate::peers;
use crate::process::Server;
use crate::verdict::{Failure, Marks, Scale};

/// Clients of each kind.
const CLIENTS: u64 = 4;

/// Requests that a pipelining client has under way.
const PIPELINED: usize = 16;

/// How long a server serves before it is stopped.
const LIFE: Duration = Duration::from_millis(60);

/// The pause behind a connection that was refused: the next server is about to start.
const RETRY: Duration = Duration::from_millis(2);

pub(crate) fn run(scale: Scale) -> Result<(), Failure> {
    let stops = scale.pick(200, 10);
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let options = ["handler=log", &format!("port={port}")];
    let mut server = Server::start(&options);
    let done = Arc::<AtomicBool>::default();
    let kinds = [
        Kind::Lockstep,
        Kind::Pipelined,
        Kind::Library(Again::WithTheNext),
        Kind::Library(Again::WithTheSame),
    ];
    let clients: Vec<_> = (0..CLIENTS)
        .flat_map(|number| kinds.into_iter().enumerate().map(move |kind| (number, kind)))
        .map(|(number, (index, kind))| {
            // Each has its own range of numbers.
            let numbers = (index as u64 * CLIENTS + number) << 32..;
            let done = done.clone();
            thread::spawn(move || kind.play(address, numbers.start, &done))
        })
        .collect();

    let mut handled = Vec::new();
    let mut longest = Duration::ZERO;
    for stop in 0..=stops {
        thread::sleep(LIFE);
        if stop == stops {
            // They end while the last server serves.
            done.store(true, Ordering::Relaxed);
            break;
        }
        let start = Instant::now();
        handled.extend(numbers(&server.stop()));
        longest = longest.max(start.elapsed());
        server = Server::start(&options);
    }
    let mut answered = HashSet::new();
    let mut refused = 0;
    for client in clients {
        let played = client.join().expect("no panic");
        answered.extend(played.answered);
        refused += played.refused;
    }
    handled.extend(numbers(&server.stop()));

    let ran: HashSet<u64> = handled.iter().copied().collect();
    let lost = ran.difference(&answered).count();
    let twice = handled.len() - ran.len();
    let invented = answered.difference(&ran).count();
    println!(
        "{stops} graceful stops beside {} clients: {} requests answered, {refused} refused by a \
         reset before they were accepted, {lost} lost, {twice} run twice; the longest stop took \
         {} ms",
        CLIENTS * kinds.len() as u64,
        answered.len(),
        longest.as_millis()
    );
    let mut marks = Marks::default();
    marks.check(lost == 0, || format!("{lost} requests ran and have no reply"));
    marks.check(twice == 0, || format!("{twice} requests ran twice"));
    marks.check(invented == 0, || format!("{invented} replies are of requests that did not run"));
    marks.check(answered.len() > 100 * stops, || "there was hardly any load".to_owned());
    marks.verdict()
}

/// What a server prints at its end: the numbers that its handler got.
fn numbers(printed: &str) -> impl Iterator<Item = u64> {
    printed.lines().map(|line| line.parse().expect("a number"))
}

/// A port that no client's end of a connection can have: else a client may connect to itself while
/// there is no server, or take the port from the next.
fn free_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("Linux");
    let lowest: u16 = range.split_whitespace().next().expect("two numbers").parse().expect("ports");
    let mut ports = (lowest.saturating_sub(8000).max(1024)..lowest).rev();
    let free = ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.expect("a free port below those of clients")
}

/// A client that sends numbers and wants them back.
#[derive(Clone, Copy)]
enum Kind {
    /// Bytes over a socket, one request at a time, sent again until it is answered.
    Lockstep,
    /// The same with more under way.
    Pipelined,
    /// The library's client, which sends once.
    Library(Again),
}

/// What the library's client is asked for behind a lost connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    WithTheSame,
    WithTheNext,
}

/// What became of a client's requests.
#[derive(Default)]
struct Played {
    answered: Vec<u64>,
    /// Sent, and reset.
    refused: usize,
}

impl Kind {
    fn play(self, server: SocketAddr, first: u64, done: &AtomicBool) -> Played {
        match self {
            Self::Lockstep => raw(server, first, 1, done),
            Self::Pipelined => raw(server, first, PIPELINED, done),
            Self::Library(again) => library(server, first, again, done),
        }
    }
}

fn raw(server: SocketAddr, first: u64, window: usize, done: &AtomicBool) -> Played {
    let mut played = Played::default();
    let mut next = first;
    while !done.load(Ordering::Relaxed) {
        let Ok(mut stream) = peers::connect(server, first as usize) else {
            thread::sleep(RETRY);
            continue;
        };
        while !done.load(Ordering::Relaxed) {
            let batch: Vec<u8> = (next..next + window as u64).flat_map(packed).collect();
            // Some may have been answered also when the writing fails.
            let sent = stream.write_all(&batch);
            let replies = (0..window).map_while(|_| reply(&mut stream).ok());
            let before = next;
            for number in replies {
                assert_eq!(number, next, "in order");
                played.answered.push(number);
                next += 1;
            }
            if sent.is_err() || next < before + window as u64 {
                played.refused += window - (next - before) as usize;
                break;
            }
        }
    }
    played
}

fn packed(number: u64) -> [u8; 9] {
    let mut bytes = [0xcf; 9];
    bytes[1..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn reply(stream: &mut TcpStream) -> io::Result<u64> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    // The shortest form of a number that may be small.
    let rest = match first[0] {
        small @ 0..0x80 => return Ok(small.into()),
        0xcc..=0xcf => 1 << (first[0] - 0xcc),
        _ => return Err(io::Error::other("not a number")),
    };
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes[8 - rest..])?;
    Ok(u64::from_be_bytes(bytes))
}

fn library(server: SocketAddr, first: u64, again: Again, done: &AtomicBool) -> Played {
    let client = Client::new(server.ip().to_string(), server.port());
    let mut played = Played::default();
    let mut next = first;
    while !done.load(Ordering::Relaxed) {
        match client.send(next) {
            Ok(reply) => {
                assert_eq!(reply, Value::from(next));
                played.answered.push(next);
                next += 1;
            }
            Err(Error::Disconnected { .. }) => {
                played.refused += 1;
                if again == Again::WithTheNext {
                    next += 1;
                }
            }
            Err(Error::Connect { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    played
}
