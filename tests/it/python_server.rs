//! Our client calls an unmodified Python arrpc 0.5.0 server.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrpc::{Client, Error, Phase, Value, blocking, value};
use smol::Timer;
use smol::future::FutureExt;

use crate::loopback::{HOST, ReservedPort, cert, relay};
use crate::python::Server;
use crate::raw::PATIENCE;

const NO_SIGNATURE: &str =
    "Invalid or missing message signature, make sure 'auth_secret' is set/correct";

#[test]
fn a_plain_server_answers_our_client() {
    converse(&[], |client| client);
}

#[test]
fn a_server_with_a_secret_answers_our_client() {
    converse(&["--secret", "sésame"], |client| client.auth_secret("sésame"));
}

#[test]
fn a_tls_server_of_a_trusted_ca_answers_our_client() {
    let args = ["--tls", &cert("server.crt"), &cert("server.key")];
    converse(&args, |client| client.tls_cafile(cert("ca.crt")));
}

#[test]
fn a_self_signed_tls_server_answers_our_client_that_has_its_certificate() {
    let args = ["--tls", &cert("self-signed.crt"), &cert("self-signed.key")];
    converse(&args, |client| client.tls_self_signed(cert("self-signed.crt")));
}

#[test]
fn a_tls_server_with_a_secret_answers_our_client() {
    let args = ["--tls", &cert("server-rsa.crt"), &cert("server-rsa.key"), "--secret", "secret"];
    converse(&args, |client| client.tls_cafile(cert("ca.crt")).auth_secret("secret"));
}

/// Expects every message back, with both clients.
#[track_caller]
fn converse(args: &[&str], options: impl Fn(Client) -> Client) {
    let server = Server::start(args);
    let client = options(new_client(&server));
    let blocking = blocking::Client::from(client.clone());
    for message in [
        value!("héllo ✓ 日本語 🦀"),
        value!({"foo": "bar"}),
        value!([1, -1, 127, 128, 65_536, u64::MAX, i64::MIN, 1.5, true, false, nil, "", [], {}]),
        value!({"list": [1, [2, [3, {}]]], "map": {"a": {"b": true}}}),
        value!(vec![0x00u8, 0x01, 0xfe, 0xff]),
        value!("x".repeat(20_000)),
    ] {
        assert_eq!(smol::block_on(client.send(message.clone())).unwrap(), message);
        assert_eq!(blocking.send(message.clone()).unwrap(), message);
    }
}

fn new_client(server: &Server) -> Client {
    Client::new(HOST, server.addr.port()).timeout(PATIENCE)
}

fn new_blocking(server: &Server) -> blocking::Client {
    new_client(server).into()
}

#[test]
fn a_server_whose_certificate_is_not_trusted_is_refused() {
    let server = Server::start(&["--tls", &cert("self-signed.crt"), &cert("self-signed.key")]);
    for client in [
        new_blocking(&server).tls_self_signed(cert("other.crt")),
        new_blocking(&server).tls_cafile(cert("ca.crt")),
    ] {
        let error = client.send(1).unwrap_err();
        assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    }
}

#[test]
fn an_rpc_exception_is_an_rpc_error_with_its_exact_message() {
    let server = Server::start(&["--handler", "fail"]);
    let client = new_blocking(&server);
    for _ in 0..2 {
        let error = client.send("hello").unwrap_err();
        assert!(matches!(error, Error::Rpc(_)), "{error:?}");
        assert_eq!(error.to_string(), "Something went wrong");
    }
}

#[test]
fn an_auth_exception_is_an_auth_error() {
    let server = Server::start(&["--secret", "secret"]);
    let client = new_blocking(&server);
    for client in [client.clone(), client.auth_secret("Secret")] {
        for _ in 0..2 {
            let error = client.send("hello").unwrap_err();
            assert!(matches!(&error, Error::Auth(text) if text == NO_SIGNATURE), "{error:?}");
        }
    }
}

#[test]
fn a_port_that_nobody_listens_on_is_a_connect_error() {
    let port = ReservedPort::new();
    let client = blocking::Client::new(HOST, port.addr().port()).con_max_retries(2);
    let error = client.send("hello").unwrap_err();
    assert!(matches!(error, Error::Connect { attempts: 2, .. }), "{error:?}");
    let text = format!("Failed to connect to {} with 2 attempts", port.addr());
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_handler_that_answers_late_is_a_timeout() {
    let server = Server::start(&["--handler", "slow"]);
    let client = new_blocking(&server).timeout(Duration::from_millis(200));
    let started = Instant::now();
    let error = client.send(value!({"sleep": 60, "n": 1})).unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: Phase::Reply, .. }), "{error:?}");
    assert!(started.elapsed() < PATIENCE / 2);
}

#[test]
fn a_call_behind_one_that_was_given_up_gets_its_own_reply() {
    let server = Server::start(&["--handler", "slow"]);
    let client = new_client(&server);
    smol::block_on(async {
        // The late reply comes while the next call waits for its own.
        for number in 1..=2 {
            give_up(&client, value!({"sleep": 1.0, "n": "late"})).await;
            let reply = client.send(value!({"sleep": 1.2, "n": number})).await;
            assert_eq!(reply.unwrap(), value!(number));
        }
    });
}

/// Sends a message, and drops the call while it waits for its reply.
async fn give_up(client: &Client, message: Value) {
    let call = async { Some(client.send(message).await) };
    let enough = async {
        Timer::after(Duration::from_millis(50)).await;
        None
    };
    let reply = call.or(enough).await;
    assert!(reply.is_none(), "{reply:?}");
}

#[test]
fn a_handler_that_crashes_is_a_disconnect_and_the_next_call_connects_again() {
    let server = Server::start(&["--handler", "slow"]);
    let client = new_blocking(&server);
    for number in 1..=3 {
        let error = client.send("not what it expects").unwrap_err();
        assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
        assert_eq!(client.send(value!({"sleep": 0, "n": number})).unwrap(), value!(number));
    }
}

#[test]
fn falsy_requests_are_never_answered_and_the_next_call_gets_its_own_reply() {
    let server = Server::start(&[]);
    let client = new_client(&server);
    smol::block_on(async {
        for (number, message) in falsy().into_iter().enumerate() {
            give_up(&client, message).await;
            assert_eq!(client.send(number + 1).await.unwrap(), value!(number + 1));
        }
    });
}

#[test]
fn falsy_replies_arrive_as_they_are() {
    let server = Server::start(&["--handler", "slow"]);
    let client = new_blocking(&server);
    for reply in falsy() {
        assert_eq!(client.send(value!({"sleep": 0, "n": reply.clone()})).unwrap(), reply);
    }
}

/// What Python takes for false.
fn falsy() -> [Value; 8] {
    let bin = Value::Binary(Vec::new());
    [value!(0), value!(0.0), value!(false), value!(""), bin, value!([]), value!({}), Value::Nil]
}

#[test]
fn a_reply_with_int_map_keys_arrives_whole() {
    let server = Server::start(&["--handler", "int_keys"]);
    assert_eq!(new_blocking(&server).send(1).unwrap(), value!({1: "one", 2: "two"}));
}

#[test]
fn many_calls_go_over_one_connection() {
    let server = Server::start(&[]);
    let (addr, connections) = relay(server.addr);
    let client = blocking::Client::new(HOST, addr.port()).timeout(PATIENCE);
    for number in 1..=500 {
        assert_eq!(client.send(number).unwrap(), value!(number));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_client_loses_nothing_when_its_server_stops_and_another_starts() {
    let port = ReservedPort::new();
    let client = blocking::Client::new(HOST, port.addr().port()).timeout(PATIENCE);
    for round in 0..3 {
        let _server = Server::start(&["--port", &port.addr().port().to_string()]);
        for call in 1..=3 {
            let message = value!([round, call]);
            assert_eq!(client.send(message.clone()).unwrap(), message);
        }
    }
}

#[test]
fn tasks_that_share_a_client_get_their_own_replies() {
    let server = Server::start(&["--handler", "slow"]);
    let client = new_client(&server).max_connections(16);
    let tasks = (0..64).map(|task| {
        let client = client.clone();
        smol::spawn(async move {
            for call in 0..20 {
                let number = 1 + 20 * task + call;
                let seconds = f64::from(number % 7) / 1_000.0;
                let reply = client.send(value!({"sleep": seconds, "n": number})).await;
                assert_eq!(reply.unwrap(), value!(number));
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    smol::block_on(async {
        for task in tasks {
            task.await;
        }
    });
}

#[test]
fn messages_of_every_length_arrive_and_come_back() {
    try_lengths(&[], |client| client, 60_000);
}

#[test]
fn signed_messages_of_every_length_arrive_and_come_back() {
    try_lengths(&["--secret", "secret"], |client| client.auth_secret("secret"), 60_000);
}

#[track_caller]
fn try_lengths(args: &[&str], options: impl Fn(blocking::Client) -> blocking::Client, last: usize) {
    let server = Server::start(args);
    let client = options(new_blocking(&server));
    for length in 1..=last {
        let message = of_length(length);
        let reply = client.send(message.clone());
        assert_eq!(reply.unwrap_or_else(|error| panic!("{length}: {error}")), message, "{length}");
    }
}

/// A value that Python takes for true and packs to exactly `length` bytes: a str, or where there is
/// none an array.
fn of_length(length: usize) -> Value {
    let header = match length {
        0 | 1 | 33 | 258 => 0,
        2..33 => 1,
        34..258 => 2,
        _ => 3,
    };
    match header {
        0 if length == 1 => value!(1),
        0 => value!([of_length(length - 1)]),
        _ => value!("x".repeat(length - header)),
    }
}

#[test]
fn a_message_of_a_length_packs_to_that_length() {
    for length in (1..600).chain(65_530..=65_538) {
        let mut packed = Vec::new();
        rmpv::encode::write_value(&mut packed, &of_length(length)).unwrap();
        assert_eq!(packed.len(), length);
    }
}
