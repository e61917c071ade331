//! The journal of one shard on one node.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sabir_base::buf::BufPool;
use sabir_base::drain_loop::DrainLoop;
use sabir_model::{Sequence, Term};

use crate::block::{Block, LARGEST_FRAMED};
use crate::disk::{Completion, Disk, DiskError, WakeFn};
use crate::error::{BlockAppendError, BlockReadError, JournalError, StorageError};
use crate::frame::{FRAME, STEP};
use crate::index::{Index, Located};
use crate::progress::StartProgress;
use crate::read::{ColdRead, ColdReads, Place, Read, ReadAhead};
use crate::recovery::{DEPTH, recover};
use crate::replicator::Priority;
use crate::segment::{SEGMENT_HEADER, SegmentInfo, SegmentNo};
use crate::slots::{HardState, JournalFound, ShardIdentity, SlotForm, SlotNotes, Slots, StartId};
use crate::space::{Prepared, RESERVE, SegmentPool, SegmentPoolLimits};
use crate::table::LocalTables;
use crate::tail::{Tail, TailBudget};
use crate::writer::{Appended, Writer};

/// A second block goes under way only with this many bytes, by the group commit rule.
const FULL_ENOUGH: usize = 64 << 10;
/// How long a blocking call waits for the disk before it looks again.
const WAIT: Duration = Duration::from_millis(5);

/// What a journal is opened with.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Bytes of a new segment file; a multiple of 4 KiB, at most 256 MiB. A block must fit.
    pub segment_bytes: u64,
    /// What the tail cache may hold, readers' slices included, perhaps together with those of other journals.
    pub tail: Arc<TailBudget>,
    /// What all segments may take, in bytes; `None` for what the device has.
    pub max_bytes: Option<u64>,
    /// Bytes of the device left to others (a checkpoint, an archive object).
    pub keep_free: u64,
    /// Seed of the segments' generations; `None` takes the system's randomness.
    pub seed: Option<u64>,
    /// Where opening says what it is at.
    pub progress: Arc<StartProgress>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            tail: TailBudget::new(64 << 20),
            max_bytes: None,
            keep_free: 256 << 20,
            seed: None,
            progress: Arc::default(),
        }
    }
}

impl JournalOptions {
    fn check(&self) -> Result<(), JournalError> {
        let bytes = self.segment_bytes;
        if !bytes.is_multiple_of(STEP) || !(4 * STEP..=256 << 20).contains(&bytes) {
            let reason = "it must be a multiple of 4 KiB from 16 KiB to 256 MiB";
            return Err(JournalError::Option { option: "segment_bytes", reason });
        }
        Ok(())
    }
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The last block found; all up to it is flushed.
    pub last: Sequence,
    /// What is known to be committed: at least the checkpoint.
    pub committed: Sequence,
    /// The term in the slot.
    pub term: Term,
    /// Whether the last run ended by [`Journal::shutdown`].
    pub clean: bool,
    /// The tail that a crash tore, if it did.
    pub torn: Option<Torn>,
}

/// A write that a crash cut short. Nothing acknowledged was in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file name.
    pub file: String,
    /// Where it starts, in bytes.
    pub position: u64,
    /// The sequence that the block would have had.
    pub sequence: Sequence,
}

/// Figures of a journal since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Blocks appended.
    pub blocks: u64,
    /// Bytes of content appended.
    pub content_bytes: u64,
    /// Bytes written for blocks and seals, padding included.
    pub written_bytes: u64,
    /// Explicit flushes.
    pub flushes: u64,
    /// Seals.
    pub seals: u64,
    /// Bytes in the tail cache and among cold reads, or pinned by readers.
    pub tail_bytes: u64,
    /// Reads answered from memory.
    pub hot_reads: u64,
    /// Reads of the disk for readers, ahead of them or when they came.
    pub cold_reads: u64,
    /// Bytes of those.
    pub cold_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Whether a block that was written in vain waits for space, and what follows it waits with it.
    pub waits_for_space: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    blocks: AtomicU64,
    content_bytes: AtomicU64,
    written_bytes: AtomicU64,
    flushes: AtomicU64,
    seals: AtomicU64,
    hot_reads: AtomicU64,
}

impl Counters {
    pub(crate) fn block(&self, content: u64, written: u64) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.content_bytes.fetch_add(content, Ordering::Relaxed);
        self.written(written);
    }

    pub(crate) fn written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn seal(&self) {
        self.seals.fetch_add(1, Ordering::Relaxed);
    }
}

/// The marks, to be read without a lock.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    committed: AtomicU64,
    last: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    acked: AtomicU64,
    last_ms: AtomicI64,
}

impl Marks {
    /// The last block that can be had from the disk and will not change.
    pub(crate) fn evictable(&self) -> u64 {
        self.committed.load(Ordering::Acquire).min(self.written.load(Ordering::Acquire))
    }
}

/// What the writer and the readers share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub disk: Arc<dyn Disk>,
    pub pool: Arc<BufPool>,
    pub index: RwLock<Index>,
    pub segment_pool: SegmentPool,
    pub tail: Arc<Tail>,
    pub cold: Arc<ColdReads>,
    pub marks: Marks,
    pub counters: Counters,
    pub stopped: OnceLock<Arc<StorageError>>,
}

/// The journal of one shard on one node: frames in segments, what is durable, and what may be read.
///
/// It does not decide what is committed: a [`Replicator`](crate::Replicator) does, which alone calls
/// [`append`](Self::append), [`commit`](Self::commit) and [`cut`](Self::cut).
#[derive(Debug)]
pub struct Journal {
    pub(crate) parts: Parts,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) slots: Arc<Mutex<Slots>>,
    sealing: AtomicBool,
    refusing: AtomicBool,
    refusing_copies: AtomicBool,
    waits_for_space: AtomicBool,
    reaping: DrainLoop,
    completions: Mutex<Vec<Completion>>,
    waker: Waker,
    notes: Notes,
    /// Below this much room in the last segment before the reserve, ordinary entries are refused.
    headroom: u64,
}

/// What part of the last segment of the reserve copies leave to others: what is copied is larger than it was, and all of a segment is to have gone
/// before they end, or nothing of it comes free.
const LEFT_BY_COPIES: u64 = 2;
/// What part of it commits of positions leave to what makes space.
const LEFT_BY_COMMITS: u64 = 4;
/// What part of a segment is so little that another one is begun where all that stands in it may go.
const NEARLY_NONE: u64 = 16;

impl Journal {
    /// The segments that a journal needs to go on: the one in use, the next, and the reserve.
    pub const LEAST_SEGMENTS: u64 = RESERVE as u64 + 2;

    /// Opens or makes the journal in `disk`, starting from the checkpoint's tables where there is one. Blocking.
    ///
    /// # Errors
    /// See [`JournalError`]: corruption is reported with its place, and nothing is cut off or overwritten.
    pub fn open(
        disk: Arc<dyn Disk>,
        pool: Arc<BufPool>,
        options: JournalOptions,
        checkpoint: Option<LocalTables>,
    ) -> Result<(Arc<Self>, Recovered), JournalError> {
        options.check()?;
        let through = checkpoint.as_ref().map_or(Sequence::NONE, |tables| tables.through);
        let restored = recover(&disk, &pool, &options, checkpoint)?;
        let slot = restored.slots.get();
        let slots = Arc::new(Mutex::new(restored.slots));
        let limits = SegmentPoolLimits {
            segment_bytes: options.segment_bytes,
            max_bytes: options.max_bytes,
            keep_free: options.keep_free,
        };
        let segment_pool =
            SegmentPool::new(disk.clone(), pool.clone(), limits, slots.clone(), restored.pooled);
        let (active, pos) = match restored.active {
            Some(active) => active,
            None => (
                segment_pool.take().map_err(JournalError::disk("make its first segment"))?,
                SEGMENT_HEADER as u64,
            ),
        };
        active.file.hold().map_err(JournalError::disk("hold its last segment"))?;
        let chain = restored.chain;
        let tail = Tail::after(chain.last.0, options.tail);
        let cold = ColdReads::new(pool.clone(), tail.clone());
        let journal = Self {
            parts: Parts {
                disk,
                pool,
                index: RwLock::new(restored.index),
                segment_pool,
                tail,
                cold,
                marks: Marks::default(),
                counters: Counters::default(),
                stopped: OnceLock::new(),
            },
            writer: Mutex::new(Writer::new(active, pos, &chain, slot.cuts)),
            slots,
            sealing: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            refusing_copies: AtomicBool::new(false),
            waits_for_space: AtomicBool::new(false),
            reaping: DrainLoop::default(),
            completions: Mutex::default(),
            waker: Waker::default(),
            notes: Notes::default(),
            headroom: ((DEPTH + 1) * LARGEST_FRAMED).min(options.segment_bytes as usize / 4) as u64,
        };
        let committed = slot.committed.max(through);
        journal.parts.marks.committed.store(committed.0, Ordering::Release);
        journal.parts.marks.last_ms.store(restored.last_ms, Ordering::Release);
        journal.publish(&journal.writer.lock());
        let (term, clean, torn) = (slot.term.max(chain.term), restored.clean, restored.torn);
        Ok((Arc::new(journal), Recovered { last: chain.last, committed, term, clean, torn }))
    }

    /// Appends a block in `term` and sends it to the disk; returns its sequence and its content, shared with the cache.
    ///
    /// # Errors
    /// See [`BlockAppendError`].
    pub fn append(&self, block: Block, term: Term) -> Result<(Sequence, Bytes), BlockAppendError> {
        let time_ms = block.time_ms();
        let mut writer = self.writer.lock();
        let appended = writer.append(&self.parts, block, term);
        if appended.is_ok() {
            self.parts.marks.last_ms.fetch_max(time_ms, Ordering::AcqRel);
        }
        self.publish(&writer);
        appended.map(|Appended { sequence, content }| (sequence, content))
    }

    /// Takes in what the disk has completed; whether that was anything. From any thread; if another is at it, that one does it
    /// again. A replicator goes on to what follows from it; any other caller must [wake](Self::wake) the replicator's driver.
    pub(crate) fn advance(&self) -> bool {
        let mut any = false;
        self.reaping.run(|| any |= self.reap());
        any
    }

    fn reap(&self) -> bool {
        let mut completions = self.completions.lock();
        self.parts.disk.reap(&mut completions);
        if completions.is_empty() {
            return false;
        }
        let mut writer = self.writer.lock();
        for completion in completions.drain(..) {
            writer.complete(&self.parts, completion);
        }
        writer.flush_if_due(&self.parts);
        self.publish(&writer);
        true
    }

    /// Does what is due by time; see [`Replicator::tick`](crate::Replicator::tick).
    pub fn tick(&self, now_ms: u64) {
        let mut writer = self.writer.lock();
        writer.tick(&self.parts, now_ms);
        self.publish(&writer);
    }

    /// Copies the writer's marks to where they are read without its lock.
    pub(crate) fn publish(&self, writer: &Writer) {
        let (marks, flight) = (&self.parts.marks, &writer.flight);
        marks.last.store(flight.last(), Ordering::Release);
        marks.written.store(flight.written(), Ordering::Release);
        marks.durable.store(flight.durable(), Ordering::Release);
        marks.acked.store(flight.acked(), Ordering::Release);
        self.sealing.store(writer.is_sealing(), Ordering::Release);
        self.refusing.store(self.is_nearly_full(writer), Ordering::Release);
        self.refusing_copies.store(self.leaves_no_room_for_copies(writer), Ordering::Release);
        let waits = matches!(writer.shortage(), Some(DiskError::Full { .. }));
        self.waits_for_space.store(waits, Ordering::Release);
    }

    fn is_nearly_full(&self, writer: &Writer) -> bool {
        self.is_at_reserve(writer) || writer.shortage().is_some()
    }

    /// Whether the last segment before the reserve is nearly full, or some of the reserve was taken, and there is no space for another one.
    fn is_at_reserve(&self, writer: &Writer) -> bool {
        let (spare, can_grow) = self.parts.segment_pool.outlook();
        !can_grow && (spare < RESERVE || spare == RESERVE && writer.room() < self.headroom)
    }

    /// Bytes that copies of records may take yet on a full disk, of the segment in use and of the reserve.
    pub fn room_for_copies(&self) -> u64 {
        let writer = self.writer.lock();
        let (spare, _) = self.parts.segment_pool.outlook();
        let segment = writer.segment_len();
        (writer.room() + spare as u64 * segment).saturating_sub(segment / LEFT_BY_COPIES)
    }

    /// Whether copies of records would take what they leave to others of the last segment of the reserve.
    fn leaves_no_room_for_copies(&self, writer: &Writer) -> bool {
        writer.shortage().is_some() || self.is_at_the_last_part(writer, LEFT_BY_COPIES)
    }

    /// Whether all of the reserve was taken but for such a part of the segment in use.
    fn is_at_the_last_part(&self, writer: &Writer, part: u64) -> bool {
        let (spare, can_grow) = self.parts.segment_pool.outlook();
        !can_grow && spare == 0 && writer.room() < writer.segment_len() / part
    }

    /// Whether a segment of the reserve is filled, and only the last one is behind it.
    fn is_at_the_last_but_one(&self, writer: &Writer) -> bool {
        let (spare, can_grow) = self.parts.segment_pool.outlook();
        !can_grow && spare + 1 == RESERVE && writer.room() < writer.segment_len() / NEARLY_NONE
    }

    /// Whether some of the reserve was taken, and there is no space for more segments.
    pub fn lacks_reserve(&self) -> bool {
        let (spare, can_grow) = self.parts.segment_pool.outlook();
        !can_grow && spare < RESERVE
    }

    /// Whether no more of the reserve is left than what makes space is to have, and there is no space for more segments.
    pub fn has_room_for_deletes_alone(&self) -> bool {
        self.is_at_the_last_part(&self.writer.lock(), LEFT_BY_COMMITS)
    }

    /// Where the journal is full for want of segments: goes on in one of the reserve, so that the one at hand is closed with the next block and
    /// may be released; only if `last` is the last block, for of those behind it was not said that they are needed no more. Whether it did.
    pub fn leave_segment(&self, last: Sequence) -> bool {
        let mut writer = self.writer.lock();
        let is_at_end = (self.is_at_reserve(&writer) && writer.room() < self.headroom)
            || self.is_at_the_last_but_one(&writer);
        let left = is_at_end && writer.leave(&self.parts, last);
        self.publish(&writer);
        left
    }

    /// What the disk lacked when a block was last written in vain, if one waits for that: it is not committed, nor is what follows it,
    /// and it is tried again by [`tick`](Self::tick) until it is written.
    pub fn shortage(&self) -> Option<DiskError> {
        self.writer.lock().shortage().cloned()
    }

    /// What a full disk lacked last: for a block, or else for a further segment.
    pub fn lack(&self) -> Option<DiskError> {
        self.shortage().or_else(|| self.parts.segment_pool.lack())
    }

    /// Whether entries of that priority are taken now.
    pub fn admits(&self, priority: Priority) -> bool {
        match priority {
            Priority::Ordinary => !self.is_full(),
            Priority::Copy => !self.is_full() || !self.refusing_copies.load(Ordering::Acquire),
            Priority::Commit | Priority::Reserve => true,
        }
    }

    /// Whether ordinary entries are to be refused, so that the reserve lasts for those that make space.
    pub fn is_full(&self) -> bool {
        self.refusing.load(Ordering::Acquire)
    }

    /// The group commit rule: nothing in flight, or fewer than eight and 64 KiB or more waiting.
    pub fn ready(&self, open_bytes: usize) -> bool {
        let marks = &self.parts.marks;
        let depth = marks.last.load(Ordering::Acquire).saturating_sub(marks.acked.load(Ordering::Acquire));
        let full_enough = open_bytes >= FULL_ENOUGH && depth < DEPTH as u64;
        (depth == 0 || full_enough) && !self.sealing.load(Ordering::Acquire)
    }

    /// Says that all through `sequence` is final and may be read. Never falls.
    pub fn commit(&self, sequence: Sequence) {
        self.parts.marks.committed.fetch_max(sequence.0, Ordering::AcqRel);
    }

    /// The last block that may be read.
    pub fn committed(&self) -> Sequence {
        Sequence(self.parts.marks.committed.load(Ordering::Acquire))
    }

    /// The last block appended.
    pub fn last(&self) -> Sequence {
        Sequence(self.parts.marks.last.load(Ordering::Acquire))
    }

    /// The time of the last block appended, whichever node made it, in milliseconds since the epoch; before the first, of the last one that was
    /// found behind the checkpoint, and `i64::MIN` if there was none. It never falls: a block that was cut counts, too.
    pub fn last_ms(&self) -> i64 {
        self.parts.marks.last_ms.load(Ordering::Acquire)
    }

    /// The last block that this disk has as durably as it asked, with everything before it.
    pub fn acked(&self) -> Sequence {
        Sequence(self.parts.marks.acked.load(Ordering::Acquire))
    }

    /// The last block that a flush covers, with everything before it.
    pub fn durable(&self) -> Sequence {
        Sequence(self.parts.marks.durable.load(Ordering::Acquire))
    }

    /// Waits until a flush covers `through`, or all that is appended if that is less. Blocking: for checkpoints.
    ///
    /// # Errors
    /// The journal has stopped, or the flush found no space. It is then done again by [`tick`](Self::tick), and may be waited for again.
    pub fn flush(&self, through: Sequence) -> Result<(), Arc<StorageError>> {
        let through = through.min(self.last());
        {
            let mut writer = self.writer.lock();
            writer.flight.want(through.0);
            writer.flush_if_due(&self.parts);
        }
        let lacks = OnceCell::new();
        self.wait_until(|| {
            let error = || self.writer.lock().unflushable().cloned();
            self.durable() >= through || error().is_some_and(|error| lacks.set(error).is_ok())
        })?;
        lacks.into_inner().map_or(Ok(()), |source| {
            Err(Arc::new(StorageError { doing: "flush", sequence: self.durable().next(), source }))
        })
    }

    /// Drives the disk until `done`, and wakes the replicator's driver after all that it took in, whatever that was: the event
    /// descriptor may have been read by this wait. A block may wait for the end of a seal, which moves no mark.
    pub(crate) fn wait_until(&self, done: impl Fn() -> bool) -> Result<(), Arc<StorageError>> {
        loop {
            if self.advance() {
                self.wake();
            }
            if let Some(error) = self.parts.stopped.get() {
                self.wake();
                return Err(error.clone());
            }
            if done() {
                return Ok(());
            }
            if !self.parts.disk.wait(WAIT) && self.parts.disk.depth() == 0 {
                // Another thread has reaped and is about to take note.
                std::thread::yield_now();
            }
        }
    }

    /// Sets what is called when the marks have moved without the disk's event descriptor saying so.
    pub fn set_waker(&self, wake: WakeFn) {
        self.parts.disk.set_waker(wake.clone());
        *self.waker.0.lock() = Some(wake);
    }

    pub(crate) fn wake(&self) {
        let wake = self.waker.0.lock().clone();
        if let Some(wake) = wake {
            wake();
        }
    }

    /// The disk below.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.parts.disk
    }

    /// Why the journal stopped, if it did.
    pub fn stopped(&self) -> Option<Arc<StorageError>> {
        self.parts.stopped.get().cloned()
    }

    /// The bytes `offset..offset + len` of a committed block's content.
    ///
    /// # Errors
    /// See [`BlockReadError`].
    pub fn read(&self, sequence: Sequence, offset: u32, len: u32) -> Result<Read, BlockReadError> {
        if let Some(bytes) = self.read_tail(sequence, offset, len)? {
            return Ok(Read::Hot(bytes));
        }
        let place = self.place(sequence, offset, len)?;
        Ok(match self.parts.cold.get(&place)? {
            Some(bytes) => {
                self.parts.counters.hot_reads.fetch_add(1, Ordering::Relaxed);
                Read::Ahead(bytes)
            }
            None => Read::Cold(ColdRead { reads: self.parts.cold.clone(), place }),
        })
    }

    /// Drops what memory keeps of an earlier read of these bytes of a block, and all that was read with them, so that the next one asks
    /// the disk: for bytes whose checksum has failed. What is in memory since it was written stays.
    pub fn forget(&self, sequence: Sequence, offset: u32, len: u32) {
        if let Ok(place) = self.place(sequence, offset, len) {
            self.parts.cold.forget(&place);
        }
    }

    fn read_tail(&self, sequence: Sequence, offset: u32, len: u32) -> Result<Option<Bytes>, BlockReadError> {
        if sequence > self.committed() || sequence == Sequence::NONE {
            return Err(BlockReadError::NotCommitted { sequence });
        }
        let Some(content) = self.parts.tail.get(sequence.0) else { return Ok(None) };
        let range = offset as usize..offset as usize + len as usize;
        if range.end > content.len() {
            return Err(BlockReadError::OutOfBounds { sequence, offset, len });
        }
        self.parts.counters.hot_reads.fetch_add(1, Ordering::Relaxed);
        Ok(Some(self.parts.tail.slice_of(&content, range)))
    }

    /// Where these bytes of a block lie.
    fn place(&self, sequence: Sequence, offset: u32, len: u32) -> Result<Place, BlockReadError> {
        let located = self.parts.index.read().locate(sequence.0, self.parts.marks.evictable());
        let Some(found) = located else { return Err(BlockReadError::Released { sequence }) };
        let start = found.start + FRAME as u64 + u64::from(offset);
        if start + u64::from(len) > found.end {
            return Err(BlockReadError::OutOfBounds { sequence, offset, len });
        }
        let Located { segment, start: frame, stable_end, .. } = found;
        Ok(Place { sequence, segment, frame, start, len, stable_end })
    }

    /// What should be loaded now for readers that read on, if anything: to be [run](ReadAhead::run) on a thread that may block. Costs
    /// next to nothing when there is none.
    pub fn take_read_ahead(&self) -> Option<ReadAhead> {
        self.parts.cold.take_wanted()
    }

    /// Makes segments ready ahead of the writer: recycles dead ones, makes and zeroes new ones, in step with the writer so that
    /// its commits share the disk with little at a time. Blocking, in the background; returns at once when the pool is full.
    ///
    /// # Errors
    /// A failed disk. No space left is none: then ordinary entries are refused (see `Replicator::admits`) until there is.
    pub fn prepare(&self) -> Result<Prepared, JournalError> {
        if self.parts.stopped.get().is_some() {
            return Ok(Prepared::Short);
        }
        let pace = {
            let writer = self.writer.lock();
            // Begun in earnest at a sixteenth, and done when a little more than half is used.
            2 * writer.used().saturating_sub((writer.used() + writer.room()) / 16)
        };
        let made = self.slots.lock().get().segment;
        let prepared =
            self.parts.segment_pool.prepare(pace).map_err(JournalError::disk("prepare a segment"))?;
        self.publish(&self.writer.lock());
        if self.slots.lock().get().segment > made {
            self.note_durable();
        }
        Ok(prepared)
    }

    /// Makes the files of the segments that there are to be, without zeroing any: a new journal takes its space at once, and where there is too
    /// little that is known from the start on. Blocking.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn take_space(&self) -> Result<Prepared, JournalError> {
        let taken = self.parts.segment_pool.prepare(0).map_err(JournalError::disk("make a segment"))?;
        self.publish(&self.writer.lock());
        Ok(taken)
    }

    /// The tables cut at `through`, for the checkpoint of that sequence. They leave out those of the `dead` segments, to which
    /// nothing refers, that are closed and lie wholly before `through`.
    pub fn tables(&self, through: Sequence, dead: &[SegmentNo]) -> LocalTables {
        self.parts.index.write().tables(through.0, dead)
    }

    /// Says that the checkpoint of the tables last taken is committed: the segments that they left out are released. Their blocks
    /// cannot be read from now on, and are overwritten once no reader pins them. Until then, and if that checkpoint never is
    /// committed, they stay as they are.
    pub fn checkpoint_committed(&self) {
        let dead = self.parts.index.write().take_left_out();
        self.parts.segment_pool.recycle(dead);
        self.publish(&self.writer.lock());
        self.note_durable();
    }

    /// Has the slot say how much is durable if that, or what its notes say, has grown since it last did; to be called every second or
    /// so, so that the loss of what is older than that is noticed although a journal grows slowly. That other shards have grown counts
    /// for the first `ends` of those noted: at most [`SHARD_ENDS`](crate::SHARD_ENDS). Blocking, one write and one sync; no append waits for it.
    pub fn note_growth(&self, ends: usize) {
        let slot = self.slots.lock().get();
        let notes = self.notes.now().is_some_and(|notes| slot.notes.is_old(&notes, ends));
        if self.parts.stopped.get().is_none() && (notes || self.kept() > slot.committed) {
            self.note_durable();
        }
    }

    /// Writes the slot again, as it is: one write and one sync, by which it is seen whether the disk answers. Blocking, for as long as it does not.
    pub fn ask_disk(&self) {
        if self.parts.stopped.get().is_none() {
            self.note_durable();
        }
    }

    /// Sets what is asked, whenever the slot is written, for what it is to say of the world around this journal. It must not wait.
    pub fn set_notes(&self, notes: Arc<dyn Fn() -> SlotNotes + Send + Sync>) {
        *self.notes.0.lock() = Some(notes);
    }

    /// Has the slot be in this form from now on, or in the newer one that it has; until then it stays in the one that it was found in. A
    /// version that did not write that form does not read it.
    pub fn raise_slot(&self, form: SlotForm) {
        self.slots.lock().raise(form);
    }

    /// The last block that no crash takes any more, nor a cut.
    pub fn kept(&self) -> Sequence {
        self.committed().min(self.durable())
    }

    /// Has the slot say how much is durable, so that the loss of all of it is noticed. Where there is no space for that, it says what it
    /// said before: the other copy stays as it is.
    fn note_durable(&self) {
        match self.save_slot(|_| {}) {
            Ok(_) => {}
            Err(error) if error.is_shortage() => tracing::debug!(%error, "the slot is written later"),
            Err(source) => drop(self.stop("write its slot", source)),
        }
    }

    /// What was last written down of its identity and its starts.
    pub fn found(&self) -> JournalFound {
        self.slots.lock().get().found()
    }

    /// Writes down which shard it is and which start of the data directory this is: its number and its id, which all shards share.
    ///
    /// # Errors
    /// The slot could not be written.
    pub fn enter_run(
        &self,
        identity: ShardIdentity,
        run: u64,
        start: Option<StartId>,
    ) -> Result<(), JournalError> {
        let saved = self.save_slot(|slot| {
            (slot.identity, slot.run, slot.start) = (Some(identity), run, start);
        });
        saved.map(drop).map_err(JournalError::disk("write its slot"))
    }

    /// Writes down that every shard has [entered](Self::enter_run) the run that this one has.
    ///
    /// # Errors
    /// The slot could not be written.
    pub fn confirm_run(&self) -> Result<(), JournalError> {
        let saved = self.save_slot(|slot| slot.confirmed_run = slot.run);
        saved.map(drop).map_err(JournalError::disk("write its slot"))
    }

    /// The segment that holds a block; `None` when released or not written yet.
    pub fn segment_of(&self, sequence: Sequence) -> Option<SegmentNo> {
        self.parts.index.read().segment_of(sequence.0)
    }

    /// What a replay of the blocks behind `after`, up to block `through`, reads: the bytes that they take in the segments, which for a small
    /// block are many times its content.
    pub fn bytes_between(&self, after: Sequence, through: Sequence) -> u64 {
        self.parts.index.read().bytes_between(after.0, through.0)
    }

    /// The segments that hold blocks and are not released, in order.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.parts.index.read().segments()
    }

    /// Gives the file of one released segment back to the file system, where others need its space more; false if all that is
    /// left is the reserve. Blocking.
    ///
    /// # Errors
    /// The file could not be removed.
    pub fn give_back_segment(&self) -> Result<bool, JournalError> {
        self.parts.segment_pool.give_back_one().map_err(JournalError::disk("remove a segment"))
    }

    /// Gives the file of a segment of the reserve back to the file system, for what frees segments again; false if all but one of it is gone
    /// already. Blocking.
    ///
    /// # Errors
    /// The file could not be removed.
    pub fn give_back_reserved_segment(&self) -> Result<bool, JournalError> {
        self.parts.segment_pool.give_back_reserved().map_err(JournalError::disk("remove a segment"))
    }

    /// Changes the slot and makes it durable. What it says is committed is always durable too.
    pub(crate) fn save_slot(&self, change: impl FnOnce(&mut HardState)) -> Result<HardState, DiskError> {
        let mut slots = self.slots.lock();
        let mut slot = slots.get();
        slot.committed = slot.committed.max(self.kept());
        slot.notes = self.notes.now().unwrap_or(slot.notes);
        change(&mut slot);
        slots.save(slot)?;
        Ok(slot)
    }

    /// Makes a term durable before anything is written in it; a lower one than the slot's is raised to it.
    ///
    /// # Errors
    /// The slot could not be written.
    pub fn enter_term(&self, term: Term) -> Result<Term, JournalError> {
        let saved = self.save_slot(|slot| slot.term = slot.term.max(term));
        saved.map(|slot| slot.term).map_err(JournalError::disk("write its slot"))
    }

    /// The term of the last frame or of the slot, whichever is higher.
    pub fn term(&self) -> Term {
        let written = self.writer.lock().term();
        self.slots.lock().get().term.max(written)
    }

    /// The vote in the slot.
    pub fn vote(&self) -> Option<crate::slots::Vote> {
        self.slots.lock().get().vote
    }

    /// Makes a vote durable.
    ///
    /// # Errors
    /// The slot could not be written.
    pub fn save_vote(&self, vote: crate::slots::Vote) -> Result<(), JournalError> {
        let saved = self.save_slot(|slot| slot.vote = Some(vote));
        saved.map(drop).map_err(JournalError::disk("write its slot"))
    }

    /// Drains, flushes and seals, so that the next start need not look for a torn tail. Nothing is appended after it. Blocking. A block
    /// that waits for space is tried once more; if it finds none the journal stops, and the next start cuts it off.
    ///
    /// # Errors
    /// The journal has stopped.
    pub fn shutdown(&self) -> Result<(), Arc<StorageError>> {
        self.writer.lock().close(&self.parts);
        self.wait_until(|| {
            let mut writer = self.writer.lock();
            let done = writer.seal_or_flush(&self.parts);
            self.publish(&writer);
            done
        })?;
        let (last, sealed) = {
            let writer = self.writer.lock();
            (Sequence(writer.flight.last()), writer.is_sealed())
        };
        if sealed && self.durable() == last {
            match self.save_slot(|slot| slot.clean = last) {
                Ok(_) => {}
                Err(error) if error.is_shortage() => {
                    tracing::warn!(%error, "no space to write that the journal was shut down: the next start looks for its end");
                }
                Err(source) => return Err(self.stop("write its slot", source)),
            }
        }
        Ok(())
    }

    pub(crate) fn stop(&self, doing: &'static str, source: DiskError) -> Arc<StorageError> {
        self.writer.lock().stop(&self.parts, doing, source)
    }

    /// Stops it for good because of what happened above it; reads of what is committed go on.
    pub fn abandon(&self, why: Arc<str>) {
        self.stop("go on", DiskError::Abandoned { why });
    }

    /// Lets go of what was read from the disk beyond what the tail's budget leaves it.
    pub fn shrink_reads(&self) {
        self.parts.cold.shrink();
    }

    /// Figures since it was opened.
    pub fn stats(&self) -> JournalStats {
        let counters = &self.parts.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JournalStats {
            blocks: load(&counters.blocks),
            content_bytes: load(&counters.content_bytes),
            written_bytes: load(&counters.written_bytes),
            flushes: load(&counters.flushes),
            seals: load(&counters.seals),
            tail_bytes: self.parts.tail.held_bytes() as u64,
            hot_reads: load(&counters.hot_reads),
            cold_reads: load(&self.parts.cold.reads),
            cold_bytes: load(&self.parts.cold.read_bytes),
            segments: self.parts.segment_pool.files(),
            waits_for_space: self.waits_for_space.load(Ordering::Acquire),
        }
    }
}

/// Where the slot's notes come from.
#[derive(Default)]
struct Notes(Mutex<Option<Arc<dyn Fn() -> SlotNotes + Send + Sync>>>);

impl Notes {
    fn now(&self) -> Option<SlotNotes> {
        let notes = self.0.lock().clone();
        notes.map(|notes| notes())
    }
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notes")
    }
}

/// Is called when there is something to look at.
#[derive(Default)]
struct Waker(Mutex<Option<WakeFn>>);

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}
