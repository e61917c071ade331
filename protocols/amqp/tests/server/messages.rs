//! Messages that are published, delivered and settled.

use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sabir_amqp::wire::*;

use crate::node::{Client, Node, PATIENCE};

fn nack(client: &mut Client, delivery_tag: u64, multiple: bool, requeue: bool) {
    client.say(|out| out.arguments(1, &BasicNack { delivery_tag, multiple, requeue }));
}

fn texts(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.content().text().to_owned()).collect()
}

#[test]
fn messages_are_confirmed_delivered_in_order_and_settled_for_good() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.select_confirms();
    let bodies: Vec<String> = (0..300).map(|number| format!("m{number}")).collect();
    client.publish("q", &bodies.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(client.confirmed(300).is_empty());
    client.consume("q", "c", false);
    for (number, body) in bodies.iter().enumerate() {
        let content = client.content();
        let delivered = content.delivered();
        assert_eq!((content.text(), delivered.delivery_tag), (&**body, number as u64 + 1));
        assert!(!delivered.redelivered && delivered.consumer_tag.as_str() == "c");
        assert_eq!((&delivered.exchange[..], &delivered.routing_key[..]), (&b""[..], &b"q"[..]));
    }
    client.ack(300, true);
    assert_eq!(client.declare("q"), ("q".into(), 0, 1));
    drop(client);
    let mut other = node.open();
    while other.declare("q").2 > 0 {}
    assert!(other.get("q", true).is_none(), "all is settled");
}

#[test]
fn a_message_comes_out_as_it_went_in() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    let mut headers = FieldTableBuf::new();
    headers.push(ShortBytes::cut("n"), FieldValue::I64(-7));
    let properties = BasicProperties {
        content_type: Some(ShortBytes::cut("text/plain")),
        headers: Some(headers.as_table()),
        delivery_mode: Some(2),
        correlation_id: Some(ShortBytes::new(b"\xff\x00").unwrap()),
        timestamp: Some(1),
        ..Default::default()
    };
    let large = "x".repeat(3_000_000);
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    client.publish_as(&publish, &properties, &["", &large]);
    let empty = client.get("q", true).unwrap();
    assert_eq!((empty.text(), &empty.properties[..]), ("", &properties.to_bytes()[..]));
    let got = client.get("q", true).unwrap();
    assert!(got.text() == large && got.properties == properties.to_bytes());
}

#[test]
fn what_is_given_back_comes_again_at_its_place_and_flagged() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.publish("q", &["a", "b", "c"]);
    client.qos(3);
    client.consume("q", "c", false);
    assert_eq!(texts(&mut client, 3), ["a", "b", "c"]);
    client.publish("q", &["d"]);
    assert!(client.is_silent(), "no more than three are out");
    client.say(|out| out.arguments(1, &BasicReject { delivery_tag: 1, requeue: false }));
    let next = client.content();
    assert_eq!((next.text(), next.delivered().redelivered), ("d", false));
    nack(&mut client, 2, false, true);
    let again = client.content();
    assert_eq!((again.text(), again.delivered().redelivered), ("b", true));
    client.say(|out| out.arguments(1, &BasicRecover { requeue: true }));
    assert!(matches!(client.frame().method(), Method::BasicRecoverOk(_)));
    for text in ["b", "c", "d"] {
        let content = client.content();
        assert_eq!((content.text(), content.delivered().redelivered), (text, true));
    }
    client.ack(0, true);
    while client.get("q", true).is_some() {}
    assert_eq!(client.declare("q").1, 0);
}

#[test]
fn a_channel_that_closes_gives_back_what_it_has() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.publish("q", &["a", "b", "c"]);
    assert_eq!(client.get("q", false).unwrap().text(), "a");
    client.consume("q", "c", false);
    assert_eq!(texts(&mut client, 2), ["b", "c"]);
    client.ack(2, false);
    assert!(matches!(client.ask(1, &ChannelClose::default()).method(), Method::ChannelCloseOk(_)));
    client.open_channel(1);
    client.consume("q", "c", false);
    for text in ["a", "c"] {
        let content = client.content();
        assert_eq!((content.text(), content.delivered().redelivered), (text, true));
    }
    // A connection that breaks does so, too.
    let mut other = node.open();
    drop(client);
    other.consume("q", "d", true);
    assert_eq!(texts(&mut other, 2), ["a", "c"]);
}

#[test]
fn two_consumers_take_turns() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut one, mut two) = (node.open(), node.open());
    one.declare("q");
    one.qos(5);
    two.qos(5);
    one.consume("q", "one", false);
    two.consume("q", "two", false);
    one.publish("q", &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"]);
    let all = [texts(&mut one, 5), texts(&mut two, 5)].concat();
    assert!(one.is_silent() && two.is_silent(), "both have what they may");
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(sorted, ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
    two.ack(5, true);
    assert_eq!(two.content().text(), "k");
}

#[test]
fn an_unknown_delivery_tag_closes_the_channel() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let (code, text) = client.refused(&BasicAck { delivery_tag: 7, multiple: false });
    assert_eq!((code, &*text), (406, "PRECONDITION_FAILED - unknown delivery tag 7"));
    assert_eq!(client.refused(&BasicReject { delivery_tag: 1, requeue: true }).0, 406);
    assert_eq!(client.refused(&BasicNack { delivery_tag: 3, multiple: true, requeue: true }).0, 406);
}

#[test]
fn a_mandatory_message_without_a_queue_comes_back_before_it_is_confirmed() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.select_confirms();
    let routing_key = ShortBytes::cut("nowhere");
    let mandatory = BasicPublish { routing_key, mandatory: true, ..Default::default() };
    client.publish_as(&mandatory, &BasicProperties::default(), &["back"]);
    let back = client.content();
    let Method::BasicReturn(says) = back.method.method() else { panic!("{back:?}") };
    assert_eq!((says.reply_code, says.reply_text.as_str(), back.text()), (312, "NO_ROUTE", "back"));
    assert!(client.confirmed(1).is_empty(), "it is confirmed all the same");
    client.publish("nowhere", &["dropped"]);
    let ack = client.frame();
    assert!(matches!(ack.method(), Method::BasicAck(BasicAck { delivery_tag: 2, .. })), "{ack:?}");
}

#[test]
fn an_exclusive_consumer_has_the_queue_to_itself() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut one, mut two) = (node.open(), node.open());
    one.declare("q");
    let queue = ShortStr::cut("q");
    let exclusive = BasicConsume { queue, exclusive: true, ..Default::default() };
    assert!(matches!(one.ask(1, &exclusive).method(), Method::BasicConsumeOk(_)));
    for consume in [BasicConsume { exclusive: false, ..exclusive }, exclusive] {
        let (code, text) = two.refused(&consume);
        assert_eq!((code, &*text), (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"));
    }
}

#[test]
fn a_consumers_tag_is_its_channels_own() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.consume("q", "c", false);
    let (queue, consumer_tag) = (ShortStr::cut("q"), ShortStr::cut("c"));
    client.say(|out| {
        out.arguments(1, &BasicConsume { queue, consumer_tag, ..Default::default() });
    });
    let (code, text) = client.closed();
    assert_eq!((code, &*text), (530, "NOT_ALLOWED - attempt to reuse consumer tag 'c'"));
}

#[test]
fn what_is_published_is_there_for_what_the_channel_asks_next() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    let properties = BasicProperties::default().to_bytes();
    for round in 0..50 {
        client.say(|out| {
            out.content(1, &publish, &properties, &Bytes::from_static(b"x").into(), 4096).unwrap();
            out.arguments(1, &BasicGet { queue: ShortStr::cut("q"), no_ack: true, ..Default::default() });
        });
        assert_eq!(client.content().text(), "x", "{round}");
    }
}

#[test]
fn a_channels_bound_holds_for_all_of_its_consumers_together() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("a");
    client.declare("b");
    client.consume("a", "a", false);
    let bound = client.ask(1, &BasicQos { prefetch_count: 3, global: true, ..Default::default() });
    assert!(matches!(bound.method(), Method::BasicQosOk(_)), "{bound:?}");
    client.consume("b", "b", false);
    client.publish("a", &["1", "2", "3", "4"]);
    client.publish("b", &["5", "6", "7", "8"]);
    let first = texts(&mut client, 3);
    assert!(client.is_silent(), "{first:?} and no more");
    client.ack(0, true);
    assert_eq!(texts(&mut client, 3).len(), 3);
    assert!(client.is_silent());
}

#[test]
fn what_was_not_sent_to_a_consumer_that_acknowledges_nothing_stays_in_the_queue() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    let bodies: Vec<String> = (0..5000).map(|number| format!("m{number}")).collect();
    client.publish("q", &bodies.iter().map(String::as_str).collect::<Vec<_>>());
    client.consume("q", "c", true);
    client.say(|out| {
        out.arguments(1, &BasicCancel { consumer_tag: ShortStr::cut("c"), no_wait: false });
    });
    let mut came = 0;
    loop {
        let frame = client.frame();
        match frame.kind {
            FrameKind::Method if matches!(frame.method(), Method::BasicCancelOk(_)) => break,
            FrameKind::Method => came += 1,
            _ => {}
        }
    }
    // What was on its way is given back.
    while client.declare("q").1 != 5000 - came {}
    assert!((0..5000 - came).all(|_| client.get("q", true).is_some()), "none is lost");
    assert!(client.get("q", true).is_none());
}

#[test]
fn messages_expire_in_a_queue_that_nobody_consumes_and_over_a_start() {
    let data = tempfile::tempdir().unwrap();
    let mut node = Node::start(data.path());
    let mut client = node.open();
    let mut arguments = FieldTableBuf::new();
    arguments.push(ShortBytes::cut("x-message-ttl"), FieldValue::I32(600));
    let queue = QueueDeclare { queue: ShortStr::cut("q"), durable: true, ..Default::default() };
    let declare = QueueDeclare { arguments: arguments.as_table(), ..queue };
    let passive = QueueDeclare { passive: true, ..queue };
    client.declare_as(&declare);
    client.select_confirms();
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    let within = |ms| BasicProperties { expiration: Some(ShortBytes::cut(ms)), ..Default::default() };
    let began = std::time::Instant::now();
    client.publish_as(&publish, &within("1"), &["brief"]);
    client.publish("q", &["one", "two"]);
    client.confirmed(3);
    for left in [2, 0] {
        while client.declare_as(&passive).1 > left {
            assert!(began.elapsed() < PATIENCE);
        }
    }
    // A block's time has whole milliseconds, of which a part may have gone by.
    assert!(began.elapsed().as_millis() >= 599, "not before their time");
    client.publish("q", &["three"]);
    let confirmed = client.frame();
    assert!(matches!(confirmed.method(), Method::BasicAck(_)), "{confirmed:?}");
    node.stop();
    node = Node::start(data.path());
    let mut client = node.open();
    while client.declare_as(&passive).1 > 0 {}
    assert!(client.get("q", true).is_none());
}

#[test]
fn a_message_that_may_not_wait_goes_to_a_consumer_that_is_there() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    let at_once = BasicProperties { expiration: Some(ShortBytes::cut("0")), ..Default::default() };
    client.publish_as(&publish, &at_once, &["nobody"]);
    assert!(client.get("q", true).is_none());
    client.consume("q", "c", true);
    client.publish_as(&publish, &at_once, &["one", "two"]);
    assert_eq!([client.content(), client.content()].map(|content| content.text().to_owned()), ["one", "two"]);
}

#[test]
fn what_is_given_back_comes_first_to_who_consumes_in_the_same_write() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.publish("q", &["1", "2", "3", "4", "5"]);
    assert_eq!(
        [client.get("q", false), client.get("q", false)].map(|got| got.unwrap().text().to_owned()),
        ["1", "2"]
    );
    client.say(|out| {
        out.arguments(1, &BasicNack { delivery_tag: 2, multiple: true, requeue: true });
        let (queue, consumer_tag) = (ShortStr::cut("q"), ShortStr::cut("c"));
        out.arguments(1, &BasicConsume { queue, consumer_tag, no_wait: true, ..Default::default() });
    });
    for number in 1..=5 {
        let content = client.content();
        assert_eq!((content.text(), content.delivered().redelivered), (&*number.to_string(), number < 3));
    }
}

#[test]
fn a_message_that_has_expired_is_not_delivered() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    let within = |ms| BasicProperties { expiration: Some(ShortBytes::cut(ms)), ..Default::default() };
    client.select_confirms();
    client.publish_as(&publish, &within("20"), &["short", "brief"]);
    client.publish_as(&publish, &within("60000"), &["long"]);
    // Their time begins before they are confirmed.
    client.confirmed(3);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let got = client.get("q", false).unwrap();
    assert_eq!((got.text(), got.got().redelivered), ("long", false));
    client.publish_as(&publish, &within("20"), &["short"]);
    client.publish("q", &["last"]);
    client.confirmed_from(3, 5);
    std::thread::sleep(std::time::Duration::from_millis(50));
    client.consume("q", "c", true);
    assert_eq!(client.content().text(), "last");
    assert!(client.is_silent());
    let (code, text) = {
        client.publish_as(&publish, &within("soon"), &["x"]);
        let came = client.frame();
        client.channel_closed(&came)
    };
    assert_eq!(
        (code, &*text),
        (406, "PRECONDITION_FAILED - invalid expiration 'soon': expected milliseconds")
    );
}

#[test]
fn a_deleted_queues_consumer_hears_of_it_after_the_answer() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    client.declare("q");
    client.consume("q", "c", false);
    let deleted = client.ask(1, &QueueDelete { queue: ShortStr::cut("q"), ..Default::default() });
    assert!(matches!(deleted.method(), Method::QueueDeleteOk(_)), "{deleted:?}");
    let cancelled = client.frame();
    assert!(matches!(cancelled.method(), Method::BasicCancel(_)), "{cancelled:?}");
}

#[test]
fn what_is_published_while_its_queue_goes_is_confirmed() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    client.select_confirms();
    let bodies: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            // Bounded: the other thread may fail.
            for _ in 0..20_000 {
                other.declare("q");
                other.ask(1, &QueueDelete { queue: ShortStr::cut("q"), ..Default::default() });
                if done.load(Relaxed) {
                    break;
                }
            }
        });
        let mut confirmed = 0;
        let refused: Vec<_> = (0..100)
            .flat_map(|_| {
                client.publish("q", &bodies);
                let last = confirmed + bodies.len() as u64;
                let refused = client.confirmed_from(confirmed, last);
                confirmed = last;
                refused
            })
            .collect();
        done.store(true, Relaxed);
        assert_eq!(refused, [0; 0]);
    });
}
