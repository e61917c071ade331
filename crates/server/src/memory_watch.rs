//! The thread that looks at the memory: the tail cache gives way while it is short, and what is free goes back to the system.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use sabir_broker::Broker;

use crate::allocator;
use crate::memory::{MemoryFiles, TailCacheSize};

/// How often it is looked how much memory is left.
const LOOK: Duration = Duration::from_secs(1);
/// How often free memory is given back, in looks.
const GIVE_BACK: u32 = 30;

/// Ends with its owner.
pub struct MemoryWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Watches; `size` is the tail cache's, where that may change.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(broker: Broker, size: Option<TailCacheSize>) -> std::io::Result<Self> {
        allocator::bound();
        let (stop, stopped) = channel();
        let run = move || watch(&broker, size, &stopped);
        let thread = std::thread::Builder::new().name("memory".into()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // If it had panicked, that was said.
            let _ = thread.join();
        }
    }
}

fn watch(broker: &Broker, mut size: Option<TailCacheSize>, stopped: &Receiver<()>) {
    let files = MemoryFiles::default();
    let mut looks = 0;
    while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        looks += 1;
        let available = size.as_ref().and_then(|_| files.available());
        let resized = size.as_mut().zip(available).and_then(|(size, available)| size.look(available));
        if let Some(bytes) = resized {
            tracing::debug!(bytes, available, "the tail cache changes its size");
            broker.resize_tail_cache(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        if resized.is_some() || looks % GIVE_BACK == 0 {
            allocator::give_back();
        }
    }
}
