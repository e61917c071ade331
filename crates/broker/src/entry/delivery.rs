//! Entries of deliveries: what happens to the messages of queues.

use sabir_delivery::subscription::OperationList;
use sabir_model::{DecodeError, ShardFailure};

use super::kind;

/// Operations on the subscriptions of a shard, applied together or not at all. The body is the list in its stored form, whose version it
/// begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeliveryBody<'a>(pub(crate) OperationList<'a>);

impl<'a> DeliveryBody<'a> {
    pub(crate) const KIND: u16 = kind::DELIVERY;

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        OperationList::decode(bytes).map(Self)
    }
}

/// What a list of operations came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DeliveryOutcome {
    /// How many messages were concerned; of operations that name none, 1 if they did anything.
    pub(crate) concerned: u64,
}

/// Why a list of operations had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeliveryError {
    /// It is strict, and this operation of it, counted from 0, does not concern all that it names.
    #[error("operation {operation} of the list does not concern all that it names")]
    Refused {
        /// The operation's place in the list.
        operation: usize,
    },
    /// The shard did not take it, or gave it up.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}
