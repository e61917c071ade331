//! Finding the end of the journal: the last good frame, and whether what follows it was torn or has been lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sabir_base::buf::BufPool;
use sabir_base::crc::crc32c;
use sabir_model::Sequence;

use crate::content::{CONTENT_HEADER, ContentHeader};
use crate::disk::Disk;
use crate::error::JournalError;
use crate::frame::{FRAME, FRAME_VERSION, FrameHeader, FrameKind, STEP};
use crate::index::Index;
use crate::journal::{JournalOptions, Torn};
use crate::progress::StartProgress;
use crate::segment::{
    HeaderPage, SEGMENT_HEADER, SEGMENT_VERSION, Segment, SegmentFile, SegmentNo, UNFINISHED, file_name,
    file_number,
};
use crate::slots::{HardState, Slots};
use crate::space::{PooledSegments, Random};
use crate::table::{LocalTables, SegmentTable};
use crate::walk::{Chain, Found, Missing, Scan, Window, Witness, examine, next_frame, scan};

/// Blocks in flight at most.
pub(crate) const DEPTH: usize = 8;

/// How far a file is scanned whose header is blank.
const RAW_SCAN_BYTES: u64 = 64 << 10;

/// Absent files that an error names.
const ABSENT_NAMED: usize = 8;

/// Where frames start in a segment.
const FIRST_FRAME: u64 = SEGMENT_HEADER as u64;

/// What recovery found on the disk.
pub(crate) struct Restored {
    pub slots: Slots,
    pub index: Index,
    /// The segment that the next block goes to, and where; `None` in a new journal.
    pub active: Option<(Arc<Segment>, u64)>,
    pub chain: Chain,
    /// The time of the last block behind the checkpoint; `i64::MIN` if there is none.
    pub last_ms: i64,
    /// The segments without blocks, and how many files there are in all.
    pub pooled: (PooledSegments, u64),
    pub clean: bool,
    pub torn: Option<Torn>,
}

/// The segment files, sorted by what their headers say.
struct Files {
    placed: BTreeMap<SegmentNo, Arc<Segment>>,
    raw: Vec<SegmentFile>,
    bad: Vec<SegmentFile>,
    next_file: u32,
    count: u64,
}

/// Where the good frames end.
struct Walked {
    chain: Chain,
    /// The place in the run of segments.
    at: usize,
    pos: u64,
    /// The time of the last block walked over.
    last_ms: i64,
    reason: &'static str,
}

/// Opens everything and finds the end. Changes nothing but what a crash tore.
pub(crate) fn recover(
    disk: &Arc<dyn Disk>,
    pool: &Arc<BufPool>,
    options: &JournalOptions,
    tables: Option<LocalTables>,
) -> Result<Restored, JournalError> {
    let tables = tables.unwrap_or(LocalTables { through: Sequence::NONE, segments: Vec::new() });
    tables.check()?;
    let (mut random, progress) = (Random::new(options.seed), &*options.progress);
    progress.begin("", "listing the journal's files", None);
    let names = remove_unfinished(disk)?;
    let mut slots = Slots::open(disk, &names, random.next())?;
    let mut files = open_files(disk, &names, slots.get().journal, progress)?;
    let slot = slots.get();
    files.check_last(slot.segment, &tables)?;
    let (mut index, run, free) = arrange(&files, &tables)?;
    files.remove_short(disk, options.segment_bytes)?;
    fill_holes(&files, &slots, options);

    let (mut torn, mut clean, mut ready) = (None, true, 0);
    let mut active = None;
    let (mut chain, mut last_ms) = (Chain::START, i64::MIN);
    if !run.is_empty() {
        let recovery = Recovery { pool, slot, run: &run, files: &files, progress };
        let (start, after) = recovery.begin(&tables)?;
        let walked = recovery.walk(start, after, &mut index)?;
        let end = recovery.judge(&walked)?;
        flush(disk, &run[..=walked.at], progress)?;
        if end.torn.is_some() {
            // What stands there must never seem to follow, wherever the next block goes.
            let blanked = run[walked.at].file.blank(walked.pos);
            blanked.map_err(JournalError::disk("blank what a crash tore"))?;
        }
        progress.begin(crate::slots::NAME, "writing the slot", None);
        settle_slot(&mut slots, &walked.chain, end.remnants, files.last())?;
        (torn, clean, chain, last_ms) = (end.torn, end.clean, walked.chain, walked.last_ms);
        active = Some((run[walked.at].clone(), walked.pos));
        ready = walked.at + 1;
    }

    let mut pooled = PooledSegments::new(random);
    pooled.ready = run.iter().skip(ready).cloned().collect();
    pooled.free = free;
    pooled.next_no = files.placed.last_key_value().map_or(SegmentNo::FIRST, |(no, _)| no.next());
    pooled.next_file = files.next_file;
    pooled.raw = files.raw.into_iter().chain(files.bad).collect();
    Ok(Restored { slots, index, active, chain, last_ms, pooled: (pooled, files.count), clean, torn })
}

/// Removes what was being made when the last run ended; returns what remains.
fn remove_unfinished(disk: &Arc<dyn Disk>) -> Result<Vec<String>, JournalError> {
    let names = disk.list().map_err(JournalError::disk("list its files"))?;
    let ours = |name: &str| {
        name.strip_suffix(UNFINISHED).is_some_and(|base| base == "slots" || file_number(base).is_some())
    };
    let (unfinished, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| ours(name));
    for name in &unfinished {
        disk.remove(name).map_err(JournalError::disk("remove an unfinished file"))?;
    }
    Ok(rest)
}

fn open_files(
    disk: &Arc<dyn Disk>,
    names: &[String],
    journal: u64,
    progress: &StartProgress,
) -> Result<Files, JournalError> {
    let mut files =
        Files { placed: BTreeMap::new(), raw: Vec::new(), bad: Vec::new(), next_file: 1, count: 0 };
    for number in names.iter().filter_map(|name| file_number(name)) {
        progress.begin(&file_name(number), "reading a segment's header", None);
        let file = SegmentFile::open(disk, number).map_err(JournalError::disk("open a segment"))?;
        files.next_file = files.next_file.max(number + 1);
        files.count += 1;
        files.sort_in(file, journal)?;
    }
    Ok(files)
}

/// The generations of the segments in a journal's folder, of whichever journal they are: checkpoints list segments by them. Opens no journal,
/// and changes nothing. Blocking.
///
/// # Errors
/// The disk's.
pub fn segment_generations(disk: &Arc<dyn Disk>) -> Result<Vec<u64>, JournalError> {
    let names = disk.list().map_err(JournalError::disk("list its files"))?;
    let mut generations = Vec::new();
    for number in names.iter().filter_map(|name| file_number(name)) {
        let file = SegmentFile::open(disk, number).map_err(JournalError::disk("open a segment"))?;
        let page = Segment::header_of(&file).map_err(JournalError::disk("read a segment's header"))?;
        if let HeaderPage::Good(header) = page {
            generations.push(header.generation);
        }
    }
    Ok(generations)
}

/// Gives the files of a sparse copy their space, the last segments first: a write into one must not find that there is none.
fn fill_holes(files: &Files, slots: &Slots, options: &JournalOptions) {
    options.progress.begin("", "reserving space for files with holes", None);
    let placed = files.placed.values().rev().map(|segment| &segment.file);
    let segments = placed.chain(&files.raw).chain(&files.bad).map(|file| file.fill_holes(options.keep_free));
    let (mut filled, mut lacking) = (0, Vec::new());
    for result in std::iter::once(slots.fill_holes(0)).chain(segments) {
        match result {
            Ok(had_holes) => filled += u64::from(had_holes),
            Err(error) => lacking.push(error),
        }
    }
    if filled > 0 {
        tracing::info!(
            files = filled,
            "files of the journal had holes, as a sparse copy has them: they have their space now"
        );
    }
    if let Some(error) = lacking.first() {
        let files = lacking.len();
        tracing::warn!(files, %error, "files of the journal have holes, as a sparse copy has them: writes into them may find the disk full");
    }
}

impl Files {
    fn sort_in(&mut self, file: SegmentFile, journal: u64) -> Result<(), JournalError> {
        let page = Segment::header_of(&file).map_err(JournalError::disk("read a segment's header"))?;
        let header = match page {
            HeaderPage::Raw => {
                self.raw.push(file);
                return Ok(());
            }
            HeaderPage::Bad => {
                self.bad.push(file);
                return Ok(());
            }
            HeaderPage::Newer(found) => {
                return Err(JournalError::Newer { file: file.name(), found, known: SEGMENT_VERSION });
            }
            HeaderPage::Good(header) => header,
        };
        if header.journal != journal {
            return Err(JournalError::Foreign { file: file.name(), journal: header.journal });
        }
        if header.len != 0 && header.len != file.len {
            let reason = format!("it has {} bytes, and was made with {}", file.len, header.len);
            return Err(misplaced(&file, reason));
        }
        let segment = Arc::new(Segment { no: header.no, generation: header.generation, file });
        match self.placed.insert(header.no, segment) {
            None => Ok(()),
            Some(other) => {
                let reason = format!("{} says that it is segment {} too", other.file.name(), header.no);
                Err(misplaced(&self.placed[&header.no].file, reason))
            }
        }
    }

    fn unreadable(&self) -> String {
        let say = |files: &[SegmentFile], what: &str| {
            let names: Vec<String> = files.iter().map(SegmentFile::name).collect();
            if names.is_empty() {
                String::new()
            } else {
                format!("; the header of {} is {what}", names.join(", "))
            }
        };
        say(&self.bad, "bad") + &say(&self.raw, "blank") + &self.absent()
    }

    /// The files that a missing segment may have been: whose numbers are not there, or else the next one, if no header is unreadable.
    fn absent(&self) -> String {
        let placed = self.placed.values().map(|segment| &segment.file);
        let there: BTreeSet<u32> = placed.chain(&self.raw).chain(&self.bad).map(|file| file.number).collect();
        let absent = (1..self.next_file).filter(|number| !there.contains(number)).map(file_name);
        let mut names: Vec<String> = absent.take(ABSENT_NAMED).collect();
        if names.is_empty() && self.raw.is_empty() && self.bad.is_empty() {
            names.push(file_name(self.next_file));
        }
        if names.is_empty() { String::new() } else { format!("; there is no file {}", names.join(", ")) }
    }

    /// The files whose segments the journal has let go of: an older copy of the one that is looked for is among them.
    fn older(&self, tables: &LocalTables) -> String {
        let Some(last) = tables.segments.last() else { return String::new() };
        let listed = |no: &SegmentNo| tables.segments.iter().any(|table| table.no == *no);
        let older = self.placed.range(..last.no).filter(|(no, _)| !listed(no));
        let names: Vec<String> =
            older.map(|(no, segment)| format!("{} is segment {no}", segment.file.name())).collect();
        if names.is_empty() { String::new() } else { format!("; of those not in use {}", names.join(", ")) }
    }

    /// The segment that a table is of.
    fn of(&self, table: &SegmentTable) -> Option<&Arc<Segment>> {
        self.placed.get(&table.no).filter(|segment| segment.generation == table.generation)
    }

    fn last(&self) -> u64 {
        self.placed.last_key_value().map_or(0, |(no, _)| no.0)
    }

    /// Checks that the last segment that was ever made is there. Those before it are missed as gaps.
    fn check_last(&self, made: u64, tables: &LocalTables) -> Result<(), JournalError> {
        if self.last() >= made {
            return Ok(());
        }
        let (unreadable, older) = (self.unreadable(), self.older(tables));
        let reason = format!("the slot says that it was made{unreadable}{older}");
        Err(JournalError::Gap { missing: SegmentNo(made), reason })
    }

    /// Removes files without a header that are too short to be segments: what a crash left, or cut short before any use.
    fn remove_short(&mut self, disk: &Arc<dyn Disk>, segment_bytes: u64) -> Result<(), JournalError> {
        for files in [&mut self.raw, &mut self.bad] {
            let is_short = |file: &mut SegmentFile| file.len < segment_bytes;
            for file in files.extract_if(.., is_short) {
                disk.remove(&file.name()).map_err(JournalError::disk("remove a file that is too short"))?;
                self.count -= 1;
            }
        }
        Ok(())
    }
}

fn misplaced(file: &SegmentFile, reason: String) -> JournalError {
    JournalError::Corrupt { file: file.name(), position: 0, sequence: Sequence::NONE, reason }
}

type Arranged = (Index, Vec<Arc<Segment>>, Vec<Arc<Segment>>);

/// What the checkpoint knows; the run of segments from its last one on, without a gap; and those that are dead.
fn arrange(files: &Files, tables: &LocalTables) -> Result<Arranged, JournalError> {
    let mut index = Index::default();
    for table in &tables.segments {
        index.restore(listed(files, tables, table)?, table);
    }
    let first = tables.segments.last().map_or(SegmentNo::FIRST, SegmentTable::no);
    let mut run: Vec<Arc<Segment>> = Vec::new();
    for (&no, segment) in files.placed.range(first..) {
        let expected = run.last().map_or(first, |last| last.no.next());
        if no != expected {
            let reason = format!("segment {no} is there{}", files.unreadable());
            return Err(JournalError::Gap { missing: expected, reason });
        }
        run.push(segment.clone());
    }
    if run.is_empty() && !files.bad.is_empty() {
        let reason = format!("no segment can be read{}", files.unreadable());
        return Err(JournalError::Gap { missing: first, reason });
    }
    let listed = |no: &SegmentNo| tables.segments.iter().any(|table| table.no == *no);
    let dead = files.placed.range(..first).filter(|(no, _)| !listed(no));
    Ok((index, run, dead.map(|(_, segment)| segment.clone()).collect()))
}

/// The segment that a checkpoint lists.
fn listed(files: &Files, tables: &LocalTables, table: &SegmentTable) -> Result<Arc<Segment>, JournalError> {
    let Some(found) = files.of(table) else { return Err(unmatched(files, tables, table)) };
    if found.file.number != table.file {
        let file = file_name(table.file);
        let reason =
            format!("it is segment {}, which the checkpoint has in {file}: files were renamed", table.no);
        return Err(misplaced(&found.file, reason));
    }
    Ok(found.clone())
}

fn unmatched(files: &Files, tables: &LocalTables, table: &SegmentTable) -> JournalError {
    let (missing, file) = (table.no, file_name(table.file));
    let instead = files.placed.values().find(|segment| segment.file.number == table.file);
    let instead = instead.map(|segment| segment.no);
    let around = match instead {
        Some(no) if no == missing => format!(", which is another segment {no} here"),
        Some(no) => format!(", which is segment {no} here"),
        None => files.unreadable(),
    };
    let reason = format!("the checkpoint lists it as file {file}{around}");
    let others = tables.segments.iter().any(|table| files.of(table).is_some());
    JournalError::Unmatched { missing, generation: table.generation, file, instead, others, reason }
}

/// What follows the last good frame.
struct End {
    clean: bool,
    torn: Option<Torn>,
    /// Whether frames of the lost tail still stand behind it.
    remnants: bool,
}

struct Recovery<'a> {
    pool: &'a Arc<BufPool>,
    slot: HardState,
    run: &'a [Arc<Segment>],
    files: &'a Files,
    progress: &'a StartProgress,
}

impl Recovery<'_> {
    fn window(&self, at: usize) -> Window<'_, SegmentFile> {
        Window::new(&self.run[at].file, self.pool)
    }

    /// Where the walk starts: behind the checkpoint's block, which must be good.
    fn begin(&self, tables: &LocalTables) -> Result<(u64, Chain), JournalError> {
        let Some(table) = tables.segments.last() else { return Ok((FIRST_FRAME, Chain::START)) };
        let start = table.start_of(tables.through).ok_or(JournalError::Tables("a block without a place"))?;
        let found = examine(&mut self.window(0), start, self.run[0].generation).map_err(reading())?;
        let reason = match found {
            Found::Frame(header, crc)
                if header.sequence == tables.through && header.kind == FrameKind::Block =>
            {
                return Ok((start + header.framed_len() as u64, Chain::after(&header, crc)));
            }
            Found::Newer(version) => return Err(self.newer(0, version)),
            Found::Frame(..) => "another block stands there",
            Found::Bad(reason) => reason,
            Found::End => "the file ends before it",
        };
        let reason = format!("{reason}, but the checkpoint holds it");
        Err(self.corrupt((0, start), tables.through, reason))
    }

    fn walk(&self, start: u64, after: Chain, index: &mut Index) -> Result<Walked, JournalError> {
        let mut walked = Walked { chain: after, at: 0, pos: start, last_ms: i64::MIN, reason: "" };
        loop {
            self.walk_segment(&mut walked, index)?;
            if !self.continues_at_next(&walked)? {
                return Ok(walked);
            }
            (walked.at, walked.pos) = (walked.at + 1, FIRST_FRAME);
        }
    }

    fn walk_segment(&self, walked: &mut Walked, index: &mut Index) -> Result<(), JournalError> {
        let segment = &self.run[walked.at];
        let mut window = self.window(walked.at);
        let doing = "looking for the end of the journal, segment by segment";
        let count = (walked.at as u64, self.run.len() as u64);
        self.progress.begin(&segment.file.name(), doing, Some(count));
        loop {
            let found = next_frame(&mut window, walked.pos, segment.generation, &walked.chain, &self.slot);
            walked.reason = match found.map_err(reading())? {
                Found::Frame(header, crc) => {
                    let end = walked.pos + header.framed_len() as u64;
                    if header.kind == FrameKind::Block {
                        index.push(segment, header.sequence.0, walked.pos, end);
                        let content = window.bytes(walked.pos + FRAME as u64, CONTENT_HEADER as u64);
                        let content = ContentHeader::decode(content.map_err(reading())?);
                        walked.last_ms = content.map_or(walked.last_ms, |content| content.time_ms);
                    }
                    (walked.chain, walked.pos) = (Chain::after(&header, crc), end);
                    continue;
                }
                Found::Bad(reason) => reason,
                Found::End => "the segment ends",
                Found::Newer(version) => return Err(self.newer(walked.at, version)),
            };
            return Ok(());
        }
    }

    /// Whether the next segment begins with the frame that is expected: then the last one was only full.
    fn continues_at_next(&self, walked: &Walked) -> Result<bool, JournalError> {
        let Some(next) = self.run.get(walked.at + 1) else { return Ok(false) };
        let mut window = self.window(walked.at + 1);
        let found = next_frame(&mut window, FIRST_FRAME, next.generation, &walked.chain, &self.slot);
        match found.map_err(reading())? {
            Found::Frame(..) => Ok(true),
            Found::Newer(version) => Err(self.newer(walked.at + 1, version)),
            Found::Bad(_) | Found::End => Ok(false),
        }
    }

    /// Tells a torn tail from a lost block.
    fn judge(&self, walked: &Walked) -> Result<End, JournalError> {
        let last = walked.chain.last;
        for (bound, what) in
            [(self.slot.clean, "the shutdown sealed"), (self.slot.committed, "the slot says was committed")]
        {
            if bound > last {
                let place = self.place_of(walked, None)?;
                let reason = format!("{}, but {what} block {bound}", walked.reason);
                return Err(self.corrupt(place, last.next(), reason));
            }
        }
        if walked.chain.sealed && self.slot.clean == last && last > Sequence::NONE {
            return Ok(End { clean: true, torn: None, remnants: false });
        }
        let remnants = self.scan_behind(walked)?;
        let torn = self.torn_place(walked, remnants)?.map(|(at, position)| Torn {
            file: self.run[at].file.name(),
            position,
            sequence: last.next(),
        });
        Ok(End { clean: false, torn, remnants })
    }

    /// Looks for a frame that covers the missing block; an error if there is one. Returns whether there are frames at all.
    ///
    /// One that does stands no further than the longest run without a flush, and what was in flight; but the rest of this segment and
    /// the few that were prepared are no more, so all of it is looked at and nothing hangs on how long a flush took.
    fn scan_behind(&self, walked: &Walked) -> Result<bool, JournalError> {
        let missing = Missing { sequence: walked.chain.last.next(), chain: &walked.chain, slot: &self.slot };
        let mut remnants = false;
        for at in walked.at..self.run.len() {
            let segment = &self.run[at];
            let from = if at == walked.at { walked.pos + STEP } else { FIRST_FRAME };
            let doing = "looking for what was written later";
            self.progress.begin(&segment.file.name(), doing, None);
            let found =
                scan(&mut self.window(at), from..segment.file.len, Some(segment.generation), &missing);
            let found = found.map_err(reading())?;
            if let Some(witness) = found.witness {
                let place = self.place_of(walked, Some((at, found)))?;
                let by = (segment.file.name(), witness);
                return Err(self.corrupt(place, missing.sequence, covered(walked.reason, &by)));
            }
            remnants |= found.first_later.is_some();
        }
        self.scan_unplaced(&missing)?;
        Ok(remnants)
    }

    /// Looks for later frames in files that have no place in the log: then a used one lost its header.
    fn scan_unplaced(&self, missing: &Missing<'_>) -> Result<(), JournalError> {
        let raw = self.files.raw.iter().map(|file| (file, RAW_SCAN_BYTES));
        for (file, bytes) in self.files.bad.iter().map(|file| (file, u64::MAX)).chain(raw) {
            let range = FIRST_FRAME..file.len.min(bytes);
            let found = scan(&mut Window::new(file, self.pool), range, None, missing).map_err(reading())?;
            if let Some(witness) = found.witness {
                let reason = covered("its header is bad", &(file.name(), witness));
                let sequence = missing.sequence;
                return Err(JournalError::Corrupt { file: file.name(), position: 0, sequence, reason });
            }
        }
        Ok(())
    }

    /// Where the missing block should stand: behind the last one, or at the start of the next segment if it did not fit.
    fn place_of(&self, walked: &Walked, found: Option<(usize, Scan)>) -> Result<(usize, u64), JournalError> {
        let here = (walked.at, walked.pos);
        let next = (walked.at + 1, FIRST_FRAME);
        if next.0 >= self.run.len() || self.looks_used(here)? {
            return Ok(here);
        }
        let room = walked.pos + STEP <= self.run[walked.at].file.len;
        // A later block at the very start of the next segment: what is missing came before it.
        let came_before = |scan: Scan| {
            let first = scan.first_later.filter(|first| first.position == FIRST_FRAME);
            first.is_some_and(|first| {
                first.header.sequence > walked.chain.last.next() || scan.witness == Some(first)
            })
        };
        let came_before =
            found.is_some_and(|(at, scan)| at == walked.at || (at == next.0 && came_before(scan)));
        if room && (came_before || !self.looks_used(next)?) { Ok(here) } else { Ok(next) }
    }

    fn torn_place(&self, walked: &Walked, remnants: bool) -> Result<Option<(usize, u64)>, JournalError> {
        let next = (walked.at + 1, FIRST_FRAME);
        let here = (walked.at, walked.pos);
        if self.looks_used(here)? {
            return Ok(Some(here));
        }
        if next.0 < self.run.len() && self.looks_used(next)? {
            return Ok(Some(next));
        }
        Ok(remnants.then_some(here))
    }

    /// Whether what stands there was meant to be a frame of this life of the file.
    fn looks_used(&self, (at, pos): (usize, u64)) -> Result<bool, JournalError> {
        let mut window = self.window(at);
        let bytes = window.bytes(pos, FRAME as u64).map_err(reading())?;
        if bytes.len() < FRAME {
            return Ok(false);
        }
        let magic = bytes[..4] == *b"SBRF";
        let generation = bytes[8..16] == self.run[at].generation.to_le_bytes();
        let whole = bytes[60..64] == crc32c(&bytes[..60]).to_le_bytes();
        Ok(generation || (magic && !whole))
    }

    fn corrupt(&self, (at, position): (usize, u64), sequence: Sequence, reason: String) -> JournalError {
        JournalError::Corrupt { file: self.run[at].file.name(), position, sequence, reason }
    }

    fn newer(&self, at: usize, found: u16) -> JournalError {
        JournalError::Newer { file: self.run[at].file.name(), found, known: FRAME_VERSION }
    }
}

fn covered(reason: &str, (file, witness): &(String, Witness)) -> String {
    let FrameHeader { sequence, durable_through, .. } = witness.header;
    format!(
        "{reason}, but block {sequence} at byte {} of {file} was written when all through block {durable_through} was durable",
        witness.position
    )
}

fn reading() -> impl FnOnce(crate::disk::DiskError) -> JournalError {
    JournalError::disk("read a segment")
}

/// What was found may so far be only in a cache; from now on frames will say that it is durable.
fn flush(
    disk: &Arc<dyn Disk>,
    segments: &[Arc<Segment>],
    progress: &StartProgress,
) -> Result<(), JournalError> {
    for segment in segments {
        progress.begin(&segment.file.name(), "flushing what was found", None);
        disk.sync(segment.file.id).map_err(JournalError::disk("flush what it found"))?;
    }
    Ok(())
}

/// Marks what was lost as cut, so that its remnants never prove anything, and the journal as running.
fn settle_slot(
    slots: &mut Slots,
    chain: &Chain,
    remnants: bool,
    last_segment: u64,
) -> Result<(), JournalError> {
    let mut slot = slots.get();
    slot.clean = Sequence::NONE;
    slot.segment = slot.segment.max(last_segment);
    if remnants {
        slot.cuts += 1;
        (slot.first_cut, slot.cut_term) = (chain.last.next(), slot.term);
    }
    if slot == slots.get() {
        return Ok(());
    }
    slots.save(slot).map_err(JournalError::disk("write its slot"))
}
