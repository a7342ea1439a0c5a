//! The JSON-RPC client against a service that says what a test tells it to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrpc::jsonrpc::blocking::Client;
use arrpc::jsonrpc::{self, Error};
use arrpc::{Phase, Value, value};
use serde_json::json;

use crate::http_service::{Answer, Request, Service, ok, raw, status};
use crate::loopback::{HOST, ReservedPort, raw_server};
use crate::raw::PATIENCE;

/// A service whose results are the params.
fn echo() -> Service {
    Service::start(|request| request.result(request.body["params"].clone()))
}

fn client(service: &Service) -> Client {
    Client::new(service.url()).timeout(PATIENCE)
}

/// What a call gets from a service that answers like this.
fn call(respond: impl Fn(&Request) -> Answer + Clone + Send + 'static) -> Result<Value, Error> {
    client(&Service::start(respond)).call("m", ())
}

#[track_caller]
fn assert_protocol(result: Result<impl std::fmt::Debug, Error>, why: &str) {
    match result {
        Err(Error::Protocol(text)) => assert!(text.contains(why), "{text:?} lacks {why:?}"),
        other => panic!("expected {why:?}: {other:?}"),
    }
}

#[track_caller]
fn assert_config(result: Result<impl std::fmt::Debug, Error>, why: &str) {
    match result {
        Err(Error::Config(text)) => assert!(text.contains(why), "{text:?} lacks {why:?}"),
        other => panic!("expected {why:?}: {other:?}"),
    }
}

#[track_caller]
fn assert_disconnected(result: Result<impl std::fmt::Debug, Error>) {
    match result {
        Err(Error::Disconnected { address, .. }) => assert!(address.starts_with(HOST)),
        other => panic!("expected a lost connection: {other:?}"),
    }
}

#[test]
fn a_call_is_a_post_with_its_params_and_its_headers() {
    let service = echo();
    let client = client(&service).token("t0ken").header("X-Trace", "7").header("x-trace", "8");
    let echoed: (u8, String) = client.call("echo", (1, "é")).expect("it echoes");
    assert_eq!(echoed, (1, "é".to_owned()));

    let request = service.request();
    assert_eq!(request.head[0], "POST /api HTTP/1.1");
    for (name, expected) in [
        ("host", format!("{HOST}:{}", service.port)),
        ("content-type", "application/json".to_owned()),
        ("accept", "application/json".to_owned()),
        ("authorization", "Bearer t0ken".to_owned()),
        ("x-trace", "8".to_owned()),
    ] {
        assert_eq!(request.header(name), Some(expected.as_str()), "{name}");
    }
    let id = request.id().clone();
    assert!(id.is_u64());
    assert_eq!(
        request.body,
        json!({"jsonrpc": "2.0", "method": "echo", "params": [1, "é"], "id": id})
    );
}

#[test]
fn params_and_results_have_any_type() {
    let service = echo();
    let client = client(&service);
    assert_eq!(client.call::<Option<u8>>("m", ()).expect("no params"), None);
    let by_name = BTreeMap::from([("a", 1.5)]);
    let echoed: BTreeMap<String, f64> = client.call("m", &by_name).expect("by name");
    assert_eq!(echoed["a"], 1.5);
    let any = value!([vec![0u8, 255], {"$gt": 5}, {1: 2}, f64::INFINITY, u64::MAX, nil]);
    assert_eq!(client.call::<Value>("m", &any).expect("any value"), any);
    assert_protocol(client.call::<u8>("m", ("x",)), "the result: expected u8, got an array");
    assert_protocol(client.call::<u8>("m", 5), "params must be");

    let plain = client.clone().plain_json();
    let echoed: Vec<IpAddr> = plain.call("m", [[127, 0, 0, 1]].map(IpAddr::from)).expect("text");
    assert!(echoed[0].is_loopback());
    let bodies: Vec<_> = (0..5).map(|_| service.request().body["params"].clone()).collect();
    assert_eq!(bodies[4], json!(["127.0.0.1"]));
}

#[test]
fn what_others_write_is_read_as_they_mean_it() {
    for (result, expected) in [
        (r#"{"$gt": 5}"#, value!({"$gt": 5})),
        (r#"{"$bin": "AQI="}"#, value!(vec![1u8, 2])),
        (r#"{"a": 1, "a": 2}"#, value!({"a": 2})),
        ("123456789012345678901234567890", value!(123456789012345678901234567890.0)),
    ] {
        let answer = move |request: &Request| {
            let id = request.id();
            status("200 OK", &format!(r#"{{"id": {id}, "error": null, "result": {result}}}"#))
        };
        assert_eq!(call(answer).expect(result), expected);
    }
}

#[test]
fn an_error_of_the_service_keeps_its_code_message_and_data_whatever_the_status() {
    for line in ["200 OK", "400 Bad Request", "404 Not Found", "500 Internal Server Error"] {
        let answered = call(move |request| {
            let error = json!({"code": -32601, "message": "no m", "data": {"try": ["n"]}});
            let reply = json!({"jsonrpc": "2.0", "id": request.id(), "error": error});
            status(line, &reply.to_string())
        });
        let text = answered.as_ref().expect_err("an error").to_string();
        assert_eq!(text, "no m (code -32601)");
        match answered {
            Err(Error::Rpc { code: -32601, data: Some(data), .. }) => {
                assert_eq!(data, value!({"try": ["n"]}));
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    let unread = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "?"}});
    match call(move |_| status("400 Bad Request", &unread.to_string())) {
        Err(Error::Rpc { code: -32700, data: None, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_status_without_a_reply_is_told_with_the_beginning_of_its_body() {
    for (line, body, expected) in [
        ("401 Unauthorized", "no\r\ntoken", "HTTP status 401 Unauthorized: no  token"),
        ("404 Not Found", "", "HTTP status 404 Not Found"),
        ("404 Not Found", r#"{"detail":"none"}"#, r#"404 Not Found: {"detail":"none"}"#),
        ("502 Bad Gateway", r#"{"error":{"code":502,"message":"x"}}"#, "HTTP status 502"),
        ("799 Odd", "\u{fffd}", "HTTP status 799: \u{fffd}"),
    ] {
        match call(move |_| status(line, body)) {
            Err(error @ Error::Http { .. }) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            other => panic!("{line}: {other:?}"),
        }
    }
    match call(|_| status("500 Oops", &"x".repeat(1 << 20))) {
        Err(Error::Http { status: 500, text, .. }) => assert_eq!(text.len(), 202),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let service = Service::start(|request| {
        let reply = json!({"jsonrpc": "2.0", "id": request.id(), "result": 1}).to_string();
        let head = "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/x\r\n";
        raw(format!("{head}Content-Length: {}\r\n\r\n{reply}", reply.len()))
    });
    match client(&service).call::<Value>("m", ()) {
        Err(Error::Http { status: 307, text, .. }) => {
            assert_eq!(text, "redirects are not followed, this one leads to http://127.0.0.1:1/x")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_reply_to_the_call_is_refused() {
    assert_protocol(call(|_| status("200 OK", "<html>")), r#"it is no JSON: expected value"#);
    assert_protocol(call(|_| status("200 OK", "")), "it is no JSON");
    assert_protocol(call(|_| raw("HTTP/1.1 204 No Content\r\n\r\n")), "it is no JSON");
    assert_protocol(call(|_| ok(&json!([]))), "it is no object");
    assert_protocol(call(|_| ok(&json!({"id": 0, "result": 1}))), "another id");
    assert_protocol(call(|_| ok(&json!({"id": "1", "result": 1}))), "another id");
    assert_protocol(call(|_| ok(&json!({"id": null, "result": 1}))), "another id");
    assert_protocol(call(|request| ok(&json!({"id": request.id()}))), "neither");
    let both = |request: &Request| {
        ok(&json!({"id": request.id(), "result": 1, "error": {"code": 1, "message": "x"}}))
    };
    assert_protocol(call(both), "both a result and an error");
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff";
    assert_protocol(call(|_| raw(*bytes)), "it is no UTF-8");
    let deep = |request: &Request| {
        let (open, close) = ("[".repeat(1000), "]".repeat(1000));
        let id = request.id();
        status("200 OK", &format!(r#"{{"id": {id}, "result": {open}{close}}}"#))
    };
    assert_protocol(call(deep), "recursion limit exceeded");
}

#[test]
fn an_answer_may_come_in_any_form_of_http() {
    let reply = |request: &Request| format!(r#"{{"id":{},"result":"got it"}}"#, request.id());
    let chunked = move |request: &Request| {
        let reply = reply(request);
        let (first, second) = reply.split_at(5);
        let mut text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        for part in [first, second] {
            text += &format!("{:x};extension=1\r\n{part}\r\n", part.len());
        }
        raw(text + "0\r\nTrailer: x\r\n\r\n")
    };
    let until_the_end = move |request: &Request| {
        raw(format!("HTTP/1.1 200 OK\r\n\r\n{}", reply(request))).closing()
    };
    let old = move |request: &Request| {
        raw(format!("HTTP/1.0 200 OK\r\n\r\n{}", reply(request))).closing()
    };
    let after_an_interim_one = move |request: &Request| {
        let reply = reply(request);
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
        raw(format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reply}", reply.len()))
    };
    for (service, connections) in [
        (Service::start(chunked), [0, 0]),
        (Service::start(until_the_end), [0, 1]),
        (Service::start(old), [0, 1]),
        (Service::start(after_an_interim_one), [0, 0]),
    ] {
        let client = client(&service);
        for connection in connections {
            assert_eq!(client.call::<String>("m", ()).expect("an answer"), "got it");
            assert_eq!(service.request().connection, connection);
            if connections[1] == 1 {
                service.expect_end(connection);
            }
        }
    }
}

#[test]
fn calls_share_a_connection_one_after_the_other() {
    let service = echo();
    let client = client(&service);
    for number in 0..100 {
        assert_eq!(client.call::<[u8; 1]>("m", (number,)).expect("it echoes"), [number]);
    }
    client.clone().idempotent().notify("m", ()).expect("a clone");
    assert_eq!(service.connections(), [0; 101]);
    client.clone().token("x").notify("m", ()).expect("a client of its own");
    assert_eq!(service.connections(), [1]);
    client.connection_lifetime(Duration::ZERO).notify("m", ()).expect("again");
    assert_eq!(service.connections(), [2]);
}

#[test]
fn no_more_connections_are_made_than_there_may_be() {
    let service = echo();
    let client = jsonrpc::Client::new(service.url()).timeout(PATIENCE).max_connections(2);
    let calls: Vec<_> = (0..50)
        .map(|number| {
            let client = client.clone();
            smol::spawn(async move { client.call::<[u8; 1]>("m", (number,)).await })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(smol::block_on(call).expect("it echoes"), [number as u8]);
    }
    assert!(service.connections().iter().all(|&connection| connection < 2));
}

#[test]
fn a_connection_that_the_server_does_not_keep_is_not_used_again() {
    let announced = |request: &Request| {
        let reply = json!({"id": request.id(), "result": 1}).to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}", reply.len());
        raw(format!("{head}\r\n\r\n{reply}"))
    };
    let unannounced = |request: &Request| request.result(json!(1)).closing();
    for service in [Service::start(announced), Service::start(unannounced)] {
        let client = client(&service);
        for connection in 0..5 {
            assert_eq!(client.call::<u8>("m", ()).expect("an answer"), 1);
            assert_eq!(service.request().connection, connection);
            service.expect_end(connection);
        }
    }
}

#[test]
fn bytes_behind_an_answer_end_its_connection() {
    let service = Service::start(|request| {
        let reply = json!({"id": request.id(), "result": 1}).to_string();
        raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reply}surplus", reply.len()))
    });
    let client = client(&service);
    for _ in 0..3 {
        assert_eq!(client.call::<u8>("m", ()).expect("an answer"), 1);
    }
    assert_eq!(service.connections(), [0, 1, 2]);
}

/// Answers the first request of its first connection, and ends that behind the second.
fn forgetful() -> Service {
    let second = Arc::new(AtomicBool::new(false));
    Service::start(move |request| {
        let is_second = second.swap(true, Ordering::SeqCst);
        match request.connection == 0 && is_second {
            true => raw("").closing(),
            false => request.result(json!(1)),
        }
    })
}

#[test]
fn a_call_that_may_have_run_is_sent_again_only_if_it_is_idempotent() {
    let service = forgetful();
    let once = client(&service);
    once.call::<u8>("m", ()).expect("the first");
    assert_disconnected(once.call::<u8>("m", ()));
    once.call::<u8>("m", ()).expect("the third");
    assert_eq!(service.connections(), [0, 0, 1]);

    let service = forgetful();
    let repeated = client(&service).idempotent();
    repeated.call::<u8>("m", ()).expect("the first");
    repeated.call::<u8>("m", ()).expect("the second, again");
    assert_eq!(service.connections(), [0, 0, 1]);

    let service = Service::start(|_| raw("").closing());
    assert_disconnected(client(&service).idempotent_retries(2).idempotent().call::<u8>("m", ()));
    assert_eq!(service.connections(), [0, 1, 2]);
}

#[test]
fn a_connection_that_ends_within_an_answer_is_lost() {
    for half in [
        "H",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"id\":",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"i",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ] {
        assert_disconnected(call(move |_| raw(half).closing()));
    }
}

#[test]
fn what_is_no_http_and_what_is_too_large_is_refused() {
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_protocol(call(|_| raw("\x15\x03\x01\x00\x02\x02\x46")), "is not HTTP/1.1");
    assert_protocol(call(|_| raw("220 mail.example ESMTP\r\n")), "is not HTTP/1.1");
    assert_protocol(call(move |_| raw(format!("{chunks}xyz\r\n"))), "is not HTTP/1.1");
    let lengths = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}";
    assert_protocol(call(move |_| raw(lengths)), "is not HTTP/1.1");

    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert_protocol(call(move |_| raw(long.as_str())), "is not HTTP/1.1");
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(1000));
    assert_protocol(call(move |_| raw(many.as_str())), "is not HTTP/1.1");

    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 67108865\r\n\r\n";
    assert_protocol(call(move |_| raw(announced)), "larger than max_message_bytes, 67108864");
    let endless = format!("{chunks}{}", format!("400\r\n{}\r\n", " ".repeat(1024)).repeat(100));
    let service = Service::start(move |_| raw(endless.as_str()));
    let client = client(&service).max_message_bytes(64 * 1024);
    assert_protocol(client.call::<u8>("m", ()), "larger than max_message_bytes, 65536");
}

#[test]
fn an_answer_of_too_many_values_is_refused() {
    let service = echo();
    let few = client(&service).max_items(100);
    let numbers = vec![7u8; 80]; // in an object of three entries
    assert_eq!(few.call::<Vec<u8>>("m", &numbers).expect("they are few"), numbers);
    assert_protocol(few.call::<Vec<u8>>("m", vec![7u8; 100]), "more values than max_items, 100");
    let service = Service::start(|_| status("502 Bad Gateway", &",".repeat(1000)));
    match client(&service).max_items(100).call::<Value>("m", ()) {
        Err(Error::Http { status: 502, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_refuses_a_request_before_its_end_is_heard() {
    let (release, gate) = smol::channel::bounded::<()>(1);
    let port = raw_server(move |_, stream| {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|bytes| bytes > 2) {
            line.clear();
        }
        let refusal = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 5\r\n\r\nlarge";
        stream.get_mut().write_all(refusal).expect("the client reads");
        let _ = gate.recv_blocking(); // reads no more, until the test has seen the answer
    });
    let client = Client::new(format!("http://{HOST}:{port}/")).timeout(PATIENCE);
    match client.call::<Value>("m", ("x".repeat(10_000_000),)) {
        Err(Error::Http { status: 413, text, .. }) => assert_eq!(text, "large"),
        other => panic!("{other:?}"),
    }
    drop(release);
}

#[test]
fn an_answer_of_the_largest_size_is_taken() {
    let service = echo();
    let client = client(&service);
    let long = "x".repeat(10_000_000);
    let (echoed,): (String,) = client.call("m", (&long,)).expect("it fits");
    assert!(echoed == long);
    let (id, result) = (service.request().id().to_string(), format!("[\"{long}\"]"));
    let bytes = json!({"jsonrpc": "2.0", "id": 0, "result": 0}).to_string().len() - 2;
    let exactly = bytes + id.len() + result.len();
    // The ids of calls have the same length for a long time.
    client.clone().max_message_bytes(exactly + 5).call::<Value>("m", (&long,)).expect("it fits");
    let short = client.max_message_bytes(exactly - 5);
    assert_protocol(short.call::<Value>("m", (&long,)), "larger");
}

#[test]
fn its_options_have_the_defaults_that_their_docs_state() {
    let shown = format!("{:?}", Client::new("http://127.0.0.1:8000/api"));
    for default in [
        "mapping: Escaped",
        "timeout: None",
        "con_max_retries: 5",
        "tls_handshake_timeout: 5s",
        "max_connections: 64",
        "connection_lifetime: None",
        "idempotent_retries: AtMost(3)",
        "max_message_bytes: 67108864",
        "max_items: 1048576",
        "tls: []",
        "tls_client_cert: None",
        "debug: false",
    ] {
        assert!(shown.contains(default), "{default}: {shown}");
    }
}

#[test]
fn a_timeout_tells_its_phase() {
    let after = Duration::from_secs(2);
    for half in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
        let service = Service::start(move |_| raw(half));
        match client(&service).timeout(after).call::<Value>("m", ()) {
            Err(Error::Timeout { phase: Phase::Reply, after: told }) => assert_eq!(told, after),
            other => panic!("{other:?}"),
        }
        service.request();
        service.expect_end(0);
    }
}

#[test]
fn no_connection_is_told_with_the_number_of_attempts() {
    let port = ReservedPort::new();
    let client = Client::new(format!("http://{}", port.addr())).con_max_retries(2);
    match client.call::<Value>("m", ()) {
        Err(Error::Connect { address, attempts: 2, .. }) => {
            assert_eq!(address, port.addr().to_string());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_that_is_dropped_takes_its_connection_with_it() {
    let (release, gate) = smol::channel::bounded::<()>(1);
    let service = Service::start(move |request| {
        if request.connection == 0 {
            let _ = gate.recv_blocking(); // until the test lets it go
        }
        request.result(request.body["params"].clone())
    });
    let client = jsonrpc::Client::new(service.url()).timeout(PATIENCE);
    let sharing = client.clone();
    let dropped = smol::spawn(async move { sharing.call::<Value>("m", (1,)).await });
    assert_eq!(service.request().connection, 0);
    assert!(smol::block_on(dropped.cancel()).is_none());
    let own = smol::block_on(client.call::<[u8; 1]>("m", (2,)));
    assert_eq!(own.expect("its own reply"), [2]);
    assert_eq!(service.request().connection, 1);
    drop(release);
    service.expect_end(0);
}

#[test]
fn a_notification_has_no_id_and_no_result() {
    let answers =
        ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"];
    for answer in answers {
        let service = Service::start(move |_| raw(answer));
        let client = client(&service);
        client.notify("log", ("x",)).expect("it is taken");
        client.notify("log", ()).expect("it is taken");
        let request = service.request();
        let expected = json!({"jsonrpc": "2.0", "method": "log", "params": ["x"]});
        assert_eq!(request.body, expected);
        assert_eq!(service.connections(), [0]);
    }
    let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "no"}});
    let service = Service::start(move |_| ok(&error));
    match client(&service).notify("log", ()) {
        Err(Error::Rpc { code: -32600, .. }) => {}
        other => panic!("{other:?}"),
    }
    match client(&Service::start(|_| status("403 Forbidden", "no"))).notify("log", ()) {
        Err(Error::Http { status: 403, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_is_sent() {
    let call = |client: Client| client.call::<Value>("m", ());
    assert_config(call(Client::new("ftp://localhost")), "must begin with http://");
    assert_config(call(Client::new("http://me:secret@localhost")), "use token or header");
    let client = || Client::new("http://127.0.0.1:1/");
    assert_config(call(client().tls_cafile("ca.crt")), "https://");
    assert_config(call(client().tls_client_cert("a.crt", "a.key")), "https://");
    assert_config(call(client().header("a b", "c")), "\"a b\" is no name of a header");
    assert_config(call(client().header("Content-Length", "5")), "the client's own");
    assert_config(call(client().token("a\r\nb")), "the header authorization has a line break");
    assert_config(call(client().timeout(Duration::ZERO)), "timeout is zero");
    assert_config(call(client().con_max_retries(0)), "con_max_retries");
    assert_config(call(client().max_connections(0)), "max_connections");
    assert_config(call(client().max_message_bytes(0)), "max_message_bytes");
    assert_config(call(client().max_items(0)), "max_items");
}

#[test]
fn what_is_secret_does_not_show() {
    let client = Client::new("https://localhost/api?key=secret1")
        .token("secret2")
        .header("X-Key", "secret3");
    let shown = format!("{client:?}");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("https://localhost/api") && shown.contains("X-Key"), "{shown}");
    let shown = format!("{:?}", Client::new("http://me:secret@localhost/"));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn a_call_runs_on_any_thread_of_tokio() {
    let service = echo();
    let client = jsonrpc::Client::new(service.url()).timeout(PATIENCE);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    runtime.expect("a runtime").block_on(async {
        let calls: Vec<_> = (0..20u8)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move { client.call::<[u8; 1]>("m", (number,)).await })
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.expect("no panic").expect("it echoes"), [number as u8]);
        }
        let empty = tokio::spawn(client.batch().send()).await.expect("no panic");
        empty.expect("nothing to do");
    });
}
