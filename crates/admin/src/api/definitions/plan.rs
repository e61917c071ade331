//! What a document asks for, judged before anything is done: what is there, what is to be made, and what cannot be.

use std::collections::{HashMap, HashSet};

use axum::http::StatusCode;
use sabir_broker::exchange::{
    ExchangeError, ExchangeKind, ExchangeSpec, Exchanges, NamedBinding, NamedDestination,
};
use sabir_broker::{Broker, Caller, NewTopic, Topic};
use sabir_model::{TopicConfig, TopicError};

use super::super::problem::Problem;
use super::document::{
    BindingDefinition, DefinitionsDocument, ExchangeDefinition, TopicDefinition, WantedQueue, WantedTopic,
};

/// Refusals that are told one by one.
const TOLD: usize = 20;

/// All that a document names, and what of it is absent.
#[derive(Default)]
pub struct Plan {
    pub planned: Planned,
    pub absent: Absent,
}

/// By list, each with whether it is absent.
#[derive(Default)]
pub struct Planned {
    pub topics: Vec<(String, bool)>,
    pub queues: Vec<(String, bool)>,
    pub exchanges: Vec<(String, bool)>,
    pub bindings: Vec<(BindingDefinition, bool)>,
}

/// What is to be made.
#[derive(Default)]
pub struct Absent {
    /// And queues.
    pub topics: Vec<NewTopic>,
    pub exchanges: Vec<(String, ExchangeSpec)>,
    pub bindings: Vec<NamedBinding>,
    /// Whether an exchange of the document delays.
    pub delays: bool,
}

impl Absent {
    pub fn count(&self) -> usize {
        self.topics.len() + self.exchanges.len() + self.bindings.len()
    }
}

impl Plan {
    /// # Errors
    /// All that stands against it.
    pub fn of(broker: &Broker, caller: &Caller, document: DefinitionsDocument) -> Result<Self, Problem> {
        let mut planning = Planning {
            broker,
            exchanges: broker.exchanges(),
            caller,
            plan: Self::default(),
            topics: HashSet::new(),
            specs: HashMap::new(),
            refused: Vec::new(),
        };
        document.topics.into_iter().for_each(|topic| planning.topic(topic));
        document.queues.into_iter().for_each(|queue| planning.queue(queue));
        document.exchanges.into_iter().for_each(|exchange| planning.exchange(&exchange));
        planning.bindings(document.bindings);
        planning.finish()
    }
}

struct Planning<'a> {
    broker: &'a Broker,
    exchanges: &'a Exchanges,
    caller: &'a Caller,
    plan: Plan,
    /// The names of the document's topics and queues, which are of one space.
    topics: HashSet<String>,
    /// Its exchanges.
    specs: HashMap<String, ExchangeSpec>,
    refused: Vec<Problem>,
}

impl Planning<'_> {
    fn finish(mut self) -> Result<Plan, Problem> {
        let Absent { topics, exchanges, bindings, .. } = &self.plan.absent;
        let room = room(self.broker, topics).err().map(Problem::from);
        self.refused.extend(room);
        let room = self.exchanges.check_room_for(self.caller, exchanges, bindings);
        self.refused.extend(room.err().map(Problem::from));
        match Problem::all(self.refused, TOLD) {
            None => Ok(self.plan),
            Some(problem) => Err(problem),
        }
    }

    fn topic(&mut self, wanted: WantedTopic) {
        if !self.topics.insert(wanted.name.clone()) {
            return self.refused.push(twice("topic", &wanted.name));
        }
        let config = wanted.config(&self.broker.options().defaults);
        let (name, is_queue) = (wanted.name.clone(), wanted.is_queue());
        match self.judge_topic(wanted.name, wanted.partitions, config) {
            Ok(Some(_)) if is_queue => {
                let detail = format!("topic {name:?} is a queue, which stands among the document's queues");
                self.refused.push(Problem::invalid(detail));
            }
            Ok(new) => {
                self.plan.planned.topics.push((name, new.is_some()));
                self.plan.absent.topics.extend(new);
            }
            Err(problem) => self.refused.push(problem),
        }
    }

    fn queue(&mut self, wanted: WantedQueue) {
        if !self.topics.insert(wanted.name.clone()) {
            return self.refused.push(twice("queue", &wanted.name));
        }
        let config = wanted.config(&self.broker.options().defaults);
        match self.judge_topic(wanted.name.clone(), 1, config) {
            Ok(new) => {
                self.plan.planned.queues.push((wanted.name, new.is_some()));
                self.plan.absent.topics.extend(new);
            }
            Err(problem) => self.refused.push(problem),
        }
    }

    /// The topic to be made, if it is to be made and can be.
    fn judge_topic(
        &self,
        name: String,
        partitions: u32,
        config: TopicConfig,
    ) -> Result<Option<NewTopic>, Problem> {
        if let Some(there) = self.broker.catalog().topic_of(self.caller, &name) {
            let mut known = TopicConfig::clone(&there.config);
            known.inherit(&self.broker.options().defaults);
            let known = TopicDefinition::new(&name, there.partitions.len() as u32, &known);
            return same(there, &known, &TopicDefinition::new(&name, partitions, &config)).map(|()| None);
        }
        let topic = NewTopic { name, partitions, config, internal: false, unlike: false };
        let judged = self.broker.check_new_topic(self.caller, &topic);
        judged.map_err(|error| Problem::from(error).about(&format!("topic {:?}", topic.name)))?;
        Ok(Some(topic))
    }

    fn exchange(&mut self, wanted: &ExchangeDefinition) {
        let (name, spec) = (&wanted.name, wanted.spec());
        if self.specs.insert(name.clone(), spec.clone()).is_some() {
            return self.refused.push(twice("exchange", name));
        }
        if spec.delayed && !self.broker.can_delay() {
            let detail = format!("exchange {name:?} delays messages, and nothing here keeps them back");
            return self.refused.push(Problem::invalid(detail));
        }
        self.plan.absent.delays |= spec.delayed;
        match self.exchanges.check(self.caller, name, &spec) {
            Ok(is_there) => {
                self.plan.planned.exchanges.push((name.clone(), !is_there));
                self.plan.absent.exchanges.extend((!is_there).then(|| (name.clone(), spec)));
            }
            Err(error @ ExchangeError::Differs { .. }) => self.refused.push(error.into()),
            Err(error) => self.refused.push(Problem::from(error).about(&format!("exchange {name:?}"))),
        }
    }

    fn bindings(&mut self, wanted: Vec<BindingDefinition>) {
        let mut known = HashSet::with_capacity(wanted.len());
        for definition in wanted {
            // Alike are those that are written alike.
            if !known.insert(serde_json::to_vec(&definition).expect("texts and numbers can be written")) {
                self.refused
                    .push(Problem::bad_request(format!("the {definition} stands in the document twice")));
                continue;
            }
            match self.judge_binding(&definition.binding()) {
                Ok(is_there) => {
                    self.plan.absent.bindings.extend((!is_there).then(|| definition.binding()));
                    self.plan.planned.bindings.push((definition, !is_there));
                }
                Err(error) => self.refused.push(Problem::from(error).about(&definition.to_string())),
            }
        }
    }

    /// Whether it is there.
    fn judge_binding(&self, binding: &NamedBinding) -> Result<bool, ExchangeError> {
        self.exchanges.check_binding(&self.kind_of(&binding.source)?, binding)?;
        match &binding.destination {
            NamedDestination::Exchange(name) => drop(self.kind_of(name)?),
            NamedDestination::Queue(name) if self.topics.contains(name) => {}
            NamedDestination::Queue(name) => self.exchanges.check_destination(self.caller, name)?,
        }
        match self.exchanges.is_bound(self.caller, binding) {
            // What the document makes.
            Err(ExchangeError::Unknown(_) | ExchangeError::UnknownQueue(_)) => Ok(false),
            judged => judged,
        }
    }

    /// How an exchange routes that is there, or will be.
    fn kind_of(&self, name: &str) -> Result<ExchangeKind, ExchangeError> {
        if name.is_empty() {
            return Err(ExchangeError::Default);
        }
        if let Some(there) = self.exchanges.get(self.caller, name)? {
            return Ok(there.kind.clone());
        }
        let predeclared = || self.exchanges.predeclared_as(name).map(|exchange| &exchange.spec);
        let spec = self.specs.get(name).or_else(predeclared);
        spec.map(|spec| spec.kind.clone()).ok_or_else(|| ExchangeError::Unknown(name.into()))
    }
}

fn twice(what: &str, name: &str) -> Problem {
    Problem::bad_request(format!("{what} {name:?} stands in the document twice"))
}

/// What goes with a client, or with the next start, is not what a document names.
fn check_lifetime(there: &Topic) -> Result<(), Problem> {
    let Some(queue) = there.config.queue() else { return Ok(()) };
    let goes =
        [("durable", !queue.durable), ("exclusive", queue.exclusive), ("auto_delete", queue.auto_delete)];
    match goes.iter().find(|(_, differs)| *differs) {
        None => Ok(()),
        Some((what, _)) => {
            let name = &there.name;
            let here = *what != "durable";
            let detail =
                format!("queue {name:?} exists and differs ({what}: {here} here, {} in the document)", !here);
            Err(Problem::new(StatusCode::CONFLICT, "topic-exists", detail))
        }
    }
}

fn same(there: &Topic, known: &TopicDefinition, wanted: &TopicDefinition) -> Result<(), Problem> {
    let name = &there.name;
    if there.internal {
        return Err(TopicError::Internal((**name).into()).into());
    }
    check_lifetime(there)?;
    match known.differences(wanted) {
        none if none.is_empty() => Ok(()),
        found => {
            let what = if there.config.queue().is_some() { "queue" } else { "topic" };
            let detail = format!("{what} {name:?} exists and differs ({})", found.join(", "));
            Err(Problem::new(StatusCode::CONFLICT, "topic-exists", detail))
        }
    }
}

/// Whether all together may be.
fn room(broker: &Broker, new: &[NewTopic]) -> Result<(), TopicError> {
    let (options, view) = (broker.options(), broker.catalog());
    let partitions: usize = new.iter().map(|topic| topic.partitions as usize).sum();
    let bytes: usize = new.iter().map(|topic| topic.config.kept.bytes()).sum();
    if view.partitions() + partitions > options.partitions_total_max {
        return Err(TopicError::TooManyPartitions { most: options.partitions_total_max });
    }
    if view.setting_bytes() + bytes > options.settings_max {
        return Err(TopicError::TooManySettings { most: options.settings_max });
    }
    let ids: usize = new.iter().map(|topic| topic.config.dedup_bytes()).sum();
    if view.dedup_bytes() + ids > options.dedup_max {
        return Err(TopicError::TooManyMessageIds { most: options.dedup_max });
    }
    Ok(())
}
