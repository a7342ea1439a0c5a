//! The byte layer, handlers and clients as the benchmarks and the command of this repository see
//! them. No part of the API: what is here changes with any release.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures_rustls::rustls::ClientConfig;

use crate::metrics::endpoint::Readiness;
use crate::net::address::Origin;
use crate::net::tls::{self, KeyPair, Trust};
use crate::server::context::Peer;
use crate::server::handler::Closure;
use crate::server::response::Answer;
use crate::wire::cipher::{Cipher, Nonce};
use crate::wire::{self, FrameFinder, Limits, Protection, Secret, encode, envelope, sealed};
use crate::{Client, Context, Error, Handler, Reply, Value};

/// Finds where messages end.
#[derive(Debug)]
pub struct Frames {
    finder: FrameFinder,
    limits: Limits,
}

impl Frames {
    /// Begins with the first message of a connection, of up to `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        let limits = Limits { max_bytes, max_depth: wire::MAX_MAX_DEPTH, max_items: usize::MAX };
        Self { finder: FrameFinder::new(), limits }
    }

    /// Returns the length of the message at the start of `unread`, or `None` if its end is not
    /// there. Once it has told an end, the next call is for the next message. Until then `unread`
    /// starts with the same bytes, and each call goes on where the last one stopped.
    ///
    /// # Errors
    ///
    /// What is wrong with the message: it is no MessagePack, or exceeds the limit.
    pub fn find(&mut self, unread: &[u8]) -> Result<Option<usize>, String> {
        self.finder.find(unread, &self.limits).map_err(|malformed| malformed.to_string())
    }
}

/// Decodes one whole message.
///
/// # Errors
///
/// What is wrong with it.
pub fn decode(message: &[u8]) -> Result<Value, String> {
    wire::decode(message).map_err(|malformed| malformed.to_string())
}

/// Appends a value as one message.
///
/// # Errors
///
/// If it is longer than 4 GiB.
pub fn encode(value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    encode::message(value, out).map_err(|error| error.to_string())
}

/// Signs messages, and verifies their signatures.
#[derive(Debug)]
pub struct Sealer(Secret);

impl Sealer {
    /// Prepares a secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(Secret::new(secret))
    }

    /// Appends the signed envelope of a message.
    pub fn seal(&self, message: &[u8], out: &mut Vec<u8>) {
        envelope::seal(message, &self.0, out);
    }

    /// Returns the message in an envelope if its signature is right.
    pub fn open<'a>(&self, envelope: &'a [u8]) -> Option<&'a [u8]> {
        envelope::open(envelope, &self.0)
    }
}

/// Encrypts messages, and decrypts them.
#[derive(Debug)]
pub struct Encrypter(Cipher);

impl Encrypter {
    /// Derives the keys from a secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(Cipher::new(&Secret::new(secret)))
    }

    /// Appends the encrypted form of a message.
    ///
    /// # Errors
    ///
    /// If it is longer than 4 GiB.
    pub fn seal(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        sealed::seal_request(message, &self.0, out).map(drop).map_err(|error| error.to_string())
    }

    /// The same, and returns what opens the replies to it: all of them, if it is sent several
    /// times.
    ///
    /// # Errors
    ///
    /// If it is longer than 4 GiB.
    pub fn seal_request(&self, message: &[u8], out: &mut Vec<u8>) -> Result<ReplyOpener, String> {
        let nonce =
            sealed::seal_request(message, &self.0, out).map_err(|error| error.to_string())?;
        Ok(ReplyOpener { cipher: self.0.clone(), nonce })
    }

    /// Decrypts a message where it is, and returns it, if it was encrypted with the same secret.
    pub fn open<'a>(&self, message: &'a mut [u8]) -> Option<&'a [u8]> {
        sealed::open_request(message, &self.0).map(|(_, body)| body)
    }
}

/// Decrypts the replies to one encrypted message.
#[derive(Clone, Debug)]
pub struct ReplyOpener {
    cipher: Cipher,
    nonce: Nonce,
}

impl ReplyOpener {
    /// Decrypts a reply where it is, and returns the message in it, if it is one to that message.
    pub fn open<'a>(&self, reply: &'a mut [u8]) -> Option<&'a [u8]> {
        sealed::open_reply(reply, &self.cipher, self.nonce)
    }
}

/// A handler without a server: what a message costs between its bytes and those of its reply.
pub struct Answering {
    handler: Box<dyn Handler>,
    context: Context,
}

impl Answering {
    /// Takes a handler that answers at once.
    pub fn new(handler: impl Handler) -> Self {
        let peer = Peer { origin: Origin(None), tls: false, identity: None };
        Self { handler: Box::new(handler), context: Context::new(peer, &Protection::None) }
    }

    /// Takes a closure, as [`Server::new`](crate::Server::new) does.
    pub fn closure<F, R, M>(handler: F) -> Self
    where
        F: Fn(Value) -> R + Send + Sync + 'static,
        R: Reply<M>,
        M: 'static,
    {
        Self::new(Closure::new(handler))
    }

    /// Decodes a message, calls the handler, and appends its reply.
    ///
    /// # Errors
    ///
    /// What is wrong with the message, the handler's error, or that it does not answer at once.
    pub fn answer(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match self.handler.call(decode(message)?, &self.context).0 {
            Answer::Ready(Ok(value)) => encode(&value, out),
            Answer::Ready(Err(error)) => Err(error.message().to_owned()),
            Answer::Later(_) => Err("no answer at hand".to_owned()),
        }
    }
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answering").field(&self.handler.name()).finish()
    }
}

/// Checks the options of a client and reads the files they name, as its first call would. Blocks.
///
/// # Errors
///
/// [`Error::Config`]: options that cannot work, a file that cannot be read or used;
/// [`Error::Bind`]: its metrics cannot be listened on.
pub fn open(client: &Client) -> Result<(), Error> {
    smol::block_on(client.open()).map(drop)
}

/// While it lives, `/readyz` of the metrics answers that this process is not ready, whatever its
/// servers are.
#[derive(Debug)]
pub struct NotReady(#[expect(dead_code, reason = "counted until it is dropped")] Readiness);

impl NotReady {
    /// Begins.
    #[expect(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        Self(Readiness::starting())
    }
}

/// Loads the TLS configuration of a client that trusts the server with the `pinned` certificate,
/// or those that a certificate in `ca` vouches for, or with neither those that this system trusts.
/// With `identity`, a certificate and its key, it shows that to servers that ask for one.
///
/// # Errors
///
/// [`Error::Config`]: a file that cannot be read or used.
pub fn tls_client_config(
    ca: Option<&Path>,
    pinned: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, Error> {
    let trust = match (pinned, ca) {
        (Some(certificate), _) => Trust::Pinned(certificate.to_owned()),
        (None, Some(file)) => Trust::CaFile(file.to_owned()),
        (None, None) => Trust::System,
    };
    let identity = identity
        .map(|(certificate, key)| KeyPair { certificate: certificate.into(), key: key.into() });
    tls::client_config(&trust, identity.as_ref())
}
