//! Data directories of which something is missing, old, swapped or damaged: everything is there, or the start is refused by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use sabir_base::clock::SystemClock;
use sabir_base::crc::crc32c;
use sabir_model::{ErrorAbout, ReadError};
use tempfile::TempDir;

use super::rig::{append, batch, create, open, options, read, values};
use crate::{Broker, BrokerOptions, Caller, OffsetSpec, ReadTarget, ShardsError, StartError};

pub(super) const RECORDS: usize = 40;

fn three_shards(dir: &Path) -> BrokerOptions {
    BrokerOptions { data_shards: 3, ..options(dir) }
}

/// Copies a directory that a broker has open, at a moment at which it writes nothing: a copy that takes some files from before a
/// write and some from after it is what no crash leaves.
fn copy_open(from: &Path, to: &Path) {
    for _ in 0..1000 {
        let before = state_of(from);
        // A later write has another time.
        std::thread::sleep(std::time::Duration::from_millis(20));
        if try_copy(from, to).is_ok() && before == state_of(from) {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
    panic!("{} is written to without end", from.display());
}

/// Every file of a directory, with its length and when it was written.
pub(super) fn state_of(dir: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match fs::metadata(&path) {
            Ok(of) if of.is_dir() => found.extend(state_of(&path)),
            Ok(of) => found.push((path, of.len(), of.modified().unwrap())),
            Err(_) => found.push((path, 0, std::time::SystemTime::now())),
        }
    }
    found.sort();
    found
}

pub(super) fn copy(from: &Path, to: &Path) {
    try_copy(from, to).unwrap();
}

fn try_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            try_copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

pub(super) fn shard(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("shard-{number}"))
}

fn replace(folder: &Path, with: &Path) {
    fs::remove_dir_all(folder).unwrap();
    copy(with, folder);
}

pub(super) async fn fill(broker: &Broker, name: &str) {
    let topic = create(broker, name, 3).await;
    for i in 0..RECORDS {
        append(broker, &topic, (i % 3) as i32, batch(&[format!("{i}").as_bytes()], 1)).await.unwrap();
    }
}

pub(super) async fn count(broker: &Broker, name: &str) -> usize {
    try_count(broker, name).await.unwrap()
}

async fn try_count(broker: &Broker, name: &str) -> Result<usize, ErrorAbout<ReadError>> {
    let Some(topic) = broker.catalog().topic(name).cloned() else { return Ok(0) };
    let mut found = 0;
    for index in 0..3 {
        found += values(&read(broker, &topic, index, 0, 1 << 20).await?).len();
    }
    Ok(found)
}

pub(super) fn close(broker: Broker) {
    broker.shutdown();
}

/// A directory with topic `a`, and a copy of it before topic `b` came.
async fn two_topics() -> (TempDir, TempDir) {
    let (dir, before) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = open(three_shards(dir.path()));
    fill(&broker, "a").await;
    close(broker);
    copy(dir.path(), before.path());
    let broker = open(three_shards(dir.path()));
    fill(&broker, "b").await;
    close(broker);
    (dir, before)
}

fn refused(dir: &Path) -> ShardsError {
    match Broker::open(three_shards(dir), Arc::new(SystemClock)) {
        Err(StartError::Shards(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it starts"),
    }
}

async fn is_whole(dir: &Path) {
    let broker = open(three_shards(dir));
    assert_eq!((count(&broker, "a").await, count(&broker, "b").await), (RECORDS, RECORDS));
    close(broker);
}

#[tokio::test]
async fn a_missing_shard_is_named_and_nothing_is_made_or_deleted() {
    let (dir, away) = (two_topics().await.0, tempfile::tempdir().unwrap());
    for number in 0..4 {
        for left in ["nothing", "an empty folder", "an empty journal"] {
            let (folder, kept) = (shard(dir.path(), number), away.path().join("kept"));
            fs::rename(&folder, &kept).unwrap();
            match left {
                "nothing" => {}
                "an empty folder" => fs::create_dir(&folder).unwrap(),
                _ => fs::create_dir_all(folder.join("journal")).unwrap(),
            }
            match refused(dir.path()) {
                ShardsError::NoCatalog { .. } => assert_eq!(number, 0),
                ShardsError::Missing { missing, data_shards: 3 } => assert_eq!(missing.0, number),
                other => panic!("{other}"),
            }
            let _ = fs::remove_dir_all(&folder);
            fs::rename(&kept, &folder).unwrap();
        }
    }
    is_whole(dir.path()).await;
}

/// What an unmounted file system may leave of a shard in the folder that it was mounted on.
const UNMOUNTED: [(&str, &str); 5] = [
    ("nothing", ""),
    ("an empty folder", "shard-N"),
    ("another file system's root", "shard-N/lost+found"),
    ("an empty journal", "shard-N/journal"),
    ("the reserve of a page store", "shard-N/pages.reserve"),
];

fn leave(data: &Path, what: &str) {
    for number in (0..4).filter(|_| !what.is_empty()) {
        let path = data.join(what.replace('N', &number.to_string()));
        fs::create_dir_all(&path).unwrap();
    }
}

/// Shards may be file systems of their own, and none of them be mounted.
#[tokio::test]
async fn a_directory_without_any_of_its_shards_is_named_and_nothing_is_made() {
    let (dir, away) = (two_topics().await.0, tempfile::tempdir().unwrap());
    let each = |rename: fn(&Path, &Path) -> io::Result<()>| {
        (0..4).for_each(|number| rename(&shard(dir.path(), number), &shard(away.path(), number)).unwrap());
    };
    for (left, what) in UNMOUNTED {
        each(|shard, kept| fs::rename(shard, kept));
        leave(dir.path(), what);
        let before = state_of(dir.path());
        assert_eq!(refused(dir.path()), ShardsError::NoShards { data_shards: 3 }, "{left}");
        assert_eq!(state_of(dir.path()).len(), before.len(), "{left}");
        each(|shard, kept| {
            let _ = fs::remove_dir_all(shard);
            fs::rename(kept, shard)
        });
    }
    is_whole(dir.path()).await;
}

/// A directory that a version made which did not write it down, or where an operator has made folders for shards.
#[tokio::test]
async fn nothing_is_made_beside_folders_of_shards_that_hold_none() {
    for (left, what) in &UNMOUNTED[1..] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lock"), b"1\n").unwrap();
        leave(dir.path(), what);
        let path = shard(dir.path(), 1);
        let refusal = refused(dir.path());
        assert_eq!(refusal, ShardsError::Unexpected { path }, "{left}");
        assert!(refusal.to_string().contains("No shard was made"), "{refusal}");
        (1..4).for_each(|number| fs::remove_dir_all(shard(dir.path(), number)).unwrap());
        if what.contains("lost+found") {
            let path = shard(dir.path(), 0).join("lost+found");
            assert_eq!(refused(dir.path()), ShardsError::Unexpected { path });
            fs::remove_dir_all(shard(dir.path(), 0)).unwrap();
        }
        if what.contains("reserve") {
            fs::remove_dir(shard(dir.path(), 0).join("pages.reserve")).unwrap();
        }
        let broker = open(three_shards(dir.path()));
        fill(&broker, "a").await;
        close(broker);
    }
}

#[tokio::test]
async fn a_directory_that_does_not_say_that_it_was_made_says_so_from_its_next_start_on() {
    let (dir, _) = two_topics().await;
    let identity = dir.path().join("identity");
    let written = fs::read(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    is_whole(dir.path()).await;
    assert_eq!(fs::read(&identity).unwrap(), written);
}

#[tokio::test]
async fn shards_of_another_directory_are_named() {
    let ((dir, _), (other, _)) = (two_topics().await, two_topics().await);
    (0..4).for_each(|number| replace(&shard(dir.path(), number), &shard(other.path(), number)));
    let error = refused(dir.path());
    assert!(matches!(error, ShardsError::OfAnother { .. }), "{error}");
    fs::remove_file(dir.path().join("identity")).unwrap();
    is_whole(dir.path()).await;
    let copied = tempfile::tempdir().unwrap();
    copy(dir.path(), copied.path());
    is_whole(copied.path()).await;
}

#[tokio::test]
async fn an_older_copy_of_any_shard_is_named() {
    let (dir, before) = two_topics().await;
    for number in 0..4 {
        let kept = tempfile::tempdir().unwrap();
        copy(&shard(dir.path(), number), kept.path());
        replace(&shard(dir.path(), number), &shard(before.path(), number));
        let error = refused(dir.path());
        assert!(matches!(error, ShardsError::Older { shard, .. } if shard.0 == number), "{error}");
        replace(&shard(dir.path(), number), kept.path());
    }
    is_whole(dir.path()).await;
}

#[tokio::test]
async fn a_copy_of_a_shard_taken_while_the_broker_ran_is_an_older_one_once_it_has_ended() {
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = open(three_shards(dir.path()));
    fill(&broker, "a").await;
    copy_open(&shard(dir.path(), 1), &kept.path().join("copy"));
    fill(&broker, "b").await;
    close(broker);
    let right = kept.path().join("right");
    copy(&shard(dir.path(), 1), &right);
    replace(&shard(dir.path(), 1), &kept.path().join("copy"));
    let error = refused(dir.path());
    assert!(matches!(error, ShardsError::Older { shard, .. } if shard.0 == 1), "{error}");
    replace(&shard(dir.path(), 1), &right);
    is_whole(dir.path()).await;
}

/// What was durable seconds ago is known to have been, however little a journal grew since it was made.
#[tokio::test]
async fn a_blank_end_of_a_journal_is_damage_once_it_was_noted_as_durable() {
    let (dir, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = open(small(dir.path()));
    fill(&broker, "a").await;
    fill(&broker, "b").await;
    all_noted(&broker, dir.path()).await;
    copy_open(dir.path(), image.path());
    close(broker);
    let file = shard(image.path(), 1).join("journal/segment-000001");
    let blocks = fs::read(&file).unwrap();
    let end = blocks.iter().rposition(|byte| *byte != 0).unwrap() / 4096 * 4096;
    // The last frame is the seal's; before it stands the last block.
    (end.saturating_sub(8192) / 4096..=end / 4096).for_each(|page| blank(&file, page as u64 * 4096));
    let error = Broker::open(small(image.path()), Arc::new(SystemClock)).err().expect("it starts");
    assert!(error.to_string().contains("shard 1"), "{error}");
}

/// How much a shard's slot says is durable of its own, and of the shard that follows it.
fn noted(dir: &Path, number: usize) -> [u64; 2] {
    let slots = fs::read(shard(dir, number as u32).join("journal/slots")).unwrap();
    let number = |copy: &[u8], at: usize| u64::from_le_bytes(copy[at..at + 8].try_into().unwrap());
    let newest = slots.chunks_exact(4096).max_by_key(|copy| number(copy, 8)).unwrap();
    [48, 168].map(|at| number(newest, at))
}

/// Waits until every shard's slot says how much is durable now.
async fn all_noted(broker: &Broker, dir: &Path) {
    let shards = &broker.inner.shards;
    let kept = |number: usize| shards[number % shards.len()].journal.kept().0;
    for number in 0..shards.len() {
        let durable = [kept(number), kept(number + 1)];
        super::rig::until(|| noted(dir, number).iter().zip(durable).all(|(noted, kept)| *noted >= kept))
            .await;
    }
}

/// Its loss is noticed although the journal is nowhere near a further segment or a checkpoint.
#[tokio::test]
async fn what_is_durable_is_noted_within_a_second_or_so_in_every_shard_that_grows_and_in_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(three_shards(dir.path()));
    for name in ["a", "b", "c"] {
        fill(&broker, name).await;
        let began = Instant::now();
        all_noted(&broker, dir.path()).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
    close(broker);
}

#[tokio::test]
async fn swapped_and_foreign_shards_are_named() {
    let (dir, _) = two_topics().await;
    let (other, _) = two_topics().await;
    let (one, two, away) = (shard(dir.path(), 1), shard(dir.path(), 2), dir.path().join("away"));
    let swap = || {
        fs::rename(&one, &away).unwrap();
        fs::rename(&two, &one).unwrap();
        fs::rename(&away, &two).unwrap();
    };
    swap();
    assert!(
        matches!(refused(dir.path()), ShardsError::Swapped { folder, holds } if (folder.0, holds.0) == (1, 2))
    );
    swap();
    let kept = tempfile::tempdir().unwrap();
    for number in 0..4 {
        let own = kept.path().join(number.to_string());
        copy(&shard(dir.path(), number), &own);
        replace(&shard(dir.path(), number), &shard(other.path(), number));
        assert!(matches!(refused(dir.path()), ShardsError::Foreign { .. }));
        replace(&shard(dir.path(), number), &own);
    }
    is_whole(dir.path()).await;
}

/// Where a whole directory was copied and both were started since, a shard of the one is none of the other's, however long it is.
#[tokio::test]
async fn a_shard_of_a_copy_that_was_started_by_itself_is_named() {
    for in_order in [true, false] {
        let [dir, fork, image, kept] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        let broker = open(three_shards(dir.path()));
        fill(&broker, "a").await;
        close(broker);
        copy(dir.path(), fork.path());
        for (of, to) in [(dir.path(), image.path()), (fork.path(), kept.path())] {
            let broker = open(three_shards(of));
            fill(&broker, "b").await;
            all_noted(&broker, of).await;
            if !in_order {
                copy_open(of, to);
            }
            close(broker);
            if in_order {
                copy(of, to);
            }
        }
        for number in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            copy(image.path(), dir.path());
            replace(&shard(dir.path(), number), &shard(kept.path(), number));
            let error = refused(dir.path());
            assert!(matches!(error, ShardsError::Forked { .. }), "{number}: {error}");
            replace(&shard(dir.path(), number), &shard(image.path(), number));
            is_whole(dir.path()).await;
        }
    }
}

/// What an earlier version left has no id of its last start; it opens, and its next start has one.
#[tokio::test]
async fn shards_without_the_id_of_their_start_are_taken_as_they_are() {
    let (dir, _) = two_topics().await;
    for number in 0..3 {
        edit_slots(dir.path(), number, |copy| copy[568..584].fill(0));
    }
    is_whole(dir.path()).await;
    let start = |number| {
        let found = sabir_journal::look_at(&disk(&shard(dir.path(), number).join("journal")));
        found.unwrap().unwrap().start
    };
    assert!(start(0).is_some() && (1..4).all(|number| start(number) == start(0)));
}

#[tokio::test]
async fn a_catalog_that_never_made_a_partition_deletes_none() {
    let (dir, before) = two_topics().await;
    // An older catalog that says it has seen every start.
    let slots = fs::read(shard(dir.path(), 0).join("journal/slots")).unwrap();
    replace(&shard(dir.path(), 0), &shard(before.path(), 0));
    edit_slots(dir.path(), 0, |copy| {
        copy[104..120].copy_from_slice(&slots[104..120]);
        copy[568..584].copy_from_slice(&slots[568..584]);
    });
    assert!(matches!(refused(dir.path()), ShardsError::Behind { shard, .. } if shard.0 == 0));
    // And of which the others know nothing.
    (1..4).for_each(|number| edit_slots(dir.path(), number, |copy| copy[160..416].fill(0)));
    assert!(matches!(refused(dir.path()), ShardsError::UnknownPartition { .. }));
}

/// Whatever it is that refuses a start: with the right shard put back, everything is there.
#[tokio::test]
async fn a_refused_start_leaves_the_other_shards_as_they_were() {
    let [dir, early, crashed] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let broker = open(three_shards(dir.path()));
    fill(&broker, "a").await;
    copy_open(dir.path(), early.path());
    fill(&broker, "b").await;
    copy_open(dir.path(), crashed.path());
    close(broker);
    for number in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        copy(crashed.path(), dir.path());
        // What the others knew of it is too old to tell.
        (0..4).for_each(|number| edit_slots(dir.path(), number, |copy| copy[160..416].fill(0)));
        let right = tempfile::tempdir().unwrap();
        copy(&shard(dir.path(), number), right.path());
        if number == 0 {
            replace(&shard(dir.path(), number), &shard(early.path(), number));
        } else {
            // The catalog has its partitions in another shard.
            replace(&shard(dir.path(), number), &shard(dir.path(), number % 3 + 1));
            let identity = fs::read(right.path().join("journal/slots")).unwrap();
            edit_slots(dir.path(), number, |copy| copy[80..104].copy_from_slice(&identity[80..104]));
        }
        let others = |number: u32| (0..4).filter(move |other| *other != number);
        let files = |dir: &Path| -> Vec<_> {
            let found = |of| sabir_journal::look_at(&disk(&shard(dir, of).join("journal"))).unwrap().unwrap();
            others(number).map(found).map(|found| (found.run, found.confirmed_run, found.notes)).collect()
        };
        let before = files(dir.path());
        for _ in 0..3 {
            let error = refused(dir.path());
            let unknown = matches!(error, ShardsError::UnknownPartition { .. });
            let misplaced = matches!(error, ShardsError::MisplacedPartition { .. });
            assert!(if number == 0 { unknown } else { misplaced }, "{number}: {error}");
        }
        assert_eq!(files(dir.path()), before, "{number}");
        replace(&shard(dir.path(), number), right.path());
        is_whole(dir.path()).await;
    }
}

#[tokio::test]
async fn what_is_left_of_a_deleted_topic_is_deleted_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(three_shards(dir.path()));
    fill(&broker, "a").await;
    fill(&broker, "b").await;
    close(broker);
    let broker = open(three_shards(dir.path()));
    let id = broker.catalog().topic("a").unwrap().id;
    // Its entry is in the catalog; the shard with its partition is not told.
    let body = crate::entry::TopicDeleted { id };
    let catalog = &broker.inner.shards[0];
    let asked = catalog.ask(sabir_journal::Priority::Reserve, &body);
    asked.await.unwrap();
    close(broker);
    let broker = open(three_shards(dir.path()));
    let left =
        || broker.inner.shards.iter().map(|shard| shard.state.read().partitions.ids().count()).sum::<usize>();
    super::rig::until(|| left() == 3).await;
    assert_eq!((count(&broker, "a").await, count(&broker, "b").await), (0, RECORDS));
}

/// Takes from the slots what the first version did not have.
fn as_first_version(dir: &Path) {
    for number in 0..4 {
        edit_slots(dir, number, |copy| {
            copy[4] = 1;
            copy[80..4092].fill(0);
        });
    }
}

/// Changes both copies of a shard's slot.
fn edit_slots(dir: &Path, number: u32, change: impl Fn(&mut [u8])) {
    let path = shard(dir, number).join("journal/slots");
    let mut bytes = fs::read(&path).unwrap();
    for copy in bytes.chunks_exact_mut(4096).filter(|copy| copy[0] != 0) {
        change(copy);
        let crc = crc32c(&copy[..4092]);
        copy[4092..].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_directory_of_the_first_form_opens_and_is_named_from_then_on() {
    let (dir, _) = two_topics().await;
    as_first_version(dir.path());
    let gone = tempfile::tempdir().unwrap();
    fs::rename(shard(dir.path(), 2), gone.path().join("kept")).unwrap();
    assert!(matches!(refused(dir.path()), ShardsError::Missing { .. }), "even before it has a name");
    fs::rename(gone.path().join("kept"), shard(dir.path(), 2)).unwrap();
    is_whole(dir.path()).await;
    let identity = sabir_journal::look_at(&disk(&shard(dir.path(), 2).join("journal"))).unwrap().unwrap();
    assert_eq!(identity.identity.unwrap().shard.0, 2);
}

#[tokio::test]
async fn swapped_shards_of_the_first_form_are_named() {
    let (dir, _) = two_topics().await;
    as_first_version(dir.path());
    let (one, two, away) = (shard(dir.path(), 1), shard(dir.path(), 2), dir.path().join("away"));
    fs::rename(&one, &away).unwrap();
    fs::rename(&two, &one).unwrap();
    fs::rename(&away, &two).unwrap();
    assert!(matches!(refused(dir.path()), ShardsError::MisplacedPartition { .. }));
}

/// Every shard knows of the others how far they were: a copy that was taken in the same run is an older one.
#[tokio::test]
async fn an_older_copy_of_any_shard_put_back_after_a_crash_of_the_same_run_is_named() {
    let [dir, early, crashed] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let broker = open(three_shards(dir.path()));
    fill(&broker, "a").await;
    copy_open(dir.path(), early.path());
    fill(&broker, "b").await;
    all_noted(&broker, dir.path()).await;
    copy_open(dir.path(), crashed.path());
    close(broker);
    for number in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        copy(crashed.path(), dir.path());
        replace(&shard(dir.path(), number), &shard(early.path(), number));
        let error = refused(dir.path());
        assert!(matches!(error, ShardsError::Behind { shard, .. } if shard.0 == number), "{number}: {error}");
        replace(&shard(dir.path(), number), &shard(crashed.path(), number));
        is_whole(dir.path()).await;
    }
}

fn disk(folder: &Path) -> Arc<dyn sabir_journal::disk::Disk> {
    Arc::new(sabir_journal::disk::PwriteDisk::open(folder).unwrap())
}

#[tokio::test]
async fn a_first_start_that_was_interrupted_goes_on() {
    let whole = tempfile::tempdir().unwrap();
    close(open(three_shards(whole.path())));
    // Shards are made in their order; the catalog says how many there are when all are made.
    for made in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..made {
            close_new_journal(&shard(dir.path(), number).join("journal"));
        }
        let broker = open(three_shards(dir.path()));
        fill(&broker, "a").await;
        assert_eq!(count(&broker, "a").await, RECORDS, "{made} were made");
        close(broker);
    }
}

fn close_new_journal(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let pool = sabir_base::buf::BufPool::new(1 << 20);
    let options =
        sabir_journal::JournalOptions { segment_bytes: 4 << 20, keep_free: 0, ..Default::default() };
    drop(sabir_journal::Journal::open(disk(folder), pool, options, None).unwrap());
}

#[tokio::test]
async fn a_folder_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("holiday.jpg"), b"sea").unwrap();
    let error = Broker::open(options(dir.path()), Arc::new(SystemClock)).err().unwrap();
    assert!(matches!(&error, StartError::NotOurs { found, .. } if found == "holiday.jpg"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::remove_file(dir.path().join("holiday.jpg")).unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    close(open(options(dir.path())));
}

fn small(dir: &Path) -> BrokerOptions {
    BrokerOptions { segment_bytes: 2 << 20, ..options(dir) }
}

/// Everything that may happen to a file: what comes of it is all of the data or an error that names it.
#[tokio::test]
async fn damaged_files_are_named_or_harmless() {
    let [clean, killed, early] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let broker = open(small(early.path()));
    fill(&broker, "a").await;
    fill(&broker, "b").await;
    let before_a_checkpoint = tempfile::tempdir().unwrap();
    copy_open(early.path(), before_a_checkpoint.path());
    close(broker);
    let broker = open(small(clean.path()));
    fill(&broker, "a").await;
    broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
    fill(&broker, "b").await;
    copy_open(clean.path(), killed.path());
    close(broker);
    let mut tried = 0;
    for source in [clean.path(), killed.path(), before_a_checkpoint.path()] {
        for number in [0, 1] {
            for file in files_of(&shard(source, number)) {
                for (name, damage) in DAMAGES {
                    let dir = tempfile::tempdir().unwrap();
                    copy(source, dir.path());
                    damage(&shard(dir.path(), number).join(&file));
                    tried += 1;
                    judge(dir.path(), &format!("shard {number} {} {name}", file.display())).await;
                }
            }
        }
    }
    assert!(tried > 60, "{tried}");
}

async fn judge(dir: &Path, what: &str) {
    match Broker::open(small(dir), Arc::new(SystemClock)) {
        Err(error) => assert!(error.to_string().contains("shard"), "{what}: {error}"),
        Ok(broker) => {
            // Of what lies on the disk a part may be damaged that only a reader comes to.
            for name in ["a", "b"] {
                let found = try_count(&broker, name).await;
                let refused = found
                    .as_ref()
                    .is_err_and(|why| matches!(why.error, ReadError::Storage | ReadError::Corrupt));
                assert!(refused || found == Ok(RECORDS), "{what}: {found:?}");
            }
            close(broker);
        }
    }
}

fn files_of(shard: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(shard.join("journal"))
        .unwrap()
        .map(|entry| PathBuf::from("journal").join(entry.unwrap().file_name()))
        .collect();
    files.push("pages.redb".into());
    files
}

type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 9] = [
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("emptied", |path| cut(path, 0)),
    ("cut to a page", |path| cut(path, 4096)),
    ("cut to a half", |path| cut(path, fs::metadata(path).unwrap().len() / 2)),
    ("without its last page", |path| cut(path, fs::metadata(path).unwrap().len() - 4096)),
    ("first page blank", |path| blank(path, 0)),
    ("second page blank", |path| blank(path, 4096)),
    ("third page blank", |path| blank(path, 8192)),
    ("fifth page blank", |path| blank(path, 16384)),
];

fn cut(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn blank(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    if file.metadata().unwrap().len() >= at + 4096 {
        file.write_all_at(&[0; 4096], at).unwrap();
    }
}

/// Blocks of a journal as they lie in its first segment, each of one page.
fn page_with(segment: &[u8], text: &[u8]) -> usize {
    let holds = |at: &usize| {
        let page = &segment[*at..*at + 4096];
        page.starts_with(b"SBRF") && page.windows(text.len()).any(|part| part == text)
    };
    (4096..segment.len()).step_by(4096).find(holds).expect("its block has a page of its own")
}

#[tokio::test]
async fn a_block_in_anothers_place_is_not_served_as_another_topics_record() {
    let dir = TempDir::new().unwrap();
    let broker = open(options(dir.path()));
    let (pay, mail) = (create(&broker, "pay", 1).await, create(&broker, "mail", 1).await);
    for i in 0..RECORDS {
        for topic in [&pay, &mail] {
            let text = format!("{}-{i:03}", topic.name);
            append(&broker, topic, 0, batch(&[text.as_bytes()], i as i64)).await.unwrap();
        }
    }
    broker.shutdown();
    drop(broker);
    let path = shard(dir.path(), 1).join("journal/segment-000001");
    let mut segment = fs::read(&path).unwrap();
    let (from, to) = (page_with(&segment, b"pay-020"), page_with(&segment, b"mail-020"));
    segment.copy_within(from..from + 4096, to);
    fs::write(&path, segment).unwrap();

    let broker = open(options(dir.path()));
    let found = read(&broker, &pay, 0, 0, 1 << 20).await.unwrap();
    assert_eq!(values(&found).len(), RECORDS);
    assert_eq!(read(&broker, &mail, 0, 20, 1 << 20).await.unwrap_err(), ReadError::Corrupt.into());
    let before = read(&broker, &mail, 0, 0, 1 << 20).await.unwrap();
    assert!(values(&before).iter().all(|(_, value)| value.starts_with(b"mail-")));
    let after = read(&broker, &mail, 0, 21, 1 << 20).await.unwrap();
    assert_eq!(values(&after).len(), RECORDS - 21);
    // Nor is it looked through for a time.
    let target = ReadTarget::new(&Caller::OPERATOR, &mail, 0).unwrap();
    let looked_up = broker.offsets(target, OffsetSpec::Timestamp(20)).await;
    assert_eq!(looked_up.unwrap_err(), ReadError::Corrupt.into());
    assert!(!broker.stats().shards[1].damaged.is_empty());
    broker.shutdown();
}
