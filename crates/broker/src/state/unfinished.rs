//! Fragmented batches under way: those whose chunks have arrived in part.

use sabir_journal::pages::{PageDecodeError, PageKey, PageValue};
use sabir_model::{Sequence, Term};

use crate::codec::{Reader, put_len, put_u64};
use crate::partition::{Chunk, put_chunk, take_chunk};

/// A fragmented batch's number; stored big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UnfinishedKey(pub(crate) u64);

impl PageKey for UnfinishedKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let id = bytes
            .try_into()
            .map_err(|_| PageDecodeError("the key of a fragmented batch has 8 bytes".into()))?;
        Ok(Self(u64::from_be_bytes(id)))
    }
}

/// The chunks of a fragmented batch that have arrived, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnfinishedBatch {
    pub(crate) term: Term,
    pub(crate) chunks: Vec<Chunk>,
}

impl UnfinishedBatch {
    pub(crate) fn first_block(&self) -> Option<Sequence> {
        self.chunks.first().map(|chunk| chunk.block)
    }

    /// Bytes of all chunks; `None` beyond 4 GiB.
    pub(crate) fn bytes(&self) -> Option<u32> {
        self.chunks.iter().try_fold(0u32, |sum, chunk| sum.checked_add(chunk.len))
    }
}

const FORM: u8 = 1;

impl PageValue for UnfinishedBatch {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.term.0);
        put_len(out, self.chunks.len());
        self.chunks.iter().for_each(|chunk| put_chunk(out, chunk));
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        take(bytes).map_err(|error| PageDecodeError(error.to_string()))
    }
}

fn take(bytes: &[u8]) -> Result<UnfinishedBatch, sabir_model::DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(FORM)?;
    let fragmented = UnfinishedBatch { term: Term(input.u64()?), chunks: input.list(3, take_chunk)? };
    input.end()?;
    Ok(fragmented)
}
