//! What a gateway logs of calls that are not answered: a line now and then, as anybody may make many.
//! It has no token in it, and of a denied call nothing that its caller or the server behind has said.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrpc::Error;

/// How often the log tells of calls that are late, and of those that are denied.
const INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Log {
    /// The server behind.
    server: String,
    /// Whether the last call could not be answered: the first one is told of.
    in_trouble: AtomicBool,
    late: Seldom,
    denied: Seldom,
}

impl Log {
    pub(super) fn new(server: String) -> Self {
        let in_trouble = AtomicBool::new(false);
        Self { server, in_trouble, late: Seldom::default(), denied: Seldom::default() }
    }

    /// The server behind has answered.
    pub(super) fn answered(&self) {
        self.in_trouble.store(false, Ordering::Relaxed);
    }

    /// A call was not answered, and none will be.
    pub(super) fn failed(&self, error: &Error) {
        if !self.in_trouble.swap(true, Ordering::Relaxed) {
            // Strings are escaped in the log: those of the server behind may be anything.
            let (server, error, cause) =
                (&*self.server, error.to_string(), error.source().map(ToString::to_string));
            tracing::warn!(server, error, cause, "calls are not answered");
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
