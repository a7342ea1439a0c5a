//! The `arrpc` command as a user at a shell sees it: what it prints, and its exit codes.

use std::env;
use std::fs;
use std::future::pending;
use std::io::{BufRead, BufReader, Read, Write, read_to_string};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{self, Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use arrpc::{RpcError, Server};
use socket2::SockRef;

use crate::loopback::flaky_server;
use crate::peers::RUN_LIMIT;

const TLS: [&str; 4] = ["--tls-cert", "certs/server.crt", "--tls-key", "certs/server.key"];
const SELF_SIGNED: [&str; 4] =
    ["--tls-cert", "certs/self-signed.crt", "--tls-key", "certs/self-signed.key"];

#[test]
fn a_message_goes_out_and_its_reply_is_printed_on_one_line() {
    let server = Served::start(arrpc(&["serve", "127.0.0.1:0"]));
    for (message, reply) in [
        (r#"{"foo": ["bar", 1.0, null]}"#, r#"{"foo":["bar",1.0,null]}"#),
        (r#"{"$bin": "AAE="}"#, r#"{"$bin":"AAE="}"#),
        ("18446744073709551615", "18446744073709551615"),
        ("-5", "-5"),
        ("-1.5E-3", "-0.0015"),
        (r#""-""#, r#""-""#),
        (r#""a\nb""#, r#""a\nb""#),
    ] {
        let sent = run(arrpc(&["send", &server.addr, message]), "");
        assert_eq!(sent, Ended::ok(&format!("{reply}\n")), "{message}");
    }
    let pretty = run(arrpc(&["send", "--pretty", &server.addr, r#"{"a":[1]}"#]), "");
    assert_eq!(pretty, Ended::ok("{\n  \"a\": [\n    1\n  ]\n}\n"));
}

#[test]
fn a_dash_reads_the_message_from_standard_input() {
    let server = Served::start(arrpc(&["serve", "127.0.0.1:0"]));
    let sent = run(arrpc(&["send", &server.addr, "-"]), "{\n \"foo\": -1\n}\n");
    assert_eq!(sent, Ended::ok("{\"foo\":-1}\n"));
}

#[test]
fn the_server_answers_with_the_value_of_its_reply_option() {
    let server = Served::start(arrpc(&["serve", "127.0.0.1:0", "--reply", "-1"]));
    assert_eq!(server.send(&[]), Ended::ok("-1\n"));
}

#[test]
fn the_server_answers_after_its_delay_unless_that_is_longer_than_it_may_take() {
    let serve = ["serve", "127.0.0.1:0", "--delay", "0.05"];
    let slow = Served::start(arrpc(&with(&serve, &["--tcp-nodelay", "false"])));
    slow.send(&["--timeout", "0.01"]).check(5, &["arrpc: Timed out"]);
    assert_eq!(slow.send(&[]), Ended::ok("1\n"));
    let limited = Served::start(arrpc(&with(&serve, &["--handler-timeout", "0.01"])));
    limited.send(&[]).check(6, &["The handler took longer than 10ms (handler_timeout)"]);
}

#[test]
fn a_server_that_cannot_be_reached_is_exit_code_3() {
    let sent = run(arrpc(&["send", "127.0.0.1:1", "1", "--con-max-retries", "2"]), "");
    let text = "arrpc: Failed to connect to 127.0.0.1:1 with 2 attempts: Connection refused";
    sent.check(3, &[text, "hint: nothing listens there; is the server running?"]);
}

#[test]
fn a_message_is_sent_again_as_often_as_retries_says() {
    for (lost, retries, code, times) in
        [(1, "0", 7, 1), (1, "1", 0, 2), (2, "1", 7, 2), (2, "-1", 0, 3), (usize::MAX, "2", 7, 3)]
    {
        let (port, received) = flaky_server(lost);
        let addr = format!("127.0.0.1:{port}");
        let sent = run(arrpc(&["send", &addr, "1", "--retries", retries]), "");
        assert_eq!(sent.code, code, "{lost} lost, --retries {retries}: {sent:?}");
        assert_eq!(received.load(Ordering::SeqCst), times, "{lost} lost, --retries {retries}");
    }
    let endless = ["send", "127.0.0.1:1", "1", "--retries", "-1", "--timeout", "0.2"];
    run(arrpc(&endless), "").check(5, &["arrpc: Timed out"]);
    for malformed in ["-2", "1.5", "often"] {
        let sent = run(arrpc(&["send", "127.0.0.1:1", "1", "--retries", malformed]), "");
        sent.check(2, &["--retries", "write a whole number, or -1 for no end"]);
    }
}

#[test]
fn tls_that_fails_is_exit_code_3_and_a_hint() {
    let server = Served::start(arrpc(&with(&["serve", "127.0.0.1:0"], &TLS)));
    let plain = Served::start(arrpc(&["serve", "127.0.0.1:0"]));
    let demanding = with(&with(&["serve", "127.0.0.1:0"], &TLS), &["--tls-client-ca"]);
    let demanding = Served::start(arrpc(&with(&demanding, &["certs/ca.crt"])));

    let failed = format!("arrpc: TLS with {} failed: ", server.addr);
    server.send(&["--tls-ca", "certs/other-ca.crt"]).check(3, &[&failed, "hint: a CA in"]);
    server
        .send(&["--tls-self-signed", "certs/other.crt"])
        .check(3, &[&failed, "another certificate"]);
    server.send(&["--tls"]).check(3, &[&failed, "hint: for a CA of your own"]);
    plain.send(&["--tls-ca", "certs/ca.crt"]).check(3, &["does the server speak TLS?"]);
    demanding
        .send(&["--tls-ca", "certs/ca.crt"])
        .check(3, &["give a certificate with --tls-cert and --tls-key"]);
}

#[test]
fn every_way_of_trust_reaches_a_tls_server() {
    let client_ca = ["--tls-client-ca", "certs/ca.crt"];
    let server = Served::start(arrpc(&with(&with(&["serve", "localhost:0"], &TLS), &client_ca)));
    assert!(server.lines[0].ends_with("(TLS with client certificates)"), "{:?}", server.lines);
    let client = ["--tls-cert", "certs/client.crt", "--tls-key", "certs/client.key"];
    for trust in [["--tls-ca", "certs/ca.crt"], ["--tls-self-signed", "certs/server.crt"]] {
        assert_eq!(server.send(&with(&trust, &client)), Ended::ok("1\n"));
    }
    let mut system = arrpc(&with(&["send", &server.addr, "1", "--tls"], &client));
    system.env("SSL_CERT_FILE", "certs/ca.crt");
    assert_eq!(run(system, ""), Ended::ok("1\n"));
}

#[test]
fn a_refused_signature_is_exit_code_4() {
    let secret = File::new("right", "right");
    let wrong = File::new("wrong", "wrong");
    let signed = ["serve", "127.0.0.1:0", "--auth-secret-file", secret.path()];
    let server = Served::start(arrpc(&signed));
    server.send(&[]).check(4, &["arrpc: ", "hint: give the secret with --auth-secret-file"]);
    server.send(&["--auth-secret-file", wrong.path()]).check(4, &["arrpc: Invalid or missing"]);

    let server = Served::start(arrpc(&["serve", "127.0.0.1:0"]));
    server.send(&["--auth-secret-file", wrong.path()]).check(4, &["the server has no secret"]);
}

#[test]
fn encryption_needs_the_secret_and_both_sides() {
    let secret = File::new("encrypts", "s3cr3t");
    let signed = ["--auth-secret-file", secret.path()];
    let encrypted = ["--auth-secret-file", secret.path(), "--encrypt"];
    let server = Served::start(arrpc(&with(&["serve", "127.0.0.1:0"], &encrypted)));
    assert_eq!(server.send(&encrypted), Ended::ok("1\n"));
    server.send(&signed).check(4, &["Message is not encrypted", "hint: give --encrypt"]);
    let server = Served::start(arrpc(&with(&["serve", "127.0.0.1:0"], &signed)));
    server.send(&encrypted).check(4, &["Message is encrypted but the server takes signed ones"]);

    let needs = "--encrypt needs the secret, give --auth-secret-file or ARRPC_AUTH_SECRET";
    run(arrpc(&["send", "127.0.0.1:1", "1", "--encrypt"]), "").check(2, &[needs]);
    run(arrpc(&["serve", "127.0.0.1:0", "--encrypt"]), "").check(2, &[needs]);
}

#[test]
fn a_timeout_is_exit_code_5() {
    let server = Server::new("127.0.0.1", 0, |_| pending::<()>()).start_background().unwrap();
    let addr = server.local_addr().to_string();
    let sent = run(arrpc(&["send", &addr, "1", "--timeout", "0.05"]), "");
    let text = "arrpc: Timed out after 50ms waiting for the reply\n\
                hint: the server may have run the request\n";
    sent.check(5, &[text]);
}

#[test]
fn an_error_of_the_handler_is_exit_code_6() {
    let handler = |_| Err::<(), _>(RpcError::new("no such thing"));
    let server = Server::new("127.0.0.1", 0, handler).start_background().unwrap();
    let sent = run(arrpc(&["send", &server.local_addr().to_string(), "1"]), "");
    assert_eq!(sent, Ended { code: 6, stderr: "arrpc: no such thing\n".into(), ..Ended::ok("") });
}

#[test]
fn a_lost_connection_and_a_reply_that_is_none_are_exit_code_7() {
    for (reply, text) in [
        (b"".as_slice(), "ended the connection before its reply"),
        (b"\xc1", "The reply: "),
        (b"\x01\x02", "sent 1 bytes behind its reply"),
        (b"HTTP/1.1 400 Bad Request\r\n", "speaks HTTP, not arrpc"),
    ] {
        let addr = stranger(reply);
        let sent = run(arrpc(&["send", &addr.to_string(), "1"]), "");
        sent.check(7, &["arrpc: ", text]);
    }
    let server = Served::start(arrpc(&with(&["serve", "127.0.0.1:0"], &TLS)));
    server.send(&[]).check(7, &["speaks TLS: set tls, tls_cafile or tls_self_signed"]);
}

#[test]
fn arguments_that_cannot_work_are_exit_code_2() {
    let empty = File::new("empty", "\n");
    let to = |options: &[&'static str]| with(&["send", "127.0.0.1:1", "1"], options);
    for (arguments, text) in [
        (vec![], "Usage: arrpc"),
        (vec!["send"], "<HOST:PORT>"),
        (vec!["send", "127.0.0.1:1"], "<JSON>"),
        (vec!["send", "127.0.0.1", "1"], "write HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080"),
        (vec!["send", "::1:8080", "1"], "write HOST:PORT"),
        (vec!["send", "127.0.0.1:65536", "1"], "the port is a number from 0 to 65535"),
        (vec!["send", "127.0.0.1:1", "--tmeout"], "neither JSON nor an option"),
        (to(&["--tmeout"]), "a similar argument exists: '--timeout'"),
        (to(&["--timeout", "soon"]), "write seconds, such as 5 or 0.5"),
        (to(&["--timeout", "-1"]), "write seconds, such as 5 or 0.5"),
        (to(&["--timeout", "0"]), "write more than 0; inf is no limit"),
        (to(&["--con-max-retries", "0"]), "con_max_retries must be 1 at least"),
        (to(&["--tls-cert", "a", "--tls"]), "--tls-key <FILE>"),
        (to(&["--tls-key", "a", "--tls"]), "--tls-cert <FILE>"),
        (to(&["--tls-cert", "a", "--tls-key", "b"]), "--tls|--tls-ca <FILE>|--tls-self-signed"),
        (to(&["--tls-ca", "a", "--tls-self-signed", "b"]), "cannot be used with"),
        (to(&["--tls-ca", "certs/none"]), "arrpc: cannot read certificate certs/none: No such"),
        (to(&["--tls-ca", "certs/ca.key"]), "certs/ca.key holds no certificate"),
        (to(&["--auth-secret-file", "certs/none"]), "arrpc: cannot read the secret in certs/none"),
        (vec!["serve", "8080"], "write HOST:PORT"),
        (vec!["serve", "--tls-cert", "a"], "--tls-key <FILE>"),
        (vec!["serve", "--tls-key", "a"], "--tls-cert <FILE>"),
        (vec!["serve", "--tls-client-ca", "a"], "--tls-cert <FILE>"),
        (vec!["serve", "--auth-secret-file", empty.path()], "is empty: anyone could sign"),
        (vec!["serve", "--drain-timeout", "nan"], "write seconds"),
        (vec!["serve", "--threads", "-1"], "write a whole number, 1 at least"),
        (vec!["serve", "--max-items", "16MiB"], "write a whole number, 1 at least"),
        (vec!["serve", "--max-depth", "1025"], "max_depth must be 1024 at most"),
        (vec!["serve", "--threads", "0"], "write a whole number, 1 at least"),
    ] {
        run(arrpc(&arguments), "").check(2, &[text]);
    }
    let mut empty_variable = arrpc(&to(&[]));
    empty_variable.env("ARRPC_AUTH_SECRET", "");
    run(empty_variable, "").check(2, &["the secret in ARRPC_AUTH_SECRET is empty"]);
}

#[test]
fn text_that_is_not_json_is_exit_code_2_with_the_place_of_the_error() {
    let place = "line 1, column 10: ";
    run(arrpc(&["send", "127.0.0.1:1", r#"{"a": tru}"#]), "").check(2, &["'<JSON>'", place]);
    run(arrpc(&["serve", "--reply", r#"{"a": tru}"#]), "").check(2, &["'--reply <JSON>'", place]);
    let sent = run(arrpc(&["send", "127.0.0.1:1", "-"]), "[1,\n2");
    sent.check(2, &["arrpc: standard input is not JSON: line 2, column 1: "]);
    let sent = run(arrpc(&["send", "127.0.0.1:1", "{foo:1}"]), "");
    sent.check(2, &["line 1, column 2: ", "quote JSON for the shell"]);
}

#[test]
fn an_address_in_use_is_exit_code_3() {
    let server = Served::start(arrpc(&["serve", "127.0.0.1:0"]));
    let text = format!("arrpc: failed to listen on {}: Address already in use", server.addr);
    run(arrpc(&["serve", &server.addr]), "").check(3, &[&text]);
    let metrics = server.addr.rsplit_once(':').unwrap().1;
    let metrics = ["--metrics-host", "127.0.0.1", "--metrics-port", metrics];
    let text = format!("arrpc: failed to listen on {}: cannot serve metrics", server.addr);
    run(arrpc(&with(&["serve", "127.0.0.1:0"], &metrics)), "").check(3, &[&text]);
}

#[test]
fn the_line_that_the_server_prints_works_when_pasted() {
    let secret = File::new("it's a secret", "s3cr3t\n");
    let signed = ["--auth-secret-file", secret.path()];
    for (arguments, listening) in [
        (vec!["127.0.0.1:0"], "Listening on 127.0.0.1:* (plain TCP)"),
        (vec!["localhost:0"], "Listening on 127.0.0.1:* (plain TCP)"),
        (vec![":0"], "Listening on 0.0.0.0:* (plain TCP)"),
        (vec!["[::1]:0"], "Listening on [::1]:* (plain TCP)"),
        (with(&["[::]:0"], &signed), "Listening on [::]:* (plain TCP, signed messages only)"),
        (
            with(&with(&["127.0.0.1:0"], &signed), &["--encrypt"]),
            "Listening on 127.0.0.1:* (plain TCP, encrypted messages only)",
        ),
        (with(&["127.0.0.1:0"], &SELF_SIGNED), "Listening on 127.0.0.1:* (TLS)"),
        (with(&["[::1]:0"], &TLS), "Listening on [::1]:* (TLS)"),
        (
            with(&with(&["127.0.0.1:0"], &TLS), &signed),
            "Listening on 127.0.0.1:* (TLS, signed messages only)",
        ),
    ] {
        let server = Served::start(arrpc(&with(&["serve"], &arguments)));
        let (before, after) = listening.split_once('*').unwrap();
        let line = &server.lines[0];
        let port = line.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        assert!(port.is_some_and(|port| port.parse::<u16>().unwrap() > 0), "{line}");
        assert_eq!(run(server.pasted(), ""), Ended::ok("{\"foo\":\"bar\"}\n"));
    }
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_served_and_sent_to() {
    let directory = env::temp_dir().join(format!("arrpc it's {}", process::id()));
    fs::create_dir(&directory).unwrap();
    let socket = directory.join("s");
    let address = format!("unix:{}", socket.display());
    let missing = run(arrpc(&["send", &address, "1", "--con-max-retries", "1"]), "");
    missing.check(3, &[&address, "hint: nothing listens there; is the server running?"]);
    for (options, listening) in [(vec!["--debug"], "no TLS"), (SELF_SIGNED.to_vec(), "TLS")] {
        let server = Served::start(arrpc(&with(&["serve", &address], &options)));
        assert_eq!(server.lines[0], format!("Listening on {address} ({listening})"));
        assert_eq!(run(server.pasted(), ""), Ended::ok("{\"foo\":\"bar\"}\n"));
        let text = "Address already in use: another server listens there";
        run(arrpc(&["serve", &address]), "").check(3, &[&address, text]);

        server.running.signal("TERM");
        let ended = server.end();
        assert_eq!(ended.stderr.contains("peer=unix"), options[0] == "--debug", "{ended:?}");
        assert!(!socket.exists());
    }
    run(arrpc(&["serve", "unix:"]), "").check(2, &["is no path of a socket"]);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_line_to_paste_leaves_open_what_the_server_cannot_know() {
    let mut command = arrpc(&with(&["serve", "127.0.0.1:0"], &TLS));
    command.args(["--tls-client-ca", "certs/ca.crt"]).env("ARRPC_AUTH_SECRET", "s3cr3t");
    let server = Served::start(command);
    let text = "with your client certificate, with ARRPC_AUTH_SECRET set as here:";
    assert!(server.lines[1].ends_with(text), "{:?}", server.lines);
    let line = server.lines.last().unwrap().replace("YOUR", "certs/client");
    let mut pasted = shell(&line);
    pasted.env("ARRPC_AUTH_SECRET", "s3cr3t");
    assert_eq!(run(pasted, ""), Ended::ok("{\"foo\":\"bar\"}\n"));
}

#[test]
fn the_metrics_are_where_the_server_says() {
    let arguments = ["serve", "127.0.0.1:0", "--metrics-host", "127.0.0.1", "--metrics-port", "0"];
    let server = Served::start(arrpc(&arguments));
    server.send(&[]);
    let url = server.lines[1].strip_prefix("Metrics at http://").unwrap();
    let (addr, path) = url.split_at(url.find('/').unwrap());
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.contains("arrpc_server_req_seconds_count"), "{response}");
}

#[test]
fn the_limits_reach_the_server() {
    for (option, limit, message) in [
        ("--max-message-bytes", "3", r#""four""#),
        ("--max-depth", "1", "[[]]"),
        ("--max-items", "2", "[1,2,3]"),
        ("--max-memory-bytes", "5000", &format!("[{}0]", "0,".repeat(1000))),
    ] {
        let server = Served::start(arrpc(&["serve", "127.0.0.1:0", option, limit]));
        run(arrpc(&["send", &server.addr, message]), "").check(6, &[limit]);
    }
    let limits = ["serve", "127.0.0.1:0", "--max-connections", "1", "--refuse-excess-connections"];
    let server = Served::start(arrpc(&limits));
    let mut first = TcpStream::connect(&server.addr).unwrap();
    first.write_all(&[1]).unwrap();
    first.read_exact(&mut [0]).unwrap();
    run(arrpc(&["send", &server.addr, "1"]), "").check(6, &["max_connections 1"]);
}

#[test]
fn the_deadlines_reach_the_server() {
    let connect = |option| {
        let server = Served::start(arrpc(&["serve", "127.0.0.1:0", option, "0.05"]));
        let stream = TcpStream::connect(&server.addr).unwrap();
        (server, stream)
    };
    let (_server, mut half) = connect("--message-timeout");
    half.write_all(b"\xa3fo").unwrap();
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("within 50ms (message_timeout)"));
    let (_server, mut idle) = connect("--idle-timeout");
    assert!(!matches!(idle.read(&mut [0]), Ok(1)));
    let (_server, mut unread) = connect("--write-timeout");
    let echo = [&b"\xc6\x00\x10\x00\x00"[..], &vec![0; 1 << 20]].concat();
    while unread.write_all(&echo).is_ok() {}
}

#[cfg(target_os = "linux")]
#[test]
fn a_server_has_no_more_connections_than_files() {
    let arrpc = env!("CARGO_BIN_EXE_arrpc");
    let line = format!("ulimit -n 109; exec {arrpc} serve 127.0.0.1:0 --threads 1");
    let server = Served::start(shell(&line));
    let connect = || {
        let mut stream = TcpStream::connect(&server.addr).unwrap();
        stream.write_all(&[1]).unwrap();
        stream
    };
    let mut served: Vec<_> = (0..5).map(|_| connect()).collect();
    for stream in &mut served {
        stream.read_exact(&mut [0]).unwrap();
    }
    let mut waits = connect();
    waits.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(waits.read(&mut [0]).is_err(), "a sixth one");
    waits.set_read_timeout(None).unwrap();
    drop(served);
    waits.read_exact(&mut [0]).unwrap();
}

#[test]
fn the_secret_is_that_of_the_file_without_its_newline_or_else_that_of_the_environment() {
    let secret = File::new("unix", "s3cr3t\n");
    let windows = File::new("windows", "s3cr3t\r\n");
    let signed = ["serve", "127.0.0.1:0", "--auth-secret-file", secret.path()];
    let mut command = arrpc(&signed);
    command.env("ARRPC_AUTH_SECRET", "not this one");
    let server = Served::start(command);

    assert_eq!(server.send(&["--auth-secret-file", windows.path()]), Ended::ok("1\n"));
    for (variable, code) in [("s3cr3t", 0), ("s3cr3t\n", 4), ("other", 4)] {
        let mut command = arrpc(&["send", &server.addr, "1"]);
        command.env("ARRPC_AUTH_SECRET", variable);
        assert_eq!(run(command, "").code, code, "{variable:?}");
    }
}

#[test]
fn the_secret_is_never_printed() {
    const SECRET: &str = "kqxwvzjy";
    let command = |arguments: &[&str]| {
        let mut command = arrpc(arguments);
        command.env("ARRPC_AUTH_SECRET", SECRET).env("RUST_LOG", "trace");
        command
    };
    let server = Served::start(command(&["serve", "127.0.0.1:0", "--debug"]));
    let mut printed = server.lines.join("\n");
    let (addr, wrong) = (server.addr.clone(), File::new("wrong secret", "wrong"));
    for arguments in [
        vec!["send", &addr, "1", "--debug"],
        vec!["send", &addr, "1", "--auth-secret-file", wrong.path()],
        vec!["send", "127.0.0.1:1", "1", "--con-max-retries", "1"],
        vec!["send", "--help"],
        vec!["serve", "--help"],
        vec!["serve", &addr],
    ] {
        let Ended { stdout, stderr, .. } = run(command(&arguments), "");
        printed += &(stdout + &stderr);
    }
    server.running.signal("TERM");
    let Ended { stdout, stderr, .. } = server.end();
    printed += &(stdout + &stderr);
    assert!(printed.contains("DEBUG") && !printed.contains(SECRET), "{printed}");
}

#[test]
fn a_signal_stops_the_server_once_accepted_requests_are_finished() {
    for signal in ["TERM", "INT"] {
        let mut server = Served::start(arrpc(&["serve", "127.0.0.1:0", "--drain-timeout", "60"]));
        let mut idle = TcpStream::connect(&server.addr).unwrap();
        idle.write_all(&[1]).unwrap();
        idle.read_exact(&mut [0]).unwrap();
        let (mut busy, length) = server.request_larger_than_the_socket_buffers();

        server.running.signal(signal);
        let mut line = String::new();
        server.stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("arrpc: stopping"), "{line}");
        while TcpStream::connect(&server.addr).is_ok() {
            thread::yield_now();
        }
        // A reset is an end as well: Python's client needs it.
        assert!(!matches!(idle.read(&mut [0]), Ok(1)));
        let mut reply = vec![0; length - 1];
        busy.read_exact(&mut reply).unwrap();
        assert!(!matches!(busy.read(&mut [0]), Ok(1)));
        drop(busy);
        assert_eq!(server.end(), Ended::ok(""));
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let mut server = Served::start(arrpc(&["serve", "127.0.0.1:0", "--drain-timeout", "1e6"]));
    let _unread = server.request_larger_than_the_socket_buffers();
    server.running.signal("INT");
    server.stderr.read_line(&mut String::new()).unwrap();
    server.running.signal("TERM");
    assert_eq!(server.end().code, 128 + 15);
}

#[test]
fn a_drain_that_takes_too_long_ends_with_a_warning() {
    let server = Served::start(arrpc(&["serve", "127.0.0.1:0", "--drain-timeout", "0"]));
    let _unread = server.request_larger_than_the_socket_buffers();
    server.running.signal("TERM");
    server.end().check(0, &["WARN", "the drain timeout is over"]);
}

#[test]
fn nobody_has_to_read_what_is_printed() {
    let mut serve = arrpc(&["serve", "127.0.0.1:0", "--debug"]);
    let mut server = Running::start(&mut serve);
    drop(server.child.stdout.take());
    let lines = BufReader::new(server.child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let listening = lines.map(|line| line.split_once("address=").map(|(_, addr)| addr.to_owned()));
    let addr = listening.flatten().next().unwrap(); // and standard error is closed, too

    let mut send = arrpc(&["send", &addr, "-"]);
    let mut sender = Running::start(&mut send);
    drop(sender.child.stdout.take());
    sender.child.stdin.take().unwrap().write_all(b"1").unwrap();
    assert_eq!(sender.child.wait().unwrap().code(), Some(0));

    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_log_is_quiet_unless_debug_or_rust_log_ask_for_it() {
    let server = Server::new("127.0.0.1", 0, |message| message).start_background().unwrap();
    let addr = server.local_addr().to_string();
    for (options, rust_log, printed) in [
        ([].as_slice(), None, false),
        (&["--debug"], None, true),
        (&["--debug"], Some("off"), false),
        (&["--debug"], Some(""), true),
        (&[], Some("warn,arrpc::client=debug"), true),
    ] {
        let mut command = arrpc(&with(&["send", &addr, "1"], options));
        command.envs(rust_log.map(|directives| ("RUST_LOG", directives)));
        let sent = run(command, "");
        assert_eq!((sent.code, sent.stdout.as_str()), (0, "1\n"));
        assert_eq!(sent.stderr.contains(" DEBUG arrpc::client"), printed, "{}", sent.stderr);
        assert_eq!(sent.stderr.is_empty(), !printed, "{}", sent.stderr);
    }
    for malformed in ["arrpc=loud", "arrpc=debug=trace"] {
        let mut command = arrpc(&["send", &addr, "1"]);
        command.env("RUST_LOG", malformed);
        run(command, "")
            .check(2, &[&format!("arrpc: RUST_LOG={malformed}: "), "hint: write a level"]);
    }
}

#[test]
fn the_defaults_in_the_help_are_the_librarys() {
    let check = |command: &str, library: String, options: &[(&str, &str, &str)]| {
        let help = run(arrpc(&[command, "--help"]), "").stdout;
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for (option, default, field) in options {
            let (_, text) = help.split_once(&format!("{option} <")).expect("it has the option");
            let stated = text.split("[default: ").nth(1).expect("it states a default");
            assert!(stated.starts_with(default), "{option}: {stated}");
            assert!(library.contains(field), "{field} is not in {library}");
        }
    };
    let server = format!("{:?}", Server::new("", 0, |message| message));
    check(
        "serve",
        server,
        &[
            ("--tls-cert", "plain TCP]", "tls: None"),
            ("--tls-client-ca", "all clients]", "tls_client_ca: None"),
            ("--metrics-port", "9095]", "metrics_port: 9095"),
            ("--metrics-host", "0.0.0.0,", "metrics_host: \"0.0.0.0\""),
            ("--threads", "one for each processor]", "threads: None"),
            ("--max-message-bytes", "16777216]", "max_bytes: 16777216"),
            ("--max-depth", "128]", "max_depth: 128"),
            ("--max-items", "1048576]", "max_items: 1048576"),
            ("--max-in-flight", "64]", "max_in_flight: 64"),
            ("--max-memory-bytes", "536870912]", "max_memory_bytes: None"),
            ("--max-connections", "10000]", "max_connections: 10000"),
            ("--backlog", "1024]", "backlog: 1024"),
            ("--tls-handshake-timeout", "5]", "tls_handshake: 5s"),
            ("--message-timeout", "30]", "message: 30s"),
            ("--write-timeout", "10]", "write: 10s"),
            ("--idle-timeout", "no limit]", "idle: None"),
            ("--handler-timeout", "no limit]", "handler: None"),
            ("--tcp-nodelay", "true]", "nodelay: true"),
            ("--drain-timeout", "10]", "drain_timeout: 10s"),
            ("--tcp-keepalive", "60]", "keepalive: 60s"),
        ],
    );
    let client = format!("{:?}", arrpc::Client::new("", 0));
    check(
        "send",
        client,
        &[
            ("--timeout", "no limit]", "timeout: None"),
            ("--con-max-retries", "5]", "con_max_retries: 5"),
            ("--tls-cert", "none]", "tls_client_cert: None"),
            ("--max-message-bytes", "67108864]", "max_bytes: 67108864"),
            ("--max-depth", "128]", "max_depth: 128"),
            ("--max-items", "1048576]", "max_items: 1048576"),
            ("--tls-handshake-timeout", "5]", "tls_handshake_timeout: 5s"),
            ("--tcp-keepalive", "60]", "keepalive: 60s"),
        ],
    );
    let gateway = [
        format!("{:?}", arrpc::Http::new(0)),
        format!("{:?}", Server::new("", 0, |message| message)),
        format!("{:?}", arrpc::Client::new("", 0)),
    ];
    check(
        "gateway",
        gateway.join(" "),
        &[
            ("--path", "/api]", "path: \"/api\""),
            ("--cors", "none]", "cors: []"),
            ("--max-batch", "1000]", "max_batch: 1000"),
            ("--max-message-bytes", "16777216]", "max_bytes: 16777216"),
            ("--max-memory-bytes", "536870912]", "max_memory_bytes: None"),
            ("--max-reply-bytes", "67108864]", "max_bytes: 67108864"),
            ("--max-depth", "128]", "max_depth: 128"),
            ("--max-items", "1048576]", "max_items: 1048576"),
            ("--message-timeout", "30]", "message: 30s"),
            ("--drain-timeout", "10]", "drain_timeout: 10s"),
            ("--max-connections", "64]", "max_connections: 64"),
            ("--pipelined", "1]", "depth: 1"),
        ],
    );
}

#[test]
fn every_help_has_examples_and_the_exit_codes_of_its_command() {
    for command in ["serve", "send", "call", "methods", "gateway", "bench", "new"] {
        let help = run(arrpc(&[command, "--help"]), "").stdout;
        assert!(help.contains(&format!("\nExamples:\n  arrpc {command} ")), "{help}");
        assert!(help.contains("\nExit codes:\n  0 "), "{help}");
        let listens = ["serve", "gateway"].contains(&command);
        assert_eq!(help.contains("cannot listen"), listens, "{help}");
        assert!(!listens || !help.contains("cannot connect"), "{help}");
    }
    // The same thing under both of its names.
    run(arrpc(&["bench", "127.0.0.1:1", "--pipelined", "0"]), "").check(2, &["1 at least"]);
    run(arrpc(&["gateway", "--to", "a:1", "--pipeline", "0"]), "").check(2, &["1 at least"]);
}

#[test]
fn the_help_names_every_exit_code() {
    let help = run(arrpc(&["send", "--help"]), "");
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for code in 0..=7 {
        assert!(help.stdout.contains(&format!("\n  {code}  ")), "{}", help.stdout);
    }
    let version = run(arrpc(&["--version"]), "");
    assert_eq!(version, Ended::ok(concat!("arrpc ", env!("CARGO_PKG_VERSION"), "\n")));
}

/// The command in the package's directory, with nothing in its environment that it looks at.
pub(crate) fn arrpc(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arrpc"));
    command.args(arguments);
    at_home(command)
}

pub(crate) fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    at_home(command)
}

fn at_home(mut command: Command) -> Command {
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let variables =
        ["ARRPC_AUTH_SECRET", "ARRPC_TOKEN", "RUST_LOG", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    for variable in variables {
        command.env_remove(variable);
    }
    command
}

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// How a command ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn ok(stdout: &str) -> Self {
        Self { code: 0, stdout: stdout.to_owned(), stderr: String::new() }
    }

    #[track_caller]
    pub(crate) fn check(&self, code: i32, texts: &[&str]) {
        let as_expected = self.code == code
            && self.stdout.is_empty()
            && texts.iter().all(|text| self.stderr.contains(text));
        assert!(as_expected, "not {code} and {texts:?}: {self:#?}");
    }
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command, input: &str) -> Ended {
    let mut running = Running::start(&mut command);
    // Fails if the command does not look at it.
    let _ = running.child.stdin.take().unwrap().write_all(input.as_bytes());
    let stdout = running.child.stdout.take().unwrap();
    // In a thread, as the command may fill both.
    let stderr = running.child.stderr.take().unwrap();
    let stderr = thread::spawn(|| read_to_string(stderr).unwrap());
    let stdout = read_to_string(stdout).unwrap();
    Ended { code: running.code(), stdout, stderr: stderr.join().unwrap() }
}

/// A running command, killed when it is dropped, or takes so long that it must be stuck.
pub(crate) struct Running {
    child: Child,
    _in_time: Sender<()>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let id = child.id();
        let (in_time, dropped) = mpsc::channel();
        thread::spawn(move || {
            if dropped.recv_timeout(RUN_LIMIT) == Err(RecvTimeoutError::Timeout) {
                kill("KILL", id);
            }
        });
        Self { child, _in_time: in_time }
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, self.child.id());
    }

    /// Waits for the end.
    fn code(&mut self) -> i32 {
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| panic!("{status}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // fails if it ended by itself
        let _ = self.child.wait();
    }
}

fn kill(signal: &str, id: u32) {
    let status = Command::new("kill").args([&format!("-{signal}"), &id.to_string()]).status();
    assert!(status.unwrap().success());
}

/// A running `arrpc serve`, or another command that prints where it listens and a line to try it.
pub(crate) struct Served {
    pub(crate) running: Running,
    stdout: BufReader<ChildStdout>,
    pub(crate) stderr: BufReader<ChildStderr>,
    /// What it printed when it started.
    pub(crate) lines: Vec<String>,
    /// The address in the first of them.
    pub(crate) addr: String,
}

impl Served {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut running = Running::start(&mut command);
        let mut stdout = BufReader::new(running.child.stdout.take().unwrap());
        let stderr = BufReader::new(running.child.stderr.take().unwrap());
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.starts_with("  ")) {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                panic!("{command:?} did not start: {}", read_to_string(stderr).unwrap());
            }
            lines.push(line.trim_end().to_owned());
        }
        let addr = lines[0].split(' ').nth(2).unwrap().to_owned();
        Self { running, stdout, stderr, lines, addr }
    }

    /// Sends 1 to the server.
    fn send(&self, options: &[&str]) -> Ended {
        run(arrpc(&with(&["send", &self.addr, "1"], options)), "")
    }

    /// The line that the server printed, in the hands of a shell.
    pub(crate) fn pasted(&self) -> Command {
        shell(self.lines.last().unwrap())
    }

    /// Sends a request and reads the first byte of its reply, whose rest is too long for the
    /// system to hold: it is in flight until it is read. Returns how long the reply is, too.
    fn request_larger_than_the_socket_buffers(&self) -> (TcpStream, usize) {
        let request = vec![0xff; 15 << 20];
        let mut message = vec![0xc6];
        message.extend(u32::try_from(request.len()).unwrap().to_be_bytes());
        message.extend(request);
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        // The end of the reply waits on the server's side, where a reset would discard it.
        SockRef::from(&stream).set_recv_buffer_size(256 << 10).unwrap();
        stream.write_all(&message).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        (stream, message.len())
    }

    /// Waits for the end. The outputs are what has not been read before.
    pub(crate) fn end(mut self) -> Ended {
        let stdout = read_to_string(self.stdout).unwrap();
        let stderr = read_to_string(self.stderr).unwrap();
        Ended { code: self.running.code(), stdout, stderr }
    }
}

/// A server that answers the first bytes of one connection with these, and closes it.
fn stranger(reply: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(reply).unwrap();
    });
    addr
}

/// A file in the tests' directory, until it is dropped.
pub(crate) struct File(PathBuf);

impl File {
    pub(crate) fn new(name: &str, content: &str) -> Self {
        let name = format!("{name} {:?}", thread::current().id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, content).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
