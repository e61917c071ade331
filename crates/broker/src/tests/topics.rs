//! Which callers may make and change which topics, and with which settings.

use std::sync::Arc;

use sabir_model::{FrontendNo, InvalidSetting, Namespace, Offset, TopicConfig, TopicError, TopicField};

use super::rig::{batch, checked, new_topic, open, options, soon, until};
use crate::{
    AppendAcks, AppendTarget, Broker, BrokerOptions, Caller, NewTopic, ReadTarget, ReservedTopic, SessionId,
    Topic,
};

static ONE: Caller = Caller::front_end("one");
static TWO: Caller = Caller::front_end("two");

async fn make(broker: &Broker, caller: &Caller, topic: NewTopic) -> Result<Arc<Topic>, TopicError> {
    soon(broker.create_topics(caller, vec![topic])).await.remove(0)
}

fn reopen(broker: Broker, options: BrokerOptions) -> Broker {
    broker.shutdown();
    drop(broker);
    open(options)
}

/// Everything that changes a topic, tried by that caller.
async fn try_all(broker: &Broker, caller: &Caller, topic: &Topic) -> Vec<Result<(), TopicError>> {
    let place = topic.partition(0).unwrap();
    let set = |config: &mut TopicConfig| {
        config.retention_ms = Some(config.retention_ms.unwrap_or(0) + 1);
        config.own(TopicField::RetentionMs);
        Ok::<(), TopicError>(())
    };
    let count = topic.partitions.len() as u32 + 1;
    vec![
        broker.check_change(caller, topic.id, set),
        soon(broker.change_topic(caller, topic.id, set)).await.map(drop),
        broker.check_new_partitions(caller, topic.id, count).map(drop),
        soon(broker.create_partitions(caller, topic.id, count)).await.map(drop),
        soon(broker.delete_records(caller, place.shard, place.id, Offset(-1))).await.map(drop),
        soon(broker.delete_topics(caller, vec![topic.id])).await.remove(0),
    ]
}

#[tokio::test]
async fn names_that_are_kept_for_a_front_ends_clients_are_given_by_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let of_clients = vec![ReservedTopic { name: "one.*", by: "one" }];
    let broker = open(BrokerOptions { of_clients, ..options(dir.path()) });
    for caller in [&Caller::OPERATOR, &TWO] {
        let refused = Err(TopicError::Reserved { name: "one.a".into(), by: "one" });
        assert_eq!(make(&broker, caller, new_topic("one.a", 1)).await.map(drop), refused);
    }
    let client = Caller::client("one", SessionId(7));
    for (caller, name) in [(&ONE, "one.a"), (&client, "one.b"), (&TWO, "one")] {
        make(&broker, caller, new_topic(name, 1)).await.unwrap();
    }
    broker.shutdown();
}

#[tokio::test]
async fn names_that_a_front_end_keeps_are_made_by_it_alone_and_changed_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let reserved =
        vec![ReservedTopic { name: "__kept", by: "one" }, ReservedTopic { name: "own.*", by: "one" }];
    let with = || BrokerOptions { reserved: reserved.clone(), ..options(dir.path()) };
    let mut broker = open(with());
    for name in ["__kept", "own.x"] {
        for (caller, internal) in
            [(&Caller::OPERATOR, false), (&Caller::OPERATOR, true), (&TWO, true), (&ONE, false)]
        {
            let wanted = NewTopic { internal, ..new_topic(name, 1) };
            let reserved = Err(TopicError::Reserved { name: name.into(), by: "one" });
            assert_eq!(broker.check_new_topic(caller, &wanted), reserved);
            assert_eq!(make(&broker, caller, wanted).await.map(drop), reserved);
        }
    }
    make(&broker, &TWO, new_topic("__kept_by_nobody", 1)).await.unwrap();
    make(&broker, &ONE, NewTopic { internal: true, ..new_topic("__kept", 1) }).await.unwrap();
    for again in [false, true] {
        if again {
            broker = reopen(broker, with());
        }
        let kept = broker.catalog().topic("__kept").cloned().unwrap();
        assert!(kept.internal);
        for caller in [&Caller::OPERATOR, &ONE, &TWO] {
            let refused = Err(TopicError::Internal("__kept".into()));
            assert_eq!(try_all(&broker, caller, &kept).await, vec![refused; 6]);
        }
    }
    broker.shutdown();
}

#[tokio::test]
async fn what_one_front_end_made_is_changed_by_it_and_by_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let its = make(&broker, &ONE, new_topic("its", 1)).await.unwrap();
    assert_eq!(try_all(&broker, &TWO, &its).await, vec![Err(TopicError::MadeElsewhere("its".into())); 6]);
    assert_eq!(try_all(&broker, &ONE, &its).await, vec![Ok(()); 6]);
    let its = make(&broker, &TWO, new_topic("its", 1)).await.unwrap();
    assert_eq!(try_all(&broker, &Caller::OPERATOR, &its).await, vec![Ok(()); 6]);
    let nobodys = make(&broker, &Caller::OPERATOR, new_topic("nobody's", 1)).await.unwrap();
    assert_eq!(try_all(&broker, &TWO, &nobodys).await, vec![Ok(()); 6]);
    broker.shutdown();
}

#[tokio::test]
async fn a_name_is_another_topic_s_in_another_namespace() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open(options(dir.path()));
    let other = ONE.clone().within(Namespace::named("other").unwrap());
    let here = make(&broker, &ONE, new_topic("t", 1)).await.unwrap();
    let there = make(&broker, &other, new_topic("t", 1)).await.unwrap();
    for again in [false, true] {
        if again {
            broker = reopen(broker, options(dir.path()));
        }
        let view = broker.catalog();
        let found = |caller| view.topic_of(caller, "t").unwrap().id;
        assert_eq!((found(&ONE), found(&other)), (here.id, there.id));
        assert_eq!(view.topics_of(&other).count(), 1);
        // What one does not see it does not change, whatever it guesses.
        assert_eq!(try_all(&broker, &other, &here).await, vec![Err(TopicError::Unknown); 6]);
        assert_eq!(try_all(&broker, &ONE, &there).await, vec![Err(TopicError::Unknown); 6]);
        assert!(AppendTarget::new(&other, &here, 0, AppendAcks::Leader, FrontendNo::NONE).is_err());
        assert!(ReadTarget::new(&other, &here, 0).is_err() && ReadTarget::new(&other, &there, 0).is_ok());
    }
    broker.shutdown();
}

#[tokio::test]
async fn names_of_topics_are_as_long_as_they_may_be_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = open(options(dir.path()));
    let (longest, longer) = ("ü".repeat(512), "x".repeat(1025));
    let made = make(&broker, &ONE, new_topic(&longest, 2)).await.unwrap();
    let refused = make(&broker, &ONE, new_topic(&longer, 1)).await;
    assert_eq!(refused.err(), Some(TopicError::InvalidName { most: 1024 }));
    assert_eq!(broker.catalog().name_bytes(), 1024);
    // The one replays what the other checkpoints.
    for _ in 0..2 {
        broker = reopen(broker, options(dir.path()));
        assert_eq!(broker.catalog().topic(&longest).map(|topic| topic.id), Some(made.id));
    }
    soon(broker.delete_topics(&ONE, vec![made.id])).await.remove(0).unwrap();
    assert_eq!(broker.catalog().name_bytes(), 0);
    broker.shutdown();
}

fn keeping(name: &str, bytes: usize) -> NewTopic {
    let mut config = TopicConfig::default();
    config.kept.set("list", &"x".repeat(bytes));
    NewTopic { config, ..new_topic(name, 1) }
}

#[tokio::test]
async fn settings_kept_by_name_take_so_much_memory_together_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let with = || BrokerOptions { settings_max: 100_000, ..options(dir.path()) };
    let mut broker = open(with());
    // All are on their way before one is there.
    let many = (0..50).map(|i| keeping(&format!("t{i}"), 9_900)).collect();
    let made = soon(broker.create_topics(&ONE, many)).await;
    let topics: Vec<_> = made.iter().flatten().cloned().collect();
    let refused = TopicError::TooManySettings { most: 100_000 };
    assert_eq!(topics.len(), 10);
    assert!(made[10..].iter().all(|made| made.as_ref().err() == Some(&refused)));
    assert_eq!(broker.stats().refused_settings, 40);
    for again in [false, true] {
        if again {
            broker = reopen(broker, with());
        }
        let stats = broker.stats();
        assert!((99_000..=100_000).contains(&stats.setting_bytes), "{}", stats.setting_bytes);
        let set = |bytes: usize| {
            move |config: &mut TopicConfig| {
                config.kept.set("list", &"y".repeat(bytes));
                Ok::<(), TopicError>(())
            }
        };
        let more = soon(broker.change_topic(&ONE, topics[0].id, set(20_000))).await;
        assert_eq!(more.err(), Some(refused.clone()));
        // What takes no more is changed all the same.
        soon(broker.change_topic(&ONE, topics[0].id, set(9_900))).await.unwrap();
        assert_eq!(make(&broker, &ONE, keeping("more", 9_900)).await.err(), Some(refused.clone()));
        make(&broker, &ONE, new_topic(&format!("none {again}"), 1)).await.unwrap();
    }
    soon(broker.delete_topics(&ONE, vec![topics[0].id])).await.remove(0).unwrap();
    make(&broker, &ONE, keeping("more", 9_900)).await.unwrap();
    broker.shutdown();
}

#[tokio::test]
async fn changes_of_different_settings_at_the_same_time_all_stand() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topic = make(&broker, &ONE, new_topic("t", 1)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..40 {
        let (broker, id) = (broker.clone(), topic.id);
        tasks.spawn(async move {
            let set = |config: &mut TopicConfig| {
                config.kept.set(&format!("setting {i}"), "here");
                Ok::<(), TopicError>(())
            };
            let caller = if i % 2 == 0 { ONE.clone() } else { Caller::OPERATOR };
            let changing = broker.change_topic(&caller, id, set);
            match i % 5 {
                // It is given up, once it is on its way.
                0 => drop(tokio::time::timeout(std::time::Duration::from_micros(1), changing).await),
                1 => drop(broker.create_partitions(&caller, id, 2 + i / 5).await),
                _ => drop(changing.await.unwrap()),
            }
        });
    }
    while let Some(done) = soon(tasks.join_next()).await {
        done.unwrap();
    }
    let shown = broker.catalog().topic("t").cloned().unwrap();
    for i in (0..40).filter(|i| i % 5 > 1) {
        assert!(shown.config.kept.get(&format!("setting {i}")).is_some(), "{i}: {:?}", shown.config.kept);
    }
    broker.shutdown();
}

#[tokio::test]
async fn a_setting_that_cannot_be_is_refused_whichever_way_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let topic = make(&broker, &ONE, new_topic("t", 1)).await.unwrap();
    let bad = TopicConfig { min_insync: 0, ..TopicConfig::default() };
    let by_field = |error: Option<&TopicError>| {
        let field = Some(TopicField::MinInsync);
        matches!(error, Some(TopicError::Setting(InvalidSetting { field: f, .. })) if *f == field)
    };
    let made = make(&broker, &ONE, NewTopic { config: bad.clone(), ..new_topic("u", 1) }).await;
    assert!(by_field(made.as_ref().err()));
    let set = |config: &mut TopicConfig| {
        config.min_insync = 0;
        config.own(TopicField::MinInsync);
        Ok::<(), TopicError>(())
    };
    assert!(by_field(soon(broker.change_topic(&Caller::OPERATOR, topic.id, set)).await.as_ref().err()));
    broker.shutdown();
    drop(broker);
    let refused = Broker::open(
        BrokerOptions { defaults: bad, ..options(dir.path()) },
        Arc::new(sabir_base::clock::SystemClock),
    );
    assert!(matches!(refused, Err(crate::StartError::Options(why)) if why.contains("min_insync")));
}

/// As large, and as small, as each number can be: nothing overflows where they are worked with, and they are there after a start.
#[tokio::test]
async fn the_largest_and_smallest_settings_are_lived_with() {
    let dir = tempfile::tempdir().unwrap();
    let quick =
        || BrokerOptions { retention_interval: std::time::Duration::from_millis(10), ..options(dir.path()) };
    let mut broker = open(quick());
    let largest = TopicConfig {
        retention_ms: Some(i64::MAX),
        retention_bytes: Some(i64::MAX),
        max_message_bytes: i32::MAX as u32,
        min_insync: u16::MAX,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        flush_ms: Some(i64::MAX),
        flush_messages: Some(i64::MAX),
        ..TopicConfig::default()
    };
    let smallest = TopicConfig {
        retention_ms: Some(0),
        retention_bytes: Some(0),
        max_message_bytes: 0,
        timestamp_before_max_ms: 0,
        timestamp_after_max_ms: 0,
        flush_ms: Some(0),
        flush_messages: Some(1),
        ..TopicConfig::default()
    };
    for (name, config) in [("largest", largest), ("smallest", smallest)] {
        let topic = make(&broker, &ONE, NewTopic { config, ..new_topic(name, 1) }).await.unwrap();
        for at in [0, 1, i64::MAX] {
            // No topic has as many replicas as the largest wants.
            let target =
                AppendTarget::new(&Caller::OPERATOR, &topic, 0, AppendAcks::Leader, FrontendNo::NONE)
                    .unwrap();
            let appending = broker.append(vec![target.append(checked(&topic, batch(&[b"x"], at))).unwrap()]);
            broker.flush();
            appending.await.remove(0).unwrap();
        }
    }
    for again in [false, true] {
        if again {
            broker = reopen(broker, quick());
        }
        let kept = |name: &str| {
            let topic = broker.catalog().topic(name).cloned().unwrap();
            let target = ReadTarget::new(&Caller::OPERATOR, &topic, 0).unwrap();
            let stats = broker.partition_stats(target).unwrap();
            stats.end.0 - stats.start.0
        };
        // What lies in the future is not old.
        until(|| kept("smallest") <= 1).await;
        assert_eq!(kept("largest"), 3);
        let largest = broker.catalog().topic("largest").cloned().unwrap();
        assert_eq!((largest.config.retention_ms, largest.config.flush_ms), (Some(i64::MAX), Some(i64::MAX)));
        assert!(largest.config.owns(TopicField::FlushMessages));
    }
    broker.shutdown();
}

#[tokio::test]
async fn many_topics_are_made_and_deleted_in_one_call_and_answered_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let named = |i: usize| new_topic(&format!("t{i}"), 1);
    // The first one once more, behind more than are made at a time.
    let all = (0..700).chain([0]).map(named).collect();
    let mut made = soon(broker.create_topics(&ONE, all)).await;
    assert_eq!(made.pop().unwrap().err(), Some(TopicError::Exists("t0".into())));
    let topics: Vec<Arc<Topic>> = made.into_iter().map(Result::unwrap).collect();
    assert!(topics.iter().enumerate().all(|(i, topic)| *topic.name == format!("t{i}")));
    assert_eq!(broker.catalog().len(), 700);
    let ids = topics.iter().chain(&topics[..1]).map(|topic| topic.id).collect();
    let mut gone = soon(broker.delete_topics(&ONE, ids)).await;
    assert_eq!(gone.pop().unwrap(), Err(TopicError::Unknown));
    assert!(gone.iter().all(Result::is_ok) && broker.catalog().is_empty());
}
