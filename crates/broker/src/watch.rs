//! Waiting for records.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};

use parking_lot::Mutex;
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

/// Which of many positions have something new behind them, for one reader.
#[derive(Debug)]
pub(crate) struct Follow {
    /// By position: whether it is among those that have fired.
    marks: Box<[AtomicBool]>,
    fired: Mutex<(Vec<u32>, Sleeper)>,
}

impl Follow {
    /// Follows so many positions.
    pub(crate) fn new(positions: usize) -> Arc<Self> {
        let marks = (0..positions).map(|_| AtomicBool::new(false)).collect();
        Arc::new(Self { marks, fired: Mutex::default() })
    }

    /// The place in memory that is a position's alone.
    pub(crate) fn place(&self, position: u32) -> usize {
        std::ptr::from_ref(&self.marks[position as usize]).addr()
    }

    fn fire(&self, position: u32, wakes: &mut WakeBatch) {
        if self.marks[position as usize].swap(true, SeqCst) {
            return;
        }
        let mut fired = self.fired.lock();
        fired.0.push(position);
        fired.1.wake(wakes);
    }

    /// Those that have fired. What fires from then on does so again; what did before is there to be read.
    pub(crate) fn take(&self) -> Vec<u32> {
        let fired = std::mem::take(&mut self.fired.lock().0);
        fired.iter().for_each(|position| self.marks[*position as usize].store(false, SeqCst));
        fired
    }

    /// Waits until one has fired.
    pub(crate) async fn fired(&self) {
        poll_fn(|cx| {
            let mut fired = self.fired.lock();
            if !fired.0.is_empty() {
                return Poll::Ready(());
            }
            fired.1.sleep(cx);
            Poll::Pending
        })
        .await;
    }
}

/// What is told of a partition that grows or goes.
#[derive(Debug, Clone)]
pub(crate) enum Watcher {
    Data(Arc<Watch>),
    /// One of the positions that a reader follows.
    Follow(Arc<Follow>, u32),
}

impl Watcher {
    /// A place in memory that no other watcher has while this one is registered.
    fn place(&self) -> usize {
        match self {
            Self::Data(watch) => place_of(watch),
            Self::Follow(follow, position) => follow.place(*position),
        }
    }

    fn grew(&self, bytes: u64, wakes: &mut WakeBatch) {
        match self {
            Self::Data(watch) => watch.grew(bytes, wakes),
            Self::Follow(follow, position) => follow.fire(*position, wakes),
        }
    }

    fn fire(&self, wakes: &mut WakeBatch) {
        match self {
            Self::Data(watch) => watch.fire(wakes),
            Self::Follow(follow, position) => follow.fire(*position, wakes),
        }
    }
}

/// The watchers of a shard, by partition and by their own place in memory.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    watches: Mutex<BTreeMap<(PartitionId, usize), Watcher>>,
    /// Registrations, for looking without the lock.
    count: AtomicUsize,
}

fn place_of(watch: &Arc<Watch>) -> usize {
    Arc::as_ptr(watch).addr()
}

impl Watchers {
    pub(crate) fn add(&self, partition: PartitionId, watcher: Watcher) {
        self.watches.lock().insert((partition, watcher.place()), watcher);
        self.count.fetch_add(1, SeqCst);
    }

    pub(crate) fn remove(&self, partition: PartitionId, place: usize) {
        if self.watches.lock().remove(&(partition, place)).is_some() {
            self.count.fetch_sub(1, SeqCst);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.watches.lock().len()
    }

    /// Tells watches what a block touched.
    pub(crate) fn notify(&self, touched: &Touched, wakes: &mut WakeBatch) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let watches = self.watches.lock();
        let of = |partition| watches.range((partition, 0)..=(partition, usize::MAX)).map(|(_, watch)| watch);
        for (partition, bytes) in &touched.grown {
            of(*partition).for_each(|watch| watch.grew(*bytes, wakes));
        }
        for partition in &touched.gone {
            of(*partition).for_each(|watch| watch.fire(wakes));
        }
    }

    /// Ends every watch: nothing is as it was.
    pub(crate) fn wake_all(&self, wakes: &mut WakeBatch) {
        self.watches.lock().values().for_each(|watch| watch.fire(wakes));
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
        // Once each, however often it is named.
        places.sort_unstable_by_key(|(shard, partition)| (shard.id, *partition));
        places.dedup_by_key(|(shard, partition)| (shard.id, *partition));
        let watch = Arc::new(Watch {
            wanted: min_bytes.max(1),
            got: AtomicUsize::new(0),
            fired: AtomicBool::new(false),
            sleeper: Mutex::default(),
        });
        let add = |shard: &Arc<Shard>, partition| {
            shard.reads.watchers.add(partition, Watcher::Data(watch.clone()));
        };
        places.iter().for_each(|(shard, partition)| add(shard, *partition));
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
            shard.reads.watchers.remove(*partition, place_of(&self.watch));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const MANY: u64 = 100_000;

    fn watch() -> Arc<Watch> {
        let (got, fired) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Watch { wanted: 1, got, fired, sleeper: Mutex::default() })
    }

    /// Registers, and takes away again in the order in which they came.
    fn took(watchers: &Watchers, all: &[(PartitionId, Arc<Watch>)]) -> Duration {
        let began = Instant::now();
        all.iter().for_each(|(partition, watch)| watchers.add(*partition, Watcher::Data(watch.clone())));
        all.iter().for_each(|(partition, watch)| watchers.remove(*partition, place_of(watch)));
        assert!(watchers.watches.lock().is_empty() && watchers.count.load(SeqCst) == 0);
        began.elapsed()
    }

    #[test]
    fn very_many_leave_in_no_time_whatever_they_watch() {
        let watchers = Watchers::default();
        let one = watch();
        let partitions: Vec<_> = (0..MANY).map(|id| (PartitionId(id), one.clone())).collect();
        let of_one = took(&watchers, &partitions);
        let watches: Vec<_> = (0..MANY).map(|_| (PartitionId(7), watch())).collect();
        let on_one = took(&watchers, &watches);
        println!("{MANY} partitions of one watch: {of_one:?}; {MANY} watches of one partition: {on_one:?}");
        assert!(of_one.max(on_one) < Duration::from_secs(1), "{of_one:?}, {on_one:?}");
    }

    #[test]
    fn those_of_a_partition_are_told_and_no_others() {
        let (watchers, wakes) = (Watchers::default(), &mut WakeBatch::default());
        let [one, both, other] = [watch(), watch(), watch()];
        for (partition, watch) in [(1, &one), (1, &both), (2, &both), (2, &other)] {
            watchers.add(PartitionId(partition), Watcher::Data(watch.clone()));
        }
        let fired = |watch: &Watch| watch.fired.load(SeqCst);
        let grown = Touched { grown: vec![(PartitionId(1), 5)], ..Touched::default() };
        watchers.notify(&grown, wakes);
        assert!(fired(&one) && fired(&both) && !fired(&other));
        watchers.remove(PartitionId(2), place_of(&both));
        let gone = Touched { gone: vec![PartitionId(2)], ..Touched::default() };
        watchers.notify(&gone, wakes);
        assert!(fired(&other));
    }
}
