use proptest::prelude::*;
use sabir_journal::pages::{MAX_PAGE, PageValue};
use sabir_model::{
    AppendError, FrontendNo, LeaderEpoch, Offset, OverlayPlace, PartitionId, ProducerId, Sequence, TopicId,
};

use super::index::PAGE_RUNS;
use super::page::{decode_chunks, decode_runs, encode_chunks, encode_runs};
use super::*;
use crate::entry::{PartitionSettings, Producer, RecordPlace};

const ID: PartitionId = PartitionId(1);

fn run(block: u64, offset: u32, len: u32, records: u32, max_ts: i64) -> Run {
    Run {
        base: Offset::ZERO,
        block: Sequence(block),
        max_ts,
        offset,
        len,
        records,
        first_record: 0,
        origin: FrontendNo::NONE,
        kind: RunKind::Whole,
    }
}

fn partition() -> PartitionState {
    let settings = PartitionSettings { version: 1, retention_ms: -1, retention_bytes: -1, queue: None };
    PartitionState::new(TopicId([1; 16]), 0, 0, settings)
}

fn append(partition: &mut PartitionState, spill: &mut Spill, run: Run) -> i64 {
    partition.append(ID, run, None, LeaderEpoch(1), spill).unwrap().0
}

/// The lowest block in which something kept lies, as who reads the cut page finds it.
fn first_block(partition: &PartitionState, spill: &Spill) -> Option<Sequence> {
    let cut = partition.cut_page().and_then(|page| {
        let runs = decode_runs(&spill.get(&SpillKey::index(ID, page.first)).unwrap()).unwrap();
        runs.first_block_from(partition.log_start)
    });
    cut.into_iter().chain(partition.first_block_behind_cut()).min()
}

fn stored(partition: &PartitionState) -> Vec<u8> {
    let mut out = Vec::new();
    partition.encode(&mut out);
    out
}

#[test]
fn adjacent_batches_of_a_block_are_one_run() {
    let (mut partition, mut spill) = (partition(), Spill::default());
    append(&mut partition, &mut spill, run(1, 32, 100, 2, 5));
    append(&mut partition, &mut spill, run(1, 132, 50, 1, 3));
    assert_eq!(partition.index.open().len(), 1);
    let merged = partition.index.open()[0];
    assert_eq!((merged.len, merged.records, merged.max_ts), (150, 3, 5));
    // Not adjacent, another block, another origin, a reference.
    append(&mut partition, &mut spill, run(1, 200, 50, 1, 3));
    append(&mut partition, &mut spill, run(2, 250, 50, 1, 3));
    append(&mut partition, &mut spill, Run { origin: FrontendNo(1), ..run(2, 300, 50, 1, 3) });
    append(&mut partition, &mut spill, Run { kind: RunKind::Reference, ..run(2, 350, 50, 1, 3) });
    append(&mut partition, &mut spill, run(2, 400, 50, 1, 3));
    assert_eq!(partition.index.open().len(), 6);
    assert_eq!((partition.next, partition.bytes), (Offset(8), 400));
}

#[test]
fn history_closes_into_pages_and_goes_with_the_log_start() {
    let (mut partition, mut spill) = (partition(), Spill::default());
    for block in 0..1000u64 {
        append(&mut partition, &mut spill, run(block + 1, 32, 10, 3, block as i64));
    }
    let pages = partition.index.closed().to_vec();
    assert_eq!(pages.len(), 3);
    assert_eq!(partition.index.open().len(), 1000 - 3 * PAGE_RUNS);
    let runs = decode_runs(&spill.get(&SpillKey::index(ID, pages[1].first)).unwrap()).unwrap();
    let runs = runs.list();
    assert_eq!(runs.len(), PAGE_RUNS);
    assert_eq!((runs[0].base, runs[PAGE_RUNS - 1].next()), (pages[1].first, pages[1].next));
    assert_eq!(runs[0].block, pages[1].min_block);
    assert_eq!(first_block(&partition, &spill), Some(Sequence(1)));

    // Into the second page: the first one goes.
    let to = Offset(pages[1].first.0 + 1);
    partition.move_log_start(ID, to, &mut spill);
    assert_eq!(partition.index.closed().len(), 2);
    assert_eq!(spill.get(&SpillKey::index(ID, pages[0].first)), None);
    assert_eq!(partition.first_block_behind_cut(), Some(Sequence(513)), "the page that is cut says it alone");
    assert_eq!(first_block(&partition, &spill), Some(Sequence(257)), "its first run has more records");
    partition.move_log_start(ID, Offset(to.0 + 2), &mut spill);
    assert_eq!(first_block(&partition, &spill), Some(Sequence(258)));
    assert_eq!(partition.bytes, 10 * 744);
    partition.move_log_start(ID, partition.next, &mut spill);
    assert_eq!((partition.bytes, first_block(&partition, &spill)), (0, None));
    assert_eq!(partition.index.find(Offset(0)), None);
}

#[test]
fn finds_offsets_and_times() {
    let (mut partition, mut spill) = (partition(), Spill::default());
    for block in 0..600u64 {
        append(&mut partition, &mut spill, run(block + 1, 32, 10, 2, block as i64 % 400));
    }
    let first = partition.index.closed()[0];
    assert_eq!(partition.index.find(Offset(0)), Some(Place::Closed(first)));
    assert_eq!(partition.index.find(first.next), Some(Place::Closed(partition.index.closed()[1])));
    let open = partition.index.open()[0].base;
    assert_eq!(partition.index.find(Offset(open.0 + 3)), Some(Place::Open(1)));
    assert_eq!(partition.index.find(partition.next), None);
    assert_eq!(partition.index.find_time(Offset(0), 255), Some(Place::Closed(first)));
    assert!(matches!(partition.index.find_time(Offset(0), 256), Some(Place::Closed(page)) if page != first));
    assert_eq!(partition.index.find_time(Offset(0), 400), None);
}

#[test]
fn retention_lets_go_from_the_front_only() {
    let (mut partition, mut spill) = (partition(), Spill::default());
    for (block, ts) in [(1, 10), (2, 30), (3, 20), (4, 40)] {
        append(&mut partition, &mut spill, run(block, 32, 100, 1, ts));
    }
    let due = |ms, bytes, now| {
        let settings =
            PartitionSettings { version: 1, retention_ms: ms, retention_bytes: bytes, queue: None };
        PartitionState { settings, ..partition.clone() }.retention_due(now).map(|offset| offset.0)
    };
    assert_eq!(due(-1, -1, i64::MAX), None);
    assert_eq!(due(5, -1, 15), None);
    assert_eq!(due(5, -1, 16), Some(1));
    assert_eq!(due(5, -1, 30), Some(1), "the second one is younger than the third");
    assert_eq!(due(5, -1, 36), Some(3));
    assert_eq!(due(5, -1, 99), Some(4));
    assert_eq!(due(-1, 400, 0), None);
    assert_eq!(due(-1, 399, 0), None, "it would fall below what is to be kept");
    assert_eq!(due(-1, 300, 0), Some(1));
    assert_eq!(due(-1, 0, 0), Some(4));
    assert_eq!(due(5, 200, 16), Some(2));
}

#[test]
fn an_empty_partition_is_small() {
    assert!(size_of::<PartitionState>() <= 256, "{}", size_of::<PartitionState>());
    assert!(size_of::<Run>() <= 48);
    assert!(stored(&partition()).len() < 64);
}

#[test]
fn the_largest_pages_fit() {
    let worst = |i: u64| Run {
        base: Offset((i * u64::from(u32::MAX)) as i64),
        block: Sequence(if i.is_multiple_of(2) { 0 } else { u64::MAX >> 1 }),
        max_ts: if i.is_multiple_of(2) { i64::MIN } else { i64::MAX },
        offset: u32::MAX,
        len: u32::MAX,
        records: u32::MAX,
        first_record: u32::MAX,
        origin: FrontendNo(u16::MAX),
        kind: RunKind::Reference,
    };
    let place = |at: u64| RunDetail {
        overlay: Some(OverlayPlace { block: Sequence(at), offset: u32::MAX, len: u32::MAX }),
        source: Some(RecordPlace { partition: PartitionId(u64::MAX), offset: Offset(i64::MAX) }),
    };
    for (count, detail) in [(PAGE_RUNS, None), (PAGE_RUNS / 2, Some(place(u64::MAX >> 1)))] {
        let mut runs = Runs::default();
        for i in 0..count as u64 {
            assert!(runs.push(worst(i), detail.as_ref()));
        }
        let page = encode_runs(&runs);
        assert!(page.len() <= MAX_PAGE, "{}", page.len());
        assert_eq!(decode_runs(&page), Ok(runs));
    }
    let chunk = Chunk { block: Sequence(u64::MAX), offset: u32::MAX, len: u32::MAX };
    let chunks = vec![chunk; 2000];
    let pages = encode_chunks(&chunks);
    assert!(pages.iter().all(|page| page.len() <= MAX_PAGE));
    let back: Vec<Chunk> = pages.iter().flat_map(|page| decode_chunks(page).unwrap()).collect();
    assert_eq!(back, chunks);
}

#[test]
fn pages_wait_in_memory_until_their_checkpoint_is_committed() {
    let mut spill = Spill::default();
    let key = |n| SpillKey::index(ID, Offset(n));
    (0..3).for_each(|n| spill.put(key(n), vec![n as u8]));
    spill.remove(key(0));
    let changes = spill.begin();
    assert_eq!((changes.puts.len(), changes.deletes.len()), (2, 0), "one never left memory");
    spill.put(key(4), vec![4]);
    spill.remove(key(1));
    spill.remove(key(4));
    spill.failed();
    let changes = spill.begin();
    assert_eq!(changes.puts.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [key(2)]);
    assert_eq!(changes.deletes, [key(1)], "it may have been written");
    spill.committed();
    assert_eq!(spill.get(&key(2)), None);
    spill.remove(key(2));
    assert_eq!(spill.begin().deletes, [key(2)]);
}

fn mark(epoch: i16, base_sequence: i32) -> Producer {
    Producer { id: ProducerId(1), epoch, base_sequence }
}

fn out_of_order(expected: i32, got: i32) -> Verdict {
    Verdict::Refused(AppendError::OutOfOrderSequence { expected, got })
}

fn fenced(current: i16, got: i16) -> Verdict {
    Verdict::Refused(AppendError::FencedProducer { current, got })
}

#[test]
fn a_producer_is_judged_by_its_last_five_batches() {
    let mut state = ProducerState::new(0);
    for i in 0..7 {
        let batch = mark(0, i * 10);
        assert_eq!(state.judge(&batch, 10), Verdict::Next);
        state.take(&batch, 10, Offset(i64::from(i) * 100), 5);
    }
    assert_eq!(state.judge(&mark(0, 60), 10), Verdict::Duplicate(Offset(600)));
    assert_eq!(state.judge(&mark(0, 20), 10), Verdict::Duplicate(Offset(200)));
    assert_eq!(state.judge(&mark(0, 10), 10), out_of_order(70, 10), "older than the window");
    assert_eq!(state.judge(&mark(0, 60), 9), out_of_order(70, 60), "not the same batch");
    assert_eq!(state.judge(&mark(0, 80), 1), out_of_order(70, 80), "a gap");
    assert_eq!(state.judge(&mark(0, 70), 1), Verdict::Next);
    assert_eq!(state.judge(&mark(-1, 70), 1), fenced(0, -1));
    assert_eq!(state.judge(&mark(1, 5), 1), out_of_order(0, 5), "a new epoch begins at 0");
    assert_eq!(state.judge(&mark(1, 0), 1), Verdict::Next);
    state.take(&mark(1, 0), 1, Offset(700), 6);
    assert_eq!(state.judge(&mark(0, 70), 1), fenced(1, 0));
    assert_eq!(state.judge(&mark(1, 0), 1), Verdict::Duplicate(Offset(700)));
    let mut stored = Vec::new();
    state.encode(&mut stored);
    assert_eq!(ProducerState::decode(&stored), Ok(state));
}

#[test]
fn without_an_epoch_what_came_before_is_known_and_no_order_is_asked_for() {
    let mut state = ProducerState::new(-1);
    for (sequence, offset) in [(0, 0), (5, 10), (1, 20)] {
        assert_eq!(state.judge(&mark(-1, sequence), 1), Verdict::Next);
        state.take(&mark(-1, sequence), 1, Offset(offset), 5);
    }
    assert_eq!(state.judge(&mark(-1, 5), 1), Verdict::Duplicate(Offset(10)));
    let mut stored = Vec::new();
    state.encode(&mut stored);
    assert_eq!(ProducerState::decode(&stored), Ok(state.clone()));
    assert_eq!(state.judge(&mark(0, 7), 1), Verdict::Next, "the first epoch begins anywhere");
    state.take(&mark(0, 7), 1, Offset(30), 6);
    assert_eq!(state.judge(&mark(-1, 8), 1), fenced(0, -1));
    assert_eq!(state.judge(&mark(0, 8), 1), Verdict::Next);
}

#[test]
fn sequence_numbers_wrap() {
    let mut state = ProducerState::new(0);
    state.take(&mark(0, i32::MAX - 1), 3, Offset(0), 0);
    assert_eq!(state.judge(&mark(0, 1), 1), Verdict::Next);
    assert_eq!(state.judge(&mark(0, i32::MAX), 1), out_of_order(1, i32::MAX));
}

proptest! {
    #[test]
    fn any_partition_comes_back(
        steps in prop::collection::vec((1u64..4, 0u32..3, 1u32..2000, 1u32..9, any::<i64>(), 0u16..3, 0u8..9), 0..700),
        to in 0i64..4000,
    ) {
        let (mut partition, mut spill) = (partition(), Spill::default());
        let mut block = 0;
        for (step, offset, len, records, max_ts, origin, kind) in steps {
            block += step;
            let kind = if kind == 0 { RunKind::Reference } else { RunKind::Whole };
            let run = Run { origin: FrontendNo(origin), kind, ..run(block, offset, len, records, max_ts) };
            let overlay = OverlayPlace { block: Sequence(block + 1), offset, len };
            let source = RecordPlace { partition: ID, offset: Offset(len.into()) };
            let detail = RunDetail {
                overlay: (max_ts % 3 != 0).then_some(overlay),
                source: (max_ts % 3 != 1).then_some(source),
            };
            let detail = (kind == RunKind::Reference).then_some(detail);
            partition.append(ID, run, detail.as_ref(), LeaderEpoch(1), &mut spill).unwrap();
        }
        partition.move_log_start(ID, Offset(to.min(partition.next.0)), &mut spill);
        let bytes = stored(&partition);
        prop_assert_eq!(&PartitionState::decode(&bytes).unwrap(), &partition);
        // What is listed is what the size says, without gaps up to the end.
        let (mut runs, mut details, mut bytes_listed) = (Vec::new(), 0, 0);
        for page in partition.index.closed() {
            let stored = spill.get(&SpillKey::index(ID, page.first)).unwrap();
            let page_runs = decode_runs(&stored).unwrap();
            prop_assert!(stored.len() <= MAX_PAGE && page_runs.weight() <= PAGE_RUNS);
            prop_assert_eq!(page_runs.bytes(), page.bytes);
            prop_assert_eq!(page_runs.first_block(), Some(page.min_block));
            details += page_runs.weight() - page_runs.list().len();
            bytes_listed += page_runs.bytes();
            runs.extend_from_slice(page_runs.list());
        }
        let open = partition.index.open_runs();
        details += open.weight() - open.list().len();
        bytes_listed += open.bytes();
        runs.extend_from_slice(open.list());
        prop_assert_eq!(bytes_listed, partition.bytes);
        let references = runs.iter().filter(|run| run.kind == RunKind::Reference);
        prop_assert_eq!(details, references.count());
        prop_assert!(runs.windows(2).all(|pair| pair[0].next() == pair[1].base));
        prop_assert_eq!(runs.last().map_or(partition.next, Run::next), partition.next);
    }

    /// References lie in older blocks than what stands before them, and their overlays in others.
    #[test]
    fn the_first_block_is_the_lowest_of_all_runs_that_are_kept(
        steps in prop::collection::vec((0u64..3, 1u32..9, 0u8..4, 0u64..400, 0u64..400), 0..1200),
        moves in prop::collection::vec(0i64..6000, 1..9),
    ) {
        let (mut partition, mut spill) = (partition(), Spill::default());
        let (mut block, mut all) = (400, Vec::new());
        for (step, records, kind, back, overlay_back) in steps {
            block += step;
            let is_reference = kind == 0;
            let lies = Sequence(if is_reference { block - back } else { block });
            let kind = if is_reference { RunKind::Reference } else { RunKind::Whole };
            let overlay = OverlayPlace { block: Sequence(block - overlay_back), offset: 32, len: 7 };
            let overlay = (is_reference && overlay_back % 2 == 0).then_some(overlay);
            let detail = RunDetail { overlay, source: None }.said();
            let run = Run { kind, ..run(lies.0, 32, 10, records, 1) };
            partition.append(ID, run, detail.as_ref(), LeaderEpoch(1), &mut spill).unwrap();
            let lowest = overlay.map_or(lies, |overlay| overlay.block.min(lies));
            all.push((partition.next, lowest));
        }
        let mut moves = moves;
        moves.sort_unstable();
        for to in moves {
            let to = Offset(to.min(partition.next.0));
            if to > partition.log_start {
                partition.move_log_start(ID, to, &mut spill);
            }
            let kept = all.iter().filter(|(next, _)| *next > partition.log_start);
            let lowest = kept.map(|(_, lowest)| *lowest).min();
            prop_assert_eq!(first_block(&partition, &spill), lowest);
            // As a start finds it.
            partition = PartitionState::decode(&stored(&partition)).unwrap();
            prop_assert_eq!(first_block(&partition, &spill), lowest);
        }
    }

    #[test]
    fn any_bytes_are_a_partition_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = PartitionState::decode(&bytes);
        let _ = decode_runs(&bytes);
        let _ = decode_chunks(&bytes);
        let _ = ProducerState::decode(&bytes);
    }
}

#[test]
fn a_partition_of_the_first_form_is_still_read() {
    let settings = PartitionSettings { version: 1, retention_ms: 60, retention_bytes: -1, queue: None };
    let partition = PartitionState::new(TopicId([7; 16]), 3, 0, settings.clone());
    let mut stored = Vec::new();
    PageValue::encode(&partition, &mut stored);
    // The form, the topic, the number, the epoch base; then the settings with a form of their own.
    assert_eq!((stored[0], &stored[17..22]), (2, &[3, 0, 1, 1, 120][..]));
    let first = [&[1], &stored[1..19], &stored[20..]].concat();
    let read = <PartitionState as PageValue>::decode(&first).unwrap();
    assert_eq!(read.settings, settings);
    let mut again = Vec::new();
    PageValue::encode(&read, &mut again);
    assert_eq!(again, stored);
}

#[test]
fn a_reference_with_details_has_a_form_of_its_own() {
    let reference =
        Run { kind: RunKind::Reference, first_record: 2, origin: FrontendNo(5), ..run(9, 32, 70, 3, 4) };
    let overlay = Some(OverlayPlace { block: Sequence(11), offset: 64, len: 300 });
    let source = Some(RecordPlace { partition: PartitionId(300), offset: Offset(5) });
    // One run · gap, block, time, offset, length, records; signed numbers doubled.
    let head = [1, 1, 0, 18, 8, 32, 70, 3];
    let cases: [(Option<RunDetail>, &[u8]); 4] = [
        (None, &[21, 2]),
        (Some(RunDetail { overlay, source: None }), &[23, 2, 1, 4, 64, 0xac, 2]),
        (Some(RunDetail { overlay: None, source }), &[23, 2, 2, 0xac, 2, 10]),
        (Some(RunDetail { overlay, source }), &[23, 2, 3, 4, 64, 0xac, 2, 0xac, 2, 10]),
    ];
    for (detail, tail) in cases {
        let mut runs = Runs::default();
        assert!(runs.push(reference, detail.as_ref()));
        assert_eq!(encode_runs(&runs), [&head[..], tail].concat());
        let read = decode_runs(&encode_runs(&runs)).unwrap();
        assert_eq!((read.detail(&reference), &read), (detail.as_ref(), &runs));
    }
    for marks in [0, 4] {
        let unknown = [&head[..], &[23, 2, marks, 1, 1, 1, 1, 1]].concat();
        assert!(decode_runs(&unknown).is_err(), "marks {marks}");
    }
}

#[test]
fn an_overlay_counts_in_the_size_and_keeps_its_block() {
    let (mut partition, mut spill) = (partition(), Spill::default());
    append(&mut partition, &mut spill, run(9, 32, 10, 1, 1));
    let overlay = Some(OverlayPlace { block: Sequence(4), offset: 64, len: 300 });
    let detail = RunDetail { overlay, source: None };
    let reference = Run { kind: RunKind::Reference, ..run(7, 32, 70, 3, 4) };
    partition.append(ID, reference, Some(&detail), LeaderEpoch(1), &mut spill).unwrap();
    assert_eq!((partition.bytes, first_block(&partition, &spill)), (380, Some(Sequence(4))));
    let by_size = |retention_bytes| {
        let settings = PartitionSettings { version: 1, retention_ms: -1, retention_bytes, queue: None };
        PartitionState { settings, ..partition.clone() }.retention_due(0).map(|offset| offset.0)
    };
    assert_eq!((by_size(370), by_size(371)), (Some(1), None));
    partition.move_log_start(ID, Offset(1), &mut spill);
    assert_eq!((partition.bytes, first_block(&partition, &spill)), (370, Some(Sequence(4))));
    // A closed page says it, too.
    for block in 0..400 {
        append(&mut partition, &mut spill, run(2 * block + 20, 32, 10, 1, 1));
    }
    let page = partition.index.closed()[0];
    assert_eq!((page.min_block, page.bytes), (Sequence(4), 370 + 10 * (PAGE_RUNS as u64 - 2)));
    partition.move_log_start(ID, Offset(4), &mut spill);
    assert_eq!(first_block(&partition, &spill), Some(Sequence(20)), "the overlay goes with its run");
    partition.move_log_start(ID, page.next, &mut spill);
    assert!(first_block(&partition, &spill) > Some(Sequence(20)));
}
