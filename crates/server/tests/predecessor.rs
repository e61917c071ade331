//! Data directories that earlier versions left behind (`fixtures/`, made by `fixtures/make.py`): they open, all that was in them is
//! there, and they are written to.

#![allow(clippy::unwrap_used)]

mod kept_queues;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sabir_base::clock::ManualClock;
use sabir_broker::exchange::{ExchangeError, ExchangeKind, ExchangeSpec};
use sabir_broker::projection::{
    Effects, FrontendProjection, PageDecodeError, PageKey, PageMap, PageValue, Paged, Projection,
    ProjectionFactory,
};
use sabir_broker::{
    AppendAcks, AppendTarget, Appended, Broker, BrokerOptions, Caller, EntryRefused, Fence, FormatLevel,
    GroupPhase, NewTopic, OffsetCommit, ProjectionEntry, ReadTarget, StartError, Topic,
};
use sabir_model::batch::{BatchBuilder, Compression, records, split, verify_crc};
use sabir_model::{
    AppendError, Backoff, DecodeError, ErrorAbout, FrontendNo, GroupError, LeaderEpoch, Namespace, Offset,
    ProducerId, QueueConfig, ShardId, TimestampType, TopicConfig, TopicError, TopicId,
};
use sabir_server::config::{ServerConfig, Sources};
use sabir_server::{protocols, start};

/// What a fixture says of itself.
#[derive(serde::Deserialize)]
struct Manifest {
    shards: u32,
    topics: BTreeMap<String, TopicThere>,
    /// Committed offsets by group, topic and partition.
    groups: BTreeMap<String, BTreeMap<String, BTreeMap<String, i64>>>,
    producers: Vec<ProducerThere>,
    #[serde(flatten)]
    queues: Option<kept_queues::QueuesThere>,
    made_ms: i64,
    /// How long each file was.
    files: BTreeMap<PathBuf, u64>,
}

#[derive(serde::Deserialize)]
struct TopicThere {
    /// Start and end of each.
    partitions: Vec<(i64, i64)>,
}

#[derive(serde::Deserialize)]
struct ProducerThere {
    id: i64,
    epoch: i16,
    next: i32,
    /// Topic, partition, offset and records of its last batch.
    last: (String, i32, i64, i32),
}

fn level(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Lays a fixture out as the data directory that it was.
fn unpack(fixture: &Path) -> (tempfile::TempDir, Manifest) {
    let manifest: Manifest =
        serde_json::from_reader(File::open(fixture.join("manifest.json")).unwrap()).unwrap();
    let data = tempfile::tempdir().unwrap();
    for (name, &len) in &manifest.files {
        let path = data.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::create(path).unwrap();
        if let Ok(packed) = File::open(fixture.join(format!("{}.gz", name.display()))) {
            write_sparse(&mut flate2::read::GzDecoder::new(packed), &mut file);
        }
        file.set_len(len).unwrap();
    }
    (data, manifest)
}

/// Copies, and leaves holes where there are zeros.
fn write_sparse(from: &mut impl Read, to: &mut File) {
    let mut content = Vec::new();
    from.read_to_end(&mut content).unwrap();
    for block in content.chunks(4096) {
        if block.iter().all(|&byte| byte == 0) {
            to.seek(SeekFrom::Current(block.len() as i64)).unwrap();
        } else {
            to.write_all(block).unwrap();
        }
    }
}

fn open(data: &Path, manifest: &Manifest, later_ms: i64, level: Option<u32>) -> Result<Broker, StartError> {
    // Who has queues has what their front ends bring, too.
    let options = match &manifest.queues {
        None => BrokerOptions::new(data),
        Some(_) => kept_queues::options(data),
    };
    let options = BrokerOptions { keep_free: 0, format_level: level, ..options };
    Broker::open(options, Arc::new(ManualClock::at(manifest.made_ms + later_ms)))
}

/// The version of the form that a shard's slot is in.
fn slot_form(data: &Path, shard: u32) -> u8 {
    std::fs::read(data.join(format!("shard-{shard}/journal/slots"))).unwrap()[4]
}

fn topic(broker: &Broker, name: &str) -> Arc<Topic> {
    broker.catalog().topic(name).unwrap_or_else(|| panic!("{name} is there")).clone()
}

/// What a record of the fixture reads, or one that was added.
fn value(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}-{partition}-{offset}")
}

/// Reads a partition from its start, and checks every record; where it starts and ends.
async fn read_whole(broker: &Broker, topic: &Topic, index: i32) -> (i64, i64) {
    let target = ReadTarget::new(&Caller::OPERATOR, topic, index).unwrap();
    let start = broker.partition_stats(target).unwrap().start;
    let mut next = start;
    loop {
        let fetched = broker.read(target, next, 4 << 20, true).await.unwrap();
        if fetched.slices.is_empty() {
            assert_eq!(next, fetched.high_watermark);
            return (start.0, next.0);
        }
        for slice in &fetched.slices {
            next = check_batches(&slice.joined(), &topic.name, index, next);
        }
    }
}

fn check_batches(bytes: &[u8], topic: &str, index: i32, mut next: Offset) -> Offset {
    for batch in split(bytes) {
        let (_, batch) = batch.unwrap();
        verify_crc(batch).unwrap();
        for record in records(batch, 1 << 30).unwrap().iter() {
            let record = record.unwrap();
            if record.offset >= next {
                assert_eq!(record.offset, next);
                let read = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                assert_eq!(read.trim_end_matches('\0'), value(topic, index, next.0));
                next = Offset(next.0 + 1);
            }
        }
    }
    next
}

async fn check_topics(broker: &Broker, manifest: &Manifest) {
    let catalog = broker.catalog();
    let plain = catalog.topics().filter(|topic| !topic.internal && topic.config.queue().is_none());
    let names: BTreeSet<&str> = plain.map(|topic| &*topic.name).collect();
    assert_eq!(names, manifest.topics.keys().map(String::as_str).collect());
    for (name, there) in &manifest.topics {
        let topic = topic(broker, name);
        assert_eq!(topic.partitions.len(), there.partitions.len(), "{name}");
        for (index, &place) in there.partitions.iter().enumerate() {
            assert_eq!(read_whole(broker, &topic, index as i32).await, place, "{name}-{index}");
        }
    }
}

fn check_settings(broker: &Broker) {
    let of = |name: &str| topic(broker, name).config.clone();
    let (internal, plain): (Vec<_>, Vec<_>) =
        broker.catalog().topics().cloned().partition(|topic| topic.internal);
    let kept = internal.iter().filter(|topic| topic.config.queue().is_none()).count();
    assert_eq!(kept, 1, "Kafka's __consumer_offsets");
    assert!(plain.iter().all(|topic| topic.config.retention_ms.is_none()));
    assert_eq!(of("stamped").timestamp_type, TimestampType::LogAppendTime);
    assert_eq!((of("large").max_message_bytes, of("late").max_message_bytes), (4_000_000, 5_000_000));
    assert_eq!(of("packed").retention_bytes, Some(1_000_000_000));
    assert_eq!(of("plain").retention_bytes, None);
}

fn check_groups(broker: &Broker, manifest: &Manifest) {
    let groups = broker.groups(&Caller::OPERATOR);
    let listed: BTreeSet<String> = groups.list().iter().map(|group| group.group.to_string()).collect();
    assert_eq!(listed, manifest.groups.keys().cloned().collect());
    for (group, topics) in &manifest.groups {
        let expected: BTreeMap<(TopicId, i32), i64> = topics
            .iter()
            .flat_map(|(name, offsets)| {
                let id = topic(broker, name).id;
                offsets.iter().map(move |(partition, offset)| ((id, partition.parse().unwrap()), *offset))
            })
            .collect();
        let committed = groups.all_offsets(group);
        assert!(committed.iter().all(|(_, at)| *at.metadata == *format!("at {}", at.offset.0)), "{group}");
        let found = committed.into_iter().map(|(partition, at)| (partition, at.offset.0)).collect();
        assert_eq!(expected, found, "{group}");
    }
    let members = groups.describe("members").unwrap();
    assert_eq!((members.state, members.members.len()), (GroupPhase::Stable, 1));
    assert_eq!(&*members.members[0].assignment, b"all of it");
}

async fn append(
    broker: &Broker,
    topic: &Arc<Topic>,
    index: i32,
    batch: BatchBuilder,
) -> Result<Appended, ErrorAbout<AppendError>> {
    let target =
        AppendTarget::new(&Caller::OPERATOR, topic, index, AppendAcks::InSync, FrontendNo::NONE).unwrap();
    let batch = batch.build_checked(&target.rules(), broker.wall_ms()).unwrap();
    let appending = broker.append(vec![target.append(batch).unwrap()]);
    broker.flush();
    appending.await.remove(0)
}

/// Records for the partition's end.
fn batch(topic: &str, index: i32, end: i64, count: i64, time_ms: i64) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::None);
    for offset in end..end + count {
        batch.push(time_ms, None, Some(value(topic, index, offset).as_bytes()), &[]);
    }
    batch
}

/// What producers sent last is known to have been sent, and they go on where they were.
async fn check_producers(broker: &Broker, manifest: &mut Manifest) {
    for producer in &manifest.producers {
        let (name, index, offset, count) = &producer.last;
        let (topic, count) = (topic(broker, name), i64::from(*count));
        let sent = |sequence, end| {
            batch(name, *index, end, count, manifest.made_ms).producer(
                ProducerId(producer.id),
                producer.epoch,
                sequence,
            )
        };
        let again =
            append(broker, &topic, *index, sent(producer.next - count as i32, *offset)).await.unwrap();
        assert!(again.duplicate && again.base_offset == Offset(*offset), "{again:?}");
        let end = &mut manifest.topics.get_mut(name).unwrap().partitions[*index as usize].1;
        let next = append(broker, &topic, *index, sent(producer.next, *end)).await.unwrap();
        assert!(!next.duplicate && next.base_offset == Offset(*end), "{next:?}");
        *end += count;
        let gap = append(broker, &topic, *index, sent(producer.next + 100, *end)).await;
        let (expected, got) = (producer.next + count as i32, producer.next + 100);
        assert_eq!(gap, Err(AppendError::OutOfOrderSequence { expected, got }.into()));
    }
    let fresh = broker.allocate_producer_id(&Caller::OPERATOR).await.unwrap();
    assert!(manifest.producers.iter().all(|producer| producer.id < fresh.0));
}

/// Writes what there is of everything.
async fn write(broker: &Broker, manifest: &mut Manifest) {
    let made = broker.create_topics(&Caller::OPERATOR, vec![new_topic("new", 3)]).await.remove(0).unwrap();
    assert!(broker.catalog().topics().all(|topic| topic.name == made.name || topic.id != made.id));
    manifest.topics.insert("new".into(), TopicThere { partitions: vec![(0, 0); 3] });
    for (name, there) in &mut manifest.topics {
        let topic = topic(broker, name);
        for (index, (_, end)) in (0..).zip(&mut there.partitions) {
            let appended = append(broker, &topic, index, batch(name, index, *end, 2, manifest.made_ms)).await;
            assert_eq!(appended.unwrap().base_offset, Offset(*end));
            *end += 2;
        }
    }
    let gone = topic(broker, "again").id;
    broker.delete_topics(&Caller::OPERATOR, vec![gone]).await.remove(0).unwrap();
    manifest.topics.remove("again");
    let offset = OffsetCommit {
        topic: made.id,
        partition: 2,
        offset: Offset(1),
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: "at 1".into(),
    };
    let outsider = Fence { generation: -1, member: "".into(), instance: None };
    let committed = broker.groups(&Caller::OPERATOR).commit("readers", outsider, vec![offset]).await;
    assert_eq!(committed, [Ok(())]);
    manifest.groups.get_mut("readers").unwrap().insert("new".into(), [("2".into(), 1)].into());
    if let Some(queues) = &mut manifest.queues {
        queues.write(broker).await;
    }
}

fn new_topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic {
        name: name.into(),
        partitions,
        config: TopicConfig { retention_ms: None, ..TopicConfig::default() },
        internal: false,
        unlike: false,
    }
}

async fn check(broker: &Broker, manifest: &Manifest) {
    assert_eq!(broker.options().data_shards, manifest.shards);
    check_topics(broker, manifest).await;
    check_settings(broker);
    check_groups(broker, manifest);
    if let Some(queues) = &manifest.queues {
        queues.check(broker).await;
    }
}

/// `has` is its level once this version has opened it.
async fn opens_and_goes_on(fixture: &Path, has: u32) {
    let (data, mut manifest) = unpack(fixture);
    let broker = open(data.path(), &manifest, 60_000, None).unwrap();
    check(&broker, &manifest).await;
    check_producers(&broker, &mut manifest).await;
    write(&broker, &mut manifest).await;
    check(&broker, &manifest).await;
    assert_eq!(
        broker.format_level().number(),
        has,
        "raised to the lowest that this version writes, and no higher"
    );
    broker.shutdown();
    drop(broker);
    let form = match has {
        2 => 4,
        3 => 5,
        _ => 6,
    };
    assert!((0..=manifest.shards).all(|shard| slot_form(data.path(), shard) == form));
    // Once more, now that this version has written its forms.
    let levels =
        [(Some(2), 2), (None, 2), (Some(3), 3), (None, 3), (Some(4), 4), (None, 4), (Some(5), 5), (None, 5)];
    for (level, has) in levels.into_iter().filter(|(_, level)| *level >= has) {
        let broker = open(data.path(), &manifest, 120_000, level).unwrap();
        check(&broker, &manifest).await;
        assert_eq!(broker.format_level().number(), has);
        broker.shutdown();
        drop(broker);
    }
    for (level, says) in [(1, "from 2 to 5"), (4, "cannot go down to 4"), (9, "from 2 to 5")] {
        let error = open(data.path(), &manifest, 120_000, Some(level)).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_directory_of_level_1_with_one_shard_that_was_killed_opens_and_goes_on() {
    opens_and_goes_on(&level("level-1/one-shard"), 2).await;
}

#[tokio::test]
async fn a_directory_of_level_1_with_three_shards_that_was_stopped_opens_and_goes_on() {
    opens_and_goes_on(&level("level-1/three-shards"), 2).await;
}

#[tokio::test]
async fn a_directory_of_level_2_with_one_shard_that_was_killed_opens_and_goes_on() {
    opens_and_goes_on(&level("level-2/one-shard"), 2).await;
}

#[tokio::test]
async fn a_directory_of_level_2_with_three_shards_that_was_stopped_opens_and_goes_on() {
    opens_and_goes_on(&level("level-2/three-shards"), 2).await;
}

#[tokio::test]
async fn a_directory_of_level_3_with_one_shard_that_was_killed_opens_and_goes_on() {
    opens_and_goes_on(&level("level-3/one-shard"), 3).await;
}

#[tokio::test]
async fn a_directory_of_level_3_with_three_shards_that_was_stopped_opens_and_goes_on() {
    opens_and_goes_on(&level("level-3/three-shards"), 3).await;
}

#[tokio::test]
async fn a_directory_of_level_4_with_one_shard_that_was_killed_opens_and_goes_on() {
    opens_and_goes_on(&level("level-4/one-shard"), 4).await;
}

#[tokio::test]
async fn a_directory_of_level_4_with_three_shards_that_was_stopped_opens_and_goes_on() {
    opens_and_goes_on(&level("level-4/three-shards"), 4).await;
}

#[tokio::test]
async fn what_waits_for_its_time_in_a_directory_of_level_4_comes_then() {
    for name in ["level-4/one-shard", "level-4/three-shards"] {
        let (data, manifest) = unpack(&level(name));
        let broker = open(data.path(), &manifest, 2 * 3_600_000, None).unwrap();
        manifest.queues.as_ref().unwrap().check_later(&broker).await;
        broker.shutdown();
    }
}

/// Runs `fixtures/make.py`, as it says, with the binary that SABIR_BIN names and the Python that PYTHON does.
#[tokio::test]
#[ignore = "it needs a binary, and a Python that has pika"]
async fn what_the_script_makes_now_opens_and_goes_on() {
    let made = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/make.py");
    let python = std::env::var("PYTHON").unwrap_or("python3".into());
    let done = std::process::Command::new(python).arg(script).arg(made.path()).status().unwrap();
    assert!(done.success(), "the script ended with {done}");
    for name in ["one-shard", "three-shards"] {
        opens_and_goes_on(&made.path().join(name), FormatLevel::NEWEST.number()).await;
    }
}

/// Counts its entries.
struct Counter(Paged<Unit, Count>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Unit;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count(u8);

const COUNTER: ProjectionFactory = ProjectionFactory {
    name: "counter",
    make: |maps| Ok(Box::new(Counter(maps.map(0)?)) as Box<dyn FrontendProjection>),
};

impl PageKey for Unit {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(_: &[u8]) -> Result<Self, PageDecodeError> {
        Ok(Self)
    }
}

impl PageValue for Count {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }
    fn decode(bytes: &[u8]) -> Result<Self, PageDecodeError> {
        Ok(Self(bytes[0]))
    }
}

impl Projection for Counter {
    fn maps(&mut self) -> Vec<&mut dyn PageMap> {
        vec![&mut self.0]
    }
}

impl FrontendProjection for Counter {
    fn apply(&mut self, _: &[u8], _: &mut Effects<'_>) -> Result<Bytes, DecodeError> {
        let count = self.0.get_or_insert_with(Unit, || Count(0));
        count.0 += 1;
        Ok(vec![count.0].into())
    }
}

/// The version before would not open a directory in which it had state.
#[tokio::test]
async fn a_front_end_has_state_only_where_the_level_was_raised() {
    let (data, manifest) = unpack(&level("level-2/three-shards"));
    let open = |level| {
        let projections = vec![COUNTER];
        let options = BrokerOptions {
            keep_free: 0,
            format_level: level,
            projections,
            ..BrokerOptions::new(data.path())
        };
        Broker::open(options, Arc::new(ManualClock::at(manifest.made_ms))).unwrap()
    };
    let broker = open(None);
    let (has, needs) = (FormatLevel::LISTED, FormatLevel::FRONT_ENDS);
    assert_eq!(broker.projection("counter"), Err(EntryRefused::Level { has, needs }));
    let refused = broker.write(&Caller::OPERATOR, ShardId(1), FrontendNo(2), &ProjectionEntry::new("")).err();
    assert_eq!(refused, Some(EntryRefused::UnknownProjection));
    // Nor are there groups that say whose they are, or longer names than that version's.
    let other = Caller::OPERATOR.within(Namespace::named("other").unwrap());
    let refused = Err(GroupError::Level { has: 2, needs: 3 }.into());
    for (caller, name) in [(&other, "g"), (&Caller::OPERATOR, &*"g".repeat(385))] {
        assert_eq!(broker.groups(caller).delete(name).await, refused);
    }
    assert_eq!(
        broker.groups(&Caller::OPERATOR).delete(&"g".repeat(384)).await,
        Err(GroupError::NotFound.into())
    );
    // Nor exchanges.
    let declared =
        broker.exchanges().declare(&Caller::OPERATOR, "e", ExchangeSpec::of(ExchangeKind::Direct)).await;
    assert_eq!(declared, Err(ExchangeError::Level { has, needs: FormatLevel::QUEUES }));
    broker.shutdown();
    drop(broker);
    for (level, count) in [(Some(3), 1u8), (None, 2), (None, 3)] {
        let broker = open(level);
        let number = broker.projection("counter").unwrap();
        let (_, answer) = broker
            .write(&Caller::front_end("counter"), ShardId(3), number, &ProjectionEntry::new(""))
            .unwrap();
        broker.flush();
        assert_eq!(answer.await.unwrap(), [count].as_slice());
        broker.shutdown();
        drop(broker);
    }
}

/// The version before would not open a directory with a queue whose messages wait when they come back, or that has a rate.
#[tokio::test]
async fn messages_wait_only_where_the_level_was_raised() {
    let (data, manifest) = unpack(&level("level-4/one-shard"));
    let waits = QueueConfig { retry: Some(Backoff::Steps([50].into())), ..QueueConfig::default() };
    let paced = QueueConfig { consume_rate: Some(5), ..QueueConfig::default() };
    let new = |name: &str, queue: &QueueConfig| NewTopic {
        name: name.to_owned(),
        partitions: 1,
        config: TopicConfig::of_queue(queue.clone()),
        internal: false,
        unlike: false,
    };
    for (level, refused) in [(None, Some(TopicError::QueuesNeedLevel { has: 4, needs: 5 })), (Some(5), None)]
    {
        let broker = open(data.path(), &manifest, 60_000, level).unwrap();
        assert_eq!(broker.parks(), refused.is_none());
        let queues = vec![new("waits", &waits), new("paced", &paced)];
        for made in broker.create_topics(&Caller::OPERATOR, queues).await {
            assert_eq!(made.err(), refused);
        }
        broker.shutdown();
    }
}

/// As `sabir serve` opens it, however old it is by now.
#[test]
fn the_server_starts_on_a_directory_of_level_1() {
    let (data, manifest) = unpack(&level("level-1/one-shard"));
    let set = ["net.default_listen=off", "kafka.listen=127.0.0.1:0", "admin.listen=127.0.0.1:0"]
        .map(String::from)
        .into();
    let sources = Sources { data: Some(data.path().into()), set, ..Sources::default() };
    let running = start(ServerConfig::load(&sources, protocols()).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(check(running.broker(), &manifest));
    running.stop();
}
