//! A topic's configuration and its stored form.

use sabir_base::varint;

use crate::batch::Compression;
use crate::stored::{DecodeError, put_bytes, take, take_count, take_str, take_u8};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TopicKind {
    /// Records stay until time or size takes them, whoever read them.
    #[default]
    Retention,
    /// One partition, one owning subscription; what is settled is let go.
    Queue,
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
}

impl TopicField {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
    ];

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
    /// The fields that the topic sets for itself; the others are the node's defaults.
    pub own: OwnFields,
    /// Settings that change nothing and are kept for those who ask for them.
    pub kept: KeptSettings,
}

/// Which fields of a configuration are a topic's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnFields(u16);

/// Names and values, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptSettings(Vec<(Box<str>, Box<str>)>);

impl KeptSettings {
    /// The value kept under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.find(name).ok()?;
        Some(&self.0[at].1)
    }

    /// Keeps a value under a name.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.find(name) {
            Ok(at) => self.0[at].1 = value.into(),
            Err(at) => self.0.insert(at, (name.into(), value.into())),
        }
    }

    /// Keeps nothing under a name.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.0.remove(at);
        }
    }

    /// Sorted, so that two configurations that say the same are the same.
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl Default for TopicConfig {
    /// Kafka's defaults: a week, any size, 1 MiB and a batch header, the producer's time at most an hour ahead.
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
            own: OwnFields::default(),
            kept: KeptSettings::default(),
        }
    }
}

impl TopicConfig {
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

/// The stored form that is written: this byte, then the fields in order, little endian; an absent bound is -1. Form 1 ends behind
/// the timestamps' bounds.
const FORM: u8 = 2;
const FORM_1: u8 = 1;

impl TopicConfig {
    /// Appends the stored form: 54 bytes, and what is kept by name.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        out.extend(self.retention_ms.unwrap_or(-1).to_le_bytes());
        out.extend(self.retention_bytes.unwrap_or(-1).to_le_bytes());
        out.extend(self.max_message_bytes.to_le_bytes());
        out.push(self.timestamp_type as u8);
        out.push(durability_tag(self.durability));
        out.push(self.kind as u8);
        out.extend(self.min_insync.to_le_bytes());
        out.extend(self.timestamp_before_max_ms.to_le_bytes());
        out.extend(self.timestamp_after_max_ms.to_le_bytes());
        out.push(self.compression.map_or(0, |codec| codec as u8 + 1));
        out.extend(self.gzip_level.to_le_bytes());
        out.extend(self.zstd_level.to_le_bytes());
        out.extend(self.own.0.to_le_bytes());
        varint::put_u64(out, self.kept.0.len() as u64);
        for (name, value) in &self.kept.0 {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }

    /// Takes a configuration off the front of `input`.
    ///
    /// # Errors
    /// A form of a newer version, a cut input, a tag that is not known.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let form = take_u8(input)?;
        if !(FORM_1..=FORM).contains(&form) {
            return Err(DecodeError::Version(form));
        }
        let mut config = Self::decode_first(input)?;
        if form == FORM_1 {
            // It did not say what is the topic's own. What a topic keeps must not become less because the node's default does.
            config.claim(&Self::default());
            config.own(TopicField::RetentionMs);
            config.own(TopicField::RetentionBytes);
            return Ok(config);
        }
        config.compression = match take_u8(input)? {
            0 => None,
            tag => {
                Some(*Compression::ALL.get(usize::from(tag - 1)).ok_or(DecodeError::Field("compression"))?)
            }
        };
        config.gzip_level = i32::from_le_bytes(take(input)?);
        config.zstd_level = i32::from_le_bytes(take(input)?);
        config.own = OwnFields(u16::from_le_bytes(take(input)?));
        for _ in 0..take_count(input, 2)? {
            let (name, value) = (take_str(input)?, take_str(input)?);
            config.kept.set(name, value);
        }
        Ok(config)
    }

    fn decode_first(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            retention_ms: take_bound(input)?,
            retention_bytes: take_bound(input)?,
            max_message_bytes: u32::from_le_bytes(take(input)?),
            timestamp_type: match take_u8(input)? {
                0 => TimestampType::CreateTime,
                1 => TimestampType::LogAppendTime,
                _ => return Err(DecodeError::Field("timestamp type")),
            },
            durability: match take_u8(input)? {
                0 => None,
                1 => Some(Durability::Os),
                2 => Some(Durability::Sync),
                _ => return Err(DecodeError::Field("durability")),
            },
            kind: match take_u8(input)? {
                0 => TopicKind::Retention,
                1 => TopicKind::Queue,
                _ => return Err(DecodeError::Field("kind")),
            },
            min_insync: u16::from_le_bytes(take(input)?),
            timestamp_before_max_ms: i64::from_le_bytes(take(input)?),
            timestamp_after_max_ms: i64::from_le_bytes(take(input)?),
            ..Self::default()
        })
    }
}

fn durability_tag(durability: Option<Durability>) -> u8 {
    match durability {
        None => 0,
        Some(Durability::Os) => 1,
        Some(Durability::Sync) => 2,
    }
}

fn take_bound(input: &mut &[u8]) -> Result<Option<i64>, DecodeError> {
    let bound = i64::from_le_bytes(take(input)?);
    Ok((bound >= 0).then_some(bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(config: &TopicConfig) -> Vec<u8> {
        let mut out = Vec::new();
        config.encode(&mut out);
        out
    }

    #[test]
    fn comes_back_as_it_was() {
        let config = TopicConfig {
            retention_ms: None,
            retention_bytes: Some(1 << 40),
            timestamp_type: TimestampType::LogAppendTime,
            durability: Some(Durability::Os),
            kind: TopicKind::Queue,
            min_insync: 2,
            compression: Some(Compression::Zstd),
            gzip_level: 9,
            zstd_level: -5,
            ..TopicConfig::default()
        };
        let mut with_more = config.clone();
        with_more.own(TopicField::ZstdLevel);
        with_more.kept.set("b", "2");
        with_more.kept.set("a", "1");
        assert_eq!(stored(&TopicConfig::default()).len(), 54);
        for config in [config, with_more, TopicConfig::default()] {
            let bytes = stored(&config);
            let mut input = bytes.as_slice();
            assert_eq!(TopicConfig::decode(&mut input), Ok(config));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn refuses_newer_forms_unknown_tags_and_every_prefix() {
        let good = stored(&TopicConfig::default());
        for len in 0..good.len() {
            assert_eq!(TopicConfig::decode(&mut &good[..len]), Err(DecodeError::Truncated), "{len}");
        }
        for (at, expected) in [
            (0, DecodeError::Version(9)),
            (21, DecodeError::Field("timestamp type")),
            (22, DecodeError::Field("durability")),
            (23, DecodeError::Field("kind")),
            (42, DecodeError::Field("compression")),
        ] {
            let mut bad = good.clone();
            bad[at] = 9;
            assert_eq!(TopicConfig::decode(&mut bad.as_slice()), Err(expected));
        }
    }

    /// What a data directory of the first form holds.
    #[test]
    fn the_first_form_is_still_read() {
        let bytes = b"\x01\xe8\x03\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x0c\0\x10\0\0\0\0\x02\0\xff\xff\xff\xff\xff\xff\xff\x7f\x80\xee\x36\0\0\0\0\0";
        assert_eq!(bytes.len(), 42);
        let read = TopicConfig::decode(&mut &bytes[..]).unwrap();
        let mut expected = TopicConfig { retention_ms: Some(1000), min_insync: 2, ..TopicConfig::default() };
        expected.own(TopicField::RetentionMs);
        expected.own(TopicField::RetentionBytes);
        expected.own(TopicField::MinInsync);
        assert_eq!(read, expected);
        let mut inherited = read.clone();
        inherited.inherit(&TopicConfig { retention_bytes: Some(1), ..TopicConfig::default() });
        assert_eq!(inherited, read, "what has no bound keeps none");
    }

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

    #[test]
    fn what_is_kept_is_kept_once_by_name() {
        let mut config = TopicConfig::default();
        let kept = &mut config.kept;
        kept.set("b", "1");
        kept.set("a", "2");
        kept.set("b", "3");
        assert_eq!((kept.get("a"), kept.get("b"), kept.get("c")), (Some("2"), Some("3"), None));
        kept.remove("b");
        kept.remove("a");
        assert_eq!(config, TopicConfig::default());
    }
}
