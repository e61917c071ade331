//! Messages that an exchange keeps back.

use std::time::{Duration, Instant};

use sabir_amqp::wire::*;
use sabir_base::testing::best_of_three;

use crate::node::{Client, Node};

fn arguments(kind: &str) -> FieldTableBuf {
    let mut arguments = FieldTableBuf::new();
    arguments.push(ShortBytes::cut("x-delayed-type"), FieldValue::LongStr(kind.as_bytes()));
    arguments
}

fn delayed<'a>(name: &'a str, arguments: &'a FieldTableBuf) -> ExchangeDeclare<'a> {
    let (exchange, kind) = (ShortStr::cut(name), ShortStr::cut("x-delayed-message"));
    ExchangeDeclare { exchange, kind, durable: true, arguments: arguments.as_table(), ..Default::default() }
}

fn bind(client: &mut Client, queue: &str, exchange: &str, key: &str) {
    let (queue, exchange, routing_key) = (ShortStr::cut(queue), ShortStr::cut(exchange), ShortStr::cut(key));
    let came = client.ask(1, &QueueBind { queue, exchange, routing_key, ..Default::default() });
    assert!(matches!(came.method(), Method::QueueBindOk(_)), "{came:?}");
}

fn publish(client: &mut Client, key: &str, delay: Option<i32>, body: &str) {
    let mut headers = FieldTableBuf::new();
    headers.push(ShortBytes::cut("own"), FieldValue::Bool(true));
    if let Some(delay) = delay {
        headers.push(ShortBytes::cut("x-delay"), FieldValue::I32(delay));
    }
    let properties = BasicProperties { headers: Some(headers.as_table()), ..Default::default() };
    let (exchange, routing_key) = (ShortBytes::cut("later"), ShortBytes::cut(key));
    // No client is told of a message without a queue as long as it is kept back.
    let publish = BasicPublish { exchange, routing_key, mandatory: true, ..Default::default() };
    client.publish_as(&publish, &properties, &[body]);
}

#[test]
fn a_message_comes_when_its_delay_is_over_and_goes_where_bindings_lead_then() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    let direct = arguments("direct");
    for _ in 0..2 {
        let came = client.ask(1, &delayed("later", &direct));
        assert!(matches!(came.method(), Method::ExchangeDeclareOk(_)), "{came:?}");
    }
    client.select_confirms();
    let began = Instant::now();
    // What is bound below is bound before their time, on a busy machine as well.
    publish(&mut client, "k", Some(2_500), "third");
    publish(&mut client, "k", Some(2_000), "second");
    publish(&mut client, "none", Some(100), "nowhere");
    assert!(client.confirmed(3).is_empty(), "kept back is stored, and none is returned");
    bind(&mut client, "q", "later", "k");
    let mut other = node.open();
    other.select_confirms();
    publish(&mut other, "k", Some(-5), "first");
    publish(&mut other, "k", None, "at once");
    assert!(other.confirmed(2).is_empty());
    client.consume("q", "c", true);
    let mut confirmed = 3;
    let mut after = Vec::new();
    for (body, delay) in
        [("first", Some(-5)), ("at once", None), ("second", Some(-2_000)), ("third", Some(-2_500))]
    {
        let content = client.content();
        assert_eq!(content.text(), body);
        let delivered = content.delivered();
        assert_eq!((&delivered.exchange[..], &delivered.routing_key[..]), (&b"later"[..], &b"k"[..]));
        let headers = BasicProperties::read(&content.properties).unwrap().headers.unwrap();
        assert_eq!(headers.get("own"), Some(FieldValue::Bool(true)));
        assert_eq!(headers.get("x-delay"), delay.map(FieldValue::I32), "{body}");
        after.push(began.elapsed());
    }
    for (after, delay) in after[2..].iter().zip([2_000, 2_500]) {
        assert!(*after >= Duration::from_millis(delay), "{after:?} for {delay} ms");
    }
    best_of_three(Duration::from_millis(300 + 2_000), || {
        let began = Instant::now();
        publish(&mut client, "k", Some(300), "soon");
        client.confirmed_from(confirmed, confirmed + 1);
        confirmed += 1;
        assert_eq!(client.content().text(), "soon");
        began.elapsed()
    });
}

#[test]
fn a_message_that_is_kept_back_is_there_after_a_stop_and_comes_once() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    let topic = arguments("topic");
    client.ask(1, &delayed("later", &topic));
    bind(&mut client, "q", "later", "a.#");
    client.select_confirms();
    for (number, delay) in [10, 1_500, 40, 2_000].into_iter().enumerate() {
        publish(&mut client, "a.b", Some(delay), &format!("m{number}"));
    }
    assert!(client.confirmed(4).is_empty());
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.consume("q", "c", true);
    let came: Vec<String> = (0..4).map(|_| client.content().text().to_owned()).collect();
    assert_eq!(came, ["m0", "m2", "m1", "m3"]);
    assert!(client.is_silent(), "each comes once");
}

#[test]
fn what_a_deleted_exchange_kept_back_does_not_come_by_one_of_its_name() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    let direct = arguments("direct");
    client.ask(1, &delayed("later", &direct));
    bind(&mut client, "q", "later", "k");
    client.select_confirms();
    publish(&mut client, "k", Some(800), "old");
    assert!(client.confirmed(1).is_empty());
    let exchange = ShortStr::cut("later");
    let came = client.ask(1, &ExchangeDelete { exchange, ..Default::default() });
    assert!(matches!(came.method(), Method::ExchangeDeleteOk(_)), "{came:?}");
    client.ask(1, &delayed("later", &direct));
    bind(&mut client, "q", "later", "k");
    publish(&mut client, "k", Some(1_200), "new");
    client.confirmed_from(1, 2);
    client.consume("q", "c", true);
    assert_eq!(client.content().text(), "new");
    assert!(client.is_silent());
}

#[test]
fn nobody_takes_what_is_kept_back() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.ask(1, &delayed("later", &arguments("direct")));
    let queue = ShortStr::cut("__amqp_delayed");
    let (code, text) = client.refused(&BasicGet { queue, ..Default::default() });
    let refused = "ACCESS_REFUSED - queue '__amqp_delayed' in vhost '/': no client uses an internal topic";
    assert_eq!((code, &*text), (403, refused));
    assert_eq!(client.refused(&BasicConsume { queue, ..Default::default() }).0, 403);
    assert_eq!(client.refused(&QueuePurge { queue, ..Default::default() }).0, 403);
    assert_eq!(client.refused(&QueueDelete { queue, ..Default::default() }).0, 403);
    for passive in [false, true] {
        assert_eq!(
            client.refused(&QueueDeclare { queue, passive, durable: true, ..Default::default() }).0,
            403
        );
    }
    publish(&mut client, "k", Some(1), "goes nowhere");
    let publish = BasicPublish {
        routing_key: ShortBytes::cut("__amqp_delayed"),
        mandatory: true,
        ..Default::default()
    };
    client.publish_as(&publish, &BasicProperties::default(), &["to it"]);
    let returned = client.frame();
    assert!(matches!(returned.method(), Method::BasicReturn(_)), "{returned:?}");
}

#[test]
fn an_exchange_delays_for_a_type_that_there_is() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    for kind in ["", "x-delayed-message", "other"] {
        let (code, text) = client.refused(&delayed("later", &arguments(kind)));
        assert_eq!(code, 406);
        assert!(text.ends_with("'x-delayed-type' must be an existing exchange type"), "{text}");
    }
    let direct = arguments("direct");
    client.ask(1, &delayed("later", &direct));
    let plain = ExchangeDeclare { kind: ShortStr::cut("direct"), ..delayed("later", &direct) };
    let (code, text) = client.refused(&plain);
    assert_eq!(code, 406);
    assert!(text.contains("inequivalent arg 'type'") && text.contains("'x-delayed-message'"), "{text}");
    let (code, text) = client.refused(&delayed("later", &arguments("fanout")));
    assert_eq!(code, 406);
    assert!(text.contains("inequivalent arg 'x-delayed-type'"), "{text}");
}
