//! One connection of the load: what it has sent and got no reply to, and since when.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use super::messages::{KnownReply, Outcome, Replies, Requests};
use super::stream::{Stream, Target};
use super::tally::Tally;

/// What one read takes at the most: 64 replies of a kilobyte.
pub(crate) const READ_BYTES: usize = 64 << 10;

/// How long a connection that was lost stays closed: a server that ends each one at once is not
/// to be flooded with more of them.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    /// How far the request is written that is being written.
    written: usize,
    /// Bytes of requests to write.
    unwritten: usize,
    /// Requests without a reply, the oldest first, with the moment from which their latency counts.
    ///
    /// Invariant: `in_flight` is the sum of the counts, and no count is 0.
    sent: VecDeque<(Instant, usize)>,
    in_flight: usize,
    replies: Replies,
    /// Since when the server owes something and says nothing: a connection, or replies.
    silent_since: Option<Instant>,
    /// Since when connections have been lost without a reply between.
    failing_since: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Up { stream: Stream, is_open: bool },
    Lost { until: Instant },
    Closed,
}

/// What the connections of a thread have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) requests: Requests,
    pub(crate) known: KnownReply,
    pub(crate) buffer: Vec<u8>,
    pub(crate) tally: Tally,
}

impl Connection {
    /// A connection that is not there yet.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Lost { until: Instant::now() },
            written: 0,
            unwritten: 0,
            sent: VecDeque::new(),
            in_flight: 0,
            replies: Replies::new(),
            silent_since: None,
            failing_since: None,
        }
    }

    /// Begins to connect.
    pub(crate) fn open(
        &mut self,
        target: &Target,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        self.silent_since = Some(Instant::now());
        let stream = Stream::connect(target, registry, token)?;
        self.state = State::Up { stream, is_open: false };
        Ok(())
    }

    /// Goes on with connecting; true when that is done.
    pub(crate) fn establish(&mut self) -> io::Result<bool> {
        let State::Up { stream, is_open } = &mut self.state else { return Ok(false) };
        if stream.establish()? {
            *is_open = true;
            self.silent_since = None;
        }
        Ok(*is_open)
    }

    /// Adds requests to what is to be written. Their latency counts from `since`.
    #[inline]
    pub(crate) fn request(
        &mut self,
        count: usize,
        since: Instant,
        now: Instant,
        shared: &mut Shared,
    ) {
        self.sent.push_back((since, count));
        self.in_flight += count;
        self.unwritten += count * shared.requests.length();
        self.silent_since.get_or_insert(now);
        shared.tally.sent += count as u64;
    }

    /// Writes as much as the system takes.
    #[inline]
    pub(crate) fn write(&mut self, shared: &mut Shared) -> io::Result<()> {
        let State::Up { stream, is_open: true } = &mut self.state else { return Ok(()) };
        while self.unwritten > 0 {
            let piece = shared.requests.piece(self.written, self.unwritten);
            let written = match stream.write(piece) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.unwritten -= written;
            self.written = (self.written + written) % shared.requests.length();
            shared.tally.bytes_sent += written as u64;
        }
        stream.flush()
    }

    /// Reads what has arrived, to the end of the connection if that `has_ended`, and returns when
    /// it had.
    #[inline]
    pub(crate) fn read(&mut self, has_ended: bool, shared: &mut Shared) -> io::Result<Instant> {
        let mut now = None;
        while let State::Up { stream, is_open: true } = &mut self.state {
            let read = match stream.read(&mut shared.buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let is_short = read < shared.buffer.len() && stream.short_read_means_empty();
            let arrived = Instant::now();
            now = Some(arrived);
            self.take(read, arrived, shared)?;
            if is_short && !has_ended {
                break;
            }
        }
        Ok(now.unwrap_or_else(Instant::now))
    }

    /// Takes the replies in the first bytes of the buffer.
    fn take(&mut self, read: usize, now: Instant, shared: &mut Shared) -> io::Result<()> {
        let Shared { known, buffer, tally, .. } = shared;
        let Self { replies, sent, in_flight, .. } = self;
        tally.bytes_received += read as u64;
        let owed = *in_flight;
        let mut excess = 0;
        let taken = replies.take(&buffer[..read], buffer.len(), known, |outcome| match outcome {
            Outcome::Good(count) => {
                excess += settle(sent, in_flight, count, |since, count| {
                    tally.replied(now.saturating_duration_since(since), count as u64);
                });
            }
            Outcome::Refused(text) => {
                excess += settle(sent, in_flight, 1, |_, _| tally.errors.count(&text, 1));
            }
        });
        tally.reply_bytes = known.length();
        // Bytes that make no reply are no sign of life.
        if self.in_flight < owed {
            self.silent_since = (self.in_flight > 0).then_some(now);
            self.failing_since = None;
        }
        match taken {
            Err(error) => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("the server sent what is no reply: {error}"),
            )),
            Ok(()) if excess > 0 => Err(io::Error::new(
                ErrorKind::InvalidData,
                "the server sent more replies than there were requests",
            )),
            Ok(()) => Ok(()),
        }
    }

    /// Closes the connection: for a while, or if it is lost again and again without a reply for
    /// good.
    pub(crate) fn lose(
        &mut self,
        error: &io::Error,
        now: Instant,
        timeout: Duration,
        tally: &mut Tally,
    ) {
        let text = match error.kind() {
            ErrorKind::UnexpectedEof => "the server ended the connection".to_owned(),
            _ => error.to_string(),
        };
        let failing_since = self.failing_since.unwrap_or(now);
        let state = match now.saturating_duration_since(failing_since) < timeout {
            true => State::Lost { until: now + RECONNECT_PAUSE },
            false => State::Closed,
        };
        self.end(state, &text, tally);
        self.failing_since = Some(failing_since);
    }

    /// Closes the connection for good.
    pub(crate) fn close(&mut self, text: &str, tally: &mut Tally) {
        self.end(State::Closed, text, tally);
    }

    /// Counts what comes to nothing: requests without a reply, and the connection if it was one or
    /// will be none.
    fn end(&mut self, state: State, text: &str, tally: &mut Tally) {
        if self.in_flight > 0 {
            tally.errors.count(text, self.in_flight as u64);
        }
        let was_open = matches!(self.state, State::Up { is_open: true, .. });
        if was_open || matches!(state, State::Closed) {
            tally.losses.count(text, 1);
        }
        *self = Self { state, ..Self::new() };
    }

    /// Lets a connection that was closed for good be opened again, for another run.
    pub(crate) fn revive(&mut self) {
        if self.is_closed() {
            *self = Self::new();
        }
    }

    /// How many requests may go out.
    #[inline]
    pub(crate) fn free(&self, pipeline: usize) -> usize {
        match self.state {
            State::Up { is_open: true, .. } => pipeline - self.in_flight,
            _ => 0,
        }
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.state, State::Up { is_open: false, .. })
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the pause behind a loss is over.
    pub(crate) fn wants_to_open(&self, now: Instant) -> bool {
        matches!(self.state, State::Lost { until } if until <= now)
    }

    /// How long the server has owed something.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Takes the oldest requests off, and returns how many of `count` there were not.
#[inline]
fn settle(
    sent: &mut VecDeque<(Instant, usize)>,
    in_flight: &mut usize,
    mut count: usize,
    mut each: impl FnMut(Instant, usize),
) -> usize {
    while count > 0 {
        let Some((since, requests)) = sent.front_mut() else { break };
        let settled = count.min(*requests);
        each(*since, settled);
        *requests -= settled;
        *in_flight -= settled;
        count -= settled;
        if *requests == 0 {
            sent.pop_front();
        }
    }
    count
}
