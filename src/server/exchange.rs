//! One request on its way through a session: its handler while it runs, then its reply, and what is
//! counted of it. Knows no streams.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::future::{CatchUnwind, FutureExt};

use super::context::Context;
use super::response::Later;
use super::service::{handler_timed_out, panicked};
use crate::metrics::InFlight;
use crate::time::LocalSleep;
use crate::wire::reply::Reply;
use crate::{RpcError, Value};

/// What is counted of a request until its reply is written.
#[derive(Clone, Copy)]
pub(crate) struct Account {
    /// Its size on the wire.
    pub(crate) bytes: usize,
    /// The memory that its value takes, at the most.
    pub(crate) memory: usize,
    /// Read only with metrics on: a look at the clock costs as much as decoding a small message.
    pub(crate) started: Option<Instant>,
    /// The `reason` label of an error, where it is not the error's message.
    pub(crate) reason: Option<&'static str>,
    /// The limit that was hit, by the name of its setter.
    pub(crate) limit: Option<&'static str>,
}

impl Account {
    pub(crate) fn open(bytes: usize, started: Option<Instant>) -> Self {
        Self { bytes, memory: 0, started, reason: None, limit: None }
    }

    /// Takes note of what a handler returned, and makes it the reply.
    pub(crate) fn reply(&mut self, result: Result<Value, RpcError>) -> Reply {
        match result {
            Ok(value) => Reply::Value(value),
            Err(error) => {
                self.reason = error.reason();
                Reply::Rpc(error.into_message())
            }
        }
    }
}

/// A handler that runs.
pub(crate) struct Exchange {
    /// The request's number in its connection.
    number: u64,
    /// `None` only while it is dropped.
    handler: Option<CatchUnwind<AssertUnwindSafe<Later>>>,
    timeout: Option<(Duration, LocalSleep)>,
    context: Context,
    account: Account,
    /// Counts the request as in flight for as long as it is here.
    _in_flight: Option<InFlight>,
}

impl Exchange {
    pub(crate) fn new(
        number: u64,
        handler: Later,
        timeout: Option<Duration>,
        context: Context,
        account: Account,
        in_flight: Option<InFlight>,
    ) -> Self {
        let due = timeout.and_then(|timeout| {
            Some((timeout, LocalSleep::until(crate::time::now().checked_add(timeout)?)))
        });
        let handler = Some(AssertUnwindSafe(handler).catch_unwind());
        Self { number, handler, timeout: due, context, account, _in_flight: in_flight }
    }
}

impl Drop for Exchange {
    /// Drops the handler's future where its panic does no harm: in the drop of an executor it would
    /// abort the process.
    fn drop(&mut self) {
        let handler = mem::take(&mut self.handler);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(handler))) {
            panicked(&*panic, &self.context);
        }
    }
}

impl Future for Exchange {
    type Output = (u64, Reply, Account);

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut account = this.account;
        let polled = this.handler.as_mut().map(|handler| handler.poll_unpin(context));
        let result = match polled {
            Some(Poll::Ready(result)) => {
                result.unwrap_or_else(|panic| Err(panicked(&*panic, &this.context)))
            }
            Some(Poll::Pending) => match &mut this.timeout {
                Some((after, sleep)) => {
                    ready!(sleep.poll_unpin(context));
                    account.limit = Some("handler_timeout");
                    Err(handler_timed_out(*after, &this.context))
                }
                None => return Poll::Pending,
            },
            None => return Poll::Pending,
        };
        let reply = account.reply(result);
        Poll::Ready((this.number, reply, account))
    }
}
