//! A thousand connections, each with a message that takes as much memory as its bytes can, all at
//! once: the process stays within its budget, and everyone gets an answer.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrpc::Value;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor};
use socket2::Socket;

use crate::lockstep::MESSAGE;
use crate::peers;
use crate::process::{Bytes, Server};
use crate::verdict::{Failure, Marks, Scale};

const MESSAGE_BYTES: usize = 4 << 20;

/// Just below `max_items`.
const ITEMS: usize = 1_048_000;

/// What the process may take beyond its budget: for its threads' buffers, the reply that is being
/// made, and what the allocator keeps.
const SLACK: Bytes = Bytes(64 << 20);

/// The socket buffers of each peer, so that the kernel's memory lasts for all of them.
const SOCKET_BUFFER: usize = 256 * 1024;

pub(crate) fn run(scale: Scale) -> Result<(), Failure> {
    let peers = scale.pick(1000, 100);
    let settled = Duration::from_secs(scale.pick(5, 1));
    let budgets = scale.pick(&[512, 128][..], &[128][..]);
    let mut marks = Marks::default();
    println!("{peers} connections at once, 4 MiB each; memory in MiB");
    println!(
        "budget  message            answered  refused  neither  base  peak - base  {} s later",
        settled.as_secs()
    );
    for &budget in budgets {
        for (name, message) in messages() {
            measure(budget, name, &message.into(), peers, settled, &mut marks);
        }
    }
    marks.verdict()
}

fn measure(
    budget: i64,
    name: &str,
    message: &Arc<[u8]>,
    peers: usize,
    settled: Duration,
    marks: &mut Marks,
) {
    let option = format!("max_memory_bytes={}", budget << 20);
    let server = Server::start(&["handler=hold", &option]);
    serve_small(server.address).expect("nothing else is going on");
    let base = server.memory();
    let answers = send_all(server.address, message, peers);
    let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
    let [answered, refused, neither] = [Answer::Reply, Answer::NoMemory, Answer::None].map(count);
    let peak = server.peak_memory() - base;
    let small = serve_small(server.address);
    thread::sleep(settled);
    let after = server.memory();
    println!(
        "{budget:6}  {name:18} {answered:8} {refused:8} {neither:8} {base:>5} {peak:>12} {after:>10}"
    );
    let what = format!("{budget} MiB, {name}");
    marks.check(neither == 0, || format!("{what}: {neither} connections got no answer"));
    marks.check(peak < Bytes((budget << 20) + SLACK.0), || {
        format!("{what}: the process grew by {peak} MiB")
    });
    marks.check(small.is_ok(), || format!("{what}: no service behind it: {small:?}"));
}

/// What a peer got for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Reply,
    NoMemory,
    None,
}

/// Sends the message on all connections, whose parts so arrive in turns.
fn send_all(server: SocketAddr, message: &Arc<[u8]>, peers: usize) -> Vec<Answer> {
    let small_buffers = |socket: &Socket| {
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)
    };
    let executor = LocalExecutor::new();
    let tasks: Vec<_> = (0..peers)
        .map(|number| {
            let stream = peers::connect_with(server, number, small_buffers);
            let stream = Async::new(stream.expect("it listens")).expect("a socket");
            let message = message.clone();
            executor.spawn(async move { exchange(stream, &message).await })
        })
        .collect();
    smol::block_on(executor.run(async {
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await);
        }
        answers
    }))
}

async fn exchange(stream: Async<std::net::TcpStream>, message: &[u8]) -> Answer {
    let (mut reader, mut writer) = smol::io::split(stream);
    let write = async {
        // Fails if the server has refused the message, which the other half then reads.
        let _ = writer.write_all(message).await;
        std::future::pending().await
    };
    let read = async {
        let mut reply = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            reply.extend_from_slice(&buffer[..read]);
            // A refusal is a str of up to 255 bytes; the connection may stay open behind it.
            let refused =
                matches!(*reply, [0xd9, length, ref text @ ..] if text.len() >= length.into());
            if reply.len() >= message.len() || refused {
                break;
            }
        }
        reply
    };
    let late = async {
        smol::Timer::after(Duration::from_secs(60)).await;
        Vec::new()
    };
    let reply = smol::future::or(smol::future::or(read, write), late).await;
    match std::str::from_utf8(reply.get(3..).unwrap_or_default()) {
        _ if reply == message => Answer::Reply,
        Ok(text) if text.contains("(max_memory_bytes ") => Answer::NoMemory,
        _ => Answer::None,
    }
}

/// A few small requests on a connection of their own.
fn serve_small(server: SocketAddr) -> io::Result<()> {
    let mut stream = peers::connect(server, 0)?;
    let mut reply = [0; MESSAGE.len()];
    for _ in 0..10 {
        stream.write_all(MESSAGE)?;
        stream.read_exact(&mut reply)?;
    }
    Ok(())
}

/// The dearest messages of [`MESSAGE_BYTES`], in MessagePack's shortest form: so is the echo.
fn messages() -> [(&'static str, Vec<u8>); 5] {
    // As many values as there may be, and a bin for the bytes that are left.
    let array = |item: Value, values: usize| {
        let mut items = vec![item; ITEMS / values];
        items.push(Value::Nil);
        let filler = MESSAGE_BYTES - packed(&items).len();
        items.pop();
        items.push(filler_of(filler));
        packed(&items)
    };
    let nested = (0..100).fold(Value::Nil, |inner, _| Value::Array(vec![inner]));
    let map = Value::Map(vec![(Value::Nil, Value::Nil)]);
    [
        ("one bin", array(Value::Nil, ITEMS)),
        ("[\"x\", ..]", array("x".into(), 1)),
        ("[[[..]], ..]", array(nested, 101)),
        ("[{nil: nil}, ..]", array(map, 3)),
        ("[\"xy\", ..]", array("xy".into(), 1)),
    ]
}

/// A bin that takes one byte less than `bytes`: no Python peer is to hang, so a message of a
/// multiple of 4,096 bytes comes back with another length.
fn filler_of(bytes: usize) -> Value {
    Value::Binary(vec![0xff; bytes - 5])
}

fn packed(items: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &items.to_vec().into()).expect("writing to a Vec");
    bytes
}
