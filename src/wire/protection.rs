//! What keeps the messages of a server or a client from those who do not know the shared secret.

use super::cipher::Cipher;
use super::secret::Secret;

/// One of three ways, the same on both sides.
#[derive(Clone, Debug)]
pub(crate) enum Protection {
    None,
    /// Messages are signed, replies are not: arrpc's way.
    Signed(Secret),
    /// Messages and replies are encrypted.
    Encrypted(Cipher),
}

impl Protection {
    /// Checks the options `auth_secret` and `encrypt`; the error says what is wrong with them.
    pub(crate) fn new(secret: Option<&Secret>, encrypt: bool) -> Result<Self, &'static str> {
        match secret {
            Some(secret) if secret.is_empty() => Err("auth_secret is empty: anyone could sign"),
            Some(secret) if encrypt => Ok(Self::Encrypted(Cipher::new(secret))),
            Some(secret) => Ok(Self::Signed(secret.clone())),
            None if encrypt => Err("encrypt needs auth_secret: the keys are made of it, \
                 give the same on both sides"),
            None => Ok(Self::None),
        }
    }

    /// Whether a message that gets through is from somebody who knows the secret.
    pub(crate) fn is_signed(&self) -> bool {
        !matches!(self, Self::None)
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Encrypted(_))
    }
}
