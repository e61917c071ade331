//! The projections by themselves: blocks in, outcomes and dumps out.

use std::sync::Arc;

use proptest::prelude::*;
use sabir_base::buf::BufPool;
use sabir_journal::pages::{MemPages, PageBatch, PageError, PageStore};
use sabir_journal::{BlockBuilder, SegmentNo};
use sabir_model::{
    AppendError, Durability, Extent, Facts, FrontendNo, NodeId, Offset, Overlay, OverlayBody, OverlayPlace,
    PartitionId, ProducerId, RecordFacts, Sequence, ShardFailure, ShardId, Term, TopicConfig, TopicError,
    TopicId, ValidConfig,
};

use super::{
    AppendOutcome, CoreProjection, EntryOutcome, FrontendProjections, Outcome, Partitions, ShardState,
    prefixes,
};
use crate::append::Appended;
use crate::catalog::Catalog;
use crate::entry::{
    AppendBody, Body, ChunkBody, DataShardsFixed, FragmentedBody, FragmentedDropped, FrontendBody,
    FrontendRegistered, LogStartsMoved, OfferedBatch, PartitionSettings, PartitionsConfigured,
    PartitionsCreated, PartitionsDeleted, Producer, ProducerIdsAllocated, ProducersExpired, RecordPlace,
    ReferenceBody, Started, Targets, TopicConfigured, TopicCreated, TopicDeleted, TopicExtended, kind,
};
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
    PartitionSettings { version, retention_ms: -1, retention_bytes: -1 }
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
    }
}

fn produced(id: u64, producer: i64, epoch: i16, base_sequence: i32, records: u32) -> AppendBody {
    let producer = Some(Producer { id: ProducerId(producer), epoch, base_sequence });
    AppendBody { producer, ..append_to(id, records) }
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

/// What has gone from the log is no reason to forget who wrote it: neither a gap nor a repetition passes.
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
    assert_eq!(moved(11), Err(TopicError::OffsetOutOfRange));
    assert_eq!(moved(-2), Err(TopicError::OffsetOutOfRange));
    assert_eq!(moved(-1), Ok(Offset(10)));
    let unknown = LogStartsMoved { moves: vec![(PartitionId(2), Offset(0))] };
    assert_eq!(shard.one(&unknown), Err(TopicError::Unknown));
    assert_eq!(shard.append(&append_to(1, 1)).unwrap().log_start, Offset(10));
}

#[test]
fn references_show_stored_records_elsewhere() {
    let mut shard = Shard::with_partitions(&[1, 2]);
    shard.append(&append_to(1, 5)).unwrap();
    let run = shard.state.partition(PartitionId(1)).unwrap().index.open()[0];
    let extent = |block| Extent {
        block,
        offset: run.offset,
        len: run.len,
        first_record: 2,
        records: 3,
        origin: FrontendNo(1),
        overlay: Overlay::None,
    };
    let targets = vec![PartitionId(2)];
    let reference =
        |block| ReferenceBody { targets: targets.clone(), max_ts: 9, source: None, extent: extent(block) };
    let answer = shard.one(&reference(run.block)).first().unwrap();
    assert_eq!((answer.base_offset, answer.duplicate), (Offset(0), false));
    let shown = shard.state.partition(PartitionId(2)).unwrap().index.open()[0];
    assert_eq!((shown.block, shown.records, shown.first_record, shown.max_ts), (run.block, 3, 2, 9));
    // In its own block, which has no number yet when the entry is made.
    shard.one(&reference(Sequence::NONE)).first().unwrap();
    let shown = shard.state.partition(PartitionId(2)).unwrap().index.open()[1];
    assert_eq!((shown.block, shown.base), (shard.sequence, Offset(3)));
    // Not in one that is not applied.
    let later = Sequence(shard.sequence.0 + 9);
    assert_eq!(shard.one(&reference(later)).first(), Err(AppendError::InvalidReference));
    let first = shard.state.partition(PartitionId(2)).unwrap().first_block();
    assert_eq!(first, Some(run.block), "what is referred to is kept");
}

fn place(partition: u64, offset: i64) -> RecordPlace {
    RecordPlace { partition: PartitionId(partition), offset: Offset(offset) }
}

/// Refers in partition 2 to the first of the records that partition 1 has, with an overlay of so many bytes.
fn overlaid(records: u32, source: Option<RecordPlace>, overlay: Overlay) -> ReferenceBody {
    let extent = Extent {
        block: Sequence(2),
        offset: 32,
        len: 5,
        first_record: 0,
        records,
        origin: FrontendNo(1),
        overlay,
    };
    ReferenceBody { targets: vec![PartitionId(2), PartitionId(3)], max_ts: 9, source, extent }
}

#[test]
fn an_overlay_is_where_its_entry_brought_it_and_keeps_that_block_and_segment() {
    let mut shard = Shard::with_partitions(&[1, 2, 3]);
    shard.append(&append_to(1, 5)).unwrap();
    (0..8).for_each(|_| drop(shard.apply()));
    let source = Some(place(1, 0));
    shard.push(&overlaid(1, source, Overlay::Payload), Some(&[7; 40]));
    assert!(shard.apply().into_iter().all(|outcome| appended(outcome).is_ok()));
    let brought_in = shard.sequence;
    let detail = |shard: &Shard, id, at: usize| {
        let runs = shard.state.partition(PartitionId(id)).unwrap().index.open_runs();
        runs.detail(&runs.list()[at]).copied().unwrap()
    };
    let first = detail(&shard, 2, 0);
    let overlay = first.overlay.unwrap();
    assert_eq!((overlay.block, overlay.len, first.source), (brought_in, 40, source));
    assert_eq!(detail(&shard, 3, 0), first);
    let users = |shard: &Shard, block| {
        let set = shard.state.partitions.usage.of(locate(block).unwrap()).unwrap();
        set.iter().map(|id| id.0).collect::<Vec<_>>()
    };
    assert_eq!((users(&shard, Sequence(2)), users(&shard, brought_in)), (vec![1, 2, 3], vec![2, 3]));
    // One that is stored is named by its place; the run's own block may go before the overlay's, and the other way round.
    (0..8).for_each(|_| drop(shard.apply()));
    assert!(shard.one(&overlaid(1, Some(place(2, 0)), Overlay::At(overlay))).first().is_ok());
    assert_eq!(detail(&shard, 2, 1).overlay, Some(overlay));
    let moved = LogStartsMoved { moves: vec![(PartitionId(2), Offset(1))] };
    shard.one(&moved).unwrap();
    assert_eq!(shard.state.partition(PartitionId(2)).unwrap().first_block(), Some(Sequence(2)));
}

#[test]
fn a_block_is_kept_that_nothing_but_an_overlay_needs() {
    let mut shard = Shard::with_partitions(&[1, 2, 3]);
    shard.append(&append_to(1, 5)).unwrap();
    shard.push(&overlaid(1, Some(place(1, 0)), Overlay::Payload), Some(&[7; 40]));
    shard.apply();
    let (brought_in, runs) = (shard.sequence, shard.state.partition(PartitionId(2)).unwrap());
    let overlay = runs.index.open_runs().detail(&runs.index.open()[0]).unwrap().overlay.unwrap();
    shard.append(&append_to(1, 1)).unwrap();
    let later = shard.sequence;
    let mut body = overlaid(1, Some(place(2, 0)), Overlay::At(overlay));
    (body.extent.block, body.targets) = (later, vec![PartitionId(3)]);
    shard.one(&body).first().unwrap();
    shard.one(&LogStartsMoved { moves: vec![(PartitionId(3), Offset(1))] }).unwrap();
    assert_eq!(shard.state.partition(PartitionId(3)).unwrap().first_block(), Some(brought_in));
    assert!(brought_in < later);
}

#[test]
fn a_reference_to_what_is_not_kept_any_more_is_refused() {
    let mut shard = Shard::with_partitions(&[1, 2, 3]);
    shard.append(&append_to(1, 5)).unwrap();
    shard.one(&LogStartsMoved { moves: vec![(PartitionId(1), Offset(2))] }).unwrap();
    let refer = |shard: &mut Shard, source| shard.one(&overlaid(1, source, Overlay::None)).first().is_ok();
    for (offset, there) in [(1, false), (2, true), (4, true), (5, false)] {
        assert_eq!(refer(&mut shard, Some(place(1, offset))), there, "offset {offset}");
    }
    assert!(!refer(&mut shard, Some(place(9, 3))), "there is no such partition");
    shard.one(&PartitionsDeleted { partitions: vec![PartitionId(1)] }).unwrap();
    assert!(!refer(&mut shard, Some(place(1, 3))));
}

#[test]
fn overlays_that_are_too_large_or_not_there_yet_are_refused() {
    let mut shard = Shard::with_partitions(&[1, 2, 3]);
    shard.append(&append_to(1, 5)).unwrap();
    let mut refer = |records, len, block| {
        let place_at = OverlayPlace { block: Sequence(block), offset: 32, len };
        let outcome = shard.one(&overlaid(records, Some(place(1, 0)), Overlay::At(place_at)));
        outcome.first().map(|_| ())
    };
    let (max, refused) = (OverlayBody::MAX as u32, Err(AppendError::InvalidReference));
    assert_eq!((refer(1, max, 1), refer(1, max + 1, 1)), (Ok(()), refused));
    assert_eq!((refer(256, max, 1), refer(257, max, 1)), (Ok(()), refused));
    assert_eq!((refer(1, 5, 0), refer(1, 5, 99)), (refused, refused));
    for (overlay, payload) in [(Overlay::Payload, None), (Overlay::None, Some(&b"?"[..]))] {
        let mut shard = Shard::with_partitions(&[1, 2, 3]);
        shard.push(&overlaid(1, None, Overlay::None), payload);
        if overlay == Overlay::Payload {
            shard.builder = builder();
            shard.push(&overlaid(1, Some(place(1, 0)), overlay), payload);
        }
        let (sequence, term, content) = shard.close();
        assert!(shard.state.apply_block(sequence, term, &content, &locate, &mut |_, _, _| {}).is_err());
    }
}

#[test]
fn facts_about_records_are_for_queues_and_there_are_none_yet() {
    let mut shard = Shard::with_partitions(&[1]);
    let mut facts = RecordFacts::new();
    facts.push(Facts { size: 9, ..Facts::default() }).unwrap();
    let with_facts = AppendBody { facts: Some(Box::new(facts)), ..append_to(1, 1) };
    assert_eq!(shard.append(&with_facts), Err(AppendError::NoQueue));
    assert_eq!(shard.append(&append_to(1, 1)).unwrap().base_offset, Offset(0));
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
    assert_eq!(partition.first_block(), Some(Sequence(2)));
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
    assert_eq!(shard.one(&extended).unwrap_err(), TopicError::Changed, "decided twice");
    let config = ValidConfig::trusted(TopicConfig { retention_ms: Some(1), ..TopicConfig::default() });
    let change = |version| TopicConfigured { id, version, config: config.clone() };
    let configured = shard.one(&change(None)).unwrap();
    assert_eq!((&configured.config, configured.version), (&config, 3));
    assert_eq!(shard.one(&change(Some(2))).unwrap_err(), TopicError::Changed, "made of an older one");
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

/// One step of the random life of a shard.
#[derive(Debug, Clone)]
enum Step {
    Append { id: u64, records: u32, size: usize, block: bool },
    Produce { id: u64, producer: i64, epoch: i16, sequence: i32 },
    Refer { id: u64 },
    Fragmented { id: u64, chunks: u32, finish: bool },
    Create(u64),
    Delete(u64),
    Configure(u64, u64),
    MoveStart(u64, i64),
    Expire(u64, i64),
    Catalog(u8),
    Own { number: u16, letter: u8, key: u8, id: u64 },
    NewTerm,
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1u64..6;
    prop_oneof![
        20 => (id.clone(), 1u32..5, 1usize..6000, any::<bool>())
            .prop_map(|(id, records, size, block)| Step::Append { id, records, size, block }),
        8 => (id.clone(), 1i64..4, 0i16..2, 0i32..6)
            .prop_map(|(id, producer, epoch, sequence)| Step::Produce { id, producer, epoch, sequence }),
        2 => id.clone().prop_map(|id| Step::Refer { id }),
        2 => (id.clone(), 1u32..4, any::<bool>()).prop_map(|(id, chunks, finish)| Step::Fragmented { id, chunks, finish }),
        3 => id.clone().prop_map(Step::Create),
        1 => id.clone().prop_map(Step::Delete),
        1 => (id.clone(), 1u64..9).prop_map(|(id, version)| Step::Configure(id, version)),
        3 => (id.clone(), -1i64..40).prop_map(|(id, to)| Step::MoveStart(id, to)),
        1 => (id, 1i64..4).prop_map(|(id, producer)| Step::Expire(id, producer)),
        2 => any::<u8>().prop_map(Step::Catalog),
        6 => (1u16..4, 0u8..6, 0u8..4, 1u64..6)
            .prop_map(|(number, letter, key, id)| Step::Own { number, letter, key, id }),
        1 => Just(Step::NewTerm),
        2 => Just(Step::Checkpoint),
    ]
}

/// A shard that writes checkpoints now and then, and one that never does.
struct Pair {
    leader: Shard,
    pages: Arc<MemPages>,
    blocks: Vec<(Sequence, Term, Vec<u8>)>,
    fragmented: u64,
}

impl Pair {
    fn new() -> Self {
        Self { leader: Shard::new(), pages: MemPages::new(), blocks: Vec::new(), fragmented: 0 }
    }

    fn block(&mut self) {
        let block = self.leader.close();
        apply(&mut self.leader.state, block.0, block.1, &block.2);
        self.blocks.push(block);
    }

    fn take(&mut self, step: &Step) {
        let leader = &mut self.leader;
        match *step {
            Step::Append { id, records, size, block } => {
                leader.push(&append_to(id, records), Some(&vec![0; size]));
                if !block {
                    return;
                }
            }
            Step::Produce { id, producer, epoch, sequence } => {
                leader.push(&produced(id, producer, epoch, sequence, 1), Some(b"b"));
            }
            Step::Refer { id } => {
                let block = Sequence(leader.sequence.0);
                let extent = Extent {
                    block,
                    offset: 32,
                    len: 5,
                    first_record: 0,
                    records: 2,
                    origin: FrontendNo(1),
                    overlay: Overlay::None,
                };
                let source = (id != 1).then(|| place(id - 1, 1));
                let payload = [7; 40];
                let (overlay, payload) = match (source, id % 3) {
                    (None, _) | (_, 0) => (Overlay::None, None),
                    (_, 1) => (Overlay::Payload, Some(&payload[..])),
                    _ => (Overlay::At(OverlayPlace { block, offset: 32, len: 9 }), None),
                };
                let extent = Extent { overlay, ..extent };
                let targets = vec![PartitionId(id), PartitionId(9)];
                leader.push(&ReferenceBody { targets, max_ts: 7, source, extent }, payload);
            }
            Step::Fragmented { id, chunks, finish } => return self.fragmented(id, chunks, finish),
            Step::Create(id) => leader.push(&created(&[id]), None),
            Step::Delete(id) => leader.push(&PartitionsDeleted { partitions: vec![PartitionId(id)] }, None),
            Step::Configure(id, version) => {
                let body =
                    PartitionsConfigured { settings: settings(version), partitions: vec![PartitionId(id)] };
                leader.push(&body, None);
            }
            Step::MoveStart(id, to) => {
                leader.push(&LogStartsMoved { moves: vec![(PartitionId(id), Offset(to))] }, None);
            }
            Step::Expire(id, producer) => {
                let producers = vec![(PartitionId(id), ProducerId(producer))];
                leader.push(&ProducersExpired { idle_since: leader.now - 3, producers }, None);
            }
            Step::Catalog(what) => push_catalog(leader, what),
            Step::Own { number, letter, key, id } => leader.push_own(number, letter, key, id),
            Step::NewTerm => leader.term = leader.term.next(),
            Step::Checkpoint => return self.checkpoint(),
        }
        self.block();
    }

    fn fragmented(&mut self, id: u64, chunks: u32, finish: bool) {
        self.fragmented += 1;
        let number = self.fragmented;
        for index in 0..chunks {
            self.leader.push(&ChunkBody { fragmented: number, index }, Some(&[1; 50]));
            self.block();
        }
        if finish {
            self.leader.push(&FragmentedBody { fragmented: number, chunks, append: append_to(id, 2) }, None);
            self.block();
        }
    }

    /// Entries go on while the checkpoint is written.
    fn checkpoint(&mut self) {
        let cut = self.leader.state.begin_checkpoint().unwrap();
        let mut batch = PageBatch::default();
        for id in [1, 2, 9] {
            self.leader.push(&created(&[id]), None);
            self.leader.push(&append_to(id, 1), Some(b"meanwhile"));
            // The first checkpoint finds it new.
            self.leader.push_own(9, 0, id as u8, id);
            self.block();
        }
        while self.leader.state.capture() {}
        batch.extend(self.leader.state.take_captured());
        cut.put(&mut batch);
        self.pages.commit(batch).unwrap();
        self.leader.state.checkpoint_committed();
    }

    /// From the last checkpoint and from nothing, block by block: all the same.
    fn check(&mut self) {
        let none = MemPages::new();
        let expected = self.leader.state.dump(&*self.pages).unwrap();
        let mut zero = ShardState::new(known());
        for (sequence, term, content) in &self.blocks {
            apply(&mut zero, *sequence, *term, content);
        }
        assert_eq!(zero.dump(&*none).unwrap(), expected, "replay from zero");
        let mut restored = ShardState::restore(&*self.pages, known()).unwrap();
        for (sequence, term, content) in &self.blocks {
            if *sequence > restored.applied {
                apply(&mut restored, *sequence, *term, content);
            }
        }
        assert_eq!(restored.dump(&*self.pages).unwrap(), expected, "checkpoint and replay");
    }
}

fn push_catalog(leader: &mut Shard, what: u8) {
    let id = what % 5;
    match what / 43 {
        0 => leader.push(&topic_created(&format!("t{id}"), id), None),
        1 => leader.push(&TopicDeleted { id: TopicId([id; 16]) }, None),
        2 => leader.push(&configured(id), None),
        3 => leader.push(&FrontendRegistered { name: format!("f{id}") }, None),
        4 => leader.push(&ProducerIdsAllocated { count: 7 }, None),
        _ => leader.push(&Started { node: NodeId(1), clean: what.is_multiple_of(2) }, None),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn checkpoint_and_replay_equal_replay_from_zero(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new();
        for id in 1..4 {
            pair.take(&Step::Create(id));
        }
        steps.iter().for_each(|step| pair.take(step));
        pair.block();
        pair.check();
    }
}

#[test]
fn a_long_history_comes_back_through_its_pages() {
    let mut pair = Pair::new();
    pair.take(&Step::Create(1));
    for i in 0..1500 {
        pair.take(&Step::Append { id: 1, records: 2, size: 10, block: true });
        match i % 400 {
            200 => pair.checkpoint(),
            300 => pair.take(&Step::MoveStart(1, i)),
            _ => {}
        }
    }
    assert!(pair.leader.state.partition(PartitionId(1)).unwrap().index.closed().len() > 3);
    pair.check();
}

#[test]
fn a_checkpoint_that_failed_is_made_up_for_by_the_next() {
    let mut pair = Pair::new();
    pair.take(&Step::Create(1));
    for _ in 0..700 {
        pair.take(&Step::Append { id: 1, records: 1, size: 10, block: true });
    }
    let cut = pair.leader.state.begin_checkpoint().unwrap();
    pair.leader.state.capture();
    drop((cut, pair.leader.state.take_captured()));
    pair.take(&Step::MoveStart(1, 300));
    pair.leader.state.checkpoint_failed();
    pair.check();
    pair.checkpoint();
    pair.take(&Step::Append { id: 1, records: 1, size: 10, block: true });
    pair.check();
}

/// A checkpoint with some of everything, and its page of what there is one of.
fn checkpointed(level: FormatLevel) -> (MemPages, Vec<u8>) {
    let mut shard = Shard::new();
    shard.push(&Started { node: NodeId(1), clean: true }, None);
    shard.push(&ProducerIdsAllocated { count: 7 }, None);
    shard.apply();
    shard.state.level = level;
    let pages = MemPages::default();
    let cut = shard.state.begin_checkpoint().unwrap();
    let mut batch = PageBatch::default();
    while shard.state.capture() {}
    batch.extend(shard.state.take_captured());
    cut.put(&mut batch);
    pages.commit(batch).unwrap();
    let page = pages.get(prefixes::SHARD).unwrap().unwrap();
    (pages, page)
}

#[test]
fn a_checkpoint_lists_its_maps_from_the_second_level_on() {
    let (first, page) = checkpointed(FormatLevel::FIRST);
    assert_eq!(
        page,
        [1, 1, 1, 0xd2, 0x0f, 1, 1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        "golden"
    );
    let (second, listed) = checkpointed(FormatLevel::LISTED);
    assert_eq!(listed, [&[2], &page[1..], &[1, 6], b"\x01p\x01i\x01o\x01c\x06group/\x01s"].concat());
    for pages in [first, second] {
        let state = ShardState::restore(&pages, known()).unwrap();
        assert_eq!((state.applied, state.catalog.level()), (Sequence(1), FormatLevel::FIRST));
    }
}

fn with_page(pages: &MemPages, page: Vec<u8>) -> Result<ShardState, PageError> {
    let mut batch = PageBatch::default();
    batch.put(prefixes::SHARD.to_vec(), page);
    pages.commit(batch).unwrap();
    ShardState::restore(pages, known())
}

#[test]
fn a_map_that_a_checkpoint_lacks_starts_empty_and_one_that_is_not_known_stops_the_shard_by_name() {
    let (pages, page) = checkpointed(FormatLevel::LISTED);
    // As a version without groups would have left it.
    let mut batch = PageBatch::default();
    batch.delete(prefixes::GROUPS.to_vec());
    pages.commit(batch).unwrap();
    assert!(
        matches!(ShardState::restore(&pages, known()), Err(PageError::Incomplete { .. })),
        "it is listed"
    );
    let at = page.windows(7).position(|part| part == b"\x06group/").unwrap();
    let mut older = [&page[..at], &page[at + 7..]].concat();
    older[at - 9] = 5;
    assert!(with_page(&pages, older).is_ok());
    let newer = [&page[..at], b"\x06timers", &page[at + 7..]].concat();
    let error = with_page(&pages, newer).err().unwrap().to_string();
    assert!(error.contains("the map `timers`, which this version does not know"), "{error}");
    let mut newer = page.clone();
    newer[0] = 4;
    assert!(with_page(&pages, newer).is_err());
    let mut newer = page;
    newer[at - 10] = 9;
    let error = with_page(&pages, newer).err().unwrap().to_string();
    assert!(error.contains("format level"), "{error}");
}

/// Writes a checkpoint of a shard, and gives its page of what there is one of.
fn write_checkpoint(state: &mut ShardState, pages: &MemPages) -> Vec<u8> {
    let cut = state.begin_checkpoint().unwrap();
    let mut batch = PageBatch::default();
    while state.capture() {}
    batch.extend(state.take_captured());
    cut.put(&mut batch);
    pages.commit(batch).unwrap();
    state.checkpoint_committed();
    pages.get(prefixes::SHARD).unwrap().unwrap()
}

#[test]
fn a_checkpoint_names_the_front_ends_whose_maps_it_lists() {
    let mut shard = Shard::new();
    shard.state.level = FormatLevel::FRONT_ENDS;
    let pages = MemPages::default();
    shard.push(&Started { node: NodeId(1), clean: true }, None);
    shard.apply();
    let without = write_checkpoint(&mut shard.state, &pages);
    assert_eq!(without[0], 2, "what is not there costs nothing");
    shard.push_front_end(300, Some("registers"), &registers::set("k", b"v"), None);
    shard.push_front_end(2, Some("registers"), &registers::set("k", b"w"), None);
    shard.apply();
    let page = write_checkpoint(&mut shard.state, &pages);
    let at = page.windows(7).position(|part| part == b"\x06group/").unwrap();
    let names = [&[2, 2, 9][..], b"registers", &[0xac, 2, 9], b"registers"].concat();
    let maps = b"\x01s\x04f\0\x02\0\x04f\0\x02\x01\x04f\x01\x2c\0\x04f\x01\x2c\x01";
    assert_eq!(page[at..], [&b"\x06group/"[..], maps, &names].concat(), "golden");
    assert_eq!((page[0], page[at - 9]), (3, 10));

    let mut restored = ShardState::restore(&pages, known()).unwrap();
    let expected = shard.state.dump(&pages).unwrap();
    assert_eq!(restored.dump(&pages).unwrap(), expected);
    let values: Vec<_> = expected.iter().filter(|(key, _)| key.starts_with(b"f")).collect();
    assert_eq!(values[0], &(b"f\0\x02\0k".to_vec(), b"w".to_vec()));
    assert_eq!(values[1], &(b"f\x01\x2c\0k".to_vec(), b"v".to_vec()));

    let says = |page: Vec<u8>, known| {
        let mut batch = PageBatch::default();
        batch.put(prefixes::SHARD.to_vec(), page);
        pages.commit(batch).unwrap();
        ShardState::restore(&pages, known).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let none: Arc<[ProjectionFactory]> = Arc::default();
    let error = says(page.clone(), none);
    assert!(error.contains("the front end registers, which this version does not know"), "{error}");
    let mut later = page.clone();
    let third = page.windows(5).rposition(|part| part == b"\x04f\x01\x2c\x01").unwrap();
    later[third + 4] = 7;
    let error = says(later, known());
    assert!(error.contains("the map 7 of registers, which this version does not know"), "{error}");
    // Of what is listed nothing may be missing.
    let mut batch = PageBatch::default();
    batch.delete(b"f\0\x02\x01".to_vec());
    pages.commit(batch).unwrap();
    assert!(says(page, known()).contains("missing"));
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
