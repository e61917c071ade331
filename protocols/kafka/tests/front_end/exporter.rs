//! What dashboards made for kafka_exporter find.

use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};

use crate::rig::{Raw, Rig, Setup};

/// Commits positions of partitions 0, 1, ... of a topic for the group `g`.
async fn commit(raw: &mut Raw, topic: &str, offsets: &[i64]) {
    let partition = |(partition_index, &committed_offset): (i32, &i64)| OffsetCommitRequestPartition {
        partition_index,
        committed_offset,
        ..Default::default()
    };
    let partitions = (0..).zip(offsets).map(partition).collect();
    let topics = vec![OffsetCommitRequestTopic { name: topic.into(), partitions, ..Default::default() }];
    let request = OffsetCommitRequest { group_id: "g".into(), topics, ..Default::default() };
    let response = raw.call(9, &request).await;
    assert!(response.topics[0].partitions.iter().all(|p| p.error_code == 0), "{response:?}");
}

async fn with_a_group_behind(setup: Setup) -> (Rig, Raw) {
    let rig = Rig::with(setup);
    let mut raw = rig.raw().await;
    raw.topic("t", 3).await;
    raw.put("t", 0, &["a", "b", "c"]).await;
    raw.put("t", 1, &["d"]).await;
    commit(&mut raw, "t", &[1, 1]).await;
    (rig, raw)
}

#[track_caller]
fn shows(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
}

#[tokio::test]
async fn offsets_and_lag_have_the_exporters_names() {
    let (rig, _raw) = with_a_group_behind(Setup::default()).await;
    let address = rig.address;
    shows(
        &rig.metrics(),
        &[
            "kafka_brokers 1",
            &format!(r#"kafka_broker_info{{id="1",address="{address}"}} 1"#),
            r#"kafka_topic_partitions{topic="t"} 3"#,
            r#"kafka_topic_partition_current_offset{topic="t",partition="0"} 3"#,
            r#"kafka_topic_partition_oldest_offset{topic="t",partition="0"} 0"#,
            r#"kafka_topic_partition_leader{topic="t",partition="2"} 1"#,
            r#"kafka_topic_partition_under_replicated_partition{topic="t",partition="2"} 0"#,
            r#"kafka_consumergroup_members{consumergroup="g"} 0"#,
            r#"kafka_consumergroup_current_offset{consumergroup="g",topic="t",partition="0"} 1"#,
            r#"kafka_consumergroup_lag{consumergroup="g",topic="t",partition="0"} 2"#,
            r#"kafka_consumergroup_lag{consumergroup="g",topic="t",partition="1"} 0"#,
            // It has no position there, but has some in the topic.
            r#"kafka_consumergroup_current_offset{consumergroup="g",topic="t",partition="2"} -1"#,
            r#"kafka_consumergroup_lag{consumergroup="g",topic="t",partition="2"} -1"#,
            r#"kafka_consumergroup_current_offset_sum{consumergroup="g",topic="t"} 2"#,
            r#"kafka_consumergroup_lag_sum{consumergroup="g",topic="t"} 2"#,
            r#"sabir_metrics_left_out{metrics="kafka_topic_partition_*"} 0"#,
            r#"sabir_metrics_left_out{metrics="kafka_consumergroup_*{partition}"} 0"#,
        ],
    );
}

#[tokio::test]
async fn what_would_be_too_many_is_left_out_and_said_so() {
    let setup = Setup { kafka: r#"{"exporter_partitions": 3}"#, ..Setup::default() };
    let (rig, mut raw) = with_a_group_behind(setup).await;
    raw.topic("u", 1).await;
    let text = rig.metrics();
    // Four partitions, and three that the group has positions among.
    assert!(!text.contains("kafka_topic_partition_current_offset"), "{text}");
    shows(
        &text,
        &[
            r#"kafka_topic_partitions{topic="u"} 1"#,
            r#"sabir_metrics_left_out{metrics="kafka_topic_partition_*"} 1"#,
            r#"sabir_metrics_left_out{metrics="kafka_consumergroup_*{partition}"} 0"#,
            r#"kafka_consumergroup_lag{consumergroup="g",topic="t",partition="0"} 2"#,
        ],
    );
    commit(&mut raw, "u", &[0]).await;
    let text = rig.metrics();
    assert!(!text.contains("kafka_consumergroup_lag{"), "{text}");
    shows(
        &text,
        &[
            r#"sabir_metrics_left_out{metrics="kafka_consumergroup_*{partition}"} 1"#,
            r#"kafka_consumergroup_lag_sum{consumergroup="g",topic="t"} 2"#,
            r#"kafka_consumergroup_lag_sum{consumergroup="g",topic="u"} 0"#,
        ],
    );
}

#[tokio::test]
async fn nobody_has_to_have_them() {
    let setup = Setup { kafka: r#"{"exporter_partitions": 0}"#, ..Setup::default() };
    let (rig, _raw) = with_a_group_behind(setup).await;
    let text = rig.metrics();
    assert!(!text.contains("kafka_brokers") && !text.contains("kafka_topic"), "{text}");
}

#[tokio::test]
async fn positions_that_are_too_many_together_are_the_most_there_can_be() {
    let (rig, mut raw) = with_a_group_behind(Setup::default()).await;
    commit(&mut raw, "t", &[i64::MAX, i64::MAX]).await;
    let most = i64::MAX;
    let sum = format!(r#"kafka_consumergroup_current_offset_sum{{consumergroup="g",topic="t"}} {most}"#);
    let none = r#"kafka_consumergroup_lag_sum{consumergroup="g",topic="t"} 0"#;
    shows(&rig.metrics(), &[&sum, none]);
}
