//! The encrypted message `{"arrpc.nonce": <bin of 24>, "arrpc.sealed": <bin: the packed message,
//! encrypted, and a tag of 16 bytes>}`, exactly these two entries. Opening it decodes nothing: it
//! walks headers and verifies; the body comes out as bytes only behind a valid tag.
//!
//! Keys: HKDF-SHA256 of the secret, without salt, 32 bytes for the info `arrpc encryption 1
//! request` and for `arrpc encryption 1 reply`. Cipher: XChaCha20-Poly1305 (the IETF form of
//! draft-irtf-cfrg-xchacha-03). Associated data: the same label; for a reply the nonce of its
//! request behind that. A nonce is random, that of a reply too: the request could be sent again by
//! somebody else, and then be answered with another text.

use super::cipher::{Cipher, Direction, NONCE_LENGTH, Nonce, TAG_LENGTH};
use super::encode::{self, TooLong};
use super::envelope::{has_two_keys, payload, take};
use super::header::{Header, Kind};

const NONCE_KEY: &[u8] = b"arrpc.nonce";
const SEALED_KEY: &[u8] = b"arrpc.sealed";

/// What a server that decrypts tells a peer whose message is not encrypted.
pub(crate) const NOT_ENCRYPTED: &str =
    "Message is not encrypted, set 'encrypt' and 'auth_secret' as on the server";

/// What a server that decrypts tells a peer whose message it cannot open.
pub(crate) const NOT_OPENED: &str =
    "Message cannot be decrypted, make sure 'auth_secret' is that of the server";

/// What a server with a secret tells a peer that encrypts if it does not.
pub(crate) const NOT_DECRYPTED: &str = "Message is encrypted but the server takes signed ones, unset 'encrypt' or set it on the server";

/// What a server without a secret tells a peer that encrypts.
pub(crate) const NO_SECRET_TO_DECRYPT: &str = "Message is encrypted but the server has no secret, \
    unset 'encrypt' or set it and 'auth_secret' on the server";

/// Appends `body`, one packed message, encrypted as a request. Its reply needs the nonce.
pub(crate) fn seal_request(
    body: &[u8],
    cipher: &Cipher,
    out: &mut Vec<u8>,
) -> Result<Nonce, TooLong> {
    let nonce = Nonce::random();
    let start = out.len();
    out.reserve(body.len() + 80);
    out.extend_from_slice(body);
    seal(cipher, Direction::Request, nonce, out, start)?;
    Ok(nonce)
}

/// The same with a nonce that is not random: for tests that need the same bytes each time.
#[cfg(test)]
pub(crate) fn seal_request_with(nonce: [u8; 24], body: &[u8], cipher: &Cipher) -> Vec<u8> {
    let mut out = body.to_vec();
    seal(cipher, Direction::Request, Nonce(nonce), &mut out, 0).expect("it is short");
    out
}

/// Encrypts `out[start..]`, one packed message, as the reply to the request with this nonce. Leaves
/// nothing there if it is too long for that.
pub(crate) fn seal_reply(
    cipher: &Cipher,
    request: Nonce,
    out: &mut Vec<u8>,
    start: usize,
) -> Result<(), TooLong> {
    seal(cipher, Direction::Reply(request), Nonce::random(), out, start)
}

/// Opens an encrypted request, where it is. Returns its nonce and the packed message.
pub(crate) fn open_request<'a>(
    message: &'a mut [u8],
    cipher: &Cipher,
) -> Option<(Nonce, &'a [u8])> {
    let (nonce, sealed) = parts(message)?;
    Some((nonce, cipher.decrypt(Direction::Request, nonce, sealed)?))
}

/// Opens the encrypted reply to the request with this nonce, where it is. Returns the packed
/// message.
pub(crate) fn open_reply<'a>(
    message: &'a mut [u8],
    cipher: &Cipher,
    request: Nonce,
) -> Option<&'a [u8]> {
    let (nonce, sealed) = parts(message)?;
    cipher.decrypt(Direction::Reply(request), nonce, sealed)
}

/// Whether `message` is an encrypted one, whoever made it.
#[inline]
pub(crate) fn is_sealed(message: &[u8]) -> bool {
    has_two_keys(message, [NONCE_KEY, SEALED_KEY])
}

fn seal(
    cipher: &Cipher,
    direction: Direction,
    nonce: Nonce,
    out: &mut Vec<u8>,
    start: usize,
) -> Result<(), TooLong> {
    let body = out.get_mut(start..).unwrap_or_default();
    let length = body.len() + TAG_LENGTH;
    if u32::try_from(length).is_err() {
        out.truncate(start);
        return Err(TooLong);
    }
    let tag = cipher.encrypt(direction, nonce, body);
    // The header is written behind the body and then brought before it: so it has its length
    // without an allocation.
    let end = out.len();
    out.extend_from_slice(b"\x82\xabarrpc.nonce\xc4\x18");
    out.extend_from_slice(&nonce.0);
    out.extend_from_slice(b"\xacarrpc.sealed");
    encode::bin_header(length, out);
    let header = out.len() - end;
    out.get_mut(start..).unwrap_or_default().rotate_right(header);
    out.extend_from_slice(&tag);
    encode::avoid_python_hang(out, start);
    Ok(())
}

/// The nonce, and the encrypted body with its tag.
fn parts(message: &mut [u8]) -> Option<(Nonce, &mut [u8])> {
    let root = Header::read(message).filter(|root| root.kind == Kind::Map && root.children == 4)?;
    let mut rest = message.get(root.size..)?;
    let (mut nonce, mut sealed) = (None, None);
    for _ in 0..2 {
        let key = payload(take(&mut rest)?, Kind::Str)?;
        let value = payload(take(&mut rest)?, Kind::Bin)?;
        match key {
            NONCE_KEY => nonce = Some(<[u8; NONCE_LENGTH]>::try_from(value).ok()?),
            SEALED_KEY => {
                let end = message.len() - rest.len();
                sealed = Some(end - value.len()..end);
            }
            _ => return None,
        }
    }
    if !rest.is_empty() {
        return None;
    }
    Some((Nonce(nonce?), message.get_mut(sealed?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Secret;

    const BODY: &[u8] = b"\x81\xa3foo\xa3bar";
    const NONCE: Nonce = Nonce(*b"012345678901234567890123");

    fn cipher() -> Cipher {
        Cipher::new(&Secret::new(b"secret"))
    }

    fn sealed(direction: Direction) -> Vec<u8> {
        let mut out = BODY.to_vec();
        seal(&cipher(), direction, NONCE, &mut out, 0).expect("it is short");
        out
    }

    fn opened(mut message: Vec<u8>) -> Option<Vec<u8>> {
        open_request(&mut message, &cipher()).map(|(_, body)| body.to_vec())
    }

    #[test]
    fn a_sealed_message_is_what_another_implementation_makes() {
        // Made with pycryptodome; the reply "got it" has the nonce `abc..x`.
        let request =
            b"\x82\xabarrpc.nonce\xc4\x18012345678901234567890123\xacarrpc.sealed\xc4\x19\
            \x15\x33\xc6\xff\x7c\x7b\x1a\x85\x9b\x03\x8d\x44\xc9\x2c\x65\x04\xb0\x7d\x06\xd3\
            \xe7\xae\x25\x27\xaa";
        let reply = b"\x82\xabarrpc.nonce\xc4\x18abcdefghijklmnopqrstuvwx\xacarrpc.sealed\xc4\x17\
            \x90\xc5\xe9\x3b\xbf\x13\xd2\xa7\xf7\x0a\x87\xf1\x3e\xc9\xd0\x44\xb8\x7d\x8a\x6e\
            \x21\x78\xaa";
        assert_eq!(seal_request_with(NONCE.0, BODY, &cipher()), request);
        assert_eq!(opened(request.to_vec()).as_deref(), Some(BODY));
        let opened = open_reply(&mut reply.to_vec(), &cipher(), NONCE).map(<[u8]>::to_vec);
        assert_eq!(opened.as_deref(), Some(b"\xa6got it".as_slice()));
    }

    #[test]
    fn any_changed_bit_closes_the_message() {
        let sealed = sealed(Direction::Request);
        assert_eq!(opened(sealed.clone()).as_deref(), Some(BODY));
        for bit in 0..sealed.len() * 8 {
            let mut message = sealed.clone();
            message[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(opened(message), None, "bit {bit}");
        }
        assert_eq!(open_request(&mut sealed.clone(), &Cipher::new(&Secret::new(b"Secret"))), None);
    }

    #[test]
    fn a_reply_opens_for_its_request_alone_and_never_as_a_request() {
        let mut reply = sealed(Direction::Reply(NONCE));
        assert_eq!(open_reply(&mut reply.clone(), &cipher(), Nonce([1; 24])), None);
        assert_eq!(open_request(&mut reply.clone(), &cipher()), None);
        assert_eq!(open_reply(&mut reply, &cipher(), NONCE), Some(BODY));
        assert_eq!(open_reply(&mut sealed(Direction::Request), &cipher(), NONCE), None);
    }

    #[test]
    fn headers_may_be_wide_and_the_entries_in_any_order() {
        let message = sealed(Direction::Request);
        let (nonce, sealed) = message[1..].split_at(38);
        let check = |pieces: &[&[u8]]| assert_eq!(opened(pieces.concat()).as_deref(), Some(BODY));
        check(&[b"\x82", sealed, nonce]);
        check(&[b"\xdf\0\0\0\x02\xd9\x0b", &nonce[1..], sealed]);
        check(&[b"\xde\0\x02", nonce, &sealed[..13], b"\xc6\0\0\0\x19", &sealed[15..]]);
        check(&[b"\x82", &nonce[..12], b"\xc5\0\x18", &nonce[14..], sealed]);
    }

    #[test]
    fn other_keys_and_other_types_are_refused() {
        let message = sealed(Direction::Request);
        let (nonce, sealed) = message[1..].split_at(38);
        let check = |pieces: &[&[u8]]| assert_eq!(opened(pieces.concat()), None, "{pieces:02x?}");
        check(&[b"\x83", nonce, sealed, b"\x01\x02"]);
        check(&[b"\x83", nonce, sealed, sealed]);
        check(&[b"\x82", nonce, nonce]);
        check(&[b"\x82", sealed, sealed]);
        check(&[b"\x81", sealed]);
        check(&[b"\x84", nonce, sealed, nonce, sealed]);
        check(&[b"\x82", nonce, &sealed[..13], b"\xd9\x19", &sealed[15..]]);
        check(&[b"\x82", &nonce[..12], b"\xc4\x17", &nonce[14..37], sealed]);
        check(&[b"\x82", nonce, &sealed[..13], b"\xc4\x0f", &sealed[15..30]]);
        check(&[&message, b"\x01"]);
        check(&[BODY]);
        check(&[]);
    }

    #[test]
    fn only_a_map_with_both_keys_is_an_encrypted_message() {
        let message = sealed(Direction::Request);
        let (nonce, sealed) = message[1..].split_at(38);
        assert!(is_sealed(&message));
        assert!(is_sealed(&[b"\x82", sealed, nonce].concat()));
        assert!(!is_sealed(&[b"\x82", sealed, sealed].concat()));
        assert!(!is_sealed(&[b"\x81", sealed].concat()));
        assert!(!is_sealed(BODY));
    }

    #[test]
    fn no_encrypted_message_has_a_length_divisible_by_4096() {
        for length in 3900..4096 {
            let body = vec![7; length];
            let mut out = b"before".to_vec();
            seal_request(&body, &cipher(), &mut out).expect("it is short");
            let message = out.split_off(6);
            assert!(!message.len().is_multiple_of(4096));
            assert_eq!(opened(message), Some(body));
        }
    }
}
