use std::sync::Arc;

use sabir_base::buf::BufPool;
use sabir_model::{Durability, Sequence};

use super::{LateOptions, LateReplicator, replicator_suite};
use crate::disk::sim::{Op, SimDisk};
use crate::{
    Block, BlockAppendError, BlockBuilder, BlockReadError, Event, Journal, JournalOptions, Read, Replicator,
    Solo, Ticket,
};

#[test]
fn solo_conforms() {
    replicator_suite(&|journal| Solo::start(journal).unwrap());
}

#[test]
fn a_late_replicator_conforms() {
    for seed in 0..4 {
        let options = LateOptions { seed, auto: true, ..LateOptions::default() };
        replicator_suite(&move |journal| LateReplicator::start(journal, options).unwrap());
    }
}

struct Late {
    disk: Arc<SimDisk>,
    journal: Arc<Journal>,
    late: Arc<LateReplicator>,
    events: Vec<Event>,
}

fn block(body: &[u8], time_ms: i64) -> Block {
    let mut builder = BlockBuilder::new(BufPool::new(0));
    builder.push(1, body, None, 0, Durability::Sync);
    builder.take(time_ms)
}

impl Late {
    fn over(disk: Arc<SimDisk>, options: LateOptions) -> Self {
        let journal_options = JournalOptions { segment_bytes: 64 << 10, keep_free: 0, ..Default::default() };
        let (journal, _) = Journal::open(disk.clone(), BufPool::new(4 << 20), journal_options, None).unwrap();
        let late = LateReplicator::start(journal.clone(), options).unwrap();
        Self { disk, journal, late, events: Vec::new() }
    }

    fn append(&self, body: &[u8]) -> Result<Ticket, BlockAppendError> {
        self.late.append(block(body, 0))
    }

    fn append_all(&self, bodies: std::ops::Range<u8>) {
        for body in bodies {
            self.append(&[body]).unwrap();
        }
    }

    fn settle(&mut self) {
        self.disk.run();
        self.late.advance();
        self.late.poll(&mut self.events);
    }

    fn committed(&self) -> Vec<u64> {
        let committed = |event: &Event| match event {
            Event::Committed { sequence, .. } => Some(sequence.0),
            _ => None,
        };
        self.events.iter().filter_map(committed).collect()
    }
}

#[test]
fn commits_when_told_and_never_before_the_disk() {
    let mut late = Late::over(SimDisk::new(1), LateOptions::default());
    late.append_all(0..5);
    late.settle();
    assert_eq!(late.committed(), []);
    assert!(matches!(late.journal.read(Sequence(1), 0, 8), Err(BlockReadError::NotCommitted { .. })));
    late.late.commit(2);
    late.settle();
    assert_eq!(late.committed(), [1, 2]);
    late.disk.stall(Op::Write);
    late.append(b"stalled").unwrap();
    late.late.commit_all();
    late.settle();
    assert_eq!(late.committed(), [1, 2, 3, 4, 5]);
    late.disk.resume();
    late.settle();
    assert_eq!(late.committed(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn ahead_of_the_disk_a_block_is_final_and_readable_before_it_is_written() {
    let options = LateOptions { ahead_of_disk: true, ..LateOptions::default() };
    let mut late = Late::over(SimDisk::new(2), options);
    late.disk.stall(Op::Write);
    late.append(b"early").unwrap();
    late.late.commit_all();
    late.settle();
    assert_eq!((late.committed(), late.journal.acked()), (vec![1], Sequence(0)));
    assert!(matches!(late.journal.read(Sequence(1), 0, 8), Ok(Read::Hot(_))));
    late.disk.resume();
    late.settle();
    assert_eq!(late.journal.acked(), Sequence(1));
}

#[test]
fn a_recovered_tail_is_final_only_later_and_has_no_tickets() {
    let mut late = Late::over(SimDisk::new(3), LateOptions::default());
    late.append_all(0..4);
    late.settle();
    late.late.commit(2);
    let mut late = Late::over(late.disk.crash(), LateOptions::default());
    let known = late.late.committed();
    assert!(known <= Sequence(2));
    late.late.commit_all();
    late.settle();
    assert_eq!(late.committed(), (known.0 + 1..=4).collect::<Vec<_>>());
    let [Event::Leading { .. }, recovered @ ..] = &late.events[..] else { panic!("{:?}", late.events) };
    assert!(recovered.iter().all(|event| matches!(event, Event::Committed { ticket: None, .. })));
}

#[test]
fn the_time_of_blocks_does_not_fall_where_another_node_comes_to_lead() {
    let mut late = Late::over(SimDisk::new(9), LateOptions::default());
    late.append(b"ours").unwrap();
    late.late.lead(false).unwrap();
    late.late.take_in(block(b"theirs", 7)).unwrap();
    assert_eq!(late.journal.last_ms(), 7);
    late.late.lead(true).unwrap();
    assert!(matches!(late.append(b"closed before"), Err(BlockAppendError::NotLeader(_))));
    late.late.append(block(b"ours again", 7)).unwrap();
    late.late.commit_all();
    late.settle();
    assert_eq!(late.committed(), [1, 2, 3]);
    late.late.append(block(b"not final", 8)).unwrap();
    late.settle();
    let late = Late::over(late.disk.crash(), LateOptions::default());
    assert_eq!(late.journal.last_ms(), 8);
}

#[test]
fn one_who_does_not_lead_takes_nothing() {
    let mut late = Late::over(SimDisk::new(4), LateOptions::default());
    let term = late.late.term();
    late.late.lead(false).unwrap();
    assert!(matches!(late.append(b"no"), Err(BlockAppendError::NotLeader(_))));
    late.late.lead(true).unwrap();
    assert!(late.late.term() > term);
    late.late.lead(true).unwrap();
    late.append(b"yes").unwrap();
    late.late.commit_all();
    late.settle();
    assert_eq!(late.committed(), [1]);
    let told = late.events.iter().filter_map(|event| match event {
        Event::Leading { term } => Some(Some(*term)),
        Event::Following { leader: None } => Some(None),
        _ => None,
    });
    assert_eq!(told.collect::<Vec<_>>(), [Some(term), None, Some(late.late.term())], "each change once");
}

#[test]
fn by_itself_it_cuts_now_and_then() {
    let options = LateOptions { seed: 5, auto: true, cut_per_mille: 200, ..LateOptions::default() };
    let mut late = Late::over(SimDisk::new(5), options);
    for i in 0..200 {
        late.append(&[i]).unwrap();
        late.late.tick(u64::from(i));
        late.late.poll(&mut late.events);
    }
    while late.journal.last() > late.late.committed() {
        late.settle();
    }
    late.settle();
    let cuts = late.events.iter().filter(|event| matches!(event, Event::Cut { .. })).count();
    assert!(cuts > 3 && late.committed().len() > 20, "{cuts} cuts, {} commits", late.committed().len());
    assert_eq!(late.committed(), (1..=late.journal.last().0).collect::<Vec<_>>());
}
