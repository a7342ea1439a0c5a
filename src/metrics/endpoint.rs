//! The HTTP endpoint of a process: `/` for people, `/metrics` for Prometheus, `/healthz` and
//! `/readyz` for probes. Its limits are its own and small, for it faces the network and has few and
//! short things to say. It runs on smol's executor and stays open until the process ends, as
//! arrpc's does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_net::TcpStream;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use smol::Timer;
use smol::future;
use smol::lock::Semaphore;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::readiness::{self, Roster};
use super::{REGISTRY, Registry, page};
use crate::net::address::join_host_port;
use crate::net::listener::DEFAULT_BACKLOG;
use crate::net::stream::TcpOptions;
use crate::net::tcp::Listener;

pub(crate) use super::readiness::Readiness;

/// Where the metrics are unless `metrics_host` says otherwise: everywhere, as in arrpc.
pub(crate) const DEFAULT_HOST: &str = "0.0.0.0";

/// Where the metrics are unless `metrics_port` says otherwise: arrpc's port.
pub(crate) const DEFAULT_PORT: u16 = 9095;

const LIMITS: Limits =
    Limits { connections: 64, head: Duration::from_secs(5), connection: Duration::from_secs(15) };

/// The least hyper takes; a scraper sends some 300 bytes.
const MAX_BUFFER_BYTES: usize = 8 * 1024;

/// The endpoints that run, by host and the port they listen on.
static RUNNING: LazyLock<Mutex<HashMap<(String, u16), SocketAddr>>> = LazyLock::new(Mutex::default);

/// Opens the endpoint on `host` and `port` and returns its address; it is bound when this returns.
///
/// If this process has one there already, returns the address of that. Port 0 always opens another
/// one. Blocks while a host name is resolved.
///
/// # Errors
///
/// If the name cannot be resolved or the address not be bound. The message says what to do; the
/// cause is its source.
pub(crate) fn open(host: &str, port: u16) -> io::Result<SocketAddr> {
    // Held while binding, lest two servers that start together compete for the port.
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(address) = running.get(&(host.to_owned(), port)) {
        return Ok(*address);
    }
    let endpoint = Endpoint { registry: &REGISTRY, roster: &readiness::PROCESS, limits: LIMITS };
    let address = endpoint.listen(host, port).map_err(|source| {
        io::Error::new(source.kind(), OpenError { host: host.to_owned(), port, source })
    })?;
    running.insert((host.to_owned(), address.port()), address);
    tracing::info!(%address, "serving metrics");
    Ok(address)
}

/// Why the endpoint could not be opened, and what to do.
#[derive(Debug)]
struct OpenError {
    host: String,
    port: u16,
    source: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, source } = self;
        write!(f, "cannot serve metrics on {}: ", join_host_port(host, *port))?;
        f.write_str(match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has this port, or this one under another host; set metrics_port to a free one"
            }
            io::ErrorKind::PermissionDenied => "this port needs privileges; set metrics_port to one above 1023",
            io::ErrorKind::AddrNotAvailable => "this machine does not have this address",
            _ => "check that this host names an address of this machine, or set another metrics_port",
        })
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once; those beyond are closed.
    connections: usize,
    /// From the accept to the end of the request's head.
    head: Duration,
    /// From the accept to the end of the response, so that a peer that does not read it is let go.
    connection: Duration,
}

/// What a connection is served from.
#[derive(Clone, Copy)]
struct Endpoint {
    registry: &'static Registry,
    roster: &'static Roster,
    limits: Limits,
}

impl Endpoint {
    fn listen(self, host: &str, port: u16) -> io::Result<SocketAddr> {
        let listener = Listener::bind(host, port, DEFAULT_BACKLOG, TcpOptions::default())?;
        let address = listener.local_addr()?;
        smol::spawn(self.accept(listener, address.port())).detach();
        Ok(address)
    }

    async fn accept(self, listener: Listener, port: u16) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            // A shortage is the server's to report.
            let Ok((stream, peer)) = listener.accept().await else { continue };
            let Some(place) = places.try_acquire_arc() else {
                let limit = self.limits.connections;
                tracing::debug!(%peer, limit, "too many connections to the metrics, refused");
                continue;
            };
            let Ok(stream) = TcpStream::try_from(stream) else { continue };
            smol::spawn(async move {
                self.serve(stream, port).await;
                drop(place);
            })
            .detach();
        }
    }

    async fn serve(self, stream: TcpStream, port: u16) {
        // A body is never read: hyper closes a connection whose request has one that is not in its
        // buffer yet.
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.respond(request.method(), request.uri().path(), port);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            // One request for each connection, else the few places are soon taken by peers that
            // keep theirs, and a probe finds none.
            .keep_alive(false)
            .timer(SmolTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(FuturesIo::new(stream), service);
        let served = async {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the metrics ended");
            }
        };
        let overdue = async {
            Timer::after(self.limits.connection).await;
        };
        future::or(served, overdue).await;
    }

    fn respond(&self, method: &Method, path: &str, port: u16) -> Response<Full<Bytes>> {
        match (path, method) {
            ("/", &Method::GET | &Method::HEAD) => html(page::render(self.registry, port)),
            ("/metrics", &Method::GET | &Method::HEAD) => {
                let mut response = text(StatusCode::OK, self.registry.render());
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(super::CONTENT_TYPE));
                response
            }
            ("/healthz", &Method::GET | &Method::HEAD) => text(StatusCode::OK, "ok"),
            ("/readyz", &Method::GET | &Method::HEAD) if self.roster.is_ready() => {
                text(StatusCode::OK, "ready")
            }
            ("/readyz", &Method::GET | &Method::HEAD) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "not ready")
            }
            ("/" | "/metrics" | "/healthz" | "/readyz", _) => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "not found; there are /, /metrics, /healthz and /readyz\n",
            ),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn html(page: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, page);
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, &page::POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests;
