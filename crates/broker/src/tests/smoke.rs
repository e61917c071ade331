use std::future::Future;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use sabir_model::{TopicConfig, TopicError, TopicField};

use super::rig::{append, batch, create, new_topic, open, options, produced, read, soon, until, values};
use crate::{BrokerOptions, Caller, NewTopic, OffsetSpec, ReadTarget};

#[tokio::test]
async fn what_was_appended_is_read_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topic = create(&broker, "orders", 3).await;
    for i in 0..3 {
        let appended = append(&broker, &topic, 1, batch(&[b"a", b"b"], 10 + i)).await.unwrap();
        assert_eq!(appended.base_offset.0, 2 * i);
    }
    let big = vec![7u8; 100_000];
    append(&broker, &topic, 1, batch(&[&big], 99)).await.unwrap();
    let check = async |broker: &crate::Broker| {
        let fetched = read(broker, &topic, 1, 3, 1 << 20).await.unwrap();
        assert_eq!(fetched.high_watermark.0, 7);
        let found = values(&fetched);
        assert_eq!(found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(found[4].1, big);
    };
    check(&broker).await;
    broker.shutdown();
    drop(broker);
    let broker = open(options(dir.path()));
    assert_eq!(broker.catalog().topic("orders").unwrap().id, topic.id);
    check(&broker).await;
    let partition = topic.partition(1).unwrap();
    let found = broker.offsets(ReadTarget::of(partition), OffsetSpec::Timestamp(12)).await.unwrap();
    assert_eq!((found.offset.0, found.timestamp), (4, 12));
    let found = broker.offsets(ReadTarget::of(partition), OffsetSpec::MaxTimestamp).await.unwrap();
    assert_eq!((found.offset.0, found.timestamp), (6, 99));
    broker.shutdown();
}

#[test]
fn a_shutdown_waits_for_a_block_that_is_just_being_sent() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let shard = &broker.inner.shards[0];
    std::thread::scope(|scope| {
        let drained = shard.while_submitting(|| {
            let drained = scope.spawn(|| shard.drain(Instant::now() + Duration::from_secs(5)));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!drained.is_finished());
            drained
        });
        drained.join().unwrap();
    });
    broker.shutdown();
    assert!(!broker.has_hung_disk());
}

#[tokio::test]
async fn a_retry_is_answered_with_the_first_offset() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topic = create(&broker, "t", 1).await;
    let id = broker.allocate_producer_id(&Caller::OPERATOR).await.unwrap().0;
    let first = append(&broker, &topic, 0, produced(&[b"x"], id, 0, 0)).await.unwrap();
    let second = append(&broker, &topic, 0, produced(&[b"y"], id, 0, 1)).await.unwrap();
    let again = append(&broker, &topic, 0, produced(&[b"x"], id, 0, 0)).await.unwrap();
    assert_eq!((first.base_offset.0, first.duplicate), (0, false));
    assert_eq!((second.base_offset.0, second.duplicate), (1, false));
    assert_eq!((again.base_offset.0, again.duplicate), (0, true));
    broker.shutdown();
}

#[tokio::test]
async fn topics_follow_the_nodes_defaults_in_what_is_not_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let own = TopicConfig { retention_ms: Some(77), ..TopicConfig::default() };
    let topics = vec![new_topic("follows", 2), NewTopic { config: own, ..new_topic("has its own", 2) }];
    for topic in broker.create_topics(&Caller::OPERATOR, topics).await {
        topic.unwrap();
    }
    broker.shutdown();
    drop(broker);
    let defaults = TopicConfig { retention_ms: Some(55), max_message_bytes: 99, ..TopicConfig::default() };
    let broker = open(BrokerOptions { defaults, ..options(dir.path()) });
    let seen = |name: &str| {
        let topic = broker.catalog().topic(name).cloned()?;
        let first = topic.partition(0)?;
        let state = broker.inner.shards[first.shard.0 as usize].state.read();
        let kept = state.partition(first.id)?.settings.retention_ms;
        Some((topic.config.retention_ms, topic.config.max_message_bytes, kept))
    };
    until(|| seen("follows") == Some((Some(55), 99, 55))).await;
    until(|| seen("has its own") == Some((Some(77), 99, 77))).await;
    broker.shutdown();
}

#[tokio::test]
async fn who_waits_for_room_is_listed_once_and_woken() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let shard = &broker.inner.shards[1];
    shard.pretend_waiting(usize::MAX);
    let crowded = shard.id;
    let mut room = Box::pin(broker.room(crowded));
    for _ in 0..100 {
        let polled = room.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
    }
    assert_eq!(shard.waiting_for_room(), 1);
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.room(crowded).await }
    });
    until(|| shard.waiting_for_room() == 2).await;
    // The other shard's are not held up, and a caller that no longer waits is not kept for ever.
    soon(broker.room(sabir_model::ShardId(0))).await;
    for _ in 0..100 {
        let mut gone = Box::pin(broker.room(crowded));
        assert!(gone.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert!(shard.waiting_for_room() < 20, "{}", shard.waiting_for_room());
    shard.pretend_waiting(0);
    soon(waiting).await.unwrap();
    soon(room).await;
    drop(broker);
}

#[tokio::test]
async fn what_a_topic_is_given_is_counted_once_it_is_appended_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(BrokerOptions { counted_topics_max: 2, ..options(dir.path()) });
    let topics =
        [create(&broker, "a", 1).await, create(&broker, "b", 1).await, create(&broker, "c", 1).await];
    let received = |topic: &crate::Topic| topic.traffic.own().map(|own| own.received());
    let id = broker.allocate_producer_id(&Caller::OPERATOR).await.unwrap().0;
    let one = produced(&[b"x"], id, 0, 0);
    let len = one.len() as u64;
    append(&broker, &topics[0], 0, one.clone()).await.unwrap();
    assert!(append(&broker, &topics[0], 0, one).await.unwrap().duplicate);
    assert!(append(&broker, &topics[0], 0, produced(&[b"x"], id, 0, 9)).await.is_err(), "out of sequence");
    assert_eq!(received(&topics[0]), Some(len), "what came again or was refused is not there");
    // One that is fragmented, as it is stored.
    let big = batch(&[&vec![7u8; 3 << 20]], 1);
    append(&broker, &topics[1], 0, big.clone()).await.unwrap();
    assert_eq!(received(&topics[1]), Some(big.len() as u64));
    // There are as many as are counted by themselves.
    let small = batch(&[b"x"], 1);
    append(&broker, &topics[2], 0, small.clone()).await.unwrap();
    assert_eq!((received(&topics[2]), broker.other_traffic().1.received()), (None, small.len() as u64));
    // A changed topic goes on with its counters.
    let change = |config: &mut TopicConfig| {
        config.retention_ms = Some(7);
        config.own(TopicField::RetentionMs);
        Ok::<(), TopicError>(())
    };
    let changed = broker.change_topic(&Caller::OPERATOR, topics[0].id, change).await.unwrap();
    append(&broker, &changed, 0, small.clone()).await.unwrap();
    assert_eq!(received(&broker.catalog().topic("a").unwrap().clone()), Some(len + small.len() as u64));
    broker.shutdown();
}
