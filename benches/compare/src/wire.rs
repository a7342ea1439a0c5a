//! The bytes that arrpc, its Python original and the floor get and send, made beforehand.

use std::path::PathBuf;

/// `{"foo": "bar"}`.
pub(crate) const REQUEST: &[u8] = b"\x81\xa3foo\xa3bar";

/// `"got it"`.
pub(crate) const REPLY: &[u8] = b"\xa6got it";

/// What the signed contestants share.
pub(crate) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A message of so many bytes of payload. None here has a length divisible by 4,096, so its echo
/// has the same bytes: see "Lengths of messages" in the README of the library.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes + 5);
    let value = rmpv::Value::Binary(vec![0x5a; bytes]);
    rmpv::encode::write_value(&mut message, &value).expect("writing to a Vec");
    message
}

/// The request in its signed envelope.
pub(crate) fn sealed() -> Vec<u8> {
    let mut envelope = Vec::new();
    arrpc::internals::Sealer::new(SECRET).seal(REQUEST, &mut envelope);
    envelope
}

/// The path of a file of the test certificates.
pub(crate) fn certificate(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../certs", file].iter().collect()
}
