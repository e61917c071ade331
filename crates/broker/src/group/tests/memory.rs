//! What groups take of the heap, beside what is counted of it.

use sabir_base::testing::taken_by;

use super::*;

/// Right after a hash table has grown, when it is emptiest, and right before.
const EMPTIEST: usize = 15_000;
const FULLEST: usize = 28_000;

/// What so many groups take, and what is counted of them.
fn measure(groups: usize, make: impl Fn(&Rig, usize)) -> (usize, usize) {
    let rig = Rig::with(GroupOptions { max_member_bytes: 1 << 30, ..GroupOptions::default() });
    let ((), taken) = taken_by(|| {
        for i in 0..groups {
            make(&rig, i);
            rig.shard.state.lock().log.clear();
        }
        rig.shard.state.lock().log = Vec::new();
    });
    let memory = rig.groups.member_memory();
    let counted = memory.bytes + memory.pending_bytes + rig.groups.read(GroupTable::bytes);
    (taken, counted)
}

fn is_counted(what: &str, make: impl Fn(&Rig, usize)) {
    for groups in [EMPTIEST, FULLEST] {
        let (taken, counted) = measure(groups, &make);
        let each = (taken / groups, counted / groups);
        println!("{what}: {} bytes each, {} counted", each.0, each.1);
        assert!(
            taken <= counted && counted < 2 * taken,
            "{what}, {groups} groups: {taken} taken, {counted} counted"
        );
    }
}

#[test]
fn what_groups_take_is_counted() {
    let long = |i: usize| format!("{i:01000}");
    let short = |i: usize| format!("console-consumer-{i}");
    let commit = |rig: &Rig, group: &str, positions: i32| {
        let offsets = (0..positions).map(|partition| at(1, partition, 7)).collect();
        assert!(now(&mut rig.groups.commit(group, outside(), offsets)).unwrap().iter().all(Result::is_ok));
    };
    let member = |rig: &Rig, group: &str| rig.settle_alone(group, &mut client());
    is_counted("one position", |rig, i| commit(rig, &short(i), 1));
    is_counted("one position and a long name", |rig, i| commit(rig, &long(i), 1));
    is_counted("twelve positions", |rig, i| commit(rig, &short(i), 12));
    is_counted("a member", |rig, i| member(rig, &short(i)));
    is_counted("a member and a long name", |rig, i| member(rig, &long(i)));
    is_counted("a member that has left", |rig, i| {
        let mut client = client();
        rig.settle_alone(&short(i), &mut client);
        let leaves = LeaveRequest { member: client.member.clone(), instance: None };
        assert!(rig.groups.leave(&short(i), vec![leaves]).is_ok());
    });
    is_counted("a given id", |rig, i| {
        let request = JoinRequest { id_required: true, ..client().request() };
        assert!(now(&mut rig.groups.join(&long(i), request)).is_some());
    });
    let (taken, counted) = measure(1, |rig, _| commit(rig, "g", 100_000));
    assert!(taken <= counted && counted < 2 * taken, "{taken} taken, {counted} counted");
}
