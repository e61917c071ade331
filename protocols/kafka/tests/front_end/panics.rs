//! A panic while a connection is served.

use sabir_broker::testing::panic_once;
use sabir_kafka::wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};

use crate::rig::{PATIENCE, Raw, Rig, Setup};

fn commit(metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: 1,
        committed_leader_epoch: -1,
        committed_metadata: Some(metadata.into()),
    };
    let topic =
        OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

async fn fetched(raw: &mut Raw, partition: i32) -> i16 {
    let wanted = FetchPartition { partition, partition_max_bytes: 1000, ..Default::default() };
    let topic = FetchTopic { topic: "t".into(), partitions: vec![wanted], ..Default::default() };
    let request = FetchRequest { max_bytes: 1000, topics: vec![topic], ..Default::default() };
    raw.call(12, &request).await.responses[0].partitions[0].error_code
}

#[tokio::test]
async fn a_panic_ends_its_connection_and_the_shard_it_held_and_nothing_else() {
    let rig = Rig::with(Setup { data_shards: 2, ..Setup::default() });
    let (mut panicking, mut bystander) = (rig.raw().await, rig.raw().await);
    let topic = panicking.topic("t", 2).await;
    let topic = rig.broker.catalog().topic_by_id(sabir_model::TopicId(topic)).cloned().unwrap();
    // Positions live in the first data shard.
    let held = (0..2).find(|i| topic.partition(*i).unwrap().shard.0 == 1).unwrap();
    for partition in 0..2 {
        bystander.put("t", partition, &["kept"]).await;
    }
    panic_once("push", "panics over the wire");
    panicking.send(9, &commit("panics over the wire")).await;
    assert!(panicking.closed().await.is_empty());
    // It is counted a moment after its socket is closed.
    let began = std::time::Instant::now();
    while rig.net.as_ref().unwrap().stats()[0].panicked == 0 {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }

    bystander.put("t", 1 - held, &["the other shard goes on"]).await;
    assert_eq!(fetched(&mut bystander, held).await, 0, "reads go on");
    let refused = bystander.produce("t", held, crate::rig::batch(&["x"])).await;
    assert_eq!(refused.error_code, sabir_kafka::wire::ErrorCode::KafkaStorageError.code());
    let mut newcomer = rig.raw().await;
    newcomer.put("t", 1 - held, &["so do new connections"]).await;
}
