//! CPU time of the server per request in lockstep, as a ratio to the least that the kernel allows:
//! a loop over epoll that answers the same bytes with the same bytes. Run with
//! `cargo bench --bench lockstep`.
//!
//! Both servers are processes of their own, on one thread, and take turns, so that a noisy machine
//! disturbs both alike. The absolute times mean nothing on another machine; the ratio does.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use arrpc::Server;

const REQUEST: &[u8] = b"\x81\xa3foo\xa3bar";
const REPLY: &[u8] = b"\xa6got it";

const CONNECTIONS: [usize; 2] = [8, 64];
const REQUESTS: usize = 200_000;
const ROUNDS: usize = 5;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("serve-floor") => serve_floor(),
        Some("serve-arrpc") => serve_arrpc(),
        // Cargo passes `--bench`, and `--test` when it only checks that benches run.
        Some("--test") => compare(1, 2_000),
        _ => compare(ROUNDS, REQUESTS),
    }
}

fn compare(rounds: usize, requests: usize) {
    println!("connections   floor us   arrpc us   ratio (median of {rounds})");
    for connections in CONNECTIONS {
        let mut runs: Vec<(f64, f64)> = (0..rounds)
            .map(|_| {
                let [floor, arrpc] = ["serve-floor", "serve-arrpc"]
                    .map(|mode| cpu_per_request(mode, connections, requests));
                (floor, arrpc)
            })
            .collect();
        runs.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
        let (floor, arrpc) = runs[rounds / 2];
        println!("{connections:11} {floor:10.2} {arrpc:10.2} {:7.2}", arrpc / floor);
    }
}

/// Microseconds of CPU that a server in a process of its own takes for one request.
fn cpu_per_request(mode: &str, connections: usize, requests: usize) -> f64 {
    let (mut server, address) = start(mode);
    let clients: Vec<_> = (0..4)
        .map(|_| thread::spawn(move || drive(address, connections / 4, requests / 4)))
        .collect();
    for client in clients {
        client.join().expect("every reply came");
    }
    let ticks = cpu_ticks(server.id());
    server.kill().expect("it runs");
    server.wait().expect("it ran");
    ticks as f64 * 10_000.0 / requests as f64 // a tick is 10 ms
}

fn start(mode: &str) -> (Child, SocketAddr) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut server =
        Command::new(program).arg(mode).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    let stdout = server.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("it prints its address");
    (server, line.trim().parse().expect("an address"))
}

/// One request in flight on each connection, round after round.
fn drive(address: SocketAddr, connections: usize, requests: usize) {
    let mut connections: Vec<_> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("the server listens");
            stream.set_nodelay(true).expect("a socket");
            stream
        })
        .collect();
    let mut reply = [0; REPLY.len()];
    for _ in 0..requests / connections.len() {
        for stream in &mut connections {
            stream.write_all(REQUEST).expect("the server reads");
        }
        for stream in &mut connections {
            stream.read_exact(&mut reply).expect("the server answers");
            assert_eq!(reply, REPLY);
        }
    }
}

/// User and system time of a process, in clock ticks (proc(5), fields 14 and 15).
fn cpu_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    let fields = stat.rsplit(')').next().expect("the name ends with a parenthesis");
    let ticks = |number: usize| fields.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    ticks(14).expect("user time") + ticks(15).expect("system time")
}

fn serve_arrpc() {
    Server::new("127.0.0.1", 0, |_| "got it")
        .threads(1)
        .after_start(|address| println!("{address}"))
        .start()
        .expect("a free port");
}

/// Answers each read with the reply's bytes: no frames, no values, no tasks.
fn serve_floor() {
    use mio::{Events, Interest, Poll, Token};

    let mut poll = Poll::new().expect("epoll");
    let address = "127.0.0.1:0".parse().expect("an address");
    let mut listener = mio::net::TcpListener::bind(address).expect("a free port");
    poll.registry().register(&mut listener, Token(0), Interest::READABLE).expect("registered");
    println!("{}", listener.local_addr().expect("bound"));
    let mut connections = HashMap::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = [0; 65536];
    loop {
        poll.poll(&mut events, None).expect("epoll");
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut stream, _)) = listener.accept() {
                    let token = Token(connections.len() + 1);
                    stream.set_nodelay(true).expect("a socket");
                    poll.registry().register(&mut stream, token, Interest::READABLE).expect("new");
                    connections.insert(token, stream);
                }
                continue;
            }
            let Some(stream) = connections.get_mut(&event.token()) else { continue };
            match stream.read(&mut buffer) {
                Ok(1..) => stream.write_all(REPLY).expect("a short reply fits"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => {
                    connections.remove(&event.token());
                }
            }
        }
    }
}
