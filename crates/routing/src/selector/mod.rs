//! Selectors: a condition of SQL-92 on a message's properties, which decides whether a consumer wants the message.
//!
//! A selector is parsed once to a short program and then asked of each message, without allocation. What a condition says is true, false
//! or unknown; a property that is not there makes unknown what is said of it, and only what is true is wanted.

mod builder;
mod lexer;
mod like;
mod number;
mod parser;
mod program;
mod value;

use thiserror::Error;

pub use value::{Properties, PropertyValue, Truth};

use program::Program;

/// Most bytes of a selector.
pub const MAX_BYTES: usize = 32_767;

/// Most operands, operators and listed values of a selector.
pub const MAX_TERMS: usize = 4_096;

/// How deep a selector may be nested.
pub const MAX_DEPTH: usize = 64;

/// Most values that are held at once while a selector is asked.
pub const MAX_HELD: usize = 32;

/// Most bytes of the pattern of a LIKE.
pub const MAX_PATTERN: usize = 256;

/// Whose rules hold where languages differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// JMS 2.0, section 3.8.1: properties have types, and a comparison of unlike types is false. Names may stand in double quotes.
    Jms,
    /// Properties are text, and one that is compared with a number is taken as a number; if it is none, the message is not wanted,
    /// whatever else the selector says. `<>` is the contrary of `=`. There are CONTAINS, STARTSWITH and ENDSWITH.
    TextProperties,
}

/// A condition on a message's properties.
#[derive(Debug, Clone)]
pub struct Selector {
    program: Program,
}

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// Longer than [`MAX_BYTES`].
    #[error("the selector has {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// More terms than [`MAX_TERMS`].
    #[error("the selector has more than {MAX_TERMS} terms")]
    TooManyTerms,
    /// Nested deeper than [`MAX_DEPTH`], or more than [`MAX_HELD`] values are to be held at once.
    #[error("the selector is nested too deeply at character {at}")]
    TooDeep {
        /// Bytes before it.
        at: usize,
    },
    /// Something else has to stand there.
    #[error("at character {at}: {expected} expected")]
    Expected {
        /// Bytes before it.
        at: usize,
        /// What.
        expected: &'static str,
    },
    /// What stands there cannot be.
    #[error("at character {at}: {what}")]
    Invalid {
        /// Bytes before it.
        at: usize,
        /// Why not.
        what: &'static str,
    },
}

impl Selector {
    /// The selector that a text states.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, SelectorError> {
        if text.len() > MAX_BYTES {
            return Err(SelectorError::TooLong(text.len()));
        }
        parser::parse(text, dialect).map(|program| Self { program })
    }

    /// Whether a message with these properties is wanted.
    pub fn matches(&self, properties: &dyn Properties) -> bool {
        self.truth(properties) == Truth::True
    }

    /// What the condition says of a message.
    pub fn truth(&self, properties: &dyn Properties) -> Truth {
        self.program.run(properties)
    }

    /// The names of the properties that it looks at, each once.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.program.names()
    }
}
