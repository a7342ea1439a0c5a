//! The time: the system's, or in a simulation one that stands still until it is told to go on.

mod local;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(any(test, fuzzing))]
pub(crate) use local::simulated;
pub(crate) use local::{LocalSleep, next, wake_due};

/// Returns the time.
#[inline]
pub(crate) fn now() -> Instant {
    #[cfg(any(test, fuzzing))]
    if let Some(now) = simulated::now() {
        return now;
    }
    Instant::now()
}

/// Waits until `at`, in a future that may be run by any thread.
#[derive(Debug)]
pub(crate) struct Sleep {
    #[cfg(any(test, fuzzing))]
    at: Instant,
    timer: smol::Timer,
}

impl Sleep {
    pub(crate) fn until(at: Instant) -> Self {
        Self {
            #[cfg(any(test, fuzzing))]
            at,
            timer: smol::Timer::at(at),
        }
    }

    /// Waits for `duration`, or for ever if that is more than an `Instant` can tell.
    pub(crate) async fn lasting(duration: Duration) {
        match now().checked_add(duration) {
            Some(at) => Self::until(at).await,
            None => std::future::pending().await,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        #[cfg(any(test, fuzzing))]
        if simulated::now().is_some() {
            return simulated::poll(self.at, context);
        }
        Pin::new(&mut self.timer).poll(context).map(|_| ())
    }
}
