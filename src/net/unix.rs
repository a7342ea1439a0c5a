//! Unix sockets, which are files: how a server takes over the path of one that is gone, and removes
//! its own when it stops.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{self, Path, PathBuf};

use smol::Async;
use socket2::{Domain, SockAddr, Socket, Type};

use super::listener::accept;

/// A listening Unix socket.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Removed before the socket is closed, as fields are dropped in their order: no server takes a
    /// socket over that somebody listens on, so until then the file at the path is this one.
    file: SocketFile,
    socket: Async<UnixListener>,
}

impl Listener {
    /// Listens at the path. A socket there that nobody listens on is replaced; anything else there
    /// stays, and is an error.
    pub(crate) fn bind(path: &Path, backlog: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = SockAddr::unix(path)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let file = SocketFile::at(path)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let listener = Self { file, socket: Async::new(socket.into())? };
        // Between the two calls another server that starts may have taken it for a stale one.
        match listener.file.is_in_place() {
            true => Ok(listener),
            false => Err(in_use("another server has started there")),
        }
    }

    /// Waits for the next connection, and fails as [`accept`] does. Its socket is in non-blocking
    /// mode.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let (socket, _) = accept(&self.socket, UnixListener::accept).await?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Connects, and returns a socket in non-blocking mode. Never waits: a server's backlog takes a
/// connection at once, or not at all.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(error.kind(), "as many connections wait there as may (backlog)"))
        }
        connected => connected.map(|()| socket.into()),
    }
}

/// Removes a socket that its server has left behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(in_use("the file there is not a socket")),
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "nobody listens on this socket, replacing it");
            fs::remove_file(path).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
        }
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(_) | Err(_) => Err(in_use("another server listens there")),
    }
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("Address already in use: {why}"))
}

/// The file of a listening socket, removed when it is dropped.
#[derive(Debug)]
struct SocketFile {
    /// Absolute, as the process may change its directory.
    path: PathBuf,
    identity: Identity,
}

/// What tells a file from another one: an inode is used again, but not at the same time, and
/// nothing that is done with a socket's file changes its time.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        let modified = (file.mtime(), file.mtime_nsec());
        Ok(Self { device: file.dev(), inode: file.ino(), modified })
    }
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let path = path::absolute(path)?;
        let identity = Identity::of(&path)?;
        Ok(Self { path, identity })
    }

    /// Whether this is what stands at the path, and not what somebody has put there since.
    fn is_in_place(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|identity| identity == self.identity)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_in_place()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the server's socket");
        }
    }
}
