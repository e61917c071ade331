//! References, with what they say of their source and what differs for their target.

use super::*;

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
    let first = shard.state.partition(PartitionId(2)).unwrap().first_block_behind_cut();
    assert_eq!(first, Some(run.block), "what is referred to is kept");
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
    assert_eq!(shard.state.partition(PartitionId(2)).unwrap().first_block_behind_cut(), Some(Sequence(2)));
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
    assert_eq!(shard.state.partition(PartitionId(3)).unwrap().first_block_behind_cut(), Some(brought_in));
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
fn facts_about_records_are_passed_over_where_there_is_no_queue() {
    let mut shard = Shard::with_partitions(&[1]);
    let mut facts = RecordFacts::new();
    facts.push(Facts { size: 9, ..Facts::default() }).unwrap();
    let with_facts = AppendBody { facts: Some(Box::new(facts)), ..append_to(1, 1) };
    assert_eq!(shard.append(&with_facts).unwrap().base_offset, Offset(0));
    assert_eq!(shard.append(&append_to(1, 1)).unwrap().base_offset, Offset(1));
}
