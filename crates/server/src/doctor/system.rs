//! The kernel, its limits, the clock and the memory.

use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use sabir_base::clock::kernel_clock;
use sabir_net::ListenOptions;

use super::Finding;
use crate::config::budgets::{MemoryBudget, sum};
use crate::memory::MemoryFiles;

/// The oldest kernel that has all that the journal uses.
const KERNEL: (u32, u32) = (5, 10);
/// The largest file that is written: a segment that holds a block too large for the usual 64 MiB.
const LARGEST_FILE: u64 = 2 << 30;

/// The kernel's version.
pub(super) fn kernel() -> Finding {
    let subject = "kernel";
    let name = rustix::system::uname();
    let (system, release) = (name.sysname().to_string_lossy(), name.release().to_string_lossy());
    let found = format!("{system} {release}");
    match (&*system, version(&release)) {
        ("Linux", Some(version)) if version < KERNEL => {
            let advice = format!(
                "io_uring of {}.{} or later is what this was tried with; data.disk = \"pwrite\" does without it.",
                KERNEL.0, KERNEL.1
            );
            Finding::poor(subject, found, advice)
        }
        _ => Finding::good(subject, found),
    }
}

/// `6.1` of `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The largest file that the process may write.
pub(super) fn file_size() -> Finding {
    let subject = "file size";
    // The soft limit: the broker raises the one on open files only.
    judge_file_size(subject, getrlimit(Resource::Fsize).current)
}

fn judge_file_size(subject: &'static str, limit: Option<u64>) -> Finding {
    match limit {
        Some(limit) if limit < LARGEST_FILE => Finding::bad(
            subject,
            format!("{} MiB at most", limit >> 20),
            "The journal's segments and page stores grow beyond it: lift the limit (ulimit -f, or LimitFSIZE= in the unit).",
        ),
        Some(limit) => Finding::good(subject, format!("{} MiB at most", limit >> 20)),
        None => Finding::good(subject, "no limit"),
    }
}

/// Whether something steers the clock.
pub(super) fn synchronised() -> Finding {
    let subject = "clock sync";
    match kernel_clock().map(|kernel| kernel.synchronised) {
        Some(true) => Finding::good(subject, "the kernel says that it is synchronised"),
        Some(false) => Finding::poor(
            subject,
            "the kernel says that nothing synchronises it",
            "Retention and reading by time go by it: run chrony or systemd-timesyncd, here or on the host.",
        ),
        None => Finding::good(subject, "the system does not say whether it is synchronised"),
    }
}

/// What the kernel reads the time from: it is read for every request.
pub(super) fn clock_source() -> Finding {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    judge_clock_source("clock source", std::fs::read_to_string(path).ok().as_deref().map(str::trim))
}

fn judge_clock_source(subject: &'static str, source: Option<&str>) -> Finding {
    match source {
        Some(slow @ ("hpet" | "acpi_pm" | "pit" | "jiffies" | "refined-jiffies")) => Finding::poor(
            subject,
            slow,
            "Each look at it is a call into the kernel; choose tsc (clocksource=tsc) where the machine's is sound.",
        ),
        Some(source) => Finding::good(subject, source),
        None => Finding::good(subject, "the system does not say"),
    }
}

/// Whether a protocol's addresses can be listened on. `running` says that a broker has the data directory: they are its own.
pub(super) fn listen(options: &ListenOptions, running: bool) -> Finding {
    let subject = "address";
    let addresses =
        options.addresses.iter().map(|one| one.address.to_string()).collect::<Vec<_>>().join(", ");
    let taken =
        options.addresses.iter().find_map(|one| Some((one.address, TcpListener::bind(one.address).err()?)));
    match taken {
        None => Finding::good(subject, format!("{}.listen = {addresses}: free", options.section)),
        Some(_) if running => {
            Finding::good(subject, format!("{}.listen = {addresses}: in use", options.section))
        }
        Some((address, error)) => Finding::bad(
            subject,
            format!("{}.listen = {address}: {error}", options.section),
            format!(
                "Stop what listens there (ss -ltnp), or listen elsewhere with --set {}.listen=…",
                options.section
            ),
        ),
    }
}

pub(super) fn open_files(connections: u64) -> Finding {
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

pub(super) fn clock() -> Finding {
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

pub(super) fn memory(budgets: &[MemoryBudget]) -> Finding {
    let subject = "memory";
    let Some(limit) = MemoryFiles::default().total() else {
        return Finding::good(subject, "no limit is known");
    };
    let (mib, wanted) = (|bytes: u64| bytes >> 20, sum(budgets));
    let found = format!("{} MiB, of which the settings let {} MiB be taken", mib(limit), mib(wanted));
    let largest = budgets.iter().max_by_key(|budget| budget.bytes.saturating_sub(budget.auto));
    match largest.filter(|_| wanted > limit) {
        Some(largest) => {
            Finding::poor(subject, found, format!("Lower {}, or give it more.", largest.setting))
        }
        None => Finding::good(subject, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_is_wrong_is_explained() {
        assert_eq!(open_files(u64::MAX - 1000).verdict, Verdict::Poor);
        let budget = |bytes| MemoryBudget { setting: "data.tail_cache", bytes, auto: 5 };
        assert_eq!(memory(&[budget(5), budget(u64::MAX)]).verdict, Verdict::Poor);
        assert_eq!(memory(&[budget(5)]).verdict, Verdict::Good);
        assert_eq!(judge_file_size("f", Some(1 << 20)).verdict, Verdict::Bad);
        assert_eq!(judge_file_size("f", None).verdict, Verdict::Good);
        assert_eq!(judge_clock_source("c", Some("hpet")).verdict, Verdict::Poor);
        assert_eq!(judge_clock_source("c", Some("tsc")).verdict, Verdict::Good);
    }

    #[test]
    fn versions_are_read_off_releases() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.15-rc1"), Some((5, 15)));
        assert_eq!(version("rolling"), None);
    }

    #[test]
    fn an_address_is_free_or_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let options = |port| ListenOptions {
            section: "flags",
            addresses: vec![std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()],
            anonymous: false,
            max_connections: 1,
        };
        let port = taken.local_addr().unwrap().port();
        assert_eq!(listen(&options(port), false).verdict, Verdict::Bad);
        assert_eq!(listen(&options(port), true).verdict, Verdict::Good);
        assert_eq!(listen(&options(0), false).verdict, Verdict::Good);
    }
}
