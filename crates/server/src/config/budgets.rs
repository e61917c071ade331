//! What the settings let the broker take of the memory there is.

use std::fmt::Write;

use sabir_frontend::config::Size;
use sabir_net::Workers;

use super::ServerConfig;
use crate::memory::{AutoMemory, MemoryFiles, PARTITION_BYTES, PRODUCER_BYTES};

/// What one setting lets the broker take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Section and key.
    pub setting: &'static str,
    /// Bytes, with what is taken beside them.
    pub bytes: u64,
    /// What they are where the setting is `auto`.
    pub auto: u64,
}

impl ServerConfig {
    /// Of each setting that bounds memory, on a machine for which `auto` is so much.
    fn budgets_of(&self, auto: AutoMemory) -> Vec<MemoryBudget> {
        let (data, topic, group) = (&self.data, &self.topic, &self.group);
        let (shards, quarter_more) = (data.all_shards(), |bytes: u64| bytes.saturating_add(bytes / 4));
        let open = |bytes: u64| bytes.saturating_mul(u64::from(shards));
        let partitions = |count: usize| (count as u64).saturating_mul(PARTITION_BYTES);
        let producers = |count: usize| (count as u64).saturating_mul(PRODUCER_BYTES);
        let size = |said: Option<Size>, auto: u64, with_beside: &dyn Fn(u64) -> u64| {
            (with_beside(said.map_or(auto, |said| said.0)), with_beside(auto))
        };
        let alone = |bytes: u64| bytes;
        let with_jobs =
            |bytes: u64| quarter_more(bytes).saturating_add(Workers::memory(bytes as usize) as u64);
        let total = topic.max_total_partitions.0.map_or_else(|| auto.partitions(), usize::from);
        let known = data.producers.0.map_or_else(|| auto.producers(), usize::from);
        let budgets = [
            ("data.tail_cache", size(data.tail_cache.0, auto.tail_cache(), &alone)),
            ("data.open_bytes_max", size(data.open_bytes_max.0, auto.open_bytes(shards), &open)),
            ("data.producers", (producers(known), producers(auto.producers()))),
            ("topic.max_total_partitions", (partitions(total), partitions(auto.partitions()))),
            ("topic.settings_memory", size(topic.settings_memory.0, auto.settings_memory(), &alone)),
            ("topic.dedup_memory", size(topic.dedup_memory.0, auto.dedup_memory(), &alone)),
            ("topic.exchange_memory", size(topic.exchange_memory.0, auto.exchange_memory(), &alone)),
            ("group.member_memory", size(group.member_memory.0, auto.member_memory(), &quarter_more)),
            ("group.offset_memory", size(group.offset_memory.0, auto.offset_memory(), &alone)),
            ("net.frame_memory", size(self.net.frame_memory.0, auto.frame_memory(), &with_jobs)),
        ];
        let of_front_ends = self.front_ends.iter().flat_map(|front_end| front_end.configured.memory());
        let of_front_ends =
            of_front_ends.map(|said| (said.setting, (said.bytes(auto.total()), (said.auto)(auto.total()))));
        let all = budgets.into_iter().chain(of_front_ends);
        all.map(|(setting, (bytes, auto))| MemoryBudget { setting, bytes, auto }).collect()
    }

    /// Of each setting that bounds memory, here.
    pub fn memory_budgets(&self) -> Vec<MemoryBudget> {
        self.budgets_of(AutoMemory::here())
    }

    /// What is to be said where the settings exceed the memory, and one of them is more than `auto` would be.
    pub(crate) fn memory_warning(&self) -> Option<String> {
        let total = MemoryFiles::default().total()?;
        warning(&self.memory_budgets(), total)
    }
}

/// What all of them let the broker take.
pub fn sum(budgets: &[MemoryBudget]) -> u64 {
    budgets.iter().fold(0, |sum, budget| sum.saturating_add(budget.bytes))
}

fn warning(budgets: &[MemoryBudget], total: u64) -> Option<String> {
    let mib = |bytes: u64| bytes >> 20;
    let sum = sum(budgets);
    let mut beyond: Vec<_> = budgets.iter().filter(|budget| budget.bytes > budget.auto).collect();
    if sum <= total || beyond.is_empty() {
        return None;
    }
    beyond.sort_by_key(|budget| std::cmp::Reverse(budget.bytes - budget.auto));
    let (sum, total) = (mib(sum), mib(total));
    let mut text =
        format!("the settings let the broker take {sum} MiB, and there are {total} MiB of memory:");
    for (i, budget) in beyond.into_iter().enumerate() {
        let (comma, MemoryBudget { setting, .. }) = (if i > 0 { "," } else { "" }, budget);
        // Writing to a String cannot fail.
        let _ =
            write!(text, "{comma} {setting} {} MiB (`auto`: {} MiB)", mib(budget.bytes), mib(budget.auto));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    const MIB: u64 = 1 << 20;

    fn config(set: &[&str]) -> ServerConfig {
        let set = set.iter().map(|s| s.to_string()).collect();
        ServerConfig::load(&Sources { set, ..Sources::default() }, crate::protocols()).unwrap()
    }

    fn budgets(set: &[&str], mib: u64) -> Vec<MemoryBudget> {
        config(set).budgets_of(AutoMemory::of(Some(mib * MIB)))
    }

    #[test]
    fn what_nobody_says_fits_into_the_memory_and_leaves_some() {
        for (shards, least) in [("data.shards=1", 256), ("data.shards=2", 256), ("data.shards=16", 1024)] {
            for mib in [256, 512, 1024, 4096, 16 << 10, 256 << 10].into_iter().filter(|&mib| mib >= least) {
                let budgets = budgets(&[shards], mib);
                assert!(sum(&budgets) <= mib * MIB / 16 * 15, "{shards} in {mib} MiB: {budgets:?}");
                assert_eq!(warning(&budgets, mib * MIB), None);
            }
        }
        // Where the least of each is more than there is, no setting has said so.
        assert_eq!(warning(&budgets(&[], 16), 16 * MIB), None);
    }

    #[test]
    fn what_is_said_is_taken_and_named_where_it_does_not_fit() {
        let set = ["topic.max_total_partitions=500000", "group.offset_memory=24MiB", "data.shards=1"];
        let few = budgets(&set, 256);
        assert_eq!(
            warning(&few, 256 * MIB).unwrap(),
            "the settings let the broker take 1670 MiB, and there are 256 MiB of memory: topic.max_total_partitions 1464 MiB \
             (`auto`: 31 MiB), group.offset_memory 24 MiB (`auto`: 16 MiB)"
        );
        assert_eq!(warning(&budgets(&set, 16 << 10), 16 << 30), None, "there it fits");
        assert_eq!(warning(&budgets(&["data.producers=5"], 256), 256 * MIB), None, "less is no matter");
        let options = config(&set).broker_options();
        assert_eq!((options.partitions_total_max, options.groups.max_offset_bytes), (500_000, 24 << 20));
        let set = [
            "data.producers=7",
            "group.member_memory=5MiB",
            "topic.settings_memory=6MiB",
            "topic.exchange_memory=7MiB",
            "topic.dedup_memory=8MiB",
        ];
        let options = config(&set).broker_options();
        assert_eq!(options.exchanges.bytes_max, 7 << 20);
        assert_eq!((options.producers_max, options.groups.max_member_bytes), (7, 5 << 20));
        assert_eq!((options.settings_max, options.dedup_max), (6 << 20, 8 << 20));
    }
}
