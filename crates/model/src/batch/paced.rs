//! Decompressing a batch's records on a thread that is lent to others now and then.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Read;

use super::check::{InputPieces, PAUSE, Pauses, bounded, with_context};
use super::header::whole;
use super::lz4::Lz4Reader;
use super::records::Records;
use super::{BatchError, BatchHeader, Compression, HEADER_LEN};

/// As [`records`](super::records()), with `pause` called after every 256 KiB that come out, and at least as often by what goes in.
///
/// # Errors
/// The same.
pub fn records_paced<'a>(
    bytes: &'a [u8],
    limit: usize,
    pause: &mut dyn FnMut(),
) -> Result<Records<'a>, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let body = &whole(bytes, &header)?[HEADER_LEN..];
    let codec = header.compression()?;
    let pauses = &Pauses(RefCell::new(pause));
    let body = match codec {
        Compression::None | Compression::Snappy => codec.decompress(body, limit)?,
        Compression::Gzip => {
            let decoder = flate2::bufread::MultiGzDecoder::new(InputPieces::new(body, pauses));
            Cow::Owned(read_all(codec, decoder, limit, pauses)?)
        }
        Compression::Lz4 => Cow::Owned(read_all(codec, Lz4Reader::new(body), limit, pauses)?),
        Compression::Zstd => Cow::Owned(with_context(body, usize::MAX, |context| {
            let input = InputPieces::new(body, pauses);
            read_all(codec, zstd::stream::read::Decoder::with_context(input, context), limit, pauses)
        })?),
    };
    Ok(Records::new(header, body))
}

/// Reads `from` to its end, growing with what has come, never past `limit`.
fn read_all(
    codec: Compression,
    from: impl Read,
    limit: usize,
    pauses: &Pauses<'_>,
) -> Result<Vec<u8>, BatchError> {
    let (mut from, mut out) = (bounded(from, limit), Vec::new());
    let failed = |_| BatchError::Decompress(codec);
    while from.by_ref().take(PAUSE).read_to_end(&mut out).map_err(failed)? > 0 {
        pauses.pause();
    }
    if out.len() > limit { Err(BatchError::TooLarge { limit }) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, records};

    #[test]
    fn it_is_what_is_decompressed_at_once_in_every_codec_and_pauses_meanwhile() {
        for codec in Compression::ALL {
            let mut builder = BatchBuilder::new(codec);
            for i in 0..30_000 {
                builder.push(
                    1000 + i,
                    None,
                    Some(format!("value {i}, and what is the same").as_bytes()),
                    &[],
                );
            }
            let batch = builder.build();
            let mut pauses = 0;
            let paced = records_paced(&batch, 2 << 20, &mut || pauses += 1).unwrap();
            assert!(paced.iter().eq(records(&batch, 2 << 20).unwrap().iter()), "{codec}");
            assert_eq!(paced.iter().count(), 30_000);
            let at_once = matches!(codec, Compression::None | Compression::Snappy);
            assert_eq!(pauses >= 3, !at_once, "{codec}: {pauses}");
            let too_large = records_paced(&batch, paced.bytes() - 1, &mut || {}).err();
            assert_eq!(too_large, Some(BatchError::TooLarge { limit: paced.bytes() - 1 }), "{codec}");
            let mut cut = batch[..batch.len() - 9].to_vec();
            cut[8..12].copy_from_slice(&((batch.len() - 9 - 12) as i32).to_be_bytes());
            let is_good = records_paced(&cut, 2 << 20, &mut || {}).is_ok_and(|r| r.iter().all(|r| r.is_ok()));
            assert!(!is_good, "{codec}");
        }
    }
}
