//! What an append asks for and what it is answered with.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use sabir_model::batch::CheckedBatch;
use sabir_model::{Durability, ErrorKind, FrontEndNo, Offset, PartitionId, ShardId, TimestampType};

use crate::answer::AppendCall;
use crate::catalog::Topic;
use crate::traffic::TopicTraffic;

/// One batch for one partition.
#[derive(Debug, Clone)]
pub struct Append {
    /// The partition's shard.
    pub shard: ShardId,
    /// The partition.
    pub partition: PartitionId,
    /// What is appended.
    pub batch: CheckedBatch,
    /// The front end that built the batch; [`FrontEndNo::NONE`] if a client's batch is to be stored as it came.
    pub maker: FrontEndNo,
    /// Whether the broker stamps the batch with its own time.
    pub stamp: bool,
    /// What the answer waits for; `None` for the node's default.
    pub durability: Option<Durability>,
    /// Counts it once it is appended.
    pub traffic: Arc<TopicTraffic>,
}

impl Append {
    /// An append to partition `index` of `topic`, by the topic's configuration.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownTopic`] if the topic has no such partition, [`ErrorKind::InternalTopic`] if it is kept for who made it.
    pub fn to(topic: &Topic, index: i32, batch: CheckedBatch, maker: FrontEndNo) -> Result<Self, ErrorKind> {
        let partition = topic.partition(index).ok_or(ErrorKind::UnknownTopic)?;
        if topic.internal && (maker == FrontEndNo::NONE || maker != topic.made_by) {
            return Err(ErrorKind::InternalTopic);
        }
        Ok(Self {
            shard: partition.shard,
            partition: partition.id,
            batch,
            maker,
            stamp: topic.config.timestamp_type == TimestampType::LogAppendTime,
            durability: topic.config.durability,
            traffic: topic.traffic.clone(),
        })
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

    /// The answers that have come; [`ErrorKind::Timeout`] stands for the others, which may still be appended. For one who waits
    /// no longer.
    pub fn so_far(&self) -> Vec<Result<Appended, ErrorKind>> {
        self.call.so_far()
    }
}

impl Future for Appending {
    type Output = Vec<Result<Appended, ErrorKind>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.poll(cx)
    }
}
