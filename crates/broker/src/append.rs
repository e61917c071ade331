//! What an append asks for and what it is answered with.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use sabir_model::batch::{
    BatchCheck, BatchRefusal, BatchRules, CheckedBatch, FactsOf, InlineBudget, RulesOf,
};
use sabir_model::{
    AppendError, Durability, ErrorAbout, FrontendNo, Offset, PartitionId, RecordFacts, ShardId, Subject,
};

use crate::answer::AppendCall;
use crate::caller::Caller;
use crate::catalog::Topic;

/// Replicas that have everything: there is one.
const IN_SYNC: u16 = 1;

/// Whose copies an append's answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAcks {
    /// That of the partition's leader.
    Leader,
    /// Those of all replicas in sync, of which there must be as many as the topic wants.
    InSync,
}

/// Why nothing is appended there, or not this batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefusal {
    /// The topic has no such partition.
    #[error("no such partition")]
    UnknownPartition,
    /// The topic is kept for the front end that made it.
    #[error("no client writes to an internal topic")]
    Internal,
    /// The topic wants more replicas in sync.
    #[error("{have} replica is in sync, the topic wants {want}")]
    NotEnoughReplicas {
        /// How many are in sync.
        have: u16,
        /// How many the topic wants.
        want: u16,
    },
    /// The batch was checked for another topic, or before this one was changed. It is to be checked anew.
    #[error("the batch was not checked by the topic's rules")]
    OtherRules,
    /// The facts are not of as many records as the batch has.
    #[error("the facts are not of as many records as the batch has")]
    OtherFacts,
}

/// A partition that a caller may append to, by its topic's rules as they were when this was made: a change of the topic holds for what
/// begins after it.
#[derive(Debug, Clone)]
pub struct AppendTarget {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: PartitionId,
    pub(crate) shard: ShardId,
    pub(crate) origin: FrontendNo,
    facts: Option<FactsOf>,
}

impl AppendTarget {
    /// Partition `index` of `topic`, for the caller to append to. `origin` is the front end that builds the batches; [`FrontendNo::NONE`] if a
    /// client's are to be stored as they came.
    ///
    /// # Errors
    /// There is none, or nothing can be appended to it by such a caller or with such an answer.
    pub fn new(
        caller: &Caller,
        topic: &Arc<Topic>,
        index: i32,
        acks: AppendAcks,
        origin: FrontendNo,
    ) -> Result<Self, ErrorAbout<AppendRefusal>> {
        Self::of(caller, topic, index, acks, origin)
            .map_err(|refusal| ErrorAbout::new(refusal, topic.subject(index)))
    }

    fn of(
        caller: &Caller,
        topic: &Arc<Topic>,
        index: i32,
        acks: AppendAcks,
        origin: FrontendNo,
    ) -> Result<Self, AppendRefusal> {
        let partition = topic.partition(index).ok_or(AppendRefusal::UnknownPartition)?;
        caller.may_append(topic, origin)?;
        let want = topic.config.min_insync;
        if acks == AppendAcks::InSync && want > IN_SYNC {
            return Err(AppendRefusal::NotEnoughReplicas { have: IN_SYNC, want });
        }
        let (topic, partition, shard) = (topic.clone(), partition.id, partition.shard);
        Ok(Self { topic, partition, shard, origin, facts: None })
    }

    /// What its errors are about.
    pub(crate) fn subject(&self) -> Subject {
        self.topic.subject_of(self.partition)
    }

    /// Why it is none, with what it is.
    pub fn refused<E>(&self, why: E) -> ErrorAbout<E> {
        ErrorAbout::new(why, self.subject())
    }

    /// Its topic.
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// The same for batches of clients whose records say what a queue must know of them: if the topic is one it is told.
    pub fn with_facts_of(self, facts: FactsOf) -> Self {
        let facts = self.topic.config.queue().map(|_| facts);
        Self { facts, ..self }
    }

    /// What batches must be.
    pub fn rules(&self) -> BatchRules {
        let rules = self.topic.config.batch_rules(self.topic.rules_of());
        self.facts.map_or(rules, |facts| rules.with_facts(facts))
    }

    /// Begins to check a client's batch, at `wall_ms` by the machine's clock.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn check(
        &self,
        bytes: Bytes,
        wall_ms: i64,
        budget: &mut InlineBudget,
    ) -> Result<BatchCheck, BatchRefusal> {
        BatchCheck::begin(bytes, self.rules(), wall_ms, budget)
    }

    /// An append of a batch that was checked by these rules.
    ///
    /// # Errors
    /// [`AppendRefusal::OtherRules`]
    pub fn append(&self, mut batch: CheckedBatch) -> Result<Append, AppendRefusal> {
        if batch.rules_of() != self.topic.rules_of() {
            return Err(AppendRefusal::OtherRules);
        }
        Ok(Append {
            shard: self.shard,
            partition: self.partition,
            origin: self.origin,
            stamp: self.stamps(),
            durability: self.topic.config.durability,
            topic: self.topic.clone(),
            facts: batch.take_facts(),
            batch,
        })
    }
}

impl Topic {
    /// Whose rules a batch for it is checked by.
    pub(crate) fn rules_of(&self) -> RulesOf {
        RulesOf { topic: self.id, version: self.version }
    }
}

/// One batch for one partition.
#[derive(Debug, Clone)]
pub struct Append {
    /// The partition's shard.
    pub(crate) shard: ShardId,
    /// The partition.
    pub(crate) partition: PartitionId,
    /// What is appended.
    pub(crate) batch: CheckedBatch,
    /// The front end that built the batch, if one did.
    pub(crate) origin: FrontendNo,
    /// Whether the broker stamps the batch with its own time.
    pub(crate) stamp: bool,
    /// What the answer waits for; `None` for the node's default.
    pub(crate) durability: Option<Durability>,
    /// The partition's topic: it counts the batch once that is appended, and is named where it is not.
    pub(crate) topic: Arc<Topic>,
    /// What a queue must know of its records.
    pub(crate) facts: Option<Box<RecordFacts>>,
}

impl Append {
    /// Bytes of its batch.
    pub fn bytes(&self) -> usize {
        self.batch.bytes().len()
    }

    /// What its errors are about.
    pub(crate) fn subject(&self) -> Subject {
        self.topic.subject_of(self.partition)
    }

    /// The same with what queues must know of its records.
    ///
    /// # Errors
    /// [`AppendRefusal::OtherFacts`]
    pub fn with_facts(self, facts: RecordFacts) -> Result<Self, AppendRefusal> {
        let records = self.batch.header().last_offset_delta as u64 + 1;
        if facts.records() != records {
            return Err(AppendRefusal::OtherFacts);
        }
        Ok(Self { facts: Some(Box::new(facts)), ..self })
    }

    /// Bytes that an entry takes for its facts.
    pub(crate) fn facts_bytes(&self) -> usize {
        self.facts.as_ref().map_or(0, |facts| facts.stored_bytes())
    }

    /// Has its batch in memory of its own: it may be a part of a buffer that is wanted elsewhere.
    pub fn detach(&mut self) {
        self.batch.detach();
    }
}

/// Where a batch was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record; of a duplicate, the one its first copy got.
    pub base_offset: Offset,
    /// The broker's time it was stamped with, in milliseconds since the epoch; -1 where it keeps the producer's.
    pub append_time_ms: i64,
    /// The partition's first offset at that moment.
    pub log_start: Offset,
    /// Whether the batch had been appended before and was not appended again.
    pub duplicate: bool,
    /// How many records were taken, from the first one on: all of them, unless the [publish](crate::Publish::partial) allows less.
    pub records: u32,
}

/// The answers to one [`Broker::append`](crate::Broker::append), in the order of its items. The batches are on their way
/// whether this is polled or dropped.
#[derive(Debug)]
#[must_use = "the appends are answered through it"]
pub struct Appending {
    call: Arc<AppendCall>,
}

impl Appending {
    pub(crate) fn new(call: Arc<AppendCall>) -> Self {
        Self { call }
    }

    /// The answers that have come; [`ShardFailure::Timeout`](sabir_model::ShardFailure::Timeout) stands for the others, which may still
    /// be appended, and names no partition. For a caller that waits no longer.
    pub fn so_far(&self) -> Vec<Result<Appended, ErrorAbout<AppendError>>> {
        self.call.so_far()
    }
}

impl Future for Appending {
    type Output = Vec<Result<Appended, ErrorAbout<AppendError>>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{BatchBuilder, Compression};
    use sabir_model::{TopicConfig, TopicId, ValidConfig};

    use super::*;
    use crate::catalog::Partition;

    fn topic(id: u8, version: u64, config: TopicConfig) -> Arc<Topic> {
        Arc::new(Topic {
            id: TopicId([id; 16]),
            name: "t".into(),
            namespace: "/".into(),
            version,
            config: ValidConfig::trusted(config),
            partitions: vec![Partition { index: 0, id: PartitionId(1), shard: ShardId(1), epoch_base: 0 }],
            internal: false,
            made_by: FrontendNo::NONE,
            traffic: Arc::default(),
        })
    }

    fn target(topic: &Arc<Topic>) -> AppendTarget {
        AppendTarget::new(&Caller::OPERATOR, topic, 0, AppendAcks::InSync, FrontendNo::NONE).unwrap()
    }

    fn built() -> BatchBuilder {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(5, None, Some(b"value"), &[]);
        builder
    }

    #[test]
    fn a_batch_is_for_the_topic_that_it_was_checked_for_and_as_that_was_then() {
        let own = target(&topic(1, 4, TopicConfig::default()));
        let batch = built().build_checked(&own.rules(), 5).unwrap();
        assert!(own.append(batch.clone()).is_ok());
        for other in [topic(2, 4, TopicConfig::default()), topic(1, 5, TopicConfig::default())] {
            let refused = target(&other).append(batch.clone());
            assert_eq!(refused.err(), Some(AppendRefusal::OtherRules));
        }
        let checked = own.check(built().build(), 5, &mut InlineBudget::default()).unwrap();
        let BatchCheck::Done(checked) = checked else { panic!("one record is looked at at once") };
        assert!(own.append(checked).is_ok());
    }

    #[test]
    fn what_can_not_be_appended_to_is_no_target() {
        let refused = |topic: &Arc<Topic>, index, acks| {
            AppendTarget::new(&Caller::OPERATOR, topic, index, acks, FrontendNo::NONE)
                .err()
                .map(|about| about.error)
        };
        let plain = topic(1, 1, TopicConfig::default());
        assert_eq!(refused(&plain, 1, AppendAcks::Leader), Some(AppendRefusal::UnknownPartition));
        assert_eq!(refused(&plain, -1, AppendAcks::Leader), Some(AppendRefusal::UnknownPartition));
        let safe = topic(1, 1, TopicConfig { min_insync: 2, ..TopicConfig::default() });
        assert_eq!(refused(&safe, 0, AppendAcks::Leader), None);
        let too_few = AppendRefusal::NotEnoughReplicas { have: 1, want: 2 };
        assert_eq!(refused(&safe, 0, AppendAcks::InSync), Some(too_few));
    }
}
