//! What is on its way to the socket. What a client leaves unread is counted against the node's frame memory.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::input::{NoMemory, SMALL, UNCOUNTED};
use crate::memory::{FrameMemory, Grant};

/// Bytes written at once, or one piece more: a fast reader of much would be written to for as long as it reads. With less,
/// it would be woken for each little.
const AT_ONCE: usize = 1 << 20;

/// No more is put in while more bytes than this wait to be read by the client.
const MAX_UNREAD: usize = 256 * 1024;

/// Pieces that take nothing beside their bytes, as far as that is counted, and what each of the others takes: its place here, and that
/// in the allocator.
const FREE_PIECES: usize = 1024;
const PIECE: usize = 64;

/// What is to be sent, in order, written vectored: large pieces go out from where they lie.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Bytes>,
    len: usize,
    grant: Option<Grant>,
    /// Instead, for what is little.
    little: Option<Grant>,
}

impl Output {
    /// Takes over the memory that was granted for what is put in.
    pub fn take_grant(&mut self, granted: Grant) {
        match &mut self.grant {
            Some(grant) => grant.absorb(granted),
            none => *none = Some(granted),
        }
    }

    /// Settles down to wait until the client reads on, or to rest.
    ///
    /// # Errors
    /// No memory is left for what it has not read.
    pub(super) fn settle(&mut self, memory: &FrameMemory) -> Result<(), NoMemory> {
        let held = self.held();
        if held <= SMALL {
            (self.grant, self.little) = (None, None);
            return Ok(());
        }
        if held <= UNCOUNTED && Grant::hold(&mut self.little, held, || memory.try_take_little(held)) {
            self.grant = None;
            return Ok(());
        }
        self.little = None;
        if Grant::hold(&mut self.grant, held, || memory.try_take(held)) { Ok(()) } else { Err(NoMemory) }
    }

    /// Bytes that it takes.
    #[inline]
    fn held(&self) -> usize {
        self.len + self.pieces.len().saturating_sub(FREE_PIECES) * PIECE
    }

    /// Puts a piece behind all others.
    #[inline]
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether so much waits that no more is to be put in.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.held() > MAX_UNREAD
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let (mut filled, mut bytes) = (0, 0);
        for (slot, piece) in dst.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece);
            filled += 1;
            bytes += piece.len();
            if bytes >= AT_ONCE {
                break;
            }
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advanced past the end");
        self.len -= count;
        while count > 0 {
            let piece = self.pieces.front_mut().expect("the pieces have `len` bytes");
            if count < piece.len() {
                return piece.advance(count);
            }
            count -= piece.len();
            // Let go of it now: its memory may be a pooled buffer that others wait for.
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(output: &mut Output, head: &'static [u8], body: usize) {
        output.push(Bytes::from_static(head));
        output.push(Bytes::from(vec![b'x'; body]));
    }

    #[test]
    fn what_is_not_read_is_counted() {
        let memory = FrameMemory::new(10 * UNCOUNTED);
        let mut output = Output::default();
        push(&mut output, b"", UNCOUNTED);
        output.settle(&memory).expect("little is held");
        assert_eq!((memory.granted(), memory.granted_little()), (0, UNCOUNTED));
        push(&mut output, b"", UNCOUNTED);
        output.settle(&memory).expect("there is room");
        assert_eq!((memory.granted(), memory.granted_little()), (2 * UNCOUNTED, 0));
        output.take_grant(memory.try_take(5 * UNCOUNTED).expect("there is room"));
        output.settle(&memory).expect("there is room");
        assert_eq!(memory.granted(), 2 * UNCOUNTED);
        push(&mut output, b"", 9 * UNCOUNTED);
        assert_eq!(output.settle(&memory), Err(NoMemory));
        output.advance(10 * UNCOUNTED);
        output.settle(&memory).expect("little is held");
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn many_small_pieces_are_counted_too() {
        let memory = FrameMemory::new(10 * UNCOUNTED);
        let mut output = Output::default();
        (0..FREE_PIECES).for_each(|_| push(&mut output, b"+", 0));
        output.settle(&memory).expect("little is held");
        assert_eq!((memory.granted(), memory.granted_little()), (0, 0));
        let mut pieces = FREE_PIECES;
        while !output.is_full() {
            push(&mut output, b"+", 0);
            pieces += 1;
        }
        assert!(pieces < FREE_PIECES + MAX_UNREAD / PIECE, "{pieces}");
        output.settle(&memory).expect("there is room");
        assert!(memory.granted() > MAX_UNREAD);
        output.advance(pieces);
        output.settle(&memory).expect("nothing is held");
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn no_more_is_written_at_once_than_others_can_wait_for() {
        let mut output = Output::default();
        (0..5).for_each(|_| push(&mut output, b"head", AT_ONCE / 2));
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = output.chunks_vectored(&mut slices);
        let bytes: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
        assert_eq!(bytes, AT_ONCE + 8);
    }

    #[test]
    fn all_bytes_leave_in_order_whatever_the_steps() {
        let mut whole = b"one".to_vec();
        whole.extend([b'x'; 5000]);
        whole.extend(b"two");
        for step in [1, 2, 3, 4, 4999, 5003, 5006] {
            let mut output = Output::default();
            push(&mut output, b"one", 5000);
            push(&mut output, b"two", 0);
            let mut seen = Vec::new();
            while !output.is_empty() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = output.chunks_vectored(&mut slices);
                let all: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                assert_eq!(all.len(), output.remaining());
                let count = step.min(all.len());
                seen.extend_from_slice(&all[..count]);
                output.advance(count);
            }
            assert_eq!(seen, whole, "{step}");
            assert!(output.pieces.is_empty());
        }
    }
}
