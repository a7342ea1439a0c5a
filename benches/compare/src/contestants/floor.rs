//! The floor: what a server in one thread costs that only reads and writes. It counts the bytes of
//! the requests, or sends them back, and knows neither frames nor values.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};

use anyhow::Result;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::rows::Row;
use crate::wire::{REPLY, REQUEST};

const LISTENER: Token = Token(0);

/// As much as arrpc's worker reads at once.
const BUFFER_BYTES: usize = 72 * 1024;

pub(crate) fn serve(row: Row) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{}", listener.local_addr()?);
    let is_echo = matches!(row, Row::Payload { .. });
    let replies = REPLY.repeat(BUFFER_BYTES / REQUEST.len() + 1);
    let mut connections = HashMap::new();
    let mut opened = 0;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    opened += 1;
                    let token = Token(opened);
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, token, interest)?;
                    connections.insert(token, Connection { stream, cut: 0, unsent: Vec::new() });
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&event.token()) else { continue };
            let is_open = match is_echo {
                true => connection.echo(&mut buffer),
                false => connection.reply(&mut buffer, &replies),
            };
            if !is_open {
                connections.remove(&event.token());
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// The bytes of a request that is not whole yet.
    cut: usize,
    /// What the peer does not take yet, when echoing.
    unsent: Vec<u8>,
}

impl Connection {
    /// Answers what has arrived, each read with one write; false at the end.
    fn reply(&mut self, buffer: &mut [u8], replies: &[u8]) -> bool {
        loop {
            let Some(read) = read(&mut self.stream, buffer) else { return false };
            let bytes = self.cut + read;
            self.cut = bytes % REQUEST.len();
            let replies = &replies[..bytes / REQUEST.len() * REPLY.len()];
            // Fits: the peer never has more under way than the socket's buffer holds.
            if !replies.is_empty() && self.stream.write_all(replies).is_err() {
                return false;
            }
            if read < buffer.len() {
                return true; // nothing is left (epoll(7), question 9)
            }
        }
    }

    /// Sends back what has arrived, as far as the peer takes it; false at the end.
    fn echo(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            if !self.unsent.is_empty() {
                let Some(written) = write(&mut self.stream, &self.unsent) else { return false };
                self.unsent.drain(..written);
                if !self.unsent.is_empty() {
                    return true;
                }
            }
            let Some(read) = read(&mut self.stream, buffer) else { return false };
            let Some(written) = write(&mut self.stream, &buffer[..read]) else { return false };
            self.unsent.extend_from_slice(&buffer[written..read]);
            if read < buffer.len() {
                return true;
            }
        }
    }
}

/// Reads what is there, perhaps nothing; `None` at the end.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Option<usize> {
    match stream.read(buffer) {
        Ok(0) => None,
        Ok(read) => Some(read),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
        Err(_) => None,
    }
}

/// Writes what the peer takes; `None` at the end.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Option<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return None,
        }
    }
    Some(written)
}
