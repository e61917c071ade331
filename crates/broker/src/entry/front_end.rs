//! Entries of front ends' own projections.

use sabir_model::{DecodeError, FrontendNo};

use super::{AppendBody, kind};
use crate::codec::{Reader, put_len, put_str, put_u32};

const SEED: u8 = 1 << 0;
const NAME: u8 = 1 << 1;
const KNOWN: u8 = SEED | NAME;

/// What a front end's own projection is told: version 1 · marks u8 (1 seed, 2 name; the rest 0) · number of the projection · name, if marked
/// · seed, 8 bytes little-endian, if marked · list of (length · as an append), the batches in the payload · the command, to the end. The
/// number is the one that the catalog gave the projection's name. An entry names it until one that did is applied in its shard, so that
/// the shard's own journal says whose the number is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FrontendBody<'a> {
    pub(crate) number: FrontendNo,
    pub(crate) name: Option<&'a str>,
    pub(crate) seed: Option<u64>,
    pub(crate) batches: Vec<OfferedBatch>,
    pub(crate) command: &'a [u8],
}

/// A batch that the projection may append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfferedBatch {
    /// Bytes of it in the payload, behind those of the batches before it.
    pub(crate) len: u32,
    pub(crate) append: AppendBody,
}

impl<'a> FrontendBody<'a> {
    pub(crate) const KIND: u16 = kind::FRONT_END;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        out.extend_from_slice(&[1, mark(self.seed.is_some(), SEED) | mark(self.name.is_some(), NAME)]);
        put_u32(out, self.number.0.into());
        if let Some(name) = self.name {
            put_str(out, name);
        }
        out.extend(self.seed.iter().flat_map(|seed| seed.to_le_bytes()));
        put_len(out, self.batches.len());
        for batch in &self.batches {
            put_u32(out, batch.len);
            batch.append.put(out);
        }
        out.extend_from_slice(self.command);
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(1)?;
        let marks = input.marks(KNOWN, "entry of a front end")?;
        Ok(Self {
            number: input.front_end()?,
            name: if marks & NAME == 0 { None } else { Some(input.str()?) },
            seed: if marks & SEED == 0 { None } else { Some(input.u64_le()?) },
            batches: input
                .list(5, |input| Ok(OfferedBatch { len: input.u32()?, append: AppendBody::take(input)? }))?,
            command: input.rest(),
        })
    }
}
