//! That secrets stay secret: no log and no `Debug` shows one, in no form.

use std::env;
use std::io::Write;
use std::process::Command;

use arrpc::{Client, Error, Router, Server, ServerHandle, Value, blocking, value};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use rmpv::decode::read_value;
use sha2::Sha256;
use tracing_subscriber::filter::LevelFilter;

use crate::loopback::{HOST, ReservedPort, cert, echo, raw_server, start};

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
        "Message is not encrypted",
        "Message cannot be decrypted",
        "Message is encrypted but",
        "The reply is not encrypted",
        "cannot connect",
        "the handler panicked",
        "TLS with",
        "Server {",
        "Client(",
        "auth_secret: Some(Secret(..))",
        "encrypt: false",
        "encrypt: true",
    ] {
        assert!(printed.contains(expected), "{expected:?} is missing: {printed}");
    }
    for secret in [SECRET, WRONG_SECRET] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
        let mut keys = keys(secret);
        keys.push(secret.into());
        for form in keys.iter().flat_map(|key| forms(key)) {
            assert!(!printed.contains(&form), "{form} in {printed}");
        }
    }
}

/// What encryption makes of a secret, as its documentation says: what is extracted from it, and the
/// keys of both directions.
fn keys(secret: &str) -> Vec<Vec<u8>> {
    let (extracted, expander) = Hkdf::<Sha256>::extract(None, secret.as_bytes());
    let key = |label: &[u8]| {
        let mut key = vec![0; 32];
        expander.expand(label, &mut key).expect("as long as a hash");
        key
    };
    let keys = [key(b"arrpc encryption 1 request"), key(b"arrpc encryption 1 reply")];
    keys.into_iter().chain([extracted.to_vec()]).collect()
}

/// How a secret or a key might be printed, beside as a text.
fn forms(bytes: &[u8]) -> Vec<String> {
    let joined = |byte: fn(&u8) -> String, separator: &str| {
        bytes.iter().map(byte).collect::<Vec<_>>().join(separator)
    };
    let mut forms = vec![
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
    println!("{:?} {:#?}", signed().encrypt(), signed().encrypt());
    let encrypting = start(signed().encrypt());
    let client = |server: &ServerHandle| Client::new(HOST, server.local_addr().port()).debug();
    let send = |client: &Client, message: &str| smol::block_on(client.send(value!(message)));

    let good = client(&server).auth_secret(SECRET);
    let over_tls = client(&tls).tls_self_signed(cert("server.crt")).auth_secret(SECRET);
    let sealed = client(&encrypting).auth_secret(SECRET).encrypt();
    println!("{good:?} {good:#?} {over_tls:?} {:?}", blocking::Client::from(good.clone()));
    println!("{sealed:?} {sealed:#?} {:?}", blocking::Client::from(sealed.clone()));
    for client in [&good, &sealed] {
        for client in [client, &client.clone().pipelined(8), &client.idempotent()] {
            assert_eq!(send(client, "hello").expect("a reply"), value!("hello"));
        }
    }
    assert_eq!(send(&over_tls, "hello").expect("a reply"), value!("hello"));
    let failed = [&good, &sealed].map(|client| send(client, "panic").expect_err("it failed"));
    assert!(failed.iter().all(|error| matches!(error, Error::Rpc(_))), "{failed:?}");
    let mut errors = vec![];
    let wrong = client(&server).auth_secret(WRONG_SECRET);
    // Behind the third one in a row the server closes the connection.
    for _ in 0..3 {
        errors.push(send(&wrong, "hello").expect_err("a wrong signature"));
    }
    errors.push(send(&client(&server), "hello").expect_err("no signature"));
    errors.push(send(&client(&unsigned).auth_secret(SECRET), "hello").expect_err("no secret"));
    let wrong = client(&encrypting).auth_secret(WRONG_SECRET).encrypt();
    for client in [&wrong, &wrong.clone().pipelined(8)] {
        for _ in 0..3 {
            errors.push(send(client, "hello").expect_err("a wrong key"));
        }
    }
    // Answers whatever comes, without a secret.
    let impostor = raw_server(|_, mut stream| {
        let _ = read_value(&mut stream).map(|_| stream.write_all(b"\xa6got it"));
    });
    let impostor = Client::new(HOST, impostor).debug();
    for client in [
        client(&encrypting),
        client(&encrypting).auth_secret(SECRET),
        client(&encrypting).auth_secret(WRONG_SECRET),
        client(&server).auth_secret(SECRET).encrypt(),
        client(&server).auth_secret(WRONG_SECRET).encrypt(),
        client(&unsigned).auth_secret(SECRET).encrypt(),
        impostor.auth_secret(SECRET).encrypt(),
    ] {
        errors.push(send(&client, "hello").expect_err("not what the server is set to"));
    }
    assert!(errors.iter().all(|error| matches!(error, Error::Auth(_))), "{errors:?}");
    errors.extend(failed);
    errors.push(send(&client(&encrypting).encrypt(), "hello").expect_err("no secret"));
    errors.push(echo().debug().encrypt().start_background().expect_err("no secret"));
    let reserved = ReservedPort::new();
    let nobody = Client::new(HOST, reserved.addr().port()).con_max_retries(2).auth_secret(SECRET);
    errors.push(send(&nobody, "hello").expect_err("nobody listens"));
    errors.push(
        send(&client(&tls).tls_cafile(cert("other-ca.crt")).auth_secret(SECRET), "hello")
            .expect_err("not to be trusted"),
    );
    errors.push(signed().threads(0).start_background().expect_err("no threads"));
    errors.push(signed().encrypt().threads(0).start_background().expect_err("no threads"));
    for error in errors {
        println!("{error} {error:?}");
    }
    for server in [server, unsigned, tls, encrypting] {
        server.stop();
        server.join();
    }
}

#[test]
fn the_debug_output_of_a_call_does_not_show_its_token() {
    let (sender, printed) = async_channel::unbounded();
    let router = Router::new().method("work", ["password"], |_: String| ()).access(move |call| {
        assert_eq!(call.token(), Some(SECRET));
        let _ = sender.try_send(format!("{call:?} {call:#?}")); // the test may be over
        Ok(())
    });
    let server = start(Server::with_handler(HOST, 0, router));
    let client = blocking::Client::new(HOST, server.local_addr().port());
    let message = value!({"method": "work", "params": [WRONG_SECRET], "token": SECRET});
    client.send(message).expect("a reply");
    let printed = printed.try_recv().expect("the hook was called");
    assert!(printed.contains("work"), "{printed}");
    for secret in [SECRET, WRONG_SECRET] {
        assert!(!printed.contains(secret), "{printed}");
        for form in forms(secret.as_bytes()) {
            assert!(!printed.contains(&form), "{form} in {printed}");
        }
    }
}
