//! The same records under another codec.

use bytes::Bytes;

use super::header::rewrite_header;
use super::records::records;
use super::{BatchError, Compression, HEADER_LEN};

/// The batch at the front of `batch` with its records compressed by `codec`, at `level` where it has levels. All else of the header
/// stays, and the records are walked, since no reader of the new batch can tell that the old one was malformed. `pause` is called now
/// and then, for the thread to be lent to others.
///
/// # Errors
/// What [`BatchHeader::parse`](super::BatchHeader::parse) refuses, a cut batch, records that do not decompress, exceed `limit` bytes
/// or are malformed.
pub fn recompress(
    batch: &[u8],
    codec: Compression,
    level: Option<i32>,
    limit: usize,
    pause: &mut dyn FnMut(),
) -> Result<Bytes, BatchError> {
    let records = records(batch, limit)?;
    for record in &records {
        record?;
    }
    let mut header = *records.header();
    let mut out = vec![0; HEADER_LEN];
    codec.compress_at(level, records.body(), &mut out, pause);
    header.attributes = header.attributes_with(codec);
    let too_long = BatchError::Field { field: "length", value: out.len() as i64 };
    header.length = i32::try_from(out.len() - 12).map_err(|_| too_long)?;
    rewrite_header(&mut out, &mut header)?;
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BatchHeader, verify_crc};
    use crate::{Offset, ProducerId};

    const LIMIT: usize = 1 << 20;

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
                let new = recompress(&old, to, None, LIMIT, &mut || {}).unwrap();
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
        let new = recompress(&old, Compression::Zstd, None, LIMIT, &mut || {}).unwrap();
        assert_eq!(BatchHeader::parse(&new).unwrap().attributes, 4);
    }

    #[test]
    fn levels_differ_in_what_they_save() {
        let plain = built(Compression::None);
        let size = |codec, level| recompress(&plain, codec, Some(level), LIMIT, &mut || {}).unwrap().len();
        assert!(size(Compression::Gzip, 9) < size(Compression::Gzip, 0));
        assert!(size(Compression::Zstd, 19) <= size(Compression::Zstd, -50));
        assert_eq!(size(Compression::Gzip, 99), size(Compression::Gzip, 9), "the nearest");
    }

    #[test]
    fn malformed_records_and_bombs_are_refused() {
        let mut bad = built(Compression::None).to_vec();
        bad[61] ^= 0x40;
        assert!(matches!(
            recompress(&bad, Compression::Zstd, None, LIMIT, &mut || {}),
            Err(BatchError::Record { .. })
        ));
        let bomb = built(Compression::Gzip);
        let refused = recompress(&bomb, Compression::Zstd, None, 100, &mut || {});
        assert_eq!(refused, Err(BatchError::TooLarge { limit: 100 }));
    }
}
