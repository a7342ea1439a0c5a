//! Connections in memory that do what networks do: split, delay, stall, cut and reset.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use fastrand::Rng;
use smol::io::{AsyncRead, AsyncWrite};

use crate::net::stream::Transport;
use crate::server::stop::Undelivered;
use crate::time::{Sleep, now};

/// A stall that nobody waits out.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// What a connection does to the bytes on it.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    /// The most that one read or write moves.
    pub(super) piece: usize,
    pub(super) delay: Duration,
    /// The bytes that are on their way at the most, in each direction.
    pub(super) window: usize,
    /// What happens in which direction, to the server or from it, at which byte.
    pub(super) faults: [Option<(u64, Fault)>; 2],
    /// Polls that find nothing although there is something, one of so many; 0 for none.
    pub(super) idle_polls: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Stall(Duration),
    Close,
    Reset,
}

impl Weather {
    pub(super) fn fair(rng: &mut Rng) -> Self {
        Self {
            piece: *rng.choice(&[50, 1000, 1 << 20]).expect("not empty"),
            delay: Duration::from_micros(rng.u64(0..2000)),
            window: *rng.choice(&[1 << 12, 1 << 16, 1 << 20]).expect("not empty"),
            faults: [None, None],
            idle_polls: rng.u32(0..8),
        }
    }

    /// As fair, but now and then far away: for less than the shortest deadline.
    pub(super) fn slow(rng: &mut Rng) -> Self {
        let delay = Duration::from_millis(if rng.u32(0..4) == 0 { rng.u64(0..400) } else { 0 });
        Self { delay, ..Self::fair(rng) }
    }

    pub(super) fn foul(rng: &mut Rng) -> Self {
        let mut fault = || {
            let fault = match rng.u32(0..6) {
                0 | 1 => return None,
                2 => Fault::Stall(FOR_EVER),
                3 => Fault::Stall(Duration::from_millis(rng.u64(1..10_000))),
                4 => Fault::Close,
                _ => Fault::Reset,
            };
            let most = *rng.choice(&[2, 50, 1000, 100_000]).expect("not empty");
            Some((rng.u64(0..most), fault))
        };
        let faults = [fault(), fault()];
        Self { piece: rng.usize(1..300), faults, ..Self::fair(rng) }
    }
}

/// One direction of a connection.
struct Pipe {
    /// What is on its way or has arrived, and when it does.
    chunks: VecDeque<(Instant, VecDeque<u8>)>,
    bytes: usize,
    /// The last byte that will come is in `chunks`.
    end: Option<End>,
    /// All bytes so far, and what happens at which of them.
    passed: u64,
    fault: Option<(u64, Fault)>,
    stalled_until: Instant,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

impl Pipe {
    fn new(fault: Option<(u64, Fault)>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            chunks: VecDeque::new(),
            bytes: 0,
            end: None,
            passed: 0,
            fault,
            stalled_until: now(),
            reader: None,
            writer: None,
        }))
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn close(&mut self) {
        self.end.get_or_insert(End::Closed);
        self.wake();
    }

    /// What has not arrived never will.
    fn reset(&mut self) {
        let arrived = self.chunks.iter().take_while(|(at, _)| *at <= now()).count();
        self.chunks.truncate(arrived);
        self.bytes = self.chunks.iter().map(|(_, chunk)| chunk.len()).sum();
        self.end = Some(End::Reset);
        self.wake();
    }

    fn has_arrived(&self) -> bool {
        self.chunks.front().is_some_and(|(at, _)| *at <= now())
    }
}

/// One end of a connection.
pub(super) struct Stream {
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
    weather: Weather,
    rng: Rng,
    arrival: Option<Sleep>,
    reset_on_close: Cell<bool>,
}

/// What the server sends and receives on a connection.
struct Directions {
    from_server: Weak<RefCell<Pipe>>,
    to_server: Weak<RefCell<Pipe>>,
}

/// All connections of a server.
#[derive(Default)]
pub(super) struct Network {
    /// Each with the address of its peer.
    connections: RefCell<Vec<(SocketAddr, Directions)>>,
}

impl Network {
    /// Makes a connection: the peer's end, the server's, and the peer's address.
    pub(super) fn connect(&self, weather: &Weather, rng: &mut Rng) -> (Stream, Stream, SocketAddr) {
        let [to_server, from_server] = weather.faults.map(Pipe::new);
        let mut connections = self.connections.borrow_mut();
        let address = SocketAddr::from(([127, 0, 0, 1], connections.len() as u16 + 1));
        let directions = Directions {
            from_server: Rc::downgrade(&from_server),
            to_server: Rc::downgrade(&to_server),
        };
        connections.push((address, directions));
        let mut end = |incoming, outgoing| Stream {
            incoming,
            outgoing,
            weather: weather.clone(),
            rng: rng.fork(),
            arrival: None,
            reset_on_close: Cell::new(false),
        };
        let peer = end(from_server.clone(), to_server.clone());
        let server = end(to_server, from_server);
        (peer, server, address)
    }

    /// Wakes all sessions that wait for bytes.
    pub(super) fn wake_readers(&self) {
        for (_, directions) in &*self.connections.borrow() {
            let Some(pipe) = directions.to_server.upgrade() else { continue };
            let waker = pipe.borrow_mut().reader.take();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// The peers to which something is on its way.
    pub(super) fn undelivered(&self) -> Undelivered {
        let on_its_way = |pipe: &Weak<RefCell<Pipe>>| {
            let pipe = pipe.upgrade()?;
            let last = pipe.borrow().chunks.back().map(|(at, _)| *at)?;
            Some(last > now())
        };
        let connections = self.connections.borrow();
        let lacking = connections
            .iter()
            .filter(|(_, directions)| on_its_way(&directions.from_server) == Some(true));
        lacking.map(|(address, _)| (address.ip(), address.port())).collect()
    }
}

impl Stream {
    /// Whether it is open and nothing has arrived.
    pub(super) fn is_open_and_silent(&self) -> bool {
        let incoming = self.incoming.borrow();
        !incoming.has_arrived() && (incoming.end.is_none() || !incoming.chunks.is_empty())
    }

    fn reset(&self) {
        self.incoming.borrow_mut().reset();
        self.outgoing.borrow_mut().reset();
    }

    /// Now and then a poll that finds nothing, as an event may come for nothing.
    fn polls_in_vain(&mut self, context: &Context<'_>) -> bool {
        let in_vain = self.weather.idle_polls > 0 && self.rng.u32(0..=self.weather.idle_polls) == 0;
        if in_vain {
            context.waker().wake_by_ref();
        }
        in_vain
    }
}

impl Transport for Stream {
    fn reset_on_close(&self) {
        self.reset_on_close.set(true);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.polls_in_vain(context) {
            return Poll::Pending;
        }
        let this = &mut *self;
        loop {
            let mut pipe = this.incoming.borrow_mut();
            let Some((at, chunk)) = pipe.chunks.front_mut() else {
                match pipe.end {
                    Some(End::Closed) => return Poll::Ready(Ok(0)),
                    Some(End::Reset) => {
                        return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                    }
                    None => pipe.reader = Some(context.waker().clone()),
                }
                return Poll::Pending;
            };
            if *at <= now() {
                let size = chunk.len().min(buffer.len()).min(this.weather.piece);
                chunk.drain(..size).zip(buffer).for_each(|(byte, place)| *place = byte);
                if chunk.is_empty() {
                    pipe.chunks.pop_front();
                }
                pipe.bytes -= size;
                pipe.writer.take().into_iter().for_each(Waker::wake);
                return Poll::Ready(Ok(size));
            }
            let at = *at;
            pipe.reader = Some(context.waker().clone());
            drop(pipe);
            let arrival = this.arrival.insert(Sleep::until(at));
            if Pin::new(arrival).poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.polls_in_vain(context) {
            return Poll::Pending;
        }
        let this = &*self;
        let mut pipe = this.outgoing.borrow_mut();
        if pipe.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut size = bytes.len().min(this.weather.piece);
        size = size.min(this.weather.window.saturating_sub(pipe.bytes));
        if size == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Some((at, fault)) = pipe.fault {
            size = size.min((at - pipe.passed) as usize);
            if size == 0 {
                pipe.fault = None;
                match fault {
                    Fault::Stall(duration) => {
                        pipe.stalled_until = now() + duration;
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Fault::Close => pipe.close(),
                    Fault::Reset => {
                        drop(pipe);
                        this.reset();
                    }
                }
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        let at = pipe.stalled_until.max(now() + this.weather.delay);
        pipe.chunks.push_back((at, bytes[..size].to_vec().into()));
        pipe.bytes += size;
        pipe.passed += size as u64;
        pipe.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.borrow_mut().close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // As TCP does: unread bytes make the end a reset.
        if self.reset_on_close.get() || self.incoming.borrow().has_arrived() {
            self.reset();
        } else {
            self.outgoing.borrow_mut().close();
            self.incoming.borrow_mut().end = Some(End::Reset);
            self.incoming.borrow_mut().wake();
        }
    }
}
