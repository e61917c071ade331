//! Topics and offsets.

use super::{Error, KafkaClient, TopicMetadata};
use crate::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use crate::wire::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use crate::wire::messages::list_offsets as lo;
use crate::wire::{ApiKey, ErrorCode, RequestMessage};

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct KafkaTopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions; the broker's default where absent.
    pub partitions: Option<i32>,
    /// Replicas of each; the broker's default where absent.
    pub replication: Option<i16>,
    /// Its configs.
    pub configs: Vec<(String, String)>,
}

impl KafkaTopicSpec {
    /// A topic of so many partitions and the broker's defaults.
    pub fn new(name: &str, partitions: i32) -> Self {
        Self { name: name.to_owned(), partitions: Some(partitions), ..Self::default() }
    }
}

/// Which offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first.
    Earliest,
    /// The one behind the last.
    Latest,
    /// That of the record with the highest timestamp.
    MaxTimestamp,
    /// The first whose record is not older than this (milliseconds since the epoch).
    Time(i64),
}

impl OffsetAt {
    fn timestamp(self) -> i64 {
        match self {
            Self::Earliest => lo::EARLIEST_TIMESTAMP,
            Self::Latest => lo::LATEST_TIMESTAMP,
            Self::MaxTimestamp => lo::MAX_TIMESTAMP,
            Self::Time(ms) => ms,
        }
    }
}

/// An offset that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The partition.
    pub partition: i32,
    /// The offset; -1 if no record fits.
    pub offset: i64,
    /// That record's timestamp; -1 where none was asked for.
    pub timestamp: i64,
    /// The leader epoch that wrote it; -1 if unknown.
    pub leader_epoch: i32,
}

impl KafkaClient {
    /// Creates topics, or only checks that they could be. One error for each topic, in order.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn create_topics(
        &self,
        topics: &[KafkaTopicSpec],
        dry_run: bool,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let request = CreateTopicsRequest {
            topics: topics.iter().map(creatable).collect(),
            validate_only: dry_run,
            timeout_ms: self.timeout_ms(),
        };
        let controller = self.controller().await?;
        let response = controller.call_waiting(&request, self.answer_within()).await?;
        Ok(topics.iter().map(|topic| created(&response, &topic.name)).collect())
    }

    /// Creates one topic.
    ///
    /// # Errors
    /// No broker answers, or it refuses.
    pub async fn create_topic(&self, topic: KafkaTopicSpec) -> Result<(), Error> {
        self.create_topics(&[topic], false).await?.pop().unwrap_or(Ok(()))
    }

    /// Deletes topics. One error for each, in order.
    ///
    /// # Errors
    /// No broker answers.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Vec<Result<(), Error>>, Error> {
        let connection = self.controller().await?;
        let by_name = |name: &&str| DeleteTopicState { name: Some((*name).into()), ..Default::default() };
        let request = DeleteTopicsRequest {
            topics: names.iter().map(by_name).collect(),
            topic_names: names.iter().map(|name| (*name).into()).collect(),
            timeout_ms: self.timeout_ms(),
        };
        let response = connection.call_waiting(&request, self.answer_within()).await?;
        let deleted = |name: &&str| {
            let result = response.responses.iter().find(|r| r.name.as_ref().is_some_and(|n| n == name));
            let code = result.map_or(ErrorCode::UnknownServerError.code(), |r| r.error_code);
            let message = result.and_then(|r| r.error_message.as_ref()).map_or(*name, |m| m.as_str());
            Error::check(ApiKey::DeleteTopics, code, || message.to_owned())
        };
        Ok(names.iter().map(deleted).collect())
    }

    /// The broker that takes changes of topics; any, where the cluster names none.
    pub(super) async fn controller(&self) -> Result<std::sync::Arc<super::BrokerConnection>, Error> {
        let controller = self.metadata(Some(&[])).await?.controller_id;
        if controller < 0 { self.any().await } else { self.node(controller).await }
    }

    /// Offsets of a topic's partitions, in the order asked for.
    ///
    /// # Errors
    /// No leader answers, or one answers with an error that does not pass.
    pub async fn list_offsets(
        &self,
        topic: &str,
        wanted: &[(i32, OffsetAt)],
    ) -> Result<Vec<PartitionOffset>, Error> {
        let patience = self.patience();
        loop {
            let found = match self.topic(topic, false).await {
                Ok(topic) => self.list_offsets_once(&topic, wanted).await,
                Err(error) => Err(error),
            };
            if !patience.again(&found).await {
                return found;
            }
        }
    }

    async fn list_offsets_once(
        &self,
        topic: &TopicMetadata,
        wanted: &[(i32, OffsetAt)],
    ) -> Result<Vec<PartitionOffset>, Error> {
        let mut found = vec![None; wanted.len()];
        let leader = |partition: i32| topic.leaders.get(partition as usize).copied();
        let mut nodes: Vec<i32> = wanted.iter().filter_map(|(partition, _)| leader(*partition)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let here: Vec<_> = (0..wanted.len()).filter(|&i| leader(wanted[i].0) == Some(node)).collect();
            // A request that names a partition twice is refused for it: the second question waits for the next round.
            for round in rounds(&here, wanted) {
                self.list_offsets_of(node, topic, wanted, &round, &mut found).await?;
            }
        }
        let missing = |(partition, _): (i32, OffsetAt)| Error::Broker {
            api: ApiKey::ListOffsets,
            code: ErrorCode::UnknownTopicOrPartition,
            message: format!("{}-{partition}", topic.name),
        };
        found.into_iter().zip(wanted).map(|(found, &wanted)| found.ok_or_else(|| missing(wanted))).collect()
    }

    async fn list_offsets_of(
        &self,
        node: i32,
        topic: &TopicMetadata,
        wanted: &[(i32, OffsetAt)],
        indexes: &[usize],
        found: &mut [Option<PartitionOffset>],
    ) -> Result<(), Error> {
        let partition = |&i: &usize| lo::ListOffsetsPartition {
            partition_index: wanted[i].0,
            timestamp: wanted[i].1.timestamp(),
            ..Default::default()
        };
        let partitions = indexes.iter().map(partition).collect();
        let request = lo::ListOffsetsRequest {
            topics: vec![lo::ListOffsetsTopic { name: topic.name.clone(), partitions }],
            timeout_ms: self.timeout_ms(),
            ..Default::default()
        };
        let response = self.node(node).await?.call(&request).await?;
        for answer in response.topics.iter().flat_map(|t| &t.partitions) {
            let about = || format!("{}-{}", topic.name, answer.partition_index);
            Error::check(lo::ListOffsetsRequest::KEY, answer.error_code, about)?;
            if let Some(&i) = indexes.iter().find(|&&i| wanted[i].0 == answer.partition_index) {
                found[i] = Some(PartitionOffset {
                    partition: answer.partition_index,
                    offset: answer.offset,
                    timestamp: answer.timestamp,
                    leader_epoch: answer.leader_epoch,
                });
            }
        }
        Ok(())
    }
}

/// Splits the questions so that none of the rows names a partition twice.
fn rounds(indexes: &[usize], wanted: &[(i32, OffsetAt)]) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for &index in indexes {
        let partition = wanted[index].0;
        let free = rounds.iter().position(|round| round.iter().all(|&i| wanted[i].0 != partition));
        match free {
            Some(round) => rounds[round].push(index),
            None => rounds.push(vec![index]),
        }
    }
    rounds
}

fn creatable(topic: &KafkaTopicSpec) -> CreatableTopic {
    let config = |(name, value): &(String, String)| CreatableTopicConfig {
        name: name.as_str().into(),
        value: Some(value.as_str().into()),
    };
    CreatableTopic {
        name: topic.name.as_str().into(),
        num_partitions: topic.partitions.unwrap_or(-1),
        replication_factor: topic.replication.unwrap_or(-1),
        configs: topic.configs.iter().map(config).collect(),
        ..Default::default()
    }
}

fn created(response: &CreateTopicsResponse, name: &str) -> Result<(), Error> {
    let result = response.topics.iter().find(|topic| topic.name == *name);
    let code = result.map_or(ErrorCode::UnknownServerError.code(), |r| r.error_code);
    let message = result.and_then(|r| r.error_message.as_ref()).map_or(name, |m| m.as_str());
    Error::check(ApiKey::CreateTopics, code, || message.to_owned())
}
