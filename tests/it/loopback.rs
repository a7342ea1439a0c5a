//! What the tests have on 127.0.0.1: servers of ours, a relay that counts, a port that nobody
//! listens on, and the test certificates.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use arrpc::{Server, ServerHandle};
use socket2::{Domain, Socket, Type};

pub(crate) const HOST: &str = "127.0.0.1";

/// The path of a file of the test certificates.
pub(crate) fn cert(file: &str) -> String {
    format!("{}/certs/{file}", env!("CARGO_MANIFEST_DIR"))
}

/// A server of ours on a free port, whose replies are the messages.
pub(crate) fn echo() -> Server {
    Server::new(HOST, 0, |message| message)
}

/// Starts a server that runs until it is told to stop, or the tests end.
#[track_caller]
pub(crate) fn start(server: Server) -> ServerHandle {
    server.start_background().expect("the server starts")
}

/// Passes connections on to `server`; returns its own address, and counts them.
pub(crate) fn relay(server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::<AtomicUsize>::default();
    let counter = connections.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                to.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to); // however it ends, the other side is told
                    to.shutdown(Shutdown::Write)
                });
            }
        }
    });
    (addr, connections)
}

/// A server of raw bytes: each connection is handed to `serve` with its number.
pub(crate) fn raw_server(serve: impl Fn(usize, TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((HOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            serve(number, stream);
        }
    });
    port
}

/// Reads one message of a single byte.
pub(crate) fn read_byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok().map(|()| byte[0])
}

/// A server that ends each of its first connections behind one request, and answers the others;
/// returns its port, and the requests that it has received.
pub(crate) fn flaky_server(flaky: usize) -> (u16, Arc<AtomicUsize>) {
    let received = Arc::new(AtomicUsize::new(0));
    let counted = received.clone();
    let port = raw_server(move |number, mut stream| {
        while read_byte(&mut stream).is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
            if number < flaky {
                break;
            }
            stream.write_all(b"\x07").expect("open");
        }
    });
    (port, received)
}

/// A port that refuses connections, and that no other test gets, for as long as this lives.
///
/// Bound, not listening: who is told its number can listen on it.
#[derive(Debug)]
pub(crate) struct ReservedPort(Socket);

impl ReservedPort {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self(socket)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}
