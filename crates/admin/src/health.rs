//! `/livez` and `/readyz`, and what they go by.

use std::time::Duration;

use axum::http::StatusCode;
use sabir_broker::{Damage, DamageCause, DelayedStats, STALLED, ShardStats, Stats};
use sabir_model::TopicId;

use crate::{Admin, State};

/// How the server is, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether requests are taken.
    pub ready: bool,
    /// One word: starting, ready, failed or stopping.
    pub status: &'static str,
    /// What is wrong, a sentence each.
    pub problems: Vec<String>,
}

/// Checkpoints that have failed for longer are told of: a few are given up on a disk that is busy with something else.
const FAILING: Duration = Duration::from_secs(60);

impl Health {
    /// How the server is now.
    pub fn of(admin: &Admin) -> Self {
        let waiting = |status, why: &str| Self { ready: false, status, problems: vec![why.to_owned()] };
        match admin.state() {
            State::Starting if admin.options.start.step().full => {
                waiting("starting", "the disk is full: the start goes on once there is space")
            }
            State::Starting => waiting("starting", "the journal is being opened"),
            State::Stopping => waiting("stopping", "the broker is stopping"),
            State::Running(shown) => {
                let catalog = shown.broker.catalog();
                let name =
                    |id| catalog.topic_by_id(id).map_or_else(|| id.to_string(), |t| t.name.to_string());
                Self::judge(&shown.broker.stats(), name)
            }
        }
    }

    /// A shard that lost its storage, or whose disk does not answer, makes the node not ready. A full disk does not: readers and deletes are what empties it. Nor do
    /// records that cannot be read: all others can; nor checkpoints that fail: all else is served, and the next start takes longer.
    pub fn judge(stats: &Stats, name: impl Fn(TopicId) -> String) -> Self {
        let stopped = stats.shards.iter().filter(|shard| shard.stopped);
        let full = stats.shards.iter().filter(|shard| shard.full);
        let failed =
            |shard| format!("shard {shard}: its storage failed, it answers reads at the most; see the log");
        let mut problems: Vec<String> = stopped.map(|s| failed(s.shard)).collect();
        // A block that waits for space is the full disk's, and one cause is said once.
        let commit_age = |shard: &ShardStats| if shard.full { Duration::ZERO } else { shard.commit_age };
        let waits = |shard: &ShardStats| commit_age(shard).max(shard.disk_wait);
        let stalled = stats.shards.iter().filter(|shard| !shard.stopped && waits(shard) >= STALLED);
        problems.extend(stalled.map(|s| stalled_for(s, waits(s).as_secs())));
        let ready = problems.is_empty();
        problems.extend(full.map(full_disk));
        // That of a shard which is stopped, or has no space, is said.
        let running = stats.shards.iter().filter(|shard| !shard.stopped && !shard.full);
        problems
            .extend(running.filter(|shard| shard.checkpoints_fail_for >= FAILING).map(failing_checkpoints));
        let damaged = stats.shards.iter().flat_map(|shard| &shard.damaged);
        problems.extend(damaged.map(|damage| unreadable(damage, &name(damage.topic))));
        Self { ready, status: if ready { "ready" } else { "failed" }, problems }
    }

    /// The code that tells a probe.
    pub fn code(&self) -> StatusCode {
        if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    fn text(&self) -> String {
        let head = if self.ready { "ready\n" } else { "" };
        let mark = if self.ready { "" } else { "not ready: " };
        self.problems.iter().fold(head.to_owned(), |text, problem| format!("{text}{mark}{problem}\n"))
    }
}

/// Where the disk was not at something for most of that time, it need not be the disk.
fn stalled_for(shard: &ShardStats, seconds: u64) -> String {
    let number = shard.shard;
    match 2 * shard.disk_wait >= STALLED {
        true => format!("shard {number}: its disk has not finished a read or write for {seconds} s"),
        false => format!(
            "shard {number}: a block has not been committed for {seconds} s: its disk is slow, or the threads that go on with it are busy"
        ),
    }
}

/// With how much is free all the same: part of the disk is always left to others, and a small disk may have no more than that.
fn full_disk(shard: &ShardStats) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let free = shard.free_bytes.map_or_else(String::new, |free| {
        format!(
            " ({} MiB are free, and data.keep_free always leaves {} MiB to others)",
            mib(free),
            mib(shard.keep_free)
        )
    });
    format!("shard {}: its disk is full{free}; it answers reads{}", shard.shard, what_helps(shard))
}

/// Whether deletes make room: they wait behind a block that waits for space; where the journal has too few segments, the one that is written to
/// is all that could be freed, and is not while a record in it is kept; nor is a segment that holds a delayed message. And what waits for that room.
fn what_helps(shard: &ShardStats) -> String {
    let DelayedStats { messages, left, in_each_segment } = shard.delayed;
    let delayed =
        || format!("{}, the last of which is due in {}", counted(messages, "delayed message"), rough(left));
    let helps = match (shard.waits_for_space, shard.lacks_segments) {
        (true, _) => {
            ". What its journal writes waits for space, and even deletes wait behind it: make some by removing what is not the broker's".into()
        }
        (_, true) => {
            " and takes deletes. They make no room while any record is kept, for its journal lacks segments: give the disk more space, or lower \
             data.keep_free"
                .into()
        }
        _ if in_each_segment => format!(
            " and takes deletes. Deletes of records make no room now, for each segment of its journal holds some of {}: delete their exchange, or give the \
             disk more space",
            delayed()
        ),
        _ if messages > 0 => {
            format!(" and takes deletes, which make room, but for segments that hold some of {}", delayed())
        }
        _ => " and takes deletes, which make room".to_owned(),
    };
    match shard.waiting_dead_letters {
        0 => helps,
        waiting => format!("{helps}. There wait for room: {}", counted(waiting, "dead letter")),
    }
}

fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A time in its two largest units.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn failing_checkpoints(shard: &ShardStats) -> String {
    format!(
        "shard {}: its checkpoints have failed for {} s: no space of its journal is used again, and a start replays what has come since the last \
         one; see the log",
        shard.shard,
        shard.checkpoints_fail_for.as_secs()
    )
}

fn unreadable(damage: &Damage, topic: &str) -> String {
    let why = match damage.cause {
        DamageCause::Corrupt => "they are corrupt",
        DamageCause::Index => "a page of the partition's index is corrupt",
        DamageCause::Storage => "the disk failed",
    };
    let Damage { partition, offset, .. } = damage;
    format!(
        "topic {topic}, partition {partition}: the records at offset {offset} cannot be read: {why}; see the log"
    )
}

/// The process answers: nothing more is said.
pub async fn live() -> &'static str {
    "ok\n"
}

/// Whether requests are taken, and if not, what is not ready.
pub async fn ready(axum::extract::State(admin): axum::extract::State<Admin>) -> (StatusCode, String) {
    let health = Health::of(&admin);
    (health.code(), health.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_cannot_be_read_are_named() {
        let (topic, offset) = (TopicId([7; 16]), sabir_model::Offset(9));
        let damage = Damage { topic, partition: 2, offset, cause: DamageCause::Corrupt };
        let shard = ShardStats { damaged: vec![damage], ..ShardStats::default() };
        let health = Health::judge(&Stats { shards: vec![shard], ..Stats::default() }, |_| "orders".into());
        assert_eq!((health.code(), health.status), (StatusCode::OK, "ready"));
        let expected = "ready\ntopic orders, partition 2: the records at offset 9 cannot be read: they are corrupt; see the log\n";
        assert_eq!(health.text(), expected);
        let damage = Damage { cause: DamageCause::Index, ..damage };
        let shard = ShardStats { damaged: vec![damage], ..ShardStats::default() };
        let health = Health::judge(&Stats { shards: vec![shard], ..Stats::default() }, |_| "orders".into());
        let end = ": the records at offset 9 cannot be read: a page of the partition's index is corrupt; see the log\n";
        assert!(health.text().ends_with(end), "{}", health.text());
    }

    #[test]
    fn checkpoints_that_fail_are_told_of_once_that_lasts_and_nobody_is_kept_away() {
        let mut stats = Stats { shards: vec![ShardStats::default()], ..Stats::default() };
        let text = |stats: &Stats| {
            let health = Health::judge(stats, |id| id.to_string());
            assert_eq!((health.ready, health.code()), (true, StatusCode::OK));
            health.text()
        };
        stats.shards[0].checkpoints_fail_for = FAILING - Duration::from_millis(1);
        assert_eq!(text(&stats), "ready\n");
        stats.shards[0].checkpoints_fail_for = Duration::from_secs(75);
        let told = text(&stats);
        assert!(told.starts_with("ready\nshard 0: its checkpoints have failed for 75 s: "), "{told}");
        stats.shards[0].full = true;
        assert!(!text(&stats).contains("checkpoints"), "one cause is said once: {}", text(&stats));
    }

    #[test]
    fn a_disk_that_does_not_answer_is_not_ready() {
        let mut stats = Stats { shards: vec![ShardStats::default()], ..Stats::default() };
        stats.shards[0].commit_age = STALLED - Duration::from_millis(1);
        assert_eq!(Health::judge(&stats, |id| id.to_string()).code(), StatusCode::OK);
        stats.shards[0].commit_age = Duration::from_millis(7_300);
        let health = Health::judge(&stats, |id| id.to_string());
        assert_eq!(health.code(), StatusCode::SERVICE_UNAVAILABLE);
        let busy = "not ready: shard 0: a block has not been committed for 7 s: its disk is slow, or the threads that go on with it are busy\n";
        assert_eq!(health.text(), busy);
        stats.shards[0].disk_wait = STALLED;
        let health = Health::judge(&stats, |id| id.to_string());
        assert_eq!(health.text(), "not ready: shard 0: its disk has not finished a read or write for 7 s\n");
        // No block is waited for, but a seal, a segment or a checkpoint.
        stats.shards[0].commit_age = Duration::ZERO;
        stats.shards[0].disk_wait = Duration::from_secs(9);
        let health = Health::judge(&stats, |id| id.to_string());
        assert_eq!(health.text(), "not ready: shard 0: its disk has not finished a read or write for 9 s\n");
    }

    #[test]
    fn a_block_that_waits_for_space_is_the_full_disks() {
        let shard = ShardStats { full: true, commit_age: Duration::from_secs(9), ..ShardStats::default() };
        let mut stats = Stats { shards: vec![shard], ..Stats::default() };
        let health = Health::judge(&stats, |id| id.to_string());
        assert_eq!(health.code(), StatusCode::OK);
        assert_eq!(
            health.text(),
            "ready\nshard 0: its disk is full; it answers reads and takes deletes, which make room\n"
        );
        // That it does not answer is another cause.
        stats.shards[0].disk_wait = Duration::from_secs(8);
        let health = Health::judge(&stats, |id| id.to_string());
        assert!(health.text().contains("has not finished a read or write for 8 s"), "{health:?}");
    }

    #[test]
    fn a_full_disk_is_told_with_what_is_always_left_free() {
        let shard = ShardStats {
            full: true,
            free_bytes: Some(300 << 20),
            keep_free: 256 << 20,
            ..ShardStats::default()
        };
        let stats = Stats { shards: vec![shard], ..Stats::default() };
        let text = |stats: &Stats| Health::judge(stats, |id| id.to_string()).text();
        let said = "shard 0: its disk is full (300 MiB are free, and data.keep_free always leaves 256 MiB to others); it answers";
        assert!(text(&stats).contains(said) && !text(&stats).contains("lacks"), "{}", text(&stats));
    }

    #[test]
    fn a_full_disk_is_told_with_whether_deletes_help() {
        let told = |lacks_segments, waits_for_space| {
            let shard = ShardStats { full: true, lacks_segments, waits_for_space, ..ShardStats::default() };
            Health::judge(&Stats { shards: vec![shard], ..Stats::default() }, |id| id.to_string()).text()
        };
        let full = "ready\nshard 0: its disk is full; it answers reads";
        assert_eq!(told(false, false), format!("{full} and takes deletes, which make room\n"));
        let lacks = "They make no room while any record is kept, for its journal lacks segments: give the disk more space, or lower data.keep_free";
        assert_eq!(told(true, false), format!("{full} and takes deletes. {lacks}\n"));
        let waits = "What its journal writes waits for space, and even deletes wait behind it: make some by removing what is not the broker's";
        for lacks_segments in [false, true] {
            assert_eq!(told(lacks_segments, true), format!("{full}. {waits}\n"));
        }
    }

    #[test]
    fn a_full_disk_is_told_with_what_delayed_messages_hold_and_which_dead_letters_wait() {
        let told = |delayed, waiting_dead_letters| {
            let shard = ShardStats { full: true, delayed, waiting_dead_letters, ..ShardStats::default() };
            Health::judge(&Stats { shards: vec![shard], ..Stats::default() }, |id| id.to_string()).text()
        };
        let full = "ready\nshard 0: its disk is full; it answers reads and takes deletes";
        let left = Duration::from_secs(86_400 + 3 * 3_600 + 59);
        let some = DelayedStats { messages: 40, left, in_each_segment: false };
        let but = "which make room, but for segments that hold some of 40 delayed messages, the last of which is due in 1 d 3 h";
        assert_eq!(told(some, 0), format!("{full}, {but}\n"));
        let waits = "There wait for room: 1 dead letter";
        assert_eq!(told(some, 1), format!("{full}, {but}. {waits}\n"));
        assert_eq!(told(DelayedStats::default(), 1), format!("{full}, which make room. {waits}\n"));
        let one = DelayedStats { messages: 1, left: Duration::from_secs(61), in_each_segment: true };
        let none = "Deletes of records make no room now, for each segment of its journal holds some of 1 delayed message, the last of which is due in \
                    1 min 1 s: delete their exchange, or give the disk more space";
        assert_eq!(told(one, 0), format!("{full}. {none}\n"));
        assert_eq!(told(one, 12), format!("{full}. {none}. There wait for room: 12 dead letters\n"));
    }

    #[test]
    fn a_failed_shard_is_named() {
        let mut stats =
            Stats { shards: vec![ShardStats::default(), ShardStats::default()], ..Stats::default() };
        let health = Health::judge(&stats, |id| id.to_string());
        assert_eq!((health.code(), health.text()), (StatusCode::OK, "ready\n".into()));
        stats.shards[0].full = true;
        let health = Health::judge(&stats, |id| id.to_string());
        assert_eq!((health.code(), health.status), (StatusCode::OK, "ready"));
        assert!(health.text().starts_with("ready\nshard 0: its disk is full"), "{health:?}");
        stats.shards[1].shard = sabir_model::ShardId(1);
        stats.shards[1].stopped = true;
        let health = Health::judge(&stats, |id| id.to_string());
        assert_eq!((health.code(), health.status), (StatusCode::SERVICE_UNAVAILABLE, "failed"));
        assert!(health.text().starts_with("not ready: shard 1"), "{health:?}");
    }
}
