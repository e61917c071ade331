//! What checkpoints take, and what they leave.

use sabir_base::testing::{CountingAllocator, peak_of};

use super::rig::{append, batch, create, open, options, until};
use super::sim::{Machine, Seam};
use crate::BrokerOptions;

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
