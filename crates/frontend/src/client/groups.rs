//! The administration of consumer groups.

use super::LocalFuture;

/// What can be done with consumer groups.
pub trait GroupAdmin {
    /// Every consumer group, by id.
    fn list(&mut self) -> LocalFuture<'_, Vec<GroupSummary>>;

    /// A consumer group's members.
    fn describe<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, GroupInfo>;

    /// What a consumer group has committed, with the end of each partition as it now is.
    fn offsets<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, Vec<GroupOffset>>;

    /// Commits offsets (topic, partition, next offset to read) for a group that has no members.
    fn commit<'a>(&'a mut self, id: &'a str, offsets: &'a [(String, i32, i64)]) -> LocalFuture<'a, ()>;

    /// Deletes a group that has no members, and what it has committed.
    fn delete<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, ()>;

    /// Deletes what a group has committed of these partitions of a topic that its members do not read.
    fn delete_offsets<'a>(
        &'a mut self,
        id: &'a str,
        topic: &'a str,
        partitions: &'a [i32],
    ) -> LocalFuture<'a, ()>;
}

/// A consumer group as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupSummary {
    /// Its id.
    pub id: String,
    /// Its state, by the protocol's name; empty where the broker does not say.
    pub state: String,
    /// What kind of group it is, by the protocol's name.
    pub kind: String,
    /// The protocol whose group it is, where that is told.
    pub protocol: Option<String>,
    /// The namespace it is in, where that is told.
    pub namespace: Option<String>,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupInfo {
    /// Its id, state and kind.
    pub summary: GroupSummary,
    /// How it deals partitions out.
    pub assignor: String,
    /// The node that looks after it.
    pub coordinator: Option<String>,
    /// Its members.
    pub members: Vec<MemberInfo>,
}

/// A member of a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberInfo {
    /// The id that the coordinator gave it.
    pub id: String,
    /// Its static id, if it has one.
    pub instance: Option<String>,
    /// What it calls itself.
    pub client: String,
    /// Where it connects from.
    pub host: String,
    /// The partitions dealt to it.
    pub assigned: Vec<(String, i32)>,
}

/// How far a consumer group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset it will read.
    pub committed: i64,
    /// The offset behind the last record; none where the partition is gone.
    pub end: Option<i64>,
}
