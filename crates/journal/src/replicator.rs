//! The seam between a shard and whatever makes its blocks final.
//!
//! ```text
//!            committed()          last appended
//!                 │                    │
//!   ──┬──┬──┬──┬──▼──┬─────┬─────┬─────▼
//!     │ final,     │ appended: may be cut; not readable      
//!     │ readable   │
//!   ──┴──┴──┴──┴─────┴─────┴─────┴─────
//!                  └── cut(after) ──► Event::Cut{from, through}, then new blocks in a higher term
//! ```
//!
//! What every implementation keeps, and the conformance suite checks:
//!
//! 1. **Order.** Blocks commit in the order of `append`, each once, with sequences that run on from the last committed one
//!    without a gap. Terms never fall.
//! 2. **Final.** What an [`Event::Committed`] has named is never cut, changes no more, and is found by the next start.
//! 3. **Hidden.** What is not committed cannot be read, and no event shows it.
//! 4. **Every ticket ends**: in its `Committed`, in a [`Event::Cut`] around it, or in [`Event::Stopped`].
//! 5. **Durable as asked.** A block whose durability is `Sync` commits only when a flush covers it and everything before it.
//! 6. **Once stopped, stopped.** After `Stopped` nothing commits and `append` fails; reads of what is committed go on.
//! 7. **No lost wake-up.** When `advance` could move something, the event descriptor or the waker says so.
//! 8. **Leadership is told.** [`Event::Leading`] comes when `append` is taken from now on, at a start too, and [`Event::Following`] when it is
//!    not any more; the two take turns. What was committed before this node led comes before or after it, as it may.

use std::os::fd::RawFd;
use std::sync::Arc;

use bytes::Bytes;
use sabir_model::{NodeId, Sequence, Term};

use crate::block::Block;
use crate::disk::WakeFn;
use crate::error::{BlockAppendError, CutError, StorageError};

/// The number of an append since the start; grows by one with each, and stays one's own when the block is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Whether an entry may use the space kept in reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// No: it is refused while the disk is full.
    Ordinary,
    /// Yes, as far as it leaves what deletes need: what groups commit, of positions and members, which adds to what a checkpoint writes and makes no
    /// space.
    Commit,
    /// Yes, as far as a segment is left for deletes: records that are copied, and let go of where they were by the same entry.
    Copy,
    /// Yes: acknowledgements, deletes, moves and votes, which make space or must go on.
    Reserve,
}

/// What happened to the blocks, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// A block is final.
    Committed {
        /// Its ticket, where this run of this node appended it.
        ticket: Option<Ticket>,
        /// Its place.
        sequence: Sequence,
        /// The term it was appended in.
        term: Term,
        /// Its content: a slice of the tail cache's buffer.
        content: Bytes,
    },
    /// The uncommitted blocks of these tickets are gone; those of tickets given later are not.
    Cut {
        /// The first ticket that was cut.
        from: Ticket,
        /// The last one.
        through: Ticket,
    },
    /// This node leads.
    Leading {
        /// The term that its first append will carry, unless a cut has raised it by then.
        term: Term,
    },
    /// This node does not lead any more.
    Following {
        /// The node that leads now, if that is known.
        leader: Option<NodeId>,
    },
    /// Nothing will commit any more; the last event.
    Stopped(Arc<StorageError>),
}

/// Makes blocks final; see the [module](self) for the invariants.
pub trait Replicator: Send + Sync + 'static {
    /// Appends a block; the order of calls is the order of commit. It is submitted to the disk at once and its sequence is
    /// not known yet. From any thread.
    ///
    /// # Errors
    /// See [`BlockAppendError`]: nothing was written. A block of an earlier time than the last one of another leader was closed before this node
    /// led: it is [`NotLeader`](BlockAppendError::NotLeader), for the time of blocks never falls.
    fn append(&self, block: Block) -> Result<Ticket, BlockAppendError>;

    /// Whether entries of this priority may be pushed now. One atomic load; asked before each push.
    fn admits(&self, priority: Priority) -> bool;

    /// The group commit rule: nothing in flight, or fewer than eight and 64 KiB or more (`open_bytes`) waiting.
    fn ready(&self, open_bytes: usize) -> bool;

    /// Takes what the disk has completed and moves `committed`. From any thread; if another thread is at it, that one does it again
    /// and this call returns at once.
    fn advance(&self);

    /// Appends the events since the last call to `out`, each once. Called under the lock that orders `apply`.
    fn poll(&self, out: &mut Vec<Event>);

    /// Does what is due by time: the idle seal, the flush of an `os` run. `now_ms` is a clock that never falls, in
    /// milliseconds; to be called every 50 ms or so, from any thread. Starts writes, waits for none.
    fn tick(&self, now_ms: u64);

    /// The last final block.
    fn committed(&self) -> Sequence;

    /// The term that the next append will carry.
    fn term(&self) -> Term;

    /// Whether this node leads, so that `append` is taken.
    fn is_leader(&self) -> bool;

    /// Drains the writes in flight and drops every block above `after`; their tickets end in an [`Event::Cut`]. Blocking.
    ///
    /// # Errors
    /// See [`CutError`].
    fn cut(&self, after: Sequence) -> Result<(), CutError>;

    /// Readable when there is something to `advance`; the thread that watches it calls `advance`, then `poll`. The waker may be
    /// called all the same: watch both.
    fn event_fd(&self) -> Option<RawFd>;

    /// Sets what is called when there is something to `advance` or to `poll` that the event descriptor does not show.
    fn set_waker(&self, wake: WakeFn);
}
