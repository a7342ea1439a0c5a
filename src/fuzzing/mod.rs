//! What the fuzz targets check: each takes any bytes, and panics where a claim of the library does
//! not hold. Made for `fuzz/` and for the tests; it is no part of the API.

mod agreement;
mod envelope;
mod errors;
mod frame;
mod json;
mod session;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod seeds;

pub use agreement::agreement;
pub use envelope::envelope;
pub use errors::errors;
pub use frame::frame;
pub use json::json;
pub use session::session;

/// The bytes of an input, whose first ones may be numbers that say how the rest is used.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Takes the next byte, zero behind the end.
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    /// Takes the next two bytes.
    fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn rest(self) -> &'a [u8] {
        self.0
    }
}
