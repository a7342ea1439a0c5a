//! The peers of a simulated world: real clients whose tasks share connections, some of them hurried
//! or dropped, and peers of raw bytes that keep to no rule.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use smol::future::{self, FutureExt};
use smol::io::{AsyncReadExt, AsyncWriteExt};

use super::World;
use super::network::{Stream, Weather};
use crate::client::Client;
use crate::client::connect::Connect;
use crate::client::deadline::Deadline;
use crate::client::link::Driver;
use crate::client::open::OpenClient;
use crate::time::{Sleep, now};
use crate::wire::cipher::Nonce;
use crate::wire::reply::Reply;
use crate::wire::{FrameFinder, Limits, Protection, decode, encode, envelope, sealed};
use crate::{Error, Phase, RpcError, Value, value};

/// How often a client of a world sends an idempotent call again.
pub(super) const RETRIES: u32 = 2;

/// Longer than all deadlines of a server together.
const PATIENCE: Duration = Duration::from_secs(120);

const UNLIMITED: Limits = Limits { max_bytes: usize::MAX, max_depth: 1024, max_items: usize::MAX };

/// Requests whose numbers have this bit may run more than once.
const IDEMPOTENT: u64 = 1;

/// Requests whose numbers have this bit must not run: they are not signed as they must be.
const FORGED: u64 = 2;

pub(super) fn is_idempotent(number: u64) -> bool {
    number & IDEMPOTENT != 0
}

pub(super) fn is_forged(number: u64) -> bool {
    number & FORGED != 0
}

/// A request, and what may come of it.
#[derive(Clone, Debug)]
struct Request {
    number: u64,
    action: &'static str,
    size: u64,
    /// Bytes that do nothing.
    padding: usize,
}

impl Request {
    fn random(number: u64, rng: &mut Rng) -> Self {
        let (action, most) = *rng
            .choice(&[
                ("echo", 1),
                ("echo", 1),
                ("wait", 100),
                ("wait", 30_000),
                ("grow", 100),
                ("grow", 20_000),
                ("fail", 1),
                ("panic", 1),
                ("wait and panic", 100),
                ("never", 1),
            ])
            .expect("not empty");
        let padding = *rng.choice(&[0, 0, 0, 0, 0, 300, 6_000, 70_000]).expect("not empty");
        Self { number, action, size: rng.u64(0..most), padding }
    }

    fn message(&self) -> Value {
        let padding = vec![self.number as u8; self.padding];
        value!({"number": self.number, "do": self.action, "for": self.size, "padding": padding})
    }

    fn packed(&self) -> Vec<u8> {
        let mut packed = Vec::new();
        encode::message(&self.message(), &mut packed).expect("it is short");
        packed
    }

    /// Whether this is an answer to this request, and to no other (G2).
    fn check(&self, world: &World, answer: &Result<Value, RpcError>) {
        let is_mine = match answer {
            Ok(reply) => match self.action {
                "echo" | "wait" => *reply == self.message(),
                "grow" => {
                    reply["number"].as_u64() == Some(self.number)
                        && reply["bytes"].as_slice().map(<[u8]>::len) == Some(self.size as usize)
                }
                _ => false,
            },
            Err(error) => {
                let text = error.message();
                let late = world.options.timeouts.handler.is_some();
                match self.action {
                    "fail" if text == format!("no {}", self.number) => true,
                    "panic" | "wait and panic" if text.starts_with("The handler failed") => true,
                    "wait" | "wait and panic" | "never"
                        if late && text.starts_with("The handler took longer") =>
                    {
                        true
                    }
                    _ => self.may_be_refused(world, text),
                }
            }
        };
        assert!(is_mine, "G2: {self:?} is answered with {answer:?}");
    }

    /// Whether the server may say this of it, rather than run it.
    fn may_be_refused(&self, world: &World, text: &str) -> bool {
        let signed = if world.options.secret.is_some() { 120 } else { 0 };
        let length = self.packed().len() + signed;
        match text {
            _ if text.starts_with("The server has no memory left") => !world.has_memory(),
            _ if text.starts_with("Message is longer") => length > world.options.limits.max_bytes,
            _ => text.starts_with("The message did not arrive"),
        }
    }

    /// Whether the handler was called.
    fn has_run(&self, world: &World) -> bool {
        world.ran.lock().expect("not poisoned").contains(&self.number)
    }
}

/// Starts all peers.
pub(super) fn run(world: &Rc<World>, rng: &mut Rng) {
    let mut next_number = 1;
    probe(world, rng);
    idler(world, rng);
    for _ in 0..rng.u32(0..3) {
        clients(world, &mut next_number, rng);
    }
    for _ in 0..rng.u32(0..4) {
        raw(world, &mut next_number, rng);
    }
}

fn number(next: &mut u64, flags: u64) -> u64 {
    *next += 1;
    *next << 2 | flags
}

/// Counts a peer in, and out when it is done.
fn spawn(world: &Rc<World>, peer: impl Future<Output = ()> + 'static) {
    world.peers_left.update(|left| left + 1);
    let of_world = world.clone();
    world.spawn(async move {
        peer.await;
        of_world.peers_left.update(|left| left - 1);
    });
}

/// What happens to the connections of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing, and they never wait for a handler.
    Probe,
    Slow,
    Foul,
}

/// The way of a client to the server of its world.
struct Connector {
    world: Rc<World>,
    kind: Kind,
    address: Arc<str>,
    rng: RefCell<Rng>,
    /// Where its connections came from.
    peers: Rc<RefCell<Vec<SocketAddr>>>,
}

impl Connect for Connector {
    type Stream = Stream;

    fn address(&self) -> &Arc<str> {
        &self.address
    }

    fn max_attempts(&self) -> u32 {
        4
    }

    async fn attempt(&self, deadline: &Deadline) -> Result<io::Result<Stream>, Error> {
        let delay = Duration::from_micros(self.rng.borrow_mut().u64(0..5000));
        let delay = async {
            Sleep::lasting(delay).await;
            Ok(())
        };
        deadline.within(Phase::Connect, delay).await?;
        let rng = &mut *self.rng.borrow_mut();
        let weather = match self.kind {
            Kind::Probe => Weather::fair(rng),
            Kind::Slow => Weather::slow(rng),
            Kind::Foul => Weather::foul(rng),
        };
        let server = self.world.server.borrow();
        Ok(server
            .as_ref()
            .filter(|_| self.kind != Kind::Foul || rng.u32(0..5) > 0)
            .map(|server| {
                let is_idle = self.kind == Kind::Probe;
                let (stream, peer) = server.accept(&self.world, &weather, is_idle, rng);
                self.peers.borrow_mut().push(peer);
                stream
            })
            .ok_or_else(|| io::ErrorKind::ConnectionRefused.into()))
    }

    fn spawn(&self, driver: Driver<Stream>) {
        self.world.spawn(driver);
    }

    fn is_open_and_silent(stream: &Stream) -> bool {
        stream.is_open_and_silent()
    }
}

/// A client of the kind, and where its connections come from.
fn open(
    world: &Rc<World>,
    kind: Kind,
    client: &Client,
    rng: &mut Rng,
) -> (Rc<OpenClient<Connector>>, Rc<RefCell<Vec<SocketAddr>>>) {
    let peers = Rc::default();
    let connector = Connector {
        world: world.clone(),
        kind,
        address: "simulated:1".into(),
        rng: RefCell::new(rng.fork()),
        peers: Rc::clone(&peers),
    };
    let client = client.clone().idempotent_retries(RETRIES);
    let protection = world.options.protection();
    (Rc::new(OpenClient::new(connector, &client.options, protection, None)), peers)
}

/// A good client with small requests, which nobody may disturb (G5).
fn probe(world: &Rc<World>, rng: &mut Rng) {
    let (client, _) = open(world, Kind::Probe, &Client::new("simulated", 1), rng);
    let (world, mut rng) = (world.clone(), rng.fork());
    spawn(&world.clone(), async move {
        for call in 0..20 {
            let number = call << 2 | IDEMPOTENT | 1 << 40;
            let request = Request { number, action: "echo", size: 0, padding: 0 };
            let (begin, stops) = (now(), world.stops.get());
            let is_serving = world.server.borrow().is_some();
            let never = Deadline::after(None).expect("no limit");
            let answer = client.exchange(request.packed(), &never, true).await;
            let took = now() - begin;
            match answer {
                Ok(reply) => request.check(&world, &Ok(reply)),
                Err(error) => {
                    let undisturbed = is_serving && stops == world.stops.get();
                    assert!(!undisturbed, "G5: the good client got {error:?}");
                }
            }
            if is_serving && stops == world.stops.get() {
                assert!(took < Duration::from_millis(500), "G5: the good client waited {took:?}");
            }
            Sleep::lasting(Duration::from_millis(rng.u64(0..1000))).await;
        }
    });
}

/// A good peer that connects, and says nothing: a stop ends it, or its deadline.
fn idler(world: &Rc<World>, rng: &mut Rng) {
    let (world, mut rng) = (world.clone(), rng.fork());
    spawn(&world.clone(), async move {
        let weather = Weather::fair(&mut rng);
        let Some(server) = world.server.borrow().clone() else { return };
        let (mut stream, _) = server.accept(&world, &weather, true, &mut rng);
        drop(server);
        let stops = world.stops.get();
        let end = stream.read(&mut [0]).await;
        assert!(end.is_err(), "G6: not a reset but {end:?}");
        if world.stops.get() > stops {
            let stopping = now() - world.stop_began.get();
            assert!(stopping < Duration::from_secs(1), "G6: idle for {stopping:?} in a stop");
        }
    });
}

/// A client, and the tasks that share it.
fn clients(world: &Rc<World>, next_number: &mut u64, rng: &mut Rng) {
    let foul = rng.bool();
    let timeout = (rng.u32(0..3) == 0).then(|| Duration::from_millis(rng.u64(1..20_000)));
    let depth = if rng.bool() { 1 } else { rng.usize(2..5) };
    let client = Client::new("simulated", 1).pipelined(depth).max_connections(rng.usize(1..4));
    let kind = if foul { Kind::Foul } else { Kind::Slow };
    let (client, peers) = open(world, kind, &client, rng);
    let tasks = rng.u32(1..4);
    for _ in 0..tasks {
        let calls: Vec<_> = (0..rng.u32(1..8))
            .map(|_| {
                let idempotent = rng.bool();
                let number = number(next_number, if idempotent { IDEMPOTENT } else { 0 });
                // A stalled connection is nothing that a client without timeout can tell.
                let dropped = match rng.u32(0..5) {
                    0 => Some(Duration::from_millis(rng.u64(0..200))),
                    _ => foul.then_some(PATIENCE),
                };
                (Request::random(number, rng), idempotent, dropped)
            })
            .collect();
        let (client, peers, of_world) = (client.clone(), peers.clone(), world.clone());
        spawn(world, async move {
            let world = of_world;
            for (request, idempotent, dropped) in calls {
                let begin = now();
                let deadline = Deadline::after(timeout).expect("not zero");
                let answer =
                    async { Some(client.exchange(request.packed(), &deadline, idempotent).await) };
                let drop = async {
                    match dropped {
                        Some(after) => Sleep::lasting(after).await,
                        None => future::pending().await,
                    }
                    None
                };
                let answer = answer.or(drop).await;
                world.log(|| format!("{request:?}: {answer:?}"));
                if let (Some(limit), false) = (world.options.timeouts.handler, foul) {
                    // One behind the other, and each perhaps once more.
                    let limit = tasks * (1 + RETRIES) * (limit + Duration::from_secs(5));
                    assert!(now() - begin < limit, "G5: {request:?} took longer than {limit:?}");
                }
                match answer {
                    None => {}
                    Some(Ok(reply)) => request.check(&world, &Ok(reply)),
                    Some(Err(Error::Rpc(error))) => request.check(&world, &Err(error)),
                    // A refusal of what never was a whole message, so that there is no request to
                    // encrypt it for.
                    Some(Err(Error::Auth(text))) => {
                        assert!(world.options.protection().is_encrypted(), "{text}");
                        assert!(request.may_be_refused(&world, &text), "{request:?}: {text}");
                    }
                    Some(Err(Error::Timeout { .. })) => assert!(timeout.is_some()),
                    Some(Err(Error::Disconnected { .. })) => {
                        let owed = !foul && world.has_memory() && request.has_run(&world);
                        let owed = owed && !world.is_cut_off(&peers.borrow());
                        assert!(!owed, "G6: the reply to {request:?} was lost");
                    }
                    Some(Err(Error::Connect { .. })) => {
                        assert!(foul || world.stops.get() > 0, "it could not connect");
                    }
                    Some(Err(error)) => panic!("{request:?}: {error:?}"),
                }
            }
        });
    }
}

/// What a raw peer sends, and what may come back.
enum Item {
    Request(Request),
    /// Signed wrongly, or not as it must be.
    Forged,
    /// No message: the connection ends behind its answer.
    Malformed,
    /// The beginning of a message, and nothing behind it.
    Half,
}

/// A peer of raw bytes that sends as it likes, and may never read.
fn raw(world: &Rc<World>, next_number: &mut u64, rng: &mut Rng) {
    let protection = world.options.protection();
    let mut nonces = Vec::new();
    let mut bytes = Vec::new();
    let mut items = Vec::new();
    for _ in 0..rng.u32(1..12) {
        let item = match rng.u32(0..12) {
            0 => {
                let forged = Request::random(number(next_number, FORGED), rng).packed();
                match protection {
                    Protection::Signed(_) | Protection::Encrypted(_) => bytes.extend(forged),
                    Protection::None => {
                        envelope::seal(&forged, &crate::wire::Secret::new(b"x"), &mut bytes)
                    }
                }
                Item::Forged
            }
            1 => {
                bytes.push(0xc1);
                Item::Malformed
            }
            2 => {
                bytes.extend(b"\xdb\x00\x00\x00\xffhalf");
                Item::Half
            }
            _ => {
                let request = Request::random(number(next_number, 0), rng);
                let packed = request.packed();
                match &protection {
                    Protection::None => bytes.extend(packed),
                    Protection::Signed(secret) => envelope::seal(&packed, secret, &mut bytes),
                    Protection::Encrypted(cipher) => {
                        let nonce = sealed::seal_request(&packed, cipher, &mut bytes);
                        nonces.resize(items.len(), None);
                        nonces.push(nonce.ok());
                    }
                }
                Item::Request(request)
            }
        };
        let is_last = matches!(item, Item::Malformed | Item::Half);
        items.push(item);
        if is_last {
            break;
        }
    }
    let foul = rng.bool();
    let weather = if foul { Weather::foul(rng) } else { Weather::slow(rng) };
    let (world, mut rng) = (world.clone(), rng.fork());
    spawn(&world.clone(), async move {
        Sleep::lasting(Duration::from_millis(rng.u64(0..5000))).await;
        let accepted = world
            .server
            .borrow()
            .as_ref()
            .map(|server| server.accept(&world, &weather, false, &mut rng));
        let Some((stream, peer)) = accepted else { return };
        let (mut reader, mut writer) = smol::io::split(stream);
        let pauses = rng.u32(0..3) == 0;
        let finishes = rng.bool();
        let reads = rng.u32(0..4) > 0;
        let sent = bytes.len();
        let last_write = Cell::new(now());
        let write = async {
            let mut bytes = bytes.as_slice();
            while !bytes.is_empty() {
                let (piece, rest) = bytes.split_at(rng.usize(1..=bytes.len()));
                writer.write_all(piece).await?;
                bytes = rest;
                last_write.set(now());
                if pauses {
                    Sleep::lasting(Duration::from_millis(rng.u64(0..800))).await;
                }
            }
            if finishes { writer.close().await } else { Ok(()) }
        };
        let read = async {
            let mut received = Vec::new();
            if reads {
                return (reader.read_to_end(&mut received).await, received);
            }
            Sleep::lasting(PATIENCE).await;
            (Ok(0), received)
        };
        let gives_up = async {
            Sleep::lasting(PATIENCE).await;
            None
        };
        let served = async { Some(future::zip(write, read).await) };
        let Some((written, (end, mut received))) = served.or(gives_up).await else {
            assert!(foul, "G1: neither an answer nor an end");
            return;
        };
        let answers = answers(&mut received, &protection, &nonces);
        world.log(|| format!("raw: {written:?} {end:?} {} answers", answers.len()));
        for (item, answer) in items.iter().zip(&answers) {
            item.check(&world, answer);
        }
        assert!(answers.len() <= items.len(), "G1: {answers:?}");
        if reads && !foul && items.iter().all(Item::is_quick) {
            let limit = items.last().and_then(|last| last.time_to_end(&world, finishes));
            let took = now() - last_write.get();
            // A window of bytes is on its way at a time.
            let windows = (received.len() + sent) / weather.window + 2;
            let way = weather.delay * windows as u32 + Duration::from_secs(1);
            let in_time = limit.is_none_or(|limit| took < limit + way);
            assert!(in_time, "G4: the connection was open for {took:?}, not {limit:?}");
        }
        if reads && !foul && world.has_memory() && !world.is_cut_off(&[peer]) {
            for (index, item) in items.iter().enumerate() {
                let Item::Request(request) = item else { continue };
                let owed = request.has_run(&world) && index >= answers.len();
                assert!(!owed, "G1, G6: {request:?} has no answer, of {}", answers.len());
            }
        }
    });
}

impl Item {
    /// Whether its answer takes no time.
    fn is_quick(&self) -> bool {
        let Self::Request(request) = self else { return true };
        !matches!(request.action, "wait" | "wait and panic" | "never")
    }

    /// How long a connection goes on behind this last item of a peer.
    fn time_to_end(&self, world: &World, finishes: bool) -> Option<Duration> {
        match self {
            _ if finishes => Some(Duration::ZERO),
            Self::Malformed => Some(Duration::ZERO),
            Self::Half => Some(world.options.timeouts.message),
            Self::Request(_) | Self::Forged => world.options.timeouts.idle,
        }
    }

    fn check(&self, world: &World, answer: &Value) {
        let reply = Reply::from_value(answer.clone());
        match (self, reply) {
            (Self::Request(request), Reply::Value(value)) => request.check(world, &Ok(value)),
            (Self::Request(request), Reply::Rpc(text)) => {
                request.check(world, &Err(RpcError::new(text)));
            }
            (Self::Forged, Reply::Auth(_)) => {}
            (Self::Malformed, Reply::Rpc(text)) => assert!(text.starts_with("Not MessagePack")),
            (Self::Half | Self::Forged, Reply::Rpc(text)) => {
                let known = ["The message did not arrive", "Message is longer"];
                let memory = !world.has_memory() && text.starts_with("The server has no memory");
                assert!(memory || known.iter().any(|known| text.starts_with(known)), "{text}");
            }
            (_, reply) => panic!("G1: {reply:?} is no answer here"),
        }
    }
}

/// The whole messages in what came back, decrypted if they answer the request with that nonce.
fn answers(
    mut received: &mut [u8],
    protection: &Protection,
    nonces: &[Option<Nonce>],
) -> Vec<Value> {
    let mut answers = Vec::new();
    while let Some(length) =
        FrameFinder::new().find(received, &UNLIMITED).expect("the server is well-behaved")
    {
        let (message, rest) = received.split_at_mut(length);
        received = rest;
        let nonce = nonces.get(answers.len()).copied().flatten();
        let mut is_encrypted = false;
        let answer = match (protection, nonce) {
            (Protection::Encrypted(cipher), Some(nonce)) if sealed::is_sealed(message) => {
                is_encrypted = true;
                sealed::open_reply(message, cipher, nonce).expect("G2: for this request")
            }
            _ => message,
        };
        let answer = decode(answer).expect("the server is well-behaved");
        if nonce.is_some() && !is_encrypted {
            // Nothing that the handler says, and nothing that was a whole message.
            let Reply::Rpc(text) = Reply::from_value(answer.clone()) else { panic!("{answer}") };
            let known = ["Message is longer", "The message did not", "The server has no memory"];
            assert!(known.iter().any(|known| text.starts_with(known)), "not encrypted: {text}");
        }
        answers.push(answer);
    }
    answers
}
