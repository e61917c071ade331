//! A content's body, in the pieces in which it came.

use bytes::{Bytes, BytesMut};

use super::frame::FRAME_MIN;

/// Pieces smaller than this are gathered when more than one piece comes, so that a body of tiny frames takes memory in proportion to
/// its bytes, not to its frames.
const SMALL: usize = FRAME_MIN as usize / 2;
/// Bytes of small pieces of which one is made.
const GATHERED: usize = 16 * FRAME_MIN as usize;

/// A body: slices of what was read, nothing copied where pieces are of a sensible size.
#[derive(Debug, Clone, Default)]
pub struct ContentBody {
    /// The only piece of nearly every message, without an allocation.
    first: Bytes,
    more: Option<Box<FurtherPieces>>,
    len: u64,
}

/// What follows the first piece.
#[derive(Debug, Clone, Default)]
struct FurtherPieces {
    pieces: Vec<Bytes>,
    /// Small pieces that come behind all those.
    small: BytesMut,
}

impl ContentBody {
    /// A body of one piece.
    pub fn of(piece: Bytes) -> Self {
        Self { len: piece.len() as u64, first: piece, more: None }
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a piece behind those that are there; `is_last` where no more will come.
    #[inline]
    pub fn push(&mut self, piece: Bytes, is_last: bool) {
        let is_first = self.len == 0;
        self.len += piece.len() as u64;
        if is_first && (is_last || piece.len() >= SMALL) {
            self.first = piece;
        } else {
            self.more.get_or_insert_default().push(&piece, is_last);
        }
    }

    /// Copies the pieces from number `from` on, and gives how many there are: none holds the buffer any more in which it came, which may
    /// be much larger.
    pub fn detach(&mut self, from: u32) -> u32 {
        let further = self.more.iter_mut().flat_map(|more| &mut more.pieces);
        let all = std::iter::once(&mut self.first).chain(further).filter(|piece| !piece.is_empty());
        let mut count = 0;
        for piece in all {
            if count >= from {
                *piece = Bytes::copy_from_slice(piece);
            }
            count += 1;
        }
        count
    }

    /// The pieces in their order; none of them is empty. Of a body that is not whole yet, those that are there for good.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        let further = self.more.iter().flat_map(|more| &more.pieces);
        std::iter::once(&self.first).chain(further).filter(|piece| !piece.is_empty())
    }

    /// All in one; a copy only where there are several pieces.
    pub fn to_bytes(&self) -> Bytes {
        if self.more.is_none() {
            return self.first.clone();
        }
        let mut all = BytesMut::with_capacity(self.pieces().map(Bytes::len).sum());
        self.pieces().for_each(|piece| all.extend_from_slice(piece));
        all.freeze()
    }
}

impl FurtherPieces {
    fn push(&mut self, piece: &Bytes, is_last: bool) {
        let is_large = piece.len() >= SMALL;
        if is_large {
            self.gather();
            self.pieces.push(piece.clone());
        } else {
            self.small.extend_from_slice(piece);
        }
        if is_last || self.small.len() >= GATHERED {
            self.gather();
        }
    }

    /// Makes a piece of the small ones.
    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).freeze());
        }
    }
}

impl From<Bytes> for ContentBody {
    fn from(piece: Bytes) -> Self {
        Self::of(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_bytes_that_came_whatever_their_pieces() {
        for sizes in
            [&[5][..], &[0, 5], &[5000, 5000, 1], &[1, 1, 1], &[1, 5000, 1, 0, 1], &[70_000, 3, 2, 70_000]]
        {
            let total: usize = sizes.iter().sum();
            let all: Vec<u8> = (0..total).map(|n| (n % 251) as u8).collect();
            let (mut body, mut at) = (ContentBody::default(), 0);
            for size in sizes {
                let piece = Bytes::copy_from_slice(&all[at..at + size]);
                at += size;
                body.push(piece, at == total);
            }
            assert_eq!((body.len(), &body.to_bytes()[..]), (total as u64, &all[..]), "{sizes:?}");
        }
    }

    #[test]
    fn a_detached_body_holds_no_buffer_and_nothing_is_copied_twice() {
        let buffer = Bytes::from(vec![7; 100_000]);
        let mut body = ContentBody::default();
        body.push(Bytes::new(), false);
        let mut detached = body.detach(0);
        for at in [0, 10_000, 20_000] {
            body.push(buffer.slice(at..at + 5000), false);
            let before: Vec<_> = body.pieces().map(|piece| piece.as_ptr()).collect();
            detached = body.detach(detached);
            let now: Vec<_> = body.pieces().map(|piece| piece.as_ptr()).collect();
            let last = now.len() - 1;
            assert_eq!((&now[..last], now[last] == before[last]), (&before[..last], false));
        }
        assert!(buffer.is_unique(), "nothing else holds it");
        assert_eq!(body.to_bytes(), vec![7; 15_000]);
    }

    #[test]
    fn a_body_of_one_frame_is_a_slice_of_it() {
        let frame = Bytes::from(vec![7; 100]);
        let mut body = ContentBody::default();
        body.push(frame.slice(10..20), true);
        assert_eq!(body.to_bytes().as_ptr(), frame[10..].as_ptr());
    }

    #[test]
    fn a_body_of_tiny_frames_has_few_pieces() {
        let mut body = ContentBody::default();
        (0..100_000).for_each(|n| body.push(Bytes::from_static(b"x"), n == 99_999));
        assert!(body.pieces().count() < 5, "{}", body.pieces().count());
        assert_eq!(body.to_bytes().len(), 100_000);
    }
}
