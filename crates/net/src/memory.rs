//! The memory that incomplete and unanswered frames of all connections share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Grants are counted in units of this many bytes.
const UNIT: usize = 1024;

/// A bound on the bytes that frames take in all connections together. Who needs more than is left waits in line.
#[derive(Debug, Clone)]
pub struct FrameMemory {
    units: Arc<Semaphore>,
    total: usize,
}

/// A part of the [`FrameMemory`], given back when dropped.
#[derive(Debug)]
pub struct Grant {
    _units: OwnedSemaphorePermit,
    bytes: usize,
}

impl Grant {
    /// How many bytes it is good for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl FrameMemory {
    /// A bound of `bytes`.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, u32::MAX as usize);
        Self { units: Arc::new(Semaphore::new(units)), total: units * UNIT }
    }

    /// The bound in bytes. A frame that is larger can never be taken.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes that are granted now.
    pub fn granted(&self) -> usize {
        self.total - self.units.available_permits() * UNIT
    }

    /// Room for `bytes`, if there is some now and nobody waits in line.
    pub fn try_take(&self, bytes: usize) -> Option<Grant> {
        let units = self.units.clone().try_acquire_many_owned(units(bytes)).ok()?;
        Some(Grant { _units: units, bytes })
    }

    /// Room for `bytes` as soon as there is some; never, if that is more than the [`total`](Self::total).
    pub async fn take(&self, bytes: usize) -> Grant {
        let units = self.units.clone().acquire_many_owned(units(bytes)).await;
        Grant { _units: units.expect("the semaphore is never closed"), bytes }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_given_back() {
        let memory = FrameMemory::new(10 * UNIT);
        let first = memory.try_take(9 * UNIT + 1).expect("fits");
        assert_eq!((first.bytes(), memory.granted()), (9 * UNIT + 1, 10 * UNIT));
        assert!(memory.try_take(1).is_none());
        drop(first);
        assert_eq!(memory.granted(), 0);
        assert!(memory.try_take(11 * UNIT).is_none());
    }

    #[tokio::test]
    async fn who_waits_is_served_in_turn() {
        let memory = FrameMemory::new(4 * UNIT);
        let first = memory.take(3 * UNIT).await;
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.take(4 * UNIT).await.bytes() }
        });
        tokio::task::yield_now().await;
        assert!(memory.try_take(UNIT).is_none(), "a small one must not overtake a large one for ever");
        drop(first);
        assert_eq!(waiting.await.expect("ends"), 4 * UNIT);
    }
}
