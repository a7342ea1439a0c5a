//! That secrets stay secret: no log and no `Debug` shows one, in no form.

use std::env;
use std::process::Command;

use arrpc::{Client, Error, Server, ServerHandle, Value, blocking, value};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use tracing_subscriber::filter::LevelFilter;

use crate::loopback::{HOST, ReservedPort, cert, echo, start};

/// Set for the process whose output is looked at.
const CHILD: &str = "ARRPC_TEST_SECRETS";

const SECRET: &str = "kqxwvzjy~kqxwvzjy?fjordbank";
const WRONG_SECRET: &str = "vexgymzq~vexgymzq?glyphwort";

/// A process of its own, as the logs of a server come from threads of its own, and those of the
/// other tests do not belong here.
#[test]
fn no_log_and_no_debug_output_shows_a_secret() {
    if env::var_os(CHILD).is_some() {
        return talk();
    }
    let test = "secrets::no_log_and_no_debug_output_shows_a_secret";
    let output = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("it runs");
    let printed =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let printed = printed.concat();
    assert!(output.status.success(), "{printed}");
    for expected in [
        "arrpc::server",
        "arrpc::client",
        "connected",
        "Invalid or missing",
        "the server has no secret",
        "cannot connect",
        "the handler panicked",
        "TLS with",
        "Server {",
        "Client(",
        "auth_secret: Some(Secret(..))",
    ] {
        assert!(printed.contains(expected), "{expected:?} is missing: {printed}");
    }
    for secret in [SECRET, WRONG_SECRET] {
        for form in forms(secret) {
            assert!(!printed.contains(&form), "{form} in {printed}");
        }
    }
}

/// How a secret might be printed.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let joined = |byte: fn(&u8) -> String, separator: &str| {
        bytes.iter().map(byte).collect::<Vec<_>>().join(separator)
    };
    let mut forms = vec![
        secret.to_owned(),
        joined(|byte| format!("{byte:02x}"), ""),
        joined(|byte| format!("{byte:02X}"), ""),
        joined(|byte| format!("{byte}"), ", "),
        joined(|byte| format!("{byte:02x}"), " "),
    ];
    // What stands before it decides which of three texts base64 has for it; its ends are left out.
    for skipped in 0..3 {
        let bytes = &bytes[skipped..];
        let bytes = &bytes[..bytes.len() / 3 * 3];
        forms.push(BASE64_STANDARD_NO_PAD.encode(bytes));
        forms.push(BASE64_URL_SAFE_NO_PAD.encode(bytes));
    }
    forms
}

/// Uses secrets in every way there is, and prints all that the libraries have to say of it.
fn talk() {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let signed = || {
        let handler = |message: Value| match message.as_str() {
            Some("panic") => panic!("as it was told"),
            _ => message,
        };
        Server::new(HOST, 0, handler).auth_secret(SECRET).debug()
    };
    println!("{:?} {:#?}", signed(), signed());
    let server = start(signed());
    let unsigned = start(echo());
    let tls = start(signed().tls(cert("server.crt"), cert("server.key")));
    let client = |server: &ServerHandle| Client::new(HOST, server.local_addr().port()).debug();
    let send = |client: &Client, message: &str| smol::block_on(client.send(value!(message)));

    let good = client(&server).auth_secret(SECRET);
    let encrypted = client(&tls).tls_self_signed(cert("server.crt")).auth_secret(SECRET);
    println!("{good:?} {good:#?} {encrypted:?} {:?}", blocking::Client::from(good.clone()));
    for client in [&good, &good.clone().pipelined(8), &encrypted, &good.idempotent()] {
        assert_eq!(send(client, "hello").expect("a reply"), value!("hello"));
    }
    let mut errors = vec![send(&good, "panic").expect_err("the handler failed")];
    let wrong = client(&server).auth_secret(WRONG_SECRET);
    // Behind the third one in a row the server closes the connection.
    for _ in 0..3 {
        errors.push(send(&wrong, "hello").expect_err("a wrong signature"));
    }
    errors.push(send(&client(&server), "hello").expect_err("no signature"));
    errors.push(send(&client(&unsigned).auth_secret(SECRET), "hello").expect_err("no secret"));
    assert!(errors[1..].iter().all(|error| matches!(error, Error::Auth(_))), "{errors:?}");
    let reserved = ReservedPort::new();
    let nobody = Client::new(HOST, reserved.addr().port()).con_max_retries(2).auth_secret(SECRET);
    errors.push(send(&nobody, "hello").expect_err("nobody listens"));
    errors.push(
        send(&client(&tls).tls_cafile(cert("other-ca.crt")).auth_secret(SECRET), "hello")
            .expect_err("not to be trusted"),
    );
    errors.push(signed().threads(0).start_background().expect_err("no threads"));
    for error in errors {
        println!("{error} {error:?}");
    }
    for server in [server, unsigned, tls] {
        server.stop();
        server.join();
    }
}
