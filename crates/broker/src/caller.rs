//! The caller of a change, and what is forbidden to which caller.

use sabir_model::{FrontendNo, TopicError};

use crate::broker::Broker;
use crate::catalog::Topic;

/// The caller of a change. What the front end that made a topic forbids others is judged by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    front_end: Option<&'static str>,
}

/// A name that a front end keeps for topics of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservedTopic {
    /// The name; with a `*` at its end, every name that begins with what stands before it.
    pub name: &'static str,
    /// The front end's name.
    pub by: &'static str,
}

impl Caller {
    /// The operator, by way of the admin port.
    pub const OPERATOR: Self = Self { front_end: None };

    /// A client of the front end of that name, or the front end itself.
    pub const fn front_end(name: &'static str) -> Self {
        Self { front_end: Some(name) }
    }

    /// The front end that asks; `None` for the operator.
    pub fn by(self) -> Option<&'static str> {
        self.front_end
    }
}

impl ReservedTopic {
    fn covers(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == self.name,
        }
    }
}

impl Broker {
    /// Whether a topic of this name may be made. A name that a front end keeps for itself is that front end's alone, for topics that it
    /// marks as internal.
    pub(crate) fn may_make(&self, caller: Caller, name: &str, internal: bool) -> Result<(), TopicError> {
        let kept_from = |reserved: &&ReservedTopic| {
            reserved.covers(name) && !(internal && caller.front_end == Some(reserved.by))
        };
        match self.options().reserved.iter().find(kept_from) {
            Some(reserved) => Err(TopicError::Reserved { name: name.into(), by: reserved.by }),
            None => Ok(()),
        }
    }

    /// Whether a topic may be changed, emptied or deleted: no caller changes what is internal, and no front end what another one made.
    pub(crate) fn may_change(&self, caller: Caller, topic: &Topic) -> Result<(), TopicError> {
        if topic.internal {
            return Err(TopicError::Internal((*topic.name).into()));
        }
        let asks = caller.front_end.map(|name| self.front_end_number(name));
        match asks {
            Some(asks) if topic.made_by != FrontendNo::NONE && asks != Some(topic.made_by) => {
                Err(TopicError::MadeElsewhere((*topic.name).into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_name_is_one_name_or_all_that_begin_so() {
        let covers = |name: &'static str, asked: &str| ReservedTopic { name, by: "x" }.covers(asked);
        assert!(covers("__kept", "__kept") && !covers("__kept", "__kept_not"));
        assert!(covers("amq.*", "amq.gen") && covers("amq.*", "amq.") && !covers("amq.*", "amq"));
    }
}
