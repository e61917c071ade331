//! Rebalances, expiries, restarts and commits, as Kafka's coordinator has them.

mod common;

use bytes::Bytes;
use common::{Client1, DELAY, REBALANCE, SESSION, World, dynamic, fixed, text};
use sabir_delivery::group::entries::GroupChange;
use sabir_delivery::group::{Fence, GroupEvent, GroupLimits, GroupPhase, SyncRequest};
use sabir_model::{GroupError, ShardFailure};

#[test]
fn nobody_hears_of_an_assignment_before_it_is_committed() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    let tickets = [world.join_fully(&mut a), world.join_fully(&mut b)];
    world.settle();
    world.take_joins(&mut [&mut a, &mut b], &tickets);
    world.prompt = false;
    let follower = world.sync(&b, &[]);
    let leader = world.sync(&a, &[(&a, "all")]);
    assert_eq!(world.group.state(), GroupPhase::CompletingRebalance);
    let [(_, GroupChange::Record(record))] = world.proposed.make_contiguous() else { panic!("one record") };
    assert_eq!((record.generation, record.leader.as_ref()), (1, Some(&a.member)));
    assert_eq!(record.members.iter().map(|m| &*m.assignment).collect::<Vec<_>>(), [b"all".as_slice(), b""]);
    assert!(world.parked(follower) && world.parked(leader));
    world.pass(SESSION * 2);
    assert!(world.parked(follower), "a parked sync vouches for its member");

    world.commit_entries();
    assert_eq!(world.group.state(), GroupPhase::Stable);
    assert_eq!(world.assigned(leader), "all");
    let synced = world.synced(follower).unwrap();
    assert_eq!((&*synced.assignment, synced.protocol.as_deref()), (b"".as_slice(), Some("range")));
    assert_eq!(world.heartbeat(&a), Ok(()));
}

#[test]
fn an_assignment_committed_too_late_is_for_nobody() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    let ticket = world.join_fully(&mut a);
    world.pass(DELAY);
    world.joined(ticket, &mut a);
    world.prompt = false;
    let sync = world.sync(&a, &[(&a, "old")]);
    let newcomer = world.join_fully(&mut b);
    assert_eq!(world.synced(sync), Err(GroupError::RebalanceInProgress));
    world.commit_entries();
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    let again = world.join(&a);
    let leader = world.take_joins(&mut [&mut a, &mut b], &[again, newcomer]);
    world.prompt = true;
    world.sync_all(&mut [&mut a, &mut b], leader);
    assert_eq!(world.state.record().generation, 2);
}

#[test]
fn an_assignment_that_cannot_be_stored_is_refused_to_all() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    let tickets = [world.join_fully(&mut a), world.join_fully(&mut b)];
    world.settle();
    world.take_joins(&mut [&mut a, &mut b], &tickets);
    world.prompt = false;
    let (follower, leader) = (world.sync(&b, &[]), world.sync(&a, &[(&a, "all")]));
    let (token, _) = world.proposed.pop_front().unwrap();
    world.event(GroupEvent::Refused(token, GroupError::Shard(ShardFailure::StorageFull)));
    assert_eq!(world.synced(follower), Err(GroupError::Shard(ShardFailure::StorageFull)));
    assert_eq!(world.synced(leader), Err(GroupError::Shard(ShardFailure::StorageFull)));
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    world.prompt = true;
    let tickets = [world.join(&a), world.join(&b)];
    let leader = world.take_joins(&mut [&mut a, &mut b], &tickets);
    world.sync_all(&mut [&mut a, &mut b], leader);

    let mut world = World::with(GroupLimits {
        max_record_bytes: 4_000,
        initial_rebalance_delay_ms: 0,
        ..GroupLimits::default()
    });
    let mut a = dynamic();
    let ticket = world.join_fully(&mut a);
    world.joined(ticket, &mut a);
    let huge = SyncRequest {
        fence: a.fence(),
        protocol_type: None,
        protocol: None,
        assignments: vec![(a.member.clone(), Bytes::from(vec![0; 5_000]))],
    };
    let ticket = world.sync_as(huge);
    assert_eq!(world.synced(ticket), Err(GroupError::TooLarge));
    assert_eq!(world.state.record().generation, 0);
}

#[test]
fn a_sync_is_fenced() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let ask = |generation, member: &str| Fence { generation, member: text(member), instance: None };
    for (fence, protocol_type, protocol, expected) in [
        (ask(1, "nobody"), None, None, GroupError::UnknownMember),
        (ask(0, &a.member), None, None, GroupError::IllegalGeneration),
        (ask(2, &a.member), None, None, GroupError::IllegalGeneration),
        (ask(1, &a.member), Some("connect"), None, GroupError::InconsistentProtocol),
        (ask(1, &a.member), None, Some("sticky"), GroupError::InconsistentProtocol),
    ] {
        let request = SyncRequest {
            fence,
            protocol_type: protocol_type.map(text),
            protocol: protocol.map(text),
            assignments: vec![],
        };
        let ticket = world.sync_as(request);
        assert_eq!(world.synced(ticket), Err(expected));
    }
    world.join(&a);
    let ticket = world.sync(&b, &[]);
    assert_eq!(world.synced(ticket), Err(GroupError::RebalanceInProgress));
    let mut empty = World::new();
    let ticket = empty.sync(&a, &[]);
    assert_eq!(empty.synced(ticket), Err(GroupError::UnknownMember));
}

#[test]
fn who_does_not_rejoin_in_time_is_out() {
    let mut world = World::new();
    let (mut a, mut b, mut c) = (dynamic(), dynamic(), dynamic());
    // It keeps sending heartbeats, but does not join again.
    world.stable(&mut [&mut a, &mut b]);
    let third = world.join_fully(&mut c);
    let second = world.join(&b);
    for _ in 0..REBALANCE / 5_000 {
        assert_eq!(world.heartbeat(&a), Err(GroupError::RebalanceInProgress));
        world.pass(5_000);
    }
    let leader = world.take_joins(&mut [&mut b, &mut c], &[second, third]);
    assert_eq!(leader, 0, "the first that joined leads in the leader's place");
    assert_eq!(world.heartbeat(&a), Err(GroupError::UnknownMember));
    // The journal knows at once: a commit of the lost member would be void even after a restart.
    assert_eq!(world.apply_commit(a.fence()), Err(GroupError::UnknownMember));
    assert!(world.state.rebalance_due());
    world.sync_all(&mut [&mut b, &mut c], leader);
    assert!(!world.state.rebalance_due());
}

#[test]
fn a_silent_member_expires_and_the_rest_rebalance() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    world.prompt = false;
    for _ in 0..2 {
        world.pass(SESSION / 2);
        assert_eq!(world.heartbeat(&b).is_ok(), world.group.state() == GroupPhase::Stable);
    }
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    let gone = GroupChange::Gone { generation: 1, members: vec![a.member.clone()] };
    assert_eq!(world.proposed.make_contiguous()[0].1, gone);
    world.prompt = true;
    world.commit_entries();
    let ticket = world.join(&b);
    let joined = world.joined(ticket, &mut b);
    assert_eq!((joined.generation, &joined.leader), (2, &b.member));
    world.sync_all(&mut [&mut b], 0);

    // The last one's expiry leaves an empty group, its generation one further.
    world.pass(SESSION);
    assert_eq!((world.group.state(), world.group.generation()), (GroupPhase::Empty, 3));
    assert!(world.group.is_idle());
    assert!(world.state.is_empty());
    assert_eq!(world.state.record().generation, 3);
}

#[test]
fn who_does_not_sync_in_time_is_out() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let tickets = [world.join(&a), world.join(&b)];
    world.take_joins(&mut [&mut a, &mut b], &tickets);
    let lead = world.sync(&a, &[(&a, "x"), (&b, "y")]);
    assert_eq!(world.assigned(lead), "x");
    for _ in 0..REBALANCE / 5_000 {
        let _ = world.heartbeat(&a);
        let _ = world.heartbeat(&b);
        world.pass(5_000);
    }
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance, "the follower never asked");
    assert_eq!(world.group.view().members.len(), 1);
    let ticket = world.join(&a);
    assert_eq!(world.joined(ticket, &mut a).generation, 3);

    // And if it is the leader that never assigns, those that wait are freed.
    let (mut world, mut a, mut b) = (World::new(), dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let tickets = [world.join(&a), world.join(&b)];
    world.take_joins(&mut [&mut a, &mut b], &tickets);
    let waiting = world.sync(&b, &[]);
    for _ in 0..REBALANCE / 5_000 {
        let _ = world.heartbeat(&a);
        world.pass(5_000);
    }
    assert_eq!(world.synced(waiting), Err(GroupError::RebalanceInProgress));
    let ticket = world.join(&b);
    assert_eq!(world.joined(ticket, &mut b).leader, b.member);
}

#[test]
fn leaving_is_at_once() {
    let mut world = World::new();
    let (mut a, mut b, mut c) = (dynamic(), dynamic(), fixed("c"));
    world.stable(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(world.leave(&b.member, None), Ok(()));
    assert_eq!(world.leave(&b.member, None), Err(GroupError::UnknownMember));
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    assert_eq!(world.leave("", Some("nobody")), Err(GroupError::UnknownMember));
    assert_eq!(world.leave("other", Some("c")), Err(GroupError::FencedInstance));
    // Another client sends a static member away by its instance id.
    assert_eq!(world.leave("", Some("c")), Ok(()));
    let ticket = world.join(&a);
    assert_eq!(world.joined(ticket, &mut a).members.len(), 1);

    // With a parked join: the client is told to start over.
    let (mut world, mut a, mut b) = (World::new(), dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let ticket = world.join(&a);
    assert_eq!(world.leave(&a.member, None), Ok(()));
    assert_eq!(world.refused(ticket).error, GroupError::UnknownMember);
}

#[test]
fn commits_are_fenced_by_the_machine_and_by_the_journal() {
    let mut world = World::new();
    let outside = Fence { generation: -1, member: text(""), instance: None };
    assert_eq!(world.commit(outside.clone()), Ok(()), "nobody is in it");
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    assert_eq!(world.commit(a.fence()), Ok(()));
    assert_eq!(world.commit(outside.clone()), Err(GroupError::UnknownMember));
    assert_eq!(world.apply_commit(outside.clone()), Err(GroupError::UnknownMember));
    for (generation, expected) in [(0, GroupError::IllegalGeneration), (2, GroupError::IllegalGeneration)] {
        let fence = Fence { generation, ..a.fence() };
        assert_eq!(world.commit(fence.clone()), Err(expected));
        assert_eq!(world.apply_commit(fence), Err(expected));
    }

    // What is revoked may be committed while others join again; between the generations nothing may.
    let first = world.join(&a);
    assert_eq!(world.commit(b.fence()), Ok(()));
    let old = b.fence();
    let second = world.join(&b);
    world.take_joins(&mut [&mut a, &mut b], &[first, second]);
    assert_eq!(world.commit(b.fence()), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.commit(old.clone()), Err(GroupError::IllegalGeneration));
    assert_eq!(world.apply_commit(old.clone()), Ok(()), "an entry proposed just before");
    assert_eq!(world.apply_commit(a.fence()), Err(GroupError::IllegalGeneration));
    world.sync_all(&mut [&mut a, &mut b], 0);
    assert_eq!(world.apply_commit(old), Err(GroupError::IllegalGeneration));
    assert_eq!(world.commit(a.fence()), Ok(()));
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut world = World::new();
    let mut a = dynamic();
    world.stable(&mut [&mut a]);
    for _ in 0..4 {
        world.pass(SESSION - 1);
        assert_eq!(world.commit(a.fence()), Ok(()));
    }
    world.pass(SESSION);
    assert_eq!(world.group.state(), GroupPhase::Empty);
}

#[test]
fn a_restart_gives_the_group_back_with_its_deadlines_afresh() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), fixed("b"));
    world.stable(&mut [&mut a, &mut b]);
    world.pass(SESSION - 1);
    world.restart();
    assert_eq!((world.group.state(), world.group.generation()), (GroupPhase::Stable, 1));
    world.pass(SESSION - 1);
    assert_eq!(world.heartbeat(&a), Ok(()), "the time before the start does not count");
    assert_eq!(world.commit(b.fence()), Ok(()));
    // A follower asks again and goes on; its metadata is remembered whole.
    let ticket = world.join(&b);
    assert_eq!(world.joined(ticket, &mut b).generation, 1);
    let ticket = world.sync(&b, &[]);
    assert_eq!(world.assigned(ticket), "w1");
    assert_eq!(world.group.state(), GroupPhase::Stable);

    world.leave(&a.member, None).unwrap();
    world.leave(&b.member, None).unwrap();
    world.restart();
    assert_eq!((world.group.state(), world.group.generation()), (GroupPhase::Empty, 2));
    assert!(world.group.is_idle());
}

#[test]
fn a_restart_amid_a_rebalance_goes_back_to_what_was_committed() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a]);
    let newcomer = world.join_fully(&mut b);
    let again = world.join(&a);
    world.take_joins(&mut [&mut a, &mut b], &[again, newcomer]);
    world.prompt = false;
    world.sync(&a, &[(&a, "x"), (&b, "y")]);
    world.restart();
    assert_eq!((world.group.state(), world.group.generation()), (GroupPhase::Stable, 1));
    assert_eq!(world.heartbeat(&a), Err(GroupError::IllegalGeneration), "it believes in generation 2");
    assert_eq!(world.heartbeat(&b), Err(GroupError::UnknownMember));

    // Members that were known to be gone stay gone, and the rest is told to join again.
    let (mut world, mut a, mut b) = (World::new(), dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    world.leave(&a.member, None).unwrap();
    world.restart();
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    assert_eq!(world.heartbeat(&b), Err(GroupError::RebalanceInProgress));
    let ticket = world.join(&b);
    assert_eq!(world.joined(ticket, &mut b).generation, 2);
}

#[test]
fn a_restart_with_a_lower_limit_rebalances() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let config = GroupLimits { max_members: 1, ..GroupLimits::default() };
    let group = sabir_delivery::group::Group::restore(config, &world.state, world.now);
    assert_eq!(group.state(), GroupPhase::PreparingRebalance);
}

#[test]
fn the_first_wait_ends_with_nobody_left() {
    let mut world = World::new();
    let mut a = Client1 { session: 6_000, ..dynamic() };
    let ticket = world.join_fully(&mut a);
    world.leave(&a.member, None).unwrap();
    assert_eq!(world.refused(ticket).error, GroupError::UnknownMember);
    world.pass(DELAY);
    assert_eq!(world.group.state(), GroupPhase::Empty);
    let ticket = world.join(&a);
    assert_eq!(world.refused(ticket).error, GroupError::UnknownMember);
}
