//! What can go wrong, as callers see it. `Display` prints an error's own level; the cause is in
//! `source()`.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

/// An error that a handler returns and a client receives: arrpc's `RpcException`.
///
/// The message travels to the peer as it is, and shows in logs and in the `reason` label of the
/// metrics, so put nothing in it that they must not know.
///
/// ```
/// use arrpc::{RpcError, Value};
///
/// fn handler(message: Value) -> Result<u64, RpcError> {
///     message.as_u64().ok_or_else(|| RpcError::new("expected a number"))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    message: String,
    /// What logs and metrics say of it, where the message quotes what the peer has sent.
    reason: Option<&'static str>,
}

impl RpcError {
    /// Makes an error with a message for the peer.
    pub fn new(message: impl fmt::Display) -> Self {
        message.to_string().into()
    }

    /// The error for a peer whose message does not have the form of the handler's type.
    pub(crate) fn other_form(cause: Error) -> Self {
        Self::new(cause).with_reason("Message does not have the form of the handler's type")
    }

    /// Keeps the message from logs and metrics, which show `reason` instead.
    pub(crate) fn with_reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    pub(crate) fn into_message(self) -> String {
        self.message
    }

    /// Returns the message that travels to the peer.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl From<String> for RpcError {
    fn from(message: String) -> Self {
        Self { message, reason: None }
    }
}

impl From<&str> for RpcError {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

/// What [`Server`](crate::Server) and [`Client`](crate::Client) fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused the signature of the message, or its absence: arrpc's `AuthException`.
    #[error("{0}")]
    Auth(String),

    /// The server could not listen on its address.
    #[error("failed to listen on {address}")]
    Bind {
        /// The address as it was given, `host:port` or `unix:path`.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },

    /// The options cannot work: a file that cannot be read, half a TLS configuration, a limit out
    /// of range. The text says which option, and what to do.
    #[error("{0}")]
    Config(String),

    /// No connection came about: arrpc's `ConnectException`.
    #[error("Failed to connect to {address} with {attempts} attempts")]
    Connect {
        /// The address as it was given, `host:port` or `unix:path`.
        address: String,
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed.
        source: io::Error,
    },

    /// The system did not give the server its threads.
    #[error("failed to start the server's threads")]
    Thread {
        /// What the operating system said.
        source: io::Error,
    },

    /// The connection ended before the reply. The server may have run the request or not, so it
    /// was not sent again.
    #[error("{address} ended the connection before its reply, the request may have run")]
    Disconnected {
        /// The address as it was given, `host:port` or `unix:path`.
        address: String,
        /// How the connection ended.
        source: io::Error,
    },

    /// The peer's bytes are not a reply, the reply is larger than the client's limits, or a value
    /// cannot be made of a type, or a type of a value.
    #[error("{0}")]
    Protocol(String),

    /// The handler's error: arrpc's `RpcException`.
    #[error(transparent)]
    Rpc(#[from] RpcError),

    /// The call took longer than the client's `timeout`: arrpc's `RpcTimeoutException`.
    #[error("Timed out after {after:?} {phase}")]
    Timeout {
        /// The `timeout` of the client.
        after: Duration,
        /// What the call was doing when its time was up.
        phase: Phase,
    },

    /// The peers could not agree on TLS: a certificate that is not trusted, or an answer that is
    /// not TLS. A server that hangs up on the handshake, as arrpc's does on a plain port, is an
    /// [`Error::Connect`].
    #[error("TLS with {address} failed")]
    Tls {
        /// The address as it was given, `host:port` or `unix:path`.
        address: String,
        /// What was wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The phases of a call, as [`Error::Timeout`] names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Waiting for one of the pool's connections to be free.
    Queue,
    /// Resolving the host's name, connecting, and waiting between attempts.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Writing the request.
    Send,
    /// Waiting for the reply. The server may have run the request.
    Reply,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "waiting for a free connection",
            Self::Connect => "connecting",
            Self::Tls => "in the TLS handshake",
            Self::Send => "sending the request",
            Self::Reply => "waiting for the reply",
        })
    }
}

impl Error {
    /// The `reason` label of the metrics: arrpc's texts where it has one.
    pub(crate) fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Timeout { .. } => "Timed out".into(),
            other => other.to_string().into(),
        }
    }
}
