//! The time: the system's, or in a simulation one that stands still until it is told to go on.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Returns the time.
#[inline]
pub(crate) fn now() -> Instant {
    #[cfg(any(test, fuzzing))]
    if let Some(now) = simulated::now() {
        return now;
    }
    Instant::now()
}

/// Waits until `at`.
#[derive(Debug)]
pub(crate) struct Sleep {
    at: Instant,
    timer: smol::Timer,
}

impl Sleep {
    pub(crate) fn until(at: Instant) -> Self {
        Self { at, timer: smol::Timer::at(at) }
    }

    /// Waits for `duration`, or for ever if that is more than an `Instant` can tell.
    pub(crate) async fn lasting(duration: Duration) {
        match now().checked_add(duration) {
            Some(at) => Self::until(at).await,
            None => std::future::pending().await,
        }
    }

    /// When the wait is over.
    pub(crate) fn at(&self) -> Instant {
        self.at
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

/// A thread's own time, for simulations that run on one thread.
#[cfg(any(test, fuzzing))]
pub(crate) mod simulated {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::task::{Context, Poll, Waker};
    use std::time::Instant;

    thread_local! {
        static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
    }

    struct Clock {
        now: Instant,
        /// Who waits, in the order in which they began for each moment.
        waiting: BTreeMap<(Instant, u64), Waker>,
        begun: u64,
    }

    /// Stops the thread's time for as long as this lives.
    pub(crate) struct Stopped(());

    /// Stops the thread's time at `now`.
    pub(crate) fn stop_at(now: Instant) -> Stopped {
        CLOCK.set(Some(Clock { now, waiting: BTreeMap::new(), begun: 0 }));
        Stopped(())
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            CLOCK.take();
        }
    }

    pub(crate) fn now() -> Option<Instant> {
        CLOCK.with_borrow(|clock| clock.as_ref().map(|clock| clock.now))
    }

    pub(super) fn poll(at: Instant, context: &Context<'_>) -> Poll<()> {
        CLOCK.with_borrow_mut(|clock| match clock {
            Some(clock) if clock.now < at => {
                clock.begun += 1;
                clock.waiting.insert((at, clock.begun), context.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
    }

    /// Goes on to the next moment that somebody waits for, and wakes all who wait for it; false if
    /// nobody waits.
    pub(crate) fn advance() -> bool {
        let woken = CLOCK.with_borrow_mut(|clock| {
            let clock = clock.as_mut()?;
            let &(at, _) = clock.waiting.first_key_value()?.0;
            clock.now = at;
            let later = clock.waiting.split_off(&(at, u64::MAX));
            Some(std::mem::replace(&mut clock.waiting, later))
        });
        // Outside of the borrow: a waker may drop what looks at the time.
        let is_woken = woken.is_some();
        woken.unwrap_or_default().into_values().for_each(Waker::wake);
        is_woken
    }
}
