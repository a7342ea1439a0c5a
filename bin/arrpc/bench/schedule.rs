//! When requests go out: as soon as a connection is free, or at a fixed rate; and until when.

use std::time::{Duration, Instant};

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Goal {
    Requests(u64),
    Lasting(Duration),
}

/// The requests of one thread.
#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Option<Pace>,
    /// Requests that have not been taken; `None` for as many as there is time for.
    left: Option<u64>,
    end: Option<Instant>,
}

/// A fixed rate. A request is due at its time whether or not the ones before it are answered.
#[derive(Debug)]
struct Pace {
    first: Instant,
    /// In seconds: whole nanoseconds would drift by the rest of each interval.
    interval: f64,
    taken: u64,
}

impl Goal {
    /// The part of this goal that is for one of several threads.
    fn share(self, thread: usize, threads: usize) -> Self {
        let (thread, threads) = (thread as u64, threads as u64);
        match self {
            Self::Requests(all) => {
                Self::Requests(all / threads + u64::from(thread < all % threads))
            }
            lasting => lasting,
        }
    }
}

impl Schedule {
    /// Begins now. The threads take turns at the `rate` of requests a second in all; without one a
    /// request may go out at any time.
    pub(crate) fn start(goal: Goal, rate: Option<f64>, thread: usize, threads: usize) -> Self {
        let start = Instant::now();
        let pace = rate.map(|rate| Pace {
            first: start + seconds(thread as f64 / rate),
            interval: threads as f64 / rate,
            taken: 0,
        });
        let (left, end) = match goal.share(thread, threads) {
            Goal::Requests(requests) => (Some(requests), None),
            Goal::Lasting(duration) => {
                let end = start.checked_add(duration);
                (pace.as_ref().zip(end).map(|(pace, end)| pace.due_before(end)), end)
            }
        };
        Self { pace, left, end }
    }

    /// Takes requests that may go out at any time, so many at the most.
    pub(crate) fn take(&mut self, at_most: usize, now: Instant) -> usize {
        if self.is_over(now) {
            return 0;
        }
        let Some(left) = &mut self.left else { return at_most };
        let taken = at_most.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= taken as u64;
        taken
    }

    /// Takes a request that is due, and returns since when.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due().filter(|due| *due <= now && !self.is_over(now))?;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        if let Some(pace) = &mut self.pace {
            pace.taken += 1;
        }
        Some(due)
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.pace.as_ref().filter(|_| self.left != Some(0)).map(Pace::next)
    }

    pub(crate) fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Whether no more requests will go out.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.left == Some(0) || self.end.is_some_and(|end| end <= now)
    }

    /// The end, if it is one in time.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.end
    }

    /// How many requests should have gone out and did not: of all, or in a run without an end of
    /// those that were due.
    pub(crate) fn unsent(&self, now: Instant) -> u64 {
        self.left.unwrap_or_else(|| {
            self.pace.as_ref().map_or(0, |pace| pace.due_before(now).saturating_sub(pace.taken))
        })
    }
}

impl Pace {
    fn next(&self) -> Instant {
        self.first + seconds(self.interval * self.taken as f64)
    }

    fn due_before(&self, end: Instant) -> u64 {
        let time = end.saturating_duration_since(self.first);
        (time.as_secs_f64() / self.interval).ceil() as u64
    }
}

/// A time that a rate may make very long.
fn seconds(seconds: f64) -> Duration {
    /// Longer than any run, and short enough to be added to any `Instant`.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_threads_are_the_whole() {
        let shares = (0..4).map(|thread| Goal::Requests(10).share(thread, 4));
        assert!(shares.eq([3, 3, 2, 2].map(Goal::Requests)));
    }

    #[test]
    fn no_more_requests_are_taken_than_the_goal() {
        let mut schedule = Schedule::start(Goal::Requests(5), None, 0, 1);
        let now = Instant::now();
        assert_eq!([3, 3, 3].map(|most| schedule.take(most, now)), [3, 2, 0]);
        assert!(schedule.is_over(now));
    }

    #[test]
    fn requests_are_due_at_a_fixed_rate_whenever_they_are_taken() {
        let mut schedule = Schedule::start(Goal::Lasting(Duration::from_secs(1)), Some(4.0), 0, 1);
        let first = schedule.next_due().unwrap();
        let late = first + Duration::from_millis(600);
        let due = [(); 4].map(|()| schedule.take_due(late).map(|due| due - first));
        assert_eq!(
            due,
            [Some(0), Some(250), Some(500), None].map(|ms| ms.map(Duration::from_millis))
        );
        assert!(schedule.is_over(first + Duration::from_secs(1)));
        assert_eq!(schedule.unsent(late), 1);
    }

    #[test]
    fn a_run_without_an_end_owes_what_was_due() {
        let goal = Goal::Lasting(Duration::MAX);
        let mut free = Schedule::start(goal, None, 0, 1);
        let now = Instant::now();
        assert_eq!((free.take(7, now), free.unsent(now)), (7, 0));
        let mut paced = Schedule::start(goal, Some(4.0), 0, 1);
        let later = paced.next_due().unwrap() + Duration::from_millis(900);
        assert!(paced.take_due(later).is_some());
        assert_eq!(paced.unsent(later), 3);
        assert!(!paced.is_over(later));
    }

    #[test]
    fn two_threads_take_turns() {
        let goal = Goal::Lasting(Duration::from_secs(1));
        for thread in [0, 1] {
            let schedule = Schedule::start(goal, Some(10.0), thread, 2);
            assert_eq!(schedule.unsent(Instant::now()), 5);
            assert_eq!(schedule.pace.unwrap().interval, 0.2);
        }
    }
}
