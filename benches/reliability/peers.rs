//! Connections to a server from many addresses of this machine, so that none runs out of ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// The addresses that connections come from, 127.0.0.2 and up: each has some 28,000 ports. At most
/// as many connections of each wait for their end (TIME_WAIT) as the scenarios open, which is
/// below 100,000 in all.
pub(crate) const SOURCES: usize = 16;

/// Longer than anything may take: a hang becomes an error.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The path of a file of the test certificates.
pub(crate) fn certificate(file: &str) -> String {
    format!("{}/certs/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// Connects from one of the [`SOURCES`] to `server`.
pub(crate) fn connect(server: SocketAddr, source: usize) -> io::Result<TcpStream> {
    connect_with(server, source, |_| Ok(()))
}

/// Connects with a socket that was set up.
pub(crate) fn connect_with(
    server: SocketAddr,
    source: usize,
    set_up: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    set_up(&socket)?;
    let source = Ipv4Addr::new(127, 0, 0, 2 + (source % SOURCES) as u8);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&server.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Ends a connection without a wait for what is still on its way.
pub(crate) fn reset(stream: TcpStream) {
    // Fails only if it has ended.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
