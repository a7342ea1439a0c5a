//! Sockets and the bytes on their way: what lies between the operating system and whole messages.
//! Knows messages only as bytes; sessions, pools and retries are above.

pub(crate) mod address;
pub(crate) mod connection;
pub(crate) mod delivery;
pub(crate) mod listener;
pub(crate) mod reactor;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod tls;
#[cfg(unix)]
pub(crate) mod unix;
