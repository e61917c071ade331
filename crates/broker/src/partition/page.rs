//! The stored forms of closed history: pages of runs, and the chunk lists of fragmented batches.

use sabir_journal::pages::MAX_PAGE;
use sabir_model::{DecodeError, FrontendNo, Offset, OverlayPlace, Sequence};

use super::index::{Run, RunDetail, RunKind};
use super::runs::Runs;
use crate::codec::{Reader, put_i64, put_len, put_u32, put_u64};
use crate::entry::RecordPlace;

const FORM: u8 = 1;

/// A piece of a fragmented batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) block: Sequence,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// A page of runs: form 1 · list of runs. At most 60 bytes each, and 102 with details, of which half as many come, so that they fit a page.
pub(crate) fn encode_runs(runs: &Runs) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 * runs.list().len());
    out.push(FORM);
    runs.put(&mut out);
    debug_assert!(out.len() <= MAX_PAGE);
    out
}

pub(crate) fn decode_runs(bytes: &[u8]) -> Result<Runs, DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(FORM)?;
    let runs = Runs::take(&mut input)?;
    input.end()?;
    Ok(runs)
}

/// What a run is counted from: the one before it.
fn deltas_from(before: Option<&Run>) -> (i64, u64, i64) {
    before.map_or((0, 0, 0), |run| (run.next().0, run.block.0, run.max_ts))
}

/// What stands for the kind of a reference with details.
const DETAILED: u32 = 3;
/// The details that it has.
const OVERLAY: u8 = 1 << 0;
const SOURCE: u8 = 1 << 1;

/// Gap to the offset before · block, signed difference · largest timestamp, signed difference · offset · length · records · origin, times
/// four, plus kind, or plus 3 for a reference with details · first record, for references · the details, see [`put_detail`].
pub(super) fn put_run(out: &mut Vec<u8>, run: &Run, detail: Option<&RunDetail>, before: Option<&Run>) {
    let (next, block, max_ts) = deltas_from(before);
    put_i64(out, run.base.0.wrapping_sub(next));
    put_i64(out, run.block.0.wrapping_sub(block) as i64);
    put_i64(out, run.max_ts.wrapping_sub(max_ts));
    put_u32(out, run.offset);
    put_u32(out, run.len);
    put_u32(out, run.records);
    let kind = if detail.is_some() { DETAILED } else { run.kind as u32 };
    put_u32(out, u32::from(run.origin.0) << 2 | kind);
    if run.kind == RunKind::Reference {
        put_u32(out, run.first_record);
    }
    if let Some(detail) = detail {
        put_detail(out, detail, run);
    }
}

/// Marks u8 (1 overlay, 2 source) · the overlay's block, signed difference to the run's, its offset and length, if marked · the source's
/// partition and offset, if marked.
fn put_detail(out: &mut Vec<u8>, detail: &RunDetail, run: &Run) {
    let mark = |on: bool, bit: u8| if on { bit } else { 0 };
    out.push(mark(detail.overlay.is_some(), OVERLAY) | mark(detail.source.is_some(), SOURCE));
    if let Some(overlay) = detail.overlay {
        put_i64(out, overlay.block.0.wrapping_sub(run.block.0) as i64);
        put_u32(out, overlay.offset);
        put_u32(out, overlay.len);
    }
    if let Some(source) = detail.source {
        source.put(out);
    }
}

fn take_detail(input: &mut Reader<'_>, run: &Run) -> Result<RunDetail, DecodeError> {
    let marks = input.u8()?;
    if !(1..=OVERLAY | SOURCE).contains(&marks) {
        return Err(DecodeError::Field("details of a run"));
    }
    Ok(RunDetail {
        overlay: if marks & OVERLAY == 0 { None } else { Some(take_overlay(input, run)?) },
        source: if marks & SOURCE == 0 { None } else { Some(RecordPlace::take(input)?) },
    })
}

fn take_overlay(input: &mut Reader<'_>, run: &Run) -> Result<OverlayPlace, DecodeError> {
    Ok(OverlayPlace {
        block: Sequence(run.block.0.wrapping_add(input.i64()? as u64)),
        offset: input.u32()?,
        len: input.u32()?,
    })
}

pub(super) fn take_run(
    input: &mut Reader<'_>,
    before: Option<&Run>,
) -> Result<(Run, Option<RunDetail>), DecodeError> {
    let (next, block, max_ts) = deltas_from(before);
    let mut run = Run {
        base: Offset(next.wrapping_add(input.i64()?)),
        block: Sequence(block.wrapping_add(input.i64()? as u64)),
        max_ts: max_ts.wrapping_add(input.i64()?),
        offset: input.u32()?,
        len: input.u32()?,
        records: input.u32()?,
        first_record: 0,
        origin: FrontendNo::NONE,
        kind: RunKind::Whole,
    };
    let marks = input.u32()?;
    run.origin = FrontendNo(u16::try_from(marks >> 2).map_err(|_| DecodeError::Field("front end"))?);
    run.kind = match marks & 3 {
        0 => RunKind::Whole,
        1 | DETAILED => RunKind::Reference,
        _ => RunKind::Fragmented,
    };
    if run.kind == RunKind::Reference {
        run.first_record = input.u32()?;
    }
    if run.base.0 < 0 || run.base.checked_add(run.records).is_none() {
        return Err(DecodeError::Field("offset of a run"));
    }
    let detailed = marks & 3 == DETAILED;
    let detail = if detailed { Some(take_detail(input, &run)?) } else { None };
    Ok((run, detail))
}

/// Bytes that a chunk may take, stored.
const CHUNK_MAX: usize = 20;
const CHUNKS_A_PAGE: usize = (MAX_PAGE - 8) / CHUNK_MAX;

/// A chunk list in pages: form 1 · list of (block, offset, length).
pub(crate) fn encode_chunks(chunks: &[Chunk]) -> Vec<Vec<u8>> {
    let page = |chunks: &[Chunk]| {
        let mut out = vec![FORM];
        put_len(&mut out, chunks.len());
        for chunk in chunks {
            put_chunk(&mut out, chunk);
        }
        out
    };
    chunks.chunks(CHUNKS_A_PAGE).map(page).collect()
}

pub(crate) fn put_chunk(out: &mut Vec<u8>, chunk: &Chunk) {
    put_u64(out, chunk.block.0);
    put_u32(out, chunk.offset);
    put_u32(out, chunk.len);
}

pub(crate) fn take_chunk(input: &mut Reader<'_>) -> Result<Chunk, DecodeError> {
    Ok(Chunk { block: Sequence(input.u64()?), offset: input.u32()?, len: input.u32()? })
}

/// The chunks of one page of a list.
pub(crate) fn decode_chunks(bytes: &[u8]) -> Result<Vec<Chunk>, DecodeError> {
    let mut input = Reader::new(bytes);
    input.version(FORM)?;
    let chunks = input.list(3, take_chunk)?;
    input.end()?;
    Ok(chunks)
}
