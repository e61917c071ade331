//! What is on its way to the socket. What a client leaves unread is counted against the node's frame memory: a piece as a whole until the
//! last of it is sent, for so long its memory is held. Pieces may be slices of far larger memory: what little is left unread, and small
//! pieces of what is much, are copied out of that.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use super::input::{NoMemory, SMALL, UNCOUNTED};
use crate::memory::{FrameMemory, Grant, MemoryPart};

/// Bytes written at once, or one piece more: a fast reader of much would be written to for as long as it reads. With less,
/// it would be woken for each little.
const AT_ONCE: usize = 1 << 20;

/// No more is put in while more bytes than this wait to be read by the client.
const MAX_UNREAD: usize = 256 * 1024;
/// So many may wait if answers are among them: a client may say all that it has to say before it reads on.
const MAX_UNANSWERED: usize = 2 * MAX_UNREAD;

/// Pieces that take nothing beside their bytes, as far as that is counted, and what each of the others takes: its place here, and that
/// in the allocator.
const FREE_PIECES: usize = 1024;
const PIECE: usize = 64;

/// A piece of which so little is left is copied out of what the rest of it took: one part in so many.
const LITTLE_LEFT: usize = 4;

/// What is to be sent, in order, written vectored: large pieces go out from where they lie.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Piece>,
    len: usize,
    /// Bytes of all pieces that are counted here, with what was sent of them.
    whole: usize,
    /// Pieces that hold memory that is counted elsewhere.
    held: usize,
    /// Pieces at the front that are known to hold no more than their own bytes.
    own: usize,
    grant: Option<Grant>,
    /// Instead, for what is little.
    little: Option<Grant>,
}

#[derive(Debug)]
struct Piece {
    /// What is left of it.
    bytes: Bytes,
    /// How many bytes it had, as far as they are counted here.
    whole: usize,
    /// Whether the memory that it is a slice of is counted elsewhere for as long as it is kept.
    held: bool,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { whole: bytes.len(), bytes, held: false }
    }
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
        self.let_go();
        if self.pieces.is_empty() && self.pieces.capacity() > FREE_PIECES {
            self.pieces = VecDeque::new();
        }
        let held = self.whole + self.beside();
        if held <= SMALL {
            (self.grant, self.little) = (None, None);
            return Ok(());
        }
        if held <= UNCOUNTED
            && Grant::hold(&mut self.little, held, || memory.try_take_little(MemoryPart::All, held))
        {
            self.grant = None;
            return Ok(());
        }
        self.little = None;
        if Grant::hold(&mut self.grant, held, || memory.try_take(held)) {
            return Ok(());
        }
        // What was granted for an answer is a little less than what that takes with all that is around it.
        let more = held - self.grant.as_ref().map_or(0, Grant::bytes);
        let little = more <= UNCOUNTED
            && Grant::hold(&mut self.little, more, || memory.try_take_little(MemoryPart::All, more));
        if little { Ok(()) } else { Err(NoMemory) }
    }

    /// Lets go of what it holds beside what is to be sent.
    fn let_go(&mut self) {
        if self.pieces.is_empty() {
            return;
        }
        if self.held > 0 && self.len > SMALL {
            self.let_go_beside_held();
        } else {
            if self.len <= MAX_UNREAD {
                self.join();
            } else {
                let small = |piece: &&mut Piece| piece.whole < SMALL;
                self.pieces.iter_mut().skip(self.own).filter(small).for_each(copy_out);
            }
            self.own = self.pieces.len();
        }
        if let Some(first) = self.pieces.front_mut()
            && first.whole > SMALL
            && first.bytes.len() <= first.whole / LITTLE_LEFT
        {
            self.whole -= first.whole - first.bytes.len();
            copy_out(first);
        }
    }

    /// The same where pieces hold memory that is counted elsewhere. They are not to need some here, too: they are joined with the others once all
    /// is so little that it is not counted.
    #[cold]
    fn let_go_beside_held(&mut self) {
        let small = |piece: &&mut Piece| piece.whole < SMALL && !piece.held;
        self.pieces.iter_mut().skip(self.own).filter(small).for_each(copy_out);
        self.own = self.pieces.iter().position(|piece| piece.held).unwrap_or(self.pieces.len());
    }

    /// Makes one of the pieces that may hold more than their bytes.
    fn join(&mut self) {
        let left = |piece: &Piece| piece.bytes.len();
        let len = self.pieces.iter().skip(self.own).map(left).sum();
        if len == 0 {
            return;
        }
        let mut joined = BytesMut::with_capacity(len);
        for piece in self.pieces.drain(self.own..) {
            joined.extend_from_slice(&piece.bytes);
            self.whole -= piece.whole;
        }
        self.whole += len;
        self.held = 0;
        self.pieces.push_back(joined.freeze().into());
    }

    /// Bytes that its pieces take beside their own.
    #[inline]
    fn beside(&self) -> usize {
        self.pieces.len().saturating_sub(FREE_PIECES) * PIECE
    }

    /// Puts a piece behind all others. While much is unread one of 4 KiB and more is counted with no more than its bytes: the memory that it
    /// is a slice of is not much larger, or is counted elsewhere.
    #[inline]
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.whole += piece.len();
            self.pieces.push_back(piece.into());
        }
    }

    /// The same with a slice of what holds memory of the node's for as long as any slice of it is kept.
    pub fn push_held(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.held += 1;
            self.pieces.push_back(Piece { bytes: piece, whole: 0, held: true });
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
        self.len + self.beside() > MAX_UNREAD
    }

    /// Whether there is room for answers, where what is pushed leaves some: a client that acknowledges what it was sent is read on while
    /// it does not read, or both would wait for each other.
    #[inline]
    pub fn has_room_for_answers(&self) -> bool {
        self.len + self.beside() <= MAX_UNANSWERED
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece.bytes)
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        let (mut filled, mut bytes) = (0, 0);
        for (slot, piece) in dst.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(&piece.bytes);
            filled += 1;
            bytes += piece.bytes.len();
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
            if count < piece.bytes.len() {
                return piece.bytes.advance(count);
            }
            count -= piece.bytes.len();
            self.whole -= piece.whole;
            self.held -= usize::from(piece.held);
            self.own = self.own.saturating_sub(1);
            // Let go of it now: its memory may be a pooled buffer that others wait for.
            self.pieces.pop_front();
        }
    }
}

/// Has a piece hold no more than what is left of it.
fn copy_out(piece: &mut Piece) {
    *piece = Bytes::copy_from_slice(&piece.bytes).into();
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
    fn what_is_a_little_more_than_what_was_granted_counts_as_little() {
        let memory = FrameMemory::new(12 * UNCOUNTED);
        let mut output = Output::default();
        output.take_grant(memory.try_take(5 * UNCOUNTED).expect("there is room"));
        let others = memory.try_take_of(MemoryPart::All, 7 * UNCOUNTED).expect("there is room");
        push(&mut output, b"head", 5 * UNCOUNTED);
        output.settle(&memory).expect("little is lacking");
        assert_eq!((memory.granted(), memory.granted_little()), (12 * UNCOUNTED, 4));
        drop(others);
        output.settle(&memory).expect("there is room");
        assert_eq!((memory.granted(), memory.granted_little()), (5 * UNCOUNTED + 4, 0));
        let _others = memory.try_take_of(MemoryPart::All, 4 * UNCOUNTED);
        push(&mut output, b"", 2 * UNCOUNTED);
        assert_eq!(output.settle(&memory), Err(NoMemory));
    }

    /// Memory of which it is known whether it is held.
    fn owned(bytes: usize) -> (Bytes, std::sync::Weak<()>) {
        struct Owner {
            bytes: Vec<u8>,
            _known: std::sync::Arc<()>,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        let known = std::sync::Arc::new(());
        let weak = std::sync::Arc::downgrade(&known);
        (Bytes::from_owner(Owner { bytes: vec![7; bytes], _known: known }), weak)
    }

    #[test]
    fn what_is_left_of_a_piece_does_not_hold_all_of_it() {
        let memory = FrameMemory::new(100 * UNCOUNTED);
        for (pieces, size) in [(1, 16 * UNCOUNTED), (40, UNCOUNTED), (300, 5000), (3000, 100)] {
            let mut output = Output::default();
            let all: Vec<_> = (0..pieces).map(|_| owned(size)).collect();
            all.iter().for_each(|(bytes, _)| output.push(bytes.clone()));
            let known: Vec<_> = all.into_iter().map(|(_, known)| known).collect();
            output.settle(&memory).expect("there is room");
            output.advance(pieces * size - 1);
            output.settle(&memory).expect("there is room");
            assert!(known.iter().all(|known| known.strong_count() == 0), "{pieces} of {size}");
            assert_eq!((memory.granted(), memory.granted_little(), output.chunk()), (0, 0, &[7][..]));
        }
    }

    #[test]
    fn what_is_held_of_pieces_that_are_partly_sent_is_counted() {
        let memory = FrameMemory::new(100 * UNCOUNTED);
        let mut output = Output::default();
        let ((first, known), (second, _)) = (owned(16 * UNCOUNTED), owned(16 * UNCOUNTED));
        output.push(first);
        output.push(second);
        output.settle(&memory).expect("there is room");
        output.advance(8 * UNCOUNTED);
        output.settle(&memory).expect("there is room");
        assert_eq!((known.strong_count(), memory.granted()), (1, 32 * UNCOUNTED));
        output.advance(5 * UNCOUNTED);
        output.settle(&memory).expect("there is room");
        assert_eq!((known.strong_count(), memory.granted()), (0, 19 * UNCOUNTED));
    }

    #[test]
    fn what_holds_memory_elsewhere_is_not_counted_until_little_of_it_is_left() {
        let memory = FrameMemory::new(10 * UNCOUNTED);
        let mut output = Output::default();
        let (large, known) = owned(100 * UNCOUNTED);
        push(&mut output, b"head", 2 * UNCOUNTED);
        (0..100).for_each(|at| output.push_held(large.slice(at * UNCOUNTED..(at + 1) * UNCOUNTED)));
        drop(large);
        output.settle(&memory).expect("little is counted");
        assert_eq!((output.len(), memory.granted()), (4 + 102 * UNCOUNTED, 4 + 2 * UNCOUNTED));
        output.advance(4 + 97 * UNCOUNTED);
        output.settle(&memory).expect("nothing is counted");
        assert_eq!((known.strong_count(), memory.granted()), (1, 0));
        output.advance(5 * UNCOUNTED - SMALL);
        output.settle(&memory).expect("little is left");
        assert_eq!((known.strong_count(), memory.granted(), output.len()), (0, 0, SMALL));
        output.advance(SMALL);
        output.settle(&memory).expect("nothing is left");
        assert_eq!((output.len(), output.whole, memory.granted()), (0, 0, 0));
    }

    #[test]
    fn slices_of_what_is_far_larger_do_not_hold_it() {
        let memory = FrameMemory::new(100 * UNCOUNTED);
        let mut output = Output::default();
        let (mut known, mut seen) = (Vec::new(), Vec::new());
        for i in 0..50 {
            let (large, one) = owned(16 * UNCOUNTED);
            output.push(large.slice(i..i + 100));
            known.push(one);
        }
        output.push(Bytes::from(vec![8; 10 * UNCOUNTED]));
        output.settle(&memory).expect("there is room");
        assert!(known.iter().all(|known| known.strong_count() == 0), "small ones of much");
        let (large, one) = owned(16 * UNCOUNTED);
        output.advance(5000 + 9 * UNCOUNTED);
        output.push(large.slice(..5000));
        drop(large);
        output.settle(&memory).expect("there is room");
        assert_eq!(one.strong_count(), 0, "and all of what is little");
        while !output.is_empty() {
            seen.extend_from_slice(output.chunk());
            output.advance(output.chunk().len());
        }
        assert_eq!(seen, [vec![8; UNCOUNTED], vec![7; 5000]].concat());
    }

    #[test]
    fn many_small_pieces_are_counted_too() {
        let memory = FrameMemory::new(10 * UNCOUNTED);
        let mut output = Output::default();
        (0..FREE_PIECES).for_each(|_| push(&mut output, b"+", 0));
        assert_eq!(output.beside(), 0);
        let mut pieces = FREE_PIECES;
        while !output.is_full() {
            push(&mut output, b"+", 0);
            pieces += 1;
        }
        assert!(pieces < FREE_PIECES + MAX_UNREAD / PIECE, "{pieces}");
        output.settle(&memory).expect("there is room");
        assert_eq!((output.beside(), memory.granted_little()), (0, pieces), "they are joined");
        assert!(!output.is_full());
        (0..2 * MAX_UNREAD).for_each(|_| push(&mut output, b"+", 0));
        output.settle(&memory).expect_err("there is no room for so many");
        output.advance(2 * MAX_UNREAD);
        output.settle(&memory).expect("there is room");
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
