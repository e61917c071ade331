//! Reading on behind positions, and waiting where nothing is there yet.

use std::time::Instant;

use sabir_model::{ErrorAbout, Offset, ReadError};

use super::fetch::{READ_FOR, ReadSpec};
use super::memory::UNHELD;
use super::types::{Fetched, ReadTarget};
use crate::broker::Broker;

/// How far a reader is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPosition {
    /// The partition.
    pub target: ReadTarget,
    /// The offset to go on at.
    pub next: Offset,
}

impl Broker {
    /// Reads what there is behind positions, about `max_bytes` of each, by their numbers: at least one batch, which is waited for. Positions that retention has
    /// overtaken are moved to what is kept; all others the caller moves, behind what it takes of what was read.
    ///
    /// # Errors
    /// Those of [`Broker::read`] but [`ReadError::Deleted`], and [`ReadError::OutOfRange`] of a position before what is kept.
    pub async fn read_on(
        &self,
        positions: &mut [ReadPosition],
        max_bytes: usize,
    ) -> Result<Vec<(usize, Fetched)>, ErrorAbout<ReadError>> {
        let targets: Vec<_> = positions.iter().map(|position| position.target).collect();
        loop {
            // Before the look: what comes between the two is not missed.
            let watch = self.watch(&targets, 1);
            let (mut found, mut is_overtaken) = (Vec::new(), false);
            // For all of them together: a position that comes when it is over still gets a batch.
            let until = Instant::now() + READ_FOR;
            let mut min_one = true;
            for (number, position) in positions.iter_mut().enumerate() {
                let ReadPosition { target, next } = *position;
                let (partition, from, unheld) = (target.partition, next, UNHELD);
                let spec = ReadSpec { partition, from, max_bytes, min_one, until, unheld, owns: false };
                match self.read_own(target, spec, None).await {
                    Ok(fetched) if fetched.slices.is_empty() => {}
                    Ok(fetched) => {
                        // What holds memory is not kept while another position waits for some.
                        min_one &= !fetched.slices.iter().any(|slice| slice.is_held);
                        found.push((number, fetched));
                    }
                    Err(ErrorAbout { error: ReadError::OutOfRange { start, .. }, .. })
                        if start > position.next =>
                    {
                        (position.next, is_overtaken) = (start, true);
                    }
                    // The next read says where the partition begins.
                    Err(ErrorAbout { error: ReadError::Deleted, .. }) => is_overtaken = true,
                    Err(error) => return Err(error),
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
            if !is_overtaken {
                watch.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Caller;
    use crate::tests::rig::{append, batch, create, open, options};

    #[tokio::test]
    async fn what_is_there_is_read_and_what_is_not_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(options(dir.path()));
        let topic = create(&broker, "t", 2).await;
        let mut positions: Vec<_> = { topic.partitions.iter() }
            .map(|partition| ReadPosition { target: ReadTarget::of(partition), next: Offset(0) })
            .collect();
        let waited =
            tokio::time::timeout(Duration::from_millis(50), broker.read_on(&mut positions, 1000)).await;
        assert!(waited.is_err());
        append(&broker, &topic, 1, batch(&[b"a"], 1)).await.unwrap();
        append(&broker, &topic, 1, batch(&[b"b"], 1)).await.unwrap();
        let read = broker.read_on(&mut positions, 1).await.unwrap();
        assert_eq!((read.len(), read[0].0, read[0].1.slices[0].next_offset), (1, 1, Offset(1)));
        let place = topic.partition(1).unwrap();
        broker.delete_records(&Caller::OPERATOR, place.shard, place.id, Offset(1)).await.unwrap();
        let read = broker.read_on(&mut positions, 1).await.unwrap();
        assert_eq!((read[0].0, read[0].1.slices[0].next_offset), (1, Offset(2)));
        assert_eq!([positions[0].next, positions[1].next], [Offset(0), Offset(1)]);
        broker.shutdown();
    }
}
