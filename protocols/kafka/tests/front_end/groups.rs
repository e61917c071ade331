//! Consumer groups on the wire. How they behave is tested where they are decided.

use bytes::Bytes;
use sabir_broker::Caller;
use sabir_broker::testing::retire_groups;
use sabir_kafka::wire::messages::delete_groups::DeleteGroupsRequest;
use sabir_kafka::wire::messages::describe_groups::DescribeGroupsRequest;
use sabir_kafka::wire::messages::find_coordinator::FindCoordinatorRequest;
use sabir_kafka::wire::messages::heartbeat::HeartbeatRequest;
use sabir_kafka::wire::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use sabir_kafka::wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use sabir_kafka::wire::messages::list_groups::ListGroupsRequest;
use sabir_kafka::wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sabir_kafka::wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use sabir_kafka::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};
use sabir_kafka::wire::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};
use sabir_kafka::wire::{ErrorCode, Str};
use sabir_model::{GroupError, ShardFailure};

use crate::rig::{Raw, Rig, Setup, assert_code};

/// A consumer's subscription to `t`.
const SUBSCRIPTION: &[u8] = b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\0";

fn join_request(member: &Str, instance: Option<&str>) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(SUBSCRIPTION) };
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.clone(),
        group_instance_id: instance.map(Into::into),
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        reason: None,
    }
}

/// Joins, coming back with the id that the broker gives.
async fn join(raw: &mut Raw, version: i16, instance: Option<&str>) -> JoinGroupResponse {
    let first = raw.call(version, &join_request(&Str::default(), instance)).await;
    if version < 4 || instance.is_some() {
        return first;
    }
    assert_code(first.error_code, ErrorCode::MemberIdRequired);
    raw.call(version, &join_request(&first.member_id, instance)).await
}

async fn sync(raw: &mut Raw, version: i16, joined: &JoinGroupResponse, give: &[u8]) -> SyncGroupResponse {
    let assignment =
        |m: &sabir_kafka::wire::messages::join_group::JoinGroupResponseMember| SyncGroupRequestAssignment {
            member_id: m.member_id.clone(),
            assignment: Bytes::copy_from_slice(give),
        };
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: joined.members.iter().map(assignment).collect(),
        ..Default::default()
    };
    raw.call(version, &request).await
}

fn heartbeat(joined: &JoinGroupResponse, instance: Option<&str>) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: instance.map(Into::into),
    }
}

#[tokio::test]
async fn the_coordinator_is_here() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    for version in 0..=3 {
        let found =
            raw.call(version, &FindCoordinatorRequest { key: "g".into(), ..Default::default() }).await;
        assert_eq!((found.error_code, found.node_id, found.port), (0, 1, rig.address.port().into()));
    }
    for version in 4..=6 {
        let keys = vec!["g".into(), "".into()];
        let request = FindCoordinatorRequest { coordinator_keys: keys, ..Default::default() };
        let found = raw.call(version, &request).await.coordinators;
        assert_eq!((found[0].error_code, found[0].node_id, found[0].key.as_str()), (0, 1, "g"));
        assert_eq!((found[1].error_code, found[1].node_id, found[1].key.as_str()), (0, 1, ""));
    }
    for (key_type, expected) in [(1, ErrorCode::ClusterAuthorizationFailed), (2, ErrorCode::InvalidRequest)] {
        let request =
            FindCoordinatorRequest { key_type, coordinator_keys: vec!["x".into()], ..Default::default() };
        assert_code(raw.ask(&request).await.coordinators[0].error_code, expected);
    }
}

#[tokio::test]
async fn a_member_joins_syncs_beats_and_leaves_in_every_version() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    for version in 0..=9 {
        let joined = join(&mut raw, version, None).await;
        assert_eq!((joined.error_code, joined.protocol_name.as_deref()), (0, Some("range")), "{version}");
        assert_eq!((&joined.leader, joined.members.len()), (&joined.member_id, 1));
        assert_eq!(&joined.members[0].metadata[..], SUBSCRIPTION);
        let synced = sync(&mut raw, version.min(5), &joined, b"yours").await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"yours"[..]));
        let beat = raw.call(version.min(4), &heartbeat(&joined, None)).await;
        assert_eq!(beat.error_code, 0);
        let member = MemberIdentity { member_id: joined.member_id.clone(), ..Default::default() };
        let leave = LeaveGroupRequest {
            group_id: "g".into(),
            member_id: joined.member_id.clone(),
            members: vec![member],
        };
        let left = raw.call(version.min(5), &leave).await;
        assert_eq!(left.error_code, 0);
        assert_eq!(left.members.len(), usize::from(version >= 3));
        assert_code(
            raw.call(version.min(4), &heartbeat(&joined, None)).await.error_code,
            ErrorCode::UnknownMemberId,
        );
        let again = raw.call(version.min(5), &leave).await;
        let code = if version < 3 { again.error_code } else { again.members[0].error_code };
        assert_code(code, ErrorCode::UnknownMemberId);
    }
}

#[tokio::test]
async fn a_static_member_keeps_its_place_and_the_one_before_it_is_fenced() {
    let rig = Rig::start();
    let (mut old, mut new) = (rig.raw().await, rig.raw().await);
    let first = join(&mut old, 5, Some("i1")).await;
    assert_eq!(first.error_code, 0);
    assert_eq!(sync(&mut old, 3, &first, b"yours").await.error_code, 0);

    let second = join(&mut new, 5, Some("i1")).await;
    assert_eq!((second.error_code, second.generation_id), (0, first.generation_id), "no rebalance");
    assert_ne!(second.member_id, first.member_id);
    let kept = sync(&mut new, 3, &JoinGroupResponse { members: vec![], ..second.clone() }, b"").await;
    assert_eq!((kept.error_code, &kept.assignment[..]), (0, &b"yours"[..]));
    let fenced = old.call(4, &heartbeat(&first, Some("i1"))).await;
    assert_code(fenced.error_code, ErrorCode::FencedInstanceId);
    assert_eq!(new.call(4, &heartbeat(&second, Some("i1"))).await.error_code, 0);

    let by_instance = MemberIdentity { group_instance_id: Some("i1".into()), ..Default::default() };
    let leave = LeaveGroupRequest { group_id: "g".into(), members: vec![by_instance], ..Default::default() };
    let left = new.ask(&leave).await;
    assert_eq!((left.error_code, left.members[0].error_code), (0, 0));
}

#[tokio::test]
async fn a_second_member_makes_the_first_join_again() {
    let rig = Rig::start();
    let (mut a, mut b) = (rig.raw().await, rig.raw().await);
    let first = join(&mut a, 9, None).await;
    sync(&mut a, 5, &first, b"all").await;
    let asked = b.call(9, &join_request(&Str::default(), None)).await;
    let waiting = b.send(9, &join_request(&asked.member_id, None)).await;
    let told = loop {
        let beat = a.call(4, &heartbeat(&first, None)).await.error_code;
        if beat != 0 {
            break beat;
        }
    };
    assert_code(told, ErrorCode::RebalanceInProgress);
    let again = a.call(9, &join_request(&first.member_id, None)).await;
    let joined = b.receive::<JoinGroupRequest>(9, waiting).await;
    assert_eq!((again.generation_id, joined.generation_id), (2, 2));
    let (leader, follower) =
        if again.leader == again.member_id { (&again, &joined) } else { (&joined, &again) };
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
}

async fn committed_group(raw: &mut Raw) {
    raw.topic("t", 2).await;
    let partition = |i| OffsetCommitRequestPartition {
        partition_index: i,
        committed_offset: 5,
        committed_leader_epoch: 1,
        committed_metadata: Some("note".into()),
    };
    let topic = |name: &str, partitions| OffsetCommitRequestTopic {
        name: name.into(),
        partitions,
        ..Default::default()
    };
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![
            topic("t", vec![partition(0), partition(1), partition(9)]),
            topic("no", vec![partition(0)]),
        ],
        ..Default::default()
    };
    let response = raw.call(9, &request).await;
    let codes: Vec<_> =
        response.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(codes, [0, 0, unknown, unknown]);
}

#[tokio::test]
async fn all_offsets_of_a_group_are_listed() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    committed_group(&mut raw).await;
    for version in 2..=7 {
        let request = OffsetFetchRequest { group_id: "g".into(), topics: None, ..Default::default() };
        let response = raw.call(version, &request).await;
        assert_eq!((response.error_code, response.topics.len()), (0, 1), "{version}");
        let offsets: Vec<_> = response.topics[0].partitions.iter().map(|p| p.committed_offset).collect();
        assert_eq!((response.topics[0].name.as_str(), offsets), ("t", vec![5, 5]));
    }
    let group = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let nobody = OffsetFetchRequestGroup { group_id: "nobody".into(), ..group.clone() };
    let request = OffsetFetchRequest { groups: vec![group, nobody], ..Default::default() };
    let response = raw.call(9, &request).await;
    assert_eq!((response.groups[0].topics.len(), response.groups[1].topics.len()), (1, 0));
    let partition = &response.groups[0].topics[0].partitions[1];
    assert_eq!((partition.committed_leader_epoch, partition.metadata.as_deref()), (1, Some("note")));
}

#[tokio::test]
async fn a_partition_that_a_commit_names_often_counts_once() {
    let options = |options: &mut sabir_broker::BrokerOptions| options.groups.max_offset_bytes = 40_000;
    let rig = Rig::with(Setup { options, ..Setup::default() });
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let position = |committed_offset| OffsetCommitRequestPartition { committed_offset, ..Default::default() };
    let topic = OffsetCommitRequestTopic {
        name: "t".into(),
        partitions: (0..10_000).map(position).collect(),
        ..Default::default()
    };
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let response = raw.call(9, &commit).await;
    assert_eq!(response.topics[0].partitions.len(), 10_000);
    assert!(response.topics[0].partitions.iter().all(|partition| partition.error_code == 0));
    let topics = Some(vec![OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0] }]);
    let request = OffsetFetchRequest { group_id: "g".into(), topics, ..Default::default() };
    assert_eq!(raw.call(5, &request).await.topics[0].partitions[0].committed_offset, 9_999);
}

#[tokio::test]
async fn commits_are_fenced() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let joined = join(&mut raw, 9, None).await;
    sync(&mut raw, 5, &joined, b"").await;
    let commit = |group: &str, generation, member: &Str| OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: generation,
        member_id: member.clone(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    for (version, request, expected) in [
        (9, commit("g", joined.generation_id, &joined.member_id), ErrorCode::None),
        (9, commit("g", joined.generation_id + 1, &joined.member_id), ErrorCode::IllegalGeneration),
        (9, commit("g", joined.generation_id, &"stranger".into()), ErrorCode::UnknownMemberId),
        (9, commit("g", -1, &Str::default()), ErrorCode::UnknownMemberId),
        (8, commit("none", 3, &"stranger".into()), ErrorCode::IllegalGeneration),
        (9, commit("none", 3, &"stranger".into()), ErrorCode::GroupIdNotFound),
        (9, commit("", -1, &Str::default()), ErrorCode::None),
        (9, commit("", 3, &"stranger".into()), ErrorCode::UnknownMemberId),
    ] {
        let response = raw.call(version, &request).await;
        assert_code(response.topics[0].partitions[0].error_code, expected);
    }
}

/// As in Kafka, which judges no offset: it is a client's own word.
#[tokio::test]
async fn negative_positions_are_kept_as_they_were_committed() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    let offsets = [-1, -2, -1_000_000, i64::MIN, i64::MAX];
    raw.topic("t", offsets.len() as i32).await;
    let partition = |(at, offset): (usize, &i64)| OffsetCommitRequestPartition {
        partition_index: at as i32,
        committed_offset: *offset,
        committed_leader_epoch: -1,
        committed_metadata: Some("note".into()),
    };
    let partitions = offsets.iter().enumerate().map(partition).collect();
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics,
        ..Default::default()
    };
    for version in 2..=9 {
        let response = raw.call(version, &commit).await;
        let codes: Vec<_> = response.topics[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [0; 5], "{version}");
    }
    let fetch = OffsetFetchRequest { group_id: "g".into(), topics: None, ..Default::default() };
    let kept = raw.call(7, &fetch).await.topics.remove(0).partitions;
    let shown: Vec<_> = kept.iter().map(|p| p.committed_offset).collect();
    assert_eq!(shown, offsets);
    assert!(kept.iter().all(|p| p.error_code == 0 && p.metadata.as_deref() == Some("note")), "{kept:?}");
    let lag: u64 =
        rig.broker.group_lag(&Caller::OPERATOR, "g", 100).unwrap().iter().map(|topic| topic.lag()).sum();
    assert_eq!(lag, 1 + 2 + 1_000_000 + i64::MAX as u64, "all topics are empty");
}

/// Old clients that belong to no group keep their positions under no name.
#[tokio::test]
async fn positions_are_kept_for_no_group() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let partitions = vec![OffsetCommitRequestPartition { committed_offset: 5, ..Default::default() }];
    let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
    let commit = OffsetCommitRequest { topics, ..Default::default() };
    assert_eq!(raw.call(2, &commit).await.topics[0].partitions[0].error_code, 0);
    let asked = OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0] };
    let fetch = OffsetFetchRequest { topics: Some(vec![asked]), ..Default::default() };
    assert_eq!(raw.call(2, &fetch).await.topics[0].partitions[0].committed_offset, 5);
    let described = raw.ask(&DescribeGroupsRequest { groups: vec!["".into()], ..Default::default() }).await;
    assert_eq!((described.groups[0].error_code, described.groups[0].group_state.as_str()), (0, "Empty"));
    let listed = raw.ask(&ListGroupsRequest::default()).await;
    assert!(listed.groups.iter().any(|group| group.group_id.is_empty()));
    // No client is a member of it, and its positions go all together.
    let join = JoinGroupRequest { group_id: "".into(), ..join_request(&Str::default(), None) };
    assert_code(raw.call(5, &join).await.error_code, ErrorCode::InvalidGroupId);
    let some = OffsetDeleteRequest { group_id: "".into(), ..Default::default() };
    assert_code(raw.ask(&some).await.error_code, ErrorCode::InvalidGroupId);
    let request = DeleteGroupsRequest { groups_names: vec!["".into()] };
    assert_eq!(raw.ask(&request).await.results[0].error_code, 0);
    assert_eq!(raw.call(2, &fetch).await.topics[0].partitions[0].committed_offset, -1);
}

/// The id is a key of the checkpoint's store.
#[tokio::test]
async fn a_group_id_has_1024_bytes_at_the_most() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    let commit = |group_id: &str| {
        let partitions = vec![OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() }];
        let topics = vec![OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() }];
        OffsetCommitRequest { group_id: group_id.into(), topics, ..Default::default() }
    };
    for (bytes, expected) in
        [(1024, ErrorCode::None), (1025, ErrorCode::InvalidGroupId), (32_000, ErrorCode::InvalidGroupId)]
    {
        let id = "g".repeat(bytes);
        let answer = raw.call(8, &commit(&id)).await;
        assert_code(answer.topics[0].partitions[0].error_code, expected);
        let join =
            JoinGroupRequest { group_id: id.as_str().into(), ..join_request(&Str::default(), Some("i")) };
        assert_code(raw.call(9, &join).await.error_code, expected);
        let beat = HeartbeatRequest { group_id: id.as_str().into(), ..Default::default() };
        let answer = ErrorCode::from_i16(raw.ask(&beat).await.error_code).unwrap();
        assert_eq!(answer == ErrorCode::InvalidGroupId, bytes > 1024, "{answer:?}");
        let request = DeleteGroupsRequest { groups_names: vec![id.as_str().into()] };
        let answer = ErrorCode::from_i16(raw.ask(&request).await.results[0].error_code).unwrap();
        assert_eq!(answer == ErrorCode::InvalidGroupId, bytes > 1024, "{answer:?}");
    }
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    committed_group(&mut raw).await;
    let states = |raw_states: &[&str]| ListGroupsRequest {
        states_filter: raw_states.iter().map(|s| (*s).into()).collect(),
        ..Default::default()
    };
    for version in 0..=5 {
        let listed = raw.call(version, &states(&[])).await.groups;
        assert_eq!((listed.len(), listed[0].group_id.as_str()), (1, "g"));
        if version >= 4 {
            assert_eq!(listed[0].group_state, "Empty");
            assert_eq!(raw.call(version, &states(&["Stable"])).await.groups.len(), 0);
            assert_eq!(raw.call(version, &states(&["Stable", "empty"])).await.groups.len(), 1);
        }
    }
    let other = ListGroupsRequest { types_filter: vec!["consumer".into()], ..Default::default() };
    assert_eq!(raw.ask(&other).await.groups.len(), 0);

    let joined = join(&mut raw, 9, None).await;
    sync(&mut raw, 5, &joined, b"yours").await;
    for version in 0..=6 {
        let request = DescribeGroupsRequest {
            groups: vec!["g".into(), "none".into()],
            include_authorized_operations: version >= 3,
        };
        let described = raw.call(version, &request).await.groups;
        let group = &described[0];
        assert_eq!((group.group_state.as_str(), group.protocol_data.as_str()), ("Stable", "range"));
        let member = &group.members[0];
        assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("raw", "/127.0.0.1"));
        assert_eq!(&member.member_assignment[..], b"yours");
        assert_eq!(described[1].group_state, "Dead");
        let missing = if version >= 6 { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
        assert_code(described[1].error_code, missing);
    }
    let delete = DeleteGroupsRequest { groups_names: vec!["g".into(), "none".into()] };
    let refused = raw.ask(&delete).await.results;
    assert_code(refused[0].error_code, ErrorCode::NonEmptyGroup);
    assert_code(refused[1].error_code, ErrorCode::GroupIdNotFound);
    let member = MemberIdentity { member_id: joined.member_id.clone(), ..Default::default() };
    raw.ask(&LeaveGroupRequest { group_id: "g".into(), members: vec![member], ..Default::default() }).await;
    assert_eq!(raw.ask(&delete).await.results[0].error_code, 0);
    assert_eq!(raw.ask(&states(&[])).await.groups.len(), 0);
}

#[tokio::test]
async fn offsets_are_deleted_unless_a_member_reads_there() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    committed_group(&mut raw).await;
    let partition = |i| OffsetDeleteRequestPartition { partition_index: i };
    let delete = |group: &str, indexes: &[i32]| OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "t".into(),
            partitions: indexes.iter().map(|i| partition(*i)).collect(),
        }],
    };
    let deleted = raw.ask(&delete("g", &[0, 9])).await;
    let codes: Vec<_> = deleted.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::UnknownTopicOrPartition.code()]);
    let group = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
    let left = raw.call(9, &OffsetFetchRequest { groups: vec![group], ..Default::default() }).await;
    assert_eq!(left.groups[0].topics[0].partitions.len(), 1);
    assert_code(raw.ask(&delete("none", &[0])).await.error_code, ErrorCode::GroupIdNotFound);
    let joined = join(&mut raw, 9, None).await;
    sync(&mut raw, 5, &joined, b"").await;
    let refused = raw.ask(&delete("g", &[1])).await;
    assert_code(refused.topics[0].partitions[0].error_code, ErrorCode::GroupSubscribedToTopic);
}

/// Before its groups are read in, and when it ends, a broker knows nothing of them, which is not the same as that there are none.
#[tokio::test]
async fn groups_that_are_not_led_have_an_error_and_not_an_empty_answer() {
    let rig = Rig::start();
    let mut raw = rig.raw().await;
    raw.topic("t", 1).await;
    for (why, expected) in [
        (GroupError::Loading, ErrorCode::CoordinatorLoadInProgress),
        (GroupError::Shard(ShardFailure::ShuttingDown), ErrorCode::NotCoordinator),
    ] {
        retire_groups(&rig.broker, why);
        for version in 1..=10 {
            let topic = OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0] };
            let group = OffsetFetchRequestGroup { group_id: "g".into(), ..Default::default() };
            let request = OffsetFetchRequest {
                group_id: "g".into(),
                topics: Some(vec![topic]),
                groups: vec![group],
                ..Default::default()
            };
            let response = raw.call(version, &request).await;
            let code = match version {
                1 => response.topics[0].partitions[0].error_code,
                2..=7 => response.error_code,
                _ => response.groups[0].error_code,
            };
            assert_code(code, expected);
        }
        let describe = DescribeGroupsRequest { groups: vec!["g".into()], ..Default::default() };
        assert_code(raw.ask(&describe).await.groups[0].error_code, expected);
        assert_code(raw.ask(&ListGroupsRequest::default()).await.error_code, expected);
        let topic = OffsetDeleteRequestTopic { name: "t".into(), partitions: Vec::new() };
        let delete = OffsetDeleteRequest { group_id: "g".into(), topics: vec![topic] };
        assert_code(raw.ask(&delete).await.error_code, expected);
    }
}
