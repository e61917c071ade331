//! The memory there is: the machine's, or that of the control group, and what follows from it.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// The least that `data.tail_cache = "auto"` is, and what it gives way to.
const TAIL_CACHE_LEAST: u64 = 16 << 20;
/// What a partition takes where its topic has no other: the test over a hundred thousand queues, `crates/broker/tests/memory.rs`.
pub const PARTITION_BYTES: u64 = 3 << 10;
/// What is remembered of an idempotent producer.
pub const PRODUCER_BYTES: u64 = 400;
/// What memory is taken to be where the system does not say.
const UNKNOWN: u64 = 1 << 30;

/// Where the kernel's files stand.
#[derive(Debug, Clone)]
pub struct MemoryFiles {
    root: PathBuf,
}

impl Default for MemoryFiles {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

/// Names of a control group's files, in the two versions.
const VERSIONS: [(&str, &str); 2] =
    [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")];

impl MemoryFiles {
    /// A machine made up below a folder.
    #[cfg(test)]
    pub(crate) fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Bytes of memory that the process may use; `None` where the system does not say.
    pub fn total(&self) -> Option<u64> {
        let groups = self.groups();
        let limits = groups.iter().filter_map(|group| VERSIONS.iter().find_map(|v| number(&group.join(v.0))));
        limits.chain(self.meminfo("MemTotal:")).min()
    }

    /// Bytes that may still be used, what the page cache holds included.
    pub fn available(&self) -> Option<u64> {
        let groups = self.groups();
        let left = groups.iter().filter_map(|group| left(group));
        left.chain(self.meminfo("MemAvailable:")).min()
    }

    fn meminfo(&self, key: &str) -> Option<u64> {
        let text = read_to_string(self.root.join("proc/meminfo")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// The folders of the control group and of all above it, as far as they can be seen.
    fn groups(&self) -> Vec<PathBuf> {
        let mounted = self.root.join("sys/fs/cgroup");
        let own = read_to_string(self.root.join("proc/self/cgroup")).unwrap_or_default();
        let mut groups = Vec::new();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            let top = match controllers {
                "" => mounted.clone(),
                list if list.split(',').any(|name| name == "memory") => mounted.join("memory"),
                _ => continue,
            };
            // In a container the path may be the one outside, where nothing is to be seen of it; the top is the group's own then.
            let group = top.join(path.trim_start_matches('/'));
            groups.extend(group.ancestors().take_while(|above| above.starts_with(&top)).map(Path::to_owned));
        }
        groups
    }
}

fn number(file: &Path) -> Option<u64> {
    read_to_string(file).ok()?.trim().parse().ok()
}

fn left(group: &Path) -> Option<u64> {
    let (limit, used) =
        VERSIONS.iter().find_map(|v| number(&group.join(v.0)).zip(number(&group.join(v.1))))?;
    let stat = read_to_string(group.join("memory.stat")).unwrap_or_default();
    let inactive = |key| stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    let cached = inactive("total_inactive_file ").or_else(|| inactive("inactive_file ")).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

/// What the settings are that follow the memory where they are `auto`.
///
/// Each is a part of it between two bounds, and with what is taken beside them they fit into it together: see
/// [`MemoryBudget`](crate::config::budgets::MemoryBudget).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoMemory {
    total: u64,
}

impl AutoMemory {
    /// Of a machine that has so much; where that is not known it is taken for a gibibyte.
    pub fn of(total: Option<u64>) -> Self {
        Self { total: total.unwrap_or(UNKNOWN) }
    }

    /// Bytes of memory that all of it follows.
    pub fn total(self) -> u64 {
        self.total
    }

    /// Of this machine or control group.
    pub fn here() -> Self {
        Self::of(MemoryFiles::default().total())
    }

    fn part(self, of: u64, least: u64, most: u64) -> u64 {
        (self.total / of).clamp(least, most)
    }

    /// `data.tail_cache`: a quarter.
    pub fn tail_cache(self) -> u64 {
        self.part(4, TAIL_CACHE_LEAST, 4 << 30)
    }

    /// `net.frame_memory`: an eighth.
    pub fn frame_memory(self) -> u64 {
        self.part(8, 16 << 20, 512 << 20)
    }

    /// `data.open_bytes_max`: a sixteenth for all of so many shards.
    pub fn open_bytes(self, shards: u32) -> u64 {
        self.part(16 * u64::from(shards), 4 << 20, 32 << 20)
    }

    /// `group.member_memory`: a thirty-second part.
    pub fn member_memory(self) -> u64 {
        self.part(32, 4 << 20, 256 << 20)
    }

    /// `group.offset_memory`: a sixteenth.
    pub fn offset_memory(self) -> u64 {
        self.part(16, 8 << 20, 512 << 20)
    }

    /// `topic.dedup_memory`: a sixty-fourth part.
    pub fn dedup_memory(self) -> u64 {
        self.settings_memory()
    }

    /// `topic.settings_memory`: a sixty-fourth part.
    pub fn settings_memory(self) -> u64 {
        self.part(64, 2 << 20, 32 << 20)
    }

    /// `topic.exchange_memory`: a sixteenth.
    pub fn exchange_memory(self) -> u64 {
        self.part(16, 8 << 20, 512 << 20)
    }

    /// `topic.max_total_partitions`: as many as fit into an eighth.
    pub fn partitions(self) -> usize {
        self.part(8 * PARTITION_BYTES, 1_000, 500_000) as usize
    }

    /// `data.producers`: as many as fit into a sixty-fourth part.
    pub fn producers(self) -> usize {
        self.part(64 * PRODUCER_BYTES, 5_000, 250_000) as usize
    }
}

/// How large the tail cache is to be, looked at again and again: it shrinks while memory is short, and grows back.
#[derive(Debug)]
pub struct TailCacheSize {
    most: u64,
    now: u64,
    total: u64,
}

impl TailCacheSize {
    /// At most `most` bytes of `total`.
    pub fn new(most: u64, total: u64) -> Self {
        Self { most, now: most, total }
    }

    /// Its new size, if that changes while `available` bytes are left.
    pub fn look(&mut self, available: u64) -> Option<u64> {
        let least = TAIL_CACHE_LEAST.min(self.most);
        let next = if available < self.total / 16 {
            (self.now - self.now / 4).max(least)
        } else if available > self.total / 8 {
            (self.now + self.most / 16).min(self.most)
        } else {
            self.now
        };
        let changed = next != self.now;
        self.now = next;
        changed.then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, MemoryFiles) {
        let dir = tempfile::tempdir().unwrap();
        let meminfo = ("proc/meminfo", "MemTotal:  8388608 kB\nMemFree: 5 kB\nMemAvailable: 4194304 kB\n");
        for (path, text) in [meminfo].iter().chain(files) {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let files = MemoryFiles::below(dir.path());
        (dir, files)
    }

    #[test]
    fn without_a_limit_it_is_the_machines() {
        let (_dir, files) = machine(&[
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
        ]);
        assert_eq!((files.total(), files.available()), (Some(8192 * MIB), Some(4096 * MIB)));
        let nowhere = MemoryFiles::below(Path::new("/nowhere/at/all"));
        assert_eq!((nowhere.total(), nowhere.available()), (None, None));
    }

    #[test]
    fn the_tightest_group_of_version_2_counts() {
        let (_dir, files) = machine(&[
            ("proc/self/cgroup", "0::/pods/sabir\n"),
            ("sys/fs/cgroup/pods/sabir/memory.max", "max\n"),
            ("sys/fs/cgroup/pods/memory.max", "134217728\n"),
            ("sys/fs/cgroup/pods/memory.current", "125829120\n"),
            ("sys/fs/cgroup/pods/memory.stat", "anon 1\ninactive_file 20971520\n"),
        ]);
        assert_eq!((files.total(), files.available()), (Some(128 * MIB), Some(28 * MIB)));
    }

    #[test]
    fn the_tightest_group_of_version_1_counts() {
        let (_dir, files) = machine(&[
            ("proc/self/cgroup", "12:cpu,cpuacct:/a\n5:memory:/docker/0123\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1048576\n"),
        ]);
        assert_eq!((files.total(), files.available()), (Some(128 * MIB), Some(MIB)), "seen from a container");
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        let (_dir, files) = machine(&[("proc/self/cgroup", "5:memory:/\n"), unlimited]);
        assert_eq!(files.total(), Some(8192 * MIB));
    }

    #[test]
    fn defaults_follow_the_memory_within_bounds() {
        let sizes = |total: Option<u64>| {
            let auto = AutoMemory::of(total);
            let open = auto.open_bytes(3);
            let groups = [auto.member_memory(), auto.offset_memory(), auto.settings_memory()];
            [auto.tail_cache(), auto.frame_memory(), open, groups[0], groups[1], groups[2]].map(|n| n / MIB)
        };
        assert_eq!(sizes(Some(32 * MIB)), [16, 16, 4, 4, 8, 2]);
        assert_eq!(sizes(Some(128 * MIB)), [32, 16, 4, 4, 8, 2]);
        assert_eq!(sizes(Some(256 * MIB)), [64, 32, 5, 8, 16, 4]);
        assert_eq!(sizes(Some(2048 * MIB)), [512, 256, 32, 64, 128, 32]);
        assert_eq!(sizes(Some(1 << 40)), [4096, 512, 32, 256, 512, 32]);
        assert_eq!(sizes(None), [256, 128, 21, 32, 64, 16]);
        let counts = |mib: u64| {
            let auto = AutoMemory::of(Some(mib * MIB));
            (auto.partitions(), auto.producers())
        };
        assert_eq!(counts(8), (1_000, 5_000));
        assert_eq!(counts(256), (10_922, 10_485));
        assert_eq!(counts(1 << 20), (500_000, 250_000));
    }

    #[test]
    fn the_tail_cache_gives_way_in_steps_and_comes_back() {
        let mut size = TailCacheSize::new(1024 * MIB, 4096 * MIB);
        assert_eq!(size.look(3000 * MIB), None);
        assert_eq!(size.look(200 * MIB), Some(768 * MIB));
        assert_eq!(size.look(300 * MIB), None, "not short, and not plenty");
        let shrunk = std::iter::from_fn(|| size.look(0)).last();
        assert_eq!(shrunk, Some(16 * MIB));
        assert_eq!(size.look(3000 * MIB), Some(80 * MIB));
        assert_eq!(std::iter::from_fn(|| size.look(3000 * MIB)).last(), Some(1024 * MIB));
    }
}
