//! The client side of a measurement, in a process of its own: it connects, and sends requests for
//! a given time whenever it is told to.

pub(crate) mod callers;
pub(crate) mod generator;

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

/// A client that is connected.
pub(crate) trait Load {
    /// Keeps requests under way for `time`, and waits for all replies. Returns how long that took.
    ///
    /// # Errors
    ///
    /// A request failed, or its reply is wrong or missing.
    fn drive(&mut self, time: Duration) -> Result<Duration>;

    /// The latencies of the last drive in nanoseconds, one for each request.
    fn latencies(&self) -> Histogram<u64>;
}

/// No latencies yet, of up to a minute each, with three digits.
pub(crate) fn no_latencies() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("good bounds")
}
