//! One connection of a server, from its first byte to its last: messages in, handler, replies out
//! in order. Generic over the stream; knows neither sockets nor TLS.
//!
//! One future reads, handles and writes; nothing is queued between the socket and a handler that
//! answers at once. Per wake it handles what has arrived, up to its share of the thread, and writes
//! once when no complete message is left.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use futures_util::stream::{FuturesOrdered, StreamExt};

use super::exchange::{Account, Exchange, Pending};
use super::handler::{Answer, Context};
use super::service::{Refusal, Service};
use crate::Value;
use crate::metrics::ServerConnectionMetrics;
use crate::net::connection::{Buffers, Connection};
use crate::net::reactor::Deferred;
use crate::net::stream::{Transport, linger};
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

/// What the sessions of one worker share.
pub(crate) struct Shared {
    buffers: RefCell<Buffers>,
    pub(crate) stage: Cell<Stage>,
    deferred: Rc<Deferred>,
}

impl Shared {
    pub(crate) fn new(deferred: Rc<Deferred>) -> Self {
        Self { buffers: RefCell::default(), stage: Cell::default(), deferred }
    }
}

/// How far a server is on its way to its stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    #[default]
    Serving,
    /// The server has been told to stop, and goes on for a moment.
    Grace,
    /// A session with nothing to answer ends.
    Stopping,
}

/// How a session ended.
pub(crate) enum Ending {
    /// The peer closed the connection, and has all its replies.
    PeerClosed,
    /// The server stops, and the connection was idle.
    Stopped,
    /// The server stops, and the last reply may still be on its way.
    StoppedBehindReply,
    /// The peer sent what no session can go on from; it was told so.
    Refused,
    /// The stream failed.
    Lost(io::Error),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("the peer closed it"),
            Self::Stopped | Self::StoppedBehindReply => f.write_str("the server stops"),
            Self::Refused => f.write_str("the peer was refused"),
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
    in_flight: FuturesOrdered<Exchange>,
    refused_signatures: u32,
    /// Bytes of messages that may still be handled in this wake.
    share: usize,
    /// When the stream had taken the last reply to its end.
    last_reply: Stage,
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
    ) -> Self {
        let peer = context.peer_addr().ip();
        let metrics = service.metrics.as_ref().map(|metrics| metrics.connection(peer));
        Self {
            connection: Connection::new(stream),
            service,
            shared,
            context,
            metrics,
            in_flight: FuturesOrdered::new(),
            refused_signatures: 0,
            share: 0,
            last_reply: Stage::Serving,
            recognised: false,
            ending: None,
        }
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(mut self) -> Ending {
        let ending = match poll_fn(|context| self.poll(context)).await {
            Ok(ending) => ending,
            Err(error) => {
                // Nobody waits for the replies, but what was begun comes to its end.
                drop(self.connection);
                while self.in_flight.next().await.is_some() {}
                return Ending::Lost(error);
            }
        };
        match ending {
            // See `reset_on_close` for why a reset. But one discards what is not delivered yet, so
            // it is for connections that have been silent for some time.
            Ending::Stopped if self.connection.stream().is_sent() => {
                self.connection.stream().reset_on_close();
            }
            // A peer that has closed its side may still read, and over TLS it wants to hear of the
            // end.
            Ending::Stopped | Ending::StoppedBehindReply | Ending::Refused | Ending::PeerClosed => {
                linger(self.connection.into_stream()).await
            }
            Ending::Lost(_) => {}
        }
        ending
    }

    fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<io::Result<Ending>> {
        self.connection.borrow_buffers(&mut self.shared.buffers.borrow_mut());
        let polled = self.advance(context);
        self.connection.return_buffers(&mut self.shared.buffers.borrow_mut());
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
                ready!(self.connection.poll_flush(context))?;
                self.last_reply = self.shared.stage.get();
            }
            if !drained {
                if self.has_room() {
                    continue;
                }
                if self.share == 0 {
                    break;
                }
                return Poll::Pending; // a handler that finishes wakes us
            }
            if let Some(ending) = self.ending.take_if(|_| self.in_flight.is_empty()) {
                return Poll::Ready(Ok(ending));
            }
            if self.ending.is_some() {
                return Poll::Pending;
            }
            match self.connection.poll_read(context)? {
                Poll::Ready(0) => self.ending = Some(Ending::PeerClosed),
                Poll::Ready(_) => {}
                Poll::Pending => {
                    if self.shared.stage.get() != Stage::Stopping || !self.in_flight.is_empty() {
                        return Poll::Pending;
                    }
                    return Poll::Ready(Ok(match self.last_reply {
                        Stage::Serving => Ending::Stopped,
                        Stage::Grace | Stage::Stopping => Ending::StoppedBehindReply,
                    }));
                }
            }
        }
        self.shared.deferred.push(context.waker().clone());
        Poll::Pending
    }

    /// Whether another message may be handled before something is written or finished.
    fn has_room(&self) -> bool {
        self.share > 0
            && self.in_flight.len() < self.service.max_in_flight
            && self.connection.unwritten() < WRITE_BATCH_BYTES
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
        while !matches!(self.ending, Some(Ending::Refused)) {
            if !self.has_room() {
                return false;
            }
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
            self.share = self.share.saturating_sub(message.len());
            let account = Account::open(message.len(), timed);
            match self.service.receive(message) {
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
            Answer::Later(future) => {
                let mut exchange = self.exchange(Pending::running(future), account);
                // Many futures are ready at once: they need no place in the ordered set.
                match Pin::new(&mut exchange).poll(context) {
                    Poll::Ready((reply, account)) => self.reply(reply, account),
                    Poll::Pending => self.in_flight.push_back(exchange),
                }
            }
        }
    }

    /// Answers a message that does not reach the handler.
    #[cold]
    fn refuse(&mut self, refusal: Refusal, mut account: Account) {
        if let Some(metrics) = &self.metrics {
            metrics.refusal(refusal.rule());
        }
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
        if self.in_flight.is_empty() {
            self.write(&reply, account);
        } else {
            let exchange = self.exchange(Pending::done(reply), account);
            self.in_flight.push_back(exchange);
        }
    }

    fn exchange(&self, reply: Pending, account: Account) -> Exchange {
        let in_flight = self.metrics.as_ref().map(|metrics| metrics.request_started());
        Exchange::new(reply, self.context.clone(), account, in_flight)
    }

    /// Writes the replies that are done, up to the first that is not.
    fn collect_replies(&mut self, context: &mut task::Context<'_>) {
        while !self.in_flight.is_empty() {
            let Poll::Ready(Some((reply, account))) = self.in_flight.poll_next_unpin(context)
            else {
                return;
            };
            self.write(&reply, account);
        }
    }

    #[inline]
    fn write(&mut self, reply: &Reply, account: Account) {
        reply.encode(self.connection.output());
        let peer = self.context.peer_addr();
        match reply {
            Reply::Value(_) => tracing::debug!(%peer, bytes = account.bytes, "message answered"),
            Reply::Rpc(text) | Reply::Auth(text) => {
                let reason = account.reason.unwrap_or(text);
                tracing::debug!(%peer, reason, "message answered with an error");
                if let Some(metrics) = &self.metrics {
                    metrics.error(reason);
                }
            }
        }
        if let (Some(metrics), Some(started)) = (&self.metrics, account.started) {
            metrics.observe(started.elapsed(), account.bytes);
        }
    }
}
