//! Reading by offsets: whole, damaged, packed, gone.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use sabir_model::batch::{BatchBuilder, Compression};
use sabir_model::{FrontendNo, LeaderEpoch, QueueConfig, TopicConfig};

use super::*;
use crate::read::Slice;
use crate::tests::rig::{new_topic, open, options};
use crate::{Append, AppendAcks, AppendTarget, Caller, NewTopic, Topic};

/// Unpacks at once, and counts.
#[derive(Default)]
struct Unpacker(AtomicUsize);

impl Unpack for Unpacker {
    fn unpack(&self, batch: PackedBatch) -> Unpacking {
        self.0.fetch_add(1, Relaxed);
        Box::pin(async move { batch.unpack() })
    }
}

fn batch(base: i64, values: &[&[u8]], compression: Compression) -> Bytes {
    let mut batch = BatchBuilder::new(compression).base_offset(Offset(base));
    values.iter().for_each(|value| batch.push(1, None, Some(value), &[]));
    batch.build()
}

/// Batches as they are read from an offset on.
fn fetched(first: i64, next: i64, batches: &[Bytes]) -> Fetched {
    let slice = Slice {
        base_offset: Offset(first),
        next_offset: Offset(next),
        leader_epoch: LeaderEpoch(0),
        origin: FrontendNo(3),
        head: Bytes::new(),
        body: batches.concat().into(),
        is_held: false,
    };
    Fetched { slices: vec![slice], ..Fetched::default() }
}

fn look(batches: &mut Batches, offset: u64) -> Result<Vec<u8>, Look> {
    match batches.look(offset) {
        Look::Record(number) => Ok(batches.record(number).value().unwrap().to_vec()),
        other => Err(other),
    }
}

fn lost(end: u64, error: ReadError, is_noted: bool) -> Result<Vec<u8>, Look> {
    Err(Look::Unreadable(Lost { end, error, is_noted }))
}

#[test]
fn what_was_read_is_found_by_its_offset_and_all_else_is_to_be_read() {
    let mut batches = Batches::default();
    assert_eq!(look(&mut batches, 0), Err(Look::Unread));
    let read = [batch(4, &[b"a", b"b"], Compression::None), batch(6, &[b"c"], Compression::Lz4)];
    batches.take(5, fetched(4, 7, &read));
    assert_eq!(look(&mut batches, 5), Ok(b"b".to_vec()));
    assert_eq!(look(&mut batches, 5), Ok(b"b".to_vec()));
    assert_eq!(look(&mut batches, 6), Ok(b"c".to_vec()));
    assert_eq!(look(&mut batches, 7), Err(Look::Unread));
    assert_eq!(look(&mut batches, 5), Err(Look::Unread), "its batch is no more in hand");
}

#[test]
fn many_records_are_known_some_at_a_time() {
    let values: Vec<[u8; 4]> = (0..3000u32).map(u32::to_be_bytes).collect();
    let values: Vec<&[u8]> = values.iter().map(<[u8; 4]>::as_slice).collect();
    let mut batches = Batches::default();
    batches.take(0, fetched(0, 3000, &[batch(0, &values, Compression::None)]));
    for (offset, value) in values.iter().enumerate() {
        assert_eq!(look(&mut batches, offset as u64).as_deref(), Ok(*value));
    }
    assert_eq!(look(&mut batches, 2500).as_deref(), Ok(values[2500]));
    assert_eq!(look(&mut batches, 3), Err(Look::Unread));
}

#[test]
fn damage_is_told_once_with_its_end_and_what_lies_behind_it_is_found() {
    let mut second = Vec::from(batch(2, &[b"c", b"d"], Compression::None));
    // The length of its second record.
    let at = second.len() - 8;
    second[at] = 0x7f;
    let read =
        [batch(0, &[b"a", b"b"], Compression::None), second.into(), batch(4, &[b"e"], Compression::None)];
    let mut batches = Batches::default();
    batches.take(0, fetched(0, 5, &read));
    assert_eq!(look(&mut batches, 2), Ok(b"c".to_vec()));
    assert_eq!(look(&mut batches, 3), lost(4, ReadError::Corrupt, false));
    assert_eq!(look(&mut batches, 3), Err(Look::Unread), "it is to be read anew");
    assert_eq!(look(&mut batches, 4), Ok(b"e".to_vec()));
    // Nothing is where something was found.
    batches.take(9, fetched(0, 2, &[batch(0, &[b"a", b"b"], Compression::None)]));
    assert_eq!(look(&mut batches, 9), lost(10, ReadError::Corrupt, false));
    assert_eq!(look(&mut batches, 9), Err(Look::Unread));
}

#[test]
fn what_is_missing_is_known_for_the_offsets_that_were_wanted() {
    let mut batches = Batches::default();
    assert_eq!(batches.miss(3..7, Missing::Gone { end: u64::MAX }), Ok(()));
    assert_eq!([3, 6, 7].map(|at| batches.look(at)), [Look::Gone, Look::Gone, Look::Unread]);
    assert_eq!(batches.miss(3..7, Missing::Unreadable { end: 5, error: ReadError::Storage }), Ok(()));
    assert_eq!(look(&mut batches, 3), lost(5, ReadError::Storage, true));
    assert_eq!([4, 5].map(|at| batches.look(at)), [Look::Unread, Look::Unread]);
    assert_eq!(batches.miss(3..4, Missing::Unreadable { end: 9, error: ReadError::Corrupt }), Ok(()));
    assert_eq!(look(&mut batches, 3), lost(9, ReadError::Corrupt, true), "others are as damaged");
    let failed = Missing::Failed(ReadError::ShuttingDown);
    assert_eq!(batches.miss(3..7, failed), Err(ReadError::ShuttingDown));
}

#[test]
fn a_batch_that_takes_long_is_unpacked_elsewhere() {
    let large = vec![7; 2 << 20];
    let packed = batch(0, &[&large, b"b"], Compression::Zstd);
    let mut batches = Batches::default();
    batches.take(0, fetched(0, 2, &[packed]));
    assert_eq!(look(&mut batches, 1), Err(Look::Packed));
    let unpacked = batches.packed().unwrap().unpack();
    batches.put_unpacked(unpacked.clone());
    assert_eq!(look(&mut batches, 1), Ok(b"b".to_vec()));
    assert!(batches.unpacked() > large.len());
    // Another one is in hand by then.
    batches.put_unpacked(unpacked);
    let mut broken = Vec::from(batch(0, &[&large], Compression::Zstd));
    let at = broken.len() - 4;
    broken.truncate(at);
    let length = (broken.len() as i32 - 12).to_be_bytes();
    broken[8..12].copy_from_slice(&length);
    batches.take(0, fetched(0, 1, &[broken.into()]));
    if let Err(Look::Packed) = look(&mut batches, 0) {
        let unpacked = batches.packed().unwrap().unpack();
        batches.put_unpacked(unpacked);
    }
    assert_eq!(look(&mut batches, 0), lost(1, ReadError::Corrupt, false));
}

async fn queue(broker: &Broker) -> Topic {
    let config = TopicConfig { max_message_bytes: 8 << 20, ..TopicConfig::of_queue(QueueConfig::default()) };
    let new = NewTopic { config, ..new_topic("q", 1) };
    Topic::clone(&broker.create_topics(&Caller::OPERATOR, vec![new]).await.remove(0).unwrap())
}

async fn append(broker: &Broker, topic: &Topic, values: &[&[u8]], compression: Compression) {
    let target =
        AppendTarget::new(&Caller::OPERATOR, &topic.clone().into(), 0, AppendAcks::InSync, FrontendNo::NONE);
    let target = target.unwrap();
    let mut batch = BatchBuilder::new(compression);
    values.iter().for_each(|value| batch.push(1, None, Some(value), &[]));
    let append: Append = target.append(batch.build_checked(&target.rules(), 1).unwrap()).unwrap();
    let appending = broker.append(vec![append]);
    broker.flush();
    appending.await.remove(0).unwrap();
}

async fn found(reader: &mut QueueReader, broker: &Broker, unpack: &Unpacker, offset: u64) -> Option<Bytes> {
    loop {
        match reader.find(broker, offset) {
            Found::Message(stored) => return stored.value(),
            Found::Unread => {}
            Found::Gone | Found::Unreadable { .. } => return None,
        }
        poll_fn(|cx| reader.poll_load(broker, unpack, offset..offset + 9, cx)).await.unwrap();
    }
}

#[tokio::test]
async fn messages_are_loaded_as_they_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, unpack) = (open(options(dir.path())), Unpacker::default());
    let topic = queue(&broker).await;
    let large = vec![7; 2 << 20];
    append(&broker, &topic, &[b"a", b"b"], Compression::None).await;
    append(&broker, &topic, &[&large, b"d"], Compression::Zstd).await;
    let target = QueueTarget::new(&Caller::OPERATOR, &topic).unwrap();
    let mut reader = QueueReader::new(target);
    for (offset, value) in [(0, &b"a"[..]), (1, b"b"), (2, &large), (3, b"d"), (0, b"a")] {
        assert_eq!(found(&mut reader, &broker, &unpack, offset).await.as_deref(), Some(value));
    }
    assert_eq!(unpack.0.load(Relaxed), 1);
    let owner = broker.queues().owner();
    let next = broker.next_message(&Caller::OPERATOR, target, owner, &unpack).await.unwrap();
    let read = next.read.unwrap();
    assert_eq!((read.got.offset, read.stored().value().as_deref()), (0, Some(&b"a"[..])));
    assert_eq!(next.unreadable, []);
    broker.shutdown();
}
