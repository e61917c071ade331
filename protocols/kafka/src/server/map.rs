//! The model's words in Kafka's.

use sabir_model::{ErrorKind, InvalidSetting, ShardFailure, TopicError};

use crate::server::names::client_name;
use crate::server::topic_config;
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
        K::InvalidTopic | K::InternalTopic => C::InvalidTopic,
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

/// The code that tells a client why a topic is not made or changed, and what it can read with it, in Kafka's words where it has some.
pub fn topic_refusal(error: &TopicError) -> (ErrorCode, String) {
    let message = match error {
        TopicError::Exists(name) => format!("Topic '{}' already exists.", client_name(name)),
        TopicError::Collides { name, other } => collides(&client_name(name), &client_name(other)),
        TopicError::Reserved { name, .. } => format!("Creation of internal topic {name} is prohibited."),
        TopicError::Internal(name) => format!("Topic '{}' is kept by the broker itself.", client_name(name)),
        TopicError::Setting(InvalidSetting { field: Some(field), problem }) => {
            format!("{}: {problem}", topic_config::name_of(*field))
        }
        other => other.to_string(),
    };
    (topic_error_code(error), message)
}

/// What Kafka says of names that differ in `.` and `_` alone.
pub fn collides(name: &str, other: &str) -> String {
    format!("Topic '{name}' collides with existing topic: {other}")
}

fn topic_error_code(error: &TopicError) -> ErrorCode {
    use ErrorCode as C;
    use TopicError as E;
    match error {
        E::Unknown => C::UnknownTopicOrPartition,
        E::Exists(_) => C::TopicAlreadyExists,
        E::Collides { .. } | E::InvalidName { .. } | E::Internal(_) => C::InvalidTopic,
        E::Reserved { .. } => C::InvalidRequest,
        E::Partitions { .. } | E::NotMore { .. } => C::InvalidPartitions,
        E::Setting(_) => C::InvalidConfig,
        // Clients do not try again.
        E::MadeElsewhere(_) | E::TooManyPartitions { .. } | E::TooManySettings { .. } => C::PolicyViolation,
        E::OffsetOutOfRange => C::OffsetOutOfRange,
        // Clients try again.
        E::Changed => C::RequestTimedOut,
        E::TooLarge => C::MessageTooLarge,
        E::Shard(failure) => shard_error_code(*failure),
    }
}

fn shard_error_code(failure: ShardFailure) -> ErrorCode {
    match failure {
        // Clients look for another leader, and find this node again when it is back.
        ShardFailure::NotLeader | ShardFailure::ShuttingDown => ErrorCode::NotLeaderOrFollower,
        // Kafka has one code for a failed and for a full disk; clients try again.
        ShardFailure::StorageError | ShardFailure::StorageFull => ErrorCode::KafkaStorageError,
        ShardFailure::Timeout => ErrorCode::RequestTimedOut,
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
