//! Changes that are larger than an entry: split where they can be, refused where not, and never the end of the process.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use sabir_journal::{LARGEST_ENTRY, Priority};
use sabir_model::{
    ErrorAbout, GroupError, InvalidSetting, LeaderEpoch, Offset, ShardFailure, TopicConfig, TopicError,
    TopicId,
};

use super::rig::{create, new_topic, open, options, soon};
use crate::answer::Answer;
use crate::entry::kind;
use crate::{
    Broker, Caller, ClientIdentity, Fence, GroupProtocol, JoinRequest, Joined, MAX_METADATA, OffsetCommit,
    SyncRequest, Text,
};

/// Every kind that there is, and some that may come.
const KINDS: RangeInclusive<u16> = kind::APPEND..=kind::FRONT_END + 49;

fn outside() -> Fence {
    Fence { generation: -1, member: Text::from(""), instance: None }
}

fn position(topic: u8, partition: i32, offset: i64, metadata: &Text) -> OffsetCommit {
    OffsetCommit {
        topic: TopicId([topic; 16]),
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(1),
        metadata: metadata.clone(),
    }
}

async fn commit(
    broker: &Broker,
    fence: Fence,
    offsets: Vec<OffsetCommit>,
) -> Vec<Result<(), ErrorAbout<GroupError>>> {
    soon(broker.groups(&Caller::OPERATOR).commit("g", fence, offsets)).await
}

#[tokio::test]
async fn no_kind_of_entry_is_pushed_beyond_what_a_block_takes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let shard = &broker.inner.shards[1];
    for kind in KINDS {
        for over in [1, 100, 2 << 20] {
            let body = vec![1; LARGEST_ENTRY + over];
            let answer = Answer::<Result<(), ShardFailure>>::default();
            let refused = shard.push(Priority::Reserve, kind, &body, Some(answer.waiter()));
            assert_eq!(refused.err().map(|(failure, _)| failure), Some(ShardFailure::TooLarge), "{kind}");
            let bodies = vec![(kind, vec![1], answer.waiter()), (kind, body, answer.waiter())];
            let refused = shard.push_together(Priority::Reserve, bodies);
            assert_eq!(refused, Err(ShardFailure::TooLarge), "{kind}");
        }
    }
    create(&broker, "t", 3).await;
    assert!(!shard.is_stopped());
    broker.shutdown();
}

#[tokio::test]
async fn the_largest_entry_that_is_taken_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let room = LARGEST_ENTRY - "g".len() - 32;
    for length in [room, room + 1, room + 40, room + 100] {
        let member = Text::from("m".repeat(length));
        let fence = Fence { member, ..outside() };
        let outcome = commit(&broker, fence, vec![position(1, 0, 5, &Text::from(""))]).await;
        assert!(
            outcome[0].is_ok() || outcome[0] == Err(GroupError::TooLarge.into()),
            "{length}: {outcome:?}"
        );
    }
    assert!(!broker.inner.shards[1].is_stopped());
    broker.shutdown();
}

#[tokio::test]
async fn a_commit_of_any_size_is_kept_whole_and_found_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let long = Text::from("x".repeat(MAX_METADATA));
    let none = Text::from("");
    let wide: Vec<_> = (0..300).map(|i| position(1, i, 7, &long)).collect();
    assert_eq!(commit(&broker, outside(), wide).await, vec![Ok(()); 300]);
    let many: Vec<_> = (0..80_000).map(|i| position(2, i, i.into(), &none)).collect();
    assert_eq!(commit(&broker, outside(), many).await, vec![Ok(()); 80_000]);
    broker.shutdown();
    drop(broker);

    let broker = open(options(dir.path()));
    let all = broker.groups(&Caller::OPERATOR).all_offsets("g");
    assert_eq!(all.len(), 80_300);
    assert!(all.iter().all(|((topic, i), kept)| topic.0[0] == 1 || kept.offset.0 == i64::from(*i)));
    let every: Vec<_> = all.iter().map(|(key, _)| *key).collect();
    assert_eq!(soon(broker.groups(&Caller::OPERATOR).delete_offsets("g", &every)).await, Ok(()));
    assert!(broker.groups(&Caller::OPERATOR).all_offsets("g").is_empty());
    broker.shutdown();
}

#[tokio::test]
async fn of_a_partition_named_many_times_the_last_position_counts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let (long, too_long) = (Text::from("x".repeat(MAX_METADATA)), Text::from("x".repeat(MAX_METADATA + 1)));
    let mut offsets: Vec<_> = (0..300).map(|i| position(1, 0, i, &long)).collect();
    offsets.insert(150, position(1, 0, 1000, &too_long));
    offsets.push(position(1, 1, 5, &long));
    let outcomes = commit(&broker, outside(), offsets).await;
    let refused: Vec<_> = outcomes.iter().filter(|outcome| outcome.is_err()).collect();
    assert_eq!((outcomes.len(), refused), (302, vec![&Err(GroupError::MetadataTooLarge.into())]));
    let kept: Vec<_> =
        broker.groups(&Caller::OPERATOR).all_offsets("g").iter().map(|(_, kept)| kept.offset.0).collect();
    assert_eq!(kept, [299, 5]);
    broker.shutdown();
}

#[tokio::test]
async fn a_commit_that_is_fenced_is_fenced_in_all_its_parts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let long = Text::from("x".repeat(MAX_METADATA));
    let stranger = Fence { generation: 3, member: Text::from("stranger"), instance: None };
    let wide: Vec<_> = (0..600).map(|i| position(1, i, 7, &long)).collect();
    let outcomes = commit(&broker, stranger.clone(), wide.clone()).await;
    assert_eq!(outcomes, vec![Err(GroupError::NotFound.into()); 600]);
    let huge = Fence { member: Text::from("m".repeat(2 << 20)), ..outside() };
    assert_eq!(commit(&broker, huge, wide.clone()).await, vec![Err(GroupError::TooLarge.into()); 600]);
    assert!(broker.groups(&Caller::OPERATOR).all_offsets("g").is_empty());
    assert_eq!(commit(&broker, outside(), wide).await, vec![Ok(()); 600]);
    broker.shutdown();
}

#[tokio::test]
async fn a_topic_that_no_entry_takes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    let mut config = TopicConfig::default();
    config.kept.set("follower.replication.throttled.replicas", &"0:1,".repeat(500_000));
    let large = crate::NewTopic { config: config.clone(), ..new_topic("large", 1) };
    let refused = broker.create_topics(&Caller::OPERATOR, vec![large, new_topic("t", 1)]).await;
    let too_much = |error: Option<&TopicError>| {
        matches!(error, Some(TopicError::Setting(InvalidSetting { field: None, .. })))
    };
    assert!(too_much(refused[0].as_ref().err()));
    let topic: Arc<crate::Topic> = refused[1].clone().unwrap();
    let change = |now: &mut TopicConfig| {
        *now = config.clone();
        Ok(())
    };
    let refused: Result<_, TopicError> = broker.change_topic(&Caller::OPERATOR, topic.id, change).await;
    assert!(too_much(refused.as_ref().err()));
    let many = new_topic("many", 1_500_000);
    let too_many =
        |name: &str| Some(TopicError::Partitions { name: name.into(), asked: 1_500_000, most: 10_000 });
    assert_eq!(broker.create_topics(&Caller::OPERATOR, vec![many]).await.remove(0).err(), too_many("many"));
    let refused = broker.create_partitions(&Caller::OPERATOR, topic.id, 1_500_000).await;
    assert_eq!(refused.err(), too_many(&topic.name));
    broker.shutdown();
    let mut options = options(dir.path());
    options.partitions_max = 1_500_000;
    assert!(matches!(
        Broker::open(options, Arc::new(sabir_base::clock::SystemClock)),
        Err(crate::StartError::Options(_))
    ));
}

#[tokio::test]
async fn all_topics_together_have_so_many_partitions_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.partitions_total_max = 20;
    let broker = open(options);
    // Those that one call makes are counted before any is there.
    let many = (0..30).map(|i| new_topic(&format!("t{i}"), 1)).collect();
    let made = broker.create_topics(&Caller::OPERATOR, many).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 20);
    let too_many = Some(TopicError::TooManyPartitions { most: 20 });
    assert_eq!(made[20].clone().err(), too_many);
    let topic = made[0].as_ref().unwrap();
    assert_eq!(broker.create_partitions(&Caller::OPERATOR, topic.id, 2).await.err(), too_many);
    broker.delete_topics(&Caller::OPERATOR, vec![made[1].as_ref().unwrap().id]).await.remove(0).unwrap();
    assert_eq!(broker.create_partitions(&Caller::OPERATOR, topic.id, 2).await.unwrap().partitions.len(), 2);
    let refused = broker.create_topics(&Caller::OPERATOR, vec![new_topic("u", 1)]).await.remove(0);
    assert_eq!(refused.err(), too_many);
    broker.shutdown();
}

#[tokio::test]
async fn the_most_partitions_of_a_topic_are_named_by_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.partitions_max = crate::BrokerOptions::MOST_PARTITIONS;
    options.data_shards = 2;
    let broker = open(options);
    let topic = create(&broker, "most", crate::BrokerOptions::MOST_PARTITIONS).await;
    assert_eq!(topic.partitions.len(), 400_000);
    broker.shutdown();
}

#[tokio::test]
async fn ids_given_out_and_not_used_are_bounded_by_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.groups.max_member_bytes = 8 << 20;
    let broker = open(options);
    let name = Text::from("n".repeat(30_000));
    let mut refused = std::collections::BTreeMap::new();
    for i in 0..200 {
        let request = newcomer(&name);
        let group = format!("g{}", i / 50);
        let error = soon(broker.groups(&Caller::OPERATOR).join(&group, request)).await.unwrap_err().error;
        *refused.entry(error.error.to_string()).or_insert(0) += 1;
    }
    // A group takes a megabyte of them; all groups together a quarter of what their members may, for which the oldest are forgotten.
    assert_eq!(refused, [(GroupError::MemberIdRequired.to_string(), 200)].into());
    let memory = broker.groups(&Caller::OPERATOR).member_memory();
    assert!((1 << 20..(2 << 20) + 40_000).contains(&memory.pending_bytes), "{memory:?}");
    broker.shutdown();
}

#[tokio::test]
async fn positions_take_what_they_may_and_those_that_are_there_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    // Of which one group takes a quarter.
    options.groups.max_offset_bytes = 400_000;
    let broker = open(options.clone());
    let (none, long) = (Text::from(""), Text::from("x".repeat(4000)));
    let first = vec![position(1, 0, 1, &none), position(1, 1, 1, &long)];
    assert_eq!(commit(&broker, outside(), first).await, [Ok(()), Ok(())]);
    let mut kept = 0;
    for i in 0..100 {
        kept += usize::from(commit(&broker, outside(), vec![position(2, i, 1, &long)]).await[0].is_ok());
    }
    assert!((20..25).contains(&kept), "{kept}");
    let each = |offset| vec![position(1, 0, offset, &none), position(1, 1, offset, &none)];
    let full = [Err(GroupError::MetadataTooLarge.into()), Err(GroupError::LimitReached.into())];
    let more = vec![position(1, 0, 2, &long), position(3, 0, 2, &none)];
    // What comes with the request counts, too.
    while commit(&broker, outside(), vec![position(4, kept as i32, 1, &none)]).await[0].is_ok() {
        kept += 1;
    }
    assert_eq!(commit(&broker, outside(), more.clone()).await, full);
    broker.shutdown();
    drop(broker);

    let broker = open(options);
    assert_eq!(commit(&broker, outside(), more.clone()).await, full, "it is counted after a restart, too");
    assert_eq!(commit(&broker, outside(), each(3)).await, [Ok(()), Ok(())]);
    let all: Vec<_> = broker.groups(&Caller::OPERATOR).all_offsets("g").iter().map(|(key, _)| *key).collect();
    assert_eq!(soon(broker.groups(&Caller::OPERATOR).delete_offsets("g", &all)).await, Ok(()));
    assert_eq!(commit(&broker, outside(), more).await, [Ok(()), Ok(())]);
    broker.shutdown();
}

/// Commits are begun one after another, and none is waited for before all are on their way.
#[tokio::test]
async fn commits_under_way_are_counted_before_they_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.groups.max_offset_bytes = 400_000;
    options.groups.max_groups = 30;
    let broker = open(options.clone());
    let (none, long) = (Text::from(""), Text::from("x".repeat(4000)));
    let begin = |group: &str, i: i32, text: &Text| {
        broker.groups(&Caller::OPERATOR).commit(group, outside(), vec![position(1, i, 1, text)])
    };
    // To one group, and to many.
    let one: Vec<_> = (0..300).map(|i| begin("g", i, &long)).collect();
    let mut taken = 0;
    for commit in one {
        taken += usize::from(soon(commit).await[0].is_ok());
    }
    assert!((15..=24).contains(&taken), "{taken}");
    let many: Vec<_> = (0..300).map(|i| begin(&format!("h{i}"), i, &none)).collect();
    let (mut taken, mut full) = (0, 0);
    for commit in many {
        match soon(commit).await.remove(0) {
            Ok(()) => taken += 1,
            Err(error) => full += usize::from(error.error == GroupError::LimitReached),
        }
    }
    assert!((20..=29).contains(&taken) && full > 200, "{taken} taken, {full} beyond the number of groups");
    assert!(broker.groups(&Caller::OPERATOR).count() <= 30);
    // What was under way is given back.
    let groups = broker.groups(&Caller::OPERATOR).list();
    for group in &groups {
        assert_eq!(soon(broker.groups(&Caller::OPERATOR).delete(&group.group.name)).await, Ok(()));
    }
    assert_eq!(soon(begin("new", 0, &long)).await, [Ok(())]);
    broker.shutdown();
}

#[tokio::test]
async fn groups_that_are_led_and_those_that_are_stored_are_counted_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.groups.max_groups = 10;
    let broker = open(options);
    let none = Text::from("");
    for i in 0..8 {
        let group = format!("stored {i}");
        assert_eq!(
            soon(broker.groups(&Caller::OPERATOR).commit(&group, outside(), vec![position(1, 0, 1, &none)]))
                .await,
            [Ok(())]
        );
    }
    let mut asked = Vec::new();
    for i in 0..10 {
        asked.push(
            soon(broker.groups(&Caller::OPERATOR).join(&format!("led {i}"), newcomer("x")))
                .await
                .unwrap_err()
                .error,
        );
    }
    let told = asked.iter().filter(|error| error.error == GroupError::MemberIdRequired).count();
    assert_eq!((told, &asked[9]), (2, &GroupError::LimitReached.into()));
    let over =
        soon(broker.groups(&Caller::OPERATOR).commit("one more", outside(), vec![position(1, 0, 1, &none)]))
            .await;
    assert_eq!(over, [Err(GroupError::LimitReached.into())]);
    broker.shutdown();
}

#[tokio::test]
async fn a_kind_of_groups_has_a_name_and_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(options(dir.path()));
    for (bytes, error) in [(256, GroupError::MemberIdRequired), (257, GroupError::InconsistentProtocol)] {
        let request = JoinRequest { protocol_type: Text::from("k".repeat(bytes)), ..newcomer("x") };
        assert_eq!(
            soon(broker.groups(&Caller::OPERATOR).join("g", request)).await.unwrap_err().error,
            error.into()
        );
    }
    broker.shutdown();
}

/// A dynamic member that has no id yet.
fn newcomer(client: &str) -> JoinRequest {
    JoinRequest {
        member: Text::from(""),
        instance: None,
        client: ClientIdentity { id: Text::from(client), host: Text::from("") },
        connection: 0,
        protocol_type: Text::from("consumer"),
        protocols: vec![GroupProtocol { name: Text::from("range"), metadata: Bytes::new() }],
        session_timeout_ms: 1_800_000,
        rebalance_timeout_ms: 6_000,
        id_required: true,
        may_skip_assignment: true,
    }
}

async fn join(broker: &Broker, metadata: usize) -> Result<Joined, ErrorAbout<GroupError>> {
    let metadata = Bytes::from(vec![b'm'; metadata]);
    let request = JoinRequest {
        member: Text::from(""),
        instance: Some(Text::from("i1")),
        client: ClientIdentity::default(),
        connection: 0,
        protocol_type: Text::from("consumer"),
        protocols: vec![GroupProtocol { name: Text::from("range"), metadata }],
        session_timeout_ms: 6_000,
        rebalance_timeout_ms: 6_000,
        id_required: false,
        may_skip_assignment: true,
    };
    soon(broker.groups(&Caller::OPERATOR).join("g", request)).await.map_err(|refused| refused.error)
}

#[tokio::test]
async fn a_static_member_whose_new_form_no_entry_takes_is_refused_and_the_group_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.groups.limits.initial_rebalance_delay_ms = 0;
    let broker = open(options);
    let joined = join(&broker, 10).await.unwrap();
    let fence = |joined: &Joined| Fence {
        generation: joined.generation,
        member: joined.member.clone(),
        instance: Some(Text::from("i1")),
    };
    let assignments = vec![(joined.member.clone(), Bytes::from(vec![b'a'; (1 << 20) - 1000]))];
    let sync = SyncRequest {
        fence: fence(&joined),
        protocol_type: None,
        protocol: None,
        assignments: assignments.clone(),
    };
    assert!(soon(broker.groups(&Caller::OPERATOR).sync("g", sync)).await.is_ok());

    assert_eq!(join(&broker, 250 << 10).await.err(), Some(GroupError::TooLarge.into()));
    let joined = join(&broker, 10).await.unwrap();
    let assignments = vec![(joined.member.clone(), Bytes::from_static(b"less"))];
    let sync = SyncRequest { fence: fence(&joined), protocol_type: None, protocol: None, assignments };
    assert!(soon(broker.groups(&Caller::OPERATOR).sync("g", sync)).await.is_ok());
    broker.shutdown();
}
