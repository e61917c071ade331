//! The stored form of a configuration. Written is form 3: this byte, then varints, signed ones zigzag, an absent bound as -1:
//!
//! own fields (bits) · retention in milliseconds · in bytes · largest batch · timestamp type u8 · durability u8 (0: the node's) · replicas
//! in sync · timestamps behind · ahead · compression u8 (0: the producer's) · level of gzip · of zstd · flush in milliseconds · in
//! records · list of (name, value) kept · kind u8 (0 retention, 1 queue) · of a queue: its own settings, which begin with their form.
//!
//! A queue's settings: form 1 (all defaults, and nothing more), or form 2 · marks u8 (1 not durable, 2 exclusive, 4 auto-delete, 8 single active
//! consumer, 16 highest priority, 32 dead-letter address, 64 its routing key, 128 a second byte of marks follows: 1 messages are kept back, 2
//! what comes back waits, 4 a rate of consumption, 8 its burst, 16 a window for ids, 32 the most ids) · order u8 · overflow u8 · one more than each of the limits,
//! 0 where there is none: of deliveries, a message's milliseconds, the queue's, messages, bytes · then in this order what is marked:
//! highest priority u8 · exchange · routing key · how long what comes back waits, as [`Backoff`] has it · rate · burst · window in milliseconds · most ids.
//!
//! Forms 1 and 2 have fixed integers, little endian; form 1 ends behind the timestamps' bounds, form 2 kept the flush's bounds by name.

use std::sync::{Arc, LazyLock};

use sabir_base::varint::{put_i64, put_u64, take_i32, take_i64, take_u32, take_u64};

use super::{
    Backoff, DeadLetterAddress, Durability, GroupOrder, KeptSettings, Overflow, OwnFields, QueueConfig,
    TimestampType, TopicConfig, TopicField, TopicKind,
};
use crate::batch::Compression;
use crate::stored::{DecodeError, MORE_MARKS, put_bytes, take, take_count, take_marks, take_str, take_u8};

const FORM: u8 = 3;
/// A queue's settings of this form are the defaults.
const QUEUE_DEFAULTS: u8 = 1;
const QUEUE_FORM: u8 = 2;

const NOT_DURABLE: u8 = 1 << 0;
const EXCLUSIVE: u8 = 1 << 1;
const AUTO_DELETE: u8 = 1 << 2;
const SINGLE_ACTIVE: u8 = 1 << 3;
const MAX_PRIORITY: u8 = 1 << 4;
const DEAD_LETTER: u8 = 1 << 5;
const DEAD_LETTER_KEY: u8 = 1 << 6;
const QUEUE_MARKS: u8 = MORE_MARKS - 1;
/// In the second byte.
const DELAYS: u8 = 1 << 0;
const RETRY: u8 = 1 << 1;
const CONSUME_RATE: u8 = 1 << 2;
const CONSUME_BURST: u8 = 1 << 3;
const DEDUP_WINDOW: u8 = 1 << 4;
const DEDUP_MAX: u8 = 1 << 5;
const QUEUE_MORE_MARKS: u8 = DELAYS | RETRY | CONSUME_RATE | CONSUME_BURST | DEDUP_WINDOW | DEDUP_MAX;

impl TopicConfig {
    /// Appends the stored form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.own.0.into());
        put_i64(out, self.retention_ms.unwrap_or(-1));
        put_i64(out, self.retention_bytes.unwrap_or(-1));
        put_u64(out, self.max_message_bytes.into());
        out.push(self.timestamp_type as u8);
        out.push(durability_tag(self.durability));
        put_u64(out, self.min_insync.into());
        put_i64(out, self.timestamp_before_max_ms);
        put_i64(out, self.timestamp_after_max_ms);
        out.push(self.compression.map_or(0, |codec| codec as u8 + 1));
        put_i64(out, self.gzip_level.into());
        put_i64(out, self.zstd_level.into());
        put_i64(out, self.flush_ms.unwrap_or(-1));
        put_i64(out, self.flush_messages.unwrap_or(-1));
        put_u64(out, self.kept.iter().len() as u64);
        for (name, value) in self.kept.iter() {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
        match &self.kind {
            TopicKind::Retention => out.push(0),
            TopicKind::Queue(queue) => {
                out.push(1);
                queue.encode(out);
            }
        }
    }

    /// Takes a configuration off the front of `input`.
    ///
    /// # Errors
    /// A form of a newer version, a cut input, a tag that is not known.
    pub fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match take_u8(input)? {
            1 => take_form_1(input),
            2 => take_form_2(input),
            FORM => take_fields(input),
            newer => Err(DecodeError::Version(newer)),
        }
    }
}

fn take_fields(input: &mut &[u8]) -> Result<TopicConfig, DecodeError> {
    Ok(TopicConfig {
        own: OwnFields(u16::try_from(take_u32(input)?).map_err(|_| DecodeError::Field("own fields"))?),
        retention_ms: bound(take_i64(input)?),
        retention_bytes: bound(take_i64(input)?),
        max_message_bytes: take_u32(input)?,
        timestamp_type: take_timestamp_type(input)?,
        durability: take_durability(input)?,
        min_insync: u16::try_from(take_u32(input)?).map_err(|_| DecodeError::Field("replicas in sync"))?,
        timestamp_before_max_ms: take_i64(input)?,
        timestamp_after_max_ms: take_i64(input)?,
        compression: take_compression(input)?,
        gzip_level: take_i32(input)?,
        zstd_level: take_i32(input)?,
        flush_ms: bound(take_i64(input)?),
        flush_messages: bound(take_i64(input)?),
        kept: take_kept(input)?,
        kind: match take_u8(input)? {
            0 => TopicKind::Retention,
            1 => TopicKind::Queue(take_queue(input)?),
            _ => return Err(DecodeError::Field("kind")),
        },
    })
}

/// Nearly all queues have these: they are held once.
static DEFAULTS: LazyLock<Arc<QueueConfig>> = LazyLock::new(Arc::default);

fn take_queue(input: &mut &[u8]) -> Result<Arc<QueueConfig>, DecodeError> {
    let queue = QueueConfig::decode(input)?;
    Ok(if queue == **DEFAULTS { DEFAULTS.clone() } else { Arc::new(queue) })
}

impl QueueConfig {
    fn marks(&self) -> u8 {
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        let key = self.dead_letter.as_ref().and_then(|to| to.routing_key.as_ref());
        mark(!self.durable, NOT_DURABLE)
            | mark(self.exclusive, EXCLUSIVE)
            | mark(self.auto_delete, AUTO_DELETE)
            | mark(self.single_active, SINGLE_ACTIVE)
            | mark(self.max_priority.is_some(), MAX_PRIORITY)
            | mark(self.dead_letter.is_some(), DEAD_LETTER)
            | mark(key.is_some(), DEAD_LETTER_KEY)
            | mark(self.more_marks() != 0, MORE_MARKS)
    }

    fn more_marks(&self) -> u8 {
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        mark(self.delays, DELAYS)
            | mark(self.retry.is_some(), RETRY)
            | mark(self.consume_rate.is_some(), CONSUME_RATE)
            | mark(self.consume_burst.is_some(), CONSUME_BURST)
            | mark(self.dedup_window_ms.is_some(), DEDUP_WINDOW)
            | mark(self.dedup_max.is_some(), DEDUP_MAX)
    }

    /// Appends the stored form. The first one, which is that of the defaults, has nothing behind its number.
    fn encode(&self, out: &mut Vec<u8>) {
        if *self == **DEFAULTS {
            return out.push(QUEUE_DEFAULTS);
        }
        out.extend_from_slice(&[QUEUE_FORM, self.marks()]);
        out.extend(Some(self.more_marks()).filter(|marks| *marks != 0));
        out.extend_from_slice(&[self.order as u8, self.overflow as u8]);
        put_most(out, self.delivery_limit.map(u64::from));
        put_most(out, self.message_ttl_ms);
        put_most(out, self.expires_ms);
        put_most(out, self.max_length);
        put_most(out, self.max_length_bytes);
        out.extend(self.max_priority);
        if let Some(DeadLetterAddress { exchange, routing_key }) = &self.dead_letter {
            put_bytes(out, exchange.as_bytes());
            routing_key.iter().for_each(|key| put_bytes(out, key.as_bytes()));
        }
        self.retry.iter().for_each(|backoff| backoff.encode(out));
        let rates = [self.consume_rate, self.consume_burst];
        rates.into_iter().flatten().for_each(|messages| put_u64(out, messages.into()));
        let dedup = [self.dedup_window_ms, self.dedup_max.map(u64::from)];
        dedup.into_iter().flatten().for_each(|most| put_u64(out, most));
    }

    fn decode(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match take_u8(input)? {
            QUEUE_DEFAULTS => Ok(Self::default()),
            QUEUE_FORM => take_queue_fields(input),
            newer => Err(DecodeError::Version(newer)),
        }
    }
}

fn take_queue_fields(input: &mut &[u8]) -> Result<QueueConfig, DecodeError> {
    let marks = take_marks(input, QUEUE_MARKS | MORE_MARKS, "queue")?;
    let more = if marks & MORE_MARKS == 0 { 0 } else { take_marks(input, QUEUE_MORE_MARKS, "queue")? };
    let has = |bit: u8| marks & bit != 0;
    Ok(QueueConfig {
        durable: !has(NOT_DURABLE),
        exclusive: has(EXCLUSIVE),
        auto_delete: has(AUTO_DELETE),
        single_active: has(SINGLE_ACTIVE),
        order: take_order(input)?,
        overflow: take_overflow(input)?,
        delivery_limit: take_most(input)?
            .map(u32::try_from)
            .transpose()
            .map_err(|_| DecodeError::Field("delivery limit"))?,
        message_ttl_ms: take_most(input)?,
        expires_ms: take_most(input)?,
        max_length: take_most(input)?,
        max_length_bytes: take_most(input)?,
        delays: more & DELAYS != 0,
        max_priority: has(MAX_PRIORITY).then(|| take_u8(input)).transpose()?,
        dead_letter: if has(DEAD_LETTER) { Some(take_address(input, has(DEAD_LETTER_KEY))?) } else { None },
        retry: if more & RETRY == 0 { None } else { Some(Backoff::decode(input)?) },
        consume_rate: (more & CONSUME_RATE != 0).then(|| take_u32(input)).transpose()?,
        consume_burst: (more & CONSUME_BURST != 0).then(|| take_u32(input)).transpose()?,
        dedup_window_ms: (more & DEDUP_WINDOW != 0).then(|| take_u64(input)).transpose()?,
        dedup_max: (more & DEDUP_MAX != 0).then(|| take_u32(input)).transpose()?,
    })
}

fn take_address(input: &mut &[u8], has_key: bool) -> Result<DeadLetterAddress, DecodeError> {
    Ok(DeadLetterAddress {
        exchange: take_str(input)?.into(),
        routing_key: has_key.then(|| take_str(input)).transpose()?.map(Into::into),
    })
}

/// A limit: one more than it, 0 where there is none.
fn put_most(out: &mut Vec<u8>, most: Option<u64>) {
    put_u64(out, most.map_or(0, |most| most.saturating_add(1)));
}

fn take_most(input: &mut &[u8]) -> Result<Option<u64>, DecodeError> {
    Ok(take_u64(input)?.checked_sub(1))
}

fn take_order(input: &mut &[u8]) -> Result<GroupOrder, DecodeError> {
    match take_u8(input)? {
        0 => Ok(GroupOrder::Free),
        1 => Ok(GroupOrder::Serial),
        2 => Ok(GroupOrder::Sticky),
        _ => Err(DecodeError::Field("order")),
    }
}

fn take_overflow(input: &mut &[u8]) -> Result<Overflow, DecodeError> {
    match take_u8(input)? {
        0 => Ok(Overflow::DropHead),
        1 => Ok(Overflow::Reject),
        2 => Ok(Overflow::RejectAndDeadLetter),
        _ => Err(DecodeError::Field("overflow")),
    }
}

/// It did not say what is the topic's own. What a topic keeps must not become less because the node's default does.
fn take_form_1(input: &mut &[u8]) -> Result<TopicConfig, DecodeError> {
    let mut config = take_fixed(input)?;
    config.claim(&TopicConfig::default());
    config.own(TopicField::RetentionMs);
    config.own(TopicField::RetentionBytes);
    Ok(config)
}

fn take_form_2(input: &mut &[u8]) -> Result<TopicConfig, DecodeError> {
    let mut config = take_fixed(input)?;
    config.compression = take_compression(input)?;
    config.gzip_level = i32::from_le_bytes(take(input)?);
    config.zstd_level = i32::from_le_bytes(take(input)?);
    config.own = OwnFields(u16::from_le_bytes(take(input)?));
    config.kept = take_kept(input)?;
    if let Some(bound) = take_out(&mut config.kept, "flush.ms") {
        config.flush_ms = (bound < i64::MAX).then_some(bound);
        config.own(TopicField::FlushMs);
    }
    if let Some(bound) = take_out(&mut config.kept, "flush.messages") {
        config.flush_messages = (bound < i64::MAX).then_some(bound);
        config.own(TopicField::FlushMessages);
    }
    Ok(config)
}

/// What was kept by a name that a field has taken over.
fn take_out(kept: &mut KeptSettings, name: &str) -> Option<i64> {
    let bound = kept.get(name)?.parse().ok().filter(|bound| *bound >= 0);
    kept.remove(name);
    bound
}

fn take_fixed(input: &mut &[u8]) -> Result<TopicConfig, DecodeError> {
    Ok(TopicConfig {
        retention_ms: bound(i64::from_le_bytes(take(input)?)),
        retention_bytes: bound(i64::from_le_bytes(take(input)?)),
        max_message_bytes: u32::from_le_bytes(take(input)?),
        timestamp_type: take_timestamp_type(input)?,
        durability: take_durability(input)?,
        kind: match take_u8(input)? {
            0 => TopicKind::Retention,
            1 => TopicKind::Queue(DEFAULTS.clone()),
            _ => return Err(DecodeError::Field("kind")),
        },
        min_insync: u16::from_le_bytes(take(input)?),
        timestamp_before_max_ms: i64::from_le_bytes(take(input)?),
        timestamp_after_max_ms: i64::from_le_bytes(take(input)?),
        ..TopicConfig::default()
    })
}

fn take_kept(input: &mut &[u8]) -> Result<KeptSettings, DecodeError> {
    let mut kept = KeptSettings::default();
    for _ in 0..take_count(input, 2)? {
        let (name, value) = (take_str(input)?, take_str(input)?);
        kept.set(name, value);
    }
    Ok(kept)
}

fn take_timestamp_type(input: &mut &[u8]) -> Result<TimestampType, DecodeError> {
    match take_u8(input)? {
        0 => Ok(TimestampType::CreateTime),
        1 => Ok(TimestampType::LogAppendTime),
        _ => Err(DecodeError::Field("timestamp type")),
    }
}

fn durability_tag(durability: Option<Durability>) -> u8 {
    match durability {
        None => 0,
        Some(Durability::Os) => 1,
        Some(Durability::Sync) => 2,
    }
}

fn take_durability(input: &mut &[u8]) -> Result<Option<Durability>, DecodeError> {
    match take_u8(input)? {
        0 => Ok(None),
        1 => Ok(Some(Durability::Os)),
        2 => Ok(Some(Durability::Sync)),
        _ => Err(DecodeError::Field("durability")),
    }
}

fn take_compression(input: &mut &[u8]) -> Result<Option<Compression>, DecodeError> {
    let Some(codec) = take_u8(input)?.checked_sub(1) else { return Ok(None) };
    Compression::ALL.get(usize::from(codec)).copied().map(Some).ok_or(DecodeError::Field("compression"))
}

fn bound(stored: i64) -> Option<i64> {
    (stored >= 0).then_some(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(config: &TopicConfig) -> Vec<u8> {
        let mut out = Vec::new();
        config.encode(&mut out);
        out
    }

    fn changed() -> TopicConfig {
        let mut config = TopicConfig {
            retention_ms: None,
            retention_bytes: Some(1 << 40),
            timestamp_type: TimestampType::LogAppendTime,
            durability: Some(Durability::Os),
            kind: TopicKind::Queue(Arc::default()),
            min_insync: 2,
            compression: Some(Compression::Zstd),
            gzip_level: 9,
            zstd_level: -5,
            flush_ms: Some(0),
            flush_messages: Some(7),
            ..TopicConfig::default()
        };
        config.own(TopicField::ZstdLevel);
        config.own(TopicField::FlushMessages);
        config.kept.set("b", "2");
        config.kept.set("a", "1");
        config
    }

    /// Every number as large as it can be.
    fn largest() -> TopicConfig {
        TopicConfig {
            retention_ms: Some(i64::MAX),
            retention_bytes: Some(i64::MAX),
            max_message_bytes: u32::MAX,
            min_insync: u16::MAX,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            gzip_level: i32::MAX,
            zstd_level: i32::MIN,
            flush_ms: Some(i64::MAX),
            flush_messages: Some(i64::MAX),
            own: OwnFields(u16::MAX),
            ..TopicConfig::default()
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        for config in [changed(), largest(), TopicConfig::default()] {
            let bytes = stored(&config);
            let mut input = bytes.as_slice();
            assert_eq!(TopicConfig::decode(&mut input), Ok(config));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn the_third_form_is_what_is_written() {
        let expected = b"\x03\0\x80\x90\xe4\xc0\x04\x01\x8c\x80\x40\0\0\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x80\xba\xb7\x03\0\x01\x06\x01\x01\0\0";
        assert_eq!(stored(&TopicConfig::default()), expected);
        let expected = b"\x03\x80\x28\x01\x80\x80\x80\x80\x80\x40\x8c\x80\x40\x01\x01\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x80\xba\xb7\x03\x05\x12\x09\0\x0e\x02\x01a\x011\x01b\x012\x01\x01";
        assert_eq!(stored(&changed()), expected);
    }

    #[test]
    fn refuses_newer_forms_unknown_tags_and_every_prefix() {
        let good = stored(&changed());
        for len in 0..good.len() {
            assert_eq!(TopicConfig::decode(&mut &good[..len]), Err(DecodeError::Truncated), "{len}");
        }
        let last = good.len() - 1;
        for (at, expected) in [
            (0, DecodeError::Version(9)),
            (13, DecodeError::Field("timestamp type")),
            (14, DecodeError::Field("durability")),
            (30, DecodeError::Field("compression")),
            (last - 1, DecodeError::Field("kind")),
            (last, DecodeError::Version(9)),
        ] {
            let mut bad = good.clone();
            bad[at] = 9;
            assert_eq!(TopicConfig::decode(&mut bad.as_slice()), Err(expected), "{at}");
        }
    }

    fn every_setting_of_a_queue() -> QueueConfig {
        QueueConfig {
            durable: false,
            exclusive: true,
            auto_delete: true,
            single_active: true,
            order: GroupOrder::Sticky,
            delivery_limit: Some(20),
            retry: None,
            message_ttl_ms: Some(0),
            expires_ms: Some(300),
            max_length: Some(1000),
            max_length_bytes: Some(u64::MAX - 1),
            overflow: Overflow::RejectAndDeadLetter,
            max_priority: Some(9),
            delays: true,
            dead_letter: Some(DeadLetterAddress { exchange: "dlx".into(), routing_key: Some("k".into()) }),
            consume_rate: None,
            consume_burst: None,
            dedup_window_ms: None,
            dedup_max: None,
        }
    }

    #[test]
    fn a_queues_settings_have_their_stored_form_and_come_back() {
        let queue = every_setting_of_a_queue();
        let limits = b"\x15\x01\xad\x02\xe9\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        let golden = [&b"\x02\xff\x01\x02\x02"[..], limits, b"\x09\x03dlx\x01k"].concat();
        let waits = QueueConfig { retry: Some(Backoff::Steps([300].into())), ..QueueConfig::default() };
        let paced = QueueConfig { consume_rate: Some(300), ..QueueConfig::default() };
        let bursts = QueueConfig { consume_burst: Some(5), ..paced.clone() };
        let known = QueueConfig { dedup_window_ms: Some(300), ..QueueConfig::default() };
        let few = QueueConfig { dedup_max: Some(5), ..known.clone() };
        let no_key = DeadLetterAddress { exchange: "".into(), routing_key: None };
        let plain = QueueConfig { dead_letter: Some(no_key), ..QueueConfig::default() };
        for (queue, golden) in [
            (queue, &golden[..]),
            (plain, b"\x02\x20\0\0\0\0\0\0\0\0"),
            (waits, b"\x02\x80\x02\0\0\0\0\0\0\0\0\x01\xac\x02"),
            (paced, b"\x02\x80\x04\0\0\0\0\0\0\0\xac\x02"),
            (bursts, b"\x02\x80\x0c\0\0\0\0\0\0\0\xac\x02\x05"),
            (known, b"\x02\x80\x10\0\0\0\0\0\0\0\xac\x02"),
            (few, b"\x02\x80\x30\0\0\0\0\0\0\0\xac\x02\x05"),
            (QueueConfig::default(), b"\x01"),
        ] {
            let mut bytes = Vec::new();
            queue.encode(&mut bytes);
            assert_eq!(bytes, golden);
            let mut input = golden;
            assert_eq!(QueueConfig::decode(&mut input), Ok(queue));
            assert_eq!(input, b"");
            for len in 0..golden.len() {
                assert_eq!(QueueConfig::decode(&mut &golden[..len]), Err(DecodeError::Truncated), "{len}");
            }
        }
        for (at, expected) in [
            (0, DecodeError::Version(0xff)),
            (2, DecodeError::MoreMarks("queue")),
            (3, DecodeError::Field("order")),
            (4, DecodeError::Field("overflow")),
        ] {
            let mut bad = golden.clone();
            bad[at] = 0xff;
            assert_eq!(QueueConfig::decode(&mut bad.as_slice()), Err(expected));
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

    /// What a data directory of the second form holds: a queue, zstd, two levels, what is its own, and four settings by name.
    #[test]
    fn the_second_form_is_still_read_and_its_flushes_become_fields() {
        let fixed = b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\x01\0\0\x0c\0\x10\0\x01\x01\x01\x02\0\xff\xff\xff\xff\xff\xff\xff\x7f\x80\xee\x36\0\0\0\0\0\x05\x09\0\0\0\xfb\xff\xff\xff\0\x04";
        let kept = b"\x03\x01a\x011\x0eflush.messages\x137223372036854775807\x08flush.ms\x03500";
        let bytes = [&fixed[..], kept].concat();
        let read = TopicConfig::decode(&mut bytes.as_slice()).unwrap();
        let mut expected = TopicConfig { flush_ms: Some(500), ..changed() };
        expected.flush_messages = Some(7_223_372_036_854_775_807);
        expected.own = OwnFields(0);
        for field in [TopicField::ZstdLevel, TopicField::FlushMs, TopicField::FlushMessages] {
            expected.own(field);
        }
        expected.kept.remove("b");
        assert_eq!(read, expected);
    }
}
