//! Servers and clients on Unix sockets: what is the same there, and what files add to it.

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrpc::{Client, Context, Error, RpcError, Server, ServerHandle, Value, blocking, value};
use async_channel::unbounded;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::loopback::{cert, start};
use crate::python;
use crate::raw::{End, PATIENCE, Raw};

/// A deadline that a test waits for.
const SOON: Duration = Duration::from_millis(50);

/// The path of a socket in a directory of its own, until it is dropped.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let name =
            format!("arrpc-{}-{}", std::process::id(), PLACES.fetch_add(1, Ordering::SeqCst));
        // Not where Cargo's are, as the path of a socket must be short.
        let directory = env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a new directory");
        Self(directory)
    }

    fn path(&self) -> String {
        self.0.join("rpc.sock").to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn host(&self) -> String {
        format!("unix:{}", self.path())
    }

    pub(crate) fn echo(&self) -> Server {
        Server::new(self.host(), 0, |message| message)
    }

    fn client(&self) -> Client {
        Client::new(self.host(), 0)
    }

    fn send(&self, message: impl Into<Value>) -> Value {
        blocking::Client::from(self.client()).send(message).expect("a reply")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stop(server: ServerHandle) {
    server.stop();
    server.join();
}

/// Whether a socket is at the path, also if nobody listens on it.
fn is_socket(path: &str) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

#[test]
fn clients_and_raw_bytes_get_their_replies() {
    let place = Place::new();
    let server = start(place.echo());
    assert_eq!(server.local_addr().to_string(), "0.0.0.0:0");

    let client = place.client();
    smol::block_on(async {
        for message in [value!({"foo": "bar"}), Value::Nil, value!(["x".repeat(100_000)])] {
            assert_eq!(client.send(message.clone()).await.expect("a reply"), message);
        }
    });
    let mut peer = Raw::at(&place.path());
    peer.send(b"\x81\xa3foo");
    peer.send(b"\xa3bar\x01\x02\xc0");
    peer.expect(b"\x81\xa3foo\xa3bar\x01\x02\xc0");
    peer.0.shutdown(Shutdown::Write).expect("open");
    peer.expect_end(End::Closed);
}

#[test]
fn a_python_program_gets_its_replies() {
    let place = Place::new();
    let _server = start(place.echo());
    assert_eq!(python::run("unix.py", &[&place.path()]), "True\n".repeat(4));
}

#[test]
fn a_message_of_16_mib_goes_both_ways() {
    let place = Place::new();
    let _server = start(place.echo());
    let message = Value::Binary((0..(16 << 20) - 5).map(|i| (i % 251) as u8).collect());
    assert!(place.send(message.clone()) == message);
}

#[test]
fn many_connections_are_served_at_once() {
    let place = Place::new();
    let _server = start(place.echo());
    let mut peers: Vec<_> = (0..200).map(|_| Raw::at(&place.path())).collect();
    for number in 0..5 {
        peers.iter_mut().for_each(|peer| peer.send(&[number]));
        peers.iter_mut().for_each(|peer| peer.expect(&[number]));
    }
}

#[test]
fn calls_share_connections_and_handlers_have_the_bytes() {
    let place = Place::new();
    let server =
        Server::raw(place.host(), 0, |message, reply| match message.context().peer_addr() {
            None => reply.write_bytes(message.bytes()),
            Some(_) => Err(RpcError::new("there is no address")),
        });
    let server = start(server);
    let client = place.client().max_connections(2).pipelined(16);
    for _ in 0..2 {
        let calls: Vec<_> = (0..500)
            .map(|number| {
                let client = client.clone();
                smol::spawn(async move { client.send(number).await })
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(smol::block_on(call).expect("a reply"), value!(number));
        }
    }
    stop(server);
    let _next = start(place.echo());
    // Again, if it goes out before the end of the shared connection is noticed.
    let again = client.idempotent();
    assert_eq!(smol::block_on(again.send(1)).expect("a reply"), value!(1));
}

#[test]
fn signed_messages_are_verified() {
    let place = Place::new();
    let _server = start(place.echo().auth_secret("secret"));
    let client = |secret: &str| blocking::Client::from(place.client().auth_secret(secret));
    assert_eq!(client("secret").send(1).expect("a reply"), value!(1));
    assert!(matches!(client("guess").send(1), Err(Error::Auth(_))));
}

#[test]
fn tls_with_a_pinned_certificate_works_and_other_trust_is_refused() {
    let place = Place::new();
    let server = Server::with_context(place.host(), 0, |_, context: Context| {
        let name = context.tls_identity().and_then(|identity| identity.common_name());
        value!([context.is_tls(), name.unwrap_or_default()])
    });
    let server = server.tls(cert("server.crt"), cert("server.key"));
    let _server = start(server.tls_client_ca(cert("ca.crt")));
    let client = place.client().tls_client_cert(cert("client.crt"), cert("client.key"));
    let send = |client: Client| blocking::Client::from(client.con_max_retries(1)).send(1);
    let pinned = send(client.clone().tls_self_signed(cert("server.crt"))).expect("a reply");
    assert_eq!(pinned[0], value!(true));
    assert!(!pinned[1].as_str().expect("a name").is_empty());

    let other = send(client.clone().tls_self_signed(cert("other.crt")));
    assert!(matches!(other, Err(Error::Tls { .. })), "{other:?}");
    for client in [client.clone().tls_cafile(cert("ca.crt")), client.tls()] {
        match send(client) {
            Err(Error::Config(text)) => assert!(text.contains("give tls_self_signed"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_address_that_cannot_work_is_refused() {
    let long = format!("unix:/tmp/{}", "x".repeat(108));
    for (host, port, why) in [
        ("unix:/tmp/x", 8080, "unix:/tmp/x has no port, give 0 for it, not 8080"),
        ("unix:", 0, "is no path of a socket"),
        (&*long, 0, "has 113 bytes, and a socket's "),
    ] {
        let refusals = [
            Server::new(host, port, |message| message).start().expect_err("it cannot work"),
            blocking::Client::new(host, port).send(1).expect_err("it cannot work"),
        ];
        for refusal in refusals {
            match refusal {
                Error::Config(text) => assert!(text.contains(why), "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_client_without_a_server_is_told_which_socket_it_is() {
    let place = Place::new();
    let refused = |kind: ErrorKind| {
        let client = blocking::Client::from(place.client().con_max_retries(2));
        let error = client.send(1).expect_err("nobody listens");
        let text = format!("Failed to connect to {} with 2 attempts", place.host());
        assert_eq!(error.to_string(), text);
        assert!(matches!(error, Error::Connect { source, .. } if source.kind() == kind));
    };
    refused(ErrorKind::NotFound);
    drop(UnixListener::bind(place.path()).expect("a free path"));
    refused(ErrorKind::ConnectionRefused);
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced() {
    let place = Place::new();
    drop(UnixListener::bind(place.path()).expect("a free path"));
    assert!(is_socket(&place.path()));
    let server = start(place.echo());
    assert_eq!(place.send(1), value!(1));
    stop(server);
    assert!(!is_socket(&place.path()));
}

#[test]
fn a_socket_that_somebody_listens_on_is_refused() {
    let place = Place::new();
    let _server = start(place.echo());
    check_refused(&place, "another server listens there");
    assert_eq!(place.send(1), value!(1));
}

#[test]
fn a_socket_whose_backlog_is_full_is_not_taken_for_one_of_nobody() {
    let place = Place::new();
    let _listener = UnixListener::from(listening(&place.path()));
    let _waiting = fill_backlog(&place.path());
    check_refused(&place, "another server listens there");

    let client = blocking::Client::from(place.client().con_max_retries(1));
    match client.send(1) {
        Err(Error::Connect { source, .. }) => {
            assert_eq!(source.to_string(), "as many connections wait there as may (backlog)");
        }
        other => panic!("{other:?}"),
    }
}

/// A listening socket with the shortest backlog.
fn listening(path: &str) -> OwnedFd {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    socket.bind(&SockAddr::unix(path).expect("short")).expect("a free path");
    socket.listen(0).expect("it is bound");
    socket.into()
}

/// Connects until no more connections may wait.
fn fill_backlog(path: &str) -> Vec<Socket> {
    let mut waiting = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        match socket.connect(&SockAddr::unix(path).expect("short")) {
            Ok(()) => waiting.push(socket),
            Err(_) => return waiting,
        }
    }
}

#[test]
fn what_is_not_a_socket_of_a_server_stays() {
    let place = Place::new();
    let path = place.path();
    let is_refused_and_stays = |text: &str, remove: fn(&Path) -> io::Result<()>| {
        let before = fs::symlink_metadata(&path).expect("it is there");
        check_refused(&place, text);
        let after = fs::symlink_metadata(&path).expect("it is still there");
        assert_eq!(before.file_type(), after.file_type());
        remove(Path::new(&path)).expect("it is ours");
    };
    fs::write(&path, "kept").expect("a new file");
    is_refused_and_stays("the file there is not a socket", |path| {
        assert_eq!(fs::read_to_string(path)?, "kept");
        fs::remove_file(path)
    });
    fs::create_dir(&path).expect("a new directory");
    is_refused_and_stays("the file there is not a socket", |path| fs::remove_dir(path));
    let stale = place.0.join("stale");
    drop(UnixListener::bind(&stale).expect("a free path"));
    symlink(&stale, &path).expect("a new link");
    is_refused_and_stays("the file there is not a socket", |path| fs::remove_file(path));
    assert!(is_socket(stale.to_str().expect("UTF-8")));
    let _datagrams = UnixDatagram::bind(&path).expect("a free path");
    is_refused_and_stays("", |path| fs::remove_file(path));
}

/// A server that is started there fails, and says so.
#[track_caller]
fn check_refused(place: &Place, why: &str) {
    let error = place.echo().start_background().expect_err("something is there");
    assert_eq!(error.to_string(), format!("failed to listen on {}", place.host()));
    match error {
        Error::Bind { source, .. } if why.is_empty() => drop(source),
        Error::Bind { source, .. } => {
            assert_eq!(source.kind(), ErrorKind::AddrInUse);
            assert_eq!(source.to_string(), format!("Address already in use: {why}"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_socket_is_removed_by_a_stop_and_by_a_start_that_fails() {
    let place = Place::new();
    let server = start(place.echo());
    assert!(is_socket(&place.path()));
    stop(server);
    assert!(!is_socket(&place.path()));

    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("bound").port();
    let server = place.echo().metrics_host("127.0.0.1").metrics_port(taken);
    server.start_background().expect_err("the port is taken");
    assert!(!is_socket(&place.path()));
}

#[test]
fn a_stop_leaves_the_socket_of_somebody_else() {
    let place = Place::new();
    let path = place.path();
    let server = start(place.echo());
    fs::remove_file(&path).expect("the server's");
    let others = UnixListener::bind(&path).expect("a free path");
    stop(server);
    assert!(is_socket(&path));
    drop(UnixStream::connect(&path).expect("it listens"));
    drop(others);
}

#[test]
fn a_client_finds_the_next_server_at_the_same_path() {
    let place = Place::new();
    let client = blocking::Client::from(place.client());
    for _ in 0..3 {
        let server = start(place.echo());
        assert_eq!(client.send(1).expect("a reply"), value!(1));
        stop(server);
    }
}

#[test]
fn a_stop_finishes_what_was_accepted_and_ends_the_idle() {
    let place = Place::new();
    let (started_sender, started) = unbounded();
    let (gate, wait) = unbounded::<()>();
    let server = start(Server::new(place.host(), 0, move |message: Value| {
        let (started, wait) = (started_sender.clone(), wait.clone());
        async move {
            if message == Value::from(7) {
                started.send(()).await.map_err(|error| error.to_string())?;
                wait.recv().await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(message)
        }
    }));
    let mut idle = Raw::at(&place.path());
    idle.send(&[1]);
    idle.expect(&[1]);
    let mut busy = Raw::at(&place.path());
    busy.send(&[7, 2]);
    started.recv_blocking().expect("the handler runs");

    server.stop();
    idle.expect_end(End::Closed);
    assert!(UnixStream::connect(place.path()).is_err(), "nothing is accepted any more");
    gate.try_send(()).expect("the handler waits");
    server.join();
    // Read only now: what a Unix socket has taken is not lost with the other end.
    busy.expect(&[7, 2]);
    busy.expect_end(End::Closed);
}

#[test]
fn a_stop_under_load_loses_nothing_that_was_accepted() {
    for _ in 0..5 {
        let place = Place::new();
        let handled = Arc::new(AtomicU64::new(0));
        let count = handled.clone();
        let server = start(Server::new(place.host(), 0, move |message: Value| {
            count.fetch_add(1, Ordering::SeqCst);
            message
        }));
        let peers: Vec<_> = (0..4).map(|_| send_without_end(&place.path())).collect();
        let begin = Instant::now();
        while handled.load(Ordering::SeqCst) < 10_000 {
            assert!(begin.elapsed() < PATIENCE, "it is under load");
            thread::yield_now();
        }
        stop(server);
        let replies: u64 = peers.into_iter().map(|peer| peer.join().expect("in order")).sum();
        assert_eq!(replies, handled.load(Ordering::SeqCst));
    }
}

/// Sends numbers, many at once, until the connection ends; returns how many came back.
fn send_without_end(path: &str) -> thread::JoinHandle<u64> {
    let mut stream = UnixStream::connect(path).expect("it listens");
    let mut sending = stream.try_clone().expect("a socket");
    thread::spawn(move || {
        let batch: Vec<u8> = (0..128).cycle().take(1024).collect();
        while sending.write_all(&batch).is_ok() {}
    });
    thread::spawn(move || {
        let mut replies = 0;
        let mut some = [0; 4096];
        // The end may be a reset: there was more on its way to the server.
        while let Ok(read @ 1..) = stream.read(&mut some) {
            for reply in &some[..read] {
                assert_eq!(u64::from(*reply), replies % 128);
                replies += 1;
            }
        }
        replies
    })
}

#[test]
fn a_call_that_a_stop_cuts_off_was_disconnected() {
    let place = Place::new();
    let (started_sender, started) = unbounded();
    let server = Server::new(place.host(), 0, move |_| {
        let started = started_sender.clone();
        async move {
            let _ = started.send(()).await;
            std::future::pending::<()>().await;
        }
    });
    let server = start(server.drain_timeout(Duration::from_millis(10)));
    let client = blocking::Client::from(place.client());
    let call = thread::spawn(move || client.send(1));
    started.recv_blocking().expect("the handler runs");
    stop(server);
    let cut_off = call.join().expect("no panic");
    assert!(matches!(cut_off, Err(Error::Disconnected { .. })), "{cut_off:?}");
}

#[test]
fn a_refusal_before_the_end_of_a_large_request_is_read() {
    let place = Place::new();
    let _server = start(place.echo().max_message_bytes(1000));
    match blocking::Client::from(place.client()).send(Value::Binary(vec![0; 8 << 20])) {
        Err(Error::Rpc(error)) => {
            assert_eq!(error.message(), "Message is longer than 1000 bytes (max_message_bytes)");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_peer_has_no_address() {
    let place = Place::new();
    let _server = start(Server::with_context(place.host(), 0, |_, context: Context| {
        context.peer_addr().map(|peer| peer.to_string())
    }));
    assert_eq!(place.send(1), Value::Nil);
}

#[test]
fn metrics_name_the_peer_unix_and_the_server_by_its_path() {
    async fn called_over_unix(message: Value) -> Value {
        message
    }
    let place = Place::new();
    let server = Server::new(place.host(), 0, called_over_unix);
    let _server = start(server.metrics_host("127.0.0.1").metrics_port(0));
    let client = place.client().metrics_host("127.0.0.1").metrics_port(0);
    blocking::Client::from(client).send(1).expect("a reply");
    let metrics = arrpc::metrics::render();
    let is_counted = |texts: &[&str]| {
        let counts = |line: &str| texts.iter().all(|text| line.contains(text));
        assert!(metrics.lines().any(counts), "{texts:?} in {metrics}");
    };
    let peer = ["handler_func=\"called_over_unix\"", "remote_address=\"unix\""];
    is_counted(&[&["arrpc_server_req_seconds_count"], &peer[..]].concat());
    let server = format!("remote_address=\"{}\"", place.host());
    is_counted(&["arrpc_client_req_seconds_count", &server]);
}

#[test]
fn connections_beyond_the_limit_wait_or_are_told_so() {
    let place = Place::new();
    let server = start(place.echo().max_connections(1));
    let mut first = Raw::at(&place.path());
    first.send(&[1]);
    first.expect(&[1]);
    let mut second = Raw::at(&place.path());
    second.send(&[2]);
    second.0.set_read_timeout(Some(SOON)).expect("a socket");
    let early = second.0.read(&mut [0]).expect_err("it waits");
    assert!(matches!(early.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{early}");
    second.0.set_read_timeout(Some(PATIENCE)).expect("a socket");
    drop(first);
    second.expect(&[2]);
    stop(server);

    let _server = start(place.echo().max_connections(1).refuse_excess_connections());
    let mut first = Raw::at(&place.path());
    first.send(&[1]);
    first.expect(&[1]);
    let mut second = Raw::at(&place.path());
    second.send(&[2]);
    second.expect_text(
        "arrpc.error.RpcException: The server has too many connections (max_connections 1)",
    );
    second.expect_end(End::Closed);
}

#[test]
fn the_idle_and_those_that_read_nothing_are_cut_off() {
    let place = Place::new();
    let server = start(place.echo().idle_timeout(SOON));
    Raw::at(&place.path()).expect_end(End::Closed);
    stop(server);

    let _server = start(place.echo().write_timeout(SOON));
    let mut unread = Raw::at(&place.path());
    let message = [&b"\xc6\x00\x10\x00\x00"[..], &vec![0; 1 << 20]].concat();
    let cut_off = loop {
        if let Err(error) = unread.0.write_all(&message) {
            break error.kind();
        }
    };
    assert!(matches!(cut_off, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{cut_off}");
}

#[test]
fn a_peer_that_reads_slowly_gets_all() {
    let place = Place::new();
    let _server = start(place.echo().write_timeout(Duration::from_secs(2)));
    let mut slow = Raw::at(&place.path());
    let message = [&b"\xc6\x00\x10\x00\x00"[..], &vec![7; 1 << 20]].concat();
    slow.send(&message);
    let mut read = vec![0; message.len()];
    let begin = Instant::now();
    for piece in read.chunks_mut(64 << 10) {
        thread::sleep(3 * SOON);
        slow.0.read_exact(piece).expect("it is not cut off");
    }
    assert!(begin.elapsed() > Duration::from_secs(2), "longer than it may take nothing");
    assert!(read == message);
}
