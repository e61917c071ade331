//! Messages that could not be read: the session has them for a while, so that those behind them go, and gives them back then. A disk may err while
//! it reads.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use sabir_broker::queue::{QueueOwner, QueueTarget};
use tokio::time::Instant;

/// For how long.
const FOR: Duration = Duration::from_secs(60);
/// For how long others of the same row join those that are put off, and are given back with them.
const JOIN: Duration = Duration::from_secs(5);
/// How many rows a connection has at the most.
const MOST: usize = 1024;

/// Messages in a row that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnreadableMessages {
    pub(super) target: QueueTarget,
    pub(super) owner: QueueOwner,
    pub(super) offsets: Range<u64>,
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

/// Those of a connection, in the order in which they are given back.
#[derive(Debug, Default)]
pub(super) struct PutOff(VecDeque<(Instant, UnreadableMessages)>);

impl PutOff {
    /// Takes messages; tells whether there was room for them.
    pub(super) fn add(&mut self, messages: UnreadableMessages, now: Instant) -> bool {
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
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.front().map(|(until, _)| *until)
    }

    /// Takes the next ones off whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<UnreadableMessages> {
        self.0.pop_front_if(|(until, _)| *until <= now).map(|(_, messages)| messages)
    }

    /// Takes those of an owner off.
    pub(super) fn take_of(&mut self, owner: QueueOwner) -> Vec<UnreadableMessages> {
        let (taken, kept) =
            self.0.drain(..).partition::<VecDeque<_>, _>(|(_, messages)| messages.owner == owner);
        self.0 = kept;
        taken.into_iter().map(|(_, messages)| messages).collect()
    }
}
