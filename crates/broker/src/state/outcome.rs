//! What entries come to. The body of each kind says by its type what that is ([`Body::Outcome`](crate::entry::Body::Outcome)), for the
//! projection that applies the entry and for the task that waits for it; between the two it goes as an [`Outcome`].

use std::sync::Arc;

use sabir_delivery::subscription::SubscriptionNo;
use sabir_model::{
    AppendError, FrontendNo, GroupError, Offset, ProducerId, ProducerIdError, ShardFailure, TopicError,
};

use super::FrontendAnswer;
use crate::append::Appended;
use crate::catalog::Topic;
use crate::entry::{DeliveryError, DeliveryOutcome, SubscribeError};
use crate::exchange::ExchangeError;

/// What an entry of any kind came to.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Of one that appends.
    Appended(Result<Appended, AppendError>),
    /// Of one that appends to several partitions, in the order in which it names them.
    AppendedEach(Box<[Result<Appended, AppendError>]>),
    /// Of one about a topic: the topic as it is now.
    Topic(Result<Arc<Topic>, Box<TopicError>>),
    /// Of one that moves a log start: where it now is.
    LogStart(Result<Offset, Box<TopicError>>),
    /// Of one that registers a front end: its number.
    Frontend(Result<FrontendNo, Box<TopicError>>),
    /// Of one that gives producer ids out: the first of them.
    ProducerIds(Result<ProducerId, ProducerIdError>),
    /// Of one that a front end's projection took.
    Projection(Box<FrontendAnswer>),
    /// Of a group's.
    Group(Result<(), GroupError>),
    /// Of a list of operations on subscriptions.
    Delivery(Result<DeliveryOutcome, DeliveryError>),
    /// Of one about a subscription of a topic: its number in its partition.
    Subscription(Result<SubscriptionNo, SubscribeError>),
    /// Of one about an exchange or a binding.
    Exchange(Result<(), Box<ExchangeError>>),
    /// Of one that always takes effect.
    Done,
    /// Of any: it was not applied, and never will be.
    Failed(ShardFailure),
}

/// What entries of one kind come to.
pub(crate) trait EntryOutcome: Sized {
    /// As it goes to the waiter.
    fn into_outcome(self) -> Outcome;

    /// Takes the outcome of an entry of this kind, or why it was not applied.
    fn of(outcome: Outcome) -> Self;
}

impl Outcome {
    /// Why the entry was not applied.
    fn failure(self) -> ShardFailure {
        match self {
            Self::Failed(failure) => failure,
            other => {
                debug_assert!(false, "{other:?} is no outcome of an entry of this kind");
                ShardFailure::StorageError
            }
        }
    }
}

/// What an entry that appends came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppendOutcome {
    /// For its one partition, or for all that it names, since it was not applied.
    One(Result<Appended, AppendError>),
    /// For each that it names, in their order.
    Each(Box<[Result<Appended, AppendError>]>),
}

impl AppendOutcome {
    /// The first partition's.
    pub(crate) fn first(&self) -> Result<Appended, AppendError> {
        match self {
            Self::One(one) => *one,
            Self::Each(each) => each.first().copied().unwrap_or(Err(AppendError::UnknownPartition)),
        }
    }

    /// That of a partition, counted from 0.
    pub(crate) fn at(&self, target: usize) -> Result<Appended, AppendError> {
        match self {
            Self::One(one) => *one,
            Self::Each(each) => each.get(target).copied().unwrap_or(Err(AppendError::UnknownPartition)),
        }
    }
}

impl EntryOutcome for AppendOutcome {
    fn into_outcome(self) -> Outcome {
        match self {
            Self::One(one) => Outcome::Appended(one),
            Self::Each(each) => Outcome::AppendedEach(each),
        }
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Appended(one) => Self::One(one),
            Outcome::AppendedEach(each) => Self::Each(each),
            other => Self::One(Err(other.failure().into())),
        }
    }
}

/// Of an entry that appends to one partition.
impl EntryOutcome for Result<Appended, AppendError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Appended(self)
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Appended(appended) => appended,
            other => AppendOutcome::of(other).first(),
        }
    }
}

impl EntryOutcome for Result<Arc<Topic>, TopicError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Topic(self.map_err(Box::new))
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Topic(topic) => topic.map_err(|error| *error),
            other => Err(other.failure().into()),
        }
    }
}

impl EntryOutcome for Result<Offset, TopicError> {
    fn into_outcome(self) -> Outcome {
        Outcome::LogStart(self.map_err(Box::new))
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::LogStart(start) => start.map_err(|error| *error),
            other => Err(other.failure().into()),
        }
    }
}

impl EntryOutcome for Result<FrontendNo, TopicError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Frontend(self.map_err(Box::new))
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Frontend(number) => number.map_err(|error| *error),
            other => Err(other.failure().into()),
        }
    }
}

impl EntryOutcome for Result<ProducerId, ProducerIdError> {
    fn into_outcome(self) -> Outcome {
        Outcome::ProducerIds(self)
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::ProducerIds(first) => first,
            other => Err(other.failure().into()),
        }
    }
}

impl EntryOutcome for Result<(), GroupError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Group(self)
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Group(done) => done,
            other => Err(other.failure().into()),
        }
    }
}

impl EntryOutcome for Result<DeliveryOutcome, DeliveryError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Delivery(self)
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Delivery(done) => done,
            other => Err(other.failure().into()),
        }
    }
}

impl EntryOutcome for Result<SubscriptionNo, SubscribeError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Subscription(self)
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Subscription(done) => done,
            other => Err(other.failure().into()),
        }
    }
}

impl EntryOutcome for Result<(), ExchangeError> {
    fn into_outcome(self) -> Outcome {
        Outcome::Exchange(self.map_err(Box::new))
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Exchange(done) => done.map_err(|error| *error),
            other => Err(other.failure().into()),
        }
    }
}

impl EntryOutcome for Result<FrontendAnswer, ShardFailure> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(Outcome::Failed, |answer| Outcome::Projection(Box::new(answer)))
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Projection(answer) => Ok(*answer),
            other => Err(other.failure()),
        }
    }
}

/// Of entries that always take effect, once they are applied.
impl EntryOutcome for Result<(), ShardFailure> {
    fn into_outcome(self) -> Outcome {
        self.map_or_else(Outcome::Failed, |()| Outcome::Done)
    }

    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Ok(()),
            other => Err(other.failure()),
        }
    }
}
