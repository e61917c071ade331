//! What checkpoints take, and what they leave.

use sabir_base::testing::{CountingAllocator, peak_of};

use sabir_journal::pages::PageFault;
use sabir_model::{Offset, Sequence};

use super::rig::{append, batch, create, open, options, read, until, values};
use super::sim::{Machine, Seam};
use crate::partition::SpillKey;
use crate::{Broker, BrokerOptions, Caller, DamageCause, Topic};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// The memory that a checkpoint takes of so many new partitions, and the bytes of the pages after it, for each of them.
async fn checkpoint(partitions: u32) -> (usize, u64) {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(BrokerOptions { partitions_max: partitions, ..options(dir.path()) });
    create(&broker, "t", partitions).await;
    let shard = &broker.inner.shards[1];
    let (written, peak) = peak_of(|| shard.checkpoint());
    written.unwrap();
    let stored = shard.pages.room().unwrap().used;
    broker.shutdown();
    (peak, stored / u64::from(partitions))
}

#[tokio::test]
async fn a_checkpoint_takes_no_more_memory_and_fills_its_pages_where_more_has_changed() {
    let ((few, _), (many, stored)) = (checkpoint(60_000).await, checkpoint(200_000).await);
    println!("{few} and {many} bytes of memory, {stored} bytes stored of each partition");
    assert!((1 << 20..24 << 20).contains(&many) && many < few * 5 / 4, "{few} {many}");
    assert!(stored < 80, "{stored}");
}

/// A lone small batch is a block by itself, which takes 4 KiB of the journal: a start reads and looks through these.
#[tokio::test]
async fn a_checkpoint_is_due_by_the_bytes_of_the_journal_that_a_start_would_replay() {
    let bounded = |machine: &Machine| BrokerOptions { checkpoint_bytes: 1 << 20, ..machine.options() };
    let machine = Machine::new(7, 1, Seam::Solo);
    let broker = machine.try_open(bounded(&machine)).unwrap();
    let topic = create(&broker, "t", 1).await;
    for _ in 0..300 {
        append(&broker, &topic, 0, batch(&[b"lone"], 1)).await.unwrap();
    }
    until(|| broker.stats().shards[1].checkpoints > 0).await;
    // What a start has replayed is in no checkpoint yet.
    for _ in 0..150 {
        append(&broker, &topic, 0, batch(&[b"lone"], 1)).await.unwrap();
    }
    broker.inner.shards[1].checkpoint().unwrap();
    for _ in 0..150 {
        append(&broker, &topic, 0, batch(&[b"lone"], 1)).await.unwrap();
    }
    let machine = machine.crash(broker);
    let broker = machine.try_open(bounded(&machine)).unwrap();
    for _ in 0..150 {
        append(&broker, &topic, 0, batch(&[b"lone"], 1)).await.unwrap();
    }
    until(|| broker.stats().shards[1].checkpoints > 0).await;
    broker.shutdown();
}

/// Where the page that the log start lies in is stored, and the lowest block of what is kept of it.
fn cut_page(broker: &Broker, topic: &Topic) -> (SpillKey, Sequence) {
    let (shard, id) = (&broker.inner.shards[1], topic.partition(0).unwrap().id);
    let (key, log_start) = {
        let state = shard.state.read();
        let partition = state.partition(id).unwrap();
        (SpillKey::index(id, partition.cut_page().unwrap().first), partition.log_start)
    };
    let runs = shard.load_page(&key).unwrap().unwrap();
    let kept = runs.list().iter().filter(|run| run.next() > log_start);
    (key, kept.map(|run| run.block).min().unwrap())
}

/// Checkpoints until the segments that are left begin with the one of a block.
async fn checkpoint_until_first_is(broker: &Broker, block: Sequence) {
    let shard = &broker.inner.shards[1];
    until(|| {
        shard.checkpoint().unwrap();
        let first = shard.journal.segments().remove(0);
        assert!(first.first <= block, "what is kept is there: {first:?} {block}");
        first.last >= block
    })
    .await;
}

#[tokio::test]
async fn a_segment_is_free_though_the_log_start_lies_in_a_closed_page_that_has_runs_in_it() {
    let machine = Machine::new(11, 1, Seam::Solo);
    let broker = machine.open();
    let topic = create(&broker, "t", 1).await;
    for number in 0..400u32 {
        append(&broker, &topic, 0, batch(&[&[&number.to_be_bytes()[..], &[7; 40_000]].concat()], 1))
            .await
            .unwrap();
    }
    let place = *topic.partition(0).unwrap();
    let delete = async |broker: &Broker, to: i64| {
        broker.delete_records(&Caller::OPERATOR, place.shard, place.id, Offset(to)).await.unwrap();
    };
    let segments = |broker: &Broker| broker.inner.shards[1].journal.segments().len();
    let before = segments(&broker);
    delete(&broker, 120).await;
    let (key, block) = cut_page(&broker, &topic);
    checkpoint_until_first_is(&broker, block).await;
    assert!(segments(&broker) < before, "{} of {before}", segments(&broker));
    let fetched = read(&broker, &topic, 0, 120, 1).await.unwrap();
    assert_eq!(values(&fetched)[0].1[..4], 120u32.to_be_bytes());

    // The page store has it now, and it cannot be read.
    let machine = machine.crash(broker);
    let broker = machine.open();
    let left = segments(&broker);
    machine.pages[1].fail_page(key.stored(), PageFault::Corrupt);
    delete(&broker, 230).await;
    broker.inner.shards[1].checkpoint().unwrap();
    broker.inner.shards[1].checkpoint().unwrap();
    assert_eq!(segments(&broker), left, "what it has counts as kept");
    let damaged = broker.stats().shards[1].damaged.clone();
    assert_eq!(
        damaged.iter().map(|damage| (damage.offset, damage.cause)).collect::<Vec<_>>(),
        [(Offset(230), DamageCause::Index)]
    );
    machine.pages[1].end_page_faults();
    let machine = machine.crash(broker);
    let broker = machine.open();
    let (_, block) = cut_page(&broker, &topic);
    checkpoint_until_first_is(&broker, block).await;
    assert!(segments(&broker) < left, "{} of {left}", segments(&broker));
    let fetched = read(&broker, &topic, 0, 230, 1).await.unwrap();
    assert_eq!(values(&fetched)[0].1[..4], 230u32.to_be_bytes());
    broker.shutdown();
}
