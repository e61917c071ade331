//! Reading and writing the small stored forms of this crate: entry bodies and pages.

use sabir_base::varint;
use sabir_model::stored;
use sabir_model::{DecodeError, FrontendNo, Offset, PartitionId, TopicId};

/// A cursor over stored bytes; every bound is checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The leading form byte, which must be `known`.
    pub(crate) fn version(&mut self, known: u8) -> Result<(), DecodeError> {
        stored::take_form(&mut self.rest, known)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        stored::take_u8(&mut self.rest)
    }

    /// A byte of marks, of which these are known.
    pub(crate) fn marks(&mut self, known: u8, of: &'static str) -> Result<u8, DecodeError> {
        stored::take_marks(&mut self.rest, known, of)
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Field(field)),
        }
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(varint::take_u64(&mut self.rest)?)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(varint::take_u32(&mut self.rest)?)
    }

    /// 8 bytes, little-endian.
    pub(crate) fn u64_le(&mut self) -> Result<u64, DecodeError> {
        stored::take(&mut self.rest).map(u64::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        u16::try_from(self.u64()?).map_err(|_| DecodeError::Field(field))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(varint::take_i64(&mut self.rest)?)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(varint::take_i32(&mut self.rest)?)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        stored::take_str(&mut self.rest)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        stored::take_bytes(&mut self.rest).map(<[u8]>::to_vec)
    }

    /// A list of things that take at least `least` bytes each.
    pub(crate) fn list<T>(
        &mut self,
        least: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = stored::take_count(&mut self.rest, least)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(one(self)?);
        }
        Ok(all)
    }

    pub(crate) fn partition(&mut self) -> Result<PartitionId, DecodeError> {
        self.u64().map(PartitionId)
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, DecodeError> {
        self.i64().map(Offset)
    }

    pub(crate) fn topic(&mut self) -> Result<TopicId, DecodeError> {
        stored::take(&mut self.rest).map(TopicId)
    }

    pub(crate) fn front_end(&mut self) -> Result<FrontendNo, DecodeError> {
        self.u16("front end").map(FrontendNo)
    }

    /// Hands the rest to a decoder that takes from the front.
    pub(crate) fn with<T>(
        &mut self,
        take: impl FnOnce(&mut &'a [u8]) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        take(&mut self.rest)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        stored::end(self.rest)
    }
}

pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    stored::put_bytes(out, text.as_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    stored::put_bytes(out, bytes);
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    varint::put_u64(out, value);
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    varint::put_u64(out, value.into());
}

pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    varint::put_i64(out, value);
}

pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    varint::put_u64(out, len as u64);
}
