//! Which configurations there can be. What a front end takes from its clients, and what the admin port takes, is judged here alone.

use std::fmt;
use std::ops::Deref;

use super::{Backoff, DeadLetterAddress, DedupLimit, Durability, TopicConfig, TopicField};

/// The most memory that settings take which are kept for a topic, in bytes.
pub const KEPT_BYTES: usize = 96 << 10;

/// How soon a topic of durability `os` is flushed, in milliseconds: within that time, whatever has come.
const OS_FLUSH_MS: i64 = 1000;

/// The longest time of a queue and of its messages, in milliseconds.
const LONGEST_MS: u64 = u32::MAX as u64;

/// Levels of zstd, from the quickest to the densest.
const ZSTD_LEVELS: std::ops::RangeInclusive<i64> = -131_072..=22;

/// A configuration that can be: what is stored with a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidConfig(TopicConfig);

/// A setting that cannot be, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidSetting {
    /// The field; `None` where it is all that is kept by name, or a queue's own.
    pub field: Option<TopicField>,
    /// What is wrong, and what can be.
    pub problem: String,
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field.map_or("settings", TopicField::name), self.problem)
    }
}

impl InvalidSetting {
    fn of(field: TopicField, problem: impl Into<String>) -> Self {
        Self { field: Some(field), problem: problem.into() }
    }
}

impl ValidConfig {
    /// What was judged when it was stored. It stays readable, should the rules have become stricter since.
    pub fn trusted(stored: TopicConfig) -> Self {
        Self(stored)
    }

    /// The same with the node's defaults, which are good, for all that is not the topic's own.
    #[must_use]
    pub fn inheriting(mut self, defaults: &TopicConfig) -> Self {
        self.0.inherit(defaults);
        self
    }
}

impl Deref for ValidConfig {
    type Target = TopicConfig;

    fn deref(&self) -> &TopicConfig {
        &self.0
    }
}

impl TopicConfig {
    /// Judges every field, and what they mean together on a node with this durability.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn validate(self, node: Durability) -> Result<ValidConfig, InvalidSetting> {
        self.check_numbers()?;
        self.check_levels()?;
        self.check_flushes(node)?;
        self.check_queue()?;
        self.check_retry()?;
        if self.kept.bytes() > KEPT_BYTES {
            let problem =
                format!("those kept by name take {} bytes, and may take {KEPT_BYTES}", self.kept.bytes());
            return Err(InvalidSetting { field: None, problem });
        }
        Ok(ValidConfig(self))
    }

    fn check_numbers(&self) -> Result<(), InvalidSetting> {
        use TopicField as F;
        for (field, value, least) in [
            (F::RetentionMs, self.retention_ms, 0),
            (F::RetentionBytes, self.retention_bytes, 0),
            (F::TimestampBeforeMaxMs, Some(self.timestamp_before_max_ms), 0),
            (F::TimestampAfterMaxMs, Some(self.timestamp_after_max_ms), 0),
            (F::MinInsync, Some(self.min_insync.into()), 1),
            (F::FlushMs, self.flush_ms, 0),
            (F::FlushMessages, self.flush_messages, 1),
        ] {
            if let Some(value) = value.filter(|value| *value < least) {
                return Err(InvalidSetting::of(
                    field,
                    format!("expected a number from {least} on, not {value}"),
                ));
            }
        }
        let most = i32::MAX;
        match i32::try_from(self.max_message_bytes) {
            Ok(_) => Ok(()),
            Err(_) => Err(InvalidSetting::of(F::MaxMessageBytes, format!("expected at most {most} bytes"))),
        }
    }

    fn check_levels(&self) -> Result<(), InvalidSetting> {
        if self.gzip_level != -1 && !(1..=9).contains(&self.gzip_level) {
            return Err(InvalidSetting::of(TopicField::GzipLevel, "expected a number from 1 to 9, or -1"));
        }
        if !ZSTD_LEVELS.contains(&self.zstd_level.into()) {
            let (least, most) = (ZSTD_LEVELS.start(), ZSTD_LEVELS.end());
            let problem = format!("expected a number from {least} to {most}");
            return Err(InvalidSetting::of(TopicField::ZstdLevel, problem));
        }
        Ok(())
    }

    /// What holds for it as a queue. Front ends may take less.
    fn check_queue(&self) -> Result<(), InvalidSetting> {
        let Some(queue) = self.queue() else { return Ok(()) };
        if queue.dead_letter.as_ref().is_some_and(|to| !to.fits()) {
            let most = DeadLetterAddress::MOST;
            let problem = format!(
                "exchange and routing key of a queue's dead_letter: expected at most {most} bytes each"
            );
            return Err(InvalidSetting { field: None, problem });
        }
        for (what, value, least, most) in [
            ("message_ttl_ms", queue.message_ttl_ms, 0, LONGEST_MS),
            ("expires_ms", queue.expires_ms, 1, LONGEST_MS),
            ("max_length", queue.max_length, 0, i64::MAX as u64),
            ("max_length_bytes", queue.max_length_bytes, 0, i64::MAX as u64),
            ("max_priority", queue.max_priority.map(u64::from), 1, u8::MAX.into()),
            ("consume_rate", queue.consume_rate.map(u64::from), 1, u32::MAX.into()),
            ("consume_burst", queue.consume_burst.map(u64::from), 1, u32::MAX.into()),
            ("dedup_window_ms", queue.dedup_window_ms, 1, LONGEST_MS),
            ("dedup_max", queue.dedup_max.map(u64::from), 1, DedupLimit::MOST_IDS.into()),
        ] {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                let problem =
                    format!("a queue's {what}: expected a number from {least} to {most}, not {value}");
                return Err(InvalidSetting { field: None, problem });
            }
        }
        if queue.consume_burst.is_some() && queue.consume_rate.is_none() {
            let problem = "a queue's consume_burst: expected consume_rate with it".to_owned();
            return Err(InvalidSetting { field: None, problem });
        }
        if queue.dedup_max.is_some() && queue.dedup_window_ms.is_none() {
            let problem = "a queue's dedup_max: expected dedup_window_ms with it".to_owned();
            return Err(InvalidSetting { field: None, problem });
        }
        Ok(())
    }

    fn check_retry(&self) -> Result<(), InvalidSetting> {
        let most = Backoff::MOST_STEPS;
        let problem = match self.queue().and_then(|queue| queue.retry.as_ref()) {
            Some(Backoff::Steps(steps)) if !(1..=most).contains(&steps.len()) => {
                format!("what comes back waits in 1 to {most} steps, not {}", steps.len())
            }
            Some(Backoff::Exponential { first_ms: 0, .. } | Backoff::Linear { first_ms: 0, .. }) => {
                "what comes back waits for 1 ms at the least".to_owned()
            }
            Some(Backoff::Exponential { percent, .. }) if *percent < 100 => {
                format!(
                    "what comes back waits no less each time: expected 100 percent or more, not {percent}"
                )
            }
            Some(
                Backoff::Exponential { first_ms, longest_ms, .. } | Backoff::Linear { first_ms, longest_ms },
            ) if longest_ms < first_ms => {
                format!(
                    "what comes back waits for {first_ms} ms at first, which is more than {longest_ms} ms, the longest"
                )
            }
            Some(_) | None => return Ok(()),
        };
        Err(InvalidSetting { field: None, problem })
    }

    /// Refuses durability `os` for a topic that asks for more.
    fn check_flushes(&self, node: Durability) -> Result<(), InvalidSetting> {
        if self.durability.unwrap_or(node) == Durability::Sync {
            return Ok(());
        }
        let refused = |field, asked: i64| {
            let problem = format!(
                "a topic of durability os is flushed within {OS_FLUSH_MS} ms and not sooner, so {asked} cannot be kept; durability \
                 sync flushes everything before it is acknowledged"
            );
            Err(InvalidSetting::of(field, problem))
        };
        match (self.flush_messages, self.flush_ms.filter(|asked| *asked < OS_FLUSH_MS)) {
            (Some(asked), _) => refused(TopicField::FlushMessages, asked),
            (None, Some(asked)) => refused(TopicField::FlushMs, asked),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeadLetterAddress, QueueConfig};
    use super::*;

    fn judged(config: TopicConfig, node: Durability) -> Result<ValidConfig, Option<TopicField>> {
        config.validate(node).map_err(|refused| refused.field)
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_field() {
        use TopicField as F;
        let config = TopicConfig::default;
        for (field, bad) in [
            (F::RetentionMs, TopicConfig { retention_ms: Some(-1), ..config() }),
            (F::RetentionBytes, TopicConfig { retention_bytes: Some(i64::MIN), ..config() }),
            (F::MaxMessageBytes, TopicConfig { max_message_bytes: 1 << 31, ..config() }),
            (F::MinInsync, TopicConfig { min_insync: 0, ..config() }),
            (F::TimestampBeforeMaxMs, TopicConfig { timestamp_before_max_ms: -1, ..config() }),
            (F::TimestampAfterMaxMs, TopicConfig { timestamp_after_max_ms: -1, ..config() }),
            (F::GzipLevel, TopicConfig { gzip_level: 0, ..config() }),
            (F::ZstdLevel, TopicConfig { zstd_level: 23, ..config() }),
            (F::FlushMs, TopicConfig { flush_ms: Some(-1), ..config() }),
            (F::FlushMessages, TopicConfig { flush_messages: Some(0), ..config() }),
        ] {
            assert_eq!(judged(bad, Durability::Sync).unwrap_err(), Some(field));
        }
        assert_eq!(judged(config(), Durability::Os).unwrap(), ValidConfig(config()));
    }

    #[test]
    fn flushes_are_promised_only_where_they_are_kept() {
        use Durability::{Os, Sync};
        for (durability, flush_messages, flush_ms, node, good) in [
            (None, Some(1), None, Sync, true),
            (None, Some(1), None, Os, false),
            (Some(Sync), Some(1), Some(0), Os, true),
            (Some(Os), Some(1000), None, Sync, false),
            (Some(Os), None, Some(999), Sync, false),
            (Some(Os), None, Some(1000), Sync, true),
            (Some(Os), None, None, Sync, true),
        ] {
            let config = TopicConfig { durability, flush_messages, flush_ms, ..TopicConfig::default() };
            assert_eq!(judged(config.clone(), node).is_ok(), good, "{config:?}");
        }
    }

    #[test]
    fn what_holds_for_a_queue_alone_is_judged_by_its_name() {
        let judged = |change: fn(&mut QueueConfig)| {
            let mut queue = QueueConfig::default();
            change(&mut queue);
            TopicConfig::of_queue(queue).validate(Durability::Sync).map_err(|refused| refused.to_string())
        };
        let address = |exchange: String| DeadLetterAddress { exchange: exchange.into(), routing_key: None };
        for (good, bad, says) in [
            (
                judged(|queue| queue.message_ttl_ms = Some(0)),
                judged(|queue| queue.message_ttl_ms = Some(1 << 32)),
                "settings: a queue's message_ttl_ms: expected a number from 0 to 4294967295, not 4294967296",
            ),
            (
                judged(|queue| queue.expires_ms = Some(1)),
                judged(|queue| queue.expires_ms = Some(0)),
                "settings: a queue's expires_ms: expected a number from 1 to 4294967295, not 0",
            ),
            (
                judged(|queue| queue.max_priority = Some(255)),
                judged(|queue| queue.max_priority = Some(0)),
                "settings: a queue's max_priority: expected a number from 1 to 255, not 0",
            ),
            (
                judged(|queue| queue.consume_rate = Some(1)),
                judged(|queue| queue.consume_rate = Some(0)),
                "settings: a queue's consume_rate: expected a number from 1 to 4294967295, not 0",
            ),
            (
                judged(|queue| (queue.consume_rate, queue.consume_burst) = (Some(u32::MAX), Some(1))),
                judged(|queue| (queue.consume_rate, queue.consume_burst) = (Some(1), Some(0))),
                "settings: a queue's consume_burst: expected a number from 1 to 4294967295, not 0",
            ),
            (
                judged(|queue| (queue.consume_rate, queue.consume_burst) = (Some(1), Some(1))),
                judged(|queue| queue.consume_burst = Some(1)),
                "settings: a queue's consume_burst: expected consume_rate with it",
            ),
            (
                judged(|queue| (queue.dedup_window_ms, queue.dedup_max) = (Some(1), Some(1_000_000))),
                judged(|queue| (queue.dedup_window_ms, queue.dedup_max) = (Some(1), Some(1_000_001))),
                "settings: a queue's dedup_max: expected a number from 1 to 1000000, not 1000001",
            ),
            (
                judged(|queue| queue.dedup_window_ms = Some(1)),
                judged(|queue| queue.dedup_max = Some(1)),
                "settings: a queue's dedup_max: expected dedup_window_ms with it",
            ),
        ] {
            assert!(good.is_ok());
            assert_eq!(bad.unwrap_err(), says);
        }
        for (bytes, good) in [(1024, true), (1025, false)] {
            let dead_letter = Some(address("x".repeat(bytes)));
            let queue = QueueConfig { dead_letter, ..QueueConfig::default() };
            assert_eq!(TopicConfig::of_queue(queue).validate(Durability::Sync).is_ok(), good);
        }
    }

    #[test]
    fn what_is_kept_by_name_is_bounded_in_all() {
        let mut config = TopicConfig::default();
        for name in ["a", "b"] {
            config.kept.set(name, &"x".repeat(32_767));
        }
        assert!(config.clone().validate(Durability::Sync).is_ok());
        config.kept.set("c", &"x".repeat(32_767));
        let refused = config.validate(Durability::Sync).unwrap_err();
        assert!(refused.to_string().starts_with("settings: those kept by name take"), "{refused}");
    }
}
