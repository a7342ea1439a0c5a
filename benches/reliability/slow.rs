//! Peers that stop in the middle of a message, and peers that never read: all are cut off in time,
//! and a good client does not notice.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{Async, LocalExecutor};
use socket2::Socket;

use crate::lockstep::{Lockstep, MESSAGE};
use crate::peers;
use crate::process::Server;
use crate::verdict::{Failure, Marks, Scale};

const MESSAGE_TIMEOUT: Duration = Duration::from_secs(3);
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// How much later than its deadline a peer may be cut off: all are due at the same time, and the
/// one process that plays them notices them one by one.
const TOLERANCE: Duration = Duration::from_secs(2);

/// The socket buffers of each peer that never reads, so that the kernel's memory lasts for all.
const SOCKET_BUFFER: usize = 64 * 1024;

pub(crate) fn run(scale: Scale) -> Result<(), Failure> {
    let silent = scale.pick(10_000, 500);
    let unread = scale.pick(1_000, 50);
    let message_timeout = format!("message_timeout={}", MESSAGE_TIMEOUT.as_millis());
    let write_timeout = format!("write_timeout={}", WRITE_TIMEOUT.as_millis());
    let server =
        Server::start(&["handler=last", "max_connections=12000", &message_timeout, &write_timeout]);
    let base = server.memory();
    let files = server.files();
    let good = Lockstep::start(server.address, MESSAGE.to_vec());
    let peers = thread::spawn({
        let address = server.address;
        move || play(address, silent, unread)
    });
    let Cuts { silent, unread } = peers.join().expect("it does not panic");
    let good = good.end();
    let peak = server.peak_memory() - base;
    let left = files_in_the_end(&server, files);
    let unread = since_last_message(&unread, &server.stop());

    let mut marks = Marks::default();
    println!("peers                      deadline s  cut after s (first, last)");
    for (name, cuts, deadline) in
        [("half a message", silent, MESSAGE_TIMEOUT), ("never read", unread, WRITE_TIMEOUT)]
    {
        let (first, last) = (cuts.iter().min(), cuts.iter().max());
        let [first, last] = [first, last].map(|cut| cut.copied().unwrap_or_default());
        println!(
            "{:6} {name:19} {:10.1}  {:.3} {:.3}",
            cuts.len(),
            deadline.as_secs_f64(),
            first.as_secs_f64(),
            last.as_secs_f64()
        );
        marks.check(!scale.is_timed() || last <= deadline + TOLERANCE, || {
            format!("{name}: the last was cut off after {last:?}")
        });
        marks.check(!scale.is_timed() || first >= deadline, || {
            format!("{name}: the first was cut off after {first:?}")
        });
    }
    match good {
        Ok(good) => println!(
            "the good client beside them: {} requests, p50/p99 {good} us, longest {} ms; \
             memory at the most {peak} MiB more",
            good.count(),
            good.per_mille(1000) / 1000
        ),
        Err(error) => marks.check(false, || format!("the good client failed: {error}")),
    }
    marks.check(left <= files, || format!("{} files are left open", left - files));
    marks.verdict()
}

/// The open files of the server once its connections are closed, or after a while.
fn files_in_the_end(server: &Server, wanted: usize) -> usize {
    let start = Instant::now();
    while server.files() > wanted && start.elapsed() < Duration::from_secs(5) {
        thread::sleep(Duration::from_millis(20));
    }
    server.files()
}

/// The times between the last message that the server handled for each peer, as it prints them, and
/// the peer's end: then its replies were stuck. What the peer has written says less, as buffers of
/// megabytes are filled and trickle out.
fn since_last_message(ends: &[(SocketAddr, SystemTime)], printed: &str) -> Vec<Duration> {
    let last: HashMap<SocketAddr, SystemTime> = printed
        .lines()
        .filter_map(|line| {
            let (peer, micros) = line.split_once(' ')?;
            let time = UNIX_EPOCH + Duration::from_micros(micros.parse().ok()?);
            Some((peer.parse().ok()?, time))
        })
        .collect();
    let times = ends.iter().filter_map(|(peer, end)| end.duration_since(*last.get(peer)?).ok());
    times.collect()
}

/// When the peers were cut off.
struct Cuts {
    /// How long that took.
    silent: Vec<Duration>,
    unread: Vec<(SocketAddr, SystemTime)>,
}

fn play(server: SocketAddr, silent: usize, unread: usize) -> Cuts {
    let small_buffers = |socket: &Socket| {
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)
    };
    let open = |stream: std::io::Result<TcpStream>| {
        Async::new(stream.expect("it listens")).expect("a socket")
    };
    let executor = LocalExecutor::new();
    let silent: Vec<_> = (0..silent)
        .map(|number| open(peers::connect(server, number)))
        .map(|stream| executor.spawn(stay_silent(stream)))
        .collect();
    let unread: Vec<_> = (0..unread)
        .map(|number| open(peers::connect_with(server, number, small_buffers)))
        .map(|stream| executor.spawn(never_read(stream)))
        .collect();
    smol::block_on(executor.run(async {
        let mut cuts = Cuts { silent: Vec::new(), unread: Vec::new() };
        for task in silent {
            cuts.silent.push(task.await);
        }
        for task in unread {
            cuts.unread.push(task.await);
        }
        cuts
    }))
}

/// Sends half a message, and waits for the end.
async fn stay_silent(mut stream: Async<TcpStream>) -> Duration {
    let start = Instant::now();
    stream.write_all(b"\x92\xa3foo\xa3b").await.expect("it reads");
    let mut buffer = [0; 256];
    while let Ok(1..) = stream.read(&mut buffer).await {}
    start.elapsed()
}

/// Sends requests until it cannot, and waits for the end. Returns its address and when that was.
async fn never_read(mut stream: Async<TcpStream>) -> (SocketAddr, SystemTime) {
    let address = stream.get_ref().local_addr().expect("a socket");
    let message = [&b"\xc6\x00\x01\x00\x00"[..], &[0; 0x1_0000]].concat();
    while stream.write_all(&message).await.is_ok() {}
    (address, SystemTime::now())
}
