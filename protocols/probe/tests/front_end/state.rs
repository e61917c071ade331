//! The protocol's own state: read in the order it was written in, waited for, and there after crashes.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::node::{Lines, Node, SHARDS};

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
        // What is pipelined behind it keeps no place.
        gone.send(&["TAKE q 20000", "GET x", "SET x 1"]);
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
        assert_eq!(waits.lines(), ["NIL", "BYE the node goes down", ""]);
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        client.send(&["PUT q kept", "TAKE q 100"]);
        assert_eq!(client.lines(), ["OK", "OK kept"]);
        node.stop();
    }
}

/// Puts values while clients that wait for them are closed in some way, round after round; none that was acknowledged is lost.
fn nothing_is_lost(node: &Node, close: impl Fn() + Sync) {
    const ROUNDS: usize = 12;
    let (ended, mut acknowledged) = (AtomicBool::new(false), Vec::new());
    let taken = std::thread::scope(|scope| {
        let putting = scope.spawn(|| {
            let (mut writer, mut put) = (node.connect(), Vec::new());
            assert!(writer.ask("HELLO writer").starts_with("OK "));
            for number in 0.. {
                if ended.load(SeqCst) {
                    break;
                }
                if writer.ask(&format!("PUT q {number}")) == "OK" {
                    put.push(number.to_string());
                }
            }
            put
        });
        let mut taken = Vec::new();
        for _ in 0..ROUNDS {
            let (mut taker, mut closing) = (node.connect(), None);
            assert!(taker.ask("HELLO taker").starts_with("OK "));
            taker.send(&["TAKE q 20000"; 3]);
            loop {
                match taker.line() {
                    line if line.starts_with("OK ") => {
                        taken.push(line[3..].to_owned());
                        closing.get_or_insert_with(|| scope.spawn(&close));
                        taker.send(&["TAKE q 20000"]);
                    }
                    line if line.starts_with("BYE ") => break,
                    line => assert_eq!(line, "NIL"),
                }
            }
            if let Some(closing) = closing {
                closing.join().unwrap();
            }
        }
        ended.store(true, SeqCst);
        acknowledged = putting.join().unwrap();
        taken
    });
    let (mut left, mut reader) = (Vec::new(), node.connect());
    while let Some(value) = reader.ask("TAKE q 0").strip_prefix("OK ") {
        left.push(value.to_owned());
    }
    let there: HashSet<_> = taken.iter().chain(&left).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|value| !there.contains(value)).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), acknowledged.len());
    assert_eq!(there.len(), taken.len() + left.len(), "each once");
}

#[test]
fn a_client_that_is_closed_as_it_waits_takes_no_value_with_it() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        nothing_is_lost(&node, || {
            let (status, body) = node.http("GET", "/sabir/v1/connections?prefix=taker", "");
            assert_eq!(status, 200, "{body}");
            let list: serde_json::Value = serde_json::from_str(&body).unwrap();
            for open in list["connections"].as_array().unwrap() {
                node.http("DELETE", &format!("/sabir/v1/connections/{}", open["id"].as_str().unwrap()), "");
            }
        });
        node.stop();
    }
}

#[test]
fn nor_does_one_whose_name_is_taken_over() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        nothing_is_lost(&node, || assert!(node.connect().ask("HELLO taker").starts_with("OK ")));
        node.stop();
    }
}

#[test]
fn nor_do_those_that_wait_as_the_node_stops() {
    const TAKERS: usize = 4;
    let data = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut there) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let node = Node::start(data.path(), 1);
        let (mut writer, begun) = (node.connect(), Barrier::new(TAKERS + 2));
        let takers: Vec<_> = (0..TAKERS).map(|_| node.connect()).collect();
        let begun = &begun;
        std::thread::scope(|scope| {
            let putting = scope.spawn(move || {
                let mut put = Vec::new();
                for number in 0.. {
                    if number == 20 {
                        begun.wait();
                    }
                    let value = format!("{round}.{number}");
                    match writer.try_ask(&format!("PUT q {value}")) {
                        Some(answer) if answer == "OK" => put.push(value),
                        _ => return put,
                    }
                }
                put
            });
            let take = |mut taker: Lines| {
                move || {
                    let mut taken = Vec::new();
                    begun.wait();
                    while let Some(answer) = taker.try_ask("TAKE q 20000")
                        && let Some(value) = answer.strip_prefix("OK ")
                    {
                        taken.push(value.to_owned());
                    }
                    taken
                }
            };
            let taking: Vec<_> = takers.into_iter().map(|taker| scope.spawn(take(taker))).collect();
            begun.wait();
            node.stop();
            acknowledged.extend(putting.join().unwrap());
            taking.into_iter().for_each(|taking| there.extend(taking.join().unwrap()));
        });
    }
    let node = Node::start(data.path(), 1);
    let mut reader = node.connect();
    while let Some(value) = reader.ask("TAKE q 0").strip_prefix("OK ") {
        there.push(value.to_owned());
    }
    let there: HashSet<_> = there.into_iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|value| !there.contains(*value)).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), acknowledged.len());
    node.stop();
}

#[test]
fn no_more_is_taken_while_much_waits_for_an_answer_before_it() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut one, mut other) = (node.connect(), node.connect());
        let long = "x".repeat(60 * 1024);
        assert_eq!(other.ask(&format!("SET a {long}")), "NIL");
        one.send(&[&["TAKE q 20000"][..], &["GET a"; 6], &["SET c 1"]].concat());
        assert!(one.is_silent(), "it waits");
        assert_eq!(other.ask("GET c"), "NIL", "too much waits");
        assert_eq!(other.ask("PUT q value"), "OK");
        assert_eq!(one.line(), "OK value");
        for _ in 0..6 {
            assert_eq!(one.line(), format!("OK {long}"));
        }
        assert_eq!(one.line(), "NIL");
        assert_eq!(other.ask("GET c"), "OK 1");
        node.stop();
    }
}

#[test]
fn values_have_so_many_bytes_together_also_after_a_start() {
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start(data.path(), 1);
    let mut client = node.connect();
    let value = "x".repeat(65_000);
    let most = (64 << 20) / value.len();
    for numbers in (0..most).collect::<Vec<_>>().chunks(60) {
        let lines: Vec<_> = numbers.iter().map(|number| format!("SET {number} {value}")).collect();
        client.send(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        lines.iter().for_each(|_| assert_eq!(client.line(), "NIL"));
    }
    for again in [false, true] {
        if again {
            node.stop();
            node = Node::start(data.path(), 1);
            client = node.connect();
        }
        for request in [format!("SET more {value}"), format!("PUT q {value}")] {
            let refused = client.ask(&request);
            assert!(refused.ends_with("hold too many bytes"), "{refused}");
        }
    }
    assert_eq!(client.ask("SET 0 short"), format!("OK {value}"));
    assert_eq!(client.ask(&format!("PUT q {value}")), "OK");
    assert!(client.ask("PUT q again").ends_with("OK"), "there is room for little");
    assert_eq!(client.ask("TAKE q 1000"), format!("OK {value}"));
    assert_eq!(client.ask(&format!("SET more {value}")), "NIL");
    node.stop();
}
