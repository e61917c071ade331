//! What a start and the housekeeping tell of in the log.

use std::sync::Arc;

use sabir_base::clock::ManualClock;
use sabir_base::testing::{keep_log, logged};

use super::rig::{create, new_topic, open, options, until};
use super::sim::{Machine, Seam};
use crate::{BrokerOptions, Caller};

#[test]
fn a_new_data_directory_is_announced_and_an_old_one_is_not() {
    keep_log();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display().to_string();
    for start in 1..=2 {
        open(BrokerOptions { data_shards: 2, ..options(dir.path()) }).shutdown();
        let lines = logged(&["making a new data directory", &path, "data_shards=2"]);
        assert_eq!(lines.len(), 1, "start {start}: {lines:?}");
    }
}

#[test]
fn another_number_of_data_shards_than_the_directorys_is_told() {
    keep_log();
    let dir = tempfile::tempdir().unwrap();
    // Numbers that no other test asks for.
    let start = |data_shards, data_shards_auto| {
        let broker = open(BrokerOptions { data_shards, data_shards_auto, ..options(dir.path()) });
        assert_eq!(broker.stats().shards.len(), 1 + 1, "the number is the directory's");
        broker.shutdown();
    };
    open(options(dir.path())).shutdown();
    start(571, false);
    let keeps = "the data directory keeps the number of data shards that it was made with";
    assert_eq!(logged(&["WARN", keeps, "configured=571 data_shards=1"]).len(), 1);
    start(572, true);
    assert_eq!(logged(&["INFO", keeps, "data_shards=1 suited=572"]).len(), 1, "nobody asked for it");
    let all = logged(&[keeps]).len();
    start(1, false);
    start(1, true);
    assert_eq!(logged(&[keeps]).len(), all, "there is nothing to tell");
}

/// What is there beyond the bound stops no start, which names the setting before it has loaded it.
#[tokio::test]
async fn more_partitions_than_may_be_made_are_served_and_the_setting_is_named() {
    keep_log();
    let dir = tempfile::tempdir().unwrap();
    // A number that no other test has.
    let most = |partitions_total_max| BrokerOptions {
        partitions_total_max,
        partitions_max: 100_000,
        ..options(dir.path())
    };
    let told = |held: usize| {
        let said = format!("held={held} most=3");
        logged(&["WARN", "more partitions than topic.max_total_partitions", &said]).len()
    };
    let broker = open(most(100_000));
    create(&broker, "one", 1).await;
    create(&broker, "many", 23_457).await;
    broker.shutdown();
    drop(broker);
    let broker = open(most(3));
    assert_eq!((told(23_458), broker.catalog().partitions()), (1, 23_458));
    assert!(broker.create_topics(&Caller::OPERATOR, vec![new_topic("more", 1)]).await.remove(0).is_err());
    let many = broker.catalog().topic("many").unwrap().id;
    broker.delete_topics(&Caller::OPERATOR, vec![many]).await.remove(0).unwrap();
    broker.shutdown();
    drop(broker);
    open(most(3)).shutdown();
    assert_eq!(told(1) + told(23_458), 1, "there is nothing to tell");
}

#[tokio::test]
async fn a_system_clock_that_jumps_is_told_of() {
    keep_log();
    // Of as many seconds as no other test jumps by.
    const JUMP: i64 = 23_456_789_000;
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let machine = Machine { clock: clock.clone(), ..Machine::new(21, 1, Seam::Solo) };
    let broker = machine.open();
    let told = [
        (JUMP, "the system clock has jumped ahead", "seconds=2345"),
        (-2 * JUMP, "the system clock was set back", "seconds=2345"),
    ];
    for (by, said, by_so_much) in told {
        clock.set_by(by);
        until(|| {
            clock.advance(50);
            !logged(&["WARN", said, by_so_much]).is_empty()
        })
        .await;
    }
    broker.shutdown();
}
