//! What a server runs for each message: closures and functions of several kinds, or a type of the
//! caller's own, brought to one form. Knows no connections.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use serde::Serialize;

use super::context::Context;
use super::held::{self, Held, Keeper};
use crate::metrics::{CountedCall, MethodMetrics, MethodSeries};
use crate::name::short_name;
use crate::{Error, RpcError, Serde, Value, to_value};

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

/// The answer to one message: at hand, or on its way.
pub struct Response(pub(crate) Answer);

pub(crate) enum Answer {
    Ready(Result<Value, RpcError>),
    Later(Later),
}

/// A reply on its way.
pub(crate) struct Later {
    reply: Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send>>,
    /// The call of a method that it answers, if that is counted. Here and not in a future around the
    /// one above, which would take another box.
    counted: Option<CountedCall>,
}

impl Later {
    pub(crate) fn new(
        reply: impl Future<Output = Result<Value, RpcError>> + Send + 'static,
    ) -> Self {
        Self { reply: Box::pin(reply), counted: None }
    }
}

impl Future for Later {
    type Output = Result<Value, RpcError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.reply.as_mut().poll(context));
        if let Some(call) = self.counted.take() {
            call.ended(&result);
        }
        Poll::Ready(result)
    }
}

impl Response {
    /// Makes an answer that is at hand.
    pub fn ready(reply: impl IntoReply) -> Self {
        Self(Answer::Ready(reply.into_reply()))
    }

    /// Makes an answer that a future will give. It runs on the connection's thread, beside the
    /// other messages of the connection, and to its end also when the peer is gone. A stop
    /// drops it when the drain timeout is over.
    pub fn later<F>(reply: F) -> Self
    where
        F: Future<Output: IntoReply> + Send + 'static,
    {
        Self(Answer::Later(Later::new(async move { reply.await.into_reply() })))
    }
}

impl Response {
    pub(crate) fn error(error: RpcError) -> Self {
        Self(Answer::Ready(Err(error)))
    }

    /// Keeps something until the answer is there, or nobody waits for it any more, and the blocking
    /// work that the answer waited for has ended.
    pub(crate) fn holding<T: Send + Sync + 'static>(self, held: T) -> Self {
        match self.0 {
            Answer::Later(reply) => Self(Answer::Later(Later::new(async move {
                let held: Held = Arc::new(held);
                let mut reply = reply; // dropped before what it holds
                poll_fn(|context| held::poll(&held, Pin::new(&mut reply), context)).await
            }))),
            Answer::Ready(_) => self,
        }
    }

    /// Counts the end of the call that it answers.
    pub(crate) fn counted(mut self, call: CountedCall<&MethodSeries>) -> Self {
        match &mut self.0 {
            Answer::Ready(reply) => call.ended(reply),
            Answer::Later(later) => later.counted = Some(call.owned()),
        }
        self
    }

    /// Waits for the answer.
    pub(crate) async fn reply(self) -> Result<Value, RpcError> {
        match self.0 {
            Answer::Ready(reply) => reply,
            Answer::Later(reply) => reply.await,
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Answer::Ready(reply) => f.debug_tuple("Ready").field(reply).finish(),
            Answer::Later(_) => f.write_str("Later(..)"),
        }
    }
}

/// Marks which of the two kinds of [`Reply`] a type is. Inferred, never written.
pub mod marker {
    /// The value itself is the reply.
    #[derive(Debug)]
    pub enum Now {}
    /// A future of the reply.
    #[derive(Debug)]
    pub enum Later {}
}

/// What a handler closure may return: anything that is [`IntoReply`], or a future of it.
///
/// The marker `M` tells the two apart, so that the closure's argument type is inferred for both.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "not a reply, and not a future of one",
    note = "return a `Value`, a number, a string, `bool`, `Vec<u8>`, `()`, an `Option` or `Result` \
            of these, `arrpc::Serde(..)` around a type that implements `Serialize`, or a future \
            that is `Send` of any of them"
)]
pub trait Reply<M> {
    /// Makes it the response to a message.
    fn into_response(self) -> Response;

    /// As [`into_response`](Self::into_response), with a change to an error that it is or will be.
    #[doc(hidden)]
    fn into_response_with(self, change: fn(RpcError) -> RpcError) -> Response
    where
        Self: Sized,
    {
        let changed = |reply: Result<Value, RpcError>| reply.map_err(change);
        Response(match self.into_response().0 {
            Answer::Ready(reply) => Answer::Ready(changed(reply)),
            Answer::Later(reply) => {
                Answer::Later(Later::new(async move { reply.await.map_err(change) }))
            }
        })
    }

    /// The name of the type that the reply has, once it is there.
    #[doc(hidden)]
    fn type_name() -> &'static str {
        type_name::<Self>()
    }
}

impl<T: IntoReply> Reply<marker::Now> for T {
    fn into_response(self) -> Response {
        Response::ready(self)
    }

    fn into_response_with(self, change: fn(RpcError) -> RpcError) -> Response {
        Response(Answer::Ready(self.into_reply().map_err(change)))
    }
}

impl<F> Reply<marker::Later> for F
where
    F: Future<Output: IntoReply> + Send + 'static,
{
    fn into_response(self) -> Response {
        Response::later(self)
    }

    fn into_response_with(self, change: fn(RpcError) -> RpcError) -> Response {
        // In the one box that there is.
        let reply = async move { self.await.into_reply().map_err(change) };
        Response(Answer::Later(Later::new(reply)))
    }

    fn type_name() -> &'static str {
        type_name::<F::Output>()
    }
}

/// A type that a handler may return. The list is closed; [`Serde`](crate::Serde) takes in every
/// type that implements `Serialize`.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return a `Value`, a number, a string, `bool`, `Vec<u8>`, `()`, an `Option` or `Result` \
            of these, or `arrpc::Serde(..)` around a type that implements `Serialize`"
)]
pub trait IntoReply: closed::List {
    /// Makes it the reply to a message, or its error.
    fn into_reply(self) -> Result<Value, RpcError>;
}

mod closed {
    /// The types that a handler may return.
    pub trait List {}
}

impl closed::List for Value {}
impl IntoReply for Value {
    fn into_reply(self) -> Result<Value, RpcError> {
        Ok(self)
    }
}

impl closed::List for () {}
impl IntoReply for () {
    fn into_reply(self) -> Result<Value, RpcError> {
        Ok(Value::Nil)
    }
}

impl<T: IntoReply> closed::List for Option<T> {}
impl<T: IntoReply> IntoReply for Option<T> {
    fn into_reply(self) -> Result<Value, RpcError> {
        self.map_or(Ok(Value::Nil), T::into_reply)
    }
}

impl<T: IntoReply, E: Into<RpcError>> closed::List for Result<T, E> {}
impl<T: IntoReply, E: Into<RpcError>> IntoReply for Result<T, E> {
    fn into_reply(self) -> Result<Value, RpcError> {
        self.map_err(Into::into)?.into_reply()
    }
}

impl<T: Serialize> closed::List for Serde<T> {}
impl<T: Serialize> IntoReply for Serde<T> {
    fn into_reply(self) -> Result<Value, RpcError> {
        to_value(&self.0).map_err(|error| not_serialized(&error))
    }
}

/// Logs what is wrong with a handler's reply, and returns what the peer is told of it.
#[cold]
pub(crate) fn not_serialized(error: &dyn fmt::Display) -> RpcError {
    tracing::error!(%error, "the handler's reply cannot be serialized");
    RpcError::new("The handler's reply cannot be serialized, the server's log has the details")
}

macro_rules! into_reply {
    ($($type:ty),*) => {$(
        impl closed::List for $type {}
        impl IntoReply for $type {
            fn into_reply(self) -> Result<Value, RpcError> {
                Ok(Value::from(self))
            }
        }
    )*};
}

into_reply!(bool, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64);
into_reply!(String, &str, Cow<'_, str>, Vec<u8>, &[u8], Vec<Value>, Vec<(Value, Value)>);

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

/// Makes a handler of a closure that blocks: each call runs on a thread of a bounded pool, so that
/// it holds up no other connection.
///
/// For files, other blocking libraries, and computation of more than a few hundred microseconds.
/// The pool is smol's: it grows to 500 threads at most, or to what `BLOCKING_MAX_THREADS` says;
/// further calls wait for a free one.
///
/// ```
/// use arrpc::{Server, blocking};
///
/// let server = Server::new("127.0.0.1", 0, blocking(|message| {
///     std::fs::read_to_string(message.as_str().unwrap_or_default())
///         .map_err(|error| error.to_string())
/// }));
/// ```
pub fn blocking<F, T>(handler: F) -> impl Fn(Value) -> BlockingCall<T> + Send + Sync + 'static
where
    F: Fn(Value) -> T + Send + Sync + 'static,
    T: IntoReply + Send + 'static,
{
    let handler = Arc::new(handler);
    move |message| {
        let handler = handler.clone();
        unblock(move || handler(message))
    }
}

/// Runs `work` on the pool of [`blocking`] threads, for a handler or method that has taken its
/// message apart already.
///
/// ```
/// use arrpc::{Server, unblock};
///
/// let server = Server::new("127.0.0.1", 0, |message| {
///     let path = message.as_str().unwrap_or_default().to_owned();
///     unblock(move || std::fs::read_to_string(path).map_err(|error| error.to_string()))
/// });
/// ```
pub fn unblock<F, T>(work: F) -> BlockingCall<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let keeper = Keeper::default();
    let kept = keeper.clone();
    let task = smol::unblock(move || {
        let _kept = kept;
        work()
    });
    BlockingCall { task, keeper }
}

/// A call on the pool of blocking threads: what [`blocking`] makes a handler return.
#[derive(Debug)]
pub struct BlockingCall<T> {
    task: smol::Task<T>,
    /// The work has it too.
    keeper: Keeper,
}

impl<T> Future for BlockingCall<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<T> {
        self.keeper.keep_current();
        Pin::new(&mut self.task).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, TryRecvError};
    use std::time::Duration;

    use super::*;
    use crate::net::address::Origin;
    use crate::server::context::Peer;
    use crate::services::typed::Typed;
    use crate::wire::Protection;

    const PATIENCE: Duration = Duration::from_secs(20);

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
    fn what_a_call_holds_is_kept_until_its_blocking_work_has_ended() {
        struct Held(mpsc::Sender<()>);
        impl Drop for Held {
            fn drop(&mut self) {
                let _ = self.0.send(()); // the test may be over
            }
        }
        let direct = |work: BlockingCall<()>| Response::later(work);
        let inside = |work: BlockingCall<()>| {
            Response::later(async {
                let nothing = Response::later(async {}).holding(());
                nothing.reply().await?;
                work.await;
                Ok::<_, RpcError>(())
            })
        };
        for respond in [direct, inside] {
            for is_given_up in [true, false] {
                let (sender, dropped) = mpsc::channel();
                let (begin_sender, begun) = mpsc::channel();
                let (gate, gate_receiver) = mpsc::channel::<()>();
                let work = unblock(move || {
                    begin_sender.send(()).expect("the test waits");
                    let _ = gate_receiver.recv(); // an error: it is open
                });
                begun.recv_timeout(PATIENCE).expect("a thread");
                let mut reply = Box::pin(respond(work).holding(Held(sender)).reply());
                assert_eq!(smol::block_on(smol::future::poll_once(&mut reply)), None);
                if is_given_up {
                    drop(reply);
                    assert_eq!(dropped.try_recv(), Err(TryRecvError::Empty), "the work goes on");
                    drop(gate);
                } else {
                    drop(gate);
                    assert_eq!(smol::block_on(&mut reply), Ok(Value::Nil));
                }
                assert_eq!(dropped.recv_timeout(PATIENCE), Ok(()));
            }
        }
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
