//! What a produced batch must be, before the broker gets it.

use bytes::Bytes;
use sabir_model::batch::{BatchError, BatchHeader, Compression, HEADER_LEN, recompress, verify_crc};
use sabir_model::{TimestampType, TopicConfig};

use super::produce::NO_TRANSACTIONS;
use crate::wire::ErrorCode;

/// The first version of Produce whose clients know zstd.
const ZSTD_SINCE: i16 = 7;
/// The fewest bytes of a record.
const LEAST_RECORD: usize = 7;
/// The most bytes that a walk or another codec decompresses.
const WALK_LIMIT: usize = 128 << 20;

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

/// Takes what one partition of a request of this version carries, if it is good: exactly one v2 batch that its topic takes, as it
/// came or compressed as the topic wants it.
pub(super) fn take(
    records: Option<Bytes>,
    version: i16,
    topic: &TopicConfig,
    now_ms: i64,
) -> Result<(Bytes, BatchHeader), Refusal> {
    let header = check(records.as_ref(), version, topic, now_ms)?;
    let batch = records.unwrap_or_default();
    let Some(codec) = topic.compression.filter(|codec| header.compression() != Ok(*codec)) else {
        return Ok((batch, header));
    };
    let limit = match codec {
        // What is larger would be refused in any case.
        Compression::None => WALK_LIMIT.min(topic.max_message_bytes as usize),
        _ => WALK_LIMIT,
    };
    let batch = recompress(&batch, codec, topic.level(codec), limit).map_err(|error| match error {
        BatchError::TooLarge { .. } if codec == Compression::None => {
            let message =
                format!("the topic takes {limit} bytes uncompressed (max.message.bytes), the batch has more");
            Refusal::new(ErrorCode::MessageTooLarge, message)
        }
        other => other.into(),
    })?;
    check_size(&batch, topic)?;
    let header = BatchHeader::parse(&batch)?;
    Ok((batch, header))
}

fn check_size(batch: &[u8], topic: &TopicConfig) -> Result<(), Refusal> {
    if batch.len() <= topic.max_message_bytes as usize {
        return Ok(());
    }
    let (size, max) = (batch.len(), topic.max_message_bytes);
    let message = format!("the batch has {size} bytes, the topic takes {max} (max.message.bytes)");
    Err(Refusal::new(ErrorCode::MessageTooLarge, message))
}

fn check(
    records: Option<&Bytes>,
    version: i16,
    topic: &TopicConfig,
    now_ms: i64,
) -> Result<BatchHeader, Refusal> {
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
    check_count(bytes, &header)?;
    check_time(&header, topic, now_ms)?;
    Ok(header)
}

fn check_attributes(header: &BatchHeader, version: i16) -> Result<(), Refusal> {
    if header.is_control() {
        return Err(Refusal::malformed(ErrorCode::InvalidRecord, "only brokers write control batches"));
    }
    if header.is_transactional() {
        return Err(Refusal::new(NO_TRANSACTIONS, "transactions are not served by this broker"));
    }
    if header.compression()? == Compression::Zstd && version < ZSTD_SINCE {
        let message = format!("zstd needs version {ZSTD_SINCE} of Produce");
        return Err(Refusal::new(ErrorCode::UnsupportedCompressionType, message));
    }
    Ok(())
}

/// Offsets are given by the header's count, so one that the records cannot bear out must not be believed: a compressed batch
/// is walked if its records would take less than a byte each.
fn check_count(bytes: &[u8], header: &BatchHeader) -> Result<(), Refusal> {
    let least = if header.compression()? == Compression::None { LEAST_RECORD } else { 1 };
    let plausible = (bytes.len() - HEADER_LEN) / least;
    if header.count as usize <= plausible {
        return Ok(());
    }
    Ok(sabir_model::batch::check_count(bytes, WALK_LIMIT)?)
}

fn check_time(header: &BatchHeader, topic: &TopicConfig, now_ms: i64) -> Result<(), Refusal> {
    if header.timestamp_type() == TimestampType::LogAppendTime {
        let message = "only brokers stamp batches with their own time";
        return Err(Refusal::malformed(ErrorCode::InvalidTimestamp, message));
    }
    if topic.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let oldest = now_ms.saturating_sub(topic.timestamp_before_max_ms);
    let newest = now_ms.saturating_add(topic.timestamp_after_max_ms);
    let (first, last) = (header.base_timestamp, header.max_timestamp);
    // A record without a time carries -1.
    let outside = |time: i64| time >= 0 && !(oldest..=newest).contains(&time);
    if outside(first) || outside(last) {
        let message = format!(
            "the batch's times {first} to {last} are not within {oldest} to {newest} (message.timestamp.before.max.ms, \
             message.timestamp.after.max.ms)"
        );
        return Err(Refusal::new(ErrorCode::InvalidTimestamp, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sabir_model::ProducerId;
    use sabir_model::batch::BatchBuilder;

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
        let bytes = Bytes::copy_from_slice(bytes);
        check(Some(&bytes), version, &TopicConfig::default(), NOW).err().map(|refusal| refusal.code)
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
            (21, &[0, 0x08], ErrorCode::InvalidTimestamp),
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
        let taken = |batch: &Bytes, topic: &TopicConfig| take(Some(batch.clone()), 13, topic, NOW + 50);
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
        let refused = |topic: &TopicConfig, now| check(Some(&bytes), 13, topic, now).err().map(|r| r.code);
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
