//! Blocks through the journal, one at a time, so that callgrind can count what one of them costs: `bench/callgrind.py` runs it.
//!
//! `count_appends CASE COUNT` commits COUNT blocks after a warm-up. What is to be counted happens inside functions whose names
//! begin with `counted`, on this thread alone; the disk's thread and the waiting for it are left out.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sabir_base::buf::BufPool;
use sabir_journal::disk::{Disk, PwriteDisk};
use sabir_journal::{BlockBuilder, Event, Journal, JournalOptions, Replicator, Solo};
use sabir_model::Durability;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WARM_UP: usize = 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, count] = arguments.as_slice() else { return Err("count_appends CASE COUNT".into()) };
    let (entries, len) = match case.as_str() {
        "append-100b" => (1, 100),
        "append-100b-by-100" => (100, 100),
        "append-64k" => (4, 16 << 10),
        other => return Err(format!("no such case: {other}").into()),
    };
    let dir = tempfile::tempdir()?;
    let disk: Arc<dyn Disk> = Arc::new(PwriteDisk::open(dir.path())?);
    let pool = BufPool::new(64 << 20);
    // Large enough for all blocks of a case; to zero and to scan larger ones takes long under callgrind.
    let options = JournalOptions { segment_bytes: 16 << 20, ..JournalOptions::default() };
    let (journal, _) = Journal::open(disk.clone(), pool.clone(), options, None)?;
    let mut run =
        Run { disk, solo: Solo::start(journal)?, builder: BlockBuilder::new(pool), events: Vec::new() };
    let payload = vec![7; len];
    for _ in 0..WARM_UP {
        run.append(entries, &payload)?;
        while !run.committed()? {}
    }
    for _ in 0..count.parse()? {
        counted_append(&mut run, entries, &payload)?;
        // Looked at once the disk is done, so that it is looked at once.
        run.disk.wait(Duration::from_secs(60));
        assert!(counted_commit(&mut run)?, "a block that the disk has is committed");
    }
    Ok(())
}

struct Run {
    disk: Arc<dyn Disk>,
    solo: Arc<Solo>,
    builder: BlockBuilder,
    events: Vec<Event>,
}

#[inline(never)]
fn counted_append(run: &mut Run, entries: usize, payload: &[u8]) -> Result<()> {
    run.append(entries, payload)
}

#[inline(never)]
fn counted_commit(run: &mut Run) -> Result<bool> {
    run.committed()
}

impl Run {
    fn append(&mut self, entries: usize, payload: &[u8]) -> Result<()> {
        for _ in 0..entries {
            self.builder.push(1, &[], Some(payload), 0, Durability::Sync);
        }
        self.solo.append(self.builder.take(0))?;
        Ok(())
    }

    fn committed(&mut self) -> Result<bool> {
        self.solo.advance();
        self.solo.poll(&mut self.events);
        let mut committed = false;
        for event in self.events.drain(..) {
            match event {
                Event::Committed { .. } => committed = true,
                Event::Cut { .. } | Event::Leading { .. } | Event::Following { .. } => {}
                Event::Stopped(error) => return Err(error.into()),
            }
        }
        Ok(committed)
    }
}
