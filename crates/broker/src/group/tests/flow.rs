//! Requests through the driver and back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

#[test]
fn members_join_sync_and_commit() {
    let rig = Rig::new();
    let (mut a, mut b) = (client(), client());
    rig.settle_alone("g", &mut a);
    let mut second = rig.join("g", &b);
    assert!(now(&mut second).is_none(), "the first has to join again");
    assert_eq!(rig.groups.heartbeat("g", &a.fence()), Err(GroupError::RebalanceInProgress.into()));
    let mut first = rig.join("g", &a);
    let joined = now(&mut first).unwrap().unwrap();
    assert_eq!((joined.generation, joined.members.len()), (2, 2));
    a.take(&joined);
    b.take(&now(&mut second).unwrap().unwrap());

    let mut follower = rig.sync("g", &b, &[]);
    assert!(now(&mut follower).is_none());
    let mut leader = rig.sync("g", &a, &[(&a, "x"), (&b, "y")]);
    assert_eq!(now(&mut leader).unwrap().unwrap().assignment, "x");
    assert_eq!(now(&mut follower).unwrap().unwrap().assignment, "y");
    assert_eq!(rig.groups.heartbeat("g", &b.fence()), Ok(()));

    assert_eq!(now(&mut rig.commit_offset("g", b.fence(), 42)), Some(vec![Ok(())]));
    let stale = Fence { generation: 1, ..b.fence() };
    assert_eq!(
        now(&mut rig.commit_offset("g", stale, 1)),
        Some(vec![Err(GroupError::IllegalGeneration.into())])
    );
    let topic = TopicId([1; 16]);
    let fetched = rig.groups.fetch_offsets("g", &[(topic, 1), (topic, 0)]);
    assert!(fetched[0].is_none());
    let committed = fetched[1].as_ref().unwrap();
    assert_eq!((committed.offset, committed.time_ms), (Offset(42), START));
    assert_eq!(rig.groups.all_offsets("g").len(), 1);
    assert!(rig.groups.fetch_offsets("other", &[(topic, 0)])[0].is_none());

    let left =
        rig.groups.leave("g", vec![LeaveRequest { member: b.member.clone(), instance: None }]).unwrap();
    assert_eq!(left[0].result, Ok(()));
    assert_eq!(rig.groups.heartbeat("g", &a.fence()), Err(GroupError::RebalanceInProgress.into()));
}

#[test]
fn an_answer_waits_for_its_entry_and_wakes_who_waits() {
    struct Woken(AtomicUsize);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    let rig = Rig::new();
    let mut a = client();
    a.take(&now(&mut rig.join("g", &a)).unwrap().unwrap());
    rig.prompt(false);
    let mut sync = rig.sync("g", &a, &[(&a, "all")]);
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut sync).poll(&mut cx).is_pending());
    assert_eq!(rig.groups.describe("g").unwrap().state, GroupPhase::CompletingRebalance);
    assert_eq!(rig.commit_now(&a), Err(GroupError::RebalanceInProgress.into()));
    rig.shard.commit();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(now(&mut sync).unwrap().unwrap().assignment, "all");

    // A commit is answered, and seen, when it is applied and not before.
    let mut commit = rig.commit_offset("g", a.fence(), 7);
    assert!(now(&mut commit).is_none());
    assert!(rig.groups.all_offsets("g").is_empty());
    rig.shard.commit();
    assert_eq!(now(&mut commit), Some(vec![Ok(())]));
    assert_eq!(rig.groups.all_offsets("g").len(), 1);
}

impl Rig {
    fn commit_now(&self, client: &Client1) -> Result<(), ErrorAbout<GroupError>> {
        now(&mut self.commit_offset("g", client.fence(), 1)).expect("refused at once").remove(0)
    }
}

#[test]
fn what_was_legal_when_proposed_is_fenced_when_applied() {
    let rig = Rig::new();
    let mut a = client();
    rig.settle_alone("g", &mut a);
    rig.prompt(false);
    let leave = vec![LeaveRequest { member: a.member.clone(), instance: None }];
    let mut early = rig.commit_offset("g", a.fence(), 1);
    rig.groups.leave("g", leave).unwrap();
    let mut simple = rig.commit_offset("g", outside(), 2);
    rig.shard.commit();
    assert_eq!(now(&mut early), Some(vec![Ok(())]));
    assert_eq!(now(&mut simple), Some(vec![Ok(())]), "the group is empty once its entry before is applied");

    // The other way round: the entry that makes the commit void stands before it.
    let mut b = client();
    rig.prompt(true);
    rig.settle_alone("g", &mut b);
    rig.prompt(false);
    let fence = b.fence();
    let mut joining = rig.join("g", &b);
    b.take(&now(&mut joining).unwrap().unwrap());
    let mut sync = rig.sync("g", &b, &[(&b, "new")]);
    // As if it had passed the machine before the rebalance, and reached the journal after it.
    let mut late = rig.propose_commit(fence);
    rig.shard.commit();
    assert!(now(&mut sync).unwrap().is_ok());
    assert_eq!(now(&mut late), Some(Err(GroupError::IllegalGeneration.into())));
    assert_eq!(rig.groups.all_offsets("g")[0].1.offset, Offset(2));
}

impl Rig {
    fn propose_commit(&self, fence: Fence) -> Reply<Result<(), ErrorAbout<GroupError>>> {
        use sabir_delivery::group::entries::OffsetsCommitted;
        let offsets = vec![at(1, 0, 99)];
        let entry = OffsetsCommitted { group: GroupId::from("g"), fence, offsets };
        self.groups.request("g".into(), &entry)
    }
}

#[test]
fn a_cut_answers_everyone_and_the_group_goes_on_from_what_is_committed() {
    let rig = Rig::new();
    let (mut a, b) = (client(), client());
    rig.settle_alone("g", &mut a);
    rig.prompt(false);
    let mut commit = rig.commit_offset("g", a.fence(), 5);
    let mut second = rig.join("g", &b);
    let mut first = rig.join("g", &a);
    let mut next = a.clone();
    next.take(&now(&mut first).unwrap().unwrap());
    assert!(now(&mut second).unwrap().is_ok());
    let mut sync = rig.sync("g", &next, &[]);
    rig.shard.cut(ShardFailure::NotLeader);
    assert_eq!(now(&mut commit), Some(vec![Err(GroupError::Shard(ShardFailure::NotLeader).into())]));
    assert_eq!(now(&mut sync), Some(Err(GroupError::Shard(ShardFailure::NotLeader).into())));
    assert!(rig.groups.all_offsets("g").is_empty());
    assert_eq!(rig.groups.shared.inner.lock().parked(), 0);

    rig.prompt(true);
    let view = rig.groups.describe("g").unwrap();
    assert_eq!((view.state, view.generation, view.members.len()), (GroupPhase::Stable, 1, 1));
    assert_eq!(rig.groups.heartbeat("g", &a.fence()), Ok(()));
    assert_eq!(rig.groups.heartbeat("g", &next.fence()), Err(GroupError::IllegalGeneration.into()));
    // It expires as any other.
    rig.pass(10_000);
    assert_eq!(rig.groups.describe("g").unwrap().state, GroupPhase::Empty);
}

#[test]
fn what_a_given_up_machine_proposed_may_still_come_to_pass() {
    let rig = Rig::new();
    let (mut a, mut b) = (client(), client());
    rig.settle_alone("g", &mut a);
    rig.prompt(false);
    // The first stands in a block that is cut, the second in the one after.
    let leave = vec![LeaveRequest { member: a.member.clone(), instance: None }];
    rig.groups.leave("g", leave).unwrap();
    b.take(&now(&mut rig.join("g", &b)).unwrap().unwrap());
    let mut sync = rig.sync("g", &b, &[(&b, "all")]);
    rig.shard.cut_first(1, ShardFailure::NotLeader);
    assert_eq!(now(&mut sync), Some(Err(GroupError::Shard(ShardFailure::NotLeader).into())));
    assert_eq!(rig.groups.heartbeat("g", &a.fence()), Ok(()), "its leave was never stored");
    rig.shard.commit();
    rig.prompt(true);
    let view = rig.groups.describe("g").unwrap();
    assert_eq!((view.generation, &view.members[0].member), (b.generation, &b.member));
    assert_eq!(rig.groups.heartbeat("g", &b.fence()), Ok(()));
    assert_eq!(now(&mut rig.sync("g", &b, &[])).unwrap().unwrap().assignment, "all");
}

#[test]
fn groups_that_are_not_led_are_refused() {
    let clock = Arc::new(ManualClock::at(START));
    let shard = FakeShard::new(clock.clone(), GroupTable::new());
    let mut options = GroupOptions::default();
    options.limits.initial_rebalance_delay_ms = 0;
    let groups = Groups::new(shard.clone(), options.clone(), clock.clone());
    let rig = Rig { clock, shard, groups, options };
    let a = client();
    let refused = |why: GroupError| {
        assert_eq!(rig.groups.ready(), Err(why));
        assert_eq!(now(&mut rig.join("g", &a)).unwrap().unwrap_err().error, why.into());
        assert_eq!(now(&mut rig.sync("g", &a, &[])), Some(Err(why.into())));
        assert_eq!(rig.groups.heartbeat("g", &a.fence()), Err(why.into()));
        assert_eq!(rig.groups.leave("g", vec![]), Err(why.into()));
        assert_eq!(now(&mut rig.commit_offset("g", outside(), 1)), Some(vec![Err(why.into())]));
        assert_eq!(now(&mut rig.groups.delete("g")), Some(Err(why.into())));
        assert_eq!(now(&mut rig.groups.delete_offsets("g", &[])), Some(Err(why.into())));
    };
    refused(GroupError::Loading);
    rig.groups.lead();
    assert_eq!(rig.groups.ready(), Ok(()));
    rig.settle_alone("g", &mut a.clone());
    rig.groups.retire(GroupError::Shard(ShardFailure::ShuttingDown));
    refused(GroupError::Shard(ShardFailure::ShuttingDown));
    assert!(rig.groups.shared.inner.lock().led.is_empty());
}

#[test]
fn a_shard_that_takes_nothing_refuses_and_answers() {
    let rig = Rig::new();
    let mut a = client();
    rig.settle_alone("g", &mut a);
    rig.shard.state.lock().refuses = Some(ShardFailure::StorageError);
    assert_eq!(rig.commit_now(&a), Err(GroupError::Shard(ShardFailure::StorageError).into()));
    a.take(&now(&mut rig.join("g", &a)).unwrap().unwrap());
    assert_eq!(
        now(&mut rig.sync("g", &a, &[])),
        Some(Err(GroupError::Shard(ShardFailure::StorageError).into()))
    );
    assert_eq!(
        now(&mut rig.groups.delete_offsets("g", &[])),
        Some(Err(GroupError::Shard(ShardFailure::StorageError).into()))
    );
    assert!(rig.groups.shared.inner.lock().led.is_empty(), "it is as the table has it");
    // Storage that is full for a while: that the last member expired is stored when there is room again.
    rig.shard.state.lock().refuses = Some(ShardFailure::StorageFull);
    assert_eq!(rig.groups.heartbeat("g", &a.fence()), Err(GroupError::IllegalGeneration.into()));
    rig.pass(60_000);
    assert!(
        rig.groups.shared.inner.lock().led.contains_key(&GroupId::from("g")),
        "that it is empty is yet to be stored"
    );
    rig.shard.state.lock().refuses = None;
    rig.pass(2_000);
    assert!(rig.groups.shared.inner.lock().led.is_empty());
    assert!(rig.groups.read(|table| table.get(&GroupId::from("g")).unwrap().is_empty()));
}

#[test]
fn a_shard_that_does_not_lead_for_a_moment_loses_nobody() {
    let rig = Rig::new();
    let mut a = client();
    rig.settle_alone("g", &mut a);
    rig.shard.state.lock().refuses = Some(ShardFailure::NotLeader);
    rig.pass(15_000);
    assert_eq!(
        rig.groups.describe("g").unwrap().state,
        GroupPhase::Stable,
        "that it is silent cannot be stored"
    );
    rig.shard.state.lock().refuses = None;
    rig.pass(10_000);
    assert_eq!(rig.groups.describe("g").unwrap().state, GroupPhase::Empty);
}

#[test]
fn a_full_block_refuses_the_assignment() {
    let rig = Rig::new();
    let mut a = client();
    a.take(&now(&mut rig.join("g", &a)).unwrap().unwrap());
    rig.prompt(false);
    let mut sync = rig.sync("g", &a, &[(&a, "all")]);
    rig.shard.cut(ShardFailure::StorageFull);
    assert_eq!(now(&mut sync), Some(Err(GroupError::Shard(ShardFailure::StorageFull).into())));
    rig.prompt(true);
    rig.settle_alone("g", &mut a);
}

#[test]
fn groups_are_described_listed_and_deleted() {
    let rig = Rig::new();
    let mut a = client();
    rig.settle_alone("b-members", &mut a);
    assert_eq!(now(&mut rig.commit_offset("a-simple", outside(), 1)), Some(vec![Ok(())]));
    let listed: Vec<_> =
        rig.groups.list().into_iter().map(|l| (l.group, l.protocol_type, l.phase.name())).collect();
    let text = Text::from;
    assert_eq!(
        listed,
        [
            (text("a-simple").into(), text(""), "Empty"),
            (text("b-members").into(), text("consumer"), "Stable"),
        ]
    );
    let view = rig.groups.describe("b-members").unwrap();
    assert_eq!(
        (&*view.members[0].metadata, &*view.members[0].assignment),
        (b"topics".as_slice(), b"all".as_slice())
    );
    assert!(rig.groups.describe("none").is_none());

    assert_eq!(now(&mut rig.groups.delete("b-members")), Some(Err(GroupError::NotEmpty.into())));
    assert_eq!(now(&mut rig.groups.delete("none")), Some(Err(GroupError::NotFound.into())));
    assert_eq!(now(&mut rig.groups.delete("")), Some(Err(GroupError::NotFound.into())));
    assert_eq!(now(&mut rig.groups.delete(&"x".repeat(1025))), Some(Err(GroupError::InvalidId.into())));
    assert_eq!(now(&mut rig.groups.delete("a-simple")), Some(Ok(())));
    assert!(rig.groups.describe("a-simple").is_none());

    // A member joins while the deletion is on its way: the entry decides.
    now(&mut rig.commit_offset("race", outside(), 1)).unwrap();
    rig.prompt(false);
    let mut b = client();
    let mut deletion = rig.groups.delete("race");
    b.take(&now(&mut rig.join("race", &b)).unwrap().unwrap());
    let mut sync = rig.sync("race", &b, &[(&b, "all")]);
    rig.shard.commit();
    assert_eq!(now(&mut deletion), Some(Ok(())));
    assert!(now(&mut sync).unwrap().is_ok());
    assert!(rig.groups.all_offsets("race").is_empty());
    let mut b = client();
    rig.prompt(true);
    rig.settle_alone("race2", &mut b);
    rig.groups.leave("race2", vec![LeaveRequest { member: b.member, instance: None }]).unwrap();
    rig.prompt(false);
    let mut c = client();
    c.take(&now(&mut rig.join("race2", &c)).unwrap().unwrap());
    let _sync = rig.sync("race2", &c, &[]);
    let mut deletion = rig.propose_delete("race2");
    rig.shard.commit();
    assert_eq!(now(&mut deletion), Some(Err(GroupError::NotEmpty.into())));
}

impl Rig {
    fn propose_delete(&self, group: &str) -> Reply<Result<(), ErrorAbout<GroupError>>> {
        use sabir_delivery::group::entries::GroupDeleted;
        let entry = GroupDeleted { group: GroupId::from(group) };
        self.groups.request(group.into(), &entry)
    }
}

#[test]
fn positions_are_deleted_one_by_one() {
    let rig = Rig::new();
    let commit = rig.groups.commit("g", outside(), vec![at(1, 0, 5), at(1, 1, 6), at(2, 0, 7)]);
    assert_eq!(now(&mut { commit }), Some(vec![Ok(()); 3]));
    let which = vec![(TopicId([1; 16]), 1), (TopicId([3; 16]), 0)];
    assert_eq!(now(&mut rig.groups.delete_offsets("g", &which)), Some(Ok(())));
    let left: Vec<_> = rig.groups.all_offsets("g").iter().map(|((t, p), _)| (t.0[0], *p)).collect();
    assert_eq!(left, [(1, 0), (2, 0)]);
    assert_eq!(now(&mut rig.groups.delete_offsets("none", &[])), Some(Err(GroupError::NotFound.into())));
}

#[test]
fn bad_commits_and_bad_names() {
    let rig = Rig::new();
    let long = OffsetCommit { metadata: "x".repeat(MAX_METADATA + 1).into(), ..at(1, 0, 1) };
    let fits = OffsetCommit { metadata: "x".repeat(MAX_METADATA).into(), ..at(1, 1, 1) };
    let mut commit = rig.groups.commit("g", outside(), vec![long.clone(), fits]);
    assert_eq!(now(&mut commit), Some(vec![Err(GroupError::MetadataTooLarge.into()), Ok(())]));
    assert_eq!(rig.groups.all_offsets("g").len(), 1);
    // Counted in units of UTF-16: one of the first two signs is one, the third takes two.
    for (sign, most) in
        [("\u{fc}", MAX_METADATA), ("\u{20ac}", MAX_METADATA), ("\u{1f600}", MAX_METADATA / 2)]
    {
        let commit = |signs: usize| {
            let metadata = sign.repeat(signs).into();
            now(&mut rig.groups.commit("wide", outside(), vec![OffsetCommit { metadata, ..at(1, 0, 1) }]))
        };
        assert_eq!(commit(most), Some(vec![Ok(())]), "{sign}");
        assert_eq!(commit(most + 1), Some(vec![Err(GroupError::MetadataTooLarge.into())]), "{sign}");
    }
    let before = rig.shard.log_len();
    let mut commit = rig.groups.commit("g", outside(), vec![long]);
    assert_eq!(now(&mut commit), Some(vec![Err(GroupError::MetadataTooLarge.into())]));
    assert_eq!(now(&mut rig.groups.commit("g", outside(), vec![])), Some(vec![]));
    assert_eq!(rig.shard.log_len(), before, "nothing to store");

    let stranger = Fence { generation: 3, ..client().fence() };
    let commit = |group: &str| now(&mut rig.commit_offset(group, stranger.clone(), 1)).unwrap().remove(0);
    assert_eq!(commit("unknown"), Err(GroupError::NotFound.into()));
    assert_eq!(commit("g"), Err(GroupError::UnknownMember.into()));
    for (name, expected) in
        [("", GroupError::NotFound), (&*"x".repeat(MAX_GROUP_ID + 1), GroupError::InvalidId)]
    {
        assert_eq!(commit(name), Err(expected.into()), "positions may be set for no group");
        assert_eq!(rig.groups.heartbeat(name, &stranger), Err(GroupError::InvalidId.into()));
        assert_eq!(rig.groups.leave(name, vec![]), Err(GroupError::InvalidId.into()));
        assert_eq!(now(&mut rig.sync(name, &client(), &[])), Some(Err(GroupError::InvalidId.into())));
        let refused = now(&mut rig.join(name, &client())).unwrap().unwrap_err();
        assert_eq!(refused.error, GroupError::InvalidId.into());
    }
    let claims = Client1 { member: Text::from("me"), ..client() };
    assert_eq!(
        now(&mut rig.join("new", &claims)).unwrap().unwrap_err().error,
        GroupError::UnknownMember.into()
    );
    assert_eq!(rig.groups.heartbeat("new", &stranger), Err(GroupError::UnknownMember.into()));
    assert_eq!(now(&mut rig.sync("new", &claims, &[])), Some(Err(GroupError::UnknownMember.into())));
    assert!(rig.groups.shared.inner.lock().led.is_empty(), "none of these leaves a machine");
    assert!(rig.groups.describe("new").is_none());
}

#[test]
fn member_ids_tell_who_and_are_never_the_same() {
    let rig = Rig::new();
    let mut ids: Vec<Text> = Vec::new();
    for i in 0..100 {
        let mut c = client();
        c.take(&now(&mut rig.join(&format!("g{i}"), &c)).unwrap().unwrap());
        ids.push(c.member);
    }
    assert!(ids.iter().all(|id| id.starts_with("app-") && id.len() == 36));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 100);
    let fixed = Client1 { instance: Some(Text::from("node-7")), ..client() };
    let joined = now(&mut rig.join("static", &fixed)).unwrap().unwrap();
    assert!(joined.member.starts_with("node-7-"));
}
