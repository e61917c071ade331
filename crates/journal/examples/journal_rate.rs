//! What the journal makes of the disk below it.
//!
//! `cargo run --release -p sabir-journal --example journal_rate [DIR] [SECONDS] [DISK]`
//!
//! First, at 1, 2, 4 and 8 writes of 64 KiB under way: the disk's own rate of durable writes, and the journal's rate of committed
//! blocks with `sync`, for SECONDS (3) each in short turns, so that what else the machine does befalls both; medians. Then single entries of 100 B arriving 20,000 times a
//! second: what is written for a byte of payload, what it costs in processor time, and how long a commit takes. In DIR (the system's
//! temporary directory), on each kind of disk whose name begins with DISK.

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_base::buf::BufPool;
use sabir_journal::disk::{Disk, DiskError, PwriteDisk, WriteOp};
use sabir_journal::{
    Block, BlockBuilder, Event, Journal, JournalError, JournalOptions, Replicator, SegmentNo, Solo,
};
use sabir_model::{Durability, Sequence};

const SEGMENT: u64 = 64 << 20;
const BLOCK: usize = 64 << 10;
/// What frame, content header and the entry take of a block.
const OVERHEAD: usize = 64 + 32 + 12;
const TURNS: u32 = 15;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Opened = std::result::Result<Arc<dyn Disk>, DiskError>;
type Open = fn(&Path) -> Opened;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let parent = args.first().map_or_else(std::env::temp_dir, Into::into);
    let time = Duration::from_secs(args.get(1).map_or(Ok(3), |seconds| seconds.parse())?);
    let dir = parent.join(format!("journal-rate-{}", std::process::id()));
    println!("in {}", parent.display());
    let kinds: [(&str, Open); 3] =
        [("io_uring", open_uring), ("pwrite direct", open_direct), ("pwrite buffered", open_buffered)];
    let wanted = args.get(2).map_or("", String::as_str);
    kinds
        .into_iter()
        .filter(|(name, _)| name.starts_with(wanted))
        .try_for_each(|(name, open)| compare(name, open, &dir, time))
}

#[cfg(target_os = "linux")]
fn open_uring(dir: &Path) -> Opened {
    Ok(Arc::new(sabir_journal::disk::UringDisk::open(dir)?))
}

#[cfg(not(target_os = "linux"))]
fn open_uring(dir: &Path) -> Opened {
    open_direct(dir)
}

fn open_direct(dir: &Path) -> Opened {
    Ok(Arc::new(PwriteDisk::open_direct(dir)?))
}

fn open_buffered(dir: &Path) -> Opened {
    Ok(Arc::new(PwriteDisk::open(dir)?))
}

fn compare(name: &str, open: Open, dir: &Path, time: Duration) -> Result<()> {
    let (bare_dir, journal_dir) = (dir.join("bare"), dir.join("journal"));
    std::fs::create_dir_all(&bare_dir)?;
    std::fs::create_dir_all(&journal_dir)?;
    let bare = match open(&bare_dir) {
        Err(DiskError::Unsupported { what, source, .. }) => {
            println!("\n{name}: no {what} here: {source}");
            return Ok(());
        }
        disk => Bare::new(disk?)?,
    };
    let mut run = Run::new(open(&journal_dir)?)?;
    run.warm_up()?;
    println!("\n{name}, 64 KiB, sync");
    println!("depth  disk/s  journal/s  share  journal CPU us/block");
    for depth in [1, 2, 4, 8] {
        let (mut disk, mut journal, mut share, mut cpu) = (vec![], vec![], vec![], vec![]);
        for _ in 0..TURNS {
            let turn = time / TURNS;
            disk.push(bare.rate(depth, turn)?);
            let before = cpu_time();
            let rate = run.block_rate(depth, turn)?;
            cpu.push((cpu_time() - before).as_secs_f64() * 1e6 / (rate * turn.as_secs_f64()));
            share.push(100.0 * rate / disk[disk.len() - 1]);
            journal.push(rate);
        }
        let (disk, journal, share, cpu) = (median(disk), median(journal), median(share), median(cpu));
        println!("{depth:>5}  {disk:>6.0}  {journal:>9.0}  {share:>4.0}%  {cpu:>20.0}");
    }
    run.singles(20_000, 100, time.max(Duration::from_secs(5)))?;
    drop((run, bare));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The disk alone: writes that each ask to be durable, over files that were written before.
struct Bare {
    disk: Arc<dyn Disk>,
    files: Vec<sabir_journal::disk::FileId>,
    data: Bytes,
}

impl Bare {
    fn new(disk: Arc<dyn Disk>) -> Result<Self> {
        let pool = BufPool::new(0);
        let (mut zeros, mut data) = (pool.get(1 << 20), pool.get(BLOCK));
        zeros.fill(0);
        data.fill(7);
        let mut files = Vec::new();
        for i in 0..2 {
            let file = disk.create(&format!("bare-{i}"), SEGMENT)?;
            for pos in (0..SEGMENT).step_by(zeros.len()) {
                disk.write_at(file, pos, &zeros)?;
            }
            disk.sync(file)?;
            files.push(file);
        }
        disk.sync_dir()?;
        Ok(Self { disk, files, data: data.freeze() })
    }

    fn rate(&self, depth: usize, time: Duration) -> Result<f64> {
        let blocks = SEGMENT / BLOCK as u64;
        let (start, mut token, mut done) = (Instant::now(), 0, 0);
        let mut ended = Vec::new();
        loop {
            while token - done < depth as u64 && start.elapsed() < time {
                let file = self.files[(token / blocks) as usize % self.files.len()];
                let pos = token % blocks * BLOCK as u64;
                self.disk.submit(WriteOp { token, file, pos, data: self.data.clone(), sync: true })?;
                token += 1;
            }
            if token == done {
                return Ok(done as f64 / start.elapsed().as_secs_f64());
            }
            self.disk.wait(Duration::from_secs(10));
            self.disk.reap(&mut ended);
            for completion in ended.drain(..) {
                completion.result?;
                done += 1;
            }
        }
    }
}

/// A journal, with a thread that does what the housekeeper of a node does.
struct Run {
    disk: Arc<dyn Disk>,
    journal: Arc<Journal>,
    solo: Arc<Solo>,
    builder: BlockBuilder,
    events: Vec<Event>,
    stop: Arc<AtomicBool>,
    housekeeper: Option<std::thread::JoinHandle<std::result::Result<(), JournalError>>>,
}

impl Run {
    fn new(disk: Arc<dyn Disk>) -> Result<Self> {
        let pool = BufPool::new(64 << 20);
        let (journal, _) = Journal::open(disk.clone(), pool.clone(), JournalOptions::default(), None)?;
        let solo = Solo::start(journal.clone())?;
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, flag) = (solo.clone(), stop.clone());
        let housekeeper = {
            let journal = journal.clone();
            std::thread::spawn(move || keep_house(&journal, &theirs, &flag))
        };
        let builder = BlockBuilder::for_tail(pool, 64 << 20);
        let events = Vec::new();
        Ok(Self { disk, journal, solo, builder, events, stop, housekeeper: Some(housekeeper) })
    }

    /// Writes until segments go round: from then on nothing is made or zeroed.
    fn warm_up(&mut self) -> Result<()> {
        for _ in 0..12 {
            self.blocks(SEGMENT as usize / BLOCK, 4, Duration::from_secs(60))?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn block(&mut self) -> Block {
        const PAYLOAD: &[u8] = &[7; BLOCK - OVERHEAD];
        self.builder.push(1, &[], Some(PAYLOAD), 0, Durability::Sync);
        self.builder.take(0)
    }

    fn block_rate(&mut self, depth: usize, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let done = self.blocks(usize::MAX, depth, time)?;
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }

    /// Commits blocks, `depth` of them under way.
    fn blocks(&mut self, count: usize, depth: usize, time: Duration) -> Result<usize> {
        let (start, mut sent, mut done) = (Instant::now(), 0, 0);
        loop {
            while sent < count && sent - done < depth && start.elapsed() < time {
                let block = self.block();
                self.solo.append(block)?;
                sent += 1;
            }
            if sent == done {
                return Ok(done);
            }
            self.disk.wait(Duration::from_millis(100));
            done += self.committed()?;
        }
    }

    /// Takes the events; returns how many blocks were committed.
    fn committed(&mut self) -> Result<usize> {
        self.solo.advance();
        self.solo.poll(&mut self.events);
        let mut committed = 0;
        for event in self.events.drain(..) {
            match event {
                Event::Committed { .. } => committed += 1,
                Event::Cut { .. } | Event::Leading { .. } | Event::Following { .. } => {}
                Event::Stopped(error) => return Err(error.into()),
            }
        }
        Ok(committed)
    }

    /// Single entries at a fixed rate, each as it comes; a block holds whatever arrived while the last one was written.
    fn singles(&mut self, per_second: u32, len: usize, time: Duration) -> Result<()> {
        let idle = arrivals_alone(per_second, time);
        let before = (self.journal.stats(), cpu_time());
        let gap = Duration::from_secs(1) / per_second;
        let (start, payload) = (Instant::now(), vec![7; len]);
        let mut due = start;
        let (mut open, mut waiting, mut latencies) = (Vec::new(), VecDeque::new(), Vec::new());
        while start.elapsed() < time || !waiting.is_empty() || !open.is_empty() {
            while due <= Instant::now() && start.elapsed() < time {
                self.builder.push(1, &[], Some(&payload), 0, Durability::Sync);
                open.push(due);
                due += gap;
            }
            if !open.is_empty() && self.solo.ready(self.builder.bytes()) {
                self.solo.append(self.builder.take(0))?;
                waiting.push_back(std::mem::take(&mut open));
            }
            let until_due = due.saturating_duration_since(Instant::now());
            self.disk.wait(until_due.min(Duration::from_millis(1)));
            if waiting.is_empty() {
                std::thread::sleep(until_due);
            }
            for _ in 0..self.committed()? {
                let block = waiting.pop_front().unwrap_or_default();
                latencies.extend(block.into_iter().map(|from: Instant| from.elapsed()));
            }
        }
        let (after, cpu) = (self.journal.stats(), cpu_time() - before.1);
        latencies.sort_unstable();
        let entries = latencies.len();
        let blocks = after.blocks - before.0.blocks;
        let written = after.written_bytes - before.0.written_bytes;
        let seconds = time.as_secs_f64();
        println!("single entries of {len} B, {per_second} a second, sync:");
        println!("  {:.2} bytes written a byte of payload", written as f64 / (entries * len) as f64);
        println!(
            "  {:.0} blocks/s of {:.1} entries",
            blocks as f64 / seconds,
            entries as f64 / blocks as f64
        );
        println!(
            "  {:.0}% of a processor ({:.0}% without the arrivals' own timers), {:.0} us a block",
            100.0 * cpu.as_secs_f64() / seconds,
            100.0 * (cpu.saturating_sub(idle)).as_secs_f64() / seconds,
            cpu.saturating_sub(idle).as_secs_f64() * 1e6 / blocks as f64,
        );
        println!(
            "  commit p50 {} us, p99 {} us",
            latencies[entries / 2].as_micros(),
            latencies[entries * 99 / 100].as_micros()
        );
        Ok(())
    }
}

/// What waiting for so many arrivals costs when nothing is done with them.
fn arrivals_alone(per_second: u32, time: Duration) -> Duration {
    let (before, start, gap) = (cpu_time(), Instant::now(), Duration::from_secs(1) / per_second);
    let mut due = start;
    while start.elapsed() < time {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += gap;
    }
    cpu_time() - before
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(error)) = self.housekeeper.take().and_then(|thread| thread.join().ok()) {
            eprintln!("the housekeeper: {error}");
        }
    }
}

/// Ticks, prepares, and lets all but the newest segments go.
fn keep_house(journal: &Journal, solo: &Solo, stop: &AtomicBool) -> std::result::Result<(), JournalError> {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        solo.tick(start.elapsed().as_millis() as u64);
        let segments = journal.segments();
        let dead: Vec<SegmentNo> = segments
            .iter()
            .rev()
            .skip(3)
            .filter(|segment| segment.closed)
            .map(|segment| segment.no)
            .collect();
        if dead.len() > 3 {
            let through = solo.committed();
            journal.flush(through)?;
            let tables = journal.tables(through, &dead);
            assert_ne!(tables.through, Sequence::NONE);
            journal.checkpoint_committed();
        }
        journal.prepare()?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What this process has used so far, in user and system mode.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
