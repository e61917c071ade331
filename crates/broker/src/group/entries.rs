//! The kinds of the groups' entries. Their bodies are [`sabir_delivery::group::entries`].

use sabir_delivery::group::entries::{GroupChanged, GroupDeleted, OffsetsCommitted, OffsetsDeleted};
use sabir_model::DecodeError;

/// Members, generation or assignment changed.
const GROUP_CHANGED: u16 = 30;
/// Positions committed.
const OFFSETS_COMMITTED: u16 = 31;
/// A group without members deleted.
const GROUP_DELETED: u16 = 32;
/// Positions deleted.
const OFFSETS_DELETED: u16 = 33;

/// An entry of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum GroupEntry {
    Changed(GroupChanged),
    Committed(OffsetsCommitted),
    Deleted(GroupDeleted),
    OffsetsDeleted(OffsetsDeleted),
}

impl GroupEntry {
    pub(super) fn encode(&self) -> (u16, Vec<u8>) {
        let mut body = Vec::new();
        let kind = match self {
            Self::Changed(entry) => {
                entry.encode(&mut body);
                GROUP_CHANGED
            }
            Self::Committed(entry) => {
                entry.encode(&mut body);
                OFFSETS_COMMITTED
            }
            Self::Deleted(entry) => {
                entry.encode(&mut body);
                GROUP_DELETED
            }
            Self::OffsetsDeleted(entry) => {
                entry.encode(&mut body);
                OFFSETS_DELETED
            }
        };
        (kind, body)
    }

    pub(super) fn decode(kind: u16, body: &[u8]) -> Result<Self, DecodeError> {
        Ok(match kind {
            GROUP_CHANGED => Self::Changed(GroupChanged::decode(body)?),
            OFFSETS_COMMITTED => Self::Committed(OffsetsCommitted::decode(body)?),
            GROUP_DELETED => Self::Deleted(GroupDeleted::decode(body)?),
            OFFSETS_DELETED => Self::OffsetsDeleted(OffsetsDeleted::decode(body)?),
            _ => return Err(DecodeError::Field("kind")),
        })
    }
}
