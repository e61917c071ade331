//! The stored forms of groups and their entries, and the retention of offsets.

use bytes::Bytes;
use proptest::prelude::*;
use sabir_delivery::group::entries::{
    GroupChange, GroupChanged, GroupDeleted, OffsetCommit, OffsetsCommitted, OffsetsDeleted, WhichOffsets,
};
use sabir_delivery::group::state::{GroupRecord, GroupState, MemberRecord};
use sabir_delivery::group::{ClientIdentity, Fence, GroupId, GroupProtocol, Text};
use sabir_model::{DecodeError, FrontendNo, GroupError, LeaderEpoch, Namespace, Offset, TopicId};

fn text(s: &str) -> Text {
    s.into()
}

fn any_text() -> impl Strategy<Value = Text> {
    "[a-zé]{0,6}".prop_map(Text::from)
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

fn any_member() -> impl Strategy<Value = MemberRecord> {
    let protocol = (any_text(), any_bytes()).prop_map(|(name, metadata)| GroupProtocol { name, metadata });
    (
        any_text(),
        prop::option::of(any_text()),
        (any_text(), any_text()),
        any::<i32>(),
        any::<i32>(),
        prop::collection::vec(protocol, 0..3),
        any_bytes(),
    )
        .prop_map(|(member, instance, (id, host), session, rebalance, protocols, assignment)| {
            MemberRecord {
                member,
                instance,
                client: ClientIdentity { id, host },
                session_timeout_ms: session.into(),
                rebalance_timeout_ms: rebalance.into(),
                protocols,
                assignment,
            }
        })
}

fn any_record() -> impl Strategy<Value = GroupRecord> {
    (
        any::<i32>(),
        any_text(),
        prop::option::of(any_text()),
        prop::option::of(any_text()),
        prop::collection::vec(any_member(), 0..4),
    )
        .prop_map(|(generation, protocol_type, protocol, leader, mut members)| {
            members.sort_by(|a, b| a.member.cmp(&b.member));
            GroupRecord { generation, protocol_type, protocol, leader, members }
        })
}

fn any_change() -> impl Strategy<Value = GroupChange> {
    prop_oneof![
        any_record().prop_map(GroupChange::Record),
        (any::<i32>(), prop::collection::vec(any_text(), 0..4))
            .prop_map(|(generation, members)| GroupChange::Gone { generation, members }),
        (any::<i32>(), any_text(), any_member())
            .prop_map(|(generation, old, member)| GroupChange::Replaced { generation, old, member }),
    ]
}

/// One that its name says all of, or not.
fn any_group() -> impl Strategy<Value = GroupId> {
    (prop_oneof![Just("/"), Just("other")], 0..3u16, any_text()).prop_map(|(namespace, number, name)| {
        GroupId {
            namespace: Namespace::named(namespace).expect("a name"),
            front_end: FrontendNo(number),
            name,
        }
    })
}

fn any_commit() -> impl Strategy<Value = OffsetsCommitted> {
    let offset = (any::<u8>(), any::<i32>(), any::<i64>(), any::<i32>(), any_text()).prop_map(
        |(topic, partition, offset, epoch, metadata)| OffsetCommit {
            topic: TopicId([topic; 16]),
            partition,
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(epoch),
            metadata,
        },
    );
    (any_group(), any::<i32>(), any_text(), prop::option::of(any_text()), prop::collection::vec(offset, 0..5))
        .prop_map(|(group, generation, member, instance, offsets)| OffsetsCommitted {
            group,
            fence: Fence { generation, member, instance },
            offsets,
        })
}

/// Comes back as it was, and no prefix of it passes for anything.
fn round_trip<T: PartialEq + std::fmt::Debug>(
    value: &T,
    encode: impl Fn(&T, &mut Vec<u8>),
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    let mut bytes = Vec::new();
    encode(value, &mut bytes);
    assert_eq!(decode(&bytes).as_ref(), Ok(value));
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
    }
    bytes.push(0);
    assert_eq!(decode(&bytes), Err(DecodeError::Trailing(1)));
    bytes[0] = 99;
    assert_eq!(decode(&bytes), Err(DecodeError::Version(99)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_come_back(group in any_group(), change in any_change()) {
        round_trip(&GroupChanged { group, change }, GroupChanged::encode, GroupChanged::decode);
    }

    #[test]
    fn commits_come_back(commit in any_commit()) {
        round_trip(&commit, OffsetsCommitted::encode, OffsetsCommitted::decode);
    }

    #[test]
    fn deletions_come_back(group in any_group(), topics in prop::collection::vec(any::<[u8; 16]>(), 0..4), time in any::<i64>()) {
        round_trip(&GroupDeleted { group: group.clone() }, GroupDeleted::encode, GroupDeleted::decode);
        let listed = topics.iter().map(|id| (TopicId(*id), id[0].into())).collect();
        let topics = topics.into_iter().map(TopicId).collect();
        for which in [WhichOffsets::Listed(listed), WhichOffsets::UnusedSince(time), WhichOffsets::Topics(topics)] {
            let deleted = OffsetsDeleted { group: group.clone(), which };
            round_trip(&deleted, OffsetsDeleted::encode, OffsetsDeleted::decode);
        }
    }

    #[test]
    fn states_come_back(changes in prop::collection::vec(any_change(), 0..4), commits in prop::collection::vec(any_commit(), 0..4)) {
        let mut state = GroupState::new(5);
        changes.into_iter().for_each(|change| state.apply_change(change, 6));
        for commit in commits {
            let _ = state.apply_commit(commit, 7);
        }
        round_trip(&state, GroupState::encode, GroupState::decode);
    }

    #[test]
    fn the_size_of_a_record_is_told_before_it_is_made(record in any_record()) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        prop_assert!(bytes.len() <= record.stored_len(), "{} > {}", bytes.len(), record.stored_len());
        prop_assert!(record.stored_len() <= bytes.len() + 48 + 64 * record.members.len());
    }

    #[test]
    fn any_bytes_at_all_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(form) = bytes.first_mut() {
            *form = 1;
        }
        let _ = (GroupChanged::decode(&bytes), OffsetsCommitted::decode(&bytes), GroupDeleted::decode(&bytes));
        let _ = (OffsetsDeleted::decode(&bytes), GroupState::decode(&bytes));
    }
}

#[test]
fn a_count_beyond_the_body_is_refused_before_memory_is_taken() {
    // Form, group "", generation 0, member "", no instance, 2^32-1 offsets.
    let body = [1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(OffsetsCommitted::decode(&body), Err(DecodeError::Truncated));
}

#[test]
fn the_stored_form_of_a_commit() {
    let commit = OffsetsCommitted {
        group: text("g").into(),
        fence: Fence { generation: 2, member: text("m"), instance: Some(text("i")) },
        offsets: vec![OffsetCommit {
            topic: TopicId([9; 16]),
            partition: 1,
            offset: Offset(300),
            leader_epoch: LeaderEpoch(-1),
            metadata: text("x"),
        }],
    };
    let mut body = Vec::new();
    commit.encode(&mut body);
    let mut expected = vec![1, 1, b'g', 4, 1, b'm', 1, 1, b'i', 1];
    expected.extend([9; 16]);
    expected.extend([2, 0xd8, 4, 1, 1, b'x']);
    assert_eq!(body, expected);
}

#[test]
fn the_stored_form_of_a_group_of_another_front_end_or_namespace() {
    let group = GroupId {
        namespace: Namespace::named("other").unwrap(),
        front_end: FrontendNo(300),
        name: text("g"),
    };
    let mut body = Vec::new();
    GroupDeleted { group }.encode(&mut body);
    assert_eq!(body, *b"\x02\xac\x02\x05other\x01g");
    // What has the first form is not in the second, or there would be two groups of one key.
    for (bad, field) in [(&b"\x02\x00\x01/\x01g"[..], "group"), (b"\x02\x01\x00\x01g", "namespace")] {
        assert_eq!(GroupDeleted::decode(bad), Err(DecodeError::Field(field)));
    }
}

const DAY: i64 = 24 * 3600 * 1000;

fn commit(state: &mut GroupState, fence: Fence, topic: u8, time_ms: i64) {
    let offset = OffsetCommit {
        topic: TopicId([topic; 16]),
        partition: 0,
        offset: Offset(1),
        leader_epoch: LeaderEpoch(0),
        metadata: text(""),
    };
    let entry = OffsetsCommitted { group: text("g").into(), fence, offsets: vec![offset] };
    assert_eq!(state.apply_commit(entry, time_ms), Ok(()));
}

fn outside() -> Fence {
    Fence { generation: -1, member: text(""), instance: None }
}

fn member(id: &str) -> MemberRecord {
    MemberRecord {
        member: text(id),
        instance: None,
        client: ClientIdentity::default(),
        session_timeout_ms: 1,
        rebalance_timeout_ms: 1,
        protocols: vec![],
        assignment: Bytes::new(),
    }
}

#[test]
fn offsets_of_a_simple_group_go_one_by_one() {
    let mut state = GroupState::new(0);
    commit(&mut state, outside(), 1, DAY);
    commit(&mut state, outside(), 2, 3 * DAY);
    assert!(!state.has_unused_since(DAY - 1));
    assert!(state.has_unused_since(DAY));
    assert!(!state.apply_offsets_deleted(&WhichOffsets::UnusedSince(DAY)));
    assert_eq!(state.offset_count(), 1);
    assert!(!state.has_unused_since(DAY));
    assert!(state.apply_offsets_deleted(&WhichOffsets::UnusedSince(3 * DAY)), "nothing is left of it");
}

#[test]
fn offsets_of_a_group_with_members_stay_until_it_has_been_empty_for_long() {
    let mut state = GroupState::new(0);
    let record = |generation, members| GroupRecord {
        generation,
        protocol_type: text("consumer"),
        protocol: None,
        leader: None,
        members,
    };
    state.apply_change(GroupChange::Record(record(1, vec![member("a"), member("b")])), DAY);
    let fence = Fence { generation: 1, member: text("a"), instance: None };
    commit(&mut state, fence.clone(), 1, 2 * DAY);
    assert!(!state.has_unused_since(100 * DAY));
    assert!(
        !state.apply_offsets_deleted(&WhichOffsets::UnusedSince(100 * DAY)),
        "an entry that came too late"
    );
    assert_eq!(state.offset_count(), 1);

    state.apply_change(GroupChange::Gone { generation: 1, members: vec![text("a")] }, 3 * DAY);
    assert!(state.rebalance_due());
    assert_eq!(state.check_fence(&fence), Err(GroupError::UnknownMember));
    state.apply_change(GroupChange::Gone { generation: 7, members: vec![text("b")] }, 3 * DAY);
    assert!(!state.is_empty(), "of another generation");
    state.apply_change(GroupChange::Gone { generation: 1, members: vec![text("b")] }, 10 * DAY);
    assert!(state.is_empty() && !state.rebalance_due());
    // An empty record that follows does not start the time anew.
    state.apply_change(GroupChange::Record(record(2, vec![])), 11 * DAY);
    assert!(!state.has_unused_since(10 * DAY - 1));
    assert!(state.has_unused_since(10 * DAY));
    assert!(state.apply_offsets_deleted(&WhichOffsets::UnusedSince(10 * DAY)));

    // A commit from outside keeps its own offset longer.
    state.apply_change(GroupChange::Record(record(3, vec![])), 20 * DAY);
    commit(&mut state, outside(), 2, 15 * DAY);
    assert!(!state.apply_offsets_deleted(&WhichOffsets::UnusedSince(14 * DAY)));
    assert_eq!(state.offset_count(), 1);
}

#[test]
fn offsets_are_deleted_by_partition_and_by_topic() {
    let mut state = GroupState::new(0);
    (1..=3).for_each(|topic| commit(&mut state, outside(), topic, DAY));
    assert!(!state.apply_offsets_deleted(&WhichOffsets::Listed(vec![
        (TopicId([1; 16]), 0),
        (TopicId([1; 16]), 5),
        (TopicId([2; 16]), 1),
    ])));
    assert_eq!(state.offset_count(), 2);
    assert!(!state.apply_offsets_deleted(&WhichOffsets::Topics(vec![TopicId([2; 16]), TopicId([9; 16])])));
    assert_eq!(state.offsets().map(|((topic, _), _)| topic.0[0]).collect::<Vec<_>>(), [3]);
}
