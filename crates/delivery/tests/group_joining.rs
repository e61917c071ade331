//! Joins, as Kafka's coordinator answers them.

mod common;

use common::{Client1, DELAY, SESSION, World, dynamic, fixed, protocols, text};
use sabir_delivery::group::entries::GroupChange;
use sabir_delivery::group::{GroupLimits, GroupPhase, GroupProtocol};
use sabir_model::GroupError;

#[test]
fn a_dynamic_client_is_told_its_id_first() {
    let mut world = World::new();
    let mut client = dynamic();
    let first = world.join(&client);
    let refused = world.refused(first);
    assert_eq!((refused.error, &*refused.member), (GroupError::MemberIdRequired, "m1"));
    assert_eq!(world.group.state(), GroupPhase::Empty);

    client.member = refused.member;
    let ticket = world.join(&client);
    assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
    world.pass(DELAY - 1);
    assert!(world.parked(ticket));
    world.pass(1);
    let joined = world.joined(ticket, &mut client);
    assert_eq!((joined.generation, &*joined.leader, &*joined.member), (1, "m1", "m1"));
    assert_eq!(joined.protocol.as_deref(), Some("range"));
    assert_eq!(joined.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].metadata, "range!");
    assert_eq!(world.group.state(), GroupPhase::CompletingRebalance);
}

#[test]
fn older_clients_and_static_ones_need_no_id_first() {
    for client in [Client1 { id_required: false, ..dynamic() }, fixed("a")] {
        let mut world = World::new();
        let ticket = world.join(&client);
        assert!(world.parked(ticket));
        world.pass(DELAY);
        assert_eq!(world.joined(ticket, &mut client.clone()).generation, 1);
    }
}

#[test]
fn an_id_not_come_back_with_is_forgotten_after_the_session_timeout() {
    let mut world = World::new();
    let mut client = dynamic();
    let ticket = world.join(&client);
    client.member = world.refused(ticket).member;
    assert!(!world.group.is_idle());
    world.pass(SESSION);
    assert!(world.group.is_idle());
    let ticket = world.join(&client);
    assert_eq!(world.refused(ticket).error, GroupError::UnknownMember);
}

#[test]
fn newcomers_extend_the_first_wait_but_not_beyond_the_rebalance_timeout() {
    let mut world = World::new();
    let mut clients: Vec<Client1> = Vec::new();
    let mut tickets = Vec::new();
    let begun = world.now;
    // One every two seconds keeps the group waiting for as long as it may.
    while world.group.state() != GroupPhase::CompletingRebalance {
        let mut client = Client1 { rebalance: 20_000, ..dynamic() };
        tickets.push(world.join_fully(&mut client));
        clients.push(client);
        world.pass(2_000);
    }
    let waited = world.now - begun;
    assert!((20_000..=22_000).contains(&waited), "{waited}");

    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    let first = world.join_fully(&mut a);
    world.pass(1_000);
    let second = world.join_fully(&mut b);
    world.pass(DELAY - 1_001);
    assert!(world.parked(first));
    world.pass(1);
    assert!(world.parked(first), "another came, so it waits once more");
    world.pass(DELAY);
    assert_eq!(world.take_joins(&mut [&mut a, &mut b], &[first, second]), 0);
}

#[test]
fn without_a_delay_the_first_member_is_in_at_once() {
    let mut world = World::with(GroupLimits { initial_rebalance_delay_ms: 0, ..GroupLimits::default() });
    let mut client = dynamic();
    let ticket = world.join_fully(&mut client);
    assert_eq!(world.joined(ticket, &mut client).generation, 1);
}

#[test]
fn a_follower_with_unchanged_metadata_is_told_the_current_generation() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let ticket = world.join(&b);
    let joined = world.joined(ticket, &mut b);
    assert_eq!((joined.generation, joined.members.len(), joined.leader), (1, 0, a.member.clone()));
    assert_eq!(world.group.state(), GroupPhase::Stable);
    let again = world.sync(&b, &[]);
    assert_eq!(world.assigned(again), "w1");
}

#[test]
fn a_leader_that_joins_again_or_changed_metadata_calls_for_a_rebalance() {
    for (who, names) in [(0, ["range"].as_slice()), (1, &["range", "sticky"])] {
        let mut world = World::new();
        let (mut a, mut b) = (dynamic(), dynamic());
        world.stable(&mut [&mut a, &mut b]);
        let mut clients = [&mut a, &mut b];
        clients[who].protocols = protocols(names);
        let first = world.join(clients[who]);
        assert!(world.parked(first));
        assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
        assert_eq!(world.heartbeat(clients[1 - who]), Err(GroupError::RebalanceInProgress));
        let second = world.join(clients[1 - who]);
        let tickets = if who == 0 { [first, second] } else { [second, first] };
        let leader = world.take_joins(&mut clients, &tickets);
        assert_eq!(leader, 0, "the leader stays");
        assert_eq!(world.group.generation(), 2);
        world.sync_all(&mut clients, leader);
    }
}

#[test]
fn a_new_member_calls_everyone_to_join_again() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a]);
    let second = world.join_fully(&mut b);
    assert!(world.parked(second));
    assert_eq!(world.heartbeat(&a), Err(GroupError::RebalanceInProgress));
    let first = world.join(&a);
    let leader = world.take_joins(&mut [&mut a, &mut b], &[first, second]);
    world.sync_all(&mut [&mut a, &mut b], leader);
    assert_eq!(world.state.record().members.len(), 2);
}

#[test]
fn a_pending_member_holds_the_rebalance_until_it_joins_or_is_forgotten() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a]);
    let told = world.join(&b);
    b.member = world.refused(told).member;
    let first = world.join(&a);
    assert!(world.parked(first), "somebody is about to join");
    world.pass(SESSION);
    assert_eq!(world.joined(first, &mut a).generation, 2);
    assert_eq!(world.group.view().members.len(), 1);

    // A pending member may leave as well.
    let mut c = dynamic();
    let told = world.join(&c);
    c.member = world.refused(told).member;
    let first = world.join(&Client1 { protocols: protocols(&["range", "x"]), ..a.clone() });
    assert!(world.parked(first));
    assert_eq!(world.leave(&c.member, None), Ok(()));
    assert_eq!(world.joined(first, &mut a).generation, 3);
}

#[test]
fn while_the_leader_assigns_a_join_with_the_same_metadata_changes_nothing() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    let tickets = [world.join_fully(&mut a), world.join_fully(&mut b)];
    world.settle();
    world.take_joins(&mut [&mut a, &mut b], &tickets);
    assert_eq!(world.group.state(), GroupPhase::CompletingRebalance);
    let (again_a, again_b) = (world.join(&a), world.join(&b));
    assert_eq!(world.joined(again_a, &mut a).members.len(), 2);
    assert_eq!(world.joined(again_b, &mut b).members.len(), 0);
    assert_eq!((world.group.state(), world.group.generation()), (GroupPhase::CompletingRebalance, 1));

    // Changed metadata, and a new member, throw the assignment away.
    for newcomer in [false, true] {
        let mut world = World::new();
        let (mut a, mut b) = (dynamic(), dynamic());
        let tickets = [world.join_fully(&mut a), world.join_fully(&mut b)];
        world.settle();
        world.take_joins(&mut [&mut a, &mut b], &tickets);
        let waiting = world.sync(&b, &[]);
        let joiner = if newcomer {
            world.join_fully(&mut dynamic())
        } else {
            world.join(&a.clone().with(&["range", "x"]))
        };
        assert_eq!(world.synced(waiting), Err(GroupError::RebalanceInProgress));
        assert_eq!(world.group.state(), GroupPhase::PreparingRebalance);
        assert!(world.parked(joiner));
    }
}

#[test]
fn protocols_must_have_something_in_common() {
    let mut world = World::new();
    let mut a = dynamic().with(&["range", "sticky"]);
    world.stable(&mut [&mut a]);
    for (client, ok) in [
        (dynamic().with(&["other"]), false),
        (dynamic().with(&[]), false),
        (Client1 { protocol_type: "connect", ..dynamic() }, false),
        (dynamic().with(&["other", "sticky"]), true),
    ] {
        let ticket = world.join(&client);
        let error = world.refused(ticket).error;
        let expected = if ok { GroupError::MemberIdRequired } else { GroupError::InconsistentProtocol };
        assert_eq!(error, expected, "{client:?}");
    }
    let mut empty = World::new();
    let ticket = empty.join(&Client1 { protocol_type: "", ..dynamic() });
    assert_eq!(empty.refused(ticket).error, GroupError::InconsistentProtocol);
}

#[test]
fn the_protocol_most_members_prefer_among_those_all_know_is_chosen() {
    for (lists, chosen) in [
        (vec![vec!["range", "sticky"], vec!["sticky", "range"], vec!["sticky", "range"]], "sticky"),
        (vec![vec!["fancy", "range"], vec!["range"]], "range"),
        // Each has a vote: the first by name.
        (vec![vec!["b", "a"], vec!["a", "b"]], "a"),
    ] {
        let mut world = World::new();
        let mut clients: Vec<_> = lists.iter().map(|names| dynamic().with(names)).collect();
        let tickets: Vec<_> = clients.iter_mut().map(|client| world.join_fully(client)).collect();
        world.settle();
        let joined = world.joined(tickets[0], &mut clients[0]);
        assert_eq!(joined.protocol.as_deref(), Some(chosen));
        assert!(joined.members.iter().all(|m| m.metadata == format!("{chosen}!")));
    }
}

#[test]
fn a_full_group_takes_nobody_and_turns_away_the_last_to_rejoin() {
    let config = GroupLimits { max_members: 2, initial_rebalance_delay_ms: DELAY, ..GroupLimits::default() };
    let mut world = World::with(config);
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let ticket = world.join(&Client1 { id_required: false, ..dynamic() });
    assert_eq!(world.refused(ticket).error, GroupError::Full);
    assert_eq!(world.group.state(), GroupPhase::Stable);

    // While members join again, the member that comes first is in.
    let first = world.join(&a);
    let mut c = Client1 { id_required: false, ..dynamic() };
    let third = world.join(&c);
    assert!(world.parked(third));
    let second = world.join(&b);
    assert_eq!(world.refused(second).error, GroupError::Full);
    world.take_joins(&mut [&mut a, &mut c], &[first, third]);
    let hello = world.heartbeat(&b);
    assert_eq!(hello, Err(GroupError::UnknownMember));
}

#[test]
fn what_a_group_keeps_is_bounded() {
    let config = GroupLimits {
        max_member_bytes: 300,
        max_record_bytes: 1_500,
        max_members: 5,
        ..GroupLimits::default()
    };
    let mut world = World::with(config);
    let empty = GroupProtocol { name: text(""), metadata: bytes::Bytes::new() };
    for protocols in [protocols(&["x".repeat(150).as_str()]), vec![empty; 10]] {
        let ticket = world.join(&Client1 { protocols, ..dynamic() });
        assert_eq!(world.refused(ticket).error, GroupError::TooLarge);
    }
    let ticket = world.join(&dynamic().with(&["a", "b", "a"]));
    assert_eq!(world.refused(ticket).error, GroupError::InvalidRequest, "nobody votes twice");
    for _ in 0..5 {
        let ticket = world.join(&dynamic());
        assert_eq!(world.refused(ticket).error, GroupError::MemberIdRequired);
    }
    let before = world.group.pending_bytes();
    let ticket = world.join(&dynamic());
    assert_eq!(world.refused(ticket).error, GroupError::MemberIdRequired);
    assert_eq!(world.group.pending_bytes(), before, "the oldest is forgotten");

    let mut world = World::with(GroupLimits { max_members: 100, ..config });
    let big = "x".repeat(60);
    let taken = (0..20).filter(|_| {
        let ticket = world.join(&Client1 { id_required: false, ..dynamic().with(&[big.as_str()]) });
        world.parked(ticket)
    });
    assert!((4..8).contains(&taken.count()), "all of it must fit one record");
    // Beside what is brought, each member is counted with what it takes by itself.
    assert!((6_000..15_000).contains(&world.group.bytes()), "{}", world.group.bytes());
}

#[test]
fn ids_that_nobody_comes_back_with_are_counted_and_bounded_by_their_bytes() {
    let mut world = World::with(GroupLimits { max_record_bytes: 1_500, ..GroupLimits::default() });
    let mut pending = Vec::new();
    for _ in 0..100 {
        let ticket = world.join(&Client1 { session: 1_800_000, ..dynamic() });
        assert_eq!(world.refused(ticket).error, GroupError::MemberIdRequired);
        pending.push(world.group.pending_bytes());
    }
    // The group itself is counted with the first of them.
    let more = pending.iter().max().unwrap() - pending[0];
    assert!((800..=1_250).contains(&more) && pending[0] > 4_000, "{pending:?}");
    assert_eq!(world.group.bytes(), 0, "members have theirs beside");
    world.pass(61_000);
    assert_eq!(
        world.group.pending_bytes(),
        0,
        "forgotten after a minute, however long their sessions would have been"
    );
    let ticket = world.join(&dynamic());
    assert_eq!(world.refused(ticket).error, GroupError::MemberIdRequired);
}

#[test]
fn session_timeouts_have_bounds() {
    let mut world = World::new();
    for session in [-1, 0, 5_999, 1_800_001, i64::from(i32::MAX)] {
        let ticket = world.join(&Client1 { session, ..dynamic() });
        let refused = world.refused(ticket).error;
        assert!(matches!(refused, GroupError::InvalidSessionTimeout { .. }), "{refused}");
    }
    let ticket = world.join(&Client1 { session: 6_000, rebalance: -5, ..dynamic() });
    assert_eq!(world.refused(ticket).error, GroupError::MemberIdRequired);
}

#[test]
fn ids_nobody_gave_are_unknown() {
    let mut world = World::new();
    let claims = Client1 { member: text("mine"), ..dynamic() };
    let ticket = world.join(&claims);
    let refused = world.refused(ticket);
    assert_eq!((refused.error, &*refused.member), (GroupError::UnknownMember, "mine"));
    let mut a = dynamic();
    world.stable(&mut [&mut a]);
    let ticket = world.join(&claims);
    assert_eq!(world.refused(ticket).error, GroupError::UnknownMember);
    assert_eq!(world.heartbeat(&claims), Err(GroupError::UnknownMember));
    assert_eq!(world.leave("mine", None), Err(GroupError::UnknownMember));
}

#[test]
fn asking_again_on_a_new_connection_moves_the_parked_join_there() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let first = world.join(&a);
    let again = world.join(&a);
    assert_eq!(world.refused(first).error, GroupError::RebalanceInProgress);
    let second = world.join(&b);
    world.take_joins(&mut [&mut a, &mut b], &[again, second]);
}

#[test]
fn a_first_join_is_given_up_after_five_minutes() {
    let mut world = World::new();
    let (mut a, mut b) = (Client1 { rebalance: 1_000_000, session: 1_000_000, ..dynamic() }, dynamic());
    world.stable(&mut [&mut a]);
    let ticket = world.join_fully(&mut b);
    world.pass(299_999);
    assert!(world.parked(ticket), "the other has all the time it asked for");
    world.pass(1);
    assert_eq!(world.refused(ticket).error, GroupError::UnknownMember);
    assert_eq!(world.group.view().members.len(), 1);
}

#[test]
fn a_retired_group_answers_everyone_and_nobody_after() {
    let mut world = World::new();
    let (mut a, mut b) = (dynamic(), dynamic());
    world.stable(&mut [&mut a, &mut b]);
    let joining = world.join(&a);
    world.event(sabir_delivery::group::GroupEvent::Retire(GroupError::NotCoordinator));
    assert_eq!(world.refused(joining).error, GroupError::NotCoordinator);
    assert_eq!(world.group.state(), GroupPhase::Dead);
    let ticket = world.join(&a);
    assert_eq!(world.refused(ticket).error, GroupError::NotCoordinator);
    assert_eq!(world.heartbeat(&a), Err(GroupError::NotCoordinator));
    assert_eq!(world.commit(a.fence()), Err(GroupError::NotCoordinator));
    assert!(world.group.is_idle());
}

#[test]
fn a_group_that_never_got_an_assignment_leaves_no_trace() {
    let mut world = World::new();
    world.prompt = false;
    let mut a = dynamic();
    let ticket = world.join_fully(&mut a);
    assert_eq!(world.leave(&a.member, None), Ok(()));
    assert_eq!(world.refused(ticket).error, GroupError::UnknownMember);
    world.pass(DELAY);
    assert!(world.group.is_idle());
    assert!(world.proposed.is_empty());

    let (mut world, mut a) = (World::new(), dynamic());
    world.stable(&mut [&mut a]);
    world.prompt = false;
    assert_eq!(world.leave(&a.member, None), Ok(()));
    let [(_, GroupChange::Record(record))] = world.proposed.make_contiguous() else { panic!("one record") };
    assert_eq!((record.generation, record.members.len(), record.protocol.as_deref()), (2, 0, None));
    assert_eq!(&*record.protocol_type, "consumer");
}

#[test]
fn a_flood_of_joins_pushes_out_its_own_ids_and_no_others() {
    for (host, connection) in [("10.0.0.9", 9), ("127.0.0.1", 9)] {
        let mut world = World::with(GroupLimits {
            max_record_bytes: 30_000,
            initial_rebalance_delay_ms: DELAY,
            ..GroupLimits::default()
        });
        let flooding = Client1 { host: text(host), connection, ..dynamic() };
        let flood = |world: &mut World, joins: usize| {
            for _ in 0..joins {
                let ticket = world.join(&flooding);
                assert_eq!(world.refused(ticket).error, GroupError::MemberIdRequired);
            }
        };
        flood(&mut world, 1000);
        let ticket = world.join(&dynamic());
        let given = world.refused(ticket).member;
        flood(&mut world, 1000);
        let ticket = world.join(&Client1 { member: given, ..dynamic() });
        assert!(world.parked(ticket), "it comes back and is a member");
    }
}
