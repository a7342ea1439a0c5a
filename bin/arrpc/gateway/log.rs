//! What a gateway logs of calls that are not answered: a line now and then, as anybody may make
//! many. It has no token in it, and of a denied call nothing that its caller or the server behind
//! has said.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrpc::Error;

/// How often the log tells of each kind.
const INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Log {
    /// The server behind.
    server: String,
    failed: Seldom,
    late: Seldom,
    denied: Seldom,
}

impl Log {
    pub(super) fn new(server: String) -> Self {
        let [failed, late, denied] = Default::default();
        Self { server, failed, late, denied }
    }

    /// A call was not answered.
    pub(super) fn failed(&self, error: &Error) {
        if let Some(calls) = self.failed.count() {
            // Strings are escaped in the log: those of the server behind may be anything.
            let (server, error, cause) =
                (&*self.server, error.to_string(), error.source().map(ToString::to_string));
            tracing::warn!(server, error, cause, calls, "calls are not answered");
        }
    }

    /// A call was not answered in time, which may be its method's own.
    pub(super) fn late(&self, error: &Error) {
        if let Some(calls) = self.late.count() {
            let (server, error) = (&*self.server, error.to_string());
            tracing::warn!(server, error, calls, "calls take too long");
        }
    }

    /// A call was denied, for its token or the want of one.
    pub(super) fn denied(&self, caller: Option<SocketAddr>) {
        let caller = caller.map(tracing::field::display);
        match self.denied.count() {
            Some(calls) => tracing::warn!(caller, calls, "calls are denied access"),
            None => tracing::debug!(caller, "a call is denied access"),
        }
    }
}

/// Counts what there may be much of, between the lines that tell of it.
#[derive(Default)]
struct Seldom(Mutex<Untold>);

#[derive(Default)]
struct Untold {
    count: u64,
    told: Option<Instant>,
}

impl Seldom {
    /// Counts one more; returns how many there are to tell of, if it is time.
    fn count(&self) -> Option<u64> {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count += 1;
        if untold.told.is_some_and(|told| told.elapsed() < INTERVAL) {
            return None;
        }
        let count = untold.count;
        *untold = Untold { count: 0, told: Some(Instant::now()) };
        Some(count)
    }
}
