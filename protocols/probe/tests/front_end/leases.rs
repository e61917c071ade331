//! Records that are leased: each to one client at a time, until it is done, gives it back, or its time is over.

use std::time::{Duration, Instant};

use crate::node::{Node, PATIENCE, SHARDS};

#[test]
fn a_record_is_leased_to_one_until_it_is_done_or_given_back() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut one, mut two) = (node.connect(), node.connect());
        for topic in ["t", "u", "v"] {
            assert_eq!(one.ask(&format!("QUEUE {topic}")), "OK");
            assert_eq!(one.ask(&format!("PUBLISH {topic} 0 a a")), "OK 0");
            assert_eq!(one.ask(&format!("PUBLISH {topic} 0 b")), "OK 1");
            let lease = format!("LEASE {topic} 60000");
            assert_eq!((one.ask(&lease).as_str(), two.ask(&lease).as_str()), ("OK 1 0 a a", "OK 2 1 b"));
            assert_eq!(one.ask(&lease), "NIL");
            assert_eq!(one.ask(&format!("RETURN {topic} 1")), "OK");
            assert_eq!(two.ask(&lease), "OK 3 0 a a", "it comes again, to another client");
            assert_eq!(two.ask(&format!("DONE {topic} 3")), "OK");
            assert!(two.ask(&format!("DONE {topic} 3")).starts_with("ERR there is no such lease"));
            assert_eq!(one.ask(&lease), "NIL");
        }
        node.stop();
    }
}

#[test]
fn a_lease_ends_by_itself_whether_its_client_is_there_or_not() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut one, mut two) = (node.connect(), node.connect());
        let asked = ["QUEUE t", "PUBLISH t 0 a", "LEASE t 300"].map(|line| one.ask(line));
        assert_eq!(asked, ["OK", "OK 0", "OK 1 0 a"]);
        drop(one);
        assert_eq!(two.ask("LEASE t 300"), "NIL");
        let began = Instant::now();
        let again = loop {
            let answer = two.ask("LEASE t 60000");
            if answer != "NIL" {
                break answer;
            }
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(again, "OK 2 0 a");
        assert_eq!(two.ask("LEASE t 60000"), "NIL");
        // A start ends those of the run before, and they are known no more.
        assert_eq!(two.ask("PUBLISH t 0 b"), "OK 1");
        assert_eq!(two.ask("LEASE t 60000"), "OK 3 1 b");
        node.stop();
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        assert!(client.ask("DONE t 3").starts_with("ERR there is no such lease"));
        assert_eq!(client.ask("LEASE t 60000"), "OK 4 0 a");
        assert_eq!(client.ask("LEASE t 60000"), "OK 5 1 b");
        assert_eq!(client.ask("DONE t 5"), "OK");
        node.stop();
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        assert_eq!(client.ask("LEASE t 60000"), "OK 6 0 a");
        assert_eq!(client.ask("LEASE t 60000"), "NIL", "what was done is not leased again");
        node.stop();
    }
}

#[test]
fn what_is_given_back_waits_where_its_client_or_its_queue_says_so_over_a_start_too() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        for line in ["QUEUE t", "RETRIES u 1 1000"] {
            assert_eq!(client.ask(line), "OK");
        }
        for (line, answer) in [
            ("PUBLISH t 0 a", "OK 0"),
            ("PUBLISH t 0 b", "OK 1"),
            ("LEASE t 60000", "OK 1 0 a"),
            ("DELAY t 1 1000", "OK"),
            ("LEASE t 60000", "OK 2 1 b"),
            ("LEASE t 60000", "NIL"),
        ] {
            assert_eq!(client.ask(line), answer, "{line}");
        }
        let (answer, waited) = client.leased("t");
        assert_eq!(answer, "OK 3 0 a");
        assert!(waited > Duration::from_millis(500), "{waited:?}");
        for (line, answer) in [
            ("DELAY t 3 4000", "OK"),
            ("PUBLISH u 0 c", "OK 0"),
            ("LEASE u 60000", "OK 1 0 c"),
            ("RETURN u 1", "OK"),
            ("LEASE u 60000", "NIL"),
        ] {
            assert_eq!(client.ask(line), answer, "{line}");
        }
        node.stop();
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        assert_eq!(client.leased("u").0, "OK 2 0 c");
        assert_eq!(client.ask("RETURN u 2"), "OK");
        assert_eq!(client.ask("LEASE u 60000"), "NIL", "that was once too often");
        // What was leased when the node stopped is there, the parked one is not.
        assert_eq!(client.ask("LEASE t 60000"), "OK 4 1 b");
        assert_eq!(client.leased("t").0, "OK 5 0 a");
        std::thread::sleep(Duration::from_millis(1200));
        assert_eq!(client.ask("LEASE u 60000"), "NIL");
        node.stop();
    }
}

#[test]
fn what_is_leased_is_a_queue() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let mut client = node.connect();
    assert_eq!(client.ask("CREATE t 1"), "OK");
    assert!(client.ask("LEASE t 5").starts_with("ERR queue \"t\": the topic is no queue"));
    assert!(client.ask("LEASE none 5").starts_with("ERR there is no queue \"none\""));
    node.stop();
}
