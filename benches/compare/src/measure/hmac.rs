//! The bare signature: what signing the small message costs without anything around it.

use std::hint::black_box;
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::wire::{REQUEST, SECRET};

const SIGNATURES: u32 = 20_000;

/// Nanoseconds of one HMAC-SHA256 of the request, from a state with the key in it.
pub(crate) fn nanoseconds() -> f64 {
    let keyed = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length");
    let start = Instant::now();
    for _ in 0..SIGNATURES {
        let mut mac = black_box(&keyed).clone();
        mac.update(black_box(REQUEST));
        black_box(mac.finalize().into_bytes());
    }
    start.elapsed().as_nanos() as f64 / f64::from(SIGNATURES)
}
