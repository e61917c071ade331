//! The bytes that arrived and are not handled yet.
//!
//! A connection without anything half-arrived has no buffer: buffers are lent by the I/O thread. What waits for the rest of
//! its frame keeps one only up to [`FREE`] bytes; for more than that it must hold a grant of the node's frame memory.

use std::cell::RefCell;

use bytes::BytesMut;
use sabir_net::{FrameMemory, Grant};

/// Bytes of a lent buffer: what one read takes at most.
const BUFFER: usize = 256 * 1024;
/// Bytes of an incomplete frame that a connection may hold without a grant.
pub(crate) const FREE: usize = 64 * 1024;
/// Incomplete frames up to this size are moved to a buffer of their own size.
const SMALL: usize = 4 * 1024;
/// Buffers that an I/O thread keeps.
const SPARE: usize = 8;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// No memory is left for an incomplete frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// A connection's input.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub bytes: BytesMut,
    grant: Option<Grant>,
}

impl Input {
    /// Whether a read needs a grant of so many bytes first: the frame under way does not fit a lent buffer.
    pub fn must_be_granted(&self, need: usize) -> bool {
        need > BUFFER && self.grant.as_ref().is_none_or(|g| g.bytes() < need)
    }

    /// Takes the grant for the frame under way.
    pub fn grant(&mut self, grant: Grant) {
        self.grant = Some(grant);
    }

    /// Makes room to read on, for a frame that needs so many bytes in all.
    pub fn make_room(&mut self, need: usize) {
        let capacity = need.max(BUFFER);
        let missing = capacity - self.bytes.len().min(capacity);
        if self.bytes.capacity() > 0 && self.bytes.try_reclaim(missing) {
            return;
        }
        let mut roomy = if capacity == BUFFER { lend() } else { BytesMut::with_capacity(capacity) };
        roomy.extend_from_slice(&self.bytes);
        give_back(std::mem::replace(&mut self.bytes, roomy));
    }

    /// Settles down to wait for more of a frame that needs so many bytes in all.
    ///
    /// # Errors
    /// The frame is too large to be held without a grant, and there is none.
    pub fn settle(&mut self, need: usize, memory: &FrameMemory) -> Result<(), NoMemory> {
        let len = self.bytes.len();
        if len == 0 {
            self.grant = None;
            give_back(std::mem::take(&mut self.bytes));
        } else if len <= SMALL {
            if self.bytes.capacity() > SMALL {
                let small = BytesMut::from(&self.bytes[..]);
                give_back(std::mem::replace(&mut self.bytes, small));
            }
        } else if need > FREE && self.grant.is_none() {
            self.grant = Some(memory.try_take(need.max(BUFFER)).ok_or(NoMemory)?);
        }
        Ok(())
    }

    /// The grant of a frame that has been taken out whole, to be kept as long as its bytes are.
    pub fn take_grant(&mut self) -> Option<Grant> {
        self.grant.take()
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

    #[test]
    fn idle_and_slow_connections_hold_little() {
        let memory = FrameMemory::new(2 * BUFFER);
        let mut input = Input::default();
        input.make_room(4);
        assert!(input.bytes.capacity() >= BUFFER);
        input.settle(4, &memory).expect("nothing is held");
        assert_eq!(input.bytes.capacity(), 0);

        input.make_room(4);
        input.bytes.extend_from_slice(b"abc");
        input.settle(5000, &memory).expect("little is held");
        assert!(input.bytes.capacity() <= SMALL);
        assert_eq!((&input.bytes[..], memory.granted()), (b"abc".as_slice(), 0));
        input.make_room(5000);
        assert_eq!(&input.bytes[..], b"abc");
    }

    #[test]
    fn frames_that_wait_are_counted() {
        let memory = FrameMemory::new(2 * BUFFER);
        let mut inputs: Vec<Input> = (0..3).map(|_| Input::default()).collect();
        for input in &mut inputs {
            input.make_room(4);
            input.bytes.extend_from_slice(&[1; 5000]);
        }
        inputs[0].settle(FREE, &memory).expect("held without a grant");
        assert_eq!(memory.granted(), 0);
        inputs[0].settle(FREE + 1, &memory).expect("granted");
        inputs[1].settle(FREE + 1, &memory).expect("granted");
        assert_eq!(memory.granted(), 2 * BUFFER);
        assert_eq!(inputs[2].settle(FREE + 1, &memory), Err(NoMemory));
        drop(inputs);
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn large_frames_need_a_grant_before_their_buffer() {
        let memory = FrameMemory::new(10 * BUFFER);
        let mut input = Input::default();
        assert!(!input.must_be_granted(BUFFER));
        assert!(input.must_be_granted(BUFFER + 1));
        input.grant(memory.try_take(BUFFER + 1).expect("fits"));
        assert!(!input.must_be_granted(BUFFER + 1));
        input.make_room(4);
        input.bytes.extend_from_slice(b"abc");
        input.make_room(3 * BUFFER);
        assert_eq!(&input.bytes[..], b"abc");
        assert!(input.bytes.capacity() >= 3 * BUFFER);
        let frame = input.bytes.split().freeze();
        input.settle(4, &memory).expect("empty");
        assert_eq!((memory.granted(), frame.len()), (0, 3));
    }

    #[test]
    fn a_buffer_that_requests_share_is_not_lent_again() {
        let mut input = Input::default();
        input.make_room(4);
        input.bytes.extend_from_slice(b"abcdef");
        let kept = input.bytes.split_to(3).freeze();
        input.make_room(4);
        assert_eq!(&input.bytes[..], b"def");
        drop(input);
        let mut other = Input::default();
        other.make_room(4);
        other.bytes.extend_from_slice(b"xxxxxx");
        assert_eq!(kept, "abc");
    }
}
