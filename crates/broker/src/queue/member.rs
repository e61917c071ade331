//! The members that are dealt messages, and what is left to be done with what was dealt.

use std::ops::Range;

use sabir_base::wake::WakeBatch;
use sabir_delivery::dispatch::MemberNo;
use sabir_delivery::subscription::MessageOwner;

use super::{GotMessage, QueueError, QueueTarget};
use crate::group::Replier;
use crate::push::{CancelReason, Push, PushSeat, PushedMessages};

/// Where a getter's answer goes.
pub(super) type GetReplier = Replier<Result<Option<GotMessage>, QueueError>>;

/// A consumer, or a getter of a single message, that is dealt messages of one queue.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) target: QueueTarget,
    pub(super) owner: MessageOwner,
    /// The demand's number; a getter has none.
    pub(super) demand: Option<u64>,
    /// Whether messages are settled when they are sent.
    pub(super) settles: bool,
    pub(super) to: Recipient,
    /// How many messages were dealt to it and may not be sent yet.
    pub(super) waiting: u64,
}

/// How messages reach one.
#[derive(Debug)]
pub(super) enum Recipient {
    /// A session's outbox, with what the session calls the consumer.
    Consumer { number: u64, seat: PushSeat },
    /// An answer, with how many other messages are ready. `None` once it is given.
    Getter { replier: Option<GetReplier>, left: u64 },
}

/// Messages in a row that were dealt to one member, alike in all that it is told of them.
#[derive(Debug, Clone)]
pub(super) struct Dealt {
    pub(super) member: MemberNo,
    pub(super) owner: MessageOwner,
    pub(super) target: QueueTarget,
    pub(super) offsets: Range<u64>,
    pub(super) bytes: u64,
    pub(super) redelivered: bool,
    pub(super) returned: u32,
    /// Whether they may be sent only once they are acquired.
    pub(super) waits: bool,
}

impl Dealt {
    pub(super) fn messages(&self) -> u64 {
        self.offsets.end - self.offsets.start
    }

    /// The same for some of its messages.
    pub(super) fn part(&self, offsets: Range<u64>) -> Self {
        let bytes = self.bytes / self.messages().max(1) * (offsets.end - offsets.start);
        Self { offsets, bytes, ..self.clone() }
    }
}

impl Member {
    /// Sends it messages. Tells whether they are with its session now.
    pub(super) fn send(&mut self, dealt: &Dealt, wakes: &mut WakeBatch) -> bool {
        let Dealt { ref offsets, redelivered, returned, target, .. } = *dealt;
        match &mut self.to {
            Recipient::Consumer { number, seat } => {
                let offsets = offsets.clone();
                let messages = PushedMessages { consumer: *number, target, offsets, redelivered, returned };
                seat.push(Push::Deliver(messages), wakes).is_ok()
            }
            Recipient::Getter { replier, left } => {
                let got = GotMessage { offset: offsets.start, redelivered, returned, left: *left };
                replier.take().is_some_and(|replier| {
                    let awaited = replier.is_awaited();
                    replier.send(Ok(Some(got)), wakes);
                    awaited
                })
            }
        }
    }

    /// Where the answer goes, of a getter.
    pub(super) fn into_getter(self) -> Option<GetReplier> {
        match self.to {
            Recipient::Consumer { .. } => None,
            Recipient::Getter { replier, .. } => replier,
        }
    }

    /// Tells it that nothing comes any more.
    pub(super) fn end(self, why: CancelReason, error: QueueError, wakes: &mut WakeBatch) {
        match self.to {
            Recipient::Consumer { number: consumer, seat } => {
                // One whose connection has ended needs no telling.
                let _ = seat.push(Push::Cancelled { consumer, why }, wakes);
            }
            Recipient::Getter { replier, .. } => {
                replier.into_iter().for_each(|replier| replier.send(Err(error), wakes));
            }
        }
    }
}
