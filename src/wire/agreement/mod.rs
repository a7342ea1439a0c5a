//! The wire layer against rmpv: of any bytes both must make the same. The check is here; the
//! inputs come from property tests, from a long run with seeds, and from a fuzzer.

use std::io::ErrorKind;

use rmpv::Value;
use rmpv::decode::Error;

use super::header::Header;
use super::{FrameFinder, Limits, MAX_MAX_DEPTH, Malformed, decode, encode};

#[cfg(test)]
mod inputs;
#[cfg(test)]
mod long_run;
#[cfg(test)]
pub(crate) use {inputs::mutate, long_run::number};

/// The deepest nesting that may be configured, and no other limit.
pub(crate) const UNLIMITED: Limits =
    Limits { max_bytes: usize::MAX, max_depth: MAX_MAX_DEPTH, max_items: usize::MAX };

/// rmpv counts two for each container around a value, and up to three for the value.
const THEIR_MAX_DEPTH: usize = 2 * MAX_MAX_DEPTH + 3;

/// What both say of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// A value.
    Value,
    /// More bytes are needed.
    Incomplete,
    /// The byte 0xc1, which rmpv reads as nil.
    Reserved,
    /// A str that is not UTF-8, which rmpv keeps.
    Text,
    /// Nested too deep.
    TooDeep,
}

/// The check, with the buffers that it uses again.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    patched: Vec<u8>,
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

impl Agreement {
    /// Checks the messages that stand in `bytes` one behind the other, up to the first that has no
    /// known end, and returns the outcome of the last.
    ///
    /// # Panics
    ///
    /// Panics where the wire layer and rmpv disagree.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) -> Outcome {
        loop {
            let (outcome, end) = self.check_first(bytes);
            match end.and_then(|end| bytes.get(end..)) {
                None | Some([]) => return outcome,
                Some(rest) => bytes = rest,
            }
        }
    }

    fn check_first(&mut self, bytes: &[u8]) -> (Outcome, Option<usize>) {
        let found = find(bytes);
        let theirs = read(bytes, THEIR_MAX_DEPTH);
        if !matches!(found, Err(Malformed::Reserved { .. })) {
            return self.compare(bytes, found, theirs);
        }
        // To rmpv it is nil. With nil in its place the two must agree again.
        let mut patched = std::mem::take(&mut self.patched);
        patched.clear();
        patched.extend_from_slice(bytes);
        let mut patched_found = found;
        for _ in 0..16 {
            let Err(Malformed::Reserved { offset }) = patched_found else {
                self.compare(&patched, patched_found, theirs);
                break;
            };
            assert_eq!(patched[offset], 0xc1);
            patched[offset] = 0xc0;
            patched_found = find(&patched);
        }
        self.patched = patched;
        (Outcome::Reserved, None)
    }

    fn compare(
        &mut self,
        bytes: &[u8],
        found: Result<Option<usize>, Malformed>,
        theirs: Result<(usize, Value), Error>,
    ) -> (Outcome, Option<usize>) {
        match (found, theirs) {
            (Ok(Some(end)), Ok((their_end, their_value))) => {
                assert_eq!(end, their_end, "the end of the message");
                match decode(&bytes[..end]) {
                    Ok(value) => {
                        assert!(same(&value, &their_value), "{value} {their_value}");
                        self.check_encoded(&value);
                        (Outcome::Value, Some(end))
                    }
                    Err(Malformed::Text { offset }) => {
                        assert!(!has_text(&their_value), "rmpv found no fault in a str");
                        assert!(!is_text(&bytes[offset..end]), "the str at {offset} is UTF-8");
                        (Outcome::Text, Some(end))
                    }
                    Err(malformed) => panic!("found but not decoded: {malformed}"),
                }
            }
            (Ok(None), Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "rmpv: {error}");
                (Outcome::Incomplete, None)
            }
            (Err(Malformed::TooDeep { limit: MAX_MAX_DEPTH }), _) => {
                let shallow = read(bytes, 2 * MAX_MAX_DEPTH + 1);
                assert!(matches!(shallow, Err(Error::DepthLimitExceeded)), "{shallow:?}");
                (Outcome::TooDeep, None)
            }
            (found, theirs) => panic!("{found:?}, and rmpv {theirs:?}"),
        }
    }

    /// The value is encoded as rmpv does it, but for the length that would hang a Python peer.
    fn check_encoded(&mut self, value: &Value) {
        let Self { ours, theirs, .. } = self;
        ours.clear();
        theirs.clear();
        encode::message(value, ours).expect("less than 4 GiB");
        rmpv::encode::write_value(theirs, value).expect("writing to a Vec");
        if !theirs.len().is_multiple_of(4096) {
            assert_eq!(ours, theirs, "the encoded value");
        } else if ours != theirs {
            assert!(!ours.len().is_multiple_of(4096), "widened in vain");
            assert_eq!(find(ours), Ok(Some(ours.len())), "the end of the widened message");
            let (_, widened) = read(ours, THEIR_MAX_DEPTH).expect("a widened message");
            assert!(same(&widened, value), "{widened} {value}");
        } else {
            assert!(theirs.len() >= 1 << 16, "a shorter message has a header to widen");
        }
    }
}

/// Finds the first message, fed whole and in two pieces.
fn find(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let whole = FrameFinder::new().find(bytes, &UNLIMITED);
    let mut finder = FrameFinder::new();
    let fed = match finder.find(&bytes[..bytes.len() / 2], &UNLIMITED) {
        Ok(None) => finder.find(bytes, &UNLIMITED),
        found => found,
    };
    assert_eq!(whole, fed, "whole and in two pieces");
    whole
}

/// Reads the first message as rmpv does, and where it ends.
pub(crate) fn read(bytes: &[u8], max_depth: usize) -> Result<(usize, Value), Error> {
    let mut rest = bytes;
    let value = rmpv::decode::read_value_with_max_depth(&mut rest, max_depth)?;
    Ok((bytes.len() - rest.len(), value))
}

/// Whether two values are the same to the bit: NaN is equal to itself, and 0.0 is not to -0.0.
pub(crate) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::F32(one), Value::F32(other)) => one.to_bits() == other.to_bits(),
        (Value::F64(one), Value::F64(other)) => one.to_bits() == other.to_bits(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            let entries = || one.iter().zip(other);
            one.len() == other.len()
                && entries().all(|(one, other)| same(&one.0, &other.0) && same(&one.1, &other.1))
        }
        (one, other) => one == other,
    }
}

/// Whether every str in the value is UTF-8.
fn has_text(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_str(),
        Value::Array(items) => items.iter().all(has_text),
        Value::Map(entries) => entries.iter().all(|(key, value)| has_text(key) && has_text(value)),
        _ => true,
    }
}

/// Whether the bytes of the str at the start of `bytes` are UTF-8.
fn is_text(bytes: &[u8]) -> bool {
    let header = Header::read(bytes).expect("a str");
    let end = header.size + header.payload as usize;
    std::str::from_utf8(&bytes[header.size..end]).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-200i64..70_000).prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Value::from),
            (any::<i8>(), prop::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(kind, data)| Value::Ext(kind, data)),
        ];
        leaf.prop_recursive(6, 64, 20, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
                prop::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
            ]
        })
    }

    fn rmpv_bytes(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        rmpv::encode::write_value(&mut out, value).expect("writing to a Vec");
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_value_is_encoded_as_rmpv_does_and_decoded_to_itself(value in values()) {
            let mut out = Vec::new();
            encode::message(&value, &mut out).expect("less than 4 GiB");
            let expected = rmpv_bytes(&value);
            if expected.len().is_multiple_of(4096) {
                prop_assert!(!out.len().is_multiple_of(4096));
            } else {
                prop_assert_eq!(&out, &expected);
            }
            prop_assert_eq!(find(&out), Ok(Some(out.len())));
            prop_assert!(same(&decode(&out).expect("well-formed"), &value));
        }

        #[test]
        fn random_bytes_are_the_same_message_as_for_rmpv(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            // A length beyond what is there is where rmpv allocates; neither gets that far.
            Agreement::default().check(&bytes);
        }

        #[test]
        fn changed_and_cut_messages_are_the_same_as_for_rmpv(
            value in values(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = rmpv_bytes(&value);
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            Agreement::default().check(&bytes);
            Agreement::default().check(&bytes[..cut.index(bytes.len() + 1)]);
        }

        #[test]
        fn a_message_is_found_the_same_whole_and_in_random_pieces(
            value in values(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let bytes = rmpv_bytes(&value);
            let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            ends.sort_unstable();
            let mut finder = FrameFinder::new();
            for end in ends {
                prop_assert_eq!(finder.find(&bytes[..end], &UNLIMITED), Ok(None));
                prop_assert!(finder.at_least() <= bytes.len());
            }
            prop_assert_eq!(finder.find(&bytes, &UNLIMITED), Ok(Some(bytes.len())));
        }
    }
}
