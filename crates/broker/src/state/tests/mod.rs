//! The projections by themselves: blocks in, outcomes and dumps out.

mod checkpoints;
mod dead_letters;
mod message_ids;
mod references;
mod subscriptions;

use std::sync::Arc;

use proptest::prelude::*;
use sabir_base::buf::BufPool;
use sabir_journal::pages::{MemPages, PageBatch, PageError, PageStore};
use sabir_journal::{BlockBuilder, SegmentNo};
use sabir_model::{
    AppendError, Durability, Extent, Facts, FrontendNo, NodeId, Offset, Overflow, Overlay, OverlayBody,
    OverlayPlace, PartitionId, ProducerId, RecordFacts, Sequence, ShardFailure, ShardId, Term, TopicConfig,
    TopicError, TopicId, ValidConfig,
};

use super::{
    AppendOutcome, CoreProjection, EntryOutcome, FrontendProjections, Outcome, Partitions, ShardState,
    prefixes,
};
use crate::append::Appended;
use crate::catalog::Catalog;
use crate::entry::{
    AppendBody, Body, ChunkBody, DataShardsFixed, ExchangeBound, ExchangeDeclared, ExchangeDeleted,
    ExchangeUnbound, FragmentedBody, FragmentedDropped, FrontendBody, FrontendRegistered, LogStartsMoved,
    OfferedBatch, PartitionSettings, PartitionsConfigured, PartitionsCreated, PartitionsDeleted, Producer,
    ProducerIdsAllocated, ProducersExpired, RecordPlace, ReferenceBody, Started, Targets, TopicConfigured,
    TopicCreated, TopicDeleted, TopicExtended, kind,
};
use crate::exchange::{ExchangeKind, ExchangeSpec, NamedBinding, NamedDestination};
use crate::group::GroupTable;
use crate::level::FormatLevel;
use crate::projection::ProjectionFactory;
use crate::tests::registers::{self, REGISTERS};

/// Makes blocks one after the other, and applies them.
struct Shard {
    state: ShardState,
    builder: BlockBuilder,
    sequence: Sequence,
    term: Term,
    now: i64,
}

fn builder() -> BlockBuilder {
    BlockBuilder::new(BufPool::new(1 << 20))
}

/// The projections of front ends.
fn known() -> Arc<[ProjectionFactory]> {
    Arc::new([REGISTERS])
}

fn locate(block: Sequence) -> Option<SegmentNo> {
    Some(SegmentNo(block.0 / 4))
}

impl Shard {
    fn new() -> Self {
        let state = ShardState::new(known());
        Self { state, builder: builder(), sequence: Sequence(0), term: Term(1), now: 1000 }
    }

    fn push<B: Body>(&mut self, body: &B, payload: Option<&[u8]>) {
        let mut encoded = Vec::new();
        body.encode(&mut encoded);
        self.builder.push(B::KIND, &encoded, payload, 0, Durability::Sync);
    }

    fn close(&mut self) -> (Sequence, Term, Vec<u8>) {
        self.now += 1;
        self.sequence = self.sequence.next();
        (self.sequence, self.term, self.builder.take(self.now).content().to_vec())
    }

    /// Closes the block, applies it and gives what its entries came to.
    fn apply(&mut self) -> Vec<Outcome> {
        let (sequence, term, content) = self.close();
        apply(&mut self.state, sequence, term, &content)
    }

    fn one<B: Body>(&mut self, body: &B) -> B::Outcome {
        self.push(body, None);
        B::Outcome::of(self.apply().remove(0))
    }

    /// An entry of the front end of that number.
    fn push_front_end(&mut self, number: u16, name: Option<&str>, command: &[u8], batch: Option<u64>) {
        let batches: Vec<_> =
            batch.map(|id| OfferedBatch { len: 5, append: append_to(id, 2) }).into_iter().collect();
        let payload = (!batches.is_empty()).then_some(b"batch".as_slice());
        let (mut encoded, number, seed) = (Vec::new(), FrontendNo(number), Some(u64::from(number) << 40));
        FrontendBody { number, name, seed, batches, command }.encode(&mut encoded);
        self.builder.push(FrontendBody::KIND, &encoded, payload, 0, Durability::Sync);
    }

    /// One of several registers; the name is told with each entry, as long as it may be news.
    fn push_own(&mut self, number: u16, letter: u8, key: u8, id: u64) {
        let (key, value) = (format!("k{key}"), [letter; 900]);
        let command = match letter {
            0 => registers::set(&key, &value),
            1 => registers::delete(&key),
            2 => registers::draw(&key),
            3 => registers::pin(&key),
            4 => registers::unpin(&key),
            _ => registers::log_new(&key, &value),
        };
        let known = self.state.front_ends.numbers().contains(&FrontendNo(number));
        let name = (!known).then_some("registers");
        self.push_front_end(number, name, &command, (letter > 4).then_some(id));
    }

    fn append(&mut self, body: &AppendBody) -> Result<Appended, AppendError> {
        self.push(body, Some(b"batch"));
        appended(self.apply().remove(0))
    }

    fn with_partitions(ids: &[u64]) -> Self {
        let mut shard = Self::new();
        shard.one(&created(ids)).unwrap();
        shard
    }
}

fn appended(outcome: Outcome) -> Result<Appended, AppendError> {
    EntryOutcome::of(outcome)
}

fn apply(state: &mut ShardState, sequence: Sequence, term: Term, content: &[u8]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    state
        .apply_block(sequence, term, content, &locate, &mut |index, outcome, _| {
            assert_eq!(index as usize, outcomes.len());
            outcomes.push(outcome);
        })
        .unwrap();
    outcomes
}

fn settings(version: u64) -> PartitionSettings {
    PartitionSettings { version, retention_ms: -1, retention_bytes: -1, queue: None }
}

fn created(ids: &[u64]) -> PartitionsCreated {
    let partitions = ids.iter().map(|&id| (id as u32, PartitionId(id))).collect();
    PartitionsCreated { topic: TopicId([1; 16]), epoch_base: 0, settings: settings(1), partitions }
}

fn append_to(id: u64, records: u32) -> AppendBody {
    AppendBody {
        targets: Targets::One(PartitionId(id)),
        records,
        max_ts: 5,
        stamped: false,
        origin: FrontendNo::NONE,
        producer: None,
        facts: None,
        partial: false,
    }
}

fn produced(id: u64, producer: i64, epoch: i16, base_sequence: i32, records: u32) -> AppendBody {
    let producer = Some(Producer { id: ProducerId(producer), epoch, base_sequence });
    AppendBody { producer, ..append_to(id, records) }
}

fn place(partition: u64, offset: i64) -> RecordPlace {
    RecordPlace { partition: PartitionId(partition), offset: Offset(offset) }
}

fn topic_created(name: &str, id: u8) -> TopicCreated {
    TopicCreated {
        id: TopicId([id; 16]),
        namespace: "/".into(),
        name: name.into(),
        config: ValidConfig::trusted(TopicConfig::default()),
        internal: false,
        unlike: false,
        made_by: FrontendNo::NONE,
        epoch_base: 0,
        shards: vec![ShardId(1); 2],
    }
}

fn configured(id: u8) -> TopicConfigured {
    let config = ValidConfig::trusted(TopicConfig::default());
    TopicConfigured { id: TopicId([id; 16]), version: None, config }
}

#[test]
fn appends_take_dense_offsets_in_entry_order() {
    let mut shard = Shard::with_partitions(&[1, 2]);
    for (id, records) in [(1, 3), (2, 1), (1, 2), (9, 1)] {
        shard.push(&append_to(id, records), Some(b"batch"));
    }
    let outcomes = shard.apply().into_iter().map(|o| appended(o).map(|a| a.base_offset.0));
    assert_eq!(outcomes.collect::<Vec<_>>(), [Ok(0), Ok(0), Ok(3), Err(AppendError::UnknownPartition)]);
    assert_eq!(shard.state.partition(PartitionId(1)).unwrap().next, Offset(5));
    let grown: Vec<_> = shard.state.partitions.touched.grown.iter().map(|(id, _)| id.0).collect();
    assert_eq!(grown, [1, 2, 1]);
}

#[test]
fn one_batch_for_several_partitions_is_stored_once() {
    let mut shard = Shard::with_partitions(&[1, 2]);
    shard.append(&append_to(2, 1)).unwrap();
    let targets = Targets::Several(vec![PartitionId(1), PartitionId(2), PartitionId(9)]);
    let answer = shard.append(&AppendBody { targets, ..append_to(0, 4) }).unwrap();
    assert_eq!(answer.base_offset, Offset(0), "the first target's");
    let targets = Targets::Several(vec![PartitionId(2), PartitionId(9), PartitionId(1)]);
    shard.push(&AppendBody { targets, ..append_to(0, 1) }, Some(b"batch"));
    let AppendOutcome::Each(each) = AppendOutcome::of(shard.apply().remove(0)) else {
        panic!("each has its own answer")
    };
    let each: Vec<_> = each.iter().map(|one| one.map(|appended| appended.base_offset.0)).collect();
    assert_eq!(each, [Ok(5), Err(AppendError::UnknownPartition), Ok(4)]);
    let run = |id, at: usize| shard.state.partition(PartitionId(id)).unwrap().index.open()[at];
    let (run, other) = (run(1, 0), run(2, 1));
    assert_eq!((run.base, other.base), (Offset(0), Offset(1)));
    assert_eq!((run.block, run.offset, run.len), (other.block, other.offset, other.len));
}

#[test]
fn producers_are_judged_where_the_order_is_final() {
    let mut shard = Shard::with_partitions(&[1, 2]);
    shard.push(&produced(1, 7, 0, 0, 2), Some(b"a"));
    shard.push(&produced(1, 7, 0, 0, 2), Some(b"a"));
    shard.push(&produced(1, 7, 0, 3, 1), Some(b"c"));
    shard.push(&produced(1, 7, 0, 2, 1), Some(b"b"));
    shard.push(&produced(2, 7, 0, 9, 1), Some(b"x"));
    let answers: Vec<_> = shard.apply().into_iter().map(appended).collect();
    let told: Vec<_> = answers.iter().map(|a| a.map(|a| (a.base_offset.0, a.duplicate))).collect();
    let out_of_order = Err(AppendError::OutOfOrderSequence { expected: 2, got: 3 });
    assert_eq!(told, [Ok((0, false)), Ok((0, true)), out_of_order, Ok((2, false)), Ok((0, false))]);
    // A newer epoch fences the older one.
    shard.append(&produced(1, 7, 1, 0, 1)).unwrap();
    assert_eq!(
        shard.append(&produced(1, 7, 0, 3, 1)),
        Err(AppendError::FencedProducer { current: 1, got: 0 })
    );
    // Forgotten only if it has not produced since.
    let key = (PartitionId(1), ProducerId(7));
    let expired = |idle_since| ProducersExpired { idle_since, producers: vec![key] };
    shard.one(&expired(shard.now - 2)).unwrap();
    assert_eq!(
        shard.append(&produced(1, 7, 0, 3, 1)),
        Err(AppendError::FencedProducer { current: 1, got: 0 })
    );
    shard.one(&expired(shard.now)).unwrap();
    assert!(shard.append(&produced(1, 7, 0, 3, 1)).is_ok(), "any sequence after that");
}

/// What has gone from the log is no reason to forget the producer that wrote it: neither a gap nor a repetition passes.
#[test]
fn producers_outlive_their_records() {
    let mut shard = Shard::with_partitions(&[1]);
    shard.append(&produced(1, 7, 0, 5, 2)).unwrap();
    let moved = LogStartsMoved { moves: vec![(PartitionId(1), Offset(2))] };
    assert_eq!(shard.one(&moved), Ok(Offset(2)));
    assert!(shard.append(&produced(1, 7, 0, 5, 2)).unwrap().duplicate);
    assert_eq!(
        shard.append(&produced(1, 7, 0, 9, 1)),
        Err(AppendError::OutOfOrderSequence { expected: 7, got: 9 })
    );
    assert_eq!(shard.append(&produced(1, 7, 0, 7, 1)).unwrap().base_offset, Offset(2));
}

#[test]
fn a_later_epoch_begins_at_0_and_numbers_wrap() {
    let mut shard = Shard::with_partitions(&[1]);
    shard.append(&produced(1, 7, 0, i32::MAX - 1, 2)).unwrap();
    shard.append(&produced(1, 7, 0, 0, 1)).unwrap();
    assert_eq!(
        shard.append(&produced(1, 7, 1, 1, 1)),
        Err(AppendError::OutOfOrderSequence { expected: 0, got: 1 })
    );
    shard.append(&produced(1, 7, 1, 0, 1)).unwrap();
}

#[test]
fn what_was_there_already_is_not_counted_as_refused() {
    let mut shard = Shard::with_partitions(&[1]);
    for (sequence, records) in [(0, 2), (0, 2), (0, 2), (9, 1)] {
        let _ = shard.append(&produced(1, 7, 0, sequence, records));
    }
    let counters = shard.state.partitions.counters;
    assert_eq!((counters.batches, counters.duplicates, counters.refused), (1, 2, 1));
}

#[test]
fn a_partitions_producers_go_with_it() {
    let mut shard = Shard::with_partitions(&[1, 2, 3]);
    for (partition, producer) in [(1, 7), (2, 7), (2, 8), (3, 7)] {
        shard.append(&produced(partition, producer, 0, 0, 1)).unwrap();
    }
    shard.one(&PartitionsDeleted { partitions: vec![PartitionId(2)] }).unwrap();
    assert_eq!(shard.state.partitions.producers.len(), 2);
    let left: Vec<_> = shard.state.partitions.producers.iter().map(|(key, _)| key.partition.0).collect();
    assert!(!left.contains(&2), "{left:?}");
}

#[test]
fn log_starts_move_up_only_and_not_beyond_the_end() {
    let mut shard = Shard::with_partitions(&[1]);
    shard.append(&append_to(1, 10)).unwrap();
    let mut moved = |to: i64| shard.one(&LogStartsMoved { moves: vec![(PartitionId(1), Offset(to))] });
    assert_eq!(moved(4), Ok(Offset(4)));
    assert_eq!(moved(2), Ok(Offset(4)));
    let beyond = |asked| TopicError::OffsetOutOfRange { asked: Offset(asked), end: Offset(10) };
    assert_eq!(moved(11), Err(beyond(11)));
    assert_eq!(moved(-2), Err(beyond(-2)));
    assert_eq!(moved(-1), Ok(Offset(10)));
    let unknown = LogStartsMoved { moves: vec![(PartitionId(2), Offset(0))] };
    assert_eq!(shard.one(&unknown), Err(TopicError::Unknown));
    assert_eq!(shard.append(&append_to(1, 1)).unwrap().log_start, Offset(10));
}

fn fragmented(fragmented: u64, chunks: u32) -> FragmentedBody {
    FragmentedBody { fragmented, chunks, append: append_to(1, 7) }
}

#[test]
fn a_fragmented_batch_is_visible_with_its_end_and_dropped_with_its_term() {
    let mut shard = Shard::with_partitions(&[1]);
    for index in 0..3 {
        shard.push(&ChunkBody { fragmented: 4, index }, Some(&[0; 100]));
        shard.apply();
    }
    assert_eq!(shard.state.partition(PartitionId(1)).unwrap().next, Offset(0));
    assert_eq!(shard.state.lowest_block(), Some(Sequence(2)));
    assert_eq!(shard.one(&fragmented(4, 3)).first().unwrap().base_offset, Offset(0));
    let partition = shard.state.partition(PartitionId(1)).unwrap();
    assert_eq!((partition.next, partition.bytes, partition.fragmented.len()), (Offset(7), 300, 1));
    assert_eq!(partition.first_block_behind_cut(), Some(Sequence(2)));
    assert_eq!(shard.state.lowest_block(), None);
    assert_eq!(shard.one(&fragmented(4, 3)).first(), Err(ShardFailure::NotLeader.into()), "used up");

    shard.push(&ChunkBody { fragmented: 4, index: 0 }, Some(&[0; 100]));
    shard.apply();
    shard.one(&FragmentedDropped { fragmented: 4 }).unwrap();
    assert_eq!(shard.state.lowest_block(), None);

    shard.push(&ChunkBody { fragmented: 5, index: 0 }, Some(&[0; 100]));
    shard.apply();
    shard.term = Term(2);
    assert_eq!(shard.one(&fragmented(5, 1)).first(), Err(ShardFailure::NotLeader.into()));
    shard.push(&ChunkBody { fragmented: 6, index: 1 }, Some(&[0; 100]));
    shard.apply();
    assert_eq!(shard.state.lowest_block(), None, "its first chunk was cut");
}

#[test]
fn leader_epochs_follow_the_term() {
    let mut shard = Shard::with_partitions(&[1]);
    shard.append(&append_to(1, 2)).unwrap();
    shard.term = Term(5);
    shard.append(&append_to(1, 2)).unwrap();
    let partition = shard.state.partition(PartitionId(1)).unwrap();
    let epochs = [0, 1, 2, 3].map(|offset| partition.epochs.at(Offset(offset)).0);
    assert_eq!(epochs, [1, 1, 5, 5]);
}

#[test]
fn partitions_are_made_configured_and_deleted_once() {
    let mut shard = Shard::with_partitions(&[1]);
    shard.append(&append_to(1, 2)).unwrap();
    shard.one(&created(&[1, 2])).unwrap();
    assert_eq!(shard.state.partition(PartitionId(1)).unwrap().next, Offset(2), "it was there");
    let newer = |version| PartitionsConfigured {
        settings: PartitionSettings { retention_ms: version as i64, ..settings(version) },
        partitions: vec![PartitionId(1), PartitionId(77)],
    };
    shard.one(&newer(3)).unwrap();
    shard.one(&newer(2)).unwrap();
    assert_eq!(shard.state.partition(PartitionId(1)).unwrap().settings.version, 3);
    let deleted = PartitionsDeleted { partitions: vec![PartitionId(1), PartitionId(77)] };
    shard.one(&deleted).unwrap();
    assert_eq!(shard.state.partitions.touched.gone, [PartitionId(1)]);
    assert_eq!(shard.append(&append_to(1, 1)), Err(AppendError::UnknownPartition));
}

#[test]
fn the_catalog_decides_names_ids_and_numbers() {
    let mut shard = Shard::new();
    let first = shard.one(&topic_created("t", 1)).unwrap();
    assert_eq!(first.partitions.iter().map(|p| (p.index, p.id.0)).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
    assert_eq!(shard.one(&topic_created("t", 2)).unwrap_err(), TopicError::Exists("t".into()));
    let id = TopicId([1; 16]);
    let extended = TopicExtended { id, from: 2, shards: vec![ShardId(1)] };
    assert_eq!(shard.one(&extended).unwrap().partitions.len(), 3);
    assert_eq!(shard.one(&extended).unwrap_err(), TopicError::Changed("t".into()), "decided twice");
    let config = ValidConfig::trusted(TopicConfig { retention_ms: Some(1), ..TopicConfig::default() });
    let change = |version| TopicConfigured { id, version, config: config.clone() };
    let configured = shard.one(&change(None)).unwrap();
    assert_eq!((&configured.config, configured.version), (&config, 3));
    assert_eq!(
        shard.one(&change(Some(2))).unwrap_err(),
        TopicError::Changed("t".into()),
        "made of an older one"
    );
    assert_eq!(shard.one(&change(Some(3))).unwrap().version, 4);
    shard.one(&TopicDeleted { id }).unwrap();
    assert_eq!(shard.one(&TopicDeleted { id }).unwrap_err(), TopicError::Unknown);
    let again = shard.one(&topic_created("t", 3)).unwrap();
    assert_eq!(again.partitions[0].id, PartitionId(4), "ids are never reused");

    let number = |shard: &mut Shard, name: &str| shard.one(&FrontendRegistered { name: name.into() });
    assert_eq!(
        (number(&mut shard, "a"), number(&mut shard, "b"), number(&mut shard, "a")),
        (Ok(FrontendNo(1)), Ok(FrontendNo(2)), Ok(FrontendNo(1)))
    );
    let ids = ProducerIdsAllocated { count: 10 };
    assert_eq!((shard.one(&ids), shard.one(&ids)), (Ok(ProducerId(1)), Ok(ProducerId(11))));
    let fixed = |shards| DataShardsFixed { shards, cluster: TopicId([shards as u8; 16]) };
    shard.one(&fixed(3)).unwrap();
    shard.one(&fixed(4)).unwrap();
    assert_eq!(shard.state.catalog.made_with(), Some((3, TopicId([3; 16]))));
}

#[test]
fn a_topic_that_is_to_be_unlike_others_is_refused_beside_one_whose_name_is_nearly_its_own() {
    let mut shard = Shard::new();
    let unlike = |name: &str, id: u8| TopicCreated { unlike: true, ..topic_created(name, id) };
    let collides =
        |name: &str, other: &str| Err(TopicError::Collides { name: name.into(), other: other.into() });
    // In one block, so that no look at the catalog could have told.
    for (id, name) in ["a.b", "a_b", "a.b", "a-b", "ab"].into_iter().enumerate() {
        shard.push(&unlike(name, id as u8 + 1), None);
    }
    let made: Vec<_> = shard
        .apply()
        .into_iter()
        .map(|outcome| <TopicCreated as Body>::Outcome::of(outcome).map(drop))
        .collect();
    assert_eq!(made, [Ok(()), collides("a_b", "a.b"), Err(TopicError::Exists("a.b".into())), Ok(()), Ok(())]);
    // What asks for nothing is made, as it was before there was such a rule.
    shard.one(&topic_created("a_b", 7)).unwrap();
    let elsewhere = TopicCreated { namespace: "other".into(), ..unlike("a.b", 8) };
    shard.one(&elsewhere).unwrap();
    shard.one(&TopicDeleted { id: TopicId([1; 16]) }).unwrap();
    assert_eq!(shard.one(&unlike("a.b", 9)).map(drop), collides("a.b", "a_b"), "the other is still there");
    shard.one(&TopicDeleted { id: TopicId([7; 16]) }).unwrap();
    shard.one(&unlike("a.b", 10)).unwrap();
}

#[test]
fn entries_of_a_kind_are_one_projections() {
    let all = [Partitions::KINDS, GroupTable::KINDS, Catalog::KINDS].concat();
    for (at, one) in all.iter().enumerate() {
        let mut later = all[at + 1..].iter();
        assert!(later.all(|other| other.end() < one.start() || one.end() < other.start()), "{one:?}");
        assert!(!one.contains(&kind::STARTED) && !one.contains(&kind::FRONT_END));
    }
}

#[test]
fn what_cannot_be_applied_says_why() {
    let mut shard = Shard::new();
    shard.builder.push(999, b"?", None, 0, Durability::Sync);
    let (sequence, term, content) = shard.close();
    let try_it = |sequence, content: &[u8]| {
        let mut state = ShardState::default();
        state.apply_block(sequence, term, content, &locate, &mut |_, _, _| {}).unwrap_err().to_string()
    };
    assert!(try_it(sequence, &content).contains("kind 999"));
    assert!(try_it(sequence.next(), &content).contains("does not follow"));
    assert!(try_it(sequence, &[1, 2, 3]).contains("block 1"));
    for (kind, whose) in [(9, "partitions"), (13, "catalog"), (30, "groups")] {
        shard.builder.push(kind, b"\xff", None, 0, Durability::Sync);
        let (sequence, term, content) = shard.close();
        let error = ShardState { applied: Sequence(sequence.0 - 1), ..ShardState::default() }
            .apply_block(sequence, term, &content, &locate, &mut |_, _, _| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("{whose}: entry 0")), "{error}");
    }
}

/// Each way in which an entry can fail behind one that has taken effect.
#[test]
fn half_a_block_is_followed_by_nothing_and_never_checkpointed() {
    let unknown_kind = |builder: &mut BlockBuilder| {
        builder.push(999, b"?", None, 0, Durability::Sync);
    };
    let bad_body = |builder: &mut BlockBuilder| {
        builder.push(PartitionsDeleted::KIND, b"\xff\xff", None, 0, Durability::Sync);
    };
    let bad_group_body = |builder: &mut BlockBuilder| {
        builder.push(30, b"\xff\xff", None, 0, Durability::Sync);
    };
    let no_payload = |builder: &mut BlockBuilder| {
        let mut body = Vec::new();
        append_to(1, 1).encode(&mut body);
        builder.push(AppendBody::KIND, &body, None, 0, Durability::Sync);
    };
    let ways: [&dyn Fn(&mut BlockBuilder); 4] = [&unknown_kind, &bad_body, &bad_group_body, &no_payload];
    for (number, way) in ways.iter().enumerate() {
        let mut shard = Shard::with_partitions(&[1]);
        let before = shard.state.applied;
        shard.push(&append_to(1, 3), Some(b"first half"));
        way(&mut shard.builder);
        shard.push(&append_to(1, 4), Some(b"second half"));
        let (sequence, term, content) = shard.close();
        let mut answered = 0;
        let applied = shard
            .state
            .apply_block(sequence, term, &content, &locate, &mut |_, _, _| answered += 1)
            .unwrap_err();
        assert_eq!((applied.sequence, answered), (sequence, 1), "way {number}: {applied}");
        assert_eq!(shard.state.applied, before);
        assert_eq!(
            shard.state.partition(PartitionId(1)).unwrap().next,
            Offset(3),
            "what was answered is read"
        );
        assert!(shard.state.begin_checkpoint().is_none(), "a replay would do the first half twice");
        shard.push(&append_to(1, 1), Some(b"behind it"));
        let (next, term, content) = shard.close();
        for again in [sequence, next] {
            let refused = shard.state.apply_block(again, term, &content, &locate, &mut |_, _, _| {});
            assert!(refused.unwrap_err().to_string().contains("applied in part"));
        }
    }
}

#[test]
fn an_entry_of_a_front_end_that_cannot_be_applied_says_why() {
    let applied = |number, name, command: &[u8], known| {
        let mut shard = Shard { state: ShardState::new(known), ..Shard::new() };
        shard.push_front_end(number, name, command, None);
        let (sequence, term, content) = shard.close();
        let applied = shard.state.apply_block(sequence, term, &content, &locate, &mut |_, _, _| {});
        applied.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let name = Some("registers");
    assert_eq!(applied(7, name, &registers::set("k", b"v"), known()), "");
    let error = applied(7, name, &registers::newer(), known());
    assert!(error.contains("entry 0 of the front end registers: "), "{error}");
    let error = applied(7, None, &registers::set("k", b"v"), known());
    assert!(error.contains("front end 7, whose name"), "{error}");
    let error = applied(7, Some("hash"), b"", known());
    assert!(error.contains("the front end hash, which this version does not know"), "{error}");
    let mut shard = Shard::new();
    shard.push_front_end(7, name, &registers::set("k", b"v"), None);
    shard.apply();
    shard.state = ShardState {
        front_ends: FrontendProjections::new(Arc::new([REGISTERS, OTHER])),
        ..ShardState::default()
    };
    shard.sequence = Sequence(0);
    shard.push_front_end(7, name, &registers::set("k", b"v"), None);
    shard.push_front_end(7, Some("other"), &registers::set("k", b"v"), None);
    let (sequence, term, content) = shard.close();
    let error = shard.state.apply_block(sequence, term, &content, &locate, &mut |_, _, _| {}).unwrap_err();
    assert!(error.to_string().contains("number 7 is registers's, not other's"), "{error}");
}

const OTHER: ProjectionFactory = ProjectionFactory { name: "other", ..REGISTERS };

#[test]
fn batches_of_a_front_end_are_all_of_its_payload() {
    for (lens, payload, good) in [
        (&[2u32, 3][..], Some(&b"12345"[..]), true),
        (&[2, 2], Some(b"12345"), false),
        (&[2, 4], Some(b"12345"), false),
        (&[u32::MAX, 6], Some(b"12345"), false),
        (&[5], None, false),
        (&[], None, true),
    ] {
        let mut shard = Shard::with_partitions(&[1]);
        let offered = |len: &u32| OfferedBatch { len: *len, append: append_to(1, 1) };
        let (batches, mut encoded) = (lens.iter().map(offered).collect(), Vec::new());
        let command = registers::set("k", b"v");
        let (number, name) = (FrontendNo(1), Some("registers"));
        FrontendBody { number, name, seed: None, batches, command: &command }.encode(&mut encoded);
        shard.builder.push(FrontendBody::KIND, &encoded, payload, 0, Durability::Sync);
        let (sequence, term, content) = shard.close();
        let applied = shard.state.apply_block(sequence, term, &content, &locate, &mut |_, _, _| {});
        assert_eq!(applied.is_ok(), good, "{lens:?}");
    }
}
