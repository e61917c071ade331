//! The projections of one shard: what its journal's entries say, put together.
//!
//! [`ShardState::apply_block`] is the one way in. It reads no clock and nothing of another shard, so that every replica, and every
//! replay, comes to the same; what it decided goes back to the caller as [`Outcome`]s.

mod apply;
mod checkpoint;
#[cfg(test)]
mod dump;
mod expiry;
pub(crate) mod prefixes;
mod producers;
mod trains;
mod usage;

use checkpoint::expiry_of;
pub(crate) use checkpoint::{Capturing, Cut, StoredMaps};
pub(crate) use expiry::ExpiryQueue;
pub(crate) use producers::Producers;
pub(crate) use usage::SegmentUsage;

use std::sync::Arc;

use sabir_journal::pages::Paged;
use sabir_journal::{SegmentNo, ViewError};
use sabir_model::{DecodeError, ErrorKind, PartitionId, Sequence, Term, TopicError};

use crate::append::Appended;
use crate::catalog::{Catalog, Topic};
use crate::group::GroupTable;
use crate::level::FormatLevel;
use crate::partition::{Partition, PartitionKey, Spill};
use trains::{OpenTrain, TrainKey};

/// What an entry came to.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// An append took its place.
    Appended(Appended),
    /// An entry about a topic, as it is now.
    Topic(Arc<Topic>),
    /// A number was given out, or a log start moved to it.
    Number(i64),
    /// Any other entry took effect.
    Done,
    /// An entry about a topic took none.
    TopicRefused(Box<TopicError>),
    /// It took none.
    Failed(ErrorKind),
}

impl Outcome {
    fn of<T>(result: Result<T, ErrorKind>, good: impl FnOnce(T) -> Self) -> Self {
        result.map_or_else(Self::Failed, good)
    }

    fn of_topic(result: Result<Arc<Topic>, TopicError>) -> Self {
        result.map_or_else(|error| Self::TopicRefused(Box::new(error)), Self::Topic)
    }

    fn of_done(result: Result<(), ErrorKind>) -> Self {
        Self::of(result, |()| Self::Done)
    }

    /// The outcome of an entry that appends.
    pub(crate) fn appended(self) -> Result<Appended, ErrorKind> {
        match self {
            Self::Appended(appended) => Ok(appended),
            other => Err(other.error()),
        }
    }

    /// The outcome of an entry about a topic.
    pub(crate) fn topic(self) -> Result<Arc<Topic>, TopicError> {
        match self {
            Self::Topic(topic) => Ok(topic),
            Self::TopicRefused(error) => Err(*error),
            other => Err(other.error().into()),
        }
    }

    /// The outcome of an entry that gives a number.
    pub(crate) fn number(self) -> Result<i64, ErrorKind> {
        match self {
            Self::Number(number) => Ok(number),
            other => Err(other.error()),
        }
    }

    /// Whether it took effect.
    pub(crate) fn done(self) -> Result<(), ErrorKind> {
        match self {
            Self::Failed(error) => Err(error),
            Self::TopicRefused(_) => Err(ErrorKind::InvalidRequest),
            _ => Ok(()),
        }
    }

    /// Asked of an outcome of another kind, which its entry cannot have.
    fn error(self) -> ErrorKind {
        self.done().err().unwrap_or(ErrorKind::InvalidRequest)
    }
}

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
}

/// The block that is being applied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) sequence: Sequence,
    pub(crate) term: Term,
    pub(crate) time_ms: i64,
}

/// What applying a block changed for those who wait outside.
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
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) batch_bytes: u64,
    pub(crate) refused: u64,
    pub(crate) duplicates: u64,
}

/// Where a block lies on this node.
pub(crate) type Locate<'a> = &'a dyn Fn(Sequence) -> Option<SegmentNo>;

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
    pub(crate) partitions: Paged<PartitionKey, Partition>,
    pub(crate) producers: Producers,
    trains: Paged<TrainKey, OpenTrain>,
    pub(crate) catalog: Catalog,
    pub(crate) groups: GroupTable,
    pub(crate) spill: Spill,
    /// This node's own table; no part of the projections.
    pub(crate) usage: SegmentUsage,
    /// When to look at which producer; follows from `producers`.
    pub(crate) expiry: ExpiryQueue,
    /// Of the block applied last.
    pub(crate) touched: Touched,
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
            partitions: Paged::new(prefixes::PARTITIONS),
            producers: Producers::default(),
            trains: Paged::new(prefixes::TRAINS),
            catalog: Catalog::default(),
            groups: GroupTable::new(),
            spill: Spill::default(),
            usage: SegmentUsage::default(),
            expiry: ExpiryQueue::default(),
            touched: Touched::default(),
            counters: Counters::default(),
        }
    }
}

impl ShardState {
    pub(crate) fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(&PartitionKey(id))
    }

    /// A partition, for those who read it.
    ///
    /// # Errors
    /// It is not there; what is known of it is not to be believed.
    pub(crate) fn readable(&self, id: PartitionId) -> Result<&Partition, ErrorKind> {
        self.check_whole()?;
        self.partition(id).ok_or(ErrorKind::UnknownTopic)
    }

    /// Fails where an entry took effect in part.
    pub(crate) fn check_whole(&self) -> Result<(), ErrorKind> {
        if self.within_entry { Err(ErrorKind::StorageError) } else { Ok(()) }
    }

    /// Lets go of producers in the queue that were forgotten otherwise, once they are the most of it.
    pub(crate) fn tidy_expiry(&mut self) {
        if self.expiry.len() > 2 * self.producers.len() + 1024 {
            self.expiry = expiry_of(&self.producers);
        }
    }

    /// The lowest block that the chunks of unfinished trains lie in.
    pub(crate) fn first_train_block(&self) -> Option<Sequence> {
        self.trains.iter().filter_map(|(_, train)| train.first_block()).min()
    }
}

#[cfg(test)]
mod tests;
