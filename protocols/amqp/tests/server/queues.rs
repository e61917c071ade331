//! Queues that are declared, emptied and deleted.

use sabir_amqp::wire::*;

use crate::node::{Client, Node, PATIENCE};

fn named(queue: &str) -> QueueDeclare<'_> {
    QueueDeclare { queue: ShortStr::cut(queue), durable: true, ..Default::default() }
}

fn passive(queue: &str) -> QueueDeclare<'_> {
    QueueDeclare { passive: true, ..named(queue) }
}

fn delete(client: &mut Client, queue: &str) -> u32 {
    let came = client.ask(1, &QueueDelete { queue: ShortStr::cut(queue), ..Default::default() });
    match came.method() {
        Method::QueueDeleteOk(ok) => ok.message_count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queue_is_declared_once_and_again_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    assert_eq!(client.declare("q"), ("q".into(), 0, 0));
    assert_eq!(client.declare("q"), ("q".into(), 0, 0));
    assert_eq!(client.declare_as(&passive("q")), ("q".into(), 0, 0));
    let (code, text) = client.refused(&QueueDeclare { durable: false, ..named("q") });
    let differs = "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'";
    assert_eq!((code, &*text), (406, differs));
    let (code, text) = client.refused(&passive("none"));
    assert_eq!((code, &*text), (404, "NOT_FOUND - no queue 'none' in vhost '/'"));
    let (code, text) = client.refused(&named("amq.mine"));
    assert_eq!(
        (code, &*text),
        (403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'")
    );
}

#[test]
fn a_queue_without_a_name_is_given_one_and_meant_where_none_is_named() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let (name, ..) = client.declare("");
    let (other, ..) = client.declare("");
    assert!(name.starts_with("amq.gen-") && other.starts_with("amq.gen-") && name != other);
    client.publish(&other, &["one"]);
    assert_eq!(client.get("", true).unwrap().text(), "one");
    client.say(|out| out.arguments(1, &ChannelClose::default()));
    client.frame();
    client.open_channel(1);
    let (code, text) = client.refused(&BasicGet::default());
    assert_eq!((code, &*text), (404, "NOT_FOUND - no previously declared queue"));
}

#[test]
fn many_queues_are_declared_without_waiting_for_each() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.say(|out| {
        for number in 0..1000 {
            let name = format!("q{number}");
            out.arguments(1, &QueueDeclare { no_wait: number % 2 == 0, ..named(&name) });
        }
    });
    for number in (1..1000).step_by(2) {
        let came = client.frame();
        let Method::QueueDeclareOk(ok) = came.method() else { panic!("{came:?}") };
        assert_eq!(ok.queue.as_str(), format!("q{number}"), "answers come in the order of the requests");
    }
    assert_eq!(client.declare_as(&passive("q998")), ("q998".into(), 0, 0));
}

#[test]
fn a_queue_is_emptied_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.publish("q", &["one", "two", "three"]);
    let purged = client.ask(1, &QueuePurge { queue: ShortStr::cut("q"), ..Default::default() });
    assert!(matches!(purged.method(), Method::QueuePurgeOk(QueuePurgeOk { message_count: 3 })), "{purged:?}");
    assert!(client.get("q", true).is_none());
    client.publish("q", &["four"]);
    let if_empty = QueueDelete { queue: ShortStr::cut("q"), if_empty: true, ..Default::default() };
    let (code, text) = client.refused(&if_empty);
    assert_eq!((code, &*text), (406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"));
    let mut other = node.open();
    other.consume("q", "c", false);
    other.content();
    let if_unused = QueueDelete { queue: ShortStr::cut("q"), if_unused: true, ..Default::default() };
    let (code, text) = client.refused(&if_unused);
    assert_eq!((code, &*text), (406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use"));
    delete(&mut client, "q");
    let cancelled = other.frame();
    let Method::BasicCancel(cancel) = cancelled.method() else { panic!("{cancelled:?}") };
    assert_eq!(cancel.consumer_tag.as_str(), "c");
    assert_eq!(delete(&mut client, "q"), 0, "one that is not there is deleted");
    assert_eq!(client.refused(&passive("q")).0, 404);
    assert_eq!(client.declare("q"), ("q".into(), 0, 0), "a new one is empty");
}

#[test]
fn an_exclusive_queue_is_its_connections_and_goes_with_it() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    let exclusive = QueueDeclare { exclusive: true, ..named("mine") };
    client.declare_as(&exclusive);
    client.declare_as(&exclusive);
    for declare in [exclusive, passive("mine"), named("mine")] {
        let (code, text) = other.refused(&declare);
        assert_eq!(code, 405, "{text}");
        let locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'.";
        assert!(text.starts_with(locked), "{text}");
    }
    let queue = ShortStr::cut("mine");
    assert_eq!(other.refused(&BasicConsume { queue, ..Default::default() }).0, 405);
    assert_eq!(other.refused(&QueueDelete { queue, ..Default::default() }).0, 405);
    assert_eq!(other.refused(&QueuePurge { queue, ..Default::default() }).0, 405);
    assert_eq!(other.refused(&BasicGet { queue, ..Default::default() }).0, 405);
    let (exchange, routing_key) = (ShortStr::cut("amq.direct"), ShortStr::cut("k"));
    assert_eq!(other.refused(&QueueBind { queue, exchange, routing_key, ..Default::default() }).0, 405);
    // Any client may publish to it: so replies come.
    other.publish("mine", &["reply"]);
    client.consume("mine", "c", true);
    assert_eq!(client.content().text(), "reply");
    assert!(matches!(client.ask(0, &ConnectionClose::default()).method(), Method::ConnectionCloseOk(_)));
    assert_eq!(
        other.refused(&passive("mine")).0,
        404,
        "it is gone when the client is told that it is closed"
    );
    // One whose connection breaks goes, too.
    let mut third = node.open();
    third.declare_as(&exclusive);
    drop(third);
    while other.refused(&passive("mine")).0 != 404 {}
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    client.declare_as(&QueueDeclare { auto_delete: true, ..named("q") });
    client.consume("q", "a", false);
    other.consume("q", "b", false);
    let cancel = |tag| BasicCancel { consumer_tag: ShortStr::cut(tag), no_wait: false };
    assert!(matches!(client.ask(1, &cancel("a")).method(), Method::BasicCancelOk(_)));
    assert_eq!(client.declare_as(&passive("q")), ("q".into(), 0, 1));
    assert!(matches!(other.ask(1, &cancel("b")).method(), Method::BasicCancelOk(_)));
    assert_eq!(client.refused(&passive("q")).0, 404);
}

#[test]
fn what_is_durable_outlives_the_node_and_what_is_not_does_not() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.select_confirms();
    client.declare("durable");
    client.declare_as(&QueueDeclare { durable: false, ..named("transient") });
    client.publish("durable", &["one", "two"]);
    assert!(client.confirmed(2).is_empty());
    drop(client);
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    assert_eq!(client.refused(&passive("transient")).0, 404);
    assert_eq!(client.declare("durable").1, 2);
    let first = client.get("durable", false).unwrap();
    assert_eq!((first.text(), first.got().redelivered, first.got().message_count), ("one", false, 1));
}

fn with_priority(client: &mut Client, queue: &str, body: &str, priority: Option<u8>) {
    let publish = BasicPublish { routing_key: ShortBytes::cut(queue), ..Default::default() };
    client.publish_as(&publish, &BasicProperties { priority, ..Default::default() }, &[body]);
}

#[test]
fn messages_of_a_higher_priority_come_first_and_those_given_back_at_their_place() {
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start(data.path());
    let mut client = node.open();
    let mut arguments = FieldTableBuf::new();
    arguments.push(ShortBytes::cut("x-max-priority"), FieldValue::I32(5));
    let declare = QueueDeclare { arguments: arguments.as_table(), ..named("q") };
    client.declare_as(&declare);
    let all = [
        ("a", None),
        ("b", Some(3)),
        ("c", Some(5)),
        ("d", Some(0)),
        ("e", Some(3)),
        ("f", Some(9)),
        ("g", Some(1)),
    ];
    for (body, priority) in all {
        with_priority(&mut client, "q", body, priority);
    }
    let order = ["c", "f", "b", "e", "g", "a", "d"];
    let mut got =
        || (0..all.len()).map(|_| client.get("q", false).unwrap().text().to_owned()).collect::<Vec<_>>();
    assert_eq!(got(), order, "more than the highest counts as that, and none is the lowest");
    client.say(|out| out.arguments(1, &BasicNack { delivery_tag: 7, multiple: true, requeue: true }));
    client.consume("q", "c", false);
    let mut sent: Vec<String> = (0..all.len()).map(|_| client.content().text().to_owned()).collect();
    assert_eq!(sent, order);
    drop(client);
    node.stop();
    node = Node::start(data.path());
    let mut client = node.open();
    assert_eq!(client.declare_as(&declare).1, 7);
    client.select_confirms();
    with_priority(&mut client, "q", "h", Some(4));
    assert!(client.confirmed(1).is_empty());
    client.qos(1);
    client.consume("q", "c", false);
    sent = (0..all.len() + 1)
        .map(|tag| {
            let text = client.content().text().to_owned();
            client.ack(tag as u64 + 1, false);
            text
        })
        .collect();
    assert_eq!(sent, ["c", "f", "h", "b", "e", "g", "a", "d"], "as before the start");
}

/// Until a queue is gone.
fn goes(client: &mut Client, queue: &str) {
    let began = std::time::Instant::now();
    let (queue, exchange) = (ShortStr::cut(queue), ShortStr::cut("amq.direct"));
    let bind = QueueBind { queue, exchange, ..Default::default() };
    // A client that declared it, even passively, would use it.
    while client.refused_or_done(&bind) != 404 {
        assert!(began.elapsed() < PATIENCE, "it is there still");
        pause(10);
    }
}

fn pause(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

#[test]
fn a_queue_that_nobody_uses_is_deleted_after_its_time() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    let mut arguments = FieldTableBuf::new();
    arguments.push(ShortBytes::cut("x-expires"), FieldValue::I32(1_000));
    let expiring = QueueDeclare { arguments: arguments.as_table(), ..named("q") };
    client.declare_as(&expiring);
    client.publish("q", &["one"]);
    client.consume("q", "c", false);
    assert_eq!(client.content().text(), "one");
    pause(1_300);
    let consumer_tag = ShortStr::cut("c");
    let cancelled = client.ask(1, &BasicCancel { consumer_tag, ..Default::default() });
    assert!(matches!(cancelled.method(), Method::BasicCancelOk(_)), "{cancelled:?}");
    for used in 0..4 {
        pause(300);
        match used % 2 {
            0 => drop(client.declare_as(&passive("q"))),
            _ => assert!(client.get("q", true).is_none(), "it is out"),
        }
    }
    goes(&mut other, "q");
    assert_eq!(client.refused(&passive("q")).0, 404);
    // One that a connection leaves goes, too, and so does one after a start.
    client.declare_as(&expiring);
    client.consume("q", "c", false);
    drop(client);
    goes(&mut other, "q");
    other.declare_as(&expiring);
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    goes(&mut client, "q");
}
