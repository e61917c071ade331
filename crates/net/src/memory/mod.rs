//! The memory that large incomplete and unanswered frames of all connections share.

mod growing;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

pub(crate) use self::growing::GrowingGrant;

/// What part of the memory little things have beside it.
const LITTLE_PART: usize = 4;

/// A bound on the bytes that frames take in all connections together.
///
/// A connection that finds less than it needs may wait. Waiting is not in line: a small frame that still fits is not held up by a large
/// one that does not. Who waits while it holds something has a `GrowingGrant`, so that those who do never wait for each other.
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
}

impl Shared {
    fn new(total: usize) -> Arc<Self> {
        let (granted, given_back) = (AtomicUsize::new(0), Notify::new());
        Arc::new(Self { total, granted, given_back, growing: growing::Frames::default() })
    }
}

/// A part of the [`FrameMemory`], given back when dropped.
#[derive(Debug)]
pub struct Grant {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Grant {
    /// How many bytes it is good for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it good for `bytes`; false, and as it was, if there is no room for so many.
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes <= self.bytes {
            self.shared.give_back(self.bytes - bytes);
        } else if !self.shared.try_add(bytes - self.bytes) {
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
    fn try_add(&self, bytes: usize) -> bool {
        let fits = |granted: usize| granted.checked_add(bytes).filter(|sum| *sum <= self.total);
        self.granted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.granted.fetch_sub(bytes, Ordering::SeqCst);
            self.given_back.notify_waiters();
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
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

    /// Room for up to `wanted` bytes, but no more than a quarter of what is left, so that the next connection finds some too.
    /// `None` where that is not more than `least`, which is not worth counting.
    pub fn share(&self, wanted: usize, least: usize) -> Option<Grant> {
        let bytes = wanted.min(self.total().saturating_sub(self.granted()) / 4);
        if bytes > least { self.try_take(bytes) } else { None }
    }

    /// Bytes that are granted now.
    pub fn granted(&self) -> usize {
        self.shared.granted.load(Ordering::SeqCst)
    }

    /// Room for `bytes`, if there is some now.
    pub fn try_take(&self, bytes: usize) -> Option<Grant> {
        self.shared.try_add(bytes).then(|| Grant { shared: self.shared.clone(), bytes })
    }

    /// Room for what is little, if there is some now, out of a quarter as much beside the total: a connection that has little under way
    /// is not ended for what others have, and all of that together is bounded, too.
    pub fn try_take_little(&self, bytes: usize) -> Option<Grant> {
        self.little.try_add(bytes).then(|| Grant { shared: self.little.clone(), bytes })
    }

    /// Bytes that are granted to what is little.
    pub fn granted_little(&self) -> usize {
        self.little.granted.load(Ordering::SeqCst)
    }

    /// Room for `bytes` as soon as there is some; never, if that is more than the [`total`](Self::total).
    pub async fn take(self, bytes: usize) -> Grant {
        loop {
            let mut given_back = std::pin::pin!(self.shared.given_back.notified());
            // Listen before looking, or what is given back in between goes unseen.
            given_back.as_mut().enable();
            if let Some(grant) = self.try_take(bytes) {
                return grant;
            }
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
        assert!(memory.try_take(2).is_none());
        drop(first);
        assert_eq!(memory.granted(), 0);
        assert!(memory.try_take(101).is_none());
        assert!(memory.try_take(usize::MAX).is_none());
    }

    #[test]
    fn a_grant_changes_its_size_where_there_is_room() {
        let memory = FrameMemory::new(100);
        let (mut first, mut second) =
            (memory.try_take(50).expect("fits"), memory.try_take(20).expect("fits"));
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
        assert_eq!(sizes, [250, 187, 140, 105, 79, 59]);
        assert_eq!(memory.share(60, 50).map(|share| share.bytes()), None);
        drop(shares);
        assert_eq!(memory.share(60, 50).map(|share| share.bytes()), Some(60));
    }

    #[tokio::test]
    async fn who_waits_holds_up_nobody_and_gets_its_share() {
        let memory = FrameMemory::new(100);
        let first = memory.try_take(70).expect("fits");
        let waiting = tokio::spawn(memory.clone().take(90));
        tokio::task::yield_now().await;
        drop(memory.try_take(20).expect("a small one overtakes"));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.expect("ends").bytes(), 90);
    }
}
