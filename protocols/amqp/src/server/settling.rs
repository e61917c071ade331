//! What becomes of delivered messages, gathered for as long as a read lasts.

use std::ops::Range;

use sabir_broker::queue::{QueueOwner, QueueTarget, Queues};

/// What becomes of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// They are done with.
    Settled,
    /// They are ready again; whether that counts as a failed attempt.
    GivenBack { counted: bool },
    /// They are refused for good.
    Rejected,
}

/// Messages of one owner in one queue, with one fate.
#[derive(Debug, PartialEq, Eq)]
struct Gathered {
    target: QueueTarget,
    owner: QueueOwner,
    fate: Fate,
    offsets: Vec<Range<u64>>,
}

/// What the broker has not been told.
#[derive(Debug, Default)]
pub(super) struct Settling(Vec<Gathered>);

impl Settling {
    /// Gathers it; in the order in which it is said.
    pub(super) fn add(&mut self, target: QueueTarget, owner: QueueOwner, fate: Fate, offsets: Range<u64>) {
        if let Some(last) = self.0.last_mut()
            && (last.target, last.owner, last.fate) == (target, owner, fate)
        {
            match last.offsets.last_mut() {
                Some(before) if before.end == offsets.start => before.end = offsets.end,
                _ => last.offsets.push(offsets),
            }
            return;
        }
        self.0.push(Gathered { target, owner, fate, offsets: vec![offsets] });
    }

    /// Tells the broker, whose flush sends it on its way. Says whether there was anything.
    pub(super) fn tell(&mut self, queues: &Queues) -> bool {
        let any = !self.0.is_empty();
        for Gathered { target, owner, fate, offsets } in self.0.drain(..) {
            match fate {
                Fate::Settled => queues.settle(target, owner, offsets),
                Fate::GivenBack { counted } => queues.give_back(target, owner, offsets, counted, None),
                Fate::Rejected => queues.reject(target, owner, offsets),
            }
        }
        any
    }
}
