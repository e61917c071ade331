//! What operators ask: configurations, the cluster, records deleted.

use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::alter_configs as replace;
use sabir_kafka::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use sabir_kafka::wire::messages::describe_cluster::DescribeClusterRequest;
use sabir_kafka::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult,
};
use sabir_kafka::wire::messages::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use sabir_kafka::wire::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use sabir_kafka::wire::messages::incremental_alter_configs as alter;

use crate::rig::{Raw, Rig, assert_code, batch};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn describe(raw: &mut Raw, version: i16, resource_type: i8, name: &str) -> DescribeConfigsResult {
    let resource =
        DescribeConfigsResource { resource_type, resource_name: name.into(), configuration_keys: None };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    raw.call(version, &request).await.results.remove(0)
}

async fn value(raw: &mut Raw, topic: &str, key: &str) -> String {
    let described = describe(raw, 4, TOPIC, topic).await;
    let config = described.configs.iter().find(|c| c.name == key).unwrap();
    config.value.as_deref().unwrap().to_owned()
}

#[tokio::test]
async fn a_topics_configuration_is_shown_whole() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic_with("t", 1, &[("retention.ms", "1000")]).await;
    for version in 1..=4 {
        let described = describe(&mut raw, version, TOPIC, "t").await;
        assert_eq!(described.error_code, 0);
        let find = |key: &str| described.configs.iter().find(|c| c.name == key).unwrap();
        let retention = find("retention.ms");
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("1000"), 1));
        let synonym = |config: &DescribeConfigsResourceResult, at: usize| {
            let synonym = &config.synonyms[at];
            let value = synonym.value.as_deref().unwrap_or_default();
            format!("{}:{}={value}", synonym.source, synonym.name)
        };
        assert_eq!((retention.synonyms.len(), retention.read_only), (1, false));
        assert_eq!(synonym(retention, 0), "1:retention.ms=1000");
        let segment = find("segment.bytes");
        assert_eq!((segment.config_source, segment.read_only, segment.is_sensitive), (5, false, false));
        assert_eq!(synonym(segment, 0), "5:log.segment.bytes=1073741824");
        let tiered = find("remote.storage.enable");
        assert_eq!((tiered.config_source, tiered.read_only, tiered.synonyms.len()), (5, true, 0));
        if version >= 3 {
            assert_eq!(retention.config_type, 5);
            assert!(retention.documentation.is_some());
        }
    }
    let keys = Some(vec!["retention.ms".into(), "nonsense".into()]);
    let resource =
        DescribeConfigsResource { resource_type: TOPIC, resource_name: "t".into(), configuration_keys: keys };
    let some = raw.ask(&DescribeConfigsRequest { resources: vec![resource], ..Default::default() }).await;
    assert_eq!(some.results[0].configs.len(), 1);
    let none_named = DescribeConfigsResource {
        resource_type: TOPIC,
        resource_name: "t".into(),
        configuration_keys: Some(Vec::new()),
    };
    let all = raw.ask(&DescribeConfigsRequest { resources: vec![none_named], ..Default::default() }).await;
    assert!(all.results[0].configs.len() > 30, "as with Kafka, naming none asks for all");
    assert_code(describe(&mut raw, 4, TOPIC, "nowhere").await.error_code, ErrorCode::UnknownTopicOrPartition);
    assert_code(describe(&mut raw, 4, 77, "t").await.error_code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_brokers_configuration_is_shown_and_not_changed_from_here() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let described = describe(&mut raw, 4, BROKER, "1").await;
    let partitions = described.configs.iter().find(|c| c.name == "num.partitions").unwrap();
    assert_eq!((partitions.value.as_deref(), partitions.read_only), (Some("1"), true));
    assert_eq!((partitions.config_source, partitions.config_type), (5, 3));
    assert!(described.configs.iter().all(|c| c.read_only && c.documentation.is_some() && !c.is_sensitive));
    let id = described.configs.iter().find(|c| c.name == "node.id").unwrap();
    assert_eq!((id.value.as_deref(), id.config_source, id.synonyms.len()), (Some("1"), 4, 1));
    let retention = described.configs.iter().find(|c| c.name == "log.retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("604800000"), 5));
    let durability = described.configs.iter().find(|c| c.name == "data.durability").unwrap();
    assert_eq!((durability.value.as_deref(), durability.config_source), (Some("sync"), 5));
    assert_code(describe(&mut raw, 4, BROKER, "9").await.error_code, ErrorCode::InvalidRequest);
    let all = describe(&mut raw, 4, BROKER, "").await;
    assert_eq!((all.error_code, all.configs.len()), (0, 0));
    let set = vec![("num.partitions", 0, Some("3"))];
    assert_code(change(&mut raw, BROKER, "1", &set, false).await, ErrorCode::InvalidRequest);
    // What Kafka's tools take away after a move was never there.
    let unset = vec![("leader.replication.throttled.rate", 1, None)];
    assert_eq!(change(&mut raw, BROKER, "1", &unset, false).await, 0);
    assert_eq!(change(&mut raw, BROKER, "", &unset, false).await, 0);
    assert_code(change(&mut raw, BROKER, "9", &unset, false).await, ErrorCode::InvalidRequest);
}

type Change<'a> = (&'a str, i8, Option<&'a str>);

async fn change(raw: &mut Raw, resource_type: i8, name: &str, changes: &[Change<'_>], validate: bool) -> i16 {
    let config = |(name, config_operation, value): &Change<'_>| alter::AlterableConfig {
        name: (*name).into(),
        config_operation: *config_operation,
        value: value.map(Into::into),
    };
    let resource = alter::AlterConfigsResource {
        resource_type,
        resource_name: name.into(),
        configs: changes.iter().map(config).collect(),
    };
    let request =
        alter::IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: validate };
    raw.ask(&request).await.responses[0].error_code
}

#[tokio::test]
async fn configurations_change_key_by_key() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic_with("t", 1, &[("retention.bytes", "5")]).await;
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let set = vec![("retention.ms", SET, Some("7"))];
    assert_eq!(change(&mut raw, TOPIC, "t", &set, true).await, 0);
    assert_eq!(value(&mut raw, "t", "retention.ms").await, "604800000");
    assert_eq!(change(&mut raw, TOPIC, "t", &set, false).await, 0);
    assert_eq!(value(&mut raw, "t", "retention.ms").await, "7");
    assert_eq!(value(&mut raw, "t", "retention.bytes").await, "5");
    assert_eq!(change(&mut raw, TOPIC, "t", &[("retention.ms", DELETE, None)], false).await, 0);
    assert_eq!(value(&mut raw, "t", "retention.ms").await, "604800000");
    for (changes, expected) in [
        (vec![("retention.ms", SET, Some("x"))], ErrorCode::InvalidConfig),
        (vec![("retention.ms", SET, None)], ErrorCode::InvalidRequest),
        (vec![("nonsense", SET, Some("x"))], ErrorCode::InvalidConfig),
        // As with Kafka there is nothing to take back.
        (vec![("nonsense", DELETE, None)], ErrorCode::None),
        (vec![("retention.ms", APPEND, Some("1"))], ErrorCode::InvalidConfig),
        (vec![("cleanup.policy", APPEND, Some("delete"))], ErrorCode::None),
        (vec![("cleanup.policy", APPEND, Some("compact"))], ErrorCode::InvalidConfig),
        (vec![("cleanup.policy", SUBTRACT, Some("delete"))], ErrorCode::InvalidConfig),
        (vec![("retention.ms", 9, Some("1"))], ErrorCode::InvalidRequest),
        (vec![("retention.ms", SET, Some("1")), ("retention.ms", DELETE, None)], ErrorCode::InvalidRequest),
    ] {
        assert_code(change(&mut raw, TOPIC, "t", &changes, false).await, expected);
    }
    assert_code(change(&mut raw, TOPIC, "nowhere", &set, false).await, ErrorCode::UnknownTopicOrPartition);
    // What is set holds at once.
    assert_eq!(change(&mut raw, TOPIC, "t", &[("max.message.bytes", SET, Some("10"))], false).await, 0);
    assert_code(raw.produce("t", 0, batch(&["x"])).await.error_code, ErrorCode::MessageTooLarge);
}

#[tokio::test]
async fn a_configuration_is_replaced_whole() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic_with("t", 1, &[("retention.bytes", "5")]).await;
    for version in 0..=2 {
        let config = replace::AlterableConfig { name: "retention.ms".into(), value: Some("9".into()) };
        let resource = replace::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: vec![config],
        };
        let mut request = replace::AlterConfigsRequest { resources: vec![resource], validate_only: false };
        assert_eq!(raw.call(version, &request).await.responses[0].error_code, 0);
        assert_eq!(value(&mut raw, "t", "retention.ms").await, "9");
        assert_eq!(value(&mut raw, "t", "retention.bytes").await, "-1");
        request.resources.push(request.resources[0].clone());
        assert_code(raw.call(version, &request).await.responses[0].error_code, ErrorCode::InvalidRequest);
    }
}

#[tokio::test]
async fn records_are_deleted_up_to_an_offset() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    for value in ["a", "b", "c", "d"] {
        raw.put("t", 0, &[value]).await;
    }
    let delete = |topic: &str, offset| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: topic.into(),
            partitions: vec![DeleteRecordsPartition { partition_index: 0, offset }],
        }],
        timeout_ms: 1000,
    };
    for (version, offset, low, error) in [
        (0, 1, 1, ErrorCode::None),
        (1, 2, 2, ErrorCode::None),
        (2, 1, 2, ErrorCode::None),
        (2, 5, -1, ErrorCode::OffsetOutOfRange),
        (2, -2, -1, ErrorCode::OffsetOutOfRange),
        (2, -1, 4, ErrorCode::None),
    ] {
        let response = raw.call(version, &delete("t", offset)).await;
        let result = &response.topics[0].partitions[0];
        assert_code(result.error_code, error);
        assert_eq!(result.low_watermark, low, "{offset}");
    }
    let unknown = raw.ask(&delete("nowhere", 0)).await;
    assert_code(unknown.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(raw.put("t", 0, &["e"]).await, 4);
}

#[tokio::test]
async fn the_cluster_describes_itself() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for version in 0..=2 {
        let request =
            DescribeClusterRequest { include_cluster_authorized_operations: true, ..Default::default() };
        let response = raw.call(version, &request).await;
        assert_eq!((response.error_code, response.controller_id, response.brokers.len()), (0, 1, 1));
        assert_eq!(response.cluster_id.len(), 22);
        assert_ne!(response.cluster_authorized_operations, i32::MIN);
    }
    let controllers = DescribeClusterRequest { endpoint_type: 2, ..Default::default() };
    assert_code(raw.ask(&controllers).await.error_code, ErrorCode::MismatchedEndpointType);
    for endpoint_type in [0, 3, 9, -1] {
        let others = DescribeClusterRequest { endpoint_type, ..Default::default() };
        assert_code(raw.ask(&others).await.error_code, ErrorCode::UnsupportedEndpointType);
    }
}

#[tokio::test]
async fn partitions_have_their_sizes() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    raw.topic("u", 1).await;
    let stored = batch(&["some bytes"]);
    assert_eq!(raw.produce("t", 1, stored.clone()).await.error_code, 0);
    for version in 1..=5 {
        let all = raw.call(version, &DescribeLogDirsRequest { topics: None }).await;
        let dir = &all.results[0];
        assert_eq!((dir.error_code, dir.topics.len()), (0, 3), "an internal one is among them");
        let wanted = DescribableLogDirTopic { topic: "t".into(), partitions: vec![1, 7] };
        let one = raw.call(version, &DescribeLogDirsRequest { topics: Some(vec![wanted]) }).await;
        let partitions = &one.results[0].topics[0].partitions;
        assert_eq!(partitions.len(), 1);
        assert_eq!((partitions[0].partition_index, partitions[0].partition_size), (1, stored.len() as i64));
        if version >= 4 {
            assert!(dir.usable_bytes > 0 && dir.total_bytes > dir.usable_bytes);
        }
    }
}

#[tokio::test]
async fn partitions_are_described_page_by_page() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for (name, partitions) in [("a", 3), ("b", 2), ("c", 4)] {
        raw.topic(name, partitions).await;
    }
    let mut cursor: Option<Cursor> = None;
    let mut seen = Vec::new();
    for pages in 1.. {
        let request = DescribeTopicPartitionsRequest {
            response_partition_limit: 2,
            cursor: cursor.take(),
            ..Default::default()
        };
        let response = raw.ask(&request).await;
        for topic in &response.topics {
            let name = topic.name.as_ref().unwrap();
            seen.extend(topic.partitions.iter().map(|p| format!("{name}{}", p.partition_index)));
        }
        cursor = response.next_cursor;
        if cursor.is_none() {
            assert_eq!(pages, 5);
            break;
        }
    }
    assert_eq!(seen.remove(0), "__consumer_offsets0");
    assert_eq!(seen, ["a0", "a1", "a2", "b0", "b1", "c0", "c1", "c2", "c3"]);
    let topics = ["nowhere", "b", "a b"].map(|name| TopicRequest { name: name.into() });
    let named =
        raw.ask(&DescribeTopicPartitionsRequest { topics: topics.to_vec(), ..Default::default() }).await;
    let codes: Vec<_> = named.topics.iter().map(|t| ErrorCode::from_i16(t.error_code).unwrap()).collect();
    assert_eq!(codes, [ErrorCode::InvalidTopic, ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
}

/// What every setting of Kafka 4.3 comes to: honoured, kept and shown, or refused; never taken and forgotten.
#[tokio::test]
async fn every_setting_is_taken_and_shown_or_refused_by_name() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let taken = [
        ("compression.type", "lz4"),
        ("delete.retention.ms", "900"),
        ("flush.messages", "1"),
        ("min.cleanable.dirty.ratio", "0.25"),
        ("segment.bytes", "2000000"),
        ("segment.ms", "1000"),
        ("unclean.leader.election.enable", "TRUE"),
        ("retention.ms", "604800000"),
    ];
    raw.topic_with("t", 1, &taken).await;
    let described = describe(&mut raw, 4, TOPIC, "t").await;
    for (name, value) in taken {
        let config = described.configs.iter().find(|c| c.name == name).unwrap();
        assert_eq!(config.value.as_deref(), Some(value.to_ascii_lowercase().as_str()), "{name}");
        assert_eq!(config.config_source, 1, "{name} is the topic's own, even where it says the default");
    }
    let set = |changes: &[(&'static str, &'static str)]| -> Vec<Change<'static>> {
        changes.iter().map(|(name, value)| (*name, 0, Some(*value))).collect()
    };
    for refused in [
        &[("cleanup.policy", "compact")][..],
        &[("remote.storage.enable", "true")],
        &[("sabir.durability", "os")],
        &[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "4")],
    ] {
        for validate_only in [true, false] {
            let code = change(&mut raw, TOPIC, "t", &set(refused), validate_only).await;
            assert_code(code, ErrorCode::InvalidConfig);
        }
    }
    assert_eq!(change(&mut raw, TOPIC, "t", &[("flush.messages", 1, None)], false).await, 0);
    assert_eq!(change(&mut raw, TOPIC, "t", &set(&[("sabir.durability", "os")]), true).await, 0);
    assert_eq!(value(&mut raw, "t", "sabir.durability").await, "sync", "it was only validated");
    assert_eq!(change(&mut raw, TOPIC, "t", &set(&[("sabir.durability", "os")]), false).await, 0);
    assert_eq!(value(&mut raw, "t", "flush.messages").await, "9223372036854775807");
    assert_eq!(value(&mut raw, "t", "sabir.durability").await, "os");
}
