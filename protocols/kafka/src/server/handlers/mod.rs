//! What each API does: check, translate, one call to the broker, reply.

pub(crate) mod produce;

mod batches;
mod cluster;
mod configs;
mod fetch;
mod groups;
mod list_offsets;
mod metadata;
mod offsets;
mod placement;
mod producer_ids;
mod records;
mod security;
mod topics;
mod transactions;
mod versions;
mod weight;

use std::collections::HashSet;
use std::future::Future;
use std::hash::Hash;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_base::throttle::LogThrottle;
use sabir_broker::{Caller, Groups, ReadTarget, SessionId, Topic};
use sabir_net::{
    Connection, DropReason, Ending, ErrorPace, FrameMemory, Grant, NoMemory, OpenConnection, Workers,
};

use sabir_model::{ShardFailure, TopicId};

use crate::server::config::NAME;
use crate::server::frontend::KafkaFrontend;
use crate::server::map::read_error_code;
use crate::server::names;
use crate::server::requests::{BadRequest, REFUSED_UNANSWERED, Request};
use crate::wire::{ApiKey, Encoded, ErrorCode, Reader, Str, Uuid, encode_response};

/// The client at the other end of a connection.
pub(crate) struct Client {
    pub kafka: Arc<KafkaFrontend>,
    /// As whom the broker is asked.
    pub caller: Caller,
    pub peer: SocketAddr,
    /// The node's workers, asked for this connection.
    pub workers: Workers,
    open: Arc<OpenConnection>,
    /// The host that it is told to connect to.
    pub host: Str,
    /// The port at that host.
    pub port: i32,
    /// What incomplete frames and unread answers of all connections share.
    pub memory: FrameMemory,
    /// What it called itself first; for the log and for descriptions of groups.
    id: OnceLock<String>,
    complaints: LogThrottle,
    /// The APIs whose refusal was logged, and when.
    refused: Mutex<Vec<(ApiKey, Instant)>>,
    /// Long polls that errors have cut short.
    cut_short: Mutex<ErrorPace>,
    /// Answers with an error.
    failed: Mutex<ErrorPace>,
    /// Where its next fetch without a session begins in what that names: behind what was given last, where there was no time for all.
    fetch_first: AtomicUsize,
}

/// How often a connection is complained of in the log, and how often the same refusal of it is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Bytes of what a client calls itself that are kept for the log.
const SHOWN_ID: usize = 256;

impl Client {
    pub fn new(kafka: Arc<KafkaFrontend>, connection: &Connection) -> Self {
        let told = kafka.told(connection.listener, connection.local);
        let workers = kafka.workers.asked_from(connection.peer.ip());
        Self {
            kafka,
            caller: Caller::client(NAME, SessionId(connection.open.id().0)),
            peer: connection.peer,
            workers,
            open: connection.open.shared(),
            host: Str::from(told.host),
            port: told.port.into(),
            memory: connection.limits.frame_memory.clone(),
            id: OnceLock::new(),
            complaints: LogThrottle::new(COMPLAIN_EVERY),
            refused: Mutex::default(),
            cut_short: Mutex::default(),
            failed: Mutex::default(),
            fetch_first: AtomicUsize::new(0),
        }
    }

    /// What it called itself first; empty if it has not.
    pub fn id(&self) -> &str {
        self.id.get().map_or("", String::as_str)
    }

    /// The topic of a name as clients write it.
    fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let name = names::topic_name(name).ok()?;
        self.kafka.broker.catalog().topic_of(&self.caller, &name).cloned()
    }

    /// The topic of an id.
    fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        let catalog = self.kafka.broker.catalog();
        catalog.topic_by_id(TopicId(id)).filter(|topic| self.sees(topic)).cloned()
    }

    /// Whether it is shown a topic.
    fn sees(&self, topic: &Topic) -> bool {
        self.caller.sees(topic) && names::is_shown(&topic.name)
    }

    /// Whether there is a topic of this name, as it is stored.
    fn knows(&self, name: &str) -> bool {
        self.kafka.broker.catalog().topic_of(&self.caller, name).is_some()
    }

    fn read_target(&self, topic: &Topic, index: i32) -> Result<ReadTarget, ErrorCode> {
        ReadTarget::find(&self.caller, topic, index).map_err(read_error_code)
    }

    fn groups(&self) -> Groups {
        self.kafka.broker.groups(&self.caller)
    }

    /// Logs what is wrong with what the client sends, not too often.
    fn complain(&self, what: std::fmt::Arguments<'_>) {
        let now = Instant::now();
        if self.complaints.allows(now) {
            self.tell(None, now, what);
        }
    }

    /// Writes a line to the log, unless it had many of its kind about clients lately.
    fn tell(&self, refused: Option<ApiKey>, now: Instant, what: std::fmt::Arguments<'_>) {
        if let Some(untold) = self.kafka.may_complain(refused, now) {
            let not_named = (untold > 0).then_some(untold);
            tracing::warn!(peer = %self.peer, client = self.id(), not_named, "{what}");
        }
    }

    /// Whether an error may end one more long poll before its time.
    fn may_cut_short(&self) -> bool {
        self.cut_short.lock().may_cut_short(Instant::now())
    }

    /// Notes that it is answered with an error, and logs that if it seems to do nothing else.
    pub fn failed(&self, api: ApiKey, error: ErrorCode) {
        if let Some(many) = self.failed.lock().are_many(Instant::now()) {
            self.complain(format_args!(
                "{many} of its requests failed within ten seconds, the last of them a {api} with {error}"
            ));
        }
    }

    /// Logs that what it asks for is not served, since not every client tells its user: each API by name, whatever else was logged, and
    /// not too often.
    fn refused(&self, api: ApiKey, why: &str) {
        let now = Instant::now();
        let mut refused = self.refused.lock();
        refused.retain(|(_, at)| now - *at < COMPLAIN_EVERY);
        if refused.iter().all(|(logged, _)| *logged != api) {
            refused.push((api, now));
            self.tell(Some(api), now, format_args!("{api} is refused: {why}"));
        }
    }

    fn introduce(&self, id: Option<&Str>) {
        if let Some(id) = id.filter(|_| self.id.get().is_none()) {
            self.open.introduce(id);
            // Checked above, and set nowhere else.
            let _ = self.id.set(id[..id.floor_char_boundary(SHOWN_ID)].to_owned());
        }
    }
}

/// What a request is answered with.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A response, the first error in it, and the memory that was granted for it, if it was; a piece of it that holds memory of its own.
    Frame { frame: Encoded, error: ErrorCode, memory: Option<Grant>, held: Option<Box<Bytes>> },
    /// Nothing, as the protocol has it.
    Silence,
}

/// Why a request is not answered: its connection is closed instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// It cannot be told what it asks for, or that is not served.
    Bad(BadRequest),
    /// There was no memory for its answer in time.
    NoMemory,
    /// What it produced was refused with this error, and its client wants no answer.
    Untold(ErrorCode),
}

impl Unanswered {
    /// The error that it counts as, where its request was handled.
    pub fn error(&self) -> Option<ErrorCode> {
        match self {
            Self::Bad(_) => None,
            Self::NoMemory => Some(ErrorCode::RequestTimedOut),
            Self::Untold(error) => Some(*error),
        }
    }
}

impl From<BadRequest> for Unanswered {
    fn from(bad: BadRequest) -> Self {
        Self::Bad(bad)
    }
}

impl From<NoMemory> for Unanswered {
    fn from(NoMemory: NoMemory) -> Self {
        Self::NoMemory
    }
}

impl From<Unanswered> for Ending {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Bad(bad) => bad.into(),
            Unanswered::NoMemory => DropReason::Memory.into(),
            Unanswered::Untold(_) => DropReason::Protocol(REFUSED_UNANSWERED).into(),
        }
    }
}

impl Reply {
    /// The same, with memory that was granted for it, and a piece that holds memory of its own.
    fn within(self, granted: Option<Grant>, held: Option<Box<Bytes>>) -> Self {
        match self {
            Self::Frame { frame, error, .. } => Self::Frame { frame, error, memory: granted, held },
            Self::Silence => Self::Silence,
        }
    }

    /// The first error it carries.
    pub fn error(&self) -> ErrorCode {
        match self {
            Self::Frame { error, .. } => *error,
            Self::Silence => ErrorCode::None,
        }
    }
}

/// A request being handled.
pub(crate) type Handling = Pin<Box<dyn Future<Output = Result<Reply, Unanswered>> + Send>>;

/// What is needed of a request once its body is decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub api: ApiKey,
    pub version: i16,
    correlation_id: i32,
}

impl Call {
    fn of(request: &Request) -> Self {
        let Request { api, version, ref header, .. } = *request;
        Self { api, version, correlation_id: header.correlation_id }
    }

    /// The response with its first error.
    fn reply<M: crate::wire::ApiMessage>(self, response: &M, error: ErrorCode) -> Reply {
        let frame = encode_response(self.api, self.version, self.correlation_id, response);
        Reply::Frame { frame, error, memory: None, held: None }
    }
}

/// Decodes a request's body, all of it.
fn decode<R: crate::wire::RequestMessage>(request: &Request) -> Result<R, BadRequest> {
    decode_with(Reader::new(&request.body), request)
}

fn decode_with<R: crate::wire::RequestMessage>(
    mut reader: Reader<'_>,
    request: &Request,
) -> Result<R, BadRequest> {
    R::decode(&mut reader, request.version).map_err(|source| BadRequest::Body {
        api: request.api,
        version: request.version,
        source,
    })
}

/// The shortest time that a request is waited for, whatever it says. Clients that say 0 expect what needs no second broker to
/// be done all the same, and here that takes a write to the disk.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// How long a request with this `timeout_ms` is waited for.
fn patience(timeout_ms: i32) -> Duration {
    let asked = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    asked.max(LEAST_PATIENCE)
}

/// How long a change is waited for whose request says nothing of it; what Kafka's brokers have for `offsets.commit.timeout.ms`. It
/// goes on if it takes longer.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Until when a change is waited for whose request says nothing of it.
fn commit_by() -> tokio::time::Instant {
    tokio::time::Instant::now() + COMMIT_TIMEOUT
}

/// What work comes to, if that is in time. What it has asked of the broker goes on if it is not.
async fn within<T, E: From<ShardFailure>>(
    until: tokio::time::Instant,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout_at(until, work).await.unwrap_or(Err(ShardFailure::Timeout.into()))
}

/// What is named, once each: an answer may be much larger than a name, and a request may repeat one a million times.
fn once<T, K: Eq + Hash>(named: &[T], key: impl Fn(&T) -> K) -> impl Iterator<Item = &T> {
    let mut seen = HashSet::new();
    named.iter().filter(move |one| seen.insert(key(one)))
}

/// The first error among codes of an answer.
fn first_error(codes: impl Iterator<Item = i16>) -> ErrorCode {
    codes.map(ErrorCode::check).find_map(Result::err).unwrap_or(ErrorCode::None)
}

/// Requests that are larger may name so much that it takes long to decode them, to handle them and to encode the answers.
const LONG: usize = 16 << 10;

/// Handles any request but one to produce. What may take long is not done on the connection's thread.
pub(crate) fn handle(client: Arc<Client>, request: Request) -> Handling {
    client.introduce(request.header.client_id.as_ref());
    let bytes = request.body.len();
    let workers = client.workers.clone();
    if bytes <= LONG && !weight::is_long(&client, &request) {
        return weight::within(client, request, dispatch);
    }
    let handling = async move { weight::within(client, request, dispatch).await };
    Box::pin(async move { workers.handle(bytes, Box::pin(handling)).await })
}

fn dispatch(client: Arc<Client>, request: Request) -> Handling {
    match request.api {
        ApiKey::Metadata => Box::pin(metadata::metadata(client, request)),
        ApiKey::Fetch => Box::pin(fetch::fetch(client, request)),
        ApiKey::ListOffsets => Box::pin(list_offsets::list_offsets(client, request)),
        ApiKey::InitProducerId => Box::pin(producer_ids::init_producer_id(client, request)),

        ApiKey::JoinGroup => Box::pin(groups::join_group(client, request)),
        ApiKey::SyncGroup => Box::pin(groups::sync_group(client, request)),
        ApiKey::DeleteGroups => Box::pin(groups::delete_groups(client, request)),
        ApiKey::OffsetCommit => Box::pin(offsets::offset_commit(client, request)),
        ApiKey::OffsetDelete => Box::pin(offsets::offset_delete(client, request)),

        ApiKey::CreateTopics => Box::pin(topics::create_topics(client, request)),
        ApiKey::DeleteTopics => Box::pin(topics::delete_topics(client, request)),
        ApiKey::CreatePartitions => Box::pin(topics::create_partitions(client, request)),
        ApiKey::DeleteRecords => Box::pin(records::delete_records(client, request)),
        ApiKey::DescribeConfigs => Box::pin(configs::describe_configs(client, request)),
        ApiKey::AlterConfigs => Box::pin(configs::alter_configs(client, request)),
        ApiKey::IncrementalAlterConfigs => Box::pin(configs::incremental_alter_configs(client, request)),
        _ => Box::pin(std::future::ready(at_once(&client, &request).map_err(Unanswered::Bad))),
    }
}

/// Handles what waits for nothing.
fn at_once(client: &Client, request: &Request) -> Result<Reply, BadRequest> {
    match request.api {
        ApiKey::ApiVersions => versions::api_versions(request),
        ApiKey::FindCoordinator => groups::find_coordinator(client, request),
        ApiKey::Heartbeat => groups::heartbeat(client, request),
        ApiKey::LeaveGroup => groups::leave_group(client, request),
        ApiKey::DescribeGroups => groups::describe_groups(client, request),
        ApiKey::ListGroups => groups::list_groups(client, request),
        ApiKey::OffsetFetch => offsets::offset_fetch(client, request),
        ApiKey::OffsetForLeaderEpoch => records::offset_for_leader_epoch(client, request),
        ApiKey::DescribeCluster => cluster::describe_cluster(client, request),
        ApiKey::DescribeLogDirs => cluster::describe_log_dirs(client, request),
        ApiKey::DescribeTopicPartitions => cluster::describe_topic_partitions(client, request),
        ApiKey::ListConfigResources => cluster::list_config_resources(client, request),
        ApiKey::DescribeQuorum => placement::describe_quorum(client, request),
        ApiKey::ElectLeaders => placement::elect_leaders(client, request),
        ApiKey::AlterPartitionReassignments => placement::alter_partition_reassignments(client, request),
        ApiKey::ListPartitionReassignments => placement::list_partition_reassignments(request),
        ApiKey::ConsumerGroupHeartbeat => groups::consumer_group_heartbeat(client, request),
        ApiKey::ListTransactions => transactions::list_transactions(request),
        ApiKey::DescribeTransactions => transactions::describe_transactions(request),
        ApiKey::SaslHandshake => security::sasl_handshake(client, request),
        ApiKey::SaslAuthenticate => security::sasl_authenticate(client, request),
        ApiKey::DescribeAcls => security::describe_acls(client, request),
        ApiKey::CreateAcls => security::create_acls(client, request),
        ApiKey::DeleteAcls => security::delete_acls(client, request),
        ApiKey::DescribeClientQuotas => security::describe_client_quotas(request),
        ApiKey::AlterClientQuotas => security::alter_client_quotas(client, request),
        ApiKey::DescribeUserScramCredentials => security::describe_user_scram_credentials(request),
        ApiKey::AlterUserScramCredentials => security::alter_user_scram_credentials(client, request),
        ApiKey::AlterReplicaLogDirs => placement::alter_replica_log_dirs(client, request),
        other => Err(BadRequest::UnknownApi(other as i16)),
    }
}
