//! Turns the bytes of one message into a `Value`. Knows no limits: the frame finder has checked
//! them. Not recursive, so that the nesting of a message costs no stack.

use std::mem;

use rmpv::Value;

use super::frame::Malformed;
use super::header::{Header, Kind};

/// Decodes `message`, exactly one value that a [`FrameFinder`](super::FrameFinder) has accepted.
#[inline]
pub(crate) fn decode(message: &[u8]) -> Result<Value, Malformed> {
    let mut decoder = Decoder { message, position: 0 };
    let mut container = match decoder.next()? {
        Next::Value(value) => return Ok(value),
        Next::Container(container) => container,
    };
    decoder.fill(&mut container)?;
    match container.owed {
        0 => Ok(container.into_value()),
        _ => decoder.nested(container),
    }
}

enum Next {
    Value(Value),
    /// A container that lacks one value at least.
    Container(Container),
}

/// An array or a map on its way.
struct Container {
    items: Items,
    /// The values that it lacks.
    owed: u64,
}

enum Items {
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Container {
    #[inline]
    fn push(&mut self, value: Value) {
        match &mut self.items {
            Items::Array(items) => items.push(value),
            // An even number is owed before each key. The nil is a place for the key's value.
            Items::Map(entries) if self.owed.is_multiple_of(2) => entries.push((value, Value::Nil)),
            Items::Map(entries) => {
                if let Some((_, place)) = entries.last_mut() {
                    *place = value;
                }
            }
        }
        self.owed -= 1;
    }

    fn into_value(self) -> Value {
        match self.items {
            Items::Array(items) => Value::Array(items),
            Items::Map(entries) => Value::Map(entries),
        }
    }
}

struct Decoder<'a> {
    message: &'a [u8],
    position: usize,
}

impl<'a> Decoder<'a> {
    /// Reads a value that holds no others, or the header of one that does.
    #[inline(always)]
    fn next(&mut self) -> Result<Next, Malformed> {
        let start = self.position;
        let rest = self.message.get(start..).unwrap_or_default();
        let (Some(header), Some(&marker)) = (Header::read(rest), rest.first()) else {
            return Err(self.cut_short());
        };
        self.position += header.size;
        Ok(Next::Value(match header.kind {
            Kind::Scalar => self.scalar(marker)?,
            Kind::Str => self.text(start, header.payload)?,
            Kind::Bin => Value::Binary(self.take(header.payload)?.to_vec()),
            Kind::Ext => match self.take(header.payload)?.split_first() {
                Some((&kind, data)) => Value::Ext(kind as i8, data.to_vec()),
                None => return Err(self.cut_short()),
            },
            Kind::Array | Kind::Map => {
                // A capacity that the message backs: each value takes a byte at least.
                let count = (header.children as usize).min(self.message.len());
                let items = match header.kind {
                    Kind::Array => Items::Array(Vec::with_capacity(count)),
                    _ => Items::Map(Vec::with_capacity(count / 2)),
                };
                let container = Container { items, owed: header.children };
                if container.owed > 0 {
                    return Ok(Next::Container(container));
                }
                container.into_value()
            }
            Kind::Reserved => return Err(Malformed::Reserved { offset: start }),
        }))
    }

    /// Reads the rest of a container with containers in it. Not inline: the way of flat ones, which
    /// most small messages are, is shorter without it.
    #[inline(never)]
    fn nested(mut self, outermost: Container) -> Result<Value, Malformed> {
        let mut innermost = outermost;
        // The containers around the innermost.
        let mut around = Vec::new();
        loop {
            let mut value = match self.next()? {
                Next::Value(value) => value,
                Next::Container(mut container) => {
                    self.fill(&mut container)?;
                    if container.owed > 0 {
                        around.push(mem::replace(&mut innermost, container));
                        continue;
                    }
                    container.into_value()
                }
            };
            // A value may complete its container, which is then a value itself.
            loop {
                innermost.push(value);
                self.fill(&mut innermost)?;
                if innermost.owed > 0 {
                    break;
                }
                let Some(container) = around.pop() else { return Ok(innermost.into_value()) };
                value = mem::replace(&mut innermost, container).into_value();
            }
        }
    }

    /// Puts the values that hold no others into the container that they belong to, up to the first
    /// that does: without a detour for each over what may be a container.
    #[inline]
    fn fill(&mut self, container: &mut Container) -> Result<(), Malformed> {
        while container.owed > 0
            && let Some(value) = self.simple()?
        {
            match &mut container.items {
                // With its value behind it, a key takes no nil to hold the place.
                Items::Map(entries) if container.owed.is_multiple_of(2) => match self.simple()? {
                    Some(of_key) => {
                        entries.push((value, of_key));
                        container.owed -= 2;
                    }
                    None => container.push(value),
                },
                _ => container.push(value),
            }
        }
        Ok(())
    }

    /// Reads a scalar or a short text, if one is next.
    #[inline(always)]
    fn simple(&mut self) -> Result<Option<Value>, Malformed> {
        let start = self.position;
        let Some(&marker) = self.message.get(start) else { return Err(self.cut_short()) };
        match marker {
            0xa0..=0xbf => {
                self.position += 1;
                self.text(start, u64::from(marker & 0x1f)).map(Some)
            }
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xca..=0xd3 | 0xe0..=0xff => {
                self.position += 1;
                self.scalar(marker).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Reads the text of the value that began at `start`.
    #[inline(always)]
    fn text(&mut self, start: usize, length: u64) -> Result<Value, Malformed> {
        let text = std::str::from_utf8(self.take(length)?);
        text.map(Value::from).map_err(|_| Malformed::Text { offset: start })
    }

    #[inline(always)]
    fn scalar(&mut self, marker: u8) -> Result<Value, Malformed> {
        Ok(match marker {
            0x00..=0x7f => Value::from(marker),
            0xe0..=0xff => Value::from(marker as i8),
            0xc2 => Value::Boolean(false),
            0xc3 => Value::Boolean(true),
            0xca => Value::F32(f32::from_be_bytes(self.array()?)),
            0xcb => Value::F64(f64::from_be_bytes(self.array()?)),
            0xcc => Value::from(u8::from_be_bytes(self.array()?)),
            0xcd => Value::from(u16::from_be_bytes(self.array()?)),
            0xce => Value::from(u32::from_be_bytes(self.array()?)),
            0xcf => Value::from(u64::from_be_bytes(self.array()?)),
            0xd0 => Value::from(i8::from_be_bytes(self.array()?)),
            0xd1 => Value::from(i16::from_be_bytes(self.array()?)),
            0xd2 => Value::from(i32::from_be_bytes(self.array()?)),
            0xd3 => Value::from(i64::from_be_bytes(self.array()?)),
            _ => Value::Nil,
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.message.get(self.position..).and_then(|rest| rest.first_chunk());
        let bytes = *bytes.ok_or_else(|| self.cut_short())?;
        self.position += N;
        Ok(bytes)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let rest = self.message.get(self.position..).unwrap_or_default();
        let bytes = rest.get(..length as usize).ok_or_else(|| self.cut_short())?;
        self.position += bytes.len();
        Ok(bytes)
    }

    fn cut_short(&self) -> Malformed {
        Malformed::Length { expected: self.position + 1, found: self.message.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_decodes_to_what_rmpv_makes_of_it() {
        for message in [
            &b"\x00"[..],
            b"\x7f",
            b"\xe0",
            b"\xff",
            b"\xc0",
            b"\xc2",
            b"\xc3",
            b"\xa3abc",
            b"\xd9\x03abc",
            b"\xda\x00\x03abc",
            b"\xdb\x00\x00\x00\x03abc",
            b"\xc4\x02ab",
            b"\xc5\x00\x02ab",
            b"\xc6\x00\x00\x00\x02ab",
            b"\xd4\x01a",
            b"\xd5\x80ab",
            b"\xd6\xff\x00\x00\x00\x01",
            b"\xd7\x01abcdefgh",
            b"\xd8\x010123456789abcdef",
            b"\xc7\x00\x01",
            b"\xc8\x00\x02\x01ab",
            b"\xc9\x00\x00\x00\x02\x01ab",
            b"\xca\x3f\x80\x00\x00",
            b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
            b"\xcc\xff",
            b"\xcd\xff\xff",
            b"\xce\xff\xff\xff\xff",
            b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\xd0\x80",
            b"\xd1\x80\x00",
            b"\xd2\x80\x00\x00\x00",
            b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00",
            b"\x81\xa3foo\xa3bar",
            b"\x82\x01\xc0\xc0\x93\x01\x02\x03",
            b"\xdc\x00\x01\x90",
            b"\xdd\x00\x00\x00\x01\x80",
            b"\xde\x00\x01\x01\x02",
            b"\xdf\x00\x00\x00\x01\x01\x02",
        ] {
            let expected = rmpv::decode::read_value(&mut &message[..]).expect("a valid message");
            assert_eq!(decode(message), Ok(expected), "{message:02x?}");
            for end in 0..message.len() {
                assert!(decode(&message[..end]).is_err(), "{message:02x?} cut at {end}");
            }
        }
    }

    #[test]
    fn what_cannot_be_decoded_says_where_and_why() {
        assert_eq!(decode(b"\x92\x01\xa2\xff\xfe"), Err(Malformed::Text { offset: 2 }));
        assert_eq!(decode(b"\x92\x01\xc1"), Err(Malformed::Reserved { offset: 2 }));
    }
}
