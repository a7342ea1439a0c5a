//! What a connection gets for what it sends: raw bytes in, raw bytes out.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use arrpc::{RpcError, Server, Value, blocking};
use async_channel::{Receiver, Sender, unbounded};

use crate::loopback::{echo, start};
use crate::raw::{End, Raw};

/// A message of `depth` arrays inside each other.
fn nested(depth: usize) -> Vec<u8> {
    let mut message = vec![0x91; depth - 1];
    message.push(0x90);
    message
}

const GOLDEN: &[&[u8]] = &[
    b"\x00",
    b"\x7f",
    b"\xe0",
    b"\xc0",
    b"\xc2",
    b"\xa0",
    b"\x80",
    b"\x90",
    b"\xc4\x00",
    b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00",
    b"\x81\xa3foo\xa3bar",
    b"\x82\x01\xc0\xc0\x93\x01\x02\x03",
    b"\xd6\xff\x00\x00\x00\x01",
    b"\xc7\x03\x05abc",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xca\x3f\x80\x00\x00",
    b"\xa6\xc3\xa4\xe2\x82\xacx",
];

#[test]
fn every_golden_message_comes_back_whole_split_at_every_byte_and_joined() {
    let server = start(echo());
    let mut peer = Raw::connect(server.local_addr());
    for message in GOLDEN {
        peer.send(message);
        peer.expect(message);
        for cut in 1..message.len() {
            peer.send(&message[..cut]);
            peer.send(&message[cut..]);
            peer.expect(message);
        }
    }
    let joined = GOLDEN.concat();
    for cut in 0..joined.len() {
        peer.send(&joined[..cut]);
        peer.send(&joined[cut..]);
        peer.expect(&joined);
    }
    for byte in &joined {
        peer.send(&[*byte]);
    }
    peer.expect(&joined);
}

#[test]
fn a_large_message_comes_back_whole_and_in_small_pieces() {
    let server = start(echo());
    let mut message = vec![0xc6, 0x00, 0xff, 0xff, 0xfa];
    message.resize(5 + 0x00ff_fffa, 0xab);
    assert!(message.len() < 16 << 20);
    for piece in [message.len(), 65_521, 4_099] {
        let mut peer = Raw::connect(server.local_addr());
        let mut writer = Raw(peer.0.try_clone().expect("a socket"));
        let sent = message.clone();
        let writing = thread::spawn(move || sent.chunks(piece).for_each(|part| writer.send(part)));
        peer.expect(&message);
        writing.join().expect("all is written");
    }
}

#[test]
fn a_peer_that_half_closes_gets_all_its_replies() {
    let server = start(Server::new("127.0.0.1", 0, blocking(|message| message)));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"\x01\x02\x03");
    peer.finish();
    peer.expect(b"\x01\x02\x03");
    peer.expect_end(End::Closed);
}

/// A handler that reports each message as it comes, and answers it when told so.
fn gated() -> (Server, Receiver<u64>, Vec<Sender<()>>) {
    let (started_sender, started) = unbounded();
    let (gates, waits): (Vec<_>, Vec<_>) = (0..16).map(|_| unbounded::<()>()).unzip();
    let server = Server::new("127.0.0.1", 0, move |message: Value| {
        let number = message.as_u64().unwrap_or_default();
        let (started, gate) = (started_sender.clone(), waits[number as usize].clone());
        async move {
            started.send(number).await.map_err(|error| error.to_string())?;
            gate.recv().await.map_err(|error| error.to_string())?;
            Ok::<_, String>(message)
        }
    });
    (server, started, gates)
}

#[test]
fn async_handlers_of_one_connection_run_at_once_and_are_answered_in_order() {
    let (server, started, gates) = gated();
    let server = start(server);
    let mut peer = Raw::connect(server.local_addr());
    peer.send(&[0, 1, 2, 3, 4, 5, 6, 7]);
    for number in 0..8 {
        assert_eq!(started.recv_blocking(), Ok(number), "all start before one is done");
    }
    for gate in gates[1..8].iter().rev() {
        gate.try_send(()).expect("the handler waits");
    }
    peer.send(&[8]);
    assert_eq!(started.recv_blocking(), Ok(8));
    gates[8].try_send(()).expect("the handler waits");
    gates[0].try_send(()).expect("the handler waits");
    peer.expect(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn no_more_than_max_in_flight_handlers_of_a_connection_run_at_once() {
    let (server, started, gates) = gated();
    let server = start(server.threads(1).max_in_flight(3));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(&[0, 1, 2, 3, 4]);
    for number in 0..3 {
        assert_eq!(started.recv_blocking(), Ok(number));
    }
    // Another connection of the one worker is served meanwhile, so the fourth had its chance.
    for _ in 0..4 {
        let mut other = Raw::connect(server.local_addr());
        other.send(&[9]);
        assert_eq!(started.recv_blocking(), Ok(9));
        gates[9].try_send(()).expect("the handler waits");
        other.expect(&[9]);
    }
    assert!(started.is_empty(), "the fourth waits for a place");
    gates[0].try_send(()).expect("the handler waits");
    peer.expect(&[0]);
    assert_eq!(started.recv_blocking(), Ok(3));
    for gate in &gates[1..5] {
        gate.try_send(()).expect("the handler waits");
    }
    peer.expect(&[1, 2, 3, 4]);
}

#[test]
fn thousands_of_pipelined_requests_are_answered_in_order() {
    let server = start(Server::new("127.0.0.1", 0, |message: Value| async move {
        // Every third one waits, so that ready replies queue behind pending ones.
        if message.as_u64().is_some_and(|number| number % 3 == 0) {
            smol::future::yield_now().await;
        }
        message
    }));
    let mut requests = Vec::new();
    for number in 0..20_000u32 {
        rmpv::encode::write_value(&mut requests, &number.into()).expect("writing to a Vec");
    }
    let mut peer = Raw::connect(server.local_addr());
    let mut writer = Raw(peer.0.try_clone().expect("a socket"));
    let sent = requests.clone();
    let writing = thread::spawn(move || writer.send(&sent));
    peer.expect(&requests);
    writing.join().expect("all is written");
}

#[test]
fn a_panic_in_the_drop_of_a_handlers_future_does_no_harm() {
    struct Bomb(Sender<()>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
            panic!("dropped");
        }
    }
    let (started_sender, started) = unbounded();
    let (dropped_sender, dropped) = unbounded();
    let server = Server::new("127.0.0.1", 0, move |_| {
        let (started, dropped) = (started_sender.clone(), dropped_sender.clone());
        async move {
            let _bomb = Bomb(dropped);
            let _ = started.send(()).await;
            std::future::pending::<()>().await;
        }
    });
    let server = start(server.threads(1).drain_timeout(Duration::ZERO));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(&[1, 2]);
    for _ in 0..2 {
        started.recv_blocking().expect("the handler runs");
    }
    server.stop();
    server.join(); // the worker drops what is left, and would take the process with it
    for _ in 0..2 {
        dropped.recv_blocking().expect("the future is dropped");
    }
}

#[test]
fn a_handler_comes_to_its_end_although_its_peer_is_gone() {
    for reset in [false, true] {
        let (started_sender, started) = unbounded();
        let (gate, wait) = unbounded::<()>();
        let (done_sender, done) = unbounded();
        let server = start(Server::new("127.0.0.1", 0, move |_| {
            let (started, wait, done) = (started_sender.clone(), wait.clone(), done_sender.clone());
            async move {
                let _ = started.send(()).await;
                let _ = wait.recv().await;
                let _ = done.send(()).await;
            }
        }));
        let mut peer = Raw::connect(server.local_addr());
        peer.send(&[1]);
        started.recv_blocking().expect("the handler runs");
        if reset {
            socket2::SockRef::from(&peer.0).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
        drop(peer);
        // Another connection is served, so the worker has seen the end of the first.
        let mut other = Raw::connect(server.local_addr());
        other.send(&[2]);
        started.recv_blocking().expect("the handler runs");
        for _ in 0..2 {
            gate.try_send(()).expect("the handler waits");
        }
        for _ in 0..2 {
            done.recv_blocking().expect("the handler ends");
        }
    }
}

#[test]
fn the_deepest_message_that_may_be_allowed_fits_the_stack() {
    let server = start(Server::new("127.0.0.1", 0, |message| message).max_depth(1024));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(&nested(1024));
    peer.expect(&nested(1024));
}

#[test]
fn a_peer_that_floods_its_thread_delays_others_and_the_stop_by_little() {
    let server = Server::new("127.0.0.1", 0, |message| message).threads(1);
    let server = start(server.drain_timeout(Duration::from_millis(100)));
    let mut flood = Raw::connect(server.local_addr());
    let reader = flood.0.try_clone().expect("a socket");
    // As much work as a message can be: a million values.
    let message = [&b"\xdd\x00\x0f\xff\xff"[..], &[0xc0; 0x000f_ffff]].concat();
    let writing = thread::spawn(move || while flood.0.write_all(&message).is_ok() {});
    let reading = thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
    for number in 0..5 {
        let mut other = Raw::connect(server.local_addr());
        other.send(&[number]);
        other.expect(&[number]);
    }
    server.stop();
    server.join();
    writing.join().expect("the flood has ended");
    let _ = reading.join().expect("its replies have ended");
}

const PANICKED: &str =
    "arrpc.error.RpcException: The handler failed, the server's log has the details";

#[test]
fn a_panic_costs_one_error_reply_in_sync_async_and_blocking_handlers() {
    fn answer(message: Value) -> Value {
        assert_ne!(message, Value::from(13), "unlucky");
        message
    }
    let servers = [
        Server::new("127.0.0.1", 0, answer),
        Server::new("127.0.0.1", 0, |message| async { answer(message) }),
        Server::new("127.0.0.1", 0, |message| async {
            smol::future::yield_now().await;
            answer(message)
        }),
        Server::new("127.0.0.1", 0, blocking(answer)),
    ];
    for server in servers {
        let server = start(server);
        let mut peer = Raw::connect(server.local_addr());
        peer.send(&[12, 13, 14]);
        peer.expect(&[12]);
        peer.expect_text(PANICKED);
        peer.expect(&[14]);
        peer.send(&[13, 15]);
        peer.expect_text(PANICKED);
        peer.expect(&[15]);
    }
}

#[test]
fn an_error_travels_with_its_message_and_the_connection_goes_on() {
    let server = start(Server::new("127.0.0.1", 0, |message: Value| match message.as_u64() {
        Some(number) => Ok(number + 1),
        None => Err(RpcError::new("not a number")),
    }));
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"\xa1x\x01");
    peer.expect_text("arrpc.error.RpcException: not a number");
    peer.expect(&[2]);
}

#[test]
fn what_cannot_be_decoded_gets_one_error_reply_that_says_why() {
    let server = start(echo());
    let refused = |message: &[u8], text: &str| {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(b"\x01");
        peer.send(message);
        peer.expect(b"\x01");
        peer.expect_text(&format!("arrpc.error.RpcException: {text}"));
        peer
    };
    let mut peer = refused(
        b"\x92\x01\xa2\xff\xfe",
        "Not MessagePack: the str at offset 2 is not UTF-8, send bytes as bin",
    );
    peer.send(b"\x02");
    peer.expect(b"\x02"); // its end is known, so the connection goes on

    let text = "Not MessagePack: byte 0xc1 at offset 1 is never used";
    refused(b"\x92\xc1", text).expect_end(End::Closed);
    let text = "Message is longer than 16777216 bytes (max_message_bytes)";
    refused(b"\xc6\xff\xff\xff\xff", text).expect_end(End::Closed);
    refused(b"\xdd\xff\xff\xff\xff", text).expect_end(End::Closed);
    refused(b"\xc6\x00\xff\xff\xfc", text).expect_end(End::Closed);
    let text = "Message has more than 1048576 values (max_items)";
    refused(b"\xdd\x00\x10\x00\x00", text).expect_end(End::Closed);
    let text = "Message is nested deeper than 128 containers (max_depth)";
    refused(&nested(129), text).expect_end(End::Closed);
}

#[test]
fn limits_are_inclusive_and_settable() {
    let server = start(echo());
    let mut peer = Raw::connect(server.local_addr());
    peer.send(&nested(128));
    peer.expect(&nested(128));

    let server = start(
        Server::new("127.0.0.1", 0, |message| message)
            .max_message_bytes(8)
            .max_depth(2)
            .max_items(4),
    );
    for fits in [&b"\xa7sevensy"[..], b"\x91\x90", b"\x93\x01\x02\x03"] {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(fits);
        peer.expect(fits);
    }
    for (too_much, limit) in [
        (&b"\xa8eightsyz"[..], "Message is longer than 8 bytes (max_message_bytes)"),
        (b"\x91\x91\x90", "Message is nested deeper than 2 containers (max_depth)"),
        (b"\x94\x01\x02\x03\x04", "Message has more than 4 values (max_items)"),
    ] {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(too_much);
        peer.expect_text(&format!("arrpc.error.RpcException: {limit}"));
        peer.expect_end(End::Closed);
    }
}

#[test]
fn a_refusal_arrives_although_the_peer_goes_on_sending() {
    let server = start(Server::new("127.0.0.1", 0, |message| message).max_message_bytes(1000));
    let mut peer = Raw::connect(server.local_addr());
    let mut message = vec![0xc6, 0x00, 0x40, 0x00, 0x00];
    message.resize(5 + (4 << 20), 0);
    peer.send(&message);
    peer.finish();
    peer.expect_text(
        "arrpc.error.RpcException: Message is longer than 1000 bytes (max_message_bytes)",
    );
    peer.expect_end(End::Closed);
}

#[test]
fn other_protocols_are_turned_away_before_the_handler_runs() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let server = start(Server::new("127.0.0.1", 0, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let turned_away = |first: &[u8]| {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(first);
        peer.finish();
        let (answer, end) = peer.rest();
        assert_eq!(end, End::Closed);
        String::from_utf8(answer).expect("text")
    };
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n\x01",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = turned_away(request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(
            answer.ends_with(
                "\r\n\r\nThis port speaks arrpc: MessagePack values over TCP, not HTTP.\n"
            ),
            "{answer}"
        );
    }
    assert!(turned_away(b"SSH-2.0-x\r\n").contains("not SSH"));
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    assert_eq!(turned_away(hello), "\x15\x03\x01\x00\x02\x02\x28", "an alert");
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    // A lone `G` is the integer 71, and gets its reply.
    let mut peer = Raw::connect(server.local_addr());
    peer.send(b"G");
    peer.expect(b"\xc0");
}

const UNSIGNED: &str = "arrpc.error.AuthException: Invalid or missing message signature, \
                        make sure 'auth_secret' is set/correct";

#[test]
fn a_bad_signature_is_told_so_and_three_in_a_row_end_the_connection() {
    let server = start(Server::new("127.0.0.1", 0, |message| message).auth_secret("secret"));
    // `{"foo": "bar"}`, signed with "secret" by the Python package.
    let signed = b"\x82\xaaarrpc.sign\xd9@acec7537e84fb34cdaadebb5afe4abe573e095410e4efb0eae2ea7097204cd7f\xa4data\xc4\x09\x81\xa3foo\xa3bar";
    let mut peer = Raw::connect(server.local_addr());
    for _ in 0..3 {
        peer.send(b"\x01");
        peer.expect_text(UNSIGNED);
        peer.send(b"\x81\xa3foo\xa3bar");
        peer.expect_text(UNSIGNED);
        peer.send(signed); // a good one: the count starts again
        peer.expect(b"\x81\xa3foo\xa3bar");
    }
    peer.send(b"\x01\x02\x03\x04");
    for _ in 0..3 {
        peer.expect_text(UNSIGNED);
    }
    peer.expect_end(End::Closed);
}

#[test]
fn with_a_secret_nothing_is_decoded_before_it_is_verified() {
    let server = start(Server::new("127.0.0.1", 0, |message| message).auth_secret("secret"));
    let check = |message: &[u8]| {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(message);
        peer.expect_text(UNSIGNED);
    };
    // Undecodable bodies, not signed: none of them is told that it cannot be decoded.
    let sign = [&b"\xaaarrpc.sign\xd9@"[..], &[b'0'; 64]].concat();
    check(&[&b"\x82"[..], &sign, b"\xa4data\xc4\x01\xc1"].concat());
    check(&[&b"\x82"[..], &sign, b"\xa4data\xc4\x02\xa1\xff"].concat());
    check(&[&b"\x82"[..], &sign, b"\xa4data\xc4\x00"].concat());
    check(b"\xa2\xff\xfe");
    check(b"\x92\x01\xa2\xff\xfe");
}

#[test]
fn a_signed_body_is_held_to_the_limits_and_to_one_message() {
    let server =
        start(Server::new("127.0.0.1", 0, |message| message).auth_secret("s").max_depth(2));
    let sealed = |body: &[u8]| {
        use hmac::{Hmac, KeyInit, Mac};
        let mac = Hmac::<sha2::Sha256>::new_from_slice(b"s").expect("any key");
        let signature = mac.chain_update(body).finalize().into_bytes();
        let signature: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        let envelope = arrpc::value!({ "arrpc.sign": signature, "data": body.to_vec() });
        let mut message = Vec::new();
        rmpv::encode::write_value(&mut message, &envelope).expect("writing to a Vec");
        message
    };
    let refused = |body: &[u8], text: &str| {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(&sealed(body));
        peer.expect_text(&format!("arrpc.error.RpcException: {text}"));
        peer
    };
    let mut peer = refused(b"\x01\x02", "Not one message: 2 bytes, where the first value has 1");
    peer.send(&sealed(b"\x07"));
    peer.expect(b"\x07");
    refused(b"\x92\x01", "Not one message: 2 bytes, where the first value has 3");
    refused(b"", "Not one message: 0 bytes, where the first value has 1");
    // The envelope says where it ends, so the connection goes on.
    let mut peer = refused(&nested(3), "Message is nested deeper than 2 containers (max_depth)");
    peer.send(&sealed(b"\x07"));
    peer.expect(b"\x07");
    let text = "Not MessagePack: byte 0xc1 at offset 1 is never used";
    let mut peer = refused(b"\x91\xc1", text);
    peer.send(&sealed(b"\x07"));
    peer.expect(b"\x07");
}

#[test]
fn an_envelope_to_a_server_without_a_secret_does_not_reach_the_handler() {
    let server = start(echo());
    let mut peer = Raw::connect(server.local_addr());
    for _ in 0..5 {
        peer.send(b"\x82\xaaarrpc.sign\xa1x\xa4data\xc4\x01\x01");
        peer.expect_text(
            "arrpc.error.AuthException: Message is signed but the server has no secret, \
             unset 'auth_secret' or set it on the server",
        );
    }
    peer.send(b"\x01");
    peer.expect(b"\x01");
}
