//! What a consumer group has committed.

use std::sync::Arc;

use super::{BrokerConnection, Error, KafkaClient};
use crate::wire::messages::find_coordinator::FindCoordinatorRequest;
use crate::wire::messages::offset_commit as oc;
use crate::wire::messages::offset_fetch as of;
use crate::wire::{ApiKey, RequestMessage, Str, Uuid};

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset to read; -1 if none was committed.
    pub offset: i64,
    /// What the reader left with it.
    pub metadata: Option<String>,
}

/// The one that commits: a member of a generation, or a client outside of the group.
#[derive(Debug, Clone)]
pub struct Committer {
    /// The generation; -1 outside any.
    pub generation: i32,
    /// The member's id; empty outside any generation.
    pub member: Str,
}

impl Default for Committer {
    fn default() -> Self {
        Self { generation: -1, member: Str::default() }
    }
}

impl KafkaClient {
    /// The broker that looks after a group.
    ///
    /// # Errors
    /// No broker answers, or none looks after the group for too long.
    pub async fn coordinator(&self, group: &str) -> Result<Arc<BrokerConnection>, Error> {
        let patience = self.patience();
        loop {
            let found = self.coordinator_once(group).await;
            if !patience.again(&found).await {
                return self.node(found?).await;
            }
        }
    }

    async fn coordinator_once(&self, group: &str) -> Result<i32, Error> {
        let request = FindCoordinatorRequest {
            key: group.into(),
            coordinator_keys: vec![group.into()],
            ..Default::default()
        };
        let response = self.call(&request).await?;
        let (code, node) = match response.coordinators.first() {
            Some(coordinator) => (coordinator.error_code, coordinator.node_id),
            None => (response.error_code, response.node_id),
        };
        Error::check(ApiKey::FindCoordinator, code, || group.to_owned())?;
        Ok(node)
    }

    /// Commits offsets for a group: (topic, partition, next offset to read, metadata).
    ///
    /// # Errors
    /// The coordinator does not answer or refuses one of them.
    pub async fn commit_offsets(
        &self,
        group: &str,
        committer: &Committer,
        offsets: &[(&str, i32, i64, Option<&str>)],
    ) -> Result<(), Error> {
        let patience = self.patience();
        loop {
            let committed = self.commit_offsets_once(group, committer, offsets).await;
            if !patience.again(&committed).await {
                return committed;
            }
        }
    }

    async fn commit_offsets_once(
        &self,
        group: &str,
        committer: &Committer,
        offsets: &[(&str, i32, i64, Option<&str>)],
    ) -> Result<(), Error> {
        let coordinator = self.coordinator(group).await?;
        let by_id = coordinator.versions().of::<oc::OffsetCommitRequest>()? >= 10;
        let mut topics: Vec<oc::OffsetCommitRequestTopic> = Vec::new();
        for &(name, partition_index, committed_offset, metadata) in offsets {
            let partition = oc::OffsetCommitRequestPartition {
                partition_index,
                committed_offset,
                committed_metadata: metadata.map(Str::from),
                ..Default::default()
            };
            match topics.iter_mut().find(|t| t.name == *name) {
                Some(topic) => topic.partitions.push(partition),
                None => {
                    let topic_id = if by_id { self.topic(name, false).await?.id } else { Default::default() };
                    let partitions = vec![partition];
                    topics.push(oc::OffsetCommitRequestTopic { name: name.into(), topic_id, partitions });
                }
            }
        }
        let request = oc::OffsetCommitRequest {
            group_id: group.into(),
            generation_id_or_member_epoch: committer.generation,
            member_id: committer.member.clone(),
            topics,
            ..Default::default()
        };
        let response = coordinator.call(&request).await?;
        for partition in response.topics.iter().flat_map(|t| &t.partitions) {
            let about = || format!("group {group}, partition {}", partition.partition_index);
            Error::check(ApiKey::OffsetCommit, partition.error_code, about)?;
        }
        Ok(())
    }

    /// What a group has committed: for these partitions, or for all.
    ///
    /// # Errors
    /// The coordinator does not answer or refuses.
    pub async fn fetch_offsets(
        &self,
        group: &str,
        partitions: Option<&[(&str, i32)]>,
    ) -> Result<Vec<CommittedOffset>, Error> {
        let patience = self.patience();
        loop {
            let committed = self.fetch_offsets_once(group, partitions).await;
            if !patience.again(&committed).await {
                return committed;
            }
        }
    }

    async fn fetch_offsets_once(
        &self,
        group: &str,
        partitions: Option<&[(&str, i32)]>,
    ) -> Result<Vec<CommittedOffset>, Error> {
        let coordinator = self.coordinator(group).await?;
        let version = coordinator.versions().of::<of::OffsetFetchRequest>()?;
        let mut wanted: Vec<(Str, Vec<i32>)> = Vec::new();
        for &(name, partition) in partitions.unwrap_or_default() {
            match wanted.iter_mut().find(|(topic, _)| *topic == *name) {
                Some((_, indexes)) => indexes.push(partition),
                None => wanted.push((name.into(), vec![partition])),
            }
        }
        if version < 8 {
            let asked = partitions.map(|_| wanted);
            return committed_in_one(group, coordinator.call(&of_one(group, asked)).await?);
        }
        let mut names = Vec::new();
        let mut topics = Vec::new();
        for (name, partition_indexes) in wanted {
            let topic_id =
                if version >= 10 { self.topic(&name, false).await?.id } else { Default::default() };
            names.push((topic_id, name.clone()));
            topics.push(of::OffsetFetchRequestTopics { name, topic_id, partition_indexes });
        }
        let wanted = of::OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: partitions.map(|_| topics),
            ..Default::default()
        };
        let request = of::OffsetFetchRequest { groups: vec![wanted], ..Default::default() };
        let response = coordinator.call(&request).await?;
        if version >= 10 {
            self.learn_names(&response, &mut names).await?;
        }
        committed_in_groups(group, response, &names)
    }

    /// An answer by id to a question about all topics needs the names of those it brings up.
    async fn learn_names(
        &self,
        response: &of::OffsetFetchResponse,
        names: &mut Vec<(Uuid, Str)>,
    ) -> Result<(), Error> {
        let mut ids = response.groups.iter().flat_map(|g| &g.topics).map(|t| t.topic_id);
        if ids.any(|id| !names.iter().any(|(known, _)| *known == id)) {
            let all = self.metadata(None).await?.topics;
            names.extend(all.into_iter().filter_map(|t| Some((t.topic_id, t.name?))));
        }
        Ok(())
    }
}

fn of_one(group: &str, wanted: Option<Vec<(Str, Vec<i32>)>>) -> of::OffsetFetchRequest {
    let topic = |(name, partition_indexes)| of::OffsetFetchRequestTopic { name, partition_indexes };
    of::OffsetFetchRequest {
        group_id: group.into(),
        topics: wanted.map(|wanted| wanted.into_iter().map(topic).collect()),
        ..Default::default()
    }
}

fn committed_in_one(group: &str, response: of::OffsetFetchResponse) -> Result<Vec<CommittedOffset>, Error> {
    Error::check(of::OffsetFetchRequest::KEY, response.error_code, || group.to_owned())?;
    let mut committed = Vec::new();
    for topic in response.topics {
        for p in topic.partitions {
            let found = (p.partition_index, p.committed_offset, p.metadata, p.error_code);
            committed.push(one(topic.name.to_string(), found)?);
        }
    }
    Ok(committed)
}

fn committed_in_groups(
    group: &str,
    response: of::OffsetFetchResponse,
    names: &[(Uuid, Str)],
) -> Result<Vec<CommittedOffset>, Error> {
    let mut committed = Vec::new();
    for answer in response.groups.into_iter().filter(|answer| answer.group_id == *group) {
        Error::check(of::OffsetFetchRequest::KEY, answer.error_code, || group.to_owned())?;
        for topic in answer.topics {
            let by_id = names.iter().find(|(id, _)| topic.name.is_empty() && *id == topic.topic_id);
            let name = by_id.map_or(topic.name, |(_, name)| name.clone());
            for p in topic.partitions {
                let found = (p.partition_index, p.committed_offset, p.metadata, p.error_code);
                committed.push(one(name.to_string(), found)?);
            }
        }
    }
    Ok(committed)
}

fn one(topic: String, found: (i32, i64, Option<Str>, i16)) -> Result<CommittedOffset, Error> {
    let (partition, offset, metadata, code) = found;
    Error::check(ApiKey::OffsetFetch, code, || format!("{topic}-{partition}"))?;
    let metadata = metadata.map(|m| m.to_string()).filter(|m| !m.is_empty());
    Ok(CommittedOffset { topic, partition, offset, metadata })
}
