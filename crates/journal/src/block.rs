//! The open block and the closed one.

use std::sync::Arc;

use sabir_base::buf::BufPool;
use sabir_model::Durability;

/// A block closes at this many bytes, its frame included.
pub const MAX_BLOCK: usize = 1 << 20;

/// The largest entry, payload and body together, that a block takes whole: Kafka's largest default batch and its body.
pub const LARGEST_ENTRY: usize = MAX_BLOCK + (64 << 10);

/// The open block: entries in arrival order, their payloads grouped by target when it closes.
///
/// One builder serves a shard for good: [`take`](Self::take) leaves it empty, its memory kept.
#[derive(Debug)]
pub struct BlockBuilder;

impl BlockBuilder {
    /// A builder that takes its buffers from `pool`.
    pub fn new(_pool: Arc<BufPool>) -> Self {
        unimplemented!()
    }

    /// Adds an entry and returns its index in the block. `group` is the target that small payloads are grouped by, so that
    /// a reader of one target gets runs. A payload of 4 KiB or more is copied into the block's buffer now, a smaller one
    /// when the block closes.
    ///
    /// The caller asks [`fits`](Self::fits) first.
    pub fn push(
        &mut self,
        _kind: u16,
        _body: &[u8],
        _payload: Option<&[u8]>,
        _group: u64,
        _durability: Durability,
    ) -> u32 {
        unimplemented!()
    }

    /// Whether an entry of this many bytes, payload and body together, may be pushed now. False: take the block first; on
    /// an empty builder: larger than [`LARGEST_ENTRY`], it goes as a train of chunks.
    pub fn fits(&self, _payload_and_body: usize) -> bool {
        unimplemented!()
    }

    /// What the block would take on the disk now, in bytes (an upper bound).
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }

    /// Entries pushed.
    pub fn entries(&self) -> u32 {
        unimplemented!()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// The time the next block will at least carry, in milliseconds since the epoch: what the last one carried.
    pub fn time_floor(&self) -> i64 {
        unimplemented!()
    }

    /// Raises the time the next block will at least carry, as after recovery.
    pub fn raise_time(&mut self, _ms: i64) {
        unimplemented!()
    }

    /// Closes the block at `time_ms` (or the last block's time where that is later) and leaves the builder empty.
    pub fn take(&mut self, _time_ms: i64) -> Block {
        unimplemented!()
    }
}

/// A closed block: its content, with room for the frame in front.
#[derive(Debug)]
pub struct Block;

impl Block {
    /// The content, as it will be read back.
    pub fn content(&self) -> &[u8] {
        unimplemented!()
    }

    /// What it takes on the disk, in bytes: frame and content, padded.
    pub fn framed_len(&self) -> usize {
        unimplemented!()
    }

    /// The strongest durability any entry asked for.
    pub fn durability(&self) -> Durability {
        unimplemented!()
    }

    /// Its time in milliseconds since the epoch.
    pub fn time_ms(&self) -> i64 {
        unimplemented!()
    }

    /// A block around a content made elsewhere (by another replica's leader), checked by a [`BlockView`](crate::BlockView).
    ///
    /// # Errors
    /// What the view says.
    pub fn from_content(
        _pool: &Arc<BufPool>,
        _content: &[u8],
        _durability: Durability,
    ) -> Result<Self, crate::ViewError> {
        unimplemented!()
    }
}
