//! What queues must know of the records of a client's batch.

use super::records::records;
use super::{BatchRefusal, RecordView};
use crate::{Facts, RecordFacts};

/// The most bytes of the stored form of a batch's facts: they stand in its entry, which has room for a megabyte.
pub(super) const MOST_FACTS: usize = 512 << 10;

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
    /// Those of a good batch's records, which have so many bytes; `None` where no record says more than its size.
    ///
    /// # Errors
    /// [`BatchRefusal::Facts`]
    pub(super) fn batch(self, batch: &[u8], bytes: usize) -> Result<Option<RecordFacts>, BatchRefusal> {
        let records = records(batch, bytes)?;
        let each = || records.iter().map(|record| record.map(|record| (self.0)(&record)));
        if each().all(|facts| facts.is_ok_and(|facts| facts.is_plain())) {
            return Ok(None);
        }
        let (mut all, mut stored) = (RecordFacts::new(), 0);
        for facts in each() {
            let facts = facts?;
            if all.runs().next_back().is_none_or(|(_, last)| *last != facts) {
                stored += facts.stored_bytes();
            }
            let pushed = all.push(facts);
            if pushed.is_err() || stored > MOST_FACTS {
                return Err(BatchRefusal::Facts { max: MOST_FACTS });
            }
        }
        Ok(Some(all))
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
            BatchCheck::Long(long) => long.run(LongCheck::limit(&long), &mut || {}),
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
    fn what_no_entry_has_room_for_is_refused_and_many_alike_are_not_many() {
        let config = TopicConfig { max_message_bytes: 16 << 20, ..TopicConfig::default() };
        let many = |alike: bool| {
            built(Compression::Lz4, (0..200_000).map(move |n| Some(if alike { 1 } else { n as u8 % 2 })))
        };
        let refused = checked(many(false), &config, 0).unwrap_err();
        assert_eq!(refused, BatchRefusal::Facts { max: MOST_FACTS });
        assert_eq!(checked(many(true), &config, 0).unwrap().take_facts().unwrap().runs().count(), 1);
        assert_eq!(
            checked(built(Compression::Lz4, (0..200_000).map(|_| None)), &config, 0).unwrap().take_facts(),
            None
        );
    }
}
