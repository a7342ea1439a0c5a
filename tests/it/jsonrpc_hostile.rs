//! Bytes that no honest client sends to a server's HTTP port: requests that two readers could take
//! for different ones, heads without end, other protocols, and responses that nobody takes.

use std::io::Write;
use std::time::Duration;

use arrpc::{Router, Server, ServerHandle};
use serde_json::json;
use socket2::SockRef;

use crate::jsonrpc_server::{Response, address, exchange, request, serve};
use crate::loopback::{HOST, start};
use crate::raw::{End, Raw};
use crate::specification::specification;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#;

/// What comes back for `sent`, up to the end of the connection, as statuses.
#[track_caller]
fn statuses(server: &ServerHandle, sent: &[u8]) -> Vec<u16> {
    let mut peer = Raw::connect(address(server));
    peer.send(sent);
    let (rest, end) = peer.rest();
    assert_eq!(end, End::Closed, "{}", rest.escape_ascii());
    let mut rest = rest.as_slice();
    let mut statuses = Vec::new();
    while !rest.is_empty() {
        statuses.push(Response::read(&mut rest).status);
    }
    statuses
}

/// A request with a body of the right length, and these lines in its head.
fn head(lines: &str) -> String {
    format!("POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lines}\r\n")
}

/// A request in the place where one would be that is smuggled in.
fn smuggled() -> String {
    String::from_utf8(request("Connection: close\r\n", CALL)).expect("text")
}

#[test]
fn a_request_that_two_readers_may_take_for_two_ends_its_connection() {
    let server = serve(specification());
    let length = CALL.len();
    let chunk = format!("{length:x}\r\n{CALL}\r\n0\r\n\r\n");
    for (lines, body, expected) in [
        // Both lengths: chunks count, and nothing behind them is read.
        ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n".to_owned(), &chunk, &[200][..]),
        ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".to_owned(), &chunk, &[200]),
        ("Transfer-Encoding: chunked\r\nContent-Length: x\r\n".to_owned(), &chunk, &[200]),
        // Two lengths, or none that is one.
        (format!("Content-Length: {length}\r\nContent-Length: 4\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: 4\r\nContent-Length: {length}\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: {length}, 4\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: +{length}\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: -{length}\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: 0x{length:x}\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: {length} 4\r\n"), &CALL.to_owned(), &[400]),
        ("Content-Length: 99999999999999999999999\r\n".to_owned(), &CALL.to_owned(), &[400]),
        ("Content-Length:\r\n".to_owned(), &CALL.to_owned(), &[400]),
        // Encodings whose end is not known.
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), &chunk, &[400]),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), &chunk, &[400]),
        ("Transfer-Encoding: gzip\r\n".to_owned(), &chunk, &[400]),
        ("Transfer-Encoding:\r\n chunked\r\n".to_owned(), &chunk, &[400]),
        // Lines that are none.
        (format!("Content-Length : {length}\r\n"), &CALL.to_owned(), &[400]),
        (format!(" Content-Length: {length}\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: {length}\r\nX: a\r\n b\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: {length}\r\nno colon\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: {length}\r\n: none\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: {length}\r\nX: a\0b\r\n"), &CALL.to_owned(), &[400]),
        (format!("Content-Length: {length}\r\nX: a\rb\r\n"), &CALL.to_owned(), &[400]),
    ] {
        let sent = head(&lines) + body + &smuggled();
        assert_eq!(statuses(&server, sent.as_bytes()), expected, "{sent:?}");
    }
}

#[test]
fn a_body_that_nobody_reads_is_no_request() {
    let server = serve(specification());
    let hidden = "PUT /hidden HTTP/1.1\r\nHost: x\r\n\r\n"; // it would be a 404
    let length = hidden.len();
    for (line, status) in [
        ("GET /api HTTP/1.1\r\n", 200),
        ("HEAD /api HTTP/1.1\r\n", 200),
        ("PUT /api HTTP/1.1\r\n", 405),
        ("OPTIONS /api HTTP/1.1\r\nOrigin: https://a.example\r\n", 204),
        ("POST /api HTTP/1.1\r\nContent-Type: text/plain\r\n", 415),
    ] {
        for (lines, body) in [
            (format!("Content-Length: {length}"), hidden.to_owned()),
            (
                "Transfer-Encoding: chunked".to_owned(),
                format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n"),
            ),
        ] {
            let head = format!("{line}Host: x\r\n{lines}\r\n\r\n");
            // A body that is there is passed over, one that is not ends the connection.
            let mut peer = Raw::connect(address(&server));
            peer.send((head.clone() + &body + &smuggled()).as_bytes());
            let (all, _) = peer.rest();
            let all = String::from_utf8(all).expect("text");
            assert!(all.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {all}");
            assert!(!all.contains("404"), "{head}: {all}");
            let mut peer = Raw::connect(address(&server));
            peer.send(head.as_bytes());
            peer.expect(format!("HTTP/1.1 {status} ").as_bytes());
            let _ = peer.0.write_all((body + &smuggled()).as_bytes()); // fails if it has ended
            let (rest, _) = peer.rest();
            assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "{head}");
        }
    }
}

#[test]
fn chunks_that_are_none_end_the_connection() {
    let server = serve(specification());
    let length = CALL.len();
    for body in [
        format!("{length:x}\n{CALL}\n0\n\n"),
        format!("0x{length:x}\r\n{CALL}\r\n0\r\n\r\n"),
        format!("-1\r\n{CALL}\r\n0\r\n\r\n"),
        format!("\r\n{CALL}\r\n0\r\n\r\n"),
        format!("fffffffffffffffff\r\n{CALL}\r\n0\r\n\r\n"),
        format!("{length:x}\r\n{CALL}x\r\n0\r\n\r\n"),
        format!("{length:x};{}\r\n{CALL}\r\n0\r\n\r\n", "x".repeat(100_000)),
        format!("{length:x}\r\n{CALL}\r\n0\r\n{}\r\n", "x: y\r\n".repeat(100_000)),
    ] {
        let sent = head("Transfer-Encoding: chunked\r\n") + &body + &smuggled();
        let shown = &sent[..sent.len().min(300)];
        assert_eq!(statuses(&server, sent.as_bytes()), [400], "{shown:?}");
    }
}

#[test]
fn lengths_that_agree_and_lines_that_end_in_a_bare_newline_are_one_request() {
    let server = serve(specification());
    let length = CALL.len();
    for sent in [
        head(&format!("Content-Length: {length}\r\nContent-Length: {length}\r\n")),
        head(&format!("Content-Length: {length}\r\n")).replace("\r\n", "\n"),
        format!("\r\n{}", head(&format!("Content-Length: {length}\r\n"))),
    ] {
        let sent = sent + CALL + &smuggled();
        assert_eq!(statuses(&server, sent.as_bytes()), [200, 200], "{sent:?}");
    }
}

#[test]
fn heads_have_a_size_and_a_number_of_lines() {
    let server = serve(specification());
    let with = |lines: String| [request(&lines, CALL), smuggled().into_bytes()].concat();
    let cookies = |count: usize| "Cookie: a=b; c=d\r\n".repeat(count);
    assert_eq!(statuses(&server, &with(cookies(90))), [200, 200]);
    assert_eq!(statuses(&server, &with(cookies(1000))), [431]);
    let large = |bytes: usize| format!("X: {}\r\n", "x".repeat(bytes));
    assert_eq!(statuses(&server, &with(large(60_000))), [200, 200]);
    assert_eq!(statuses(&server, &with(large(100_000))), [431]);
    let name = |bytes: usize| format!("{}: x\r\n", "x".repeat(bytes));
    assert_eq!(statuses(&server, &with(name(70_000))), [431]);
    let long = |bytes: usize| format!("GET /api?{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(bytes));
    assert_eq!(statuses(&server, long(65_530).as_bytes()), [431]);
    assert_eq!(statuses(&server, long(100_000).as_bytes()), [431]);
    let without_end = "x".repeat(1 << 20);
    assert_eq!(statuses(&server, without_end.as_bytes()), [431]);
}

#[test]
fn other_protocols_are_turned_away() {
    let server = serve(specification());
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    for (sent, expected) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..], &[][..]),
        (hello, &[400]),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", &[400]),
        (b"\x82\xa6method\xa1a\xa6params\x90", &[400]),
        (b"GET /api HTTP/0.9\r\nHost: x\r\n\r\n", &[400]),
        (b"GET /api HTTP/3.0\r\nHost: x\r\n\r\n", &[400]),
        (b"GET /api\r\n\r\n", &[400]),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"get_data\"}\n", &[400]),
    ] {
        assert_eq!(statuses(&server, sent), expected, "{}", sent.escape_ascii());
    }
    assert_eq!(exchange(&server, &request("", CALL)).status, 200);
}

#[test]
fn an_offer_to_change_the_protocol_is_not_taken() {
    let server = serve(specification());
    for lines in [
        "Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    ] {
        assert_eq!(statuses(&server, &request(lines, CALL)), [200], "{lines}");
    }
    let tunnel = b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n";
    assert_eq!(statuses(&server, tunnel), [404]);
    let root =
        start(Server::with_handler(HOST, 0, specification()).http(arrpc::Http::new(0).path("/")));
    assert!(statuses(&root, tunnel)[0] >= 400);
}

#[test]
fn a_target_may_have_any_form_and_a_page_no_body() {
    let server = serve(specification());
    for target in ["/api", "/api?a=b", "http://other.example/api", "http://x:1/api?#a"] {
        let sent = smuggled().replace("/api", target);
        assert_eq!(statuses(&server, sent.as_bytes()), [200], "{target}");
    }
    for target in ["/", "/api/", "//api", "/API", "/%61pi", "/x/../api", "*", "http://x", "/api%00"]
    {
        let sent = smuggled().replace("/api", target);
        let refused = statuses(&server, sent.as_bytes());
        assert!(matches!(refused[..], [404 | 400]), "{target}: {refused:?}");
    }
    let mut peer = Raw::connect(address(&server));
    peer.send(b"HEAD /api HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let (page, _) = peer.rest();
    let page = String::from_utf8(page).expect("text");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\n\r\n"), "{page}");
    assert_eq!(page.matches("\r\n\r\n").count(), 1, "{page}");
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let router = specification().method("later", ["number"], async |number: u64| {
        smol::future::yield_now().await;
        number
    });
    let server = serve(router);
    let mut peer = Raw::connect(address(&server));
    let mut sent = Vec::new();
    for id in 0..200 {
        let method = ["get_data", "later", "none"][id % 3];
        let params = json!([id]);
        let params = if method == "later" { &params } else { &json!([]) };
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        sent.extend(request("", &call.to_string()));
    }
    peer.send(&sent);
    for id in 0..200 {
        assert_eq!(Response::read(&mut peer.0).json()["id"], json!(id));
    }
}

#[test]
fn who_waits_to_go_on_is_told_to_and_is_cut_when_it_does_not() {
    let server = Server::with_handler(HOST, 0, specification()).http(0);
    let server = start(server.message_timeout(Duration::from_secs(1)).max_message_bytes(1000));
    let sent = head(&format!("Expect: 100-continue\r\nContent-Length: {}\r\n", CALL.len()));
    let mut good = Raw::connect(address(&server));
    good.send(sent.as_bytes());
    good.expect(b"HTTP/1.1 100 Continue\r\n\r\n");
    good.send(CALL.as_bytes());
    assert_eq!(Response::read(&mut good.0).json()["result"], json!(["hello", 5]));
    let mut silent = Raw::connect(address(&server));
    silent.send(sent.as_bytes());
    silent.expect(b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(Response::read(&mut silent.0).status, 408);
    silent.expect_end(End::Closed);
    let large = head("Expect: 100-continue\r\nContent-Length: 1001\r\n");
    assert_eq!(statuses(&server, large.as_bytes()), [413], "nobody waits for what is too large");
}

#[test]
fn who_sends_on_behind_a_refusal_still_gets_it() {
    let server = Server::with_handler(HOST, 0, specification()).http(0);
    let server = start(server.max_message_bytes(1000));
    for _ in 0..20 {
        let large = request("", &"x".repeat(256 << 10));
        assert_eq!(statuses(&server, &large), [413]);
        let malformed = [b"no request\r\n\r\n".to_vec(), vec![b'x'; 256 << 10]].concat();
        assert_eq!(statuses(&server, &malformed), [400]);
    }
}

#[test]
fn responses_that_nobody_takes_are_counted_as_memory() {
    const MIB: usize = 1 << 20;
    let router = Router::new().method("large", [], || "x".repeat(8 * MIB));
    let server = Server::with_handler(HOST, 0, router).http(0).max_memory_bytes(25 * MIB);
    let server = start(server.write_timeout(Duration::MAX));
    let call = request("", r#"{"jsonrpc":"2.0","id":1,"method":"large"}"#);
    let begin = || {
        let mut peer = Raw::connect(address(&server));
        SockRef::from(&peer.0).set_recv_buffer_size(64 * 1024).expect("a socket");
        peer.0.write_all(&call).expect("it reads");
        peer.expect(b"HTTP/1.1 ");
        peer
    };
    let waiting = [begin(), begin()];
    let refused = exchange(&server, &call);
    assert!(refused.body.len() < 1000, "it has memory for {} bytes", refused.body.len());
    assert_eq!(refused.json()["error"]["code"], json!(-32003), "{}", refused.body);
    assert_eq!(refused.json()["id"], json!(1));
    for mut peer in waiting {
        let mut all = &mut std::io::Read::chain(&b"HTTP/1.1 "[..], &mut peer.0);
        let taken = Response::read(&mut all);
        assert_eq!(taken.json()["result"].as_str().map(str::len), Some(8 * MIB));
    }
    assert_eq!(exchange(&server, &call).json()["result"].as_str().map(str::len), Some(8 * MIB));
}
