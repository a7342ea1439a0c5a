//! Calls that share connections.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrpc::{Client, Context, Error, Phase, Server, ServerHandle, Value, blocking, value};
use async_channel::{Receiver, Sender, unbounded};
use smol::Task;

use crate::loopback::{HOST, ReservedPort, cert, echo, raw_server, read_byte, start};

fn client(server: &ServerHandle, depth: usize) -> Client {
    Client::new(HOST, server.local_addr().port()).pipelined(depth)
}

fn call(client: &Client, message: impl Into<Value>) -> Task<Result<Value, Error>> {
    let (client, message) = (client.clone(), message.into());
    smol::spawn(async move { client.send(message).await })
}

/// A server of raw bytes that says which byte it got on which connection, and sends what it is told
/// to.
struct Puppet {
    port: u16,
    /// The number of the connection, its next byte, and where its answers go.
    got: Receiver<(usize, u8, Sender<Vec<u8>>)>,
    /// The number of the connection that the client has ended.
    ended: Receiver<usize>,
}

impl Puppet {
    fn new() -> Self {
        let (sender, got) = unbounded();
        let (end, ended) = unbounded();
        let port = raw_server(move |number, mut stream| {
            let (answers, to_send) = unbounded::<Vec<u8>>();
            let mut writer = stream.try_clone().expect("a socket");
            thread::spawn(move || {
                while let Ok(bytes) = to_send.recv_blocking() {
                    if writer.write_all(&bytes).is_err() {
                        return;
                    }
                }
                let _ = writer.shutdown(std::net::Shutdown::Both);
            });
            let (sender, end) = (sender.clone(), end.clone());
            thread::spawn(move || {
                while let Some(byte) = read_byte(&mut stream) {
                    let _ = sender.send_blocking((number, byte, answers.clone()));
                }
                let _ = end.send_blocking(number);
            });
        });
        Self { port, got, ended }
    }

    fn client(&self, depth: usize) -> Client {
        Client::new(HOST, self.port).pipelined(depth)
    }

    /// Waits for `byte` on the connection `number`.
    fn expect(&self, number: usize, byte: u8) -> Sender<Vec<u8>> {
        let (found, got, answers) = self.got.recv_blocking().expect("it runs");
        assert_eq!((found, got), (number, byte));
        answers
    }
}

fn send(answers: &Sender<Vec<u8>>, bytes: &[u8]) {
    answers.send_blocking(bytes.to_vec()).expect("the connection is open");
}

#[test]
fn many_calls_share_one_connection_and_each_gets_its_own_reply() {
    let peers = Arc::new(std::sync::Mutex::new(HashSet::new()));
    let seen = peers.clone();
    let server = start(Server::with_context(HOST, 0, move |message, context: Context| {
        seen.lock().unwrap().insert(context.peer_addr());
        message
    }));
    let client = client(&server, 1000);
    let calls: Vec<_> = (0..1000).map(|number| call(&client, number)).collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(smol::block_on(call).expect("a reply"), value!(number));
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
}

#[test]
fn a_further_connection_is_made_when_the_first_has_as_many_calls_as_it_may() {
    let puppet = Puppet::new();
    let client = puppet.client(2).max_connections(2);
    let calls: Vec<_> = (1..=4)
        .map(|number| {
            let call = call(&client, number);
            (call, puppet.expect((number as usize - 1) / 2, number))
        })
        .collect();
    let fifth = call(&client, 5);
    let answers: Vec<_> = calls.iter().map(|(_, answers)| answers.clone()).collect();
    send(&answers[2], b"\x03"); // makes room on the second one
    puppet.expect(1, 5);
    send(&answers[0], b"\x01\x02");
    send(&answers[2], b"\x04\x05");
    for (number, (call, _)) in calls.into_iter().enumerate() {
        assert_eq!(smol::block_on(call).expect("a reply"), value!(number + 1));
    }
    assert_eq!(smol::block_on(fifth).expect("a reply"), value!(5));
}

#[test]
fn the_reply_of_a_dropped_call_is_discarded_and_until_then_new_calls_go_elsewhere() {
    let puppet = Puppet::new();
    let client = puppet.client(8);
    let dropped = call(&client, 1);
    let answers = puppet.expect(0, 1);
    let kept = call(&client, 2);
    puppet.expect(0, 2);
    smol::block_on(dropped.cancel());
    let elsewhere = call(&client, 3);
    send(&puppet.expect(1, 3), b"\x03");
    assert_eq!(smol::block_on(elsewhere).expect("a reply"), value!(3));
    send(&answers, b"\x01");
    send(&answers, b"\x02");
    assert_eq!(smol::block_on(kept).expect("a reply"), value!(2));
    let again = call(&client, 4);
    puppet.expect(0, 4); // it owes nothing any more
    send(&answers, b"\x04");
    assert_eq!(smol::block_on(again).expect("a reply"), value!(4));
}

#[test]
fn a_connection_that_nobody_waits_on_is_closed_and_the_next_call_has_a_new_one() {
    let puppet = Puppet::new();
    let client = puppet.client(8).timeout(Duration::from_millis(50)).max_connections(1);
    let calls = [1, 2].map(|number| call(&client, number));
    for call in calls {
        match smol::block_on(call) {
            Err(Error::Timeout { phase: Phase::Reply, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let client = client.timeout(Duration::from_secs(20));
    let [first, second] = [(); 2].map(|()| puppet.got.recv_blocking().expect("both came"));
    assert_eq!((first.0, second.0), (0, 0));
    let next = call(&client, 3);
    send(&puppet.expect(1, 3), b"\x03");
    assert_eq!(smol::block_on(next).expect("a reply"), value!(3));
}

#[test]
fn a_lost_connection_ends_all_its_calls_and_idempotent_ones_are_sent_again() {
    let puppet = Puppet::new();
    let client = puppet.client(8);
    let once = call(&client, 1);
    let answers = puppet.expect(0, 1);
    let again = call(&client.idempotent(), 2);
    puppet.expect(0, 2);
    answers.close();
    match smol::block_on(once) {
        Err(Error::Disconnected { .. }) => {}
        other => panic!("{other:?}"),
    }
    send(&puppet.expect(1, 2), b"\x02");
    assert_eq!(smol::block_on(again).expect("a reply"), value!(2));
}

#[test]
fn what_is_no_reply_fails_the_call_that_waits_for_it_and_ends_the_connection() {
    let puppet = Puppet::new();
    let client = puppet.client(8);
    let first = call(&client, 1);
    let answers = puppet.expect(0, 1);
    let second = call(&client, 2);
    puppet.expect(0, 2);
    send(&answers, b"\x01\xc1");
    assert_eq!(smol::block_on(first).expect("a reply"), value!(1));
    match smol::block_on(second) {
        Err(Error::Protocol(error)) => assert!(error.starts_with("The reply: "), "{error}"),
        other => panic!("{other:?}"),
    }
    // More than was asked for, whole and in part: the next call is on another connection.
    for surplus in [&b"\x01\x02"[..], b"\x01\xa5he"] {
        let puppet = Puppet::new();
        let client = puppet.client(8);
        let first = call(&client, 1);
        send(&puppet.expect(0, 1), surplus);
        assert_eq!(smol::block_on(first).expect("a reply"), value!(1));
        assert_eq!(puppet.ended.recv_blocking(), Ok(0));
        let next = call(&client, 3);
        send(&puppet.expect(1, 3), b"\x03");
        assert_eq!(smol::block_on(next).expect("a reply"), value!(3));
    }
    let puppet = Puppet::new();
    let call = call(&puppet.client(8), 1);
    send(&puppet.expect(0, 1), b"HTTP/1.1 400 Bad Request\r\n");
    match smol::block_on(call) {
        Err(Error::Protocol(error)) => assert!(error.contains("speaks HTTP"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn calls_that_wait_for_one_that_connects_share_its_error() {
    let reserved = ReservedPort::new();
    let client = Client::new(HOST, reserved.addr().port()).pipelined(64).con_max_retries(4);
    let calls: Vec<_> = (0..64).map(|number| call(&client, number)).collect();
    for call in calls {
        match smol::block_on(call) {
            Err(Error::Connect { attempts: 4, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn signed_calls_over_tls_share_connections_too() {
    let server = start(echo().tls(cert("server.crt"), cert("server.key")).auth_secret("hunter2"));
    let client = Client::new("localhost", server.local_addr().port())
        .tls_cafile(cert("ca.crt"))
        .auth_secret("hunter2")
        .pipelined(16);
    let message = |number: usize| value!({"number": number, "padding": "x".repeat(number * 997)});
    let calls: Vec<_> = (0..100).map(|number| call(&client, message(number))).collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(smol::block_on(call).expect("a reply"), message(number));
    }
}

#[test]
fn threads_share_the_connection_of_a_blocking_client() {
    let server = start(echo());
    let client = blocking::Client::from(client(&server, 4)).max_connections(2);
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for call in 0..200 {
                    let message = value!([thread, call]);
                    assert_eq!(client.send(message.clone()).expect("a reply"), message);
                }
            });
        }
    });
}

#[test]
fn a_connection_is_not_used_beyond_its_lifetime() {
    let server = start(Server::with_context(HOST, 0, |_, context: Context| {
        context.peer_addr().map(|peer| peer.port())
    }));
    let client = client(&server, 4).connection_lifetime(Duration::ZERO);
    let ports: HashSet<_> =
        (0..10).map(|_| smol::block_on(client.send(1)).expect("a reply").as_u64()).collect();
    assert_eq!(ports.len(), 10);
}

#[test]
fn a_client_that_is_dropped_closes_its_connections() {
    let puppet = Puppet::new();
    let client = puppet.client(4);
    let answered = call(&client, 1);
    let answers = puppet.expect(0, 1);
    send(&answers, b"\x01");
    assert_eq!(smol::block_on(answered).expect("a reply"), value!(1));
    drop(client);
    assert_eq!(puppet.ended.recv_blocking(), Ok(0));
}

#[test]
fn calls_that_nobody_waits_for_do_not_pile_up_on_a_connection_that_is_stuck() {
    let puppet = Puppet::new();
    let client = puppet.client(2).max_connections(1);
    let kept = call(&client, 1);
    puppet.expect(0, 1); // never answered
    for number in [2, 3] {
        let dropped = call(&client, number);
        puppet.expect(0, number);
        smol::block_on(dropped.cancel());
    }
    let next = call(&client, 4);
    send(&puppet.expect(1, 4), b"\x04");
    assert_eq!(smol::block_on(next).expect("a reply"), value!(4));
    smol::block_on(kept.cancel());
}

#[test]
fn a_call_that_connects_and_is_not_polled_any_more_does_not_keep_others_waiting() {
    let server = start(echo());
    // No connection is used twice.
    let client = client(&server, 8).connection_lifetime(Duration::ZERO);
    smol::block_on(async {
        assert_eq!(client.send(0).await.expect("a reply"), value!(0));
        let mut unpolled = std::pin::pin!(client.send(1));
        assert!(smol::future::poll_once(&mut unpolled).await.is_none(), "it connects");
        assert_eq!(client.send(2).await.expect("a reply"), value!(2));
        assert_eq!(unpolled.await.expect("a reply"), value!(1));
    });
}
