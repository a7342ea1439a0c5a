//! The listening socket of a server, of either family, and what it accepts.

use std::io;
use std::net::{SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

use smol::Async;
use socket2::SockRef;

use super::address::{Address, Origin};
use super::stream::TcpOptions;
use super::tcp;
#[cfg(unix)]
use super::unix;
use crate::time::Sleep;

/// The default of `backlog`.
pub(crate) const DEFAULT_BACKLOG: u32 = 1024;

/// The pause after an accept that failed for want of something.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(tcp::Listener),
    #[cfg(unix)]
    Unix(unix::Listener),
}

/// A connection that was accepted: in non-blocking mode, and registered nowhere.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Listener {
    /// Listens at the address. The kernel keeps `backlog` connections until they are accepted.
    /// Blocks while a name is resolved.
    pub(crate) fn bind(address: &Address, backlog: u32, tcp: TcpOptions) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                tcp::Listener::bind(host, *port, backlog, tcp).map(Self::Tcp)
            }
            #[cfg(unix)]
            Address::Unix(path) => unix::Listener::bind(path, backlog).map(Self::Unix),
        }
    }

    /// The address that was bound. That of a Unix socket is unspecified.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            #[cfg(unix)]
            Self::Unix(_) => Ok(([0, 0, 0, 0], 0).into()),
        }
    }

    /// Waits for the next connection, and fails as [`accept`] does.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Origin)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((Socket::Tcp(socket), Origin(Some(peer))))
            }
            #[cfg(unix)]
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept().await?), Origin(None))),
        }
    }
}

impl Socket {
    pub(crate) fn options(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(socket) => socket.into(),
            #[cfg(unix)]
            Self::Unix(socket) => socket.into(),
        }
    }
}

/// Waits for the next connection of a listening socket. The connection is registered nowhere:
/// `Async::accept` would register it with smol's reactor, two system calls for nothing.
///
/// Fails, after a pause, when the system is short of something, of descriptors or of memory: then
/// the same connection is there at the next try.
pub(super) async fn accept<L, S>(
    listener: &Async<L>,
    accept: impl Fn(&L) -> io::Result<S>,
) -> io::Result<S> {
    loop {
        match listener.read_with(&accept).await {
            // The peer gave up while it waited: take the next one.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                Sleep::lasting(SHORTAGE_PAUSE).await;
                return Err(error);
            }
            accepted => return accepted,
        }
    }
}
