//! An unmodified Python arrpc 0.5.0 client calls our server.

use std::net::SocketAddr;
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread;

use arrpc::{RpcError, Server, Value};
use serde_json::{Value as Json, json};
use smol::channel;

use crate::loopback::{HOST, ReservedPort, cert, echo, start};
use crate::python::{self, Client};

const NO_SIGNATURE: &str =
    "Invalid or missing message signature, make sure 'auth_secret' is set/correct";

#[test]
fn a_plain_client_gets_its_replies() {
    converse(echo(), &[]);
}

#[test]
fn a_signing_client_gets_its_replies() {
    converse(echo().auth_secret("sésame"), &["--secret", "sésame"]);
}

#[test]
fn a_tls_client_that_trusts_the_ca_gets_its_replies() {
    let server = echo().tls(cert("server.crt"), cert("server.key"));
    converse(server, &["--tls", &cert("ca.crt")]);
}

#[test]
fn a_tls_client_of_a_self_signed_server_gets_its_replies() {
    let server = echo().tls(cert("self-signed.crt"), cert("self-signed.key"));
    converse(server, &["--tls", &cert("self-signed.crt"), "--self-signed"]);
}

#[test]
fn a_signing_tls_client_gets_its_replies() {
    let server = echo().tls(cert("server-rsa.crt"), cert("server-rsa.key")).auth_secret("secret");
    converse(server, &["--tls", &cert("ca.crt"), "--secret", "secret"]);
}

/// Expects every message back.
#[track_caller]
fn converse(echo: Server, args: &[&str]) {
    let mut client = Client::start(start(echo).local_addr(), args);
    for message in [
        json!("héllo ✓ 日本語 🦀"),
        json!({"foo": "bar"}),
        json!([
            1,
            -1,
            127,
            128,
            65_536,
            u64::MAX,
            i64::MIN,
            1.5,
            -0.1,
            true,
            false,
            null,
            "",
            [],
            {}
        ]),
        json!({"list": [1, [2, [3, {}]]], "map": {"a": {"b": true}}}),
        json!({"$bin": "AAH+/w=="}),
        json!("x".repeat(20_000)),
    ] {
        assert_eq!(client.send(&message), json!({"reply": message}));
    }
}

#[test]
fn an_error_of_the_handler_is_an_rpc_exception_with_its_exact_message() {
    let fail = |message: Value| Err::<(), _>(RpcError::new(message.as_str().unwrap()));
    let mut client = Client::start(start(Server::new(HOST, 0, fail)).local_addr(), &[]);
    for text in ["Something went wrong", "schön: \"quoted\"\nand a second line", " "] {
        let expected = json!({"error": "RpcException", "message": text});
        assert_eq!(client.send(&json!(text)), expected);
    }
}

#[test]
fn a_wrong_or_missing_secret_is_an_auth_exception() {
    let server = start(echo().auth_secret("secret"));
    for args in [&["--secret", "Secret"][..], &[]] {
        let mut client = Client::start(server.local_addr(), args);
        let expected = json!({"error": "AuthException", "message": NO_SIGNATURE});
        assert_eq!(client.send(&json!({"foo": "bar"})), expected, "{args:?}");
    }
}

#[test]
fn a_port_that_nobody_listens_on_is_a_connect_exception() {
    let port = ReservedPort::new();
    let mut client = Client::start(port.addr(), &["--retries", "1"]);
    let text = format!("Failed to connect to {} with 1 attempts", port.addr());
    let expected = json!({"error": "ConnectException", "message": text});
    assert_eq!(client.send(&json!("hello")), expected);
}

#[test]
fn a_handler_that_answers_late_is_a_timeout_exception() {
    let (_never, gate) = channel::bounded::<()>(1);
    let server = start(Server::new(HOST, 0, move |_| {
        let gate = gate.clone();
        async move { gate.recv().await.is_ok() }
    }));
    let mut client = Client::start(server.local_addr(), &["--timeout", "0.2"]);
    let expected = json!({"error": "RpcTimeoutException", "message": "Timed out"});
    assert_eq!(client.send(&json!("hello")), expected);
}

/// What Python takes for false.
fn falsy() -> [Json; 8] {
    [
        json!(0),
        json!(0.0),
        json!(false),
        json!(""),
        json!({"$bin": ""}),
        json!([]),
        json!({}),
        json!(null),
    ]
}

#[test]
fn falsy_requests_are_answered() {
    let wrap = |message: Value| vec![message];
    let mut client = Client::start(start(Server::new(HOST, 0, wrap)).local_addr(), &[]);
    for message in falsy() {
        assert_eq!(client.send(&message), json!({"reply": [message]}));
    }
}

#[test]
fn falsy_replies_leave_the_connection_in_step() {
    let mut client = Client::start(start(echo()).local_addr(), &[]);
    for (number, message) in falsy().iter().enumerate() {
        assert_eq!(client.send(message), json!({"reply": null}), "arrpc's client returns None");
        assert_eq!(client.send(&json!(number + 1)), json!({"reply": number + 1}));
    }
}

#[test]
fn int_map_keys_arrive_and_leave_the_connection_in_step() {
    let map = json!({"$map": [[1, "one"], [-2, "minus two"]]});
    let text = |message: Value| match message.is_map() {
        true => Value::from(message.to_string()),
        false => arrpc::value!({1: "one"}),
    };
    let mut client = Client::start(start(Server::new(HOST, 0, text)).local_addr(), &[]);
    assert_eq!(client.send(&map), json!({"reply": "{1: \"one\", -2: \"minus two\"}"}));
    let refused = client.send(&json!("int keys, please"));
    assert_eq!(refused, json!({"reply": null}), "arrpc's client does not read such a reply");
    assert_eq!(client.send(&map), json!({"reply": "{1: \"one\", -2: \"minus two\"}"}));
}

#[test]
fn many_calls_go_over_one_connection() {
    let (seen, server) = peers();
    let mut client = Client::start(start(server).local_addr(), &[]);
    for number in 1..=500 {
        assert_eq!(client.send(&json!(number)), json!({"reply": number}));
    }
    let mut peers = seen.lock().unwrap().clone();
    assert_eq!(peers.len(), 500);
    peers.dedup();
    assert_eq!(peers.len(), 1);
}

/// An echo server, and the peers of its calls.
fn peers() -> (Arc<Mutex<Vec<SocketAddr>>>, Server) {
    let peers = Arc::<Mutex<Vec<SocketAddr>>>::default();
    let seen = peers.clone();
    let echo = Server::with_context(HOST, 0, move |message, context| {
        seen.lock().unwrap().extend(context.peer_addr());
        message
    });
    (peers, echo)
}

#[test]
fn a_client_loses_nothing_when_its_server_stops_and_another_starts() {
    let port = ReservedPort::new();
    let seen = Arc::<Mutex<Vec<Json>>>::default();
    let mut client = Client::start(port.addr(), &[]);
    let mut sent = Vec::new();
    for round in 0..5 {
        let seen = seen.clone();
        let server = start(Server::new(HOST, port.addr().port(), move |message: Value| {
            seen.lock().unwrap().push(json!([message[0].as_u64(), message[1].as_str()]));
            message
        }));
        for text in ["small", &"large ".repeat(8_000)] {
            let message = json!([round, text]);
            assert_eq!(client.send(&message), json!({"reply": message}));
            sent.push(message);
        }
        server.stop();
        server.join();
    }
    assert!(*seen.lock().unwrap() == sent, "each was handled once");
}

#[test]
fn a_client_at_work_loses_nothing_when_its_server_stops_and_another_starts() {
    let port = ReservedPort::new();
    let seen = Arc::<Mutex<Vec<Json>>>::default();
    let next = || {
        let seen = seen.clone();
        start(Server::new(HOST, port.addr().port(), move |message: Value| {
            seen.lock().unwrap().push(json!(message.as_u64()));
            message
        }))
    };
    let mut server = next();
    let (done_sender, done) = mpsc::channel::<()>();
    let mut client = Client::start(port.addr(), &[]);
    let sending = thread::spawn(move || {
        let mut sent = Vec::new();
        while done.try_recv() == Err(TryRecvError::Empty) {
            // From 1 on: an unmodified client takes a reply of 0 for none.
            let message = json!(sent.len() + 1);
            assert_eq!(client.send(&message), json!({"reply": message}));
            sent.push(message);
        }
        sent
    });
    for _ in 0..3 {
        let handled = seen.lock().unwrap().len();
        while seen.lock().unwrap().len() < handled + 50 && !sending.is_finished() {
            thread::yield_now();
        }
        server.stop();
        server.join();
        server = next();
    }
    drop(done_sender);
    let sent = sending.join().unwrap();
    assert!(*seen.lock().unwrap() == sent, "each was handled once, in order");
}

#[test]
fn messages_of_every_length_arrive_and_come_back() {
    try_lengths(echo(), &[], 60_000);
}

#[test]
fn signed_messages_of_every_length_arrive_and_come_back() {
    try_lengths(echo().auth_secret("secret"), &["--secret", "secret"], 60_000);
}

#[track_caller]
fn try_lengths(echo: Server, args: &[&str], last: usize) {
    let port = start(echo).local_addr().port().to_string();
    let last = last.to_string();
    let args = [&[HOST, &port, "--lengths", "1", &last], args].concat();
    assert_eq!(python::run("client.py", &args), format!("ok {last}\n"));
}
