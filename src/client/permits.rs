//! Permission to use a connection, handed out in the order in which it was asked for.
//!
//! The semaphores at hand let a newcomer take what a waiter was woken for, so that one busy task
//! keeps others waiting for ever.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
pub(crate) struct Permits {
    state: Mutex<State>,
}

/// Invariant: with `free` permits nobody waits that has not been granted one.
#[derive(Debug)]
struct State {
    free: usize,
    next_ticket: u64,
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
enum Waiter {
    Waiting(Waker),
    Granted,
}

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        let state = State { free: count, next_ticket: 0, waiting: BTreeMap::new() };
        Self { state: Mutex::new(state) }
    }

    /// Waits for a permit, behind all who wait already.
    pub(crate) fn acquire(&self) -> Acquire<'_> {
        Acquire { permits: self, ticket: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) {
        let mut state = self.state();
        let next = state.waiting.values_mut().find_map(|waiter| match waiter {
            Waiter::Granted => None,
            Waiter::Waiting(waker) => {
                let waker = waker.clone();
                *waiter = Waiter::Granted;
                Some(waker)
            }
        });
        if next.is_none() {
            state.free += 1;
        }
        drop(state); // a waker may ask for a permit at once
        next.into_iter().for_each(Waker::wake);
    }
}

/// A permit, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

pub(crate) struct Acquire<'a> {
    permits: &'a Permits,
    /// The place in the queue, from the first poll that found no permit to the one that does.
    ticket: Option<u64>,
}

impl<'a> Future for Acquire<'a> {
    type Output = Permit<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit<'a>> {
        let permits = self.permits;
        let mut state = permits.state();
        match self.ticket {
            None if state.free > 0 => state.free -= 1,
            None => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.waiting.insert(ticket, Waiter::Waiting(context.waker().clone()));
                self.ticket = Some(ticket);
                return Poll::Pending;
            }
            Some(ticket) => {
                if let Some(Waiter::Waiting(waker)) = state.waiting.get_mut(&ticket) {
                    waker.clone_from(context.waker());
                    return Poll::Pending;
                }
                state.waiting.remove(&ticket);
                self.ticket = None;
            }
        }
        Poll::Ready(Permit(permits))
    }
}

impl Drop for Acquire<'_> {
    /// Leaves the queue, and passes on what it was granted and has not taken.
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let left = self.permits.state().waiting.remove(&ticket);
        if matches!(left, Some(Waiter::Granted)) {
            self.permits.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<'a>(acquire: &mut Acquire<'a>) -> Option<Permit<'a>> {
        match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn permits_go_to_those_who_wait_in_their_order_and_not_to_newcomers() {
        let permits = Permits::new(1);
        let held = poll(&mut permits.acquire()).expect("it is free");
        let (mut first, mut second) = (permits.acquire(), permits.acquire());
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        drop(held);
        let mut newcomer = permits.acquire();
        assert!(poll(&mut newcomer).is_none() && poll(&mut second).is_none());
        let held = poll(&mut first).expect("it was the first");
        drop(held);
        assert!(poll(&mut newcomer).is_none());
        drop(poll(&mut second).expect("it was the second"));
        drop(poll(&mut newcomer).expect("nobody else waits"));
        assert_eq!(permits.state().free, 1);
        assert!(permits.state().waiting.is_empty());
    }

    #[test]
    fn who_gives_up_leaves_no_trace() {
        let permits = Permits::new(1);
        let held = poll(&mut permits.acquire()).expect("it is free");
        let (mut first, mut second, mut third) =
            (permits.acquire(), permits.acquire(), permits.acquire());
        for acquire in [&mut first, &mut second, &mut third] {
            assert!(poll(acquire).is_none());
        }
        drop(second); // waiting
        drop(held);
        drop(first); // granted
        drop(poll(&mut third).expect("what was granted is passed on"));
        assert_eq!(permits.state().free, 1);
        assert!(permits.state().waiting.is_empty());
    }
}
