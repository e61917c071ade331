//! Topic configurations by Kafka's names: all that Kafka 4.3 knows, and one of our own.
//!
//! Two kinds. A *field* is honoured. What is *kept* is checked as Kafka checks it, stored with the topic and shown, and has no effect
//! here that a client could see: because it governs files that partitions do not have here, or a compaction, followers or remote
//! storage that the topic does not have. Where a value would have an effect if it were taken seriously, that value is refused.

use sabir_model::batch::Compression;
use sabir_model::{Durability, TimestampType, TopicConfig, TopicField};

/// The type of a setting's value, as DescribeConfigs numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum ValueType {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// A topic's setting as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShownTopicSetting {
    pub name: &'static str,
    /// The broker's setting that holds where the topic says nothing; not all have one.
    pub broker_name: Option<&'static str>,
    pub value: String,
    /// What holds where the topic says nothing.
    pub default: String,
    /// What holds where the broker says nothing, either.
    pub built_in: String,
    pub value_type: ValueType,
    /// Whether the topic says it itself.
    pub own: bool,
    /// Whether there is only one value.
    pub fixed: bool,
    pub help: &'static str,
}

/// Gives a value as it is shown, or what is wrong with it.
type Check = fn(&str) -> Result<String, String>;

enum Meaning {
    Field {
        field: TopicField,
        get: fn(&TopicConfig) -> String,
        set: fn(&mut TopicConfig, &str) -> Result<(), String>,
    },
    Kept {
        default: &'static str,
        check: Check,
    },
}

struct Setting {
    name: &'static str,
    broker_name: Option<&'static str>,
    value_type: ValueType,
    meaning: Meaning,
    fixed: bool,
    help: &'static str,
}

impl Setting {
    fn is_own(&self, config: &TopicConfig) -> bool {
        match self.meaning {
            Meaning::Field { field, .. } => config.owns(field),
            Meaning::Kept { .. } => config.kept.get(self.name).is_some(),
        }
    }

    fn value(&self, config: &TopicConfig) -> String {
        match self.meaning {
            Meaning::Field { get, .. } => get(config),
            Meaning::Kept { default, .. } => config.kept.get(self.name).unwrap_or(default).into(),
        }
    }

    fn set(&self, config: &mut TopicConfig, value: &str) -> Result<(), String> {
        match self.meaning {
            Meaning::Field { field, set, .. } => {
                set(config, value)?;
                config.own(field);
            }
            Meaning::Kept { check, .. } => config.kept.set(self.name, &check(value)?),
        }
        Ok(())
    }

    fn reset(&self, config: &mut TopicConfig, defaults: &TopicConfig) {
        match self.meaning {
            Meaning::Field { field, .. } => config.disown(field, defaults),
            Meaning::Kept { .. } => config.kept.remove(self.name),
        }
    }
}

const fn field(
    name: &'static str,
    broker_name: &'static str,
    value_type: ValueType,
    field: TopicField,
    get: fn(&TopicConfig) -> String,
    set: fn(&mut TopicConfig, &str) -> Result<(), String>,
    help: &'static str,
) -> Setting {
    let meaning = Meaning::Field { field, get, set };
    Setting { name, broker_name: Some(broker_name), value_type, meaning, fixed: false, help }
}

const fn kept(
    name: &'static str,
    broker_name: Option<&'static str>,
    value_type: ValueType,
    default: &'static str,
    check: Check,
    help: &'static str,
) -> Setting {
    Setting { name, broker_name, value_type, meaning: Meaning::Kept { default, check }, fixed: false, help }
}

const fn fixed(setting: Setting) -> Setting {
    Setting { fixed: true, ..setting }
}

/// The one setting that Kafka does not have.
const DURABILITY: &str = "sabir.durability";
const CLEANUP_POLICY: &str = "cleanup.policy";
/// What a client is told that asks for compaction.
pub(crate) const NO_COMPACTION_YET: &str =
    "\"compact\" is refused: compaction is not built yet; use \"delete\"";
const MIN_LAG: &str = "min.compaction.lag.ms";
const MAX_LAG: &str = "max.compaction.lag.ms";

const NEVER: &str = "9223372036854775807";

const NO_FILES: &str = "Kept and shown; has no effect: partitions have no files of their own, and retention takes batches one by one.";
const NO_COMPACTION: &str = "Kept and shown; has no effect on a topic that is not compacted.";
const NO_FOLLOWERS: &str = "Kept and shown; has no effect on partitions with one replica.";
const NO_TIERS: &str = "Kept and shown; has no effect without remote storage.";
const FLUSHES: &str = "Promised, not waited for. With sabir.durability=sync everything is flushed before it is acknowledged, with os within a \
                       second; a topic of durability os that asks for more is refused.";

const SETTINGS: &[Setting] = &[
    fixed(kept(
        CLEANUP_POLICY,
        Some("log.cleanup.policy"),
        ValueType::List,
        "delete",
        check_cleanup_policy,
        "What happens to old records: delete. Compaction is not built.",
    )),
    field(
        "compression.gzip.level",
        "compression.gzip.level",
        ValueType::Int,
        TopicField::GzipLevel,
        |config| config.gzip_level.to_string(),
        |config, value| {
            config.gzip_level = match number(value, -1, 9)? {
                0 => return Err("expected a number from 1 to 9, or -1".into()),
                level => level as i32,
            };
            Ok(())
        },
        "The level where compression.type is gzip: 1 to 9, or -1 for gzip's default.",
    ),
    fixed(kept(
        "compression.lz4.level",
        Some("compression.lz4.level"),
        ValueType::Int,
        "9",
        |value| match number(value, 1, 17)? {
            9 => Ok("9".into()),
            _ => Err("this broker's lz4 has one level: \"9\"".into()),
        },
        "Kept and shown; this broker's lz4 has one level.",
    )),
    field(
        "compression.type",
        "compression.type",
        ValueType::String,
        TopicField::Compression,
        |config| compression_name(config.compression).into(),
        |config, value| {
            config.compression = compression(value)?;
            Ok(())
        },
        "How batches are compressed on the disk: producer keeps them as they came; uncompressed, gzip, snappy, lz4 and zstd have \
         the broker compress what came otherwise.",
    ),
    field(
        "compression.zstd.level",
        "compression.zstd.level",
        ValueType::Int,
        TopicField::ZstdLevel,
        |config| config.zstd_level.to_string(),
        |config, value| {
            config.zstd_level = number(value, -131_072, 22)? as i32;
            Ok(())
        },
        "The level where compression.type is zstd.",
    ),
    kept(
        "delete.retention.ms",
        Some("log.cleaner.delete.retention.ms"),
        ValueType::Long,
        "86400000",
        |value| long(value, 0),
        NO_COMPACTION,
    ),
    kept(
        "file.delete.delay.ms",
        Some("log.segment.delete.delay.ms"),
        ValueType::Long,
        "60000",
        |value| long(value, 0),
        NO_FILES,
    ),
    field(
        "flush.messages",
        "log.flush.interval.messages",
        ValueType::Long,
        TopicField::FlushMessages,
        |config| config.flush_messages.unwrap_or(i64::MAX).to_string(),
        |config, value| {
            config.flush_messages = Some(number(value, 1, i64::MAX)?).filter(|bound| *bound < i64::MAX);
            Ok(())
        },
        FLUSHES,
    ),
    field(
        "flush.ms",
        "log.flush.interval.ms",
        ValueType::Long,
        TopicField::FlushMs,
        |config| config.flush_ms.unwrap_or(i64::MAX).to_string(),
        |config, value| {
            config.flush_ms = Some(number(value, 0, i64::MAX)?).filter(|bound| *bound < i64::MAX);
            Ok(())
        },
        FLUSHES,
    ),
    kept("follower.replication.throttled.replicas", None, ValueType::List, "", check_replicas, NO_FOLLOWERS),
    kept(
        "index.interval.bytes",
        Some("log.index.interval.bytes"),
        ValueType::Int,
        "4096",
        |value| int(value, 0),
        NO_FILES,
    ),
    kept("leader.replication.throttled.replicas", None, ValueType::List, "", check_replicas, NO_FOLLOWERS),
    kept(
        "local.retention.bytes",
        Some("log.local.retention.bytes"),
        ValueType::Long,
        "-2",
        |value| long(value, -2),
        NO_TIERS,
    ),
    kept(
        "local.retention.ms",
        Some("log.local.retention.ms"),
        ValueType::Long,
        "-2",
        |value| long(value, -2),
        NO_TIERS,
    ),
    kept(
        MAX_LAG,
        Some("log.cleaner.max.compaction.lag.ms"),
        ValueType::Long,
        NEVER,
        |value| long(value, 1),
        NO_COMPACTION,
    ),
    field(
        "max.message.bytes",
        "message.max.bytes",
        ValueType::Int,
        TopicField::MaxMessageBytes,
        |config| config.max_message_bytes.to_string(),
        |config, value| {
            config.max_message_bytes = number(value, 0, i32::MAX.into())? as u32;
            Ok(())
        },
        "The largest record batch taken, in bytes.",
    ),
    field(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        ValueType::Long,
        TopicField::TimestampAfterMaxMs,
        |config| config.timestamp_after_max_ms.to_string(),
        |config, value| {
            config.timestamp_after_max_ms = number(value, 0, i64::MAX)?;
            Ok(())
        },
        "How far a producer's timestamp may be ahead of the broker's clock, in milliseconds.",
    ),
    field(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        ValueType::Long,
        TopicField::TimestampBeforeMaxMs,
        |config| config.timestamp_before_max_ms.to_string(),
        |config, value| {
            config.timestamp_before_max_ms = number(value, 0, i64::MAX)?;
            Ok(())
        },
        "How far a producer's timestamp may be behind the broker's clock, in milliseconds.",
    ),
    field(
        "message.timestamp.type",
        "log.message.timestamp.type",
        ValueType::String,
        TopicField::TimestampType,
        |config| match config.timestamp_type {
            TimestampType::CreateTime => "CreateTime".into(),
            TimestampType::LogAppendTime => "LogAppendTime".into(),
        },
        |config, value| {
            config.timestamp_type = match value {
                "CreateTime" => TimestampType::CreateTime,
                "LogAppendTime" => TimestampType::LogAppendTime,
                other => return Err(format!("expected CreateTime or LogAppendTime, not \"{other}\"")),
            };
            Ok(())
        },
        "Whose time records carry: the producer's (CreateTime) or the broker's (LogAppendTime).",
    ),
    kept(
        "min.cleanable.dirty.ratio",
        Some("log.cleaner.min.cleanable.ratio"),
        ValueType::Double,
        "0.5",
        check_ratio,
        NO_COMPACTION,
    ),
    kept(
        MIN_LAG,
        Some("log.cleaner.min.compaction.lag.ms"),
        ValueType::Long,
        "0",
        |value| long(value, 0),
        NO_COMPACTION,
    ),
    field(
        "min.insync.replicas",
        "min.insync.replicas",
        ValueType::Int,
        TopicField::MinInsync,
        |config| config.min_insync.to_string(),
        |config, value| {
            config.min_insync = number(value, 1, u16::MAX.into())? as u16;
            Ok(())
        },
        "How many replicas must be in sync for a producer with acks=all.",
    ),
    kept("preallocate", Some("log.preallocate"), ValueType::Boolean, "false", boolean, NO_FILES),
    kept("remote.log.copy.disable", None, ValueType::Boolean, "false", boolean, NO_TIERS),
    kept("remote.log.delete.on.disable", None, ValueType::Boolean, "false", boolean, NO_TIERS),
    fixed(kept(
        "remote.storage.enable",
        None,
        ValueType::Boolean,
        "false",
        |value| match boolean(value)?.as_str() {
            "false" => Ok("false".into()),
            _ => Err("this broker has no remote storage".into()),
        },
        "There is no remote storage.",
    )),
    field(
        "retention.bytes",
        "log.retention.bytes",
        ValueType::Long,
        TopicField::RetentionBytes,
        |config| config.retention_bytes.unwrap_or(-1).to_string(),
        |config, value| {
            // Kafka takes any negative number for none.
            config.retention_bytes = Some(number(value, i64::MIN, i64::MAX)?).filter(|bytes| *bytes >= 0);
            Ok(())
        },
        "How many bytes a partition keeps at least; -1 without a bound.",
    ),
    field(
        "retention.ms",
        "log.retention.ms",
        ValueType::Long,
        TopicField::RetentionMs,
        |config| config.retention_ms.unwrap_or(-1).to_string(),
        |config, value| {
            config.retention_ms = bound(value)?;
            Ok(())
        },
        "How long records are kept at least, in milliseconds; -1 for ever.",
    ),
    kept(
        "segment.bytes",
        Some("log.segment.bytes"),
        ValueType::Int,
        "1073741824",
        |value| int(value, 1_048_576),
        NO_FILES,
    ),
    kept(
        "segment.index.bytes",
        Some("log.index.size.max.bytes"),
        ValueType::Int,
        "10485760",
        |value| int(value, 4),
        NO_FILES,
    ),
    kept(
        "segment.jitter.ms",
        Some("log.roll.jitter.ms"),
        ValueType::Long,
        "0",
        |value| long(value, 0),
        NO_FILES,
    ),
    kept("segment.ms", Some("log.roll.ms"), ValueType::Long, "604800000", |value| long(value, 1), NO_FILES),
    kept(
        "unclean.leader.election.enable",
        Some("unclean.leader.election.enable"),
        ValueType::Boolean,
        "false",
        boolean,
        NO_FOLLOWERS,
    ),
    field(
        DURABILITY,
        "data.durability",
        ValueType::String,
        TopicField::Durability,
        |config| match config.durability {
            None => "default".into(),
            Some(Durability::Sync) => "sync".into(),
            Some(Durability::Os) => "os".into(),
        },
        |config, value| {
            config.durability = match value {
                "default" => None,
                "sync" => Some(Durability::Sync),
                "os" => Some(Durability::Os),
                other => return Err(format!("expected sync, os or default, not \"{other}\"")),
            };
            Ok(())
        },
        "What an acknowledgement means: sync survives a power cut, os the death of the process; default is the \
         broker's data.durability.",
    ),
];

/// The longest value that Kafka's controller stores, in bytes.
const LONGEST_VALUE: usize = i16::MAX as usize;

fn find(name: &str) -> Result<&'static Setting, String> {
    let found = SETTINGS.iter().find(|setting| setting.name == name);
    found.ok_or_else(|| format!("{name}: no topic setting has this name"))
}

/// Sets one setting.
///
/// # Errors
/// An unknown name, a value that cannot be or that is not honoured: what is wrong, for the client to read.
pub(crate) fn set(config: &mut TopicConfig, name: &str, value: &str) -> Result<(), String> {
    let setting = find(name)?;
    if value.len() > LONGEST_VALUE {
        return Err(format!("{name}: the value has {} bytes, and may have {LONGEST_VALUE}", value.len()));
    }
    setting.set(config, value.trim()).map_err(|problem| format!("{name}: {problem}"))
}

/// Sets one setting back to what holds where a topic says nothing. As with Kafka there is nothing to take back where no setting has
/// the name.
pub(crate) fn reset(config: &mut TopicConfig, name: &str, defaults: &TopicConfig) {
    if let Ok(setting) = find(name) {
        setting.reset(config, defaults);
    }
}

/// Checks what settings mean together that Kafka alone knows; what fields mean together the broker judges.
///
/// # Errors
/// What is wrong, for the client to read.
pub(crate) fn check(config: &TopicConfig) -> Result<(), String> {
    let kept = |name| config.kept.get(name).and_then(|value| value.parse::<i64>().ok());
    let (least, most) = (kept(MIN_LAG).unwrap_or(0), kept(MAX_LAG).unwrap_or(i64::MAX));
    if least > most {
        return Err(format!("{MIN_LAG}: {least} is more than {MAX_LAG}, which is {most}"));
    }
    Ok(())
}

/// Kafka's name of a field.
pub(crate) fn name_of(field: TopicField) -> &'static str {
    let is_it =
        |setting: &&Setting| matches!(setting.meaning, Meaning::Field { field: of, .. } if of == field);
    SETTINGS.iter().find(is_it).map_or(field.name(), |setting| setting.name)
}

/// Every setting of a topic. The defaults name their durability: what a topic does not say itself is shown as what it comes to.
pub(crate) fn shown(config: &TopicConfig, defaults: &TopicConfig) -> impl Iterator<Item = ShownTopicSetting> {
    let built_in = TopicConfig { durability: Some(Durability::Sync), ..TopicConfig::default() };
    SETTINGS.iter().map(move |setting| {
        let own = setting.is_own(config);
        ShownTopicSetting {
            name: setting.name,
            broker_name: setting.broker_name,
            value: setting.value(if own { config } else { defaults }),
            default: setting.value(defaults),
            built_in: setting.value(&built_in),
            value_type: setting.value_type,
            own,
            fixed: setting.fixed,
            help: setting.help,
        }
    })
}

/// Whether a setting asks for compaction, by itself or beside something else.
pub(crate) fn asks_for_compaction(name: &str, value: &str) -> bool {
    name == CLEANUP_POLICY && value.split(',').any(|policy| policy.trim() == "compact")
}

fn check_cleanup_policy(value: &str) -> Result<String, String> {
    match value {
        "delete" => Ok("delete".into()),
        _ if asks_for_compaction(CLEANUP_POLICY, value) => Err(NO_COMPACTION_YET.into()),
        "" => {
            Err("expected delete; to keep records for ever set retention.ms and retention.bytes to -1".into())
        }
        other => Err(format!("expected delete, not \"{other}\"")),
    }
}

/// Partitions and brokers, `*`, or nothing.
fn check_replicas(value: &str) -> Result<String, String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let replica = |item: &str| {
        item.is_empty() || item.split_once(':').is_some_and(|(index, id)| digits(index) && digits(id))
    };
    let items: Vec<&str> = value.split(',').map(str::trim).collect();
    match items[..] == ["*"] || items.iter().all(|item| replica(item)) {
        true => Ok(items.join(",")),
        false => Err(format!("expected partition:broker,partition:broker,... or *, not \"{value}\"")),
    }
}

fn check_ratio(value: &str) -> Result<String, String> {
    let ratio = value.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio
        .map(|ratio| format!("{ratio:?}"))
        .ok_or_else(|| format!("expected a number from 0 to 1, not \"{value}\""))
}

fn boolean(value: &str) -> Result<String, String> {
    let value = value.to_ascii_lowercase();
    match value.as_str() {
        "true" | "false" => Ok(value),
        other => Err(format!("expected true or false, not \"{other}\"")),
    }
}

fn long(value: &str, least: i64) -> Result<String, String> {
    number(value, least, i64::MAX).map(|number| number.to_string())
}

fn int(value: &str, least: i64) -> Result<String, String> {
    number(value, least, i32::MAX.into()).map(|number| number.to_string())
}

fn number(value: &str, least: i64, most: i64) -> Result<i64, String> {
    let parsed = value.parse().ok().filter(|n| (least..=most).contains(n));
    parsed.ok_or_else(|| format!("expected a number from {least} to {most}, not \"{value}\""))
}

fn bound(value: &str) -> Result<Option<i64>, String> {
    number(value, -1, i64::MAX).map(|n| (n >= 0).then_some(n))
}

/// Kafka's names of what may become of a batch's compression.
const COMPRESSIONS: [(&str, Option<Compression>); 6] = [
    ("producer", None),
    ("uncompressed", Some(Compression::None)),
    ("gzip", Some(Compression::Gzip)),
    ("snappy", Some(Compression::Snappy)),
    ("lz4", Some(Compression::Lz4)),
    ("zstd", Some(Compression::Zstd)),
];

fn compression_name(compression: Option<Compression>) -> &'static str {
    let named = COMPRESSIONS.iter().find(|(_, codec)| *codec == compression);
    named.map_or("producer", |(name, _)| name)
}

fn compression(value: &str) -> Result<Option<Compression>, String> {
    let named = COMPRESSIONS.iter().find(|(name, _)| *name == value).map(|(_, codec)| *codec);
    let expected = || COMPRESSIONS.map(|(name, _)| name).join(", ");
    named.ok_or_else(|| format!("expected one of {}, not \"{value}\"", expected()))
}

#[cfg(test)]
#[path = "topic_config_tests.rs"]
mod tests;
