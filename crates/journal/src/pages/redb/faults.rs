//! Crashes in the middle of commits, and bits that flip, under a store on a disk that is recorded byte by byte.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;

use super::checked::{Preallocation, RawFile};
use super::reserve::Reserve;
use super::{RedbPages, create_in, error, open_in};
use crate::pages::{Budget, PageBatch, PageDecodeError, PageError, PageKey, PageStore, PageValue, Paged};

const ATOM: usize = 512;

#[derive(Debug, Clone)]
enum Event {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// A file in memory with the history of what was done to it.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    bytes: Vec<u8>,
    events: Vec<Event>,
    /// How many more changes it takes before there is no space.
    space: Option<usize>,
    /// The length at which it is full.
    most: Option<usize>,
    /// How many reads go well before some fail, and how many these are.
    failing: Option<(usize, usize)>,
}

impl Recorder {
    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Recorded { bytes, ..Recorded::default() })))
    }

    fn events(&self) -> usize {
        self.0.lock().events.len()
    }

    fn change(&self, event: Event, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut recorded = self.0.lock();
        if let Some(space) = &mut recorded.space {
            *space = space.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        let end = match &event {
            Event::Write(pos, data) => *pos as usize + data.len(),
            Event::SetLen(len) => *len as usize,
            Event::Sync => 0,
        };
        if recorded.most.is_some_and(|most| end > most) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        change(&mut recorded.bytes);
        recorded.events.push(event);
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, pos: u64, data: &[u8]) {
    let end = pos as usize + data.len();
    bytes.resize(bytes.len().max(end), 0);
    bytes[pos as usize..end].copy_from_slice(data);
}

impl RawFile for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn read_at(&self, pos: u64, out: &mut [u8]) -> io::Result<()> {
        let mut recorded = self.0.lock();
        match &mut recorded.failing {
            Some((0, 0)) | None => {}
            Some((0, times)) => {
                *times -= 1;
                return Err(io::Error::other("a read that fails"));
            }
            Some((behind, _)) => *behind -= 1,
        }
        let range = pos as usize..pos as usize + out.len();
        out.copy_from_slice(recorded.bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Event::SetLen(len), |bytes| bytes.resize(len as usize, 0))
    }

    fn sync(&self) -> io::Result<()> {
        self.change(Event::Sync, |_| ())
    }

    fn taken(&self) -> io::Result<u64> {
        self.len()
    }

    fn allocate(&self, _: u64, to: u64) -> io::Result<()> {
        let len = self.len()?.max(to);
        self.set_len(len).inspect_err(|_| {
            // What there is goes to the file, as where zeros are written.
            let mut recorded = self.0.lock();
            let most = recorded.most.map_or(0, |most| most.min(len as usize));
            let len = recorded.bytes.len().max(most);
            recorded.bytes.resize(len, 0);
        })
    }

    fn write_at(&self, pos: u64, data: &[u8]) -> io::Result<()> {
        self.change(Event::Write(pos, data.to_vec()), |bytes| put(bytes, pos, data))
    }
}

/// The same choices for the same seed.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// The file after a crash behind `events`, of which those after the last sync are kept, lost or torn as chosen.
fn crashed(mut bytes: Vec<u8>, events: &[Event], choices: &mut Choices) -> Vec<u8> {
    let synced = events.iter().rposition(|e| matches!(e, Event::Sync)).map_or(0, |i| i + 1);
    let all = choices.below(4);
    for (i, event) in events.iter().enumerate() {
        // A process that is killed loses nothing that it had written; a power cut may lose all of it, or any part.
        let fate = if i < synced || all == 0 {
            0
        } else if all == 1 {
            1
        } else {
            choices.below(4)
        };
        match (event, fate) {
            (Event::Sync, _) | (_, 1) => {}
            (Event::SetLen(len), _) => bytes.resize(*len as usize, 0),
            (Event::Write(pos, data), 0) => put(&mut bytes, *pos, data),
            (Event::Write(pos, data), 2) => {
                let cut = choices.below((data.len() / ATOM + 1) as u64) as usize * ATOM;
                put(&mut bytes, *pos, &data[..cut.min(data.len())]);
            }
            (Event::Write(pos, data), _) => {
                for from in (0..data.len()).step_by(ATOM).filter(|_| choices.below(2) == 0) {
                    put(&mut bytes, pos + from as u64, &data[from..data.len().min(from + ATOM)]);
                }
            }
        }
    }
    bytes
}

fn store_over(recorder: Recorder) -> Result<RedbPages, PageError> {
    let path = PathBuf::from("recorded");
    let tail = Arc::<Preallocation>::default();
    let (file, kept) = (Box::new(recorder.clone()), tail.clone());
    // A small cache, so that a commit writes before it ends.
    let reopen = move || {
        open_in(recorder.clone(), 64 << 10, kept.clone()).map_err(|e| error(Path::new("recorded"), e))
    };
    Ok(RedbPages { tail: Some((file, tail)), ..RedbPages::start(path, reopen)? })
}

/// Has so many bytes kept behind the store's end.
fn keep_tail(store: &RedbPages, bytes: u64) -> io::Result<()> {
    store.tail.as_ref().map_or(Ok(()), |(file, tail)| tail.keep(&**file, bytes))
}

fn new_store(recorder: Recorder) -> RedbPages {
    create_in(recorder.clone(), 0).unwrap();
    store_over(recorder).unwrap()
}

type Pages = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(store: &RedbPages) -> Result<Pages, PageError> {
    let mut pages = Pages::new();
    let visit = &mut |key: &[u8], page: &[u8]| {
        pages.insert(key.to_vec(), page.to_vec());
        Ok(ControlFlow::Continue(()))
    };
    store.scan(&[], &[], visit)?;
    Ok(pages)
}

/// A checkpoint's changes, applied to `pages` too.
fn some_changes(pages: &mut Pages, choices: &mut Choices) -> PageBatch {
    let mut batch = PageBatch::default();
    for _ in 0..60 {
        let key = vec![b'k', choices.below(200) as u8];
        if choices.below(4) == 0 {
            pages.remove(&key);
            batch.delete(key);
        } else {
            let page = vec![choices.below(256) as u8; choices.below(9000) as usize];
            pages.insert(key.clone(), page.clone());
            batch.put(key, page);
        }
    }
    batch
}

/// The changes of a checkpoint that comes in portions.
fn some_portions(pages: &mut Pages, choices: &mut Choices) -> Vec<PageBatch> {
    (0..3).map(|_| some_changes(pages, choices)).collect()
}

/// Commits them together.
fn commit(store: &RedbPages, portions: &[PageBatch]) -> Result<(), PageError> {
    let mut transaction = store.begin()?;
    portions.iter().try_for_each(|portion| transaction.put(portion))?;
    transaction.commit()
}

/// What was done to a file since it held `base`, and what a store in it held when each commit returned.
struct History {
    base: Vec<u8>,
    events: Vec<Event>,
    /// By the number of events.
    commits: Vec<(usize, Pages)>,
}

impl History {
    /// Opens the store in `base`, which holds `pages`, and commits to it.
    fn of(base: Vec<u8>, mut pages: Pages, commits: usize, choices: &mut Choices) -> Self {
        let recorder = Recorder::holding(base.clone());
        // Opening may repair; until the first commit returns the store holds what it held.
        let mut done = vec![(0, pages.clone())];
        let store = store_over(recorder.clone()).unwrap();
        for _ in 0..commits {
            // What was given up before has changed nothing, wherever it had got to.
            if choices.below(2) == 0 {
                let given_up = some_changes(&mut pages.clone(), choices);
                store.begin().unwrap().put(&given_up).unwrap();
            }
            if choices.below(2) == 0 {
                keep_tail(&store, choices.below(3) << 16).unwrap();
            }
            let portions = some_portions(&mut pages, choices);
            commit(&store, &portions).unwrap();
            done.push((recorder.events(), pages.clone()));
        }
        drop(store);
        done.push((recorder.events(), pages));
        let events = recorder.0.lock().events.clone();
        Self { base, events, commits: done }
    }

    /// Crashes behind the event, opens what is left, and gives it with what it holds: what the last commit that had returned
    /// left, or that and all of the next; and which of these it was.
    fn crash(&self, point: usize, choices: &mut Choices) -> (Vec<u8>, Pages, bool) {
        let bytes = crashed(self.base.clone(), &self.events[..point], choices);
        let found = store_over(Recorder::holding(bytes.clone())).and_then(|s| contents(&s)).unwrap();
        let done = self.commits.iter().rposition(|(at, _)| *at <= point).unwrap();
        if found == self.commits[done].1 {
            return (bytes, found, false);
        }
        let next = self.commits.get(done + 1).is_some_and(|(_, pages)| *pages == found);
        assert!(next, "neither before nor after the commit, at event {point} of {}", self.events.len());
        (bytes, found, true)
    }
}

#[test]
fn a_crash_in_a_commit_leaves_all_of_it_or_none() {
    let recorder = Recorder::default();
    drop(new_store(recorder.clone()));
    let mut choices = Choices(1);
    let empty = recorder.0.lock().bytes.clone();
    let history = History::of(empty, Pages::new(), 3, &mut choices);
    let (mut before, mut after) = (0, 0);
    for point in 0..=history.events.len() {
        for round in 0..3 {
            let (bytes, found, next) = history.crash(point, &mut choices);
            *(if next { &mut after } else { &mut before }) += 1;
            // The store goes on from there, and crashes again.
            if round == 0 && point % 7 == 0 {
                let again = History::of(bytes, found, 2, &mut choices);
                for _ in 0..10 {
                    let point = choices.below(again.events.len() as u64 + 1) as usize;
                    again.crash(point, &mut choices);
                }
            }
        }
    }
    assert!(before > 100 && after > 3, "{before} before, {after} after: the points prove too little");
}

#[test]
fn a_full_disk_at_any_step_leaves_a_store_that_goes_on() {
    let recorder = Recorder::default();
    drop(new_store(recorder.clone()));
    let (mut choices, mut pages) = (Choices(3), Pages::new());
    store_over(recorder.clone()).unwrap().commit(some_changes(&mut pages, &mut choices)).unwrap();
    let bytes = recorder.0.lock().bytes.clone();
    let mut done = 0;
    for space in 0.. {
        let recorder = Recorder::holding(bytes.clone());
        let store = store_over(recorder.clone()).unwrap();
        let mut after = pages.clone();
        let portions = some_portions(&mut after, &mut Choices(space));
        recorder.0.lock().space = Some(space as usize);
        let result = commit(&store, &portions);
        if result.is_ok() {
            done += 1;
        } else {
            assert!(matches!(result, Err(PageError::Full { .. })), "{result:?}");
        }
        recorder.0.lock().space = None;
        let found = contents(&store).unwrap();
        assert!(found == after || (found == pages && result.is_err()), "with space for {space}");
        commit(&store, &portions).unwrap();
        assert!(contents(&store).unwrap() == after);
        drop(store);
        assert!(contents(&store_over(recorder).unwrap()).unwrap() == after);
        if done == 3 {
            assert!(space > 20, "a commit has steps to fail at");
            return;
        }
    }
}

#[test]
fn commits_go_on_in_what_is_kept_behind_the_end() {
    let recorder = Recorder::default();
    let store = new_store(recorder.clone());
    let (mut choices, mut pages) = (Choices(5), Pages::new());
    store.commit(some_changes(&mut pages, &mut choices)).unwrap();
    let len = recorder.len().unwrap();
    keep_tail(&store, 4 << 20).unwrap();
    let most = recorder.len().unwrap();
    assert!(most >= len + (4 << 20));
    recorder.0.lock().most = Some(most as usize + (1 << 20));
    assert!(keep_tail(&store, 8 << 20).is_err(), "there is no space for so much");
    assert_eq!(recorder.len().unwrap(), most, "nor is a part of it taken");
    recorder.0.lock().most = Some(most as usize);
    for _ in 0..50 {
        store.commit(some_changes(&mut pages, &mut choices)).unwrap();
        assert!(contents(&store).unwrap() == pages);
    }
    let grown = store.tail.as_ref().map(|(_, tail)| tail.end()).unwrap();
    assert!(len < grown && grown <= most, "{len} {grown} {most}");
    drop(store);
    assert!(contents(&store_over(recorder).unwrap()).unwrap() == pages);
}

/// Space that there is once.
#[derive(Debug)]
struct Once(Recorder, AtomicBool);

impl Reserve for Once {
    fn fill(&self, _: u64) -> io::Result<()> {
        if self.1.load(SeqCst) { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
    fn give_up(&self) -> bool {
        self.0.0.lock().space = None;
        self.1.swap(false, SeqCst)
    }
}

#[test]
fn a_commit_that_finds_the_disk_full_at_any_step_has_the_reserve() {
    let recorder = Recorder::default();
    drop(new_store(recorder.clone()));
    let (mut choices, mut pages) = (Choices(4), Pages::new());
    store_over(recorder.clone()).unwrap().commit(some_changes(&mut pages, &mut choices)).unwrap();
    let bytes = recorder.0.lock().bytes.clone();
    for space in 0.. {
        let recorder = Recorder::holding(bytes.clone());
        let mut store = store_over(recorder.clone()).unwrap();
        store.tail = None;
        store.reserve = Some(Box::new(Once(recorder.clone(), AtomicBool::new(true))));
        let mut after = pages.clone();
        let batch = some_changes(&mut after, &mut Choices(space));
        recorder.0.lock().space = Some(space as usize);
        store.commit(batch).unwrap();
        assert!(contents(&store).unwrap() == after, "with space for {space}");
        let used = recorder.0.lock().space.is_none();
        assert_eq!(store.keep_reserve(0), !used, "whoever owns the disk hears that it is gone");
        if !used {
            assert!(space > 20, "a commit has steps to fail at");
            return;
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key(u32);

impl PageKey for Key {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        bytes.try_into().map(|b| Self(u32::from_be_bytes(b))).map_err(|_| PageDecodeError("no key".into()))
    }
}

struct Value(Vec<u8>);

impl PageValue for Value {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        Ok(Self(bytes.to_vec()))
    }
}

#[test]
fn damage_is_an_error_by_name_or_harmless_and_never_another_map() {
    let recorder = Recorder::default();
    let store = new_store(recorder.clone());
    let mut map = Paged::<Key, Value>::new(b"m");
    for i in 0..700u32 {
        map.insert(Key(i), Value(vec![i as u8; (i % 300) as usize]));
    }
    map.begin_checkpoint();
    while map.capture(&mut Budget::MILLISECOND.clone()) {}
    let mut batch = PageBatch::default();
    batch.extend(map.take_captured());
    store.commit(batch).unwrap();
    let expected = map.dump();
    drop(store);
    let bytes = recorder.0.lock().bytes.clone();
    let used = bytes.iter().rposition(|&b| b != 0).unwrap() as u64;

    let mut choices = Choices(2);
    let (mut harmless, mut named) = (0, 0);
    for round in 0..4000 {
        let mut damaged = bytes.clone();
        let at = choices.below(used) as usize;
        match round % 8 {
            0 => damaged.truncate(at),
            1 => damaged[at / ATOM * ATOM..][..ATOM].fill(0),
            _ => damaged[at] ^= 1 << choices.below(8),
        }
        let read = store_over(Recorder::holding(damaged))
            .and_then(|store| Paged::<Key, Value>::restore(b"m", &store).map(|map| map.dump()));
        match read {
            Ok(found) => {
                assert!(found == expected);
                harmless += 1;
            }
            Err(PageError::Corrupt { path, .. }) => {
                assert_eq!(path, "recorded");
                named += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(named > 100 && harmless > 100, "{named} named, {harmless} harmless");
}

/// A store of more than its cache holds, with the pages in it.
fn large_store() -> (Recorder, RedbPages, Pages) {
    let recorder = Recorder::default();
    let store = new_store(recorder.clone());
    let (mut batch, mut pages) = (PageBatch::default(), Pages::new());
    for n in 0..60u8 {
        let (key, page) = (vec![b'k', n], [b"page ".as_slice(), &[n; 8000]].concat());
        batch.put(key.clone(), page.clone());
        pages.insert(key, page);
    }
    store.commit(batch).unwrap();
    drop(store);
    (recorder.clone(), store_over(recorder).unwrap(), pages)
}

fn damage(recorder: &Recorder, page: u8) {
    let bytes = &mut recorder.0.lock().bytes;
    let at = bytes.windows(64).position(|part| part == [page; 64]).unwrap();
    bytes[at] ^= 1;
}

#[test]
fn a_read_that_fails_once_is_done_again_and_one_that_fails_longer_is_an_error_alone() {
    let (recorder, store, pages) = large_store();
    let failing = |behind: usize, times: usize| recorder.0.lock().failing = Some((behind, times));
    let did_fail = || recorder.0.lock().failing.is_some_and(|(_, left)| left == 0);
    let (mut once, mut lasting) = (0, 0);
    for (key, page) in &pages {
        failing(key[1] as usize % 3, 1);
        assert!(store.get(key).unwrap().as_ref() == Some(page));
        once += usize::from(did_fail());
    }
    for (key, page) in pages.iter().filter(|(key, _)| key[1] < 59) {
        failing(key[1] as usize % 3, usize::MAX);
        match store.get(key) {
            Ok(found) => assert!(found.as_ref() == Some(page)),
            Err(PageError::Io { source, .. }) => {
                assert!(source.to_string().contains("a read that fails"), "{source}");
                lasting += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
        failing(0, 0);
        let next = vec![b'k', key[1] + 1];
        assert!(store.get(&next).unwrap().as_ref() == Some(&pages[&next]));
    }
    assert!(once > 5 && lasting > 5, "{once} failed once, {lasting} failed");
    std::thread::sleep(Duration::from_millis(1_050));
    assert!(pages.iter().filter(|(key, _)| store.get(key).is_ok()).count() > 20);
    failing(3, 1);
    assert!(matches!(contents(&store), Err(PageError::Io { .. })), "a scan does not give part of it");
    assert!(contents(&store).unwrap() == pages);
}

#[test]
fn a_damaged_page_is_an_error_and_all_others_are_given() {
    let (recorder, store, pages) = large_store();
    damage(&recorder, 33);
    for _ in 0..3 {
        for (key, page) in &pages {
            match store.get(key) {
                Ok(found) => assert!(key[1] != 33 && found.as_ref() == Some(page)),
                Err(PageError::Corrupt { .. }) => assert_eq!(key[1], 33),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    // Nor does a caller that asks for it again and again end a transaction.
    let mut transaction = store.begin().unwrap();
    std::thread::sleep(Duration::from_millis(1_050));
    assert!(matches!(store.get(&[b'k', 33]), Err(PageError::Corrupt { .. })));
    let mut batch = PageBatch::default();
    batch.put(b"new".to_vec(), b"page".to_vec());
    transaction.put(&batch).unwrap();
    transaction.commit().unwrap();
    assert_eq!(store.get(b"new").unwrap().unwrap(), b"page");
    damage(&recorder, 34);
    // What memory has of it makes room.
    (0..30).for_each(|n| drop(store.get(&[b'k', n]).unwrap()));
    assert!(matches!(store.get(&[b'k', 34]), Err(PageError::Corrupt { .. })));
    assert!(matches!(store.get(&[b'k', 33]), Err(PageError::Corrupt { .. })));
    assert!(store.get(&[b'k', 35]).unwrap().is_some());
}

#[test]
fn a_read_that_fails_beside_a_transaction_ends_that_and_both_are_done_again() {
    let (recorder, store, pages) = large_store();
    let mut batch = PageBatch::default();
    batch.put(b"new".to_vec(), b"page".to_vec());
    let mut transaction = store.begin().unwrap();
    transaction.put(&batch).unwrap();
    recorder.0.lock().failing = Some((0, 1));
    // It waits for the transaction to end, and that goes on for longer.
    let failed = pages.keys().find(|key| store.get(key).is_err()).unwrap();
    let other = pages.keys().find(|key| *key != failed).unwrap();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| store.get(other));
        std::thread::sleep(Duration::from_millis(100));
        let error = transaction.commit().unwrap_err();
        assert!(matches!(error, PageError::Io { .. }), "it is no damage: {error:?}");
        assert!(read.join().unwrap().unwrap().as_ref() == Some(&pages[other]), "it waits for that to end");
    });
    assert_eq!(store.get(b"new").unwrap(), None);
    store.commit(batch).unwrap();
    assert!(store.get(b"new").unwrap().is_some());
}
