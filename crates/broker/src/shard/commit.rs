//! What takes effect together goes into one block.

use std::sync::atomic::Ordering::SeqCst;

use sabir_journal::Priority;
use sabir_model::{Durability, ShardFailure};

use super::Shard;
use super::open::Entry;
use crate::answer::Waiter;
use crate::entry::DeliveryBody;
use crate::queue::ShardCommit;

/// Bytes that an entry takes beside its payload and what is known of it, at the most: the body of an append for one partition among them.
const BESIDE: usize = 256;
/// What each of several targets of an entry takes.
const TARGET: usize = 10;

impl ShardCommit<'_> {
    /// Bytes that its entries take at the most.
    fn bytes(&self, shard: &Shard) -> usize {
        let settled: usize = self.settled.iter().map(|(body, _)| body.len() + BESIDE).sum();
        let published = self.publishes.iter().flat_map(|(publish, call)| publish.entries(shard.id, call));
        let published: usize = published
            .map(|(_, group, batch)| {
                let facts = batch.facts.as_ref().map_or(0, |facts| {
                    let mut stored = Vec::new();
                    facts.encode(&mut stored);
                    stored.len()
                });
                batch.batch.bytes().len() + facts + TARGET * group.partitions.as_slice().len() + BESIDE
            })
            .sum();
        settled + published
    }
}

impl Shard {
    /// Copies what a transaction is in this shard into the open block: all of it into one, if one has room for it.
    pub(crate) fn append_together(&self, commit: ShardCommit<'_>) {
        let bytes = commit.bytes(self);
        // Acknowledgements alone make space.
        let priority = if commit.publishes.is_empty() { Priority::Reserve } else { Priority::Ordinary };
        let refused = self.refuses(priority);
        let _guard = self.guard("commit");
        let mut open = self.appends.open.lock();
        let bodies = commit.settled.iter().map(|(body, _)| body.len()).sum();
        let crowded = || open.is_crowded(bodies, commit.settled.len(), self.settings.open_bytes_max);
        let refused = refused.or(open.refused).or_else(|| crowded().then_some(ShardFailure::Timeout));
        if let Some(error) = refused {
            drop(open);
            return commit.refuse(self.id, error);
        }
        open.keep_together(bytes);
        let ShardCommit { publishes, settled } = commit;
        for (body, waiter) in settled {
            let (kind, durability) = (DeliveryBody::KIND, Durability::Sync);
            let entry = Entry { kind, body: &body, payload: None, group: 0, durability, priority };
            open.push_change(&entry, Some(waiter));
        }
        let times = (self.clock.now_ms(), self.settings.durability);
        for (publish, call) in publishes {
            let origin = (publish.targets.origin(), publish.partial);
            for (waiter, group, batch) in publish.entries(self.id, &call) {
                open.publish(group, origin, batch, times, Waiter::Publish(Box::new(waiter)));
            }
        }
        let full = open.has_full();
        self.appends.waiting.store(open.waiting(), SeqCst);
        drop(open);
        if full {
            self.submit();
        }
    }
}
