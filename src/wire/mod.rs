//! The bytes on the wire: finding, decoding, encoding, signing, verifying and encrypting
//! messages. Knows nothing of sockets, clocks or tasks; everything here is a function of its bytes.

#![cfg_attr(
    not(any(test, fuzzing)),
    deny(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

pub(crate) mod frame;

pub(crate) mod cipher;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod envelope;
pub(crate) mod guard;
pub(crate) mod header;
mod protection;
pub(crate) mod reply;
pub(crate) mod sealed;
pub(crate) mod secret;

#[cfg(any(test, fuzzing))]
pub(crate) mod agreement;

pub(crate) use decode::decode;
pub(crate) use frame::{FrameFinder, Limits, MAX_MAX_DEPTH, Malformed};
pub(crate) use protection::Protection;
pub(crate) use secret::Secret;
