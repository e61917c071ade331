//! A topic's configuration: its fields, what of them is the topic's own, which of them can be, and how it is stored.

mod backoff;
mod kept;
mod queue;
mod rules;
mod stored;

pub use backoff::Backoff;
pub use kept::KeptSettings;
pub use queue::{DeadLetterAddress, DedupLimit, GroupOrder, Overflow, QueueConfig, RateLimit};
pub use rules::{InvalidSetting, KEPT_BYTES, ValidConfig};

use std::sync::Arc;

use crate::batch::Compression;

/// Whose time a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, when it appended the batch.
    LogAppendTime,
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// The operating system has the bytes: survives a killed process, not a power cut.
    Os,
    /// A flush covers the bytes and all before them.
    Sync,
}

/// Whether records stay or go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum TopicKind {
    /// Records stay until time or size takes them, whichever consumers have read them.
    #[default]
    Retention,
    /// One partition, one owning subscription; what is settled is let go.
    Queue(Arc<QueueConfig>),
}

/// A field of a [`TopicConfig`] that a topic sets for itself, or leaves to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum TopicField {
    /// [`TopicConfig::retention_ms`]
    RetentionMs = 0,
    /// [`TopicConfig::retention_bytes`]
    RetentionBytes = 1,
    /// [`TopicConfig::max_message_bytes`]
    MaxMessageBytes = 2,
    /// [`TopicConfig::timestamp_type`]
    TimestampType = 3,
    /// [`TopicConfig::durability`]
    Durability = 4,
    /// [`TopicConfig::min_insync`]
    MinInsync = 5,
    /// [`TopicConfig::timestamp_before_max_ms`]
    TimestampBeforeMaxMs = 6,
    /// [`TopicConfig::timestamp_after_max_ms`]
    TimestampAfterMaxMs = 7,
    /// [`TopicConfig::compression`]
    Compression = 8,
    /// [`TopicConfig::gzip_level`]
    GzipLevel = 9,
    /// [`TopicConfig::zstd_level`]
    ZstdLevel = 10,
    /// [`TopicConfig::flush_ms`]
    FlushMs = 11,
    /// [`TopicConfig::flush_messages`]
    FlushMessages = 12,
}

impl TopicField {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::RetentionMs,
        Self::RetentionBytes,
        Self::MaxMessageBytes,
        Self::TimestampType,
        Self::Durability,
        Self::MinInsync,
        Self::TimestampBeforeMaxMs,
        Self::TimestampAfterMaxMs,
        Self::Compression,
        Self::GzipLevel,
        Self::ZstdLevel,
        Self::FlushMs,
        Self::FlushMessages,
    ];

    /// Its name where no protocol has another.
    pub fn name(self) -> &'static str {
        match self {
            Self::RetentionMs => "retention_ms",
            Self::RetentionBytes => "retention_bytes",
            Self::MaxMessageBytes => "max_message_bytes",
            Self::TimestampType => "timestamp",
            Self::Durability => "durability",
            Self::MinInsync => "min_insync",
            Self::TimestampBeforeMaxMs => "timestamp_before_max_ms",
            Self::TimestampAfterMaxMs => "timestamp_after_max_ms",
            Self::Compression => "compression",
            Self::GzipLevel => "gzip_level",
            Self::ZstdLevel => "zstd_level",
            Self::FlushMs => "flush_ms",
            Self::FlushMessages => "flush_messages",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// How a topic keeps its records and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// How long records are kept, in milliseconds; `None` for ever.
    pub retention_ms: Option<i64>,
    /// How many bytes a partition keeps; `None` without a bound.
    pub retention_bytes: Option<i64>,
    /// The largest batch taken, in bytes, its header included.
    pub max_message_bytes: u32,
    /// Whose time records carry.
    pub timestamp_type: TimestampType,
    /// What a commit waits for; `None` for the node's default.
    pub durability: Option<Durability>,
    /// Whether records stay or go.
    pub kind: TopicKind,
    /// Replicas that must have a record before a producer that asked for all of them is answered.
    pub min_insync: u16,
    /// How far behind the broker's clock a producer's timestamp may be, in milliseconds.
    pub timestamp_before_max_ms: i64,
    /// How far ahead of the broker's clock a producer's timestamp may be, in milliseconds.
    pub timestamp_after_max_ms: i64,
    /// How batches are compressed when they are appended; `None` to keep them as their producers compress them.
    pub compression: Option<Compression>,
    /// The level where they are compressed with gzip: 1 to 9, or -1 for its default.
    pub gzip_level: i32,
    /// The level where they are compressed with zstd.
    pub zstd_level: i32,
    /// After how many milliseconds at the latest a record is flushed to the disk; `None` as its durability has it.
    pub flush_ms: Option<i64>,
    /// After how many records at the latest they are flushed to the disk; `None` as their durability has it.
    pub flush_messages: Option<i64>,
    /// The fields that the topic sets for itself; the others are the node's defaults.
    pub own: OwnFields,
    /// Settings that change nothing and are kept for clients that ask for them.
    pub kept: KeptSettings,
}

/// The largest batch that a queue takes: a message of 128 MiB, with what stands beside its body.
const QUEUE_MESSAGE_BYTES: u32 = (128 << 20) + (1 << 20);

/// Which fields of a configuration are a topic's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnFields(u16);

impl Default for TopicConfig {
    /// What holds of a log that does not say: a week, any size, 1 MiB and a batch header, the producer's time at most an hour ahead.
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * 24 * 3600 * 1000),
            retention_bytes: None,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            durability: None,
            kind: TopicKind::Retention,
            min_insync: 1,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: None,
            gzip_level: -1,
            zstd_level: 3,
            flush_ms: None,
            flush_messages: None,
            own: OwnFields::default(),
            kept: KeptSettings::default(),
        }
    }
}

impl TopicConfig {
    /// A queue's: nothing is kept for its time or size, and a message may have as many bytes as queues' clients expect.
    pub fn of_queue(queue: QueueConfig) -> Self {
        let mut config = Self {
            kind: TopicKind::Queue(Arc::new(queue)),
            retention_ms: None,
            retention_bytes: None,
            max_message_bytes: QUEUE_MESSAGE_BYTES,
            ..Self::default()
        };
        for field in [TopicField::RetentionMs, TopicField::RetentionBytes, TopicField::MaxMessageBytes] {
            config.own(field);
        }
        config
    }

    /// What holds for it as a queue; `None` if it is none.
    pub fn queue(&self) -> Option<&Arc<QueueConfig>> {
        match &self.kind {
            TopicKind::Retention => None,
            TopicKind::Queue(queue) => Some(queue),
        }
    }

    /// Bytes of memory that the message ids take which it has remembered, at the most.
    pub fn dedup_bytes(&self) -> usize {
        self.queue().and_then(|queue| queue.dedup()).map_or(0, |limit| limit.bytes())
    }

    /// Whether the topic sets a field for itself.
    pub fn owns(&self, field: TopicField) -> bool {
        self.own.0 & field.bit() != 0
    }

    /// Marks a field as the topic's own.
    pub fn own(&mut self, field: TopicField) {
        self.own.0 |= field.bit();
    }

    /// Leaves a field to the node, whose value it takes.
    pub fn disown(&mut self, field: TopicField, defaults: &Self) {
        self.own.0 &= !field.bit();
        self.copy(field, defaults);
    }

    /// Marks as the topic's own what differs from the node's defaults.
    pub fn claim(&mut self, defaults: &Self) {
        for field in TopicField::ALL {
            let mut as_default = self.clone();
            as_default.copy(field, defaults);
            if as_default != *self {
                self.own(field);
            }
        }
    }

    /// Takes the node's defaults for all that is not the topic's own.
    pub fn inherit(&mut self, defaults: &Self) {
        for field in TopicField::ALL {
            if !self.owns(field) {
                self.copy(field, defaults);
            }
        }
    }

    fn copy(&mut self, field: TopicField, from: &Self) {
        match field {
            TopicField::RetentionMs => self.retention_ms = from.retention_ms,
            TopicField::RetentionBytes => self.retention_bytes = from.retention_bytes,
            TopicField::MaxMessageBytes => self.max_message_bytes = from.max_message_bytes,
            TopicField::TimestampType => self.timestamp_type = from.timestamp_type,
            TopicField::Durability => self.durability = from.durability,
            TopicField::MinInsync => self.min_insync = from.min_insync,
            TopicField::TimestampBeforeMaxMs => self.timestamp_before_max_ms = from.timestamp_before_max_ms,
            TopicField::TimestampAfterMaxMs => self.timestamp_after_max_ms = from.timestamp_after_max_ms,
            TopicField::Compression => self.compression = from.compression,
            TopicField::GzipLevel => self.gzip_level = from.gzip_level,
            TopicField::ZstdLevel => self.zstd_level = from.zstd_level,
            TopicField::FlushMs => self.flush_ms = from.flush_ms,
            TopicField::FlushMessages => self.flush_messages = from.flush_messages,
        }
    }

    /// The level that a codec is to be used with; `None` for its default.
    pub fn level(&self, codec: Compression) -> Option<i32> {
        match codec {
            Compression::Gzip => Some(self.gzip_level).filter(|level| *level >= 0),
            Compression::Zstd => Some(self.zstd_level),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_topics_own_follows_the_node() {
        let node = TopicConfig { retention_ms: Some(5), min_insync: 3, ..TopicConfig::default() };
        let mut topic = TopicConfig { retention_ms: Some(7), ..node.clone() };
        topic.claim(&node);
        assert!(topic.owns(TopicField::RetentionMs) && !topic.owns(TopicField::MinInsync));
        let later = TopicConfig { retention_ms: Some(9), min_insync: 1, ..TopicConfig::default() };
        topic.inherit(&later);
        assert_eq!((topic.retention_ms, topic.min_insync), (Some(7), 1));
        topic.disown(TopicField::RetentionMs, &later);
        assert_eq!(topic, later);
    }

    #[test]
    fn every_field_is_inherited_or_kept_by_itself() {
        let node = TopicConfig::default();
        let other = TopicConfig {
            retention_ms: None,
            retention_bytes: Some(1),
            max_message_bytes: 1,
            timestamp_type: TimestampType::LogAppendTime,
            durability: Some(Durability::Os),
            min_insync: 2,
            timestamp_before_max_ms: 1,
            timestamp_after_max_ms: 1,
            compression: Some(Compression::None),
            gzip_level: 1,
            zstd_level: 1,
            flush_ms: Some(1),
            flush_messages: Some(1),
            ..TopicConfig::default()
        };
        let mut claimed = other.clone();
        claimed.claim(&node);
        assert!(TopicField::ALL.iter().all(|field| claimed.owns(*field)));
        let mut kept = claimed.clone();
        kept.inherit(&node);
        assert_eq!(kept, claimed);
        let mut inherited = other;
        inherited.inherit(&node);
        assert_eq!(inherited, node);
    }
}
