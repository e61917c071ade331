//! Messages that could not be read: the session has them for a while, so that those behind them go, and gives them back then. A disk may err while
//! it reads.

use std::collections::VecDeque;
use std::time::Duration;

use sabir_broker::queue::{QueueOwner, QueueTarget};
use tokio::time::Instant;

/// For how long.
const FOR: Duration = Duration::from_secs(60);
/// How many a connection has at the most.
const MOST: usize = 1024;

/// A message that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnreadableMessage {
    pub(super) target: QueueTarget,
    pub(super) owner: QueueOwner,
    pub(super) offset: u64,
}

/// Those of a connection, in the order in which they are given back.
#[derive(Debug, Default)]
pub(super) struct PutOff(VecDeque<(Instant, UnreadableMessage)>);

impl PutOff {
    /// Takes a message; tells whether there was room for it.
    pub(super) fn add(&mut self, message: UnreadableMessage, now: Instant) -> bool {
        let has_room = self.0.len() < MOST;
        if has_room {
            self.0.push_back((now + FOR, message));
        }
        has_room
    }

    /// When the first is given back.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.front().map(|(until, _)| *until)
    }

    /// Takes the next one off whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<UnreadableMessage> {
        self.0.pop_front_if(|(until, _)| *until <= now).map(|(_, message)| message)
    }

    /// Takes those of an owner off.
    pub(super) fn take_of(&mut self, owner: QueueOwner) -> Vec<UnreadableMessage> {
        let (taken, kept) =
            self.0.drain(..).partition::<VecDeque<_>, _>(|(_, message)| message.owner == owner);
        self.0 = kept;
        taken.into_iter().map(|(_, message)| message).collect()
    }
}
