//! Who calls, by a token or a certificate, and what only those may call who are known.

use arrpc::{Context, Error, Router, Server, Tokens, Value, blocking, value};
use serde_json::json;

use crate::loopback::{HOST, cert, start};
use crate::python;

fn whoami(context: Context) -> Option<String> {
    context.identity().map(str::to_owned)
}

fn router() -> Router {
    let admin = Router::new().method("stop", [], whoami).private("stop");
    Router::new().method("whoami", [], whoami).service("admin", admin).id(1, "admin.stop")
}

fn tokens() -> Tokens {
    Tokens::new([("anna", "a-token"), ("bob", "b-token")])
}

#[track_caller]
fn denied(result: Result<Value, Error>, text: &str) {
    match result {
        Err(Error::Rpc(error)) => {
            assert_eq!((error.code(), error.description()), (Some("access_denied"), text));
        }
        other => panic!("not denied: {other:?}"),
    }
}

const PRIVATE: &str = "the method is for callers with a token or a certificate";
const UNKNOWN: &str = "the server knows no such token";

#[test]
fn a_token_says_who_calls_and_opens_what_is_private() {
    let server = start(Server::with_handler(HOST, 0, router()).tokens(tokens()));
    let stranger = blocking::Client::new(HOST, server.local_addr().port());
    assert_eq!(stranger.call::<Value>("whoami", ()).expect("it is public"), Value::Nil);
    denied(stranger.call("admin.stop", ()), PRIVATE);
    denied(stranger.call(1, ()), PRIVATE);
    let bob = stranger.clone().token("b-token");
    assert_eq!(bob.call::<String>("whoami", ()).expect("it is public"), "bob");
    assert_eq!(bob.call::<String>(1, ()).expect("he is known"), "bob");
    for wrong in ["", "B-token", "b-token "] {
        denied(stranger.clone().token(wrong).call("whoami", ()), UNKNOWN);
    }
    // Only a text is a token.
    denied(stranger.send(value!({"method": "admin.stop", "token": 7})), PRIVATE);
}

#[test]
fn a_python_client_has_a_token_in_its_message() {
    let server = start(Server::with_handler(HOST, 0, router()).tokens(tokens()));
    let mut client = python::Client::start(server.local_addr(), &[]);
    let call = json!({"method": "admin.stop", "token": "a-token"});
    assert_eq!(client.send(&call), json!({"reply": "anna"}));
    let denied = client.send(&json!({"method": "admin.stop"}));
    assert_eq!(denied["message"], json!(format!("[access_denied] {PRIVATE}")));
}

#[test]
fn a_handler_of_another_kind_asks_for_the_identity_itself() {
    let server = Server::with_context(HOST, 0, |_, context| whoami(context)).tokens(tokens());
    let server = start(server);
    let client = blocking::Client::new(HOST, server.local_addr().port());
    assert_eq!(client.send(value!({"token": "a-token"})).expect("known"), value!("anna"));
    assert_eq!(
        client.send(value!({"token": "x"})).map_err(|error| error.to_string()),
        Err(format!("[access_denied] {UNKNOWN}"))
    );
    assert_eq!(client.send("no map").expect("nobody"), Value::Nil);
}

#[test]
fn a_verified_certificate_is_an_identity_too() {
    let server = Server::with_handler(HOST, 0, router())
        .tls(cert("server.crt"), cert("server.key"))
        .tls_client_ca(cert("ca.crt"));
    let server = start(server);
    let client = blocking::Client::new(HOST, server.local_addr().port())
        .tls_cafile(cert("ca.crt"))
        .tls_client_cert(cert("client.crt"), cert("client.key"));
    let name: String = client.call("admin.stop", ()).expect("it is known");
    assert!(!name.is_empty());
}

#[test]
fn tokens_that_cannot_work_are_an_error_at_the_start() {
    let none: [(&str, &str); 0] = [];
    for (tokens, expected) in [
        (Tokens::new(none), "there are no tokens in tokens"),
        (Tokens::new([("anna", "")]), "a token is empty: anyone could show it"),
        (Tokens::file("/no/such/file"), "tokens in /no/such/file: "),
    ] {
        let started = Server::new(HOST, 0, |_| 1).tokens(tokens).start_background();
        let error = started.map(|_| ()).expect_err("a mistake").to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let raw = Server::raw(HOST, 0, |_, reply| reply.write(&1)).tokens(tokens());
    let error = raw.start_background().map(|_| ()).expect_err("a mistake").to_string();
    assert_eq!(error, "tokens stand in values, and a raw handler gets none");
}
