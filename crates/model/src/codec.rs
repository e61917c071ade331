//! What the small stored forms of this crate share.

use sabir_base::varint::VarintError;

/// Why stored bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("the stored value is cut short")]
    Truncated,
    /// Bytes are left behind the value.
    #[error("{0} bytes are left behind the stored value")]
    Trailing(usize),
    /// Written by a newer version of the broker.
    #[error("form {0} of the stored value is not known to this version")]
    Version(u8),
    /// A field holds what it cannot.
    #[error("the stored value's {0} is out of range")]
    Field(&'static str),
}

impl From<VarintError> for DecodeError {
    fn from(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::Truncated,
            VarintError::Overflow => Self::Field("varint"),
        }
    }
}

/// Takes `N` bytes off the front of `input`.
pub(crate) fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(*head)
}

/// Takes one byte off the front of `input`.
pub(crate) fn take_u8(input: &mut &[u8]) -> Result<u8, DecodeError> {
    take::<1>(input).map(|[byte]| byte)
}
