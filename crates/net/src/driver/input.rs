//! The bytes that arrived and are not handled yet.
//!
//! A connection without anything half-arrived has no buffer: buffers are lent by the I/O thread. More than a little is read only with a
//! grant of the node's frame memory, which is one as large as what has arrived calls for, whatever size a frame announced; and what waits
//! is counted by the buffer that it holds.

use std::cell::RefCell;

use crate::memory::{FrameMemory, Grant, GrowingGrant, Lack, MemoryPart};
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a lent buffer: what one read takes at most.
const BUFFER: usize = 256 * 1024;
/// Bytes that are read without a grant, and of incomplete frames and of answers that a connection may hold although no memory is left
/// for it: they are counted apart.
pub const UNCOUNTED: usize = 64 * 1024;
/// What is no larger is not counted.
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
    /// Bytes that the buffer takes, with what was taken out of it.
    size: usize,
    /// Whether there were as many bytes after the last read as are not counted: what comes next may have as many, too.
    flows: bool,
    /// What it may have of the memory: all, once a whole frame was taken.
    part: MemoryPart,
    /// For a lent buffer. It is given back before more is waited for.
    grant: Option<Grant>,
    /// For a frame that does not fit a lent buffer, instead of the other.
    growing: Option<GrowingGrant>,
    /// Whether the frame that it grew for was taken.
    is_grown: bool,
    /// Instead of both, for what little there is.
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
        Self {
            bytes: BytesMut::from(first),
            need: 1,
            size: first.len(),
            flows: false,
            part: MemoryPart::Common,
            grant: None,
            growing: None,
            is_grown: false,
            little: None,
        }
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
    #[inline]
    pub(super) fn must_be_granted(&self) -> Option<usize> {
        if self.bytes.len() < UNCOUNTED {
            return None;
        }
        let capacity = self.capacity();
        // A buffer that has room left is read into first.
        let full = self.bytes.len() >= self.most();
        (full && capacity > self.most()).then_some(capacity)
    }

    /// Bytes that are granted for the buffer.
    fn granted(&self) -> usize {
        let growing = self.growing.as_ref().map_or(0, GrowingGrant::bytes);
        growing.max(self.grant.as_ref().map_or(0, Grant::bytes))
    }

    /// How much may be read.
    fn most(&self) -> usize {
        self.granted().max(UNCOUNTED)
    }

    /// How many bytes may be read now.
    pub(super) fn room(&self) -> usize {
        self.most().saturating_sub(self.bytes.len()).max(1)
    }

    /// Something has been read.
    pub(super) fn has_read(&mut self) {
        self.flows = self.bytes.len() >= UNCOUNTED;
    }

    /// Whether memory is held that others may want while the frame arrives.
    pub(super) fn holds(&self) -> bool {
        self.granted() > 0 || self.little.is_some()
    }

    /// Whether there is too little of what it holds.
    pub(super) fn is_short(&self, memory: &FrameMemory) -> bool {
        (self.granted() > 0 && memory.is_short()) || (self.little.is_some() && memory.is_little_short())
    }

    /// Takes a grant of `bytes` for the frame under way, instead of a smaller one; false where that has to wait.
    ///
    /// # Errors
    /// No memory is left for what has arrived of it while it waits.
    pub(super) fn grow(&mut self, bytes: usize, memory: &FrameMemory) -> Result<bool, NoMemory> {
        let given = self.try_grow(bytes, memory, GrowingGrant::try_grow);
        self.has_grown(given, memory)
    }

    /// The same of one that does not wait for it: it keeps what has arrived, with a grant for that if there is room.
    fn grow_at_once(&mut self, bytes: usize, memory: &FrameMemory) -> Result<(), NoMemory> {
        let given = self.try_grow(bytes, memory, GrowingGrant::try_grow_at_once);
        self.has_grown(given, memory).map(drop)
    }

    fn has_grown(&mut self, given: bool, memory: &FrameMemory) -> Result<bool, NoMemory> {
        if given {
            self.little = None;
            return Ok(true);
        }
        if self.granted() == 0 {
            let (part, len) = (self.part, self.bytes.len());
            if !Grant::hold(&mut self.little, len, || memory.try_take_little(part, len)) {
                return Err(NoMemory);
            }
            self.shrink();
        }
        Ok(false)
    }

    fn try_grow(
        &mut self,
        bytes: usize,
        memory: &FrameMemory,
        grow: fn(&mut GrowingGrant, usize) -> bool,
    ) -> bool {
        // What it holds without a claim is none of what it may wait with.
        self.grant = None;
        if bytes <= BUFFER && self.need <= BUFFER {
            self.growing = None;
            self.grant = memory.try_take_of(self.part, BUFFER);
            return self.grant.is_some();
        }
        // A claim is one frame's: that of a frame which has been taken out says nothing of the next one.
        self.growing = self.growing.take().filter(|growing| growing.claim() >= self.need.min(memory.total()));
        let (part, claim) = (self.part, self.need.max(bytes));
        grow(self.growing.get_or_insert_with(|| GrowingGrant::new(memory, part, claim)), bytes)
    }

    /// That less is left than the frame under way waits for, which asked for `bytes`, if so.
    pub(super) fn lack(&self, bytes: usize, memory: &FrameMemory) -> Option<Lack> {
        match &self.growing {
            Some(growing) => growing.lack(bytes),
            None => memory.lack(self.part, bytes, 0),
        }
    }

    /// The frame under way does not wait any more.
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
    pub(super) fn make_room(&mut self, memory: &FrameMemory) {
        if self.flows && self.granted() == 0 && self.need <= BUFFER {
            self.grant = memory.try_take_of_plenty(BUFFER);
        }
        let largest = self.granted().max(BUFFER);
        let capacity = self.capacity().min(largest);
        let missing = capacity.saturating_sub(self.bytes.len()).max(1);
        let fits = self.bytes.capacity() > 0 && self.size <= largest;
        if !fits || !self.bytes.try_reclaim(missing) {
            self.move_to(capacity);
        }
    }

    /// Moves what there is to a buffer of so many bytes.
    fn move_to(&mut self, capacity: usize) {
        let mut roomy = if capacity == BUFFER { lend() } else { BytesMut::with_capacity(capacity) };
        roomy.extend_from_slice(&self.bytes);
        self.replace(roomy);
    }

    /// Has what there is in another buffer.
    fn replace(&mut self, bytes: BytesMut) {
        let size = std::mem::replace(&mut self.size, bytes.capacity());
        give_back(std::mem::replace(&mut self.bytes, bytes), size);
    }

    /// Settles down to wait for the rest of a frame, or with frames that wait.
    ///
    /// # Errors
    /// No memory is left for what has arrived of it.
    pub(super) fn settle(&mut self, memory: &FrameMemory) -> Result<(), NoMemory> {
        let len = self.bytes.len();
        // What was for a frame that has been taken out, unless it has become the next one's, or is no more than that takes.
        if std::mem::take(&mut self.is_grown) && self.granted() > self.capacity() {
            self.growing = None;
        }
        if len <= SMALL {
            // It was for frames that have been taken out.
            (self.grant, self.growing, self.little) = (None, None, None);
            self.shrink();
            return Ok(());
        }
        if len <= UNCOUNTED && self.granted() == 0 {
            self.settle_little(memory)?;
        } else if len > self.granted() || !self.has_claim(memory) {
            self.grow_at_once(len.max(BUFFER), memory)?;
        }
        if self.granted() > 0 && self.size > self.granted() {
            self.move_to(self.capacity().min(self.granted()).max(len));
        }
        Ok(())
    }

    /// Whether it may wait for the rest of its frame with what it holds, or gives that up for it.
    fn has_claim(&self, memory: &FrameMemory) -> bool {
        let claims = |growing: &GrowingGrant| growing.claim() >= self.need.min(memory.total());
        self.need <= BUFFER || self.bytes.len() <= UNCOUNTED || self.growing.as_ref().is_some_and(claims)
    }

    /// Has what little there is take no more memory than it has bytes, unless there is plenty.
    fn settle_little(&mut self, memory: &FrameMemory) -> Result<(), NoMemory> {
        self.growing = None;
        self.grant = memory.try_take_of_plenty(BUFFER);
        if self.grant.is_some() {
            self.little = None;
            return Ok(());
        }
        let (part, len) = (self.part, self.bytes.len());
        if !Grant::hold(&mut self.little, len, || memory.try_take_little(part, len)) {
            self.little = Some(memory.try_take_of(part, len).ok_or(NoMemory)?);
        }
        self.shrink();
        Ok(())
    }

    /// Moves what there is to a buffer of its size.
    fn shrink(&mut self) {
        if self.bytes.is_empty() && self.size > 0 {
            self.replace(BytesMut::new());
        } else if self.size > self.bytes.len().max(SMALL) {
            self.replace(BytesMut::from(&self.bytes[..]));
        }
    }

    /// A frame was taken out: its client is known to send whole ones.
    #[inline]
    fn taken(&mut self) {
        self.need = 1;
        self.part = MemoryPart::All;
        self.is_grown = self.growing.is_some();
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
        if len > UNCOUNTED && self.granted() >= len {
            let frame = self.take_passing(len);
            return Ok(self.hand_on(frame));
        }
        self.taken();
        let frame = Bytes::copy_from_slice(&self.bytes[..len]);
        self.bytes.advance(len);
        self.keep(frame, memory)
    }

    /// Takes the first `len` bytes out; they hold the buffer.
    pub(super) fn take_passing(&mut self, len: usize) -> Bytes {
        self.taken();
        self.bytes.split_to(len).freeze()
    }

    /// The grant for a frame of so many bytes that has been taken out and is kept.
    ///
    /// # Errors
    /// No memory is left for it.
    pub fn grant_for(&mut self, bytes: usize, memory: &FrameMemory) -> Result<Option<Grant>, NoMemory> {
        let little =
            || if bytes <= UNCOUNTED { memory.try_take_little(MemoryPart::All, bytes) } else { None };
        match self.take_grant().or_else(|| memory.try_take_of(MemoryPart::All, bytes)).or_else(little) {
            None if bytes > SMALL => Err(NoMemory),
            grant => Ok(grant),
        }
    }

    /// A frame that was copied out whole and is kept, with the grant for it.
    ///
    /// # Errors
    /// No memory is left for it.
    fn keep(&mut self, frame: Bytes, memory: &FrameMemory) -> Result<Bytes, NoMemory> {
        let len = frame.len();
        if len <= SMALL {
            return Ok(frame);
        }
        let little = if len <= UNCOUNTED { memory.try_take_little(MemoryPart::All, len) } else { None };
        let grant = little.or_else(|| memory.try_take_of(MemoryPart::All, len)).ok_or(NoMemory)?;
        Ok(Bytes::from_owner(Granted { frame, _grant: grant }))
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.replace(BytesMut::new());
    }
}

fn lend() -> BytesMut {
    let kept = BUFFERS.with_borrow_mut(Vec::pop);
    kept.unwrap_or_else(|| BytesMut::with_capacity(BUFFER))
}

/// Keeps a buffer of so many bytes, with what was taken out of it, for the connection that is lent one next.
fn give_back(mut buffer: BytesMut, size: usize) {
    buffer.clear();
    // One that requests still share is left to them. Of a larger one as much as this may be what is left of it.
    if size == BUFFER && buffer.try_reclaim(BUFFER) && buffer.capacity() == BUFFER {
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
        input.make_room(&FrameMemory::new(0));
        input.bytes.extend_from_slice(&vec![1; bytes]);
        input
    }

    /// Of a client that has sent a whole frame before.
    fn known(bytes: usize) -> Input {
        let mut input = with(bytes + 1);
        drop(input.take_passing(1));
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
        slow.make_room(&memory);
        assert!(slow.bytes.len() == 3 && slow.bytes.capacity() >= BUFFER);
    }

    #[test]
    fn what_waits_is_counted() {
        let memory = FrameMemory::new(4 * BUFFER);
        let mut inputs: Vec<Input> = (0..3).map(|_| with(SMALL + 1)).collect();
        inputs.iter_mut().for_each(|input| input.settle(&memory).expect("held"));
        assert_eq!((memory.granted(), memory.granted_little()), (2 * BUFFER, SMALL + 1));
        assert!(inputs[1].bytes.capacity() >= BUFFER);
        assert!(
            inputs[2].bytes.capacity() < 2 * SMALL,
            "there is no plenty of memory, so it is as small as it can be"
        );
        let mut larger: Vec<Input> = (0..4).map(|_| with(UNCOUNTED + 1)).collect();
        let settled: Vec<bool> = larger.iter_mut().map(|input| input.settle(&memory).is_ok()).collect();
        assert_eq!(
            settled,
            [true, true, true, false],
            "one has memory, and two wait for it with what is little"
        );
        assert_eq!((memory.granted(), larger[1].granted()), (3 * BUFFER, 0));
        let mut known = known(UNCOUNTED + 1);
        known.settle(&memory).expect("a quarter is kept for it");
        assert_eq!(memory.granted(), 4 * BUFFER);
        drop((inputs, larger, known));
        assert_eq!((memory.granted(), memory.granted_little()), (0, 0));
    }

    #[test]
    fn the_little_that_many_hold_where_no_memory_is_left_is_bounded_too() {
        let memory = FrameMemory::new(16 * UNCOUNTED);
        let all = memory.try_take(memory.total()).expect("it is free");
        let mut inputs: Vec<Input> = (0..100).map(|_| with(UNCOUNTED)).collect();
        let held = inputs.iter_mut().filter_map(|input| input.settle(&memory).ok()).count();
        assert_eq!((held, memory.granted_little()), (3, 3 * UNCOUNTED));
        let known =
            inputs[4].keep(Bytes::from(vec![1; UNCOUNTED]), &memory).expect("a quarter is kept for it");
        assert_eq!(inputs[4].keep(Bytes::from(vec![1; SMALL + 1]), &memory), Err(NoMemory));
        assert!(inputs[4].grant_for(SMALL + 1, &memory).is_err());
        inputs[0].bytes.clear();
        inputs[0].settle(&memory).expect("nothing is held");
        let frame = inputs[4].keep(Bytes::from(vec![1; UNCOUNTED]), &memory).expect("there is room");
        assert_eq!(memory.granted_little(), 4 * UNCOUNTED);
        drop(all);
        inputs[1].settle(&memory).expect("there is memory again");
        assert_eq!((memory.granted(), memory.granted_little()), (BUFFER, 3 * UNCOUNTED));
        drop((inputs, frame, known));
        assert_eq!((memory.granted(), memory.granted_little()), (0, 0));
    }

    #[test]
    fn memory_grows_with_what_arrives_and_not_with_what_is_announced() {
        let memory = FrameMemory::new(100 * LARGE);
        let announced = 64 * LARGE;
        let mut input = with(UNCOUNTED - 1);
        input.need(announced);
        assert_eq!((input.must_be_granted(), input.room()), (None, 1));
        input.bytes.extend_from_slice(b"x");
        let mut sizes = Vec::new();
        while let Some(size) = input.must_be_granted() {
            sizes.push(size);
            assert_eq!(input.grow(size, &memory), Ok(true));
            assert_eq!(memory.granted(), size, "it is in place of the smaller one");
            input.make_room(&memory);
            assert!(input.bytes.capacity() >= size && input.bytes.capacity() < 2 * size);
            input.bytes.resize(size.min(20 * LARGE), 2);
        }
        assert_eq!(sizes, [BUFFER, LARGE, 4 * LARGE, 16 * LARGE, 64 * LARGE]);
        assert!(input.bytes[..UNCOUNTED - 1].iter().all(|b| *b == 1));
        let frame = input.bytes.split().freeze();
        input.settle(&memory).expect("empty");
        assert_eq!((memory.granted(), frame.len()), (0, 20 * LARGE));
    }

    #[test]
    fn more_than_a_little_is_read_only_with_a_grant() {
        let memory = FrameMemory::new(4 * BUFFER);
        let mut input = Input::default();
        let read = |input: &mut Input, memory: &FrameMemory| {
            input.make_room(memory);
            let count = input.room();
            input.bytes.extend_from_slice(&vec![1; count]);
            input.has_read();
            drop(input.take_passing(count));
            count
        };
        assert_eq!((read(&mut input, &memory), memory.granted()), (UNCOUNTED, 0));
        assert_eq!((read(&mut input, &memory), memory.granted()), (BUFFER, BUFFER));
        input.settle(&memory).expect("nothing is held");
        assert_eq!(memory.granted(), 0);
        let _others = memory.try_take(2 * BUFFER).expect("there is room");
        assert_eq!(read(&mut input, &memory), UNCOUNTED, "there is no plenty");
        input.has_read();
        let memory = FrameMemory::new(4 * BUFFER);
        assert_eq!(read(&mut input, &memory), UNCOUNTED, "less has come");
    }

    #[test]
    fn frames_that_are_counted_are_expected_of_who_sent_one() {
        let memory = FrameMemory::new(4 * BUFFER);
        let mut input = with(UNCOUNTED);
        input.has_read();
        input.need(UNCOUNTED + SMALL);
        assert_eq!(input.grow(BUFFER, &memory), Ok(true));
        input.bytes.resize(UNCOUNTED + SMALL, 1);
        input.has_read();
        drop(input.take_passing(UNCOUNTED + SMALL));
        input.settle(&memory).expect("nothing is held");
        input.make_room(&memory);
        assert_eq!(input.room(), BUFFER);
    }

    #[test]
    fn a_buffer_that_has_grown_is_let_go_of_with_its_frame() {
        for rest in [0, 10, SMALL + 1, UNCOUNTED + 1, BUFFER + 1] {
            let memory = FrameMemory::new(100 * LARGE);
            let mut input = with(UNCOUNTED);
            input.need(20 * LARGE);
            while let Some(size) = input.must_be_granted() {
                assert_eq!(input.grow(size, &memory), Ok(true));
                input.make_room(&memory);
                input.bytes.resize(size.min(20 * LARGE), 2);
            }
            assert_eq!(memory.granted(), 20 * LARGE);
            drop(input.take_passing(20 * LARGE - rest));
            input.need(rest + 1);
            input.settle(&memory).expect("there is room");
            assert_eq!((input.bytes.len(), input.size <= input.granted().max(SMALL)), (rest, true), "{rest}");
            assert!(memory.granted() <= 2 * BUFFER, "{rest}: {}", memory.granted());
        }
    }

    #[test]
    fn what_waits_for_its_first_grant_is_counted_with_what_is_little_and_lets_go_of_the_rest() {
        let memory = FrameMemory::new(8 * BUFFER);
        let mut waiting = with(BUFFER);
        waiting.settle(&memory).expect("there is room");
        let all = memory.try_take_of(MemoryPart::All, 7 * BUFFER).expect("fits");
        waiting.need(2 * BUFFER);
        assert_eq!(waiting.grow(2 * BUFFER, &memory), Ok(false));
        assert_eq!((memory.granted(), memory.granted_little()), (7 * BUFFER, BUFFER));
        let mut other = with(BUFFER);
        other.need(2 * BUFFER);
        assert_eq!(other.grow(2 * BUFFER, &memory), Err(NoMemory));
        let lack = waiting.lack(2 * BUFFER, &memory);
        assert!(lack.is_some() && memory.is_short());
        drop((all, other, lack));
        assert_eq!(waiting.grow(2 * BUFFER, &memory), Ok(true));
        assert_eq!((memory.granted(), memory.granted_little(), memory.is_short()), (2 * BUFFER, 0, false));
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
    fn who_settles_with_less_than_it_asked_for_lacks_nothing_and_holds_up_nobody() {
        let memory = FrameMemory::new(64 * BUFFER);
        let _others = memory.try_take_of(MemoryPart::All, 55 * BUFFER).expect("fits");
        let mut input = known(10 * BUFFER);
        input.need(60 * BUFFER);
        let behind = || GrowingGrant::new(&memory, MemoryPart::All, 17 * BUFFER);
        assert_eq!(input.grow(10 * BUFFER, &memory), Ok(false));
        let lack = input.lack(10 * BUFFER, &memory);
        assert!(lack.is_some() && memory.is_short() && !behind().try_grow(BUFFER), "it waits");
        drop(lack);
        input.rest();
        assert!(!memory.is_short() && behind().try_grow(BUFFER), "it waits no more");
        input.settle(&memory).expect("there is room for what has arrived");
        assert!(!memory.is_short() && behind().try_grow(BUFFER), "it does not wait");
    }

    #[test]
    fn what_the_next_frame_has_is_not_thrown_away_with_what_was_the_last_ones() {
        let memory = FrameMemory::new(20 * LARGE);
        let mut input = with(UNCOUNTED);
        let grow_to = |input: &mut Input, bytes: usize| {
            input.need(bytes);
            while let Some(size) = input.must_be_granted() {
                assert_eq!(input.grow(size, &memory), Ok(true));
                input.make_room(&memory);
                input.bytes.resize(size, 1);
            }
        };
        grow_to(&mut input, 2 * LARGE);
        drop(input.take_passing(2 * LARGE));
        let kept = input.grant_for(2 * LARGE, &memory).expect("it has grown");
        input.make_room(&memory);
        input.bytes.resize(UNCOUNTED, 1);
        grow_to(&mut input, LARGE);
        input.bytes.truncate(BUFFER + 1);
        let (granted, at) = (memory.granted(), input.bytes.as_ptr());
        input.settle(&memory).expect("it is held");
        assert_eq!((granted, memory.granted()), (3 * LARGE, 3 * LARGE));
        assert_eq!(input.bytes.as_ptr(), at, "it stays where it is");
        drop((input, kept));
        assert_eq!(memory.granted(), 0);
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
        assert_eq!(input.must_be_granted(), Some(BUFFER));
        assert_eq!(input.grow(BUFFER, &memory), Ok(true));
        assert_eq!(input.must_be_granted(), None);
        input.need(BUFFER + 5);
        assert_eq!(input.must_be_granted(), Some(BUFFER + 5));
        assert_eq!(input.grow(BUFFER + 5, &memory), Ok(true));
        assert_eq!(input.must_be_granted(), None);
        input.make_room(&memory);
        assert!(input.bytes.capacity() >= BUFFER + 5);
    }

    #[test]
    fn only_buffers_of_the_size_that_is_lent_are_kept() {
        let kept = |size: usize, taken: usize| {
            BUFFERS.take();
            let mut buffer = BytesMut::with_capacity(size);
            buffer.resize(taken, 1);
            drop(buffer.split_to(taken));
            give_back(buffer, size);
            BUFFERS.take().len()
        };
        assert_eq!((kept(BUFFER, 0), kept(BUFFER, BUFFER), kept(BUFFER, 3)), (1, 1, 1));
        assert_eq!((kept(BUFFER + 1, 0), kept(BUFFER - 1, 0), kept(LARGE, 0)), (0, 0, 0));
        assert_eq!(kept(LARGE, LARGE - BUFFER), 0, "all of it would be kept with what is left");
    }

    #[test]
    fn a_buffer_that_requests_share_is_not_lent_again() {
        let (mut input, memory) = (Input::default(), FrameMemory::new(BUFFER));
        input.make_room(&memory);
        input.bytes.extend_from_slice(b"abcdef");
        let kept = input.bytes.split_to(3).freeze();
        input.make_room(&memory);
        assert_eq!(&input.bytes[..], b"def");
        drop(input);
        let mut other = Input::default();
        other.make_room(&memory);
        other.bytes.extend_from_slice(b"xxxxxx");
        assert_eq!(kept, "abc");
    }
}
