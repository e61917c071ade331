//! Blocks that are appended and not final, and the events that no poll has taken.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
#[cfg(any(test, feature = "testing"))]
use sabir_model::NodeId;
use sabir_model::{Sequence, Term};

use crate::error::StorageError;
use crate::replicator::{Event, Ticket};

#[derive(Debug)]
struct Waiting {
    ticket: Option<Ticket>,
    sequence: Sequence,
    term: Term,
    content: Bytes,
}

/// A replicator's book-keeping; a pure machine.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    tickets: u64,
    blocks: VecDeque<Waiting>,
    events: VecDeque<Event>,
    stopped: bool,
}

impl Pending {
    /// Takes in a block that this run appended.
    pub(crate) fn push(&mut self, sequence: Sequence, term: Term, content: Bytes) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.blocks.push_back(Waiting { ticket: Some(ticket), sequence, term, content });
        ticket
    }

    /// Takes in a block of an earlier run, or of another leader, that is not known to be final.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn push_without_ticket(&mut self, sequence: Sequence, term: Term, content: Bytes) {
        self.blocks.push_back(Waiting { ticket: None, sequence, term, content });
    }

    /// Blocks that are not final.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// All blocks through `sequence` are final. Returns the last one, if that is news.
    pub(crate) fn commit(&mut self, through: Sequence) -> Option<Sequence> {
        if self.stopped {
            return None;
        }
        let mut last = None;
        while let Some(Waiting { ticket, sequence, term, content }) =
            self.blocks.pop_front_if(|block| block.sequence <= through)
        {
            last = Some(sequence);
            self.events.push_back(Event::Committed { ticket, sequence, term, content });
        }
        last
    }

    /// The blocks above `after` are gone.
    pub(crate) fn cut(&mut self, after: Sequence) {
        let kept = self.blocks.partition_point(|block| block.sequence <= after);
        let from = self.blocks.range(kept..).find_map(|block| block.ticket);
        let through = self.blocks.back().and_then(|block| block.ticket);
        self.blocks.truncate(kept);
        let cut = from.zip(through).map(|(from, through)| Event::Cut { from, through });
        self.events.extend(cut);
    }

    /// Nothing will be final any more. Returns whether that is news.
    pub(crate) fn stop(&mut self, error: Arc<StorageError>) -> bool {
        if self.stopped {
            return false;
        }
        self.stopped = true;
        self.blocks.clear();
        self.events.push_back(Event::Stopped(error));
        true
    }

    /// This node leads from now on.
    pub(crate) fn lead(&mut self, term: Term) {
        self.events.push_back(Event::Leading { term });
    }

    /// Another node leads from now on, or none.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn follow(&mut self, leader: Option<NodeId>) {
        self.events.push_back(Event::Following { leader });
    }

    /// Hands the events out.
    pub(crate) fn poll(&mut self, out: &mut Vec<Event>) {
        out.extend(self.events.drain(..));
    }
}
