//! A message that a client gets: the next one that can be read.

use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_broker::queue::reader::{NextError, NextMessage};
use sabir_broker::queue::{GotMessage, QueueOwner, QueueTarget};

use super::asking::{Answer, Asker, internal, refused};
use super::deliver::undeliverable;
use super::records::{with_returns, without_added};
use super::stored::Message;
use crate::wire::*;

/// What a client wants a message of, and how.
pub(super) struct WantedMessage {
    pub(super) name: String,
    /// The queue; of a topic what the subscription has of each partition, in the order in which they are asked.
    pub(super) targets: Vec<QueueTarget>,
    pub(super) owner: QueueOwner,
    /// Whether it is settled as it is sent.
    pub(super) settles: bool,
    /// Whether it says how often it was given back.
    pub(super) says_returns: bool,
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
    /// Whether the body holds memory of the node's.
    pub(super) is_held: bool,
}

/// How long a message is looked for in partitions, one after the other: what cannot be read takes long in each.
const LONGEST: Duration = Duration::from_secs(2);

impl Asker {
    /// Gets a message.
    pub(super) async fn get(self, wanted: WantedMessage) -> Result<Answer, Exception> {
        let WantedMessage { targets, owner, .. } = &wanted;
        let (broker, mut unreadable) = (&self.amqp.broker, Vec::new());
        let (mut found, began) = (None, Instant::now());
        for target in targets.iter().take_while(|_| began.elapsed() < LONGEST) {
            let next = self.next(&wanted.name, *target, *owner).await?;
            unreadable.extend(next.unreadable);
            if let Some(read) = next.read {
                found = Some((*target, read));
                break;
            }
        }
        let Some((target, read)) = found else { return Ok(Answer::Got { got: None, unreadable }) };
        let (mut message, stored) = (read.got, read.stored());
        let others = targets.iter().filter(|other| **other != target);
        message.left +=
            others.filter_map(|other| Some(broker.queues().stats(*other).ok()?.ready)).sum::<u64>();
        let found = Message::of(broker, self.amqp.number(), &wanted.name, &stored);
        let mut got = Got {
            message,
            target,
            settles: wanted.settles,
            exchange: Bytes::copy_from_slice(&found.exchange),
            routing_key: Bytes::copy_from_slice(&found.routing_key),
            properties: found.properties.into_owned().into(),
            body: found.body,
            is_held: found.is_held,
        };
        got.fit(&wanted)?;
        if wanted.settles {
            broker.queues().settle(target, *owner, std::iter::once(message.offset..message.offset + 1));
        }
        Ok(Answer::Got { got: Some(Box::new(got)), unreadable })
    }

    async fn next(
        &self,
        name: &str,
        target: QueueTarget,
        owner: QueueOwner,
    ) -> Result<NextMessage, Exception> {
        let next = self.amqp.broker.next_message(&self.caller, target, owner, &self.workers).await;
        next.map_err(|refusal| match refusal.error {
            NextError::Queue(error) => refused(name, error),
            NextError::Read(error) => internal(name, &error.to_string()).into(),
        })
    }
}

impl Got {
    /// Adds what is counted, and leaves out what was added where it does not fit the connection's frames.
    fn fit(&mut self, wanted: &WantedMessage) -> Result<(), ChannelException> {
        let returned = if wanted.says_returns { self.message.returned } else { 0 };
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
