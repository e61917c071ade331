//! Topics: made, made by asking, listed, grown, deleted.

use sabir_broker::{Caller, NewTopic};
use sabir_kafka::wire::ErrorCode;
use sabir_kafka::wire::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use sabir_kafka::wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicResult, CreateTopicsRequest,
};
use sabir_kafka::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use sabir_kafka::wire::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use sabir_model::TopicConfig;

use crate::rig::{Raw, Rig, Setup, assert_code, creatable};

async fn create(
    raw: &mut Raw,
    topics: Vec<CreatableTopic>,
    validate_only: bool,
) -> Vec<CreatableTopicResult> {
    raw.ask(&CreateTopicsRequest { topics, validate_only, ..Default::default() }).await.topics
}

async fn ask_for(raw: &mut Raw, version: i16, names: &[&str], create: bool) -> MetadataResponse {
    let topic = |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
    let request = MetadataRequest {
        topics: Some(names.iter().map(topic).collect()),
        allow_auto_topic_creation: create,
        ..Default::default()
    };
    raw.call(version, &request).await
}

#[tokio::test]
async fn every_version_makes_topics() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for version in 2..=7 {
        let name = format!("t{version}");
        let topic = creatable(&name, 3, &[("retention.ms", "1000")]);
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let result = &raw.call(version, &request).await.topics[0];
        assert_eq!((result.error_code, result.name.as_str()), (0, name.as_str()));
        if version >= 5 {
            assert_eq!((result.num_partitions, result.replication_factor), (3, 1));
            let configs = result.configs.as_ref().unwrap();
            let retention = configs.iter().find(|c| c.name == "retention.ms").unwrap();
            assert_eq!((retention.value.as_deref(), retention.config_source), (Some("1000"), 1));
        }
        if version >= 7 {
            assert_eq!(result.topic_id, raw.topic_id(&name).await);
        }
        assert_eq!(ask_for(&mut raw, 13, &[&name], false).await.topics[0].partitions.len(), 3);
    }
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_by_its_code() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("there", 1).await;
    let plain = |name: &str| creatable(name, 1, &[]);
    let assigned = |brokers: Vec<i32>| CreatableTopic {
        num_partitions: -1,
        assignments: vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: brokers }],
        ..plain("a")
    };
    for (topic, expected) in [
        (plain("there"), ErrorCode::TopicAlreadyExists),
        (plain(""), ErrorCode::InvalidTopic),
        (plain("."), ErrorCode::InvalidTopic),
        (plain("a/b"), ErrorCode::InvalidTopic),
        (plain(&"x".repeat(250)), ErrorCode::InvalidTopic),
        (creatable("a", 0, &[]), ErrorCode::InvalidPartitions),
        (creatable("a", -2, &[]), ErrorCode::InvalidPartitions),
        (creatable("a", i32::MAX, &[]), ErrorCode::InvalidPartitions),
        (CreatableTopic { replication_factor: 2, ..plain("a") }, ErrorCode::InvalidReplicationFactor),
        (CreatableTopic { replication_factor: 0, ..plain("a") }, ErrorCode::InvalidReplicationFactor),
        (assigned(vec![7]), ErrorCode::InvalidReplicaAssignment),
        (CreatableTopic { num_partitions: 1, ..assigned(vec![1]) }, ErrorCode::InvalidRequest),
        (creatable("a", 1, &[("nonsense", "1")]), ErrorCode::InvalidConfig),
        (creatable("a", 1, &[("retention.ms", "soon")]), ErrorCode::InvalidConfig),
        (creatable("a", 1, &[("cleanup.policy", "compact")]), ErrorCode::InvalidConfig),
    ] {
        let result = create(&mut raw, vec![topic], false).await.remove(0);
        assert_code(result.error_code, expected);
        assert!(result.error_message.is_some_and(|m| !m.is_empty()));
    }
    let compact = create(&mut raw, vec![creatable("a", 1, &[("cleanup.policy", "compact")])], false).await;
    assert!(compact[0].error_message.as_ref().unwrap().contains("compaction is not built"));
    let twice = create(&mut raw, vec![plain("b"), plain("c"), plain("b")], false).await;
    let codes: Vec<_> = twice.iter().map(|t| t.error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest.code(), 0], "once for each name");
    assert_eq!(twice[0].error_message.as_deref(), Some("Duplicate topic name."));
    let good = create(&mut raw, vec![assigned(vec![1])], false).await;
    assert_eq!((good[0].error_code, good[0].num_partitions), (0, 1));
}

/// Kafka's metrics have `.` and `_` as the same.
#[tokio::test]
async fn names_that_differ_in_dots_and_underscores_alone_collide() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("a.b_c", 1).await;
    raw.topic("abc", 1).await;
    let plain = |name: &str| creatable(name, 1, &[]);
    for name in ["a_b_c", "a.b.c", "a_b.c"] {
        for validate_only in [true, false] {
            let refused = create(&mut raw, vec![plain(name)], validate_only).await.remove(0);
            assert_code(refused.error_code, ErrorCode::InvalidTopic);
            let message = refused.error_message.unwrap();
            assert_eq!(message.as_str(), format!("Topic '{name}' collides with existing topic: a.b_c"));
        }
        let asked = ask_for(&mut raw, 13, &[name], true).await;
        assert_code(asked.topics[0].error_code, ErrorCode::InvalidTopic);
        let asked = ask_for(&mut raw, 13, &[name], false).await;
        assert_code(asked.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
    }
    let there = create(&mut raw, vec![plain("a.b_c")], false).await;
    assert_code(there[0].error_code, ErrorCode::TopicAlreadyExists);
    let internal = create(&mut raw, vec![plain("__consumer.offsets")], false).await;
    assert_code(internal[0].error_code, ErrorCode::InvalidTopic);

    // Of those in one request the first is made.
    for validate_only in [true, false] {
        let both = create(&mut raw, vec![plain("x.y"), plain("x_y"), plain("x-y")], validate_only).await;
        let codes: Vec<_> = both.iter().map(|t| t.error_code).collect();
        assert_eq!(codes, [0, ErrorCode::InvalidTopic.code(), 0]);
        assert!(both[1].error_message.as_ref().unwrap().ends_with("collides with existing topic: x.y"));
    }
    let both = ask_for(&mut raw, 13, &["z.1", "z_1"], true).await;
    let codes: Vec<_> = both.topics.iter().map(|t| t.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::InvalidTopic.code()]);

    let request =
        DeleteTopicsRequest { topic_names: vec!["a.b_c".into()], timeout_ms: 1000, ..Default::default() };
    assert_eq!(raw.call(5, &request).await.responses[0].error_code, 0);
    assert_eq!(create(&mut raw, vec![plain("a_b_c")], false).await[0].error_code, 0, "its name is free");
}

#[tokio::test]
async fn of_names_that_collide_and_come_at_once_one_is_made() {
    let rig = Rig::start();
    let names = ["t.1_2", "t_1.2", "t.1.2", "t_1_2"];
    let mut raws = Vec::new();
    for _ in names {
        raws.push(rig.raw().await);
    }
    let mut sent = Vec::new();
    for (raw, name) in raws.iter_mut().zip(names) {
        let topics = vec![creatable(name, 1, &[])];
        sent.push(raw.send(7, &CreateTopicsRequest { topics, ..Default::default() }).await);
    }
    let mut codes = Vec::new();
    for (raw, correlation) in raws.iter_mut().zip(sent) {
        codes.push(raw.receive::<CreateTopicsRequest>(7, correlation).await.topics[0].error_code);
    }
    codes.sort_unstable();
    let collides = ErrorCode::InvalidTopic.code();
    assert_eq!(codes, [0, collides, collides, collides]);
}

#[tokio::test]
async fn validating_makes_nothing() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let result = create(&mut raw, vec![creatable("t", -1, &[])], true).await.remove(0);
    assert_eq!((result.error_code, result.num_partitions, result.replication_factor), (0, 1, 1));
    assert!(result.configs.is_some_and(|configs| configs.iter().any(|c| c.name == "retention.ms")));
    assert_ne!(result.topic_id, [0; 16]);
    let again = create(&mut raw, vec![creatable("t", -1, &[])], true).await.remove(0);
    assert_ne!(again.topic_id, result.topic_id, "it is the id of no topic");
    assert_code(
        ask_for(&mut raw, 13, &["t"], false).await.topics[0].error_code,
        ErrorCode::UnknownTopicOrPartition,
    );
}

#[tokio::test]
async fn topics_are_made_by_asking_for_them() {
    let rig = Rig::with(Setup { kafka: r#"{"num_partitions": 4}"#, ..Setup::default() });
    let mut raw = rig.raw().await;
    for version in 0..=13 {
        let name = format!("t{version}");
        if version >= 4 {
            let unmade = ask_for(&mut raw, version, &[&name], false).await;
            assert_code(unmade.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
        }
        let made = ask_for(&mut raw, version, &[&name], true).await;
        assert_eq!((made.topics[0].error_code, made.topics[0].partitions.len()), (0, 4), "{version}");
    }
    let mixed = ask_for(&mut raw, 13, &["new", "a b", "t0"], true).await;
    let codes: Vec<_> = mixed.topics.iter().map(|t| t.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::InvalidTopic.code(), 0]);
    assert_eq!(raw.ask(&MetadataRequest::default()).await.topics.len(), 16, "the internal one is among them");
}

#[tokio::test]
async fn nothing_is_made_by_asking_where_that_is_off() {
    let rig = Rig::with(Setup { kafka: r#"{"auto_create": false}"#, ..Setup::default() });
    let mut raw = rig.raw().await;
    let unmade = ask_for(&mut raw, 13, &["t"], true).await;
    assert_code(unmade.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
}

#[tokio::test]
async fn metadata_shows_the_broker_its_leadership_and_rights() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    let mut request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some("t".into()), ..Default::default() }]),
        include_topic_authorized_operations: true,
        include_cluster_authorized_operations: true,
        ..Default::default()
    };
    let response = raw.call(10, &request).await;
    let broker = &response.brokers[0];
    assert_eq!(
        (broker.node_id, broker.host.as_str(), broker.port),
        (1, "127.0.0.1", rig.address.port().into())
    );
    assert_eq!(response.controller_id, 1);
    assert_eq!(response.cluster_id.as_ref().unwrap().len(), 22);
    for partition in &response.topics[0].partitions {
        assert_eq!(
            (partition.leader_id, &partition.replica_nodes, &partition.isr_nodes),
            (1, &vec![1], &vec![1])
        );
        assert!(partition.leader_epoch >= 0);
    }
    assert_eq!(response.topics[0].topic_authorized_operations, 0b1101_1111_1000);
    assert_ne!(response.cluster_authorized_operations, i32::MIN);
    request.include_topic_authorized_operations = false;
    request.include_cluster_authorized_operations = false;
    let response = raw.call(10, &request).await;
    assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
    assert_eq!(response.cluster_authorized_operations, i32::MIN);
}

/// Another protocol makes names that Kafka's clients do not.
#[tokio::test]
async fn a_topic_with_a_longer_name_is_not_shown_and_not_made_from_here() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for name in ["x".repeat(1024), "x".repeat(250), "é".repeat(127), "a b".into()] {
        let topic = NewTopic {
            name: name.clone(),
            partitions: 1,
            config: TopicConfig::default(),
            internal: false,
            unlike: false,
        };
        let made = rig.broker.create_topics(&Caller::OPERATOR, vec![topic]).await.remove(0).unwrap();
        let is_shown = name == "a b";
        let all = raw.call(12, &MetadataRequest { topics: None, ..Default::default() }).await;
        assert!(all.topics.iter().all(|topic| topic.name.as_ref().unwrap().len() <= 249), "{all:?}");
        assert_eq!(all.topics.iter().any(|topic| topic.topic_id == made.id.0), is_shown);
        let by_id = MetadataRequestTopic { topic_id: made.id.0, name: None };
        let by_id = MetadataRequest { topics: Some(vec![by_id]), ..Default::default() };
        let expected = if is_shown { ErrorCode::None } else { ErrorCode::UnknownTopicId };
        assert_code(raw.call(12, &by_id).await.topics[0].error_code, expected);
        assert_code(
            ask_for(&mut raw, 12, &[&name], true).await.topics[0].error_code,
            ErrorCode::InvalidTopic,
        );
    }
    assert_eq!(raw.put("escaped..a_20b", 0, &["a"]).await, 0);
    // Neither by the name as it is nor by the one that stands for it.
    let longer = "y".repeat(250);
    for name in [&longer, &format!("escaped..{longer}")] {
        let made = create(&mut raw, vec![creatable(name, 1, &[])], false).await;
        assert_code(made[0].error_code, ErrorCode::InvalidTopic);
        ask_for(&mut raw, 12, &[name], true).await;
    }
    assert!(rig.broker.catalog().topic(&longer).is_none());
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for version in 1..=5 {
        raw.topic("t", 2).await;
        let names = vec!["t".into(), "nowhere".into()];
        let request = DeleteTopicsRequest { topic_names: names, timeout_ms: 1000, ..Default::default() };
        let response = raw.call(version, &request).await;
        let codes: Vec<_> = response.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
        let gone = ask_for(&mut raw, 13, &["t"], false).await;
        assert_code(gone.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
    }
    let (id, _) = (raw.topic("by-id", 1).await, raw.topic("twice", 1).await);
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id };
    let by_name = |name: &str| DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let both = DeleteTopicState { name: Some("by-id".into()), topic_id: id };
    let topics = vec![by_id(id), by_id([7; 16]), by_name("twice"), by_name("twice"), both.clone()];
    let response = raw.call(6, &DeleteTopicsRequest { topics, timeout_ms: 1000, ..Default::default() }).await;
    let codes: Vec<_> =
        response.responses.iter().map(|r| ErrorCode::from_i16(r.error_code).unwrap()).collect();
    let twice = ErrorCode::InvalidRequest;
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicId, twice, twice, ErrorCode::InvalidRequest]);
    assert_eq!(response.responses[0].name.as_deref(), Some("by-id"));
}

/// A name comes back as another topic: with another id, and empty.
#[tokio::test]
async fn a_topic_made_anew_is_another_one() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let first = raw.topic("t", 1).await;
    raw.put("t", 0, &["a", "b"]).await;
    let request =
        DeleteTopicsRequest { topic_names: vec!["t".into()], timeout_ms: 1000, ..Default::default() };
    assert_eq!(raw.call(5, &request).await.responses[0].error_code, 0);
    let second = raw.topic("t", 1).await;
    assert_ne!(first, second);
    assert_eq!(raw.put("t", 0, &["c"]).await, 0);
}

#[tokio::test]
async fn topics_grow_and_never_shrink() {
    let rig = Rig::with(Setup { data_shards: 3, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("t", 2).await;
    let grow = |count, assignments| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: "t".into(), count, assignments }],
        timeout_ms: 1000,
        validate_only: false,
    };
    let on = |broker_ids| Some(vec![CreatePartitionsAssignment { broker_ids }]);
    for (request, expected) in [
        (grow(2, None), ErrorCode::InvalidPartitions),
        (grow(0, None), ErrorCode::InvalidPartitions),
        (grow(i32::MAX, None), ErrorCode::InvalidPartitions),
        (grow(3, on(vec![9])), ErrorCode::InvalidReplicaAssignment),
        (grow(4, on(vec![1])), ErrorCode::InvalidReplicaAssignment),
        (CreatePartitionsRequest { validate_only: true, ..grow(5, None) }, ErrorCode::None),
        (grow(3, on(vec![1])), ErrorCode::None),
        (grow(3, None), ErrorCode::InvalidPartitions),
    ] {
        assert_code(raw.ask(&request).await.results[0].error_code, expected);
    }
    for version in 0..=3 {
        let count = 4 + i32::from(version);
        assert_eq!(raw.call(version, &grow(count, None)).await.results[0].error_code, 0);
        assert_eq!(raw.put("t", count - 1, &["a"]).await, 0);
    }
}
