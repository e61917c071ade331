//! Where bytes are, without naming a physical place.

use sabir_base::varint;

use crate::stored::{DecodeError, take_u8};
use crate::{FrontendNo, Sequence};

/// A run of records in a block of the journal, the same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The block.
    pub block: Sequence,
    /// Where the bytes begin in the block's content.
    pub offset: u32,
    /// How many bytes.
    pub len: u32,
    /// The first record meant, counted from the first in the bytes.
    pub first_record: u32,
    /// How many records are meant.
    pub records: u32,
    /// The front end that built the batch; [`FrontendNo::NONE`] if a client's batch was stored as it came.
    pub origin: FrontendNo,
    /// What differs for this target.
    pub overlay: Overlay,
}

/// Where the bytes of an overlay lie in a block of the journal, the same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OverlayPlace {
    /// The block.
    pub block: Sequence,
    /// Where the bytes begin in the block's content.
    pub offset: u32,
    /// How many bytes.
    pub len: u32,
}

/// Where it is said what differs for one target from the bytes that it refers to; what is said is an
/// [`OverlayBody`](crate::OverlayBody). Stored as a tag byte and what the kind needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overlay {
    /// Nowhere: the bytes as they are. Tag 0.
    #[default]
    None,
    /// In the payload of the entry that the extent is in. Tag 1.
    Payload,
    /// With an entry of a block that is applied. Tag 2: block, offset, length.
    At(OverlayPlace),
}

impl Overlay {
    /// Appends the tag byte and what follows it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => out.push(0),
            Self::Payload => out.push(1),
            Self::At(place) => {
                out.push(2);
                varint::put_u64(out, place.block.0);
                varint::put_u64(out, place.offset.into());
                varint::put_u64(out, place.len.into());
            }
        }
    }

    /// Takes an overlay off the front of `input`.
    ///
    /// # Errors
    /// A tag of a newer version, or a cut input.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match take_u8(input)? {
            0 => Ok(Self::None),
            1 => Ok(Self::Payload),
            2 => Ok(Self::At(OverlayPlace {
                block: Sequence(varint::take_u64(input)?),
                offset: varint::take_u32(input)?,
                len: varint::take_u32(input)?,
            })),
            tag => Err(DecodeError::Version(tag)),
        }
    }
}

impl Extent {
    /// Appends the extent: varints in the order of the fields, then the overlay.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put_u64(out, self.block.0);
        for value in [self.offset, self.len, self.first_record, self.records] {
            varint::put_u64(out, value.into());
        }
        varint::put_u64(out, self.origin.0.into());
        self.overlay.encode(out);
    }

    /// Takes an extent off the front of `input`.
    ///
    /// # Errors
    /// A cut input, a number out of range, an overlay of a newer version.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            block: Sequence(varint::take_u64(input)?),
            offset: varint::take_u32(input)?,
            len: varint::take_u32(input)?,
            first_record: varint::take_u32(input)?,
            records: varint::take_u32(input)?,
            origin: take_front_end(input)?,
            overlay: Overlay::decode(input)?,
        })
    }
}

fn take_front_end(input: &mut &[u8]) -> Result<FrontendNo, DecodeError> {
    let number = varint::take_u64(input)?;
    u16::try_from(number).map(FrontendNo).map_err(|_| DecodeError::Field("front end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent() -> Extent {
        Extent {
            block: Sequence(300),
            offset: 32,
            len: 61,
            first_record: 0,
            records: 1,
            origin: FrontendNo(2),
            overlay: Overlay::None,
        }
    }

    #[test]
    fn stored_form() {
        let mut out = Vec::new();
        extent().encode(&mut out);
        assert_eq!(out, [0xac, 2, 32, 61, 0, 1, 2, 0]);
        assert_eq!(Extent::decode(&mut out.as_slice()), Ok(extent()));
        let place = OverlayPlace { block: Sequence(301), offset: 64, len: 20 };
        let overlays: [(Overlay, &[u8]); 2] =
            [(Overlay::Payload, &[1]), (Overlay::At(place), &[2, 0xad, 2, 64, 20])];
        for (overlay, tail) in overlays {
            let (extent, mut out) = (Extent { overlay, ..extent() }, Vec::new());
            extent.encode(&mut out);
            assert_eq!(out, [&[0xac, 2, 32, 61, 0, 1, 2], tail].concat());
            assert_eq!(Extent::decode(&mut out.as_slice()), Ok(extent));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(Extent::decode(&mut [1, 2, 3].as_slice()), Err(DecodeError::Truncated));
        assert_eq!(Extent::decode(&mut [1, 2, 3, 4, 5, 6, 9].as_slice()), Err(DecodeError::Version(9)));
        let wide = [1, 2, 3, 4, 5, 0x80, 0x80, 4, 0];
        assert_eq!(Extent::decode(&mut wide.as_slice()), Err(DecodeError::Field("front end")));
    }
}
