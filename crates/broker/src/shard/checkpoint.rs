//! Checkpoints: the projections as pages, so that a start need not replay everything.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use sabir_journal::disk::DiskError;
use sabir_journal::pages::{PageBatch, PageError, PageRoom};
use sabir_journal::{Priority, SegmentNo, StorageError};
use sabir_model::Sequence;
use tracing::{debug, error, warn};

use super::Shard;
use super::dead_segments::SegmentKeepers;
use super::tables::StoredTables;
use crate::entry::LogStartsMoved;
use crate::state::{Counters, Cut};

/// How often dead segments are looked for while there is space.
const LOOK: Duration = Duration::from_secs(5);
/// How long the next try waits after one that was given up; doubled with each, but for these doublings at most.
const BACK_OFF: Duration = Duration::from_millis(200);
const DOUBLINGS: u32 = 5;
/// How often room is looked for that the disk did not have.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);
/// Changes for which space is kept before they come, in bytes.
const AHEAD: u64 = 4 << 20;
/// A checkpoint is written before more changes than this wait for one, in bytes: space is kept for all of them.
const CHANGES_MOST: u64 = 16 << 20;
/// None is written for fewer where there is no room for more.
const CHANGES_LEAST: u64 = 32 << 10;
/// More than this of what is stored is hardly written anew at once: it is what the page store keeps space for at most.
const ANEW_MOST: u64 = 128 << 20;
/// What a checkpoint takes of the page store's room, whatever is in it.
const CHECKPOINT_TAKES: u64 = 2 << 20;
/// How much memory what was captured may take before it is put into the store.
const PORTION: usize = 8 << 20;

/// What the shard knows of its checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpointer {
    tables: StoredTables,
    /// The block that the last one is of.
    through: Sequence,
    /// How many entries had been applied then.
    entries: u64,
    /// What was replayed at the start and is in no checkpoint yet.
    replayed: Counters,
    /// How many bytes had been changed then.
    changes: u64,
    /// What is known of who keeps which segment.
    keepers: SegmentKeepers,
    /// When dead segments were last looked for.
    looked: Option<Instant>,
    /// How many were given up in a row, and when the next one is tried.
    failures: u32,
    not_before: Option<Instant>,
    /// When it was last seen to that space is set aside, and for how many bytes of changes.
    kept: Option<Instant>,
    kept_for: u64,
    /// Whether the disk had not enough for that.
    lacks_room: bool,
}

impl Checkpointer {
    /// `through` is the block that the checkpoint is of which was found; so much behind it was replayed.
    pub(super) fn new(tables: StoredTables, through: Sequence, replayed: Counters) -> Self {
        Self { tables, through, replayed, ..Self::default() }
    }

    /// Bytes of changes that are in no checkpoint, where these were applied since the start.
    fn waiting(&self, counters: &Counters) -> u64 {
        self.replayed.changes + counters.changes - self.changes
    }

    /// One was given up. Whether that is worth a line in the log: ever more rarely while nothing changes.
    fn failed(&mut self) -> bool {
        self.not_before = Some(Instant::now() + BACK_OFF * 2u32.pow(self.failures.min(DOUBLINGS)));
        self.failures += 1;
        self.failures.is_power_of_two()
    }
}

/// Why a checkpoint was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckpointError {
    #[error(transparent)]
    Pages(#[from] PageError),
    #[error(transparent)]
    Journal(#[from] Arc<StorageError>),
    #[error("the last block was applied in part: no checkpoint is made of that")]
    HalfApplied,
}

impl Shard {
    /// Sees to it that there is room for the next checkpoint. Blocking.
    pub(crate) fn keep_room(&self) {
        if let Some(mut checkpointer) = self.applies.checkpointer.try_lock() {
            self.keep_reserve(&mut checkpointer);
            self.bound_commits(&checkpointer);
        }
    }

    /// Writes a checkpoint if one is due, or if it would free space that is needed. Blocking.
    pub(crate) fn checkpoint_if_due(&self) {
        let Some(mut checkpointer) = self.applies.checkpointer.try_lock() else { return };
        self.make_space();
        self.look_at_delayed(&mut checkpointer.keepers);
        let waits = checkpointer.not_before.is_some_and(|due| Instant::now() < due);
        if waits || self.is_stopped() {
            return;
        }
        if !self.is_due(&mut checkpointer) {
            return self.leave_dead_segment(&mut checkpointer);
        }
        match self.write_checkpoint(&mut checkpointer) {
            Ok(()) => {}
            Err(CheckpointError::Pages(reason @ PageError::Corrupt { .. })) => {
                error!(shard = %self.id, %reason, "the shard stops");
                self.stop_for(sabir_model::ShardFailure::StorageError);
            }
            Err(reason) => {
                let tell = checkpointer.failed();
                self.meters.failed_checkpoints.add(1);
                self.meters.checkpoints_fail.is_so();
                let failures = checkpointer.failures;
                if tell {
                    warn!(shard = %self.id, %reason, failures, "a checkpoint was given up; it is tried again");
                }
            }
        }
    }

    /// Writes a checkpoint, due or not. Blocking.
    pub(crate) fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.write_checkpoint(&mut self.applies.checkpointer.lock())
    }

    /// Has space set aside for checkpoints on a full disk, of the journal's own if there is no other: without a checkpoint no
    /// segment is ever free again.
    fn keep_reserve(&self, checkpointer: &mut Checkpointer) {
        let waiting = self.waiting_changes(checkpointer);
        let again = if checkpointer.lacks_room { LOOK_FOR_ROOM } else { LOOK };
        if checkpointer.kept.is_some_and(|kept| kept.elapsed() < again)
            && !self.may_keep_more(checkpointer, waiting)
        {
            return;
        }
        checkpointer.kept = Some(Instant::now());
        // What comes until the next look has its space, too.
        let changes = waiting + AHEAD;
        checkpointer.lacks_room = !self.pages.keep_reserve(changes);
        if !checkpointer.lacks_room {
            checkpointer.kept_for = changes;
            return;
        }
        // Other programs may have had what the last checkpoint was to have: then one of the journal's own goes for it, of those that it has in
        // reserve for what makes space.
        let frees = checkpointer.failures > 0 && !self.dead_segments(&mut checkpointer.keepers).is_empty();
        let given = match self.journal.give_back_segment() {
            Ok(false) if frees => self.journal.give_back_reserved_segment(),
            given => given,
        };
        match given {
            Ok(given) => {
                checkpointer.lacks_room = !(given && self.pages.keep_reserve(changes));
                debug!(shard = %self.id, kept = !checkpointer.lacks_room, "the disk has no space for the next checkpoint");
            }
            Err(error) => warn!(shard = %self.id, %error, "a segment could not be given back"),
        }
    }

    /// Whether there was space when it was last asked for, and what that was for has come in half.
    fn may_keep_more(&self, checkpointer: &Checkpointer, waiting: u64) -> bool {
        !checkpointer.lacks_room && waiting + AHEAD / 2 > checkpointer.kept_for
    }

    fn waiting_changes(&self, checkpointer: &Checkpointer) -> u64 {
        checkpointer.waiting(&self.state.read().counters)
    }

    /// Bounds what positions may be committed on a full disk, before they take what deletes need, be it of the journal or of the space that the
    /// next checkpoint has.
    fn bound_commits(&self, checkpointer: &Checkpointer) {
        let room = if self.is_full() && self.journal.has_room_for_deletes_alone() {
            0
        } else if checkpointer.lacks_room {
            self.room_for_changes(checkpointer) / 2
        } else {
            checkpointer.kept_for.saturating_sub(self.waiting_changes(checkpointer))
        };
        self.set_commit_room(room);
        self.applies.lacks_room.store(checkpointer.lacks_room, Relaxed);
    }

    fn set_commit_room(&self, bytes: u64) {
        self.applies.commit_room.store(i64::try_from(bytes).unwrap_or(i64::MAX), Relaxed);
    }

    /// How many more bytes may change before a checkpoint, and one of deletes after it, take all of the room that there is.
    fn room_for_changes(&self, checkpointer: &Checkpointer) -> u64 {
        let Ok(room) = self.pages.room() else { return 0 };
        // All that is stored may be written anew, since a value is written whole whatever changes in it; and what it replaces is free one
        // checkpoint later.
        let anew = 2 * room.used.min(ANEW_MOST);
        let free = room.all.saturating_sub(room.used + anew + CHECKPOINT_TAKES);
        (free / PageRoom::A_CHANGE_TAKES).saturating_sub(self.waiting_changes(checkpointer))
    }

    /// Where a block finds no space in a segment that is there (a file system that copies on write), segments without records are given
    /// back for it: what a delete would free waits behind that block.
    fn make_space(&self) {
        if !matches!(self.journal.shortage(), Some(DiskError::Full { .. })) {
            return;
        }
        if let Err(error) = self.journal.give_back_segment() {
            warn!(shard = %self.id, %error, "a segment could not be given back");
        }
    }

    fn is_due(&self, checkpointer: &mut Checkpointer) -> bool {
        let (applied, entries, waiting) = {
            let state = self.state.read();
            (state.applied, state.counters.entries, checkpointer.waiting(&state.counters))
        };
        self.journal.bytes_between(checkpointer.through, applied) >= self.settings.checkpoint_bytes
            || checkpointer.replayed.entries + entries - checkpointer.entries >= self.settings.checkpoint_entries
            || waiting >= CHANGES_MOST
            // Before it takes more than what is kept for it.
            || (checkpointer.lacks_room && waiting >= CHANGES_LEAST && self.room_for_changes(checkpointer) < waiting)
            || self.frees_enough(checkpointer)
    }

    /// Whether a checkpoint would give back as many bytes as make one due, or any at all that are needed.
    fn frees_enough(&self, checkpointer: &mut Checkpointer) -> bool {
        let needed = !self.replicator.admits(Priority::Ordinary) || self.journal.lacks_reserve();
        let looked = checkpointer.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        if looked && !needed {
            return false;
        }
        checkpointer.looked = Some(Instant::now());
        let dead = self.dead_segments(&mut checkpointer.keepers).len() as u64;
        dead > 0 && (needed || dead * self.settings.segment_bytes >= self.settings.checkpoint_bytes)
    }

    /// On a full disk that no closed segment relieves: has the journal leave the one at hand if no record in it is kept. The entry behind it
    /// closes it, and the next checkpoint frees it.
    fn leave_dead_segment(&self, checkpointer: &mut Checkpointer) {
        if self.replicator.admits(Priority::Ordinary) || !self.settings.recycle || !self.is_led() {
            return;
        }
        let Some(last) = self.journal.segments().pop() else { return };
        if self.is_dead(&last, &mut checkpointer.keepers) && self.journal.leave_segment(last.last) {
            debug!(shard = %self.id, segment = %last.no, "left before it is full: no record in it is kept");
            self.propose_quietly(&LogStartsMoved { moves: Vec::new() });
            self.submit();
        }
    }

    /// What finds the disk full has what is set aside for it.
    fn write_checkpoint(&self, checkpointer: &mut Checkpointer) -> Result<(), CheckpointError> {
        if checkpointer.lacks_room {
            // It is not known what this one leaves until it is written.
            self.set_commit_room(self.room_for_changes(checkpointer) / 4);
        }
        match self.try_checkpoint(checkpointer) {
            Err(CheckpointError::Pages(PageError::Full { .. })) if self.pages.give_up_reserve() => {
                self.try_checkpoint(checkpointer)
            }
            result => result,
        }
    }

    fn try_checkpoint(&self, checkpointer: &mut Checkpointer) -> Result<(), CheckpointError> {
        let dead = self.dead_segments(&mut checkpointer.keepers);
        let (cut, counters) = {
            let mut state = self.state.write();
            // They are dead still: log starts only move on, and nothing refers to a record that is not kept. Should this fail they are
            // found to be so again.
            dead.iter().for_each(|no| state.partitions.usage.forget(*no));
            let cut = state.begin_checkpoint().ok_or(CheckpointError::HalfApplied)?;
            (cut, state.counters)
        };
        let sequence = cut.sequence;
        let written = self.write_pages(checkpointer, cut, &dead);
        let mut state = self.state.write();
        if let Err(error) = written {
            state.checkpoint_failed();
            return Err(error);
        }
        state.checkpoint_committed();
        checkpointer.keepers.tidy(&state);
        drop(state);
        checkpointer.tables.committed();
        self.journal.checkpoint_committed();
        (checkpointer.through, checkpointer.replayed) = (sequence, Counters::default());
        (checkpointer.entries, checkpointer.changes) = (counters.entries, counters.changes);
        (checkpointer.failures, checkpointer.not_before) = (0, None);
        // It may have used what was set aside.
        (checkpointer.kept, checkpointer.kept_for) = (None, 0);
        self.meters.checkpoints.add(1);
        self.meters.checkpointed.now();
        self.meters.checkpoints_fail.ends();
        debug!(shard = %self.id, %sequence, dead = dead.len(), "checkpoint");
        Ok(())
    }

    fn write_pages(
        &self,
        checkpointer: &mut Checkpointer,
        cut: Cut,
        dead: &[SegmentNo],
    ) -> Result<(), CheckpointError> {
        let sequence = cut.sequence;
        let mut transaction = self.pages.begin()?;
        let mut portion = PageBatch::default();
        let mut more = true;
        while more {
            let mut state = self.state.write();
            more = state.capture();
            let captured = state.take_captured();
            drop(state);
            portion.extend(captured);
            if portion.memory() >= PORTION {
                transaction.put(&std::mem::take(&mut portion))?;
            }
        }
        // What was captured by changes since the last portion.
        portion.extend(self.state.write().take_captured());
        cut.put(&mut portion);
        self.journal.flush(sequence)?;
        checkpointer.tables.put(&self.journal.tables(sequence, dead), &mut portion);
        transaction.put(&portion)?;
        Ok(transaction.commit()?)
    }
}
