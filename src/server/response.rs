//! What a handler returns: a reply of one of many types, or a future of it, brought to one form.
//! Knows no handlers.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};

use serde::Serialize;

use super::held::{self, Held};
use crate::metrics::{CountedCall, MethodSeries};
use crate::{RpcError, Serde, Value, to_value};

/// The answer to one message: at hand, or on its way.
pub struct Response(pub(crate) Answer);

pub(crate) enum Answer {
    Ready(Result<Value, RpcError>),
    Later(Later),
}

/// A reply on its way.
pub(crate) struct Later {
    reply: Pin<Box<dyn Future<Output = Result<Value, RpcError>> + Send>>,
    /// The call of a method that it answers, if that is counted. Here and not in a future around
    /// the one above, which would take another box.
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
