//! The projection of the records: partitions, what they remember of producers, and fragmented batches.

use rustc_hash::{FxHashMap, FxHashSet};
use sabir_delivery::policy::{Backlog, DeathPolicy, LengthLimit};
use sabir_journal::EntryView;
use sabir_journal::pages::{PageError, PageStore, Paged};
use sabir_model::{DecodeError, Overflow, Overlay, PartitionId, Sequence, Term};

use super::unfinished::{UnfinishedBatch, UnfinishedKey};
use super::{
    At, CoreProjection, EntryError, EntryOutcome, ExpiryQueue, Locate, MessageIds, Outcome, Producers,
    QueueChange, SegmentUsage, StoredMaps, Touched, applied, bad_body, payload, prefixes,
};
use crate::entry::{
    AppendBody, Body, ChunkBody, FragmentedBody, FragmentedDropped, Kinds, LogStartsMoved,
    PartitionsConfigured, PartitionsCreated, PartitionsDeleted, ProducersExpired, ReferenceBody, kind,
};
use crate::partition::{PartitionKey, PartitionState, Spill, SpillKey};
use crate::projection::{Dump, PageMap, Projection};

/// Counters of appends since the start of the process; no part of the projection.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct AppendCounters {
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) batch_bytes: u64,
    pub(crate) refused: u64,
    pub(crate) duplicates: u64,
    /// Messages that queues dropped since they had had one of the same id.
    pub(crate) repeated: u64,
    /// Targets that did not take a dead letter.
    pub(crate) dead_letters_refused: u64,
    /// Dead letters that went back to the queue that gave them up, and those that stayed where they are.
    pub(crate) redriven: u64,
    pub(crate) redrives_refused: u64,
    /// Targets that did not take a message which was kept back.
    pub(crate) delayed_refused: u64,
}

/// All partitions of a shard.
pub(crate) struct Partitions {
    pub(super) partitions: Paged<PartitionKey, PartitionState>,
    pub(crate) producers: Producers,
    pub(super) unfinished: Paged<UnfinishedKey, UnfinishedBatch>,
    pub(crate) message_ids: MessageIds,
    pub(crate) spill: Spill,
    /// This node's own table; no part of the projection.
    pub(crate) usage: SegmentUsage,
    /// When to look at which producer; follows from `producers`.
    pub(crate) expiry: ExpiryQueue,
    /// Of the block applied last.
    pub(crate) touched: Touched,
    /// What the entry that is being applied did to queues' partitions; their subscriptions are told right behind it.
    pub(super) queue_changes: Vec<QueueChange>,
    /// What is ready of the queues whose length is limited; follows from their subscriptions.
    pub(super) backlogs: FxHashMap<PartitionId, Backlog>,
    /// The queues that take in nothing more; follows from their subscriptions.
    pub(super) sealed: FxHashSet<PartitionId>,
    /// The topics' partitions that have subscriptions, which are told what is appended; follows from these.
    pub(super) subscribed: FxHashSet<PartitionId>,
    pub(crate) counters: AppendCounters,
}

impl Default for Partitions {
    fn default() -> Self {
        Self {
            partitions: Paged::new(prefixes::PARTITIONS),
            producers: Producers::default(),
            unfinished: Paged::new(prefixes::UNFINISHED),
            message_ids: MessageIds::default(),
            spill: Spill::default(),
            usage: SegmentUsage::default(),
            expiry: ExpiryQueue::default(),
            touched: Touched::default(),
            queue_changes: Vec::new(),
            backlogs: FxHashMap::default(),
            sealed: FxHashSet::default(),
            subscribed: FxHashSet::default(),
            counters: AppendCounters::default(),
        }
    }
}

impl Partitions {
    pub(crate) fn partition(&self, id: PartitionId) -> Option<&PartitionState> {
        self.partitions.get(&PartitionKey(id))
    }

    /// The ids of all of them, in no order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions.iter().map(|(key, _)| key.0)
    }

    /// What becomes of messages that each queue gives up.
    pub(super) fn deaths(&self) -> impl Iterator<Item = (PartitionId, DeathPolicy)> {
        self.ids().filter_map(|id| Some((id, self.partition(id)?.settings.queue.as_ref()?.deaths())))
    }

    /// How long a queue may be, if that is limited.
    pub(super) fn limit(&self, id: PartitionId) -> Option<LengthLimit> {
        self.partition(id)?.settings.queue.as_ref()?.limit()
    }

    /// The limit at which a queue's oldest messages are given up where they are applied.
    pub(super) fn drops_at(&self, id: PartitionId) -> Option<LengthLimit> {
        let settings = self.partition(id)?.settings.queue.as_ref()?;
        settings.limit().filter(|limit| limit.overflow == Overflow::DropHead)
    }

    /// Takes in what is ready of a queue, if its length is limited.
    pub(super) fn note_backlog(&mut self, id: PartitionId, backlog: Backlog) {
        match self.limit(id) {
            Some(_) => drop(self.backlogs.insert(id, backlog)),
            None if self.backlogs.is_empty() => {}
            None => drop(self.backlogs.remove(&id)),
        }
    }

    /// Takes in whether a queue takes in nothing more, which is for good.
    pub(super) fn note_sealed(&mut self, id: PartitionId, is_sealed: bool) {
        if is_sealed {
            self.sealed.insert(id);
        }
    }

    /// Takes in whether a topic's partition has subscriptions.
    pub(super) fn note_subscribed(&mut self, id: PartitionId, is_subscribed: bool) {
        match is_subscribed {
            true => self.subscribed.insert(id),
            false => self.subscribed.remove(&id),
        };
    }

    /// Lets go of producers in the queue that were forgotten otherwise, once they are the most of it.
    pub(crate) fn tidy_expiry(&mut self) {
        if self.expiry.len() > 2 * self.producers.len() + 1024 {
            self.expiry = expiry_of(&self.producers);
        }
    }

    /// A block begins.
    pub(super) fn begin_block(&mut self) {
        self.touched.grown.clear();
        self.touched.gone.clear();
    }

    /// A later term drops the fragmented batches that an earlier one left unfinished.
    pub(super) fn enter(&mut self, term: Term) {
        let stale =
            |(key, fragmented): (&UnfinishedKey, &UnfinishedBatch)| (fragmented.term < term).then_some(*key);
        let stale: Vec<UnfinishedKey> = self.unfinished.iter().filter_map(stale).collect();
        stale.iter().for_each(|key| drop(self.unfinished.remove(key)));
    }

    pub(super) fn note_usage(&mut self, sequence: Sequence, locate: Locate<'_>) {
        if let (Some(segment), false) = (locate(sequence), self.touched.grown.is_empty()) {
            let grown: Vec<PartitionId> = self.touched.grown.iter().map(|(id, _)| *id).collect();
            self.usage.note(segment, &grown);
        }
    }

    fn apply_reference(
        &mut self,
        entry: &EntryView<'_>,
        at: &At,
        locate: Locate<'_>,
    ) -> Result<Outcome, EntryError> {
        let body = ReferenceBody::decode(entry.body).map_err(|source| bad_body(entry, source))?;
        match (body.extent.overlay, entry.payload) {
            (Overlay::Payload, None) => payload(entry).map(drop)?,
            (Overlay::None | Overlay::At(_), Some(_)) => {
                return Err(bad_body(entry, DecodeError::Field("overlay")));
            }
            _ => {}
        }
        Ok(self.refer(&body, entry.payload, None, at, locate).into_outcome())
    }

    fn spilled(&self, key: &SpillKey, pages: &dyn PageStore) -> Result<Vec<u8>, PageError> {
        if let Some(page) = self.spill.get(key) {
            return Ok(page.to_vec());
        }
        let missing = || PageError::Undecodable { key: key.stored(), detail: "the page is missing".into() };
        pages.get(&key.stored())?.ok_or_else(missing)
    }
}

impl Projection for Partitions {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![
            &mut self.partitions,
            self.producers.pages(),
            &mut self.unfinished,
            self.message_ids.pages(),
            &mut self.usage.segments,
            &mut self.spill,
        ]
    }

    /// That of unfinished fragmented batches. Of finished ones, and of all other records, `usage` says where they lie.
    fn lowest_block(&self) -> Option<Sequence> {
        self.unfinished.iter().filter_map(|(_, fragmented)| fragmented.first_block()).min()
    }

    fn dump(&mut self, pages: &dyn PageStore) -> Result<Dump, PageError> {
        let mut dump = self.partitions.dump();
        dump.extend(self.producers.pages().dump());
        dump.extend(self.unfinished.dump());
        dump.extend(self.message_ids.pages().dump());
        for (PartitionKey(id), partition) in self.partitions.iter() {
            for key in partition.spilled(*id) {
                dump.push((key.stored(), self.spilled(&key, pages)?));
            }
        }
        Ok(dump)
    }
}

impl CoreProjection for Partitions {
    const NAME: &'static str = "partitions";
    const KINDS: Kinds = &[kind::RECORDS, kind::PARTITIONS];

    fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError> {
        let producers = Producers::restore(stored)?;
        Ok(Self {
            partitions: stored.restore(prefixes::PARTITIONS)?,
            expiry: expiry_of(&producers),
            producers,
            unfinished: stored.restore(prefixes::UNFINISHED)?,
            message_ids: MessageIds::restore(stored)?,
            usage: SegmentUsage { segments: stored.restore(prefixes::SEGMENT_USAGE)? },
            ..Self::default()
        })
    }

    fn apply(&mut self, entry: &EntryView<'_>, at: &At, locate: Locate<'_>) -> Result<Outcome, EntryError> {
        match entry.kind {
            kind::APPEND => {
                let payload = payload(entry)?;
                applied(entry, |body: AppendBody| self.append(&body, payload, at))
            }
            kind::REFERENCE => self.apply_reference(entry, at, locate),
            kind::CHUNK => {
                let payload = payload(entry)?;
                applied(entry, |body: ChunkBody| self.chunk(&body, payload, at))
            }
            kind::FRAGMENTED => applied(entry, |body: FragmentedBody| self.fragmented(&body, at, locate)),
            kind::FRAGMENTED_DROPPED => applied(entry, |body: FragmentedDropped| self.drop_fragmented(body)),
            kind::PARTITIONS_CREATED => {
                applied(entry, |body: PartitionsCreated| self.create_partitions(&body))
            }
            kind::PARTITIONS_DELETED => {
                applied(entry, |body: PartitionsDeleted| self.delete_partitions(&body))
            }
            kind::PARTITIONS_CONFIGURED => {
                applied(entry, |body: PartitionsConfigured| self.configure_partitions(&body))
            }
            kind::LOG_STARTS_MOVED => applied(entry, |body: LogStartsMoved| self.move_log_starts(&body)),
            kind::PRODUCERS_EXPIRED => applied(entry, |body: ProducersExpired| self.expire_producers(&body)),
            _ => Err(EntryError::unknown(entry)),
        }
    }
}

impl PartitionState {
    /// The keys of all pages of its own.
    fn spilled(&self, id: PartitionId) -> Vec<SpillKey> {
        let pages = self.index.closed().iter().map(|page| SpillKey::index(id, page.first));
        let fragmented = self.fragmented.iter();
        let lists = fragmented.flat_map(|fragmented| {
            (0..fragmented.pages).map(|n| SpillKey::fragmented(id, fragmented.base, n))
        });
        pages.chain(lists).collect()
    }
}

/// When to look at each producer.
fn expiry_of(producers: &Producers) -> ExpiryQueue {
    let mut queue = ExpiryQueue::default();
    producers.iter().for_each(|(key, state)| queue.note(*key, state.last_ms));
    queue
}
