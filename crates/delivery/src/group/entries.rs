//! The bodies of a group's journal entries. Each starts with a form byte, which says in what words the group is named.

use bytes::Bytes;
use sabir_base::varint::{put_i64, put_u64, take_i32, take_i64};
use sabir_model::stored::{DecodeError, end, put_bytes, take, take_bytes, take_count, take_str, take_u8};
use sabir_model::{LeaderEpoch, Offset, TopicId};

use super::state::{GroupRecord, MemberRecord};
use super::{Fence, GroupId, Text};

/// Members, generation or assignment change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupChange {
    /// A rebalance ended, or the last member went: the whole record.
    Record(GroupRecord),
    /// Members went or expired while others stay; the rebalance this calls for is still to come.
    Gone {
        /// The generation they were members in; the change is void in any other.
        generation: i32,
        /// Their ids.
        members: Vec<Text>,
    },
    /// A static member came back under a new id and keeps its assignment.
    Replaced {
        /// The generation; the change is void in any other.
        generation: i32,
        /// The id it had.
        old: Text,
        /// What it is now.
        member: MemberRecord,
    },
}

/// An entry of kind "group changed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupChanged {
    /// The group.
    pub group: GroupId,
    /// What changed.
    pub change: GroupChange,
}

/// A position to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index.
    pub partition: i32,
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record read.
    pub leader_epoch: LeaderEpoch,
    /// Free text of the client's.
    pub metadata: Text,
}

/// An entry of kind "offsets committed".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsCommitted {
    /// The group.
    pub group: GroupId,
    /// The member that commits; judged when the entry is applied.
    pub fence: Fence,
    /// The positions.
    pub offsets: Vec<OffsetCommit>,
}

/// An entry of kind "group deleted": it goes if it has no members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDeleted {
    /// The group.
    pub group: GroupId,
}

/// An entry of kind "offsets deleted".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsDeleted {
    /// The group.
    pub group: GroupId,
    /// Which.
    pub which: WhichOffsets,
}

/// Which offsets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichOffsets {
    /// These partitions'.
    Listed(Vec<(TopicId, i32)>),
    /// Of a group without members, what was not needed since this time (ms); and the group itself when nothing is left.
    UnusedSince(i64),
    /// All of these topics: they were deleted.
    Topics(Vec<TopicId>),
}

impl GroupChanged {
    /// The entry's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.group.encode(out);
        match &self.change {
            GroupChange::Record(record) => {
                out.push(0);
                record.encode(out);
            }
            GroupChange::Gone { generation, members } => {
                out.push(1);
                put_i64(out, (*generation).into());
                put_u64(out, members.len() as u64);
                members.iter().for_each(|member| put_bytes(out, member.as_bytes()));
            }
            GroupChange::Replaced { generation, old, member } => {
                out.push(2);
                put_i64(out, (*generation).into());
                put_bytes(out, old.as_bytes());
                member.encode(out);
            }
        }
    }

    /// Reads an entry's body.
    ///
    /// # Errors
    /// A newer form, a cut or overlong body.
    pub fn decode(mut body: &[u8]) -> Result<Self, DecodeError> {
        let input = &mut body;
        let group = GroupId::decode(input)?;
        let change = match take_u8(input)? {
            0 => GroupChange::Record(GroupRecord::decode(input)?),
            1 => GroupChange::Gone { generation: take_i32(input)?, members: take_texts(input)? },
            2 => GroupChange::Replaced {
                generation: take_i32(input)?,
                old: take_text(input)?,
                member: MemberRecord::decode(input)?,
            },
            tag => return Err(DecodeError::Version(tag)),
        };
        end(input)?;
        Ok(Self { group, change })
    }
}

impl OffsetsCommitted {
    /// The entry's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.group.encode(out);
        put_i64(out, self.fence.generation.into());
        put_bytes(out, self.fence.member.as_bytes());
        put_option(out, self.fence.instance.as_ref());
        put_u64(out, self.offsets.len() as u64);
        for commit in &self.offsets {
            out.extend_from_slice(&commit.topic.0);
            put_i64(out, commit.partition.into());
            put_i64(out, commit.offset.0);
            put_i64(out, commit.leader_epoch.0.into());
            put_bytes(out, commit.metadata.as_bytes());
        }
    }

    /// Reads an entry's body.
    ///
    /// # Errors
    /// A newer form, a cut or overlong body.
    pub fn decode(mut body: &[u8]) -> Result<Self, DecodeError> {
        let input = &mut body;
        let group = GroupId::decode(input)?;
        let fence =
            Fence { generation: take_i32(input)?, member: take_text(input)?, instance: take_option(input)? };
        let count = take_count(input, 20)?;
        let offsets = (0..count).map(|_| take_commit(input)).collect::<Result<_, _>>()?;
        end(input)?;
        Ok(Self { group, fence, offsets })
    }
}

fn take_commit(input: &mut &[u8]) -> Result<OffsetCommit, DecodeError> {
    Ok(OffsetCommit {
        topic: TopicId(take(input)?),
        partition: take_i32(input)?,
        offset: Offset(take_i64(input)?),
        leader_epoch: LeaderEpoch(take_i32(input)?),
        metadata: take_text(input)?,
    })
}

impl GroupDeleted {
    /// The entry's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.group.encode(out);
    }

    /// Reads an entry's body.
    ///
    /// # Errors
    /// A newer form, a cut or overlong body.
    pub fn decode(mut body: &[u8]) -> Result<Self, DecodeError> {
        let input = &mut body;
        let group = GroupId::decode(input)?;
        end(input)?;
        Ok(Self { group })
    }
}

impl OffsetsDeleted {
    /// The entry's body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.group.encode(out);
        match &self.which {
            WhichOffsets::Listed(partitions) => {
                out.push(0);
                put_u64(out, partitions.len() as u64);
                for (topic, partition) in partitions {
                    out.extend_from_slice(&topic.0);
                    put_i64(out, (*partition).into());
                }
            }
            WhichOffsets::UnusedSince(time_ms) => {
                out.push(1);
                put_i64(out, *time_ms);
            }
            WhichOffsets::Topics(topics) => {
                out.push(2);
                put_u64(out, topics.len() as u64);
                topics.iter().for_each(|topic| out.extend_from_slice(&topic.0));
            }
        }
    }

    /// Reads an entry's body.
    ///
    /// # Errors
    /// A newer form, a cut or overlong body.
    pub fn decode(mut body: &[u8]) -> Result<Self, DecodeError> {
        let input = &mut body;
        let group = GroupId::decode(input)?;
        let which = match take_u8(input)? {
            0 => WhichOffsets::Listed(take_partitions(input)?),
            1 => WhichOffsets::UnusedSince(take_i64(input)?),
            2 => WhichOffsets::Topics(take_topics(input)?),
            tag => return Err(DecodeError::Version(tag)),
        };
        end(input)?;
        Ok(Self { group, which })
    }
}

fn take_partitions(input: &mut &[u8]) -> Result<Vec<(TopicId, i32)>, DecodeError> {
    let count = take_count(input, 17)?;
    (0..count).map(|_| Ok((TopicId(take(input)?), take_i32(input)?))).collect()
}

fn take_topics(input: &mut &[u8]) -> Result<Vec<TopicId>, DecodeError> {
    let count = take_count(input, 16)?;
    (0..count).map(|_| Ok(TopicId(take(input)?))).collect()
}

pub(super) fn take_text(input: &mut &[u8]) -> Result<Text, DecodeError> {
    take_str(input).map(Text::from)
}

pub(super) fn take_owned(input: &mut &[u8]) -> Result<Bytes, DecodeError> {
    take_bytes(input).map(Bytes::copy_from_slice)
}

fn take_texts(input: &mut &[u8]) -> Result<Vec<Text>, DecodeError> {
    let count = take_count(input, 1)?;
    (0..count).map(|_| take_text(input)).collect()
}

pub(super) fn put_option(out: &mut Vec<u8>, text: Option<&Text>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_bytes(out, text.as_bytes());
        }
    }
}

pub(super) fn take_option(input: &mut &[u8]) -> Result<Option<Text>, DecodeError> {
    match take_u8(input)? {
        0 => Ok(None),
        1 => take_text(input).map(Some),
        _ => Err(DecodeError::Field("option")),
    }
}
