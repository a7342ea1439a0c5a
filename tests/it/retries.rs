//! Calls that are sent again until they have a reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrpc::{Client, Error, Phase, Server, ServerHandle, Value, value};
use async_channel::unbounded;
use smol::future::pending;

use crate::events::failures_to_connect;
use crate::loopback::{HOST, ReservedPort, flaky_server, start};

#[test]
fn endless_retries_find_a_server_that_goes_away_with_a_request_and_comes_back() {
    for depth in [1, 8] {
        let reserved = ReservedPort::new();
        let address = reserved.addr();
        let port = address.port();
        let failed = failures_to_connect(address);
        let (entered, inside) = unbounded();
        let stuck = Server::new(HOST, port, move |_| {
            entered.try_send(()).expect("unbounded");
            pending::<()>()
        });
        let stuck: ServerHandle = start(stuck.drain_timeout(Duration::ZERO));
        let client = Client::new(HOST, port).pipelined(depth).con_max_retries(1);
        let client = client.idempotent_retries_endless().idempotent();
        let call = smol::spawn(async move { client.send(1).await });
        inside.recv_blocking().expect("it is called");
        stuck.stop();
        stuck.join();
        for _ in 0..3 {
            failed.recv_blocking().expect("nobody listens, and it goes on");
        }
        let _server = start(Server::new(HOST, port, |message| message));
        assert_eq!(smol::block_on(call).expect("a reply"), value!(1));
    }
}

#[test]
fn endless_retries_end_with_the_time_of_the_call() {
    let reserved = ReservedPort::new();
    let away = Client::new(HOST, reserved.addr().port()).con_max_retries(1);
    let (port, _) = flaky_server(usize::MAX);
    for client in [away, Client::new(HOST, port)] {
        let client = client.timeout(Duration::from_millis(60)).idempotent_retries_endless();
        match smol::block_on(client.idempotent().send(1)) {
            Err(Error::Timeout { phase: Phase::Connect | Phase::Reply | Phase::Send, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_call_that_is_not_idempotent_is_sent_once_whatever_the_retries_are() {
    let (port, received) = flaky_server(1);
    let client = Client::new(HOST, port).idempotent_retries_endless();
    match smol::block_on(client.send(1)) {
        Err(Error::Disconnected { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(received.load(Ordering::SeqCst), 1);
}

#[test]
fn endless_retries_end_with_an_error_of_the_server() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let server = start(Server::new(HOST, 0, move |_: Value| {
        counted.fetch_add(1, Ordering::SeqCst);
        Err::<(), _>("no")
    }));
    let client = Client::new(HOST, server.local_addr().port()).idempotent_retries_endless();
    let error = smol::block_on(client.idempotent().send(1)).expect_err("the server's");
    assert_eq!(error.to_string(), "no");
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn of_the_two_ways_to_set_retries_the_last_one_counts() {
    let client = || Client::new(HOST, 1);
    let finite = client().idempotent_retries_endless().idempotent_retries(0);
    assert!(format!("{finite:?}").contains("idempotent_retries: AtMost(0)"));
    let endless = client().idempotent_retries(7).idempotent_retries_endless();
    assert!(format!("{endless:?}").contains("idempotent_retries: Endless"));
}
