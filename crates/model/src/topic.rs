//! A topic's configuration and its stored form.

use crate::stored::{DecodeError, take, take_form, take_u8};

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
        }
    }
}

/// The first and only stored form: this byte, then the fields in order, little endian; an absent bound is -1.
const FORM: u8 = 1;

impl TopicConfig {
    /// Appends the stored form: 42 bytes.
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
    }

    /// Takes a configuration off the front of `input`.
    ///
    /// # Errors
    /// A form of a newer version, a cut input, a tag that is not known.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        take_form(input, FORM)?;
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
            ..TopicConfig::default()
        };
        for config in [config, TopicConfig::default()] {
            let bytes = stored(&config);
            assert_eq!(bytes.len(), 42);
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
        ] {
            let mut bad = good.clone();
            bad[at] = 9;
            assert_eq!(TopicConfig::decode(&mut bad.as_slice()), Err(expected));
        }
    }
}
