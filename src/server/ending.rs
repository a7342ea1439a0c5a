//! How a session ends, as it decides and as the log says it.

use std::fmt;
use std::io;

/// How a session ended.
pub(crate) enum Ending {
    /// The peer closed the connection, and has all its replies.
    PeerClosed,
    /// The server stops; the peer has all its replies.
    Stopped,
    /// The peer sent what no session can go on from; it was told so.
    Refused,
    /// The connection was idle for longer than it may be.
    Idle,
    /// The peer does not take its replies.
    Unread,
    /// What waits for the peer is more than there is memory for.
    NoMemory,
    /// The stream failed.
    Lost(io::Error),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("the peer closed it"),
            Self::Stopped => f.write_str("the server stops"),
            Self::Refused => f.write_str("the peer was refused"),
            Self::Idle => f.write_str("it was idle for too long (idle_timeout)"),
            Self::Unread => f.write_str("the peer did not take its replies (write_timeout)"),
            Self::NoMemory => f.write_str("there is no memory for its replies (max_memory_bytes)"),
            Self::Lost(error) => write!(f, "{error}"),
        }
    }
}
