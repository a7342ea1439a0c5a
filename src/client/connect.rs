//! Makes connections to one server: name, socket, TLS, and the attempts at it. Keeps none.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures_rustls::TlsConnector;
use futures_rustls::pki_types::ServerName;
use futures_rustls::rustls::{self, ClientConfig};
use smol::future::FutureExt;
use smol::io::{AsyncRead, AsyncWrite};

use super::deadline::Deadline;
use super::link::Driver;
use super::socket::Socket;
use crate::net::address::Address;
use crate::net::stream::{Stream, TcpOptions};
use crate::net::tls::{self, DEFAULT_HANDSHAKE_TIMEOUT};
use crate::time::Sleep;
use crate::{Error, Phase};

/// The wait before the second attempt; it doubles for each further one.
const FIRST_BACK_OFF: Duration = Duration::from_millis(50);
const MAX_BACK_OFF: Duration = Duration::from_secs(2);

/// The stream of a client's connection.
pub(crate) type ClientStream = Stream<Socket>;

/// How a client connects.
#[derive(Clone, Debug)]
pub(crate) struct ConnectOptions {
    pub(crate) con_max_retries: u32,
    pub(crate) tls_handshake_timeout: Duration,
    pub(crate) tcp: TcpOptions,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            con_max_retries: 5,
            tls_handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            tcp: TcpOptions::default(),
        }
    }
}

/// Makes connections to one server: over sockets, or in a simulation.
pub(crate) trait Connect {
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Runs what drives a shared connection, beside its calls.
    fn spawn(&self, driver: Driver<Self::Stream>);

    /// `host:port` or `unix:path`, for messages.
    fn address(&self) -> &Arc<str>;

    /// How often to try, 1 at least.
    fn max_attempts(&self) -> u32;

    /// Tries once. The inner error is one that another attempt may not have.
    async fn attempt(&self, deadline: &Deadline) -> Result<io::Result<Self::Stream>, Error>;

    /// Whether an idle connection can carry another exchange: it is open, and nothing has come
    /// that nobody asked for. A server that stopped since shows here, before anything is sent.
    fn is_open_and_silent(stream: &Self::Stream) -> bool;
}

/// Connects, trying again after failures that time may heal.
pub(crate) async fn connect<C: Connect>(
    connector: &C,
    deadline: &Deadline,
) -> Result<C::Stream, Error> {
    let server = connector.address();
    let mut attempt = 1;
    loop {
        let error = match connector.attempt(deadline).await? {
            Ok(stream) => {
                tracing::debug!(%server, "connected");
                return Ok(stream);
            }
            Err(error) => error,
        };
        tracing::debug!(%server, attempt, %error, "cannot connect");
        if attempt == connector.max_attempts() {
            let address = server.to_string();
            return Err(Error::Connect { address, attempts: attempt, source: error });
        }
        pause(attempt, deadline).await?;
        attempt += 1;
    }
}

/// The pause behind a failed attempt, of which there were so many.
pub(crate) async fn pause(attempts: u32, deadline: &Deadline) -> Result<(), Error> {
    let pause = async {
        Sleep::lasting(back_off(attempts)).await;
        Ok(())
    };
    deadline.within(Phase::Connect, pause).await
}

/// What it takes to connect to one server over sockets.
pub(crate) struct Connector {
    server: Address,
    /// The same for messages.
    address: Arc<str>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    options: ConnectOptions,
}

impl Connector {
    pub(crate) fn new(
        host: &str,
        port: u16,
        tls: Option<Arc<ClientConfig>>,
        options: ConnectOptions,
    ) -> Result<Self, Error> {
        let server = Address::new(host, port)?;
        let tls = match tls {
            None => None,
            // Only one certificate is trusted there, whatever its name, and no address is sent.
            Some(config) if server.is_unix() => {
                Some((TlsConnector::from(config), Ipv4Addr::UNSPECIFIED.into()))
            }
            Some(config) => {
                let name = ServerName::try_from(host.to_owned()).map_err(|_| {
                    Error::Config(format!(
                        "{host:?} is not a host name that a certificate can have"
                    ))
                })?;
                Some((TlsConnector::from(config), name))
            }
        };
        let address = server.to_string().into();
        Ok(Self { server, address, tls, options })
    }
}

impl Connect for Connector {
    type Stream = ClientStream;

    fn address(&self) -> &Arc<str> {
        &self.address
    }

    fn max_attempts(&self) -> u32 {
        self.options.con_max_retries
    }

    async fn attempt(&self, deadline: &Deadline) -> Result<io::Result<ClientStream>, Error> {
        let connect = async { Ok(Socket::connect(&self.server, self.options.tcp).await) };
        let socket = match deadline.within(Phase::Connect, connect).await? {
            Ok(socket) => socket,
            Err(error) => return Ok(Err(error)),
        };
        let Some((connector, name)) = &self.tls else { return Ok(Ok(Stream::Plain(socket))) };
        let handshake = async {
            match connector.connect(name.clone(), socket).await {
                Ok(stream) => Ok(Ok(Stream::Tls(Box::new(stream.into())))),
                Err(error) => match as_tls_error(&self.address, error) {
                    Ok(error) => Err(error),
                    Err(error) => Ok(Err(error)),
                },
            }
        };
        let late = async {
            let timeout = self.options.tls_handshake_timeout;
            Sleep::lasting(timeout).await;
            let source = format!("no answer within {timeout:?}, does the server speak TLS?").into();
            Err(Error::Tls { address: self.address.to_string(), source })
        };
        deadline.within(Phase::Tls, handshake.or(late)).await
    }

    /// On smol's own threads: a call that is not polled must not hold up the others.
    fn spawn(&self, driver: Driver<ClientStream>) {
        smol::spawn(driver).detach();
    }

    fn is_open_and_silent(stream: &ClientStream) -> bool {
        stream.socket().is_open_and_silent()
    }
}

/// Takes an I/O error for the TLS error that it carries; gives it back if it carries none.
pub(crate) fn as_tls_error(address: &str, error: io::Error) -> Result<Error, io::Error> {
    let error = error.downcast::<rustls::Error>()?;
    Ok(Error::Tls { address: address.to_owned(), source: tls::advise(error) })
}

/// The wait behind a failed attempt: it doubles up to its maximum, and its second half is random,
/// so that the clients of a server that comes back do not come at once.
fn back_off(attempt: u32) -> Duration {
    let doubled = FIRST_BACK_OFF.saturating_mul(1 << (attempt - 1).min(16));
    doubled.min(MAX_BACK_OFF).mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_up_to_two_seconds_and_is_never_less_than_half() {
        for (attempt, milliseconds) in
            [(1, 50), (2, 100), (3, 200), (6, 1600), (7, 2000), (8, 2000), (u32::MAX, 2000)]
        {
            let full = Duration::from_millis(milliseconds);
            for _ in 0..100 {
                let pause = back_off(attempt);
                assert!(full / 2 <= pause && pause <= full, "attempt {attempt}: {pause:?}");
            }
        }
    }
}
