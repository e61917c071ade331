//! A reference's records as a fresh batch: they were stored for something else, so nothing of their producer comes along.

use bytes::Bytes;
use sabir_base::crc::crc32c;
use sabir_model::batch::{self, BatchHeader, RecordView};
use sabir_model::{OverlayBody, ProducerId, ReadError};

use crate::partition::Run;

/// What the records of one batch may take decompressed, in bytes.
pub(super) const RECORDS_MAX: usize = 256 << 20;

/// The attribute bit of a transaction's batch.
const TRANSACTIONAL: i16 = 1 << 4;
/// Where the part of a batch begins that its CRC covers.
const CRC_FROM: usize = 21;

/// The batch for a reference to all of `bytes`, or to some of its records, each as an overlay has it. Its base offset is set when it is served.
pub(super) fn rebuild(bytes: &Bytes, overlay: Option<&Bytes>, run: &Run) -> Result<Bytes, ReadError> {
    let header = BatchHeader::parse(bytes).map_err(|_| ReadError::Corrupt)?;
    if let Some(overlay) = overlay {
        let overlay = OverlayBody::decode(overlay).map_err(|_| ReadError::Corrupt)?;
        return part(bytes, header, run, &overlay);
    }
    if run.first_record == 0 && i64::from(run.records) == i64::from(header.last_offset_delta) + 1 {
        return whole(bytes, header);
    }
    part(bytes, header, run, &OverlayBody::default())
}

/// All of it: the records stay as they are, compressed or not.
fn whole(bytes: &Bytes, mut header: BatchHeader) -> Result<Bytes, ReadError> {
    let mut fresh = bytes.get(..header.total_len()).ok_or(ReadError::Corrupt)?.to_vec();
    header.producer_id = ProducerId::NONE;
    header.producer_epoch = -1;
    header.base_sequence = -1;
    header.attributes &= !TRANSACTIONAL;
    write(&header, &mut fresh)?;
    header.crc = crc32c(&fresh[CRC_FROM..]);
    write(&header, &mut fresh)?;
    Ok(fresh.into())
}

fn write(header: &BatchHeader, batch: &mut [u8]) -> Result<(), ReadError> {
    header.write(batch.first_chunk_mut().ok_or(ReadError::Corrupt)?);
    Ok(())
}

/// Some of its records, with their offsets' gaps.
fn part(bytes: &Bytes, header: BatchHeader, run: &Run, overlay: &OverlayBody) -> Result<Bytes, ReadError> {
    let corrupt = |_| ReadError::Corrupt;
    let records = batch::records(bytes, RECORDS_MAX).map_err(corrupt)?;
    let mut fresh = batch::BatchBuilder::new(header.compression().map_err(corrupt)?);
    let first = header.base_offset.0 + i64::from(run.first_record);
    for record in &records {
        let record = record.map_err(corrupt)?;
        let delta = record.offset.0 - first;
        if (0..i64::from(run.records)).contains(&delta) {
            let headers = headers(&record, overlay);
            fresh.push_at(delta as i32, record.timestamp, record.key, record.value, &headers);
        }
    }
    fresh.cover(run.records as i32 - 1);
    Ok(fresh.build())
}

/// A record's headers but for those that an overlay removes, and behind them those that it adds.
fn headers<'a>(record: &RecordView<'a>, overlay: &'a OverlayBody) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
    let own = record.headers.map(|header| (header.key, header.value));
    let kept = own.filter(|(key, _)| !overlay.removes(key));
    kept.chain(overlay.added.iter().map(|(key, value)| (&key[..], value.as_deref()))).collect()
}
