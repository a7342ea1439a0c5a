//! A socket of the load, plain or with TLS, read and written without waiting.

use std::io::{self, ErrorKind, Read, Write};

use futures_rustls::rustls::ClientConnection;
use mio::{Interest, Registry, Token};

use super::socket::{Place, Socket};
use crate::security::Tls;

/// How to connect.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) place: Place,
    pub(crate) tls: Option<Tls>,
}

#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    session: Option<Box<ClientConnection>>,
}

impl Stream {
    /// Begins to connect, and registers the socket, edge-triggered.
    pub(crate) fn connect(target: &Target, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut socket = Socket::connect(&target.place)?;
        registry.register(socket.source(), token, Interest::READABLE | Interest::WRITABLE)?;
        let session = match &target.tls {
            None => None,
            Some(Tls { config, name }) => {
                let session = ClientConnection::new(config.clone(), name.clone());
                Some(Box::new(session.map_err(io::Error::other)?))
            }
        };
        Ok(Self { socket, session })
    }

    /// Goes on with connecting and the TLS handshake; false if they take longer.
    pub(crate) fn establish(&mut self) -> io::Result<bool> {
        if !self.socket.establish()? {
            return Ok(false);
        }
        let Some(session) = &mut self.session else { return Ok(true) };
        while session.is_handshaking() {
            if !send_records(session, &mut self.socket)? {
                return Ok(false);
            }
            match receive_records(session, &mut self.socket) {
                Ok(true) => {}
                Ok(false) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        send_records(session, &mut self.socket)?;
        Ok(true)
    }

    /// Reads what has arrived; 0 is the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.read(buffer) };
        loop {
            match session.reader().read(buffer) {
                // The server closed without a close_notify, as many do.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            if !receive_records(session, &mut self.socket)? {
                return Ok(0);
            }
        }
    }

    /// Whether a read of fewer bytes than there was room for has emptied the socket: on Linux it
    /// has, see epoll(7).
    pub(crate) fn short_read_means_empty(&self) -> bool {
        cfg!(target_os = "linux") && self.session.is_none()
    }

    /// Writes what the system takes, which for TLS may be records from before, and nothing new.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.write(bytes) };
        // With an empty buffer the records are full ones.
        if !send_records(session, &mut self.socket)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let written = session.writer().write(bytes)?;
        send_records(session, &mut self.socket)?;
        Ok(written)
    }

    /// Writes what TLS still has to say, as much as the system takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            send_records(session, &mut self.socket)?;
        }
        Ok(())
    }
}

/// Sends the records that wait; false if the system does not take all of them.
fn send_records(session: &mut ClientConnection, socket: &mut Socket) -> io::Result<bool> {
    while session.wants_write() {
        match session.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Takes what has arrived; false at the end.
fn receive_records(session: &mut ClientConnection, socket: &mut Socket) -> io::Result<bool> {
    if session.read_tls(socket)? == 0 {
        return Ok(false);
    }
    session.process_new_packets().map_err(io::Error::other)?;
    Ok(true)
}
