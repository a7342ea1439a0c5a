//! A connection that many calls share. Their requests go out together in as few writes as there can
//! be, and each reply goes to the call that has waited for longest: servers answer in order (G1). A
//! call that ends early leaves its place, so that the reply that still comes is discarded (G2).
//!
//! A task of its own, the driver, reads and writes. Between it and the calls is one lock, taken
//! twice for a call, and twice for each look at the stream, however many replies that brings.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use slab::Slab;
use smol::io::{AsyncRead, AsyncWrite};

use super::connect::as_tls_error;
use super::request::not_a_reply;
use crate::metrics::OpenConnection;
use crate::net::connection::{Connection, READ_BUFFER_BYTES};
use crate::wire::guard::Foreign;
use crate::wire::{self, Limits};
use crate::{Error, Value, time};

/// Reads in one poll of the driver, before other tasks of its thread have their turn.
const READS_PER_POLL: usize = 16;

/// Calls that are woken in one poll of the driver, before it has its next turn and sends what they
/// ask for: the server works on that while the others are run. With 256 calls that ask again at
/// once, 1,780,000 a second on two processors, where waking all of them together makes it
/// 1,070,000.
const WAKES_PER_POLL: usize = 64;

/// What a link's `load` is when it takes no further calls.
const UNUSABLE: usize = usize::MAX;

/// The side of the calls.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<State>,
    /// The replies that are owed, or [`UNUSABLE`]: to choose a link without its lock.
    load: AtomicUsize,
    /// The calls that it may have on their way.
    depth: usize,
    made: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that the driver has not taken yet.
    output: Vec<u8>,
    calls: Slab<Call>,
    /// The calls whose replies are to come, in the order of their requests.
    owed: VecDeque<usize>,
    /// How many of those nobody waits for any more.
    abandoned: usize,
    /// The driver, while it sleeps.
    driver: Option<Waker>,
    /// No further calls are taken, and the driver ends when nobody waits for a reply.
    closed: bool,
}

#[derive(Debug)]
enum Call {
    Waiting(Waker),
    Answered(Result<Received, Error>),
    Abandoned,
}

/// What a server sends for a call.
#[derive(Debug)]
pub(super) enum Received {
    Value(Value),
    /// A message that its call alone can open.
    Sealed(Vec<u8>),
}

impl Link {
    fn new(depth: usize) -> Self {
        Self { state: Mutex::default(), load: AtomicUsize::new(0), depth, made: time::now() }
    }

    pub(super) fn made(&self) -> Instant {
        self.made
    }

    /// The replies that are owed; `None` if the link is closed, or if nobody waits for one of them
    /// any more: that may be long in coming, and new calls go there only for want of another link.
    pub(super) fn load(&self) -> Option<usize> {
        Some(self.load.load(Ordering::Relaxed)).filter(|load| *load != UNUSABLE)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// How many replies are owed.
    pub(super) fn owed(&self) -> usize {
        self.state().owed.len()
    }

    /// Takes no further calls; those on their way go on.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        self.unlock(state, true);
    }

    /// Sends a request and waits for its reply; `None` if the link was closed before, or has
    /// `depth` calls on their way already. Dropped early, it has perhaps been sent.
    pub(super) fn call<'a>(&'a self, request: &'a [u8], depth: usize) -> Exchange<'a> {
        Exchange { link: self, request, depth, key: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change of the state, and wakes the driver if it is to see it.
    fn unlock(&self, mut state: MutexGuard<'_, State>, is_for_driver: bool) {
        let load = match state.closed || state.abandoned > 0 {
            true => UNUSABLE,
            false => state.owed.len(),
        };
        self.load.store(load, Ordering::Relaxed);
        let driver = if is_for_driver { state.driver.take() } else { None };
        drop(state); // a waker may run the driver at once
        driver.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// Whether nobody waits for what is still to come.
    fn is_deserted(&self) -> bool {
        self.abandoned == self.owed.len()
    }

    /// Answers the call that is first in line, and returns whom to wake; an error if there is none.
    fn answer(&mut self, reply: Result<Received, Error>) -> Result<Option<Waker>, Unasked> {
        let key = self.owed.pop_front().ok_or(Unasked)?;
        match self.calls.get_mut(key) {
            Some(call @ Call::Waiting(_)) => match mem::replace(call, Call::Answered(reply)) {
                Call::Waiting(waker) => Ok(Some(waker)),
                Call::Answered(_) | Call::Abandoned => Ok(None),
            },
            _ => {
                self.abandoned -= 1;
                self.calls.try_remove(key);
                Ok(None)
            }
        }
    }
}

/// A reply that no call has asked for.
struct Unasked;

/// A call: a request on its way, or waiting for its reply.
pub(super) struct Exchange<'a> {
    link: &'a Link,
    request: &'a [u8],
    depth: usize,
    /// Set while the reply is owed.
    key: Option<usize>,
}

impl Future for Exchange<'_> {
    type Output = Option<Result<Received, Error>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.link.state();
        let Some(key) = self.key else {
            if state.closed || state.owed.len() >= self.depth {
                return Poll::Ready(None);
            }
            state.output.extend_from_slice(self.request);
            let key = state.calls.insert(Call::Waiting(context.waker().clone()));
            state.owed.push_back(key);
            self.link.unlock(state, true);
            self.key = Some(key);
            return Poll::Pending;
        };
        if let Some(Call::Waiting(waker)) = state.calls.get_mut(key) {
            waker.clone_from(context.waker());
            return Poll::Pending;
        }
        let call = state.calls.try_remove(key);
        drop(state);
        self.key = None;
        match call {
            Some(Call::Answered(reply)) => Poll::Ready(Some(reply)),
            // Only this future takes a call out of the slab that nobody abandoned.
            Some(Call::Waiting(_) | Call::Abandoned) | None => Poll::Ready(None),
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut state = self.link.state();
        let _reply = match state.calls.get_mut(key) {
            Some(call @ Call::Waiting(_)) => {
                let waker = mem::replace(call, Call::Abandoned);
                state.abandoned += 1;
                // As a connection for one call at a time is closed when that ends early: what the
                // server does with the request may take for ever. With others still waiting there,
                // not at once, but before more replies are owed than there may be.
                state.closed |= state.is_deserted() || state.abandoned >= self.link.depth;
                Some(waker)
            }
            _ => state.calls.try_remove(key),
        };
        let closed = state.closed;
        self.link.unlock(state, closed);
    }
}

/// The side of the stream: a future that ends when the connection does.
pub(crate) struct Driver<S> {
    link: Arc<Link>,
    connection: Connection<S>,
    limits: Limits,
    /// Replies are encrypted, so that they are not decoded here.
    encrypted: bool,
    address: Arc<str>,
    /// The first bytes were looked at for another protocol.
    recognised: bool,
    /// Those of one read, so that they are handed out under one lock.
    replies: Vec<Received>,
    /// The calls that have their replies, and were not told yet.
    wakers: Vec<Waker>,
    _counted: Option<OpenConnection>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(
        stream: S,
        depth: usize,
        limits: Limits,
        encrypted: bool,
        address: Arc<str>,
        counted: Option<OpenConnection>,
    ) -> (Arc<Link>, Self) {
        let link = Arc::new(Link::new(depth));
        let driver = Self {
            link: link.clone(),
            connection: Connection::new(stream),
            limits,
            encrypted,
            address,
            recognised: false,
            replies: Vec::new(),
            wakers: Vec::new(),
            _counted: counted,
        };
        (link, driver)
    }

    /// Reads and writes until there is nothing to do; an error, or the end of the link, ends it.
    fn advance(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut reads = 0;
        loop {
            self.take_requests();
            if let Poll::Ready(Err(error)) = self.connection.poll_flush(context) {
                return Poll::Ready(Err(self.disconnected(error)));
            }
            self.wake_callers(WAKES_PER_POLL);
            if !self.wakers.is_empty() || reads >= READS_PER_POLL {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.connection.poll_read(context) {
                Poll::Ready(Ok(0)) => {
                    let end = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(self.disconnected(end)));
                }
                Poll::Ready(Ok(_)) => {
                    reads += 1;
                    self.find_replies()?;
                    self.hand_out()?;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.disconnected(error))),
                Poll::Pending => {
                    if let Some(polled) = self.rest(context) {
                        return polled;
                    }
                }
            }
        }
    }

    /// Takes the requests that came since the last look, in one buffer.
    fn take_requests(&mut self) {
        let mut state = self.link.state();
        let output = self.connection.output();
        match output.is_empty() {
            true => mem::swap(output, &mut state.output),
            false => output.append(&mut state.output),
        }
    }

    /// Sleeps if there is nothing to write, ends if there never will be; `None` if there is more.
    fn rest(&mut self, context: &Context<'_>) -> Option<Poll<Result<(), Error>>> {
        let mut state = self.link.state();
        if state.closed && state.is_deserted() {
            return Some(Poll::Ready(Ok(())));
        }
        if !state.output.is_empty() {
            return None;
        }
        if state.owed.is_empty() {
            // The beginning of a reply that nobody has asked for: it must not become that of the
            // next call.
            if !self.connection.unread().is_empty() {
                return Some(Poll::Ready(Err(self.unasked())));
            }
            state.output.shrink_to(READ_BUFFER_BYTES);
            self.connection.shrink();
        }
        state.driver = Some(context.waker().clone());
        Some(Poll::Pending)
    }

    /// Takes the replies that are complete.
    fn find_replies(&mut self) -> Result<(), Error> {
        if !mem::replace(&mut self.recognised, true)
            && let Some(foreign) = Foreign::recognise_server(self.connection.unread())
        {
            return Err(Error::Protocol(format!("{} {}", self.address, foreign.advice())));
        }
        while let Some((message, _)) =
            self.connection.next_message(&self.limits).map_err(not_a_reply)?
        {
            self.replies.push(match self.encrypted {
                true => Received::Sealed(message.bytes.to_vec()),
                false => Received::Value(wire::decode(message.bytes).map_err(not_a_reply)?),
            });
        }
        Ok(())
    }

    fn disconnected(&self, error: io::Error) -> Error {
        as_tls_error(&self.address, error).unwrap_or_else(|source| self.lost(source))
    }
}

impl<S> Driver<S> {
    /// Gives each reply to its call.
    fn hand_out(&mut self) -> Result<(), Error> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let mut state = self.link.state();
        let mut is_unasked = false;
        for reply in self.replies.drain(..) {
            match state.answer(Ok(reply)) {
                Ok(waker) => self.wakers.extend(waker),
                Err(Unasked) => is_unasked = true,
            }
        }
        self.link.unlock(state, false);
        if is_unasked { Err(self.unasked()) } else { Ok(()) }
    }

    fn unasked(&self) -> Error {
        Error::Protocol(format!("{} sent more replies than requests", self.address))
    }

    fn wake_callers(&mut self, at_most: usize) {
        self.wakers.drain(..at_most.min(self.wakers.len())).for_each(Waker::wake);
    }

    fn lost(&self, source: io::Error) -> Error {
        Error::Disconnected { address: self.address.to_string(), source }
    }

    /// Ends all calls: the first in line with the error itself, as it is the one that has met it.
    fn fail(&mut self, error: Error) {
        // What came before the error is good.
        let _ = self.hand_out();
        let (kind, text) = match &error {
            Error::Disconnected { source, .. } => (source.kind(), source.to_string()),
            other => (io::ErrorKind::ConnectionAborted, other.to_string()),
        };
        let mut state = self.link.state();
        state.closed = true;
        state.output = Vec::new();
        let mut next = Some(error);
        while !state.owed.is_empty() {
            let error = next.take().unwrap_or_else(|| self.lost(io::Error::new(kind, &*text)));
            if let Ok(waker) = state.answer(Err(error)) {
                self.wakers.extend(waker);
            }
        }
        self.link.unlock(state, false);
        self.wake_callers(usize::MAX);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.advance(context).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(server = %self.address, %error, "connection lost");
                self.fail(error);
            }
        })
    }
}

impl<S> Drop for Driver<S> {
    /// An executor that ends drops its tasks: then no call may wait for ever.
    fn drop(&mut self) {
        self.fail(self.lost(io::ErrorKind::ConnectionAborted.into()));
    }
}
