//! What a client may take of the node's memory.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_amqp::wire::*;
use sabir_base::testing::best_of_three;

use crate::node::{Client, Content, Node, PATIENCE};

/// The frames of a publish.
fn published(channel: u16, body: usize) -> Vec<u8> {
    let mut out = FrameBuffer::new();
    let body = Bytes::from(vec![b'x'; body]);
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), ..Default::default() };
    out.content(channel, &publish, &BasicProperties::default().to_bytes(), &body.into(), FRAME).unwrap();
    out.take_all().to_vec()
}

/// The same without the last frame of the body.
fn begun(channel: u16, body: usize) -> Vec<u8> {
    let most = FRAME as usize - EMPTY_FRAME;
    let mut all = published(channel, body);
    all.truncate(all.len() - (body % most + EMPTY_FRAME));
    all
}

const FRAME: u32 = 131_072;

#[test]
fn parts_of_messages_beyond_a_connections_share_end_it() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["amqp.max_message=1MiB", "amqp.partial_memory=1MiB"]);
    let mut client = node.connect();
    client.log_in(0);
    for channel in 1..=3 {
        client.open_channel(channel);
        client.send(&begun(channel, 500_000));
    }
    let (code, text) = client.closed();
    assert_eq!(code, 506, "{text}");
}

#[test]
fn a_message_that_is_too_large_closes_its_channel_and_the_rest_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["amqp.max_message=100KiB"]);
    let mut client = node.open();
    client.open_channel(2);
    client.send(&published(1, 200_000));
    let came = client.frame();
    let Method::ChannelClose(close) = came.method() else { panic!("{came:?}") };
    assert_eq!((came.channel, close.reply_code), (1, 406));
    client.say(|out| out.arguments(1, &ChannelCloseOk {}));
    assert!(matches!(client.ask(2, &ChannelFlow { active: true }).method(), Method::ChannelFlowOk(_)));
    client.open_channel(1);
}

#[test]
fn headers_without_bodies_do_not_hold_the_buffers_in_which_they_came() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.connect();
    client.log_in(0);
    let before = resident();
    for channel in 1..=1000 {
        client.open_channel(channel);
        let mut out = FrameBuffer::new();
        out.arguments(channel, &BasicPublish::default());
        client.send(&out.take_all());
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more for a thousand methods without a header");
}

#[test]
fn channels_beyond_the_nodes_memory_are_refused_by_name_and_others_go_on() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["net.frame_memory=1MiB"]);
    let mut greedy = node.connect();
    greedy.log_in(0);
    let mut out = FrameBuffer::new();
    (1..=1000).for_each(|channel| out.arguments(channel, &ChannelOpen::default()));
    greedy.send(&out.take_all());
    let mut opened = 0;
    let (code, text) = loop {
        let came = greedy.frame();
        match came.method() {
            Method::ChannelOpenOk(_) => opened += 1,
            Method::ConnectionClose(close) => break (close.reply_code, close.reply_text.as_str().to_owned()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 506, "{text}");
    assert!(text.contains("no memory left for a channel"), "{text}");
    assert!((400..600).contains(&opened), "{opened}: half of the memory");
    drop(greedy);
    let mut next = node.open();
    (2..=200).for_each(|channel| next.open_channel(channel));
}

#[test]
fn a_client_whose_channels_fail_over_and_over_waits_each_time_and_no_other_does() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut other) = (node.open(), node.open());
    let unknown = QueueDeclare { queue: ShortStr::cut("nope"), passive: true, ..Default::default() };
    let mut fail = |times: usize| {
        let began = Instant::now();
        (0..times).for_each(|_| assert_eq!(client.refused(&unknown).0, 404));
        began.elapsed()
    };
    fail(200);
    // Of the last one it has not waited.
    let took = fail(31);
    assert!(took >= Duration::from_millis(300), "{took:?} for thirty errors beyond what is usual");
    // Another one has its errors as fast as they come, and while the first one waits for its own.
    best_of_three(Duration::from_millis(300), || {
        std::thread::scope(|scope| {
            scope.spawn(|| fail(31));
            let began = Instant::now();
            (0..31).for_each(|_| assert_eq!(other.refused(&unknown).0, 404));
            began.elapsed()
        })
    });
    assert_eq!(other.declare("q").1, 0);
}

#[test]
fn consumers_beyond_the_nodes_memory_are_refused_by_name_and_cost_nothing_when_they_end() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["net.frame_memory=1MiB"]);
    let mut client = node.open();
    client.declare("q");
    let mut consumed = 0;
    let mut consume = |client: &mut Client, cancels: bool| {
        consumed += 1;
        let tag = format!("{consumed}{}", "x".repeat(200));
        let consumer_tag = ShortStr::cut(&tag);
        let consume = BasicConsume { queue: ShortStr::cut("q"), consumer_tag, ..Default::default() };
        let came = client.ask(1, &consume);
        let closed = match came.method() {
            Method::BasicConsumeOk(_) => None,
            Method::ConnectionClose(close) => Some((close.reply_code, close.reply_text.as_str().to_owned())),
            other => panic!("{other:?}"),
        };
        if cancels {
            client.ask(1, &BasicCancel { consumer_tag, no_wait: false });
        }
        closed
    };
    assert_eq!((0..2000).find_map(|_| consume(&mut client, true)), None);
    let (at, (code, text)) =
        (0..2000).find_map(|at| consume(&mut client, false).map(|closed| (at, closed))).unwrap();
    assert_eq!(code, 506, "{text}");
    assert!(text.contains("no memory left for a consumer"), "{text}");
    assert!((250..400).contains(&at), "{at}: half of the memory");
}

/// Properties of so many bytes.
fn properties_of(bytes: usize) -> Bytes {
    let with = |filling: usize| {
        let (mut headers, filling) = (FieldTableBuf::new(), vec![b'x'; filling]);
        headers.push(ShortBytes::cut("own"), FieldValue::LongStr(&filling));
        BasicProperties { headers: Some(headers.as_table()), ..Default::default() }.to_bytes()
    };
    with(bytes - with(0).len())
}

/// What the properties of a message may have in a frame.
const FITS: usize = FRAME as usize - EMPTY_FRAME - 12;

fn publish_with(client: &mut Client, publish: &BasicPublish<'_>, properties: &[u8]) {
    // As of a client that takes the limit for that of a payload.
    let most = client.frame_max + EMPTY_FRAME as u32;
    client.say(|out| out.content(1, publish, properties, &Bytes::from_static(b"body").into(), most).unwrap());
}

fn declare(client: &mut Client, queue: &str, arguments: &[(&str, FieldValue<'_>)]) {
    let mut table = FieldTableBuf::new();
    for (name, value) in arguments {
        table.push(ShortBytes::cut(name), *value);
    }
    let (queue, arguments) = (ShortStr::cut(queue), table.as_table());
    client.declare_as(&QueueDeclare { queue, durable: true, arguments, ..Default::default() });
}

/// The first message of a queue, once there is one.
fn await_message(client: &mut Client, queue: &str) -> Content {
    let began = std::time::Instant::now();
    loop {
        if let Some(got) = client.get(queue, true) {
            return got;
        }
        assert!(began.elapsed() < PATIENCE, "nothing comes to {queue}");
    }
}

#[test]
fn properties_that_no_frame_could_bring_back_are_refused() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let mandatory =
        BasicPublish { routing_key: ShortBytes::cut("nobody"), mandatory: true, ..Default::default() };
    let properties = properties_of(FITS);
    publish_with(&mut client, &mandatory, &properties);
    assert_eq!(client.content().properties, properties);
    publish_with(&mut client, &mandatory, &properties_of(FITS + 1));
    let came = client.frame();
    let (code, text) = client.channel_closed(&came);
    assert_eq!(code, 406, "{text}");
    // So are those that are larger by the address for replies.
    client.consume("amq.rabbitmq.reply-to", "replies", true);
    let reply_to = Some(ShortBytes::cut("amq.rabbitmq.reply-to"));
    let properties = properties_of(FITS - 30);
    let read = BasicProperties::read(&properties).unwrap();
    publish_with(&mut client, &mandatory, &BasicProperties { reply_to, ..read }.to_bytes());
    let came = client.frame();
    assert_eq!(client.channel_closed(&came).0, 406);
}

#[test]
fn what_the_broker_adds_to_large_properties_is_left_out_where_it_does_not_fit() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let mut client = node.open();
    let text = |text: &'static str| FieldValue::LongStr(text.as_bytes());
    let to_dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    declare(&mut client, "dead", &[]);
    declare(&mut client, "work", &to_dead);
    declare(&mut client, "counts", &[("x-queue-type", text("quorum"))]);
    let properties = properties_of(FITS);
    let again = |client: &mut Client, queue: &str, requeue: bool| {
        publish_with(
            client,
            &BasicPublish { routing_key: ShortBytes::cut(queue), ..Default::default() },
            &properties,
        );
        let delivery_tag = client.get(queue, false).unwrap().got().delivery_tag;
        client.say(|out| out.arguments(1, &BasicReject { delivery_tag, requeue }));
    };
    again(&mut client, "work", false);
    assert_eq!(await_message(&mut client, "dead").properties, properties);
    again(&mut client, "work", false);
    client.consume("dead", "c", true);
    assert_eq!(client.content().properties, properties);
    again(&mut client, "counts", true);
    assert_eq!(await_message(&mut client, "counts").properties, properties);
}

#[test]
fn a_message_whose_properties_do_not_fit_a_consumers_frame_is_left_for_another() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut client, mut small) = (node.open(), node.connect());
    small.frame_max = FRAME_MIN;
    small.log_in(0);
    small.open_channel(1);
    client.declare("q");
    let properties = properties_of(10_000);
    let publish = |queue| BasicPublish { routing_key: ShortBytes::cut(queue), ..Default::default() };
    publish_with(&mut client, &publish("q"), &properties);
    client.publish("q", &["behind"]);
    let says = "PRECONDITION_FAILED - a message of queue 'q' in vhost '/' needs a larger frame_max than 4096 for its properties";
    for no_ack in [false, true] {
        let get = BasicGet { queue: ShortStr::cut("q"), no_ack, ..Default::default() };
        let came = loop {
            // What a channel had is ready again soon after it was closed.
            let came = small.ask(1, &get);
            if !matches!(came.method(), Method::BasicGetEmpty(_)) {
                break came;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(small.channel_closed(&came), (406, says.to_owned()));
        small.consume("q", "c", no_ack);
        let came = small.frame();
        assert_eq!(small.channel_closed(&came), (406, says.to_owned()));
    }
    assert_eq!(await_message(&mut client, "q").properties, properties);
    small.consume("q", "c", true);
    assert_eq!(small.content().text(), "behind");
    // A limit of deliveries ends it.
    let text = |text: &'static str| FieldValue::LongStr(text.as_bytes());
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", FieldValue::I32(1)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    declare(&mut client, "dead", &[]);
    declare(&mut client, "limited", &arguments);
    publish_with(&mut client, &publish("limited"), &properties);
    for _ in 0..2 {
        small.consume("limited", "l", false);
        let came = small.frame();
        assert_eq!(small.channel_closed(&came).0, 406);
    }
    assert_eq!(await_message(&mut client, "dead").text(), "body");
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let mut text = String::new();
    std::fs::File::open("/proc/self/statm").unwrap().read_to_string(&mut text).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn what_a_client_says_is_heard_while_it_reads_none_of_its_deliveries() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::start(data.path());
    let (mut slow, mut other) = (node.open(), node.open());
    slow.declare("large");
    other.declare("small");
    other.select_confirms();
    let body = "x".repeat(1 << 20);
    // More than the systems' buffers hold, so that most of it waits in the node.
    const MESSAGES: u32 = 24;
    (0..MESSAGES).for_each(|_| other.publish("large", &[&body]));
    assert_eq!(other.confirmed(MESSAGES.into()), [0; 0]);
    slow.qos(0);
    slow.consume("large", "c", false);
    let first = slow.content().delivered().delivery_tag;
    slow.ack(first, false);
    slow.publish("small", &["done"]);
    let began = Instant::now();
    while other.get("small", true).is_none() {
        assert!(began.elapsed() < PATIENCE, "its publish is not read behind its acknowledgement");
    }
    drop(slow);
    while other.declare("large").1 < MESSAGES - 1 {
        assert!(began.elapsed() < PATIENCE, "what it did not acknowledge is not back");
    }
    assert_eq!(other.declare("large").1, MESSAGES - 1, "what it acknowledged is gone");
}

#[test]
fn consumers_of_large_messages_wait_for_memory_and_each_has_all_of_its_own() {
    const CONSUMERS: u64 = 10;
    for prefetch in [1, 0] {
        let data = tempfile::tempdir().unwrap();
        // Readers have 4 MiB of it together.
        let node = Node::with(data.path(), &["net.frame_memory=8MiB"]);
        let mut client = node.open();
        client.select_confirms();
        for number in 0..CONSUMERS {
            let queue = format!("q{number}");
            client.declare(&queue);
            client.publish(&queue, &[&"x".repeat(3 << 20), &"y".repeat(3 << 20)]);
            assert_eq!(client.confirmed_from(2 * number, 2 * number + 2), [0; 0]);
        }
        let consume = |number| {
            let mut client = node.open();
            client.qos(prefetch);
            client.consume(&format!("q{number}"), "c", false);
            client
        };
        // None of them reads on until all are there.
        let clients: Vec<Client> = (0..CONSUMERS).map(consume).collect();
        std::thread::scope(|scope| {
            for mut client in clients {
                scope.spawn(move || {
                    for first in ["x", "y"] {
                        let content = client.content();
                        assert_eq!((content.body.len(), &content.text()[..1]), (3 << 20, first));
                        client.ack(content.delivered().delivery_tag, false);
                    }
                });
            }
        });
    }
}

#[test]
fn a_message_that_is_larger_than_what_readers_have_together_is_got_and_consumed() {
    let data = tempfile::tempdir().unwrap();
    let node = Node::with(data.path(), &["net.frame_memory=8MiB"]);
    let mut client = node.open();
    client.select_confirms();
    client.declare("q");
    for (number, text) in ["x", "y", "z"].into_iter().enumerate() {
        client.publish("q", &[&text.repeat(5 << 20)]);
        assert_eq!(client.confirmed_from(number as u64, number as u64 + 1), [0; 0]);
    }
    assert_eq!(client.get("q", true).expect("it is ready").body.len(), 5 << 20);
    // One of two connections waits for what the other one has.
    let mut other = node.open();
    other.qos(1);
    other.consume("q", "c", false);
    // Both read at once: what one does not read may be more than its socket takes, and the other one waits for that.
    std::thread::scope(|scope| {
        let consumed = scope.spawn(move || other.content().body.len());
        assert_eq!(client.get_soon("q").expect("it is ready").body.len(), 5 << 20);
        assert_eq!(consumed.join().expect("it is read"), 5 << 20);
    });
}

#[test]
fn a_channel_with_many_consumers_gives_all_back_however_it_ends() {
    const MANY: u32 = 700;
    for connection_ends in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let node = Node::start(data.path());
        let (mut client, mut other) = (node.open(), node.open());
        other.declare("q");
        other.declare_as(&QueueDeclare {
            queue: ShortStr::cut("goes"),
            auto_delete: true,
            ..Default::default()
        });
        client.qos(1);
        (0..MANY).for_each(|number| client.consume("q", &number.to_string(), false));
        client.consume("goes", "last", false);
        let bodies: Vec<String> = (0..MANY).map(|number| number.to_string()).collect();
        other.publish("q", &bodies.iter().map(String::as_str).collect::<Vec<_>>());
        let began = Instant::now();
        let mut becomes = |messages, consumers| {
            while other.declare("q") != ("q".to_owned(), messages, consumers) {
                assert!(began.elapsed() < PATIENCE, "{:?}", other.declare("q"));
            }
        };
        becomes(0, MANY);
        match connection_ends {
            true => drop(client),
            false => client.say(|out| out.arguments(1, &ChannelClose::default())),
        }
        becomes(MANY, 0);
        while node.broker().catalog().topic("goes").is_some() {
            assert!(began.elapsed() < PATIENCE, "the queue that goes with its last consumer is there");
        }
    }
}
