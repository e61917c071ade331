//! The disk's own rate of durable writes: the bar for the journal.
//!
//! `cargo run --release -p sabir-journal --example disk_rate [DIR] [KIB] [SECONDS]`
//!
//! Rewrites zeroed files of 64 MiB from front to back with writes of KIB (64) that each ask to be durable, keeping 1, 2, 4
//! and 8 of them under way for SECONDS (2), in DIR (the system's temporary directory). Prints commits per second, their latency, and the
//! processor time one costs.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sabir_base::buf::BufPool;
use sabir_journal::disk::{Disk, DiskError, FileId, PwriteDisk, WriteOp};

const SEGMENT: u64 = 64 << 20;
const SEGMENTS: u64 = 2;

type Opened = Result<Box<dyn Disk>, DiskError>;
type Kind = (&'static str, fn(&Path) -> Opened);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u64| args.get(i).map_or(Ok(default), |a| a.parse());
    let parent = args.first().map_or_else(std::env::temp_dir, Into::into);
    let (kib, seconds) = (number(1, 64)?, number(2, 2)?);
    let dir = parent.join(format!("disk-rate-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    println!("{kib} KiB a write, each durable, in {}", parent.display());
    println!(
        "{:<16} {:>5} {:>10} {:>9} {:>9} {:>9}",
        "disk", "depth", "commits/s", "p50 us", "p99 us", "cpu us"
    );
    let result = kinds()
        .into_iter()
        .try_for_each(|(name, open)| measure(name, open(&dir), kib << 10, Duration::from_secs(seconds)));
    std::fs::remove_dir_all(&dir)?;
    result
}

fn kinds() -> Vec<Kind> {
    vec![
        #[cfg(target_os = "linux")]
        ("io_uring", |dir| Ok(Box::new(sabir_journal::disk::UringDisk::open(dir)?))),
        ("pwrite direct", |dir| Ok(Box::new(PwriteDisk::open_direct(dir)?))),
        ("pwrite buffered", |dir| Ok(Box::new(PwriteDisk::open(dir)?))),
    ]
}

fn measure(name: &str, disk: Opened, block: u64, time: Duration) -> Result<(), Box<dyn Error>> {
    let disk = match disk {
        Err(DiskError::Unsupported { what, source, .. }) => {
            println!("{name:<16} no {what} here: {source}");
            return Ok(());
        }
        disk => disk?,
    };
    let segments = prepare(&*disk)?;
    for depth in [1, 2, 4, 8] {
        let cpu = cpu_time();
        let mut latencies = write_for(&*disk, &segments, block, depth, time)?;
        let cpu = (cpu_time() - cpu).as_micros() as u64 / latencies.len() as u64;
        latencies.sort_unstable();
        let rate = latencies.len() as f64 / time.as_secs_f64();
        let at = |percent: usize| latencies[latencies.len() * percent / 100].as_micros();
        println!("{name:<16} {depth:>5} {rate:>10.0} {:>9} {:>9} {cpu:>9}", at(50), at(99));
    }
    for name in disk.list()? {
        disk.remove(&name)?;
    }
    Ok(())
}

/// Files whose every block has been written, as recycled segments are.
fn prepare(disk: &dyn Disk) -> Result<Vec<FileId>, Box<dyn Error>> {
    let zeros = block_of(0, 1 << 20);
    let mut segments = Vec::new();
    for i in 0..SEGMENTS {
        let file = disk.create(&format!("segment-{i}"), SEGMENT)?;
        for pos in (0..SEGMENT).step_by(zeros.len()) {
            disk.write_at(file, pos, &zeros)?;
        }
        disk.sync(file)?;
        segments.push(file);
    }
    disk.sync_dir()?;
    Ok(segments)
}

fn block_of(byte: u8, len: usize) -> Bytes {
    let mut buf = BufPool::new(0).get(len);
    buf.fill(byte);
    buf.freeze()
}

/// Keeps `depth` writes under way; gives how long each took.
fn write_for(
    disk: &dyn Disk,
    segments: &[FileId],
    block: u64,
    depth: usize,
    time: Duration,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let data = block_of(1, block as usize);
    let (start, blocks) = (Instant::now(), SEGMENT / block);
    let (mut token, mut latencies) = (0, Vec::new());
    let (mut under_way, mut ended) = (HashMap::new(), Vec::new());
    loop {
        while under_way.len() < depth && start.elapsed() < time {
            let file = segments[(token / blocks % SEGMENTS) as usize];
            let pos = token % blocks * block;
            disk.submit(WriteOp { token, file, pos, data: data.clone(), sync: true })?;
            under_way.insert(token, Instant::now());
            token += 1;
        }
        if under_way.is_empty() {
            return Ok(latencies);
        }
        disk.wait(Duration::from_secs(10));
        disk.reap(&mut ended);
        for completion in ended.drain(..) {
            completion.result?;
            latencies.extend(under_way.remove(&completion.token).map(|from| from.elapsed()));
        }
    }
}

/// What this process has used so far, in user and system mode.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
