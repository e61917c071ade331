//! Queues that are deleted on conditions, while something comes that they are about.

use std::time::Instant;

use sabir_amqp::wire::*;
use sabir_model::ShardId;

use crate::node::{Client, PATIENCE};
use crate::rig::Rig;

/// The catalog's shard, and that of the queues.
const CATALOG: ShardId = ShardId(0);
const QUEUES: ShardId = ShardId(1);

fn delete(client: &mut Client, queue: &str, if_unused: bool, if_empty: bool) {
    let queue = ShortStr::cut(queue);
    client.say(|out| out.arguments(1, &QueueDelete { queue, if_unused, if_empty, ..Default::default() }));
}

/// Waits until a shard has something on its way to its disk.
fn until_under_way(rig: &Rig, shard: ShardId) {
    let began = Instant::now();
    while rig.broker.stats().shards[shard.0 as usize].in_flight == 0 {
        assert!(began.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

#[test]
fn a_queue_with_a_message_on_its_way_is_not_deleted_as_empty() {
    let rig = Rig::start();
    let (mut client, mut other) = (rig.open(), rig.open());
    client.declare("q");
    client.select_confirms();
    rig.disks.hang(QUEUES);
    client.publish("q", &["x"]);
    until_under_way(&rig, QUEUES);
    delete(&mut other, "q", false, true);
    assert!(other.is_silent());
    rig.disks.resume();
    let came = other.frame();
    let (code, text) = other.channel_closed(&came);
    assert_eq!((code, &*text), (406, "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"));
    assert_eq!(client.confirmed(1), [0; 0]);
    let got = client.get("q", false).unwrap();
    assert_eq!(got.text(), "x");
    // What is in flight does not wait, as with RabbitMQ.
    delete(&mut other, "q", false, true);
    let came = other.frame();
    assert!(matches!(came.method(), Method::QueueDeleteOk(QueueDeleteOk { message_count: 0 })), "{came:?}");
}

#[test]
fn a_queue_that_is_deleted_as_unused_takes_no_consumer_meanwhile() {
    let rig = Rig::start();
    let (mut client, mut other) = (rig.open(), rig.open());
    client.declare("q");
    client.consume("q", "c", false);
    delete(&mut other, "q", true, false);
    let came = other.frame();
    let (code, text) = other.channel_closed(&came);
    assert_eq!((code, &*text), (406, "PRECONDITION_FAILED - queue 'q' in vhost '/' in use"));
    let cancelled = client.ask(1, &BasicCancel { consumer_tag: ShortStr::cut("c"), no_wait: false });
    assert!(matches!(cancelled.method(), Method::BasicCancelOk(_)));
    rig.disks.hang(CATALOG);
    delete(&mut other, "q", true, false);
    until_under_way(&rig, CATALOG);
    let consume = BasicConsume { queue: ShortStr::cut("q"), ..Default::default() };
    let (code, text) = client.refused(&consume);
    assert_eq!((code, &*text), (404, "NOT_FOUND - no queue 'q' in vhost '/'"));
    rig.disks.resume();
    let came = other.frame();
    assert!(matches!(came.method(), Method::QueueDeleteOk(_)), "{came:?}");
    client.declare("q");
    client.consume("q", "c", false);
}

#[test]
fn an_auto_delete_queue_takes_no_consumer_once_its_last_one_is_gone() {
    let rig = Rig::start();
    let (mut client, mut other) = (rig.open(), rig.open());
    client.declare_as(&QueueDeclare { queue: ShortStr::cut("q"), auto_delete: true, ..Default::default() });
    client.consume("q", "c", false);
    rig.disks.hang(CATALOG);
    client.say(|out| out.arguments(1, &BasicCancel { consumer_tag: ShortStr::cut("c"), no_wait: false }));
    until_under_way(&rig, CATALOG);
    let consume = BasicConsume { queue: ShortStr::cut("q"), ..Default::default() };
    assert_eq!(other.refused(&consume).0, 404);
    rig.disks.resume();
    assert!(matches!(client.frame().method(), Method::BasicCancelOk(_)));
    let passive = QueueDeclare { queue: ShortStr::cut("q"), passive: true, ..Default::default() };
    assert_eq!(client.refused(&passive).0, 404);
}
