//! A million malformed messages beside one good client, which must hardly notice. The flood comes
//! from a process of its own, with four connections at a time and as fast as it can: first apart,
//! on a processor that the good client is not on, as a flood comes from another machine; then
//! where it likes, when all wait for the processors and not for the server.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::lockstep::{Latencies, Lockstep, MESSAGE};
use crate::peers;
use crate::process::{Bytes, Process, Server, itself, processors, stay_on};
use crate::verdict::{Failure, Marks, Scale};

const SECRET: &str = "secret";

/// Messages on one connection, of which the last one ends it.
const BURST: usize = 16;

/// Connections at a time. In all there are as many as there are bursts: 62,500 for the million
/// malformed messages of a full run, and as many again for the good ones.
const THREADS: usize = 4;

/// All loads take turns, so that a noisy machine disturbs them alike.
const ROUNDS: usize = 4;

const QUIET: Duration = Duration::from_secs(1);
const MAX_GROWTH: Bytes = Bytes(16 << 20);

/// How much slower the 99th percentile may be than with a quiet server, if the flood is apart, and
/// than under a flood of good messages. A small run has too few requests for more than a look.
const MAX_SLOWDOWN: f64 = 2.0;

pub(crate) fn run(scale: Scale) -> Result<(), Failure> {
    let mut marks = Marks::default();
    println!("the good client's p50/p99 in us; memory in MiB");
    println!(
        "server     processors  malformed  per s       quiet  good flood   malformed  /quiet  \
         /good  memory growth"
    );
    for secret in [None, Some(SECRET)] {
        for placement in [Placement::Apart, Placement::Shared] {
            // Of its own, as it may stay on one processor.
            let measure = || measure(secret, placement, scale, &mut marks);
            thread::scope(|scope| scope.spawn(measure).join().expect("it does not panic"));
        }
    }
    marks.verdict()
}

fn measure(secret: Option<&str>, placement: Placement, scale: Scale, marks: &mut Marks) {
    let processors = processors();
    // As many threads as the flood leaves processors.
    let (processor, threads) = match placement {
        Placement::Apart => (Some(processors[0]), (processors.len() - 1).max(1)),
        Placement::Shared => (None, processors.len()),
    };
    let threads = format!("threads={threads}");
    let secrecy_option = secret.map(|secret| format!("auth_secret={secret}"));
    let options: Vec<_> = secrecy_option.as_deref().into_iter().chain([&*threads]).collect();
    let server = Server::start(&options);
    if placement == Placement::Apart {
        stay_on(processors[processors.len() - 1]);
    }
    let address = server.address;
    let message = secret.map_or(MESSAGE.to_vec(), |_| seal(MESSAGE));
    let secrecy = if secret.is_some() { "secret" } else { "no secret" };
    let what = format!("{secrecy}, processors {placement:?}");
    let count = scale.pick(250_000, 5_000);
    let flood = |seed, content| Flood { processor, count, seed, content, signed: secret.is_some() };

    // The first messages of each kind make the process grow to its size.
    flood(0, Content::Malformed).run(address);
    let before = server.memory();
    let [mut quiet, mut good, mut malformed] = [const { Latencies::new() }; 3];
    let mut flooded = Duration::ZERO;
    let mut hung = 0;
    for round in 0..ROUNDS {
        let mut beside = |latencies: &mut Latencies, load: &mut dyn FnMut() -> usize| {
            let client = Lockstep::start(address, message.clone());
            hung += load();
            match client.end() {
                Ok(more) => latencies.extend(more),
                Err(error) => marks.check(false, || format!("{what}: the good client: {error}")),
            }
        };
        beside(&mut quiet, &mut || {
            thread::sleep(scale.pick(QUIET, QUIET / 10));
            0
        });
        let seed = 1 + round as u64;
        beside(&mut good, &mut || flood(seed, Content::Good).run(address));
        let start = Instant::now();
        beside(&mut malformed, &mut || flood(seed, Content::Malformed).run(address));
        flooded += start.elapsed();
    }
    let growth = server.memory() - before;

    let sent = ROUNDS * count;
    let rate = sent as f64 / flooded.as_secs_f64();
    let p99 = |latencies: &Latencies| latencies.per_mille(990).max(1) as f64;
    let beyond_quiet = p99(&malformed) / p99(&quiet);
    let beyond_good = p99(&malformed) / p99(&good);
    println!(
        "{secrecy:10} {:10} {sent:10} {rate:6.0} {quiet:>11} {good:>11} {malformed:>11} \
         {beyond_quiet:7.1} {beyond_good:6.1} {growth:>14}",
        format!("{placement:?}"),
    );
    marks.check(hung == 0, || format!("{what}: {hung} connections had no end"));
    marks.check(growth < MAX_GROWTH, || format!("{what}: memory grew by {growth} MiB"));
    let is_apart = placement == Placement::Apart;
    marks.check(!(scale.is_timed() && is_apart) || beyond_quiet <= MAX_SLOWDOWN, || {
        format!("{what}: p99 is {beyond_quiet:.1} times that of a quiet server")
    });
    marks.check(!scale.is_timed() || beyond_good <= MAX_SLOWDOWN, || {
        format!("{what}: p99 is {beyond_good:.1} times that under good messages")
    });
}

/// Where a flood runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    /// On the first processor, and the good client on the last.
    Apart,
    /// On all, like everything else.
    Shared,
}

/// What a flood is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Good,
    Malformed,
}

/// A load in a process of its own.
struct Flood {
    /// Where it stays, if anywhere.
    processor: Option<usize>,
    count: usize,
    seed: u64,
    content: Content,
    signed: bool,
}

impl Flood {
    /// Runs it to its end; returns how many connections had none.
    fn run(&self, server: SocketAddr) -> usize {
        let Self { processor, count, seed, content, signed } = self;
        let processor = processor.map_or("any".to_owned(), |processor| processor.to_string());
        let options = format!("flood {server} {processor} {count} {seed} {content:?} {signed}");
        let mut process = Process::start(itself().args(options.split(' ')));
        process.line().parse().expect("it prints a number")
    }
}

/// Sends malformed messages and prints how many connections had no end.
pub(crate) fn flood(options: &[&str]) {
    let [address, processor, count, seed, content, signed] = options[..] else {
        panic!("six options")
    };
    if let Ok(processor) = processor.parse() {
        stay_on(processor);
    }
    let address: SocketAddr = address.parse().expect("an address");
    let content = if content == "Good" { Content::Good } else { Content::Malformed };
    let signed: bool = signed.parse().expect("true or false");
    let bursts = count.parse::<usize>().expect("a number").div_ceil(BURST * THREADS);
    let seed: u64 = seed.parse().expect("a number");
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let mut rng = Rng::with_seed(seed * THREADS as u64 + thread as u64);
            thread::spawn(move || {
                (0..bursts)
                    .filter(|_| send_burst(address, content, signed, &mut rng).is_err())
                    .count()
            })
        })
        .collect();
    let hung: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    println!("{hung}");
}

/// Opens a connection for some malformed messages, and reads what comes back to its end. Fails if
/// there is none.
fn send_burst(server: SocketAddr, content: Content, signed: bool, rng: &mut Rng) -> io::Result<()> {
    let mut stream = peers::connect(server, 1 + rng.usize(0..peers::SOURCES - 1))?;
    let mut messages = Vec::with_capacity(4096);
    let end = match content {
        Content::Good => {
            let message = if signed { seal(MESSAGE) } else { MESSAGE.to_vec() };
            messages.extend(message.repeat(BURST));
            End::ByClient
        }
        Content::Malformed => {
            for _ in 1..BURST {
                messages.extend(refused(signed, rng));
            }
            let (last, end) = fatal(rng);
            messages.extend(last);
            end
        }
    };
    // A connection that ends in the middle is what is wanted.
    let sent = stream.write_all(&messages);
    match end {
        End::ByServer => {}
        End::ByClient => {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        End::Reset => {
            peers::reset(stream);
            return Ok(());
        }
    }
    let mut replies = [0; 8192];
    loop {
        match stream.read(&mut replies) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return sent.and(Err(error)),
        }
    }
    // No TIME_WAIT where the server has closed first.
    peers::reset(stream);
    Ok(())
}

/// A message that is answered with an error, and leaves the connection open.
fn refused(signed: bool, rng: &mut Rng) -> Vec<u8> {
    let junk = |rng: &mut Rng| (0..rng.usize(1..24)).map(|_| rng.u8(0x80..)).collect::<Vec<_>>();
    if signed {
        // Only behind a valid signature: three bad ones in a row end the connection.
        return match rng.u8(0..4) {
            0 => seal(&not_text(&junk(rng))),
            1 => seal(b"\xc1"),
            2 => seal(&[&[0x91; 200][..], &[0xc0]].concat()),
            _ => seal(&[&b"\xdd\xff\xff\xff\xff"[..], &junk(rng)].concat()),
        };
    }
    match rng.u8(0..4) {
        0 => not_text(&junk(rng)),
        1 => [&b"\x92\x01"[..], &not_text(&junk(rng))].concat(),
        // Envelopes, which a server without a secret refuses: one of them with a data that is no
        // bin, one with too many keys.
        2 => b"\x82\xaaarrpc.sign\xa3abc\xa4data\xa3abc".to_vec(),
        _ => b"\x83\xaaarrpc.sign\xc0\xa4data\xc4\x01\xc0\xa4data\xc4\x01\xc1".to_vec(),
    }
}

fn not_text(junk: &[u8]) -> Vec<u8> {
    [&[0xd9, 1 + junk.len() as u8][..], junk, b"\xff"].concat()
}

/// Who ends a connection.
enum End {
    ByServer,
    ByClient,
    Reset,
}

/// What ends a connection.
fn fatal(rng: &mut Rng) -> (Vec<u8>, End) {
    let random = |rng: &mut Rng| (0..rng.usize(1..512)).map(|_| rng.u8(..)).collect::<Vec<_>>();
    let bytes = match rng.u8(0..14) {
        0 => b"\xc1".to_vec(),
        // Four billion of something, in five bytes.
        1 => b"\xdd\xff\xff\xff\xff".to_vec(),
        2 => b"\xdf\xff\xff\xff\xff".to_vec(),
        3 => b"\xc6\xff\xff\xff\xff".to_vec(),
        4 => b"\xdb\xff\xff\xff\xff".to_vec(),
        5 => b"\xc9\xff\xff\xff\xff\x01".to_vec(),
        6 => [&[0x91; 511][..], &[0xc0]].concat(),
        7 => b"\xdd\x00\x10\x00\x01".to_vec(), // 1,048,577 values and more
        8 => return (b"\xc4\xffcut short".to_vec(), End::ByClient),
        9 => return (b"\xdc\x01\x00\x93\x01".to_vec(), End::Reset),
        // Bad signatures, three in a row.
        10 => return (b"\x82\xaaarrpc.sign\xa3abc\xa4data\xc4\x01\xc0".repeat(3), End::ByClient),
        11 => return (random(rng), End::ByClient),
        // As the first bytes they are recognised; behind others they are messages like any.
        12 => return (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), End::ByClient),
        _ => return (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), End::ByClient),
    };
    (bytes, End::ByServer)
}

/// The signed envelope of a message.
fn seal(message: &[u8]) -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    hmac.update(message);
    let mut envelope = b"\x82\xaaarrpc.sign\xd9\x40".to_vec();
    for byte in hmac.finalize().into_bytes() {
        write!(envelope, "{byte:02x}").expect("writing to a Vec");
    }
    envelope.extend_from_slice(b"\xa4data\xc5");
    envelope.extend_from_slice(&(message.len() as u16).to_be_bytes());
    envelope.extend_from_slice(message);
    envelope
}
