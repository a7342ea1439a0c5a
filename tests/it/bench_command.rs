//! `arrpc bench` as a script sees it: what it counts, and its exit codes. How fast anything is, no
//! test asks.

use std::fmt::Display;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arrpc::{RpcError, Server, Value};
use serde_json::Value as Json;

use crate::loopback::{HOST, ReservedPort, cert, echo, start};
use crate::python;
#[cfg(unix)]
use crate::unix::Place;

#[test]
fn every_request_is_sent_once_and_its_reply_counted() {
    for options in [
        ["--connections", "7", "--pipeline", "1"].as_slice(),
        &["--connections", "3", "--pipeline", "16"],
        &["--connections", "1", "--pipeline", "2000"],
        &["--connections", "5", "--threads", "2"],
        &["--connections", "2", "--threads", "9", "--pipeline", "3"],
        &["--connections", "4", "--rate", "1e6"],
        &["--connections", "2", "--rate", "1e6", "--pipeline", "8", "--threads", "2"],
        &["--connections", "1", "--rate", "2000"],
    ] {
        let calls = Arc::new(AtomicU64::new(0));
        let counter = calls.clone();
        let server = start(Server::new(HOST, 0, move |message: Value| {
            counter.fetch_add(1, Ordering::SeqCst);
            message
        }));
        let report = bench(server.local_addr(), options, 0);
        assert_eq!(report["requests"], 1000, "{options:?}");
        assert_eq!(report["errors"], 0, "{options:?}");
        assert_eq!(report["bytes_sent"], 9 * 1000, "{options:?}");
        assert_eq!(report["bytes_received"], 9 * 1000, "{options:?}");
        // And the first one.
        assert_eq!(calls.load(Ordering::SeqCst), 1001, "{options:?}");
    }
}

#[test]
fn the_report_for_programs_has_every_figure() {
    let server = start(echo());
    let options = ["--connections", "2", "--pipeline", "4", "--message-bytes", "5000"];
    let report = bench(server.local_addr(), &options, 0);
    for (key, value) in [
        ("connections", 2),
        ("pipeline", 4),
        ("threads", 1),
        ("request_bytes", 5003),
        ("reply_bytes", 5003),
        ("requests", 1000),
        ("errors", 0),
        ("unsent", 0),
        ("lost_connections", 0),
        ("bytes_sent", 5_003_000),
        ("bytes_received", 5_003_000),
    ] {
        assert_eq!(report[key], value, "{key}");
    }
    let latencies = ["min_us", "p50_us", "p90_us", "p99_us", "p999_us", "p9999_us", "max_us"]
        .map(|key| report[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", report[key])));
    assert!(latencies.is_sorted(), "{latencies:?}");
    for key in ["mean_us", "seconds", "requests_per_second"] {
        assert!(report[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}");
    }
}

#[test]
fn the_report_for_people_fits_a_terminal_and_has_no_progress_bar_in_a_pipe() {
    let server = start(echo());
    let mut command = command(server.local_addr(), &["--connections", "2"]);
    let output = command.args(["--requests", "1000"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "2 connections, 1 request in flight on each, 1 thread",
        "Message     9 bytes, the first reply 9 bytes",
        "Requests    1,000 in ",
        "Errors      0",
        " p99.9 ",
        "█",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}

#[test]
fn a_run_may_last_for_a_time_instead_and_warm_up_before() {
    let server = start(echo());
    for options in [&["--pipeline", "8"], &["--rate", "1000"]] {
        let mut command = command(server.local_addr(), options);
        command.args(["--duration", "0.05", "--warmup", "0.05", "--json"]);
        let report = report(command, 0);
        assert!(report["requests"].as_u64().is_some_and(|requests| requests > 0), "{report}");
    }
}

#[test]
fn a_python_server_is_measured_with_one_request_in_flight() {
    let server = python::Server::start(&["--handler", "got_it"]);
    let report = bench(server.addr, &["--connections", "4"], 0);
    assert_eq!((&report["requests"], &report["errors"]), (&1000.into(), &0.into()));
    assert_eq!(report["bytes_received"], 7 * 1000);
}

#[test]
fn replies_that_differ_are_counted_in_order_of_the_requests() {
    let calls = AtomicU64::new(0);
    let server = start(Server::new(HOST, 0, move |_| calls.fetch_add(1, Ordering::SeqCst)));
    let report = bench(server.local_addr(), &["--connections", "1", "--pipeline", "64"], 0);
    assert_eq!((&report["requests"], &report["errors"]), (&1000.into(), &0.into()));
    // One byte each for 1 to 127, two up to 255, three up to 1,000.
    assert_eq!(report["bytes_received"], 127 + 2 * 128 + 3 * 745);
}

#[test]
fn error_replies_are_counted_as_errors_with_their_texts() {
    for pipeline in ["1", "32"] {
        let calls = AtomicU64::new(0);
        let server =
            start(Server::new(HOST, 0, move |_| match calls.fetch_add(1, Ordering::SeqCst) % 4 {
                0 | 1 => Ok("got it"),
                2 => Err(RpcError::new("too tired")),
                _ => Err(RpcError::new("too busy")),
            }));
        let options = ["--connections", "3", "--pipeline", pipeline];
        let report = bench(server.local_addr(), &options, 1);
        assert_eq!((&report["requests"], &report["errors"]), (&1000.into(), &500.into()));
        assert_eq!(report["error_texts"].as_array().unwrap().len(), 2, "{report}");
        for error in report["error_texts"].as_array().unwrap() {
            assert!(error["text"].as_str().unwrap().starts_with("arrpc.error.RpcException: too "));
            assert_eq!(error["count"], 250);
        }
    }
}

#[test]
fn a_server_whose_every_reply_is_an_error_is_measured_too() {
    let server = start(Server::new(HOST, 0, |_| Err::<(), _>(RpcError::new("no"))));
    let report = bench(server.local_addr(), &["--connections", "2"], 1);
    assert_eq!((&report["requests"], &report["errors"]), (&1000.into(), &1000.into()));
    assert!(report["p50_us"].is_null(), "{report}");
}

#[test]
fn a_terminal_has_nothing_to_obey_in_the_texts_of_a_server() {
    let text = "\u{9b}2J\u{7f}\u{1b}[31m";
    let server = start(Server::new(HOST, 0, move |_| Err::<(), _>(RpcError::new(text))));
    for json in [&["--json"] as &[_], &[]] {
        let mut command = command(server.local_addr(), &[&["--requests", "2"], json].concat());
        let printed = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(printed.contains("2J"), "{printed:?}");
        assert!(!printed.contains(|c: char| c.is_control() && c != '\n'), "{printed:?}");
    }
    let report = bench(server.local_addr(), &[], 1);
    let text = format!("arrpc.error.RpcException: {text}");
    assert_eq!(report["error_texts"][0]["text"], text, "all of it");
}

#[test]
fn tls_and_signatures_are_those_of_send() {
    let secured = || echo().auth_secret("s3cr3t").tls(cert("server.crt"), cert("server.key"));
    let server = start(secured().tls_client_ca(cert("ca.crt")));
    for trust in [["--tls-ca", "certs/ca.crt"], ["--tls-self-signed", "certs/server.crt"]] {
        for pipeline in ["1", "16"] {
            let mut command = command(server.local_addr(), &trust);
            command.args(["--tls-cert", "certs/client.crt", "--tls-key", "certs/client.key"]);
            command.args(["--requests", "1000", "--pipeline", pipeline, "--json"]);
            command.args(["--connections", "3"]).env("ARRPC_AUTH_SECRET", "s3cr3t");
            let report = report(command, 0);
            assert_eq!((&report["requests"], &report["errors"]), (&1000.into(), &0.into()));
            assert_eq!((&report["tls"], &report["signed"]), (&true.into(), &true.into()));
        }
    }
    // Larger than what TLS and the sockets hold.
    let server = start(echo().tls(cert("server.crt"), cert("server.key")));
    let mut command = command(server.local_addr(), &["--tls-ca", "certs/ca.crt"]);
    command.args(["--message-bytes", "3000000", "--requests", "10", "--pipeline", "3"]);
    command.args(["--connections", "2", "--json"]);
    let report = report(command, 0);
    assert_eq!(report["bytes_received"], 30_000_050);
}

#[test]
fn encrypted_messages_are_measured_too() {
    let calls = AtomicU64::new(0);
    let server =
        Server::new(HOST, 0, move |message| match calls.fetch_add(1, Ordering::SeqCst) % 4 {
            3 => Err(RpcError::new("too tired")),
            _ => Ok(message),
        });
    let server = start(server.auth_secret("s3cr3t").encrypt());
    for pipeline in ["1", "16"] {
        let options = ["--encrypt", "--connections", "3", "--pipeline", pipeline];
        let mut command = command(server.local_addr(), &options);
        command.args(["--requests", "1000", "--json"]).env("ARRPC_AUTH_SECRET", "s3cr3t");
        let report = report(command, 1);
        // One call in four, and the first one is not counted.
        let errors = report["errors"].as_u64();
        assert!(errors.is_some_and(|errors| (249..=251).contains(&errors)), "{report}");
        assert_eq!(report["requests"], 1000);
        assert_eq!(report["error_texts"][0]["text"], "arrpc.error.RpcException: too tired");
        assert_eq!(report["lost_connections"], 0);
        assert_eq!((&report["encrypted"], &report["signed"]), (&true.into(), &false.into()));
    }
    let mut wrong = command(server.local_addr(), &["--encrypt"]);
    wrong.env("ARRPC_AUTH_SECRET", "another");
    let ended = wrong.output().unwrap();
    assert_eq!(ended.status.code(), Some(4), "{ended:?}");
}

#[test]
fn a_reply_that_is_not_encrypted_as_asked_is_no_reply() {
    // The probe is encrypted with a nonce of its own, so that its reply is none to the others.
    let server = start(echo().auth_secret("s3cr3t").encrypt());
    let probed = AtomicU64::new(0);
    let first = Arc::new(Mutex::new(Vec::new()));
    let relay = stranger(move |mut client| {
        let is_probe = probed.fetch_add(1, Ordering::SeqCst) == 0;
        let mut request = [0; 1024];
        let read = client.read(&mut request)?;
        let mut reply = first.lock().unwrap();
        if is_probe {
            let mut behind = TcpStream::connect(server.local_addr())?;
            behind.write_all(&request[..read])?;
            let mut buffer = [0; 1024];
            let read = behind.read(&mut buffer)?;
            *reply = buffer[..read].to_vec();
        }
        client.write_all(&reply)?;
        client.read(&mut request).map(drop)
    });
    let mut command = command(relay, &["--encrypt", "--connections", "1", "--timeout", "3"]);
    command.args(["--requests", "2", "--json"]).env("ARRPC_AUTH_SECRET", "s3cr3t");
    let report = report(command, 1);
    let lost = report["lost_connection_texts"][0]["text"].as_str();
    let text = "the server sent what is no reply: it is not encrypted, or not for this request";
    assert_eq!(lost, Some(text), "{report}");
}

#[test]
#[cfg(unix)]
fn a_unix_socket_is_measured_too() {
    let place = Place::new();
    let _server = start(place.echo().tls(cert("self-signed.crt"), cert("self-signed.key")));
    let pinned = cert("self-signed.crt");
    let options = ["--connections", "3", "--pipeline", "5", "--tls-self-signed", &pinned];
    let report = bench(place.host(), &options, 0);
    assert_eq!((&report["requests"], &report["errors"]), (&1000.into(), &0.into()));
    assert_eq!(report["server"], place.host());
}

#[test]
fn a_server_that_cannot_be_used_fails_the_first_request_as_send_does() {
    let nobody = ReservedPort::new();
    let hint = "hint: nothing listens there; is the server running?";
    check(nobody.addr(), &[], 3, &["arrpc: Failed to connect to 127.0.0.1:", hint]);

    let signed = start(echo().auth_secret("s3cr3t"));
    check(signed.local_addr(), &[], 4, &["hint: give the secret with --auth-secret-file"]);

    let tls = start(echo().tls(cert("server.crt"), cert("server.key")));
    let other_ca = ["--tls-ca", "certs/other-ca.crt"];
    check(tls.local_addr(), &other_ca, 3, &["arrpc: TLS with", "hint: a CA in the file"]);
    check(tls.local_addr(), &[], 7, &["hint: give --tls, --tls-ca or --tls-self-signed"]);

    let silent = start(Server::new(HOST, 0, |_| pending::<()>()));
    check(silent.local_addr(), &["--timeout", "0.05"], 5, &["Timed out after 50ms"]);
}

#[test]
fn arguments_that_cannot_work_are_exit_code_2() {
    let nobody = ReservedPort::new();
    for (options, text) in [
        (["--requests", "1", "--duration", "1"].as_slice(), "cannot be used with"),
        (&["--message", "1", "--message-bytes", "1"], "cannot be used with"),
        (&["--connections", "0"], "write a whole number, 1 at least"),
        (&["--pipeline", "-1"], "write a whole number, 1 at least"),
        (&["--rate", "0"], "write how many a second, such as 1000 or 0.5"),
        (&["--rate", "inf"], "write how many a second, such as 1000 or 0.5"),
        (&["--message", "{foo}"], "quote JSON for the shell"),
        (&["--tls-ca", "certs/none"], "cannot read certificate certs/none"),
    ] {
        check(nobody.addr(), options, 2, &[text]);
    }
}

#[test]
fn requests_whose_connection_was_lost_are_errors_and_it_is_opened_again() {
    // Each connection has three replies, and its fourth request none.
    let server = stranger(|mut stream| {
        for _ in 0..3 {
            stream.read_exact(&mut [0; 9])?;
            stream.write_all(b"\xa6got it")?;
        }
        stream.read_exact(&mut [0; 9])
    });
    let mut command = command(server, &["--connections", "1", "--requests", "20", "--json"]);
    command.args(["--timeout", "20"]);
    let report = report(command, 1);
    assert_eq!((&report["requests"], &report["errors"]), (&20.into(), &5.into()), "{report}");
    assert_eq!(report["error_texts"][0]["text"], "the server ended the connection");
    assert_eq!(report["lost_connections"], 5);
}

#[test]
fn a_run_ends_when_connections_are_lost_without_a_reply_for_the_timeout() {
    let first = AtomicU64::new(0);
    let server = stranger(move |mut stream| {
        stream.read_exact(&mut [0; 9])?;
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            stream.write_all(b"\xa6got it")?;
            stream.read_exact(&mut [0])?; // to the end of the connection
        }
        Ok(())
    });
    let options = ["--connections", "2", "--duration", "1000", "--warmup", "0", "--json"];
    let mut command = command(server, &options);
    command.args(["--timeout", "1"]);
    let report = report(command, 1);
    assert_eq!(report["requests"], report["errors"]);
    assert!(report["lost_connections"].as_u64().is_some_and(|lost| lost >= 2), "{report}");
}

#[test]
fn requests_that_get_no_reply_within_the_timeout_are_errors_and_end_the_run() {
    for rate in [[].as_slice(), &["--rate", "1e6"]] {
        let calls = AtomicU64::new(0);
        let server = start(Server::new(HOST, 0, move |_| {
            let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if !is_first {
                    pending().await
                }
            }
        }));
        let mut command = command(server.local_addr(), &["--connections", "2", "--pipeline", "3"]);
        command.args(["--requests", "100", "--json", "--timeout", "1"]).args(rate);
        let report = report(command, 1);
        assert_eq!((&report["requests"], &report["errors"]), (&6.into(), &6.into()));
        assert_eq!(report["unsent"], 94);
        assert_eq!(report["error_texts"][0]["text"], "no reply within 1s");
    }
}

#[test]
fn a_latency_at_a_fixed_rate_counts_from_when_the_request_was_due() {
    // All requests are due while the server is busy with the first of them.
    let calls = AtomicU64::new(0);
    let server = start(Server::new(HOST, 0, move |_| {
        if calls.fetch_add(1, Ordering::SeqCst) == 1 {
            thread::sleep(Duration::from_millis(100));
        }
    }));
    let options = ["--connections", "1", "--rate", "1000", "--requests", "100", "--json"];
    let report = report(command(server.local_addr(), &options), 0);
    assert!(report["p50_us"].as_f64().is_some_and(|p50| p50 > 49_000.0), "{report}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_run_and_what_was_measured_is_printed() {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = calls.clone();
    let server = start(Server::new(HOST, 0, move |_| counter.fetch_add(1, Ordering::SeqCst)));
    let interrupted = |warmup: &str, signal: &str| {
        let before = calls.load(Ordering::SeqCst);
        let options = ["--duration", "inf", "--warmup", warmup, "--json"];
        let mut command = command(server.local_addr(), &options);
        let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while calls.load(Ordering::SeqCst) < before + 1000 {
            thread::yield_now();
        }
        let status = Command::new("kill").args([signal, &running.id().to_string()]).status();
        assert!(status.unwrap().success());
        running.wait_with_output().unwrap()
    };
    for signal in ["-INT", "-TERM"] {
        let output = interrupted("0", signal);
        let report: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["requests"].as_u64().is_some_and(|requests| requests > 100), "{report}");
        assert_eq!((output.status.code(), &report["errors"]), (Some(0), &0.into()));
        assert_eq!(report["unsent"], 0, "there is no end before which they had to be sent");
    }
    let output = interrupted("inf", "-INT");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("stopped while warming up, nothing was measured"), "{text}");
}

#[test]
fn a_server_that_goes_while_nothing_counts_is_noticed() {
    // The first request and ten others are answered, then nothing is.
    let answers = Arc::new(AtomicU64::new(0));
    let server = stranger(move |mut stream| {
        loop {
            stream.read_exact(&mut [0; 9])?;
            if answers.fetch_add(1, Ordering::SeqCst) > 10 {
                return Ok(());
            }
            stream.write_all(b"\xa6got it")?;
        }
    });
    let options = ["--connections", "2", "--warmup", "5", "--timeout", "1", "--json"];
    let report = report(command(server, &options), 1);
    assert_eq!(report["requests"], report["errors"], "{report}");
    assert!(report["lost_connections"].as_u64().is_some_and(|lost| lost >= 2), "{report}");
}

#[test]
fn what_is_no_reply_is_an_error() {
    for (behind_first, text) in [
        (b"\xa6got it\xc1".as_slice(), "the server sent what is no reply"),
        (b"\xa6got it\xa6got it", "the server sent more replies than there were requests"),
    ] {
        let first = AtomicU64::new(0);
        let server = stranger(move |mut stream| {
            let is_first = first.fetch_add(1, Ordering::SeqCst) == 0;
            stream.read_exact(&mut [0; 9])?;
            stream.write_all(if is_first { b"\xa6got it" } else { behind_first })?;
            stream.read_exact(&mut [0; 9])
        });
        let options = ["--connections", "1", "--requests", "2", "--json"];
        let report = report(command(server, &options), 1);
        let lost = report["lost_connection_texts"][0]["text"].as_str();
        assert!(lost.is_some_and(|lost| lost.starts_with(text)), "{report}");
    }
}

/// Sends 1,000 requests, and reads the report.
#[track_caller]
fn bench(server: impl Display, options: &[&str], code: i32) -> Json {
    let mut command = command(server, options);
    command.args(["--requests", "1000", "--json"]);
    report(command, code)
}

#[track_caller]
fn report(mut command: Command, code: i32) -> Json {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.is_empty(), code == 0, "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn check(server: SocketAddr, options: &[&str], code: i32, texts: &[&str]) {
    let output = command(server, options).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty() && texts.iter().all(|text| stderr.contains(text)), "{stderr}");
}

/// The command in the package's directory, with nothing in its environment that it looks at.
fn command(server: impl Display, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arrpc"));
    command.args(["bench", &server.to_string()]).args(options);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    for variable in ["ARRPC_AUTH_SECRET", "RUST_LOG", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(variable);
    }
    command
}

/// A server that does this with every connection, and ends it.
fn stranger(
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((HOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    addr
}

#[test]
fn bytes_that_make_no_reply_do_not_keep_a_run_alive() {
    let connections = AtomicU64::new(0);
    let server = stranger(move |mut stream| {
        let is_probe = connections.fetch_add(1, Ordering::SeqCst) == 0;
        stream.read_exact(&mut [0; 9])?;
        if is_probe {
            return stream.write_all(b"\x07");
        }
        // A text of 16 MiB, byte by byte.
        stream.write_all(b"\xdb\x00\xff\xff\xff")?;
        loop {
            stream.write_all(b"a")?;
            thread::sleep(Duration::from_millis(20));
        }
    });
    let options = ["--connections", "1", "--timeout", "1"];
    let report = bench(server, &options, 1);
    assert_eq!(report["errors"], report["requests"]);
}
