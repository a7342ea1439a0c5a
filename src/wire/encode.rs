//! Turns a `Value` into the bytes of one message, each value in its shortest format, as Python's
//! `packb(use_bin_type=True)` does; and widens a header where the length would hang a Python peer.

use rmpv::Value;

use super::header::{Header, Kind};

/// Python arrpc reads in pieces of 4,096 bytes and takes a short piece for the end of the message,
/// so it waits for ever behind a message whose length is a multiple of that.
const PYTHON_READ_BYTES: usize = 4096;

/// A message of 4 GiB and more. MessagePack has no header for some of these, so there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is longer than 4 GiB")]
pub(crate) struct TooLong;

/// Appends `value` as one message that any peer can read. Appends nothing if it is too long.
#[inline]
pub(crate) fn message(value: &Value, out: &mut Vec<u8>) -> Result<(), TooLong> {
    let start = out.len();
    encode(value, out);
    if u32::try_from(out.len() - start).is_err() {
        out.truncate(start);
        return Err(TooLong);
    }
    avoid_python_hang(out, start);
    Ok(())
}

/// Appends a str of these parts as one message that any peer can read.
pub(crate) fn text_message(parts: [&str; 2], out: &mut Vec<u8>) {
    let start = out.len();
    str_header(parts.iter().map(|part| part.len()).sum(), out);
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    avoid_python_hang(out, start);
}

/// Widens a header of the message at `out[start..]` if its length is a multiple of 4,096 bytes.
///
/// MessagePack allows a header wider than needed. Only a message with no header left to widen
/// stays as it is: a bare str, bin or ext of 64 KiB and more, or an array or map of as many
/// entries that are all nil, booleans, floats or full-width integers.
#[inline]
pub(crate) fn avoid_python_hang(out: &mut Vec<u8>, start: usize) {
    if (out.len() - start).is_multiple_of(PYTHON_READ_BYTES) {
        widen_first_header(out, start);
    }
}

#[cold]
fn widen_first_header(out: &mut Vec<u8>, start: usize) {
    let mut position = start;
    while let Some((header, wider)) = out.get(position..).and_then(|rest| {
        let header = Header::read(rest)?;
        Some((header, wider_header(rest, header)))
    }) {
        if let Some(wider) = wider {
            out.splice(position..position + header.size, wider);
            return;
        }
        position += header.size + header.payload as usize;
    }
}

/// The next wider header of the same kind for the value at the start of `bytes`, if there is one.
/// For an integer of one byte the header is the integer.
fn wider_header(bytes: &[u8], header: Header) -> Option<Vec<u8>> {
    let &marker = bytes.first()?;
    let wide = |marker, count: u64| {
        let mut wider = vec![marker];
        wider.extend_from_slice(&(count as u32).to_be_bytes());
        wider
    };
    Some(match (header.kind, header.size) {
        (Kind::Str, 1..5) => wide(0xdb, header.payload),
        (Kind::Bin, 1..5) => wide(0xc6, header.payload),
        (Kind::Ext, 1..5) => wide(0xc9, header.payload - 1),
        (Kind::Array, 1..5) => wide(0xdd, header.children),
        (Kind::Map, 1..5) => wide(0xdf, header.children / 2),
        (Kind::Scalar, _) => match marker {
            0x00..=0x7f => vec![0xcc, marker],
            0xe0..=0xff => vec![0xd0, marker],
            _ => return None,
        },
        _ => return None,
    })
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Nil => out.push(0xc0),
        Value::Boolean(false) => out.push(0xc2),
        Value::Boolean(true) => out.push(0xc3),
        Value::Integer(integer) => match integer.as_u64() {
            Some(unsigned) => encode_unsigned(unsigned, out),
            // An rmpv integer is a u64 or an i64.
            None => encode_negative(integer.as_i64().unwrap_or_default(), out),
        },
        Value::F32(float) => {
            out.push(0xca);
            out.extend_from_slice(&float.to_be_bytes());
        }
        Value::F64(float) => {
            out.push(0xcb);
            out.extend_from_slice(&float.to_be_bytes());
        }
        Value::String(text) => {
            str_header(text.as_bytes().len(), out);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Binary(bytes) => {
            bin_header(bytes.len(), out);
            out.extend_from_slice(bytes);
        }
        Value::Ext(kind, data) => {
            match data.len() {
                1 => out.push(0xd4),
                2 => out.push(0xd5),
                4 => out.push(0xd6),
                8 => out.push(0xd7),
                16 => out.push(0xd8),
                length => sized_header([0xc7, 0xc8, 0xc9], length, out),
            }
            out.push(*kind as u8);
            out.extend_from_slice(data);
        }
        Value::Array(items) => {
            match items.len() {
                length @ 0..16 => out.push(0x90 | length as u8),
                length => wide_header([0xdc, 0xdd], length, out),
            }
            for item in items {
                encode(item, out);
            }
        }
        Value::Map(entries) => {
            match entries.len() {
                length @ 0..16 => out.push(0x80 | length as u8),
                length => wide_header([0xde, 0xdf], length, out),
            }
            for (key, value) in entries {
                encode(key, out);
                encode(value, out);
            }
        }
    }
}

fn encode_unsigned(integer: u64, out: &mut Vec<u8>) {
    if let Ok(byte) = u8::try_from(integer) {
        if byte >= 0x80 {
            out.push(0xcc);
        }
        out.push(byte);
    } else if let Ok(integer) = u16::try_from(integer) {
        out.push(0xcd);
        out.extend_from_slice(&integer.to_be_bytes());
    } else if let Ok(integer) = u32::try_from(integer) {
        out.push(0xce);
        out.extend_from_slice(&integer.to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&integer.to_be_bytes());
    }
}

fn encode_negative(integer: i64, out: &mut Vec<u8>) {
    if let Ok(byte) = i8::try_from(integer) {
        if byte < -32 {
            out.push(0xd0);
        }
        out.push(byte as u8);
    } else if let Ok(integer) = i16::try_from(integer) {
        out.push(0xd1);
        out.extend_from_slice(&integer.to_be_bytes());
    } else if let Ok(integer) = i32::try_from(integer) {
        out.push(0xd2);
        out.extend_from_slice(&integer.to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend_from_slice(&integer.to_be_bytes());
    }
}

fn str_header(length: usize, out: &mut Vec<u8>) {
    match length {
        0..32 => out.push(0xa0 | length as u8),
        _ => sized_header([0xd9, 0xda, 0xdb], length, out),
    }
}

pub(super) fn bin_header(length: usize, out: &mut Vec<u8>) {
    sized_header([0xc4, 0xc5, 0xc6], length, out);
}

/// A header with one, two or four bytes of length.
fn sized_header([marker8, marker16, marker32]: [u8; 3], length: usize, out: &mut Vec<u8>) {
    if let Ok(length) = u8::try_from(length) {
        out.extend_from_slice(&[marker8, length]);
    } else {
        wide_header([marker16, marker32], length, out);
    }
}

/// A header with two or four bytes of length. A longer length is cut off, and `message` discards
/// what it stands in.
fn wide_header([marker16, marker32]: [u8; 2], length: usize, out: &mut Vec<u8>) {
    if let Ok(length) = u16::try_from(length) {
        out.push(marker16);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(marker32);
        out.extend_from_slice(&(length as u32).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = b"before".to_vec();
        message(value, &mut out).expect("less than 4 GiB");
        out.split_off(b"before".len())
    }

    #[test]
    fn every_value_takes_its_shortest_format_as_rmpv_writes_it() {
        let mut values = vec![
            Value::Nil,
            Value::from(true),
            Value::from(false),
            Value::F32(0.1),
            Value::F64(-0.1),
            Value::Map((0..16).map(|n| (Value::from(n), Value::Nil)).collect()),
            Value::Map(vec![(Value::from("foo"), Value::from("bar"))]),
        ];
        for edge in [0i64, 31, 32, 33, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 1 << 31] {
            values.extend([edge - 1, edge, edge + 1, -edge - 1, -edge, -edge + 1].map(Value::from));
        }
        values.extend([i64::MIN, i64::MAX, i64::from(u32::MAX) + 1].map(Value::from));
        values.push(Value::from(u64::MAX));
        for length in [0, 1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 255, 256, 65535, 65536] {
            values.push(Value::from("x".repeat(length)));
            values.push(Value::Binary(vec![7; length]));
            values.push(Value::Ext(-3, vec![7; length]));
            values.push(Value::Array(vec![Value::Nil; length]));
        }
        for value in values {
            let mut expected = Vec::new();
            rmpv::encode::write_value(&mut expected, &value).expect("writing to a Vec");
            assert_eq!(encoded(&value), expected, "{value:.60}");
        }
    }

    #[test]
    fn no_message_has_a_length_divisible_by_4096_if_a_header_can_be_wider() {
        let check = |value: Value, minimal: usize| {
            let out = encoded(&value);
            let mut shortest = Vec::new();
            encode(&value, &mut shortest);
            assert_eq!(shortest.len(), minimal, "the case is the one it claims to be");
            assert_ne!(out.len() % PYTHON_READ_BYTES, 0, "{minimal} bytes");
            assert_eq!(decode(&out), Ok(value), "{minimal} bytes");
        };
        let text = |length: usize| Value::from("x".repeat(length));
        let bytes = |length: usize| Value::Binary(vec![7; length]);
        check(text(4093), 4096);
        check(text(8189), 8192);
        check(bytes(4093), 4096);
        check(Value::Ext(1, vec![7; 4092]), 4096);
        check(Value::Array(vec![text(4092)]), 4096);
        check(Value::Map(vec![(Value::from(1), text(4091))]), 4096);
        check(Value::Array(vec![Value::Nil; 4093]), 4096);
        check(Value::Array(vec![Value::from(5); 69627]), 69632);
        check(Value::Array([vec![Value::Nil; 69626], vec![Value::from(-5)]].concat()), 69632);
        let mut entries = vec![(Value::Nil, Value::from(1)); 67581];
        entries[0].1 = Value::from(200);
        check(Value::Map(entries), 135_168);
    }

    #[test]
    fn a_message_without_a_header_to_widen_stays_as_it_is() {
        assert_eq!(encoded(&Value::from("x".repeat(69627))).len(), 69632);
        assert_eq!(encoded(&Value::Array(vec![Value::Nil; 69627])).len(), 69632);
    }
}
