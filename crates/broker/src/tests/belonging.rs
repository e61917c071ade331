//! Single files of a data directory that are missing, empty, of another shard, of another data directory or older.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sabir_base::clock::SystemClock;
use sabir_base::testing::{keep_log, logged};
use sabir_model::Offset;
use tempfile::TempDir;

use super::identity::{RECORDS, close, copy, count, fill, shard, state_of};
use super::rig::{append, batch, create, open, options};
use crate::backend::PAGES;
use crate::{Broker, BrokerOptions, Caller};

const SEGMENT: u64 = 256 << 10;

fn three_shards(dir: &Path) -> BrokerOptions {
    BrokerOptions { data_shards: 3, segment_bytes: SEGMENT, ..options(dir) }
}

/// A directory whose journals have let go of their first segments, and a copy of it from before that.
async fn used() -> (TempDir, TempDir) {
    let [dir, young] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let broker = open(three_shards(dir.path()));
    fill(&broker, "a").await;
    broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
    close(broker);
    copy(dir.path(), young.path());
    let broker = open(three_shards(dir.path()));
    let passing = create(&broker, "passing", 3).await;
    let old = broker.catalog().topic("a").unwrap().id;
    broker.delete_topics(&Caller::OPERATOR, vec![old]).await;
    // Until the file of each first segment is used again.
    while (0..4).any(|number| segments(dir.path(), number).contains_key(&1)) {
        for _ in 0..30 {
            let short = create(&broker, "short", 1).await;
            let deleted = broker.delete_topics(&Caller::OPERATOR, vec![short.id]).await;
            assert!(deleted.iter().all(Result::is_ok));
            for index in 0..3 {
                append(&broker, &passing, index, batch(&[b"x"], 1)).await.unwrap();
            }
        }
        for partition in &passing.partitions {
            let deleted = broker.delete_records(&Caller::OPERATOR, partition.shard, partition.id, Offset(-1));
            deleted.await.unwrap();
        }
        broker.inner.shards.iter().for_each(|shard| shard.checkpoint().unwrap());
    }
    fill(&broker, "b").await;
    close(broker);
    (dir, young)
}

fn outcome(dir: &Path) -> String {
    match Broker::open(three_shards(dir), Arc::new(SystemClock)) {
        Err(error) => error.to_string(),
        Ok(broker) => {
            close(broker);
            STARTS.into()
        }
    }
}

const STARTS: &str = "it starts";

/// The segments of a shard's journal, in use or not, and their files.
fn segments(dir: &Path, number: u32) -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(shard(dir, number).join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let mut header = [0; 24];
        // One that is given back just now is none.
        let read = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut header));
        if read.is_ok() && header[..4] == *b"SBRS" {
            found.insert(u64::from_le_bytes(header[16..].try_into().unwrap()), path);
        }
    }
    found
}

fn last_segment(dir: &Path, number: u32) -> PathBuf {
    segments(dir, number).pop_last().unwrap().1
}

/// What was refused is as it was, and starts once the right file is put back.
#[tokio::test]
async fn a_file_that_is_not_the_one_which_belongs_in_its_place_is_named_as_what_it_is() {
    let ((dir, young), (other, _)) = (used().await, used().await);
    let segment = last_segment(dir.path(), 1);
    let segment = segment.strip_prefix(dir.path()).unwrap().to_str().unwrap();
    let all = |says| [says; 5];
    let pages = "the page store {file} is ";
    // Missing, empty, of shard 2, of another data directory, older.
    for (file, expected) in [
        ("lock", all(STARTS)),
        (
            "identity",
            [
                STARTS,
                "it is damaged. If every shard is there, remove it",
                STARTS,
                "the shards are of another data directory",
                STARTS,
            ],
        ),
        ("shard-1/pages.reserve", all(STARTS)),
        (
            "shard-1/pages.redb",
            [
                "there is no page store {file}, and the journal beside it has let go of what only a checkpoint knows",
                "the page store {file} is corrupt",
                &format!("{pages}that of shard 2"),
                "another data directory",
                &format!("{pages}an older copy"),
            ],
        ),
        (
            "shard-1/journal/slots",
            [
                "slots: neither copy of the journal's slot can be read: the file is missing",
                "slots: neither copy of the journal's slot can be read: it has 0 bytes",
                "the folder of shard 1 holds shard 2: folders, or their files `journal/slots`, were swapped",
                "shard 1 is of another data directory: its file `journal/slots` says ",
                "shard 1 is an older copy: by its file `journal/slots` it last took part in start ",
            ],
        ),
        (
            segment,
            [
                "of the journal is missing: ",
                "of the journal is missing: ",
                "{file} is a segment of shard 2",
                "{file} is a segment of another data directory",
                "of the journal is missing: ",
            ],
        ),
    ] {
        let whole = tempfile::tempdir().unwrap();
        let at = whole.path().join(file);
        let of = |from: &Path, file: &str| fs::read(from.join(file)).ok();
        let of_2 = match file == segment {
            true => fs::read(last_segment(dir.path(), 2)).ok(),
            false => of(dir.path(), &file.replace("shard-1", "shard-2")),
        };
        let of_other = match file == segment {
            true => fs::read(last_segment(other.path(), 1)).ok(),
            false => of(other.path(), file),
        };
        let contents = [None, Some(Vec::new()), of_2, of_other, of(young.path(), file)];
        for (number, (content, expected)) in contents.into_iter().zip(expected).enumerate() {
            fs::remove_dir_all(whole.path()).unwrap();
            copy(dir.path(), whole.path());
            match content {
                Some(content) => fs::write(&at, content).unwrap(),
                None => fs::remove_file(&at).unwrap(),
            }
            let before = state_of(whole.path()).len();
            let expected = expected.replace("{file}", at.to_str().unwrap());
            for _ in 0..2 {
                let found = outcome(whole.path());
                assert!(found.contains(&expected), "{file}, {number}: {found}");
                if found == STARTS {
                    break;
                }
                assert_eq!(
                    state_of(whole.path()).len(),
                    before,
                    "{file}, {number}: a file was made or removed"
                );
            }
            fs::copy(dir.path().join(file), &at).unwrap();
            if expected != STARTS {
                let broker = open(three_shards(whole.path()));
                assert_eq!(count(&broker, "b").await, RECORDS, "{file}, {number}");
                close(broker);
            }
        }
    }
}

/// An operator who moves a damaged page store aside has lost nothing where the journal has its beginning.
#[tokio::test]
async fn a_page_store_that_is_missing_is_made_out_of_a_whole_journal() {
    keep_log();
    let (_, young) = used().await;
    fs::remove_file(shard(young.path(), 1).join(PAGES)).unwrap();
    let broker = open(three_shards(young.path()));
    assert_eq!(count(&broker, "a").await, RECORDS);
    assert_eq!(logged(&["WARN", "there is no page store", "shard=1"]).len(), 1);
    close(broker);
}
