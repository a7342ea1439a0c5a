//! A connection: a stream with a read and a write buffer, whole messages in and out. The one place
//! that holds both bytes and a stream. Knows messages by their ends alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use smol::io::{AsyncRead, AsyncWrite};

use crate::wire::{FrameFinder, Limits, Malformed};

/// The size of a read buffer: messages of 64 KiB fit, with their headers and the smallest read
/// behind them. Where they did not, each of them grew the buffer and gave that back, for three
/// times the processor time. Not 128 KiB: that glibc maps anew each time, page for page.
pub(crate) const READ_BUFFER_BYTES: usize = 72 * 1024;

/// The free space below which a read buffer is compacted or grown.
const MIN_READ_BYTES: usize = 4 * 1024;

/// The most of an unfinished message, and of replies that wait, that a connection keeps outside of
/// the buffers that it was lent. Copied out by each wake, and a message in again: 1 us at the most.
const MAX_COPIED_BYTES: usize = 16 * 1024;

/// A whole message.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    /// Where it arrived, and where it is decrypted.
    pub(crate) bytes: &'a mut [u8],
    /// The values in it, at all its levels.
    pub(crate) items: usize,
}

/// A stream and the bytes on their way in and out.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    input: Input,
    finder: FrameFinder,
    output: Vec<u8>,
    /// How much of `output` is written.
    written: usize,
    /// The bytes that the stream has taken in all.
    taken: u64,
    /// Bytes were handed to the stream that it may hold back until it is flushed (TLS records).
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            input: Input::default(),
            finder: FrameFinder::new(),
            output: Vec::new(),
            written: 0,
            taken: 0,
            unflushed: false,
        }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    /// The bytes that arrived and belong to no message yet.
    pub(crate) fn unread(&self) -> &[u8] {
        self.input.unread()
    }

    /// Forgets the bytes that arrived and belong to no message yet. No message can be found behind
    /// that.
    pub(crate) fn discard_unread(&mut self) {
        self.input.start = self.input.end;
    }

    /// Takes the next complete message out of what has arrived, with the output for its reply;
    /// `None` if there is none.
    #[inline]
    pub(crate) fn next_message(
        &mut self,
        limits: &Limits,
    ) -> Result<Option<(Message<'_>, &mut Vec<u8>)>, Malformed> {
        if self.input.start == self.input.end {
            return Ok(None);
        }
        match self.finder.find(self.input.unread(), limits)? {
            Some(length) => {
                let items = self.finder.items();
                let bytes = self.input.consume(length);
                Ok(Some((Message { bytes, items }, &mut self.output)))
            }
            None => Ok(None),
        }
    }

    /// The memory that an unfinished message takes if the connection reads on and then waits.
    #[inline]
    pub(crate) fn memory_to_read(&self) -> usize {
        match self.input.growth(self.finder.at_least()) {
            Some(larger) => with_holes(larger),
            None if self.unread().len() <= MAX_COPIED_BYTES => self.unread().len(),
            None => with_holes(self.input.bytes.len()),
        }
    }

    /// The memory of a read buffer that is larger than those that are lent.
    #[inline]
    pub(crate) fn large_input(&self) -> usize {
        let size = self.input.bytes.len();
        if size > READ_BUFFER_BYTES { with_holes(size) } else { 0 }
    }

    /// The memory that the connection keeps while it waits, but for some hundred bytes.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        with_holes(self.input.bytes.capacity()) + self.output.capacity()
    }

    /// Reads once from the stream. `Ok(0)` is the end of the stream.
    #[inline]
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let free = self.input.free(self.finder.at_least());
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, free))?;
        self.input.end += read;
        Poll::Ready(Ok(read))
    }

    /// Where replies and requests are appended, to be written by the next flush.
    #[inline]
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The bytes that wait to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.output.len() - self.written
    }

    /// Whether the stream has taken all of the output, and holds nothing of it back.
    #[inline]
    pub(crate) fn is_flushed(&self) -> bool {
        self.unwritten() == 0 && !self.unflushed
    }

    /// How many bytes the stream has taken so far: whether a slow peer goes on.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Writes all that waits, in as few writes as the stream takes.
    #[inline]
    pub(crate) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let unwritten = self.output.get(self.written..).unwrap_or_default();
            let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, unwritten)?
            else {
                // Replies come on while a slow peer takes them: what is written must go, or the
                // buffer grows for as long as it is never empty.
                if self.written >= self.unwritten() {
                    self.output.drain(..self.written);
                    self.written = 0;
                }
                return Poll::Pending;
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
            self.taken += written as u64;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
            self.output.clear();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Lets go of what a large message made the buffers grow to. For a connection that is clean.
    pub(crate) fn shrink(&mut self) {
        (self.input.start, self.input.end) = (0, 0);
        self.input.bytes.truncate(READ_BUFFER_BYTES);
        self.input.bytes.shrink_to(READ_BUFFER_BYTES);
        self.output.shrink_to(READ_BUFFER_BYTES);
    }

    /// Lends the connection a read buffer of [`READ_BUFFER_BYTES`] if it has none, and a write
    /// buffer likewise.
    #[inline]
    pub(crate) fn borrow_buffers(&mut self, buffers: &mut Buffers) {
        if self.input.bytes.len() < READ_BUFFER_BYTES {
            let lent = buffers.input.take().unwrap_or_else(|| vec![0; READ_BUFFER_BYTES]);
            self.input.move_to(lent);
        }
        if self.output.capacity() == 0 {
            self.output = buffers.output.take().unwrap_or_default();
        }
    }

    /// Gives the buffers back, as the connection is about to wait, and keeps no more than the
    /// unfinished message.
    #[inline]
    pub(crate) fn return_buffers(&mut self, buffers: &mut Buffers) {
        let unread = self.input.unread().len();
        if unread <= MAX_COPIED_BYTES {
            let rest = self.input.unread().to_vec();
            let mut lent = std::mem::replace(&mut self.input, Input::holding(rest)).bytes;
            lent.truncate(READ_BUFFER_BYTES);
            lent.shrink_to(READ_BUFFER_BYTES);
            buffers.input = Some(lent);
        } else if self.input.bytes.len() / 4 >= unread.max(READ_BUFFER_BYTES) {
            // What a large message has left behind.
            self.input = Input::holding(self.input.unread().to_vec());
        }
        let unwritten = self.output.get(self.written..).unwrap_or_default();
        if unwritten.len() <= MAX_COPIED_BYTES {
            let rest = unwritten.to_vec();
            let mut lent = std::mem::replace(&mut self.output, rest);
            self.written = 0;
            lent.clear();
            lent.shrink_to(READ_BUFFER_BYTES);
            buffers.output = Some(lent);
        }
        if self.input.unread().is_empty() {
            self.finder.rest();
        }
    }
}

/// What a read buffer of this size takes from the process: the smaller ones that it grew out of
/// have left holes, of which others fill some. A thousand that grew to 4 MiB at once took a tenth
/// to a fifth more than their sizes with glibc's allocator.
#[inline]
fn with_holes(size: usize) -> usize {
    if size > READ_BUFFER_BYTES { size + size / 2 } else { size }
}

/// A worker's one pair of buffers, lent to the connection that is at work: an idle connection owns
/// none.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    input: Option<Vec<u8>>,
    output: Option<Vec<u8>>,
}

/// A read buffer.
///
/// Invariant: `start <= end <= bytes.len()`; `bytes[start..end]` has arrived and is unread. All of
/// `bytes` is initialised, so that no read needs unsafe code and none clears it first.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn holding(bytes: Vec<u8>) -> Self {
        Self { start: 0, end: bytes.len(), bytes }
    }

    fn unread(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, length: usize) -> &mut [u8] {
        let start = self.start;
        self.start += length;
        self.bytes.get_mut(start..self.start).unwrap_or_default()
    }

    /// The size to grow to for the next read, in a message of `at_least` so many bytes; `None` if
    /// there is room, or will be when the buffer is compacted.
    #[inline]
    fn growth(&self, at_least: usize) -> Option<usize> {
        let size = self.bytes.len();
        if size - self.end >= MIN_READ_BYTES || self.start > size / 2 || self.start == self.end {
            return None;
        }
        // Doubles with what has arrived, never by what a header claims: a peer pays for each byte
        // that it makes us keep. But not beyond the end that the headers tell.
        let smallest = self.end + READ_BUFFER_BYTES;
        Some(self.start.saturating_add(at_least).clamp(smallest, smallest.max(2 * size)))
    }

    /// The space for the next read: what is behind the unread bytes, made larger when it is short.
    /// Each move costs less than what has been read since the last.
    fn free(&mut self, at_least: usize) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() < MIN_READ_BYTES {
                self.bytes.resize(READ_BUFFER_BYTES, 0);
            }
        } else if let Some(larger) = self.growth(at_least) {
            self.bytes.reserve_exact(larger - self.bytes.len());
            self.bytes.resize(larger, 0);
        } else if self.bytes.len() - self.end < MIN_READ_BYTES {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    fn move_to(&mut self, mut bytes: Vec<u8>) {
        let length = self.unread().len();
        if let Some(space) = bytes.get_mut(..length) {
            space.copy_from_slice(self.unread());
            *self = Self { bytes, start: 0, end: length };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_depth: 128, max_items: 1 << 20 };

    /// A stream that hands out its input and takes output in pieces, pending in between.
    #[derive(Debug, Default)]
    struct Pieces {
        input: Vec<u8>,
        output: Vec<u8>,
        read_size: usize,
        write_size: usize,
        turn: bool,
    }

    impl Pieces {
        fn is_turn(&mut self) -> bool {
            self.turn = !self.turn;
            self.turn
        }
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            if !self.is_turn() {
                return Poll::Pending;
            }
            let size = self.read_size.min(self.input.len()).min(buffer.len());
            let rest = self.input.split_off(size);
            buffer[..size].copy_from_slice(&self.input);
            self.input = rest;
            Poll::Ready(Ok(size))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if !self.is_turn() {
                return Poll::Pending;
            }
            let size = self.write_size.min(bytes.len());
            self.output.extend_from_slice(&bytes[..size]);
            Poll::Ready(Ok(size))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Messages of very different sizes, and what they are together.
    fn messages() -> (Vec<Vec<u8>>, Vec<u8>) {
        let bin = |size: u32| {
            let mut message = vec![0xc6];
            message.extend_from_slice(&size.to_be_bytes());
            message.resize(5 + size as usize, size as u8);
            message
        };
        let sizes = [0, 1, 100, 4091, 4096, 5000, 65_530, 65_536, 70_000, 3, 300_000, 7];
        let messages: Vec<_> = sizes.into_iter().map(bin).collect();
        let joined = messages.concat();
        (messages, joined)
    }

    #[test]
    fn messages_survive_any_pieces_and_the_return_of_the_buffers_in_between() {
        let mut context = Context::from_waker(std::task::Waker::noop());
        for read_size in [1013, 4095, 4096, 4097, 16_384, 16_385, 65_536, 1 << 20] {
            let (messages, input) = messages();
            let stream = Pieces { input, read_size, ..Pieces::default() };
            let mut connection = Connection::new(stream);
            let mut buffers = Buffers::default();
            let mut found = Vec::new();
            loop {
                connection.borrow_buffers(&mut buffers);
                while let Some((message, _)) =
                    connection.next_message(&LIMITS).expect("well-formed")
                {
                    found.push(message.bytes.to_vec());
                }
                let read = connection.poll_read(&mut context);
                connection.return_buffers(&mut buffers);
                if let Poll::Ready(read) = read
                    && read.expect("it never fails") == 0
                {
                    break;
                }
            }
            assert!(found == messages, "in pieces of {read_size}");
            assert!(connection.unread().is_empty());
            assert_eq!(connection.input.bytes.capacity(), 0, "an idle connection owns no buffer");
            let kept = buffers.input.expect("returned");
            assert_eq!((kept.len(), kept.capacity()), (READ_BUFFER_BYTES, READ_BUFFER_BYTES));
        }
    }

    #[test]
    fn output_that_is_never_empty_does_not_grow() {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let stream = Pieces { write_size: 1000, ..Pieces::default() };
        let mut connection = Connection::new(stream);
        let mut expected = Vec::new();
        for round in 0..2000 {
            // As much comes in as goes out, and some was there before.
            let reply = vec![round as u8; if round == 0 { 10_000 } else { 500 }];
            expected.extend_from_slice(&reply);
            connection.output().extend_from_slice(&reply);
            while connection.unwritten() > 5000 {
                let _ = connection.poll_flush(&mut context);
            }
            assert!(connection.output().capacity() < 40_000, "round {round}");
        }
        while connection.poll_flush(&mut context).is_pending() {}
        assert!(connection.stream.output == expected);
        assert!(connection.is_flushed());
    }
}
