//! How far groups are behind: their committed positions beside the partitions' ends.

use std::sync::Arc;

use sabir_model::{Offset, TopicId};

use crate::broker::Broker;
use crate::caller::Caller;
use crate::catalog::{CatalogView, Topic};
use crate::group::{GroupListing, Groups};
use crate::read::ReadTarget;

/// Positions read under one lock.
const PAGE: usize = 512;

/// A group and how far it is behind.
#[derive(Debug, Clone)]
pub struct GroupLag {
    /// The group.
    pub group: GroupListing,
    /// The topics it has positions in.
    pub topics: Vec<TopicLag>,
}

/// How far a group is behind in one topic.
#[derive(Debug, Clone)]
pub struct TopicLag {
    /// The topic.
    pub topic: Arc<Topic>,
    /// The partitions it has positions in, by number.
    pub partitions: Vec<PartitionLag>,
}

/// How far a group is behind in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition's number.
    pub partition: i32,
    /// The next offset the group wants.
    pub committed: Offset,
    /// The offset behind the last record.
    pub end: Offset,
}

impl PartitionLag {
    /// Offsets from the group's position to the end.
    pub fn lag(&self) -> u64 {
        u64::try_from(self.end.0.saturating_sub(self.committed.0)).unwrap_or(0)
    }
}

impl TopicLag {
    /// The sum over its partitions.
    pub fn lag(&self) -> u64 {
        self.partitions.iter().map(PartitionLag::lag).fold(0, u64::saturating_add)
    }
}

impl Broker {
    /// The caller's groups, by name, with how far they are behind; `None` if there are more than `max` of them, or more than `max`
    /// positions. Takes each lock for a short moment only.
    pub fn groups_lag(&self, caller: &Caller, max: usize) -> Option<Vec<GroupLag>> {
        let groups = self.groups(caller);
        if groups.count() > max { None } else { self.lag_of(groups.list(), max) }
    }

    /// The same of all callers' groups.
    pub fn all_groups_lag(&self, max: usize) -> Option<Vec<GroupLag>> {
        if self.group_count() > max { None } else { self.lag_of(self.all_groups(), max) }
    }

    fn lag_of(&self, listed: Vec<GroupListing>, max: usize) -> Option<Vec<GroupLag>> {
        let mut left = max;
        let mut all = Vec::new();
        for group in listed {
            let owner = self.inner.groups.with(&group.group);
            let topics = self.topics_lag(&owner, &group.group.name, left)?;
            left -= topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
            all.push(GroupLag { group, topics });
        }
        Some(all)
    }

    /// How far a group is behind, topic by topic in the order of their ids; `None` if it has more than `max` positions. Positions
    /// in what exists no longer are left out.
    pub fn group_lag(&self, caller: &Caller, group: &str, max: usize) -> Option<Vec<TopicLag>> {
        self.topics_lag(&self.groups(caller), group, max)
    }

    fn topics_lag(&self, groups: &Groups, group: &str, max: usize) -> Option<Vec<TopicLag>> {
        let catalog = self.catalog();
        let mut topics: Vec<TopicLag> = Vec::new();
        let (mut after, mut seen) = (None, 0);
        loop {
            let page = groups.offsets_after(group, after, PAGE);
            let Some(((topic, partition), _)) = page.last() else { return Some(topics) };
            after = Some((*topic, *partition));
            seen += page.len();
            if seen > max {
                return None;
            }
            page.iter().for_each(|(key, committed)| self.put(&mut topics, &catalog, *key, *committed));
        }
    }

    fn put(
        &self,
        topics: &mut Vec<TopicLag>,
        catalog: &CatalogView,
        (id, number): (TopicId, i32),
        committed: Offset,
    ) {
        if topics.last().is_none_or(|last| last.topic.id != id) {
            let Some(topic) = catalog.topic_by_id(id) else { return };
            topics.push(TopicLag { topic: topic.clone(), partitions: Vec::new() });
        }
        let Some(last) = topics.last_mut() else { return };
        let partition = last.topic.partition(number);
        let stats = partition.and_then(|p| self.partition_stats(ReadTarget::of(p)).ok());
        if let Some(stats) = stats {
            last.partitions.push(PartitionLag { partition: number, committed, end: stats.end });
        }
    }
}
