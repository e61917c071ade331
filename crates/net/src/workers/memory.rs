//! Memory that jobs of a size share.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::askers::AddressUse;
use super::{JobCost, JobSize, Shared};

/// What is free, and the jobs that wait for it.
#[derive(Debug)]
pub(super) struct JobMemory {
    state: Mutex<State>,
    size: JobSize,
    pub(super) kib: u32,
}

#[derive(Debug)]
struct State {
    free: u32,
    /// In the order of asking.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    address: Arc<AddressUse>,
    kib: u32,
    told: oneshot::Sender<Granted>,
}

impl JobMemory {
    pub(super) fn new(size: JobSize, frame_memory: usize) -> Self {
        let kib = size.memory(frame_memory);
        Self { state: Mutex::new(State { free: kib, waiting: Vec::new() }), size, kib }
    }

    /// What a job takes of it. What needs more than all of it has all of it.
    fn part(&self, cost: JobCost) -> u32 {
        let least = self.kib as usize / cost.size.at_once();
        cost.bytes.div_ceil(1024).max(least).clamp(1, self.kib as usize) as u32
    }

    /// Asks for what a job takes: the job that has it first is of the address that had least, and asked first of these.
    pub(super) fn ask(
        &self,
        shared: &Arc<Shared>,
        cost: JobCost,
        address: Arc<AddressUse>,
    ) -> oneshot::Receiver<Granted> {
        let (told, granted) = oneshot::channel();
        self.state.lock().waiting.push(Waiting { address, kib: self.part(cost), told });
        self.grant(shared);
        granted
    }

    fn grant(&self, shared: &Arc<Shared>) {
        while let Some((kib, told)) = self.next() {
            // One that has just gone gives it back as it is dropped here.
            let _ = told.send(Granted { shared: shared.clone(), kib, size: self.size });
        }
    }

    fn next(&self) -> Option<(u32, oneshot::Sender<Granted>)> {
        let mut state = self.state.lock();
        state.waiting.retain(|waiting| !waiting.told.is_closed());
        let each = state.waiting.iter().enumerate();
        let (at, next) = each.min_by_key(|(_, waiting)| waiting.address.of(self.size))?;
        // A job that needs much waits for it, and the others behind it.
        state.free = state.free.checked_sub(next.kib)?;
        let next = state.waiting.remove(at);
        Some((next.kib, next.told))
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> u32 {
        self.state.lock().free
    }
}

/// Memory that a job took, given back when it ends.
#[derive(Debug)]
pub(super) struct Granted {
    shared: Arc<Shared>,
    kib: u32,
    size: JobSize,
}

impl Drop for Granted {
    fn drop(&mut self) {
        let memory = self.shared.memory_of(self.size);
        memory.state.lock().free += self.kib;
        memory.grant(&self.shared);
    }
}
