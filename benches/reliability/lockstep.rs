//! The good client: one request after the other on one connection, each timed.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::peers;

/// A small message, and what an echo makes of it.
pub(crate) const MESSAGE: &[u8] = b"\x81\xa3foo\xa3bar";

/// A client at work.
#[derive(Debug)]
pub(crate) struct Lockstep {
    done: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Latencies>>,
}

impl Lockstep {
    /// Sends `message` and expects the reply [`MESSAGE`], again and again.
    pub(crate) fn start(server: SocketAddr, message: Vec<u8>) -> Self {
        let done = Arc::<AtomicBool>::default();
        let is_done = done.clone();
        let thread = thread::spawn(move || {
            let mut stream = peers::connect(server, 0)?;
            let mut each = Vec::new();
            let mut reply = [0; MESSAGE.len()];
            while !is_done.load(Ordering::Relaxed) {
                let start = Instant::now();
                stream.write_all(&message)?;
                stream.read_exact(&mut reply)?;
                each.push(start.elapsed());
                if reply != MESSAGE {
                    return Err(io::Error::other("a wrong reply"));
                }
            }
            Ok(Latencies { each })
        });
        Self { done, thread }
    }

    /// Ends it; fails if any request did.
    pub(crate) fn end(self) -> io::Result<Latencies> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic")
    }
}

/// How long the requests took. `Display` has the 50th and the 99th percentile in microseconds.
#[derive(Debug)]
pub(crate) struct Latencies {
    each: Vec<Duration>,
}

impl Latencies {
    pub(crate) const fn new() -> Self {
        Self { each: Vec::new() }
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.each.extend(more.each);
    }

    pub(crate) fn count(&self) -> usize {
        self.each.len()
    }

    /// The time that so many of a thousand requests took at the most, in microseconds.
    pub(crate) fn per_mille(&self, share: usize) -> u128 {
        let mut ascending = self.each.clone();
        ascending.sort_unstable();
        let index = (ascending.len() * share / 1000).min(ascending.len().saturating_sub(1));
        ascending.get(index).map_or(0, Duration::as_micros)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.per_mille(500), self.per_mille(990)))
    }
}
