//! What the journal knows of a group: changed by committed entries alone, the same on every replica.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use sabir_base::varint::{put_i64, put_u64, take_i32, take_i64};
use sabir_model::stored::{DecodeError, end, put_bytes, take, take_count, take_form, take_u8};
use sabir_model::{GroupError, LeaderEpoch, Offset, TopicId};

use super::entries::{
    GroupChange, OffsetCommit, OffsetsCommitted, WhichOffsets, put_option, take_option, take_owned, take_text,
};
use super::{ClientIdentity, Fence, GroupProtocol, Text};

const FORM: u8 = 1;

/// The longest text that may be committed with an offset, in units of UTF-16.
pub const MAX_METADATA: usize = 4096;

/// Whether a text may be committed with an offset.
pub fn metadata_fits(text: &str) -> bool {
    // A unit takes one to three bytes of UTF-8.
    let bytes = text.len();
    bytes <= MAX_METADATA || bytes <= 3 * MAX_METADATA && text.encode_utf16().count() <= MAX_METADATA
}

/// A group as its last rebalance left it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupRecord {
    /// The generation; 0 before the first.
    pub generation: i32,
    /// The kind of group; empty if it never had a member.
    pub protocol_type: Text,
    /// The protocol chosen.
    pub protocol: Option<Text>,
    /// The leader's member id.
    pub leader: Option<Text>,
    /// All members, in the order of their ids.
    pub members: Vec<MemberRecord>,
}

/// A member as its group's last rebalance left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its id.
    pub member: Text,
    /// Its static instance id.
    pub instance: Option<Text>,
    /// Where it connected from.
    pub client: ClientIdentity,
    /// Silence after which it is dead, in milliseconds.
    pub session_timeout_ms: i64,
    /// How long it may take to join again, in milliseconds.
    pub rebalance_timeout_ms: i64,
    /// What it can follow.
    pub protocols: Vec<GroupProtocol>,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// A committed position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record read.
    pub leader_epoch: LeaderEpoch,
    /// Free text of the client's.
    pub metadata: Text,
    /// When it was committed: its block's time, in milliseconds.
    pub time_ms: i64,
}

/// A group: its record and the positions committed to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupState {
    record: GroupRecord,
    /// Whether members went since the record was made, so that its assignments no longer cover everything.
    rebalance_due: bool,
    /// When the group came to be without members; its block's time, in milliseconds.
    empty_since_ms: i64,
    offsets: BTreeMap<(TopicId, i32), Committed>,
    /// Follows from `offsets`.
    offset_bytes: usize,
}

impl Committed {
    /// The memory that a position takes, about.
    pub fn bytes(&self) -> usize {
        Self::cost(&self.metadata)
    }

    /// The memory that one with this text takes, about.
    pub fn cost(metadata: &str) -> usize {
        152 + metadata.len()
    }
}

/// What the first position of a group takes beside itself: a node of the map has room for eleven.
const NODE: usize = 704;

fn bytes_of(offsets: &BTreeMap<(TopicId, i32), Committed>) -> usize {
    offsets.values().map(Committed::bytes).sum()
}

impl GroupState {
    /// A group that comes to be at `time_ms`.
    pub fn new(time_ms: i64) -> Self {
        Self { empty_since_ms: time_ms, ..Self::default() }
    }

    /// Generation, members and assignments.
    pub fn record(&self) -> &GroupRecord {
        &self.record
    }

    /// Whether a rebalance is owed since members went.
    pub fn rebalance_due(&self) -> bool {
        self.rebalance_due
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.record.members.is_empty()
    }

    /// Positions, by topic and partition.
    pub fn offsets(&self) -> impl Iterator<Item = (&(TopicId, i32), &Committed)> {
        self.offsets.iter()
    }

    /// Positions behind that of `after`, or all.
    pub fn offsets_after(
        &self,
        after: Option<(TopicId, i32)>,
    ) -> impl Iterator<Item = (&(TopicId, i32), &Committed)> {
        self.offsets.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    /// A partition's position.
    pub fn offset(&self, topic: TopicId, partition: i32) -> Option<&Committed> {
        self.offsets.get(&(topic, partition))
    }

    /// The memory that a group takes without positions and members, about, beside its name.
    pub const EMPTY: usize = 512;

    /// The memory that it takes without its members, about, beside its name.
    pub fn bytes(&self) -> usize {
        let node = if self.offsets.is_empty() { 0 } else { NODE };
        Self::EMPTY + self.record.text_bytes() + node + self.offset_bytes
    }

    /// How many positions it holds.
    pub fn offset_count(&self) -> usize {
        self.offsets.len()
    }

    /// Applies a change of members.
    pub fn apply_change(&mut self, change: GroupChange, time_ms: i64) {
        let was_empty = self.is_empty();
        match change {
            GroupChange::Record(record) => {
                self.record = record;
                self.rebalance_due = false;
            }
            GroupChange::Gone { generation, members } if generation == self.record.generation => {
                self.record.members.retain(|m| !members.contains(&m.member));
                self.rebalance_due = !self.is_empty();
            }
            GroupChange::Replaced { generation, old, member } if generation == self.record.generation => {
                self.replace(&old, member);
            }
            // Overtaken by a later record.
            GroupChange::Gone { .. } | GroupChange::Replaced { .. } => {}
        }
        if self.is_empty() && !was_empty {
            self.empty_since_ms = time_ms;
        }
    }

    fn replace(&mut self, old: &Text, member: MemberRecord) {
        let Some(place) = self.record.members.iter().position(|m| m.member == *old) else { return };
        self.record.members.remove(place);
        if self.record.leader.as_ref() == Some(old) {
            self.record.leader = Some(member.member.clone());
        }
        let place = self.record.members.partition_point(|m| m.member < member.member);
        self.record.members.insert(place, member);
    }

    /// Judges a commit's fence against the members that the journal knows.
    ///
    /// # Errors
    /// [`GroupError::UnknownMember`], [`GroupError::FencedInstance`], [`GroupError::IllegalGeneration`].
    pub fn check_fence(&self, fence: &Fence) -> Result<(), GroupError> {
        if fence.generation < 0 && self.is_empty() {
            return Ok(());
        }
        match self.member(&fence.member) {
            Some(member) if fence.instance.is_none() || member.instance == fence.instance => {}
            _ => return Err(self.why_not(fence)),
        }
        if fence.generation == self.record.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    /// Members stand in the order of their ids.
    fn member(&self, id: &Text) -> Option<&MemberRecord> {
        let place = self.record.members.binary_search_by(|m| m.member.cmp(id)).ok()?;
        self.record.members.get(place)
    }

    fn why_not(&self, fence: &Fence) -> GroupError {
        let taken =
            fence.instance.is_some() && self.record.members.iter().any(|m| m.instance == fence.instance);
        if taken { GroupError::FencedInstance } else { GroupError::UnknownMember }
    }

    /// Applies a commit, whole or not at all.
    ///
    /// # Errors
    /// As [`check_fence`](Self::check_fence).
    pub fn apply_commit(&mut self, commit: OffsetsCommitted, time_ms: i64) -> Result<(), GroupError> {
        self.check_fence(&commit.fence)?;
        for OffsetCommit { topic, partition, offset, leader_epoch, metadata } in commit.offsets {
            let committed = Committed { offset, leader_epoch, metadata, time_ms };
            self.offset_bytes += committed.bytes();
            let before = self.offsets.insert((topic, partition), committed);
            self.offset_bytes -= before.map_or(0, |before| before.bytes());
        }
        Ok(())
    }

    /// Applies a deletion of offsets. Tells whether nothing of the group is left, so that it goes too.
    pub fn apply_offsets_deleted(&mut self, which: &WhichOffsets) -> bool {
        let nothing_left = self.delete_offsets(which);
        self.offset_bytes = bytes_of(&self.offsets);
        nothing_left
    }

    fn delete_offsets(&mut self, which: &WhichOffsets) -> bool {
        match which {
            WhichOffsets::Listed(partitions) => {
                for partition in partitions {
                    self.offsets.remove(partition);
                }
                false
            }
            WhichOffsets::Topics(topics) => {
                self.offsets.retain(|(topic, _), _| !topics.contains(topic));
                false
            }
            WhichOffsets::UnusedSince(time_ms) => self.drop_unused(*time_ms),
        }
    }

    fn drop_unused(&mut self, since_ms: i64) -> bool {
        if !self.is_empty() {
            return false;
        }
        let idle_from = self.idle_from();
        self.offsets.retain(|_, committed| committed.time_ms.max(idle_from) > since_ms);
        self.offsets.is_empty() && self.empty_since_ms <= since_ms
    }

    /// Whether [`WhichOffsets::UnusedSince`] that time would take anything.
    pub fn has_unused_since(&self, time_ms: i64) -> bool {
        if !self.is_empty() || self.idle_from() > time_ms {
            return false;
        }
        let nothing_kept = self.offsets.is_empty() && self.empty_since_ms <= time_ms;
        nothing_kept || self.offsets.values().any(|committed| committed.time_ms <= time_ms)
    }

    /// A group that never had members is judged by each commit's own time.
    fn idle_from(&self) -> i64 {
        if self.record.protocol_type.is_empty() { i64::MIN } else { self.empty_since_ms }
    }

    /// Appends the stored form. Equal states have equal forms.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        self.record.encode(out);
        out.push(self.rebalance_due.into());
        put_i64(out, self.empty_since_ms);
        put_u64(out, self.offsets.len() as u64);
        for ((topic, partition), committed) in &self.offsets {
            out.extend_from_slice(&topic.0);
            put_i64(out, (*partition).into());
            put_i64(out, committed.offset.0);
            put_i64(out, committed.leader_epoch.0.into());
            put_i64(out, committed.time_ms);
            put_bytes(out, committed.metadata.as_bytes());
        }
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// A newer form, a cut or overlong value.
    pub fn decode(mut stored: &[u8]) -> Result<Self, DecodeError> {
        let input = &mut stored;
        take_form(input, FORM)?;
        let record = GroupRecord::decode(input)?;
        let rebalance_due = take_u8(input)? != 0;
        let empty_since_ms = take_i64(input)?;
        let count = take_count(input, 21)?;
        let offsets = (0..count).map(|_| take_offset(input)).collect::<Result<_, _>>()?;
        end(input)?;
        let offset_bytes = bytes_of(&offsets);
        Ok(Self { record, rebalance_due, empty_since_ms, offsets, offset_bytes })
    }
}

fn take_offset(input: &mut &[u8]) -> Result<((TopicId, i32), Committed), DecodeError> {
    let key = (TopicId(take(input)?), take_i32(input)?);
    let committed = Committed {
        offset: Offset(take_i64(input)?),
        leader_epoch: LeaderEpoch(take_i32(input)?),
        time_ms: take_i64(input)?,
        metadata: take_text(input)?,
    };
    Ok((key, committed))
}

impl GroupRecord {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i64(out, self.generation.into());
        put_bytes(out, self.protocol_type.as_bytes());
        put_option(out, self.protocol.as_ref());
        put_option(out, self.leader.as_ref());
        put_u64(out, self.members.len() as u64);
        self.members.iter().for_each(|member| member.encode(out));
    }

    /// Takes a record off the front of `input`.
    ///
    /// # Errors
    /// A cut input, a number or text out of range.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            generation: take_i32(input)?,
            protocol_type: take_text(input)?,
            protocol: take_option(input)?,
            leader: take_option(input)?,
            members: {
                let count = take_count(input, MemberRecord::SMALLEST)?;
                (0..count).map(|_| MemberRecord::decode(input)).collect::<Result<_, _>>()?
            },
        })
    }

    /// Bytes of the texts that are not its members'.
    fn text_bytes(&self) -> usize {
        let text = |text: &Option<Text>| text.as_ref().map_or(0, |text| text.len());
        self.protocol_type.len() + text(&self.protocol) + text(&self.leader)
    }

    /// Bytes of the stored form, within a few.
    pub fn stored_len(&self) -> usize {
        32 + self.text_bytes() + self.members.iter().map(MemberRecord::stored_len).sum::<usize>()
    }
}

impl MemberRecord {
    /// Empty texts, no instance, no protocols, no assignment.
    const SMALLEST: usize = 8;

    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.member.as_bytes());
        put_option(out, self.instance.as_ref());
        put_bytes(out, self.client.id.as_bytes());
        put_bytes(out, self.client.host.as_bytes());
        put_i64(out, self.session_timeout_ms);
        put_i64(out, self.rebalance_timeout_ms);
        put_u64(out, self.protocols.len() as u64);
        for protocol in &self.protocols {
            put_bytes(out, protocol.name.as_bytes());
            put_bytes(out, &protocol.metadata);
        }
        put_bytes(out, &self.assignment);
    }

    /// Takes a member off the front of `input`.
    ///
    /// # Errors
    /// A cut input, a number or text out of range.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            member: take_text(input)?,
            instance: take_option(input)?,
            client: ClientIdentity { id: take_text(input)?, host: take_text(input)? },
            session_timeout_ms: take_i64(input)?,
            rebalance_timeout_ms: take_i64(input)?,
            protocols: take_protocols(input)?,
            assignment: take_owned(input)?,
        })
    }

    /// Bytes of the stored form, within a few.
    pub fn stored_len(&self) -> usize {
        let protocols: usize = self.protocols.iter().map(|p| p.name.len() + p.metadata.len() + 8).sum();
        let texts = self.member.len() + self.instance.as_ref().map_or(0, |i| i.len());
        40 + texts + self.client.id.len() + self.client.host.len() + protocols + self.assignment.len()
    }
}

fn take_protocols(input: &mut &[u8]) -> Result<Vec<GroupProtocol>, DecodeError> {
    let count = take_count(input, 2)?;
    (0..count).map(|_| Ok(GroupProtocol { name: take_text(input)?, metadata: take_owned(input)? })).collect()
}
