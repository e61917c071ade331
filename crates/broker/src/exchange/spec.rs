//! What an exchange is declared with, and a binding by names; their stored forms.

use std::mem::discriminant;

use sabir_model::DecodeError;
use sabir_routing::{
    Argument, ArgumentValue, Arguments, ExchangeKind, ExchangeSettings, HashOn, HashedProperty, KeySyntax,
};

use crate::codec::{Reader, put_bytes, put_i64, put_len, put_str};

/// What an exchange is declared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSpec {
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it is there after the next start.
    pub durable: bool,
    /// Deleted once the last of its bindings is.
    pub auto_delete: bool,
    /// Gets messages from other exchanges alone.
    pub internal: bool,
    /// Routes a message when its delay is over. Nothing delays messages yet, so that no such exchange is made.
    pub delayed: bool,
    /// Where a message goes that none of its bindings wants. There need be no such exchange yet.
    pub alternate: Option<Box<str>>,
    /// The arguments that a front end declared it with, as it wants to show them again. They change nothing, and do not count where an
    /// exchange is declared once more.
    pub kept: Arguments,
}

const FORM: u8 = 1;

const DURABLE: u8 = 1 << 0;
const AUTO_DELETE: u8 = 1 << 1;
const INTERNAL: u8 = 1 << 2;
const DELAYED: u8 = 1 << 3;
const ALTERNATE: u8 = 1 << 4;
const KNOWN: u8 = DURABLE | AUTO_DELETE | INTERNAL | DELAYED | ALTERNATE;

impl ExchangeSpec {
    /// A durable one of a kind, with nothing else.
    pub fn of(kind: ExchangeKind) -> Self {
        Self {
            kind,
            durable: true,
            auto_delete: false,
            internal: false,
            delayed: false,
            alternate: None,
            kept: Arguments::default(),
        }
    }

    /// In what another one differs that is declared by the same name.
    pub(super) fn difference(&self, wanted: &Self) -> Option<&'static str> {
        let differs = [
            ("type", discriminant(&self.kind) != discriminant(&wanted.kind)),
            ("hashed part", self.kind != wanted.kind),
            ("durable", self.durable != wanted.durable),
            ("auto_delete", self.auto_delete != wanted.auto_delete),
            ("internal", self.internal != wanted.internal),
            ("alternate-exchange", self.alternate != wanted.alternate),
            ("delay", self.delayed != wanted.delayed),
        ];
        differs.into_iter().find(|(_, differs)| *differs).map(|(what, _)| what)
    }

    /// The part that routes.
    pub(super) fn settings(&self) -> ExchangeSettings {
        ExchangeSettings {
            kind: self.kind.clone(),
            alternate: self.alternate.clone(),
            auto_delete: self.auto_delete,
            internal: self.internal,
            delayed: self.delayed,
        }
    }

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.alternate.as_ref().map_or(0, |name| name.len()) + self.kept.bytes()
    }

    /// Appends the stored form: 1 · kind · marks u8 (1 durable, 2 auto-delete, 4 internal, 8 delayed, 16 alternate; 32 and 64 are 0, 128 is kept for a second byte of them) · alternate, if
    /// marked · arguments.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_kind(out, &self.kind);
        let marks = [
            (self.durable, DURABLE),
            (self.auto_delete, AUTO_DELETE),
            (self.internal, INTERNAL),
            (self.delayed, DELAYED),
            (self.alternate.is_some(), ALTERNATE),
        ];
        out.push(marks.into_iter().filter(|(marked, _)| *marked).map(|(_, mark)| mark).sum());
        self.alternate.iter().for_each(|name| put_str(out, name));
        put_arguments(out, &self.kept);
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.version(FORM)?;
        let (kind, marks) = (take_kind(input)?, input.marks(KNOWN, "exchange")?);
        Ok(Self {
            kind,
            durable: marks & DURABLE != 0,
            auto_delete: marks & AUTO_DELETE != 0,
            internal: marks & INTERNAL != 0,
            delayed: marks & DELAYED != 0,
            alternate: if marks & ALTERNATE != 0 { Some(input.str()?.into()) } else { None },
            kept: take_arguments(input)?,
        })
    }
}

/// Kind u8 (0 direct, 1 fanout, 2 topic, 3 headers, 4 consistent hash) · of the last: what is hashed u8 (0 the routing key, 1 a header, 2 a
/// property) · the header's name, or the property u8 (0 correlation id, 1 message id, 2 timestamp).
fn put_kind(out: &mut Vec<u8>, kind: &ExchangeKind) {
    match kind {
        ExchangeKind::Direct => out.push(0),
        ExchangeKind::Fanout => out.push(1),
        ExchangeKind::Topic => out.push(2),
        ExchangeKind::Headers => out.push(3),
        ExchangeKind::ConsistentHash(HashOn::Key) => out.extend([4, 0]),
        ExchangeKind::ConsistentHash(HashOn::Header(name)) => {
            out.extend([4, 1]);
            put_bytes(out, name);
        }
        ExchangeKind::ConsistentHash(HashOn::Property(property)) => {
            let property = match property {
                HashedProperty::CorrelationId => 0,
                HashedProperty::MessageId => 1,
                HashedProperty::Timestamp => 2,
            };
            out.extend([4, 2, property]);
        }
    }
}

fn take_kind(input: &mut Reader<'_>) -> Result<ExchangeKind, DecodeError> {
    match input.u8()? {
        0 => Ok(ExchangeKind::Direct),
        1 => Ok(ExchangeKind::Fanout),
        2 => Ok(ExchangeKind::Topic),
        3 => Ok(ExchangeKind::Headers),
        4 => take_hashed(input).map(ExchangeKind::ConsistentHash),
        _ => Err(DecodeError::Field("kind of the exchange")),
    }
}

fn take_hashed(input: &mut Reader<'_>) -> Result<HashOn, DecodeError> {
    match input.u8()? {
        0 => Ok(HashOn::Key),
        1 => Ok(HashOn::Header(input.bytes()?.into())),
        2 => Ok(HashOn::Property(match input.u8()? {
            0 => HashedProperty::CorrelationId,
            1 => HashedProperty::MessageId,
            2 => HashedProperty::Timestamp,
            _ => return Err(DecodeError::Field("hashed property")),
        })),
        _ => Err(DecodeError::Field("hashed part")),
    }
}

/// A list of (name · tag u8 · value).
pub(crate) fn put_arguments(out: &mut Vec<u8>, arguments: &Arguments) {
    put_len(out, arguments.iter().len());
    for argument in arguments.iter() {
        put_bytes(out, &argument.name);
        out.push(argument.tag);
        put_value(out, &argument.value);
    }
}

pub(crate) fn take_arguments(input: &mut Reader<'_>) -> Result<Arguments, DecodeError> {
    let argument = |input: &mut Reader<'_>| {
        Ok(Argument { name: input.bytes()?.into(), tag: input.u8()?, value: take_value(input)? })
    };
    input.list(3, argument).map(Arguments::new)
}

/// Type u8 · value: 0 nothing, 1 a truth value u8, 2 a whole number, 3 a float of 8 bytes, little-endian, 4 a decimal (scale u8 · digits), 5
/// text, 6 a moment, 7 what has parts.
fn put_value(out: &mut Vec<u8>, value: &ArgumentValue) {
    match value {
        ArgumentValue::Null => out.push(0),
        ArgumentValue::Bool(value) => out.extend([1, (*value).into()]),
        ArgumentValue::Integer(value) => put_number(out, 2, *value),
        ArgumentValue::Float(value) => {
            out.push(3);
            out.extend(value.to_bits().to_le_bytes());
        }
        ArgumentValue::Decimal { scale, value } => {
            out.extend([4, *scale]);
            put_i64(out, (*value).into());
        }
        ArgumentValue::Text(value) => put_part(out, 5, value),
        ArgumentValue::Timestamp(value) => put_number(out, 6, *value),
        ArgumentValue::Composite(value) => put_part(out, 7, value),
    }
}

fn put_number(out: &mut Vec<u8>, of: u8, value: i64) {
    out.push(of);
    put_i64(out, value);
}

fn put_part(out: &mut Vec<u8>, of: u8, value: &[u8]) {
    out.push(of);
    put_bytes(out, value);
}

fn take_value(input: &mut Reader<'_>) -> Result<ArgumentValue, DecodeError> {
    Ok(match input.u8()? {
        0 => ArgumentValue::Null,
        1 => ArgumentValue::Bool(input.bool("truth value")?),
        2 => ArgumentValue::Integer(input.i64()?),
        3 => ArgumentValue::Float(f64::from_bits(input.u64_le()?)),
        4 => ArgumentValue::Decimal { scale: input.u8()?, value: input.i32()? },
        5 => ArgumentValue::Text(input.bytes()?.into()),
        6 => ArgumentValue::Timestamp(input.i64()?),
        7 => ArgumentValue::Composite(input.bytes()?.into()),
        _ => return Err(DecodeError::Field("type of the argument")),
    })
}

/// What a binding takes in tables.
const BINDING_TABLES: usize = 432;

/// Where a binding leads, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamedDestination {
    /// A queue, or any other topic.
    Queue(String),
    /// Another exchange.
    Exchange(String),
}

/// Has what an exchange gets go to a destination, if it is as the key or the arguments say. All names are of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedBinding {
    /// The exchange.
    pub source: String,
    /// Where it leads.
    pub destination: NamedDestination,
    /// The binding key.
    pub key: Vec<u8>,
    /// How the key is written, which only a topic exchange looks at.
    pub syntax: KeySyntax,
    /// The arguments.
    pub arguments: Arguments,
}

impl NamedBinding {
    /// By a dotted key and nothing else.
    pub fn keyed(source: &str, destination: NamedDestination, key: &[u8]) -> Self {
        Self {
            source: source.to_owned(),
            destination,
            key: key.to_vec(),
            syntax: KeySyntax::Dotted,
            arguments: Arguments::default(),
        }
    }

    /// Bytes that it takes at the most, about: once by names and once by numbers, and a node for each word of its key.
    pub(super) fn bytes(&self) -> usize {
        let words = self.key.iter().filter(|byte| matches!(byte, b'.' | b'/')).count();
        BINDING_TABLES + 64 * words + 2 * (size_of::<Self>() + self.key.len() + self.arguments.bytes())
    }

    /// Appends the stored form: exchange · destination u8 (0 a queue, 1 an exchange) · its name · key · syntax u8 (0 dotted, 1 slashed) ·
    /// arguments.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_str(out, &self.source);
        let (of, name) = match &self.destination {
            NamedDestination::Queue(name) => (0, name),
            NamedDestination::Exchange(name) => (1, name),
        };
        out.push(of);
        put_str(out, name);
        put_bytes(out, &self.key);
        put_syntax(out, self.syntax);
        put_arguments(out, &self.arguments);
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (source, of, name) = (input.str()?.to_owned(), input.u8()?, input.str()?.to_owned());
        let destination = match of {
            0 => NamedDestination::Queue(name),
            1 => NamedDestination::Exchange(name),
            _ => return Err(DecodeError::Field("destination")),
        };
        let (key, syntax) = (input.bytes()?, take_syntax(input)?);
        Ok(Self { source, destination, key, syntax, arguments: take_arguments(input)? })
    }
}

pub(super) fn put_syntax(out: &mut Vec<u8>, syntax: KeySyntax) {
    out.push(match syntax {
        KeySyntax::Dotted => 0,
        KeySyntax::Slashed => 1,
    });
}

pub(super) fn take_syntax(input: &mut Reader<'_>) -> Result<KeySyntax, DecodeError> {
    match input.u8()? {
        0 => Ok(KeySyntax::Dotted),
        1 => Ok(KeySyntax::Slashed),
        _ => Err(DecodeError::Field("syntax of the key")),
    }
}
