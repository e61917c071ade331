//! The projection: every group as committed entries made it.

use sabir_delivery::group::Text;
use sabir_delivery::group::entries::{OffsetsCommitted, WhichOffsets};
use sabir_delivery::group::state::GroupState;
use sabir_journal::EntryView;
use sabir_journal::pages::{PageDecodeError, PageError, PageKey, PageValue, Paged};
use sabir_model::{DecodeError, GroupError};

use super::entries::GroupEntry;
use crate::entry::{Kinds, kind};
use crate::projection::{PageMap, Projection};
use crate::state::{
    At, CoreProjection, EntryError, EntryOutcome, Locate, Outcome, StoredMaps, bad_body, prefixes,
};

/// A group's id as a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct GroupKey(Text);

impl PageKey for GroupKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let text = std::str::from_utf8(bytes).map_err(|error| PageDecodeError(error.to_string()))?;
        Ok(Self(text.into()))
    }
}

struct StoredGroup(GroupState);

impl PageValue for StoredGroup {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        GroupState::decode(bytes).map(Self).map_err(|error| PageDecodeError(error.to_string()))
    }
}

/// All groups of a shard. Deterministic: nothing but entries and their blocks' times goes in.
pub(crate) struct GroupTable {
    groups: Paged<GroupKey, StoredGroup>,
    /// What the positions of all groups take; follows from `groups`.
    offset_bytes: usize,
}

impl GroupTable {
    pub(crate) fn new() -> Self {
        Self { groups: Paged::new(prefixes::GROUPS), offset_bytes: 0 }
    }

    /// Applies a committed entry of a block with that time. What comes back is the outcome for the proposer.
    ///
    /// # Errors
    /// The body is not one of this version's.
    pub(super) fn apply_entry(
        &mut self,
        kind: u16,
        body: &[u8],
        time_ms: i64,
    ) -> Result<Result<(), GroupError>, DecodeError> {
        Ok(match GroupEntry::decode(kind, body)? {
            GroupEntry::Changed(entry) => {
                self.get_or_make(entry.group, time_ms).apply_change(entry.change, time_ms);
                Ok(())
            }
            GroupEntry::Committed(entry) => self.apply_commit(entry, time_ms),
            GroupEntry::Deleted(entry) => self.apply_delete(GroupKey(entry.group)),
            GroupEntry::OffsetsDeleted(entry) => {
                self.apply_offsets_deleted(GroupKey(entry.group), &entry.which)
            }
        })
    }

    fn get_or_make(&mut self, group: Text, time_ms: i64) -> &mut GroupState {
        &mut self.groups.get_or_insert_with(GroupKey(group), || StoredGroup(GroupState::new(time_ms))).0
    }

    fn apply_commit(&mut self, entry: OffsetsCommitted, time_ms: i64) -> Result<(), GroupError> {
        let known = self.get(&entry.group);
        // A refused commit must not make a group, nor one that exists count as changed.
        match known {
            Some(state) => state.check_fence(&entry.fence)?,
            None if entry.fence.generation >= 0 => return Err(GroupError::NotFound),
            None => {}
        }
        let state = self.get_or_make(entry.group.clone(), time_ms);
        let before = state.offset_bytes();
        let applied = state.apply_commit(entry, time_ms);
        let after = state.offset_bytes();
        self.offset_bytes = self.offset_bytes + after - before;
        applied
    }

    /// The memory that the positions of all groups take, about.
    pub(super) fn offset_bytes(&self) -> usize {
        self.offset_bytes
    }

    fn apply_delete(&mut self, group: GroupKey) -> Result<(), GroupError> {
        match self.groups.get(&group) {
            None => Err(GroupError::NotFound),
            Some(stored) if !stored.0.is_empty() => Err(GroupError::NotEmpty),
            Some(stored) => {
                self.offset_bytes -= stored.0.offset_bytes();
                self.groups.remove(&group);
                Ok(())
            }
        }
    }

    fn apply_offsets_deleted(&mut self, group: GroupKey, which: &WhichOffsets) -> Result<(), GroupError> {
        let stored = self.groups.get_mut(&group).ok_or(GroupError::NotFound)?;
        let before = stored.0.offset_bytes();
        let nothing_left = stored.0.apply_offsets_deleted(which);
        self.offset_bytes = self.offset_bytes + stored.0.offset_bytes() - before;
        if nothing_left {
            self.groups.remove(&group);
        }
        Ok(())
    }

    pub(super) fn get(&self, group: &Text) -> Option<&GroupState> {
        self.groups.get(&GroupKey(group.clone())).map(|stored| &stored.0)
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// All groups, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Text, &GroupState)> {
        self.groups.iter().map(|(key, stored)| (&key.0, &stored.0))
    }
}

impl Projection for GroupTable {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![&mut self.groups]
    }
}

impl CoreProjection for GroupTable {
    const NAME: &'static str = "groups";
    const KINDS: Kinds = &[kind::GROUPS];

    fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError> {
        let groups: Paged<GroupKey, StoredGroup> = stored.restore(prefixes::GROUPS)?;
        let offset_bytes = groups.iter().map(|(_, group)| group.0.offset_bytes()).sum();
        Ok(Self { groups, offset_bytes })
    }

    fn apply(&mut self, entry: &EntryView<'_>, at: &At, _: Locate<'_>) -> Result<Outcome, EntryError> {
        let applied = self.apply_entry(entry.kind, entry.body, at.time_ms);
        Ok(applied.map_err(|source| bad_body(entry, source))?.into_outcome())
    }
}
