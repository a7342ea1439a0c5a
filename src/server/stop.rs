//! How a server stops: in steps, so that each session answers what it has read, and its connection
//! is reset only when the peer has all replies and has had the time to read them.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use crate::time::LocalSleep;

/// What a peer has to read a reply before its connection is reset, at the least: on some systems a
/// reset discards what is not read.
const STEP: Duration = Duration::from_millis(100);

/// The peers whose machines have not acknowledged all that was sent to them.
pub(crate) type Undelivered = HashSet<(IpAddr, u16)>;

/// The stop of one worker.
pub(crate) struct Stop {
    /// The steps that were taken; 0 while the server serves.
    step: Cell<u32>,
    /// The sessions that look again at the next step.
    waiting: RefCell<Vec<Waker>>,
    ask_undelivered: Box<dyn Fn() -> Undelivered>,
    /// What that said in this step, if it was asked.
    undelivered: RefCell<Option<Undelivered>>,
}

impl Stop {
    pub(crate) fn new(ask_undelivered: impl Fn() -> Undelivered + 'static) -> Self {
        Self {
            step: Cell::default(),
            waiting: RefCell::default(),
            ask_undelivered: Box::new(ask_undelivered),
            undelivered: RefCell::default(),
        }
    }

    /// Lets the sessions end. Never returns: their ends are for others to see.
    pub(crate) async fn run(&self, wake_all: impl FnOnce()) {
        self.step.set(1);
        wake_all();
        loop {
            LocalSleep::lasting(STEP).await;
            self.step.update(|step| step + 1);
            self.undelivered.take();
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Whether the server was told to stop.
    pub(super) fn is_on(&self) -> bool {
        self.step.get() > 0
    }

    /// Wakes a task at the next step.
    pub(super) fn wait(&self, waker: Waker) {
        self.waiting.borrow_mut().push(waker);
    }

    /// Whether a peer has all that was written. What a Unix socket takes is with its peer.
    fn is_delivered(&self, peer: Option<SocketAddr>) -> bool {
        let Some(peer) = peer else { return true };
        let mut undelivered = self.undelivered.borrow_mut();
        let undelivered = undelivered.get_or_insert_with(&self.ask_undelivered);
        !undelivered.contains(&(peer.ip(), peer.port()))
    }
}

/// The part of one session in a stop.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// The step in which the stream had taken the last reply to its end.
    flushed_in_step: u32,
    /// All that had come when the stop began is read.
    read_out: bool,
}

impl Parting {
    /// Whether more messages are accepted: a stop takes those that have come when it begins, as far
    /// as they can be read within a step.
    pub(super) fn may_read(&self, stop: &Stop) -> bool {
        match stop.step.get() {
            0 => true,
            step => step == 1 && !self.read_out,
        }
    }

    pub(super) fn read_out(&mut self) {
        self.read_out = true;
    }

    pub(super) fn flushed(&mut self, stop: &Stop) {
        self.flushed_in_step = stop.step.get();
    }

    /// Whether a session with nothing left to answer may end.
    pub(super) fn is_over(&self, stop: &Stop, peer: Option<SocketAddr>) -> bool {
        stop.step.get() >= self.flushed_in_step + 2 && stop.is_delivered(peer)
    }
}
