//! Records that `apply` appends, and records for several topics.

use sabir_broker::{Caller, NewTopic, SessionId};
use sabir_model::TopicConfig;

use crate::node::{Node, SHARDS};

/// Has somebody else make a topic.
fn make(node: &Node, caller: &Caller, name: &str, config: TopicConfig) {
    let topic = NewTopic { name: name.into(), partitions: 1, config, internal: false, unlike: false };
    let broker = node.running().broker();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { broker.create_topics(caller, vec![topic]).await.remove(0) }).unwrap();
}

#[test]
fn apply_appends_what_came_along_and_keeps_so_many() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        assert_eq!(client.ask("CREATE t 2"), "OK");
        client.send(&["KEEP t 1 2 a", "PUBLISH t 1 b", "KEEP t 1 2 c d", "KEEP t 1 2 e"]);
        assert_eq!(client.lines(), ["OK 0 0", "OK 1", "OK 2 1", "OK 3 2"]);
        assert_eq!(client.ask("OFFSETS t"), "OK 0:0 2:4");
        client.send(&["READ t 1 2 10"]);
        assert_eq!(client.lines(), ["2 c d", "3 e", "OK"]);
        assert_eq!(client.ask("KEEP t 1 0 f"), "OK 4 5", "nothing is kept");
        assert!(client.ask("KEEP t 2 1 g").starts_with("ERR there is no partition 2 of a topic \"t\""));
        assert!(client.ask("KEEP u 0 1 g").starts_with("ERR there is no topic \"u\""));
        node.stop();

        let node = Node::start(data.path(), shards);
        assert_eq!(node.connect().ask("OFFSETS t"), "OK 0:0 5:5");
        node.stop();
    }
}

#[test]
fn one_record_goes_to_several_topics() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        // Topics of several partitions are spread over the shards.
        client.send(&["CREATE a 3", "CREATE b 1", "CREATE c 3"]);
        assert_eq!(client.lines(), ["OK", "OK", "OK"]);
        assert_eq!(client.ask("PUBLISH c 0 before"), "OK 0");
        assert_eq!(client.ask("SEND a,b,c one text"), "OK 0, 0, 1");
        for (topic, offset) in [("a", 0), ("b", 0), ("c", 1)] {
            client.send(&[&format!("READ {topic} 0 {offset} 10")]);
            assert_eq!(client.lines(), [&format!("{offset} one text"), "OK"]);
        }
        assert!(client.ask("SEND a,x text").starts_with("ERR there is no topic \"x\""));
        make(
            &node,
            &Caller::OPERATOR,
            "small",
            TopicConfig { max_message_bytes: 100, ..TopicConfig::default() },
        );
        let refused = client.ask(&format!("SEND a,small,b {}", "x".repeat(200)));
        assert!(refused.starts_with("ERR partition 0 of topic \"small\": the batch has "), "{refused}");
        assert!(client.ask("SEND a,a text").starts_with("ERR"), "each once");
        assert_eq!(client.ask("OFFSETS b"), "OK 0:1");
        node.stop();
    }
}

#[test]
fn no_records_are_taken_out_of_what_another_made_or_of_a_queue() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let mut client = node.connect();
    make(&node, &Caller::client("kafka", SessionId(u64::MAX)), "theirs", TopicConfig::default());
    assert_eq!(client.ask("PUBLISH theirs 0 a"), "OK 0");
    let refused = client.ask("KEEP theirs 0 0 b");
    assert!(refused.starts_with("ERR topic \"theirs\" was made by way of another protocol"), "{refused}");
    assert_eq!(client.ask("OFFSETS theirs"), "OK 0:1", "nothing is appended either");
    assert_eq!(client.ask("QUEUE q"), "OK");
    let refused = client.ask("KEEP q 0 0 b");
    assert!(refused.starts_with("ERR topic \"q\" is a queue"), "{refused}");
    node.stop();
}
