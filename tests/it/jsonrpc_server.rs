//! JSON-RPC 2.0 over HTTP: the specification's examples, what HTTP asks for, tokens, limits,
//! deadlines and a stop; called by raw sockets, curl, Python and Node.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrpc::{Context, Http, Router, RpcError, Server, ServerHandle, Tokens};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use smol::channel;

use crate::loopback::{HOST, cert, start};
use crate::metrics::alone;
use crate::raw::{End, PATIENCE, Raw};
use crate::specification::{self, specification};

pub(crate) fn serve(router: Router) -> ServerHandle {
    start(Server::with_handler(HOST, 0, router).http(0))
}

pub(crate) fn address(server: &ServerHandle) -> SocketAddr {
    server.http_addr().expect("it serves HTTP")
}

/// Sends a request of these bytes, and returns the whole response.
pub(crate) fn exchange(server: &ServerHandle, request: &[u8]) -> Response {
    let mut peer = Raw::connect(address(server));
    peer.send(request);
    Response::read(&mut peer.0)
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    #[track_caller]
    pub(crate) fn read(stream: &mut impl Read) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).expect("a response"), 1, "the response ended");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
        stream.read_exact(&mut body).expect("the body");
        Self { status, head, body: String::from_utf8(body).expect("text") }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    #[track_caller]
    pub(crate) fn data(&self) -> String {
        self.json()["error"]["data"].as_str().expect("it says what is wrong").to_owned()
    }
}

pub(crate) fn request(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub(crate) fn post(server: &ServerHandle, body: &str) -> Response {
    exchange(server, &request("", body))
}

#[test]
fn every_example_of_the_specification_gets_the_response_that_it_prints() {
    let server = serve(specification());
    specification::check(|sent| {
        let response = post(&server, sent);
        (response.status, response.body)
    });
}

#[test]
fn an_id_comes_back_as_it_was_written() {
    let server = serve(specification());
    for id in
        ["1", "-7", "1.50", "1e2", "\"\\u0061\"", "\"\"", "null", "123456789012345678901234567890"]
    {
        let sent = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"get_data"}}"#);
        let expected = format!(r#"{{"jsonrpc":"2.0","result":["hello",5],"id":{id}}}"#);
        assert_eq!(post(&server, &sent).body, expected);
    }
}

#[test]
fn errors_have_codes_and_say_what_is_wrong() {
    let router = specification()
        .method("fail", [], || Err::<(), _>(RpcError::with_code("own", "it failed")))
        .method("plain", [], || Err::<(), _>("it failed"))
        .method("panic", [], || -> u8 { panic!("not for others") })
        .method("never", [], async || std::future::pending::<()>().await)
        .access(|call| match call.method() {
            Some("update") => Err("not you".into()),
            _ => Ok(()),
        });
    let server = Server::with_handler(HOST, 0, router).http(0);
    let server = start(server.handler_timeout(Duration::from_millis(50)));
    for (call, expected) in [
        (
            r#""method": "subtract", "params": [1, "x"]"#,
            json!({"code": -32602, "message": "Invalid params", "data":
                "subtract(minuend: i64, subtrahend: i64): parameter subtrahend: \
                 expected i64, got the str \"x\""}),
        ),
        (
            r#""method": "substract""#,
            json!({"code": -32601, "message": "Method not found",
                "data": "there is no method \"substract\", is it \"subtract\"?"}),
        ),
        (
            r#""method": "fail""#,
            json!({"code": -32000, "message": "it failed", "data": {"code": "own"}}),
        ),
        (r#""method": "plain""#, json!({"code": -32000, "message": "it failed"})),
        (
            r#""method": "panic""#,
            json!({"code": -32603, "message": "Internal error",
                "data": "The handler failed, the server's log has the details"}),
        ),
        (
            r#""method": "never""#,
            json!({"code": -32002, "message": "Timeout",
                "data": "The handler took longer than 50ms (handler_timeout)"}),
        ),
        (
            r#""method": "update""#,
            json!({"code": -32001, "message": "Access denied", "data": "not you"}),
        ),
    ] {
        let response = post(&server, &format!(r#"{{"jsonrpc": "2.0", "id": 1, {call}}}"#));
        assert_eq!(response.json(), json!({"jsonrpc": "2.0", "error": expected, "id": 1}));
    }
}

#[test]
fn what_http_gets_wrong_is_told_in_json() {
    let server =
        start(Server::with_handler(HOST, 0, specification()).http(0).max_message_bytes(100));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#;
    let large = "x".repeat(101);
    for (sent, status, text) in [
        (
            "GET /other HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            404,
            "there is nothing here, calls go to /api",
        ),
        ("PUT /api HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 405, "send calls with POST"),
        ("OPTIONS /api HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 405, "send calls with POST"),
        (
            format!(
                "POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{call}",
                call.len()
            ),
            415,
            "send calls with the header Content-Type: application/json",
        ),
        (
            format!(
                "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n\
                 Content-Length: {}\r\n\r\n{call}",
                call.len()
            ),
            415,
            "send calls with the header Content-Type: application/json",
        ),
        (
            String::from_utf8(request("", &large)).expect("text"),
            413,
            "the body is larger than 100 bytes (max_message_bytes)",
        ),
        (
            format!(
                "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json; charset=utf-8\r\n\
                 Transfer-Encoding: chunked\r\n\r\n65\r\n{large}\r\n0\r\n\r\n"
            ),
            413,
            "the body is larger than 100 bytes (max_message_bytes)",
        ),
        (
            "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\nx\r\n"
                .to_owned(),
            400,
            "the body ended before its end",
        ),
    ] {
        let response = exchange(&server, sent.as_bytes());
        assert_eq!((response.status, response.data().as_str()), (status, text), "{sent}");
        assert!(response.head.contains("content-type: application/json"), "{}", response.head);
    }
    let page = exchange(&server, b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/html"), "{}", page.head);
    assert!(page.body.contains("curl http://HOST:PORT/api"), "{}", page.body);
}

#[test]
fn a_body_is_json_by_each_of_its_names() {
    let server = serve(specification());
    let sent = request("", r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#);
    let sent = String::from_utf8(sent).expect("text");
    for kind in ["application/json-rpc", "application/jsonrequest", "Application/JSON;charset=x"] {
        let sent = sent.replace("application/json", kind);
        assert_eq!(exchange(&server, sent.as_bytes()).status, 200, "{kind}");
    }
}

#[test]
fn the_page_may_do_nothing_and_has_the_scheme_of_the_server() {
    let server = Server::with_handler(HOST, 0, specification())
        .http(Http::new(0).path("/it's"))
        .tls(cert("server.crt"), cert("server.key"));
    let server = start(server);
    let url = format!("https://localhost:{}/it's", address(&server).port());
    let output = std::process::Command::new("curl")
        .args(["-sSi", "--cacert", &cert("ca.crt"), &url])
        .output()
        .expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("<pre>curl https://HOST:PORT/it&#39;s \\\n"), "{text}");
    let style = text.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next());
    let hash = BASE64_STANDARD.encode(Sha256::digest(style.expect("a style")));
    let policy = format!(
        "\r\ncontent-security-policy: default-src 'none'; style-src 'sha256-{hash}'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
    );
    assert!(text.contains(&policy), "{policy}{text}");
}

#[test]
fn a_connection_is_kept_for_further_calls_and_chunks_make_a_body() {
    let server = serve(specification());
    let mut peer = Raw::connect(address(&server));
    for id in 0..3 {
        let call = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"get_data"}}"#);
        peer.send(&request("", &call));
        assert_eq!(Response::read(&mut peer.0).json()["id"], json!(id));
    }
    let (first, second) = (r#"{"jsonrpc":"2.0","id":7,"#, r#""method":"get_data"}"#);
    peer.send(
        format!(
            "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
            first.len(),
            second.len()
        )
        .as_bytes(),
    );
    assert_eq!(Response::read(&mut peer.0).json()["id"], json!(7));
}

#[test]
fn the_calls_of_a_batch_run_at_once_and_are_answered_in_order() {
    let (gate, opened) = channel::bounded::<()>(1);
    let waiting = Arc::new(AtomicUsize::new(0));
    let count = waiting.clone();
    let router = Router::new().method("wait", ["number"], move |number: usize| {
        let (opened, count, gate) = (opened.clone(), count.clone(), gate.clone());
        async move {
            // The last of them lets all go on, so they must all be there.
            if count.fetch_add(1, Ordering::SeqCst) == 9 {
                gate.close();
            }
            let _ = opened.recv().await;
            number
        }
    });
    let server = serve(router);
    let calls: Vec<_> = (0..10)
        .map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "wait", "params": [id]}))
        .collect();
    let response = post(&server, &json!(calls).to_string()).json();
    let ids = response.as_array().expect("a batch").iter().map(|one| one["result"].as_i64());
    assert_eq!(ids.collect::<Vec<_>>(), (0..10).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_batch_and_its_values_have_limits() {
    let http = Http::new(0).max_batch(3);
    let server = start(Server::with_handler(HOST, 0, specification()).http(http).max_items(100));
    let calls = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    assert_eq!(post(&server, &calls(3)).json().as_array().map(Vec::len), Some(3));
    let text = "the batch has 4 calls, and may have 3 (max_batch)";
    assert_eq!(post(&server, &calls(4)).data(), text);
    let many = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"sum","params":{}}}"#, calls(200));
    assert_eq!(post(&server, &many).data(), "the body has more than 100 values (max_items)");
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let server = serve(specification());
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"sum","params":{deep}}}"#);
    assert_eq!(post(&server, &deep).json()["error"]["code"], json!(-32602));
}

#[test]
fn a_handler_that_is_no_router_gets_the_call_as_a_map() {
    let server = start(Server::new(HOST, 0, |message| message).http(0));
    let response =
        post(&server, r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"$$bin":"AA=="}}"#);
    assert_eq!(response.json()["result"], json!({"method": "a", "params": {"$$bin": "AA=="}}));
    let with_token = request("X-Api-Token: t\r\n", r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#);
    let response = exchange(&server, &with_token);
    assert_eq!(response.json()["result"], json!({"method": "a", "token": "t"}));
    let raw = Server::raw(HOST, 0, |message, reply| reply.write_bytes(message.bytes()));
    let raw = start(raw.http(0));
    let response = post(&raw, r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[1.5]}"#);
    assert_eq!(response.json()["result"], json!({"method": "a", "params": [1.5]}));
}

#[test]
fn a_token_may_stand_in_three_places_and_opens_what_is_private() {
    let whoami = |context: Context| context.identity().map(str::to_owned);
    let router = Router::new().method("public", [], whoami).method("private", [], whoami);
    let server = Server::with_handler(HOST, 0, router.private("private")).http(0);
    let server = start(server.tokens(Tokens::new([("anna", "a-token")])));
    let call = |method: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
    for header in [
        "Authorization: Bearer a-token\r\n",
        "authorization: bearer a-token\r\n",
        "X-Api-Token: a-token\r\n",
        "Cookie: theme=dark; api_token=a-token\r\n",
    ] {
        let response = exchange(&server, &request(header, &call("private")));
        assert_eq!(response.json()["result"], json!("anna"), "{header}");
    }
    for header in ["", "Authorization: Basic a-token\r\n", "Cookie: token=a-token\r\n"] {
        let response = exchange(&server, &request(header, &call("private")));
        assert_eq!(response.json()["error"]["code"], json!(-32001), "{header}");
        let response = exchange(&server, &request(header, &call("public")));
        assert_eq!(response.json()["result"], Json::Null, "{header}");
    }
    let response = exchange(&server, &request("X-Api-Token: b\r\n", &call("public")));
    assert_eq!(response.json()["error"]["code"], json!(-32001));
    assert_eq!(response.data(), "the server knows no such token");
}

#[test]
fn pages_of_other_origins_may_call_only_if_they_are_allowed() {
    let http = || Http::new(0).cors("https://a.example");
    let server = start(Server::new(HOST, 0, |_| 1).http(http()));
    let preflight = |origin: &str| {
        let sent = format!(
            "OPTIONS /api HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\n\r\n"
        );
        exchange(&server, sent.as_bytes())
    };
    let allowed = preflight("https://a.example");
    assert_eq!(allowed.status, 204);
    assert!(allowed.head.contains("access-control-allow-origin: https://a.example"));
    assert!(allowed.head.contains("access-control-allow-headers: content-type"));
    assert!(!preflight("https://b.example").head.contains("access-control-allow-origin"));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#;
    let response = exchange(&server, &request("Origin: https://a.example\r\n", call));
    assert!(response.head.contains("access-control-allow-origin: https://a.example"));
    assert!(response.head.contains("vary: origin"));
    let closed = start(Server::new(HOST, 0, |_| 1).http(0));
    let response = exchange(&closed, &request("Origin: https://a.example\r\n", call));
    assert!(!response.head.contains("access-control"), "{}", response.head);
}

#[test]
fn slow_heads_and_bodies_are_cut_while_others_are_served() {
    let server = Server::with_handler(HOST, 0, specification()).http(0);
    let server = start(server.message_timeout(Duration::from_secs(1)));
    let mut head = Raw::connect(address(&server));
    head.send(b"POST /api HTTP/1.1\r\nHost:");
    let mut body = Raw::connect(address(&server));
    body.send(&request("", r#"{"jsonrpc":"2.0"}"#)[..90]);
    let response = Response::read(&mut body.0);
    assert_eq!(response.status, 408);
    assert_eq!(response.data(), "the body did not arrive within 1s (message_timeout)");
    let mut rest = Vec::new();
    let _ = head.0.read_to_end(&mut rest); // to its end, by whichever way
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    assert_eq!(post(&server, r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#).status, 200);
}

#[test]
fn a_peer_that_takes_no_response_is_cut_off() {
    let large = "x".repeat(8 << 20);
    let server = Server::new(HOST, 0, move |_| large.clone()).http(0);
    let server = start(server.write_timeout(Duration::from_millis(100)));
    let mut peer = Raw::connect(address(&server));
    let call = request("", r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#);
    let begin = Instant::now();
    while peer.0.write_all(&call).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it is not cut off");
    }
}

/// What has counted the requests of the handler [`counted`], by the text of a label; 0 if none.
fn count(metric: &str, label: &str) -> f64 {
    let exposition = arrpc::metrics::render();
    let series = exposition.lines().filter(|line| {
        line.starts_with(&format!("{metric}{{"))
            && line.contains("handler_func=\"counted\"")
            && line.contains(label)
    });
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn counted(_: arrpc::Value) -> String {
    "x".repeat(8 << 20)
}

#[test]
fn what_is_refused_is_counted_by_its_limit_and_its_reason() {
    let server = || Server::new(HOST, 0, counted).metrics_host(HOST).metrics_port(0);
    let http = server().http(Http::new(0).max_batch(1)).max_items(10).max_message_bytes(1000);
    let http = start(http.refuse_excess_connections());
    let large = "x".repeat(1001);
    let many = vec!["1"; 100].join(",");
    let mut requests = 0.0;
    for (sent, limit, reason) in [
        (request("", "{"), None, "Parse error"),
        (request("", "[]"), None, "Invalid Request"),
        (request("", "[1]"), None, "Invalid Request"),
        (b"PUT /api HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), None, "Invalid Request"),
        (
            request("", r#"{"jsonrpc":"2.0","method":"a","params":{"a":1,"a":1}}"#),
            None,
            "Invalid params",
        ),
        (request("", "[1,1]"), Some("max_batch"), "The batch has too many calls (max_batch)"),
        (request("", &many), Some("max_items"), "Message has too many values (max_items)"),
        (request("", &large), Some("max_message_bytes"), "Message is too long (max_message_bytes)"),
    ] {
        let labels =
            [limit.map(|limit| format!("limit=\"{limit}\"")), Some(format!("\"{reason}\""))];
        let count_all = || {
            let [limit, reason] = &labels;
            let of_limit = limit.as_ref().map(|limit| count("arrpc_server_refusals_total", limit));
            let reason = reason.as_deref().unwrap_or_default();
            (of_limit, count("arrpc_server_errors_total", reason))
        };
        let (of_limit, of_reason) = count_all();
        exchange(&http, &sent);
        let expected = (of_limit.map(|before| before + 1.0), of_reason + 1.0);
        assert_eq!(count_all(), expected, "{reason}");
        requests += 1.0;
        assert_eq!(count("arrpc_server_req_seconds_count", ""), requests, "{reason}");
    }

    let refusals =
        |limit: &str| count("arrpc_server_refusals_total", &format!("limit=\"{limit}\""));
    exchange(&start(server().http(0).max_memory_bytes(1)), &request("", &" ".repeat(10_000)));
    assert_eq!(refusals("max_memory_bytes"), 1.0);
    let mut foreign = Raw::connect(address(&http));
    foreign.send(b"\x01\x02\r\n\r\n");
    foreign.rest();
    let slow = start(server().http(0).message_timeout(Duration::from_secs(1)));
    let mut slow = [(); 3].map(|()| Raw::connect(address(&slow)));
    slow[1].send(b"POST /api HT");
    slow[2].send(request("", "{}").strip_suffix(b"}").expect("it ends so"));
    for peer in &mut slow {
        peer.rest();
    }
    assert_eq!(refusals("message_timeout"), 2.0, "a head and a body, but not silence");
    let soon = Duration::from_millis(50);
    let idle = start(server().http(0).idle_timeout(soon));
    Raw::connect(address(&idle)).rest();
    assert_eq!(refusals("idle_timeout"), 1.0);
    let unread = start(server().http(0).write_timeout(soon));
    let mut peer = Raw::connect(address(&unread));
    let begin = Instant::now();
    let call = request("", r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#);
    while peer.0.write_all(&call).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "it is not cut off");
    }
    for limit in ["write_timeout", "protocol"] {
        while refusals(limit) != 1.0 {
            assert!(begin.elapsed() < PATIENCE, "{limit} is counted {} times", refusals(limit));
        }
    }
}

#[test]
fn a_handler_goes_on_when_its_caller_has_gone_and_a_stop_waits_for_it() {
    let (started_sender, started) = channel::bounded(1);
    let (gate, opened) = channel::bounded::<()>(1);
    let (done_sender, done) = channel::bounded(1);
    let (gone_sender, gone) = channel::unbounded();
    let router = Router::new().method("work", [], move || {
        let (started, opened, done) = (started_sender.clone(), opened.clone(), done_sender.clone());
        async move {
            let _ = started.send(()).await;
            let _ = opened.recv().await;
            let _ = done.send(()).await;
            "done"
        }
    });
    let server = Server::with_handler(HOST, 0, router).http(0);
    let server = start(server.on_disconnect(move |_| {
        let _ = gone_sender.try_send(());
    }));
    let call = request("", r#"{"jsonrpc":"2.0","id":1,"method":"work"}"#);
    let mut peer = Raw::connect(address(&server));
    peer.send(&call);
    started.recv_blocking().expect("it runs");
    drop(peer);
    gone.recv_blocking().expect("it is noticed");
    let mut other = Raw::connect(address(&server));
    other.send(&call);
    started.recv_blocking().expect("it runs");
    server.stop();
    gate.send_blocking(()).expect("it waits");
    gate.send_blocking(()).expect("it waits");
    for _ in 0..2 {
        done.recv_blocking().expect("it comes to its end");
    }
    assert_eq!(Response::read(&mut other.0).json()["result"], json!("done"));
    server.join();
}

#[test]
fn messages_of_callers_that_have_gone_still_count_as_memory() {
    const MIB: usize = 1 << 20;
    let (started_sender, started) = channel::unbounded();
    let (gate, opened) = channel::bounded::<()>(1);
    let (gone_sender, gone) = channel::unbounded();
    let router = Router::new().method("wait", ["text"], move |text: String| {
        let (started, opened) = (started_sender.clone(), opened.clone());
        async move {
            let _ = started.send(()).await;
            let _ = opened.recv().await;
            text.len()
        }
    });
    let server = Server::with_handler(HOST, 0, router).http(0).max_memory_bytes(26 * MIB);
    let server = start(server.on_disconnect(move |_| {
        let _ = gone_sender.try_send(());
    }));
    let call = |bytes: usize| {
        let text = "x".repeat(bytes);
        request("", &format!(r#"{{"jsonrpc":"2.0","id":1,"method":"wait","params":["{text}"]}}"#))
    };
    for _ in 0..3 {
        let mut peer = Raw::connect(address(&server));
        peer.send(&call(4 * MIB));
        started.recv_blocking().expect("it runs");
        drop(peer);
        gone.recv_blocking().expect("it is noticed");
    }
    let refused = exchange(&server, &call(4 * MIB)).json();
    assert_eq!(refused["error"]["code"], json!(-32003), "{refused}");
    drop(gate); // all of them go on
    let begin = Instant::now();
    while exchange(&server, &call(4 * MIB)).json()["result"] != json!(4 * MIB) {
        assert!(begin.elapsed() < PATIENCE, "the memory is not given back");
    }
}

#[test]
fn an_idle_connection_does_not_hold_up_a_stop() {
    let server = serve(specification());
    let mut idle = Raw::connect(address(&server));
    idle.send(&request("", r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#));
    assert_eq!(Response::read(&mut idle.0).status, 200);
    let begin = Instant::now();
    server.stop();
    server.join();
    assert!(begin.elapsed() < Duration::from_secs(9), "not the drain timeout");
}

#[test]
fn hooks_and_state_are_those_of_every_connection() {
    #[derive(Default)]
    struct Count(AtomicUsize);
    let (gone_sender, gone) = channel::unbounded();
    let count = |context: Context| {
        context.state().map_or(0, |Count(count)| count.fetch_add(1, Ordering::SeqCst) + 1)
    };
    let server = Server::with_handler(HOST, 0, Router::new().method("count", [], count))
        .http(0)
        .on_connect(|_| Count::default())
        .on_disconnect(move |context| {
            let _ = gone_sender.try_send(context.peer_addr());
        });
    let server = start(server);
    let mut peer = Raw::connect(address(&server));
    let call = request("", r#"{"jsonrpc":"2.0","id":1,"method":"count"}"#);
    for number in 1..4 {
        peer.send(&call);
        assert_eq!(Response::read(&mut peer.0).json()["result"], json!(number));
    }
    let local = peer.0.local_addr().expect("a socket");
    drop(peer);
    assert_eq!(gone.recv_blocking(), Ok(Some(local)));
}

#[test]
fn options_that_cannot_work_are_an_error_at_the_start() {
    let server = || Server::new(HOST, 0, |_| 1);
    for (server, expected) in [
        (
            server().http(Http::new(0).path("api")),
            "the path of http is \"api\": it must begin with /, write \"/api\"",
        ),
        (
            server().http(Http::new(0).path("/api?v=1")),
            "the path of http is \"/api?v=1\": a path ends before ? and #, write \"/api\"",
        ),
        (server().http(Http::new(0).max_batch(0)), "max_batch of http must be 1 at least"),
        (
            server().http(Http::new(0).cors("a.example")),
            "the origin \"a.example\" of cors is none: give one such as https://example.com, \
             without a path, or *",
        ),
        (
            server().http(Http::new(0).cors("https://é.example")),
            "the origin \"https://é.example\" of cors is none that a browser sends, which has \
             letters beyond ASCII as xn--..",
        ),
        (
            server().http(Http::new(0).cors("https://A.example/")),
            "the origin \"https://A.example/\" of cors is none that a browser sends, which has \
             small letters, no port that is the scheme's own, and nothing behind the host and port: \
             write \"https://a.example\"",
        ),
        (
            server().http(0).auth_secret("secret"),
            "auth_secret protects messages, and none of what comes over http: give tokens and \
             make methods private that need one, or leave one of the two out",
        ),
    ] {
        let error = server.start_background().map(|_| ()).expect_err("a mistake").to_string();
        assert_eq!(error, expected);
    }
    for http in [Http::new(8000), Http::new(0).host(HOST)] {
        let error = server().http(http).http_only().start_background();
        let text = "http_only takes the host and port of the server: leave those of http out";
        assert_eq!(error.map(|_| ()).expect_err("a mistake").to_string(), text);
    }
    assert!(start(server()).http_addr().is_none());
}

#[test]
fn the_options_of_http_have_the_defaults_that_their_docs_state() {
    let shown = format!("{:?}", Http::new(7));
    let expected = "Http { host: None, port: 7, path: \"/api\", cors: [], max_batch: 1000 }";
    assert_eq!(shown, expected);
    assert_eq!(format!("{:?}", Http::from(7)), expected);
}

#[test]
fn ten_thousand_malformed_bodies_get_an_error_each() {
    let server = serve(specification());
    let seeds = [
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}"#,
        r#"[{"jsonrpc": "2.0", "method": "sum", "params": {"a": 1, "b": 2, "c": 4}, "id": "1"}]"#,
    ];
    let seed = random_seed();
    let mut random = Random(seed);
    let mut peer = Raw::connect(address(&server));
    let mut codes = BTreeMap::<i64, usize>::new();
    for number in 0..10_000 {
        let mut body = seeds[random.below(seeds.len())].as_bytes().to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(body.len());
            match random.below(3) {
                0 => body[at] = random.below(256) as u8,
                1 if body.len() > 1 => drop(body.remove(at)),
                _ => body.truncate(at.max(1)),
            }
        }
        let mut sent = format!(
            "POST /api HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        sent.extend_from_slice(&body);
        peer.send(&sent);
        let response = Response::read(&mut peer.0);
        let told = format!("seed {seed}, {number}: {:?}", String::from_utf8_lossy(&body));
        if response.status == 204 {
            // Only what has lost its id, and is a request otherwise.
            let sent: Json = serde_json::from_slice(&body).expect("JSON, or there is an error");
            let one = if sent.is_array() { &sent[0] } else { &sent };
            assert!(one.get("id").is_none() && one["method"].is_string(), "{told}");
            continue;
        }
        assert_eq!(response.status, 200, "{told}");
        let json = response.json();
        let is_json = serde_json::from_slice::<Json>(&body).is_ok();
        let code = check_response(if json.is_array() { &json[0] } else { &json }, &told);
        assert_eq!(code == Some(-32700), !is_json, "{told}");
        *codes.entry(code.unwrap_or_default()).or_default() += 1;
    }
    // Each kind of error is among them.
    for code in [-32700, -32600, -32601, -32602] {
        assert!(codes.get(&code).is_some_and(|count| *count > 10), "seed {seed}: {codes:?}");
    }
}

/// Looks whether it is a response as the specification has them; returns its error's code.
#[track_caller]
fn check_response(response: &Json, told: &str) -> Option<i64> {
    assert_eq!(response["jsonrpc"], json!("2.0"), "{told}");
    assert!(response.get("id").is_some(), "{told}");
    assert_eq!(response.as_object().map(|members| members.len()), Some(3), "{told}");
    let Some(error) = response.get("error") else {
        assert!(response.get("result").is_some(), "{told}");
        return None;
    };
    assert!(error["message"].is_string(), "{told}");
    Some(error["code"].as_i64().unwrap_or_else(|| panic!("{told}")))
}

#[test]
fn ten_thousand_malformed_heads_are_refused_or_end_their_connection() {
    let server = serve(specification());
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#;
    let good = request("", call);
    let head = good.len() - call.len();
    let seed = random_seed();
    let mut random = Random(seed);
    let mut refused = 0;
    for number in 0..10_000 {
        let mut sent = good.clone();
        for _ in 0..=random.below(4) {
            sent[random.below(head)] = random.below(256) as u8;
        }
        let told = format!("seed {seed}, {number}: {}", sent.escape_ascii());
        let mut peer = Raw::connect(address(&server));
        peer.send(&sent);
        peer.finish(); // so that nothing waits for the rest of what is not whole
        let (rest, end) = peer.rest();
        assert_eq!(end, End::Closed, "{told}");
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            let response = Response::read(&mut rest);
            match response.status {
                // The change makes no difference, or it is another method, path or type.
                200 if response.head.contains("text/html") => {}
                200 => _ = check_response(&response.json(), &told),
                204 => {}
                404 | 405 | 415 => _ = check_response(&response.json(), &told),
                // What was no head, or what the body's wrong length has left over.
                400 | 408 | 413 | 414 | 431 => {
                    assert_eq!(rest, b"", "it goes on behind {}: {told}", response.status);
                    refused += 1;
                }
                status => panic!("{status}: {told}"),
            }
        }
    }
    assert!(refused > 1000, "seed {seed}: only {refused} were refused");
    assert_eq!(exchange(&server, &good).json()["result"], json!(["hello", 5]), "seed {seed}");
}

fn random_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_nanos() as u64 | 1)
}

/// Xorshift, as good as it needs to be.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[cfg(unix)]
#[test]
fn two_ports_together_have_no_more_connections_than_files() {
    alone("jsonrpc_server::two_ports_together_have_no_more_connections_than_files", || {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let files = getrlimit(Resource::Nofile);
        // 100 are for the process, 4 for each thread, and 64 of each port for those refused.
        setrlimit(Resource::Nofile, Rlimit { current: Some(240), ..files }).expect("it is lower");
        let server = Server::with_handler(HOST, 0, specification()).http(0).threads(1);
        let server = start(server.refuse_excess_connections());
        setrlimit(Resource::Nofile, files).expect("as it was");
        let connect =
            |address: SocketAddr| -> Vec<_> { (0..4).map(|_| Raw::connect(address)).collect() };
        let _messages = connect(server.local_addr());
        Raw::connect(server.local_addr()).expect_text(
            "arrpc.error.RpcException: The server has too many connections (max_connections 4)",
        );
        let _requests = connect(address(&server));
        let refused = Response::read(&mut Raw::connect(address(&server)).0);
        assert_eq!(refused.data(), "The server has too many connections (max_connections 4)");
    });
}

#[test]
fn a_server_may_have_http_alone() {
    let server = Server::with_handler(HOST, 0, specification()).http_only();
    let server = start(server.http(Http::new(0).path("/rpc")));
    assert_eq!(server.http_addr(), Some(server.local_addr()));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#;
    assert_eq!(post(&server, call).status, 404, "the path is another one");
    let sent = String::from_utf8(request("", call)).expect("text").replace("/api", "/rpc");
    assert_eq!(exchange(&server, sent.as_bytes()).json()["result"], json!(["hello", 5]));
}

#[test]
fn it_is_served_over_tls() {
    let server = Server::with_handler(HOST, 0, specification())
        .http(0)
        .tls(cert("server.crt"), cert("server.key"));
    let server = start(server);
    let url = format!("https://localhost:{}/api", address(&server).port());
    let output = std::process::Command::new("curl")
        .args(["-sS", "--cacert", &cert("ca.crt"), "-H", "Content-Type: application/json", "-d"])
        .args([r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#, &url])
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, r#"{"jsonrpc":"2.0","result":["hello",5],"id":1}"#, "{output:?}");
}
