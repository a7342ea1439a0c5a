//! The signed envelope `{"arrpc.sign": <hex HMAC-SHA256>, "data": <bin: the packed message>}`.
//! Opening it decodes nothing: it walks headers, compares two keys and verifies; the body comes
//! out as bytes only behind a valid signature.

use super::encode;
use super::frame::{FrameFinder, Limits};
use super::header::{Header, Kind};
use super::secret::Secret;

const SIGN_KEY: &[u8] = b"arrpc.sign";
const DATA_KEY: &[u8] = b"data";

/// What a server with a secret tells a peer whose message has no valid signature: arrpc's text.
pub(crate) const INVALID_SIGNATURE: &str =
    "Invalid or missing message signature, make sure 'auth_secret' is set/correct";

/// What a server without a secret tells a peer that signs: it could not verify the message.
pub(crate) const NO_SECRET: &str =
    "Message is signed but the server has no secret, unset 'auth_secret' or set it on the server";

/// Appends the envelope of `body`, one packed message, signed with `secret`.
pub(crate) fn seal(body: &[u8], secret: &Secret, out: &mut Vec<u8>) {
    let start = out.len();
    out.reserve(body.len() + 96);
    out.extend_from_slice(b"\x82\xaaarrpc.sign\xd9\x40");
    out.extend_from_slice(&secret.sign(body));
    out.extend_from_slice(b"\xa4data");
    encode::bin_header(body.len(), out);
    out.extend_from_slice(body);
    encode::avoid_python_hang(out, start);
}

/// Opens `message` if it is an envelope with a valid signature, and returns the packed message
/// inside. Anything else, duplicate keys included, gives `None`: the peer learns no more than that.
pub(crate) fn open<'a>(message: &'a [u8], secret: &Secret) -> Option<&'a [u8]> {
    let root = Header::read(message).filter(|header| header.kind == Kind::Map)?;
    let mut rest = message.get(root.size..)?;
    let (mut signature, mut data) = (None, None);
    for _ in 0..root.children / 2 {
        let key = take(&mut rest)?;
        let value = take(&mut rest)?;
        let slot = match payload(key, Kind::Str) {
            Some(SIGN_KEY) => &mut signature,
            Some(DATA_KEY) => &mut data,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return None;
        }
    }
    let signature = payload(signature?, Kind::Str)?;
    let data = payload(data?, Kind::Bin)?;
    secret.verify(data, signature).then_some(data)
}

/// Whether `message` is a signed envelope as arrpc makes them, with its two entries and no other,
/// whoever signed it.
#[inline]
pub(crate) fn is_envelope(message: &[u8]) -> bool {
    has_two_keys(message, [SIGN_KEY, DATA_KEY])
}

/// Whether `message` is a map with these two keys, in any order, and no other.
#[inline]
pub(super) fn has_two_keys(message: &[u8], keys: [&[u8]; 2]) -> bool {
    // A map of two entries, in one of its three forms.
    match message {
        [0x82, rest @ ..] | [0xde, 0, 2, rest @ ..] | [0xdf, 0, 0, 0, 2, rest @ ..] => {
            has_both_keys(rest, keys)
        }
        _ => false,
    }
}

fn has_both_keys(mut rest: &[u8], [first, second]: [&[u8]; 2]) -> bool {
    let (mut has_first, mut has_second) = (false, false);
    for _ in 0..2 {
        // Most maps of two entries are other ones, and seen to be by the first key's header.
        let may_be = Header::read(rest).is_some_and(|header| {
            [first, second].iter().any(|key| key.len() as u64 == header.payload)
        });
        if !may_be {
            return false;
        }
        match take(&mut rest).and_then(|key| payload(key, Kind::Str)) {
            Some(key) if key == first => has_first = true,
            Some(key) if key == second => has_second = true,
            _ => return false, // its value is none of our business
        }
        take(&mut rest);
    }
    has_first && has_second
}

/// Splits the next whole value off `rest`.
pub(super) fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    // The frame finder has accepted the message as a whole, with the limits that apply.
    let unlimited = Limits { max_bytes: rest.len(), max_depth: usize::MAX, max_items: usize::MAX };
    let length = FrameFinder::new().find(rest, &unlimited).ok()??;
    let (value, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(value)
}

/// The payload of `value` if it is of that kind.
pub(super) fn payload(value: &[u8], kind: Kind) -> Option<&[u8]> {
    let header = Header::read(value).filter(|header| header.kind == kind)?;
    value.get(header.size..)
}

#[cfg(test)]
mod tests {
    use rmpv::Value;

    use super::*;

    /// Made with the Python package: `sign_and_wrap_msg(packb({"foo": "bar"}), "secret")`.
    const FROM_PYTHON: &[u8] = b"\x82\xaaarrpc.sign\xd9@acec7537e84fb34cdaadebb5afe4abe573e095410e4efb0eae2ea7097204cd7f\xa4data\xc4\x09\x81\xa3foo\xa3bar";
    const BODY: &[u8] = b"\x81\xa3foo\xa3bar";

    fn secret() -> Secret {
        Secret::new(b"secret")
    }

    #[test]
    fn a_sealed_message_is_what_python_arrpc_sends() {
        let mut out = Vec::new();
        seal(BODY, &secret(), &mut out);
        assert_eq!(out, FROM_PYTHON);
        assert_eq!(open(FROM_PYTHON, &secret()), Some(BODY));
    }

    #[test]
    fn any_changed_bit_closes_the_envelope() {
        for bit in 0..FROM_PYTHON.len() * 8 {
            let mut message = FROM_PYTHON.to_vec();
            message[bit / 8] ^= 1 << (bit % 8);
            // A changed length byte may leave more or less of the body; never another body.
            assert_eq!(open(&message, &secret()), None, "bit {bit}");
        }
        assert_eq!(open(FROM_PYTHON, &Secret::new(b"Secret")), None);
    }

    #[test]
    fn headers_may_be_wide_keys_in_any_order_and_extra_keys_are_ignored() {
        let sign = &FROM_PYTHON[1..78];
        let data = &FROM_PYTHON[78..];
        let open = |pieces: &[&[u8]]| open(&pieces.concat(), &secret()).map(<[u8]>::to_vec);
        assert_eq!(open(&[b"\x82", data, sign]).as_deref(), Some(BODY));
        assert_eq!(open(&[b"\xdf\0\0\0\x03\x01\x91\x02", sign, data]).as_deref(), Some(BODY));
        let wide_data = &[b"\xdb\0\0\0\x04data\xc6\0\0\0\x09", BODY].concat();
        assert_eq!(open(&[b"\x82", sign, wide_data]).as_deref(), Some(BODY));
    }

    #[test]
    fn duplicate_keys_missing_keys_and_other_types_are_refused() {
        let sign = &FROM_PYTHON[1..78];
        let data = &FROM_PYTHON[78..];
        let check = |pieces: &[&[u8]]| {
            assert_eq!(open(&pieces.concat(), &secret()), None, "{pieces:02x?}");
        };
        check(&[b"\x83", sign, sign, data]);
        check(&[b"\x83", sign, data, data]);
        check(&[b"\x83", data, sign, b"\xd9\x04data\xc4\x00"]);
        check(&[b"\x81", sign]);
        check(&[b"\x81", data]);
        check(&[b"\x80"]);
        check(&[BODY]);
        check(&[b"\x07"]);
        check(&[b"\x82", sign, b"\xa4data\xa9", BODY]);
        check(&[b"\x82", &sign[..11], b"\xc4\x40", &sign[13..], data]);
        check(&[b"\x82", &sign[..13], &sign[13..].to_ascii_uppercase(), data]);
    }

    #[test]
    fn only_a_map_with_both_keys_is_an_envelope() {
        let packed = |value: &Value| {
            let mut message = Vec::new();
            encode::message(value, &mut message).expect("it is short");
            message
        };
        let map = |keys: &[&str]| {
            let entries =
                keys.iter().map(|&key| (Value::from(key), Value::Array(vec![Value::Nil])));
            packed(&Value::Map(entries.collect()))
        };
        assert!(is_envelope(&map(&["arrpc.sign", "data"])));
        assert!(is_envelope(&map(&["data", "arrpc.sign"])));
        assert!(!is_envelope(&map(&["data", "x", "arrpc.sign"])));
        assert!(!is_envelope(&map(&["data", "data"])));
        assert!(!is_envelope(&map(&["arrpc.sign"])));
        assert!(!is_envelope(&map(&["data", "foo"])));
        assert!(!is_envelope(&packed(&Value::from("arrpc.sign"))));
        assert!(!is_envelope(b""));
        assert!(!is_envelope(b"\x82\xa4data\x01\xd9\x04data\x02"));
        assert!(is_envelope(b"\xde\x00\x02\xd9\x04data\x01\xaaarrpc.sign\x02"));
    }
}
