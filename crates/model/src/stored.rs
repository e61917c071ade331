//! Helpers for small stored forms: a leading form byte, fixed integers, varints, and byte strings behind their length.

use sabir_base::varint::{self, VarintError};

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
    /// A byte of marks has one that a newer version of the broker set.
    #[error("the marks {marks:#04x} of the stored {of} are not all known to this version")]
    Marks {
        /// Of what.
        of: &'static str,
        /// The byte.
        marks: u8,
    },
    /// A byte of marks has [`MORE_MARKS`], and no version that this one knows had a second byte.
    #[error("a second byte of marks of the stored {0} is not known to this version")]
    MoreMarks(&'static str),
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
///
/// # Errors
/// Fewer are there.
pub fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (head, rest) = input.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(*head)
}

/// Takes one byte off the front of `input`.
///
/// # Errors
/// None is there.
pub fn take_u8(input: &mut &[u8]) -> Result<u8, DecodeError> {
    take::<1>(input).map(|[byte]| byte)
}

/// The last bit of a byte of marks: a second byte of them follows. It is kept for that in every form that has marks.
pub const MORE_MARKS: u8 = 1 << 7;

/// Takes a byte of marks off the front of `input`, of which this version knows some.
///
/// # Errors
/// None is there, a mark is not known, or a second byte of them follows.
pub fn take_marks(input: &mut &[u8], known: u8, of: &'static str) -> Result<u8, DecodeError> {
    let marks = take_u8(input)?;
    if marks & MORE_MARKS & !known != 0 {
        return Err(DecodeError::MoreMarks(of));
    }
    if marks & !known != 0 { Err(DecodeError::Marks { of, marks }) } else { Ok(marks) }
}

/// Takes the leading form byte, which must be `known`.
///
/// # Errors
/// Another form, or none.
pub fn take_form(input: &mut &[u8], known: u8) -> Result<(), DecodeError> {
    match take_u8(input)? {
        form if form == known => Ok(()),
        form => Err(DecodeError::Version(form)),
    }
}

/// Appends a varint length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes bytes behind their varint length, borrowed.
///
/// # Errors
/// A cut or overlong length, or fewer bytes than it says.
pub fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = varint::take_u32(input)?;
    let (head, rest) = input.split_at_checked(len as usize).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(head)
}

/// Takes a UTF-8 string behind its varint length, borrowed.
///
/// # Errors
/// As [`take_bytes`], and bytes that are not UTF-8.
pub fn take_str<'a>(input: &mut &'a [u8]) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(take_bytes(input)?).map_err(|_| DecodeError::Field("text"))
}

/// Takes a varint count of things of which each needs at least `each` bytes, so that a lie is found before it is believed.
///
/// # Errors
/// A cut or overlong count, or one that what is left cannot hold.
pub fn take_count(input: &mut &[u8], each: usize) -> Result<usize, DecodeError> {
    let count = varint::take_u32(input)? as usize;
    if count > input.len() / each.max(1) { Err(DecodeError::Truncated) } else { Ok(count) }
}

/// Checks that nothing is left.
///
/// # Errors
/// Bytes are left.
pub fn end(input: &[u8]) -> Result<(), DecodeError> {
    if input.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(input.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_counts_are_checked_before_they_are_believed() {
        let mut out = Vec::new();
        put_bytes(&mut out, b"ab");
        assert_eq!(out, [2, b'a', b'b']);
        assert_eq!(take_str(&mut out.as_slice()), Ok("ab"));
        assert_eq!(take_bytes(&mut [3, 1, 2].as_slice()), Err(DecodeError::Truncated));
        assert_eq!(take_str(&mut [1, 0xff].as_slice()), Err(DecodeError::Field("text")));
        assert_eq!(take_count(&mut [4, 0, 0, 0].as_slice(), 1), Err(DecodeError::Truncated));
        assert_eq!(take_count(&mut [3, 0, 0, 0].as_slice(), 1), Ok(3));
        assert_eq!(take_form(&mut [2].as_slice(), 1), Err(DecodeError::Version(2)));
        assert_eq!(end(&[0, 0]), Err(DecodeError::Trailing(2)));
    }

    #[test]
    fn marks_that_are_not_known_are_refused_and_a_second_byte_of_them_by_name() {
        let take = |marks: u8| take_marks(&mut [marks].as_slice(), 0b0111, "thing");
        assert_eq!((take(0), take(0b0101)), (Ok(0), Ok(0b0101)));
        assert_eq!(take(0b1001), Err(DecodeError::Marks { of: "thing", marks: 9 }));
        for more in [0x80, 0x81, 0xff] {
            assert_eq!(take(more), Err(DecodeError::MoreMarks("thing")));
        }
        assert_eq!(take_marks(&mut [].as_slice(), 1, "thing"), Err(DecodeError::Truncated));
    }
}
