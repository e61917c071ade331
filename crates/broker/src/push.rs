//! What the broker, and others by way of it, have for a session's client beside answers: the same for every front end.
//!
//! A session that takes pushes has one outbox ([`Seat`]). It is filled wherever something happens, on any thread,
//! and drained on the connection's own; all that a commit leaves to the sessions of an I/O thread wakes that thread once. The part that fills it
//! knows no front end, and each front end matches every variant, so that none can be passed over unseen.

use std::ops::Range;

use bytes::Bytes;
use sabir_base::outbox::Seat;
use sabir_base::wake::WakeBatch;

use crate::group::{Replier, Reply};
use crate::live::LiveDelivery;
use crate::queue::QueueTarget;

/// Requests to a client that its session has not taken: with more, further ones are refused.
const MOST_ASKS: usize = 64;

/// A session's outbox, as the broker fills it.
pub type PushSeat = Seat<Push>;

/// Something for a session's client.
#[derive(Debug)]
pub enum Push {
    /// Messages of a queue for a consumer, no more than its credit.
    Deliver(PushedMessages),
    /// A message for a consumer that stands in no queue.
    Live(LiveDelivery),
    /// What became of a message that the session published. Not produced by the broker yet: an append is answered to its caller.
    Confirmed(Confirmation),
    /// A consumer has ended, and not by its session's wish.
    Cancelled {
        /// The number that the session gave the consumer.
        consumer: u64,
        /// Why, for the client.
        why: CancelReason,
    },
    /// Publishing is to stop until it is said that it need not any more. Not produced by the broker yet.
    Alarm {
        /// What is short.
        of: Scarcity,
        /// Whether it is short now, or is not any more.
        raised: bool,
    },
    /// A request that the server makes of the client.
    Ask(Ask),
}

/// Messages of one queue for one consumer. It names them; the session reads their bytes, which are at hand while they are new, and passes over
/// what is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedMessages {
    /// The number that the session gave the consumer.
    pub consumer: u64,
    /// The queue.
    pub target: QueueTarget,
    /// The messages' offsets.
    pub offsets: Range<u64>,
    /// Whether they may have been delivered before.
    pub redelivered: bool,
    /// How often they were given back in such a way that it counts.
    pub returned: u32,
}

/// What became of a message that a session published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// The number that the session gave it.
    pub number: u64,
    /// Whether it is stored in all that it was for.
    pub stored: bool,
}

/// Why a consumer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CancelReason {
    /// What it was on is deleted.
    #[error("what it was on is deleted")]
    Deleted,
    /// Its shard is led elsewhere, or has stopped.
    #[error("its shard cannot be reached here")]
    Unavailable,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarcity {
    /// Memory.
    Memory,
    /// Space on the disk.
    Disk,
}

impl std::fmt::Display for Scarcity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        })
    }
}

/// A request that the server makes of a client, in the front end's own form.
#[derive(Debug)]
pub struct Ask {
    /// What is asked.
    pub payload: Bytes,
    /// Where the client's answer goes; none where none is expected.
    pub reply: Option<AskReply>,
}

/// Where a client's answer goes. Dropped without one, it tells that none comes.
#[derive(Debug)]
pub struct AskReply(Option<Replier<Result<Bytes, AskFailure>>>);

/// Why a client was not asked, or has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskFailure {
    /// Its connection has ended.
    #[error("the connection has ended")]
    Ended,
    /// So many requests to it wait that no more are taken.
    #[error("too many requests wait for the client")]
    Busy,
    /// Its protocol has no requests of the server.
    #[error("the client's protocol knows no requests of the server")]
    Unsupported,
}

impl Ask {
    /// Asks the client of a session, and waits for its answer. How long is the caller's to decide: an answer that comes after the reply
    /// was dropped goes nowhere.
    ///
    /// # Errors
    /// The client cannot be asked.
    pub fn send(seat: &PushSeat, payload: Bytes) -> Result<Reply<Result<Bytes, AskFailure>>, AskFailure> {
        if seat.waiting() >= MOST_ASKS {
            return Err(AskFailure::Busy);
        }
        let (replier, reply) = Reply::pair();
        let ask = Push::Ask(Self { payload, reply: Some(AskReply(Some(replier))) });
        let mut wakes = WakeBatch::default();
        let left = seat.push(ask, &mut wakes);
        wakes.deliver();
        // What was not taken is dropped here, and tells so through the reply.
        left.map_err(|_| AskFailure::Ended)?;
        Ok(reply)
    }
}

impl AskReply {
    /// Whether the caller that asked still waits. Where it has given up no answer is needed, and the request takes no place among those that wait.
    pub fn is_awaited(&self) -> bool {
        self.0.as_ref().is_some_and(Replier::is_awaited)
    }

    /// Gives the client's answer to the caller that asked.
    pub fn send(mut self, answer: Bytes) {
        self.finish(Ok(answer));
    }

    /// Says why there is no answer.
    pub fn refuse(mut self, why: AskFailure) {
        self.finish(Err(why));
    }

    fn finish(&mut self, answer: Result<Bytes, AskFailure>) {
        if let Some(replier) = self.0.take() {
            let mut wakes = WakeBatch::default();
            replier.send(answer, &mut wakes);
            wakes.deliver();
        }
    }
}

impl Drop for AskReply {
    fn drop(&mut self) {
        self.finish(Err(AskFailure::Ended));
    }
}
