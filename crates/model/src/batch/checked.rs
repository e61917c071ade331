//! What a client's batch must be before it is appended: the only way to a batch that the log takes.

use bytes::Bytes;

use super::{
    BatchBuilder, BatchError, BatchHeader, Compression, RecordSummary, check_records, recompress,
    rewrite_header, verify_crc,
};
use crate::{TimestampType, TopicConfig};

/// What a producer says that has an id and no epoch.
const NO_EPOCH: i16 = -1;
/// The most bytes that are decompressed to look at a batch's records.
const WALK_LIMIT: usize = 128 << 20;
/// The most bytes that are given another codec: so many, or four times what the topic takes if that is more.
const RECOMPRESS_LIMIT: usize = 32 << 20;
/// A batch that is given another codec is first tried as one that has no more than this.
const RECOMPRESS_SMALL: usize = 1 << 20;
/// What a record that is not compressed takes of an [`InlineBudget`].
const INLINE_RECORD: usize = 2;
/// What gzip and LZ4 take to be decompressed a piece at a time.
const STREAMED: usize = 1 << 20;
/// The fewest bytes of a record.
const LEAST_RECORD: usize = 7;
/// Bytes that are given another codec at once.
const INLINE_RECOMPRESS: u64 = 16 << 10;

/// One v2 batch, whole and alone, whose header, CRC and records were checked, in the codec and with the times that its topic wants.
/// It is made by its check, or built here.
#[derive(Debug, Clone)]
pub struct CheckedBatch {
    bytes: Bytes,
    header: BatchHeader,
}

impl CheckedBatch {
    /// Checks a batch of any size that belongs to no topic, without regard for how long that takes. Its header's largest time is
    /// believed.
    ///
    /// # Errors
    /// What makes it malformed.
    pub fn whole(bytes: Bytes) -> Result<Self, BatchRefusal> {
        let header = BatchHeader::parse(&bytes)?;
        if header.total_len() < bytes.len() {
            return Err(BatchRefusal::SeveralBatches);
        }
        verify_crc(&bytes)?;
        check_records(&bytes, WALK_LIMIT, &mut || {})?;
        Ok(Self { bytes, header })
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
}

impl BatchBuilder {
    /// [Builds](Self::build) a batch that needs no check.
    ///
    /// # Errors
    /// It has more bytes than a batch can have.
    pub fn build_checked(self) -> Result<CheckedBatch, BatchError> {
        let bytes = self.build();
        let header = BatchHeader::parse(&bytes)?;
        Ok(CheckedBatch { bytes, header })
    }
}

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
    },
    /// The check itself failed.
    #[error("the broker failed to look at the batch")]
    Failed,
}

impl BatchRefusal {
    /// Whether the batch's bytes are damaged or make no sense.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Empty | Self::SeveralBatches | Self::Malformed(_) | Self::Control)
    }
}

/// What a topic takes.
#[derive(Debug, Clone, Copy)]
pub struct BatchRules {
    max_bytes: u32,
    timestamp_type: TimestampType,
    before_max_ms: i64,
    after_max_ms: i64,
    codec: Option<(Compression, Option<i32>)>,
}

impl TopicConfig {
    /// What batches must be.
    pub fn batch_rules(&self) -> BatchRules {
        BatchRules {
            max_bytes: self.max_message_bytes,
            timestamp_type: self.timestamp_type,
            before_max_ms: self.timestamp_before_max_ms,
            after_max_ms: self.timestamp_after_max_ms,
            codec: self.compression.map(|codec| (codec, self.level(codec))),
        }
    }
}

/// How many bytes of records may be looked at on a thread that others wait for.
#[derive(Debug, Clone, Copy)]
pub struct InlineBudget(pub usize);

impl Default for InlineBudget {
    fn default() -> Self {
        Self(256 << 10)
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
        let long = LongCheck { batch: bytes, header, rules, now_ms };
        let plain = header.compression() == Ok(Compression::None);
        let least = header.count as usize * if plain { INLINE_RECORD } else { LEAST_RECORD };
        if least > budget.0 || (!plain && long.batch.len() > budget.0) {
            return Ok(Self::Long(long));
        }
        let limit = if plain { WALK_LIMIT } else { budget.0 };
        let found = match check_records(&long.batch, limit, &mut || {}) {
            Ok(found) => found,
            Err(BatchError::TooLarge { .. }) if !plain => {
                budget.0 = 0;
                return Ok(Self::Long(long));
            }
            Err(error) => return Err(error.into()),
        };
        budget.0 -= if plain { least } else { found.bytes as usize };
        check_time(&found, &rules, now_ms)?;
        match long.wanted_codec() {
            Some((codec, level)) if found.bytes > INLINE_RECOMPRESS || is_dear(codec, level) => {
                Ok(Self::Long(long))
            }
            Some(_) => long.recompress(&found, RECOMPRESS_SMALL, &mut || {}).map(Self::Done),
            None => long.settle(&found).map(Self::Done),
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

/// Whether a level takes much longer than its codec's default.
fn is_dear(codec: Compression, level: Option<i32>) -> bool {
    match codec {
        Compression::Gzip => level.is_some_and(|level| level > 6),
        Compression::Zstd => level.is_some_and(|level| level > 3),
        _ => false,
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
    /// Whether it may take seconds.
    pub slow: bool,
}

impl LongCheck {
    /// The codec that the topic wants and the batch has not.
    fn wanted_codec(&self) -> Option<(Compression, Option<i32>)> {
        self.rules.codec.filter(|(codec, _)| self.header.compression() != Ok(*codec))
    }

    /// How many bytes are decompressed at the most.
    pub fn limit(&self) -> usize {
        let max = self.rules.max_bytes as usize;
        match self.wanted_codec() {
            None => WALK_LIMIT,
            // What is larger would be refused in any case.
            Some((Compression::None, _)) => WALK_LIMIT.min(max),
            Some(_) => RECOMPRESS_LIMIT.max(4 * max).min(WALK_LIMIT),
        }
    }

    /// A lower limit, by which most batches are done with little memory: it is to be tried first.
    pub fn first_limit(&self) -> Option<usize> {
        self.wanted_codec().map(|_| RECOMPRESS_SMALL).filter(|small| *small < self.limit())
    }

    /// What it takes to [run](Self::run) it with a limit.
    pub fn cost(&self, limit: usize) -> CheckCost {
        // In snappy three bytes say 64 at the most; a Zstandard window is as large as its frame says.
        let walked = match self.header.compression() {
            Ok(Compression::Snappy) => (22 * self.batch.len()).min(limit),
            Ok(Compression::Zstd) => limit,
            _ => STREAMED,
        };
        match self.wanted_codec() {
            None => CheckCost { bytes: walked, slow: false },
            Some(_) => CheckCost { bytes: 3 * limit, slow: true },
        }
    }

    /// Checks the records, of which no more than `limit` bytes are decompressed. `pause` is called now and then.
    ///
    /// # Errors
    /// Why the batch is not taken; [`BatchRefusal::exceeds`] tells whether a higher limit may do.
    pub fn run(&self, limit: usize, pause: &mut dyn FnMut()) -> Result<CheckedBatch, BatchRefusal> {
        let found = check_records(&self.batch, limit, pause).map_err(|error| self.refusal(error, limit))?;
        check_time(&found, &self.rules, self.now_ms)?;
        match self.wanted_codec() {
            Some(_) => self.recompress(&found, limit, pause),
            None => self.settle(&found),
        }
    }

    /// What an error comes to where the limit is the topic's.
    fn refusal(&self, error: BatchError, limit: usize) -> BatchRefusal {
        match (error, self.wanted_codec()) {
            (BatchError::TooLarge { .. }, Some((Compression::None, _))) if limit == self.limit() => {
                BatchRefusal::TooLargeUncompressed { max: self.rules.max_bytes }
            }
            (error, _) => error.into(),
        }
    }

    /// The batch under the codec that its topic wants.
    fn recompress(
        &self,
        found: &RecordSummary,
        limit: usize,
        pause: &mut dyn FnMut(),
    ) -> Result<CheckedBatch, BatchRefusal> {
        let Some((codec, level)) = self.wanted_codec() else { return self.settle(found) };
        let max = self.rules.max_bytes;
        if codec == Compression::None && found.bytes > u64::from(max) {
            return Err(BatchRefusal::TooLargeUncompressed { max });
        }
        let batch = recompress(&self.batch, codec, level, limit, pause)?;
        check_size(&batch, max)?;
        let header = BatchHeader::parse(&batch)?;
        settle(batch, header, found)
    }

    fn settle(&self, found: &RecordSummary) -> Result<CheckedBatch, BatchRefusal> {
        settle(self.batch.clone(), self.header, found)
    }
}

impl BatchRefusal {
    /// Whether it is for the limit alone that was given to [`LongCheck::run`].
    pub fn exceeds(&self) -> bool {
        let Self::Malformed(error) = self else { return false };
        matches!(error, BatchError::TooLarge { .. } | BatchError::Field { field: "record count", .. })
    }
}

/// A batch with the largest time that its records have and as one whose times are its producer's, as Kafka stores it. Nearly all come so.
fn settle(
    bytes: Bytes,
    mut header: BatchHeader,
    found: &RecordSummary,
) -> Result<CheckedBatch, BatchRefusal> {
    if header.max_timestamp == found.newest && header.timestamp_type() == TimestampType::CreateTime {
        return Ok(CheckedBatch { bytes, header });
    }
    header.max_timestamp = found.newest;
    header.set_create_time();
    let mut bytes = bytes.to_vec();
    rewrite_header(&mut bytes, &mut header)?;
    Ok(CheckedBatch { bytes: Bytes::from(bytes), header })
}

fn check_size(batch: &[u8], max: u32) -> Result<(), BatchRefusal> {
    let size = batch.len();
    if size <= max as usize { Ok(()) } else { Err(BatchRefusal::TooLarge { size, max }) }
}

/// Checks all but the records.
fn check_header(bytes: &[u8], rules: &BatchRules) -> Result<BatchHeader, BatchRefusal> {
    if bytes.is_empty() {
        return Err(BatchRefusal::Empty);
    }
    let header = BatchHeader::parse(bytes)?;
    if header.total_len() < bytes.len() {
        return Err(BatchRefusal::SeveralBatches);
    }
    check_size(bytes, rules.max_bytes)?;
    verify_crc(bytes)?;
    header.check_produced()?;
    if header.is_control() {
        return Err(BatchRefusal::Control);
    }
    if header.producer_id.known().is_some() && header.producer_epoch < NO_EPOCH {
        return Err(BatchRefusal::ProducerEpoch(header.producer_epoch));
    }
    header.compression()?;
    Ok(header)
}

fn check_time(found: &RecordSummary, rules: &BatchRules, now_ms: i64) -> Result<(), BatchRefusal> {
    if rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let from = now_ms.saturating_sub(rules.before_max_ms);
    let to = now_ms.saturating_add(rules.after_max_ms);
    // A record without a time carries -1.
    let outside = |time: i64| time >= 0 && !(from..=to).contains(&time);
    if outside(found.oldest) || outside(found.newest) {
        let &RecordSummary { oldest, newest, .. } = found;
        return Err(BatchRefusal::Time { oldest, newest, from, to });
    }
    Ok(())
}
