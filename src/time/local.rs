//! The timers of one thread: no lock, and no wake of another thread, as setting one of smol's is.
//! What waits on them is run by a [`Reactor`](crate::net::reactor::Reactor), which looks at them
//! between two looks at its sockets.
//!
//! A connection that ends has one, for the time that its last reply may take, and so does each
//! request with a `handler_timeout`. With smol's each of them woke the thread that accepts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::now;

thread_local! {
    static TIMERS: RefCell<Timers> = const { RefCell::new(Timers::new()) };
}

struct Timers {
    /// Who waits, in the order in which they began for each moment.
    waiting: BTreeMap<Key, Rc<Timer>>,
    begun: u64,
}

type Key = (Instant, u64);

struct Timer {
    /// `None` once it has run out.
    waker: Cell<Option<Waker>>,
}

impl Timers {
    const fn new() -> Self {
        Self { waiting: BTreeMap::new(), begun: 0 }
    }

    fn pop_due(&mut self, now: Instant) -> Option<Rc<Timer>> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

/// Waits until `at`, in a future that one thread's reactor runs from its beginning to its end.
pub(crate) struct LocalSleep {
    at: Instant,
    /// Set by the first poll that must wait.
    timer: Option<(Key, Rc<Timer>)>,
}

impl LocalSleep {
    pub(crate) fn until(at: Instant) -> Self {
        Self { at, timer: None }
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

impl Future for LocalSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some((_, timer)) = &self.timer else {
            if now() >= self.at {
                return Poll::Ready(());
            }
            self.timer = Some(set(self.at, context.waker().clone()));
            return Poll::Pending;
        };
        match timer.waker.take() {
            None => Poll::Ready(()),
            Some(waker) => {
                let is_same = waker.will_wake(context.waker());
                timer.waker.set(Some(if is_same { waker } else { context.waker().clone() }));
                Poll::Pending
            }
        }
    }
}

impl Drop for LocalSleep {
    fn drop(&mut self) {
        if let Some((key, _)) = &self.timer {
            // Dropped behind the borrow: a waker may drop what has a timer itself. Not there any
            // more if the thread ends.
            let _timer = TIMERS.try_with(|timers| timers.borrow_mut().waiting.remove(key));
        }
    }
}

impl fmt::Debug for LocalSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSleep").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Wakes the thread's task at a moment.
fn set(at: Instant, waker: Waker) -> (Key, Rc<Timer>) {
    TIMERS.with_borrow_mut(|timers| {
        timers.begun += 1;
        let key = (at, timers.begun);
        let timer = Rc::new(Timer { waker: Cell::new(Some(waker)) });
        timers.waiting.insert(key, timer.clone());
        (key, timer)
    })
}

/// The next moment that somebody of this thread waits for.
pub(crate) fn next() -> Option<Instant> {
    TIMERS.with_borrow(|timers| timers.waiting.first_key_value().map(|((at, _), _)| *at))
}

/// Wakes all of this thread whose moment has come.
pub(crate) fn wake_due() {
    // A look at the clock costs more than one at the map.
    if next().is_none() {
        return;
    }
    let now = now();
    // Each outside of the borrow: a waker may set or drop a timer.
    while let Some(timer) = TIMERS.with_borrow_mut(|timers| timers.pop_due(now)) {
        if let Some(waker) = timer.waker.take() {
            waker.wake();
        }
    }
}

/// A thread's own time, for simulations that run on one thread.
#[cfg(any(test, fuzzing))]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::task::{Context, Poll};
    use std::time::{Duration, Instant};

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
        static LOOK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// Stops the thread's time for as long as this lives.
    pub(crate) struct Stopped(());

    /// Stops the thread's time at `now`.
    pub(crate) fn stop_at(now: Instant) -> Stopped {
        NOW.set(Some(now));
        Stopped(())
    }

    /// Lets the thread's time go on by `duration` with each look at it, as for a thread that is
    /// always preempted behind one.
    #[cfg(test)]
    pub(crate) fn preempt_for(_: &Stopped, duration: Duration) {
        LOOK.set(duration);
    }

    impl Drop for Stopped {
        fn drop(&mut self) {
            NOW.take();
            LOOK.take();
            // Also what those wait for who do so as if they could do it on any thread.
            let _waiting =
                super::TIMERS.with_borrow_mut(|timers| std::mem::take(&mut timers.waiting));
        }
    }

    pub(crate) fn now() -> Option<Instant> {
        let now = NOW.get()?;
        NOW.set(Some(now + LOOK.get()));
        Some(now)
    }

    /// Polls a wait until `at` of one who could wait on any thread.
    pub(in crate::time) fn poll(at: Instant, context: &Context<'_>) -> Poll<()> {
        if super::now() >= at {
            return Poll::Ready(());
        }
        let _timer = super::set(at, context.waker().clone());
        Poll::Pending
    }

    /// Goes on to the next moment that somebody waits for, and wakes all who wait for it; false if
    /// nobody waits.
    pub(crate) fn advance() -> bool {
        let Some(next) = super::next() else { return false };
        NOW.set(Some(next));
        super::wake_due();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_timer_that_is_dropped_leaves_nothing_behind() {
        let start = Instant::now();
        let _stopped = simulated::stop_at(start);
        let mut context = Context::from_waker(Waker::noop());
        {
            let mut sleep = pin!(LocalSleep::until(start + SECOND));
            assert!(sleep.as_mut().poll(&mut context).is_pending());
            assert_eq!(next(), Some(start + SECOND));
        }
        assert_eq!(next(), None);
    }

    #[test]
    fn timers_run_out_in_the_order_of_their_moments() {
        let start = Instant::now();
        let _stopped = simulated::stop_at(start);
        let mut context = Context::from_waker(Waker::noop());
        let [mut first, mut second] =
            [2, 1].map(|seconds| Box::pin(LocalSleep::until(start + seconds * SECOND)));
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(simulated::advance());
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_ready());
        assert!(simulated::advance());
        assert!(first.as_mut().poll(&mut context).is_ready());
        assert!(!simulated::advance());
    }
}
