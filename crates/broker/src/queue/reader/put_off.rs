//! Messages that could not be read: a session has them for a while, so that those behind them go, and gives them back then. A disk may err while
//! it reads.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::queue::{QueueOwner, QueueTarget};

/// For how long.
const FOR: Duration = Duration::from_secs(60);
/// For how long others of the same row join those that are put off, and are given back with them.
const JOIN: Duration = Duration::from_secs(5);
/// How many rows a session has at the most.
const MOST: usize = 1024;

/// Messages in a row that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableMessages {
    /// Their queue.
    pub target: QueueTarget,
    /// The owner that has them.
    pub owner: QueueOwner,
    /// Their offsets.
    pub offsets: Range<u64>,
}

impl UnreadableMessages {
    /// Takes in others that follow; tells whether they do.
    pub(super) fn join(&mut self, others: &Self) -> bool {
        let follow = (self.target, self.owner, self.offsets.end)
            == (others.target, others.owner, others.offsets.start);
        if follow {
            self.offsets.end = others.offsets.end;
        }
        follow
    }
}

/// Those of a session, in the order in which they are given back.
#[derive(Debug, Default)]
pub struct MessagesPutOff(VecDeque<(Instant, UnreadableMessages)>);

impl MessagesPutOff {
    /// Takes messages; tells whether there was room for them. Those behind them go meanwhile, so their consumer may be given as many more.
    pub fn add(&mut self, messages: UnreadableMessages, now: Instant) -> bool {
        let last = self.0.back_mut().filter(|(until, _)| now + FOR < *until + JOIN);
        if last.is_some_and(|(_, last)| last.join(&messages)) {
            return true;
        }
        let has_room = self.0.len() < MOST;
        if has_room {
            self.0.push_back((now + FOR, messages));
        }
        has_room
    }

    /// When the first are given back.
    pub fn until(&self) -> Option<Instant> {
        self.0.front().map(|(until, _)| *until)
    }

    /// Takes the next ones off whose time has come.
    pub fn take_due(&mut self, now: Instant) -> Option<UnreadableMessages> {
        self.0.pop_front_if(|(until, _)| *until <= now).map(|(_, messages)| messages)
    }

    /// Takes those of an owner off.
    pub fn take_of(&mut self, owner: QueueOwner) -> Vec<UnreadableMessages> {
        let (taken, kept) =
            self.0.drain(..).partition::<VecDeque<_>, _>(|(_, messages)| messages.owner == owner);
        self.0 = kept;
        taken.into_iter().map(|(_, messages)| messages).collect()
    }
}

#[cfg(test)]
mod tests {
    use sabir_delivery::subscription::SubscriptionNo;
    use sabir_model::{PartitionId, ShardId};

    use super::*;

    fn messages(owner: u64, offsets: Range<u64>) -> UnreadableMessages {
        let target =
            QueueTarget { shard: ShardId(1), partition: PartitionId(7), subscription: SubscriptionNo(7) };
        UnreadableMessages { target, owner: QueueOwner(owner), offsets }
    }

    #[test]
    fn rows_come_back_in_their_order_after_a_while_and_are_bounded() {
        let (mut put_off, now) = (MessagesPutOff::default(), Instant::now());
        assert!(put_off.add(messages(1, 0..2), now) && put_off.add(messages(1, 2..3), now));
        assert!(put_off.add(messages(2, 3..4), now + JOIN) && put_off.add(messages(2, 4..5), now + JOIN * 2));
        assert_eq!(put_off.until(), Some(now + FOR));
        assert_eq!(put_off.take_due(now + FOR), Some(messages(1, 0..3)));
        assert_eq!(put_off.take_due(now + FOR), None);
        assert_eq!(put_off.take_of(QueueOwner(1)), []);
        assert_eq!(put_off.take_of(QueueOwner(2)), [messages(2, 3..4), messages(2, 4..5)]);
        let taken = (0..2 * MOST as u64).filter(|n| put_off.add(messages(1, 2 * n..2 * n + 1), now)).count();
        assert_eq!(taken, MOST);
    }
}
