//! A journal with Solo on a simulated disk, and blocks that can be told apart.

use std::sync::Arc;

use sabir_base::buf::BufPool;
use sabir_model::{Durability, Sequence};

use crate::disk::sim::SimDisk;
use crate::space::splitmix;
use crate::{
    Block, BlockAppendError, BlockBuilder, BlockView, Event, Journal, JournalError, JournalOptions,
    LocalTables, Recovered, Replicator, SegmentNo, Solo, TailBudget, Ticket,
};

/// Eight steps of 4 KiB: the header and seven small blocks.
pub(super) const SEGMENT: u64 = 32 << 10;

pub(super) struct Rig {
    pub disk: Arc<SimDisk>,
    pub journal: Arc<Journal>,
    pub solo: Arc<Solo>,
    pub recovered: Recovered,
    pub events: Vec<Event>,
    pub now_ms: u64,
    builder: BlockBuilder,
}

pub(super) fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT,
        tail: TailBudget::new(64 << 10),
        keep_free: 0,
        seed: Some(1),
        ..JournalOptions::default()
    }
}

pub(super) fn open(
    disk: &Arc<SimDisk>,
    options: JournalOptions,
    tables: Option<LocalTables>,
) -> Result<(Arc<Journal>, Recovered), JournalError> {
    Journal::open(disk.clone(), BufPool::new(8 << 20), options, tables)
}

/// The bytes that block `id` carries: a number, and a payload that follows from it.
pub(super) fn block(builder: &mut BlockBuilder, id: u64, payload: usize, durability: Durability) -> Block {
    let bytes = payload_of(id, payload);
    builder.push(5, &id.to_le_bytes(), (payload > 0).then_some(bytes.as_slice()), 0, durability);
    builder.take(id as i64)
}

pub(super) fn payload_of(id: u64, len: usize) -> Vec<u8> {
    let mut state = id;
    (0..len).map(|_| splitmix(&mut state) as u8).collect()
}

/// The number in a content, whose payload must be the one that belongs to it.
pub(super) fn id_of(content: &[u8]) -> u64 {
    let view = BlockView::parse(content).unwrap();
    let entry = view.entries().next().unwrap().unwrap();
    let id = u64::from_le_bytes(entry.body.try_into().unwrap());
    if let Some((offset, len)) = entry.payload {
        assert_eq!(view.payload(offset, len).unwrap(), payload_of(id, len as usize));
    }
    id
}

impl Rig {
    pub(super) fn new(seed: u64) -> Self {
        Self::over(SimDisk::new(seed), None).unwrap()
    }

    /// A rig whose journal has another number and other generations.
    pub(super) fn with_seed(disk_seed: u64, seed: u64) -> Self {
        let options = JournalOptions { seed: Some(seed), ..options() };
        Self::with(SimDisk::new(disk_seed), options, None).unwrap()
    }

    pub(super) fn over(disk: Arc<SimDisk>, tables: Option<LocalTables>) -> Result<Self, JournalError> {
        Self::with(disk, options(), tables)
    }

    pub(super) fn with(
        disk: Arc<SimDisk>,
        options: JournalOptions,
        tables: Option<LocalTables>,
    ) -> Result<Self, JournalError> {
        let (journal, recovered) = open(&disk, options, tables)?;
        let solo = Solo::start(journal.clone())?;
        let builder = BlockBuilder::new(BufPool::new(1 << 20));
        Ok(Self { disk, journal, solo, recovered, events: Vec::new(), now_ms: 0, builder })
    }

    pub(super) fn append(
        &mut self,
        id: u64,
        payload: usize,
        durability: Durability,
    ) -> Result<Ticket, BlockAppendError> {
        let block = block(&mut self.builder, id, payload, durability);
        self.solo.append(block)
    }

    /// Appends small blocks that ask for a sync.
    pub(super) fn append_all(&mut self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.append(id, 100, Durability::Sync).unwrap();
        }
    }

    /// Completes up to `count` operations, which no thread looks at yet.
    pub(super) fn steps(&self, count: u64) {
        (0..count).for_each(|_| {
            self.disk.step();
        });
    }

    /// Takes in what the disk has completed.
    pub(super) fn look(&mut self) {
        self.solo.advance();
        self.solo.poll(&mut self.events);
    }

    /// Completes everything that can be, time standing still.
    pub(super) fn settle(&mut self) {
        loop {
            self.look();
            if !self.disk.step() {
                return self.look();
            }
        }
    }

    pub(super) fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        self.solo.tick(self.now_ms);
    }

    /// Lets the journal fall idle until it has sealed itself.
    pub(super) fn seal(&mut self) {
        self.settle();
        for _ in 0..4 {
            self.tick(100);
            self.settle();
        }
    }

    /// The numbers of the blocks that events said are final.
    pub(super) fn committed(&self) -> Vec<u64> {
        let committed = |event: &Event| match event {
            Event::Committed { content, .. } => Some(id_of(content)),
            _ => None,
        };
        self.events.iter().filter_map(committed).collect()
    }

    /// The numbers of all committed blocks after `after`, read back.
    pub(super) fn replayed(&self, after: Sequence) -> Vec<u64> {
        let mut found = Vec::new();
        let all = self.journal.replay::<JournalError>(after, &mut |block| {
            found.push(id_of(&block.content));
            Ok(())
        });
        all.unwrap();
        found
    }

    pub(super) fn all(&self) -> Vec<u64> {
        self.replayed(Sequence::NONE)
    }

    /// Takes a checkpoint: what its tables are, once they are committed.
    pub(super) fn checkpoint(&mut self) -> LocalTables {
        self.checkpoint_without(&[])
    }

    /// Takes a checkpoint that leaves dead segments out.
    pub(super) fn checkpoint_without(&mut self, dead: &[SegmentNo]) -> LocalTables {
        self.settle();
        let through = self.journal.committed();
        self.journal.flush(through).unwrap();
        let mut bytes = Vec::new();
        self.journal.tables(through, dead).encode(&mut bytes);
        self.journal.checkpoint_committed();
        LocalTables::decode(&bytes).unwrap()
    }
}

/// Where the frame of each block stands: file and position.
pub(super) fn places(journal: &Journal) -> Vec<(u64, String, u64)> {
    let tables = journal.tables(journal.last(), &[]);
    let mut places = Vec::new();
    for table in &tables.segments {
        for sequence in table.first.0..=table.last().0 {
            let name = crate::segment::file_name(table.file);
            places.push((sequence, name, table.start_of(Sequence(sequence)).unwrap()));
        }
    }
    places
}
