//! What peers get that are slow, silent, many or large: an answer that names the limit, then an
//! end.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use arrpc::{Server, Value, value};
use async_channel::unbounded;

use crate::loopback::{HOST, cert, echo, start};
use crate::raw::{End, PATIENCE, Raw};

const SOON: Duration = Duration::from_millis(50);

#[test]
fn a_message_that_does_not_arrive_in_time_is_answered_with_the_limit() {
    let server = start(echo().message_timeout(SOON));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"\x01\xa3fo");
    peer.expect(b"\x01");
    peer.expect_text(
        "arrpc.error.RpcException: The message did not arrive within 50ms (message_timeout)",
    );
    peer.expect_end(End::Closed);
}

#[test]
fn a_silent_connection_has_no_deadline_but_for_its_messages() {
    let server = start(echo().message_timeout(SOON));
    let mut silent = Raw::connect(server.local_addr());
    let mut slow = Raw::connect(server.local_addr());
    silent.send(b"\x01");
    silent.expect(b"\x01");
    // Their turn to be cut off would come at the same time.
    slow.send(b"\x92");
    slow.rest();
    silent.send(b"\x02");
    silent.expect(b"\x02");
}

#[test]
fn the_deadline_of_a_message_begins_with_its_own_first_byte() {
    let server = start(echo().message_timeout(Duration::from_secs(1)));
    let mut peer = Raw::connect(server.local_addr());
    // Never without an unfinished message, for longer than one may take.
    for _ in 0..24 {
        peer.send(b"\xa1");
        thread::sleep(SOON); // the time itself is what is tested
        peer.send(b"x");
        peer.expect(b"\xa1x");
    }
}

#[test]
fn an_idle_connection_is_reset_and_a_busy_one_is_not() {
    let (gate, wait) = unbounded::<()>();
    let server = Server::new(HOST, 0, move |message: Value| {
        let wait = wait.clone();
        async move {
            if message == Value::from(7) {
                let _ = wait.recv().await;
            }
            message
        }
    });
    let server = start(server.idle_timeout(SOON));
    let mut fresh = Raw::connect(server.local_addr());
    let mut busy = Raw::connect(server.local_addr());
    busy.send(b"\x07");
    let mut idle = Raw::connect(server.local_addr());
    idle.send(b"\x01");
    idle.expect(b"\x01");
    fresh.expect_end(End::Reset);
    idle.expect_end(End::Reset);
    gate.try_send(()).expect("the handler waits");
    busy.expect(b"\x07");
    busy.expect_end(End::Reset);
}

#[test]
fn a_peer_that_takes_no_replies_is_reset() {
    let server = start(echo().write_timeout(Duration::from_millis(200)));
    let mut peer = Raw::connect(server.local_addr());
    let message = [&b"\xc6\x00\x01\x00\x00"[..], &[0; 0x1_0000]].concat();
    let error = (0..1000).find_map(|_| peer.0.write_all(&message).err());
    let kind = error.expect("the server stops reading").kind();
    assert!(matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{kind}");
}

#[test]
fn a_peer_that_takes_its_replies_slowly_gets_them_all() {
    let server = start(echo().write_timeout(Duration::from_secs(1)));
    let mut peer = Raw::connect(server.local_addr());
    let size = 4 << 20;
    let message = [&b"\xc6\x00\x40\x00\x00"[..], &vec![0xab; size]].concat();
    let mut writer = Raw(peer.0.try_clone().expect("a socket"));
    let sent = message.clone();
    let writing = thread::spawn(move || (0..4).for_each(|_| writer.send(&sent)));
    let mut read = vec![0; message.len()];
    for _ in 0..4 {
        for piece in read.chunks_mut(256 * 1024) {
            peer.0.read_exact(piece).expect("it is slow, not silent");
            thread::sleep(Duration::from_millis(20)); // for longer in all than the limit
        }
        assert!(read == message);
    }
    writing.join().expect("all is written");
}

#[test]
fn a_handler_that_takes_too_long_costs_an_error_reply() {
    let server = Server::new(HOST, 0, |message: Value| async move {
        if message == Value::from(7) {
            std::future::pending::<()>().await;
        }
        message
    });
    let server = start(server.handler_timeout(SOON));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"\x01\x07\x02\x07");
    let late = "arrpc.error.RpcException: The handler took longer than 50ms (handler_timeout)";
    peer.expect(b"\x01");
    peer.expect_text(late);
    peer.expect(b"\x02");
    peer.expect_text(late);
    peer.send(b"\x03");
    peer.expect(b"\x03");
}

#[test]
fn connections_beyond_the_limit_wait_for_a_place() {
    let server = start(echo().max_connections(2));
    let mut first = Raw::connect(server.local_addr());
    let mut second = Raw::connect(server.local_addr());
    for peer in [&mut first, &mut second] {
        peer.send(b"\x01");
        peer.expect(b"\x01");
    }
    let mut third = Raw::connect(server.local_addr());
    third.send(b"\x03");
    third.0.set_read_timeout(Some(SOON)).expect("a socket");
    let early = third.0.read(&mut [0]).expect_err("it waits");
    assert!(matches!(early.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{early}");
    third.0.set_read_timeout(Some(PATIENCE)).expect("a socket");
    drop(first);
    third.expect(b"\x03");
    second.send(b"\x02");
    second.expect(b"\x02");
}

#[test]
fn connections_beyond_the_limit_are_told_so_where_they_are_to_be_refused() {
    let text = "arrpc.error.RpcException: The server has too many connections (max_connections 1)";
    let server = start(echo().max_connections(1).refuse_excess_connections());
    let mut first = Raw::connect(server.local_addr());
    first.send(b"\x01");
    first.expect(b"\x01");
    for _ in 0..100 {
        let mut second = Raw::connect(server.local_addr());
        second.send(b"\x02");
        second.expect_text(text);
        second.expect_end(End::Closed);
    }
    first.finish();
    first.expect_end(End::Closed);
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "the place is not given back");
        // It is free a moment behind the end that the peer sees.
        let mut next = Raw::connect(server.local_addr());
        next.send(b"\x02");
        let mut reply = [0];
        next.0.read_exact(&mut reply).expect("an answer");
        if reply == *b"\x02" {
            break;
        }
    }

    let tls = echo().tls(cert("server.crt"), cert("server.key"));
    let server = start(tls.max_connections(1).refuse_excess_connections());
    let _first = Raw::connect(server.local_addr());
    Raw::connect(server.local_addr()).expect_end(End::Reset);
}

#[test]
fn a_message_for_which_there_is_no_memory_is_answered_with_the_limit() {
    let text = "arrpc.error.RpcException: The server has no memory left for the message \
                (max_memory_bytes 200000), try again later, or send less at once";
    let server = start(echo().max_memory_bytes(200_000));
    let mut peer = Raw::connect(server.local_addr());
    // Its end has come before it is refused: the connection is good for more.
    let many_values = [&b"\xdc\x10\x00"[..], &[0xc0; 0x1000]].concat();
    peer.send(&many_values);
    peer.expect_text(text);
    peer.send(b"\x01");
    peer.expect(b"\x01");
    let few_values = [&b"\xdc\x04\x00"[..], &[0xc0; 0x400]].concat();
    peer.send(&few_values);
    peer.expect(&few_values);
    // This one needs a larger buffer than there is memory for.
    peer.send(&[&b"\xc6\x00\x10\x00\x00"[..], &[0; 200_000]].concat());
    peer.expect_text(text);
    peer.rest();
}

#[test]
fn small_messages_get_through_when_large_ones_have_taken_the_memory() {
    let (started_sender, started) = unbounded();
    let (gate, wait) = unbounded::<()>();
    let server = Server::new(HOST, 0, move |message: Value| {
        let (started, wait) = (started_sender.clone(), wait.clone());
        async move {
            if message.is_array() {
                let _ = started.send(()).await;
                let _ = wait.recv().await;
            }
            message
        }
    });
    let server = start(server.max_memory_bytes(400_000));
    let mut large = Raw::connect(server.local_addr());
    let message = [&b"\xdc\x10\x00"[..], &[0xc0; 0x1000]].concat();
    large.send(&message);
    started.recv_blocking().expect("the handler runs");

    let mut refused = Raw::connect(server.local_addr());
    refused.send(&message);
    refused.expect_text(
        "arrpc.error.RpcException: The server has no memory left for the message \
         (max_memory_bytes 400000), try again later, or send less at once",
    );
    let client = arrpc::blocking::Client::new(HOST, server.local_addr().port());
    let small = value!({"a": [1, 2, 3]});
    assert_eq!(client.send(small.clone()).expect("it is small"), small);

    gate.try_send(()).expect("the handler waits");
    large.expect(&message);
    // The same connection may hold as much again: all was given back.
    large.send(&message);
    started.recv_blocking().expect("the handler runs");
    gate.try_send(()).expect("the handler waits");
    large.expect(&message);
}

#[test]
fn connections_that_end_give_back_what_they_held() {
    let server = start(echo().max_memory_bytes(1_000_000).max_connections(3));
    let large = [&b"\xc6\x00\x03\x00\x00"[..], &[0xab; 0x3_0000]].concat();
    for _ in 0..50 {
        Raw::connect(server.local_addr()).send(&large[..150_000]); // half of it, and away
    }
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "the memory is not given back");
        // A message may be refused until the last of them is gone: before its end, which also ends
        // the connection, or behind it.
        let mut peer = Raw::connect(server.local_addr());
        let mut reply = Vec::new();
        let sent = peer.0.write_all(&large).and_then(|()| peer.0.shutdown(Shutdown::Write));
        if sent.is_ok() && peer.0.read_to_end(&mut reply).is_ok() && reply == large {
            break;
        }
    }
}

#[test]
fn every_limit_that_is_hit_is_counted() {
    async fn limited(message: Value) -> Value {
        if message == Value::from(7) {
            std::future::pending::<()>().await;
        }
        message
    }
    let server = || Server::new(HOST, 0, limited).metrics_port(0);
    let hit = |server: Server, sent: &[u8]| {
        let server = start(server);
        let mut peer = Raw::connect(server.local_addr());
        let _ = peer.0.write_all(sent); // refused before its end, perhaps
        let mut some = [0; 8];
        while matches!(peer.0.read(&mut some), Ok(1..)) {
            let _ = peer.0.shutdown(Shutdown::Write); // the server may have been first
        }
    };
    hit(server().message_timeout(SOON), b"\xa3fo");
    hit(server().idle_timeout(SOON), b"");
    hit(server().handler_timeout(SOON), b"\x07");
    hit(server().max_memory_bytes(1), &[&b"\xdc\x10\x00"[..], &[0xc0; 0x1000]].concat());
    let unread = [&b"\xc6\x00\xf0\x00\x00"[..], &vec![0; 0xf0_0000]].concat();
    let unreading = start(server().write_timeout(SOON));
    let mut peer = Raw::connect(unreading.local_addr());
    while peer.0.write_all(&unread).is_ok() {}
    let is_counted = |limit: &str| {
        let limit = format!("limit=\"{limit}\"");
        arrpc::metrics::render().lines().any(|line| {
            line.starts_with("arrpc_server_refusals_total{handler_func=\"limited\"")
                && line.contains(&limit)
        })
    };
    let full = start(server().max_connections(1));
    let _only = Raw::connect(full.local_addr());
    let begin = Instant::now();
    while !is_counted("max_connections") {
        assert!(begin.elapsed() < PATIENCE, "the server is full");
        thread::yield_now();
    }
    for limit in
        ["message_timeout", "idle_timeout", "handler_timeout", "max_memory_bytes", "write_timeout"]
    {
        assert!(is_counted(limit), "{limit} is not in {}", arrpc::metrics::render());
    }
}
