//! TLS on both sides: who is trusted, who is refused, and who the handler sees.

use arrpc::{Client, Context, Error, Server, ServerHandle, Value, blocking, value};

use crate::loopback::{cert, echo, start};
use crate::raw::{End, Raw};

fn serve(name: &str) -> ServerHandle {
    let certificate = cert(&format!("{name}.crt"));
    Server::new("127.0.0.1", 0, |message| message)
        .tls(certificate, cert(&format!("{name}.key")))
        .start_background()
        .expect("a free port")
}

fn client(server: &ServerHandle) -> blocking::Client {
    blocking::Client::new("127.0.0.1", server.local_addr().port())
}

/// The error and its causes, as a user sees them.
fn chain(error: Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[track_caller]
fn assert_refused(result: Result<Value, Error>, reason: &str) {
    match result {
        Err(error @ Error::Tls { .. }) => {
            let chain = chain(error);
            assert!(chain.contains(reason), "{chain:?} lacks {reason:?}");
        }
        other => panic!("expected a TLS error for {reason:?}: {other:?}"),
    }
}

#[test]
fn a_client_trusts_a_server_that_its_ca_vouches_for() {
    for name in ["server", "server-rsa"] {
        let server = serve(name);
        let client = client(&server).tls_cafile(cert("ca.crt"));
        for number in 0..100 {
            assert_eq!(client.send(number).expect(name), Value::from(number));
        }
        let large = Value::Binary(vec![7; 1_000_000]);
        assert_eq!(client.send(large.clone()).expect(name), large);
    }
}

#[test]
fn a_client_refuses_a_server_that_nobody_it_trusts_vouches_for() {
    let server = serve("server");
    assert_refused(client(&server).tls_cafile(cert("other-ca.crt")).send(1), "UnknownIssuer");
    let server = serve("self-signed");
    assert_refused(client(&server).tls_cafile(cert("ca.crt")).send(1), "certificate");
    let own = client(&server).tls_cafile(cert("self-signed.crt"));
    assert_refused(own.send(1), "trust it with tls_self_signed");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let server = Server::new("", 0, |message| message)
        .tls(cert("server.crt"), cert("server.key"))
        .start_background()
        .expect("a free port");
    let client = blocking::Client::new("127.0.0.2", server.local_addr().port());
    assert_refused(client.tls_cafile(cert("ca.crt")).send(1), "not valid for name");
}

#[test]
fn a_self_signed_certificate_is_pinned_and_no_other_is_taken_for_it() {
    let server = serve("self-signed");
    let pinned = client(&server).tls_self_signed(cert("self-signed.crt"));
    assert_eq!(pinned.send(1).expect("the pinned certificate"), Value::from(1));
    assert_refused(client(&server).tls_self_signed(cert("other.crt")).send(1), "certificate");
    // A pin is a pin, also for a server with a certificate that a CA vouches for.
    let server = serve("server");
    assert_refused(client(&server).tls_self_signed(cert("self-signed.crt")).send(1), "certificate");
    let pinned = client(&server).tls_self_signed(cert("server.crt"));
    assert_eq!(pinned.send(1).expect("the pinned certificate"), Value::from(1));
}

#[test]
fn the_roots_of_the_system_do_not_vouch_for_a_test_certificate() {
    match client(&serve("server")).tls().send(1) {
        Err(Error::Tls { .. }) => {}
        // A machine may have no roots at all; then the option says so.
        Err(Error::Config(text)) => assert!(text.contains("no root certificates"), "{text}"),
        other => panic!("{other:?}"),
    }
}

fn mutual() -> ServerHandle {
    Server::with_context("127.0.0.1", 0, |_, context: Context| {
        let identity = context.tls_identity()?;
        let names: Vec<Value> =
            identity.dns_names().iter().map(|name| Value::from(name.as_str())).collect();
        let size = identity.certificate().len();
        Some(value!([identity.common_name().unwrap_or("?"), names, size > 100]))
    })
    .tls(cert("server.crt"), cert("server.key"))
    .tls_client_ca(cert("ca.crt"))
    .start_background()
    .expect("a free port")
}

#[test]
fn with_mutual_tls_the_handler_learns_the_verified_identity() {
    let server = mutual();
    let client = client(&server)
        .tls_cafile(cert("ca.crt"))
        .tls_client_cert(cert("client.crt"), cert("client.key"));
    let told = client.send(Value::Nil).expect("the certificate is good");
    assert_eq!(told, value!(["test-client", ["test-client.example"], true]));
}

#[test]
fn with_mutual_tls_a_client_without_a_good_certificate_is_refused() {
    let server = mutual();
    let trusting = || client(&server).tls_cafile(cert("ca.crt"));
    for _ in 0..20 {
        assert_refused(trusting().send(1), "CertificateRequired");
        let stranger = trusting().tls_client_cert(cert("stranger.crt"), cert("stranger.key"));
        assert_refused(stranger.send(1), "UnknownCA");
    }
}

#[test]
fn half_a_tls_configuration_of_a_client_is_an_error() {
    let check = |client: blocking::Client, text: &str| match client.send(1) {
        Err(Error::Config(found)) => assert!(found.contains(text), "{found:?} lacks {text:?}"),
        other => panic!("{text}: {other:?}"),
    };
    let client = || blocking::Client::new("127.0.0.1", 1);
    let ca = || cert("ca.crt");
    check(
        client().tls_client_cert(cert("client.crt"), cert("client.key")),
        "tls_client_cert needs tls, tls_cafile or tls_self_signed",
    );
    check(client().tls_cafile(ca()).tls_self_signed(ca()), "give one of");
    check(client().tls().tls_cafile(ca()), "give one of");
    check(client().tls_cafile("no.crt"), "cannot read certificate no.crt");
    check(client().tls_self_signed(cert("server.key")), "holds no certificate");
    check(
        client().tls_cafile(ca()).tls_client_cert(cert("client.crt"), cert("server.key")),
        "with the key",
    );
    let unnamed = blocking::Client::new("not a name", 1);
    check(unnamed.tls_cafile(ca()), "is not a host name");
}

#[test]
fn plain_and_tls_do_not_take_each_other_for_themselves() {
    let plain = start(echo());
    let encrypted = client(&plain).tls_cafile(cert("ca.crt"));
    assert_refused(encrypted.send(1), "does the server speak TLS?");
    let encrypted = serve("server");
    match client(&encrypted).send(value!({"foo": "bar"})) {
        Err(Error::Protocol(text)) => assert!(text.contains("speaks TLS"), "{text}"),
        other => panic!("{other:?}"),
    }
    // A peer that says nothing sensible gets an alert and an end, and no reply.
    let mut peer = Raw::connect(encrypted.local_addr());
    peer.send(b"\x81\xa3foo\xa3bar");
    peer.finish();
    let (answer, end) = peer.rest();
    assert_eq!(end, End::Closed);
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:02x?}");
}

#[test]
fn many_calls_share_one_handshake() {
    let server = Server::with_context("127.0.0.1", 0, |_, context: Context| {
        context.peer_addr().map(|peer| peer.port())
    })
    .tls(cert("server.crt"), cert("server.key"))
    .start_background()
    .expect("a free port");
    let client = Client::new("127.0.0.1", server.local_addr().port()).tls_cafile(cert("ca.crt"));
    smol::block_on(async {
        let port = client.send(Value::Nil).await.expect("a reply");
        for _ in 0..50 {
            assert_eq!(client.send(Value::Nil).await.expect("a reply"), port);
        }
    });
}

#[test]
fn both_versions_of_tls_are_served() {
    use futures_rustls::rustls::{self, ClientConfig, RootCertStore, version};
    use futures_rustls::{TlsConnector, pki_types::ServerName};
    use smol::io::{AsyncReadExt, AsyncWriteExt};
    use std::sync::Arc;

    let server = serve("server");
    for version in [&version::TLS12, &version::TLS13] {
        let mut roots = RootCertStore::empty();
        roots.add(pem("ca.crt")).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("supported")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        smol::block_on(async {
            let socket = smol::net::TcpStream::connect(server.local_addr()).await.expect("open");
            let connector = TlsConnector::from(Arc::new(config));
            let mut stream = connector.connect(name, socket).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
            stream.write_all(b"\xa3abc").await.expect("open");
            let mut reply = [0; 4];
            stream.read_exact(&mut reply).await.expect("a reply");
            assert_eq!(&reply, b"\xa3abc");
        });
    }
}

#[test]
fn a_peer_that_half_closes_gets_its_replies_and_an_orderly_end() {
    use std::io::{Read, Write};

    let server = serve("server");
    let mut stream = tls_stream(&server, |_| {});
    stream.write_all(b"\x01\x02").expect("open");
    stream.conn.send_close_notify();
    stream.flush().expect("open");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("replies, and a close_notify behind them");
    assert_eq!(rest, [1, 2]);
}

#[test]
fn a_handler_comes_to_its_end_although_its_peer_hangs_up_without_a_close_notify() {
    use async_channel::unbounded;
    use std::io::Write;

    let (started_sender, started) = unbounded();
    let (gate, wait) = unbounded::<()>();
    let (done_sender, done) = unbounded();
    let server = Server::new("127.0.0.1", 0, move |_| {
        let (started, wait, done) = (started_sender.clone(), wait.clone(), done_sender.clone());
        async move {
            let _ = started.send(()).await;
            let _ = wait.recv().await;
            let _ = done.send(()).await;
        }
    });
    let server = server.threads(1).tls(cert("server.crt"), cert("server.key"));
    let server = start(server);
    for _ in 0..2 {
        // The second connection is served, so the one worker has seen the end of the first.
        let mut stream = tls_stream(&server, |_| {});
        stream.write_all(b"\x01").expect("open");
        started.recv_blocking().expect("the handler runs");
        drop(stream);
    }
    for _ in 0..2 {
        gate.try_send(()).expect("the handler waits");
    }
    for _ in 0..2 {
        done.recv_blocking().expect("the handler ends");
    }
}

/// Takes note of what the other side sends, and reads it in small pieces.
struct Tap {
    socket: std::net::TcpStream,
    received: Vec<u8>,
}

impl std::io::Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let piece = buffer.len().min(1500);
        let read = self.socket.read(&mut buffer[..piece])?;
        self.received.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

impl std::io::Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.socket.flush()
    }
}

/// Python arrpc reads 4,096 bytes of a record at a time and takes less for the end of the message,
/// so only the last record of a message may hold anything but full 16,384 bytes.
#[test]
fn a_large_message_is_cut_into_full_records_also_for_a_slow_reader() {
    use std::io::{Read, Write};

    let server = serve("server");
    let mut stream = tls_stream(&server, |socket| {
        socket.set_recv_buffer_size(8192).expect("a socket");
    });
    // Answered before the large reply, so that the handshake's own records are behind us.
    stream.write_all(b"\x01").expect("open");
    stream.read_exact(&mut [0]).expect("a reply");
    let received = stream.sock.received.len();

    let mut message = vec![0xc6, 0x00, 0x7f, 0xff, 0xf0];
    message.resize(5 + 0x007f_fff0, 7);
    stream.write_all(&message).expect("open");
    let mut reply = vec![0; message.len()];
    stream.read_exact(&mut reply).expect("a reply");
    assert!(reply == message);

    let mut records = &stream.sock.received[received..];
    let mut sizes = Vec::new();
    while let [0x17, 0x03, 0x03, high, low, rest @ ..] = records {
        let size = usize::from(u16::from_be_bytes([*high, *low]));
        sizes.push(size - 17); // the content type, and the tag of the cipher
        records = rest.get(size..).unwrap_or_default();
    }
    let last = sizes.pop().expect("records came");
    let short: Vec<_> = sizes.iter().filter(|&&size| size != 16_384).collect();
    assert!(short.is_empty(), "{short:?} of {} records", sizes.len());
    assert_eq!(sizes.len() * 16_384 + last, message.len());
}

/// A TLS 1.3 connection without a client library.
fn tls_stream(
    server: &ServerHandle,
    prepare: impl FnOnce(&socket2::Socket),
) -> futures_rustls::rustls::StreamOwned<futures_rustls::rustls::ClientConnection, Tap> {
    use futures_rustls::rustls::{self, ClientConfig, ClientConnection, RootCertStore};
    use std::sync::Arc;

    let mut roots = RootCertStore::empty();
    roots.add(pem("ca.crt")).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("supported")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a configuration");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    prepare(&socket);
    socket.connect(&server.local_addr().into()).expect("the server listens");
    socket.set_read_timeout(Some(crate::raw::PATIENCE)).expect("a socket");
    rustls::StreamOwned::new(session, Tap { socket: socket.into(), received: Vec::new() })
}

fn pem(name: &str) -> futures_rustls::pki_types::CertificateDer<'static> {
    use futures_rustls::pki_types::pem::PemObject;
    futures_rustls::pki_types::CertificateDer::from_pem_file(cert(name)).expect("a certificate")
}
