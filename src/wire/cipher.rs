//! The keys of encrypted messages, and XChaCha20-Poly1305 with them, in place. One key for each
//! direction, out of the shared secret by HKDF-SHA256. Knows no MessagePack.

use std::fmt;

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;

use super::secret::Secret;

/// Bytes of a nonce: so many that random ones never meet.
pub(crate) const NONCE_LENGTH: usize = 24;

/// Bytes that an encrypted message has more than what is in it.
pub(crate) const TAG_LENGTH: usize = 16;

/// What the keys and the associated data of requests begin with: no other version, no other
/// direction and no other use of the secret has the same.
const REQUEST_LABEL: &[u8] = b"arrpc encryption 1 request";
const REPLY_LABEL: &[u8] = b"arrpc encryption 1 reply";

/// The number that a message is encrypted with, and no other under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nonce(pub(super) [u8; NONCE_LENGTH]);

impl Nonce {
    /// Takes one from the system's generator.
    ///
    /// # Panics
    ///
    /// The system has none, as where std could make no `HashMap` either. Nothing goes out then.
    pub(super) fn random() -> Self {
        let mut nonce = [0; NONCE_LENGTH];
        getrandom::fill(&mut nonce).expect("the system has random numbers");
        Self(nonce)
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Request,
    /// To the request with this nonce, and to no other: so a reply cannot be moved to another call.
    Reply(Nonce),
}

/// The keys of both directions. Never shows them.
#[derive(Clone)]
pub(crate) struct Cipher {
    requests: XChaCha20Poly1305,
    replies: XChaCha20Poly1305,
}

impl Cipher {
    /// Derives the keys. Once for a server or a client: it takes as long as to sign two messages.
    pub(crate) fn new(secret: &Secret) -> Self {
        let extracted = Hkdf::<Sha256>::from_prk(secret.extracted()).expect("as long as a hash");
        let key = |label: &[u8]| {
            let mut key = [0; 32];
            extracted.expand(label, &mut key).expect("as long as a hash");
            XChaCha20Poly1305::new(&key.into())
        };
        Self { requests: key(REQUEST_LABEL), replies: key(REPLY_LABEL) }
    }

    /// Encrypts `body` where it is, and returns the tag that belongs behind it.
    pub(super) fn encrypt(
        &self,
        direction: Direction,
        nonce: Nonce,
        body: &mut [u8],
    ) -> [u8; TAG_LENGTH] {
        let (key, data) = self.direction(direction);
        key.encrypt_inout_detached(&nonce.0.into(), data.as_ref(), body.into())
            .expect("shorter than 256 GiB, as every message")
            .into()
    }

    /// Verifies what [`encrypt`](Self::encrypt) has made, its tag behind it, and only then decrypts
    /// it where it is.
    pub(super) fn decrypt<'a>(
        &self,
        direction: Direction,
        nonce: Nonce,
        sealed: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let (body, tag) = sealed.split_last_chunk_mut::<TAG_LENGTH>()?;
        let (key, data) = self.direction(direction);
        let tag = Tag::from(*tag);
        key.decrypt_inout_detached(&nonce.0.into(), data.as_ref(), (&mut *body).into(), &tag)
            .ok()?;
        Some(body)
    }

    /// The key of a direction, and the data that the tag covers beside the message.
    fn direction(&self, direction: Direction) -> (&XChaCha20Poly1305, AssociatedData) {
        match direction {
            Direction::Request => (&self.requests, AssociatedData::new(REQUEST_LABEL, &[])),
            Direction::Reply(request) => {
                (&self.replies, AssociatedData::new(REPLY_LABEL, &request.0))
            }
        }
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// A label, and the nonce of the request if there is one, without an allocation.
struct AssociatedData {
    bytes: [u8; REPLY_LABEL.len() + NONCE_LENGTH],
    length: usize,
}

impl AssociatedData {
    fn new(label: &[u8], request: &[u8]) -> Self {
        let mut bytes = [0; REPLY_LABEL.len() + NONCE_LENGTH];
        let length = label.len() + request.len();
        for (byte, &with) in bytes.iter_mut().zip(label.iter().chain(request)) {
            *byte = with;
        }
        Self { bytes, length }
    }

    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_cipher_is_that_of_the_draft() {
        // draft-irtf-cfrg-xchacha-03, A.3.1
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you \
            only one tip for the future, sunscreen would be it."
            .to_vec();
        let key: [u8; 32] =
            bytes("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f")
                .try_into()
                .unwrap();
        let nonce: [u8; 24] =
            bytes("404142434445464748494a4b4c4d4e4f5051525354555657").try_into().unwrap();
        let data = bytes("50515253c0c1c2c3c4c5c6c7");
        let tag = XChaCha20Poly1305::new(&key.into())
            .encrypt_inout_detached(&nonce.into(), &data, text.as_mut_slice().into())
            .unwrap();
        let expected = bytes(
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb
             731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452
             2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9
             21f9664c97637da9768812f615c68b13b52e",
        );
        assert_eq!(text, expected);
        assert_eq!(tag.to_vec(), bytes("c0875924c1c7987947deafd8780acf49"));
    }

    #[test]
    fn each_direction_and_each_request_has_data_of_its_own() {
        let cipher = Cipher::new(&Secret::new(b"secret"));
        let (nonce, request) = (Nonce([1; 24]), Nonce([2; 24]));
        let sealed = |direction| {
            let mut body = b"body".to_vec();
            let tag = cipher.encrypt(direction, nonce, &mut body);
            body.extend_from_slice(&tag);
            body
        };
        let directions =
            [Direction::Request, Direction::Reply(request), Direction::Reply(Nonce([3; 24]))];
        for (made, one) in directions.into_iter().enumerate() {
            for (opened, other) in directions.into_iter().enumerate() {
                let mut sealed = sealed(one);
                let body = cipher.decrypt(other, nonce, &mut sealed);
                assert_eq!(body, (made == opened).then_some(b"body".as_slice()));
            }
        }
        assert_eq!(
            cipher.decrypt(Direction::Request, request, &mut sealed(Direction::Request)),
            None
        );
    }

    #[test]
    fn a_message_that_is_not_verified_stays_encrypted() {
        let cipher = Cipher::new(&Secret::new(b"secret"));
        let mut sealed = [7; 40];
        assert_eq!(cipher.decrypt(Direction::Request, Nonce([1; 24]), &mut sealed), None);
        assert_eq!(sealed, [7; 40]);
        assert_eq!(cipher.decrypt(Direction::Request, Nonce([1; 24]), &mut [7; 15]), None);
    }

    #[test]
    fn neither_secret_nor_keys_show() {
        let secret = Secret::new(b"secret");
        assert_eq!(format!("{:?} {secret:?}", Cipher::new(&secret)), "Cipher(..) Secret(..)");
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(Nonce::random(), Nonce::random());
    }
}
