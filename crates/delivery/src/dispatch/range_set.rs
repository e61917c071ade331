//! A small set of offsets, as ranges that neither touch nor overlap.

use std::collections::BTreeMap;
use std::ops::Range;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The lowest offset.
    pub fn first(&self) -> Option<u64> {
        self.0.first_key_value().map(|(start, _)| *start)
    }

    /// The end of the range that holds an offset.
    pub fn end_of(&self, offset: u64) -> Option<u64> {
        let (_, end) = self.0.range(..=offset).next_back()?;
        (offset < *end).then_some(*end)
    }

    pub fn contains(&self, offset: u64) -> bool {
        self.end_of(offset).is_some()
    }

    pub fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        while let Some((&other, &other_end)) = self.0.range(..=end).next_back() {
            if other_end < start {
                break;
            }
            self.0.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        self.0.insert(start, end);
    }

    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() || self.0.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.0.range(..range.end).next_back() {
            if end <= range.start {
                return;
            }
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if range.end < end {
                self.0.insert(range.end, end);
            }
        }
    }

    /// Tells the parts of a range that are not in it.
    pub fn gaps(&self, range: Range<u64>, mut each: impl FnMut(Range<u64>)) {
        let mut at = range.start;
        while at < range.end {
            let next = self.0.range(at..range.end).next().map_or(range.end, |(start, _)| *start);
            let within = self.end_of(at);
            if within.is_none() && next > at {
                each(at..next);
            }
            at = within.unwrap_or(next).max(at + 1);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// How many offsets there are.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_offsets(steps in vec((any::<bool>(), 0..200u64, 0..40u64), 0..60)) {
            let (mut set, mut naive) = (RangeSet::default(), BTreeSet::new());
            for (insert, from, len) in steps {
                if insert {
                    set.insert(from..from + len);
                    naive.extend(from..from + len);
                } else {
                    set.remove(from..from + len);
                    naive.retain(|o| !(from..from + len).contains(o));
                }
                prop_assert_eq!(set.iter().flatten().collect::<Vec<_>>(), naive.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!((set.first(), set.len()), (naive.first().copied(), naive.len() as u64));
                let (mut gaps, middle) = (Vec::new(), 50..150);
                set.gaps(middle.clone(), |gap| gaps.extend(gap));
                prop_assert_eq!(gaps, middle.filter(|o| !naive.contains(o)).collect::<Vec<_>>());
                prop_assert!(set.0.iter().zip(set.0.keys().skip(1)).all(|((_, end), next)| end < next));
            }
        }
    }
}
