//! Waiting for records.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use sabir_base::wake::WakeBatch;
use sabir_model::PartitionId;

use crate::answer::Sleeper;
use crate::shard::Shard;
use crate::state::Touched;

/// What one watch has seen.
#[derive(Debug)]
pub(crate) struct Watch {
    wanted: usize,
    got: AtomicUsize,
    fired: AtomicBool,
    sleeper: Mutex<Sleeper>,
}

impl Watch {
    fn grew(&self, bytes: u64, wakes: &mut WakeBatch) {
        let bytes = bytes as usize;
        if self.got.fetch_add(bytes, SeqCst) + bytes >= self.wanted {
            self.fire(wakes);
        }
    }

    fn fire(&self, wakes: &mut WakeBatch) {
        self.fired.store(true, SeqCst);
        self.sleeper.lock().wake(wakes);
    }
}

/// The watches of a shard, by partition.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    watches: Mutex<FxHashMap<PartitionId, Vec<Arc<Watch>>>>,
    /// Registrations, for looking without the lock.
    count: AtomicUsize,
}

impl Watchers {
    fn add(&self, partition: PartitionId, watch: &Arc<Watch>) {
        self.watches.lock().entry(partition).or_default().push(watch.clone());
        self.count.fetch_add(1, SeqCst);
    }

    fn remove(&self, partition: PartitionId, watch: &Arc<Watch>) {
        let mut watches = self.watches.lock();
        let Some(list) = watches.get_mut(&partition) else { return };
        if let Some(at) = list.iter().position(|other| Arc::ptr_eq(other, watch)) {
            list.swap_remove(at);
            self.count.fetch_sub(1, SeqCst);
        }
        if list.is_empty() {
            watches.remove(&partition);
        }
    }

    /// Tells watches what a block touched.
    pub(crate) fn notify(&self, touched: &Touched, wakes: &mut WakeBatch) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let watches = self.watches.lock();
        for (partition, bytes) in &touched.grown {
            let watching = watches.get(partition).into_iter().flatten();
            watching.for_each(|watch| watch.grew(*bytes, wakes));
        }
        for partition in &touched.gone {
            watches.get(partition).into_iter().flatten().for_each(|watch| watch.fire(wakes));
        }
    }

    /// Ends every watch: nothing is as it was.
    pub(crate) fn wake_all(&self, wakes: &mut WakeBatch) {
        self.watches.lock().values().flatten().for_each(|watch| watch.fire(wakes));
    }
}

/// Ends when its partitions together have received the bytes it waits for, or when one of them is deleted or its shard
/// stops or loses its leadership. Register it, read, and await it only if the read was not enough.
#[must_use = "it does nothing unless awaited"]
pub struct DataWatch {
    watch: Arc<Watch>,
    places: Vec<(Arc<Shard>, PartitionId)>,
}

impl DataWatch {
    pub(crate) fn register(mut places: Vec<(Arc<Shard>, PartitionId)>, min_bytes: usize) -> Self {
        // Once each, however often it is named: leaving costs a look at all watches of the same partition.
        places.sort_unstable_by_key(|(shard, partition)| (shard.id, *partition));
        places.dedup_by_key(|(shard, partition)| (shard.id, *partition));
        let watch = Arc::new(Watch {
            wanted: min_bytes.max(1),
            got: AtomicUsize::new(0),
            fired: AtomicBool::new(false),
            sleeper: Mutex::default(),
        });
        places.iter().for_each(|(shard, partition)| shard.reads.watchers.add(*partition, &watch));
        Self { watch, places }
    }
}

impl std::fmt::Debug for DataWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataWatch").field("watch", &self.watch).finish_non_exhaustive()
    }
}

impl Future for DataWatch {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleeper = self.watch.sleeper.lock();
        // Under the sleeper's lock, which firing takes after its mark: one of the two sees the other.
        if self.watch.fired.load(SeqCst) {
            return Poll::Ready(());
        }
        sleeper.sleep(cx);
        Poll::Pending
    }
}

impl Drop for DataWatch {
    fn drop(&mut self) {
        for (shard, partition) in &self.places {
            shard.reads.watchers.remove(*partition, &self.watch);
        }
    }
}
