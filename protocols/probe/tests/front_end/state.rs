//! The protocol's own state: read in the order it was written in, waited for, and there after crashes.

use std::time::{Duration, Instant};

use crate::node::{Node, SHARDS};

#[test]
fn what_is_pipelined_is_read_between_the_writes() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut one, mut other) = (node.connect(), node.connect());
        for name in ["a", "b", "c", "d"] {
            let (first, second) = (format!("SET {name} 1"), format!("SET {name} 2 2"));
            let get = format!("GET {name}");
            one.send(&[&get, &first, &get, &second, &get]);
            assert_eq!(one.lines(), ["NIL", "NIL", "OK 1", "OK 1", "OK 2 2"]);
            assert_eq!(other.ask(&get), "OK 2 2");
        }
        one.send(&["ADD n 5", "GET n", "ADD n -7", "GET n", "ADD a 1", "ADD n x"]);
        let [.., text, number] = &one.lines::<6>();
        assert!(text.starts_with("ERR its value is no number") && number.starts_with("ERR an argument"));
        assert_eq!(other.ask("GET n"), "OK -2");
        node.stop();
    }
}

#[test]
fn whoever_waits_first_is_served_first_whoever_puts() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut first, mut second, mut writer) = (node.connect(), node.connect(), node.connect());
        for queue in ["p", "q", "r"] {
            let (take, put) = (format!("TAKE {queue} 20000"), |value| format!("PUT {queue} {value}"));
            first.send(&[&take, &take]);
            assert!(first.is_silent(), "it waits");
            second.send(&[&take]);
            assert!(second.is_silent(), "it waits behind it");
            writer.send(&[&put("one"), &put("two"), &put("three"), &put("four")]);
            assert_eq!(writer.lines(), ["OK", "OK", "OK", "OK"]);
            assert_eq!(first.lines(), ["OK one", "OK two"]);
            assert_eq!(second.line(), "OK three");
            assert_eq!(second.ask(&take), "OK four", "it was kept");
        }
        node.stop();
    }
}

#[test]
fn a_wait_ends_in_time_and_with_its_connection() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut short, mut gone, mut long) = (node.connect(), node.connect(), node.connect());
        let began = Instant::now();
        assert_eq!(short.ask("TAKE q 100"), "NIL");
        assert!(began.elapsed() >= Duration::from_millis(100));
        gone.send(&["TAKE q 20000"]);
        assert!(gone.is_silent());
        long.send(&["TAKE q 20000"]);
        assert!(long.is_silent());
        drop(gone);
        // Until the node has seen that it is gone.
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(short.ask("PUT q one"), "OK");
        assert_eq!(long.line(), "OK one", "who is gone is given nothing");
        node.stop();
    }
}

#[test]
fn whoever_waits_is_told_that_the_node_goes_down_and_is_given_nothing_by_the_next_run() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let mut waits = node.connect();
        waits.send(&["TAKE q 20000"]);
        assert!(waits.is_silent());
        node.stop();
        assert_eq!(waits.lines(), ["BYE the node goes down", ""]);
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        client.send(&["PUT q kept", "TAKE q 100"]);
        assert_eq!(client.lines(), ["OK", "OK kept"]);
        node.stop();
    }
}
