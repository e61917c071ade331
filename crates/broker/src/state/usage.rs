//! Which partitions have records in which segment of this node's journal.
//!
//! It says where to ask: a segment is dead when none of its partitions has a record left in it.

use sabir_journal::SegmentNo;
use sabir_journal::pages::{PageDecodeError, PageKey, PageValue, Paged};
use sabir_model::PartitionId;

use super::prefixes;
use crate::codec::{Reader, put_len, put_u64};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SegmentKey(SegmentNo);

/// The partitions of every segment.
#[derive(Debug)]
pub(crate) struct SegmentUsage {
    pub(crate) segments: Paged<SegmentKey, IdSet>,
}

impl Default for SegmentUsage {
    fn default() -> Self {
        Self { segments: Paged::new(prefixes::SEGMENT_USAGE) }
    }
}

impl SegmentUsage {
    /// Records of these partitions lie in `segment`.
    pub(crate) fn note(&mut self, segment: SegmentNo, partitions: &[PartitionId]) {
        let known = self.segments.get(&SegmentKey(segment));
        if known.is_some_and(|set| partitions.iter().all(|id| set.contains(*id))) {
            return;
        }
        let set = self.segments.get_or_insert_with(SegmentKey(segment), IdSet::default);
        partitions.iter().for_each(|id| set.insert(*id));
    }

    /// The partitions that may have records in `segment`.
    pub(crate) fn of(&self, segment: SegmentNo) -> Option<&IdSet> {
        self.segments.get(&SegmentKey(segment))
    }

    /// The segment is gone.
    pub(crate) fn forget(&mut self, segment: SegmentNo) {
        self.segments.remove(&SegmentKey(segment));
    }
}

const WORDS: usize = 4;
const SPAN: u64 = WORDS as u64 * 64;

/// A set of partition ids as bits, in spans of 256 ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct IdSet {
    spans: Vec<(u64, [u64; WORDS])>,
}

fn place(id: PartitionId) -> (u64, usize, u64) {
    let bit = id.0 % SPAN;
    (id.0 / SPAN, (bit / 64) as usize, 1 << (bit % 64))
}

impl IdSet {
    pub(crate) fn contains(&self, id: PartitionId) -> bool {
        let (span, word, bit) = place(id);
        let at = self.spans.binary_search_by_key(&span, |(span, _)| *span);
        at.is_ok_and(|at| self.spans[at].1[word] & bit != 0)
    }

    fn insert(&mut self, id: PartitionId) {
        let (span, word, bit) = place(id);
        let at = match self.spans.binary_search_by_key(&span, |(span, _)| *span) {
            Ok(at) => at,
            Err(at) => {
                self.spans.insert(at, (span, [0; WORDS]));
                at
            }
        };
        self.spans[at].1[word] |= bit;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = PartitionId> {
        self.spans.iter().flat_map(|(span, words)| {
            let bits = (0..SPAN).filter(|bit| words[(bit / 64) as usize] >> (bit % 64) & 1 == 1);
            bits.map(move |bit| PartitionId(span * SPAN + bit))
        })
    }
}

impl PageKey for SegmentKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.0.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        let no = bytes.try_into().map_err(|_| PageDecodeError("a segment's key has 8 bytes".into()))?;
        Ok(Self(SegmentNo(u64::from_be_bytes(no))))
    }
}

const FORM: u8 = 1;

impl PageValue for IdSet {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_len(out, self.spans.len());
        for (span, words) in &self.spans {
            put_u64(out, *span);
            words.iter().for_each(|word| put_u64(out, *word));
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        take(bytes).map_err(|error| PageDecodeError(error.to_string()))
    }
}

fn take(bytes: &[u8]) -> Result<IdSet, sabir_model::DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(FORM)?;
    let spans = input.list(1 + WORDS, |input| {
        let span = input.u64()?;
        let mut words = [0; WORDS];
        for word in &mut words {
            *word = input.u64()?;
        }
        Ok((span, words))
    })?;
    input.end()?;
    Ok(IdSet { spans })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_keeps_its_ids_and_its_form() {
        let ids = [0, 1, 63, 64, 255, 256, 1 << 40].map(PartitionId);
        let mut set = IdSet::default();
        ids.iter().rev().for_each(|id| set.insert(*id));
        assert_eq!(set.iter().collect::<Vec<_>>(), ids);
        assert!(!set.contains(PartitionId(2)));
        let mut stored = Vec::new();
        set.encode(&mut stored);
        assert_eq!(IdSet::decode(&stored), Ok(set));
    }

    #[test]
    fn knows_which_partitions_a_segment_has() {
        let mut usage = SegmentUsage::default();
        usage.note(SegmentNo(3), &[PartitionId(1), PartitionId(2)]);
        usage.note(SegmentNo(3), &[PartitionId(2), PartitionId(9)]);
        let of = |usage: &SegmentUsage| usage.of(SegmentNo(3)).map(|set| set.iter().count());
        assert_eq!(of(&usage), Some(3));
        usage.forget(SegmentNo(3));
        assert_eq!(of(&usage), None);
    }
}
