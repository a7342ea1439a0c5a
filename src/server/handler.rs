//! What a server runs for each message: closures and functions of several kinds, or a type of the
//! caller's own, brought to one form. Knows no connections.

use std::marker::PhantomData;

use super::context::Context;
use super::response::{Reply, Response};
use crate::metrics::MethodMetrics;
use crate::name::short_name;
use crate::{Error, Value};

/// A type that answers messages. A closure given to [`Server::new`](crate::Server::new) is one;
/// implement it for a type of your own and pass that to
/// [`Server::with_handler`](crate::Server::with_handler).
///
/// ```
/// use arrpc::{Context, Handler, Response, Server, Value};
///
/// struct Greeter {
///     greeting: String,
/// }
///
/// impl Handler for Greeter {
///     fn call(&self, message: Value, _context: &Context) -> Response {
///         Response::ready(format!("{} {message}", self.greeting))
///     }
/// }
///
/// let server = Server::with_handler("127.0.0.1", 0, Greeter { greeting: "hello".into() });
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Answers one message.
    ///
    /// Runs on the thread that serves the connection, so it must not block: return
    /// [`Response::later`] for work that waits. A panic costs one error reply.
    fn call(&self, message: Value, context: &Context) -> Response;

    /// Checks whether the handler can work as it was made. Called once when the server is started,
    /// before it listens.
    ///
    /// Defaults to `Ok(())`.
    ///
    /// # Errors
    ///
    /// What the start is to fail with, [`Error::Config`] as a rule.
    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Takes note of a connection: once, before its first message, and over TLS when it is known
    /// who the client is.
    ///
    /// As the two that follow it must not block, and a panic is caught and logged. Defaults to
    /// nothing.
    fn connected(&self, context: &Context) {
        let _ = context;
    }

    /// Takes note that no more messages come from a connection: once for each that it was
    /// [`connected`](Self::connected) for, when the peer sends no more, the connection is lost, or
    /// the server closes it, whichever comes first. Handlers of earlier messages may still run, and
    /// their replies be written: a peer that has closed its side may read on.
    ///
    /// What the connection has sent before is handled first, so that an end shows late while as
    /// many of its messages are in flight as may be ([`max_in_flight`]).
    ///
    /// Defaults to nothing.
    ///
    /// [`max_in_flight`]: crate::Server::max_in_flight
    fn disconnected(&self, context: &Context) {
        let _ = context;
    }

    /// Takes note that a stop begins: once, before the server waits for the requests that it has
    /// accepted. Those that wait for something that may not come now can be told; a few more may
    /// follow, which had arrived already.
    ///
    /// Defaults to nothing.
    fn stopping(&self) {}

    /// Resolves what it counts of its methods. Called once when a server with metrics is started.
    #[doc(hidden)]
    fn measured(&self, metrics: MethodMetrics<'_>) {
        let _ = metrics;
    }

    /// Returns the name that the `handler_func` label of the metrics shows.
    ///
    /// Defaults to the last part of the type's name.
    fn name(&self) -> &str {
        short_name::<Self>()
    }
}

/// A closure as a handler. `M` is the marker of what it returns.
pub(crate) struct Closure<F, M> {
    function: F,
    marker: PhantomData<fn() -> M>,
}

impl<F, M> Closure<F, M> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, marker: PhantomData }
    }
}

impl<F, R, M> Handler for Closure<F, M>
where
    F: Fn(Value) -> R + Send + Sync + 'static,
    R: Reply<M>,
    M: 'static,
{
    fn call(&self, message: Value, _context: &Context) -> Response {
        (self.function)(message).into_response()
    }

    fn name(&self) -> &str {
        short_name::<F>()
    }
}

/// A closure that also asks for the context of the call, as a handler.
pub(crate) struct ContextClosure<F, M>(pub(crate) Closure<F, M>);

impl<F, R, M> Handler for ContextClosure<F, M>
where
    F: Fn(Value, Context) -> R + Send + Sync + 'static,
    R: Reply<M>,
    M: 'static,
{
    fn call(&self, message: Value, context: &Context) -> Response {
        (self.0.function)(message, context.clone()).into_response()
    }

    fn name(&self) -> &str {
        short_name::<F>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::Origin;
    use crate::server::context::Peer;
    use crate::server::response::{Answer, marker};
    use crate::services::typed::Typed;
    use crate::wire::Protection;
    use crate::{RpcError, blocking};

    fn function(message: Value) -> Value {
        message
    }

    async fn async_function(_: Value) -> Result<&'static str, RpcError> {
        Ok("later")
    }

    fn call<F, R, M>(handler: F, message: impl Into<Value>) -> Result<Value, RpcError>
    where
        F: Fn(Value) -> R + Send + Sync + 'static,
        R: Reply<M>,
        M: 'static,
    {
        let peer = Peer { origin: Origin(None), tls: false, identity: None };
        match Closure::new(handler).call(message.into(), &Context::new(peer, &Protection::None)).0 {
            Answer::Ready(reply) => reply,
            Answer::Later(reply) => smol::block_on(reply),
        }
    }

    #[test]
    fn closures_and_functions_of_every_kind_are_handlers() {
        assert_eq!(call(|m| m, 1), Ok(Value::from(1)));
        assert_eq!(call(|_| 42, Value::Nil), Ok(Value::from(42)));
        assert_eq!(call(|_| 4.5, Value::Nil), Ok(Value::from(4.5)));
        assert_eq!(call(|_| "got it", Value::Nil), Ok(Value::from("got it")));
        assert_eq!(call(|m| format!("{m}"), 1), Ok(Value::from("1")));
        assert_eq!(call(|_| vec![1u8, 2], Value::Nil), Ok(Value::Binary(vec![1, 2])));
        assert_eq!(call(|_| {}, Value::Nil), Ok(Value::Nil));
        assert_eq!(call(|_| None::<u8>, Value::Nil), Ok(Value::Nil));
        assert_eq!(call(|m| m.as_u64(), 7), Ok(Value::from(7)));
        assert_eq!(call(|m| m.as_u64().ok_or("no number"), "x"), Err("no number".into()));
        assert_eq!(call(|m| async move { m }, 1), Ok(Value::from(1)));
        assert_eq!(call(async |m| m, 1), Ok(Value::from(1)));
        assert_eq!(call(|_| async { Err::<(), _>("no") }, 1), Err("no".into()));
        assert_eq!(call(function, 1), Ok(Value::from(1)));
        assert_eq!(call(async_function, 1), Ok(Value::from("later")));
        assert_eq!(call(blocking(|m| m), 1), Ok(Value::from(1)));
        let question_mark = |m: Value| {
            let number = m.as_u64().ok_or_else(|| RpcError::new("no number"))?;
            Ok::<_, RpcError>(number + 1)
        };
        assert_eq!(call(question_mark, 1), Ok(Value::from(2)));
    }

    #[test]
    fn a_handler_has_the_short_name_of_its_function() {
        assert_eq!(Closure::<_, marker::Now>::new(function).name(), "function");
        assert_eq!(Closure::<_, marker::Later>::new(async_function).name(), "async_function");
        assert_eq!(Closure::<_, marker::Now>::new(|m: Value| m).name(), "closure");
        let wrapped = blocking(function);
        assert_eq!(Closure::<_, marker::Later>::new(wrapped).name(), "function");
        let wrapped = crate::typed(|number: u8| Ok::<_, RpcError>(number));
        assert_eq!(Closure::<_, Typed>::new(wrapped).name(), "closure");
        fn double(number: u8) -> Result<u8, RpcError> {
            Ok(number * 2)
        }
        let wrapped = crate::typed(double);
        assert_eq!(Closure::<_, Typed>::new(wrapped).name(), "double");
    }
}
