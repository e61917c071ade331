//! Delayed messages, as the API has them.

use sabir_broker::exchange::NoAttributes;
use sabir_broker::{
    AppendAcks, AppendTarget, Broker, BrokerOptions, Caller, Converter, DelayedAddress, NewTopic, Publish,
    PublishTargets,
};
use sabir_model::batch::{BatchBuilder, Compression, RecordView};
use sabir_model::{Facts, Message, QueueConfig, RecordFacts, TopicConfig};
use serde_json::{Value, json};

use super::{ask, kind, new_topic};
use crate::Options;
use crate::testing::{Served, broker_options, open};

const DELAYER: &str = "delayer";
/// Far from now, in milliseconds.
const LATER: i64 = 10_000_000;

/// A record's key names its exchange.
fn address(record: &RecordView<'_>, each: &mut dyn FnMut(&DelayedAddress<'_>)) {
    each(&DelayedAddress {
        exchange: std::str::from_utf8(record.key.unwrap_or_default()).unwrap(),
        exchange_id: None,
        repetition: None,
        key: b"",
        further_keys: &[],
        attributes: &NoAttributes,
        hash: 0,
        facts: Facts { size: 1, ..Facts::default() },
    });
}

async fn keep_back(broker: &Broker, exchanges: &[&str]) -> i64 {
    let caller = Caller::front_end(DELAYER);
    let mut config = TopicConfig::of_queue(QueueConfig { delays: true, ..QueueConfig::default() });
    config.timestamp_after_max_ms = i64::MAX;
    let new = NewTopic { name: "delayed".into(), internal: true, ..new_topic(config) };
    let delayed = broker.create_topics(&caller, vec![new]).await.remove(0).unwrap();
    let origin = broker.number_of(&caller).await.unwrap();
    let target = AppendTarget::new(&caller, &delayed, 0, AppendAcks::InSync, origin).unwrap();
    let targets = PublishTargets::new(vec![target]).unwrap();
    let (mut batch, mut facts) = (BatchBuilder::new(Compression::None), RecordFacts::new());
    let now = broker.now_ms();
    for (exchange, due_ms) in exchanges.iter().zip(now + LATER..) {
        batch.push(due_ms, Some(exchange.as_bytes()), Some(b"m"), &[]);
        facts.push(Facts { deliver_at_ms: Some(due_ms), ..Facts::default() }).unwrap();
    }
    let batch = batch.build_checked(&targets.rules(), broker.wall_ms()).unwrap();
    let mut publish = Publish::new(targets, [batch]);
    publish.batches[0].facts = Some(facts);
    let outcomes = broker.publish(&caller, &publish).unwrap();
    broker.flush();
    outcomes.confirmed().await.unwrap();
    now + LATER
}

#[tokio::test]
async fn delayed_messages_are_counted_and_dropped_by_exchange() {
    let data = tempfile::tempdir().unwrap();
    let converter = Converter {
        front_end: DELAYER,
        reads_unnamed: false,
        to_message: |_| Message::default(),
        address: Some(address),
        delay_queue: None,
        dead_letter: None,
        redrive: None,
    };
    let options = BrokerOptions {
        front_ends: vec![DELAYER],
        converters: vec![converter],
        ..broker_options(data.path())
    };
    let served = Served::over(open(options), Options::default());
    let broker = served.broker.as_ref().unwrap();
    let (_, none) = ask(&served, "GET", "/delayed", Value::Null).await;
    assert_eq!(none, json!({"exchanges": [], "next": null}));
    let first = keep_back(broker, &["one", "two", "one", "three"]).await;
    let (code, all) = ask(&served, "GET", "/delayed", Value::Null).await;
    let of = |exchange: &str, messages: u64, from: i64, to: i64| json!({"exchange": exchange, "messages": messages, "earliest_ms": first + from, "latest_ms": first + to});
    let every = json!([of("one", 2, 0, 2), of("three", 1, 3, 3), of("two", 1, 1, 1)]);
    assert_eq!((code, &all["exchanges"], &all["next"]), (200, &every, &Value::Null));
    let (_, two) = ask(&served, "GET", "/delayed?exchange=two", Value::Null).await;
    assert_eq!(two["exchanges"], json!([of("two", 1, 1, 1)]));
    let (_, other) = ask(&served, "GET", "/delayed?namespace=other", Value::Null).await;
    assert_eq!(other["exchanges"], json!([]));
    assert_eq!(broker.stats().shards.iter().map(|shard| shard.kept_back).sum::<u64>(), 4);
    let (code, dropped) = ask(&served, "DELETE", "/delayed?exchange=one", Value::Null).await;
    assert_eq!((code, dropped), (200, json!({"dropped": 2, "next": null})));
    let (_, left) = ask(&served, "GET", "/delayed", Value::Null).await;
    assert_eq!(left["exchanges"], json!([of("three", 1, 3, 3), of("two", 1, 1, 1)]));
    let (_, dropped) = ask(&served, "DELETE", "/delayed", Value::Null).await;
    assert_eq!(dropped["dropped"], 2);
    assert_eq!(broker.stats().shards.iter().map(|shard| shard.kept_back).sum::<u64>(), 0);
    for path in ["/delayed?after=there", "/delayed?queue=q"] {
        let (code, problem) = ask(&served, "GET", path, Value::Null).await;
        assert_eq!((code, kind(&problem)), (400, "bad-request"), "{path}: {problem}");
    }
}
