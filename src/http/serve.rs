//! An HTTP connection of a server, on the worker that has it: hyper reads requests and writes what
//! the api answers, handlers run to their end, and a peer that takes nothing is let go.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::channel::Receiver;
use smol::future;
use smol::io::{AsyncRead, AsyncWrite};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::Http;
use super::api::Api;
use crate::metrics::ServerConnectionMetrics;
use crate::net::reactor::Deferred;
use crate::net::stream::linger;
use crate::server::budget::Holding;
use crate::server::context::Context;
use crate::server::exchange::{Account, Exchange};
use crate::server::presence::Presence;
use crate::server::response::Answer;
use crate::server::service::{HANDLER_PANICKED, Service, Timeouts};
use crate::time::{LocalSleep, now};
use crate::wire::Malformed;
use crate::wire::reply::Reply;
use crate::{RpcError, Value};

/// What the head of a request may have.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Serves a connection to its end.
///
/// # Errors
///
/// How it ended, if not by the peer's or the server's will.
pub(crate) async fn serve<S>(
    stream: S,
    options: Arc<Http>,
    service: Arc<Service>,
    context: Context,
    deferred: Rc<Deferred>,
    stopping: Receiver<Infallible>,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let presence = Presence::begin(&service, &context);
    let timeouts = service.timeouts;
    let metrics = service.metrics.as_ref();
    let metrics = metrics.map(|metrics| metrics.connection(context.origin().machine()));
    let caller = Rc::new(Caller { context, deferred, metrics, left: Rc::default() });
    let api = Rc::new(Api { options, service });
    let answer = service_fn(|request| {
        let (api, caller) = (api.clone(), caller.clone());
        async move { Ok::<_, Infallible>(api.respond(request, &caller).await) }
    });
    // It counts from the end of the last response on, so it is the time to be idle as well.
    let head_timeout = timeouts.idle.unwrap_or(timeouts.message).min(timeouts.message);
    let mut stream = Progressing::new(stream, timeouts.write);
    let mut is_stopped = false;
    let ended = {
        let connection = http1::Builder::new()
            .timer(SmolTimer::new())
            .header_read_timeout(head_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .max_header_size(MAX_HEAD_BYTES) // the other lets one through that comes at once
            .serve_connection(FuturesIo::new(&mut stream), answer);
        let mut connection = pin!(connection);
        let stopped = async {
            let _ = stopping.recv().await;
            caller.pause().await; // a request that has come before the stop is read
            None
        };
        match future::or(async { Some(connection.as_mut().await) }, stopped).await {
            Some(ended) => ended,
            None => {
                is_stopped = true;
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        }
    };
    drop(presence);
    let cut = match &ended {
        Err(error) if error.is_timeout() => overdue(&timeouts, stream.is_read_last),
        Err(error) if error.is_parse() => Some("protocol"),
        _ => stream.is_unread.then_some("write_timeout"),
    };
    if let (Some(metrics), Some(limit)) = (caller.metrics(), cut) {
        metrics.refusal(limit);
    }
    // A stop must not wait for peers that keep their connections.
    if !stream.has_ended && !is_stopped {
        linger(stream).await;
    }
    // Nobody waits for these any more, but what was begun comes to its end.
    let left = caller.left.take().into_iter().map(|(exchange, holding)| async move {
        exchange.await;
        drop(holding);
    });
    let mut left: FuturesUnordered<_> = left.collect();
    while left.next().await.is_some() {}
    ended
}

/// The limit that a peer has hit whose next head is not there in time; none if it has not begun one
/// and may be idle.
fn overdue(timeouts: &Timeouts, has_begun: bool) -> Option<&'static str> {
    match has_begun {
        true => Some("message_timeout"),
        false => timeouts.idle.filter(|idle| *idle < timeouts.message).map(|_| "idle_timeout"),
    }
}

/// The peer of a connection, for whom handlers are called.
pub(super) struct Caller {
    context: Context,
    deferred: Rc<Deferred>,
    metrics: Option<ServerConnectionMetrics>,
    left: Left,
}

/// Handlers whose request was dropped, with its connection, and the memory of their messages.
type Left = Rc<RefCell<Vec<(Exchange, Holding)>>>;

/// What came of a call.
pub(super) enum Outcome {
    Done(Result<Value, RpcError>),
    /// It exceeds a limit.
    Refused(Malformed),
    /// There is no memory for it while it waits.
    NoMemory,
    TimedOut {
        text: String,
        /// For the metrics: the text without its number.
        reason: &'static str,
    },
    Panicked(String),
}

impl Caller {
    pub(super) async fn call(&self, service: &Service, message: Value, bytes: usize) -> Outcome {
        let (answer, memory) = match service.call(message, &self.context) {
            Ok(called) => called,
            Err(malformed) => return Outcome::Refused(malformed),
        };
        let handler = match answer {
            Answer::Ready(result) => return Outcome::of(result),
            Answer::Later(handler) => handler,
        };
        // Its own, beside that of the request, which ends with the connection.
        let mut holding = Holding::new(service.budget.clone());
        if !holding.reserve(memory) {
            return Outcome::NoMemory;
        }
        let account = Account::open(bytes, None);
        let in_flight = self.metrics.as_ref().map(ServerConnectionMetrics::request_started);
        let context = self.context.clone();
        let timeout = service.timeouts.handler;
        let exchange = Exchange::new(0, handler, timeout, context, account, in_flight);
        let running = Running { running: Some((exchange, holding)), left: self.left.clone() };
        let (reply, account) = running.await;
        match (reply, account.limit, account.reason) {
            (Reply::Value(value), ..) => Outcome::Done(Ok(value)),
            (Reply::Rpc(text) | Reply::Auth(text), Some(_), Some(reason)) => {
                Outcome::TimedOut { text, reason }
            }
            (Reply::Rpc(text) | Reply::Auth(text), _, Some(reason)) => {
                Outcome::of(Err(RpcError::from(text).with_reason(reason)))
            }
            (Reply::Rpc(text) | Reply::Auth(text), _, None) => {
                Outcome::of(Err(RpcError::from(text)))
            }
        }
    }

    /// Lets the other connections of the thread have their turn.
    pub(super) async fn pause(&self) {
        let mut has_paused = false;
        poll_fn(|context| match mem::replace(&mut has_paused, true) {
            true => Poll::Ready(()),
            false => {
                self.deferred.push(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }

    pub(super) fn is_tls(&self) -> bool {
        self.context.is_tls()
    }

    pub(super) fn metrics(&self) -> Option<&ServerConnectionMetrics> {
        self.metrics.as_ref()
    }
}

impl Outcome {
    fn of(result: Result<Value, RpcError>) -> Self {
        match result {
            // By its text, so that also a panic of a server behind a gateway is one.
            Err(error) if error.message() == HANDLER_PANICKED => {
                Self::Panicked(error.into_message())
            }
            result => Self::Done(result),
        }
    }
}

/// A handler that somebody waits for. If they go away, it is left to the connection.
struct Running {
    /// `None` once it has come to its end.
    running: Option<(Exchange, Holding)>,
    left: Left,
}

impl Future for Running {
    type Output = (Reply, Account);

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let Some((exchange, _)) = &mut self.running else { return Poll::Pending };
        let (_, reply, account) = ready!(Pin::new(exchange).poll(context));
        self.running = None;
        Poll::Ready((reply, account))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.left.borrow_mut().extend(self.running.take());
    }
}

/// A stream that fails when the peer takes nothing of what is written for too long.
struct Progressing<S> {
    stream: S,
    timeout: Duration,
    /// Set while the peer takes nothing.
    deadline: Option<LocalSleep>,
    /// Whether the peer sends no more, or takes no more.
    has_ended: bool,
    /// Whether it was cut off as it takes nothing.
    is_unread: bool,
    /// Whether something was read since something was written: the head of a request, if the
    /// connection waits for one.
    is_read_last: bool,
}

impl<S> Progressing<S> {
    fn new(stream: S, timeout: Duration) -> Self {
        let deadline = None;
        Self { stream, timeout, deadline, has_ended: false, is_unread: false, is_read_last: false }
    }

    fn watch<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            self.has_ended |= matches!(polled, Poll::Ready(Err(_)));
            return polled;
        }
        if self.deadline.is_none() {
            self.deadline = now().checked_add(self.timeout).map(LocalSleep::until);
        }
        if let Some(deadline) = &mut self.deadline {
            ready!(Pin::new(deadline).poll(context));
            (self.has_ended, self.is_unread) = (true, true);
            let text = "the peer did not take its responses (write_timeout)";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Progressing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.has_ended |= matches!(read, Err(_) | Ok(0));
        self.is_read_last |= matches!(read, Ok(1..));
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progressing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.is_read_last &= !polled.is_ready();
        self.watch(polled, context)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(polled, context)
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_close(context);
        self.watch(polled, context)
    }
}
