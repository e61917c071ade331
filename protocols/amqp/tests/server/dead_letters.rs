//! Dead letters: what a queue gives up is published where it says, with its history.

use std::time::{Duration, Instant};

use sabir_amqp::wire::*;
use sabir_broker::{Caller, DeadLetterStats, DeathReason, RedriveSpec, RedriveState};

use crate::node::{Client, Content, Node, PATIENCE};

fn text(text: &str) -> FieldValue<'_> {
    FieldValue::LongStr(text.as_bytes())
}

fn declare(client: &mut Client, queue: &str, arguments: &[(&str, FieldValue<'_>)]) {
    let mut table = FieldTableBuf::new();
    for (name, value) in arguments {
        table.push(ShortBytes::cut(name), *value);
    }
    let (queue, arguments) = (ShortStr::cut(queue), table.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
}

/// One whose dead letters go to the queue `dead`, and more.
fn declare_with_dead(client: &mut Client, queue: &str, more: &[(&str, FieldValue<'_>)]) {
    declare(client, "dead", &[]);
    let to = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    declare(client, queue, &[&to[..], more].concat());
}

/// The first message of a queue, once there is one; it is acknowledged.
fn get(client: &mut Client, queue: &str) -> Content {
    let began = Instant::now();
    loop {
        if let Some(got) = client.get(queue, true) {
            return got;
        }
        assert!(began.elapsed() < PATIENCE, "nothing comes to {queue}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn reject(client: &mut Client, queue: &str, requeue: bool) {
    let began = Instant::now();
    let got = loop {
        match client.get(queue, false) {
            Some(got) => break got,
            None => assert!(began.elapsed() < PATIENCE, "nothing comes to {queue}"),
        }
    };
    let delivery_tag = got.got().delivery_tag;
    client.say(|out| out.arguments(1, &BasicReject { delivery_tag, requeue }));
}

/// Waits until so many messages are ready in queues.
fn assert_ready<const N: usize>(client: &mut Client, queues: [&str; N], wanted: [u32; N]) {
    let began = Instant::now();
    let mut ready = |queue| {
        let queue = ShortStr::cut(queue);
        client.declare_as(&QueueDeclare { queue, passive: true, ..Default::default() }).1
    };
    loop {
        let found = queues.map(&mut ready);
        if found == wanted {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{found:?} in {queues:?}");
    }
}

/// Waits until so much is counted of dead letters since the start: those that went somewhere as rejected, expired, one too many, come back too often.
fn assert_counted(node: &Node, published: [u64; 4], others: DeadLetterStats) {
    let (wanted, began) = (DeadLetterStats { published, ..others }, Instant::now());
    while node.dead_letters() != wanted {
        assert!(began.elapsed() < PATIENCE, "{:?} instead of {wanted:?}", node.dead_letters());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn string(value: Option<FieldValue<'_>>) -> String {
    match value {
        Some(FieldValue::LongStr(text)) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Queue, reason and count of each death, the latest first.
fn deaths(message: &Content) -> Vec<(String, String, i64)> {
    let headers = BasicProperties::read(&message.properties).unwrap().headers.unwrap();
    let Some(FieldValue::Array(all)) = headers.get("x-death") else { panic!("{headers:?}") };
    let one = |value| match value {
        FieldValue::Table(table) => {
            let Some(FieldValue::I64(count)) = table.get("count") else { panic!("{table:?}") };
            (string(table.get("queue")), string(table.get("reason")), count)
        }
        other => panic!("{other:?}"),
    };
    all.iter().map(one).collect()
}

fn death(queue: &str, reason: &str, count: i64) -> (String, String, i64) {
    (queue.to_owned(), reason.to_owned(), count)
}

#[test]
fn what_is_rejected_is_published_where_its_queue_says_with_its_history() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare_with_dead(&mut client, "work", &[]);
    let mut headers = FieldTableBuf::new();
    headers.push(ShortBytes::cut("own"), FieldValue::I32(1));
    let properties = BasicProperties {
        headers: Some(headers.as_table()),
        message_id: Some(ShortBytes::cut("m")),
        ..Default::default()
    };
    let publish = BasicPublish { routing_key: ShortBytes::cut("work"), ..Default::default() };
    let mut publisher = node.open();
    publisher.select_confirms();
    publisher.publish_as(&publish, &properties, &["one", "two", "three"]);
    assert_eq!(publisher.confirmed(3), [0; 0]);
    client.consume("work", "c", false);
    let tags: Vec<u64> = (0..3).map(|_| client.content().delivered().delivery_tag).collect();
    client.say(|out| {
        out.arguments(1, &BasicReject { delivery_tag: tags[0], requeue: false });
        out.arguments(1, &BasicAck { delivery_tag: tags[1], multiple: false });
        out.arguments(1, &BasicNack { delivery_tag: tags[2], multiple: false, requeue: false });
    });
    let one = get(&mut client, "dead");
    assert_eq!(
        (one.text(), one.got().routing_key, one.got().redelivered),
        ("one", ShortBytes::cut("dead"), false)
    );
    assert_eq!(deaths(&one), [death("work", "rejected", 1)]);
    let read = BasicProperties::read(&one.properties).unwrap();
    let headers = read.headers.unwrap();
    assert_eq!((read.message_id, headers.get("own")), (Some(ShortBytes::cut("m")), Some(FieldValue::I32(1))));
    assert_eq!(headers.get("x-first-death-queue"), Some(text("work")));
    assert_eq!(get(&mut client, "dead").text(), "three");
    assert!(client.get("dead", true).is_none());
    // Those of a transaction go with its commit.
    assert!(matches!(
        client.ask(1, &BasicCancel { consumer_tag: ShortStr::cut("c"), ..Default::default() }).method(),
        Method::BasicCancelOk(_)
    ));
    client.publish("work", &["four"]);
    assert!(matches!(client.ask(1, &TxSelect {}).method(), Method::TxSelectOk(_)));
    reject(&mut client, "work", false);
    assert!(client.get("dead", true).is_none());
    assert!(matches!(client.ask(1, &TxCommit {}).method(), Method::TxCommitOk(_)));
    assert_eq!(get(&mut client, "dead").text(), "four");
    assert_ready(&mut client, ["work", "dead"], [0, 0]);
    assert_counted(&node, [3, 0, 0, 0], DeadLetterStats::default());
}

#[test]
fn what_expires_goes_on_without_its_expiration() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare_with_dead(&mut client, "work", &[("x-message-ttl", FieldValue::I32(100))]);
    client.select_confirms();
    client.publish("work", &["of the queue"]);
    let properties = BasicProperties { expiration: Some(ShortBytes::cut("50")), ..Default::default() };
    let publish = BasicPublish { routing_key: ShortBytes::cut("work"), ..Default::default() };
    client.publish_as(&publish, &properties, &["its own"]);
    assert_eq!(client.confirmed(2), [0; 0]);
    let (first, second) = (get(&mut client, "dead"), get(&mut client, "dead"));
    assert_eq!((first.text(), second.text()), ("of the queue", "its own"));
    assert_eq!(deaths(&first), [death("work", "expired", 1)]);
    let read = BasicProperties::read(&second.properties).unwrap();
    assert_eq!(read.expiration, None);
    let Some(FieldValue::Array(all)) = read.headers.unwrap().get("x-death") else { panic!() };
    let FieldValue::Table(entry) = all.iter().next().unwrap() else { panic!() };
    assert_eq!(entry.get("original-expiration"), Some(text("50")));
    assert_ready(&mut client, ["work", "dead"], [0, 0]);
    assert_counted(&node, [0, 2, 0, 0], DeadLetterStats::default());
}

#[test]
fn a_message_that_would_go_round_for_ever_is_dropped() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let to = |queue| [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(queue))];
    let ttl = [("x-message-ttl", FieldValue::I32(50))];
    declare(&mut client, "circle", &[&to("circle")[..], &ttl].concat());
    declare(&mut client, "work", &to("wait"));
    declare(&mut client, "wait", &[&to("work")[..], &ttl].concat());
    client.publish("circle", &["once"]);
    // Rejected it goes round as often as that happens.
    client.publish("work", &["again"]);
    for turn in 1..4 {
        reject(&mut client, "work", false);
        let began = Instant::now();
        let back = loop {
            if let Some(back) = client.get("work", false) {
                break back;
            }
            assert!(began.elapsed() < PATIENCE);
        };
        assert_eq!(deaths(&back), [death("wait", "expired", turn), death("work", "rejected", turn)]);
        let delivery_tag = back.got().delivery_tag;
        client.say(|out| out.arguments(1, &BasicReject { delivery_tag, requeue: true }));
    }
    assert!(client.get("circle", true).is_none(), "three times its time have passed");
    assert_ready(&mut client, ["circle", "work", "wait"], [0, 1, 0]);
    assert_counted(&node, [3, 3, 0, 0], DeadLetterStats { cycles: 1, ..Default::default() });
}

#[test]
fn what_a_full_queue_refuses_is_dead_lettered() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let full = [("x-max-length", FieldValue::I32(1)), ("x-overflow", text("reject-publish-dlx"))];
    declare_with_dead(&mut client, "full", &full);
    declare_with_dead(&mut client, "short", &[("x-max-length", FieldValue::I32(1))]);
    client.select_confirms();
    client.publish("full", &["a", "b", "c"]);
    client.publish("short", &["d", "e"]);
    assert_eq!(client.confirmed(5), [2, 3]);
    let dead: Vec<_> = (0..3).map(|_| get(&mut client, "dead")).collect();
    assert_eq!(dead.iter().map(Content::text).collect::<Vec<_>>(), ["b", "c", "d"]);
    assert_eq!(deaths(&dead[0]), [death("full", "maxlen", 1)]);
    assert_eq!((get(&mut client, "full").text(), get(&mut client, "short").text()), ("a", "e"));
    assert_ready(&mut client, ["full", "short", "dead"], [0; 3]);
    assert_counted(&node, [0, 0, 3, 0], DeadLetterStats::default());
}

#[test]
fn a_message_that_comes_back_too_often_is_dead_lettered_over_a_start() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let quorum = [("x-queue-type", text("quorum")), ("x-delivery-limit", FieldValue::I32(2))];
    declare_with_dead(&mut client, "q", &quorum);
    declare(&mut client, "without", &quorum);
    client.select_confirms();
    client.publish("q", &["poison"]);
    client.publish("without", &["poison"]);
    assert_eq!(client.confirmed(2), [0; 0]);
    for queue in ["q", "q", "without", "without"] {
        reject(&mut client, queue, true);
    }
    client.declare("dead");
    node.stop();
    let node = Node::start(data.path());
    let mut client = node.open();
    let last = client.get("q", false).unwrap();
    let headers = BasicProperties::read(&last.properties).unwrap().headers.unwrap();
    assert_eq!(headers.get("x-delivery-count"), Some(FieldValue::I64(2)));
    let nack = BasicNack { delivery_tag: last.got().delivery_tag, multiple: false, requeue: true };
    client.say(|out| out.arguments(1, &nack));
    let dead = get(&mut client, "dead");
    assert_eq!((dead.text(), deaths(&dead)), ("poison", vec![death("q", "delivery_limit", 1)]));
    assert_eq!(
        BasicProperties::read(&dead.properties).unwrap().headers.unwrap().get("x-delivery-count"),
        None
    );
    reject(&mut client, "without", true);
    assert!(client.get("without", true).is_none(), "it is dropped");
    assert_ready(&mut client, ["q", "without", "dead"], [0; 3]);
    assert_counted(&node, [0, 0, 0, 1], DeadLetterStats::default());
}

#[test]
fn dead_letters_keep_their_keys_and_go_to_internal_exchanges() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let (exchange, kind) = (ShortStr::cut("dlx"), ShortStr::cut("topic"));
    let internal = ExchangeDeclare { exchange, kind, internal: true, ..Default::default() };
    assert!(matches!(client.ask(1, &internal).method(), Method::ExchangeDeclareOk(_)));
    declare(&mut client, "dead", &[]);
    declare(&mut client, "copied", &[]);
    declare(&mut client, "work", &[("x-dead-letter-exchange", text("dlx"))]);
    declare(&mut client, "lost", &[("x-dead-letter-exchange", text("absent"))]);
    for (queue, key) in [("dead", "work"), ("copied", "cc")] {
        let (queue, routing_key) = (ShortStr::cut(queue), ShortStr::cut(key));
        let came = client.ask(1, &QueueBind { queue, exchange, routing_key, ..Default::default() });
        assert!(matches!(came.method(), Method::QueueBindOk(_)));
    }
    let keys = FieldTableBuf::array(&[text("cc")]);
    let mut headers = FieldTableBuf::new();
    headers.push(ShortBytes::cut("CC"), FieldValue::Array(FieldArray::from_values(&keys).unwrap()));
    let properties = BasicProperties { headers: Some(headers.as_table()), ..Default::default() };
    let publish = BasicPublish { routing_key: ShortBytes::cut("work"), ..Default::default() };
    client.select_confirms();
    client.publish_as(&publish, &properties, &["x"]);
    client.publish("lost", &["y"]);
    assert_eq!(client.confirmed(2), [0; 0]);
    reject(&mut client, "lost", false);
    reject(&mut client, "work", false);
    for queue in ["dead", "copied"] {
        let dead = get(&mut client, queue);
        let got = dead.got();
        assert_eq!((got.exchange, got.routing_key), (ShortBytes::cut("dlx"), ShortBytes::cut("work")));
    }
    assert!(client.get("lost", true).is_none());
    assert_ready(&mut client, ["work", "lost", "dead", "copied"], [0; 4]);
    assert_counted(&node, [1, 0, 0, 0], DeadLetterStats { unroutable: 1, ..Default::default() });
}

/// Has dead letters of the queue `dead` go back, and waits for it. Gives how many went, and how many stay since they are of no other queue.
fn redrive(node: &Node, spec: RedriveSpec) -> (u64, u64) {
    let dead = node.broker().catalog().topic("dead").cloned().unwrap();
    let redrive = node.broker().redrive(&Caller::OPERATOR, &dead, spec).unwrap();
    let began = Instant::now();
    while redrive.is_running() {
        assert!(began.elapsed() < PATIENCE, "{:?}", redrive.progress());
        std::thread::sleep(Duration::from_millis(2));
    }
    let progress = redrive.progress();
    assert_eq!(progress.state, RedriveState::Done);
    (progress.counts.moved, progress.counts.without_origin)
}

#[test]
fn what_is_redriven_is_consumed_as_it_was() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    declare_with_dead(&mut client, "work", &[]);
    declare_with_dead(&mut client, "brief", &[("x-message-ttl", FieldValue::I32(1))]);
    let bind = QueueBind {
        queue: ShortStr::cut("work"),
        exchange: ShortStr::cut("amq.topic"),
        routing_key: ShortStr::cut("a.#"),
        ..Default::default()
    };
    assert!(matches!(client.ask(1, &bind).method(), Method::QueueBindOk(_)));
    client.select_confirms();
    let (exchange, routing_key) = (ShortBytes::cut("amq.topic"), ShortBytes::cut("a.b"));
    let properties = BasicProperties { message_id: Some(ShortBytes::cut("m")), ..Default::default() };
    let publish = BasicPublish { exchange, routing_key, ..Default::default() };
    client.publish_as(&publish, &properties, &["one"]);
    client.publish("brief", &["two"]);
    client.publish("dead", &["three"]);
    assert_eq!(client.confirmed(3), [0; 0]);
    reject(&mut client, "work", false);
    assert_ready(&mut client, ["work", "brief", "dead"], [0, 0, 3]);
    let expired = || RedriveSpec { reason: Some(DeathReason::Expired), ..RedriveSpec::default() };
    let of_work = RedriveSpec { origin: Some("work".to_owned()), ..RedriveSpec::default() };
    assert_eq!(redrive(&node, RedriveSpec { dry_run: true, ..RedriveSpec::default() }), (0, 1));
    assert_eq!(redrive(&node, of_work), (1, 1));
    for turn in 1..3 {
        // Its time is over there again, as often as it comes there.
        assert_eq!(redrive(&node, expired()), (1, 1));
        let began = Instant::now();
        while node.dead_letters().published != [1, turn + 1, 0, 0] {
            assert!(began.elapsed() < PATIENCE, "{:?}", node.dead_letters());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let one = get(&mut client, "work");
    let got = one.got();
    assert_eq!(
        (one.text(), got.exchange, got.routing_key, got.redelivered),
        ("one", exchange, routing_key, false)
    );
    assert_eq!(deaths(&one), [death("work", "rejected", 1)]);
    assert_eq!(BasicProperties::read(&one.properties).unwrap().message_id, Some(ShortBytes::cut("m")));
    assert_eq!(get(&mut client, "dead").text(), "three");
    let two = get(&mut client, "dead");
    assert_eq!((two.text(), deaths(&two)), ("two", vec![death("brief", "expired", 3)]));
    assert_ready(&mut client, ["work", "brief", "dead"], [0; 3]);
    let redriven = DeadLetterStats { redriven: 3, ..DeadLetterStats::default() };
    assert_counted(&node, [1, 3, 0, 0], redriven);
}
