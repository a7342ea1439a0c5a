//! Exclusive access over sockets: one client at a time, the others in line in the order in which
//! they came, however they leave it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use arrpc::{Error, Exclusive, Router, Server, ServerHandle, Value, blocking, value};
use serde_json::json;
use smol::channel::{self, Sender};
use socket2::SockRef;

use crate::loopback::{HOST, start};
use crate::python;
use crate::raw::{PATIENCE, Raw};

/// One connection, as access goes by connections.
fn client(server: &ServerHandle) -> blocking::Client {
    blocking::Client::new(HOST, server.local_addr().port()).max_connections(1).timeout(PATIENCE)
}

fn place(client: &blocking::Client) -> Option<usize> {
    client.call("arrpc.place", ()).expect("a place or nil")
}

fn enter(client: &blocking::Client) -> usize {
    client.call("arrpc.enter", ()).expect("a place")
}

#[track_caller]
fn code(result: Result<Value, Error>) -> String {
    match result {
        Err(Error::Rpc(error)) => error.code().unwrap_or_default().to_owned(),
        other => panic!("no error of the server: {other:?}"),
    }
}

/// A method that takes note of who is at work, and waits for the gate.
struct Workshop {
    at_work: Arc<AtomicUsize>,
    most_at_work: Arc<AtomicUsize>,
    order: Arc<Mutex<Vec<usize>>>,
    started: mpsc::Receiver<usize>,
    gate: Sender<()>,
}

impl Workshop {
    fn open(exclusive: Exclusive) -> (Self, ServerHandle) {
        let (start_sender, started) = mpsc::channel();
        let (gate, gate_receiver) = channel::unbounded();
        let workshop = Self {
            at_work: Arc::default(),
            most_at_work: Arc::default(),
            order: Arc::default(),
            started,
            gate,
        };
        let (at_work, most) = (workshop.at_work.clone(), workshop.most_at_work.clone());
        let order = workshop.order.clone();
        let work = move |number: usize| {
            let (at_work, gate, started) =
                (at_work.clone(), gate_receiver.clone(), start_sender.clone());
            most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            order.lock().expect("no panic").push(number);
            async move {
                let _ = started.send(number); // the test may be over
                let _ = gate.recv().await;
                at_work.fetch_sub(1, Ordering::SeqCst);
                number
            }
        };
        let router = Router::new().method("work", ["number"], work).exclusive(exclusive);
        (workshop, start(Server::with_handler(HOST, 0, router)))
    }

    /// Waits until a call has begun, and returns its number.
    #[track_caller]
    fn begun(&self) -> usize {
        self.started.recv_timeout(PATIENCE).expect("somebody works")
    }

    /// Lets a call end.
    #[track_caller]
    fn finish_one(&self) {
        self.gate.send_blocking(()).expect("it waits");
    }
}

/// The message of a call of `work`.
fn call(number: u8) -> Vec<u8> {
    let mut message = b"\x82\xa6method\xa4work\xa6params\x91".to_vec();
    message.push(number); // below 128, as it is
    message
}

/// For servers whose tests are not about how long clients wait.
const LONG: Duration = Duration::from_secs(600);

/// Waits until `count` clients are in line before one that enters and leaves it.
#[track_caller]
fn wait_for_line(server: &ServerHandle, count: usize) {
    let observer = client(server);
    wait_for_place(count + 1, || {
        let place = enter(&observer);
        observer.call::<bool>("arrpc.leave", ()).expect("it was in line");
        Some(place)
    });
}

/// Asks for a place until it is this one.
#[track_caller]
fn wait_for_place(expected: usize, ask: impl Fn() -> Option<usize>) {
    let began = Instant::now();
    loop {
        let place = ask();
        if place == Some(expected) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the place is {place:?}, never {expected}");
        thread::yield_now();
    }
}

#[test]
fn fifty_clients_have_the_access_one_by_one_in_the_order_in_which_they_came() {
    let (workshop, server) = Workshop::open(Exclusive::new().wait_timeout(LONG));
    let holder = client(&server);
    assert_eq!(enter(&holder), 0);
    // All enter one after the other, so that their order is known, and call at once.
    let clients: Vec<_> = (0..50).map(|_| client(&server)).collect();
    for (index, client) in clients.iter().enumerate() {
        assert_eq!(enter(client), index + 1);
    }
    let calls: Vec<_> = clients
        .into_iter()
        .enumerate()
        // From the last to the first: it is not the call that counts.
        .rev()
        .map(|(number, client)| {
            thread::spawn(move || {
                let reply: usize = client.call("work", (number,)).expect("its turn");
                assert_eq!(reply, number);
                drop(client); // whose place is the next one's
            })
        })
        .collect();
    assert!(holder.call::<bool>("arrpc.leave", ()).expect("an answer"));
    for _ in 0..50 {
        workshop.begun();
        assert_eq!(workshop.started.try_recv(), Err(TryRecvError::Empty), "one at a time");
        workshop.finish_one();
    }
    calls.into_iter().for_each(|call| call.join().expect("no panic"));
    assert_eq!(*workshop.order.lock().expect("no panic"), Vec::from_iter(0..50));
    assert_eq!(workshop.most_at_work.load(Ordering::SeqCst), 1);
}

#[test]
fn clients_that_are_killed_in_line_or_at_work_make_room_and_never_are_two_at_work() {
    let (workshop, server) = Workshop::open(Exclusive::new().wait_timeout(LONG));
    let address: SocketAddr = server.local_addr();
    let kill = |peer: Raw, with_reset: bool| {
        if with_reset {
            SockRef::from(&peer.0).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
    };
    let mut line = BTreeMap::new();
    for number in 0..50 {
        let mut peer = Raw::connect(address);
        peer.send(&call(number));
        match number {
            0 => assert_eq!(workshop.begun(), 0),
            _ => wait_for_line(&server, number.into()),
        }
        line.insert(number, peer);
    }
    // Every third leaves the line.
    for number in (1..50).step_by(3) {
        kill(line.remove(&number).expect("it is there"), number % 2 == 0);
    }
    wait_for_line(&server, line.len() - 1);
    // Whoever is at work is killed, or has its reply and hangs up.
    let mut worked = vec![];
    while let Some((number, mut peer)) = line.pop_first() {
        worked.push(usize::from(number));
        if number % 2 == 0 {
            kill(peer, number % 4 == 0);
            // It is gone, and its call is not: nobody may be at work beside it.
            let observer = client(&server);
            let expected = line.len() + 1;
            assert_eq!(enter(&observer), expected, "the access is not free yet");
            observer.call::<bool>("arrpc.leave", ()).expect("it was in line");
            workshop.finish_one();
        } else {
            workshop.finish_one();
            peer.expect(&[number]);
            drop(peer);
        }
        if let Some((&next, _)) = line.first_key_value() {
            assert_eq!(workshop.begun(), usize::from(next));
        }
    }
    assert_eq!(*workshop.order.lock().expect("no panic"), worked);
    assert_eq!(workshop.most_at_work.load(Ordering::SeqCst), 1);
    let last = client(&server);
    wait_for_place(0, || Some(enter(&last))); // the server sees that the last one hung up
}

#[test]
fn a_few_places_are_for_as_many_clients() {
    let (workshop, server) = Workshop::open(Exclusive::new().places(3).wait_timeout(LONG));
    let clients: Vec<_> = (0..9).map(|_| client(&server)).collect();
    let places: Vec<_> = clients.iter().map(enter).collect();
    assert_eq!(places, [0, 0, 0, 1, 2, 3, 4, 5, 6]);
    let calls: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(number, client)| {
            thread::spawn(move || client.call::<usize>("work", (number,)).expect("its turn"))
        })
        .collect();
    let mut worked = vec![workshop.begun(), workshop.begun(), workshop.begun()];
    worked.sort_unstable();
    assert_eq!(worked, [0, 1, 2], "all three at once, as the gate is closed");
    for _ in 3..9 {
        workshop.finish_one();
        worked.push(workshop.begun());
    }
    (0..3).for_each(|_| workshop.finish_one());
    calls.into_iter().for_each(|call| assert!(call.join().expect("no panic") < 9));
    worked.sort_unstable();
    assert_eq!(worked, Vec::from_iter(0..9));
    assert_eq!(workshop.most_at_work.load(Ordering::SeqCst), 3);
}

#[test]
fn who_waits_for_too_long_is_told_its_place_and_what_to_do() {
    let (_workshop, server) =
        Workshop::open(Exclusive::new().wait_timeout(Duration::from_millis(50)));
    let [holder, late] = [(); 2].map(|()| client(&server));
    assert_eq!(enter(&holder), 0);
    let Err(Error::Rpc(error)) = late.call::<Value>("work", (1,)) else { panic!("no error") };
    assert_eq!(error.code(), Some("busy"), "{error}");
    for word in ["50ms", "place 1"] {
        assert!(error.description().contains(word), "{error}");
    }
    assert_eq!((place(&holder), place(&late)), (Some(0), None), "it has left the line");
}

#[test]
fn work_on_the_blocking_pool_keeps_the_access_when_its_call_is_given_up() {
    for method in ["direct", "inside"] {
        let (begin_sender, begun) = mpsc::channel();
        let (gate, gate_receiver) = channel::unbounded::<()>();
        let work = move || {
            let (begun, gate) = (begin_sender.clone(), gate_receiver.clone());
            arrpc::unblock(move || {
                let _ = begun.send(()); // the test may be over
                let _ = gate.recv_blocking(); // an error: it is open
            })
        };
        let router = Router::new()
            .method("direct", [], work.clone())
            .method("inside", [], move || {
                let work = work();
                async {
                    smol::future::yield_now().await;
                    work.await;
                }
            })
            .exclusive(Exclusive::new().wait_timeout(LONG));
        let server = Server::with_handler(HOST, 0, router);
        let server = start(server.handler_timeout(Duration::from_millis(50)));
        let [given_up, next] = [(); 2].map(|()| client(&server));
        // Work that gets no thread in time is given up before it has begun.
        while begun.try_recv().is_err() {
            match given_up.call::<()>(method, ()) {
                Err(Error::Rpc(error)) => assert!(error.message().contains("handler_timeout")),
                other => panic!("the gate is closed: {other:?}"),
            }
        }
        assert!(given_up.call::<bool>("arrpc.leave", ()).expect("it had the access"));
        assert_eq!(enter(&next), 1, "the work goes on");
        drop(gate);
        wait_for_place(0, || place(&next));
    }
}

#[test]
fn a_client_learns_its_place_and_may_leave() {
    let (_workshop, server) = Workshop::open(Exclusive::new().wait_timeout(LONG));
    let [first, second, third] = [(); 3].map(|()| client(&server));
    assert_eq!(place(&first), None);
    assert_eq!([enter(&first), enter(&second), enter(&third)], [0, 1, 2]);
    assert_eq!([&first, &second, &third].map(place), [Some(0), Some(1), Some(2)]);
    let leave = |client: &blocking::Client| client.call::<bool>("arrpc.leave", ()).expect("it is");
    assert!(leave(&second));
    assert!(!leave(&second), "it had left");
    assert_eq!([&first, &second, &third].map(place), [Some(0), None, Some(1)]);
    assert!(leave(&first));
    assert_eq!(place(&third), Some(0));
}

#[test]
fn a_stop_tells_those_that_wait_and_lets_the_one_at_work_finish() {
    let (workshop, server) = Workshop::open(Exclusive::new().wait_timeout(LONG));
    let (mut holder, mut waiting) =
        (Raw::connect(server.local_addr()), Raw::connect(server.local_addr()));
    holder.send(&call(1));
    assert_eq!(workshop.begun(), 1);
    waiting.send(&call(2));
    wait_for_line(&server, 1);
    server.stop();
    let (told, _) = waiting.rest();
    let text = String::from_utf8_lossy(&told);
    assert!(text.contains("arrpc.error.RpcException: [stopping] "), "{text}");
    workshop.finish_one();
    holder.expect(&[1]);
    server.join();
    assert_eq!(*workshop.order.lock().expect("no panic"), [1]);
}

#[test]
fn those_that_the_access_hook_refuses_do_not_come_into_the_line() {
    let router = Router::new()
        .method("work", [], || "done")
        .fallback(|message| message)
        .access(|call| match call.token() {
            Some("sesame") => Ok(()),
            _ => Err("a token is needed".into()),
        })
        .exclusive(Exclusive::new().wait_timeout(Duration::from_millis(50)));
    let server = start(Server::with_handler(HOST, 0, router));
    let [stranger, friend, other] = [(); 3].map(|()| client(&server));
    for message in [value!({"method": "work"}), value!({"method": "arrpc.enter"}), value!("x")] {
        assert_eq!(code(stranger.send(message)), "access_denied");
    }
    let work = || value!({"method": "work", "token": "sesame"});
    assert_eq!(friend.send(work()).expect("nobody is before it"), value!("done"));
    assert_eq!(code(other.send(work())), "busy");
    assert_eq!(
        code(other.send(value!({"method": "unknown", "token": "sesame"}))),
        "unknown_method"
    );
}

#[test]
fn its_options_have_the_defaults_that_their_docs_state() {
    assert_eq!(
        format!("{:?}", Exclusive::new()),
        "Exclusive(Options { places: 1, wait_timeout: 30s, idle_timeout: None })"
    );
}

#[test]
fn a_mistake_in_it_is_an_error_at_the_start() {
    let error = |router: Router| {
        let started = Server::with_handler(HOST, 0, router).start_background();
        started.map(|_| ()).expect_err("a mistake").to_string()
    };
    let ping = || Router::new().method("ping", [], || "pong");
    assert_eq!(
        error(ping().exclusive(Exclusive::new().places(0))),
        "places of Exclusive must be 1 at least"
    );
    assert_eq!(
        error(ping().exclusive(Exclusive::new()).exclusive(Exclusive::new())),
        "the router has a mistake: there are two of Exclusive"
    );
}

#[test]
fn python_clients_wait_in_line_and_one_that_is_killed_frees_its_place() {
    let router = Router::new()
        .method("hello", ["name"], |name: String| format!("hello {name}"))
        .exclusive(Exclusive::new().wait_timeout(LONG));
    let server = start(Server::with_handler(HOST, 0, router));
    let mut first = python::Client::start(server.local_addr(), &[]);
    let hello = json!({"method": "hello", "params": ["bob"]});
    assert_eq!(first.send(&hello), json!({"reply": "hello bob"}));
    let second = thread::spawn({
        let (address, hello) = (server.local_addr(), hello.clone());
        move || python::Client::start(address, &[]).send(&hello)
    });
    wait_for_line(&server, 1);
    drop(first); // killed
    assert_eq!(second.join().expect("no panic"), json!({"reply": "hello bob"}));
}
