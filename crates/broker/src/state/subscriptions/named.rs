//! The subscriptions that have names: those of topics that are no queues. Each partition of the topic has its part of one, which has a number
//! of its own.

use rustc_hash::FxHashMap;
use sabir_delivery::subscription::SubscriptionNo;
use sabir_journal::pages::{PageDecodeError, PageError, PageKey, PageValue, Paged};
use sabir_model::{DecodeError, FrontendNo, PartitionId};

use super::partition_of;
use crate::codec::{Reader, put_str, put_u32};
use crate::entry::SubscriptionSettings;
use crate::projection::PageMap;
use crate::state::{StoredMaps, prefixes};

/// The form of those that clients made, which have no owner.
const FORM_1: u8 = 1;
const FORM: u8 = 2;

/// Subscriptions that a partition may have.
pub(super) const MOST: usize = 1024;
/// Bits of a subscription's number that are its partition's id. Those above are 0 for a queue's own.
pub(super) const PARTITION_BITS: u32 = 48;
/// What these count to.
const LARGEST: u64 = u16::MAX as u64;

/// A partition's part of a subscription, as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedSubscription {
    pub(crate) name: Box<str>,
    /// The front end's projection that made it by an entry of its own, and alone removes it; [`FrontendNo::NONE`] where clients did.
    pub(crate) owner: FrontendNo,
    /// How many partitions its topic had then.
    pub(crate) partitions: u32,
    pub(crate) settings: SubscriptionSettings,
}

/// Keys of its rows: the number, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct NamedKey(SubscriptionNo);

impl PageKey for NamedKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let number =
            bytes.try_into().map_err(|_| PageDecodeError("a subscription's key has 8 bytes".into()))?;
        Ok(Self(SubscriptionNo(u64::from_be_bytes(number))))
    }
}

/// The row: version 2 · owner · partitions · name · settings. Version 1, of one that has no owner, does not name it.
impl PageValue for NamedSubscription {
    fn encode(&self, out: &mut Vec<u8>) {
        if self.owner == FrontendNo::NONE {
            out.push(FORM_1);
        } else {
            out.push(FORM);
            put_u32(out, self.owner.0.into());
        }
        put_u32(out, self.partitions);
        put_str(out, &self.name);
        self.settings.put(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        take(bytes).map_err(|error| PageDecodeError(error.to_string()))
    }
}

fn take(bytes: &[u8]) -> Result<NamedSubscription, DecodeError> {
    let mut input = Reader::new(bytes);
    let owner = match input.u8()? {
        FORM_1 => FrontendNo::NONE,
        FORM => input.front_end()?,
        newer => return Err(DecodeError::Version(newer)),
    };
    let named = NamedSubscription {
        owner,
        partitions: input.u32()?,
        name: input.str()?.into(),
        settings: SubscriptionSettings::take(&mut input)?,
    };
    input.end()?;
    Ok(named)
}

/// All of a shard.
pub(super) struct NamedSubscriptions {
    rows: Paged<NamedKey, NamedSubscription>,
    /// Their numbers by partition, ascending; follows from the rows.
    of: FxHashMap<PartitionId, Vec<SubscriptionNo>>,
}

impl Default for NamedSubscriptions {
    fn default() -> Self {
        Self { rows: Paged::new(prefixes::NAMED_SUBSCRIPTIONS), of: FxHashMap::default() }
    }
}

/// Has blocks that follow one another begin far apart.
const SPREAD: u64 = 40_503;

impl NamedSubscriptions {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn pages(&mut self) -> &mut dyn PageMap {
        &mut self.rows
    }

    pub(super) fn get(&self, number: SubscriptionNo) -> Option<&NamedSubscription> {
        self.rows.get(&NamedKey(number))
    }

    /// The numbers of a partition's, ascending.
    pub(super) fn of(&self, partition: PartitionId) -> &[SubscriptionNo] {
        self.of.get(&partition).map_or(&[], Vec::as_slice)
    }

    /// Those of a partition, in the order of their numbers.
    pub(super) fn each_of(
        &self,
        partition: PartitionId,
    ) -> impl Iterator<Item = (SubscriptionNo, &NamedSubscription)> {
        self.of(partition).iter().filter_map(|number| Some((*number, self.get(*number)?)))
    }

    pub(super) fn find(&self, partition: PartitionId, name: &str) -> Option<SubscriptionNo> {
        self.each_of(partition).find(|(_, named)| *named.name == *name).map(|(number, _)| number)
    }

    /// The partitions that have some.
    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.of.keys().copied()
    }

    /// A number that no subscription of the partition has: from a place on that is another one for most blocks, so that what is said late of one that
    /// is gone does not meet another.
    pub(super) fn free(&self, partition: PartitionId, seed: u64) -> SubscriptionNo {
        // Neighbours are far from one another, so that of two parts made in one block and one that is made in the next all differ.
        let mut high = seed.wrapping_mul(SPREAD) % LARGEST;
        loop {
            high = high % LARGEST + 1;
            let number = SubscriptionNo(high << PARTITION_BITS | partition.0);
            if !self.rows.contains(&NamedKey(number)) {
                return number;
            }
        }
    }

    pub(super) fn insert(&mut self, number: SubscriptionNo, named: NamedSubscription) {
        if self.rows.insert(NamedKey(number), named).is_none() {
            note(&mut self.of, number);
        }
    }

    pub(super) fn remove(&mut self, number: SubscriptionNo) {
        self.rows.remove(&NamedKey(number));
        let partition = partition_of(number);
        if let Some(numbers) = self.of.get_mut(&partition) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.of.remove(&partition);
            }
        }
    }

    pub(super) fn restore(stored: &StoredMaps<'_>) -> Result<Self, PageError> {
        let rows: Paged<NamedKey, NamedSubscription> = stored.restore(prefixes::NAMED_SUBSCRIPTIONS)?;
        let mut of = FxHashMap::default();
        rows.iter().for_each(|(key, _)| note(&mut of, key.0));
        Ok(Self { rows, of })
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SubscriptionNo, &NamedSubscription)> {
        self.rows.iter().map(|(key, named)| (key.0, named))
    }
}

fn note(of: &mut FxHashMap<PartitionId, Vec<SubscriptionNo>>, number: SubscriptionNo) {
    let numbers = of.entry(partition_of(number)).or_default();
    let at = numbers.partition_point(|other| *other < number);
    numbers.insert(at, number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_forms() {
        let plain = NamedSubscription {
            name: "a".into(),
            owner: FrontendNo::NONE,
            partitions: 2,
            settings: SubscriptionSettings { dead_letter: None, delivery_limit: Some(5) },
        };
        let owned = NamedSubscription { owner: FrontendNo(300), ..plain.clone() };
        for (named, head) in [(plain, &[1][..]), (owned, &[2, 0xac, 2])] {
            let mut out = Vec::new();
            named.encode(&mut out);
            assert_eq!(out, [head, &[2, 1, b'a', 4, 5]].concat());
            assert_eq!(NamedSubscription::decode(&out).unwrap(), named);
            assert!((0..out.len()).all(|len| NamedSubscription::decode(&out[..len]).is_err()));
        }
        assert!(NamedSubscription::decode(&[3, 1, 2, 1, b'a', 0]).is_err(), "of a later form");
    }
}
