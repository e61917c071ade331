//! Requests that fail, and lines that are none.

use crate::node::Node;

fn failed_requests(node: &Node) -> u64 {
    let (_, metrics) = node.http("GET", "/metrics", "");
    let line = metrics.lines().find(|line| line.starts_with("sabir_probe_failed_requests_total"));
    line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn errors_are_counted_and_a_client_that_has_nothing_else_is_answered_all_the_same() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path(), 1);
    let mut client = node.connect();
    assert_eq!(client.ask("GET a"), "NIL");
    assert_eq!(failed_requests(&node), 0);
    // More than are answered without a pause.
    let lines: Vec<_> = (0..120).flat_map(|_| ["what", "PUBLISH none 0 text"]).collect();
    client.send(&lines);
    for _ in 0..120 {
        let [bad, failed] = client.lines();
        assert_eq!(bad, "ERR there is no such command");
        assert_eq!(failed, "ERR there is no topic \"none\"");
    }
    assert_eq!(client.ask("GET a"), "NIL");
    assert_eq!(failed_requests(&node), 240);
    node.stop();
}
