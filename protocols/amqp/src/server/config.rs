//! The front end's own settings.

use sabir_frontend::config::{ConfigError, Setting, SettingsTable, Size, Span, parse_table};
use serde::Deserialize;

use crate::session::ConnectionOptions;
use crate::wire::FRAME_MIN;

/// The name of the table, of the metrics' label and of the front end.
pub(crate) const NAME: &str = "amqp";

/// The largest frame that can be offered.
const FRAME_MOST: u64 = 16 << 20;
/// The largest message that can be allowed: a record holds no more.
const MESSAGE_MOST: u64 = 512 << 20;

/// The front end's own table; see [`SETTINGS`] for what each key does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AmqpConfig {
    pub(crate) heartbeat: Span,
    pub(crate) channel_max: u16,
    pub(crate) frame_max: Size,
    pub(crate) max_message: Size,
    pub(crate) partial_memory: Size,
}

/// The keys of the table beside the common ones.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "heartbeat",
        default: "\"60s\"",
        help: "The time between signs of life that is proposed to clients, in whole seconds; 0 for none. A client's own wish \
               holds. One that is silent for twice as long is gone.",
    },
    Setting {
        key: "channel_max",
        default: "2047",
        help: "The most channels that a connection may have open; 0 for as many as there are numbers.",
    },
    Setting { key: "frame_max", default: "\"128KiB\"", help: "The largest frame, from 4KiB to 16MiB." },
    Setting {
        key: "max_message",
        default: "\"16MiB\"",
        help: "The largest body of a message, 512MiB at the most. A larger one closes its channel.",
    },
    Setting {
        key: "partial_memory",
        default: "\"64MiB\"",
        help: "How much a connection may have sent of messages that have not come whole, all its channels together, and how \
               much in transactions that are not committed. It counts against `net.frame_memory`, too.",
    },
];

impl AmqpConfig {
    /// Takes the table.
    ///
    /// # Errors
    /// An unknown key, a value that cannot be.
    pub(crate) fn parse(table: SettingsTable) -> Result<Self, ConfigError> {
        let config: Self = parse_table(NAME, table, SETTINGS)?;
        let wrong = |key, problem| Err(ConfigError::new(NAME, key, problem));
        if config.heartbeat.0.as_secs() > u16::MAX.into() || config.heartbeat.0.subsec_nanos() != 0 {
            return wrong("heartbeat", "expected whole seconds, 65535s at the most");
        }
        if !(u64::from(FRAME_MIN)..=FRAME_MOST).contains(&config.frame_max.0) {
            return wrong("frame_max", "expected a size from 4KiB to 16MiB");
        }
        if !(1..=MESSAGE_MOST).contains(&config.max_message.0) {
            return wrong("max_message", "expected a size from 1 to 512MiB");
        }
        if config.partial_memory < config.max_message {
            return wrong("partial_memory", "expected no less than `max_message`: a message comes in parts");
        }
        Ok(config)
    }

    /// What is offered to a client.
    pub(crate) fn options(&self) -> ConnectionOptions {
        ConnectionOptions {
            channel_max: self.channel_max,
            frame_max: u32::try_from(self.frame_max.0).expect("it was looked at"),
            heartbeat: u16::try_from(self.heartbeat.0.as_secs()).expect("it was looked at"),
            message_max: self.max_message.0,
            unfinished_max: self.partial_memory.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<AmqpConfig, String> {
        let table = serde_json::from_str(json).expect("JSON");
        AmqpConfig::parse(table).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_machine_and_nonsense_is_refused() {
        assert_eq!(parse("{}").unwrap().options(), ConnectionOptions::default());
        for (json, key) in [
            (r#"{"hartbeat": "1s"}"#, "hartbeat"),
            (r#"{"heartbeat": "250ms"}"#, "heartbeat"),
            (r#"{"heartbeat": "2d"}"#, "heartbeat"),
            (r#"{"frame_max": "4095"}"#, "frame_max"),
            (r#"{"frame_max": "17MiB"}"#, "frame_max"),
            (r#"{"max_message": "1GiB"}"#, "max_message"),
            (r#"{"partial_memory": "1MiB"}"#, "partial_memory"),
        ] {
            let refused = parse(json).expect_err(json);
            assert!(refused.starts_with(&format!("amqp.{key}: ")), "{refused}");
        }
    }
}
