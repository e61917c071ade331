//! Memory for large batches as they are read, out of what frames have: a line of readers.
//!
//! Readers have it in the order of asking, up to half of all together, and one that waits has none of it. The first in line is not held up by frames
//! where no other reader has anything: one batch can be read always, though it be larger than what is left, and is counted as far as there
//! is room then. So what readers wait for is given back by a reader that waits for nothing but its client.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use sabir_broker::{ReadGrant, ReadHold, ReadMemory};
use tokio::sync::oneshot;

use super::{FrameMemory, MemoryPart, Shared};

/// What part of the memory readers may have together.
const READS_PART: usize = 2;

/// Who has memory to read with, and who waits for some.
#[derive(Debug, Default)]
pub(super) struct Readers {
    state: Mutex<ReadersState>,
    /// How many wait, or are about to.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct ReadersState {
    /// Bytes that readers have, counted in the memory or not.
    held: usize,
    /// In the order of asking.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    bytes: usize,
    told: oneshot::Sender<Held>,
}

/// What a reader has of the memory, given back when dropped.
#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    /// What it has asked for.
    bytes: usize,
    /// As much of it as there was room for.
    counted: usize,
    /// Whether it stood in line.
    in_line: bool,
}

impl Shared {
    fn read(self: &Arc<Self>, state: &mut ReadersState, bytes: usize) -> Option<Held> {
        let within = state.held.saturating_add(bytes) <= self.total / READS_PART
            && self.try_add(bytes, self.limit(MemoryPart::Common, 0));
        let counted = match within {
            true => bytes,
            false if state.held == 0 => self.add_free(bytes),
            false => return None,
        };
        state.held = state.held.saturating_add(bytes);
        Some(Held { shared: self.clone(), bytes, counted, in_line: true })
    }

    /// Adds as much as there is room for, and gives how much that is.
    fn add_free(&self, bytes: usize) -> usize {
        let mut added = 0;
        let add = |granted: usize| {
            added = bytes.min(self.total - granted);
            Some(granted + added)
        };
        // It adds something, be that nothing.
        let _ = self.granted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        added
    }

    fn ask(self: &Arc<Self>, bytes: usize) -> Result<Held, oneshot::Receiver<Held>> {
        let mut state = self.reads.state.lock();
        // Before it is looked for room: what is given back behind that look finds it waiting.
        self.reads.waiting.fetch_add(1, Ordering::SeqCst);
        state.waiting.retain(|waiting| !waiting.told.is_closed() || self.leaves());
        if state.waiting.is_empty()
            && let Some(held) = self.read(&mut state, bytes)
        {
            self.leaves();
            return Ok(held);
        }
        let (told, hears) = oneshot::channel();
        state.waiting.push_back(Waiting { bytes, told });
        Err(hears)
    }

    /// One fewer waits.
    fn leaves(&self) -> bool {
        self.reads.waiting.fetch_sub(1, Ordering::SeqCst);
        false
    }

    /// Gives readers that wait what there is now.
    #[inline]
    pub(super) fn admit_readers(self: &Arc<Self>) {
        if self.reads.waiting.load(Ordering::SeqCst) > 0 {
            self.admit_waiting();
        }
    }

    #[cold]
    fn admit_waiting(self: &Arc<Self>) {
        while self.reads.waiting.load(Ordering::SeqCst) > 0
            && let Some((held, told)) = self.next_reader()
        {
            // One that has just gone gives it back as it is dropped here, without the lock.
            drop(told.send(held));
        }
    }

    fn next_reader(self: &Arc<Self>) -> Option<(Held, oneshot::Sender<Held>)> {
        let mut state = self.reads.state.lock();
        while state.waiting.front().is_some_and(|first| first.told.is_closed()) {
            state.waiting.pop_front();
            self.leaves();
        }
        let bytes = state.waiting.front()?.bytes;
        let held = self.read(&mut state, bytes)?;
        let first = state.waiting.pop_front()?;
        self.leaves();
        Some((held, first.told))
    }
}

impl Held {
    fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let counted = self.counted.min(bytes);
        self.counted -= counted;
        Self { shared: self.shared.clone(), bytes, counted, in_line: self.in_line }
    }
}

impl ReadGrant for Held {
    fn split_off(&mut self, bytes: usize) -> Box<dyn ReadGrant> {
        Box::new(self.split(bytes))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.in_line {
            let mut state = self.shared.reads.state.lock();
            state.held = state.held.saturating_sub(self.bytes);
        }
        self.shared.give_back(self.counted);
        // It may have been counted with nothing.
        self.shared.admit_readers();
    }
}

impl ReadMemory for FrameMemory {
    fn hold(&self, bytes: usize) -> ReadHold {
        match self.shared.ask(bytes) {
            Ok(held) => ReadHold::Now(Box::new(held)),
            Err(hears) => ReadHold::Later(Box::pin(async move {
                let held: Option<Box<dyn ReadGrant>> = hears.await.ok().map(|held| Box::new(held) as _);
                held
            })),
        }
    }

    fn count(&self, bytes: usize) -> Box<dyn ReadGrant> {
        let counted = self.shared.add_free(bytes);
        Box::new(Held { shared: self.shared.clone(), bytes, counted, in_line: false })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Grant = Box<dyn ReadGrant>;
    type Later = Pin<Box<dyn Future<Output = Option<Grant>> + Send>>;

    fn now(memory: &FrameMemory, bytes: usize) -> Grant {
        match memory.hold(bytes) {
            ReadHold::Now(grant) => grant,
            ReadHold::Later(_) => panic!("{bytes} bytes have to wait"),
        }
    }

    fn later(memory: &FrameMemory, bytes: usize) -> Later {
        match memory.hold(bytes) {
            ReadHold::Now(_) => panic!("{bytes} bytes do not wait"),
            ReadHold::Later(later) => later,
        }
    }

    fn has_come(later: &mut Later) -> Option<Grant> {
        match later.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(grant) => grant,
            Poll::Pending => None,
        }
    }

    #[test]
    fn readers_have_half_of_it_in_the_order_of_asking() {
        let memory = FrameMemory::new(100);
        let (first, second) = (now(&memory, 30), now(&memory, 20));
        let (mut third, mut fourth) = (later(&memory, 40), later(&memory, 1));
        assert_eq!(memory.granted(), 50);
        drop(second);
        assert!(has_come(&mut third).is_none() && has_come(&mut fourth).is_none(), "the third is before it");
        drop(first);
        let third = has_come(&mut third).expect("there is room");
        let fourth = has_come(&mut fourth).expect("and for the next");
        assert_eq!(memory.granted(), 41);
        drop((third, fourth));
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn one_batch_can_be_read_whatever_others_have_and_however_large_it_is() {
        let memory = FrameMemory::new(100);
        let frames = memory.try_take_of(MemoryPart::All, 90).expect("there is room");
        let alone = now(&memory, 1000);
        assert_eq!(memory.granted(), 100);
        let mut next = later(&memory, 1);
        drop(frames);
        assert!(has_come(&mut next).is_none(), "the other one has more than readers may have");
        drop(alone);
        let next = has_come(&mut next).expect("there is room");
        assert_eq!(memory.granted(), 1);
        drop(next);
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn what_frames_give_back_readers_have_that_wait_for_it() {
        let memory = FrameMemory::new(100);
        let frames = memory.try_take(70).expect("there is room");
        let first = now(&memory, 5);
        let mut second = later(&memory, 5);
        drop(frames);
        assert!(has_come(&mut second).is_some());
        drop(first);
        assert_eq!(memory.granted(), 0);
    }

    #[test]
    fn who_has_gone_is_passed_over() {
        let memory = FrameMemory::new(100);
        let first = now(&memory, 50);
        let (gone, mut second) = (later(&memory, 50), later(&memory, 50));
        drop(gone);
        drop(first);
        let grant = has_come(&mut second).expect("it is the first in line");
        let gone = later(&memory, 10);
        drop(gone);
        drop(grant);
        assert_eq!(memory.granted(), 0);
        assert_eq!(memory.shared.reads.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_part_of_it_is_given_back_alone_and_the_nodes_own_reads_do_not_wait() {
        let memory = FrameMemory::new(100);
        let mut grant = now(&memory, 50);
        let part = grant.split_off(20);
        drop(grant);
        assert_eq!(memory.granted(), 20);
        let own = memory.count(200);
        assert_eq!(memory.granted(), 100);
        drop(own);
        drop(part);
        assert_eq!(memory.granted(), 0);
        drop(now(&memory, 50));
    }
}
