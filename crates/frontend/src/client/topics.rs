//! The administration of topics.

use super::{LocalFuture, Position, Start};

/// What can be done with topics.
pub trait TopicAdmin {
    /// Every topic, by name.
    fn list(&mut self) -> LocalFuture<'_, Vec<TopicInfo>>;

    /// One topic with the offsets of its partitions.
    fn describe<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, TopicInfo>;

    /// Where reading from `start` begins in each partition, or in the one named, and the end as it now is. Of an offset it is that one.
    fn places<'a>(
        &'a mut self,
        name: &'a str,
        partition: Option<i32>,
        start: Start,
    ) -> LocalFuture<'a, Vec<Position>>;

    /// Creates a topic, or only checks that it could be.
    fn create(&mut self, topic: TopicSpec) -> LocalFuture<'_, ()>;

    /// Deletes a topic and all its records.
    fn delete<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, ()>;

    /// A topic's settings, by name.
    fn settings<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, Vec<TopicSetting>>;

    /// Changes settings of a topic, all or none, or only checks that they could be changed.
    fn change<'a>(
        &'a mut self,
        name: &'a str,
        changes: &'a [SettingChange],
        dry_run: bool,
    ) -> LocalFuture<'a, ()>;

    /// Gives a topic more partitions, `total` in all, or only checks that it could have them.
    fn add_partitions<'a>(&'a mut self, name: &'a str, total: i32, dry_run: bool) -> LocalFuture<'a, ()>;

    /// Deletes the records before these offsets (partition, offset); answers with the first offsets that are left.
    fn delete_records<'a>(
        &'a mut self,
        topic: &'a str,
        before: &'a [(i32, i64)],
    ) -> LocalFuture<'a, Vec<(i32, i64)>>;
}

/// A setting of a topic, by its protocol's name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicSetting {
    /// Its name.
    pub name: String,
    /// Its value; none where it has none, or where it is kept secret.
    pub value: Option<String>,
    /// Whether the topic itself says so; else it is what holds for topics that say nothing.
    pub own: bool,
    /// Whether it can only be looked at.
    pub read_only: bool,
    /// What it does, where the broker says it.
    pub help: Option<String>,
}

/// A change of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// The setting's name.
    pub name: String,
    /// Its new value; none takes the topic's own value away.
    pub value: Option<String>,
}

/// A topic as its metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its id in the protocol's form, where it has one.
    pub id: Option<String>,
    /// Whether the broker keeps it for itself.
    pub internal: bool,
    /// Its partitions by number.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition as its metadata shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionInfo {
    /// Its number.
    pub index: i32,
    /// The node that leads it; none for the moment where it is absent.
    pub leader: Option<i32>,
    /// The nodes that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
    /// First offset and the one behind the last, where they were asked for.
    pub offsets: Option<(i64, i64)>,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions; the broker's default where absent.
    pub partitions: Option<i32>,
    /// Settings by their protocol's names.
    pub configs: Vec<(String, String)>,
    /// Only check.
    pub dry_run: bool,
}
