//! The shared secret: of signed messages, HMAC-SHA256 over the packed message (arrpc's scheme), and
//! what the keys of encrypted ones are derived from.

use std::fmt;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a signature in its text form, lower-case hexadecimal digits.
pub(super) const SIGNATURE_LENGTH: usize = 64;

/// A shared secret, ready to sign, to verify and to derive keys. Never shows itself.
#[derive(Clone)]
pub(crate) struct Secret {
    /// Keyed once and cloned for each message: keying costs two blocks of SHA-256.
    keyed: Hmac<Sha256>,
    /// What the keys of encrypted messages are made of: HKDF-SHA256, the extract step.
    extracted: [u8; 32],
    is_empty: bool,
}

impl Secret {
    pub(crate) fn new(secret: &[u8]) -> Self {
        let keyed = Hmac::new_from_slice(secret).expect("HMAC takes a key of any length");
        let (extracted, _) = Hkdf::<Sha256>::extract(None, secret);
        Self { keyed, extracted: extracted.into(), is_empty: secret.is_empty() }
    }

    /// The secret as HKDF-SHA256 extracts it, to derive keys from.
    pub(super) fn extracted(&self) -> &[u8; 32] {
        &self.extracted
    }

    /// Whether the secret is the empty one, which everybody knows.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// The signature of `data` in its text form.
    pub(super) fn sign(&self, data: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        let signature = self.keyed.clone().chain_update(data).finalize().into_bytes();
        let mut text = [0; SIGNATURE_LENGTH];
        for (digits, byte) in text.chunks_exact_mut(2).zip(signature) {
            digits.copy_from_slice(&[digit(byte >> 4), digit(byte & 0x0f)]);
        }
        text
    }

    /// Whether `signature` is the signature of `data`, in a time that does not depend on where
    /// they differ.
    pub(super) fn verify(&self, data: &[u8], signature: &[u8]) -> bool {
        let Some(signature) = parse(signature) else { return false };
        self.keyed.clone().chain_update(data).verify_slice(&signature).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// Parses exactly 64 lower-case digits: arrpc compares texts, so no other form is a signature.
fn parse(text: &[u8]) -> Option<[u8; SIGNATURE_LENGTH / 2]> {
    let text: &[u8; SIGNATURE_LENGTH] = text.try_into().ok()?;
    let mut signature = [0; SIGNATURE_LENGTH / 2];
    for (byte, digits) in signature.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digits.iter().try_fold(0, |byte, &digit| {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            Some(byte << 4 | nibble)
        })?;
    }
    Some(signature)
}
