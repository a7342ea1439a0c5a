//! Whether the server behind a gateway can be reached, for `/readyz`. It looks at connections
//! alone: what calls meet behind them is in the log and the metrics.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrpc::internals::NotReady;
use futures_rustls::TlsConnector;
use smol::Timer;
use smol::future::FutureExt;
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use smol::net::TcpStream;
#[cfg(unix)]
use smol::net::unix::UnixStream;

use crate::argument::Address;
use crate::security::Tls;

/// How old what `/readyz` says may be, beside the time that a connection takes.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection may take: a first packet that was lost is sent again after a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) struct Readiness {
    to: Address,
    tls: Option<Tls>,
    /// Whether the server behind has answered a call since it was looked at.
    answered: Arc<AtomicBool>,
    /// While it is there, `/readyz` is 503.
    not_ready: Option<NotReady>,
}

impl Readiness {
    /// It is not ready before it has been looked at.
    pub(super) fn new(to: &Address, tls: Option<Tls>, answered: Arc<AtomicBool>) -> Self {
        Self { to: to.clone(), tls, answered, not_ready: Some(NotReady::new()) }
    }

    /// Looks for ever. A server that answers calls is spared the connection.
    pub(super) async fn watch(mut self) {
        let mut is_told = false;
        loop {
            let reached = match self.answered.swap(false, Ordering::Relaxed) {
                true => Ok(()),
                false => self.connect().or(late()).await,
            };
            match reached {
                Ok(()) => {
                    self.not_ready = None;
                    if is_told {
                        tracing::warn!(server = self.to.to_string(), "ready again");
                    }
                    is_told = false;
                }
                Err(error) => {
                    self.not_ready.get_or_insert_with(NotReady::new);
                    if !is_told {
                        let (server, error) = (self.to.to_string(), error.to_string());
                        tracing::warn!(server, error, "not ready, no connection");
                    }
                    is_told = true;
                }
            }
            Timer::after(INTERVAL).await;
        }
    }

    /// Connects, and closes the connection as a client does that has nothing to say.
    async fn connect(&self) -> io::Result<()> {
        let host = self.to.host_or_localhost();
        #[cfg(unix)]
        if let Some(path) = host.strip_prefix("unix:") {
            return self.shake_hands(UnixStream::connect(path).await?).await;
        }
        self.shake_hands(TcpStream::connect((host, self.to.port)).await?).await
    }

    /// Without a handshake a TLS server would count a failed one.
    async fn shake_hands(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        if let Some(Tls { config, name }) = &self.tls {
            let connector = TlsConnector::from(config.clone());
            let _ = connector.connect(name.clone(), stream).await?.close().await;
        }
        Ok(())
    }
}

async fn late() -> io::Result<()> {
    Timer::after(CONNECT_TIMEOUT).await;
    Err(ErrorKind::TimedOut.into())
}
