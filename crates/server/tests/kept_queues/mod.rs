//! What a fixture has of queues, exchanges and bindings.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sabir_broker::exchange::{
    ExchangeKind, ExchangeSpec, NamedBinding, NamedDestination, Publication, RouteScratch,
};
use sabir_broker::queue::QueueTarget;
use sabir_broker::queue::reader::{PackedBatch, Unpack, Unpacking};
use sabir_broker::{Broker, BrokerOptions, Caller};
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{HeaderValue, Message};
use sabir_server::config::{ServerConfig, Sources};
use sabir_server::protocols;

/// How long something may take that the broker does by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the manifest says of them.
#[derive(serde::Deserialize)]
pub struct QueuesThere {
    queues: BTreeMap<String, QueueThere>,
    /// Exchange, routing key, and where a message goes.
    routes: Vec<(String, String, Vec<String>)>,
    /// What comes to a queue when its time has come.
    delayed: BTreeMap<String, Vec<String>>,
    /// Exchanges that are not there.
    absent: Vec<String>,
}

#[derive(serde::Deserialize)]
struct QueueThere {
    /// In the order in which they are got.
    messages: Vec<MessageThere>,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
struct MessageThere {
    body: String,
    redelivered: bool,
    /// Where that is certain: what a connection had when it ended counts, too.
    returned: Option<u32>,
    dead_from: Option<String>,
}

/// What the server opens it with.
pub fn options(data: &Path) -> BrokerOptions {
    let sources = Sources { data: Some(data.into()), ..Sources::default() };
    ServerConfig::load(&sources, protocols()).unwrap().broker_options()
}

/// Unpacks at once.
struct Unpacker;

impl Unpack for Unpacker {
    fn unpack(&self, batch: PackedBatch) -> Unpacking {
        Box::pin(async move { batch.unpack() })
    }
}

fn target(broker: &Broker, queue: &str) -> QueueTarget {
    QueueTarget::new(&Caller::OPERATOR, &super::topic(broker, queue)).unwrap()
}

/// Waits until so many messages of a queue are ready.
async fn waits_in(broker: &Broker, queue: &str, count: usize) {
    let began = Instant::now();
    loop {
        let stats = broker.queues().stats(target(broker, queue)).unwrap();
        if (stats.ready, stats.in_flight) == (count as u64, 0) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{queue}: {stats:?}, not {count}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All that is in a queue, as it is got; it is there again then.
async fn messages(broker: &Broker, queue: &str) -> Vec<(MessageThere, Message)> {
    let (queues, target) = (broker.queues(), target(broker, queue));
    let owner = queues.owner();
    let mut found = Vec::new();
    loop {
        let next = broker.next_message(&Caller::OPERATOR, target, owner, &Unpacker).await.unwrap();
        assert!(next.unreadable.is_empty(), "{queue}");
        let Some(read) = next.read else { break };
        let message = read.stored().to_message(broker);
        let body = String::from_utf8(message.body.clone().unwrap().to_vec()).unwrap();
        let there = MessageThere {
            body,
            redelivered: read.got.redelivered,
            returned: Some(read.got.returned),
            dead_from: dead_from(&message),
        };
        found.push((there, message));
    }
    queues.release(target, owner, false);
    broker.flush();
    waits_in(broker, queue, found.len()).await;
    found
}

/// Of which queue it is a dead letter.
fn dead_from(message: &Message) -> Option<String> {
    let (_, value) = message.headers.iter().find(|(name, _)| &**name == "x-first-death-queue")?;
    match value {
        HeaderValue::Text(queue) => Some(queue.to_string()),
        other => panic!("{other:?} is no queue's name"),
    }
}

impl QueuesThere {
    pub async fn check(&self, broker: &Broker) {
        self.check_settings(broker);
        self.check_routes(broker);
        for (name, there) in &self.queues {
            waits_in(broker, name, there.messages.len()).await;
            check_messages(broker, name, &there.messages).await;
        }
    }

    fn check_settings(&self, broker: &Broker) {
        let catalog = broker.catalog();
        let queues = catalog.topics().filter(|topic| topic.config.queue().is_some() && !topic.internal);
        let mut names: Vec<&str> = queues.map(|topic| &*topic.name).collect();
        names.sort_unstable();
        assert_eq!(names, self.queues.keys().collect::<Vec<_>>());
        let of = |name: &str| super::topic(broker, name).config.queue().unwrap().clone();
        assert_eq!((of("ranked").max_priority, of("single").single_active), (Some(5), true));
        assert_eq!((of("quorum").delivery_limit, of("timed").message_ttl_ms), (Some(5), Some(3_600_000)));
        let limited = of("limited");
        let dead_letter = limited.dead_letter.as_ref().unwrap();
        assert_eq!(
            (limited.max_length, &*dead_letter.exchange, &dead_letter.routing_key),
            (Some(2), "dead", &None)
        );
        assert_eq!(of("timed").dead_letter.as_ref().unwrap().routing_key.as_deref(), Some("late"));
        let exchange = |name: &str| broker.exchanges().get(&Caller::OPERATOR, name).unwrap();
        assert!(self.absent.iter().all(|name| exchange(name).is_none()));
        assert!(exchange("later").unwrap().delayed && exchange("inner").unwrap().internal);
        assert_eq!(exchange("events").unwrap().alternate.as_deref(), Some("rest"));
        assert!(matches!(exchange("spread").unwrap().kind, ExchangeKind::ConsistentHash(_)));
    }

    fn check_routes(&self, broker: &Broker) {
        for (exchange, key, queues) in &self.routes {
            let (publication, mut scratch) = (Publication::keyed(key.as_bytes()), RouteScratch::default());
            let routed =
                broker.exchanges().route(&Caller::OPERATOR, exchange, &publication, &mut scratch).unwrap();
            let mut names: Vec<&str> = routed.topics().iter().map(|topic| &*topic.name).collect();
            names.sort_unstable();
            assert_eq!(names, *queues, "{exchange:?} {key:?}");
        }
    }

    /// Takes the first message of a queue, adds one, and has another exchange.
    pub async fn write(&mut self, broker: &Broker) {
        let (queues, caller, jobs) = (broker.queues(), Caller::OPERATOR, target(broker, "jobs"));
        let owner = queues.owner();
        let got = queues.get(&caller, jobs, owner, false);
        broker.flush();
        let offset = got.await.unwrap().unwrap().offset;
        queues.settle(jobs, owner, std::iter::once(offset..offset + 1));
        let there = &mut self.queues.get_mut("jobs").unwrap().messages;
        there.remove(0);
        let mut batch = BatchBuilder::new(Compression::None);
        batch.push(broker.wall_ms(), None, Some(b"added"), &[]);
        super::append(broker, &super::topic(broker, "jobs"), 0, batch).await.unwrap();
        there.push(MessageThere { body: "added".into(), ..MessageThere::default() });
        broker.exchanges().declare(&caller, "added", ExchangeSpec::of(ExchangeKind::Fanout)).await.unwrap();
        let binding = NamedBinding::keyed("added", NamedDestination::Queue("jobs".into()), b"");
        broker.exchanges().bind(&caller, binding).await.unwrap();
        self.routes.push(("added".into(), "x".into(), vec!["jobs".into()]));
    }

    /// Two hours later: what was delayed by an hour has come, and what was to expire has.
    pub async fn check_later(&self, broker: &Broker) {
        for (queue, bodies) in &self.delayed {
            waits_in(broker, queue, bodies.len()).await;
            let found = messages(broker, queue).await;
            assert_eq!(
                found.iter().map(|(there, _)| &there.body).collect::<Vec<_>>(),
                bodies.iter().collect::<Vec<_>>()
            );
        }
        let expired = &self.queues["timed"].messages;
        waits_in(broker, "timed", 0).await;
        let dead = &self.queues["dead-letters"].messages;
        waits_in(broker, "dead-letters", dead.len() + expired.len()).await;
        let dead_from = Some("timed".to_owned());
        let expired =
            expired.iter().map(|there| MessageThere { dead_from: dead_from.clone(), ..there.clone() });
        let all: Vec<_> = dead.iter().cloned().chain(expired).collect();
        check_messages(broker, "dead-letters", &all).await;
    }
}

async fn check_messages(broker: &Broker, queue: &str, there: &[MessageThere]) {
    let found = messages(broker, queue).await;
    assert_eq!(found.len(), there.len(), "{queue}");
    for ((found, message), there) in found.iter().zip(there) {
        assert_eq!(found.body, there.body, "{queue}");
        assert!(there.returned.is_none_or(|returned| found.returned == Some(returned)), "{queue}: {found:?}");
        assert_eq!(found.dead_from, there.dead_from, "{queue}: {message:?}");
        // What was not got is marked after a kill, too, if it may have been.
        assert!(found.redelivered || !there.redelivered, "{queue}: {found:?}");
    }
}
