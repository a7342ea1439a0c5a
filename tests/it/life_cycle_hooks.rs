//! What a program is told of the life of its server beside messages: that a connection begins and
//! ends, whatever ends it, and that a stop begins; and what it keeps for each connection.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrpc::{
    Client, Context, Error, Handler, Response, Server, ServerHandle, Value, blocking, value,
};
use async_channel::unbounded;
use smol::future::FutureExt;
use socket2::SockRef;

use crate::loopback::{HOST, cert, echo, start};
use crate::raw::{End, PATIENCE, Raw};
#[cfg(unix)]
use crate::unix::Place;

/// What a handler was told, with the number of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Connected(u64),
    Called(u64),
    Answered(u64),
    Disconnected(u64),
    Stopping,
}
use Event::{Answered, Called, Connected, Disconnected, Stopping};

/// An echo that says what it is told. It answers 7 when the gate lets it.
struct Witness {
    events: Sender<Event>,
    gate: async_channel::Receiver<()>,
}

impl Witness {
    fn tell(&self, event: Event) {
        self.events.send(event).expect("the test listens");
    }
}

impl Handler for Witness {
    fn call(&self, message: Value, context: &Context) -> Response {
        let id = context.connection_id();
        self.tell(Called(id));
        if message != Value::from(7) {
            return Response::ready(message);
        }
        let (gate, events) = (self.gate.clone(), self.events.clone());
        Response::later(async move {
            let _ = gate.recv().await;
            events.send(Answered(id)).expect("the test listens");
            message
        })
    }

    fn connected(&self, context: &Context) {
        self.tell(Connected(context.connection_id()));
    }

    fn disconnected(&self, context: &Context) {
        self.tell(Disconnected(context.connection_id()));
    }

    fn stopping(&self) {
        self.tell(Stopping);
    }
}

/// A server that tells its test what it is told.
struct Watched {
    events: Receiver<Event>,
    gate: async_channel::Sender<()>,
    server: ServerHandle,
}

impl Watched {
    fn start(host: &str, options: impl FnOnce(Server) -> Server) -> Self {
        let (sender, events) = mpsc::channel();
        let (gate, wait) = unbounded();
        let server = Server::with_handler(host, 0, Witness { events: sender, gate: wait });
        Self { events, gate, server: start(options(server)) }
    }

    fn connect(&self) -> Raw {
        Raw::connect(self.server.local_addr())
    }

    #[track_caller]
    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// The number of a connection that was made just now.
    #[track_caller]
    fn connected(&self) -> u64 {
        match self.next() {
            Connected(id) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Stops the server, and returns what it was told from then on.
    fn stop(self) -> Vec<Event> {
        self.server.stop();
        self.server.join();
        rest(&self.events)
    }
}

/// All events until nobody is left who could tell one.
#[track_caller]
fn rest<T>(events: &Receiver<T>) -> Vec<T> {
    let mut rest = Vec::new();
    loop {
        match events.recv_timeout(PATIENCE) {
            Ok(event) => rest.push(event),
            Err(mpsc::RecvTimeoutError::Disconnected) => return rest,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the handler is kept"),
        }
    }
}

/// Lets a connection end as that of a process does that is killed with unread replies.
fn kill(peer: Raw) {
    SockRef::from(&peer.0).set_linger(Some(Duration::ZERO)).expect("a socket");
}

#[test]
fn a_handler_is_told_of_a_connection_before_its_messages_and_of_its_end_behind_them() {
    let watched = Watched::start(HOST, |server| server);
    let mut peer = watched.connect();
    let id = watched.connected();
    peer.send(&[1, 2]);
    peer.expect(&[1, 2]);
    peer.finish();
    peer.expect_end(End::Closed);
    let told = [watched.next(), watched.next(), watched.next()];
    assert_eq!(told, [Called(id), Called(id), Disconnected(id)]);
    assert_eq!(watched.stop(), [Stopping]);
}

#[test]
fn each_connection_has_a_number_of_its_own_in_all_servers() {
    let (first, second) = (Watched::start(HOST, |s| s), Watched::start(HOST, |s| s));
    let peers: Vec<_> = (0..20).flat_map(|_| [first.connect(), second.connect()]).collect();
    let mut ids: Vec<_> = (0..20).flat_map(|_| [first.connected(), second.connected()]).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), peers.len());
}

#[test]
fn the_end_of_a_killed_peer_is_told_while_its_handler_runs_on() {
    let watched = Watched::start(HOST, |server| server);
    let mut peer = watched.connect();
    let id = watched.connected();
    peer.send(&[7]);
    assert_eq!(watched.next(), Called(id));
    kill(peer);
    assert_eq!(watched.next(), Disconnected(id));
    watched.gate.try_send(()).expect("the handler waits");
    assert_eq!(watched.next(), Answered(id));
    assert_eq!(watched.stop(), [Stopping]);
}

#[test]
fn a_peer_that_has_closed_its_side_is_gone_and_gets_its_reply_all_the_same() {
    let watched = Watched::start(HOST, |server| server);
    let mut peer = watched.connect();
    let id = watched.connected();
    peer.send(&[7, 1]);
    peer.finish();
    let told = [watched.next(), watched.next(), watched.next()];
    assert_eq!(told, [Called(id), Called(id), Disconnected(id)]);
    watched.gate.try_send(()).expect("the handler waits");
    peer.expect(&[7, 1]);
    peer.expect_end(End::Closed);
    assert_eq!(watched.next(), Answered(id));
    assert_eq!(watched.stop(), [Stopping]);
}

#[test]
fn a_connection_that_the_server_closes_is_gone() {
    let watched = Watched::start(HOST, |s| s.idle_timeout(Duration::from_millis(20)));
    let mut idle = watched.connect();
    let id = watched.connected();
    idle.expect_end(End::Reset);
    assert_eq!(watched.next(), Disconnected(id));
    assert_eq!(watched.stop(), [Stopping]);

    let watched = Watched::start(HOST, |server| server);
    let mut refused = watched.connect();
    let id = watched.connected();
    refused.send(b"\x07\xdd\xff\xff\xff\xff"); // more values than there may be
    assert_eq!([watched.next(), watched.next()], [Called(id), Disconnected(id)]);
    watched.gate.try_send(()).expect("the handler waits");
    refused.expect(&[7]);
    assert_eq!(watched.next(), Answered(id));
    assert_eq!(watched.stop(), [Stopping]);
}

#[test]
fn a_stop_is_told_first_and_then_the_end_of_each_connection_once() {
    let watched = Watched::start(HOST, |server| server);
    let mut ids = Vec::new();
    let mut peers: Vec<_> = (0..20).map(|_| watched.connect()).collect();
    peers.iter().for_each(|_| ids.push(watched.connected()));
    watched.server.stop();
    watched.server.stop();
    assert_eq!(watched.next(), Stopping);
    peers.iter_mut().for_each(|peer| peer.expect_end(End::Reset));
    let mut told = watched.stop();
    told.sort_by_key(|event| match event {
        Disconnected(id) => *id,
        other => panic!("{other:?}"),
    });
    ids.sort_unstable();
    assert_eq!(told, ids.into_iter().map(Disconnected).collect::<Vec<_>>());
}

#[test]
fn what_the_drain_deadline_cuts_off_is_told_once() {
    let watched = Watched::start(HOST, |s| s.drain_timeout(Duration::from_millis(10)));
    let (mut busy, mut closed) = (watched.connect(), watched.connect());
    let ids = [watched.connected(), watched.connected()];
    busy.send(&[7]);
    closed.send(&[7]);
    let called = [watched.next(), watched.next()];
    assert!(ids.iter().all(|id| called.contains(&Called(*id))), "{called:?}");
    closed.finish(); // it is told before the stop, and not again
    let Disconnected(first) = watched.next() else { panic!("another event") };
    let second = ids.into_iter().find(|id| *id != first).expect("two connections");
    assert_eq!(watched.stop(), [Stopping, Disconnected(second)]);
    busy.expect_end(End::Reset);
}

#[test]
fn who_waits_can_be_told_of_a_stop_and_nothing_waits_for_the_drain_deadline() {
    /// Answers when the server stops.
    struct Waiting(Mutex<Option<async_channel::Sender<()>>>, async_channel::Receiver<()>);
    impl Handler for Waiting {
        fn call(&self, _: Value, _: &Context) -> Response {
            let stopped = self.1.clone();
            Response::later(async move {
                let _ = stopped.recv().await;
                "the server stops"
            })
        }
        fn stopping(&self) {
            drop(self.0.lock().expect("not poisoned").take());
        }
    }
    let (sender, stopped) = unbounded();
    let waiting = Waiting(Mutex::new(Some(sender)), stopped);
    let server = Server::with_handler(HOST, 0, waiting).drain_timeout(Duration::MAX);
    let server = start(server);
    let mut peer = Raw::connect(server.local_addr());
    peer.send(&[1]);
    server.stop();
    peer.expect_text("the server stops");
    server.join();
}

#[test]
fn a_stop_is_told_also_when_the_servers_future_is_dropped() {
    let (sender, stopped) = mpsc::channel();
    let (started_sender, started) = unbounded();
    let server = echo()
        .after_start(move |_| started_sender.try_send(()).expect("open"))
        .on_stop(move || sender.send("stopped").expect("open"));
    let started = async {
        let _ = started.recv().await;
        Ok(())
    };
    smol::block_on(server.serve(std::future::pending()).or(started)).expect("it starts");
    assert_eq!(rest(&stopped), ["stopped"]);
}

/// Hooks that say what they are told: connections with the state that they find.
fn with_hooks(server: Server) -> (Server, Receiver<String>) {
    let (sender, told) = mpsc::channel();
    let tell = move |text: String| sender.send(text).expect("the test listens");
    let (connected, disconnected, stopped) = (tell.clone(), tell.clone(), tell);
    let server = server
        .on_connect(|context| {
            let identity = context.tls_identity().and_then(|identity| identity.common_name());
            identity.unwrap_or("a stranger").to_owned()
        })
        .on_connect(move |context| connected(format!("{:?} came", context.state::<String>())))
        .on_disconnect(move |context| disconnected(format!("{:?} left", context.state::<String>())))
        .on_stop({
            let stopped = stopped.clone();
            move || stopped("stop".to_owned())
        })
        .on_stop(move || stopped("stop again".to_owned()));
    (server, told)
}

/// What the hooks say of one connection, and of a stop behind that.
fn of_one(name: &str) -> [String; 4] {
    let came = format!("Some({name:?}) came");
    [came, format!("Some({name:?}) left"), "stop".to_owned(), "stop again".to_owned()]
}

fn who(_: Value, context: Context) -> Option<String> {
    context.state().cloned()
}

#[track_caller]
fn check_hooks(server: Server, client: impl FnOnce(u16) -> Client, name: &str) {
    let (server, told) = with_hooks(server);
    let server = start(server);
    let client = blocking::Client::from(client(server.local_addr().port()));
    assert_eq!(client.send(1).expect("a reply"), value!(name));
    drop(client);
    let first_two: Vec<_> =
        (0..2).map(|_| told.recv_timeout(PATIENCE).expect("it is told")).collect();
    server.stop();
    server.join();
    assert_eq!([first_two, rest(&told)].concat(), of_one(name));
}

#[test]
fn hooks_are_called_in_order_and_find_what_those_before_have_returned() {
    check_hooks(Server::with_context(HOST, 0, who), |port| Client::new(HOST, port), "a stranger");
}

#[test]
fn hooks_work_with_raw_handlers() {
    let server =
        Server::raw(HOST, 0, |message, reply| reply.write(&message.context().state::<String>()));
    check_hooks(server, |port| Client::new(HOST, port), "a stranger");
}

#[cfg(unix)]
#[test]
fn hooks_work_on_unix_sockets() {
    let place = Place::new();
    let server = Server::with_context(place.host(), 0, who);
    check_hooks(server, |_| Client::new(place.host(), 0), "a stranger");
}

#[test]
fn over_tls_a_connection_begins_when_it_is_known_who_the_client_is() {
    let server = Server::with_context(HOST, 0, who)
        .tls(cert("server.crt"), cert("server.key"))
        .tls_client_ca(cert("ca.crt"));
    check_hooks(
        server,
        |port| {
            // Who is no client is no connection that anybody is told of.
            let mut stranger = Raw::connect((std::net::Ipv4Addr::LOCALHOST, port).into());
            stranger.0.write_all(b"\x81\xa3foo\xa3bar").expect("open");
            let _ = stranger.rest();
            Client::new(HOST, port)
                .tls_cafile(cert("ca.crt"))
                .tls_client_cert(cert("client.crt"), cert("client.key"))
        },
        "test-client",
    );
}

#[test]
fn each_connection_has_its_own_state_of_each_type() {
    struct Calls(Mutex<u64>);
    let server = Server::with_context(HOST, 0, |_, context: Context| {
        let calls: &Calls = context.state().expect("made by the first hook");
        let mut calls = calls.0.lock().expect("not poisoned");
        *calls += 1;
        let missing = context.state::<()>().is_none() && context.state::<u8>().is_none();
        value!([
            *calls,
            context.state::<char>().copied().map(String::from).unwrap_or_default(),
            missing
        ])
    });
    let server = start(
        server
            .on_connect(|_| Calls(Mutex::new(0)))
            .on_connect(|_| ())
            .on_connect(|_| 'a')
            .on_connect(|_| 'b'), // the first of a type is found
    );
    let [mut first, mut second] = [(); 2].map(|()| Raw::connect(server.local_addr()));
    for number in 1..4 {
        first.send(&[0]);
        first.expect(&[0x93, number, 0xa1, b'a', 0xc3]);
    }
    second.send(&[0]);
    second.expect(&[0x93, 1, 0xa1, b'a', 0xc3]);
}

#[test]
fn the_state_of_a_connection_lives_as_long_as_its_last_context() {
    let (gate, wait) = unbounded::<()>();
    let (started_sender, started) = unbounded();
    let server = Server::with_context(HOST, 0, move |_, context: Context| {
        let (wait, started) = (wait.clone(), started_sender.clone());
        async move {
            let _ = started.send(()).await;
            let _ = wait.recv().await;
            drop(context);
        }
    });
    let state = Arc::new(());
    let (weak, of_connections) = (Arc::downgrade(&state), Mutex::new(Some(state)));
    let (sender, gone) = mpsc::channel();
    let server = server
        .on_connect(move |_| of_connections.lock().expect("not poisoned").take())
        .on_disconnect(move |_| sender.send(()).expect("the test listens"));
    let server = start(server);
    let mut peer = Raw::connect(server.local_addr());
    peer.send(&[1]);
    started.recv_blocking().expect("the handler runs");
    peer.finish();
    gone.recv_timeout(PATIENCE).expect("the end is told");
    assert_eq!(weak.strong_count(), 1, "the handler has its context");
    gate.try_send(()).expect("the handler waits");
    peer.expect(&[0xc0]);
    peer.expect_end(End::Closed);
    server.stop();
    server.join();
    assert_eq!(weak.strong_count(), 0);
}

#[test]
fn a_hook_that_panics_keeps_nothing_else_from_happening() {
    struct Panics(Sender<&'static str>);
    impl Handler for Panics {
        fn call(&self, message: Value, context: &Context) -> Response {
            assert_eq!(context.state::<u8>(), Some(&5));
            Response::ready(message)
        }
        fn connected(&self, _: &Context) {
            self.0.send("connected").expect("open");
            panic!("as it was told");
        }
        fn disconnected(&self, _: &Context) {
            self.0.send("disconnected").expect("open");
            panic!("as it was told");
        }
        fn stopping(&self) {
            self.0.send("stopping").expect("open");
            panic!("as it was told");
        }
    }
    fn panics(_: &Context) {
        panic!("as it was told");
    }
    let (sender, told) = mpsc::channel();
    let (disconnected, stopped) = (sender.clone(), sender.clone());
    let server = Server::with_handler(HOST, 0, Panics(sender))
        .threads(1)
        .on_connect(panics)
        .on_connect(|_| 5u8)
        .on_disconnect(panics)
        .on_disconnect(move |_| disconnected.send("on_disconnect").expect("open"))
        .on_stop(|| panic!("as it was told"))
        .on_stop(move || stopped.send("on_stop").expect("open"));
    let server = start(server);
    for _ in 0..2 {
        let mut peer = Raw::connect(server.local_addr());
        peer.send(&[1]);
        peer.expect(&[1]);
        peer.finish();
        peer.expect_end(End::Closed);
    }
    server.stop();
    server.join();
    let of_one = ["connected", "disconnected", "on_disconnect"];
    assert_eq!(rest(&told), [&of_one[..], &of_one, &["stopping", "on_stop"]].concat());
}

#[test]
fn a_handler_that_cannot_work_fails_the_start_before_the_server_listens() {
    struct Picky(mpsc::Sender<()>);
    impl Handler for Picky {
        fn call(&self, message: Value, _: &Context) -> Response {
            Response::ready(message)
        }
        fn check(&self) -> Result<(), Error> {
            self.0.send(()).expect("the test listens");
            Err(Error::Config("there are no methods".to_owned()))
        }
    }
    let (sender, checked) = mpsc::channel();
    // A server that listened on this address would say that it cannot.
    let server = || {
        Server::with_handler("no.such.host.invalid", 1, Picky(sender.clone()))
            .on_stop(|| panic!("it has not started"))
    };
    let errors = [
        server().start().expect_err("the handler is picky"),
        server().start_background().expect_err("the handler is picky"),
        smol::block_on(server().serve(std::future::pending())).expect_err("the handler is picky"),
    ];
    for error in errors {
        assert!(matches!(&error, Error::Config(text) if text == "there are no methods"), "{error}");
        checked.recv().expect("it was checked");
    }
    assert!(checked.try_recv().is_err(), "and no more than once");
}
