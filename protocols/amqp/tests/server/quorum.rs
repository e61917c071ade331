//! Quorum queues, as they are on one node.

use std::time::{Duration, Instant};

use sabir_amqp::wire::*;

use crate::node::{Client, Content, Node};

fn declare(client: &mut Client, queue: &str, more: &[(&str, FieldValue<'_>)]) {
    let mut table = FieldTableBuf::new();
    table.push(ShortBytes::cut("x-queue-type"), FieldValue::LongStr(b"quorum"));
    for (name, value) in more {
        table.push(ShortBytes::cut(name), *value);
    }
    let (queue, arguments) = (ShortStr::cut(queue), table.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
}

/// How often it says that it was given back.
fn count(content: &Content) -> Option<FieldValue<'_>> {
    let headers = BasicProperties::read(&content.properties).unwrap().headers?;
    assert_eq!(headers.get("own"), Some(FieldValue::I32(1)), "the rest is as it was");
    headers.get("x-delivery-count")
}

#[test]
fn a_message_of_a_quorum_queue_says_how_often_it_was_given_back() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, "q", &[]);
    let mut headers = FieldTableBuf::new();
    headers.push(ShortBytes::cut("own"), FieldValue::I32(1));
    let properties = BasicProperties { headers: Some(headers.as_table()), ..Default::default() };
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    client.publish_as(&publish, &properties, &["m"]);
    for turn in 0..3 {
        let got = client.get("q", false).unwrap();
        let wanted = (turn > 0).then_some(FieldValue::I64(turn));
        assert_eq!((count(&got), got.got().redelivered), (wanted, turn > 0));
        let delivery_tag = got.got().delivery_tag;
        client.say(|out| out.arguments(1, &BasicReject { delivery_tag, requeue: true }));
    }
    client.consume("q", "c", false);
    let delivered = client.content();
    assert_eq!(count(&delivered), Some(FieldValue::I64(3)));
    // So does what is given back in another way.
    let nack = BasicNack { delivery_tag: delivered.delivered().delivery_tag, multiple: false, requeue: true };
    client.say(|out| out.arguments(1, &nack));
    assert_eq!(count(&client.content()), Some(FieldValue::I64(4)));
    // A connection that is lost does, and the count outlives the node.
    drop(client);
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    let again = client.get("q", false).unwrap();
    assert!(matches!(count(&again), Some(FieldValue::I64(4 | 5))), "{again:?}");
}

#[test]
fn a_message_that_comes_back_waits_longer_each_time_and_goes_after_the_last() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("dead");
    let waits = [
        ("x-delayed-retry-type", FieldValue::LongStr(b"failed")),
        ("x-delayed-retry-min", FieldValue::I32(120)),
        ("x-delayed-retry-max", FieldValue::I32(200)),
        ("x-delivery-limit", FieldValue::I32(2)),
        ("x-dead-letter-exchange", FieldValue::LongStr(b"")),
        ("x-dead-letter-routing-key", FieldValue::LongStr(b"dead")),
    ];
    declare(&mut client, "q", &waits);
    client.publish("q", &["m"]);
    let held = |client: &mut Client| {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < Duration::from_secs(30));
            match client.get("q", false) {
                Some(got) => return got,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    };
    let mut got = held(&mut client);
    for wait in [120, 200] {
        let delivery_tag = got.got().delivery_tag;
        let began = Instant::now();
        client.say(|out| out.arguments(1, &BasicReject { delivery_tag, requeue: true }));
        got = held(&mut client);
        let waited = began.elapsed();
        assert!(waited >= Duration::from_millis(wait), "{waited:?}");
    }
    let delivery_tag = got.got().delivery_tag;
    client.say(|out| out.arguments(1, &BasicReject { delivery_tag, requeue: true }));
    assert_eq!(client.get_soon("dead").unwrap().text(), "m");
}

#[test]
fn what_quorum_queues_do_not_have_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, "q", &[("x-single-active-consumer", FieldValue::Bool(true))]);
    let (code, text) = client.refused(&BasicGet { queue: ShortStr::cut("q"), ..Default::default() });
    assert_eq!(code, 405, "{text}");
    let (code, text) =
        client.refused(&QueueDeclare { queue: ShortStr::cut("q"), durable: true, ..Default::default() });
    assert_eq!(code, 406);
    assert!(text.contains("inequivalent arg 'x-queue-type' for queue 'q' in vhost '/'"), "{text}");
    let bounded = BasicQos { prefetch_count: 1, global: true, ..Default::default() };
    assert!(matches!(client.ask(1, &bounded).method(), Method::BasicQosOk(_)));
    let came = client.ask(1, &BasicConsume { queue: ShortStr::cut("q"), ..Default::default() });
    assert!(
        matches!(came.method(), Method::ConnectionClose(ConnectionClose { reply_code: 540, .. })),
        "{came:?}"
    );
}
