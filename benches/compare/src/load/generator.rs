//! The load generator that the floor, arrpc and its Python original share: bytes made beforehand
//! over many connections in one thread. It decodes nothing; it compares the replies of the first
//! drive, the warm-up, and counts the bytes of the later ones.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::event::Source;
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Load, no_latencies};
use crate::contestants::Setup;
use crate::rows::Row;
use crate::wire::{self, REPLY, REQUEST, certificate};

/// Longer than anything may take: a hang becomes an error.
const PATIENCE: Duration = Duration::from_secs(10);

const BUFFER_BYTES: usize = 256 * 1024;

/// What is sent, and what is to come back.
#[derive(Debug)]
pub(crate) struct Traffic {
    connections: usize,
    /// The requests that one write sends.
    depth: usize,
    /// All these requests.
    batch: Vec<u8>,
    reply: Vec<u8>,
    is_tls: bool,
}

impl Traffic {
    pub(crate) fn of(row: Row, setup: Setup) -> Self {
        let (request, reply) = match row {
            Row::Payload { bytes } => (wire::payload(bytes), wire::payload(bytes)),
            _ if setup.is_signed() => (wire::sealed(), REPLY.to_vec()),
            _ => (REQUEST.to_vec(), REPLY.to_vec()),
        };
        Self {
            connections: row.connections(),
            depth: row.depth(),
            batch: request.repeat(row.depth()),
            reply,
            is_tls: setup.is_tls(),
        }
    }
}

/// The connections, and what they have seen.
#[derive(Debug)]
pub(crate) struct Generator {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    batch: Vec<u8>,
    depth: usize,
    reply: Vec<u8>,
    is_warm: bool,
    latencies: Histogram<u64>,
}

impl Generator {
    pub(crate) fn connect(address: SocketAddr, traffic: &Traffic) -> Result<Self> {
        let poll = Poll::new()?;
        let tls = traffic.is_tls.then(client_config).transpose()?;
        let mut connections = Vec::new();
        for number in 0..traffic.connections {
            let mut stream = Stream::connect(address, tls.as_ref())
                .with_context(|| format!("connection {number}"))?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(stream.source(), Token(number), interest)?;
            let idle = traffic.batch.len();
            connections.push(Connection { stream, sent: idle, unread: 0, begun: Instant::now() });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            connections,
            buffer: vec![0; BUFFER_BYTES],
            batch: traffic.batch.clone(),
            depth: traffic.depth,
            reply: traffic.reply.clone(),
            is_warm: false,
            latencies: no_latencies(),
        })
    }

    /// Goes on with a connection that is ready; whether all its requests are answered.
    fn advance(&mut self, number: usize) -> Result<bool> {
        let connection = &mut self.connections[number];
        connection.write(&self.batch)?;
        while connection.unread > 0 {
            let Some(read) = connection.stream.read(&mut self.buffer)? else { return Ok(false) };
            ensure!(read > 0, "the server has closed the connection");
            ensure!(read <= connection.unread, "the server sends more than the replies");
            let bytes = &self.buffer[..read];
            if !self.is_warm {
                let at = self.reply.len() * self.depth - connection.unread;
                let rest = &self.reply[at % self.reply.len()..];
                let expected = rest.iter().chain(self.reply.iter().cycle());
                let text = || String::from_utf8_lossy(&bytes[..read.min(200)]);
                ensure!(bytes.iter().eq(expected.take(read)), "a wrong reply: {}", text());
            }
            let before = connection.unread.div_ceil(self.reply.len());
            connection.unread -= read;
            let answered = before - connection.unread.div_ceil(self.reply.len());
            if answered > 0 {
                let nanoseconds = connection.begun.elapsed().as_nanos() as u64;
                self.latencies.saturating_record_n(nanoseconds, answered as u64);
            }
            if read < self.buffer.len() && connection.stream.is_drained_by_short_reads() {
                break;
            }
        }
        Ok(connection.unread == 0)
    }
}

impl Load for Generator {
    fn drive(&mut self, time: Duration) -> Result<Duration> {
        self.latencies.reset();
        let start = Instant::now();
        let replies = self.reply.len() * self.depth;
        for connection in &mut self.connections {
            connection.begin(&self.batch, replies)?;
        }
        let mut under_way = self.connections.len();
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        while under_way > 0 {
            self.poll.poll(&mut events, Some(PATIENCE))?;
            if events.is_empty() {
                let batches = if under_way == 1 { "batch" } else { "batches" };
                bail!("no reply for {PATIENCE:?}, to {under_way} {batches} of requests");
            }
            let is_over = start.elapsed() >= time;
            for event in &events {
                let Token(number) = event.token();
                if self.connections[number].unread == 0 || !self.advance(number)? {
                    continue;
                }
                match is_over {
                    true => under_way -= 1,
                    false => self.connections[number].begin(&self.batch, replies)?,
                }
            }
        }
        self.events = events;
        self.is_warm = true;
        Ok(start.elapsed())
    }

    fn latencies(&self) -> Histogram<u64> {
        self.latencies.clone()
    }
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    /// The bytes of the batch that are sent.
    sent: usize,
    /// The bytes of replies that are still to come.
    unread: usize,
    /// When the batch was begun.
    begun: Instant,
}

impl Connection {
    /// Sends a batch, as far as the server takes it.
    fn begin(&mut self, batch: &[u8], replies: usize) -> io::Result<()> {
        self.begun = Instant::now();
        self.sent = 0;
        self.unread = replies;
        self.write(batch)
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        while self.sent < batch.len() {
            match self.stream.write(&batch[self.sent..])? {
                Some(written) => self.sent += written,
                None => break,
            }
        }
        Ok(())
    }
}

/// A plain or an encrypted socket that does not block.
#[derive(Debug)]
enum Stream {
    Plain(mio::net::TcpStream),
    Tls(Box<StreamOwned<ClientConnection, mio::net::TcpStream>>),
}

impl Stream {
    fn connect(address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let mut socket = std::net::TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let session = match tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                let mut session = ClientConnection::new(config.clone(), name)?;
                session.complete_io(&mut socket).context("TLS handshake")?;
                Some(session)
            }
        };
        socket.set_nonblocking(true)?;
        let socket = mio::net::TcpStream::from_std(socket);
        Ok(match session {
            None => Self::Plain(socket),
            Some(session) => Self::Tls(Box::new(StreamOwned::new(session, socket))),
        })
    }

    fn source(&mut self) -> &mut impl Source {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// Whether a read that does not fill its buffer tells that nothing is left (epoll(7), question
    /// 9). A TLS record may end earlier.
    fn is_drained_by_short_reads(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Reads what is there; `None` if that is nothing.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        would_block(match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        })
    }

    /// Writes what the socket takes; `None` if that is nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        would_block(match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        })
    }
}

fn would_block(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn client_config() -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate("ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
