//! Changes of topics that exist: settings, partitions, records deleted.

use sabir_frontend::client::{SettingChange, TopicSetting};

use super::{Error, KafkaClient, TopicMetadata};
use crate::wire::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use crate::wire::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use crate::wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use crate::wire::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use crate::wire::{ApiKey, ErrorCode};

/// A topic, as Kafka numbers the kinds of things that have settings.
const TOPIC: i8 = 2;
/// A setting that the topic itself has, as Kafka numbers where settings come from.
const SOURCE_TOPIC: i8 = 1;
/// What is done to a setting, as Kafka numbers it.
const SET: i8 = 0;
const DELETE: i8 = 1;

impl KafkaClient {
    /// A topic's settings, by name.
    ///
    /// # Errors
    /// There is no such topic, or no broker answers.
    pub async fn topic_settings(&self, topic: &str) -> Result<Vec<TopicSetting>, Error> {
        let resource = DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: topic.into(),
            configuration_keys: None,
        };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            include_documentation: true,
            ..Default::default()
        };
        let response = self.call(&request).await?;
        let none = || unanswered(ApiKey::DescribeConfigs, topic);
        let found = response.results.into_iter().next().ok_or_else(none)?;
        let about = || found.error_message.as_ref().map_or(topic, |m| m.as_str()).to_owned();
        Error::check(ApiKey::DescribeConfigs, found.error_code, about)?;
        let mut settings: Vec<_> = found.configs.into_iter().map(setting).collect();
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(settings)
    }

    /// Changes settings of a topic, all or none, or only checks that they could be changed.
    ///
    /// # Errors
    /// There is no such topic or setting, a value is refused, or no broker answers.
    pub async fn change_topic(
        &self,
        topic: &str,
        changes: &[SettingChange],
        dry_run: bool,
    ) -> Result<(), Error> {
        let config = |change: &SettingChange| AlterableConfig {
            name: change.name.as_str().into(),
            config_operation: if change.value.is_some() { SET } else { DELETE },
            value: change.value.as_deref().map(Into::into),
        };
        let resource = AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: topic.into(),
            configs: changes.iter().map(config).collect(),
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: dry_run };
        let response = self.controller().await?.call(&request).await?;
        let none = || unanswered(ApiKey::IncrementalAlterConfigs, topic);
        let changed = response.responses.first().ok_or_else(none)?;
        let about = || changed.error_message.as_ref().map_or(topic, |m| m.as_str()).to_owned();
        Error::check(ApiKey::IncrementalAlterConfigs, changed.error_code, about)
    }

    /// Gives a topic more partitions, `total` in all, or only checks that it could have them.
    ///
    /// # Errors
    /// There is no such topic, it has as many already, or no broker answers.
    pub async fn add_partitions(&self, topic: &str, total: i32, dry_run: bool) -> Result<(), Error> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic { name: topic.into(), count: total, assignments: None }],
            timeout_ms: self.timeout_ms(),
            validate_only: dry_run,
        };
        let response = self.controller().await?.call_waiting(&request, self.answer_within()).await?;
        let none = || unanswered(ApiKey::CreatePartitions, topic);
        let made = response.results.first().ok_or_else(none)?;
        let about = || made.error_message.as_ref().map_or(topic, |m| m.as_str()).to_owned();
        Error::check(ApiKey::CreatePartitions, made.error_code, about)
    }

    /// Deletes the records before these offsets (partition, offset); answers with the first offsets that are left.
    ///
    /// # Errors
    /// There is no such topic, partition or offset, or a leader does not answer.
    pub async fn delete_records(&self, topic: &str, before: &[(i32, i64)]) -> Result<Vec<(i32, i64)>, Error> {
        let patience = self.patience();
        loop {
            let deleted = match self.topic(topic, false).await {
                Ok(topic) => self.delete_records_once(&topic, before).await,
                Err(error) => Err(error),
            };
            if !patience.again(&deleted).await {
                return deleted;
            }
        }
    }

    async fn delete_records_once(
        &self,
        topic: &TopicMetadata,
        before: &[(i32, i64)],
    ) -> Result<Vec<(i32, i64)>, Error> {
        let leader = |partition: i32| topic.leaders.get(partition as usize).copied().unwrap_or(-1);
        let mut nodes: Vec<i32> = before.iter().map(|(partition, _)| leader(*partition)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut starts = Vec::with_capacity(before.len());
        for node in nodes {
            let here = before.iter().filter(|(partition, _)| leader(*partition) == node);
            let partition =
                |&(partition_index, offset): &(i32, i64)| DeleteRecordsPartition { partition_index, offset };
            let topics = vec![DeleteRecordsTopic {
                name: topic.name.clone(),
                partitions: here.map(partition).collect(),
            }];
            let request = DeleteRecordsRequest { topics, timeout_ms: self.timeout_ms() };
            let response = self.node(node).await?.call_waiting(&request, self.answer_within()).await?;
            for deleted in response.topics.iter().flat_map(|t| &t.partitions) {
                let about = || format!("{}-{}", topic.name, deleted.partition_index);
                Error::check(ApiKey::DeleteRecords, deleted.error_code, about)?;
                starts.push((deleted.partition_index, deleted.low_watermark));
            }
        }
        starts.sort_unstable();
        Ok(starts)
    }
}

fn unanswered(api: ApiKey, topic: &str) -> Error {
    Error::Broker { api, code: ErrorCode::UnknownServerError, message: topic.into() }
}

fn setting(config: DescribeConfigsResourceResult) -> TopicSetting {
    TopicSetting {
        name: config.name.to_string(),
        value: config.value.filter(|_| !config.is_sensitive).map(|v| v.to_string()),
        own: config.config_source == SOURCE_TOPIC,
        read_only: config.read_only,
        help: config.documentation.map(|d| d.to_string()),
    }
}
