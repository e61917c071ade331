//! Looks at the machine as the broker would find it, and explains what it sees.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{OFlags, statvfs};
use rustix::process::{Resource, getrlimit};

use crate::config::Config;
use crate::config::sections::Disk;
use crate::storage::volatile;

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but not as well as it could.
    Poor,
    /// The broker would not start, or would break a promise.
    Bad,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What it is.
    pub found: String,
    /// What to do about it; empty where nothing has to be done.
    pub advice: String,
}

impl Finding {
    fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, found: found.into(), advice: String::new() }
    }

    fn poor(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Poor, found: found.into(), advice: advice.into() }
    }

    fn bad(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Bad, found: found.into(), advice: advice.into() }
    }
}

/// Runs every check for a configuration. Writes a file into the data directory's file system for half a second, and removes it.
pub fn examine(config: &Config) -> Vec<Finding> {
    let dir = nearest_existing(&config.data.dir);
    let mut findings = vec![holder(&config.data.dir), place(&config.data.dir, &dir), free_space(&dir)];
    findings.extend(sync_rate(&dir));
    findings.push(direct_io(&dir));
    findings.push(io_uring(config.data.disk));
    findings.push(open_files(config.net.max_connections.get() as u64));
    findings.push(clock());
    findings.push(memory(config.data.tail_cache.0 + config.net.frame_memory.0));
    findings
}

/// The data directory, or what it would be made in.
fn nearest_existing(dir: &Path) -> PathBuf {
    let full = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let found = full.ancestors().find(|a| a.is_dir());
    found.unwrap_or(Path::new("/")).to_owned()
}

fn holder(data: &Path) -> Finding {
    let subject = "data directory";
    match sabir_broker::check_free(data) {
        Ok(()) if data.exists() => Finding::good(subject, format!("{}: no broker has it", data.display())),
        Ok(()) => Finding::good(subject, format!("{}: not there yet; serve makes it", data.display())),
        Err(sabir_broker::StartError::InUse { pid, .. }) => {
            Finding::good(subject, format!("{}: the broker in process {pid} has it", data.display()))
        }
        Err(error) => {
            Finding::bad(subject, error.to_string(), "The broker's user must be able to read and write it.")
        }
    }
}

fn place(data: &Path, dir: &Path) -> Finding {
    let subject = "file system";
    if let Some(memory) = volatile(dir) {
        let found = format!("{memory}, which is memory: nothing survives the machine");
        return Finding::bad(subject, found, format!("Move {} to a disk with --data.", data.display()));
    }
    Finding::good(subject, format!("{} is on a disk", dir.display()))
}

fn free_space(dir: &Path) -> Finding {
    let subject = "free space";
    let stat = match statvfs(dir) {
        Ok(stat) => stat,
        Err(error) => {
            return Finding::bad(subject, error.to_string(), "The folder's file system does not answer.");
        }
    };
    let free = stat.f_bavail * stat.f_frsize;
    let found = format!("{:.1} GiB", free as f64 / f64::from(1 << 30));
    match free {
        free if free < 512 << 20 => Finding::bad(
            subject,
            found,
            "The journal keeps a reserve of some segments of 64 MiB: free at least 512 MiB.",
        ),
        free if free < 5 << 30 => Finding::poor(subject, found, "Little room: set topic.retention_size."),
        _ => Finding::good(subject, found),
    }
}

/// A file that is removed when it is closed.
struct Probe {
    file: File,
    path: PathBuf,
}

impl Probe {
    fn open(dir: &Path, flags: OFlags) -> io::Result<Self> {
        let path = dir.join(format!(".sabir-doctor-{}", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(flags.bits() as i32);
        Ok(Self { file: options.open(&path)?, path })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It may be gone; nothing else can be done here.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// How often a second 4 KiB can be written and synced: the commits of a client that waits for each.
fn sync_rate(dir: &Path) -> Vec<Finding> {
    let subject = "disk sync";
    let median = match synced_writes(dir) {
        Ok(median) => median,
        Err(error) => {
            return vec![Finding::bad(
                subject,
                format!("{}: {error}", dir.display()),
                "It must be writable.",
            )];
        }
    };
    let found = format!("4 KiB in {:.2} ms (median)", median.as_secs_f64() * 1e3);
    vec![match median {
        fast if fast < Duration::from_micros(20) => Finding::poor(
            subject,
            found,
            "Too fast for a disk: a cache answers. A power cut is survived only if that cache has its own power.",
        ),
        slow if slow > Duration::from_millis(5) => Finding::poor(
            subject,
            found,
            "A slow disk: each acknowledgement waits for it. Group commit helps many clients, not a single one.",
        ),
        _ => Finding::good(subject, found),
    }]
}

fn synced_writes(dir: &Path) -> io::Result<Duration> {
    let probe = Probe::open(dir, OFlags::empty())?;
    let block = [0x5a; 4096];
    // The file's size must not change in what is measured.
    probe.file.write_all_at(&vec![0; 1 << 20], 0)?;
    probe.file.sync_all()?;
    let mut times = Vec::new();
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until && times.len() < 1000 {
        let began = Instant::now();
        probe.file.write_all_at(&block, (times.len() as u64 % 256) * 4096)?;
        probe.file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn direct_io(dir: &Path) -> Finding {
    let subject = "direct I/O";
    match Probe::open(dir, OFlags::DIRECT) {
        Ok(_) => Finding::good(subject, "the file system takes it"),
        Err(error) => Finding::poor(
            subject,
            format!("{error}"),
            "The journal goes through the page cache instead (data.disk = \"pwrite\"): it costs some CPU.",
        ),
    }
}

fn io_uring(wanted: Disk) -> Finding {
    let subject = "io_uring";
    if wanted == Disk::Pwrite {
        return Finding::good(subject, "not wanted (data.disk = \"pwrite\")");
    }
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    match disabled.as_deref().map(str::trim) {
        Some("0") => Finding::good(subject, "the kernel allows it"),
        Some(level) => Finding::poor(
            subject,
            format!("kernel.io_uring_disabled = {level}"),
            "sysctl kernel.io_uring_disabled=0 allows it; without it the journal uses pwrite.",
        ),
        // Kernels before 6.6 have no such switch.
        None => Finding::good(subject, "the kernel has no switch against it"),
    }
}

fn open_files(connections: u64) -> Finding {
    let subject = "open files";
    // Segments, page stores, listeners and libraries.
    let needed = connections + 1000;
    match getrlimit(Resource::Nofile).maximum {
        Some(limit) if limit < needed => Finding::poor(
            subject,
            format!("{limit} at most, for net.max_connections = {connections}"),
            format!(
                "Raise the hard limit to {needed} (ulimit -Hn, or LimitNOFILE= in the unit), or allow fewer."
            ),
        ),
        Some(limit) => Finding::good(subject, format!("{limit} at most")),
        None => Finding::good(subject, "no limit"),
    }
}

fn clock() -> Finding {
    let subject = "clock";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // 2025-01-01: this program is younger than that.
    if now < 1_735_689_600 {
        let advice =
            "Records are stamped with it, and retention goes by it: set it (chrony, systemd-timesyncd).";
        return Finding::bad(subject, format!("{now} s after 1970: in the past"), advice);
    }
    Finding::good(subject, "plausible")
}

fn memory(wanted: u64) -> Finding {
    let subject = "memory";
    let Some(limit) = memory_limit() else { return Finding::good(subject, "no limit is known") };
    let mib = |bytes: u64| bytes >> 20;
    let found = format!("{} MiB, of which caches and frames may take {} MiB", mib(limit), mib(wanted));
    match wanted > limit / 2 {
        true => Finding::poor(subject, found, "Lower data.tail_cache or net.frame_memory, or give it more."),
        false => Finding::good(subject, found),
    }
}

/// The control group's limit, or the machine's memory if that is less.
fn memory_limit() -> Option<u64> {
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|t| t.trim().parse().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    });
    [group, machine].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn a_folder_is_examined_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let sources = Sources { data: Some(dir.path().join("new/data")), ..Sources::default() };
        let config = Config::load(&sources, &[]).unwrap();
        let findings = examine(&config);
        let subjects: Vec<_> = findings.iter().map(|f| f.subject).collect();
        assert!(subjects.contains(&"disk sync") && subjects.contains(&"open files"), "{subjects:?}");
        assert!(findings[0].found.contains("not there yet"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        for finding in &findings {
            assert_eq!(finding.advice.is_empty(), finding.verdict == Verdict::Good, "{finding:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_explained() {
        let nowhere = Path::new("/proc/nothing");
        assert_eq!(sync_rate(nowhere)[0].verdict, Verdict::Bad);
        assert_eq!(open_files(u64::MAX - 1000).verdict, Verdict::Poor);
        assert_eq!(memory(u64::MAX).verdict, Verdict::Poor);
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lock")).unwrap();
        assert_eq!(holder(dir.path()).verdict, Verdict::Bad);
    }
}
