//! A system clock that jumps, and what records are stamped and deleted by.

use std::sync::Arc;
use std::time::Duration;

use sabir_base::clock::{Clock, ManualClock};
use sabir_base::testing::{keep_log, logged};
use sabir_model::{QueueConfig, TimestampType, TopicConfig};

use super::lag::commit;
use super::rig::{append, batch, new_topic, produced, until};
use super::sim::{Machine, Seam};
use crate::queue::QueueTarget;
use crate::{Broker, BrokerOptions, Caller, NewTopic, OffsetSpec, ReadTarget, Topic};

const DAY: i64 = 24 * 3600 * 1000;
const YEAR: i64 = 365 * DAY;
/// Some day in 2027.
const NOW: i64 = 1_800_000_000_000;

/// A machine whose clock shows that day, and a broker on it that looks for old records all the time.
fn machine(seed: u64) -> Machine {
    Machine { clock: Arc::new(ManualClock::at(NOW)), ..Machine::new(seed, 1, Seam::Solo) }
}

fn open(machine: &Machine) -> Broker {
    let options = BrokerOptions { retention_interval: Duration::from_millis(10), ..machine.options() };
    machine.try_open(options).unwrap()
}

/// A topic with the broker's stamps, and one with the producers', both for seven days.
async fn topics(broker: &Broker) -> [Arc<Topic>; 2] {
    let week = TopicConfig { retention_ms: Some(7 * DAY), ..TopicConfig::default() };
    let stamped = TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..week.clone() };
    let new = [("stamped", stamped), ("week", week)];
    let new = new.map(|(name, config)| NewTopic { config, ..new_topic(name, 1) });
    let made: Vec<_> =
        broker.create_topics(&Caller::OPERATOR, new.into()).await.into_iter().map(Result::unwrap).collect();
    made.try_into().unwrap()
}

async fn stamp(broker: &Broker, topic: &Topic) -> i64 {
    append(broker, topic, 0, batch(&[b"x"], 5)).await.unwrap().append_time_ms
}

fn start(broker: &Broker, topic: &Topic) -> i64 {
    let target = ReadTarget::new(&Caller::OPERATOR, topic, 0).unwrap();
    broker.partition_stats(target).unwrap().start.0
}

/// Lets time pass, in steps that the broker's threads have seen.
async fn pass(machine: &Machine, broker: &Broker, ms: i64) {
    for _ in 0..ms / 500 {
        machine.clock.advance(500);
        let clock = &broker.inner.clock;
        let (wall, before) = (machine.clock.now_ms(), clock.ticks());
        until(|| clock.ticks() > before + 1).await;
        assert_eq!(machine.clock.now_ms(), wall);
    }
}

#[tokio::test]
async fn four_seconds_a_year_ahead_stamp_nothing_wrong_and_delete_nothing() {
    let machine = machine(1);
    let broker = open(&machine);
    let [stamped, week] = topics(&broker).await;
    append(&broker, &week, 0, batch(&[b"x"], NOW)).await.unwrap();
    assert_eq!(stamp(&broker, &stamped).await, NOW);
    machine.clock.set_by(YEAR);
    for _ in 0..4 {
        pass(&machine, &broker, 1_000).await;
        let stamp = stamp(&broker, &stamped).await;
        assert!((NOW..=NOW + 8_000).contains(&stamp), "{stamp}");
        assert!(broker.stats().clock_ahead_ms > YEAR - 10_000);
        assert_eq!(broker.wall_ms(), machine.clock.now_ms(), "what producers' clocks are compared with");
    }
    machine.clock.set_by(-YEAR);
    pass(&machine, &broker, 9_000).await;
    assert_eq!(stamp(&broker, &stamped).await, NOW + 13_000, "the right time again");
    assert_eq!(broker.stats().clock_ahead_ms, 0);
    assert_eq!((start(&broker, &stamped), start(&broker, &week)), (0, 0), "nothing was deleted");
    machine.clock.advance(8 * DAY);
    until(|| start(&broker, &stamped) == 6 && start(&broker, &week) == 1).await;
    broker.shutdown();
}

#[tokio::test]
async fn a_clock_that_is_set_back_for_seconds_lowers_no_stamp_and_deletes_nothing() {
    let machine = machine(2);
    let broker = open(&machine);
    let [stamped, _] = topics(&broker).await;
    let before = stamp(&broker, &stamped).await;
    machine.clock.set_by(-YEAR);
    pass(&machine, &broker, 4_000).await;
    let after = stamp(&broker, &stamped).await;
    assert!((before..=before + 4_000).contains(&after), "{after}");
    machine.clock.set_by(YEAR);
    pass(&machine, &broker, 4_000).await;
    assert_eq!(stamp(&broker, &stamped).await, NOW + 8_000);
    broker.shutdown();
}

/// Stops the broker and cuts the power; what `meanwhile` does to the clock happens while it is off.
fn restart(machine: Machine, broker: Broker, meanwhile: impl Fn(&ManualClock)) -> (Machine, Broker) {
    broker.shutdown();
    let machine = machine.crash(broker);
    meanwhile(&machine.clock);
    let broker = open(&machine);
    (machine, broker)
}

/// Off for a week is a week, whether the machine tells how long it was or only its wall clock does.
#[tokio::test]
async fn a_week_off_is_believed_and_deletes_nothing_at_once() {
    for (another_boot, wait) in [(false, 600_000), (true, DAY)] {
        let machine = machine(3);
        let broker = open(&machine);
        let [stamped, week] = topics(&broker).await;
        append(&broker, &week, 0, batch(&[b"x"], NOW)).await.unwrap();
        let (machine, broker) = restart(machine, broker, |clock| {
            clock.advance(8 * DAY);
            another_boot.then(|| clock.boot_again());
        });
        assert_eq!(stamp(&broker, &stamped).await, NOW + 8 * DAY);
        pass(&machine, &broker, 2_000).await;
        assert_eq!(start(&broker, &week), 0, "what is too old now waits, in case the clock is wrong");
        machine.clock.advance(wait);
        until(|| start(&broker, &week) == 1).await;
        broker.shutdown();
    }
}

#[tokio::test]
async fn a_start_that_finds_the_clock_jumped_believes_it_not() {
    for (jump, another_boot) in [(60 * DAY, false), (YEAR, false), (YEAR, true)] {
        let machine = machine(4);
        let broker = open(&machine);
        let [stamped, week] = topics(&broker).await;
        append(&broker, &week, 0, batch(&[b"x"], NOW)).await.unwrap();
        let last = stamp(&broker, &stamped).await;
        let (machine, broker) = restart(machine, broker, |clock| {
            clock.set_by(jump);
            another_boot.then(|| clock.boot_again());
        });
        pass(&machine, &broker, 2_000).await;
        let wrong = stamp(&broker, &stamped).await;
        assert!((last..=last + 10_000).contains(&wrong), "{jump}: {} ms late", wrong - last);
        machine.clock.set_by(-jump);
        pass(&machine, &broker, 6_000).await;
        let right = stamp(&broker, &stamped).await;
        assert!((right - machine.clock.now_ms()).abs() <= 2_000, "{right}");
        assert_eq!((start(&broker, &stamped), start(&broker, &week)), (0, 0));
        broker.shutdown();
    }
}

/// A machine that boots with a clock that is two months ahead: it may have been off for so long. Put right, the broker has the right
/// time at once, whatever restarts, and stamps records with it; block times stand.
#[tokio::test]
async fn a_start_under_a_clock_that_is_months_ahead_finds_back() {
    let machine = machine(5);
    let broker = open(&machine);
    let [stamped, week] = topics(&broker).await;
    append(&broker, &week, 0, batch(&[b"x"], NOW)).await.unwrap();
    let (machine, broker) = restart(machine, broker, |clock| {
        clock.boot_again();
        clock.set_by(60 * DAY);
    });
    assert_eq!(stamp(&broker, &stamped).await, NOW + 60 * DAY);
    pass(&machine, &broker, 2_000).await;
    machine.clock.set_by(-60 * DAY);
    machine.clock.set_synchronised(true);
    pass(&machine, &broker, 2_000).await;
    assert_eq!((broker.now_ms(), broker.stats().clock_ahead_ms), (machine.clock.now_ms(), 0));
    assert_eq!(stamp(&broker, &stamped).await, machine.clock.now_ms());
    assert!(broker.stats().stamps_ahead_ms > 59 * DAY);
    let (mut machine, mut broker) = (machine, broker);
    for another_boot in [false, true] {
        (machine, broker) = restart(machine, broker, |clock| {
            clock.set_synchronised(false);
            clock.advance(60_000);
            another_boot.then(|| clock.boot_again());
        });
        assert_eq!(broker.now_ms(), machine.clock.now_ms(), "the right time is not forgotten");
        assert_eq!(stamp(&broker, &stamped).await, machine.clock.now_ms());
        assert!(broker.stats().stamps_ahead_ms > 59 * DAY, "block times stand");
    }
    assert_eq!((start(&broker, &stamped), start(&broker, &week)), (0, 0), "nothing was deleted");
    machine.clock.advance(61 * DAY);
    pass(&machine, &broker, 1_000).await;
    assert_eq!(stamp(&broker, &stamped).await, machine.clock.now_ms());
    broker.shutdown();
}

/// A machine whose clock is as wrong at each start: what the first one wrote down under it does not make it true for the next.
#[tokio::test]
async fn short_starts_under_the_same_wrong_clock_delete_nothing() {
    for jump in [8 * DAY, 60 * DAY, 89 * DAY, 91 * DAY] {
        let machine = machine(6);
        let broker = open(&machine);
        let [stamped, week] = topics(&broker).await;
        append(&broker, &week, 0, batch(&[b"x"], NOW)).await.unwrap();
        stamp(&broker, &stamped).await;
        let (mut machine, mut broker) = restart(machine, broker, |clock| {
            clock.boot_again();
            clock.set_by(jump);
        });
        for kill in [true, false, true, false] {
            stamp(&broker, &stamped).await;
            pass(&machine, &broker, 3_000).await;
            if kill {
                machine = machine.crash(broker);
                machine.clock.boot_again();
                broker = open(&machine);
            } else {
                (machine, broker) = restart(machine, broker, ManualClock::boot_again);
            }
        }
        pass(&machine, &broker, 4_000).await;
        assert_eq!((start(&broker, &stamped), start(&broker, &week)), (0, 0), "{jump}");
        machine.clock.set_by(-jump);
        machine.clock.set_synchronised(true);
        let (machine, broker) = restart(machine, broker, ManualClock::boot_again);
        assert_eq!(stamp(&broker, &stamped).await, machine.clock.now_ms(), "the right time at once");
        pass(&machine, &broker, 1_000).await;
        assert_eq!((start(&broker, &stamped), start(&broker, &week)), (0, 0));
        broker.shutdown();
    }
}

/// Lets minutes pass by both clocks at once; the broker's threads have seen it, and retention has looked.
async fn pass_minutes(machine: &Machine, broker: &Broker, minutes: i64) {
    machine.clock.advance(minutes * 60_000 - 1_000);
    pass(machine, broker, 1_000).await;
}

/// However often the clock is looked at: one line when it jumps, which says what is done, and one when it is taken over.
#[tokio::test]
async fn a_clock_that_jumps_ahead_is_told_of_in_one_line_that_says_what_is_done() {
    keep_log();
    // Of about as many seconds as no other test jumps by, less those that the time gains meanwhile.
    const JUMP: i64 = 34_567_890_000;
    let told = || logged(&["WARN", "seconds=34567"]);
    let machine = machine(11);
    let broker = open(&machine);
    pass(&machine, &broker, 1_000).await;
    assert!(told().is_empty());
    machine.clock.set_by(JUMP);
    for _ in 0..9 {
        pass_minutes(&machine, &broker, 1).await;
        let lines = told();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let done = [
            "the system clock has jumped ahead: the broker's time does not follow, but runs at most twice as fast",
            "it is taken over when it has gone on so for ten minutes",
            "Nothing is deleted early",
        ];
        assert!(done.iter().all(|done| lines[0].contains(done)), "{lines:?}");
    }
    for _ in 0..4 {
        pass_minutes(&machine, &broker, 1).await;
    }
    let lines = told();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains("the broker's time has stepped ahead to the system clock"), "{lines:?}");
    assert_eq!(broker.stats().clock_ahead_ms, 0);
    broker.shutdown();
}

/// A clock that is hours ahead may be true, as the machine may have been off; each start gives an operator who sees it ten minutes of its own.
#[tokio::test]
async fn starts_under_a_clock_that_is_hours_ahead_delete_nothing_before_ten_minutes_of_their_own() {
    let hours = 20 * 3_600_000;
    for (another_boot, kill) in [(false, false), (false, true), (true, false), (true, true)] {
        let machine = machine(10);
        let broker = open(&machine);
        let config = TopicConfig { retention_ms: Some(3_600_000), ..TopicConfig::default() };
        let stamped = TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..config.clone() };
        let new = [("hour", config), ("stamped", stamped)];
        let new = new.map(|(name, config)| NewTopic { config, ..new_topic(name, 1) });
        let made = broker.create_topics(&Caller::OPERATOR, new.into()).await;
        let [hour, stamped]: [_; 2] =
            made.into_iter().map(Result::unwrap).collect::<Vec<_>>().try_into().unwrap();
        append(&broker, &hour, 0, batch(&[b"x"], NOW)).await.unwrap();
        stamp(&broker, &stamped).await;
        let (mut machine, mut broker) = restart(machine, broker, |clock| {
            clock.boot_again();
            clock.set_by(hours);
        });
        for minutes in [1, 5, 9] {
            pass_minutes(&machine, &broker, minutes).await;
            assert_eq!(stamp(&broker, &stamped).await, machine.clock.now_ms(), "stamps are as it shows");
            assert_eq!((start(&broker, &hour), start(&broker, &stamped)), (0, 0), "{another_boot} {kill}");
            if kill {
                machine = machine.crash(broker);
                another_boot.then(|| machine.clock.boot_again());
                broker = open(&machine);
            } else {
                (machine, broker) = restart(machine, broker, |clock| {
                    another_boot.then(|| clock.boot_again());
                });
            }
        }
        pass_minutes(&machine, &broker, 9).await;
        assert_eq!((start(&broker, &hour), start(&broker, &stamped)), (0, 0), "{another_boot} {kill}");
        pass_minutes(&machine, &broker, 2).await;
        until(|| start(&broker, &hour) == 1 && start(&broker, &stamped) == 1).await;
        broker.shutdown();
    }
}

/// Stamps that go back with the time are found by time as those of producers are.
#[tokio::test]
async fn records_stamped_after_the_time_went_back_are_found_by_time() {
    let machine = machine(7);
    let broker = open(&machine);
    let [stamped, _] = topics(&broker).await;
    let first = stamp(&broker, &stamped).await;
    let (machine, broker) = restart(machine, broker, |clock| {
        clock.boot_again();
        clock.set_by(60 * DAY);
    });
    let ahead = stamp(&broker, &stamped).await;
    machine.clock.set_by(-60 * DAY);
    machine.clock.set_synchronised(true);
    pass(&machine, &broker, 1_000).await;
    let back = stamp(&broker, &stamped).await;
    assert!(first < back && back < ahead, "{first} {back} {ahead}");
    let partition = stamped.partition(0).unwrap();
    for (at, offset) in [(first, 0), (first + 1, 1), (back, 1), (ahead, 1)] {
        let spec = OffsetSpec::Timestamp(at);
        let found = broker.offsets(ReadTarget::of(partition), spec).await.unwrap();
        assert_eq!(found.offset.0, offset, "{at}");
    }
    broker.shutdown();
}

/// Looks for idle producers and groups as for those that are kept for a day and a week.
async fn expire(machine: &Machine, broker: &Broker) {
    let idle_since = broker.inner.clock.age_limits().since_ms(DAY);
    broker.inner.shards.iter().for_each(|shard| shard.expire_producers(idle_since));
    broker.inner.groups.housekeep(&|_| true);
    pass(machine, broker, 1_000).await;
}

fn committed(broker: &Broker, topic: &Topic) -> Option<i64> {
    broker.groups(&Caller::OPERATOR).fetch_offsets("g", &[(topic.id, 0)])[0]
        .as_ref()
        .map(|committed| committed.offset.0)
}

/// A virtual machine that was paused for ten days: its monotonic clock stood, and what is done until the restart has stamps of before.
#[tokio::test]
async fn what_is_fresh_outlives_the_restart_after_a_pause_records_offsets_and_producers() {
    for another_boot in [false, true] {
        let machine = machine(8);
        machine.clock.set_synchronised(true);
        let broker = open(&machine);
        let [stamped, _] = topics(&broker).await;
        let producer = broker.allocate_producer_id(&Caller::OPERATOR).await.unwrap().0;
        machine.clock.set_by(10 * DAY);
        pass(&machine, &broker, 1_000).await;
        assert!(stamp(&broker, &stamped).await < NOW + 10_000);
        append(&broker, &stamped, 0, produced(&[b"y"], producer, 0, 0)).await.unwrap();
        commit(&broker, "g", &stamped, &[(0, 1)]).await;
        let (machine, broker) = restart(machine, broker, |clock| {
            another_boot.then(|| clock.boot_again());
        });
        assert_eq!(broker.now_ms(), machine.clock.now_ms(), "the start takes the right time");
        machine.clock.advance(11 * 60_000);
        pass(&machine, &broker, 1_000).await;
        machine.clock.advance(11 * 60_000);
        pass(&machine, &broker, 1_000).await;
        expire(&machine, &broker).await;
        assert_eq!((start(&broker, &stamped), committed(&broker, &stamped)), (0, Some(1)));
        let again = append(&broker, &stamped, 0, produced(&[b"y"], producer, 0, 0)).await.unwrap();
        assert_eq!((again.base_offset.0, again.duplicate), (1, true));
        machine.clock.advance(8 * DAY);
        until(|| start(&broker, &stamped) == 2).await;
        expire(&machine, &broker).await;
        assert_eq!(committed(&broker, &stamped), None, "and goes when it is old");
        broker.shutdown();
    }
}

#[tokio::test]
async fn seconds_of_a_synchronised_clock_that_is_days_behind_are_in_no_stamp() {
    let machine = machine(9);
    machine.clock.set_synchronised(true);
    let broker = open(&machine);
    let [stamped, _] = topics(&broker).await;
    machine.clock.set_by(-9 * DAY);
    pass(&machine, &broker, 5_000).await;
    assert!(stamp(&broker, &stamped).await >= NOW);
    machine.clock.set_by(9 * DAY);
    pass(&machine, &broker, 1_000).await;
    assert_eq!(stamp(&broker, &stamped).await, machine.clock.now_ms());
    let (machine, broker) = restart(machine, broker, |_| {});
    machine.clock.advance(11 * 60_000);
    pass(&machine, &broker, 1_000).await;
    assert_eq!(stamp(&broker, &stamped).await, machine.clock.now_ms());
    assert_eq!(start(&broker, &stamped), 0);
    broker.shutdown();
}

/// What a queue says of how long messages live holds by the node's time, also while block times stand, and after a start.
#[tokio::test]
async fn times_to_live_of_queues_do_not_stand_still_with_block_times() {
    let machine = machine(7);
    let broker = open(&machine);
    let [stamped, _] = topics(&broker).await;
    let (machine, broker) = restart(machine, broker, |clock| {
        clock.boot_again();
        clock.set_by(60 * DAY);
    });
    let config = TopicConfig::of_queue(QueueConfig { message_ttl_ms: Some(4_000), ..QueueConfig::default() });
    let made = NewTopic { name: "q".into(), partitions: 1, config, internal: false, unlike: false };
    let queue = broker.create_topics(&Caller::OPERATOR, vec![made]).await.remove(0).unwrap();
    stamp(&broker, &stamped).await;
    machine.clock.set_by(-60 * DAY);
    machine.clock.set_synchronised(true);
    pass(&machine, &broker, 2_000).await;
    append(&broker, &queue, 0, batch(&[b"x", b"y"], -1)).await.unwrap();
    assert!(broker.stats().stamps_ahead_ms > 59 * DAY, "block times stand");
    let waiting = |broker: &Broker| {
        broker.queues().stats(QueueTarget::new(&Caller::OPERATOR, &queue).unwrap()).unwrap().ready
    };
    assert_eq!(waiting(&broker), 2);
    machine.agrees_with_replay(&broker);
    let (machine, broker) = restart(machine, broker, |_| ());
    append(&broker, &queue, 0, batch(&[b"z"], -1)).await.unwrap();
    assert_eq!(waiting(&broker), 3);
    for _ in 0..100 {
        pass(&machine, &broker, 1_000).await;
        if waiting(&broker) == 0 {
            break;
        }
    }
    assert_eq!(waiting(&broker), 0, "all have expired");
    broker.shutdown();
}
