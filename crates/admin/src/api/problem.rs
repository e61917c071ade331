//! What went wrong, as RFC 9457 has it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sabir_broker::exchange::ExchangeError;
use sabir_broker::queue::{QueueError, SubscribeRefused};
use sabir_model::{ErrorAbout, GroupError, ReadError, ShardFailure, TopicError};
use serde::Serialize;

/// An answer that tells what went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    /// What programs tell it by; `type` is made of it.
    kind: &'static str,
    detail: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: String,
    status: u16,
    detail: &'a str,
}

impl Problem {
    /// A problem of a kind, and what the user can read.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into() }
    }

    /// A request that makes no sense.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// A request that is understood and cannot be.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    pub fn unknown_topic(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-topic", format!("there is no topic {name:?}"))
    }

    /// The same of a topic that was found by this name: one that went since is known by its id alone where that is seen.
    pub fn of_topic(error: impl Into<Self>, name: &str) -> Self {
        match error.into() {
            unknown if unknown.kind == "unknown-topic" => Self::unknown_topic(name),
            other => other,
        }
    }

    pub fn unknown_group(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-group", format!("there is no group {id:?}"))
    }

    /// The same with what it is about before it.
    pub fn about(mut self, what: &str) -> Self {
        self.detail = format!("{what}: {}", self.detail);
        self
    }

    /// Several at once, as the first of them has it: so many are told, and how many there are more.
    pub fn all(problems: Vec<Self>, told: usize) -> Option<Self> {
        let mut lines: Vec<String> =
            problems.iter().take(told).map(|problem| problem.detail.clone()).collect();
        match problems.len().saturating_sub(told) {
            0 => {}
            more => lines.push(format!("and {more} more")),
        }
        let first = problems.into_iter().next()?;
        Some(Self { detail: lines.join("; "), ..first })
    }

    /// What the broker refused, behind what it was asked of.
    pub fn refused(what: &str, error: impl Into<Self>) -> Self {
        error.into().about(what)
    }
}

impl From<ErrorAbout<GroupError>> for Problem {
    fn from(error: ErrorAbout<GroupError>) -> Self {
        let (status, kind) = of_group(error.error);
        Self::new(status, kind, error.to_string())
    }
}

fn of_group(error: GroupError) -> (StatusCode, &'static str) {
    use GroupError as E;
    match error {
        E::NotFound => (StatusCode::NOT_FOUND, "unknown-group"),
        E::NotEmpty | E::UnknownMember | E::RebalanceInProgress => (StatusCode::CONFLICT, "group-not-empty"),
        E::InvalidId | E::MetadataTooLarge | E::TooLarge | E::Level { .. } | E::UnknownFrontend => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid")
        }
        E::Loading | E::NotCoordinator | E::LimitReached => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        E::Shard(failure) => of_shard(failure),
        // What only a member is told: nothing here asks as one.
        E::IllegalGeneration
        | E::FencedInstance
        | E::InvalidSessionTimeout { .. }
        | E::InconsistentProtocol
        | E::InvalidRequest
        | E::MemberIdRequired
        | E::Full => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

/// Of what is asked of a queue.
pub fn of_queue(error: QueueError) -> (StatusCode, &'static str) {
    match error {
        QueueError::NotAQueue => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        error => of_subscription(error.into()),
    }
}

impl From<ErrorAbout<SubscribeRefused>> for Problem {
    fn from(error: ErrorAbout<SubscribeRefused>) -> Self {
        let (status, kind) = of_subscription(error.error);
        Self::new(status, kind, error.to_string())
    }
}

fn of_subscription(error: SubscribeRefused) -> (StatusCode, &'static str) {
    use SubscribeRefused as E;
    match error {
        E::IsQueue => (StatusCode::CONFLICT, "queue"),
        E::Topic(QueueError::Shard(failure)) => of_shard(failure),
        E::Topic(QueueError::Internal) => (StatusCode::CONFLICT, "internal-topic"),
        E::Topic(QueueError::Unknown | QueueError::NotAQueue) => (StatusCode::NOT_FOUND, "unknown-topic"),
        E::Topic(QueueError::Locked | QueueError::Exclusive | QueueError::InUse | QueueError::Owned) => {
            (StatusCode::FORBIDDEN, "forbidden")
        }
        E::Owned => (StatusCode::FORBIDDEN, "forbidden"),
        E::Name | E::DeadLetter | E::TooMany | E::Differs | E::SeveralPartitions | E::NeedsLevel { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid")
        }
        E::Read(error) => of_read(error),
    }
}

impl From<ErrorAbout<ReadError>> for Problem {
    fn from(error: ErrorAbout<ReadError>) -> Self {
        let (status, kind) = of_read(error.error);
        Self::new(status, kind, error.to_string())
    }
}

pub fn of_read(error: ReadError) -> (StatusCode, &'static str) {
    match error {
        ReadError::UnknownPartition => (StatusCode::NOT_FOUND, "unknown-topic"),
        ReadError::OutOfRange { .. } | ReadError::Deleted => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        ReadError::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        ReadError::Storage | ReadError::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    }
}

impl From<TopicError> for Problem {
    fn from(error: TopicError) -> Self {
        let (status, kind) = of_topic(&error);
        Self::new(status, kind, error.to_string())
    }
}

fn of_topic(error: &TopicError) -> (StatusCode, &'static str) {
    use TopicError as E;
    match error {
        E::Unknown => (StatusCode::NOT_FOUND, "unknown-topic"),
        E::Exists(_) | E::Collides { .. } => (StatusCode::CONFLICT, "topic-exists"),
        E::Reserved { .. } => (StatusCode::CONFLICT, "reserved-name"),
        E::Internal(_) => (StatusCode::CONFLICT, "internal-topic"),
        E::IsQueue(_) | E::QueuePartition(_) | E::QueueRecords(_) | E::InUse(_) | E::NotEmpty(_) => {
            (StatusCode::CONFLICT, "queue")
        }
        E::MadeElsewhere(_) | E::Exclusive(_) => (StatusCode::FORBIDDEN, "forbidden"),
        E::Changed(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        E::InvalidName { .. }
        | E::Partitions { .. }
        | E::NotMore { .. }
        | E::TooManyPartitions { .. }
        | E::Setting(_)
        | E::TooManySettings { .. }
        | E::TooManyMessageIds { .. }
        | E::TooManyFrontends
        | E::QueuesNeedLevel { .. }
        | E::OffsetOutOfRange { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        E::Shard(failure) => of_shard(*failure),
    }
}

impl From<ExchangeError> for Problem {
    fn from(error: ExchangeError) -> Self {
        let (status, kind) = of_exchange(&error);
        Self::new(status, kind, error.to_string())
    }
}

fn of_exchange(error: &ExchangeError) -> (StatusCode, &'static str) {
    use ExchangeError as E;
    match error {
        E::Differs { .. } => (StatusCode::CONFLICT, "exchange-exists"),
        E::Reserved { .. } => (StatusCode::CONFLICT, "reserved-name"),
        E::Internal(_) => (StatusCode::CONFLICT, "internal-topic"),
        E::MadeElsewhere(_) => (StatusCode::FORBIDDEN, "forbidden"),
        // What is asked for by name in a path is not among these: a document names what there is not.
        E::Unknown(_)
        | E::UnknownQueue(_)
        | E::Default
        | E::InUse(_)
        | E::Binding(_)
        | E::InvalidName { .. }
        | E::LongKey { .. }
        | E::NoRoom { .. }
        | E::TooMany { .. }
        | E::Level { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        E::Origin(error) => of_topic(error),
        E::Shard(failure) => of_shard(*failure),
    }
}

pub fn of_shard(failure: ShardFailure) -> (StatusCode, &'static str) {
    match failure {
        ShardFailure::StorageFull => (StatusCode::INSUFFICIENT_STORAGE, "storage-full"),
        ShardFailure::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
        ShardFailure::TooLarge => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
        ShardFailure::NotLeader | ShardFailure::StorageError | ShardFailure::ShuttingDown => {
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.kind.replace('-', " ");
        let body = Body {
            r#type: format!("urn:sabir:problem:{}", self.kind),
            title,
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        let mut answer = (self.status, Json(body)).into_response();
        let form = HeaderValue::from_static("application/problem+json");
        answer.headers_mut().insert(header::CONTENT_TYPE, form);
        answer
    }
}
