//! Dead letters on a full disk: what has gone makes room for what comes.

use std::sync::Arc;

use sabir_model::{QueueConfig, ShardFailure};

use super::dead_letters::{advance, at_rest, close, lies_in, open, publish_bodies, queue, stats, to};
use super::rig::until;
use super::sim::{Machine, Seam};
use crate::{Broker, Topic};

/// Publishes messages of some bytes until the disk is full; gives how many were taken.
async fn fill(broker: &Broker, queue: &Arc<Topic>, bytes: usize) -> u64 {
    for id in 0.. {
        let body = [&u64::to_be_bytes(id)[..], &vec![7; bytes]].concat();
        match publish_bodies(broker, queue, &[body]).await {
            // Segments are made ahead, and that there is no space for more is known in time, however fast this is.
            Ok(()) => {
                broker.inner.shards[1].journal.prepare().unwrap();
            }
            Err(error) => {
                assert_eq!(error, ShardFailure::StorageFull.into());
                return id;
            }
        }
    }
    unreachable!("a disk is full at some time");
}

fn full_machine(seed: u64) -> Machine {
    let machine = Machine::new(seed, 1, Seam::Solo);
    machine.disks[1].set_capacity(24 << 20);
    machine
}

#[tokio::test]
async fn dead_letters_that_fill_a_disk_go_where_they_go_and_nothing_is_deleted_for_them() {
    let machine = full_machine(1);
    let broker = open(&machine);
    let dead = queue(&broker, "dead", QueueConfig::default()).await;
    let work = queue(&broker, "work", QueueConfig { message_ttl_ms: Some(50), ..to("", Some("dead")) }).await;
    let taken = fill(&broker, &work, 400_000).await;
    assert!(taken > 40, "{taken}");
    advance(&machine, &broker, 50);
    until(|| stats(&broker).published[1] == taken).await;
    at_rest(&broker).await;
    assert_eq!(lies_in(&broker, &dead).await, (0..taken).collect::<Vec<_>>());
    assert_eq!(broker.stats().shards[1].waiting_dead_letters, 0);
    close(broker).await;
}
