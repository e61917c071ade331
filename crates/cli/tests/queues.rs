//! What the commands do to queues, which reading takes messages from.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::Broker;

/// A broker with a queue `q` that has messages.
fn with_queue(data: &std::path::Path, messages: &str) -> Broker {
    let broker = Broker::start(data, &["amqp.listen=127.0.0.1:0"]);
    broker.run_as("amqp", &["bench", "produce", "--topic", "q", "-n", messages, "-q"]).ok();
    broker
}

#[test]
fn offsets_are_the_admin_ports_to_tell_where_a_client_of_queues_has_none() {
    let data = tempfile::tempdir().unwrap();
    let broker = with_queue(data.path(), "5");
    let amqp = |args: &[&str]| broker.run_as("amqp", args);
    let told = |args: &[&str]| serde_json::from_str::<serde_json::Value>(&amqp(args).ok()).unwrap();
    amqp(&["topic", "create", "t"]).ok();
    broker.run_with(&["message", "publish", "t"], b"a\nb\nc\nd\n").ok();
    let ends = |topic| {
        let told = told(&["topic", "offsets", topic, "-o", "json"]);
        [told[0]["start"].as_i64().unwrap(), told[0]["end"].as_i64().unwrap()]
    };
    assert_eq!((ends("t"), ends("q")), ([0, 4], [0, 5]));
    let cut = |before| told(&["topic", "delete-records", "t", "--before", before, "-o", "json"]);
    let cut_at_two = cut("2");
    assert!(cut_at_two[0]["start"] == 2 && cut_at_two[0]["messages"] == 2, "{cut_at_two}");
    assert_eq!(ends("t"), [2, 4]);
    let moved = told(&["group", "reset", "g", "--topic", "t", "--to", "latest", "-o", "json"]);
    assert_eq!(moved["partitions"][0]["after"], 4);
    cut("latest");
    assert_eq!(ends("t"), [4, 4]);
    amqp(&["topic", "delete-records", "t", "--before", "9"]).fails(4);
    amqp(&["topic", "offsets", "t", "-p", "1"]).fails(4);
    amqp(&["topic", "offsets", "t", "--at", "-1h"]).fails(6);
    amqp(&["topic", "offsets", "absent"]).fails(4);
}

#[test]
fn a_queue_is_not_read_for_a_group() {
    let data = tempfile::tempdir().unwrap();
    let broker = with_queue(data.path(), "5");
    let read = ["message", "read", "q", "--group", "g"];
    for has_group in [false, true] {
        if has_group {
            broker.run_as("amqp", &["group", "reset", "g", "--topic", "q", "--to", "earliest"]).ok();
        }
        let said = broker.run_as("amqp", &read);
        assert_eq!(said.out, "");
        assert!(said.fails(6).contains("--group"));
        assert_eq!(shown(&broker), 5, "nothing was taken");
    }
}

#[test]
fn a_protocol_without_groups_shows_nothing_for_one() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(data.path(), &["probe.listen=127.0.0.1:0"]);
    broker.run_as("probe", &["topic", "create", "t"]).ok();
    broker.run_as("probe", &["message", "publish", "t", "a"]).ok();
    let said = broker.run_as("probe", &["message", "read", "t", "--group", "g"]);
    assert_eq!(said.out, "");
    assert!(said.fails(6).contains("--group"));
}

#[test]
fn what_is_shown_and_settled_is_taken_for_good_and_the_rest_is_not() {
    let data = tempfile::tempdir().unwrap();
    let broker = with_queue(data.path(), "5");
    let read = |arguments: &[&str]| {
        let all = [&["message", "read", "q", "-f", r"%o\n"], arguments].concat();
        broker.run_as("amqp", &all)
    };
    assert_eq!(read(&["--settle", "--limit", "2"]).ok(), "0\n1\n");
    assert_eq!(shown(&broker), 3);
    assert_eq!(read(&["--settle", "--key", "none"]).ok(), "");
    assert_eq!(shown(&broker), 3, "what was passed over is not taken");
    read(&["--settle", "--group", "g"]).fails(2);
    assert_eq!(read(&["--settle"]).ok().lines().count(), 3);
    assert_eq!(shown(&broker), 0);
    broker.run_as("amqp", &["topic", "create", "t"]).ok();
    assert!(broker.run(&["message", "read", "t", "--settle"]).fails(6).contains("--group"));
}

fn shown(broker: &Broker) -> usize {
    broker.run_as("amqp", &["message", "read", "q", "-f", r"%o\n"]).ok().lines().count()
}

#[test]
fn what_a_read_took_is_back_when_it_has_ended() {
    let data = tempfile::tempdir().unwrap();
    let broker = with_queue(data.path(), "5");
    for look in 0..20 {
        let one = broker.run_as("amqp", &["message", "read", "q", "--limit", "1", "-f", r"%o\n"]).ok();
        assert_eq!((one.lines().count(), shown(&broker)), (1, 5), "look {look}");
    }
}

#[test]
fn what_a_read_took_is_back_when_a_signal_has_ended_it() {
    let data = tempfile::tempdir().unwrap();
    let broker = with_queue(data.path(), "5");
    for look in 0..10 {
        for (signal, code) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
            let mut command = broker.command_as("amqp", &["message", "read", "q", "--follow", "-f", r"%o\n"]);
            let mut reading = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(reading.stdout.take().unwrap()).lines();
            assert_eq!(lines.by_ref().take(5).filter(Result::is_ok).count(), 5);
            let sent = Command::new("kill").args([&format!("-{signal}"), &reading.id().to_string()]).status();
            assert!(sent.unwrap().success());
            assert_eq!(reading.wait().unwrap().code(), Some(code), "{signal} {look}");
            assert_eq!(shown(&broker), 5, "{signal} {look}");
        }
    }
}

#[test]
fn a_read_leaves_signals_ignored_that_it_was_started_to_ignore() {
    let data = tempfile::tempdir().unwrap();
    let broker = with_queue(data.path(), "1");
    let read = broker.command_as("amqp", &["message", "read", "q", "--follow", "-f", r"%o\n"]);
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' HUP INT && exec \"$0\" \"$@\""]).arg(read.get_program());
    command.args(read.get_args());
    for (name, value) in read.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut reading = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(reading.stdout.take().unwrap()).lines();
    let signal = |name: &str| {
        let sent = Command::new("kill").args([&format!("-{name}"), &reading.id().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    assert!(lines.next().is_some());
    signal("HUP");
    signal("INT");
    broker.run_as("amqp", &["bench", "produce", "--topic", "q", "-n", "1", "-q"]).ok();
    assert!(lines.next().is_some(), "it goes on");
    signal("TERM");
    assert_eq!(reading.wait().unwrap().code(), Some(143));
}

#[test]
fn delayed_messages_are_listed_and_deleted_by_their_exchange() {
    let data = tempfile::tempdir().unwrap();
    let broker = with_queue(data.path(), "5");
    for queue in ["q", "other"] {
        let produce = ["bench", "produce", "--topic", queue, "-n", "50", "-q", "--delay", "1000h"];
        broker.run_as("amqp", &produce).ok();
    }
    let admin = format!("http://{}", broker.admin);
    let told = |args: &[&str]| {
        let all = [args, &["-o", "json", "--admin", &admin]].concat();
        serde_json::from_str::<serde_json::Value>(&broker.run(&all).ok()).unwrap()
    };
    let counts = || {
        let listed = told(&["delayed", "list"]);
        let of = |of: &serde_json::Value| {
            (of["exchange"].as_str().unwrap().to_owned(), of["messages"].as_u64().unwrap())
        };
        listed.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(counts(), [("other-delayed".to_owned(), 50), ("q-delayed".to_owned(), 50)]);
    let delete = ["delayed", "delete", "--exchange", "q-delayed"];
    let would = told(&[&delete[..], &["--dry-run"]].concat());
    assert!(would[0]["messages"] == 50 && would[0]["outcome"] == "would be dropped", "{would}");
    let dropped = told(&delete);
    assert!(dropped[0]["messages"] == 50 && dropped[0]["outcome"] == "dropped", "{dropped}");
    assert_eq!(counts(), [("other-delayed".to_owned(), 50)]);
    broker.run(&["delayed", "delete"]).fails(2);
    assert_eq!(told(&["delayed", "delete", "--all"])[0]["messages"], 50);
    assert_eq!(counts(), []);
}
