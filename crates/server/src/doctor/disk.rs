//! The data directory and the disk below it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, statfs, statvfs};
use sabir_broker::free_of;

use super::{Finding, Verdict};
use crate::advice::advice_on;
use crate::config::sections::DiskSetting;
use crate::storage::{keep_others_out, others_may, volatile};

/// File systems on which a sync is another machine's promise, or another program's.
const FOREIGN: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
];

/// File systems that the kernel makes up, in which nothing can be kept.
const KERNELS: &[(u64, &str)] = &[
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6367_7270, "cgroup2"),
    (0x0027_e0eb, "cgroup"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0x1cd1, "devpts"),
];

/// `dir` is the data directory, or what it would be made in.
pub(super) fn holder(data: &Path, dir: &Path) -> Finding {
    let subject = "data directory";
    if let Err(foreign) = sabir_broker::refuse_foreign(data) {
        return Finding::bad(subject, foreign.to_string(), "Name the broker's own with --data.");
    }
    match sabir_broker::check_free(data) {
        Ok(()) => free(subject, data, dir),
        Err(sabir_broker::StartError::InUse { pid, .. }) => {
            Finding::good(subject, format!("{}: the broker in process {pid} has it", data.display()))
        }
        Err(error) => {
            Finding::bad(subject, error.to_string(), "The broker's user must be able to read and write it.")
        }
    }
}

fn free(subject: &'static str, data: &Path, dir: &Path) -> Finding {
    let (good, bad) = match data.exists() {
        true => ("no broker has it", "no broker has it, and none could write to it"),
        false => ("not there yet; serve makes it", "not there yet, and serve cannot make it"),
    };
    match Probe::open(dir, OFlags::empty()) {
        Ok(_) => Finding::good(subject, format!("{}: {good}", data.display())),
        Err(error) => {
            let found = format!("{}: {bad}: {}: {error}", data.display(), dir.display());
            Finding::bad(subject, found, writable(&error))
        }
    }
}

/// Who may do anything in the data directory beside its owner and group.
pub(super) fn access(data: &Path) -> Finding {
    let subject = "access";
    match others_may(data) {
        Some(may) => {
            let found = format!("{}: every user of this machine may {may}", data.display());
            Finding::poor(subject, found, format!("To keep them out: {}", keep_others_out(data)))
        }
        None if data.exists() => Finding::good(subject, "its owner, or its group"),
        None => Finding::good(subject, "its owner alone, when serve has made it"),
    }
}

pub(super) fn place(data: &Path, dir: &Path) -> Finding {
    let subject = "file system";
    if let Some(memory) = volatile(dir) {
        let found = format!("{memory}, which is memory: nothing survives the machine");
        return Finding::bad(subject, found, format!("Move {} to a disk with --data.", data.display()));
    }
    if let Some(name) = kind(dir, KERNELS) {
        let found =
            format!("{}: {name}, which the kernel makes up: nothing can be kept there", dir.display());
        return Finding::bad(subject, found, format!("Move {} to a disk with --data.", data.display()));
    }
    if let Some(name) = kind(dir, FOREIGN) {
        let advice =
            "A local disk is faster, and a power cut is survived only as well as what answers there does.";
        return Finding::poor(subject, format!("{}: {name}", dir.display()), advice);
    }
    Finding::good(subject, format!("{} is on a local disk", dir.display()))
}

/// `keep_free` is what the journal leaves to others.
pub(super) fn free_space(dir: &Path, keep_free: u64) -> Finding {
    let subject = "free space";
    match statvfs(dir) {
        Ok(stat) => judge_free_space(subject, free_of(&stat), keep_free),
        Err(error) => Finding::bad(subject, error.to_string(), "The folder's file system does not answer."),
    }
}

fn judge_free_space(subject: &'static str, free: u64, keep_free: u64) -> Finding {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let found =
        format!("{:.1} GiB, of which data.keep_free leaves {:.1} GiB to others", gib(free), gib(keep_free));
    match free.saturating_sub(keep_free) {
        room if room < 512 << 20 => {
            let least = (keep_free >> 20).saturating_add(512);
            let advice = format!(
                "data.keep_free is always left free, and each shard's journal takes four segments of 64 MiB: with fewer it is full, whatever is \
                 deleted. See to at least {least} MiB, or lower data.keep_free."
            );
            Finding::bad(subject, found, advice)
        }
        room if room < 5 << 30 => Finding::poor(subject, found, "Little room: set topic.retention_size."),
        _ => Finding::good(subject, found),
    }
}

/// The name of a file system that is one of these.
fn kind(dir: &Path, known: &[(u64, &'static str)]) -> Option<&'static str> {
    let kind = statfs(dir).ok()?.f_type as u64 & 0xffff_ffff;
    known.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name)
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
pub(super) fn sync_rate(dir: &Path) -> Finding {
    let subject = "disk sync";
    let times = match synced_writes(dir) {
        Ok(times) => times,
        Err(error) => {
            return Finding::bad(subject, format!("{}: {error}", dir.display()), writable(&error));
        }
    };
    let median = times[times.len() / 2];
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let rate = times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64().max(1e-9);
    let worst = times[times.len() * 99 / 100];
    let found =
        format!("4 KiB in {:.2} ms (median), {:.2} ms (p99); {rate:.0} a second", ms(median), ms(worst));
    match median {
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
    }
}

/// How long each took, the shortest first; one at least.
fn synced_writes(dir: &Path) -> io::Result<Vec<Duration>> {
    let probe = Probe::open(dir, OFlags::empty())?;
    let block = [0x5a; 4096];
    // The file's size must not change in what is measured.
    probe.file.write_all_at(&vec![0; 1 << 20], 0)?;
    probe.file.sync_all()?;
    let mut times = Vec::new();
    let until = Instant::now() + Duration::from_millis(500);
    while times.is_empty() || (Instant::now() < until && times.len() < 1000) {
        let began = Instant::now();
        probe.file.write_all_at(&block, (times.len() as u64 % 256) * 4096)?;
        probe.file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

pub(super) fn direct_io(dir: &Path) -> Finding {
    let subject = "direct I/O";
    if let Some(finding) = untried(subject, dir, Verdict::Poor) {
        return finding;
    }
    match Probe::open(dir, OFlags::DIRECT) {
        Ok(_) => Finding::good(subject, "the file system takes it"),
        Err(error) => Finding::poor(
            subject,
            format!("{error}"),
            "The journal goes through the page cache instead (data.disk = \"pwrite\"): it costs some CPU.",
        ),
    }
}

/// A folder in which no file can be made says nothing about how files are written.
fn untried(subject: &'static str, dir: &Path, verdict: Verdict) -> Option<Finding> {
    let error = Probe::open(dir, OFlags::empty()).err()?;
    let found = format!("cannot be tried: {}: {error}", dir.display());
    let advice = writable(&error).into();
    Some(Finding { subject, verdict, found, advice })
}

/// What to do where no file can be made.
fn writable(error: &io::Error) -> &'static str {
    advice_on(error.kind())
        .unwrap_or("It must be writable for the broker's user: name another place with --data.")
}

/// Whether the journal would use it here: the kernel may lack it, an administrator or a container may forbid it.
pub(super) fn io_uring(dir: &Path, wanted: DiskSetting) -> Finding {
    let subject = "io_uring";
    if wanted == DiskSetting::Pwrite {
        return Finding::good(subject, "not wanted (data.disk = \"pwrite\")");
    }
    let verdict = if wanted == DiskSetting::IoUring { Verdict::Bad } else { Verdict::Poor };
    if let Some(finding) = untried(subject, dir, verdict) {
        return finding;
    }
    match sabir_broker::check_uring(dir) {
        Ok(()) => Finding::good(subject, "works here, with direct I/O"),
        Err(problem) if wanted == DiskSetting::IoUring => {
            Finding::bad(subject, problem, "data.disk = \"auto\" does without it.")
        }
        Err(problem) => Finding::poor(
            subject,
            problem,
            "The journal uses pwrite instead, which costs some CPU. sysctl kernel.io_uring_disabled=0 allows it; in a \
             container its seccomp profile must too.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_others_is_no_room() {
        for (free, keep_free, verdict) in [
            (10 << 30, 0, Verdict::Good),
            (10 << 30, 6 << 30, Verdict::Poor),
            (10 << 30, 10 << 30, Verdict::Bad),
            (10 << 30, u64::MAX, Verdict::Bad),
            (700 << 20, 0, Verdict::Poor),
            (700 << 20, 256 << 20, Verdict::Bad),
        ] {
            assert_eq!(judge_free_space("free", free, keep_free).verdict, verdict, "{free} {keep_free}");
        }
    }

    #[test]
    fn a_data_directory_that_is_open_to_all_is_poor_and_comes_with_the_command() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert_eq!(access(&data).verdict, Verdict::Good);
        std::fs::create_dir(&data).unwrap();
        for (mode, verdict) in [(0o777, Verdict::Poor), (0o750, Verdict::Good)] {
            std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).unwrap();
            let finding = access(&data);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.advice.contains(&format!("chmod o= {}", data.display())), mode == 0o777);
        }
    }

    #[test]
    fn a_folder_of_something_else_is_named_as_serve_would() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path(), dir.path()).verdict, Verdict::Good);
        std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
        let finding = holder(dir.path(), dir.path());
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(finding.found.contains("letter.txt") && finding.advice.contains("--data"), "{finding:?}");
    }

    #[test]
    fn what_is_wrong_is_explained() {
        assert_eq!(sync_rate(Path::new("/proc/nothing")).verdict, Verdict::Bad);
        // It is the folder that takes no file: neither the kernel nor the file system is at fault.
        for blamed in [io_uring(Path::new("/proc"), DiskSetting::Auto), direct_io(Path::new("/proc"))] {
            assert!(blamed.found.starts_with("cannot be tried: /proc: "), "{blamed:?}");
            assert!(!blamed.advice.contains("sysctl") && blamed.advice.contains("writable"), "{blamed:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lock")).unwrap();
        assert_eq!(holder(dir.path(), dir.path()).verdict, Verdict::Bad);
        // A folder that takes no file takes no data directory either.
        for data in ["/proc", "/proc/nothing"] {
            let finding = holder(Path::new(data), Path::new("/proc"));
            assert_eq!(finding.verdict, Verdict::Bad, "{finding:?}");
            assert!(!finding.found.contains("serve makes it") && !finding.advice.is_empty(), "{finding:?}");
        }
        let made_up = place(Path::new("/proc/nothing"), Path::new("/proc"));
        assert!(
            made_up.verdict == Verdict::Bad && made_up.found.contains("/proc: proc, which"),
            "{made_up:?}"
        );
        let nowhere = dir.path().join("nothing");
        assert_eq!(io_uring(&nowhere, DiskSetting::Auto).verdict, Verdict::Poor);
        assert_eq!(io_uring(&nowhere, DiskSetting::IoUring).verdict, Verdict::Bad);
        assert_eq!(io_uring(&nowhere, DiskSetting::Pwrite).verdict, Verdict::Good);
    }
}
