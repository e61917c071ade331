//! The memory that it takes to give batches another codec, beside what is counted for it. What is measured is the process's: nothing
//! else is tested in this one.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

use sabir_model::batch::{BatchBuilder, BatchCheck, Compression, InlineBudget, LongCheck, RulesOf};
use sabir_model::{TopicConfig, TopicId};

const NOW: i64 = 1_700_000_000_000;
/// What the allocator and the test itself take beside it, in bytes.
const BESIDE: usize = 1 << 20;

fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}

/// The most memory that some work takes beside what there is.
fn taken(work: impl FnOnce()) -> usize {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    work();
    status("VmHWM:").saturating_sub(before)
}

/// A batch of so many bytes under snappy, for a topic that wants them at a level of another codec.
fn check(bytes: usize, codec: Compression, level: i32) -> LongCheck {
    let config = TopicConfig {
        compression: Some(codec),
        gzip_level: level,
        zstd_level: level,
        max_message_bytes: 8 << 20,
        ..TopicConfig::default()
    };
    let mut builder = BatchBuilder::new(Compression::Snappy);
    let value: Vec<u8> = (0..bytes as u32).map(|i| (i.wrapping_mul(i) >> 11) as u8 & 3).collect();
    builder.push(NOW, None, Some(&value), &[]);
    let rules = config.batch_rules(RulesOf { topic: TopicId([1; 16]), version: 1 });
    match BatchCheck::begin(builder.build(), rules, NOW, &mut InlineBudget(0)).unwrap() {
        BatchCheck::Long(long) => long,
        BatchCheck::Done(_) => panic!("it is done at once"),
    }
}

#[test]
fn no_level_of_any_codec_takes_more_memory_than_is_counted_for_it() {
    let zstd = [1, 3, 6, 12, 15, 22].map(|level| (Compression::Zstd, level));
    let others = [(Compression::Lz4, 0), (Compression::Gzip, 1), (Compression::Gzip, 9)];
    for (codec, level) in zstd.into_iter().chain(others) {
        for kib in [10, 100, 500, 1000, 8000] {
            let bytes = kib << 10;
            let check = check(bytes, codec, level);
            let limits = |memory| check.lower_limits(memory).find(|lower| bytes + 100 < *lower);
            for memory in [128 << 20, 16 << 20] {
                let limit = limits(memory).unwrap_or(check.limit(memory));
                let taken = taken(|| drop(check.run(limit, memory, &mut || {}).unwrap()));
                let counted = check.cost(limit, memory).bytes;
                let of = format!("{taken} of {counted}, {memory} allowed");
                assert!(taken <= counted + BESIDE, "{codec}, level {level}, {kib} KiB: {of}");
            }
        }
    }
}
