//! The administration of topics and groups in the form in which the command line uses every protocol's.

use sabir_frontend::client::{
    Client as Tool, ClientError, GroupAdmin, GroupInfo, GroupOffset, GroupSummary, LocalFuture,
    PartitionInfo, Position, SettingChange, Start, TopicAdmin, TopicInfo, TopicSetting, TopicSpec,
};

use super::groups::Committer;
use super::tool::{KafkaTool, failed};
use super::{Error, OffsetAt};
use crate::server::frontend::short_uuid;
use crate::wire::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};
use crate::wire::{ApiKey, ErrorCode};

impl TopicAdmin for KafkaTool {
    fn list(&mut self) -> LocalFuture<'_, Vec<TopicInfo>> {
        Box::pin(async {
            let metadata = self.client.metadata(None).await.map_err(failed)?;
            let mut topics: Vec<TopicInfo> = metadata.topics.into_iter().map(topic_info).collect();
            topics.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(topics)
        })
    }

    fn describe<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, TopicInfo> {
        Box::pin(async move {
            // Waits for leaders, which the offsets need, and tells a topic that is not there.
            let count = self.client.topic(name, false).await.map_err(failed)?.leaders.len() as i32;
            let metadata = self.client.metadata(Some(&[name])).await.map_err(failed)?;
            let found = metadata.topics.into_iter().find(|t| t.name.as_ref().is_some_and(|n| *n == name));
            let mut topic = found.map(topic_info).ok_or_else(|| failed(missing(name)))?;
            let ends = self.ends(name, &(0..count).collect::<Vec<_>>()).await?;
            for (partition, end) in topic.partitions.iter_mut().zip(ends) {
                partition.offsets = Some(end);
            }
            Ok(topic)
        })
    }

    fn places<'a>(
        &'a mut self,
        name: &'a str,
        partition: Option<i32>,
        start: Start,
    ) -> LocalFuture<'a, Vec<Position>> {
        Tool::positions(self, name, partition, start)
    }

    fn create(&mut self, topic: TopicSpec) -> LocalFuture<'_, ()> {
        Box::pin(async move {
            let TopicSpec { name, partitions, configs, dry_run } = topic;
            let new = super::KafkaTopicSpec { name, partitions, replication: None, configs };
            let outcomes = self.client.create_topics(&[new], dry_run).await.map_err(failed)?;
            outcomes.into_iter().collect::<Result<_, _>>().map_err(failed)
        })
    }

    fn delete<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let outcomes = self.client.delete_topics(&[name]).await.map_err(failed)?;
            outcomes.into_iter().collect::<Result<_, _>>().map_err(failed)
        })
    }

    fn settings<'a>(&'a mut self, name: &'a str) -> LocalFuture<'a, Vec<TopicSetting>> {
        Box::pin(async move { self.client.topic_settings(name).await.map_err(failed) })
    }

    fn change<'a>(
        &'a mut self,
        name: &'a str,
        changes: &'a [SettingChange],
        dry_run: bool,
    ) -> LocalFuture<'a, ()> {
        Box::pin(async move { self.client.change_topic(name, changes, dry_run).await.map_err(failed) })
    }

    fn add_partitions<'a>(&'a mut self, name: &'a str, total: i32, dry_run: bool) -> LocalFuture<'a, ()> {
        Box::pin(async move { self.client.add_partitions(name, total, dry_run).await.map_err(failed) })
    }

    fn delete_records<'a>(
        &'a mut self,
        topic: &'a str,
        before: &'a [(i32, i64)],
    ) -> LocalFuture<'a, Vec<(i32, i64)>> {
        Box::pin(async move { self.client.delete_records(topic, before).await.map_err(failed) })
    }
}

impl GroupAdmin for KafkaTool {
    fn list(&mut self) -> LocalFuture<'_, Vec<GroupSummary>> {
        Box::pin(async { self.client.list_groups().await.map_err(failed) })
    }

    fn describe<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, GroupInfo> {
        Box::pin(async move { self.client.describe_group(id).await.map_err(failed) })
    }

    fn offsets<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, Vec<GroupOffset>> {
        Box::pin(async move {
            let committed = self.client.fetch_offsets(id, None).await.map_err(failed)?;
            let mut offsets: Vec<GroupOffset> = Vec::with_capacity(committed.len());
            for c in committed.into_iter().filter(|c| c.offset >= 0) {
                offsets.push(GroupOffset {
                    topic: c.topic,
                    partition: c.partition,
                    committed: c.offset,
                    end: None,
                });
            }
            offsets.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
            for topic in offsets.chunk_by_mut(|a, b| a.topic == b.topic) {
                self.add_ends(topic).await?;
            }
            Ok(offsets)
        })
    }

    fn commit<'a>(&'a mut self, id: &'a str, offsets: &'a [(String, i32, i64)]) -> LocalFuture<'a, ()> {
        Box::pin(async move {
            let offsets: Vec<_> = offsets.iter().map(|(t, p, o)| (t.as_str(), *p, *o, None)).collect();
            self.client.commit_offsets(id, &Committer::default(), &offsets).await.map_err(failed)
        })
    }

    fn delete<'a>(&'a mut self, id: &'a str) -> LocalFuture<'a, ()> {
        Box::pin(async move { self.client.delete_group(id).await.map_err(failed) })
    }

    fn delete_offsets<'a>(
        &'a mut self,
        id: &'a str,
        topic: &'a str,
        partitions: &'a [i32],
    ) -> LocalFuture<'a, ()> {
        Box::pin(async move { self.client.delete_offsets(id, topic, partitions).await.map_err(failed) })
    }
}

impl KafkaTool {
    /// Adds the ends of one topic's partitions. What is gone has none.
    async fn add_ends(&self, offsets: &mut [GroupOffset]) -> Result<(), ClientError> {
        let name = offsets[0].topic.clone();
        let count = match self.client.topic(&name, false).await {
            Ok(topic) => topic.leaders.len() as i32,
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let there: Vec<_> = offsets.iter().map(|o| o.partition).filter(|p| *p < count).collect();
        let wanted: Vec<_> = there.iter().map(|p| (*p, OffsetAt::Latest)).collect();
        let ends = self.client.list_offsets(&name, &wanted).await.map_err(failed)?;
        for end in ends {
            let known = offsets.iter_mut().find(|o| o.partition == end.partition);
            known.into_iter().for_each(|o| o.end = Some(end.offset));
        }
        Ok(())
    }
}

fn missing(name: &str) -> Error {
    Error::Broker { api: ApiKey::Metadata, code: ErrorCode::UnknownTopicOrPartition, message: name.into() }
}

fn topic_info(topic: MetadataResponseTopic) -> TopicInfo {
    let mut partitions: Vec<PartitionInfo> = topic.partitions.iter().map(partition_info).collect();
    partitions.sort_by_key(|p| p.index);
    let id = topic.topic_id;
    TopicInfo {
        name: topic.name.map(|n| n.to_string()).unwrap_or_default(),
        id: (id != [0; 16]).then(|| short_uuid(id)),
        internal: topic.is_internal,
        partitions,
    }
}

fn partition_info(partition: &MetadataResponsePartition) -> PartitionInfo {
    PartitionInfo {
        index: partition.partition_index,
        leader: (partition.leader_id >= 0).then_some(partition.leader_id),
        replicas: partition.replica_nodes.clone(),
        in_sync: partition.isr_nodes.clone(),
        offsets: None,
    }
}
