//! What a produced batch must be beside what the log asks of every batch, and Kafka's codes for what is refused.

use std::ops::Range;

use bytes::Bytes;
use sabir_broker::{AppendRefusal, AppendTarget};
use sabir_model::ErrorAbout;
use sabir_model::batch::{BatchCheck, BatchError, BatchHeader, BatchRefusal, Compression, InlineBudget};

use super::transactions::{NO_TRANSACTIONS, WHY_NOT};
use crate::wire::ErrorCode;

/// The first version of Produce whose clients know zstd.
const ZSTD_SINCE: i16 = 7;

/// Why a batch is refused: the code, what was wrong with it, and whether its bytes were damaged or malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    pub malformed: bool,
    /// Whether it is for what is not built, and not for what its client did wrong.
    pub unserved: bool,
    /// The places in the batch of the records that it is for, as runs, if it is not for all.
    pub records: Vec<Range<u32>>,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), malformed: false, unserved: false, records: Vec::new() }
    }

    /// Of what is of a transaction.
    pub fn transactional() -> Self {
        Self { unserved: true, ..Self::new(NO_TRANSACTIONS, WHY_NOT) }
    }
}

impl From<AppendRefusal> for Refusal {
    fn from(refusal: AppendRefusal) -> Self {
        ErrorAbout::from(refusal).into()
    }
}

impl From<ErrorAbout<AppendRefusal>> for Refusal {
    fn from(refusal: ErrorAbout<AppendRefusal>) -> Self {
        let code = match refusal.error {
            AppendRefusal::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            AppendRefusal::Internal => ErrorCode::InvalidTopic,
            AppendRefusal::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
            // A producer that sends it again has it checked by the rules of then.
            AppendRefusal::OtherRules => ErrorCode::NotLeaderOrFollower,
            // It says none.
            AppendRefusal::OtherFacts => ErrorCode::InvalidRecord,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<BatchRefusal> for Refusal {
    fn from(refusal: BatchRefusal) -> Self {
        if refusal == BatchRefusal::Transactional {
            return Self::transactional();
        }
        let (code, setting) = match &refusal {
            BatchRefusal::Malformed(error) => (malformed_code(error), ""),
            BatchRefusal::TooLarge { .. }
            | BatchRefusal::TooLargeUncompressed { .. }
            | BatchRefusal::TooLargeAnew { .. } => (ErrorCode::MessageTooLarge, " (max.message.bytes)"),
            BatchRefusal::Facts => (ErrorCode::MessageTooLarge, ""),
            BatchRefusal::Empty | BatchRefusal::SeveralBatches | BatchRefusal::Control => {
                (ErrorCode::InvalidRecord, "")
            }
            BatchRefusal::Transactional => (NO_TRANSACTIONS, ""),
            BatchRefusal::ProducerEpoch(_) => (ErrorCode::InvalidProducerEpoch, ""),
            BatchRefusal::Time { .. } => {
                let settings = " (message.timestamp.before.max.ms, message.timestamp.after.max.ms)";
                (ErrorCode::InvalidTimestamp, settings)
            }
            BatchRefusal::Stamped => (ErrorCode::InvalidTimestamp, ""),
            BatchRefusal::Failed => (ErrorCode::UnknownServerError, ""),
        };
        let (message, malformed) = (format!("{refusal}{setting}"), refusal.is_malformed());
        let records = if let BatchRefusal::Time { records, .. } = refusal { records } else { Vec::new() };
        Self { code, message, malformed, unserved: false, records }
    }
}

fn malformed_code(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Crc { .. } => ErrorCode::CorruptMessage,
        BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
        BatchError::TooLarge { .. } | BatchError::Window { .. } => ErrorCode::MessageTooLarge,
        // Not CORRUPT_MESSAGE: clients send that again, and it would be no better.
        BatchError::Truncated { .. }
        | BatchError::Magic(_)
        | BatchError::Field { .. }
        | BatchError::Decompress(_)
        | BatchError::Record { .. } => ErrorCode::InvalidRecord,
    }
}

/// Begins to take what one partition of a request of this version carries.
pub(super) fn begin(
    records: Option<Bytes>,
    version: i16,
    target: &AppendTarget,
    wall_ms: i64,
    budget: &mut InlineBudget,
) -> Result<BatchCheck, Refusal> {
    let check = target.check(records.unwrap_or_default(), wall_ms, budget)?;
    check_served(check.header(), version)?;
    Ok(check)
}

fn check_served(header: &BatchHeader, version: i16) -> Result<(), Refusal> {
    if header.compression() == Ok(Compression::Zstd) && version < ZSTD_SINCE {
        let message = format!("zstd needs version {ZSTD_SINCE} of Produce");
        return Err(Refusal::new(ErrorCode::UnsupportedCompressionType, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sabir_broker::{AppendAcks, Partition, Topic};
    use sabir_model::batch::{BatchBuilder, verify_crc};
    use sabir_model::{
        FrontendNo, PartitionId, ProducerId, ShardId, TimestampType, TopicConfig, TopicId, ValidConfig,
    };
    use sabir_net::{Checks, Workers};

    use super::*;

    type Taken = (Bytes, BatchHeader);

    const INLINE: usize = 256 << 10;
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
        inline: usize,
    ) -> Result<Taken, Refusal> {
        let topic = Arc::new(Topic {
            id: TopicId([1; 16]),
            name: "t".into(),
            namespace: "/".into(),
            version: 1,
            config: ValidConfig::trusted(config.clone()),
            partitions: vec![Partition { index: 0, id: PartitionId(1), shard: ShardId(1), epoch_base: 0 }],
            internal: false,
            made_by: FrontendNo::NONE,
            traffic: Arc::default(),
        });
        let target = AppendTarget::new(
            &sabir_broker::Caller::OPERATOR,
            &topic,
            0,
            AppendAcks::Leader,
            FrontendNo::NONE,
        )
        .expect("it has the partition");
        let taken = match begin(Some(bytes.clone()), version, &target, now, &mut InlineBudget(inline))? {
            BatchCheck::Done(taken) => taken,
            BatchCheck::Long(long) => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it is made");
                let mut checks = Checks::from(vec![BatchCheck::Long(long)]);
                let workers = Workers::of_node(512 << 20);
                runtime.block_on(workers.check_next(&mut checks)).pop().expect("it is ended")?
            }
        };
        Ok((taken.bytes().clone(), *taken.header()))
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
            refusal.message.ends_with("the batch has more (max.message.bytes)"),
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
