//! What takes effect together, or not at all.

use sabir_amqp::wire::*;

use crate::node::{Client, Node};

fn select(client: &mut Client) {
    assert!(matches!(client.ask(1, &TxSelect {}).method(), Method::TxSelectOk(_)));
}

fn commit(client: &mut Client) {
    let came = client.ask(1, &TxCommit {});
    assert!(matches!(came.method(), Method::TxCommitOk(_)), "{came:?}");
}

fn roll_back(client: &mut Client) {
    let came = client.ask(1, &TxRollback {});
    assert!(matches!(came.method(), Method::TxRollbackOk(_)), "{came:?}");
}

fn got(client: &mut Client, queue: &str) -> Vec<String> {
    std::iter::from_fn(|| client.get(queue, true).map(|got| got.text().to_owned())).collect()
}

#[test]
fn what_is_published_is_there_when_it_is_committed() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    client.declare("a");
    client.declare("b");
    select(&mut client);
    client.publish("a", &["1", "2"]);
    client.publish("b", &["3"]);
    client.publish("a", &["4"]);
    assert_eq!((client.declare("a").1, client.declare("b").1), (0, 0));
    commit(&mut client);
    assert_eq!(got(&mut other, "a"), ["1", "2", "4"]);
    assert_eq!(got(&mut other, "b"), ["3"]);
    commit(&mut client);
    client.publish("a", &["5"]);
    roll_back(&mut client);
    commit(&mut client);
    client.publish("a", &["6"]);
    assert!(matches!(client.ask(1, &ChannelClose::default()).method(), Method::ChannelCloseOk(_)));
    assert_eq!(got(&mut other, "a"), [""; 0]);
}

#[test]
fn what_is_acknowledged_is_so_when_it_is_committed() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    client.declare("q");
    client.publish("q", &["0", "1", "2", "3", "4", "5"]);
    select(&mut client);
    client.qos(6);
    client.consume("q", "c", false);
    (0..6).for_each(|_| drop(client.content()));
    client.ack(1, false);
    roll_back(&mut client);
    // It is out as before, and may be acknowledged again.
    client.ack(2, true);
    client.say(|out| {
        out.arguments(1, &BasicReject { delivery_tag: 3, requeue: true });
        out.arguments(1, &BasicNack { delivery_tag: 4, multiple: false, requeue: false });
    });
    assert!(client.is_silent(), "nothing has come back yet");
    commit(&mut client);
    let back = client.content();
    assert_eq!((back.text(), back.delivered().redelivered), ("2", true));
    client.ack(1, false);
    let came = client.frame();
    let (code, text) = client.channel_closed(&came);
    assert_eq!((code, &*text), (406, "PRECONDITION_FAILED - unknown delivery tag 1"), "when it is said");
    while other.declare("q").2 > 0 {}
    assert_eq!(got(&mut other, "q"), ["2", "4", "5"]);
}

#[test]
fn what_no_queue_takes_goes_back_before_the_commit_is_answered() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    select(&mut client);
    let publish =
        BasicPublish { routing_key: ShortBytes::cut("nobody"), mandatory: true, ..Default::default() };
    client.publish_as(&publish, &BasicProperties::default(), &["back"]);
    assert!(client.is_silent());
    client.say(|out| out.arguments(1, &TxCommit {}));
    let back = client.content();
    assert!(matches!(back.method.method(), Method::BasicReturn(BasicReturn { reply_code: 312, .. })));
    assert_eq!(back.text(), "back");
    assert!(matches!(client.frame().method(), Method::TxCommitOk(_)));
    client.publish_as(&publish, &BasicProperties::default(), &["not back"]);
    roll_back(&mut client);
    commit(&mut client);
}

#[test]
fn a_queue_that_goes_before_the_commit_refuses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    client.declare("gone");
    client.declare("kept");
    for queue in ["gone", "kept"] {
        let (queue, exchange) = (ShortStr::cut(queue), ShortStr::cut("amq.fanout"));
        let bound = client.ask(1, &QueueBind { queue, exchange, ..Default::default() });
        assert!(matches!(bound.method(), Method::QueueBindOk(_)), "{bound:?}");
    }
    select(&mut client);
    client.publish("gone", &["1"]);
    client.publish("kept", &["2"]);
    let mandatory = BasicPublish { mandatory: true, ..Default::default() };
    let properties = BasicProperties { message_id: Some(ShortBytes::cut("id")), ..Default::default() };
    let to_gone = BasicPublish { routing_key: ShortBytes::cut("gone"), ..mandatory };
    client.publish_as(&to_gone, &properties, &["3", "4"]);
    let to_both = BasicPublish { exchange: ShortBytes::cut("amq.fanout"), ..mandatory };
    client.publish_as(&to_both, &properties, &["5"]);
    assert!(client.is_silent());
    let deleted = other.ask(1, &QueueDelete { queue: ShortStr::cut("gone"), ..Default::default() });
    assert!(matches!(deleted.method(), Method::QueueDeleteOk(_)), "{deleted:?}");
    assert_eq!(other.declare("gone").1, 0, "another one of its name");
    client.say(|out| out.arguments(1, &TxCommit {}));
    for text in ["3", "4"] {
        let back = client.content();
        let Method::BasicReturn(returned) = back.method.method() else { panic!("{back:?}") };
        assert_eq!((returned.reply_code, returned.routing_key.as_bytes()), (312, &b"gone"[..]));
        assert_eq!((back.text(), &back.properties[..]), (text, &properties.to_bytes()[..]));
    }
    let came = client.frame();
    assert!(matches!(came.method(), Method::TxCommitOk(_)), "{came:?}");
    assert_eq!(got(&mut other, "kept"), ["2", "5"]);
    assert_eq!(got(&mut other, "gone"), [""; 0]);
}

#[test]
fn a_commit_that_a_queue_refuses_closes_the_channel() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let mut arguments = FieldTableBuf::new();
    arguments.push(ShortBytes::cut("x-max-length"), FieldValue::I32(1));
    arguments.push(ShortBytes::cut("x-overflow"), FieldValue::LongStr(b"reject-publish"));
    let (queue, arguments) = (ShortStr::cut("full"), arguments.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
    client.declare("other");
    select(&mut client);
    client.publish("full", &["1", "2"]);
    client.publish("other", &["3"]);
    let (code, text) = client.refused(&TxCommit {});
    assert_eq!(code, 406);
    assert!(text.starts_with("PRECONDITION_FAILED - partial tx completion"), "{text}");
    assert_eq!(got(&mut client, "full"), ["1"]);
    assert_eq!(got(&mut client, "other"), ["3"], "as with RabbitMQ the rest has taken effect");
    // What fails before takes all along.
    select(&mut client);
    client.publish("other", &["4"]);
    let absent = BasicPublish { exchange: ShortBytes::cut("absent"), ..Default::default() };
    client.publish_as(&absent, &BasicProperties::default(), &["5"]);
    let came = client.frame();
    assert_eq!(client.channel_closed(&came).0, 404);
    assert_eq!(got(&mut client, "other"), [""; 0]);
}

#[test]
fn a_channel_is_in_one_mode_alone() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let says = "PRECONDITION_FAILED - channel is not transactional";
    assert_eq!(client.refused(&TxCommit {}), (406, says.to_owned()));
    assert_eq!(client.refused(&TxRollback {}), (406, says.to_owned()));
    select(&mut client);
    select(&mut client);
    let says = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    assert_eq!(client.refused(&ConfirmSelect::default()), (406, says.to_owned()));
    client.select_confirms();
    let says = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    assert_eq!(client.refused(&TxSelect {}), (406, says.to_owned()));
}

#[test]
fn a_transaction_holds_no_more_than_a_connection_may() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["amqp.max_message=1MiB", "amqp.partial_memory=1MiB"]);
    let mut client = node.open();
    client.declare("q");
    select(&mut client);
    let body = "x".repeat(300_000);
    // What was committed and rolled back counts no more.
    for _ in 0..4 {
        client.publish("q", &[&body, &body]);
        commit(&mut client);
        client.publish("q", &[&body, &body]);
        roll_back(&mut client);
    }
    client.publish("q", &[&body, &body, &body, &body]);
    let (code, text) = client.closed();
    assert_eq!(code, 506, "{text}");
    let mut client = node.open();
    assert_eq!(client.declare("q").1, 8);
}
