//! How often messages were tried: a side row from the first return until settled. Neighbours with equal counts share one.
//!
//! A row may span messages that are settled; the states say which are.

use sabir_base::varint::{put_u64, take_u32};
use sabir_model::DecodeError;

use super::rows::RowValue;

/// How often a message was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Attempts {
    /// Times that it was acquired, the present one included.
    pub acquired: u32,
    /// Returns that count.
    pub returned: u32,
}

impl Attempts {
    /// Of a message that is in flight for the first time.
    pub const FIRST: Self = Self { acquired: 1, returned: 0 };

    /// Appends the stored form.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_u64(out, self.acquired.into());
        put_u64(out, self.returned.into());
    }

    /// Takes counts off the front of `input`.
    ///
    /// # Errors
    /// A cut input, a number out of range.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { acquired: take_u32(input)?, returned: take_u32(input)? })
    }
}

impl RowValue for Attempts {
    const BAD: DecodeError = DecodeError::Field("row of counts");

    fn put(self, out: &mut Vec<u8>) {
        self.encode(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Self::decode(input)
    }
}
