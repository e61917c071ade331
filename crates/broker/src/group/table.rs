//! The projection: every group as committed entries made it.

use sabir_delivery::group::GroupId;
use sabir_delivery::group::entries::{
    GroupChanged, GroupDeleted, OffsetsCommitted, OffsetsDeleted, WhichOffsets,
};
use sabir_delivery::group::state::GroupState;
use sabir_journal::EntryView;
use sabir_journal::pages::{PageDecodeError, PageError, PageKey, PageValue, Paged};
use sabir_model::{DecodeError, FrontendNo, GroupError, Namespace};

use crate::entry::{Body, Kinds, kind};
use crate::projection::{PageMap, Projection};
use crate::state::{
    At, CoreProjection, EntryError, EntryOutcome, Locate, Outcome, StoredMaps, bad_body, prefixes,
};

/// A group's id as a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct GroupKey(GroupId);

/// What the key of a group begins with that its name does not say all of: no text begins so.
const OWNED: u8 = 0xff;

impl PageKey for GroupKey {
    fn encode(&self, out: &mut Vec<u8>) {
        if !self.0.is_bare() {
            let namespace = self.0.namespace.as_str();
            out.push(OWNED);
            out.extend_from_slice(&self.0.front_end.0.to_be_bytes());
            // It has at most 255 bytes (`Namespace::MOST`), for this.
            out.push(namespace.len() as u8);
            out.extend_from_slice(namespace.as_bytes());
        }
        out.extend_from_slice(self.0.name.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let id = match bytes.split_first() {
            Some((&OWNED, rest)) => owned(rest).ok_or_else(|| PageDecodeError("a group's key".into()))?,
            _ => GroupId::from(text(bytes)?),
        };
        Ok(Self(id))
    }
}

fn owned(bytes: &[u8]) -> Option<GroupId> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    let (&len, rest) = rest.split_first()?;
    let (namespace, name) = rest.split_at_checked(len.into())?;
    let namespace = Namespace::named(text(namespace).ok()?)?;
    let front_end = FrontendNo(u16::from_be_bytes(*number));
    let id = GroupId { namespace, front_end, name: text(name).ok()?.into() };
    // The bare one has the other key.
    (!id.is_bare()).then_some(id)
}

fn text(bytes: &[u8]) -> Result<&str, PageDecodeError> {
    std::str::from_utf8(bytes).map_err(|error| PageDecodeError(error.to_string()))
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

/// What a body comes to.
fn decoded<B: Body>(body: &[u8], apply: impl FnOnce(B) -> B::Outcome) -> Result<B::Outcome, DecodeError> {
    B::decode(body).map(apply)
}

fn name_bytes(group: &GroupId) -> usize {
    group.name.len() + group.namespace.as_str().len()
}

/// All groups of a shard. Deterministic: nothing but entries and their blocks' times goes in.
pub(crate) struct GroupTable {
    groups: Paged<GroupKey, StoredGroup>,
    /// What all groups take without their members; follows from `groups`.
    bytes: usize,
}

impl GroupTable {
    pub(crate) fn new() -> Self {
        Self { groups: Paged::new(prefixes::GROUPS), bytes: 0 }
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
        match kind {
            GroupChanged::KIND => decoded(body, |entry: GroupChanged| {
                self.change(entry.group, time_ms, |state| state.apply_change(entry.change, time_ms));
                Ok(())
            }),
            OffsetsCommitted::KIND => {
                decoded(body, |entry: OffsetsCommitted| self.apply_commit(entry, time_ms))
            }
            GroupDeleted::KIND => {
                decoded(body, |entry: GroupDeleted| self.apply_delete(GroupKey(entry.group)))
            }
            OffsetsDeleted::KIND => decoded(body, |entry: OffsetsDeleted| {
                self.apply_offsets_deleted(GroupKey(entry.group), &entry.which)
            }),
            _ => Err(DecodeError::Field("kind")),
        }
    }

    /// Changes a group, made if there is none.
    fn change<T>(&mut self, group: GroupId, time_ms: i64, change: impl FnOnce(&mut GroupState) -> T) -> T {
        let (name, mut before) = (name_bytes(&group), None);
        let stored = self.groups.get_or_insert_with(GroupKey(group), || {
            before = Some(0);
            StoredGroup(GroupState::new(time_ms))
        });
        let before = before.unwrap_or_else(|| name + stored.0.bytes());
        let changed = change(&mut stored.0);
        self.bytes = self.bytes + name + stored.0.bytes() - before;
        changed
    }

    fn apply_commit(&mut self, entry: OffsetsCommitted, time_ms: i64) -> Result<(), GroupError> {
        let known = self.get(&entry.group);
        // A refused commit must not make a group, nor one that exists count as changed.
        match known {
            Some(state) => state.check_fence(&entry.fence)?,
            None if entry.fence.generation >= 0 => return Err(GroupError::NotFound),
            None => {}
        }
        self.change(entry.group.clone(), time_ms, |state| state.apply_commit(entry, time_ms))
    }

    /// The memory that all groups take without their members, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memory that a group takes which is not there yet, about.
    pub(super) fn bytes_of_new(group: &GroupId) -> usize {
        name_bytes(group) + GroupState::EMPTY
    }

    fn apply_delete(&mut self, group: GroupKey) -> Result<(), GroupError> {
        match self.groups.get(&group) {
            None => Err(GroupError::NotFound),
            Some(stored) if !stored.0.is_empty() => Err(GroupError::NotEmpty),
            Some(stored) => {
                self.bytes -= name_bytes(&group.0) + stored.0.bytes();
                self.groups.remove(&group);
                Ok(())
            }
        }
    }

    fn apply_offsets_deleted(&mut self, group: GroupKey, which: &WhichOffsets) -> Result<(), GroupError> {
        let stored = self.groups.get_mut(&group).ok_or(GroupError::NotFound)?;
        let before = stored.0.bytes();
        let nothing_left = stored.0.apply_offsets_deleted(which);
        let after = stored.0.bytes();
        self.bytes = self.bytes + after - before;
        if nothing_left {
            self.bytes -= name_bytes(&group.0) + after;
            self.groups.remove(&group);
        }
        Ok(())
    }

    pub(super) fn get(&self, group: &GroupId) -> Option<&GroupState> {
        self.groups.get(&GroupKey(group.clone())).map(|stored| &stored.0)
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// All groups, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&GroupId, &GroupState)> {
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
        let bytes = groups.iter().map(|(key, group)| name_bytes(&key.0) + group.0.bytes()).sum();
        Ok(Self { groups, bytes })
    }

    fn apply(&mut self, entry: &EntryView<'_>, at: &At, _: Locate<'_>) -> Result<Outcome, EntryError> {
        let applied = self.apply_entry(entry.kind, entry.body, at.time_ms);
        Ok(applied.map_err(|source| bad_body(entry, source))?.into_outcome())
    }
}

#[cfg(test)]
mod tests {
    use sabir_journal::pages::MAX_KEY;

    use super::*;

    fn id(namespace: &str, number: u16, name: &str) -> GroupId {
        let namespace = Namespace::named(namespace).unwrap();
        GroupId { namespace, front_end: FrontendNo(number), name: name.into() }
    }

    #[test]
    fn keys_of_groups_have_their_stored_form_and_come_back() {
        let longest = "x".repeat(1024);
        let all = [
            (GroupId::from("g"), b"g".to_vec()),
            (GroupId::from(""), Vec::new()),
            (id("/", 300, "g"), b"\xff\x01\x2c\x01/g".to_vec()),
            (id("other", 0, "g"), b"\xff\x00\x00\x05otherg".to_vec()),
            (id("other", 2, ""), b"\xff\x00\x02\x05other".to_vec()),
            (id(&longest[..255], 1, &longest), [&b"\xff\x00\x01\xff"[..], &[b'x'; 1279]].concat()),
        ];
        for (group, golden) in all {
            let mut key = Vec::new();
            GroupKey(group.clone()).encode(&mut key);
            assert_eq!(key, golden);
            assert!(prefixes::GROUPS.len() + key.len() <= MAX_KEY);
            assert_eq!(GroupKey::decode(&key).unwrap().0, group);
        }
        for bad in [&b"\xff"[..], b"\xff\x00\x00\x01/g", b"\xff\x00\x01\x00g", b"\xff\x00\x01\x05/g", b"\xfe"]
        {
            assert!(GroupKey::decode(bad).is_err(), "{bad:?}");
        }
    }
}
