//! The open block of a shard, and the full ones that wait to be submitted.

use std::collections::VecDeque;
use std::sync::Arc;

use sabir_base::buf::BufPool;
use sabir_base::clock::Clock;
use sabir_journal::{BlockBuilder, LARGEST_ENTRY, Priority};
use sabir_model::batch::{CheckedBatch, stamp_log_append_time, stored_base_offset};
use sabir_model::{Durability, FrontendNo, ShardFailure};

use crate::answer::{AppendCall, Waiter, Waiting};
use crate::append::Append;
use crate::entry::{
    AppendBody, Body, ChunkBody, FragmentedBody, FrontendBody, NodeTime, OfferedBatch, Producer, Targets,
    kind,
};
use crate::front_ends::ProjectionEntry;
use crate::publish::{PublishBatch, TargetGroup};

/// Bytes of a chunk of a fragmented batch.
const CHUNK: usize = 512 << 10;
/// What records are appended with.
const ORDINARY: Priority = Priority::Ordinary;
/// Builders kept for reuse.
const SPARE: usize = 4;
/// The largest buffer that is kept for batches that are stamped.
const STAMPED_KEPT: usize = 256 << 10;
/// An entry that is larger has its block for itself: the node's time is not said before it.
const LARGE: usize = 960 << 10;
/// By how much the last block's time may be above the node's without being said.
const ABOVE_MS: i64 = 1_000;
/// What a body of an append takes at the most.
const BODY_MAX: usize = 64;
/// What each of several targets takes in it at the most.
const TARGET_MAX: usize = 10;

/// A block that takes entries, or took them.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) builder: BlockBuilder,
    /// What waits for its entries, by entry.
    pub(super) waiters: Vec<(u32, Waiter)>,
    /// The latest stamp in it: its time is at least that.
    pub(super) stamp: i64,
    /// Whether an entry in it may use the space kept in reserve.
    pub(super) reserve: bool,
    /// Bytes of changes in it, with what is kept of their waiters.
    changes: usize,
}

impl Filled {
    fn new(pool: &Arc<BufPool>, tail_bytes: usize) -> Self {
        Self {
            builder: BlockBuilder::for_tail(pool.clone(), tail_bytes),
            waiters: Vec::new(),
            stamp: i64::MIN,
            reserve: false,
            changes: 0,
        }
    }
}

/// Bytes that a change which waits is counted with beside its body, for its waiter.
const WAITER: usize = 128;

/// An entry to push.
pub(super) struct Entry<'a> {
    pub(super) kind: u16,
    pub(super) body: &'a [u8],
    pub(super) payload: Option<&'a [u8]>,
    /// What small payloads are grouped by.
    pub(super) group: u64,
    pub(super) durability: Durability,
    pub(super) priority: Priority,
}

/// What tells the node's time.
struct BlockClock(Arc<dyn Clock>);

impl std::fmt::Debug for BlockClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockClock").finish_non_exhaustive()
    }
}

/// The blocks of a shard that are not submitted yet.
#[derive(Debug)]
pub(super) struct OpenBlocks {
    pool: Arc<BufPool>,
    /// What the journal's tail cache holds, as it was opened.
    tail_bytes: usize,
    open: Filled,
    full: VecDeque<Filled>,
    full_bytes: usize,
    /// Bytes of changes, which hold no caller back as records do.
    changes: usize,
    spare: Vec<Filled>,
    /// Why nothing is taken any more, if so.
    pub(super) refused: Option<ShardFailure>,
    next_fragmented: u64,
    clock: BlockClock,
    /// The last block's time, which the next one's is not below.
    pub(super) last_ms: i64,
    /// Whether the directory's level has entries that say the node's time.
    pub(super) says_node_time: bool,
    /// The projections of front ends that the shard has heard of: entries of others say whose they are.
    pub(super) bound: Vec<FrontendNo>,
    body: Vec<u8>,
    stamped: Vec<u8>,
}

impl OpenBlocks {
    pub(super) fn new(
        pool: Arc<BufPool>,
        tail_bytes: usize,
        bound: Vec<FrontendNo>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            open: Filled::new(&pool, tail_bytes),
            pool,
            tail_bytes,
            full: VecDeque::new(),
            full_bytes: 0,
            changes: 0,
            spare: Vec::new(),
            refused: None,
            next_fragmented: 0,
            clock: BlockClock(clock),
            last_ms: i64::MIN,
            says_node_time: false,
            bound,
            body: Vec::with_capacity(BODY_MAX),
            stamped: Vec::new(),
        }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        if self.open.builder.is_empty() {
            self.full_bytes
        } else {
            self.full_bytes + self.open.builder.bytes()
        }
    }

    /// What is to be waited for: bytes of entries, or of changes with what is kept of their waiters, whichever is more.
    pub(super) fn waiting(&self) -> usize {
        self.bytes().max(self.changes)
    }

    /// Whether changes with bodies of so many bytes would be more than `most` bytes of them.
    pub(super) fn is_crowded(&self, bodies: usize, count: usize, most: usize) -> bool {
        self.changes > 0 && self.changes + bodies + count * WAITER > most
    }

    /// Adds an entry that is counted as a change, as [`push`](Self::push) does.
    pub(super) fn push_change(&mut self, entry: &Entry<'_>, waiter: Option<Waiter>) {
        self.push(entry, waiter);
        let bytes = entry.body.len() + entry.payload.map_or(0, <[u8]>::len) + WAITER;
        self.open.changes += bytes;
        self.changes += bytes;
    }

    /// Whether a block has been filled.
    pub(super) fn has_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Adds an entry to the open block, or to the next one if it is full.
    pub(super) fn push(&mut self, entry: &Entry<'_>, waiter: Option<Waiter>) {
        let len = entry.body.len() + entry.payload.map_or(0, <[u8]>::len);
        if !self.open.builder.fits(len) {
            self.rotate();
        }
        let Entry { kind, body, payload, group, durability, priority } = *entry;
        if self.says_node_time && self.open.builder.is_empty() && len <= LARGE {
            self.say_node_time(durability);
        }
        #[cfg(any(test, feature = "testing"))]
        if payload.is_none() {
            crate::panicking::panic_if_wanted("push", body);
        }
        self.open.reserve |= priority != Priority::Ordinary;
        let index = self.open.builder.push(kind, body, payload, group, durability);
        self.open.waiters.extend(waiter.map(|waiter| (index, waiter)));
    }

    /// Says the node's time where the block's will stand above it: what ends at a moment of the node's time ends by that.
    fn say_node_time(&mut self, durability: Durability) {
        let now_ms = self.clock.0.now_ms();
        if now_ms.saturating_add(ABOVE_MS) < self.last_ms {
            let mut body = Vec::with_capacity(BODY_MAX);
            NodeTime { ms: now_ms }.encode(&mut body);
            self.open.builder.push(NodeTime::KIND, &body, None, 0, durability);
        }
    }

    /// Has entries that take so many bytes be in one block, where one has room for them.
    pub(super) fn keep_together(&mut self, bytes: usize) {
        if !self.open.builder.is_empty() && !self.open.builder.fits(bytes) {
            self.rotate();
        }
    }

    fn rotate(&mut self) {
        let next = self.spare.pop().unwrap_or_else(|| Filled::new(&self.pool, self.tail_bytes));
        let full = std::mem::replace(&mut self.open, next);
        self.full_bytes += full.builder.bytes();
        self.full.push_back(full);
    }

    /// Adds a batch, the `slot`th of `call`; one too large for a block is fragmented. A stamp is the node's time, even where the
    /// last block's is above it: the node's time goes back only to a clock that is known to be right.
    pub(super) fn append(
        &mut self,
        item: &Append,
        now_ms: i64,
        default: Durability,
        call: Arc<AppendCall>,
        slot: u32,
    ) {
        let durability = item.durability.unwrap_or(default);
        let (bytes, topic, partition) = (item.batch.bytes().len() as u32, item.topic.clone(), item.partition);
        let batch = Waiting { call, slot, bytes, topic, partition };
        let waiter = Waiter::Append { batch, fragmented: None };
        let stamp = item.stamp.then_some(now_ms);
        self.append_batch(&item.batch, stamp, |max_ts| append_body(item, max_ts), durability, waiter);
    }

    /// Adds a batch for all targets of a group, once.
    pub(super) fn publish(
        &mut self,
        group: &TargetGroup,
        (origin, partial): (FrontendNo, bool),
        batch: &PublishBatch,
        (now_ms, default): (i64, Durability),
        waiter: Waiter,
    ) {
        let PublishBatch { batch, facts } = batch;
        let body = |max_ts| AppendBody {
            facts: facts.clone().map(Box::new),
            partial: partial && group.queues,
            ..batch_body(batch, group.partitions.clone(), origin, group.stamp, max_ts)
        };
        let stamp = group.stamp.then_some(now_ms);
        self.append_batch(batch, stamp, body, group.durability(default), waiter);
    }

    /// `stamp` is the time that the batch is stamped with, if it is to be; `body` is given its largest time.
    fn append_batch(
        &mut self,
        batch: &CheckedBatch,
        stamp: Option<i64>,
        body: impl FnOnce(i64) -> AppendBody,
        durability: Durability,
        waiter: Waiter,
    ) {
        let Some(now_ms) = stamp else {
            let max_ts = batch.header().max_timestamp;
            return self.append_bytes(body(max_ts), batch.bytes(), durability, waiter);
        };
        let mut stamped = std::mem::take(&mut self.stamped);
        stamped.clear();
        stamped.extend_from_slice(batch.bytes());
        // The header was parsed before, so this finds a whole batch.
        let _ = stamp_log_append_time(&mut stamped, now_ms);
        self.append_bytes(body(now_ms), &stamped, durability, waiter);
        // In the block that now is open: it may be the next one.
        self.open.stamp = self.open.stamp.max(now_ms);
        if stamped.capacity() <= STAMPED_KEPT {
            self.stamped = stamped;
        }
    }

    fn append_bytes(&mut self, record: AppendBody, batch: &[u8], durability: Durability, waiter: Waiter) {
        if batch.len() + body_max(&record) > LARGEST_ENTRY {
            return self.append_fragmented(record, batch, durability, waiter);
        }
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        record.encode(&mut body);
        let target = record.targets.as_slice().first().map_or(0, |target| target.0);
        let entry = Entry {
            kind: kind::APPEND,
            body: &body,
            payload: Some(batch),
            group: target,
            durability,
            priority: ORDINARY,
        };
        self.push(&entry, Some(waiter));
        // That of a batch for several names none of them.
        if let Targets::One(partition) = record.targets
            && let Some(base_offset) = stored_base_offset(partition)
        {
            self.open.builder.put_front(&base_offset);
        }
        self.body = body;
    }

    /// Adds an entry of a front end's projection, with the batches that it may append.
    pub(super) fn write(
        &mut self,
        (number, name): (FrontendNo, &str),
        seed: Option<u64>,
        asked: &ProjectionEntry,
        (now_ms, durability): (i64, Durability),
        waiter: Waiter,
    ) {
        let (mut body, mut payload) = (std::mem::take(&mut self.body), std::mem::take(&mut self.stamped));
        body.clear();
        payload.clear();
        let batches = asked.batches.iter().map(|item| offer(item, now_ms, &mut payload)).collect();
        let name = (!self.bound.contains(&number)).then_some(name);
        FrontendBody { number, name, seed, batches, command: &asked.command }.encode(&mut body);
        let priority = if asked.makes_space { Priority::Reserve } else { ORDINARY };
        let group = asked.batches.first().map_or(0, |item| item.partition.0);
        let payload_there = (!asked.batches.is_empty()).then_some(&payload[..]);
        let entry = Entry {
            kind: FrontendBody::KIND,
            body: &body,
            payload: payload_there,
            group,
            durability,
            priority,
        };
        self.push_change(&entry, Some(waiter));
        if asked.batches.iter().any(|item| item.stamp) {
            self.open.stamp = self.open.stamp.max(now_ms);
        }
        if body.capacity() <= STAMPED_KEPT {
            self.body = body;
        }
        if payload.capacity() <= STAMPED_KEPT {
            self.stamped = payload;
        }
    }

    fn append_fragmented(
        &mut self,
        append: AppendBody,
        batch: &[u8],
        durability: Durability,
        mut waiter: Waiter,
    ) {
        let fragmented = self.next_fragmented;
        self.next_fragmented += 1;
        let mut chunks = 0;
        for chunk in batch.chunks(CHUNK) {
            let record = ChunkBody { fragmented, index: chunks };
            self.push_body(&record, Some(chunk), durability, None);
            chunks += 1;
        }
        waiter.set_fragmented(fragmented);
        self.push_body(&FragmentedBody { fragmented, chunks, append }, None, durability, Some(waiter));
    }

    fn push_body<B: Body>(
        &mut self,
        record: &B,
        payload: Option<&[u8]>,
        durability: Durability,
        waiter: Option<Waiter>,
    ) {
        let mut body = Vec::with_capacity(BODY_MAX);
        record.encode(&mut body);
        self.push(
            &Entry { kind: B::KIND, body: &body, payload, group: 0, durability, priority: ORDINARY },
            waiter,
        );
    }

    /// Takes the next block to submit.
    pub(super) fn take(&mut self) -> Option<Filled> {
        if let Some(full) = self.full.pop_front() {
            self.full_bytes -= full.builder.bytes();
            self.changes -= full.changes;
            return Some(full);
        }
        if self.open.builder.is_empty() {
            return None;
        }
        let next = self.spare.pop().unwrap_or_else(|| Filled::new(&self.pool, self.tail_bytes));
        self.changes -= self.open.changes;
        Some(std::mem::replace(&mut self.open, next))
    }

    /// Takes back what [`take`](Self::take) gave, emptied.
    pub(super) fn reuse(&mut self, builder: BlockBuilder, waiters: Vec<(u32, Waiter)>) {
        if self.spare.len() < SPARE {
            debug_assert!(builder.is_empty() && waiters.is_empty());
            self.spare.push(Filled { builder, waiters, stamp: i64::MIN, reserve: false, changes: 0 });
        }
    }

    /// Takes no more entries; gives all waiters of those not submitted.
    pub(super) fn refuse(&mut self, why: ShardFailure) -> Vec<Waiter> {
        self.refused = Some(why);
        let mut all = Vec::new();
        while let Some(filled) = self.take() {
            all.extend(filled.waiters.into_iter().map(|(_, waiter)| waiter));
        }
        all
    }
}

/// Puts a batch into a payload, stamped if it is to be.
fn offer(item: &Append, now_ms: i64, payload: &mut Vec<u8>) -> OfferedBatch {
    let (at, batch) = (payload.len(), item.batch.bytes());
    payload.extend_from_slice(batch);
    if item.stamp {
        // The header was parsed before, so this finds a whole batch.
        let _ = stamp_log_append_time(&mut payload[at..], now_ms);
    }
    let max_ts = if item.stamp { now_ms } else { item.batch.header().max_timestamp };
    OfferedBatch { len: batch.len() as u32, append: append_body(item, max_ts) }
}

fn append_body(item: &Append, max_ts: i64) -> AppendBody {
    let body = batch_body(&item.batch, Targets::One(item.partition), item.origin, item.stamp, max_ts);
    AppendBody { facts: item.facts.clone(), ..body }
}

fn batch_body(
    batch: &CheckedBatch,
    targets: Targets,
    origin: FrontendNo,
    stamped: bool,
    max_ts: i64,
) -> AppendBody {
    let header = batch.header();
    let producer = header.producer_id.known().filter(|_| origin == FrontendNo::NONE);
    AppendBody {
        targets,
        // A batch covers as many offsets as its last delta says; its check has seen that none is without a record.
        records: header.last_offset_delta as u32 + 1,
        max_ts,
        stamped,
        origin,
        producer: producer.map(|id| Producer {
            id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        }),
        facts: None,
        partial: false,
    }
}

/// What the body of an append takes at the most.
fn body_max(record: &AppendBody) -> usize {
    let facts = record.facts.as_ref().map_or(0, |facts| facts.stored_bytes());
    match &record.targets {
        Targets::One(_) => BODY_MAX + facts,
        Targets::Several(targets) => BODY_MAX + TARGET_MAX * targets.len() + facts,
    }
}

#[cfg(test)]
mod tests {
    use sabir_base::clock::ManualClock;
    use sabir_model::batch::{BatchBuilder, BatchHeader, Compression};
    use sabir_model::{PartitionId, ShardId, TimestampType, TopicConfig, TopicId, ValidConfig};

    use super::*;
    use crate::catalog::Partition;
    use crate::{AppendAcks, AppendTarget, Topic};

    fn append(bytes: usize) -> Append {
        let config = TopicConfig {
            max_message_bytes: 4 << 20,
            timestamp_type: TimestampType::LogAppendTime,
            ..TopicConfig::default()
        };
        let topic = Arc::new(Topic {
            id: TopicId([1; 16]),
            name: "t".into(),
            namespace: "/".into(),
            version: 1,
            config: ValidConfig::trusted(config),
            partitions: vec![Partition { index: 0, id: PartitionId(1), shard: ShardId(1), epoch_base: 0 }],
            internal: false,
            made_by: FrontendNo::NONE,
            traffic: Arc::default(),
        });
        let target =
            AppendTarget::new(&crate::Caller::OPERATOR, &topic, 0, AppendAcks::InSync, FrontendNo::NONE)
                .unwrap();
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(5, None, Some(&vec![7; bytes]), &[]);
        target.append(batch.build_checked(&target.rules(), 5).unwrap()).unwrap()
    }

    #[test]
    fn the_buffer_of_a_large_batch_that_was_stamped_is_not_kept() {
        let clock = Arc::new(ManualClock::at(5));
        let mut open = OpenBlocks::new(BufPool::new(1 << 20), 1 << 20, Vec::new(), clock);
        for (bytes, kept) in [(1000, true), (3 << 20, false), (1000, true)] {
            open.append(&append(bytes), 9, Durability::Sync, AppendCall::new(1), 0);
            assert_eq!(open.stamped.capacity() > 0, kept, "{bytes}");
            assert!(open.stamped.capacity() <= STAMPED_KEPT);
        }
        let header = BatchHeader::parse(&open.stamped).unwrap();
        assert_eq!((header.max_timestamp, header.timestamp_type()), (9, TimestampType::LogAppendTime));
    }
}
