//! Delayed messages before their time: an operator has them counted by exchange, or dropped; a front end calls one back.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use sabir_model::{Offset, PartitionId, ReadError, ShardFailure, ShardId};

use super::driver::TimerDriver;
use super::kept::{KeptQueue, Looked};
use crate::broker::Broker;
use crate::caller::Caller;
use crate::catalog::Topic;
use crate::entry::DeliveryError;
use crate::queue::QueueError;

/// Exchanges that are counted apart in one answer.
const EXCHANGES: usize = 10_000;
/// How long an entry that drops messages is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages that an exchange keeps back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayedMessages {
    /// The exchange's name; those that had it before are counted with it until what they kept back is dropped.
    pub exchange: String,
    /// How many.
    pub messages: u64,
    /// When the first of them is due, in milliseconds.
    pub earliest_ms: i64,
    /// When the last of them is due, in milliseconds.
    pub latest_ms: i64,
}

/// Where it is gone on with what one call did not come to. Its text is of no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayedPosition {
    partition: PartitionId,
    offset: u64,
}

/// Delayed messages, as far as one call came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayedPart {
    /// By exchange, in the order of their names.
    pub exchanges: Vec<DelayedMessages>,
    /// How many messages were dropped.
    pub dropped: u64,
    /// Where the next call goes on; nothing when there is no more.
    pub next: Option<DelayedPosition>,
}

/// Why delayed messages are neither counted nor dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelayedRefused {
    /// A client asked.
    #[error("only an operator looks at delayed messages and drops them")]
    NotOperator,
    /// They cannot be read.
    #[error("delayed messages cannot be read: {0}")]
    Read(#[from] ReadError),
    /// Their shard takes no entries.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}

/// What became of a message that was to be called back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecallOutcome {
    /// It was pending, and does not fire. What lies in other shards may have it, if its time had just come.
    Recalled,
    /// It is not pending: it has fired, was recalled before or dropped, or was never there.
    NotPending,
}

impl Broker {
    /// Counts the delayed messages of the caller's namespace by exchange, those of one exchange or all, behind a position. It ends after about so long,
    /// with the position to go on from. What cannot be read is not counted. Blocking.
    ///
    /// # Errors
    /// See [`DelayedRefused`].
    pub fn delayed(
        &self,
        caller: &Caller,
        exchange: Option<&str>,
        after: Option<DelayedPosition>,
        within: Duration,
    ) -> Result<DelayedPart, DelayedRefused> {
        let mut found: BTreeMap<String, DelayedMessages> = BTreeMap::new();
        let mut part = self.each_kept(caller, after, within, |timers, queue, messages| {
            let looked = timers.look_through(queue, messages, |_, address, due_ms| {
                if exchange.is_none_or(|wanted| wanted == address.exchange) {
                    count(&mut found, address.exchange, due_ms);
                }
                false
            })?;
            Ok((looked.next, 0))
        })?;
        part.exchanges = found.into_values().collect();
        Ok(part)
    }

    /// Drops the delayed messages of the caller's namespace, those of one exchange, or all, those too that cannot be read; as
    /// [`delayed`](Self::delayed) counts them. Blocking.
    ///
    /// # Errors
    /// See [`DelayedRefused`]. What was dropped before stays dropped.
    pub fn drop_delayed(
        &self,
        caller: &Caller,
        exchange: Option<&str>,
        after: Option<DelayedPosition>,
        within: Duration,
    ) -> Result<DelayedPart, DelayedRefused> {
        self.each_kept(caller, after, within, |timers, queue, messages| {
            let looked = match exchange {
                Some(wanted) => {
                    timers.look_through(queue, messages, |_, address, _| address.exchange == wanted)?
                }
                None => queue.look(messages),
            };
            Ok((looked.next, settled(queue, &looked)?))
        })
    }

    fn each_kept(
        &self,
        caller: &Caller,
        after: Option<DelayedPosition>,
        within: Duration,
        mut each: impl FnMut(&TimerDriver, &KeptQueue, Range<u64>) -> Result<(u64, u64), DelayedRefused>,
    ) -> Result<DelayedPart, DelayedRefused> {
        caller.may_drop_delayed()?;
        let (timers, began) = (&self.inner.timers, Instant::now());
        let mut part = DelayedPart { exchanges: Vec::new(), dropped: 0, next: after };
        loop {
            let Some((queue, messages)) = timers.next_kept(caller, part.next) else {
                part.next = None;
                return Ok(part);
            };
            let (next, dropped) = each(timers, &queue, messages)?;
            part.dropped += dropped;
            part.next = Some(DelayedPosition { partition: queue.partition, offset: next });
            if began.elapsed() >= within {
                return Ok(part);
            }
        }
    }

    /// Calls a delayed message back that the caller's front end has appended to a queue of its own which delays: it goes nowhere. So it does on a full
    /// disk.
    ///
    /// # Errors
    /// The topic is not there for the caller, is no queue that delays, or another front end's; its shard takes no entries.
    pub async fn recall(
        &self,
        caller: &Caller,
        queue: &Arc<Topic>,
        partition: i32,
        offset: Offset,
    ) -> Result<RecallOutcome, QueueError> {
        let is_its = caller.by().and_then(|name| self.front_end_number(name)) == Some(queue.made_by);
        if !caller.sees(queue) {
            return Err(QueueError::Unknown);
        }
        if !is_its {
            return Err(QueueError::Internal);
        }
        if !queue.config.queue().is_some_and(|queue| queue.delays) {
            return Err(QueueError::NotAQueue);
        }
        let of = queue.partition(partition).ok_or(QueueError::Unknown)?;
        let shard = self.inner.definitions.shard_of(of).ok_or(QueueError::Unknown)?.clone();
        let Ok(offset) = u64::try_from(offset.0) else { return Ok(RecallOutcome::NotPending) };
        let kept = KeptQueue { topic: queue.clone(), partition: of.id, shard };
        let (tell, told) = tokio::sync::oneshot::channel();
        let message = offset..offset.saturating_add(1);
        kept.settle(std::slice::from_ref(&message), move |outcome| {
            let _ = tell.send(outcome);
        })?;
        match told.await.map_err(|_| ShardFailure::StorageError)? {
            Ok(0) => Ok(RecallOutcome::NotPending),
            Ok(_) => Ok(RecallOutcome::Recalled),
            Err(DeliveryError::Shard(failure)) => Err(failure.into()),
            Err(_) => Ok(RecallOutcome::NotPending),
        }
    }
}

/// Settles what was meant; tells how many that were.
fn settled(queue: &KeptQueue, looked: &Looked) -> Result<u64, DelayedRefused> {
    if looked.meant.is_empty() {
        return Ok(0);
    }
    let (tell, told) = sync_channel(1);
    queue.settle(&looked.meant, move |outcome| {
        let _ = tell.try_send(outcome);
    })?;
    match told.recv_timeout(PATIENCE) {
        Ok(Ok(settled)) => Ok(settled),
        Ok(Err(DeliveryError::Shard(failure))) => Err(failure.into()),
        // The queue went meanwhile.
        Ok(Err(_)) => Ok(0),
        Err(_) => Err(ShardFailure::Timeout.into()),
    }
}

fn count(found: &mut BTreeMap<String, DelayedMessages>, exchange: &str, due_ms: i64) {
    if let Some(there) = found.get_mut(exchange) {
        there.messages += 1;
        there.earliest_ms = there.earliest_ms.min(due_ms);
        there.latest_ms = there.latest_ms.max(due_ms);
    } else if found.len() < EXCHANGES {
        let exchange = exchange.to_owned();
        let first = DelayedMessages { exchange, messages: 1, earliest_ms: due_ms, latest_ms: due_ms };
        found.insert(first.exchange.clone(), first);
    }
}

impl TimerDriver {
    /// The queue of the caller's namespace that it is gone on in behind a position, and which of its messages.
    fn next_kept(&self, caller: &Caller, after: Option<DelayedPosition>) -> Option<(KeptQueue, Range<u64>)> {
        let mut queues = self.kept_queues();
        queues.retain(|queue| *queue.topic.namespace == *caller.namespace().as_str());
        queues.sort_unstable_by_key(|queue| queue.partition);
        queues.into_iter().find_map(|queue| {
            let mut messages = queue.offsets();
            if let Some(after) = after {
                if queue.partition < after.partition {
                    return None;
                }
                if queue.partition == after.partition {
                    messages.start = messages.start.max(after.offset);
                }
            }
            (messages.start < messages.end).then_some((queue, messages))
        })
    }

    /// How many messages are kept back in each shard that is led here, where there are any.
    pub(crate) fn kept(&self) -> BTreeMap<ShardId, u64> {
        let mut kept = BTreeMap::new();
        // No queue has to be looked for where no timer was ever set.
        if self.shards.iter().any(|shard| shard.state.read().timers.timers().is_some()) {
            for queue in self.kept_queues() {
                let messages = queue.shard.state.read().subscriptions.backlog(queue.partition).messages;
                *kept.entry(queue.shard.id).or_default() += messages;
            }
        }
        kept
    }
}

impl fmt::Display for DelayedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition.0, self.offset)
    }
}

/// It is no text of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no place to go on from")]
pub struct BadDelayedPosition;

impl FromStr for DelayedPosition {
    type Err = BadDelayedPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (partition, offset) = text.split_once('-').ok_or(BadDelayedPosition)?;
        let number = |text: &str| text.parse().map_err(|_| BadDelayedPosition);
        Ok(Self { partition: PartitionId(number(partition)?), offset: number(offset)? })
    }
}
