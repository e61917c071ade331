//! The form of the document: what stands in it, and how that is told apart from what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use sabir_broker::Topic;
use sabir_broker::exchange::{
    Argument, ArgumentValue, Arguments, ExchangeKind, ExchangeSpec, HashOn, HashedProperty, KeySyntax,
    NamedBinding, NamedDestination,
};
use sabir_model::{Backoff, DeadLetterAddress, Overflow, QueueConfig, TopicConfig, TopicKind};
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::super::topics::{ConfigChange, kind, own_settings};

/// The form of the document. One that says another is refused, whatever else is in it.
pub const VERSION: u32 = 1;
/// The most of each list in a document that is taken.
const MOST: usize = 100_000;

/// A topic, or a queue, as the document has it.
#[derive(Debug, PartialEq, Serialize)]
pub struct TopicDefinition {
    name: String,
    /// What a queue has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    /// What a queue has alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<QueueSettings>,
    config: Map<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    kept_settings: BTreeMap<String, String>,
}

impl TopicDefinition {
    pub fn new(name: &str, partitions: u32, config: &TopicConfig) -> Self {
        let kept = config.kept.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let queue = config.queue().map(|queue| QueueSettings::of(queue));
        Self {
            name: name.to_owned(),
            partitions: queue.is_none().then_some(partitions),
            kind: queue.is_none().then(|| kind(&config.kind)),
            queue,
            config: own_settings(config),
            kept_settings: kept.collect(),
        }
    }

    pub fn of(topic: &Topic) -> Self {
        Self::new(&topic.name, topic.partitions.len() as u32, &topic.config)
    }

    /// In what this topic, which exists, is not what the document wants.
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, here: Option<String>, there: Option<String>| {
            if here != there {
                let [here, there] = [here, there].map(|value| value.unwrap_or_else(|| "not set".into()));
                found.push(format!("{what}: {here} here, {there} in the document"));
            }
        };
        let kind = |of: &Self| of.kind.unwrap_or("queue").to_owned();
        if kind(self) != kind(wanted) {
            compare("kind", Some(kind(self)), Some(kind(wanted)));
            return found;
        }
        let count = |of: &Self| of.partitions.map(|partitions| partitions.to_string());
        compare("partitions", count(self), count(wanted));
        let [here, there] = [self, wanted].map(|of| of.queue.as_ref().map(settings).unwrap_or_default());
        for name in union(here.keys(), there.keys()) {
            compare(name, here.get(name).map(Value::to_string), there.get(name).map(Value::to_string));
        }
        for name in union(self.config.keys(), wanted.config.keys()) {
            let value = |of: &Self| of.config.get(name).map(Value::to_string);
            compare(name, value(self), value(wanted));
        }
        for name in union(self.kept_settings.keys(), wanted.kept_settings.keys()) {
            let value = |of: &Self| of.kept_settings.get(name).cloned();
            compare(name, value(self), value(wanted));
        }
        found
    }
}

fn union<'a>(
    one: impl Iterator<Item = &'a String>,
    other: impl Iterator<Item = &'a String>,
) -> BTreeSet<&'a String> {
    one.chain(other).collect()
}

fn settings(of: &QueueSettings) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(settings)) => settings,
        _ => Map::new(),
    }
}

/// What holds for a queue alone: what is absent is as it is where a queue says nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSettings {
    #[serde(skip_serializing_if = "is_default")]
    single_active: bool,
    #[serde(skip_serializing_if = "is_default")]
    delivery_limit: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    retry: Option<Retry>,
    #[serde(skip_serializing_if = "is_default")]
    message_ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    expires_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    max_length: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    max_length_bytes: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    overflow: OverflowName,
    #[serde(skip_serializing_if = "is_default")]
    max_priority: Option<u8>,
    #[serde(skip_serializing_if = "is_default")]
    dead_letter: Option<DeadLetters>,
    #[serde(skip_serializing_if = "is_default")]
    consume_rate: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    consume_burst: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    dedup_window_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    dedup_max: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OverflowName {
    #[default]
    DropHead,
    Reject,
    RejectAndDeadLetter,
}

/// How long what comes back waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Retry {
    Steps { steps_ms: Vec<u32> },
    Exponential { first_ms: u32, percent: u32, longest_ms: u32 },
    Linear { first_ms: u32, longest_ms: u32 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetters {
    exchange: String,
    #[serde(default, skip_serializing_if = "is_default")]
    routing_key: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl QueueSettings {
    pub fn of(queue: &QueueConfig) -> Self {
        let dead_letter = queue.dead_letter.as_ref().map(|to| DeadLetters {
            exchange: to.exchange.to_string(),
            routing_key: to.routing_key.as_deref().map(str::to_owned),
        });
        let retry = queue.retry.as_ref().map(|retry| match *retry {
            Backoff::Steps(ref steps) => Retry::Steps { steps_ms: steps.to_vec() },
            Backoff::Exponential { first_ms, percent, longest_ms } => {
                Retry::Exponential { first_ms, percent, longest_ms }
            }
            Backoff::Linear { first_ms, longest_ms } => Retry::Linear { first_ms, longest_ms },
        });
        Self {
            single_active: queue.single_active,
            delivery_limit: queue.delivery_limit,
            retry,
            message_ttl_ms: queue.message_ttl_ms,
            expires_ms: queue.expires_ms,
            max_length: queue.max_length,
            max_length_bytes: queue.max_length_bytes,
            overflow: match queue.overflow {
                Overflow::DropHead => OverflowName::DropHead,
                Overflow::Reject => OverflowName::Reject,
                Overflow::RejectAndDeadLetter => OverflowName::RejectAndDeadLetter,
            },
            max_priority: queue.max_priority,
            dead_letter,
            consume_rate: queue.consume_rate,
            consume_burst: queue.consume_burst,
            dedup_window_ms: queue.dedup_window_ms,
            dedup_max: queue.dedup_max,
        }
    }

    fn config(&self) -> QueueConfig {
        let dead_letter = self.dead_letter.as_ref().map(|to| DeadLetterAddress {
            exchange: (*to.exchange).into(),
            routing_key: to.routing_key.as_deref().map(Into::into),
        });
        let retry = self.retry.as_ref().map(|retry| match *retry {
            Retry::Steps { ref steps_ms } => Backoff::Steps(steps_ms.as_slice().into()),
            Retry::Exponential { first_ms, percent, longest_ms } => {
                Backoff::Exponential { first_ms, percent, longest_ms }
            }
            Retry::Linear { first_ms, longest_ms } => Backoff::Linear { first_ms, longest_ms },
        });
        QueueConfig {
            single_active: self.single_active,
            delivery_limit: self.delivery_limit,
            retry,
            message_ttl_ms: self.message_ttl_ms,
            expires_ms: self.expires_ms,
            max_length: self.max_length,
            max_length_bytes: self.max_length_bytes,
            overflow: match self.overflow {
                OverflowName::DropHead => Overflow::DropHead,
                OverflowName::Reject => Overflow::Reject,
                OverflowName::RejectAndDeadLetter => Overflow::RejectAndDeadLetter,
            },
            max_priority: self.max_priority,
            dead_letter,
            consume_rate: self.consume_rate,
            consume_burst: self.consume_burst,
            dedup_window_ms: self.dedup_window_ms,
            dedup_max: self.dedup_max,
            ..QueueConfig::default()
        }
    }
}

/// A document that is to be taken.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionsDocument {
    /// It comes first, so that a later form is told by it and not by what it has more.
    #[serde(deserialize_with = "this_version", rename = "version")]
    _version: (),
    #[serde(deserialize_with = "so_many")]
    pub topics: Vec<WantedTopic>,
    #[serde(default, deserialize_with = "so_many")]
    pub queues: Vec<WantedQueue>,
    #[serde(default, deserialize_with = "so_many")]
    pub exchanges: Vec<ExchangeDefinition>,
    #[serde(default, deserialize_with = "so_many")]
    pub bindings: Vec<BindingDefinition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedTopic {
    pub name: String,
    pub partitions: u32,
    #[serde(default)]
    kind: WantedKind,
    #[serde(default)]
    config: ConfigChange,
    #[serde(default)]
    kept_settings: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WantedKind {
    #[default]
    Retention,
    Queue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedQueue {
    pub name: String,
    #[serde(default)]
    queue: QueueSettings,
    #[serde(default)]
    config: ConfigChange,
    #[serde(default)]
    kept_settings: BTreeMap<String, String>,
}

impl WantedTopic {
    /// Whether it is said to be a queue, which stands elsewhere.
    pub fn is_queue(&self) -> bool {
        self.kind == WantedKind::Queue
    }

    /// Its configuration on a node with these defaults.
    pub fn config(&self, defaults: &TopicConfig) -> TopicConfig {
        let mut config = own(defaults.clone(), &self.config, &self.kept_settings, defaults);
        if self.is_queue() {
            config.kind = TopicKind::Queue(Default::default());
        }
        config
    }
}

impl WantedQueue {
    /// The same of a queue: what it says of itself as a topic, or else the node's default, but for the bounds of time and size, which no queue
    /// has.
    pub fn config(&self, defaults: &TopicConfig) -> TopicConfig {
        let mut config = TopicConfig::of_queue(self.queue.config());
        config.inherit(defaults);
        own(config, &self.config, &self.kept_settings, defaults)
    }
}

fn own(
    mut config: TopicConfig,
    change: &ConfigChange,
    kept: &BTreeMap<String, String>,
    defaults: &TopicConfig,
) -> TopicConfig {
    change.apply(&mut config, defaults);
    kept.iter().for_each(|(name, value)| config.kept.set(name, value));
    config.claim(defaults);
    config
}

fn this_version<'de, D: Deserializer<'de>>(input: D) -> Result<(), D::Error> {
    match u32::deserialize(input)? {
        VERSION => Ok(()),
        other => {
            Err(D::Error::custom(format!("this broker takes definitions of version {VERSION}, not {other}")))
        }
    }
}

fn so_many<'de, D: Deserializer<'de>, T: DeserializeOwned>(input: D) -> Result<Vec<T>, D::Error> {
    struct List<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MOST}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = input.next_element()? {
                if all.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                all.push(one);
            }
            Ok(all)
        }
    }
    input.deserialize_seq(List(PhantomData))
}

/// An exchange as the document has it. It is durable.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeDefinition {
    pub name: String,
    kind: KindName,
    #[serde(default, skip_serializing_if = "is_default")]
    auto_delete: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    internal: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    delayed: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    alternate: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<ArgumentDefinition>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KindName {
    Direct,
    Fanout,
    Topic,
    Headers,
    ConsistentHash(HashedPart),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HashedPart {
    Key,
    Header(Text),
    Property(PropertyName),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PropertyName {
    CorrelationId,
    MessageId,
    Timestamp,
}

impl ExchangeDefinition {
    pub fn new(name: &str, spec: &ExchangeSpec) -> Self {
        Self {
            name: name.to_owned(),
            kind: match &spec.kind {
                ExchangeKind::Direct => KindName::Direct,
                ExchangeKind::Fanout => KindName::Fanout,
                ExchangeKind::Topic => KindName::Topic,
                ExchangeKind::Headers => KindName::Headers,
                ExchangeKind::ConsistentHash(on) => KindName::ConsistentHash(hashed_part(on)),
            },
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            delayed: spec.delayed,
            alternate: spec.alternate.as_deref().map(str::to_owned),
            arguments: definitions(&spec.kept),
        }
    }

    pub fn spec(&self) -> ExchangeSpec {
        let kind = match &self.kind {
            KindName::Direct => ExchangeKind::Direct,
            KindName::Fanout => ExchangeKind::Fanout,
            KindName::Topic => ExchangeKind::Topic,
            KindName::Headers => ExchangeKind::Headers,
            KindName::ConsistentHash(part) => ExchangeKind::ConsistentHash(hash_on(part)),
        };
        ExchangeSpec {
            auto_delete: self.auto_delete,
            internal: self.internal,
            delayed: self.delayed,
            alternate: self.alternate.as_deref().map(Into::into),
            kept: arguments(&self.arguments),
            ..ExchangeSpec::of(kind)
        }
    }
}

fn hashed_part(on: &HashOn) -> HashedPart {
    match on {
        HashOn::Key => HashedPart::Key,
        HashOn::Header(name) => HashedPart::Header(Text(name.to_vec())),
        HashOn::Property(HashedProperty::CorrelationId) => HashedPart::Property(PropertyName::CorrelationId),
        HashOn::Property(HashedProperty::MessageId) => HashedPart::Property(PropertyName::MessageId),
        HashOn::Property(HashedProperty::Timestamp) => HashedPart::Property(PropertyName::Timestamp),
    }
}

fn hash_on(part: &HashedPart) -> HashOn {
    match part {
        HashedPart::Key => HashOn::Key,
        HashedPart::Header(name) => HashOn::Header((*name.0).into()),
        HashedPart::Property(PropertyName::CorrelationId) => HashOn::Property(HashedProperty::CorrelationId),
        HashedPart::Property(PropertyName::MessageId) => HashOn::Property(HashedProperty::MessageId),
        HashedPart::Property(PropertyName::Timestamp) => HashOn::Property(HashedProperty::Timestamp),
    }
}

/// A binding as the document has it, by names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingDefinition {
    source: String,
    destination: DestinationName,
    #[serde(default, skip_serializing_if = "is_default")]
    key: Text,
    #[serde(default, skip_serializing_if = "is_default")]
    syntax: SyntaxName,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    arguments: Vec<ArgumentDefinition>,
}

/// Where a binding leads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DestinationName {
    /// Or to any other topic.
    Queue(String),
    Exchange(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SyntaxName {
    #[default]
    Dotted,
    Slashed,
}

impl BindingDefinition {
    pub fn of(binding: &NamedBinding) -> Self {
        Self {
            source: binding.source.clone(),
            destination: match &binding.destination {
                NamedDestination::Queue(name) => DestinationName::Queue(name.clone()),
                NamedDestination::Exchange(name) => DestinationName::Exchange(name.clone()),
            },
            key: Text(binding.key.clone()),
            syntax: match binding.syntax {
                KeySyntax::Dotted => SyntaxName::Dotted,
                KeySyntax::Slashed => SyntaxName::Slashed,
            },
            arguments: definitions(&binding.arguments),
        }
    }

    pub fn binding(&self) -> NamedBinding {
        NamedBinding {
            source: self.source.clone(),
            destination: match &self.destination {
                DestinationName::Queue(name) => NamedDestination::Queue(name.clone()),
                DestinationName::Exchange(name) => NamedDestination::Exchange(name.clone()),
            },
            key: self.key.0.clone(),
            syntax: match self.syntax {
                SyntaxName::Dotted => KeySyntax::Dotted,
                SyntaxName::Slashed => KeySyntax::Slashed,
            },
            arguments: arguments(&self.arguments),
        }
    }
}

impl fmt::Display for BindingDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, name) = match &self.destination {
            DestinationName::Queue(name) => ("queue", name),
            DestinationName::Exchange(name) => ("exchange", name),
        };
        write!(
            f,
            "binding of {of} {name:?} to {:?} by {:?}",
            self.source,
            String::from_utf8_lossy(&self.key.0)
        )
    }
}

/// An argument of an exchange or a binding.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArgumentDefinition {
    name: Text,
    /// What its protocol calls its type.
    tag: u8,
    value: ValueDefinition,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ValueDefinition {
    Null,
    Bool(bool),
    Integer(i64),
    Float(Float),
    Decimal { scale: u8, value: i32 },
    Text(Text),
    Timestamp(i64),
    Composite(Text),
}

fn definitions(arguments: &Arguments) -> Vec<ArgumentDefinition> {
    let definition = |argument: &Argument| ArgumentDefinition {
        name: Text(argument.name.to_vec()),
        tag: argument.tag,
        value: match &argument.value {
            ArgumentValue::Null => ValueDefinition::Null,
            ArgumentValue::Bool(value) => ValueDefinition::Bool(*value),
            ArgumentValue::Integer(value) => ValueDefinition::Integer(*value),
            ArgumentValue::Float(value) => ValueDefinition::Float(Float(*value)),
            ArgumentValue::Decimal { scale, value } => {
                ValueDefinition::Decimal { scale: *scale, value: *value }
            }
            ArgumentValue::Text(value) => ValueDefinition::Text(Text(value.to_vec())),
            ArgumentValue::Timestamp(value) => ValueDefinition::Timestamp(*value),
            ArgumentValue::Composite(value) => ValueDefinition::Composite(Text(value.to_vec())),
        },
    };
    arguments.iter().map(definition).collect()
}

fn arguments(definitions: &[ArgumentDefinition]) -> Arguments {
    let argument = |definition: &ArgumentDefinition| Argument {
        name: (*definition.name.0).into(),
        tag: definition.tag,
        value: match &definition.value {
            ValueDefinition::Null => ArgumentValue::Null,
            ValueDefinition::Bool(value) => ArgumentValue::Bool(*value),
            ValueDefinition::Integer(value) => ArgumentValue::Integer(*value),
            ValueDefinition::Float(value) => ArgumentValue::Float(value.0),
            ValueDefinition::Decimal { scale, value } => {
                ArgumentValue::Decimal { scale: *scale, value: *value }
            }
            ValueDefinition::Text(value) => ArgumentValue::Text((*value.0).into()),
            ValueDefinition::Timestamp(value) => ArgumentValue::Timestamp(*value),
            ValueDefinition::Composite(value) => ArgumentValue::Composite((*value.0).into()),
        },
    };
    Arguments::new(definitions.iter().map(argument).collect())
}

/// Bytes: text where they are, else an object with their hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Default)]
struct Text(Vec<u8>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return output.serialize_str(text);
        }
        let mut object = output.serialize_map(Some(1))?;
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        object.serialize_entry("hex", &digits)?;
        object.end()
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a text, or an object whose `hex` has an even number of hexadecimal digits"
)]
enum TextForm {
    Text(String),
    Hex(Hex),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match TextForm::deserialize(input)? {
            TextForm::Text(text) => Ok(Self(text.into_bytes())),
            TextForm::Hex(Hex { hex }) => {
                let bytes =
                    unhex(&hex).ok_or_else(|| D::Error::custom("hex: expected pairs of hexadecimal digits"));
                bytes.map(Self)
            }
        }
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pairs = digits.as_bytes().chunks(2).map(|pair| match *pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// A number in digits that say it to the last bit; of one that is no number its bits.
#[derive(Debug)]
struct Float(f64);

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self.0.is_nan() {
            true => output.collect_str(&format_args!("{:#018x}", self.0.to_bits())),
            false => output.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let read = match text.strip_prefix("0x") {
            Some(bits) => u64::from_str_radix(bits, 16).ok().map(f64::from_bits),
            None => text.parse().ok(),
        };
        read.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is no number")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(name: &[u8], tag: u8, value: ArgumentValue) -> Argument {
        Argument { name: name.into(), tag, value }
    }

    fn all() -> Arguments {
        Arguments::new(vec![
            argument(b"a", b'V', ArgumentValue::Null),
            argument(b"b", b't', ArgumentValue::Bool(true)),
            argument(b"c", b'l', ArgumentValue::Integer(i64::MIN)),
            argument(b"d", b'd', ArgumentValue::Float(0.1 + 0.2)),
            argument(b"e", b'd', ArgumentValue::Float(f64::from_bits(0xfff8_0000_0000_0001))),
            argument(b"f", b'd', ArgumentValue::Float(-0.0)),
            argument(b"g", b'D', ArgumentValue::Decimal { scale: 2, value: -5 }),
            argument(b"h", b'S', ArgumentValue::Text(b"text"[..].into())),
            argument(b"i", b'x', ArgumentValue::Text(b"\xff\0"[..].into())),
            argument(b"j", b'T', ArgumentValue::Timestamp(i64::MAX)),
            argument(b"\xc0", b'F', ArgumentValue::Composite(b"\0\0\0\x80"[..].into())),
        ])
    }

    #[test]
    fn a_binding_comes_back_to_the_last_bit() {
        for (destination, syntax, key) in [
            (NamedDestination::Queue("q".into()), KeySyntax::Dotted, &b""[..]),
            (NamedDestination::Exchange("é".into()), KeySyntax::Slashed, b"a/+\xff"),
        ] {
            let binding =
                NamedBinding { source: "e".into(), destination, key: key.into(), syntax, arguments: all() };
            let text = serde_json::to_string(&BindingDefinition::of(&binding)).unwrap();
            let read: BindingDefinition = serde_json::from_str(&text).unwrap();
            assert_eq!(read.binding(), binding, "{text}");
        }
        let plain = NamedBinding::keyed("e", NamedDestination::Queue("q".into()), b"a.*");
        let text = serde_json::to_string(&BindingDefinition::of(&plain)).unwrap();
        assert_eq!(text, r#"{"source":"e","destination":{"queue":"q"},"key":"a.*"}"#);
    }

    #[test]
    fn an_exchange_comes_back_whatever_it_is() {
        let header = HashOn::Header(b"h\xff"[..].into());
        for kind in [
            ExchangeKind::Direct,
            ExchangeKind::Fanout,
            ExchangeKind::Topic,
            ExchangeKind::Headers,
            ExchangeKind::ConsistentHash(HashOn::Key),
            ExchangeKind::ConsistentHash(header),
            ExchangeKind::ConsistentHash(HashOn::Property(HashedProperty::CorrelationId)),
            ExchangeKind::ConsistentHash(HashOn::Property(HashedProperty::MessageId)),
            ExchangeKind::ConsistentHash(HashOn::Property(HashedProperty::Timestamp)),
        ] {
            let plain = ExchangeSpec::of(kind);
            let full = ExchangeSpec {
                auto_delete: true,
                internal: true,
                delayed: true,
                alternate: Some("other".into()),
                kept: all(),
                ..plain.clone()
            };
            for spec in [plain, full] {
                let text = serde_json::to_string(&ExchangeDefinition::new("e", &spec)).unwrap();
                let read: ExchangeDefinition = serde_json::from_str(&text).unwrap();
                assert_eq!((&*read.name, read.spec()), ("e", spec), "{text}");
            }
        }
    }

    #[test]
    fn a_queue_s_settings_come_back_and_what_is_usual_is_not_told() {
        let full = QueueConfig {
            single_active: true,
            delivery_limit: Some(u32::MAX),
            retry: Some(Backoff::Exponential { first_ms: 1, percent: 200, longest_ms: u32::MAX }),
            message_ttl_ms: Some(0),
            expires_ms: Some(1),
            max_length: Some(i64::MAX as u64),
            max_length_bytes: Some(3),
            overflow: Overflow::RejectAndDeadLetter,
            max_priority: Some(255),
            dead_letter: Some(DeadLetterAddress { exchange: "".into(), routing_key: Some("k".into()) }),
            consume_rate: Some(u32::MAX),
            consume_burst: Some(1),
            dedup_window_ms: Some(1),
            dedup_max: Some(1),
            ..QueueConfig::default()
        };
        let retry = Some(Backoff::Steps([1, 300].into()));
        let waits = QueueConfig { retry, ..QueueConfig::default() };
        let steps = r#"{"retry":{"steps_ms":[1,300]}}"#;
        let retry = Some(Backoff::Linear { first_ms: 1, longest_ms: 300 });
        let grows = QueueConfig { retry, ..QueueConfig::default() };
        let linear = r#"{"retry":{"first_ms":1,"longest_ms":300}}"#;
        let usual = QueueConfig::default();
        for (queue, told) in [(usual, Some("{}")), (full, None), (waits, Some(steps)), (grows, Some(linear))]
        {
            let text = serde_json::to_string(&QueueSettings::of(&queue)).unwrap();
            assert!(told.is_none_or(|told| text == told), "{text}");
            assert_eq!(serde_json::from_str::<QueueSettings>(&text).unwrap().config(), queue);
        }
    }

    #[test]
    fn what_is_no_text_and_no_digits_is_refused() {
        for bad in [r#"{"hex":"f"}"#, r#"{"hex":"+f"}"#, r#"{"hex":"ff","more":1}"#, "5"] {
            assert!(serde_json::from_str::<Text>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Text>(r#"{"hex":"FF00"}"#).unwrap().0, [0xff, 0]);
        for bad in [r#""""#, r#""0xzz""#, r#""seven""#, "1.5"] {
            assert!(serde_json::from_str::<Float>(bad).is_err(), "{bad}");
        }
    }
}
