//! Subscriptions of topics that are no queues.

use std::sync::Arc;
use std::time::Instant;

use sabir_amqp::wire::*;
use sabir_broker::{AppendAcks, AppendTarget, Caller, NewTopic, Publish, PublishTargets, Topic};
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{FrontendNo, TopicConfig};

use crate::node::{Client, Content, Node, PATIENCE};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn topic(node: &Node, name: &str, partitions: u32) -> Arc<Topic> {
    let config = TopicConfig::default();
    let new = NewTopic { name: name.into(), partitions, config, internal: false, unlike: false };
    block_on(node.broker().create_topics(&Caller::OPERATOR, vec![new])).remove(0).unwrap()
}

/// Appends records as a client does that says nothing but their values, at a time in milliseconds.
fn produce_at(node: &Node, topic: &Arc<Topic>, index: i32, values: &[&str], time_ms: i64) {
    let target = AppendTarget::new(&Caller::OPERATOR, topic, index, AppendAcks::Leader, FrontendNo::NONE);
    let targets = PublishTargets::new(vec![target.unwrap()]).unwrap();
    let mut batch = BatchBuilder::new(Compression::None);
    values.iter().for_each(|value| batch.push(time_ms, None, Some(value.as_bytes()), &[]));
    let batch = batch.build_checked(&targets.rules(), node.broker().wall_ms()).unwrap();
    let mut outcomes = node.broker().publish(&Caller::OPERATOR, &Publish::new(targets, [batch])).unwrap();
    node.broker().flush();
    assert!(block_on(outcomes.next()).unwrap().result.is_ok());
}

fn produce(node: &Node, topic: &Arc<Topic>, index: i32, values: &[&str]) {
    produce_at(node, topic, index, values, node.broker().wall_ms());
}

fn text(text: &str) -> FieldValue<'_> {
    FieldValue::LongStr(text.as_bytes())
}

fn table(arguments: &[(&str, FieldValue<'_>)]) -> FieldTableBuf {
    let mut table = FieldTableBuf::new();
    for (name, value) in arguments {
        table.push(ShortBytes::cut(name), *value);
    }
    table
}

/// Consumes with arguments; with which code that was refused, or 0.
fn consume(client: &mut Client, topic: &str, tag: &str, arguments: &[(&str, FieldValue<'_>)]) -> u16 {
    let (queue, consumer_tag, arguments) = (ShortStr::cut(topic), ShortStr::cut(tag), table(arguments));
    let arguments = arguments.as_table();
    client.refused_or_done(&BasicConsume { queue, consumer_tag, arguments, ..Default::default() })
}

fn passively(client: &mut Client, topic: &str) -> (u32, u32) {
    let queue = ShortStr::cut(topic);
    let (_, messages, consumers) =
        client.declare_as(&QueueDeclare { queue, passive: true, ..Default::default() });
    (messages, consumers)
}

fn assert_has(client: &mut Client, topic: &str, messages: u32, consumers: u32) {
    let began = Instant::now();
    while passively(client, topic) != (messages, consumers) {
        assert!(began.elapsed() < PATIENCE, "{:?} in {topic}", passively(client, topic));
    }
}

fn texts(client: &mut Client, count: usize) -> Vec<String> {
    let all: Vec<Content> = (0..count).map(|_| client.content()).collect();
    all.iter().map(|content| content.text().to_owned()).collect()
}

#[test]
fn a_topic_is_consumed_message_by_message_and_goes_on_after_a_start() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let orders = topic(&node, "orders", 1);
    produce(&node, &orders, 0, &["0", "1", "2", "3", "4", "5"]);
    let mut client = node.open();
    assert_eq!(passively(&mut client, "orders"), (6, 0), "what it would begin with");
    client.qos(4);
    client.consume("orders", "c", false);
    let first = client.content();
    let deliver = first.delivered();
    assert_eq!(
        (first.text(), deliver.redelivered, deliver.routing_key.as_bytes()),
        ("0", false, &b"orders"[..])
    );
    assert_eq!(texts(&mut client, 3), ["1", "2", "3"]);
    client.ack(2, false);
    assert_eq!(client.content().text(), "4");
    client.say(|out| out.arguments(1, &BasicNack { delivery_tag: 3, multiple: false, requeue: true }));
    let again = client.content();
    assert_eq!((again.text(), again.delivered().redelivered), ("2", true), "at its place");
    client.ack(0, true);
    assert_eq!(client.content().text(), "5");
    client.ack(0, true);
    produce(&node, &orders, 0, &["6"]);
    assert_eq!(client.content().text(), "6");
    assert_has(&mut client, "orders", 0, 1);
    drop(client);
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    let orders = node.broker().catalog().topic("orders").unwrap().clone();
    produce(&node, &orders, 0, &["7"]);
    assert_has(&mut client, "orders", 2, 0);
    client.consume("orders", "c", false);
    let (six, seven) = (client.content(), client.content());
    assert_eq!((six.text(), six.delivered().redelivered), ("6", true));
    assert_eq!((seven.text(), seven.delivered().redelivered), ("7", false));
}

#[test]
fn all_partitions_are_consumed_each_in_its_order_and_the_prefetch_holds() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["data.shards=1"]);
    let spread = topic(&node, "spread", 3);
    for index in 0..3 {
        let values: Vec<String> = (0..20).map(|number| format!("{index} {number}")).collect();
        produce(&node, &spread, index, &values.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let mut client = node.open();
    client.qos(5);
    client.consume("spread", "c", false);
    let mut next = [0; 3];
    for number in 0..60 {
        if number == 5 {
            assert!(client.is_silent(), "it has as many as it may have");
        }
        if number >= 5 {
            client.ack(number - 4, false);
        }
        let content = client.content();
        let (index, at) = content.text().split_once(' ').unwrap();
        let (index, at): (usize, u32) = (index.parse().unwrap(), at.parse().unwrap());
        assert_eq!(at, next[index]);
        next[index] += 1;
    }
    client.ack(0, true);
    assert_has(&mut client, "spread", 0, 1);
    assert!(client.get("spread", false).is_none());
    for index in 0..3 {
        produce(&node, &spread, index, &["later"]);
    }
    assert_eq!(texts(&mut client, 3), ["later"; 3]);
}

#[test]
fn single_messages_are_got_of_all_partitions() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let spread = topic(&node, "spread", 3);
    let mut client = node.open();
    assert!(client.get("spread", false).is_none());
    for index in 0..3 {
        produce(&node, &spread, index, &["x", "y"]);
    }
    let mut left = Vec::new();
    while let Some(got) = client.get("spread", false) {
        left.push(got.got().message_count);
    }
    assert_eq!(left, [5, 4, 3, 2, 1, 0]);
    client.say(|out| out.arguments(1, &BasicRecover { requeue: true }));
    assert!(matches!(client.frame().method(), Method::BasicRecoverOk(_)));
    assert_has(&mut client, "spread", 6, 0);
    while client.get("spread", true).is_some() {}
    assert_has(&mut client, "spread", 0, 0);
}

#[test]
fn consumers_that_name_a_subscription_share_it_and_others_have_their_own() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let events = topic(&node, "events", 1);
    produce(&node, &events, 0, &["0", "1"]);
    let (mut one, mut two, mut other) = (node.open(), node.open(), node.open());
    for client in [&mut one, &mut two] {
        client.qos(1);
        assert_eq!(consume(client, "events", "c", &[("x-subscription", text("workers"))]), 0);
    }
    other.consume("events", "c", false);
    let shared = [one.content().text().to_owned(), two.content().text().to_owned()];
    assert_eq!(shared, ["0", "1"]);
    assert_eq!(texts(&mut other, 2), ["0", "1"]);
    let names = node.broker().subscriptions(&Caller::OPERATOR, &events).unwrap();
    assert_eq!(names.iter().map(|of| &*of.name).collect::<Vec<_>>(), ["events", "workers"]);
}

#[test]
fn a_new_subscription_begins_where_its_consumer_says() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let events = topic(&node, "events", 1);
    for (value, time_ms) in [("0", 1_000), ("1", 2_000), ("2", 3_000)] {
        produce_at(&node, &events, 0, &[value], time_ms);
    }
    let mut client = node.open();
    let starts = [
        (text("first"), "0"),
        (text("last"), "2"),
        (FieldValue::I32(1), "1"),
        (FieldValue::Timestamp(2), "1"),
        (text("next"), "3"),
    ];
    for (number, (start, first)) in starts.iter().enumerate() {
        let tag = format!("c{number}");
        let arguments = [("x-subscription", text(&tag)), ("x-stream-offset", *start)];
        assert_eq!(consume(&mut client, "events", &tag, &arguments), 0);
        if *first == "3" {
            produce(&node, &events, 0, &["3"]);
        }
        let content = client.content();
        assert_eq!((content.text(), content.delivered().consumer_tag.as_str()), (*first, &*tag));
        client = node.open();
    }
    topic(&node, "spread", 2);
    let too_long = "x".repeat(256);
    let refused: [(&str, &[(&str, FieldValue<'_>)]); 8] = [
        ("events", &[("x-stream-offset", text("soon"))]),
        ("events", &[("x-stream-offset", FieldValue::I32(-1))]),
        ("spread", &[("x-stream-offset", FieldValue::I32(1))]),
        ("events", &[("x-subscription", text(""))]),
        // The broker's may have 1,024 bytes; AMQP's names have what a short string has.
        ("events", &[("x-subscription", text(&too_long))]),
        ("events", &[("x-subscription", FieldValue::I32(1))]),
        ("events", &[("x-subscription", text("c0")), ("x-delivery-limit", FieldValue::I32(3))]),
        ("events", &[("x-consume-rate", FieldValue::I32(3))]),
    ];
    for (topic, arguments) in refused {
        assert_eq!(consume(&mut client, topic, "c", arguments), 406, "{topic} {arguments:?}");
    }
}

#[test]
fn what_a_subscription_gives_up_is_dead_lettered() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    topic(&node, "orders", 2);
    let mut client = node.open();
    client.publish("orders", &["bad", "good", "poison"]);
    client.declare("dead");
    let arguments = [
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
        ("x-delivery-limit", FieldValue::I32(1)),
    ];
    assert_eq!(consume(&mut client, "orders", "c", &arguments), 0);
    assert_eq!(texts(&mut client, 3), ["bad", "good", "poison"]);
    let requeue = |delivery_tag, requeue| BasicReject { delivery_tag, requeue };
    client.say(|out| {
        out.arguments(1, &requeue(1, false));
        out.arguments(1, &requeue(3, true));
    });
    let again = client.content();
    assert_eq!((again.text(), again.delivered().redelivered), ("poison", true));
    let headers = BasicProperties::read(&again.properties).unwrap().headers.unwrap();
    assert_eq!(headers.get("x-delivery-count"), Some(FieldValue::I64(1)));
    client.say(|out| out.arguments(1, &requeue(4, true)));
    let mut reader = node.open();
    let reasons = ["rejected", "delivery_limit"];
    for (body, reason) in ["bad", "poison"].iter().zip(reasons) {
        let dead = reader.get_soon("dead").unwrap();
        assert_eq!(dead.text(), *body);
        let headers = BasicProperties::read(&dead.properties).unwrap().headers.unwrap();
        assert_eq!(headers.get("x-first-death-reason"), Some(text(reason)));
        assert_eq!(headers.get("x-first-death-queue"), Some(text("orders")));
    }
    client.ack(2, false);
    // The channel is answered behind what it said before.
    assert_has(&mut client, "orders", 0, 1);
    drop((client, reader));
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.publish("orders", &["worse"]);
    client.consume("orders", "c", false);
    assert_eq!(client.content().text(), "worse");
    client.say(|out| out.arguments(1, &requeue(1, false)));
    assert_eq!(client.get_soon("dead").unwrap().text(), "worse", "it is remembered where they go");
}

#[test]
fn a_purge_moves_to_the_end_and_a_deletion_leaves_the_topic() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let orders = topic(&node, "orders", 2);
    produce(&node, &orders, 0, &["a", "b"]);
    produce(&node, &orders, 1, &["c"]);
    let mut client = node.open();
    let queue = ShortStr::cut("orders");
    let purged =
        |client: &mut Client| match client.ask(1, &QueuePurge { queue, ..Default::default() }).method() {
            Method::QueuePurgeOk(ok) => ok.message_count,
            other => panic!("{other:?}"),
        };
    assert_eq!(purged(&mut client), 3, "of one that begins with that");
    produce(&node, &orders, 1, &["d", "e"]);
    assert_has(&mut client, "orders", 2, 0);
    assert_eq!(purged(&mut client), 2);
    produce(&node, &orders, 0, &["f"]);
    client.consume("orders", "c", false);
    assert_eq!(client.content().text(), "f");
    let mut other = node.open();
    let delete = QueueDelete { queue, ..Default::default() };
    assert_eq!(other.refused(&QueueDelete { if_unused: true, ..delete }).0, 406);
    produce(&node, &orders, 0, &["g"]);
    assert_eq!(client.content().text(), "g");
    match other.ask(1, &delete).method() {
        Method::QueueDeleteOk(ok) => assert_eq!(ok.message_count, 0),
        other => panic!("{other:?}"),
    }
    assert_eq!(passively(&mut other, "orders"), (7, 0), "all of it is there");
    assert_eq!(texts_got(&mut other, "orders"), 7);
}

fn texts_got(client: &mut Client, topic: &str) -> usize {
    std::iter::from_fn(|| client.get(topic, true)).count()
}

#[test]
fn an_exclusive_consumer_has_the_subscription_to_itself() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let spread = topic(&node, "spread", 3);
    let (mut one, mut two) = (node.open(), node.open());
    one.consume("spread", "c", false);
    let queue = ShortStr::cut("spread");
    let exclusive = BasicConsume { queue, exclusive: true, ..Default::default() };
    assert_eq!(two.refused(&exclusive).0, 403);
    produce(&node, &spread, 2, &["a"]);
    assert_eq!(one.content().text(), "a", "it is not in the way");
    let cancelled = one.ask(1, &BasicCancel { consumer_tag: ShortStr::cut("c"), no_wait: false });
    assert!(matches!(cancelled.method(), Method::BasicCancelOk(_)));
    assert!(matches!(two.ask(1, &exclusive).method(), Method::BasicConsumeOk(_)));
    let plain = BasicConsume { queue, ..Default::default() };
    assert_eq!(one.refused(&plain).0, 403);
}
