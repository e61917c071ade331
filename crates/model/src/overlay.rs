//! What an overlay says.

use sabir_base::crc::crc32c;
use sabir_base::varint;

use crate::stored::{DecodeError, end, put_bytes, take_bytes, take_count, take_form};

/// How one target shows the records that it refers to, where that is not as they are stored. It holds for each of them.
///
/// Headers are applied when the records are read. The counts and the subscriptions have their stored form, and nothing writes or reads them
/// yet: they are for queues.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OverlayBody {
    /// Keys of headers that are not shown, however often they are there.
    pub removed: Vec<Vec<u8>>,
    /// Headers that are shown behind those that are left.
    pub added: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// How often the message had been acquired when it was referred to. Nothing writes or reads it yet.
    pub acquired: u32,
    /// How often it had been returned such that it counts. Nothing writes or reads it yet.
    pub returned: u32,
    /// The numbers of the subscriptions that it matched. Nothing writes or reads them yet.
    pub subscriptions: Vec<u64>,
}

const FORM: u8 = 1;
const CRC: usize = 4;

impl OverlayBody {
    /// The most bytes of one, stored.
    pub const MAX: usize = 64 << 10;

    /// The stored form: 1 · list of removed keys · list of added headers, a value behind its length plus one, 0 where it is absent · acquired ·
    /// returned · list of subscriptions · CRC32C of all before it, 4 bytes, little-endian.
    ///
    /// # Errors
    /// It would have more than [`MAX`](Self::MAX) bytes.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut out = vec![FORM];
        varint::put_u64(&mut out, self.removed.len() as u64);
        self.removed.iter().for_each(|key| put_bytes(&mut out, key));
        varint::put_u64(&mut out, self.added.len() as u64);
        for (key, value) in &self.added {
            put_bytes(&mut out, key);
            put_optional(&mut out, value.as_deref());
        }
        varint::put_u64(&mut out, self.acquired.into());
        varint::put_u64(&mut out, self.returned.into());
        varint::put_u64(&mut out, self.subscriptions.len() as u64);
        self.subscriptions.iter().for_each(|number| varint::put_u64(&mut out, *number));
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        if out.len() > Self::MAX { Err(DecodeError::Field("length of an overlay")) } else { Ok(out) }
    }

    /// Reads it back, all of it.
    ///
    /// # Errors
    /// The bytes are damaged, too many, or a newer version's.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > Self::MAX {
            return Err(DecodeError::Field("length of an overlay"));
        }
        let (said, crc) = bytes.split_last_chunk::<CRC>().ok_or(DecodeError::Truncated)?;
        if crc32c(said) != u32::from_le_bytes(*crc) {
            return Err(DecodeError::Field("checksum"));
        }
        let mut input = said;
        take_form(&mut input, FORM)?;
        let body = Self {
            removed: take_list(&mut input, |input| take_bytes(input).map(<[u8]>::to_vec))?,
            added: take_list(&mut input, |input| Ok((take_bytes(input)?.to_vec(), take_optional(input)?)))?,
            acquired: varint::take_u32(&mut input)?,
            returned: varint::take_u32(&mut input)?,
            subscriptions: take_list(&mut input, |input| Ok(varint::take_u64(input)?))?,
        };
        end(input)?;
        Ok(body)
    }

    /// Whether headers of that key are not shown.
    pub fn removes(&self, key: &[u8]) -> bool {
        self.removed.iter().any(|removed| removed == key)
    }
}

fn put_optional(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => out.push(0),
        Some(value) => {
            varint::put_u64(out, value.len() as u64 + 1);
            out.extend_from_slice(value);
        }
    }
}

fn take_optional(input: &mut &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let Some(len) = varint::take_u32(input)?.checked_sub(1) else { return Ok(None) };
    let (value, rest) = input.split_at_checked(len as usize).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(Some(value.to_vec()))
}

fn take_list<'a, T>(
    input: &mut &'a [u8],
    mut one: impl FnMut(&mut &'a [u8]) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = take_count(input, 1)?;
    (0..count).map(|_| one(input)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> OverlayBody {
        OverlayBody {
            removed: vec![b"bcc".to_vec()],
            added: vec![(b"why".to_vec(), Some(b"full".to_vec())), (b"x".to_vec(), None)],
            acquired: 300,
            returned: 2,
            subscriptions: vec![7],
        }
    }

    #[test]
    fn stored_form() {
        let stored = body().encode().unwrap();
        let said = b"\x01\x01\x03bcc\x02\x03why\x05full\x01x\x00\xac\x02\x02\x01\x07";
        assert_eq!(stored, [&said[..], &crc32c(said).to_le_bytes()].concat());
        assert_eq!(OverlayBody::decode(&stored), Ok(body()));
        for len in 0..stored.len() {
            assert!(OverlayBody::decode(&stored[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn what_is_damaged_newer_or_too_large_is_refused() {
        let mut stored = body().encode().unwrap();
        stored[3] ^= 1;
        assert_eq!(OverlayBody::decode(&stored), Err(DecodeError::Field("checksum")));
        let newer = [&[2u8][..], &crc32c(&[2]).to_le_bytes()].concat();
        assert_eq!(OverlayBody::decode(&newer), Err(DecodeError::Version(2)));
        let many = [&[1u8, 0xff, 0xff, 3][..], &crc32c(&[1, 0xff, 0xff, 3]).to_le_bytes()].concat();
        assert_eq!(OverlayBody::decode(&many), Err(DecodeError::Truncated), "a count is not believed");
        let large = OverlayBody { removed: vec![vec![0; OverlayBody::MAX]], ..OverlayBody::default() };
        assert_eq!(large.encode(), Err(DecodeError::Field("length of an overlay")));
        assert!(OverlayBody::decode(&vec![0; OverlayBody::MAX + 1]).is_err());
    }
}
