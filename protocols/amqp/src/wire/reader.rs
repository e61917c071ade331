//! Fields out of a frame's payload.

use super::exception::Malformed;
use super::table::{self, FieldTable};
use super::text::{ShortBytes, ShortStr};

/// Reads fields one after another. Bits that follow each other share octets.
#[derive(Debug, Clone)]
pub struct ArgumentReader<'a> {
    left: &'a [u8],
    bits: u8,
    /// How many bits of the octet in `bits` have been read; eight if all.
    bits_read: u8,
}

/// A field of a method.
pub(super) trait Argument<'a>: Sized {
    fn read(r: &mut ArgumentReader<'a>) -> Result<Self, Malformed>;
}

impl<'a> ArgumentReader<'a> {
    /// Reads from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes, bits: 0, bits_read: 8 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.left
    }

    /// Says whether all has been read.
    ///
    /// # Errors
    /// Bytes are left.
    #[inline]
    pub fn finish(&self) -> Result<(), Malformed> {
        if self.left.is_empty() { Ok(()) } else { Err(Malformed::Trailing) }
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self.left.split_at_checked(len).ok_or(Malformed::Truncated)?;
        (self.left, self.bits_read) = (left, 8);
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, left) = self.left.split_first_chunk().ok_or(Malformed::Truncated)?;
        (self.left, self.bits_read) = (left, 8);
        Ok(*taken)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    #[inline]
    fn bit(&mut self) -> Result<bool, Malformed> {
        if self.bits_read == 8 {
            self.bits = self.u8()?;
            self.bits_read = 0;
        }
        let bit = self.bits >> self.bits_read & 1;
        self.bits_read += 1;
        Ok(bit == 1)
    }

    #[inline]
    pub(super) fn long_bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.take(usize::try_from(len).map_err(|_| Malformed::Truncated)?)
    }

    #[inline]
    pub(super) fn short_bytes(&mut self) -> Result<ShortBytes<'a>, Malformed> {
        let len = self.u8()?;
        let bytes = self.take(usize::from(len))?;
        Ok(ShortBytes::new(bytes).expect("a length of one octet is at most 255"))
    }
}

macro_rules! numbers {
    ($($number:ident),*) => {$(
        impl<'a> Argument<'a> for $number {
            #[inline]
            fn read(r: &mut ArgumentReader<'a>) -> Result<Self, Malformed> {
                r.$number()
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64);

impl<'a> Argument<'a> for bool {
    #[inline]
    fn read(r: &mut ArgumentReader<'a>) -> Result<Self, Malformed> {
        r.bit()
    }
}

impl<'a> Argument<'a> for &'a [u8] {
    #[inline]
    fn read(r: &mut ArgumentReader<'a>) -> Result<Self, Malformed> {
        r.long_bytes()
    }
}

impl<'a> Argument<'a> for ShortStr<'a> {
    #[inline]
    fn read(r: &mut ArgumentReader<'a>) -> Result<Self, Malformed> {
        let bytes = r.short_bytes()?.as_bytes();
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)?;
        Ok(ShortStr::new(text).expect("a length of one octet is at most 255"))
    }
}

impl<'a> Argument<'a> for ShortBytes<'a> {
    #[inline]
    fn read(r: &mut ArgumentReader<'a>) -> Result<Self, Malformed> {
        r.short_bytes()
    }
}

impl<'a> Argument<'a> for FieldTable<'a> {
    #[inline]
    fn read(r: &mut ArgumentReader<'a>) -> Result<Self, Malformed> {
        table::checked(r.long_bytes()?)
    }
}
