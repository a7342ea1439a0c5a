//! The wire layer against rmpv: on random values and on random bytes both must say the same.

use proptest::prelude::*;
use rmpv::Value;

use super::{FrameFinder, Limits, Malformed, decode, encode};

const UNLIMITED: Limits = Limits { max_bytes: usize::MAX, max_depth: 1024, max_items: usize::MAX };

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

/// What rmpv makes of a message, with the same bytes if it is encoded again: NaN is not equal to
/// itself.
fn same(ours: &Value, theirs: &Value) -> bool {
    rmpv_bytes(ours) == rmpv_bytes(theirs)
}

/// The end of the first message and its value, as this crate sees them.
fn ours(bytes: &[u8]) -> Result<Option<(usize, Value)>, Malformed> {
    match FrameFinder::new().find(bytes, &UNLIMITED)? {
        Some(length) => Ok(Some((length, decode(&bytes[..length])?))),
        None => Ok(None),
    }
}

/// The same as rmpv sees them; `None` if it wants more bytes.
fn theirs(bytes: &[u8]) -> Option<(usize, Value)> {
    let mut rest = bytes;
    let value = rmpv::decode::read_value(&mut rest).ok()?;
    Some((bytes.len() - rest.len(), value))
}

fn check_agreement(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (ours(bytes), theirs(bytes)) {
        (Ok(Some((end, value))), Some((their_end, their_value))) => {
            prop_assert_eq!(end, their_end);
            prop_assert!(same(&value, &their_value), "{} {}", value, their_value);
        }
        (Ok(None), None) => {}
        // rmpv reads 0xc1 as nil, and keeps a str that is not UTF-8.
        (Err(Malformed::Reserved { offset }), _) => prop_assert_eq!(bytes[offset], 0xc1),
        (Err(Malformed::Text { .. }), Some((end, _))) => {
            let end_of_ours = FrameFinder::new().find(bytes, &UNLIMITED);
            prop_assert_eq!(end_of_ours, Ok(Some(end)));
        }
        (ours, theirs) => prop_assert!(false, "{:02x?}: {:?} {:?}", bytes, ours, theirs),
    }
    Ok(())
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
        let (end, decoded) = ours(&out).expect("well-formed").expect("complete");
        prop_assert_eq!(end, out.len());
        prop_assert!(same(&decoded, &value));
    }

    #[test]
    fn random_bytes_are_the_same_message_as_for_rmpv(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // A length beyond what is there is where rmpv allocates; neither gets that far.
        check_agreement(&bytes)?;
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
        check_agreement(&bytes)?;
        check_agreement(&bytes[..cut.index(bytes.len() + 1)])?;
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
