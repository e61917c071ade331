//! The batch header: reading it, checking it, and the two patches that leave the CRC alone.

use sabir_base::crc::crc32c;

use super::{BatchError, Compression};
use crate::{LeaderEpoch, Offset, ProducerId, TimestampType};

/// Bytes of the header.
pub const HEADER_LEN: usize = 61;
/// Bytes that the length field does not count: base offset and the length itself.
const LENGTH_BASE: usize = 12;
/// Where the CRC-covered part begins.
const CRC_FROM: usize = 21;

const CODEC: i16 = 7;
const TIMESTAMP_TYPE: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
/// All that mean something: those above, and that the base timestamp is when deleted records go.
const KNOWN: i16 = CODEC | TIMESTAMP_TYPE | TRANSACTIONAL | CONTROL | 1 << 6;

/// The header of a v2 batch, as it is in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The first record's offset.
    pub base_offset: Offset,
    /// Bytes behind the length field.
    pub length: i32,
    /// The leader epoch it was appended in.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of all from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control.
    pub attributes: i16,
    /// The last record's offset less the first's.
    pub last_offset_delta: i32,
    /// Milliseconds since the epoch that the records' deltas count from.
    pub base_timestamp: i64,
    /// The largest timestamp, or the append time if the broker stamped it.
    pub max_timestamp: i64,
    /// The idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// The first record's sequence number, or -1.
    pub base_sequence: i32,
    /// How many records the batch says it holds. Believe it only after a walk.
    pub count: i32,
}

impl BatchHeader {
    /// Reads the header at the front of `bytes`. What follows the batch does not matter; its records and CRC are not looked at.
    ///
    /// # Errors
    /// Fewer bytes than a header, another message format, a length, count or delta that no batch can have.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        check_format(bytes)?;
        let head: &[u8; HEADER_LEN] =
            bytes.first_chunk().ok_or(BatchError::Truncated { need: HEADER_LEN, have: bytes.len() })?;
        let header = Self {
            base_offset: Offset(i64::from_be_bytes(at(head, 0))),
            length: i32::from_be_bytes(at(head, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(at(head, 12))),
            crc: u32::from_be_bytes(at(head, 17)),
            attributes: i16::from_be_bytes(at(head, 21)),
            last_offset_delta: i32::from_be_bytes(at(head, 23)),
            base_timestamp: i64::from_be_bytes(at(head, 27)),
            max_timestamp: i64::from_be_bytes(at(head, 35)),
            producer_id: ProducerId(i64::from_be_bytes(at(head, 43))),
            producer_epoch: i16::from_be_bytes(at(head, 51)),
            base_sequence: i32::from_be_bytes(at(head, 53)),
            count: i32::from_be_bytes(at(head, 57)),
        };
        header.check_ranges()?;
        Ok(header)
    }

    fn check_ranges(&self) -> Result<(), BatchError> {
        let smallest = (HEADER_LEN - LENGTH_BASE) as i32;
        check("length", self.length, self.length >= smallest)?;
        check("record count", self.count, self.count >= 0)?;
        check("last offset delta", self.last_offset_delta, self.last_offset_delta >= 0)?;
        // An empty batch stands for a range of offsets whose records are gone; a record takes seven bytes at the least.
        check("record count", self.count, i64::from(self.count) <= i64::from(self.last_offset_delta) + 1)?;
        Ok(())
    }

    /// What a producer's batch must also satisfy: offsets without gaps, at least one record, a known codec, and a sequence where
    /// there is a producer. Attributes that mean nothing here stay as they came.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check_produced(&self) -> Result<(), BatchError> {
        check("record count", self.count, self.count >= 1)?;
        check("last offset delta", self.last_offset_delta, self.last_offset_delta == self.count - 1)?;
        self.compression()?;
        if self.producer_id.known().is_some() {
            check("base sequence", self.base_sequence, self.base_sequence >= 0 || self.is_control())?;
        }
        Ok(())
    }

    /// Bytes of the whole batch.
    pub fn total_len(&self) -> usize {
        self.length as usize + LENGTH_BASE
    }

    /// The last record's offset.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether it holds markers for the broker's use, not records.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// A codec that does not exist.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_attributes(self.attributes)
    }

    /// The attributes of the same records under another codec, as Kafka writes them anew: those that a producer may set.
    pub(super) fn attributes_with(&self, codec: Compression) -> i16 {
        self.attributes & (TIMESTAMP_TYPE | TRANSACTIONAL | CONTROL) | i16::from(codec as u8)
    }

    /// Whose time the records carry.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Has the records carry their own times, whatever was said. Attributes that mean nothing are gone with that.
    pub fn set_create_time(&mut self) {
        self.attributes &= KNOWN & !TIMESTAMP_TYPE;
    }

    /// The sequence number of the last record; they wrap to 0 after the largest i32.
    pub fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last % (i64::from(i32::MAX) + 1)) as i32
    }

    /// Writes the header's bytes over the front of `out`, the CRC as it stands in `self`.
    pub fn write(&self, out: &mut [u8; HEADER_LEN]) {
        out[0..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.0.to_be_bytes());
        out[16] = 2;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.0.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.count.to_be_bytes());
    }
}

/// Puts a header over that of the batch, with the CRC that this makes; `header` gets it too.
///
/// # Errors
/// Fewer bytes than a header.
pub fn rewrite_header(batch: &mut [u8], header: &mut BatchHeader) -> Result<(), BatchError> {
    let have = batch.len();
    let head = batch.first_chunk_mut().ok_or(BatchError::Truncated { need: HEADER_LEN, have })?;
    header.write(head);
    header.crc = crc32c(&batch[CRC_FROM..]);
    batch[CRC_FROM - 4..CRC_FROM].copy_from_slice(&header.crc.to_be_bytes());
    Ok(())
}

/// The attribute bits of a batch with this codec and these marks.
pub(super) fn attributes(compression: Compression, transactional: bool, control: bool) -> i16 {
    let mark = |on: bool, bit: i16| if on { bit } else { 0 };
    i16::from(compression as u8) | mark(transactional, TRANSACTIONAL) | mark(control, CONTROL)
}

/// The magic stands at the same place in every format, so an old one is named rather than called cut.
fn check_format(bytes: &[u8]) -> Result<(), BatchError> {
    match bytes.get(16) {
        Some(2) => Ok(()),
        Some(&other) => Err(BatchError::Magic(other as i8)),
        None => Err(BatchError::Truncated { need: HEADER_LEN, have: bytes.len() }),
    }
}

fn check(field: &'static str, value: i32, ok: bool) -> Result<(), BatchError> {
    if ok { Ok(()) } else { Err(BatchError::Field { field, value: value.into() }) }
}

fn at<const N: usize>(head: &[u8; HEADER_LEN], from: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&head[from..from + N]);
    field
}

/// Checks the CRC of the batch at the front of `bytes`, which must hold all of it.
///
/// # Errors
/// What [`BatchHeader::parse`] refuses, a cut batch, a CRC that does not fit.
pub fn verify_crc(bytes: &[u8]) -> Result<(), BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let computed = crc32c(&whole(bytes, &header)?[CRC_FROM..]);
    if computed == header.crc { Ok(()) } else { Err(BatchError::Crc { stored: header.crc, computed }) }
}

/// Exactly the batch's bytes.
pub(super) fn whole<'a>(bytes: &'a [u8], header: &BatchHeader) -> Result<&'a [u8], BatchError> {
    let need = header.total_len();
    bytes.get(..need).ok_or(BatchError::Truncated { need, have: bytes.len() })
}

/// Sets the base offset, which the CRC does not cover.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn patch_base_offset(batch: &mut [u8], offset: Offset) {
    batch[..8].copy_from_slice(&offset.0.to_be_bytes());
}

/// Sets the leader epoch, which the CRC does not cover.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn patch_leader_epoch(batch: &mut [u8], epoch: LeaderEpoch) {
    batch[12..16].copy_from_slice(&epoch.0.to_be_bytes());
}

/// Marks the batch as stamped by the broker at `now_ms` and redoes its CRC. The records' own timestamps stay; readers of a
/// stamped batch take the header's.
///
/// # Errors
/// What [`BatchHeader::parse`] refuses, a cut batch.
pub fn stamp_log_append_time(batch: &mut [u8], now_ms: i64) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    let len = whole(batch, &header)?.len();
    batch[21..23].copy_from_slice(&(header.attributes & KNOWN | TIMESTAMP_TYPE).to_be_bytes());
    batch[35..43].copy_from_slice(&now_ms.to_be_bytes());
    let crc = crc32c(&batch[CRC_FROM..len]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}
