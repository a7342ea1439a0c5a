//! One thread's reactor: sockets registered once, edge-triggered, and a loop that polls one future
//! and sleeps in the kernel when nothing can go on. Knows nothing of messages.
//!
//! smol's own reactor is global and re-arms a socket for every message, one more system call, and
//! wakes a sleeping thread through a futex: 6.6 us of CPU for a request in lockstep, and 9.9 us on
//! two threads, where this one takes 4.9 us and shares nothing between threads.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use mio::{Events, Interest, Registry, Token};
use slab::Slab;
use smol::io::{AsyncRead, AsyncWrite};

use super::listener;
use crate::time;

/// The token of the alarm; sockets have their place in the slab.
const ALARM: Token = Token(usize::MAX);

/// The pause behind a poll that failed: going on at once would spin.
const FAILED_POLL_PAUSE: Duration = Duration::from_millis(10);

/// On Linux a read that fills less than the buffer has emptied an edge-triggered socket (epoll(7),
/// "Questions and answers", 9), which saves the second read. Elsewhere only WouldBlock tells. (Only
/// descriptors that come with the bytes cut a read of a Unix socket short: whoever passes those
/// waits for its next bytes.)
const SHORT_READ_MEANS_EMPTY: bool = cfg!(target_os = "linux");

/// The reactor of one thread.
pub(crate) struct Reactor {
    poll: RefCell<mio::Poll>,
    registry: Registry,
    sources: RefCell<Slab<Rc<Source>>>,
    deferred: Rc<Deferred>,
    alarm: Arc<Alarm>,
    reset_all: Cell<bool>,
}

/// The tasks of a thread that have had their share and wait for the others to have theirs.
///
/// A task that woke itself instead would run again before the thread looks at its sockets: an
/// executor goes on for as long as there is a task to run.
#[derive(Default)]
pub(crate) struct Deferred(RefCell<Vec<Waker>>);

impl Deferred {
    /// Wakes the task behind the next look at the sockets.
    pub(crate) fn push(&self, waker: Waker) {
        self.0.borrow_mut().push(waker);
    }

    fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Wakes all of them; false if there is none.
    pub(crate) fn wake(&self) -> bool {
        let wakers = self.0.take();
        let is_any = !wakers.is_empty();
        wakers.into_iter().for_each(Waker::wake);
        is_any
    }
}

/// What the reactor knows of one socket.
struct Source {
    /// A read may find bytes. Starts true: the first bytes may have come before the registration.
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// The peer sends no more: every read finds the rest or the end, and no event follows.
    read_closed: Cell<bool>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Rc<Self>> {
        let poll = mio::Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let kick = mio::Waker::new(&registry, ALARM)?;
        Ok(Rc::new(Self {
            poll: RefCell::new(poll),
            registry,
            sources: RefCell::new(Slab::new()),
            deferred: Rc::default(),
            alarm: Arc::new(Alarm { state: AtomicU8::new(AWAKE), kick }),
            reset_all: Cell::new(false),
        }))
    }

    /// Runs `future` to its end on this thread, and the sockets with it.
    ///
    /// The future may await anything: a waker called by another thread ends the sleep. The thread's
    /// own timers go off up to a millisecond late, as the kernel counts in those.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Waker::from(self.alarm.clone());
        let mut context = Context::from_waker(&waker);
        let mut events = Events::with_capacity(1024);
        loop {
            self.alarm.awake();
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            // With tasks deferred, or woken while it was polled: look at the sockets without
            // waiting, then go on.
            let timeout = match self.deferred.is_empty() && self.alarm.sleep() {
                true => time::next().map(|at| at.saturating_duration_since(time::now())),
                false => Some(Duration::ZERO),
            };
            let polled = self.poll.borrow_mut().poll(&mut events, timeout);
            // Awake before the tasks of this thread are woken, or each of them would kick it.
            self.alarm.awake();
            match polled {
                Ok(()) => self.dispatch(&events),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Not for a valid descriptor, says epoll_wait(2). What is else wrong may pass, and
                // the connections of this thread with it if it gave up.
                Err(error) => {
                    tracing::error!(%error, "waiting for sockets failed, trying again");
                    thread::sleep(FAILED_POLL_PAUSE);
                }
            }
            self.deferred.wake();
            time::wake_due();
        }
    }

    /// Where tasks of this thread make way for others.
    pub(crate) fn deferred(&self) -> &Rc<Deferred> {
        &self.deferred
    }

    /// Wakes the readers of all sockets, so that each looks at what has changed beside its socket,
    /// and reads what has come: its event may be one that no poll has told yet.
    pub(crate) fn wake_readers(&self) {
        for (_, source) in self.sources.borrow().iter() {
            source.readable.set(true);
            wake(&source.reader);
        }
    }

    /// Makes the end of every socket a reset.
    pub(crate) fn reset_all(&self) {
        self.reset_all.set(true);
    }

    /// Takes over a connection.
    pub(crate) fn adopt(self: &Rc<Self>, socket: listener::Socket) -> io::Result<Socket> {
        let mut io = Io::from(socket);
        let source = Rc::new(Source {
            readable: Cell::new(true),
            writable: Cell::new(true),
            read_closed: Cell::new(false),
            reader: Cell::new(None),
            writer: Cell::new(None),
        });
        let token = Token(self.sources.borrow_mut().insert(source.clone()));
        let interest = io.interest();
        let registered = self.registry.register(io.source(), token, interest);
        // Dropped if that failed, which takes it from the slab again.
        let socket = Socket { io, source, token, reactor: self.clone() };
        registered.map(|()| socket)
    }

    fn dispatch(&self, events: &Events) {
        for event in events {
            if event.token() == ALARM {
                continue;
            }
            // An event may be for a socket that is gone. If its place has been taken since, the new
            // one tries once in vain.
            let Some(source) = self.sources.borrow().get(event.token().0).cloned() else {
                continue;
            };
            if event.is_read_closed() || event.is_error() {
                source.read_closed.set(true);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                source.readable.set(true);
                wake(&source.reader);
            }
            if event.is_writable() || event.is_write_closed() || event.is_error() {
                source.writable.set(true);
                wake(&source.writer);
            }
        }
    }
}

fn wake(slot: &Cell<Option<Waker>>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

/// Leaves `waker` in the slot, keeping the one that is there if it wakes the same task.
fn wait(slot: &Cell<Option<Waker>>, context: &Context<'_>) {
    let waker = match slot.take() {
        Some(waker) if waker.will_wake(context.waker()) => waker,
        _ => context.waker().clone(),
    };
    slot.set(Some(waker));
}

const AWAKE: u8 = 0;
const WOKEN: u8 = 1;
const ASLEEP: u8 = 2;

/// The waker of the thread's future: costs a system call only if the thread sleeps.
#[derive(Debug)]
struct Alarm {
    state: AtomicU8,
    kick: mio::Waker,
}

impl Alarm {
    /// Marks the thread as awake. A swap, as what another thread did before it woke this one must
    /// be seen by the poll that follows.
    fn awake(&self) {
        self.state.swap(AWAKE, Ordering::SeqCst);
    }

    /// Marks the thread as asleep, unless it was woken since it last began to poll.
    fn sleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            // Fails only if the reactor's descriptor is gone, and its thread with it.
            let _ = self.kick.wake();
        }
    }
}

/// A connected socket of one reactor. Stays on its thread.
pub(crate) struct Socket {
    io: Io,
    source: Rc<Source>,
    token: Token,
    reactor: Rc<Reactor>,
}

/// A socket of either family.
enum Io {
    Tcp(mio::net::TcpStream),
    #[cfg(unix)]
    Unix {
        socket: mio::net::UnixStream,
        /// The reactor tells when it can be written. Not unless a write has to wait: a Unix socket
        /// would tell each time its peer reads something: 3,986 wakes for 2,000 requests in
        /// lockstep, where 2,013 do.
        tells_writable: bool,
    },
}

impl From<listener::Socket> for Io {
    fn from(socket: listener::Socket) -> Self {
        match socket {
            listener::Socket::Tcp(socket) => Self::Tcp(mio::net::TcpStream::from_std(socket)),
            #[cfg(unix)]
            listener::Socket::Unix(socket) => {
                Self::Unix { socket: mio::net::UnixStream::from_std(socket), tells_writable: false }
            }
        }
    }
}

impl Io {
    fn interest(&self) -> Interest {
        match self {
            #[cfg(unix)]
            Self::Unix { tells_writable: false, .. } => Interest::READABLE,
            _ => Interest::READABLE | Interest::WRITABLE,
        }
    }

    fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Self::Tcp(socket) => socket,
            #[cfg(unix)]
            Self::Unix { socket, .. } => socket,
        }
    }

    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            #[cfg(unix)]
            Self::Unix { socket, .. } => socket.read(buffer),
        }
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(bytes),
            #[cfg(unix)]
            Self::Unix { socket, .. } => socket.write(bytes),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(how),
            #[cfg(unix)]
            Self::Unix { socket, .. } => socket.shutdown(how),
        }
    }
}

impl Socket {
    pub(crate) fn options(&self) -> socket2::SockRef<'_> {
        match &self.io {
            Io::Tcp(socket) => socket.into(),
            #[cfg(unix)]
            Io::Unix { socket, .. } => socket.into(),
        }
    }

    /// Lets the reactor tell when the socket can be written, or stops it from that; over TCP it
    /// does in any case. What has happened before is told as well.
    #[inline]
    fn tell_writable(&mut self, tell: bool) -> io::Result<()> {
        let _ = tell; // used on Unix only
        match &mut self.io {
            #[cfg(unix)]
            Io::Unix { tells_writable, .. } if *tells_writable != tell => {
                *tells_writable = tell;
                let interest = self.io.interest();
                self.reactor.registry.reregister(self.io.source(), self.token, interest)
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reactor.reset_all.get() {
            // Fails only on a socket that is already closed.
            let _ = self.options().set_linger(Some(Duration::ZERO));
        }
        // Fails only if it never was registered.
        let _ = self.reactor.registry.deregister(self.io.source());
        self.reactor.sources.borrow_mut().try_remove(self.token.0);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if !self.source.readable.get() {
                wait(&self.source.reader, context);
                return Poll::Pending;
            }
            match self.io.read(buffer) {
                Ok(read) => {
                    if SHORT_READ_MEANS_EMPTY
                        && read < buffer.len()
                        && !self.source.read_closed.get()
                    {
                        self.source.readable.set(false);
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.readable.set(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if !self.source.writable.get() {
                wait(&self.source.writer, context);
                return Poll::Pending;
            }
            match self.io.write(bytes) {
                Ok(written) => {
                    if written == bytes.len() {
                        self.tell_writable(false)?;
                    }
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.writable.set(false);
                    self.tell_writable(true)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.io.shutdown(Shutdown::Write))
    }
}
