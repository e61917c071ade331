//! CreateTopics, CreatePartitions and DeleteTopics.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sabir_broker::{NewTopic, Topic};
use sabir_model::{ShardFailure, TopicConfig, TopicError, TopicId};
use tokio::time::Instant;

use super::{Call, Client, Reply, Unanswered, decode, first_error, once, patience, weight, within};
use crate::server::map::{collides, topic_refusal};
use crate::server::requests::Request;
use crate::server::{names, topic_config};
use crate::wire::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use crate::wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfigs, CreatableTopicResult,
    CreateTopicsRequest, CreateTopicsResponse,
};
use crate::wire::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::wire::{ApiKey, ErrorCode, Str, Uuid};

/// The broker's own choice, where a request gives a number of partitions or replicas.
const DEFAULT: i32 = -1;

/// A code and what is to be read with it.
pub(super) type Refused = (ErrorCode, String);

pub(super) async fn create_topics(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: CreateTopicsRequest = decode(&request)?;
    drop(request);
    let until = Instant::now() + patience(body.timeout_ms);
    if body.topics.len() > weight::most_topics(&client) {
        return Ok(too_many(&client, call, &body.topics));
    }
    let twice = repeated(body.topics.iter().map(|topic| &*topic.name));
    let wanted: Vec<&CreatableTopic> = once(&body.topics, |topic| topic.name.clone()).collect();
    let plan = |topic: &&CreatableTopic| {
        if twice.contains(&*topic.name) {
            return Err((ErrorCode::InvalidRequest, "Duplicate topic name.".into()));
        }
        plan(&client, topic)
    };
    let planned: Vec<Result<NewTopic, Refused>> = wanted.iter().map(plan).collect();
    let outcomes = match body.validate_only {
        true => validated(&client, planned),
        false => create(&client, planned, until).await,
    };
    let answer = |(topic, outcome): (&&CreatableTopic, Outcome)| match outcome {
        Ok((new, id)) => created(&client, topic.name.clone(), &new, id),
        Err(refused) => not_created(topic.name.clone(), refused),
    };
    let topics: Vec<_> = wanted.iter().zip(outcomes).map(answer).collect();
    let error = first_error(topics.iter().map(|t| t.error_code));
    Ok(call.reply(&CreateTopicsResponse { topics, ..Default::default() }, error))
}

/// Refuses to make any of topics of which there are more than an answer may be about.
fn too_many(client: &Client, call: Call, topics: &[CreatableTopic]) -> Reply {
    let (error, most) = (ErrorCode::PolicyViolation, weight::most_topics(client));
    client.complain(format_args!(
        "its request to make {} topics is refused: {most} at once are the most",
        topics.len()
    ));
    let message = Str::from(format!("no more than {most} topics are made at once (see net.frame_memory)"));
    let refused = |topic: &CreatableTopic| CreatableTopicResult {
        name: topic.name.clone(),
        error_code: error.code(),
        error_message: Some(message.clone()),
        ..Default::default()
    };
    let topics = once(topics, |topic| topic.name.clone()).map(refused).collect();
    call.reply(&CreateTopicsResponse { topics, ..Default::default() }, error)
}

fn repeated<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

/// What became of a topic: its id, or why there is none.
type Outcome = Result<(NewTopic, TopicId), Refused>;

/// What would be made. As with Kafka, each has an id, and another one each time.
fn validated(client: &Client, planned: Vec<Result<NewTopic, Refused>>) -> Vec<Outcome> {
    let mut alike: HashMap<String, String> = HashMap::new();
    let judge = |planned: Result<NewTopic, Refused>| {
        let new = planned?;
        match alike.entry(new.name.replace('.', "_")) {
            Entry::Occupied(other) => Err((ErrorCode::InvalidTopic, collides(&new.name, other.get()))),
            Entry::Vacant(free) => {
                free.insert(new.name.clone());
                Ok((new, client.kafka.broker.fresh_topic_id()))
            }
        }
    };
    planned.into_iter().map(judge).collect()
}

async fn create(client: &Client, planned: Vec<Result<NewTopic, Refused>>, until: Instant) -> Vec<Outcome> {
    let good: Vec<NewTopic> = planned.iter().filter_map(|p| p.as_ref().ok().cloned()).collect();
    let made = match good.len() {
        0 => Vec::new(),
        count => all_within(until, count, client.kafka.broker.create_topics(&client.caller, good)).await,
    };
    let mut made = made.into_iter();
    let outcome = |planned: Result<NewTopic, Refused>| {
        let new = planned?;
        match made.next().unwrap_or(Err(ShardFailure::Timeout.into())) {
            Ok(topic) => Ok((new, topic.id)),
            Err(error) => Err(topic_refusal(&error)),
        }
    };
    planned.into_iter().map(outcome).collect()
}

/// What became of things that are done together, or that none of them was in time.
async fn all_within<T>(
    until: Instant,
    count: usize,
    work: impl Future<Output = Vec<Result<T, TopicError>>>,
) -> Vec<Result<T, TopicError>> {
    let late = || (0..count).map(|_| Err(ShardFailure::Timeout.into())).collect();
    tokio::time::timeout_at(until, work).await.unwrap_or_else(|_| late())
}

/// Checks what is asked for, in the order in which Kafka does.
fn plan(client: &Client, topic: &CreatableTopic) -> Result<NewTopic, Refused> {
    let name = names::topic_name(&topic.name).ok().filter(|name| names::may_be_made(name));
    let name = name.ok_or_else(|| (ErrorCode::InvalidTopic, names::why_illegal(&topic.name)))?;
    let mut new = NewTopic {
        name: name.into_owned(),
        partitions: 1,
        config: client.kafka.broker.options().defaults.clone(),
        internal: false,
        unlike: true,
    };
    client.kafka.broker.check_topic_name(&client.caller, &new).map_err(|error| topic_refusal(&error))?;
    new.partitions = partitions(client, topic)?;
    for setting in &topic.configs {
        let refused = |problem| (ErrorCode::InvalidConfig, problem);
        let value =
            setting.value.as_deref().ok_or_else(|| refused(format!("{}: has no value", setting.name)))?;
        if topic_config::asks_for_compaction(&setting.name, value) {
            client.refused(ApiKey::CreateTopics, topic_config::NO_COMPACTION_YET);
        }
        topic_config::set(&mut new.config, &setting.name, value).map_err(refused)?;
    }
    topic_config::check(&new.config).map_err(|problem| (ErrorCode::InvalidConfig, problem))?;
    client.kafka.broker.check_new_topic(&client.caller, &new).map_err(|error| topic_refusal(&error))?;
    Ok(new)
}

/// Whether a topic is kept by the broker, or by Kafka under its name: clients do not write to it.
pub(super) fn is_internal(topic: &Topic) -> bool {
    topic.internal || names::is_internal(&topic.name)
}

fn partitions(client: &Client, topic: &CreatableTopic) -> Result<u32, Refused> {
    let max = client.kafka.broker.options().partitions_max;
    let count = if topic.assignments.is_empty() {
        check_factor(topic.replication_factor.into())?;
        match topic.num_partitions {
            DEFAULT => client.kafka.config.num_partitions,
            count => u32::try_from(count).unwrap_or(0),
        }
    } else {
        if topic.num_partitions != DEFAULT || i32::from(topic.replication_factor) != DEFAULT {
            let problem = "replicas are assigned, so partitions and replication factor must be -1";
            return Err((ErrorCode::InvalidRequest, problem.into()));
        }
        assigned(client.kafka.node_id(), &topic.assignments)?
    };
    if (1..=max).contains(&count) {
        Ok(count)
    } else {
        Err((
            ErrorCode::InvalidPartitions,
            format!("a topic has 1 to {max} partitions (topic.max_partitions)"),
        ))
    }
}

/// Refuses a number of replicas other than the one there is.
fn check_factor(factor: i32) -> Result<(), Refused> {
    match factor {
        DEFAULT | 1 => Ok(()),
        other => Err((
            ErrorCode::InvalidReplicationFactor,
            format!("there is 1 broker, so 1 replica and not {other}"),
        )),
    }
}

/// The number of partitions that an assignment of replicas means.
fn assigned(node_id: i32, assignments: &[CreatableReplicaAssignment]) -> Result<u32, Refused> {
    let mut indexes: Vec<i32> = assignments.iter().map(|a| a.partition_index).collect();
    indexes.sort_unstable();
    let dense = indexes.iter().zip(0..).all(|(index, expected)| *index == expected);
    let here = assignments.iter().all(|a| a.broker_ids == [node_id]);
    if dense && here {
        Ok(assignments.len() as u32)
    } else {
        let problem = format!("partitions run from 0, each with its one replica on broker {node_id}");
        Err((ErrorCode::InvalidReplicaAssignment, problem))
    }
}

fn created(client: &Client, name: Str, new: &NewTopic, id: TopicId) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        topic_id: id.0,
        num_partitions: new.partitions as i32,
        replication_factor: 1,
        configs: Some(configs(&new.config, &client.kafka.shown_defaults())),
        ..Default::default()
    }
}

fn configs(config: &TopicConfig, defaults: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    topic_config::shown(config, defaults)
        .map(|shown| CreatableTopicConfigs {
            name: Str::from_static(shown.name),
            config_source: super::configs::source(&shown),
            read_only: shown.fixed,
            value: Some(Str::from(shown.value)),
            is_sensitive: false,
        })
        .collect()
}

fn not_created(name: Str, (error, message): Refused) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error.code(),
        error_message: Some(Str::from(message)),
        ..Default::default()
    }
}

pub(super) async fn create_partitions(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: CreatePartitionsRequest = decode(&request)?;
    drop(request);
    let until = Instant::now() + patience(body.timeout_ms);
    let twice = repeated(body.topics.iter().map(|topic| &*topic.name));
    let mut results = Vec::with_capacity(body.topics.len());
    for wanted in &body.topics {
        let outcome = match twice.contains(&&*wanted.name) {
            true => Err((ErrorCode::InvalidRequest, "the request names the topic twice".into())),
            false => grow(&client, wanted, body.validate_only, until).await,
        };
        let (error, error_message) = match outcome {
            Ok(()) => (ErrorCode::None, None),
            Err((error, message)) => (error, Some(Str::from(message))),
        };
        let name = wanted.name.clone();
        results.push(CreatePartitionsTopicResult { name, error_code: error.code(), error_message });
    }
    let error = first_error(results.iter().map(|r| r.error_code));
    Ok(call.reply(&CreatePartitionsResponse { results, ..Default::default() }, error))
}

async fn grow(
    client: &Client,
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
    until: Instant,
) -> Result<(), Refused> {
    let unknown = || (ErrorCode::UnknownTopicOrPartition, "no such topic".to_string());
    let topic = client.topic(&wanted.name).ok_or_else(unknown)?;
    let count = u32::try_from(wanted.count).unwrap_or(0);
    let has = client.kafka.broker.check_new_partitions(&client.caller, topic.id, count);
    let has = has.map_err(|error| topic_refusal(&error))?;
    if let Some(assignments) = &wanted.assignments {
        let here = assignments.iter().all(|a| a.broker_ids == [client.kafka.node_id()]);
        if assignments.len() as u32 != count - has || !here {
            let problem =
                format!("each new partition has its one replica on broker {}", client.kafka.node_id());
            return Err((ErrorCode::InvalidReplicaAssignment, problem));
        }
    }
    if validate_only {
        return Ok(());
    }
    if Instant::now() >= until {
        return Err(topic_refusal(&ShardFailure::Timeout.into()));
    }
    let grown = within(until, client.kafka.broker.create_partitions(&client.caller, topic.id, count)).await;
    grown.map(drop).map_err(|error| topic_refusal(&error))
}

pub(super) async fn delete_topics(client: Arc<Client>, request: Request) -> Result<Reply, Unanswered> {
    let call = Call::of(&request);
    let body: DeleteTopicsRequest = decode(&request)?;
    drop(request);
    let until = Instant::now() + patience(body.timeout_ms);
    let by_name = |name: Str| DeleteTopicState { name: Some(name), ..Default::default() };
    let wanted: Vec<_> = body.topics.into_iter().chain(body.topic_names.into_iter().map(by_name)).collect();
    let found: Vec<_> = find_all(&client, &wanted);
    let ids: Vec<TopicId> = found.iter().filter_map(|f| f.as_ref().ok().map(|topic| topic.id)).collect();
    let deleted = match ids.len() {
        0 => Vec::new(),
        count => all_within(until, count, client.kafka.broker.delete_topics(&client.caller, ids)).await,
    };
    let mut deleted = deleted.into_iter();
    let outcomes = found.into_iter().map(|found| {
        found.and_then(|topic| match deleted.next() {
            Some(Ok(())) => Ok(topic),
            Some(Err(error)) => Err(topic_refusal(&error)),
            None => Err((ErrorCode::UnknownServerError, "the broker did not answer".into())),
        })
    });
    let responses: Vec<_> = wanted.iter().zip(outcomes).map(|(w, outcome)| deletion(w, outcome)).collect();
    let error = first_error(responses.iter().map(|r| r.error_code));
    Ok(call.reply(&DeleteTopicsResponse { responses, ..Default::default() }, error))
}

fn find_all(client: &Client, wanted: &[DeleteTopicState]) -> Vec<Result<Arc<Topic>, Refused>> {
    let found: Vec<_> = wanted.iter().map(|w| find(client, w.name.as_deref(), w.topic_id)).collect();
    let mut counts: HashMap<TopicId, usize> = HashMap::new();
    found.iter().flatten().for_each(|topic| *counts.entry(topic.id).or_default() += 1);
    let once = |topic: Arc<Topic>| {
        let twice = || (ErrorCode::InvalidRequest, "the request names the topic twice".to_string());
        if counts[&topic.id] > 1 { Err(twice()) } else { Ok(topic) }
    };
    found.into_iter().map(|found| found.and_then(once)).collect()
}

fn find(client: &Client, name: Option<&str>, id: Uuid) -> Result<Arc<Topic>, Refused> {
    match (name, id == [0; 16]) {
        (Some(name), true) => {
            let unknown = || (ErrorCode::UnknownTopicOrPartition, "no such topic".to_string());
            client.topic(name).ok_or_else(unknown)
        }
        (None, false) => {
            let unknown = || (ErrorCode::UnknownTopicId, "no topic has this id".to_string());
            client.topic_by_id(id).ok_or_else(unknown)
        }
        _ => Err((ErrorCode::InvalidRequest, "a topic is named by its name or by its id".into())),
    }
}

fn deletion(wanted: &DeleteTopicState, outcome: Result<Arc<Topic>, Refused>) -> DeletableTopicResult {
    let (name, topic_id) = (wanted.name.clone(), wanted.topic_id);
    match outcome {
        Ok(topic) => DeletableTopicResult {
            name: Some(Str::from(&*names::client_name(&topic.name))),
            topic_id: topic.id.0,
            ..Default::default()
        },
        Err((error, message)) => DeletableTopicResult {
            name,
            topic_id,
            error_code: error.code(),
            error_message: Some(Str::from(message)),
        },
    }
}
