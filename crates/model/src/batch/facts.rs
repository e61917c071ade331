//! What queues must know of the records of a client's batch.

use super::{BatchRefusal, RecordView, records_paced};
use crate::{Facts, RecordFacts};

/// The most bytes of the stored form of a batch's facts: they stand in its entry, which has room for a megabyte.
pub(super) const MOST_FACTS: usize = 512 << 10;
/// The most of their runs, each of which takes far more in memory than stored.
const MOST_RUNS: usize = 16 << 10;
/// Bytes of memory that a batch's facts take, while they are gathered and grow, at the most.
pub(super) const FACTS_MEMORY: usize = 2 * MOST_RUNS * size_of::<(u32, Facts)>();
/// Records between two calls of `pause`.
const PAUSE: usize = 4096;

/// How a client's record says what a queue must know of it.
#[derive(Debug, Clone, Copy)]
pub struct FactsOf(pub fn(&RecordView<'_>) -> Facts);

impl PartialEq for FactsOf {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for FactsOf {}

impl FactsOf {
    /// Those of a good batch's records, which have so many bytes; `None` where no record says more than its size. `pause` is called now and then.
    ///
    /// # Errors
    /// [`BatchRefusal::Facts`]
    pub(super) fn batch(
        self,
        batch: &[u8],
        bytes: usize,
        pause: &mut dyn FnMut(),
    ) -> Result<Option<RecordFacts>, BatchRefusal> {
        let records = records_paced(batch, bytes, pause)?;
        let mut is_plain = true;
        for (number, record) in records.iter().enumerate() {
            pause_at(number, pause);
            is_plain = (self.0)(&record?).is_plain();
            if !is_plain {
                break;
            }
        }
        if is_plain {
            return Ok(None);
        }
        let (mut all, mut runs, mut stored) = (RecordFacts::new(), 0, 0);
        for (number, record) in records.iter().enumerate() {
            pause_at(number, pause);
            let facts = (self.0)(&record?);
            if all.runs().next_back().is_none_or(|(_, last)| *last != facts) {
                (runs, stored) = (runs + 1, stored + facts.stored_bytes());
            }
            let pushed = all.push(facts);
            if pushed.is_err() || stored > MOST_FACTS || runs > MOST_RUNS {
                return Err(BatchRefusal::Facts);
            }
        }
        Ok(Some(all))
    }
}

fn pause_at(number: usize, pause: &mut dyn FnMut()) {
    if number % PAUSE == PAUSE - 1 {
        pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{
        BatchBuilder, BatchCheck, CheckedBatch, Compression, InlineBudget, LongCheck, RulesOf,
    };
    use crate::{TopicConfig, TopicId};

    const NOW: i64 = 1_700_000_000_000;

    /// A record's first header is its priority.
    fn of(record: &RecordView<'_>) -> Facts {
        let priority = record.headers.into_iter().next().and_then(|header| header.value?.first().copied());
        let size = record.value.map_or(0, <[u8]>::len) as u32;
        Facts { size, priority, ..Facts::default() }
    }

    fn built(codec: Compression, priorities: impl Iterator<Item = Option<u8>>) -> bytes::Bytes {
        let mut builder = BatchBuilder::new(codec);
        for priority in priorities {
            let value = priority.map(|priority| [priority]);
            let header = value.as_ref().map(|value| (b"p".as_slice(), Some(value.as_slice())));
            builder.push(NOW, None, Some(b"abc"), header.as_slice());
        }
        builder.build()
    }

    fn checked(
        batch: bytes::Bytes,
        config: &TopicConfig,
        budget: usize,
    ) -> Result<CheckedBatch, BatchRefusal> {
        let rules = config.batch_rules(RulesOf { topic: TopicId([1; 16]), version: 1 });
        let begun = BatchCheck::begin(batch, rules.with_facts(FactsOf(of)), NOW, &mut InlineBudget(budget))?;
        match begun {
            BatchCheck::Done(batch) => Ok(batch),
            BatchCheck::Long(long) => long.run(LongCheck::limit(&long, usize::MAX), usize::MAX, &mut || {}),
        }
    }

    #[test]
    fn a_queue_is_told_of_a_clients_records_in_every_codec_at_once_or_later() {
        let facts = |priority| Facts { size: 3, priority, ..Facts::default() };
        for codec in Compression::ALL {
            for wanted in std::iter::once(None).chain(Compression::ALL.map(Some)) {
                for budget in [0, 1 << 20] {
                    let config = TopicConfig { compression: wanted, ..TopicConfig::default() };
                    let batch = built(codec, [None, Some(3), Some(3), None].into_iter());
                    let found = checked(batch, &config, budget).unwrap().take_facts().unwrap();
                    let runs: Vec<_> = found.runs().map(|(count, facts)| (count, facts.clone())).collect();
                    assert_eq!(runs, [(1, facts(None)), (2, facts(Some(3))), (1, facts(None))]);
                    let plain = built(codec, [None; 4].into_iter());
                    assert_eq!(checked(plain, &config, budget).unwrap().take_facts(), None);
                }
            }
        }
    }

    #[test]
    fn looking_at_them_pauses_and_takes_no_more_memory_than_is_counted() {
        let most = built(Compression::Lz4, (0..MOST_RUNS).map(|n| Some(n as u8 % 2 + 1)));
        let mut pauses = 0;
        let found = FactsOf(of).batch(&most, 1 << 20, &mut || pauses += 1).unwrap().unwrap();
        assert_eq!(found.runs().count(), MOST_RUNS);
        assert!(pauses >= MOST_RUNS / PAUSE, "{pauses}");
        let more = built(Compression::Lz4, (0..=MOST_RUNS).map(|n| Some(n as u8 % 2 + 1)));
        assert_eq!(FactsOf(of).batch(&more, 1 << 20, &mut || {}), Err(BatchRefusal::Facts));
    }

    #[test]
    fn what_no_entry_has_room_for_is_refused_and_many_alike_are_not_many() {
        let config = TopicConfig { max_message_bytes: 16 << 20, ..TopicConfig::default() };
        let many = |alike: bool| {
            built(Compression::Lz4, (0..200_000).map(move |n| Some(if alike { 1 } else { n as u8 % 2 })))
        };
        let refused = checked(many(false), &config, 0).unwrap_err();
        assert_eq!(refused, BatchRefusal::Facts);
        assert_eq!(checked(many(true), &config, 0).unwrap().take_facts().unwrap().runs().count(), 1);
        assert_eq!(
            checked(built(Compression::Lz4, (0..200_000).map(|_| None)), &config, 0).unwrap().take_facts(),
            None
        );
    }
}
