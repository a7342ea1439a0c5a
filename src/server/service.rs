//! What all connections of a server share, and the way of one message through it: open the
//! envelope, decode, call the handler, and decide what the peer is told. Knows no streams.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::metrics::ServerMetrics;
use crate::server::handler::{Answer, Context, Handler};
use crate::wire::envelope::{self, INVALID_SIGNATURE, NO_SECRET};
use crate::wire::reply::Reply;
use crate::wire::{self, Limits, Malformed, Secret, frame};
use crate::{RpcError, Value};

/// What a peer is told when a handler panics. The details are in the log, not on the wire.
const HANDLER_PANICKED: &str = "The handler failed, the server's log has the details";

/// The handler and the rules of one server.
pub(crate) struct Service {
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) secret: Option<Secret>,
    pub(crate) limits: Limits,
    /// Requests of one connection that may run at once.
    pub(crate) max_in_flight: usize,
    pub(crate) metrics: Option<ServerMetrics>,
}

/// Why a message did not reach the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(Malformed),
    /// The signature is missing or wrong.
    InvalidSignature,
    /// There is a signature, and no secret to verify it with.
    NoSecret,
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Refusal {
    /// The rule that was broken, for the metrics: a limit by the name of its setter.
    pub(crate) fn rule(self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.limit().unwrap_or("messagepack"),
            Self::InvalidSignature | Self::NoSecret => "auth_secret",
        }
    }

    /// The `reason` label of the metrics: the text without what the peer may vary, as the distinct
    /// reasons are few and stay for ever.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.reason(),
            Self::InvalidSignature => INVALID_SIGNATURE,
            Self::NoSecret => NO_SECRET,
        }
    }

    /// What the peer is told.
    pub(crate) fn reply(self) -> Reply {
        match self {
            Self::Malformed(malformed) => Reply::Rpc(malformed.to_string()),
            Self::InvalidSignature => Reply::Auth(INVALID_SIGNATURE.to_owned()),
            Self::NoSecret => Reply::Auth(NO_SECRET.to_owned()),
        }
    }
}

impl Service {
    /// Turns the bytes of a message into the value that the handler gets.
    ///
    /// Invariant (G7): with a secret, nothing is decoded before its signature is verified.
    #[inline]
    pub(crate) fn receive(&self, message: &[u8]) -> Result<Value, Refusal> {
        match &self.secret {
            Some(secret) => {
                let body = envelope::open(message, secret).ok_or(Refusal::InvalidSignature)?;
                frame::check_whole(body, &self.limits)?;
                Ok(wire::decode(body)?)
            }
            None => {
                let value = wire::decode(message)?;
                if envelope::is_envelope(&value) {
                    return Err(Refusal::NoSecret);
                }
                Ok(value)
            }
        }
    }

    /// Calls the handler. A panic becomes its error.
    #[inline]
    pub(crate) fn call(&self, message: Value, context: &Context) -> Answer {
        // Unwind safe: the handler's own state is behind `&self`, as with any shared state that a
        // panic may poison; nothing of ours is changed inside.
        match catch_unwind(AssertUnwindSafe(|| self.handler.call(message, context))) {
            Ok(response) => response.0,
            Err(panic) => Answer::Ready(Err(panicked(&*panic, context))),
        }
    }
}

/// Logs a handler's panic and returns what the peer is told of it.
#[cold]
pub(crate) fn panicked(panic: &(dyn Any + Send), context: &Context) -> RpcError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let peer = context.peer_addr();
    tracing::error!(%peer, panic = text.unwrap_or("not a text"), "the handler panicked");
    RpcError::from(HANDLER_PANICKED)
}
