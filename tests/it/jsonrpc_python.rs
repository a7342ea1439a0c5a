//! The JSON-RPC client calls an unmodified Python server, of jsonrpclib-pelix.

use std::collections::BTreeMap;

use arrpc::jsonrpc::Error;
use arrpc::jsonrpc::blocking::Client;
use arrpc::{Value, value};

use crate::loopback::{HOST, cert};
use crate::peers::Running;
use crate::python;
use crate::raw::PATIENCE;

/// The server, and its address as a URL has it.
fn start(args: &[&str]) -> (Running, String) {
    let mut server = python::start("jsonrpc_server.py", args);
    let port = server.line().unwrap_or_else(|error| panic!("{error}"));
    (server, format!("{HOST}:{port}"))
}

#[test]
fn calls_notifications_and_batches_are_answered() {
    let (_server, address) = start(&[]);
    let client = Client::new(format!("http://{address}/api")).timeout(PATIENCE).max_connections(1);
    let greeting: String = client.call("greet", ("bob",)).expect("by position");
    assert_eq!(greeting, "hello bob");
    let by_name = BTreeMap::from([("name", "bob"), ("greeting", "good morning")]);
    let greeting: String = client.call("greet", &by_name).expect("by name");
    assert_eq!(greeting, "good morning bob");
    for message in [
        value!("héllo ✓ 日本語 🦀"),
        value!([u64::MAX, i64::MIN, 0.1, 1e300, true, nil]),
        value!({"a": {"b": []}}),
        value!([vec![0u8, 255], f64::INFINITY, {1: 2}]),
    ] {
        assert_eq!(client.call::<Value>("echo", (&message,)).expect("it echoes"), message);
    }
    let odd = value!({"$gt": 1180591620717411303424.0, "n": nil});
    assert_eq!(client.call::<Value>("odd", ()).expect("JSON"), odd);

    client.notify("log", ("first",)).expect("it is taken");
    let mut batch = client.batch();
    batch.notify("log", ("second",)).expect("params");
    let logged = batch.call::<Vec<String>>("logged", ()).expect("no params");
    let failed = batch.call::<Value>("fail", ()).expect("no params");
    let mut replies = batch.send().expect("replies");
    assert_failed(replies.take(failed));
    assert_eq!(replies.take(logged).expect("a result"), ["first", "second"]);

    let mut batch = client.batch();
    batch.notify("log", ("third",)).expect("params");
    assert!(batch.send().expect("it is taken").into_vec::<Value>().is_empty());
    let logged: Vec<String> = client.call("logged", ()).expect("no params");
    assert_eq!(logged.len(), 3);
}

#[track_caller]
fn assert_failed(result: Result<Value, Error>) {
    match result {
        Err(Error::Rpc { code: 7, message, data: Some(data) }) => {
            assert_eq!((message.as_str(), data), ("it fails", value!({"retry": false})));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_are_those_of_the_service_or_of_http() {
    let (_server, address) = start(&[]);
    let client = |path| Client::new(format!("http://{address}{path}")).timeout(PATIENCE);
    assert_failed(client("/api").call("fail", ()));
    for (method, params, expected) in
        [("nothing", value!([]), -32601), ("greet", value!([]), -32602)]
    {
        match client("/api").call::<Value>(method, params) {
            Err(Error::Rpc { code, .. }) => assert_eq!(code, expected),
            other => panic!("{method}: {other:?}"),
        }
    }
    for (path, expected) in [("/elsewhere", 404), ("/private", 401)] {
        match client(path).call::<Value>("echo", (1,)) {
            Err(Error::Http { status, .. }) => assert_eq!(status, expected),
            other => panic!("{path}: {other:?}"),
        }
    }
    let private = client("/private").token("sesame");
    assert_eq!(private.call::<u8>("echo", (1,)).expect("the token is right"), 1);
}

#[test]
fn a_server_with_tls_is_trusted_by_its_ca_or_its_certificate() {
    let (_server, address) = start(&[&cert("server.crt"), &cert("server.key")]);
    let client = || Client::new(format!("https://{address}/api")).timeout(PATIENCE);
    let by_ca = client().tls_cafile(cert("ca.crt"));
    for number in 0..10 {
        assert_eq!(by_ca.call::<u8>("echo", (number,)).expect("trusted"), number);
    }
    let pinned = client().tls_self_signed(cert("server.crt"));
    assert_eq!(pinned.call::<u8>("echo", (1,)).expect("trusted"), 1);
    for client in [client().tls_cafile(cert("other-ca.crt")), client()] {
        match client.call::<u8>("echo", (1,)) {
            Err(Error::Tls { address: told, .. }) => assert_eq!(told, address),
            // A machine may have no roots at all; then the option says so.
            Err(Error::Config(text)) => assert!(text.contains("no root certificates"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    let plain = Client::new(format!("http://{address}/api")).timeout(PATIENCE);
    match plain.call::<u8>("echo", (1,)) {
        Err(Error::Protocol(_) | Error::Disconnected { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_wants_a_certificate_gets_it() {
    let args = ["server.crt", "server.key", "ca.crt"].map(cert);
    let (_server, address) = start(&args.each_ref().map(String::as_str));
    let client = Client::new(format!("https://{address}/api")).timeout(PATIENCE);
    let client = client.tls_cafile(cert("ca.crt"));
    let known = client.clone().tls_client_cert(cert("client.crt"), cert("client.key"));
    assert_eq!(known.call::<u8>("echo", (1,)).expect("it has one"), 1);
    match client.call::<u8>("echo", (1,)) {
        Err(error @ Error::Tls { .. }) => {
            let cause = std::error::Error::source(&error).expect("a cause").to_string();
            assert!(cause.contains("set tls_client_cert"), "{cause}");
        }
        // The server may have closed before its alert was read.
        Err(Error::Disconnected { .. }) => {}
        other => panic!("{other:?}"),
    }
}
