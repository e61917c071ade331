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
mod partitions;
pub(crate) mod prefixes;
mod producers;
mod unfinished;
mod usage;

pub(crate) use block::{bad_body, body, payload};
pub(crate) use checkpoint::{Cut, StoredMaps};
pub use effects::Effects;
pub(crate) use effects::FrontendAnswer;
pub(crate) use expiry::ExpiryQueue;
pub(crate) use front_ends::FrontendProjections;
pub(crate) use partitions::{AppendCounters, Partitions};
pub(crate) use producers::Producers;
pub(crate) use usage::SegmentUsage;

use std::sync::Arc;

use sabir_journal::pages::PageError;
use sabir_journal::{EntryView, SegmentNo, ViewError};
use sabir_model::{DecodeError, ErrorKind, PartitionId, Sequence, Term, TopicError};

use crate::append::Appended;
use crate::catalog::{Catalog, Topic};
use crate::entry::Kinds;
use crate::group::GroupTable;
use crate::level::FormatLevel;
use crate::partition::Partition;
use crate::projection::{Projection, ProjectionFactory};

/// What an entry came to.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// An append took its place.
    Appended(Appended),
    /// An entry about a topic, as it is now.
    Topic(Arc<Topic>),
    /// A number was given out, or a log start moved to it.
    Number(i64),
    /// A front end's projection took an entry.
    Frontend(Box<FrontendAnswer>),
    /// Any other entry took effect.
    Done,
    /// An entry about a topic took none.
    TopicRefused(Box<TopicError>),
    /// It took none.
    Failed(ErrorKind),
}

impl Outcome {
    pub(crate) fn of<T>(result: Result<T, ErrorKind>, good: impl FnOnce(T) -> Self) -> Self {
        result.map_or_else(Self::Failed, good)
    }

    pub(crate) fn of_topic(result: Result<Arc<Topic>, TopicError>) -> Self {
        result.map_or_else(|error| Self::TopicRefused(Box::new(error)), Self::Topic)
    }

    pub(crate) fn of_done(result: Result<(), ErrorKind>) -> Self {
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

    /// The outcome of a front end's entry.
    pub(crate) fn front_end(self) -> Result<FrontendAnswer, ErrorKind> {
        match self {
            Self::Frontend(answer) => Ok(*answer),
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

    pub(crate) fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.partition(id)
    }

    /// A partition, to be read.
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

    /// All projections.
    fn projections(&self) -> impl Iterator<Item = &(dyn Projection + 'static)> {
        let core: [&(dyn Projection + 'static); 3] = [&self.partitions, &self.catalog, &self.groups];
        core.into_iter().chain(self.front_ends.iter().map(|own| own as &(dyn Projection + 'static)))
    }

    fn projections_mut(&mut self) -> impl Iterator<Item = &mut (dyn Projection + 'static)> {
        let core: [&mut (dyn Projection + 'static); 3] =
            [&mut self.partitions, &mut self.catalog, &mut self.groups];
        core.into_iter().chain(self.front_ends.iter_mut().map(|own| own as &mut (dyn Projection + 'static)))
    }

    /// The lowest block that a projection needs, beside those in which partitions have records.
    pub(crate) fn lowest_block(&self) -> Option<Sequence> {
        self.projections().filter_map(|projection| projection.lowest_block()).min()
    }
}

#[cfg(test)]
mod tests;
