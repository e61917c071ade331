//! What a topic takes, and why a batch is not taken.

use std::ops::{Range, RangeInclusive};

use super::check::records_outside;
use super::{BatchError, BatchHeader, Compression, FactsOf, RecordSummary};
use crate::{Offset, TimestampType, TopicConfig, TopicId};

/// What a producer says that has an id and no epoch.
const NO_EPOCH: i16 = -1;

/// Why a batch is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchRefusal {
    /// There are no bytes.
    #[error("there is no batch for the partition")]
    Empty,
    /// There is something behind it.
    #[error("there is more than one batch for the partition")]
    SeveralBatches,
    /// It was damaged, or is none.
    #[error(transparent)]
    Malformed(#[from] BatchError),
    /// It is for brokers to write.
    #[error("only brokers write control batches")]
    Control,
    /// It belongs to a transaction, and there are none.
    #[error("transactions are not served")]
    Transactional,
    /// An epoch that no producer has.
    #[error("the producer's epoch is {0}")]
    ProducerEpoch(i16),
    /// It has more bytes than its topic takes.
    #[error("the batch has {size} bytes, the topic takes {max}")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// What the topic takes.
        max: u32,
    },
    /// The topic keeps it uncompressed, and it has more bytes so than the topic takes.
    #[error("the topic takes {max} bytes uncompressed, the batch has more")]
    TooLargeUncompressed {
        /// What the topic takes.
        max: u32,
    },
    /// In the codec that its topic wants it has more bytes than the topic takes, or than there is memory for.
    #[error("in the topic's codec the batch has more than the {most} bytes that are taken here")]
    TooLargeAnew {
        /// What is taken.
        most: usize,
    },
    /// A record's time is too far from the clock.
    #[error("the records' times {oldest} to {newest} are not within {from} to {to}")]
    Time {
        /// The smallest of them.
        oldest: i64,
        /// The largest.
        newest: i64,
        /// The smallest that the topic takes now.
        from: i64,
        /// The largest.
        to: i64,
        /// The places in the batch of those whose times they are, as runs; of the first runs alone if they are many, and of none in a
        /// batch that was built here.
        records: Vec<Range<u32>>,
    },
    /// It says that a broker has stamped it.
    #[error("only brokers mark batches as stamped by them")]
    Stamped,
    /// What a queue would have to know of its records is too much for one entry.
    #[error(
        "too many of its records say something else of themselves than the one before (priority, expiry): send smaller batches"
    )]
    Facts,
    /// The check itself failed.
    #[error("the broker failed to look at the batch")]
    Failed,
}

impl BatchRefusal {
    /// Whether the batch's bytes are damaged or make no sense.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Empty | Self::SeveralBatches | Self::Malformed(_) | Self::Control)
    }

    /// Names the records of this batch, good but for their times, that it is for.
    pub(super) fn naming(mut self, batch: &[u8], limit: usize, pause: &mut dyn FnMut()) -> Self {
        if let Self::Time { from, to, records, .. } = &mut self {
            *records = records_outside(batch, limit, *from..=*to, pause);
        }
        self
    }

    /// Whether it is for the limit alone that was given to [`LongCheck::run`](super::LongCheck::run).
    pub fn exceeds(&self) -> bool {
        let Self::Malformed(error) = self else { return false };
        matches!(error, BatchError::TooLarge { .. } | BatchError::Field { field: "record count", .. })
    }
}

/// Whose rules a batch was checked by: a topic's, as one change of it left them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RulesOf {
    /// The topic.
    pub topic: TopicId,
    /// Its version.
    pub version: u64,
}

/// What a topic takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRules {
    pub(super) of: RulesOf,
    pub(super) max_bytes: u32,
    pub(super) codec: Option<(Compression, Option<i32>)>,
    timestamp_type: TimestampType,
    before_max_ms: i64,
    after_max_ms: i64,
    /// What is looked for in records.
    pub(super) facts: Option<FactsOf>,
}

impl TopicConfig {
    /// What batches for the topic of this configuration must be.
    pub fn batch_rules(&self, of: RulesOf) -> BatchRules {
        BatchRules {
            of,
            max_bytes: self.max_message_bytes,
            codec: self.compression.map(|codec| (codec, self.level(codec))),
            timestamp_type: self.timestamp_type,
            before_max_ms: self.timestamp_before_max_ms,
            after_max_ms: self.timestamp_after_max_ms,
            facts: None,
        }
    }
}

impl BatchRules {
    /// The largest batch, in bytes.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes as usize
    }

    /// The same for a queue, which has to know so much of each record of a client's batch.
    pub fn with_facts(self, facts: FactsOf) -> Self {
        Self { facts: Some(facts), ..self }
    }

    /// Whether batches are to be in a codec of the topic's.
    pub fn is_compressed(&self) -> bool {
        self.codec.is_some_and(|(codec, _)| codec != Compression::None)
    }

    /// Whose rules they are.
    pub fn whose(&self) -> RulesOf {
        self.of
    }

    /// What a batch must be to be taken by these topics and by another one. `None` if they want different codecs, which no batch has.
    pub fn and(&self, other: &Self, of: RulesOf) -> Option<Self> {
        let codec = match (self.codec, other.codec) {
            (Some((own, _)), Some((others, _))) if own != others => return None,
            (own, others) => own.or(others),
        };
        // The times of a batch mean nothing to a topic that stamps it.
        let (own, others) = (self.bounds(), other.bounds());
        let (before_max_ms, after_max_ms) = (own.0.min(others.0), own.1.min(others.1));
        let both_stamp =
            [self, other].iter().all(|rules| rules.timestamp_type == TimestampType::LogAppendTime);
        let timestamp_type =
            if both_stamp { TimestampType::LogAppendTime } else { TimestampType::CreateTime };
        let max_bytes = self.max_bytes.min(other.max_bytes);
        Some(Self { of, max_bytes, codec, timestamp_type, before_max_ms, after_max_ms, facts: None })
    }

    /// Whether what was refused by these rules [together](Self::and) with others' is refused by these.
    pub fn refuse_of(&self, together: &Self, refusal: &BatchRefusal) -> bool {
        match refusal {
            BatchRefusal::TooLarge { max, .. } | BatchRefusal::TooLargeUncompressed { max } => {
                self.max_bytes == *max
            }
            BatchRefusal::Time { oldest, newest, from, to, .. } => {
                let (own, of_all) = (self.bounds(), together.bounds());
                let times = [*oldest, *newest];
                let is_early = times.iter().any(|time| *time != -1 && time < from);
                let is_late = times.iter().any(|time| time > to);
                is_early && own.0 == of_all.0 || is_late && own.1 == of_all.1
            }
            _ => false,
        }
    }

    /// How far times may lie before and after the clock's.
    fn bounds(&self) -> (i64, i64) {
        match self.timestamp_type {
            TimestampType::LogAppendTime => (i64::MAX, i64::MAX),
            TimestampType::CreateTime => (self.before_max_ms, self.after_max_ms),
        }
    }

    pub(super) fn check_size(&self, batch: &[u8]) -> Result<(), BatchRefusal> {
        let (size, max) = (batch.len(), self.max_bytes);
        if size <= max as usize { Ok(()) } else { Err(BatchRefusal::TooLarge { size, max }) }
    }

    /// A topic whose records are stamped takes none that say they are; elsewhere the mark is taken off.
    pub(super) fn check_stamped(&self, header: &BatchHeader) -> Result<(), BatchRefusal> {
        let stamps = self.timestamp_type == TimestampType::LogAppendTime;
        if stamps && header.timestamp_type() == TimestampType::LogAppendTime {
            return Err(BatchRefusal::Stamped);
        }
        Ok(())
    }

    pub(super) fn check_time(&self, found: &RecordSummary, now_ms: i64) -> Result<(), BatchRefusal> {
        if self.timestamp_type == TimestampType::LogAppendTime {
            return Ok(());
        }
        let from = now_ms.saturating_sub(self.before_max_ms);
        let to = now_ms.saturating_add(self.after_max_ms);
        if is_outside(&(from..=to), found.oldest) || is_outside(&(from..=to), found.newest) {
            let &RecordSummary { oldest, newest, .. } = found;
            return Err(BatchRefusal::Time { oldest, newest, from, to, records: Vec::new() });
        }
        Ok(())
    }
}

/// A record without a time carries -1; other negative times are times.
pub(super) fn is_outside(bounds: &RangeInclusive<i64>, time: i64) -> bool {
    time != -1 && !bounds.contains(&time)
}

impl BatchHeader {
    /// What a header must say for its batch to be appended, whether a client or a front end built it: what an entry says of it is made from this.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check_appendable(&self) -> Result<(), BatchRefusal> {
        if self.base_offset != Offset::ZERO {
            return Err(BatchError::Field { field: "base offset", value: self.base_offset.0 }.into());
        }
        self.check_produced()?;
        if self.is_transactional() {
            return Err(BatchRefusal::Transactional);
        }
        if self.is_control() {
            return Err(BatchRefusal::Control);
        }
        if self.producer_id.known().is_some() && self.producer_epoch < NO_EPOCH {
            return Err(BatchRefusal::ProducerEpoch(self.producer_epoch));
        }
        Ok(())
    }
}
