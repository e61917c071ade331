//! Sets of targets, each held once however many keys lead to it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxHashMap;
use sabir_model::{PartitionId, ShardId, TopicId};

/// What a message can be routed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTarget {
    /// A queue, or a topic of one partition.
    Partition {
        /// The partition's shard.
        shard: ShardId,
        /// The partition.
        partition: PartitionId,
    },
    /// A topic of several partitions; the message's key chooses one.
    Topic(TopicId),
    /// A live session.
    Session(SessionNo),
}

/// A live session's number on this node; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNo(pub u64);

/// A set's number while the process runs; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteSetId(pub u64);

/// The targets of a message: partitions by shard, then topics, then sessions, each once.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteSet {
    id: RouteSetId,
    targets: Box<[RouteTarget]>,
    /// How many of them are partitions.
    partitions: usize,
    /// How many are partitions or topics.
    stored: usize,
}

impl RouteSet {
    fn new(id: RouteSetId, targets: &[RouteTarget]) -> Self {
        let partitions = targets.partition_point(|target| matches!(target, RouteTarget::Partition { .. }));
        let stored = targets.partition_point(|target| !matches!(target, RouteTarget::Session(_)));
        Self { id, targets: targets.into(), partitions, stored }
    }

    /// Its number.
    pub fn id(&self) -> RouteSetId {
        self.id
    }

    /// All targets.
    pub fn targets(&self) -> &[RouteTarget] {
        &self.targets
    }

    /// The partitions of each shard concerned, by rising shard.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &[RouteTarget])> {
        let partitions = self.targets[..self.partitions].chunk_by(|one, other| shard(one) == shard(other));
        partitions.map(|chunk| (shard(&chunk[0]), chunk))
    }

    /// The topics of several partitions.
    pub fn topics(&self) -> &[RouteTarget] {
        &self.targets[self.partitions..self.stored]
    }

    /// The live sessions.
    pub fn sessions(&self) -> &[RouteTarget] {
        &self.targets[self.stored..]
    }

    /// Whether the message goes nowhere.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    fn bytes(&self) -> usize {
        const TABLES: usize = 64;
        size_of::<Self>() + TABLES + size_of_val(&*self.targets)
    }
}

/// The shard of a partition.
fn shard(target: &RouteTarget) -> ShardId {
    match target {
        RouteTarget::Partition { shard, .. } => *shard,
        RouteTarget::Topic(_) | RouteTarget::Session(_) => ShardId::CATALOG,
    }
}

/// All sets that are held. A set counts its holders, and is dropped by [`RouteSets::collect`] when it has none.
#[derive(Debug)]
pub struct RouteSets {
    hasher: RandomState,
    by_targets: HashTable<Arc<RouteSet>>,
    by_id: FxHashMap<RouteSetId, Arc<RouteSet>>,
    next: u64,
    bytes: usize,
    limit: usize,
    /// How many sets there may be before those without holders are looked for.
    due: usize,
}

/// Sets after which it is worth to look for the first without a holder.
const FIRST_DUE: usize = 64;

/// The holders of a set that has no other: the two tables.
const HELD_BY_TABLES: usize = 2;

impl RouteSets {
    /// No sets. Those kept take at most `limit` bytes; beyond them a set is made for its message alone.
    pub fn new(limit: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            by_targets: HashTable::new(),
            by_id: FxHashMap::default(),
            next: 1,
            bytes: 0,
            limit,
            due: FIRST_DUE,
        }
    }

    /// The set of these targets, which rise and are each there once. If it is not kept for want of room, the next call makes another.
    pub fn intern(&mut self, targets: &[RouteTarget]) -> Arc<RouteSet> {
        debug_assert!(targets.is_sorted_by(|one, other| one < other), "targets rise: {targets:?}");
        let hash = self.hasher.hash_one(targets);
        if let Some(set) = self.by_targets.find(hash, |set| *set.targets == *targets) {
            return set.clone();
        }
        if self.by_id.len() >= self.due {
            self.collect();
        }
        self.add(hash, targets)
    }

    fn add(&mut self, hash: u64, targets: &[RouteTarget]) -> Arc<RouteSet> {
        let set = Arc::new(RouteSet::new(RouteSetId(self.next), targets));
        self.next += 1;
        if self.bytes + set.bytes() > self.limit {
            return set;
        }
        self.bytes += set.bytes();
        let hasher = &self.hasher;
        self.by_targets.insert_unique(hash, set.clone(), |set| hasher.hash_one(&*set.targets));
        self.by_id.insert(set.id, set.clone());
        set
    }

    /// The set of this number, unless it was dropped or never kept.
    pub fn get(&self, id: RouteSetId) -> Option<&Arc<RouteSet>> {
        self.by_id.get(&id)
    }

    /// Drops what has no other holder.
    pub fn collect(&mut self) {
        self.by_targets.retain(|set| Arc::strong_count(set) > HELD_BY_TABLES);
        // A set that only one of the tables holds was dropped from the other one above.
        self.by_id.retain(|_, set| Arc::strong_count(set) >= HELD_BY_TABLES);
        self.bytes = self.by_id.values().map(|set| set.bytes()).sum();
        self.due = (2 * self.by_id.len()).max(FIRST_DUE);
    }

    /// Sets kept.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Bytes of the sets kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(shard: u32, partition: u64) -> RouteTarget {
        RouteTarget::Partition { shard: ShardId(shard), partition: PartitionId(partition) }
    }

    #[test]
    fn a_set_is_held_once_and_dropped_when_nobody_holds_it() {
        let mut sets = RouteSets::new(1 << 20);
        let one = sets.intern(&[queue(1, 1)]);
        assert_eq!(sets.intern(&[queue(1, 1)]).id(), one.id());
        let id = sets.intern(&[queue(1, 2)]).id();
        assert_eq!(sets.get(id).map(|set| set.id()), Some(id));
        sets.collect();
        assert_eq!((sets.len(), sets.get(id)), (1, None));
        drop(one);
        sets.collect();
        assert!(sets.is_empty() && sets.bytes() == 0);
        assert!(sets.intern(&[queue(1, 2)]).id() > id, "a number is never given twice");
    }

    #[test]
    fn sets_that_nobody_holds_do_not_pile_up() {
        let mut sets = RouteSets::new(usize::MAX);
        for partition in 0..10_000 {
            sets.intern(&[queue(1, partition)]);
        }
        assert!(sets.len() <= FIRST_DUE, "{}", sets.len());
    }

    #[test]
    fn beyond_the_limit_a_set_is_not_kept() {
        let mut sets = RouteSets::new(1_000);
        let held: Vec<_> = (0..100).map(|partition| sets.intern(&[queue(1, partition)])).collect();
        assert!(sets.bytes() <= 1_000 && sets.len() < 100 && !sets.is_empty());
        assert_eq!(held[99].targets(), [queue(1, 99)]);
        assert_eq!(sets.get(held[99].id()), None);
    }

    #[test]
    fn targets_are_parted_by_shard_and_kind() {
        let mut sets = RouteSets::new(1 << 20);
        let (topic, session) = (RouteTarget::Topic(TopicId([1; 16])), RouteTarget::Session(SessionNo(1)));
        let mut targets = [session, queue(2, 1), topic, queue(1, 9), queue(1, 2)];
        targets.sort();
        let set = sets.intern(&targets);
        let shards: Vec<_> = set.shards().collect();
        let want: [(ShardId, &[RouteTarget]); 2] =
            [(ShardId(1), &[queue(1, 2), queue(1, 9)]), (ShardId(2), &[queue(2, 1)])];
        assert_eq!(shards, want);
        assert_eq!((set.topics(), set.sessions()), (&[topic][..], &[session][..]));
        assert!(sets.intern(&[]).is_empty());
    }
}
