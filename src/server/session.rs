//! One connection of a server, from its first byte to its last: messages in, handler, replies out
//! in order. Generic over the stream; knows neither sockets nor TLS.
//!
//! One future reads, handles and writes; nothing is queued between the socket and a handler that
//! answers at once. Per wake it handles what has arrived, up to its share of the thread, and writes
//! once when no complete message is left.
//!
//! What a request costs, `{"foo": "bar"}` and the reply `"got it"`, plain over TCP:
//!
//! | | in lockstep | 64 in one write |
//! |---|---|---|
//! | system calls: `epoll_wait`, `recvfrom`, `sendto` | 3 | 3 for all |
//! | wakes of the session's task, each by the reactor of its own thread | 1 | 1 for all |
//! | allocations: the map, its two texts, the reply's text | 4 | 4 |
//! | the same for a raw handler | 0 | 0 |
//! | copies: out of the kernel, texts into the value, reply into the output, into the kernel | 4 | 4 |
//! | looks at the clock | 0 | 0 |
//! | the same with metrics | 2 | 1 |
//! | instructions outside of the kernel, the handler's included | 3,190 | 1,520 |
//! | the same with metrics | 3,340 | 1,630 |
//! | the same for a raw handler | 2,040 | 370 |
//!
//! Counted with `strace -c -p THREAD`, with callgrind in the server of `benches/compare` (release
//! with thin LTO, all instructions by all requests), and, in `tests/allocations.rs`, with the
//! allocator. Metrics, signatures and encryption allocate nothing, timers are set only where
//! something waits, and no other thread is woken.

mod replies;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Instant;

use super::budget::{Holding, decoded_bytes};
use super::context::Context;
use super::ending::Ending;
use super::exchange::{Account, Exchange};
use super::presence::Presence;
use super::queue::Queue;
use super::response::Answer;
use super::sealing::Sealing;
use super::service::{AnyHandler, Refusal, Service, call_raw, call_values};
use super::stop::{Parting, Stop};
use super::watch::{Wait, Watch};
use crate::metrics::ServerConnectionMetrics;
use crate::net::connection::{Buffers, Connection};
use crate::net::reactor::Deferred;
use crate::net::stream::{Transport, linger};
use crate::wire;
use crate::wire::guard::Foreign;
use crate::wire::reply;

/// Reads per wake before other connections have their turn.
const TURNS_PER_WAKE: usize = 4;

/// Bytes of messages per wake before other connections have their turn: a millisecond of work
/// beside that of the handlers.
const BYTES_PER_WAKE: usize = 64 * 1024;

/// Unwritten replies beyond which a session writes before it handles more.
const WRITE_BATCH_BYTES: usize = 256 * 1024;

/// Messages with a bad signature in a row, behind which the connection is closed.
const MAX_REFUSED_SIGNATURES: u32 = 3;

/// What a message takes of a session's share at the least: a call of the handler costs more than
/// the bytes of a small one, so that there are a thousand calls in a wake at the most.
const MIN_SHARE_BYTES: usize = 64;

/// What each of its values takes: as much time as so many bytes of a text.
const SHARE_BYTES_PER_VALUE: usize = 8;

/// What the sessions of one worker share.
pub(crate) struct Shared {
    buffers: RefCell<Buffers>,
    deferred: Rc<Deferred>,
    pub(crate) stop: Stop,
}

impl Shared {
    pub(crate) fn new(deferred: Rc<Deferred>, stop: Stop) -> Self {
        Self { buffers: RefCell::default(), deferred, stop }
    }
}

/// The state of one connection.
pub(crate) struct Session<S> {
    connection: Connection<S>,
    service: Arc<Service>,
    shared: Rc<Shared>,
    context: Context,
    /// `None` once no more messages come, and the handler knows.
    presence: Option<Presence>,
    metrics: Option<ServerConnectionMetrics>,
    /// Requests whose handlers are not done, and replies that wait behind them, in order.
    queue: Queue,
    /// `None` if replies are not encrypted.
    sealing: Option<Box<Sealing>>,
    holding: Holding,
    watch: Watch,
    /// Messages so far.
    messages: u64,
    /// Those that were not verified since one was.
    refused_signatures: u32,
    /// Bytes of messages that may still be handled in this wake.
    share: usize,
    parting: Parting,
    /// When the last message was answered, if the next one followed at once: then its time begins
    /// there, which saves a look at the clock. That takes as long as decoding a small message.
    lap: Option<Instant>,
    /// The first bytes were looked at for another protocol.
    recognised: bool,
    /// Set when nothing more is read: the connection ends once all is answered.
    ending: Option<Ending>,
}

impl<S: Transport> Session<S> {
    pub(crate) fn new(
        stream: S,
        service: Arc<Service>,
        shared: Rc<Shared>,
        context: Context,
    ) -> Box<Self> {
        let origin = context.origin();
        let metrics = service.metrics.as_ref().map(|metrics| metrics.connection(origin.machine()));
        let sealing = service.protection.is_encrypted().then(Box::default);
        let holding = Holding::new(service.budget.clone());
        let presence = Some(Presence::begin(&service, &context));
        Box::new(Self {
            connection: Connection::new(stream),
            service,
            shared,
            context,
            presence,
            metrics,
            queue: Queue::default(),
            sealing,
            holding,
            watch: Watch::default(),
            messages: 0,
            refused_signatures: 0,
            share: 0,
            parting: Parting::default(),
            lap: None,
            recognised: false,
            ending: None,
        })
    }

    /// Serves the connection to its end. Boxed: a future has room for what it is called with and
    /// for what it makes of that, two sessions here, for all of a connection's life.
    pub(crate) async fn run(mut self: Box<Self>) -> Ending {
        let ending = poll_fn(|context| self.poll(context)).await;
        self.presence = None;
        let stream = self.connection.into_stream();
        self.queue.forget_replies();
        let _ = self.holding.settle(self.queue.held()); // true: it gives back
        match ending {
            // See `reset_on_close` for why a reset. It also discards what the peer does not take.
            Ending::Stopped | Ending::Idle | Ending::Unread | Ending::NoMemory => {
                stream.reset_on_close();
                drop(stream);
            }
            // A peer that has closed its side may still read, and over TLS it wants to hear of the
            // end.
            Ending::Refused | Ending::PeerClosed => linger(stream).await,
            Ending::Lost(_) => drop(stream),
        }
        // Nobody waits for the replies any more, but what was begun comes to its end.
        self.queue.run_out().await;
        ending
    }

    fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<Ending> {
        self.connection.borrow_buffers(&mut self.shared.buffers.borrow_mut());
        let polled = self.advance(context);
        self.connection.return_buffers(&mut self.shared.buffers.borrow_mut());
        if self.ending.is_some() {
            self.presence = None;
        }
        if polled.is_pending() {
            if !self.holding.settle(self.connection.held() + self.queue.held()) {
                // It cannot be refused any more: it was handled, or stands behind replies.
                self.count("max_memory_bytes");
                return Poll::Ready(Ending::NoMemory);
            }
            if self.shared.stop.is_on() {
                self.shared.stop.wait(context.waker().clone());
            }
        }
        polled
    }

    /// Goes on until the session has ended, must wait, or has had its share.
    fn advance(&mut self, context: &mut task::Context<'_>) -> Poll<Ending> {
        self.share = BYTES_PER_WAKE;
        for _ in 0..TURNS_PER_WAKE {
            let drained = self.handle_messages(context);
            self.collect_replies(context);
            if !drained && self.has_room() {
                continue;
            }
            if !self.connection.is_flushed() {
                if let Err(ending) = ready!(self.flush(context)) {
                    return Poll::Ready(ending);
                }
                self.parting.flushed(&self.shared.stop);
            }
            if !drained {
                if self.has_room() {
                    continue;
                }
                if self.share == 0 {
                    break;
                }
                self.watch.pause();
                return Poll::Pending; // a handler that finishes wakes us
            }
            if let Some(ending) = self.ending.take_if(|_| self.queue.is_empty()) {
                return Poll::Ready(ending);
            }
            if self.ending.is_some() {
                return Poll::Pending;
            }
            if !self.parting.may_read(&self.shared.stop) {
                let is_over = self.queue.is_empty()
                    && self.parting.is_over(&self.shared.stop, self.context.peer_addr());
                return if is_over { Poll::Ready(Ending::Stopped) } else { Poll::Pending };
            }
            if !self.has_memory_to_read() {
                continue;
            }
            match self.connection.poll_read(context) {
                Poll::Ready(Ok(0)) => self.ending = Some(Ending::PeerClosed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Ending::Lost(error)),
                Poll::Pending if self.shared.stop.is_on() => self.parting.read_out(),
                Poll::Pending => ready!(self.wait_for_message(context)),
            }
        }
        if self.ending.is_none() {
            // What the last read has brought is refused now, or not at all.
            let _ = self.has_memory_to_read();
        }
        self.shared.deferred.push(context.waker().clone());
        Poll::Pending
    }

    /// Writes what waits, or ends the session when the peer has taken nothing for too long.
    fn flush(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Ending>> {
        match self.connection.poll_flush(context) {
            Poll::Ready(flushed) => Poll::Ready(flushed.map_err(Ending::Lost)),
            Poll::Pending => {
                let wait = Wait::Write { taken: self.connection.taken() };
                ready!(self.watch.poll(wait, self.service.timeouts.write, context));
                self.count("write_timeout");
                Poll::Ready(Err(Ending::Unread))
            }
        }
    }

    /// Waits for what the peer sends, which wakes the task. Ready when that takes too long.
    fn wait_for_message(&mut self, context: &mut task::Context<'_>) -> Poll<()> {
        let timeouts = self.service.timeouts;
        let behind = self.messages;
        if !self.connection.unread().is_empty() {
            ready!(self.watch.poll(Wait::Message { behind }, timeouts.message, context));
            let mut account = self.open_account(self.connection.unread().len());
            self.refuse(Refusal::TimedOut { after: timeouts.message }, &mut account);
            self.ending = Some(Ending::Refused);
        } else if let (Some(timeout), true) = (timeouts.idle, self.queue.is_empty()) {
            ready!(self.watch.poll(Wait::Idle { behind }, timeout, context));
            self.count("idle_timeout");
            self.ending = Some(Ending::Idle);
        } else {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Whether the unfinished message may take the memory that it needs now; or else refuses it.
    fn has_memory_to_read(&mut self) -> bool {
        if self.holding.reserve(self.queue.held() + self.connection.memory_to_read()) {
            return true;
        }
        let mut account = self.open_account(self.connection.unread().len());
        self.refuse(Refusal::NoMemory { limit: self.service.budget.limit() }, &mut account);
        self.connection.discard_unread();
        self.ending = Some(Ending::Refused);
        false
    }

    /// Whether another message may be handled before something is written or finished.
    #[inline]
    fn has_room(&mut self) -> bool {
        self.share > 0
            && self.queue.len() < self.service.max_in_flight
            && self.connection.unwritten() + self.queue.done_bytes() < WRITE_BATCH_BYTES
            && self.holding.reserve(self.queue.held() + self.connection.unwritten())
    }

    fn count(&self, limit: &'static str) {
        if let Some(metrics) = &self.metrics {
            metrics.refusal(limit);
        }
    }

    /// Handles the messages that have arrived, as far as there is room; true if no complete one is
    /// left.
    fn handle_messages(&mut self, context: &mut task::Context<'_>) -> bool {
        if !self.recognised && !self.connection.unread().is_empty() {
            self.recognised = true;
            if let Some(foreign) = Foreign::recognise(self.connection.unread()) {
                self.turn_away(foreign);
            }
        }
        self.lap = None; // from before a wait, perhaps
        while !matches!(self.ending, Some(Ending::Refused)) {
            if !self.has_room() {
                return false;
            }
            let held =
                self.queue.held() + self.connection.unwritten() + self.connection.large_input();
            let (message, output) = match self.connection.next_message(&self.service.limits) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(malformed) => {
                    // Where it ends is not known, so neither is where the next message begins.
                    let bytes = self.connection.unread().len();
                    let mut account = self.open_account(bytes);
                    self.refuse(malformed.into(), &mut account);
                    self.ending = Some(Ending::Refused);
                    break;
                }
            };
            let cost = message.bytes.len() + SHARE_BYTES_PER_VALUE * message.items;
            self.share = self.share.saturating_sub(cost.max(MIN_SHARE_BYTES));
            self.messages += 1;
            let started =
                self.metrics.as_ref().map(|_| self.lap.take().unwrap_or_else(Instant::now));
            let mut account = Account::open(message.bytes.len(), started);
            let opened = match self.service.open(message, self.sealing.as_deref_mut()) {
                Ok(opened) => opened,
                Err(refusal) => {
                    self.refuse(refusal, &mut account);
                    continue;
                }
            };
            account.memory = decoded_bytes(opened.bytes.len(), opened.items);
            if !self.holding.reserve(held + account.memory) {
                let limit = self.service.budget.limit();
                self.refuse(Refusal::NoMemory { limit }, &mut account);
                continue;
            }
            let start = output.len();
            match &self.service.handler {
                AnyHandler::Values(handler) => {
                    let value = match wire::decode(opened.bytes) {
                        Ok(value) => value,
                        Err(malformed) => {
                            self.refuse(malformed.into(), &mut account);
                            continue;
                        }
                    };
                    let answer = call_values(&**handler, value, &self.context);
                    self.take_answer(answer, start, &mut account, context);
                }
                // Nothing waits in the queue of a server that has one.
                AnyHandler::Raw(handler) => {
                    match call_raw(handler, opened.bytes, &self.context, output) {
                        Ok(()) => self.replied(start, Ok(()), &account),
                        Err(error) => self.reply(&account.reply(Err(error)), &account),
                    }
                }
            }
            self.refused_signatures = 0;
        }
        true
    }

    /// Begins to answer what is no whole message, and so cannot be opened.
    fn open_account(&mut self, bytes: usize) -> Account {
        if let Some(sealing) = &mut self.sealing {
            sealing.owe(None);
        }
        Account::open(bytes, self.metrics.as_ref().map(|_| Instant::now()))
    }

    /// Takes the account by reference, as most of what follows does, and looks at the value where
    /// it is: copying what was just written costs a small request a fifth of its time here. The
    /// output ended at `start` before.
    #[inline(always)]
    fn take_answer(
        &mut self,
        answer: Answer,
        start: usize,
        account: &mut Account,
        context: &mut task::Context<'_>,
    ) {
        if let (Answer::Ready(Ok(value)), true) = (&answer, self.queue.is_empty()) {
            reply::encode_value(value, self.connection.output());
            self.replied(start, Ok(()), account);
            return;
        }
        match answer {
            Answer::Ready(result) => {
                let reply = account.reply(result);
                self.reply(&reply, account);
            }
            Answer::Later(handler) => {
                let mut exchange = Exchange::new(
                    self.queue.next_number(),
                    handler,
                    self.service.timeouts.handler,
                    self.context.clone(),
                    *account,
                    self.metrics.as_ref().map(|metrics| metrics.request_started()),
                );
                // Many futures are ready at once: they need no place in the queue.
                match Pin::new(&mut exchange).poll(context) {
                    Poll::Ready((_, reply, account)) => self.reply(&reply, &account),
                    Poll::Pending => self.queue.push_running(exchange, *account),
                }
            }
        }
    }

    /// Answers a message that does not reach the handler.
    #[cold]
    fn refuse(&mut self, refusal: Refusal, account: &mut Account) {
        account.limit = Some(refusal.rule());
        account.reason = Some(refusal.reason());
        self.reply(&refusal.reply(), account);
        if !refusal.is_unverified() {
            self.refused_signatures = 0;
            return;
        }
        self.refused_signatures += 1;
        if self.refused_signatures >= MAX_REFUSED_SIGNATURES {
            self.ending = Some(Ending::Refused);
        }
    }

    /// Tells a peer that speaks another protocol so, and ends the session.
    #[cold]
    fn turn_away(&mut self, foreign: Foreign) {
        tracing::debug!(peer = %self.context.origin(), ?foreign, "not MessagePack, turned away");
        self.count("protocol");
        self.connection.output().extend_from_slice(foreign.answer());
        self.ending = Some(Ending::Refused);
    }
}
