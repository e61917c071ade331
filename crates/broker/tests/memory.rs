//! What a hundred thousand idle queues cost.

use std::sync::Arc;

use sabir_base::clock::SystemClock;
use sabir_broker::{Broker, BrokerOptions, Caller, DiskKind, NewTopic};
use sabir_model::{QueueConfig, TopicConfig};

const QUEUES: usize = 100_000;
const BATCH: usize = 5_000;
const BOUND: usize = 300 << 20;

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("/proc/self/statm says how many pages are resident") * 4096
}

fn queue(number: usize) -> NewTopic {
    NewTopic {
        name: format!("tenant-{}.orders.queue-{number}", number % 100),
        partitions: 1,
        config: TopicConfig::of_queue(QueueConfig::default()),
        internal: false,
        unlike: false,
    }
}

fn options(dir: &std::path::Path) -> BrokerOptions {
    BrokerOptions { data_shards: 1, disk: DiskKind::Pwrite, keep_free: 0, ..BrokerOptions::new(dir) }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hundred_thousand_queues_fit_in_300_mib() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::open(options(dir.path()), Arc::new(SystemClock)).unwrap();
    for batch in 0..QUEUES / BATCH {
        let topics = (batch * BATCH..(batch + 1) * BATCH).map(queue).collect();
        assert!(broker.create_topics(&Caller::OPERATOR, topics).await.iter().all(Result::is_ok));
    }
    let made = resident();
    broker.shutdown();
    drop(broker);
    let broker = Broker::open(options(dir.path()), Arc::new(SystemClock)).unwrap();
    assert_eq!(broker.catalog().len(), QUEUES);
    let reopened = resident();
    println!("{} MiB when made, {} MiB when opened again", made >> 20, reopened >> 20);
    assert!(made <= BOUND && reopened <= BOUND, "{made} {reopened}");
    broker.shutdown();
}
