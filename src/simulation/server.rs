//! The server of a simulated world: real sessions, a handler that does what its message says, and
//! a stop at some time, with or without another start.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::panic_any;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;

use super::World;
use super::network::{self, Weather};
use crate::net::address::Origin;
use crate::server::budget::Budget;
use crate::server::context::{Context, Peer};
use crate::server::handler::{Closure, Handler};
use crate::server::life_cycle::LifeCycle;
use crate::server::service::{AnyHandler, Service, Timeouts};
use crate::server::session::{Session, Shared};
use crate::server::stop::Stop;
use crate::time::{Sleep, now};
use crate::wire::{Limits, Protection, Secret};
use crate::{Response, RpcError, Value, value};

/// What a handler panics with.
pub(super) const PANIC: &str = "a simulated panic";

/// More memory than all that happens in a world takes.
pub(super) const ENOUGH_BYTES: usize = 1 << 29;

/// The options of a world's server.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) limits: Limits,
    pub(super) max_in_flight: usize,
    pub(super) budget: Arc<Budget>,
    pub(super) timeouts: Timeouts,
    pub(super) drain_timeout: Duration,
    pub(super) secret: Option<Secret>,
    /// Messages are encrypted with it, if there is one.
    pub(super) encrypt: bool,
}

impl Options {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let mut seconds = |most: u64| Duration::from_millis(rng.u64(500..most * 1000));
        let timeouts = Timeouts {
            tls_handshake: Duration::from_secs(5),
            message: seconds(30),
            write: seconds(10),
            idle: Some(seconds(20)),
            handler: Some(seconds(20)),
        };
        let drain_timeout = seconds(10);
        Self {
            limits: Limits {
                max_bytes: *rng.choice(&[300, 5_000, 1 << 24, 1 << 24]).expect("not empty"),
                max_depth: 3,
                max_items: 20,
            },
            max_in_flight: rng.usize(1..20),
            budget: Budget::new(
                *rng.choice(&[0, 300_000, ENOUGH_BYTES, ENOUGH_BYTES]).expect("not empty"),
            ),
            timeouts: Timeouts {
                idle: timeouts.idle.filter(|_| rng.bool()),
                handler: timeouts.handler.filter(|_| rng.bool()),
                ..timeouts
            },
            drain_timeout,
            secret: rng.bool().then(|| Secret::new(b"simulated")),
            encrypt: rng.bool(),
        }
    }

    /// What both sides do with the secret.
    pub(super) fn protection(&self) -> Protection {
        Protection::new(self.secret.as_ref(), self.encrypt && self.secret.is_some())
            .expect("a good secret")
    }
}

/// One life of the server.
pub(super) struct Server {
    service: Arc<Service>,
    shared: Rc<Shared>,
    /// Closed when the last session has ended.
    open: Sender<Infallible>,
    /// Closed when the server stops.
    _serving: Sender<Infallible>,
    stopping: Receiver<Infallible>,
}

impl Server {
    fn start(world: &World) -> (Rc<Self>, Receiver<Infallible>) {
        let options = world.options.clone();
        let (open, closed) = channel::bounded(1);
        let (_serving, stopping) = channel::bounded(1);
        let service = Service {
            handler: AnyHandler::Values(Box::new(Told {
                handler: handler(world),
                lives: world.lives.clone(),
            })),
            protection: options.protection(),
            limits: options.limits,
            max_in_flight: options.max_in_flight,
            budget: options.budget,
            timeouts: options.timeouts,
            metrics: None,
            life_cycle: LifeCycle::default(),
        };
        let network = world.network.clone();
        let stop = Stop::new(move || network.undelivered());
        let shared = Rc::new(Shared::new(world.deferred.clone(), stop));
        let service = Arc::new(service);
        (Rc::new(Self { service, shared, open, _serving, stopping }), closed)
    }

    /// Takes a connection; returns the peer's end. An idle one is closed by the server's stop.
    pub(super) fn accept(
        &self,
        world: &Rc<World>,
        weather: &Weather,
        is_idle: bool,
        rng: &mut Rng,
    ) -> (network::Stream, SocketAddr) {
        let (peer, stream, address) = world.network.connect(weather, rng);
        let context = Peer { origin: Origin(Some(address)), tls: false, identity: None };
        let context = Context::new(context, &self.service.protection);
        let session = Session::new(stream, self.service.clone(), self.shared.clone(), context);
        let (open, of_world) = (self.open.clone(), world.clone());
        let served = async move {
            let ending = session.run().await;
            of_world.log(|| format!("{address} {ending}"));
            drop(open);
        };
        // As a worker does at its drain deadline: what is left is dropped.
        let deadline = world.options.drain_timeout;
        let (stopping, of_world) = (self.stopping.clone(), world.clone());
        let cut = async move {
            let _ = stopping.recv().await;
            Sleep::lasting(deadline).await;
            assert!(!is_idle, "an idle connection outlives the drain deadline");
            of_world.cut_off.borrow_mut().insert(address);
            of_world.log(|| format!("{address} cut off"));
        };
        world.spawn(served.or(cut));
        (peer, address)
    }
}

/// Starts the server, stops it at some time, and perhaps starts and stops it again.
pub(super) fn run(world: &Rc<World>, mut rng: Rng) {
    let of_world = world.clone();
    world.peers_left.update(|left| left + 1);
    let (first, mut closed) = Server::start(world);
    world.server.replace(Some(first));
    world.spawn(async move {
        let world = of_world;
        for life in 0..rng.u32(1..3) {
            if life > 0 {
                let (server, next_closed) = Server::start(&world);
                closed = next_closed;
                world.server.replace(Some(server));
                world.log(|| "server started again".to_owned());
            }
            Sleep::lasting(Duration::from_millis(rng.u64(0..20_000))).await;
            world.log(|| "server stops".to_owned());
            world.stops.update(|stops| stops + 1);
            world.stop_began.set(now());
            let Some(server) = world.server.take() else { return };
            let shared = server.shared.clone();
            drop(server);
            let all_closed = async {
                let _ = closed.recv().await;
            };
            let network = &world.network;
            let stop = shared.stop.run(|| network.wake_readers());
            let late = async {
                // Handlers that run when their sessions are cut off end at the same time.
                Sleep::lasting(world.options.drain_timeout + Duration::from_secs(1)).await;
                panic!("a session outlives the drain deadline");
            };
            all_closed.or(stop).or(late).await;
            world.log(|| "server stopped".to_owned());
        }
        world.peers_left.update(|left| left - 1);
    });
}

/// What the handler is told of each connection, by its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) begun: u32,
    pub(super) ended: u32,
    /// It was called when the connection was not there.
    pub(super) called_outside: bool,
}

/// A handler, and what it is told beside messages.
struct Told<H> {
    handler: H,
    lives: Arc<Mutex<HashMap<u64, Life>>>,
}

impl<H> Told<H> {
    fn note(&self, context: &Context, note: impl FnOnce(&mut Life)) {
        let mut lives = self.lives.lock().expect("not poisoned");
        note(lives.entry(context.connection_id()).or_default());
    }
}

impl<H: Handler> Handler for Told<H> {
    fn call(&self, message: Value, context: &Context) -> Response {
        self.note(context, |life| {
            life.called_outside |= (life.begun, life.ended) != (1, 0) || context.is_gone();
        });
        self.handler.call(message, context)
    }

    fn connected(&self, context: &Context) {
        self.note(context, |life| life.begun += 1);
    }

    fn disconnected(&self, context: &Context) {
        self.note(context, |life| life.ended += 1);
    }
}

/// What a message asks for: `{"number": n, "do": .., "for": milliseconds or bytes}`.
fn handler(world: &World) -> impl Handler {
    let ran = world.ran.clone();
    Closure::new(move |message: Value| {
        let number = message["number"].as_u64().unwrap_or(u64::MAX);
        let size = message["for"].as_u64().unwrap_or_default();
        let action = message["do"].as_str().unwrap_or_default().to_owned();
        ran.lock().expect("not poisoned").push(number);
        async move {
            let pause = Sleep::lasting(Duration::from_millis(size));
            match action.as_str() {
                "echo" => Ok(message),
                "wait" => {
                    pause.await;
                    Ok(message)
                }
                "grow" => {
                    let bytes = vec![number as u8; size as usize];
                    Ok(value!({"number": number, "bytes": bytes}))
                }
                "fail" => Err(RpcError::new(format!("no {number}"))),
                "panic" => panic_any(PANIC),
                "wait and panic" => {
                    pause.await;
                    panic_any(PANIC)
                }
                _ => std::future::pending().await,
            }
        }
    })
}
