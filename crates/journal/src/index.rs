//! Which segment holds which block, and where: two bytes a block, resident.

use std::sync::Arc;

use sabir_model::Sequence;

use crate::frame::STEP;
use crate::segment::{SEGMENT_HEADER, Segment, SegmentInfo, SegmentNo};
use crate::table::{LocalTables, SegmentTable};

/// A segment that holds blocks.
#[derive(Debug)]
struct Entry {
    segment: Arc<Segment>,
    first: u64,
    /// Where each block starts, in steps of 4 KiB.
    starts: Vec<u16>,
    /// Where the last frame ends, in bytes.
    end: u64,
}

impl Entry {
    fn last(&self) -> u64 {
        self.first + self.starts.len() as u64 - 1
    }

    fn start(&self, sequence: u64) -> Option<u64> {
        let index = sequence.checked_sub(self.first)?;
        self.starts.get(index as usize).map(|&start| u64::from(start) * STEP)
    }

    /// Where the last frame through `sequence` ends.
    fn end_through(&self, sequence: u64) -> u64 {
        self.start(sequence + 1).unwrap_or(self.end)
    }

    fn table(&self, through: u64) -> SegmentTable {
        let kept = self.starts.len().min((through + 1 - self.first) as usize);
        SegmentTable {
            no: self.segment.no,
            file: self.segment.file.number,
            generation: self.segment.generation,
            first: Sequence(self.first),
            starts: self.starts[..kept].to_vec(),
            end: (self.end_through(through) / STEP) as u32,
        }
    }
}

/// Where a block stands.
#[derive(Debug)]
pub(crate) struct Located {
    pub segment: Arc<Segment>,
    /// Where its frame starts, in bytes.
    pub start: u64,
    /// Where the next thing starts, in bytes.
    pub end: u64,
    /// Up to where the segment's bytes will not change, in bytes.
    pub stable_end: u64,
}

/// The index; entries in the order of their blocks.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    /// What the tables last taken leave out.
    left_out: Vec<SegmentNo>,
}

impl Index {
    /// Takes in what a checkpoint knows of a segment.
    pub(crate) fn restore(&mut self, segment: Arc<Segment>, table: &SegmentTable) {
        let end = u64::from(table.end) * STEP;
        self.entries.push(Entry { segment, first: table.first.0, starts: table.starts.clone(), end });
    }

    /// Takes in the next block: its frame at `start..end` of `segment`.
    pub(crate) fn push(&mut self, segment: &Arc<Segment>, sequence: u64, start: u64, end: u64) {
        let step = (start / STEP) as u16;
        match self.entries.last_mut() {
            Some(entry) if entry.segment.no == segment.no => {
                debug_assert_eq!(entry.last() + 1, sequence, "blocks are pushed in order");
                entry.starts.push(step);
                entry.end = end;
            }
            _ => self.entries.push(Entry {
                segment: segment.clone(),
                first: sequence,
                starts: vec![step],
                end,
            }),
        }
    }

    /// Where a block stands; `stable` is the last one that will not change.
    pub(crate) fn locate(&self, sequence: u64, stable: u64) -> Option<Located> {
        let entry = self.entry_of(sequence)?;
        let start = entry.start(sequence)?;
        let stable_end = if stable >= entry.first { entry.end_through(stable) } else { start };
        Some(Located {
            segment: entry.segment.clone(),
            start,
            end: entry.end_through(sequence),
            stable_end: stable_end.max(entry.end_through(sequence)),
        })
    }

    fn entry_of(&self, sequence: u64) -> Option<&Entry> {
        let behind = self.entries.partition_point(|entry| entry.first <= sequence);
        let entry = &self.entries[behind.checked_sub(1)?];
        (sequence <= entry.last()).then_some(entry)
    }

    pub(crate) fn segment_of(&self, sequence: u64) -> Option<SegmentNo> {
        self.entry_of(sequence).map(|entry| entry.segment.no)
    }

    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let count = self.entries.len();
        let info = |(i, entry): (usize, &Entry)| SegmentInfo {
            no: entry.segment.no,
            first: Sequence(entry.first),
            last: Sequence(entry.last()),
            closed: i + 1 < count,
        };
        self.entries.iter().enumerate().map(info).collect()
    }

    /// What the blocks behind `after` take of the files, up to the end of block `through`: their frames with what pads them, and the
    /// seals between them. In bytes.
    pub(crate) fn bytes_between(&self, after: u64, through: u64) -> u64 {
        let behind = self.entries.partition_point(|entry| entry.last() <= after);
        let entries = self.entries[behind..].iter().take_while(|entry| entry.first <= through);
        let bytes = entries.map(|entry| {
            let start = if after < entry.first { SEGMENT_HEADER as u64 } else { entry.end_through(after) };
            entry.end_through(through).saturating_sub(start)
        });
        bytes.sum()
    }

    /// The first block that can be read.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.first().map(|entry| entry.first)
    }

    /// Drops the blocks above `after`; returns the segments that hold none any more, in order.
    pub(crate) fn cut(&mut self, after: u64) -> Vec<Arc<Segment>> {
        let kept = self.entries.partition_point(|entry| entry.first <= after);
        let emptied = self.entries.split_off(kept).into_iter().map(|entry| entry.segment).collect();
        if let Some(entry) = self.entries.last_mut().filter(|entry| entry.last() > after) {
            entry.end = entry.end_through(after);
            entry.starts.truncate((after + 1 - entry.first) as usize);
        }
        emptied
    }

    /// The tables cut at `through`, without those `dead` segments that are closed and lie wholly before it.
    pub(crate) fn tables(&mut self, through: u64, dead: &[SegmentNo]) -> LocalTables {
        let open = self.entries.last().map(|entry| entry.segment.no);
        let left_out = |entry: &&Entry| {
            let no = entry.segment.no;
            Some(no) < open && entry.last() < through && dead.contains(&no)
        };
        self.left_out = self.entries.iter().filter(left_out).map(|entry| entry.segment.no).collect();
        let kept = self.entries.iter().filter(|entry| entry.first <= through && !left_out(entry));
        LocalTables { through: Sequence(through), segments: kept.map(|entry| entry.table(through)).collect() }
    }

    /// Takes out of sight what the tables last taken leave out: they are committed.
    pub(crate) fn take_left_out(&mut self) -> Vec<Arc<Segment>> {
        let left_out = std::mem::take(&mut self.left_out);
        let gone = |entry: &mut Entry| left_out.contains(&entry.segment.no);
        self.entries.extract_if(.., gone).map(|entry| entry.segment).collect()
    }
}
