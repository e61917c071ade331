//! The front end: what all its connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::metrics::Exposition;
use sabir_base::panics;
use sabir_base::throttle::LogBudget;
use sabir_broker::{Broker, Caller, NewTopic, Partition};
use sabir_frontend::config::HostPort;
use sabir_frontend::{FrontendContext, Listening};
use sabir_model::{LeaderEpoch, TopicConfig, TopicError};
use sabir_net::{Claim, Connection, ConnectionCounters, Frontend, LocalBoxFuture, Workers};
use tokio::sync::OnceCell;

use crate::server::config::{KafkaConfig, NAME};
use crate::server::connection;
use crate::server::exporter;
use crate::server::fetch_session::{FetchSessions, SessionStats};
use crate::server::metrics::Metrics;
use crate::server::names;
use crate::server::requests::{OWN_REASONS, claims};
use crate::wire::{ApiKey, Str};

/// How long the first client waits for what is made at the start.
const BEGIN: Duration = Duration::from_secs(1);

/// Lines of the log about one thing that clients do wrong, of all connections together, in so long: connections that come and go are not to fill it.
const COMPLAINTS: u32 = 20;
const COMPLAINTS_EVERY: Duration = Duration::from_secs(10);

/// The caller of the broker, for what no client asks for.
pub(crate) static CALLER: Caller = Caller::front_end(NAME);

/// Serves Kafka's protocol.
pub(crate) struct KafkaFrontend {
    pub(crate) broker: Broker,
    pub(crate) config: KafkaConfig,
    pub(crate) metrics: Metrics,
    pub(crate) counters: Arc<ConnectionCounters>,
    /// What looks at records that take long.
    pub(crate) workers: Workers,
    /// Lines of the log about what clients do wrong: those about refused APIs by API, and all others.
    complaints: Mutex<Vec<(Option<ApiKey>, LogBudget)>>,
    sessions: Mutex<FetchSessions>,
    listening: Vec<Listening>,
    /// The id that clients are told, in Kafka's form.
    pub(crate) cluster_id: Str,
    begun: OnceCell<()>,
}

impl KafkaFrontend {
    /// A front end of the broker in `place`.
    pub(crate) fn new(config: KafkaConfig, place: FrontendContext) -> Arc<Self> {
        Arc::new(Self {
            cluster_id: Str::from(short_uuid(place.broker.cluster_id().0)),
            broker: place.broker,
            sessions: Mutex::new(FetchSessions::new(
                config.fetch_sessions,
                config.session_memory().bytes(place.memory) as usize,
            )),
            config,
            metrics: Metrics::default(),
            counters: Arc::new(ConnectionCounters::new(NAME, &OWN_REASONS)),
            workers: place.workers,
            complaints: Mutex::default(),
            listening: place.listening,
            begun: OnceCell::new(),
        })
    }

    /// How many lines about a refused API, or about anything else, were not written since the last one, if one may be written now.
    pub(crate) fn may_complain(&self, refused: Option<ApiKey>, now: Instant) -> Option<u64> {
        let mut complaints = self.complaints.lock();
        let known = complaints.iter().position(|(of, _)| *of == refused);
        let at = known.unwrap_or(complaints.len());
        if at == complaints.len() {
            complaints.push((refused, LogBudget::new(COMPLAINTS, COMPLAINTS_EVERY)));
        }
        complaints[at].1.allows(now)
    }

    /// Where a client is to connect that has come by the `listener`th address as `local`.
    pub(crate) fn told(&self, listener: usize, local: SocketAddr) -> HostPort {
        self.listening[listener].told(local)
    }

    /// Where clients connect that came by the first address.
    pub(crate) fn shown_address(&self) -> String {
        self.listening[0].shown().to_string()
    }

    /// This node's id.
    pub(crate) fn node_id(&self) -> i32 {
        self.broker.node_id().0
    }

    /// Works with the fetch sessions. Should that panic, they may be half changed: all of them go.
    pub(crate) fn with_sessions<T>(&self, work: impl FnOnce(&mut FetchSessions) -> T) -> T {
        let mut sessions = self.sessions.lock();
        panics::contain(|| work(&mut sessions)).unwrap_or_else(|| {
            sessions.clear();
            drop(sessions);
            std::panic::resume_unwind(Box::new("in the fetch sessions"))
        })
    }

    /// Makes what clients look for from the start. The first of them waits for it, and not for long.
    async fn begin(&self) {
        let begin = || async {
            match tokio::time::timeout(BEGIN, self.make_offsets_topic()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(topic = names::OFFSETS, %error, "the topic cannot be made"),
                Err(_) => tracing::warn!(topic = names::OFFSETS, "the topic is not made in time"),
            }
        };
        self.begun.get_or_init(begin).await;
    }

    /// Makes the internal topic that Kafka's clients know, unless it is there.
    pub(crate) async fn make_offsets_topic(&self) -> Result<(), TopicError> {
        if self.broker.catalog().topic(names::OFFSETS).is_some() {
            return Ok(());
        }
        let topic = NewTopic {
            name: names::OFFSETS.into(),
            // All groups of a namespace live in one shard.
            partitions: 1,
            config: self.broker.options().defaults.clone(),
            internal: true,
            unlike: false,
        };
        match self.broker.create_topics(&CALLER, vec![topic]).await.pop() {
            Some(Err(TopicError::Exists(_))) | Some(Ok(_)) | None => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    /// What holds for topics that say nothing themselves, the node's durability by its name.
    pub(crate) fn shown_defaults(&self) -> TopicConfig {
        let options = self.broker.options();
        let durability = options.defaults.durability.or(Some(options.durability));
        TopicConfig { durability, ..options.defaults.clone() }
    }

    /// A partition's leader and its epoch; `None` while there is no leader.
    pub(crate) fn leader(&self, partition: &Partition) -> Option<(i32, LeaderEpoch)> {
        let (term, leads) = self.broker.leadership(partition.shard)?;
        leads.then(|| (self.node_id(), partition.leader_epoch(term)))
    }
}

impl Frontend for KafkaFrontend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn claims(&self, first: &[u8]) -> Claim {
        claims(first, self.config.max_request.0)
    }

    fn serve(self: Arc<Self>, connection: Connection) -> LocalBoxFuture {
        Box::pin(async move {
            self.begin().await;
            connection::serve(self, connection).await;
        })
    }

    fn metrics(&self, out: &mut Exposition) {
        self.metrics.expose(NAME, out);
        self.counters.expose(out);
        let SessionStats { sessions, partitions, bytes, refused } = self.sessions.lock().stats();
        let gauge = |out: &mut Exposition, name, help, value: usize| out.gauge(name, help, &[], value as i64);
        gauge(out, "sabir_kafka_fetch_sessions", "Fetch sessions.", sessions);
        gauge(out, "sabir_kafka_fetch_session_partitions", "Partitions in fetch sessions.", partitions);
        gauge(out, "sabir_kafka_fetch_session_bytes", "Memory of fetch sessions.", bytes);
        let help = "Fetch sessions for which there was no room.";
        out.counter("sabir_kafka_refused_fetch_sessions", help, &[], refused);
        exporter::expose(self, out);
    }
}

/// Kafka's form of a UUID: base64 for URLs, without padding.
pub(crate) fn short_uuid(id: [u8; 16]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let all = u128::from_be_bytes(id);
    // 22 digits of 6 bits hold 128 bits and 4 of padding.
    let digit = |i: u32| {
        let shift = 122 - 6 * i as i32;
        let bits = if shift >= 0 { all >> shift } else { all << -shift };
        char::from(DIGITS[(bits & 63) as usize])
    };
    (0..22).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_kafka_does() {
        assert_eq!(short_uuid([0; 16]), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(short_uuid([0xff; 16]), "_____________________w");
        assert_eq!(
            short_uuid(*b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"),
            "AAECAwQFBgcICQoLDA0ODw"
        );
    }
}
