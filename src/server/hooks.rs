//! What a program does around every call of its handler: the setters, and the handler that wraps
//! the one with hooks. Knows no connections.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::FutureExt;

use super::Server;
use super::handler::Handler;
use super::response::{Answer, Later, Response};
use super::service::{AnyHandler, panicked};
use crate::metrics::MethodMetrics;
use crate::time::now;
use crate::{Context, Error, RpcError, Value};

type Before = dyn Fn(&mut Value, &Context) -> Result<(), RpcError> + Send + Sync;
type After = dyn Fn(&mut Value, &Context, Duration) + Send + Sync;
type OnError = dyn Fn(&mut RpcError, &Context, Duration) + Send + Sync;

/// The hooks of a server, each kind in the order given.
#[derive(Default)]
pub(super) struct Hooks {
    before: Vec<Box<Before>>,
    after: Vec<Box<After>>,
    on_error: Vec<Box<OnError>>,
}

impl Hooks {
    /// Puts the hooks around a handler; without any it stays as it is, so that they cost nothing.
    pub(super) fn around(self, handler: AnyHandler) -> Result<AnyHandler, Error> {
        if self.before.is_empty() && self.after.is_empty() && self.on_error.is_empty() {
            return Ok(handler);
        }
        match handler {
            AnyHandler::Values(handler) => {
                Ok(AnyHandler::Values(Box::new(Hooked { handler, hooks: Arc::new(self) })))
            }
            AnyHandler::Raw(_) => Err(Error::Config(
                "before, after and on_error see values, and a raw handler has none: do their work \
                 in the handler, or give one to Server::new"
                    .to_owned(),
            )),
        }
    }

    fn run_before(&self, message: &mut Value, context: &Context) -> Result<(), RpcError> {
        self.before.iter().try_for_each(|hook| hook(message, context))
    }

    /// Runs what comes behind the handler, or behind a hook before it that refused the message.
    fn run_behind(
        &self,
        mut result: Result<Value, RpcError>,
        context: &Context,
        started: Instant,
    ) -> Result<Value, RpcError> {
        let took = now().saturating_duration_since(started);
        match &mut result {
            Ok(reply) => self.after.iter().rev().for_each(|hook| hook(reply, context, took)),
            Err(error) => self.on_error.iter().rev().for_each(|hook| hook(error, context, took)),
        }
        result
    }
}

impl Server {
    /// Calls `hook` with each message that the handler is to get, which it may change. If it
    /// returns an error, the handler is not called, and the peer gets that error.
    ///
    /// May be given several times: they run in the order given, up to the first error. They see
    /// what the handler would see: nothing that a limit or a signature has refused. Like the
    /// handler they run on the thread that serves the connection and must not block. A hook that
    /// panics costs its call an error reply, as a handler does.
    ///
    /// Not for [`raw`](Self::raw) handlers: with one the start is an [`Error::Config`]. Defaults to
    /// none.
    ///
    /// ```
    /// use arrpc::{Error, RpcError, Server, blocking, value};
    ///
    /// let server = Server::new("127.0.0.1", 0, |message| message["name"].clone())
    ///     .before(|message, _context| match message["name"].is_str() {
    ///         true => Ok(()),
    ///         false => Err(RpcError::new("a name is missing")),
    ///     })
    ///     .start_background()?;
    ///
    /// let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
    /// assert_eq!(client.send(value!({"name": "Ada"}))?, value!("Ada"));
    /// assert!(matches!(client.send(value!({})), Err(Error::Rpc(_))));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn before<F>(mut self, hook: F) -> Self
    where
        F: Fn(&mut Value, &Context) -> Result<(), RpcError> + Send + Sync + 'static,
    {
        self.hooks.before.push(Box::new(hook));
        self
    }

    /// Calls `hook` with each reply of the handler, which it may change, and the time since before
    /// the first [`before`](Self::before) hook.
    ///
    /// May be given several times: they run in the reverse order, so that what is given first is
    /// around the rest. Otherwise as [`before`](Self::before). Defaults to none.
    ///
    /// ```
    /// use arrpc::Server;
    ///
    /// let server = Server::new("127.0.0.1", 0, |message| message)
    ///     .after(|_reply, context, took| println!("{:?} {took:?}", context.peer_addr()));
    /// ```
    pub fn after<F>(mut self, hook: F) -> Self
    where
        F: Fn(&mut Value, &Context, Duration) + Send + Sync + 'static,
    {
        self.hooks.after.push(Box::new(hook));
        self
    }

    /// Calls `hook` with each error of the handler or of a [`before`](Self::before) hook, which it
    /// may change, and the time since before the first of these.
    ///
    /// A panic of either is seen as the error that the peer gets for it. What
    /// [`handler_timeout`](Self::handler_timeout) or a stop has ended is not seen.
    ///
    /// May be given several times: they run in the reverse order. Otherwise as
    /// [`before`](Self::before). Defaults to none.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use arrpc::{RpcError, Server};
    ///
    /// let errors = Arc::new(AtomicU64::new(0));
    /// let counted = errors.clone();
    /// let server = Server::new("127.0.0.1", 0, |_| Err::<(), _>("no such table: users"))
    ///     .on_error(move |error, _context, _took| {
    ///         counted.fetch_add(1, Ordering::Relaxed);
    ///         *error = RpcError::new("try again later"); // the details stay here
    ///     });
    /// ```
    pub fn on_error<F>(mut self, hook: F) -> Self
    where
        F: Fn(&mut RpcError, &Context, Duration) + Send + Sync + 'static,
    {
        self.hooks.on_error.push(Box::new(hook));
        self
    }
}

impl fmt::Debug for Hooks {
    /// How many there are: closures have nothing to show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("before", &self.before.len())
            .field("after", &self.after.len())
            .field("on_error", &self.on_error.len())
            .finish()
    }
}

/// A handler with hooks around it. All but its calls is that of the handler.
struct Hooked {
    handler: Box<dyn Handler>,
    /// Shared with the replies that are on their way.
    hooks: Arc<Hooks>,
}

impl Handler for Hooked {
    fn call(&self, mut message: Value, context: &Context) -> Response {
        let started = now();
        // A panic is caught here, not outside, so that `on_error` sees it. Unwind safe: what hooks
        // and handler share is their own, and the message is gone.
        let call = AssertUnwindSafe(|| {
            self.hooks.run_before(&mut message, context)?;
            Ok(self.handler.call(message, context).0)
        });
        let answer = catch_unwind(call).unwrap_or_else(|panic| Err(panicked(&*panic, context)));
        Response(match answer {
            Ok(Answer::Later(reply)) => Answer::Later(self.later(reply, context, started)),
            Ok(Answer::Ready(result)) => {
                Answer::Ready(self.hooks.run_behind(result, context, started))
            }
            Err(error) => Answer::Ready(self.hooks.run_behind(Err(error), context, started)),
        })
    }

    fn measured(&self, metrics: MethodMetrics<'_>) {
        self.handler.measured(metrics);
    }

    fn name(&self) -> &str {
        self.handler.name()
    }

    fn check(&self) -> Result<(), Error> {
        self.handler.check()
    }

    fn connected(&self, context: &Context) {
        self.handler.connected(context);
    }

    fn disconnected(&self, context: &Context) {
        self.handler.disconnected(context);
    }

    fn stopping(&self) {
        self.handler.stopping();
    }
}

impl Hooked {
    fn later(&self, reply: Later, context: &Context, started: Instant) -> Later {
        let (hooks, context) = (self.hooks.clone(), context.clone());
        Later::new(async move {
            let result = AssertUnwindSafe(reply).catch_unwind().await;
            let result = result.unwrap_or_else(|panic| Err(panicked(&*panic, &context)));
            hooks.run_behind(result, &context, started)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_with_hooks_has_its_own_name() {
        fn greet(_: Value) -> &'static str {
            "hello"
        }
        let server = Server::new("h", 1, greet).before(|_, _| Ok(()));
        let handler = server.hooks.around(server.handler).expect("it gets values");
        assert_eq!(handler.name(), "greet");
    }
}
