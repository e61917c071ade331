//! Messages that cannot be read: they are passed over, and are there when they can.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sabir_amqp::wire::*;

use crate::node::{Client, Node};

/// Longer than what was read stays known as damaged.
const READ_ANEW: Duration = Duration::from_millis(1_200);

/// The file below a folder in which a text stands, and where.
fn place_of(folder: &Path, text: &[u8]) -> Option<(PathBuf, u64)> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() {
            return place_of(&path, text);
        }
        let bytes = fs::read(&path).unwrap();
        let at = bytes.windows(text.len()).position(|part| part == text)?;
        Some((path, at as u64))
    })
}

fn put(place: &(PathBuf, u64), byte: u8) {
    OpenOptions::new().write(true).open(&place.0).unwrap().write_all_at(&[byte], place.1).unwrap();
}

/// A node whose queue has three messages, of which the second is damaged; and where it is.
fn damaged(data: &Path) -> (Node, (PathBuf, u64)) {
    damaged_together(data, 1)
}

/// The same with so many in one batch instead of the second, all of which are damaged with it.
fn damaged_together(data: &Path, count: usize) -> (Node, (PathBuf, u64)) {
    let node = Node::start(data);
    let mut client = node.open();
    client.declare("q");
    assert!(matches!(client.ask(1, &TxSelect::default()).method(), Method::TxSelectOk(_)));
    for bodies in [vec!["one"], vec!["the message that is damaged"; count], vec!["three"]] {
        client.publish("q", &bodies);
        assert!(matches!(client.ask(1, &TxCommit::default()).method(), Method::TxCommitOk(_)));
    }
    drop(client);
    node.stop();
    let place = place_of(data, b"the message that").unwrap();
    put(&place, b'T');
    (Node::start(data), place)
}

#[test]
fn a_consumer_has_what_lies_behind_a_message_that_cannot_be_read() {
    let data = tempfile::tempdir().unwrap();
    let (node, place) = damaged(data.path());
    let mut client = node.open();
    client.qos(1);
    client.consume("q", "c", false);
    for body in ["one", "three"] {
        let delivered = client.content();
        assert_eq!(delivered.text(), body);
        client.ack(delivered.delivered().delivery_tag, false);
    }
    assert!(client.is_silent());
    // It goes on as if nothing were there.
    client.publish("q", &["four"]);
    let delivered = client.content();
    assert_eq!(delivered.text(), "four");
    client.ack(delivered.delivered().delivery_tag, false);

    put(&place, b't');
    std::thread::sleep(READ_ANEW);
    drop(client);
    has_it(&mut node.open());
}

#[test]
fn a_get_passes_over_what_cannot_be_read() {
    let data = tempfile::tempdir().unwrap();
    let (node, place) = damaged(data.path());
    let mut client = node.open();
    for body in ["one", "three"] {
        assert_eq!(client.get("q", true).unwrap().text(), body);
    }
    assert!(client.get("q", true).is_none());
    put(&place, b't');
    std::thread::sleep(READ_ANEW);
    assert!(matches!(client.ask(1, &ChannelClose::default()).method(), Method::ChannelCloseOk(_)));
    client.open_channel(1);
    has_it(&mut client);
}

#[test]
fn a_get_passes_over_a_damaged_batch_however_many_messages_it_has() {
    let data = tempfile::tempdir().unwrap();
    let (node, place) = damaged_together(data.path(), 3_000);
    let mut client = node.open();
    // A get that takes long to pass them over answers that there is nothing, and the next one goes on.
    for body in ["one", "three"] {
        assert_eq!(client.get_soon("q").unwrap().text(), body);
    }
    assert!(client.get("q", true).is_none());
    drop(client);
    put(&place, b't');
    std::thread::sleep(READ_ANEW);
    let mut client = node.open();
    for _ in 0..3_000 {
        assert_eq!(client.get_soon("q").unwrap().text(), "the message that is damaged");
    }
    assert!(client.get("q", true).is_none());
}

#[test]
fn a_consumer_passes_over_a_damaged_batch_however_many_messages_it_has() {
    let data = tempfile::tempdir().unwrap();
    let (node, place) = damaged_together(data.path(), 3_000);
    let mut client = node.open();
    client.qos(5);
    client.consume("q", "c", false);
    for body in ["one", "three"] {
        assert_eq!(client.content().text(), body);
    }
    assert!(client.is_silent());
    drop(client);
    put(&place, b't');
    std::thread::sleep(READ_ANEW);
    let mut client = node.open();
    client.consume("q", "c", true);
    let mut bodies: Vec<String> = (0..3_002).map(|_| client.content().text().to_owned()).collect();
    bodies.sort_unstable();
    assert_eq!((bodies[0].as_str(), bodies[3_001].as_str()), ("one", "three"));
    assert!(bodies[1..3_001].iter().all(|body| body == "the message that is damaged"));
    assert!(client.is_silent());
}

/// What could not be read is there, once.
fn has_it(client: &mut Client) {
    let got = client.get_soon("q").unwrap();
    assert_eq!(got.text(), "the message that is damaged");
    assert!(client.get("q", true).is_none());
}
