//! A message that a client gets: the next one that can be read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_broker::queue::{GotMessage, QueueOwner, QueueTarget};

use super::asking::{Answer, Asker, internal, refused};
use super::deliver::undeliverable;
use super::put_off::UnreadableMessages;
use super::records::{with_returns, without_added};
use super::stored::{Found, Reader, Unread, read, unpack};
use crate::wire::*;

/// Messages that one request passes over since they cannot be read. Behind so many it finds none, and the next request goes on.
const MOST_PASSED: u64 = 4096;
/// The same of the time that this takes: each is taken by an entry.
const LONGEST: Duration = Duration::from_secs(2);

/// What a client wants a message of, and how.
pub(super) struct WantedMessage {
    pub(super) name: String,
    pub(super) target: QueueTarget,
    pub(super) owner: QueueOwner,
    /// Whether it is settled as it is sent.
    pub(super) settles: bool,
    pub(super) is_quorum: bool,
    pub(super) frame_max: u32,
}

/// A message that was got.
pub(super) struct Got {
    pub(super) message: GotMessage,
    pub(super) target: QueueTarget,
    pub(super) settles: bool,
    pub(super) exchange: Bytes,
    pub(super) routing_key: Bytes,
    pub(super) properties: Bytes,
    pub(super) body: Bytes,
}

/// What could not be read so far.
#[derive(Default)]
struct Passed {
    count: u64,
    /// Up to where all cannot be read, from the last message on that was tried.
    until: u64,
    unreadable: Vec<UnreadableMessages>,
}

impl Passed {
    fn add(&mut self, wanted: &WantedMessage, at: u64, until: u64) {
        let &WantedMessage { target, owner, .. } = wanted;
        self.count += 1;
        self.until = until;
        let message = UnreadableMessages { target, owner, offsets: at..at + 1 };
        if !self.unreadable.last_mut().is_some_and(|last| last.join(&message)) {
            self.unreadable.push(message);
        }
    }

    /// Up to where what is at an offset cannot be read, if that is known.
    fn known(&self, at: u64) -> Option<u64> {
        let last = self.unreadable.last()?;
        (last.offsets.end..self.until).contains(&at).then_some(self.until)
    }
}

/// What became of a message.
enum Tried {
    Got(Box<Got>),
    Gone,
    /// Nor can be read what lies before this offset.
    Unreadable(u64),
}

impl Asker {
    /// Gets a message.
    pub(super) async fn get(self, wanted: WantedMessage) -> Result<Answer, Exception> {
        let queues = self.amqp.broker.queues();
        let (mut passed, began) = (Passed::default(), Instant::now());
        while passed.count < MOST_PASSED && began.elapsed() < LONGEST {
            // What is settled is not read any more: that comes last.
            let getting = queues.get(&self.caller, wanted.target, wanted.owner, false);
            self.amqp.broker.flush();
            let Some(message) = getting.await.map_err(|error| refused(&wanted.name, error))? else { break };
            let at = message.offset;
            let tried = match passed.known(at) {
                Some(until) => Tried::Unreadable(until),
                None => self.try_to_read(&wanted, message).await?,
            };
            let got = match tried {
                // The next one may be whole.
                Tried::Unreadable(until) => {
                    passed.add(&wanted, at, until);
                    continue;
                }
                Tried::Got(got) => Some(got),
                Tried::Gone => None,
            };
            if wanted.settles || got.is_none() {
                queues.settle(wanted.target, wanted.owner, std::iter::once(at..at + 1));
            }
            if got.is_some() {
                return Ok(Answer::Got { got, unreadable: passed.unreadable });
            }
        }
        Ok(Answer::Got { got: None, unreadable: passed.unreadable })
    }

    async fn try_to_read(&self, wanted: &WantedMessage, message: GotMessage) -> Result<Tried, Exception> {
        let (broker, own, at) = (&self.amqp.broker, self.amqp.number(), message.offset);
        let fetched = match read(broker, wanted.target, at, 1).await {
            Ok(fetched) => fetched,
            Err(Unread::Gone { .. }) => return Ok(Tried::Gone),
            Err(Unread::Unreadable { end, .. }) => return Ok(Tried::Unreadable(end)),
            Err(Unread::Failed(error)) => return Err(internal(&wanted.name, &error.to_string())),
        };
        let mut reader = Reader::new(&wanted.name);
        reader.take(at, fetched);
        if let Found::Packed(batch) = reader.find(broker, own, at) {
            reader.put_unpacked(unpack(self.amqp.workers.clone(), batch).await);
        }
        let found = match reader.find(broker, own, at) {
            Found::Message(found) => found,
            Found::Gone => return Ok(Tried::Gone),
            Found::Unreadable | Found::Unread | Found::Packed(_) => return Ok(Tried::Unreadable(at + 1)),
        };
        let mut got = Got {
            message,
            target: wanted.target,
            settles: wanted.settles,
            exchange: Bytes::copy_from_slice(&found.exchange),
            routing_key: Bytes::copy_from_slice(&found.routing_key),
            properties: Bytes::copy_from_slice(found.properties),
            body: found.body,
        };
        got.fit(wanted)?;
        Ok(Tried::Got(Box::new(got)))
    }
}

impl Got {
    /// Adds what is counted, and leaves out what was added where it does not fit the connection's frames.
    fn fit(&mut self, wanted: &WantedMessage) -> Result<(), Exception> {
        let returned = if wanted.is_quorum { self.message.returned } else { 0 };
        if let Some(counted) = with_returns(&self.properties, returned) {
            self.properties = counted;
        }
        if !header_fits(self.properties.len(), wanted.frame_max) {
            self.properties = without_added(&self.properties);
        }
        // It is given back as its channel fails.
        let fits = header_fits(self.properties.len(), wanted.frame_max);
        if fits { Ok(()) } else { Err(undeliverable(&wanted.name, wanted.frame_max)) }
    }
}
