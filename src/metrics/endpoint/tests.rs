//! Raw bytes to the endpoint and back, over loopback.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::*;
use crate::metrics::ServerMetrics;

const HOST: &str = "127.0.0.1";

/// No test waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// An endpoint apart from the one of the process, with a registry and a roster of its own.
fn endpoint(limits: Limits) -> (Endpoint, SocketAddr) {
    let endpoint = Endpoint {
        registry: Box::leak(Box::new(Registry::new("box-1", ""))),
        roster: Box::leak(Box::new(Roster::new())),
        limits,
    };
    (endpoint, endpoint.listen(HOST, 0).unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `request` and returns all that comes until the endpoint closes, without the date.
fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let head: Vec<&str> = head.split("\r\n").filter(|line| !line.starts_with("date: ")).collect();
    format!("{}\n\n{body}", head.join("\n"))
}

fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    exchange(address, &request)
}

/// Asks over a connection; true if there was an answer, false if it was closed.
fn is_served(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let mut answered = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    while answered.is_ok() && !answer.ends_with(b"\r\n\r\nok") {
        let mut byte = [0];
        answered = stream.read_exact(&mut byte);
        answer.extend(byte);
    }
    if let Err(error) = &answered {
        assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "neither served nor closed");
    }
    answered.is_ok()
}

#[test]
fn every_path_and_method_gets_its_answer() {
    let (_, address) = endpoint(LIMITS);
    let not_found = "not found; there are /, /metrics, /healthz and /readyz\n";
    let missing = format!(
        "HTTP/1.1 404 Not Found\ncontent-type: text/plain; charset=utf-8\nconnection: close\ncontent-length: 55\n\n{not_found}"
    );
    let ok = "HTTP/1.1 200 OK\ncontent-type: text/plain; charset=utf-8\nconnection: close\n";
    let refused = "HTTP/1.1 405 Method Not Allowed\ncontent-type: text/plain; charset=utf-8\nallow: GET, HEAD\nconnection: close\n";
    let refused = format!("{refused}content-length: 16\n\nuse GET or HEAD\n");
    let check = |method: &str, path: &str, expected: &str| {
        assert_eq!(ask(address, method, path), expected, "{method} {path}");
    };
    check("GET", "/healthz", &format!("{ok}content-length: 2\n\nok"));
    check("HEAD", "/healthz", &format!("{ok}content-length: 2\n\n"));
    check("GET", "/readyz", &format!("{ok}content-length: 5\n\nready"));
    check("HEAD", "/readyz", &format!("{ok}content-length: 5\n\n"));
    check("GET", "/healthz?verbose=1", &format!("{ok}content-length: 2\n\nok"));
    for path in
        ["/index.html", "/metrics/", "/Metrics", "//metrics", "/favicon.ico", "/healthz/../metrics"]
    {
        check("GET", path, &missing);
    }
    check("POST", "/index.html", &missing);
    for path in ["/", "/metrics", "/healthz", "/readyz"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            check(method, path, &refused);
        }
    }
}

#[test]
fn metrics_are_the_text_of_the_registry() {
    let (endpoint, address) = endpoint(LIMITS);
    let server = ServerMetrics::new(&endpoint.registry.server, "echo", false, false);
    server.connection("10.0.0.1").observe(Duration::from_millis(1), 3);
    let text = endpoint.registry.render();
    let length = text.len();
    let head = format!(
        "HTTP/1.1 200 OK\ncontent-type: text/plain; version=0.0.4; charset=utf-8\nconnection: close\ncontent-length: {length}\n\n"
    );
    assert!(text.contains("arrpc_server_req_bytes_sum{"));
    assert_eq!(ask(address, "GET", "/metrics"), format!("{head}{text}"));
    assert_eq!(ask(address, "HEAD", "/metrics"), head);
}

#[test]
fn a_probe_is_told_when_a_server_is_not_ready() {
    let (endpoint, address) = endpoint(LIMITS);
    let status =
        || ask(address, "GET", "/readyz").replace("content-type: text/plain; charset=utf-8\n", "");
    let ready = "HTTP/1.1 200 OK\nconnection: close\ncontent-length: 5\n\nready";
    let not_ready =
        "HTTP/1.1 503 Service Unavailable\nconnection: close\ncontent-length: 9\n\nnot ready";
    assert_eq!(status(), ready);
    let server: Readiness = endpoint.roster.starting();
    assert_eq!(status(), not_ready);
    server.ready();
    assert_eq!(status(), ready);
    server.stopping();
    assert_eq!(status(), not_ready);
    assert!(ask(address, "GET", "/healthz").ends_with("\n\nok"), "alive all the same");
    drop(server);
    assert_eq!(status(), ready);
}

#[test]
fn a_connection_carries_one_request() {
    let (_, address) = endpoint(LIMITS);
    let mut stream = connect(address);
    assert!(is_served(&mut stream));
    assert!(!is_served(&mut stream));
}

#[test]
fn what_is_not_http_gets_a_400_and_is_closed() {
    let (_, address) = endpoint(LIMITS);
    let answer = exchange(address, "\u{1}\u{2}garbage\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\n"), "{answer}");
}

#[test]
fn a_head_larger_than_the_buffer_is_refused() {
    let (_, address) = endpoint(LIMITS);
    // Exactly what the buffer holds, so that no unread byte turns the close into a reset.
    let head = format!("GET /metrics HTTP/1.1\r\nx: {}", "y".repeat(MAX_BUFFER_BYTES));
    let answer = exchange(address, &head[..MAX_BUFFER_BYTES]);
    assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\n"), "{answer}");
}

#[test]
fn a_body_that_is_announced_is_not_waited_for() {
    let (_, address) = endpoint(LIMITS);
    let answer = exchange(
        address,
        "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\n"), "{answer}");
}

#[test]
fn connections_beyond_the_limit_are_closed_and_a_place_is_free_again_later() {
    let (_, address) = endpoint(Limits { connections: 2, head: PATIENCE, connection: PATIENCE });
    let mut first = connect(address);
    let second = connect(address);
    assert!(!is_served(&mut connect(address)), "accepted behind the two that say nothing yet");
    assert!(is_served(&mut first), "those within the limit go on");
    drop(second);
    let deadline = Instant::now() + PATIENCE;
    while !is_served(&mut connect(address)) {
        assert!(Instant::now() < deadline, "the place was not given back");
    }
}

#[test]
fn a_silent_connection_is_closed() {
    let (_, address) = endpoint(Limits { head: Duration::from_millis(50), ..LIMITS });
    for sent in ["", "GET /metr", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut stream = connect(address);
        stream.write_all(sent.as_bytes()).unwrap();
        stream.read_to_end(&mut Vec::new()).expect("closed within the patience of the test");
    }
}

#[test]
fn a_peer_that_does_not_read_its_responses_is_let_go() {
    let (_, address) = endpoint(Limits { connection: Duration::from_millis(200), ..LIMITS });
    let mut stream = connect(address);
    let requests = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    let deadline = Instant::now() + PATIENCE;
    // The responses fill what the kernel buffers between the two, then the requests do.
    let error = loop {
        assert!(Instant::now() < deadline, "the endpoint still takes requests");
        if let Err(error) = stream.write_all(&requests) {
            break error;
        }
    };
    assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "stalled and not closed");
}

#[test]
fn a_process_has_one_endpoint_for_a_host_and_a_port() {
    let address = open(HOST, 0).unwrap();
    assert_eq!(open(HOST, address.port()).unwrap(), address);
    assert_ne!(open(HOST, 0).unwrap(), address, "port 0 asks for another one");
    assert!(ask(address, "GET", "/healthz").ends_with("\n\nok"));
}

#[test]
fn threads_that_open_the_same_endpoint_get_the_same() {
    let open_at_once = |port: u16| -> io::Result<Vec<SocketAddr>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(move || open(HOST, port))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    // Another test may take the port between its release here and its use: then with another port.
    let addresses = (0..10).find_map(|_| {
        let listener = std::net::TcpListener::bind((HOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        open_at_once(port).ok()
    });
    let addresses = addresses.expect("every thread gets an address");
    assert_eq!(addresses, vec![addresses[0]; 8]);
}

#[test]
fn a_host_name_is_resolved() {
    let address = open("localhost", 0).unwrap();
    assert!(address.ip().is_loopback());
}

#[test]
fn a_port_that_is_taken_is_an_error_that_says_what_to_do() {
    let taken = std::net::TcpListener::bind((HOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = open(HOST, port).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(
        error.to_string(),
        format!(
            "cannot serve metrics on 127.0.0.1:{port}: another program has this port, or this one under another host; set metrics_port to a free one"
        )
    );
    assert!(error.source().is_some(), "the cause is its source");
}

#[test]
fn an_address_of_another_machine_is_an_error_that_names_it() {
    let error = open("2001:db8::1", 9095).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot serve metrics on [2001:db8::1]:9095: "),
        "{error}"
    );
}
