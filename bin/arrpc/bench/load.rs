//! The event loop of one thread: it writes requests to its connections when the schedule has some,
//! and reads the replies. It is directly over mio, so that a request costs little more than its
//! system calls, and the load less than the server that it measures.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrpc::internals::ReplyOpener;
use mio::{Events, Poll, Token};

use super::alarm::Alarm;
use super::connection::{Connection, READ_BYTES, Shared};
use super::messages::{KnownReply, Requests};
use super::schedule::Schedule;
use super::stream::Target;
use super::tally::Tally;

/// The token of the alarm; connections have their place in the list.
const ALARM: Token = Token(usize::MAX);

/// How many connections are being opened at once: a server's backlog may be short.
const MAX_OPENING: usize = 64;

/// How often connections are looked at that are lost or silent.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What the threads of a load have in common.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    /// One request, as it goes out.
    pub(crate) request: Vec<u8>,
    /// What the replies open with, if they are encrypted.
    pub(crate) opener: Option<ReplyOpener>,
    /// Requests in flight on a connection.
    pub(crate) pipeline: usize,
    /// How long the server may owe something and say nothing.
    pub(crate) timeout: Duration,
}

/// The connections of one thread.
pub(crate) struct Load<'a> {
    plan: &'a Plan,
    poll: Poll,
    alarm: Alarm,
    connections: Vec<Connection>,
    /// Connections that may send when a request is due, in turn.
    ready: Ready,
    /// Connections with requests that have been due just now.
    unwritten: Vec<usize>,
    shared: Shared,
}

impl<'a> Load<'a> {
    /// Opens the connections.
    pub(crate) fn open(plan: &'a Plan, connections: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut load = Self {
            plan,
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            connections: (0..connections).map(|_| Connection::new()).collect(),
            ready: Ready::new(connections),
            unwritten: Vec::new(),
            shared: Shared {
                requests: Requests::new(&plan.request, plan.pipeline),
                known: KnownReply::new(plan.opener.clone()),
                buffer: vec![0; READ_BYTES],
                tally: Tally::new(),
            },
        };
        load.establish()?;
        Ok(load)
    }

    fn establish(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(MAX_OPENING);
        let (mut begun, mut open) = (0, 0);
        let mut progress = Instant::now();
        while open < self.connections.len() {
            while begun < self.connections.len() && begun - open < MAX_OPENING {
                let connection = &mut self.connections[begun];
                connection.open(&self.plan.target, self.poll.registry(), Token(begun))?;
                begun += 1;
            }
            let left = self.plan.timeout.saturating_sub(progress.elapsed());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            poll(&mut self.poll, &mut events, left)?;
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                if connection.is_opening() && connection.establish()? {
                    open += 1;
                    progress = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// Sends the requests of the schedule, and waits for the replies, or until it is told to stop.
    /// The number of those that have come to their end is always in `settled`.
    pub(crate) fn run(
        &mut self,
        mut schedule: Schedule,
        settled: &AtomicU64,
        stop: &AtomicBool,
    ) -> io::Result<Tally> {
        let mut events = Events::with_capacity(1024);
        let started = Instant::now();
        let mut now = started;
        let mut next_look = started + LOOK_INTERVAL;
        for index in 0..self.connections.len() {
            self.connections[index].revive();
            self.refill(index, &mut schedule, Instant::now());
        }
        loop {
            if schedule.is_paced() {
                now = Instant::now();
                self.send_due(&mut schedule, now);
            }
            let tally = &self.shared.tally;
            settled.store(tally.settled(), Ordering::Relaxed);
            if schedule.is_over(now) && tally.settled() == tally.sent {
                break;
            }
            if now >= next_look {
                if !self.look(&schedule, now) || stop.load(Ordering::Relaxed) {
                    break;
                }
                next_look = now + LOOK_INTERVAL;
            }
            self.poll(&mut events, &schedule, next_look.saturating_duration_since(now))?;
            if events.is_empty() {
                now = Instant::now();
            }
            for event in &events {
                if event.token() != ALARM {
                    let has_ended = event.is_read_closed() || event.is_error();
                    now = self.serve(event.token().0, has_ended, &mut schedule);
                }
            }
        }
        let end = schedule.end().filter(|_| schedule.is_over(now)).map_or(now, |end| end.max(now));
        let mut tally = mem::replace(&mut self.shared.tally, Tally::new());
        tally.time = end.saturating_duration_since(started);
        tally.unsent = schedule.unsent(end);
        Ok(tally)
    }

    /// Reads what a connection has received, and sends what may go out then. Returns when it was.
    #[inline]
    fn serve(&mut self, index: usize, has_ended: bool, schedule: &mut Schedule) -> Instant {
        let connection = &mut self.connections[index];
        let read = match connection.is_opening() {
            true => connection.establish().map(|_| Instant::now()),
            false => connection.read(has_ended, &mut self.shared),
        };
        match read {
            Ok(now) => {
                self.refill(index, schedule, now);
                now
            }
            Err(error) => self.lose(index, &error),
        }
    }

    /// Sends as many requests over a connection as may go out at any time.
    #[inline]
    fn refill(&mut self, index: usize, schedule: &mut Schedule, now: Instant) {
        let connection = &mut self.connections[index];
        let free = connection.free(self.plan.pipeline);
        if free > 0 {
            if schedule.is_paced() {
                self.ready.push(index);
            } else {
                let count = schedule.take(free, now);
                if count > 0 {
                    connection.request(count, now, now, &mut self.shared);
                }
            }
        }
        self.write(index);
    }

    /// Sends the requests that are due, over the connections in turn.
    fn send_due(&mut self, schedule: &mut Schedule, now: Instant) {
        while let Some(index) = self.ready.first() {
            let connection = &mut self.connections[index];
            let free = connection.free(self.plan.pipeline);
            if free > 0 {
                let Some(since) = schedule.take_due(now) else { break };
                connection.request(1, since, now, &mut self.shared);
                self.unwritten.push(index);
            }
            self.ready.pop();
            if free > 1 {
                self.ready.push(index);
            }
        }
        while let Some(index) = self.unwritten.pop() {
            self.write(index);
        }
    }

    fn write(&mut self, index: usize) {
        if let Err(error) = self.connections[index].write(&mut self.shared) {
            self.lose(index, &error);
        }
    }

    fn lose(&mut self, index: usize, error: &io::Error) -> Instant {
        let now = Instant::now();
        let timeout = self.plan.timeout;
        self.connections[index].lose(error, now, timeout, &mut self.shared.tally);
        now
    }

    /// Gives connections up over which nothing comes, and opens those again that were lost. False
    /// if none is left.
    fn look(&mut self, schedule: &Schedule, now: Instant) -> bool {
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            if connection.silence(now) >= self.plan.timeout {
                let text = format!("no reply within {:?}", self.plan.timeout);
                connection.close(&text, &mut self.shared.tally);
            } else if connection.wants_to_open(now) && !schedule.is_over(now) {
                let (target, registry) = (&self.plan.target, self.poll.registry());
                if let Err(error) = connection.open(target, registry, Token(index)) {
                    self.lose(index, &error);
                }
            }
        }
        !self.connections.iter().all(Connection::is_closed)
    }

    /// Waits for replies, the next request that is due, or the end of the timeout.
    fn poll(
        &mut self,
        events: &mut Events,
        schedule: &Schedule,
        mut timeout: Duration,
    ) -> io::Result<()> {
        // With no connection free, a reply is what the next request waits for.
        if let (Some(due), Some(_)) = (schedule.next_due(), self.ready.first())
            && !self.alarm.set(due)?
        {
            timeout = timeout.min(due.saturating_duration_since(Instant::now()));
        }
        poll(&mut self.poll, events, timeout)
    }
}

/// A queue of connections in which none is twice.
struct Ready {
    queue: VecDeque<usize>,
    is_queued: Vec<bool>,
}

impl Ready {
    fn new(connections: usize) -> Self {
        Self { queue: VecDeque::with_capacity(connections), is_queued: vec![false; connections] }
    }

    fn push(&mut self, index: usize) {
        if !mem::replace(&mut self.is_queued[index], true) {
            self.queue.push_back(index);
        }
    }

    fn first(&self) -> Option<usize> {
        self.queue.front().copied()
    }

    fn pop(&mut self) {
        if let Some(index) = self.queue.pop_front() {
            self.is_queued[index] = false;
        }
    }
}

/// Polls for so long at the most; no events if a signal came between.
fn poll(poll: &mut Poll, events: &mut Events, timeout: Duration) -> io::Result<()> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
        polled => polled?,
    }
    Ok(())
}
