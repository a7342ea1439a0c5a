//! From a server's options to its end: checks them, takes the ports, starts the workers, accepts,
//! and stops.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_rustls::TlsAcceptor;
use smol::future::{self, FutureExt};

use super::admission::Admission;
use super::budget::Budget;
use super::presence::Serving;
use super::service::{AnyHandler, Service};
use super::worker::{Setup, Workers};
use super::{AfterStart, Server};
use crate::metrics::{self, endpoint};
use crate::net::address::{Address, join_host_port};
use crate::net::listener::Listener;
use crate::net::tls;
use crate::wire::Secret;
use crate::{Error, log};

/// A server that has its port.
pub(super) struct Listening {
    /// The first field, so that a server that is just dropped tells of its stop before its workers
    /// begin theirs.
    serving: Serving,
    admission: Admission,
    pub(super) local_addr: SocketAddr,
    /// For the log: the path, if it has no such address.
    shown_addr: String,
    workers: Workers,
    backlog: u32,
    drain_timeout: Duration,
    pub(super) metrics_addr: Option<SocketAddr>,
    readiness: endpoint::Readiness,
    after_start: Vec<AfterStart>,
}

impl Listening {
    pub(super) async fn serve(mut self, stop: impl Future<Output = ()>) {
        tracing::info!(address = %self.shown_addr, "listening");
        for callback in self.after_start {
            callback(self.local_addr);
        }
        let accept = async {
            loop {
                self.workers.dispatch(self.admission.next().await);
            }
        };
        stop.or(accept).await;
        self.readiness.stopping();
        drop(self.serving); // tells those who wait for something, which the drain waits for
        // Who waits to be accepted may have sent a request before the stop. As many as the system
        // keeps: those that come all the while are not meant.
        for _ in 0..self.backlog {
            let Some(arrival) = future::poll_once(self.admission.next()).await else { break };
            self.workers.dispatch(arrival);
        }
        drop(self.admission);
        self.workers.stop(self.drain_timeout).await;
        tracing::info!(address = %self.shown_addr, "stopped");
    }
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
        if self.auth_secret.as_ref().is_some_and(Secret::is_empty) {
            return config("auth_secret is empty: anyone could sign");
        }
        if self.threads == Some(0) {
            return config("threads must be 1 at least");
        }
        self.limits.check()?;
        let handler = self.hooks.around(self.handler)?;
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
        let readiness = endpoint::Readiness::starting();
        let mut metrics_addr = None;
        let mut metrics = None;
        if self.metrics {
            let (host, port) = (&self.metrics_host, self.metrics_port);
            let opened =
                endpoint::open(host, port).map_err(bind_error(join_host_port(host, port)))?;
            metrics_addr = Some(opened);
            let signed = self.auth_secret.is_some();
            let counted = metrics::server(handler.name(), signed, tls.is_some());
            if let AnyHandler::Values(handler) = &handler {
                handler.measured(counted.methods());
            }
            metrics = Some(counted);
        }
        let service = Service {
            handler,
            secret: self.auth_secret,
            limits: self.limits.message,
            max_in_flight: self.limits.max_in_flight,
            budget: self.limits.max_memory_bytes.map_or_else(Budget::of_process, Budget::new),
            timeouts: self.limits.timeouts,
            metrics: metrics.clone(),
            life_cycle: self.life_cycle,
        };
        let service = Arc::new(service);
        let drain_timeout = self.limits.drain_timeout;
        let setup = Setup { service: service.clone(), tls, local_addr, drain_timeout };
        let threads = self.threads.or_else(|| thread::available_parallelism().ok().map(Into::into));
        let threads = threads.unwrap_or(1);
        let workers = Workers::start(threads, &setup).map_err(|source| Error::Thread { source })?;
        readiness.ready();
        Ok(Listening {
            admission: Admission::new(listener, &self.limits, threads, metrics),
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
