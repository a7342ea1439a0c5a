//! From a server's options to its end: checks them, takes the ports, starts the workers, accepts,
//! and stops.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_rustls::TlsAcceptor;
use futures_util::stream::{FuturesUnordered, StreamExt};
use smol::future::{self, FutureExt};

use super::admission::{Admission, Door, possible_connections};
use super::budget::Budget;
use super::presence::Serving;
use super::service::{AnyHandler, Service};
use super::tokens::Identified;
use super::worker::{Setup, Workers};
use super::{AfterStart, Server};
use crate::http::Http;
use crate::metrics::{self, endpoint};
use crate::net::address::{Address, join_host_port};
use crate::net::listener::Listener;
use crate::net::tls;
use crate::wire::Protection;
use crate::{Error, log};

/// A server that has its port.
pub(super) struct Listening {
    /// The first field, so that a server that is just dropped tells of its stop before its workers
    /// begin theirs.
    serving: Serving,
    doors: Vec<Admission>,
    pub(super) local_addr: SocketAddr,
    /// For the log: the path, if it has no such address.
    shown_addr: String,
    workers: Workers,
    backlog: u32,
    drain_timeout: Duration,
    pub(super) metrics_addr: Option<SocketAddr>,
    pub(super) http_addr: Option<SocketAddr>,
    readiness: endpoint::Readiness,
    after_start: Vec<AfterStart>,
}

impl Listening {
    pub(super) async fn serve(mut self, stop: impl Future<Output = ()>) {
        tracing::info!(address = %self.shown_addr, "listening");
        for callback in self.after_start {
            callback(self.local_addr);
        }
        stop.or(accept(&mut self.doors, &self.workers)).await;
        self.readiness.stopping();
        drop(self.serving); // tells those who wait for something, which the drain waits for
        // Who waits to be accepted may have sent a request before the stop. As many as the system
        // keeps: those that come all the while are not meant.
        for door in &mut self.doors {
            for _ in 0..self.backlog {
                let Some(arrival) = future::poll_once(door.next()).await else { break };
                self.workers.dispatch(arrival);
            }
        }
        drop(self.doors);
        self.workers.stop(self.drain_timeout).await;
        tracing::info!(address = %self.shown_addr, "stopped");
    }
}

/// Lets connections in, at all doors. Never returns.
async fn accept(doors: &mut [Admission], workers: &Workers) {
    let accept = doors.iter_mut().map(|door| async {
        loop {
            workers.dispatch(door.next().await);
        }
    });
    let mut accept: FuturesUnordered<_> = accept.collect();
    let _: Option<()> = accept.next().await;
}

impl Server {
    /// Checks the options, takes the ports, and starts the threads.
    pub(super) fn listen(self) -> Result<Listening, Error> {
        if self.debug {
            log::print_debug();
        }
        let config = |text: &str| Err(Error::Config(text.to_owned()));
        let tls = match (&self.tls, &self.tls_client_ca) {
            (None, None) => None,
            (None, Some(_)) => return config("tls_client_ca needs tls: a certificate and a key"),
            (Some(identity), client_ca) => {
                Some(TlsAcceptor::from(tls::server_config(identity, client_ca.as_deref())?))
            }
        };
        let protection = Protection::new(self.auth_secret.as_ref(), self.encrypt)
            .map_err(|text| Error::Config(text.to_owned()))?;
        if self.threads == Some(0) {
            return config("threads must be 1 at least");
        }
        self.limits.check()?;
        let is_http = self.http.is_some() || self.http_only;
        let http = self.http.unwrap_or_else(|| Http::new(0));
        if self.http_only && (http.port != 0 || http.host.is_some()) {
            return config(
                "http_only takes the host and port of the server: leave those of http out",
            );
        }
        if is_http {
            http.check()?;
            if protection.is_signed() && self.tokens.is_none() {
                return config(
                    "auth_secret protects messages, and none of what comes over http: give tokens \
                     and make methods private that need one, or leave one of the two out",
                );
            }
        }
        let handler = match (self.tokens, self.handler) {
            (Some(tokens), AnyHandler::Values(handler)) => {
                AnyHandler::Values(Box::new(Identified { handler, tokens }))
            }
            (Some(_), AnyHandler::Raw(_)) => {
                return config("tokens stand in values, and a raw handler gets none");
            }
            (None, handler) => handler,
        };
        let handler = self.hooks.around(handler)?;
        if let AnyHandler::Values(handler) = &handler {
            handler.check()?;
        }
        let address = Address::new(&self.host, self.port)?;
        let bind_error = |address: String| move |source| Error::Bind { address, source };
        let listener = Listener::bind(&address, self.limits.backlog, self.limits.tcp)
            .map_err(bind_error(address.to_string()))?;
        let local_addr = listener.local_addr().map_err(bind_error(address.to_string()))?;
        let shown_addr = match address.is_unix() {
            true => address.to_string(),
            false => local_addr.to_string(),
        };
        let (mut http_addr, mut http_listener) = (None, None);
        if is_http && !self.http_only {
            let host = match (&http.host, address.is_unix()) {
                (Some(host), _) => host.as_str(),
                (None, true) => "127.0.0.1",
                (None, false) => &self.host,
            };
            let address = Address::new(host, http.port)?;
            let bound = Listener::bind(&address, self.limits.backlog, self.limits.tcp)
                .and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (local_addr, listener) = bound.map_err(bind_error(address.to_string()))?;
            (http_addr, http_listener) = (Some(local_addr), Some(listener));
        }
        let mut door = Door::Messages;
        if self.http_only {
            (door, http_addr) = (Door::Http, Some(local_addr));
        }
        let readiness = endpoint::Readiness::starting();
        let mut metrics_addr = None;
        let mut metrics = None;
        if self.metrics {
            let (host, port) = (&self.metrics_host, self.metrics_port);
            let opened =
                endpoint::open(host, port).map_err(bind_error(join_host_port(host, port)))?;
            metrics_addr = Some(opened);
            let signed = protection.is_signed();
            let counted = metrics::server(handler.name(), signed, tls.is_some());
            if let AnyHandler::Values(handler) = &handler {
                handler.measured(counted.methods());
            }
            metrics = Some(counted);
        }
        let service = Service {
            handler,
            protection,
            limits: self.limits.message,
            max_in_flight: self.limits.max_in_flight,
            budget: self.limits.max_memory_bytes.map_or_else(Budget::of_process, Budget::new),
            timeouts: self.limits.timeouts,
            metrics: metrics.clone(),
            life_cycle: self.life_cycle,
        };
        let service = Arc::new(service);
        let drain_timeout = self.limits.drain_timeout;
        let (service_of_workers, http) = (service.clone(), Arc::new(http));
        let setup = Setup { service: service_of_workers, tls, local_addr, drain_timeout, http };
        let threads = self.threads.or_else(|| thread::available_parallelism().ok().map(Into::into));
        let threads = threads.unwrap_or(1);
        let workers = Workers::start(threads, &setup).map_err(|source| Error::Thread { source })?;
        readiness.ready();
        let mut listeners = vec![(door, listener)];
        listeners.extend(http_listener.map(|listener| (Door::Http, listener)));
        let limit = possible_connections(&self.limits, threads, listeners.len());
        let doors = listeners.into_iter().map(|(door, listener)| {
            Admission::new(door, listener, limit, &self.limits, metrics.clone())
        });
        Ok(Listening {
            doors: doors.collect(),
            http_addr,
            local_addr,
            shown_addr,
            workers,
            backlog: self.limits.backlog,
            drain_timeout,
            metrics_addr,
            readiness,
            after_start: self.after_start,
            serving: Serving { service, on_stop: self.on_stop },
        })
    }
}
