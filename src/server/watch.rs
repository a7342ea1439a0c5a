//! The deadline of a session: of what it waits for, and since when. One timer a session, and set
//! anew only when it has run out or is too late: a wait that ends in time costs no timer at all.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::time::{self, LocalSleep};

/// What a session waits for. One wait ends when another begins: the numbers tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The rest of a message, the one behind so many.
    Message { behind: u64 },
    /// A peer that takes replies, of which it has taken so many bytes.
    Write { taken: u64 },
    /// The next message, behind so many.
    Idle { behind: u64 },
}

/// The time that a session has for its waits.
#[derive(Debug, Default)]
pub(super) struct Watch {
    wait: Option<(Wait, Instant)>,
    /// Set for the end of this wait, or of an earlier one: then it is in vain.
    sleep: Option<LocalSleep>,
}

impl Watch {
    /// Ready when `wait` has lasted for `timeout`; else the task is woken when it has.
    pub(super) fn poll(
        &mut self,
        wait: Wait,
        timeout: Duration,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let since = match self.wait {
            Some((known, since)) if known == wait => since,
            _ => self.wait.insert((wait, time::now())).1,
        };
        // A sum beyond what an instant can tell never comes.
        let Some(due) = since.checked_add(timeout) else { return Poll::Pending };
        loop {
            let sleep = match &mut self.sleep {
                Some(sleep) if sleep.at() <= due => sleep,
                sleep => sleep.insert(LocalSleep::until(due)),
            };
            let at = sleep.at();
            if Pin::new(sleep).poll(context).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
            if at == due {
                return Poll::Ready(());
            }
        }
    }

    /// Ends the wait: the session is kept from it by something of its own.
    pub(super) fn pause(&mut self) {
        self.wait = None;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::time::simulated;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_wait_that_goes_on_ends_at_its_deadline_and_others_do_not() {
        let start = Instant::now();
        let _stopped = simulated::stop_at(start);
        let mut context = Context::from_waker(Waker::noop());
        let mut watch = Watch::default();
        let first = Wait::Message { behind: 0 };
        assert!(watch.poll(first, 3 * SECOND, &mut context).is_pending());
        let later = Wait::Idle { behind: 1 };
        assert!(watch.poll(later, 5 * SECOND, &mut context).is_pending());
        assert!(simulated::advance());
        assert_eq!(time::now(), start + 3 * SECOND, "one timer, set for the first");
        assert!(watch.poll(later, 5 * SECOND, &mut context).is_pending());
        assert!(simulated::advance());
        assert_eq!(time::now(), start + 5 * SECOND);
        assert!(watch.poll(later, 5 * SECOND, &mut context).is_ready());
    }

    #[test]
    fn an_earlier_deadline_sets_the_timer_anew() {
        let start = Instant::now();
        let _stopped = simulated::stop_at(start);
        let mut context = Context::from_waker(Waker::noop());
        let mut watch = Watch::default();
        assert!(watch.poll(Wait::Idle { behind: 0 }, 9 * SECOND, &mut context).is_pending());
        let earlier = Wait::Write { taken: 7 };
        assert!(watch.poll(earlier, SECOND, &mut context).is_pending());
        assert!(simulated::advance());
        assert!(watch.poll(earlier, SECOND, &mut context).is_ready());
    }

    #[test]
    fn a_pause_begins_the_wait_anew_and_no_end_is_no_deadline() {
        let start = Instant::now();
        let _stopped = simulated::stop_at(start);
        let mut context = Context::from_waker(Waker::noop());
        let mut watch = Watch::default();
        let wait = Wait::Message { behind: 3 };
        assert!(watch.poll(wait, SECOND, &mut context).is_pending());
        watch.pause();
        assert!(simulated::advance());
        assert!(watch.poll(wait, SECOND, &mut context).is_pending());
        assert!(watch.poll(Wait::Idle { behind: 3 }, Duration::MAX, &mut context).is_pending());
    }
}
