//! Reading on behind positions, and waiting where nothing is there yet.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use sabir_model::{ErrorAbout, Offset, ReadError};

use super::fetch::{READ_FOR, ReadSpec};
use super::memory::UNHELD;
use super::types::{Fetched, ReadTarget};
use crate::broker::Broker;
use crate::watch::{Follow, Watcher};

/// Positions that are read, and watched, before others have their turn.
const PORTION: usize = 64;
/// Bytes of what is read for all positions of a portion, from which on it is given.
const PORTION_BYTES: usize = 1 << 20;

/// How far a reader is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPosition {
    /// The partition.
    pub target: ReadTarget,
    /// The offset to go on at.
    pub next: Offset,
}

/// Reads on behind positions, as many as there are: each is watched for as long as this is there, and only those are read behind which there may
/// be something.
pub struct Follower {
    broker: Broker,
    positions: Vec<ReadPosition>,
    follow: Arc<Follow>,
    /// The first so many are watched.
    watched: usize,
    /// Positions behind which there may be something, each once, and of each whether it is among them.
    due: VecDeque<u32>,
    is_due: Vec<bool>,
    /// Reads that were tried.
    #[cfg(test)]
    reads: usize,
}

impl Broker {
    /// Follows partitions from positions on.
    pub fn follow(&self, positions: Vec<ReadPosition>) -> Follower {
        Follower {
            broker: self.clone(),
            follow: Follow::new(positions.len()),
            watched: 0,
            due: VecDeque::new(),
            is_due: vec![false; positions.len()],
            positions,
            #[cfg(test)]
            reads: 0,
        }
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("positions", &self.positions.len()).finish_non_exhaustive()
    }
}

impl Follower {
    /// A position, by its number.
    pub fn position(&self, number: usize) -> ReadPosition {
        self.positions[number]
    }

    /// Goes on elsewhere in a partition: behind what was taken of what was read.
    pub fn go_on_at(&mut self, number: usize, next: Offset) {
        self.positions[number].next = next;
        self.is_due_again(number as u32);
    }

    /// Reads what there is behind some of the positions, about `max_bytes` of each, by their numbers: at least one batch, which is waited for. Positions
    /// that retention has overtaken are moved to what is kept; all others the caller [moves](Self::go_on_at), else they are read again. It gives way
    /// to others every few positions, and one that is dropped before it is ready has missed nothing.
    ///
    /// # Errors
    /// Those of [`Broker::read`] but [`ReadError::Deleted`], and [`ReadError::OutOfRange`] of a position before what is kept.
    pub async fn next(&mut self, max_bytes: usize) -> Result<Vec<(usize, Fetched)>, ErrorAbout<ReadError>> {
        loop {
            self.watch_more();
            self.take_fired();
            if self.due.is_empty() {
                // All are watched: those that were not are due.
                self.follow.fired().await;
                continue;
            }
            let found = self.read_due(max_bytes).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            if !self.due.is_empty() || self.watched < self.positions.len() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Watches some that are not watched yet. Before they are read: what comes between the two is not missed.
    fn watch_more(&mut self) {
        let end = self.positions.len().min(self.watched + PORTION);
        for number in self.watched..end {
            let target = self.positions[number].target;
            if let Some(shard) = self.broker.shard(target.shard) {
                let watcher = Watcher::Follow(self.follow.clone(), number as u32);
                shard.reads.watchers.add(target.partition, watcher);
            }
            self.is_due_again(number as u32);
        }
        self.watched = end;
    }

    fn take_fired(&mut self) {
        for number in self.follow.take() {
            self.is_due_again(number);
        }
    }

    fn is_due_again(&mut self, number: u32) {
        if !std::mem::replace(&mut self.is_due[number as usize], true) {
            self.due.push_back(number);
        }
    }

    /// Reads some of those that are due. Those behind which there was something stay so, behind all others.
    async fn read_due(&mut self, max_bytes: usize) -> Result<Vec<(usize, Fetched)>, ErrorAbout<ReadError>> {
        let (mut found, mut bytes, mut min_one) = (Vec::new(), 0, true);
        // For all of them together: a position that comes when it is over still gets a batch.
        let until = Instant::now() + READ_FOR;
        for _ in 0..self.due.len().min(PORTION) {
            let Some(&number) = self.due.front() else { break };
            let position = self.positions[number as usize];
            let read = self.read(position, max_bytes, min_one, until).await;
            // Only now, so that it is still due where this is not waited for to the end.
            self.due.pop_front();
            match read {
                Ok(fetched) if fetched.slices.is_empty() => {
                    self.is_due[number as usize] = false;
                    continue;
                }
                Ok(fetched) => {
                    // What holds memory is not kept while another position waits for some.
                    min_one &= !fetched.slices.iter().any(|slice| slice.is_held);
                    bytes += fetched.bytes();
                    found.push((number as usize, fetched));
                }
                Err(ErrorAbout { error: ReadError::OutOfRange { start, .. }, .. })
                    if start > position.next =>
                {
                    self.positions[number as usize].next = start;
                }
                // The next read says where the partition begins.
                Err(ErrorAbout { error: ReadError::Deleted, .. }) => {}
                Err(error) => {
                    self.due.push_back(number);
                    return Err(error);
                }
            }
            self.due.push_back(number);
            if bytes >= PORTION_BYTES {
                break;
            }
        }
        Ok(found)
    }

    async fn read(
        &mut self,
        position: ReadPosition,
        max_bytes: usize,
        min_one: bool,
        until: Instant,
    ) -> Result<Fetched, ErrorAbout<ReadError>> {
        #[cfg(test)]
        {
            self.reads += 1;
        }
        let ReadPosition { target, next } = position;
        let (partition, from, unheld) = (target.partition, next, UNHELD);
        let spec = ReadSpec { partition, from, max_bytes, min_one, until, unheld, owns: false };
        self.broker.read_own(target, spec, None).await
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        for (number, position) in self.positions[..self.watched].iter().enumerate() {
            if let Some(shard) = self.broker.shard(position.target.shard) {
                shard.reads.watchers.remove(position.target.partition, self.follow.place(number as u32));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;
    use crate::tests::rig::{append, batch, create, open, options};
    use crate::{Caller, Topic};

    /// From the first record of each partition on.
    fn positions(topic: &Topic) -> Vec<ReadPosition> {
        let partitions = topic.partitions.iter();
        partitions.map(|of| ReadPosition { target: ReadTarget::of(of), next: Offset(0) }).collect()
    }

    /// Whether nothing comes for a moment.
    async fn is_silent(follower: &mut Follower) -> bool {
        tokio::time::timeout(Duration::from_millis(50), follower.next(1000)).await.is_err()
    }

    #[tokio::test]
    async fn what_is_there_is_read_and_what_is_not_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(options(dir.path()));
        let topic = create(&broker, "t", 2).await;
        let mut follower = broker.follow(positions(&topic));
        assert!(is_silent(&mut follower).await);
        append(&broker, &topic, 1, batch(&[b"a"], 1)).await.unwrap();
        append(&broker, &topic, 1, batch(&[b"b"], 1)).await.unwrap();
        let read = follower.next(1).await.unwrap();
        assert_eq!((read.len(), read[0].0, read[0].1.slices[0].next_offset), (1, 1, Offset(1)));
        let place = topic.partition(1).unwrap();
        broker.delete_records(&Caller::OPERATOR, place.shard, place.id, Offset(1)).await.unwrap();
        let read = follower.next(1).await.unwrap();
        assert_eq!((read[0].0, read[0].1.slices[0].next_offset), (1, Offset(2)));
        assert_eq!([0, 1].map(|number| follower.position(number).next), [Offset(0), Offset(1)]);
        follower.go_on_at(1, Offset(2));
        assert!(is_silent(&mut follower).await, "it has taken that");
        broker.delete_topics(&Caller::OPERATOR, vec![topic.id]).await.remove(0).unwrap();
        assert_eq!(follower.next(1).await.unwrap_err().error, ReadError::UnknownPartition);
        broker.shutdown();
    }

    #[tokio::test]
    async fn only_what_has_grown_is_read_and_others_have_their_turn_between() {
        const ALL: usize = 10 * PORTION;
        let dir = tempfile::tempdir().unwrap();
        let broker = open(options(dir.path()));
        let topic = create(&broker, "t", ALL as u32).await;
        let shard = broker.shard(topic.partitions[0].shard).unwrap().clone();
        let mut follower = broker.follow(positions(&topic));
        for turn in 1..=11 {
            // Dropped before it is ready, each time.
            let polled = pin!(follower.next(1000)).poll(&mut Context::from_waker(Waker::noop())).is_pending();
            assert!(polled);
            assert!(follower.reads <= turn * PORTION && shard.reads.watchers.len() <= turn * PORTION);
        }
        assert_eq!((follower.reads, shard.reads.watchers.len()), (ALL, ALL));
        for number in [7, 3, 3] {
            let before = follower.reads;
            append(&broker, &topic, number as i32, batch(&[b"a"], 1)).await.unwrap();
            let read = follower.next(1000).await.unwrap();
            assert_eq!((read.len(), read[0].0), (1, number));
            follower.go_on_at(number, read[0].1.slices[0].next_offset);
            assert!(is_silent(&mut follower).await);
            assert_eq!(follower.reads - before, 2, "it is looked whether there is more");
        }
        drop(follower);
        assert_eq!(shard.reads.watchers.len(), 0);
        broker.shutdown();
    }

    #[tokio::test]
    async fn a_partition_may_be_followed_from_two_positions() {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(options(dir.path()));
        let topic = create(&broker, "t", 1).await;
        let mut follower = broker.follow([positions(&topic), positions(&topic)].concat());
        assert!(is_silent(&mut follower).await);
        append(&broker, &topic, 0, batch(&[b"a"], 1)).await.unwrap();
        let mut read: Vec<_> = follower.next(1000).await.unwrap();
        read.sort_by_key(|(number, _)| *number);
        assert_eq!(read.into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [0, 1]);
        broker.shutdown();
    }
}
