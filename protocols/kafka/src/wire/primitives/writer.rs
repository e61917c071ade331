//! Writes fields into one arena, with large byte fields spliced in unread.

use bytes::Bytes;
use sabir_base::varint::put_u64;

use super::Encoded;

/// Byte fields from this length on are spliced in: below it, a copy costs less than a segment of a vectored write.
const SPLICE_FROM: usize = 2048;

/// Collects one message: small fields are copied into an arena, large byte fields are kept as they are between its parts.
#[derive(Debug, Default)]
pub struct Writer {
    arena: Vec<u8>,
    /// Pieces with their places in the arena, ascending.
    splices: Vec<(usize, Bytes)>,
    spliced: usize,
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty writer with room for `arena` bytes beside what is spliced in.
    pub fn with_capacity(arena: usize) -> Self {
        Self { arena: Vec::with_capacity(arena), ..Self::default() }
    }

    /// Bytes written so far, spliced ones too.
    pub fn len(&self) -> usize {
        self.arena.len() + self.spliced
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes in.
    pub fn put(&mut self, bytes: &[u8]) {
        self.arena.extend_from_slice(bytes);
    }

    /// Adds bytes, without a copy when they are many.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICE_FROM {
            return self.put(bytes);
        }
        self.splices.push((self.arena.len(), bytes.clone()));
        self.spliced += bytes.len();
    }

    /// One byte.
    pub fn i8(&mut self, value: i8) {
        self.put(&value.to_be_bytes());
    }

    /// A big-endian 16-bit integer.
    pub fn i16(&mut self, value: i16) {
        self.put(&value.to_be_bytes());
    }

    /// A big-endian 32-bit integer.
    pub fn i32(&mut self, value: i32) {
        self.put(&value.to_be_bytes());
    }

    /// A big-endian 64-bit integer.
    pub fn i64(&mut self, value: i64) {
        self.put(&value.to_be_bytes());
    }

    /// An unsigned varint.
    pub fn varint(&mut self, value: u32) {
        put_u64(&mut self.arena, u64::from(value));
    }

    /// A tagged field: its tag, its size and what `field` writes.
    pub(crate) fn tagged(&mut self, tag: u32, field: impl FnOnce(&mut Self)) {
        let mut inner = Self::new();
        field(&mut inner);
        self.varint(tag);
        self.varint(inner.len() as u32);
        let mut copied = 0;
        for (at, piece) in &inner.splices {
            self.put(&inner.arena[copied..*at]);
            self.put_shared(piece);
            copied = *at;
        }
        self.put(&inner.arena[copied..]);
    }

    /// Room for a frame's length, to be filled in by [`Writer::finish_frame`].
    pub(crate) fn begin_frame(&mut self) {
        self.i32(0);
    }

    /// Fills in the length that [`Writer::begin_frame`] left room for and gives the frame.
    pub(crate) fn finish_frame(mut self) -> Encoded {
        let len = (self.len() - 4) as i32;
        self.arena[..4].copy_from_slice(&len.to_be_bytes());
        self.finish()
    }

    /// What was written.
    pub fn finish(self) -> Encoded {
        Encoded::new(self.arena, self.splices)
    }
}
