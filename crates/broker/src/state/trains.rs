//! Trains under way: batches whose chunks have arrived in part.

use sabir_journal::pages::{DecodeError, PageKey, PageValue};
use sabir_model::{Sequence, Term};

use crate::codec::{Reader, put_len, put_u64};
use crate::partition::{Chunk, put_chunk, take_chunk};

/// A train's number; stored big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TrainKey(pub(crate) u64);

impl PageKey for TrainKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let id = bytes.try_into().map_err(|_| DecodeError("a train's key has 8 bytes".into()))?;
        Ok(Self(u64::from_be_bytes(id)))
    }
}

/// The chunks of a train that have arrived, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenTrain {
    pub(crate) term: Term,
    pub(crate) chunks: Vec<Chunk>,
}

impl OpenTrain {
    pub(crate) fn first_block(&self) -> Option<Sequence> {
        self.chunks.first().map(|chunk| chunk.block)
    }

    /// Bytes of all chunks; `None` beyond 4 GiB.
    pub(crate) fn bytes(&self) -> Option<u32> {
        self.chunks.iter().try_fold(0u32, |sum, chunk| sum.checked_add(chunk.len))
    }
}

const FORM: u8 = 1;

impl PageValue for OpenTrain {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.term.0);
        put_len(out, self.chunks.len());
        self.chunks.iter().for_each(|chunk| put_chunk(out, chunk));
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        take(bytes).map_err(|error| DecodeError(error.to_string()))
    }
}

fn take(bytes: &[u8]) -> Result<OpenTrain, sabir_model::DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(FORM)?;
    let train = OpenTrain { term: Term(input.u64()?), chunks: input.list(3, take_chunk)? };
    input.end()?;
    Ok(train)
}
