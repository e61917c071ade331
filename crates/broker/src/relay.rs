//! Publishing elsewhere what lies in a queue, before it is settled there: no entry is in two shards.
//!
//! Some targets may have taken a message while the shard of another cannot decide. Whoever tries again asks those alone that have not decided; what is known
//! of that is in memory, so that a message may come twice where the node dies between, or its shard is led by another one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use sabir_model::batch::BatchBuilder;
use sabir_model::{AppendError, Offset, PartitionId, RecordFacts};
use tracing::debug;

use crate::append::AppendTarget;
use crate::caller::Caller;
use crate::entry::RecordPlace;
use crate::exchange::targets_by_codec;
use crate::publish::{Publish, PublishTargets, publish_in};
use crate::shard::Shard;

/// It cannot be done now, and is to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Later;

/// Targets that have decided on messages which are not settled yet.
#[derive(Debug, Default)]
pub(crate) struct RelayedMessages {
    queues: FxHashMap<PartitionId, BTreeMap<u64, Vec<PartitionId>>>,
}

impl RelayedMessages {
    /// Whether a target has decided on a message.
    pub(crate) fn is_decided(&self, queue: PartitionId, offset: u64, target: PartitionId) -> bool {
        let decided = self.queues.get(&queue).and_then(|messages| messages.get(&offset));
        decided.is_some_and(|targets| targets.contains(&target))
    }

    fn decide(&mut self, queue: PartitionId, offsets: Range<u64>, targets: &[PartitionId]) {
        if targets.is_empty() {
            return;
        }
        let messages = self.queues.entry(queue).or_default();
        offsets.for_each(|offset| messages.entry(offset).or_default().extend_from_slice(targets));
    }

    /// Forgets the messages that are settled, or gone with their queue.
    pub(crate) fn forget_settled(&mut self, shard: &Shard) {
        if !self.queues.is_empty() {
            let state = shard.state.read();
            let place = |partition, offset: u64| RecordPlace { partition, offset: Offset(offset as i64) };
            self.keep(|queue, offset| state.subscriptions.is_unsettled(place(queue, offset)));
        }
    }

    fn keep(&mut self, is_open: impl Fn(PartitionId, u64) -> bool) {
        self.queues.retain(|queue, messages| {
            messages.retain(|offset, _| is_open(*queue, *offset));
            !messages.is_empty()
        });
    }
}

/// Messages of a queue in a row, as they are published elsewhere.
#[derive(Debug)]
pub(crate) struct Relay<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) queue: PartitionId,
    pub(crate) offsets: Range<u64>,
    pub(crate) batch: &'a BatchBuilder,
    pub(crate) facts: Option<RecordFacts>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RelayOutcome {
    /// Copies that their target has refused.
    pub(crate) refused: u64,
    /// Whether a target has not decided.
    pub(crate) later: bool,
}

impl RelayOutcome {
    fn add(&mut self, other: Self) {
        self.refused += other.refused;
        self.later |= other.later;
    }
}

impl Relay<'_> {
    /// Publishes them to targets that have not decided on them, and waits for each. Blocking. `wall_ms` is the machine's time.
    pub(crate) fn publish(
        &self,
        shards: &[Arc<Shard>],
        targets: &[AppendTarget],
        relayed: &mut RelayedMessages,
        wall_ms: i64,
    ) -> RelayOutcome {
        let mut outcome = RelayOutcome::default();
        for targets in targets_by_codec(targets.to_vec()).unwrap_or_default() {
            outcome.add(self.publish_in_codec(shards, &targets, relayed, wall_ms));
        }
        outcome
    }

    fn publish_in_codec(
        &self,
        shards: &[Arc<Shard>],
        targets: &PublishTargets,
        relayed: &mut RelayedMessages,
        wall_ms: i64,
    ) -> RelayOutcome {
        match self.publication(targets, wall_ms) {
            Some(publish) => self.publish_as(shards, &publish, relayed),
            // One of them does not take such a batch: that is no reason for others not to have it.
            None if targets.targets().len() > 1 => {
                let mut outcome = RelayOutcome::default();
                let each = targets.targets().iter().map(|target| PublishTargets::new(vec![target.clone()]));
                for one in each.flatten() {
                    outcome.add(self.publish_in_codec(shards, &one, relayed, wall_ms));
                }
                outcome
            }
            None => {
                let decided: Vec<_> = targets.targets().iter().map(|target| target.partition).collect();
                debug!(queue = %self.queue.0, target = ?decided, "messages are not taken");
                relayed.decide(self.queue, self.offsets.clone(), &decided);
                RelayOutcome { refused: self.offsets.end - self.offsets.start, later: false }
            }
        }
    }

    /// None where one of the targets does not take it.
    fn publication(&self, targets: &PublishTargets, wall_ms: i64) -> Option<Publish> {
        let batch = self.batch.clone().build_checked(&targets.rules(), wall_ms).ok()?;
        let mut publish = Publish { partial: true, ..Publish::new(targets.clone(), [batch]) };
        publish.batches[0].facts.clone_from(&self.facts);
        publish.check(self.caller).ok()?;
        Some(publish)
    }

    fn publish_as(
        &self,
        shards: &[Arc<Shard>],
        publish: &Publish,
        relayed: &mut RelayedMessages,
    ) -> RelayOutcome {
        let (mut outcome, mut decided) = (RelayOutcome::default(), Vec::new());
        for told in publish_in(shards, publish) {
            match told.result {
                Err(AppendError::Shard(_)) => {
                    outcome.later = true;
                    continue;
                }
                Err(error) => {
                    debug!(%error, "messages are not taken");
                    outcome.refused += u64::from(told.records.end - told.records.start);
                }
                Ok(_) => {}
            }
            decided.push(publish.targets.targets()[told.target].partition);
        }
        // One that takes a part and refuses the rest says two things.
        decided.dedup();
        relayed.decide(self.queue, self.offsets.clone(), &decided);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decided_is_known_until_its_message_is_settled() {
        let (queue, one, two) = (PartitionId(1), PartitionId(7), PartitionId(8));
        let mut relayed = RelayedMessages::default();
        relayed.decide(queue, 3..5, &[one]);
        relayed.decide(queue, 4..5, &[two]);
        relayed.decide(queue, 9..10, &[]);
        let decided = |relayed: &RelayedMessages, target| -> Vec<_> {
            (0..10).filter(|offset| relayed.is_decided(queue, *offset, target)).collect()
        };
        assert_eq!((decided(&relayed, one), decided(&relayed, two)), (vec![3, 4], vec![4]));
        assert!(!relayed.is_decided(PartitionId(2), 3, one));
        relayed.keep(|of, offset| of == queue && offset > 3);
        assert_eq!((decided(&relayed, one), decided(&relayed, two)), (vec![4], vec![4]));
        relayed.keep(|of, offset| of == queue && offset > 4);
        assert!(relayed.queues.is_empty());
    }
}
