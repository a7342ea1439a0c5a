//! An envelope, or an encrypted message, opens to the bytes that were put in, whatever they are, or
//! not at all.

use hmac::{Hmac, KeyInit, Mac};
use rmpv::Value;
use sha2::Sha256;

use super::Input;
use crate::wire::agreement::{UNLIMITED, read};
use crate::wire::cipher::Cipher;
use crate::wire::envelope::{is_envelope, open, seal};
use crate::wire::sealed::{is_sealed, open_reply, open_request, seal_reply, seal_request};
use crate::wire::{FrameFinder, Secret};

const SECRET: &[u8] = b"secret";

/// The input is a number of changes (1 byte, modulo 8), the changes (where, 2 bytes; how, 1; a
/// byte), and a message, which is opened as it is, and sealed whatever it holds.
pub fn envelope(data: &[u8]) {
    let mut input = Input(data);
    let changes: Vec<_> = (0..input.byte() % 8)
        .map(|_| Change { at: input.short().into(), how: input.byte(), byte: input.byte() })
        .collect();
    let body = input.rest();
    let secret = Secret::new(SECRET);

    check_open(body, &secret);

    let mut sealed = Vec::new();
    seal(body, &secret, &mut sealed);
    assert!(!sealed.len().is_multiple_of(4096), "it would hang a Python peer");
    assert_eq!(FrameFinder::new().find(&sealed, &UNLIMITED), Ok(Some(sealed.len())));
    // G7: the body may be anything, for nothing looks into it.
    assert_eq!(open(&sealed, &secret), Some(body));
    assert_eq!(open(&sealed, &Secret::new(b"Secret")), None);
    assert!(is_envelope(&sealed));

    // No byte of what seal() writes may be another one.
    if let Some(change) = changes.first() {
        let (at, byte) = (change.at % sealed.len(), change.byte.max(1));
        sealed[at] ^= byte;
        assert_eq!(open(&sealed, &secret), None, "{byte:02x} at {at}");
        sealed[at] ^= byte;
    }
    // An envelope that somebody else writes may have another form, and never another body.
    for change in &changes {
        change.apply(&mut sealed);
    }
    if let Some(opened) = open(&sealed, &secret) {
        assert_eq!(opened, body);
    }
    check_open(&sealed, &secret);
    encrypted(body, &changes, &secret);
}

/// The same for encrypted messages. Nobody else can make one, so there is nothing to compare with.
fn encrypted(body: &[u8], changes: &[Change], secret: &Secret) {
    let cipher = Cipher::new(secret);
    let mut message = Vec::new();
    let nonce = seal_request(body, &cipher, &mut message).expect("it is short");
    let mut reply = body.to_vec();
    seal_reply(&cipher, nonce, &mut reply, 0).expect("it is short");
    assert_eq!(open_request(&mut body.to_vec(), &cipher), None);
    assert_eq!(open_reply(&mut body.to_vec(), &cipher, nonce), None);
    for sealed in [&message, &reply] {
        assert!(is_sealed(sealed) && !sealed.len().is_multiple_of(4096));
        assert_eq!(FrameFinder::new().find(sealed, &UNLIMITED), Ok(Some(sealed.len())));
    }
    assert_eq!(open_request(&mut message.clone(), &cipher), Some((nonce, body)));
    assert_eq!(open_reply(&mut reply.clone(), &cipher, nonce), Some(body));
    assert_eq!(open_reply(&mut message.clone(), &cipher, nonce), None, "a reflected request");
    assert_eq!(open_request(&mut reply.clone(), &cipher), None);
    let other = Cipher::new(&Secret::new(b"Secret"));
    assert_eq!(open_request(&mut message.clone(), &other), None);
    let another = seal_request(body, &cipher, &mut Vec::new()).expect("it is short");
    assert_eq!(open_reply(&mut reply.clone(), &cipher, another), None, "of another request");

    if let Some(change) = changes.first() {
        let (at, byte) = (change.at % reply.len(), change.byte.max(1));
        reply[at] ^= byte;
        assert_eq!(open_reply(&mut reply, &cipher, nonce), None, "{byte:02x} at {at}");
    }
    for change in changes {
        change.apply(&mut message);
    }
    if let Some(opened) = open_request(&mut message, &cipher) {
        assert_eq!(opened, (nonce, body));
    }
}

struct Change {
    at: usize,
    how: u8,
    byte: u8,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = self.at % (bytes.len() + 1);
        let tail = &mut bytes[at..];
        match self.how % 4 {
            0 if let Some(old) = tail.first_mut() => *old = self.byte,
            1 if !tail.is_empty() => drop(bytes.remove(at)),
            2 if !tail.is_empty() => tail.rotate_left(usize::from(self.byte) % tail.len()),
            _ => bytes.insert(at, self.byte),
        }
    }
}

/// Opens a message, and the same with rmpv and an HMAC of its own.
fn check_open(message: &[u8], secret: &Secret) {
    let opened = open(message, secret);
    // What is not one message never gets to open().
    if FrameFinder::new().find(message, &UNLIMITED) != Ok(Some(message.len())) {
        return;
    }
    let (_, value) = read(message, usize::MAX).expect("a complete message");
    assert_eq!(opened.map(<[u8]>::to_vec), reference_open(value));
}

fn reference_open(value: Value) -> Option<Vec<u8>> {
    let Value::Map(entries) = value else { return None };
    let only = |name: &[u8]| {
        let is_name = |key: &Value| matches!(key, Value::String(text) if text.as_bytes() == name);
        let mut values = entries.iter().filter(|(key, _)| is_name(key)).map(|(_, value)| value);
        values.next().filter(|_| values.next().is_none())
    };
    let (Value::String(signature), Value::Binary(body)) = (only(b"arrpc.sign")?, only(b"data")?)
    else {
        return None;
    };
    let mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key").chain_update(body).finalize();
    let expected: String = mac.into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    (signature.as_bytes() == expected.as_bytes()).then(|| body.clone())
}
