//! The same records under another codec.

use std::cell::RefCell;
use std::io::{self, Read, Write};

use bytes::Bytes;

use super::check::{InputPieces, Pauses, with_context};
use super::compress::{Bounded, Effort, PIECE};
use super::header::{rewrite_header, whole};
use super::lz4::Lz4Reader;
use super::{BatchError, BatchHeader, Compression, HEADER_LEN};

/// What becomes of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anew {
    /// Its codec.
    pub codec: Compression,
    pub effort: Effort,
    /// The most bytes that it may have, with its header.
    pub most: usize,
    /// What it may take to decompress it.
    pub memory: usize,
}

/// A [checked](super::check_records) batch, whose records have so many bytes, with these compressed anew, or `None` if it had too many bytes
/// so. All else of the header stays. Neither what it was nor what it becomes is ever held uncompressed, but for snappy. `pause` is
/// called now and then, for the thread to be lent to others.
///
/// # Errors
/// Records that do not decompress.
pub(super) fn recompress(
    batch: &[u8],
    bytes: usize,
    anew: Anew,
    pause: &mut dyn FnMut(),
) -> Result<Option<Bytes>, BatchError> {
    let mut header = BatchHeader::parse(batch)?;
    let body = &whole(batch, &header)?[HEADER_LEN..];
    let (from, pauses) = (header.compression()?, Pauses(RefCell::new(pause)));
    let mut out = vec![0; HEADER_LEN];
    let mut bounded = Bounded::new(&mut out, anew.most);
    let encoded = decompressed(from, body, bytes, anew.memory, &pauses, |records| {
        anew.codec
            .encode(anew.effort, bytes, &mut bounded, |encoder| copy(&mut *records, encoder, &pauses))
            .map_err(|_| BatchError::Decompress(from))
    });
    if bounded.is_full {
        return Ok(None);
    }
    encoded?;
    header.attributes = header.attributes_with(anew.codec);
    let too_long = BatchError::Field { field: "length", value: out.len() as i64 };
    header.length = i32::try_from(out.len() - 12).map_err(|_| too_long)?;
    rewrite_header(&mut out, &mut header)?;
    Ok(Some(Bytes::from(out)))
}

/// Calls `work` with the records, decompressed as they are read.
fn decompressed(
    codec: Compression,
    body: &[u8],
    bytes: usize,
    memory: usize,
    pauses: &Pauses<'_>,
    mut work: impl FnMut(&mut dyn Read) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    match codec {
        // Nothing at all is no records in any codec.
        _ if body.is_empty() => work(&mut io::empty()),
        Compression::None => work(&mut &*body),
        Compression::Snappy => work(&mut &*codec.decompress(body, bytes)?),
        Compression::Lz4 => work(&mut Lz4Reader::strict(body)),
        Compression::Gzip => work(&mut flate2::bufread::GzDecoder::new(InputPieces::new(body, pauses))),
        Compression::Zstd => with_context(body, memory, |context| {
            work(&mut zstd::stream::read::Decoder::with_context(InputPieces::new(body, pauses), context))
        }),
    }
}

/// Writes all that is read, in pieces.
fn copy(from: &mut dyn Read, to: &mut dyn Write, pauses: &Pauses<'_>) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    while from.take(PIECE as u64).read_to_end(&mut piece)? > 0 {
        to.write_all(&piece)?;
        piece.clear();
        pauses.pause();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, check_records, records, verify_crc};
    use crate::{Offset, ProducerId};

    const LIMIT: usize = 1 << 20;

    fn anew(batch: &[u8], codec: Compression, level: Option<i32>, most: usize) -> Option<Bytes> {
        let found = check_records(batch, LIMIT, &mut || {}).unwrap();
        let effort = Effort { level, memory: usize::MAX };
        let anew = Anew { codec, effort, most, memory: usize::MAX };
        recompress(batch, found.bytes as usize, anew, &mut || {}).unwrap()
    }

    fn built(codec: Compression) -> Bytes {
        let mut builder = BatchBuilder::new(codec).producer(ProducerId(7), 3, 11).base_offset(Offset(5));
        for i in 0..200 {
            let value = format!("value {i} value {i} value {i}");
            builder.push(1000 + i, Some(b"k"), Some(value.as_bytes()), &[(b"h", None), (b"h", Some(b"1"))]);
        }
        builder.build()
    }

    #[test]
    fn every_codec_becomes_every_other_and_all_else_stays() {
        for from in Compression::ALL {
            let old = built(from);
            for to in Compression::ALL {
                let new = anew(&old, to, None, LIMIT).unwrap();
                verify_crc(&new).unwrap();
                let (before, after) = (BatchHeader::parse(&old).unwrap(), BatchHeader::parse(&new).unwrap());
                assert_eq!(after.compression(), Ok(to));
                assert_eq!(after.total_len(), new.len());
                let but_for = BatchHeader {
                    attributes: before.attributes,
                    crc: before.crc,
                    length: before.length,
                    ..after
                };
                assert_eq!(but_for, before);
                let (old, new) = (records(&old, LIMIT).unwrap(), records(&new, LIMIT).unwrap());
                assert!(old.iter().eq(new.iter()), "{from} to {to}");
            }
        }
    }

    #[test]
    fn attributes_that_mean_nothing_or_are_the_brokers_are_left_out() {
        let mut old = built(Compression::None).to_vec();
        old[21..23].copy_from_slice(&0x7fc0i16.to_be_bytes());
        let new = anew(&old, Compression::Zstd, None, LIMIT).unwrap();
        assert_eq!(BatchHeader::parse(&new).unwrap().attributes, 4);
    }

    #[test]
    fn levels_differ_in_what_they_save() {
        let plain = built(Compression::None);
        let size = |codec, level| anew(&plain, codec, Some(level), LIMIT).unwrap().len();
        assert!(size(Compression::Gzip, 9) < size(Compression::Gzip, 0));
        assert!(size(Compression::Zstd, 19) <= size(Compression::Zstd, -50));
        assert_eq!(size(Compression::Gzip, 99), size(Compression::Gzip, 9), "the nearest");
    }

    #[test]
    fn what_would_have_too_many_bytes_is_none() {
        let old = built(Compression::Gzip);
        for codec in Compression::ALL {
            let len = anew(&old, codec, None, LIMIT).unwrap().len();
            assert_eq!(anew(&old, codec, None, len).map(|new| new.len()), Some(len), "{codec}");
            assert_eq!(anew(&old, codec, None, len - 1), None, "{codec}");
        }
    }
}
