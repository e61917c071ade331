//! Queues that drop a message with the id of an earlier one.

use sabir_amqp::wire::*;

use crate::node::{Client, Node};

fn declare(client: &mut Client, queue: &str, window_ms: i32) -> (String, u32, u32) {
    let mut table = FieldTableBuf::new();
    table.push(ShortBytes::cut("x-dedup-window"), FieldValue::I32(window_ms));
    let (queue, arguments) = (ShortStr::cut(queue), table.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() })
}

fn publish(client: &mut Client, exchange: &str, queue: &str, ids: &[&str], delay: Option<i32>) {
    let mut headers = FieldTableBuf::new();
    if let Some(delay) = delay {
        headers.push(ShortBytes::cut("x-delay"), FieldValue::I32(delay));
    }
    for id in ids {
        let message_id = Some(ShortBytes::cut(id));
        let headers = delay.map(|_| headers.as_table());
        let properties = BasicProperties { message_id, headers, ..Default::default() };
        let (exchange, routing_key) = (ShortBytes::cut(exchange), ShortBytes::cut(queue));
        client.publish_as(&BasicPublish { exchange, routing_key, ..Default::default() }, &properties, &[id]);
    }
}

fn rest(client: &mut Client, queue: &str) -> Vec<String> {
    std::iter::from_fn(|| client.get(queue, true)).map(|content| content.text().to_owned()).collect()
}

#[test]
fn a_message_that_comes_twice_is_confirmed_and_delivered_once_over_a_start() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare(&mut client, "q", 3_600_000);
    client.declare("other");
    client.select_confirms();
    publish(&mut client, "", "q", &["a", "b", "a", "", "", "c"], None);
    publish(&mut client, "", "other", &["a", "a"], None);
    assert_eq!(client.confirmed(8), [0; 0]);
    assert_eq!(declare(&mut client, "q", 3_600_000).1, 5);
    assert_eq!(rest(&mut client, "q"), ["a", "b", "", "", "c"]);
    assert_eq!(rest(&mut client, "other"), ["a", "a"]);
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.select_confirms();
    publish(&mut client, "", "q", &["b", "d"], None);
    assert_eq!(client.confirmed(2), [0; 0]);
    assert_eq!(rest(&mut client, "q"), ["d"], "what was consumed is known, too");
    let stats = node.broker().stats();
    let (known, repeated) = (|s: u64, n: u64| s + n, 0);
    let sums = stats
        .shards
        .iter()
        .fold((0, repeated), |(ids, again), shard| (known(ids, shard.message_ids), again + shard.repeated));
    assert_eq!(sums, (4, 1));
}

#[test]
fn a_dead_letter_comes_back_and_a_delayed_message_counts_when_it_comes() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let mut table = FieldTableBuf::new();
    table.push(ShortBytes::cut("x-dedup-window"), FieldValue::I32(3_600_000));
    let (queue, arguments) = (ShortStr::cut("q"), table.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
    // What it rejects goes back to the first one.
    let mut table = FieldTableBuf::new();
    table.push(ShortBytes::cut("x-dead-letter-exchange"), FieldValue::LongStr(b""));
    table.push(ShortBytes::cut("x-dead-letter-routing-key"), FieldValue::LongStr(b"q"));
    let (queue, arguments) = (ShortStr::cut("second"), table.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
    client.select_confirms();
    publish(&mut client, "", "q", &["a"], None);
    publish(&mut client, "", "second", &["a"], None);
    assert_eq!(client.confirmed(2), [0; 0]);
    assert_eq!(client.get("q", true).unwrap().text(), "a");
    let got = client.get("second", false).unwrap();
    let delivery_tag = got.got().delivery_tag;
    client.say(|out| out.arguments(1, &BasicReject { delivery_tag, requeue: false }));
    assert_eq!(client.get_soon("q").unwrap().text(), "a", "a dead letter is no duplicate");
    let mut table = FieldTableBuf::new();
    table.push(ShortBytes::cut("x-delayed-type"), FieldValue::LongStr(b"direct"));
    let (exchange, arguments) = (ShortStr::cut("later"), table.as_table());
    let kind = ShortStr::cut("x-delayed-message");
    let declared =
        client.ask(1, &ExchangeDeclare { exchange, kind, durable: true, arguments, ..Default::default() });
    assert_eq!(declared.method().name(), "exchange.declare-ok");
    let bind = QueueBind {
        queue: ShortStr::cut("q"),
        exchange,
        routing_key: ShortStr::cut("q"),
        ..Default::default()
    };
    assert_eq!(client.ask(1, &bind).method().name(), "queue.bind-ok");
    publish(&mut client, "later", "q", &["x", "a", "x", "y"], Some(1));
    assert_eq!(client.confirmed_from(2, 6), [0; 0]);
    assert_eq!(client.get_soon("q").unwrap().text(), "x");
    assert_eq!(client.get_soon("q").unwrap().text(), "y");
    assert_eq!(rest(&mut client, "q"), [""; 0]);
}

#[test]
fn what_queues_may_remember_is_bounded() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["topic.dedup_memory=2MiB"]);
    let mut client = node.open();
    declare(&mut client, "q", 1_000);
    let mut table = FieldTableBuf::new();
    table.push(ShortBytes::cut("x-dedup-window"), FieldValue::I32(1_000));
    let (queue, arguments) = (ShortStr::cut("more"), table.as_table());
    let (code, text) =
        client.refused(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
    assert_eq!(code, 406);
    assert!(text.contains("topic.dedup_memory"), "{text}");
    client.ask(1, &QueueDelete { queue: ShortStr::cut("q"), ..Default::default() });
    declare(&mut client, "more", 1_000);
}
