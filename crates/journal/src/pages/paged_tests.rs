use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{
    Budget, CommitFault, MAX_PAGE, MemPages, PageBatch, PageDecodeError, PageError, PageKey, PageStore,
    PageValue, Paged,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key(Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Value(Vec<u8>);

impl PageKey for Key {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        Ok(Self(bytes.to_vec()))
    }
}

impl PageValue for Value {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        if bytes == b"no value" {
            return Err(PageDecodeError("not one of ours".into()));
        }
        Ok(Self(bytes.to_vec()))
    }
}

type Map = Paged<Key, Value>;
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const PREFIX: &[u8] = b"map/";
const ALL: Budget = Budget { entries: usize::MAX, bytes: usize::MAX };

fn key(name: &str) -> Key {
    Key(name.as_bytes().to_vec())
}

fn value(byte: u8, len: usize) -> Value {
    Value(vec![byte; len])
}

fn contents(map: &Map) -> Model {
    map.dump().into_iter().map(|(k, v)| (k[PREFIX.len()..].to_vec(), v)).collect()
}

fn finish_capture(map: &mut Map) -> PageBatch {
    let mut batch = PageBatch::default();
    while map.capture(&mut ALL.clone()) {}
    batch.extend(map.take_captured());
    batch
}

fn checkpoint(map: &mut Map, store: &MemPages) {
    map.begin_checkpoint();
    let batch = finish_capture(map);
    store.commit(batch).unwrap();
    map.checkpoint_committed();
}

fn restored(store: &MemPages) -> Map {
    Map::restore(PREFIX, store).unwrap()
}

#[test]
fn only_what_changed_is_written() {
    let (mut map, store) = (Map::new(PREFIX), MemPages::new());
    for i in 0..100u8 {
        map.insert(Key(vec![i]), value(i, 10));
    }
    assert_eq!((map.len(), map.dirty()), (100, 100));
    checkpoint(&mut map, &store);
    assert_eq!((map.dirty(), store.len()), (0, 101));

    map.get_mut(&Key(vec![7])).unwrap().0.push(1);
    map.get_mut(&Key(vec![7])).unwrap().0.push(2);
    map.remove(&Key(vec![8])).unwrap();
    assert!(map.get(&Key(vec![9])).is_some() && !map.contains(&Key(vec![8])));
    assert_eq!(map.dirty(), 2);
    map.begin_checkpoint();
    let batch = finish_capture(&mut map);
    assert_eq!(batch.len(), 3, "a page, a deletion and the summary");
    store.commit(batch).unwrap();
    map.checkpoint_committed();
    assert_eq!(contents(&restored(&store)), contents(&map));

    map.begin_checkpoint();
    assert!(finish_capture(&mut map).is_empty(), "nothing changed, nothing is written");
    map.checkpoint_committed();
}

#[test]
fn what_changes_after_the_cut_is_not_in_the_checkpoint() {
    let (mut map, store) = (Map::new(PREFIX), MemPages::new());
    for name in ["changed", "removed", "replaced", "gone", "still"] {
        map.insert(key(name), value(1, 5));
    }
    checkpoint(&mut map, &store);
    for name in ["changed", "removed", "replaced"] {
        *map.get_mut(&key(name)).unwrap() = value(2, 5);
    }
    map.remove(&key("gone"));
    let cut = contents(&map);
    map.begin_checkpoint();
    *map.get_mut(&key("changed")).unwrap() = value(3, 5);
    map.remove(&key("removed")).unwrap();
    map.insert(key("replaced"), value(3, 5)).unwrap();
    assert_eq!(map.insert(key("gone"), value(3, 5)), None);
    *map.get_mut(&key("still")).unwrap() = value(3, 5);
    map.insert(key("new"), value(3, 5));
    let now = contents(&map);

    let batch = finish_capture(&mut map);
    store.commit(batch).unwrap();
    map.checkpoint_committed();
    assert_eq!(contents(&restored(&store)), cut);
    assert_eq!(contents(&map), now);
    checkpoint(&mut map, &store);
    assert_eq!(contents(&restored(&store)), now);
}

#[test]
fn a_large_value_is_split_and_shrinks_again() {
    let (mut map, store) = (Map::new(PREFIX), MemPages::new());
    for len in
        [0, 1, MAX_PAGE - 6, MAX_PAGE - 5, MAX_PAGE - 4, MAX_PAGE, 2 * MAX_PAGE - 5, 2 * MAX_PAGE, 100_000, 0]
    {
        let large = Value((0..len).map(|i| (i % 251) as u8).collect());
        map.insert(key("large"), large.clone());
        // Its pages stand between those of the large one.
        map.insert(Key(b"large\0\0\0\x01x".to_vec()), value(1, len / 2));
        checkpoint(&mut map, &store);
        let found = restored(&store);
        assert_eq!(found.get(&key("large")), Some(&large));
        assert_eq!(contents(&found), contents(&map));
    }
    assert_eq!(store.len(), 3, "the pages it no longer needs are gone");
    map.remove(&key("large"));
    map.remove(&Key(b"large\0\0\0\x01x".to_vec()));
    checkpoint(&mut map, &store);
    assert_eq!(store.len(), 1, "an empty map leaves its summary");
    assert!(restored(&store).is_empty());
}

#[test]
fn capturing_keeps_to_its_budget() {
    let mut map = Map::new(PREFIX);
    for i in 0..100u8 {
        map.insert(Key(vec![i]), value(i, 1000));
    }
    map.begin_checkpoint();
    assert!(map.capture(&mut Budget { entries: 10, bytes: usize::MAX }));
    assert_eq!(map.take_captured().len(), 10);
    assert!(map.capture(&mut Budget { entries: 100, bytes: 4500 }));
    assert_eq!(map.take_captured().len(), 5);
    assert!(map.capture(&mut Budget { entries: 0, bytes: 1 }));
    assert!(map.take_captured().is_empty());
    let mut budget = Budget { entries: 90, bytes: 100_000 };
    assert!(!map.capture(&mut budget));
    assert_eq!((budget.entries, budget.bytes), (5, 15_000));
    assert_eq!(map.take_captured().len(), 85 + 1);
}

#[test]
fn an_exhausted_budget_still_ends_a_capture_with_nothing_due() {
    let (mut map, store) = (Map::new(PREFIX), MemPages::new());
    map.begin_checkpoint();
    assert!(!map.capture(&mut Budget { entries: 0, bytes: 0 }));
    let mut batch = PageBatch::default();
    batch.extend(map.take_captured());
    store.commit(batch).unwrap();
    map.checkpoint_committed();
    assert!(restored(&store).is_empty());
}

#[test]
fn a_map_without_a_trace_is_an_error_and_so_is_one_with_entries_missing() {
    let (mut map, store) = (Map::new(PREFIX), MemPages::new());
    assert!(matches!(Map::restore(PREFIX, &*store), Err(PageError::Incomplete { .. })));
    map.insert(key("one"), value(1, 10));
    map.insert(key("large"), value(2, 50_000));
    checkpoint(&mut map, &store);

    let mut keys = Vec::new();
    let visit = &mut |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        Ok(std::ops::ControlFlow::Continue(()))
    };
    store.scan(b"", b"", visit).unwrap();
    assert_eq!(keys.len(), 1 + 1 + 4);
    for lost in keys {
        let damaged = store.crash();
        let mut batch = PageBatch::default();
        batch.delete(lost.clone());
        damaged.commit(batch).unwrap();
        let found = Map::restore(PREFIX, &*damaged);
        assert!(matches!(found, Err(PageError::Incomplete { .. })), "without {lost:02x?}: {found:?}");
    }
}

#[test]
fn pages_that_make_no_sense_are_errors_by_name() {
    let stored = |key: &[u8], page: &[u8]| {
        let store = MemPages::new();
        checkpoint(&mut Map::new(PREFIX), &store);
        let mut batch = PageBatch::default();
        batch.put([PREFIX, key].concat(), page.to_vec());
        store.commit(batch).unwrap();
        Map::restore(PREFIX, &*store)
    };
    let cases: [(&[u8], &[u8]); 6] = [
        (b"", b"\x02no summary of ours"),
        (b"", b"short"),
        (b"abc", b"\x01a key without a number"),
        (b"k\0\0\0\0", b""),
        (b"k\0\0\0\0", b"\x00a page beyond its count"),
        (b"k\0\0\0\0", b"\x01no value"),
    ];
    for (key, page) in cases {
        let found = stored(key, page);
        let Err(PageError::Undecodable { key: named, .. }) = found else { panic!("{key:02x?}: {found:?}") };
        assert_eq!(named, [PREFIX, key].concat());
    }
}

#[test]
fn a_checkpoint_that_leaves_pages_out_cannot_be_committed() {
    let mut map = Map::new(PREFIX);
    map.insert(key("k"), value(1, 1));
    map.begin_checkpoint();
    let early = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| map.checkpoint_committed()));
    assert!(early.is_err());
}

#[test]
fn a_change_taken_back_after_a_commit_in_doubt_is_written_all_the_same() {
    let (mut map, store) = (Map::new(PREFIX), MemPages::new());
    map.insert(key("k"), value(1, 1));
    checkpoint(&mut map, &store);
    map.insert(key("k"), value(2, 1));
    map.begin_checkpoint();
    store.fail_commit(CommitFault::Done);
    store.commit(finish_capture(&mut map)).unwrap_err();
    map.checkpoint_failed();
    map.insert(key("k"), value(1, 1));
    checkpoint(&mut map, &store);
    assert_eq!(contents(&restored(&store)), contents(&map));
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u8, u8, u32),
    Change(u8, u8),
    Remove(u8),
    Begin,
    Capture(usize),
    Commit,
    FailedCommit(bool),
    GiveUp,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![6 => 0..200u32, 1 => 0..60_000u32];
    prop_oneof![
        8 => (0..24u8, any::<u8>(), len).prop_map(|(k, b, l)| Step::Insert(k, b, l)),
        6 => (0..24u8, any::<u8>()).prop_map(|(k, b)| Step::Change(k, b)),
        6 => (0..24u8).prop_map(Step::Remove),
        3 => Just(Step::Begin),
        4 => (0..6usize).prop_map(Step::Capture),
        3 => Just(Step::Commit),
        1 => any::<bool>().prop_map(Step::FailedCommit),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Crash),
    ]
}

/// A map beside what it should hold.
struct Run {
    map: Map,
    model: Model,
    store: Arc<MemPages>,
    /// What the checkpoint under way should hold, with what was taken of it so far.
    under_way: Option<(Model, PageBatch)>,
    committed: Model,
}

impl Run {
    fn new() -> Self {
        let (mut map, store) = (Map::new(PREFIX), MemPages::new());
        checkpoint(&mut map, &store);
        Self { map, model: Model::new(), store, under_way: None, committed: Model::new() }
    }

    fn take(&mut self, budget: usize) {
        if let Some((_, batch)) = &mut self.under_way {
            self.map.capture(&mut Budget { entries: budget, bytes: usize::MAX });
            batch.extend(self.map.take_captured());
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Insert(k, byte, len) => {
                let value = vec![byte; len as usize];
                let before = self.map.insert(Key(vec![k]), Value(value.clone()));
                assert_eq!(before.map(|v| v.0), self.model.insert(vec![k], value));
            }
            Step::Change(k, byte) => {
                let (found, expected) = (self.map.get_mut(&Key(vec![k])), self.model.get_mut(&vec![k]));
                assert_eq!(found.is_some(), expected.is_some());
                found.into_iter().for_each(|v| v.0.push(byte));
                expected.into_iter().for_each(|v| v.push(byte));
            }
            Step::Remove(k) => {
                assert_eq!(self.map.remove(&Key(vec![k])).map(|v| v.0), self.model.remove(&vec![k]));
            }
            Step::Begin if self.under_way.is_none() => {
                self.map.begin_checkpoint();
                self.under_way = Some((self.model.clone(), PageBatch::default()));
            }
            Step::Begin => {}
            Step::Capture(budget) => self.take(budget),
            Step::Commit => self.commit(None),
            Step::FailedCommit(done) => {
                self.commit(Some(if done { CommitFault::Done } else { CommitFault::NotDone }));
            }
            Step::GiveUp => {
                if self.under_way.take().is_some() {
                    self.map.checkpoint_failed();
                }
            }
            Step::Crash => {
                self.store = self.store.crash();
                self.map = restored(&self.store);
                self.model = self.committed.clone();
                self.under_way = None;
            }
        }
    }

    fn commit(&mut self, fault: Option<CommitFault>) {
        self.take(usize::MAX);
        let Some((cut, batch)) = self.under_way.take() else { return };
        fault.into_iter().for_each(|f| self.store.fail_commit(f));
        match self.store.commit(batch) {
            Ok(()) => self.map.checkpoint_committed(),
            Err(_) => self.map.checkpoint_failed(),
        }
        if fault != Some(CommitFault::NotDone) {
            self.committed = cut;
        }
    }

    fn check(&self) {
        assert_eq!(contents(&self.map), self.model);
        assert_eq!(
            contents(&restored(&self.store)),
            self.committed,
            "the store is not what it was at the cut"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_checkpoint_is_the_map_at_its_cut(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            run.check();
        }
        if run.under_way.is_some() {
            run.commit(None);
        }
        run.step(Step::Begin);
        run.commit(None);
        run.check();
        prop_assert_eq!(run.committed, run.model);
    }
}

#[test]
fn many_new_entries_are_written_in_rising_order_and_fill_the_stores_pages() {
    const COUNT: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let (store, _) =
        super::RedbPages::open(&dir.path().join("pages"), super::RedbPages::CACHE_BYTES).unwrap();
    let mut map: Paged<Key, Value> = Paged::new(b"map");
    for i in 0..COUNT {
        map.insert(Key((i * 7919 % COUNT).to_be_bytes().to_vec()), Value(vec![7; 40]));
    }
    map.begin_checkpoint();
    let (mut transaction, mut last, mut bytes) = (store.begin().unwrap(), Vec::new(), 0);
    let mut more = true;
    while more {
        let mut budget = Budget::MILLISECOND;
        more = map.capture(&mut budget);
        let mut portion = PageBatch::default();
        portion.extend(map.take_captured());
        bytes += portion.bytes();
        for change in portion.sorted().unwrap().into_iter().filter(|change| change.key != b"map") {
            assert!(change.key > last, "behind what was captured before");
            last.clone_from(&change.key);
        }
        transaction.put(&portion).unwrap();
    }
    transaction.commit().unwrap();
    map.checkpoint_committed();
    let stored = store.stored_bytes().unwrap();
    assert!(5 * stored < 8 * bytes as u64, "{stored} for {bytes}");
}
