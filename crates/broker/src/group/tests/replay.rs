//! A checkpoint and the entries after it give what all entries from the first give.

use proptest::prelude::*;
use sabir_journal::pages::{Budget, MemPages, PageBatch, PageStore};

use super::*;
use crate::projection::{Dump, PageMap, Projection};
use crate::state::{CoreProjection, StoredMaps};

#[derive(Debug, Clone)]
enum Op {
    Join {
        group: u8,
        client: usize,
    },
    Sync {
        group: u8,
        client: usize,
    },
    Heartbeat {
        group: u8,
        client: usize,
    },
    Leave {
        group: u8,
        client: usize,
    },
    CommitOffset {
        group: u8,
        client: usize,
        topic: u8,
    },
    CommitOutside {
        group: u8,
        topic: u8,
    },
    Delete {
        group: u8,
    },
    DeleteOffsets {
        group: u8,
        topic: u8,
    },
    Pass(i64),
    Weeks(i64),
    Housekeep {
        gone: u8,
    },
    /// So many waiting entries commit.
    Commit(usize),
    /// So many of them are cut.
    Cut(usize),
    Restart,
    Checkpoint {
        entries: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (group, who, topic) = (0..4u8, 0..4usize, 0..4u8);
    prop_oneof![
        6 => (group.clone(), who.clone()).prop_map(|(group, client)| Op::Join { group, client }),
        6 => (group.clone(), who.clone()).prop_map(|(group, client)| Op::Sync { group, client }),
        2 => (group.clone(), who.clone()).prop_map(|(group, client)| Op::Heartbeat { group, client }),
        1 => (group.clone(), who.clone()).prop_map(|(group, client)| Op::Leave { group, client }),
        4 => (group.clone(), who, topic.clone())
            .prop_map(|(group, client, topic)| Op::CommitOffset { group, client, topic }),
        2 => (group.clone(), topic.clone()).prop_map(|(group, topic)| Op::CommitOutside { group, topic }),
        1 => group.clone().prop_map(|group| Op::Delete { group }),
        1 => (group, topic.clone()).prop_map(|(group, topic)| Op::DeleteOffsets { group, topic }),
        2 => (0..12_000i64).prop_map(Op::Pass),
        1 => (1..3i64).prop_map(Op::Weeks),
        1 => topic.prop_map(|gone| Op::Housekeep { gone }),
        8 => (1..5usize).prop_map(Op::Commit),
        1 => (1..4usize).prop_map(Op::Cut),
        1 => Just(Op::Restart),
        2 => (1..4usize).prop_map(|entries| Op::Checkpoint { entries }),
    ]
}

/// A checkpoint: the store, and how many entries it covers.
struct Kept {
    store: Arc<MemPages>,
    covers: usize,
}

struct World {
    rig: Rig,
    clients: Vec<Client1>,
    joining: Vec<Option<Reply<Result<Joined, JoinRefusal>>>>,
    kept: Option<Kept>,
}

impl World {
    fn new() -> Self {
        let rig = Rig::new();
        rig.prompt(false);
        let mut clients = vec![client(); 16];
        clients[3].instance = Some(Text::from("fixed"));
        let joining = clients.iter().map(|_| None).collect();
        Self { rig, clients, joining, kept: None }
    }

    fn name(group: u8) -> String {
        match group {
            // The name of those that belong to none: positions may be set, no member joins.
            2 => String::new(),
            // The last has the name of the first, and is another front end's.
            _ => format!("group-{}", group % 3),
        }
    }

    /// What its callers have.
    fn rig(&self, group: u8) -> Rig {
        let Rig { clock, shard, groups, options } = &self.rig;
        let other = GroupScope { namespace: Namespace::DEFAULT, front_end: Some(FrontendNo(2)) };
        let groups = if group == 3 { groups.within(other) } else { groups.clone() };
        Rig { clock: clock.clone(), shard: shard.clone(), groups, options: options.clone() }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Join { group, client } => {
                let i = usize::from(group) * 4 + client;
                self.joining[i] = Some(self.rig(group).join(&Self::name(group), &self.clients[i]));
            }
            Op::Sync { group, client } => {
                let i = usize::from(group) * 4 + client;
                let plan: Vec<_> = self.clients.iter().map(|c| (c, "work")).collect();
                drop(self.rig(group).sync(&Self::name(group), &self.clients[i], &plan));
            }
            Op::Heartbeat { group, client } => {
                let fence = self.clients[usize::from(group) * 4 + client].fence();
                let _ = self.rig(group).groups.heartbeat(&Self::name(group), &fence);
            }
            Op::Leave { group, client } => {
                let groups = self.rig(group).groups;
                let c = &mut self.clients[usize::from(group) * 4 + client];
                let leave = LeaveRequest { member: c.member.clone(), instance: c.instance.clone() };
                let _ = groups.leave(&Self::name(group), vec![leave]);
                c.member = Text::from("");
            }
            Op::CommitOffset { group, client, topic } => {
                let fence = self.clients[usize::from(group) * 4 + client].fence();
                drop(self.rig(group).groups.commit(
                    &Self::name(group),
                    fence,
                    vec![at(topic, 0, 9), at(topic, 1, 8)],
                ));
            }
            Op::CommitOutside { group, topic } => {
                drop(self.rig(group).groups.commit(&Self::name(group), outside(), vec![at(topic, 2, 7)]));
            }
            Op::Delete { group } => drop(self.rig(group).groups.delete(&Self::name(group))),
            Op::DeleteOffsets { group, topic } => {
                let which = vec![(TopicId([topic; 16]), 0), (TopicId([topic; 16]), 2)];
                drop(self.rig(group).groups.delete_offsets(&Self::name(group), &which));
            }
            Op::Pass(ms) => self.rig.pass(ms),
            Op::Weeks(weeks) => self.rig.clock.advance(weeks * 7 * 24 * 3600 * 1000),
            Op::Housekeep { gone } => self.rig.groups.housekeep(&|topic| topic.0[0] != gone),
            Op::Commit(entries) => (0..entries).for_each(|_| {
                self.rig.shard.commit_one();
            }),
            Op::Cut(entries) => self.rig.shard.cut_first(entries, ShardFailure::NotLeader),
            Op::Restart => {
                self.rig.restart();
                self.joining.iter_mut().for_each(|joining| *joining = None);
            }
            Op::Checkpoint { entries } => self.checkpoint(entries),
        }
        self.listen();
        self.check_led();
    }

    /// No member is forgotten: a group whose members the journal knows has a machine that watches them.
    fn check_led(&self) {
        let inner = self.rig.groups.shared.inner.lock();
        self.rig.groups.read(|table| {
            for (group, _) in table.iter().filter(|(_, state)| !state.is_empty()) {
                assert!(inner.led.contains_key(group), "{group}");
            }
        });
    }

    fn listen(&mut self) {
        for (joining, client) in self.joining.iter_mut().zip(&mut self.clients) {
            let Some(answer) = joining.as_mut().and_then(now) else { continue };
            *joining = None;
            match answer {
                Ok(joined) => client.take(&joined),
                Err(refused) => client.member = refused.member,
            }
        }
    }

    /// Captures a little at a time, entries committing in between.
    fn checkpoint(&mut self, entries: usize) {
        let store = self.kept.as_ref().map_or_else(MemPages::new, |kept| kept.store.clone());
        let shard = self.rig.shard.clone();
        let covers = {
            let mut state = shard.state.lock();
            map(&mut state.table).begin_checkpoint();
            state.log.len()
        };
        let mut batch = PageBatch::default();
        loop {
            let mut state = shard.state.lock();
            let more = map(&mut state.table).capture(&mut Budget { entries: 1, bytes: 1 << 20 });
            batch.extend(map(&mut state.table).take_captured());
            drop(state);
            if !more {
                break;
            }
            (0..entries).for_each(|_| {
                shard.commit_one();
            });
        }
        batch.extend(map(&mut shard.state.lock().table).take_captured());
        store.commit(batch).unwrap();
        map(&mut shard.state.lock().table).checkpoint_committed();
        self.kept = Some(Kept { store, covers });
    }

    fn check(&self) {
        let mut state = self.rig.shard.state.lock();
        let expected = dump(&mut state.table);
        let mut from_zero = replay(GroupTable::new(), &state.log);
        assert_eq!(dump(&mut from_zero), expected, "from zero");
        if let Some(kept) = &self.kept {
            let restored = GroupTable::restore(&StoredMaps::all(&*kept.store.crash())).unwrap();
            let mut resumed = replay(restored, &state.log[kept.covers..]);
            assert_eq!(dump(&mut resumed), expected, "from the checkpoint after {}", kept.covers);
        }
    }
}

fn map(table: &mut GroupTable) -> &mut dyn PageMap {
    table.maps().remove(0)
}

fn dump(table: &mut GroupTable) -> Dump {
    table.dump(&*MemPages::new()).unwrap()
}

fn replay(mut table: GroupTable, log: &[Logged]) -> GroupTable {
    for (kind, body, time_ms) in log {
        let _ = table.apply_entry(*kind, body, *time_ms).unwrap();
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn checkpoint_and_replay_equal_replay_from_zero(ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.check();
        world.rig.shard.commit();
        world.check();
    }

    /// Whatever was crashed out of, a start is led and comes to rest: the silent go, and memory holds nothing.
    #[test]
    fn after_a_crash_the_silent_are_forgotten(ops in prop::collection::vec(op(), 1..100)) {
        let mut world = World::new();
        ops.into_iter().for_each(|op| world.apply(op));
        world.rig.restart();
        world.rig.prompt(true);
        for _ in 0..40 {
            world.rig.pass(10_000);
        }
        let inner = world.rig.groups.shared.inner.lock();
        prop_assert!(inner.led.is_empty());
        prop_assert_eq!((inner.parked(), inner.totals.member_bytes()), (0, 0));
        drop(inner);
        world.rig.groups.read(|table| assert!(table.iter().all(|(_, state)| state.is_empty())));
    }
}

#[test]
fn an_entry_of_another_version_stops_the_replay() {
    let mut table = GroupTable::new();
    assert!(table.apply_entry(31, &[99], 0).is_err());
    assert!(table.apply_entry(34, &[1], 0).is_err());
    assert!(dump(&mut table).is_empty());
}
