//! The server's CPU time for each byte of a large message that arrives in pieces: the same for all
//! sizes, or the cost of a message would grow with more than its length.

use std::io::Write;

use crate::peers;
use crate::process::Server;
use crate::verdict::{Failure, Marks, Scale};

/// How far the costs for different sizes may lie apart.
const MAX_RATIO: f64 = 1.5;

const MEBIBYTE: usize = 1 << 20;

pub(crate) fn run(scale: Scale) -> Result<(), Failure> {
    let sizes = scale.pick([1, 4, 16], [1, 2, 4]).map(|mebibytes| mebibytes * MEBIBYTE);
    // The piece, and the bytes to send of each size in all. A piece of one byte costs a wake.
    let pieces = [
        ("1 byte", 1, scale.pick(16, 4) * MEBIBYTE),
        ("4 KiB", 4096, scale.pick(512, 64) * MEBIBYTE),
        ("whole", usize::MAX, scale.pick(512, 64) * MEBIBYTE),
    ];
    let [small, medium, large] = sizes.map(|size| format!("{} MiB", size / MEBIBYTE));
    println!("pieces   server ns/byte: {small:>7} {medium:>8} {large:>8}   largest ratio");
    let mut marks = Marks::default();
    for (name, piece, total) in pieces {
        let costs = sizes.map(|size| nanoseconds_per_byte(size, piece, total / size));
        let ratio = costs.into_iter().fold(0.0, f64::max) / costs.into_iter().fold(1e9, f64::min);
        let [small, medium, large] = costs;
        println!("{name:22} {small:9.2} {medium:8.2} {large:8.2}   {ratio:13.2}");
        marks.check(ratio <= MAX_RATIO, || {
            format!("in pieces of {name} the cost of a byte differs by {ratio:.2}")
        });
    }
    marks.verdict()
}

fn nanoseconds_per_byte(size: usize, piece: usize, times: usize) -> f64 {
    let server = Server::start(&["handler=length", "threads=1"]);
    let message = message(size);
    let mut stream = peers::connect(server.address, 0).expect("it listens");
    let mut send = || {
        for piece in message.chunks(piece) {
            stream.write_all(piece).expect("it reads");
        }
        let reply = rmpv::decode::read_value(&mut stream).expect("it answers");
        assert_eq!(reply.as_u64(), Some(size as u64 / 32));
    };
    let before = server.cpu();
    for _ in 0..times {
        send();
    }
    (server.cpu() - before).as_nanos() as f64 / (times * size) as f64
}

/// An array of texts, 32 bytes each, which takes `size` bytes.
fn message(size: usize) -> Vec<u8> {
    let count = size / 32 - 1;
    let mut message = vec![0xdd];
    message.extend_from_slice(&(count as u32 + 1).to_be_bytes());
    for _ in 0..count {
        message.extend_from_slice(b"\xd9\x1e012345678901234567890123456789");
    }
    let rest = size - message.len() - 2;
    message.extend_from_slice(&[0xd9, rest as u8]);
    message.resize(size, b'x');
    message
}
