//! Records: published as this protocol's own, and read whichever protocol wrote them.

use std::ops::Range;

use bytes::Bytes;
use sabir_broker::queue::QueueTarget;
use sabir_broker::{
    Append, AppendAcks, AppendTarget, Caller, Fetched, Partition, PublishTargets, ReadTarget,
};
use sabir_model::batch::{BatchBuilder, BatchRefusal, BatchRules, CheckedBatch, Compression, RecordView};
use sabir_model::{ErrorAbout, Message, Offset, ReadError, ShardId};
use sabir_net::{JobCost, JobSize, Turn};

use crate::frontend::ProbeFrontend;

/// Bytes read of a partition at a time.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A record as a client is shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) partition: i32,
    pub(crate) offset: Offset,
    pub(crate) text: String,
}

/// The message that a record of this protocol holds.
pub(crate) fn to_message(record: &RecordView<'_>) -> Message {
    let body = record.value.map(Bytes::copy_from_slice);
    Message { body, timestamp_ms: record.timestamp, ..Message::default() }
}

impl ProbeFrontend {
    /// A batch of one record, for a partition that is there.
    ///
    /// # Errors
    /// Why it is not taken, for the client.
    pub(crate) fn batch(
        &self,
        caller: &Caller,
        topic: &str,
        partition: i32,
        text: &str,
    ) -> Result<Append, String> {
        let target = self.target(caller, topic, partition)?;
        let batch =
            self.record(text, &target.rules()).map_err(|refusal| target.refused(refusal).to_string())?;
        target.append(batch).map_err(|error| target.refused(error).to_string())
    }

    /// The first partitions of topics, with commas between their names.
    ///
    /// # Errors
    /// Why it cannot be published there, for the client.
    pub(crate) fn targets(&self, caller: &Caller, topics: &str) -> Result<PublishTargets, String> {
        let targets: Result<Vec<_>, _> =
            topics.split(',').map(|topic| self.target(caller, topic, 0)).collect();
        PublishTargets::new(targets?).map_err(|error| error.to_string())
    }

    /// A batch of one record.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn record(&self, text: &str, rules: &BatchRules) -> Result<CheckedBatch, BatchRefusal> {
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(self.broker.now_ms(), None, Some(text.as_bytes()), &[]);
        batch.build_checked(rules, self.broker.wall_ms())
    }

    fn target(&self, caller: &Caller, topic: &str, partition: i32) -> Result<AppendTarget, String> {
        let topic = self.broker.catalog().topic_of(caller, topic).cloned().ok_or_else(|| no_topic(topic))?;
        let origin = self.number().map_err(|error| error.to_string())?;
        let target = AppendTarget::new(caller, &topic, partition, AppendAcks::InSync, origin);
        target.map_err(|error| error.to_string())
    }

    /// A topic's partition, to read from, and the offsets that it keeps.
    pub(crate) fn kept(&self, caller: &Caller, topic: &str, partition: i32) -> Option<Kept> {
        let view = self.broker.catalog();
        let topic = view.topic_of(caller, topic)?;
        let target = ReadTarget::new(caller, topic, partition).ok()?;
        let stats = self.broker.partition_stats(target).ok()?;
        Some(Kept { target, offsets: stats.start..stats.end })
    }

    /// The records that were read of a partition from an offset on, and where it goes on behind them. Damaged ones are counted and logged by the broker.
    ///
    /// # Errors
    /// What stands at `from` is damaged.
    pub(crate) async fn shown(
        &self,
        target: ReadTarget,
        partition: i32,
        from: Offset,
        fetched: Fetched,
    ) -> Result<(Vec<Shown>, Offset), ErrorAbout<ReadError>> {
        let broker = self.broker.clone();
        // It may decompress much.
        let walk = move |_: &mut Turn<'_>| {
            let mut all = Vec::new();
            let next = broker.walk(target, &fetched, from, |origin, record| {
                let text = text(broker.to_message(origin, record));
                all.push(Shown { partition, offset: record.offset, text });
            })?;
            Ok((all, next))
        };
        let cost = JobCost { bytes: 4 * READ_BYTES, size: JobSize::Small };
        self.workers.run(cost, walk).await.unwrap_or_else(|| Err(ReadError::Storage.into()))
    }

    /// A queue's partition, and where its messages are read.
    ///
    /// # Errors
    /// Why the caller does not use it, for the client.
    pub(crate) fn queue(&self, caller: &Caller, name: &str) -> Result<(Partition, QueueTarget), String> {
        let view = self.broker.catalog();
        let none = || format!("there is no queue {name:?}");
        let topic = view.topic_of(caller, name).ok_or_else(none)?;
        let target = QueueTarget::new(caller, topic).map_err(|refusal| refusal.to_string())?;
        // `apply` judges no callers: what another session has for itself is refused here.
        self.broker.may_use(caller, topic).map_err(|refusal| refusal.to_string())?;
        let place = topic.partition(0).ok_or_else(none)?;
        Ok((*place, target))
    }

    /// A topic's partition, whose groups the caller may use: that is judged here, as of a queue.
    ///
    /// # Errors
    /// Why not, for the client.
    pub(crate) fn used(&self, caller: &Caller, topic: &str, partition: i32) -> Result<Partition, String> {
        let view = self.broker.catalog();
        let topic = view.topic_of(caller, topic).ok_or_else(|| no_topic(topic))?;
        self.broker.may_use(caller, topic).map_err(|error| error.to_string())?;
        topic.partition(partition).copied().ok_or_else(|| no_partition(&topic.name, partition))
    }

    /// A topic's partition that the caller may take records out of.
    ///
    /// # Errors
    /// Why not, for the client.
    pub(crate) fn emptied(&self, caller: &Caller, topic: &str, partition: i32) -> Result<Partition, String> {
        let view = self.broker.catalog();
        let topic = view.topic_of(caller, topic).ok_or_else(|| no_topic(topic))?;
        self.broker.may_empty(caller, topic).map_err(|refusal| refusal.to_string())?;
        topic.partition(partition).copied().ok_or_else(|| no_partition(&topic.name, partition))
    }

    /// The shard of a partition.
    pub(crate) fn shard(&self, caller: &Caller, topic: &str, partition: i32) -> Option<ShardId> {
        Some(self.broker.catalog().topic_of(caller, topic)?.partition(partition)?.shard)
    }
}

/// What a client is told that names a topic which it does not see.
pub(crate) fn no_topic(name: &str) -> String {
    format!("there is no topic {name:?}")
}

/// The same of a partition.
pub(crate) fn no_partition(topic: &str, partition: i32) -> String {
    format!("there is no partition {partition} of a topic {topic:?}")
}

/// A partition as it was a moment ago.
pub(crate) struct Kept {
    pub(crate) target: ReadTarget,
    pub(crate) offsets: Range<Offset>,
}

/// A record's content as a line: whichever protocol wrote it, it is read through the form that all protocols have.
pub(crate) fn text(message: Option<Message>) -> String {
    let body = message.and_then(|message| message.body);
    String::from_utf8_lossy(&body.unwrap_or_default()).replace(['\n', '\r'], " ")
}
