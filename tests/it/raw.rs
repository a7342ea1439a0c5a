//! A peer of raw bytes: what goes over the socket is what the test says.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longer than any test needs: a hang becomes a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A connection without a client library.
pub(crate) struct Raw<S = TcpStream>(pub(crate) S);

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self(stream)
    }

    /// Says that nothing more will come.
    pub(crate) fn finish(&self) {
        self.0.shutdown(Shutdown::Write).expect("an open connection");
    }
}

#[cfg(unix)]
impl Raw<UnixStream> {
    pub(crate) fn at(path: &str) -> Self {
        let stream = UnixStream::connect(path).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self(stream)
    }
}

impl<S: Read + Write> Raw<S> {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server reads");
    }

    /// Reads exactly these bytes.
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        if let Err(error) = self.0.read_exact(&mut read) {
            panic!("expected {} but the read failed: {error}", show(bytes));
        }
        assert_eq!(show(&read), show(bytes));
    }

    /// Reads one reply, a str of up to 31 bytes, or a str8 or str16.
    pub(crate) fn expect_text(&mut self, text: &str) {
        let mut packed = Vec::new();
        rmpv::encode::write_value(&mut packed, &text.into()).expect("writing to a Vec");
        self.expect(&packed);
    }

    /// Reads to the end of the connection.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => (rest, End::Closed),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => (rest, End::Reset),
            Err(error) => panic!("no end of the connection: {error}"),
        }
    }

    pub(crate) fn expect_end(&mut self, end: End) {
        assert_eq!(self.rest(), (Vec::new(), end));
    }
}

fn show(bytes: &[u8]) -> String {
    format!("{}", bytes.escape_ascii())
}
