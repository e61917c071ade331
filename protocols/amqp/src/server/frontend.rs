//! What all connections share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sabir_base::metrics::Exposition;
use sabir_base::throttle::LogBudget;
use sabir_broker::exchange::ExchangeError;
use sabir_broker::{Broker, Caller, Topic};
use sabir_frontend::FrontendContext;
use sabir_model::{FrontendNo, TopicError, TopicId};
use sabir_net::{
    Claim, Connection, ConnectionCounters, ConnectionId, Frontend, LocalBoxFuture, OwnReason, Tasks, Workers,
};
use tokio::sync::OnceCell;

use super::config::{AmqpConfig, NAME};
use super::connection::AmqpSession;
use super::exclusive::ExclusiveQueues;
use super::login::server_properties;
use super::replies::Replies;
use crate::session::{ConnectionOptions, HeaderFound, protocol_header};
use crate::wire::FieldTableBuf;

/// A client broke a rule of the protocol, and was told.
pub(crate) const EXCEPTION: OwnReason = OwnReason::new("exception", "it broke a rule of the protocol");
/// A client is not who it says.
pub(crate) const LOGIN: OwnReason = OwnReason::new("login", "its login was refused");

/// How long it is waited for a queue that is being made while its connection ends, and how often it is looked.
const LOOKS: u32 = 100;
const LOOK: Duration = Duration::from_millis(20);

/// Lines about clients whose channels fail over and over, within so long.
const COMPLAINTS: u32 = 10;
const COMPLAINTS_EVERY: Duration = Duration::from_secs(10);

/// The caller of the broker, for what no client asks for.
static CALLER: Caller = Caller::front_end(NAME);

pub(crate) struct AmqpFrontend {
    pub(crate) broker: Broker,
    pub(crate) tasks: Tasks,
    pub(crate) workers: Workers,
    pub(crate) options: ConnectionOptions,
    pub(crate) properties: FieldTableBuf,
    pub(crate) exclusive: ExclusiveQueues,
    pub(crate) replies: Arc<Replies>,
    /// Whether queues of the run before that were not to outlive it are gone.
    ready: OnceCell<()>,
    number: OnceLock<FrontendNo>,
    counters: Arc<ConnectionCounters>,
    /// Channels that were closed with an error.
    failed_channels: AtomicU64,
    /// For lines about clients that have many of those.
    complaints: Mutex<LogBudget>,
}

impl AmqpFrontend {
    pub(crate) fn start(config: &AmqpConfig, place: FrontendContext) -> Arc<Self> {
        let amqp = Arc::new(Self {
            properties: server_properties(&place.broker.cluster_id().to_string()),
            options: config.options(),
            broker: place.broker,
            tasks: place.tasks,
            workers: place.workers,
            exclusive: ExclusiveQueues::default(),
            replies: Arc::default(),
            ready: OnceCell::new(),
            number: OnceLock::new(),
            counters: Arc::new(ConnectionCounters::new(NAME, &[EXCEPTION, LOGIN])),
            failed_channels: AtomicU64::default(),
            complaints: Mutex::new(LogBudget::new(COMPLAINTS, COMPLAINTS_EVERY)),
        });
        let starting = amqp.clone();
        amqp.tasks.spawn("amqp start", move || async move {
            if let Err(error) = starting.ready().await {
                tracing::warn!(%error, "queues of the run before are there still");
            }
        });
        amqp
    }

    /// Counts a channel that is closed with an error.
    pub(crate) fn channel_failed(&self) {
        self.failed_channels.fetch_add(1, Relaxed);
    }

    /// Whether a line about a client may be written, and how many were not since the last one.
    pub(crate) fn may_complain(&self, now: Instant) -> Option<u64> {
        self.complaints.lock().allows(now)
    }

    /// Waits until the front end has its number, and what was not to outlive the run before is gone.
    pub(crate) async fn ready(&self) -> Result<FrontendNo, TopicError> {
        let number = self.broker.number_of(&CALLER).await?;
        let number = *self.number.get_or_init(|| number);
        self.ready.get_or_try_init(|| self.prepare(number)).await?;
        Ok(number)
    }

    /// The number of the front end, which every connection that is open has waited for.
    pub(crate) fn number(&self) -> FrontendNo {
        *self.number.get().expect("no connection is open before the front end has its number")
    }

    async fn prepare(&self, number: FrontendNo) -> Result<(), TopicError> {
        self.remove_leftovers(number).await?;
        match self.broker.exchanges().prepare(&CALLER).await {
            Ok(()) => Ok(()),
            Err(ExchangeError::Shard(failure)) => Err(failure.into()),
            // Declaring one says so, too.
            Err(error) => {
                tracing::warn!(%error, "there are no exchanges but the default one");
                Ok(())
            }
        }
    }

    async fn remove_leftovers(&self, number: FrontendNo) -> Result<(), TopicError> {
        let is_left = |topic: &Topic| {
            let goes = topic.config.queue().is_some_and(|queue| queue.exclusive || !queue.durable);
            topic.made_by == number && goes
        };
        let view = self.broker.catalog();
        let left: Vec<TopicId> = view.topics().filter(|topic| is_left(topic)).map(|topic| topic.id).collect();
        for removed in self.broker.delete_topics(&CALLER, left).await {
            match removed {
                Ok(()) | Err(TopicError::Unknown) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes queues.
    pub(crate) async fn remove(
        &self,
        caller: &Caller,
        queues: Vec<(Box<str>, TopicId)>,
    ) -> Vec<Result<(), TopicError>> {
        let removed = self.broker.delete_topics(caller, queues.iter().map(|(_, id)| *id).collect()).await;
        for ((name, _), removed) in queues.iter().zip(&removed) {
            if matches!(removed, Ok(()) | Err(TopicError::Unknown)) {
                self.exclusive.remove(name);
            }
        }
        removed
    }

    /// Deletes the queues that a connection has for itself. One that is being made is waited for.
    pub(crate) async fn remove_exclusive(&self, caller: &Caller, connection: ConnectionId) {
        for _ in 0..LOOKS {
            let names = self.exclusive.of(connection);
            let view = self.broker.catalog();
            let topic = |name: &str| Some((name.into(), view.topic_of(caller, name)?.id));
            let there: Vec<_> = names.iter().filter_map(|name| topic(name)).collect();
            let all = there.len() == names.len();
            if !there.is_empty() {
                self.remove(caller, there).await;
            }
            if all {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.exclusive.of(connection).iter().for_each(|name| self.exclusive.remove(name));
    }
}

impl Frontend for AmqpFrontend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn claims(&self, first: &[u8]) -> Claim {
        claim(first)
    }

    fn serve(self: Arc<Self>, connection: Connection) -> LocalBoxFuture {
        let (session, counters) = (AmqpSession::new(self.clone(), &connection), self.counters.clone());
        Box::pin(sabir_net::drive(connection, session, counters))
    }

    fn metrics(&self, out: &mut Exposition) {
        self.counters.expose(out);
        let help = "Channels that were closed with an error.";
        out.counter("sabir_amqp_failed_channels", help, &[], self.failed_channels.load(Relaxed));
    }
}

/// Whose a connection is that begins with these bytes.
fn claim(first: &[u8]) -> Claim {
    match protocol_header(first) {
        HeaderFound::Unsure => Claim::Unsure,
        HeaderFound::Amqp091 => Claim::Mine,
        HeaderFound::Amqp10 { .. } | HeaderFound::OtherVersion => Claim::OtherVersion,
        HeaderFound::Foreign => Claim::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_of_amqp_is_answered_here() {
        for (first, claimed) in [
            (b"AMQP\x00\x00\x09\x01".as_slice(), Claim::Mine),
            (b"AMQP\x00\x01\x00\x00", Claim::OtherVersion),
            (b"AMQP\x03\x01\x00\x00", Claim::OtherVersion),
            (b"AMQP\x01\x01\x00\x0a", Claim::OtherVersion),
            (b"AMQ", Claim::Unsure),
            (b"GET / HT", Claim::Foreign),
        ] {
            assert_eq!(claim(first), claimed, "{first:?}");
        }
    }
}
