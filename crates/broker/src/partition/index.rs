//! Where a partition's records are: runs by base offset, the newest in memory, older ones in closed pages.
//!
//! ```text
//!   closed: [page][page]…[page]   open: run run run … run
//!           256 runs each, immutable    at most 319
//! ```
//!
//! When a page closes is decided by the runs alone, so that every replay makes the same ones.

use sabir_model::{DecodeError, FrontendNo, Offset, OverlayPlace, Sequence};

use super::page::encode_runs;
use super::runs::Runs;
use crate::codec::{Reader, put_i64, put_len, put_u64};
use crate::entry::RecordPlace;

/// Runs of a closed page; one with details counts twice.
pub(crate) const PAGE_RUNS: usize = 256;
/// Runs that stay open at the least once pages are closed, so that readers near the end need no page.
const KEEP_OPEN: usize = 64;

/// How the bytes of a run are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RunKind {
    /// Whole batches of this partition: served as they are.
    Whole = 0,
    /// Records of a batch stored for something else: rebuilt when read.
    Reference = 1,
    /// A batch in chunks; its block is the lowest of theirs, and the chunk list lies in pages of its own.
    Fragmented = 2,
}

/// Records with consecutive offsets in one piece of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) base: Offset,
    pub(crate) block: Sequence,
    /// The largest timestamp, or the block's time where the records have none.
    pub(crate) max_ts: i64,
    /// In the block's content, in bytes.
    pub(crate) offset: u32,
    pub(crate) len: u32,
    /// Offsets covered.
    pub(crate) records: u32,
    /// The first record meant of a reference.
    pub(crate) first_record: u32,
    pub(crate) origin: FrontendNo,
    pub(crate) kind: RunKind,
}

impl Run {
    /// The offset behind the last record.
    pub(crate) fn next(&self) -> Offset {
        Offset(self.base.0 + i64::from(self.records))
    }

    /// Takes the records of `later` in, if they lie right behind these.
    pub(super) fn merge(&mut self, later: &Run) -> bool {
        let adjacent = self.kind == RunKind::Whole
            && later.kind == RunKind::Whole
            && self.block == later.block
            && self.origin == later.origin
            && self.offset.checked_add(self.len) == Some(later.offset)
            && self.next() == later.base;
        let (Some(len), Some(records)) =
            (self.len.checked_add(later.len), self.records.checked_add(later.records))
        else {
            return false;
        };
        if adjacent {
            self.len = len;
            self.records = records;
            self.max_ts = self.max_ts.max(later.max_ts);
        }
        adjacent
    }
}

/// What a reference's run has beside, where it has any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RunDetail {
    /// Where it says what differs for its partition.
    pub(crate) overlay: Option<OverlayPlace>,
    /// The first record that it refers to, as it was when it was referred to.
    pub(crate) source: Option<RecordPlace>,
}

impl RunDetail {
    /// Itself, if there is anything in it.
    pub(crate) fn said(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }

    pub(crate) fn overlay_bytes(&self) -> u64 {
        self.overlay.map_or(0, |overlay| overlay.len.into())
    }
}

/// A closed page, as its partition lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageRef {
    pub(crate) first: Offset,
    pub(crate) next: Offset,
    pub(crate) max_ts: i64,
    pub(crate) bytes: u64,
    /// The lowest block of its runs.
    pub(crate) min_block: Sequence,
}

/// A page just closed.
pub(crate) struct Closed {
    pub(crate) first: Offset,
    pub(crate) encoded: Vec<u8>,
}

/// The runs of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    closed: Vec<PageRef>,
    open: Runs,
}

/// A run, or the closed page it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Open(usize),
    Closed(PageRef),
}

impl Index {
    /// Lists a run behind all others; gives a page if that closes one.
    pub(crate) fn push(&mut self, run: Run, detail: Option<&RunDetail>) -> Option<Closed> {
        if self.open.push(run, detail) && self.open.weight() >= PAGE_RUNS + KEEP_OPEN {
            Some(self.close_page())
        } else {
            None
        }
    }

    fn close_page(&mut self) -> Closed {
        let runs = self.open.take_front(PAGE_RUNS);
        let list = runs.list();
        let page = PageRef {
            first: list[0].base,
            next: list[list.len() - 1].next(),
            max_ts: list.iter().map(|run| run.max_ts).max().unwrap_or(i64::MIN),
            bytes: runs.bytes(),
            min_block: runs.first_block().unwrap_or_default(),
        };
        self.closed.push(page);
        Closed { first: page.first, encoded: encode_runs(&runs) }
    }

    /// Stops listing what lies wholly below `log_start`, taking its size off `bytes`; gives the pages that went.
    pub(crate) fn drop_below(&mut self, log_start: Offset, bytes: &mut u64) -> Vec<PageRef> {
        let pages = self.closed.partition_point(|page| page.next <= log_start);
        let pages: Vec<PageRef> = self.closed.drain(..pages).collect();
        let gone = pages.iter().map(|page| page.bytes).sum::<u64>() + self.open.drop_below(log_start);
        *bytes -= gone;
        pages
    }

    pub(crate) fn closed(&self) -> &[PageRef] {
        &self.closed
    }

    pub(crate) fn open(&self) -> &[Run] {
        self.open.list()
    }

    /// The same, with what some of them have beside.
    pub(crate) fn open_runs(&self) -> &Runs {
        &self.open
    }

    /// Where the record at `offset` is, or else the first one behind it.
    pub(crate) fn find(&self, offset: Offset) -> Option<Place> {
        let page = self.closed.partition_point(|page| page.next <= offset);
        if let Some(page) = self.closed.get(page) {
            return Some(Place::Closed(*page));
        }
        let run = self.open().partition_point(|run| run.next() <= offset);
        (run < self.open().len()).then_some(Place::Open(run))
    }

    /// The first place from `from` on whose largest timestamp is at least `ts`.
    pub(crate) fn find_time(&self, from: Offset, ts: i64) -> Option<Place> {
        let first = self.closed.partition_point(|page| page.next <= from);
        let page = self.closed[first..].iter().find(|page| page.max_ts >= ts);
        if let Some(page) = page {
            return Some(Place::Closed(*page));
        }
        self.open().iter().position(|run| run.next() > from && run.max_ts >= ts).map(Place::Open)
    }

    /// The closed page that lies below `log_start` in part; nothing is listed that does wholly, so that there is one at the most.
    pub(crate) fn cut_page(&self, log_start: Offset) -> Option<PageRef> {
        self.closed.first().filter(|page| page.first < log_start).copied()
    }

    /// The lowest block that a listed run, or its overlay, lies in, but for the runs of the cut page: which of those are below `log_start`
    /// is not said here.
    pub(crate) fn first_block_behind_cut(&self, log_start: Offset) -> Option<Sequence> {
        let whole = usize::from(self.cut_page(log_start).is_some());
        let pages = self.closed[whole..].iter().map(|page| page.min_block);
        pages.chain(self.open.first_block()).min()
    }

    /// The offset behind the longest beginning of which every part satisfies `dead(next offset, largest timestamp, bytes)`.
    pub(crate) fn dead_until(&self, mut dead: impl FnMut(i64, u64) -> bool) -> Option<Offset> {
        let pages = self.closed.iter().map(|page| (page.next, page.max_ts, page.bytes));
        let runs = self.open().iter().map(|run| (run.next(), run.max_ts, self.open.bytes_of(run)));
        pages.chain(runs).take_while(|&(_, max_ts, bytes)| dead(max_ts, bytes)).last().map(|(next, ..)| next)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_len(out, self.closed.len());
        for page in &self.closed {
            put_i64(out, page.first.0);
            put_i64(out, page.next.0);
            put_i64(out, page.max_ts);
            put_u64(out, page.bytes);
            put_u64(out, page.min_block.0);
        }
        self.open.put(out);
    }

    pub(crate) fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let closed = input.list(5, |input| {
            Ok(PageRef {
                first: input.offset()?,
                next: input.offset()?,
                max_ts: input.i64()?,
                bytes: input.u64()?,
                min_block: Sequence(input.u64()?),
            })
        })?;
        Ok(Self { closed, open: Runs::take(input)? })
    }
}
