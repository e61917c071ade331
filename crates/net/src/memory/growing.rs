//! Memory for frames that grow as they arrive, without a deadlock: none of them keeps what it has while it waits for what only others
//! that wait in the same way could give back.
//!
//! It is the banker's algorithm. A frame's claim is what it will have when it is there whole. A frame gets more only if, with that
//! given, there is still an order in which each frame that holds something can come to its claim out of what is held by no other, or by
//! those before it. What is held by anything else is given back in time without waiting for more.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{FrameMemory, Grant};

/// What is known of the frames that grow, in the order in which they began to.
#[derive(Debug, Default)]
pub(super) struct Growing {
    next: u64,
    frames: BTreeMap<u64, Frame>,
}

#[derive(Debug)]
struct Frame {
    claim: usize,
    held: usize,
    /// It waits for what is free to suffice.
    waits: bool,
}

impl Growing {
    /// Whether every frame could still come to its claim if one of them held `bytes`.
    fn is_safe(&self, id: u64, bytes: usize, total: usize) -> bool {
        let held = |(of, frame): (&u64, &Frame)| if *of == id { bytes } else { frame.held };
        let mut lacking: Vec<(usize, usize)> = self
            .frames
            .iter()
            .map(|(of, frame)| (frame.claim, held((of, frame))))
            .filter(|(_, held)| *held > 0)
            .map(|(claim, held)| (claim.saturating_sub(held), held))
            .collect();
        lacking.sort_unstable();
        let all: usize = lacking.iter().map(|(_, held)| held).sum();
        let mut free = total.checked_sub(all);
        for (lacks, held) in lacking {
            free = free.filter(|free| lacks <= *free).map(|free| free + held);
        }
        free.is_some()
    }

    /// Whether a frame that holds nothing has to let one before it have what is free.
    fn must_let_pass(&self, id: u64) -> bool {
        self.frames[&id].held == 0 && self.frames.range(..id).any(|(_, frame)| frame.waits)
    }

    fn frame(&mut self, id: u64) -> &mut Frame {
        self.frames.get_mut(&id).expect("a frame is known for as long as its grant is")
    }
}

/// The memory of a frame that grows.
#[derive(Debug)]
pub(crate) struct GrowingGrant {
    memory: FrameMemory,
    id: u64,
    claim: usize,
    grant: Option<Grant>,
    good_for: usize,
}

impl GrowingGrant {
    /// None as yet, of `claim` bytes at the most.
    pub(crate) fn new(memory: &FrameMemory, claim: usize) -> Self {
        let mut growing = memory.shared.growing.lock();
        let id = growing.next;
        growing.next += 1;
        let claim = claim.min(memory.total());
        growing.frames.insert(id, Frame { claim, held: 0, waits: false });
        drop(growing);
        Self { memory: memory.clone(), id, claim, grant: None, good_for: 0 }
    }

    /// What it may have at the most.
    pub(crate) fn claim(&self) -> usize {
        self.claim
    }

    /// How many bytes it is good for.
    pub(crate) fn bytes(&self) -> usize {
        self.good_for
    }

    /// Makes it good for `bytes`, in place of what it was; false, and as it was, if that has to wait.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        // One that is larger than the total by what is not counted takes all of it.
        let (total, wanted) = (self.memory.total(), bytes.min(self.memory.total()));
        let memory = &self.memory;
        let mut growing = memory.shared.growing.lock();
        let waited = growing.frame(self.id).waits;
        let safe = growing.is_safe(self.id, wanted, total);
        let given = safe
            && !growing.must_let_pass(self.id)
            && Grant::hold(&mut self.grant, wanted, || memory.try_take(wanted));
        let frame = growing.frame(self.id);
        frame.waits = safe && !given;
        if given {
            (frame.held, self.good_for) = (wanted, bytes);
        }
        let lets_pass = waited && !frame.waits;
        drop(growing);
        if lets_pass {
            memory.shared.given_back.notify_waiters();
        }
        given
    }

    /// It wants no more for now: those behind it have what is free.
    pub(crate) fn rest(&mut self) {
        let waited = std::mem::take(&mut self.memory.shared.growing.lock().frame(self.id).waits);
        if waited {
            self.memory.shared.given_back.notify_waiters();
        }
    }

    /// What it holds, to be kept for a frame that is there whole.
    pub(crate) fn into_grant(mut self) -> Option<Grant> {
        self.grant.take()
    }
}

impl Drop for GrowingGrant {
    fn drop(&mut self) {
        self.memory.shared.growing.lock().frames.remove(&self.id);
        // Others may be safe now, or be the first in line.
        self.memory.shared.given_back.notify_waiters();
    }
}

/// The frames that grow in a memory.
pub(super) type Frames = Mutex<Growing>;

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    /// Frames of so many bytes that grow fourfold at a time, as whoever may; how many of them are there whole in the end.
    fn grow_all(total: usize, sizes: &[usize]) -> usize {
        let memory = FrameMemory::new(total);
        let mut frames: Vec<(usize, Option<GrowingGrant>)> =
            sizes.iter().map(|size| (*size, Some(GrowingGrant::new(&memory, *size)))).collect();
        let mut whole = 0;
        loop {
            let mut moved = false;
            for (size, frame) in &mut frames {
                let Some(grant) = frame else { continue };
                moved |= grant.try_grow((*size).min((4 * grant.bytes()).max(1)));
                if grant.bytes() == *size {
                    *frame = None;
                    whole += 1;
                }
            }
            assert!(memory.granted() <= total);
            if !moved {
                return whole;
            }
        }
    }

    #[test]
    fn frames_that_do_not_all_fit_come_one_after_another() {
        for (total, sizes) in [
            (64, &[20; 3][..]),
            (64, &[20; 15]),
            (64, &[64; 9]),
            (64, &[17, 64, 3, 40, 64, 20, 1, 2, 63]),
            (1, &[1, 1, 1]),
        ] {
            assert_eq!(grow_all(total, sizes), sizes.len(), "{sizes:?} in {total}");
        }
    }

    #[test]
    fn who_announces_much_and_sends_nothing_holds_up_no_smaller_ones() {
        let memory = FrameMemory::new(64);
        let mut idle = GrowingGrant::new(&memory, 64);
        assert!(idle.try_grow(1));
        let mut second = GrowingGrant::new(&memory, 64);
        assert!(!second.try_grow(1), "neither would ever come to its claim");
        let mut honest: Vec<_> = (0..3).map(|_| GrowingGrant::new(&memory, 20)).collect();
        assert!(honest.iter_mut().all(|frame| frame.try_grow(16)));
        assert!(honest[0].try_grow(20));
        drop(idle);
        assert!(second.try_grow(1));
    }

    #[test]
    fn who_holds_nothing_lets_an_earlier_one_have_what_is_free() {
        let memory = FrameMemory::new(64);
        let others = memory.try_take(50).expect("fits");
        let (mut large, mut small) = (GrowingGrant::new(&memory, 60), GrowingGrant::new(&memory, 5));
        assert!(large.try_grow(4) && !large.try_grow(16));
        assert!(!small.try_grow(5), "there is room for it, which the one before it waits for");
        drop(others);
        assert!(large.try_grow(16) && small.try_grow(5));
        let kept = large.into_grant();
        assert_eq!((memory.granted(), kept.map(|grant| grant.bytes())), (21, Some(16)));
    }

    #[test]
    fn who_waits_no_more_tells_those_who_let_it_pass() {
        let memory = FrameMemory::new(64);
        let others = memory.try_take(50).expect("fits");
        let (mut large, mut small) = (GrowingGrant::new(&memory, 60), GrowingGrant::new(&memory, 5));
        let told_of = |by: &mut dyn FnMut()| {
            let mut told = std::pin::pin!(memory.clone().given_back());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(told.as_mut().poll(&mut cx).is_pending());
            by();
            told.as_mut().poll(&mut cx).is_ready()
        };
        assert!(large.try_grow(4) && !large.try_grow(16) && !small.try_grow(5));
        assert!(told_of(&mut || large.rest()), "it rests");
        assert!(!told_of(&mut || large.rest()), "it had rested before");
        assert!(small.try_grow(5));
        assert!(!large.try_grow(16));
        drop(others);
        assert!(told_of(&mut || assert!(large.try_grow(16))), "it has what it waited for");
    }

    #[test]
    fn one_that_is_larger_by_what_is_not_counted_takes_all() {
        let memory = FrameMemory::new(64);
        let mut frame = GrowingGrant::new(&memory, 70);
        assert!(frame.try_grow(70));
        assert_eq!((frame.bytes(), memory.granted()), (70, 64));
        drop(frame);
        assert_eq!(memory.granted(), 0);
    }
}
