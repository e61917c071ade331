//! The front end's own settings.

use sabir_frontend::config::{
    AutoSize, ConfigError, MemorySetting, Setting, SettingsTable, Size, parse_table,
};
use serde::Deserialize;

/// The front end's own table; see [`SETTINGS`] for what each key does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Whether a topic that is asked for and not there is made.
    pub auto_create: bool,
    /// Partitions of a topic that is made without saying how many.
    pub num_partitions: u32,
    /// The largest request.
    pub max_request: Size,
    /// The largest answer to a fetch, its first batch aside.
    pub max_fetch: Size,
    /// Fetch sessions kept at once.
    pub fetch_sessions: usize,
    /// Memory for fetch sessions.
    pub fetch_session_memory: AutoSize,
    /// Partitions and positions that metrics show one by one.
    pub exporter_partitions: usize,
}

/// The keys of the table beside the common ones.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "auto_create",
        default: "true",
        help: "Makes a topic when a client asks for the metadata of one that does not exist, unless the client forbids it.",
    },
    Setting {
        key: "num_partitions",
        default: "1",
        help: "How many partitions a topic gets whose creator does not say.",
    },
    Setting {
        key: "max_request",
        default: "\"100MiB\"",
        help: "The largest request taken. A connection that announces a larger one is closed.",
    },
    Setting {
        key: "max_fetch",
        default: "\"55MiB\"",
        help: "The most bytes of records in the answer to one fetch, whatever the client asks for; one batch is always \
               given.",
    },
    Setting {
        key: "fetch_sessions",
        default: "1000",
        help: "How many incremental fetch sessions are kept. A consumer beyond them names its partitions in every fetch.",
    },
    Setting {
        key: "fetch_session_memory",
        default: "\"auto\"",
        help: "Memory for incremental fetch sessions, of which one takes a quarter at most: some 450 bytes and the topic's name for \
               each partition. A consumer beyond it names its partitions in every fetch. `auto` is a sixty-fourth of the memory that the \
               machine or the control group has, from `4MiB` to `64MiB`.",
    },
    Setting {
        key: "exporter_partitions",
        default: "10000",
        help: "`/metrics` also has kafka_exporter's names, by partition while there are no more partitions than this, and by \
               group and partition while groups have no more positions than this. 0 leaves all of these names out.",
    },
];

/// The name of the table, of the metrics' label and of the front end.
pub const NAME: &str = "kafka";

impl Default for KafkaConfig {
    /// What holds where the table says nothing.
    fn default() -> Self {
        Self::parse(SettingsTable::default()).expect("every key has a default that is good")
    }
}

impl KafkaConfig {
    /// What bounds the memory for fetch sessions.
    pub(crate) fn session_memory(&self) -> MemorySetting {
        let auto = |memory: u64| (memory / 64).clamp(4 << 20, 64 << 20);
        MemorySetting { setting: "kafka.fetch_session_memory", said: self.fetch_session_memory, auto }
    }

    /// Takes the table.
    ///
    /// # Errors
    /// An unknown key, a value that cannot be.
    pub fn parse(table: SettingsTable) -> Result<Self, ConfigError> {
        let config: Self = parse_table(NAME, table, SETTINGS)?;
        if config.num_partitions == 0 {
            return Err(ConfigError::new(NAME, "num_partitions", "a topic has one partition at least"));
        }
        if !(1024..=i32::MAX as u64).contains(&config.max_request.0) {
            return Err(ConfigError::new(NAME, "max_request", "expected a size from 1KiB to 2147483647"));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<KafkaConfig, String> {
        let table = serde_json::from_str(json).expect("JSON");
        KafkaConfig::parse(table).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_hold_and_nonsense_is_refused() {
        let config = parse("{}").expect("all have defaults");
        assert_eq!((config.auto_create, config.num_partitions), (true, 1));
        assert_eq!(config.max_request, Size(100 << 20));
        let sessions = [128, 256, 1024, 8192].map(|mib| config.session_memory().bytes(mib << 20) >> 20);
        assert_eq!(sessions, [4, 4, 16, 64]);
        let said = parse(r#"{"fetch_session_memory": "3MiB"}"#).expect("a size");
        assert_eq!(said.session_memory().bytes(256 << 20), 3 << 20);
        for (json, expected) in [
            (r#"{"auto_creat": false}"#, "kafka.auto_creat: unknown key; did you mean `auto_create`?"),
            (r#"{"num_partitions": 0}"#, "kafka.num_partitions: a topic has one partition at least"),
            (r#"{"max_request": "3GiB"}"#, "kafka.max_request: expected a size from 1KiB to 2147483647"),
        ] {
            assert_eq!(parse(json).expect_err(json), expected);
        }
    }
}
