//! What the entries of a shard say: kinds and bodies. The journal frames them and knows neither.
//!
//! A kind's number is never reused. A body starts with a version byte, but for appends, whose flag byte has spare bits for it. All
//! numbers are varints, signed ones in zigzag form, unless it says otherwise; lists start with their length.

mod append;
mod catalog;
mod dead_letters;
mod delivery;
mod exchanges;
mod front_end;
mod partitions;
mod subscriptions;
mod timers;

pub(crate) use append::{
    AppendBody, ChunkBody, FragmentedBody, FragmentedDropped, Producer, RecordPlace, ReferenceBody, Targets,
};
pub(crate) use catalog::{
    DataShardsFixed, FormatLevelRaised, FrontendRegistered, NodeTime, ProducerIdsAllocated, Started,
    TopicConfigured, TopicCreated, TopicDeleted, TopicExtended,
};
pub(crate) use dead_letters::{DeadLettered, DeadLetters, PublishedLetters};
pub(crate) use delivery::{DeliveryBody, DeliveryError, DeliveryOutcome};
pub(crate) use exchanges::{ExchangeBound, ExchangeDeclared, ExchangeDeleted, ExchangeUnbound};
pub(crate) use front_end::{FrontendBody, OfferedBatch};
#[cfg(test)]
pub(crate) use partitions::QueueSettings;
pub(crate) use partitions::{
    LogStartsMoved, PartitionSettings, PartitionsConfigured, PartitionsCreated, PartitionsDeleted,
    ProducersExpired,
};
pub(crate) use subscriptions::{SubscribeError, SubscriptionMade, SubscriptionRemoved};
pub use subscriptions::{SubscriptionSettings, SubscriptionStart};
pub(crate) use timers::{DueMessage, FiredMessage, TimersFired};

use crate::state::EntryOutcome;

/// Kinds of entries, in ranges.
pub(crate) type Kinds = &'static [std::ops::RangeInclusive<u16>];

/// The kinds of entries.
pub(crate) mod kind {
    use std::ops::RangeInclusive;

    /// Kinds that bring records.
    pub(crate) const RECORDS: RangeInclusive<u16> = 1..=9;
    /// Kinds of the catalog.
    pub(crate) const CATALOG: RangeInclusive<u16> = 10..=19;
    /// Kinds about partitions.
    pub(crate) const PARTITIONS: RangeInclusive<u16> = 20..=29;
    /// Kinds of the consumer groups; their bodies are the groups' machine's.
    pub(crate) const GROUPS: RangeInclusive<u16> = 30..=39;
    /// Kinds of deliveries.
    pub(crate) const DELIVERIES: RangeInclusive<u16> = 60..=69;
    /// Kinds about exchanges and bindings, of the catalog's shard.
    pub(crate) const EXCHANGES: RangeInclusive<u16> = 70..=79;

    /// A batch appended to one or more partitions; payload: one v2 batch.
    pub(crate) const APPEND: u16 = 1;
    /// A stored batch, or part of one, shown in further partitions; payload: the overlay, if there is one. It is applied and read; nothing writes it
    /// yet but tests.
    pub(crate) const REFERENCE: u16 = 2;
    /// A piece of a batch too large for one block; payload: its bytes.
    pub(crate) const CHUNK: u16 = 3;
    /// An append whose payload is the chunks of its fragmented batch.
    pub(crate) const FRAGMENTED: u16 = 4;
    /// A fragmented batch given up.
    pub(crate) const FRAGMENTED_DROPPED: u16 = 5;

    /// A topic made.
    pub(crate) const TOPIC_CREATED: u16 = 10;
    /// A topic deleted.
    pub(crate) const TOPIC_DELETED: u16 = 11;
    /// A topic's configuration replaced.
    pub(crate) const TOPIC_CONFIGURED: u16 = 12;
    /// A front end's name given a number.
    pub(crate) const FRONT_END_REGISTERED: u16 = 13;
    /// A range of producer ids handed out.
    pub(crate) const PRODUCER_IDS_ALLOCATED: u16 = 14;
    /// The number of data shards fixed, once, and the cluster's id.
    pub(crate) const DATA_SHARDS_FIXED: u16 = 15;
    /// A topic given further partitions.
    pub(crate) const TOPIC_EXTENDED: u16 = 16;

    /// The format level raised.
    pub(crate) const FORMAT_LEVEL_RAISED: u16 = 17;

    /// Partitions made in this shard.
    pub(crate) const PARTITIONS_CREATED: u16 = 20;
    /// Partitions of this shard deleted.
    pub(crate) const PARTITIONS_DELETED: u16 = 21;
    /// Partitions of this shard given another configuration.
    pub(crate) const PARTITIONS_CONFIGURED: u16 = 22;
    /// Partitions' first offsets moved up.
    pub(crate) const LOG_STARTS_MOVED: u16 = 23;
    /// Idle producers forgotten.
    pub(crate) const PRODUCERS_EXPIRED: u16 = 24;

    /// A node started to lead this shard.
    pub(crate) const STARTED: u16 = 40;
    /// The node's time, where it is below the block's; it holds for what follows in the block.
    pub(crate) const NODE_TIME: u16 = 41;

    /// What a front end's own projection is told; payload: batches that it may append.
    pub(crate) const FRONT_END: u16 = 50;

    /// What happens to messages of queues: a list of operations.
    pub(crate) const DELIVERY: u16 = 60;
    /// Timers have fired, and what they publish.
    pub(crate) const TIMERS_FIRED: u16 = 61;
    /// Messages that their queues gave up, and where they are published; payload: the batches, if there are any.
    pub(crate) const DEAD_LETTERED: u16 = 62;
    /// A subscription of a topic made in one of its partitions.
    pub(crate) const SUBSCRIPTION_MADE: u16 = 63;
    /// A subscription of a topic removed from one of its partitions.
    pub(crate) const SUBSCRIPTION_REMOVED: u16 = 64;

    /// An exchange made.
    pub(crate) const EXCHANGE_DECLARED: u16 = 70;
    /// An exchange deleted, with its bindings.
    pub(crate) const EXCHANGE_DELETED: u16 = 71;
    /// A binding made.
    pub(crate) const EXCHANGE_BOUND: u16 = 72;
    /// A binding taken away.
    pub(crate) const EXCHANGE_UNBOUND: u16 = 73;
}

/// A body with a stored form of its own, and what an entry of it comes to.
///
/// Two kinds have no such body: deliveries ([`DeliveryBody`]) and front ends ([`FrontendBody`]). Theirs borrow from the block, so that replay copies no
/// command and no list of operations, which a `decode` that gives `Self` for bytes of any lifetime cannot; and they are never encoded for one waiter
/// (a list of operations is written by the leader as it deals, for all queues at once, and a front end's entry with its batches in
/// `shard/open.rs`). What they come to is said by their `apply` alone: `Result<DeliveryOutcome, DeliveryError>` and what a projection answers.
pub(crate) trait Body: Sized {
    /// The kind it is the body of.
    const KIND: u16;

    /// What an entry of this kind comes to.
    type Outcome: EntryOutcome;

    /// Appends the stored form.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads it back, all of it.
    fn decode(bytes: &[u8]) -> Result<Self, sabir_model::DecodeError>;
}

#[cfg(test)]
mod tests;
