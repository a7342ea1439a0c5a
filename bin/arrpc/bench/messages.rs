//! The bytes of the requests, made once, and of the replies, compared with those of the first good
//! one: a request costs no encoding, and a reply like the first no decoding. No two encrypted
//! replies are the same, though: each is decrypted.

use arrpc::internals::{self, Frames, ReplyOpener};

/// What error replies begin with, behind the header of the text.
const RPC_PREFIX: &[u8] = b"arrpc.error.RpcException: ";
const AUTH_PREFIX: &[u8] = b"arrpc.error.AuthException: ";

/// What a `Client` takes at the most by default.
const MAX_REPLY_BYTES: usize = 64 << 20;

/// Requests to write at once, if so many may go out and are short enough.
const BLOCK_BYTES: usize = 128 << 10;

/// One request after the other without end, as a ring.
#[derive(Debug)]
pub(crate) struct Requests {
    block: Vec<u8>,
    length: usize,
}

impl Requests {
    /// Repeats a request, for so many in flight on one connection.
    pub(crate) fn new(request: &[u8], pipeline: usize) -> Self {
        let times = pipeline.min(BLOCK_BYTES / request.len()).max(1);
        Self { block: request.repeat(times), length: request.len() }
    }

    /// The bytes of one.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// What comes behind so many bytes of a request, as much as is there in one piece, and
    /// `at_most`.
    pub(crate) fn piece(&self, written: usize, at_most: usize) -> &[u8] {
        let end = self.block.len().min(written + at_most);
        &self.block[written..end]
    }
}

/// What the first good reply was, often enough for everything that one read can bring.
#[derive(Debug, Default)]
pub(crate) struct KnownReply {
    /// Empty if replies are encrypted.
    block: Vec<u8>,
    length: usize,
    opener: Option<ReplyOpener>,
}

impl KnownReply {
    /// Knows none yet. With an `opener` replies are encrypted.
    pub(crate) fn new(opener: Option<ReplyOpener>) -> Self {
        Self { opener, ..Self::default() }
    }

    /// The bytes of one, if there is one.
    pub(crate) fn length(&self) -> Option<usize> {
        (self.length > 0).then_some(self.length)
    }

    /// Tells what a whole reply is, and learns the first good one.
    fn judge(&mut self, reply: &[u8], read_bytes: usize) -> Result<Outcome, String> {
        if self.is(reply) {
            return Ok(Outcome::Good(1));
        }
        // One that could not decrypt the request does not encrypt the reply either.
        let mut refused = refusal(reply);
        if let (None, Some(opener)) = (&refused, &self.opener) {
            let mut opened = reply.to_vec();
            let text = "it is not encrypted, or not for this request";
            refused = refusal(opener.open(&mut opened).ok_or(text)?);
        }
        Ok(match refused {
            Some(text) => Outcome::Refused(text),
            None => {
                if self.length().is_none() {
                    self.learn(reply, read_bytes);
                }
                Outcome::Good(1)
            }
        })
    }

    fn learn(&mut self, reply: &[u8], read_bytes: usize) {
        self.length = reply.len();
        if self.opener.is_none() {
            self.block = reply.repeat(read_bytes / reply.len() + 2);
        }
    }

    /// Whether bytes behind the first `matched` of this reply go on with it, and with any number
    /// of it.
    fn goes_on_as(&self, matched: usize, bytes: &[u8]) -> bool {
        self.length > 0 && self.block.get(matched..matched + bytes.len()) == Some(bytes)
    }

    fn is(&self, reply: &[u8]) -> bool {
        self.block.get(..self.length) == Some(reply)
    }
}

/// What a connection has received.
#[derive(Debug)]
pub(crate) struct Replies {
    /// Bytes of an unfinished reply that is the known one so far.
    matched: usize,
    /// The unfinished reply if it is not; else empty.
    unread: Vec<u8>,
    frames: Frames,
}

/// What replies are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Good(usize),
    /// One, with this text.
    Refused(String),
}

impl Replies {
    pub(crate) fn new() -> Self {
        Self { matched: 0, unread: Vec::new(), frames: Frames::new(MAX_REPLY_BYTES) }
    }

    /// Takes what a read of up to `read_bytes` has brought, and tells what it is.
    ///
    /// # Errors
    ///
    /// What is wrong with a message.
    #[inline]
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        read_bytes: usize,
        known: &mut KnownReply,
        mut found: impl FnMut(Outcome),
    ) -> Result<(), String> {
        if self.unread.is_empty() && known.goes_on_as(self.matched, bytes) {
            let end = self.matched + bytes.len();
            // In lockstep it is one, and a division takes longer than the comparison.
            let replies = if end == known.length { 1 } else { end / known.length };
            self.matched = end - replies * known.length;
            if replies > 0 {
                found(Outcome::Good(replies));
            }
            return Ok(());
        }
        self.unread.extend_from_slice(known.block.get(..self.matched).unwrap_or_default());
        self.matched = 0;
        self.unread.extend_from_slice(bytes);
        self.take_unread(read_bytes, known, found)
    }

    fn take_unread(
        &mut self,
        read_bytes: usize,
        known: &mut KnownReply,
        mut found: impl FnMut(Outcome),
    ) -> Result<(), String> {
        let mut rest = self.unread.as_slice();
        while let Some(length) = self.frames.find(rest)? {
            let (reply, behind) = rest.split_at(length);
            rest = behind;
            found(known.judge(reply, read_bytes)?);
        }
        let left = rest.len();
        if known.goes_on_as(0, rest) {
            self.matched = left;
            self.unread.clear();
            if left > 0 {
                self.frames = Frames::new(MAX_REPLY_BYTES); // it had begun with this one
            }
        } else {
            self.unread.drain(..self.unread.len() - left);
        }
        Ok(())
    }
}

/// The text of an error reply.
fn refusal(reply: &[u8]) -> Option<String> {
    let header = match reply.first()? {
        0xa0..=0xbf => 1,
        0xd9 => 2,
        0xda => 3,
        0xdb => 5,
        _ => return None,
    };
    let text = reply.get(header..)?;
    if !text.starts_with(RPC_PREFIX) && !text.starts_with(AUTH_PREFIX) {
        return None;
    }
    Some(internals::decode(reply).ok()?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"\xa6got it";
    const OTHER: &[u8] = b"\x92\x01\x02";
    const REFUSED: &[u8] = b"\xbdarrpc.error.RpcException: no!";

    /// What is found when the bytes come in pieces of this length.
    fn found(bytes: &[u8], piece: usize) -> Result<(usize, Vec<String>), String> {
        let (mut known, mut replies) = (KnownReply::default(), Replies::new());
        let (mut good, mut refused) = (0, Vec::new());
        for piece in bytes.chunks(piece) {
            replies.take(piece, 64, &mut known, |outcome| match outcome {
                Outcome::Good(count) => good += count,
                Outcome::Refused(text) => refused.push(text),
            })?;
        }
        Ok((good, refused))
    }

    #[test]
    fn replies_are_counted_in_whatever_pieces_they_come() {
        let text = || "arrpc.error.RpcException: no!".to_owned();
        for (replies, good, refused) in [
            ([GOOD; 5].as_slice(), 5, vec![]),
            (&[GOOD, OTHER, GOOD, GOOD, OTHER], 5, vec![]),
            (&[REFUSED, GOOD, REFUSED, GOOD, GOOD], 3, vec![text(), text()]),
            (&[b"\xa6got in", GOOD], 2, vec![]),
        ] {
            for piece in 1..=64 {
                assert_eq!(found(&replies.concat(), piece), Ok((good, refused.clone())), "{piece}");
            }
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for piece in 1..=16 {
            assert!(found(&[GOOD, b"\xc1"].concat(), piece).is_err());
        }
    }

    #[test]
    fn a_piece_of_the_requests_ends_with_the_block_or_what_is_wanted() {
        let requests = Requests::new(b"abc", 3);
        assert_eq!(requests.piece(0, 6), b"abcabc");
        assert_eq!(requests.piece(2, 100), b"cabcabc");
        assert_eq!(Requests::new(b"abc", 1).piece(1, 1), b"b");
    }
}
