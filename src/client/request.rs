//! A request as it goes out, and what of the bytes that come back is its reply: for an encrypted
//! request what the server has encrypted for it, and nothing else. Knows no connections.

use std::borrow::Cow;

use crate::wire::cipher::{Cipher, Nonce};
use crate::wire::reply::Reply;
use crate::wire::{self, Limits, Malformed, Protection, envelope, frame, sealed};
use crate::{Error, Value};

/// One request, for one attempt: another one of the same message has another nonce.
pub(super) struct Request<'a> {
    bytes: Cow<'a, [u8]>,
    /// What its reply opens with.
    seal: Option<(&'a Cipher, Nonce)>,
}

impl<'a> Request<'a> {
    /// Makes a request of a packed message.
    pub(super) fn new(packed: &'a [u8], protection: &'a Protection) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let seal = match protection {
            Protection::None => return Ok(Self { bytes: packed.into(), seal: None }),
            Protection::Signed(secret) => {
                envelope::seal(packed, secret, &mut bytes);
                None
            }
            Protection::Encrypted(cipher) => {
                let nonce = sealed::seal_request(packed, cipher, &mut bytes)
                    .map_err(|error| Error::Protocol(error.to_string()))?;
                Some((cipher, nonce))
            }
        };
        Ok(Self { bytes: bytes.into(), seal })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Decodes the message that came for this request, or says why it is not its reply.
    pub(super) fn open(&self, received: &mut [u8], limits: &Limits) -> Result<Value, Error> {
        let Some((cipher, nonce)) = self.seal else {
            return wire::decode(received).map_err(not_a_reply);
        };
        if !sealed::is_sealed(received) {
            return Err(Error::Auth(not_encrypted(received)));
        }
        let Some(reply) = sealed::open_reply(received, cipher, nonce) else {
            return Err(Error::Auth(NOT_OPENED.to_owned()));
        };
        frame::check_whole(reply, limits).and_then(|_| wire::decode(reply)).map_err(not_a_reply)
    }
}

const NOT_OPENED: &str = "The reply cannot be decrypted: it was changed on its way, or is not the \
    one to this request";

const NOT_ENCRYPTED: &str =
    "The reply is not encrypted, make sure that 'encrypt' is set on the server";

pub(super) fn not_a_reply(malformed: Malformed) -> Error {
    Error::Protocol(format!("The reply: {malformed}"))
}

/// What to say of a reply that is not encrypted. An error is told, as it is most probably from a
/// server that could not decrypt the request; for a program it is none of the server's. Anything
/// else is not decoded: nobody knows who has sent it.
fn not_encrypted(received: &[u8]) -> String {
    let reply = match received {
        [0xa0..=0xbf | 0xd9..=0xdb, ..] => wire::decode(received).ok().map(Reply::from_value),
        _ => None,
    };
    match reply {
        Some(Reply::Auth(text) | Reply::Rpc(text)) => {
            format!("{text} (this came unencrypted, anybody may have sent it)")
        }
        _ => NOT_ENCRYPTED.to_owned(),
    }
}
