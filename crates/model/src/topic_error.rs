//! Why a topic is not made, changed or deleted.

use crate::{InvalidSetting, Offset, PartitionId, ShardFailure};

/// Why a topic is not made, changed or deleted. It names what it is about and says what can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// There is no such topic, or no longer.
    #[error("no topic has this id")]
    Unknown,
    /// A topic of this name exists.
    #[error("topic {0:?} exists")]
    Exists(Box<str>),
    /// The topic is not to be made beside one whose name differs in `.` and `_` alone, and there is one.
    #[error("the name {name:?} differs from that of topic {other:?} in '.' and '_' alone")]
    Collides {
        /// The name that was asked for.
        name: Box<str>,
        /// The topic's that is there.
        other: Box<str>,
    },
    /// No topic can have this name.
    #[error("a topic's name has 1 to {most} bytes and no control characters")]
    InvalidName {
        /// The most bytes it can have.
        most: usize,
    },
    /// A protocol keeps the name for a topic of its own, or for its clients' topics.
    #[error("the name {name:?} is kept for {by}: choose another")]
    Reserved {
        /// The name.
        name: Box<str>,
        /// The protocol.
        by: &'static str,
    },
    /// The topic is kept by the broker, or by a protocol, for itself.
    #[error("topic {0:?} is kept by the broker itself, which alone changes it")]
    Internal(Box<str>),
    /// One front end made the topic, and another one asks for a change.
    #[error("topic {0:?} was made by way of another protocol: change it there, or by the admin port")]
    MadeElsewhere(Box<str>),
    /// The topic is a queue that another session has for itself.
    #[error("the queue {0:?} is exclusive to the connection that made it")]
    Exclusive(Box<str>),
    /// A queue is given no further partitions.
    #[error("topic {0:?} is a queue, which has one partition")]
    IsQueue(Box<str>),
    /// Records are not taken out of a queue by their offsets.
    #[error("partition {0} is a queue's, which lets go of its messages when they are settled")]
    QueuePartition(PartitionId),
    /// The same, by the topic's name.
    #[error("topic {0:?} is a queue, which lets go of its messages when they are settled")]
    QueueRecords(Box<str>),
    /// The queue has consumers, and was to be deleted only without.
    #[error("the queue {0:?} has consumers: end them, or delete it whether it is used or not")]
    InUse(Box<str>),
    /// The queue has messages, and was to be deleted only without.
    #[error("the queue {0:?} has messages: have them consumed, or delete it with them")]
    NotEmpty(Box<str>),
    /// The data directory keeps to the forms of an older version, which knows no such queues.
    #[error(
        "the data directory has format level {has}, and such a queue needs {needs}: raise data.format_level"
    )]
    QueuesNeedLevel {
        /// The level that the directory has.
        has: u32,
        /// The level that it must have.
        needs: u32,
    },
    /// A topic cannot have so many partitions.
    #[error("topic {name:?} may have 1 to {most} partitions (topic.max_partitions), not {asked}")]
    Partitions {
        /// The topic's name.
        name: Box<str>,
        /// What was asked for.
        asked: u32,
        /// The most it can have.
        most: u32,
    },
    /// A topic cannot have fewer partitions than it has, nor be given none.
    #[error("topic {name:?} has {has} partitions already, and cannot have fewer than it has")]
    NotMore {
        /// The topic's name.
        name: Box<str>,
        /// How many it has.
        has: u32,
    },
    /// All topics together have as many partitions as they may have.
    #[error("all topics together have at most {most} partitions (topic.max_total_partitions)")]
    TooManyPartitions {
        /// The most they can have.
        most: usize,
    },
    /// A setting cannot be.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// What is kept by name for all topics takes as much memory as it may.
    #[error("the settings kept for all topics take at most {most} bytes (topic.settings_memory): keep less")]
    TooManySettings {
        /// The most they can take.
        most: usize,
    },
    /// What queues may remember of messages' ids takes as much memory as it may.
    #[error(
        "what all queues may remember of messages' ids takes at most {most} bytes (topic.dedup_memory): remember fewer"
    )]
    TooManyMessageIds {
        /// The most it can take.
        most: usize,
    },
    /// Records are to be deleted up to an offset that the partition has not reached.
    #[error("offset {asked} is not one up to which records can be deleted: the partition's end is {end}")]
    OffsetOutOfRange {
        /// The offset that was asked for.
        asked: Offset,
        /// The offset behind the partition's last record.
        end: Offset,
    },
    /// It was changed at the same time.
    #[error("topic {0:?} was changed at the same time: ask again")]
    Changed(Box<str>),
    /// So many front ends made topics that there is no number for another.
    #[error("no number is left for another front end")]
    TooManyFrontends,
    /// A shard did not take it.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}
