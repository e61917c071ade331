//! What every [`Replicator`] must keep, on a simulated disk; see the invariants of the trait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use sabir_base::buf::BufPool;
use sabir_model::{Durability, Sequence, Term};

use crate::disk::sim::{Fate, Fault, Injection, Op, SimDisk};
use crate::{
    Block, BlockAppendError, BlockBuilder, BlockReadError, BlockView, CutError, Event, Journal, JournalError,
    JournalOptions, Read, Replicator, StorageError, TailBudget, Ticket,
};

/// Makes the replicator under test over a journal just opened. It must commit by itself what its disk has, sooner or later.
pub type Start<'a> = &'a dyn Fn(Arc<Journal>) -> Arc<dyn Replicator>;

/// Runs the suite; panics with what was not kept.
pub fn replicator_suite(start: Start<'_>) {
    for seed in 0..8 {
        commits_in_order(start, seed);
        cuts_what_is_not_final(start, seed);
        keeps_what_it_committed(start, seed);
        ends_every_ticket(start, seed);
        tells_when_there_is_something(start, seed);
    }
    tells_that_it_leads(start);
    hides_what_is_not_final(start);
    never_cuts_what_is_final(start);
    stops_for_good(start);
    takes_blocks_from_many_threads(start);
}

/// One node, one shard.
struct World<'a> {
    start: Start<'a>,
    disk: Arc<SimDisk>,
    journal: Arc<Journal>,
    replicator: Arc<dyn Replicator>,
    builder: BlockBuilder,
    ledger: Ledger,
    now_ms: u64,
}

/// What the events so far say, checked as they come.
#[derive(Default)]
struct Ledger {
    /// Appended and not ended, by ticket.
    open: BTreeMap<Ticket, Vec<u8>>,
    /// In this life and the ones before.
    committed: Vec<Vec<u8>>,
    cut: Vec<Vec<u8>>,
    stopped: Option<Arc<StorageError>>,
    last: Sequence,
    term: Term,
    /// The term that this node was last said to lead in, while it is.
    leads: Option<Term>,
}

impl Ledger {
    fn take(&mut self, event: Event) {
        assert!(self.stopped.is_none(), "nothing happens after the stop: {event:?}");
        match event {
            Event::Committed { ticket, sequence, term, content } => {
                self.commit(ticket, sequence, term, &content);
            }
            Event::Cut { from, through } => {
                let cut = self.open.extract_if(from..=through, |_, _| true);
                self.cut.extend(cut.map(|(_, body)| body));
            }
            Event::Leading { term } => {
                assert!(self.leads.is_none() && term >= self.term, "it begins to lead once, in a later term");
                self.leads = Some(term);
            }
            Event::Following { .. } => assert!(self.leads.take().is_some(), "it has led"),
            Event::Stopped(error) => self.stopped = Some(error),
        }
    }

    fn commit(&mut self, ticket: Option<Ticket>, sequence: Sequence, term: Term, content: &[u8]) {
        assert_eq!(sequence, self.last.next(), "sequences run on");
        assert!(term >= self.term, "terms never fall");
        let body = body_of(content);
        if let Some(ticket) = ticket {
            let (&first, _) = self.open.first_key_value().expect("only what was appended commits");
            assert_eq!(ticket, first, "blocks commit in the order of their appends");
            assert_eq!(self.open.remove(&ticket).as_ref(), Some(&body), "a ticket is its block's");
        }
        self.committed.push(body);
        (self.last, self.term) = (sequence, term);
    }
}

/// The body of the only entry of a content.
fn body_of(content: &[u8]) -> Vec<u8> {
    let view = BlockView::parse(content).expect("a content as it was made");
    let entry = view.entries().next().expect("an entry").expect("a good entry");
    entry.body.to_vec()
}

fn open_journal(disk: &Arc<SimDisk>) -> Result<Arc<Journal>, JournalError> {
    let options = JournalOptions {
        segment_bytes: 64 << 10,
        tail: TailBudget::new(64 << 10),
        keep_free: 0,
        seed: Some(9),
        ..JournalOptions::default()
    };
    Journal::open(disk.clone(), BufPool::new(8 << 20), options, None).map(|(journal, _)| journal)
}

fn block_of(builder: &mut BlockBuilder, body: &[u8], durability: Durability) -> Block {
    builder.push(7, body, None, 0, durability);
    builder.take(0)
}

impl<'a> World<'a> {
    fn new(start: Start<'a>, seed: u64) -> Self {
        Self::over(start, SimDisk::new(seed), Ledger::default())
    }

    fn over(start: Start<'a>, disk: Arc<SimDisk>, mut ledger: Ledger) -> Self {
        let journal = open_journal(&disk).expect("the journal opens");
        let replicator = start(journal.clone());
        ledger.last = replicator.committed();
        let builder = BlockBuilder::new(BufPool::new(1 << 20));
        Self { start, disk, journal, replicator, builder, ledger, now_ms: 0 }
    }

    fn append(&mut self, body: &str, durability: Durability) -> Result<Ticket, BlockAppendError> {
        let block = block_of(&mut self.builder, body.as_bytes(), durability);
        let ticket = self.replicator.append(block)?;
        self.ledger.open.insert(ticket, body.into());
        Ok(ticket)
    }

    /// One operation of the disk, and all that follows from it.
    fn turn(&mut self) {
        self.disk.step();
        self.now_ms += 5;
        self.replicator.tick(self.now_ms);
        self.replicator.advance();
        let mut events = Vec::new();
        self.replicator.poll(&mut events);
        events.into_iter().for_each(|event| self.ledger.take(event));
        let committed = self.replicator.committed();
        assert!(self.ledger.stopped.is_some() || self.ledger.last == committed, "an event for each commit");
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("it did not come to an end: {} tickets are open", self.ledger.open.len());
    }

    fn settle(&mut self) {
        self.run_until(|world| world.ledger.open.is_empty());
    }

    /// Cuts the power; what is unsynced has that fate. What this run committed must be found.
    fn crash(self, fate: Option<Fate>) -> Self {
        let point = self.disk.power_off();
        let disk = match fate {
            Some(fate) => point.survive_all(fate),
            None => point.survive(&point.random_fates()),
        };
        let ledger = Ledger { committed: self.ledger.committed, ..Ledger::default() };
        Self::over(self.start, disk, ledger)
    }

    /// All that is committed, read back.
    fn replayed(&self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let all = self.journal.replay::<JournalError>(Sequence::NONE, &mut |block| {
            found.push(body_of(&block.content));
            Ok(())
        });
        all.expect("what is committed can be replayed");
        found
    }

    fn read(&self, sequence: Sequence) -> Result<Bytes, BlockReadError> {
        match self.journal.read(sequence, 0, 32)? {
            Read::Hot(bytes) | Read::Ahead(bytes) => Ok(bytes),
            Read::Cold(cold) => cold.run(),
        }
    }
}

fn durability(i: u32) -> Durability {
    if i.is_multiple_of(3) { Durability::Os } else { Durability::Sync }
}

fn commits_in_order(start: Start<'_>, seed: u64) {
    let mut world = World::new(start, seed);
    let mut bodies = Vec::new();
    for i in 0..60 {
        bodies.push(format!("{i}").into_bytes());
        world.append(&format!("{i}"), durability(i)).expect("taken");
        if i % 5 == 0 {
            world.turn();
        }
    }
    world.settle();
    assert_eq!(world.ledger.committed.clone(), bodies);
    assert_eq!(world.replayed(), bodies);
    for sequence in 1..=60 {
        assert_eq!(world.read(Sequence(sequence)).expect("readable").len(), 32);
    }
}

fn tells_that_it_leads(start: Start<'_>) {
    let mut world = World::new(start, 2);
    for _ in 0..3 {
        let term = world.replicator.term();
        world.turn();
        assert_eq!(world.ledger.leads, Some(term), "each start, before anything is appended");
        assert!(world.replicator.is_leader());
        world.append("taken", Durability::Sync).expect("taken");
        world.settle();
        assert_eq!(world.ledger.leads, Some(term), "once");
        world = world.crash(Some(Fate::Kept));
    }
}

fn hides_what_is_not_final(start: Start<'_>) {
    let mut world = World::new(start, 3);
    world.append("seen", Durability::Sync).expect("taken");
    world.settle();
    let seen = world.replicator.committed();
    world.disk.stall(Op::Write);
    for body in ["a", "b", "c"] {
        world.append(body, Durability::Sync).expect("taken");
    }
    for _ in 0..50 {
        world.turn();
        assert_eq!(world.replicator.committed(), seen);
        for hidden in seen.0 + 1..seen.0 + 5 {
            let read = world.read(Sequence(hidden));
            assert!(matches!(read, Err(BlockReadError::NotCommitted { .. })), "{read:?}");
        }
        assert_eq!(world.replayed(), world.ledger.committed.clone());
    }
    world.disk.resume();
    world.settle();
    assert_eq!(world.ledger.committed.clone().len(), 4);
}

fn cuts_what_is_not_final(start: Start<'_>, seed: u64) {
    let mut world = World::new(start, seed);
    for round in 0..6u32 {
        for i in 0..7 {
            world.append(&format!("{round}-{i}"), durability(i)).expect("taken");
        }
        for _ in 0..round * 2 {
            world.turn();
        }
        let (committed, term) = (world.replicator.committed(), world.replicator.term());
        let open = world.ledger.open.len();
        world.replicator.cut(committed).expect("an uncommitted tail can be cut");
        let kept = world.replicator.committed();
        world.run_until(|world| world.ledger.open.is_empty());
        assert_eq!((world.ledger.last, kept), (committed, committed), "a cut commits nothing");
        assert!(open == 0 || world.replicator.term() > term, "a cut raises the term");
    }
    world.append("last", Durability::Sync).expect("taken");
    world.settle();
    let bodies = world.ledger.committed.clone();
    assert_eq!(world.replayed(), bodies);
    let world = world.crash(Some(Fate::Lost));
    let found = world.after_restart();
    assert_eq!(found, bodies, "nothing that was cut comes back");
}

impl World<'_> {
    /// What is committed once all that was recovered has been.
    fn after_restart(mut self) -> Vec<Vec<u8>> {
        self.append("restarted", Durability::Sync).expect("taken");
        self.settle();
        let mut found = self.replayed();
        assert_eq!(found.pop(), Some(b"restarted".to_vec()));
        found
    }
}

fn never_cuts_what_is_final(start: Start<'_>) {
    let mut world = World::new(start, 5);
    for i in 0..5 {
        world.append(&format!("{i}"), Durability::Sync).expect("taken");
    }
    world.settle();
    let (committed, term) = (world.replicator.committed(), world.replicator.term());
    for after in [Sequence(0), Sequence(committed.0 - 1)] {
        let cut = world.replicator.cut(after);
        assert!(matches!(cut, Err(CutError::Committed { .. })), "{cut:?}");
    }
    world.replicator.cut(committed).expect("there is nothing to cut");
    assert_eq!(world.replicator.term(), term, "nothing was cut");
    assert_eq!(world.replayed().len(), 5);
}

fn keeps_what_it_committed(start: Start<'_>, seed: u64) {
    let mut world = World::new(start, seed);
    let mut term = world.replicator.term();
    for life in 0..4 {
        for i in 0..10 {
            world.append(&format!("{life}-{i}"), Durability::Sync).expect("taken");
            (0..seed % 4).for_each(|_| world.turn());
        }
        let before = world.ledger.committed.clone();
        world = world.crash(None);
        assert!(world.replicator.term() > term, "each start has a term of its own");
        term = world.replicator.term();
        world.append("probe", Durability::Sync).expect("taken");
        world.settle();
        let found = world.replayed();
        assert_eq!(found[..before.len()], before, "what was committed is there, in its place");
        world.ledger.committed = found;
    }
}

fn ends_every_ticket(start: Start<'_>, seed: u64) {
    let mut world = World::new(start, seed);
    let mut appended = 0;
    for i in 0..200u64 {
        let roll = (seed + 1).wrapping_mul(i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60;
        match roll {
            0..=8 => {
                world.append(&format!("{i}"), durability(i as u32)).expect("taken");
                appended += 1;
            }
            9 => {
                let committed = world.replicator.committed();
                let after = Sequence(committed.0 + i % 3);
                world.replicator.cut(after).expect("an uncommitted tail can be cut");
            }
            _ => world.turn(),
        }
    }
    world.settle();
    let (committed, cut) = (world.ledger.committed.len(), world.ledger.cut.len());
    assert_eq!(committed + cut, appended, "each ticket ends once");
    assert_eq!(world.replayed(), world.ledger.committed.clone());
    let bodies = world.ledger.committed.clone();
    assert!(world.ledger.cut.iter().all(|cut| !bodies.contains(cut)), "what was cut is not there");
}

fn tells_when_there_is_something(start: Start<'_>, seed: u64) {
    let mut world = World::new(start, seed);
    let told = Arc::new(AtomicBool::new(false));
    let flag = told.clone();
    world.replicator.set_waker(Arc::new(move || flag.store(true, Ordering::SeqCst)));
    for i in 0..20 {
        world.append(&format!("{i}"), durability(i)).expect("taken");
    }
    // No thread looks unless told.
    for _ in 0..10_000 {
        world.disk.step();
        if told.swap(false, Ordering::SeqCst) {
            world.replicator.advance();
            let mut events = Vec::new();
            world.replicator.poll(&mut events);
            events.into_iter().for_each(|event| world.ledger.take(event));
        }
    }
    // What asked for no sync and nothing behind it does may still wait for time to pass; all else has been told.
    assert!(world.ledger.open.is_empty(), "{} tickets got no wake-up", world.ledger.open.len());
}

fn stops_for_good(start: Start<'_>) {
    for op in [Op::Write, Op::Sync] {
        let mut world = World::new(start, 11);
        for i in 0..5 {
            world.append(&format!("{i}"), Durability::Os).expect("taken");
        }
        world.settle();
        let committed = world.ledger.committed.clone();
        world.disk.inject(Injection { op: Some(op), skip: 0, fault: Fault::Io, lasting: false });
        for i in 5..10 {
            // The first ones are taken; the stop may come with a later one.
            let _ = world.append(&format!("{i}"), Durability::Sync);
        }
        world.run_until(|world| world.ledger.stopped.is_some());
        let refused = world.append("late", Durability::Sync);
        assert!(matches!(refused, Err(BlockAppendError::Stopped(_))), "{refused:?}");
        (0..50).for_each(|_| world.turn());
        let now = world.ledger.committed.clone();
        assert_eq!(now[..committed.len()], committed);
        for sequence in 1..=now.len() as u64 {
            world.read(Sequence(sequence)).expect("reads go on");
        }
    }
}

fn takes_blocks_from_many_threads(start: Start<'_>) {
    const THREADS: usize = 4;
    const EACH: usize = 200;
    let disk = SimDisk::new(77);
    disk.set_auto(true);
    let journal = open_journal(&disk).expect("the journal opens");
    let replicator = start(journal.clone());
    let order = Mutex::new(Vec::new());
    let drive = |out: &mut Vec<Event>| {
        replicator.advance();
        replicator.poll(out);
    };
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (replicator, order, seen) = (&replicator, &order, &seen);
            scope.spawn(move || {
                let mut builder = BlockBuilder::new(BufPool::new(1 << 20));
                for i in 0..EACH {
                    let block =
                        block_of(&mut builder, format!("{thread}-{i}").as_bytes(), durability(i as u32));
                    let ticket = replicator.append(block).expect("taken");
                    order.lock().push((ticket, format!("{thread}-{i}").into_bytes()));
                    drive(&mut seen.lock());
                }
            });
        }
    });
    for now_ms in 0..100_000 {
        replicator.tick(now_ms);
        drive(&mut seen.lock());
        if ended(&seen.lock()) >= THREADS * EACH {
            break;
        }
    }
    let mut ledger = Ledger { open: order.into_inner().into_iter().collect(), ..Ledger::default() };
    assert_eq!(ledger.open.len(), THREADS * EACH, "each append has a ticket of its own");
    seen.into_inner().into_iter().for_each(|event| ledger.take(event));
    assert!(ledger.open.is_empty(), "{} tickets are open", ledger.open.len());
}

/// How many tickets have ended at most; a cut may end several.
fn ended(events: &[Event]) -> usize {
    let ended = |event: &Event| match event {
        Event::Committed { ticket, .. } => ticket.map_or(0, |ticket| ticket.0 as usize + 1),
        _ => 0,
    };
    events.iter().map(ended).max().unwrap_or(0)
}
