//! Handlers from one serde type to another, as closures that `Server::new` takes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::server::response::{IntoReply, marker};
use crate::{Reply, Response, RpcError, Serde, Value, from_value};

/// Makes a handler of a closure, sync or async, from any type that implements
/// [`serde::Deserialize`] to a `Result` of any type that implements [`Serialize`].
///
/// Structs are maps with their fields' names as keys. A message that does not have the type's form
/// gets an error reply that says what was expected; the closure is not called.
///
/// ```
/// use arrpc::{RpcError, Server, blocking, typed, value};
///
/// #[derive(serde::Deserialize)]
/// struct Division {
///     dividend: f64,
///     divisor: f64,
/// }
///
/// let server = Server::new("127.0.0.1", 0, typed(|task: Division| {
///     if task.divisor == 0.0 {
///         return Err(RpcError::new("division by zero"));
///     }
///     Ok(task.dividend / task.divisor)
/// }))
/// .start_background()?;
///
/// let client = blocking::Client::new("127.0.0.1", server.local_addr().port());
/// assert_eq!(client.send(value!({"dividend": 3.0, "divisor": 2.0}))?, value!(1.5));
/// assert!(client.send(value!({"dividend": 3.0})).is_err());
/// # Ok::<(), arrpc::Error>(())
/// ```
pub fn typed<F, Req, R, M>(handler: F) -> impl Fn(Value) -> TypedResponse + Send + Sync + 'static
where
    F: Fn(Req) -> R + Send + Sync + 'static,
    Req: DeserializeOwned,
    R: TypedReply<M>,
{
    move |message| match from_value::<Req>(&message) {
        Ok(request) => TypedResponse(handler(request).into_response()),
        Err(error) => TypedResponse(Response::ready(Err::<(), _>(RpcError::other_form(error)))),
    }
}

/// What a handler made by [`typed`] returns.
#[derive(Debug)]
pub struct TypedResponse(Response);

/// Marks the reply of a handler that [`typed`] made. Inferred, never written.
#[derive(Debug)]
pub enum Typed {}

impl Reply<Typed> for TypedResponse {
    fn into_response(self) -> Response {
        self.0
    }
}

/// What a closure given to [`typed`] may return: a `Result` of a type that implements
/// [`Serialize`], or a future of one.
#[diagnostic::on_unimplemented(
    message = "a typed handler cannot return `{Self}`",
    label = "not a `Result`, and not a future of one",
    note = "return `Ok(..)` of a type that implements `Serialize`, or an error that an `RpcError` \
            is made from"
)]
pub trait TypedReply<M> {
    /// Makes it the response to a message.
    fn into_response(self) -> Response;
}

impl<T: Serialize, E: Into<RpcError>> TypedReply<marker::Now> for Result<T, E> {
    fn into_response(self) -> Response {
        Response::ready(self.map(Serde))
    }
}

impl<F, T, E> TypedReply<marker::Later> for F
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    Result<Serde<T>, E>: IntoReply,
{
    fn into_response(self) -> Response {
        Response::later(async move { self.await.map(Serde) })
    }
}
