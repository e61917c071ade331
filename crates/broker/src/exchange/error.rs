//! Why an exchange or a binding is not made, changed or deleted.

use sabir_model::{ShardFailure, TopicError};
use sabir_routing::{BindingError, DeclareError, ExchangeDeleteError, InvalidBinding};

use crate::level::FormatLevel;

/// Why an exchange or a binding is not made or deleted. All is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// There is no such exchange in the caller's namespace.
    #[error("there is no exchange {0:?}")]
    Unknown(Box<str>),
    /// There is no such queue or topic in the caller's namespace.
    #[error("there is no queue {0:?}")]
    UnknownQueue(Box<str>),
    /// The topic is kept by the broker, or by a protocol, for itself: nothing is bound to it.
    #[error("topic {0:?} is kept by the broker itself: nothing can be bound to it")]
    Internal(Box<str>),
    /// Another front end made it.
    #[error("another protocol made the exchange {0:?}: it is not changed by this one")]
    MadeElsewhere(Box<str>),
    /// A front end has it in every namespace.
    #[error("{by} keeps the exchange {name:?} for itself")]
    Reserved {
        /// Its name.
        name: Box<str>,
        /// The front end's name.
        by: &'static str,
    },
    /// The front end that makes it has no number, and is given none.
    #[error(transparent)]
    Origin(Box<TopicError>),
    /// One of this name is there, with another setting.
    #[error("the exchange {name:?} exists with another {what}")]
    Differs {
        /// Its name.
        name: Box<str>,
        /// In what it differs from what was asked for.
        what: &'static str,
    },
    /// The default exchange is there always, routes by the names of queues, and has no bindings.
    #[error("the default exchange is neither declared, deleted nor bound")]
    Default,
    /// It has bindings, and was to be deleted only without.
    #[error("the exchange {0:?} is in use")]
    InUse(Box<str>),
    /// The exchange cannot have such a binding.
    #[error(transparent)]
    Binding(#[from] InvalidBinding),
    /// No exchange can have this name.
    #[error("the name of an exchange has 1 to {most} bytes and no control characters")]
    InvalidName {
        /// The most bytes it can have.
        most: usize,
    },
    /// A binding key has more bytes than one may have.
    #[error("a binding key has at most {most} bytes")]
    LongKey {
        /// The most bytes it can have.
        most: usize,
    },
    /// They take as many bytes as they may.
    #[error(
        "exchanges and bindings take at most {most} bytes (topic.exchange_memory): delete some that are not needed"
    )]
    NoRoom {
        /// The most that they may take.
        most: usize,
    },
    /// There are as many as may be.
    #[error("there are {has} {what}, which is the limit: delete some that are not needed")]
    TooMany {
        /// Of what: exchanges, or bindings.
        what: &'static str,
        /// How many there are.
        has: usize,
    },
    /// The data directory may be opened by a version that knows no exchanges.
    #[error(
        "the data directory has format level {has}, and this takes level {needs}: raise data.format_level once the version before this one \
         is not needed any more"
    )]
    Level {
        /// What it has.
        has: FormatLevel,
        /// What it would have to have.
        needs: FormatLevel,
    },
    /// The catalog's shard did not take it.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}

impl From<TopicError> for ExchangeError {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Shard(failure) => Self::Shard(failure),
            error => Self::Origin(Box::new(error)),
        }
    }
}

impl ExchangeError {
    pub(super) fn declare(name: &str, error: DeclareError) -> Self {
        match error {
            DeclareError::Differs(what) => Self::Differs { name: name.into(), what },
            DeclareError::DefaultExchange => Self::Default,
            DeclareError::TooMany(has) => Self::TooMany { what: "exchanges", has },
        }
    }

    pub(super) fn delete(name: &str, error: ExchangeDeleteError) -> Self {
        match error {
            ExchangeDeleteError::NoExchange => Self::Unknown(name.into()),
            ExchangeDeleteError::InUse => Self::InUse(name.into()),
            ExchangeDeleteError::DefaultExchange => Self::Default,
        }
    }

    pub(super) fn bind(source: &str, error: BindingError) -> Self {
        match error {
            BindingError::DefaultExchange => Self::Default,
            BindingError::NoExchange => Self::Unknown(source.into()),
            BindingError::Invalid(invalid) => Self::Binding(invalid),
            BindingError::TooMany { bindings, .. } => Self::TooMany { what: "bindings", has: bindings },
        }
    }
}
