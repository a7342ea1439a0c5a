//! What a program does around every call of its client: the setters, and a call with hooks. Knows
//! no connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Client;
use crate::time::now;
use crate::{Error, Value};

type Before = dyn Fn(&mut Value) -> Result<(), Error> + Send + Sync;
type After = dyn Fn(&mut Value, Duration) + Send + Sync;
type OnError = dyn Fn(&Error, Duration) + Send + Sync;

/// The hooks of a client, each kind in the order given.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    before: Vec<Arc<Before>>,
    after: Vec<Arc<After>>,
    on_error: Vec<Arc<OnError>>,
}

impl Hooks {
    pub(super) fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty() && self.on_error.is_empty()
    }

    /// Runs the hooks around a call.
    pub(super) async fn around(
        &self,
        mut message: Value,
        call: impl AsyncFnOnce(Value) -> Result<Value, Error>,
    ) -> Result<Value, Error> {
        let started = now();
        let mut result = match self.before.iter().try_for_each(|hook| hook(&mut message)) {
            Ok(()) => call(message).await,
            Err(error) => Err(error),
        };
        let took = now().saturating_duration_since(started);
        match &mut result {
            Ok(reply) => self.after.iter().rev().for_each(|hook| hook(reply, took)),
            Err(error) => self.on_error.iter().rev().for_each(|hook| hook(error, took)),
        }
        result
    }
}

impl Client {
    /// Calls `hook` with each message before it is sent, which it may change: to add a token, say.
    /// If it returns an error, the call fails with that, and nothing is sent.
    ///
    /// May be given several times: they run in the order given, up to the first error. They run
    /// once for a call, however often that is sent, on the task that makes it; what they take is
    /// not counted for its [`timeout`](Self::timeout). A panic of theirs is the caller's.
    ///
    /// Defaults to none.
    ///
    /// ```
    /// use arrpc::{Client, Server, Value, value};
    ///
    /// let server = Server::new("127.0.0.1", 0, |message| message).start_background()?;
    /// let client = Client::new("127.0.0.1", server.local_addr().port()).before(|message| {
    ///     if let Value::Map(entries) = message {
    ///         entries.push((value!("token"), value!("4f1d")));
    ///     }
    ///     Ok(())
    /// });
    /// let reply = smol::block_on(client.send(value!({"get": 7})))?;
    /// assert_eq!(reply, value!({"get": 7, "token": "4f1d"}));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn before<F>(self, hook: F) -> Self
    where
        F: Fn(&mut Value) -> Result<(), Error> + Send + Sync + 'static,
    {
        self.with(|options| options.hooks.before.push(Arc::new(hook)))
    }

    /// Calls `hook` with each reply, which it may change, and the time that the call took, from
    /// before the first [`before`](Self::before) hook.
    ///
    /// May be given several times: they run in the reverse order, so that what is given first is
    /// around the rest. Defaults to none.
    ///
    /// ```
    /// use arrpc::Client;
    ///
    /// let client = Client::new("127.0.0.1", 8080)
    ///     .after(|_reply, took| println!("answered within {took:?}"));
    /// ```
    pub fn after<F>(self, hook: F) -> Self
    where
        F: Fn(&mut Value, Duration) + Send + Sync + 'static,
    {
        self.with(|options| options.hooks.after.push(Arc::new(hook)))
    }

    /// Calls `hook` with the error of each call that fails, be it the server's, a timeout, or that
    /// of a [`before`](Self::before) hook, and the time that the call took.
    ///
    /// A call whose future is dropped has no error. One of [`request`](Self::request) whose message
    /// or reply does not have the form of its type fails outside of the hooks.
    ///
    /// May be given several times: they run in the reverse order. Defaults to none.
    ///
    /// ```
    /// use arrpc::Client;
    ///
    /// let client = Client::new("127.0.0.1", 8080)
    ///     .on_error(|error, took| eprintln!("failed after {took:?}: {error}"));
    /// ```
    pub fn on_error<F>(self, hook: F) -> Self
    where
        F: Fn(&Error, Duration) + Send + Sync + 'static,
    {
        self.with(|options| options.hooks.on_error.push(Arc::new(hook)))
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
