//! Topic configurations by Kafka's names.
//!
//! Three kinds: those that are honoured; those that are known and mean nothing here, because a partition has no files of its
//! own or because what they govern is not built: they are shown, and refused unless they say what holds anyway; and all
//! others, which are unknown.

use sabir_model::{Durability, TimestampType, TopicConfig};

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
pub(crate) struct Shown {
    pub name: &'static str,
    pub value: String,
    /// What holds where the topic says nothing.
    pub default: String,
    pub value_type: ValueType,
    /// Whether it is only shown.
    pub fixed: bool,
    pub help: &'static str,
}

impl Shown {
    /// Whether the topic says something else than the broker.
    pub fn is_own(&self) -> bool {
        self.value != self.default
    }
}

/// A setting that is honoured.
struct Honoured {
    name: &'static str,
    value_type: ValueType,
    get: fn(&TopicConfig) -> String,
    set: fn(&mut TopicConfig, &str) -> Result<(), String>,
    help: &'static str,
}

/// A setting that is only shown.
struct Fixed {
    name: &'static str,
    value_type: ValueType,
    value: &'static str,
    help: &'static str,
}

const HONOURED: &[Honoured] = &[
    Honoured {
        name: "cleanup.policy",
        value_type: ValueType::List,
        get: |_| "delete".into(),
        set: set_cleanup_policy,
        help: "What happens to old records: delete. Compaction is not built.",
    },
    Honoured {
        name: "compression.type",
        value_type: ValueType::String,
        get: |_| "producer".into(),
        set: |_, value| match value {
            "producer" => Ok(()),
            other => {
                Err(format!("batches are kept as producers compress them: \"producer\", not \"{other}\""))
            }
        },
        help: "Batches are kept as producers compress them.",
    },
    Honoured {
        name: "max.message.bytes",
        value_type: ValueType::Int,
        get: |config| config.max_message_bytes.to_string(),
        set: |config, value| {
            config.max_message_bytes = number(value, 0, i32::MAX.into())? as u32;
            Ok(())
        },
        help: "The largest record batch taken, in bytes.",
    },
    Honoured {
        name: "message.timestamp.after.max.ms",
        value_type: ValueType::Long,
        get: |config| config.timestamp_after_max_ms.to_string(),
        set: |config, value| {
            config.timestamp_after_max_ms = number(value, 0, i64::MAX)?;
            Ok(())
        },
        help: "How far a producer's timestamp may be ahead of the broker's clock, in milliseconds.",
    },
    Honoured {
        name: "message.timestamp.before.max.ms",
        value_type: ValueType::Long,
        get: |config| config.timestamp_before_max_ms.to_string(),
        set: |config, value| {
            config.timestamp_before_max_ms = number(value, 0, i64::MAX)?;
            Ok(())
        },
        help: "How far a producer's timestamp may be behind the broker's clock, in milliseconds.",
    },
    Honoured {
        name: "message.timestamp.type",
        value_type: ValueType::String,
        get: |config| match config.timestamp_type {
            TimestampType::CreateTime => "CreateTime".into(),
            TimestampType::LogAppendTime => "LogAppendTime".into(),
        },
        set: |config, value| {
            config.timestamp_type = match value {
                "CreateTime" => TimestampType::CreateTime,
                "LogAppendTime" => TimestampType::LogAppendTime,
                other => return Err(format!("expected CreateTime or LogAppendTime, not \"{other}\"")),
            };
            Ok(())
        },
        help: "Whose time records carry: the producer's (CreateTime) or the broker's (LogAppendTime).",
    },
    Honoured {
        name: "min.insync.replicas",
        value_type: ValueType::Int,
        get: |config| config.min_insync.to_string(),
        set: |config, value| {
            config.min_insync = number(value, 1, u16::MAX.into())? as u16;
            Ok(())
        },
        help: "How many replicas must be in sync for a producer with acks=all.",
    },
    Honoured {
        name: "retention.bytes",
        value_type: ValueType::Long,
        get: |config| config.retention_bytes.unwrap_or(-1).to_string(),
        set: |config, value| {
            config.retention_bytes = bound(value)?;
            Ok(())
        },
        help: "How many bytes a partition keeps at least; -1 without a bound.",
    },
    Honoured {
        name: "retention.ms",
        value_type: ValueType::Long,
        get: |config| config.retention_ms.unwrap_or(-1).to_string(),
        set: |config, value| {
            config.retention_ms = bound(value)?;
            Ok(())
        },
        help: "How long records are kept at least, in milliseconds; -1 for ever.",
    },
    Honoured {
        name: DURABILITY,
        value_type: ValueType::String,
        get: |config| match config.durability {
            None => "default".into(),
            Some(Durability::Sync) => "sync".into(),
            Some(Durability::Os) => "os".into(),
        },
        set: |config, value| {
            config.durability = match value {
                "default" => None,
                "sync" => Some(Durability::Sync),
                "os" => Some(Durability::Os),
                other => return Err(format!("expected sync, os or default, not \"{other}\"")),
            };
            Ok(())
        },
        help: "What an acknowledgement means: sync survives a power cut, os the death of the process; default is the \
               broker's data.durability.",
    },
];

/// The one setting that Kafka does not have.
const DURABILITY: &str = "sabir.durability";

const NO_FILES: &str = "Shown for tools; partitions have no files of their own here.";
const NO_COMPACTION: &str = "Shown for tools; compaction is not built.";
const NO_FOLLOWERS: &str = "Shown for tools; there are no followers.";
const NO_TIERS: &str = "Shown for tools; there is no remote storage.";
const NO_RECOMPRESSION: &str = "Shown for tools; batches are kept as producers compress them.";

const FIXED: &[Fixed] = &[
    fixed("compression.gzip.level", ValueType::Int, "-1", NO_RECOMPRESSION),
    fixed("compression.lz4.level", ValueType::Int, "9", NO_RECOMPRESSION),
    fixed("compression.zstd.level", ValueType::Int, "3", NO_RECOMPRESSION),
    fixed("delete.retention.ms", ValueType::Long, "86400000", NO_COMPACTION),
    fixed("file.delete.delay.ms", ValueType::Long, "60000", NO_FILES),
    fixed("flush.messages", ValueType::Long, "9223372036854775807", "Shown for tools; see sabir.durability."),
    fixed("flush.ms", ValueType::Long, "9223372036854775807", "Shown for tools; see sabir.durability."),
    fixed("follower.replication.throttled.replicas", ValueType::List, "", NO_FOLLOWERS),
    fixed("index.interval.bytes", ValueType::Int, "4096", NO_FILES),
    fixed("leader.replication.throttled.replicas", ValueType::List, "", NO_FOLLOWERS),
    fixed("local.retention.bytes", ValueType::Long, "-2", NO_TIERS),
    fixed("local.retention.ms", ValueType::Long, "-2", NO_TIERS),
    fixed("max.compaction.lag.ms", ValueType::Long, "9223372036854775807", NO_COMPACTION),
    fixed("min.cleanable.dirty.ratio", ValueType::Double, "0.5", NO_COMPACTION),
    fixed("min.compaction.lag.ms", ValueType::Long, "0", NO_COMPACTION),
    fixed("preallocate", ValueType::Boolean, "false", NO_FILES),
    fixed("remote.log.copy.disable", ValueType::Boolean, "false", NO_TIERS),
    fixed("remote.log.delete.on.disable", ValueType::Boolean, "false", NO_TIERS),
    fixed("remote.storage.enable", ValueType::Boolean, "false", NO_TIERS),
    fixed("segment.bytes", ValueType::Int, "1073741824", NO_FILES),
    fixed("segment.index.bytes", ValueType::Int, "10485760", NO_FILES),
    fixed("segment.jitter.ms", ValueType::Long, "0", NO_FILES),
    fixed("segment.ms", ValueType::Long, "604800000", NO_FILES),
    fixed("unclean.leader.election.enable", ValueType::Boolean, "false", NO_FOLLOWERS),
];

const fn fixed(name: &'static str, value_type: ValueType, value: &'static str, help: &'static str) -> Fixed {
    Fixed { name, value_type, value, help }
}

/// Sets one setting.
///
/// # Errors
/// An unknown name, a value that cannot be or that is not honoured: what is wrong, for the client to read.
pub(crate) fn set(config: &mut TopicConfig, name: &str, value: &str) -> Result<(), String> {
    if let Some(honoured) = HONOURED.iter().find(|h| h.name == name) {
        return (honoured.set)(config, value.trim()).map_err(|problem| format!("{name}: {problem}"));
    }
    match FIXED.iter().find(|f| f.name == name) {
        Some(fixed) if fixed.value == value.trim() => Ok(()),
        Some(fixed) => Err(format!("{name}: only \"{}\" is honoured. {}", fixed.value, fixed.help)),
        None => Err(format!("{name}: no topic setting has this name")),
    }
}

/// Sets one setting back to what holds where a topic says nothing.
///
/// # Errors
/// An unknown name.
pub(crate) fn reset(config: &mut TopicConfig, name: &str, defaults: &TopicConfig) -> Result<(), String> {
    if let Some(honoured) = HONOURED.iter().find(|h| h.name == name) {
        return (honoured.set)(config, &(honoured.get)(defaults));
    }
    match FIXED.iter().any(|f| f.name == name) {
        true => Ok(()),
        false => Err(format!("{name}: no topic setting has this name")),
    }
}

/// Every setting of a topic.
pub(crate) fn shown(config: &TopicConfig, defaults: &TopicConfig) -> impl Iterator<Item = Shown> {
    let honoured = HONOURED.iter().map(|h| Shown {
        name: h.name,
        value: (h.get)(config),
        default: (h.get)(defaults),
        value_type: h.value_type,
        fixed: false,
        help: h.help,
    });
    let fixed = FIXED.iter().map(|f| Shown {
        name: f.name,
        value: f.value.into(),
        default: f.value.into(),
        value_type: f.value_type,
        fixed: true,
        help: f.help,
    });
    honoured.chain(fixed)
}

fn set_cleanup_policy(_: &mut TopicConfig, value: &str) -> Result<(), String> {
    match value {
        "delete" => Ok(()),
        other if other.split(',').any(|policy| policy.trim() == "compact") => {
            Err("\"compact\" is refused: compaction is not built yet; use \"delete\"".into())
        }
        other => Err(format!("expected delete, not \"{other}\"")),
    }
}

fn number(value: &str, least: i64, most: i64) -> Result<i64, String> {
    let parsed = value.parse().ok().filter(|n| (least..=most).contains(n));
    parsed.ok_or_else(|| format!("expected a number from {least} to {most}, not \"{value}\""))
}

fn bound(value: &str) -> Result<Option<i64>, String> {
    number(value, -1, i64::MAX).map(|n| (n >= 0).then_some(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_on_default(name: &str, value: &str) -> Result<TopicConfig, String> {
        let mut config = TopicConfig::default();
        set(&mut config, name, value).map(|()| config)
    }

    #[test]
    fn what_is_set_is_shown_and_can_be_taken_back() {
        let defaults = TopicConfig::default();
        for (name, value) in [
            ("max.message.bytes", "2000000"),
            ("message.timestamp.after.max.ms", "5"),
            ("message.timestamp.before.max.ms", "6"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.insync.replicas", "2"),
            ("retention.bytes", "1000"),
            ("retention.ms", "-1"),
            ("sabir.durability", "os"),
        ] {
            let mut config = set_on_default(name, value).expect(name);
            let own: Vec<_> = shown(&config, &defaults).filter(Shown::is_own).collect();
            assert_eq!(own.len(), 1, "{name}");
            assert_eq!((own[0].name, own[0].value.as_str()), (name, value));
            reset(&mut config, name, &defaults).expect(name);
            assert_eq!(config, defaults);
        }
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name() {
        for (name, value, problem) in [
            ("cleanup.policy", "compact", "compaction is not built"),
            ("cleanup.policy", "compact,delete", "compaction is not built"),
            ("cleanup.policy", "x", "expected delete"),
            ("compression.type", "lz4", "as producers compress them"),
            ("segment.bytes", "1", "only \"1073741824\" is honoured"),
            ("nonsense", "1", "no topic setting has this name"),
            ("retention.ms", "-2", "expected a number from -1"),
            ("retention.ms", "soon", "not \"soon\""),
            ("min.insync.replicas", "0", "expected a number from 1"),
            ("max.message.bytes", "2147483648", "expected a number"),
        ] {
            let refused = set_on_default(name, value).expect_err(name);
            assert!(refused.starts_with(name) && refused.contains(problem), "{refused}");
        }
        assert!(set_on_default("segment.bytes", "1073741824").is_ok());
        assert!(reset(&mut TopicConfig::default(), "nonsense", &TopicConfig::default()).is_err());
    }

    #[test]
    fn names_are_listed_once() {
        let defaults = TopicConfig::default();
        let mut names: Vec<_> = shown(&defaults, &defaults).map(|s| s.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(shown(&defaults, &defaults).all(|s| !s.is_own()));
    }
}
