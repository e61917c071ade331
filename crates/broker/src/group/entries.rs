//! The kinds of the groups' entries. Their bodies are [`sabir_delivery::group::entries`].

use sabir_delivery::group::entries::{GroupChanged, GroupDeleted, OffsetsCommitted, OffsetsDeleted};
use sabir_model::{DecodeError, GroupError};

use crate::entry::Body;

/// Whether entries of this kind leave less than was there; the others add to it.
pub(crate) fn makes_space(kind: u16) -> bool {
    [GroupDeleted::KIND, OffsetsDeleted::KIND].contains(&kind)
}

/// Declares the kinds of bodies.
macro_rules! bodies {
    ($($(#[$doc:meta])* $body:ident = $kind:literal;)+) => {$(
        $(#[$doc])*
        impl Body for $body {
            const KIND: u16 = $kind;
            type Outcome = Result<(), GroupError>;

            fn encode(&self, out: &mut Vec<u8>) {
                Self::encode(self, out);
            }

            fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                Self::decode(bytes)
            }
        }
    )+};
}

bodies! {
    /// Members, generation or assignment changed.
    GroupChanged = 30;
    /// Positions committed.
    OffsetsCommitted = 31;
    /// A group without members deleted.
    GroupDeleted = 32;
    /// Positions deleted.
    OffsetsDeleted = 33;
}

/// A body of a group's entry.
pub(super) trait GroupBody: Body<Outcome = Result<(), GroupError>> {
    /// Its stored form.
    fn encoded(&self) -> Vec<u8> {
        let mut body = Vec::new();
        Body::encode(self, &mut body);
        body
    }
}

impl<B: Body<Outcome = Result<(), GroupError>>> GroupBody for B {}
