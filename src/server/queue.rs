//! The requests of one connection that are not answered yet, in their order: handlers that run, and
//! replies that wait behind them. Knows no streams.

use std::collections::VecDeque;
use std::task::{self, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::exchange::{Account, Exchange};
use crate::wire::reply::Reply;

/// What a handler that runs takes beside its message, about: its future, its place here, and what
/// it waits in line with. Connections with 64 calls of 10 bytes in line each took 71 to 88 KiB.
const RUNNING_BYTES: usize = 1200;

/// Requests and replies in order.
///
/// Invariant: the place at index `i` belongs to request number `first + i`; an empty one has its
/// handler in `running`.
#[derive(Default)]
pub(super) struct Queue {
    /// Made for the first handler that waits: many connections have none, and it takes 400 bytes.
    running: Option<FuturesUnordered<Exchange>>,
    places: VecDeque<Option<Done>>,
    first: u64,
    /// The memory of the messages whose handlers run.
    running_bytes: usize,
    /// The replies in `places`.
    done_bytes: usize,
}

/// A reply on the wire's terms. Not a value: this is its smallest form, and its size is known.
pub(super) struct Done {
    pub(super) packed: Vec<u8>,
    pub(super) account: Account,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The number of the next request.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// The memory of its messages and replies.
    pub(super) fn held(&self) -> usize {
        self.running_bytes + self.done_bytes
    }

    /// The bytes of the replies that wait.
    pub(super) fn done_bytes(&self) -> usize {
        self.done_bytes
    }

    /// Adds a handler that runs, which has the [`next_number`](Self::next_number).
    pub(super) fn push_running(&mut self, exchange: Exchange, account: Account) {
        self.running_bytes += account.memory + RUNNING_BYTES;
        self.running.get_or_insert_default().push(exchange);
        self.places.push_back(None);
    }

    /// Adds a reply behind those that are still to come.
    pub(super) fn push_done(&mut self, done: Done) {
        self.done_bytes += done.packed.capacity();
        self.places.push_back(Some(done));
    }

    /// Takes a handler that has finished: its reply's number, for [`finish`](Self::finish).
    pub(super) fn poll_finished(
        &mut self,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<(u64, Reply, Account)>> {
        let Some(running) = &mut self.running else { return Poll::Ready(None) };
        let finished = running.poll_next_unpin(context);
        if let Poll::Ready(Some((_, _, account))) = &finished {
            self.running_bytes -= account.memory + RUNNING_BYTES;
        }
        finished
    }

    /// Takes the place of a handler that has finished if it is the first; false if it is not.
    pub(super) fn pop_running(&mut self, number: u64) -> bool {
        let is_first = number == self.first;
        if is_first {
            self.places.pop_front();
            self.first += 1;
        }
        is_first
    }

    /// Puts the reply of a handler that has finished in its place.
    pub(super) fn finish(&mut self, number: u64, done: Done) {
        if let Some(place) = self.places.get_mut((number - self.first) as usize) {
            self.done_bytes += done.packed.capacity();
            *place = Some(done);
        }
    }

    /// Takes the first reply, if it is there.
    pub(super) fn pop_done(&mut self) -> Option<Done> {
        let done = self.places.pop_front_if(|first| first.is_some())??;
        self.first += 1;
        self.done_bytes -= done.packed.capacity();
        Some(done)
    }

    /// Lets go of the replies, which nobody waits for any more.
    pub(super) fn forget_replies(&mut self) {
        self.places = VecDeque::new();
        self.done_bytes = 0;
    }

    /// Waits until no handler runs. For a queue whose replies are forgotten.
    pub(super) async fn run_out(self) {
        let mut running = self.running.unwrap_or_default();
        while running.next().await.is_some() {}
    }
}
