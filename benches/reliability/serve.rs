//! The server under measurement: prints its process and address, serves until its standard input
//! ends, stops gracefully, and prints what its handler was to remember.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrpc::{Server, Value};

use crate::peers::certificate;

/// What the handler `hold` keeps each message for before it sends it back.
const HOLD: Duration = Duration::from_millis(20);

const HOST: &str = "127.0.0.1";

/// `port=0 handler=echo|length|hold|log|last threads=2 tls` and limits by their setters' names,
/// with times in milliseconds. `log` remembers the numbers that it gets, `last` the time of the
/// last message of each peer.
pub(crate) fn run(options: &[&str]) {
    let handled = Arc::<Mutex<Vec<u64>>>::default();
    let last = Arc::<Mutex<HashMap<SocketAddr, SystemTime>>>::default();
    let value = |name: &str| {
        let pairs = options.iter().filter_map(|option| option.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    };
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let port = value("port").map_or(0, |port| port.parse().expect("a port"));
    let mut server = match value("handler").unwrap_or("echo") {
        "echo" => Server::new(HOST, port, |message| message),
        "length" => {
            Server::new(HOST, port, |message: Value| message.as_array().map_or(0, Vec::len) as u64)
        }
        "hold" => Server::new(HOST, port, |message: Value| async {
            smol::Timer::after(HOLD).await;
            message
        }),
        "log" => {
            let handled = handled.clone();
            Server::new(HOST, port, move |message: Value| {
                handled.lock().expect("no panics").extend(message.as_u64());
                message
            })
        }
        "last" => {
            let last = last.clone();
            Server::with_context(HOST, port, move |message, context| {
                let peer = context.peer_addr().expect("it is over TCP");
                last.lock().expect("no panics").insert(peer, SystemTime::now());
                message
            })
        }
        other => panic!("no handler {other}"),
    };
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let time = || Duration::from_millis(number(value) as u64);
        server = match name {
            "port" | "handler" => server,
            "threads" => server.threads(number(value)),
            "debug" => server.debug(),
            "tls" => server.tls(certificate("server.crt"), certificate("server.key")),
            "auth_secret" => server.auth_secret(value),
            "max_memory_bytes" => server.max_memory_bytes(number(value)),
            "max_connections" => server.max_connections(number(value)),
            "message_timeout" => server.message_timeout(time()),
            "write_timeout" => server.write_timeout(time()),
            other => panic!("no option {other}"),
        };
    }
    let server = server.start_background().expect("a free port and good options");
    println!("{} {}", std::process::id(), server.local_addr());
    // However it ends.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    server.stop();
    server.join();
    let mut out = io::BufWriter::new(io::stdout().lock());
    for number in handled.lock().expect("no panics").iter() {
        writeln!(out, "{number}").expect("somebody reads it");
    }
    for (peer, time) in last.lock().expect("no panics").iter() {
        let time = time.duration_since(UNIX_EPOCH).expect("it is later");
        writeln!(out, "{peer} {}", time.as_micros()).expect("somebody reads it");
    }
    out.flush().expect("somebody reads it");
}
