//! The threads that serve connections, shared-nothing: each has its own reactor and executor, and
//! a connection lives on one of them from its first byte to its last.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures_rustls::TlsAcceptor;
use smol::LocalExecutor;
use smol::channel::{self, Receiver, Sender};
use smol::future::FutureExt;
use smol::io::AsyncWriteExt;

use super::admission::{Arrival, Door, Place};
use super::context::{Context, Peer};
use super::ending::Ending;
use super::service::Service;
use super::session::{Session, Shared};
use super::stop::Stop;
use crate::http::{self, Http};
use crate::net::delivery::undelivered;
use crate::net::reactor::{self, Reactor};
use crate::net::stream::{Stream, Transport, linger};
use crate::net::tls::TlsIdentity;
use crate::time::{LocalSleep, Sleep};
use crate::wire::Protection;
use crate::wire::reply::Reply;

/// How much longer than its own deadline a worker may take to end.
const STUCK: Duration = Duration::from_secs(1);

/// The workers of one server.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    /// Closed when all threads have ended.
    ended: Receiver<Infallible>,
}

struct Worker {
    arrivals: Sender<Arrival>,
    /// Connections that are open or on their way.
    load: Arc<AtomicUsize>,
}

/// What a worker's thread gets to know.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) service: Arc<Service>,
    pub(crate) tls: Option<TlsAcceptor>,
    /// Where the server listens.
    pub(crate) local_addr: SocketAddr,
    pub(crate) drain_timeout: Duration,
    /// What is offered over HTTP, if anything is.
    pub(crate) http: Arc<Http>,
}

impl Workers {
    pub(crate) fn start(threads: usize, setup: &Setup) -> io::Result<Self> {
        let (ended_sender, ended) = channel::bounded(1);
        let workers = (0..threads)
            .map(|number| Worker::start(number, setup.clone(), ended_sender.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self { workers, ended })
    }

    /// Hands a connection to the worker with the fewest.
    pub(crate) fn dispatch(&self, arrival: Arrival) {
        // Closed only if the worker's thread is gone, which nothing is meant to bring about.
        let alive = self.workers.iter().filter(|worker| !worker.arrivals.is_closed());
        if let Some(worker) = alive.min_by_key(|worker| worker.load.load(Ordering::Relaxed)) {
            worker.load.fetch_add(1, Ordering::Relaxed);
            let _ = worker.arrivals.try_send(arrival);
        }
    }

    /// Lets every worker finish what was accepted, and waits for them; not for a worker that a
    /// handler keeps from looking at the time.
    pub(crate) async fn stop(self, drain_timeout: Duration) {
        drop(self.workers);
        let ended = async {
            let _ = self.ended.recv().await;
        };
        let stuck = async {
            Sleep::lasting(drain_timeout.saturating_add(STUCK)).await;
            tracing::warn!("a handler that blocks keeps its thread, which is left behind");
        };
        ended.or(stuck).await;
    }
}

impl Worker {
    fn start(number: usize, setup: Setup, ended: Sender<Infallible>) -> io::Result<Self> {
        let (arrivals, inbox) = channel::unbounded();
        let load = Arc::new(AtomicUsize::new(0));
        let (ready_sender, ready) = channel::bounded(1);
        let thread_load = load.clone();
        thread::Builder::new().name(format!("arrpc-worker-{number}")).spawn(move || {
            let _ended = ended;
            match Reactor::new() {
                Ok(reactor) => {
                    let _ = ready_sender.try_send(Ok(()));
                    run(&reactor, &setup, &inbox, &thread_load);
                }
                Err(error) => {
                    let _ = ready_sender.try_send(Err(error));
                }
            }
        })?;
        ready.recv_blocking().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { arrivals, load })
    }
}

/// Serves connections until the server drops its end of `inbox` and those that are open have
/// ended, or their time is up.
fn run(reactor: &Rc<Reactor>, setup: &Setup, inbox: &Receiver<Arrival>, load: &Arc<AtomicUsize>) {
    let port = setup.local_addr.port();
    let stop = Stop::new(move || undelivered(port));
    let shared = Rc::new(Shared::new(reactor.deferred().clone(), stop));
    let executor = LocalExecutor::new();
    let (open_sender, open) = channel::bounded::<Infallible>(1);
    let (serving, stopping) = channel::bounded::<Infallible>(1);
    reactor.block_on(executor.run(async {
        while let Ok(arrival) = inbox.recv().await {
            // Boxed, as a future has room for it at each level of its calls.
            let accepted = Box::new(Accepted {
                arrival,
                reactor: reactor.clone(),
                shared: shared.clone(),
                setup: setup.clone(),
                stopping: stopping.clone(),
                load: Load(load.clone()),
                _open: open_sender.clone(),
            });
            // Handlers' panics are caught where handlers are called. Any other would be a fault of
            // ours, and is to cost the connection, not the worker.
            let served = AssertUnwindSafe(accepted.serve()).catch_unwind();
            executor.spawn(served).detach();
        }
        drop((open_sender, serving));
        let all_closed = async {
            let _ = open.recv().await;
        };
        let stop = shared.stop.run(|| reactor.wake_readers());
        let deadline = async {
            LocalSleep::lasting(setup.drain_timeout).await;
            // A Python client takes an orderly close for a reply of `None`.
            reactor.reset_all();
            tracing::warn!(
                connections = load.load(Ordering::Relaxed),
                "the drain timeout is over, closing what is left"
            );
        };
        all_closed.or(stop).or(deadline).await;
    }));
}

/// One accepted connection on its worker.
struct Accepted {
    arrival: Arrival,
    reactor: Rc<Reactor>,
    shared: Rc<Shared>,
    setup: Setup,
    /// Closed when the server stops.
    stopping: Receiver<Infallible>,
    load: Load,
    /// Dropped with the connection, which tells the worker when the last one is gone.
    _open: Sender<Infallible>,
}

impl Accepted {
    async fn serve(self: Box<Self>) {
        let peer = self.arrival.origin;
        tracing::debug!(%peer, "connected");
        match self.run().await {
            Ok(ending) => tracing::debug!(%peer, %ending, "closed"),
            Err(error) => tracing::debug!(%peer, %error, "closed before its first message"),
        }
    }

    async fn run(self: Box<Self>) -> io::Result<Ending> {
        let Self { arrival, setup: Setup { service, tls, http, .. }, .. } = *self;
        let Arrival { socket, origin, place, door } = arrival;
        let _load = self.load;
        let mut socket = self.reactor.adopt(socket)?;
        if let Place::Refused { limit, .. } = place {
            if tls.is_some() {
                socket.reset_on_close();
            } else {
                let text = format!("The server has too many connections (max_connections {limit})");
                let reply = match door {
                    Door::Messages => {
                        let mut reply = Vec::new();
                        Reply::Rpc(text).encode(&mut reply);
                        reply
                    }
                    Door::Http => http::unavailable(&text).into_bytes(),
                };
                socket.write_all(&reply).await?;
                linger(socket).await;
            }
            return Ok(Ending::Refused);
        }
        let is_tls = tls.is_some();
        let (stream, identity) = match tls {
            None => (Stream::Plain(socket), None),
            Some(acceptor) => {
                let late = late(service.timeouts.tls_handshake, self.stopping.clone());
                // Boxed, or all connections were larger by it for all of their life.
                Box::pin(handshake(&acceptor, socket).or(late)).await.inspect_err(|_| {
                    if let Some(metrics) = &service.metrics {
                        metrics.refusal("tls_handshake");
                    }
                })?
            }
        };
        let peer = Peer { origin, tls: is_tls, identity };
        if door == Door::Http {
            let context = Context::new(peer, &Protection::None);
            let deferred = self.reactor.deferred().clone();
            let served = http::serve(stream, http, service, context, deferred, self.stopping);
            // Boxed, or all connections were larger by it for all of their life.
            return match Box::pin(served).await {
                Ok(()) => Ok(Ending::PeerClosed),
                Err(error) => Ok(Ending::Lost(io::Error::other(error))),
            };
        }
        let context = Context::new(peer, &service.protection);
        Ok(Session::new(stream, service, self.shared, context).run().await)
    }
}

/// Takes the connection off its worker's load, however it ends.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    socket: reactor::Socket,
) -> io::Result<(Stream<reactor::Socket>, Option<Box<TlsIdentity>>)> {
    let stream = match acceptor.accept(socket).into_fallible().await {
        Ok(stream) => stream,
        Err((error, socket)) => {
            // The alert that tells the peer why must arrive before the end of the stream.
            linger(socket).await;
            return Err(error);
        }
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(<[_]>::first);
    let identity = certificate.map(|certificate| Box::new(TlsIdentity::new(certificate)));
    Ok((Stream::Tls(Box::new(stream.into())), identity))
}

/// Fails when a handshake has taken too long, or the server stops.
async fn late<T>(timeout: Duration, stopping: Receiver<Infallible>) -> io::Result<T> {
    let late = async {
        LocalSleep::lasting(timeout).await;
        "the TLS handshake took too long (tls_handshake_timeout)"
    };
    let stopped = async {
        let _ = stopping.recv().await;
        "the server stops"
    };
    Err(io::Error::new(io::ErrorKind::TimedOut, late.or(stopped).await))
}
