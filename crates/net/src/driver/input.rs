//! The bytes that arrived and are not handled yet.
//!
//! A connection without anything half-arrived has no buffer: buffers are lent by the I/O thread. What waits for the rest of
//! its frame is counted against the node's frame memory by the buffer it holds, and holds one only as large as what has
//! arrived calls for, whatever size it announced.

use std::cell::RefCell;

use crate::memory::{FrameMemory, Grant, GrowingGrant};
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a lent buffer: what one read takes at most.
const BUFFER: usize = 256 * 1024;
/// Bytes of an incomplete frame, and of answers, that a connection may hold although no memory is left for it: they are counted apart.
pub const UNCOUNTED: usize = 64 * 1024;
/// What is no larger is not counted. Incomplete frames up to this size are moved to a buffer of their own size.
pub(super) const SMALL: usize = 4 * 1024;
/// The buffer for a frame that does not fit a lent one has this size, or that of the frame, and grows with what arrives.
const LARGE: usize = 1024 * 1024;
/// Buffers that an I/O thread keeps.
const SPARE: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// No memory is left for an incomplete frame, or for answers that are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoMemory;

/// A frame and what was granted for it.
struct Granted {
    frame: Bytes,
    _grant: Grant,
}

impl AsRef<[u8]> for Granted {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// A connection's input.
#[derive(Debug)]
pub struct Input {
    /// What has arrived and was not taken.
    pub bytes: BytesMut,
    /// How many bytes there must be before there is something to take.
    need: usize,
    grant: Option<Grant>,
    /// For a frame that does not fit a lent buffer, instead of the other.
    growing: Option<GrowingGrant>,
    /// For what little there is where no memory was left.
    little: Option<Grant>,
}

impl Default for Input {
    fn default() -> Self {
        Self::beginning(&[])
    }
}

impl Input {
    /// The input of a connection of which something has been read.
    pub(super) fn beginning(first: &[u8]) -> Self {
        Self { bytes: BytesMut::from(first), need: 1, grant: None, growing: None, little: None }
    }

    /// Says how many bytes there must be before there is something to take: as many as the frame that has begun has in all.
    #[inline]
    pub(super) fn need(&mut self, bytes: usize) {
        self.need = bytes;
    }

    /// How large the buffer must be to read on.
    fn capacity(&self) -> usize {
        let need = self.need;
        if need <= BUFFER || self.bytes.len() < BUFFER {
            return BUFFER;
        }
        need.min(LARGE.max(4 * self.bytes.len()))
    }

    /// How large a grant must be taken before reading on.
    pub(super) fn must_be_granted(&self) -> Option<usize> {
        let capacity = self.capacity();
        // A buffer that has room left is read into first.
        let full = self.bytes.len() >= self.held();
        (full && capacity > self.held()).then_some(capacity)
    }

    /// How large the buffer may be.
    fn held(&self) -> usize {
        self.growing.as_ref().map_or(0, GrowingGrant::bytes).max(BUFFER)
    }

    /// Takes a grant of `bytes` for the frame under way, instead of a smaller one; false where that has to wait.
    ///
    /// # Errors
    /// No memory is left for what has arrived of it while it waits.
    pub(super) fn grow(&mut self, bytes: usize, memory: &FrameMemory) -> Result<bool, NoMemory> {
        // What it holds without a claim is none of what it may wait with.
        self.grant = None;
        // A claim is one frame's: that of a frame which has been taken out says nothing of the next one.
        self.growing = self.growing.take().filter(|growing| growing.claim() >= self.need.min(memory.total()));
        let growing = self.growing.get_or_insert_with(|| GrowingGrant::new(memory, self.need));
        if growing.try_grow(bytes) {
            self.little = None;
            return Ok(true);
        }
        let len = self.bytes.len();
        let kept = growing.bytes() > 0 || Grant::hold(&mut self.little, len, || memory.try_take_little(len));
        if kept { Ok(false) } else { Err(NoMemory) }
    }

    /// Nothing more is wanted of the frame under way for now.
    pub(super) fn rest(&mut self) {
        if let Some(growing) = &mut self.growing {
            growing.rest();
        }
    }

    /// The grant for the frame that is there whole.
    fn take_grant(&mut self) -> Option<Grant> {
        self.growing.take().and_then(GrowingGrant::into_grant).or_else(|| self.grant.take())
    }

    /// Makes room to read on.
    pub(super) fn make_room(&mut self) {
        let capacity = self.capacity().min(self.held());
        let missing = capacity.saturating_sub(self.bytes.len()).max(1);
        if self.bytes.capacity() > 0 && self.bytes.try_reclaim(missing) {
            return;
        }
        let mut roomy = if capacity == BUFFER { lend() } else { BytesMut::with_capacity(capacity) };
        roomy.extend_from_slice(&self.bytes);
        give_back(std::mem::replace(&mut self.bytes, roomy));
    }

    /// Settles down to wait for the rest of a frame.
    ///
    /// # Errors
    /// No memory is left for what has arrived of it.
    pub(super) fn settle(&mut self, memory: &FrameMemory) -> Result<(), NoMemory> {
        let len = self.bytes.len();
        if len <= SMALL {
            // It was for frames that have been taken out.
            (self.grant, self.growing, self.little) = (None, None, None);
            if len == 0 { give_back(std::mem::take(&mut self.bytes)) } else { self.shrink() }
        } else if self.need > BUFFER {
            // It may have to wait for the rest later on, and must not do so with what has no claim.
            let claim = self.need.min(memory.total());
            if self.growing.as_ref().is_none_or(|growing| growing.bytes() == 0 || growing.claim() < claim) {
                self.grow(len.max(BUFFER), memory)?;
            }
        } else if self.grant.is_none() {
            self.growing = None;
            self.grant = memory.try_take(BUFFER);
            if self.grant.is_some() {
                self.little = None;
                return Ok(());
            }
            if len > UNCOUNTED || !Grant::hold(&mut self.little, len, || memory.try_take_little(len)) {
                return Err(NoMemory);
            }
            self.shrink();
        }
        Ok(())
    }

    /// Moves what there is to a buffer of its size.
    fn shrink(&mut self) {
        if self.bytes.capacity() > self.bytes.len().max(SMALL) {
            let small = BytesMut::from(&self.bytes[..]);
            give_back(std::mem::replace(&mut self.bytes, small));
        }
    }

    /// A frame that has been taken out whole, with the grant for it: that is kept as long as any of its bytes are, and no longer.
    fn hand_on(&mut self, frame: Bytes) -> Bytes {
        match self.take_grant() {
            Some(grant) => Bytes::from_owner(Granted { frame, _grant: grant }),
            None => frame,
        }
    }
}

impl Input {
    /// Takes the first `len` bytes out, to be kept.
    ///
    /// # Errors
    /// No memory is left for them.
    pub(super) fn take(&mut self, len: usize, memory: &FrameMemory) -> Result<Bytes, NoMemory> {
        if len > UNCOUNTED {
            let frame = self.take_passing(len);
            return Ok(self.hand_on(frame));
        }
        let frame = Bytes::copy_from_slice(&self.bytes[..len]);
        self.bytes.advance(len);
        self.need = 1;
        self.keep(frame, memory)
    }

    /// Takes the first `len` bytes out; they hold the buffer.
    pub(super) fn take_passing(&mut self, len: usize) -> Bytes {
        self.need = 1;
        self.bytes.split_to(len).freeze()
    }

    /// The grant for a frame of so many bytes that has been taken out and is kept.
    ///
    /// # Errors
    /// No memory is left for it.
    pub fn grant_for(&mut self, bytes: usize, memory: &FrameMemory) -> Result<Option<Grant>, NoMemory> {
        let little = || if bytes <= UNCOUNTED { memory.try_take_little(bytes) } else { None };
        match self.take_grant().or_else(|| memory.try_take(bytes)).or_else(little) {
            None if bytes > SMALL => Err(NoMemory),
            grant => Ok(grant),
        }
    }

    /// A frame that was copied out whole and is kept, with the grant for it.
    ///
    /// # Errors
    /// No memory is left for it.
    fn keep(&mut self, frame: Bytes, memory: &FrameMemory) -> Result<Bytes, NoMemory> {
        if frame.len() <= SMALL {
            return Ok(frame);
        }
        let grant = memory.try_take_little(frame.len()).ok_or(NoMemory)?;
        Ok(Bytes::from_owner(Granted { frame, _grant: grant }))
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes));
    }
}

fn lend() -> BytesMut {
    let kept = BUFFERS.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| BytesMut::with_capacity(BUFFER))
}

fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    // One that requests still share is left to them.
    let whole = buffer.capacity() > 0 && buffer.try_reclaim(BUFFER) && buffer.capacity() < 2 * BUFFER;
    if whole {
        BUFFERS.with_borrow_mut(|kept| {
            if kept.len() < SPARE {
                kept.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(bytes: usize) -> Input {
        let mut input = Input::default();
        input.make_room();
        input.bytes.extend_from_slice(&vec![1; bytes]);
        input
    }

    #[test]
    fn idle_and_slow_connections_hold_little() {
        let memory = FrameMemory::new(2 * BUFFER);
        let mut idle = with(0);
        assert!(idle.bytes.capacity() >= BUFFER);
        idle.settle(&memory).expect("nothing is held");
        assert_eq!(idle.bytes.capacity(), 0);

        let mut slow = with(3);
        slow.settle(&memory).expect("little is held");
        assert!(slow.bytes.capacity() <= SMALL);
        assert_eq!((slow.bytes.len(), memory.granted()), (3, 0));
        slow.need(5000);
        slow.make_room();
        assert!(slow.bytes.len() == 3 && slow.bytes.capacity() >= BUFFER);
    }

    #[test]
    fn what_waits_is_counted() {
        let memory = FrameMemory::new(2 * BUFFER);
        let mut inputs: Vec<Input> = (0..3).map(|_| with(SMALL + 1)).collect();
        inputs.iter_mut().for_each(|input| input.settle(&memory).expect("held"));
        assert_eq!(memory.granted(), 2 * BUFFER);
        assert!(inputs[1].bytes.capacity() >= BUFFER);
        assert!(
            inputs[2].bytes.capacity() < 2 * SMALL,
            "there was no memory left, so it is as small as it can be"
        );
        assert_eq!(with(UNCOUNTED + 1).settle(&memory), Err(NoMemory));
        drop(inputs);
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn the_little_that_many_hold_where_no_memory_is_left_is_bounded_too() {
        let memory = FrameMemory::new(4 * UNCOUNTED);
        let all = memory.try_take(memory.total()).expect("it is free");
        let mut inputs: Vec<Input> = (0..100).map(|_| with(UNCOUNTED / 4)).collect();
        let held = inputs.iter_mut().filter_map(|input| input.settle(&memory).ok()).count();
        assert_eq!((held, memory.granted_little()), (4, UNCOUNTED));
        assert_eq!(inputs[4].keep(Bytes::from(vec![1; SMALL + 1]), &memory), Err(NoMemory));
        assert!(inputs[4].grant_for(SMALL + 1, &memory).is_err());
        inputs[0].bytes.clear();
        inputs[0].settle(&memory).expect("nothing is held");
        let frame = inputs[4].keep(Bytes::from(vec![1; UNCOUNTED / 4]), &memory).expect("there is room");
        assert_eq!(memory.granted_little(), UNCOUNTED);
        drop(all);
        inputs[1].settle(&memory).expect("there is memory again");
        assert_eq!((memory.granted(), memory.granted_little()), (BUFFER, 3 * UNCOUNTED / 4));
        drop((inputs, frame));
        assert_eq!((memory.granted(), memory.granted_little()), (0, 0));
    }

    #[test]
    fn memory_grows_with_what_arrives_and_not_with_what_is_announced() {
        let memory = FrameMemory::new(100 * LARGE);
        let announced = 64 * LARGE;
        let mut input = with(BUFFER - 1);
        input.need(announced);
        assert_eq!(input.must_be_granted(), None);
        input.bytes.extend_from_slice(b"x");
        let mut sizes = Vec::new();
        while let Some(size) = input.must_be_granted() {
            sizes.push(size);
            assert_eq!(input.grow(size, &memory), Ok(true));
            assert_eq!(memory.granted(), size, "it is in place of the smaller one");
            input.make_room();
            assert!(input.bytes.capacity() >= size && input.bytes.capacity() < 2 * size);
            input.bytes.resize(size.min(20 * LARGE), 2);
        }
        assert_eq!(sizes, [LARGE, 4 * LARGE, 16 * LARGE, 64 * LARGE]);
        assert!(input.bytes[..BUFFER - 1].iter().all(|b| *b == 1));
        let frame = input.bytes.split().freeze();
        input.settle(&memory).expect("empty");
        assert_eq!((memory.granted(), frame.len()), (0, 20 * LARGE));
    }

    #[test]
    fn what_waits_for_its_first_grant_is_counted_with_what_is_little_and_lets_go_of_the_rest() {
        let memory = FrameMemory::new(4 * BUFFER);
        let mut waiting = with(BUFFER);
        waiting.settle(&memory).expect("there is room");
        let all = memory.try_take(3 * BUFFER).expect("fits");
        waiting.need(2 * BUFFER);
        assert_eq!(waiting.grow(2 * BUFFER, &memory), Ok(false));
        assert_eq!((memory.granted(), memory.granted_little()), (3 * BUFFER, BUFFER));
        let mut other = with(BUFFER);
        other.need(2 * BUFFER);
        assert_eq!(other.grow(2 * BUFFER, &memory), Err(NoMemory));
        drop((all, other));
        assert_eq!(waiting.grow(2 * BUFFER, &memory), Ok(true));
        assert_eq!((memory.granted(), memory.granted_little()), (2 * BUFFER, 0));
        drop(waiting);
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn the_claim_of_a_frame_that_was_taken_out_is_not_that_of_the_next() {
        let memory = FrameMemory::new(40 * BUFFER);
        let one_after_another = || {
            let mut input = with(2 * BUFFER);
            input.need(2 * BUFFER);
            assert_eq!(input.grow(2 * BUFFER, &memory), Ok(true));
            input.need(30 * BUFFER);
            input
        };
        let (mut first, mut second) = (one_after_another(), one_after_another());
        assert_eq!(first.grow(16 * BUFFER, &memory), Ok(true));
        assert_eq!(second.grow(16 * BUFFER, &memory), Ok(false), "neither would ever be whole");
        assert_eq!(first.grow(30 * BUFFER, &memory), Ok(true));
        drop(first);
        assert_eq!(second.grow(30 * BUFFER, &memory), Ok(true));
    }

    #[test]
    fn a_grant_goes_with_the_frame_and_ends_with_its_last_bytes() {
        let memory = FrameMemory::new(2 * BUFFER);
        let mut input = with(UNCOUNTED + 1);
        input.settle(&memory).expect("there is room");
        let frame = input.bytes.split().freeze();
        let frame = input.hand_on(frame);
        input.settle(&memory).expect("nothing is held");
        let part = frame.slice(UNCOUNTED..);
        drop(frame);
        assert_eq!((memory.granted(), &part[..]), (BUFFER, &[1][..]));
        drop(part);
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn a_grant_ends_when_little_is_left_behind_the_frame() {
        let memory = FrameMemory::new(2 * BUFFER);
        let mut input = with(SMALL + 1);
        input.settle(&memory).expect("there is room");
        drop(input.bytes.split_to(SMALL));
        input.settle(&memory).expect("little is held");
        assert_eq!((memory.granted(), input.bytes.len()), (0, 1));
    }

    #[test]
    fn a_frame_a_little_larger_than_a_buffer_gets_all_its_room_at_once() {
        let memory = FrameMemory::new(2 * LARGE);
        let mut input = with(BUFFER);
        input.need(BUFFER);
        assert_eq!(input.must_be_granted(), None);
        input.need(BUFFER + 5);
        assert_eq!(input.must_be_granted(), Some(BUFFER + 5));
        assert_eq!(input.grow(BUFFER + 5, &memory), Ok(true));
        assert_eq!(input.must_be_granted(), None);
        input.make_room();
        assert!(input.bytes.capacity() >= BUFFER + 5);
    }

    #[test]
    fn a_buffer_that_requests_share_is_not_lent_again() {
        let mut input = Input::default();
        input.make_room();
        input.bytes.extend_from_slice(b"abcdef");
        let kept = input.bytes.split_to(3).freeze();
        input.make_room();
        assert_eq!(&input.bytes[..], b"def");
        drop(input);
        let mut other = Input::default();
        other.make_room();
        other.bytes.extend_from_slice(b"xxxxxx");
        assert_eq!(kept, "abc");
    }
}
