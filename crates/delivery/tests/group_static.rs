//! Static members, as Kafka's coordinator has them.

mod common;

use common::{Client1, REBALANCE, SESSION, World, dynamic, fixed, text};
use sabir_delivery::group::entries::GroupChange;
use sabir_delivery::group::{GroupEvent, GroupPhase};
use sabir_model::{GroupError, ShardFailure};

/// The client restarted: it has its instance id and nothing else.
fn restarted(client: &Client1) -> Client1 {
    Client1 { member: text(""), generation: -1, ..client.clone() }
}

#[test]
fn a_static_follower_returns_without_a_rebalance() {
    let mut world = World::new();
    let (mut a, mut b) = (fixed("a"), fixed("b"));
    world.stable(&mut [&mut a, &mut b]);
    world.prompt = false;
    let mut back = restarted(&b);
    let ticket = world.join(&back);
    assert!(world.parked(ticket), "the answer waits for the entry");
    let [(_, GroupChange::Replaced { generation: 1, old, member })] = world.proposed.make_contiguous() else {
        panic!("one replacement")
    };
    assert_eq!((&*old, &*member.assignment), (&b.member, b"w1".as_slice()));
    world.commit_entries();
    let joined = world.joined(ticket, &mut back);
    assert_eq!((joined.generation, &joined.leader, joined.members.len()), (1, &a.member, 0));
    assert!(!joined.skip_assignment);
    assert_ne!(back.member, b.member);
    let sync = world.sync(&back, &[]);
    assert_eq!(world.assigned(sync), "w1");
    assert_eq!(world.group.state(), GroupPhase::Stable);

    // The old one is fenced everywhere.
    assert_eq!(world.heartbeat(&b), Err(GroupError::FencedInstance));
    assert_eq!(world.commit(b.fence()), Err(GroupError::FencedInstance));
    assert_eq!(world.apply_commit(b.fence()), Err(GroupError::FencedInstance));
    let (join, sync) = (world.join(&b), world.sync(&b, &[]));
    assert_eq!(world.refused(join).error, GroupError::FencedInstance);
    assert_eq!(world.synced(sync), Err(GroupError::FencedInstance));
    assert_eq!(world.leave(&b.member, Some("b")), Err(GroupError::FencedInstance));
    assert_eq!(world.commit(back.fence()), Ok(()));

    // It is so after a restart, too.
    world.restart();
    assert_eq!(world.heartbeat(&b), Err(GroupError::FencedInstance));
    assert_eq!(world.heartbeat(&back), Ok(()));
}

#[test]
fn a_static_leader_returns_and_need_not_assign_again() {
    for may_skip in [true, false] {
        let mut world = World::new();
        let (mut a, mut b) = (fixed("a"), dynamic());
        world.stable(&mut [&mut a, &mut b]);
        let mut back = Client1 { may_skip, ..restarted(&a) };
        let ticket = world.join(&back);
        let joined = world.joined(ticket, &mut back);
        if may_skip {
            assert_eq!((&joined.leader, joined.members.len()), (&back.member, 2));
            assert!(joined.skip_assignment);
        } else {
            // It takes itself for a follower, for it does not know the id that leads.
            assert_eq!((&joined.leader, joined.members.len()), (&a.member, 0));
            assert!(!joined.skip_assignment);
        }
        let sync = world.sync(&back, &[]);
        assert_eq!(world.assigned(sync), "w0");
        assert_eq!(world.state.record().leader.as_ref(), Some(&back.member));
        // It leads all the same: its next join calls for a rebalance.
        world.join(&back);
        assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    }
}

#[test]
fn a_returning_member_that_changes_the_protocol_calls_for_a_rebalance() {
    let mut world = World::new();
    let (mut a, mut b) = (fixed("a").with(&["x", "y"]), fixed("b").with(&["x", "y"]));
    world.stable(&mut [&mut a, &mut b]);
    let mut back = restarted(&b).with(&["y"]);
    let second = world.join(&back);
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    let first = world.join(&a);
    world.take_joins(&mut [&mut a, &mut back], &[first, second]);
    assert_eq!(world.group.generation(), 2);
}

#[test]
fn a_member_returning_while_the_leader_assigns_calls_for_a_rebalance() {
    let mut world = World::new();
    let (mut a, mut b) = (fixed("a"), fixed("b"));
    let tickets = [world.join_fully(&mut a), world.join_fully(&mut b)];
    world.settle();
    world.take_joins(&mut [&mut a, &mut b], &tickets);
    let waiting = world.sync(&b, &[]);
    let mut back = restarted(&b);
    let second = world.join(&back);
    assert_eq!(world.synced(waiting), Err(GroupError::FencedInstance));
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    let first = world.join(&a);
    world.take_joins(&mut [&mut a, &mut back], &[first, second]);
}

#[test]
fn a_member_returning_during_a_rebalance_takes_the_place_of_its_parked_join() {
    let mut world = World::new();
    let (mut a, mut b) = (fixed("a"), fixed("b"));
    world.stable(&mut [&mut a, &mut b]);
    let parked = world.join(&a);
    let mut back = restarted(&a);
    let first = world.join(&back);
    assert_eq!(world.refused(parked).error, GroupError::FencedInstance);
    let second = world.join(&b);
    let leader = world.take_joins(&mut [&mut back, &mut b], &[first, second]);
    assert_eq!(leader, 0, "it keeps the lead");
}

#[test]
fn a_static_member_may_miss_a_rebalance_but_not_its_session() {
    let mut world = World::new();
    let (mut a, mut b) = (fixed("a"), Client1 { session: 100_000, ..fixed("b") });
    world.stable(&mut [&mut a, &mut b]);
    let first = world.join(&a);
    world.pass(REBALANCE);
    let joined = world.joined(first, &mut a);
    assert_eq!(joined.members.len(), 2, "it may be restarting");
    let lead = world.sync(&a, &[(&a, "x"), (&b, "y")]);
    assert_eq!(world.assigned(lead), "x");
    assert_eq!(world.heartbeat(&b), Err(GroupError::IllegalGeneration));
    // When it does return it finds its assignment.
    let mut back = restarted(&b);
    let ticket = world.join(&back);
    world.joined(ticket, &mut back);
    let sync = world.sync(&back, &[]);
    assert_eq!(world.assigned(sync), "y");

    // With a leave it is gone at once; silence is a leave when the session is over.
    let mut world = World::new();
    let (mut a, mut b) = (fixed("a"), fixed("b"));
    world.stable(&mut [&mut a, &mut b]);
    world.pass(SESSION - 1);
    assert_eq!(world.heartbeat(&a), Ok(()));
    world.pass(1);
    assert_eq!(world.group.view().members.len(), 1);
}

#[test]
fn when_no_static_member_rejoins_the_sessions_decide() {
    let mut world = World::new();
    let mut a = Client1 { session: 200_000, ..fixed("a") };
    let mut b = dynamic();
    world.stable(&mut [&mut a, &mut b]);
    world.leave(&b.member, None).unwrap();
    world.pass(REBALANCE * 2);
    assert_eq!((world.group.state(), world.group.generation()), (GroupPhase::PreparingRebalance, 1));
    world.pass(REBALANCE * 2);
    assert_eq!((world.group.state(), world.group.generation()), (GroupPhase::Empty, 2));
}

#[test]
fn an_instance_belongs_to_one_member() {
    let mut world = World::new();
    let mut a = fixed("a");
    world.stable(&mut [&mut a]);
    let other = Client1 { instance: Some(text("a")), member: text("other"), ..dynamic() };
    let ticket = world.join(&other);
    assert_eq!(world.refused(ticket).error, GroupError::FencedInstance);
    let stranger = Client1 { instance: Some(text("z")), ..a.clone() };
    let ticket = world.join(&stranger);
    assert_eq!(world.refused(ticket).error, GroupError::UnknownMember);
    assert_eq!(world.heartbeat(&stranger), Err(GroupError::UnknownMember));
    assert_eq!(world.apply_commit(stranger.fence()), Err(GroupError::UnknownMember));
    // A fence without the instance will do, for those that do not send it.
    assert_eq!(world.heartbeat(&Client1 { instance: None, ..a.clone() }), Ok(()));
}

#[test]
fn a_replacement_that_cannot_be_stored_leads_to_a_rebalance() {
    let mut world = World::new();
    let (mut a, mut b) = (fixed("a"), fixed("b"));
    world.stable(&mut [&mut a, &mut b]);
    world.prompt = false;
    let back = restarted(&b);
    let ticket = world.join(&back);
    let (token, _) = world.proposed.pop_front().unwrap();
    world.event(GroupEvent::Refused(token, GroupError::Shard(ShardFailure::StorageFull)));
    assert_eq!(world.refused(ticket).error, GroupError::Shard(ShardFailure::StorageFull));
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    world.prompt = true;
    let mut back = restarted(&b);
    let (first, second) = (world.join(&a), world.join(&back));
    let leader = world.take_joins(&mut [&mut a, &mut back], &[first, second]);
    world.sync_all(&mut [&mut a, &mut back], leader);
    assert_eq!(world.commit(back.fence()), Ok(()));
}

#[test]
fn a_rebalance_that_begins_before_the_replacement_is_stored_answers_it() {
    let mut world = World::new();
    let (mut a, mut b) = (fixed("a"), fixed("b"));
    world.stable(&mut [&mut a, &mut b]);
    world.prompt = false;
    let mut back = restarted(&b);
    let second = world.join(&back);
    let first = world.join(&a);
    assert_eq!(world.take_joins(&mut [&mut a, &mut back], &[first, second]), 0);
    assert_eq!(world.group.generation(), 2);
    world.commit_entries();
    world.prompt = true;
    world.sync_all(&mut [&mut a, &mut back], 0);
    assert_eq!(world.commit(back.fence()), Ok(()));
}
