//! The memory that large incomplete and unanswered frames of all connections share, and large batches that are read for them.

mod growing;
mod reads;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use self::growing::GrowingGrant;

/// What part of the memory little things have beside it.
const LITTLE_PART: usize = 4;
/// What part of the memory is kept for what arrives from clients that have sent a whole frame before.
const KEPT_PART: usize = 4;

/// How much of the memory a caller may fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryPart {
    /// All of it: what arrives from a client that has sent a whole frame before.
    All,
    /// All but what is kept for those; what is larger may have all of it.
    Common,
}

/// A bound on the bytes that frames take in all connections together.
///
/// A connection that finds less than it needs may wait. Waiting is not in line: a small frame that still fits is not held up by a large
/// one that does not. A caller that waits while it holds something has a `GrowingGrant`, so that callers that do never wait for each other.
#[derive(Debug, Clone)]
pub struct FrameMemory {
    shared: Arc<Shared>,
    /// What little things are counted in.
    little: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    granted: AtomicUsize,
    given_back: Notify,
    growing: growing::Frames,
    reads: reads::Readers,
    /// How many wait because there is less left than they ask for.
    lacking: AtomicUsize,
    /// The frames that wait, whatever for, with the moments at which they began to.
    waiting: Mutex<BTreeSet<(Instant, u64)>>,
    /// How many have waited.
    waits: AtomicU64,
    /// Bytes of grants of frames that passed others.
    passed: AtomicUsize,
}

impl Shared {
    fn new(total: usize) -> Arc<Self> {
        let (granted, given_back, lacking) = (AtomicUsize::new(0), Notify::new(), AtomicUsize::new(0));
        let (growing, reads) = (growing::Frames::default(), reads::Readers::default());
        let (waiting, waits, passed) = (Mutex::default(), AtomicU64::new(0), AtomicUsize::new(0));
        Arc::new(Self { total, granted, given_back, growing, reads, lacking, waiting, waits, passed })
    }

    fn kept(&self) -> usize {
        self.total / KEPT_PART
    }

    /// What may be granted in all, so that one of so many bytes is.
    fn limit(&self, part: MemoryPart, bytes: usize) -> usize {
        let common = self.total - self.kept();
        if part == MemoryPart::Common && bytes <= common { common } else { self.total }
    }

    /// Whether so much is granted that connections that keep what they have without need are to let go of it, or another waits for that.
    fn is_short(&self) -> bool {
        self.lacking.load(Ordering::SeqCst) > 0
            || self.granted.load(Ordering::SeqCst) > self.total - self.kept() / 2
    }

    fn take(self: &Arc<Self>, part: MemoryPart, bytes: usize) -> Option<Grant> {
        self.try_add(bytes, self.limit(part, bytes)).then(|| Grant {
            shared: self.clone(),
            bytes,
            part,
            passed: 0,
        })
    }
}

/// A caller waits because less is left than is asked for. Kept with what it waits by, so that it ends with that.
#[derive(Debug)]
pub(crate) struct Lack(Arc<Shared>);

impl Drop for Lack {
    fn drop(&mut self) {
        self.0.lacking.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A frame waits for memory that others have. What it lacks is counted until this is dropped.
pub(crate) struct Waiting {
    memory: FrameMemory,
    given_back: Pin<Box<dyn Future<Output = ()>>>,
    lack: Option<Lack>,
    place: (Instant, u64),
}

impl Waiting {
    /// Listens once it is asked.
    pub(crate) fn new(memory: &FrameMemory) -> Self {
        let mut waiting = memory.shared.waiting.lock();
        let place = (Instant::now(), memory.shared.waits.fetch_add(1, Ordering::Relaxed));
        waiting.insert(place);
        drop(waiting);
        Self { memory: memory.clone(), given_back: Box::pin(memory.clone().given_back()), lack: None, place }
    }

    /// Whether something was given back since it was asked last; if so, it listens again once it is asked again. Else the task is woken then.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let is_over = self.given_back.as_mut().poll(cx).is_ready();
        if is_over {
            self.given_back = Box::pin(self.memory.clone().given_back());
        }
        is_over
    }

    /// What it lacks now.
    pub(crate) fn lacks(&mut self, lack: Option<Lack>) {
        self.lack = lack;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.memory.shared.waiting.lock().remove(&self.place);
    }
}

/// A part of the [`FrameMemory`], given back when dropped.
#[derive(Debug)]
pub struct Grant {
    shared: Arc<Shared>,
    bytes: usize,
    part: MemoryPart,
    /// As many of them as a frame had that passed others which waited.
    passed: usize,
}

impl Grant {
    /// That of a frame which passed others: it counts among what did so for as long as it is kept.
    fn passed(mut self) -> Self {
        self.passed = self.bytes;
        self.shared.passed.fetch_add(self.passed, Ordering::SeqCst);
        self
    }

    /// How many bytes it is good for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it good for `bytes`; false, and as it was, if there is no room for so many.
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            self.shared.give_back(self.bytes - bytes);
        } else if !self.shared.try_add(bytes - self.bytes, self.shared.limit(self.part, bytes)) {
            return false;
        }
        self.bytes = bytes;
        true
    }

    /// Makes what `held` has good for `bytes`, or takes so many; false, and as it was, if there is no room for so many.
    pub(crate) fn hold(held: &mut Option<Self>, bytes: usize, take: impl FnOnce() -> Option<Self>) -> bool {
        match held {
            Some(grant) => grant.resize(bytes),
            none => {
                *none = take();
                none.is_some()
            }
        }
    }

    /// Takes another one's bytes over.
    pub fn absorb(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.shared, &other.shared), "both are of one memory");
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Shared {
    fn try_add(&self, bytes: usize, limit: usize) -> bool {
        let fits = |granted: usize| granted.checked_add(bytes).filter(|sum| *sum <= limit);
        self.granted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    fn give_back(self: &Arc<Self>, bytes: usize) {
        if bytes > 0 {
            self.granted.fetch_sub(bytes, Ordering::SeqCst);
            self.given_back.notify_waiters();
            self.admit_readers();
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.shared.passed.fetch_sub(self.passed, Ordering::SeqCst);
        self.shared.give_back(self.bytes);
    }
}

impl FrameMemory {
    /// A bound of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { shared: Shared::new(bytes), little: Shared::new(bytes / LITTLE_PART) }
    }

    /// The bound in bytes. A frame that is larger can never be taken.
    pub fn total(&self) -> usize {
        self.shared.total
    }

    /// Room for up to `wanted` bytes, but no more than a quarter of what is left of [`MemoryPart::Common`], so that the next connection finds
    /// some too. `None` where that is not more than `least`, which is not worth counting.
    pub fn share(&self, wanted: usize, least: usize) -> Option<Grant> {
        let left = self.shared.limit(MemoryPart::Common, 0).saturating_sub(self.granted());
        let bytes = wanted.min(left / 4);
        if bytes > least { self.try_take(bytes) } else { None }
    }

    /// Bytes that are granted now.
    pub fn granted(&self) -> usize {
        self.shared.granted.load(Ordering::SeqCst)
    }

    /// Room for `bytes` of [`MemoryPart::Common`], if there is some now.
    pub fn try_take(&self, bytes: usize) -> Option<Grant> {
        self.try_take_of(MemoryPart::Common, bytes)
    }

    /// Room for `bytes` of a part, if there is some now.
    pub fn try_take_of(&self, part: MemoryPart, bytes: usize) -> Option<Grant> {
        self.shared.take(part, bytes)
    }

    /// Room for `bytes`, if at least half of all is left beside them.
    pub fn try_take_of_plenty(&self, bytes: usize) -> Option<Grant> {
        let taken = self.shared.try_add(bytes, self.total() / 2);
        taken.then(|| Grant { shared: self.shared.clone(), bytes, part: MemoryPart::Common, passed: 0 })
    }

    /// Room for what is little, if there is some now, out of a quarter as much beside the total: a connection that has little under way
    /// is not ended for what others have, and all of that together is bounded, too.
    pub fn try_take_little(&self, part: MemoryPart, bytes: usize) -> Option<Grant> {
        self.little.take(part, bytes)
    }

    /// Whether there is too little memory for the connections that ask for it, or nearly so.
    pub(crate) fn is_short(&self) -> bool {
        self.shared.is_short()
    }

    /// The same of what is little.
    pub(crate) fn is_little_short(&self) -> bool {
        self.little.is_short()
    }

    /// Notes that a caller waits that asks for `bytes`, of which it has `held`, if they are more than there is room for.
    pub(crate) fn lack(&self, part: MemoryPart, bytes: usize, held: usize) -> Option<Lack> {
        let lacks =
            self.granted().saturating_sub(held).saturating_add(bytes) > self.shared.limit(part, bytes);
        lacks.then(|| {
            self.shared.lacking.fetch_add(1, Ordering::SeqCst);
            Lack(self.shared.clone())
        })
    }

    /// For how long the frame has waited that waits for longest; `None` if none does.
    pub(crate) fn longest_wait(&self, now: Instant) -> Option<Duration> {
        self.shared.waiting.lock().first().map(|(since, _)| now.saturating_duration_since(*since))
    }

    /// Bytes that are granted to what is little.
    pub fn granted_little(&self) -> usize {
        self.little.granted.load(Ordering::SeqCst)
    }

    /// Room for `bytes` of [`MemoryPart::Common`] as soon as there is some; never, if that is more than the [`total`](Self::total).
    pub async fn take(self, bytes: usize) -> Grant {
        loop {
            let mut given_back = std::pin::pin!(self.shared.given_back.notified());
            // Listen before looking, or what is given back in between goes unseen.
            given_back.as_mut().enable();
            if let Some(grant) = self.try_take(bytes) {
                return grant;
            }
            let _lack = self.lack(MemoryPart::Common, bytes, 0);
            given_back.await;
        }
    }
}

impl FrameMemory {
    /// Ends when something is given back from when it is polled first.
    pub(crate) async fn given_back(self) {
        self.shared.given_back.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_given_back() {
        let memory = FrameMemory::new(100);
        let first = memory.try_take(99).expect("fits");
        assert_eq!((first.bytes(), memory.granted()), (99, 99));
        assert!(memory.try_take_of(MemoryPart::All, 2).is_none());
        drop(first);
        assert_eq!(memory.granted(), 0);
        for part in [MemoryPart::All, MemoryPart::Common] {
            assert!(memory.try_take_of(part, 101).is_none());
            assert!(memory.try_take_of(part, usize::MAX).is_none());
        }
    }

    #[test]
    fn a_quarter_is_kept_for_those_who_are_known() {
        let memory = FrameMemory::new(100);
        let mut common = memory.try_take(70).expect("fits");
        assert!(memory.try_take(6).is_none());
        let known = memory.try_take_of(MemoryPart::All, 30).expect("fits");
        assert!(!common.resize(71));
        assert!(memory.try_take_of(MemoryPart::All, 1).is_none());
        drop(known);
        assert!(common.resize(75) && common.resize(100), "it is larger than what is not kept");
        assert!(!common.resize(101));
    }

    #[test]
    fn memory_is_short_when_nearly_all_is_granted_or_less_is_left_than_is_asked_for() {
        let memory = FrameMemory::new(100);
        let mut held = memory.try_take_of(MemoryPart::All, 87).expect("fits");
        assert!(!memory.is_short() && !memory.is_little_short());
        assert!(
            memory.lack(MemoryPart::All, 13, 0).is_none() && memory.lack(MemoryPart::All, 20, 7).is_none()
        );
        let lack = memory.lack(MemoryPart::All, 14, 0).expect("it is too much");
        assert!(memory.is_short());
        drop(lack);
        assert!(!memory.is_short());
        assert!(memory.lack(MemoryPart::Common, 1, 0).is_some());
        assert!(held.resize(89) && memory.is_short());
    }

    #[tokio::test]
    async fn what_is_lacking_counts_while_it_is_waited_for_and_no_longer() {
        let memory = FrameMemory::new(100);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (mut waiting, held) = (Waiting::new(&memory), memory.try_take(70).expect("fits"));
        assert!(!waiting.is_over(&mut cx));
        waiting.lacks(memory.lack(MemoryPart::Common, 10, 0));
        waiting.lacks(memory.lack(MemoryPart::Common, 9, 0));
        assert!(memory.is_short());
        drop(held);
        assert!(waiting.is_over(&mut cx) && memory.is_short(), "it looks whether that is enough");
        assert!(!waiting.is_over(&mut cx), "and listens again");
        drop(waiting);
        assert!(!memory.is_short());
    }

    #[test]
    fn a_grant_changes_its_size_where_there_is_room() {
        let memory = FrameMemory::new(100);
        let (mut first, mut second) =
            (memory.try_take_of(MemoryPart::All, 50).expect("fits"), memory.try_take(20).expect("fits"));
        assert!(first.resize(80));
        assert!(!first.resize(81) && first.bytes() == 80);
        assert!(first.resize(10));
        assert_eq!(memory.granted(), 30);
        second.absorb(first);
        assert_eq!((second.bytes(), memory.granted()), (30, 30));
        drop(second);
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn shares_leave_something_for_others() {
        let memory = FrameMemory::new(1000);
        let shares: Vec<Grant> = (0..20).map_while(|_| memory.share(600, 50)).collect();
        let sizes: Vec<usize> = shares.iter().map(Grant::bytes).collect();
        assert_eq!(sizes, [187, 140, 105, 79, 59]);
        assert_eq!(memory.share(60, 50).map(|share| share.bytes()), None);
        drop(shares);
        assert_eq!(memory.share(60, 50).map(|share| share.bytes()), Some(60));
    }

    #[tokio::test]
    async fn who_waits_holds_up_nobody_and_gets_its_share() {
        let memory = FrameMemory::new(100);
        let first = memory.try_take(50).expect("fits");
        let waiting = tokio::spawn(memory.clone().take(90));
        tokio::task::yield_now().await;
        drop(memory.try_take(20).expect("a small one overtakes"));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && memory.is_short());
        drop(first);
        assert_eq!(waiting.await.expect("ends").bytes(), 90);
    }
}
