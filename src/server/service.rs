//! What all connections of a server share, and what happens to one message: open the envelope, call
//! the handler, and decide what the peer is told. Knows no streams.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::budget::{Budget, decoded_bytes};
use super::context::Context;
use super::handler::Handler;
use super::life_cycle::LifeCycle;
use super::raw::{RawHandler, RawMessage, RawReply};
use super::response::{Answer, not_serialized};
use super::sealing::Sealing;
use crate::metrics::ServerMetrics;
use crate::net::connection::Message;
use crate::wire::cipher::Cipher;
use crate::wire::envelope::{self, INVALID_SIGNATURE, NO_SECRET};
use crate::wire::reply::Reply;
use crate::wire::sealed::{self, NO_SECRET_TO_DECRYPT, NOT_DECRYPTED, NOT_ENCRYPTED, NOT_OPENED};
use crate::wire::{self, Limits, Malformed, Protection, encode, frame};
use crate::{RpcError, Value};

/// What a peer is told when a handler panics. The details are in the log, not on the wire.
pub(crate) const HANDLER_PANICKED: &str = "The handler failed, the server's log has the details";

const HANDLER_TIMED_OUT: &str = "The handler took too long (handler_timeout)";
const MESSAGE_TIMED_OUT: &str = "The message took too long to arrive (message_timeout)";
const NO_MEMORY: &str = "The server has no memory left for the message (max_memory_bytes)";

/// The handler and the rules of one server.
pub(crate) struct Service {
    pub(crate) handler: AnyHandler,
    pub(crate) protection: Protection,
    pub(crate) limits: Limits,
    /// Requests of one connection that may run at once.
    pub(crate) max_in_flight: usize,
    pub(crate) budget: Arc<Budget>,
    pub(crate) timeouts: Timeouts,
    pub(crate) metrics: Option<ServerMetrics>,
    pub(crate) life_cycle: LifeCycle,
}

/// How long the phases of a connection may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) tls_handshake: Duration,
    /// A whole message after its first byte.
    pub(crate) message: Duration,
    /// A write without progress.
    pub(crate) write: Duration,
    pub(crate) idle: Option<Duration>,
    pub(crate) handler: Option<Duration>,
}

/// Why a message did not reach the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(Malformed),
    /// The signature is missing or wrong.
    InvalidSignature,
    /// There is a signature, and no secret to verify it with.
    NoSecret,
    /// It is encrypted, and there is no secret to decrypt it with.
    NoSecretToDecrypt,
    /// It is encrypted, where messages are signed.
    NotDecrypted,
    /// It is not encrypted, where messages are.
    NotEncrypted,
    /// It is not encrypted with the server's secret, or was changed since.
    NotOpened,
    /// The messages on their way take all the memory that there is for them.
    NoMemory {
        limit: usize,
    },
    /// The rest of the message did not come.
    TimedOut {
        after: Duration,
    },
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
            Self::InvalidSignature | Self::NoSecret | Self::NoSecretToDecrypt => "auth_secret",
            Self::NotDecrypted | Self::NotEncrypted | Self::NotOpened => "auth_secret",
            Self::NoMemory { .. } => "max_memory_bytes",
            Self::TimedOut { .. } => "message_timeout",
        }
    }

    /// Whether the message is not from somebody who knows the secret, as far as the server can
    /// tell.
    pub(crate) fn is_unverified(self) -> bool {
        matches!(
            self,
            Self::InvalidSignature | Self::NotDecrypted | Self::NotEncrypted | Self::NotOpened
        )
    }

    /// The `reason` label of the metrics: the text without what the peer may vary, as the distinct
    /// reasons are few and stay for ever.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed(malformed) => malformed.reason(),
            Self::InvalidSignature => INVALID_SIGNATURE,
            Self::NoSecret => NO_SECRET,
            Self::NoSecretToDecrypt => NO_SECRET_TO_DECRYPT,
            Self::NotDecrypted => NOT_DECRYPTED,
            Self::NotEncrypted => NOT_ENCRYPTED,
            Self::NotOpened => NOT_OPENED,
            Self::NoMemory { .. } => NO_MEMORY,
            Self::TimedOut { .. } => MESSAGE_TIMED_OUT,
        }
    }

    /// What the peer is told.
    pub(crate) fn reply(self) -> Reply {
        match self {
            Self::Malformed(malformed) => Reply::Rpc(malformed.to_string()),
            Self::InvalidSignature
            | Self::NoSecret
            | Self::NoSecretToDecrypt
            | Self::NotDecrypted
            | Self::NotEncrypted
            | Self::NotOpened => Reply::Auth(self.reason().to_owned()),
            Self::NoMemory { limit } => Reply::Rpc(format!(
                "The server has no memory left for the message (max_memory_bytes {limit}), \
                 try again later, or send less at once"
            )),
            Self::TimedOut { after } => {
                Reply::Rpc(format!("The message did not arrive within {after:?} (message_timeout)"))
            }
        }
    }
}

/// The handler of a server, of one of two kinds.
pub(crate) enum AnyHandler {
    /// Gets values, and answers at once or later.
    Values(Box<dyn Handler>),
    /// Gets bytes, and writes its reply.
    Raw(RawHandler),
}

impl AnyHandler {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Values(handler) => handler.name(),
            Self::Raw(handler) => handler.name(),
        }
    }
}

/// What the handler gets of a message, within the limits and not decoded.
#[derive(Clone, Copy)]
pub(crate) struct Opened<'a> {
    pub(crate) bytes: &'a [u8],
    /// The values in it, at all its levels.
    pub(crate) items: usize,
}

impl Service {
    /// Checks a value that came another way than as a message against the limits, and calls the
    /// handler with it. Also returns the memory that it takes.
    pub(crate) fn call(
        &self,
        message: Value,
        context: &Context,
    ) -> Result<(Answer, usize), Malformed> {
        let mut packed = Vec::new();
        encode::message(&message, &mut packed)
            .map_err(|_| Malformed::TooLong { limit: self.limits.max_bytes })?;
        let items = frame::check_whole(&packed, &self.limits)?;
        let memory = decoded_bytes(packed.len(), items);
        let answer = match &self.handler {
            AnyHandler::Values(handler) => {
                drop(packed);
                call_values(&**handler, message, context)
            }
            AnyHandler::Raw(handler) => {
                let mut out = Vec::new();
                Answer::Ready(
                    call_raw(handler, &packed, context, &mut out)
                        .and_then(|()| wire::decode(&out).map_err(|error| not_serialized(&error))),
                )
            }
        };
        Ok((answer, memory))
    }

    /// Takes what the handler is to get out of a message, without decoding it. Of an encrypted one,
    /// `sealing` takes note for the reply.
    ///
    /// Invariant (G7): with a secret, nothing is looked at before it is verified.
    #[inline]
    pub(crate) fn open<'a>(
        &self,
        message: Message<'a>,
        sealing: Option<&mut Sealing>,
    ) -> Result<Opened<'a>, Refusal> {
        let bytes = match &self.protection {
            Protection::None => {
                // A map of two entries, in one of its three forms.
                if let Some(0x82 | 0xde | 0xdf) = message.bytes.first() {
                    refuse_wrapped(message.bytes)?;
                }
                return Ok(Opened { bytes: message.bytes, items: message.items });
            }
            Protection::Signed(secret) => {
                let bytes = &*message.bytes;
                envelope::open(bytes, secret).ok_or_else(|| match sealed::is_sealed(bytes) {
                    true => Refusal::NotDecrypted,
                    false => Refusal::InvalidSignature,
                })?
            }
            Protection::Encrypted(cipher) => decrypt(message.bytes, cipher, sealing)?,
        };
        let items = frame::check_whole(bytes, &self.limits)?;
        Ok(Opened { bytes, items })
    }
}

/// Calls a handler with a message. A panic becomes its error.
#[inline(always)] // what it returns is large, and copied if it goes through memory
pub(crate) fn call_values(handler: &dyn Handler, message: Value, context: &Context) -> Answer {
    // Unwind safe: the handler's own state is behind `&self`, as with any shared state that a panic
    // may poison.
    match catch_unwind(AssertUnwindSafe(|| handler.call(message, context))) {
        Ok(response) => response.0,
        Err(panic) => Answer::Ready(Err(panicked(&*panic, context))),
    }
}

/// Calls a handler with the bytes of a message. It writes its reply to `out`; an error or a panic
/// leaves that as it was.
#[inline(always)]
pub(crate) fn call_raw(
    handler: &RawHandler,
    message: &[u8],
    context: &Context,
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    let start = out.len();
    let message = RawMessage::new(message, context);
    let call = || handler.call(message, RawReply::new(out));
    let error = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(_)) if out.len() > start => return Ok(()),
        // It kept what another reply had given it.
        Ok(Ok(_)) => not_serialized(&"nothing was written"),
        Ok(Err(error)) => error,
        Err(panic) => panicked(&*panic, context),
    };
    out.truncate(start);
    Err(error)
}

/// Decrypts a message where it is. Not inline: the way of the others is shorter without it.
#[inline(never)]
fn decrypt<'a>(
    message: &'a mut [u8],
    cipher: &Cipher,
    sealing: Option<&mut Sealing>,
) -> Result<&'a [u8], Refusal> {
    let is_sealed = sealed::is_sealed(message);
    let opened = sealed::open_request(message, cipher);
    if let Some(sealing) = sealing {
        sealing.owe(opened.map(|(nonce, _)| nonce));
    }
    let refusal = if is_sealed { Refusal::NotOpened } else { Refusal::NotEncrypted };
    opened.map(|(_, bytes)| bytes).ok_or(refusal)
}

/// Refuses what somebody has signed or encrypted, where there is no secret.
fn refuse_wrapped(message: &[u8]) -> Result<(), Refusal> {
    if envelope::is_envelope(message) {
        return Err(Refusal::NoSecret);
    }
    if sealed::is_sealed(message) {
        return Err(Refusal::NoSecretToDecrypt);
    }
    Ok(())
}

/// Logs that a handler took too long and returns what the peer is told of it.
#[cold]
pub(crate) fn handler_timed_out(after: Duration, context: &Context) -> RpcError {
    tracing::debug!(peer = %context.origin(), "the handler took longer than {after:?}");
    let text = format!("The handler took longer than {after:?} (handler_timeout)");
    RpcError::from(text).with_reason(HANDLER_TIMED_OUT)
}

/// Logs a handler's panic and returns what the peer is told of it.
#[cold]
pub(crate) fn panicked(panic: &(dyn Any + Send), context: &Context) -> RpcError {
    let peer = context.origin();
    tracing::error!(%peer, panic = panic_text(panic), "the handler panicked");
    RpcError::from(HANDLER_PANICKED)
}

/// What a panic says.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("not a text")
}
