//! The model's words in Kafka's.

use sabir_model::ErrorKind;

use crate::wire::ErrorCode;

/// The code that tells a client of a failure.
pub fn error_code(kind: ErrorKind) -> ErrorCode {
    use ErrorCode as C;
    use ErrorKind as K;
    match kind {
        K::UnknownTopic => C::UnknownTopicOrPartition,
        K::UnknownTopicId => C::UnknownTopicId,
        K::InconsistentTopicId => C::InconsistentTopicId,
        K::TopicExists => C::TopicAlreadyExists,
        K::InvalidTopic | K::TopicNameCollides => C::InvalidTopic,
        K::InvalidPartitions => C::InvalidPartitions,
        K::InvalidReplicationFactor => C::InvalidReplicationFactor,
        K::InvalidConfig => C::InvalidConfig,
        K::PolicyViolation => C::PolicyViolation,

        K::OffsetOutOfRange => C::OffsetOutOfRange,
        K::CorruptBatch => C::CorruptMessage,
        K::InvalidRecord => C::InvalidRecord,
        K::MessageTooLarge => C::MessageTooLarge,
        K::InvalidTimestamp => C::InvalidTimestamp,
        K::UnsupportedFormat => C::UnsupportedForMessageFormat,
        K::UnsupportedCompression => C::UnsupportedCompressionType,

        K::OutOfOrderSequence => C::OutOfOrderSequenceNumber,
        K::DuplicateSequence => C::DuplicateSequenceNumber,
        K::InvalidProducerEpoch => C::InvalidProducerEpoch,
        K::UnknownProducerId => C::UnknownProducerId,

        K::NotLeader => C::NotLeaderOrFollower,
        K::FencedLeaderEpoch => C::FencedLeaderEpoch,
        K::UnknownLeaderEpoch => C::UnknownLeaderEpoch,
        K::NotEnoughReplicas => C::NotEnoughReplicas,
        K::NotEnoughReplicasAfterAppend => C::NotEnoughReplicasAfterAppend,
        // Kafka has one code for a failed and for a full disk; clients try again.
        K::StorageError | K::StorageFull => C::KafkaStorageError,
        K::Timeout => C::RequestTimedOut,
        // Clients look for another leader, and find this node again when it is back.
        K::ShuttingDown => C::NotLeaderOrFollower,

        K::NotCoordinator => C::NotCoordinator,
        K::CoordinatorLoading => C::CoordinatorLoadInProgress,
        K::InvalidGroupId => C::InvalidGroupId,
        K::GroupNotFound => C::GroupIdNotFound,
        K::NonEmptyGroup => C::NonEmptyGroup,
        K::GroupSubscribedToTopic => C::GroupSubscribedToTopic,
        K::UnknownMember => C::UnknownMemberId,
        K::IllegalGeneration => C::IllegalGeneration,
        K::RebalanceInProgress => C::RebalanceInProgress,
        K::FencedInstance => C::FencedInstanceId,
        K::InvalidSessionTimeout => C::InvalidSessionTimeout,
        K::InconsistentGroupProtocol => C::InconsistentGroupProtocol,
        K::MemberIdRequired => C::MemberIdRequired,
        K::GroupFull => C::GroupMaxSizeReached,
        K::OffsetMetadataTooLarge => C::OffsetMetadataTooLarge,

        K::InvalidRequest => C::InvalidRequest,
        K::Unsupported => C::UnsupportedVersion,
        K::LimitReached => C::ThrottlingQuotaExceeded,
        // A kind of a later model: not known here, and not to be mistaken for another.
        _ => C::UnknownServerError,
    }
}

/// The code of a failure among the group APIs, whose clients look for the coordinator, not for a leader, when it moves.
pub fn group_error_code(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::NotLeader | ErrorKind::ShuttingDown => ErrorCode::NotCoordinator,
        ErrorKind::StorageError | ErrorKind::StorageFull | ErrorKind::Timeout => {
            ErrorCode::CoordinatorNotAvailable
        }
        other => error_code(other),
    }
}
