//! When to look whether a producer has gone idle, without going through all of them.

use std::collections::BTreeMap;

use crate::partition::ProducerKey;

const MINUTE: i64 = 60_000;

/// Producers by the minute they were last known to be active in.
#[derive(Debug, Default)]
pub(crate) struct ExpiryQueue {
    minutes: BTreeMap<i64, Vec<ProducerKey>>,
    len: usize,
}

impl ExpiryQueue {
    /// `key` was active at `ms`.
    pub(crate) fn note(&mut self, key: ProducerKey, ms: i64) {
        self.minutes.entry(ms.div_euclid(MINUTE)).or_default().push(key);
        self.len += 1;
    }

    /// How many are noted; those that were forgotten otherwise are among them until their time comes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes up to `limit` producers that were not known to be active after `ms`. Those that were, or that are not expired
    /// yet for another reason, are to be [noted](Self::note) again.
    pub(crate) fn take_idle(&mut self, ms: i64, limit: usize) -> Vec<ProducerKey> {
        let mut taken = Vec::new();
        while let Some(mut minute) = self.minutes.first_entry() {
            let room = limit - taken.len();
            if room == 0 || (minute.key() + 1) * MINUTE > ms {
                break;
            }
            let keys = minute.get_mut();
            taken.extend(keys.drain(keys.len().saturating_sub(room)..));
            if keys.is_empty() {
                minute.remove();
            }
        }
        self.len -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sabir_model::{PartitionId, ProducerId};

    fn key(id: i64) -> ProducerKey {
        ProducerKey { partition: PartitionId(1), producer: ProducerId(id) }
    }

    #[test]
    fn gives_the_idle_ones_in_portions() {
        let mut queue = ExpiryQueue::default();
        (0..5).for_each(|id| queue.note(key(id), MINUTE + id));
        queue.note(key(9), 5 * MINUTE);
        assert!(queue.take_idle(2 * MINUTE - 1, 10).is_empty());
        assert_eq!(queue.take_idle(2 * MINUTE, 3).len(), 3);
        assert_eq!(queue.take_idle(2 * MINUTE, 3).len(), 2);
        assert!(queue.take_idle(2 * MINUTE, 3).is_empty());
        assert_eq!(queue.take_idle(i64::MAX, 3), [key(9)]);
    }
}
