//! What an error is about.

use std::fmt;

use crate::{AppendError, GroupError, ShardFailure};

/// What an error is about, by the names that clients and operators know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A partition of a topic.
    Partition {
        /// The topic's name.
        topic: Box<str>,
        /// The partition's number in the topic.
        partition: i32,
    },
    /// A topic as a whole.
    Topic(Box<str>),
    /// A queue, by its topic's name.
    Queue(Box<str>),
    /// A subscription of a topic.
    Subscription {
        /// The topic's name.
        topic: Box<str>,
        /// The subscription's.
        name: Box<str>,
    },
    /// A consumer group.
    Group(Box<str>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition { topic, partition } => write!(f, "partition {partition} of topic {topic:?}"),
            Self::Topic(name) => write!(f, "topic {name:?}"),
            Self::Queue(name) => write!(f, "queue {name:?}"),
            Self::Subscription { topic, name } => write!(f, "subscription {name:?} of topic {topic:?}"),
            Self::Group(name) => write!(f, "group {name:?}"),
        }
    }
}

/// An operation's error with what it is about, which its message names: a front end that tells it need not know the call. It is made where the operation
/// ends that knows the subject; that and what comes of it is all that errors cost.
///
/// Two are equal if their errors are: what they are about is for people.
#[derive(Debug, Clone)]
pub struct ErrorAbout<E> {
    /// The error.
    pub error: E,
    /// A pointer's size, since there is one in each answer that may be an error.
    subject: Option<Box<Subject>>,
}

impl<E> ErrorAbout<E> {
    /// An error about something.
    pub fn new(error: E, subject: Subject) -> Self {
        Self { error, subject: Some(Box::new(subject)) }
    }

    /// The same about something, where it names nothing: what is gone by then has no name, and who was to use it may know it still.
    #[must_use]
    pub fn or_about(self, subject: impl FnOnce() -> Subject) -> Self {
        Self { subject: self.subject.or_else(|| Some(Box::new(subject()))), ..self }
    }

    /// What it is about; `None` where it is about no single thing, or what it is about is gone.
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.as_deref()
    }
}

impl<E: PartialEq> PartialEq for ErrorAbout<E> {
    fn eq(&self, other: &Self) -> bool {
        self.error == other.error
    }
}

impl<E: Eq> Eq for ErrorAbout<E> {}

impl<E> From<E> for ErrorAbout<E> {
    fn from(error: E) -> Self {
        Self { error, subject: None }
    }
}

impl From<ShardFailure> for ErrorAbout<AppendError> {
    fn from(failure: ShardFailure) -> Self {
        AppendError::from(failure).into()
    }
}

impl From<ShardFailure> for ErrorAbout<GroupError> {
    fn from(failure: ShardFailure) -> Self {
        GroupError::from(failure).into()
    }
}

impl<E: fmt::Display> fmt::Display for ErrorAbout<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(f, "{subject}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for ErrorAbout<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReadError;

    #[test]
    fn a_message_names_what_it_is_about() {
        let of = Subject::Partition { topic: "orders".into(), partition: 3 };
        let error = ErrorAbout::new(ReadError::UnknownPartition, of);
        assert_eq!(error.to_string(), "partition 3 of topic \"orders\": there is no such partition");
        let error = ErrorAbout::new(AppendError::QueueFull, Subject::Queue("q".into()));
        assert!(error.to_string().starts_with("queue \"q\": the queue is as long"));
        let error = ErrorAbout::new(GroupError::NotFound, Subject::Group("g".into()));
        assert_eq!(error.to_string(), "group \"g\": no such group");
        assert_eq!(ErrorAbout::from(GroupError::NotFound).to_string(), "no such group");
        let late = ErrorAbout::from(GroupError::NotFound).or_about(|| Subject::Group("h".into()));
        assert_eq!(late.to_string(), "group \"h\": no such group");
        assert_eq!(error.or_about(|| Subject::Group("h".into())).to_string(), "group \"g\": no such group");
        assert!(size_of::<ErrorAbout<AppendError>>() <= 24);
    }
}
