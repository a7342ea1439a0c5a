//! What handlers know of a call beside its message: the connection it came by, and how.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::state::{State, States};
use crate::net::address::Origin;
use crate::net::tls::TlsIdentity;
use crate::wire::Protection;

/// What a handler knows of a call beside its message. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    connection: Arc<Connection>,
    signed: bool,
    encrypted: bool,
    identity: Option<Arc<str>>,
}

/// The part of a context that all calls of a connection share.
#[derive(Debug)]
struct Connection {
    id: u64,
    peer: Peer,
    states: States,
    /// No more messages come from it.
    gone: AtomicBool,
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) origin: Origin,
    pub(crate) tls: bool,
    pub(crate) identity: Option<Box<TlsIdentity>>,
}

impl Context {
    pub(crate) fn new(peer: Peer, protection: &Protection) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let (states, gone) = (States::default(), AtomicBool::new(false));
        let connection = Arc::new(Connection { id, peer, states, gone });
        let (signed, encrypted) = (protection.is_signed(), protection.is_encrypted());
        Self { connection, signed, encrypted, identity: None }
    }

    /// The same for a call whose token says whose it is.
    pub(super) fn identified(&self, identity: Arc<str>) -> Self {
        Self { identity: Some(identity), ..self.clone() }
    }

    /// Returns who calls: whose [token](crate::Server::tokens) the message has, or else the name in
    /// the client's verified certificate. `None` for a caller that nobody knows.
    pub fn identity(&self) -> Option<&str> {
        let token = self.identity.as_deref();
        token.or_else(|| self.tls_identity().and_then(TlsIdentity::common_name))
    }

    /// Returns the address of the peer; `None` over a Unix socket, where peers have none.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.connection.peer.origin.0
    }

    /// Returns the number of the connection: another one for each connection to any server of the
    /// process.
    pub fn connection_id(&self) -> u64 {
        self.connection.id
    }

    /// Finds the connection's state of type `T`: what the first hook of
    /// [`on_connect`](crate::Server::on_connect) with that type has returned. `None` if there is no
    /// such hook, or it has panicked.
    pub fn state<T: Any>(&self) -> Option<&T> {
        self.connection.states.find()
    }

    /// Adds to the connection's state.
    pub(super) fn keep(&self, state: State) {
        self.connection.states.push(state);
    }

    /// Whether no more messages come from the connection. True before its handler hears of it: what
    /// that has not cleared away by then, it has to find here.
    pub(crate) fn is_gone(&self) -> bool {
        self.connection.gone.load(Ordering::Acquire)
    }

    pub(crate) fn mark_gone(&self) {
        self.connection.gone.store(true, Ordering::Release);
    }

    /// The peer as logs name it.
    pub(crate) fn origin(&self) -> Origin {
        self.connection.peer.origin
    }

    /// Whether the message was signed, or encrypted, with the server's secret.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// Whether the message was encrypted with the server's secret, as its reply will be; see
    /// [`Server::encrypt`](crate::Server::encrypt).
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// Whether the message came over TLS.
    pub fn is_tls(&self) -> bool {
        self.connection.peer.tls
    }

    /// Returns the verified identity of the client's certificate; `None` without
    /// [`tls_client_ca`](crate::Server::tls_client_ca).
    pub fn tls_identity(&self) -> Option<&TlsIdentity> {
        self.connection.peer.identity.as_deref()
    }
}
