//! Consistent hashing: each destination has as many buckets as its weight, and few keys move when one comes or goes.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rustc_hash::{FxHashMap, FxHashSet};
use sabir_base::crc::crc32c;

use crate::publication::HashedProperty;

/// The most that a binding may weigh.
pub const MAX_WEIGHT: u32 = 10_000;

/// What of a message a consistent hash exchange hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HashOn {
    /// The routing key.
    #[default]
    Key,
    /// The header of this name.
    Header(Box<[u8]>),
    /// A property.
    Property(HashedProperty),
}

/// The buckets of a consistent hash exchange. Only the first binding of a destination has any; if it goes, the next one does.
#[derive(Debug, Default)]
pub(crate) struct HashRing {
    /// In the order in which they came.
    arcs: BTreeMap<u64, Arc>,
    by_binding: FxHashMap<u32, u64>,
    next: u64,
    /// Counted out when a message first needs them after a change.
    buckets: OnceLock<Buckets>,
}

/// A binding on the ring.
#[derive(Debug, Clone, Copy)]
struct Arc {
    destination: u32,
    weight: u32,
}

#[derive(Debug, Default)]
struct Buckets {
    /// Each destination, and the number behind that of its last bucket; rising.
    ends: Vec<(u32, u32)>,
    count: u32,
}

/// The weight that a binding key states.
pub(crate) fn weight(key: &[u8]) -> Option<u32> {
    let weight = std::str::from_utf8(key).ok()?.parse().ok()?;
    (1..=MAX_WEIGHT).contains(&weight).then_some(weight)
}

impl HashRing {
    pub(crate) fn insert(&mut self, binding: u32, destination: u32, weight: u32) {
        self.by_binding.insert(binding, self.next);
        self.arcs.insert(self.next, Arc { destination, weight });
        self.next += 1;
        self.buckets = OnceLock::new();
    }

    pub(crate) fn remove(&mut self, binding: u32) {
        if let Some(place) = self.by_binding.remove(&binding) {
            self.arcs.remove(&place);
            self.buckets = OnceLock::new();
        }
    }

    /// The destination for what is hashed.
    pub(crate) fn find(&self, hashed: &[u8]) -> Option<u32> {
        let Buckets { ends, count } = self.buckets.get_or_init(|| self.count());
        let bucket = jump(mixed(crc32c(hashed)), *count)?;
        let at = ends.partition_point(|(_, end)| *end <= bucket);
        ends.get(at).map(|(destination, _)| *destination)
    }

    fn count(&self) -> Buckets {
        let (mut seen, mut buckets) = (FxHashSet::default(), Buckets::default());
        for Arc { destination, weight } in self.arcs.values() {
            if seen.insert(*destination) {
                buckets.count = buckets.count.saturating_add(*weight);
                buckets.ends.push((*destination, buckets.count));
            }
        }
        buckets
    }
}

/// Spreads 32 bits over 64 (the finalizer of SplitMix64).
fn mixed(hash: u32) -> u64 {
    let mut hash = u64::from(hash).wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// Jump consistent hash (Lamping and Veach, 2014): the bucket of `key` among `buckets`.
fn jump(mut key: u64, buckets: u32) -> Option<u32> {
    let (mut bucket, mut next) = (None, 0i64);
    while next < i64::from(buckets) {
        bucket = Some(next as u32);
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let chance = ((key >> 33) + 1) as f64 / (1u64 << 31) as f64;
        next = ((next + 1) as f64 / chance) as i64;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ring: &HashRing) -> [usize; 4] {
        let mut counts = [0; 4];
        for key in 0..10_000u32 {
            counts[ring.find(&key.to_be_bytes()).expect("a bucket") as usize] += 1;
        }
        counts
    }

    #[test]
    fn destinations_get_by_weight_and_few_keys_move() {
        let mut ring = HashRing::default();
        assert_eq!(ring.find(b"a"), None);
        for (destination, weight) in [(0, 1), (1, 1), (2, 2)] {
            ring.insert(10 + destination, destination, weight);
        }
        let [a, b, c, _] = counts(&ring);
        assert!(a.abs_diff(2_500) < 200 && b.abs_diff(2_500) < 200 && c.abs_diff(5_000) < 250, "{a} {b} {c}");
        let before: Vec<_> = (0..10_000u32).map(|key| ring.find(&key.to_be_bytes())).collect();
        ring.insert(13, 3, 1);
        let moved =
            (0..10_000u32).filter(|key| ring.find(&key.to_be_bytes()) != before[*key as usize]).count();
        assert!(moved.abs_diff(2_000) < 200, "{moved}");
    }

    #[test]
    fn a_second_binding_of_a_destination_has_buckets_only_once_the_first_is_gone() {
        let mut ring = HashRing::default();
        ring.insert(1, 0, 1);
        ring.insert(2, 1, 1);
        let before = counts(&ring);
        ring.insert(3, 0, 9);
        assert_eq!(counts(&ring), before);
        ring.remove(1);
        let [a, b, ..] = counts(&ring);
        assert!(a.abs_diff(9_000) < 300 && b > 0, "{a} {b}");
        ring.remove(3);
        assert_eq!(counts(&ring), [0, 10_000, 0, 0]);
    }

    #[test]
    fn weights_are_numbers_from_one_to_ten_thousand() {
        assert_eq!((weight(b"1"), weight(b"10000")), (Some(1), Some(10_000)));
        for wrong in ["", "0", "10001", "-1", "a", "1.5", " 1", "99999999999"] {
            assert_eq!(weight(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
