//! What can go wrong, without a protocol's words for it.

/// The kind of a failure. Each front end maps every kind to its protocol's own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    // Topics and partitions.
    /// No such topic or partition.
    #[error("no such topic or partition")]
    UnknownTopic,
    /// No topic has this id (any more).
    #[error("no topic has this id")]
    UnknownTopicId,
    /// The topic's id and name do not belong together.
    #[error("the topic was deleted and made anew")]
    InconsistentTopicId,
    /// A topic of this name exists.
    #[error("the topic exists")]
    TopicExists,
    /// A topic's name differs from this one in `.` and `_` alone; the one to be made is not to have such a name.
    #[error("the name differs from another topic's in '.' and '_' alone")]
    TopicNameCollides,
    /// The topic is kept by the broker, or by a protocol, for itself.
    #[error("the topic is kept by the broker itself")]
    InternalTopic,
    /// The name is not one a topic can have.
    #[error("invalid topic name")]
    InvalidTopic,
    /// The number of partitions is not possible.
    #[error("invalid number of partitions")]
    InvalidPartitions,
    /// The replication factor is not the shard's.
    #[error("invalid replication factor")]
    InvalidReplicationFactor,
    /// A configuration key is unknown or its value is not possible.
    #[error("invalid configuration")]
    InvalidConfig,
    /// Legal, but a rule of this broker forbids it.
    #[error("forbidden by policy")]
    PolicyViolation,

    // Records.
    /// The offset lies outside what is kept.
    #[error("offset out of range")]
    OffsetOutOfRange,
    /// A batch whose checksum or structure is wrong.
    #[error("corrupt record batch")]
    CorruptBatch,
    /// A record that breaks a rule of its topic.
    #[error("invalid record")]
    InvalidRecord,
    /// A batch larger than its topic takes, or a change larger than an entry takes.
    #[error("message too large")]
    MessageTooLarge,
    /// A timestamp outside what its topic takes.
    #[error("invalid timestamp")]
    InvalidTimestamp,
    /// A message format that is not served.
    #[error("unsupported message format")]
    UnsupportedFormat,
    /// A codec that is not served.
    #[error("unsupported compression")]
    UnsupportedCompression,

    // Producers.
    /// A sequence number that leaves a gap.
    #[error("out of order sequence number")]
    OutOfOrderSequence,
    /// A sequence number seen before, too long ago to answer with its offset.
    #[error("duplicate sequence number")]
    DuplicateSequence,
    /// An epoch that a newer one replaced.
    #[error("invalid producer epoch")]
    InvalidProducerEpoch,
    /// Nothing is known of this producer.
    #[error("unknown producer id")]
    UnknownProducerId,

    // The node and its shards.
    /// Another node leads the partition's shard.
    #[error("not the leader")]
    NotLeader,
    /// The caller's leader epoch is older than the partition's.
    #[error("fenced leader epoch")]
    FencedLeaderEpoch,
    /// The caller's leader epoch is newer than the partition's.
    #[error("unknown leader epoch")]
    UnknownLeaderEpoch,
    /// Fewer replicas in sync than asked for; nothing was appended.
    #[error("not enough replicas")]
    NotEnoughReplicas,
    /// Appended, but fewer replicas in sync than asked for.
    #[error("not enough replicas after the append")]
    NotEnoughReplicasAfterAppend,
    /// The shard's storage failed; it takes no more writes.
    #[error("storage error")]
    StorageError,
    /// The disk is full; trying again later may work.
    #[error("storage full")]
    StorageFull,
    /// It took longer than the caller wanted to wait.
    #[error("timed out")]
    Timeout,
    /// The node is going down.
    #[error("shutting down")]
    ShuttingDown,

    // Groups.
    /// Another node coordinates the group.
    #[error("not the coordinator")]
    NotCoordinator,
    /// The coordinator is still reading the group's state.
    #[error("coordinator is loading")]
    CoordinatorLoading,
    /// A group cannot have this name.
    #[error("invalid group id")]
    InvalidGroupId,
    /// No such group.
    #[error("no such group")]
    GroupNotFound,
    /// The group has members, so it cannot be deleted.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// A member of the group reads the topic, so its offsets stay.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// The member id is not of this group.
    #[error("unknown member")]
    UnknownMember,
    /// The generation is not the group's.
    #[error("illegal generation")]
    IllegalGeneration,
    /// The group is rebalancing; join again.
    #[error("rebalance in progress")]
    RebalanceInProgress,
    /// Another member took over this static instance id.
    #[error("fenced instance id")]
    FencedInstance,
    /// The session timeout is outside what the broker allows.
    #[error("invalid session timeout")]
    InvalidSessionTimeout,
    /// The member's protocols have nothing in common with the group's.
    #[error("inconsistent group protocol")]
    InconsistentGroupProtocol,
    /// Join again with the member id that comes with this answer.
    #[error("member id required")]
    MemberIdRequired,
    /// The group has as many members as it may have.
    #[error("the group is full")]
    GroupFull,
    /// Text committed with an offset is too long.
    #[error("offset metadata too large")]
    OffsetMetadataTooLarge,

    // Requests.
    /// A request that makes no sense.
    #[error("invalid request")]
    InvalidRequest,
    /// A request for something that is not built.
    #[error("not supported")]
    Unsupported,
    /// A bound on memory or on a number of things is reached; trying again later may work.
    #[error("a limit of the broker is reached")]
    LimitReached,
}
