//! What holds for a queue alone.

use super::Backoff;

/// What is done about a message that is one too many for its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Overflow {
    /// The oldest ready messages go.
    #[default]
    DropHead,
    /// The new one is refused.
    Reject,
    /// The new one is refused and dead-lettered.
    RejectAndDeadLetter,
}

/// How a subscription keeps the order of messages of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GroupOrder {
    /// Not at all.
    #[default]
    Free,
    /// One unsettled delivery a group.
    Serial,
    /// One consumer a group, as long as it is there.
    Sticky,
}

/// Where what a queue gives up is published to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeadLetterAddress {
    /// The exchange, by its name in the queue's namespace.
    pub exchange: Box<str>,
    /// The routing key; `None` for the one that the message was published with.
    pub routing_key: Option<Box<str>>,
}

impl DeadLetterAddress {
    /// The most bytes of the exchange's name, and of the routing key. Front ends may take less.
    pub const MOST: usize = 1024;

    /// Whether neither is longer than [`Self::MOST`].
    pub fn fits(&self) -> bool {
        let key = self.routing_key.as_deref().unwrap_or_default();
        self.exchange.len().max(key.len()) <= Self::MOST
    }
}

/// How fast messages are consumed at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Messages a second; 0 lets nothing through.
    pub per_second: u32,
    /// The most at once, after a pause.
    pub burst: u32,
}

/// Within which bounds a message is known as one that came before, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupLimit {
    /// For how many milliseconds an id is remembered.
    pub window_ms: u64,
    /// The most ids that are remembered: those before them are forgotten sooner.
    pub most: u32,
}

impl DedupLimit {
    /// The most ids that a queue remembers where it does not say how many.
    pub const IDS: u32 = 10_000;
    /// The most that it may remember.
    pub const MOST_IDS: u32 = 1_000_000;
    /// Bytes of memory that an id takes, at the most.
    pub const ID_BYTES: usize = 128;

    /// Bytes of memory that its ids take, at the most.
    pub fn bytes(&self) -> usize {
        self.most as usize * Self::ID_BYTES
    }
}

/// What holds for a queue alone. It has a stored form of its own, so that what comes to be here changes no other topic's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueConfig {
    /// Whether it outlives a restart of the node.
    pub durable: bool,
    /// Whether the session that declared it has it to itself.
    pub exclusive: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Whether one consumer at a time gets its messages.
    pub single_active: bool,
    /// How the order of messages of one group is kept.
    pub order: GroupOrder,
    /// How many deliveries a message may come back from that count; `None` for any number.
    pub delivery_limit: Option<u32>,
    /// How long a message waits that comes back such that it counts; `None` for not at all.
    pub retry: Option<Backoff>,
    /// After how many milliseconds a message is taken out; `None` for never.
    pub message_ttl_ms: Option<u64>,
    /// After how many milliseconds without use the queue is deleted; `None` for never.
    pub expires_ms: Option<u64>,
    /// The most ready messages; `None` for any number.
    pub max_length: Option<u64>,
    /// The most bytes of ready messages; `None` for any number.
    pub max_length_bytes: Option<u64>,
    /// What is done about a message too many.
    pub overflow: Overflow,
    /// The highest priority that counts; `None` where priorities count for nothing.
    pub max_priority: Option<u8>,
    /// Whether a message is kept back until its time, and goes elsewhere then.
    pub delays: bool,
    /// Where what is given up is published to; `None` for nowhere.
    pub dead_letter: Option<DeadLetterAddress>,
    /// The most messages a second that are delivered, to all consumers together; `None` for any number.
    pub consume_rate: Option<u32>,
    /// The most of them at once, after a pause; `None` for those of a second.
    pub consume_burst: Option<u32>,
    /// For how many milliseconds a message with the id of an earlier one is dropped; `None` where ids say nothing.
    pub dedup_window_ms: Option<u64>,
    /// The most ids that are remembered for this; `None` for [`DedupLimit::IDS`].
    pub dedup_max: Option<u32>,
}

impl QueueConfig {
    /// Within which bounds a message is known by its id, if the queue drops what comes twice.
    pub fn dedup(&self) -> Option<DedupLimit> {
        let window_ms = self.dedup_window_ms?;
        Some(DedupLimit { window_ms, most: self.dedup_max.unwrap_or(DedupLimit::IDS) })
    }

    /// How fast its messages are consumed at most, if that is limited.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        let per_second = self.consume_rate?;
        Some(RateLimit { per_second, burst: self.consume_burst.unwrap_or(per_second) })
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            durable: true,
            exclusive: false,
            auto_delete: false,
            single_active: false,
            order: GroupOrder::Free,
            delivery_limit: None,
            retry: None,
            message_ttl_ms: None,
            expires_ms: None,
            max_length: None,
            max_length_bytes: None,
            overflow: Overflow::DropHead,
            max_priority: None,
            delays: false,
            dead_letter: None,
            consume_rate: None,
            consume_burst: None,
            dedup_window_ms: None,
            dedup_max: None,
        }
    }
}
