//! What a binding of a headers exchange asks of a message.

use crate::argument::{Argument, ArgumentValue, Arguments};
use crate::publication::Attributes;

/// The argument that says how the others are taken.
const MATCH: &[u8] = b"x-match";

/// What a binding of a headers exchange asks of a message.
#[derive(Debug)]
pub(crate) struct HeaderRule {
    /// One of the headers suffices.
    any: bool,
    wanted: Box<[Argument]>,
}

/// The binding says `x-match` of a value that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownMatch;

impl HeaderRule {
    /// The rule that arguments state. Those whose names begin with `x-` count only where `x-match` says `with-x`.
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, UnknownMatch> {
        let (any, with_x) = match arguments.get(MATCH) {
            None => (false, false),
            Some(ArgumentValue::Text(text)) => mode(text)?,
            Some(_) => return Err(UnknownMatch),
        };
        let counts = |argument: &&Argument| match with_x {
            true => *argument.name != *MATCH,
            false => !argument.name.starts_with(b"x-"),
        };
        Ok(Self { any, wanted: arguments.iter().filter(counts).cloned().collect() })
    }

    /// Whether a message with these headers is meant. A rule that wants nothing means every message, but none if any header is
    /// to suffice.
    pub(crate) fn matches(&self, attributes: &dyn Attributes) -> bool {
        let has = |argument: &Argument| is_met(argument, attributes);
        if self.any { self.wanted.iter().any(has) } else { self.wanted.iter().all(has) }
    }
}

fn mode(text: &[u8]) -> Result<(bool, bool), UnknownMatch> {
    match text {
        b"all" => Ok((false, false)),
        b"any" => Ok((true, false)),
        b"all-with-x" => Ok((false, true)),
        b"any-with-x" => Ok((true, true)),
        _ => Err(UnknownMatch),
    }
}

fn is_met(argument: &Argument, attributes: &dyn Attributes) -> bool {
    attributes
        .header(&argument.name)
        .is_some_and(|value| argument.value == ArgumentValue::Null || argument.value.as_ref() == value)
}
