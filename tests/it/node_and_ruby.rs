//! Programs in Node and Ruby that have nothing but a MessagePack library call our server.

use std::process::Command;

use arrpc::Server;

use crate::loopback::{HOST, echo, start};
use crate::other_languages::{node_command, ruby_command};
use crate::peers::{self, RUN_LIMIT};

/// What both print for each message: an int key is a string in JSON, and bytes are base64.
const REPLIES: [&str; 7] = [
    r#"{"foo":"bar"}"#,
    r#"{"1":"one","2":"two"}"#,
    r#"{"$bin":"AAH+/w=="}"#,
    r#"{"list":[1,[2,[3,{}]]],"map":{"a":{"b":true}}}"#,
    r#""héllo ✓ 日本語 🦀""#,
    "null",
    "[18446744073709551615,-9223372036854775808,4294967296]",
];

#[test]
#[ignore = "needs Node 18 or newer, npm and network access: cargo test -- --ignored"]
fn a_node_client_gets_its_replies_in_order() {
    check(node_command(), "client.mjs", echo(), None);
}

#[test]
#[ignore = "needs Node 18 or newer, npm and network access: cargo test -- --ignored"]
fn a_signing_node_client_gets_its_replies_in_order() {
    check(node_command(), "client.mjs", echo().auth_secret("sésame"), Some("sésame"));
}

#[test]
#[ignore = "needs Ruby with its msgpack library: cargo test -- --ignored"]
fn a_ruby_client_gets_its_replies_in_order() {
    check(ruby_command(), "client.rb", echo(), None);
}

#[test]
#[ignore = "needs Ruby with its msgpack library: cargo test -- --ignored"]
fn a_signing_ruby_client_gets_its_replies_in_order() {
    check(ruby_command(), "client.rb", echo().auth_secret("sésame"), Some("sésame"));
}

/// Expects each message back twice: sent one by one, and then all of them back to back.
#[track_caller]
fn check(mut interpreter: Command, script: &str, echo: Server, secret: Option<&str>) {
    let port = start(echo).local_addr().port().to_string();
    interpreter.args([script, HOST, &port]).args(secret);
    let printed =
        peers::output(interpreter, "", RUN_LIMIT).unwrap_or_else(|error| panic!("{error}"));

    let long = format!("\"{}\"", "x".repeat(100_000));
    let replies = REPLIES.iter().copied().chain([long.as_str()]);
    let expected: Vec<_> = replies.clone().chain(replies).collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}
