//! The progress bar on standard error, if that is a terminal.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::report::thousands;
use super::schedule::Goal;

const INTERVAL: Duration = Duration::from_millis(100);

/// Shows how far a run is, as the threads' counts of requests tell, until all senders of `running`
/// are dropped.
pub(crate) fn show(what: &str, goal: Goal, counts: &[AtomicU64], running: &Receiver<()>) {
    let started = Instant::now();
    let length = match goal {
        Goal::Requests(requests) => requests,
        Goal::Lasting(duration) => u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    };
    // Hidden unless standard error is a terminal.
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{prefix:10} {bar:40} {percent:>3} % {msg:>14}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(what.to_owned());
    let mut before = (started, 0);
    while running.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        let requests = counts.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let elapsed = now.duration_since(started).as_millis();
        bar.set_position(match goal {
            Goal::Requests(_) => requests,
            Goal::Lasting(_) => u64::try_from(elapsed).unwrap_or(u64::MAX).min(length),
        });
        // Of half a second: the eye does not read a number that changes ten times in one.
        let since = now.duration_since(before.0);
        if since >= 5 * INTERVAL {
            let rate = (requests - before.1) as f64 / since.as_secs_f64();
            bar.set_message(format!("{}/s", thousands(rate as u64)));
            before = (now, requests);
        }
    }
    bar.finish_and_clear();
}
