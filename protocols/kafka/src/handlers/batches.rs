//! What a produced batch must be, before the broker gets it.

use std::sync::Arc;

use bytes::Bytes;
use sabir_broker::Topic;
use sabir_model::batch::{
    BatchError, BatchHeader, Compression, RecordSummary, check_records, recompress, rewrite_header,
    verify_crc,
};
use sabir_model::{TimestampType, TopicConfig};
use sabir_net::{JobCost, Workers};

use super::transactions::{NO_TRANSACTIONS, WHY_NOT};
use crate::wire::ErrorCode;

/// The first version of Produce whose clients know zstd.
const ZSTD_SINCE: i16 = 7;
/// What a producer says that has an id and no epoch.
const NO_EPOCH: i16 = -1;
/// The most bytes that are decompressed to look at a batch's records.
const WALK_LIMIT: usize = 128 << 20;
/// The most bytes that are given another codec: so many, or four times what the topic takes if that is more.
const RECOMPRESS_LIMIT: usize = 32 << 20;
/// A batch that is given another codec is first tried as one that has no more than this.
const RECOMPRESS_SMALL: usize = 1 << 20;
/// Bytes of records that an I/O thread decompresses for one request.
pub(super) const INLINE: usize = 256 << 10;
/// What a record that is not compressed takes of them.
const INLINE_RECORD: usize = 2;
/// What gzip and LZ4 take to be decompressed a piece at a time.
const STREAMED: usize = 1 << 20;
/// The fewest bytes of a record.
const LEAST_RECORD: usize = 7;
/// Bytes that an I/O thread gives another codec.
const INLINE_RECOMPRESS: u64 = 16 << 10;

/// Why a batch is refused: the code, what was wrong with it, and whether its bytes were damaged or malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    pub malformed: bool,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), malformed: false }
    }

    fn malformed(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { malformed: true, ..Self::new(code, message) }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        let code = match &error {
            BatchError::Crc { .. } => ErrorCode::CorruptMessage,
            BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            // Not CORRUPT_MESSAGE: clients send that again, and it would be no better.
            _ => ErrorCode::InvalidRecord,
        };
        Self::malformed(code, error.to_string())
    }
}

/// What one partition of a request carries, as far as the I/O thread looks at it.
#[derive(Debug)]
pub(super) enum Begun {
    /// It is good.
    Taken(Taken),
    /// Looking at its records is left to the workers.
    Long(Long),
}

/// A good batch, as it is to be appended.
pub(super) type Taken = (Bytes, BatchHeader);

/// A batch whose records are still to be looked at.
#[derive(Debug)]
pub(super) struct Long {
    batch: Bytes,
    header: BatchHeader,
    topic: Arc<Topic>,
    wall_ms: i64,
}

/// Begins to take what one partition of a request of this version carries: exactly one v2 batch that its topic takes, as it came or
/// compressed as the topic wants it. `inline` is what is left of the request's [`INLINE`] bytes.
pub(super) fn begin(
    records: Option<Bytes>,
    version: i16,
    topic: &Arc<Topic>,
    wall_ms: i64,
    inline: &mut usize,
) -> Result<Begun, Refusal> {
    let header = check_header(records.as_ref(), version, &topic.config)?;
    let long = Long { batch: records.unwrap_or_default(), header, topic: topic.clone(), wall_ms };
    let plain = header.compression() == Ok(Compression::None);
    let least = header.count as usize * if plain { INLINE_RECORD } else { LEAST_RECORD };
    if least > *inline || (!plain && long.batch.len() > *inline) {
        return Ok(Begun::Long(long));
    }
    let limit = if plain { WALK_LIMIT } else { *inline };
    let found = match check_records(&long.batch, limit, &mut || {}) {
        Ok(found) => found,
        Err(BatchError::TooLarge { .. }) if !plain => {
            *inline = 0;
            return Ok(Begun::Long(long));
        }
        Err(error) => return Err(error.into()),
    };
    *inline -= if plain { least } else { found.bytes as usize };
    check_time(&found, &topic.config, wall_ms)?;
    match long.wanted_codec() {
        Some(codec) if found.bytes > INLINE_RECOMPRESS || is_dear(codec, topic.config.level(codec)) => {
            Ok(Begun::Long(long))
        }
        Some(_) => long.recompress(&found, RECOMPRESS_SMALL, &mut || {}).map(Begun::Taken),
        None => long.settle(&found).map(Begun::Taken),
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

impl Long {
    /// The codec that the topic wants and the batch has not.
    fn wanted_codec(&self) -> Option<Compression> {
        self.topic.config.compression.filter(|codec| self.header.compression() != Ok(*codec))
    }

    fn limit(&self) -> usize {
        let max = self.topic.config.max_message_bytes as usize;
        match self.wanted_codec() {
            None => WALK_LIMIT,
            // What is larger would be refused in any case.
            Some(Compression::None) => WALK_LIMIT.min(max),
            Some(_) => RECOMPRESS_LIMIT.max(4 * max).min(WALK_LIMIT),
        }
    }

    fn cost(&self, limit: usize) -> JobCost {
        // In snappy three bytes say 64 at the most; a Zstandard window is as large as its frame says.
        let walked = match self.header.compression() {
            Ok(Compression::Snappy) => (22 * self.batch.len()).min(limit),
            Ok(Compression::Zstd) => limit,
            _ => STREAMED,
        };
        match self.wanted_codec() {
            None => JobCost { bytes: walked, slow: false },
            Some(_) => JobCost { bytes: 3 * limit, slow: true },
        }
    }

    /// Has the workers look at the records.
    pub async fn finish(self, workers: &Workers) -> Result<Taken, Refusal> {
        let limit = self.limit();
        let this = Arc::new(self);
        if this.wanted_codec().is_some() && limit > RECOMPRESS_SMALL {
            match this.clone().try_finish(workers, RECOMPRESS_SMALL).await? {
                Ok(taken) => return Ok(taken),
                Err(BatchError::TooLarge { .. } | BatchError::Field { field: "record count", .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        this.clone().try_finish(workers, limit).await?.map_err(|error| this.too_large(error, limit))
    }

    async fn try_finish(
        self: Arc<Self>,
        workers: &Workers,
        limit: usize,
    ) -> Result<Result<Taken, BatchError>, Refusal> {
        let cost = self.cost(limit);
        let job = move |pause: &mut dyn FnMut()| match check_records(&self.batch, limit, pause) {
            Err(error) => Ok(Err(error)),
            Ok(found) => {
                check_time(&found, &self.topic.config, self.wall_ms)?;
                let taken = match self.wanted_codec() {
                    Some(_) => self.recompress(&found, limit, pause),
                    None => self.settle(&found),
                };
                taken.map(Ok)
            }
        };
        let failed = || Refusal::new(ErrorCode::UnknownServerError, "the broker failed to look at the batch");
        workers.run(cost, job).await.unwrap_or_else(|| Err(failed()))
    }

    fn too_large(&self, error: BatchError, limit: usize) -> Refusal {
        match (error, self.wanted_codec()) {
            (BatchError::TooLarge { .. }, Some(Compression::None)) => {
                let message = format!(
                    "the topic takes {limit} bytes uncompressed (max.message.bytes), the batch has more"
                );
                Refusal::new(ErrorCode::MessageTooLarge, message)
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
    ) -> Result<Taken, Refusal> {
        let Some(codec) = self.wanted_codec() else { return self.settle(found) };
        let topic = &self.topic.config;
        if codec == Compression::None && found.bytes > u64::from(topic.max_message_bytes) {
            return Err(self.too_large(BatchError::TooLarge { limit }, topic.max_message_bytes as usize));
        }
        let batch = recompress(&self.batch, codec, topic.level(codec), limit, pause)?;
        check_size(&batch, topic)?;
        let header = BatchHeader::parse(&batch)?;
        settle(batch, header, found)
    }

    fn settle(&self, found: &RecordSummary) -> Result<Taken, Refusal> {
        settle(self.batch.clone(), self.header, found)
    }
}

/// A batch with the largest time that its records have and as one whose times are its producer's, as Kafka stores it. Nearly all come so.
fn settle(batch: Bytes, mut header: BatchHeader, found: &RecordSummary) -> Result<Taken, Refusal> {
    if header.max_timestamp == found.newest && header.timestamp_type() == TimestampType::CreateTime {
        return Ok((batch, header));
    }
    header.max_timestamp = found.newest;
    header.set_create_time();
    let mut batch = batch.to_vec();
    rewrite_header(&mut batch, &mut header)?;
    Ok((Bytes::from(batch), header))
}

fn check_size(batch: &[u8], topic: &TopicConfig) -> Result<(), Refusal> {
    if batch.len() <= topic.max_message_bytes as usize {
        return Ok(());
    }
    let (size, max) = (batch.len(), topic.max_message_bytes);
    let message = format!("the batch has {size} bytes, the topic takes {max} (max.message.bytes)");
    Err(Refusal::new(ErrorCode::MessageTooLarge, message))
}

/// Checks all but the records.
fn check_header(records: Option<&Bytes>, version: i16, topic: &TopicConfig) -> Result<BatchHeader, Refusal> {
    let bytes = records.map(|records| &records[..]).unwrap_or_default();
    if bytes.is_empty() {
        return Err(Refusal::malformed(ErrorCode::InvalidRecord, "there is no batch for the partition"));
    }
    let header = BatchHeader::parse(bytes)?;
    if header.total_len() < bytes.len() {
        return Err(Refusal::malformed(
            ErrorCode::InvalidRecord,
            "there is more than one batch for the partition",
        ));
    }
    check_size(bytes, topic)?;
    verify_crc(bytes)?;
    header.check_produced()?;
    check_attributes(&header, version)?;
    Ok(header)
}

fn check_attributes(header: &BatchHeader, version: i16) -> Result<(), Refusal> {
    if header.is_control() {
        return Err(Refusal::malformed(ErrorCode::InvalidRecord, "only brokers write control batches"));
    }
    if header.is_transactional() {
        return Err(Refusal::new(NO_TRANSACTIONS, WHY_NOT));
    }
    if header.producer_id.known().is_some() && header.producer_epoch < NO_EPOCH {
        let message = format!("the producer's epoch is {}", header.producer_epoch);
        return Err(Refusal::new(ErrorCode::InvalidProducerEpoch, message));
    }
    if header.compression()? == Compression::Zstd && version < ZSTD_SINCE {
        let message = format!("zstd needs version {ZSTD_SINCE} of Produce");
        return Err(Refusal::new(ErrorCode::UnsupportedCompressionType, message));
    }
    Ok(())
}

fn check_time(found: &RecordSummary, topic: &TopicConfig, wall_ms: i64) -> Result<(), Refusal> {
    if topic.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let oldest = wall_ms.saturating_sub(topic.timestamp_before_max_ms);
    let newest = wall_ms.saturating_add(topic.timestamp_after_max_ms);
    // A record without a time carries -1.
    let outside = |time: i64| time >= 0 && !(oldest..=newest).contains(&time);
    if outside(found.oldest) || outside(found.newest) {
        let message = format!(
            "the records' times {} to {} are not within {oldest} to {newest} (message.timestamp.before.max.ms, \
             message.timestamp.after.max.ms)",
            found.oldest, found.newest
        );
        return Err(Refusal::new(ErrorCode::InvalidTimestamp, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::BatchBuilder;
    use sabir_model::{FrontEndNo, ProducerId, TopicId};

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn builder(compression: Compression) -> BatchBuilder {
        let mut builder = BatchBuilder::new(compression);
        builder.push(NOW, Some(b"k"), Some(b"value"), &[]);
        builder
    }

    fn batch() -> Bytes {
        builder(Compression::None).build()
    }

    fn code(bytes: &[u8]) -> Option<ErrorCode> {
        code_at(bytes, 13)
    }

    fn code_at(bytes: &[u8], version: i16) -> Option<ErrorCode> {
        let taken = take(&Bytes::copy_from_slice(bytes), version, &TopicConfig::default(), NOW);
        taken.err().map(|refusal| refusal.code)
    }

    /// Takes a batch on this thread, or with workers if that takes them.
    fn take(bytes: &Bytes, version: i16, config: &TopicConfig, now: i64) -> Result<Taken, Refusal> {
        take_with(bytes, version, config, now, INLINE)
    }

    fn take_with(
        bytes: &Bytes,
        version: i16,
        config: &TopicConfig,
        now: i64,
        mut inline: usize,
    ) -> Result<Taken, Refusal> {
        let topic = Arc::new(Topic {
            id: TopicId([1; 16]),
            name: "t".into(),
            namespace: "/".into(),
            version: 1,
            config: config.clone(),
            partitions: Vec::new(),
            internal: false,
            made_by: FrontEndNo::NONE,
            traffic: Arc::default(),
        });
        match begin(Some(bytes.clone()), version, &topic, now, &mut inline)? {
            Begun::Taken(taken) => Ok(taken),
            Begun::Long(long) => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it is made");
                runtime.block_on(long.finish(&Workers::default()))
            }
        }
    }

    /// A batch with a field overwritten and its CRC redone.
    fn with(at: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = batch().to_vec();
        bytes[at..at + field.len()].copy_from_slice(field);
        let crc = sabir_base::crc::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn workers_come_to_the_same() {
        for codec in Compression::ALL {
            let good = builder(codec).build();
            let mut bad = good.to_vec();
            let last = bad.len() - 1;
            bad[last] ^= 0x40;
            let crc = sabir_base::crc::crc32c(&bad[21..]);
            bad[17..21].copy_from_slice(&crc.to_be_bytes());
            for wanted in std::iter::once(None).chain(Compression::ALL.map(Some)) {
                let topic = TopicConfig { compression: wanted, ..TopicConfig::default() };
                for batch in [good.clone(), Bytes::from(bad.clone())] {
                    let [here, there] = [INLINE, 0].map(|inline| take_with(&batch, 13, &topic, NOW, inline));
                    assert_eq!(here, there, "{codec} to {wanted:?}");
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_left_to_the_workers_and_ends_the_requests_share() {
        let mut bomb = BatchBuilder::new(Compression::Zstd);
        bomb.push(NOW, None, Some(&vec![0; 2 * INLINE]), &[]);
        let bomb = bomb.build();
        assert!(bomb.len() < 1000);
        assert!(take(&bomb, 13, &TopicConfig::default(), NOW).is_ok());
        let tight = TopicConfig { compression: Some(Compression::None), ..TopicConfig::default() };
        let small = TopicConfig { max_message_bytes: 100_000, ..tight.clone() };
        assert!(take(&bomb, 13, &tight, NOW).is_ok());
        let refused = take(&bomb, 13, &small, NOW).expect_err("too large");
        assert_eq!(refused.code, ErrorCode::MessageTooLarge);
    }

    #[test]
    fn the_largest_time_is_that_of_the_records() {
        let mut lying = builder(Compression::Lz4).build().to_vec();
        lying[35..43].copy_from_slice(&(NOW + 5).to_be_bytes());
        lying[22] |= 8;
        let crc = sabir_base::crc::crc32c(&lying[21..]);
        lying[17..21].copy_from_slice(&crc.to_be_bytes());
        let (batch, header) =
            take(&Bytes::from(lying), 13, &TopicConfig::default(), NOW).expect("as Kafka takes it");
        assert_eq!((header.max_timestamp, header.timestamp_type()), (NOW, TimestampType::CreateTime));
        assert_eq!(BatchHeader::parse(&batch), Ok(header));
        assert_eq!(verify_crc(&batch), Ok(()));
    }

    #[test]
    fn a_good_batch_is_taken_in_every_codec() {
        for codec in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            assert_eq!(code(&builder(codec).build()), None, "{codec}");
        }
        let zstd = builder(Compression::Zstd).build();
        assert_eq!(code_at(&zstd, 6), Some(ErrorCode::UnsupportedCompressionType));
    }

    #[test]
    fn damaged_and_malformed_batches_are_refused() {
        let good = batch();
        assert_eq!(code(b""), Some(ErrorCode::InvalidRecord));
        for len in 1..good.len() {
            assert_eq!(code(&good[..len]), Some(ErrorCode::InvalidRecord), "{len}");
        }
        for at in 21..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            // Some fields are checked before the CRC is.
            assert!(matches!(code(&bad), Some(ErrorCode::CorruptMessage | ErrorCode::InvalidRecord)), "{at}");
        }
        let mut wrong = good.to_vec();
        wrong[17] ^= 1;
        assert_eq!(code(&wrong), Some(ErrorCode::CorruptMessage));
        assert_eq!(code(&[&good[..], &good[..]].concat()), Some(ErrorCode::InvalidRecord));
        assert_eq!(code(&[&good[..], b"x"].concat()), Some(ErrorCode::InvalidRecord));
    }

    #[test]
    fn old_formats_and_impossible_headers_are_refused() {
        for (at, field, expected) in [
            (16, &[0][..], ErrorCode::InvalidRecord),
            (16, &[1], ErrorCode::InvalidRecord),
            (8, &[0xff; 4], ErrorCode::InvalidRecord),
            (57, &[0, 0, 0, 0], ErrorCode::InvalidRecord),
            (57, &[0x7f, 0xff, 0xff, 0xff], ErrorCode::InvalidRecord),
            (57, &[0xff; 4], ErrorCode::InvalidRecord),
            (23, &[0, 0, 0, 5], ErrorCode::InvalidRecord),
            (21, &[0, 5], ErrorCode::UnsupportedCompressionType),
            (21, &[0, 0x20], ErrorCode::InvalidRecord),
        ] {
            assert_eq!(code(&with(at, field)), Some(expected), "{at}: {field:?}");
        }
    }

    #[test]
    fn huge_counts_are_not_believed() {
        for codec in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let mut bytes = builder(codec).build().to_vec();
            bytes[57..61].copy_from_slice(&1_000_000i32.to_be_bytes());
            bytes[23..27].copy_from_slice(&999_999i32.to_be_bytes());
            let crc = sabir_base::crc::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
            assert_eq!(code(&bytes), Some(ErrorCode::InvalidRecord), "{codec}");
        }
    }

    #[test]
    fn a_count_that_the_records_bear_out_is_believed() {
        let mut builder = BatchBuilder::new(Compression::Zstd);
        (0..100_000).for_each(|_| builder.push(NOW, None, None, &[]));
        let bytes = builder.build();
        assert!(bytes.len() < 100_000, "{} bytes: the batch is not walked", bytes.len());
        assert_eq!(code(&bytes), None);
    }

    #[test]
    fn transactions_and_bad_producers_are_refused() {
        let transactional = builder(Compression::None).producer(ProducerId(7), 0, 0).transactional().build();
        assert_eq!(code(&transactional), Some(NO_TRANSACTIONS));
        let idempotent = builder(Compression::None).producer(ProducerId(7), 0, 0).build();
        assert_eq!(code(&idempotent), None);
        let negative = builder(Compression::None).producer(ProducerId(7), 0, -1).build();
        assert_eq!(code(&negative), Some(ErrorCode::InvalidRecord));
    }

    #[test]
    fn a_topic_may_want_another_codec() {
        let mut plain = BatchBuilder::new(Compression::None).producer(ProducerId(7), 1, 5);
        (0..50).for_each(|i| plain.push(NOW + i, Some(b"key"), Some(b"the same value"), &[]));
        let plain = plain.build();
        let taken = |batch: &Bytes, topic: &TopicConfig| take(batch, 13, topic, NOW + 50);
        let wants = |codec| TopicConfig { compression: codec, ..TopicConfig::default() };
        assert_eq!(taken(&plain, &wants(None)).expect("as it came").0, plain);
        for codec in Compression::ALL {
            let (batch, header) = taken(&plain, &wants(Some(codec))).expect("it is good");
            assert_eq!(header.compression(), Ok(codec));
            assert_eq!((header.base_sequence, header.count, header.max_timestamp), (5, 50, NOW + 49));
            assert_eq!(BatchHeader::parse(&batch), Ok(header));
            assert_eq!(verify_crc(&batch), Ok(()));
            let again = taken(&batch, &wants(Some(codec))).expect("it is good").0;
            assert_eq!(again, batch, "what has the codec already stays as it came");
        }
        // What fits compressed need not fit as the topic keeps it.
        let small = taken(&plain, &wants(Some(Compression::Zstd))).expect("it is good").0;
        let topic = TopicConfig { max_message_bytes: small.len() as u32, ..wants(Some(Compression::None)) };
        let refusal = taken(&small, &topic).expect_err("it is too large");
        assert_eq!((refusal.code, refusal.malformed), (ErrorCode::MessageTooLarge, false));
        assert!(
            refusal.message.ends_with("the batch has more"),
            "it is not decompressed whole: {}",
            refusal.message
        );
    }

    #[test]
    fn size_and_time_are_the_topics() {
        let bytes = batch();
        let mut topic = TopicConfig { max_message_bytes: bytes.len() as u32 - 1, ..TopicConfig::default() };
        let refused = |topic: &TopicConfig, now| take(&bytes, 13, topic, now).err().map(|r| r.code);
        assert_eq!(refused(&topic, NOW), Some(ErrorCode::MessageTooLarge));
        topic.max_message_bytes += 1;
        assert_eq!(refused(&topic, NOW), None);
        let hour = 3_600_000;
        assert_eq!(refused(&topic, NOW - hour), None);
        assert_eq!(refused(&topic, NOW - hour - 1), Some(ErrorCode::InvalidTimestamp));
        topic.timestamp_before_max_ms = 1000;
        assert_eq!(refused(&topic, NOW + 1000), None);
        assert_eq!(refused(&topic, NOW + 1001), Some(ErrorCode::InvalidTimestamp));
        topic.timestamp_type = TimestampType::LogAppendTime;
        assert_eq!(refused(&topic, NOW + 1001), None);
    }
}
