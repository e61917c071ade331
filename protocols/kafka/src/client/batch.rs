//! Batches under construction: each record goes straight into the buffer that is sent.

use bytes::Bytes;
use sabir_base::crc::crc32c;
use sabir_model::batch::{BatchHeader, Compression, HEADER_LEN};
use sabir_model::{LeaderEpoch, Offset, ProducerId};

/// Where the bytes that the CRC covers begin.
const CRC_FROM: usize = 21;
/// Length and offset's place in the header: the length counts what follows it.
const LENGTH_COVERS_FROM: usize = 12;

/// A record to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// What places it and compacts it.
    pub key: Option<&'a [u8]>,
    /// Its content; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers in order; names may repeat, a value may be absent.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
    /// Milliseconds since the epoch; the time of the call where absent.
    pub timestamp: Option<i64>,
}

impl<'a> Record<'a> {
    /// A record without a key.
    pub fn value(value: &'a [u8]) -> Self {
        Self { value: Some(value), ..Self::default() }
    }

    /// A record with a key.
    pub fn keyed(key: &'a [u8], value: &'a [u8]) -> Self {
        Self { key: Some(key), ..Self::value(value) }
    }

    /// Bytes it takes in a batch, at most.
    pub fn size_bound(&self) -> usize {
        let field = |f: Option<&[u8]>| 5 + f.map_or(0, <[u8]>::len);
        let headers: usize = self.headers.iter().map(|(key, value)| 5 + key.len() + field(*value)).sum();
        26 + field(self.key) + field(self.value) + headers
    }
}

/// What numbers the batches of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbering {
    pub producer: ProducerId,
    pub epoch: i16,
    pub base_sequence: i32,
}

/// One batch, filled record by record.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    bytes: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Filling {
    /// An empty batch in a buffer that may have been used before.
    pub fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEADER_LEN, 0);
        Self { bytes: buffer, ..Self::default() }
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes so far, before compression.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a record; `now_ms` is its time if it has none of its own.
    pub fn push(&mut self, record: &Record<'_>, now_ms: i64) {
        let timestamp = record.timestamp.unwrap_or(now_ms);
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let mut head = Head::default();
        head.put(0); // attributes
        head.varint(timestamp.wrapping_sub(self.base_timestamp));
        head.varint(self.count.into());
        head.varint(record.key.map_or(-1, |key| key.len() as i64));
        self.count += 1;

        let (key, value) = (record.key.unwrap_or_default(), record.value.unwrap_or_default());
        let mut middle = Head::default();
        middle.varint(record.value.map_or(-1, |value| value.len() as i64));
        let mut tail = Head::default();
        tail.varint(record.headers.len() as i64);
        let headers: usize = record.headers.iter().map(|&(key, value)| header_len(key, value)).sum();
        let length = head.len + key.len() + middle.len + value.len() + tail.len + headers;

        let mut prefix = Head::default();
        prefix.varint(length as i64);
        self.bytes.reserve(prefix.len + length);
        self.bytes.extend_from_slice(prefix.filled());
        self.bytes.extend_from_slice(head.filled());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(middle.filled());
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(tail.filled());
        for &(key, value) in record.headers {
            self.push_field(Some(key));
            self.push_field(value);
        }
    }

    fn push_field(&mut self, field: Option<&[u8]>) {
        let mut length = Head::default();
        length.varint(field.map_or(-1, |f| f.len() as i64));
        self.bytes.extend_from_slice(length.filled());
        self.bytes.extend_from_slice(field.unwrap_or_default());
    }

    /// The batch as it is sent, and the buffer if it is not in it (it was compressed into another).
    pub fn seal(
        self,
        compression: Compression,
        numbering: Option<Numbering>,
        spare: impl FnOnce() -> Vec<u8>,
    ) -> (Bytes, Option<Vec<u8>>) {
        let (mut bytes, raw) = match compression {
            Compression::None => (self.bytes, None),
            codec => {
                let mut packed = spare();
                packed.clear();
                packed.resize(HEADER_LEN, 0);
                codec.compress(&self.bytes[HEADER_LEN..], &mut packed);
                (packed, Some(self.bytes))
            }
        };
        let numbering =
            numbering.unwrap_or(Numbering { producer: ProducerId::NONE, epoch: -1, base_sequence: -1 });
        let mut header = BatchHeader {
            base_offset: Offset::ZERO,
            length: (bytes.len() - LENGTH_COVERS_FROM) as i32,
            leader_epoch: LeaderEpoch::UNKNOWN,
            crc: 0,
            attributes: compression as i16,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: numbering.producer,
            producer_epoch: numbering.epoch,
            base_sequence: numbering.base_sequence,
            count: self.count,
        };
        write_header(&header, &mut bytes);
        header.crc = crc32c(&bytes[CRC_FROM..]);
        write_header(&header, &mut bytes);
        (Bytes::from(bytes), raw)
    }
}

fn write_header(header: &BatchHeader, bytes: &mut [u8]) {
    header.write(bytes.first_chunk_mut().expect("a batch begins with room for its header"));
}

fn header_len(key: &[u8], value: Option<&[u8]>) -> usize {
    let mut lengths = Head::default();
    lengths.varint(key.len() as i64);
    lengths.varint(value.map_or(-1, |v| v.len() as i64));
    lengths.len + key.len() + value.map_or(0, <[u8]>::len)
}

/// A few varints on the stack.
#[derive(Default)]
struct Head {
    bytes: [u8; 32],
    len: usize,
}

impl Head {
    fn put(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn varint(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            self.put(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.put(rest as u8);
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use sabir_model::batch::{BatchBuilder, records, verify_crc};

    use super::*;

    const HEADERS: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];

    fn mixed() -> [Record<'static>; 5] {
        let large = &[b'x'; 9000];
        [
            Record { timestamp: Some(1_000_000), ..Record::value(b"first") },
            Record { timestamp: Some(999_000), headers: HEADERS, ..Record::keyed(b"key", b"") },
            Record { timestamp: Some(2_000_000_000), ..Record::value(large) },
            Record { key: Some(b""), value: None, ..Record::default() },
            Record::keyed(large, large),
        ]
    }

    #[test]
    fn the_same_bytes_as_the_builder_makes() {
        let mut fill = Filling::new(vec![7; 100]);
        let mut builder = BatchBuilder::new(Compression::None).producer(ProducerId(77), 3, 42);
        for record in mixed() {
            let before = fill.len();
            fill.push(&record, 5_000_000);
            assert!(fill.len() - before <= record.size_bound());
            builder.push(record.timestamp.unwrap_or(5_000_000), record.key, record.value, record.headers);
        }
        let numbering = Numbering { producer: ProducerId(77), epoch: 3, base_sequence: 42 };
        let (bytes, raw) = fill.seal(Compression::None, Some(numbering), || unreachable!("not compressed"));
        assert_eq!(raw, None);
        assert_eq!(bytes, builder.build());
    }

    #[test]
    fn every_codec_is_read_back() {
        for codec in Compression::ALL {
            let mut fill = Filling::new(Vec::new());
            mixed().iter().for_each(|record| fill.push(record, 5_000_000));
            let (bytes, raw) = fill.seal(codec, None, Vec::new);
            assert_eq!(raw.is_some(), codec != Compression::None);
            verify_crc(&bytes).unwrap();
            let walked = records(&bytes, 1 << 20).unwrap();
            assert_eq!(walked.iter().count(), 5);
            for (view, record) in walked.iter().zip(mixed()) {
                let view = view.unwrap();
                assert_eq!((view.key, view.value), (record.key, record.value));
                assert_eq!(view.timestamp, record.timestamp.unwrap_or(5_000_000));
                assert_eq!(view.headers.map(|h| (h.key, h.value)).collect::<Vec<_>>(), record.headers);
            }
        }
    }
}
