//! How a session encrypts its replies: each for the message that it answers, when its turn comes.
//! Knows no streams.

use std::collections::VecDeque;

use crate::wire::cipher::{Cipher, Nonce};
use crate::wire::reply::Reply;
use crate::wire::sealed;

/// The nonces of the messages that are not answered yet, in their order.
///
/// Invariant: one entry for each message that is to be answered, `None` for one that could not be
/// opened. That one's reply goes out as it is: there is no request to encrypt it for, and its peer
/// has no key, or another one.
#[derive(Default)]
pub(crate) struct Sealing {
    owed: VecDeque<Option<Nonce>>,
}

impl Sealing {
    /// Takes note of a message that will be answered.
    pub(crate) fn owe(&mut self, nonce: Option<Nonce>) {
        self.owed.push_back(nonce);
    }

    /// Encrypts the next reply, which is `out[start..]`.
    pub(super) fn seal(&mut self, cipher: &Cipher, out: &mut Vec<u8>, start: usize) {
        // Not in the clear if that were wrong.
        let Some(request) = self.owed.pop_front().expect("each reply is owed") else { return };
        if let Err(too_long) = sealed::seal_reply(cipher, request, out, start) {
            Reply::Rpc(too_long.to_string()).encode(out);
            sealed::seal_reply(cipher, request, out, start).expect("it is short");
        }
    }
}
