//! What a writer gives: segments for a vectored write. And the record data of a fetch, likewise in pieces.

use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// An encoded message or frame as a row of segments; a [`Buf`], so it can be written with `write_all_buf` or vectored.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    segments: Vec<Bytes>,
    /// The first segment with something left.
    first: usize,
    len: usize,
}

impl Encoded {
    pub(super) fn new(arena: Vec<u8>, splices: Vec<(usize, Bytes)>) -> Self {
        let len = arena.len() + splices.iter().map(|(_, piece)| piece.len()).sum::<usize>();
        let arena = Bytes::from(arena);
        let mut segments = Vec::with_capacity(2 * splices.len() + 1);
        let mut from = 0;
        for (at, piece) in splices {
            if from < at {
                segments.push(arena.slice(from..at));
            }
            segments.push(piece);
            from = at;
        }
        if from == 0 {
            segments.push(arena);
        } else if from < arena.len() {
            segments.push(arena.slice(from..));
        }
        segments.retain(|segment| !segment.is_empty());
        Self { segments, first: 0, len }
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The segments left, in order.
    pub fn segments(&self) -> &[Bytes] {
        &self.segments[self.first..]
    }

    /// The same, handed over.
    pub fn into_segments(self) -> impl Iterator<Item = Bytes> {
        self.segments.into_iter().skip(self.first)
    }

    /// What is left as one piece: copied unless it is one already.
    pub fn to_bytes(&self) -> Bytes {
        match self.segments() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut whole = BytesMut::with_capacity(self.len);
                many.iter().for_each(|segment| whole.extend_from_slice(segment));
                whole.freeze()
            }
        }
    }
}

impl Buf for Encoded {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.segments.get(self.first).map_or(&[], |segment| segment)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let slots = dst.iter_mut().zip(self.segments());
        slots.map(|(slot, segment)| *slot = IoSlice::new(segment)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advanced past the end");
        self.len -= count;
        while count > 0 {
            let segment = &mut self.segments[self.first];
            let step = count.min(segment.len());
            segment.advance(step);
            count -= step;
            if segment.is_empty() {
                // Let go of it now: its memory may be a pooled buffer that others wait for.
                *segment = Bytes::new();
                self.first += 1;
            }
        }
    }
}

/// Record data: whole batches in one or more pieces that are never joined here.
#[derive(Debug, Clone, Default)]
pub struct RecordData {
    pieces: Pieces,
    len: usize,
}

#[derive(Debug, Clone, Default)]
enum Pieces {
    #[default]
    None,
    One(Bytes),
    Many(Vec<Bytes>),
}

impl RecordData {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        self.pieces = match std::mem::take(&mut self.pieces) {
            Pieces::None => Pieces::One(piece),
            Pieces::One(first) => Pieces::Many(vec![first, piece]),
            Pieces::Many(mut pieces) => {
                pieces.push(piece);
                Pieces::Many(pieces)
            }
        };
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.pieces {
            Pieces::None => &[],
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// Bytes of all the pieces.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it as one piece: copied unless it is one already.
    pub fn to_bytes(&self) -> Bytes {
        match self.pieces() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => Bytes::from(many.concat()),
        }
    }
}

impl From<Bytes> for RecordData {
    fn from(piece: Bytes) -> Self {
        Self { len: piece.len(), pieces: Pieces::One(piece) }
    }
}

impl From<Vec<Bytes>> for RecordData {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self { len: pieces.iter().map(Bytes::len).sum(), pieces: Pieces::Many(pieces) }
    }
}

/// Equal when the bytes are, however they are cut.
impl PartialEq for RecordData {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.pieces().iter().flatten().eq(other.pieces().iter().flatten())
    }
}

impl Eq for RecordData {}
