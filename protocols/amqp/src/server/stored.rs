//! Messages as they are sent to a client, of what is stored.

use std::borrow::Cow;

use bytes::Bytes;
use sabir_broker::Broker;
use sabir_broker::queue::reader::StoredMessage;
use sabir_model::FrontendNo;

use super::records::Envelope;
use crate::converter;
use crate::wire::*;

/// A message that was read.
pub(super) struct Message<'a> {
    pub(super) exchange: ShortBytes<'a>,
    pub(super) routing_key: ShortBytes<'a>,
    pub(super) properties: Cow<'a, [u8]>,
    pub(super) body: Bytes,
    /// Whether the body holds memory of the node's.
    pub(super) is_held: bool,
}

impl<'a> Message<'a> {
    /// What is stored in a queue; `own` is this front end's number. One that another protocol wrote was sent to the queue by its name.
    pub(super) fn of(broker: &Broker, own: FrontendNo, queue: &'a str, stored: &StoredMessage<'a>) -> Self {
        let envelope = (stored.origin == own).then(|| Envelope::bytes_of(&stored.record)).flatten();
        if let Some(envelope) = envelope.and_then(Envelope::take) {
            let Envelope { exchange, routing_key, properties } = envelope;
            let body = stored.value().unwrap_or_default();
            let (properties, is_held) = (Cow::Borrowed(properties), stored.is_held);
            return Self { exchange, routing_key, properties, body, is_held };
        }
        let message = stored.to_message(broker);
        Self {
            exchange: ShortBytes::default(),
            routing_key: ShortBytes::cut(queue),
            properties: Cow::Owned(converter::properties(&message, broker.wall_ms()).into()),
            is_held: stored.is_held && is_slice(message.body.as_ref(), stored.record.value),
            body: message.body.unwrap_or_default(),
        }
    }
}

/// Whether a body lies where the value does.
fn is_slice(body: Option<&Bytes>, value: Option<&[u8]>) -> bool {
    body.zip(value).is_some_and(|(body, value)| body.as_ptr() == value.as_ptr())
}
