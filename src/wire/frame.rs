//! Finds where a message ends, without decoding it: resumable, never recursive, and it refuses at
//! the header whatever cannot fit the limits. Does not look into texts and does not build values.

use std::fmt;

use super::header::{self, Header, Kind};

/// The most that `max_depth` may be: a thread's stack takes the drop of a value so deep, and the
/// recursion of whatever a handler does with it.
pub(crate) const MAX_MAX_DEPTH: usize = 1024;

/// What one message may cost. Checked before anything is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of the message on the wire.
    pub(crate) max_bytes: usize,
    /// Containers inside each other.
    pub(crate) max_depth: usize,
    /// Values in the message, at every level; a map entry counts as two.
    pub(crate) max_items: usize,
}

/// Why a message is refused. `Display` is what the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The byte 0xc1: MessagePack never uses it, so the message has no known end.
    Reserved {
        offset: usize,
    },
    /// A str that is not UTF-8.
    Text {
        offset: usize,
    },
    /// Bytes behind the one value that there must be, or less than that value.
    Length {
        expected: usize,
        found: usize,
    },
    TooLong {
        limit: usize,
    },
    TooDeep {
        limit: usize,
    },
    TooManyItems {
        limit: usize,
    },
}

impl Malformed {
    /// The name of the limit that was hit, as the metrics and the setters call it.
    pub(crate) fn limit(self) -> Option<&'static str> {
        match self {
            Self::TooLong { .. } => Some("max_message_bytes"),
            Self::TooDeep { .. } => Some("max_depth"),
            Self::TooManyItems { .. } => Some("max_items"),
            Self::Reserved { .. } | Self::Text { .. } | Self::Length { .. } => None,
        }
    }
}

impl Malformed {
    /// What is wrong, without numbers.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Reserved { .. } => "Not MessagePack: byte 0xc1",
            Self::Text { .. } => "Not MessagePack: a str is not UTF-8",
            Self::Length { .. } => "Not one message",
            Self::TooLong { .. } => "Message is too long (max_message_bytes)",
            Self::TooDeep { .. } => "Message is nested too deep (max_depth)",
            Self::TooManyItems { .. } => "Message has too many values (max_items)",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved { offset } => {
                write!(f, "Not MessagePack: byte 0xc1 at offset {offset} is never used")
            }
            Self::Text { offset } => write!(
                f,
                "Not MessagePack: the str at offset {offset} is not UTF-8, send bytes as bin"
            ),
            Self::Length { expected, found } => {
                write!(f, "Not one message: {found} bytes, where the first value has {expected}")
            }
            Self::TooLong { limit } => {
                write!(f, "Message is longer than {limit} bytes (max_message_bytes)")
            }
            Self::TooDeep { limit } => {
                write!(f, "Message is nested deeper than {limit} containers (max_depth)")
            }
            Self::TooManyItems { limit } => {
                write!(f, "Message has more than {limit} values (max_items)")
            }
        }
    }
}

/// Finds the end of one message in bytes that arrive in pieces.
///
/// Invariant: `owed` plus the sum of `around` is `outstanding`, once the first header was read.
#[derive(Debug)]
pub(crate) struct FrameFinder {
    /// Where the next header starts, counted from the start of the message. May lie beyond the
    /// bytes that are there.
    position: usize,
    /// The values that the innermost open container still lacks.
    owed: u64,
    /// The same for the containers around it, the outermost first. Only a container inside a
    /// container makes it allocate: `{"foo": "bar"}` does not.
    around: Vec<u64>,
    /// All values that are still to come.
    outstanding: u64,
    /// The values seen or announced so far.
    items: u64,
    /// The values in the message that was found last.
    found: u64,
}

impl FrameFinder {
    pub(crate) fn new() -> Self {
        Self { position: 0, owed: 0, around: Vec::new(), outstanding: 1, items: 1, found: 0 }
    }

    /// Begins anew, and lets go of what deep messages made it allocate. What most messages need it
    /// keeps: 32 bytes for a connection, an allocation less for each message.
    pub(crate) fn rest(&mut self) {
        let mut around = std::mem::take(&mut self.around);
        around.clear();
        around.shrink_to(4);
        *self = Self { around, ..Self::new() };
    }

    /// Goes on with `message`, all the bytes that are there from the message's start on, and
    /// returns the message's length once all of it is there; then it is ready for the next one.
    ///
    /// The cost is linear in the message, into however many pieces it is cut.
    #[inline]
    pub(crate) fn find(
        &mut self,
        message: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, Malformed> {
        if self.position == 0
            && let Some((length, items)) = flat(message, limits)
        {
            self.found = items as u64;
            return Ok(Some(length));
        }
        self.find_any(message, limits)
    }

    /// Goes on with a message of any form. Not inline: the way of flat ones is shorter without it.
    #[inline(never)]
    fn find_any(&mut self, message: &[u8], limits: &Limits) -> Result<Option<usize>, Malformed> {
        while self.outstanding > 0 {
            self.skip_simple(message, limits)?;
            if self.outstanding == 0 {
                break;
            }
            let Some(header) = message.get(self.position..).and_then(Header::read) else {
                return Ok(None);
            };
            self.enter(header, limits)?;
        }
        if self.position > message.len() {
            return Ok(None);
        }
        let length = self.position;
        self.found = self.items;
        self.restart();
        Ok(Some(length))
    }

    /// The bytes that the message needs at the least, as far as its headers tell.
    pub(crate) fn at_least(&self) -> usize {
        self.position + self.outstanding as usize // find() has checked it against max_bytes
    }

    /// The values in the message that was found last, at all its levels.
    #[inline]
    pub(crate) fn items(&self) -> usize {
        self.found as usize // find() has checked it against max_items
    }

    fn restart(&mut self) {
        self.position = 0;
        self.owed = 0;
        self.around.clear();
        self.outstanding = 1;
        self.items = 1;
    }

    /// Steps over the values of the innermost container that have a header of one byte and nothing
    /// inside: most values of most messages.
    #[inline]
    fn skip_simple(&mut self, message: &[u8], limits: &Limits) -> Result<(), Malformed> {
        let (mut position, mut owed) = (self.position, self.owed);
        while owed > 0
            && let Some(&marker) = message.get(position)
            && let Some(size) = header::simple_size(marker)
        {
            position += size;
            owed -= 1;
        }
        self.outstanding -= self.owed - owed;
        (self.position, self.owed) = (position, owed);
        match position as u64 + self.outstanding > limits.max_bytes as u64 {
            true => Err(Malformed::TooLong { limit: limits.max_bytes }),
            false => Ok(()),
        }
    }

    /// Steps over one header and its payload.
    #[inline]
    fn enter(&mut self, header: Header, limits: &Limits) -> Result<(), Malformed> {
        if header.kind == Kind::Reserved {
            return Err(Malformed::Reserved { offset: self.position });
        }
        let is_root = self.position == 0;
        self.items += header.children;
        self.outstanding = self.outstanding - 1 + header.children;
        // No overflow: what was accepted so far is at most max_bytes, and one header adds < 2^34.
        let end = self.position as u64 + header.size as u64 + header.payload;
        // Every value that is still to come takes at least one byte.
        if end.saturating_add(self.outstanding) > limits.max_bytes as u64 {
            return Err(Malformed::TooLong { limit: limits.max_bytes });
        }
        if self.items > limits.max_items as u64 {
            return Err(Malformed::TooManyItems { limit: limits.max_items });
        }
        self.position = end as usize; // fits: at most max_bytes

        if !is_root {
            while self.owed == 0 {
                // Never empty here: a value was outstanding, so some container owes it.
                let Some(owed) = self.around.pop() else { break };
                self.owed = owed;
            }
            self.owed -= 1;
        }
        if matches!(header.kind, Kind::Array | Kind::Map) {
            let depth = if is_root { 1 } else { self.around.len() + 2 };
            if depth > limits.max_depth {
                return Err(Malformed::TooDeep { limit: limits.max_depth });
            }
            if !is_root {
                self.around.push(self.owed);
            }
            self.owed = header.children;
        }
        Ok(())
    }
}

/// The length of a message that is all there and within the limits, and the values in it, if it is
/// a simple value or a short container of such: what most small messages are. Finds the end of
/// `{"foo": "bar"}` in half the time, as it keeps no account of what is still to come.
#[inline]
fn flat(message: &[u8], limits: &Limits) -> Option<(usize, usize)> {
    let &marker = message.first()?;
    let (mut length, inside) = match marker {
        0x80..=0x8f => (1, 2 * usize::from(marker & 0x0f)),
        0x90..=0x9f => (1, usize::from(marker & 0x0f)),
        _ => (header::simple_size(marker)?, 0),
    };
    for _ in 0..inside {
        length += header::simple_size(*message.get(length)?)?;
    }
    let fits = length <= message.len().min(limits.max_bytes)
        && inside < limits.max_items
        && limits.max_depth > 0;
    fits.then_some((length, 1 + inside))
}

/// Checks that `bytes` are exactly one message within `limits`: what a signed envelope must hold.
/// Returns the values in it.
pub(crate) fn check_whole(bytes: &[u8], limits: &Limits) -> Result<usize, Malformed> {
    if let Some((length, items)) = flat(bytes, limits)
        && length == bytes.len()
    {
        return Ok(items);
    }
    let mut finder = FrameFinder::new();
    match finder.find_any(bytes, limits)? {
        Some(length) if length == bytes.len() => Ok(finder.items()),
        Some(length) => Err(Malformed::Length { expected: length, found: bytes.len() }),
        None => Err(Malformed::Length { expected: finder.at_least(), found: bytes.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_depth: 4, max_items: 1000 };

    /// Finds the message in `bytes`, fed whole and one byte at a time, with the same outcome.
    fn find(bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Malformed> {
        let whole = FrameFinder::new().find(bytes, limits);
        let mut finder = FrameFinder::new();
        let fed = (0..=bytes.len())
            .map(|end| finder.find(&bytes[..end], limits))
            .find(|found| !matches!(found, Ok(None)))
            .unwrap_or(Ok(None));
        assert_eq!(whole, fed, "whole and in pieces: {bytes:02x?}");
        whole
    }

    #[test]
    fn a_message_ends_where_its_last_value_ends() {
        let check = |bytes: &[u8]| {
            let joined = [bytes, b"\xa3next"].concat();
            assert_eq!(find(&joined, &LIMITS), Ok(Some(bytes.len())), "{bytes:02x?}");
            for end in 0..bytes.len() {
                assert_eq!(find(&bytes[..end], &LIMITS), Ok(None), "{bytes:02x?} cut at {end}");
            }
        };
        check(b"\x00");
        check(b"\xc0");
        check(b"\xe0");
        check(b"\xa0");
        check(b"\xa3abc");
        check(b"\xd9\x03abc");
        check(b"\xda\x00\x03abc");
        check(b"\xdb\x00\x00\x00\x03abc");
        check(b"\xc4\x02ab");
        check(b"\xc5\x00\x02ab");
        check(b"\xc6\x00\x00\x00\x02ab");
        check(b"\xd4\x01a");
        check(b"\xd5\x01ab");
        check(b"\xd6\xff\x00\x00\x00\x00");
        check(b"\xd8\x010123456789abcdef");
        check(b"\xc7\x00\x01");
        check(b"\xc8\x00\x02\x01ab");
        check(b"\xc9\x00\x00\x00\x02\x01ab");
        check(b"\xca\x00\x00\x00\x00");
        check(b"\xcb\x00\x00\x00\x00\x00\x00\x00\x00");
        check(b"\xcc\x01");
        check(b"\xcd\x01\x01");
        check(b"\xd2\x01\x01\x01\x01");
        check(b"\xd3\x01\x01\x01\x01\x01\x01\x01\x01");
        check(b"\x80");
        check(b"\x90");
        check(b"\x81\xa3foo\xa3bar");
        check(b"\x92\x92\x01\x91\x90\x81\x01\x02");
        check(b"\x93\x91\x01\x91\x02\x91\x03");
        check(b"\xdc\x00\x02\x01\x02");
        check(b"\xdd\x00\x00\x00\x02\x01\x02");
        check(b"\xde\x00\x01\x01\x02");
        check(b"\xdf\x00\x00\x00\x01\x01\x02");
    }

    #[test]
    fn a_header_that_cannot_fit_is_refused_before_its_payload_arrives() {
        let check = |bytes: &[u8], expect: Malformed| {
            assert_eq!(find(bytes, &LIMITS), Err(expect), "{bytes:02x?}");
        };
        let too_long = Malformed::TooLong { limit: LIMITS.max_bytes };
        check(b"\xc6\xff\xff\xff\xff", too_long);
        check(b"\xdb\xff\xff\xff\xff", too_long);
        check(b"\xc9\xff\xff\xff\xff\x01", too_long);
        check(b"\xdd\xff\xff\xff\xff", too_long);
        check(b"\xdf\xff\xff\xff\xff", too_long);
        check(b"\xdc\x03\xe8", Malformed::TooManyItems { limit: 1000 });
        check(b"\xde\x01\xf4", Malformed::TooManyItems { limit: 1000 });
        check(b"\x91\x91\x91\x91\x91\x00", Malformed::TooDeep { limit: 4 });
        check(b"\x92\x00\xc1", Malformed::Reserved { offset: 2 });
    }

    #[test]
    fn siblings_do_not_count_as_depth_and_limits_are_inclusive() {
        assert_eq!(find(b"\x91\x91\x91\x91\x00", &LIMITS), Ok(Some(5)));
        assert_eq!(find(b"\x92\x91\x91\x90\x91\x91\x90", &LIMITS), Ok(Some(7)));
        let mut items = vec![0xdc, 0x03, 0xe7];
        items.resize(3 + 999, 0x00);
        assert_eq!(find(&items, &LIMITS), Ok(Some(1002)), "1 + 999 values");
        let exact = Limits { max_bytes: 4, ..LIMITS };
        assert_eq!(find(b"\xa3abc", &exact), Ok(Some(4)));
        assert_eq!(find(b"\xa4abcd", &exact), Err(Malformed::TooLong { limit: 4 }));
    }
}
