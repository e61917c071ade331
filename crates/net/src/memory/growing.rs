//! Memory for frames that grow as they arrive, without a deadlock: none of them keeps what it has while it waits for what only others
//! that wait in the same way could give back.
//!
//! It is the banker's algorithm. A frame's claim is what it will have when it is there whole. A frame gets more only if, with that
//! given, there is still an order in which each frame that holds something can come to its claim out of what is held by no other, or by
//! those before it. What is held by anything else is given back in time without waiting for more. To a frame that has no part in what is
//! kept for others ([`MemoryPart`]) that is not free.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::{FrameMemory, Grant, KEPT_PART, Lack, MemoryPart};

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
    part: MemoryPart,
    /// Bytes that are not for it, kept for others.
    kept_back: usize,
    /// It waits for what is free to suffice.
    waits: bool,
    /// It began while one before it waited.
    passed: bool,
}

impl Growing {
    /// Whether every frame could still come to its claim if one of them held `bytes`.
    fn is_safe(&self, id: u64, bytes: usize, total: usize) -> bool {
        let held = |(of, frame): (&u64, &Frame)| if *of == id { bytes } else { frame.held };
        let mut lacking: Vec<(usize, usize)> = self
            .frames
            .iter()
            .map(|(of, frame)| (frame, held((of, frame))))
            .filter(|(_, held)| *held > 0)
            .map(|(frame, held)| (frame.claim.saturating_sub(held) + frame.kept_back, held))
            .collect();
        lacking.sort_unstable();
        let all: usize = lacking.iter().map(|(_, held)| held).sum();
        let mut free = total.checked_sub(all);
        for (lacks, held) in lacking {
            free = free.filter(|free| lacks <= *free).map(|free| free + held);
        }
        free.is_some()
    }

    /// Whether one before a frame waits for what is free.
    fn is_behind(&self, id: u64) -> bool {
        self.frames.range(..id).any(|(_, frame)| frame.waits)
    }

    /// Whether a frame may have what is free although one before it waits: one that has begun, and of those that may have what is kept,
    /// together as much as that, `whole` being what those of them have that are there whole and kept on.
    fn may_pass(&self, id: u64, kept: usize, whole: usize) -> bool {
        let frame = &self.frames[&id];
        let passed = self.frames.values().filter(|frame| frame.passed).map(|frame| frame.claim);
        let in_kept = || frame.part == MemoryPart::All && passed.sum::<usize>() + whole + frame.claim <= kept;
        frame.held > 0 || in_kept()
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
    part: MemoryPart,
    grant: Option<Grant>,
    good_for: usize,
}

impl GrowingGrant {
    /// None as yet, of `claim` bytes at the most.
    pub(crate) fn new(memory: &FrameMemory, part: MemoryPart, claim: usize) -> Self {
        let mut growing = memory.shared.growing.lock();
        let id = growing.next;
        growing.next += 1;
        let claim = claim.min(memory.total());
        let kept_back = memory.total() - memory.shared.limit(part, claim);
        growing.frames.insert(id, Frame { claim, held: 0, part, kept_back, waits: false, passed: false });
        drop(growing);
        Self { memory: memory.clone(), id, claim, part, grant: None, good_for: 0 }
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
        self.grow(bytes, true)
    }

    /// The same, but where it is false it does not wait: those behind it may have what is free.
    pub(crate) fn try_grow_at_once(&mut self, bytes: usize) -> bool {
        self.grow(bytes, false)
    }

    fn grow(&mut self, bytes: usize, waits: bool) -> bool {
        // One that is larger than the total by what is not counted takes all of it.
        let (total, wanted) = (self.memory.total(), bytes.min(self.memory.total()));
        let (memory, part) = (&self.memory, self.part);
        let mut growing = memory.shared.growing.lock();
        let waited = growing.frame(self.id).waits;
        let safe = growing.is_safe(self.id, wanted, total);
        let passes = growing.is_behind(self.id);
        let given = safe
            && (!passes
                || growing.may_pass(self.id, total / KEPT_PART, memory.shared.passed.load(Ordering::SeqCst)))
            && Grant::hold(&mut self.grant, wanted, || memory.try_take_of(part, wanted));
        let frame = growing.frame(self.id);
        frame.waits = waits && safe && !given;
        if given {
            frame.passed |= passes && frame.held == 0;
            (frame.held, self.good_for) = (wanted, bytes);
        }
        let lets_pass = waited && !frame.waits;
        drop(growing);
        if lets_pass {
            memory.shared.given_back.notify_waiters();
        }
        given
    }

    /// That less is left than it asks for, if so: than all that is lacking of one which may have what is kept, than `bytes` of another, which
    /// may claim what it will not send.
    pub(crate) fn lack(&self, bytes: usize) -> Option<Lack> {
        let asked = if self.part == MemoryPart::All { self.claim } else { bytes.min(self.claim) };
        self.memory.lack(self.part, asked, self.grant.as_ref().map_or(0, Grant::bytes))
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
        let has_passed = self.memory.shared.growing.lock().frame(self.id).passed;
        let grant = self.grant.take();
        grant.map(|grant| if has_passed { grant.passed() } else { grant })
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

    /// Frames of so many bytes that grow fourfold at a time, as far as they may; how many of them are there whole in the end.
    fn grow_all(part: MemoryPart, total: usize, sizes: &[usize]) -> usize {
        let memory = FrameMemory::new(total);
        let mut frames: Vec<(usize, Option<GrowingGrant>)> =
            sizes.iter().map(|size| (*size, Some(GrowingGrant::new(&memory, part, *size)))).collect();
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
            for part in [MemoryPart::All, MemoryPart::Common] {
                assert_eq!(grow_all(part, total, sizes), sizes.len(), "{part:?} {sizes:?} in {total}");
            }
        }
    }

    #[test]
    fn who_announces_much_and_sends_nothing_holds_up_no_smaller_ones() {
        let memory = FrameMemory::new(64);
        let mut idle = GrowingGrant::new(&memory, MemoryPart::All, 64);
        assert!(idle.try_grow(1));
        let mut second = GrowingGrant::new(&memory, MemoryPart::All, 64);
        assert!(!second.try_grow(1), "neither would ever come to its claim");
        let mut honest: Vec<_> = (0..3).map(|_| GrowingGrant::new(&memory, MemoryPart::All, 20)).collect();
        assert!(honest.iter_mut().all(|frame| frame.try_grow(16)));
        assert!(honest[0].try_grow(20));
        drop(idle);
        assert!(second.try_grow(1));
    }

    #[test]
    fn who_holds_nothing_lets_an_earlier_one_have_what_is_free() {
        let memory = FrameMemory::new(64);
        let others = memory.try_take(41).expect("fits");
        let new = |part, size| GrowingGrant::new(&memory, part, size);
        let mut large = new(MemoryPart::All, 60);
        assert!(large.try_grow(4) && !large.try_grow(60));
        let (mut unknown, mut known) =
            (new(MemoryPart::Common, 2), [9, 8, 8, 17].map(|size| new(MemoryPart::All, size)));
        assert!(!unknown.try_grow(1), "there is room for it, which the one before it waits for");
        assert!(known[1].try_grow(1) && known[2].try_grow(1), "they have as much as is kept");
        assert!(!known[0].try_grow(1) && !known[3].try_grow(1), "and no more");
        drop(others);
        assert!(known[1].try_grow(8), "it has begun");
        drop(known);
        assert!(large.try_grow(60));
        let kept = large.into_grant().expect("it has grown");
        assert_eq!((memory.granted(), kept.bytes()), (60, 60));
        drop(kept);
        assert!(unknown.try_grow(2));
    }

    #[test]
    fn what_is_kept_for_others_is_not_free() {
        let memory = FrameMemory::new(64);
        let mut slow = [(); 4].map(|()| GrowingGrant::new(&memory, MemoryPart::Common, 40));
        let held = slow.iter_mut().filter_map(|frame| frame.try_grow(8).then_some(())).count();
        assert_eq!(held, 2, "a third would leave too little to any of them");
        let mut known = GrowingGrant::new(&memory, MemoryPart::All, 48);
        assert!(known.try_grow(16) && known.try_grow(48));
        assert!(!slow[0].try_grow(9));
        drop(known);
        let mut all = GrowingGrant::new(&memory, MemoryPart::Common, 64);
        assert!(!all.try_grow(1), "it would leave the others too little");
        drop(slow);
        assert!(all.try_grow(1) && all.try_grow(64));
    }

    #[test]
    fn who_claims_what_it_does_not_send_makes_memory_short_only_if_it_is_known() {
        let memory = FrameMemory::new(64);
        let _others = memory.try_take(20).expect("fits");
        assert!(GrowingGrant::new(&memory, MemoryPart::Common, 64).lack(4).is_none());
        assert!(GrowingGrant::new(&memory, MemoryPart::Common, 64).lack(29).is_some());
        assert!(GrowingGrant::new(&memory, MemoryPart::All, 44).lack(1).is_none());
        assert!(GrowingGrant::new(&memory, MemoryPart::All, 45).lack(1).is_some());
    }

    #[test]
    fn what_passed_counts_for_as_long_as_it_is_kept() {
        let memory = FrameMemory::new(64);
        let others = memory.try_take(40).expect("fits");
        let mut waits = GrowingGrant::new(&memory, MemoryPart::Common, 40);
        assert!(waits.try_grow(1) && !waits.try_grow(40));
        let known = || GrowingGrant::new(&memory, MemoryPart::All, 10);
        let mut passes = known();
        assert!(passes.try_grow(10));
        let whole = passes.into_grant().expect("it has grown");
        assert!(!known().try_grow(1), "ten of sixteen are used");
        drop(whole);
        let mut next = known();
        assert!(next.try_grow(1));
        drop((next, others));
        assert!(waits.try_grow(40));
    }

    #[test]
    fn who_waits_no_more_tells_those_who_let_it_pass() {
        let memory = FrameMemory::new(64);
        let others = memory.try_take(43).expect("fits");
        let mut large = GrowingGrant::new(&memory, MemoryPart::All, 60);
        let mut small = GrowingGrant::new(&memory, MemoryPart::Common, 5);
        let told_of = |by: &mut dyn FnMut()| {
            let mut told = std::pin::pin!(memory.clone().given_back());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(told.as_mut().poll(&mut cx).is_pending());
            by();
            told.as_mut().poll(&mut cx).is_ready()
        };
        assert!(large.try_grow(4) && !large.try_grow(60) && !small.try_grow(1));
        assert!(told_of(&mut || large.rest()), "it rests");
        assert!(!told_of(&mut || large.rest()), "it had rested before");
        assert!(small.try_grow(1));
        assert!(!large.try_grow(60));
        drop(others);
        assert!(told_of(&mut || assert!(large.try_grow(60))), "it has what it waited for");
    }

    #[test]
    fn one_that_is_larger_by_what_is_not_counted_takes_all() {
        let memory = FrameMemory::new(64);
        let mut frame = GrowingGrant::new(&memory, MemoryPart::All, 70);
        assert!(frame.try_grow(70));
        assert_eq!((frame.bytes(), memory.granted()), (70, 64));
        drop(frame);
        assert_eq!(memory.granted(), 0);
    }
}
