//! What a client promises: one reply for each call and its own, at most one run of each request,
//! and an error that says what happened.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrpc::{
    Client, Context, Error, Phase, RpcError, Server, ServerHandle, Value, blocking, value,
};
use async_channel::unbounded;

use smol::Timer;
use smol::future::FutureExt;

use crate::events::failures_to_connect;
use crate::loopback::{ReservedPort, cert, echo, flaky_server, raw_server, read_byte, start};
use crate::raw::PATIENCE;

fn client(server: &ServerHandle) -> Client {
    Client::new("127.0.0.1", server.local_addr().port())
}

#[test]
fn every_option_of_a_client_has_the_default_that_its_docs_state() {
    let expected = "Client(Options { host: \"h\", port: 1, hooks: Hooks { before: 0, after: 0, on_error: 0 }, \
         timeout: None, \
         connect: ConnectOptions { con_max_retries: 5, tls_handshake_timeout: 5s, \
         tcp: TcpOptions { keepalive: 60s, nodelay: true } }, depth: 1, max_connections: 64, connection_lifetime: None, \
         idempotent_retries: AtMost(3), \
         limits: Limits { max_bytes: 67108864, max_depth: 128, max_items: 1048576 }, \
         auth_secret: None, encrypt: false, tls: [], tls_client_cert: None, metrics: false, \
         metrics_host: \"0.0.0.0\", metrics_port: 9095, debug: false })";
    assert_eq!(format!("{:?}", Client::new("h", 1)), expected);
    let blocking = format!("{:?}", blocking::Client::new("h", 1));
    assert_eq!(blocking, format!("Client({expected})"));
}

#[test]
fn a_client_is_clone_send_and_sync_and_its_calls_are_send() {
    fn check<T: Clone + Send + Sync>(_: &T) {}
    fn check_future(_: impl Future + Send) {}
    let client = Client::new("h", 1);
    check(&client);
    check(&blocking::Client::new("h", 1));
    check_future(client.send(1));
}

#[test]
fn values_come_back_as_they_were_falsy_ones_included() {
    let server = start(echo());
    let client = blocking::Client::from(client(&server));
    for message in [
        Value::Nil,
        value!(0),
        value!(false),
        value!(""),
        value!([]),
        value!({}),
        value!(0.0),
        Value::Binary(vec![]),
        value!({1: "one", (Value::Nil): nil, "deep": [[[{"x": -1}]]]}),
        Value::Ext(5, vec![1, 2, 3]),
        value!(u64::MAX),
        value!(i64::MIN),
    ] {
        assert_eq!(client.send(message.clone()).expect("a reply"), message);
    }
}

#[test]
fn what_a_handler_returns_as_an_error_is_an_rpc_error() {
    let server = Server::new("127.0.0.1", 0, |_| Err::<(), _>(RpcError::new("went wrong")))
        .start_background()
        .expect("a free port");
    match smol::block_on(client(&server).send(1)) {
        Err(Error::Rpc(error)) => assert_eq!(error.message(), "went wrong"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_that_cannot_work_fail_the_call_and_say_why() {
    let check = |client: Client, text: &str| match smol::block_on(client.send(1)) {
        Err(Error::Config(found)) => assert!(found.contains(text), "{found:?} lacks {text:?}"),
        other => panic!("{text}: {other:?}"),
    };
    let client = || Client::new("127.0.0.1", 1);
    check(client().con_max_retries(0), "con_max_retries must be 1 at least");
    check(client().max_connections(0), "max_connections must be 1 at least");
    check(client().pipelined(0), "pipelined must be 1 at least");
    check(client().max_depth(1025), "max_depth must be 1024 at most");
    check(client().max_items(0), "must be 1 at least");
    check(client().timeout(Duration::ZERO), "timeout is zero");
    check(client().auth_secret(""), "auth_secret is empty");
    check(client().auth_secret("").encrypt(), "auth_secret is empty");
    check(client().encrypt(), "encrypt needs auth_secret");
    for host in ["127.0.0.1:8080", "[::1]", "tcp://h", "/tmp/s.sock", "h:1"] {
        check(Client::new(host, 1), "is no host: give a name or an IP address");
    }
}

#[test]
fn a_server_that_is_not_there_is_tried_as_often_as_asked() {
    let reserved = ReservedPort::new();
    let port = reserved.addr().port();
    let client = Client::new("127.0.0.1", port).con_max_retries(3);
    let started = Instant::now();
    match smol::block_on(client.send(1)) {
        Err(error @ Error::Connect { attempts: 3, .. }) => assert_eq!(
            error.to_string(),
            format!("Failed to connect to 127.0.0.1:{port} with 3 attempts")
        ),
        other => panic!("{other:?}"),
    }
    // 50 and 100 ms, less up to half of each.
    assert!(started.elapsed() >= Duration::from_millis(75), "it waits between the attempts");
}

#[test]
fn a_server_that_comes_up_after_the_first_attempts_is_found() {
    let reserved = ReservedPort::new();
    let address = reserved.addr();
    let failed = failures_to_connect(address);
    let client = Client::new("127.0.0.1", address.port()).con_max_retries(100);
    let call = smol::spawn(async move { client.send(1).await });
    for _ in 0..2 {
        failed.recv_blocking().expect("an attempt fails");
    }
    let _server = start(Server::new("127.0.0.1", address.port(), |message| message));
    assert_eq!(smol::block_on(call).expect("a reply"), value!(1));
}

#[test]
fn the_timeout_says_which_phase_took_too_long() {
    let check = |client: Client, expected: Phase| match smol::block_on(client.send(1)) {
        Err(error @ Error::Timeout { phase, .. }) => {
            assert_eq!(phase, expected);
            assert!(error.to_string().starts_with("Timed out after 50ms "), "{error}");
        }
        other => panic!("{expected:?}: {other:?}"),
    };
    let short = |port| Client::new("127.0.0.1", port).timeout(Duration::from_millis(50));
    let (keep, silent) = unbounded();
    let port = raw_server(move |_, stream| keep.try_send(stream).expect("open"));
    check(short(port), Phase::Reply);
    check(short(port).tls_cafile(cert("ca.crt")), Phase::Tls);
    drop(silent);
    // Nothing listens, so the attempts and the waits between them take their time.
    let reserved = ReservedPort::new();
    check(short(reserved.addr().port()).con_max_retries(100), Phase::Connect);
}

#[test]
fn a_large_request_to_a_peer_that_does_not_read_times_out_while_sending() {
    let (keep, _silent) = unbounded();
    let port = raw_server(move |_, stream| keep.try_send(stream).expect("open"));
    let client = Client::new("127.0.0.1", port).timeout(Duration::from_millis(100));
    match smol::block_on(client.send(Value::Binary(vec![0; 32 << 20]))) {
        Err(Error::Timeout { phase: Phase::Send, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_reply_is_never_handed_to_the_next_call() {
    let (gate, wait) = unbounded::<()>();
    let (passed_sender, passed) = unbounded::<()>();
    let server = Server::new("127.0.0.1", 0, move |message: Value| {
        let (wait, passed) = (wait.clone(), passed_sender.clone());
        async move {
            if message == Value::from("slow") {
                let _ = wait.recv().await;
                let _ = passed.send(()).await;
            }
            message
        }
    })
    .start_background()
    .expect("a free port");
    let client = client(&server).timeout(Duration::from_millis(500)).max_connections(1);
    smol::block_on(async {
        for number in 0..5 {
            assert!(matches!(client.send("slow").await, Err(Error::Timeout { .. })));
            gate.send(()).await.expect("the server lives"); // now the late reply comes
            assert_eq!(client.send(number).await.expect("a reply"), value!(number));
            passed.recv().await.expect("the server lives"); // else the next one may take its turn
        }
    });
}

#[test]
fn an_idempotent_request_is_sent_again_as_often_as_it_may() {
    let (port, received) = flaky_server(3);
    let client = Client::new("127.0.0.1", port);
    let reply = smol::block_on(client.idempotent().send(1)).expect("the fourth one is answered");
    assert_eq!(reply, value!(7));
    assert_eq!(received.load(Ordering::SeqCst), 4);

    let (port, received) = flaky_server(usize::MAX);
    let client = blocking::Client::new("127.0.0.1", port).idempotent_retries(1).idempotent();
    match client.send(1) {
        Err(Error::Disconnected { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(received.load(Ordering::SeqCst), 2);
}

#[test]
fn the_retries_of_all_calls_of_a_client_are_few() {
    let (port, received) = flaky_server(usize::MAX);
    let client = blocking::Client::new("127.0.0.1", port).idempotent();
    let calls = 20;
    for _ in 0..calls {
        assert!(matches!(client.send(1), Err(Error::Disconnected { .. })));
    }
    // Ten to begin with; the tenth part of twenty calls is not earned when the ten are used up.
    let retries = received.load(Ordering::SeqCst) - calls;
    assert!((10..=12).contains(&retries), "{retries} retries");
}

#[test]
fn retries_end_with_the_time_of_the_call() {
    let (port, _) = flaky_server(usize::MAX);
    let client = Client::new("127.0.0.1", port).timeout(Duration::from_millis(60));
    // The pauses alone are 25 ms and 50 ms at the least.
    match smol::block_on(client.idempotent_retries(9).idempotent().send(1)) {
        Err(Error::Timeout { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_whose_connection_ends_is_not_sent_again() {
    let received = Arc::new(AtomicUsize::new(0));
    let counted = received.clone();
    let port = raw_server(move |number, mut stream| {
        while read_byte(&mut stream).is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
            if number > 0 {
                stream.write_all(b"\x07").expect("open");
            } else {
                break; // the first connection ends without a reply
            }
        }
    });
    let client = Client::new("127.0.0.1", port);
    match smol::block_on(client.send(1)) {
        Err(error @ Error::Disconnected { .. }) => {
            assert!(error.to_string().contains("the request may have run"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(received.load(Ordering::SeqCst), 1);
    assert_eq!(smol::block_on(client.send(1)).expect("a reply"), value!(7));
    assert_eq!(received.load(Ordering::SeqCst), 2);
}

#[test]
fn a_restarted_server_is_found_again_and_no_request_is_lost() {
    let server = start(echo());
    let address = server.local_addr();
    let client = blocking::Client::from(client(&server));
    let mut server = Some(server);
    for round in 0..5 {
        for number in 0..10 {
            assert_eq!(client.send(number).expect("a reply"), value!(number));
        }
        let stopped = server.take().expect("one runs");
        stopped.stop();
        stopped.join();
        let restarted = Server::new("127.0.0.1", address.port(), |message| message);
        server =
            Some(restarted.start_background().unwrap_or_else(|error| panic!("{round}: {error}")));
    }
}

#[test]
fn more_than_one_reply_is_a_protocol_error_and_never_the_next_calls_reply() {
    let port = raw_server(|number, mut stream| {
        thread::spawn(move || {
            while let Some(byte) = read_byte(&mut stream) {
                let reply = if number % 2 == 0 { vec![byte, 0x63] } else { vec![byte] };
                let _ = stream.write_all(&reply);
            }
        });
    });
    let client = Client::new("127.0.0.1", port);
    smol::block_on(async {
        match client.send(1).await {
            Err(Error::Protocol(text)) => {
                assert!(text.contains("1 bytes behind its reply"), "{text}")
            }
            other => panic!("{other:?}"),
        }
        for number in 0..20 {
            assert_eq!(client.send(number).await.expect("a reply"), value!(number));
        }
    });
}

#[test]
fn a_server_of_another_protocol_is_named() {
    for (banner, advice) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "speaks HTTP, not arrpc"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "speaks SSH, not arrpc"),
        (b"\x15\x03\x03\x00\x02\x02\x32", "speaks TLS: set tls, tls_cafile or tls_self_signed"),
    ] {
        let port = raw_server(move |_, mut stream| {
            let _ = stream.write_all(banner);
            let _ = read_byte(&mut stream);
        });
        match smol::block_on(Client::new("127.0.0.1", port).send(1)) {
            Err(Error::Protocol(text)) => assert!(text.contains(advice), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn replies_beyond_the_limits_are_protocol_errors_that_name_the_limit() {
    let server =
        Server::new("127.0.0.1", 0, |_| vec![0u8; 100]).start_background().expect("a port");
    let limited = client(&server).max_message_bytes(50);
    match smol::block_on(limited.send(1)) {
        Err(Error::Protocol(text)) => assert!(text.contains("max_message_bytes"), "{text}"),
        other => panic!("{other:?}"),
    }
    let port = raw_server(|_, mut stream| {
        let _ = stream.write_all(b"\xc1");
        let _ = read_byte(&mut stream);
    });
    match smol::block_on(Client::new("127.0.0.1", port).send(1)) {
        Err(Error::Protocol(text)) => assert!(text.contains("0xc1"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refusal_before_the_end_of_a_large_request_is_read() {
    let server = Server::new("127.0.0.1", 0, |message| message)
        .max_message_bytes(1000)
        .start_background()
        .expect("a free port");
    match smol::block_on(client(&server).send(Value::Binary(vec![0; 8 << 20]))) {
        Err(Error::Rpc(error)) => {
            assert_eq!(error.message(), "Message is longer than 1000 bytes (max_message_bytes)")
        }
        other => panic!("{other:?}"),
    }
}

/// The port of each connection, as the server sees it.
fn ports() -> ServerHandle {
    Server::with_context("127.0.0.1", 0, |_, context: Context| {
        context.peer_addr().map(|peer| peer.port())
    })
    .start_background()
    .expect("a free port")
}

#[test]
fn one_connection_serves_calls_in_a_row_until_its_lifetime_is_over() {
    let server = ports();
    let forever = client(&server);
    let short = client(&server).connection_lifetime(Duration::ZERO);
    smol::block_on(async {
        let mut seen = HashSet::new();
        for _ in 0..20 {
            seen.insert(forever.send(Value::Nil).await.expect("a reply").to_string());
        }
        assert_eq!(seen.len(), 1);
        seen.clear();
        for _ in 0..20 {
            seen.insert(short.send(Value::Nil).await.expect("a reply").to_string());
        }
        assert_eq!(seen.len(), 20, "each is used once");
    });
}

#[test]
fn no_more_than_max_connections_are_open_and_further_calls_wait() {
    let server = ports();
    let client = client(&server).max_connections(3);
    let executor = smol::Executor::new();
    let seen: HashSet<String> = smol::block_on(executor.run(async {
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let client = client.clone();
                executor.spawn(async move { client.send(Value::Nil).await })
            })
            .collect();
        let mut seen = HashSet::new();
        for call in calls {
            seen.insert(call.await.expect("a reply").to_string());
        }
        seen
    }));
    assert!((1..=3).contains(&seen.len()), "{seen:?}");
}

#[test]
fn a_busy_task_does_not_keep_another_from_its_turn() {
    let server = start(echo());
    let client = client(&server).max_connections(1);
    let executor = smol::Executor::new();
    smol::block_on(executor.run(async {
        let greedy = client.clone();
        let busy = executor.spawn(async move {
            loop {
                greedy.send(1).await.expect("a reply");
            }
        });
        for number in 0..20 {
            let patience = async {
                Timer::after(PATIENCE).await;
                panic!("call {number} never had its turn");
            };
            let call = async { client.send(2).await.expect("a reply") };
            assert_eq!(call.or(patience).await, value!(2));
        }
        busy.cancel().await;
    }));
}

#[test]
fn a_blocking_client_is_shared_by_threads_and_no_reply_is_swapped() {
    let server = start(echo());
    let client = blocking::Client::from(client(&server));
    thread::scope(|scope| {
        for task in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for call in 0..500 {
                    let message = value!([task, call]);
                    assert_eq!(client.send(message.clone()).expect("a reply"), message);
                }
            });
        }
    });
}

/// Calls of [`many_tasks_with_random_cancellations`], unless `ARRPC_CALLS` says otherwise.
const CALLS: u32 = 40_000;

/// 64 tasks share a client. Handlers answer at once or late; callers give up at random, by
/// dropping the call or by the client's timeout. Each call has a number: the reply must be its own,
/// and no request may run twice. `ARRPC_CALLS=1000000 cargo test --release many_tasks` is the long
/// run; `ARRPC_SEED` repeats one.
#[test]
fn many_tasks_with_random_cancellations_get_their_own_replies_and_nothing_runs_twice() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let calls = setting("ARRPC_CALLS").map_or(CALLS, |calls: u64| calls as u32);
    let seed = setting("ARRPC_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("ARRPC_CALLS={calls} ARRPC_SEED={seed}");

    let runs: Arc<Vec<AtomicU8>> = Arc::new((0..calls).map(|_| AtomicU8::new(0)).collect());
    let counted = runs.clone();
    let server = Server::new("127.0.0.1", 0, move |message: Value| {
        let number = message["n"].as_u64().unwrap_or(u64::MAX) as usize;
        let delay = message["delay"].as_u64().unwrap_or_default();
        counted[number].fetch_add(1, Ordering::SeqCst);
        async move {
            if delay > 0 {
                Timer::after(Duration::from_micros(delay)).await;
            }
            message
        }
    })
    .threads(2)
    .start_background()
    .expect("a free port");
    let patient = [1, 8].map(|depth| client(&server).pipelined(depth).max_connections(16));
    let hasty = patient.clone().map(|client| client.timeout(Duration::from_millis(2)));

    let next = AtomicUsize::new(0);
    let [answered, dropped, timed_out] = [const { AtomicUsize::new(0) }; 3];
    let executor = smol::Executor::new();
    smol::block_on(executor.run(async {
        let tasks: Vec<_> = (0..64u64)
            .map(|task| {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(task));
                let (patient, hasty) = (&patient, &hasty);
                let (next, runs) = (&next, &runs);
                let (answered, dropped, timed_out) = (&answered, &dropped, &timed_out);
                executor.spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::SeqCst);
                        if number >= calls as usize {
                            return;
                        }
                        let delay = if random.u8(..8) == 0 { random.u64(..3000) } else { 0 };
                        let padding = "x".repeat(if random.u8(..64) == 0 { 70_000 } else { 5 });
                        let message = value!({"n": number, "delay": delay, "padding": padding});
                        let (is_hasty, pipelines) = (random.bool(), random.bool());
                        let clients = if is_hasty { hasty } else { patient };
                        let client = &clients[usize::from(pipelines)];
                        let give_up = match random.u8(..4) {
                            0 => Some(Duration::from_micros(random.u64(..2000))),
                            _ => None,
                        };
                        let call = async { Some(client.send(message.clone()).await) };
                        let result = match give_up {
                            None => call.await,
                            Some(patience) => {
                                call.or(async {
                                    Timer::after(patience).await;
                                    None
                                })
                                .await
                            }
                        };
                        match result {
                            None => dropped.fetch_add(1, Ordering::SeqCst),
                            Some(Ok(reply)) => {
                                assert_eq!(reply, message, "the reply of another call");
                                assert_eq!(runs[number].load(Ordering::SeqCst), 1);
                                answered.fetch_add(1, Ordering::SeqCst)
                            }
                            Some(Err(Error::Timeout { .. })) if is_hasty => {
                                timed_out.fetch_add(1, Ordering::SeqCst)
                            }
                            Some(Err(error)) => panic!("call {number} is lost: {error:?}"),
                        };
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    }));
    server.stop();
    server.join();
    assert!(runs.iter().all(|runs| runs.load(Ordering::SeqCst) <= 1), "a request ran twice");
    let counts = [&answered, &dropped, &timed_out].map(|count| count.load(Ordering::SeqCst));
    println!("answered, dropped, timed out: {counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), calls as usize);
    assert!(counts.iter().all(|&count| count > 0), "every outcome was there");
}

#[test]
fn a_call_that_waits_takes_less_than_two_kibibytes() {
    // What calls seldom need is boxed: connecting, retries, the loading of options. With that in
    // it, the future of each took 4,528 bytes.
    let call = size_of_val(&Client::new("127.0.0.1", 1).send(Value::Nil));
    assert!(call < 2048, "{call} bytes");
}
