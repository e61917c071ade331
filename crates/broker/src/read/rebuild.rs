//! A reference's records as a fresh batch: they were stored for something else, so nothing of their producer comes along.

use bytes::Bytes;
use sabir_base::crc::crc32c;
use sabir_model::batch::{self, BatchHeader};
use sabir_model::{ProducerId, ReadError};

use crate::partition::Run;

/// What the records of one batch may take decompressed, in bytes.
pub(super) const RECORDS_MAX: usize = 256 << 20;

/// The attribute bit of a transaction's batch.
const TRANSACTIONAL: i16 = 1 << 4;
/// Where the part of a batch begins that its CRC covers.
const CRC_FROM: usize = 21;

/// The batch for a reference to all of `bytes`, or to some of its records. Its base offset is set when it is served.
pub(super) fn rebuild(bytes: &Bytes, run: &Run) -> Result<Bytes, ReadError> {
    let header = BatchHeader::parse(bytes).map_err(|_| ReadError::Corrupt)?;
    if run.first_record == 0 && i64::from(run.records) == i64::from(header.last_offset_delta) + 1 {
        return whole(bytes, header);
    }
    part(bytes, header, run)
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
fn part(bytes: &Bytes, header: BatchHeader, run: &Run) -> Result<Bytes, ReadError> {
    let corrupt = |_| ReadError::Corrupt;
    let records = batch::records(bytes, RECORDS_MAX).map_err(corrupt)?;
    let mut fresh = batch::BatchBuilder::new(header.compression().map_err(corrupt)?);
    let first = header.base_offset.0 + i64::from(run.first_record);
    for record in &records {
        let record = record.map_err(corrupt)?;
        let delta = record.offset.0 - first;
        if (0..i64::from(run.records)).contains(&delta) {
            let headers: Vec<_> = record.headers.map(|header| (header.key, header.value)).collect();
            fresh.push_at(delta as i32, record.timestamp, record.key, record.value, &headers);
        }
    }
    fresh.cover(run.records as i32 - 1);
    Ok(fresh.build())
}
