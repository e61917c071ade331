//! Which of the requests that the workers look at for long end where others wait for the memory that these hold.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::memory::FrameMemory;

/// How long a request is looked at in any case.
const LOOKED_AT: Duration = Duration::from_secs(1);
/// For how long a frame has to have waited for memory.
const WAITED: Duration = Duration::from_millis(400);
/// Between two that end.
const BETWEEN: Duration = Duration::from_millis(200);

/// The requests that workers have looked at for long. While frames of others wait for memory the one that has most left ends, and gives back what it
/// holds: what is done of it counts, and the rest is for its client to send again.
#[derive(Debug)]
pub(super) struct LongRequests {
    memory: Option<FrameMemory>,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many batches each has left.
    left: HashMap<u64, usize>,
    last_ended: Option<Instant>,
}

/// A request that workers look at.
#[derive(Debug)]
pub(super) struct LongRequest {
    all: Arc<LongRequests>,
    id: u64,
    began: Instant,
}

impl LongRequests {
    pub(super) fn new(memory: Option<FrameMemory>) -> Arc<Self> {
        Arc::new(Self { memory, next: AtomicU64::new(0), state: Mutex::default() })
    }

    pub(super) fn begin(self: &Arc<Self>, now: Instant) -> LongRequest {
        LongRequest { all: self.clone(), id: self.next.fetch_add(1, Relaxed), began: now }
    }
}

impl LongRequest {
    /// Whether it is to end, with so many batches left.
    pub(super) fn is_over(&self, left: usize, now: Instant) -> bool {
        let Some(memory) = &self.all.memory else { return false };
        if now.duration_since(self.began) < LOOKED_AT {
            return false;
        }
        let mut state = self.all.state.lock();
        state.left.insert(self.id, left);
        let has_most = state.left.values().all(|other| *other <= left);
        let is_soon = state.last_ended.is_some_and(|last| now.duration_since(last) < BETWEEN);
        let is_over = has_most && !is_soon && memory.longest_wait(now).is_some_and(|wait| wait >= WAITED);
        if is_over {
            state.last_ended = Some(now);
            state.left.remove(&self.id);
        }
        is_over
    }
}

impl Drop for LongRequest {
    fn drop(&mut self) {
        self.all.state.lock().left.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Waiting;

    #[tokio::test]
    async fn the_one_that_has_most_left_ends_and_only_while_others_wait_for_memory() {
        let memory = FrameMemory::new(1_000);
        let all = LongRequests::new(Some(memory.clone()));
        let began = Instant::now();
        let (one, other) = (all.begin(began), all.begin(began));
        let at = |ms: u64| began + Duration::from_millis(ms);
        assert!(!one.is_over(9, at(2_000)), "nobody waits");
        let waiting = Waiting::new(&memory);
        assert!(!one.is_over(9, at(500)), "it is looked at for a second");
        assert!(!other.is_over(10, at(300)));
        let later = at(60_000);
        assert!(!other.is_over(5, later), "the other one has more left");
        assert!(one.is_over(9, later));
        assert!(!other.is_over(5, later), "one after the other");
        assert!(other.is_over(5, later + BETWEEN));
        drop(waiting);
        let third = all.begin(began);
        assert!(!third.is_over(5, later + 2 * BETWEEN), "nobody waits any more");
    }

    #[test]
    fn nothing_is_kept_of_requests_that_have_ended() {
        let all = LongRequests::new(Some(FrameMemory::new(1_000)));
        let began = Instant::now();
        let one = all.begin(began);
        assert!(!one.is_over(9, began + LOOKED_AT));
        assert_eq!(all.state.lock().left.len(), 1);
        drop(one);
        assert!(all.state.lock().left.is_empty());
        assert!(!LongRequests::new(None).begin(began).is_over(9, began + 60 * LOOKED_AT));
    }
}
