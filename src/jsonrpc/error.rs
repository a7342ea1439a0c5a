//! What calls of JSON-RPC services fail with, as callers see it. `Display` prints an error's own
//! level; the cause is in `source()`.

use std::fmt;
use std::io;
use std::time::Duration;

use hyper::StatusCode;

use crate::{Phase, Value};

/// What [`Client`](super::Client) fails with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL or the options cannot work. The text says which, and what to do.
    #[error("{0}")]
    Config(String),

    /// No connection came about; nothing was sent.
    #[error("Failed to connect to {address} with {attempts} attempts")]
    Connect {
        /// `host:port` of the URL.
        address: String,
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed.
        source: io::Error,
    },

    /// The connection ended before the reply. The server may have run the call or not, so it was
    /// not sent again.
    #[error("{address} ended the connection before its reply, the call may have run")]
    Disconnected {
        /// `host:port` of the URL.
        address: String,
        /// How the connection ended.
        source: io::Error,
    },

    /// The server answered with an HTTP status and no JSON-RPC reply: a 401 for a wrong token, a
    /// 404 for a wrong path, a redirect, which is not followed.
    #[error("{address} answered with {}{}", Status(*.status), Beginning(.text))]
    Http {
        /// `host:port` of the URL.
        address: String,
        /// The status code.
        status: u16,
        /// The beginning of what came with it, or where a redirect leads.
        text: String,
    },

    /// The answer is no JSON-RPC reply to the call, is larger than the client's limits, or a result
    /// cannot be made of a type, or parameters of one.
    #[error("{0}")]
    Protocol(String),

    /// The service's own error.
    #[error("{message} (code {code})")]
    Rpc {
        /// What kind of error. From -32768 to -32000 they are those of JSON-RPC 2.0, such as -32601
        /// for a method that does not exist; the others are the service's.
        code: i64,
        /// A sentence for people.
        message: String,
        /// What the service tells beside, if it does.
        data: Option<Value>,
    },

    /// The call took longer than the client's `timeout`.
    #[error("Timed out after {after:?} {phase}")]
    Timeout {
        /// The `timeout` of the client.
        after: Duration,
        /// What the call was doing when its time was up. Sending the request is a part of
        /// [`Phase::Reply`], as HTTP does both at once.
        phase: Phase,
    },

    /// The peers could not agree on TLS: a certificate that is not trusted, or an answer that is
    /// not TLS.
    #[error("TLS with {address} failed")]
    Tls {
        /// `host:port` of the URL.
        address: String,
        /// What was wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// What the connections, TLS and values of the crate fail with.
    pub(super) fn of(error: crate::Error) -> Self {
        match error {
            crate::Error::Config(text) => Self::Config(text),
            crate::Error::Connect { address, attempts, source } => {
                Self::Connect { address, attempts, source }
            }
            crate::Error::Disconnected { address, source } => {
                Self::Disconnected { address, source }
            }
            crate::Error::Timeout { after, phase } => Self::Timeout { after, phase },
            crate::Error::Tls { address, source } => Self::Tls { address, source },
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// A status as people know it: `HTTP status 404 Not Found`.
struct Status(u16);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}", self.0)?;
        match StatusCode::from_u16(self.0).ok().and_then(|status| status.canonical_reason()) {
            Some(reason) => write!(f, " {reason}"),
            None => Ok(()),
        }
    }
}

/// What stands behind the status, if anything does.
struct Beginning<'a>(&'a str);

impl fmt::Display for Beginning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            text => write!(f, ": {text}"),
        }
    }
}
