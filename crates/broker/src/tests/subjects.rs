//! Errors name what they are about, so that whoever tells them need not know the call.

use sabir_model::{ErrorAbout, FrontendNo, QueueConfig, ReadError, Subject, TopicConfig};

use super::rig::{append, batch, create, new_topic, open, options, read, soon};
use crate::{AppendAcks, AppendTarget, Caller, Fence, NewTopic, OffsetSpec, ReadTarget, Text};

#[tokio::test]
async fn errors_say_which_partition_queue_or_group_they_are_about() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topic = create(&broker, "orders", 2).await;
    let new = NewTopic { config: TopicConfig::of_queue(QueueConfig::default()), ..new_topic("mail", 1) };
    let queue = broker.create_topics(&Caller::OPERATOR, vec![new]).await.remove(0).unwrap();
    let missing = ReadTarget::new(&Caller::OPERATOR, &topic, 3).unwrap_err();
    assert_eq!(missing.to_string(), "partition 3 of topic \"orders\": there is no such partition");
    let missing = AppendTarget::new(&Caller::OPERATOR, &topic, 3, AppendAcks::Leader, FrontendNo::NONE);
    assert_eq!(missing.unwrap_err().to_string(), "partition 3 of topic \"orders\": no such partition");
    append(&broker, &topic, 1, batch(&[b"x"], 1)).await.unwrap();
    let beyond = soon(read(&broker, &topic, 1, 9, 100)).await.unwrap_err().to_string();
    assert_eq!(
        beyond,
        "partition 1 of topic \"orders\": offset 9 is out of range: the partition keeps 0 to 1"
    );
    let member = Fence { generation: 1, member: Text::from("m"), instance: None };
    let unknown = broker.groups(&Caller::client("x", crate::SessionId(1))).heartbeat("g", &member);
    assert!(unknown.unwrap_err().to_string().starts_with("group \"g\": "));
    let unknown = soon(broker.groups(&Caller::OPERATOR).delete("g")).await.unwrap_err();
    assert_eq!(unknown.to_string(), "group \"g\": no such group");
    broker.delete_topics(&Caller::OPERATOR, vec![topic.id]).await.remove(0).unwrap();
    let gone = append(&broker, &topic, 1, batch(&[b"x"], 1)).await.unwrap_err();
    assert_eq!(gone.subject(), Some(&Subject::Partition { topic: "orders".into(), partition: 1 }));
    // Its name may be another topic's by now.
    let target = ReadTarget::new(&Caller::OPERATOR, &topic, 1).unwrap();
    let gone = soon(broker.offsets(target, OffsetSpec::Latest)).await.unwrap_err();
    assert_eq!(gone.subject(), None);
    assert_eq!(gone, ErrorAbout::from(ReadError::UnknownPartition));
    broker.shutdown();
    let closed = append(&broker, &queue, 0, batch(&[b"x"], 1)).await.unwrap_err();
    assert_eq!(closed.to_string(), "queue \"mail\": the broker is shutting down");
}
