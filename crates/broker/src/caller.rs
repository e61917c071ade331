//! The caller of the broker, and what is forbidden to which caller: it is judged here and nowhere else.

use sabir_model::{ErrorAbout, FrontendNo, Namespace, ReadError, TopicError};
use sabir_routing::ExchangeSettings;

use crate::append::AppendRefusal;
use crate::broker::Broker;
use crate::catalog::Topic;
use crate::dead_letter::RedriveRefused;
use crate::definitions::Definitions;
use crate::exchange::{ExchangeError, Exchanges};
use crate::front_ends::EntryRefused;
use crate::queue::{QueueError, SubscribeRefused};
use crate::timer::DelayedRefused;

/// What a caller is to the broker. Users and what they may do come with authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The operator, by way of the admin port.
    Operator,
    /// A front end itself, which no client asked.
    Frontend,
    /// A client that has not said who it is.
    Anonymous,
}

/// The number of a caller's session. No other one has it in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SessionId(pub u64);

impl SessionId {
    /// For what no session asks.
    pub const NONE: Self = Self(0);
}

/// The caller of the broker: made once a connection, and lent to each call. What the front end that made a topic forbids others is judged by
/// it, and names are those of its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    front_end: Option<&'static str>,
    principal: Principal,
    namespace: Namespace,
    session: SessionId,
}

/// A name that a front end keeps for topics of its own, or gives those of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservedTopic {
    /// The name; with a `*` at its end, every name that begins with what stands before it.
    pub name: &'static str,
    /// The front end's name.
    pub by: &'static str,
}

impl Caller {
    /// The operator.
    pub const OPERATOR: Self = Self {
        front_end: None,
        principal: Principal::Operator,
        namespace: Namespace::DEFAULT,
        session: SessionId::NONE,
    };

    /// The front end of that name itself.
    pub const fn front_end(name: &'static str) -> Self {
        Self { front_end: Some(name), principal: Principal::Frontend, ..Self::OPERATOR }
    }

    /// A client of the front end of that name, in the default namespace.
    pub const fn client(front_end: &'static str, session: SessionId) -> Self {
        Self { front_end: Some(front_end), principal: Principal::Anonymous, session, ..Self::OPERATOR }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn within(self, namespace: Namespace) -> Self {
        Self { namespace, ..self }
    }

    /// The same for what is a front end's: its groups, where the operator asks.
    #[must_use]
    pub fn about(self, front_end: &'static str) -> Self {
        Self { front_end: Some(front_end), ..self }
    }

    /// The front end that asks, or is asked about; `None` for the operator.
    pub fn by(&self) -> Option<&'static str> {
        self.front_end
    }

    /// The front end as which it asks: what it makes is made by that one. None for the operator, whichever front end's things it asks about.
    pub(crate) fn as_front_end(&self) -> Option<&'static str> {
        self.front_end.filter(|_| self.principal != Principal::Operator)
    }

    /// What it is to the broker.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The namespace of what it names.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The session that asks.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether a topic is there for it: that of another namespace is not, but for the operator.
    #[inline]
    pub fn sees(&self, topic: &Topic) -> bool {
        *topic.namespace == *self.namespace.as_str() || self.principal == Principal::Operator
    }

    /// Whether batches that `origin` builds, or clients' as they came, may be appended to a topic: to what is internal those alone that the
    /// front end builds which made it.
    #[inline]
    pub(crate) fn may_append(&self, topic: &Topic, origin: FrontendNo) -> Result<(), AppendRefusal> {
        if !self.sees(topic) {
            return Err(AppendRefusal::UnknownPartition);
        }
        if topic.internal && (origin == FrontendNo::NONE || origin != topic.made_by) {
            return Err(AppendRefusal::Internal);
        }
        Ok(())
    }

    /// Whether a queue may be used: consumed, and so emptied, by the clients that it is there for, whichever front end made it; what is internal by
    /// front ends alone, for themselves.
    pub(crate) fn may_use(&self, queue: &Topic) -> Result<(), QueueError> {
        match self.sees(queue) {
            false => Err(QueueError::Unknown),
            true if queue.internal && self.principal != Principal::Frontend => Err(QueueError::Internal),
            true => Ok(()),
        }
    }

    /// Whether a queue is another session's for itself, the one that made it in this run of the node. Front ends themselves and the operator are
    /// no sessions.
    pub(crate) fn is_locked_out(&self, queue: &Topic, owner: Option<SessionId>) -> bool {
        let is_exclusive = queue.config.queue().is_some_and(|queue| queue.exclusive);
        is_exclusive && self.principal == Principal::Anonymous && owner != Some(self.session)
    }

    /// Whether a projection may be written to and looked into: its front end's clients and itself do so, by way of that.
    pub(crate) fn may_use_projection(&self, projection: &str) -> Result<(), EntryRefused> {
        let is_of = |front_end: &str| {
            let rest = projection.strip_prefix(front_end);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.as_front_end().is_some_and(is_of) { Ok(()) } else { Err(EntryRefused::OtherFrontend) }
    }

    /// Whether a topic's subscription may be purged or removed, or be made in further partitions, that is a projection's, or has no owner: a client
    /// asks its protocol for the former, which has state of its own about it.
    pub(crate) fn may_change_subscription_of(&self, owner: FrontendNo) -> Result<(), SubscribeRefused> {
        let may = owner == FrontendNo::NONE || self.principal == Principal::Operator;
        if may { Ok(()) } else { Err(SubscribeRefused::Owned) }
    }

    /// Whether dead letters may be had go back.
    pub(crate) fn may_redrive(&self) -> Result<(), RedriveRefused> {
        if self.principal == Principal::Operator { Ok(()) } else { Err(RedriveRefused::NotOperator) }
    }

    /// Whether delayed messages may be looked at and dropped, whoever published them.
    pub(crate) fn may_drop_delayed(&self) -> Result<(), DelayedRefused> {
        if self.principal == Principal::Operator { Ok(()) } else { Err(DelayedRefused::NotOperator) }
    }

    /// Whether a topic may be read.
    #[inline]
    pub(crate) fn may_read(&self, topic: &Topic) -> Result<(), ReadError> {
        if self.sees(topic) { Ok(()) } else { Err(ReadError::UnknownPartition) }
    }
}

/// Whether messages are routed to a topic, and whether it may be bound: no caller has them go to what is internal.
pub(crate) fn is_routed_to(topic: &Topic) -> bool {
    !topic.internal
}

/// Whether clients publish to an exchange: one that is internal gets messages from other exchanges alone.
pub(crate) fn is_published_to(exchange: &ExchangeSettings) -> bool {
    !exchange.internal
}

/// Whether a front end of that number may change what another one, or none, made; the operator has none.
fn may_change_what_is_of(made_by: FrontendNo, asks: Option<Option<FrontendNo>>) -> bool {
    made_by == FrontendNo::NONE || asks.is_none_or(|asks| asks == Some(made_by))
}

impl ReservedTopic {
    /// Whether a name is this one, or begins so.
    pub fn covers(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == self.name,
        }
    }

    /// Whether the caller is the front end that the name is kept for, or a client of it.
    fn is_for_client(&self, caller: &Caller) -> bool {
        caller.as_front_end() == Some(self.by)
    }

    /// Whether the caller is the front end that the name is kept for.
    fn is_for(&self, caller: &Caller) -> bool {
        caller.principal == Principal::Frontend && caller.front_end == Some(self.by)
    }
}

impl Definitions {
    /// Whether a queue, or another topic's subscriptions, may be used: what the caller sees, and no other session has for itself.
    pub(crate) fn may_use(&self, caller: &Caller, topic: &Topic) -> Result<(), QueueError> {
        caller.may_use(topic)?;
        match self.is_locked_out(caller, topic) {
            true => Err(QueueError::Locked),
            false => Ok(()),
        }
    }

    fn is_locked_out(&self, caller: &Caller, queue: &Topic) -> bool {
        caller.is_locked_out(queue, self.exclusive.owner(queue.id))
    }
}

impl Broker {
    /// Whether a queue, or another topic by its subscriptions, may be used by the caller, as things are now. What is then done with it judges that
    /// by itself; this is for what a protocol answers before.
    ///
    /// # Errors
    /// [`QueueError::Unknown`] of what the caller does not see, [`QueueError::Internal`], [`QueueError::Locked`].
    pub fn may_use(&self, caller: &Caller, topic: &Topic) -> Result<(), ErrorAbout<QueueError>> {
        let may_use = self.inner.definitions.may_use(caller, topic);
        may_use.map_err(|error| ErrorAbout::new(error, topic.whole_subject()))
    }

    /// Whether a topic of this name may be made. A name that a front end keeps for itself is that front end's alone, for topics that it
    /// marks as internal; one that it keeps for its clients is theirs and its own.
    pub(crate) fn may_make(&self, caller: &Caller, name: &str, internal: bool) -> Result<(), TopicError> {
        let kept_from =
            |reserved: &&ReservedTopic| reserved.covers(name) && !(internal && reserved.is_for(caller));
        let options = self.options();
        let for_others = |reserved: &&ReservedTopic| reserved.covers(name) && !reserved.is_for_client(caller);
        let of_clients = || options.of_clients.iter().find(for_others);
        match options.reserved.iter().find(kept_from).or_else(of_clients) {
            Some(reserved) => Err(TopicError::Reserved { name: name.into(), by: reserved.by }),
            None => Ok(()),
        }
    }

    /// Whether records may be taken out of a topic by their offsets, as things are now: those that [may change](Self::may_change) it do so, but not of
    /// a queue. A front end asks before it writes an entry that moves a log's start
    /// ([`Effects::move_log_start`](crate::projection::Effects::move_log_start)).
    ///
    /// # Errors
    /// Those of [`may_change`](Self::may_change), and [`TopicError::QueueRecords`].
    pub fn may_empty(&self, caller: &Caller, topic: &Topic) -> Result<(), TopicError> {
        self.may_change(caller, topic)?;
        match topic.config.queue() {
            Some(_) => Err(TopicError::QueueRecords((*topic.name).into())),
            None => Ok(()),
        }
    }

    /// Whether a topic may be changed, emptied or deleted, as things are now: no caller changes what is internal, no front end what another one made,
    /// and no session what another one has for itself. The broker's own calls judge that by themselves; a front end asks before it writes an
    /// entry that changes a topic by its effects, since `apply` knows no caller.
    ///
    /// # Errors
    /// [`TopicError::Unknown`] of what the caller does not see, [`TopicError::Internal`], [`TopicError::MadeElsewhere`], [`TopicError::Exclusive`].
    pub fn may_change(&self, caller: &Caller, topic: &Topic) -> Result<(), TopicError> {
        if !caller.sees(topic) {
            return Err(TopicError::Unknown);
        }
        if topic.internal {
            return Err(TopicError::Internal((*topic.name).into()));
        }
        let asks = caller.as_front_end().map(|name| self.front_end_number(name));
        if !may_change_what_is_of(topic.made_by, asks) {
            return Err(TopicError::MadeElsewhere((*topic.name).into()));
        }
        match self.inner.definitions.is_locked_out(caller, topic) {
            true => Err(TopicError::Exclusive((*topic.name).into())),
            false => Ok(()),
        }
    }
}

impl Exchanges {
    /// Whether an exchange of this name may be declared. One that a front end has in every namespace is declared by itself alone.
    pub(crate) fn may_declare(&self, caller: &Caller, name: &str) -> Result<(), ExchangeError> {
        match self.predeclared(name) {
            Some(by) if caller.principal != Principal::Frontend || caller.front_end != Some(by) => {
                Err(ExchangeError::Reserved { name: name.into(), by })
            }
            _ => Ok(()),
        }
    }

    /// Whether an exchange may be deleted: by no front end what another one made, and not what its front end has in every namespace.
    pub(crate) fn may_delete(&self, caller: &Caller, name: &str) -> Result<(), ExchangeError> {
        self.may_declare(caller, name)?;
        let asks = caller.as_front_end().map(|name| self.front_end_number(name));
        match self.made_by(caller, name)? {
            Some(made_by) if !may_change_what_is_of(made_by, asks) => {
                Err(ExchangeError::MadeElsewhere(name.into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sabir_model::{TopicConfig, TopicId, ValidConfig};

    use super::*;

    #[test]
    fn a_reserved_name_is_one_name_or_all_that_begin_so() {
        let covers = |name: &'static str, asked: &str| ReservedTopic { name, by: "x" }.covers(asked);
        assert!(covers("__kept", "__kept") && !covers("__kept", "__kept_not"));
        assert!(covers("amq.*", "amq.gen") && covers("amq.*", "amq.") && !covers("amq.*", "amq"));
    }

    fn topic(namespace: &str) -> Topic {
        Topic {
            id: TopicId([1; 16]),
            name: "t".into(),
            namespace: namespace.into(),
            version: 1,
            config: ValidConfig::trusted(TopicConfig::default()),
            partitions: Vec::new(),
            internal: false,
            made_by: FrontendNo(3),
            traffic: Arc::default(),
        }
    }

    #[test]
    fn to_what_is_internal_its_front_end_alone_appends() {
        let internal = Topic { internal: true, ..topic("/") };
        let caller = Caller::client("one", SessionId(1));
        assert_eq!(caller.may_append(&internal, FrontendNo::NONE), Err(AppendRefusal::Internal));
        assert_eq!(caller.may_append(&internal, FrontendNo(4)), Err(AppendRefusal::Internal));
        assert_eq!(caller.may_append(&internal, FrontendNo(3)), Ok(()));
        assert_eq!(caller.may_append(&topic("/"), FrontendNo::NONE), Ok(()));
    }

    #[test]
    fn what_is_in_another_namespace_is_not_there_but_for_the_operator() {
        let other = Caller::client("one", SessionId(1)).within(Namespace::named("other").unwrap());
        assert_eq!(other.may_append(&topic("/"), FrontendNo::NONE), Err(AppendRefusal::UnknownPartition));
        assert_eq!(other.may_read(&topic("/")), Err(ReadError::UnknownPartition));
        for caller in [other, Caller::OPERATOR] {
            assert_eq!(caller.may_append(&topic("other"), FrontendNo::NONE), Ok(()));
            assert_eq!(caller.may_read(&topic("other")), Ok(()));
        }
    }

    #[test]
    fn a_queue_is_used_by_whom_it_is_there_for() {
        let other = Caller::client("one", SessionId(1)).within(Namespace::named("other").unwrap());
        assert_eq!(other.may_use(&topic("/")), Err(QueueError::Unknown));
        let client = Caller::client("two", SessionId(1));
        assert_eq!(client.may_use(&topic("/")), Ok(()), "another front end's");
        let internal = Topic { internal: true, ..topic("/") };
        assert_eq!(client.may_use(&internal), Err(QueueError::Internal));
        assert_eq!(Caller::front_end("two").may_use(&internal), Ok(()));
    }

    #[test]
    fn a_projection_is_its_front_ends() {
        let client = Caller::client("one", SessionId(1));
        for projection in ["one", "one.state"] {
            assert_eq!(client.may_use_projection(projection), Ok(()));
            assert_eq!(Caller::front_end("one").may_use_projection(projection), Ok(()));
            for other in [Caller::client("on", SessionId(1)), Caller::OPERATOR, Caller::OPERATOR.about("one")]
            {
                assert_eq!(other.may_use_projection(projection), Err(EntryRefused::OtherFrontend));
            }
        }
        assert_eq!(client.may_use_projection("ones"), Err(EntryRefused::OtherFrontend));
    }

    #[test]
    fn what_a_front_end_keeps_for_itself_is_not_its_clients() {
        let kept = ReservedTopic { name: "kept", by: "one" };
        let client = Caller::client("one", SessionId(7));
        let callers = [Caller::front_end("one"), client, Caller::front_end("two"), Caller::OPERATOR];
        assert_eq!(callers.each_ref().map(|caller| kept.is_for(caller)), [true, false, false, false]);
        assert_eq!(callers.map(|caller| kept.is_for_client(&caller)), [true, true, false, false]);
    }
}
