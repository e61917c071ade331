//! What a checkpoint costs in the page store.
//!
//! `cargo run --release -p sabir-journal --example page_rate [DIR]`
//!
//! Commits 200,000 pages of 100 to 4,000 bytes, then ten times 20,000 of them anew, in DIR (the system's temporary directory);
//! prints the time of each, the bytes written by it a byte of page, the memory they took, and the time to open the store and to
//! read all of it.

use std::error::Error;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use sabir_journal::pages::{PageBatch, PageStore, RedbPages};

const PAGES: u64 = 200_000;
const DIRTY: u64 = 20_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = parent.join(format!("page-rate-{}", std::process::id()));
    fs::create_dir(&dir)?;
    let result = measure(&dir.join("pages"));
    fs::remove_dir_all(&dir)?;
    result
}

fn measure(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut random = Random(1);
    let noise: Vec<u8> = (0..1 << 16).map(|_| random.below(256) as u8).collect();
    let page = |random: &mut Random| {
        let (from, len) = (random.below(60_000) as usize, 100 + random.below(3_900) as usize);
        noise[from..from + len].to_vec()
    };
    let (store, _) = RedbPages::open(path, RedbPages::CACHE_BYTES)?;
    let mut all = PageBatch::default();
    (0..PAGES).for_each(|i| all.put(key(i), page(&mut random)));
    commit(&store, "200,000 new pages", all)?;
    for _ in 0..10 {
        let mut dirty = PageBatch::default();
        (0..DIRTY).for_each(|_| dirty.put(key(random.below(PAGES)), page(&mut random)));
        commit(&store, "20,000 dirty pages", dirty)?;
    }
    println!("the file has {} MB", store.stored_bytes()? / 1_000_000);
    drop(store);

    let start = Instant::now();
    let (store, _) = RedbPages::open(path, RedbPages::CACHE_BYTES)?;
    println!("opened in {:?}", start.elapsed());
    let (start, mut bytes) = (Instant::now(), 0);
    store.scan(&[], &[], &mut |_, page| {
        bytes += page.len();
        Ok(ControlFlow::Continue(()))
    })?;
    println!("{} MB read in {:?}", bytes / 1_000_000, start.elapsed());
    Ok(())
}

fn key(i: u64) -> Vec<u8> {
    [b"page/".as_slice(), &i.to_be_bytes()].concat()
}

fn commit(store: &RedbPages, what: &str, batch: PageBatch) -> Result<(), Box<dyn Error>> {
    let bytes = batch.bytes() as u64;
    let (start, written, memory) = (Instant::now(), proc_number("io", "write_bytes:")?, resident()?);
    store.commit(batch)?;
    let written = proc_number("io", "write_bytes:")? - written;
    println!(
        "{what}: {} MB in {:.0?}, {:.1} bytes written a byte, resident memory {:+} KiB",
        bytes / 1_000_000,
        start.elapsed(),
        written as f64 / bytes as f64,
        resident()? as i64 - memory as i64,
    );
    Ok(())
}

/// In KiB.
fn resident() -> Result<u64, Box<dyn Error>> {
    proc_number("status", "VmRSS:")
}

fn proc_number(file: &str, line: &str) -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string(format!("/proc/self/{file}"))?;
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    let number = found.and_then(|rest| rest.split_whitespace().next());
    Ok(number.ok_or("the system does not say")?.parse()?)
}
