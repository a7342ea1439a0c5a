//! Lets connections in: as many as there may be, and through every shortage of the system.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::lock::{Semaphore, SemaphoreGuardArc};

use super::limits::Limits;
use crate::metrics::ServerMetrics;
use crate::net::address::Origin;
use crate::net::listener::{Listener, Socket};
use crate::net::stream::reset_on_close;
use crate::time;

/// How often a shortage that goes on is logged.
const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The files that a process keeps open beside the connections of its server: for its threads, its
/// metrics, and what its handlers do.
#[cfg(unix)]
const OTHER_FILES: u64 = 100;

/// The files that a worker keeps open: its poll, its alarm.
#[cfg(unix)]
const FILES_PER_THREAD: u64 = 4;

/// Connections beyond the limit that are told so at once; more are reset.
const MAX_TOLD: usize = 64;

/// A connection that was accepted.
pub(super) struct Arrival {
    pub(super) socket: Socket,
    pub(super) origin: Origin,
    pub(super) place: Place,
    pub(super) door: Door,
}

/// What is spoken behind the port that a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Messages,
    Http,
}

/// Whether a connection is served. Given back when dropped.
pub(super) enum Place {
    Served {
        _slot: SemaphoreGuardArc,
    },
    /// There are as many as there may be.
    Refused {
        limit: usize,
        _slot: SemaphoreGuardArc,
    },
}

/// One port of a server.
pub(super) struct Admission {
    door: Door,
    listener: Listener,
    limit: usize,
    slots: Arc<Semaphore>,
    /// For those that are told that there are no more, where they are to be refused.
    refused: Option<Arc<Semaphore>>,
    metrics: Option<ServerMetrics>,
    shortage: Shortage,
}

impl Admission {
    /// Makes it for `limit` connections at once.
    pub(super) fn new(
        door: Door,
        listener: Listener,
        limit: usize,
        limits: &Limits,
        metrics: Option<ServerMetrics>,
    ) -> Self {
        let refused = limits.refuse_excess_connections.then(|| Arc::new(Semaphore::new(MAX_TOLD)));
        Self {
            door,
            listener,
            limit,
            slots: Arc::new(Semaphore::new(limit)),
            refused,
            metrics,
            shortage: Shortage::default(),
        }
    }

    /// Waits for the next connection, and for a place for it.
    pub(super) async fn next(&mut self) -> Arrival {
        loop {
            let slot = match self.slots.try_acquire_arc() {
                Some(slot) => Some(slot),
                None if self.refused.is_some() => None,
                None => {
                    tracing::debug!(max_connections = self.limit, "further connections wait");
                    self.count("max_connections");
                    Some(self.slots.acquire_arc().await)
                }
            };
            let (socket, origin) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.shortage.begins(&error);
                    self.count("accept");
                    continue;
                }
            };
            self.shortage.ends();
            // One may have closed while this one was waited for.
            match slot.or_else(|| self.slots.try_acquire_arc()) {
                Some(slot) => {
                    let place = Place::Served { _slot: slot };
                    return Arrival { socket, origin, place, door: self.door };
                }
                None => {
                    tracing::debug!(peer = %origin, max_connections = self.limit, "refused");
                    self.count("max_connections");
                    let told = self.refused.as_ref().and_then(Semaphore::try_acquire_arc);
                    if let Some(slot) = told {
                        let place = Place::Refused { limit: self.limit, _slot: slot };
                        return Arrival { socket, origin, place, door: self.door };
                    }
                    reset_on_close(&socket.options());
                }
            }
        }
    }

    fn count(&self, limit: &'static str) {
        if let Some(metrics) = &self.metrics {
            metrics.refusal(limit);
        }
    }
}

/// Says what the system is short of, when that begins and while it goes on, but not too often; and
/// when it is over.
#[derive(Debug, Default)]
struct Shortage {
    logged: Option<Instant>,
    /// It has been logged, and not its end.
    is_on: bool,
}

impl Shortage {
    fn begins(&mut self, error: &io::Error) {
        let now = time::now();
        if self.logged.is_some_and(|logged| now - logged < SHORTAGE_LOG_INTERVAL) {
            return;
        }
        self.logged = Some(now);
        self.is_on = true;
        tracing::warn!(
            %error,
            "cannot accept connections, they wait; if files are short, raise `ulimit -n`"
        );
    }

    fn ends(&mut self) {
        if std::mem::take(&mut self.is_on) {
            tracing::warn!("connections are accepted again");
        }
    }
}

/// As many connections as each of a server's doors may have: together they stay within the files
/// that the process may open.
pub(super) fn possible_connections(limits: &Limits, threads: usize, doors: usize) -> usize {
    #[cfg(unix)]
    if let Some(files) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        let told = if limits.refuse_excess_connections { MAX_TOLD } else { 0 };
        let possible = connections_of_files(files, threads, doors, told);
        if possible < limits.max_connections {
            tracing::info!(
                max_connections = possible,
                ports = doors,
                "lowered, as the process may open {files} files (`ulimit -n`)"
            );
            return possible;
        }
    }
    limits.max_connections
}

/// How many connections a door may have beside those that are `told` that there are no more.
#[cfg(unix)]
fn connections_of_files(files: u64, threads: usize, doors: usize, told: usize) -> usize {
    let others = OTHER_FILES + FILES_PER_THREAD * threads as u64;
    let possible = (files.saturating_sub(others) / doors as u64).saturating_sub(told as u64);
    usize::try_from(possible).unwrap_or(usize::MAX).max(1)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn two_doors_together_have_no_more_connections_than_the_process_has_files_for() {
        for (files, threads, doors, told, each) in [
            (1024, 2, 1, 0, 916),
            (1024, 2, 2, 0, 458),
            (1024, 2, 2, 64, 394),
            (109, 1, 1, 0, 5),
            (109, 1, 2, 0, 2),
            (109, 1, 1, 64, 1),
            (50, 1, 2, 0, 1),
        ] {
            assert_eq!(connections_of_files(files, threads, doors, told), each, "{files}, {doors}");
        }
    }
}
