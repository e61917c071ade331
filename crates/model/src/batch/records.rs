//! Walking the records of a batch.

use std::borrow::Cow;

use bytes::Bytes;
use sabir_base::varint::{take_i32, take_i64, take_u32};

use super::header::whole;
use super::{BatchError, BatchHeader, Compression, HEADER_LEN};
use crate::{Offset, TimestampType};

/// The records of the batch at the front of `bytes`, decompressed to at most `limit` bytes. The CRC is not checked.
///
/// # Errors
/// What [`BatchHeader::parse`] refuses, a cut batch, records that do not decompress or exceed `limit`.
pub fn records(bytes: &[u8], limit: usize) -> Result<Records<'_>, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let body = &whole(bytes, &header)?[HEADER_LEN..];
    Ok(Records::new(header, header.compression()?.decompress(body, limit)?))
}

/// Walks the records of the batch at the front of `bytes` from where another walk over them was, without copying: the batch is not compressed, or was made so
/// by [`Records::uncompressed`].
///
/// # Errors
/// What [`BatchHeader::parse`] refuses, a cut batch, one that is compressed.
pub fn uncompressed_records(bytes: &[u8], place: RecordsPlace) -> Result<RecordsIter<'_>, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    match header.compression()? {
        Compression::None => Ok(RecordsIter::new(header, &whole(bytes, &header)?[HEADER_LEN..], place)),
        compressed => Err(BatchError::Decompress(compressed)),
    }
}

/// A batch's records, decompressed.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    header: BatchHeader,
    body: Cow<'a, [u8]>,
}

impl<'a> Records<'a> {
    pub(super) fn new(header: BatchHeader, body: Cow<'a, [u8]>) -> Self {
        Self { header, body }
    }
}

impl Records<'_> {
    /// The batch's header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of the records, decompressed.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The batch as it would be uncompressed, for [`records`] alone: its checksum is that of what it was made of. Ready at once where it is not compressed.
    pub fn uncompressed(&self, bytes: &Bytes) -> Bytes {
        let Cow::Owned(body) = &self.body else { return bytes.slice(..self.header.total_len()) };
        let mut whole = Vec::with_capacity(HEADER_LEN + body.len());
        whole.extend_from_slice(&bytes[..HEADER_LEN]);
        whole.extend_from_slice(body);
        let header = BatchHeader {
            length: (whole.len() - 12) as i32,
            attributes: self.header.attributes_with(Compression::None),
            ..self.header
        };
        header.write(whole.first_chunk_mut().expect("a header was put there"));
        whole.into()
    }

    /// Walks the records from where another walk over them was.
    pub fn iter_from(&self, place: RecordsPlace) -> RecordsIter<'_> {
        RecordsIter::new(self.header, &self.body, place)
    }

    /// Walks the records. The first malformed one is the last item, an error; so is a number of records other than the
    /// header's.
    pub fn iter(&self) -> RecordsIter<'_> {
        self.iter_from(RecordsPlace::default())
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = Result<RecordView<'a>, BatchError>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its offset, counted from the base offset that the batch carries.
    pub offset: Offset,
    /// Milliseconds since the epoch: its own, or the batch's append time where the broker stamped it.
    pub timestamp: i64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order, duplicates kept.
    pub headers: Headers<'a>,
}

/// A record's headers; the walk has checked them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: u32,
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Its name, UTF-8 by convention.
    pub key: &'a [u8],
    /// Its value, if it has one.
    pub value: Option<&'a [u8]>,
}

impl<'a> Headers<'a> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.left as usize
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = HeaderView<'a>;

    fn next(&mut self) -> Option<HeaderView<'a>> {
        self.left = self.left.checked_sub(1)?;
        take_header(&mut self.rest).ok()
    }
}

/// Where a walk over a batch's records is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordsPlace {
    byte: usize,
    index: u32,
}

/// The iterator over a batch's records.
#[derive(Debug, Clone)]
pub struct RecordsIter<'a> {
    header: BatchHeader,
    /// Bytes of all records.
    len: usize,
    rest: &'a [u8],
    index: u32,
    ended: bool,
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<RecordView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = match (self.index == self.header.count as u32, self.rest.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Err("bytes are left behind the last one")),
            (false, _) => Some(self.take()),
        };
        self.ended = !matches!(item, Some(Ok(_)));
        let index = self.index;
        self.index += 1;
        item.map(|item| item.map_err(|what| BatchError::Record { index, what }))
    }
}

impl<'a> RecordsIter<'a> {
    fn new(header: BatchHeader, body: &'a [u8], place: RecordsPlace) -> Self {
        let rest = body.get(place.byte..).unwrap_or_default();
        Self { header, len: body.len(), rest, index: place.index, ended: false }
    }

    /// Where it is.
    pub fn place(&self) -> RecordsPlace {
        RecordsPlace { byte: self.len - self.rest.len(), index: self.index }
    }

    fn take(&mut self) -> Result<RecordView<'a>, &'static str> {
        let len = take_i32(&mut self.rest).map_err(|_| "its length is cut or too long")?;
        let mut body = take_bytes(&mut self.rest, len).ok_or("it is longer than what is left")?;
        let record = take_record(&mut body, &self.header)?;
        if body.is_empty() { Ok(record) } else { Err("bytes are left behind its headers") }
    }
}

fn take_record<'a>(body: &mut &'a [u8], header: &BatchHeader) -> Result<RecordView<'a>, &'static str> {
    let (_attributes, rest) = body.split_first().ok_or("it is empty")?;
    *body = rest;
    let timestamp = take_i64(body).map_err(|_| "its timestamp is cut or too long")?;
    let delta = take_i32(body).map_err(|_| "its offset is cut or too long")?;
    if !(0..=header.last_offset_delta).contains(&delta) {
        return Err("its offset lies outside the batch");
    }
    Ok(RecordView {
        offset: Offset(header.base_offset.0.saturating_add(delta.into())),
        timestamp: match header.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp),
            TimestampType::LogAppendTime => header.max_timestamp,
        },
        key: take_nullable(body).map_err(|()| "its key is longer than the record")?,
        value: take_nullable(body).map_err(|()| "its value is longer than the record")?,
        headers: take_headers(body)?,
    })
}

/// Walks the headers once, so that handing them out later cannot fail.
fn take_headers<'a>(body: &mut &'a [u8]) -> Result<Headers<'a>, &'static str> {
    let left = take_u32_count(body).ok_or("its number of headers is cut or negative")?;
    let headers = Headers { rest: body, left };
    for _ in 0..left {
        take_header(body).map_err(|()| "a header is cut or negative")?;
    }
    Ok(headers)
}

fn take_u32_count(body: &mut &[u8]) -> Option<u32> {
    // Zigzag like all of a record's numbers, although a count cannot be negative.
    let raw = take_u32(body).ok()?;
    (raw & 1 == 0).then_some(raw >> 1)
}

fn take_header<'a>(body: &mut &'a [u8]) -> Result<HeaderView<'a>, ()> {
    let key = take_nullable(body)?.ok_or(())?;
    Ok(HeaderView { key, value: take_nullable(body)? })
}

/// A length of -1 is an absent field.
fn take_nullable<'a>(body: &mut &'a [u8]) -> Result<Option<&'a [u8]>, ()> {
    match take_i32(body).map_err(|_| ())? {
        -1 => Ok(None),
        len => take_bytes(body, len).map(Some).ok_or(()),
    }
}

fn take_bytes<'a>(input: &mut &'a [u8], len: i32) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(usize::try_from(len).ok()?)?;
    *input = rest;
    Some(head)
}
