//! What is on its way back into queues: what lies behind it is dealt once it is there again, so that it keeps its place.

use rustc_hash::FxHashMap;
use sabir_delivery::subscription::SubscriptionNo;

/// By queue, the first message that each entry gives back which is not decided, with the entry's number.
#[derive(Debug, Default)]
pub(super) struct Returning(FxHashMap<SubscriptionNo, Vec<(u64, u64)>>);

impl Returning {
    /// An entry gives back messages of a queue, this one or later ones.
    pub(super) fn add(&mut self, entry: u64, queue: SubscriptionNo, first: u64) {
        self.0.entry(queue).or_default().push((entry, first));
    }

    /// The first message of a queue that is on its way back.
    pub(super) fn first(&self, queue: SubscriptionNo) -> Option<u64> {
        self.0.get(&queue)?.iter().map(|(_, first)| *first).min()
    }

    /// An entry is decided, or not pushed: what it says of a queue is on its way no more. Tells whether it said anything.
    pub(super) fn decided(&mut self, entry: u64, queue: SubscriptionNo) -> bool {
        let Some(entries) = self.0.get_mut(&queue) else { return false };
        let before = entries.len();
        entries.retain(|(other, _)| *other != entry);
        let said = entries.len() < before;
        if entries.is_empty() {
            self.0.remove(&queue);
        }
        said
    }
}
