//! Handlers that get a message as its bytes, and write their reply where it goes out: nothing is
//! decoded, allocated or copied that the handler does not ask for.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::response::not_serialized;
use crate::value::from_message;
use crate::wire::{self, Limits, MAX_MAX_DEPTH, encode, frame};
use crate::{RpcError, Value, name};

/// A message as it came: one whole value within the server's limits, verified if the server has a
/// secret, and not decoded. What a handler of [`Server::raw`](crate::Server::raw) gets.
#[derive(Clone, Copy)]
pub struct RawMessage<'a> {
    bytes: &'a [u8],
    context: &'a Context,
}

impl<'a> RawMessage<'a> {
    pub(crate) fn new(bytes: &'a [u8], context: &'a Context) -> Self {
        Self { bytes, context }
    }

    /// Returns the message as it was packed, without its signature.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Makes a type of the message. Fields of `&str`, and of `&[u8]` for a bin, borrow from it.
    ///
    /// # Errors
    ///
    /// For the peer: what the type expects, and what came.
    pub fn read<T: Deserialize<'a>>(self) -> Result<T, RpcError> {
        from_message(self.bytes).map_err(RpcError::other_form)
    }

    /// Decodes the message as the handlers of other servers get it.
    ///
    /// # Errors
    ///
    /// For the peer: a text in it that is not UTF-8.
    pub fn to_value(self) -> Result<Value, RpcError> {
        wire::decode(self.bytes).map_err(|malformed| {
            RpcError::from(malformed.to_string()).with_reason(malformed.reason())
        })
    }

    /// Returns who sent it, and how.
    pub fn context(self) -> &'a Context {
        self.context
    }
}

impl fmt::Debug for RawMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMessage").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Where the reply to one message goes. It is used up by the one reply that there is.
pub struct RawReply<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> RawReply<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Replies with any type that implements [`Serialize`]; structs are maps with their fields'
    /// names as keys.
    ///
    /// # Errors
    ///
    /// If it cannot be serialized. The peer is told no more than that; the log has the reason.
    pub fn write<T: Serialize + ?Sized>(self, reply: &T) -> Result<Written, RpcError> {
        let start = self.out.len();
        match rmp_serde::encode::write_named(self.out, reply) {
            Ok(()) => finish(self.out, start),
            Err(error) => Err(not_serialized(&error)),
        }
    }

    /// Replies with a message that is packed already. Its form is looked at, its texts are not: one
    /// that is not UTF-8 is an error for the client.
    ///
    /// # Errors
    ///
    /// If it is not exactly one MessagePack value. The peer is told no more than that; the log has
    /// the reason.
    pub fn write_bytes(self, packed: &[u8]) -> Result<Written, RpcError> {
        let start = self.out.len();
        self.out.extend_from_slice(packed);
        finish(self.out, start)
    }
}

/// Checks that one whole message was written: a `Serialize` may announce more or less than it
/// gives.
fn finish(out: &mut Vec<u8>, start: usize) -> Result<Written, RpcError> {
    let any = Limits { max_bytes: usize::MAX, max_depth: MAX_MAX_DEPTH, max_items: usize::MAX };
    let written = out.get(start..).unwrap_or_default();
    frame::check_whole(written, &any).map_err(|error| not_serialized(&error))?;
    encode::avoid_python_hang(out, start);
    Ok(Written(()))
}

impl fmt::Debug for RawReply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawReply")
    }
}

/// Shows that a [`RawReply`] was written.
#[derive(Debug)]
pub struct Written(());

type Function = dyn Fn(RawMessage<'_>, RawReply<'_>) -> Result<Written, RpcError> + Send + Sync;

/// A closure that answers messages as they came.
pub(crate) struct RawHandler {
    function: Box<Function>,
    name: &'static str,
}

impl RawHandler {
    pub(crate) fn new<F>(function: F) -> Self
    where
        F: Fn(RawMessage<'_>, RawReply<'_>) -> Result<Written, RpcError> + Send + Sync + 'static,
    {
        Self { function: Box::new(function), name: name::short_name::<F>() }
    }

    #[inline]
    pub(crate) fn call(
        &self,
        message: RawMessage<'_>,
        reply: RawReply<'_>,
    ) -> Result<Written, RpcError> {
        (self.function)(message, reply)
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }
}
