//! The frame finder gives the same for messages that arrive whole and in pieces, keeps to its
//! limits and no less, and agrees with the decoder on the end.

use std::mem::size_of;

use rmpv::Value;

use super::Input;
use crate::wire::agreement::{UNLIMITED, read};
use crate::wire::{FrameFinder, Limits, Malformed, decode};

/// The most bytes that are put behind a cut message to complete it.
const MAX_COMPLETED_BYTES: usize = 1 << 16;

/// The input is `max_bytes` (2 bytes, all ones for no limit), `max_items` (the same), `max_depth`
/// (1), four sizes of the pieces (1 each), then messages, one behind the other.
pub fn frame(data: &[u8]) {
    let mut input = Input(data);
    let mut number = || match input.short() {
        u16::MAX => usize::MAX,
        number => usize::from(number).max(1),
    };
    let (max_bytes, max_items) = (number(), number());
    let limits = Limits { max_bytes, max_items, max_depth: input.byte().into() };
    let sizes = [(); 4].map(|()| usize::from(input.byte()).max(1));
    let stream = input.rest();

    let (ends, last) = find_each(stream, &limits);
    for sizes in [[stream.len().max(1); 4], sizes] {
        let found = find_all(stream, &limits, sizes);
        assert_eq!(found, (ends.clone(), last), "in pieces of {sizes:?}, and alone");
    }
    let mut start = 0;
    for (end, items) in ends {
        check_decoder(&stream[start..end], items);
        start = end;
    }
    check_limits(&stream[start..], &limits);
    check_limits(stream, &limits);
}

/// The ends of messages and the values in each, and what is behind the last: the bytes needed at
/// the least, or a fault.
type Found = (Vec<(usize, usize)>, Result<usize, Malformed>);

/// Finds all messages in `stream`, each with a finder of its own.
fn find_each(stream: &[u8], limits: &Limits) -> Found {
    let (mut ends, mut start) = (Vec::new(), 0);
    loop {
        let mut finder = FrameFinder::new();
        match finder.find(&stream[start..], limits) {
            Ok(Some(length)) => {
                start += length;
                ends.push((start, finder.items()));
            }
            Ok(None) => return (ends, Ok(finder.at_least())),
            Err(malformed) => return (ends, Err(malformed)),
        }
    }
}

/// Finds the same as a connection does that receives `stream` in pieces: with one finder.
fn find_all(stream: &[u8], limits: &Limits, sizes: [usize; 4]) -> Found {
    let mut sizes = sizes.iter().cycle();
    let mut finder = FrameFinder::new();
    let (mut ends, mut start, mut received, mut at_least) = (Vec::new(), 0, 0, 1);
    loop {
        match finder.find(&stream[start..received], limits) {
            Ok(Some(length)) => {
                assert!(at_least <= length && length <= limits.max_bytes);
                start += length;
                ends.push((start, finder.items()));
                at_least = 1;
            }
            Ok(None) => {
                assert!((at_least..=limits.max_bytes).contains(&finder.at_least()));
                at_least = finder.at_least();
                if received == stream.len() {
                    return (ends, Ok(at_least));
                }
                let size = sizes.next().unwrap_or(&1);
                received = stream.len().min(received + size);
            }
            Err(malformed) => return (ends, Err(malformed)),
        }
    }
}

/// The decoder takes all of a message that was found, no byte less, and no more memory than the
/// values that were counted.
fn check_decoder(message: &[u8], counted: usize) {
    let Some((_, cut)) = message.split_last() else { panic!("a message without a byte") };
    match decode(message) {
        Ok(value) => {
            let cut = decode(cut);
            assert!(matches!(cut, Err(Malformed::Length { .. })), "without its last byte: {cut:?}");
            assert_eq!(items(&value), counted, "the values");
            let bound = counted * size_of::<Value>() + message.len();
            assert!(heap_bytes(&value) <= bound, "{} bytes, {bound}", heap_bytes(&value));
        }
        Err(malformed) => assert!(matches!(malformed, Malformed::Text { .. }), "{malformed}"),
    }
}

/// The first message passes with its limits if it keeps them, and only then. What is cut off must
/// be refused no sooner than the smallest message that it may become.
fn check_limits(stream: &[u8], limits: &Limits) {
    let found = FrameFinder::new().find(stream, limits);
    let Some(message) = complete(stream) else { return };
    let (length, value) = read(&message, usize::MAX).expect("a complete message");
    let fits = length <= limits.max_bytes
        && depth(&value) <= limits.max_depth
        && items(&value) <= limits.max_items;
    match FrameFinder::new().find(&message, limits) {
        Ok(end) => {
            assert!(fits, "{length} bytes passed {limits:?}");
            assert_eq!(end, Some(length));
            assert!(found == Ok(None) || found == Ok(end), "cut: {found:?}");
        }
        Err(malformed) => {
            assert!(found == Ok(None) || found == Err(malformed), "cut: {found:?}");
            assert!(match malformed {
                Malformed::TooLong { limit } => limit == limits.max_bytes && length > limit,
                Malformed::TooManyItems { limit } =>
                    limit == limits.max_items && items(&value) > limit,
                Malformed::TooDeep { limit } => limit == limits.max_depth && depth(&value) > limit,
                _ => false,
            });
        }
    }
}

/// The first message of `stream`, with zeros for what it lacks. `None` if it lacks much, or nobody
/// knows what.
fn complete(stream: &[u8]) -> Option<Vec<u8>> {
    let mut message = stream.to_vec();
    let mut finder = FrameFinder::new();
    loop {
        match finder.find(&message, &UNLIMITED) {
            Ok(Some(end)) => {
                message.truncate(end);
                return Some(message);
            }
            Ok(None) => {
                let length = finder.at_least().max(message.len() + 1);
                if length > MAX_COMPLETED_BYTES {
                    return None;
                }
                message.resize(length, 0);
            }
            Err(_) => return None,
        }
    }
}

/// The values in a value, itself included.
fn items(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(items).sum(),
        Value::Map(entries) => entries.iter().map(|(key, value)| items(key) + items(value)).sum(),
        _ => 0,
    }
}

/// The containers inside each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => {
            let deepest = entries.iter().map(|(key, value)| depth(key).max(depth(value))).max();
            1 + deepest.unwrap_or(0)
        }
        _ => 0,
    }
}

/// What a value has allocated, as far as it tells.
fn heap_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.as_bytes().len(),
        Value::Binary(bytes) | Value::Ext(_, bytes) => bytes.capacity(),
        Value::Array(values) => {
            let inside: usize = values.iter().map(heap_bytes).sum();
            values.capacity() * size_of::<Value>() + inside
        }
        Value::Map(entries) => {
            let entry = |(key, value): &(Value, Value)| heap_bytes(key) + heap_bytes(value);
            let inside: usize = entries.iter().map(entry).sum();
            entries.capacity() * size_of::<(Value, Value)>() + inside
        }
        _ => 0,
    }
}
