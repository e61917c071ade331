//! What can be said of a load.

use std::time::Duration;

use sabir_frontend::client::{ClientError, ClientOption, ClientOptions, Failure};
use sabir_frontend::config::{Expected, Span};

const MOST: u32 = 1_000_000;

fn number(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| *number <= MOST);
    number.ok_or_else(|| format!("expected a number up to {MOST}"))
}

fn delay(text: &str) -> Result<Duration, String> {
    let span: Result<Span, Expected> = text.parse();
    span.map(|span| span.0).map_err(|expected| expected.to_string())
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "expected true or false".to_owned())
}

const QUEUES: ClientOption = ClientOption {
    name: "queues",
    value: Some("QUEUES"),
    default: "1",
    help: "Over how many queues clients are spread; with more than one, each is called by the topic and a number",
    check: |text| number(text).map(drop),
};
const CONFIRM: ClientOption = ClientOption {
    name: "confirm",
    value: Some("MESSAGES"),
    default: "200",
    help: "Messages of a client that wait for their confirmation; 0 for none that is confirmed",
    check: |text| number(text).map(drop),
};
const PREFETCH: ClientOption = ClientOption {
    name: "prefetch",
    value: Some("MESSAGES"),
    default: "200",
    help: "Messages that a client has not acknowledged; 0 for none that is to be",
    check: |text| number(text).map(drop),
};
const ACK_EVERY: ClientOption = ClientOption {
    name: "ack-every",
    value: Some("MESSAGES"),
    default: "100",
    help: "Messages that are acknowledged together",
    check: |text| number(text).map(drop),
};
const TRANSIENT: ClientOption = ClientOption {
    name: "transient",
    value: None,
    default: "false",
    help: "Messages and queues that need not outlive a restart",
    check: |text| flag(text).map(drop),
};
const QUORUM: ClientOption = ClientOption {
    name: "quorum",
    value: None,
    default: "false",
    help: "Declare the queues with x-queue-type=quorum",
    check: |text| flag(text).map(drop),
};
const DELAY: ClientOption = ClientOption {
    name: "delay",
    value: Some("TIME"),
    default: "0",
    help: "Delay each message by a random time up to this (x-delayed-message); latency counts from when it is due then",
    check: |text| delay(text).map(drop),
};

pub(super) const LOAD: &[ClientOption] = &[QUEUES, CONFIRM, PREFETCH, ACK_EVERY, TRANSIENT, QUORUM, DELAY];

/// What is said of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loading {
    pub(super) queues: usize,
    pub(super) confirm: u64,
    pub(super) prefetch: u16,
    pub(super) ack_every: u64,
    pub(super) transient: bool,
    pub(super) quorum: bool,
    /// The longest that a message is delayed.
    pub(super) delay: Duration,
}

impl Loading {
    pub(super) fn of(options: &ClientOptions) -> Result<Self, ClientError> {
        let value = |option: &ClientOption| {
            number(options.get(option)).map_err(|problem| wrong(option.name, &problem))
        };
        let prefetch = u16::try_from(value(&PREFETCH)?).map_err(|_| wrong("prefetch", "at most 65535"))?;
        Ok(Self {
            queues: value(&QUEUES)?.max(1) as usize,
            confirm: value(&CONFIRM)?.into(),
            prefetch,
            ack_every: u64::from(value(&ACK_EVERY)?).clamp(1, u64::from(prefetch).max(1)),
            transient: flag(options.get(&TRANSIENT)).map_err(|problem| wrong("transient", &problem))?,
            quorum: flag(options.get(&QUORUM)).map_err(|problem| wrong("quorum", &problem))?,
            delay: delay(options.get(&DELAY)).map_err(|problem| wrong("delay", &problem))?,
        })
    }
}

fn wrong(option: &str, problem: &str) -> ClientError {
    ClientError::new(Failure::Refused, format!("--{option}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_taken_and_nonsense_is_not() {
        for option in LOAD {
            assert_eq!((option.check)(option.default), Ok(()), "{}", option.name);
            assert!((option.check)("nonsense").is_err(), "{}", option.name);
        }
        let usual = Loading::of(&ClientOptions::default()).unwrap();
        assert_eq!((usual.queues, usual.confirm, usual.prefetch, usual.ack_every), (1, 200, 200, 100));
        let mut given = ClientOptions::default();
        given.set(&PREFETCH, "0");
        assert_eq!(Loading::of(&given).unwrap().ack_every, 1);
        given.set(&PREFETCH, "70000");
        assert!(Loading::of(&given).is_err());
    }
}
