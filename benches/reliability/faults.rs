//! System calls of the server that fail: strace(1) makes them, a burst of errors and then none. The
//! server lives on, serves again at once, and loses no file.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::lockstep::MESSAGE;
use crate::peers;
use crate::process::Server;
use crate::verdict::{Failure, Marks, Scale};

/// The system calls, and the errors that are not what a server sees every day.
const FAULTS: [(&str, &str); 9] = [
    ("accept4", "EMFILE"),
    ("accept4", "ECONNABORTED"),
    ("recvfrom", "ECONNRESET"),
    ("recvfrom", "EINTR"),
    ("recvfrom", "ENOMEM"),
    ("sendto", "EPIPE"),
    ("sendto", "ENOBUFS"),
    ("epoll_wait", "EINTR"),
    ("epoll_wait", "EBADF"),
];

/// The calls of a thread that succeed before the first that fails.
const BEFORE: usize = 40;

/// How long service may be away behind the last fault.
const MAX_OUTAGE: Duration = Duration::from_secs(1);

/// Requests of a connection. Each costs an accept, some reads and writes, and a wake.
const REQUESTS: usize = 4;

pub(crate) fn run(scale: Scale) -> Result<(), Failure> {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        return Err(Failure::Impossible("install strace (Debian: apt-get install strace)".into()));
    }
    let burst = scale.pick(40, 5);
    let mut marks = Marks::default();
    println!("fault                    injected  requests  failed  served again ms  files");
    for (call, error) in FAULTS {
        measure(call, error, burst, &mut marks);
    }
    marks.verdict()
}

fn measure(call: &str, error: &str, burst: usize, marks: &mut Marks) {
    let what = format!("{call} {error}");
    let record = format!("{}/{call}-{error}.strace", env!("CARGO_TARGET_TMPDIR"));
    let faults = format!("inject={call}:error={error}:when={BEFORE}..{}", BEFORE + burst - 1);
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-qq",
        "-ttt",
        "-o",
        &record,
        "-e",
        &format!("trace={call}"),
        "-e",
        &faults,
    ]);
    let itself = env::current_exe().expect("this program has a path");
    strace.arg(itself).args(["serve", "threads=1"]);
    let server = Server::run(&mut strace);

    // Fewer than the calls before the first fault.
    for _ in 0..3 {
        let served = serve(server.address);
        marks.check(served.is_ok(), || format!("{what}: no service before it: {served:?}"));
    }
    let before = files(&server, 0);
    let (mut requests, mut failed) = (0, 0);
    let start = Instant::now();
    let mut good = Vec::new();
    // Each thread has its own burst, and those that make no such call have none.
    let is_over = |good: &[SystemTime]| {
        let injected = injected(&record);
        injected.len() >= burst
            && injected.last().is_some_and(|last| good.iter().filter(|at| *at > last).count() >= 50)
    };
    while !is_over(&good) && start.elapsed() < Duration::from_secs(20) {
        requests += 1;
        match serve(server.address) {
            Ok(()) => good.push(SystemTime::now()),
            Err(_) => failed += 1,
        }
    }
    let injected = injected(&record);
    let after = files(&server, before);
    let is_alive = server.is_alive();
    let outage = injected.last().and_then(|last| {
        let next = good.iter().find(|at| *at > last)?;
        next.duration_since(*last).ok()
    });
    println!(
        "{what:24} {:8} {requests:9} {failed:7} {:>16} {before:3} -> {after}",
        injected.len(),
        outage.map_or("never".to_owned(), |outage| format!("{:.1}", outage.as_secs_f64() * 1e3)),
    );
    marks.check(injected.len() >= burst, || format!("{what}: fewer than {burst} were injected"));
    marks.check(is_alive, || format!("{what}: the server is dead"));
    marks.check(outage.is_some_and(|outage| outage <= MAX_OUTAGE), || {
        format!("{what}: service was away for {outage:?}")
    });
    marks.check(after <= before, || format!("{what}: {} files are left open", after - before));
    server.stop();
}

/// When the faults were injected, so far.
fn injected(record: &str) -> Vec<SystemTime> {
    let record = fs::read_to_string(record).unwrap_or_default();
    let faults = record.lines().filter(|line| line.ends_with("(INJECTED)"));
    let times = faults.filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
    times.map(|seconds| UNIX_EPOCH + Duration::from_secs_f64(seconds)).collect()
}

/// The open files once no connection is, or after a while.
fn files(server: &Server, wanted: usize) -> usize {
    let start = Instant::now();
    let mut least = server.files();
    while least > wanted && start.elapsed() < Duration::from_millis(500) {
        thread::sleep(Duration::from_millis(20));
        least = least.min(server.files());
    }
    least
}

/// Some requests on a connection of their own, whose end the server sees.
fn serve(server: SocketAddr) -> io::Result<()> {
    let mut stream = peers::connect(server, 0)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut reply = [0; MESSAGE.len()];
    for _ in 0..REQUESTS {
        stream.write_all(MESSAGE)?;
        stream.read_exact(&mut reply)?;
    }
    peers::reset(stream);
    Ok(())
}
