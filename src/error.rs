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

    /// Makes an error with a code that programs can tell it by, and a message for people. A code
    /// has lower case letters, digits and underscores; anything else is a part of the message. On
    /// the wire the code stands before the message in brackets, where any client can read it:
    /// `arrpc.error.RpcException: [not_found] there is no user 7`.
    ///
    /// ```
    /// use arrpc::RpcError;
    ///
    /// let error = RpcError::with_code("not_found", "there is no user 7");
    /// assert_eq!(error.message(), "[not_found] there is no user 7");
    /// assert_eq!(error.code(), Some("not_found"));
    /// assert_eq!(error.description(), "there is no user 7");
    /// ```
    pub fn with_code(code: &str, message: impl fmt::Display) -> Self {
        format!("[{code}] {message}").into()
    }

    /// The error for a peer whose message does not have the form of the handler's type.
    pub(crate) fn other_form(cause: Error) -> Self {
        Self::new(cause).with_reason("Message does not have the form of the handler's type")
    }

    /// Gives it a code, if it has none.
    pub(crate) fn or_code(mut self, code: &str) -> Self {
        if self.code().is_none() {
            self.message.insert_str(0, &format!("[{code}] "));
        }
        self
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

    /// Returns the message that travels to the peer, with its code if it has one.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the code at the beginning of the message, if it has one: lower case letters, digits
    /// and underscores in brackets, and a space.
    pub fn code(&self) -> Option<&str> {
        self.split().0
    }

    /// Returns the message without its code.
    pub fn description(&self) -> &str {
        self.split().1
    }

    fn split(&self) -> (Option<&str>, &str) {
        let is_code = |code: &str| {
            !code.is_empty()
                && code.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        };
        match self.message.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((code, description)) if is_code(code) => (Some(code), description),
            _ => (None, &self.message),
        }
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
    /// The server refused the signature of the message, or its absence: arrpc's `AuthException`. Or
    /// an answer is not encrypted as that to an encrypted message must be; then the text says so.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_word_in_brackets_before_the_message() {
        for (message, code, description) in [
            ("[not_found] no user 7", Some("not_found"), "no user 7"),
            ("[e404] ", Some("e404"), ""),
            ("[a] [b] c", Some("a"), "[b] c"),
            ("no user 7", None, "no user 7"),
            ("[Not found] no user 7", None, "[Not found] no user 7"),
            ("[] no user 7", None, "[] no user 7"),
            ("[not_found]", None, "[not_found]"),
            ("[1, 2] is no map", None, "[1, 2] is no map"),
        ] {
            let error = RpcError::from(message);
            assert_eq!((error.code(), error.description()), (code, description), "{message}");
        }
    }
}
