//! The model's words in Kafka's.

use sabir_model::{
    AppendError, ErrorAbout, GroupError, InvalidSetting, ProducerIdError, ReadError, ShardFailure, TopicError,
};

use crate::server::config::NAME;
use crate::server::names::client_name;
use crate::server::topic_config;
use crate::wire::ErrorCode;

/// The code that tells a producer why its batch is not appended.
pub fn append_error_code(error: AppendError) -> ErrorCode {
    match error {
        AppendError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::FencedProducer { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::NoOffsets | AppendError::InvalidReference | AppendError::NoSuchBatch => {
            ErrorCode::InvalidRecord
        }
        // Clients do not try it again.
        AppendError::QueueFull => ErrorCode::PolicyViolation,
        AppendError::TooLarge => ErrorCode::MessageTooLarge,
        AppendError::Shard(failure) => shard_error_code(failure),
    }
}

/// The code that tells a client why it gets no producer id.
pub fn producer_id_error_code(error: ProducerIdError) -> ErrorCode {
    match error {
        ProducerIdError::UsedUp => ErrorCode::ThrottlingQuotaExceeded,
        // What Kafka's brokers say; not every client tries again after REQUEST_TIMED_OUT.
        ProducerIdError::Shard(ShardFailure::Timeout) => ErrorCode::CoordinatorLoadInProgress,
        ProducerIdError::Shard(failure) => shard_error_code(failure),
    }
}

/// The code that tells a client why it gets no records, or no offset.
pub fn read_error_code(error: impl Into<ErrorAbout<ReadError>>) -> ErrorCode {
    match error.into().error {
        ReadError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
        // Where records were deleted meanwhile, clients begin at the first offset again.
        ReadError::OutOfRange { .. } | ReadError::Deleted => ErrorCode::OffsetOutOfRange,
        ReadError::Corrupt => ErrorCode::CorruptMessage,
        ReadError::Storage => ErrorCode::KafkaStorageError,
        // Clients look for another leader, and find this node again when it is back.
        ReadError::ShuttingDown => ErrorCode::NotLeaderOrFollower,
    }
}

/// The code that tells a client why a topic is not made or changed, and what it can read with it, in Kafka's words where it has some.
pub fn topic_refusal(error: &TopicError) -> (ErrorCode, String) {
    use ErrorCode as C;
    use TopicError as E;
    match error {
        E::Exists(name) => (C::TopicAlreadyExists, format!("Topic '{}' already exists.", client_name(name))),
        E::Collides { name, other } => (C::InvalidTopic, collides(&client_name(name), &client_name(other))),
        E::Reserved { name, by } if *by == NAME => {
            (C::InvalidRequest, format!("Creation of internal topic {name} is prohibited."))
        }
        E::Reserved { .. } => (C::InvalidTopic, error.to_string()),
        E::Internal(name) => {
            (C::InvalidTopic, format!("Topic '{}' is kept by the broker itself.", client_name(name)))
        }
        E::Setting(InvalidSetting { field: Some(field), problem }) => {
            (C::InvalidConfig, format!("{}: {problem}", topic_config::name_of(*field)))
        }
        E::Setting(InvalidSetting { field: None, .. }) => (C::InvalidConfig, error.to_string()),
        E::Unknown => (C::UnknownTopicOrPartition, error.to_string()),
        E::InvalidName { .. } => (C::InvalidTopic, error.to_string()),
        E::Partitions { .. } | E::NotMore { .. } => (C::InvalidPartitions, error.to_string()),
        // Clients do not try again.
        E::MadeElsewhere(_)
        | E::Exclusive(_)
        | E::IsQueue(_)
        | E::QueuePartition(_)
        | E::QueueRecords(_)
        | E::QueuesNeedLevel { .. }
        | E::TooManyPartitions { .. }
        | E::TooManySettings { .. }
        | E::TooManyMessageIds { .. }
        | E::InUse(_)
        | E::NotEmpty(_)
        | E::TooManyFrontends => (C::PolicyViolation, error.to_string()),
        E::OffsetOutOfRange { .. } => (C::OffsetOutOfRange, error.to_string()),
        // Clients try again.
        E::Changed(_) => (C::RequestTimedOut, error.to_string()),
        E::Shard(failure) => (shard_error_code(*failure), error.to_string()),
    }
}

/// What Kafka says of names that differ in `.` and `_` alone.
pub fn collides(name: &str, other: &str) -> String {
    format!("Topic '{name}' collides with existing topic: {other}")
}

fn shard_error_code(failure: ShardFailure) -> ErrorCode {
    match failure {
        // Clients look for another leader, and find this node again when it is back.
        ShardFailure::NotLeader | ShardFailure::ShuttingDown => ErrorCode::NotLeaderOrFollower,
        // Kafka has one code for a failed and for a full disk; clients try again.
        ShardFailure::StorageError | ShardFailure::StorageFull => ErrorCode::KafkaStorageError,
        ShardFailure::Timeout => ErrorCode::RequestTimedOut,
        ShardFailure::TooLarge => ErrorCode::MessageTooLarge,
    }
}

/// The code that tells a client why a group does not do what it asks for. Clients look for the coordinator, not for a leader, when it moves.
pub fn group_error_code(error: GroupError) -> ErrorCode {
    use ErrorCode as C;
    use GroupError as E;
    match error {
        E::Loading => C::CoordinatorLoadInProgress,
        E::NotCoordinator => C::NotCoordinator,
        // Below the level, what is refused is a longer name.
        E::InvalidId | E::Level { .. } | E::UnknownFrontend => C::InvalidGroupId,
        E::NotFound => C::GroupIdNotFound,
        E::NotEmpty => C::NonEmptyGroup,
        E::UnknownMember => C::UnknownMemberId,
        E::IllegalGeneration => C::IllegalGeneration,
        E::RebalanceInProgress => C::RebalanceInProgress,
        E::FencedInstance => C::FencedInstanceId,
        E::InvalidSessionTimeout { .. } => C::InvalidSessionTimeout,
        E::InconsistentProtocol => C::InconsistentGroupProtocol,
        E::InvalidRequest => C::InvalidRequest,
        E::MemberIdRequired => C::MemberIdRequired,
        E::Full => C::GroupMaxSizeReached,
        E::MetadataTooLarge => C::OffsetMetadataTooLarge,
        E::LimitReached => C::ThrottlingQuotaExceeded,
        E::TooLarge => C::MessageTooLarge,
        E::Shard(failure) => group_shard_error_code(failure),
    }
}

fn group_shard_error_code(failure: ShardFailure) -> ErrorCode {
    match failure {
        ShardFailure::NotLeader | ShardFailure::ShuttingDown => ErrorCode::NotCoordinator,
        ShardFailure::StorageError | ShardFailure::StorageFull | ShardFailure::Timeout => {
            ErrorCode::CoordinatorNotAvailable
        }
        ShardFailure::TooLarge => ErrorCode::MessageTooLarge,
    }
}
