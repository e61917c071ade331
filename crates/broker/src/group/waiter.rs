//! What waits for an entry of a group.

use sabir_base::wake::WakeBatch;
use sabir_delivery::group::{GroupId, Token};
use sabir_model::{ErrorAbout, GroupError};

use super::reply::Replier;
use super::underway::Share;
use super::{Groups, Text, about};

/// Waits for a group's entry to be applied. It must be completed, once, in the order of the entries, with no lock of the
/// shard held.
pub(crate) enum GroupWaiter {
    /// A machine that proposed it, as the numbered incarnation of its group.
    Machine {
        /// All groups.
        groups: Groups,
        /// The group.
        group: GroupId,
        /// Which machine of this group.
        incarnation: u64,
        /// The machine's number for the entry.
        token: Token,
    },
    /// A request that it answers.
    Request(Requester),
    /// Nothing waits for it.
    Nobody,
}

/// The request that an entry answers.
pub(crate) struct Requester {
    pub(super) replier: Replier<Result<(), ErrorAbout<GroupError>>>,
    /// The name of the group.
    pub(super) group: Text,
    /// What it may add, where this is the last of its entries.
    pub(super) share: Option<Share>,
}

impl GroupWaiter {
    /// The entry is applied, with this outcome, or will never be.
    pub(crate) fn complete(self, outcome: Result<(), GroupError>, wakes: &mut WakeBatch) {
        match self {
            Self::Machine { groups, group, incarnation, token } => {
                groups.entry_done(&group, incarnation, token, outcome, wakes);
            }
            Self::Request(Requester { replier, group, share }) => {
                drop(share);
                replier.send(outcome.map_err(|error| about(&group, error)), wakes);
            }
            Self::Nobody => {}
        }
    }
}
