//! Many threads at once, on a real disk: offsets stay dense, readers see what was answered, checkpoints go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::rig::{append, batch, create, open, options, read, soon, values};
use crate::{Broker, BrokerOptions, DiskKind, ReadTarget, Topic};

const WRITERS: i32 = 4;
const BATCHES: i64 = 400;

fn thread(work: impl Future<Output = ()> + Send + 'static) -> std::thread::JoinHandle<()> {
    let run = move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    };
    std::thread::spawn(run)
}

/// Sends several batches at once, of which some are large; the values are the offsets.
async fn write(broker: Broker, topic: Arc<Topic>, partition: i32) {
    let mut next = 0;
    while next < BATCHES {
        let mut sent = Vec::new();
        for _ in 0..4 {
            let mut value = next.to_le_bytes().to_vec();
            value.resize(if next % 10 == 9 { 20_000 } else { 20 }, 0);
            sent.push(append(&broker, &topic, partition, batch(&[&value], next)));
            next += 1;
        }
        for (expected, answer) in (next - 4..).zip(sent) {
            assert_eq!(soon(answer).await.unwrap().base_offset.0, expected);
        }
    }
}

/// Follows a partition to its end by waiting for data.
async fn follow(broker: Broker, topic: Arc<Topic>, partition: i32) {
    let place = topic.partition(partition).unwrap();
    let mut next = 0;
    while next < BATCHES {
        let watch = broker.watch(&[ReadTarget::of(place)], 1);
        let fetched = soon(read(&broker, &topic, partition, next, 100_000)).await.unwrap();
        if fetched.slices.is_empty() {
            soon(watch).await;
        }
        for (offset, value) in values(&fetched) {
            assert_eq!((offset, &value[..8]), (next, &next.to_le_bytes()[..]));
            next += 1;
        }
    }
}

/// Whether a descriptor is an event counter, not a pipe.
fn shard_counter(fd: &std::os::fd::OwnedFd) -> bool {
    !rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd).unwrap().st_mode).is_fifo()
}

fn stress(disk: DiskKind, watched: bool) {
    let dir = tempfile::tempdir().unwrap();
    let options = BrokerOptions { disk, data_shards: 2, tail_cache_bytes: 1 << 20, ..options(dir.path()) };
    let broker = open(options);
    let topic = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(create(&broker, "t", WRITERS as u32))
    };
    let done = Arc::new(AtomicBool::new(false));
    let mut helpers = Vec::new();
    if watched {
        for (shard, fd) in broker.event_fds() {
            let (broker, done) = (broker.clone(), done.clone());
            helpers.push(std::thread::spawn(move || {
                let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                while !done.load(SeqCst) {
                    if poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0 {
                        // An event counter is read by the thread that watches its level; the signal's pipe is the shard's to read.
                        if shard_counter(&fd) {
                            rustix::io::read(&fd, &mut [0u8; 8]).unwrap();
                        }
                        broker.drive(shard);
                    }
                }
            }));
        }
    }
    let checkpoints = {
        let (broker, done) = (broker.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(SeqCst) {
                broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
            }
        })
    };
    let mut workers = Vec::new();
    for partition in 0..WRITERS {
        workers.push(thread(write(broker.clone(), topic.clone(), partition)));
        workers.push(thread(follow(broker.clone(), topic.clone(), partition)));
    }
    let results: Vec<_> = workers.into_iter().map(std::thread::JoinHandle::join).collect();
    done.store(true, SeqCst);
    assert!(results.iter().all(Result::is_ok));
    checkpoints.join().unwrap();
    helpers.into_iter().for_each(|helper| helper.join().unwrap());
    broker.shutdown();
}

#[test]
fn many_threads_on_pwrite() {
    stress(DiskKind::Pwrite, false);
}

#[test]
fn many_threads_on_the_best_disk_watched_from_outside() {
    stress(DiskKind::Auto, true);
}
