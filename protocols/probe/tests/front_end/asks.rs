//! What the server asks a client, a client's name, and the two addresses.

use serde_json::Value;

use crate::node::{Lines, Node, SHARDS};

/// The number under which the node lists the connection of a client.
fn id_of(node: &Node, client: &str) -> u64 {
    let (status, body) = node.http("GET", "/sabir/v1/connections", "");
    assert_eq!(status, 200);
    let all: Value = serde_json::from_str(&body).unwrap();
    let all = all["connections"].as_array().unwrap();
    let found = all.iter().find(|c| c["client"] == client).unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(found["protocol"], "probe");
    found["id"].as_str().unwrap().parse().unwrap()
}

fn hello(client: &mut Lines, name: &str) -> String {
    client.ask(&format!("HELLO {name}"))
}

#[test]
fn a_client_is_asked_over_http_and_its_answer_comes_back() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let mut client = node.connect();
        hello(&mut client, "asked");
        let path = format!("/probe/connections/{}/ask", id_of(&node, "asked"));
        std::thread::scope(|scope| {
            let one = scope.spawn(|| node.http("POST", &path, "how are you?"));
            let line = client.line();
            assert_eq!(line, "ASK 1 how are you?");
            let other = scope.spawn(|| node.http("POST", &path, "and\nyou?"));
            assert_eq!(client.line(), "ASK 2 and you?");
            client.send(&["ANSWER 2 so so", "ANSWER 1 well", "ANSWER 7 nobody asked"]);
            assert_eq!(one.join().unwrap(), (200, "well".into()));
            assert_eq!(other.join().unwrap(), (200, "so so".into()));
        });
        assert_eq!(client.ask("GET nothing"), "NIL", "it goes on");
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| node.http("POST", &path, "still there?"));
            assert_eq!(client.line(), "ASK 3 still there?");
            drop(client);
            let (status, says) = asking.join().unwrap();
            assert_eq!((status, says.contains("ended")), (404, true), "{says}");
        });
        assert_eq!(node.http("POST", "/probe/connections/999999/ask", "x").0, 404);
        node.stop();
    }
}

#[test]
fn a_client_of_another_protocol_cannot_be_asked() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let other = std::net::TcpStream::connect(node.kafka).unwrap();
    let from = other.local_addr().unwrap().to_string();
    let id: u64 = loop {
        let (_, body) = node.http("GET", "/sabir/v1/connections", "");
        let all: Value = serde_json::from_str(&body).unwrap();
        let found =
            all["connections"].as_array().unwrap().iter().find(|c| c["peer"] == from.as_str()).cloned();
        if let Some(found) = found.filter(|found| found["protocol"] == "kafka") {
            break found["id"].as_str().unwrap().parse().unwrap();
        }
    };
    assert_eq!(node.http("POST", &format!("/probe/connections/{id}/ask"), "x").0, 501);
    node.stop();
}

#[test]
fn a_name_is_one_connections_and_the_next_takes_it_over() {
    for shards in SHARDS {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path(), shards);
        let (mut old, mut new) = (node.connect(), node.connect());
        hello(&mut old, "same");
        old.send(&["TAKE q 20000"]);
        assert!(old.is_silent());
        assert!(hello(&mut new, "same").starts_with("OK "));
        assert_eq!(old.lines(), ["NIL", "BYE its client's name is another connection's now", ""]);
        new.send(&["PUT q one", "TAKE q 20000"]);
        assert_eq!(new.lines(), ["OK", "OK one"], "the old one's place at the queue went with it");
        node.stop();
    }
}

#[test]
fn each_address_tells_its_own_and_one_that_listens_nowhere_by_default_does_not() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let (mut one, mut two) = (node.connect_at(0), node.connect_at(1));
    assert_eq!(hello(&mut one, "a"), format!("OK {}", node.addresses[0]));
    assert_eq!(hello(&mut two, "b"), "OK second.example.com:77");
    node.stop();
    let data = tempfile::tempdir().unwrap();
    let quiet = Node::quiet(data.path());
    let serving: Vec<_> = quiet.running().serving().iter().map(|serving| serving.protocol).collect();
    assert_eq!(serving, ["kafka"]);
    quiet.stop();
}

#[test]
fn what_is_no_command_is_said_to_be_and_a_line_without_an_end_closes_the_connection() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let mut client = node.connect();
    client.send(&[
        "FLY away",
        "GET",
        "PUBLISH none 0 x",
        "LEASE none 5",
        "SUBSCRIBE none",
        "READ none 0 0 1",
    ]);
    let answers: [String; 6] = client.lines();
    assert!(answers.iter().all(|answer| answer.starts_with("ERR ")), "{answers:?}");
    client.send(&["x".repeat(70_000).as_str()]);
    assert_eq!(client.lines(), ["BYE it sent a line that is too long", ""]);
    let (_, metrics) = node.http("GET", "/metrics", "");
    let counted = "sabir_dropped_connections_total{protocol=\"probe\",reason=\"frame_size\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    node.stop();
}
