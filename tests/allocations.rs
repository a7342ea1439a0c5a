//! The memory that a request is served with, counted by the allocator of this program: how often it
//! is asked for more, in lockstep and pipelined, with each option and layer that could ask too.

use std::io::{Read, Write};
use std::net::TcpStream;

use arrpc::{Router, Server, Value};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const HOST: &str = "127.0.0.1";
const SECRET: &str = "secret";
const MESSAGE: &[u8] = b"\x81\xa3foo\xa3bar";
const REPLY: &[u8] = b"\xa6got it";

/// The message, encrypted with the secret: the example of the README.
const ENCRYPTED: &[u8] =
    b"\x82\xabarrpc.nonce\xc4\x18012345678901234567890123\xacarrpc.sealed\xc4\x19\
    \x15\x33\xc6\xff\x7c\x7b\x1a\x85\x9b\x03\x8d\x44\xc9\x2c\x65\x04\xb0\x7d\x06\xd3\xe7\xae\x25\
    \x27\xaa";

/// The length of an encrypted reply. Its bytes are other ones each time.
const ENCRYPTED_REPLY_LENGTH: usize = 77;

/// Batches, each in one write.
const BATCHES: usize = 500;

/// One test, as the counts are those of the whole process.
#[test]
fn a_request_takes_no_more_memory_than_its_value_and_its_reply() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let got_it = || Server::new(HOST, 0, |_| "got it");
    let metrics = |server: Server| server.metrics_host(HOST).metrics_port(0);
    let later = || Server::new(HOST, 0, |_: Value| async { "got it" });
    let raw = || Server::raw(HOST, 0, |_, reply| reply.write_bytes(REPLY));
    let got = |what, server, message: &[u8], blocks| check(what, server, message, REPLY, blocks);
    // A map, its two texts, and the text of the reply.
    got("plain", got_it(), MESSAGE, 4);
    got("metrics", metrics(got_it()), MESSAGE, 4);
    got("signed", got_it().auth_secret(SECRET), &sealed(), 4);
    got("signed, metrics", metrics(got_it().auth_secret(SECRET)), &sealed(), 4);
    let with_hooks =
        |server: Server| server.before(|_, _| Ok(())).after(|_, _, _| {}).on_error(|_, _, _| {});
    got("hooks", with_hooks(got_it()), MESSAGE, 4);
    // The handler's future.
    got("async", later(), MESSAGE, 5);
    // And that of the hooks behind it.
    got("async, hooks", with_hooks(later()), MESSAGE, 6);
    got("raw", raw(), MESSAGE, 0);
    got("encrypted", got_it().auth_secret(SECRET).encrypt(), ENCRYPTED, 4);
    got("raw, encrypted", raw().auth_secret(SECRET).encrypt(), ENCRYPTED, 0);
    got("raw, signed, metrics", metrics(raw().auth_secret(SECRET)), &sealed(), 0);

    // A map, its three texts, and an array: a router adds nothing.
    let bare = Server::new(HOST, 0, |_| 30);
    let method = || Router::new().method("plus", ["a", "b"], |a: i64, b: i64| a + b);
    let router = Server::with_handler(HOST, 0, Router::new().service("math_service", method()));
    let typed = Server::with_handler(HOST, 0, MathService.into_router());
    let counted = metrics(Server::with_handler(HOST, 0, MathService.into_router()));
    for (what, server) in [
        ("bare handler", bare),
        ("router", router),
        ("typed service", typed),
        ("typed service, metrics", counted),
    ] {
        check(what, server, CALL, SUM, 5);
    }
    // And the method's future.
    let later = || Router::new().method("plus", ["a", "b"], async |a: i64, b: i64| a + b);
    let later = || Server::with_handler(HOST, 0, Router::new().service("math_service", later()));
    check("router, async", later(), CALL, SUM, 6);
    check("router, async, metrics", metrics(later()), CALL, SUM, 6);
}

arrpc::service! {
    trait Math, client MathClient, name "math_service" {
        fn plus(&self, a: i64, b: i64) -> i64;
    }
}

struct MathService;

impl Math for MathService {
    fn plus(&self, a: i64, b: i64) -> i64 {
        a + b
    }
}

/// `{"method": "math_service.plus", "params": [10, 20]}` and 30.
const CALL: &[u8] = b"\x82\xa6method\xb1math_service.plus\xa6params\x92\x0a\x14";
const SUM: &[u8] = b"\x1e";

#[track_caller]
fn check(what: &str, server: Server, message: &[u8], reply: &[u8], expected: usize) {
    let server = server.threads(1).start_background().expect("a free port");
    let mut stream = TcpStream::connect(server.local_addr()).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    for depth in [1, 64] {
        let replies = match message {
            ENCRYPTED => vec![0; ENCRYPTED_REPLY_LENGTH * depth],
            _ => reply.repeat(depth),
        };
        let requests = message.repeat(depth);
        let mut read = vec![0; replies.len()];
        let mut run = |batches: usize| {
            for _ in 0..batches {
                stream.write_all(&requests).expect("it reads");
                stream.read_exact(&mut read).expect("it answers");
                assert!(read == replies || message == ENCRYPTED, "{what}");
            }
        };
        run(10); // buffers grow to their size
        let before = dhat::HeapStats::get().total_blocks;
        run(BATCHES);
        let blocks = dhat::HeapStats::get().total_blocks - before;
        let of_requests = (expected * BATCHES * depth) as u64;
        // What wakes and sleeps take now and then is not of the requests.
        let expected = of_requests..=of_requests + BATCHES as u64 / 5;
        assert!(expected.contains(&blocks), "{what}, {depth} at a time: {blocks} of {expected:?}");
    }
    server.stop();
    server.join();
}

/// The signed envelope of the message.
fn sealed() -> Vec<u8> {
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    hmac.update(MESSAGE);
    let mut sealed = b"\x82\xaaarrpc.sign\xd9\x40".to_vec();
    for byte in hmac.finalize().into_bytes() {
        write!(sealed, "{byte:02x}").expect("writing to a Vec");
    }
    sealed.extend_from_slice(b"\xa4data\xc4\x09");
    sealed.extend_from_slice(MESSAGE);
    sealed
}
