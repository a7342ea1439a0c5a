//! What a server lets its peers cost: the limits, their defaults and their setters.

use std::time::Duration;

use super::Server;
use super::service::Timeouts;
use crate::Error;
use crate::net::listener::DEFAULT_BACKLOG;
use crate::net::stream::TcpOptions;
use crate::net::tls::DEFAULT_HANDSHAKE_TIMEOUT;
use crate::wire::{self, MAX_MAX_DEPTH};

/// The limits of a server.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) message: wire::Limits,
    /// `None` for a part in what all servers of the process share.
    pub(super) max_memory_bytes: Option<usize>,
    pub(super) max_in_flight: usize,
    pub(super) max_connections: usize,
    pub(super) refuse_excess_connections: bool,
    pub(super) timeouts: Timeouts,
    pub(super) drain_timeout: Duration,
    pub(super) tcp: TcpOptions,
    pub(super) backlog: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: wire::Limits { max_bytes: 16 << 20, max_depth: 128, max_items: 1 << 20 },
            max_memory_bytes: None,
            max_in_flight: 64,
            max_connections: 10_000,
            refuse_excess_connections: false,
            timeouts: Timeouts {
                tls_handshake: DEFAULT_HANDSHAKE_TIMEOUT,
                message: Duration::from_secs(30),
                write: Duration::from_secs(10),
                idle: None,
                handler: None,
            },
            drain_timeout: Duration::from_secs(10),
            tcp: TcpOptions::default(),
            backlog: DEFAULT_BACKLOG,
        }
    }
}

impl Limits {
    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<(), Error> {
        let timeouts = &self.timeouts;
        let zero = [
            ("max_message_bytes", self.message.max_bytes == 0),
            ("max_depth", self.message.max_depth == 0),
            ("max_items", self.message.max_items == 0),
            ("max_memory_bytes", self.max_memory_bytes == Some(0)),
            ("max_in_flight", self.max_in_flight == 0),
            ("max_connections", self.max_connections == 0),
            ("backlog", self.backlog == 0),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, is_zero)| *is_zero) {
            return Err(Error::Config(format!("{name} must be 1 at least")));
        }
        if self.message.max_depth > MAX_MAX_DEPTH {
            return Err(Error::Config("max_depth must be 1024 at most".to_owned()));
        }
        let zero = [
            ("tls_handshake_timeout", timeouts.tls_handshake.is_zero()),
            ("message_timeout", timeouts.message.is_zero()),
            ("write_timeout", timeouts.write.is_zero()),
            ("idle_timeout", timeouts.idle.is_some_and(|timeout| timeout.is_zero())),
            ("handler_timeout", timeouts.handler.is_some_and(|timeout| timeout.is_zero())),
        ];
        if let Some((name, _)) = zero.iter().find(|(_, is_zero)| *is_zero) {
            return Err(Error::Config(format!("{name} is zero: nothing could be in time")));
        }
        self.tcp.check()
    }
}

/// Limits. Each has a default that fits most services, and a message that hits one is answered
/// with an error that names it.
impl Server {
    /// Sets how many bytes a message may have on the wire, its signature included. A longer one
    /// gets an error reply, and its connection is closed.
    ///
    /// Defaults to 16 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.limits.message.max_bytes = bytes;
        self
    }

    /// Sets how deep arrays and maps in a message may be nested, 1 to 1,024. A deeper one gets
    /// an error reply, and its connection is closed.
    ///
    /// Defaults to 128.
    pub fn max_depth(mut self, depth: usize) -> Self {
        self.limits.message.max_depth = depth;
        self
    }

    /// Sets how many values a message may hold at all its levels; a map entry is two. One with
    /// more gets an error reply, and its connection is closed.
    ///
    /// Defaults to 1,048,576.
    pub fn max_items(mut self, items: usize) -> Self {
        self.limits.message.max_items = items;
        self
    }

    /// Sets how many bytes of memory messages may take, those of all connections together:
    /// messages that have come in part, values of messages whose handlers run (for the longest
    /// that they can be in memory), and replies that wait. A message for which there is nothing
    /// left gets an error reply; its connection is closed if the message was not complete. A
    /// connection whose replies wait for its peer, and find no memory, is reset.
    ///
    /// Each connection may have 4 KiB beyond that, so that small messages always get through. Not
    /// counted are what handlers allocate themselves, messages in a [`blocking`](crate::blocking())
    /// handler that has timed out, and the state of connections, TLS records on their way included.
    ///
    /// Defaults to 512 MiB, which all servers of the process share that are not given their own.
    pub fn max_memory_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_memory_bytes = Some(bytes);
        self
    }

    /// Sets how many requests of one connection may be handled at once, 1 at least; further ones
    /// wait. Their replies go out in the order of the requests.
    ///
    /// Defaults to 64.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.limits.max_in_flight = requests;
        self
    }

    /// Sets how many connections may be open at once, 1 at least. Further ones wait in the
    /// [`backlog`](Self::backlog) until one closes, unless
    /// [`refuse_excess_connections`](Self::refuse_excess_connections) is set.
    ///
    /// Defaults to 10,000. Lowered to what the process may open files (`ulimit -n`), less 100, 4
    /// for each thread, and 64 for each port where further ones are refused; with
    /// [`http`](Self::http) on a second port, each of the two may have that many within half of
    /// those files.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.max_connections = connections;
        self
    }

    /// Refuses connections beyond [`max_connections`](Self::max_connections) at once: with an
    /// error reply, and over TLS, or when very many come, with a reset.
    ///
    /// Defaults to letting them wait.
    pub fn refuse_excess_connections(mut self) -> Self {
        self.limits.refuse_excess_connections = true;
        self
    }

    /// Sets how long a TLS handshake may take. The connection is closed behind that.
    ///
    /// Defaults to 5 s.
    pub fn tls_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeouts.tls_handshake = timeout;
        self
    }

    /// Sets how long a whole message may take to arrive, from its first byte on. One that takes
    /// longer gets an error reply, and its connection is closed.
    ///
    /// Defaults to 30 s.
    pub fn message_timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeouts.message = timeout;
        self
    }

    /// Sets how long a peer may take nothing of the replies that wait for it; progress shows in
    /// steps of up to 128 KiB, on a Unix socket of what its buffer holds. The connection is reset
    /// behind that.
    ///
    /// Defaults to 10 s.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeouts.write = timeout;
        self
    }

    /// Sets how long a connection may be without messages. It is reset behind that: a Python
    /// arrpc client connects again behind a reset, where it would take an orderly close for a
    /// reply of `None`.
    ///
    /// Defaults to no limit, as clients keep connections open for their next message.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeouts.idle = Some(timeout);
        self
    }

    /// Sets how long an async handler may take. Behind that its future is dropped and the message
    /// gets an error reply. A sync handler cannot be interrupted, and a
    /// [`blocking`](crate::blocking()) one goes on unheard.
    ///
    /// Defaults to no limit.
    pub fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeouts.handler = Some(timeout);
        self
    }

    /// Sets how long a server that stops waits for requests that it has accepted. A handler that
    /// blocks its thread beyond that is left behind.
    ///
    /// Defaults to 10 s.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.limits.drain_timeout = timeout;
        self
    }

    /// Sets how long a connection is silent before the system asks whether the peer's machine is
    /// still there, and how often it asks again; 1 s to 32,767 s.
    ///
    /// Defaults to 60 s.
    pub fn tcp_keepalive(mut self, interval: Duration) -> Self {
        self.limits.tcp.keepalive = interval;
        self
    }

    /// Sets whether replies are sent at once (TCP_NODELAY). Without it the system holds a small one
    /// back until the peer has acknowledged the last: fewer packets, where handlers answer one by
    /// one what came together, for a wait of up to 40 ms. Replies that are ready together go out
    /// together in any case.
    ///
    /// Defaults to `true`.
    pub fn tcp_nodelay(mut self, at_once: bool) -> Self {
        self.limits.tcp.nodelay = at_once;
        self
    }

    /// Sets how many connections the system keeps until they are accepted, 1 at least; it may have
    /// a lower limit of its own (`net.core.somaxconn`).
    ///
    /// Defaults to 1,024.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.limits.backlog = connections;
        self
    }
}
