//! The server's CPU time for each byte of a large message that arrives in pieces: the same for all
//! sizes, or the cost of a message would grow with more than its length.

use std::io::Write;

use crate::peers;
use crate::process::{Server, processors, stay_on};
use crate::verdict::{Failure, Marks, Scale};

/// How far the costs for different sizes may lie apart.
const MAX_RATIO: f64 = 1.5;

/// Many times what the largest message takes in the smallest pieces, half a minute.
const MESSAGE_TIMEOUT: &str = "message_timeout=300000";

/// How often the cheap measures are repeated; the least counts, as other work only adds to it.
const ROUNDS: usize = 3;

pub(crate) fn run(scale: Scale) -> Result<(), Failure> {
    let measures = std::thread::spawn(move || {
        // With two, a byte costs three times as much when it finds the server asleep, and how often
        // it does is up to the other work of the machine.
        stay_on(processors()[0]);
        measure(scale)
    });
    measures.join().expect("it does not panic")
}

fn measure(scale: Scale) -> Result<(), Failure> {
    let large = scale.pick([1, 4, 16], [1, 2, 4]).map(|mebibytes| mebibytes << 20);
    let tiny = scale.pick(large, [1, 2, 4].map(|quarters| quarters << 18));
    // A piece of one byte costs the client a system call and the server a wake: 1 us or 2.
    let pieces = [
        ("1 byte", 1, tiny, scale.pick(4 << 20, 1 << 20), 1),
        ("4 KiB", 4096, large, scale.pick(256 << 20, 32 << 20), ROUNDS),
        ("whole", usize::MAX, large, scale.pick(256 << 20, 32 << 20), ROUNDS),
    ];
    println!(
        "pieces  CPU time of the server in ns/byte for messages of so many KiB   largest ratio"
    );
    let mut marks = Marks::default();
    for (name, piece, sizes, total, rounds) in pieces {
        let mut least = [f64::MAX; 3];
        for _ in 0..rounds {
            for (least, size) in least.iter_mut().zip(sizes) {
                // So many bytes in all, one message at least.
                let times = (total / size).max(1);
                *least = least.min(nanoseconds_per_byte(size, piece, times));
            }
        }
        let ratio = least.into_iter().fold(0.0, f64::max) / least.into_iter().fold(1e9, f64::min);
        let costs =
            sizes.iter().zip(least).map(|(size, cost)| format!("{}: {cost:.2}", size >> 10));
        println!("{name:7} {:62} {ratio:15.2}", costs.collect::<Vec<_>>().join(", "));
        marks.check(!scale.is_timed() || ratio <= MAX_RATIO, || {
            format!("in pieces of {name} the cost of a byte differs by {ratio:.2}")
        });
    }
    marks.verdict()
}

fn nanoseconds_per_byte(size: usize, piece: usize, times: usize) -> f64 {
    let server = Server::start(&["handler=length", "threads=1", MESSAGE_TIMEOUT]);
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
