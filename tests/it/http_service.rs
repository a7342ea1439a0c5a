//! A JSON-RPC service of raw bytes: what it answers is what the test says, byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::{Value as Json, json};

use crate::loopback::HOST;
use crate::raw::PATIENCE;

/// A request as the service got it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The number of its connection, from 0.
    pub(crate) connection: usize,
    /// The request line and the headers, in lower case but for the first.
    pub(crate) head: Vec<String>,
    pub(crate) body: Json,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let name = format!("{name}: ");
        self.head.iter().find_map(|line| line.strip_prefix(&name))
    }

    pub(crate) fn id(&self) -> &Json {
        &self.body["id"]
    }

    /// A reply with this result.
    pub(crate) fn result(&self, result: Json) -> Answer {
        ok(&json!({"jsonrpc": "2.0", "id": self.id(), "result": result}))
    }
}

/// What a service does with a request: it writes some bytes, and perhaps ends the connection.
pub(crate) struct Answer {
    bytes: Vec<u8>,
    closes: bool,
}

impl Answer {
    pub(crate) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }
}

/// These bytes.
pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Answer {
    Answer { bytes: bytes.into(), closes: false }
}

/// A status with a body.
pub(crate) fn status(status: &str, body: &str) -> Answer {
    raw(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

pub(crate) fn ok(body: &Json) -> Answer {
    status("200 OK", &body.to_string())
}

/// A running service.
pub(crate) struct Service {
    pub(crate) port: u16,
    events: Receiver<Event>,
}

/// What a service has seen.
#[derive(Debug)]
pub(crate) enum Event {
    Request(Request),
    /// The connection with this number is closed on both sides.
    Ended(usize),
}

impl Service {
    /// Answers each request with what `respond` makes of it.
    pub(crate) fn start(respond: impl Fn(&Request) -> Answer + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind((HOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let Ok(stream) = stream else { return };
                let (respond, sender) = (respond.clone(), sender.clone());
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read(&mut stream, connection) {
                        let _ = sender.send(Event::Request(request.clone()));
                        let answer = respond(&request);
                        // Fails if the client has had enough.
                        let written = stream.get_mut().write_all(&answer.bytes);
                        if answer.closes || written.is_err() {
                            break;
                        }
                    }
                    drop(stream);
                    let _ = sender.send(Event::Ended(connection));
                });
            }
        });
        Self { port, events }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{HOST}:{}/api", self.port)
    }

    /// The next request.
    #[track_caller]
    pub(crate) fn request(&self) -> Request {
        match self.events.recv_timeout(PATIENCE).expect("a request") {
            Event::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until this connection is closed.
    #[track_caller]
    pub(crate) fn expect_end(&self, connection: usize) {
        match self.events.recv_timeout(PATIENCE).expect("an end") {
            Event::Ended(ended) => assert_eq!(ended, connection),
            other => panic!("{other:?}"),
        }
    }

    /// The connections of the requests since the last look.
    pub(crate) fn connections(&self) -> Vec<usize> {
        let requests = self.events.try_iter().filter_map(|event| match event {
            Event::Request(request) => Some(request.connection),
            Event::Ended(_) => None,
        });
        requests.collect()
    }
}

/// Reads a request with a `Content-Length`; `None` if the connection ends before it.
fn read(stream: &mut BufReader<TcpStream>, connection: usize) -> Option<Request> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
        match line.trim_end() {
            "" => break,
            line if head.is_empty() => head.push(line.to_owned()),
            line => {
                let (name, value) = line.split_once(": ").expect("a header");
                head.push(format!("{}: {value}", name.to_lowercase()));
            }
        }
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).expect("JSON");
    Some(Request { connection, head, body })
}
