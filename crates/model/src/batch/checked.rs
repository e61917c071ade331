//! The check of what is appended: the only way to a batch that the log takes.

use bytes::Bytes;

use super::check::{check_records_within, window_log};
use super::compress::{Effort, PIECE};
use super::facts::FACTS_MEMORY;
use super::inline::{by_byte, cheap_level, decompressed, is_dear, least, recompressed};
use super::recompress::{Anew, recompress};
use super::{
    BatchBuilder, BatchError, BatchHeader, BatchRefusal, BatchRules, Compression, HEADER_LEN, InlineBudget,
    RecordSummary, RulesOf, check_records, lz4, rewrite_header, verify_crc,
};
use crate::{RecordFacts, TimestampType};

/// The most bytes that are decompressed to look at a batch's records.
const WALK_LIMIT: usize = 128 << 20;
/// The most bytes that are given another codec: so many, or four times what the topic takes if that is more.
const RECOMPRESS_LIMIT: usize = 32 << 20;
/// A batch of which no more comes out is done within some milliseconds.
pub const SMALL_LIMIT: usize = CheckCost::SMALL;
/// What a batch takes is tried to be no more than these, one after the other. The unit takes some eight nanoseconds: to decompress a byte.
const WORK: [usize; 5] =
    [CheckCost::SMALL, CheckCost::MODEST, CheckCost::MEDIUM, CheckCost::LARGE, 4 * CheckCost::LARGE];
/// What it takes to decompress a piece at a time, beside the window.
const STREAMED: usize = 512 << 10;
/// Four bytes of a Zstandard frame say so many.
const ZSTD_BLOCK: usize = 128 << 10;
/// Bytes that are given another codec at once.
const INLINE_RECOMPRESS: u64 = 16 << 10;

/// One v2 batch, whole and alone, whose header, CRC and records were checked, in the codec and with the times that its topic wants. It
/// is for that topic alone, as it was then, and is made by its check or [built](BatchBuilder::build_checked) for the topic.
#[derive(Debug, Clone)]
pub struct CheckedBatch {
    bytes: Bytes,
    header: BatchHeader,
    of: RulesOf,
    facts: Option<Box<RecordFacts>>,
}

impl CheckedBatch {
    /// A batch that has not been looked at, as if it had been checked by these rules: what journals of earlier versions may hold.
    ///
    /// # Errors
    /// It has no header.
    #[cfg(any(test, feature = "testing"))]
    pub fn unchecked(bytes: Bytes, of: RulesOf) -> Result<Self, BatchRefusal> {
        let header = BatchHeader::parse(&bytes)?;
        Ok(Self { bytes, header, of, facts: None })
    }

    /// The same in memory of its own: its bytes may be a part of a buffer that is wanted elsewhere.
    pub fn detach(&mut self) {
        self.bytes = Bytes::copy_from_slice(&self.bytes);
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Whose rules it was checked by.
    pub fn rules_of(&self) -> RulesOf {
        self.of
    }

    /// What a queue must know of its records, if [that](BatchRules::with_facts) was asked for and they say something of it.
    pub fn take_facts(&mut self) -> Option<Box<RecordFacts>> {
        self.facts.take()
    }

    /// A batch with the largest time that its records have and as one whose times are its producer's. Nearly all come so.
    fn settle(
        bytes: Bytes,
        mut header: BatchHeader,
        of: RulesOf,
        found: &RecordSummary,
    ) -> Result<Self, BatchRefusal> {
        if header.max_timestamp == found.newest && header.timestamp_type() == TimestampType::CreateTime {
            return Ok(Self { bytes, header, of, facts: None });
        }
        header.max_timestamp = found.newest;
        header.set_create_time();
        let mut bytes = bytes.to_vec();
        rewrite_header(&mut bytes, &mut header)?;
        Ok(Self { bytes: Bytes::from(bytes), header, of, facts: None })
    }
}

impl BatchBuilder {
    /// Bytes up to which a batch is compressed as it is built: the builder may be on an I/O thread.
    pub const COMPRESSED: usize = 32 << 10;

    /// [Builds](Self::build) a batch for a topic with such rules, at that time, in the codec that the topic wants, unless it is larger than
    /// [`COMPRESSED`](Self::COMPRESSED). The level is the topic's, or gzip's 6 and zstd's 3 if that is higher.
    /// All is checked that is checked of a client's batch, but for its records, which stand as they were pushed.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn build_checked(self, rules: &BatchRules, now_ms: i64) -> Result<CheckedBatch, BatchRefusal> {
        self.build_within(rules, now_ms, &mut InlineBudget(usize::MAX))
    }

    /// The same of one of several batches, which are compressed as far as the budget does for that.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn build_within(
        self,
        rules: &BatchRules,
        now_ms: i64,
        budget: &mut InlineBudget,
    ) -> Result<CheckedBatch, BatchRefusal> {
        let found = self.summary();
        let work = recompressed(self.bytes() as u64);
        let is_cheap = |(codec, _): &(Compression, _)| {
            *codec == Compression::None || self.bytes() <= Self::COMPRESSED && budget.covers(work)
        };
        let bytes = match rules.codec.filter(is_cheap) {
            Some((codec, level)) => {
                if codec != Compression::None {
                    budget.spend(work);
                }
                self.build_with(codec, cheap_level(codec, level))
            }
            None => self.build(),
        };
        let header = check_header(&bytes, rules)?;
        header.check_appendable()?;
        rules.check_stamped(&header)?;
        rules.check_time(&found, now_ms)?;
        CheckedBatch::settle(bytes, header, rules.of, &found)
    }
}

/// What has become of a check.
#[derive(Debug)]
pub enum BatchCheck {
    /// The batch is good.
    Done(CheckedBatch),
    /// Looking at its records takes longer.
    Long(LongCheck),
}

impl BatchCheck {
    /// Begins to check what is to be appended to a topic with such rules, at that time: exactly one v2 batch.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn begin(
        bytes: Bytes,
        rules: BatchRules,
        now_ms: i64,
        budget: &mut InlineBudget,
    ) -> Result<Self, BatchRefusal> {
        let header = check_header(&bytes, &rules)?;
        verify_crc(&bytes)?;
        header.check_appendable()?;
        rules.check_stamped(&header)?;
        let long = LongCheck { batch: bytes, header, rules, now_ms };
        match long.at_once(budget)? {
            Some(found) => long.end_at_once(&found, budget),
            None => Ok(Self::Long(long)),
        }
    }

    /// The batch's header.
    pub fn header(&self) -> &BatchHeader {
        match self {
            Self::Done(batch) => &batch.header,
            Self::Long(long) => &long.header,
        }
    }
}

/// A batch whose records are still to be looked at, for as long as that takes.
#[derive(Debug)]
pub struct LongCheck {
    batch: Bytes,
    header: BatchHeader,
    rules: BatchRules,
    now_ms: i64,
}

/// What a [`LongCheck`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckCost {
    /// Bytes of memory, at the most.
    pub bytes: usize,
    /// Work, at the most, in units that take some eight nanoseconds.
    pub work: usize,
}

impl CheckCost {
    /// The work of some milliseconds.
    pub const SMALL: usize = 1 << 20;
    /// That of up to some tens of them.
    pub const MODEST: usize = 4 << 20;
    /// That of a hundred or so.
    pub const MEDIUM: usize = 16 << 20;
    /// That of a second.
    pub const LARGE: usize = 128 << 20;
}

impl LongCheck {
    /// Looks at the records, if the budget does for that; whatever comes of it, the budget has paid.
    fn at_once(&self, budget: &mut InlineBudget) -> Result<Option<RecordSummary>, BatchRefusal> {
        let least = least(&self.batch, &self.header);
        if !budget.covers(least) {
            return Ok(None);
        }
        let codec = self.header.compression()?;
        if codec == Compression::None {
            budget.spend(least);
            return Ok(Some(check_records(&self.batch, WALK_LIMIT, &mut || {})?));
        }
        let limit = budget.limit();
        match check_records(&self.batch, limit, &mut || {}) {
            Ok(found) => {
                budget.spend(decompressed(codec, &self.batch, found.bytes));
                Ok(Some(found))
            }
            Err(error) => {
                budget.spend(decompressed(codec, &self.batch, limit as u64));
                if matches!(error, BatchError::TooLarge { .. }) { Ok(None) } else { Err(error.into()) }
            }
        }
    }

    /// Ends a check whose records were looked at within the budget.
    fn end_at_once(
        self,
        found: &RecordSummary,
        budget: &mut InlineBudget,
    ) -> Result<BatchCheck, BatchRefusal> {
        if let Err(refusal) = self.rules.check_time(found, self.now_ms) {
            budget.spend(decompressed(self.header.compression()?, &self.batch, found.bytes));
            return Err(refusal.naming(&self.batch, found.bytes as usize, &mut || {}));
        }
        if self.rules.facts.is_some() {
            budget.spend(decompressed(self.header.compression()?, &self.batch, found.bytes));
        }
        let Some((codec, level)) = self.wanted_codec() else {
            return self.settle(found, &mut || {}).map(BatchCheck::Done);
        };
        let work = recompressed(found.bytes);
        if found.bytes > INLINE_RECOMPRESS || is_dear(codec, level) || !budget.covers(work) {
            return Ok(BatchCheck::Long(self));
        }
        budget.spend(work);
        self.recompress(found, usize::MAX, &mut || {}).map(BatchCheck::Done)
    }

    /// The codec that the topic wants and the batch has not.
    fn wanted_codec(&self) -> Option<(Compression, Option<i32>)> {
        self.rules.codec.filter(|(codec, _)| self.header.compression() != Ok(*codec))
    }

    /// The batch's bytes, as they came.
    pub fn bytes(&self) -> usize {
        self.batch.len()
    }

    /// How many bytes are decompressed at the most, where a check may take so much memory.
    pub fn limit(&self, memory: usize) -> usize {
        let max = self.rules.max_bytes as usize;
        let limit = match self.wanted_codec() {
            None => WALK_LIMIT,
            // What is larger would be refused in any case.
            Some((Compression::None, _)) => WALK_LIMIT.min(max),
            Some(_) => RECOMPRESS_LIMIT.max(4 * max).min(WALK_LIMIT),
        };
        if self.is_held() { limit.min(memory) } else { limit }
    }

    /// Whether what is decompressed is in memory as a whole at some time.
    fn is_held(&self) -> bool {
        match self.header.compression() {
            Ok(Compression::Snappy) => true,
            Ok(Compression::None) => false,
            _ => self.rules.facts.is_some(),
        }
    }

    /// What becomes of the batch in another codec, where a check may take so much memory. No more bytes come of it than its topic takes, or than
    /// half of the memory and than it came with.
    fn anew(&self, codec: Compression, level: Option<i32>, memory: usize) -> Anew {
        let most = (memory / 2).max(self.batch.len()).min(self.rules.max_bytes as usize);
        Anew { codec, effort: Effort { level, memory: memory / 4 * 3 }, most, memory }
    }

    /// The work that each byte takes.
    fn work_by_byte(&self) -> usize {
        let looked_at = 1 + usize::from(self.rules.facts.is_some());
        self.wanted_codec().map_or(looked_at, |(codec, level)| by_byte(codec, level).max(looked_at))
    }

    /// Lower limits, by which most batches are done with little memory: they are to be tried first, in this order. A caller that exceeds one has
    /// proved to take long; one that is larger as it came needs no trying.
    pub fn lower_limits(&self, memory: usize) -> impl Iterator<Item = usize> + use<> {
        let (by_byte, least, most) = (self.work_by_byte(), self.batch.len() - HEADER_LEN, self.limit(memory));
        WORK.into_iter().map(move |work| work / by_byte).filter(move |lower| (least..most).contains(lower))
    }

    /// The limit within which it is to be tried when `tried` was too low, or first of all.
    pub fn limit_after(&self, tried: usize, memory: usize) -> usize {
        self.lower_limits(memory).find(|lower| *lower > tried).unwrap_or(self.limit(memory))
    }

    /// What it takes to [run](Self::run) it with a limit, within so much memory.
    pub fn cost(&self, limit: usize, memory: usize) -> CheckCost {
        // In snappy three bytes say 64 at the most; a Zstandard window is as large as its frame says, and filled by what is in it.
        let len = self.batch.len() - HEADER_LEN;
        let walked = match self.header.compression() {
            Ok(Compression::Snappy) => (22 * len).min(limit),
            Ok(Compression::Lz4) => lz4::memory(len),
            Ok(Compression::Zstd) => {
                limit.min(STREAMED + (len / 4 * ZSTD_BLOCK).min(1 << window_log(memory)))
            }
            _ => STREAMED,
        };
        let bytes = match self.wanted_codec() {
            None => walked,
            Some((codec, level)) => {
                let anew = self.anew(codec, level, memory);
                walked + PIECE + codec.encoder_memory(anew.effort, limit) + anew.most.min(limit)
            }
        };
        // They are looked at once more, decompressed whole.
        let looked_at = if self.is_held() { limit } else { 0 };
        let bytes = if self.rules.facts.is_some() { bytes.max(looked_at) + FACTS_MEMORY } else { bytes };
        CheckCost { bytes, work: limit.saturating_mul(self.work_by_byte()) }
    }

    /// Checks the records, of which no more than `limit` bytes are decompressed, within so much memory, in bytes: what would take more is refused,
    /// and a level that would is done as well as can be. `pause` is called now and then.
    ///
    /// # Errors
    /// Why the batch is not taken; [`BatchRefusal::exceeds`] tells whether a higher limit may do.
    pub fn run(
        &self,
        limit: usize,
        memory: usize,
        pause: &mut dyn FnMut(),
    ) -> Result<CheckedBatch, BatchRefusal> {
        let found = check_records_within(&self.batch, limit, memory, pause);
        let found = found.map_err(|error| self.refusal(error, limit, memory))?;
        let timed = self.rules.check_time(&found, self.now_ms);
        timed.map_err(|refusal| refusal.naming(&self.batch, limit, pause))?;
        match self.wanted_codec() {
            Some(_) => self.recompress(&found, memory, pause),
            None => self.settle(&found, pause),
        }
    }

    /// What an error comes to where the limit is the topic's.
    fn refusal(&self, error: BatchError, limit: usize, memory: usize) -> BatchRefusal {
        match (error, self.wanted_codec()) {
            (BatchError::TooLarge { .. }, Some((Compression::None, _))) if limit == self.limit(memory) => {
                BatchRefusal::TooLargeUncompressed { max: self.rules.max_bytes }
            }
            (error, _) => error.into(),
        }
    }

    /// The batch under the codec that its topic wants.
    fn recompress(
        &self,
        found: &RecordSummary,
        memory: usize,
        pause: &mut dyn FnMut(),
    ) -> Result<CheckedBatch, BatchRefusal> {
        let Some((codec, level)) = self.wanted_codec() else { return self.settle(found, pause) };
        let max = self.rules.max_bytes;
        if codec == Compression::None && found.bytes > u64::from(max) {
            return Err(BatchRefusal::TooLargeUncompressed { max });
        }
        let anew = self.anew(codec, level, memory);
        let batch = recompress(&self.batch, found.bytes as usize, anew, pause)?;
        let batch = batch.ok_or(BatchRefusal::TooLargeAnew { most: anew.most })?;
        let header = BatchHeader::parse(&batch)?;
        let facts = self.facts(found, pause)?;
        Ok(CheckedBatch { facts, ..CheckedBatch::settle(batch, header, self.rules.of, found)? })
    }

    fn settle(&self, found: &RecordSummary, pause: &mut dyn FnMut()) -> Result<CheckedBatch, BatchRefusal> {
        let facts = self.facts(found, pause)?;
        let settled = CheckedBatch::settle(self.batch.clone(), self.header, self.rules.of, found)?;
        Ok(CheckedBatch { facts, ..settled })
    }

    /// What a queue must know of the records, if something is.
    fn facts(
        &self,
        found: &RecordSummary,
        pause: &mut dyn FnMut(),
    ) -> Result<Option<Box<RecordFacts>>, BatchRefusal> {
        let Some(of) = self.rules.facts else { return Ok(None) };
        Ok(of.batch(&self.batch, found.bytes as usize, pause)?.map(Box::new))
    }
}

/// Checks what stands before the records, but for the CRC.
fn check_header(bytes: &[u8], rules: &BatchRules) -> Result<BatchHeader, BatchRefusal> {
    if bytes.is_empty() {
        return Err(BatchRefusal::Empty);
    }
    let header = BatchHeader::parse(bytes)?;
    if header.total_len() < bytes.len() {
        return Err(BatchRefusal::SeveralBatches);
    }
    rules.check_size(bytes)?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::FactsOf;
    use crate::{Facts, ProducerId, TopicConfig, TopicId};

    const NOW: i64 = 1_700_000_000_000;
    /// What a check may take on a machine with enough of it.
    const MEMORY: usize = 128 << 20;

    fn rules(config: &TopicConfig) -> BatchRules {
        config.batch_rules(RulesOf { topic: TopicId([1; 16]), version: 1 })
    }

    fn builder(codec: Compression) -> BatchBuilder {
        let mut builder = BatchBuilder::new(codec);
        builder.push(NOW, None, Some(&[7; 20]), &[]);
        builder
    }

    fn begin(bytes: &Bytes, config: &TopicConfig, budget: &mut InlineBudget) -> BatchCheck {
        BatchCheck::begin(bytes.clone(), rules(config), NOW, budget).unwrap()
    }

    #[test]
    fn what_is_built_here_is_held_to_what_a_clients_batch_is_held_to() {
        type Build = fn(BatchBuilder) -> BatchBuilder;
        let cases: [(Build, Option<BatchRefusal>); 6] = [
            (|b| b, None),
            (|b| b.producer(ProducerId(7), -1, 3), None),
            (|b| b.control(), Some(BatchRefusal::Control)),
            (|b| b.transactional(), Some(BatchRefusal::Transactional)),
            (|b| b.producer(ProducerId(7), -2, 0), Some(BatchRefusal::ProducerEpoch(-2))),
            (
                |b| b.producer(ProducerId(7), 0, -1),
                Some(BatchError::Field { field: "base sequence", value: -1 }.into()),
            ),
        ];
        for (build, expected) in cases {
            let config = TopicConfig::default();
            let built = build(builder(Compression::None)).build_checked(&rules(&config), NOW);
            assert_eq!(built.as_ref().err(), expected.as_ref());
            let bytes = build(builder(Compression::None)).build();
            let came = BatchCheck::begin(bytes, rules(&config), NOW, &mut InlineBudget::default());
            assert_eq!(came.as_ref().err(), expected.as_ref());
        }
        let mut gap = builder(Compression::None);
        gap.cover(5);
        assert!(gap.build_checked(&rules(&TopicConfig::default()), NOW).is_err());
        let config = TopicConfig { timestamp_before_max_ms: 10, ..TopicConfig::default() };
        let late = builder(Compression::None).build_checked(&rules(&config), NOW + 11);
        assert!(matches!(late, Err(BatchRefusal::Time { .. })));
        let config = TopicConfig { max_message_bytes: 80, ..TopicConfig::default() };
        let large = builder(Compression::None).build_checked(&rules(&config), NOW);
        assert!(matches!(large, Err(BatchRefusal::TooLarge { .. })));
        let config = TopicConfig { compression: Some(Compression::Lz4), ..TopicConfig::default() };
        let batch = builder(Compression::None).build_checked(&rules(&config), NOW).unwrap();
        assert_eq!(batch.header().compression(), Ok(Compression::Lz4));
        assert!(matches!(begin(batch.bytes(), &config, &mut InlineBudget::default()), BatchCheck::Done(_)));
        let mut large = builder(Compression::None);
        large.push(1, None, Some(&[7; BatchBuilder::COMPRESSED]), &[]);
        let batch = large.build_checked(&rules(&config), NOW).unwrap();
        assert_eq!(batch.header().compression(), Ok(Compression::None));
    }

    #[test]
    fn what_is_built_here_takes_no_dear_level_and_not_more_than_the_budget() {
        let filled = |bytes: usize| {
            let text: Vec<u8> = (0..bytes as u32).map(|i| (i.wrapping_mul(i) >> 11) as u8 & 7).collect();
            let mut filled = BatchBuilder::new(Compression::None);
            filled.push(NOW, None, Some(&text), &[]);
            filled
        };
        let config = |codec, level| TopicConfig {
            compression: Some(codec),
            gzip_level: level,
            zstd_level: level,
            ..TopicConfig::default()
        };
        for (codec, dear, cheap) in [
            (Compression::Zstd, 22, 3),
            (Compression::Zstd, 1, 1),
            (Compression::Gzip, 9, 6),
            (Compression::Gzip, 2, 2),
        ] {
            let rules = rules(&config(codec, dear));
            let built = filled(20_000).build_checked(&rules, NOW).unwrap();
            assert_eq!(built.bytes(), &filled(20_000).build_with(codec, Some(cheap)), "{codec} {dear}");
        }
        for codec in Compression::ALL {
            let (rules, mut budget) = (rules(&config(codec, 1)), InlineBudget::default());
            let mut codec_of = || {
                let built = filled(20_000).build_within(&rules, NOW, &mut budget).unwrap();
                built.header().compression().unwrap()
            };
            assert_eq!([codec_of(), codec_of()], [codec, Compression::None], "{codec}");
        }
    }

    #[test]
    fn a_request_of_many_small_batches_has_the_most_of_them_looked_at_elsewhere() {
        for codec in Compression::ALL {
            let (bytes, config) = (builder(codec).build(), TopicConfig::default());
            let mut budget = InlineBudget::default();
            let at_once = (0..40_000)
                .filter(|_| matches!(begin(&bytes, &config, &mut budget), BatchCheck::Done(_)))
                .count();
            let most = if codec == Compression::None { 8192 } else { 512 };
            assert!((most / 4..=most).contains(&at_once), "{codec}: {at_once}");
        }
    }

    #[test]
    fn a_batch_that_is_refused_has_been_paid_for() {
        for codec in Compression::ALL {
            let mut bytes = builder(codec).build().to_vec();
            bytes[57..61].copy_from_slice(&2i32.to_be_bytes());
            bytes[23..27].copy_from_slice(&1i32.to_be_bytes());
            let mut header = BatchHeader::parse(&bytes).unwrap();
            rewrite_header(&mut bytes, &mut header).unwrap();
            let mut budget = InlineBudget::default();
            let rules = rules(&TopicConfig::default());
            assert!(BatchCheck::begin(bytes.into(), rules, NOW, &mut budget).is_err());
            assert!(budget.0 < InlineBudget::default().0, "{codec}");
        }
    }

    #[test]
    fn lz4_blocks_that_refer_to_each_other_are_refused_whatever_becomes_of_them() {
        let plain = builder(Compression::None).build();
        let info = lz4_flex::frame::FrameInfo::new().block_mode(lz4_flex::frame::BlockMode::Linked);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, plain[..HEADER_LEN].to_vec());
        std::io::Write::write_all(&mut encoder, &plain[HEADER_LEN..]).unwrap();
        let mut bytes = encoder.finish().unwrap();
        let mut header = BatchHeader::parse(&plain).unwrap();
        header.attributes |= Compression::Lz4 as i16;
        header.length = (bytes.len() - 12) as i32;
        rewrite_header(&mut bytes, &mut header).unwrap();
        let bytes = Bytes::from(bytes);
        let refused = BatchRefusal::from(BatchError::Decompress(Compression::Lz4));
        for compression in [None, Some(Compression::None), Some(Compression::Lz4), Some(Compression::Gzip)] {
            for timestamp_type in [TimestampType::CreateTime, TimestampType::LogAppendTime] {
                let config = TopicConfig { compression, timestamp_type, ..TopicConfig::default() };
                let begin = |mut budget| BatchCheck::begin(bytes.clone(), rules(&config), NOW, &mut budget);
                assert_eq!(begin(InlineBudget::default()).err().as_ref(), Some(&refused), "{config:?}");
                let Ok(BatchCheck::Long(long)) = begin(InlineBudget(0)) else { panic!("it is for workers") };
                assert_eq!(
                    long.run(long.limit(MEMORY), MEMORY, &mut || {}).err().as_ref(),
                    Some(&refused),
                    "{config:?}"
                );
            }
        }
    }

    #[test]
    fn to_be_given_another_codec_takes_of_the_budget_too() {
        for codec in Compression::ALL.into_iter().skip(1) {
            let config = TopicConfig { compression: Some(codec), ..TopicConfig::default() };
            let (bytes, mut budget) = (builder(Compression::None).build(), InlineBudget::default());
            let at_once = (0..1000)
                .filter(|_| matches!(begin(&bytes, &config, &mut budget), BatchCheck::Done(_)))
                .count();
            assert!((20..=64).contains(&at_once), "{codec}: {at_once}");
        }
    }

    #[test]
    fn records_whose_times_are_out_of_bounds_are_named() {
        let config = TopicConfig { timestamp_after_max_ms: 1000, ..TopicConfig::default() };
        let late = |index: u32| index == 3 || (10..14).contains(&index) || (index > 100 && index % 2 == 1);
        for codec in Compression::ALL {
            let mut builder = BatchBuilder::new(codec);
            (0..200).for_each(|i| builder.push(NOW + i64::from(late(i)) * 1001, None, Some(b"v"), &[]));
            let bytes = builder.build();
            let begin = |mut budget| BatchCheck::begin(bytes.clone(), rules(&config), NOW, &mut budget);
            let Ok(BatchCheck::Long(long)) = begin(InlineBudget(0)) else { panic!("it is for workers") };
            let at_once = begin(InlineBudget::default()).err();
            for refusal in [at_once, long.run(long.limit(MEMORY), MEMORY, &mut || {}).err()] {
                let Some(BatchRefusal::Time { records, .. }) = refusal else {
                    panic!("{codec}: {refusal:?}")
                };
                assert_eq!(records[..3], [3..4, 10..14, 101..102], "{codec}");
                assert_eq!(records.len(), 16, "{codec}: no more than are told of");
            }
        }
    }

    #[test]
    fn memory_is_counted_by_what_a_frame_can_hold() {
        let cost = |codec, len: usize| {
            let mut large = builder(codec).build().to_vec();
            large.resize(HEADER_LEN + len, 0);
            let header =
                BatchHeader { length: (large.len() - 12) as i32, ..BatchHeader::parse(&large).unwrap() };
            let rules = rules(&TopicConfig::default());
            LongCheck { batch: large.into(), header, rules, now_ms: NOW }.cost(WALK_LIMIT, MEMORY).bytes
        };
        assert!(cost(Compression::Lz4, 1 << 20) >= 4 << 20, "a block of four megabytes and its window");
        assert_eq!(cost(Compression::Zstd, 1 << 20), WALK_LIMIT);
        for codec in Compression::ALL {
            assert!(cost(codec, 60) <= 4 << 20, "{codec}: such small ones go together");
        }
    }

    /// The check of a small batch under a codec, for a topic that wants another one.
    fn to_be_made_anew(from: Compression, to: Compression, level: i32, max: u32) -> LongCheck {
        let config = TopicConfig {
            compression: Some(to),
            gzip_level: level,
            zstd_level: level,
            max_message_bytes: max,
            ..TopicConfig::default()
        };
        let batch = builder(from).build();
        let header = BatchHeader::parse(&batch).unwrap();
        LongCheck { batch, header, rules: rules(&config), now_ms: NOW }
    }

    #[test]
    fn to_be_given_another_codec_takes_memory_of_its_level_and_little_where_there_is_little() {
        let cost = |codec, level, limit, memory| {
            to_be_made_anew(Compression::Snappy, codec, level, 1 << 20).cost(limit, memory).bytes
        };
        for (codec, level) in [(Compression::Gzip, 9), (Compression::Lz4, 0), (Compression::Zstd, 3)] {
            assert!(cost(codec, level, 1 << 20, MEMORY) <= 4 << 20, "{codec}: they wait for no large one");
        }
        assert!(cost(Compression::Zstd, 22, 64 << 10, MEMORY) <= 4 << 20);
        assert!(
            cost(Compression::Zstd, 22, 2 << 20, MEMORY) <= 40 << 20,
            "several of a usual size are under way at once"
        );
        let highest = cost(Compression::Zstd, 22, RECOMPRESS_LIMIT, MEMORY);
        assert!((72 << 20..80 << 20).contains(&highest), "{highest}: 72 MiB of tables and what comes of it");
        for mib in [8, 16, 64] {
            let highest = cost(Compression::Zstd, 22, RECOMPRESS_LIMIT, mib << 20);
            assert!(highest <= mib << 20, "{highest} of {mib} MiB");
        }
        let held = |from| to_be_made_anew(from, Compression::Zstd, 3, 50 << 20).limit(8 << 20);
        assert_eq!((held(Compression::Gzip), held(Compression::Snappy)), (WALK_LIMIT, 8 << 20));
    }

    #[test]
    fn what_takes_more_memory_than_there_is_is_refused_and_a_level_is_done_in_what_there_is() {
        let zeros = |codec| {
            let mut zeros = BatchBuilder::new(codec);
            zeros.push(NOW, None, Some(&vec![0; 20 << 20]), &[]);
            zeros.build()
        };
        let long = |bytes: Bytes, to, facts: bool| {
            let rules = to_be_made_anew(Compression::None, to, 22, 50 << 20).rules;
            let rules = if facts { rules.with_facts(FactsOf(|_| Facts::default())) } else { rules };
            let header = BatchHeader::parse(&bytes).unwrap();
            LongCheck { batch: bytes, header, rules, now_ms: NOW }
        };
        let run = |long: &LongCheck, memory| long.run(long.limit(memory), memory, &mut || {});
        let gzip = zeros(Compression::Gzip);
        let taken = run(&long(gzip.clone(), Compression::Zstd, false), 8 << 20).unwrap();
        assert_eq!(taken.header().compression(), Ok(Compression::Zstd));
        let plain = long(gzip.clone(), Compression::None, false);
        assert_eq!(run(&plain, 8 << 20).err(), Some(BatchRefusal::TooLargeAnew { most: 4 << 20 }));
        assert!(run(&plain, 64 << 20).is_ok());
        let too_large = Some(BatchRefusal::from(BatchError::TooLarge { limit: 8 << 20 }));
        let facts = long(gzip, Compression::Gzip, true);
        assert_eq!(run(&facts, 8 << 20).err(), too_large);
        assert!(run(&facts, 64 << 20).is_ok());
        assert_eq!(
            run(&long(zeros(Compression::Snappy), Compression::Gzip, false), 8 << 20).err(),
            too_large
        );

        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(24).unwrap();
        std::io::Write::write_all(&mut encoder, &zeros(Compression::None)[HEADER_LEN..]).unwrap();
        let mut wide = [&zeros(Compression::Zstd)[..HEADER_LEN], &encoder.finish().unwrap()].concat();
        let mut header = BatchHeader::parse(&wide).unwrap();
        header.length = (wide.len() - 12) as i32;
        rewrite_header(&mut wide, &mut header).unwrap();
        let wide = long(wide.into(), Compression::Zstd, false);
        let window = BatchError::Window { window: 16 << 20, most: 8 << 20 };
        assert_eq!(run(&wide, 8 << 20).err(), Some(window.into()));
        assert!(run(&wide, 16 << 20).is_ok());
    }
}
