//! One HTTP/1.1 connection: a request and its answer, and whether another may follow. Knows neither
//! JSON nor what other connections there are.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

use futures_rustls::rustls;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::LOCATION;
use hyper::{Request, Response};
use smol::future;
use smol_hyper::rt::FuturesIo;

use super::answer::Answer;
use crate::client::connect::ClientStream;
use crate::client::socket::Socket;
use crate::net::tls;
use crate::{Error, time};

/// The most that the head of an answer may have; it is also what is read at once.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A request that may be sent again.
pub(super) type HttpRequest = Request<Full<Bytes>>;

type Driver = http1::Connection<FuturesIo<ClientStream>, Full<Bytes>>;

/// The connection had ended before anything of the request was written.
#[derive(Debug)]
pub(super) struct NotSent(pub(super) io::Error);

/// A connection. Nothing runs it beside its calls, so that it is closed when one of them is
/// dropped, and works on any executor.
pub(super) struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` when it has ended.
    driver: Option<Driver>,
    /// A look at the socket while nobody runs the driver.
    socket: Socket,
    pub(super) made: Instant,
}

impl HttpConnection {
    pub(super) async fn new(stream: ClientStream) -> Result<Self, Error> {
        let socket = stream.socket().clone();
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD_BYTES);
        let (sender, driver) = builder
            .handshake(FuturesIo::new(stream))
            .await
            .map_err(|error| Error::Protocol(error.to_string()))?;
        Ok(Self { sender, driver: Some(driver), socket, made: time::now() })
    }

    /// Whether the server has neither ended it nor sent something that nobody asked for.
    pub(super) fn is_open_and_silent(&self) -> bool {
        self.socket.is_open_and_silent()
    }

    /// Sends a request, and reads an answer of up to `max_bytes`. `address` is for messages.
    pub(super) async fn exchange(
        &mut self,
        request: HttpRequest,
        max_bytes: usize,
        address: &Arc<str>,
    ) -> Result<Result<Answer, NotSent>, Error> {
        let response = self.sender.try_send_request(request);
        match self.drive(response).await {
            Ok(response) => self.receive(response, max_bytes, address).await.map(Ok),
            Err(mut error) => match error.take_message() {
                Some(_) => Ok(Err(NotSent(io::Error::other(error.into_error())))),
                None => Err(failed(error.into_error(), address)),
            },
        }
    }

    async fn receive(
        &mut self,
        response: Response<Incoming>,
        max_bytes: usize,
        address: &Arc<str>,
    ) -> Result<Answer, Error> {
        let too_large = || {
            Err(Error::Protocol(format!(
                "the answer of {address} is larger than max_message_bytes, {max_bytes}"
            )))
        };
        let (head, mut incoming) = response.into_parts();
        let announced = incoming.size_hint().lower();
        if announced > max_bytes as u64 {
            return too_large();
        }
        let mut body = Vec::new();
        while let Some(frame) = self.drive(incoming.frame()).await {
            let frame = frame.map_err(|error| failed(error, address))?;
            let Some(data) = frame.data_ref() else { continue }; // trailers
            if data.len() > max_bytes - body.len() {
                return too_large();
            }
            body.extend_from_slice(data);
        }
        let location = head.headers.get(LOCATION);
        let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Answer { address: address.clone(), status: head.status, location, body })
    }

    /// Whether it can carry another request, behind the answer to the last one: the server wants to
    /// go on, and all that was sent has been written.
    pub(super) async fn is_reusable(&mut self) -> bool {
        // Asked through the driver, which learns of the end of an answer only after its reader.
        let ready = async { poll_fn(|context| self.sender.poll_ready(context)).await.is_ok() };
        let driver = &mut self.driver;
        matches!(future::poll_once(drive(driver, ready)).await, Some(true)) && driver.is_some()
    }

    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        drive(&mut self.driver, work).await
    }
}

/// Runs the connection while `work` waits for what it brings. What ends the connection is told to
/// `work`.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        if let Some(connection) = driver
            && Pin::new(connection).poll(context).is_ready()
        {
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

/// What an error of hyper's is to a caller.
fn failed(error: hyper::Error, address: &str) -> Error {
    let cause = io_cause(&error);
    if let Some(tls) = cause.and_then(io::Error::get_ref).and_then(|e| e.downcast_ref()) {
        let tls: &rustls::Error = tls;
        return Error::Tls { address: address.to_owned(), source: tls::advise(tls.clone()) };
    }
    let kind = cause.map_or(io::ErrorKind::UnexpectedEof, io::Error::kind);
    // So hyper names what is wrong with the length or the chunks of a body.
    let is_malformed = matches!(kind, io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
    if error.is_parse() || is_malformed {
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        return Error::Protocol(format!("the answer of {address} is not HTTP/1.1: {error}{cause}"));
    }
    Error::Disconnected { address: address.to_owned(), source: io::Error::new(kind, error) }
}

fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::client::connect::{Connect, ConnectOptions, Connector};
    use crate::client::deadline::Deadline;

    #[test]
    fn a_request_on_a_connection_that_has_ended_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let connector = Connector::new("127.0.0.1", port, None, ConnectOptions::default());
        let connector = connector.expect("nothing is wrong");
        smol::block_on(async {
            let never = Deadline::after(None).expect("not zero");
            let stream = connector.attempt(&never).await.expect("no TLS").expect("it listens");
            let mut connection = HttpConnection::new(stream).await.expect("nothing is read yet");
            assert!(connection.is_open_and_silent());
            drop(listener.accept().expect("a connection"));
            assert!(!connection.is_open_and_silent());
            let exchanged = connection.exchange(Request::default(), 1 << 20, connector.address());
            exchanged.await.expect("no error").expect_err("it was not sent");
        });
    }
}
