//! A server in the background, seen from the outside: where it listens, how to stop it, and how to
//! wait for its end.

use std::future::pending;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use smol::channel::{self, Sender};

use super::start::Listening;
use crate::Error;

/// A server that runs in the background.
///
/// Dropping the handle leaves the server running, as with the threads of the standard library.
#[derive(Debug)]
pub struct ServerHandle {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    http_addr: Option<SocketAddr>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl ServerHandle {
    pub(super) fn start(listening: Listening) -> Result<Self, Error> {
        let (stop, stopped) = channel::bounded(1);
        let local_addr = listening.local_addr;
        let metrics_addr = listening.metrics_addr;
        let http_addr = listening.http_addr;
        let stop_signal = async move {
            if stopped.recv().await.is_err() {
                pending::<()>().await; // the handle was dropped, not stopped
            }
        };
        let thread = thread::Builder::new()
            .name("arrpc-acceptor".to_owned())
            .spawn(|| smol::block_on(listening.serve(stop_signal)))
            .map_err(|source| Error::Thread { source })?;
        Ok(Self { local_addr, metrics_addr, http_addr, stop, thread })
    }

    /// Returns the address that the server listens on, with the port that it got for port 0. That
    /// of a server on a Unix socket is `0.0.0.0:0`: there is none, and its path is known.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the address of the metrics; `None` if they are off.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Returns the address of JSON-RPC over HTTP; `None` without [`http`](crate::Server::http).
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Tells the server to stop: to accept no more connections, finish the requests that it has
    /// accepted, and close all connections. Returns at once; [`join`](Self::join) waits.
    pub fn stop(&self) {
        // Full: it has been told. Closed: it has stopped.
        let _ = self.stop.try_send(());
    }

    /// Waits until the server has stopped.
    ///
    /// # Panics
    ///
    /// If a callback of [`after_start`](crate::Server::after_start) panicked.
    pub fn join(self) {
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}
