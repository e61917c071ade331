//! What a user can say of publishing and of load: the options that the command line asks for on this client's behalf.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sabir_frontend::client::{ClientOption, ClientOptions};
use sabir_frontend::config::{Size, Span};
use sabir_model::batch::Compression;

use super::Error;

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Acks {
    /// None is awaited.
    None,
    /// The leader has it.
    Leader,
    /// Every in-sync replica has it.
    All,
}

impl FromStr for Acks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "0" | "none" => Ok(Self::None),
            "1" | "leader" => Ok(Self::Leader),
            "all" | "-1" => Ok(Self::All),
            _ => Err("there are 0, 1 and all".into()),
        }
    }
}

fn codec(text: &str) -> Result<Compression, String> {
    let found = Compression::ALL.into_iter().find(|codec| codec.to_string() == text);
    found.ok_or_else(|| {
        let all: Vec<_> = Compression::ALL.iter().map(Compression::to_string).collect();
        format!("there are {}", all.join(", "))
    })
}

fn parsed<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn within(text: &str, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("expected a number from 1 to {most}"))
}

const MOST_PARTITIONS: u32 = i32::MAX as u32;
const MOST_IN_FLIGHT: u32 = 1000;

const ACKS: ClientOption = ClientOption {
    name: "acks",
    value: Some("WHO"),
    default: "all",
    help: "What an acknowledgement must mean: 0 (none is awaited), 1 (the leader has it), all (every in-sync replica has it)",
    check: |text| parsed::<Acks>(text).map(drop),
};
const COMPRESSION: ClientOption = ClientOption {
    name: "compression",
    value: Some("CODEC"),
    default: "none",
    help: "How batches are compressed: none, gzip, snappy, lz4, zstd",
    check: |text| codec(text).map(drop),
};
const PARTITIONS: ClientOption = ClientOption {
    name: "partitions",
    value: Some("PARTITIONS"),
    default: "6",
    help: "Partitions of the topic, if it is created",
    check: |text| within(text, MOST_PARTITIONS).map(drop),
};
const BATCH: ClientOption = ClientOption {
    name: "batch",
    value: Some("SIZE"),
    default: "16KiB",
    help: "Bytes a batch may have",
    check: |text| parsed::<Size>(text).map(drop),
};
const LINGER: ClientOption = ClientOption {
    name: "linger",
    value: Some("TIME"),
    default: "0",
    help: "How long a message may wait for others to share its batch",
    check: |text| parsed::<Span>(text).map(drop),
};
const IN_FLIGHT: ClientOption = ClientOption {
    name: "in-flight",
    value: Some("REQUESTS"),
    default: "5",
    help: "Requests under way at once, per connection",
    check: |text| within(text, MOST_IN_FLIGHT).map(drop),
};
const IDEMPOTENT: ClientOption = ClientOption {
    name: "idempotent",
    value: None,
    default: "false",
    help: "Number the batches, so that the broker knows a repeated one",
    check: |text| parsed::<bool>(text).map(drop),
};

/// Those of publishing.
pub(crate) const PUBLISH: &[ClientOption] = &[ACKS, COMPRESSION];
/// Those of a load that publishes.
pub(crate) const LOAD: &[ClientOption] =
    &[PARTITIONS, ACKS, COMPRESSION, BATCH, LINGER, IN_FLIGHT, IDEMPOTENT];

/// What is said of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publishing {
    pub acks: Acks,
    pub compression: Compression,
}

impl Publishing {
    pub fn of(options: &ClientOptions) -> Result<Self, Error> {
        Ok(Self { acks: value(options, &ACKS, parsed)?, compression: value(options, &COMPRESSION, codec)? })
    }
}

/// What is said of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loading {
    pub publishing: Publishing,
    pub partitions: i32,
    pub batch_bytes: usize,
    pub linger: Duration,
    pub in_flight: usize,
    pub idempotent: bool,
}

impl Loading {
    pub fn of(options: &ClientOptions) -> Result<Self, Error> {
        let partitions = value(options, &PARTITIONS, |text| within(text, MOST_PARTITIONS))?;
        Ok(Self {
            publishing: Publishing::of(options)?,
            partitions: i32::try_from(partitions).expect("it is no more than that"),
            batch_bytes: value(options, &BATCH, parsed::<Size>)?.0 as usize,
            linger: value(options, &LINGER, parsed::<Span>)?.0,
            in_flight: value(options, &IN_FLIGHT, |text| within(text, MOST_IN_FLIGHT))? as usize,
            idempotent: value(options, &IDEMPOTENT, parsed)?,
        })
    }
}

fn value<T>(
    options: &ClientOptions,
    option: &ClientOption,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Error> {
    let text = options.get(option);
    parse(text).map_err(|problem| Error::Usage(format!("{} {text}: {problem}", option.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_can_be_taken_and_what_makes_no_sense_cannot() {
        for option in LOAD.iter().chain(PUBLISH) {
            assert_eq!((option.check)(option.default), Ok(()), "{}", option.name);
            assert!((option.check)("nonsense").is_err(), "{}", option.name);
        }
        let usual = Loading::of(&ClientOptions::default()).unwrap();
        assert_eq!((usual.publishing.acks, usual.batch_bytes, usual.in_flight), (Acks::All, 16 << 10, 5));
        let mut given = ClientOptions::default();
        given.set(&ACKS, "0");
        given.set(&COMPRESSION, "zstd");
        given.set(&IDEMPOTENT, "true");
        let loading = Loading::of(&given).unwrap();
        assert_eq!(loading.publishing, Publishing { acks: Acks::None, compression: Compression::Zstd });
        assert!(loading.idempotent);
        given.set(&IN_FLIGHT, "1001");
        assert!(Loading::of(&given).unwrap_err().to_string().contains("1 to 1000"));
    }
}
