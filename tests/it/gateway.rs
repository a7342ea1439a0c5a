//! `arrpc gateway`: callers over HTTP in front of servers of ours and of the unmodified Python
//! package, its errors, tokens, both of its sides secured, and its stop.

use std::env;
use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrpc::{Context, Router, RpcError, Server, ServerHandle, Tokens};
use serde_json::{Value as Json, json};
use smol::channel;

use crate::command::{Ended, File, Served, arrpc, run, shell};
use crate::jsonrpc_server::{Response, request};
use crate::loopback::{HOST, ReservedPort, cert, echo, raw_server, relay, start};
use crate::python;
use crate::raw::{PATIENCE, Raw};
use crate::specification::{self, specification};

/// A gateway with `options` in front of the server at `to`.
#[track_caller]
fn gateway(to: impl ToString, options: &[&str]) -> Served {
    let to = to.to_string();
    let arguments = ["gateway", "--listen", "127.0.0.1:0", "--to", &to, "--con-max-retries", "1"];
    Served::start(arrpc(&[&arguments, options].concat()))
}

fn serve(router: Router) -> ServerHandle {
    start(Server::with_handler(HOST, 0, router))
}

/// Where a gateway listens, out of the URL that it printed.
fn address(gateway: &Served) -> SocketAddr {
    let url = gateway.addr.strip_prefix("http://").expect("a URL");
    url.split('/').next().expect("an address").parse().expect("an address")
}

#[track_caller]
fn post(gateway: &Served, headers: &str, body: &str) -> Response {
    let mut peer = Raw::connect(address(gateway));
    peer.send(&request(headers, body));
    Response::read(&mut peer.0)
}

/// What a call of `method` answers: its result, or its error.
#[track_caller]
fn call(gateway: &Served, method: &str) -> Json {
    call_with(gateway, "", &json!({"jsonrpc": "2.0", "method": method, "id": 1}))
}

#[track_caller]
fn call_with(gateway: &Served, headers: &str, call: &Json) -> Json {
    let mut response = post(gateway, headers, &call.to_string()).json();
    assert_eq!(response["id"], call["id"]);
    let answer = if response["error"].is_null() { "result" } else { "error" };
    response[answer].take()
}

/// The error of a server that does not answer.
fn unavailable(text: &str) -> Json {
    json!({"code": -32004, "message": "Unavailable", "data": text})
}

fn no_connection() -> Json {
    unavailable("no connection to the server behind the gateway")
}

/// What a gateway has logged when it is stopped.
fn log(gateway: Served) -> String {
    gateway.running.signal("TERM");
    let Ended { code, stderr, .. } = gateway.end();
    assert_eq!(code, 0, "{stderr}");
    stderr
}

#[test]
fn every_example_of_the_specification_gets_its_response_from_a_router_behind() {
    let server = serve(specification());
    let gateway = gateway(server.local_addr(), &[]);
    specification::check(|sent| {
        let response = post(&gateway, "", sent);
        (response.status, response.body)
    });
    assert!(!log(gateway).contains("WARN"), "all was answered");
}

#[test]
fn every_example_of_the_specification_gets_its_response_from_a_python_server_behind() {
    let server = python::Server::start(&["--handler", "methods"]);
    let gateway = gateway(server.addr, &[]);
    specification::check(|sent| {
        let response = post(&gateway, "", sent);
        (response.status, response.body)
    });
    let wrong = json!({"jsonrpc": "2.0", "method": "sum", "params": [1], "id": 1});
    assert_eq!(call_with(&gateway, "", &wrong)["code"], json!(-32602));
}

#[test]
fn a_python_handler_gets_the_method_the_params_and_the_token_in_a_map() {
    let server = python::Server::start(&["--handler", "echo"]);
    let gateway = gateway(server.addr, &[]);
    for params in [json!([1, -2.5, "three", null]), json!({"a": {"b": []}, "c": {"$bin": "AAE="}})]
    {
        let sent = json!({"jsonrpc": "2.0", "method": "m", "params": params, "id": "x"});
        let got = call_with(&gateway, "X-Api-Token: t\r\n", &sent);
        assert_eq!(got, json!({"method": "m", "params": params, "token": "t"}));
    }
    assert_eq!(call(&gateway, "m"), json!({"method": "m"}));
    // As long as what the Python server takes for a part of a message.
    for length in [4000, 4096, 8192, 100_000] {
        let method = "m".repeat(length);
        assert_eq!(call(&gateway, &method), json!({"method": method}), "{length}");
    }
}

#[test]
fn errors_of_handlers_go_through_with_their_codes() {
    let router = Router::new()
        .method("coded", [], || Err::<(), _>(RpcError::with_code("own", "it failed")))
        .method("plain", [], || Err::<(), _>("it failed"));
    let server = serve(router);
    let gateway_of_ours = gateway(server.local_addr(), &[]);
    let coded = json!({"code": -32000, "message": "it failed", "data": {"code": "own"}});
    assert_eq!(call(&gateway_of_ours, "coded"), coded);
    assert_eq!(call(&gateway_of_ours, "plain"), json!({"code": -32000, "message": "it failed"}));

    let server = python::Server::start(&["--handler", "fail"]);
    let failing = gateway(server.addr, &[]);
    let error = json!({"code": -32000, "message": "Something went wrong"});
    assert_eq!(call(&failing, "m"), error);
    let server = python::Server::start(&["--handler", "crash"]);
    let crashing = gateway(server.addr, &[]);
    let text = "the server behind the gateway ended the connection before its reply, the call may \
                have run";
    assert_eq!(call(&crashing, "m"), unavailable(text));
}

#[test]
fn calls_fail_while_the_server_behind_is_away_and_work_once_it_is_back() {
    let port = ReservedPort::new();
    let gateway = gateway(port.addr(), &[]);
    let back = || start(Server::with_handler(HOST, port.addr().port(), specification()));
    for _ in 0..2 {
        assert_eq!(call(&gateway, "get_data"), no_connection());
        assert_eq!(call(&gateway, "get_data"), no_connection());
        let server = back();
        assert_eq!(call(&gateway, "get_data"), json!(["hello", 5]));
        server.stop();
        server.join();
    }
    let address = port.addr().to_string();
    let log = log(gateway);
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "once a minute: {log}");
    assert!(warnings[0].contains(&address) && warnings[0].contains("refused"), "{log}");
}

#[test]
fn a_call_that_takes_too_long_is_a_timeout_and_holds_up_no_other() {
    let router = specification().method("never", [], std::future::pending::<()>);
    let server = serve(router);
    let options = ["--timeout", "5", "--max-connections", "1"];
    let gateway = gateway(server.local_addr(), &options);
    for _ in 0..2 {
        let text = "Timed out after 5s waiting for the reply";
        let late = json!({"code": -32002, "message": "Timeout", "data": text});
        assert_eq!(call(&gateway, "never"), late);
        assert_eq!(call(&gateway, "get_data"), json!(["hello", 5]));
    }
}

#[test]
fn a_call_that_a_python_server_never_answers_is_a_timeout() {
    let server = python::Server::start(&["--handler", "echo"]);
    let gateway = gateway(server.addr, &["--timeout", "2", "--max-connections", "1"]);
    let params = json!({"a": {"$map": [[1, 2]]}}); // it cannot read keys that are no strings
    let sent = json!({"jsonrpc": "2.0", "method": "m", "params": params, "id": 1});
    assert_eq!(call_with(&gateway, "", &sent)["code"], json!(-32002));
    assert_eq!(call(&gateway, "m"), json!({"method": "m"}));
}

#[test]
fn a_call_whose_connection_is_lost_is_sent_again_as_often_as_retries_says() {
    for (retries, answer) in [
        (
            "0",
            unavailable(
                "the server behind the gateway ended the connection before its reply, the call may have \
             run",
            ),
        ),
        ("1", json!(7)),
    ] {
        let port = raw_server(|number, mut stream| {
            let read = stream.read(&mut [0; 1024]).expect("a request");
            if read > 0 && number > 0 {
                stream.write_all(b"\x07").expect("open");
            }
        });
        let gateway = gateway(format_args!("{HOST}:{port}"), &["--retries", retries]);
        assert_eq!(call(&gateway, "m"), answer);
    }
}

#[test]
fn a_reply_that_is_none_or_too_large_is_an_error_that_tells_nothing_of_it() {
    let text =
        "the reply of the server behind the gateway is none, or exceeds the gateway's limits";
    let error = json!({"code": -32000, "message": text});
    let stranger = raw_server(|_, mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"\xc1");
    });
    let in_front_of_stranger = gateway(format_args!("{HOST}:{stranger}"), &[]);
    assert_eq!(call(&in_front_of_stranger, "m"), error);
    let server = serve(specification());
    let limited = gateway(server.local_addr(), &["--max-reply-bytes", "3"]);
    assert_eq!(call(&limited, "get_data"), error);
}

#[test]
fn the_server_behind_may_want_tls_signatures_or_encryption() {
    let secret = File::new("gateway secret", "s3cr3t");
    let signed = ["--auth-secret-file", secret.path()];
    let tls = ["--tls-ca", "certs/ca.crt", "--tls-cert", "certs/client.crt"];
    let tls = [&tls as &[_], &["--tls-key", "certs/client.key"]].concat();
    let with_tls = || {
        let server = Server::with_handler(HOST, 0, specification());
        server.tls(cert("server.crt"), cert("server.key")).tls_client_ca(cert("ca.crt"))
    };
    let plain = || Server::with_handler(HOST, 0, specification());
    for (server, options) in [
        (with_tls(), tls.clone()),
        (plain().auth_secret("s3cr3t"), signed.to_vec()),
        (plain().auth_secret("s3cr3t").encrypt(), [&signed as &[_], &["--encrypt"]].concat()),
        (with_tls().auth_secret("s3cr3t"), [&tls as &[_], &signed].concat()),
    ] {
        let server = start(server);
        for more in [&[] as &[_], &["--pipelined", "8"]] {
            let gateway = gateway(server.local_addr(), &[&options, more].concat());
            assert_eq!(call(&gateway, "get_data"), json!(["hello", 5]), "{options:?}");
        }
    }
    let server = python::Server::start(&[
        "--tls",
        &cert("server.crt"),
        &cert("server.key"),
        "--secret",
        "s3cr3t",
    ]);
    let python = gateway(server.addr, &[&tls as &[_], &signed].concat());
    assert_eq!(call(&python, "m"), json!({"method": "m"}));
}

#[test]
fn what_the_operator_got_wrong_is_told_to_the_log_and_not_to_callers() {
    let wrong = File::new("gateway wrong secret", "kqxwvzjy");
    let server = start(Server::with_handler(HOST, 0, specification()).auth_secret("s3cr3t"));
    let text = "the server behind the gateway refused the gateway's secret, or its absence";
    for options in [&[] as &[_], &["--auth-secret-file", wrong.path()]] {
        let gateway = gateway(server.local_addr(), options);
        for _ in 0..3 {
            assert_eq!(call(&gateway, "get_data"), unavailable(text));
        }
        let log = log(gateway);
        assert_eq!(log.matches("WARN").count(), 1, "{log}");
        assert!(log.contains("Invalid or missing message signature"), "{log}");
        assert!(!log.contains("kqxwvzjy"), "{log}");
    }
    let server = Server::with_handler(HOST, 0, specification());
    let server = start(server.tls(cert("server.crt"), cert("server.key")));
    for (options, logged) in [
        (["--tls-ca", "certs/other-ca.crt"], "UnknownIssuer"),
        (["--tls-self-signed", "certs/other.crt"], "another certificate"),
    ] {
        let gateway = gateway(server.local_addr(), &options);
        assert_eq!(call(&gateway, "get_data"), no_connection());
        let log = log(gateway);
        assert!(log.contains("WARN") && log.contains(logged), "{log}");
    }
}

#[test]
fn a_server_behind_writes_no_lines_of_the_log() {
    // A refusal of the signature, in the Python package's words, and what is to pass for a line.
    let stranger = raw_server(|_, mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let text = "arrpc.error.AuthException: no\r\n1970-01-01 WARN forged\x1b[2J";
        let _ = stream.write_all(&[0xd9, u8::try_from(text.len()).expect("short")]);
        let _ = stream.write_all(text.as_bytes());
    });
    let gateway = gateway(format_args!("{HOST}:{stranger}"), &["--debug"]);
    assert_eq!(call(&gateway, "m")["code"], json!(-32004));
    let log = log(gateway);
    let escaped = r#"error="no\r\n1970-01-01 WARN forged\u{1b}[2J""#;
    assert_eq!(log.matches(escaped).count(), 2, "of the client and the gateway: {log}");
    assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("1970")), "{log}");
}

#[test]
fn calls_that_take_too_long_are_logged_now_and_then() {
    let server = serve(specification().method("never", [], std::future::pending::<()>));
    let gateway = gateway(server.local_addr(), &["--timeout", "3"]);
    for _ in 0..2 {
        assert_eq!(call(&gateway, "never")["code"], json!(-32002));
        assert_eq!(call(&gateway, "get_data"), json!(["hello", 5]));
    }
    let log = log(gateway);
    assert_eq!(log.matches("WARN").count(), 1, "once a minute: {log}");
    assert!(log.contains("calls take too long") && log.contains("calls=1"), "{log}");
    assert!(log.contains(&server.local_addr().to_string()), "{log}");
}

#[test]
fn refused_tokens_are_logged_now_and_then_and_not_with_the_token() {
    let tokens = File::new("gateway logged tokens", "kqxwvzjy\n");
    let asking = Server::with_handler(HOST, 0, Router::new().method("m", [], || 1).private("m"));
    let asking = start(asking.tokens(Tokens::new([("anna", "kqxwvzjy")])));
    let echoing = start(echo());
    let of_the_gateway = ["--token-file", tokens.path()];
    for (server, options) in [(&asking, &[] as &[_]), (&echoing, &of_the_gateway)] {
        for (more, expected) in [(&[] as &[_], 1), (&["--debug"], 3)] {
            let gateway = gateway(server.local_addr(), &[options, more].concat());
            let sent = json!({"jsonrpc": "2.0", "method": "m", "id": 1});
            for headers in ["", "X-Api-Token: fjordbank\r\n", "X-Api-Token: vexgymzq\r\n"] {
                assert_eq!(call_with(&gateway, headers, &sent)["code"], json!(-32001));
            }
            let known = call_with(&gateway, "X-Api-Token: kqxwvzjy\r\n", &sent);
            assert!(known.get("code").is_none(), "{known}");
            let log = log(gateway);
            assert_eq!(log.matches("denied access").count(), expected, "{log}");
            assert_eq!(log.matches("WARN").count(), 1, "once a minute: {log}");
            assert!(log.contains("caller=127.0.0.1:") && log.contains("calls=1"), "{log}");
            for token in ["fjordbank", "vexgymzq", "kqxwvzjy"] {
                assert!(!log.contains(token), "{log}");
            }
        }
    }
}

#[test]
fn a_token_goes_to_the_server_behind_which_knows_whose_it_is() {
    let whoami = |context: Context| context.identity().map(str::to_owned);
    let router = Router::new().method("whoami", [], whoami).private("whoami");
    let server = Server::with_handler(HOST, 0, router).tokens(Tokens::new([("anna", "a-token")]));
    let server = start(server);
    let gateway = gateway(server.local_addr(), &[]);
    let whoami = json!({"jsonrpc": "2.0", "method": "whoami", "id": 1});
    let call = |headers| call_with(&gateway, headers, &whoami);
    assert_eq!(call("Authorization: Bearer a-token\r\n"), json!("anna"));
    assert_eq!(call("Cookie: api_token=a-token\r\n"), json!("anna"));
    assert_eq!(call("")["code"], json!(-32001));
    assert_eq!(call("X-Api-Token: b-token\r\n")["code"], json!(-32001));
}

#[test]
fn with_a_token_file_only_its_callers_are_let_in_and_no_token_goes_on() {
    let tokens = File::new("gateway tokens", "# who may call\nanna: a-token\nb-token\n");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let server = start(Server::new(HOST, 0, move |message| {
        counted.fetch_add(1, Ordering::SeqCst);
        message
    }));
    let gateway = gateway(server.local_addr(), &["--token-file", tokens.path()]);
    let sent = json!({"jsonrpc": "2.0", "method": "m", "params": {"token": "own"}, "id": 1});
    for header in ["Authorization: Bearer a-token\r\n", "X-Api-Token: b-token\r\n"] {
        let got = call_with(&gateway, header, &sent);
        assert_eq!(got, json!({"method": "m", "params": {"token": "own"}}), "its own stays");
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    for (header, text) in [
        ("", "a call needs a token"),
        ("X-Api-Token: c-token\r\n", "the server knows no such token"),
        ("X-Api-Token: anna\r\n", "the server knows no such token"),
        ("X-Api-Token: \r\n", "the server knows no such token"),
    ] {
        let denied = json!({"code": -32001, "message": "Access denied", "data": text});
        assert_eq!(call_with(&gateway, header, &sent), denied, "{header}");
    }
    let unasked = r#"[{"jsonrpc": "2.0", "method": "m"}, {"jsonrpc": "2.0", "method": "m"}]"#;
    assert_eq!(post(&gateway, "", unasked).status, 204);
    assert_eq!(calls.load(Ordering::SeqCst), 2, "nobody else came through");
}

#[test]
fn a_line_of_the_token_file_that_may_be_meant_otherwise_is_warned_of() {
    let tokens = "# bob:off\n\nanna: a:token\nbob:kqxwvzjy\nb-token\n  carl:fjordbank \n";
    let tokens = File::new("gateway colons", tokens);
    let server = start(echo());
    let gateway = gateway(server.local_addr(), &["--token-file", tokens.path()]);
    let sent = json!({"jsonrpc": "2.0", "method": "m", "id": 1});
    for token in ["a:token", "bob:kqxwvzjy", "b-token"] {
        let header = format!("X-Api-Token: {token}\r\n");
        assert_eq!(call_with(&gateway, &header, &sent), json!({"method": "m"}), "{token}");
    }
    let log = log(gateway);
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 2, "{log}");
    for (warning, line) in warnings.iter().zip(["line=4", "line=6"]) {
        assert!(warning.contains("the whole line is a token") && warning.contains(line), "{log}");
        assert!(warning.contains(tokens.path()), "{log}");
    }
    assert!(!log.contains("kqxwvzjy") && !log.contains("fjordbank"), "{log}");
}

#[test]
fn sixty_four_callers_are_answered_at_once_each_with_its_own() {
    let (gate, opened) = channel::bounded::<()>(1);
    let waiting = Arc::new(AtomicUsize::new(0));
    let router = Router::new().method("wait", ["number"], move |number: usize| {
        let (opened, waiting, gate) = (opened.clone(), waiting.clone(), gate.clone());
        async move {
            // The last of them lets all go on, so they must all be there.
            if waiting.fetch_add(1, Ordering::SeqCst) == 63 {
                gate.close();
            }
            let _ = opened.recv().await;
            number
        }
    });
    let ours = serve(router);
    let python = python::Server::start(&["--handler", "echo"]);
    for (to, options) in [
        (ours.local_addr(), &[] as &[_]),
        (python.addr, &[]),
        (ours.local_addr(), &["--pipelined", "64", "--max-connections", "1"]),
    ] {
        let gateway = gateway(to, options);
        thread::scope(|scope| {
            for caller in 0..64 {
                let gateway = &gateway;
                scope.spawn(move || {
                    let mut peer = Raw::connect(address(gateway));
                    for round in 0..5 {
                        let number = caller * 100 + round;
                        let sent = json!({"jsonrpc": "2.0", "method": "wait", "params": [number],
                            "id": number});
                        peer.send(&request("", &sent.to_string()));
                        let response = Response::read(&mut peer.0).json();
                        let result = &response["result"];
                        let result = result.get("params").map_or(result, |params| &params[0]);
                        assert_eq!((&response["id"], result), (&json!(number), &json!(number)));
                    }
                });
            }
        });
    }
}

#[test]
fn a_slow_batch_leaves_connections_for_other_callers() {
    for (options, at_once) in [(&[] as &[_], 16), (&["--max-connections", "2"], 1)] {
        let (gate, opened) = channel::bounded::<()>(1);
        let running = Arc::new(AtomicUsize::new(0));
        let peak = Arc::new(AtomicUsize::new(0));
        let (counted, highest) = (running.clone(), peak.clone());
        let router = specification().method("wait", [], move || {
            let (opened, running, peak) = (opened.clone(), counted.clone(), highest.clone());
            async move {
                peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let _ = opened.recv().await;
                running.fetch_sub(1, Ordering::SeqCst);
            }
        });
        let server = serve(router);
        let gateway = gateway(server.local_addr(), options);
        let wait = |id| json!({"jsonrpc": "2.0", "method": "wait", "id": id});
        let batch: Vec<_> = (0..100).map(wait).collect();
        let mut peer = Raw::connect(address(&gateway));
        peer.send(&request("", &json!(batch).to_string()));
        let begun = Instant::now();
        while running.load(Ordering::SeqCst) < at_once {
            assert!(begun.elapsed() < PATIENCE, "{at_once} calls are never under way");
            thread::yield_now();
        }
        assert_eq!(call(&gateway, "get_data"), json!(["hello", 5]));
        gate.close();
        let answers = Response::read(&mut peer.0).json();
        assert_eq!(answers.as_array().map(Vec::len), Some(100));
        assert_eq!(peak.load(Ordering::SeqCst), at_once);
    }
}

#[test]
fn connections_to_the_server_behind_are_kept_and_no_more_than_were_asked_for() {
    let server = serve(specification());
    let (addr, connections) = relay(server.local_addr());
    let gateway = gateway(addr, &["--max-connections", "2"]);
    let calls: Vec<_> =
        (0..50).map(|id| json!({"jsonrpc": "2.0", "method": "get_data", "id": id})).collect();
    for _ in 0..3 {
        let response = post(&gateway, "", &json!(calls).to_string()).json();
        assert!(response.as_array().expect("a batch").iter().all(|one| one["error"].is_null()));
    }
    assert!((1..=2).contains(&connections.load(Ordering::SeqCst)));
}

#[test]
fn the_options_of_http_are_those_of_the_gateway() {
    let server = serve(specification());
    let options = ["--path", "/rpc", "--cors", "https://a.example", "--cors", "https://b.example"];
    let options = [&options as &[_], &["--max-batch", "2", "--max-message-bytes", "200"]].concat();
    let options = [&options as &[_], &["--message-timeout", "1"]].concat();
    let gateway = gateway(server.local_addr(), &options);
    assert!(gateway.addr.ends_with("/rpc"), "{}", gateway.addr);
    let send = |bytes: &[u8]| {
        let mut peer = Raw::connect(address(&gateway));
        peer.send(bytes);
        Response::read(&mut peer.0)
    };
    let to_path = |headers: &str, body: &str| {
        String::from_utf8(request(headers, body))
            .expect("text")
            .replace("/api", "/rpc")
            .into_bytes()
    };
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#;
    assert_eq!(send(&request("", call)).status, 404);
    for origin in ["https://a.example", "https://b.example"] {
        let response = send(&to_path(&format!("Origin: {origin}\r\n"), call));
        assert_eq!(response.json()["result"], json!(["hello", 5]));
        assert!(response.head.contains(&format!("access-control-allow-origin: {origin}")));
    }
    let batch = |calls: usize| format!("[{}]", vec!["1"; calls].join(","));
    assert!(send(&to_path("", &batch(2))).json().is_array());
    assert!(send(&to_path("", &batch(3))).data().contains("max_batch"));
    let too_large = send(&to_path("", &" ".repeat(201)));
    assert_eq!(too_large.status, 413);
    assert_eq!(too_large.data(), "the body is larger than 200 bytes (max_message_bytes)");
    let half = to_path("", call);
    assert_eq!(send(&half[..half.len() - 1]).status, 408);
}

#[test]
fn the_limits_that_callers_are_told_of_have_the_names_of_options() {
    let server = serve(specification());
    let options = ["--max-message-bytes", "300", "--max-depth", "4", "--max-items", "10"];
    let small = gateway(server.local_addr(), &options);
    let poor = gateway(server.local_addr(), &["--max-memory-bytes", "1000000"]);
    let call = |params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"get_data","params":{params}}}"#)
    };
    let help = run(arrpc(&["gateway", "--help"]), "").stdout;
    for (gateway, body, limit) in [
        (&small, call(&format!("[\"{}\"]", "a".repeat(300))), "max_message_bytes"),
        (&small, call("[[[[[[[[]]]]]]]]"), "max_depth"),
        (&small, call(&format!("[{}1]", "1,".repeat(100))), "max_items"),
        (&poor, call(&format!("[{}1]", "1,".repeat(100_000))), "max_memory_bytes"),
    ] {
        let told = post(gateway, "", &body).data();
        assert!(told.contains(&format!("({limit}")), "{told}");
        let (http, _) = help.split_once("--max-reply-bytes").expect("it has the other one");
        let option = format!("--{} <N>", limit.replace('_', "-"));
        let told_of_it = if limit == "max_message_bytes" { http } else { &help };
        assert!(told_of_it.contains(&option), "{option}: {help}");
    }
}

#[test]
fn the_line_that_the_gateway_prints_works_when_pasted() {
    let server = start(echo());
    let to = server.local_addr().to_string();
    let tokens = File::new("gateway's token", "a-token");
    let tls = ["--listen-tls-cert", "certs/server.crt", "--listen-tls-key", "certs/server.key"];
    let tls = [&["--listen", "localhost:0"] as &[_], &tls].concat();
    for (options, scheme) in [
        (vec!["--listen", "127.0.0.1:0"], "http://127.0.0.1:"),
        (vec!["--listen", ":0"], "http://0.0.0.0:"),
        (vec!["--listen", "[::1]:0", "--path", "/it's"], "http://[::1]:"),
        (vec!["--listen", "127.0.0.1:0", "--token-file", tokens.path()], "http://127.0.0.1:"),
        (tls, "https://127.0.0.1:"),
    ] {
        let gateway = Served::start(arrpc(&[&["gateway", "--to", &to], &options[..]].concat()));
        assert!(gateway.lines[0].starts_with(&format!("Listening on {scheme}")));
        assert_eq!(gateway.lines[1], format!("Calls are answered by {to}"));
        let above = &gateway.lines[gateway.lines.len() - 2];
        assert!(
            above.ends_with("; if the server has no Router, with one of its methods:"),
            "{above}"
        );
        let line = gateway.lines.last().expect("it printed some").replace("YOUR-TOKEN", "a-token");
        let pasted = run(shell(&line), "");
        let expected = r#"{"jsonrpc":"2.0","result":{"method":"arrpc.methods"},"id":1}"#;
        assert_eq!(pasted.stdout, expected, "{line}: {}", pasted.stderr);
    }
}

#[cfg(unix)]
#[test]
fn both_sides_may_be_unix_sockets() {
    let socket =
        |side| format!("unix:{}/arrpc-gateway-{side}-{}", env::temp_dir().display(), process::id());
    let (front, behind) = (socket("front"), socket("behind"));
    let _server = start(Server::new(&behind, 0, |message| message));
    let gateway = Served::start(arrpc(&["gateway", "--listen", &front, "--to", &behind]));
    assert_eq!(gateway.lines[0], format!("Listening on {front} (http, calls go to /api)"));
    assert_eq!(gateway.lines[1], format!("Calls are answered by {behind}"));
    let pasted = run(gateway.pasted(), "");
    let expected = r#"{"jsonrpc":"2.0","result":{"method":"arrpc.methods"},"id":1}"#;
    assert_eq!(pasted.stdout, expected, "{pasted:?}");
}

const METRICS: [&str; 4] = ["--metrics-host", "127.0.0.1", "--metrics-port", "0"];

/// What the port of a gateway's metrics answers at this path.
#[track_caller]
fn probe(gateway: &Served, path: &str) -> String {
    let url = gateway.lines[2].strip_prefix("Metrics at http://").expect("it says so");
    let addr = url.strip_suffix("/metrics").expect("their path");
    let mut stream = TcpStream::connect(addr).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("open");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("text");
    response
}

#[test]
fn the_metrics_are_where_the_gateway_says() {
    let server = serve(specification());
    let gateway = gateway(server.local_addr(), &METRICS);
    call(&gateway, "get_data");
    let response = probe(&gateway, "/metrics");
    assert!(response.contains(r#"handler_func="Gateway""#), "{response}");
}

/// Reads the log up to the line that says why the gateway is not ready.
#[track_caller]
fn wait_for_cause(gateway: &mut Served) -> String {
    let mut line = String::new();
    while !line.contains("not ready") {
        line.clear();
        assert!(gateway.stderr.read_line(&mut line).expect("text") > 0, "it says why");
    }
    line
}

/// Waits for the answer of `/readyz` to be this one.
fn wait_for_readyz(gateway: &Served, status: &str) {
    let begun = Instant::now();
    while !probe(gateway, "/readyz").starts_with(&format!("HTTP/1.1 {status} ")) {
        assert!(begun.elapsed() < PATIENCE, "/readyz is never {status}");
        thread::sleep(Duration::from_millis(10)); // the gateway looks once a second
    }
    assert!(probe(gateway, "/healthz").starts_with("HTTP/1.1 200 "), "it is alive all the same");
}

#[test]
fn a_gateway_is_ready_while_the_server_behind_can_be_reached() {
    let port = ReservedPort::new();
    let mut gateway = gateway(port.addr(), &METRICS);
    for _ in 0..2 {
        let cause = wait_for_cause(&mut gateway);
        assert!(cause.contains("WARN") && cause.contains("refused"), "{cause}");
        wait_for_readyz(&gateway, "503");
        let server = start(Server::with_handler(HOST, port.addr().port(), specification()));
        wait_for_readyz(&gateway, "200");
        assert_eq!(call(&gateway, "get_data"), json!(["hello", 5]));
        server.stop();
        server.join();
    }
    wait_for_cause(&mut gateway);
    let log = log(gateway);
    assert!(!log.contains("not ready"), "once for each time that it was away: {log}");
}

#[test]
fn a_gateway_that_trusts_another_certificate_is_not_ready() {
    let server = Server::with_handler(HOST, 0, specification());
    let server = start(server.tls(cert("server.crt"), cert("server.key")));
    let trusting = |ca| {
        let options = [&METRICS as &[_], &["--tls-ca", ca]].concat();
        gateway(server.local_addr(), &options)
    };
    wait_for_readyz(&trusting("certs/ca.crt"), "200");
    let mut other = trusting("certs/other-ca.crt");
    let cause = wait_for_cause(&mut other);
    assert!(cause.contains("certificate"), "{cause}");
    wait_for_readyz(&other, "503");
    let tls = ["--tls", &cert("server.crt"), &cert("server.key")];
    for (tls, options) in [(&[] as &[_], &[] as &[_]), (&tls, &["--tls-ca", "certs/ca.crt"])] {
        let python = python::Server::start(&[&["--handler", "echo"], tls].concat());
        let gateway = gateway(python.addr, &[&METRICS, options].concat());
        wait_for_readyz(&gateway, "200");
        assert_eq!(call(&gateway, "m"), json!({"method": "m"}), "the look has hurt nobody");
    }
}

#[test]
fn a_stop_waits_for_the_calls_that_run() {
    let (started_sender, started) = channel::unbounded();
    let (gate, opened) = channel::bounded::<()>(1);
    let work = move || {
        let (started, opened) = (started_sender.clone(), opened.clone());
        async move {
            let _ = started.send(()).await;
            let _ = opened.recv().await;
            "done"
        }
    };
    for signal in ["TERM", "INT"] {
        let server = serve(Router::new().method("work", [], work.clone()));
        let mut gateway = gateway(server.local_addr(), &[]);
        let mut peer = Raw::connect(address(&gateway));
        peer.send(&request("", r#"{"jsonrpc":"2.0","id":1,"method":"work"}"#));
        started.recv_blocking().expect("it runs");
        gateway.running.signal(signal);
        let mut line = String::new();
        gateway.stderr.read_line(&mut line).expect("text");
        assert!(line.starts_with("arrpc: stopping"), "{line}");
        while TcpStream::connect(address(&gateway)).is_ok() {
            thread::yield_now();
        }
        gate.send_blocking(()).expect("it waits");
        assert_eq!(Response::read(&mut peer.0).json()["result"], json!("done"));
        assert_eq!(gateway.end(), Ended::ok(""));
    }
}

#[test]
fn a_second_signal_ends_the_gateway_at_once() {
    let server = serve(Router::new().method("never", [], std::future::pending::<()>));
    let (addr, connections) = relay(server.local_addr());
    let mut gateway = gateway(addr, &["--drain-timeout", "1e6", "--timeout", "inf"]);
    let mut peer = Raw::connect(address(&gateway));
    peer.send(&request("", r#"{"jsonrpc":"2.0","id":1,"method":"never"}"#));
    while connections.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    gateway.running.signal("INT");
    gateway.stderr.read_line(&mut String::new()).expect("text");
    gateway.running.signal("TERM");
    assert_eq!(gateway.end().code, 128 + 15);
}

#[test]
fn options_that_cannot_work_are_an_error_at_the_start() {
    let empty = File::new("gateway empty", "\n");
    for (options, text) in [
        (&[] as &[_], "--to <HOST:PORT>"),
        (&["--to", "8080"], "write HOST:PORT"),
        (&["--to", "a:1", "--listen", "8000"], "write HOST:PORT"),
        (&["--to", "a:1", "--path", "api"], "the path of http is \"api\": it must begin with /"),
        (&["--to", "a:1", "--cors", "a.example"], "give one such as https://example.com"),
        (&["--to", "a:1", "--max-batch", "0"], "write a whole number, 1 at least"),
        (&["--to", "a:1", "--pipelined", "0"], "write a whole number, 1 at least"),
        (&["--to", "a:1", "--max-connections", "0"], "write a whole number, 1 at least"),
        (&["--to", "a:1", "--timeout", "0"], "write more than 0; inf is no limit"),
        (&["--to", "a:1", "--con-max-retries", "0"], "con_max_retries must be 1 at least"),
        (&["--to", "a:1", "--listen-tls-cert", "a"], "--listen-tls-key <FILE>"),
        (&["--to", "a:1", "--listen-tls-key", "a"], "--listen-tls-cert <FILE>"),
        (&["--to", "a:1", "--tls-cert", "a", "--tls"], "--tls-key <FILE>"),
        (&["--to", "a:1", "--tls", "--tls-ca", "a"], "cannot be used with"),
        (&["--to", "a:1", "--tls-ca", "certs/none"], "cannot read certificate certs/none"),
        (&["--to", "unix:/a", "--tls"], "give tls_self_signed"),
        (&["--to", "a:1", "--max-depth", "1025"], "max_depth must be 1024 at most"),
        (&["--to", "a:1", "--encrypt"], "--encrypt needs the secret"),
        (&["--to", "a:1", "--auth-secret-file", "certs/none"], "cannot read the secret"),
        (&["--to", "a:1", "--token-file", "certs/none"], "tokens in certs/none: No such file"),
        (&["--to", "a:1", "--token-file", empty.path()], "there are no tokens"),
        (
            &["--to", "a:1", "--listen-tls-cert", "certs/none", "--listen-tls-key", "certs/none"],
            "cannot read private key certs/none",
        ),
    ] {
        let listen = ["gateway", "--listen", "127.0.0.1:0"];
        let listen = if options.contains(&"--listen") { &listen[..1] } else { &listen };
        run(arrpc(&[listen, options].concat()), "").check(2, &[text]);
    }
    let server = start(echo());
    let addr = server.local_addr().to_string();
    let text = format!("arrpc: failed to listen on {addr}: Address already in use");
    run(arrpc(&["gateway", "--to", &addr, "--listen", &addr]), "").check(3, &[&text]);
}

#[test]
fn the_help_says_which_side_an_option_is_for() {
    let help = run(arrpc(&["gateway", "--help"]), "").stdout;
    let (first, rest) = help.split_once("\nHTTP:\n").expect("the one side");
    let (http, rest) = rest.split_once("\nMetrics:\n").expect("its metrics");
    let (_, rest) = rest.split_once("\nServer behind:\n").expect("the other side");
    let (behind, rest) = rest.split_once("\nCalls:\n").expect("what calls are");
    assert!(!first.contains("--timeout") && !rest.contains("Limits:"), "{help}");
    for option in ["--listen <", "--token-file <", "--listen-tls-cert <", "--message-timeout <"] {
        assert!(http.contains(option), "{option}: {help}");
    }
    for option in ["--to <", "--tls-ca <", "--encrypt", "--max-items <", "--tcp-keepalive <"] {
        assert!(behind.contains(option), "{option}: {help}");
    }
    assert!(rest.contains("\nExit codes:\n  0 "), "{help}");
}
