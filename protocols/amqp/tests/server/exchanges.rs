//! Exchanges, bindings, and where messages go by them.

use sabir_amqp::wire::*;

use crate::node::{Client, Node};

fn exchange<'a>(name: &'a str, kind: &'a str) -> ExchangeDeclare<'a> {
    let (exchange, kind) = (ShortStr::cut(name), ShortStr::cut(kind));
    ExchangeDeclare { exchange, kind, durable: true, ..Default::default() }
}

fn declare(client: &mut Client, name: &str, kind: &str) {
    let came = client.ask(1, &exchange(name, kind));
    assert!(matches!(came.method(), Method::ExchangeDeclareOk(_)), "{came:?}");
}

fn binding<'a>(queue: &'a str, exchange: &'a str, key: &'a str) -> QueueBind<'a> {
    let (queue, exchange, routing_key) = (ShortStr::cut(queue), ShortStr::cut(exchange), ShortStr::cut(key));
    QueueBind { queue, exchange, routing_key, ..Default::default() }
}

fn bind(client: &mut Client, queue: &str, exchange: &str, key: &str) {
    let came = client.ask(1, &binding(queue, exchange, key));
    assert!(matches!(came.method(), Method::QueueBindOk(_)), "{came:?}");
}

fn publish(client: &mut Client, exchange: &str, key: &str, properties: &BasicProperties<'_>, body: &str) {
    let (exchange, routing_key) = (ShortBytes::cut(exchange), ShortBytes::cut(key));
    client.publish_as(&BasicPublish { exchange, routing_key, ..Default::default() }, properties, &[body]);
}

/// What is in queues, which is nothing afterwards.
fn drain(client: &mut Client, queues: &[&str]) -> Vec<Vec<String>> {
    let mut all = |queue: &&str| {
        let mut texts = Vec::new();
        while let Some(got) = client.get(queue, true) {
            texts.push(got.text().to_owned());
        }
        texts
    };
    queues.iter().map(&mut all).collect()
}

#[test]
fn messages_go_where_bindings_lead() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    for queue in ["a", "b"] {
        client.declare(queue);
    }
    let none = BasicProperties::default();
    for (name, kind) in [("d", "direct"), ("f", "fanout"), ("t", "topic")] {
        declare(&mut client, name, kind);
        declare(&mut client, name, kind);
    }
    bind(&mut client, "a", "d", "red");
    bind(&mut client, "a", "f", "");
    bind(&mut client, "b", "f", "");
    bind(&mut client, "a", "t", "orders.*.eu");
    bind(&mut client, "b", "t", "orders.#");
    for (to, key, want) in [
        ("d", "red", ["x", ""]),
        ("d", "blue", ["", ""]),
        ("f", "any", ["x", "x"]),
        ("t", "orders.new.eu", ["x", "x"]),
        ("t", "orders.new", ["", "x"]),
        ("t", "other", ["", ""]),
    ] {
        publish(&mut client, to, key, &none, "x");
        let got = drain(&mut client, &["a", "b"]).map_texts();
        assert_eq!(got, want, "{to} {key}");
    }
    bind(&mut client, "a", "amq.direct", "k");
    publish(&mut client, "amq.direct", "k", &none, "predeclared");
    let got = client.get("a", true).unwrap();
    assert_eq!((&got.got().exchange[..], &got.got().routing_key[..]), (&b"amq.direct"[..], &b"k"[..]));
}

trait Texts {
    fn map_texts(&self) -> Vec<String>;
}

impl Texts for Vec<Vec<String>> {
    fn map_texts(&self) -> Vec<String> {
        self.iter().map(|texts| texts.join(" ")).collect()
    }
}

fn with(headers: FieldTable<'_>) -> BasicProperties<'_> {
    BasicProperties { headers: Some(headers), ..Default::default() }
}

#[test]
fn headers_and_further_keys_lead_somewhere() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("a");
    client.declare("b");
    let mut arguments = FieldTableBuf::new();
    arguments.push(ShortBytes::cut("x-match"), FieldValue::LongStr(b"all"));
    arguments.push(ShortBytes::cut("n"), FieldValue::I32(7));
    let bind = QueueBind { arguments: arguments.as_table(), ..binding("a", "amq.headers", "") };
    assert!(matches!(client.ask(1, &bind).method(), Method::QueueBindOk(_)));
    let mut headers = FieldTableBuf::new();
    headers.push(ShortBytes::cut("n"), FieldValue::I64(7));
    publish(&mut client, "amq.headers", "", &with(headers.as_table()), "seven");
    publish(&mut client, "amq.headers", "", &BasicProperties::default(), "none");
    assert_eq!(drain(&mut client, &["a"]), [["seven"]]);
    let keys = FieldTableBuf::array(&[FieldValue::LongStr(b"b")]);
    headers.push(ShortBytes::cut("BCC"), FieldValue::Array(FieldArray::from_values(&keys).unwrap()));
    publish(&mut client, "", "a", &with(headers.as_table()), "copied");
    assert_eq!(client.get("a", true).unwrap().text(), "copied");
    let copy = client.get("b", true).unwrap();
    let properties = BasicProperties::read(&copy.properties).unwrap();
    let shown = properties.headers.unwrap();
    assert_eq!((shown.get("BCC"), shown.get("n")), (None, Some(FieldValue::I64(7))));
}

#[test]
fn exchanges_lead_to_exchanges_and_alternates() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.declare("rest");
    declare(&mut client, "inner", "fanout");
    declare(&mut client, "others", "fanout");
    let mut arguments = FieldTableBuf::new();
    arguments.push(ShortBytes::cut("alternate-exchange"), FieldValue::LongStr(b"others"));
    let outer = ExchangeDeclare { arguments: arguments.as_table(), ..exchange("outer", "direct") };
    assert!(matches!(client.ask(1, &outer).method(), Method::ExchangeDeclareOk(_)));
    let (destination, source) = (ShortStr::cut("inner"), ShortStr::cut("outer"));
    let routing_key = ShortStr::cut("in");
    let bound = client.ask(1, &ExchangeBind { destination, source, routing_key, ..Default::default() });
    assert!(matches!(bound.method(), Method::ExchangeBindOk(_)), "{bound:?}");
    bind(&mut client, "q", "inner", "");
    bind(&mut client, "rest", "others", "");
    publish(&mut client, "outer", "in", &BasicProperties::default(), "one");
    publish(&mut client, "outer", "else", &BasicProperties::default(), "two");
    assert_eq!(drain(&mut client, &["q", "rest"]), [["one"], ["two"]]);
    let unbound = client.ask(1, &ExchangeUnbind { destination, source, routing_key, ..Default::default() });
    assert!(matches!(unbound.method(), Method::ExchangeUnbindOk(_)), "{unbound:?}");
    let queue = ShortStr::cut("rest");
    let unbound =
        client.ask(1, &QueueUnbind { queue, exchange: ShortStr::cut("others"), ..Default::default() });
    assert!(matches!(unbound.method(), Method::QueueUnbindOk(_)), "{unbound:?}");
    publish(&mut client, "outer", "in", &BasicProperties::default(), "three");
    assert_eq!(drain(&mut client, &["q", "rest"]), [[""; 0], [""; 0]]);
}

#[test]
fn what_cannot_be_done_with_exchanges_is_refused_as_rabbitmq_does() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    declare(&mut client, "x", "direct");
    let (code, text) = client.refused(&exchange("x", "topic"));
    let differs = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'topic' but current is 'direct'";
    assert_eq!((code, &*text), (406, differs));
    let passive = ExchangeDeclare { passive: true, ..exchange("none", "direct") };
    assert_eq!(client.refused(&passive), (404, "NOT_FOUND - no exchange 'none' in vhost '/'".into()));
    let (code, text) = client.refused(&exchange("amq.mine", "direct"));
    assert_eq!(
        (code, &*text),
        (403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'")
    );
    assert_eq!(client.refused(&exchange("", "direct")).0, 403);
    assert_eq!(client.refused(&binding("q", "none", "k")).0, 404);
    assert_eq!(client.refused(&binding("none", "x", "k")).0, 404);
    assert_eq!(client.refused(&binding("q", "", "k")).0, 403);
    let delete =
        |name| ExchangeDelete { exchange: ShortStr::cut(name), if_unused: true, no_wait: false, ticket: 0 };
    assert_eq!(client.refused(&delete("amq.direct")).0, 403);
    bind(&mut client, "q", "x", "k");
    assert_eq!(
        client.refused(&delete("x")),
        (406, "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use".into())
    );
    let unbound = client.ask(
        1,
        &QueueUnbind {
            queue: ShortStr::cut("q"),
            exchange: ShortStr::cut("x"),
            routing_key: ShortStr::cut("k"),
            ..Default::default()
        },
    );
    assert!(matches!(unbound.method(), Method::QueueUnbindOk(_)), "{unbound:?}");
    assert!(matches!(client.ask(1, &delete("x")).method(), Method::ExchangeDeleteOk(_)));
    publish(&mut client, "x", "k", &BasicProperties::default(), "nowhere");
    let came = client.frame();
    assert_eq!(client.channel_closed(&came), (404, "NOT_FOUND - no exchange 'x' in vhost '/'".into()));
    client.say(|out| out.arguments(1, &exchange("y", "nonsense")));
    let (code, text) = client.closed();
    assert_eq!((code, &*text), (503, "COMMAND_INVALID - unknown exchange type 'nonsense'"));
}
