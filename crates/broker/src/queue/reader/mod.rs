//! Reading a queue's messages by their offsets, which is how [`Push::Deliver`](crate::push::Push::Deliver) and [`Queues::get`](super::Queues::get) name them.
//!
//! [`QueueReader::find`] says what there is at an offset, of what was read. Where that is not known yet [`QueueReader::poll_load`] reads on, or has a batch
//! unpacked that takes long. A message that cannot be read is put off ([`MessagesPutOff`]): those behind it go, and it is given back after a while.

mod batches;
mod missing;
mod next;
mod put_off;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sabir_model::{Offset, ReadError};

use self::batches::{Batches, LIMITS, Look, Lost};
use self::missing::{Missing, read, read_blocking};
use super::QueueTarget;
use crate::broker::Broker;
use crate::read::{Fetched, ReadGrant, ReadTarget};
use crate::shard::Shard;

pub use self::batches::{PackedBatch, StoredMessage, UnpackedBatch};
pub use self::next::{NextError, NextMessage, ReadMessage};
pub use self::put_off::{MessagesPutOff, UnreadableMessages};

/// Bytes read at a time: for so many a message, within these bounds.
const READ_EACH: u64 = 2048;
const READ_LEAST: u64 = 16 << 10;
const READ_MOST: u64 = 256 << 10;

/// What there is at an offset.
#[derive(Debug)]
pub enum Found<'a> {
    /// A message.
    Message(StoredMessage<'a>),
    /// None any more: the consumer that has it settles it.
    Gone,
    /// One that cannot be read: it is damaged, or the disk errs.
    Unreadable {
        /// The offset behind all that cannot be read as it cannot.
        end: u64,
        /// Why.
        error: ReadError,
    },
    /// That is not known: it is to be loaded.
    Unread,
}

/// A batch that is being unpacked; none of one that is damaged.
pub type Unpacking = Pin<Box<dyn Future<Output = Option<UnpackedBatch>> + Send>>;

/// Unpacks batches where that keeps no I/O thread.
pub trait Unpack {
    /// Has a batch unpacked.
    fn unpack(&self, batch: PackedBatch) -> Unpacking;
}

/// What is loaded.
enum Loaded {
    Read(Result<Fetched, Missing>),
    /// A batch that is to be unpacked, read anew.
    Packed(Result<Packed, Missing>),
    Unpacked(Packed, Option<UnpackedBatch>),
}

/// A batch that is to be unpacked, as it was read, and memory for what becomes of it.
struct Packed {
    batches: Box<Batches>,
    limit: usize,
    grant: Option<Box<dyn ReadGrant>>,
}

type Load = Pin<Box<dyn Future<Output = Loaded> + Send>>;

/// What is being loaded, from where on.
struct Loading {
    from: u64,
    work: Load,
}

/// Messages of a queue as they are read: a batch at a time is unpacked.
pub struct QueueReader {
    target: ReadTarget,
    batches: Batches,
    loading: Option<Loading>,
    /// The record that was found last.
    found: usize,
}

impl fmt::Debug for QueueReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueReader").field("target", &self.target).finish_non_exhaustive()
    }
}

impl QueueReader {
    /// One of a queue's messages; nothing is read yet.
    pub fn new(queue: QueueTarget) -> Self {
        Self::of(queue.read_target())
    }

    pub(crate) fn of(target: ReadTarget) -> Self {
        Self { target, batches: Batches::default(), loading: None, found: 0 }
    }

    /// Bytes that it has unpacked and that hold no memory of the node's.
    pub fn held_bytes(&self) -> usize {
        self.batches.unpacked()
    }

    /// Bytes that it has read and that hold no memory of the node's.
    pub fn read_bytes(&self) -> usize {
        self.batches.read()
    }

    /// Lets go of what it has: it is read again when it is wanted. What is being loaded is.
    pub fn let_go(&mut self) {
        self.batches = Batches::default();
    }

    /// Whether it has memory of the node's, or asks for some.
    pub fn holds_memory(&self) -> bool {
        self.loading.is_some() || self.batches.holds_memory()
    }

    /// What there is at an offset. That a message cannot be read is said once: then it is read anew. Damage is counted and logged.
    pub fn find(&mut self, broker: &Broker, offset: u64) -> Found<'_> {
        let look = self.batches.look(offset);
        self.found(look, |target, error| broker.damaged(target, offset_of(offset), error))
    }

    fn found(&mut self, look: Look, tell: impl FnOnce(ReadTarget, ReadError)) -> Found<'_> {
        match look {
            Look::Record(number) => {
                self.found = number;
                Found::Message(self.last_found())
            }
            Look::Gone => Found::Gone,
            Look::Unreadable(Lost { end, error, is_noted }) => {
                if !is_noted {
                    tell(self.target, error);
                }
                Found::Unreadable { end, error }
            }
            Look::Unread | Look::Packed => Found::Unread,
        }
    }

    fn last_found(&self) -> StoredMessage<'_> {
        self.batches.record(self.found)
    }

    /// Loads what is wanted next, from the first of these offsets on, which was [`Found::Unread`]. What is loaded meanwhile of others is dropped. Where it is
    /// large it waits for memory of the node's, and is to be the only one of its caller's readers that [has some](Self::holds_memory).
    ///
    /// # Errors
    /// No message of the queue can be read.
    pub fn poll_load(
        &mut self,
        broker: &Broker,
        unpack: &dyn Unpack,
        offsets: Range<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReadError>> {
        let bytes = bytes_of(&offsets);
        self.poll_load_bytes(broker, unpack, offsets, bytes, cx)
    }

    fn poll_load_bytes(
        &mut self,
        broker: &Broker,
        unpack: &dyn Unpack,
        offsets: Range<u64>,
        bytes: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ReadError>> {
        let from = offsets.start;
        if self.loading.as_ref().is_none_or(|loading| loading.from != from) {
            let packed = self.batches.packed().filter(|_| self.batches.packed_from() <= from);
            let work = match packed {
                None => self.load(broker, from, bytes),
                Some(packed) => self.load_packed(broker, from, packed.len(), LIMITS[0]),
            };
            self.loading = Some(Loading { from, work });
            // It may wait for memory, and others for what it has.
            if self.batches.holds_memory() {
                self.batches = Batches::default();
            }
        }
        loop {
            let Some(loading) = &mut self.loading else { return Poll::Ready(Ok(())) };
            let loaded = ready!(loading.work.as_mut().poll(cx));
            self.loading = None;
            let work = match self.loaded(broker, unpack, offsets.clone(), loaded) {
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
                Ok(Some(work)) => work,
            };
            self.loading = Some(Loading { from, work });
        }
    }

    fn load(&self, broker: &Broker, from: u64, bytes: usize) -> Load {
        let (broker, target) = (broker.clone(), self.target);
        Box::pin(async move { Loaded::Read(read(&broker, target, from, bytes, None).await) })
    }

    /// Reads a batch of so many bytes, with memory for what it is unpacked to within a limit: it has none of either while it waits for that.
    fn load_packed(&self, broker: &Broker, from: u64, packed: usize, limit: usize) -> Load {
        let (broker, target) = (broker.clone(), self.target);
        Box::pin(async move {
            let mut grant = broker.hold_memory(packed.saturating_add(limit)).await;
            let own = grant.as_mut().map(|grant| grant.split_off(packed));
            let read = read(&broker, target, from, 1, own).await;
            Loaded::Packed(read.map(|fetched| {
                let mut batches = Box::<Batches>::default();
                batches.take(from, fetched);
                Packed { batches, limit, grant }
            }))
        })
    }

    /// Takes what was loaded, or gives what is to be done with it.
    fn loaded(
        &mut self,
        broker: &Broker,
        unpack: &dyn Unpack,
        offsets: Range<u64>,
        loaded: Loaded,
    ) -> Result<Option<Load>, ReadError> {
        let from = offsets.start;
        match loaded {
            Loaded::Read(read) => self.put_read(offsets, read)?,
            Loaded::Packed(Err(missing)) => self.batches.miss(offsets, missing)?,
            Loaded::Packed(Ok(mut packed)) => {
                let batch = match packed.batches.look(from) {
                    Look::Packed => packed.batches.packed(),
                    _ => None,
                };
                if let Some(batch) = batch {
                    let unpacking = unpack.unpack(batch.within(packed.limit));
                    return Ok(Some(Box::pin(async move { Loaded::Unpacked(packed, unpacking.await) })));
                }
                self.batches = *packed.batches;
            }
            Loaded::Unpacked(packed, Some(unpacked)) if unpacked.is_too_large() => {
                let len = packed.batches.packed().map_or(0, |batch| batch.len());
                let next = LIMITS.into_iter().find(|limit| *limit > packed.limit);
                return Ok(Some(self.load_packed(broker, from, len, next.unwrap_or(packed.limit))));
            }
            Loaded::Unpacked(Packed { mut batches, grant, .. }, unpacked) => {
                let held = |unpacked: UnpackedBatch| match grant {
                    Some(grant) => unpacked.held(grant),
                    None => unpacked,
                };
                batches.put_unpacked(unpacked.map(held));
                self.batches = *batches;
            }
        }
        Ok(None)
    }

    fn put_read(&mut self, offsets: Range<u64>, read: Result<Fetched, Missing>) -> Result<(), ReadError> {
        match read {
            Ok(fetched) => {
                self.batches.take(offsets.start, fetched);
                Ok(())
            }
            Err(missing) => self.batches.miss(offsets, missing),
        }
    }

    /// What there is at an offset, loaded if it must be. No further messages are read with it than those of its batch.
    ///
    /// # Errors
    /// No message of the queue can be read.
    pub async fn read_one(
        &mut self,
        broker: &Broker,
        unpack: &(dyn Unpack + Sync),
        offset: u64,
    ) -> Result<Found<'_>, ReadError> {
        let look = loop {
            match self.batches.look(offset) {
                Look::Unread | Look::Packed => {}
                look => break look,
            }
            poll_fn(|cx| self.poll_load_bytes(broker, unpack, offset..offset + 1, 1, cx)).await?;
        };
        Ok(self.found(look, |target, error| broker.damaged(target, offset_of(offset), error)))
    }

    /// What there is at the first of these offsets, which are of a shard's queue: read and unpacked here. Blocking.
    ///
    /// # Errors
    /// Nothing of the shard can be read now, or the queue is gone.
    pub(crate) fn find_blocking(
        &mut self,
        shard: &Shard,
        offsets: Range<u64>,
    ) -> Result<Found<'_>, ReadError> {
        let look = loop {
            match self.batches.look(offsets.start) {
                Look::Unread => {
                    let read = read_blocking(shard, self.target, offsets.start, bytes_of(&offsets))?;
                    self.put_read(offsets.clone(), read)?;
                }
                Look::Packed => {
                    let unpacked = self.batches.packed().and_then(|batch| batch.unpack());
                    self.batches.put_unpacked(unpacked);
                }
                look => break look,
            }
        };
        Ok(self.found(look, |target, error| {
            shard.damaged(target.partition, offset_of(offsets.start), error);
        }))
    }
}

/// Bytes to read for messages.
fn bytes_of(offsets: &Range<u64>) -> usize {
    let count = offsets.end.saturating_sub(offsets.start);
    count.saturating_mul(READ_EACH).clamp(READ_LEAST, READ_MOST) as usize
}

fn at(offset: Offset) -> u64 {
    u64::try_from(offset.0).expect("offsets count from 0")
}

fn offset_of(at: u64) -> Offset {
    Offset(i64::try_from(at).expect("offsets count from 0"))
}
