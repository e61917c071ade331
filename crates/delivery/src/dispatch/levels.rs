//! Messages of a queue with priorities, as they are offered: the highest level first, and each level in order.

use std::collections::BTreeMap;
use std::ops::Range;

use super::range_set::RangeSet;
use crate::subscription::{MessageState, Subscription};

/// What was offered of each level.
#[derive(Debug, Default)]
pub(super) struct LevelOffers {
    levels: BTreeMap<u8, LevelOffer>,
    /// Messages that became ready and are not sorted by level.
    unsorted: RangeSet,
}

/// What was offered of one level.
#[derive(Debug, Default)]
struct LevelOffer {
    /// The first message that was not offered.
    cursor: u64,
    /// Messages before the cursor that are to be offered anew.
    again: RangeSet,
}

impl LevelOffers {
    /// Messages are ready, perhaps anew.
    pub fn ready(&mut self, messages: Range<u64>) {
        self.unsorted.insert(messages);
    }

    /// A message was offered.
    pub fn looked_at(&mut self, offset: u64, level: u8) {
        let offer = self.levels.entry(level).or_default();
        offer.again.remove(offset..offset + 1);
        offer.cursor = offer.cursor.max(offset + 1);
    }

    /// Nothing was offered yet.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The first message to offer.
    pub fn peek(&mut self, subscription: &Subscription, proposed: &RangeSet) -> Option<u64> {
        self.sort(subscription);
        subscription.levels().find_map(|level| {
            let offer = self.levels.entry(level).or_default();
            offer.peek(level, subscription, proposed)
        })
    }

    fn sort(&mut self, subscription: &Subscription) {
        let unsorted = std::mem::take(&mut self.unsorted);
        for Range { start: mut at, end } in unsorted.iter() {
            while at < end {
                let (level, to) = subscription.level_run(at);
                let to = to.min(end);
                if let Some(offer) = self.levels.get_mut(&level) {
                    offer.again.insert(at..to.min(offer.cursor));
                }
                at = to;
            }
        }
    }
}

impl LevelOffer {
    fn peek(&mut self, level: u8, subscription: &Subscription, proposed: &RangeSet) -> Option<u64> {
        let again = first_ready(&mut self.again, proposed, subscription);
        again.or_else(|| self.behind_cursor(level, subscription, proposed))
    }

    fn behind_cursor(&mut self, level: u8, subscription: &Subscription, proposed: &RangeSet) -> Option<u64> {
        while let Some(offset) = subscription.next_ready_of(level, self.cursor) {
            self.cursor = offset;
            match proposed.end_of(offset) {
                Some(end) => self.cursor = end,
                None => return Some(offset),
            }
        }
        // What is there and becomes ready is told, so that it need not be looked for.
        self.cursor = self.cursor.max(subscription.end());
        None
    }
}

/// The first message of a set that can be offered; those before it that cannot are taken out.
pub(super) fn first_ready(
    set: &mut RangeSet,
    proposed: &RangeSet,
    subscription: &Subscription,
) -> Option<u64> {
    while let Some(offset) = set.first() {
        let (state, end) = subscription.run(offset);
        match proposed.end_of(offset) {
            Some(end) => set.remove(offset..end),
            None if state == MessageState::Ready => return Some(offset),
            None => set.remove(offset..end),
        }
    }
    None
}
