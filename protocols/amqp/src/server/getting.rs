//! A message that a client gets: the next one that can be read.

use bytes::Bytes;
use sabir_broker::queue::reader::{NextError, NextMessage};
use sabir_broker::queue::{GotMessage, QueueOwner, QueueTarget};

use super::asking::{Answer, Asker, internal, refused};
use super::deliver::undeliverable;
use super::frontend::AmqpFrontend;
use super::records::{with_returns, without_added};
use super::stored::Message;
use crate::wire::*;

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

impl Asker {
    /// Gets a message.
    pub(super) async fn get(self, wanted: WantedMessage) -> Result<Answer, Exception> {
        let &WantedMessage { target, owner, .. } = &wanted;
        let AmqpFrontend { broker, workers, .. } = &*self.amqp;
        let next = broker.next_message(&self.caller, target, owner, workers).await;
        let NextMessage { read, unreadable } = next.map_err(|error| match error {
            NextError::Queue(error) => refused(&wanted.name, error),
            NextError::Read(error) => internal(&wanted.name, &error.to_string()),
        })?;
        let Some(read) = read else { return Ok(Answer::Got { got: None, unreadable }) };
        let (message, stored) = (read.got, read.stored());
        let found = Message::of(broker, self.amqp.number(), &wanted.name, &stored);
        let mut got = Got {
            message,
            target,
            settles: wanted.settles,
            exchange: Bytes::copy_from_slice(&found.exchange),
            routing_key: Bytes::copy_from_slice(&found.routing_key),
            properties: found.properties.into_owned().into(),
            body: found.body,
        };
        got.fit(&wanted)?;
        if wanted.settles {
            broker.queues().settle(target, owner, std::iter::once(message.offset..message.offset + 1));
        }
        Ok(Answer::Got { got: Some(Box::new(got)), unreadable })
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
