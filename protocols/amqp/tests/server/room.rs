//! What goes on while a shard has no room for what is published.

use std::time::Duration;

use sabir_amqp::wire::*;
use sabir_broker::{AppendAcks, AppendTarget, Caller, Publish, PublishTargets, ReadTarget};
use sabir_model::FrontendNo;
use sabir_model::batch::{BatchBuilder, Compression};

use crate::node::{Client, PATIENCE};
use crate::rig::{QUEUES, Rig};

/// Messages with keys, for partitions in all shards.
fn publish_keyed(client: &mut Client, topic: &str, bodies: &[&str]) {
    let publish = BasicPublish { routing_key: ShortBytes::cut(topic), ..Default::default() };
    for body in bodies {
        let mut headers = FieldTableBuf::new();
        headers.push(ShortBytes::cut("key"), FieldValue::LongStr(body.as_bytes()));
        let properties = BasicProperties { headers: Some(headers.as_table()), ..Default::default() };
        client.publish_as(&publish, &properties, &[body]);
    }
}

/// The next message of the first channel; what is confirmed on another one meanwhile is noted.
fn next(client: &mut Client, confirmed: &mut u64) -> String {
    let delivered = loop {
        let came = client.frame();
        match came.method() {
            Method::BasicAck(ack) => *confirmed = ack.delivery_tag,
            Method::BasicDeliver(_) => break came,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delivered.channel, 1);
    client.content_of(delivered).text().to_owned()
}

#[test]
fn what_waits_for_room_in_one_shard_holds_up_neither_acknowledgements_nor_another_shard() {
    let rig = Rig::start();
    let topic = rig.topic("spread");
    let mut client = rig.open();
    client.open_channel(2);
    client.declare("q");
    client.publish("q", &["0", "1", "2"]);
    client.qos(1);
    client.consume("q", "c", false);
    assert_eq!(client.content().text(), "0");
    rig.fill(&topic);
    // On another channel, and more than is taken in.
    let select = client.ask(2, &ConfirmSelect::default());
    assert!(matches!(select.method(), Method::ConfirmSelectOk(_)));
    let keys: Vec<String> = (0..16).map(|number| number.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    client.on = 2;
    publish_keyed(&mut client, "spread", &keys);
    client.publish("q", &["3"]);
    client.on = 1;
    client.ack(1, false);
    let mut confirmed = 0;
    assert_eq!(next(&mut client, &mut confirmed), "1");
    client.ack(2, false);
    assert_eq!(next(&mut client, &mut confirmed), "2", "further ones go on, too");
    client.ack(3, false);
    assert_eq!(next(&mut client, &mut confirmed), "3", "which was published behind what waits");
    assert!(confirmed < 16, "what is for the shard without room waits");
    rig.disks.resume();
    assert_eq!(client.confirmed_from(confirmed, 17), [0; 0]);
}

#[test]
fn what_is_being_committed_counts_until_it_is_answered() {
    let rig = Rig::start();
    let mut client = rig.open();
    client.declare("q");
    assert!(matches!(client.ask(1, &TxSelect {}).method(), Method::TxSelectOk(_)));
    let publish = BasicPublish { routing_key: ShortBytes::cut("q"), mandatory: true, ..Default::default() };
    let bodies = ["x".repeat(200_000), "y".repeat(100_000)];
    client.publish_as(&publish, &BasicProperties::default(), &[&bodies[0], &bodies[1]]);
    rig.disks.hang(QUEUES);
    client.say(|out| out.arguments(1, &TxCommit {}));
    assert!(client.is_silent());
    assert!(rig.granted() >= 300_000, "{}", rig.granted());
    rig.disks.resume();
    assert!(matches!(client.frame().method(), Method::TxCommitOk(_)));
    assert!(matches!(client.ask(1, &ChannelFlow { active: true }).method(), Method::ChannelFlowOk(_)));
    assert_eq!(rig.granted(), 0);
    assert_eq!(client.declare("q").1, 2);
}

#[test]
fn what_is_dealt_to_consumers_that_are_cancelled_is_given_back_however_many_were() {
    let rig = Rig::start();
    let mut client = rig.open();
    client.declare("q");
    client.publish("q", &["0", "1", "2"]);
    assert_eq!(client.declare("q").1, 3);
    rig.disks.hang(QUEUES);
    let cancel = |client: &mut Client, tag: &str| {
        client.consume("q", tag, false);
        client.ask(1, &BasicCancel { consumer_tag: ShortStr::cut(tag), no_wait: false });
    };
    (0..1100).for_each(|number| cancel(&mut client, &number.to_string()));
    rig.disks.resume();
    let began = std::time::Instant::now();
    // A client that opens another channel with the number of the first one has nothing to do with it.
    let mut other = rig.open();
    while other.declare("q").1 < 3 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", other.declare("q").1);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_channel_lets_go_of_queues_that_were_deleted() {
    let rig = Rig::start();
    let mut client = rig.open();
    for number in 0..200 {
        let queue = format!("reply-{number}");
        client.declare(&queue);
        assert!(client.get(&queue, false).is_none());
        let delete = QueueDelete { queue: ShortStr::cut(&queue), ..Default::default() };
        assert!(matches!(client.ask(1, &delete).method(), Method::QueueDeleteOk(_)));
    }
    assert_eq!(
        rig.granted(),
        0,
        "what it has for channels and queues is no more than any connection may have"
    );
}

#[test]
fn what_a_channel_says_behind_what_waits_waits_as_well() {
    let rig = Rig::start();
    let topic = rig.topic("spread");
    let mut client = rig.open();
    client.declare("q");
    client.publish("q", &["0", "1"]);
    client.qos(1);
    client.consume("q", "c", false);
    assert_eq!(client.content().text(), "0");
    rig.fill(&topic);
    let keys: Vec<String> = (0..16).map(|number| number.to_string()).collect();
    publish_keyed(&mut client, "spread", &keys.iter().map(String::as_str).collect::<Vec<_>>());
    client.ack(1, false);
    assert!(
        client.is_silent(),
        "else what was made of a message might be lost with what it was made of settled"
    );
    rig.disks.resume();
    assert_eq!(client.content().text(), "1");
}

#[test]
fn a_client_that_closes_leaves_what_waited_to_the_shard() {
    let rig = Rig::start();
    let topic = rig.topic("spread");
    let mut client = rig.open();
    let published = rig.fill(&topic);
    let keys: Vec<String> = (0..16).map(|number| number.to_string()).collect();
    publish_keyed(&mut client, "spread", &keys.iter().map(String::as_str).collect::<Vec<_>>());
    let closed = client.ask(0, &ConnectionClose::default());
    assert!(matches!(closed.method(), Method::ConnectionCloseOk(_)), "{closed:?}");
    rig.disks.resume();
    let stats = |index| {
        let target = ReadTarget::new(&Caller::OPERATOR, &topic, index).unwrap();
        rig.broker.partition_stats(target).unwrap().end.0
    };
    let began = std::time::Instant::now();
    while stats(0) + stats(1) < 16 + published {
        assert!(began.elapsed() < Duration::from_secs(30), "{} {}", stats(0), stats(1));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn batches_of_others_are_unpacked_one_at_a_time_whatever_they_hold() {
    let rig = Rig::start();
    let mut client = rig.open();
    client.declare("q");
    let topic = rig.broker.catalog().topic("q").unwrap().clone();
    let target =
        AppendTarget::new(&Caller::OPERATOR, &topic, 0, AppendAcks::Leader, FrontendNo::NONE).unwrap();
    let targets = PublishTargets::new(vec![target]).unwrap();
    // Many small records, some megabytes in one, and as many in many, in every codec.
    let sizes = [(500, 10), (1, 3 << 20), (2_000, 2 << 10), (3, 1)];
    let mut expected = Vec::new();
    for codec in Compression::ALL {
        for (records, size) in sizes {
            let mut batch = BatchBuilder::new(codec);
            for _ in 0..records {
                let value = format!("{}{}", expected.len(), "x".repeat(size));
                batch.push(1, None, Some(value.as_bytes()), &[]);
                expected.push(value);
            }
            let batch = batch.build_checked(&targets.rules(), 1).unwrap();
            let publish = Publish::new(targets.clone(), [batch]);
            drop(rig.broker.publish(&Caller::OPERATOR, &publish).unwrap());
            rig.broker.flush();
        }
    }
    for body in expected.iter().take(502) {
        assert_eq!(client.get_soon("q").unwrap().text(), body);
    }
    client.consume("q", "c", true);
    for body in &expected[502..] {
        assert!(client.content().text() == body);
    }
    assert!(client.is_silent());
    assert_eq!(rig.granted(), 0);
}

/// Has the queues' shard be without space for what is published.
fn fill_disk(rig: &Rig, client: &mut Client) -> usize {
    rig.disks.set_capacity(QUEUES, 0);
    client.declare("filler");
    let body = "x".repeat(1 << 20);
    for published in 1.. {
        client.publish("filler", &[&body]);
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            if rig.broker.stats().shards[QUEUES.0 as usize].full {
                return published;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    0
}

#[test]
fn a_publisher_is_held_back_and_told_so_while_the_disk_is_full() {
    let rig = Rig::start();
    let mut client = rig.open();
    client.declare("q");
    client.publish("q", &["0", "1", "2"]);
    client.qos(1);
    client.consume("q", "c", false);
    assert_eq!(client.content().text(), "0");
    fill_disk(&rig, &mut rig.open());
    // One that publishes nothing is not told.
    assert!(client.is_silent());
    client.open_channel(2);
    let select = client.ask(2, &ConfirmSelect::default());
    assert!(matches!(select.method(), Method::ConfirmSelectOk(_)));
    client.on = 2;
    client.publish("q", &["3", "4"]);
    let blocked = client.frame();
    assert!(
        matches!(blocked.method(), Method::ConnectionBlocked(blocked) if blocked.reason.as_str() == "low on disk"),
        "{blocked:?}"
    );
    assert!(client.is_silent());
    // What is settled goes on, and may be what makes room.
    client.ack(1, false);
    assert_eq!(client.content().text(), "1");
    client.publish("q", &["5"]);
    assert!(client.is_silent());
    rig.disks.end_limits();
    assert!(matches!(client.frame().method(), Method::ConnectionUnblocked(_)));
    assert_eq!(client.confirmed_from(0, 3), [0; 0]);
    for (tag, body) in [(2, "2"), (3, "3"), (4, "4"), (5, "5")] {
        client.ack(tag, false);
        assert_eq!(client.content().text(), body);
    }
}

#[test]
fn what_finds_no_space_on_the_disk_closes_its_channel_alone() {
    let rig = Rig::start();
    rig.topic("topic");
    let mut client = rig.open();
    client.declare("q");
    client.publish("q", &["0"]);
    client.open_channel(2);
    assert!(fill_disk(&rig, &mut rig.open()) > 0);
    let consume = BasicConsume { queue: ShortStr::cut("topic"), ..Default::default() };
    let (code, text) = client.refused(&consume);
    assert!(code == 406 && text.contains("the disk is full"), "{code} {text}");
    // The others go on, and so does this one, once there is space.
    let select = client.ask(2, &ConfirmSelect::default());
    assert!(matches!(select.method(), Method::ConfirmSelectOk(_)));
    rig.disks.end_limits();
    let began = std::time::Instant::now();
    while client.refused_or_done(&consume) != 0 {
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(client.get("q", true).unwrap().text(), "0");
}
