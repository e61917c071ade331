//! The projections of one shard: what its journal's entries say, put together.
//!
//! [`ShardState::apply_block`] is the one way in. It reads no clock and nothing of another shard, so that every replica, and every
//! replay, comes to the same; what it decided goes back to the caller as [`Outcome`]s.

mod apply;
mod block;
mod checkpoint;
#[cfg(test)]
mod dump;
mod effects;
mod expiry;
mod front_ends;
mod message_ids;
mod outcome;
mod partitions;
pub(crate) mod prefixes;
mod producers;
mod subscriptions;
mod timers;
mod unfinished;
mod usage;

use block::follow_queues;
pub(crate) use block::{applied, bad_body, payload};
pub(crate) use checkpoint::{Cut, StoredMaps};
pub(crate) use effects::FrontendAnswer;
use effects::ShardParts;
pub use effects::{Delivered, DeliveryRefused, Effects, EntryId, NotSubscribed};
pub(crate) use expiry::ExpiryQueue;
pub(crate) use front_ends::FrontendProjections;
pub(crate) use message_ids::MessageIds;
pub(crate) use outcome::{AppendOutcome, EntryOutcome, Outcome};
pub(crate) use partitions::{AppendCounters, Partitions};
pub(crate) use producers::Producers;
pub(crate) use subscriptions::{
    QueueChange, SubscriptionTable, TouchedMessages, is_named, partition_of, subscription_of,
};
pub use subscriptions::{SubscriptionCounts, SubscriptionView};
pub(crate) use timers::TimerTable;
pub(crate) use usage::SegmentUsage;

use std::sync::Arc;

use sabir_journal::pages::PageError;
use sabir_journal::{EntryView, SegmentNo, ViewError};
use sabir_model::{DecodeError, PartitionId, ReadError, Sequence, Term};

use crate::catalog::Catalog;
use crate::entry::Kinds;
use crate::exchange::ExchangeTable;
use crate::group::GroupTable;
use crate::level::FormatLevel;
use crate::partition::PartitionState;
use crate::projection::{Projection, ProjectionFactory};

/// Why a committed block cannot be applied. It can only be a newer version's, or a defect: the shard stops.
#[derive(Debug, Clone, thiserror::Error)]
#[error("block {sequence} cannot be applied: {reason}")]
pub(crate) struct ApplyError {
    pub(crate) sequence: Sequence,
    pub(crate) reason: String,
}

/// Why one entry cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("{0}")]
    View(#[from] ViewError),
    #[error("entry {index} of kind {kind}: {source}")]
    Body { index: u32, kind: u16, source: DecodeError },
    #[error("entry {index} has kind {kind}, which is not known to this version")]
    Kind { index: u32, kind: u16 },
    #[error("it does not follow block {after}")]
    Order { after: Sequence },
    #[error("block {block} before it was applied in part")]
    HalfApplied { block: Sequence },
    #[error("entry {index} of kind {kind} has no payload")]
    Payload { index: u32, kind: u16 },
    #[error("entry {index} is of front end {number}, whose name this shard was never told")]
    Unnamed { index: u32, number: u16 },
    #[error("entry {index} of a front end: {reason}")]
    Projection { index: u32, reason: String },
    #[error("entry {index} of the front end {name}: {source}")]
    Frontend { index: u32, name: &'static str, source: DecodeError },
    #[error("{name}: {source}")]
    In { name: &'static str, source: Box<EntryError> },
}

impl EntryError {
    pub(crate) fn unknown(entry: &EntryView<'_>) -> Self {
        Self::Kind { index: entry.index, kind: entry.kind }
    }
}

/// The block that is being applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) sequence: Sequence,
    pub(crate) term: Term,
    pub(crate) time_ms: i64,
    /// The node's time, which may go back: at the block's, or below it.
    pub(crate) node_ms: i64,
}

/// What applying a block changed for readers that wait.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// Partitions that received records, with the bytes; consecutive ones are put together.
    pub(crate) grown: Vec<(PartitionId, u64)>,
    /// Partitions that were deleted.
    pub(crate) gone: Vec<PartitionId>,
}

impl Touched {
    fn grew(&mut self, partition: PartitionId, bytes: u64) {
        match self.grown.last_mut() {
            Some((last, sum)) if *last == partition => *sum += bytes,
            _ => self.grown.push((partition, bytes)),
        }
    }
}

/// Counters since the start of the process; no part of the projections.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) blocks: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Bytes of the entries without their records: what they change takes hardly more.
    pub(crate) changes: u64,
}

/// Where a block lies on this node.
pub(crate) type Locate<'a> = &'a dyn Fn(Sequence) -> Option<SegmentNo>;

/// A projection that the broker itself keeps in every shard.
pub(crate) trait CoreProjection: Projection + Sized {
    /// What it is called in errors.
    const NAME: &'static str;
    /// The kinds of its entries, which are no other projection's.
    const KINDS: Kinds;

    /// Whether entries of that kind are its own.
    fn applies(kind: u16) -> bool {
        Self::KINDS.iter().any(|kinds| kinds.contains(&kind))
    }

    /// As the last checkpoint left it.
    fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError>;

    /// Applies an entry of its own. An error says that it is none that this version can read: then nothing has changed.
    fn apply(&mut self, entry: &EntryView<'_>, at: &At, locate: Locate<'_>) -> Result<Outcome, EntryError>;
}

/// All projections of a shard.
pub(crate) struct ShardState {
    pub(crate) applied: Sequence,
    pub(crate) term: Term,
    /// The last block's time.
    pub(crate) time_ms: i64,
    /// The block whose entries have taken effect in part only. Those are committed, and answered as they came out, so reads of them
    /// go on; but no sequence names this state, so no block follows it and no checkpoint is made of it: a replay would do the first
    /// part twice.
    pub(crate) half_applied: Option<Sequence>,
    /// Whether an entry is taking effect. It is seen to be so only if that panicked: then nothing here is to be believed.
    within_entry: bool,
    /// How often a node started to lead this shard.
    starts: u64,
    /// Which forms checkpoints are written in: the catalog's, which the node tells every shard; no part of the projections.
    pub(crate) level: FormatLevel,
    pub(crate) partitions: Partitions,
    pub(crate) catalog: Catalog,
    pub(crate) groups: GroupTable,
    pub(crate) subscriptions: SubscriptionTable,
    pub(crate) timers: TimerTable,
    pub(crate) exchanges: ExchangeTable,
    pub(crate) front_ends: FrontendProjections,
    pub(crate) counters: Counters,
}

impl Default for ShardState {
    fn default() -> Self {
        Self {
            applied: Sequence::NONE,
            term: Term(0),
            time_ms: i64::MIN,
            half_applied: None,
            within_entry: false,
            starts: 0,
            level: FormatLevel::FIRST,
            partitions: Partitions::default(),
            catalog: Catalog::default(),
            groups: GroupTable::new(),
            subscriptions: SubscriptionTable::default(),
            timers: TimerTable::default(),
            exchanges: ExchangeTable::default(),
            front_ends: FrontendProjections::default(),
            counters: Counters::default(),
        }
    }
}

impl ShardState {
    /// Those of an empty journal.
    pub(crate) fn new(known: Arc<[ProjectionFactory]>) -> Self {
        Self { front_ends: FrontendProjections::new(known), ..Self::default() }
    }

    pub(crate) fn partition(&self, id: PartitionId) -> Option<&PartitionState> {
        self.partitions.partition(id)
    }

    /// A partition, to be read.
    ///
    /// # Errors
    /// It is not there; what is known of it is not to be believed.
    pub(crate) fn readable(&self, id: PartitionId) -> Result<&PartitionState, ReadError> {
        if !self.is_whole() {
            return Err(ReadError::Storage);
        }
        self.partition(id).ok_or(ReadError::UnknownPartition)
    }

    /// Whether no entry took effect in part.
    pub(crate) fn is_whole(&self) -> bool {
        !self.within_entry
    }

    /// All projections.
    fn projections(&self) -> impl Iterator<Item = &(dyn Projection + 'static)> {
        let core: [&(dyn Projection + 'static); 6] = [
            &self.partitions,
            &self.catalog,
            &self.groups,
            &self.subscriptions,
            &self.timers,
            &self.exchanges,
        ];
        core.into_iter().chain(self.front_ends.iter().map(|own| own as &(dyn Projection + 'static)))
    }

    fn projections_mut(&mut self) -> impl Iterator<Item = &mut (dyn Projection + 'static)> {
        let core: [&mut (dyn Projection + 'static); 6] = [
            &mut self.partitions,
            &mut self.catalog,
            &mut self.groups,
            &mut self.subscriptions,
            &mut self.timers,
            &mut self.exchanges,
        ];
        core.into_iter().chain(self.front_ends.iter_mut().map(|own| own as &mut (dyn Projection + 'static)))
    }

    /// The lowest block that a projection needs, beside those in which partitions have records.
    pub(crate) fn lowest_block(&self) -> Option<Sequence> {
        self.projections().filter_map(|projection| projection.lowest_block()).min()
    }
}

#[cfg(test)]
mod tests;
