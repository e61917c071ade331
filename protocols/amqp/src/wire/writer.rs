//! Fields into a buffer.

use bytes::{BufMut, BytesMut};

use super::table::FieldTable;
use super::text::{ShortBytes, ShortStr};

/// Writes fields one after another. Bits that follow each other share octets.
#[derive(Debug)]
pub struct ArgumentWriter<'o> {
    out: &'o mut BytesMut,
    /// How many bits of the last octet are taken; zero if it is none of bits.
    bits: u8,
}

/// A field of a method.
pub(super) trait WriteArgument {
    fn write(&self, w: &mut ArgumentWriter<'_>);
}

impl<'o> ArgumentWriter<'o> {
    /// Writes behind what is in `out`.
    pub fn new(out: &'o mut BytesMut) -> Self {
        Self { out, bits: 0 }
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
        self.bits = 0;
    }

    #[inline]
    fn bit(&mut self, bit: bool) {
        if self.bits.is_multiple_of(8) {
            self.put(&[0]);
        }
        let last = self.out.last_mut().expect("an octet of bits was begun");
        *last |= u8::from(bit) << self.bits;
        self.bits = (self.bits + 1) % 8;
    }

    #[inline]
    pub(super) fn long_bytes(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("what goes into a frame is smaller than 4 GiB");
        self.put(&len.to_be_bytes());
        self.put(bytes);
    }

    /// Bytes that are written already.
    #[inline]
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.put(bytes);
    }

    #[inline]
    pub(super) fn short_bytes(&mut self, bytes: ShortBytes<'_>) {
        let len = u8::try_from(bytes.len()).expect("short bytes are at most 255");
        self.put(&[len]);
        self.put(&bytes);
    }
}

macro_rules! numbers {
    ($($number:ident),*) => {$(
        impl WriteArgument for $number {
            #[inline]
            fn write(&self, w: &mut ArgumentWriter<'_>) {
                w.put(&self.to_be_bytes());
            }
        }
    )*};
}

numbers!(u8, u16, u32, u64);

impl WriteArgument for bool {
    #[inline]
    fn write(&self, w: &mut ArgumentWriter<'_>) {
        w.bit(*self);
    }
}

impl WriteArgument for &[u8] {
    #[inline]
    fn write(&self, w: &mut ArgumentWriter<'_>) {
        w.long_bytes(self);
    }
}

impl WriteArgument for ShortStr<'_> {
    #[inline]
    fn write(&self, w: &mut ArgumentWriter<'_>) {
        w.short_bytes((*self).into());
    }
}

impl WriteArgument for ShortBytes<'_> {
    #[inline]
    fn write(&self, w: &mut ArgumentWriter<'_>) {
        w.short_bytes(*self);
    }
}

impl WriteArgument for FieldTable<'_> {
    #[inline]
    fn write(&self, w: &mut ArgumentWriter<'_>) {
        w.long_bytes(self.as_bytes());
    }
}
