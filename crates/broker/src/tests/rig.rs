//! What tests of the whole broker share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sabir_base::clock::SystemClock;
use sabir_model::batch::{BatchBuilder, BatchCheck, CheckedBatch, Compression, InlineBudget, split};
use sabir_model::{
    AppendError, ErrorAbout, FrontendNo, Offset, ProducerId, ReadError, TimestampType, TopicConfig,
};

use crate::{
    Append, AppendAcks, AppendTarget, Appended, Broker, BrokerOptions, Caller, DiskKind, Fetched, NewTopic,
    ReadTarget, Topic,
};

pub(crate) fn options(dir: &std::path::Path) -> BrokerOptions {
    BrokerOptions {
        data_shards: 1,
        disk: DiskKind::Pwrite,
        segment_bytes: 4 << 20,
        keep_free: 0,
        ..BrokerOptions::new(dir)
    }
}

pub(crate) fn open(options: BrokerOptions) -> Broker {
    Broker::open(options, Arc::new(SystemClock)).unwrap()
}

pub(crate) fn new_topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions,
        config: TopicConfig::default(),
        internal: false,
        unlike: false,
    }
}

pub(crate) async fn create(broker: &Broker, name: &str, partitions: u32) -> Arc<Topic> {
    broker.create_topics(&Caller::OPERATOR, vec![new_topic(name, partitions)]).await.remove(0).unwrap()
}

/// A batch of records with these values, at one timestamp.
pub(crate) fn batch(values: &[&[u8]], timestamp: i64) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None);
    values.iter().for_each(|value| batch.push(timestamp, None, Some(value), &[]));
    batch.build()
}

pub(super) fn produced(values: &[&[u8]], producer: i64, epoch: i16, sequence: i32) -> Bytes {
    let mut batch = BatchBuilder::new(Compression::None).producer(ProducerId(producer), epoch, sequence);
    values.iter().for_each(|value| batch.push(1, None, Some(value), &[]));
    batch.build()
}

/// What any test of the log appends: of any size and time, and else as the topic takes it.
pub(super) fn checked(topic: &Topic, batch: Bytes) -> CheckedBatch {
    let config = TopicConfig {
        max_message_bytes: u32::MAX,
        timestamp_type: TimestampType::LogAppendTime,
        ..TopicConfig::clone(&topic.config)
    };
    match BatchCheck::begin(batch, config.batch_rules(topic.rules_of()), 0, &mut InlineBudget(usize::MAX)) {
        Ok(BatchCheck::Done(batch)) => batch,
        other => panic!("{other:?}"),
    }
}

pub(super) fn item(topic: &Topic, index: i32, batch: Bytes) -> Append {
    target(topic, index, FrontendNo::NONE).append(checked(topic, batch)).unwrap()
}

pub(super) fn target(topic: &Topic, index: i32, origin: FrontendNo) -> AppendTarget {
    AppendTarget::new(&Caller::OPERATOR, &Arc::new(topic.clone()), index, AppendAcks::InSync, origin).unwrap()
}

pub(crate) async fn append(
    broker: &Broker,
    topic: &Topic,
    index: i32,
    batch: Bytes,
) -> Result<Appended, ErrorAbout<AppendError>> {
    let appending = broker.append(vec![item(topic, index, batch)]);
    broker.flush();
    appending.await.remove(0)
}

pub(super) async fn read(
    broker: &Broker,
    topic: &Topic,
    index: i32,
    from: i64,
    max: usize,
) -> Result<Fetched, ErrorAbout<ReadError>> {
    let partition = topic.partition(index).unwrap();
    broker.read(ReadTarget::of(partition), Offset(from), max, true).await
}

/// Offset and value of every record fetched, checked against what the slices say.
pub(super) fn values(fetched: &Fetched) -> Vec<(i64, Vec<u8>)> {
    let mut all = Vec::new();
    for slice in &fetched.slices {
        let bytes = slice.joined();
        let mut next = slice.base_offset;
        for batch in split(&bytes) {
            let (header, batch) = batch.unwrap();
            assert_eq!(header.base_offset, next);
            assert_eq!(header.leader_epoch, slice.leader_epoch);
            sabir_model::batch::verify_crc(batch).unwrap();
            next = Offset(header.last_offset().0 + 1);
            let records = sabir_model::batch::records(batch, 1 << 30).unwrap();
            all.extend(records.iter().map(|record| {
                let record = record.unwrap();
                (record.offset.0, record.value.unwrap().to_vec())
            }));
        }
        assert_eq!(next, slice.next_offset);
    }
    all
}

/// What is to happen happens within a minute, on a busy machine as well, or the test fails.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it happens soon")
}

/// Waits until something holds.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Whether a future has nothing to give yet.
pub(super) async fn pending<F: Future + Unpin>(future: &mut F) -> bool {
    let waited = tokio::time::timeout(Duration::from_millis(30), future).await;
    waited.is_err()
}
