//! What sessions say of messages that they were sent, gathered until it goes into an entry.

use std::collections::VecDeque;
use std::ops::Range;

use sabir_delivery::subscription::{
    HeldBy, MessageOwner, Operation, OperationsWriter, RangesBuffer, Settlement, SubscriptionNo,
};

/// How far back it is looked for a change that another one belongs to.
const LOOK_BACK: usize = 8;
/// Ranges of one operation.
const MOST_RANGES: usize = 4096;

/// What becomes of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// They are done with.
    Settled(MessageOwner, Settlement),
    /// They are ready again; whether that counts, and not before which moment, in milliseconds (0: none).
    Returned(MessageOwner, bool, i64),
    /// All that the owner has is ready again; whether that counts.
    Released(MessageOwner, bool),
}

#[derive(Debug)]
struct Item {
    queue: SubscriptionNo,
    change: Change,
    ranges: RangesBuffer,
    count: usize,
}

impl Item {
    /// The first message that comes to be ready by it, or one before that.
    fn gives_back(&self) -> Option<u64> {
        match self.change {
            Change::Settled(..) => None,
            Change::Returned(..) => self.ranges.ranges().iter().next().map(|messages| messages.start),
            Change::Released(..) => Some(0),
        }
    }

    fn write(&self, writer: &mut OperationsWriter<'_>) {
        let ranges = self.ranges.ranges();
        let operation = match self.change {
            Change::Settled(owner, why) => Operation::Settled { ranges, held_by: HeldBy::Owner(owner), why },
            Change::Returned(owner, counted, not_before_ms) => {
                Operation::Returned { ranges, held_by: HeldBy::Owner(owner), counted, not_before_ms }
            }
            Change::Released(owner, counted) => Operation::Released { owner, counted },
        };
        writer.push(self.queue, &operation);
    }
}

/// Changes in the order in which they are to take effect.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    items: VecDeque<Item>,
    /// Kept for reuse.
    spare: Vec<Item>,
}

impl Gathered {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds messages of a queue, or all that an owner has of it, where none are named.
    pub(super) fn add(
        &mut self,
        queue: SubscriptionNo,
        change: Change,
        offsets: impl IntoIterator<Item = Range<u64>>,
    ) {
        if matches!(change, Change::Released(..)) {
            self.begin(queue, change);
        }
        for range in offsets.into_iter().filter(|range| !range.is_empty()) {
            if !self.join(queue, change, range.clone()) {
                let item = self.begin(queue, change);
                item.ranges.push(range);
                item.count = 1;
            }
        }
    }

    /// Adds a range to a change that is there; changes of other queues, or that concern others' messages, may stand behind it.
    fn join(&mut self, queue: SubscriptionNo, change: Change, range: Range<u64>) -> bool {
        for item in self.items.iter_mut().rev().take(LOOK_BACK).filter(|item| item.queue == queue) {
            if item.change == change && item.count < MOST_RANGES && item.ranges.push(range.clone()) {
                item.count += 1;
                return true;
            }
            if matches!(item.change, Change::Released(..)) {
                return false;
            }
        }
        false
    }

    fn begin(&mut self, queue: SubscriptionNo, change: Change) -> &mut Item {
        let mut item = self.spare.pop().unwrap_or_else(|| Item {
            queue,
            change,
            ranges: RangesBuffer::default(),
            count: 0,
        });
        (item.queue, item.change) = (queue, change);
        self.items.push_back(item);
        self.items.back_mut().expect("one was just put there")
    }

    /// Takes in what another has gathered later.
    pub(super) fn take_in(&mut self, later: &mut Self) {
        self.items.append(&mut later.items);
        std::mem::swap(&mut self.spare, &mut later.spare);
    }

    /// Puts in front what was gathered earlier.
    pub(super) fn put_before(&mut self, mut earlier: Self) {
        earlier.items.append(&mut self.items);
        self.items = earlier.items;
    }

    /// Writes changes until the body has so many bytes. Gives how many it wrote, and tells `gives_back` the first message that each gives back.
    pub(super) fn write(
        &self,
        writer: &mut OperationsWriter<'_>,
        most: usize,
        mut gives_back: impl FnMut(SubscriptionNo, u64),
    ) -> usize {
        let mut written = 0;
        for item in &self.items {
            if writer.bytes() >= most {
                break;
            }
            item.write(writer);
            written += 1;
            item.gives_back().into_iter().for_each(|first| gives_back(item.queue, first));
        }
        written
    }

    /// Those first written are on their way.
    pub(super) fn remove(&mut self, written: usize) {
        for mut item in self.items.drain(..written) {
            item.ranges.clear();
            item.count = 0;
            if self.spare.len() < LOOK_BACK {
                self.spare.push(item);
            }
        }
    }
}
