//! The streams that connections run over: plain or TLS, and what a connection asks of them
//! beside bytes. Generic over the socket, as the server's and the client's differ.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_rustls::TlsStream;
use smol::future::{FutureExt, yield_now};
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use socket2::{SockRef, TcpKeepalive};

use super::reactor;
use crate::Error;
use crate::time::LocalSleep;

/// What a connection has on both sides, if it is one over TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpOptions {
    /// How long it is silent before the kernel asks whether the peer has vanished.
    pub(crate) keepalive: Duration,
    /// Small messages are sent at once.
    pub(crate) nodelay: bool,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { keepalive: Duration::from_secs(60), nodelay: true }
    }
}

impl TcpOptions {
    /// Refuses what the kernel does: it counts in seconds, and up to 32,767 of them.
    pub(crate) fn check(self) -> Result<(), Error> {
        match self.keepalive.as_secs() {
            1..=32_767 => Ok(()),
            _ => Err(Error::Config("tcp_keepalive must be 1 s to 32767 s".to_owned())),
        }
    }

    pub(crate) fn apply(self, socket: &SockRef<'_>) -> io::Result<()> {
        let keepalive = TcpKeepalive::new().with_time(self.keepalive).with_interval(self.keepalive);
        socket.set_tcp_nodelay(self.nodelay)?;
        socket.set_tcp_keepalive(&keepalive)
    }
}

/// A byte stream that can be cut off.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Makes the end of this stream a reset rather than an orderly close.
    ///
    /// A Python arrpc client takes an orderly close for a reply of `None` and loses its next
    /// request; behind a reset it connects again.
    fn reset_on_close(&self);
}

impl Transport for reactor::Socket {
    fn reset_on_close(&self) {
        reset_on_close(&self.options());
    }
}

/// Makes the end of a socket a reset, if it is one over TCP. A Unix socket has none, and no Python
/// client: its peer gets all that was written, then an orderly end, or what a reset is for whoever
/// has sent something that was not read.
pub(crate) fn reset_on_close(socket: &SockRef<'_>) {
    // Fails only on a socket that is already closed.
    let _ = socket.set_linger(Some(Duration::ZERO));
}

/// Keeps the kernel from taking much more than it can send, so that what it takes tells what the
/// peer takes: else its buffer grows to 4 MiB for a peer that was fast once, and the next that it
/// takes may be a long time away for one that is slow now.
pub(crate) fn limit_unsent(socket: &SockRef<'_>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(128 * 1024)?;
    let _ = socket; // used on Linux only
    Ok(())
}

/// How long [`linger`] goes on.
const LINGER: Duration = Duration::from_secs(1);

/// Ends a stream so that what was written last arrives: says that no more will come, and takes what
/// the peer still sends until it closes, for a second at most.
///
/// Closing a socket with unread bytes resets it, and a reset can overtake the last reply.
pub(crate) async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let finish = async {
        stream.close().await?;
        // Not in the future: that is as large as its largest state for all of a connection's life.
        let mut scratch = vec![0; 4096];
        while stream.read(&mut scratch).await? > 0 {
            yield_now().await; // to the time, and to the others, if the peer never pauses
        }
        io::Result::Ok(())
    };
    let give_up = async {
        LocalSleep::lasting(LINGER).await;
        Ok(())
    };
    // However it ends, the stream is closed behind it.
    let _ = finish.or(give_up).await;
}

/// A plain or an encrypted stream over a socket of type `T`.
#[derive(Debug)]
pub(crate) enum Stream<T> {
    Plain(T),
    /// Boxed: the state of a TLS session is more than 1 KiB.
    Tls(Box<TlsStream<T>>),
}

impl<T> Stream<T> {
    pub(crate) fn socket(&self) -> &T {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl<T: Transport> Transport for Stream<T> {
    fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(stream) => match ready!(Pin::new(&mut **stream).poll_read(context, buffer)) {
                // The peer closed without a close_notify, as many do. A message says where it ends,
                // so nothing can be cut off unnoticed.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
                read => Poll::Ready(read),
            },
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(stream) => {
                // rustls takes what fits its buffer of 64 KiB beside what it has not sent yet. Only
                // with an empty one it takes full records, as a Python peer needs them.
                ready!(Pin::new(&mut **stream).poll_flush(context))?;
                Pin::new(&mut **stream).poll_write(context, bytes)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_close(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_close(context),
        }
    }
}
