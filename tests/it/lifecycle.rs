//! How servers start, stop, and say what is wrong with their options.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use arrpc::{Context, Error, Handler, Response, Server, Value, blocking, value};
use async_channel::unbounded;

use crate::loopback::cert;
use crate::raw::{End, Raw};

#[test]
fn every_option_of_a_server_has_the_default_that_its_docs_state() {
    let server = Server::new("h", 1, |message| message);
    assert_eq!(
        format!("{server:?}"),
        "Server { host: \"h\", port: 1, handler: \"closure\", hooks: Hooks { before: 0, after: 0, on_error: 0 }, threads: None, \
         limits: Limits { \
         message: Limits { max_bytes: 16777216, max_depth: 128, max_items: 1048576 }, \
         max_memory_bytes: None, max_in_flight: 64, max_connections: 10000, \
         refuse_excess_connections: false, timeouts: Timeouts { tls_handshake: 5s, message: 30s, \
         write: 10s, idle: None, handler: None }, drain_timeout: 10s, \
         tcp: TcpOptions { keepalive: 60s, nodelay: true }, backlog: 1024 }, auth_secret: None, tokens: None, http: None, http_only: false, encrypt: false, tls: None, \
         tls_client_ca: None, metrics: false, metrics_host: \"0.0.0.0\", metrics_port: 9095, \
         debug: false, after_start: 0, on_connect: 0, on_disconnect: 0, on_stop: 0 }"
    );
}

#[test]
fn a_secret_does_not_show_in_what_is_printed() {
    let server = Server::new("h", 1, |message| message).auth_secret("hunter2");
    let client = arrpc::Client::new("h", 1).auth_secret("hunter2");
    for shown in [format!("{server:?}"), format!("{client:?}")] {
        assert!(shown.contains("auth_secret: Some(Secret(..))"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }
}

#[test]
fn options_that_cannot_work_are_refused_at_the_start() {
    let server = || Server::new("127.0.0.1", 0, |message| message);
    let check = |server: Server, text: &str| match server.start_background() {
        Err(Error::Config(found)) => assert!(found.contains(text), "{found:?} lacks {text:?}"),
        other => panic!("{text}: {other:?}"),
    };
    check(server().threads(0), "threads must be 1 at least");
    check(server().max_in_flight(0), "max_in_flight must be 1 at least");
    check(server().max_depth(1025), "max_depth must be 1024 at most");
    check(server().max_message_bytes(0), "max_message_bytes must be 1 at least");
    check(server().max_items(0), "max_items must be 1 at least");
    check(server().max_depth(0), "max_depth must be 1 at least");
    check(server().max_memory_bytes(0), "max_memory_bytes must be 1 at least");
    check(server().max_connections(0), "max_connections must be 1 at least");
    check(server().backlog(0), "backlog must be 1 at least");
    check(server().tls_handshake_timeout(Duration::ZERO), "tls_handshake_timeout is zero");
    check(server().message_timeout(Duration::ZERO), "message_timeout is zero");
    check(server().write_timeout(Duration::ZERO), "write_timeout is zero");
    check(server().idle_timeout(Duration::ZERO), "idle_timeout is zero");
    check(server().handler_timeout(Duration::ZERO), "handler_timeout is zero");
    check(server().tcp_keepalive(Duration::ZERO), "tcp_keepalive must be 1 s to 32767 s");
    check(server().auth_secret(""), "auth_secret is empty");
    check(server().encrypt().auth_secret(""), "auth_secret is empty");
    check(server().encrypt(), "encrypt needs auth_secret");
    check(server().tls_client_ca(cert("ca.crt")), "tls_client_ca needs tls");
    check(
        server().tls("no.crt", cert("server.key")),
        "cannot read certificate no.crt: No such file",
    );
    check(
        server().tls(cert("server.crt"), "no.key"),
        "cannot read private key no.key: No such file",
    );
    check(server().tls(cert("server.key"), cert("server.key")), "holds no certificate");
    check(server().tls(cert("server.crt"), cert("server.crt")), "holds no private key");
    check(server().tls(cert("server.crt"), cert("other.key")), "with the key");
    let tls = server().tls(cert("server.crt"), cert("server.key"));
    check(tls.tls_client_ca(cert("make.sh")), "make.sh holds no certificate in PEM format");
}

#[test]
fn a_port_that_is_taken_is_a_bind_error_with_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let server = || Server::new("127.0.0.1", port, |message| message);
    let errors = [
        server().start().expect_err("the port is taken"),
        server().start_background().expect_err("the port is taken"),
        smol::block_on(server().serve(std::future::pending())).expect_err("the port is taken"),
        Server::new("127.0.0.1", 0, |message| message)
            .metrics_host("127.0.0.1")
            .metrics_port(port)
            .start()
            .expect_err("the port is taken"),
    ];
    for error in errors {
        assert_eq!(error.to_string(), format!("failed to listen on 127.0.0.1:{port}"));
        assert!(matches!(error, Error::Bind { .. }), "{error:?}");
    }
    let error = Server::new("no.such.host.invalid", 1, |message| message).start();
    assert!(matches!(error, Err(Error::Bind { .. })), "{error:?}");
}

#[test]
fn callbacks_learn_the_bound_address_once_the_server_listens() {
    let (sender, called) = mpsc::channel();
    let again = sender.clone();
    let connects = move |name: &'static str, address: SocketAddr| {
        TcpStream::connect(address).expect("it listens");
        (name, address)
    };
    let handle = Server::new("127.0.0.1", 0, |message| message)
        .after_start(move |address| sender.send(connects("first", address)).expect("open"))
        .after_start(move |address| again.send(connects("second", address)).expect("open"))
        .start_background()
        .expect("a free port");
    assert_eq!(called.recv(), Ok(("first", handle.local_addr())));
    assert_eq!(called.recv(), Ok(("second", handle.local_addr())));
    assert!(called.recv().is_err(), "each is called once");
}

#[test]
fn an_empty_host_listens_on_every_interface_and_localhost_on_ipv4() {
    for (host, expected) in [("", "0.0.0.0"), ("localhost", "127.0.0.1")] {
        let handle = Server::new(host, 0, |message| message).start_background().expect("a port");
        assert_eq!(handle.local_addr().ip().to_string(), expected);
    }
}

#[test]
fn a_stop_finishes_what_was_accepted_resets_the_idle_and_frees_the_port() {
    let (started_sender, started) = unbounded();
    let (gate, wait) = unbounded::<()>();
    let handle = Server::new("127.0.0.1", 0, move |message: Value| {
        let (started, wait) = (started_sender.clone(), wait.clone());
        async move {
            if message == Value::from(7) {
                started.send(()).await.map_err(|error| error.to_string())?;
                wait.recv().await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(message)
        }
    })
    .start_background()
    .expect("a free port");
    let address = handle.local_addr();

    let mut fresh = Raw::connect(address);
    let mut idle = Raw::connect(address);
    idle.send(&[1]);
    idle.expect(&[1]);
    let mut busy = Raw::connect(address);
    busy.send(&[7, 2]);
    started.recv_blocking().expect("the handler runs");

    handle.stop();
    handle.stop(); // once more does nothing
    fresh.expect_end(End::Reset);
    idle.expect_end(End::Reset);
    assert!(TcpStream::connect(address).is_err(), "nothing is accepted any more");
    gate.try_send(()).expect("the handler waits");
    handle.join();
    // Linux keeps what a peer has received for it, also behind a reset.
    busy.expect(&[7, 2]);
    busy.expect_end(End::Reset);
    TcpListener::bind(address).expect("the port is free");
}

#[test]
fn a_handler_that_never_ends_is_given_up_when_the_drain_timeout_is_over() {
    let (started_sender, started) = unbounded();
    let handle = Server::new("127.0.0.1", 0, move |_| {
        let started = started_sender.clone();
        async move {
            let _ = started.send(()).await;
            std::future::pending::<()>().await;
        }
    })
    .drain_timeout(Duration::from_millis(10))
    .start_background()
    .expect("a free port");
    let mut peer = Raw::connect(handle.local_addr());
    peer.send(&[1]);
    started.recv_blocking().expect("the handler runs");
    handle.stop();
    handle.join();
    peer.expect_end(End::Reset); // an orderly close would be a reply of None to a Python client
}

#[test]
fn a_stop_answers_those_who_wait_to_be_accepted() {
    for _ in 0..10 {
        let server =
            Server::new("127.0.0.1", 0, |message| message).start_background().expect("a free port");
        let peers: Vec<_> = (0..40)
            .map(|_| {
                let mut peer = Raw::connect(server.local_addr());
                peer.send(b"\x07");
                peer
            })
            .collect();
        server.stop();
        for mut peer in peers {
            peer.expect(b"\x07");
            peer.expect_end(End::Reset);
        }
        server.join();
    }
}

#[test]
fn a_handler_that_blocks_its_thread_does_not_hold_up_the_stop_for_ever() {
    let (started_sender, started) = unbounded();
    let (gate, wait) = unbounded::<()>();
    let handle = Server::new("127.0.0.1", 0, move |_| {
        let _ = started_sender.try_send(());
        let _ = wait.recv_blocking(); // what no handler should do
    })
    .threads(1)
    .drain_timeout(Duration::from_millis(10))
    .start_background()
    .expect("a free port");
    let mut peer = Raw::connect(handle.local_addr());
    peer.send(&[1]);
    started.recv_blocking().expect("the handler runs");
    handle.stop();
    handle.join();
    assert!(gate.try_send(()).is_ok(), "the handler still waits");
}

#[test]
fn a_server_goes_on_when_its_handle_is_dropped() {
    let handle = Server::new("127.0.0.1", 0, |message| message).start_background().expect("a port");
    let address = handle.local_addr();
    drop(handle);
    let mut peer = Raw::connect(address);
    peer.send(&[1]);
    peer.expect(&[1]);
}

#[test]
fn serve_runs_on_the_callers_executor_until_its_stop_is_ready() {
    let (stop, stopped) = unbounded::<()>();
    let (address_sender, address) = mpsc::channel();
    let server = Server::new("127.0.0.1", 0, |message| message)
        .after_start(move |address| address_sender.send(address).expect("open"));
    let serving = std::thread::spawn(move || {
        smol::block_on(server.serve(async move {
            let _ = stopped.recv().await;
        }))
    });
    let mut peer = Raw::connect(address.recv().expect("it starts"));
    peer.send(&[1]);
    peer.expect(&[1]);
    stop.try_send(()).expect("it waits for this");
    serving.join().expect("no panic").expect("no error");
    peer.expect_end(End::Reset);
}

#[test]
fn the_context_tells_who_calls_and_how() {
    let server = Server::with_context("127.0.0.1", 0, |_, context: Context| {
        let port = context.peer_addr().map(|peer| peer.port()).unwrap_or_default();
        value!([port, context.is_signed(), context.is_tls(), context.tls_identity().is_some()])
    });
    let handle = server.auth_secret("s").start_background().expect("a free port");
    let client = blocking::Client::new("127.0.0.1", handle.local_addr().port()).auth_secret("s");
    let told = client.send(Value::Nil).expect("a reply");
    assert_eq!(
        told.as_array().map(|told| &told[1..]),
        value!([true, false, false]).as_array().map(|told| &told[..])
    );

    let server = Server::with_context("127.0.0.1", 0, |_, context: Context| async move {
        context.peer_addr().map(|peer| peer.port())
    });
    let handle = server.start_background().expect("a free port");
    let mut peer = Raw::connect(handle.local_addr());
    let port = peer.0.local_addr().expect("connected").port();
    peer.send(&[0]);
    peer.expect(&[&[0xcd][..], &port.to_be_bytes()].concat());
}

#[test]
fn a_type_of_ones_own_is_a_handler() {
    struct Counter(std::sync::atomic::AtomicU64);
    impl Handler for Counter {
        fn call(&self, message: Value, _: &Context) -> Response {
            let count = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            match message.as_bool() {
                Some(true) => Response::later(async move { count }),
                _ => Response::ready(count),
            }
        }
    }
    let server = Server::with_handler("127.0.0.1", 0, Counter(5.into()));
    assert!(format!("{server:?}").contains("handler: \"Counter\""));
    let handle = server.start_background().expect("a free port");
    let mut peer = Raw::connect(handle.local_addr());
    peer.send(b"\xc3\xc2");
    peer.expect(&[5, 6]);
}
