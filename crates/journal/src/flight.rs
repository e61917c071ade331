//! What is under way to the disk, and what that makes of each block: a pure machine, told of every submission and completion.
//!
//! ```text
//!      durable ≤ written ≤ last      acked ≤ written
//!   ────┬───────────┬────────┬──
//!       │ completed │ in     │       durable: a flush covers it and all before it
//!       │ in order  │ flight │       acked:   as durable as it asked to be, and all before it
//! ```
//!
//! A synced write covers its own bytes alone. So a block that was written *plain* holds `durable` back, with all behind it,
//! until a flush of its file that began after its completion.

use std::collections::VecDeque;

use sabir_model::Durability;

use crate::disk::FileId;

/// A plain run may grow to this many bytes before it is flushed.
pub(crate) const FLUSH_BYTES: u64 = 64 << 20;

#[derive(Debug)]
struct FlightBlock {
    token: u64,
    durability: Durability,
    written: bool,
}

/// Consecutive plain blocks in one file that no flush covers.
#[derive(Debug, Clone, Copy)]
struct PlainRun {
    file: FileId,
    first: u64,
    last: u64,
}

#[derive(Debug)]
struct Flush {
    /// What it will cover.
    through: u64,
    /// Its syncs that have not completed, by token.
    left: Vec<u64>,
}

/// See the [module](self). Sequences are bare numbers here.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Those above `written`, and those above `acked`, whichever is more.
    blocks: VecDeque<FlightBlock>,
    /// The sequence of the first of `blocks`.
    first: u64,
    last: u64,
    written: u64,
    durable: u64,
    acked: u64,
    plain: VecDeque<PlainRun>,
    plain_bytes: u64,
    flush: Option<Flush>,
    /// A flush asked for up to here.
    wanted: u64,
}

impl Flight {
    /// A machine behind `last`, all of which is durable.
    pub(crate) fn after(last: u64) -> Self {
        Self {
            blocks: VecDeque::new(),
            first: last + 1,
            last,
            written: last,
            durable: last,
            acked: last,
            plain: VecDeque::new(),
            plain_bytes: 0,
            flush: None,
            wanted: 0,
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.written == self.last && self.flush.is_none()
    }

    /// Whether a plain run waits for its flush.
    pub(crate) fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Takes in the next block and says whether it is to be written synced. Behind a plain run it is not: the flush that
    /// the run needs covers it too, and one is enough.
    pub(crate) fn append(&mut self, token: u64, file: FileId, bytes: u64, durability: Durability) -> bool {
        self.last += 1;
        self.blocks.push_back(FlightBlock { token, durability, written: false });
        let synced = durability == Durability::Sync && self.plain.is_empty();
        if !synced {
            self.plain_bytes += bytes;
            self.add_plain(file);
        }
        synced
    }

    fn add_plain(&mut self, file: FileId) {
        let sequence = self.last;
        match self.plain.back_mut() {
            Some(run) if run.file == file && run.last + 1 == sequence => run.last = sequence,
            _ => self.plain.push_back(PlainRun { file, first: sequence, last: sequence }),
        }
    }

    /// A write has completed.
    pub(crate) fn block_written(&mut self, token: u64) {
        if let Some(block) = self.blocks.iter_mut().find(|block| block.token == token) {
            block.written = true;
        }
        self.settle();
    }

    /// The flush has come to nothing: what it was to cover is as plain as before.
    pub(crate) fn flush_failed(&mut self) {
        self.flush = None;
    }

    /// The plain blocks that no flush covers, from `next` on.
    pub(crate) fn plain_from(&self, next: u64) -> impl Iterator<Item = u64> {
        self.plain.iter().flat_map(move |run| run.first.max(next)..=run.last)
    }

    /// A sync of the flush has completed.
    pub(crate) fn sync_done(&mut self, token: u64) {
        let Some(flush) = &mut self.flush else { return };
        flush.left.retain(|&left| left != token);
        if flush.left.is_empty() {
            let through = flush.through;
            self.flush = None;
            self.cover(through);
            self.settle();
        }
    }

    /// All up to `through` needs no flush any more.
    fn cover(&mut self, through: u64) {
        while let Some(run) = self.plain.front_mut() {
            if run.last > through {
                run.first = run.first.max(through + 1);
                return;
            }
            self.plain.pop_front();
        }
    }

    /// Moves the marks as far as they go.
    fn settle(&mut self) {
        while self.block(self.written + 1).is_some_and(|block| block.written) {
            self.written += 1;
        }
        let held_back = self.plain.front().map_or(u64::MAX, |run| run.first);
        self.durable = self.written.min(held_back - 1);
        while let Some(block) = self.block(self.acked + 1) {
            let done = match block.durability {
                Durability::Os => block.written,
                Durability::Sync => self.acked < self.durable,
            };
            if !done {
                break;
            }
            self.acked += 1;
        }
        while self.first <= self.acked.min(self.written) {
            self.blocks.pop_front();
            self.first += 1;
        }
    }

    fn block(&self, sequence: u64) -> Option<&FlightBlock> {
        let index = sequence.checked_sub(self.first)?;
        self.blocks.get(index as usize)
    }

    /// Asks for a flush up to `through` as soon as that is written.
    pub(crate) fn want(&mut self, through: u64) {
        self.wanted = self.wanted.max(through);
    }

    /// The files to sync now, if a flush is due; [`flush_started`](Self::flush_started) follows.
    pub(crate) fn flush_due(&self) -> Option<Vec<FileId>> {
        let waits = self.plain.front().is_some_and(|run| run.first <= self.written);
        if self.flush.is_some() || !waits || !self.is_flush_wanted() {
            return None;
        }
        let mut files: Vec<FileId> = Vec::new();
        for run in self.plain.iter().take_while(|run| run.first <= self.written) {
            if !files.contains(&run.file) {
                files.push(run.file);
            }
        }
        Some(files)
    }

    fn is_flush_wanted(&self) -> bool {
        let sync_waits = || {
            (self.acked + 1..=self.written)
                .any(|s| self.block(s).is_some_and(|block| block.durability == Durability::Sync))
        };
        let asked_for = self.wanted > self.durable && self.wanted <= self.written;
        self.plain_bytes >= FLUSH_BYTES || asked_for || sync_waits()
    }

    /// The syncs of a flush were submitted under these tokens: they cover what has completed by now.
    pub(crate) fn flush_started(&mut self, tokens: Vec<u64>) {
        self.plain_bytes = 0;
        self.flush = Some(Flush { through: self.written, left: tokens });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Durability::{Os, Sync};

    const A: FileId = FileId(1);
    const B: FileId = FileId(2);

    fn marks(flight: &Flight) -> (u64, u64, u64) {
        (flight.written(), flight.durable(), flight.acked())
    }

    #[test]
    fn synced_blocks_commit_in_order_whatever_order_they_complete_in() {
        let mut flight = Flight::after(10);
        for token in 1..=3 {
            assert!(flight.append(token, A, 4096, Sync));
        }
        flight.block_written(3);
        flight.block_written(2);
        assert_eq!(marks(&flight), (10, 10, 10));
        assert!(!flight.is_idle());
        flight.block_written(1);
        assert_eq!(marks(&flight), (13, 13, 13));
        assert!(flight.is_idle());
        assert_eq!(flight.flush_due(), None, "each covered itself");
    }

    #[test]
    fn os_blocks_commit_unflushed_and_a_later_sync_waits_for_their_flush() {
        let mut flight = Flight::after(0);
        assert!(!flight.append(1, A, 4096, Os));
        flight.block_written(1);
        assert_eq!(marks(&flight), (1, 0, 1));
        assert_eq!(flight.flush_due(), None, "nobody asked");
        assert!(!flight.append(2, B, 4096, Sync), "the run's flush will cover it");
        assert_eq!(flight.flush_due(), None, "not written yet");
        flight.block_written(2);
        assert_eq!(marks(&flight), (2, 0, 1));
        assert_eq!(flight.flush_due(), Some(vec![A, B]));
        flight.flush_started(vec![7, 8]);
        assert_eq!(flight.flush_due(), None, "under way");
        flight.sync_done(8);
        assert_eq!(marks(&flight), (2, 0, 1));
        flight.sync_done(7);
        assert_eq!(marks(&flight), (2, 2, 2));
        assert!(flight.append(3, B, 4096, Sync), "the run is over");
    }

    #[test]
    fn a_flush_covers_only_what_was_complete_when_it_began() {
        let mut flight = Flight::after(0);
        flight.append(1, A, 4096, Os);
        flight.append(2, A, 4096, Sync);
        flight.append(3, A, 4096, Sync);
        flight.block_written(1);
        flight.block_written(2);
        assert_eq!(flight.flush_due(), Some(vec![A]));
        flight.flush_started(vec![9]);
        flight.block_written(3);
        flight.sync_done(9);
        assert_eq!(marks(&flight), (3, 2, 2));
        assert_eq!(flight.flush_due(), Some(vec![A]));
        flight.flush_started(vec![10]);
        flight.sync_done(10);
        assert_eq!(marks(&flight), (3, 3, 3));
    }

    #[test]
    fn an_os_block_never_passes_a_sync_block() {
        let mut flight = Flight::after(0);
        flight.append(1, A, 4096, Sync);
        flight.append(2, A, 4096, Os);
        flight.block_written(2);
        assert_eq!(flight.acked(), 0);
        flight.block_written(1);
        assert_eq!(marks(&flight), (2, 1, 2));
    }

    #[test]
    fn a_long_run_is_flushed_and_so_is_one_that_is_asked_for() {
        let mut flight = Flight::after(0);
        flight.append(1, A, FLUSH_BYTES, Os);
        flight.block_written(1);
        assert!(flight.flush_due().is_some());
        flight.flush_started(vec![5]);
        flight.sync_done(5);
        flight.append(2, A, 1, Os);
        flight.want(2);
        assert_eq!(flight.flush_due(), None, "not written yet");
        flight.block_written(2);
        assert!(flight.flush_due().is_some());
    }

    #[test]
    fn strange_tokens_move_nothing() {
        let mut flight = Flight::after(0);
        flight.append(1, A, 4096, Sync);
        flight.block_written(99);
        flight.sync_done(1);
        assert_eq!(marks(&flight), (0, 0, 0));
    }
}
