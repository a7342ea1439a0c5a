//! Listening over TCP.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};

use smol::Async;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::listener::accept;
use super::stream::{TcpOptions, limit_unsent};

/// A listening TCP socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Async<TcpListener>,
}

impl Listener {
    /// Listens on the first address of `host` that works; an empty host is every IPv4 interface.
    /// The kernel gives connections the options of the listening socket.
    pub(crate) fn bind(host: &str, port: u16, backlog: u32, tcp: TcpOptions) -> io::Result<Self> {
        let host = if host.is_empty() { "0.0.0.0" } else { host };
        let mut addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        // IPv4 first, as arrpc does: "localhost" is ::1 on many machines, 127.0.0.1 to most peers.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in addresses {
            match listen(address, backlog, tcp) {
                Ok(socket) => return Ok(Self { socket: Async::new(socket)? }),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }

    /// Waits for the next connection, and fails as [`accept`] does. Its socket is in non-blocking
    /// mode.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer) = accept(&self.socket, TcpListener::accept).await?;
        socket.set_nonblocking(true)?;
        Ok((socket, peer))
    }
}

fn listen(address: SocketAddr, backlog: u32, tcp: TcpOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server gets its port back at once, whatever is left of the old connections.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Set once, they cost a connection no system call: five of some thirty otherwise.
    tcp.apply(&SockRef::from(&socket))?;
    limit_unsent(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_connection_has_the_options_of_its_listener() {
        for nodelay in [true, false] {
            let tcp = TcpOptions { keepalive: Duration::from_secs(7), nodelay };
            let listener = Listener::bind("127.0.0.1", 0, 1, tcp).expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let _client = TcpStream::connect(address).expect("it listens");
            let (socket, _) = smol::block_on(listener.accept()).expect("one waits");
            let options = SockRef::from(&socket);
            assert_eq!(options.tcp_nodelay().expect("it has it"), nodelay);
            assert!(options.keepalive().expect("it has it"));
            assert_eq!(options.tcp_keepalive_time().expect("it has it"), tcp.keepalive);
            #[cfg(target_os = "linux")]
            assert_eq!(options.tcp_notsent_lowat().expect("it has it"), 128 * 1024);
        }
    }
}
