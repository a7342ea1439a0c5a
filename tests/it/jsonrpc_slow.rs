//! What slowhttptest does to a server: heads, bodies and readers that are slow, 200 of each. A good
//! client beside them gets every response, and the slow ones are gone in the end.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrpc::{Router, Server, ServerHandle};

use crate::jsonrpc_server::{Response, address, request};
use crate::loopback::{HOST, start};
use crate::peers::{self, RUN_LIMIT};
use crate::raw::{PATIENCE, Raw};

/// A response that no socket's buffer takes as a whole.
const LARGE: usize = 1 << 20;

#[test]
#[ignore = "needs slowhttptest: cargo test -- --ignored"]
fn slow_heads_are_cut_while_a_good_client_is_served() {
    check(&["-H", "-i", "1"]);
}

#[test]
#[ignore = "needs slowhttptest: cargo test -- --ignored"]
fn slow_bodies_are_cut_while_a_good_client_is_served() {
    check(&["-B", "-i", "1", "-s", "8192", "-f", "application/json"]);
}

#[test]
#[ignore = "needs slowhttptest: cargo test -- --ignored"]
fn slow_readers_are_cut_while_a_good_client_is_served() {
    // They take 32 bytes every 5 seconds of pages that they ask for 10 times on each connection.
    check(&["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "10"]);
}

/// Counts the connections that are open, all that were, and those of them that were good.
#[derive(Clone, Default)]
struct Connections {
    open: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
    good: Arc<AtomicUsize>,
}

impl Connections {
    /// Whether there is a time at which all slow ones have come and none is left.
    fn are_cut_before(&self, is_over: &AtomicBool) -> bool {
        while !is_over.load(Ordering::SeqCst) {
            let all = self.all.load(Ordering::SeqCst); // first, as the others may only grow
            let have_come = all >= 200 + self.good.load(Ordering::SeqCst);
            // The good client has two, and slowhttptest looks with one more whether there is a
            // server.
            if have_come && self.open.load(Ordering::SeqCst) <= 3 {
                return true;
            }
            thread::sleep(Duration::from_millis(1)); // it has a processor of two to share
        }
        false
    }
}

fn serve(connections: &Connections) -> ServerHandle {
    let router = Router::new().method("plus", ["a", "b"], |a: i64, b: i64| a + b).method(
        "large",
        [],
        || "x".repeat(LARGE),
    );
    let (coming, going) = (connections.clone(), connections.clone());
    let server = Server::with_handler(HOST, 0, router)
        .http(0)
        .message_timeout(Duration::from_secs(4))
        .write_timeout(Duration::from_secs(4))
        .on_connect(move |_| {
            coming.open.fetch_add(1, Ordering::SeqCst);
            coming.all.fetch_add(1, Ordering::SeqCst);
        })
        .on_disconnect(move |_| _ = going.open.fetch_sub(1, Ordering::SeqCst));
    start(server)
}

#[track_caller]
fn check(mode: &[&str]) {
    let connections = Connections::default();
    let server = serve(&connections);
    let is_over = AtomicBool::new(false);
    let (calls, report, are_cut) = thread::scope(|scope| {
        let good = scope.spawn(|| call_until(&server, &connections.good, &is_over));
        let cut = scope.spawn(|| connections.are_cut_before(&is_over));
        let report = attack(&server, mode);
        is_over.store(true, Ordering::SeqCst);
        let calls = good.join().expect("the good client gets its responses");
        (calls, report.unwrap_or_else(|error| panic!("{error}")), cut.join().expect("it counts"))
    });
    assert!(calls > 0, "the good client has called");
    // A slow reader does not see its end: what it has not read yet comes before.
    assert!(are_cut || report.contains("No open connections left"), "{report}");
    let begin = Instant::now();
    while connections.open.load(Ordering::SeqCst) > 0 {
        assert!(begin.elapsed() < PATIENCE, "some are never cut");
        thread::yield_now();
    }
}

/// 200 connections, 50 new ones in a second, that end when the server cuts them, or after 15
/// seconds.
fn attack(server: &ServerHandle, mode: &[&str]) -> Result<String, String> {
    let url = format!("http://{}/api", address(server));
    let mut slow = Command::new("slowhttptest");
    slow.args(["-c", "200", "-r", "50", "-l", "15", "-p", "3", "-u", &url]).args(mode);
    peers::output(slow, "", RUN_LIMIT)
}

/// Calls on a connection that is kept and on a new one in turns; returns how often.
fn call_until(server: &ServerHandle, good: &AtomicUsize, is_over: &AtomicBool) -> usize {
    let connect = || {
        good.fetch_add(1, Ordering::SeqCst); // before the server counts it among all
        Raw::connect(address(server))
    };
    let mut kept = connect();
    let mut calls = 0;
    while !is_over.load(Ordering::SeqCst) {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"plus","params":[1,2]}"#;
        for peer in [&mut kept, &mut connect()] {
            peer.send(&request("", call));
            assert_eq!(Response::read(&mut peer.0).json()["result"], 3);
            calls += 1;
        }
        let mut peer = connect();
        peer.send(&request("", r#"{"jsonrpc":"2.0","id":1,"method":"large"}"#));
        assert_eq!(
            Response::read(&mut peer.0).json()["result"].as_str().map(str::len),
            Some(LARGE)
        );
    }
    calls
}
