//! Connections that end, or stand still, at every byte of a request and of a reply, plain and over
//! TLS: nothing runs that is not whole, no reply is made of a part, and the next call is fine.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arrpc::{Error, Phase, Server, Value, blocking, value};
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};
use socket2::SockRef;

use crate::loopback::{HOST, cert, start};
use crate::raw::PATIENCE;

/// What a client waits for the rest of a reply.
const SOON: Duration = Duration::from_millis(120);

/// What a server waits for the rest of a request: longer than all of them take to be sent.
const LATER: Duration = Duration::from_secs(2);

/// How a peer stops in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Closed,
    Reset,
    Stalled,
}

const CUTS: [Cut; 3] = [Cut::Closed, Cut::Reset, Cut::Stalled];

/// A peer that knows what its messages are on the socket, record headers included.
struct Peer {
    socket: TcpStream,
    tls: Option<Connection>,
}

impl Peer {
    fn connect(port: u16, tls: bool) -> Self {
        let socket = TcpStream::connect((HOST, port)).expect("the server listens");
        let connection = tls.then(|| {
            let mut roots = RootCertStore::empty();
            let ca = CertificateDer::from_pem_file(cert("ca.crt")).expect("a certificate");
            roots.add(ca).expect("a CA");
            let config = ClientConfig::builder().with_root_certificates(roots);
            let name = ServerName::try_from(HOST).expect("an address");
            let config = Arc::new(config.with_no_client_auth());
            ClientConnection::new(config, name).expect("good options").into()
        });
        Self::shake_hands(socket, connection)
    }

    fn accept(socket: TcpStream, tls: bool) -> Self {
        let connection = tls.then(|| {
            let chain = CertificateDer::from_pem_file(cert("server.crt")).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(cert("server.key")).expect("a key");
            let config = ServerConfig::builder().with_no_client_auth();
            let config = config.with_single_cert(vec![chain], key).expect("they belong together");
            ServerConnection::new(Arc::new(config)).expect("good options").into()
        });
        Self::shake_hands(socket, connection)
    }

    fn shake_hands(mut socket: TcpStream, mut tls: Option<Connection>) -> Self {
        socket.set_nodelay(true).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        while let Some(connection) = tls.as_mut().filter(|connection| connection.is_handshaking()) {
            connection.complete_io(&mut socket).expect("a handshake");
        }
        Self { socket, tls }
    }

    /// What a message is on the socket.
    fn seal(&mut self, message: &[u8]) -> Vec<u8> {
        let Some(connection) = &mut self.tls else { return message.to_vec() };
        connection.writer().write_all(message).expect("memory");
        let mut sealed = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut sealed).expect("memory");
        }
        sealed
    }

    /// Reads up to the end of the connection, or until so many bytes of messages are there.
    fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut received = vec![0; length];
        let mut filled = 0;
        while filled < length {
            let free = &mut received[filled..];
            let read = match &mut self.tls {
                None => self.socket.read(free),
                Some(connection) => match connection.reader().read(free) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if connection.complete_io(&mut self.socket).is_ok() {
                            continue;
                        }
                        break;
                    }
                    read => read,
                },
            };
            match read {
                Ok(0) | Err(_) => break,
                Ok(read) => filled += read,
            }
        }
        received.truncate(filled);
        received
    }

    /// Ends the connection. A stalled one is given back, so that it lives.
    fn cut(self, cut: Cut) -> Option<TcpStream> {
        match cut {
            Cut::Closed => self.socket.shutdown(Shutdown::Both).expect("it is open"),
            Cut::Reset => {
                let socket = SockRef::from(&self.socket);
                socket.set_linger(Some(Duration::ZERO)).expect("a socket");
            }
            Cut::Stalled => return Some(self.socket),
        }
        None
    }
}

fn packed(message: &Value) -> Vec<u8> {
    let mut packed = Vec::new();
    rmpv::encode::write_value(&mut packed, message).expect("writing to a Vec");
    packed
}

/// A server whose handler notes what it gets, and that waits for the rest of it no longer than the
/// cut needs; what it has got; and a client.
fn noting_server(tls: bool, cut: Cut) -> (u16, Arc<Mutex<Vec<Value>>>, blocking::Client) {
    let ran = Arc::<Mutex<Vec<Value>>>::default();
    let noted = ran.clone();
    let mut server = Server::new(HOST, 0, move |message: Value| {
        noted.lock().expect("not poisoned").push(message.clone());
        message
    });
    if cut == Cut::Stalled {
        // The first bytes of a TLS record are no message yet: the connection is idle.
        server = server.message_timeout(LATER).idle_timeout(LATER);
    }
    if tls {
        server = server.tls(cert("server.crt"), cert("server.key"));
    }
    let port = start(server).local_addr().port();
    let mut client = blocking::Client::new(HOST, port).timeout(PATIENCE);
    if tls {
        client = client.tls_cafile(cert("ca.crt"));
    }
    (port, ran, client.idempotent()) // its own connections may be idle for too long
}

#[test]
fn a_request_that_is_cut_at_any_byte_does_not_run_and_harms_nobody() {
    for tls in [false, true] {
        for cut in CUTS {
            let (port, ran, client) = noting_server(tls, cut);
            let text = "x".repeat(40);
            let request = packed(&value!({"cut": format!("{cut:?}"), "text": text}));
            let mut stalled = Vec::new();
            for offset in 0.. {
                let mut peer = Peer::connect(port, tls);
                let sealed = peer.seal(&request);
                if offset == sealed.len() {
                    break;
                }
                peer.socket.write_all(&sealed[..offset]).expect("it is open");
                stalled.extend(peer.cut(cut));
            }
            assert_eq!(client.send("between").expect("a reply"), value!("between"));
            for mut socket in stalled {
                // Its deadline ends it, with an error that tells or a reset.
                socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
                let end = socket.read_to_end(&mut Vec::new());
                let timed_out = end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
                assert!(!timed_out, "{cut:?}, TLS: {tls}");
            }
            let ran = ran.lock().expect("not poisoned");
            assert_eq!(*ran, [value!("between")], "{cut:?}, TLS: {tls}");
        }
    }
}

#[test]
fn a_reply_that_is_cut_at_any_byte_is_an_error_and_never_a_value() {
    let reply = value!({"reply": "x".repeat(40)});
    let request = packed(&value!("give"));
    for tls in [false, true] {
        for cut in CUTS {
            let listener = TcpListener::bind((HOST, 0)).expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let (request, packed) = (request.clone(), packed(&reply));
            // One connection for each offset, then one with all of the reply.
            let serving = thread::spawn(move || {
                let mut stalled = Vec::new();
                for (offset, socket) in listener.incoming().enumerate() {
                    let mut peer = Peer::accept(socket.expect("a connection"), tls);
                    assert_eq!(peer.receive(request.len()), request);
                    let sealed = peer.seal(&packed);
                    let end = offset.min(sealed.len());
                    peer.socket.write_all(&sealed[..end]).expect("it is open");
                    if end == sealed.len() {
                        // The client may have something to say before it ends, over TLS.
                        peer.receive(1);
                        return;
                    }
                    stalled.extend(peer.cut(cut));
                }
            });
            let mut client = blocking::Client::new(HOST, port).timeout(match cut {
                Cut::Stalled => SOON,
                _ => PATIENCE,
            });
            if tls {
                client = client.tls_cafile(cert("ca.crt"));
            }
            let mut failures = 0;
            loop {
                match (cut, client.send("give")) {
                    (_, Ok(value)) => {
                        assert_eq!(value, reply, "{cut:?}, TLS: {tls}");
                        break;
                    }
                    (Cut::Stalled, Err(Error::Timeout { phase: Phase::Reply, .. })) => {}
                    (Cut::Closed | Cut::Reset, Err(Error::Disconnected { .. })) => {}
                    (_, Err(error)) => panic!("{cut:?}, TLS: {tls}: {error:?}"),
                }
                failures += 1;
            }
            drop(client);
            serving.join().expect("it served");
            assert!(failures >= packed_len(&reply), "{cut:?}, TLS: {tls}: {failures} failures");
        }
    }
}

fn packed_len(value: &Value) -> usize {
    packed(value).len()
}
