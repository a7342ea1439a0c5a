//! What a program is told of the life of its server beside messages: the hooks, and their
//! setters. When they are called is in `presence` and `start`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Server;
use super::service::panic_text;
use super::state::State;
use crate::Context;

/// The hooks that concern connections, in the order in which they were given.
#[derive(Default)]
pub(crate) struct LifeCycle {
    pub(super) on_connect: Vec<OnConnect>,
    pub(super) on_disconnect: Vec<OnDisconnect>,
}

type OnConnect = Box<dyn Fn(&Context) -> Option<State> + Send + Sync>;
type OnDisconnect = Box<dyn Fn(&Context) + Send + Sync>;
pub(super) type OnStop = Box<dyn FnOnce() + Send>;

/// Hooks of its life. Each may be given several times, and is called in that order, on a thread
/// that serves connections or accepts them, so that it must not block. A panic in one is caught and
/// logged.
impl Server {
    /// Calls `hook` for each connection, before its first message and over TLS when it is known who
    /// the client is. What it returns is the connection's state, unless that is `()`: handlers and
    /// [`on_disconnect`](Self::on_disconnect) find it by its type, with [`Context::state`].
    ///
    /// The state is dropped with the last [`Context`] of the connection, so it must not keep one.
    /// A connection whose hook panics has none.
    ///
    /// ```
    /// use arrpc::{RpcError, Server, blocking, value};
    /// use std::sync::Mutex;
    ///
    /// /// What one client has in its basket.
    /// #[derive(Default)]
    /// struct Basket(Mutex<Vec<String>>);
    ///
    /// let server = Server::with_context("127.0.0.1", 0, |message, context| {
    ///     let basket: &Basket = context.state().ok_or_else(|| RpcError::new("no basket"))?;
    ///     let mut things = basket.0.lock().map_err(RpcError::new)?;
    ///     things.push(message.to_string());
    ///     Ok::<_, RpcError>(things.len())
    /// })
    /// .on_connect(|_| Basket::default())
    /// .on_disconnect(|context| println!("{} has left", context.connection_id()))
    /// .start_background()?;
    ///
    /// let port = server.local_addr().port();
    /// let (first, second) = (blocking::Client::new("127.0.0.1", port),
    ///     blocking::Client::new("127.0.0.1", port));
    /// assert_eq!(first.send("apple")?, value!(1));
    /// assert_eq!(first.send("pear")?, value!(2));
    /// assert_eq!(second.send("plum")?, value!(1));
    /// # Ok::<(), arrpc::Error>(())
    /// ```
    pub fn on_connect<F, T>(mut self, hook: F) -> Self
    where
        F: Fn(&Context) -> T + Send + Sync + 'static,
        T: Any + Send + Sync,
    {
        self.life_cycle.on_connect.push(Box::new(move |context| {
            let state: State = Box::new(hook(context)); // allocates nothing for ()
            (!state.is::<()>()).then_some(state)
        }));
        self
    }

    /// Calls `hook` once for each connection that [`on_connect`](Self::on_connect) was called for:
    /// when its peer sends no more, when it is lost, or when the server closes it, whichever comes
    /// first. Handlers of its earlier messages may still run, and their replies be written.
    pub fn on_disconnect(mut self, hook: impl Fn(&Context) + Send + Sync + 'static) -> Self {
        self.life_cycle.on_disconnect.push(Box::new(hook));
        self
    }

    /// Calls `hook` once when a stop begins: before the server finishes the requests that it has
    /// accepted, which waits for the hook. Not when the process just ends.
    pub fn on_stop(mut self, hook: impl FnOnce() + Send + 'static) -> Self {
        self.on_stop.push(Box::new(hook));
        self
    }
}

/// Calls what the program has given, where its panic does no harm.
pub(super) fn call<T>(name: &str, hook: impl FnOnce() -> T) -> Option<T> {
    // Unwind safe: what the hook keeps is behind shared references, as a handler's state is.
    match catch_unwind(AssertUnwindSafe(hook)) {
        Ok(returned) => Some(returned),
        Err(panic) => {
            tracing::error!(hook = name, panic = panic_text(&*panic), "a hook panicked");
            None
        }
    }
}
