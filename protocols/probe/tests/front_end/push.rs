//! Records that come as they are written, and no more of them than the client gave credit for.

use crate::node::{Node, SHARDS};

#[test]
fn records_are_pushed_as_they_come_and_never_more_than_the_credit() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut writer, mut reader) = (node.connect(), node.connect());
        assert_eq!(writer.ask("CREATE t 3"), "OK");
        assert_eq!(writer.ask("PUBLISH t 0 before"), "OK 0");
        assert_eq!(reader.ask("SUBSCRIBE t"), "OK 1");
        reader.send(&["CREDIT 2"]);
        assert!(reader.is_silent(), "what was there before is not pushed");
        for (partition, text) in [(0, "one"), (1, "two two"), (2, "three")] {
            assert!(writer.ask(&format!("PUBLISH t {partition} {text}")).starts_with("OK "));
        }
        assert_eq!(reader.lines(), ["MSG 1 0 1 one", "MSG 1 1 0 two two"]);
        assert!(reader.is_silent(), "there is no credit");
        reader.send(&["CREDIT 10"]);
        assert_eq!(reader.line(), "MSG 1 2 0 three");
        assert!(writer.ask("PUBLISH t 2 four").starts_with("OK "));
        assert_eq!(reader.line(), "MSG 1 2 1 four");
        assert_eq!(reader.ask("READ t 0 0 10"), "0 before");
        assert_eq!(reader.lines(), ["1 one", "OK"]);
        node.stop();
    }
}

#[test]
fn a_client_follows_so_many_partitions_and_is_told_of_each() {
    const PARTITIONS: usize = 500;
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut writer, mut reader) = (node.connect(), node.connect());
        assert_eq!(writer.ask(&format!("CREATE t {PARTITIONS}")), "OK");
        reader.send(&["SUBSCRIBE t"; 21]);
        for number in 1..=20 {
            assert_eq!(reader.line(), format!("OK {number}"));
        }
        assert_eq!(reader.line(), "ERR its subscriptions would follow too many partitions");
        reader.send(&["CREDIT 1000"]);
        for (partition, text) in [(0, "a"), (77, "b"), (PARTITIONS - 1, "c"), (77, "d")] {
            assert!(writer.ask(&format!("PUBLISH t {partition} {text}")).starts_with("OK "));
            let mut told: Vec<_> = (0..20).map(|_| reader.line()).collect();
            told.sort_unstable();
            let offset = usize::from(text == "d");
            let mut expected: Vec<_> =
                (1..=20).map(|number| format!("MSG {number} {partition} {offset} {text}")).collect();
            expected.sort_unstable();
            assert_eq!(told, expected);
        }
        node.stop();
    }
}

#[test]
fn a_subscription_whose_topic_is_deleted_ends_and_names_it() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let (mut writer, mut reader) = (node.connect(), node.connect());
    assert_eq!(writer.ask("CREATE t 1"), "OK");
    assert_eq!(reader.ask("SUBSCRIBE t"), "OK 1");
    reader.send(&["CREDIT 5"]);
    assert_eq!(node.http("DELETE", "/sabir/v1/topics/t", "").0, 204);
    assert_eq!(reader.line(), "END 1 topic \"t\": there is no such partition");
    node.stop();
}
