//! Queues of bounded length, and those that one consumer has at a time.

use sabir_amqp::wire::*;

use crate::node::{Client, Node};

fn declare(client: &mut Client, queue: &str, arguments: &[(&str, FieldValue<'_>)]) -> u32 {
    let mut table = FieldTableBuf::new();
    for (name, value) in arguments {
        table.push(ShortBytes::cut(name), *value);
    }
    let (queue, arguments) = (ShortStr::cut(queue), table.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() }).1
}

fn ready(client: &mut Client, queue: &str) -> u32 {
    let queue = ShortStr::cut(queue);
    client.declare_as(&QueueDeclare { queue, passive: true, ..Default::default() }).1
}

fn got(client: &mut Client, queue: &str) -> Vec<String> {
    std::iter::from_fn(|| client.get(queue, true).map(|got| got.text().to_owned())).collect()
}

const REFUSES: (&str, FieldValue<'_>) = ("x-overflow", FieldValue::LongStr(b"reject-publish"));

#[test]
fn a_full_queue_lets_go_of_its_oldest_ready_messages() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.select_confirms();
    declare(&mut client, "q", &[("x-max-length", FieldValue::I32(3))]);
    client.publish("q", &["0", "1", "2", "3", "4", "5"]);
    assert!(client.confirmed(6).is_empty());
    assert_eq!(ready(&mut client, "q"), 3);
    let held = client.get("q", false).unwrap();
    assert_eq!(held.text(), "3");
    client.publish("q", &["6"]);
    client.frame();
    assert_eq!(ready(&mut client, "q"), 3, "what is out does not count");
    client.publish("q", &["7"]);
    client.frame();
    client.ack(held.got().delivery_tag, false);
    assert_eq!(got(&mut client, "q"), ["5", "6", "7"]);
}

#[test]
fn what_is_given_back_to_a_full_queue_counts_anew() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, "q", &[("x-max-length", FieldValue::I32(2))]);
    client.publish("q", &["1", "2"]);
    let delivery_tag = client.get("q", false).unwrap().got().delivery_tag;
    client.publish("q", &["3"]);
    client.say(|out| out.arguments(1, &BasicReject { delivery_tag, requeue: true }));
    assert_eq!(got(&mut client, "q"), ["2", "3"], "the oldest goes");
}

#[test]
fn bytes_are_those_of_bodies() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, "q", &[("x-max-length-bytes", FieldValue::I32(100))]);
    let (a, b) = ("a".repeat(60), "b".repeat(40));
    client.publish("q", &[&a, &b]);
    assert_eq!(ready(&mut client, "q"), 2);
    client.publish("q", &["c"]);
    assert_eq!(got(&mut client, "q"), [&*b, "c"]);
    client.publish("q", &[&"d".repeat(101)]);
    assert_eq!(got(&mut client, "q"), [""; 0], "it does not fit by itself");
}

#[test]
fn a_full_queue_that_refuses_takes_of_what_came_together_as_many_as_fit() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, "q", &[("x-max-length", FieldValue::I32(2)), REFUSES]);
    client.publish("q", &["0", "1", "2"]);
    assert_eq!(got(&mut client, "q"), ["0", "1"], "nobody is told of the third without confirms");
    client.select_confirms();
    client.publish("q", &["3", "4", "5", "6"]);
    assert_eq!(client.confirmed(4), [3, 4]);
    assert_eq!(client.get("q", true).unwrap().text(), "3");
    client.publish("q", &["7"]);
    assert!(matches!(client.frame().method(), Method::BasicAck(_)));
    assert_eq!(got(&mut client, "q"), ["4", "7"]);
    let mut client = node.open();
    client.select_confirms();
    declare(&mut client, "bytes", &[("x-max-length-bytes", FieldValue::I32(3)), REFUSES]);
    client.publish("bytes", &["ab", "cd", "e"]);
    assert_eq!(client.confirmed(3), [2]);
    assert_eq!(got(&mut client, "bytes"), ["ab", "e"]);
}

#[test]
fn what_one_of_many_queues_refuses_is_refused_and_the_others_keep_it() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, "full", &[("x-max-length", FieldValue::I32(0)), REFUSES]);
    client.declare("one");
    client.declare("two");
    for queue in ["one", "full", "two"] {
        let (queue, exchange) = (ShortStr::cut(queue), ShortStr::cut("amq.fanout"));
        let bound = client.ask(1, &QueueBind { queue, exchange, ..Default::default() });
        assert!(matches!(bound.method(), Method::QueueBindOk(_)), "{bound:?}");
    }
    client.select_confirms();
    let publish = BasicPublish { exchange: ShortBytes::cut("amq.fanout"), ..Default::default() };
    client.publish_as(&publish, &BasicProperties::default(), &["a", "b"]);
    assert_eq!(client.confirmed(2), [1, 2]);
    assert_eq!(got(&mut client, "one"), ["a", "b"]);
    assert_eq!(got(&mut client, "two"), ["a", "b"]);
    assert_eq!(ready(&mut client, "full"), 0);
}

#[test]
fn a_single_active_consumer_hands_over_as_soon_as_it_cancels() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut one, mut two) = (node.open(), node.open());
    declare(&mut one, "q", &[("x-single-active-consumer", FieldValue::Bool(true))]);
    let alone = BasicConsume { queue: ShortStr::cut("q"), exclusive: true, ..Default::default() };
    let (code, text) = one.refused(&alone);
    assert_eq!((code, &*text), (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"));
    one.qos(2);
    one.consume("q", "one", false);
    two.consume("q", "two", false);
    one.publish("q", &["0", "1", "2", "3"]);
    assert_eq!((one.content().text(), one.content().text()), ("0", "1"));
    assert!(two.is_silent());
    let cancelled = one.ask(1, &BasicCancel { consumer_tag: ShortStr::cut("one"), no_wait: false });
    assert!(matches!(cancelled.method(), Method::BasicCancelOk(_)));
    assert_eq!([two.content(), two.content()].map(|content| content.text().to_owned()), ["2", "3"]);
    one.ack(1, false);
    drop(one);
    let back = two.content();
    assert_eq!(
        (back.text(), back.delivered().redelivered),
        ("1", true),
        "what the first had comes back to it"
    );
}
