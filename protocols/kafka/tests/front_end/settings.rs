//! Topics' settings: changed from two sides at once, and as many bytes of them as may be.

use std::time::Duration;

use sabir_broker::Caller;
use sabir_kafka::wire::messages::create_topics::{CreatableTopicResult, CreateTopicsRequest};
use sabir_kafka::wire::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use sabir_kafka::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use sabir_kafka::wire::{ErrorCode, Str};
use sabir_model::{ShardId, TopicConfig, TopicError, TopicField};

use crate::rig::{PATIENCE, Raw, Rig, Setup, assert_code, creatable};

/// Sets a setting, or takes it back.
fn alter(name: &str, value: Option<&str>) -> IncrementalAlterConfigsRequest {
    let config = AlterableConfig {
        name: name.into(),
        config_operation: i8::from(value.is_none()),
        value: value.map(Str::from),
    };
    let resource =
        AlterConfigsResource { resource_type: 2, resource_name: "t".into(), configs: vec![config] };
    IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() }
}

async fn set(raw: &mut Raw, name: &str, value: &str) -> i16 {
    raw.ask(&alter(name, Some(value))).await.responses[0].error_code
}

async fn value(raw: &mut Raw, name: &str) -> String {
    let resource =
        DescribeConfigsResource { resource_type: 2, resource_name: "t".into(), ..Default::default() };
    let answer = raw.ask(&DescribeConfigsRequest { resources: vec![resource], ..Default::default() }).await;
    let found = answer.results[0].configs.iter().find(|config| config.name == *name).unwrap();
    found.value.as_ref().unwrap().to_string()
}

async fn create(raw: &mut Raw, name: &str, configs: &[(&str, &str)]) -> CreatableTopicResult {
    let topics = vec![creatable(name, 1, configs)];
    raw.ask(&CreateTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() }).await.topics.remove(0)
}

/// What takes a number and does nothing that the test would see.
const NUMBERS: [&str; 8] = [
    "delete.retention.ms",
    "file.delete.delay.ms",
    "index.interval.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "message.timestamp.before.max.ms",
    "min.compaction.lag.ms",
    "flush.messages",
];

#[tokio::test]
async fn changes_of_different_settings_from_both_sides_at_the_same_time_all_stand() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    create(&mut raw, "t", &[]).await;
    let id = rig.broker.catalog().topic("t").unwrap().id;
    for round in 1..=5_i64 {
        let mut clients = Vec::new();
        for name in NUMBERS {
            let mut raw = rig.raw().await;
            clients.push(async move { set(&mut raw, name, &round.to_string()).await });
        }
        let operator = |field: TopicField| {
            let broker = rig.broker.clone();
            async move {
                let change = |config: &mut TopicConfig| {
                    match field {
                        TopicField::RetentionBytes => config.retention_bytes = Some(round),
                        _ => config.timestamp_after_max_ms = round,
                    }
                    config.own(field);
                    Ok::<(), TopicError>(())
                };
                broker.change_topic(&Caller::OPERATOR, id, change).await.map(drop)
            }
        };
        let (altered, first, second) = tokio::join!(
            futures_util::future::join_all(clients),
            operator(TopicField::RetentionBytes),
            operator(TopicField::TimestampAfterMaxMs),
        );
        assert_eq!((altered, first, second), (vec![0; NUMBERS.len()], Ok(()), Ok(())));
        for name in NUMBERS.iter().chain(&["retention.bytes", "message.timestamp.after.max.ms"]) {
            assert_eq!(value(&mut raw, name).await, round.to_string(), "{name}");
        }
    }
}

/// The request has been given up, but its change is on its way: the next one is not made of what was before it.
#[tokio::test]
async fn a_change_that_nobody_waits_for_any_more_is_not_taken_back_by_the_next() {
    let rig = Rig::with(Setup { late: true, ..Setup::default() });
    let commits = rig.commits.clone().unwrap();
    let mut raw = rig.raw().await;
    create(&mut raw, "t", &[]).await;
    let id = rig.broker.catalog().topic("t").unwrap().id;
    commits.hold();
    let first = |config: &mut TopicConfig| {
        config.retention_bytes = Some(7);
        config.own(TopicField::RetentionBytes);
        Ok::<(), TopicError>(())
    };
    let changing = rig.broker.change_topic(&Caller::OPERATOR, id, first);
    assert!(tokio::time::timeout(Duration::from_millis(50), changing).await.is_err(), "it is given up");
    assert!(commits.is_holding(&rig.broker, ShardId::CATALOG), "and on its way");
    let mut other = rig.raw().await;
    let second = tokio::spawn(async move { set(&mut other, "segment.ms", "9").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    commits.release();
    assert_eq!(tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap(), 0);
    assert_eq!(value(&mut raw, "retention.bytes").await, "7");
    assert_eq!(value(&mut raw, "segment.ms").await, "9");
}

const LIST: &str = "leader.replication.throttled.replicas";

#[tokio::test]
async fn what_topics_keep_without_effect_is_bounded_in_bytes() {
    let rig = Rig::with(Setup { options: |options| options.settings_max = 200_000, ..Setup::default() });
    let mut raw = rig.raw().await;
    let longest = "0:1,".repeat(8191);
    let mut made = 0;
    for i in 0..30 {
        let code = create(&mut raw, &format!("t{i}"), &[(LIST, &longest)]).await.error_code;
        match code {
            0 => made += 1,
            code => assert_code(code, ErrorCode::PolicyViolation),
        }
    }
    assert_eq!(made, 6);
    assert_eq!(rig.broker.stats().refused_settings, 24);
    create(&mut raw, "t", &[]).await;
    assert_code(set(&mut raw, LIST, &longest).await, ErrorCode::PolicyViolation);
    let answer = raw.ask(&alter(LIST, Some(&longest))).await;
    let message = answer.responses[0].error_message.clone().unwrap();
    assert!(message.contains("topic.settings_memory"), "{message}");
    assert_code(set(&mut raw, LIST, "0:1").await, ErrorCode::None);
    assert_code(raw.ask(&alter(LIST, None)).await.responses[0].error_code, ErrorCode::None);
}
