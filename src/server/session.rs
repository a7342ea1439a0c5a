//! One connection of a server, from its first byte to its last: messages in, handler, replies out
//! in order. Generic over the stream; knows neither sockets nor TLS.
//!
//! One future reads, handles and writes; nothing is queued between the socket and a handler that
//! answers at once. Per wake it handles what has arrived, up to its share of the thread, and writes
//! once when no complete message is left.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, Waker, ready};
use std::time::Duration;

use super::budget::{Holding, decoded_bytes};
use super::exchange::{Account, Exchange};
use super::handler::{Answer, Context};
use super::queue::{Done, Queue};
use super::service::{Refusal, Service};
use super::watch::{Wait, Watch};
use crate::Value;
use crate::metrics::ServerConnectionMetrics;
use crate::net::connection::{Buffers, Connection, READ_BUFFER_BYTES};
use crate::net::reactor::Deferred;
use crate::net::stream::{Transport, linger};
use crate::time::Sleep;
use crate::wire::guard::Foreign;
use crate::wire::reply::Reply;

/// Reads per wake before other connections have their turn.
const TURNS_PER_WAKE: usize = 4;

/// Bytes of messages per wake before other connections have their turn: some milliseconds of work
/// for messages that take as much of it as they can, a nil in each byte.
const BYTES_PER_WAKE: usize = 64 * 1024;

/// Unwritten replies beyond which a session writes before it handles more.
const WRITE_BATCH_BYTES: usize = 256 * 1024;

/// Messages with a bad signature in a row, behind which the connection is closed.
const MAX_REFUSED_SIGNATURES: u32 = 3;

/// The time between the steps of a stop: what a peer has to read a reply before its connection is
/// reset, at the least.
const STOP_STEP: Duration = Duration::from_millis(100);

/// What the sessions of one worker share.
pub(crate) struct Shared {
    buffers: RefCell<Buffers>,
    deferred: Rc<Deferred>,
    /// The steps that a stop has taken; 0 while the server serves.
    stop_step: Cell<u32>,
    /// The sessions that look again at the next step.
    waiting_for_step: RefCell<Vec<Waker>>,
    /// The peers whose machines have not acknowledged all that was sent to them.
    undelivered: RefCell<HashSet<SocketAddr>>,
}

impl Shared {
    pub(crate) fn new(deferred: Rc<Deferred>) -> Self {
        Self {
            buffers: RefCell::default(),
            deferred,
            stop_step: Cell::default(),
            waiting_for_step: RefCell::default(),
            undelivered: RefCell::default(),
        }
    }

    /// Lets the sessions end, each once it has answered what it has read and its peer has the
    /// replies. Never returns: the sessions' ends are for others to see.
    pub(crate) async fn stop(
        &self,
        wake_all: impl FnOnce(),
        undelivered: impl Fn() -> HashSet<SocketAddr>,
    ) {
        self.stop_step.set(1);
        wake_all();
        loop {
            Sleep::lasting(STOP_STEP).await;
            self.undelivered.replace(undelivered());
            self.stop_step.update(|step| step + 1);
            for waker in self.waiting_for_step.take() {
                waker.wake();
            }
        }
    }
}

/// How a session ended.
pub(crate) enum Ending {
    /// The peer closed the connection, and has all its replies.
    PeerClosed,
    /// The server stops; the peer has all its replies.
    Stopped,
    /// The peer sent what no session can go on from; it was told so.
    Refused,
    /// The connection was idle for longer than it may be.
    Idle,
    /// The peer does not take its replies.
    Unread,
    /// The stream failed.
    Lost(io::Error),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("the peer closed it"),
            Self::Stopped => f.write_str("the server stops"),
            Self::Refused => f.write_str("the peer was refused"),
            Self::Idle => f.write_str("it was idle for too long (idle_timeout)"),
            Self::Unread => f.write_str("the peer did not take its replies (write_timeout)"),
            Self::Lost(error) => write!(f, "{error}"),
        }
    }
}

/// The state of one connection.
pub(crate) struct Session<S> {
    connection: Connection<S>,
    service: Arc<Service>,
    shared: Rc<Shared>,
    context: Context,
    metrics: Option<ServerConnectionMetrics>,
    /// Requests whose handlers are not done, and replies that wait behind them, in order.
    queue: Queue,
    holding: Holding,
    watch: Watch,
    /// Messages so far.
    messages: u64,
    refused_signatures: u32,
    /// Bytes of messages that may still be handled in this wake.
    share: usize,
    /// The step of the stop in which the stream had taken the last reply to its end.
    flushed_in_step: u32,
    /// All that had come when the server was told to stop is read.
    read_out: bool,
    /// The first bytes were looked at for another protocol.
    recognised: bool,
    /// The peer was slow once: see [`Transport::limit_unsent`].
    unsent_limited: bool,
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
        let peer = context.peer_addr().ip();
        let metrics = service.metrics.as_ref().map(|metrics| metrics.connection(peer));
        let holding = Holding::new(service.budget.clone());
        Box::new(Self {
            connection: Connection::new(stream),
            service,
            shared,
            context,
            metrics,
            queue: Queue::default(),
            holding,
            watch: Watch::default(),
            messages: 0,
            refused_signatures: 0,
            share: 0,
            flushed_in_step: 0,
            read_out: false,
            recognised: false,
            unsent_limited: false,
            ending: None,
        })
    }

    /// Serves the connection to its end. Boxed: a future has room for what it is called with and
    /// for what it makes of that, two sessions here, for all of a connection's life.
    pub(crate) async fn run(mut self: Box<Self>) -> Ending {
        let ending = poll_fn(|context| self.poll(context)).await.unwrap_or_else(Ending::Lost);
        let stream = self.connection.into_stream();
        self.holding.settle(self.queue.held());
        match ending {
            // See `reset_on_close` for why a reset. It also discards what the peer does not take.
            Ending::Stopped | Ending::Idle | Ending::Unread => {
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

    fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<io::Result<Ending>> {
        self.connection.borrow_buffers(&mut self.shared.buffers.borrow_mut());
        let polled = self.advance(context);
        self.connection.return_buffers(&mut self.shared.buffers.borrow_mut());
        self.holding.settle(self.connection.held() + self.queue.held());
        if polled.is_pending() && self.shared.stop_step.get() > 0 {
            self.shared.waiting_for_step.borrow_mut().push(context.waker().clone());
        }
        polled
    }

    /// Goes on until the session has ended, must wait, or has had its share.
    fn advance(&mut self, context: &mut task::Context<'_>) -> Poll<io::Result<Ending>> {
        self.share = BYTES_PER_WAKE;
        for _ in 0..TURNS_PER_WAKE {
            let drained = self.handle_messages(context);
            self.collect_replies(context);
            if !drained && self.has_room() {
                continue;
            }
            if !self.connection.is_flushed() {
                ready!(self.flush(context))?;
                if matches!(self.ending, Some(Ending::Unread)) {
                    return Poll::Ready(Ok(Ending::Unread));
                }
                self.flushed_in_step = self.shared.stop_step.get();
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
                return Poll::Ready(Ok(ending));
            }
            if self.ending.is_some() {
                return Poll::Pending;
            }
            if !self.may_read() {
                return self.poll_stopped();
            }
            if !self.has_memory_to_read() {
                continue;
            }
            match self.connection.poll_read(context)? {
                Poll::Ready(0) => self.ending = Some(Ending::PeerClosed),
                Poll::Ready(_) => {}
                Poll::Pending if self.shared.stop_step.get() > 0 => self.read_out = true,
                Poll::Pending => ready!(self.wait_for_message(context)),
            }
        }
        self.shared.deferred.push(context.waker().clone());
        Poll::Pending
    }

    /// Writes what waits. Sets the ending when the peer has taken nothing for too long.
    fn flush(&mut self, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.poll_flush(context)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !self.unsent_limited {
            self.unsent_limited = true;
            self.connection.stream().limit_unsent();
        }
        let wait = Wait::Write { taken: self.connection.taken() };
        ready!(self.watch.poll(wait, self.service.timeouts.write, context));
        if let Some(metrics) = &self.metrics {
            metrics.refusal("write_timeout");
        }
        self.ending = Some(Ending::Unread);
        Poll::Ready(Ok(()))
    }

    /// Waits for what the peer sends, which wakes the task. Ready when that takes too long.
    fn wait_for_message(&mut self, context: &mut task::Context<'_>) -> Poll<()> {
        let timeouts = self.service.timeouts;
        let behind = self.messages;
        if !self.connection.unread().is_empty() {
            ready!(self.watch.poll(Wait::Message { behind }, timeouts.message, context));
            let account = Account::open(self.connection.unread().len(), self.metrics.is_some());
            self.refuse(Refusal::TimedOut { after: timeouts.message }, account);
            self.ending = Some(Ending::Refused);
        } else if let (Some(timeout), true) = (timeouts.idle, self.queue.is_empty()) {
            ready!(self.watch.poll(Wait::Idle { behind }, timeout, context));
            if let Some(metrics) = &self.metrics {
                metrics.refusal("idle_timeout");
            }
            self.ending = Some(Ending::Idle);
        } else {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Whether more messages are accepted: a stop takes those that were there when it began, as far
    /// as they can be read within a step.
    fn may_read(&self) -> bool {
        match self.shared.stop_step.get() {
            0 => true,
            step => step == 1 && !self.read_out,
        }
    }

    /// Ends the session once all is answered and the peer has had the time to read it: a reset
    /// discards what is not delivered, and on some systems what the peer has not read.
    fn poll_stopped(&self) -> Poll<io::Result<Ending>> {
        let quiet = self.shared.stop_step.get() >= self.flushed_in_step + 2;
        let delivered = || !self.shared.undelivered.borrow().contains(&self.context.peer_addr());
        match self.queue.is_empty() && quiet && delivered() {
            true => Poll::Ready(Ok(Ending::Stopped)),
            false => Poll::Pending,
        }
    }

    /// Whether the next read may grow the read buffer, if it must; or else refuses the message.
    fn has_memory_to_read(&mut self) -> bool {
        let Some(size) = self.connection.growth() else { return true };
        if self.holding.reserve(self.queue.held() + size) {
            return true;
        }
        let account = Account::open(self.connection.unread().len(), self.metrics.is_some());
        self.refuse(Refusal::NoMemory { limit: self.service.budget.limit() }, account);
        self.ending = Some(Ending::Refused);
        false
    }

    /// Whether another message may be handled before something is written or finished.
    fn has_room(&self) -> bool {
        self.share > 0
            && self.queue.len() < self.service.max_in_flight
            && self.connection.unwritten() + self.queue.done_bytes() < WRITE_BATCH_BYTES
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
        // What is more than the buffers that the worker lends is the connection's own.
        let owned = self.connection.held().saturating_sub(2 * READ_BUFFER_BYTES);
        while !matches!(self.ending, Some(Ending::Refused)) {
            if !self.has_room() {
                return false;
            }
            let held = owned + self.queue.held();
            let timed = self.metrics.is_some();
            let message = match self.connection.next_message(&self.service.limits) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(malformed) => {
                    // Where it ends is not known, so neither is where the next message begins.
                    let bytes = self.connection.unread().len();
                    self.refuse(malformed.into(), Account::open(bytes, timed));
                    self.ending = Some(Ending::Refused);
                    break;
                }
            };
            self.share = self.share.saturating_sub(message.bytes.len());
            self.messages += 1;
            let mut account = Account::open(message.bytes.len(), timed);
            let received = self.service.open(message).and_then(|message| {
                account.memory = decoded_bytes(message.bytes.len(), message.items);
                match self.holding.reserve(held + account.memory) {
                    true => self.service.decode(message),
                    false => Err(Refusal::NoMemory { limit: self.service.budget.limit() }),
                }
            });
            match received {
                Ok(message) => {
                    self.refused_signatures = 0;
                    self.handle(message, account, context);
                }
                Err(refusal) => self.refuse(refusal, account),
            }
        }
        true
    }

    fn handle(&mut self, message: Value, mut account: Account, context: &mut task::Context<'_>) {
        match self.service.call(message, &self.context) {
            Answer::Ready(result) => {
                let reply = account.reply(result);
                self.reply(reply, account);
            }
            Answer::Later(handler) => {
                let mut exchange = Exchange::new(
                    self.queue.next_number(),
                    handler,
                    self.service.timeouts.handler,
                    self.context.clone(),
                    account,
                    self.metrics.as_ref().map(|metrics| metrics.request_started()),
                );
                // Many futures are ready at once: they need no place in the queue.
                match Pin::new(&mut exchange).poll(context) {
                    Poll::Ready((_, reply, account)) => self.reply(reply, account),
                    Poll::Pending => self.queue.push_running(exchange, account),
                }
            }
        }
    }

    /// Answers a message that does not reach the handler.
    #[cold]
    fn refuse(&mut self, refusal: Refusal, mut account: Account) {
        account.limit = Some(refusal.rule());
        account.reason = Some(refusal.reason());
        self.reply(refusal.reply(), account);
        if refusal == Refusal::InvalidSignature {
            self.refused_signatures += 1;
            if self.refused_signatures >= MAX_REFUSED_SIGNATURES {
                self.ending = Some(Ending::Refused);
            }
        }
    }

    /// Tells a peer that speaks another protocol so, and ends the session.
    #[cold]
    fn turn_away(&mut self, foreign: Foreign) {
        tracing::debug!(peer = %self.context.peer_addr(), ?foreign, "not MessagePack, turned away");
        if let Some(metrics) = &self.metrics {
            metrics.refusal("protocol");
        }
        self.connection.output().extend_from_slice(foreign.answer());
        self.ending = Some(Ending::Refused);
    }

    /// Puts a reply behind those that are still to come.
    #[inline]
    fn reply(&mut self, reply: Reply, account: Account) {
        if self.queue.is_empty() {
            self.write(&reply, account);
        } else {
            let done = self.pack(&reply, account);
            self.queue.push_done(done);
        }
    }

    /// Writes the replies that are done, up to the first that is not.
    fn collect_replies(&mut self, context: &mut task::Context<'_>) {
        while !self.queue.is_empty() {
            let Poll::Ready(Some((number, reply, account))) = self.queue.poll_finished(context)
            else {
                return;
            };
            if !self.queue.pop_running(number) {
                let done = self.pack(&reply, account);
                self.queue.finish(number, done);
                continue;
            }
            self.write(&reply, account);
            while let Some(done) = self.queue.pop_done() {
                self.connection.output().extend_from_slice(&done.packed);
                self.observe(done.account);
            }
        }
    }

    #[inline]
    fn write(&mut self, reply: &Reply, account: Account) {
        reply.encode(self.connection.output());
        self.report(reply, account);
        self.observe(account);
    }

    fn pack(&self, reply: &Reply, account: Account) -> Done {
        let mut packed = Vec::new();
        reply.encode(&mut packed);
        self.report(reply, account);
        Done { packed, account }
    }

    /// Says how a message was answered.
    #[inline]
    fn report(&self, reply: &Reply, account: Account) {
        let peer = self.context.peer_addr();
        match reply {
            Reply::Value(_) => tracing::debug!(%peer, bytes = account.bytes, "message answered"),
            Reply::Rpc(text) | Reply::Auth(text) => {
                let reason = account.reason.unwrap_or(text);
                tracing::debug!(%peer, reason, "message answered with an error");
                if let Some(metrics) = &self.metrics {
                    metrics.error(reason);
                    account.limit.inspect(|limit| metrics.refusal(limit));
                }
            }
        }
    }

    /// Counts a message whose reply is written.
    #[inline]
    fn observe(&self, account: Account) {
        if let (Some(metrics), Some(started)) = (&self.metrics, account.started) {
            metrics.observe(started.elapsed(), account.bytes);
        }
    }
}
