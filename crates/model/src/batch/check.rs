//! Walking a batch's records without holding them.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Read, Take};
use std::ops::{Range, RangeInclusive};

use sabir_base::varint::{VarintError, take_i32, take_i64};
use zstd::zstd_safe::{DCtx, DParameter, ResetDirective};

use super::header::whole;
use super::inline::zstd_memory;
use super::lz4::Lz4Reader;
use super::rules::is_outside;
use super::{BatchError, BatchHeader, Compression, HEADER_LEN};

/// The fewest bytes of a record behind its length: attributes, times, offset, no key, no value, no headers.
const LEAST: u64 = 6;
/// The most bytes of a varint of 32 bits, and of one of 64.
const LONGEST_32: usize = 5;
const LONGEST_64: usize = 10;
/// What is decompressed at a time, in bytes.
const STEP: usize = 16 << 10;
/// Bytes between two calls of `pause`.
pub(super) const PAUSE: u64 = 256 << 10;
/// The same for bytes that are still compressed: frames and blocks of next to nothing take longest.
const INPUT_PAUSE: usize = 16 << 10;
/// Zstandard frames may ask for a window of so many bytes, as a power of two: what its library takes if nothing is said.
const WINDOW_LOG: u32 = 27;
/// The windows of all levels that producers have but the highest three, taken however little memory there is.
const LEAST_WINDOW_LOG: u32 = 23;
/// A thread keeps a Zstandard context of up to so many bytes: one for the windows that its levels up to 7 have.
pub(super) const CONTEXT_KEPT: usize = 3 << 20;

/// What a batch's records have together; times in milliseconds since the epoch, -1 where no record has one. They may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSummary {
    /// The smallest time.
    pub oldest: i64,
    /// The largest time.
    pub newest: i64,
    /// Bytes of the records, decompressed.
    pub bytes: u64,
}

impl RecordSummary {
    /// Of no records.
    pub(super) const NONE: Self = Self { oldest: -1, newest: -1, bytes: 0 };

    pub(super) fn add(&mut self, time: i64) {
        if time != -1 && (self.oldest == -1 || time < self.oldest) {
            self.oldest = time;
        }
        self.newest = self.newest.max(time);
    }
}

/// Checks that the batch at the front of `bytes` holds as many records as its header says, whole and well formed, at the offsets 0, 1, 2
/// … and nothing behind them, compressed so that every client reads them: a gzip member or an LZ4 frame has all of them and nothing behind
/// it, for many read no further. No more than `limit` bytes are decompressed, and only a little at a time. `pause` is called now and then,
/// for the thread to be lent to others.
///
/// # Errors
/// What [`BatchHeader::parse`] refuses, a cut batch, records that do not decompress or exceed `limit`, another number of records, a
/// malformed one.
pub fn check_records(
    bytes: &[u8],
    limit: usize,
    pause: &mut dyn FnMut(),
) -> Result<RecordSummary, BatchError> {
    check_records_within(bytes, limit, usize::MAX, pause)
}

/// The same within so much memory, in bytes: no Zstandard frame has a window that is larger.
pub(super) fn check_records_within(
    bytes: &[u8],
    limit: usize,
    memory: usize,
    pause: &mut dyn FnMut(),
) -> Result<RecordSummary, BatchError> {
    let visit = Visit { pauses: Pauses(RefCell::new(pause)), outside: Cell::new(None), memory };
    check_with(bytes, limit, &visit)
}

/// The places of a good batch's records whose times are outside these bounds, as runs, of which there are no more than [`MOST_RUNS`].
pub(super) fn records_outside(
    bytes: &[u8],
    limit: usize,
    bounds: RangeInclusive<i64>,
    pause: &mut dyn FnMut(),
) -> Vec<Range<u32>> {
    let outside = Cell::new(Some(Outside { bounds, runs: Vec::new() }));
    let visit = Visit { pauses: Pauses(RefCell::new(pause)), outside, memory: usize::MAX };
    // It was found to be good.
    let _ = check_with(bytes, limit, &visit);
    visit.outside.take().map(|outside| outside.runs).unwrap_or_default()
}

/// Records whose times are outside some bounds.
struct Outside {
    bounds: RangeInclusive<i64>,
    runs: Vec<Range<u32>>,
}

/// More runs of records with wrong times are not told of: the client that sends them has mixed them up, or wants a large answer.
const MOST_RUNS: usize = 16;

impl Outside {
    fn see(&mut self, index: u32, time: i64) {
        if !is_outside(&self.bounds, time) {
            return;
        }
        let is_full = self.runs.len() == MOST_RUNS;
        match self.runs.last_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ if is_full => {}
            _ => self.runs.push(index..index + 1),
        }
    }
}

fn check_with(bytes: &[u8], limit: usize, visit: &Visit<'_>) -> Result<RecordSummary, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    let body = &whole(bytes, &header)?[HEADER_LEN..];
    let codec = header.compression()?;
    if header.count as u64 * (LEAST + 1) > limit as u64 {
        return Err(BatchError::Field { field: "record count", value: header.count.into() });
    }
    match codec {
        // Nothing at all is no records in any codec.
        _ if body.is_empty() => walk(body, &header, limit, visit),
        Compression::None if body.len() > limit => Err(BatchError::TooLarge { limit }),
        Compression::None => walk(body, &header, limit, visit),
        // Its blocks are small, or at most twenty-two times their bytes.
        Compression::Snappy => walk(&*codec.decompress(body, limit)?, &header, limit, visit),
        Compression::Lz4 => walk(bounded(Lz4Reader::strict(body), limit), &header, limit, visit),
        Compression::Gzip => {
            let mut input = InputPieces::new(body, &visit.pauses);
            let decoder = flate2::bufread::GzDecoder::new(&mut input);
            let from = BufReader::with_capacity(STEP, bounded(decoder, limit));
            let found = walk(from, &header, limit, visit)?;
            if input.is_empty() { Ok(found) } else { Err(BatchError::Decompress(codec)) }
        }
        Compression::Zstd => with_context(body, visit.memory, |context| {
            let decoder =
                zstd::stream::read::Decoder::with_context(InputPieces::new(body, &visit.pauses), context);
            walk(BufReader::with_capacity(STEP, bounded(decoder, limit)), &header, limit, visit)
        }),
    }
}

/// What a batch's records are walked with.
struct Visit<'f> {
    pauses: Pauses<'f>,
    /// What is looked for beside what is wrong.
    outside: Cell<Option<Outside>>,
    /// What it may take.
    memory: usize,
}

/// What is called now and then, by what comes out of a batch and by what goes into it.
pub(super) struct Pauses<'f>(pub(super) RefCell<&'f mut dyn FnMut()>);

impl Pauses<'_> {
    pub(super) fn pause(&self) {
        (self.0.borrow_mut())();
    }
}

/// Compressed bytes a piece at a time, with a pause between two.
pub(super) struct InputPieces<'a, 'p, 'f> {
    piece: &'a [u8],
    rest: &'a [u8],
    pauses: &'p Pauses<'f>,
}

impl<'a, 'p, 'f> InputPieces<'a, 'p, 'f> {
    pub(super) fn new(input: &'a [u8], pauses: &'p Pauses<'f>) -> Self {
        let (piece, rest) = input.split_at(input.len().min(INPUT_PAUSE));
        Self { piece, rest, pauses }
    }

    fn is_empty(&self) -> bool {
        self.piece.is_empty() && self.rest.is_empty()
    }
}

impl BufRead for InputPieces<'_, '_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.piece.is_empty() && !self.rest.is_empty() {
            self.pauses.pause();
            *self = Self::new(self.rest, self.pauses);
        }
        Ok(self.piece)
    }

    fn consume(&mut self, len: usize) {
        self.piece = &self.piece[len..];
    }
}

impl Read for InputPieces<'_, '_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.fill_buf()?.read(out)?;
        self.consume(len);
        Ok(len)
    }
}

/// One byte more than the limit tells that there is more.
pub(super) fn bounded<R: Read>(from: R, limit: usize) -> Take<R> {
    from.take(limit as u64 + 1)
}

thread_local! {
    /// To make one anew for each batch takes longer than a small batch does.
    static CONTEXT: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

/// The largest window that a Zstandard frame may have, as a power of two, where there is so much memory.
pub(super) fn window_log(memory: usize) -> u32 {
    memory.checked_ilog2().unwrap_or(0).clamp(LEAST_WINDOW_LOG, WINDOW_LOG)
}

/// Lends the thread's Zstandard context for a body with no larger windows than so much memory is for. One that has grown large, for a frame
/// with a large window, is not kept.
pub(super) fn with_context<T>(
    body: &[u8],
    memory: usize,
    work: impl FnOnce(&mut DCtx<'static>) -> Result<T, BatchError>,
) -> Result<T, BatchError> {
    let (log, window) = (window_log(memory), zstd_memory(body));
    if log < WINDOW_LOG && window > 1 << log {
        return Err(BatchError::Window { window, most: 1 << log });
    }
    let failed = |_| BatchError::Decompress(Compression::Zstd);
    let mut context = CONTEXT.take().map_or_else(new_context, Ok)?;
    context.reset(ResetDirective::SessionOnly).map_err(failed)?;
    context.set_parameter(DParameter::WindowLogMax(log)).map_err(failed)?;
    let done = work(&mut context);
    if context.sizeof() <= CONTEXT_KEPT {
        CONTEXT.set(Some(context));
    }
    done
}

fn new_context() -> Result<DCtx<'static>, BatchError> {
    DCtx::try_create().ok_or(BatchError::Decompress(Compression::Zstd))
}

fn walk(
    from: impl BufRead,
    header: &BatchHeader,
    limit: usize,
    visit: &Visit<'_>,
) -> Result<RecordSummary, BatchError> {
    let mut next = Next { outside: visit.outside.take(), ..Next::new(header, limit as u64) };
    let walked = Walk::new(from, &mut || visit.pauses.pause()).records(header, limit as u64, &mut next);
    visit.outside.set(next.outside);
    walked
}

#[derive(Debug)]
enum Problem {
    What(&'static str),
    TooLarge,
    Decompress,
}

/// The record that comes next, and what those before it have together.
struct Next {
    index: u32,
    count: u32,
    /// Where it must have ended, for those behind it to have their least.
    end: u64,
    base_timestamp: i64,
    found: RecordSummary,
    outside: Option<Outside>,
}

impl Next {
    fn new(header: &BatchHeader, limit: u64) -> Self {
        let behind = (header.count as u64).saturating_sub(1) * (LEAST + 1);
        Self {
            index: 0,
            count: header.count as u32,
            end: limit.saturating_sub(behind),
            base_timestamp: header.base_timestamp,
            found: RecordSummary::NONE,
            outside: None,
        }
    }

    /// The next was good, and had this time.
    fn passed(&mut self, time: i64) {
        // A sum that is too large wraps, as for the clients that read it.
        let time = self.base_timestamp.wrapping_add(time);
        self.found.add(time);
        if let Some(outside) = &mut self.outside {
            outside.see(self.index, time);
        }
        self.index += 1;
        self.end += LEAST + 1;
    }
}

struct Walk<'p, R> {
    from: R,
    /// Bytes taken so far.
    taken: u64,
    /// There, `pause` is called next.
    pause_at: u64,
    pause: &'p mut dyn FnMut(),
}

impl<'p, R: BufRead> Walk<'p, R> {
    fn new(from: R, pause: &'p mut dyn FnMut()) -> Self {
        Self { from, taken: 0, pause_at: PAUSE, pause }
    }

    fn records(
        mut self,
        header: &BatchHeader,
        limit: u64,
        next: &mut Next,
    ) -> Result<RecordSummary, BatchError> {
        let is_plain = header.compression() == Ok(Compression::None);
        self.all(next).map_err(|problem| match problem {
            // All that there is has been found to be within the limit.
            Problem::TooLarge if is_plain => BatchError::Record { index: next.index, what: LONG },
            Problem::What(what) => BatchError::Record { index: next.index, what },
            Problem::TooLarge => BatchError::TooLarge { limit: limit as usize },
            Problem::Decompress => BatchError::Decompress(header.compression().unwrap_or_default()),
        })
    }

    fn all(&mut self, next: &mut Next) -> Result<RecordSummary, Problem> {
        while next.index < next.count {
            if !self.whole_ones(next)? {
                self.in_pieces(next)?;
            }
            self.pause_when_due();
        }
        match self.from.fill_buf() {
            Ok([]) => Ok(RecordSummary { bytes: self.taken, ..next.found }),
            Ok(_) => Err(Problem::What("bytes are left behind the last one")),
            Err(_) => Err(Problem::Decompress),
        }
    }

    /// Between records, and within one: a single record may have millions of headers.
    fn pause_when_due(&mut self) {
        if self.taken >= self.pause_at {
            self.pause_at = self.taken + PAUSE;
            (self.pause)();
        }
    }

    /// Takes the records that lie in the buffer whole and are no longer than what is walked without a pause, up to one that ends at the
    /// next pause or behind it; false if there is none.
    fn whole_ones(&mut self, next: &mut Next) -> Result<bool, Problem> {
        let buffer = self.from.fill_buf().map_err(|_| Problem::Decompress)?;
        if buffer.is_empty() {
            return Err(Problem::What(LENGTH));
        }
        let (mut rest, begun) = (buffer, self.taken);
        while next.index < next.count && self.taken < self.pause_at {
            let Some((record, behind)) = split_record(rest) else { break };
            if record.len() as u64 > PAUSE {
                break;
            }
            let taken = begun + (buffer.len() - behind.len()) as u64;
            if taken > next.end {
                return Err(Problem::TooLarge);
            }
            next.passed(check_record(record, next.index).map_err(Problem::What)?);
            (rest, self.taken) = (behind, taken);
        }
        self.from.consume((self.taken - begun) as usize);
        Ok(self.taken > begun)
    }

    /// Takes a record that is long, does not lie in the buffer whole, or has a length that no record has: only its lengths are held.
    fn in_pieces(&mut self, next: &mut Next) -> Result<(), Problem> {
        let len = self.varint(u64::MAX, LONGEST_32)?;
        let len =
            i32::try_from(len).ok().and_then(|len| u64::try_from(len).ok()).ok_or(Problem::What(LENGTH))?;
        if len < LEAST {
            return Err(Problem::What("it is too short"));
        }
        let end = self.taken + len;
        if end > next.end {
            // A length that nothing stands for is no large record.
            self.skip(next.end.saturating_sub(self.taken), u64::MAX)?;
            return Err(Problem::TooLarge);
        }
        let time = self.fields(next.index, end)?;
        next.passed(time);
        Ok(())
    }

    fn fields(&mut self, index: u32, end: u64) -> Result<i64, Problem> {
        self.skip(1, end)?;
        let time = self.varint(end, LONGEST_64)?;
        if self.number(end)? != index as i32 {
            return Err(Problem::What(OFFSET));
        }
        self.nullable(end)?;
        self.nullable(end)?;
        let headers = self.number(end)?;
        if headers < 0 {
            return Err(Problem::What(HEADERS));
        }
        for _ in 0..headers {
            if !self.nullable(end)? {
                return Err(Problem::What(HEADER_KEY));
            }
            self.nullable(end)?;
            self.pause_when_due();
        }
        if self.taken == end { Ok(time) } else { Err(Problem::What(BEHIND)) }
    }

    /// Steps over a field; false for one that is not there.
    fn nullable(&mut self, end: u64) -> Result<bool, Problem> {
        match self.number(end)? {
            -1 => Ok(false),
            len if len < -1 => Err(Problem::What(NEGATIVE)),
            len => self.skip(len as u64, end).map(|()| true),
        }
    }

    fn number(&mut self, end: u64) -> Result<i32, Problem> {
        i32::try_from(self.varint(end, LONGEST_32)?).map_err(|_| Problem::What(NUMBER))
    }

    /// A zigzag varint of at most so many bytes.
    fn varint(&mut self, end: u64, longest: usize) -> Result<i64, Problem> {
        let mut bytes = [0; LONGEST_64];
        for at in 0..longest {
            if self.taken == end {
                return Err(Problem::What(CUT));
            }
            bytes[at] = self.byte()?;
            if bytes[at] < 0x80 {
                return take_i64(&mut &bytes[..=at]).map_err(|_| Problem::What(NUMBER));
            }
        }
        Err(Problem::What(NUMBER))
    }

    fn skip(&mut self, mut len: u64, end: u64) -> Result<(), Problem> {
        if len > end - self.taken {
            return Err(Problem::What(CUT));
        }
        while len > 0 {
            let have = self.from.fill_buf().map_err(|_| Problem::Decompress)?.len();
            if have == 0 {
                return Err(Problem::What(LONG));
            }
            let step = len.min(have as u64);
            self.from.consume(step as usize);
            self.taken += step;
            len -= step;
            self.pause_when_due();
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        let buffer = self.from.fill_buf().map_err(|_| Problem::Decompress)?;
        let byte = *buffer.first().ok_or(Problem::What(LENGTH))?;
        self.from.consume(1);
        self.taken += 1;
        Ok(byte)
    }
}

/// The record at the front of `bytes`, and what is behind it; none if it is cut or its length is one that no record has.
#[inline]
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes;
    let len = usize::try_from(take_number(&mut rest).ok()?).ok()?;
    if (len as u64) < LEAST { None } else { rest.split_at_checked(len) }
}

/// Checks the bytes of a record, and gives its time, counted from the batch's.
#[inline]
fn check_record(record: &[u8], index: u32) -> Result<i64, &'static str> {
    let [_attributes, rest @ ..] = record else { return Err(CUT) };
    let mut rest = rest;
    let time = take_i64(&mut rest).map_err(cut_or_long)?;
    if take_number(&mut rest)? != index as i32 {
        return Err(OFFSET);
    }
    skip_nullable(&mut rest)?;
    skip_nullable(&mut rest)?;
    match rest {
        [0] => Ok(time),
        _ => check_headers(rest).map(|()| time),
    }
}

/// Checks a record from the number of its headers on.
fn check_headers(mut rest: &[u8]) -> Result<(), &'static str> {
    let headers = take_number(&mut rest)?;
    if headers < 0 {
        return Err(HEADERS);
    }
    for _ in 0..headers {
        if !skip_nullable(&mut rest)? {
            return Err(HEADER_KEY);
        }
        skip_nullable(&mut rest)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(BEHIND) }
}

/// Steps over a field; false for one that is not there.
#[inline]
fn skip_nullable(rest: &mut &[u8]) -> Result<bool, &'static str> {
    match take_number(rest)? {
        -1 => Ok(false),
        len => {
            *rest = rest.get(usize::try_from(len).map_err(|_| NEGATIVE)?..).ok_or(CUT)?;
            Ok(true)
        }
    }
}

/// A zigzag varint of 32 bits. Clients read no more than five bytes of one, so neither is more taken of a producer.
#[inline]
fn take_number(rest: &mut &[u8]) -> Result<i32, &'static str> {
    let before = rest.len();
    let number = take_i32(rest).map_err(cut_or_long)?;
    if before - rest.len() <= LONGEST_32 { Ok(number) } else { Err(NUMBER) }
}

fn cut_or_long(error: VarintError) -> &'static str {
    match error {
        VarintError::Truncated => CUT,
        VarintError::Overflow => NUMBER,
    }
}

const HEADERS: &str = "its number of headers is negative";
const HEADER_KEY: &str = "a header has no key";
const NEGATIVE: &str = "a length in it is negative";
const NUMBER: &str = "a number in it is too long";
const OFFSET: &str = "its offset is not the next one";
const BEHIND: &str = "bytes are left behind its headers";
const CUT: &str = "a field is longer than what is left of it";
const LONG: &str = "it is longer than what is left";
const LENGTH: &str = "its length is cut or too long";

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
