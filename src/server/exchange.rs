//! One request on its way through a session: its handler while it runs, then its reply, and what is
//! counted of it. Knows no streams.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Instant;

use futures_util::future::{CatchUnwind, FutureExt};

use super::handler::{Context, Later};
use super::service::panicked;
use crate::metrics::InFlight;
use crate::wire::reply::Reply;
use crate::{RpcError, Value};

/// What the metrics want to know of a request when its reply is written.
#[derive(Clone, Copy)]
pub(super) struct Account {
    pub(super) bytes: usize,
    /// Read only with metrics on: a look at the clock costs as much as decoding a small message.
    pub(super) started: Option<Instant>,
    /// The `reason` label of an error, where it is not the error's message.
    pub(super) reason: Option<&'static str>,
}

impl Account {
    pub(super) fn open(bytes: usize, timed: bool) -> Self {
        Self { bytes, started: timed.then(Instant::now), reason: None }
    }

    /// Takes note of what a handler returned, and makes it the reply.
    pub(super) fn reply(&mut self, result: Result<Value, RpcError>) -> Reply {
        match result {
            Ok(value) => Reply::Value(value),
            Err(error) => {
                self.reason = error.reason();
                Reply::Rpc(error.into_message())
            }
        }
    }
}

/// A request that has not been answered yet.
pub(super) struct Exchange {
    reply: Pending,
    context: Context,
    account: Account,
    /// Counts the request as in flight for as long as it is here.
    _in_flight: Option<InFlight>,
}

/// The reply to a request, as far as it has come.
pub(super) enum Pending {
    Running(CatchUnwind<AssertUnwindSafe<Later>>),
    /// Done, but behind one that is not. Taken when its turn comes.
    Done(Option<Reply>),
}

impl Pending {
    pub(super) fn running(handler: Later) -> Self {
        Self::Running(AssertUnwindSafe(handler).catch_unwind())
    }

    pub(super) fn done(reply: Reply) -> Self {
        Self::Done(Some(reply))
    }
}

impl Exchange {
    pub(super) fn new(
        reply: Pending,
        context: Context,
        account: Account,
        in_flight: Option<InFlight>,
    ) -> Self {
        Self { reply, context, account, _in_flight: in_flight }
    }
}

impl Drop for Exchange {
    /// Drops the handler's future where its panic does no harm: in the drop of an executor it would
    /// abort the process.
    fn drop(&mut self) {
        let reply = mem::replace(&mut self.reply, Pending::Done(None));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(reply))) {
            panicked(&*panic, &self.context);
        }
    }
}

impl Future for Exchange {
    type Output = (Reply, Account);

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let reply = match &mut self.reply {
            Pending::Done(reply) => reply.take().unwrap_or(Reply::Value(Value::Nil)),
            Pending::Running(future) => {
                let result = ready!(future.poll_unpin(context))
                    .unwrap_or_else(|panic| Err(panicked(&*panic, &self.context)));
                self.account.reply(result)
            }
        };
        Poll::Ready((reply, self.account))
    }
}
