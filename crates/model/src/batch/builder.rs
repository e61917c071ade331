//! Making batches.

use bytes::Bytes;
use sabir_base::crc::crc32c;
use sabir_base::varint::{put_i64, put_u64};

use super::header::attributes;
use super::{BatchHeader, Compression, HEADER_LEN, RecordSummary};
use crate::{LeaderEpoch, Offset, ProducerId};

/// Builds one batch, record by record.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    compression: Compression,
    base_offset: Offset,
    base_timestamp: i64,
    max_timestamp: i64,
    times: RecordSummary,
    producer: (ProducerId, i16, i32),
    transactional: bool,
    control: bool,
    last_offset_delta: i32,
    count: i32,
    /// Room for the header, then the records as they are before compression.
    bytes: Vec<u8>,
    /// The record that is pushed, without its value.
    scratch: Vec<u8>,
}

/// The most bytes of a record's length.
const LONGEST_LENGTH: usize = 5;

impl BatchBuilder {
    /// An empty batch with base offset 0.
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            base_offset: Offset::ZERO,
            base_timestamp: -1,
            max_timestamp: -1,
            times: RecordSummary::NONE,
            producer: (ProducerId::NONE, -1, -1),
            transactional: false,
            control: false,
            last_offset_delta: -1,
            count: 0,
            bytes: vec![0; HEADER_LEN],
            scratch: Vec::new(),
        }
    }

    /// Sets the base offset.
    #[must_use]
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.base_offset = offset;
        self
    }

    /// Makes it an idempotent producer's batch.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Makes it part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.transactional = true;
        self
    }

    /// Makes it a batch of markers.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.control = true;
        self
    }

    /// Appends a record at the next offset. A header's value may be absent; duplicates of its key are kept.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        self.push_at(self.last_offset_delta + 1, timestamp, key, value, headers);
    }

    /// Appends a record `delta` behind the base offset, leaving a gap to the one before.
    ///
    /// # Panics
    /// If `delta` does not rise.
    pub fn push_at(
        &mut self,
        delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        assert!(delta > self.last_offset_delta, "offsets rise within a batch");
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.times.add(timestamp);
        self.last_offset_delta = delta;
        self.count += 1;

        let record = &mut self.scratch;
        record.clear();
        record.push(0);
        put_i64(record, timestamp.wrapping_sub(self.base_timestamp));
        put_i64(record, delta.into());
        put_nullable(record, key);
        put_i64(record, value.map_or(-1, |value| value.len() as i64));
        // A value may be large: it is copied once, to where it stays.
        let (value_at, value) = (record.len(), value.unwrap_or_default());
        put_u64(record, (headers.len() as u64) << 1);
        for &(key, value) in headers {
            put_nullable(record, Some(key));
            put_nullable(record, value);
        }
        let len = record.len() + value.len();
        self.bytes.reserve(LONGEST_LENGTH + len);
        put_i64(&mut self.bytes, len as i64);
        self.bytes.extend_from_slice(&record[..value_at]);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(&record[value_at..]);
    }

    /// Lets the batch cover offsets to `delta` behind its base although no record stands there.
    pub fn cover(&mut self, delta: i32) {
        self.last_offset_delta = self.last_offset_delta.max(delta);
    }

    /// How many records it holds.
    pub fn count(&self) -> u32 {
        self.count as u32
    }

    /// Bytes it has so far, before compression.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What the records have together.
    pub(super) fn summary(&self) -> RecordSummary {
        RecordSummary { bytes: (self.bytes.len() - HEADER_LEN) as u64, ..self.times }
    }

    /// The batch. One without records must [`cover`](Self::cover) something, or readers refuse it.
    pub fn build(self) -> Bytes {
        let codec = self.compression;
        self.build_with(codec, None)
    }

    /// The batch in another codec, at a level where that has levels.
    pub(super) fn build_with(self, codec: Compression, level: Option<i32>) -> Bytes {
        let mut bytes = match codec {
            Compression::None => self.bytes,
            codec => {
                let mut out = vec![0; HEADER_LEN];
                codec.compress_at(level, &self.bytes[HEADER_LEN..], &mut out, &mut || {});
                out
            }
        };
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            length: (bytes.len() - 12) as i32,
            leader_epoch: LeaderEpoch::UNKNOWN,
            crc: 0,
            attributes: attributes(codec, self.transactional, self.control),
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            count: self.count,
        };
        write_header(&header, &mut bytes);
        header.crc = crc32c(&bytes[21..]);
        write_header(&header, &mut bytes);
        Bytes::from(bytes)
    }
}

fn write_header(header: &BatchHeader, bytes: &mut [u8]) {
    header.write(bytes.first_chunk_mut().expect("room for the header is made first"));
}

fn put_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_i64(out, -1),
        Some(field) => {
            put_i64(out, field.len() as i64);
            out.extend_from_slice(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::records;

    #[test]
    fn a_large_value_is_copied_once_to_where_it_stays() {
        let (value, headers) = (vec![7; 3 << 20], [(b"h".as_slice(), Some(b"1".as_slice())), (b"i", None)]);
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(5, Some(b"k"), Some(&value), &headers);
        assert!(builder.scratch.capacity() < 1000 && builder.bytes.capacity() < value.len() + 1000);
        builder.push(6, None, None, &[]);
        let batch = builder.build();
        let read = records(&batch, 4 << 20).unwrap();
        let read: Vec<_> = read.iter().map(|record| record.unwrap()).collect();
        assert_eq!((read[0].key, read[0].value), (Some(b"k".as_slice()), Some(&value[..])));
        assert_eq!(read[0].headers.len(), 2);
        assert_eq!((read[1].key, read[1].value, read[1].timestamp), (None, None, 6));
    }
}
