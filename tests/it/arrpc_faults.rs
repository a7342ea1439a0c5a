//! What ours does where Python arrpc 0.5.0 lets its users down: one test for each such fault.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use arrpc::{Error, Serde, Server, Value, blocking, value};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, Serializer};
use sha2::Sha256;
use smol::Timer;

use crate::loopback::{HOST, cert, echo, relay, start};
use crate::python;
use crate::raw::{End, PATIENCE, Raw};

const NO_SIGNATURE: &str = "arrpc.error.AuthException: \
     Invalid or missing message signature, make sure 'auth_secret' is set/correct";

#[test]
fn every_falsy_request_gets_exactly_one_reply() {
    let mut peer = Raw::connect(start(echo()).local_addr());
    let falsy: [&[u8]; 9] = [
        b"\x00",
        b"\xc2",
        b"\xa0",
        b"\x90",
        b"\x80",
        b"\xc0",
        b"\xca\0\0\0\0",
        b"\xcb\0\0\0\0\0\0\0\0",
        b"\xc4\0",
    ];
    for request in falsy {
        peer.send(request);
        peer.expect(request);
    }
    peer.send(&falsy.concat());
    peer.finish();
    assert_eq!(peer.rest(), (falsy.concat(), End::Closed));
}

#[test]
fn a_falsy_reply_is_returned_as_it_is() {
    let client = client(&start(echo()));
    for reply in
        [value!(0), value!(0.0), value!(false), value!(""), value!([]), value!({}), Value::Nil]
    {
        assert_eq!(client.send(reply.clone()).unwrap(), reply);
    }
    assert_eq!(client.send(Vec::<u8>::new()).unwrap(), Value::Binary(Vec::new()));
}

fn client(server: &arrpc::ServerHandle) -> blocking::Client {
    blocking::Client::new(HOST, server.local_addr().port()).timeout(PATIENCE)
}

#[test]
fn int_keys_and_messages_in_one_write_are_fine_and_the_undecodable_gets_one_error_reply() {
    let server = start(echo());
    let mut peer = Raw::connect(server.local_addr());
    let fine = b"\x81\x01\xa3one\x07\xa2hi";
    peer.send(fine);
    peer.expect(fine);

    let not_utf8 = "the str at offset 1 is not UTF-8, send bytes as bin";
    peer.send(b"\x91\xa1\xff\x07");
    peer.expect_text(&format!("arrpc.error.RpcException: Not MessagePack: {not_utf8}"));
    peer.expect(b"\x07"); // the end of that message is known, so the connection goes on behind it

    let too_deep = [[0x91; 1024].as_slice(), &[0xc0]].concat();
    for (request, error) in [
        (&b"\xc1"[..], "Not MessagePack: byte 0xc1 at offset 0 is never used"),
        (&too_deep, "Message is nested deeper than 128 containers (max_depth)"),
    ] {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(request);
        peer.expect_text(&format!("arrpc.error.RpcException: {error}"));
        peer.expect_end(End::Closed);
    }
}

#[test]
fn a_reply_with_int_map_keys_is_returned_whole() {
    let server = start(Server::new(HOST, 0, |_| value!({1: "one", (-2): "minus two"})));
    assert_eq!(client(&server).send(1).unwrap(), value!({1: "one", (-2): "minus two"}));
}

#[test]
fn a_handler_that_panics_or_returns_the_unpackable_costs_one_error_reply() {
    /// Serializes as itself, unless it is 2.
    struct Choosy(u64);

    impl Serialize for Choosy {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                2 => Err(serde::ser::Error::custom("not this one")),
                number => serializer.serialize_u64(number),
            }
        }
    }

    let server = start(Server::new(HOST, 0, |message: Value| {
        let number = message.as_u64().unwrap();
        assert_ne!(number, 1, "a bug in the handler");
        Serde(Choosy(number))
    }));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"\x01\x02\x03");
    for error in ["The handler failed", "The handler's reply cannot be serialized"] {
        let text = format!("arrpc.error.RpcException: {error}, the server's log has the details");
        peer.expect_text(&text);
    }
    peer.expect(b"\x03");
}

#[test]
fn only_a_text_that_begins_as_an_error_is_one() {
    let server = python::Server::start(&[]);
    let client = blocking::Client::new(HOST, server.addr.port()).timeout(PATIENCE);
    for text in ["it said arrpc.error.RpcException: no", "arrpc.error.RpcException", "no"] {
        assert_eq!(client.send(text).unwrap(), value!(text));
    }
    let error = client.send("arrpc.error.RpcException: no").unwrap_err();
    assert!(matches!(&error, Error::Rpc(error) if error.message() == "no"), "{error:?}");
}

#[test]
fn a_late_reply_is_never_handed_to_the_next_call() {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let client = blocking::Client::new(HOST, listener.local_addr().unwrap().port());
    let client = client.timeout(Duration::from_secs(1));
    let (timed_out, next) = mpsc::channel();
    let server = thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        assert_eq!(read_byte(&mut first), 1);
        next.recv().unwrap();
        let (mut second, _) = listener.accept().unwrap();
        assert_eq!(read_byte(&mut second), 2);
        let _ = first.write_all(b"\x01"); // the late reply, while the next call waits for its own
        second.write_all(b"\x02").unwrap();
    });
    let error = client.send(1).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    timed_out.send(()).unwrap();
    assert_eq!(client.send(2).unwrap(), value!(2));
    server.join().unwrap();
}

fn read_byte(stream: &mut TcpStream) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}

#[test]
fn a_request_whose_connection_is_reset_is_not_sent_again() {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let client = blocking::Client::new(HOST, listener.local_addr().unwrap().port());
    let server = thread::spawn(move || {
        [(); 3].map(|()| {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read_byte(&mut stream);
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            request // and the reset
        })
    });
    for number in 1..=3 {
        let error = client.send(number).unwrap_err();
        assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    }
    assert_eq!(server.join().unwrap(), [1, 2, 3], "each was executed once");
}

#[test]
fn an_idle_connection_is_reset_when_the_server_stops() {
    let server = start(echo());
    let mut idle = Raw::connect(server.local_addr());
    idle.send(b"\x01");
    idle.expect(b"\x01");
    server.stop();
    idle.expect_end(End::Reset);
    server.join();
}

#[test]
fn a_large_reply_that_is_read_late_is_not_cut_off_when_the_server_stops() {
    let reply = value!("x".repeat(1_000_000));
    let server = start(Server::new(HOST, 0, move |_| reply.clone()));
    let mut slow = Raw::connect(server.local_addr());
    slow.send(b"\x01");
    slow.expect(b"\xdb"); // it has been written, as far as it fits what the kernel buffers
    let mut idle = Raw::connect(server.local_addr());
    server.stop();
    idle.expect_end(End::Reset); // the stop has gone on to those that have all their replies
    let (rest, end) = slow.rest();
    assert_eq!((rest.len(), end), (4 + 1_000_000, End::Reset));
    server.join();
}

#[test]
fn a_client_that_threads_share_never_swaps_a_reply() {
    let server = start(Server::new(HOST, 0, |message: Value| async move {
        Timer::after(Duration::from_micros(fastrand::u64(..500))).await; // lets others go first
        message
    }));
    let client = client(&server).max_connections(3);
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for call in 0..100 {
                    let message = value!([thread, call]);
                    assert_eq!(client.send(message.clone()).unwrap(), message);
                }
            });
        }
    });
}

#[test]
fn a_tls_session_carries_many_sends() {
    let server = python::Server::start(&["--tls", &cert("server.crt"), &cert("server.key")]);
    let (addr, connections) = relay(server.addr);
    let client = blocking::Client::new(HOST, addr.port()).tls_cafile(cert("ca.crt"));
    for number in 1..=200 {
        assert_eq!(client.send(number).unwrap(), value!(number));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn tls_self_signed_trusts_the_given_certificate_and_no_other() {
    for (name, other) in [("self-signed", "other"), ("other", "self-signed"), ("server", "ca")] {
        let server = echo().tls(cert(&format!("{name}.crt")), cert(&format!("{name}.key")));
        let client = client(&start(server));
        let pinned = |name: &str| client.clone().tls_self_signed(cert(&format!("{name}.crt")));
        assert_eq!(pinned(name).send(7).unwrap(), value!(7));
        let error = pinned(other).send(7).unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    }
}

#[test]
fn half_a_tls_configuration_is_a_config_error() {
    // A certificate without its key cannot even be written: the setters take both.
    let server = echo().tls_client_ca(cert("ca.crt")).start_background();
    let client = blocking::Client::new(HOST, 1);
    let client = client.tls_client_cert(cert("client.crt"), cert("client.key")).send(1);
    for (error, text) in [
        (server.unwrap_err(), "tls_client_ca needs tls: a certificate and a key"),
        (client.unwrap_err(), "tls_client_cert needs tls, tls_cafile or tls_self_signed"),
    ] {
        assert!(matches!(&error, Error::Config(found) if found == text), "{error:?}");
    }
}

#[test]
fn no_byte_of_a_body_is_decoded_before_its_signature_is_verified() {
    let (calls, server) = counting();
    let mut peer = Raw::connect(start(server.auth_secret("secret")).local_addr());
    let undecodable = b"\xa1\xff";
    let digits = signature(undecodable, "secret");
    for digits in [&signature(undecodable, "Secret"), &digits.to_uppercase(), &digits[..62]] {
        peer.send(&envelope(digits, undecodable));
        peer.expect_text(NO_SIGNATURE); // nothing of what is wrong with the body
        peer.send(&envelope(&signature(b"\x07", "secret"), b"\x07"));
        peer.expect(b"\x07");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 3, "of those with a valid signature");
    peer.send(&envelope(&digits, undecodable));
    peer.expect_text(
        "arrpc.error.RpcException: Not MessagePack: the str at offset 0 is not UTF-8, \
         send bytes as bin",
    );
}

/// An echo server, and how often its handler ran.
fn counting() -> (Arc<AtomicUsize>, Server) {
    let calls = Arc::<AtomicUsize>::default();
    let counter = calls.clone();
    let echo = Server::new(HOST, 0, move |message: Value| {
        counter.fetch_add(1, Ordering::SeqCst);
        message
    });
    (calls, echo)
}

fn signature(body: &[u8], secret: &str) -> String {
    let keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    let signature = keyed.chain_update(body).finalize().into_bytes();
    signature.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn envelope(signature: &str, body: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let envelope = value!({"arrpc.sign": signature, "data": body.to_vec()});
    rmpv::encode::write_value(&mut packed, &envelope).unwrap();
    packed
}

#[test]
fn a_signed_message_to_a_server_without_a_secret_is_an_auth_error() {
    let text = "Message is signed but the server has no secret, \
                unset 'auth_secret' or set it on the server";
    let (calls, server) = counting();
    let server = start(server);
    let error = client(&server).auth_secret("secret").send(1).unwrap_err();
    assert!(matches!(&error, Error::Auth(found) if found == text), "{error:?}");

    let mut python = python::Client::start(server.local_addr(), &["--secret", "secret"]);
    let expected = serde_json::json!({"error": "AuthException", "message": text});
    assert_eq!(python.send(&serde_json::json!(1)), expected);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[test]
fn http_gets_a_400_and_a_port_scan_nothing_and_neither_runs_the_handler() {
    let (calls, server) = counting();
    let server = start(server);

    for (request, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 400 Bad Request\r\n"),
        (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n\x81\xa3foo\xa3bar", "HTTP/1.1 400 "),
        (b"SSH-2.0-scan\r\n", "This port speaks arrpc"),
        (b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03", "\x15\x03\x01\x00\x02\x02\x28"),
        (b"", ""),
    ] {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(request);
        peer.finish();
        let (found, end) = peer.rest();
        assert!(found.starts_with(answer.as_bytes()), "{}", found.escape_ascii());
        assert_eq!((found.is_empty(), end), (answer.is_empty(), End::Closed));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}
