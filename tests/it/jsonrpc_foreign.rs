//! JSON-RPC over HTTP as clients of others speak it: curl, `requests` and `jsonrpclib` of Python,
//! `fetch` and `jayson` of Node.

use std::process::Command;

use arrpc::{Context, Router, RpcError, Server, ServerHandle, Tokens, Value};

use crate::jsonrpc_server::{address, serve};
use crate::loopback::{HOST, start};
use crate::other_languages::node_command;
use crate::peers::{self, RUN_LIMIT};
use crate::python;
use crate::specification::specification;

const TOKEN: &str = "1b671a64-40d5-491e-99b0-da01ff1f3341";

/// What all of them call.
fn service() -> ServerHandle {
    let router = Router::new()
        .method("plus", ["a", "b"], |a: i64, b: i64| a + b)
        .method("echo", ["value"], |value: Value| value)
        .method("deep.name", ["name"], |name: String| format!("hello {name}"))
        .method("fail", [], || Err::<(), _>(RpcError::with_code("own", "it failed ✓")))
        .method("private", [], |context: Context| context.identity().map(str::to_owned))
        .private("private");
    let server = Server::with_handler(HOST, 0, router).http(0);
    start(server.tokens(Tokens::new([("anna", TOKEN)])))
}

fn url(server: &ServerHandle) -> String {
    format!("http://{}/api", address(server))
}

/// What curl prints.
#[track_caller]
fn curl(args: &[&str], input: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*"]).args(args);
    peers::output(curl, input, RUN_LIMIT).unwrap_or_else(|error| panic!("{error}"))
}

const JSON: [&str; 2] = ["-H", "Content-Type: application/json"];
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"get_data"}"#;
const RESPONSE: &str = r#"{"jsonrpc":"2.0","result":["hello",5],"id":1}"#;

#[test]
fn curl_calls_one_by_one_and_in_batches() {
    let server = serve(specification());
    let url = url(&server);
    let post = |options: &[&str], body: &str| {
        let status = ["-w", " %{http_code} %{num_connects}\n"];
        curl(&[&JSON, &status, options, &["-d", body, &url]].concat(), "")
    };
    assert_eq!(post(&[], CALL), format!("{RESPONSE} 200 1\n"));
    assert_eq!(post(&["--http1.0"], CALL), format!("{RESPONSE} 200 1\n"));
    assert_eq!(post(&["--http2"], CALL), format!("{RESPONSE} 200 1\n"), "an upgrade is not taken");
    let chunked = ["-H", "Transfer-Encoding: chunked"];
    assert_eq!(post(&chunked, CALL), format!("{RESPONSE} 200 1\n"));
    let batch = format!(r#"[{CALL},{{"jsonrpc":"2.0","method":"get_data"}},{CALL}]"#);
    assert_eq!(post(&[], &batch), format!("[{RESPONSE},{RESPONSE}] 200 1\n"));
    assert_eq!(post(&[], r#"{"jsonrpc":"2.0","method":"get_data"}"#), " 204 1\n");
    let again =
        [&["-d", CALL, &url, "--next", "-sS"], &JSON[..], &["-w", " %{num_connects}"]].concat();
    assert_eq!(
        post(&again, CALL),
        format!("{RESPONSE} 200 1\n{RESPONSE} 0"),
        "one connection for both"
    );
}

#[test]
fn curl_gets_a_page_and_heads_without_a_body() {
    let server = serve(specification());
    let url = url(&server);
    let page = curl(&["-w", "%{http_code} %{content_type}", &url], "");
    assert!(page.starts_with("<!doctype html>"), "{page}");
    assert!(page.ends_with("200 text/html; charset=utf-8"), "{page}");
    let head = curl(&["--head", &url], "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let call =
        [&JSON[..], &["-i", "-d", r#"{"jsonrpc":"2.0","method":"get_data"}"#, &url]].concat();
    let notified = curl(&call, "").to_lowercase();
    assert!(notified.starts_with("http/1.1 204 no content\r\n"), "{notified}");
    assert!(!notified.contains("content-length"), "{notified}");
}

#[test]
fn curl_waits_for_leave_to_send_what_is_large_and_gets_refusals_whole() {
    let server = Server::new(HOST, 0, |message| message["params"][0].as_str().map(str::len));
    let server = start(server.http(0).max_message_bytes(5 << 20));
    let url = url(&server);
    let body = |bytes: usize| {
        let text = "x".repeat(bytes);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"length","params":["{text}"]}}"#)
    };
    let post = |expect, bytes| {
        let options = ["-i", "-H", expect, "--data-binary", "@-", &url];
        curl(&[&JSON[..], &options].concat(), &body(bytes))
    };
    let taken = post("Expect: 100-continue", 4 << 20);
    assert!(taken.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{taken}");
    assert!(taken.ends_with(r#"{"jsonrpc":"2.0","result":4194304,"id":1}"#), "{taken}");
    for expect in ["Expect: 100-continue", "Expect:"] {
        let refused = post(expect, 10 << 20);
        assert!(refused.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{refused}");
        assert!(refused.contains("(max_message_bytes)"), "{refused}");
    }
}

#[test]
fn python_calls_with_requests_and_with_a_library_for_it() {
    let server = service();
    let printed = python::run("jsonrpc.py", &[&url(&server), TOKEN]);
    let expected = r#"
30 3
17
(204, None)
200 [('a', 3), (9007199254740993, -32601), (None, -32600)]
-32601 Method not found None
-32602 Invalid params plus(a: i64, b: i64): parameter b is missing
-32000 it failed ✓ {'code': 'own'}
-32001 Access denied the method is for callers with a token or a certificate
anna
anna
200 {'code': -32700, 'message': 'Parse error'}
11
30 3 hello bob
17
204
[3, '✓']
ProtocolError -32601 Method not found
ProtocolError -32602 Invalid params
ProtocolError -32000 it failed ✓
ProtocolError -32001 Access denied
anna
"#;
    assert_eq!(printed, expected.trim_start());
}

#[test]
#[ignore = "needs Node 18 or newer, npm and network access: cargo test -- --ignored"]
fn node_calls_with_fetch_and_with_a_library_for_it() {
    let server = service();
    let mut node = node_command();
    node.args(["jsonrpc.mjs", &url(&server), TOKEN]);
    let printed = peers::output(node, "", RUN_LIMIT).unwrap_or_else(|error| panic!("{error}"));
    let expected = r#"
30 3
13
[204,""]
200 [["a",3],[2,-32601],[null,-32600]]
-32601 Method not found undefined
-32602 Invalid params "plus(a: i64, b: i64): parameter b is missing"
-32000 it failed ✓ {"code":"own"}
-32001 Access denied "the method is for callers with a token or a certificate"
anna
30
3
13
undefined
[3,-32601]
-32601 Method not found
-32602 Invalid params
-32000 it failed ✓
-32001 Access denied
anna
"#;
    assert_eq!(printed, expected.trim_start());
}
