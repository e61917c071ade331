//! What of a message decides where it goes.

use crate::argument::ArgumentRef;
use crate::route_set::RouteTarget;

/// What of a message decides where it goes.
#[derive(Clone, Copy)]
pub struct Publication<'a> {
    /// The routing key, dotted.
    pub key: &'a [u8],
    /// Further routing keys: the message goes where any of them leads.
    pub further_keys: &'a [&'a [u8]],
    /// Its headers and properties, which few exchanges look at.
    pub attributes: &'a dyn Attributes,
    /// What the default exchange leads to by a name that no [queue](crate::Router::add_queue) of the router has. Such routes are not cached.
    pub queues: QueueNames<'a>,
}

/// Queues by their names.
pub type QueueNames<'a> = &'a dyn Fn(&[u8]) -> Option<RouteTarget>;

/// A message's headers and properties.
pub trait Attributes {
    /// The value of the header of this name.
    fn header(&self, name: &[u8]) -> Option<ArgumentRef<'_>>;

    /// The value of a property that an exchange hashes.
    fn property(&self, property: HashedProperty) -> Option<ArgumentRef<'_>>;
}

/// A property that an exchange may hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashedProperty {
    /// Which request the message answers.
    CorrelationId,
    /// What its writer calls it.
    MessageId,
    /// When it was made.
    Timestamp,
}

/// No headers and no properties.
#[derive(Debug, Clone, Copy)]
pub struct NoAttributes;

impl Attributes for NoAttributes {
    fn header(&self, _: &[u8]) -> Option<ArgumentRef<'_>> {
        None
    }

    fn property(&self, _: HashedProperty) -> Option<ArgumentRef<'_>> {
        None
    }
}

impl<'a> Publication<'a> {
    /// What has a routing key and no more.
    pub fn keyed(key: &'a [u8]) -> Self {
        Self { key, further_keys: &[], attributes: &NoAttributes, queues: &|_| None }
    }

    /// All its routing keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::once(self.key).chain(self.further_keys.iter().copied())
    }
}
