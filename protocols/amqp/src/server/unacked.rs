//! Deliveries of a channel that its client has not settled: runs of tags that stand for runs of messages of one queue.

use std::collections::BTreeMap;
use std::ops::Range;

use sabir_broker::queue::QueueTarget;

/// Messages that were delivered one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivered<T = QueueTarget> {
    /// Their tags.
    pub(super) tags: Range<u64>,
    /// The first one's offset; the others' follow it.
    pub(super) offset: u64,
    /// The queue they are of.
    pub(super) target: T,
    /// The consumer they were delivered to; none if they were got.
    pub(super) consumer: Option<u64>,
}

impl<T: Copy> Delivered<T> {
    /// Their offsets.
    pub(super) fn offsets(&self) -> Range<u64> {
        self.offset..self.offset + self.count()
    }

    pub(super) fn count(&self) -> u64 {
        self.tags.end - self.tags.start
    }

    /// Takes those before `tag` off the front.
    fn split_before(&mut self, tag: u64) -> Self {
        let Self { offset, target, consumer, .. } = *self;
        let before = Self { tags: self.tags.start..tag, offset, target, consumer };
        self.offset += tag - self.tags.start;
        self.tags.start = tag;
        before
    }
}

/// The deliveries that are not settled.
#[derive(Debug)]
pub(super) struct Unacked<T = QueueTarget> {
    /// By their last tag, so that a run which is settled from its front stays where it is.
    runs: BTreeMap<u64, Delivered<T>>,
}

impl<T> Default for Unacked<T> {
    fn default() -> Self {
        Self { runs: BTreeMap::new() }
    }
}

impl<T: Copy + Eq> Unacked<T> {
    /// How many messages were delivered to consumers.
    pub(super) fn delivered(&self) -> u64 {
        self.runs.values().filter(|run| run.consumer.is_some()).map(Delivered::count).sum()
    }

    /// Adds deliveries with tags behind all others.
    pub(super) fn add(&mut self, delivered: Delivered<T>) {
        if let Some(mut last) = self.runs.last_entry() {
            let run = last.get_mut();
            let follows = (run.tags.end, run.offsets().end) == (delivered.tags.start, delivered.offset)
                && (run.target, run.consumer) == (delivered.target, delivered.consumer);
            if follows {
                let mut run = last.remove();
                run.tags.end = delivered.tags.end;
                self.runs.insert(run.tags.end - 1, run);
                return;
            }
        }
        self.runs.insert(delivered.tags.end - 1, delivered);
    }

    /// Puts back what was taken out.
    pub(super) fn put_back(&mut self, delivered: Delivered<T>) {
        self.runs.insert(delivered.tags.end - 1, delivered);
    }

    /// Takes one out.
    pub(super) fn take(&mut self, tag: u64) -> Option<Delivered<T>> {
        let (&last, run) = self.runs.range_mut(tag..).next().filter(|(_, run)| run.tags.contains(&tag))?;
        let before = (run.tags.start < tag).then(|| run.split_before(tag));
        let one = if last == tag { self.runs.remove(&last)? } else { run.split_before(tag + 1) };
        if let Some(before) = before {
            self.runs.insert(tag - 1, before);
        }
        Some(one)
    }

    /// Takes out all up to this tag, which must be there; 0 stands for all there are.
    pub(super) fn take_through(&mut self, tag: u64) -> Option<Vec<Delivered<T>>> {
        if tag == 0 {
            return Some(self.take_all());
        }
        self.runs.range(tag..).next().filter(|(_, run)| run.tags.contains(&tag))?;
        let mut taken = Vec::new();
        while let Some(mut first) = self.runs.first_entry() {
            if first.get().tags.start > tag {
                break;
            }
            let whole = *first.key() <= tag;
            taken.push(if whole { first.remove() } else { first.get_mut().split_before(tag + 1) });
        }
        Some(taken)
    }

    /// Takes all out.
    pub(super) fn take_all(&mut self) -> Vec<Delivered<T>> {
        std::mem::take(&mut self.runs).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use sabir_base::testing::Bits;

    use super::*;

    fn delivered(tags: Range<u64>, offset: u64, target: u8, consumer: u64) -> Delivered<u8> {
        Delivered { tags, offset, target, consumer: Some(consumer) }
    }

    fn offsets(taken: &[Delivered<u8>]) -> Vec<Range<u64>> {
        taken.iter().map(Delivered::offsets).collect()
    }

    #[test]
    fn what_follows_is_one_run_and_is_settled_from_its_front_in_place() {
        let mut unacked = Unacked::default();
        unacked.add(delivered(1..4, 10, 0, 1));
        unacked.add(delivered(4..6, 13, 0, 1));
        assert_eq!(unacked.runs.len(), 1);
        unacked.add(delivered(6..7, 15, 0, 2));
        unacked.add(delivered(7..8, 16, 1, 2));
        unacked.add(delivered(9..10, 18, 1, 2));
        assert_eq!(unacked.runs.len(), 4);
        assert_eq!(unacked.take(1).unwrap().offsets(), 10..11);
        assert_eq!(unacked.take(1), None);
        assert_eq!(unacked.take(8), None, "it was sent without being counted");
        assert_eq!(unacked.take(3).unwrap().offsets(), 12..13);
        assert_eq!(unacked.take_through(3), None, "it is settled");
        assert_eq!(unacked.take_through(8), None);
        assert_eq!(offsets(&unacked.take_through(6).unwrap()), [11..12, 13..15, 15..16]);
        assert_eq!(offsets(&unacked.take_through(0).unwrap()), [16..17, 18..19]);
        assert_eq!(unacked.take_through(0), Some(vec![]));
    }

    #[test]
    fn random_settling_takes_each_message_once_as_a_list_of_them_does() {
        let mut g = Bits(11);
        for _ in 0..200 {
            let (mut unacked, mut list, mut tag, mut offset) = (Unacked::default(), Vec::new(), 1, 0);
            for _ in 0..60 {
                match g.below(4) {
                    0 | 1 => {
                        let (count, target) = (1 + g.below(5), g.below(2) as u8);
                        tag += g.below(2);
                        unacked.add(delivered(tag..tag + count, offset, target, 1));
                        list.extend((0..count).map(|at| (tag + at, offset + at, target)));
                        (tag, offset) = (tag + count, offset + count + g.below(2));
                    }
                    2 => {
                        let one = g.below(tag + 1);
                        let found = list.iter().position(|(tag, ..)| *tag == one).map(|at| list.remove(at));
                        let taken = unacked.take(one);
                        assert_eq!(taken.map(|t| (t.tags.start, t.offset, t.target)), found);
                    }
                    _ => {
                        let to = 1 + g.below(tag);
                        let there = list.iter().any(|(tag, ..)| *tag == to);
                        let taken = unacked.take_through(to);
                        assert_eq!(taken.is_some(), there);
                        let taken = taken.into_iter().flatten();
                        let taken: Vec<_> = taken
                            .flat_map(|t| {
                                t.offsets().map(move |o| (t.tags.start + o - t.offset, o, t.target))
                            })
                            .collect();
                        let before = list.iter().filter(|(tag, ..)| there && *tag <= to);
                        assert_eq!(taken, before.copied().collect::<Vec<_>>());
                        list.retain(|(tag, ..)| !there || *tag > to);
                    }
                }
            }
        }
    }
}
