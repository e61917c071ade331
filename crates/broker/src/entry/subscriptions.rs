//! Entries of the subscriptions that topics have beside their own: each partition has its part of one.

use sabir_delivery::policy::DeathPolicy;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_model::{DeadLetterAddress, DecodeError, FrontendNo, PartitionId, ShardFailure};

use super::{Body, kind};
use crate::codec::{Reader, put_str, put_u32, put_u64};

const FORM: u8 = 1;
/// Of one that removes what a front end made.
const OWNED_FORM: u8 = 2;
/// Marks of settings: dead letters go to an exchange, by a routing key of its own, and come back so often at the most.
const EXCHANGE: u8 = 1 << 0;
const KEY: u8 = 1 << 1;
const LIMIT: u8 = 1 << 2;

/// Where a subscription begins in each partition, when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SubscriptionStart {
    /// With the oldest record kept.
    #[default]
    Oldest,
    /// With the last record there is.
    Last,
    /// With the next record to come.
    Next,
    /// With the record of an offset, or the nearest one kept.
    At(u64),
}

/// What holds for a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SubscriptionSettings {
    /// Where messages go that are given up; they are dropped where there is none.
    pub dead_letter: Option<DeadLetterAddress>,
    /// How often a message may be given back such that it counts; any number of times where there is none.
    pub delivery_limit: Option<u32>,
}

/// A partition has its part of a subscription from now on, unless it has that already: version 1 · partition · partitions of its topic ·
/// name · start u8 (0 oldest, 1 last, 2 next, 3 · offset) · settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriptionMade {
    pub(crate) partition: PartitionId,
    /// How many its topic has: one that comes later is behind these.
    pub(crate) partitions: u32,
    pub(crate) name: Box<str>,
    pub(crate) start: SubscriptionStart,
    /// Those that it is to have; nothing of one that is there already is changed by them.
    pub(crate) settings: SubscriptionSettings,
}

/// A partition's part of a subscription goes, if it is its owner's still: version 1 · partition · name; version 2 where it has an owner · its
/// owner · partition · name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriptionRemoved {
    pub(crate) owner: FrontendNo,
    pub(crate) partition: PartitionId,
    pub(crate) name: Box<str>,
}

/// Why a partition has no part of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscribeError {
    /// There is no such partition, or no such subscription.
    #[error("no such partition or subscription")]
    Unknown,
    /// It has as many as it may have.
    #[error("the partition has as many subscriptions as it may have")]
    TooMany,
    /// The shard did not take the entry, or gave it up.
    #[error(transparent)]
    Shard(#[from] ShardFailure),
}

impl SubscriptionSettings {
    /// The longest name of a subscription, in bytes.
    pub const LONGEST_NAME: usize = 1024;

    /// Whether a subscription may have a name.
    pub(crate) fn is_name(name: &str) -> bool {
        (1..=Self::LONGEST_NAME).contains(&name.len())
    }

    /// What becomes of messages that are given up.
    pub(crate) fn deaths(&self) -> DeathPolicy {
        DeathPolicy::of_returns(self.dead_letter.is_some(), self.delivery_limit, None)
    }

    /// Appends the stored form: marks u8 (1 exchange, 2 routing key, 4 limit) · what is marked.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mark = |on: bool, bit: u8| if on { bit } else { 0 };
        let key = self.dead_letter.as_ref().and_then(|address| address.routing_key.as_deref());
        let exchange = self.dead_letter.as_ref().map(|address| &*address.exchange);
        let limit = self.delivery_limit;
        out.push(
            mark(exchange.is_some(), EXCHANGE) | mark(key.is_some(), KEY) | mark(limit.is_some(), LIMIT),
        );
        exchange.into_iter().chain(key).for_each(|name| put_str(out, name));
        limit.into_iter().for_each(|limit| put_u32(out, limit));
    }

    /// Reads it back.
    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let marks = input.u8()?;
        if marks & !(EXCHANGE | KEY | LIMIT) != 0 || marks & (EXCHANGE | KEY) == KEY {
            return Err(DecodeError::Version(marks));
        }
        let mut settings = Self::default();
        if marks & EXCHANGE != 0 {
            let exchange = input.str()?.into();
            let routing_key = if marks & KEY == 0 { None } else { Some(input.str()?.into()) };
            settings.dead_letter = Some(DeadLetterAddress { exchange, routing_key });
        }
        if marks & LIMIT != 0 {
            settings.delivery_limit = Some(input.u32()?);
        }
        Ok(settings)
    }
}

impl SubscriptionStart {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Oldest => out.push(0),
            Self::Last => out.push(1),
            Self::Next => out.push(2),
            Self::At(offset) => {
                out.push(3);
                put_u64(out, offset);
            }
        }
    }

    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match input.u8()? {
            0 => Self::Oldest,
            1 => Self::Last,
            2 => Self::Next,
            3 => Self::At(input.u64()?),
            _ => return Err(DecodeError::Field("start of a subscription")),
        })
    }
}

impl Body for SubscriptionMade {
    const KIND: u16 = kind::SUBSCRIPTION_MADE;
    type Outcome = Result<SubscriptionNo, SubscribeError>;

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_u64(out, self.partition.0);
        put_u32(out, self.partitions);
        put_str(out, &self.name);
        self.start.put(out);
        self.settings.put(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        input.version(FORM)?;
        let body = Self {
            partition: input.partition()?,
            partitions: input.u32()?,
            name: input.str()?.into(),
            start: SubscriptionStart::take(&mut input)?,
            settings: SubscriptionSettings::take(&mut input)?,
        };
        input.end()?;
        Ok(body)
    }
}

impl Body for SubscriptionRemoved {
    const KIND: u16 = kind::SUBSCRIPTION_REMOVED;
    type Outcome = Result<SubscriptionNo, SubscribeError>;

    fn encode(&self, out: &mut Vec<u8>) {
        if self.owner == FrontendNo::NONE {
            out.push(FORM);
        } else {
            out.push(OWNED_FORM);
            put_u32(out, self.owner.0.into());
        }
        put_u64(out, self.partition.0);
        put_str(out, &self.name);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let owner = match input.u8()? {
            FORM => FrontendNo::NONE,
            OWNED_FORM => input.front_end()?,
            newer => return Err(DecodeError::Version(newer)),
        };
        let body = Self { owner, partition: input.partition()?, name: input.str()?.into() };
        input.end()?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_stored_in_these_bytes() {
        let plain = SubscriptionMade {
            partition: PartitionId(300),
            partitions: 2,
            name: "a".into(),
            start: SubscriptionStart::Next,
            settings: SubscriptionSettings::default(),
        };
        let address = DeadLetterAddress { exchange: "x".into(), routing_key: Some("k".into()) };
        let settings = SubscriptionSettings { dead_letter: Some(address), delivery_limit: Some(5) };
        let full = SubscriptionMade { start: SubscriptionStart::At(9), settings, ..plain.clone() };
        for (body, tail) in [(plain, &[2, 0][..]), (full, &[3, 9, 7, 1, b'x', 1, b'k', 5])] {
            let mut out = Vec::new();
            body.encode(&mut out);
            assert_eq!(out, [&[1, 0xac, 2, 2, 1, b'a'], tail].concat());
            assert_eq!(SubscriptionMade::decode(&out), Ok(body));
            assert!((0..out.len()).all(|len| SubscriptionMade::decode(&out[..len]).is_err()));
        }
        for wrong in [[4, 0], [2, 8], [2, 2]] {
            assert!(
                SubscriptionMade::decode(&[&[1, 1, 1, 1, b'a'][..], &wrong].concat()).is_err(),
                "{wrong:?}"
            );
        }
        for (owner, head) in [(FrontendNo::NONE, &[1][..]), (FrontendNo(3), &[2, 3])] {
            let removed = SubscriptionRemoved { owner, partition: PartitionId(300), name: "a".into() };
            let mut out = Vec::new();
            removed.encode(&mut out);
            assert_eq!(out, [head, &[0xac, 2, 1, b'a']].concat());
            assert_eq!(SubscriptionRemoved::decode(&out), Ok(removed));
        }
    }
}
