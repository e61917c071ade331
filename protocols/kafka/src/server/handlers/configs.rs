//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sabir_broker::Topic;
use sabir_model::{ShardFailure, TopicConfig, TopicError};
use tokio::time::Instant;

use super::topics::Refused;
use super::weight::TOPIC_SETTINGS;
use super::{Call, Client, Reply, Unanswered, commit_by, decode, first_error, once, within};
use crate::server::broker_config;
use crate::server::map::topic_refusal;
use crate::server::requests::Request;
use crate::server::topic_config::{self, ShownTopicSetting, ValueType};
use crate::wire::messages::{
    alter_configs as replace, describe_configs as describe, incremental_alter_configs as alter,
};
use crate::wire::{ApiKey, ErrorCode, Str};

/// Kinds of things that have settings, as Kafka numbers them.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a setting comes from, as Kafka numbers it.
const SOURCE_TOPIC: i8 = 1;
const SOURCE_BROKER: i8 = 4;
const SOURCE_DEFAULT: i8 = 5;

/// What is done to a setting, as Kafka numbers it.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Where a topic's setting comes from.
pub(super) fn source(shown: &ShownTopicSetting) -> i8 {
    match shown.own {
        true => SOURCE_TOPIC,
        false => broker_source(&shown.default, &shown.built_in),
    }
}

/// Where a broker's setting comes from: its configuration file, if that says something else than what is built in.
fn broker_source(value: &str, built_in: &str) -> i8 {
    if value == built_in { SOURCE_DEFAULT } else { SOURCE_BROKER }
}

pub(super) async fn describe_configs(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: describe::DescribeConfigsRequest = decode(&request)?;
    let resources = once(&body.resources, |r| (r.resource_type, r.resource_name.clone()));
    let mut left = client.memory.total() / 2 / TOPIC_SETTINGS;
    let results: Vec<_> = resources
        .map(|resource| {
            let result = if left == 0 { too_many(resource) } else { described(&client, resource, &body) };
            left -= usize::from(!result.configs.is_empty());
            result
        })
        .collect();
    let error = first_error(results.iter().map(|r| r.error_code));
    Ok(call.reply(&describe::DescribeConfigsResponse { results, ..Default::default() }, error))
}

/// What is refused of an answer that would take more than half of the memory for answers.
fn too_many(resource: &describe::DescribeConfigsResource) -> describe::DescribeConfigsResult {
    let message = "the answer would be larger than what net.frame_memory has room for: ask for fewer at once";
    describe::DescribeConfigsResult {
        error_code: ErrorCode::PolicyViolation.code(),
        error_message: Some(Str::from_static(message)),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..Default::default()
    }
}

fn described(
    client: &Client,
    resource: &describe::DescribeConfigsResource,
    body: &describe::DescribeConfigsRequest,
) -> describe::DescribeConfigsResult {
    let all = match resource.resource_type {
        TOPIC => find_topic(client, &resource.resource_name).map(|topic| {
            let defaults = client.kafka.shown_defaults();
            let settings = topic_config::shown(&topic.config, &defaults);
            settings.map(|shown| topic_setting(shown, body)).collect::<Vec<_>>()
        }),
        BROKER => broker_settings(client, &resource.resource_name, body),
        other => Err(no_settings(other)),
    };
    let base = describe::DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.clone(),
        ..Default::default()
    };
    match all {
        Ok(mut configs) => {
            if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
                configs.retain(|c| keys.contains(&c.name));
            }
            describe::DescribeConfigsResult { configs, ..base }
        }
        Err((error, message)) => describe::DescribeConfigsResult {
            error_code: error.code(),
            error_message: Some(Str::from(message)),
            ..base
        },
    }
}

fn find_topic(client: &Client, name: &str) -> Result<Arc<Topic>, Refused> {
    crate::server::names::topic_name(name)
        .map_err(|_| (ErrorCode::InvalidTopic, "no topic can have this name".to_string()))?;
    client.topic(name).ok_or_else(|| (ErrorCode::UnknownTopicOrPartition, "no such topic".into()))
}

fn no_settings(resource_type: i8) -> Refused {
    let message =
        format!("only topics (2) and brokers (4) have settings here, not resources of type {resource_type}");
    (ErrorCode::InvalidRequest, message)
}

fn topic_setting(
    shown: ShownTopicSetting,
    body: &describe::DescribeConfigsRequest,
) -> describe::DescribeConfigsResourceResult {
    let mut synonyms = Vec::new();
    if body.include_synonyms {
        if shown.own {
            synonyms.push(synonym(shown.name, &shown.value, SOURCE_TOPIC));
        }
        if let Some(name) = shown.broker_name {
            synonyms.extend(broker_synonyms(name, &shown.default, &shown.built_in));
        }
    }
    describe::DescribeConfigsResourceResult {
        name: Str::from_static(shown.name),
        read_only: shown.fixed,
        config_source: source(&shown),
        is_sensitive: false,
        synonyms,
        config_type: shown.value_type as i8,
        documentation: body.include_documentation.then(|| Str::from_static(shown.help)),
        value: Some(Str::from(shown.value)),
    }
}

fn synonym(name: &'static str, value: &str, source: i8) -> describe::DescribeConfigsSynonym {
    describe::DescribeConfigsSynonym {
        name: Str::from_static(name),
        value: Some(Str::from(value.to_owned())),
        source,
    }
}

/// Settings of Kafka's brokers that have no default of their own: one in another unit has it.
const WITHOUT_DEFAULT: [&str; 4] =
    ["log.flush.interval.ms", "log.retention.ms", "log.roll.jitter.ms", "log.roll.ms"];

/// A broker's setting by all places that say something of it, the one that holds first.
fn broker_synonyms(
    name: &'static str,
    value: &str,
    built_in: &str,
) -> impl Iterator<Item = describe::DescribeConfigsSynonym> {
    let from_file = (value != built_in).then(|| synonym(name, value, SOURCE_BROKER));
    let has_default = !built_in.is_empty() && !WITHOUT_DEFAULT.contains(&name);
    let default = has_default.then(|| synonym(name, built_in, SOURCE_DEFAULT));
    from_file.into_iter().chain(default)
}

/// What tools ask a broker about itself. It is read from the configuration file and not to be changed from here.
fn broker_settings(
    client: &Client,
    name: &str,
    body: &describe::DescribeConfigsRequest,
) -> Result<Vec<describe::DescribeConfigsResourceResult>, Refused> {
    if name.is_empty() {
        // The settings of all brokers together: nothing is set there.
        return Ok(Vec::new());
    }
    check_broker(client, name)?;
    let setting = |shown: broker_config::ShownBrokerSetting| {
        let mut synonyms = Vec::new();
        if body.include_synonyms {
            synonyms.extend(broker_synonyms(shown.name, &shown.value, &shown.built_in));
        }
        describe::DescribeConfigsResourceResult {
            name: Str::from_static(shown.name),
            read_only: true,
            config_source: broker_source(&shown.value, &shown.built_in),
            is_sensitive: false,
            synonyms,
            config_type: shown.value_type as i8,
            documentation: body.include_documentation.then(|| Str::from_static(shown.help)),
            value: Some(Str::from(shown.value)),
        }
    };
    Ok(broker_config::shown(client).into_iter().map(setting).collect())
}

fn check_broker(client: &Client, name: &str) -> Result<(), Refused> {
    if name.parse() == Ok(client.kafka.node_id()) {
        return Ok(());
    }
    let message = format!("there is broker {} only, not \"{name}\"", client.kafka.node_id());
    Err((ErrorCode::InvalidRequest, message))
}

/// A change of one setting.
struct Change<'a> {
    name: &'a str,
    operation: i8,
    value: Option<&'a str>,
}

impl Change<'_> {
    fn asks_for_compaction(&self) -> bool {
        let sets = matches!(self.operation, SET | APPEND);
        sets && self.value.is_some_and(|value| topic_config::asks_for_compaction(self.name, value))
    }
}

pub(super) async fn incremental_alter_configs(
    client: Arc<Client>,
    request: Request,
) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: alter::IncrementalAlterConfigsRequest = decode(&request)?;
    drop(request);
    let named = Named::count(body.resources.iter().map(|r| (r.resource_type, &*r.resource_name)));
    let mut until = commit_by();
    let mut responses = Vec::with_capacity(body.resources.len());
    for resource in &body.resources {
        let change = |c: &'_ alter::AlterableConfig| (c.name.clone(), c.config_operation, c.value.clone());
        let changes: Vec<_> = resource.configs.iter().map(change).collect();
        let changes = changes.iter().map(|(name, operation, value)| Change {
            name,
            operation: *operation,
            value: value.as_deref(),
        });
        let target = (resource.resource_type, &*resource.resource_name);
        let outcome = match named.check(target) {
            Ok(()) => {
                change_resource(&client, target, changes.collect(), false, body.validate_only, until).await
            }
            Err(refused) => Err(refused),
        };
        let (error, message) = split(outcome);
        // Each has its time, but after one that was late none is waited for.
        if error != ErrorCode::RequestTimedOut {
            until = commit_by();
        }
        responses.push(alter::AlterConfigsResourceResponse {
            error_code: error.code(),
            error_message: message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        });
    }
    let error = first_error(responses.iter().map(|r| r.error_code));
    Ok(call.reply(&alter::IncrementalAlterConfigsResponse { responses, ..Default::default() }, error))
}

/// Replaces all settings: what is not named goes back to what holds where a topic says nothing.
pub(super) async fn alter_configs(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: replace::AlterConfigsRequest = decode(&request)?;
    drop(request);
    let named = Named::count(body.resources.iter().map(|r| (r.resource_type, &*r.resource_name)));
    let mut until = commit_by();
    let mut responses = Vec::with_capacity(body.resources.len());
    for resource in &body.resources {
        let changes = resource.configs.iter().map(|c| Change {
            name: &c.name,
            operation: SET,
            value: c.value.as_deref(),
        });
        let target = (resource.resource_type, &*resource.resource_name);
        let outcome = match named.check(target) {
            Ok(()) => {
                change_resource(&client, target, changes.collect(), true, body.validate_only, until).await
            }
            Err(refused) => Err(refused),
        };
        let (error, message) = split(outcome);
        // Each has its time, but after one that was late none is waited for.
        if error != ErrorCode::RequestTimedOut {
            until = commit_by();
        }
        responses.push(replace::AlterConfigsResourceResponse {
            error_code: error.code(),
            error_message: message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        });
    }
    let error = first_error(responses.iter().map(|r| r.error_code));
    Ok(call.reply(&replace::AlterConfigsResponse { responses, ..Default::default() }, error))
}

/// How often each resource is named in a request.
struct Named<'a>(HashMap<(i8, &'a str), usize>);

impl<'a> Named<'a> {
    fn count(resources: impl Iterator<Item = (i8, &'a str)>) -> Self {
        let mut counts = HashMap::new();
        resources.for_each(|resource| *counts.entry(resource).or_default() += 1);
        Self(counts)
    }

    fn check(&self, resource: (i8, &str)) -> Result<(), Refused> {
        match self.0.get(&resource) {
            Some(1) => Ok(()),
            _ => Err((ErrorCode::InvalidRequest, "the request names the resource twice".into())),
        }
    }
}

async fn change_resource(
    client: &Client,
    (resource_type, name): (i8, &str),
    changes: Vec<Change<'_>>,
    from_defaults: bool,
    validate_only: bool,
    until: Instant,
) -> Result<(), Refused> {
    let api = if from_defaults { ApiKey::AlterConfigs } else { ApiKey::IncrementalAlterConfigs };
    match resource_type {
        TOPIC => {}
        // Nothing is ever set for a broker from here, so there is nothing to take away. Kafka's tools do it at the end of a move.
        BROKER if !from_defaults && changes.iter().all(|change| change.operation == DELETE) => {
            return if name.is_empty() { Ok(()) } else { check_broker(client, name) };
        }
        BROKER => {
            let message = "a broker's settings are read from its configuration file when it starts";
            client.refused(api, message);
            return Err((ErrorCode::InvalidRequest, message.into()));
        }
        other => {
            let (error, message) = no_settings(other);
            client.refused(api, &message);
            return Err((error, message));
        }
    }
    let topic = find_topic(client, name)?;
    let defaults = &client.kafka.broker.options().defaults;
    let change =
        |config: &mut TopicConfig| apply_all(config, &changes, from_defaults.then_some(defaults), defaults);
    let done = match validate_only {
        true => client.kafka.broker.check_change(&client.caller, topic.id, change),
        false => {
            within(until, client.kafka.broker.change_topic(&client.caller, topic.id, change)).await.map(drop)
        }
    };
    done.map_err(|NotChanged(refused)| {
        if refused.0 == ErrorCode::InvalidConfig && changes.iter().any(Change::asks_for_compaction) {
            client.refused(api, topic_config::NO_COMPACTION_YET);
        }
        refused
    })
}

/// Why settings are not changed.
struct NotChanged(Refused);

impl From<TopicError> for NotChanged {
    fn from(error: TopicError) -> Self {
        Self(topic_refusal(&error))
    }
}

impl From<ShardFailure> for NotChanged {
    fn from(failure: ShardFailure) -> Self {
        TopicError::from(failure).into()
    }
}

/// Applies changes to what holds, or to what a topic begins with.
fn apply_all(
    config: &mut TopicConfig,
    changes: &[Change<'_>],
    from: Option<&TopicConfig>,
    defaults: &TopicConfig,
) -> Result<(), NotChanged> {
    if let Some(from) = from {
        *config = TopicConfig { kind: config.kind.clone(), ..from.clone() };
    }
    let mut seen = HashSet::with_capacity(changes.len());
    for change in changes {
        if !seen.insert(change.name) {
            return Err(NotChanged((ErrorCode::InvalidRequest, format!("{}: is named twice", change.name))));
        }
        apply(config, change, defaults).map_err(NotChanged)?;
    }
    topic_config::check(config).map_err(|problem| NotChanged((ErrorCode::InvalidConfig, problem)))
}

fn apply(config: &mut TopicConfig, change: &Change<'_>, defaults: &TopicConfig) -> Result<(), Refused> {
    let invalid = |problem| (ErrorCode::InvalidConfig, problem);
    let value = || {
        let missing = || (ErrorCode::InvalidRequest, format!("{}: has no value", change.name));
        change.value.ok_or_else(missing)
    };
    match change.operation {
        SET => topic_config::set(config, change.name, value()?).map_err(invalid),
        DELETE => {
            topic_config::reset(config, change.name, defaults);
            Ok(())
        }
        APPEND | SUBTRACT => {
            let shown = topic_config::shown(config, defaults).find(|s| s.name == change.name);
            let shown =
                shown.ok_or_else(|| invalid(format!("{}: no topic setting has this name", change.name)))?;
            if shown.value_type != ValueType::List {
                return Err(invalid(format!("{}: is no list to append to or to subtract from", change.name)));
            }
            let list = edited(&shown.value, value()?, change.operation == APPEND);
            topic_config::set(config, change.name, &list).map_err(invalid)
        }
        other => Err((ErrorCode::InvalidRequest, format!("operation {other} is not known"))),
    }
}

fn edited(list: &str, items: &str, append: bool) -> String {
    let items: Vec<&str> = items.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    let old = list.split(',').filter(|item| !item.is_empty() && !items.contains(item));
    old.chain(items.iter().copied().filter(|_| append)).collect::<Vec<_>>().join(",")
}

fn split(outcome: Result<(), Refused>) -> (ErrorCode, Option<Str>) {
    match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err((error, message)) => (error, Some(Str::from(message))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_edited_item_by_item() {
        assert_eq!(edited("delete", "compact", true), "delete,compact");
        assert_eq!(edited("delete", "delete", true), "delete");
        assert_eq!(edited("delete,compact", "compact", false), "delete");
        assert_eq!(edited("", "a, b", true), "a,b");
        assert_eq!(edited("delete", "delete", false), "");
    }
}
