//! The memory that large incomplete and unanswered frames of all connections share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A bound on the bytes that frames take in all connections together.
///
/// Who finds less than it needs may wait. Waiting is not in line: a small frame that still fits is not held up by a large
/// one that does not.
#[derive(Debug, Clone)]
pub struct FrameMemory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    granted: AtomicUsize,
    given_back: Notify,
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
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.shared.granted.fetch_sub(self.bytes, Ordering::SeqCst);
        self.shared.given_back.notify_waiters();
    }
}

impl FrameMemory {
    /// A bound of `bytes`.
    pub fn new(bytes: usize) -> Self {
        let (granted, given_back) = (AtomicUsize::new(0), Notify::new());
        Self { shared: Arc::new(Shared { total: bytes, granted, given_back }) }
    }

    /// The bound in bytes. A frame that is larger can never be taken.
    pub fn total(&self) -> usize {
        self.shared.total
    }

    /// Bytes that are granted now.
    pub fn granted(&self) -> usize {
        self.shared.granted.load(Ordering::SeqCst)
    }

    /// Room for `bytes`, if there is some now.
    pub fn try_take(&self, bytes: usize) -> Option<Grant> {
        let fits = |granted: usize| granted.checked_add(bytes).filter(|sum| *sum <= self.shared.total);
        self.shared.granted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).ok()?;
        Some(Grant { shared: self.shared.clone(), bytes })
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
