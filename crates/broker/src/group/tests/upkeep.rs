//! Deadlines, retention, limits, and a start.

use std::time::Duration;

use super::*;

#[test]
fn a_thousand_groups_cost_little() {
    let rig = Rig::new();
    let names: Vec<String> = (0..1_000).map(|i| format!("g{i}")).collect();
    let mut clients: Vec<Client1> = names.iter().map(|_| client()).collect();
    names.iter().zip(&mut clients).for_each(|(name, client)| rig.settle_alone(name, client));
    let before = rig.shard.log_len();
    // Ten minutes of heartbeats every three seconds, a tick every half.
    for _ in 0..200 {
        for (name, client) in names.iter().zip(&clients) {
            assert_eq!(rig.groups.heartbeat(name, &client.fence()), Ok(()));
        }
        rig.pass(3_000);
    }
    assert!(
        rig.groups.shared.inner.lock().wakes() <= 2 * names.len(),
        "a group is in the heap once, or twice"
    );
    assert_eq!(rig.shard.log_len(), before, "heartbeats write nothing");
    // Then silence: all are gone within a session, and nothing is left of them in memory.
    rig.pass(11_000);
    let inner = rig.groups.shared.inner.lock();
    assert!(inner.led.is_empty());
    assert_eq!((inner.parked(), inner.totals.member_bytes(), inner.totals.unstored()), (0, 0, 0));
    drop(inner);
    assert_eq!(rig.shard.log_len() - before, names.len(), "one entry each");
    rig.pass(60_000);
    assert_eq!(rig.groups.shared.inner.lock().wakes(), 0);
}

/// Each would be in the heap until its session is over, half an hour later.
#[test]
fn groups_that_come_and_go_leave_nothing_behind() {
    let rig = Rig::new();
    for i in 0..5_000 {
        let group = format!("g{i}");
        let request = JoinRequest { id_required: true, ..client().request() };
        let told = now(&mut rig.groups.join(&group, request)).unwrap().unwrap_err();
        assert_eq!(told.error, GroupError::MemberIdRequired.into());
        let leaver = LeaveRequest { member: told.member, instance: None };
        assert_eq!(rig.groups.leave(&group, vec![leaver]).unwrap()[0].result, Ok(()));
    }
    let inner = rig.groups.shared.inner.lock();
    assert_eq!((inner.led.len(), inner.totals.unstored(), inner.totals.member_bytes()), (0, 0, 0));
    assert!(inner.wakes() < 1100, "{}", inner.wakes());
}

#[test]
fn a_start_leads_every_group_with_members_and_expires_the_silent() {
    let mut rig = Rig::new();
    let (mut a, mut b) = (client(), client());
    rig.settle_alone("alive", &mut a);
    rig.settle_alone("silent", &mut b);
    now(&mut rig.commit_offset("simple", outside(), 1)).unwrap();
    rig.pass(9_000);
    rig.restart();
    assert_eq!(rig.groups.shared.inner.lock().led.len(), 2, "those without members need no machine");
    rig.pass(9_000);
    assert_eq!(rig.groups.heartbeat("alive", &a.fence()), Ok(()));
    rig.pass(9_000);
    assert_eq!(rig.groups.heartbeat("silent", &b.fence()), Err(GroupError::UnknownMember.into()));
    assert_eq!(rig.groups.describe("alive").unwrap().state, GroupPhase::Stable);
    assert_eq!(rig.groups.describe("silent").unwrap().state, GroupPhase::Empty);
}

#[test]
fn a_clock_that_jumps_expires_nobody() {
    let rig = Rig::new();
    let mut a = client();
    rig.settle_alone("g", &mut a);
    rig.clock.advance(24 * 3600 * 1000);
    rig.groups.tick();
    rig.clock.advance(-48 * 3600 * 1000);
    rig.groups.tick();
    assert_eq!(rig.groups.heartbeat("g", &a.fence()), Ok(()));
    rig.pass(10_000);
    assert_eq!(rig.groups.describe("g").unwrap().state, GroupPhase::Empty);
}

#[test]
fn offsets_expire_a_week_after_their_group_is_empty() {
    let rig = Rig::new();
    let day = 24 * 3600 * 1000;
    let mut a = client();
    rig.settle_alone("g", &mut a);
    now(&mut rig.commit_offset("g", a.fence(), 1)).unwrap();
    now(&mut rig.commit_offset("simple", outside(), 1)).unwrap();
    let exists = |_: TopicId| true;
    rig.clock.advance(30 * day);
    rig.groups.housekeep(&exists);
    assert_eq!(rig.groups.all_offsets("g").len(), 1, "it has a member");
    assert!(rig.groups.describe("simple").is_none());
    rig.groups.leave("g", vec![LeaveRequest { member: a.member, instance: None }]).unwrap();
    rig.clock.advance(7 * day - 1);
    rig.groups.housekeep(&exists);
    assert_eq!(rig.groups.all_offsets("g").len(), 1);
    rig.clock.advance(1);
    rig.groups.housekeep(&exists);
    assert!(rig.groups.describe("g").is_none());
    let before = rig.shard.log_len();
    rig.groups.housekeep(&exists);
    assert_eq!(rig.shard.log_len(), before, "nothing to do, nothing written");
}

#[test]
fn offsets_of_deleted_topics_go() {
    let rig = Rig::new();
    let mut a = client();
    rig.settle_alone("g", &mut a);
    let commit = rig.groups.commit("g", a.fence(), vec![at(1, 0, 5), at(1, 1, 5), at(2, 0, 6), at(3, 0, 7)]);
    now(&mut { commit }).unwrap();
    rig.groups.housekeep(&|topic| topic.0[0] == 2);
    let left: Vec<_> = rig.groups.all_offsets("g").iter().map(|((t, _), _)| t.0[0]).collect();
    assert_eq!(left, [2]);
}

#[test]
fn there_is_an_end_to_groups_and_to_what_members_bring() {
    let rig = Rig::with(GroupOptions { max_groups: 3, ..GroupOptions::default() });
    for i in 0..3 {
        assert_eq!(now(&mut rig.commit_offset(&format!("g{i}"), outside(), 1)), Some(vec![Ok(())]));
    }
    let commit = now(&mut rig.commit_offset("more", outside(), 1));
    assert_eq!(commit, Some(vec![Err(GroupError::LimitReached.into())]));
    let refused =
        |group: &str| now(&mut rig.join(group, &client())).unwrap().map_err(|refused| refused.error);
    assert_eq!(refused("more").unwrap_err(), GroupError::LimitReached.into());
    assert!(refused("g1").is_ok(), "one that exists");
    assert_eq!(now(&mut rig.commit_offset("g2", outside(), 2)), Some(vec![Ok(())]));

    let rig = Rig::with(GroupOptions { max_member_bytes: 30_000, ..GroupOptions::default() });
    let taken = (0..50).filter(|i| now(&mut rig.join(&format!("g{i}"), &client())).unwrap().is_ok()).count();
    assert!((2..6).contains(&taken), "{taken}");
    assert!(rig.groups.shared.inner.lock().led.len() <= taken, "the refused leave no machine");
}

/// Two members of one group, which is stable.
fn settle_two(rig: &Rig, group: &str, a: &mut Client1, b: &mut Client1) {
    rig.settle_alone(group, a);
    let mut second = rig.join(group, b);
    a.take(&now(&mut rig.join(group, a)).unwrap().unwrap());
    b.take(&now(&mut second).unwrap().unwrap());
    let mut follower = rig.sync(group, b, &[]);
    assert!(now(&mut rig.sync(group, a, &[(a, "some"), (b, "others")])).unwrap().is_ok());
    assert!(now(&mut follower).unwrap().is_ok());
}

#[test]
fn groups_that_are_there_rebalance_when_others_have_filled_the_memory() {
    let rig = Rig::with(GroupOptions { max_member_bytes: 200_000, ..GroupOptions::default() });
    let (mut a, mut b) = (client(), client());
    settle_two(&rig, "good", &mut a, &mut b);
    let refused = |group: &str| {
        let joined = now(&mut rig.join(group, &client()));
        joined.is_some_and(|joined| {
            joined.is_err_and(|refused| refused.error == GroupError::LimitReached.into())
        })
    };
    // New groups, and then groups that are stored with what they may have beyond.
    let strangers: Vec<String> = (0..100).map(|i| format!("x{i}")).collect();
    for stranger in &strangers {
        let mut alone = client();
        let Some(Ok(joined)) = now(&mut rig.join(stranger, &alone)) else { break };
        alone.take(&joined);
        let _ = now(&mut rig.sync(stranger, &alone, &[(&alone, "all")]));
    }
    for stranger in &strangers {
        while rig.groups.describe(stranger).is_some() && !refused(stranger) {}
    }
    assert!(refused("new") && refused("x0"));
    let memory = rig.groups.member_memory();
    assert!((90_000..=125_000).contains(&memory.bytes) && memory.refused > 2, "{memory:?}");

    // A leader that joins again calls for a rebalance, and the other one goes with it.
    let mut first = rig.join("good", &a);
    assert!(now(&mut first).is_none());
    let second = now(&mut rig.join("good", &b)).unwrap().unwrap();
    a.take(&now(&mut first).unwrap().unwrap());
    b.take(&second);
    let mut follower = rig.sync("good", &b, &[]);
    assert!(now(&mut rig.sync("good", &a, &[(&a, "others"), (&b, "some")])).unwrap().is_ok());
    assert_eq!(now(&mut follower).unwrap().unwrap().assignment, "some");
    assert_eq!(rig.groups.member_memory().bytes, memory.bytes);
}

/// Has clients of an address make groups until one is refused; how many were made.
fn fill_from(rig: &Rig, host: &str) -> usize {
    let makes = |i: usize| {
        let (group, mut alone) = (format!("{host} {i}"), client());
        let identity = ClientIdentity { id: Text::from("app"), host: Text::from(host) };
        let request = JoinRequest { client: identity, ..alone.request() };
        let Some(Ok(joined)) = now(&mut rig.groups.join(&group, request)) else { return false };
        alone.take(&joined);
        matches!(now(&mut rig.sync(&group, &alone, &[(&alone, "all")])), Some(Ok(_)))
    };
    (0..1_000).take_while(|i| makes(*i)).count()
}

#[test]
fn the_groups_of_one_address_leave_half_of_the_memory_to_others() {
    let mut rig = Rig::with(GroupOptions { max_member_bytes: 400_000, ..GroupOptions::default() });
    let first = fill_from(&rig, "10.0.0.1");
    let taken = rig.groups.member_memory().bytes;
    assert!((150_000..=200_000).contains(&taken) && first > 20, "{first} groups, {taken} bytes");
    assert_eq!(fill_from(&rig, "10.0.0.2"), first);
    assert!(fill_from(&rig, "10.0.0.3") <= 1);
    // What is known of a group's address is known after a restart, and given back when it ends.
    for i in 0..first {
        let group = format!("10.0.0.1 {i}");
        let view = rig.groups.describe(&group).unwrap();
        let leaves = view.members.iter().map(|m| LeaveRequest { member: m.member.clone(), instance: None });
        assert!(rig.groups.leave(&group, leaves.collect()).unwrap().iter().all(|left| left.result.is_ok()));
    }
    rig.restart();
    let of = |host: &str| rig.groups.shared.inner.lock().totals.addresses().bytes(&Text::from(host));
    assert!(of("10.0.0.1") == 0 && of("10.0.0.2") > 150_000, "{} {}", of("10.0.0.1"), of("10.0.0.2"));
    assert!((first - 2..=first + 2).contains(&fill_from(&rig, "10.0.0.1")));
}

#[test]
fn ids_that_nobody_comes_back_for_shut_out_neither_members_nor_clients_that_ask_for_ids() {
    let rig = Rig::with(GroupOptions { max_member_bytes: 1_600_000, ..GroupOptions::default() });
    let request = JoinRequest { id_required: true, session_timeout_ms: 1_800_000, ..client().request() };
    let ask = |group: &str| now(&mut rig.groups.join(group, request.clone())).unwrap().unwrap_err();
    for i in 0..5000 {
        assert_eq!(ask(&format!("x{i}")).error, GroupError::MemberIdRequired.into());
        assert_eq!(ask("one").error, GroupError::MemberIdRequired.into());
    }
    let memory = rig.groups.member_memory();
    assert!((350_000..420_000).contains(&memory.pending_bytes), "{memory:?}");
    assert_eq!((memory.bytes, memory.refused), (0, 0));
    {
        let inner = rig.groups.shared.inner.lock();
        assert!(inner.led.len() < 80, "{}", inner.led.len());
    }
    assert!(now(&mut rig.join("good", &client())).unwrap().is_ok());
    // A client that comes back soon is let in, however many have asked since.
    let given = ask("new").member;
    (0..10).for_each(|i| assert_eq!(ask(&format!("y{i}")).error, GroupError::MemberIdRequired.into()));
    let back = JoinRequest { member: given, ..request.clone() };
    assert!(now(&mut rig.groups.join("new", back)).unwrap().is_ok());
    rig.pass(61_000);
    assert_eq!(rig.groups.member_memory().pending_bytes, 0);
}

#[test]
fn ids_of_all_homes_are_together_in_what_they_may_take_and_the_oldest_goes_first() {
    let clock = Arc::new(ManualClock::at(START));
    let shard = || FakeShard::new(clock.clone(), GroupTable::new()) as Arc<dyn GroupShard>;
    let mut options = GroupOptions { max_member_bytes: 1_600_000, ..GroupOptions::default() };
    options.limits.initial_rebalance_delay_ms = 0;
    let drivers = GroupDrivers::new(vec![shard(), shard()], &options, &(clock.clone() as Arc<dyn Clock>));
    drivers.each().iter().for_each(Groups::lead);
    let names = (0..).map(|i| Namespace::named(&format!("n{i}")).unwrap());
    let elsewhere = names.into_iter().find(|name| name.home(2).0 == 2).unwrap();
    let [one, two] = [Namespace::DEFAULT, elsewhere]
        .map(|namespace| drivers.of(GroupScope { namespace, front_end: Some(FrontendNo(1)) }));
    let request = JoinRequest { id_required: true, session_timeout_ms: 1_800_000, ..client().request() };
    let ask = |groups: &Groups, group: &str| {
        let refused = now(&mut groups.join(group, request.clone())).unwrap().unwrap_err();
        assert_eq!(refused.error, GroupError::MemberIdRequired.into());
        refused.member
    };
    let back = |groups: &Groups, group: &str, member: Text| {
        now(&mut groups.join(group, JoinRequest { member, ..request.clone() })).unwrap()
    };
    let oldest = ask(&one, "oldest");
    (0..5000).for_each(|i| drop(ask(&one, &format!("x{i}"))));
    // The one home is full of ids; those of the other come after them, and stay.
    let given: Vec<_> = (0..5).map(|i| (format!("y{i}"), ask(&two, &format!("y{i}")))).collect();
    assert!((350_000..420_000).contains(&two.member_memory().pending_bytes), "{:?}", two.member_memory());
    for (group, id) in given {
        assert!(back(&two, &group, id).is_ok(), "{group}");
    }
    assert_eq!(back(&one, "oldest", oldest).unwrap_err().error, GroupError::UnknownMember.into());
    assert_eq!(one.member_memory().refused, 0);
}

/// Asks for an id by so many connections of an address, in turns, each time for a group of its own.
fn flood(rig: &Rig, host: &str, connections: u64, joins: usize) {
    for i in 0..joins {
        let identity = ClientIdentity { id: Text::from("flooding"), host: Text::from(host) };
        let connection = 100 + i as u64 % connections;
        let request = JoinRequest { id_required: true, connection, client: identity, ..client().request() };
        let refused = now(&mut rig.groups.join(&format!("{host}-{i}"), request)).unwrap().unwrap_err();
        assert_eq!(refused.error, GroupError::MemberIdRequired.into());
    }
}

#[test]
fn a_flood_of_joins_pushes_out_its_own_ids_and_lets_honest_clients_join() {
    for (host, connections, max_groups) in [
        ("127.0.0.1", 1, 100_000),
        ("10.0.0.9", 1, 100_000),
        ("10.0.0.9", 10_000, 100_000),
        ("127.0.0.1", 1, 400),
    ] {
        let rig =
            Rig::with(GroupOptions { max_member_bytes: 1 << 20, max_groups, ..GroupOptions::default() });
        let request = JoinRequest { id_required: true, connection: 1, ..client().request() };
        flood(&rig, host, connections, 2000);
        let given = now(&mut rig.groups.join("good", request.clone())).unwrap().unwrap_err();
        assert_eq!(given.error, GroupError::MemberIdRequired.into());
        flood(&rig, host, connections, 2000);
        let back = JoinRequest { member: given.member, ..request };
        assert!(
            now(&mut rig.groups.join("good", back)).unwrap().is_ok(),
            "{host}, {connections}, {max_groups}"
        );
        assert_eq!(rig.groups.member_memory().refused, 0);
    }
}

#[test]
fn an_id_told_and_never_used_is_forgotten() {
    let rig = Rig::new();
    let request = JoinRequest { id_required: true, ..client().request() };
    let refused = now(&mut rig.groups.join("g", request)).unwrap().unwrap_err();
    assert_eq!(refused.error, GroupError::MemberIdRequired.into());
    assert_eq!(rig.groups.shared.inner.lock().led.len(), 1);
    rig.pass(10_000);
    assert!(rig.groups.shared.inner.lock().led.is_empty());
    assert_eq!(rig.shard.log_len(), 0);
}

#[test]
fn who_stops_leading_answers_everyone() {
    let rig = Rig::new();
    let (mut a, mut b) = (client(), client());
    rig.settle_alone("g", &mut a);
    rig.settle_alone("h", &mut b);
    let mut parked = rig.join("g", &client());
    assert!(now(&mut parked).is_none());
    rig.groups.retire(GroupError::Shard(ShardFailure::ShuttingDown));
    assert_eq!(
        now(&mut parked).unwrap().unwrap_err().error,
        GroupError::Shard(ShardFailure::ShuttingDown).into()
    );
    let inner = rig.groups.shared.inner.lock();
    assert!(inner.led.is_empty());
    assert_eq!((inner.parked(), inner.totals.member_bytes()), (0, 0));
}

#[test]
fn retention_may_be_as_long_as_one_likes() {
    let rig = Rig::with(GroupOptions { offsets_retention: Duration::MAX, ..GroupOptions::default() });
    now(&mut rig.commit_offset("g", outside(), 1)).unwrap();
    rig.clock.advance(1_000_000_000_000);
    rig.groups.housekeep(&|_| true);
    assert_eq!(rig.groups.all_offsets("g").len(), 1);
}
