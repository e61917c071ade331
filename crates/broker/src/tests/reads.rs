//! Reading: patched, shared, rebuilt, hot and cold, by offset and by time.

use bytes::Bytes;
use sabir_base::testing::{keep_log, logged};
use sabir_journal::Priority;
use sabir_journal::pages::{PageBatch, PageFault, PageStore};
use sabir_model::batch::{BatchBuilder, BatchHeader, CheckedBatch, Compression, records, rewrite_header};
use sabir_model::{Extent, FrontendNo, Offset, Overlay, ProducerId, ReadError, TimestampType, TopicConfig};

use super::rig::{append, batch, create, item, new_topic, pending, produced, read, soon, target, values};
use super::sim::{Machine, Seam};
use crate::entry::ReferenceBody;
use crate::partition::SpillKey;
use crate::{Append, Broker, Caller, Damage, DamageCause, NewTopic, OffsetSpec, ReadTarget, Topic};

fn runs(broker: &Broker, topic: &Topic) -> Vec<crate::partition::Run> {
    let partition = topic.partition(0).unwrap();
    let state = broker.inner.shards[partition.shard.0 as usize].state.read();
    state.partition(partition.id).unwrap().index.open().to_vec()
}

#[tokio::test]
async fn small_batches_are_copied_together_and_large_ones_shared() {
    let machine = Machine::new(1, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let big = vec![3u8; 10_000];
    let mut items: Vec<_> = (0..5).map(|i| item(&topic, 0, batch(&[&[i], &[i + 100]], 1))).collect();
    items.push(item(&topic, 0, batch(&[&big], 1)));
    items.push(item(&topic, 0, batch(&[b"end"], 1)));
    let appending = broker.append(items);
    broker.flush();
    let offsets: Vec<i64> =
        soon(appending).await.into_iter().map(|answer| answer.unwrap().base_offset.0).collect();
    assert_eq!(offsets, [0, 2, 4, 6, 8, 10, 11]);

    let fetched = read(&broker, &topic, 0, 0, 1 << 20).await.unwrap();
    let found = values(&fetched);
    assert_eq!(found.len(), 12);
    assert_eq!((found[9].0, found[9].1[0]), (9, 104));
    assert_eq!(found[10], (10, big));
    let heads: Vec<usize> = fetched.slices.iter().map(|slice| slice.head.len()).collect();
    assert_eq!(heads, [0, 16, 0]);
    assert_eq!(fetched.slices[0].next_offset, Offset(10));

    // From the middle of a batch: the whole batch.
    let fetched = read(&broker, &topic, 0, 5, 1 << 20).await.unwrap();
    assert_eq!(values(&fetched)[0].0, 4);
    // Up to a size, in whole batches, the first one in any case.
    let one = batch(&[&[0], &[0]], 1).len();
    for (max, expected) in [(0, 1), (1, 1), (2 * one - 1, 1), (2 * one, 2), (5 * one + 100, 5)] {
        let fetched = read(&broker, &topic, 0, 0, max).await.unwrap();
        assert_eq!(values(&fetched).len(), 2 * expected, "{max} bytes");
    }
    let partition = topic.partition(0).unwrap();
    let none = broker.read(ReadTarget::of(partition), Offset(0), one - 1, false).await.unwrap();
    assert!(none.slices.is_empty());
    let end = read(&broker, &topic, 0, 12, 100).await.unwrap();
    assert!(end.slices.is_empty());
    broker.shutdown();
}

#[tokio::test]
async fn the_brokers_stamp_is_in_the_batch_and_in_the_answer() {
    let machine = Machine::new(2, 1, Seam::Solo);
    let broker = machine.open();
    let config = TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
    let topic = NewTopic { config, ..new_topic("t", 1) };
    let topic = broker.create_topics(&Caller::OPERATOR, vec![topic]).await.remove(0).unwrap();
    let appended = append(&broker, &topic, 0, batch(&[b"x"], 5)).await.unwrap();
    assert_eq!(appended.append_time_ms, 1_000_000);
    machine.clock.advance(-500);
    let appended = append(&broker, &topic, 0, batch(&[b"y"], 5)).await.unwrap();
    assert_eq!(appended.append_time_ms, 1_000_000, "time does not fall");
    let fetched = read(&broker, &topic, 0, 0, 1000).await.unwrap();
    assert_eq!(values(&fetched).len(), 2);
    let header = BatchHeader::parse(&fetched.slices[0].joined()).unwrap();
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, 1_000_000));
    broker.shutdown();
}

/// Three records of 1, 2 and 3 ms, of a producer, in a codec.
fn three(compression: Compression) -> Bytes {
    let mut batch = BatchBuilder::new(compression).producer(ProducerId(9), 1, 0);
    for (i, value) in [b"a", b"b", b"c"].into_iter().enumerate() {
        batch.push(i as i64 + 1, Some(b"k"), Some(value), &[(b"h", Some(b"1")), (b"h", None)]);
    }
    batch.build()
}

#[tokio::test]
async fn references_are_rebuilt_without_their_producer() {
    let machine = Machine::new(3, 1, Seam::Solo);
    let broker = machine.open();
    for (name, codec) in [("plain", Compression::None), ("lz4", Compression::Lz4)] {
        let (from, to) = (create(&broker, name, 1).await, create(&broker, &format!("{name}-copy"), 1).await);
        append(&broker, &from, 0, three(codec)).await.unwrap();
        let run = runs(&broker, &from)[0];
        for (first_record, count) in [(0, 3), (1, 2)] {
            let extent = Extent {
                block: run.block,
                offset: run.offset,
                len: run.len,
                first_record,
                records: count,
                origin: FrontendNo::NONE,
                overlay: Overlay::None,
            };
            let targets = vec![to.partition(0).unwrap().id];
            let body = ReferenceBody { targets, max_ts: 3, source: None, extent };
            broker.inner.shards[1].ask(Priority::Ordinary, &body).await.first().unwrap();
        }
        let fetched = read(&broker, &to, 0, 0, 1 << 20).await.unwrap();
        let expected = [(0, b"a"), (1, b"b"), (2, b"c"), (3, b"b"), (4, b"c")];
        assert_eq!(values(&fetched), expected.map(|(offset, value)| (offset, value.to_vec())));
        for slice in &fetched.slices {
            let bytes = slice.joined();
            let header = BatchHeader::parse(&bytes).unwrap();
            assert_eq!(
                (header.producer_id, header.producer_epoch, header.base_sequence),
                (ProducerId::NONE, -1, -1)
            );
            assert_eq!(header.compression().unwrap(), codec);
            let records = records(&bytes, 1000).unwrap();
            let last = records.iter().last().unwrap().unwrap();
            assert_eq!((last.headers.len(), last.key), (2, Some(&b"k"[..])));
        }
        // The producer's state in the second partition is its own.
        let first = append(&broker, &to, 0, produced(&[b"z"], 9, 0, 0)).await.unwrap();
        assert_eq!((first.base_offset, first.duplicate), (Offset(5), false));
    }
    broker.shutdown();
}

#[tokio::test]
async fn a_batch_beyond_a_block_is_fragmented() {
    for seam in [Seam::Solo, Seam::Late] {
        let machine = Machine::new(4, 1, seam);
        let broker = machine.open();
        let topic = create(&broker, "t", 1).await;
        let big: Vec<u8> = (0..5 << 20).map(|i: u32| (i * 7) as u8).collect();
        append(&broker, &topic, 0, batch(&[b"first"], 1)).await.unwrap();
        let huge = soon(append(&broker, &topic, 0, batch(&[&big], 1))).await.unwrap();
        assert_eq!(huge.base_offset, Offset(1));
        append(&broker, &topic, 0, batch(&[b"last"], 1)).await.unwrap();
        let check = async |broker: &Broker| {
            let fetched = soon(read(broker, &topic, 0, 0, 100 << 20)).await.unwrap();
            let found = values(&fetched);
            assert_eq!(found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2]);
            assert_eq!(found[1].1, big);
            // It does not fit behind another one, but comes alone.
            let fetched = soon(read(broker, &topic, 0, 0, 1000)).await.unwrap();
            assert_eq!(values(&fetched).len(), 1);
            let fetched = soon(read(broker, &topic, 0, 1, 1000)).await.unwrap();
            assert_eq!(values(&fetched).len(), 1);
        };
        check(&broker).await;
        broker.shutdown();
        drop(broker);
        let broker = machine.open();
        check(&broker).await;
        broker.shutdown();
    }
}

#[tokio::test]
async fn a_long_history_is_read_through_pages_from_the_disk() {
    let machine = Machine::new(5, 1, Seam::Solo);
    let broker = machine.open();
    let (topic, other) = (create(&broker, "t", 1).await, create(&broker, "other", 1).await);
    let mut sent = Vec::new();
    for i in 0..1000i64 {
        // Two in a block that do not stand side by side, so that each is a run.
        let padding = vec![0u8; 5000];
        sent.push(broker.append(vec![
            item(&topic, 0, batch(&[&i.to_le_bytes()], 10 * i)),
            item(&other, 0, batch(&[&padding], 1)),
        ]));
        broker.flush();
        assert!(soon(sent.pop().unwrap()).await.iter().all(Result::is_ok));
    }
    broker.inner.shards[1].checkpoint().unwrap();
    let partition = *topic.partition(0).unwrap();
    let check = async |broker: &Broker| {
        let mut from = 0;
        while from < 1000 {
            let fetched = soon(read(broker, &topic, 0, from, 3000)).await.unwrap();
            let found = values(&fetched);
            assert!(!found.is_empty());
            for (offset, value) in found {
                assert_eq!((offset, value), (from, from.to_le_bytes().to_vec()));
                from += 1;
            }
        }
        for ts in [0, 1, 10, 2555, 9990] {
            let spec = OffsetSpec::Timestamp(ts);
            let found = soon(broker.offsets(ReadTarget::of(&partition), spec)).await.unwrap();
            assert_eq!(found.offset.0, (ts + 9) / 10);
        }
        let none = soon(broker.offsets(ReadTarget::of(&partition), OffsetSpec::Timestamp(9991))).await;
        assert_eq!(none.unwrap().offset, Offset(-1));
        let most = soon(broker.offsets(ReadTarget::of(&partition), OffsetSpec::MaxTimestamp)).await;
        assert_eq!(most.unwrap().offset, Offset(999));
    };
    check(&broker).await;
    broker.shutdown();
    drop(broker);
    let broker = machine.open();
    check(&broker).await;
    assert!(broker.stats().shards[1].cold_bytes > 0);
    broker.shutdown();
}

#[tokio::test]
async fn offsets_by_time_name_the_record_and_not_the_batch() {
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    for times in [[5, 3, 9], [4, 9, 2]] {
        let mut batch = BatchBuilder::new(Compression::Zstd);
        times.iter().for_each(|time| batch.push(*time, None, Some(b"v"), &[]));
        append(&broker, &topic, 0, batch.build()).await.unwrap();
    }
    let partition = *topic.partition(0).unwrap();
    let find = async |spec| {
        let found = broker.offsets(ReadTarget::of(&partition), spec).await.unwrap();
        (found.offset.0, found.timestamp)
    };
    assert_eq!(find(OffsetSpec::Timestamp(0)).await, (0, 5));
    assert_eq!(find(OffsetSpec::Timestamp(6)).await, (2, 9));
    assert_eq!(find(OffsetSpec::Timestamp(10)).await, (-1, -1));
    assert_eq!(find(OffsetSpec::MaxTimestamp).await, (2, 9));
    assert_eq!((find(OffsetSpec::Earliest).await, find(OffsetSpec::Latest).await), ((0, -1), (6, -1)));
    broker.delete_records(&Caller::OPERATOR, partition.shard, partition.id, Offset(3)).await.unwrap();
    assert_eq!(find(OffsetSpec::Timestamp(0)).await, (3, 4));
    assert_eq!(find(OffsetSpec::MaxTimestamp).await, (4, 9));
    broker.shutdown();
}

#[tokio::test]
async fn a_watch_ends_when_enough_has_come() {
    let machine = Machine::new(7, 2, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 4).await;
    let places: Vec<_> = topic.partitions.iter().map(ReadTarget::of).collect();
    let one = batch(&[b"x"], 1).len();
    let mut watch = broker.watch(&places, 2 * one);
    append(&broker, &topic, 0, batch(&[b"x"], 1)).await.unwrap();
    assert!(pending(&mut watch).await);
    append(&broker, &topic, 3, batch(&[b"x"], 1)).await.unwrap();
    soon(watch).await;
    let gone = broker.watch(&places, 1);
    broker.delete_topics(&Caller::OPERATOR, vec![topic.id]).await.remove(0).unwrap();
    soon(gone).await;
    broker.shutdown();
}

#[tokio::test]
async fn a_partition_that_is_named_over_and_over_is_watched_once() {
    let machine = Machine::new(8, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let partition = *topic.partition(0).unwrap();
    let one = batch(&[b"one"], 1);
    let mut watch = broker.watch(&[ReadTarget::of(&partition); 1000], one.len() + 1);
    append(&broker, &topic, 0, one.clone()).await.unwrap();
    assert!(pending(&mut watch).await, "it waits for more than this");
    append(&broker, &topic, 0, one).await.unwrap();
    soon(watch).await;
    broker.shutdown();
}

/// Writes batches that each are a run of their own, since another one made them than its neighbours; a record in each, stamped
/// with its offset.
async fn write_lone_batches(broker: &Broker, topic: &Topic, count: i64) {
    for from in (0..count).step_by(1000) {
        let lone = |i: i64| Append {
            origin: FrontendNo((i % 2) as u16),
            ..item(topic, 0, batch(&[&i.to_le_bytes()], i))
        };
        let appending = broker.append((from..count.min(from + 1000)).map(lone).collect());
        broker.flush();
        assert!(soon(appending).await.iter().all(Result::is_ok));
    }
}

#[tokio::test]
async fn a_history_of_small_batches_is_read_back_with_any_size_of_fetch() {
    small_batches_are_read_back(100_000).await;
}

#[tokio::test]
#[ignore = "it takes a minute"]
async fn a_million_small_batches_are_read_back_with_any_size_of_fetch() {
    small_batches_are_read_back(1_000_000).await;
}

async fn small_batches_are_read_back(batches: i64) {
    let machine = Machine::new(5, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    write_lone_batches(&broker, &topic, batches).await;
    broker.inner.shards[1].checkpoint().unwrap();
    broker.shutdown();
    drop(broker);
    // Those of franz-go, Java and librdkafka, and what no client would ask for.
    for max in [48 << 20, 50 << 20, 52 << 20, usize::MAX] {
        let broker = machine.open();
        let mut next = 0;
        while next < batches {
            let fetched = soon(read(&broker, &topic, 0, next, max)).await.unwrap();
            let found = values(&fetched);
            assert!((1..=4096).contains(&found.len()), "{} at {next} of {max}", found.len());
            for (offset, value) in found {
                assert_eq!((offset, value), (next, next.to_le_bytes().to_vec()));
                next += 1;
            }
        }
        broker.shutdown();
    }
    let broker = machine.open();
    let partition = *topic.partition(0).unwrap();
    for ts in [0, 1, 255, 70_000, batches - 1] {
        let spec = OffsetSpec::Timestamp(ts);
        let found = soon(broker.offsets(ReadTarget::of(&partition), spec)).await.unwrap();
        assert_eq!((found.offset.0, found.timestamp), (ts, ts));
    }
    let most = soon(broker.offsets(ReadTarget::of(&partition), OffsetSpec::MaxTimestamp)).await;
    assert_eq!(most.unwrap().offset, Offset(batches - 1));
    broker.shutdown();
}

/// Appends batches that each are a run of their own and claim to hold a record of the far future, which they do not: headers as earlier
/// versions took them.
async fn write_misleading_batches(broker: &Broker, topic: &Topic, count: i64) {
    for from in (0..count).step_by(1000) {
        let lone = |i: i64| {
            let mut bytes = batch(&[b"x"], i).to_vec();
            let mut header = BatchHeader::parse(&bytes).unwrap();
            header.max_timestamp = 1 << 50;
            rewrite_header(&mut bytes, &mut header).unwrap();
            let batch = CheckedBatch::unchecked(bytes.into(), topic.rules_of()).unwrap();
            target(topic, 0, FrontendNo((i % 2) as u16)).append(batch).unwrap()
        };
        let appending = broker.append((from..count.min(from + 1000)).map(lone).collect());
        broker.flush();
        assert!(soon(appending).await.iter().all(Result::is_ok));
    }
}

#[tokio::test]
async fn a_lookup_that_is_misled_lets_others_have_their_turn_and_ends_with_who_asked() {
    const BATCHES: i64 = 20_000;
    let machine = Machine::new(6, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    let other = create(&broker, "other", 1).await;
    write_misleading_batches(&broker, &topic, BATCHES).await;
    append(&broker, &other, 0, batch(&[b"x"], 50)).await.unwrap();
    let find = |topic: &Topic, spec| {
        let (broker, partition) = (broker.clone(), *topic.partition(0).unwrap());
        async move { broker.offsets(ReadTarget::of(&partition), spec).await.unwrap() }
    };
    let far = OffsetSpec::Timestamp(1 << 49);
    for spec in [far, OffsetSpec::MaxTimestamp] {
        // It finds out in the end, and meanwhile others find what they look for.
        let long = tokio::spawn(find(&topic, spec));
        for _ in 0..20 {
            assert_eq!(soon(find(&other, OffsetSpec::Timestamp(50))).await.offset, Offset(0));
            assert_eq!(soon(find(&other, OffsetSpec::MaxTimestamp)).await.timestamp, 50);
        }
        assert!(!long.is_finished(), "{spec:?}: it has {BATCHES} runs to look at");
        let (found, last) = (soon(long).await.unwrap(), BATCHES - 1);
        let expected = if spec == far { (-1, -1) } else { (last, last) };
        assert_eq!((found.offset.0, found.timestamp), expected, "{spec:?}");
    }
    let found = soon(find(&topic, OffsetSpec::Timestamp(BATCHES - 5))).await;
    assert_eq!((found.offset.0, found.timestamp), (BATCHES - 5, BATCHES - 5));
    // No caller waits for it any more: the step under way is its last.
    let gone = tokio::spawn(find(&topic, far));
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    gone.abort();
    assert!(gone.await.is_err());
    let lookups = broker.inner.shards[1].reads.lookups.clone();
    drop(soon(lookups.lock()).await);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(lookups.try_lock().is_ok(), "something goes on");
    broker.shutdown();
}

#[tokio::test]
async fn a_page_of_an_index_that_cannot_be_read_is_an_error_for_its_records_alone_and_named() {
    keep_log();
    let machine = Machine::new(9, 1, Seam::Solo);
    let broker = machine.open();
    let (topic, other) = (create(&broker, "misled", 1).await, create(&broker, "other", 1).await);
    write_lone_batches(&broker, &topic, 1000).await;
    write_lone_batches(&broker, &other, 1000).await;
    broker.inner.shards[1].checkpoint().unwrap();
    broker.shutdown();
    drop(broker);
    let broker = machine.open();
    let partition = *topic.partition(0).unwrap();
    let page = SpillKey::index(partition.id, Offset(256)).stored();
    let first = async |from: i64| {
        let fetched = soon(read(&broker, &topic, 0, from, usize::MAX)).await;
        fetched.map(|fetched| values(&fetched).iter().map(|(offset, _)| *offset).collect::<Vec<_>>())
    };
    let damaged = |cause: DamageCause| Damage { topic: topic.id, partition: 0, offset: Offset(256), cause };
    let shown = || broker.stats().shards[1].damaged.clone();
    let lines =
        || logged(&["ERROR", "records cannot be read", "topic=\"misled\" partition=0 offset=256"]).len();

    machine.pages[1].fail_page(page.clone(), PageFault::Io);
    assert_eq!(first(256).await, Err(ReadError::Storage.into()));
    assert_eq!((shown(), lines()), (vec![damaged(DamageCause::Storage)], 1));
    machine.pages[1].fail_page(page.clone(), PageFault::Corrupt);
    assert_eq!(first(0).await, Ok((0..256).collect()), "what stands before it is given");
    for _ in 0..3 {
        assert_eq!(first(256).await, Err(ReadError::Corrupt.into()));
        assert_eq!(first(300).await, Err(ReadError::Corrupt.into()));
    }
    let end = soon(broker.unreadable_end(ReadTarget::of(&partition), Offset(300))).await;
    assert_eq!(end, Offset(512), "who passes over it does so at once");
    assert_eq!(first(512).await, Ok((512..1000).collect()), "and what stands behind it");
    assert!(soon(read(&broker, &other, 0, 256, 1000)).await.is_ok());
    let by_time = async |broker: &Broker, ts: i64| {
        let found = broker.offsets(ReadTarget::of(&partition), OffsetSpec::Timestamp(ts));
        soon(found).await.map(|found| found.offset)
    };
    assert_eq!(by_time(&broker, 300).await, Err(ReadError::Corrupt.into()));
    assert_eq!(by_time(&broker, 600).await, Ok(Offset(600)));
    assert_eq!((shown(), lines()), (vec![damaged(DamageCause::Index)], 1));
    assert!(!broker.stats().shards[1].stopped);
    machine.pages[1].end_page_faults();
    assert_eq!(first(256).await, Ok((256..1000).collect()));
    assert_eq!(shown(), []);
    broker.shutdown();
    drop(broker);

    // One that is gone is not taken for records that are gone.
    let mut gone = PageBatch::default();
    gone.delete(page);
    machine.pages[1].commit(gone).unwrap();
    let broker = machine.open();
    assert_eq!(by_time(&broker, 300).await, Err(ReadError::Corrupt.into()));
    assert_eq!(soon(read(&broker, &topic, 0, 256, 1000)).await.unwrap_err(), ReadError::Corrupt.into());
    assert_eq!(broker.stats().shards[1].damaged, [damaged(DamageCause::Index)]);
    broker.shutdown();
}
