//! Checkpoints: what they list, and that with the entries behind them they give what all entries give.

use super::*;

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
    Exchange(u8),
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
        4 => any::<u8>().prop_map(Step::Exchange),
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
            Step::Exchange(what) => push_exchange(leader, what),
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

/// Names of topics that [`push_catalog`] makes are among the queues.
fn push_exchange(leader: &mut Shard, what: u8) {
    let (namespace, name, other) = ("/".to_owned(), format!("e{}", what % 3), format!("e{}", what / 3 % 3));
    let queue = NamedDestination::Queue(format!("t{}", what / 3 % 5));
    let bound = |destination| NamedBinding::keyed(&format!("e{}", what % 3), destination, &[what % 2]);
    match what / 37 {
        0 | 1 => {
            let (durable, auto_delete) = (!what.is_multiple_of(4), what.is_multiple_of(5));
            let spec = ExchangeSpec { durable, auto_delete, ..ExchangeSpec::of(ExchangeKind::Direct) };
            leader.push(&ExchangeDeclared { namespace, name, made_by: FrontendNo(3), spec }, None);
        }
        2 | 3 => leader.push(&ExchangeBound { namespace, binding: bound(queue) }, None),
        4 => {
            let binding = bound(NamedDestination::Exchange(other));
            leader.push(&ExchangeBound { namespace, binding }, None);
        }
        5 => leader.push(&ExchangeUnbound { namespace, binding: bound(queue) }, None),
        _ => leader.push(&ExchangeDeleted { namespace, name, if_unused: what.is_multiple_of(2) }, None),
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
pub(super) fn write_checkpoint(state: &mut ShardState, pages: &MemPages) -> Vec<u8> {
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
fn a_checkpoint_lists_what_is_of_queues_from_their_level_on_and_where_there_is_some() {
    let mut shard = Shard::new();
    let pages = MemPages::default();
    let lists = |page: &[u8]| page.windows(9).any(|part| part == b"exchange/");
    shard.push(&topic_created("t", 1), None);
    shard.apply();
    shard.state.level = FormatLevel::FRONT_ENDS;
    assert!(!lists(&write_checkpoint(&mut shard.state, &pages)), "the version before opens it");
    let spec = ExchangeSpec::of(ExchangeKind::Direct);
    shard.push(
        &ExchangeDeclared { namespace: "/".into(), name: "e".into(), made_by: FrontendNo::NONE, spec },
        None,
    );
    let (sequence, term, content) = shard.close();
    let mut restored = ShardState::restore(&pages, known()).unwrap();
    apply(&mut shard.state, sequence, term, &content);
    apply(&mut restored, sequence, term, &content);
    assert_eq!((restored.level, restored.exchanges.rows()), (FormatLevel::FIRST, (1, 0)));
    // A replay may come to a checkpoint before it is told of the level.
    assert!(lists(&write_checkpoint(&mut restored, &pages)));
    assert_eq!(ShardState::restore(&pages, known()).unwrap().exchanges.rows(), (1, 0));
    let mut shard = Shard::new();
    shard.push(&topic_created("t", 1), None);
    shard.apply();
    shard.state.level = FormatLevel::QUEUES;
    assert!(lists(&write_checkpoint(&mut shard.state, &MemPages::default())));
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
