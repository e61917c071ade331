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
        Self::start_on(MemoryFiles::default(), broker, size)
    }

    fn start_on(files: MemoryFiles, broker: Broker, size: Option<TailCacheSize>) -> std::io::Result<Self> {
        allocator::bound();
        let (stop, stopped) = channel();
        let run = move || watch(&files, &broker, size, &stopped);
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

fn watch(files: &MemoryFiles, broker: &Broker, mut size: Option<TailCacheSize>, stopped: &Receiver<()>) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use sabir_base::clock::SystemClock;
    use sabir_broker::{BrokerOptions, DiskKind};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn until(what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn the_brokers_tail_cache_gives_way_while_memory_is_short_and_comes_back() {
        let (data, machine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(machine.path().join("proc")).unwrap();
        let left = |mib: u64| {
            let text = format!("MemTotal: 4194304 kB\nMemAvailable: {} kB\n", mib * 1024);
            std::fs::write(machine.path().join("proc/meminfo"), text).unwrap();
        };
        let options = BrokerOptions {
            disk: DiskKind::Pwrite,
            segment_bytes: 8 << 20,
            keep_free: 0,
            tail_cache_bytes: 1 << 30,
            ..BrokerOptions::new(data.path())
        };
        let broker = Broker::open(options, Arc::new(SystemClock)).unwrap();
        left(3000);
        let size = TailCacheSize::new(1024 * MIB, 4096 * MIB);
        let watch =
            MemoryWatch::start_on(MemoryFiles::below(machine.path()), broker.clone(), Some(size)).unwrap();
        let limit = || broker.stats().tail_cache_limit / MIB;
        std::thread::sleep(LOOK + LOOK / 2);
        assert_eq!(limit(), 1024, "there is plenty");
        left(100);
        until("it gives way", || limit() <= 768);
        left(3000);
        until("it comes back", || limit() == 1024);
        drop(watch);
        broker.shutdown();
    }
}
